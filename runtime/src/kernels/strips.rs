//! How the pixels of a convolution's output find their inputs.
//!
//! The output is computed in strips of rows, so that what a strip reads stays in a near cache. Where x has a border, or is
//! wanted in another form, the rows that a strip reads are copied into scratch memory first, border included; no inner
//! loop tests for borders. The taps of a pixel are runs of memory, the same for all pixels.

use super::window::Window;

/// Bytes of x that a strip may read: a part of a second-level cache.
const STRIP_BYTES: usize = 384 << 10;

/// An element of x as kernels read it.
pub trait Convert<T>: Copy + 'static {
    /// Whether the element stays what it is.
    const IDENTITY: bool = false;
    /// Converts elements, as many as both sides have.
    fn convert(from: &[Self], to: &mut [T]);
}

macro_rules! convert {
    ($($from:ty => $to:ty, $v:ident => $converted:expr;)*) => { $(
        impl Convert<$to> for $from {
            // A function of its own, so that the compiler sees two slices that do not overlap.
            #[inline(never)]
            fn convert(from: &[$from], to: &mut [$to]) {
                for (to, from) in to.iter_mut().zip(from) {
                    let $v = *from;
                    *to = $converted;
                }
            }
        }
    )* };
}
convert! {
    // 128 is added.
    i8 => u8, v => v as u8 ^ 0x80;
    i8 => i16, v => v as i16;
    u8 => i16, v => v as i16;
}

macro_rules! identity {
    ($($ty:ty)*) => { $(
        impl Convert<$ty> for $ty {
            const IDENTITY: bool = true;
            #[inline(always)]
            fn convert(from: &[$ty], to: &mut [$ty]) {
                to.copy_from_slice(from);
            }
        }
    )* };
}
identity! { f32 i8 u8 }

/// The cut of an output into strips, and the places of a pixel's taps. Lengths and offsets are in elements.
#[derive(Clone, Debug)]
pub struct Strips {
    pub window: Window,
    /// Output rows of a strip.
    rows: usize,
    /// Whether rows are copied.
    copied: bool,
    /// From a row, as it is read, to the next.
    line: usize,
    /// From the first element of a pixel to each of its runs.
    pub runs: Vec<usize>,
    pub run_len: usize,
}

/// One strip, ready to be read.
pub struct Strip<T> {
    /// The first run of the first pixel.
    pub x: *const T,
    /// Output pixels.
    pub pixels: usize,
    /// From an output column to the next, and from a row to the next.
    pub column_step: usize,
    pub row_step: usize,
}

impl Strips {
    /// Strips over elements of so many bytes as they are read; `convert` where these are not x's own. Each tap is a run
    /// of its own where `separate`.
    pub fn new(window: Window, element: usize, convert: bool, separate: bool) -> Strips {
        let [reach_y, reach_x] = [0, 1].map(|a| (window.kernel[a] - 1) * window.dilation[a] + 1);
        let read = [(window.out[0] - 1) * window.stride[0] + reach_y, (window.out[1] - 1) * window.stride[1] + reach_x];
        let inside = |axis: usize| window.pad[axis] == 0 && read[axis] <= window.size[axis];
        let copied = convert || !(inside(0) && inside(1));
        let line = if copied { read[1] } else { window.size[1] } * window.channels;
        let c = window.channels;
        let (columns, run_len) =
            if window.dilation[1] == 1 && !separate { (1, window.kernel[1] * c) } else { (window.kernel[1], c) };
        let tap = |y: usize, x: usize| y * window.dilation[0] * line + x * window.dilation[1] * c;
        let runs = (0..window.kernel[0]).flat_map(|y| (0..columns).map(move |x| tap(y, x))).collect();
        let fit = (STRIP_BYTES / (line * element).max(1)).saturating_sub(reach_y) / window.stride[0] + 1;
        let rows = fit.min(window.out[0]);
        Strips { window, rows, copied, line, runs, run_len }
    }

    /// With no more than so many output rows, but one at least, in a strip.
    pub fn limited(self, rows: usize) -> Strips {
        Strips { rows: self.rows.min(rows.max(1)), ..self }
    }

    /// All rows of an image in one strip.
    pub fn whole(self) -> Strips {
        Strips { rows: self.window.out[0], ..self }
    }

    /// Output rows of a strip, at most.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Rows as read that a strip of so many output rows needs.
    fn lines(&self, rows: usize) -> usize {
        let w = &self.window;
        (rows - 1) * w.stride[0] + (w.kernel[0] - 1) * w.dilation[0] + 1
    }

    /// Elements of scratch memory: the rows of a strip.
    pub fn scratch_len(&self) -> usize {
        if self.copied { self.lines(self.rows) * self.line } else { 0 }
    }

    /// Calls `work` for each strip of the output rows from `first` on, counted through all images, with the number of
    /// output pixels before it.
    ///
    /// # Safety
    /// `x` must point to the whole input, `scratch` to as many elements as [`Strips::scratch_len`] says, and the rows lie
    /// inside the output. X and T are one type unless `convert` was set.
    #[inline(always)]
    pub unsafe fn each<X: Convert<T>, T: Copy>(
        &self,
        x: *const X,
        scratch: *mut T,
        first: usize,
        rows: usize,
        pad: T,
        mut work: impl FnMut(Strip<T>, usize),
    ) {
        let w = &self.window;
        let mut row = first;
        while row < first + rows {
            let (image, y) = (row / w.out[0], row % w.out[0]);
            let count = self.rows.min(w.out[0] - y).min(first + rows - row);
            // SAFETY: an image of the input starts there.
            let image = unsafe { x.add(image * w.size[0] * w.size[1] * w.channels) };
            let start = if self.copied {
                // SAFETY: the caller's contract.
                unsafe { self.copy(image, scratch, y, count, pad) };
                scratch.cast_const()
            } else {
                // SAFETY: without a border the strip's first row is a row of the image.
                unsafe { image.add(y * w.stride[0] * self.line).cast() }
            };
            let strip = Strip {
                x: start,
                pixels: count * w.out[1],
                column_step: w.stride[1] * w.channels,
                row_step: w.stride[0] * self.line,
            };
            work(strip, (row - first) * w.out[1]);
            row += count;
        }
    }

