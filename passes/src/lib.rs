//! Passes over the Graph, and the lowering to a Plan.
//!
//! `passes` know a [`mcc_ir::Target`] and a kernel catalogue, never a backend. [`pass::PASSES`] is the one table of passes.

#![forbid(unsafe_code)]

pub mod egraph;
pub mod error;
pub mod fold;
pub mod integerise;
pub mod lower;
pub mod pass;

pub use error::{Error, Result};
pub use pass::{Changed, Class, PASSES, Pass, PassCx};
