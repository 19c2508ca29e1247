//! Errors as users see them: a sentence with a code, where it is, and the next step.
//!
//! ```text
//! error[E0301]: operator NonMaxSuppression is not supported
//!   --> node "/head/nms" #212, NonMaxSuppression (opset 11) with boxes f32[1x8400x4]
//!   = help: cut the model before it and do this step in the application
//! ```

use mcc::Error;
use mcc::frontend::Diagnostic;
use serde::Serialize;

/// One fault, in parts. The JSON form of `mcc check` has the same keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    pub code: &'static str,
    pub reason: String,
    /// The node, as the model names it; empty for faults of the whole file.
    pub node: String,
    /// The node's position in the file.
    pub index: Option<usize>,
    pub op_type: String,
    pub domain: String,
    pub opset: Option<i64>,
    pub inputs: Vec<String>,
    pub help: String,
}

impl Fault {
    /// A fault of a whole file or command.
    pub fn new(code: &'static str, reason: impl Into<String>, help: impl Into<String>) -> Fault {
        Fault {
            code,
            reason: reason.into(),
            node: String::new(),
            index: None,
            op_type: String::new(),
            domain: String::new(),
            opset: None,
            inputs: vec![],
            help: help.into(),
        }
    }

    fn place(&self) -> Option<String> {
        if self.node.is_empty() {
            return None;
        }
        let mut place = format!("node {:?}", self.node);
        if let Some(index) = self.index {
            place += &format!(" #{index}");
        }
        if !self.op_type.is_empty() {
            place += &format!(", {}", self.op_type.escape_debug());
            if !self.domain.is_empty() {
                place += &format!(" of domain {:?}", self.domain);
            }
        }
        if let Some(opset) = self.opset {
            place += &format!(" (opset {opset})");
        }
        if !self.inputs.is_empty() {
            place += &format!(" with {}", self.inputs.join(", "));
        }
        Some(place)
    }

    /// The fault as text, with a line break at the end.
    pub fn text(&self) -> String {
        let mut lines = self.reason.lines();
        let mut text = format!("error[{}]: {}\n", self.code, lines.next().unwrap_or_default());
        lines.for_each(|line| text += &format!("    {line}\n"));
        if let Some(place) = self.place() {
            text += &format!("  --> {place}\n");
        }
        if !self.help.is_empty() {
            text += &format!("  = help: {}\n", self.help);
        }
        text
    }
}

impl From<Diagnostic> for Fault {
    fn from(d: Diagnostic) -> Fault {
        Fault {
            code: d.code,
            reason: d.reason,
            node: d.node,
            index: d.index,
            opset: d.index.map(|_| d.opset),
            op_type: d.op_type,
            domain: d.domain,
            inputs: d.inputs,
            help: d.help,
        }
    }
}

/// The faults that an error stands for.
pub fn faults(error: &Error) -> Vec<Fault> {
    match error {
        Error::Import(e) => e.diagnostics().into_iter().map(Fault::from).collect(),
        Error::Passes(mcc::passes::Error::Lower { node, ty, target, reason }) => {
            let reason = format!("no code for {target}: {reason}");
            let help = "replace it by supported operators, or cut the model before it";
            let node = format!("{node} -> {ty}");
            vec![Fault { node, ..Fault::new(error.code(), reason, help) }]
        }
        _ => vec![Fault::new(error.code(), error.to_string(), help(error))],
    }
}

/// The next step, where the sentence itself does not say it.
fn help(error: &Error) -> String {
    let fixed = match error {
        Error::Target(_) => "`mcc targets` describes them",
        Error::Io { .. } => "check the path and its permissions",
        Error::Budget { remedies, .. } => {
            return remedies.iter().map(|r| format!("{r}; ")).collect::<String>()
                + "`mcc analyze` shows where the bytes go";
        }
        Error::Mismatch(_) => "`mcc validate` finds the first node that differs between mcc's executors",
        _ if error.exit_status() == 4 => "this is a fault of mcc; please report it with the model and the command",
        _ => "",
    };
    fixed.to_string()
}

/// An error as text for stderr.
pub fn error(error: &Error) -> String {
    let all = faults(error);
    let mut text: String = all.iter().map(Fault::text).collect();
    if all.len() > 1 {
        text += &format!("{} errors\n", all.len());
    }
    text
}
