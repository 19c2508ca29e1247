//! Hostile and broken files: each gives a coded error or a right graph, and never a panic.

use super::*;
use crate::code;
use crate::proto::{Dimension, DimensionValue, SparseTensor, TensorShape, TensorTypeProto, Type};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn relu(input: &str, output: &str) -> Node {
    node("Relu", &[input], output, vec![])
}

/// A small network that uses many importers.
fn network() -> Model {
    let w = Tensor::new([2, 1, 2, 2], &[1f32; 8]);
    let nodes = vec![
        node("Conv", &["x", "w", "b"], "c", vec![ints("pads", &[1, 1, 1, 1]), ints("strides", &[2, 2])]),
        node(
            "MaxPool",
            &["c"],
            "p",
            vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2]), int("ceil_mode", 1)],
        ),
        node("Shape", &["p"], "s", vec![]),
        node("Gather", &["s", "zero"], "n", vec![]),
        node("Unsqueeze", &["n", "axes"], "n1", vec![]),
        node("Concat", &["n1", "rest"], "shape", vec![int("axis", 0)]),
        node("Reshape", &["p", "shape"], "f", vec![]),
        node("Gemm", &["f", "g", "h"], "z", vec![int("transB", 1), float("alpha", 0.5)]),
        node("Softmax", &["z"], "y", vec![int("axis", -1)]),
    ];
    let init = vec![
        init("w", &w),
        init("b", &Tensor::new([2], &[0.5f32, -0.5])),
        init("zero", &Tensor::new([], &[0i64])),
        init("axes", &i64s(&[0])),
        init("rest", &i64s(&[-1])),
        init("g", &count(&[3, 8])),
        init("h", &count(&[3])),
    ];
    model(&[1, 1, 7, 7], init, nodes)
}

#[test]
fn the_network_is_valid() {
    let y = run(&network(), count(&[1, 1, 7, 7]));
    assert_eq!(y.shape(), [1, 3]);
}

