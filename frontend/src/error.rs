//! Errors of this crate: one code a cause, listed at [`Error`].

use std::fmt;
use std::path::PathBuf;

/// Why a model is not imported or exported.
///
/// | code | cause |
/// |---|---|
/// | E0101 | not an ONNX file, or truncated |
/// | E0102 | the file cannot be read |
/// | E0103 | the file holds no graph |
/// | E0104 | opset too old, too new or missing |
/// | E0105 | a limit is exceeded: nesting, nodes, elements |
/// | E0106 | the contents of a tensor are malformed |
/// | E0107 | an element type is not supported |
/// | E0108 | external data missing, malformed or outside the model's folder |
/// | E0109 | a dimension is not known |
/// | E0110 | `--input-dim` or `--input-shape` do not fit the model |
/// | E0111 | the graph is malformed: undefined, duplicate or cyclic names |
/// | E0112 | a node is malformed: inputs, attributes or shapes do not fit its operator |
/// | E0113 | a local function is malformed |
/// | E0114 | sparse tensors are not supported |
/// | E0301 | the operator is not supported |
/// | E0302 | this form of the operator is not supported |
/// | E0303 | the operator is not supported on this element type |
/// | E0304 | an input must be constant |
/// | E0305 | the operator's domain is not supported |
/// | E0306 | an operator of the graph has no form in ONNX |
///
/// [`Error::Unsupported`] carries one [`Diagnostic`] for each node that cannot be imported; every other variant concerns
/// the file as a whole and stops the import at once.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} node{} cannot be imported:\n{}", .0.len(), if .0.len() == 1 { "" } else { "s" }, lines(.0))]
    Unsupported(Vec<Diagnostic>),
    #[error("{0}")]
    Model(Box<Diagnostic>),
}

impl Error {
    /// The stable code shown to users. Of several diagnostics, the first one's.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Read { .. } => code::READ,
            Error::Unsupported(all) => all.first().map_or(code::OPERATOR, |d| d.code),
            Error::Model(d) => d.code,
        }
    }

    /// Every fault as a diagnostic.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        match self {
            Error::Unsupported(all) => all.clone(),
            Error::Model(d) => vec![*d.clone()],
            Error::Read { .. } => {
                let help = "check the path and its permissions";
                vec![Diagnostic { help: help.into(), ..Diagnostic::file(code::READ, self.to_string(), "") }]
            }
        }
    }
}

/// The stable codes. Their causes are listed at [`Error`].
pub mod code {
    pub const NOT_ONNX: &str = "E0101";
    pub const READ: &str = "E0102";
    pub const NO_GRAPH: &str = "E0103";
    pub const OPSET: &str = "E0104";
    pub const LIMIT: &str = "E0105";
    pub const TENSOR: &str = "E0106";
    pub const ELEMENT_TYPE: &str = "E0107";
    pub const EXTERNAL_DATA: &str = "E0108";
    pub const DIMENSION: &str = "E0109";
    pub const OPTION: &str = "E0110";
    pub const GRAPH: &str = "E0111";
    pub const NODE: &str = "E0112";
    pub const FUNCTION: &str = "E0113";
    pub const SPARSE: &str = "E0114";
    pub const OPERATOR: &str = "E0301";
    pub const FORM: &str = "E0302";
    pub const OPERATOR_TYPE: &str = "E0303";
    pub const NOT_CONSTANT: &str = "E0304";
    pub const DOMAIN: &str = "E0305";
    pub const EXPORT: &str = "E0306";
}

/// One fault of a model, of one node or of the whole file (then `index` is `None` and the node's fields are empty).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The stable code, listed at [`Error`].
    pub code: &'static str,
    /// The node's name, or that of its first output, or its operator and index.
    pub node: String,
    /// The node's position in the file's list of nodes; of the caller for nodes of a local function.
    pub index: Option<usize>,
    pub op_type: String,
    /// Empty for the standard domain.
    pub domain: String,
    /// The version that the model imports of the node's domain; 0 where it imports none.
    pub opset: i64,
    /// Name and type of each input, as far as known.
    pub inputs: Vec<String>,
    /// What was met and what is supported.
    pub reason: String,
    /// The next step.
    pub help: String,
}

impl Diagnostic {
    pub(crate) fn file(code: &'static str, reason: impl Into<String>, help: impl Into<String>) -> Diagnostic {
        Diagnostic {
            code,
            node: String::new(),
            index: None,
            op_type: String::new(),
            domain: String::new(),
            opset: 0,
            inputs: vec![],
            reason: reason.into(),
            help: help.into(),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(index) = self.index {
            write!(f, "node {} #{index}, {}", quote(&self.node), clip(&self.op_type))?;
            if !self.domain.is_empty() {
                write!(f, " of domain {}", quote(&self.domain))?;
            }
            write!(f, " (opset {})", self.opset)?;
            if !self.inputs.is_empty() {
                write!(f, " with {}", self.inputs.join(", "))?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.reason)?;
        if !self.help.is_empty() {
            write!(f, "; {}", self.help)?;
        }
        Ok(())
    }
}

fn lines(all: &[Diagnostic]) -> String {
    all.iter().map(|d| format!("[{}] {d}", d.code)).collect::<Vec<_>>().join("\n")
}

impl From<Diagnostic> for Error {
    fn from(d: Diagnostic) -> Error {
        Error::Model(Box::new(d))
    }
}

/// A fault inside one node, before the node's name is known.
#[derive(Debug)]
pub(crate) struct Fault {
    pub code: &'static str,
    pub reason: String,
    pub help: String,
}

pub(crate) type Result<T> = std::result::Result<T, Fault>;

impl Fault {
    pub fn new(code: &'static str, reason: impl Into<String>, help: impl Into<String>) -> Fault {
        Fault { code, reason: reason.into(), help: help.into() }
    }

    /// The node breaks the rules of its operator.
    pub fn node(reason: impl Into<String>) -> Fault {
        Fault::new(code::NODE, reason, "check the model with `onnx.checker` and export it again")
    }

    /// The node is valid, but not in a form that is supported.
    pub fn form(reason: impl Into<String>, help: impl Into<String>) -> Fault {
        Fault::new(code::FORM, reason, help)
    }

    /// The element type is not supported by this operator.
    pub fn dtype(reason: impl Into<String>, help: impl Into<String>) -> Fault {
        Fault::new(code::OPERATOR_TYPE, reason, help)
    }

    pub fn limit(reason: impl Into<String>) -> Fault {
        Fault::new(code::LIMIT, reason, "the limit keeps hostile files from exhausting memory; use smaller shapes")
    }
}

impl From<mcc_ir::Error> for Fault {
    fn from(e: mcc_ir::Error) -> Fault {
        match e {
            mcc_ir::Error::Unsupported { .. } => Fault::form(e.to_string(), "use another form of this operator"),
            e => Fault::node(e.to_string()),
        }
    }
}

impl From<Fault> for Error {
    fn from(f: Fault) -> Error {
        Diagnostic::file(f.code, f.reason, f.help).into()
    }
}

/// A name from the file as it may be shown: control characters escaped, long names cut.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", clip(name))
}

/// At most 120 characters of a text from the file, control characters escaped.
pub(crate) fn clip(text: &str) -> String {
    let mut cut: String = text.chars().take(120).flat_map(char::escape_debug).collect();
    if text.chars().nth(120).is_some() {
        cut.push_str("...");
    }
    cut
}
