//! Loop nests compiled by the JIT against their meaning.

mod jit_support;

use jit_support::*;
use mcc_backends::jit;
use mcc_ir::nest::{Bound, Expr, Index, Nest, NestBuilder, run};
use mcc_ir::op::*;
use mcc_ir::scalar::{BinOp, ScalarType, Scalars, UnOp};
use mcc_ir::types::{F32, QuantParams};
use mcc_ir::{DType, Tensor, TensorType};
use mcc_runtime::{RunError, Session, TensorMut, TensorRef};
use proptest::prelude::*;

/// Compiles a plan whose nest is made by hand, not that of its operator.
fn unverified(plan: &mcc_ir::Plan) -> Result<mcc_runtime::Session, jit::Error> {
    // SAFETY: the nests of these tests stay inside their arguments.
    unsafe { jit::compile_unverified(plan, mcc_runtime::Threads::new(1)) }
}

fn session(nest: &Nest, operands: &[Operand], inside: bool) -> Session {
    unverified(&nest_plan(&Op::Map(vec![]), operands, nest.clone(), inside)).expect("a plan that compiles")
}

/// Compiles a nest and compares it with the interpreter.
fn check_nest(what: &str, nest: &Nest, tensors: Vec<Tensor>) {
    let want = run::run_on(nest, &tensors.iter().collect::<Vec<_>>());
    let operands: Vec<Operand> = tensors.into_iter().map(Operand::Input).collect();
    for inside in [false, true] {
        let got = session(nest, &operands, inside).run_tensors(&inputs(&operands)).expect("a valid call");
        assert_eq!(difference(&got[0], &want), None, "{what}");
    }
}

fn check_op(op: &Op, operands: &[Operand]) {
    let want = expected(op, operands);
    for inside in [false, true] {
        let mut session = unverified(&op_plan(op, operands, inside)).expect("a plan that compiles");
        let got = session.run_tensors(&inputs(operands)).expect("a valid call");
        assert_eq!(difference(&got[0], &want), None, "{op:?}");
    }
}

const FLOATS: [f32; 27] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    1.5,
    2.5,
    -2.5,
    3.5,
    0.49999997,
    8388607.5,
    -8388609.0,
    16777216.0,
    2147483500.0,
    2147483648.0,
    -2147483648.0,
    -2147483904.0,
    1e20,
    f32::MIN_POSITIVE,
    1e-45,
    f32::MAX,
    f32::MIN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    -7.25,
];

const INTS: [i32; 17] =
    [0, 1, -1, 2, -2, 3, 7, -7, 127, -128, 255, 65536, 16777217, i32::MAX, i32::MIN, i32::MIN + 1, 1 << 30];

/// Elements of a scalar type, whose tensor type they have.
fn scalars(ty: ScalarType) -> Tensor {
    match ty {
        ScalarType::F32 => Tensor::new([FLOATS.len()], &FLOATS),
        ScalarType::I32 => Tensor::new([INTS.len()], &INTS),
    }
}

fn dtype(ty: ScalarType) -> DType {
    match ty {
        ScalarType::F32 => DType::F32,
        ScalarType::I32 => DType::I32,
    }
}

const UNARY: [UnOp; 13] = {
    use UnOp::*;
    [NegF, AbsF, SqrtF, FloorF, CeilF, RoundF, RoundToI, TruncToI, ToF, BitsOfF, FOfBits, NegI, NotI]
};

const BINARY: [BinOp; 25] = {
    use BinOp::*;
    [
        AddF,
        SubF,
        MulF,
        DivF,
        MinF,
        MaxF,
        AddI,
        SubI,
        MulI,
        DivI,
        MinI,
        MaxI,
        ShlI,
        ShrI,
        ShrU,
        AndI,
        OrI,
        XorI,
        EqF,
        LtF,
        LeF,
        EqI,
        LtI,
        LeI,
        MulHighRound,
    ]
};

