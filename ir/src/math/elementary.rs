//! exp, log, tanh, erf, sigmoid and pow as scalar programs: range reduction and a polynomial in `f32`.
//!
//! Every product and sum rounds on its own; none may become a fused multiply-add. The polynomials are weighted minimax
//! fits whose coefficients were rounded to `f32` one after the other, lowest first. Accuracy is stated in units in the
//! last place of the correctly rounded `f32` result, denormal results included, and held by `tests/math_accuracy.rs`.
//! NaN propagates through every function.
//!
//! All but `pow` are inlined wherever they are used: executors that compute vectors compile them with instructions that
//! only the code around may use.

use crate::scalar::{BinOp, Scalars, UnOp};

/// ln 2 in two parts. The first has 9 significant bits, so that its product with a binary exponent is exact.
const LN2_HI: f32 = 355.0 / 512.0;
const LN2_LO: f32 = -2.121_944_4e-4;

/// (e^r - 1 - r) / r^2 for |r| <= ln(2) / 2, as powers of r.
const EXP: [f32; 5] = [0.5, 0.166_665_2, 0.041_666_403, 0.008_368_83, 0.001_394_056_1];
/// (log(1 + f) - f + f^2 / 2) / f^3 for sqrt(1/2) <= 1 + f <= sqrt(2), as powers of f.
const LOG: [f32; 8] = [
    0.333_333_16,
    -0.250_008_1,
    0.200_023_03,
    -0.166_245_58,
    0.141_809_17,
    -0.131_284_83,
    0.128_831_12,
    -0.078_618_735,
];
/// (tanh(x) / x - 1) / x^2 for |x| <= 0.625, as powers of x^2.
const TANH: [f32; 5] = [-0.333_332_84, 0.133_314_85, -0.053_743_005, 0.020_649_103, -0.005_715_499];
/// erf(x) / x - 1 for |x| <= 0.875, as powers of x^2.
const ERF: [f32; 7] =
    [0.128_379_17, -0.376_126_3, 0.112_836_23, -0.026_855_376, 0.005_191_025_3, -0.000_802_814_2, 7.878_277e-5];
/// log(1 - erf(x)) for 0.875 <= x <= 4, as powers of x.
const ERF_TAIL: [f32; 8] = [
    1.635_864_2e-4,
    -1.129_461_2,
    -0.633_456_23,
    -0.108_159_214,
    0.025_041_003,
    -0.004_141_222_7,
    4.282_999_7e-4,
    -2.056_233_1e-5,
];
/// (atanh(t) / t - 1) / t^2 for |t| <= 0.1716, as powers of t^2.
const ATANH: [f32; 4] = [0.333_333_3, 0.200_004_86, 0.142_493_93, 0.121_396_12];

/// The bits of sqrt(1/2), the smallest significand that [`reduce`] gives.
const SQRT_HALF: i32 = 0x3f35_04f3;

#[inline(always)]
fn add<S: Scalars>(s: &mut S, a: S::V, b: S::V) -> S::V {
    s.bin(BinOp::AddF, a, b)
}

#[inline(always)]
fn sub<S: Scalars>(s: &mut S, a: S::V, b: S::V) -> S::V {
    s.bin(BinOp::SubF, a, b)
}

#[inline(always)]
fn mul<S: Scalars>(s: &mut S, a: S::V, b: S::V) -> S::V {
    s.bin(BinOp::MulF, a, b)
}

/// A binary operation with a constant on the right.
#[inline(always)]
fn with<S: Scalars>(s: &mut S, op: BinOp, a: S::V, k: f32) -> S::V {
    let k = s.f32(k);
    s.bin(op, a, k)
}

/// A binary operation with an integer constant on the right.
#[inline(always)]
fn with_i<S: Scalars>(s: &mut S, op: BinOp, a: S::V, k: i32) -> S::V {
    let k = s.i32(k);
    s.bin(op, a, k)
}

/// c[0] + x (c[1] + x (c[2] + ...)).
#[inline(always)]
fn horner<S: Scalars>(s: &mut S, x: &S::V, coefficients: &[f32]) -> S::V {
    let (last, rest) = coefficients.split_last().expect("a polynomial has coefficients");
    let mut sum = s.f32(*last);
    for c in rest.iter().rev() {
        sum = mul(s, sum, x.clone());
        sum = with(s, BinOp::AddF, sum, *c);
    }
    sum
}

