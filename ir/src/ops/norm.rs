//! Layer and batch normalisation: ((x - mean) / sqrt(variance + epsilon)) * scale + bias, one rounding an operation.

use super::steps::{self, Epilogue};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::nest::{Expr, Nest, NestBuilder, linear};
use crate::op::LayerNorm;
use crate::scalar::{BinOp, Eval, Scalars, UnOp};
use crate::tensor::Tensor;
use crate::types::TensorType;

/// sqrt(variance + epsilon).
#[inline(always)]
pub fn deviation<S: Scalars>(s: &mut S, variance: S::V, epsilon: f32) -> S::V {
    let epsilon = s.f32(epsilon);
    let v = s.bin(BinOp::AddF, variance, epsilon);
    s.un(UnOp::SqrtF, v)
}

/// One element, its mean already subtracted.
#[inline(always)]
pub fn normalise<S: Scalars>(s: &mut S, centred: S::V, deviation: S::V, scale: S::V, bias: S::V) -> S::V {
    let v = s.bin(BinOp::DivF, centred, deviation);
    let v = s.bin(BinOp::MulF, v, scale);
    s.bin(BinOp::AddF, v, bias)
}

pub fn infer(o: &LayerNorm, inputs: &[&TensorType]) -> Result<TensorType> {
    let op = "layer_norm";
    let x = inputs[0];
    if x.dtype != DType::F32 {
        return Err(Error::ty(op, format!("does not take {}", x.dtype)));
    }
    let Some(normalised) = x.shape.get(o.axis..).filter(|s| !s.is_empty()) else {
        return Err(Error::ty(op, format!("{x} has no axis {}", o.axis)));
    };
    for (ty, role) in [(inputs[1], "scale"), (inputs[2], "bias")] {
        if ty.dtype != DType::F32 || ty.shape != normalised {
            return Err(Error::ty(op, format!("the {role} {ty} is not f32 of shape {normalised:?}")));
        }
    }
    let out = steps::infer(op, &o.post, x.clone(), &inputs[3..])?;
    if out.shape != x.shape {
        return Err(Error::ty(op, format!("an operand of the epilogue is larger than the output {x}")));
    }
    Ok(out)
}

pub fn eval(o: &LayerNorm, inputs: &[&Tensor], out: &TensorType) -> Result<Tensor> {
    let (x, scale, bias) = (inputs[0].to_f32(), inputs[1].to_f32(), inputs[2].to_f32());
    let count = scale.len();
    let mut results = Vec::with_capacity(x.len());
    for row in x.chunks_exact(count.max(1)) {
        let mean = row.iter().fold(0.0, |s, v| s + v) / count as f32;
        let squares = row.iter().fold(0.0, |s, v| s + (v - mean) * (v - mean));
        let deviation = deviation(&mut Eval, (squares / count as f32).to_bits(), o.epsilon.0);
        for ((v, scale), bias) in row.iter().zip(&scale).zip(&bias) {
            results.push(normalise(&mut Eval, (v - mean).to_bits(), deviation, scale.to_bits(), bias.to_bits()));
        }
    }
    Ok(Epilogue::new(&o.post, DType::F32, &inputs[3..], out).apply(results))
}

pub fn nest(o: &LayerNorm, inputs: &[&TensorType], out: &TensorType) -> Result<Nest> {
    let x = inputs[0];
    let (outer, inner) = x.shape.split_at(o.axis);
    let strides = x.strides();
    let (outer_strides, inner_strides) = strides.split_at(o.axis);
    let count = Expr::F32(inner.iter().product::<usize>() as f32);
    let mut b = NestBuilder::new(inputs, out);
    b.repeat_shape(outer, |b, row| {
        let base = linear(row, outer_strides);
        let sum = b.let_(Expr::F32(0.0));
        b.repeat_shape(inner, |b, k| {
            let v = b.load(0, base.clone().plus_scaled(&linear(k, inner_strides), 1));
            let next = b.bin(BinOp::AddF, Expr::Reg(sum), v);
            b.set(sum, next);
        });
        let mean = b.bin(BinOp::DivF, Expr::Reg(sum), count.clone());
        let mean = b.let_(mean);
        let squares = b.let_(Expr::F32(0.0));
        b.repeat_shape(inner, |b, k| {
            let v = b.load(0, base.clone().plus_scaled(&linear(k, inner_strides), 1));
            let v = b.bin(BinOp::SubF, v, Expr::Reg(mean));
            let v = b.share(v);
            let square = b.bin(BinOp::MulF, v.clone(), v);
            let next = b.bin(BinOp::AddF, Expr::Reg(squares), square);
            b.set(squares, next);
        });
        let variance = b.bin(BinOp::DivF, Expr::Reg(squares), count);
        let deviation = deviation(b, variance, o.epsilon.0);
        let deviation = b.let_(deviation);
        b.repeat_shape(inner, |b, k| {
            let of = linear(k, inner_strides);
            let v = b.load(0, base.clone().plus_scaled(&of, 1));
            let v = b.bin(BinOp::SubF, v, Expr::Reg(mean));
            let (scale, bias) = (b.load(1, of.clone()), b.load(2, of));
            let v = normalise(b, v, Expr::Reg(deviation), scale, bias);
            steps::store(b, &o.post, DType::F32, v, &[row, k].concat(), 3);
        });
    });
    Ok(b.finish())
}

