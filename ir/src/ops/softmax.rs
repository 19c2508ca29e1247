//! Softmax and log-softmax.

use super::reduce::{load, lowest, read, read_type};
use super::steps::{self, Epilogue};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::math::elementary;
use crate::nest::{Expr, Index, Nest, NestBuilder, linear};
use crate::op::Softmax;
use crate::scalar::{BinOp, Eval, Scalars};
use crate::tensor::Tensor;
use crate::types::TensorType;

fn name(o: &Softmax) -> &'static str {
    if o.log { "log_softmax" } else { "softmax" }
}

pub fn infer(o: &Softmax, inputs: &[&TensorType]) -> Result<TensorType> {
    let (op, x) = (name(o), inputs[0]);
    let dtype = read_type(op, x.dtype, o.dequant)?;
    if dtype != DType::F32 {
        return Err(Error::ty(op, format!("does not take {dtype}")));
    }
    if o.axis >= x.rank() {
        return Err(Error::ty(op, format!("{x} has no axis {}", o.axis)));
    }
    let start = TensorType::new(dtype, x.shape.clone());
    let out = steps::infer(op, &o.post, start.clone(), &inputs[1..])?;
    if out.shape != start.shape {
        return Err(Error::ty(op, format!("an operand of the epilogue is larger than the output {start}")));
    }
    Ok(out)
}

pub fn eval(o: &Softmax, inputs: &[&Tensor], out: &TensorType) -> Result<Tensor> {
    let x: Vec<f32> = read(inputs[0], o.dequant).into_iter().map(f32::from_bits).collect();
    let count = out.shape[o.axis];
    let inner: usize = out.shape[o.axis + 1..].iter().product();
    let outer: usize = out.shape[..o.axis].iter().product();
    let exp = |v: f32| f32::from_bits(elementary::exp(&mut Eval, v.to_bits()));
    let mut results = vec![0; out.elements()];
    for first in (0..outer).flat_map(|a| (0..inner).map(move |b| a * count * inner + b)) {
        let line: Vec<usize> = (0..count).map(|k| first + k * inner).collect();
        let max = line.iter().fold(f32::NEG_INFINITY, |m, &at| if x[at] > m { x[at] } else { m });
        let sum = line.iter().fold(0.0, |sum, &at| sum + exp(x[at] - max));
        let log_sum = f32::from_bits(elementary::log(&mut Eval, f32::to_bits(sum)));
        for at in line {
            let value = if o.log { (x[at] - max) - log_sum } else { exp(x[at] - max) / sum };
            results[at] = value.to_bits();
        }
    }
    Ok(Epilogue::new(&o.post, DType::F32, &inputs[1..], out).apply(results))
}

/// Three passes along the axis: the maximum, the sum, the results. The exponentials are computed twice rather than kept
/// in the output, which may be narrower than they are and may be the memory of x.
pub fn nest(o: &Softmax, inputs: &[&TensorType], out: &TensorType) -> Result<Nest> {
    let count = out.shape[o.axis];
    let strides = out.strides();
    let mut outer = out.shape.clone();
    outer[o.axis] = 1;
    let mut b = NestBuilder::new(inputs, out);
    b.repeat_shape(&outer, |b, at| {
        let element = |k: &Index| {
            let mut at = at.to_vec();
            at[o.axis] = k.clone();
            at
        };
        let max = b.let_(Expr::F32(f32::from_bits(lowest(true))));
        b.repeat(count, |b, k| {
            let v = load(b, 0, linear(&element(&k), &strides), o.dequant);
            let next = b.bin(BinOp::MaxF, Expr::Reg(max), v);
            b.set(max, next);
        });
        let below_max = |b: &mut NestBuilder, k: &Index| {
            let v = load(b, 0, linear(&element(k), &strides), o.dequant);
            b.bin(BinOp::SubF, v, Expr::Reg(max))
        };
        let sum = b.let_(Expr::F32(0.0));
        b.repeat(count, |b, k| {
            let v = below_max(b, &k);
            let v = elementary::exp(b, v);
            let next = b.bin(BinOp::AddF, Expr::Reg(sum), v);
            b.set(sum, next);
        });
        if o.log {
            let log = elementary::log(b, Expr::Reg(sum));
            b.set(sum, log);
        }
        b.repeat(count, |b, k| {
            let v = below_max(b, &k);
            let v = if o.log {
                b.bin(BinOp::SubF, v, Expr::Reg(sum))
            } else {
                let e = elementary::exp(b, v);
                b.bin(BinOp::DivF, e, Expr::Reg(sum))
            };
            steps::store(b, &o.post, DType::F32, v, &element(&k), 1);
        });
    });
    Ok(b.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(axis: usize, log: bool, x: &Tensor) -> Vec<f32> {
        let o = Softmax { axis, log, dequant: None, post: vec![] };
        let out = infer(&o, &[x.ty()]).unwrap();
        eval(&o, &[x], &out).unwrap().to_f32()
    }

    fn near(got: &[f32], expected: &[f32]) {
        for (g, e) in got.iter().zip(expected) {
            assert!((g - e).abs() <= 4e-7 * e.abs(), "{got:?}, not {expected:?}");
        }
        assert_eq!(got.len(), expected.len());
    }

    // Expected values by ONNX Runtime 1.32, Softmax and LogSoftmax of opset 21 along axis 1.
    #[test]
    fn agrees_with_onnx_runtime_along_the_axis() {
        let x = Tensor::new([2, 3, 2], &[-1.5f32, 1.0, 0.0, -1.0, 1.5, 0.5, -0.5, -1.5, 1.0, 0.0, -1.0, 1.5]);
        let soft = [
            0.039_112_57,
            0.574_097,
            0.175_290_4,
            0.077_695_58,
            0.785_597,
            0.348_207_4,
            0.164_251_63,
            0.039_112_57,
            0.736_124_7,
            0.175_290_4,
            0.099_623_64,
            0.785_597,
        ];
        near(&run(1, false, &x), &soft);
        let log = [
            -3.241_311_3,
            -0.554_957,
            -1.741_311_3,
            -2.554_957,
            -0.241_311_33,
            -1.054_957,
            -1.806_355_8,
            -3.241_311_3,
            -0.306_355_8,
            -1.741_311_3,
            -2.306_355_7,
            -0.241_311_33,
        ];
        near(&run(1, true, &x), &log);
    }

    #[test]
    fn large_arguments_do_not_overflow() {
        let x = Tensor::new([1, 3], &[1e30f32, 1e30, -1e30]);
        assert_eq!(run(1, false, &x), [0.5, 0.5, 0.0]);
    }

    #[test]
    fn wrong_inputs_are_refused() {
        let o = Softmax { axis: 1, log: false, dequant: None, post: vec![] };
        assert!(infer(&o, &[&TensorType::new(DType::F32, [3])]).is_err());
        assert!(infer(&o, &[&TensorType::new(DType::I8, [3, 2])]).is_err());
    }
}
