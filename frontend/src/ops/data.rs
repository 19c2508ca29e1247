//! Operators that move, repeat or select elements.

use crate::cx::Cx;
use crate::error::{Fault, Result, quote};
use crate::node::{Node, axes, axis};
use crate::tensor::{self, check_size};
use mcc_ir::op::{Op, PadMode};
use mcc_ir::{DType, ValueId};

pub fn concat(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let mut inputs = n.all()?;
    let given = n.int("axis")?.ok_or_else(|| Fault::node("attribute axis is missing"))?;
    let axis = axis(given, cx.rank(inputs[0]))?;
    // Empty pieces come from exported list operations and add nothing.
    let empty = |v: &ValueId| cx.ty(*v).elements() == 0;
    if !inputs.iter().all(empty) {
        inputs.retain(|v| !empty(v));
    }
    match inputs[..] {
        [one] => Ok(vec![one]),
        _ => Ok(vec![cx.add(Op::Concat { axis }, inputs, &n.origin)?]),
    }
}

/// Parts along an axis, one a slice. Sizes were an attribute before opset 13; equal parts where there are none.
pub fn split(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    let shape = cx.shape(x);
    let axis = axis(n.int_or("axis", 0)?, shape.len())?;
    let size = shape[axis];
    let sizes = match (n.ints("split")?, n.optional(1)) {
        (Some(list), _) => list.to_vec(),
        (None, Some(v)) => cx.ints(v, "the list of sizes")?,
        (None, None) => {
            let parts = n.int_or("num_outputs", n.proto.output.len() as i64)?;
            let parts = usize::try_from(parts).ok().filter(|p| (1..=size).contains(p));
            let parts = parts.ok_or_else(|| Fault::node(format!("{} cannot be split like this", cx.ty(x))))?;
            let each = size.div_ceil(parts);
            if n.opset < 18 && !size.is_multiple_of(parts) {
                return Err(Fault::node(format!("{size} elements cannot be split in {parts} equal parts")));
            }
            (0..parts).map(|i| size.saturating_sub(i * each).min(each) as i64).collect()
        }
    };
    if sizes.len() != n.proto.output.len() {
        return Err(Fault::node(format!("{} sizes for {} outputs", sizes.len(), n.proto.output.len())));
    }
    let mut at = 0usize;
    let mut parts = vec![];
    for &part in &sizes {
        let end = usize::try_from(part).ok().and_then(|p| at.checked_add(p)).filter(|&end| end <= size);
        let end = end.ok_or_else(|| Fault::node(format!("sizes {sizes:?} exceed the axis of {size}")))?;
        let mut start = vec![0; shape.len()];
        let mut part_shape = shape.clone();
        (start[axis], part_shape[axis]) = (at, end - at);
        parts.push(slice_of(cx, x, start, vec![1; shape.len()], part_shape, n)?);
        at = end;
    }
    match at == size {
        true => Ok(parts),
        false => Err(Fault::node(format!("sizes {sizes:?} do not fill the axis of {size}"))),
    }
}

pub fn slice_of(
    cx: &mut Cx,
    x: ValueId,
    start: Vec<usize>,
    step: Vec<isize>,
    shape: Vec<usize>,
    n: &Node,
) -> Result<ValueId> {
    if cx.shape(x) == shape && step.iter().all(|&s| s == 1) {
        return Ok(x);
    }
    cx.add(Op::Slice { start, step, shape }, vec![x], &n.origin)
}

/// Bounds were attributes before opset 10.
pub fn slice(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    let shape = cx.shape(x);
    let (starts, ends, list, steps) = if n.opset < 10 {
        let need = |name: &str| -> Result<Vec<i64>> {
            let list = n.ints(name)?.ok_or_else(|| Fault::node(format!("attribute {name} is missing")))?;
            Ok(list.to_vec())
        };
        (need("starts")?, need("ends")?, n.ints("axes")?.map(<[i64]>::to_vec), None)
    } else {
        let optional = |i: usize, what: &str| n.optional(i).map(|v| cx.ints(v, what)).transpose();
        let (starts, ends) = (cx.ints(n.input(1)?, "starts")?, cx.ints(n.input(2)?, "ends")?);
        (starts, ends, optional(3, "axes")?, optional(4, "steps")?)
    };
    let list = list.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), list.len(), steps.len()].iter().any(|&l| l != starts.len()) {
        return Err(Fault::node("starts, ends, axes and steps differ in length"));
    }
    axes(&list, shape.len())?;
    let mut start = vec![0; shape.len()];
    let mut step = vec![1; shape.len()];
    let mut out = shape.clone();
    for (((&from, &to), &a), &by) in starts.iter().zip(&ends).zip(&list).zip(&steps) {
        let a = axis(a, shape.len())?;
        let size = shape[a] as i64;
        if by == 0 {
            return Err(Fault::node("a step is 0"));
        }
        let wrap = |v: i64| if v < 0 { v.saturating_add(size) } else { v };
        // numpy's rules: forwards between 0 and size, backwards between size - 1 and -1.
        let (from, to) = match by > 0 {
            true => (wrap(from).clamp(0, size), wrap(to).clamp(0, size)),
            false => (wrap(from).clamp(-1, size - 1), wrap(to).clamp(-1, size - 1)),
        };
        let span = if by > 0 { to - from } else { from - to };
        let by_abs = by.unsigned_abs();
        out[a] = (span.max(0) as u64).div_ceil(by_abs) as usize;
        start[a] = if out[a] == 0 { 0 } else { from as usize };
        // One element needs no step, and a step longer than the axis may not fit the type.
        step[a] = if out[a] > 1 { by as isize } else { 1 };
    }
    Ok(vec![slice_of(cx, x, start, step, out, n)?])
}

