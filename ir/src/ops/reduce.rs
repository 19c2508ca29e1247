//! Reductions, and what the operators that sum along axes share.

use super::map::offsets;
use super::steps::{self, Epilogue, words};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::nest::{Expr, Index, Nest, NestBuilder, linear};
use crate::op::{Reduce, ReduceKind};
use crate::requant;
use crate::scalar::{BinOp, Eval, Scalars};
use crate::tensor::Tensor;
use crate::types::{QuantParams, TensorType};

/// The element type as which x is computed: `f32` where an integer x is read by its parameters, else its own.
pub(super) fn read_type(op: &'static str, x: DType, dequant: Option<QuantParams>) -> Result<DType> {
    match dequant {
        Some(_) if x.int_range().is_some() => Ok(DType::F32),
        Some(_) => Err(Error::ty(op, format!("{x} has no quantisation"))),
        None => Ok(x),
    }
}

/// The elements of x as scalars, dequantised where asked.
pub(super) fn read(x: &Tensor, dequant: Option<QuantParams>) -> Vec<u32> {
    let mut all = words(x);
    if let Some(q) = dequant {
        all.iter_mut().for_each(|v| *v = requant::dequantize(&mut Eval, q, *v));
    }
    all
}

/// As [`read`], one element inside a nest.
pub(super) fn load(b: &mut NestBuilder, arg: usize, index: Index, dequant: Option<QuantParams>) -> Expr {
    let v = b.load(arg, index);
    match dequant {
        Some(q) => requant::dequantize(b, q, v),
        None => v,
    }
}

/// What a maximum starts from: the smallest `f32` or `i32`.
pub(super) fn lowest(float: bool) -> u32 {
    if float { f32::NEG_INFINITY.to_bits() } else { i32::MIN as u32 }
}

/// A scalar constant.
pub(super) fn constant(float: bool, word: u32) -> Expr {
    if float { Expr::F32(f32::from_bits(word)) } else { Expr::I32(word as i32) }
}

/// The first scalar of a reduction and the operation that adds one element. A maximum or minimum passes NaN over.
fn monoid(kind: ReduceKind, float: bool) -> (u32, BinOp) {
    let word = |f: f32, i: i32| if float { f.to_bits() } else { i as u32 };
    let op = |f: BinOp, i: BinOp| if float { f } else { i };
    match kind {
        ReduceKind::Sum | ReduceKind::Mean => (0, op(BinOp::AddF, BinOp::AddI)),
        ReduceKind::Prod => (word(1.0, 1), op(BinOp::MulF, BinOp::MulI)),
        ReduceKind::Max => (lowest(float), op(BinOp::MaxF, BinOp::MaxI)),
        ReduceKind::Min => (word(f32::INFINITY, i32::MAX), op(BinOp::MinF, BinOp::MinI)),
    }
}

fn name(kind: ReduceKind) -> &'static str {
    match kind {
        ReduceKind::Sum => "reduce_sum",
        ReduceKind::Mean => "reduce_mean",
        ReduceKind::Max => "reduce_max",
        ReduceKind::Min => "reduce_min",
        ReduceKind::Prod => "reduce_prod",
    }
}

/// The shape of x with the reduced dimensions at 1, and the number of elements of each reduction.
fn kept(o: &Reduce, x: &TensorType) -> (Vec<usize>, usize) {
    let mut shape = x.shape.clone();
    let count = o.axes.iter().map(|&a| std::mem::replace(&mut shape[a], 1)).product();
    (shape, count)
}

