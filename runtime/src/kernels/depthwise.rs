//! Depthwise convolution, NHWC, one output channel an input channel, of floats and of bytes, in vectors of channels.
//!
//! Weights are `[kh][kw][C]`. A group of channels is one vector; its kernel of 3x3 stays in registers, and neighbouring
//! pixels share what they load. Other kernels go tap by tap.

use super::bytes::{self, Byte, ByteEpilogue, Ints, Of};
use super::cut::Part;
use super::elementwise::Elements;
use super::floats::{FloatEpilogue, Floats};
use super::fused::{ByteFinish, Finish, FusedBytes, FusedFloat};
use super::simd::{self, Simd};
use super::strips::{Convert, Strip, Strips};
use super::window::Window;
use super::{Call, Kernel, Prepared, Purpose, epilogue_cycles};
use mcc_ir::DType;
use mcc_ir::catalogue::KernelSpec;
use mcc_ir::packing::Packing;

/// The arithmetic of a vector of channels.
///
/// # Safety
/// All functions need the instructions that the type stands for. Pointers must be good for `lanes` elements, of 1 to
/// `LANES`, and for `LANES` where `PART` does not hold and in [`Channels::bias`].
pub unsafe trait Channels: Copy + Send + Sync + 'static {
    const LANES: usize;
    type X: Convert<Self::X> + Send + Sync;
    type W: Copy;
    type Bias: Copy + Default + Send + Sync;
    type V: Copy;
    type Sum: Copy;
    type Epilogue;

    unsafe fn x<const PART: bool>(from: *const Self::X, lanes: usize) -> Self::V;
    unsafe fn weights<const PART: bool>(from: *const Self::W, lanes: usize) -> Self::V;
    unsafe fn bias(from: *const Self::Bias) -> Self::Sum;
    /// `sum + x * w`.
    unsafe fn add(sum: Self::Sum, x: Self::V, w: Self::V) -> Self::Sum;
    /// Stores the first `lanes` sums as elements `at...` of the output, which are channels `channel...`.
    unsafe fn finish(e: &Self::Epilogue, at: usize, channel: usize, lanes: usize, sum: Self::Sum);
}

// SAFETY: the functions are those of S.
unsafe impl<S: Simd> Channels for Floats<S> {
    const LANES: usize = S::LANES;
    type X = f32;
    type W = f32;
    type Bias = f32;
    type V = S::V;
    type Sum = S::V;
    type Epilogue = FloatEpilogue;

    #[inline(always)]
    unsafe fn x<const PART: bool>(from: *const f32, lanes: usize) -> S::V {
        // SAFETY: the trait's contract.
        unsafe { if PART { S::load_part(from, lanes) } else { S::load(from) } }
    }
    #[inline(always)]
    unsafe fn weights<const PART: bool>(from: *const f32, lanes: usize) -> S::V {
        // SAFETY: the trait's contract.
        unsafe { if PART { S::load_part(from, lanes) } else { S::load(from) } }
    }
    #[inline(always)]
    unsafe fn bias(from: *const f32) -> S::V {
        // SAFETY: the trait's contract.
        unsafe { S::load(from) }
    }
    #[inline(always)]
    unsafe fn add(sum: S::V, x: S::V, w: S::V) -> S::V {
        // SAFETY: the trait's contract.
        unsafe { S::mul_add(x, w, sum) }
    }
    #[inline(always)]
    unsafe fn finish(e: &FloatEpilogue, at: usize, _channel: usize, lanes: usize, sum: S::V) {
        // SAFETY: the trait's contract.
        unsafe { e.store::<S>(at, lanes, sum) }
    }
}

// SAFETY: the functions are those of Q.
unsafe impl<Q: Ints, A: Byte> Channels for Of<Q, A> {
    const LANES: usize = Q::LANES;
    type X = A;
    type W = i8;
    type Bias = i32;
    type V = Q::I;
    type Sum = Q::I;
    type Epilogue = ByteEpilogue;

    #[inline(always)]
    unsafe fn x<const PART: bool>(from: *const A, lanes: usize) -> Q::I {
        // SAFETY: the trait's contract.
        unsafe { bytes::load::<Q, A>(from, if PART { lanes } else { Q::LANES }) }
    }
    #[inline(always)]
    unsafe fn weights<const PART: bool>(from: *const i8, lanes: usize) -> Q::I {
        // SAFETY: the trait's contract.
        unsafe { Q::halves(Q::load_bytes::<true>(from.cast(), if PART { lanes } else { Q::LANES })) }
    }
    #[inline(always)]
    unsafe fn bias(from: *const i32) -> Q::I {
        // SAFETY: the trait's contract.
        unsafe { Q::load(from) }
    }
    #[inline(always)]
    unsafe fn add(sum: Q::I, x: Q::I, w: Q::I) -> Q::I {
        // SAFETY: the trait's contract.
        unsafe { Q::multiply_add(sum, x, w) }
    }
    #[inline(always)]
    unsafe fn finish(e: &ByteEpilogue, at: usize, channel: usize, lanes: usize, sum: Q::I) {
        // SAFETY: the trait's contract.
        unsafe { e.finish::<Q>(at, channel, lanes, sum) }
    }
}

