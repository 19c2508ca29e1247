//! `f32` convolution of 3x3 with a stride of 1 by Winograd's F(2x2, 3x3), NHWC, one group.
//!
//! A tile of 2x2 outputs takes sixteen products a channel pair instead of 36. The input's tiles of 4x4 are transformed in
//! vectors of channels, each of the sixteen frequencies is a matrix product of tiles by channels, by register tiles, and
//! the results are transformed back. Transforms add and subtract only; errors stay within the bound of direct kernels.
//! Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2015.

use super::cut::{Cut, Part};
use super::elementwise::Elements;
use super::floats::{FloatEpilogue, Floats};
use super::fused::{ALL, Finish, FusedFloat};
use super::product::{self, multiply};
use super::simd::{self, Simd};
use super::strips::{Strip, Strips};
use super::tile::Tiles;
use super::window::Window;
use super::{Call, Kernel, Prepared, Purpose};
use mcc_ir::DType;
use mcc_ir::catalogue::KernelSpec;
use mcc_ir::packing::Packing;
use std::marker::PhantomData;
use std::ops::Range;

const FREQUENCIES: usize = 16;
/// Bytes that a strip's transformed tiles may have: as many as the weights, which each strip reads once, within a part of
/// a second-level cache and a few of it.
const STRIP_BYTES: std::ops::RangeInclusive<usize> = 256 << 10..=2 << 20;

/// Weights: for each frequency, panels `[C][width]`.
struct Winograd<S> {
    /// Tiles are pixels of an output of half the size.
    strips: Strips,
    /// Rows and columns of the output.
    out: [usize; 2],
    channels: usize,
    width: usize,
    /// One a channel, up to whole panels.
    bias: Vec<f32>,
    /// As long as `bias`.
    zeros: Vec<f32>,
    fused: FusedFloat,
    /// The most tiles of a strip.
    tiles: usize,
    cut: Cut,
    level: PhantomData<S>,
}

