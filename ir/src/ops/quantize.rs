//! ONNX QuantizeLinear and DequantizeLinear, literally: scale and zero point are operands, per tensor or along an axis.
//!
//! y = saturate(rne(x / scale) + zero) and x = f32(q - zero) * scale, one rounding an operation, as in
//! [`crate::requant`]. Block quantisation is not part of these operators.

use super::map::offsets;
use super::steps::{from_words, words};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::nest::{Expr, Nest, NestBuilder, linear};
use crate::op::Op;
use crate::scalar::{BinOp, Eval, Scalars, UnOp};
use crate::tensor::Tensor;
use crate::types::TensorType;

/// The axis and, of a quantisation, the result's element type.
fn parts(op: &Op) -> Result<(usize, Option<DType>)> {
    match op {
        Op::Quantize { axis, dtype } => Ok((*axis, Some(*dtype))),
        Op::Dequantize { axis } => Ok((*axis, None)),
        _ => Err(Error::ty(op.name(), "is no quantisation")),
    }
}

/// Types that quantised elements may have. i32 holds biases and is only ever read.
fn is_quantised(dtype: DType) -> bool {
    use DType::*;
    matches!(dtype, I8 | U8 | I16 | I4 | U4 | I2 | U2)
}

pub fn infer(op: &Op, inputs: &[&TensorType]) -> Result<TensorType> {
    let (axis, to) = parts(op)?;
    let (x, scale, zero) = (inputs[0], inputs[1], inputs[2]);
    let (fits, stored, result) = match to {
        Some(to) => (matches!(x.dtype, DType::F32 | DType::I32) && is_quantised(to), to, to),
        None => (is_quantised(x.dtype) || x.dtype == DType::I32, x.dtype, DType::F32),
    };
    if !fits {
        return Err(Error::ty(op.name(), format!("{} to {result} is not defined", x.dtype)));
    }
    if scale.dtype != DType::F32 || zero.dtype != stored || scale.shape != zero.shape {
        return Err(Error::ty(
            op.name(),
            format!("scale {scale} and zero point {zero} must be f32 and {stored} alike"),
        ));
    }
    let per_axis = x.shape.get(axis).is_some_and(|n| scale.shape == [*n]);
    if scale.shape != [1] && !per_axis {
        return Err(Error::ty(op.name(), format!("scale {scale} fits neither a tensor nor axis {axis} of {x}")));
    }
    Ok(TensorType::new(result, x.shape.clone()))
}

/// Elements between neighbours of the scale along each dimension of x.
fn scale_strides(axis: usize, x: &TensorType, scale: &TensorType) -> Vec<usize> {
    (0..x.rank()).map(|d| (d == axis && scale.shape != [1]) as usize).collect()
}

/// One element. `from` is x's type; `to` the type of a quantisation's result.
fn element<S: Scalars>(s: &mut S, from: DType, to: Option<DType>, x: S::V, scale: S::V, zero: S::V) -> S::V {
    let Some((lo, hi)) = to.and_then(DType::int_range) else {
        let v = s.bin(BinOp::SubI, x, zero);
        let v = s.un(UnOp::ToF, v);
        return s.bin(BinOp::MulF, v, scale);
    };
    let zero = s.share(zero);
    let x = if from == DType::F32 { x } else { s.un(UnOp::ToF, x) };
    let x = s.bin(BinOp::DivF, x, scale);
    // Clamping before the rounding gives the same integer, and keeps the conversion in range.
    let bound = |s: &mut S, end: i32| {
        let end = s.i32(end);
        let end = s.bin(BinOp::SubI, end, zero.clone());
        s.un(UnOp::ToF, end)
    };
    let end = bound(s, hi);
    let x = s.bin(BinOp::MinF, x, end);
    let end = bound(s, lo);
    let x = s.bin(BinOp::MaxF, x, end);
    let v = s.un(UnOp::RoundToI, x);
    s.bin(BinOp::AddI, v, zero)
}

pub fn eval(op: &Op, inputs: &[&Tensor], out: &TensorType) -> Result<Tensor> {
    let (axis, to) = parts(op)?;
    let x = inputs[0];
    let (scale, zero) = (words(inputs[1]), words(inputs[2]));
    let strides = scale_strides(axis, x.ty(), inputs[1].ty());
    let results: Vec<u32> = words(x)
        .into_iter()
        .zip(offsets(&out.shape, &strides))
        .map(|(v, at)| element(&mut Eval, x.dtype(), to, v, scale[at], zero[at]))
        .collect();
    Ok(from_words(out, &results))
}