#[test]
fn truncated_files_are_refused() {
    let bytes = network().encode_to_vec();
    for end in (0..bytes.len()).step_by(13) {
        let found = import_bytes(bytes[..end].to_vec(), None, &ImportOptions::default());
        assert!(found.is_err(), "the first {end} of {} bytes are imported", bytes.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn flipped_bytes_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = network().encode_to_vec();
        for (at, to) in flips {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        if let Err(e) = import_bytes(bytes, None, &ImportOptions::default()) {
            prop_assert!(e.code().starts_with('E') && !e.to_string().is_empty());
        }
    }

    /// Attributes and shapes of any size, on every operator.
    #[test]
    fn any_attributes_never_panic(
        row in any::<prop::sample::Index>(),
        numbers in prop::collection::vec(odd_number(), 0..6),
        shapes in prop::collection::vec(prop::collection::vec(0usize..5, 0..5), 1..6),
        constants in prop::collection::vec(odd_number(), 0..5),
        opset in 7i64..=28,
    ) {
        let all: Vec<&str> = crate::supported_operators().collect();
        let op = row.get(&all);
        let known = crate::ops::find("", op).unwrap().attributes;
        let attributes = known.iter().zip(numbers.iter().cycle().take(known.len().min(numbers.len() * 3)))
            .enumerate()
            .map(|(i, (name, v))| match i % 2 == 0 { true => ints(name, &numbers), false => int(name, *v) })
            .collect();
        let tensors: Vec<TensorProto> =
            shapes.iter().enumerate().map(|(i, s)| init(&format!("t{i}"), &count(s))).collect();
        let mut names: Vec<String> = tensors.iter().map(|t| t.name.clone()).collect();
        names.insert(0, "x".into());
        names.insert(1, "n".into());
        names.truncate(1 + shapes.len());
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut all_tensors = tensors;
        all_tensors.push(init("n", &i64s(&constants)));
        let m = model(&[1, 2, 3, 4], all_tensors, vec![node(op, &names, "y", attributes)]).opset(opset);
        if let Err(e) = import(&m) {
            prop_assert!(e.code().starts_with('E'));
        }
    }
}

/// Small numbers, and some of any size.
fn odd_number() -> impl Strategy<Value = i64> {
    const EXTREME: [i64; 7] = [i64::MIN, i64::MIN + 1, i64::MAX, 1 << 28, (1 << 28) + 1, 1 << 62, -1 << 32];
    prop_oneof![6 => -4i64..8, 1 => prop::sample::select(&EXTREME[..])]
}

#[test]
fn deep_nesting_is_refused() {
    let mut inner = GraphProto { node: vec![relu("x", "y")], ..GraphProto::default() };
    for _ in 0..60 {
        let body = Attribute { name: "body".into(), g: Some(inner), r#type: 5, ..Attribute::default() };
        inner = GraphProto { node: vec![node("Loop", &["x"], "y", vec![body])], ..GraphProto::default() };
    }
    let mut m = model(&[1], vec![], vec![]);
    m.graph.as_mut().unwrap().node = inner.node;
    assert_eq!(refused(&m).0, code::LIMIT);
}

#[test]
fn broken_graphs_are_refused() {
    let x = [1i64];
    let mut cases: Vec<(&str, Model, &str)> = vec![
        ("cycle", model(&x, vec![], vec![relu("b", "a"), relu("a", "b"), relu("x", "y")]), code::GRAPH),
        ("self", model(&x, vec![], vec![node("Add", &["x", "y"], "y", vec![])]), code::GRAPH),
        ("two producers", model(&x, vec![], vec![relu("x", "y"), relu("x", "y")]), code::GRAPH),
        ("redefined input", model(&x, vec![], vec![relu("x", "x"), relu("x", "y")]), code::GRAPH),
        ("undefined", model(&x, vec![], vec![node("Add", &["x", "ghost"], "y", vec![])]), code::GRAPH),
        ("no output", model(&x, vec![], vec![relu("x", "z")]), code::GRAPH),
        (
            "same initializer",
            model(&x, vec![init("c", &count(&[1])), init("c", &count(&[1]))], vec![relu("x", "y")]),
            code::GRAPH,
        ),
        ("initializer and node", model(&x, vec![init("y", &count(&[1]))], vec![relu("x", "y")]), code::GRAPH),
        ("unnamed initializer", model(&x, vec![init("", &count(&[1]))], vec![relu("x", "y")]), code::GRAPH),
        ("missing input", model(&x, vec![], vec![node("Add", &["x"], "y", vec![])]), code::NODE),
        ("empty input", model(&x, vec![], vec![node("Add", &["x", ""], "y", vec![])]), code::NODE),
        ("unknown attribute", model(&x, vec![], vec![node("Relu", &["x"], "y", vec![int("alpha", 1)])]), code::NODE),
        (
            "attribute twice",
            model(&x, vec![], vec![node("Elu", &["x"], "y", vec![float("alpha", 1.0); 2])]),
            code::NODE,
        ),
        ("wrong attribute", model(&x, vec![], vec![node("Elu", &["x"], "y", vec![text("alpha", "1")])]), code::NODE),
    ];
    let pool =
        |attributes: Vec<Attribute>| model(&[1, 1, 4, 4], vec![], vec![node("MaxPool", &["x"], "y", attributes)]);
    let kernel = || ints("kernel_shape", &[2, 2]);
    cases.extend([
        ("stride 0", pool(vec![kernel(), ints("strides", &[0, 1])]), code::NODE),
        ("large kernel", pool(vec![ints("kernel_shape", &[5, 5])]), code::NODE),
        ("huge kernel", pool(vec![ints("kernel_shape", &[1 << 28, 1 << 28])]), code::NODE),
        ("huge dilation", pool(vec![kernel(), ints("dilations", &[i64::MAX, 1])]), code::NODE),
        ("pads of the kernel's size", pool(vec![kernel(), ints("pads", &[2, 0, 0, 0])]), code::NODE),
        ("negative pads", pool(vec![kernel(), ints("pads", &[-1, 0, 0, 0])]), code::FORM),
        ("three strides", pool(vec![kernel(), ints("strides", &[1, 1, 1])]), code::NODE),
        ("no kernel", pool(vec![]), code::NODE),
    ]);
    let mut twice = model(&x, vec![], vec![relu("x", "y")]);
    twice.graph.as_mut().unwrap().input.push(value("x", dt::FLOAT, &[1]));
    cases.push(("input twice", twice, code::GRAPH));
    let mut outputs = model(&x, vec![], vec![relu("x", "y")]);
    outputs.graph.as_mut().unwrap().output.push(value("y", dt::FLOAT, &[1]));
    cases.push(("output twice", outputs, code::GRAPH));
    let mut none = model(&x, vec![], vec![relu("x", "y")]);
    none.graph.as_mut().unwrap().output.clear();
    cases.push(("no outputs", none, code::GRAPH));
    let mut declared = model(&x, vec![], vec![relu("x", "y")]);
    declared.graph.as_mut().unwrap().output[0] = value("y", dt::INT8, &[1]);
    cases.push(("output of another type", declared, code::GRAPH));
    let mut sparse = model(&x, vec![], vec![relu("x", "y")]);
    sparse.graph.as_mut().unwrap().sparse_initializer.push(SparseTensor::default());
    cases.push(("sparse", sparse, code::SPARSE));
    let mut opset = model(&x, vec![], vec![relu("x", "y")]);
    opset.opset_import.clear();
    cases.push(("no opset", opset, code::OPSET));
    let mut two = model(&x, vec![], vec![relu("x", "y")]);
    two.opset_import.push(OperatorSetId { domain: "ai.onnx".into(), version: 12 });
    cases.push(("two opsets", two, code::OPSET));
    cases.push(("future opset", model(&x, vec![], vec![relu("x", "y")]).opset(29), code::OPSET));
    cases.push(("old opset", model(&x, vec![], vec![relu("x", "y")]).opset(6), code::OPSET));
    let mut future = model(&x, vec![], vec![relu("x", "y")]);
    future.ir_version = Some(15);
    cases.push(("future file format", future, code::OPSET));
    cases.push(("operator of a later opset", model(&x, vec![], vec![node("Gelu", &["x"], "y", vec![])]), code::NODE));
    let mut kind = model(&x, vec![], vec![relu("x", "y")]);
    kind.graph.as_mut().unwrap().input[0].r#type.as_mut().unwrap().tensor_type.as_mut().unwrap().elem_type = dt::STRING;
    cases.push(("text input", kind, code::ELEMENT_TYPE));
    for (name, m, code) in cases {
        let (found, message) = refused(&m);
        assert_eq!(found, code, "{name}: {message}");
    }
}

#[test]
fn control_characters_are_escaped() {
    let long = "a\u{1b}[31m\n\0\"".repeat(1000);
    let (_, message) = refused(&model(&[1], vec![], vec![node("Nope", &["x"], &long, vec![]), relu(&long, "y")]));
    assert!(message.len() < 2000 && !message.contains(['\u{1b}', '\0']), "{message:?}");
    assert_eq!(message.matches('\n').count(), 1, "{message:?}");
}

#[test]
fn odd_but_valid_graphs_are_imported() {
    // Nodes out of order, unused nodes, outputs without names, an output that is an input.
    let unnamed = Node { output: vec!["u".into(), String::new()], ..node("Dropout", &["x"], "u", vec![]) };
    let mut m = model(&[2], vec![], vec![relu("u", "y"), unnamed, relu("x", "unused")]);
    m.graph.as_mut().unwrap().output.push(value("x", dt::FLOAT, &[2]));
    let graph = import(&m).unwrap();
    assert_eq!((graph.len(), graph.outputs.len()), (2, 2));
    // An input that is also an initializer is a constant.
    let mut m = model(&[2], vec![init("k", &count(&[2]))], vec![node("Add", &["x", "k"], "y", vec![])]);
    m.graph.as_mut().unwrap().input.push(value("k", dt::FLOAT, &[2]));
    assert_eq!(import(&m).unwrap().inputs.len(), 1);
}

#[test]
fn an_output_that_is_not_supported_matters_only_where_it_is_read() {
    let pool = Node {
        output: vec!["p".into(), "i".into()],
        ..node("MaxPool", &["x"], "p", vec![ints("kernel_shape", &[2, 2])])
    };
    let m = |reader: Node| model(&[1, 1, 4, 4], vec![], vec![pool.clone(), reader]);
    assert!(import(&m(relu("p", "y"))).is_ok());
    assert_eq!(refused(&m(node("Cast", &["i"], "y", vec![int("to", 1)]))).0, code::FORM);
}

#[test]
fn every_unsupported_node_is_listed_once() {
    let nodes = vec![
        node("First", &["x"], "a", vec![]),
        relu("a", "b"),
        node("Second", &["b"], "c", vec![]),
        Node { domain: "com.microsoft".into(), ..node("Third", &["x"], "d", vec![]) },
        node("Add", &["c", "d"], "y", vec![]),
    ];
    let Err(e @ Error::Unsupported(_)) = import(&model(&[1], vec![], nodes)) else { panic!() };
    let found: Vec<_> = e.diagnostics().into_iter().map(|d| (d.code, d.op_type, d.index, d.opset)).collect();
    let want = [(code::OPERATOR, "First", 0, 13), (code::OPERATOR, "Second", 2, 13), (code::DOMAIN, "Third", 3, 0)];
    assert_eq!(found, want.map(|(c, op, i, v)| (c, op.to_string(), Some(i), v)));
}

#[test]
fn unknown_dimensions_say_which_option_helps() {
    let symbolic = |dims: &[&str]| {
        let mut m = model(&[], vec![], vec![relu("x", "y")]);
        let dim = dims.iter().map(|d| Dimension {
            value: match d.parse() {
                Ok(v) => Some(DimensionValue::Value(v)),
                Err(_) => Some(DimensionValue::Param(d.to_string())),
            },
        });
        let shape = Some(TensorShape { dim: dim.collect() });
        m.graph.as_mut().unwrap().input[0].r#type =
            Some(Type { tensor_type: Some(TensorTypeProto { elem_type: dt::FLOAT, shape }) });
        m
    };
    let with = |m: &Model, dims: &[(&str, usize)], shapes: &[(&str, &[usize])]| {
        let options = ImportOptions {
            input_dims: dims.iter().map(|(n, v)| (n.to_string(), *v)).collect(),
            input_shapes: shapes.iter().map(|(n, v)| (n.to_string(), v.to_vec())).collect::<BTreeMap<_, _>>(),
        };
        import_bytes(m.encode_to_vec(), None, &options)
            .map(|g| g.ty(g.inputs[0].value).shape.clone())
            .map_err(|e| (e.code(), e.to_string()))
    };
    let named = symbolic(&["batch", "3", "time"]);
    assert_eq!(with(&named, &[("batch", 1), ("time", 5)], &[]), Ok(vec![1, 3, 5]));
    assert_eq!(with(&named, &[], &[("x", &[2, 3, 4])]), Ok(vec![2, 3, 4]));
    let (code, message) = with(&named, &[("time", 5)], &[]).unwrap_err();
    assert!(code == code::DIMENSION && message.contains("--input-dim batch=1"), "{message}");
    let anonymous = symbolic(&["-1", "3", "?", "0"]);
    let (code, message) = with(&anonymous, &[], &[]).unwrap_err();
    assert!(code == code::DIMENSION && message.contains("--input-shape x=1,3,1,1"), "{message}");
    for (dims, shapes) in [
        (vec![("other", 1)], vec![]),
        (vec![("batch", 0)], vec![]),
        (vec![], vec![("z", &[1usize][..])]),
        (vec![], vec![("x", &[1, 4, 5][..])]),
        (vec![], vec![("x", &[1, 3][..])]),
        (vec![], vec![("x", &[0, 3, 5][..])]),
        (vec![("batch", 2)], vec![("x", &[1, 3, 5][..])]),
    ] {
        assert_eq!(with(&named, &dims, &shapes).unwrap_err().0, code::OPTION, "{dims:?} {shapes:?}");
    }
    let huge = with(&named, &[("batch", usize::MAX), ("time", usize::MAX)], &[]);
    assert_eq!(huge.unwrap_err().0, code::LIMIT);
    let mut shapeless = named.clone();
    shapeless.graph.as_mut().unwrap().input[0].r#type.as_mut().unwrap().tensor_type.as_mut().unwrap().shape = None;
    assert_eq!(with(&shapeless, &[], &[]).unwrap_err().0, code::DIMENSION);
    assert_eq!(with(&shapeless, &[], &[("x", &[7])]), Ok(vec![7]));
}