pub fn prepare<S: Transforms + Elements>(spec: &KernelSpec<'_>, _: Purpose) -> Option<Prepared>
where
    Floats<S>: Tiles<X = f32, W = f32, Bias = f32, Epilogue = FloatEpilogue>,
{
    let (o, window) = Window::of(spec)?;
    let fits = o.groups == 1 && window.kernel == [3, 3] && window.stride == [1, 1] && window.dilation == [1, 1];
    if !fits || spec.arg_types[0].dtype != DType::F32 || spec.out_type.elements() == 0 || window.channels == 0 {
        return None;
    }
    let fused = FusedFloat::of::<S>(spec)?;
    let bias = super::bias(spec)?;
    let (c, n, out, batch) = (window.channels, window.out_channels, window.out, window.batch);
    let grid = out.map(|size| size.div_ceil(2));
    let call = Call::of(spec, &window, Some(&fused));
    let x_bytes = batch * window.size[0] * window.size[1] * c * 4;
    let tiled = Window { out: grid, kernel: [4, 4], stride: [2, 2], ..window };
    let per_row = grid[1] * FREQUENCIES * (c + n) * 4;
    let bytes = (FREQUENCIES * c * n * 4).clamp(*STRIP_BYTES.start(), *STRIP_BYTES.end());
    let strips = Strips::new(tiled, 4, false, true).limited(bytes / per_row);
    let tiles = strips.rows() * grid[1];
    let width = product::width::<Floats<S>>(n, tiles);
    let cut = Cut::new(batch * grid[0], n.div_ceil(width), x_bytes, FREQUENCIES * c * n * 4);
    let all = batch * grid[0] * grid[1];
    let vectors = c.div_ceil(S::LANES) * 80 + n.div_ceil(S::LANES) * 70;
    let macs = all * FREQUENCIES * c * n.next_multiple_of(S::LANES);
    // Short sums leave tiles of products little to do beside loading and storing.
    let products = macs as f64 / <Floats<S> as Tiles>::MACS_PER_CYCLE * (1.0 + 4.0 / c as f64);
    let cycles = products + (all * vectors) as f64;
    let bias = super::padded(bias, width);
    let kernel = Winograd::<S> {
        zeros: vec![0.0; bias.len()],
        strips,
        out,
        channels: n,
        width,
        bias,
        fused,
        tiles,
        cut,
        level: PhantomData,
    };
    let scratch = (kernel.rows_len() + FREQUENCIES * (apart(tiles * c) + apart(tiles * n))) * 4;
    Some(Prepared::of_kernel(spec, kernel, call, scratch, Packing::WinogradPanel { rows: width }, cycles))
}

/// From a frequency to the next, for so many elements: whole lines of a cache, and one more, as the sixteen would meet in
/// one set of the cache if a power of two lay between them.
fn apart(elements: usize) -> usize {
    elements.next_multiple_of(16) + 16
}

impl<S> Winograd<S> {
    /// Elements of scratch memory for copied rows, up to whole lines of a cache.
    fn rows_len(&self) -> usize {
        self.strips.scratch_len().next_multiple_of(16)
    }
}

impl<S: Transforms> Kernel for Winograd<S>
where
    Floats<S>: Tiles<X = f32, W = f32, Bias = f32, Epilogue = FloatEpilogue>,
{
    fn pieces(&self) -> usize {
        self.cut.pieces()
    }

    unsafe fn run(&self, part: &Part, x: *const u8, w: *const u8, extra: *const u8, out: *mut u8, scratch: *mut u8) {
        let (cut_rows, cut_panels) = self.cut.ranges(&part.pieces);
        let (strips, n) = (&self.strips, self.channels);
        let c = strips.window.channels;
        let [grid_rows, grid_columns] = strips.window.out;
        let panel = c * self.width;
        let frequency = n.div_ceil(self.width) * panel;
        let channels = (cut_panels.start * self.width).min(n)..(cut_panels.end * self.width).min(n);
        let rows: *mut f32 = scratch.cast();
        // Behind each other in scratch memory.
        let transformed = rows.wrapping_add(self.rows_len());
        let (apart_in, apart_out) = (apart(self.tiles * c), apart(self.tiles * n));
        let products = transformed.wrapping_add(FREQUENCIES * apart_in);
        let work = |strip: Strip<f32>, before: usize| {
            let tiles = strip.pixels;
            let forward = Forward {
                strip: &strip,
                taps: &strips.runs,
                columns: grid_columns,
                c,
                apart: apart_in,
                to: transformed,
            };
            // SAFETY: the kernel was chosen for a level that the machine has; the strip gives its pixels, and scratch memory
            // holds the frequencies of all tiles.
            unsafe { S::forward(&forward) };
            for f in 0..FREQUENCIES {
                let line = Strip {
                    x: transformed.wrapping_add(f * apart_in).cast_const(),
                    pixels: tiles,
                    column_step: c,
                    row_step: 0,
                };
                let to = products.wrapping_add(f * apart_out);
                let product = product::Line {
                    strip: &line,
                    columns: tiles,
                    runs: &[0],
                    steps: c,
                    panels: cut_panels.clone(),
                    weights: w.cast::<f32>().wrapping_add(f * frequency + cut_panels.start * panel),
                    width: self.width,
                    channels: n,
                    bias: &self.zeros,
                    before: 0,
                };
                let epilogue = || FloatEpilogue { out: to, residual: std::ptr::null(), bounds: ALL };
                // SAFETY: as above; the weights are packed as the panels say.
                unsafe { multiply::<Floats<S>>(&product, epilogue) };
            }
            let row = cut_rows.start + before / grid_columns;
            let image = row / grid_rows;
            let backward = Backward {
                from: products,
                tiles,
                columns: grid_columns,
                n,
                channels: channels.clone(),
                apart: apart_out,
                bias: &self.bias,
                out: self.out,
                row: 2 * (row % grid_rows),
                at: image * self.out[0] * self.out[1] * n,
                epilogue: self.fused.at(out, extra),
            };
            // SAFETY: as above; the caller's contract gives output and residual.
            unsafe { S::backward(&backward) };
            let rows = (2 * tiles / grid_columns).min(self.out[0] - backward.row);
            let first = (image * self.out[0] + backward.row) * self.out[1];
            // SAFETY: as above; these rows are computed.
            unsafe { self.fused.after_pixels(out, n, first..first + rows * self.out[1], channels.clone()) };
        };
        // SAFETY: the caller's contract; scratch memory is as long as was asked for.
        unsafe { strips.each::<f32, f32>(x.cast(), rows, cut_rows.start, cut_rows.len(), 0.0, work) };
    }
}

/// A strip of tiles to be transformed: sixteen frequencies of `[tiles][C]`.
pub struct Forward<'a> {
    strip: &'a Strip<f32>,
    /// From a tile's first element to each of the sixteen.
    taps: &'a [usize],
    columns: usize,
    c: usize,
    /// From a frequency to the next.
    apart: usize,
    to: *mut f32,
}

