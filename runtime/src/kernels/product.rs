//! Convolutions (NHWC, one group) and matrix products with constant weights, of floats and of bytes, by register tiles.

use super::bytes::{Bytes, Ints};
use super::cut::{Cut, Part};
use super::elementwise::Elements;
use super::floats::Floats;
use super::fused::{ByteFinish, Finish, FusedBytes, FusedFloat};
use super::strips::{Convert, Strip, Strips};
use super::tile::{Panel, Products, Tiles};
use super::window::Window;
use super::{Call, Kernel, Prepared, Purpose, epilogue_cycles};
use mcc_ir::DType;
use mcc_ir::catalogue::KernelSpec;
use mcc_ir::op::Op;
use mcc_ir::packing::Packing;
use std::marker::PhantomData;
use std::ops::Range;

/// A product of activations A. Weights: for each panel, for each run, `[ceil(run / DEPTH)][width][DEPTH]`.
struct Product<P: Products, A, F> {
    strips: Strips,
    channels: usize,
    /// Channels of a panel: whole vectors.
    width: usize,
    /// One a channel, up to whole panels.
    bias: Vec<P::Bias>,
    finish: F,
    /// What padding reads as.
    pad: P::X,
    /// Output rows of a call.
    rows: usize,
    cut: Cut,
    activation: PhantomData<fn(A)>,
}

/// What a product is of.
struct Geometry {
    /// A matrix product is a convolution of 1x1 over a column of pixels.
    window: Window,
    depth: usize,
    channels: usize,
    pad_value: i32,
    is_matrix: bool,
}

impl Geometry {
    fn of(spec: &KernelSpec<'_>) -> Option<Geometry> {
        if spec.out_type.elements() == 0 {
            return None;
        }
        let geometry = if let Op::MatMul(o) = spec.op {
            let (a, b) = (&spec.arg_types[0], &spec.arg_types[1]);
            if !o.trans_b || spec.consts[1].is_none() || b.rank() != 2 {
                return None;
            }
            let (depth, channels) = (b.shape[1], b.shape[0]);
            let rows = a.elements().checked_div(depth)?;
            Geometry { window: Window::column(rows, depth, channels), depth, channels, pad_value: 0, is_matrix: true }
        } else {
            let (o, window) = Window::of(spec).filter(|(o, _)| o.groups == 1)?;
            let depth = window.kernel[0] * window.kernel[1] * window.channels;
            let channels = window.out_channels;
            Geometry { window, depth, channels, pad_value: o.pad_value, is_matrix: false }
        };
        (geometry.depth > 0).then_some(geometry)
    }

    fn pixels(&self) -> usize {
        self.window.out[0] * self.window.out[1]
    }

    /// How activations of so many bytes are read.
    fn strips(&self, element: usize, convert: bool) -> Strips {
        let strips = Strips::new(self.window.clone(), element, convert, false);
        // Weights are read once for each strip, and those of matrix products are large.
        if self.is_matrix { strips.whole() } else { strips }
    }

    /// The pieces of a call of so many rows, with panels of so many channels and elements of so many bytes.
    fn cut(&self, rows: usize, width: usize, element: usize) -> Cut {
        let w = &self.window;
        let x = w.batch * w.size[0] * w.size[1] * w.channels;
        Cut::new(rows, self.channels.div_ceil(width), x * element, self.depth * self.channels * element)
    }

    fn cycles<P: Tiles>(&self, spec: &KernelSpec<'_>, fused: bool) -> f64 {
        let depth = self.depth.next_multiple_of(P::DEPTH);
        let macs = self.window.batch * self.pixels() * self.channels.next_multiple_of(P::LANES) * depth;
        let after = if fused { 0.0 } else { epilogue_cycles(spec.op, spec.out_type.elements()) };
        macs as f64 / P::MACS_PER_CYCLE + after
    }
}

/// Channels of a panel, for so many in all and so many pixels: as many vectors as fill the registers with sums, without
/// many that hold nothing.
pub fn width<P: Tiles>(channels: usize, pixels: usize) -> usize {
    let all = channels.div_ceil(P::LANES);
    let fits = |n: usize| {
        let (tile, waste) = (P::pixels(n), all.next_multiple_of(n) - all);
        let enough = tile * n >= P::SUMS || (tile > 0 && pixels <= tile);
        (enough && waste * 5 <= all).then(|| (n, n * tile.min(pixels)))
    };
    // Additions to one sum wait for each other: some sums must be in flight. Beyond that, wide tiles load least.
    let candidates = (1..=all.min(8)).filter_map(fits);
    candidates.max_by_key(|(n, sums)| ((*sums).min(P::SUMS * 2 / 3), *n)).map_or(1, |(n, _)| n) * P::LANES
}

