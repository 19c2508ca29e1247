//! Every storage form of a constant.

use super::*;
use crate::code;
use bytes::Bytes;
use half::{bf16, f16};

fn proto(data_type: i32, dims: &[i64]) -> TensorProto {
    TensorProto { name: "c".into(), dims: dims.to_vec(), data_type, ..TensorProto::default() }
}

/// The constant as the importer decodes it.
fn decoded(t: TensorProto) -> Result<Tensor, Error> {
    let graph = import(&model(&[1], vec![], vec![node("Constant", &[], "y", vec![tensor("value", t)])]))?;
    Ok(graph.constant(graph.outputs[0].value).unwrap().clone())
}

#[test]
fn typed_fields_are_read_for_every_element_type() {
    let raw = |t: i32, bytes: &[u8], dims: &[i64]| TensorProto {
        raw_data: Some(Bytes::copy_from_slice(bytes)),
        ..proto(t, dims)
    };
    let int32 = |t: i32, v: &[i32]| TensorProto { int32_data: v.to_vec(), ..proto(t, &[v.len() as i64]) };
    let f16_bits = |v: f32| f16::from_f32(v).to_bits();
    let bf16_bits = |v: f32| bf16::from_f32(v).to_bits();
    let cases: Vec<(TensorProto, Tensor)> = vec![
        (TensorProto { float_data: vec![1.5, -2.0], ..proto(dt::FLOAT, &[2]) }, Tensor::new([2], &[1.5f32, -2.0])),
        (TensorProto { double_data: vec![0.1], ..proto(dt::DOUBLE, &[1]) }, Tensor::new([1], &[0.1f32])),
        (raw(dt::DOUBLE, &0.1f64.to_le_bytes(), &[]), Tensor::scalar(0.1)),
        (TensorProto { int64_data: vec![-7], ..proto(dt::INT64, &[]) }, Tensor::new([], &[-7i64])),
        (TensorProto { uint64_data: vec![7], ..proto(dt::UINT64, &[1]) }, i64s(&[7])),
        (TensorProto { uint64_data: vec![u32::MAX as u64], ..proto(dt::UINT32, &[1]) }, i64s(&[u32::MAX as i64])),
        (raw(dt::UINT32, &[255; 4], &[1]), i64s(&[u32::MAX as i64])),
        (int32(dt::INT32, &[-5]), Tensor::new([1], &[-5i32])),
        (int32(dt::INT8, &[-5, 127]), Tensor::new([2], &[-5i8, 127])),
        (int32(dt::UINT8, &[200]), Tensor::new([1], &[200u8])),
        (int32(dt::INT16, &[-300]), Tensor::new([1], &[-300i16])),
        (int32(dt::UINT16, &[65535]), i64s(&[65535])),
        (raw(dt::UINT16, &[255, 255], &[1]), i64s(&[65535])),
        (int32(dt::BOOL, &[0, 1]), Tensor::new([2], &[false, true])),
        (raw(dt::BOOL, &[0, 2], &[2]), Tensor::new([2], &[false, true])),
        (int32(dt::FLOAT16, &[f16_bits(-1.5) as i32]), Tensor::new([1], &[-1.5f32])),
        (raw(dt::FLOAT16, &f16_bits(0.5).to_le_bytes(), &[1]), Tensor::new([1], &[0.5f32])),
        (int32(dt::BFLOAT16, &[bf16_bits(3.0) as i32]), Tensor::new([1], &[3f32])),
        (raw(dt::BFLOAT16, &bf16_bits(3.0).to_le_bytes(), &[1]), Tensor::new([1], &[3f32])),
        (proto(dt::FLOAT, &[0]), Tensor::new::<f32>([0], &[])),
    ];
    for (proto, want) in cases {
        let shown = format!("{} {:?}", dt::name(proto.data_type), proto.dims);
        assert_eq!(decoded(proto).unwrap_or_else(|e| panic!("{shown}: {e}")), want, "{shown}");
    }
}

#[test]
fn packed_integers_keep_their_type() {
    let t = TensorProto { raw_data: Some(Bytes::from_static(&[0xf8, 0x07])), ..proto(dt::INT4, &[3]) };
    let t = decoded(t).unwrap();
    assert_eq!((t.dtype(), t.to_i64()), (DType::I4, vec![-8, -1, 7]));
    // As onnx.helper.make_tensor stores them: a byte of two in each number.
    let t = decoded(TensorProto { int32_data: vec![0x2f, 0x0c], ..proto(dt::UINT4, &[3]) }).unwrap();
    assert_eq!((t.dtype(), t.to_i64()), (DType::U4, vec![15, 2, 12]));
    for int32_data in [vec![1], vec![1; 3]] {
        let e = decoded(TensorProto { int32_data, ..proto(dt::INT4, &[3]) }).unwrap_err();
        assert!(e.to_string().contains("takes 2 bytes"), "{e}");
    }
}