/// Products, sixteen frequencies of `[tiles][N]`, to be transformed into output pixels.
pub struct Backward<'a> {
    from: *const f32,
    tiles: usize,
    columns: usize,
    n: usize,
    /// Those of the N to be transformed.
    channels: Range<usize>,
    /// From a frequency to the next.
    apart: usize,
    bias: &'a [f32],
    /// Rows and columns of the output.
    out: [usize; 2],
    /// The first row of the first tile.
    row: usize,
    /// The image's first element in the output.
    at: usize,
    epilogue: FloatEpilogue,
}

/// # Safety
/// The level's instructions must be there; the strip and `to` must be good for what the numbers say.
#[inline(always)]
unsafe fn forward<S: Simd>(p: &Forward<'_>) {
    let apart = p.apart;
    for t in 0..p.strip.pixels {
        let at = t / p.columns * p.strip.row_step + t % p.columns * p.strip.column_step;
        for first in (0..p.c).step_by(S::LANES) {
            let lanes = S::LANES.min(p.c - first);
            // SAFETY: the caller's contract: sixteen taps of a tile, and sixteen places for its frequencies.
            unsafe {
                let x = p.strip.x.add(at + first);
                let rows = [
                    input_line::<S>(x, &p.taps[..4], lanes),
                    input_line::<S>(x, &p.taps[4..8], lanes),
                    input_line::<S>(x, &p.taps[8..12], lanes),
                    input_line::<S>(x, &p.taps[12..16], lanes),
                ];
                let to = p.to.add(t * p.c + first);
                let [a, b, c, d] = rows;
                for (column, (((a, b), c), d)) in a.into_iter().zip(b).zip(c).zip(d).enumerate() {
                    let v = input::<S>([a, b, c, d]);
                    for (row, v) in v.into_iter().enumerate() {
                        let to = to.add((4 * row + column) * apart);
                        S::store_first(to, lanes, v);
                    }
                }
            }
        }
    }
}

/// One dimension of the input's transform.
///
/// # Safety
/// The level's instructions must be there.
#[inline(always)]
unsafe fn input<S: Simd>(d: [S::V; 4]) -> [S::V; 4] {
    // SAFETY: the caller's contract.
    unsafe { [S::sub(d[0], d[2]), S::add(d[1], d[2]), S::sub(d[2], d[1]), S::sub(d[1], d[3])] }
}

/// A row of a tile, transformed.
///
/// # Safety
/// The level's instructions must be there; `x` must be good for four taps.
#[inline(always)]
unsafe fn input_line<S: Simd>(x: *const f32, taps: &[usize], lanes: usize) -> [S::V; 4] {
    // SAFETY: the caller's contract.
    unsafe {
        input::<S>([
            S::load_first(x.add(taps[0]), lanes),
            S::load_first(x.add(taps[1]), lanes),
            S::load_first(x.add(taps[2]), lanes),
            S::load_first(x.add(taps[3]), lanes),
        ])
    }
}