/// Pads and value were attributes before opset 11. Negative pads crop, with `mode` constant.
pub fn pad(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    let shape = cx.shape(x);
    let rank = shape.len();
    let mode = match n.text_or("mode", "constant")? {
        "constant" => PadMode::Constant,
        "reflect" => PadMode::Reflect,
        "edge" => PadMode::Edge,
        other => return Err(Fault::form(format!("mode {}", quote(other)), "supported: constant, reflect, edge")),
    };
    let (pads, value, axes_of) = if n.opset < 11 {
        let pads = n.ints("pads")?.ok_or_else(|| Fault::node("attribute pads is missing"))?;
        cx.want(x, &[DType::F32], "input 0")?;
        (pads.to_vec(), Some(cx.scalar(n.float_or("value", 0.0)?, n)), None)
    } else {
        let pads = cx.ints(n.input(1)?, "the list of pads")?;
        let list = n.optional(3).map(|v| cx.ints(v, "the list of axes")).transpose()?;
        (pads, n.optional(2), list)
    };
    let list: Vec<usize> = match axes_of {
        Some(list) => {
            axes(&list, rank)?;
            list.iter().map(|&a| axis(a, rank)).collect::<Result<_>>()?
        }
        None => (0..rank).collect(),
    };
    if pads.len() != 2 * list.len() {
        return Err(Fault::node(format!("{} pads for {} axes", pads.len(), list.len())));
    }
    let mut sides = [vec![0i64; rank], vec![0i64; rank]];
    for (i, &a) in list.iter().enumerate() {
        (sides[0][a], sides[1][a]) = (pads[i], pads[i + list.len()]);
    }
    let mut x = x;
    if sides.iter().flatten().any(|&p| p < 0) {
        if mode != PadMode::Constant {
            return Err(Fault::form(format!("negative pads {pads:?} with this mode"), "slice the input instead"));
        }
        let crop = |p: i64| usize::try_from(p.min(0).unsigned_abs()).unwrap_or(usize::MAX);
        let start: Vec<usize> = sides[0].iter().map(|&p| crop(p)).collect();
        let cut = |a: usize| shape[a].checked_sub(start[a])?.checked_sub(crop(sides[1][a]));
        let kept = (0..rank).map(|a| cut(a).filter(|&k| k > 0)).collect::<Option<Vec<usize>>>();
        let kept = kept.ok_or_else(|| Fault::form(format!("pads {pads:?} crop everything"), "keep some elements"))?;
        x = slice_of(cx, x, start, vec![1; rank], kept, n)?;
    }
    let [before, after] = sides.map(|s| s.iter().map(|&p| p.max(0) as usize).collect::<Vec<usize>>());
    if before.iter().chain(&after).all(|&p| p == 0) {
        return Ok(vec![x]);
    }
    let grown = |a: usize| before[a].saturating_add(after[a]).saturating_add(cx.shape(x)[a]);
    check_size(&(0..rank).map(grown).collect::<Vec<_>>())?;
    let mut inputs = vec![x];
    if mode == PadMode::Constant {
        let dtype = cx.dtype(x);
        let value = match value {
            Some(v) if cx.dtype(v) == dtype && cx.ty(v).elements() == 1 => cx.reshape(v, [], n)?,
            Some(v) => return Err(Fault::node(format!("the pad value is {}, not one {dtype}", cx.ty(v)))),
            None => cx.scalar_of(dtype, 0.0, n),
        };
        inputs.push(value);
    }
    Ok(vec![cx.add(Op::Pad { before, after, mode }, inputs, &n.origin)?])
}

