//! The closed set of graph operators and their attributes.
//!
//! Every operator defines exactly one value. Operators are plain data (`Eq`, `Hash`, `Ord`), so the e-graph holds them
//! as payload and every match over them is exhaustive. Shape inference, evaluation and the loop nest of each family live
//! together in [`crate::ops`].
//!
//! # Epilogues
//! Operators with a `post` field apply that list of [`Step`]s to each element before it is stored. A step that needs a
//! second operand takes it from the operator's inputs, in order, after the operator's own inputs; operands broadcast to
//! the output shape by numpy's rules.

use crate::dtype::DType;
use crate::types::{F32, QuantParams, Shape};

/// The order of the dimensions of a 2-D spatial operator's activations and weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layout {
    /// Activations `[N, C, H, W]`, convolution weights `[O, I/groups, kh, kw]`.
    Nchw,
    /// Activations `[N, H, W, C]`, convolution weights `[O, kh, kw, I/groups]`.
    Nhwc,
}

/// 2-D convolution. Inputs: x, w, then bias `[O]` where `bias` is set, then the operands of `post`.
///
/// x is `f32`, or `i8`/`u8`/`i16` with `i8` weights and an `i32` bias; the accumulator is `f32` or `i32` (wrapping) and is what
/// `post` starts from. Source: ONNX Conv, ConvInteger.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Conv2d {
    pub layout: Layout,
    pub stride: [usize; 2],
    /// Top, left, bottom, right.
    pub pad: [usize; 4],
    pub dilation: [usize; 2],
    pub groups: usize,
    /// What padding reads as, in the units of x: 0, or the zero point of an integer x whose offset is folded in the bias.
    pub pad_value: i32,
    pub bias: bool,
    pub post: Vec<Step>,
}

/// 2-D transposed convolution, `f32`. Inputs: x, w, then bias `[O]` where set, then the operands of `post`.
///
/// Weights are `[I, O/groups, kh, kw]` (Nchw) or `[I, kh, kw, O/groups]` (Nhwc). Source: ONNX ConvTranspose.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConvTranspose2d {
    pub layout: Layout,
    pub stride: [usize; 2],
    /// Top, left, bottom, right: removed from the full output.
    pub pad: [usize; 4],
    /// Rows and columns added at the bottom and right.
    pub output_pad: [usize; 2],
    pub dilation: [usize; 2],
    pub groups: usize,
    pub bias: bool,
    pub post: Vec<Step>,
}

/// Batched matrix product `[..., M, K] x [..., K, N]`. Inputs: a, b, then bias `[N]` where set, then the operands of `post`.
///
/// Both sides have at least rank 2; batch dimensions broadcast. `a` is `f32`, or `i8`/`u8`/`i16` with an `i8` b and
/// an `i32` bias; the accumulator is `f32` or `i32` (wrapping). Source: ONNX MatMul, Gemm, MatMulInteger.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MatMul {
    /// Whether b is stored `[..., N, K]`.
    pub trans_b: bool,
    pub bias: bool,
    pub post: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PoolKind {
    Max,
    /// Mean over the window; over the elements inside the image only unless `count_include_pad`.
    Average {
        count_include_pad: bool,
    },
}

/// 2-D pooling. Inputs: x, then the operands of `post`. Padding never wins a maximum.
///
/// With `dequant`, an integer x is read as `f32` by its parameters. Average sums in `f32`, in row-major order of the
/// window, and divides once. Source: ONNX MaxPool, AveragePool.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pool2d {
    pub kind: PoolKind,
    pub layout: Layout,
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    /// Top, left, bottom, right. Bottom and right already hold what `ceil_mode` adds.
    pub pad: [usize; 4],
    pub dilation: [usize; 2],
    pub dequant: Option<QuantParams>,
    pub post: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReduceKind {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
}

/// Reduction over `axes` (ascending). Inputs: x, then the operands of `post`. Row-major order, mean divides the sum once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reduce {
    pub kind: ReduceKind,
    pub axes: Vec<usize>,
    pub keepdims: bool,
    pub dequant: Option<QuantParams>,
    pub post: Vec<Step>,
}

