//! The reference evaluator of a whole graph.

use crate::error::{Error, Result};
use crate::graph::{Def, Graph, ValueId};
use crate::ops;
use crate::tensor::Tensor;

/// Evaluates a graph on one tensor an input, in order, and returns its outputs.
///
/// # Errors
/// Where an input has another type than the graph's, or an operator has no evaluation.
pub fn run(graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    run_with(graph, inputs, |_, _| {})
}

/// As [`run`], showing every computed value to `observe`.
///
/// # Errors
/// As [`run`].
pub fn run_with(graph: &Graph, inputs: &[Tensor], mut observe: impl FnMut(ValueId, &Tensor)) -> Result<Vec<Tensor>> {
    if inputs.len() != graph.inputs.len() {
        let reason = format!("the graph takes {} inputs, {} are given", graph.inputs.len(), inputs.len());
        return Err(Error::ty("input", reason));
    }
    let live = graph.live();
    let mut uses = graph.use_counts();
    let mut values: Vec<Option<Tensor>> = vec![None; graph.len()];
    for (id, value) in graph.values() {
        let result = match &value.def {
            _ if !live[id.index()] => continue,
            Def::Const(_) => continue,
            Def::Input(i) => {
                let (port, given) = (&graph.inputs[*i], &inputs[*i]);
                if given.ty() != &value.ty {
                    let reason = format!("{} is {}, not {}", port.name, value.ty, given.ty());
                    return Err(Error::ty("input", reason));
                }
                given.clone()
            }
            Def::Node { op, inputs } => {
                let operands: Vec<&Tensor> = inputs.iter().map(|v| read(graph, &values, *v)).collect();
                let result = ops::eval(op, &operands, &value.ty)?;
                for v in inputs {
                    uses[v.index()] -= 1;
                    if uses[v.index()] == 0 {
                        values[v.index()] = None;
                    }
                }
                result
            }
        };
        observe(id, &result);
        values[id.index()] = Some(result);
    }
    Ok(graph.outputs.iter().map(|p| read(graph, &values, p.value).clone()).collect())
}

fn read<'a>(graph: &'a Graph, values: &'a [Option<Tensor>], v: ValueId) -> &'a Tensor {
    graph.constant(v).unwrap_or_else(|| values[v.index()].as_ref().expect("defined before use and not yet dropped"))
}
