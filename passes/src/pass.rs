//! What a pass is, and the one table of all passes.

use crate::error::{Error, Result};
use crate::{egraph, fold, integerise};
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

/// What a pass may know beside the graph.
pub struct PassCx<'a> {
    pub target: &'a Target,
}

/// A transformation of a whole graph.
pub trait Pass: Sync {
    /// The name on the command line and in filetests.
    fn name(&self) -> &'static str;
    /// One line for `mcc passes`.
    fn summary(&self) -> &'static str;
    fn class(&self) -> Class;
    /// Transforms the graph.
    ///
    /// # Errors
    /// Where the pass makes something ill-typed: a fault of the pass.
    fn run(&self, graph: &mut Graph, cx: &PassCx<'_>) -> Result<Changed>;
}

/// Every pass, in the order of the pipeline. `mcc opt --pass`, the filetests and the reports read this table.
pub static PASSES: &[&dyn Pass] = &[&fold::Fold, &integerise::Integerise, &egraph::Optimise, &fold::FoldAll];

/// The pass with this name.
///
/// # Errors
/// [`Error::UnknownPass`], listing the known names.
pub fn find(name: &str) -> Result<&'static dyn Pass> {
    PASSES.iter().copied().find(|p| p.name() == name).ok_or_else(|| Error::UnknownPass {
        name: name.to_string(),
        known: PASSES.iter().map(|p| p.name()).collect::<Vec<_>>().join(", "),
    })
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

/// Runs the whole pipeline; `after` sees the graph after each pass.
///
/// # Errors
/// Those of [`run`].
pub fn pipeline(graph: &mut Graph, cx: &PassCx<'_>, mut after: impl FnMut(&dyn Pass, Changed, &Graph)) -> Result<()> {
    for pass in PASSES {
        let changed = run(*pass, graph, cx)?;
        after(*pass, changed, graph);
    }
    Ok(())
}
