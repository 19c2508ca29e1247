//! `integerise`: a graph with QuantizeLinear and DequantizeLinear becomes an integer graph.
//!
//! The imported graph is ONNX, literally: float operators between dequantisations and quantisations. From here on the
//! integer graph is the meaning. What changes (see numerics.md in the design):
//! - products of quantised activations with quantised constant weights become integer products with an `i32` bias (the
//!   activation's zero point folded into it) and a [`Step::Requant`], or a scaling to `f32` where no quantisation follows;
//! - data movement and maxima move in front of a dequantisation, and a quantisation that undoes a dequantisation goes;
//! - averages and softmax read integers directly, by their `dequant` attribute;
//! - everything else keeps its literal form in `f32`, as element-wise steps.

mod product;

use crate::error::{Error, Result};
use crate::pass::{Changed, Class, Pass, PassCx};
use mcc_ir::dtype::DType;
use mcc_ir::graph::{Def, Graph, Origin, Value, ValueId};
use mcc_ir::op::{Op, PadMode, PoolKind, ReduceKind, Step};
use mcc_ir::types::{F32, QuantParams, TensorType};
use mcc_ir::{Result as IrResult, Tensor};
use product::Product;
use std::collections::HashMap;

pub struct Integerise;

impl Pass for Integerise {
    fn name(&self) -> &'static str {
        "integerise"
    }
    fn summary(&self) -> &'static str {
        "turn quantise-operate-dequantise patterns into integer operators"
    }
    fn class(&self) -> Class {
        Class::Reassociates
    }
    fn run(&self, graph: &mut Graph, _: &PassCx<'_>) -> Result<Changed> {
        let quantised = |v: &Value| matches!(&v.def, Def::Node { op: Op::Quantize { .. } | Op::Dequantize { .. }, .. });
        if !graph.values().any(|(_, v)| quantised(v)) {
            return Ok(Changed::No);
        }
        let constants = graph.values().filter_map(|(id, _)| graph.constant(id)).map(|t| t.bytes().len()).sum::<usize>();
        let mut pass = Integeriser { budget: TRANSPOSED_SHARE * constants, ..Integeriser::default() };
        let mut new = graph
            .rebuild(|out, _, value, inputs| pass.value(out, value, inputs))
            .map_err(|source| Error::Pass { pass: self.name(), source })?;
        for port in new.inputs.iter_mut().chain(&mut new.outputs) {
            port.quant = port.quant.or_else(|| pass.params.get(&port.value).copied());
        }
        let new = new.rebuild(|out, _, value, inputs| out.copy_value(value, inputs));
        *graph = new.map_err(|source| Error::Pass { pass: self.name(), source })?;
        Ok(Changed::Yes)
    }
}

/// Transposed weights may take so many times the bytes of all constants; what is beyond stays literal.
const TRANSPOSED_SHARE: usize = 4;

/// What is known of values of the new graph.
#[derive(Default)]
struct Integeriser {
    /// Bytes of transposed constants that may still be made.
    budget: usize,
    /// Float values that are a scaled integer accumulator, not yet rounded.
    products: HashMap<ValueId, Product>,
    /// What the integers of a value stand for.
    params: HashMap<ValueId, QuantParams>,
}

impl Integeriser {
    fn value(&mut self, out: &mut Graph, value: &Value, inputs: &[ValueId]) -> IrResult<ValueId> {
        let Def::Node { op, .. } = &value.def else { return out.copy_value(value, inputs) };
        let origin = &value.origin;
        let new = match op {
            Op::Dequantize { .. } => self.dequantize(out, inputs, origin)?,
            Op::Quantize { dtype, .. } => self.quantize(out, *dtype, inputs, origin)?,
            Op::Conv2d(_) | Op::MatMul(_) => self.product(out, op, value, inputs)?,
            Op::Map(steps) if inputs.iter().any(|v| self.products.contains_key(v)) => {
                self.extend_product(out, steps, value, inputs)?
            }
            Op::Pool2d(p) if p.dequant.is_none() && !matches!(p.kind, PoolKind::Max) => {
                let read = |q| Op::Pool2d(mcc_ir::op::Pool2d { dequant: Some(q), ..p.clone() });
                self.read_integers(out, read, inputs, origin)?
            }
            Op::Reduce(r) if r.dequant.is_none() && !matches!(r.kind, ReduceKind::Max | ReduceKind::Min) => {
                let read = |q| Op::Reduce(mcc_ir::op::Reduce { dequant: Some(q), ..r.clone() });
                self.read_integers(out, read, inputs, origin)?
            }
            Op::Softmax(s) if s.dequant.is_none() => {
                let read = |q| Op::Softmax(mcc_ir::op::Softmax { dequant: Some(q), ..s.clone() });
                self.read_integers(out, read, inputs, origin)?
            }
            _ => self.move_before_dequantisation(out, op, inputs, origin)?,
        };
        match new {
            Some(v) => Ok(v),
            None => out.copy_value(value, inputs),
        }
    }

