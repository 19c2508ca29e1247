//! Transposes sink towards the outputs: f(transpose(x)) = transpose(f'(x)). Where two meet, they cancel.

use super::super::lang::{Node, Rewriter};
use super::{Rule, inverse, transposed, transposed_operand, transposes};
use crate::pass::Class;
use egg::Id;
use mcc_ir::op::{Op, PadMode, Reduce, Resize, Softmax, Step};

pub fn rules() -> Vec<Rule> {
    let rule = |name, apply| Rule { name, group: "layout", class: Class::Exact, apply };
    let dense = dense_of_flattened_transpose;
    vec![
        rule("map-of-transpose", map_of_transpose),
        rule("reduce-of-transpose", reduce_of_transpose),
        rule("softmax-of-transpose", softmax_of_transpose),
        rule("concat-of-transposes", concat_of_transposes),
        rule("window-of-transpose", window_of_transpose),
        rule("reshape-of-transpose", reshape_of_transpose),
        Rule { name: "dense-of-flattened-transpose", group: "layout", class: Class::Reassociates, apply: dense },
    ]
}

fn takes_operands(post: &[Step]) -> bool {
    post.iter().any(Step::takes_operand)
}

/// Single steps only: on the other side they are fused again, and longer chains would be derived many times over.
fn map_of_transpose(cx: &mut Rewriter<'_>, class: Id, node: &Node) -> Vec<Id> {
    let Some(Op::Map(steps)) = node.op() else { return vec![] };
    if steps.len() != 1 || cx.is_const(class) || cx.ty(node.children[0]).shape != cx.ty(class).shape {
        return vec![];
    }
    let mut found = vec![];
    for (perm, x) in transposes(cx, node.children[0]) {
        let back = inverse(&perm);
        let mut build = || {
            let mut children = vec![x];
            for &operand in &node.children[1..] {
                children.push(transposed_operand(cx, operand, &back)?);
            }
            let moved = cx.add(Op::Map(steps.clone()), children, class)?;
            cx.add(Op::Transpose { perm: perm.clone() }, vec![moved], class)
        };
        found.extend(build());
    }
    found
}

/// Only where the reduced axes keep their order, so that sums keep theirs.
fn reduce_of_transpose(cx: &mut Rewriter<'_>, class: Id, node: &Node) -> Vec<Id> {
    let Some(Op::Reduce(r)) = node.op() else { return vec![] };
    if takes_operands(&r.post) {
        return vec![];
    }
    let mut found = vec![];
    for (perm, x) in transposes(cx, node.children[0]) {
        let axes: Vec<usize> = r.axes.iter().map(|&a| perm[a]).collect();
        if !axes.is_sorted() {
            continue;
        }
        let order = if r.keepdims {
            perm
        } else {
            let kept: Vec<usize> = perm.iter().copied().filter(|p| !axes.contains(p)).collect();
            kept.iter().map(|p| kept.iter().filter(|q| *q < p).count()).collect()
        };
        let Some(moved) = cx.add(Op::Reduce(Reduce { axes, ..r.clone() }), vec![x], class) else { continue };
        found.extend(cx.add(Op::Transpose { perm: order }, vec![moved], class));
    }
    found
}

fn softmax_of_transpose(cx: &mut Rewriter<'_>, class: Id, node: &Node) -> Vec<Id> {
    let Some(Op::Softmax(s)) = node.op() else { return vec![] };
    if takes_operands(&s.post) {
        return vec![];
    }
    let mut found = vec![];
    for (perm, x) in transposes(cx, node.children[0]) {
        let op = Op::Softmax(Softmax { axis: perm[s.axis], ..s.clone() });
        let Some(moved) = cx.add(op, vec![x], class) else { continue };
        found.extend(cx.add(Op::Transpose { perm }, vec![moved], class));
    }
    found
}

/// Where one part is transposed, all are.
fn concat_of_transposes(cx: &mut Rewriter<'_>, class: Id, node: &Node) -> Vec<Id> {
    let Some(Op::Concat { axis }) = node.op() else { return vec![] };
    if cx.is_const(class) {
        return vec![];
    }
    let mut perms: Vec<Vec<usize>> =
        node.children.iter().flat_map(|c| transposes(cx, *c)).map(|(perm, _)| perm).collect();
    perms.sort();
    perms.dedup();
    let mut found = vec![];
    for perm in perms {
        let back = inverse(&perm);
        let mut build = || {
            let mut children = Vec::with_capacity(node.children.len());
            for &c in &node.children {
                children.push(transposed(cx, c, &back)?);
            }
            let moved = cx.add(Op::Concat { axis: perm[*axis] }, children, class)?;
            cx.add(Op::Transpose { perm: perm.clone() }, vec![moved], class)
        };
        found.extend(build());
    }
    found
}

