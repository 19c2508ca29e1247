//! The operators of QONNX, as Brevitas, QKeras and FINN write them: fake quantisation to any number of bits.
//!
//! Where integers of 8 bits and their scale say the same, `Quant` becomes a QuantizeLinear and a DequantizeLinear, from which
//! later passes make integer operators. Elsewhere it stays arithmetic on real numbers. Source: the operators' descriptions
//! in the QONNX project.

use crate::cx::Cx;
use crate::error::{Fault, Result, quote};
use crate::node::Node;
use mcc_ir::op::{Binary, Op, Unary};
use mcc_ir::types::F32;
use mcc_ir::{DType, Tensor, TensorType, ValueId};

/// The bits up to which every integer is an `f32`.
const EXACT_BITS: f32 = 24.0;

/// Inputs: x, scale, zero point, number of bits; the last three are constants.
///
/// `(clamp(round(x / scale + zero)) - zero) * scale`.
pub fn quant(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let x = cx.float(n, 0)?;
    // Some exporters write whole numbers as integers.
    let (scale, zero) = (n.input(1)?, cx.cast(n.input(2)?, DType::F32, n)?);
    let scales = cx.floats(scale, "the scale")?;
    if scales.is_empty() || !scales.iter().all(|s| s.is_finite() && *s > 0.0) {
        return Err(Fault::node("a scale is not positive"));
    }
    let zeros = cx.floats(zero, "the zero point")?;
    let (lo, hi) = range(cx, n)?;
    let rounding = n.text_or("rounding_mode", "ROUND")?;
    let centred = zeros.iter().all(|z| *z == 0.0);
    let bytes = [DType::I8, DType::U8].into_iter().find(|d| holds(*d, lo, hi));
    if let (Some(dtype), "ROUND", &[scale], true) = (bytes, rounding, scales.as_slice(), centred) {
        return Ok(vec![eight_bits(cx, n, x, scale, (lo, hi), dtype)?]);
    }
    let mut v = cx.binary(Binary::Div, x, scale, n)?;
    if !centred {
        v = cx.binary(Binary::Add, v, zero, n)?;
    }
    v = cx.unary(Unary::Clip(F32(lo), F32(hi)), v, n)?;
    v = match rounding {
        "ROUND" => cx.unary(Unary::Round, v, n)?,
        "CEIL" => cx.unary(Unary::Ceil, v, n)?,
        "FLOOR" => cx.unary(Unary::Floor, v, n)?,
        "ROUND_TO_ZERO" => {
            let sign = cx.unary(Unary::Sign, v, n)?;
            let size = cx.unary(Unary::Abs, v, n)?;
            let size = cx.unary(Unary::Floor, size, n)?;
            cx.binary(Binary::Mul, sign, size, n)?
        }
        other => {
            let reason = format!("rounding_mode {}", quote(other));
            return Err(Fault::form(reason, "supported: ROUND, CEIL, FLOOR, ROUND_TO_ZERO"));
        }
    };
    if !centred {
        v = cx.binary(Binary::Sub, v, zero, n)?;
    }
    Ok(vec![cx.binary(Binary::Mul, v, scale, n)?])
}

/// The smallest and largest integer.
fn range(cx: &mut Cx, n: &Node) -> Result<(f32, f32)> {
    let bits = cx.cast(n.input(3)?, DType::F32, n)?;
    let bits = cx.floats(bits, "the number of bits")?;
    let &[bits] = bits.as_slice() else {
        return Err(Fault::form(format!("{} numbers of bits", bits.len()), "quantise a tensor to one number of bits"));
    };
    if !(1.0..=EXACT_BITS).contains(&bits) || bits.fract() != 0.0 {
        return Err(Fault::form(format!("{bits} bits"), format!("supported: whole numbers from 1 to {EXACT_BITS}")));
    }
    let (signed, narrow) = (n.flag("signed", true)?, n.flag("narrow", false)?);
    let (half, whole) = ((bits - 1.0).exp2(), bits.exp2());
    let less = narrow as u8 as f32;
    Ok(if signed { (less - half, half - 1.0) } else { (0.0, whole - 1.0 - less) })
}

fn holds(dtype: DType, lo: f32, hi: f32) -> bool {
    dtype.int_range().is_some_and(|(min, max)| min as f32 <= lo && hi <= max as f32)
}

/// Quantised to 8 bits and dequantised. A narrower range is that of the real numbers before: rounding keeps both ends.
fn eight_bits(cx: &mut Cx, n: &Node, x: ValueId, scale: f32, (lo, hi): (f32, f32), dtype: DType) -> Result<ValueId> {
    let clipped = match dtype.int_range().map(|(min, max)| (min as f32, max as f32)) {
        Some(range) if range == (lo, hi) => x,
        _ => cx.unary(Unary::Clip(F32(lo * scale), F32(hi * scale)), x, n)?,
    };
    let scale = cx.constant(Tensor::new([1], &[scale]), n);
    let zero = cx.constant(Tensor::from_i64(TensorType::new(dtype, [1]), &[0]), n);
    let q = cx.add(Op::Quantize { axis: 0, dtype }, vec![clipped, scale, zero], &n.origin)?;
    cx.add(Op::Dequantize { axis: 0 }, vec![q, scale, zero], &n.origin)
}

/// Inputs: x and a constant scale. The scale where x is not negative, else its negative.
pub fn bipolar(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let (x, scale) = (cx.float(n, 0)?, cx.float(n, 1)?);
    let zero = cx.scalar(0.0, n);
    let positive = cx.binary(Binary::GreaterEqual, x, zero, n)?;
    // 1 and 0 become the scale and its negative, without rounding.
    let one = cx.cast(positive, DType::F32, n)?;
    let span = cx.binary(Binary::Add, scale, scale, n)?;
    let v = cx.binary(Binary::Mul, one, span, n)?;
    Ok(vec![cx.binary(Binary::Sub, v, scale, n)?])
}
