//! The operators: one file a family, and in it type inference, reference evaluation and loop nest side by side.
//!
//! The evaluator is written to be obviously right, on whole tensors; the loop nest is what executors lower. Property tests
//! hold one against the other. Both share only the scalar programs of [`steps`], [`crate::math`] and [`crate::requant`].

mod conv;
mod conv_transpose;
mod data;
mod gather;
mod map;
mod matmul;
pub mod norm;
mod pool;
mod quantize;
pub mod recurrent;
mod reduce;
mod resize;
mod softmax;
pub mod steps;

use crate::error::{Error, Result};
use crate::nest::Nest;
use crate::op::Op;
use crate::tensor::Tensor;
use crate::types::TensorType;

/// Largest number of elements of a value; larger shapes are refused before anything is allocated.
pub const MAX_ELEMENTS: usize = 1 << 31;

/// Largest number of dimensions of a value.
pub const MAX_RANK: usize = 32;

/// Whether a value of this type may exist: bounded in rank and size, and so in all its strides. Zero-sized dimensions
/// count as 1, since they do not bound the strides.
pub fn within_limits(ty: &TensorType) -> bool {
    let size = ty.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)));
    ty.rank() <= MAX_RANK && size.is_some_and(|n| n <= MAX_ELEMENTS)
}

/// The type of an operator's result.
///
/// # Errors
/// [`Error::Type`] where number, types or shapes of the inputs do not fit the operator and its attributes.
pub fn infer(op: &Op, inputs: &[&TensorType]) -> Result<TensorType> {
    check_arity(op, inputs.len())?;
    if let Some(ty) = inputs.iter().find(|t| !within_limits(t)) {
        return Err(Error::ty(op.name(), format!("the input {ty} is too large")));
    }
    let ty = match op {
        Op::Conv2d(o) => conv::infer(o, inputs),
        Op::ConvTranspose2d(o) => conv_transpose::infer(o, inputs),
        Op::MatMul(o) => matmul::infer(o, inputs),
        Op::Pool2d(o) => pool::infer(o, inputs),
        Op::Reduce(o) => reduce::infer(o, inputs),
        Op::Map(steps) => map::infer(steps, inputs),
        Op::Softmax(o) => softmax::infer(o, inputs),
        Op::LayerNorm(o) => norm::infer(o, inputs),
        Op::Recurrent(o) => recurrent::infer(o, inputs),
        Op::BatchNorm { .. } => norm::infer_batch(inputs),
        Op::Reshape { .. }
        | Op::Transpose { .. }
        | Op::Concat { .. }
        | Op::Slice { .. }
        | Op::Pad { .. }
        | Op::Broadcast { .. } => data::infer(op, inputs),
        Op::Gather { .. } | Op::Where | Op::ArgMax { .. } => gather::infer(op, inputs),
        Op::Resize(o) => resize::infer(o, inputs),
        Op::Quantize { .. } | Op::Dequantize { .. } => quantize::infer(op, inputs),
    }?;
    if !within_limits(&ty) {
        return Err(Error::ty(op.name(), format!("the result {ty} is too large")));
    }
    Ok(ty)
}

/// The reference evaluation of one operator. `out` is what [`infer`] gives.
///
/// # Errors
/// [`Error::Unsupported`] for element types that have no evaluation.
pub fn eval(op: &Op, inputs: &[&Tensor], out: &TensorType) -> Result<Tensor> {
    match op {
        Op::Conv2d(o) => conv::eval(o, inputs, out),
        Op::ConvTranspose2d(o) => conv_transpose::eval(o, inputs, out),
        Op::MatMul(o) => matmul::eval(o, inputs, out),
        Op::Pool2d(o) => pool::eval(o, inputs, out),
        Op::Reduce(o) => reduce::eval(o, inputs, out),
        Op::Map(steps) => map::eval(steps, inputs, out),
        Op::Softmax(o) => softmax::eval(o, inputs, out),
        Op::LayerNorm(o) => norm::eval(o, inputs, out),
        Op::Recurrent(o) => recurrent::eval(o, inputs, out),
        Op::BatchNorm { epsilon } => norm::eval_batch(epsilon.0, inputs, out),
        Op::Reshape { .. }
        | Op::Transpose { .. }
        | Op::Concat { .. }
        | Op::Slice { .. }
        | Op::Pad { .. }
        | Op::Broadcast { .. } => data::eval(op, inputs, out),
        Op::Gather { .. } | Op::Where | Op::ArgMax { .. } => gather::eval(op, inputs, out),
        Op::Resize(o) => resize::eval(o, inputs, out),
        Op::Quantize { .. } | Op::Dequantize { .. } => quantize::eval(op, inputs, out),
    }
}

