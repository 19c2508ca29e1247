//! Tests on models built by hand from the protobuf structs, and what they are built with.

mod constants;
mod files;
mod functions;
mod hostile;
mod operators;
mod witness;

use crate::proto::{
    Attribute, Dimension, DimensionValue, Graph as GraphProto, Model, Node, OperatorSetId, TensorProto, TensorShape,
    TensorTypeProto, Type, ValueInfo, attribute_type as at, data_type as dt,
};
use crate::{Error, ImportOptions, import_bytes};
use mcc_ir::{DType, Graph, Tensor, eval};
use prost::Message;

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
    let s = Some(bytes::Bytes::copy_from_slice(s.as_bytes()));
    Attribute { name: name.into(), s, r#type: at::STRING, ..Attribute::default() }
}

pub fn tensor(name: &str, t: TensorProto) -> Attribute {
    Attribute { name: name.into(), t: Some(t), r#type: at::TENSOR, ..Attribute::default() }
}

/// An input or output; -1 as a dimension is one of unknown size.
pub fn value(name: &str, elem_type: i32, dims: &[i64]) -> ValueInfo {
    let dim = dims.iter().map(|&d| Dimension { value: Some(DimensionValue::Value(d)) }).collect();
    let tensor_type = Some(TensorTypeProto { elem_type, shape: Some(TensorShape { dim }) });
    ValueInfo { name: name.into(), r#type: Some(Type { tensor_type }) }
}

/// An initializer with the bytes of a tensor.
pub fn init(name: &str, t: &Tensor) -> TensorProto {
    let data_type = match t.dtype() {
        DType::F32 => dt::FLOAT,
        DType::I64 => dt::INT64,
        DType::I32 => dt::INT32,
        DType::I16 => dt::INT16,
        DType::I8 => dt::INT8,
        DType::U8 => dt::UINT8,
        DType::I4 => dt::INT4,
        DType::U4 => dt::UINT4,
        DType::Bool => dt::BOOL,
        d => panic!("no initializers of {d}"),
    };
    TensorProto {
        name: name.into(),
        dims: t.shape().iter().map(|&d| d as i64).collect(),
        data_type,
        raw_data: Some(t.bytes().clone()),
        ..TensorProto::default()
    }
}

/// A model of opset 13 with one float input `x` and one float output `y` of no declared type.
pub fn model(x: &[i64], initializer: Vec<TensorProto>, node: Vec<Node>) -> Model {
    let output = vec![ValueInfo { name: "y".into(), r#type: None }];
    let input = vec![value("x", dt::FLOAT, x)];
    Model {
        ir_version: Some(8),
        opset_import: vec![OperatorSetId { domain: String::new(), version: 13 }],
        graph: Some(GraphProto { node, initializer, input, output, name: "test".into(), ..GraphProto::default() }),
        functions: vec![],
    }
}

impl Model {
    pub fn opset(mut self, version: i64) -> Model {
        self.opset_import[0].version = version;
        self
    }
}

pub fn import(model: &Model) -> Result<Graph, Error> {
    import_bytes(model.encode_to_vec(), None, &ImportOptions::default())
}

/// The code and the text of the error that a model must give.
pub fn refused(model: &Model) -> (&'static str, String) {
    match import(model) {
        Ok(graph) => panic!("imported: {graph:?}"),
        Err(e) => (e.code(), e.to_string()),
    }
}

/// Imports and evaluates a model on one input.
pub fn run(model: &Model, x: Tensor) -> Tensor {
    let graph = import(model).unwrap_or_else(|e| panic!("{e}"));
    eval::run(&graph, &[x]).unwrap_or_else(|e| panic!("{e}")).remove(0)
}

/// 0, 1, 2, ... as floats.
pub fn count(shape: &[usize]) -> Tensor {
    let n = shape.iter().product::<usize>();
    Tensor::new(shape, &(0..n).map(|v| v as f32).collect::<Vec<_>>())
}

pub fn i64s(values: &[i64]) -> Tensor {
    Tensor::new([values.len()], values)
}
