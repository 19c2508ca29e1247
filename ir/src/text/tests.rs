//! Round trips of everything that can be printed, and texts that must be refused.

use super::parse::parse_op;
use super::*;
use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId, origin};
use crate::op::*;
use crate::types::{F32, QuantParams};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn no_constants(_: &str) -> Option<Tensor> {
    None
}

/// Parses with the constants of another graph.
fn parse_with(text: &str, constants: &Graph) -> Result<Graph> {
    let all = collect_constants(constants);
    parse(text, &|hash| all.iter().find(|(h, _)| h == hash).map(|(_, t)| t.clone()))
}

#[track_caller]
fn assert_same(a: &Graph, b: &Graph) {
    assert_eq!((&a.name, &a.inputs, &a.outputs), (&b.name, &b.inputs, &b.outputs));
    assert!(a.values().eq(b.values()), "{a}\n{b}");
}

#[track_caller]
fn round_trip(graph: &Graph) {
    let text = print(graph);
    let parsed = parse_with(&text, graph).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_same(graph, &parsed);
}

const Q: QuantParams = QuantParams { scale: F32(0.1), zero_point: -3 };

/// Every function of one argument; the match below refuses to compile without a new one.
fn unaries() -> Vec<Unary> {
    use Unary::*;
    let x = F32(0.1);
    let all = vec![
        Neg,
        Abs,
        Sign,
        Relu,
        LeakyRelu(x),
        Elu(x),
        Clip(F32(-0.0), F32(f32::INFINITY)),
        Sigmoid,
        HardSigmoid(x, F32(1e-42)),
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
        Not,
    ];
    let number = |u: &Unary| match u {
        Neg => 0,
        Abs => 1,
        Sign => 2,
        Relu => 3,
        LeakyRelu(_) => 4,
        Elu(_) => 5,
        Clip(..) => 6,
        Sigmoid => 7,
        HardSigmoid(..) => 8,
        HardSwish => 9,
        Tanh => 10,
        Exp => 11,
        Log => 12,
        Sqrt => 13,
        Reciprocal => 14,
        Erf => 15,
        Gelu => 16,
        Softplus => 17,
        Softsign => 18,
        Floor => 19,
        Ceil => 20,
        Round => 21,
        Not => 22,
    };
    assert!(all.iter().map(number).eq(0..23));
    all
}

fn step_list() -> Vec<Step> {
    let mut all: Vec<Step> = unaries().into_iter().map(Step::Unary).collect();
    for op in Binary::ALL {
        for (swapped, dequant) in [(false, None), (true, None), (false, Some(Q)), (true, Some(Q))] {
            all.push(Step::Binary { op, swapped, dequant });
        }
    }
    all.extend(DType::ALL.map(Step::Cast));
    for rounding in [Rounding::F32HalfEven, Rounding::Single { shift: 31 }] {
        all.push(Step::Requant { rounding, zero: -1, lo: -128, hi: 127, dtype: DType::I8 });
    }
    all.push(Step::Dequant(Q));
    all.push(Step::Quant { q: Q, lo: i32::MIN, hi: i32::MAX, dtype: DType::I32 });
    let number = |s: &Step| match s {
        Step::Unary(_) => 0,
        Step::Binary { .. } => 1,
        Step::Cast(_) => 2,
        Step::Requant { .. } => 3,
        Step::Dequant(_) => 4,
        Step::Quant { .. } => 5,
    };
    assert!(all.iter().map(number).collect::<BTreeSet<_>>().into_iter().eq(0..6));
    all
}

