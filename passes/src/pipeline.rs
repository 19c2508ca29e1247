//! The one table of all passes, and the pipeline that runs them.

use crate::error::{Error, Result};
use crate::pass::{self, Changed, Pass, PassCx};
use crate::{egraph, fold, integerise, single};
use mcc_ir::Graph;

/// Every pass, in the order of the pipeline. `mcc opt --pass`, the filetests and the reports read this table.
pub static PASSES: &[&dyn Pass] =
    &[&fold::Fold, &integerise::Integerise, &single::SingleRequant, &egraph::Optimise, &fold::FoldAll];

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

/// The passes that the pipeline runs in a context, in order.
pub fn wanted(cx: &PassCx<'_>) -> impl Iterator<Item = &'static dyn Pass> {
    PASSES.iter().copied().filter(|p| p.wanted(cx))
}

/// Runs the whole pipeline; `after` sees the graph after each pass.
///
/// # Errors
/// Those of [`pass::run`].
pub fn run(graph: &mut Graph, cx: &PassCx<'_>, mut after: impl FnMut(&dyn Pass, Changed, &Graph)) -> Result<()> {
    for pass in wanted(cx) {
        let changed = pass::run(pass, graph, cx)?;
        after(pass, changed, graph);
    }
    Ok(())
}
