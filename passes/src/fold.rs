//! Constant folding and removal of dead code.

use crate::error::{Error, Result};
use crate::pass::{Changed, Class, Pass, PassCx};
use mcc_ir::graph::{Def, Graph};
use mcc_ir::op::Op;
use mcc_ir::{Tensor, ops};

/// Evaluates operators on constants where the result is not larger than its inputs, and drops what no output needs.
///
/// Dequantised weights stay as they are: `integerise` reads them literally.
pub struct Fold;

/// As [`Fold`], dequantised weights included.
pub struct FoldAll;

/// Results up to this size are folded even where they are larger than the inputs.
const SMALL_BYTES: usize = 64 << 10;

impl Pass for Fold {
    fn name(&self) -> &'static str {
        "fold"
    }
    fn summary(&self) -> &'static str {
        "evaluate operators on constants, drop dead code; keeps dequantised weights"
    }
    fn class(&self) -> Class {
        Class::Exact
    }
    fn run(&self, graph: &mut Graph, _: &PassCx<'_>) -> Result<Changed> {
        fold(self.name(), graph, |op| !matches!(op, Op::Dequantize { .. }))
    }
}

impl Pass for FoldAll {
    fn name(&self) -> &'static str {
        "fold-all"
    }
    fn summary(&self) -> &'static str {
        "evaluate every operator on constants, drop dead code"
    }
    fn class(&self) -> Class {
        Class::Exact
    }
    fn run(&self, graph: &mut Graph, _: &PassCx<'_>) -> Result<Changed> {
        fold(self.name(), graph, |_| true)
    }
}

fn fold(pass: &'static str, graph: &mut Graph, may_fold: impl Fn(&Op) -> bool) -> Result<Changed> {
    let before = graph.len();
    let mut folded = false;
    let new = graph
        .rebuild(|out, _, value, inputs| {
            if let Def::Node { op, .. } = &value.def
                && may_fold(op)
                && let Some(tensors) = inputs.iter().map(|v| out.constant(*v)).collect::<Option<Vec<&Tensor>>>()
                && value.ty.bytes() <= SMALL_BYTES.max(2 * tensors.iter().map(|t| t.bytes().len()).sum::<usize>())
            {
                // What the evaluator does not support stays for the lowering to refuse.
                if let Ok(result) = ops::eval(op, &tensors, &value.ty) {
                    folded = true;
                    return Ok(out.add_const(result, value.origin.clone()));
                }
            }
            out.copy_value(value, inputs)
        })
        .map_err(|source| Error::Pass { pass, source })?;
    let new = new.rebuild(|out, _, value, inputs| out.copy_value(value, inputs));
    *graph = new.map_err(|source| Error::Pass { pass, source })?;
    Ok(if folded || graph.len() != before { Changed::Yes } else { Changed::No })
}
