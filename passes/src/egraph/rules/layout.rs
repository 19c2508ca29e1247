//! Layout: spatial operators channels last, and the algebra of transposes and reshapes among themselves.

use super::super::lang::{Node, Rewriter};
use super::{Rule, transposed, transposed_operand, transposes};
use crate::pass::Class;
use egg::Id;
use mcc_ir::op::{Layout, Op};

const TO_NHWC: [usize; 4] = [0, 2, 3, 1];
const TO_NCHW: [usize; 4] = [0, 3, 1, 2];

pub fn rules() -> Vec<Rule> {
    let rule = |name, apply| Rule { name, group: "layout", class: Class::Exact, apply };
    vec![
        rule("channels-last", channels_last),
        rule("transpose-of-transpose", transpose_of_transpose),
        rule("transpose-as-reshape", transpose_as_reshape),
        rule("reshape-of-reshape", reshape_of_reshape),
        rule("same-shape", same_shape),
        rule("matmul-of-transposed", matmul_of_transposed),
    ]
}

/// A channels-first operator = transpose(the channels-last operator of transposes).
fn channels_last(cx: &mut Rewriter<'_>, class: Id, node: &Node) -> Vec<Id> {
    let Some(op) = node.op() else { return vec![] };
    let mut op = op.clone();
    let layout = match &mut op {
        Op::Conv2d(o) => &mut o.layout,
        Op::ConvTranspose2d(o) => &mut o.layout,
        Op::Pool2d(o) => &mut o.layout,
        _ => return vec![],
    };
    if *layout == Layout::Nhwc {
        return vec![];
    }
    *layout = Layout::Nhwc;
    let weights = matches!(op, Op::Conv2d(_) | Op::ConvTranspose2d(_));
    let own = op.own_inputs().expect("spatial operators have a fixed number");
    let mut children = node.children.clone();
    let build = || {
        for (i, child) in children.iter_mut().enumerate() {
            *child = match i {
                0 => transposed(cx, *child, &TO_NHWC)?,
                1 if weights => transposed(cx, *child, &TO_NHWC)?,
                i if i < own => *child,
                _ if cx.ty(*child).rank() == 4 => transposed(cx, *child, &TO_NHWC)?,
                _ => transposed_operand(cx, *child, &TO_NHWC)?,
            };
        }
        let last = cx.add(op, children, class)?;
        cx.add(Op::Transpose { perm: TO_NCHW.to_vec() }, vec![last], class)
    };
    build().into_iter().collect()
}

/// transpose(transpose(x)) = one transpose, or x.
fn transpose_of_transpose(cx: &mut Rewriter<'_>, class: Id, node: &Node) -> Vec<Id> {
    let Some(Op::Transpose { perm }) = node.op() else { return vec![] };
    let mut found = vec![];
    if perm.iter().enumerate().all(|(i, &p)| i == p) {
        found.push(node.children[0]);
    }
    for (inner, x) in transposes(cx, node.children[0]) {
        let perm: Vec<usize> = perm.iter().map(|&p| inner[p]).collect();
        if perm.iter().enumerate().all(|(i, &p)| i == p) {
            found.push(x);
        } else {
            found.extend(cx.add(Op::Transpose { perm }, vec![x], class));
        }
    }
    found
}

/// A transpose that keeps the order of the dimensions larger than 1 moves no element.
fn transpose_as_reshape(cx: &mut Rewriter<'_>, class: Id, node: &Node) -> Vec<Id> {
    let Some(Op::Transpose { perm }) = node.op() else { return vec![] };
    let from = cx.ty(node.children[0]).shape.clone();
    let large: Vec<usize> = perm.iter().copied().filter(|&p| from[p] != 1).collect();
    if !large.is_sorted() {
        return vec![];
    }
    let shape = cx.ty(class).shape.clone();
    cx.add(Op::Reshape { shape }, vec![node.children[0]], class).into_iter().collect()
}

fn reshape_of_reshape(cx: &mut Rewriter<'_>, class: Id, node: &Node) -> Vec<Id> {
    let Some(Op::Reshape { shape }) = node.op() else { return vec![] };
    let mut found = vec![];
    for (_, inputs) in cx.ops(node.children[0], |op| matches!(op, Op::Reshape { .. })) {
        found.extend(cx.add(Op::Reshape { shape: shape.clone() }, inputs, class));
    }
    found
}

/// A reshape or broadcast to the shape that is there is nothing.
fn same_shape(cx: &mut Rewriter<'_>, class: Id, node: &Node) -> Vec<Id> {
    match node.op() {
        Some(Op::Reshape { .. } | Op::Broadcast { .. }) if cx.ty(node.children[0]) == cx.ty(class) => {
            vec![node.children[0]]
        }
        _ => vec![],
    }
}

/// a x transpose(b) reads b the other way round.
fn matmul_of_transposed(cx: &mut Rewriter<'_>, class: Id, node: &Node) -> Vec<Id> {
    let Some(Op::MatMul(m)) = node.op() else { return vec![] };
    let mut found = vec![];
    for (perm, b) in transposes(cx, node.children[1]) {
        let rank = perm.len();
        let mut swap: Vec<usize> = (0..rank).collect();
        swap.swap(rank - 1, rank - 2);
        if perm != swap || cx.is_const(b) {
            continue;
        }
        let mut children = node.children.clone();
        children[1] = b;
        found.extend(cx.add(Op::MatMul(mcc_ir::op::MatMul { trans_b: !m.trans_b, ..m.clone() }), children, class));
    }
    found
}
