//! Looking inside a run: random inputs, and every value of a graph checked node by node.

use super::compare::{self, Difference, Tolerance};
use mcc::ir::graph::{Def, Graph, ValueId};
use mcc::ir::op::{Op, PoolKind, ReduceKind};
use mcc::ir::{DType, Tensor, TensorType, ops, text};
use mcc::{Error, Result};
use serde::Serialize;

/// Random inputs of a graph: floats from -1 to 1, bytes and shorts over their range, wider integers (mostly indices) from
/// 0 to 9.
///
/// # Errors
/// Where an input is too large.
pub fn random_inputs(graph: &Graph, seed: u64) -> Result<Vec<Tensor>> {
    let one = |(i, port): (usize, &mcc::ir::graph::Port)| {
        let ty = graph.ty(port.value);
        let (lo, hi) = match ty.dtype {
            d if d.is_float() => (-1.0, 1.0),
            DType::I64 | DType::I32 => (0.0, 9.0),
            d => d.int_range().map_or((0.0, 1.0), |(lo, hi)| (lo as f64, hi as f64)),
        };
        let seed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(i as u64);
        text::random_tensor(ty, seed, lo, hi)
            .ok_or_else(|| Error::Usage(format!("input {:?} of type {ty} is too large for random data", port.name)))
    };
    graph.inputs.iter().enumerate().map(one).collect()
}

/// The values that kernels compute: live operators, reshapes left out.
pub fn taps(graph: &Graph) -> Vec<ValueId> {
    let live = graph.live();
    let computed = |def: &Def| matches!(def, Def::Node { op, .. } if !matches!(op, Op::Reshape { .. }));
    graph.values().filter(|(id, v)| live[id.index()] && computed(&v.def)).map(|(id, _)| id).collect()
}

/// The same graph with the given values as its outputs.
pub fn tapped(graph: &Graph, taps: &[ValueId]) -> Graph {
    let mut graph = graph.clone();
    graph.outputs.clear();
    taps.iter().for_each(|v| graph.add_output(v.to_string(), *v));
    graph
}

/// A node whose result differs from the evaluator's on the same operands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Divergence {
    /// The node's names in the model.
    pub origin: Vec<String>,
    pub op: &'static str,
    #[serde(rename = "type")]
    pub ty: String,
    #[serde(flatten)]
    pub difference: Difference,
}

/// The first node whose observed value is not what the evaluator makes of its observed operands. `observed` holds the
/// values of `taps`, in order.
///
/// # Errors
/// Where the evaluator refuses an operator.
pub fn first_divergence(
    graph: &Graph,
    inputs: &[Tensor],
    taps: &[ValueId],
    observed: &[Tensor],
) -> Result<Option<Divergence>> {
    let mut values: Vec<Option<Tensor>> = vec![None; graph.len()];
    graph.inputs.iter().zip(inputs).for_each(|(p, t)| values[p.value.index()] = Some(t.clone()));
    taps.iter().zip(observed).for_each(|(v, t)| values[v.index()] = Some(t.clone()));
    let live = graph.live();
    for (id, value) in graph.values() {
        let result = match &value.def {
            _ if !live[id.index()] => continue,
            Def::Input(_) => continue,
            Def::Const(t) => t.clone(),
            Def::Node { op, inputs } => {
                let operands: Option<Vec<&Tensor>> = inputs.iter().map(|v| values[v.index()].as_ref()).collect();
                let operands = operands.ok_or_else(|| Error::Usage(format!("{id} was not observed")))?;
                let expected = ops::eval(op, &operands, &value.ty)?;
                let types: Vec<&TensorType> = inputs.iter().map(|v| graph.ty(*v)).collect();
                if let Some(found) = &values[id.index()] {
                    let difference = compare::compare(found, &expected, node_tolerance(op, &types));
                    if difference.mismatches > 0 {
                        return Ok(Some(Divergence {
                            origin: value.origin.iter().map(|n| n.to_string()).collect(),
                            op: op.name(),
                            ty: value.ty.to_string(),
                            difference,
                        }));
                    }
                    continue;
                }
                expected
            }
        };
        values[id.index()] = Some(result);
    }
    Ok(None)
}