struct Depthwise<C: Channels, F> {
    strips: Strips,
    /// One a channel, up to whole vectors.
    bias: Vec<C::Bias>,
    finish: F,
    /// What padding reads as.
    pad: C::X,
    /// Output rows of a call.
    rows: usize,
    form: Form,
}

/// How taps are walked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    /// 3x3 with this stride along a row, 1 or 2.
    Three(usize),
    Taps,
}

/// The geometry, what padding reads as, and the form.
fn geometry(spec: &KernelSpec<'_>) -> Option<(Window, i32, Form)> {
    let (o, window) = Window::of(spec)?;
    let fits = o.groups == window.channels && window.out_channels == window.channels;
    if !fits || spec.out_type.elements() == 0 {
        return None;
    }
    let form = match (window.kernel, window.stride[1], window.dilation[1]) {
        ([3, 3], stride @ (1 | 2), 1) => Form::Three(stride),
        _ => Form::Taps,
    };
    Some((window, o.pad_value, form))
}

/// `fused` is the epilogue that the kernel applies, if any; `none` stores sums.
fn finished<C: Groups, F: Finish<Epilogue = C::Epilogue>>(
    spec: &KernelSpec<'_>,
    window: Window,
    form: Form,
    fused: Option<F>,
    none: F,
    bias: Vec<C::Bias>,
    pad: C::X,
) -> Prepared {
    let call = Call::of(spec, &window, fused.as_ref());
    let pixels = window.batch * window.out[0] * window.out[1];
    let macs = pixels * window.channels.next_multiple_of(C::LANES) * window.kernel[0] * window.kernel[1];
    let after = if call.fused { 0.0 } else { epilogue_cycles(spec.op, spec.out_type.elements()) };
    let strips = Strips::new(window, size_of::<C::X>(), false, true);
    let kernel = Depthwise::<C, F> {
        rows: call.rows(&strips.window),
        bias: super::padded(bias, C::LANES),
        finish: fused.unwrap_or(none),
        pad,
        form,
        strips,
    };
    let scratch = kernel.strips.scratch_len() * size_of::<C::X>();
    let cycles = macs as f64 / C::MACS_PER_CYCLE + after;
    Prepared::of_kernel(spec, kernel, call, scratch, Packing::Permute(vec![1, 2, 3, 0]), cycles)
}

