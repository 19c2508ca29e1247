//! ONNX import and export. An untrusted file becomes a typed [`Graph`], or errors that name every problem; a graph becomes
//! a file that other tools run.
//!
//! What holds after import: shapes are static, names are resolved, opset differences are gone, shape arithmetic is folded,
//! and nothing that no output depends on is left. QDQ and QOperator models stay literal (numerics.md); weights keep the
//! element type of the file, except that f16, bf16 and f64 become f32.
//!
//! No file makes this crate panic, read outside the model's folder, or allocate more than a multiple of the file's size.

#![forbid(unsafe_code)]

mod cx;
mod error;
mod export;
mod external;
mod import;
mod inputs;
mod node;
mod ops;
mod proto;
mod tensor;
#[cfg(test)]
mod tests;

pub use error::{Diagnostic, Error, code};
pub use export::export;
pub use import::{NEWEST_OPSET, OLDEST_OPSET};
pub use ops::supported_operators;

use bytes::Bytes;
use mcc_ir::{Graph, Tensor};
use std::collections::BTreeMap;
use std::path::Path;

/// What the user says about a model beside the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// Sizes of symbolic dimensions by name: `--input-dim batch=1`.
    pub input_dims: BTreeMap<String, usize>,
    /// Whole shapes of inputs by name: `--input-shape input=1,3,48,192`.
    pub input_shapes: BTreeMap<String, Vec<usize>>,
}

/// Imports the ONNX file at `path`. External data is looked for in its folder.
///
/// # Errors
/// [`Error`], which lists all nodes that are not supported.
pub fn import_file(path: impl AsRef<Path>, options: &ImportOptions) -> Result<Graph, Error> {
    let path = path.as_ref();
    let read = || {
        if std::fs::metadata(path)?.is_file() {
            std::fs::read(path)
        } else {
            Err(std::io::Error::other("it is not a regular file"))
        }
    };
    let bytes = read().map_err(|source| Error::Read { path: path.into(), source })?;
    // The folder of a bare file name is the current one.
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    import_bytes(bytes, Some(folder), options)
}

/// Imports an ONNX file held in memory. External data is looked for in `base_dir`, and refused without one.
///
/// # Errors
/// As for [`import_file`].
pub fn import_bytes(bytes: impl Into<Bytes>, base_dir: Option<&Path>, options: &ImportOptions) -> Result<Graph, Error> {
    import::import(bytes.into(), base_dir, options)
}

/// Reads one tensor, and its name, from a file of ONNX's test data (`input_0.pb`).
///
/// # Errors
/// Malformed contents, and element types without a counterpart; f16, bf16 and f64 become f32, as in models.
pub fn tensor_from_bytes(bytes: impl Into<Bytes>) -> Result<(String, Tensor), Error> {
    import::tensor(bytes.into())
}

/// Every fault that keeps the ONNX file at `path` from being imported; empty where there is none.
pub fn check_file(path: impl AsRef<Path>, options: &ImportOptions) -> Vec<Diagnostic> {
    import_file(path, options).err().map_or(vec![], |e| e.diagnostics())
}
