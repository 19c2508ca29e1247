//! Normalisations and softmax.

use crate::cx::Cx;
use crate::error::{Fault, Result};
use crate::node::{Node, axis};
use mcc_ir::op::{Binary, LayerNorm, Op, Reduce, ReduceKind, Softmax, Unary};
use mcc_ir::types::F32;
use mcc_ir::{Tensor, ValueId};

pub fn batch(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let inputs = (0..5).map(|i| cx.float(n, i)).collect::<Result<Vec<_>>>()?;
    if n.flag("training_mode", false)? {
        return Err(Fault::form("training_mode is set", "export the model for inference"));
    }
    if n.opset < 9 && !n.flag("spatial", true)? {
        return Err(Fault::form("spatial = 0 is not supported", "normalise per channel"));
    }
    let epsilon = F32(n.float_or("epsilon", 1e-5)?);
    Ok(vec![cx.add(Op::BatchNorm { epsilon }, inputs, &n.origin)?])
}

/// Mean and variance of each sample and channel over the spatial dimensions, in the order of the ONNX definition.
pub fn instance(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let (x, scale, bias) = (cx.float(n, 0)?, cx.float(n, 1)?, cx.float(n, 2)?);
    let shape = cx.shape(x);
    if shape.len() < 3 {
        return Err(Fault::node(format!("{} has no spatial dimensions", cx.ty(x))));
    }
    let epsilon = n.float_or("epsilon", 1e-5)?;
    let mean = |cx: &mut Cx, x| {
        let axes = (2..shape.len()).collect();
        let op = Op::Reduce(Reduce { kind: ReduceKind::Mean, axes, keepdims: true, dequant: None, post: vec![] });
        cx.add(op, vec![x], &n.origin)
    };
    let center = mean(cx, x)?;
    let x = cx.binary(Binary::Sub, x, center, n)?;
    let square = cx.binary(Binary::Mul, x, x, n)?;
    let variance = mean(cx, square)?;
    let epsilon = cx.scalar(epsilon, n);
    let variance = cx.binary(Binary::Add, variance, epsilon, n)?;
    let deviation = cx.unary(Unary::Sqrt, variance, n)?;
    let mut y = cx.binary(Binary::Div, x, deviation, n)?;
    let mut channel = vec![1; shape.len() - 1];
    channel[0] = shape[1];
    for (v, op) in [(scale, Binary::Mul), (bias, Binary::Add)] {
        if cx.shape(v) != [shape[1]] {
            return Err(Fault::node(format!("{} does not fit the channels of {:?}", cx.ty(v), shape)));
        }
        let v = cx.reshape(v, channel.clone(), n)?;
        y = cx.binary(op, y, v, n)?;
    }
    Ok(vec![y])
}

pub fn layer(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let (x, scale) = (cx.float(n, 0)?, cx.float(n, 1)?);
    let axis = axis(n.int_or("axis", -1)?, cx.rank(x))?;
    let epsilon = F32(n.float_or("epsilon", 1e-5)?);
    let normalised = cx.shape(x)[axis..].to_vec();
    let scale = cx.broadcast(scale, normalised.clone(), n)?;
    let bias = match n.optional(2) {
        Some(_) => cx.float(n, 2)?,
        None => cx.constant(Tensor::new([1], &[0f32]), n),
    };
    let bias = cx.broadcast(bias, normalised, n)?;
    Ok(vec![cx.add(Op::LayerNorm(LayerNorm { axis, epsilon, post: vec![] }), vec![x, scale, bias], &n.origin)?])
}

/// x / sqrt(mean(x * x) + epsilon) * scale, over the dimensions from `axis` on.
pub fn rms(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let (x, scale) = (cx.float(n, 0)?, cx.float(n, 1)?);
    let rank = cx.rank(x);
    let axis = axis(n.int_or("axis", -1)?, rank)?;
    let square = cx.binary(Binary::Mul, x, x, n)?;
    let axes = (axis..rank).collect();
    let op = Op::Reduce(Reduce { kind: ReduceKind::Mean, axes, keepdims: true, dequant: None, post: vec![] });
    let mean = cx.add(op, vec![square], &n.origin)?;
    let epsilon = cx.scalar(n.float_or("epsilon", 1e-5)?, n);
    let mean = cx.binary(Binary::Add, mean, epsilon, n)?;
    let root = cx.unary(Unary::Sqrt, mean, n)?;
    let y = cx.binary(Binary::Div, x, root, n)?;
    let y = cx.binary(Binary::Mul, y, scale, n)?;
    match cx.shape(y) == cx.shape(x) {
        true => Ok(vec![y]),
        false => Err(Fault::node(format!("the scale {} is larger than {}", cx.ty(scale), cx.ty(x)))),
    }
}

/// Along one axis since opset 13; before, over all dimensions from `axis` (1 by default) on, taken as one.
pub fn softmax(cx: &mut Cx, n: &Node, log: bool) -> Result<Vec<ValueId>> {
    let x = cx.float(n, 0)?;
    Ok(vec![softmax_of(cx, n, x, log, n.opset)?])
}

/// Softmax of a float value by the rules of a version of the standard operators.
pub(super) fn softmax_of(cx: &mut Cx, n: &Node, x: ValueId, log: bool, opset: i64) -> Result<ValueId> {
    let shape = cx.shape(x);
    let default = if opset < 13 { 1 } else { -1 };
    let axis = axis(n.int_or("axis", default)?, shape.len())?;
    let along = |cx: &mut Cx, x, axis| {
        cx.add(Op::Softmax(Softmax { axis, log, dequant: None, post: vec![] }), vec![x], &n.origin)
    };
    if opset >= 13 || shape[axis + 1..].iter().all(|&d| d == 1) {
        return along(cx, x, axis);
    }
    let rows: usize = shape[..axis].iter().product();
    let columns: usize = shape[axis..].iter().product();
    let flat = cx.reshape(x, [rows, columns], n)?;
    let y = along(cx, flat, 1)?;
    cx.reshape(y, shape, n)
}
