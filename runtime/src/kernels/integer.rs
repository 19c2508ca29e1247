//! Convolution (NHWC, one group) and matrix product of 8-bit integers with constant weights.
//!
//! The inputs of a few output pixels or rows are gathered as 16-bit integers in scratch memory, and their products with
//! blocks of output channels are summed in pairs, as the processor's multiply-add of 16-bit pairs does.

use super::micro::{CHANNELS, DEPTH, pair_sums, widen};
use super::window::Window;
use super::{Prepared, WindowKernel, bias_len, epilogue_cycles};
use mcc_ir::DType;
use mcc_ir::catalogue::KernelSpec;
use mcc_ir::op::Op;
use mcc_ir::packing::Packing;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::ops::Range;

/// Weights are `[ceil(N / 4)][ceil(K / 16)][4][16]`.
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
    if !o.trans_b || spec.consts[1].is_none() || b.rank() != 2 {
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
        let at = Line::of(&self.source, step);
        let mut tiles = acc.chunks_exact_mut(PIXELS * self.channels);
        let mut pixel = 0;
        for acc in tiles.by_ref() {
            self.tile::<PIXELS, WIDE>(&at, pixel, x, w, bias, acc, scratch);
            pixel += PIXELS;
        }
        for acc in tiles.into_remainder().chunks_exact_mut(self.channels) {
            self.tile::<1, WIDE>(&at, pixel, x, w, bias, acc, scratch);
            pixel += 1;
        }
    }
}

/// What the pixels of one output row have in common: image, row, the kernel's rows that fall inside x, and the columns
/// where all of the kernel's columns do.
#[derive(Default)]
struct Line {
    image: usize,
    row: usize,
    rows: Range<usize>,
    interior: Range<usize>,
}

impl Line {
    fn of(source: &Source, step: usize) -> Line {
        match source {
            Source::Image { window: g, .. } => {
                let row = step % g.out[0];
                Line { image: step / g.out[0], row, rows: g.taps(0, row), interior: g.interior() }
            }
            Source::Matrix { .. } => Line::default(),
        }
    }
}

impl<X: Activation> Product<X> {
    /// All channels of `N` pixels from `pixel` on.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn tile<const N: usize, const WIDE: bool>(
        &self,
        at: &Line,
        pixel: usize,
        x: &[X],
        w: &[i8],
        bias: &[i32],
        acc: &mut [i32],
        scratch: &mut [i16],
    ) {
        let depth = self.depth.next_multiple_of(DEPTH);
        for (p, patch) in scratch.chunks_exact_mut(depth).take(N).enumerate() {
            self.gather::<WIDE>(at, pixel + p, x, patch);
        }
        let patches: [&[i16]; N] = std::array::from_fn(|p| &scratch[p * depth..][..depth]);
        for (block, w) in w.chunks_exact(CHANNELS * depth).enumerate() {
            let sums = pair_sums::<N, WIDE>(patches, w);
            let first = block * CHANNELS;
            let valid = CHANNELS.min(self.channels - first);
            let mut start = [0i32; CHANNELS];
            if let Some(bias) = bias.get(first..first + valid) {
                start[..valid].copy_from_slice(bias);
            }
            for (p, sums) in sums.iter().enumerate() {
                let sums: [i32; CHANNELS] = std::array::from_fn(|c| sums[c].wrapping_add(start[c]));
                let to = &mut acc[p * self.channels + first..];
                match to.first_chunk_mut() {
                    Some(to) if valid == CHANNELS => *to = sums,
                    _ => to[..valid].copy_from_slice(&sums[..valid]),
                }
            }
        }
    }

    /// Writes the inputs of one output pixel to `patch`. What is behind them meets weights of 0.
    #[inline(always)]
    fn gather<const WIDE: bool>(&self, at: &Line, pixel: usize, x: &[X], patch: &mut [i16]) {
        match &self.source {
            Source::Matrix { .. } => widen::<X, WIDE>(&x[pixel * self.depth..][..self.depth], patch),
            Source::Image { window: g, pad } => {
                let columns = if at.interior.contains(&pixel) { 0..g.kernel[1] } else { g.taps(1, pixel) };
                let line = g.kernel[1] * g.channels;
                for (ky, to) in patch.chunks_exact_mut(line).take(g.kernel[0]).enumerate() {
                    if !at.rows.contains(&ky) || columns.is_empty() {
                        to.fill(*pad);
                        continue;
                    }
                    let base = (at.image * g.size[0] + g.position(0, at.row, ky)) * g.size[1];
                    let (before, after) = (columns.start * g.channels, columns.end * g.channels);
                    to[..before].fill(*pad);
                    to[after..].fill(*pad);
                    let from = (base + g.position(1, pixel, columns.start)) * g.channels;
                    if g.dilation[1] == 1 {
                        widen::<X, WIDE>(&x[from..][..after - before], &mut to[before..after]);
                    } else {
                        let apart = g.dilation[1] * g.channels;
                        for (i, to) in to[before..after].chunks_exact_mut(g.channels).enumerate() {
                            widen::<X, WIDE>(&x[from + i * apart..][..g.channels], to);
                        }
                    }
                }
            }
        }
    }
}
