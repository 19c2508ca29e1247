//! Passes over the Graph, and the lowering to a Plan.
//!
//! `passes` know a [`mcc_ir::Target`] and a kernel catalogue, never a backend.

#![forbid(unsafe_code)]

pub mod error;
pub mod lower;

pub use error::{Error, Result};
