//! What a pass is.

use crate::error::{Error, Result};
use mcc_ir::{Graph, Target};

/// How far a pass may change what a graph computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Every element keeps its bits.
    Exact,
    /// Real arithmetic is kept; the order or the place of roundings changes.
    Reassociates,
    /// Values change by a measured amount.
    Lossy,
}

/// Whether a pass changed the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    Yes,
    No,
}

/// How sums of products become small integers again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Requant {
    /// As ONNX has it: a product in `f32`, rounded half to even.
    #[default]
    Exact,
    /// By a product of integers; few results differ, by one.
    Fast,
}

/// What a pass may know beside the graph, and whom it tells what the user should know.
pub struct PassCx<'a> {
    pub target: &'a Target,
    pub requant: Requant,
    /// Takes a sentence on something that is no error, such as a limit that was hit.
    pub warn: &'a dyn Fn(String),
}

impl<'a> PassCx<'a> {
    /// A context whose warnings go nowhere.
    pub fn quiet(target: &'a Target) -> PassCx<'a> {
        PassCx { target, requant: Requant::default(), warn: &|_| {} }
    }
}

/// A transformation of a whole graph.
pub trait Pass: Sync {
    /// The name on the command line and in filetests.
    fn name(&self) -> &'static str;
    /// One line for `mcc passes`.
    fn summary(&self) -> &'static str;
    fn class(&self) -> Class;
    /// Whether the pipeline runs it.
    fn wanted(&self, _: &PassCx<'_>) -> bool {
        true
    }
    /// Transforms the graph.
    ///
    /// # Errors
    /// Where the pass makes something ill-typed: a fault of the pass.
    fn run(&self, graph: &mut Graph, cx: &PassCx<'_>) -> Result<Changed>;
}

/// Runs one pass and verifies what it made.
///
/// # Errors
/// Those of the pass and of the verifier.
pub fn run(pass: &dyn Pass, graph: &mut Graph, cx: &PassCx<'_>) -> Result<Changed> {
    let changed = pass.run(graph, cx)?;
    mcc_ir::verify::verify(graph).map_err(|source| Error::Pass { pass: pass.name(), source })?;
    Ok(changed)
}
