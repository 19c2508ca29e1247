//! Export. The file tests of the root package run every operator through it; here is what they do not see.

use super::*;
use crate::{code, export};
use mcc_ir::op::{Op, Rounding, Step, Unary};
use mcc_ir::types::{F32, QuantParams};
use mcc_ir::{TensorType, graph::origin};
use prost::Message;

fn reread(graph: &Graph) -> (GraphProto, Graph) {
    let bytes = export(graph).unwrap_or_else(|e| panic!("{e}"));
    let proto = Model::decode(bytes.as_slice()).unwrap().graph.unwrap();
    (proto, import_bytes(bytes, None, &ImportOptions::default()).unwrap_or_else(|e| panic!("{e}")))
}

#[test]
fn names_stay_and_are_made_unique() {
    let mut g = Graph::new("names");
    let x = g.add_input("x", TensorType::new(DType::F32, [2]));
    let a = g.add_node(Op::unary(Unary::Relu), vec![x], origin("twice")).unwrap();
    let b = g.add_node(Op::unary(Unary::Neg), vec![a], origin("twice")).unwrap();
    let c = g.add_const(Tensor::new([2], &[1f32, 2.0]), origin("x"));
    g.add_output("y", b);
    g.add_output("again", b);
    g.add_output("same", x);
    g.add_output("weights", c);
    let (proto, graph) = reread(&g);
    let names = |f: fn(&Node) -> &String| proto.node.iter().map(f).map(String::as_str).collect::<Vec<_>>();
    assert_eq!(names(|n| &n.op_type), ["Relu", "Neg", "Identity", "Identity", "Identity"]);
    assert_eq!(names(|n| &n.name), ["twice", "twice_2", "again", "same", "weights"]);
    assert_eq!(names(|n| &n.output[0]), ["twice_output", "y", "again", "same", "weights"]);
    assert_eq!(proto.initializer[0].name, "x_2");
    let outputs = eval::run(&graph, &[Tensor::new([2], &[-3f32, 4.0])]).unwrap();
    let values: Vec<Vec<f32>> = outputs.iter().map(Tensor::to_f32).collect();
    assert_eq!(values, [vec![0.0, -4.0], vec![0.0, -4.0], vec![-3.0, 4.0], vec![1.0, 2.0]]);
}

/// A quantised weight of each width, and what the file holds.
#[test]
fn weights_of_few_bits_are_written_as_runtimes_know_them() {
    for (dtype, number, values) in [
        (DType::I8, dt::INT8, [-128, 127, 3]),
        (DType::I4, dt::INT4, [-8, 7, 3]),
        (DType::U4, dt::UINT4, [0, 15, 3]),
        (DType::T2, dt::INT8, [-1, 1, 0]),
        (DType::I2, dt::INT8, [-2, 1, 0]),
        (DType::B1, dt::INT8, [-1, 1, -1]),
        (DType::U2, dt::UINT8, [0, 3, 2]),
    ] {
        let t = Tensor::from_i64(TensorType::new(dtype, [3]), &values);
        let proto = init("w", &t);
        assert_eq!(proto.data_type, number, "{dtype}");
        let decoded = crate::tensor::decode(&proto, &mut crate::external::Files::new(None)).unwrap();
        assert_eq!(decoded.to_i64(), values, "{dtype}");
    }
}

#[test]
fn a_narrower_range_becomes_a_clip_of_the_real_numbers() {
    let q = QuantParams { scale: F32(0.1), zero_point: -3 };
    let mut g = Graph::new("clip");
    let values: Vec<f32> = (-400..400).map(|v| v as f32 * 0.05).collect();
    let x = g.add_input("x", TensorType::new(DType::F32, [values.len()]));
    let step = Step::Quant { q, lo: -3, hi: 60, dtype: DType::I8 };
    let y = g.add_node(Op::Map(vec![step]), vec![x], origin("relu6")).unwrap();
    g.add_output("y", y);
    let (proto, graph) = reread(&g);
    assert_eq!(proto.node.iter().map(|n| n.op_type.as_str()).collect::<Vec<_>>(), ["Clip", "QuantizeLinear"]);
    let input = [Tensor::new([values.len()], &values)];
    assert_eq!(eval::run(&graph, &input).unwrap(), eval::run(&g, &input).unwrap());
}

#[test]
fn sums_that_are_requantised_are_refused() {
    let mut g = Graph::new("sums");
    let x = g.add_input("x", TensorType::new(DType::I32, [2]));
    let scale = g.add_const(Tensor::scalar(0.5), origin("scale"));
    let step = Step::Requant { rounding: Rounding::F32HalfEven, zero: 0, lo: -128, hi: 127, dtype: DType::I8 };
    let y = g.add_node(Op::Map(vec![step]), vec![x, scale], origin("conv \n1")).unwrap();
    g.add_output("y", y);
    let e = export(&g).unwrap_err();
    assert_eq!(e.code(), code::EXPORT);
    assert!(e.to_string().contains("node \"conv \\n1\": it requantises"), "{e}");
}