/// What counts as equal for one node.
fn node_tolerance(op: &Op, inputs: &[&TensorType]) -> Tolerance {
    if reorders(op, inputs) { compare::REORDERED } else { Tolerance::Exact }
}

/// What counts as equal for the outputs of a whole graph: the same bits, unless a float reduction may be reordered.
pub fn graph_tolerance(graph: &Graph) -> Tolerance {
    let live = graph.live();
    let any = graph.values().any(|(id, value)| match &value.def {
        Def::Node { op, inputs } if live[id.index()] => {
            let types: Vec<&TensorType> = inputs.iter().map(|v| graph.ty(*v)).collect();
            reorders(op, &types)
        }
        _ => false,
    });
    if any { compare::REORDERED } else { Tolerance::Exact }
}

/// Whether an operator reduces floats, which kernels may do in another order.
fn reorders(op: &Op, inputs: &[&TensorType]) -> bool {
    let float = inputs.first().is_some_and(|t| t.dtype.is_float());
    float
        && match op {
            Op::Conv2d(_)
            | Op::ConvTranspose2d(_)
            | Op::MatMul(_)
            | Op::LayerNorm(_)
            | Op::Softmax(_)
            | Op::Recurrent(_) => true,
            Op::Pool2d(p) => p.kind != PoolKind::Max,
            Op::Reduce(r) => !matches!(r.kind, ReduceKind::Max | ReduceKind::Min),
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcc::ir::eval;
    use mcc::ir::graph::origin;
    use mcc::ir::op::Unary;

    fn chain() -> Graph {
        let mut graph = Graph::new("g");
        let x = graph.add_input("x", TensorType::new(DType::F32, [2, 3]));
        let a = graph.add_node(Op::unary(Unary::Neg), vec![x], origin("first")).unwrap();
        let r = graph.add_node(Op::Reshape { shape: vec![6] }, vec![a], origin("flat")).unwrap();
        let b = graph.add_node(Op::unary(Unary::Exp), vec![r], origin("second")).unwrap();
        graph.add_output("y", b);
        graph
    }

    #[test]
    fn the_first_wrong_node_is_named() {
        let graph = chain();
        let inputs = random_inputs(&graph, 1).unwrap();
        let taps = taps(&graph);
        assert_eq!(taps.len(), 2);
        let right = eval::run(&tapped(&graph, &taps), &inputs).unwrap();
        assert_eq!(first_divergence(&graph, &inputs, &taps, &right).unwrap(), None);
        let mut second = right.clone();
        let mut values = second[1].to_f32();
        values[4] += 1e-3;
        second[1] = Tensor::new([6], &values);
        let d = first_divergence(&graph, &inputs, &taps, &second).unwrap().unwrap();
        assert_eq!((d.origin, d.difference.first_wrong.unwrap().index), (vec!["second".to_string()], vec![4]));
        // A wrong first value is blamed on the first node only: the second is judged by what it was given.
        let mut first = right.clone();
        first[0] = Tensor::new([2, 3], &[0.0f32; 6]);
        first[1] = Tensor::new([6], &[1.0f32; 6]);
        let d = first_divergence(&graph, &inputs, &taps, &first).unwrap().unwrap();
        assert_eq!(d.origin, ["first"]);
    }

    #[test]
    fn random_inputs_depend_on_the_seed_only() {
        let graph = chain();
        assert_eq!(random_inputs(&graph, 5).unwrap(), random_inputs(&graph, 5).unwrap());
        assert_ne!(random_inputs(&graph, 5).unwrap(), random_inputs(&graph, 6).unwrap());
    }
}
