//! Passes over the Graph, and the lowering to a Plan.
//!
//! `passes` know a [`mcc_ir::Target`] and a kernel catalogue, never a backend. [`PASSES`] is the one table of passes.

#![forbid(unsafe_code)]

pub mod egraph;
pub mod error;
pub mod fold;
pub mod integerise;
pub mod lower;
pub mod pass;
pub mod patch;
pub mod pipeline;
pub mod prune;
pub mod quantize;
pub mod single;

pub use error::{Error, Result};
pub use pass::{Changed, Class, Pass, PassCx, Requant};
pub use pipeline::PASSES;