/// Operators of every kind, with attributes at and away from their defaults.
fn op_list() -> Vec<Op> {
    let post = vec![
        Step::Unary(Unary::LeakyRelu(F32(0.01))),
        Step::Binary { op: Binary::Add, swapped: true, dequant: Some(Q) },
    ];
    let mut all = Vec::new();
    for (layout, plain) in [(Layout::Nchw, true), (Layout::Nhwc, false)] {
        let post = if plain { vec![] } else { post.clone() };
        let dequant = (!plain).then_some(Q);
        let pair = |d: usize, v: [usize; 2]| if plain { [d; 2] } else { v };
        let pad = if plain { [0; 4] } else { [1, 0, 2, 3] };
        let groups = if plain { 1 } else { 4 };
        all.push(Op::Conv2d(Conv2d {
            layout,
            stride: pair(1, [2, 1]),
            pad,
            dilation: pair(1, [1, 3]),
            groups,
            pad_value: if plain { 0 } else { -128 },
            bias: !plain,
            post: post.clone(),
        }));
        all.push(Op::ConvTranspose2d(ConvTranspose2d {
            layout,
            stride: pair(1, [2, 1]),
            pad,
            output_pad: pair(0, [1, 0]),
            dilation: pair(1, [1, 3]),
            groups,
            bias: !plain,
            post: post.clone(),
        }));
        all.push(Op::MatMul(MatMul { trans_b: !plain, bias: !plain, post: post.clone() }));
        for kind in [
            PoolKind::Max,
            PoolKind::Average { count_include_pad: false },
            PoolKind::Average { count_include_pad: true },
        ] {
            all.push(Op::Pool2d(Pool2d {
                kind,
                layout,
                kernel: [3, 2],
                stride: pair(1, [2, 1]),
                pad,
                dilation: pair(1, [1, 3]),
                dequant,
                post: post.clone(),
            }));
        }
        for kind in [ReduceKind::Sum, ReduceKind::Mean, ReduceKind::Max, ReduceKind::Min, ReduceKind::Prod] {
            all.push(Op::Reduce(Reduce { kind, axes: vec![1, 2], keepdims: plain, dequant, post: post.clone() }));
        }
        all.push(Op::Softmax(Softmax { axis: 1, log: plain, dequant, post: post.clone() }));
        all.push(Op::LayerNorm(LayerNorm { axis: 2, epsilon: F32(1e-5), post: post.clone() }));
        all.push(Op::Slice {
            start: vec![0, 9],
            step: if plain { vec![1, 1] } else { vec![2, -3] },
            shape: vec![1, 2],
        });
        all.push(Op::ArgMax { axis: 0, keepdims: plain, last: !plain });
    }
    all.extend(step_list().into_iter().map(|s| Op::Map(vec![s])));
    all.push(Op::Map(step_list()));
    all.push(Op::Map(vec![]));
    for nan in [0x7FC0_0001, 0xFFC0_0000, 0x7F80_0001] {
        all.push(Op::BatchNorm { epsilon: F32(f32::from_bits(nan)) });
    }
    all.push(Op::Reshape { shape: vec![] });
    all.push(Op::Transpose { perm: vec![2, 0, 1] });
    all.push(Op::Concat { axis: 3 });
    all.extend([PadMode::Constant, PadMode::Reflect, PadMode::Edge].map(|mode| Op::Pad {
        before: vec![0, 1],
        after: vec![2, 0],
        mode,
    }));
    all.push(Op::Gather { axis: 0 });
    all.push(Op::Broadcast { shape: vec![2, 0, 3] });
    all.push(Op::Where);
    let nearest = [NearestMode::RoundPreferFloor, NearestMode::RoundPreferCeil, NearestMode::Floor, NearestMode::Ceil];
    for mode in nearest.map(ResizeMode::Nearest).into_iter().chain([ResizeMode::Linear]) {
        for coordinates in [
            CoordinateMode::HalfPixel,
            CoordinateMode::PytorchHalfPixel,
            CoordinateMode::AlignCorners,
            CoordinateMode::Asymmetric,
        ] {
            all.push(Op::Resize(Resize { shape: vec![1, 4], scales: vec![F32(1.0), F32(1.5)], mode, coordinates }));
        }
    }
    for (cell, clip) in [
        (Cell::Rnn, None),
        (Cell::Gru { linear_before_reset: false }, None),
        (Cell::Gru { linear_before_reset: true }, Some(F32(3.5))),
        (Cell::Lstm { input_forget: false, peepholes: false }, None),
        (Cell::Lstm { input_forget: true, peepholes: true }, Some(F32(0.1))),
    ] {
        let mut activations = cell.default_activations().to_vec();
        all.push(Op::Recurrent(Recurrent { cell, reverse: false, activations: activations.clone(), clip: None }));
        activations[0] = Unary::HardSigmoid(F32(0.2), F32(0.5));
        all.push(Op::Recurrent(Recurrent { cell, reverse: true, activations, clip }));
    }
    all.push(Op::Quantize { axis: 1, dtype: DType::U8 });
    all.push(Op::Dequantize { axis: 1 });
    let number = |op: &Op| match op {
        Op::Conv2d(_) => 0,
        Op::ConvTranspose2d(_) => 1,
        Op::MatMul(_) => 2,
        Op::Pool2d(_) => 3,
        Op::Reduce(_) => 4,
        Op::Map(_) => 5,
        Op::Softmax(_) => 6,
        Op::LayerNorm(_) => 7,
        Op::BatchNorm { .. } => 8,
        Op::Reshape { .. } => 9,
        Op::Transpose { .. } => 10,
        Op::Concat { .. } => 11,
        Op::Slice { .. } => 12,
        Op::Pad { .. } => 13,
        Op::Gather { .. } => 14,
        Op::Broadcast { .. } => 15,
        Op::Where => 16,
        Op::Resize(_) => 17,
        Op::ArgMax { .. } => 18,
        Op::Quantize { .. } => 19,
        Op::Dequantize { .. } => 20,
        Op::Recurrent(_) => 21,
    };
    assert!(all.iter().map(number).collect::<BTreeSet<_>>().into_iter().eq(0..22));
    all
}