/// 2^k for -126 <= k <= 127.
#[inline(always)]
fn power_of_two<S: Scalars>(s: &mut S, k: S::V) -> S::V {
    let biased = with_i(s, BinOp::AddI, k, 127);
    let bits = with_i(s, BinOp::ShlI, biased, 23);
    s.un(UnOp::FOfBits, bits)
}

/// The nearest multiple k of ln 2 and the rest in two parts, the first exact: x = k ln 2 + hi - lo. For |x| below 150.
/// All three are shared.
#[inline(always)]
fn reduce_exp<S: Scalars>(s: &mut S, x: S::V) -> (S::V, S::V, S::V) {
    let k = with(s, BinOp::MulF, x.clone(), std::f32::consts::LOG2_E);
    let k = s.un(UnOp::RoundToI, k);
    let k = s.share(k);
    let kf = s.un(UnOp::ToF, k.clone());
    let kf = s.share(kf);
    let multiple = with(s, BinOp::MulF, kf.clone(), LN2_HI);
    let hi = sub(s, x, multiple);
    let lo = with(s, BinOp::MulF, kf, LN2_LO);
    (k, s.share(hi), s.share(lo))
}

/// e^(hi - lo) - 1 for |hi - lo| <= ln(2) / 2 and small lo.
#[inline(always)]
fn expm1_reduced<S: Scalars>(s: &mut S, hi: S::V, lo: S::V) -> S::V {
    let r = sub(s, hi.clone(), lo.clone());
    let r = s.share(r);
    let p = horner(s, &r, &EXP);
    let square = mul(s, r.clone(), r);
    let tail = mul(s, square, p);
    let low = sub(s, lo, tail);
    sub(s, hi, low)
}

/// y * 2^k, rounded once more where the result is denormal. Two steps, since 2^k itself may leave the range.
#[inline(always)]
fn scale<S: Scalars>(s: &mut S, y: S::V, k: S::V) -> S::V {
    let half = with_i(s, BinOp::ShrI, k.clone(), 1);
    let half = s.share(half);
    let rest = s.bin(BinOp::SubI, k, half.clone());
    let (half, rest) = (power_of_two(s, half), power_of_two(s, rest));
    let y = mul(s, y, half);
    mul(s, y, rest)
}

/// The end of the range of x in exp: beyond it the result is 0 or infinite.
const EXP_RANGE: (f32, f32) = (-104.0, 89.0);

/// e^x. At most 0.95 ULP.
#[inline(always)]
pub fn exp<S: Scalars>(s: &mut S, x: S::V) -> S::V {
    let x = s.clamp_f(x, EXP_RANGE.0, EXP_RANGE.1);
    let x = s.share(x);
    let (k, hi, lo) = reduce_exp(s, x);
    let q = expm1_reduced(s, hi, lo);
    let y = with(s, BinOp::AddF, q, 1.0);
    scale(s, y, k)
}

/// e^-|x| and what the last sum of its computation lost. Both are shared.
#[inline(always)]
fn exp_of_minus_abs<S: Scalars>(s: &mut S, x: S::V) -> (S::V, S::V) {
    let x = s.un(UnOp::AbsF, x);
    let x = s.un(UnOp::NegF, x);
    let x = with(s, BinOp::MaxF, x, EXP_RANGE.0);
    let x = s.share(x);
    let (k, hi, lo) = reduce_exp(s, x);
    let q = expm1_reduced(s, hi, lo);
    let q = s.share(q);
    let y = with(s, BinOp::AddF, q.clone(), 1.0);
    let y = s.share(y);
    let kept = with(s, BinOp::SubF, y.clone(), 1.0);
    let lost = sub(s, q, kept);
    let (y, lost) = (scale(s, y, k.clone()), scale(s, lost, k));
    (s.share(y), s.share(lost))
}

/// e^x for -87 <= x <= 88, where the result is normal. As accurate as [`exp`].
#[inline(always)]
fn exp_normal<S: Scalars>(s: &mut S, x: S::V) -> S::V {
    let x = s.share(x);
    let (k, hi, lo) = reduce_exp(s, x);
    let q = expm1_reduced(s, hi, lo);
    let y = with(s, BinOp::AddF, q, 1.0);
    let power = power_of_two(s, k);
    mul(s, y, power)
}

