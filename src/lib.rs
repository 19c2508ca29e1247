//! mcc: a deep-learning compiler for micro-AI.
//!
//! An ONNX model becomes a session of just-in-time compiled code on this machine, or C for a microcontroller:
//!
//! ```no_run
//! let mut session = mcc::compile_file("model.onnx", &mcc::Options::host())?;
//! let image = vec![0.0f32; 28 * 28];
//! let mut scores = vec![0.0f32; 10];
//! session.run(&[image.as_slice().into()], &mut [scores.as_mut_slice().into()])?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Model`] shows the stages in between: the imported graph, the integer graph, the optimised graph, the plan, the C.
//! The crates behind it are re-exported: [`ir`], [`frontend`], [`passes`], [`backends`], [`runtime`].

#![forbid(unsafe_code)]

pub mod budget;
mod cache;
pub mod calibrate;
pub mod costs;
mod error;
mod model;
pub mod report;
pub mod text_file;

pub use error::{Error, Result};
pub use mcc_backends as backends;
pub use mcc_frontend as frontend;
pub use mcc_ir as ir;
pub use mcc_passes as passes;
pub use mcc_runtime as runtime;
pub use mcc_runtime::{Session, TensorMut, TensorRef};
pub use model::{Model, Options, PassRecord};

use std::path::Path;

/// Imports, optimises and compiles an ONNX file for this machine.
///
/// # Errors
/// Where the file is no model that mcc supports; the message names every unsupported node.
pub fn compile_file(path: impl AsRef<Path>, options: &Options) -> Result<Session> {
    Model::load(path, options)?.session()
}

/// As [`compile_file`], of an ONNX file held in memory. Weights in files beside it are refused.
///
/// # Errors
/// Where the bytes are no model that mcc supports; the message names every unsupported node.
pub fn compile_bytes(model: impl Into<Vec<u8>>, options: &Options) -> Result<Session> {
    let graph = mcc_frontend::import_bytes(model.into(), None, &options.import)?;
    Model::from_graph(graph, options)?.session()
}