/// Slices, padding and resampling, whose attributes name every dimension.
fn window_of_transpose(cx: &mut Rewriter<'_>, class: Id, node: &Node) -> Vec<Id> {
    let Some(op) = node.op() else { return vec![] };
    if !matches!(op, Op::Slice { .. } | Op::Pad { .. } | Op::Resize(_)) {
        return vec![];
    }
    let mut found = vec![];
    for (perm, x) in transposes(cx, node.children[0]) {
        let back = inverse(&perm);
        fn permuted<T: Copy>(values: &[T], by: &[usize]) -> Vec<T> {
            by.iter().map(|&p| values[p]).collect()
        }
        let moved = match op {
            Op::Slice { start, step, shape } => {
                Op::Slice { start: permuted(start, &back), step: permuted(step, &back), shape: permuted(shape, &back) }
            }
            Op::Pad { before, after, mode } => {
                Op::Pad { before: permuted(before, &back), after: permuted(after, &back), mode: *mode }
            }
            Op::Resize(r) => {
                Op::Resize(Resize { shape: permuted(&r.shape, &back), scales: permuted(&r.scales, &back), ..r.clone() })
            }
            _ => continue,
        };
        let mut children = node.children.clone();
        children[0] = x;
        debug_assert!(children.len() == 1 || matches!(op, Op::Pad { mode: PadMode::Constant, .. }));
        let Some(moved) = cx.add(moved, children, class) else { continue };
        found.extend(cx.add(Op::Transpose { perm }, vec![moved], class));
    }
    found
}

/// How a reshape groups dimensions: runs of source dimensions with as many elements as runs of result dimensions.
fn groups(from: &[usize], to: &[usize]) -> Option<Vec<(std::ops::Range<usize>, std::ops::Range<usize>)>> {
    let (mut i, mut j) = (0, 0);
    let mut groups = vec![];
    while i < from.len() || j < to.len() {
        let (first_i, first_j) = (i, j);
        let (mut a, mut b) = (1, 1);
        if from.get(i) == to.get(j) {
            (i, j) = (i + 1, j + 1);
            groups.push((first_i..i, first_j..j));
            continue;
        }
        loop {
            if a == b && (i > first_i || j > first_j) {
                break;
            }
            if a <= b && i < from.len() {
                a *= from[i];
                i += 1;
            } else if j < to.len() {
                b *= to[j];
                j += 1;
            } else {
                return None;
            }
        }
        groups.push((first_i..i, first_j..j));
    }
    Some(groups)
}

/// reshape(transpose(x)) = transpose(reshape(x)), each group of dimensions that the reshape joins or splits moved as one.
///
/// A group whose dimensions do not lie together and in order in x is first brought together by an inner transpose: a
/// channel shuffle stays a shuffle of channels, wherever the channels are.
fn reshape_of_transpose(cx: &mut Rewriter<'_>, class: Id, node: &Node) -> Vec<Id> {
    let Some(Op::Reshape { shape }) = node.op() else { return vec![] };
    if cx.is_const(class) {
        return vec![];
    }
    let from = cx.ty(node.children[0]).shape.clone();
    // With one long dimension the transpose is a reshape itself, and there are many ways to say so.
    if from.iter().filter(|&&d| d > 1).count() < 2 {
        return vec![];
    }
    let Some(groups) = groups(&from, shape) else { return vec![] };
    let mut found = vec![];
    for (perm, x) in transposes(cx, node.children[0]) {
        // Groups in the order in which x holds their first element; a group of no source dimension goes to the end.
        let place = |source: &std::ops::Range<usize>| source.clone().map(|d| perm[d]).min().unwrap_or(usize::MAX);
        let mut by_x: Vec<usize> = (0..groups.len()).collect();
        by_x.sort_by_key(|&g| place(&groups[g].0));
        let order: Vec<usize> = by_x.iter().flat_map(|&g| groups[g].1.clone()).collect();
        if order.is_sorted() {
            continue;
        }
        let together: Vec<usize> = by_x.iter().flat_map(|&g| groups[g].0.clone().map(|d| perm[d])).collect();
        let build = || {
            let x = match together.is_sorted() {
                true => x,
                false => cx.add(Op::Transpose { perm: together }, vec![x], class)?,
            };
            let moved = cx.add(Op::Reshape { shape: order.iter().map(|&d| shape[d]).collect() }, vec![x], class)?;
            cx.add(Op::Transpose { perm: inverse(&order) }, vec![moved], class)
        };
        found.extend(build());
    }
    found
}

/// dense(flatten(transpose(x)), w) = dense(flatten(x), w with its columns in x's order).
fn dense_of_flattened_transpose(cx: &mut Rewriter<'_>, class: Id, node: &Node) -> Vec<Id> {
    let Some(Op::MatMul(m)) = node.op() else { return vec![] };
    let w = node.children[1];
    if !m.trans_b || !cx.is_const(w) || cx.ty(w).rank() != 2 {
        return vec![];
    }
    let mut found = vec![];
    for (op, inputs) in cx.ops(node.children[0], |op| matches!(op, Op::Reshape { .. })) {
        let Op::Reshape { shape } = op else { continue };
        for (perm, x) in transposes(cx, inputs[0]) {
            let transposed = cx.ty(inputs[0]).shape.clone();
            let [n, k] = cx.ty(w).shape[..] else { continue };
            if perm[0] != 0 || shape != [transposed[0], k] {
                continue;
            }
            let columns: Vec<usize> = transposed[1..].to_vec();
            let back = inverse(&perm);
            let build = || {
                let wide = cx.add(Op::Reshape { shape: [vec![n], columns].concat() }, vec![w], w)?;
                let wide = cx.add(Op::Transpose { perm: back }, vec![wide], w)?;
                let w = cx.add(Op::Reshape { shape: vec![n, k] }, vec![wide], w)?;
                let x = cx.add(Op::Reshape { shape: shape.clone() }, vec![x], node.children[0])?;
                let mut children = node.children.clone();
                children[0] = x;
                children[1] = w;
                cx.add(Op::MatMul(m.clone()), children, class)
            };
            found.extend(build());
        }
    }
    found
}
