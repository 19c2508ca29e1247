//! `f32` depthwise convolution, NHWC, one output channel an input channel, in vectors of channels.
//!
//! Weights are `[kh][kw][C]`. A group of channels is one vector; its kernel of 3x3 stays in registers, and neighbouring
//! pixels share what they load. Other kernels go tap by tap.

use super::fused::Fused;
use super::simd::Simd;
use super::strips::{Strip, Strips};
use super::window::Window;
use super::{Call, Kernel, Prepared, epilogue_cycles};
use mcc_ir::DType;
use mcc_ir::catalogue::KernelSpec;
use mcc_ir::packing::Packing;
use std::marker::PhantomData;

struct Depthwise<S> {
    strips: Strips,
    /// One a channel, up to whole vectors.
    bias: Vec<f32>,
    fused: Fused,
    /// Output rows of a call.
    rows: usize,
    form: Form,
    level: PhantomData<S>,
}

/// How taps are walked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    /// 3x3 with this stride along a row, 1 or 2.
    Three(usize),
    Taps,
}

pub fn prepare<S: Groups>(spec: &KernelSpec<'_>) -> Option<Prepared> {
    let (o, window) = Window::of(spec)?;
    let fits = o.groups == window.channels && window.out_channels == window.channels;
    if !fits || spec.arg_types[0].dtype != DType::F32 || spec.out_type.elements() == 0 {
        return None;
    }
    let taps = window.kernel[0] * window.kernel[1];
    let bias = super::bias(spec)?;
    let call = Call::of(spec, &window, |post| Fused::of(post, spec));
    let form = match (window.kernel, window.stride[1], window.dilation[1]) {
        ([3, 3], stride @ (1 | 2), 1) => Form::Three(stride),
        _ => Form::Taps,
    };
    let pixels = window.batch * window.out[0] * window.out[1];
    let macs = (pixels * window.channels.next_multiple_of(S::LANES) * taps) as f64;
    let cycles = macs / S::MACS_PER_CYCLE
        + if call.fused.is_some() { 0.0 } else { epilogue_cycles(spec.op, spec.out_type.elements()) };
    let all = window.batch * window.out[0];
    let strips = Strips::new(window, 4, false, true);
    let scratch = strips.scratch_len() * 4;
    let rows = call.rows(all, strips.window.out[0]);
    let fused = call.fused.unwrap_or_default();
    let kernel = Depthwise::<S> { strips, bias: super::padded(bias, S::LANES), fused, rows, form, level: PhantomData };
    Some(Prepared::of_kernel(spec, kernel, &call, scratch, Packing::Permute(vec![1, 2, 3, 0]), cycles))
}

impl<S: Groups> Kernel for Depthwise<S> {
    unsafe fn run(&self, step: usize, x: *const u8, w: *const u8, extra: *const u8, out: *mut u8, scratch: *mut u8) {
        let (strips, c) = (&self.strips, self.strips.window.channels);
        let columns = strips.window.out[1];
        let work = |strip: Strip<f32>, before: usize| {
            for first in (0..c).step_by(S::LANES) {
                let lanes = S::LANES.min(c - first);
                let at = before * c + first;
                let mut work = Group {
                    taps: &strips.runs,
                    // Offsets inside what the caller promises of weights, x, output and residual.
                    weights: w.cast::<f32>().wrapping_add(first),
                    channels: c,
                    bias: self.bias[first..].as_ptr(),
                    out: out.cast::<f32>().wrapping_add(at),
                    residual: if self.fused.residual { extra.cast::<f32>().wrapping_add(at) } else { std::ptr::null() },
                    bounds: self.fused.bounds,
                    lanes,
                    x: strip.x.wrapping_add(first),
                    rows: strip.pixels / columns,
                    columns,
                    column_step: strip.column_step,
                    row_step: strip.row_step,
                    first: 0,
                    tiles: 0,
                };
                for (pixels, tiles) in super::shares(columns, S::pixels(lanes)) {
                    work.tiles = tiles;
                    // SAFETY: the kernel was chosen for a level that the machine has; the caller's contract gives x, weights,
                    // residual and output, the strip its pixels.
                    unsafe { S::function(pixels, lanes, self.form)(&work) };
                    work.first += pixels * tiles;
                }
            }
        };
        // SAFETY: the caller's contract; scratch memory is as long as was asked for.
        unsafe { strips.each(x.cast::<f32>(), scratch.cast::<f32>(), step * self.rows, self.rows, |v| v, 0.0, work) };
    }
}

