//! Errors of this crate.

/// What can go wrong in a pass or in lowering. Codes E04xx.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A pass made something that the IR refuses: a fault of the pass, never of the model.
    #[error("pass {pass}: {source}")]
    Pass { pass: &'static str, source: mcc_ir::Error },
    /// A node that has no code on the target.
    #[error("node {node} (result {ty}) cannot be lowered for {target}: {reason}")]
    Lower { node: String, ty: String, target: String, reason: String },
    /// The plan breaks its own rules: a fault of mcc.
    #[error("the plan is not valid: {0}")]
    Plan(mcc_ir::Error),
    /// No pass has this name.
    #[error("there is no pass named {name}; `mcc passes` lists {known}")]
    UnknownPass { name: String, known: String },
    /// No kernel of the node has the implementation that it is to have.
    #[error("node {node:?} cannot be computed by {wanted} on {target}; it can by {offered}")]
    Force { node: String, wanted: String, target: String, offered: String },
    /// No node of the model has this name.
    #[error("no node is named {name:?}; layers are {known}")]
    UnknownNode { name: String, known: String },
}

impl Error {
    /// The stable code shown to users.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Pass { .. } => "E0401",
            Error::Lower { .. } => "E0402",
            Error::Plan(_) => "E0403",
            Error::UnknownPass { .. } => "E0404",
            Error::UnknownNode { .. } => "E0405",
            Error::Force { .. } => "E0406",
        }
    }
}

pub type Result<T> = std::result::Result<T, Error>;
