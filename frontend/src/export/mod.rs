//! ONNX export: a graph becomes a model of the standard operators, which other tools run.
//!
//! What holds after export: importing the file gives a graph of the same meaning, bit for bit. Values keep the names of
//! inputs and outputs, nodes those of their origins. An epilogue becomes a node a step.

pub(crate) mod message;
mod ops;
mod recurrent;
mod steps;

use crate::error::{Diagnostic, Error, Fault, Result, code, quote};
use crate::proto::{Attribute, Graph as GraphProto, Model, Node, OperatorSetId, TensorProto, ValueInfo};
use mcc_ir::graph::{Def, Graph, ValueId};
use mcc_ir::{DType, Tensor, TensorType};
use prost::Message;
use std::collections::HashSet;

/// The opset that is written, and the version of the file format that came with it. ONNX Runtime reads more of the older
/// one: in opset 21 its passes on quantised models add nodes without a zero point, which it then refuses.
const PLAIN: (i64, i64) = (20, 9);
/// The same for graphs with quantised integers of 4 or 16 bits.
const NARROW_OR_WIDE: (i64, i64) = (21, 10);

/// The bytes of an ONNX model with the meaning of `graph`.
///
/// Quantisation is written as QuantizeLinear and DequantizeLinear. Weights of four bits are INT4 and UINT4, those of fewer
/// bits INT8 with few levels.
///
/// # Errors
/// E0306 for what ONNX cannot express: requantisation of sums, which the integer pass makes, and products of integers of 16
/// bits or with a bias.
pub fn export(graph: &Graph) -> std::result::Result<Vec<u8>, Error> {
    let mut e = Exporter {
        graph,
        names: vec![None; graph.len()],
        values: graph.inputs.iter().chain(&graph.outputs).map(|p| p.name.clone()).collect(),
        nodes: vec![],
        node_names: HashSet::new(),
        initializers: vec![],
        base: String::new(),
    };
    for port in &graph.inputs {
        e.names[port.value.index()] = Some(port.name.clone());
    }
    let live = graph.live();
    for (id, value) in graph.values().filter(|(id, _)| live[id.index()]) {
        let Def::Node { op, inputs } = &value.def else { continue };
        e.base = value.origin.first().map_or_else(|| id.to_string(), |name| name.to_string());
        let before = e.nodes.len();
        let result = e.operator(op, inputs, &value.ty).map_err(|f| located(f, &e.base))?;
        // The last node's output has the name that an output of the graph wants.
        let wanted = graph.outputs.iter().find(|p| p.value == id).map(|p| p.name.clone());
        let name = match (wanted, e.nodes[before..].last_mut()) {
            (Some(name), Some(last)) => {
                last.output = vec![name.clone()];
                name
            }
            _ => result,
        };
        e.names[id.index()] = Some(name);
    }
    for port in &graph.outputs {
        let name = e.name(port.value);
        if name != port.name {
            e.base.clone_from(&port.name);
            e.emit("Identity", &[name], vec![]);
            e.nodes.last_mut().expect("just added").output = vec![port.name.clone()];
        }
    }
    let port = |p: &mcc_ir::graph::Port| described(&p.name, graph.ty(p.value));
    let message = GraphProto {
        name: graph.name.clone(),
        input: graph.inputs.iter().map(port).collect::<Result<_>>()?,
        output: graph.outputs.iter().map(port).collect::<Result<_>>()?,
        node: e.nodes,
        initializer: e.initializers,
        ..GraphProto::default()
    };
    let newer = |d: DType| matches!(d, DType::I4 | DType::U4 | DType::I16);
    let (opset, ir_version) = if graph.values().any(|(_, v)| newer(v.ty.dtype)) { NARROW_OR_WIDE } else { PLAIN };
    let model = Model {
        ir_version: Some(ir_version),
        producer_name: "mcc".into(),
        opset_import: vec![OperatorSetId { domain: String::new(), version: opset }],
        graph: Some(message),
        ..Model::default()
    };
    Ok(model.encode_to_vec())
}

fn located(f: Fault, node: &str) -> Diagnostic {
    Diagnostic::file(f.code, format!("node {}: {}", quote(node), f.reason), f.help)
}

/// An input or output of the model.
fn described(name: &str, ty: &TensorType) -> Result<ValueInfo> {
    let data_type = message::data_type(ty.dtype)
        .ok_or_else(|| Fault::new(code::EXPORT, format!("{} is {ty}", quote(name)), "ONNX has no such element type"))?;
    Ok(message::value(name, data_type, &ty.shape.iter().map(|&d| d as i64).collect::<Vec<_>>()))
}

/// What has been written so far.
struct Exporter<'a> {
    graph: &'a Graph,
    /// The name of each value that has one.
    names: Vec<Option<String>>,
    /// Names of values that are taken.
    values: HashSet<String>,
    nodes: Vec<Node>,
    node_names: HashSet<String>,
    initializers: Vec<TensorProto>,
    /// What new nodes and values are named after.
    base: String,
}

/// `base`, or `base` and the first number that makes it a new name.
fn fresh(taken: &mut HashSet<String>, base: &str) -> String {
    let mut name = base.to_string();
    let mut number = 1;
    while !taken.insert(name.clone()) {
        number += 1;
        name = format!("{base}_{number}");
    }
    name
}

impl Exporter<'_> {
    /// The name of a value, whose definition is written. Constants are written when they are first asked for.
    fn name(&mut self, v: ValueId) -> String {
        if let Some(name) = &self.names[v.index()] {
            return name.clone();
        }
        let value = self.graph.value(v);
        let tensor = self.graph.constant(v).expect("values are defined before their use");
        let base = value.origin.first().map_or_else(|| "constant".into(), |o| o.to_string());
        let name = self.initializer(&base, tensor);
        self.names[v.index()] = Some(name.clone());
        name
    }

    fn initializer(&mut self, base: &str, tensor: &Tensor) -> String {
        let name = fresh(&mut self.values, base);
        self.initializers.push(message::init(&name, tensor));
        name
    }

    /// A constant that the current node needs, named after it.
    fn constant(&mut self, what: &str, tensor: &Tensor) -> String {
        let base = format!("{}_{what}", self.base);
        self.initializer(&base, tensor)
    }

    /// A list of integers, as shapes and axes are given.
    fn list(&mut self, what: &str, values: impl IntoIterator<Item = i64>) -> String {
        let values: Vec<i64> = values.into_iter().collect();
        self.constant(what, &Tensor::new([values.len()], &values))
    }

    /// Writes a node and gives its output's name. An empty input is one left out.
    fn emit(&mut self, op_type: &str, inputs: &[String], attributes: Vec<Attribute>) -> String {
        let output = fresh(&mut self.values, &format!("{}_output", self.base));
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let node = message::node(op_type, &inputs, &output, attributes);
        let name = fresh(&mut self.node_names, &self.base);
        self.nodes.push(Node { name, ..node });
        output
    }

    /// Another output of the node written last, by its index; those between are left out.
    fn further_output(&mut self, index: usize) -> String {
        let output = fresh(&mut self.values, &format!("{}_output", self.base));
        if let Some(node) = self.nodes.last_mut() {
            node.output.resize(index, String::new());
            node.output.push(output.clone());
        }
        output
    }
}
