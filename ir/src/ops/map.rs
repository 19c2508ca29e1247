//! Element-wise chains.

use super::steps::{self, Epilogue};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::nest::{Nest, NestBuilder, linear};
use crate::op::{Binary, Step, Unary};
use crate::tensor::Tensor;
use crate::types::{TensorType, broadcast_strides};

pub fn infer(steps: &[Step], inputs: &[&TensorType]) -> Result<TensorType> {
    steps::infer("map", steps, inputs[0].clone(), &inputs[1..])
}

pub fn eval(steps: &[Step], inputs: &[&Tensor], out: &TensorType) -> Result<Tensor> {
    if inputs.iter().any(|t| t.dtype() == DType::I64) || out.dtype == DType::I64 {
        return eval_i64(steps, inputs, out);
    }
    let x = steps::words(inputs[0]);
    let strides = broadcast_strides(inputs[0].shape(), &out.shape);
    let broadcast = offsets(&out.shape, &strides).map(|at| x[at]).collect();
    Ok(Epilogue::new(steps, inputs[0].dtype(), &inputs[1..], out).apply(broadcast))
}

pub fn nest(steps: &[Step], inputs: &[&TensorType], out: &TensorType) -> Result<Nest> {
    let wide = |t: &TensorType| t.dtype == DType::I64;
    // A cast among integers keeps the low bits, which is all that a nest holds of a 64-bit one; a float would need the others.
    let keeps_low_bits = matches!(steps, [Step::Cast(to)]
        if !inputs[0].dtype.is_float() && !to.is_float() && *to != DType::Bool);
    if !keeps_low_bits && (inputs.iter().any(|t| wide(t)) || wide(out)) {
        return Err(Error::Unsupported {
            op: "map",
            reason: "64-bit integer arithmetic runs only at compile time".into(),
        });
    }
    let mut b = NestBuilder::new(inputs, out);
    let strides = broadcast_strides(&inputs[0].shape, &out.shape);
    b.repeat_shape(&out.shape, |b, at| {
        let value = b.load(0, linear(at, &strides));
        steps::store(b, steps, inputs[0].dtype, value, at, 1);
    });
    Ok(b.finish())
}

/// Row-major offsets of every index of `shape` under `strides`.
pub fn offsets(shape: &[usize], strides: &[usize]) -> impl Iterator<Item = usize> {
    let total: usize = shape.iter().product();
    (0..total).map(move |mut i| {
        let mut at = 0;
        for d in (0..shape.len()).rev() {
            at += i % shape[d] * strides[d];
            i /= shape[d];
        }
        at
    })
}

/// Shape arithmetic: 64-bit integers, wrapping.
fn eval_i64(steps: &[Step], inputs: &[&Tensor], out: &TensorType) -> Result<Tensor> {
    let unsupported = |step: &Step| Error::Unsupported { op: step.name(), reason: "not on 64-bit integers".into() };
    let read = |t: &Tensor| -> Vec<i64> {
        let all = t.to_i64();
        offsets(&out.shape, &broadcast_strides(t.shape(), &out.shape)).map(|at| all[at]).collect()
    };
    let [step] = steps else { return Err(unsupported(&steps[0])) };
    if let Step::Cast(to) = step {
        return Ok(match (inputs[0].dtype().is_float(), to.is_float(), *to) {
            (_, _, DType::Bool) => {
                let all: Vec<i64> = inputs[0].to_f64().iter().map(|v| (*v != 0.0) as i64).collect();
                Tensor::from_i64(out.clone(), &all)
            }
            (_, true, _) => Tensor::from_f64(out.clone(), &inputs[0].to_f64()),
            _ => Tensor::from_i64(out.clone(), &inputs[0].to_i64()),
        });
    }
    let a = read(inputs[0]);
    let results: Vec<i64> = match step {
        Step::Unary(u) => {
            let f: fn(i64) -> i64 = match u {
                Unary::Neg => i64::wrapping_neg,
                Unary::Abs => i64::wrapping_abs,
                Unary::Sign => i64::signum,
                Unary::Relu => |v| v.max(0),
                _ => return Err(unsupported(step)),
            };
            a.into_iter().map(f).collect()
        }
        Step::Binary { op, swapped, dequant: None } => {
            let f: fn(i64, i64) -> i64 = match op {
                Binary::Add => i64::wrapping_add,
                Binary::Sub => i64::wrapping_sub,
                Binary::Mul => i64::wrapping_mul,
                Binary::Div => |a, b| if b == 0 { 0 } else { a.wrapping_div(b) },
                Binary::Min => i64::min,
                Binary::Max => i64::max,
                Binary::Equal => |a, b| (a == b) as i64,
                Binary::Less => |a, b| (a < b) as i64,
                Binary::LessEqual => |a, b| (a <= b) as i64,
                Binary::Greater => |a, b| (a > b) as i64,
                Binary::GreaterEqual => |a, b| (a >= b) as i64,
                _ => return Err(unsupported(step)),
            };
            let b = read(inputs[1]);
            a.into_iter().zip(b).map(|(a, b)| if *swapped { f(b, a) } else { f(a, b) }).collect()
        }
        _ => return Err(unsupported(step)),
    };
    Ok(Tensor::from_i64(out.clone(), &results))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nest::run::run_on;

    fn cast(x: &Tensor, to: DType) -> (Tensor, Result<Nest>) {
        let steps = [Step::Cast(to)];
        let out = infer(&steps, &[x.ty()]).unwrap();
        (eval(&steps, &[x], &out).unwrap(), nest(&steps, &[x.ty()], &out))
    }

    #[test]
    fn casts_between_64_bits_and_float_run_at_compile_time_only() {
        let large = Tensor::new([2], &[1i64 << 40, -5]);
        let (value, nest) = cast(&large, DType::F32);
        assert_eq!(value.to_f32(), [(1i64 << 40) as f32, -5.0]);
        assert!(matches!(nest, Err(Error::Unsupported { .. })));
        let (value, nest) = cast(&Tensor::new([1], &[1e12f32]), DType::I64);
        assert_eq!(value.to_i64(), [999_999_995_904]);
        assert!(matches!(nest, Err(Error::Unsupported { .. })));
    }

    #[test]
    fn casts_among_integers_keep_the_low_bits() {
        let x = Tensor::new([4], &[-1i64, 300, (1 << 33) + 7, -129]);
        for to in [DType::I32, DType::I8, DType::U8] {
            let (value, nest) = cast(&x, to);
            assert_eq!(run_on(&nest.unwrap(), &[&x]), value, "{to}");
        }
        let (value, nest) = cast(&Tensor::new([3], &[-1i32, i32::MIN, 7]), DType::I64);
        assert_eq!(run_on(&nest.unwrap(), &[&Tensor::new([3], &[-1i32, i32::MIN, 7])]), value);
    }
}
