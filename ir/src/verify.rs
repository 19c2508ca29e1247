//! The graph verifier.
//!
//! It runs after every pass. It assumes nothing about the graph, so that it can also judge one that was read from a file,
//! and reports every fault it finds, not the first.

use crate::error::{Error, Result};
use crate::graph::{Def, Graph, Port, Value, ValueId};
use crate::ops;
use crate::types::TensorType;
use std::collections::HashSet;

/// Checks a graph's invariants:
/// - values are defined before they are used, in topological order;
/// - every operator accepts its inputs, and the type stored for its result is the one inferred;
/// - constants have the type that is stored for them;
/// - no value exceeds [`ops::MAX_ELEMENTS`] or [`ops::MAX_RANK`];
/// - ports refer to existing values, and input ports and input values to each other;
/// - there is an output, and the names of inputs are distinct and not empty, as are those of outputs.
///
/// # Errors
/// [`Error::Verify`] with every fault found, each with the value, its operator and its names in the user's model.
pub fn verify(graph: &Graph) -> Result<()> {
    let mut faults = vec![];
    for (id, value) in graph.values() {
        check_value(graph, id, value, &mut |reason| faults.push(format!("{}: {reason}", describe(id, value))));
    }
    check_ports(graph, "input", &graph.inputs, &mut faults);
    check_ports(graph, "output", &graph.outputs, &mut faults);
    for (i, port) in graph.inputs.iter().enumerate() {
        if let Some(value) = graph.get(port.value)
            && value.def != Def::Input(i)
        {
            faults.push(format!("input {:?}: {} is not defined as input {i}", port.name, describe(port.value, value)));
        }
    }
    if graph.outputs.is_empty() {
        faults.push(format!("graph {:?}: has no output", graph.name));
    }
    if faults.is_empty() { Ok(()) } else { Err(Error::Verify(faults)) }
}

/// A value's id, what defines it, and its names in the user's model: `v7 conv2d ("stem/conv")`.
fn describe(id: ValueId, value: &Value) -> String {
    let kind = match &value.def {
        Def::Input(_) => "input",
        Def::Const(_) => "const",
        Def::Node { op, .. } => op.name(),
    };
    let names: Vec<String> = value.origin.iter().map(|name| format!("{name:?}")).collect();
    if names.is_empty() { format!("{id} {kind}") } else { format!("{id} {kind} ({})", names.join(", ")) }
}

fn check_value(graph: &Graph, id: ValueId, value: &Value, fault: &mut impl FnMut(String)) {
    let ty = &value.ty;
    if !ops::within_limits(ty) {
        return fault(format!("the type {} is too large", brief(ty)));
    }
    match &value.def {
        Def::Input(i) => match graph.inputs.get(*i) {
            Some(port) if port.value == id => {}
            Some(port) => fault(format!("is defined as input {i}, which is {}", port.value)),
            None => fault(format!("is defined as input {i} of {}", graph.inputs.len())),
        },
        Def::Const(tensor) => {
            if tensor.ty() != ty {
                fault(format!("the constant is {}, its stored type {ty}", tensor.ty()));
            }
        }
        Def::Node { op, inputs } => {
            let mut types: Vec<&TensorType> = vec![];
            for (i, v) in inputs.iter().enumerate() {
                match graph.get(*v) {
                    Some(input) if *v < id => types.push(&input.ty),
                    Some(_) => fault(format!("operand {i}, {v}, is not defined before its use")),
                    None => fault(format!("operand {i}, {v}, does not exist")),
                }
            }
            if types.len() < inputs.len() {
                return;
            }
            match ops::infer(op, &types) {
                Ok(inferred) if inferred == *ty => {}
                Ok(inferred) => fault(format!("the inferred type is {inferred}, the stored type {ty}")),
                Err(Error::Type { reason, .. }) => fault(reason),
                Err(other) => fault(other.to_string()),
            }
        }
    }
}

fn check_ports(graph: &Graph, kind: &str, ports: &[Port], faults: &mut Vec<String>) {
    let mut names = HashSet::new();
    for (i, port) in ports.iter().enumerate() {
        if port.name.is_empty() {
            faults.push(format!("{kind} {i}: has no name"));
        } else if !names.insert(&port.name) {
            faults.push(format!("{kind} {i}: the name {:?} is taken", port.name));
        }
        if graph.get(port.value).is_none() {
            faults.push(format!("{kind} {i} {:?}: {} does not exist", port.name, port.value));
        }
    }
}