pub fn nest(op: &Op, inputs: &[&TensorType], out: &TensorType) -> Result<Nest> {
    let (axis, to) = parts(op)?;
    let x = inputs[0];
    let strides = scale_strides(axis, x, inputs[1]);
    let mut b = NestBuilder::new(inputs, out);
    b.repeat_shape(&out.shape, |b, at| {
        let index = linear(at, &out.strides());
        let of = linear(at, &strides);
        let (v, scale, zero): (Expr, Expr, Expr) = (b.load(0, index.clone()), b.load(1, of.clone()), b.load(2, of));
        let v = element(b, x.dtype, to, v, scale, zero);
        b.store(index, v);
    });
    Ok(b.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(op: &Op, inputs: &[&Tensor]) -> Tensor {
        let types: Vec<&TensorType> = inputs.iter().map(|t| t.ty()).collect();
        let out = infer(op, &types).unwrap();
        eval(op, inputs, &out).unwrap()
    }

    // Expected values by ONNX Runtime 1.32, QuantizeLinear of opset 21 on the same arrays.
    #[test]
    fn quantize_agrees_with_onnx_runtime() {
        let x = [0.0, 0.25, 0.75, 1.25, -0.25, -0.75, 1000.0, -1000.0, 1e30, 63.2, -64.9, f32::INFINITY];
        let x = Tensor::new([12], &x);
        let scale = Tensor::new([1], &[0.5f32]);
        let op = Op::Quantize { axis: 0, dtype: DType::I8 };
        let q = run(&op, &[&x, &scale, &Tensor::new([1], &[3i8])]);
        assert_eq!(q.to_i64(), [3, 3, 5, 5, 3, 1, 127, -128, 127, 127, -127, 127]);
        let op = Op::Quantize { axis: 0, dtype: DType::U8 };
        let q = run(&op, &[&x, &scale, &Tensor::new([1], &[128u8])]);
        assert_eq!(q.to_i64(), [128, 128, 130, 130, 128, 126, 255, 0, 255, 254, 0, 255]);
        let op = Op::Quantize { axis: 0, dtype: DType::I16 };
        let q = run(&op, &[&x, &scale, &Tensor::new([1], &[-32_768i16])]);
        assert_eq!(
            q.to_i64(),
            [-32_768, -32_768, -32_766, -32_766, -32_768, -32_768, -30_768, -32_768, 32_767, -32_642, -32_768, 32_767]
        );
        let op = Op::Quantize { axis: 0, dtype: DType::U4 };
        let zero = Tensor::from_i64(TensorType::new(DType::U4, [1]), &[7]);
        assert_eq!(run(&op, &[&x, &scale, &zero]).to_i64(), [7, 7, 9, 9, 7, 5, 15, 0, 15, 15, 0, 15]);
    }

    #[test]
    fn axis_parameters_are_read_along_the_axis() {
        let x = Tensor::from_i64(TensorType::new(DType::I32, [2, 3, 2]), &[5, 6, 7, 8, 9, 10, -5, -6, -7, -8, -9, -10]);
        let scale = Tensor::new([3], &[0.5f32, 2.0, 0.25]);
        let y = run(&Op::Dequantize { axis: 1 }, &[&x, &scale, &Tensor::new([3], &[0i32, 0, 1])]);
        assert_eq!(y.to_f64(), [2.5, 3.0, 14.0, 16.0, 2.0, 2.25, -2.5, -3.0, -14.0, -16.0, -2.5, -2.75]);
        let q = run(&Op::Quantize { axis: 1, dtype: DType::I8 }, &[&x, &scale, &Tensor::new([3], &[0i8, 10, -120])]);
        assert_eq!(q.to_i64(), [10, 12, 14, 14, -84, -80, -10, -12, 6, 6, -128, -128]);
    }

    #[test]
    fn wrong_types_are_refused() {
        let f = |n: usize| TensorType::new(DType::F32, [n]);
        let q = |d: DType, n: usize| TensorType::new(d, [n]);
        let op = Op::Quantize { axis: 0, dtype: DType::I8 };
        assert!(infer(&op, &[&f(4), &f(4), &q(DType::I8, 4)]).is_ok());
        for (x, scale, zero) in [
            (f(4), f(3), q(DType::I8, 3)),
            (f(4), f(1), q(DType::U8, 1)),
            (f(4), f(4), q(DType::I8, 1)),
            (q(DType::I64, 4), f(1), q(DType::I8, 1)),
        ] {
            assert!(infer(&op, &[&x, &scale, &zero]).is_err(), "{x} {scale} {zero}");
        }
        assert!(infer(&Op::Quantize { axis: 0, dtype: DType::Bool }, &[&f(4), &f(1), &q(DType::Bool, 1)]).is_err());
        assert!(infer(&Op::Dequantize { axis: 5 }, &[&q(DType::I8, 4), &f(4), &q(DType::I8, 4)]).is_err());
    }
}