pub fn infer(o: &Reduce, inputs: &[&TensorType]) -> Result<TensorType> {
    let op = name(o.kind);
    let x = inputs[0];
    let dtype = read_type(op, x.dtype, o.dequant)?;
    use ReduceKind::*;
    let fits = match dtype {
        DType::F32 => true,
        DType::I32 | DType::I64 => o.kind != Mean,
        DType::I16 | DType::I8 | DType::U8 => matches!(o.kind, Max | Min),
        _ => false,
    };
    if !fits {
        return Err(Error::ty(op, format!("does not take {dtype}")));
    }
    if dtype == DType::I64 && !o.post.is_empty() {
        return Err(Error::ty(op, "takes no epilogue on 64-bit integers"));
    }
    if !o.axes.windows(2).all(|w| w[0] < w[1]) || o.axes.last().is_some_and(|&a| a >= x.rank()) {
        return Err(Error::ty(op, format!("axes {:?} are not ascending axes of {x}", o.axes)));
    }
    let (mut shape, count) = kept(o, x);
    if count == 0 && matches!(o.kind, Max | Min | Mean) {
        return Err(Error::ty(op, format!("of no elements ({x}) is not defined")));
    }
    if !o.keepdims {
        let mut d = 0;
        shape.retain(|_| {
            d += 1;
            o.axes.binary_search(&(d - 1)).is_err()
        });
    }
    let start = TensorType::new(dtype, shape);
    let out = steps::infer(op, &o.post, start.clone(), &inputs[1..])?;
    if out.shape != start.shape {
        return Err(Error::ty(op, format!("an operand of the epilogue is larger than the output {start}")));
    }
    Ok(out)
}

/// For each element of x in row-major order, the element of the output that it goes into.
fn targets(o: &Reduce, x: &TensorType) -> Vec<usize> {
    let (shape, _) = kept(o, x);
    let mut strides = TensorType::new(x.dtype, shape).strides();
    o.axes.iter().for_each(|&a| strides[a] = 0);
    offsets(&x.shape, &strides).collect()
}

pub fn eval(o: &Reduce, inputs: &[&Tensor], out: &TensorType) -> Result<Tensor> {
    let x = inputs[0];
    if x.dtype() == DType::I64 {
        return Ok(eval_i64(o, x, out));
    }
    let dtype = read_type(name(o.kind), x.dtype(), o.dequant)?;
    let (start, op) = monoid(o.kind, dtype == DType::F32);
    let mut results = vec![start; out.elements()];
    for (v, at) in read(x, o.dequant).into_iter().zip(targets(o, x.ty())) {
        results[at] = op.apply(results[at], v);
    }
    if o.kind == ReduceKind::Mean {
        let count = kept(o, x.ty()).1 as f32;
        results.iter_mut().for_each(|v| *v = (f32::from_bits(*v) / count).to_bits());
    }
    Ok(Epilogue::new(&o.post, dtype, &inputs[1..], out).apply(results))
}

/// Shape arithmetic: 64-bit integers, wrapping.
fn eval_i64(o: &Reduce, x: &Tensor, out: &TensorType) -> Tensor {
    let (start, f): (i64, fn(i64, i64) -> i64) = match o.kind {
        ReduceKind::Sum | ReduceKind::Mean => (0, i64::wrapping_add),
        ReduceKind::Prod => (1, i64::wrapping_mul),
        ReduceKind::Max => (i64::MIN, i64::max),
        ReduceKind::Min => (i64::MAX, i64::min),
    };
    let mut results = vec![start; out.elements()];
    for (v, at) in x.to_i64().into_iter().zip(targets(o, x.ty())) {
        results[at] = f(results[at], v);
    }
    Tensor::from_i64(out.clone(), &results)
}

