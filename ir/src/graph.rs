//! The graph: typed values in static single assignment, each defined by an input, a constant or one operator.

use crate::error::{Error, Result};
use crate::op::Op;
use crate::ops;
use crate::tensor::Tensor;
use crate::types::{QuantParams, TensorType};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// A value of a graph. Prints as `v7`, as in the text form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);

impl ValueId {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for ValueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

/// The names that a value has in the user's model: the ONNX nodes it was made from, or the tensor's own name.
pub type Origin = Arc<[Arc<str>]>;

/// An origin of one name.
pub fn origin(name: &str) -> Origin {
    [Arc::from(name)].into()
}

/// How a value is defined.
#[derive(Clone, Debug, PartialEq)]
pub enum Def {
    /// The graph's input with this index in [`Graph::inputs`].
    Input(usize),
    Const(Tensor),
    Node {
        op: Op,
        inputs: Vec<ValueId>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    pub def: Def,
    pub ty: TensorType,
    pub origin: Origin,
}

/// An input or output of the graph under the name that the model gives it.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    pub name: String,
    pub value: ValueId,
    /// What the integers of a quantised tensor stand for, where known.
    pub quant: Option<QuantParams>,
}

/// A graph in topological order: a value's inputs have smaller ids than the value.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub name: String,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    values: Vec<Value>,
    consts: HashMap<Tensor, ValueId>,
}

impl Graph {
    pub fn new(name: impl Into<String>) -> Graph {
        Graph { name: name.into(), ..Graph::default() }
    }

    /// A graph from its parts, unchecked: only [`crate::verify::verify`] says whether they make one. For readers of
    /// files and for tests of the verifier; everything else builds graphs value by value.
    pub fn from_parts(name: impl Into<String>, inputs: Vec<Port>, outputs: Vec<Port>, values: Vec<Value>) -> Graph {
        let mut consts = HashMap::new();
        for (i, value) in values.iter().enumerate() {
            if let Def::Const(tensor) = &value.def {
                consts.entry(tensor.clone()).or_insert(ValueId(i as u32));
            }
        }
        Graph { name: name.into(), inputs, outputs, values, consts }
    }

    /// Adds an input of the graph.
    pub fn add_input(&mut self, name: impl Into<String>, ty: TensorType) -> ValueId {
        let name = name.into();
        let value = self.push(Value { def: Def::Input(self.inputs.len()), ty, origin: origin(&name) });
        self.inputs.push(Port { name, value, quant: None });
        value
    }

    /// Adds a constant, or finds the one with the same content.
    pub fn add_const(&mut self, tensor: Tensor, origin: Origin) -> ValueId {
        if let Some(&id) = self.consts.get(&tensor) {
            return id;
        }
        let id = self.push(Value { ty: tensor.ty().clone(), def: Def::Const(tensor.clone()), origin });
        self.consts.insert(tensor, id);
        id
    }

    /// Adds an operator and infers its type.
    ///
    /// # Errors
    /// Where the operator does not accept the inputs.
    pub fn add_node(&mut self, op: Op, inputs: Vec<ValueId>, origin: Origin) -> Result<ValueId> {
        if let Some(v) = inputs.iter().find(|v| v.index() >= self.values.len()) {
            return Err(Error::ty(op.name(), format!("input {v} is not defined before its use")));
        }
        let types: Vec<&TensorType> = inputs.iter().map(|v| self.ty(*v)).collect();
        let ty = ops::infer(&op, &types)?;
        Ok(self.push(Value { def: Def::Node { op, inputs }, ty, origin }))
    }

    pub fn add_output(&mut self, name: impl Into<String>, value: ValueId) {
        self.outputs.push(Port { name: name.into(), value, quant: None });
    }

    fn push(&mut self, value: Value) -> ValueId {
        self.values.push(value);
        ValueId(self.values.len() as u32 - 1)
    }

    /// Every value with its id, in topological order.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = (ValueId, &Value)> {
        self.values.iter().enumerate().map(|(i, v)| (ValueId(i as u32), v))
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    pub fn get(&self, id: ValueId) -> Option<&Value> {
        self.values.get(id.index())
    }