#[test]
fn unary_operations_at_their_edges() {
    for op in UNARY {
        let x = scalars(op.argument());
        let out = TensorType::new(dtype(op.result()), x.shape());
        let mut b = NestBuilder::new(&[x.ty()], &out);
        b.repeat(x.ty().elements(), |b, i| {
            let v = b.load(0, i.clone());
            let v = b.un(op, v);
            b.store(i, v);
        });
        check_nest(&format!("{op:?}"), &b.finish(), vec![x]);
    }
}

/// Every pair of edge values: the row's is uniform in the inner loop on one side, then on the other.
#[test]
fn binary_operations_at_their_edges() {
    for op in BINARY {
        for swapped in [false, true] {
            let x = scalars(op.argument());
            let y = match op {
                BinOp::ShlI | BinOp::ShrI | BinOp::ShrU => Tensor::new([5], &[0, 1, 8, 30, 31]),
                _ => scalars(op.argument()),
            };
            let (n, m) = (x.shape()[0], y.shape()[0]);
            let (rows, columns) = if swapped { (n, m) } else { (m, n) };
            let out = TensorType::new(dtype(op.result()), [rows, columns]);
            let mut b = NestBuilder::new(&[x.ty(), y.ty()], &out);
            b.repeat(rows, |b, i| {
                b.repeat(columns, |b, j| {
                    let (ix, iy) = if swapped { (i.clone(), j.clone()) } else { (j.clone(), i.clone()) };
                    let (u, v) = (b.load(0, ix), b.load(1, iy));
                    let v = b.bin(op, u, v);
                    b.store(j.plus_scaled(&i, columns as i64), v);
                });
            });
            check_nest(&format!("{op:?} {swapped}"), &b.finish(), vec![x, y]);
        }
    }
}

/// Neither side is uniform: vectors meet vectors.
#[test]
fn binary_operations_lane_by_lane() {
    for op in BINARY.into_iter().filter(|op| !matches!(op, BinOp::ShlI | BinOp::ShrI | BinOp::ShrU)) {
        let edges = scalars(op.argument());
        let n = edges.shape()[0];
        let pick = |f: &dyn Fn(usize) -> usize| match op.argument() {
            ScalarType::F32 => Tensor::new([n * n], &(0..n * n).map(|i| FLOATS[f(i)]).collect::<Vec<_>>()),
            ScalarType::I32 => Tensor::new([n * n], &(0..n * n).map(|i| INTS[f(i)]).collect::<Vec<_>>()),
        };
        let (x, y) = (pick(&|i| i / n), pick(&|i| i % n));
        let out = TensorType::new(dtype(op.result()), [n * n]);
        let mut b = NestBuilder::new(&[x.ty(), y.ty()], &out);
        b.repeat(n * n, |b, i| {
            let (u, v) = (b.load(0, i.clone()), b.load(1, i.clone()));
            let v = b.bin(op, u, v);
            b.store(i, v);
        });
        check_nest(&format!("{op:?}"), &b.finish(), vec![x, y]);
    }
}

#[test]
fn select_takes_any_condition() {
    let (c, x) = (Tensor::new([17], &INTS), scalars(ScalarType::F32));
    let out = TensorType::new(DType::F32, [17]);
    for compared in [false, true] {
        let mut b = NestBuilder::new(&[c.ty(), x.ty()], &out);
        b.repeat(17, |b, i| {
            let mut condition = b.load(0, i.clone());
            if compared {
                condition = b.bin(BinOp::LtI, condition, Expr::I32(3));
            }
            let (then, other) = (b.load(1, i.clone()), b.load(1, Index::constant(3)));
            let v = b.select(condition, then, other);
            b.store(i, v);
        });
        check_nest("select", &b.finish(), vec![c.clone(), x.clone()]);
    }
}

/// Every element type is widened when read and narrowed when stored, in vectors and alone.
#[test]
fn element_types_convert() {
    for from in [DType::I64, DType::I32, DType::I16, DType::I8, DType::U8, DType::Bool] {
        let x = random(&TensorType::new(from, [19]), 7);
        let copy = TensorType::new(from, [19]);
        for out in [TensorType::new(DType::I32, [19]), copy] {
            let mut b = NestBuilder::new(&[x.ty()], &out);
            b.repeat(19, |b, i| {
                let v = b.load(0, i.clone());
                b.store(i, v);
            });
            check_nest(&format!("{from} to {out}"), &b.finish(), vec![x.clone()]);
        }
    }
}

