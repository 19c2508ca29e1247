//! Reductions along axes.

use crate::cx::Cx;
use crate::error::Result;
use crate::node::{Node, axes, axis};
use mcc_ir::op::{Binary, Op, Reduce, ReduceKind, Unary};
use mcc_ir::{DType, ValueId};

pub use mcc_ir::op::ReduceKind as Kind;

/// Axes became an input in opset 13 (ReduceSum) and 18 (the others).
pub const ATTRIBUTES: &[&str] = &["axes", "keepdims", "noop_with_empty_axes"];

pub fn reduce(cx: &mut Cx, n: &Node, kind: ReduceKind) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    let integers = [DType::F32, DType::I32, DType::I64, DType::I8, DType::U8];
    let supported = if kind == ReduceKind::Mean { &integers[..1] } else { &integers[..] };
    cx.want(x, supported, "input 0")?;
    Ok(vec![along(cx, n, x, kind)?])
}

/// The sum of absolute values.
pub fn l1(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let x = cx.float(n, 0)?;
    let x = cx.unary(Unary::Abs, x, n)?;
    Ok(vec![along(cx, n, x, ReduceKind::Sum)?])
}

/// The root of the sum of squares.
pub fn l2(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let sum = sum_square(cx, n)?[0];
    Ok(vec![cx.unary(Unary::Sqrt, sum, n)?])
}

pub fn sum_square(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let x = cx.float(n, 0)?;
    let square = cx.binary(Binary::Mul, x, x, n)?;
    Ok(vec![along(cx, n, square, ReduceKind::Sum)?])
}

/// The logarithm of the sum.
pub fn log_sum(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let x = cx.float(n, 0)?;
    let sum = along(cx, n, x, ReduceKind::Sum)?;
    Ok(vec![cx.unary(Unary::Log, sum, n)?])
}

/// Reduces over the axes that the node gives: all where it gives none.
fn along(cx: &mut Cx, n: &Node, x: ValueId, kind: ReduceKind) -> Result<ValueId> {
    let rank = cx.rank(x);
    let given = match (n.ints("axes")?, n.optional(1)) {
        (Some(list), _) => list.to_vec(),
        (None, Some(v)) => cx.ints(v, "the list of axes")?,
        (None, None) => vec![],
    };
    let axes = match given.is_empty() {
        true if n.flag("noop_with_empty_axes", false)? => return Ok(x),
        true => (0..rank).collect(),
        false => axes(&given, rank)?,
    };
    // A scalar has nothing to be reduced over.
    if axes.is_empty() {
        return Ok(x);
    }
    let keepdims = n.flag("keepdims", true)?;
    cx.add(Op::Reduce(Reduce { kind, axes, keepdims, dequant: None, post: vec![] }), vec![x], &n.origin)
}

/// ArgMax, or ArgMin as ArgMax of the negated input.
pub fn arg(cx: &mut Cx, n: &Node, min: bool) -> Result<Vec<ValueId>> {
    let mut x = n.input(0)?;
    if min {
        cx.want(x, &[DType::F32], "input 0")?;
        x = cx.unary(Unary::Neg, x, n)?;
    }
    let axis = axis(n.int_or("axis", 0)?, cx.rank(x))?;
    let op = Op::ArgMax { axis, keepdims: n.flag("keepdims", true)?, last: n.flag("select_last_index", false)? };
    Ok(vec![cx.add(op, vec![x], &n.origin)?])
}