/// A type in few words, however many dimensions it has.
fn brief(ty: &TensorType) -> String {
    if ty.rank() <= ops::MAX_RANK { ty.to_string() } else { format!("{} of {} dimensions", ty.dtype, ty.rank()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::graph::origin;
    use crate::op::{Binary, Op, Unary};
    use crate::tensor::Tensor;

    fn f32s(shape: &[usize]) -> TensorType {
        TensorType::new(DType::F32, shape)
    }

    fn port(name: &str, value: u32) -> Port {
        Port { name: name.into(), value: ValueId(value), quant: None }
    }

    /// y = relu(x + c).
    fn parts() -> (Vec<Port>, Vec<Port>, Vec<Value>) {
        let mut g = Graph::new("g");
        let x = g.add_input("x", f32s(&[2, 3]));
        let c = g.add_const(Tensor::new([3], &[1f32, 2.0, 3.0]), origin("c"));
        let sum = g.add_node(Op::binary(Binary::Add), vec![x, c], origin("Add_1")).unwrap();
        let y = g.add_node(Op::unary(Unary::Relu), vec![sum], origin("Relu_2")).unwrap();
        g.add_output("y", y);
        assert_eq!(verify(&g), Ok(()));
        let values: Vec<Value> = g.values().map(|(_, v)| v.clone()).collect();
        (g.inputs, g.outputs, values)
    }

    /// The faults of the graph above after a change.
    fn faults(change: impl FnOnce(&mut Vec<Port>, &mut Vec<Port>, &mut Vec<Value>)) -> Vec<String> {
        let (mut inputs, mut outputs, mut values) = parts();
        change(&mut inputs, &mut outputs, &mut values);
        match verify(&Graph::from_parts("g", inputs, outputs, values)) {
            Err(Error::Verify(faults)) => faults,
            other => panic!("{other:?}"),
        }
    }

    fn operands(values: &mut [Value], at: usize) -> &mut Vec<ValueId> {
        match &mut values[at].def {
            Def::Node { inputs, .. } => inputs,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn parts_make_the_same_graph() {
        let (inputs, outputs, values) = parts();
        let mut g = Graph::from_parts("g", inputs, outputs, values);
        assert_eq!(verify(&g), Ok(()));
        let again = g.add_const(Tensor::new([3], &[1f32, 2.0, 3.0]), origin("again"));
        assert_eq!(again, ValueId(1), "constants are still found by content");
    }

    #[test]
    fn operands_come_first_and_exist() {
        assert_eq!(
            faults(|_, _, v| operands(v, 2)[1] = ValueId(3)),
            ["v2 add (\"Add_1\"): operand 1, v3, is not defined before its use"]
        );
        assert_eq!(
            faults(|_, _, v| operands(v, 2)[0] = ValueId(2)),
            ["v2 add (\"Add_1\"): operand 0, v2, is not defined before its use"]
        );
        assert_eq!(
            faults(|_, _, v| operands(v, 3)[0] = ValueId(u32::MAX)),
            ["v3 relu (\"Relu_2\"): operand 0, v4294967295, does not exist"]
        );
        assert_eq!(faults(|_, _, v| operands(v, 3).clear()), ["v3 relu (\"Relu_2\"): takes 1 inputs, has 0"]);
    }

    #[test]
    fn stored_types_are_the_inferred_ones() {
        let wrong = |_: &mut Vec<Port>, _: &mut Vec<Port>, v: &mut Vec<Value>| v[3].ty = f32s(&[3, 2]);
        assert_eq!(faults(wrong), ["v3 relu (\"Relu_2\"): the inferred type is f32[2x3], the stored type f32[3x2]"]);
        assert_eq!(
            faults(|_, _, v| v[1].ty = f32s(&[1, 3])),
            ["v1 const (\"c\"): the constant is f32[3], its stored type f32[1x3]"]
        );
        let misfit = faults(|_, _, v| v[0].ty = f32s(&[2, 4]));
        assert!(misfit.len() == 1 && misfit[0].starts_with("v2 add (\"Add_1\"): "), "{misfit:?}");
    }

    #[test]
    fn sizes_are_bounded() {
        let large = faults(|_, _, v| v[0].ty = f32s(&[usize::MAX, 2]));
        assert_eq!(large[0], "v0 input (\"x\"): the type f32[18446744073709551615x2] is too large");
        let empty = faults(|_, _, v| v[3].ty = f32s(&[0, usize::MAX, 2]));
        assert_eq!(empty, ["v3 relu (\"Relu_2\"): the type f32[0x18446744073709551615x2] is too large"]);
        let deep = faults(|_, _, v| v[3].ty = f32s(&vec![1; 1000]));
        assert_eq!(deep, ["v3 relu (\"Relu_2\"): the type f32 of 1000 dimensions is too large"]);
    }

    #[test]
    fn ports_and_input_values_refer_to_each_other() {
        assert_eq!(
            faults(|i, _, _| i[0].value = ValueId(1)),
            [
                "v0 input (\"x\"): is defined as input 0, which is v1",
                "input \"x\": v1 const (\"c\") is not defined as input 0"
            ]
        );
        assert_eq!(
            faults(|_, _, v| v[0].def = Def::Input(7)),
            ["v0 input (\"x\"): is defined as input 7 of 1", "input \"x\": v0 input (\"x\") is not defined as input 0"]
        );
        assert_eq!(faults(|i, _, _| i.clear()), ["v0 input (\"x\"): is defined as input 0 of 0"]);
        assert_eq!(faults(|_, o, _| o[0].value = ValueId(9)), ["output 0 \"y\": v9 does not exist"]);
        assert_eq!(faults(|i, _, _| i.push(port("z", 9))), ["input 1 \"z\": v9 does not exist"]);
    }

    #[test]
    fn names_are_distinct_and_not_empty() {
        assert_eq!(faults(|_, o, _| o.push(port("y", 2))), ["output 1: the name \"y\" is taken"]);
        assert_eq!(faults(|_, o, _| o[0].name.clear()), ["output 0: has no name"]);
        assert_eq!(faults(|i, _, _| i[0].name.clear()), ["input 0: has no name"]);
        assert_eq!(faults(|_, o, _| o.clear()), ["graph \"g\": has no output"]);
        // An output may have the name of an input, as an identity model's has.
        let (inputs, mut outputs, values) = parts();
        outputs[0].name = "x".into();
        assert_eq!(verify(&Graph::from_parts("g", inputs, outputs, values)), Ok(()));
    }

    #[test]
    fn all_faults_are_reported() {
        let all = faults(|i, o, v| {
            v[1].ty = f32s(&[1, 3]);
            v[2].ty = f32s(&[6]);
            operands(v, 3)[0] = ValueId(8);
            i[0].name.clear();
            o[0].value = ValueId(4);
        });
        assert_eq!(all.len(), 5, "{all:#?}");
        assert_eq!(Error::Verify(all.clone()).to_string(), all.join("\n"));
    }
}
