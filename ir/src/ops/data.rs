//! Moving data: reshape, transpose, concatenation, slices, padding and broadcast.
//!
//! Every element of the result is an element of an input, bit for bit (a nest quiets the signalling NaNs of 16-bit
//! floats, since it widens them). 64-bit integers move in the evaluator only: the scalars of a nest have 32 bits,
//! so a nest would truncate them.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::nest::{Bound, Expr, Index, Nest, NestBuilder, linear};
use crate::op::{Op, PadMode};
use crate::scalar::{BinOp, Scalars, UnOp};
use crate::tensor::Tensor;
use crate::types::{Shape, TensorType, broadcast, broadcast_strides};

/// The shape of a result, or why there is none.
type Shaped = std::result::Result<Shape, String>;

pub fn infer(o: &Op, inputs: &[&TensorType]) -> Result<TensorType> {
    let x = inputs[0];
    let shape = match o {
        Op::Reshape { shape } => {
            let to = TensorType::new(x.dtype, shape.clone());
            (to.checked_elements() == x.checked_elements())
                .then(|| shape.clone())
                .ok_or_else(|| format!("{x} and {to} have different sizes"))
        }
        Op::Transpose { perm } => {
            let mut sorted = perm.clone();
            sorted.sort_unstable();
            if sorted.iter().copied().eq(0..x.rank()) {
                Ok(perm.iter().map(|&p| x.shape[p]).collect())
            } else {
                Err(format!("{perm:?} is no permutation of the dimensions of {x}"))
            }
        }
        Op::Concat { axis } => concat_shape(*axis, inputs),
        Op::Slice { start, step, shape } => slice_shape(x, start, step, shape),
        Op::Pad { before, after, mode } => match inputs.get(1) {
            Some(fill) if fill.dtype != x.dtype || fill.elements() != 1 => {
                Err(format!("the fill value of {x} must be one {}, not {fill}", x.dtype))
            }
            _ => pad_shape(x, before, after, *mode),
        },
        Op::Broadcast { shape } => match broadcast(&x.shape, shape) {
            Some(joint) if joint == *shape => Ok(joint),
            _ => Err(format!("{x} does not broadcast to {shape:?}")),
        },
        _ => unreachable!("{} is no operator of this family", o.name()),
    };
    Ok(TensorType::new(x.dtype, shape.map_err(|reason| Error::ty(o.name(), reason))?))
}

fn concat_shape(axis: usize, inputs: &[&TensorType]) -> Shaped {
    let first = inputs[0];
    if axis >= first.rank() {
        return Err(format!("{first} has no axis {axis}"));
    }
    let mut shape = first.shape.clone();
    for other in &inputs[1..] {
        let fits = other.dtype == first.dtype
            && other.rank() == first.rank()
            && (0..first.rank()).all(|d| d == axis || other.shape[d] == first.shape[d]);
        if !fits {
            return Err(format!("{first} and {other} cannot be joined along axis {axis}"));
        }
        shape[axis] = shape[axis].checked_add(other.shape[axis]).ok_or("the joined axis is too long")?;
    }
    Ok(shape)
}

fn slice_shape(x: &TensorType, start: &[usize], step: &[isize], shape: &[usize]) -> Shaped {
    if [start.len(), step.len(), shape.len()] != [x.rank(); 3] {
        let found = format!("{} starts, {} steps and {} extents", start.len(), step.len(), shape.len());
        return Err(format!("{found} do not fit {x}"));
    }
    for d in 0..x.rank() {
        let (dim, first, n) = (x.shape[d] as i128, start[d] as i128, shape[d] as i128);
        let last = first + (n - 1) * step[d] as i128;
        let inside = if n == 0 { first <= dim } else { first < dim && (0..dim).contains(&last) };
        if step[d] == 0 || !inside {
            return Err(format!("{n} elements from {first} in steps of {} do not lie on axis {d} of {x}", step[d]));
        }
    }
    Ok(shape.to_vec())
}

