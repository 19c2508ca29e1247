//! Every implementation of the runtime's catalogue against the evaluator.

mod jit_support;

use jit_support::*;
use mcc_backends::jit;
use mcc_ir::catalogue::Implementation;
use mcc_ir::op::*;
use mcc_ir::plan::{Arg, BufferKind, Over, Overlap};
use mcc_ir::types::{F32, QuantParams};
use mcc_ir::{DType, Tensor, TensorType};
use mcc_runtime::{CATALOGUE, Threads, cpu};
use proptest::prelude::*;

fn implementation(id: &str) -> &'static Implementation {
    CATALOGUE.iter().find(|i| i.id == id).expect("an implementation of this name")
}

/// The implementations of this name for every level that this process has.
fn levels(name: &str) -> Vec<&'static Implementation> {
    let highest = cpu::level().expect("a level");
    let levels = cpu::available().into_iter().filter(|l| *l <= highest);
    let ids: Vec<String> = levels.map(|l| format!("{name}_{}", l.name())).chain([name.to_string()]).collect();
    let found: Vec<_> = CATALOGUE.iter().filter(|i| ids.iter().any(|id| id == i.id)).collect();
    assert!(!found.is_empty(), "no implementation {name}");
    found
}

/// Numerics' bound on reordered sums of `f32`.
const BOUND: f64 = 1e-5;

/// Runs an operator under an implementation on every level; integers must be equal, floats within the bound.
fn check(name: &str, op: &Op, operands: &[Operand]) {
    let want = expected(op, operands);
    for implementation in levels(name) {
        check_one(implementation, op, operands, &want);
    }
}

fn check_one(implementation: &Implementation, op: &Op, operands: &[Operand], want: &Tensor) {
    let id = implementation.id;
    for inside in [false, true] {
        let Some(mut plan) = implement(op_plan(op, operands, inside), implementation) else {
            panic!("{id} does not offer itself for {op:?}");
        };
        compare(id, op, operands, want, &plan);
        // The output placed upon a residual that dies here.
        let out = plan.kernels[0].out;
        let lent = plan.kernels[0].args.clone().into_iter().skip(1).find_map(|a| match a {
            Arg::Buffer(b) => Some(b),
            Arg::Const(_) => None,
        });
        if let (true, Some(lent)) = (inside && !matches!(op, Op::MatMul(m) if m.post.is_empty()), lent)
            && plan.buffer(lent).bytes == plan.buffer(out).bytes
            && op.post().is_some_and(|p| p.iter().any(Step::takes_operand))
        {
            assert!(matches!(plan.buffer(lent).kind, BufferKind::Input(_)));
            plan.buffers[out.index()].offset = plan.buffer(lent).offset;
            plan.buffers[out.index()].over = Some(Over { donor: lent, how: Overlap::InPlace });
            compare(id, op, operands, want, &plan);
        }
    }
}

fn compare(id: &str, op: &Op, operands: &[Operand], want: &Tensor, plan: &mcc_ir::Plan) {
    let got = jit::compile(plan).expect("a plan that compiles").run_tensors(&inputs(operands)).expect("a valid call");
    for count in [2, 3, 7] {
        // However small the call.
        let threads = Threads { count, enough: 1.0 };
        let mut session = jit::compile_for_threads(plan, threads).expect("a plan that compiles");
        let shared = session.run_tensors(&inputs(operands)).expect("a valid call");
        assert_eq!(difference(&shared[0], &got[0]), None, "{id} on {count} threads for {op:?}");
    }
    if want.dtype().is_float() {
        let distance = distance(&got[0], want);
        assert!(distance <= BOUND, "{id} is off by {distance:e} for {op:?}");
    } else {
        assert_eq!(difference(&got[0], want), None, "{id} for {op:?}");
    }
}

