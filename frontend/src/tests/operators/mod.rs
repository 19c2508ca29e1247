//! One small model for each form of each operator. The expected values are those of ONNX Runtime 1.31, unoptimised.

mod data;
mod elementwise;
mod microsoft;
mod qonnx;
mod quantize;
mod recurrent;
mod windows;

use super::*;

/// Checks an operator on input `x`, its other inputs constant. Floats agree to 1e-6 of their magnitude.
#[track_caller]
fn case(op: &str, opset: i64, x: Tensor, attributes: Vec<Attribute>, constants: Vec<Option<Tensor>>, want: Tensor) {
    let names: Vec<String> = (0..constants.len()).map(|i| format!("c{i}")).collect();
    let mut inputs = vec!["x"];
    let mut inits = vec![];
    for (name, t) in names.iter().zip(&constants) {
        inputs.push(t.as_ref().map_or("", |_| name));
        inits.extend(t.as_ref().map(|t| init(name, t)));
    }
    let mut nodes = vec![node(op, &inputs, "y", attributes)];
    if op == "Split" {
        nodes[0].output.push("rest".into());
    }
    let mut m = model(&[], inits, nodes).opset(opset);
    let dims: Vec<i64> = x.shape().iter().map(|&d| d as i64).collect();
    m.graph.as_mut().unwrap().input[0] = value("x", init("x", &x).data_type, &dims);
    let got = run(&m, x);
    assert_eq!(got.ty(), want.ty(), "{op} {opset}");
    for (i, (g, w)) in got.to_f64().into_iter().zip(want.to_f64()).enumerate() {
        let exact = want.dtype() != DType::F32;
        let close = g == w || (!exact && (g - w).abs() <= 1e-6 * w.abs().max(1.0));
        assert!(close, "{op} {opset}: element {i} is {g} instead of {w}");
    }
}

