//! Pooling.

use crate::error::{Error, Result};
use crate::nest::Nest;
use crate::op::*;
use crate::tensor::Tensor;
use crate::types::TensorType;

pub fn infer(_o: &Pool2d, _inputs: &[&TensorType]) -> Result<TensorType> {
    Err(Error::Unsupported { op: "pool", reason: "not yet".into() })
}

pub fn eval(_o: &Pool2d, _inputs: &[&Tensor], _out: &TensorType) -> Result<Tensor> {
    Err(Error::Unsupported { op: "pool", reason: "not yet".into() })
}

pub fn nest(_o: &Pool2d, _inputs: &[&TensorType], _out: &TensorType) -> Result<Nest> {
    Err(Error::Unsupported { op: "pool", reason: "not yet".into() })
}
