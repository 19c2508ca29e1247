//! `f32` convolutions (NHWC, one group) and matrix products with constant weights, by register tiles.

use super::fused::Fused;
use super::strips::{Strip, Strips};
use super::tile::{Panel, Tiles};
use super::window::Window;
use super::{Call, Kernel, Prepared, epilogue_cycles};
use mcc_ir::DType;
use mcc_ir::catalogue::KernelSpec;
use mcc_ir::op::Op;
use mcc_ir::packing::Packing;
use std::marker::PhantomData;

/// Weights: `[panels][K][width]`.
struct Product<S> {
    strips: Strips,
    channels: usize,
    /// Channels of a panel: whole vectors.
    width: usize,
    /// One a channel, up to whole panels.
    bias: Vec<f32>,
    fused: Fused,
    /// Output rows of a call.
    rows: usize,
    level: PhantomData<S>,
}

/// The geometry of a convolution, or of a matrix product as one of 1x1 over a line of pixels; K, and output channels.
fn geometry(spec: &KernelSpec<'_>) -> Option<(Window, usize, usize)> {
    if let Op::MatMul(o) = spec.op {
        let (a, b) = (&spec.arg_types[0], &spec.arg_types[1]);
        if !o.trans_b || spec.consts[1].is_none() || b.rank() != 2 {
            return None;
        }
        let (depth, channels) = (b.shape[1], b.shape[0]);
        let rows = a.elements().checked_div(depth)?;
        return Some((Window::line(rows, depth, channels), depth, channels));
    }
    let (o, window) = Window::of(spec)?;
    let depth = window.kernel[0] * window.kernel[1] * window.channels;
    let channels = window.out_channels;
    (o.groups == 1).then_some((window, depth, channels))
}

/// Vectors of a panel: as many as fill the registers with sums, without many that hold nothing.
fn vectors<S: Tiles>(channels: usize, pixels: usize) -> usize {
    let all = channels.div_ceil(S::LANES);
    let fits = |n: usize| {
        let (tile, waste) = (S::pixels(n), all.next_multiple_of(n) - all);
        let enough = tile * n >= S::SUMS || (tile > 0 && pixels <= tile);
        (enough && waste * 5 <= all).then(|| (n, n * tile.min(pixels)))
    };
    // Additions to one sum wait for each other: some sums must be in flight. Beyond that, wide tiles load least.
    let candidates = (1..=all.min(8)).filter_map(fits);
    candidates.max_by_key(|(n, sums)| ((*sums).min(S::SUMS * 2 / 3), *n)).map_or(1, |(n, _)| n)
}

pub fn prepare<S: Tiles>(spec: &KernelSpec<'_>) -> Option<Prepared> {
    if spec.arg_types[0].dtype != DType::F32 {
        return None;
    }
    let (window, depth, channels) = geometry(spec)?;
    if depth == 0 || spec.out_type.elements() == 0 {
        return None;
    }
    let bias = super::bias(spec)?;
    let (pixels, all) = (window.out[0] * window.out[1], window.batch * window.out[0]);
    let vectors = vectors::<S>(channels, pixels);
    let width = vectors * S::LANES;
    let call = Call::of(spec, &window, |post| Fused::of(post, spec));
    let macs = window.batch * pixels * channels.next_multiple_of(S::LANES) * depth;
    let cycles = macs as f64 / S::MACS_PER_CYCLE
        + if call.fused.is_some() { 0.0 } else { epilogue_cycles(spec.op, spec.out_type.elements()) };
    let strips = Strips::new(window, 4, false, false);
    let scratch = strips.scratch_len() * 4;
    let rows = call.rows(all, strips.window.out[0]);
    let kernel = Product::<S> {
        strips,
        channels,
        width,
        bias: super::padded(bias, width),
        fused: call.fused.unwrap_or_default(),
        rows,
        level: PhantomData,
    };
    Some(Prepared::of_kernel(spec, kernel, &call, scratch, Packing::Panel { rows: width, depth: 1 }, cycles))
}

impl<S: Tiles> Kernel for Product<S> {
    unsafe fn run(&self, step: usize, x: *const u8, w: *const u8, extra: *const u8, out: *mut u8, scratch: *mut u8) {
        let (strips, n) = (&self.strips, self.channels);
        let depth = strips.runs.len() * strips.run_len;
        let work = |strip: Strip<f32>, before: usize| {
            for (panel, first) in (0..n).step_by(self.width).enumerate() {
                let channels = self.width.min(n - first);
                let vectors = channels.div_ceil(S::LANES);
                let at = before * n + first;
                let mut work = Panel {
                    runs: &strips.runs,
                    run_len: strips.run_len,
                    // Offsets inside what the caller promises of weights, output and residual.
                    weights: w.cast::<f32>().wrapping_add(panel * depth * self.width),
                    width: self.width,
                    bias: self.bias[first..].as_ptr(),
                    out: out.cast::<f32>().wrapping_add(at),
                    out_step: n,
                    residual: if self.fused.residual { extra.cast::<f32>().wrapping_add(at) } else { std::ptr::null() },
                    bounds: self.fused.bounds,
                    last: channels - (vectors - 1) * S::LANES,
                    x: strip.x,
                    columns: strips.window.out[1],
                    column_step: strip.column_step,
                    row_step: strip.row_step,
                    first: 0,
                    tiles: 0,
                };
                for (pixels, tiles) in super::shares(strip.pixels, S::pixels(vectors)) {
                    work.tiles = tiles;
                    // SAFETY: the kernel was chosen for a level that the machine has; the caller's contract gives x, weights,
                    // residual and output, the strip its pixels.
                    unsafe { S::function(pixels, vectors)(&work) };
                    work.first += pixels * tiles;
                }
            }
        };
        // SAFETY: the caller's contract; scratch memory is as long as was asked for.
        unsafe { strips.each(x.cast::<f32>(), scratch.cast::<f32>(), step * self.rows, self.rows, |v| v, 0.0, work) };
    }
}
