//! Errors of this crate.

use crate::tensor::TensorError;

/// What can go wrong in the IR. Codes E02xx.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An operator does not accept its inputs or attributes.
    #[error("{op}: {reason}")]
    Type { op: &'static str, reason: String },
    /// A well-typed operator that an executor has no code for.
    #[error("{op} is not supported here: {reason}")]
    Unsupported { op: &'static str, reason: String },
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// The text form does not parse. Line and column count from 1.
    #[error("line {line}, column {column}: {reason}")]
    Parse { line: usize, column: usize, reason: String },
    /// All faults that a verifier found, one a line.
    #[error("{}", .0.join("\n"))]
    Verify(Vec<String>),
    #[error("target description: {0}")]
    Target(String),
}

impl Error {
    /// The stable code shown to users.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Type { .. } => "E0201",
            Error::Unsupported { .. } => "E0202",
            Error::Tensor(_) => "E0203",
            Error::Parse { .. } => "E0204",
            Error::Verify(_) => "E0205",
            Error::Target(_) => "E0206",
        }
    }

    pub(crate) fn ty(op: &'static str, reason: impl Into<String>) -> Error {
        Error::Type { op, reason: reason.into() }
    }
}

pub type Result<T> = std::result::Result<T, Error>;
