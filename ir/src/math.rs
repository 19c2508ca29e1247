//! The element-wise functions, written once as scalar programs.
//!
//! exp, log, tanh, erf and sigmoid are range reduction and a polynomial in `f32`, at most 2 ULP from the real function, so
//! that every executor gives the same bits.

use crate::op::{Binary, Unary};
use crate::scalar::{BinOp, Scalars, UnOp};

/// A function of one `f32`.
pub fn unary<S: Scalars>(s: &mut S, u: Unary, v: S::V) -> S::V {
    match u {
        Unary::Neg => s.un(UnOp::NegF, v),
        Unary::Relu => {
            let zero = s.f32(0.0);
            s.bin(BinOp::MaxF, v, zero)
        }
        Unary::Clip(lo, hi) => s.clamp_f(v, lo.0, hi.0),
        _ => v,
    }
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
        Binary::Pow | Binary::PRelu => return a,
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