pub fn gather(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let (x, indices) = (n.input(0)?, n.input(1)?);
    cx.want(indices, &[DType::I64, DType::I32], "the list of indices")?;
    let axis = axis(n.int_or("axis", 0)?, cx.rank(x))?;
    let size = cx.shape(x)[axis] as i64;
    if cx.graph.constant(indices).is_some()
        && let t = cx.known(indices, "the list of indices")?
        && let Some(i) = t.to_i64().into_iter().find(|i| !(-size..size).contains(i))
    {
        return Err(Fault::node(format!("index {i} is outside axis {axis} of {}", cx.ty(x))));
    }
    if let Some(t) = cx.graph.constant(indices).filter(|t| t.ty().elements() == 1) {
        let index = t.to_i64()[0];
        // A piece of x, which needs no copy where it is one in memory.
        let mut shape = cx.shape(x);
        let mut start = vec![0; shape.len()];
        (start[axis], shape[axis]) = (index.rem_euclid(size) as usize, 1);
        let step = vec![1; shape.len()];
        let piece = slice_of(cx, x, start, step, shape.clone(), n)?;
        shape.splice(axis..=axis, cx.shape(indices));
        return Ok(vec![cx.reshape(piece, shape, n)?]);
    }
    Ok(vec![cx.add(Op::Gather { axis }, vec![x, indices], &n.origin)?])
}

/// Broadcasts both ways: the given shape may have ones where the input has not.
pub fn expand(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    let shape = tensor::shape(&cx.ints(n.input(1)?, "the shape")?)?;
    let both = mcc_ir::types::broadcast(&cx.shape(x), &shape)
        .ok_or_else(|| Fault::node(format!("{} does not broadcast to {shape:?}", cx.ty(x))))?;
    check_size(&both)?;
    Ok(vec![cx.broadcast(x, both, n)?])
}

/// Each axis that repeats gets a dimension of its own, broadcast and merged again.
pub fn tile(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    let shape = cx.shape(x);
    let repeats = tensor::shape(&cx.ints(n.input(1)?, "the list of repeats")?)?;
    if repeats.len() != shape.len() {
        return Err(Fault::node(format!("{} repeats for {}", repeats.len(), cx.ty(x))));
    }
    let tiled: Vec<usize> = shape.iter().zip(&repeats).map(|(d, r)| d.saturating_mul(*r)).collect();
    check_size(&tiled)?;
    let (mut apart, mut wide) = (vec![], vec![]);
    for (&d, &r) in shape.iter().zip(&repeats) {
        if r != 1 {
            apart.push(1);
            wide.push(r);
        }
        apart.push(d);
        wide.push(d);
    }
    let x = cx.reshape(x, apart, n)?;
    let x = cx.broadcast(x, wide, n)?;
    Ok(vec![cx.reshape(x, tiled, n)?])
}

/// Batch, channel, row, column and block of a depth-space operator.
fn blocks(cx: &Cx, n: &Node, x: ValueId) -> Result<([usize; 4], usize, bool)> {
    let block = n.int("blocksize")?.and_then(|b| usize::try_from(b).ok()).filter(|b| (1..=1 << 14).contains(b));
    let block = block.ok_or_else(|| Fault::node("attribute blocksize is missing or out of range"))?;
    let column_row_depth = match n.text_or("mode", "DCR")? {
        "DCR" => false,
        "CRD" => true,
        other => return Err(Fault::node(format!("mode {} is not defined", quote(other)))),
    };
    match cx.shape(x)[..] {
        [b, c, h, w] => Ok(([b, c, h, w], block, column_row_depth)),
        _ => Err(Fault::node(format!("{} must have 4 dimensions", cx.ty(x)))),
    }
}

pub fn depth_to_space(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    let ([b, c, h, w], s, crd) = blocks(cx, n, x)?;
    if c % (s * s) != 0 {
        return Err(Fault::node(format!("{c} channels do not divide by {s} x {s} blocks")));
    }
    let depth = c / (s * s);
    let (apart, perm) = match crd {
        true => ([b, depth, s, s, h, w], vec![0, 1, 4, 2, 5, 3]),
        false => ([b, s, s, depth, h, w], vec![0, 3, 4, 1, 5, 2]),
    };
    let x = cx.reshape(x, apart, n)?;
    let x = cx.transpose(x, perm, n)?;
    Ok(vec![cx.reshape(x, [b, depth, h * s, w * s], n)?])
}

pub fn space_to_depth(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    let ([b, c, h, w], s, crd) = blocks(cx, n, x)?;
    if h % s != 0 || w % s != 0 {
        return Err(Fault::node(format!("{h} x {w} elements do not divide in {s} x {s} blocks")));
    }
    let x = cx.reshape(x, [b, c, h / s, s, w / s, s], n)?;
    let x = cx.transpose(x, if crd { vec![0, 1, 3, 5, 2, 4] } else { vec![0, 3, 5, 1, 2, 4] }, n)?;
    Ok(vec![cx.reshape(x, [b, c * s * s, h / s, w / s], n)?])
}
