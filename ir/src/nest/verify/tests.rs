//! Nests that must be proved, and nests that must not.

use super::*;
use crate::nest::NestBuilder;
use crate::op::*;
use crate::ops;
use crate::scalar::Scalars;
use crate::tensor::Tensor;
use crate::types::TensorType;
use proptest::prelude::*;

fn f32(shape: &[usize]) -> TensorType {
    TensorType::new(DType::F32, shape)
}

/// The faults of a nest over `f32[4]` inputs and output, with a table of indices.
fn faults_of(table: &[i32], write: impl FnOnce(&mut NestBuilder, usize)) -> Vec<String> {
    let mut b = NestBuilder::new(&[&f32(&[4])], &f32(&[4]));
    let table = b.table(Tensor::new([table.len()], table));
    write(&mut b, table);
    faults(&b.finish())
}

fn load(arg: usize, index: Index) -> Expr {
    Expr::Load { arg, index }
}

fn computed(e: Expr) -> Index {
    Index { dynamic: Some(Box::new(e)), ..Index::default() }
}

#[test]
fn affine_indices_must_stay_inside() {
    let copy = |extent: usize, offset: i64| {
        faults_of(&[0], |b, _| {
            b.repeat(extent, |b, i| b.store(i.clone(), load(0, i.offset(offset))));
        })
    };
    assert_eq!(copy(4, 0), Vec::<String>::new());
    assert_eq!(copy(3, 1), Vec::<String>::new());
    assert!(copy(4, 1)[0].contains("load at i0 + 1 of argument 0 (f32[4]) may reach elements 1..=4"));
    assert!(copy(4, -1)[0].contains("elements -1..=2"));
    assert!(copy(5, 0).iter().any(|f| f.contains("store")));
    // Nothing runs, so nothing is out of range.
    assert_eq!(copy(0, 100), ["the output is never written"]);
}

#[test]
fn guards_refine_what_they_bound() {
    let guarded = |bound: Index, extent: i64, at: Index| {
        faults_of(&[0], |b, _| {
            b.repeat(4, |b, i| {
                let then = Box::new(load(0, at.clone()));
                let bounds = vec![Bound { index: bound.clone(), extent }];
                b.store(i, Expr::Guard { bounds, then, other: Box::new(Expr::F32(0.0)) });
            })
        })
    };
    let i = || Index::var(Var(0));
    assert!(guarded(i().offset(-1), 4, i().offset(-1)).is_empty());
    assert!(guarded(i().plus(Var(0), 1).offset(-3), 4, i().plus(Var(0), 1).offset(-3)).is_empty());
    assert!(!guarded(i().offset(-1), 5, i().offset(-2)).is_empty());
    assert!(!guarded(i().offset(-1), 4, i().offset(-2)).is_empty());
    // A branch that is never taken may say anything.
    assert!(guarded(i().offset(4), 4, i().offset(400)).is_empty());
}

#[test]
fn the_bound_that_narrows_most_is_taken() {
    // 2 - i - 2r is 0, which alone leaves r = 1; r itself is bounded to 0.
    let op = Op::ConvTranspose2d(ConvTranspose2d {
        layout: Layout::Nhwc,
        stride: [2, 2],
        pad: [2, 0, 0, 0],
        output_pad: [1, 0],
        dilation: [1, 1],
        groups: 2,
        bias: false,
        post: vec![],
    });
    let (x, w) = (f32(&[1, 1, 1, 2]), f32(&[2, 2, 1, 1]));
    let out = ops::infer(&op, &[&x, &w]).unwrap();
    let mut nest = ops::nest(&op, &[&x, &w], &out).unwrap();
    assert_eq!(faults(&nest), Vec::<String>::new());
    nest.args[0].shape = vec![1];
    assert!(!faults(&nest).is_empty());
}

#[test]
fn computed_indices_come_from_tables_and_clamps() {
    let at = |table: &[i32], make: &dyn Fn(&mut NestBuilder, Expr) -> Expr| {
        faults_of(table, |b, t| {
            b.repeat(2, |b, i| {
                let e = make(b, load(t, i.clone()));
                let e = b.share(e);
                b.store(i, load(0, computed(e)));
            })
        })
    };
    assert!(at(&[0, 3], &|_, e| e).is_empty());
    assert!(!at(&[0, 4], &|_, e| e).is_empty());
    assert!(!at(&[-1, 3], &|_, e| e).is_empty());
    assert!(at(&[-100, 400], &|b, e| b.clamp_i(e, 0, 3)).is_empty());
    assert!(at(&[0, 1], &|b, e| b.bin(BinOp::MulI, e, Expr::I32(3))).is_empty());
    assert!(
        at(&[-3, 2], &|b, e| {
            let e = b.share(e);
            let n = b.un(UnOp::NegI, e.clone());
            b.bin(BinOp::MaxI, e, n)
        })
        .is_empty()
    );
    // 2^30 * 4 wraps to 0, but the analysis does not rely on it.
    assert!(!at(&[1 << 30, 0], &|b, e| b.bin(BinOp::MulI, e, Expr::I32(4))).is_empty());
    assert!(at(&[9, 6], &|b, e| b.bin(BinOp::DivI, e, Expr::I32(3))).is_empty());
    assert!(!at(&[9, 6], &|b, e| b.bin(BinOp::DivI, e, Expr::I32(2))).is_empty());
}