/// A `bool` output holds 0 and 1 even where a model computes something else.
#[test]
fn bool_is_normalised() {
    let x = Tensor::new([17], &INTS);
    let mut b = NestBuilder::new(&[x.ty()], &TensorType::new(DType::Bool, [17]));
    b.repeat(17, |b, i| {
        let v = b.load(0, i.clone());
        b.store(i, v);
    });
    let operands = [Operand::Input(x.clone())];
    let got = session(&b.finish(), &operands, false).run_tensors(&[x]).unwrap();
    assert_eq!(got[0].bytes().to_vec(), INTS.map(|v| (v != 0) as u8));
}

/// Guards read nothing outside, also where they are uniform in a vector loop; computed indices address elements.
#[test]
fn guards_and_computed_indices() {
    let x = random(&TensorType::new(DType::F32, [5, 6]), 3);
    let at = Tensor::new([4], &[3i32, 0, 4, 1]);
    let out = TensorType::new(DType::F32, [8, 10]);
    let mut b = NestBuilder::new(&[x.ty(), at.ty()], &out);
    b.repeat(8, |b, i| {
        b.repeat(10, |b, j| {
            let (row, column) = (i.clone().offset(-2), j.clone().offset(-3));
            let then = b.load(0, row.clone().offset(0).plus_scaled(&Index::default(), 1));
            let inner = Expr::Guard {
                bounds: vec![Bound { index: column, extent: 6 }],
                then: Box::new(then),
                other: Box::new(Expr::F32(-1.0)),
            };
            let v = Expr::Guard {
                bounds: vec![Bound { index: row, extent: 5 }],
                then: Box::new(inner),
                other: Box::new(Expr::F32(-2.0)),
            };
            b.store(j.plus_scaled(&i, 10), v);
        });
    });
    check_nest("guard", &b.finish(), vec![x.clone(), at.clone()]);

    let mut b = NestBuilder::new(&[x.ty(), at.ty()], &out);
    b.repeat(8, |b, i| {
        b.repeat(10, |b, j| {
            let inside = b.load(0, j.clone());
            let v = Expr::Guard {
                bounds: vec![Bound { index: i.clone().offset(-2), extent: 5 }],
                then: Box::new(inside),
                other: Box::new(Expr::F32(-2.0)),
            };
            b.store(j.plus_scaled(&i, 10), v);
        });
    });
    check_nest("uniform guard", &b.finish(), vec![x.clone(), at.clone()]);

    let out = TensorType::new(DType::F32, [4, 6]);
    let mut b = NestBuilder::new(&[x.ty(), at.ty()], &out);
    b.repeat(4, |b, i| {
        b.repeat(6, |b, j| {
            let row = b.load(1, i.clone());
            let row = b.bin(BinOp::MulI, row, Expr::I32(6));
            let index = Index { dynamic: Some(Box::new(row)), ..j.clone() };
            let v = b.load(0, index);
            b.store(j.plus_scaled(&i, 6), v);
        });
    });
    check_nest("gather", &b.finish(), vec![x, at]);
}

/// Registers carried by a loop are not computed side by side.
#[test]
fn carried_registers_run_in_order() {
    let x = random(&TensorType::new(DType::F32, [3, 8]), 5);
    let mut b = NestBuilder::new(&[x.ty()], &x.ty().clone());
    b.repeat(3, |b, i| {
        let sum = b.let_(Expr::F32(0.0));
        b.repeat(8, |b, j| {
            let at = j.plus_scaled(&i, 8);
            let v = b.load(0, at.clone());
            let v = b.bin(BinOp::AddF, Expr::Reg(sum), v);
            b.set(sum, v);
            b.store(at, Expr::Reg(sum));
        });
    });
    check_nest("prefix sums", &b.finish(), vec![x]);
}