/// e^x - 1 for x <= 0; 0 for x > 0. At most 1.0 ULP.
#[inline(always)]
pub fn expm1_negative<S: Scalars>(s: &mut S, x: S::V) -> S::V {
    let x = s.clamp_f(x, -20.0, 0.0);
    let x = s.share(x);
    let (k, hi, lo) = reduce_exp(s, x);
    let q = expm1_reduced(s, hi, lo);
    let power = power_of_two(s, k);
    let power = s.share(power);
    let whole = with(s, BinOp::SubF, power.clone(), 1.0);
    let part = mul(s, power, q);
    add(s, whole, part)
}

/// The significand m in [sqrt(1/2), sqrt(2)) and the exponent k of a positive normal number m * 2^k.
#[inline(always)]
fn reduce_log<S: Scalars>(s: &mut S, x: S::V) -> (S::V, S::V) {
    let bits = s.un(UnOp::BitsOfF, x);
    let offset = with_i(s, BinOp::SubI, bits, SQRT_HALF);
    let offset = s.share(offset);
    let k = with_i(s, BinOp::ShrI, offset.clone(), 23);
    let m = with_i(s, BinOp::AndI, offset, 0x007f_ffff);
    let m = with_i(s, BinOp::AddI, m, SQRT_HALF);
    (s.un(UnOp::FOfBits, m), s.un(UnOp::ToF, k))
}

/// A positive number made normal, and the exponent (as `f32`) to add in return.
#[inline(always)]
fn normalised<S: Scalars>(s: &mut S, x: S::V) -> (S::V, S::V) {
    let tiny = with(s, BinOp::LtF, x.clone(), f32::MIN_POSITIVE);
    let tiny = s.share(tiny);
    let scaled = with(s, BinOp::MulF, x.clone(), 8_388_608.0);
    let scaled = s.select(tiny.clone(), scaled, x);
    let (minus_23, zero) = (s.f32(-23.0), s.f32(0.0));
    (s.share(scaled), s.select(tiny, minus_23, zero))
}

/// log(m * 2^k) for m of [`reduce_log`].
#[inline(always)]
fn log_reduced<S: Scalars>(s: &mut S, m: S::V, k: S::V) -> S::V {
    let f = with(s, BinOp::SubF, m, 1.0);
    let f = s.share(f);
    let k = s.share(k);
    let square = mul(s, f.clone(), f.clone());
    let square = s.share(square);
    let p = horner(s, &f, &LOG);
    let cube = mul(s, square.clone(), f.clone());
    let tail = mul(s, cube, p);
    let half = with(s, BinOp::MulF, square, 0.5);
    let lo = with(s, BinOp::MulF, k.clone(), LN2_LO);
    let low = add(s, tail, lo);
    let low = sub(s, half, low);
    let log_m = sub(s, f, low);
    let hi = with(s, BinOp::MulF, k, LN2_HI);
    add(s, hi, log_m)
}

/// log(x); -inf at 0, NaN below it. At most 0.87 ULP.
#[inline(always)]
pub fn log<S: Scalars>(s: &mut S, x: S::V) -> S::V {
    let x = s.share(x);
    let (normal, extra) = normalised(s, x.clone());
    let (m, k) = reduce_log(s, normal);
    let k = add(s, k, extra);
    let finite = log_reduced(s, m, k);
    let (nan, minus_infinity, zero) = (s.f32(f32::NAN), s.f32(f32::NEG_INFINITY), s.f32(0.0));
    let negative = s.bin(BinOp::LtF, x.clone(), zero.clone());
    let other = s.select(negative, nan, x.clone());
    let is_zero = s.bin(BinOp::EqF, x.clone(), zero.clone());
    let other = s.select(is_zero, minus_infinity, other);
    let positive = s.bin(BinOp::LtF, zero, x.clone());
    let bounded = with(s, BinOp::LtF, x, f32::INFINITY);
    let usual = s.bin(BinOp::AndI, positive, bounded);
    s.select(usual, finite, other)
}