/// A column of frequencies, which are `apart`, transformed.
///
/// # Safety
/// The level's instructions must be there; `from` must be good for four rows.
#[inline(always)]
unsafe fn output_column<S: Simd>(from: *const f32, apart: usize, lanes: usize) -> [S::V; 2] {
    // SAFETY: the caller's contract.
    unsafe {
        output::<S>([
            S::load_first(from, lanes),
            S::load_first(from.add(4 * apart), lanes),
            S::load_first(from.add(8 * apart), lanes),
            S::load_first(from.add(12 * apart), lanes),
        ])
    }
}

/// One dimension of the output's transform.
///
/// # Safety
/// The level's instructions must be there.
#[inline(always)]
unsafe fn output<S: Simd>(m: [S::V; 4]) -> [S::V; 2] {
    // SAFETY: the caller's contract.
    unsafe { [S::add(S::add(m[0], m[1]), m[2]), S::sub(S::sub(m[1], m[2]), m[3])] }
}

/// # Safety
/// The level's instructions must be there; `from` and the epilogue must be good for what the numbers say.
#[inline(always)]
unsafe fn backward<S: Simd>(p: &Backward<'_>) {
    let apart = p.apart;
    for t in 0..p.tiles {
        let (row, column) = (p.row + t / p.columns * 2, t % p.columns * 2);
        for first in p.channels.clone().step_by(S::LANES) {
            let lanes = S::LANES.min(p.channels.end - first);
            // SAFETY: the caller's contract: sixteen frequencies of a tile, whose pixels inside the output are stored; the
            // bias has whole vectors.
            unsafe {
                let from = p.from.add(t * p.n + first);
                let columns = [
                    output_column::<S>(from, apart, lanes),
                    output_column::<S>(from.add(apart), apart, lanes),
                    output_column::<S>(from.add(2 * apart), apart, lanes),
                    output_column::<S>(from.add(3 * apart), apart, lanes),
                ];
                let bias = S::load(p.bias.as_ptr().add(first));
                let [a, b, c, d] = columns;
                for (y, (((a, b), c), d)) in a.into_iter().zip(b).zip(c).zip(d).enumerate() {
                    let pair = output::<S>([a, b, c, d]);
                    for (x, v) in pair.into_iter().enumerate() {
                        if row + y < p.out[0] && column + x < p.out[1] {
                            let at = p.at + ((row + y) * p.out[1] + column + x) * p.n + first;
                            p.epilogue.store::<S>(at, lanes, S::add(v, bias));
                        }
                    }
                }
            }
        }
    }
}

/// The transforms of a level.
pub trait Transforms: Simd {
    /// # Safety
    /// The level's instructions must be there; all pointers must be good for what the numbers say.
    unsafe fn forward(p: &Forward<'_>);
    /// # Safety
    /// As [`Transforms::forward`].
    unsafe fn backward(p: &Backward<'_>);
}

macro_rules! level {
    ($simd:ty, $(#[$feature:meta])?) => {
        impl Transforms for $simd {
            unsafe fn forward(p: &Forward<'_>) {
                $(#[$feature])?
                unsafe fn compiled(p: &Forward<'_>) {
                    // SAFETY: the caller's contract.
                    unsafe { forward::<$simd>(p) }
                }
                // SAFETY: the caller's contract.
                unsafe { compiled(p) }
            }

            unsafe fn backward(p: &Backward<'_>) {
                $(#[$feature])?
                unsafe fn compiled(p: &Backward<'_>) {
                    // SAFETY: the caller's contract.
                    unsafe { backward::<$simd>(p) }
                }
                // SAFETY: the caller's contract.
                unsafe { compiled(p) }
            }
        }
    };
}

level!(simd::Portable,);
#[cfg(target_arch = "aarch64")]
level!(super::neon::Neon,);
#[cfg(target_arch = "x86_64")]
level!(simd::Avx2, #[target_feature(enable = "avx2,fma")]);
#[cfg(target_arch = "x86_64")]
level!(simd::Avx512, #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]);