#[test]
fn values_of_loop_variables() {
    let out = TensorType::new(DType::I32, [3, 9]);
    let mut b = NestBuilder::new(&[], &out);
    b.repeat(3, |b, i| {
        b.repeat(9, |b, j| b.store(j.clone().plus_scaled(&i, 9), Expr::Index(j.offset(-4).plus_scaled(&i, 100))));
    });
    check_nest("index", &b.finish(), vec![]);
}

#[test]
fn every_unary_function_at_its_edges() {
    use Unary::*;
    let x = scalars(ScalarType::F32);
    for u in [
        Neg,
        Abs,
        Sign,
        Relu,
        LeakyRelu(F32(0.1)),
        Elu(F32(1.0)),
        Clip(F32(-0.5), F32(6.0)),
        Sigmoid,
        HardSigmoid(F32(0.2), F32(0.5)),
        HardSwish,
        Tanh,
        Exp,
        Log,
        Sqrt,
        Reciprocal,
        Erf,
        Gelu,
        Softplus,
        Softsign,
        Floor,
        Ceil,
        Round,
    ] {
        check_op(&Op::unary(u), &[Operand::Input(x.clone())]);
    }
}

#[test]
fn every_binary_function_at_its_edges() {
    let n = FLOATS.len();
    let (x, y) = (Tensor::new([n, 1], &FLOATS), Tensor::new([n], &FLOATS));
    for op in Binary::ALL {
        if matches!(op, Binary::And | Binary::Or | Binary::Xor) {
            let b = |shape: &[usize]| Operand::Input(random(&TensorType::new(DType::Bool, shape), 11));
            check_op(&Op::binary(op), &[b(&[6, 1]), b(&[11])]);
        } else {
            check_op(&Op::binary(op), &[Operand::Input(x.clone()), Operand::Input(y.clone())]);
        }
    }
}

fn quant() -> impl Strategy<Value = QuantParams> {
    (0.001f32..0.2, -128i32..128).prop_map(|(s, zero_point)| QuantParams { scale: F32(s), zero_point })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A quantised addition: everything that int8 chains are made of.
    #[test]
    fn integer_chains(a in quant(), b in quant(), c in quant(), rows in 1usize..4, columns in 1usize..23, seed: u64) {
        let op = Op::Map(vec![
            Step::Dequant(a),
            Step::Binary { op: Binary::Add, swapped: false, dequant: Some(b) },
            Step::Quant { q: c, lo: -128, hi: 127, dtype: DType::I8 },
        ]);
        let x = random(&TensorType::new(DType::I8, [rows, columns]), seed);
        let y = random(&TensorType::new(DType::I8, [columns]), seed ^ 1);
        check_op(&op, &[Operand::Input(x), Operand::Const(y)]);
    }

    #[test]
    fn float_convolutions(
        nhwc: bool, groups in 1usize..3, ic in 1usize..3, oc in 1usize..3, size in 3usize..7, kernel in 1usize..4,
        stride in 1usize..3, pad in 0usize..2, seed: u64,
    ) {
        let layout = if nhwc { Layout::Nhwc } else { Layout::Nchw };
        let order = |[n, c, h, w]: [usize; 4]| if nhwc { [n, h, w, c] } else { [n, c, h, w] };
        let op = Op::Conv2d(Conv2d {
            layout, stride: [stride, 1], pad: [pad, 0, pad, pad], dilation: [1, 1], groups, pad_value: 0, bias: true,
            post: vec![Step::Unary(Unary::Relu)],
        });
        let x = random(&TensorType::new(DType::F32, order([2, ic * groups, size, size])), seed);
        let w = random(&TensorType::new(DType::F32, order([oc * groups, ic, kernel, kernel])), seed ^ 1);
        let bias = random(&TensorType::new(DType::F32, [oc * groups]), seed ^ 2);
        check_op(&op, &[Operand::Input(x), Operand::Const(w), Operand::Const(bias)]);
    }

    #[test]
    fn matrix_products(batch in 1usize..3, m in 1usize..4, k in 1usize..9, n in 1usize..9, trans_b: bool, seed: u64) {
        let op = Op::MatMul(MatMul { trans_b, bias: false, post: vec![] });
        let a = random(&TensorType::new(DType::F32, [batch, m, k]), seed);
        let b = random(&TensorType::new(DType::F32, if trans_b { [n, k] } else { [k, n] }), seed ^ 1);
        check_op(&op, &[Operand::Input(a), Operand::Input(b)]);
    }
}