#[test]
fn registers_that_change_are_not_trusted() {
    let faults = faults_of(&[0, 9], |b, t| {
        let r = b.let_(Expr::I32(0));
        b.repeat(2, |b, i| {
            b.store(i.clone(), load(0, computed(Expr::Reg(r))));
            b.set(r, load(t, i));
        });
    });
    assert!(faults[0].contains("may reach elements"), "{faults:?}");
}

#[test]
fn malformed_nests_are_named() {
    let valid = ops::nest(&Op::unary(Unary::Neg), &[&f32(&[4])], &f32(&[4])).unwrap();
    assert_eq!(faults(&valid), Vec::<String>::new());
    let with = |stmt: Stmt| {
        let mut nest = valid.clone();
        nest.regs = vec![ScalarType::F32, ScalarType::I32];
        nest.body.push(stmt);
        faults(&nest).join("; ")
    };
    let store = |value: Expr| Stmt::Store { arg: 1, index: Index::default(), value };
    let stop = |e: Expr| Box::new(e);
    for (stmt, fault) in [
        (store(Expr::Reg(Reg(0))), "r0 is used where it is not defined"),
        (store(Expr::Reg(Reg(7))), "r7 is used where it is not defined"),
        (store(Expr::I32(1)), "the stored value is F32, but its value I32"),
        (store(load(5, Index::default())), "argument 5 does not exist"),
        (store(load(0, Index::var(Var(9)))), "i9 is used outside its loop"),
        (Stmt::Store { arg: 0, index: Index::default(), value: Expr::F32(0.0) }, "not the output"),
        (Stmt::Let { reg: Reg(1), value: Expr::F32(0.0) }, "r1 is I32, but its value F32"),
        (Stmt::Let { reg: Reg(9), value: Expr::F32(0.0) }, "r9 is not declared"),
        (Stmt::Set { reg: Reg(0), value: Expr::F32(0.0) }, "r0 is used where it is not defined"),
        (Stmt::For { var: Var(9), extent: 1, body: vec![] }, "i9 is not declared"),
        (store(Expr::Un(UnOp::NegF, stop(Expr::I32(0)))), "the argument of NegF is F32, but its value I32"),
        (store(Expr::Bin(BinOp::AddF, stop(Expr::I32(0)), stop(Expr::F32(0.0)))), "an argument of AddF"),
        (store(Expr::Select(Box::new([Expr::F32(0.0), Expr::F32(0.0), Expr::F32(0.0)]))), "a condition"),
        (store(load(0, computed(Expr::F32(0.0)))), "a computed index"),
    ] {
        let found = with(stmt);
        assert!(found.contains(fault), "{found} instead of {fault}");
    }
    assert_eq!(faults(&Nest { body: vec![], ..valid.clone() }), ["the output is never written"]);
    assert!(faults(&Nest { inputs: 3, ..valid }).join("").contains("2 arguments, but 3 inputs"));
}

proptest! {
    /// Convolutions of every geometry are proved; one whose input is an image shorter than its nest believes is not.
    #[test]
    fn convolutions_are_proved(
        h in 1usize..7, w in 1usize..7, k in prop::array::uniform2(1usize..4), stride in prop::array::uniform2(1usize..3),
        pad in prop::array::uniform4(0usize..3), dilation in prop::array::uniform2(1usize..3), groups in 1usize..3,
        nchw in any::<bool>(),
    ) {
        let layout = if nchw { Layout::Nchw } else { Layout::Nhwc };
        let shape = |[n, c, h, w]: [usize; 4]| if nchw { f32(&[n, c, h, w]) } else { f32(&[n, h, w, c]) };
        let (x, weights) = (shape([2, 2 * groups, h, w]), shape([3 * groups, 2, k[0], k[1]]));
        let op = Op::Conv2d(Conv2d { layout, stride, pad, dilation, groups, pad_value: 0, bias: false, post: vec![] });
        let Ok(out) = ops::infer(&op, &[&x, &weights]) else { return Ok(()) };
        let mut nest = ops::nest(&op, &[&x, &weights], &out).unwrap();
        prop_assert_eq!(faults(&nest), Vec::<String>::new());
        // The first tap of the first output reads the image then.
        if pad[..2] == [0, 0] {
            nest.args[0].shape[0] = 1;
            prop_assert!(!faults(&nest).is_empty());
        }
    }
}
