//! Moving data: reshape, transpose, concatenation, slices, padding and broadcast.

use crate::error::{Error, Result};
use crate::nest::Nest;
use crate::op::*;
use crate::tensor::Tensor;
use crate::types::TensorType;

pub fn infer(_o: &Op, _inputs: &[&TensorType]) -> Result<TensorType> {
    Err(Error::Unsupported { op: "data", reason: "not yet".into() })
}

pub fn eval(_o: &Op, _inputs: &[&Tensor], _out: &TensorType) -> Result<Tensor> {
    Err(Error::Unsupported { op: "data", reason: "not yet".into() })
}

pub fn nest(_o: &Op, _inputs: &[&TensorType], _out: &TensorType) -> Result<Nest> {
    Err(Error::Unsupported { op: "data", reason: "not yet".into() })
}