/// The loop nest of one operator: its specification for every executor but the evaluator.
///
/// # Errors
/// [`Error::Unsupported`] for element types that run on no target (64-bit arithmetic, packed types).
pub fn nest(op: &Op, inputs: &[&TensorType], out: &TensorType) -> Result<Nest> {
    if let Some(ty) = inputs.iter().copied().chain([out]).find(|t| !t.dtype.is_byte_sized()) {
        return Err(Error::Unsupported { op: op.name(), reason: format!("{} is packed", ty.dtype) });
    }
    match op {
        Op::Conv2d(o) => conv::nest(o, inputs, out),
        Op::ConvTranspose2d(o) => conv_transpose::nest(o, inputs, out),
        Op::MatMul(o) => matmul::nest(o, inputs, out),
        Op::Pool2d(o) => pool::nest(o, inputs, out),
        Op::Reduce(o) => reduce::nest(o, inputs, out),
        Op::Map(steps) => map::nest(steps, inputs, out),
        Op::Softmax(o) => softmax::nest(o, inputs, out),
        Op::LayerNorm(o) => norm::nest(o, inputs, out),
        Op::Recurrent(o) => recurrent::nest(o, inputs, out),
        Op::BatchNorm { epsilon } => norm::nest_batch(epsilon.0, inputs, out),
        Op::Reshape { .. }
        | Op::Transpose { .. }
        | Op::Concat { .. }
        | Op::Slice { .. }
        | Op::Pad { .. }
        | Op::Broadcast { .. } => data::nest(op, inputs, out),
        Op::Gather { .. } | Op::Where | Op::ArgMax { .. } => gather::nest(op, inputs, out),
        Op::Resize(o) => resize::nest(o, inputs, out),
        Op::Quantize { .. } | Op::Dequantize { .. } => quantize::nest(op, inputs, out),
    }
}

/// Multiply-accumulates of one run: those of convolutions, matrix products and recurrent layers, 0 for every other operator.
pub fn macs(op: &Op, inputs: &[&TensorType], out: &TensorType) -> u64 {
    match op {
        Op::Conv2d(_) => {
            let w = inputs[1];
            (out.elements() * (w.elements() / w.shape[0].max(1))) as u64
        }
        Op::ConvTranspose2d(_) => {
            let w = inputs[1];
            (inputs[0].elements() * (w.elements() / w.shape[0].max(1))) as u64
        }
        Op::MatMul(_) => (out.elements() * inputs[0].shape[inputs[0].rank() - 1]) as u64,
        Op::Recurrent(_) => {
            let x = inputs[0];
            (x.shape[0] * x.shape[1]) as u64 * (inputs[1].elements() + inputs[2].elements()) as u64
        }
        _ => 0,
    }
}

fn check_arity(op: &Op, found: usize) -> Result<()> {
    let operands = op.post().map_or(0, |p| p.iter().filter(|s| s.takes_operand()).count());
    match op.own_inputs() {
        Some(own) if own + operands != found => {
            Err(Error::ty(op.name(), format!("takes {} inputs, has {found}", own + operands)))
        }
        None if found == 0 => Err(Error::ty(op.name(), "takes at least one input, has none")),
        _ => Ok(()),
    }
}
