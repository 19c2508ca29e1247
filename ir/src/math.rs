//! The element-wise functions, written once as scalar programs.
//!
//! exp, log, tanh, erf and sigmoid are range reduction and a polynomial in `f32`, at most 2 ULP from the real function, so
//! that every executor gives the same bits.

pub mod elementary;

use crate::op::{Binary, Unary};
use crate::scalar::{BinOp, Scalars, UnOp};

/// A function of one `f32`. Accuracy of the elementary functions: [`elementary`]; the others are their formula in
/// [`Unary`], each operation rounded once.
///
/// NaN propagates. Formulas are taken at infinity as they stand, so that gelu, hard-swish and softsign are NaN where they
/// meet `inf * 0` or `inf / inf`, as in ONNX Runtime. Sign and rounding keep a zero's sign.
#[inline(always)]
pub fn unary<S: Scalars>(s: &mut S, u: Unary, v: S::V) -> S::V {
    match u {
        Unary::Neg => s.un(UnOp::NegF, v),
        Unary::Abs => s.un(UnOp::AbsF, v),
        Unary::Sign => {
            let v = s.share(v);
            let (zero, one, minus_one) = (s.f32(0.0), s.f32(1.0), s.f32(-1.0));
            let negative = s.bin(BinOp::LtF, v.clone(), zero.clone());
            let positive = s.bin(BinOp::LtF, zero, v.clone());
            let rest = s.select(negative, minus_one, v);
            s.select(positive, one, rest)
        }
        Unary::Relu => {
            let zero = s.f32(0.0);
            s.bin(BinOp::MaxF, v, zero)
        }
        Unary::LeakyRelu(alpha) => {
            let alpha = s.f32(alpha.0);
            leaky(s, v, alpha)
        }
        Unary::Elu(alpha) => {
            let v = s.share(v);
            let below = elementary::expm1_negative(s, v.clone());
            let alpha = s.f32(alpha.0);
            let below = s.bin(BinOp::MulF, alpha, below);
            let zero = s.f32(0.0);
            let negative = s.bin(BinOp::LtF, v.clone(), zero);
            s.select(negative, below, v)
        }
        Unary::Clip(lo, hi) => s.clamp_f(v, lo.0, hi.0),
        Unary::Sigmoid => elementary::sigmoid(s, v),
        Unary::HardSigmoid(alpha, beta) => {
            let (alpha, beta) = (s.f32(alpha.0), s.f32(beta.0));
            let line = s.bin(BinOp::MulF, alpha, v);
            let line = s.bin(BinOp::AddF, line, beta);
            s.clamp_f(line, 0.0, 1.0)
        }
        Unary::HardSwish => {
            let v = s.share(v);
            let (six, half) = (s.f32(6.0), s.f32(0.5));
            let line = s.bin(BinOp::DivF, v.clone(), six);
            let line = s.bin(BinOp::AddF, line, half);
            let gate = s.clamp_f(line, 0.0, 1.0);
            s.bin(BinOp::MulF, v, gate)
        }
        Unary::Tanh => elementary::tanh(s, v),
        Unary::Exp => elementary::exp(s, v),
        Unary::Log => elementary::log(s, v),
        Unary::Sqrt => s.un(UnOp::SqrtF, v),
        Unary::Reciprocal => {
            let one = s.f32(1.0);
            s.bin(BinOp::DivF, one, v)
        }
        Unary::Erf => elementary::erf(s, v),
        Unary::Gelu => {
            let v = s.share(v);
            let (root, half, one) = (s.f32(std::f32::consts::SQRT_2), s.f32(0.5), s.f32(1.0));
            let scaled = s.bin(BinOp::DivF, v.clone(), root);
            let erf = elementary::erf(s, scaled);
            let gate = s.bin(BinOp::AddF, one, erf);
            let v = s.bin(BinOp::MulF, v, half);
            s.bin(BinOp::MulF, v, gate)
        }
        Unary::Softplus => elementary::softplus(s, v),
        Unary::Softsign => {
            let v = s.share(v);
            let (size, one) = (s.un(UnOp::AbsF, v.clone()), s.f32(1.0));
            let size = s.bin(BinOp::AddF, one, size);
            s.bin(BinOp::DivF, v, size)
        }
        Unary::Floor => s.un(UnOp::FloorF, v),
        Unary::Ceil => s.un(UnOp::CeilF, v),
        Unary::Round => s.un(UnOp::RoundF, v),
        Unary::Not => unreachable!("type inference takes not on bool only"),
    }
}

