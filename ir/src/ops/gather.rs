//! Gather, where and arg-max.

use super::data::{pick, refuse_wide, separable};
use super::map::offsets;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::nest::{Expr, Index, Nest, NestBuilder, Reg, linear, scalar_type};
use crate::op::Op;
use crate::scalar::{BinOp, ScalarType, Scalars};
use crate::tensor::Tensor;
use crate::types::{TensorType, broadcast, broadcast_strides};

pub fn infer(o: &Op, inputs: &[&TensorType]) -> Result<TensorType> {
    let wrong = |reason: String| Err(Error::ty(o.name(), reason));
    let x = inputs[0];
    match o {
        Op::Gather { axis } => {
            let indices = inputs[1];
            if *axis >= x.rank() {
                return wrong(format!("{x} has no axis {axis}"));
            }
            if !matches!(indices.dtype, DType::I64 | DType::I32) {
                return wrong(format!("the indices must be i64 or i32, not {indices}"));
            }
            if x.shape[*axis] == 0 && indices.elements() > 0 {
                return wrong(format!("axis {axis} of {x} has no element to gather"));
            }
            Ok(TensorType::new(x.dtype, [&x.shape[..*axis], &indices.shape, &x.shape[axis + 1..]].concat()))
        }
        Op::Where => {
            let (then, other) = (inputs[1], inputs[2]);
            if x.dtype != DType::Bool || then.dtype != other.dtype {
                return wrong(format!("needs a bool and two of one type, not {x}, {then} and {other}"));
            }
            match broadcast(&x.shape, &then.shape).and_then(|s| broadcast(&s, &other.shape)) {
                Some(shape) => Ok(TensorType::new(then.dtype, shape)),
                None => wrong(format!("{x}, {then} and {other} do not broadcast together")),
            }
        }
        Op::ArgMax { axis, keepdims, .. } => {
            if *axis >= x.rank() || x.shape[*axis] == 0 {
                return wrong(format!("{x} has no element along axis {axis}"));
            }
            let mut shape = x.shape.clone();
            shape[*axis] = 1;
            if !keepdims {
                shape.remove(*axis);
            }
            Ok(TensorType::new(DType::I64, shape))
        }
        _ => unreachable!("{} is no operator of this family", o.name()),
    }
}

/// The extents before an axis, along it and after it, each as one number.
fn blocks(shape: &[usize], axis: usize) -> [usize; 3] {
    [shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product()]
}

/// The position that an index names: negative counts from the end, out of range is clamped. Only the low 32 bits of an
/// index count, in a nest as here.
fn position(index: i64, dim: usize) -> usize {
    let index = index as i32 as i64;
    let from_start = if index < 0 { index + dim as i64 } else { index };
    from_start.clamp(0, dim as i64 - 1) as usize
}

pub fn eval(o: &Op, inputs: &[&Tensor], out: &TensorType) -> Result<Tensor> {
    let x = inputs[0];
    match o {
        Op::Gather { axis } => {
            let [outer, dim, inner] = blocks(x.shape(), *axis);
            let tables = [
                (0..outer).map(|i| Some(i * dim * inner)).collect(),
                inputs[1].to_i64().into_iter().map(|i| Some(position(i, dim) * inner)).collect(),
                (0..inner).map(Some).collect(),
            ];
            pick(&[x], out, separable(&tables).flatten().map(|at| (0, at)))
        }
        Op::Where => {
            let condition = x.to_i64();
            let strides: Vec<_> = inputs.iter().map(|t| broadcast_strides(t.shape(), &out.shape)).collect();
            let at = |i: usize| offsets(&out.shape, &strides[i]);
            let from = at(0).zip(at(1).zip(at(2)));
            let from = from.map(|(c, (then, other))| if condition[c] != 0 { (0, then) } else { (1, other) });
            pick(&inputs[1..], out, from)
        }
        Op::ArgMax { axis, last, .. } => {
            let blocks = blocks(x.shape(), *axis);
            let results = if x.dtype().is_float() {
                arg_max(&x.to_f32(), blocks, *last)
            } else {
                arg_max(&x.to_i64(), blocks, *last)
            };
            Ok(Tensor::from_i64(out.clone(), &results))
        }
        _ => unreachable!("{} is no operator of this family", o.name()),
    }
}