#[test]
fn every_operator_and_step_round_trips() {
    for op in op_list() {
        let text = op_text(&op, "");
        assert_eq!(parse_op(&text).as_ref(), Ok(&op), "{text}");
    }
}

/// Two inputs, constants of every way to print, steps, ports with quantisation, and origins.
fn sample() -> Graph {
    let mut g = Graph::new("sample net");
    let x = g.add_input("x \"1\"\n", TensorType::new(DType::F32, [1, 4, 4, 2]));
    let y = g.add_input("y", TensorType::new(DType::I8, [1, 4, 4, 3]));
    g.inputs[1].quant = Some(Q);
    let w = Tensor::from_f64(TensorType::new(DType::F32, [3, 3, 3, 2]), &(0..54).map(|v| v as f64).collect::<Vec<_>>());
    let w = g.add_const(w, origin("conv.weight"));
    let large = random_tensor(&TensorType::new(DType::F32, [1, 4, 4, 5]), 7, -1.0, 1.0).unwrap();
    let large = g.add_const(large, origin("large"));
    let bias = g.add_const(Tensor::new([3], &[0.5f32; 3]), [].into());
    let conv = Op::Conv2d(Conv2d {
        layout: Layout::Nhwc,
        stride: [1, 1],
        pad: [1; 4],
        dilation: [1, 1],
        groups: 1,
        pad_value: 0,
        bias: true,
        post: vec![Step::Unary(Unary::Relu)],
    });
    let c = g.add_node(conv, vec![x, w, bias], ["conv".into(), "re\\lu".into()].into()).unwrap();
    let sum = Step::Binary { op: Binary::Add, swapped: true, dequant: Some(Q) };
    let s = g.add_node(Op::Map(vec![sum, Step::Unary(Unary::Neg)]), vec![c, y], [].into()).unwrap();
    let r = g.add_node(Op::unary(Unary::Relu), vec![large], origin("dead")).unwrap();
    g.add_output("out", s);
    g.add_output("also", r);
    g.outputs[0].quant = Some(QuantParams { scale: F32(1e-30), zero_point: 255 });
    g
}

#[test]
fn a_graph_round_trips() {
    round_trip(&sample());
    round_trip(&Graph::new(""));
    let text = print(&sample());
    assert!(text.contains("v5 = conv2d v0, v2, v4 {layout = nhwc, pad = [1, 1, 1, 1], bias, post = [relu]}"), "{text}");
    assert!(text.contains("v4 = const f32[3] splat(0.5)\n"), "{text}");
    assert!(text.contains(" : f32[1x4x4x3] \"conv\", \"re\\\\lu\"\n"), "{text}");
    assert!(text.contains("return v6 \"out\" quant(1e-30, 255), v7 \"also\"\n"), "{text}");
    assert_eq!(collect_constants(&sample()).len(), 1);
}

#[test]
fn constants_that_numbers_cannot_hold_are_printed_as_a_hash() {
    for (dtype, count, data) in [
        (DType::Bool, 2, vec![2u8, 1]),
        (DType::T2, 3, vec![0b01_10_01]),
        (DType::I4, 1, vec![0x70]),
        (DType::Bool, 3, vec![2, 2, 2]),
    ] {
        let mut g = Graph::new("g");
        g.add_const(Tensor::from_bytes(TensorType::new(dtype, [count]), data).unwrap(), [].into());
        assert!(print(&g).contains("sha256:"), "{g}");
        round_trip(&g);
    }
}

