//! Tests on models built by hand from the protobuf structs, and what they are built with.

mod constants;
mod export;
mod files;
mod functions;
mod hostile;
mod operators;
mod witness;

pub use crate::export::message::{float, init, int, ints, node, text, value};
use crate::proto::{
    Attribute, Graph as GraphProto, Model, Node, OperatorSetId, TensorProto, ValueInfo, attribute_type as at,
    data_type as dt,
};
use crate::{Error, ImportOptions, import_bytes};
use mcc_ir::{DType, Graph, Tensor, eval};
use prost::Message;

pub fn tensor(name: &str, t: TensorProto) -> Attribute {
    Attribute { name: name.into(), t: Some(t), r#type: at::TENSOR, ..Attribute::default() }
}

/// A model of opset 13 with one float input `x` and one float output `y` of no declared type.
pub fn model(x: &[i64], initializer: Vec<TensorProto>, node: Vec<Node>) -> Model {
    let output = vec![ValueInfo { name: "y".into(), r#type: None }];
    let input = vec![value("x", dt::FLOAT, x)];
    Model {
        ir_version: Some(8),
        opset_import: vec![OperatorSetId { domain: String::new(), version: 13 }],
        graph: Some(GraphProto { node, initializer, input, output, name: "test".into(), ..GraphProto::default() }),
        ..Model::default()
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
