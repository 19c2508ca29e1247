//! The error of the whole tool: one of its crates' errors, with the code and the exit status that users see.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Import(#[from] mcc_frontend::Error),
    #[error(transparent)]
    Ir(#[from] mcc_ir::Error),
    #[error(transparent)]
    Passes(#[from] mcc_passes::Error),
    #[error(transparent)]
    Jit(#[from] mcc_backends::jit::Error),
    #[error(transparent)]
    Emit(#[from] mcc_backends::c::EmitError),
    #[error(transparent)]
    Exec(#[from] mcc_backends::c::exec::ExecError),
    #[error(transparent)]
    Run(#[from] mcc_runtime::RunError),
    /// No target has this name.
    #[error(transparent)]
    Target(#[from] mcc_backends::targets::UnknownTarget),
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// A file beside the model is not what the command needs.
    #[error("{}: {reason}", path.display())]
    Data { path: PathBuf, reason: String },
    /// Options that do not go together.
    #[error("{0}")]
    Usage(String),
    /// The model does not fit the target: what is over, and what would help.
    #[error("{}", over.join("\n"))]
    Budget { over: Vec<String>, remedies: Vec<String> },
    /// The calibration data is not what the model takes.
    #[error("calibration: {0}")]
    Calibration(String),
    /// The model cannot be quantised.
    #[error("{0}")]
    Quantise(String),
    /// An executor's output differs from what was expected.
    #[error("{0}")]
    Mismatch(String),
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The stable code shown to users.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Import(e) => e.code(),
            Error::Ir(e) => e.code(),
            Error::Passes(e) => e.code(),
            Error::Jit(e) => e.code(),
            Error::Emit(e) => e.code(),
            Error::Exec(e) => e.code(),
            Error::Run(e) => e.code(),
            Error::Target(e) => e.code(),
            Error::Io { .. } => "E0901",
            Error::Data { .. } => "E0902",
            Error::Usage(_) => "E0903",
            Error::Budget { .. } => "E0904",
            Error::Mismatch(_) => "E0905",
            Error::Calibration(_) => "E0906",
            Error::Quantise(_) => "E0907",
        }
    }

    /// The process's exit status: 1 model error, 2 over budget, 3 mismatch, 4 internal error, 64 usage.
    pub fn exit_status(&self) -> i32 {
        match self {
            Error::Import(_) | Error::Io { .. } | Error::Data { .. } | Error::Exec(_) | Error::Run(_) => 1,
            Error::Passes(mcc_passes::Error::Lower { .. }) | Error::Jit(_) => 1,
            Error::Passes(mcc_passes::Error::UnknownPass { .. } | mcc_passes::Error::UnknownNode { .. }) => 64,
            Error::Passes(mcc_passes::Error::Force { .. }) => 64,
            Error::Calibration(_) | Error::Quantise(_) => 1,
            Error::Ir(mcc_ir::Error::Parse { .. } | mcc_ir::Error::Verify(_) | mcc_ir::Error::Unsupported { .. }) => 1,
            Error::Ir(_) | Error::Passes(_) => 4,
            Error::Budget { .. } => 2,
            Error::Mismatch(_) => 3,
            Error::Emit(_) | Error::Target(_) | Error::Usage(_) => 64,
        }
    }
}
