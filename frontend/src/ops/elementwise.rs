//! Element-wise operators, casts and selections.

use crate::cx::Cx;
use crate::error::{Fault, Result};
use crate::node::Node;
use crate::proto::data_type;
use crate::tensor;
use mcc_ir::op::{Binary, Op, Unary};
use mcc_ir::types::F32;
use mcc_ir::{DType, ValueId};

pub fn unary(cx: &mut Cx, n: &Node, u: Unary) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    match u {
        Unary::Not => cx.want(x, &[DType::Bool], "input 0")?,
        Unary::Neg | Unary::Abs | Unary::Sign | Unary::Relu => {
            let numbers = [DType::F32, DType::I64, DType::I32, DType::I16, DType::I8, DType::U8];
            cx.want(x, &numbers, "input 0")?;
        }
        _ => cx.want(x, &[DType::F32], "input 0")?,
    }
    Ok(vec![cx.unary(u, x, n)?])
}

/// Both inputs broadcast (ONNX opset 7 and later).
pub fn binary(cx: &mut Cx, n: &Node, op: Binary) -> Result<Vec<ValueId>> {
    let (a, b) = (n.input(0)?, n.input(1)?);
    same_dtype(cx, a, b)?;
    Ok(vec![cx.binary(op, a, b, n)?])
}

fn same_dtype(cx: &Cx, a: ValueId, b: ValueId) -> Result<()> {
    let (a, b) = (cx.ty(a), cx.ty(b));
    match a.dtype == b.dtype {
        true => Ok(()),
        false => Err(Fault::node(format!("inputs {a} and {b} differ in their element types"))),
    }
}

/// Any number of inputs, combined from left to right.
pub fn variadic(cx: &mut Cx, n: &Node, op: Binary) -> Result<Vec<ValueId>> {
    let inputs = n.all()?;
    let mut result = inputs[0];
    for &next in &inputs[1..] {
        same_dtype(cx, result, next)?;
        result = cx.binary(op, result, next, n)?;
    }
    Ok(vec![result])
}

pub fn mean(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let sum = variadic(cx, n, Binary::Add)?[0];
    cx.want(sum, &[DType::F32], "the sum")?;
    let count = cx.scalar(n.inputs.len() as f32, n);
    Ok(vec![cx.binary(Binary::Div, sum, count, n)?])
}

/// The exponent may be of another type than the base since opset 12.
pub fn pow(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let (a, b) = (cx.float(n, 0)?, n.input(1)?);
    let b = cx.cast(b, DType::F32, n)?;
    Ok(vec![cx.binary(Binary::Pow, a, b, n)?])
}

pub fn leaky_relu(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    unary(cx, n, Unary::LeakyRelu(F32(n.float_or("alpha", 0.01)?)))
}

pub fn elu(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    unary(cx, n, Unary::Elu(F32(n.float_or("alpha", 1.0)?)))
}

/// gamma * elu(x, alpha).
pub fn selu(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let alpha = n.float_or("alpha", 1.673_263_2)?;
    let gamma = n.float_or("gamma", 1.050_701)?;
    let y = unary(cx, n, Unary::Elu(F32(alpha)))?[0];
    let gamma = cx.scalar(gamma, n);
    Ok(vec![cx.binary(Binary::Mul, y, gamma, n)?])
}

/// alpha * elu(x / alpha, 1).
pub fn celu(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let x = cx.float(n, 0)?;
    let alpha = cx.scalar(n.float_or("alpha", 1.0)?, n);
    let scaled = cx.binary(Binary::Div, x, alpha, n)?;
    let y = cx.unary(Unary::Elu(F32(1.0)), scaled, n)?;
    Ok(vec![cx.binary(Binary::Mul, y, alpha, n)?])
}

/// x * tanh(softplus(x)).
pub fn mish(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let x = cx.float(n, 0)?;
    let y = cx.unary(Unary::Softplus, x, n)?;
    let y = cx.unary(Unary::Tanh, y, n)?;
    Ok(vec![cx.binary(Binary::Mul, x, y, n)?])
}

/// x * sigmoid(alpha * x).
pub fn swish(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let x = cx.float(n, 0)?;
    let alpha = n.float_or("alpha", 1.0)?;
    let scaled = scale(cx, x, alpha, n)?;
    let y = cx.unary(Unary::Sigmoid, scaled, n)?;
    Ok(vec![cx.binary(Binary::Mul, x, y, n)?])
}

pub fn hard_sigmoid(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let (alpha, beta) = (n.float_or("alpha", 0.2)?, n.float_or("beta", 0.5)?);
    unary(cx, n, Unary::HardSigmoid(F32(alpha), F32(beta)))
}

pub fn gelu(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    match n.text_or("approximate", "none")? {
        "none" => unary(cx, n, Unary::Gelu),
        "tanh" => gelu_tanh(cx, n),
        other => Err(Fault::node(format!("approximate = {} is not defined", crate::error::quote(other)))),
    }
}

/// 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
fn gelu_tanh(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let x = cx.float(n, 0)?;
    let three = cx.scalar(3.0, n);
    let cube = cx.binary(Binary::Pow, x, three, n)?;
    let cube = scale(cx, cube, 0.044_715, n)?;
    let inner = cx.binary(Binary::Add, x, cube, n)?;
    let inner = scale(cx, inner, (2.0 / std::f64::consts::PI).sqrt() as f32, n)?;
    let tanh = cx.unary(Unary::Tanh, inner, n)?;
    let one = cx.scalar(1.0, n);
    let gate = cx.binary(Binary::Add, tanh, one, n)?;
    let half = scale(cx, x, 0.5, n)?;
    Ok(vec![cx.binary(Binary::Mul, half, gate, n)?])
}