    pub fn ty(&self, id: ValueId) -> &TensorType {
        &self.value(id).ty
    }

    /// The operator and inputs that define a value, if an operator does.
    pub fn node(&self, id: ValueId) -> Option<(&Op, &[ValueId])> {
        match &self.value(id).def {
            Def::Node { op, inputs } => Some((op, inputs)),
            _ => None,
        }
    }

    pub fn constant(&self, id: ValueId) -> Option<&Tensor> {
        match &self.value(id).def {
            Def::Const(t) => Some(t),
            _ => None,
        }
    }

    /// For each value, how often it is read by operators and outputs.
    pub fn use_counts(&self) -> Vec<usize> {
        let mut uses = vec![0; self.values.len()];
        for value in &self.values {
            if let Def::Node { inputs, .. } = &value.def {
                inputs.iter().for_each(|v| uses[v.index()] += 1);
            }
        }
        self.outputs.iter().for_each(|p| uses[p.value.index()] += 1);
        uses
    }

    /// For each value, whether an output depends on it. Inputs of the graph always count as live.
    pub fn live(&self) -> Vec<bool> {
        let mut live = vec![false; self.values.len()];
        self.outputs.iter().chain(&self.inputs).for_each(|p| live[p.value.index()] = true);
        for (id, value) in self.values().rev() {
            if let (true, Def::Node { inputs, .. }) = (live[id.index()], &value.def) {
                inputs.iter().for_each(|v| live[v.index()] = true);
            }
        }
        live
    }

    /// Builds a new graph by visiting every live value in order: `rewrite` receives the new graph, the old id and value
    /// and the new ids of its inputs, and returns the new id that stands for it. Inputs and outputs are carried over.
    ///
    /// # Errors
    /// The first error of `rewrite`.
    pub fn rebuild(
        &self,
        mut rewrite: impl FnMut(&mut Graph, ValueId, &Value, &[ValueId]) -> Result<ValueId>,
    ) -> Result<Graph> {
        let live = self.live();
        let mut out = Graph::new(self.name.clone());
        let mut map: Vec<Option<ValueId>> = vec![None; self.values.len()];
        let at = |map: &[Option<ValueId>], v: ValueId| map[v.index()].expect("inputs come before their users");
        for port in &self.inputs {
            let new = out.add_input(port.name.clone(), self.ty(port.value).clone());
            out.inputs.last_mut().expect("just added").quant = port.quant;
            map[port.value.index()] = Some(new);
        }
        for (id, value) in self.values() {
            if !live[id.index()] {
                continue;
            }
            let new = match &value.def {
                Def::Input(_) => continue,
                Def::Const(_) => rewrite(&mut out, id, value, &[])?,
                Def::Node { inputs, .. } => {
                    let inputs: Vec<ValueId> = inputs.iter().map(|v| at(&map, *v)).collect();
                    rewrite(&mut out, id, value, &inputs)?
                }
            };
            map[id.index()] = Some(new);
        }
        for port in &self.outputs {
            out.outputs.push(Port { value: at(&map, port.value), ..port.clone() });
        }
        Ok(out)
    }

    /// Copies a value of another graph under new inputs: what [`Graph::rebuild`] does where nothing changes.
    ///
    /// # Errors
    /// Where the operator does not accept the inputs.
    pub fn copy_value(&mut self, value: &Value, inputs: &[ValueId]) -> Result<ValueId> {
        match &value.def {
            Def::Const(t) => Ok(self.add_const(t.clone(), value.origin.clone())),
            Def::Node { op, .. } => self.add_node(op.clone(), inputs.to_vec(), value.origin.clone()),
            Def::Input(i) => Ok(self.inputs[*i].value),
        }
    }
}

/// The origins of several values as one, in order and without repetition.
pub fn join_origins<'a>(origins: impl IntoIterator<Item = &'a Origin>) -> Origin {
    let mut names: Vec<Arc<str>> = Vec::new();
    for origin in origins {
        for name in origin.iter() {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
    }
    names.into()
}
