//! `f32` matrix products of two activations, by register tiles: each panel of the right side is packed first.

use super::cut::Part;
use super::elementwise::Elements;
use super::floats::{FloatEpilogue, Floats};
use super::fused::{Finish, FusedFloat};
use super::product::{self, Line, multiply};
use super::simd::Simd;
use super::strips::Strip;
use super::tile::Tiles;
use super::window::Window;
use super::{Call, Kernel, Prepared, Purpose, epilogue_cycles};
use mcc_ir::DType;
use mcc_ir::catalogue::KernelSpec;
use mcc_ir::op::Op;
use mcc_ir::packing::Packing;
use mcc_ir::types::broadcast_strides;
use std::marker::PhantomData;

/// The least number of pieces, where blocks of rows need not be smaller than these for that.
const PIECES: usize = 8;
const BLOCK: usize = 48;

struct MatMul<S> {
    rows: usize,
    depth: usize,
    columns: usize,
    /// Columns of a panel: whole vectors.
    width: usize,
    /// Whether the right side is stored `[N][K]`.
    transposed: bool,
    /// One a column, up to whole panels.
    bias: Vec<f32>,
    fused: FusedFloat,
    /// Elements before the two matrices of each product.
    batches: Vec<(usize, usize)>,
    /// Blocks of rows that a panel is multiplied with; whoever computes one packs the panel.
    blocks: usize,
    level: PhantomData<S>,
}

pub fn prepare<S: Elements>(spec: &KernelSpec<'_>, _: Purpose) -> Option<Prepared>
where
    Floats<S>: Tiles<X = f32, W = f32, Bias = f32, Epilogue = FloatEpilogue>,
{
    let Op::MatMul(o) = spec.op else { return None };
    let (a, b, out) = (&spec.arg_types[0], &spec.arg_types[1], spec.out_type);
    if a.dtype != DType::F32 || out.elements() == 0 {
        return None;
    }
    let (batch_a, batch_b) = (&a.shape[..a.rank() - 2], &b.shape[..b.rank() - 2]);
    let (depth, columns) = (a.shape[a.rank() - 1], out.shape[out.rank() - 1]);
    if depth == 0 {
        return None;
    }
    // Without a batch on the right, all rows of the left are one matrix.
    let flat = batch_b.iter().all(|&d| d == 1) && out.rank() == a.rank();
    let rows = if flat { out.elements() / columns } else { a.shape[a.rank() - 2] };
    let batches = match flat {
        true => vec![(0, 0)],
        false => {
            let batch = &out.shape[..out.rank() - 2];
            offsets(batch, &steps(batch_a, batch, rows * depth), &steps(batch_b, batch, depth * columns))
        }
    };
    let fused = FusedFloat::of::<S>(spec);
    let call = Call::of(spec, &Window::column(rows, depth, columns), fused.as_ref());
    let width = product::width::<Floats<S>>(columns, rows);
    let bias = super::padded(super::bias(spec)?, width);
    let packed = bias.len() * depth;
    let panels = batches.len() * bias.len() / width;
    let macs = (batches.len() * rows * columns.next_multiple_of(S::LANES) * depth) as f64;
    let after = if call.fused { 0.0 } else { epilogue_cycles(spec.op, out.elements()) };
    let cycles = macs / <Floats<S> as Tiles>::MACS_PER_CYCLE + (batches.len() * packed) as f64 + after;
    let kernel = MatMul::<S> {
        rows,
        depth,
        columns,
        width,
        transposed: o.trans_b,
        bias,
        fused: fused.unwrap_or_else(FusedFloat::none::<S>),
        blocks: (PIECES / panels).clamp(1, (rows / BLOCK).max(1)),
        batches,
        level: PhantomData,
    };
    Some(Prepared::of_kernel(spec, kernel, call, width * depth * 4, Packing::None, cycles))
}

/// From one index of each dimension of `batch` to the next, in elements of a side whose matrices have so many.
fn steps(side: &[usize], batch: &[usize], matrix: usize) -> Vec<usize> {
    broadcast_strides(side, batch).into_iter().map(|s| s * matrix).collect()
}

/// Elements before the matrices of both sides, for each index of `batch` in row-major order.
fn offsets(batch: &[usize], a: &[usize], b: &[usize]) -> Vec<(usize, usize)> {
    let at = |mut i: usize| {
        let mut at = (0, 0);
        for d in (0..batch.len()).rev() {
            at.0 += i % batch[d] * a[d];
            at.1 += i % batch[d] * b[d];
            i /= batch[d];
        }
        at
    };
    (0..batch.iter().product()).map(at).collect()
}

impl<S> MatMul<S> {
    fn panels(&self) -> usize {
        self.columns.div_ceil(self.width)
    }

    /// Writes a panel of a right side as `[K][width]`, filled up with zeros.
    fn pack(&self, b: &[f32], panel: usize, to: &mut [f32]) {
        let (k, n) = (self.depth, self.columns);
        let first = panel * self.width;
        let valid = self.width.min(n - first);
        for (row, to) in to.chunks_exact_mut(self.width).enumerate() {
            let (to, rest) = to.split_at_mut(valid);
            rest.fill(0.0);
            if self.transposed {
                for (to, from) in to.iter_mut().zip(b[first * k + row..].iter().step_by(k)) {
                    *to = *from;
                }
            } else {
                to.copy_from_slice(&b[row * n + first..][..valid]);
            }
        }
    }
}

impl<S: Simd> Kernel for MatMul<S>
where
    Floats<S>: Tiles<X = f32, W = f32, Bias = f32, Epilogue = FloatEpilogue>,
{
    /// Blocks of rows of panels of products.
    fn pieces(&self) -> usize {
        self.batches.len() * self.panels() * self.blocks
    }

    unsafe fn run(&self, part: &Part, x: *const u8, w: *const u8, extra: *const u8, out: *mut u8, scratch: *mut u8) {
        // SAFETY: scratch memory is as long as was asked for, and nothing else uses it.
        let packed = unsafe { std::slice::from_raw_parts_mut(scratch.cast::<f32>(), self.width * self.depth) };
        let mut packed_is = None;
        for piece in part.pieces.clone() {
            let (block, panel) = (piece % self.blocks, piece / self.blocks % self.panels());
            let product = piece / self.blocks / self.panels();
            let (a, b) = self.batches[product];
            if packed_is.replace((b, panel)) != Some((b, panel)) {
                // SAFETY: the caller's contract: a matrix of the right side starts there.
                let b = unsafe { std::slice::from_raw_parts(w.cast::<f32>().add(b), self.depth * self.columns) };
                self.pack(b, panel, packed);
            }
            let rows = block * self.rows / self.blocks..(block + 1) * self.rows / self.blocks;
            let before = product * self.rows + rows.start;
            // Inside the left side.
            let left = x.cast::<f32>().wrapping_add(a + rows.start * self.depth);
            let line = Line::<Floats<S>> {
                strip: &Strip { x: left, pixels: rows.len(), column_step: self.depth, row_step: 0 },
                before,
                columns: rows.len(),
                runs: &[0],
                steps: self.depth,
                panels: panel..panel + 1,
                weights: packed.as_ptr(),
                width: self.width,
                channels: self.columns,
                bias: &self.bias,
            };
            let channels = panel * self.width..self.columns.min((panel + 1) * self.width);
            // SAFETY: the kernel was chosen for a level that the machine has; the caller's contract gives the left side,
            // residual and output.
            unsafe {
                multiply::<Floats<S>>(&line, || self.fused.at(out, extra));
                self.fused.after_pixels(out, self.columns, before..before + rows.len(), channels);
            }
        }
    }
}
