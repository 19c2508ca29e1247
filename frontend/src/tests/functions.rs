//! Local functions.

use super::*;
use crate::code;
use crate::proto::Function;

fn function(name: &str, nodes: Vec<Node>) -> Function {
    Function {
        name: name.into(),
        domain: "local".into(),
        input: vec!["a".into(), "b".into()],
        output: vec!["c".into()],
        attribute: vec!["slope".into()],
        node: nodes,
        opset_import: vec![
            OperatorSetId { domain: String::new(), version: 13 },
            OperatorSetId { domain: "local".into(), version: 1 },
        ],
        ..Function::default()
    }
}

fn call(name: &str, inputs: &[&str], output: &str, attributes: Vec<Attribute>) -> Node {
    Node { domain: "local".into(), ..node(name, inputs, output, attributes) }
}

fn referring(name: &str, to: &str) -> Attribute {
    Attribute { name: name.into(), ref_attr_name: to.into(), r#type: at::FLOAT, ..Attribute::default() }
}

fn with(functions: Vec<Function>, nodes: Vec<Node>) -> Model {
    let mut m = model(&[2], vec![init("k", &Tensor::new([2], &[10f32, 20.0]))], nodes);
    m.opset_import.push(OperatorSetId { domain: "local".into(), version: 1 });
    m.functions = functions;
    m
}

#[test]
fn bodies_are_inlined_with_their_attributes() {
    let leaky =
        vec![node("Sub", &["a", "b"], "t", vec![]), node("LeakyRelu", &["t"], "c", vec![referring("alpha", "slope")])];
    let twice = vec![
        call("leaky", &["a", "b"], "u", vec![referring("slope", "slope")]),
        call("leaky", &["u", "b"], "c", vec![float("slope", 0.5)]),
    ];
    let functions = vec![function("leaky", leaky), function("twice", twice)];
    let named = Node { name: "outer".into(), ..call("twice", &["x", "k"], "y", vec![float("slope", 0.25)]) };
    let m = with(functions, vec![named]);
    // x - k = -8, -16; by 0.25: -2, -4; minus k: -12, -24; by 0.5: -6, -12.
    assert_eq!(run(&m, Tensor::new([2], &[2f32, 4.0])), Tensor::new([2], &[-6f32, -12.0]));
    let graph = import(&m).unwrap();
    assert_eq!(graph.value(graph.outputs[0].value).origin[0].as_ref(), "outer/c/c");
}

#[test]
fn attributes_have_defaults_and_inputs_may_be_left_out() {
    let mut f = function("clip", vec![node("Clip", &["a", "", "b"], "c", vec![])]);
    f.attribute.clear();
    assert_eq!(run(&with(vec![f], vec![call("clip", &["x"], "y", vec![])]), count(&[2])), count(&[2]));
    let mut f = function("leaky", vec![node("LeakyRelu", &["a"], "c", vec![referring("alpha", "slope")])]);
    f.attribute.clear();
    f.attribute_proto = vec![float("slope", 0.5)];
    let m = with(vec![f], vec![call("leaky", &["x"], "y", vec![])]);
    assert_eq!(run(&m, Tensor::new([2], &[-2f32, 2.0])), Tensor::new([2], &[-1f32, 2.0]));
}

#[test]
fn what_is_not_supported_inside_is_named() {
    let m =
        with(vec![function("f", vec![node("Nonsense", &["a"], "c", vec![])])], vec![call("f", &["x"], "y", vec![])]);
    let Err(Error::Unsupported(all)) = import(&m) else { panic!() };
    assert_eq!((all[0].code, all[0].node.as_str(), all[0].op_type.as_str()), (code::OPERATOR, "y/c", "Nonsense"));
}

#[test]
fn recursion_and_explosion_end_soon() {
    let recursive = function("f", vec![call("f", &["a", "b"], "c", vec![])]);
    assert_eq!(refused(&with(vec![recursive], vec![call("f", &["x", "k"], "y", vec![])])).0, code::LIMIT);
    // Each of 40 functions calls the next one twice.
    let explosive = (0..40).map(|i| {
        let next = format!("f{}", i + 1);
        let nodes = vec![call(&next, &["a", "b"], "t", vec![]), call(&next, &["t", "b"], "c", vec![])];
        function(&format!("f{i}"), nodes)
    });
    let mut functions: Vec<Function> = explosive.collect();
    functions.push(function("f40", vec![node("Add", &["a", "b"], "c", vec![])]));
    assert_eq!(refused(&with(functions, vec![call("f0", &["x", "k"], "y", vec![])])).0, code::LIMIT);
    // 3,000 functions, each calling the next one.
    let chain: Vec<Function> = (0..3000)
        .map(|i| function(&format!("f{i}"), vec![call(&format!("f{}", i + 1), &["a", "b"], "c", vec![])]))
        .collect();
    assert_eq!(refused(&with(chain, vec![call("f0", &["x", "k"], "y", vec![])])).0, code::LIMIT);
}

#[test]
fn malformed_functions_are_refused() {
    let good = || function("f", vec![node("Relu", &["a"], "c", vec![])]);
    let call_f = || vec![call("f", &["x"], "y", vec![])];
    assert_eq!(refused(&with(vec![good(), good()], call_f())).0, code::FUNCTION);
    let without = function("f", vec![node("Relu", &["a"], "d", vec![])]);
    assert_eq!(refused(&with(vec![without], call_f())).0, code::FUNCTION);
    assert_eq!(refused(&with(vec![good()], vec![call("f", &["x", "x", "x"], "y", vec![])])).0, code::FUNCTION);
    let unknown = vec![call("f", &["x"], "y", vec![int("other", 1)])];
    assert_eq!(refused(&with(vec![good()], unknown)).0, code::FUNCTION);
    let outside = vec![node("LeakyRelu", &["x"], "y", vec![referring("alpha", "slope")])];
    assert_eq!(refused(&with(vec![], outside)).0, code::NODE);
    let twice = function("f", vec![node("Relu", &["a"], "c", vec![]), node("Relu", &["b"], "c", vec![])]);
    assert_eq!(refused(&with(vec![twice], call_f())).0, code::GRAPH);
}

/// A long name of a call is not repeated for each node of the function.
#[test]
fn names_inside_functions_are_cut() {
    let mut nodes = vec![node("Add", &["a", "b"], "v0", vec![])];
    nodes.extend((1..500).map(|i| node("Relu", &[&format!("v{}", i - 1)], &format!("v{i}"), vec![])));
    let inner = Function { output: vec!["v499".into()], ..function("f", nodes) };
    let outer = Function { output: vec!["c".into()], ..function("g", vec![call("f", &["a", "b"], "c", vec![])]) };
    let caller = Node { name: "n".repeat(100_000), ..call("g", &["x", "k"], "y", vec![]) };
    let graph = import(&with(vec![inner, outer], vec![caller])).unwrap_or_else(|e| panic!("{e}"));
    let longest = graph.values().flat_map(|(_, v)| v.origin.iter().map(|n| n.len())).max();
    assert_eq!(longest, Some(200));
}