/// The work of one call: a vector of channels of some columns of all rows of a strip.
pub struct Group<'a> {
    /// From the first tap of a pixel to each.
    taps: &'a [usize],
    /// The group's first channel of the first tap; taps are `channels` apart.
    weights: *const f32,
    channels: usize,
    /// A value a lane.
    bias: *const f32,
    /// The group's first channel of the first pixel; pixels are `channels` apart, here and in `residual`.
    out: *mut f32,
    residual: *const f32,
    bounds: (f32, f32),
    lanes: usize,
    x: *const f32,
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
pub type GroupFn = unsafe fn(&Group<'_>);

/// # Safety
/// As [`Simd::load`] or, where `PART`, [`Simd::load_part`].
#[inline(always)]
unsafe fn load<S: Simd, const PART: bool>(from: *const f32, lanes: usize) -> S::V {
    // SAFETY: the caller's contract.
    unsafe { if PART { S::load_part(from, lanes) } else { S::load(from) } }
}

/// One row of a kernel of 3x3, for MR pixels.
///
/// # Safety
/// As [`GroupFn`]; `x` is the row's first tap of the first pixel.
#[inline(always)]
unsafe fn line<S: Simd, const MR: usize, const STRIDE: usize, const PART: bool>(
    x: *const f32,
    channels: usize,
    lanes: usize,
    kernel: [S::V; 3],
    sums: &mut [S::V; MR],
) {
    for (kx, w) in kernel.into_iter().enumerate() {
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: the caller's contract: a tap of pixel i.
            *sum = unsafe { S::mul_add(load::<S, PART>(x.add((i * STRIDE + kx) * channels), lanes), w, *sum) };
        }
    }
}

/// Tiles of MR pixels; 3x3 with a stride of STRIDE along rows, or any taps where that is 0.
///
/// # Safety
/// As [`GroupFn`].
#[inline(always)]
unsafe fn groups<S: Simd, const MR: usize, const STRIDE: usize, const PART: bool>(g: &Group<'_>) {
    // SAFETY: the caller's contract covers every access: MR * tiles pixels a row, their taps, and `lanes` channels.
    unsafe {
        let (lo, hi) = (S::splat(g.bounds.0), S::splat(g.bounds.1));
        let bias = S::load(g.bias);
        let c = g.channels;
        let mut kernel = [[lo; 3]; 3];
        if STRIDE > 0 {
            for (t, w) in kernel.as_flattened_mut().iter_mut().enumerate() {
                *w = load::<S, PART>(g.weights.add(t * c), g.lanes);
            }
        }
        for row in 0..g.rows {
            let mut x = g.x.add(row * g.row_step + g.first * g.column_step);
            let mut done = (row * g.columns + g.first) * c;
            for _ in 0..g.tiles {
                let mut sums = [bias; MR];
                if STRIDE > 0 {
                    line::<S, MR, STRIDE, PART>(x.add(g.taps[0]), c, g.lanes, kernel[0], &mut sums);
                    line::<S, MR, STRIDE, PART>(x.add(g.taps[3]), c, g.lanes, kernel[1], &mut sums);
                    line::<S, MR, STRIDE, PART>(x.add(g.taps[6]), c, g.lanes, kernel[2], &mut sums);
                } else {
                    for (t, tap) in g.taps.iter().enumerate() {
                        let w = load::<S, PART>(g.weights.add(t * c), g.lanes);
                        for (i, sum) in sums.iter_mut().enumerate() {
                            let v = load::<S, PART>(x.add(tap + i * g.column_step), g.lanes);
                            *sum = S::mul_add(v, w, *sum);
                        }
                    }
                }
                for (i, sum) in sums.iter_mut().enumerate() {
                    let at = done + i * c;
                    if !g.residual.is_null() {
                        *sum = S::add(*sum, load::<S, PART>(g.residual.add(at), g.lanes));
                    }
                    let v = S::at_least(lo, S::at_most(hi, *sum));
                    if PART {
                        S::store_part(g.out.add(at), g.lanes, v);
                    } else {
                        S::store(g.out.add(at), v);
                    }
                }
                x = x.wrapping_add(MR * g.column_step);
                done += MR * c;
            }
        }
    }
}

/// The functions of a level.
pub trait Groups: Simd {
    /// Multiply-accumulates in a cycle, about, all lanes counted.
    const MACS_PER_CYCLE: f64;
    /// The largest number of pixels of a tile with so many channels.
    fn pixels(lanes: usize) -> usize;
    fn function(pixels: usize, lanes: usize, form: Form) -> GroupFn;
}

macro_rules! level {
    ($simd:ty, $compiled:ident, $macs:literal, $(#[$feature:meta])? $($pixels:literal)*; part: $($part:literal)*) => {
        $(#[$feature])?
        unsafe fn $compiled<const MR: usize, const STRIDE: usize, const PART: bool>(g: &Group<'_>) {
            // SAFETY: the caller's contract.
            unsafe { groups::<$simd, MR, STRIDE, PART>(g) }
        }

        impl Groups for $simd {
            const MACS_PER_CYCLE: f64 = $macs;

            fn pixels(lanes: usize) -> usize {
                if lanes == Self::LANES { [$($pixels),*].len() } else { [$($part),*].len() }
            }

            fn function(pixels: usize, lanes: usize, form: Form) -> GroupFn {
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

level!(super::simd::Portable, portable, 1.0, 1 2; part: 1 2);

#[cfg(target_arch = "x86_64")]
level!(super::simd::Avx2, avx2, 7.0, #[target_feature(enable = "avx2,fma")] 1 2 3 4; part: 1 2);

#[cfg(target_arch = "x86_64")]
level!(super::simd::Avx512, avx512, 8.0, #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")] 1 2 3 4 5 6; part: 1 2 3 4);