fn pad_shape(x: &TensorType, before: &[usize], after: &[usize], mode: PadMode) -> Shaped {
    if before.len() != x.rank() || after.len() != x.rank() {
        return Err(format!("{} and {} pads do not fit {x}", before.len(), after.len()));
    }
    (0..x.rank())
        .map(|d| {
            let (dim, widest) = (x.shape[d], before[d].max(after[d]));
            let limit = match mode {
                PadMode::Reflect => dim.saturating_sub(1),
                PadMode::Edge if dim == 0 => 0,
                PadMode::Edge | PadMode::Constant => usize::MAX,
            };
            if widest > limit {
                return Err(format!("axis {d} of {x} is too short to be padded by {widest} in mode {mode:?}"));
            }
            let sum = dim.checked_add(before[d]).and_then(|n| n.checked_add(after[d]));
            sum.ok_or_else(|| format!("axis {d} of {x} cannot be padded by {} and {}", before[d], after[d]))
        })
        .collect()
}

pub fn eval(o: &Op, inputs: &[&Tensor], out: &TensorType) -> Result<Tensor> {
    let x = inputs[0];
    let strides = x.ty().strides();
    let along = |d: usize, source: &dyn Fn(usize) -> Option<usize>, stride: usize| -> Vec<Option<usize>> {
        (0..out.shape[d]).map(|i| source(i).map(|s| s * stride)).collect()
    };
    let tables: Vec<Vec<Option<usize>>> = match o {
        Op::Reshape { shape } => return Ok(x.reshaped(shape.clone())),
        Op::Concat { axis } => return concat(*axis, inputs, out),
        Op::Transpose { perm } => (0..out.rank()).map(|d| along(d, &Some, strides[perm[d]])).collect(),
        Op::Slice { start, step, .. } => (0..out.rank())
            .map(|d| {
                along(d, &|i| Some((start[d] as isize + i as isize * slice_step(step, out, d)) as usize), strides[d])
            })
            .collect(),
        Op::Pad { before, mode, .. } => (0..out.rank())
            .map(|d| along(d, &|i| pad_source(*mode, i as i64 - before[d] as i64, x.shape()[d]), strides[d]))
            .collect(),
        Op::Broadcast { .. } => {
            let strides = broadcast_strides(x.shape(), &out.shape);
            (0..out.rank()).map(|d| along(d, &Some, strides[d])).collect()
        }
        _ => unreachable!("{} is no operator of this family", o.name()),
    };
    pick(inputs, out, separable(&tables).map(|at| at.map_or((1, 0), |at| (0, at))))
}

/// The step along an axis of which more than one element is taken, else 0, so that no position overflows.
fn slice_step(step: &[isize], out: &TensorType, d: usize) -> isize {
    if out.shape[d] > 1 { step[d] } else { 0 }
}

/// The position that padding reads for position `at` of an axis of extent `dim`; `None` for the fill value.
fn pad_source(mode: PadMode, at: i64, dim: usize) -> Option<usize> {
    let last = dim as i64 - 1;
    match mode {
        PadMode::Constant => (0..=last).contains(&at).then_some(at as usize),
        PadMode::Edge => Some(at.clamp(0, last) as usize),
        PadMode::Reflect => Some((last - (last - at.abs()).abs()) as usize),
    }
}

fn concat(axis: usize, inputs: &[&Tensor], out: &TensorType) -> Result<Tensor> {
    let outer: usize = out.shape[..axis].iter().product();
    let block = |t: &Tensor| t.shape()[axis..].iter().product::<usize>();
    let from = (0..outer).flat_map(|i| {
        inputs.iter().enumerate().flat_map(move |(k, t)| (i * block(t)..(i + 1) * block(t)).map(move |at| (k, at)))
    });
    pick(inputs, out, from)
}

/// In row-major order of a shape, the sum of one entry of each axis's table; `None` where an axis has none there.
pub(super) fn separable(tables: &[Vec<Option<usize>>]) -> impl Iterator<Item = Option<usize>> {
    let total: usize = tables.iter().map(Vec::len).product();
    (0..total).map(move |mut i| {
        let mut at = Some(0);
        for table in tables.iter().rev() {
            at = at.zip(table[i % table.len()]).map(|(a, b)| a + b);
            i /= table.len();
        }
        at
    })
}

/// The tensor whose elements, in row-major order, are the elements `(source, position)` of tensors of its element
/// type.
pub(super) fn pick(
    sources: &[&Tensor],
    out: &TensorType,
    from: impl Iterator<Item = (usize, usize)>,
) -> Result<Tensor> {
    if !out.dtype.is_byte_sized() {
        let sources: Vec<Vec<i64>> = sources.iter().map(|t| t.to_i64()).collect();
        return Ok(Tensor::from_i64(out.clone(), &from.map(|(k, at)| sources[k][at]).collect::<Vec<_>>()));
    }
    let size = out.dtype.bits() / 8;
    let mut data = Vec::with_capacity(out.bytes());
    for (k, at) in from {
        data.extend_from_slice(&sources[k].bytes()[at * size..(at + 1) * size]);
    }
    Ok(Tensor::from_bytes(out.clone(), data)?)
}

