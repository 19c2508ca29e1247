//! Quantisation to 4 and 16 bits, and with a scale for each block. The expected values are those of ONNX Runtime 1.31,
//! unoptimised.

use super::*;
use mcc_ir::TensorType;

fn fours(dtype: DType, shape: &[usize], values: &[i64]) -> Tensor {
    Tensor::from_i64(TensorType::new(dtype, shape), values)
}

/// What a dequantised constant of 3 x 3 adds to zeros, and the operators that the graph then has.
fn dequantised(
    domain: &str,
    inits: &[Tensor],
    attributes: Vec<Attribute>,
) -> Result<(Tensor, Vec<String>), crate::Error> {
    let names = ["q", "scale", "zero"];
    let inits: Vec<_> = names.iter().zip(inits).map(|(name, t)| init(name, t)).collect();
    let call = node("DequantizeLinear", &names[..inits.len()], "w", attributes);
    let nodes = vec![Node { domain: domain.into(), ..call }, node("Add", &["x", "w"], "y", vec![])];
    let mut m = model(&[3, 3], inits, nodes).opset(21);
    m.opset_import.push(OperatorSetId { domain: "com.microsoft".into(), version: 1 });
    let graph = import(&m)?;
    let ops = graph.values().filter_map(|(id, _)| graph.node(id)).map(|(op, _)| op.name().to_string()).collect();
    Ok((eval::run(&graph, &[Tensor::new([3, 3], &[0f32; 9])]).unwrap().remove(0), ops))
}

const I4: [i64; 9] = [-8, 7, -1, 0, 3, -4, 5, -6, 2];
const U4: [i64; 9] = [0, 15, 1, 8, 9, 7, 3, 2, 14];

#[test]
fn four_bits_are_dequantised_along_an_axis() {
    let scale = Tensor::new([3], &[0.5f32, 2.0, 0.25]);
    let signed = [fours(DType::I4, &[3, 3], &I4), scale.clone()];
    let unsigned = [fours(DType::U4, &[3, 3], &U4), scale, fours(DType::U4, &[3], &[8, 0, 15])];
    for domain in ["", "com.microsoft"] {
        let (y, ops) = dequantised(domain, &signed, vec![int("axis", 0)]).unwrap();
        assert_eq!(y.to_f64(), [-4.0, 3.5, -0.5, 0.0, 6.0, -8.0, 1.25, -1.5, 0.5]);
        assert_eq!(ops, ["dequantize", "add"]);
        let (y, _) = dequantised(domain, &unsigned, vec![int("axis", 1)]).unwrap();
        assert_eq!(y.to_f64(), [-4.0, 30.0, -3.5, 0.0, 18.0, -2.0, -2.5, 4.0, -0.25]);
    }
}

#[test]
fn constants_with_scales_of_blocks_become_real() {
    let scale = Tensor::new([3, 2], &[0.5f32, 2.0, 0.25, 1.0, 3.0, 0.125]);
    let signed = [fours(DType::I4, &[3, 3], &I4), scale, fours(DType::I4, &[3, 2], &[1, -2, 0, 3, 7, -8])];
    let (y, ops) = dequantised("", &signed, vec![int("axis", 1), int("block_size", 2)]).unwrap();
    assert_eq!(y.to_f64(), [-4.5, 3.0, 2.0, 0.0, 0.75, -7.0, -6.0, -39.0, 1.25]);
    assert_eq!(ops, ["add"]);
    let scale = Tensor::new([2, 3], &[0.5f32, 2.0, 0.25, 1.0, 3.0, 0.125]);
    let unsigned = [fours(DType::U4, &[3, 3], &U4), scale];
    let (y, _) = dequantised("", &unsigned, vec![int("axis", 0), int("block_size", 2)]).unwrap();
    assert_eq!(y.to_f64(), [0.0, 30.0, 0.25, 4.0, 18.0, 1.75, 3.0, 6.0, 1.75]);
    for (block, axis) in [(1, 0), (2, 1), (-2, 0), (i64::MAX, 0)] {
        let e = dequantised("", &unsigned, vec![int("axis", axis), int("block_size", block)]).unwrap_err();
        assert!(e.to_string().contains("block"), "{e}");
    }
}

#[test]
fn computed_values_have_no_scales_of_blocks() {
    let scale = init("scale", &Tensor::new([2], &[0.5f32, 2.0]));
    let blocks = || vec![int("axis", 0), int("block_size", 2)];
    let quantise = node("QuantizeLinear", &["x", "one"], "q", vec![]);
    let dequantise = node("DequantizeLinear", &["q", "scale"], "y", blocks());
    let (code, _) =
        refused(&model(&[3], vec![scale, init("one", &Tensor::scalar(1.0))], vec![quantise, dequantise]).opset(21));
    assert_eq!(code, crate::code::NOT_CONSTANT);
}

#[test]
fn activations_have_sixteen_bits() {
    let x = Tensor::new([8], &[-100.0f32, -1.25, -0.75, 0.0, 0.25, 0.75, 99.7, 1e9]);
    for (domain, scale, want) in [
        ("", 0.5f32, [-207, -9, -9, -7, -7, -5, 192, 32767]),
        ("com.microsoft", 0.005, [-20007, -257, -157, -7, 43, 143, 19933, 32767]),
    ] {
        let inits = vec![init("scale", &Tensor::scalar(scale)), init("zero", &Tensor::new([], &[-7i16]))];
        let call = node("QuantizeLinear", &["x", "scale", "zero"], "y", vec![]);
        let mut m = model(&[8], inits, vec![Node { domain: domain.into(), ..call }]).opset(21);
        m.opset_import.push(OperatorSetId { domain: "com.microsoft".into(), version: 1 });
        assert_eq!(run(&m, x.clone()).to_vec::<i16>().unwrap(), want);
    }
}

#[test]
fn unsigned_sixteen_bits_are_refused_with_a_next_step() {
    let zero = TensorProto {
        data_type: dt::UINT16,
        raw_data: Some(vec![0, 128].into()),
        ..init("zero", &Tensor::new([], &[0i16]))
    };
    let call = node("QuantizeLinear", &["x", "scale", "zero"], "y", vec![]);
    let (code, message) = refused(&model(&[8], vec![init("scale", &Tensor::scalar(0.5)), zero], vec![call]).opset(21));
    assert!(
        code == crate::code::OPERATOR_TYPE && message.contains("UINT16") && message.contains("QInt16"),
        "{message}"
    );
}