/// log(1 + e^x) as max(x, 0) + log1p(e^-|x|). At most 1.8 ULP.
#[inline(always)]
pub fn softplus<S: Scalars>(s: &mut S, x: S::V) -> S::V {
    let x = s.share(x);
    let (t, t_low) = exp_of_minus_abs(s, x.clone());
    // log(u) for u = 1 + t as rounded, and what the rounding of u lost, to first order.
    let u = with(s, BinOp::AddF, t.clone(), 1.0);
    let u = s.share(u);
    let (m, k) = reduce_log(s, u.clone());
    let main = log_reduced(s, m, k);
    let kept = with(s, BinOp::SubF, u.clone(), 1.0);
    let lost = sub(s, t, kept);
    let lost = add(s, lost, t_low);
    let correction = s.bin(BinOp::DivF, lost, u);
    let log1p = add(s, main, correction);
    let positive = with(s, BinOp::MaxF, x, 0.0);
    add(s, positive, log1p)
}

/// 1 / (1 + e^-x), as t / (1 + t) or 1 / (1 + t) for t = e^-|x| so that small results keep their precision. At most
/// 1.4 ULP.
#[inline(always)]
pub fn sigmoid<S: Scalars>(s: &mut S, x: S::V) -> S::V {
    let x = s.share(x);
    let (t, t_low) = exp_of_minus_abs(s, x.clone());
    let negative = with(s, BinOp::LtF, x, 0.0);
    let negative = s.share(negative);
    let (zero, one) = (s.f32(0.0), s.f32(1.0));
    let n = s.select(negative.clone(), t.clone(), one.clone());
    let n_low = s.select(negative.clone(), t_low.clone(), zero);
    let d = with(s, BinOp::AddF, t.clone(), 1.0);
    let d = s.share(d);
    let kept = with(s, BinOp::SubF, d.clone(), 1.0);
    let d_low = sub(s, t, kept);
    let d_low = add(s, d_low, t_low);
    // (n + n_low) / (d + d_low) to first order; 1 / d is the quotient itself, or 1 less it.
    let r = s.bin(BinOp::DivF, n, d);
    let r = s.share(r);
    let error = mul(s, r.clone(), d_low);
    let error = sub(s, n_low, error);
    let rest = sub(s, one, r.clone());
    let inverse = s.select(negative, rest, r.clone());
    let correction = mul(s, error, inverse);
    add(s, r, correction)
}

/// `magnitude`, which is not negative, under the sign of `x`.
#[inline(always)]
fn with_sign<S: Scalars>(s: &mut S, magnitude: S::V, x: S::V) -> S::V {
    let x = s.un(UnOp::BitsOfF, x);
    let sign = with_i(s, BinOp::AndI, x, i32::MIN);
    let magnitude = s.un(UnOp::BitsOfF, magnitude);
    let bits = s.bin(BinOp::OrI, magnitude, sign);
    s.un(UnOp::FOfBits, bits)
}

/// tanh(x): a polynomial up to 0.625, 1 - 2 / (e^2x + 1) beyond. At most 1.4 ULP.
#[inline(always)]
pub fn tanh<S: Scalars>(s: &mut S, x: S::V) -> S::V {
    let x = s.share(x);
    let a = s.un(UnOp::AbsF, x.clone());
    let a = s.share(a);
    let square = mul(s, a.clone(), a.clone());
    let square = s.share(square);
    let p = horner(s, &square, &TANH);
    let p = mul(s, square, p);
    let tail = mul(s, a.clone(), p);
    let small = add(s, a.clone(), tail);
    let double = add(s, a.clone(), a.clone());
    let double = with(s, BinOp::MinF, double, 20.0);
    let e = exp_normal(s, double);
    let e = with(s, BinOp::AddF, e, 1.0);
    let two = s.f32(2.0);
    let below_one = s.bin(BinOp::DivF, two, e);
    let one = s.f32(1.0);
    let large = sub(s, one, below_one);
    let is_small = with(s, BinOp::LtF, a, 0.625);
    let magnitude = s.select(is_small, small, large);
    with_sign(s, magnitude, x)
}

