//! Convolution (NHWC, one group) and matrix product of 8-bit integers with constant weights.
//!
//! The inputs of a few output pixels or rows are gathered as 16-bit integers in scratch memory, and their products with
//! blocks of output channels are summed in pairs, as the processor's multiply-add of 16-bit pairs does.

use super::window::Window;
use super::{Prepared, WindowKernel, bias_len, epilogue_cycles};
use mcc_ir::DType;
use mcc_ir::catalogue::KernelSpec;
use mcc_ir::op::Op;
use mcc_ir::packing::Packing;
use std::fmt::Debug;
use std::marker::PhantomData;

/// Output channels a block, and depth a step: weights are `[ceil(N / 4)][ceil(K / 16)][4][16]`.
const CHANNELS: usize = 4;
const DEPTH: usize = 16;
const PACKING: Packing = Packing::Panel { rows: CHANNELS, depth: DEPTH };
/// Output pixels or rows at a time.
const PIXELS: usize = 2;

/// An activation type.
trait Activation: Copy + Debug + Into<i16> + Send + Sync + 'static {}
impl Activation for i8 {}
impl Activation for u8 {}

/// Where the inputs of an output pixel are.
#[derive(Debug)]
enum Source {
    Image { window: Window, pad: i16 },
    Matrix { rows: usize },
}

#[derive(Debug)]
struct Product<X> {
    source: Source,
    depth: usize,
    channels: usize,
    bias: usize,
    element: PhantomData<X>,
}

pub fn prepare_conv(spec: &KernelSpec<'_>) -> Option<Prepared> {
    let (o, window) = Window::of(spec)?;
    if o.groups != 1 {
        return None;
    }
    let channels = window.out_channels;
    let depth = window.kernel[0] * window.kernel[1] * window.channels;
    let (window, outer) = window.flattened(1 << 14);
    prepare(spec, Source::Image { window, pad: o.pad_value as i16 }, depth, channels, outer)
}

pub fn prepare_matmul(spec: &KernelSpec<'_>) -> Option<Prepared> {
    let Op::MatMul(o) = spec.op else { return None };
    let (a, b) = (&spec.arg_types[0], &spec.arg_types[1]);
    if !o.trans_b || !spec.is_const[1] || b.rank() != 2 {
        return None;
    }
    let (depth, channels) = (b.shape[1], b.shape[0]);
    let rows = a.elements().checked_div(depth)?;
    prepare(spec, Source::Matrix { rows }, depth, channels, 0)
}

fn prepare(spec: &KernelSpec<'_>, source: Source, depth: usize, channels: usize, outer: usize) -> Option<Prepared> {
    let outputs = spec.out_type.elements();
    if depth == 0 || outputs == 0 {
        return None;
    }
    let bias = bias_len(spec.op, channels);
    let padded = outputs / channels * channels.next_multiple_of(CHANNELS) * depth.next_multiple_of(DEPTH);
    let gathered = outputs / channels * depth;
    let cycles = padded as f64 / 8.0 + gathered as f64 / 4.0 + epilogue_cycles(spec.op, outputs);
    let private = PIXELS * depth.next_multiple_of(DEPTH) * 2;
    macro_rules! product {
        ($x:ty) => {
            Prepared::new(
                spec,
                Product::<$x> { source, depth, channels, bias, element: PhantomData },
                outer,
                private,
                PACKING,
                cycles,
            )
        };
    }
    match spec.arg_types[0].dtype {
        DType::I8 => Some(product!(i8)),
        DType::U8 => Some(product!(u8)),
        _ => None,
    }
}

impl<X: Activation> WindowKernel for Product<X> {
    type X = X;
    type W = i8;
    type Acc = i32;
    type Scratch = i16;

    fn lengths(&self) -> [usize; 5] {
        let depth = self.depth.next_multiple_of(DEPTH);
        let (x, pixels) = match &self.source {
            Source::Image { window, .. } => (window.x_len(), window.out[1]),
            Source::Matrix { rows } => (rows * self.depth, *rows),
        };
        [x, self.channels.next_multiple_of(CHANNELS) * depth, self.bias, pixels * self.channels, PIXELS * depth]
    }

    #[inline(always)]
    fn run<const WIDE: bool>(
        &self,
        step: usize,
        x: &[X],
        w: &[i8],
        bias: &[i32],
        acc: &mut [i32],
        scratch: &mut [i16],
    ) {
        let mut tiles = acc.chunks_exact_mut(PIXELS * self.channels);
        let mut pixel = 0;
        for acc in tiles.by_ref() {
            self.tile::<PIXELS, WIDE>(step, pixel, x, w, bias, acc, scratch);
            pixel += PIXELS;
        }
        for acc in tiles.into_remainder().chunks_exact_mut(self.channels) {
            self.tile::<1, WIDE>(step, pixel, x, w, bias, acc, scratch);
            pixel += 1;
        }
    }
}

