//! `f32` convolution, NHWC, one group: the inner loop runs over output channels, for several pixels at a time.

use super::micro::accumulate;
use super::window::Window;
use super::{Prepared, WindowKernel, bias_len, epilogue_cycles};
use mcc_ir::DType;
use mcc_ir::catalogue::KernelSpec;
use mcc_ir::packing::Packing;
use std::ops::Range;

/// `WIDTH` output channels a block. Weights: `[blocks][kh][kw][C][WIDTH]`.
#[derive(Debug)]
struct Conv<const WIDTH: usize> {
    window: Window,
    bias: usize,
}

pub fn prepare(spec: &KernelSpec<'_>) -> Option<Prepared> {
    let (o, window) = Window::of(spec)?;
    if o.groups != 1 || spec.arg_types[0].dtype != DType::F32 {
        return None;
    }
    let channels = window.out_channels;
    let depth = window.kernel[0] * window.kernel[1] * window.channels;
    let outputs = spec.out_type.elements();
    if depth == 0 || outputs == 0 {
        return None;
    }
    let (window, outer) = window.flattened(1 << 14);
    let bias = bias_len(spec.op, channels);
    let width = if channels <= 8 { 8 } else { 16 };
    let padded = outputs / channels * channels.next_multiple_of(width);
    let cycles = (padded * depth) as f64 / 8.0 + epilogue_cycles(spec.op, outputs);
    let packing = Packing::Panel { rows: width, depth: 1 };
    Some(match width {
        8 => Prepared::new(spec, Conv::<8> { window, bias }, outer, 0, packing, cycles),
        _ => Prepared::new(spec, Conv::<16> { window, bias }, outer, 0, packing, cycles),
    })
}

impl<const WIDTH: usize> WindowKernel for Conv<WIDTH> {
    type X = f32;
    type W = f32;
    type Acc = f32;
    type Scratch = u8;

    fn lengths(&self) -> [usize; 5] {
        let w = &self.window;
        let depth = w.kernel[0] * w.kernel[1] * w.channels;
        [w.x_len(), w.out_channels.next_multiple_of(WIDTH) * depth, self.bias, w.row_len(), 0]
    }

    #[inline(always)]
    fn run<const WIDE: bool>(
        &self,
        step: usize,
        x: &[f32],
        w: &[f32],
        bias: &[f32],
        acc: &mut [f32],
        _scratch: &mut [u8],
    ) {
        match (WIDE, WIDTH) {
            (true, 8) => self.row::<8, WIDE>(step, x, w, bias, acc),
            (true, _) => self.row::<6, WIDE>(step, x, w, bias, acc),
            (false, 8) => self.row::<4, WIDE>(step, x, w, bias, acc),
            (false, _) => self.row::<2, WIDE>(step, x, w, bias, acc),
        }
    }
}

/// One output row's place: image, row, and the kernel's rows that fall inside.
struct Row<'a> {
    x: &'a [f32],
    image: usize,
    row: usize,
    taps: Range<usize>,
}

impl<const WIDTH: usize> Conv<WIDTH> {
    #[inline(always)]
    fn row<const PIXELS: usize, const WIDE: bool>(
        &self,
        step: usize,
        x: &[f32],
        w: &[f32],
        bias: &[f32],
        acc: &mut [f32],
    ) {
        let g = &self.window;
        let (image, row) = (step / g.out[0], step % g.out[0]);
        let at = Row { x, image, row, taps: g.taps(0, row) };
        let depth = g.kernel[0] * g.kernel[1] * g.channels;
        let interior = g.interior();
        for (block, weights) in w.chunks_exact(depth * WIDTH).enumerate() {
            let first = block * WIDTH;
            let valid = WIDTH.min(g.out_channels - first);
            let mut start = [0f32; WIDTH];
            if let Some(bias) = bias.get(first..first + valid) {
                start[..valid].copy_from_slice(bias);
            }
            let mut column = 0;
            while column < g.out[1] {
                let left = if interior.contains(&column) { interior.end - column } else { 0 };
                let acc = &mut acc[column * g.out_channels + first..];
                column += if left >= PIXELS {
                    self.tile::<PIXELS, WIDE>(&at, weights, &start, column, 0..g.kernel[1], acc, valid)
                } else if left >= 2 {
                    self.tile::<2, WIDE>(&at, weights, &start, column, 0..g.kernel[1], acc, valid)
                } else {
                    self.tile::<1, WIDE>(&at, weights, &start, column, g.taps(1, column), acc, valid)
                };
            }
        }
    }

    /// `PIXELS` neighbours whose taps along the row are all in `taps`. Returns their number.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn tile<const PIXELS: usize, const WIDE: bool>(
        &self,
        at: &Row<'_>,
        weights: &[f32],
        start: &[f32; WIDTH],
        column: usize,
        taps: Range<usize>,
        acc: &mut [f32],
        valid: usize,
    ) -> usize {
        let g = &self.window;
        let mut sums = [*start; PIXELS];
        let step = g.stride[1] * g.channels;
        for ky in at.taps.clone() {
            let line = (at.image * g.size[0] + g.position(0, at.row, ky)) * g.size[1];
            // Taps without dilation are one run of memory.
            let (runs, taps_a_run) =
                if g.dilation[1] == 1 { (taps.start..taps.start + 1, taps.len()) } else { (taps.clone(), 1) };
            for kx in runs {
                let len = taps_a_run * g.channels;
                if len == 0 {
                    continue;
                }
                let from = (line + g.position(1, column, kx)) * g.channels;
                let lines: [&[f32]; PIXELS] = std::array::from_fn(|p| &at.x[from + p * step..][..len]);
                let weights = &weights[(ky * g.kernel[1] + kx) * g.channels * WIDTH..][..len * WIDTH];
                accumulate::<PIXELS, WIDTH, WIDE>(&mut sums, lines, weights, WIDTH);
            }
        }
        for (p, sums) in sums.iter().enumerate() {
            let to = &mut acc[p * g.out_channels..];
            if valid == WIDTH {
                to[..WIDTH].copy_from_slice(sums);
            } else {
                to[..valid].copy_from_slice(&sums[..valid]);
            }
        }
        PIXELS
    }
}