pub fn infer_batch(inputs: &[&TensorType]) -> Result<TensorType> {
    let op = "batch_norm";
    let x = inputs[0];
    if x.dtype != DType::F32 {
        return Err(Error::ty(op, format!("does not take {}", x.dtype)));
    }
    let Some(&channels) = x.shape.get(1) else {
        return Err(Error::ty(op, format!("{x} has no channels")));
    };
    if let Some(ty) = inputs[1..].iter().find(|t| t.dtype != DType::F32 || t.shape != [channels]) {
        return Err(Error::ty(op, format!("parameters must be f32[{channels}], not {ty}")));
    }
    Ok(x.clone())
}

pub fn eval_batch(epsilon: f32, inputs: &[&Tensor], out: &TensorType) -> Result<Tensor> {
    let [x, scale, bias, mean, variance] = [0, 1, 2, 3, 4].map(|i| inputs[i].to_f32());
    let inner: usize = out.shape[2..].iter().product();
    let results: Vec<f32> = x
        .iter()
        .enumerate()
        .map(|(i, v)| {
            let c = i / inner % out.shape[1];
            (v - mean[c]) / (variance[c] + epsilon).sqrt() * scale[c] + bias[c]
        })
        .collect();
    Ok(Tensor::new(out.shape.clone(), &results))
}

pub fn nest_batch(epsilon: f32, inputs: &[&TensorType], out: &TensorType) -> Result<Nest> {
    let strides = out.strides();
    let (n, channels, spatial) = (out.shape[0], out.shape[1], &out.shape[2..]);
    let mut b = NestBuilder::new(inputs, out);
    b.repeat_shape(&[n, channels], |b, at| {
        let c = &at[1];
        let variance = b.load(4, c.clone());
        let deviation = deviation(b, variance, epsilon);
        let deviation = b.let_(deviation);
        b.repeat_shape(spatial, |b, k| {
            let index = linear(&[at, k].concat(), &strides);
            let (v, mean) = (b.load(0, index.clone()), b.load(3, c.clone()));
            let v = b.bin(BinOp::SubF, v, mean);
            let (scale, bias) = (b.load(1, c.clone()), b.load(2, c.clone()));
            let v = normalise(b, v, Expr::Reg(deviation), scale, bias);
            b.store(index, v);
        });
    });
    Ok(b.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::F32;

    fn x() -> Tensor {
        Tensor::new([2, 3, 2], &[-1.5f32, 1.0, 0.0, -1.0, 1.5, 0.5, -0.5, -1.5, 1.0, 0.0, -1.0, 1.5])
    }

    fn near(got: &[f32], expected: &[f32]) {
        for (g, e) in got.iter().zip(expected) {
            assert!((g - e).abs() <= 1e-6 * e.abs().max(1.0), "{got:?}, not {expected:?}");
        }
        assert_eq!(got.len(), expected.len());
    }

    // Expected values by ONNX Runtime 1.32, LayerNormalization of opset 21 over axes 1 and 2.
    #[test]
    fn layer_norm_agrees_with_onnx_runtime() {
        let scale = Tensor::new([3, 2], &[1f32, 2.0, 0.5, -1.0, 3.0, 0.25]);
        let bias = Tensor::new([3, 2], &[0f32, 1.0, 2.0, 3.0, -1.0, 0.5]);
        let o = LayerNorm { axis: 1, epsilon: F32(1e-3), post: vec![] };
        let inputs = [&x(), &scale, &bias];
        let out = infer(&o, &inputs.map(|t| t.ty())).unwrap();
        let expected = [
            -1.496_740_5,
            2.733_068,
            1.960_612,
            4.024_085_5,
            3.017_566_7,
            0.598_469_7,
            -0.393_879_15,
            -1.678_378_1,
            2.512_042_8,
            2.921_224,
            -3.599_602_2,
            0.874_185_15,
        ];
        near(&eval(&o, &inputs, &out).unwrap().to_f32(), &expected);
    }

    // Expected values by ONNX Runtime 1.32, BatchNormalization of opset 21.
    #[test]
    fn batch_norm_agrees_with_onnx_runtime() {
        let parameters = [[1f32, 2.0, -0.5], [0.0, 1.0, 2.0], [0.5, -1.0, 0.25], [1.0, 0.25, 4.0]];
        let parameters = parameters.map(|p| Tensor::new([3], &p));
        let x = x();
        let inputs: Vec<&Tensor> = std::iter::once(&x).chain(&parameters).collect();
        let out = infer_batch(&inputs.iter().map(|t| t.ty()).collect::<Vec<_>>()).unwrap();
        let expected = [
            -1.990_074_3,
            0.497_518_57,
            4.922_322_8,
            1.0,
            1.687_889_9,
            1.937_578,
            -0.995_037_14,
            -1.990_074_3,
            8.844_646,
            4.922_322_8,
            2.312_110_2,
            1.687_889_9,
        ];
        near(&eval_batch(1e-2, &inputs, &out).unwrap().to_f32(), &expected);
    }

    #[test]
    fn wrong_shapes_are_refused() {
        let f = |s: &[usize]| TensorType::new(DType::F32, s);
        let o = LayerNorm { axis: 1, epsilon: F32(0.0), post: vec![] };
        assert!(infer(&o, &[&f(&[2, 3]), &f(&[3]), &f(&[3])]).is_ok());
        assert!(infer(&o, &[&f(&[2, 3]), &f(&[1]), &f(&[3])]).is_err());
        assert!(infer(&o, &[&f(&[2]), &f(&[]), &f(&[])]).is_err());
        assert!(infer_batch(&[&f(&[2, 3]), &f(&[3]), &f(&[3]), &f(&[3]), &f(&[2])]).is_err());
        assert!(infer_batch(&[&f(&[2]), &f(&[2]), &f(&[2]), &f(&[2]), &f(&[2])]).is_err());
    }
}
