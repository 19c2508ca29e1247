//! Joins nested loops that walk memory as one.
//!
//! Two loops that are nested directly become one of `outer * inner` iterations where every index steps in the outer loop
//! by exactly what the inner one has covered. Element-wise chains over whole tensors become a single loop that way.

use mcc_ir::nest::{Expr, Index, Stmt, Var};

/// The statements with their loops joined.
pub fn coalesce(body: Vec<Stmt>) -> Vec<Stmt> {
    body.into_iter().map(join).collect()
}

fn join(stmt: Stmt) -> Stmt {
    let Stmt::For { var, extent, body } = stmt else { return stmt };
    let mut body = coalesce(body);
    if let [Stmt::For { var: inner, extent: count, body: work }] = body.as_mut_slice() {
        let (inner, count) = (*inner, *count);
        let mut fits = count > 0;
        work.iter_mut().for_each(|s| indices(s, &mut |i| fits &= coefficient(i, var) == coefficient(i, inner) * count));
        if fits {
            work.iter_mut().for_each(|s| indices(s, &mut |i| i.terms.retain(|t| t.0 != var)));
            return Stmt::For { var: inner, extent: extent * count, body: std::mem::take(work) };
        }
    }
    Stmt::For { var, extent, body }
}

fn coefficient(index: &Index, var: Var) -> i64 {
    index.terms.iter().find(|t| t.0 == var).map_or(0, |t| t.1)
}

/// Shows every index of a statement to `f`.
fn indices(stmt: &mut Stmt, f: &mut impl FnMut(&mut Index)) {
    match stmt {
        Stmt::For { body, .. } => body.iter_mut().for_each(|s| indices(s, f)),
        Stmt::Let { value, .. } | Stmt::Set { value, .. } => in_expr(value, f),
        Stmt::Store { index, value, .. } => {
            in_index(index, f);
            in_expr(value, f);
        }
    }
}

fn in_index(index: &mut Index, f: &mut impl FnMut(&mut Index)) {
    if let Some(d) = &mut index.dynamic {
        in_expr(d, f);
    }
    f(index);
}

fn in_expr(e: &mut Expr, f: &mut impl FnMut(&mut Index)) {
    match e {
        Expr::F32(_) | Expr::I32(_) | Expr::Reg(_) => {}
        Expr::Index(i) | Expr::Load { index: i, .. } => in_index(i, f),
        Expr::Un(_, a) => in_expr(a, f),
        Expr::Bin(_, a, b) => {
            in_expr(a, f);
            in_expr(b, f);
        }
        Expr::Select(parts) => parts.iter_mut().for_each(|e| in_expr(e, f)),
        Expr::Guard { bounds, then, other } => {
            bounds.iter_mut().for_each(|b| in_index(&mut b.index, f));
            in_expr(then, f);
            in_expr(other, f);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcc_ir::nest::run;
    use mcc_ir::op::{Binary, Op};
    use mcc_ir::{DType, Tensor, TensorType, ops};

    /// The loops of an addition whose second operand has this shape, and whether its meaning stays.
    fn loops(operand: &[usize]) -> usize {
        let ty = TensorType::new(DType::I32, [2, 3, 4]);
        let other = TensorType::new(DType::I32, operand);
        let nest = ops::nest(&Op::binary(Binary::Add), &[&ty, &other], &ty).unwrap();
        let mut joined = nest.clone();
        joined.body = coalesce(joined.body);
        let count = |t: &TensorType| Tensor::from_i64(t.clone(), &(0..t.elements() as i64).collect::<Vec<_>>());
        let (a, b) = (count(&ty), count(&other));
        assert_eq!(run::run_on(&nest, &[&a, &b]), run::run_on(&joined, &[&a, &b]));
        let mut depth = 0;
        let mut body = &joined.body;
        while let [Stmt::For { body: inner, .. }] = body.as_slice() {
            depth += 1;
            body = inner;
        }
        depth
    }

    #[test]
    fn joins_what_is_contiguous() {
        assert_eq!(loops(&[2, 3, 4]), 1);
        assert_eq!(loops(&[]), 1);
        assert_eq!(loops(&[4]), 2);
        assert_eq!(loops(&[3, 4]), 2);
        assert_eq!(loops(&[2, 1, 1]), 2);
        assert_eq!(loops(&[3, 1]), 3);
    }
}