impl<X: Activation> Product<X> {
    /// All channels of `N` pixels from `pixel` on.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn tile<const N: usize, const WIDE: bool>(
        &self,
        step: usize,
        pixel: usize,
        x: &[X],
        w: &[i8],
        bias: &[i32],
        acc: &mut [i32],
        scratch: &mut [i16],
    ) {
        let depth = self.depth.next_multiple_of(DEPTH);
        for (p, patch) in scratch.chunks_exact_mut(depth).take(N).enumerate() {
            self.gather(step, pixel + p, x, patch);
        }
        let patches: [&[i16]; N] = std::array::from_fn(|p| &scratch[p * depth..][..depth]);
        for (block, w) in w.chunks_exact(CHANNELS * depth).enumerate() {
            let mut sums = [[[0i32; DEPTH / 2]; CHANNELS]; N];
            for (k, w) in w.chunks_exact(CHANNELS * DEPTH).enumerate() {
                for (sums, patch) in sums.iter_mut().zip(&patches) {
                    let x: &[i16; DEPTH] = patch[k * DEPTH..][..DEPTH].try_into().expect("a whole step");
                    for (sums, w) in sums.iter_mut().zip(w.chunks_exact(DEPTH)) {
                        *sums = add_pairs::<WIDE>(*sums, x, w.try_into().expect("a whole step"));
                    }
                }
            }
            let first = block * CHANNELS;
            for (p, sums) in sums.iter().enumerate() {
                let valid = CHANNELS.min(self.channels - first);
                let to = &mut acc[p * self.channels + first..][..valid];
                for (c, (to, sums)) in to.iter_mut().zip(sums).enumerate() {
                    let start = bias.get(first + c).copied().unwrap_or_default();
                    *to = sums.iter().fold(start, |s, v| s.wrapping_add(*v));
                }
            }
        }
    }

    /// Writes the inputs of one output pixel to `patch`. What is behind them meets weights of 0.
    #[inline(always)]
    fn gather(&self, step: usize, pixel: usize, x: &[X], patch: &mut [i16]) {
        match &self.source {
            Source::Matrix { .. } => widen(&x[pixel * self.depth..][..self.depth], patch),
            Source::Image { window: g, pad } => {
                let (image, row) = (step / g.out[0], step % g.out[0]);
                let (rows, columns) = (g.taps(0, row), g.taps(1, pixel));
                let line = g.kernel[1] * g.channels;
                for (ky, to) in patch.chunks_exact_mut(line).take(g.kernel[0]).enumerate() {
                    if !rows.contains(&ky) || columns.is_empty() {
                        to.fill(*pad);
                        continue;
                    }
                    let base = (image * g.size[0] + g.position(0, row, ky)) * g.size[1];
                    let (before, after) = (columns.start * g.channels, columns.end * g.channels);
                    to[..before].fill(*pad);
                    to[after..].fill(*pad);
                    let from = (base + g.position(1, pixel, columns.start)) * g.channels;
                    if g.dilation[1] == 1 {
                        widen(&x[from..][..after - before], &mut to[before..after]);
                    } else {
                        let apart = g.dilation[1] * g.channels;
                        for (i, to) in to[before..after].chunks_exact_mut(g.channels).enumerate() {
                            widen(&x[from + i * apart..][..g.channels], to);
                        }
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn widen<X: Activation>(from: &[X], to: &mut [i16]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = (*from).into();
    }
}

/// `sums[i] += x[2i] * w[2i] + x[2i + 1] * w[2i + 1]`.
#[inline(always)]
fn add_pairs<const WIDE: bool>(mut sums: [i32; DEPTH / 2], x: &[i16; DEPTH], w: &[i8; DEPTH]) -> [i32; DEPTH / 2] {
    #[cfg(target_arch = "x86_64")]
    if WIDE {
        use std::arch::x86_64::*;
        // SAFETY: WIDE code runs only where AVX2 is; the loads and stores are of exactly these arrays, unaligned.
        unsafe {
            let x = _mm256_loadu_si256(x.as_ptr().cast());
            let w = _mm256_cvtepi8_epi16(_mm_loadu_si128(w.as_ptr().cast()));
            let old = _mm256_loadu_si256(sums.as_ptr().cast());
            let new = _mm256_add_epi32(old, _mm256_madd_epi16(x, w));
            _mm256_storeu_si256(sums.as_mut_ptr().cast(), new);
        }
        return sums;
    }
    for (i, sum) in sums.iter_mut().enumerate() {
        let pair = x[2 * i] as i32 * w[2 * i] as i32 + x[2 * i + 1] as i32 * w[2 * i + 1] as i32;
        *sum = sum.wrapping_add(pair);
    }
    sums
}