pub fn prepare_f32<S: Elements>(spec: &KernelSpec<'_>, _: Purpose) -> Option<Prepared>
where
    Floats<S>: Groups<X = f32, Bias = f32, Epilogue = FloatEpilogue>,
{
    let (window, _, form) = geometry(spec).filter(|_| spec.arg_types[0].dtype == DType::F32)?;
    let bias = super::bias(spec)?;
    Some(finished::<Floats<S>, _>(spec, window, form, FusedFloat::of::<S>(spec), FusedFloat::none::<S>(), bias, 0.0))
}

pub fn prepare_i8<Q: Ints>(spec: &KernelSpec<'_>, _: Purpose) -> Option<Prepared>
where
    Of<Q, i8>: Groups<X = i8, Bias = i32, Epilogue = ByteEpilogue>,
    Of<Q, u8>: Groups<X = u8, Bias = i32, Epilogue = ByteEpilogue>,
{
    match spec.arg_types[0].dtype {
        DType::I8 => prepare_bytes::<Q, i8>(spec),
        DType::U8 => prepare_bytes::<Q, u8>(spec),
        _ => None,
    }
}

fn prepare_bytes<Q: Ints, A: Byte>(spec: &KernelSpec<'_>) -> Option<Prepared>
where
    Of<Q, A>: Groups<X = A, Bias = i32, Epilogue = ByteEpilogue>,
{
    let (window, pad, form) = geometry(spec)?;
    let bias = super::bias_i32(spec)?;
    let fused = FusedBytes::of(spec)
        .map(|(fused, scales)| ByteFinish { fused: Some(fused), scales: super::padded(scales, Q::LANES) });
    Some(finished::<Of<Q, A>, _>(spec, window, form, fused, ByteFinish::default(), bias, A::of(pad)))
}

impl<C: Groups, F: Finish<Epilogue = C::Epilogue>> Kernel for Depthwise<C, F> {
    fn pieces(&self) -> usize {
        self.rows
    }

    unsafe fn run(&self, part: &Part, x: *const u8, w: *const u8, extra: *const u8, out: *mut u8, scratch: *mut u8) {
        let rows = &part.pieces;
        let (strips, c) = (&self.strips, self.strips.window.channels);
        let columns = strips.window.out[1];
        let work = |strip: Strip<C::X>, before: usize| {
            let before = rows.start * columns + before;
            for first in (0..c).step_by(C::LANES) {
                let lanes = C::LANES.min(c - first);
                let mut work = Group::<C> {
                    taps: &strips.runs,
                    // Inside the weights and x.
                    weights: w.cast::<C::W>().wrapping_add(first),
                    x: strip.x.wrapping_add(first),
                    channels: c,
                    bias: self.bias[first..].as_ptr(),
                    epilogue: self.finish.at(out, extra),
                    channel: first,
                    at: before * c + first,
                    lanes,
                    rows: strip.pixels / columns,
                    columns,
                    column_step: strip.column_step,
                    row_step: strip.row_step,
                    first: 0,
                    tiles: 0,
                };
                for (pixels, tiles) in super::shares(columns, C::pixels(lanes)) {
                    work.tiles = tiles;
                    // SAFETY: the kernel was chosen for a level that the machine has; the caller's contract gives x, weights,
                    // residual and output, the strip its pixels.
                    unsafe { C::function(pixels, lanes, self.form)(&work) };
                    work.first += pixels * tiles;
                }
            }
            // SAFETY: as above.
            unsafe { self.finish.after_pixels(out, c, before..before + strip.pixels, 0..c) };
        };
        let first = part.step * self.rows + rows.start;
        // SAFETY: the caller's contract; scratch memory is as long as was asked for.
        unsafe { strips.each::<C::X, C::X>(x.cast(), scratch.cast(), first, rows.len(), self.pad, work) };
    }
}

/// The work of one call: a vector of channels of some columns of all rows of a strip.
pub struct Group<'a, C: Channels> {
    /// From the first tap of a pixel to each.
    taps: &'a [usize],
    /// The group's first channel of the first tap; taps are `channels` apart.
    weights: *const C::W,
    channels: usize,
    /// A value a lane.
    bias: *const C::Bias,
    epilogue: C::Epilogue,
    /// The group's first channel, and its element of the first pixel in the output, whose pixels are `channels` apart.
    channel: usize,
    at: usize,
    lanes: usize,
    x: *const C::X,
    rows: usize,
    /// Output columns, and the steps in x from a column to the next and from a row to the next.
    columns: usize,
    column_step: usize,
    row_step: usize,
    /// The first column, and the tiles of a row from there on.
    first: usize,
    tiles: usize,
}

/// Computes the tiles of a group.
///
/// # Safety
/// The machine must have the function's level; all pointers of the group must be good for what its numbers say.
pub type GroupFn<C> = unsafe fn(&Group<'_, C>);

/// One row of a kernel of 3x3, for MR pixels.
///
/// # Safety
/// As [`GroupFn`]; `x` is the row's first tap of the first pixel.
#[inline(always)]
unsafe fn line<C: Channels, const MR: usize, const STRIDE: usize, const PART: bool>(
    x: *const C::X,
    channels: usize,
    lanes: usize,
    kernel: [C::V; 3],
    sums: &mut [C::Sum; MR],
) {
    for (kx, w) in kernel.into_iter().enumerate() {
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: the caller's contract: a tap of pixel i.
            *sum = unsafe { C::add(*sum, C::x::<PART>(x.add((i * STRIDE + kx) * channels), lanes), w) };
        }
    }
}

/// Tiles of MR pixels; 3x3 with a stride of STRIDE along rows, or any taps where that is 0.
///
/// # Safety
/// As [`GroupFn`].
#[inline(always)]
unsafe fn groups<C: Channels, const MR: usize, const STRIDE: usize, const PART: bool>(g: &Group<'_, C>) {
    // SAFETY: the caller's contract covers every access: MR * tiles pixels a row, their taps, and `lanes` channels.
    unsafe {
        let bias = C::bias(g.bias);
        let c = g.channels;
        let mut kernel = [[C::weights::<PART>(g.weights, g.lanes); 3]; 3];
        if STRIDE > 0 {
            for (t, w) in kernel.as_flattened_mut().iter_mut().enumerate() {
                *w = C::weights::<PART>(g.weights.add(t * c), g.lanes);
            }
        }
        for row in 0..g.rows {
            let mut x = g.x.add(row * g.row_step + g.first * g.column_step);
            let mut done = g.at + (row * g.columns + g.first) * c;
            for _ in 0..g.tiles {
                let mut sums = [bias; MR];
                if STRIDE > 0 {
                    line::<C, MR, STRIDE, PART>(x.add(g.taps[0]), c, g.lanes, kernel[0], &mut sums);
                    line::<C, MR, STRIDE, PART>(x.add(g.taps[3]), c, g.lanes, kernel[1], &mut sums);
                    line::<C, MR, STRIDE, PART>(x.add(g.taps[6]), c, g.lanes, kernel[2], &mut sums);
                } else {
                    for (t, tap) in g.taps.iter().enumerate() {
                        let w = C::weights::<PART>(g.weights.add(t * c), g.lanes);
                        for (i, sum) in sums.iter_mut().enumerate() {
                            *sum = C::add(*sum, C::x::<PART>(x.add(tap + i * g.column_step), g.lanes), w);
                        }
                    }
                }
                let lanes = if PART { g.lanes } else { C::LANES };
                // In memory from here on; see the tiles of products.
                let mut finished = [bias; MR];
                for (to, from) in finished.iter_mut().zip(&sums) {
                    *to = *from;
                }
                for (i, sum) in finished.iter().enumerate() {
                    C::finish(&g.epilogue, done + i * c, g.channel, lanes, *sum);
                }
                x = x.wrapping_add(MR * g.column_step);
                done += MR * c;
            }
        }
    }
}

/// The functions of a level.
pub trait Groups: Channels {
    /// Multiply-accumulates in a cycle, about, all lanes counted.
    const MACS_PER_CYCLE: f64;
    /// The largest number of pixels of a tile with so many channels.
    fn pixels(lanes: usize) -> usize;
    fn function(pixels: usize, lanes: usize, form: Form) -> GroupFn<Self>;
}

macro_rules! level {
    ($channels:ty, $compiled:ident, $macs:literal, $(#[$feature:meta])? $($pixels:literal)*; part: $($part:literal)*) => {
        $(#[$feature])?
        unsafe fn $compiled<const MR: usize, const STRIDE: usize, const PART: bool>(g: &Group<'_, $channels>) {
            // SAFETY: the caller's contract.
            unsafe { groups::<$channels, MR, STRIDE, PART>(g) }
        }

        impl Groups for $channels {
            const MACS_PER_CYCLE: f64 = $macs;

            fn pixels(lanes: usize) -> usize {
                if lanes == Self::LANES { [$($pixels),*].len() } else { [$($part),*].len() }
            }

            fn function(pixels: usize, lanes: usize, form: Form) -> GroupFn<Self> {
                match (form, pixels, lanes == Self::LANES) {
                    $((Form::Three(1), $pixels, true) => $compiled::<$pixels, 1, false>,)*
                    $((Form::Three(2), $pixels, true) => $compiled::<$pixels, 2, false>,)*
                    $((_, $pixels, true) => $compiled::<$pixels, 0, false>,)*
                    $((Form::Three(1), $part, false) => $compiled::<$part, 1, true>,)*
                    $((Form::Three(2), $part, false) => $compiled::<$part, 2, true>,)*
                    $((_, $part, false) => $compiled::<$part, 0, true>,)*
                    _ => unreachable!("no tile of {pixels} pixels and {lanes} channels"),
                }
            }
        }
    };
}

level!(Floats<simd::Portable>, floats, 1.0, 1 2; part: 1 2);
level!(Of<bytes::Portable, i8>, signed, 1.0, 1 2; part: 1 2);
level!(Of<bytes::Portable, u8>, unsigned, 1.0, 1 2; part: 1 2);

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use super::super::neon::{Neon, NeonInts};
    use super::*;

    level!(Floats<Neon>, floats_neon, 4.0, 1 2 3 4 5 6; part: 1 2);
    level!(Of<NeonInts, i8>, signed_neon, 3.0, 1 2 3 4; part: 1 2);
    level!(Of<NeonInts, u8>, unsigned_neon, 3.0, 1 2 3 4; part: 1 2);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;

    level!(Floats<simd::Avx2>, floats_avx2, 7.0, #[target_feature(enable = "avx2,fma")] 1 2 3 4; part: 1 2);
    level!(Of<bytes::Avx2, i8>, signed_avx2, 5.0, #[target_feature(enable = "avx2,fma")] 1 2 3 4; part: 1 2);
    level!(Of<bytes::Avx2, u8>, unsigned_avx2, 5.0, #[target_feature(enable = "avx2,fma")] 1 2 3 4; part: 1 2);
    level!(
        Floats<simd::Avx512>, floats_avx512, 10.0,
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        1 2 3 4 5 6; part: 1 2 3 4
    );
    level!(
        Of<bytes::Vnni, i8>, signed_vnni, 10.0,
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
        1 2 3 4 5 6; part: 1 2 3 4
    );
    level!(
        Of<bytes::Vnni, u8>, unsigned_vnni, 10.0,
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
        1 2 3 4 5 6; part: 1 2 3 4
    );
}
