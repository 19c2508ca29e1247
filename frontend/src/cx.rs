//! What importers build with: the growing graph, constant folding, and small helpers.

use crate::error::{Fault, Result, code};
use crate::external::Files;
use crate::node::Node;
use crate::tensor::check_size;
use mcc_ir::graph::{Graph, Origin};
use mcc_ir::op::{Binary, Op, Step, Unary};
use mcc_ir::{DType, Tensor, TensorType, ValueId, ops};
use std::cell::Cell;

/// Computed floats are folded up to this size, integers (shapes, indices) up to what is left of the budget.
const SMALL: usize = 4096;

pub(crate) struct Cx {
    pub graph: Graph,
    pub files: Files,
    /// Bytes of constants that may still be read and produced, so that many nodes on one large constant cost no more than
    /// a multiple of the file.
    budget: Cell<usize>,
}

impl Cx {
    /// A context for a model of `file_size` bytes.
    pub fn new(graph: Graph, files: Files, file_size: usize) -> Cx {
        Cx { graph, files, budget: Cell::new(file_size.saturating_mul(4).max(16 << 20)) }
    }

    pub fn ty(&self, v: ValueId) -> &TensorType {
        self.graph.ty(v)
    }

    pub fn shape(&self, v: ValueId) -> Vec<usize> {
        self.ty(v).shape.clone()
    }

    pub fn rank(&self, v: ValueId) -> usize {
        self.ty(v).rank()
    }

    pub fn dtype(&self, v: ValueId) -> DType {
        self.ty(v).dtype
    }

    /// Adds an operator, or its result where all inputs are constant and the result is small or integer.
    ///
    /// Quantisation is never folded, so that quantised weights stay as they are in the file.
    pub fn add(&mut self, op: Op, inputs: Vec<ValueId>, origin: &Origin) -> Result<ValueId> {
        let types: Vec<&TensorType> = inputs.iter().map(|v| self.graph.ty(*v)).collect();
        let empty = |t: &TensorType| {
            let help = "only constants may be empty, and only be moved and joined";
            Fault::form(format!("{t} has no elements"), help)
        };
        let moves =
            matches!(op, Op::Reshape { .. } | Op::Concat { .. } | Op::Slice { .. } | Op::Transpose { .. } | Op::Map(_));
        if let Some(t) = types.iter().find(|t| t.elements() == 0 && !moves) {
            return Err(empty(t));
        }
        let ty = ops::infer(&op, &types)?;
        check_size(&ty.shape)?;
        let without = types.into_iter().chain([&ty]).find(|t| t.elements() == 0).cloned();
        if let Some(t) = self.fold(&op, &inputs, &ty) {
            return Ok(self.graph.add_const(t, origin.clone()));
        }
        if let Some(t) = without {
            return Err(empty(&t));
        }
        Ok(self.graph.add_node(op, inputs, origin.clone())?)
    }

    fn fold(&self, op: &Op, inputs: &[ValueId], ty: &TensorType) -> Option<Tensor> {
        let operands = inputs.iter().map(|v| self.graph.constant(*v)).collect::<Option<Vec<&Tensor>>>()?;
        match op {
            Op::Reshape { shape } => return Some(operands[0].reshaped(shape.clone())),
            Op::Map(_) | Op::Reduce(_) | Op::Transpose { .. } | Op::Concat { .. } | Op::Slice { .. } => {}
            Op::Pad { .. } | Op::Gather { .. } | Op::Broadcast { .. } | Op::Where | Op::ArgMax { .. } => {}
            _ => return None,
        }
        if ty.elements() == 0 {
            return Tensor::from_bytes(ty.clone(), Vec::new()).ok();
        }
        if operands.iter().any(|t| t.ty().elements() == 0) {
            return None;
        }
        let cost = ty.bytes() + operands.iter().map(|t| t.bytes().len()).sum::<usize>();
        if (ty.dtype.is_float() && ty.elements() > SMALL) || self.charge(cost).is_err() {
            return None;
        }
        ops::eval(op, &operands, ty).ok()
    }

    /// Takes `bytes` of the budget for constants.
    ///
    /// # Errors
    /// Where less is left.
    pub fn charge(&self, bytes: usize) -> Result<()> {
        let left = self.budget.get().checked_sub(bytes).ok_or_else(|| {
            Fault::limit("constants read and computed at import exceed 16 MiB and four times the size of the model")
        })?;
        self.budget.set(left);
        Ok(())
    }