#[test]
fn malformed_contents_are_refused() {
    let two = TensorProto { float_data: vec![1.0; 2], ..proto(dt::FLOAT, &[2]) };
    let cases = [
        (
            code::TENSOR,
            TensorProto { raw_data: Some(Bytes::from_static(&[0; 8])), ..two.clone() },
            "more than one field",
        ),
        (code::TENSOR, TensorProto { dims: vec![3], ..two.clone() }, "takes 3 elements"),
        (code::TENSOR, TensorProto { dims: vec![-2], ..two.clone() }, "negative"),
        (code::TENSOR, TensorProto { data_type: dt::INT64, ..two.clone() }, "not in the field of INT64"),
        (code::TENSOR, TensorProto { data_location: 7, ..two.clone() }, "data location"),
        (code::TENSOR, TensorProto { segment: Some(Default::default()), ..two.clone() }, "segments"),
        (code::TENSOR, proto(dt::FLOAT, &[2]), "there are 0"),
        (
            code::TENSOR,
            TensorProto { raw_data: Some(Bytes::from_static(&[0; 7])), ..proto(dt::FLOAT, &[2]) },
            "takes 8 bytes",
        ),
        (code::LIMIT, proto(dt::FLOAT, &[1 << 40, 1 << 40]), "more than"),
        (code::LIMIT, proto(dt::FLOAT, &[1; 40]), "40 dimensions"),
        (code::LIMIT, proto(dt::FLOAT, &[0, 1 << 40]), "more than"),
        (code::ELEMENT_TYPE, TensorProto { string_data: vec![Bytes::new()], ..proto(dt::STRING, &[1]) }, "STRING"),
        (
            code::ELEMENT_TYPE,
            TensorProto { raw_data: Some(Bytes::from_static(&[0])), ..proto(17, &[1]) },
            "FLOAT8E4M3FN",
        ),
        (code::ELEMENT_TYPE, TensorProto { uint64_data: vec![u64::MAX], ..proto(dt::UINT64, &[1]) }, "2^63"),
        (code::ELEMENT_TYPE, TensorProto { int32_data: vec![1], ..proto(999, &[1]) }, "type 999"),
    ];
    for (code, t, part) in cases {
        let e = decoded(t.clone()).expect_err(part);
        assert!(e.code() == code && e.to_string().contains(part), "{part}: {e} ({})", e.code());
        // The same as an initializer, which is checked even where nothing reads it.
        let (found, _) = refused(&model(&[1], vec![t], vec![node("Relu", &["x"], "y", vec![])]));
        assert_eq!(found, code, "{part}");
    }
}

#[test]
fn constant_nodes_have_six_forms() {
    let floats =
        Attribute { name: "value_floats".into(), floats: vec![1.0, 2.0], r#type: at::FLOATS, ..Default::default() };
    let cases = [
        (float("value_float", 2.5), Tensor::scalar(2.5)),
        (floats, Tensor::new([2], &[1f32, 2.0])),
        (int("value_int", 3), Tensor::new([], &[3i64])),
        (ints("value_ints", &[3, 4]), i64s(&[3, 4])),
        (ints("value_ints", &[]), i64s(&[])),
    ];
    for (attribute, want) in cases {
        let graph = import(&model(&[1], vec![], vec![node("Constant", &[], "y", vec![attribute])])).unwrap();
        assert_eq!(graph.constant(graph.outputs[0].value), Some(&want));
    }
    let sparse =
        Attribute { name: "sparse_value".into(), sparse_tensor: Some(Default::default()), ..Default::default() };
    for (attributes, code) in [
        (vec![], code::NODE),
        (vec![int("value_int", 1), float("value_float", 1.0)], code::NODE),
        (vec![text("value_string", "a")], code::OPERATOR_TYPE),
        (vec![sparse], code::SPARSE),
    ] {
        assert_eq!(refused(&model(&[1], vec![], vec![node("Constant", &[], "y", attributes)])).0, code);
    }
}

#[test]
fn a_splat_costs_nothing_and_has_a_limit() {
    let splat = |n: i64| {
        let nodes = vec![node("ConstantOfShape", &["s"], "c", vec![]), node("Add", &["x", "c"], "y", vec![])];
        model(&[1], vec![init("s", &i64s(&[n]))], nodes)
    };
    let graph = import(&splat(1 << 28)).unwrap();
    assert_eq!(graph.ty(graph.outputs[0].value).shape, [1 << 28]);
    assert_eq!(refused(&splat((1 << 28) + 1)).0, code::LIMIT);
    assert_eq!(refused(&splat(i64::MAX)).0, code::LIMIT);
}

#[test]
fn a_range_is_charged_to_a_budget() {
    let range = |limit: i64, step: i64| {
        let scalar = |name: &str, v: i64| init(name, &Tensor::new([], &[v]));
        let init = vec![scalar("a", 2), scalar("b", limit), scalar("c", step)];
        model(&[1], init, vec![node("Range", &["a", "b", "c"], "y", vec![])])
    };
    let graph = import(&range(9, 3)).unwrap();
    assert_eq!(graph.constant(graph.outputs[0].value), Some(&i64s(&[2, 5, 8])));
    assert_eq!(refused(&range(1 << 27, 1)).0, code::LIMIT);
    assert_eq!(refused(&range(i64::MIN, -1)).0, code::LIMIT);
    assert_eq!(refused(&range(5, 0)).0, code::NODE);
}