/// What follows the accumulators.
#[derive(Clone, Copy, Debug)]
enum Post {
    None,
    Activation,
    /// Relu after adding a tensor of the output's shape.
    Residual,
    /// Functions after adding such a tensor, which kernels apply in a second step.
    Functions,
    /// Functions with a row as operand: compiled code applies them.
    Compiled,
}

/// Steps over an accumulator, and their operands; `channels` last in the output `shape`.
fn epilogue(post: Post, float: bool, single: bool, shape: &[usize], seed: u64) -> (Vec<Step>, Vec<Operand>) {
    let channels = shape[shape.len() - 1];
    let add = |dequant| Step::Binary { op: Binary::Add, swapped: false, dequant };
    let relu = Step::Unary(Unary::Relu);
    if float {
        let residual = || Operand::Input(random(&TensorType::new(DType::F32, shape), seed));
        return match post {
            Post::None => (vec![], vec![]),
            Post::Activation => (vec![relu], vec![]),
            Post::Residual => (vec![add(None), relu], vec![residual()]),
            Post::Functions => {
                let steps = vec![add(None), relu, Step::Unary(Unary::HardSwish), Step::Unary(Unary::Tanh)];
                (steps, vec![residual()])
            }
            Post::Compiled => {
                let row = Operand::Input(random(&TensorType::new(DType::F32, [channels]), seed));
                (vec![Step::Unary(Unary::Abs), add(None), relu], vec![row])
            }
        };
    }
    let q = QuantParams { scale: F32(0.07), zero_point: 5 };
    let requant = if single {
        let multipliers: Vec<i32> = (0..channels).map(|c| (1 << 20) + 12345 * c as i32).collect();
        let rounding = Rounding::Single { shift: 3 };
        let step = Step::Requant { rounding, zero: -3, lo: -128, hi: 127, dtype: DType::I8 };
        (step, Operand::Const(Tensor::new([channels], &multipliers)))
    } else {
        let scales: Vec<f32> = (0..channels).map(|c| 1e-3 + 1e-4 * c as f32).collect();
        let step = Step::Requant { rounding: Rounding::F32HalfEven, zero: -3, lo: -128, hi: 127, dtype: DType::I8 };
        (step, Operand::Const(Tensor::new([channels], &scales)))
    };
    match post {
        Post::None => (vec![], vec![]),
        Post::Activation => (vec![requant.0], vec![requant.1]),
        Post::Residual | Post::Functions => {
            let quant = Step::Quant { q, lo: -128, hi: 127, dtype: DType::I8 };
            let residual = Operand::Input(random(&TensorType::new(DType::I8, shape), seed));
            (vec![requant.0, Step::Dequant(q), add(Some(q)), quant], vec![requant.1, residual])
        }
        Post::Compiled => {
            let quant = Step::Quant { q, lo: -128, hi: 127, dtype: DType::I8 };
            (vec![requant.0, Step::Dequant(q), Step::Unary(Unary::HardSwish), quant], vec![requant.1])
        }
    }
}

/// Functions for chains.
const CHAIN: [Unary; 22] = [
    Unary::Neg,
    Unary::Abs,
    Unary::Sign,
    Unary::Relu,
    Unary::LeakyRelu(F32(0.1)),
    Unary::Elu(F32(0.9)),
    Unary::Clip(F32(-0.5), F32(0.25)),
    Unary::Sigmoid,
    Unary::HardSigmoid(F32(0.2), F32(0.5)),
    Unary::HardSwish,
    Unary::Tanh,
    Unary::Exp,
    Unary::Log,
    Unary::Sqrt,
    Unary::Reciprocal,
    Unary::Erf,
    Unary::Gelu,
    Unary::Softplus,
    Unary::Softsign,
    Unary::Floor,
    Unary::Ceil,
    Unary::Round,
];

fn post() -> impl Strategy<Value = Post> {
    prop::sample::select(vec![Post::None, Post::Activation, Post::Residual, Post::Functions, Post::Compiled])
}