/// Softmax along one axis: exp(x - max) / sum, summed in order along the axis. Inputs: x, then the operands of `post`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Softmax {
    pub axis: usize,
    /// Log-softmax: (x - max) - log(sum).
    pub log: bool,
    pub dequant: Option<QuantParams>,
    pub post: Vec<Step>,
}

/// Layer normalisation over the dimensions from `axis` on. Inputs: x, scale and bias, each of the normalised shape, then
/// the operands of `post`. Two passes: mean, then mean of squared differences. Source: ONNX LayerNormalization.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerNorm {
    pub axis: usize,
    pub epsilon: F32,
    pub post: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PadMode {
    Constant,
    Reflect,
    Edge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResizeMode {
    /// Rounding of the source coordinate: ONNX `nearest_mode`.
    Nearest(NearestMode),
    Linear,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NearestMode {
    RoundPreferFloor,
    RoundPreferCeil,
    Floor,
    Ceil,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CoordinateMode {
    HalfPixel,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
}

/// Resampling of every axis to `shape`. `scales` are the factors used for coordinates, one an axis. Source: ONNX Resize.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resize {
    pub shape: Shape,
    pub scales: Vec<F32>,
    pub mode: ResizeMode,
    pub coordinates: CoordinateMode,
}

/// The cell of a recurrent layer, with its gates in the order in which weights and biases hold them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cell {
    /// `h' = f(s)`.
    Rnn,
    /// Gates z, r, h: `h' = (1 - z) * g(candidate) + z * h`. The candidate is the sum with the state reset to `r * h`, or
    /// where `linear_before_reset` the input's part of it plus r times the state's part, which has a bias of its own.
    Gru { linear_before_reset: bool },
    /// Gates i, o, f, c: `c' = f * c + i * g(s_c)`, `h' = o * h(c')`. With `input_forget` f is 1 - i. Peepholes add the cell
    /// state to the sums of i and f, and the new one to that of o.
    Lstm { input_forget: bool, peepholes: bool },
}

impl Cell {
    pub fn gates(self) -> usize {
        match self {
            Cell::Rnn => 1,
            Cell::Gru { .. } => 3,
            Cell::Lstm { .. } => 4,
        }
    }

    /// Biases of a unit: one a gate, and one of the state's part of a candidate that is reset afterwards.
    pub fn biases(self) -> usize {
        self.gates() + (self == Cell::Gru { linear_before_reset: true }) as usize
    }

    /// Whether the states are followed by a row that every step changes: the cell state, or the state that was reset.
    pub fn has_extra_row(self) -> bool {
        matches!(self, Cell::Lstm { .. } | Cell::Gru { linear_before_reset: false })
    }

    /// Functions f, g and h, as far as the cell has them, where a model names none.
    pub fn default_activations(self) -> &'static [Unary] {
        match self {
            Cell::Rnn => &[Unary::Tanh],
            Cell::Gru { .. } => &[Unary::Sigmoid, Unary::Tanh],
            Cell::Lstm { .. } => &[Unary::Sigmoid, Unary::Tanh, Unary::Tanh],
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Cell::Rnn => "rnn",
            Cell::Gru { .. } => "gru",
            Cell::Lstm { .. } => "lstm",
        }
    }
}

/// One direction of a recurrent layer, `f32`. Inputs: x `[T, N, I]`, weights `[G * H, I]`, recurrence weights `[G * H, H]`,
/// bias `[G * H]` (input's and state's added; a GRU with `linear_before_reset` has `[4 * H]`, the last of the state's
/// part alone), initial state `[N, H]`; of an LSTM also the initial cell state `[N, H]`, and with peepholes their weights
/// `[3 * H]` of the gates i, o, f.
///
/// The result is all states, `[T + 1, N, H]`: the initial one, then that after each step; where `reverse`, which goes
/// through x from its end, the initial one comes last. So the states of the steps are always one piece. An LSTM has one
/// more row, which is its cell state after the last step, and a GRU without `linear_before_reset` one for the state that the last
/// step reset. Source: ONNX RNN, GRU, LSTM; `clip` bounds the arguments of f and g, as ONNX Runtime does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Recurrent {
    pub cell: Cell,
    pub reverse: bool,
    /// The functions f, g and h, as many as [`Cell::default_activations`].
    pub activations: Vec<Unary>,
    pub clip: Option<F32>,
}

