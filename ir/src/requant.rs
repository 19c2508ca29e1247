//! Quantisation, dequantisation and requantisation of one element.

use crate::op::Rounding;
use crate::scalar::{BinOp, Scalars, UnOp};
use crate::types::QuantParams;

/// `f32(q - zero_point) * scale`.
pub fn dequantize<S: Scalars>(s: &mut S, q: QuantParams, v: S::V) -> S::V {
    let v = if q.zero_point == 0 {
        v
    } else {
        let zero = s.i32(q.zero_point);
        s.bin(BinOp::SubI, v, zero)
    };
    let v = s.un(UnOp::ToF, v);
    let scale = s.f32(q.scale.0);
    s.bin(BinOp::MulF, v, scale)
}

/// `clamp(rne(x / scale) + zero_point, lo, hi)`; NaN gives an unspecified value of the range.
pub fn quantize<S: Scalars>(s: &mut S, q: QuantParams, lo: i32, hi: i32, x: S::V) -> S::V {
    let scale = s.f32(q.scale.0);
    let x = s.bin(BinOp::DivF, x, scale);
    round_and_shift(s, x, q.zero_point, lo, hi)
}

/// Clamps before rounding, which gives the same integer as clamping after it and keeps the conversion in range.
fn round_and_shift<S: Scalars>(s: &mut S, x: S::V, zero: i32, lo: i32, hi: i32) -> S::V {
    let x = s.clamp_f(x, (lo - zero) as f32, (hi - zero) as f32);
    let v = s.un(UnOp::RoundToI, x);
    if zero == 0 {
        return v;
    }
    let zero = s.i32(zero);
    s.bin(BinOp::AddI, v, zero)
}

/// An `i32` accumulator to an integer of `lo..=hi` under a rounding mode; `scale` is the mode's operand.
pub fn requantize<S: Scalars>(
    s: &mut S,
    rounding: Rounding,
    acc: S::V,
    scale: S::V,
    zero: i32,
    lo: i32,
    hi: i32,
) -> S::V {
    match rounding {
        Rounding::F32HalfEven => {
            let acc = s.un(UnOp::ToF, acc);
            let x = s.bin(BinOp::MulF, acc, scale);
            round_and_shift(s, x, zero, lo, hi)
        }
        Rounding::Single { shift } => {
            let shift = s.i32(shift as i32);
            let acc = s.bin(BinOp::ShlI, acc, shift);
            let v = s.bin(BinOp::MulHighRound, acc, scale);
            let zero = s.i32(zero);
            let v = s.bin(BinOp::AddI, v, zero);
            s.clamp_i(v, lo, hi)
        }
    }
}

/// The shift and multipliers of [`Rounding::Single`] for the real factors `scales` and accumulators of magnitude at most
/// `bound`: the smallest shift that brings every multiplier below 2^31, so that the multipliers keep the most bits.
///
/// `None` where a factor is not positive, or the shifted accumulator could leave 31 bits.
pub fn single_multipliers(scales: &[f64], bound: u32) -> Option<(u32, Vec<i32>)> {
    let fits = |n: u32| {
        (bound as u64) << n < 1 << 31 && scales.iter().all(|s| (s * 2f64.powi(32 - n as i32)).round() < 2f64.powi(31))
    };
    if scales.iter().any(|s| !(*s > 0.0 && s.is_finite())) {
        return None;
    }
    let shift = (0..=31).find(|n| fits(*n))?;
    Some((shift, scales.iter().map(|s| (s * 2f64.powi(32 - shift as i32)).round() as i32).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scalar::Eval;
    use crate::types::F32;

    fn half_even(acc: i32, scale: f32, zero: i32) -> i32 {
        requantize(&mut Eval, Rounding::F32HalfEven, acc as u32, scale.to_bits(), zero, -128, 127) as i32
    }

    #[test]
    fn f32_half_even_rounds_ties_to_even_and_saturates() {
        assert_eq!(half_even(5, 0.5, 0), 2);
        assert_eq!(half_even(7, 0.5, 0), 4);
        assert_eq!(half_even(-5, 0.5, 0), -2);
        assert_eq!(half_even(i32::MAX, 1e30, 3), 127);
        assert_eq!(half_even(i32::MIN, 1e30, 3), -128);
        assert_eq!(half_even(16_777_217, 1.0 / 16_777_216.0, 0), 1);
    }

    #[test]
    fn quantize_inverts_dequantize() {
        for (scale, zero_point) in [(0.5847, 83), (1.0, 0), (0.003_921_569, -128), (3.3e-7, 17)] {
            let q = QuantParams { scale: F32(scale), zero_point };
            for v in -128..=127 {
                let real = dequantize(&mut Eval, q, v as u32);
                assert_eq!(quantize(&mut Eval, q, -128, 127, real) as i32, v);
            }
        }
    }

    #[test]
    fn single_is_within_one_of_the_exact_product() {
        let scales = [0.012_31, 0.000_453, 0.297_1];
        let bound = 70_000;
        let (shift, multipliers) = single_multipliers(&scales, bound).unwrap();
        assert!((bound as u64) << shift < 1 << 31);
        let mut differing = 0;
        for (scale, m) in scales.iter().zip(&multipliers) {
            for acc in (-70_000i32..=70_000).step_by(7) {
                let rounding = Rounding::Single { shift };
                let got = requantize(&mut Eval, rounding, acc as u32, *m as u32, 0, i32::MIN / 2, i32::MAX / 2) as i32;
                let exact = acc as f64 * scale;
                assert!((got as f64 - exact).abs() <= 0.5001, "{acc} * {scale}: {got}");
                differing += (got as f64 != exact.round_ties_even()) as u32;
            }
        }
        assert!(differing <= 10, "{differing} of 60003 differ from round-half-even");
        assert_eq!(single_multipliers(&[0.75], 1), Some((1, vec![3 << 29])));
        assert_eq!(single_multipliers(&[0.75], 1 << 30), None);
        assert!(single_multipliers(&[-1.0], 5).is_none());
    }
}