fn input_type() -> impl Strategy<Value = DType> {
    prop_oneof![Just(DType::F32), Just(DType::I8), Just(DType::U8)]
}

#[derive(Clone, Debug)]
struct Shape {
    dtype: DType,
    batch: usize,
    size: [usize; 2],
    channels: usize,
    kernel: [usize; 2],
    stride: [usize; 2],
    pad: [usize; 4],
    dilation: [usize; 2],
    pad_value: i32,
    bias: bool,
    post: Post,
    single: bool,
    seed: u64,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let geometry = (1usize..3, [5usize..12, 5usize..20], 1usize..21, [1usize..4, 1usize..4], [1usize..4, 1usize..3]);
    let padding = ([0usize..3, 0usize..3, 0usize..3, 0usize..3], [1usize..3, 1usize..3], 0i32..100);
    (geometry, padding, (input_type(), post(), any::<bool>(), any::<bool>(), any::<u64>())).prop_map(
        |((batch, size, channels, kernel, stride), (pad, dilation, pad_value), (dtype, post, bias, single, seed))| {
            let pad_value = if dtype == DType::F32 { 0 } else { pad_value };
            Shape { dtype, batch, size, channels, kernel, stride, pad, dilation, pad_value, bias, post, single, seed }
        },
    )
}