#[test]
fn random_tensors_are_pinned() {
    let t = random_tensor(&TensorType::new(DType::F32, [3]), 0, 0.0, 1.0).unwrap();
    // The first words of SplitMix64 from seed 0: e220a8397b1dcdaf, 6e789e6aa1b965f4, 06c45d188009454f.
    assert_eq!(t.to_f32(), [0.883_310_8, 0.431_528, 0.026_433_771]);
    let t = random_tensor(&TensorType::new(DType::I8, [3]), 0, -128.0, 127.0).unwrap();
    assert_eq!(t.to_i64(), [0xe2 - 128, 0x6e - 128, 0x06 - 128]);
    let t = random_tensor(&TensorType::new(DType::B1, [3]), 0, -1.0, 1.0).unwrap();
    assert_eq!(t.to_i64(), [-1, 1, 1]);
    for (dtype, lo, hi) in [
        (DType::I8, -129.0, 0.0),
        (DType::I8, 0.5, 1.0),
        (DType::F32, 1.0, 0.0),
        (DType::F32, f64::NAN, 0.0),
        (DType::F32, 0.0, f64::INFINITY),
        (DType::B1, 0.0, 1.0),
    ] {
        assert_eq!(random_tensor(&TensorType::new(dtype, [1]), 0, lo, hi), None, "{dtype} {lo} {hi}");
    }
}

/// A graph with one input, this statement, and an empty return.
fn with(statement: &str) -> String {
    format!("graph @g(v0: f32[2x3]) {{\n{statement}\nreturn\n}}")
}

#[test]
fn hand_written_forms_are_accepted() {
    let text = "graph @g(x: f32[2], y: i8[2] quant(0.5, 1)) { // comment\n a = const i4[3] [7, -8, 0] b = const b1[2] \
                splat(-1) c = const bool[2] [true, false] d = const f16[3] [inf, -inf, nan(0x7e01)]\n z = add x, x \
                w = const i64[70] rand(1, -5, 5) return z, y \"why\" }";
    let g = parse(text, &no_constants).unwrap();
    assert_eq!(g.outputs[0].name, "z");
    assert_eq!(g.inputs[1].quant, Some(QuantParams { scale: F32(0.5), zero_point: 1 }));
    assert_eq!(g.constant(ValueId(2)).unwrap().to_i64(), [7, -8, 0]);
    round_trip(&g);
}

