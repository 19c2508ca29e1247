//! Constant folding and removal of dead code.

use crate::error::{Error, Result};
use crate::pass::{Changed, Class, Pass, PassCx};
use mcc_ir::graph::{Def, Graph};
use mcc_ir::op::Op;
use mcc_ir::{Tensor, ops};

/// Evaluates operators on constants where the result has at most twice the elements of its inputs, and drops what no
/// output needs.
///
/// Dequantised weights stay as they are: `integerise` reads them literally.
pub struct Fold;

/// As [`Fold`], dequantised weights included.
pub struct FoldAll;

/// Results up to this size are folded however few elements the inputs have.
const SMALL_BYTES: usize = 64 << 10;
/// Bytes of results in one run of a pass: this, or [`BUDGET_FACTOR`] times the bytes of the graph's constants. So a small
/// model that computes much from its constants takes no more memory than a multiple of them; what is beyond stays.
const BUDGET_BYTES: usize = 64 << 20;
const BUDGET_FACTOR: usize = 16;

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
    fn run(&self, graph: &mut Graph, cx: &PassCx<'_>) -> Result<Changed> {
        fold(self.name(), graph, cx, |op| !matches!(op, Op::Dequantize { .. }))
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
    fn run(&self, graph: &mut Graph, cx: &PassCx<'_>) -> Result<Changed> {
        fold(self.name(), graph, cx, |_| true)
    }
}

fn fold(pass: &'static str, graph: &mut Graph, cx: &PassCx<'_>, may_fold: impl Fn(&Op) -> bool) -> Result<Changed> {
    let before = graph.len();
    let constants = graph.values().filter(|(_, v)| matches!(v.def, Def::Const(_)));
    let mut budget =
        BUDGET_BYTES.max(constants.map(|(_, v)| v.ty.bytes()).sum::<usize>().saturating_mul(BUDGET_FACTOR));
    let (mut folded, mut left_out) = (false, 0);
    let new = graph
        .rebuild(|out, _, value, inputs| {
            if let Def::Node { op, .. } = &value.def
                && may_fold(op)
                && let Some(tensors) = inputs.iter().map(|v| out.constant(*v)).collect::<Option<Vec<&Tensor>>>()
                && (value.ty.bytes() <= SMALL_BYTES
                    || value.ty.elements() <= 2 * tensors.iter().map(|t| t.ty().elements()).sum::<usize>())
            {
                let Some(left) = budget.checked_sub(value.ty.bytes()) else {
                    left_out += 1;
                    return out.copy_value(value, inputs);
                };
                // What the evaluator does not support stays for the lowering to refuse.
                if let Ok(result) = ops::eval(op, &tensors, &value.ty) {
                    budget = left;
                    folded = true;
                    return Ok(out.add_const(result, value.origin.clone()));
                }
            }
            out.copy_value(value, inputs)
        })
        .map_err(|source| Error::Pass { pass, source })?;
    if left_out > 0 {
        (cx.warn)(format!(
            "{pass}: {left_out} operators on constants are left to run time, as their results would take too much memory"
        ));
    }
    let new = new.rebuild(|out, _, value, inputs| out.copy_value(value, inputs));
    *graph = new.map_err(|source| Error::Pass { pass, source })?;
    Ok(if folded || graph.len() != before { Changed::Yes } else { Changed::No })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcc_ir::graph::origin;
    use mcc_ir::op::Unary;

    #[test]
    fn what_exceeds_the_budget_stays() {
        let mut graph = Graph::new("g");
        let mut v = graph.add_const(Tensor::new([1 << 18], &vec![1f32; 1 << 18]), origin("c"));
        let nodes = 3 + BUDGET_BYTES / graph.ty(v).bytes();
        for _ in 0..nodes {
            v = graph.add_node(Op::unary(Unary::Neg), vec![v], origin("neg")).unwrap();
        }
        graph.add_output("y", v);
        let warnings = std::cell::RefCell::new(vec![]);
        let warn = |text| warnings.borrow_mut().push(text);
        let target = mcc_ir::Target::parse("name = \"t\"\ndescription = \"\"\nbackend = \"c\"\nalignment = 4").unwrap();
        assert_eq!(
            fold("fold", &mut graph, &PassCx { warn: &warn, ..PassCx::quiet(&target) }, |_| true),
            Ok(Changed::Yes)
        );
        assert_eq!(graph.values().filter(|(id, _)| graph.node(*id).is_some()).count(), 3);
        assert_eq!(warnings.borrow().len(), 1);
    }
}