    pub fn constant(&mut self, t: Tensor, node: &Node) -> ValueId {
        self.graph.add_const(t, node.origin.clone())
    }

    pub fn scalar(&mut self, v: f32, node: &Node) -> ValueId {
        self.constant(Tensor::scalar(v), node)
    }

    /// A rank-0 constant of an element type.
    pub fn scalar_of(&mut self, dtype: DType, v: f64, node: &Node) -> ValueId {
        self.constant(Tensor::from_f64(TensorType::new(dtype, []), &[v]), node)
    }

    /// The elements of an integer constant.
    ///
    /// # Errors
    /// Where the input is computed at run time, or is not of integers.
    pub fn ints(&self, v: ValueId, what: &str) -> Result<Vec<i64>> {
        let t = self.known(v, what)?;
        match t.dtype() {
            DType::I64 | DType::I32 => Ok(t.to_i64()),
            d => Err(Fault::node(format!("{what} is of {d}, not of integers"))),
        }
    }

    /// The elements of a floating-point constant.
    ///
    /// # Errors
    /// As for [`Cx::ints`].
    pub fn floats(&self, v: ValueId, what: &str) -> Result<Vec<f32>> {
        let t = self.known(v, what)?;
        match t.dtype() {
            DType::F32 => Ok(t.to_f32()),
            d => Err(Fault::node(format!("{what} is of {d}, not of floats"))),
        }
    }

    /// A constant's value.
    ///
    /// # Errors
    /// Where the value is computed at run time.
    pub fn known(&self, v: ValueId, what: &str) -> Result<&Tensor> {
        let found = self.graph.constant(v).ok_or_else(|| {
            let origin = self.graph.value(v).origin.first().map_or(String::new(), |n| crate::error::quote(n));
            Fault::new(
                code::NOT_CONSTANT,
                format!("{what} is computed at run time, by {origin}"),
                "it must be a constant; fix the shapes of the inputs, or simplify the model first (onnxsim)",
            )
        })?;
        self.charge(found.bytes().len())?;
        Ok(found)
    }

    /// An input that must be `f32`.
    pub fn float(&self, node: &Node, i: usize) -> Result<ValueId> {
        let v = node.input(i)?;
        self.want(v, &[DType::F32], &format!("input {i}"))?;
        Ok(v)
    }

    /// Refuses a value of another element type than these.
    pub fn want(&self, v: ValueId, dtypes: &[DType], what: &str) -> Result<()> {
        let ty = self.ty(v);
        if dtypes.contains(&ty.dtype) {
            return Ok(());
        }
        let list = dtypes.iter().map(|d| d.name()).collect::<Vec<_>>().join(", ");
        Err(Fault::dtype(format!("{what} is {ty}; supported: {list}"), "cast it to a supported type"))
    }

    pub fn map(&mut self, step: Step, inputs: Vec<ValueId>, node: &Node) -> Result<ValueId> {
        self.add(Op::Map(vec![step]), inputs, &node.origin)
    }

    pub fn unary(&mut self, u: Unary, x: ValueId, node: &Node) -> Result<ValueId> {
        self.map(Step::Unary(u), vec![x], node)
    }

    pub fn binary(&mut self, op: Binary, a: ValueId, b: ValueId, node: &Node) -> Result<ValueId> {
        self.add(Op::binary(op), vec![a, b], &node.origin)
    }

    pub fn cast(&mut self, x: ValueId, to: DType, node: &Node) -> Result<ValueId> {
        match self.dtype(x) == to {
            true => Ok(x),
            false => self.map(Step::Cast(to), vec![x], node),
        }
    }

    pub fn reshape(&mut self, x: ValueId, shape: impl Into<Vec<usize>>, node: &Node) -> Result<ValueId> {
        let shape = shape.into();
        match self.ty(x).shape == shape {
            true => Ok(x),
            false => self.add(Op::Reshape { shape }, vec![x], &node.origin),
        }
    }

    pub fn transpose(&mut self, x: ValueId, perm: Vec<usize>, node: &Node) -> Result<ValueId> {
        match perm.iter().enumerate().all(|(i, &p)| i == p) {
            true => Ok(x),
            false => self.add(Op::Transpose { perm }, vec![x], &node.origin),
        }
    }

    pub fn broadcast(&mut self, x: ValueId, shape: impl Into<Vec<usize>>, node: &Node) -> Result<ValueId> {
        let shape = shape.into();
        match self.ty(x).shape == shape {
            true => Ok(x),
            false => self.add(Op::Broadcast { shape }, vec![x], &node.origin),
        }
    }
}
