//! Folding of batch norms, scales and biases into weights, and fusion of element-wise work into its producer.

use super::super::lang::{Node, Rewriter};
use super::Rule;
use crate::pass::Class;
use egg::Id;
use mcc_ir::Tensor;
use mcc_ir::dtype::DType;
use mcc_ir::op::{Binary, Layout, Op, PadMode, Step, Unary};

/// Longest epilogue that fusion makes.
const MAX_STEPS: usize = 12;

pub fn rules() -> Vec<Rule> {
    let rule = |name, class, apply| Rule { name, group: "fuse", class, apply };
    vec![
        rule("batch-norm-as-scale", Class::Reassociates, batch_norm),
        rule("commute", Class::Exact, commute),
        rule("scale-into-weights", Class::Reassociates, scale_into_weights),
        rule("bias-into-product", Class::Reassociates, bias_into_product),
        rule("dequant-into-operand", Class::Exact, dequant_into_operand),
        rule("steps-into-producer", Class::Exact, steps_into_producer),
        rule("pad-into-window", Class::Exact, pad_into_window),
        rule("transposed-weights", Class::Exact, transposed_weights),
    ]
}

fn plain(op: Binary) -> Step {
    Step::Binary { op, swapped: false, dequant: None }
}

fn swapped(op: Binary) -> Step {
    Step::Binary { op, swapped: true, dequant: None }
}

/// The one binary step of a two-operand chain.
fn single_binary(node: &Node) -> Option<(Binary, bool, Id, Id)> {
    match (node.op()?, node.children.as_slice()) {
        (Op::Map(steps), &[a, b]) => match steps.as_slice() {
            [Step::Binary { op, swapped, dequant: None }] => Some((*op, *swapped, a, b)),
            _ => None,
        },
        _ => None,
    }
}

/// batch_norm(x) = x * k + (bias - mean * k), k = scale / sqrt(variance + epsilon).
fn batch_norm(cx: &mut Rewriter<'_>, class: Id, node: &Node) -> Vec<Id> {
    let Some(Op::BatchNorm { epsilon }) = node.op() else { return vec![] };
    let &[x, scale, bias, mean, variance] = node.children.as_slice() else { return vec![] };
    let rank = cx.ty(x).rank();
    let epsilon = cx.add_const(Tensor::scalar(epsilon.0));
    let mut build = || {
        let k = vec![plain(Binary::Add), Step::Unary(Unary::Sqrt), swapped(Binary::Div)];
        let k = cx.add(Op::Map(k), vec![variance, epsilon, scale], scale)?;
        let shift = vec![plain(Binary::Mul), swapped(Binary::Sub)];
        let shift = cx.add(Op::Map(shift), vec![mean, k, bias], bias)?;
        let channels = cx.ty(scale).elements();
        let shape = [vec![channels], vec![1; rank.saturating_sub(2)]].concat();
        let k = cx.add(Op::Reshape { shape: shape.clone() }, vec![k], scale)?;
        let shift = cx.add(Op::Reshape { shape }, vec![shift], bias)?;
        let scaled = cx.add(Op::Map(vec![plain(Binary::Mul)]), vec![x, k], class)?;
        cx.add(Op::Map(vec![plain(Binary::Add)]), vec![scaled, shift], class)
    };
    build().into_iter().collect()
}

/// op(a, b) = op'(b, a), so that either side can be the one that is fused into.
fn commute(cx: &mut Rewriter<'_>, class: Id, node: &Node) -> Vec<Id> {
    let Some((op, swapped, a, b)) = single_binary(node) else { return vec![] };
    if cx.is_const(b) || cx.is_const(class) {
        return vec![];
    }
    let symmetric = matches!(op, Binary::Add | Binary::Mul | Binary::Equal | Binary::And | Binary::Or | Binary::Xor);
    let step = Step::Binary { op, swapped: !swapped && !symmetric, dequant: None };
    cx.add(Op::Map(vec![step]), vec![b, a], class).into_iter().collect()
}

/// Products without epilogue among the forms of a class.
fn float_products(cx: &Rewriter<'_>, id: Id) -> Vec<(Op, Vec<Id>)> {
    if cx.ty(id).dtype != DType::F32 {
        return vec![];
    }
    cx.ops(id, is_bare_product)
}

fn is_bare_product(op: &Op) -> bool {
    matches!(op, Op::Conv2d(_) | Op::ConvTranspose2d(_) | Op::MatMul(_)) && op.post().is_some_and(Vec::is_empty)
}

