//! One ONNX node as its importer sees it: resolved inputs and checked attributes.

use crate::error::{Fault, Result, clip, quote};
use crate::proto::{self, Attribute, TensorProto, attribute_type as at};
use mcc_ir::ValueId;
use mcc_ir::graph::Origin;

pub(crate) struct Node<'m> {
    pub proto: &'m proto::Node,
    /// The version of the node's domain that the model, or the enclosing function, imports.
    pub opset: i64,
    /// `None` for optional inputs left out.
    pub inputs: Vec<Option<ValueId>>,
    pub origin: Origin,
    /// Attributes by name, references to a function's attributes already replaced.
    pub attributes: Vec<(&'m str, &'m Attribute)>,
}

impl<'m> Node<'m> {
    /// An input that must be there.
    pub fn input(&self, i: usize) -> Result<ValueId> {
        self.optional(i).ok_or_else(|| Fault::node(format!("input {i} is missing")))
    }

    pub fn optional(&self, i: usize) -> Option<ValueId> {
        self.inputs.get(i).copied().flatten()
    }

    /// All inputs of an operator that takes any number, at least one.
    pub fn all(&self) -> Result<Vec<ValueId>> {
        match self.inputs.is_empty() {
            true => Err(Fault::node("it has no inputs")),
            false => (0..self.inputs.len()).map(|i| self.input(i)).collect(),
        }
    }

    fn attribute(&self, name: &str) -> Option<&'m Attribute> {
        self.attributes.iter().find(|(n, _)| *n == name).map(|(_, a)| *a)
    }

    /// An attribute read by `get`, which must be of the ONNX type `kind`. Old files do not state the type: then 0.
    fn typed<T>(
        &self,
        name: &str,
        kind: i32,
        what: &str,
        get: impl Fn(&'m Attribute) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(a) = self.attribute(name) else { return Ok(None) };
        let value = if a.r#type == 0 || a.r#type == kind { get(a) } else { None };
        match value {
            Some(v) => Ok(Some(v)),
            None => Err(Fault::node(format!("attribute {} is not {what}", quote(name)))),
        }
    }

    pub fn int(&self, name: &str) -> Result<Option<i64>> {
        // Writers leave out a field that holds 0 if they follow protobuf 3.
        self.typed(name, at::INT, "an integer", |a| a.i.or((a.r#type == at::INT).then_some(0)))
    }

    pub fn int_or(&self, name: &str, default: i64) -> Result<i64> {
        Ok(self.int(name)?.unwrap_or(default))
    }

    /// An integer attribute that says yes (1) or no (0).
    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match self.int_or(name, default as i64)? {
            0 => Ok(false),
            1 => Ok(true),
            n => Err(Fault::node(format!("attribute {} is {n}, which is neither 0 nor 1", quote(name)))),
        }
    }

    pub fn float(&self, name: &str) -> Result<Option<f32>> {
        self.typed(name, at::FLOAT, "a float", |a| a.f.or((a.r#type == at::FLOAT).then_some(0.0)))
    }

    pub fn float_or(&self, name: &str, default: f32) -> Result<f32> {
        Ok(self.float(name)?.unwrap_or(default))
    }

    pub fn ints(&self, name: &str) -> Result<Option<&'m [i64]>> {
        self.typed(name, at::INTS, "a list of integers", |a| {
            (a.r#type == at::INTS || !a.ints.is_empty()).then_some(a.ints.as_slice())
        })
    }

    pub fn floats(&self, name: &str) -> Result<Option<&'m [f32]>> {
        self.typed(name, at::FLOATS, "a list of floats", |a| {
            (a.r#type == at::FLOATS || !a.floats.is_empty()).then_some(a.floats.as_slice())
        })
    }

    pub fn text_or(&self, name: &str, default: &'m str) -> Result<&'m str> {
        let text = self.typed(name, at::STRING, "a text", |a| match &a.s {
            Some(s) => std::str::from_utf8(s).ok(),
            None => (a.r#type == at::STRING).then_some(""),
        })?;
        Ok(text.unwrap_or(default))
    }

    pub fn texts(&self, name: &str) -> Result<Option<Vec<&'m str>>> {
        self.typed(name, at::STRINGS, "a list of texts", |a| {
            let texts = a.strings.iter().map(|s| std::str::from_utf8(s).ok()).collect::<Option<Vec<_>>>()?;
            (a.r#type == at::STRINGS || !texts.is_empty()).then_some(texts)
        })
    }

    pub fn tensor(&self, name: &str) -> Result<Option<&'m TensorProto>> {
        self.typed(name, at::TENSOR, "a tensor", |a| a.t.as_ref())
    }

    /// Refuses attributes that the operator does not have in any version.
    pub fn check_attributes(&self, known: &[&str]) -> Result<()> {
        match self.attributes.iter().find(|(name, _)| !known.contains(name)) {
            None => Ok(()),
            Some((name, _)) => {
                Err(Fault::node(format!("{} has no attribute {}", clip(&self.proto.op_type), quote(name))))
            }
        }
    }
}

/// An axis of a tensor of this rank; negative ones count from the end.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize> {
    let from = if axis < 0 { rank as i64 } else { 0 };
    match axis.checked_add(from).and_then(|a| usize::try_from(a).ok()) {
        Some(a) if a < rank => Ok(a),
        _ => Err(Fault::node(format!("axis {axis} is not one of a tensor of {rank} dimensions"))),
    }
}

/// Several different axes, ascending.
pub(crate) fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>> {
    if list.len() > rank {
        return Err(Fault::node(format!("{} axes of a tensor of {rank} dimensions", list.len())));
    }
    let mut axes = list.iter().map(|&a| axis(a, rank)).collect::<Result<Vec<_>>>()?;
    axes.sort_unstable();
    match axes.windows(2).any(|w| w[0] == w[1]) {
        true => Err(Fault::node(format!("axes {list:?} name one axis twice"))),
        false => Ok(axes),
    }
}