    /// The integers and parameters of a value that only dequantises them.
    fn dequantised(&self, out: &Graph, v: ValueId) -> Option<(ValueId, QuantParams)> {
        match out.node(v)? {
            (Op::Map(steps), &[x]) => match steps.as_slice() {
                [Step::Dequant(q)] => Some((x, *q)),
                _ => None,
            },
            _ => None,
        }
    }

    fn add_dequantised(&mut self, out: &mut Graph, x: ValueId, q: QuantParams, origin: &Origin) -> IrResult<ValueId> {
        self.params.insert(x, q);
        out.add_node(Op::Map(vec![Step::Dequant(q)]), vec![x], origin.clone())
    }

    /// DequantizeLinear of an activation with one scale. A dequantised constant stays literal until a product reads it.
    fn dequantize(&mut self, out: &mut Graph, inputs: &[ValueId], origin: &Origin) -> IrResult<Option<ValueId>> {
        let &[x, scale, zero] = inputs else { return Ok(None) };
        match params(out, scale, zero) {
            Some(q) if narrow(out.ty(x).dtype) && out.constant(x).is_none() => {
                self.add_dequantised(out, x, q, origin).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// QuantizeLinear with one scale: rounds a product, undoes a dequantisation, or becomes a step.
    fn quantize(
        &mut self,
        out: &mut Graph,
        dtype: DType,
        inputs: &[ValueId],
        origin: &Origin,
    ) -> IrResult<Option<ValueId>> {
        let &[x, scale, zero] = inputs else { return Ok(None) };
        let (Some(q), true) = (params(out, scale, zero), narrow(dtype)) else { return Ok(None) };
        if let Some(product) = self.products.get(&x)
            && let Some(new) = product.clone().requantise(out, q, dtype, origin)?
        {
            self.params.insert(new, q);
            return Ok(Some(new));
        }
        self.quantised(out, x, q, dtype, origin).map(Some)
    }

    /// `x` quantised, without work where that undoes a dequantisation.
    fn quantised(
        &mut self,
        out: &mut Graph,
        x: ValueId,
        q: QuantParams,
        dtype: DType,
        origin: &Origin,
    ) -> IrResult<ValueId> {
        if let Some((source, from)) = self.dequantised(out, x)
            && from == q
            && out.ty(source).dtype == dtype
        {
            return Ok(source);
        }
        let concat = match out.node(x) {
            Some((Op::Concat { axis }, parts)) if parts.iter().all(|p| self.dequantised(out, *p).is_some()) => {
                Some((*axis, parts.to_vec()))
            }
            _ => None,
        };
        let new = match concat {
            Some((axis, parts)) => {
                let parts: Vec<ValueId> =
                    parts.into_iter().map(|p| self.quantised(out, p, q, dtype, origin)).collect::<IrResult<_>>()?;
                out.add_node(Op::Concat { axis }, parts, origin.clone())?
            }
            None => {
                let (lo, hi) = dtype.int_range().expect("checked to be narrow");
                out.add_node(Op::Map(vec![Step::Quant { q, lo, hi, dtype }]), vec![x], origin.clone())?
            }
        };
        self.params.insert(new, q);
        Ok(new)
    }

    /// Operators that only move or compare elements work on the integers themselves.
    fn move_before_dequantisation(
        &mut self,
        out: &mut Graph,
        op: &Op,
        inputs: &[ValueId],
        origin: &Origin,
    ) -> IrResult<Option<ValueId>> {
        let first = inputs[0];
        match op {
            Op::Transpose { perm } => {
                if let Some(new) = self.transpose_dequantised_constant(out, perm, first, origin)? {
                    return Ok(Some(new));
                }
            }
            Op::Reshape { .. } | Op::Slice { .. } | Op::Broadcast { .. } | Op::Gather { .. } => {}
            Op::Pool2d(p) if p.post.is_empty() && p.dequant.is_none() => {}
            Op::Reduce(r) if r.post.is_empty() && r.dequant.is_none() => {}
            Op::Pad { mode, .. } => {
                let zero_fill = *mode != PadMode::Constant
                    || out.constant(inputs[1]).is_some_and(|t| t.to_f64().iter().all(|v| *v == 0.0));
                if !zero_fill {
                    return Ok(None);
                }
            }
            Op::Concat { .. } => {
                let parts: Option<Vec<_>> = inputs.iter().map(|v| self.dequantised(out, *v)).collect();
                let Some(parts) = parts else { return Ok(None) };
                let (x, q) = parts[0];
                let dtype = out.ty(x).dtype;
                if !parts.iter().all(|(x, p)| *p == q && out.ty(*x).dtype == dtype) {
                    return Ok(None);
                }
                let parts = parts.into_iter().map(|p| p.0).collect();
                let new = out.add_node(op.clone(), parts, origin.clone())?;
                return self.add_dequantised(out, new, q, origin).map(Some);
            }
            _ => return Ok(None),
        }
        let Some((x, q)) = self.dequantised(out, first) else { return Ok(None) };
        let mut inputs = inputs.to_vec();
        inputs[0] = x;
        if let Op::Pad { mode: PadMode::Constant, .. } = op {
            let ty = TensorType::new(out.ty(x).dtype, []);
            inputs[1] = out.add_const(Tensor::from_i64(ty, &[q.zero_point as i64]), origin.clone());
        }
        let new = out.add_node(op.clone(), inputs, origin.clone())?;
        self.add_dequantised(out, new, q, origin).map(Some)
    }

    /// Operators that can dequantise what they read.
    fn read_integers(
        &mut self,
        out: &mut Graph,
        read: impl Fn(QuantParams) -> Op,
        inputs: &[ValueId],
        origin: &Origin,
    ) -> IrResult<Option<ValueId>> {
        let Some((x, q)) = self.dequantised(out, inputs[0]) else { return Ok(None) };
        let mut inputs = inputs.to_vec();
        inputs[0] = x;
        out.add_node(read(q), inputs, origin.clone()).map(Some)
    }

    /// `transpose(dequantize(constant))` as `dequantize(transposed constant)`, so that a product finds its weights.
    fn transpose_dequantised_constant(
        &mut self,
        out: &mut Graph,
        perm: &[usize],
        v: ValueId,
        origin: &Origin,
    ) -> IrResult<Option<ValueId>> {
        let Some((Op::Dequantize { axis }, &[q, scale, zero])) = out.node(v) else { return Ok(None) };
        let axis = perm.iter().position(|p| p == axis).unwrap_or(0);
        let Some(tensor) = out.constant(q) else { return Ok(None) };
        let Some(budget) = self.budget.checked_sub(tensor.bytes().len()) else { return Ok(None) };
        self.budget = budget;
        let op = Op::Transpose { perm: perm.to_vec() };
        let ty = TensorType::new(tensor.dtype(), perm.iter().map(|&p| tensor.shape()[p]).collect::<Vec<_>>());
        let transposed = mcc_ir::ops::eval(&op, &[tensor], &ty)?;
        let q = out.add_const(transposed, origin.clone());
        out.add_node(Op::Dequantize { axis }, vec![q, scale, zero], origin.clone()).map(Some)
    }
}

/// Integer types that a quantised activation may have.
fn narrow(dtype: DType) -> bool {
    matches!(dtype, DType::I8 | DType::U8 | DType::I16)
}

/// One finite positive scale and its zero point, where both are constants of one element.
fn params(graph: &Graph, scale: ValueId, zero: ValueId) -> Option<QuantParams> {
    let (scale, zero) = (graph.constant(scale)?, graph.constant(zero)?);
    match (scale.to_f32().as_slice(), zero.to_i64().as_slice()) {
        ([s], [z]) if *s > 0.0 && s.is_finite() => Some(QuantParams { scale: F32(*s), zero_point: *z as i32 }),
        _ => None,
    }
}