/// `v` where it is not negative, else `v * slope`.
#[inline(always)]
fn leaky<S: Scalars>(s: &mut S, v: S::V, slope: S::V) -> S::V {
    let v = s.share(v);
    let zero = s.f32(0.0);
    let negative = s.bin(BinOp::LtF, v.clone(), zero);
    let below = s.bin(BinOp::MulF, v.clone(), slope);
    s.select(negative, below, v)
}

/// A function of one integer.
///
/// # Panics
/// For functions that type inference refuses on integers.
pub fn unary_int<S: Scalars>(u: Unary) -> fn(&mut S, S::V) -> S::V {
    match u {
        Unary::Neg => |s, v| s.un(UnOp::NegI, v),
        Unary::Abs => |s, v| {
            let v = s.share(v);
            let n = s.un(UnOp::NegI, v.clone());
            s.bin(BinOp::MaxI, v, n)
        },
        Unary::Sign => |s, v| s.clamp_i(v, -1, 1),
        Unary::Relu => |s, v| {
            let zero = s.i32(0);
            s.bin(BinOp::MaxI, v, zero)
        },
        Unary::Not => |s, v| s.un(UnOp::NotI, v),
        _ => unreachable!("type inference takes {} on f32 only", u.name()),
    }
}

/// A function of two `f32`.
#[inline(always)]
pub fn binary<S: Scalars>(s: &mut S, op: Binary, a: S::V, b: S::V) -> S::V {
    let plain = match op {
        Binary::Add => BinOp::AddF,
        Binary::Sub => BinOp::SubF,
        Binary::Mul => BinOp::MulF,
        Binary::Div => BinOp::DivF,
        Binary::Min => BinOp::MinF,
        Binary::Max => BinOp::MaxF,
        Binary::Equal => BinOp::EqF,
        Binary::Less => BinOp::LtF,
        Binary::LessEqual => BinOp::LeF,
        Binary::Greater => return s.bin(BinOp::LtF, b, a),
        Binary::GreaterEqual => return s.bin(BinOp::LeF, b, a),
        Binary::Pow => return elementary::pow(s, a, b),
        Binary::PRelu => return leaky(s, a, b),
        Binary::And | Binary::Or | Binary::Xor => unreachable!("type inference takes {} on bool only", op.name()),
    };
    s.bin(plain, a, b)
}

/// A function of two integers of at most 32 bits, before the result is wrapped to its type.
pub fn binary_int<S: Scalars>(s: &mut S, op: Binary, a: S::V, b: S::V) -> S::V {
    let plain = match op {
        Binary::Add => BinOp::AddI,
        Binary::Sub => BinOp::SubI,
        Binary::Mul => BinOp::MulI,
        Binary::Div => BinOp::DivI,
        Binary::Min => BinOp::MinI,
        Binary::Max => BinOp::MaxI,
        Binary::Equal => BinOp::EqI,
        Binary::Less => BinOp::LtI,
        Binary::LessEqual => BinOp::LeI,
        Binary::Greater => return s.bin(BinOp::LtI, b, a),
        Binary::GreaterEqual => return s.bin(BinOp::LeI, b, a),
        Binary::And => BinOp::AndI,
        Binary::Or => BinOp::OrI,
        Binary::Xor => BinOp::XorI,
        Binary::Pow | Binary::PRelu => unreachable!("type inference takes {} on f32 only", op.name()),
    };
    s.bin(plain, a, b)
}
