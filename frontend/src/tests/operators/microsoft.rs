//! The QLinear operators of ONNX Runtime's domain. The expected values are those of ONNX Runtime 1.31, unoptimised.

use super::*;

/// Checks an operator on the quantised input `x`; the other inputs are constant, in the order of `inputs`.
#[track_caller]
fn quantised(
    op: &str,
    shape: &[usize],
    attributes: Vec<Attribute>,
    inputs: &[&str],
    constants: &[Tensor],
    want: &[u8],
) {
    let inits = constants.iter().enumerate().map(|(i, t)| init(&format!("c{i}"), t)).collect();
    let call = Node { domain: "com.microsoft".into(), ..node(op, inputs, "y", attributes) };
    let mut m = model(&[], inits, vec![call]);
    m.opset_import.push(OperatorSetId { domain: "com.microsoft".into(), version: 1 });
    let dims: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
    m.graph.as_mut().unwrap().input[0] = value("x", dt::UINT8, &dims);
    assert_eq!(run(&m, Tensor::new(shape, &[0u8, 50, 130, 255])).to_vec::<u8>().unwrap(), want, "{op}");
}

/// Scale and zero point.
fn params(scale: f32, zero: u8) -> [Tensor; 2] {
    [Tensor::scalar(scale), Tensor::new([], &[zero])]
}

#[test]
fn quantised_operators_agree_with_onnx_runtime() {
    let one = ["x", "c0", "c1", "c2", "c3"];
    let unary = |x: [Tensor; 2], y: [Tensor; 2]| [x, y].concat();
    let two = ["x", "c0", "c1", "c2", "c3", "c4", "c5", "c6"];
    let binary = |a: [Tensor; 2], y: [Tensor; 2]| {
        let b = [Tensor::new([4], &[10u8, 20, 30, 40])];
        [&a[..], &b, &params(0.25, 5), &y].concat()
    };
    quantised("QLinearAdd", &[4], vec![], &two, &binary(params(0.5, 3), params(1.0, 7)), &[7, 34, 77, 142]);
    quantised("QLinearMul", &[4], vec![], &two, &binary(params(0.1, 3), params(1.0, 100)), &[100, 118, 179, 255]);
    let c = unary(params(0.05, 128), params(1.0 / 256.0, 0));
    quantised("QLinearSigmoid", &[4], vec![], &one, &c, &[0, 5, 134, 255]);
    let c = unary(params(0.5, 128), params(0.5, 20));
    quantised("QLinearLeakyRelu", &[4], vec![float("alpha", 0.25)], &one, &c, &[0, 0, 22, 147]);
    let c = unary(params(0.5, 10), params(0.25, 0));
    quantised("QLinearAveragePool", &[1, 1, 2, 2], vec![ints("kernel_shape", &[2, 2])], &one, &c, &[198]);
    let c = unary(params(0.5, 10), params(1.0, 20));
    quantised("QLinearGlobalAveragePool", &[1, 2, 1, 2], vec![], &one, &c, &[28, 111]);
    let c = unary(params(0.02, 10), params(1.0 / 256.0, 0));
    quantised("QLinearSoftmax", &[1, 4], vec![int("axis", -1), int("opset", 13)], &one, &c, &[1, 4, 19, 232]);
    let c = [&params(0.5, 2)[..], &params(1.0, 4), &[Tensor::new([2], &[9u8, 8])], &params(0.5, 3)].concat();
    let inputs = ["c0", "c1", "x", "c2", "c3", "c4", "c5", "c6"];
    quantised("QLinearConcat", &[4], vec![int("axis", 0)], &inputs, &c, &[0, 94, 254, 255, 8, 7]);
}

#[test]
fn a_result_without_zero_point_is_unsigned() {
    quantised(
        "QLinearSigmoid",
        &[4],
        vec![],
        &["x", "c0", "c1", "c2"],
        &{
            let [scale, zero] = params(0.05, 128);
            [scale, zero, Tensor::scalar(1.0 / 256.0)]
        },
        &[0, 5, 134, 255],
    );
}