/// A convolution of `out_channels`, with one input channel a group where `depthwise`.
fn convolution(s: &Shape, depthwise: bool, out_channels: usize) -> (Op, Vec<Operand>) {
    let float = s.dtype == DType::F32;
    let weights = TensorType::new(
        if float { DType::F32 } else { DType::I8 },
        [out_channels, s.kernel[0], s.kernel[1], if depthwise { 1 } else { s.channels }],
    );
    let x = TensorType::new(s.dtype, [s.batch, s.size[0], s.size[1], s.channels]);
    let mut op = Conv2d {
        layout: Layout::Nhwc,
        stride: s.stride,
        pad: s.pad,
        dilation: s.dilation,
        groups: if depthwise { s.channels } else { 1 },
        pad_value: s.pad_value,
        bias: s.bias,
        post: vec![],
    };
    let mut operands = vec![Operand::Input(random(&x, s.seed)), Operand::Const(random(&weights, s.seed ^ 1))];
    if s.bias {
        let ty = TensorType::new(if float { DType::F32 } else { DType::I32 }, [out_channels]);
        operands.push(Operand::Const(random(&ty, s.seed ^ 2)));
    }
    let out = mcc_ir::ops::infer(&Op::Conv2d(op.clone()), &types(&operands)).expect("a valid convolution");
    let (steps, more) = epilogue(s.post, float, s.single, &out.shape, s.seed ^ 3);
    op.post = steps;
    operands.extend(more);
    (Op::Conv2d(op), operands)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn convolutions(s in shapes(), out_channels in 1usize..36) {
        let (op, operands) = convolution(&s, false, out_channels);
        check(if s.dtype == DType::F32 { "product_f32" } else { "product_i8" }, &op, &operands);
    }

    /// Panels of every width, the last one full or not.
    #[test]
    fn wide_products(dtype in input_type(), m in 1usize..15, k in 1usize..12, n in 1usize..280, post in post(), seed: u64) {
        let float = dtype == DType::F32;
        let a = random(&TensorType::new(dtype, [m, k]), seed);
        let b = random(&TensorType::new(if float { DType::F32 } else { DType::I8 }, [n, k]), seed ^ 1);
        let (steps, more) = epilogue(post, float, false, &[m, n], seed ^ 3);
        let operands: Vec<_> = [Operand::Input(a), Operand::Const(b)].into_iter().chain(more).collect();
        let op = Op::MatMul(MatMul { trans_b: true, bias: false, post: steps });
        check(if float { "product_f32" } else { "product_i8" }, &op, &operands);
    }

    #[test]
    fn pointwise_convolutions(s in shapes(), out_channels in 1usize..36) {
        let s = Shape { kernel: [1, 1], stride: [1, 1], pad: [0; 4], ..s };
        let (op, operands) = convolution(&s, false, out_channels);
        check(if s.dtype == DType::F32 { "product_f32" } else { "product_i8" }, &op, &operands);
    }

    #[test]
    fn depthwise_convolutions(s in shapes(), channels in 1usize..36) {
        let s = Shape { channels, ..s };
        let (op, operands) = convolution(&s, true, channels);
        check(if s.dtype == DType::F32 { "depthwise_f32" } else { "depthwise_i8" }, &op, &operands);
    }

    #[test]
    fn winograd_convolutions(s in shapes(), out_channels in 1usize..80, linear: bool) {
        let post = if linear || matches!(s.post, Post::Compiled) { Post::None } else { s.post };
        let s = Shape { dtype: DType::F32, kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pad_value: 0, post, ..s };
        let (op, operands) = convolution(&s, false, out_channels);
        check("winograd_f32", &op, &operands);
    }

    /// Chains have the evaluator's bits on every level.
    #[test]
    fn chains(
        shape in [1usize..4, 1usize..5, 1usize..40], ops in prop::collection::vec(0usize..CHAIN.len(), 1..5),
        kinds in [0usize..4, 0usize..4, 3usize..4], swapped: bool, seed: u64,
    ) {
        let shapes = [shape.to_vec(), vec![1, shape[2]], vec![], vec![1, 1]];
        let mut operands = vec![Operand::Input(random(&TensorType::new(DType::F32, shape), seed))];
        let mut steps: Vec<Step> = ops.iter().map(|i| Step::Unary(CHAIN[*i])).collect();
        for (i, kind) in kinds.into_iter().enumerate() {
            let op = [Binary::Mul, Binary::Sub, Binary::Max, Binary::PRelu][(seed >> (8 * i)) as usize % 4];
            steps.insert(1, Step::Binary { op, swapped, dequant: None });
            let operand = random(&TensorType::new(DType::F32, shapes[kind].clone()), seed ^ i as u64);
            operands.insert(1, if kind == 3 { Operand::Const(operand) } else { Operand::Input(operand) });
        }
        let op = Op::Map(steps);
        let want = expected(&op, &operands);
        for implementation in levels("map_f32") {
            let plan = implement(op_plan(&op, &operands, false), implementation).expect("an offer");
            let got = jit::compile(&plan).expect("a session").run_tensors(&inputs(&operands)).expect("a run");
            prop_assert_eq!(difference(&got[0], &want), None, "{} for {:?}", implementation.id, op);
        }
    }

    #[test]
    fn reductions(
        dtype in input_type(), shape in [1usize..4, 1usize..6, 1usize..6, 1usize..90], axes in 0usize..4, keepdims: bool,
        largest: bool, seed: u64,
    ) {
        let axes = [vec![0], vec![1], vec![1, 2], vec![2]][axes].clone();
        let float = dtype == DType::F32;
        let q = |scale, zero_point| QuantParams { scale: F32(scale), zero_point };
        let op = Op::Reduce(Reduce {
            kind: if largest { ReduceKind::Max } else { ReduceKind::Mean },
            axes,
            keepdims,
            dequant: (!float && !largest).then(|| q(0.037, 3)),
            post: match (float, largest) {
                (true, _) => vec![Step::Unary(Unary::Relu)],
                (false, true) => vec![],
                (false, false) => vec![Step::Quant { q: q(0.041, -5), lo: -128, hi: 127, dtype: DType::I8 }],
            },
        });
        let x = Operand::Input(random(&TensorType::new(dtype, shape), seed));
        check(if float { "pool_f32" } else { "pool_i8" }, &op, &[x]);
    }

    #[test]
    fn rows(shape in [1usize..4, 1usize..5, 1usize..70], normalise: bool, axis in 0usize..3, seed: u64) {
        let x = random(&TensorType::new(DType::F32, shape), seed);
        let inner = TensorType::new(DType::F32, shape[axis..].to_vec());
        let (op, operands) = if normalise {
            let parameters = [1, 2].map(|i| Operand::Const(random(&inner, seed ^ i)));
            let op = LayerNorm { axis, epsilon: F32(1e-3), post: vec![] };
            (Op::LayerNorm(op), [Operand::Input(x)].into_iter().chain(parameters).collect())
        } else {
            (Op::Softmax(Softmax { axis: 2, log: false, dequant: None, post: vec![] }), vec![Operand::Input(x)])
        };
        check("rows_f32", &op, &operands);
    }

    #[test]
    fn pools(
        dtype in input_type(), channels in 1usize..90, batch in 1usize..3, size in [2usize..9, 2usize..9],
        kernel in [1usize..5, 1usize..5], stride in [1usize..4, 1usize..4], pad in 0usize..3, largest: bool,
        include_pad: bool, post in post(), seed: u64,
    ) {
        let float = dtype == DType::F32;
        let post = if matches!(post, Post::Compiled) { Post::None } else { post };
        let q = |scale, zero_point| QuantParams { scale: F32(scale), zero_point };
        let kind = if largest { PoolKind::Max } else { PoolKind::Average { count_include_pad: include_pad } };
        let mut op = Pool2d {
            kind,
            layout: Layout::Nhwc,
            kernel,
            stride,
            pad: [pad; 4],
            dilation: [1, 1],
            dequant: (!float && !largest).then(|| q(0.037, 3)),
            post: vec![],
        };
        let mut operands = vec![Operand::Input(random(&TensorType::new(dtype, [batch, size[0], size[1], channels]), seed))];
        let out = mcc_ir::ops::infer(&Op::Pool2d(op.clone()), &types(&operands));
        prop_assume!(out.is_ok());
        if float {
            let (steps, more) = epilogue(post, true, false, &out.expect("just seen").shape, seed ^ 3);
            op.post = steps;
            operands.extend(more);
        } else if !largest {
            op.post = vec![Step::Quant { q: q(0.041, -5), lo: -128, hi: 127, dtype: DType::I8 }];
        }
        check(if float { "pool_f32" } else { "pool_i8" }, &Op::Pool2d(op), &operands);
    }

    #[test]
    fn recurrent_layers(
        gru: bool, reverse: bool, steps in 1usize..6, batch in 1usize..3, inputs in 1usize..20, hidden in 1usize..70,
        seed: u64,
    ) {
        let cell = match gru {
            true => Cell::Gru { linear_before_reset: true },
            false => Cell::Lstm { input_forget: false, peepholes: false },
        };
        let rows = cell.gates() * hidden;
        let tensor = |shape: &[usize], k: u64| random(&TensorType::new(DType::F32, shape), seed ^ k);
        let mut operands = vec![
            Operand::Input(tensor(&[steps, batch, inputs], 0)),
            Operand::Const(tensor(&[rows, inputs], 1)),
            Operand::Const(tensor(&[rows, hidden], 2)),
            Operand::Const(tensor(&[cell.biases() * hidden], 3)),
            Operand::Input(tensor(&[batch, hidden], 4)),
        ];
        if !gru {
            operands.push(Operand::Const(tensor(&[batch, hidden], 5)));
        }
        let activations = cell.default_activations().to_vec();
        check("recurrent_f32", &Op::Recurrent(Recurrent { cell, reverse, activations, clip: None }), &operands);
    }

    #[test]
    fn matrix_products(
        dtype in input_type(), batch in 1usize..4, on_right: bool, constant: bool, trans_b: bool, bias: bool,
        m in 1usize..15, k in 1usize..40, n in 1usize..40, post in post(), single: bool, seed: u64,
    ) {
        let float = dtype == DType::F32;
        // Integers are only offered for packed weights.
        let (on_right, constant, trans_b) = if float { (on_right, constant, trans_b) } else { (false, true, true) };
        let right = if trans_b { [n, k] } else { [k, n] };
        let right = if on_right { vec![batch, right[0], right[1]] } else { right.to_vec() };
        let a = random(&TensorType::new(dtype, [batch, m, k]), seed);
        let b = random(&TensorType::new(if float { DType::F32 } else { DType::I8 }, right), seed ^ 1);
        let mut operands = vec![Operand::Input(a), if constant { Operand::Const(b) } else { Operand::Input(b) }];
        if bias {
            let ty = TensorType::new(if float { DType::F32 } else { DType::I32 }, [n]);
            operands.push(Operand::Const(random(&ty, seed ^ 2)));
        }
        let (steps, more) = epilogue(post, float, single, &[batch, m, n], seed ^ 3);
        operands.extend(more);
        let op = Op::MatMul(MatMul { trans_b, bias, post: steps });
        // The right side of the same size as the output is no residual.
        let id = match (float, constant && trans_b && !on_right) {
            (true, true) => "product_f32",
            (true, false) => "matmul_f32",
            (false, _) => "product_i8",
        };
        if float && !constant && matches!(post, Post::Residual) {
            let plan = implement(op_plan(&op, &operands, true), implementation(id)).expect("an offer");
            compare(id, &op, &operands, &expected(&op, &operands), &plan);
        } else {
            check(id, &op, &operands);
        }
    }

    /// Batches of either side may be broadcast.
    #[test]
    fn broadcast_batches(a in 1usize..3, b in 1usize..3, m in 1usize..4, k in 1usize..5, n in 1usize..6, seed: u64) {
        let left = random(&TensorType::new(DType::F32, [3 - a, 1, m, k]), seed);
        let right = random(&TensorType::new(DType::F32, [1, b, k, n]), seed ^ 1);
        let op = Op::MatMul(MatMul { trans_b: false, bias: false, post: vec![] });
        check("matmul_f32", &op, &[Operand::Input(left), Operand::Input(right)]);
    }
}