/// A graph operator.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Op {
    Conv2d(Conv2d),
    ConvTranspose2d(ConvTranspose2d),
    MatMul(MatMul),
    Pool2d(Pool2d),
    Reduce(Reduce),
    /// Element-wise chain: the steps applied to input 0, which broadcasts with the operands to the output shape.
    Map(Vec<Step>),
    Softmax(Softmax),
    LayerNorm(LayerNorm),
    Recurrent(Recurrent),
    /// Inference batch normalisation along axis 1. Inputs: x, scale, bias, mean, variance (each `[C]`).
    BatchNorm {
        epsilon: F32,
    },
    /// The same elements under another shape. Never moves data.
    Reshape {
        shape: Shape,
    },
    /// Output dimension i is input dimension `perm[i]`.
    Transpose {
        perm: Vec<usize>,
    },
    /// Inputs joined along `axis`.
    Concat {
        axis: usize,
    },
    /// Along each axis: `shape[i]` elements from `start[i]` in steps of `step[i]` (which may be negative).
    Slice {
        start: Vec<usize>,
        step: Vec<isize>,
        shape: Shape,
    },
    /// Inputs: x, and the scalar fill value where `mode` is `Constant`.
    Pad {
        before: Vec<usize>,
        after: Vec<usize>,
        mode: PadMode,
    },
    /// Inputs: data, indices (`i64` or `i32`; negative counts from the end; out of range is clamped).
    Gather {
        axis: usize,
    },
    /// Numpy broadcast of the input to `shape`.
    Broadcast {
        shape: Shape,
    },
    /// Inputs: condition (`bool`), x, y; all broadcast.
    Where,
    Resize(Resize),
    /// Index (`i64`) of the largest element along `axis`; the first among equals, or the last.
    ArgMax {
        axis: usize,
        keepdims: bool,
        last: bool,
    },
    /// ONNX QuantizeLinear. Inputs: x, scale, zero point (`[1]` or one an index of `axis`).
    Quantize {
        axis: usize,
        dtype: DType,
    },
    /// ONNX DequantizeLinear. Inputs: x, scale, zero point (`[1]` or one an index of `axis`).
    Dequantize {
        axis: usize,
    },
}

/// Rounding of a requantisation; see [`crate::requant`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rounding {
    /// `rne(f32(acc) * scale) + zero`: the operand is the `f32` scale.
    F32HalfEven,
    /// `((acc * 2^shift * multiplier + 2^31) >> 32) + zero` in 64 bits: the operand is the `i32` multiplier.
    Single { shift: u32 },
}

/// One element-wise step of a chain. Scalars are `f32` or `i32`; narrower integers are widened when read.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    Unary(Unary),
    /// `op(value, operand)`, or `op(operand, value)` where `swapped`. With `dequant` an integer operand is read as `f32`.
    Binary {
        op: Binary,
        swapped: bool,
        dequant: Option<QuantParams>,
    },
    Cast(DType),
    /// An `i32` accumulator becomes `dtype`, clamped to `lo..=hi`. Takes an operand: the scale or multiplier, broadcast.
    Requant {
        rounding: Rounding,
        zero: i32,
        lo: i32,
        hi: i32,
        dtype: DType,
    },
    /// An integer becomes `f32(q - zero) * scale`.
    Dequant(QuantParams),
    /// An `f32` becomes `clamp(rne(x / scale) + zero, lo, hi)` as `dtype`.
    Quant {
        q: QuantParams,
        lo: i32,
        hi: i32,
        dtype: DType,
    },
}

impl Step {
    /// Whether the step takes an operand of the operator's inputs.
    pub fn takes_operand(&self) -> bool {
        matches!(self, Step::Binary { .. } | Step::Requant { .. })
    }
}