fn floats(name: &str, floats: &[f32]) -> Attribute {
    Attribute { name: name.into(), floats: floats.to_vec(), r#type: at::FLOATS, ..Attribute::default() }
}

#[test]
fn bounds_computed_at_run_time_clip_too() {
    let nodes = vec![
        node("ReduceMax", &["x"], "hi", vec![int("keepdims", 0)]),
        node("Neg", &["x"], "n", vec![]),
        node("Clip", &["n", "lo", "hi"], "y", vec![]),
    ];
    let m = model(&[3], vec![init("lo", &Tensor::scalar(-1.0))], nodes);
    assert_eq!(run(&m, Tensor::new([3], &[2f32, -5.0, 0.5])), Tensor::new([3], &[-1f32, 2.0, -0.5]));
}

#[test]
fn shapes_are_folded_and_weights_are_not() {
    let nodes = vec![
        node("Shape", &["x"], "s", vec![]),
        node("Slice", &["s", "one", "two"], "h", vec![]),
        node("Mul", &["h", "two"], "h2", vec![]),
        node("ConstantOfShape", &["h2"], "zeros", vec![]),
        node("DequantizeLinear", &["q", "scale"], "w", vec![]),
        node("Add", &["zeros", "w"], "sum", vec![]),
        node("Add", &["x", "sum"], "y", vec![]),
    ];
    let inits = vec![
        init("one", &i64s(&[1])),
        init("two", &i64s(&[2])),
        init("q", &Tensor::new([4], &[1i8, 2, 3, 4])),
        init("scale", &Tensor::scalar(0.5)),
    ];
    let graph = import(&model(&[3, 2, 4], inits, nodes)).unwrap();
    let ops: Vec<&str> = graph.values().filter_map(|(id, _)| graph.node(id)).map(|(op, _)| op.name()).collect();
    assert_eq!(ops, ["dequantize", "add", "add"]);
}

#[test]
fn values_that_must_be_constant_are_named() {
    let nodes = vec![node("Cast", &["x"], "s", vec![int("to", 7)]), node("Reshape", &["x", "s"], "y", vec![])];
    let (code, message) = refused(&model(&[2], vec![], nodes));
    assert!(code == crate::code::NOT_CONSTANT && message.contains("the shape is computed"), "{message}");
}

#[test]
fn forms_that_are_refused() {
    use crate::code::{FORM, NODE, OPERATOR_TYPE};
    let scalar = |v: f32| Tensor::scalar(v);
    type Case = (&'static str, i64, Vec<Attribute>, Vec<Tensor>, &'static str);
    let cases: Vec<Case> = vec![
        ("Resize", 13, vec![text("mode", "cubic")], vec![count(&[0]), count(&[4])], FORM),
        (
            "Resize",
            13,
            vec![text("coordinate_transformation_mode", "tf_crop_and_resize")],
            vec![count(&[0]), count(&[4])],
            FORM,
        ),
        ("Resize", 13, vec![], vec![count(&[0])], NODE),
        ("Pad", 19, vec![text("mode", "wrap")], vec![i64s(&[0; 8])], FORM),
        ("Pad", 13, vec![text("mode", "edge")], vec![i64s(&[-1, 0, 0, 0, 0, 0, 0, 0])], FORM),
        ("Pad", 13, vec![], vec![i64s(&[0; 6])], NODE),
        (
            "BatchNormalization",
            14,
            vec![int("training_mode", 1)],
            vec![count(&[2]), count(&[2]), count(&[2]), count(&[2])],
            FORM,
        ),
        (
            "BatchNormalization",
            7,
            vec![int("spatial", 0)],
            vec![count(&[2]), count(&[2]), count(&[2]), count(&[2])],
            FORM,
        ),
        ("QuantizeLinear", 21, vec![int("block_size", 2)], vec![scalar(1.0)], FORM),
        ("QuantizeLinear", 21, vec![int("output_dtype", 17)], vec![scalar(1.0)], OPERATOR_TYPE),
        ("QuantizeLinear", 21, vec![int("output_dtype", 4)], vec![scalar(1.0)], OPERATOR_TYPE),
        ("QuantizeLinear", 13, vec![], vec![scalar(0.0)], NODE),
        ("QuantizeLinear", 13, vec![], vec![scalar(1.0), scalar(0.0)], OPERATOR_TYPE),
        ("QuantizeLinear", 13, vec![int("axis", 1)], vec![count(&[3])], NODE),
        ("DequantizeLinear", 13, vec![], vec![scalar(1.0)], OPERATOR_TYPE),
        ("Conv", 11, vec![], vec![count(&[1, 2, 2])], NODE),
        ("Conv", 11, vec![int("group", 0)], vec![count(&[2, 2, 1, 1])], NODE),
        ("Conv", 11, vec![ints("kernel_shape", &[3, 3])], vec![count(&[2, 2, 1, 1])], NODE),
        ("Conv", 11, vec![text("auto_pad", "SAME")], vec![count(&[2, 2, 1, 1])], NODE),
        (
            "ConvTranspose",
            11,
            vec![text("auto_pad", "SAME_UPPER"), ints("strides", &[3, 3])],
            vec![count(&[2, 1, 1, 1])],
            FORM,
        ),
        (
            "AveragePool",
            11,
            vec![text("auto_pad", "SAME_UPPER"), ints("kernel_shape", &[1, 1]), ints("strides", &[4, 4])],
            vec![],
            FORM,
        ),
        ("Cast", 13, vec![int("to", 8)], vec![], OPERATOR_TYPE),
        ("Cast", 13, vec![int("to", 4)], vec![], OPERATOR_TYPE),
        ("Cast", 13, vec![], vec![], NODE),
        ("Gather", 13, vec![], vec![i64s(&[1])], NODE),
        ("Gather", 13, vec![int("axis", 4)], vec![i64s(&[0])], NODE),
        ("Transpose", 13, vec![ints("perm", &[0, 1, 2])], vec![], NODE),
        ("Transpose", 13, vec![ints("perm", &[0, 1, 2, 2])], vec![], NODE),
        ("Reshape", 13, vec![], vec![i64s(&[-1, -1])], NODE),
        ("Reshape", 13, vec![], vec![i64s(&[7])], NODE),
        ("Reshape", 14, vec![int("allowzero", 1)], vec![i64s(&[0, -1])], NODE),
        ("Squeeze", 13, vec![], vec![i64s(&[1])], NODE),
        ("Unsqueeze", 13, vec![], vec![i64s(&[1, 1])], NODE),
        ("Split", 13, vec![int("axis", 1)], vec![i64s(&[1, 2])], NODE),
        ("Slice", 13, vec![], vec![i64s(&[0]), i64s(&[1]), i64s(&[1]), i64s(&[0])], NODE),
        ("Slice", 13, vec![], vec![i64s(&[3]), i64s(&[3])], FORM),
        ("Expand", 13, vec![], vec![i64s(&[5])], NODE),
        ("Tile", 13, vec![], vec![i64s(&[1, 1, 1, 1 << 30])], crate::code::LIMIT),
        ("Add", 13, vec![], vec![i64s(&[1])], NODE),
        ("Sqrt", 13, vec![float("x", 1.0)], vec![], NODE),
        ("DepthToSpace", 13, vec![int("blocksize", 2)], vec![], NODE),
        ("ReduceMax", 18, vec![], vec![i64s(&[9])], NODE),
        ("Gelu", 20, vec![text("approximate", "fast")], vec![], NODE),
        ("GlobalAveragePool", 13, vec![int("kernel", 1)], vec![], NODE),
    ];
    for (op, opset, attributes, constants, code) in cases {
        let names: Vec<String> = (0..constants.len()).map(|i| format!("c{i}")).collect();
        let inits = names.iter().zip(&constants).map(|(n, t)| init(n, t)).collect();
        let inputs: Vec<&str> = ["x"].into_iter().chain(names.iter().map(String::as_str)).collect();
        let shown = format!("{op} {opset} {:?}", attributes.iter().map(|a| &a.name).collect::<Vec<_>>());
        let m = model(&[1, 2, 4, 4], inits, vec![node(op, &inputs, "y", attributes)]).opset(opset);
        let (found, message) = refused(&m);
        assert_eq!(found, code, "{shown}: {message}");
    }
}