/// x where it is above alpha, else 0.
pub fn thresholded_relu(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let x = cx.float(n, 0)?;
    let alpha = cx.scalar(n.float_or("alpha", 1.0)?, n);
    let above = cx.binary(Binary::Greater, x, alpha, n)?;
    let zero = cx.scalar(0.0, n);
    Ok(vec![cx.add(Op::Where, vec![above, x, zero], &n.origin)?])
}

/// Bounds are attributes before opset 11, inputs since. Bounds computed at run time become Max and Min.
pub fn clip(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    if n.opset < 11 {
        let (lo, hi) = (n.float("min")?, n.float("max")?);
        cx.want(x, &[DType::F32], "input 0")?;
        return Ok(vec![clip_constant(cx, x, lo, hi, n)?]);
    }
    let bounds = [n.optional(1), n.optional(2)];
    for bound in bounds.into_iter().flatten() {
        same_dtype(cx, x, bound)?;
        if cx.ty(bound).elements() != 1 {
            return Err(Fault::node(format!("a bound is {}, not a scalar", cx.ty(bound))));
        }
    }
    let known = |v: Option<ValueId>| v.is_none_or(|v| cx.graph.constant(v).is_some());
    if cx.dtype(x) == DType::F32 && bounds.into_iter().all(known) {
        let value = |v: Option<ValueId>| v.map(|v| cx.floats(v, "a bound")).transpose();
        let (lo, hi) = (value(bounds[0])?.map(|v| v[0]), value(bounds[1])?.map(|v| v[0]));
        return Ok(vec![clip_constant(cx, x, lo, hi, n)?]);
    }
    let mut y = x;
    for (bound, op) in bounds.into_iter().zip([Binary::Max, Binary::Min]) {
        if let Some(bound) = bound {
            let bound = cx.reshape(bound, [], n)?;
            y = cx.binary(op, y, bound, n)?;
        }
    }
    Ok(vec![y])
}

/// Where the lower bound is above the upper, the upper wins (ONNX Clip).
fn clip_constant(cx: &mut Cx, x: ValueId, lo: Option<f32>, hi: Option<f32>, n: &Node) -> Result<ValueId> {
    let (lo, hi) = (lo.unwrap_or(f32::NEG_INFINITY), hi.unwrap_or(f32::INFINITY));
    if lo.is_nan() || hi.is_nan() {
        return Err(Fault::form("a bound is NaN", "give numbers as bounds"));
    }
    cx.unary(Unary::Clip(F32(lo.min(hi)), F32(hi)), x, n)
}

pub fn identity(_cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    Ok(vec![n.input(0)?])
}

/// In inference the input itself.
pub fn dropout(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    if let Some(training) = n.optional(2)
        && cx.known(training, "training_mode")?.to_i64().iter().any(|&v| v != 0)
    {
        return Err(Fault::form("training_mode is set", "export the model for inference"));
    }
    identity(cx, n)
}

pub fn cast(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let to = n.int("to")?.ok_or_else(|| Fault::node("attribute \"to\" is missing"))?;
    let x = n.input(0)?;
    let numbers = [DType::F32, DType::I64, DType::I32, DType::I16, DType::I8, DType::U8, DType::Bool];
    cx.want(x, &numbers, "input 0")?;
    let to = i32::try_from(to).unwrap_or(0);
    match (tensor::dtype(to), to) {
        (Some(to), _) => Ok(vec![cx.cast(x, to, n)?]),
        // Shapes and indices that are cast to wider unsigned types stay what they are.
        (None, data_type::UINT32 | data_type::UINT64) if cx.graph.constant(x).is_some_and(natural) => {
            Ok(vec![cx.cast(x, DType::I64, n)?])
        }
        (None, _) => Err(Fault::dtype(
            format!("a cast of {} to {}", cx.ty(x), data_type::name(to)),
            "supported are FLOAT, FLOAT16, BFLOAT16, DOUBLE (all f32), INT8 to INT64, UINT8 and BOOL",
        )),
    }
}

/// Whether a constant holds only integers that fit in 32 bits without sign.
fn natural(t: &mcc_ir::Tensor) -> bool {
    !t.dtype().is_float() && t.to_i64().iter().all(|v| u32::try_from(*v).is_ok())
}

pub fn cast_like(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let (x, like) = (n.input(0)?, n.input(1)?);
    let to = cx.dtype(like);
    Ok(vec![cx.cast(x, to, n)?])
}

pub fn where_(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let (condition, a, b) = (n.input(0)?, n.input(1)?, n.input(2)?);
    cx.want(condition, &[DType::Bool], "the condition")?;
    same_dtype(cx, a, b)?;
    Ok(vec![cx.add(Op::Where, vec![condition, a, b], &n.origin)?])
}

/// The value times a factor.
pub(super) fn scale(cx: &mut Cx, x: ValueId, factor: f32, n: &Node) -> Result<ValueId> {
    if factor == 1.0 {
        return Ok(x);
    }
    let factor = cx.scalar(factor, n);
    cx.binary(Binary::Mul, x, factor, n)
}
