//! What running a loop nest takes, as counts.

use super::{Expr, Index, Nest, Stmt};
use crate::costs::Work;
use crate::scalar::{BinOp, ScalarType, UnOp};

/// The counts that [`Nest::work`] gives: the run itself; iterations of loops, those of short innermost loops apart, which
/// compilers unroll, and so their loads; stores, operations on integers and on floats, comparisons of floats, divisions and
/// roots, conversions and roundings, selections, tests whether an index is in bounds, and elements that a loop only copies.
pub const COUNTS: [&str; 15] = [
    "runs",
    "iterations",
    "iterations unrolled",
    "loads",
    "loads unrolled",
    "stores",
    "integers",
    "products",
    "floats",
    "comparisons",
    "divisions",
    "roundings",
    "selections",
    "bounds",
    "copies",
];

/// Innermost loops of at most so many iterations are unrolled.
const SHORT: i64 = 16;

/// How often each of [`COUNTS`] comes.
type Counts = [f64; COUNTS.len()];

/// The places of [`COUNTS`].
#[derive(Clone, Copy)]
enum Count {
    Runs,
    Iterations,
    Unrolled,
    Loads,
    LoadsUnrolled,
    Stores,
    Integers,
    Products,
    Floats,
    Comparisons,
    Divisions,
    Roundings,
    Selections,
    Bounds,
    Copies,
}

impl Nest {
    /// The work of one run; of a guarded expression, the part inside the bounds.
    pub fn work(&self) -> Work {
        let mut counts = [0.0; COUNTS.len()];
        counts[Count::Runs as usize] = 1.0;
        block(&self.body, 1.0, &mut counts);
        COUNTS.iter().zip(counts).filter(|(_, n)| *n > 0.0).fold(Work::default(), |work, (name, n)| work.and(name, n))
    }
}

impl Nest {
    /// What its code is made of: loops, and operations, of which those of short innermost loops are there many times.
    pub fn code(&self) -> Work {
        let mut loops = 0.0;
        let operations = operations(&self.body, &mut loops);
        Work::default().and("nests", 1.0).and("loops", loops).and("operations", operations)
    }
}

fn operations(body: &[Stmt], loops: &mut f64) -> f64 {
    let one = |statement: &Stmt| match statement {
        Stmt::For { extent, body, .. } => {
            *loops += 1.0;
            let innermost = !body.iter().any(|s| matches!(s, Stmt::For { .. }));
            operations(body, loops) * if innermost && *extent <= SHORT { *extent as f64 } else { 1.0 }
        }
        other => {
            let mut counts = [0.0; COUNTS.len()];
            block(std::slice::from_ref(other), 1.0, &mut counts);
            counts.iter().sum()
        }
    };
    body.iter().map(one).sum()
}

fn block(body: &[Stmt], times: f64, counts: &mut Counts) {
    for statement in body {
        match statement {
            Stmt::For { extent, body, .. } => {
                let times = times * *extent as f64;
                let innermost = !body.iter().any(|s| matches!(s, Stmt::For { .. }));
                if let [Stmt::Store { value: Expr::Load { .. }, .. }] = body[..] {
                    counts[Count::Copies as usize] += times;
                } else if innermost && *extent <= SHORT {
                    // The loads of such a loop are counted apart.
                    let before = counts[Count::Loads as usize];
                    counts[Count::Unrolled as usize] += times;
                    block(body, times, counts);
                    counts[Count::LoadsUnrolled as usize] += counts[Count::Loads as usize] - before;
                    counts[Count::Loads as usize] = before;
                } else {
                    counts[Count::Iterations as usize] += times;
                    block(body, times, counts);
                }
            }
            Stmt::Let { value, .. } | Stmt::Set { value, .. } => expression(value, times, counts),
            Stmt::Store { index, value, .. } => {
                counts[Count::Stores as usize] += times;
                place(index, times, counts);
                expression(value, times, counts);
            }
        }
    }
}

fn place(index: &Index, times: f64, counts: &mut Counts) {
    if let Some(e) = &index.dynamic {
        counts[Count::Integers as usize] += times;
        expression(e, times, counts);
    }
}

fn expression(e: &Expr, times: f64, counts: &mut Counts) {
    match e {
        Expr::F32(_) | Expr::I32(_) | Expr::Reg(_) => {}
        Expr::Index(index) => place(index, times, counts),
        Expr::Load { index, .. } => {
            counts[Count::Loads as usize] += times;
            place(index, times, counts);
        }
        Expr::Un(op, a) => {
            counts[match op {
                UnOp::SqrtF => Count::Divisions,
                UnOp::FloorF | UnOp::CeilF | UnOp::RoundF | UnOp::RoundToI | UnOp::TruncToI | UnOp::ToF => {
                    Count::Roundings
                }
                UnOp::NegF | UnOp::AbsF => Count::Floats,
                UnOp::BitsOfF | UnOp::FOfBits | UnOp::NegI | UnOp::NotI => Count::Integers,
            } as usize] += times;
            expression(a, times, counts);
        }
        Expr::Bin(op, a, b) => {
            counts[match (op, op.argument()) {
                (BinOp::DivF | BinOp::DivI, _) => Count::Divisions,
                (BinOp::MulI | BinOp::MulHighRound, _) => Count::Products,
                (BinOp::MinF | BinOp::MaxF | BinOp::EqF | BinOp::LtF | BinOp::LeF, _) => Count::Comparisons,
                (_, ScalarType::F32) => Count::Floats,
                (_, ScalarType::I32) => Count::Integers,
            } as usize] += times;
            expression(a, times, counts);
            expression(b, times, counts);
        }
        Expr::Select(parts) => {
            counts[Count::Selections as usize] += times;
            parts.iter().for_each(|part| expression(part, times, counts));
        }
        Expr::Guard { bounds, then, .. } => {
            counts[Count::Bounds as usize] += times * bounds.len() as f64;
            expression(then, times, counts);
        }
    }
}