pub fn prepare_f32<S: Elements>(spec: &KernelSpec<'_>, _: Purpose) -> Option<Prepared>
where
    Floats<S>: Tiles<X = f32, Bias = f32, Epilogue = <FusedFloat as Finish>::Epilogue>,
{
    let geometry = Geometry::of(spec).filter(|_| spec.arg_types[0].dtype == DType::F32)?;
    let fused = FusedFloat::of::<S>(spec);
    let call = Call::of(spec, &geometry.window, fused.as_ref());
    let cycles = geometry.cycles::<Floats<S>>(spec, call.fused);
    let width = width::<Floats<S>>(geometry.channels, geometry.pixels());
    let bias = super::padded(super::bias(spec)?, width);
    let strips = geometry.strips(4, false);
    let rows = call.rows(&strips.window);
    let kernel = Product::<Floats<S>, f32, _> {
        rows,
        cut: geometry.cut(rows, width, 4),
        channels: geometry.channels,
        width,
        bias,
        finish: fused.unwrap_or_else(FusedFloat::none::<S>),
        pad: 0.0,
        activation: PhantomData,
        strips,
    };
    let scratch = kernel.strips.scratch_len() * 4;
    Some(Prepared::of_kernel(spec, kernel, call, scratch, Packing::Panel { rows: width, depth: 1 }, cycles))
}

pub fn prepare_i8<Q: Ints>(spec: &KernelSpec<'_>, purpose: Purpose) -> Option<Prepared>
where
    Bytes<Q>: Tiles<X = Q::X, Bias = i32, Epilogue = <ByteFinish as Finish>::Epilogue>,
    i8: Convert<Q::X>,
    u8: Convert<Q::X>,
{
    match spec.arg_types[0].dtype {
        DType::I8 => prepare_bytes::<Q, i8>(spec, purpose, Q::OFFSET),
        DType::U8 => prepare_bytes::<Q, u8>(spec, purpose, 0),
        _ => None,
    }
}

/// `offset` is what copies of the activations have added.
fn prepare_bytes<Q: Ints, A: Convert<Q::X> + Send + Sync>(
    spec: &KernelSpec<'_>,
    purpose: Purpose,
    offset: i32,
) -> Option<Prepared>
where
    Bytes<Q>: Tiles<X = Q::X, Bias = i32, Epilogue = <ByteFinish as Finish>::Epilogue>,
{
    let geometry = Geometry::of(spec)?;
    let (depth, channels) = (geometry.depth, geometry.channels);
    let found = FusedBytes::of(spec);
    let width = width::<Bytes<Q>>(geometry.channels, geometry.pixels());
    let finish = found.map(|(fused, scales)| ByteFinish { fused: Some(fused), scales: super::padded(scales, width) });
    let call = Call::of(spec, &geometry.window, finish.as_ref());
    let cycles = geometry.cycles::<Bytes<Q>>(spec, call.fused);
    let mut bias = super::bias_i32(spec)?;
    if offset != 0 && purpose == Purpose::Run {
        let weights = spec.consts[1]?.bytes();
        for (bias, row) in bias.iter_mut().zip(weights.chunks_exact(depth)) {
            let sum = row.iter().fold(0i32, |s, w| s.wrapping_add(*w as i8 as i32));
            *bias = bias.wrapping_sub(sum.wrapping_mul(offset));
        }
    }
    let size = size_of::<Q::X>();
    let whole = A::IDENTITY && offset == 0;
    let direct = geometry.strips(size, false);
    // Reading up to a whole step must not leave x.
    let strips = match whole && direct.run_len.is_multiple_of(Q::DEPTH) {
        true => direct,
        false => geometry.strips(size, true),
    };
    let rows = call.rows(&strips.window);
    let packing = match strips.run_len.is_multiple_of(Q::DEPTH) || strips.runs.len() == 1 {
        true => Packing::Panel { rows: width, depth: Q::DEPTH },
        false => Packing::Runs { run: strips.run_len, rows: width, depth: Q::DEPTH },
    };
    let kernel = Product::<Bytes<Q>, A, ByteFinish> {
        rows,
        cut: geometry.cut(rows, width, 1),
        channels,
        width,
        bias: super::padded(bias, width),
        finish: finish.unwrap_or_default(),
        pad: Q::activation(geometry.pad_value + offset),
        activation: PhantomData,
        strips,
    };
    let scratch = (kernel.strips.scratch_len() + Q::DEPTH) * size;
    Some(Prepared::of_kernel(spec, kernel, call, scratch, packing, cycles))
}

/// The most vectors, of so many, that there are tiles of: the last panel need not be full.
fn widest<P: Tiles>(vectors: usize) -> usize {
    (1..=vectors).rev().find(|n| P::pixels(*n) > 0).unwrap_or(1)
}

/// The product of a strip's pixels with some panels of weights.
pub struct Line<'a, P: Products> {
    pub strip: &'a Strip<P::X>,
    /// Output pixels before the strip.
    pub before: usize,
    pub columns: usize,
    pub runs: &'a [usize],
    /// Steps of `DEPTH` in a run.
    pub steps: usize,
    /// Those to multiply with, each of `width` channels.
    pub panels: Range<usize>,
    /// Of the first of them.
    pub weights: *const P::W,
    pub width: usize,
    pub channels: usize,
    /// One a channel, up to whole panels.
    pub bias: &'a [P::Bias],
}

/// Computes a product.
///
/// # Safety
/// The machine must have the level; the strip, weights and epilogue must be good for what the numbers say.
pub unsafe fn multiply<P: Tiles>(l: &Line<'_, P>, epilogue: impl Fn() -> P::Epilogue) {
    let panel_len = l.runs.len() * l.steps * l.width * P::DEPTH;
    for panel in l.panels.clone() {
        // Inside the packed weights.
        let weights = l.weights.wrapping_add((panel - l.panels.start) * panel_len);
        let first = panel * l.width;
        let end = l.channels.min(first + l.width);
        let mut channel = first;
        while channel < end {
            let vectors = widest::<P>((end - channel).div_ceil(P::LANES));
            let channels = (vectors * P::LANES).min(end - channel);
            let mut work = Panel::<P> {
                runs: l.runs,
                steps: l.steps,
                weights: weights.wrapping_add((channel - first) * P::DEPTH),
                width: l.width,
                bias: l.bias[channel..].as_ptr(),
                epilogue: epilogue(),
                channel,
                at: l.before * l.channels + channel,
                out_step: l.channels,
                last: channels - (vectors - 1) * P::LANES,
                x: l.strip.x,
                columns: l.columns,
                column_step: l.strip.column_step,
                row_step: l.strip.row_step,
                first: 0,
                tiles: 0,
            };
            for (pixels, tiles) in super::shares(l.strip.pixels, P::pixels(vectors)) {
                work.tiles = tiles;
                // SAFETY: the caller's contract.
                unsafe { P::function(pixels, vectors)(&work) };
                work.first += pixels * tiles;
            }
            channel += channels;
        }
    }
}

impl<P: Tiles, A: Convert<P::X>, F: Finish<Epilogue = P::Epilogue>> Kernel for Product<P, A, F> {
    fn pieces(&self) -> usize {
        self.cut.pieces()
    }

    unsafe fn run(&self, part: &Part, x: *const u8, w: *const u8, extra: *const u8, out: *mut u8, scratch: *mut u8) {
        let (strips, n) = (&self.strips, self.channels);
        let columns = strips.window.out[1];
        let steps = strips.run_len.div_ceil(P::DEPTH);
        let (rows, panels) = self.cut.ranges(&part.pieces);
        let channels = (panels.start * self.width).min(n)..(panels.end * self.width).min(n);
        let skipped = panels.start * strips.runs.len() * steps * self.width * P::DEPTH;
        let work = |strip: Strip<P::X>, before: usize| {
            let before = rows.start * columns + before;
            let line = Line::<P> {
                strip: &strip,
                before,
                columns,
                runs: &strips.runs,
                steps,
                panels: panels.clone(),
                // Inside the packed weights.
                weights: w.cast::<P::W>().wrapping_add(skipped),
                width: self.width,
                channels: n,
                bias: &self.bias,
            };
            // SAFETY: the kernel was chosen for a level that the machine has; the caller's contract gives x, weights, residual
            // and output, the strip its pixels.
            unsafe {
                multiply::<P>(&line, || self.finish.at(out, extra));
                self.finish.after_pixels(out, n, before..before + strip.pixels, channels.clone());
            }
        };
        let first = part.step * self.rows + rows.start;
        // SAFETY: the caller's contract; scratch memory is as long as was asked for.
        unsafe { strips.each::<A, P::X>(x.cast(), scratch.cast(), first, rows.len(), self.pad, work) };
    }
}
