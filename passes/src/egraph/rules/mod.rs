//! The rules of the e-graph, in small named groups.
//!
//! A rule looks at one node of a class, and through its children's classes at the forms below it, and returns classes that
//! are equal to the one it looked at. Rules are directional, their right sides are well typed or not added at all, and each
//! declares how exact it is.

mod fuse;
mod layout;
mod move_transpose;

use super::lang::{Node, Rewriter};
use crate::pass::Class;
use egg::Id;
use mcc_ir::op::Op;

/// A rewrite rule.
pub struct Rule {
    pub name: &'static str,
    pub group: &'static str,
    pub class: Class,
    /// Forms equal to the node of the class.
    pub apply: fn(&mut Rewriter<'_>, Id, &Node) -> Vec<Id>,
}

/// Every rule, in the order in which a round applies them.
pub fn all() -> Vec<Rule> {
    [fuse::rules(), layout::rules(), move_transpose::rules()].into_iter().flatten().collect()
}

/// The transposes among the forms of a class: their permutation and what they read.
fn transposes(cx: &Rewriter<'_>, id: Id) -> Vec<(Vec<usize>, Id)> {
    cx.nodes(id)
        .filter_map(|node| match node.op() {
            Some(Op::Transpose { perm }) => Some((perm.clone(), node.children[0])),
            _ => None,
        })
        .collect()
}

fn inverse(perm: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; perm.len()];
    perm.iter().enumerate().for_each(|(i, &p)| inverse[p] = i);
    inverse
}

/// What a class transposed by `perm` is: the source where it is the inverse transpose of something, else a new transpose.
fn transposed(cx: &mut Rewriter<'_>, id: Id, perm: &[usize]) -> Option<Id> {
    match source_of(cx, id, perm) {
        Some(source) => Some(source),
        None => cx.add(Op::Transpose { perm: perm.to_vec() }, vec![id], id),
    }
}

/// What a class is the transpose of, where transposing it by `perm` undoes that.
fn source_of(cx: &Rewriter<'_>, id: Id, perm: &[usize]) -> Option<Id> {
    let undone = inverse(perm);
    transposes(cx, id).into_iter().find(|(p, _)| *p == undone).map(|(_, source)| source)
}

/// An operand that broadcasts to a tensor of `perm.len()` dimensions, for that tensor transposed by `perm`: the operand
/// itself where it has one element, its source where it is the inverse transpose of something, a transposed constant.
///
/// Other operands give `None`: with a transpose made for each, the two sides of every addition would pass their transposes
/// to one another without end.
fn transposed_operand(cx: &mut Rewriter<'_>, operand: Id, perm: &[usize]) -> Option<Id> {
    let ty = cx.ty(operand).clone();
    let rank = perm.len();
    if ty.elements() == 1 && ty.rank() <= rank {
        return Some(operand);
    }
    if ty.rank() == rank
        && let Some(source) = source_of(cx, operand, perm)
    {
        return Some(source);
    }
    if ty.rank() > rank || !cx.is_const(operand) {
        return None;
    }
    let mut full = operand;
    if ty.rank() < rank {
        let shape = [vec![1; rank - ty.rank()], ty.shape].concat();
        full = cx.add(Op::Reshape { shape }, vec![operand], operand)?;
    }
    cx.add(Op::Transpose { perm: perm.to_vec() }, vec![full], operand)
}