/// Refuses to move 64-bit integers in a nest, whose scalars would truncate them.
pub(super) fn refuse_wide(o: &Op, moved: &[&TensorType]) -> Result<()> {
    if moved.iter().any(|t| t.dtype == DType::I64) {
        return Err(Error::Unsupported { op: o.name(), reason: "64-bit integers move only at compile time".into() });
    }
    Ok(())
}

pub fn nest(o: &Op, inputs: &[&TensorType], out: &TensorType) -> Result<Nest> {
    refuse_wide(o, inputs)?;
    let mut b = NestBuilder::new(inputs, out);
    let x = inputs[0];
    let strides = x.strides();
    let to = out.strides();
    match o {
        Op::Reshape { .. } => b.repeat(out.elements(), |b, i| {
            let value = b.load(0, i.clone());
            b.store(i, value);
        }),
        Op::Concat { axis } => {
            let mut before = 0;
            for (k, input) in inputs.iter().enumerate() {
                b.repeat_shape(&input.shape, |b, at| {
                    let value = b.load(k, linear(at, &input.strides()));
                    b.store(linear(at, &to).offset((before * to[*axis]) as i64), value);
                });
                before += input.shape[*axis];
            }
        }
        _ => {
            let broadcast = broadcast_strides(&x.shape, &out.shape);
            b.repeat_shape(&out.shape, |b, at| {
                let value = match o {
                    Op::Transpose { perm } => {
                        let strides: Vec<usize> = perm.iter().map(|&p| strides[p]).collect();
                        b.load(0, linear(at, &strides))
                    }
                    Op::Slice { start, step, .. } => {
                        let from: Vec<Index> = (0..x.rank())
                            .map(|d| {
                                Index::constant(start[d] as i64).plus_scaled(&at[d], slice_step(step, out, d) as i64)
                            })
                            .collect();
                        b.load(0, linear(&from, &strides))
                    }
                    Op::Pad { before, after, mode } => pad(b, x, at, before, after, *mode),
                    Op::Broadcast { .. } => b.load(0, linear(at, &broadcast)),
                    _ => unreachable!("{} is no operator of this family", o.name()),
                };
                b.store(linear(at, &to), value);
            });
        }
    }
    Ok(b.finish())
}

/// The element of the padded tensor at `at`.
fn pad(b: &mut NestBuilder, x: &TensorType, at: &[Index], before: &[usize], after: &[usize], mode: PadMode) -> Expr {
    let strides = x.strides();
    let mut affine = Index::default();
    let mut computed: Option<Expr> = None;
    let mut bounds = vec![];
    for d in 0..x.rank() {
        let from = at[d].clone().offset(-(before[d] as i64));
        if before[d] == 0 && after[d] == 0 || mode == PadMode::Constant {
            if before[d] > 0 || after[d] > 0 {
                bounds.push(Bound { index: from.clone(), extent: x.shape[d] as i64 });
            }
            affine = affine.plus_scaled(&from, strides[d] as i64);
            continue;
        }
        let last = (x.shape[d] - 1) as i32;
        let from = if mode == PadMode::Edge {
            b.clamp_i(Expr::Index(from), 0, last)
        } else {
            let distance = magnitude(b, Expr::Index(from));
            let from_end = b.bin(BinOp::SubI, Expr::I32(last), distance);
            let from_end = magnitude(b, from_end);
            b.bin(BinOp::SubI, Expr::I32(last), from_end)
        };
        let offset = b.bin(BinOp::MulI, from, Expr::I32(strides[d] as i32));
        computed = Some(match computed {
            Some(sum) => b.bin(BinOp::AddI, sum, offset),
            None => offset,
        });
    }
    affine.dynamic = computed.map(Box::new);
    let value = b.load(0, affine);
    if bounds.is_empty() {
        return value;
    }
    let fill = b.load(1, Index::default());
    Expr::Guard { bounds, then: Box::new(value), other: Box::new(fill) }
}

fn magnitude(b: &mut NestBuilder, v: Expr) -> Expr {
    let v = b.share(v);
    let negated = b.un(UnOp::NegI, v.clone());
    b.bin(BinOp::MaxI, v, negated)
}
