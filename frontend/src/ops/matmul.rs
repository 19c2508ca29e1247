//! Matrix products.

use super::elementwise::scale;
use crate::cx::Cx;
use crate::error::Result;
use crate::node::Node;
use mcc_ir::ValueId;
use mcc_ir::op::{Binary, MatMul, Op};

/// numpy's matmul: a vector on either side is a matrix of one row or column for the time being.
pub fn matmul(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let (a, b) = (cx.float(n, 0)?, cx.float(n, 1)?);
    Ok(vec![product(cx, n, a, b)?])
}

/// The product of two values of at least one dimension.
pub(super) fn product(cx: &mut Cx, n: &Node, mut a: ValueId, mut b: ValueId) -> Result<ValueId> {
    let (rank_a, rank_b) = (cx.rank(a), cx.rank(b));
    if rank_a == 1 {
        let shape = [vec![1], cx.shape(a)].concat();
        a = cx.reshape(a, shape, n)?;
    }
    if rank_b == 1 {
        let shape = [cx.shape(b), vec![1]].concat();
        b = cx.reshape(b, shape, n)?;
    }
    let op = Op::MatMul(MatMul { trans_b: false, bias: false, post: vec![] });
    let y = cx.add(op, vec![a, b], &n.origin)?;
    let mut shape = cx.shape(y);
    if rank_b == 1 {
        shape.pop();
    }
    if rank_a == 1 {
        shape.remove(shape.len() - 1 - (rank_b != 1) as usize);
    }
    cx.reshape(y, shape, n)
}

/// alpha * A' * B' + beta * C. C of one row becomes the bias of the product where alpha is 1.
pub fn gemm(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let (mut a, b) = (cx.float(n, 0)?, cx.float(n, 1)?);
    let (alpha, beta) = (n.float_or("alpha", 1.0)?, n.float_or("beta", 1.0)?);
    if cx.rank(a) != 2 || cx.rank(b) != 2 {
        let reason = format!("inputs {} and {} must have 2 dimensions", cx.ty(a), cx.ty(b));
        return Err(crate::error::Fault::node(reason));
    }
    if n.flag("transA", false)? {
        a = cx.transpose(a, vec![1, 0], n)?;
    }
    let trans_b = n.flag("transB", false)?;
    let mut c = match n.optional(2) {
        Some(_) if beta != 0.0 => Some(cx.float(n, 2)?),
        _ => None,
    };
    if let Some(v) = c {
        c = Some(scale(cx, v, beta, n)?);
    }
    let columns = cx.shape(b)[!trans_b as usize];
    let is_row = |shape: &[usize]| match shape {
        [width] | [1, width] => *width == columns,
        _ => false,
    };
    let mut inputs = vec![a, b];
    if let Some(v) = c
        && alpha == 1.0
        && is_row(&cx.shape(v))
    {
        inputs.push(cx.reshape(v, [columns], n)?);
        c = None;
    }
    let bias = inputs.len() == 3;
    let y = cx.add(Op::MatMul(MatMul { trans_b, bias, post: vec![] }), inputs, &n.origin)?;
    let y = scale(cx, y, alpha, n)?;
    let Some(c) = c else { return Ok(vec![y]) };
    let shape = cx.shape(y);
    if mcc_ir::types::broadcast(&cx.shape(c), &shape).as_ref() != Some(&shape) {
        let reason = format!("input 2 is {}, which does not broadcast to {}", cx.ty(c), cx.ty(y));
        return Err(crate::error::Fault::node(reason));
    }
    Ok(vec![cx.binary(Binary::Add, y, c, n)?])
}