#[test]
fn calls_are_checked() {
    let x = Tensor::new([3], &[1f32, -2.0, 3.0]);
    let operands = [Operand::Input(x)];
    let mut session = unverified(&op_plan(&Op::unary(Unary::Neg), &operands, false)).unwrap();
    assert_eq!((session.inputs()[0].name.as_str(), session.outputs()[0].name.as_str()), ("in0", "out"));
    let mut out = vec![0f32; 3];
    session.run(&[(&vec![1f32, 2.0, 3.0]).into()], &mut [(&mut out).into()]).unwrap();
    assert_eq!(out, [-1.0, -2.0, -3.0]);
    let error = session.run(&[TensorRef::I8(&[1, 2, 3])], &mut [TensorMut::F32(&mut out)]).unwrap_err();
    assert_eq!(error.to_string(), "input \"in0\" is f32[3]; elements of type i8 are given");
    let error = session.run(&[TensorRef::F32(&[1.0])], &mut [TensorMut::F32(&mut out)]).unwrap_err();
    assert_eq!(error.to_string(), "input \"in0\" is f32[3], 3 elements; 1 are given");
    let error = session.run(&[TensorRef::F32(&[1.0; 3])], &mut [TensorMut::F32(&mut out[..2])]).unwrap_err();
    assert!(matches!(error, RunError::Length { side: "output", .. }));
    let error = session.run(&[], &mut [TensorMut::F32(&mut out)]).unwrap_err();
    assert_eq!(error.to_string(), "the model has 1 inputs, 0 are given");
}

#[test]
fn sessions_move_between_threads() {
    let x = Tensor::new([3], &[1f32, -2.0, 3.0]);
    let operands = [Operand::Input(x.clone())];
    let mut session = unverified(&op_plan(&Op::unary(Unary::Neg), &operands, true)).unwrap();
    let out = std::thread::spawn(move || session.run_tensors(&[x]).unwrap()).join().unwrap();
    assert_eq!(out[0].to_f32(), [-1.0, 2.0, -3.0]);
}

/// An operator in place: the output takes over the input's memory.
#[test]
fn in_place_kernels() {
    let x = random(&TensorType::new(DType::F32, [3, 7]), 1);
    let op = Op::Map(vec![Step::Unary(Unary::Neg), Step::Cast(DType::I8)]);
    let operands = [Operand::Input(x.clone())];
    let mut plan = op_plan(&op, &operands, true);
    plan.buffers[1].offset = plan.buffers[0].offset;
    let got = unverified(&plan).unwrap().run_tensors(&[x]).unwrap();
    assert_eq!(difference(&got[0], &expected(&op, &operands)), None);
}

#[test]
fn malformed_plans_are_refused() {
    let operands = [Operand::Input(Tensor::new([3], &[1f32, -2.0, 3.0]))];
    let good = op_plan(&Op::unary(Unary::Neg), &operands, true);
    let refused = |change: &dyn Fn(&mut mcc_ir::Plan)| {
        let mut plan = good.clone();
        change(&mut plan);
        unverified(&plan).err().expect("a refusal").code()
    };
    assert_eq!(refused(&|p| p.arena_bytes = 8), "E0503");
    assert_eq!(refused(&|p| p.buffers[0].bytes = 8), "E0503");
    assert_eq!(refused(&|p| p.buffers[1].offset = Some(usize::MAX)), "E0503");
    assert_eq!(refused(&|p| p.kernels[0].args.clear()), "E0503");
    assert_eq!(refused(&|p| p.kernels[0].implementation = "none"), "E0502");
    assert_eq!(refused(&|p| p.kernels[0].nest.args[0].dtype = DType::I32), "E0503");
    let half = |p: &mut mcc_ir::Plan| {
        p.kernels[0].nest.args[0].dtype = DType::F16;
        p.kernels[0].arg_types[0].dtype = DType::F16;
    };
    assert_eq!(refused(&half), "E0502");
}