/// erf(x): a polynomial up to 0.875, 1 - e^p(x) beyond. At most 1.3 ULP.
#[inline(always)]
pub fn erf<S: Scalars>(s: &mut S, x: S::V) -> S::V {
    let x = s.share(x);
    let a = s.un(UnOp::AbsF, x.clone());
    let a = s.share(a);
    let square = mul(s, a.clone(), a.clone());
    let square = s.share(square);
    let p = horner(s, &square, &ERF);
    let tail = mul(s, a.clone(), p);
    let small = add(s, a.clone(), tail);
    let bounded = with(s, BinOp::MinF, a.clone(), 4.0);
    let bounded = s.share(bounded);
    let exponent = horner(s, &bounded, &ERF_TAIL);
    let complement = exp_normal(s, exponent);
    let one = s.f32(1.0);
    let large = sub(s, one, complement);
    let is_small = with(s, BinOp::LtF, a, 0.875);
    let magnitude = s.select(is_small, small, large);
    with_sign(s, magnitude, x)
}

/// The rounding error of `product` = a * b, exact where nothing over- or underflows. Dekker, A floating-point technique
/// for extending the available precision (1971), splitting by a mask of the upper 12 bits of the significand.
fn product_error<S: Scalars>(s: &mut S, a: &S::V, b: &S::V, product: S::V) -> S::V {
    let split = |s: &mut S, v: &S::V| {
        let bits = s.un(UnOp::BitsOfF, v.clone());
        let bits = with_i(s, BinOp::AndI, bits, !0xfff);
        let hi = s.un(UnOp::FOfBits, bits);
        let hi = s.share(hi);
        let lo = sub(s, v.clone(), hi.clone());
        (hi, s.share(lo))
    };
    let ((ah, al), (bh, bl)) = (split(s, a), split(s, b));
    let high = mul(s, ah.clone(), bh.clone());
    let error = sub(s, high, product);
    let cross = mul(s, ah, bl.clone());
    let error = add(s, error, cross);
    let cross = mul(s, al.clone(), bh);
    let error = add(s, error, cross);
    let low = mul(s, al, bl);
    add(s, error, low)
}

/// a + b as a rounded sum and its error, for |a| >= |b| or a = 0. Both are shared.
fn fast_two_sum<S: Scalars>(s: &mut S, a: S::V, b: S::V) -> (S::V, S::V) {
    let sum = add(s, a.clone(), b.clone());
    let sum = s.share(sum);
    let part = sub(s, sum.clone(), a);
    let rest = sub(s, b, part);
    (sum, s.share(rest))
}

/// log(a) for a >= 0 as a sum of two `f32`, to about 2^-30 of its value. At 0 and infinity, and for NaN, the first part
/// is the logarithm and the second is unspecified.
fn log_extended<S: Scalars>(s: &mut S, a: S::V) -> (S::V, S::V) {
    let (normal, extra) = normalised(s, a.clone());
    let (m, k) = reduce_log(s, normal);
    let m = s.share(m);
    let k = add(s, k, extra);
    let k = s.share(k);
    // log(m) = 2 atanh(t) for t = (m - 1) / (m + 1), with the quotient corrected by its remainder.
    let f = with(s, BinOp::SubF, m.clone(), 1.0);
    let f = s.share(f);
    let d = with(s, BinOp::AddF, m.clone(), 1.0);
    let d = s.share(d);
    let d_kept = with(s, BinOp::SubF, d.clone(), 1.0);
    let d_lost = sub(s, m, d_kept);
    let t = s.bin(BinOp::DivF, f.clone(), d.clone());
    let t = s.share(t);
    let product = mul(s, t.clone(), d.clone());
    let product = s.share(product);
    let error = product_error(s, &t, &d, product.clone());
    let remainder = sub(s, f, product);
    let remainder = sub(s, remainder, error);
    let lost = mul(s, t.clone(), d_lost);
    let remainder = sub(s, remainder, lost);
    let t_low = s.bin(BinOp::DivF, remainder, d);
    let square = mul(s, t.clone(), t.clone());
    let square = s.share(square);
    let p = horner(s, &square, &ATANH);
    let p = mul(s, square, p);
    let tail = mul(s, t.clone(), p);
    let low = add(s, t_low, tail);
    let low = s.share(low);
    let low = add(s, low.clone(), low);
    let low = s.share(low);
    let high = add(s, t.clone(), t);
    let high = s.share(high);
    let hi = with(s, BinOp::MulF, k.clone(), LN2_HI);
    let hi = s.share(hi);
    let lo = with(s, BinOp::MulF, k, LN2_LO);
    let (sum, rest) = fast_two_sum(s, hi, high);
    let low = add(s, lo, low);
    let low = add(s, rest, low);
    let low = s.share(low);
    let (sum, rest) = fast_two_sum(s, sum, low);
    let minus_infinity = s.f32(f32::NEG_INFINITY);
    let is_zero = with(s, BinOp::EqF, a.clone(), 0.0);
    let sum = s.select(is_zero, minus_infinity, sum);
    let bounded = with(s, BinOp::LtF, a.clone(), f32::INFINITY);
    let sum = s.select(bounded, sum, a);
    (s.share(sum), rest)
}

