//! Layer and batch normalisation.

use crate::error::{Error, Result};
use crate::nest::Nest;
use crate::op::*;
use crate::tensor::Tensor;
use crate::types::TensorType;

pub fn infer(_o: &LayerNorm, _inputs: &[&TensorType]) -> Result<TensorType> {
    Err(Error::Unsupported { op: "norm", reason: "not yet".into() })
}

pub fn eval(_o: &LayerNorm, _inputs: &[&Tensor], _out: &TensorType) -> Result<Tensor> {
    Err(Error::Unsupported { op: "norm", reason: "not yet".into() })
}

pub fn nest(_o: &LayerNorm, _inputs: &[&TensorType], _out: &TensorType) -> Result<Nest> {
    Err(Error::Unsupported { op: "norm", reason: "not yet".into() })
}

pub fn infer_batch(_inputs: &[&TensorType]) -> Result<TensorType> {
    Err(Error::Unsupported { op: "batch_norm", reason: "not yet".into() })
}

pub fn eval_batch(_epsilon: f32, _inputs: &[&Tensor], _out: &TensorType) -> Result<Tensor> {
    Err(Error::Unsupported { op: "batch_norm", reason: "not yet".into() })
}

pub fn nest_batch(_epsilon: f32, _inputs: &[&TensorType], _out: &TensorType) -> Result<Nest> {
    Err(Error::Unsupported { op: "batch_norm", reason: "not yet".into() })
}