/// Sums beyond 32 bits wrap, as the specification says.
#[test]
fn integer_sums_wrap() {
    let n = 16;
    let a = Tensor::new([1, n], &[-128i8; 16]);
    let b = Tensor::new([3, n], &[-128i8; 48]);
    let bias = Tensor::new([3], &[i32::MAX, i32::MAX - 100, 0]);
    let op = Op::MatMul(MatMul { trans_b: true, bias: true, post: vec![] });
    check("product_i8", &op, &[Operand::Input(a), Operand::Const(b), Operand::Const(bias)]);
}

/// A plan whose constants or scratch memory are not what its implementation wants is refused.
#[test]
fn ill_packed_plans_are_refused() {
    let x = random(&TensorType::new(DType::I8, [1, 4, 4, 3]), 1);
    let w = random(&TensorType::new(DType::I8, [5, 3, 3, 3]), 2);
    let op = same_conv(vec![Step::Cast(DType::I8)]);
    let operands = [Operand::Input(x), Operand::Const(w)];
    let good = implement(op_plan(&op, &operands, true), implementation("product_i8")).expect("an offer");
    assert!(jit::compile(&good).is_ok());
    let mut plan = good.clone();
    plan.consts[0].packing = mcc_ir::packing::Packing::None;
    assert_eq!(jit::compile(&plan).err().map(|e| e.code()), Some("E0503"));
    let mut plan = good.clone();
    plan.kernels[0].scratch = None;
    assert_eq!(jit::compile(&plan).err().map(|e| e.code()), Some("E0503"));
    let mut plan = good;
    plan.kernels[0].implementation = "depthwise_i8";
    assert_eq!(jit::compile(&plan).err().map(|e| e.code()), Some("E0502"));
}