/// Whether a constant holds one value, or one a channel, of a product's result.
fn is_per_channel(cx: &Rewriter<'_>, constant: Id, op: &Op, result: Id) -> bool {
    let (ty, result) = (cx.ty(constant), cx.ty(result));
    let axis = channel_axis(op, result.rank());
    let Some(lead) = result.rank().checked_sub(ty.rank()) else { return false };
    let fits = |(i, &d): (usize, &usize)| d == 1 || (i + lead == axis && d == result.shape[axis]);
    cx.is_const(constant) && result.dtype == DType::F32 && ty.shape.iter().enumerate().all(fits)
}

/// The dimension of a product's result that counts output channels.
fn channel_axis(op: &Op, rank: usize) -> usize {
    match op {
        Op::Conv2d(c) if c.layout == Layout::Nchw => 1,
        Op::ConvTranspose2d(c) if c.layout == Layout::Nchw => 1,
        _ => rank - 1,
    }
}

/// A constant that holds one value, or one a channel, as a tensor `[channels]`.
fn per_channel(cx: &mut Rewriter<'_>, constant: Id, op: &Op, result: Id) -> Option<Id> {
    if !is_per_channel(cx, constant, op, result) {
        return None;
    }
    let (ty, result) = (cx.ty(constant).clone(), cx.ty(result));
    let channels = result.shape[channel_axis(op, result.rank())];
    if ty.elements() == channels {
        return cx.add(Op::Reshape { shape: vec![channels] }, vec![constant], constant);
    }
    let one = cx.add(Op::Reshape { shape: vec![1] }, vec![constant], constant)?;
    cx.add(Op::Broadcast { shape: vec![channels] }, vec![one], constant)
}

/// product(x, w, b) * c = product(x, w * c, b * c).
fn scale_into_weights(cx: &mut Rewriter<'_>, class: Id, node: &Node) -> Vec<Id> {
    let Some((Binary::Mul, _, y, c)) = single_binary(node) else { return vec![] };
    let mut found = vec![];
    for (op, children) in float_products(cx, y) {
        if !cx.is_const(children[1]) || children.get(2).is_some_and(|b| !cx.is_const(*b)) {
            continue;
        }
        let mut build = || {
            let c = per_channel(cx, c, &op, y)?;
            let channels = cx.ty(c).elements();
            let shape = match &op {
                Op::Conv2d(_) => vec![channels, 1, 1, 1],
                Op::MatMul(m) if m.trans_b => vec![channels, 1],
                Op::MatMul(_) => vec![channels],
                Op::ConvTranspose2d(t) if t.groups == 1 && t.layout == Layout::Nchw => vec![channels, 1, 1],
                Op::ConvTranspose2d(t) if t.groups == 1 => vec![channels],
                _ => return None,
            };
            let factor = cx.add(Op::Reshape { shape }, vec![c], c)?;
            let mut children = children.clone();
            children[1] = cx.add(Op::Map(vec![plain(Binary::Mul)]), vec![children[1], factor], children[1])?;
            if let Some(bias) = children.get_mut(2) {
                *bias = cx.add(Op::Map(vec![plain(Binary::Mul)]), vec![*bias, c], *bias)?;
            }
            cx.add(op.clone(), children, class)
        };
        found.extend(build());
    }
    found
}

/// product(x, w, b) + c = product(x, w, b + c).
fn bias_into_product(cx: &mut Rewriter<'_>, class: Id, node: &Node) -> Vec<Id> {
    let Some((Binary::Add, _, y, c)) = single_binary(node) else { return vec![] };
    let mut found = vec![];
    for (mut op, mut children) in float_products(cx, y) {
        let build = || {
            let c = per_channel(cx, c, &op, y)?;
            match children.get_mut(2) {
                Some(bias) => *bias = cx.add(Op::Map(vec![plain(Binary::Add)]), vec![*bias, c], *bias)?,
                None => children.push(c),
            }
            match &mut op {
                Op::Conv2d(o) => o.bias = true,
                Op::ConvTranspose2d(o) => o.bias = true,
                Op::MatMul(o) => o.bias = true,
                _ => return None,
            }
            cx.add(op, children, class)
        };
        found.extend(build());
    }
    found
}