/// |a|^b for exponents that are not special.
fn power_of_magnitude<S: Scalars>(s: &mut S, a: S::V, b: S::V) -> S::V {
    let (high, low) = log_extended(s, a);
    let p = mul(s, high.clone(), b.clone());
    let p = s.share(p);
    let error = product_error(s, &high, &b, p.clone());
    let low = mul(s, low, b);
    let low = add(s, error, low);
    let size = s.un(UnOp::AbsF, p.clone());
    let usual = with(s, BinOp::LtF, size, 150.0);
    let zero = s.f32(0.0);
    // Beyond, the result is 0 or infinite, or NaN from p alone.
    let low = s.select(usual, low, zero);
    let p = s.clamp_f(p, EXP_RANGE.0, EXP_RANGE.1);
    let p = s.share(p);
    let (k, hi, lo) = reduce_exp(s, p);
    let lo = sub(s, lo, low);
    let lo = s.share(lo);
    let q = expm1_reduced(s, hi, lo);
    let y = with(s, BinOp::AddF, q, 1.0);
    scale(s, y, k)
}

/// a^b with the special cases of IEEE 754 `pow`. At most 5 ULP (4.1 measured, where the result is near the ends of the
/// range); a single rounding for b = 2, 1, 0, -1 and 0.5.
pub fn pow<S: Scalars>(s: &mut S, a: S::V, b: S::V) -> S::V {
    let (a, b) = (s.share(a), s.share(b));
    let size = s.un(UnOp::AbsF, a.clone());
    let size = s.share(size);
    let mut result = power_of_magnitude(s, size.clone(), b.clone());
    let one = s.f32(1.0);
    let exact = [
        (2.0, mul(s, size.clone(), size.clone())),
        (1.0, size.clone()),
        (0.5, s.un(UnOp::SqrtF, size.clone())),
        (-1.0, s.bin(BinOp::DivF, one.clone(), size.clone())),
        (0.0, one.clone()),
    ];
    for (exponent, value) in exact {
        let is = with(s, BinOp::EqF, b.clone(), exponent);
        result = s.select(is, value, result);
    }
    let is_one = with(s, BinOp::EqF, size.clone(), 1.0);
    let result = s.select(is_one, one.clone(), result);
    let result = s.share(result);
    // Odd exponents keep the sign; other integral ones lose it.
    let floor = s.un(UnOp::FloorF, b.clone());
    let integral = s.bin(BinOp::EqF, floor, b.clone());
    let integral = s.share(integral);
    let half = with(s, BinOp::MulF, b.clone(), 0.5);
    let half = s.share(half);
    let floor = s.un(UnOp::FloorF, half.clone());
    let even = s.bin(BinOp::EqF, floor, half);
    let uneven = s.un(UnOp::NotI, even);
    let odd = s.bin(BinOp::AndI, integral.clone(), uneven);
    let negated = with_sign(s, result.clone(), a.clone());
    let result = s.select(odd, negated, result);
    // A negative number has no real power under a fractional exponent; -inf counts as a limit.
    let negative = with(s, BinOp::LtF, a.clone(), 0.0);
    let bounded = with(s, BinOp::LtF, size, f32::INFINITY);
    let fractional = s.un(UnOp::NotI, integral);
    let undefined = s.bin(BinOp::AndI, negative, bounded);
    let undefined = s.bin(BinOp::AndI, undefined, fractional);
    let nan = s.f32(f32::NAN);
    let result = s.select(undefined, nan, result);
    // 1 to any power is 1, NaN included; -1 only to those that are numbers.
    let is_one = s.bin(BinOp::EqF, a, one.clone());
    s.select(is_one, one, result)
}