pub fn nest(o: &Reduce, inputs: &[&TensorType], out: &TensorType) -> Result<Nest> {
    let x = inputs[0];
    let dtype = read_type(name(o.kind), x.dtype, o.dequant)?;
    if dtype == DType::I64 {
        let reason = "64-bit integer arithmetic runs only at compile time".into();
        return Err(Error::Unsupported { op: name(o.kind), reason });
    }
    let float = dtype == DType::F32;
    let (start, op) = monoid(o.kind, float);
    let (shape, count) = kept(o, x);
    let reduced: Vec<usize> = o.axes.iter().map(|&a| x.shape[a]).collect();
    let strides = x.strides();
    let reduced_strides: Vec<usize> = o.axes.iter().map(|&a| strides[a]).collect();
    let mut b = NestBuilder::new(inputs, out);
    b.repeat_shape(&shape, |b, at| {
        let acc = b.let_(constant(float, start));
        let base = linear(at, &strides);
        b.repeat_shape(&reduced, |b, k| {
            let v = load(b, 0, base.clone().plus_scaled(&linear(k, &reduced_strides), 1), o.dequant);
            let next = b.bin(op, Expr::Reg(acc), v);
            b.set(acc, next);
        });
        let mut value = Expr::Reg(acc);
        if o.kind == ReduceKind::Mean {
            value = b.bin(BinOp::DivF, value, Expr::F32(count as f32));
        }
        let to: Vec<Index> =
            (0..x.rank()).filter(|d| o.keepdims || o.axes.binary_search(d).is_err()).map(|d| at[d].clone()).collect();
        steps::store(b, &o.post, dtype, value, &to, 1);
    });
    Ok(b.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reduce(kind: ReduceKind, axes: &[usize], keepdims: bool) -> Reduce {
        Reduce { kind, axes: axes.to_vec(), keepdims, dequant: None, post: vec![] }
    }

    fn run(o: &Reduce, x: &Tensor) -> Tensor {
        let out = infer(o, &[x.ty()]).unwrap();
        eval(o, &[x], &out).unwrap()
    }

    #[test]
    fn values_and_shapes() {
        let x = Tensor::new([2, 3, 2], &(1..=12).map(|v| v as f32).collect::<Vec<_>>());
        let mean = run(&reduce(ReduceKind::Mean, &[0, 2], false), &x);
        assert_eq!((mean.shape(), mean.to_f64()), ([3].as_slice(), vec![4.5, 6.5, 8.5]));
        let sum = run(&reduce(ReduceKind::Sum, &[1], true), &x);
        assert_eq!((sum.shape(), sum.to_f64()), ([2, 1, 2].as_slice(), vec![9.0, 12.0, 27.0, 30.0]));
        let all = run(&reduce(ReduceKind::Min, &[0, 1, 2], false), &x);
        assert_eq!((all.shape(), all.to_f64()), ([].as_slice(), vec![1.0]));
        let none = run(&reduce(ReduceKind::Prod, &[], false), &x);
        assert_eq!(none, x);
        let x = Tensor::new([2, 2], &[-3i8, 4, 5, -128]);
        assert_eq!(run(&reduce(ReduceKind::Max, &[1], false), &x).to_i64(), [4, 5]);
        let x = Tensor::new([3], &[1i64 << 40, 3, 5]);
        assert_eq!(run(&reduce(ReduceKind::Prod, &[0], true), &x).to_i64(), [15 << 40]);
    }

    #[test]
    fn sums_run_in_row_major_order() {
        // 1e8 + 1 - 1e8 is 0 in this order and 1 in any that meets 1 last.
        let x = Tensor::new([3], &[1e8f32, 1.0, -1e8]);
        assert_eq!(run(&reduce(ReduceKind::Sum, &[0], false), &x).to_f64(), [0.0]);
    }

    #[test]
    fn bad_attributes_are_refused() {
        let x = TensorType::new(DType::F32, [2, 3]);
        for axes in [&[2][..], &[1, 0], &[0, 0]] {
            assert!(infer(&reduce(ReduceKind::Sum, axes, false), &[&x]).is_err(), "{axes:?}");
        }
        let bytes = TensorType::new(DType::I8, [2, 3]);
        assert!(infer(&reduce(ReduceKind::Sum, &[0], false), &[&bytes]).is_err());
        let empty = TensorType::new(DType::F32, [2, 0]);
        assert!(infer(&reduce(ReduceKind::Max, &[1], false), &[&empty]).is_err());
        assert!(infer(&reduce(ReduceKind::Sum, &[1], false), &[&empty]).is_ok());
    }
}