/// An operand that is only dequantised is read as integers.
fn dequant_into_operand(cx: &mut Rewriter<'_>, class: Id, node: &Node) -> Vec<Id> {
    let Some(op) = node.op() else { return vec![] };
    let (Some(post), Some(own)) = (op.post(), op.own_inputs()) else { return vec![] };
    let mut found = vec![];
    let operand_steps = post.iter().enumerate().filter(|(_, s)| s.takes_operand());
    for (operand, (at, step)) in operand_steps.enumerate() {
        let Step::Binary { op: binary, swapped, dequant: None } = step else { continue };
        let source = node.children[own + operand];
        let dequantised = |op: &Op| matches!(op, Op::Map(steps) if matches!(steps.as_slice(), [Step::Dequant(_)]));
        for (source, inputs) in cx.ops(source, dequantised) {
            let Op::Map(steps) = source else { continue };
            let [Step::Dequant(q)] = steps.as_slice() else { continue };
            let mut new = op.clone();
            let post = new.post_mut().expect("it has one");
            post[at] = Step::Binary { op: *binary, swapped: *swapped, dequant: Some(*q) };
            let mut children = node.children.clone();
            children[own + operand] = inputs[0];
            found.extend(cx.add(new, children, class));
        }
    }
    found
}

/// A chain over the result of an operator with an epilogue becomes part of the epilogue.
///
/// Not where an operand depends on that result, which would have to be computed twice; and not a constant scale or bias of a
/// product, which goes into its weights.
fn steps_into_producer(cx: &mut Rewriter<'_>, class: Id, node: &Node) -> Vec<Id> {
    let Some(Op::Map(steps)) = node.op() else { return vec![] };
    if cx.is_const(class) {
        return vec![];
    }
    let producer = node.children[0];
    let recomputes = node.children[1..].iter().any(|c| cx.depends_on(*c, producer));
    let scale = match (&steps[0], node.children.get(1)) {
        (Step::Binary { op: Binary::Add | Binary::Mul, dequant: None, .. }, Some(c)) => Some(*c),
        _ => None,
    };
    let mut found = vec![];
    let has_room = |op: &Op| op.post().is_some_and(|p| p.len() + steps.len() <= MAX_STEPS);
    for (mut op, mut children) in cx.ops(producer, has_room) {
        let folds = scale.is_some_and(|c| is_bare_product(&op) && is_per_channel(cx, c, &op, producer));
        if folds || (recomputes && !matches!(op, Op::Map(_))) {
            continue;
        }
        let Some(post) = op.post_mut() else { continue };
        post.extend(steps.iter().cloned());
        children.extend(&node.children[1..]);
        found.extend(cx.add(op, children, class));
    }
    found
}

/// Zeros around the input of a convolution become its padding.
fn pad_into_window(cx: &mut Rewriter<'_>, class: Id, node: &Node) -> Vec<Id> {
    let Some(Op::Conv2d(conv)) = node.op() else { return vec![] };
    let mut found = vec![];
    for (op, inputs) in cx.ops(node.children[0], |op| matches!(op, Op::Pad { .. })) {
        let Op::Pad { before, after, mode: PadMode::Constant } = op else { continue };
        let fill = match cx.constant(inputs[1]) {
            Some(t) => t.to_f64(),
            None => continue,
        };
        let (batch, channel, row, column) = match conv.layout {
            Layout::Nchw => (0, 1, 2, 3),
            Layout::Nhwc => (0, 3, 1, 2),
        };
        let only_spatial = [batch, channel].iter().all(|&d| before[d] == 0 && after[d] == 0);
        if !only_spatial || fill != [conv.pad_value as f64] {
            continue;
        }
        let mut conv = conv.clone();
        conv.pad[0] += before[row];
        conv.pad[1] += before[column];
        conv.pad[2] += after[row];
        conv.pad[3] += after[column];
        let mut children = node.children.clone();
        children[0] = inputs[0];
        found.extend(cx.add(Op::Conv2d(conv), children, class));
    }
    found
}

/// A constant right side is stored with the depth innermost.
fn transposed_weights(cx: &mut Rewriter<'_>, class: Id, node: &Node) -> Vec<Id> {
    let Some(Op::MatMul(m)) = node.op() else { return vec![] };
    let w = node.children[1];
    if m.trans_b || !cx.is_const(w) {
        return vec![];
    }
    let rank = cx.ty(w).rank();
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(rank - 1, rank - 2);
    let Some(w) = cx.add(Op::Transpose { perm }, vec![w], w) else { return vec![] };
    let mut children = node.children.clone();
    children[1] = w;
    cx.add(Op::MatMul(mcc_ir::op::MatMul { trans_b: true, ..m.clone() }), children, class).into_iter().collect()
}