/// The positions of the largest elements. Each element is compared with the largest before it, so that a NaN is passed
/// over unless it is the first.
fn arg_max<T: Copy + PartialOrd>(x: &[T], [outer, dim, inner]: [usize; 3], last: bool) -> Vec<i64> {
    let mut results = Vec::with_capacity(outer * inner);
    for o in 0..outer {
        for i in 0..inner {
            let at = |d: usize| x[(o * dim + d) * inner + i];
            let better = |best: usize, d: &usize| if last { at(*d) >= at(best) } else { at(*d) > at(best) };
            results.push((1..dim).fold(0, |best, d| if better(best, &d) { d } else { best }) as i64);
        }
    }
    results
}

pub fn nest(o: &Op, inputs: &[&TensorType], out: &TensorType) -> Result<Nest> {
    let x = inputs[0];
    match o {
        Op::Gather { axis } => {
            refuse_wide(o, &[x])?;
            let [outer, dim, inner] = blocks(&x.shape, *axis);
            let count = inputs[1].elements();
            let mut b = NestBuilder::new(inputs, out);
            b.repeat_shape(&[outer, count], |b, at| {
                let offset = gathered(b, at[1].clone(), dim, inner);
                b.repeat(inner, |b, i| {
                    let mut from = i.clone().plus_scaled(&at[0], (dim * inner) as i64);
                    from.dynamic = Some(Box::new(Expr::Reg(offset)));
                    let value = b.load(0, from);
                    b.store(linear(&[at[0].clone(), at[1].clone(), i], &[count * inner, inner, 1]), value);
                });
            });
            Ok(b.finish())
        }
        Op::Where => {
            refuse_wide(o, &inputs[1..])?;
            let mut b = NestBuilder::new(inputs, out);
            b.repeat_shape(&out.shape, |b, at| {
                let [condition, then, other] = [0, 1, 2].map(|arg| {
                    let strides = broadcast_strides(&b.arg(arg).shape, &out.shape);
                    b.load(arg, linear(at, &strides))
                });
                let value = b.select(condition, then, other);
                b.store(linear(at, &out.strides()), value);
            });
            Ok(b.finish())
        }
        Op::ArgMax { axis, last, .. } => {
            refuse_wide(o, &[x])?;
            let [outer, dim, inner] = blocks(&x.shape, *axis);
            let mut b = NestBuilder::new(inputs, out);
            b.repeat_shape(&[outer, inner], |b, at| {
                let from = linear(at, &[dim * inner, 1]);
                let largest = b.load(0, from.clone());
                let largest = b.let_(largest);
                let best = b.let_(Expr::I32(0));
                b.repeat(dim - 1, |b, d| {
                    let value = b.load(0, from.offset(inner as i64).plus_scaled(&d, inner as i64));
                    let value = b.share(value);
                    let op = match (scalar_type(x.dtype), last) {
                        (ScalarType::F32, false) => BinOp::LtF,
                        (ScalarType::F32, true) => BinOp::LeF,
                        (ScalarType::I32, false) => BinOp::LtI,
                        (ScalarType::I32, true) => BinOp::LeI,
                    };
                    let better = b.bin(op, Expr::Reg(largest), value.clone());
                    let better = b.share(better);
                    let at = b.select(better.clone(), Expr::Index(d.offset(1)), Expr::Reg(best));
                    b.set(best, at);
                    let value = b.select(better, value, Expr::Reg(largest));
                    b.set(largest, value);
                });
                b.store(linear(at, &[inner, 1]), Expr::Reg(best));
            });
            Ok(b.finish())
        }
        _ => unreachable!("{} is no operator of this family", o.name()),
    }
}

/// The offset of the block that index number `at` of argument 1 names.
fn gathered(b: &mut NestBuilder, at: Index, dim: usize, inner: usize) -> Reg {
    let index = b.load(1, at);
    let index = b.share(index);
    let negative = b.bin(BinOp::LtI, index.clone(), Expr::I32(0));
    // An extent of 2^31 wraps; so does the sum, which then is right again.
    let from_end = b.bin(BinOp::AddI, index.clone(), Expr::I32(dim as i32));
    let from_start = b.select(negative, from_end, index);
    let position = b.clamp_i(from_start, 0, (dim.max(1) - 1) as i32);
    let offset = b.bin(BinOp::MulI, position, Expr::I32(inner as i32));
    b.let_(offset)
}