#[test]
fn faults_are_named_and_located() {
    for (statement, column, reason) in [
        ("v1 = relu v2", 11, "v2 is not defined before its use"),
        ("v0 = relu v0", 1, "v0 is defined twice"),
        ("v1 = frob v0", 6, "there is no operator `frob`"),
        ("v1 = relu v0 : f32[3x2]", 16, "the type is f32[2x3], not f32[3x2]"),
        ("v1 = relu v0, v0", 6, "relu: takes 1 inputs, has 2"),
        ("v1 = relu v0 {bias}", 15, "relu takes no further arguments"),
        ("v1 = matmul v0, v0 {trans_b, trans_b}", 30, "`trans_b` is given twice"),
        ("v1 = matmul v0, v0 {trans}", 21, "matmul has no such attribute; it has trans_b, bias, post"),
        ("v1 = matmul(3) v0, v0", 13, "matmul takes attributes in braces"),
        ("v1 = conv2d v0, v0", 6, "conv2d lacks its attribute `layout`"),
        ("v1 = conv2d v0, v0 {layout = nchw, stride = [1]}", 36, "expected 2 values, found 1"),
        ("v1 = conv2d v0, v0 {layout = chw}", 21, "expected one of nchw, nhwc"),
        ("v1 = concat v0 {axis = -1}", 17, "`-1` is not a whole number of 0..="),
        ("v1 = clip(0.0) v0", 6, "clip lacks its argument: the upper bound"),
        ("v1 = clip(0.0, 1e99) v0", 16, "`1e99` is too large"),
        ("v1 = clip(0.0, nan(0x1)) v0", 16, "nan takes its bits in hexadecimal"),
        ("v1 = map v0 {steps = [frob]}", 23, "there is no step `frob`"),
        ("v1 = map v0 {steps = relu}", 14, "expected a list"),
        ("v1 = const f32[2] [1.0]", 19, "f32[2] has 2 elements, not 1"),
        ("v1 = const i8[1] [128]", 19, "128 is no value of i8"),
        ("v1 = const b1[1] [0]", 19, "0 is no value of b1"),
        ("v1 = const f16[1] [1e6]", 20, "is too large"),
        ("v1 = const f16[1] [nan(0x1)]", 20, "not the bits of a NaN"),
        ("v1 = const f32[99999x99999] splat(0.0)", 12, "is too large"),
        ("v1 = const f32[20000000] splat(0.0)", 26, "splat and rand make more than"),
        ("v1 = const f32[2] sha256:12", 26, "expected the 64 hexadecimal digits"),
        ("v1 = const f32[2] rand(1, 2, 1)", 19, "the bounds of rand"),
        ("v1 = const f32[1xx2] [1.0]", 16, "expected dimensions"),
        ("v1 = const f32[18446744073709551616] [1.0]", 16, "expected dimensions"),
        ("v1 = requant(single(32), 0, 0, 1, i8) v0, v0", 21, "a shift is at most 31"),
        ("[", 1, "expected a value"),
        ("v1 = relu v0 }", 14, "expected a value (`v1 = ...`) or `return`"),
    ] {
        match parse(&with(statement), &no_constants) {
            Err(Error::Parse { line, column: c, reason: r }) => {
                assert!(r.contains(reason), "{statement}: {r}");
                assert_eq!((line, c), (2, column), "{statement}: {r}");
            }
            other => panic!("{statement}: {other:?}"),
        }
    }
    let deep = with(&format!("v1 = map v0 {{steps = {}", "[".repeat(100_000)));
    assert!(parse(&deep, &no_constants).unwrap_err().to_string().contains("nested too deeply"));
    let hash = format!("v1 = const f32[2] sha256:{}", "0".repeat(64));
    assert!(parse(&with(&hash), &no_constants).unwrap_err().to_string().contains("not at hand"));
    let wrong = |_: &str| Some(Tensor::new([2], &[1.0f32, 2.0]));
    assert!(parse(&with(&hash), &wrong).unwrap_err().to_string().contains("another hash"));
    assert!(
        parse(&with(&hash.replace("[2]", "[3]")), &wrong).unwrap_err().to_string().contains("is f32[2], not f32[3]")
    );
}

fn any_tensor() -> impl Strategy<Value = Tensor> {
    let dims = prop::collection::vec(0usize..6, 0..4);
    (prop::sample::select(DType::ALL.to_vec()), dims, any::<u64>(), any::<bool>()).prop_map(
        |(dtype, shape, seed, same)| {
            let ty = TensorType::new(dtype, shape);
            let mut words = SplitMix64(seed);
            let first = words.next().to_le_bytes();
            let size = dtype.bits().div_ceil(8);
            let data =
                (0..ty.bytes()).map(|i| if same { first[i % size] } else { words.next() as u8 }).collect::<Vec<u8>>();
            Tensor::from_bytes(ty, data).unwrap()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 512 } else { 4096 }))]

    #[test]
    fn constants_round_trip(tensors in prop::collection::vec(any_tensor(), 1..4)) {
        let mut g = Graph::new("g");
        tensors.into_iter().for_each(|t| { g.add_const(t, [].into()); });
        round_trip(&g);
    }

    #[test]
    fn names_round_trip(name in any::<String>(), port in any::<String>(), node in any::<String>()) {
        let mut g = Graph::new(name);
        let x = g.add_input(port.clone(), TensorType::new(DType::F32, [1]));
        let y = g.add_node(Op::unary(Unary::Neg), vec![x], origin(&node)).unwrap();
        g.add_output(port, y);
        round_trip(&g);
    }

    #[test]
    fn damaged_text_never_panics(edits in prop::collection::vec((any::<prop::sample::Index>(), 0u8..128, 0..3), 1..8)) {
        let graph = sample();
        let mut text = print(&graph).into_bytes();
        for (at, byte, kind) in edits {
            let at = at.index(text.len());
            match kind {
                0 => text[at] = byte,
                1 => text.insert(at, byte),
                _ => { text.remove(at); }
            }
        }
        if let Ok(g) = parse_with(&String::from_utf8_lossy(&text), &graph) {
            let again = parse_with(&print(&g), &g).unwrap();
            assert_same(&g, &again);
        }
    }
}
