//! The QLinear operators of ONNX Runtime's own domain, as its quantiser writes them: dequantise, float operator, quantise.
//!
//! Each quantised tensor is followed by its scale and zero point. Source: ONNX Runtime's ContribOperators.md.

use super::quantize::{dequantized, requantize};
use super::{norm, pool};
use crate::cx::Cx;
use crate::error::{Fault, Result};
use crate::node::{Node, axis};
use mcc_ir::ValueId;
use mcc_ir::op::{Binary, Op, Unary};
use mcc_ir::types::F32;

/// The float value of the quantised input at `i`.
fn input(cx: &mut Cx, n: &Node, i: usize) -> Result<ValueId> {
    dequantized(cx, n, n.input(i)?, n.input(i + 1)?, n.optional(i + 2), 0)
}

pub fn binary(cx: &mut Cx, n: &Node, op: Binary) -> Result<Vec<ValueId>> {
    let (a, b) = (input(cx, n, 0)?, input(cx, n, 3)?);
    let y = cx.binary(op, a, b, n)?;
    requantize(cx, n, y, 6, 0)
}

pub fn sigmoid(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let x = input(cx, n, 0)?;
    let y = cx.unary(Unary::Sigmoid, x, n)?;
    requantize(cx, n, y, 3, 0)
}

pub fn leaky_relu(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let x = input(cx, n, 0)?;
    let y = cx.unary(Unary::LeakyRelu(F32(n.float_or("alpha", 0.01)?)), x, n)?;
    requantize(cx, n, y, 3, 0)
}

/// The attribute `opset` says whose rules apply.
pub fn softmax(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let x = input(cx, n, 0)?;
    let opset = n.int("opset")?.ok_or_else(|| Fault::node("attribute opset is missing"))?;
    let y = norm::softmax_of(cx, n, x, false, opset)?;
    requantize(cx, n, y, 3, 0)
}

pub fn average_pool(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    channels_first(n)?;
    let x = input(cx, n, 0)?;
    let y = pool::average_of(cx, n, x)?;
    requantize(cx, n, y, 3, 0)
}

pub fn global_average_pool(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    channels_first(n)?;
    let x = input(cx, n, 0)?;
    let y = pool::global_of(cx, n, x, false)?;
    requantize(cx, n, y, 3, 0)
}

fn channels_first(n: &Node) -> Result<()> {
    match n.flag("channels_last", false)? {
        false => Ok(()),
        true => Err(Fault::form("channels_last is set", "export with channels first")),
    }
}

/// Inputs: the result's scale and zero point, then the pieces.
pub fn concat(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    if n.inputs.len() < 5 || n.inputs.len() % 3 != 2 {
        return Err(Fault::node(format!("it has {} inputs, must have two and three a piece", n.inputs.len())));
    }
    let pieces = (2..n.inputs.len()).step_by(3).map(|i| input(cx, n, i)).collect::<Result<Vec<_>>>()?;
    let given = n.int("axis")?.ok_or_else(|| Fault::node("attribute axis is missing"))?;
    let axis = axis(given, cx.rank(pieces[0]))?;
    let y = cx.add(Op::Concat { axis }, pieces, &n.origin)?;
    requantize(cx, n, y, 0, 0)
}
