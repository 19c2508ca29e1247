//! Protobuf messages from their parts.

use crate::proto::{
    Attribute, Dimension, DimensionValue, Node, TensorProto, TensorShape, TensorTypeProto, Type, ValueInfo,
    attribute_type as at, data_type as dt,
};
use bytes::Bytes;
use mcc_ir::{DType, Tensor};

/// A node with one output.
pub fn node(op_type: &str, inputs: &[&str], output: &str, attribute: Vec<Attribute>) -> Node {
    Node {
        op_type: op_type.into(),
        input: inputs.iter().map(|s| s.to_string()).collect(),
        output: vec![output.into()],
        attribute,
        ..Node::default()
    }
}

pub fn int(name: &str, i: i64) -> Attribute {
    Attribute { name: name.into(), i: Some(i), r#type: at::INT, ..Attribute::default() }
}

pub fn ints(name: &str, ints: &[i64]) -> Attribute {
    Attribute { name: name.into(), ints: ints.to_vec(), r#type: at::INTS, ..Attribute::default() }
}

pub fn float(name: &str, f: f32) -> Attribute {
    Attribute { name: name.into(), f: Some(f), r#type: at::FLOAT, ..Attribute::default() }
}

pub fn text(name: &str, s: &str) -> Attribute {
    let s = Some(Bytes::copy_from_slice(s.as_bytes()));
    Attribute { name: name.into(), s, r#type: at::STRING, ..Attribute::default() }
}

pub fn floats(name: &str, floats: &[f32]) -> Attribute {
    Attribute { name: name.into(), floats: floats.to_vec(), r#type: at::FLOATS, ..Attribute::default() }
}

pub fn texts(name: &str, texts: &[&str]) -> Attribute {
    let strings = texts.iter().map(|s| Bytes::copy_from_slice(s.as_bytes())).collect();
    Attribute { name: name.into(), strings, r#type: at::STRINGS, ..Attribute::default() }
}

/// An input or output; -1 as a dimension is one of unknown size.
pub fn value(name: &str, elem_type: i32, dims: &[i64]) -> ValueInfo {
    let dim = dims.iter().map(|&d| Dimension { value: Some(DimensionValue::Value(d)) }).collect();
    let tensor_type = Some(TensorTypeProto { elem_type, shape: Some(TensorShape { dim }) });
    ValueInfo { name: name.into(), r#type: Some(Type { tensor_type }) }
}

/// ONNX's number of an element type; `None` where a tensor of it is written as one of another type.
pub fn data_type(dtype: DType) -> Option<i32> {
    Some(match dtype {
        DType::F32 => dt::FLOAT,
        DType::F16 => dt::FLOAT16,
        DType::BF16 => dt::BFLOAT16,
        DType::I64 => dt::INT64,
        DType::I32 => dt::INT32,
        DType::I16 => dt::INT16,
        DType::I8 => dt::INT8,
        DType::U8 => dt::UINT8,
        DType::Bool => dt::BOOL,
        DType::I4 => dt::INT4,
        DType::U4 => dt::UINT4,
        DType::I2 | DType::U2 | DType::B1 | DType::T2 => return None,
    })
}

/// An initializer. Elements of fewer than four bits become bytes, as runtimes know no smaller ones.
pub fn init(name: &str, t: &Tensor) -> TensorProto {
    let widened;
    let (data_type, t) = match data_type(t.dtype()) {
        Some(known) => (known, t),
        None => {
            widened = widen(t);
            (data_type(widened.dtype()).unwrap_or(dt::INT8), &widened)
        }
    };
    TensorProto {
        name: name.into(),
        dims: t.shape().iter().map(|&d| d as i64).collect(),
        data_type,
        raw_data: Some(t.bytes().clone()),
        ..TensorProto::default()
    }
}

fn widen(t: &Tensor) -> Tensor {
    let dtype = if t.dtype() == DType::U2 { DType::U8 } else { DType::I8 };
    Tensor::from_i64(mcc_ir::TensorType::new(dtype, t.shape()), &t.to_i64())
}