/// `f32` functions of one argument (`Neg`, `Abs` and `Sign` also on integers, `Not` on `bool`). Defined in [`crate::math`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unary {
    Neg,
    Abs,
    Sign,
    Relu,
    LeakyRelu(F32),
    Elu(F32),
    /// max(lo, min(hi, x)); a bound may be infinite.
    Clip(F32, F32),
    Sigmoid,
    /// max(0, min(1, alpha * x + beta)).
    HardSigmoid(F32, F32),
    /// x * max(0, min(1, x / 6 + 0.5)).
    HardSwish,
    Tanh,
    Exp,
    Log,
    Sqrt,
    Reciprocal,
    Erf,
    /// x * 0.5 * (1 + erf(x / sqrt 2)).
    Gelu,
    Softplus,
    Softsign,
    Floor,
    Ceil,
    /// Half to even.
    Round,
    Not,
}

/// Functions of two arguments, on `f32` or on integers (wrapping; integer division truncates, by zero gives 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
    /// `f32`: IEEE 754 `pow`, exact for the exponents 2, 1, 0, -1 and 0.5; see [`crate::math::elementary::pow`].
    Pow,
    /// The value where it is not negative, else value * slope.
    PRelu,
    Equal,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    And,
    Or,
    Xor,
}

impl Binary {
    /// Whether the result is a `bool`.
    pub fn is_predicate(self) -> bool {
        use Binary::*;
        matches!(self, Equal | Less | LessEqual | Greater | GreaterEqual | And | Or | Xor)
    }
}

impl Op {
    /// A one-step element-wise operator.
    pub fn unary(u: Unary) -> Op {
        Op::Map(vec![Step::Unary(u)])
    }

    /// A two-operand element-wise operator.
    pub fn binary(op: Binary) -> Op {
        Op::Map(vec![Step::Binary { op, swapped: false, dequant: None }])
    }

    /// The epilogue, for operators that have one.
    pub fn post(&self) -> Option<&Vec<Step>> {
        match self {
            Op::Conv2d(o) => Some(&o.post),
            Op::ConvTranspose2d(o) => Some(&o.post),
            Op::MatMul(o) => Some(&o.post),
            Op::Pool2d(o) => Some(&o.post),
            Op::Reduce(o) => Some(&o.post),
            Op::Map(post) => Some(post),
            Op::Softmax(o) => Some(&o.post),
            Op::LayerNorm(o) => Some(&o.post),
            _ => None,
        }
    }

    /// The epilogue, to be changed.
    pub fn post_mut(&mut self) -> Option<&mut Vec<Step>> {
        match self {
            Op::Conv2d(o) => Some(&mut o.post),
            Op::ConvTranspose2d(o) => Some(&mut o.post),
            Op::MatMul(o) => Some(&mut o.post),
            Op::Pool2d(o) => Some(&mut o.post),
            Op::Reduce(o) => Some(&mut o.post),
            Op::Map(post) => Some(post),
            Op::Softmax(o) => Some(&mut o.post),
            Op::LayerNorm(o) => Some(&mut o.post),
            _ => None,
        }
    }

    /// How many inputs come before the operands of the epilogue; `None` where any number may (Concat).
    pub fn own_inputs(&self) -> Option<usize> {
        Some(match self {
            Op::Conv2d(o) => 2 + o.bias as usize,
            Op::ConvTranspose2d(o) => 2 + o.bias as usize,
            Op::MatMul(o) => 2 + o.bias as usize,
            Op::Pool2d(_) | Op::Reduce(_) | Op::Map(_) | Op::Softmax(_) => 1,
            Op::Recurrent(o) => match o.cell {
                Cell::Lstm { peepholes, .. } => 6 + peepholes as usize,
                Cell::Rnn | Cell::Gru { .. } => 5,
            },
            Op::LayerNorm(_) | Op::Where | Op::Quantize { .. } | Op::Dequantize { .. } => 3,
            Op::BatchNorm { .. } => 5,
            Op::Reshape { .. } | Op::Transpose { .. } | Op::Slice { .. } | Op::Broadcast { .. } => 1,
            Op::Resize(_) | Op::ArgMax { .. } => 1,
            Op::Pad { mode, .. } => 1 + (*mode == PadMode::Constant) as usize,
            Op::Gather { .. } => 2,
            Op::Concat { .. } => return None,
        })
    }