    /// Copies what the output rows from `y` on read.
    ///
    /// # Safety
    /// As [`Strips::each`], for the start of one image.
    #[inline(always)]
    unsafe fn copy<X: Convert<T>, T: Copy>(&self, image: *const X, scratch: *mut T, y: usize, rows: usize, pad: T) {
        let w = &self.window;
        let c = w.channels;
        let width = self.line / c.max(1);
        let left = w.pad[1].min(width);
        let inner = w.size[1].min(width - left);
        // Rows and columns beyond the kernel's taps in a stride are copied too: it is simpler, and rarely any.
        for i in 0..self.lines(rows) {
            let at = (y * w.stride[0] + i).wrapping_sub(w.pad[0]);
            // SAFETY: `line` elements for each of the strip's rows.
            let to = unsafe { std::slice::from_raw_parts_mut(scratch.add(i * self.line), self.line) };
            if at >= w.size[0] {
                to.fill(pad);
                continue;
            }
            // SAFETY: a row of the image, of which no more than its length is read.
            let from = unsafe { std::slice::from_raw_parts(image.add(at * w.size[1] * c), inner * c) };
            let (before, rest) = to.split_at_mut(left * c);
            let (middle, after) = rest.split_at_mut(inner * c);
            before.fill(pad);
            X::convert(from, middle);
            after.fill(pad);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(
        size: [usize; 2],
        kernel: [usize; 2],
        stride: [usize; 2],
        pad: [usize; 2],
        dilation: [usize; 2],
    ) -> Window {
        let out = [0, 1].map(|a| (size[a] + 2 * pad[a] - (kernel[a] - 1) * dilation[a] - 1) / stride[a] + 1);
        Window { batch: 2, size, channels: 3, out, out_channels: 1, kernel, stride, pad, dilation }
    }

    /// Every tap of every pixel, through strips, is what the definition says.
    fn check(w: Window, rows: usize, convert: bool, separate: bool) {
        let len = w.batch * w.size[0] * w.size[1] * w.channels;
        let x: Vec<i8> = (0..len).map(|i| (i % 120) as i8 + 1).collect();
        let mut strips = Strips::new(w.clone(), 4, convert, separate);
        strips = strips.limited(rows);
        let mut scratch = vec![77i8; strips.scratch_len()];
        let mut seen = 0;
        // SAFETY: x and scratch are as long as the strips say.
        unsafe {
            let scratch = scratch.as_mut_ptr();
            strips.each::<i8, i8>(x.as_ptr(), scratch, 0, 2 * w.out[0], 0, |strip, before| {
                assert_eq!(before, seen);
                for p in 0..strip.pixels {
                    let (image, pixel) = ((seen + p) / (w.out[0] * w.out[1]), (seen + p) % (w.out[0] * w.out[1]));
                    let (oy, ox) = (pixel / w.out[1], pixel % w.out[1]);
                    let at = p / w.out[1] * strip.row_step + p % w.out[1] * strip.column_step;
                    let got = strips.runs.iter().flat_map(|run| (0..strips.run_len).map(move |k| at + run + k));
                    let got: Vec<i8> = got.map(|i| *strip.x.add(i)).collect();
                    let mut want = Vec::new();
                    for (ky, kx) in (0..w.kernel[0]).flat_map(|ky| (0..w.kernel[1]).map(move |kx| (ky, kx))) {
                        let y = (oy * w.stride[0] + ky * w.dilation[0]).wrapping_sub(w.pad[0]);
                        let x0 = (ox * w.stride[1] + kx * w.dilation[1]).wrapping_sub(w.pad[1]);
                        for c in 0..w.channels {
                            let inside = y < w.size[0] && x0 < w.size[1];
                            let i = || ((image * w.size[0] + y) * w.size[1] + x0) * w.channels + c;
                            want.push(if inside { x[i()] } else { 0 });
                        }
                    }
                    assert_eq!(got, want, "{w:?} pixel {pixel}");
                }
                seen += strip.pixels;
            });
        }
        assert_eq!(seen, 2 * w.out[0] * w.out[1]);
    }

    #[test]
    fn taps_are_where_the_definition_says() {
        for (size, kernel, stride, pad, dilation) in [
            ([5, 6], [3, 3], [1, 1], [1, 1], [1, 1]),
            ([6, 5], [3, 3], [2, 2], [0, 1], [1, 1]),
            ([4, 4], [1, 1], [1, 1], [0, 0], [1, 1]),
            ([7, 5], [1, 1], [2, 3], [0, 0], [1, 1]),
            ([7, 9], [2, 3], [3, 1], [2, 0], [1, 2]),
            ([8, 8], [3, 2], [1, 2], [0, 0], [2, 1]),
        ] {
            let w = window(size, kernel, stride, pad, dilation);
            for rows in [1, 2, 100] {
                check(w.clone(), rows, false, false);
                check(w.clone(), rows, true, false);
                check(w.clone(), rows, false, true);
            }
        }
    }
}
