//! `f32` matrix products whose right side is not constant: row-major, or stored transposed.

use super::micro::{accumulate, dot};
use super::{Prepared, Purpose, WindowKernel, bias_len, epilogue_cycles};
use mcc_ir::DType;
use mcc_ir::catalogue::KernelSpec;
use mcc_ir::op::Op;
use mcc_ir::packing::Packing;
use mcc_ir::types::broadcast_strides;

/// Columns of the output at a time.
const WIDTH: usize = 16;

/// How the right side is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Right {
    /// `[K][N]`.
    RowMajor,
    /// `[N][K]`.
    Transposed,
}

#[derive(Debug)]
struct MatMul {
    rows: usize,
    depth: usize,
    columns: usize,
    right: Right,
    bias: usize,
    /// Elements before the matrices of each step; empty where there is one step.
    batches: Vec<(usize, usize)>,
    lengths: (usize, usize),
}

pub fn prepare(spec: &KernelSpec<'_>, _: Purpose) -> Option<Prepared> {
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
    let right = if o.trans_b { Right::Transposed } else { Right::RowMajor };
    let outer = if flat { 0 } else { out.rank() - 2 };
    let batch = &out.shape[..outer];
    let step = |shape: &[usize], matrix: usize| -> Vec<usize> {
        broadcast_strides(shape, batch).into_iter().map(|s| s * matrix).collect()
    };
    let mut batches = Vec::new();
    if !flat {
        let (sa, sb) = (step(batch_a, rows * depth), step(batch_b, depth * columns));
        for mut i in 0..batch.iter().product() {
            let mut at = (0, 0);
            for d in (0..batch.len()).rev() {
                at.0 += i % batch[d] * sa[d];
                at.1 += i % batch[d] * sb[d];
                i /= batch[d];
            }
            batches.push(at);
        }
    }
    let lengths = (a.elements(), b.elements());
    let macs = (out.elements() * depth) as f64;
    let cycles = macs / 3.0 + epilogue_cycles(spec.op, out.elements());
    let bias = bias_len(spec.op, columns);
    Some(Prepared::new(
        spec,
        MatMul { rows, depth, columns, right, bias, batches, lengths },
        outer,
        0,
        Packing::None,
        cycles,
    ))
}

impl WindowKernel for MatMul {
    type X = f32;
    type W = f32;
    type Acc = f32;
    type Scratch = u8;

    fn lengths(&self) -> [usize; 5] {
        [self.lengths.0, self.lengths.1, self.bias, self.rows * self.columns, 0]
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
        let (a, b) = self.batches.get(step).copied().unwrap_or_default();
        let a = &x[a..][..self.rows * self.depth];
        let (k, n) = (self.depth, self.columns);
        match self.right {
            Right::RowMajor => {
                let b = &w[b..][..k * n];
                let mut first = 0;
                while first + WIDTH <= n {
                    self.block::<WIDTH, WIDE>(a, &b[first..], n, first, WIDTH, bias, acc);
                    first += WIDTH;
                }
                while first + 4 <= n {
                    self.block::<4, WIDE>(a, &b[first..], n, first, 4, bias, acc);
                    first += 4;
                }
                for first in first..n {
                    self.block::<1, WIDE>(a, &b[first..], n, first, 1, bias, acc);
                }
            }
            Right::Transposed => {
                let b = &w[b..][..n * k];
                for (a, acc) in a.chunks_exact(k).zip(acc.chunks_exact_mut(n)) {
                    for (j, (b, acc)) in b.chunks_exact(k).zip(acc).enumerate() {
                        *acc = bias.get(j).copied().unwrap_or_default() + dot::<WIDE>(a, b);
                    }
                }
            }
        }
    }
}

impl MatMul {
    /// All rows of `COLUMNS` output columns from `first` on, of which `valid` are stored; row k of the right side
    /// starts at `b[k * stride]`.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn block<const COLUMNS: usize, const WIDE: bool>(
        &self,
        a: &[f32],
        b: &[f32],
        stride: usize,
        first: usize,
        valid: usize,
        bias: &[f32],
        acc: &mut [f32],
    ) {
        let mut start = [0f32; COLUMNS];
        if let Some(bias) = bias.get(first..first + valid) {
            start[..valid].copy_from_slice(bias);
        }
        let mut row = 0;
        while row < self.rows {
            let left = self.rows - row;
            let a = &a[row * self.depth..];
            let acc = &mut acc[row * self.columns + first..];
            row += if WIDE && left >= 6 {
                self.tile::<6, COLUMNS, WIDE>(a, b, stride, &start, valid, acc)
            } else if left >= 2 {
                self.tile::<2, COLUMNS, WIDE>(a, b, stride, &start, valid, acc)
            } else {
                self.tile::<1, COLUMNS, WIDE>(a, b, stride, &start, valid, acc)
            };
        }
    }

    #[inline(always)]
    fn tile<const ROWS: usize, const COLUMNS: usize, const WIDE: bool>(
        &self,
        a: &[f32],
        b: &[f32],
        stride: usize,
        start: &[f32; COLUMNS],
        valid: usize,
        acc: &mut [f32],
    ) -> usize {
        let k = self.depth;
        let lines: [&[f32]; ROWS] = std::array::from_fn(|r| &a[r * k..][..k]);
        let mut sums = [*start; ROWS];
        accumulate::<ROWS, COLUMNS, WIDE>(&mut sums, lines, b, stride);
        for (r, sums) in sums.iter().enumerate() {
            acc[r * self.columns..][..valid].copy_from_slice(&sums[..valid]);
        }
        ROWS
    }
}