    /// The operator's name in the text form. A chain of one step is named after the step.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Conv2d(_) => "conv2d",
            Op::ConvTranspose2d(_) => "conv_transpose2d",
            Op::MatMul(_) => "matmul",
            Op::Pool2d(Pool2d { kind: PoolKind::Max, .. }) => "max_pool2d",
            Op::Pool2d(_) => "avg_pool2d",
            Op::Reduce(r) => match r.kind {
                ReduceKind::Sum => "reduce_sum",
                ReduceKind::Mean => "reduce_mean",
                ReduceKind::Max => "reduce_max",
                ReduceKind::Min => "reduce_min",
                ReduceKind::Prod => "reduce_prod",
            },
            Op::Map(steps) => match steps.as_slice() {
                [step] => step.name(),
                _ => "map",
            },
            Op::Softmax(Softmax { log: false, .. }) => "softmax",
            Op::Softmax(_) => "log_softmax",
            Op::LayerNorm(_) => "layer_norm",
            Op::Recurrent(o) => o.cell.name(),
            Op::BatchNorm { .. } => "batch_norm",
            Op::Reshape { .. } => "reshape",
            Op::Transpose { .. } => "transpose",
            Op::Concat { .. } => "concat",
            Op::Slice { .. } => "slice",
            Op::Pad { .. } => "pad",
            Op::Gather { .. } => "gather",
            Op::Broadcast { .. } => "broadcast",
            Op::Where => "where",
            Op::Resize(_) => "resize",
            Op::ArgMax { .. } => "arg_max",
            Op::Quantize { .. } => "quantize",
            Op::Dequantize { .. } => "dequantize",
        }
    }
}

impl Step {
    /// The step's name in the text form.
    pub fn name(&self) -> &'static str {
        match self {
            Step::Unary(u) => u.name(),
            Step::Binary { op, .. } => op.name(),
            Step::Cast(_) => "cast",
            Step::Requant { .. } => "requant",
            Step::Dequant(_) => "dequant",
            Step::Quant { .. } => "quant",
        }
    }
}

impl Unary {
    pub fn name(self) -> &'static str {
        match self {
            Unary::Neg => "neg",
            Unary::Abs => "abs",
            Unary::Sign => "sign",
            Unary::Relu => "relu",
            Unary::LeakyRelu(_) => "leaky_relu",
            Unary::Elu(_) => "elu",
            Unary::Clip(..) => "clip",
            Unary::Sigmoid => "sigmoid",
            Unary::HardSigmoid(..) => "hard_sigmoid",
            Unary::HardSwish => "hard_swish",
            Unary::Tanh => "tanh",
            Unary::Exp => "exp",
            Unary::Log => "log",
            Unary::Sqrt => "sqrt",
            Unary::Reciprocal => "reciprocal",
            Unary::Erf => "erf",
            Unary::Gelu => "gelu",
            Unary::Softplus => "softplus",
            Unary::Softsign => "softsign",
            Unary::Floor => "floor",
            Unary::Ceil => "ceil",
            Unary::Round => "round",
            Unary::Not => "not",
        }
    }
}

impl Binary {
    pub const ALL: [Binary; 16] = [
        Binary::Add,
        Binary::Sub,
        Binary::Mul,
        Binary::Div,
        Binary::Min,
        Binary::Max,
        Binary::Pow,
        Binary::PRelu,
        Binary::Equal,
        Binary::Less,
        Binary::LessEqual,
        Binary::Greater,
        Binary::GreaterEqual,
        Binary::And,
        Binary::Or,
        Binary::Xor,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Binary::Add => "add",
            Binary::Sub => "sub",
            Binary::Mul => "mul",
            Binary::Div => "div",
            Binary::Min => "min",
            Binary::Max => "max",
            Binary::Pow => "pow",
            Binary::PRelu => "prelu",
            Binary::Equal => "equal",
            Binary::Less => "less",
            Binary::LessEqual => "less_equal",
            Binary::Greater => "greater",
            Binary::GreaterEqual => "greater_equal",
            Binary::And => "and",
            Binary::Or => "or",
            Binary::Xor => "xor",
        }
    }
}
