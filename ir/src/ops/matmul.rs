//! Batched matrix product.

use super::conv::{check_types, multiply_add};
use super::map::offsets;
use super::steps::{self, Epilogue};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::nest::{Expr, Nest, NestBuilder, linear};
use crate::op::MatMul;
use crate::tensor::Tensor;
use crate::types::{TensorType, broadcast, broadcast_strides};

/// Rows, depth, columns, and the shape of the batch.
fn dims(o: &MatMul, a: &TensorType, b: &TensorType) -> Result<(usize, usize, usize, Vec<usize>)> {
    let op = "matmul";
    if a.rank() < 2 || b.rank() < 2 {
        return Err(Error::ty(op, format!("{a} and {b} must have at least 2 dimensions")));
    }
    let (batch_a, [m, k]) = (&a.shape[..a.rank() - 2], [a.shape[a.rank() - 2], a.shape[a.rank() - 1]]);
    let (batch_b, mut kb) = (&b.shape[..b.rank() - 2], [b.shape[b.rank() - 2], b.shape[b.rank() - 1]]);
    if o.trans_b {
        kb.reverse();
    }
    let [kb, n] = kb;
    match broadcast(batch_a, batch_b) {
        Some(batch) if k == kb => Ok((m, k, n, batch)),
        _ => Err(Error::ty(op, format!("{a} times {b} (trans_b = {}) is not defined", o.trans_b))),
    }
}

pub fn infer(o: &MatMul, inputs: &[&TensorType]) -> Result<TensorType> {
    let (m, _, n, batch) = dims(o, inputs[0], inputs[1])?;
    let acc = check_types("matmul", inputs[0].dtype, inputs[1].dtype, o.bias.then(|| (inputs[2], n)))?;
    let start = TensorType::new(acc, [batch, vec![m, n]].concat());
    let out = steps::infer("matmul", &o.post, start.clone(), &inputs[2 + o.bias as usize..])?;
    if out.shape != start.shape {
        return Err(Error::ty("matmul", format!("an operand of the epilogue is larger than the output {start}")));
    }
    Ok(out)
}

pub fn eval(o: &MatMul, inputs: &[&Tensor], out: &TensorType) -> Result<Tensor> {
    let acc = check_types("matmul", inputs[0].dtype(), inputs[1].dtype(), None)?;
    let results = if acc == DType::F32 {
        let bias = if o.bias { inputs[2].to_f32() } else { vec![] };
        let add = |s: f32, x: f32, w: f32| s + x * w;
        multiply(o, inputs, &inputs[0].to_f32(), &inputs[1].to_f32(), &bias, add)?
            .into_iter()
            .map(f32::to_bits)
            .collect()
    } else {
        let ints = |t: &Tensor| t.to_i64().into_iter().map(|v| v as i32).collect::<Vec<_>>();
        let bias = if o.bias { ints(inputs[2]) } else { vec![] };
        let add = |s: i32, x: i32, w: i32| s.wrapping_add(x.wrapping_mul(w));
        multiply(o, inputs, &ints(inputs[0]), &ints(inputs[1]), &bias, add)?.into_iter().map(|v| v as u32).collect()
    };
    Ok(Epilogue::new(&o.post, acc, &inputs[2 + o.bias as usize..], out).apply(results))
}

/// The accumulators, in row-major order; sums start from the bias and run over the depth.
fn multiply<T: Copy + Default>(
    o: &MatMul,
    inputs: &[&Tensor],
    a: &[T],
    b: &[T],
    bias: &[T],
    add: impl Fn(T, T, T) -> T,
) -> Result<Vec<T>> {
    let (at, bt) = (inputs[0].ty(), inputs[1].ty());
    let (m, k, n, batch) = dims(o, at, bt)?;
    let scaled = |ty: &TensorType| {
        let rows = &ty.shape[..ty.rank() - 2];
        let matrix = ty.shape[ty.rank() - 2] * ty.shape[ty.rank() - 1];
        let strides = broadcast_strides(rows, &batch);
        offsets(&batch, &strides).map(|i| i * matrix).collect::<Vec<_>>()
    };
    let (row, column) = if o.trans_b { (1, k) } else { (n, 1) };
    let mut results = Vec::with_capacity(batch.iter().product::<usize>() * m * n);
    for (a0, b0) in scaled(at).into_iter().zip(scaled(bt)) {
        for i in 0..m {
            for j in 0..n {
                let start = bias.get(j).copied().unwrap_or_default();
                results.push((0..k).fold(start, |s, d| add(s, a[a0 + i * k + d], b[b0 + d * row + j * column])));
            }
        }
    }
    Ok(results)
}

pub fn nest(o: &MatMul, inputs: &[&TensorType], out: &TensorType) -> Result<Nest> {
    let (m, k, n, batch) = dims(o, inputs[0], inputs[1])?;
    let acc = check_types("matmul", inputs[0].dtype, inputs[1].dtype, None)?;
    let float = acc == DType::F32;
    let matrix_strides = |ty: &TensorType| {
        let rows = &ty.shape[..ty.rank() - 2];
        let matrix = ty.shape[ty.rank() - 2] * ty.shape[ty.rank() - 1];
        broadcast_strides(rows, &batch).into_iter().map(|s| s * matrix).collect::<Vec<_>>()
    };
    let (a_strides, b_strides) = (matrix_strides(inputs[0]), matrix_strides(inputs[1]));
    let (row, column) = if o.trans_b { (1, k) } else { (n, 1) };
    let mut b = NestBuilder::new(inputs, out);
    b.repeat_shape(&[batch.as_slice(), &[m, n]].concat(), |b, at| {
        let (i, j) = (&at[batch.len()], &at[batch.len() + 1]);
        let start = match (o.bias, float) {
            (true, _) => b.load(2, j.clone()),
            (false, true) => Expr::F32(0.0),
            (false, false) => Expr::I32(0),
        };
        let sum = b.let_(start);
        b.repeat(k, |b, d| {
            let from_a = linear(&at[..batch.len()], &a_strides).plus_scaled(i, k as i64).plus_scaled(&d, 1);
            let from_b =
                linear(&at[..batch.len()], &b_strides).plus_scaled(&d, row as i64).plus_scaled(j, column as i64);
            let (x, w) = (b.load(0, from_a), b.load(1, from_b));
            let next = multiply_add(b, float, Expr::Reg(sum), x, w);
            b.set(sum, next);
        });
        steps::store(b, &o.post, acc, Expr::Reg(sum), at, 2 + o.bias as usize);
    });
    Ok(b.finish())
}
