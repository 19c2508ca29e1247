//! Quantisation, kept literal: QDQ nodes stay, QLinear operators become dequantise, float operator, quantise. A later pass
//! makes integer operators of both. Constants with a scale for each block become real numbers here: no product of integers
//! has such scales.

use super::{conv, matmul};
use crate::cx::Cx;
use crate::error::{Fault, Result};
use crate::node::{Node, axis};
use crate::proto::data_type;
use crate::tensor;
use mcc_ir::op::Op;
use mcc_ir::{DType, Tensor, TensorType, ValueId};

pub fn quantize(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let axis = standard_axis(n)?;
    quantize_along(cx, n, axis)
}

/// The axis of the standard operators, which had none before opset 13.
fn standard_axis(n: &Node) -> Result<i64> {
    if n.opset < 13 { Ok(0) } else { n.int_or("axis", 1) }
}

pub(super) fn quantize_along(cx: &mut Cx, n: &Node, axis: i64) -> Result<Vec<ValueId>> {
    let x = cx.float(n, 0)?;
    match n.int_or("block_size", 0)? {
        0 => {}
        b => return Err(Fault::form(format!("block_size {b} is not supported"), "quantise per tensor or per axis")),
    }
    let declared = n.int("output_dtype")?.filter(|t| *t != 0);
    let mut dtype = DType::U8;
    if let Some(t) = declared {
        let known = i32::try_from(t).ok().and_then(tensor::dtype);
        dtype = known.ok_or_else(|| {
            let name = data_type::name(i32::try_from(t).unwrap_or(0));
            Fault::dtype(format!("output_dtype {name}"), SUPPORTED)
        })?;
    }
    if let Some(zero) = n.optional(2) {
        dtype = cx.dtype(zero);
    }
    let (scale, zero, axis) = parameters(cx, n, n.input(1)?, n.optional(2), x, dtype, axis)?;
    Ok(vec![quantized(cx, n, x, scale, zero, axis, dtype)?])
}

/// What quantisation of computed values may give.
const SUPPORTED: &str = "supported: INT8, UINT8, INT16, INT32; of 16 bits use signed ones (QuantType.QInt16)";

fn quantized(
    cx: &mut Cx,
    n: &Node,
    x: ValueId,
    scale: ValueId,
    zero: ValueId,
    axis: usize,
    dtype: DType,
) -> Result<ValueId> {
    if !matches!(dtype, DType::I8 | DType::U8 | DType::I16 | DType::I32) {
        // Constants of UINT16 have become i64.
        let name = if dtype == DType::I64 { "UINT16" } else { dtype.name() };
        return Err(Fault::dtype(format!("quantisation to {name}"), SUPPORTED));
    }
    cx.add(Op::Quantize { axis, dtype }, vec![x, scale, zero], &n.origin)
}

pub fn dequantize(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let axis = standard_axis(n)?;
    dequantize_along(cx, n, axis)
}

pub(super) fn dequantize_along(cx: &mut Cx, n: &Node, axis: i64) -> Result<Vec<ValueId>> {
    let (x, scale) = (n.input(0)?, n.input(1)?);
    Ok(vec![match n.int_or("block_size", 0)? {
        0 => dequantized(cx, n, x, scale, n.optional(2), axis)?,
        b => blocks(cx, n, (x, scale, n.optional(2)), axis, b)?,
    }])
}

/// The real values of a constant with one scale and zero point for each `block` elements along an axis.
fn blocks(
    cx: &mut Cx,
    n: &Node,
    (x, scale, zero): (ValueId, ValueId, Option<ValueId>),
    axis_of: i64,
    block: i64,
) -> Result<ValueId> {
    cx.want(x, QUANTISED, "the quantised input")?;
    let a = axis(axis_of, cx.rank(x))?;
    let q = cx.known(x, "the input with a scale for each block")?;
    let (shape, values, dtype) = (q.shape().to_vec(), q.to_i64(), q.dtype());
    let block = usize::try_from(block).ok().filter(|b| *b > 0);
    let block = block.ok_or_else(|| Fault::node("block_size must be positive"))?;
    let mut wanted = shape.clone();
    wanted[a] = shape[a].div_ceil(block);
    let scales = cx.floats(scale, "the scale")?;
    if cx.shape(scale) != wanted {
        let reason = format!("the scale is {}, must be of shape {wanted:?} for blocks of {block}", cx.ty(scale));
        return Err(Fault::node(reason));
    }
    let zeros = match zero {
        Some(z) => {
            let t = cx.known(z, "the zero point")?;
            if t.dtype() != dtype || t.shape() != wanted {
                return Err(Fault::node(format!("the zero point is {}, must be {dtype} like the scale", t.ty())));
            }
            t.to_i64()
        }
        None => vec![0; scales.len()],
    };
    let inner: usize = shape[a + 1..].iter().product();
    let real = |(i, v): (usize, i64)| {
        let (outer, along) = (i / (inner * shape[a]), i / inner % shape[a]);
        let of = (outer * wanted[a] + along / block) * inner + i % inner;
        (v - zeros[of]) as f32 * scales[of]
    };
    let values: Vec<f32> = values.into_iter().enumerate().map(real).collect();
    Ok(cx.constant(Tensor::new(shape, &values), n))
}

