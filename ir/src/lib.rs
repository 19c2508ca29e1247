//! The intermediate representations of mcc: the Graph, the Plan, and the meaning of both.
//!
//! What every number means is stated once, here: [`scalar`] and [`math`] for one element, [`ops`] for each operator (type
//! inference, reference evaluation and loop nest side by side), [`eval`] for a whole graph, [`plan`] for what runs.
//! This crate does no I/O and has no unsafe code; it depends on no other crate of mcc.

#![forbid(unsafe_code)]

pub mod catalogue;
pub mod costs;
pub mod dtype;
pub mod error;
pub mod eval;
pub mod graph;
pub mod math;
pub mod nest;
pub mod op;
pub mod ops;
pub mod packing;
pub mod plan;
pub mod requant;
pub mod scalar;
pub mod target;
pub mod tensor;
pub mod text;
pub mod types;
pub mod verify;
pub mod winograd;

pub use dtype::DType;
pub use error::{Error, Result};
pub use graph::{Graph, ValueId};
pub use op::Op;
pub use plan::Plan;
pub use target::Target;
pub use tensor::Tensor;
pub use types::{F32, QuantParams, TensorType};