/// Element types that are dequantised.
const QUANTISED: &[DType] = &[DType::I8, DType::U8, DType::I16, DType::I32, DType::I4, DType::U4];

pub(super) fn dequantized(
    cx: &mut Cx,
    n: &Node,
    x: ValueId,
    scale: ValueId,
    zero: Option<ValueId>,
    axis: i64,
) -> Result<ValueId> {
    cx.want(x, QUANTISED, "the quantised input")?;
    let dtype = cx.dtype(x);
    let (scale, zero, axis) = parameters(cx, n, scale, zero, x, dtype, axis)?;
    cx.add(Op::Dequantize { axis }, vec![x, scale, zero], &n.origin)
}

/// Scale and zero point as constants of shape `[1]` or `[n]`, and the axis they belong to (0 where there is one of them).
fn parameters(
    cx: &mut Cx,
    n: &Node,
    scale: ValueId,
    zero: Option<ValueId>,
    x: ValueId,
    dtype: DType,
    axis_of: i64,
) -> Result<(ValueId, ValueId, usize)> {
    cx.known(scale, "the scale")?;
    cx.want(scale, &[DType::F32], "the scale")?;
    let count = cx.ty(scale).elements();
    let values = cx.floats(scale, "the scale")?;
    if count == 0 || !values.iter().all(|s| s.is_finite() && *s > 0.0) {
        return Err(Fault::node("a scale is not positive"));
    }
    let axis = if count == 1 {
        0
    } else {
        if cx.rank(scale) != 1 {
            return Err(Fault::node(format!("the scale is {}, without block_size", cx.ty(scale))));
        }
        let a = axis(axis_of, cx.rank(x))?;
        if cx.shape(x)[a] != count {
            return Err(Fault::node(format!("{count} scales for axis {a} of {}", cx.ty(x))));
        }
        a
    };
    let zero = match zero {
        Some(z) => {
            let t = cx.known(z, "the zero point")?.clone();
            if t.dtype() != dtype || t.ty().elements() != count {
                let reason = format!("the zero point is {}, must be {count} elements of {dtype}", t.ty());
                return Err(Fault::node(reason));
            }
            if dtype == DType::I32 && t.to_i64().iter().any(|&z| z != 0) {
                return Err(Fault::node("the zero point of 32-bit integers must be 0"));
            }
            cx.reshape(z, [count], n)?
        }
        None => {
            let ty = TensorType::new(dtype, [count]);
            cx.constant(Tensor::from_i64(ty, &vec![0; count]), n)
        }
    };
    Ok((cx.reshape(scale, [count], n)?, zero, axis))
}

/// Inputs: x, its scale and zero point, w, its scale and zero point, the result's scale and zero point, bias (i32).
pub fn qlinear_conv(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let x = dequantized(cx, n, n.input(0)?, n.input(1)?, n.optional(2), 1)?;
    let w = dequantized(cx, n, n.input(3)?, n.input(4)?, n.optional(5), 0)?;
    let bias = match n.optional(8) {
        Some(b) => {
            cx.want(b, &[DType::I32], "the bias")?;
            // numerics.md: the bias has the scale f32(sx * sw[c]).
            let [sx, sw] = [n.input(1)?, n.input(4)?].map(|v| cx.floats(v, "the scale"));
            let (sx, sw) = (sx?, sw?);
            let &[sx] = sx.as_slice() else {
                return Err(Fault::form("x has a scale for each channel", "quantise x per tensor"));
            };
            let scales: Vec<f32> = sw.iter().map(|s| sx * s).collect();
            let scale = cx.constant(Tensor::new([scales.len()], &scales), n);
            Some(dequantized(cx, n, b, scale, None, 0)?)
        }
        None => None,
    };
    let y = conv::convolve(cx, n, x, w, bias)?;
    requantize(cx, n, y, 6, 1)
}

/// Inputs: a, its scale and zero point, b, its scale and zero point, the result's scale and zero point.
pub fn qlinear_matmul(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let (a, b) = (n.input(0)?, n.input(3)?);
    let a = dequantized(cx, n, a, n.input(1)?, n.optional(2), -2)?;
    let b = dequantized(cx, n, b, n.input(4)?, n.optional(5), -1)?;
    let y = matmul::product(cx, n, a, b)?;
    requantize(cx, n, y, 6, -1)
}

/// Quantises a result by the scale at input `i` and the zero point after it, which may be left out.
pub(super) fn requantize(cx: &mut Cx, n: &Node, y: ValueId, i: usize, axis: i64) -> Result<Vec<ValueId>> {
    let (scale, zero) = (n.input(i)?, n.optional(i + 1));
    let dtype = zero.map_or(DType::U8, |z| cx.dtype(z));
    let (scale, zero, axis) = parameters(cx, n, scale, zero, y, dtype, axis)?;
    Ok(vec![quantized(cx, n, y, scale, zero, axis, dtype)?])
}
