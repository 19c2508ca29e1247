//! The closed scalar language: 32-bit floats and integers, and the operations that every executor lowers.
//!
//! Whatever mcc computes for one element is written once, generically over [`Scalars`]: [`Eval`] computes it, the loop
//! nest builder records it as an expression, a backend prints it. So all executors agree by construction.
//!
//! Scalars travel as raw 32-bit words; each operation says how it reads them.

/// The type of a scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ScalarType {
    F32,
    I32,
}

/// Operations of one argument. The suffix is the argument's type, and the result's where none other is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UnOp {
    NegF,
    AbsF,
    SqrtF,
    FloorF,
    CeilF,
    /// Rounds half to even, stays `f32`.
    RoundF,
    /// `f32` to `i32`, half to even. Only for arguments whose rounded value is an `i32`; NaN gives an unspecified integer.
    RoundToI,
    /// `f32` to `i32`, towards zero, saturating; NaN gives 0.
    TruncToI,
    /// `i32` to `f32`, half to even.
    ToF,
    /// The bits of an `f32` as `i32`.
    BitsOfF,
    /// The `f32` with these bits.
    FOfBits,
    NegI,
    /// 1 where the argument is 0, else 0.
    NotI,
}

/// Operations of two arguments. Comparisons give the `i32` 1 or 0; integers wrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BinOp {
    AddF,
    SubF,
    MulF,
    DivF,
    /// `b < a ? b : a`: a NaN in a stays, a NaN in b is ignored.
    MinF,
    /// `b > a ? b : a`.
    MaxF,
    AddI,
    SubI,
    MulI,
    /// Truncates; division by 0 gives 0, and `i32::MIN / -1` wraps.
    DivI,
    MinI,
    MaxI,
    /// Shifts take a count of 0 to 31.
    ShlI,
    /// Arithmetic shift right.
    ShrI,
    /// Logical shift right.
    ShrU,
    AndI,
    OrI,
    XorI,
    EqF,
    LtF,
    LeF,
    EqI,
    LtI,
    LeI,
    /// `(i64(a) * i64(b) + 2^31) >> 32`.
    MulHighRound,
}

impl UnOp {
    pub fn argument(self) -> ScalarType {
        use UnOp::*;
        match self {
            NegF | AbsF | SqrtF | FloorF | CeilF | RoundF | RoundToI | TruncToI | BitsOfF => ScalarType::F32,
            ToF | FOfBits | NegI | NotI => ScalarType::I32,
        }
    }

    pub fn result(self) -> ScalarType {
        use UnOp::*;
        match self {
            NegF | AbsF | SqrtF | FloorF | CeilF | RoundF | ToF | FOfBits => ScalarType::F32,
            RoundToI | TruncToI | BitsOfF | NegI | NotI => ScalarType::I32,
        }
    }

    /// The meaning, on raw words.
    #[inline]
    pub fn apply(self, a: u32) -> u32 {
        let f = f32::from_bits(a);
        let i = a as i32;
        match self {
            UnOp::NegF => (-f).to_bits(),
            UnOp::AbsF => f.abs().to_bits(),
            UnOp::SqrtF => f.sqrt().to_bits(),
            UnOp::FloorF => f.floor().to_bits(),
            UnOp::CeilF => f.ceil().to_bits(),
            UnOp::RoundF => f.round_ties_even().to_bits(),
            UnOp::RoundToI => f.round_ties_even() as i32 as u32,
            UnOp::TruncToI => f as i32 as u32,
            UnOp::ToF => (i as f32).to_bits(),
            UnOp::BitsOfF | UnOp::FOfBits => a,
            UnOp::NegI => i.wrapping_neg() as u32,
            UnOp::NotI => (i == 0) as u32,
        }
    }
}

impl BinOp {
    pub fn argument(self) -> ScalarType {
        use BinOp::*;
        match self {
            AddF | SubF | MulF | DivF | MinF | MaxF | EqF | LtF | LeF => ScalarType::F32,
            _ => ScalarType::I32,
        }
    }

    pub fn result(self) -> ScalarType {
        use BinOp::*;
        match self {
            AddF | SubF | MulF | DivF | MinF | MaxF => ScalarType::F32,
            _ => ScalarType::I32,
        }
    }

    /// The meaning, on raw words.
    #[inline]
    pub fn apply(self, a: u32, b: u32) -> u32 {
        let (fa, fb) = (f32::from_bits(a), f32::from_bits(b));
        let (ia, ib) = (a as i32, b as i32);
        match self {
            BinOp::AddF => (fa + fb).to_bits(),
            BinOp::SubF => (fa - fb).to_bits(),
            BinOp::MulF => (fa * fb).to_bits(),
            BinOp::DivF => (fa / fb).to_bits(),
            BinOp::MinF => {
                if fb < fa {
                    b
                } else {
                    a
                }
            }
            BinOp::MaxF => {
                if fb > fa {
                    b
                } else {
                    a
                }
            }
            BinOp::AddI => a.wrapping_add(b),
            BinOp::SubI => a.wrapping_sub(b),
            BinOp::MulI => a.wrapping_mul(b),
            BinOp::DivI => {
                if ib == 0 {
                    0
                } else {
                    ia.wrapping_div(ib) as u32
                }
            }
            BinOp::MinI => ia.min(ib) as u32,
            BinOp::MaxI => ia.max(ib) as u32,
            BinOp::ShlI => a.wrapping_shl(b),
            BinOp::ShrI => ia.wrapping_shr(b) as u32,
            BinOp::ShrU => a.wrapping_shr(b),
            BinOp::AndI => a & b,
            BinOp::OrI => a | b,
            BinOp::XorI => a ^ b,
            BinOp::EqF => (fa == fb) as u32,
            BinOp::LtF => (fa < fb) as u32,
            BinOp::LeF => (fa <= fb) as u32,
            BinOp::EqI => (ia == ib) as u32,
            BinOp::LtI => (ia < ib) as u32,
            BinOp::LeI => (ia <= ib) as u32,
            BinOp::MulHighRound => ((ia as i64 * ib as i64 + (1 << 31)) >> 32) as u32,
        }
    }
}

/// Something in which scalar programs can be written: an evaluator, a recorder, a printer.
pub trait Scalars {
    type V: Clone;
    fn f32(&mut self, value: f32) -> Self::V;
    fn i32(&mut self, value: i32) -> Self::V;
    fn un(&mut self, op: UnOp, a: Self::V) -> Self::V;
    fn bin(&mut self, op: BinOp, a: Self::V, b: Self::V) -> Self::V;
    /// `then` where `condition` (an `i32`) is not 0, else `other`. Both are computed.
    fn select(&mut self, condition: Self::V, then: Self::V, other: Self::V) -> Self::V;
    /// Names a value that is used more than once, so that recorders need not repeat its computation.
    fn share(&mut self, value: Self::V) -> Self::V;

    /// `max(lo, min(hi, v))` on `i32`.
    #[inline(always)]
    fn clamp_i(&mut self, v: Self::V, lo: i32, hi: i32) -> Self::V {
        let hi = self.i32(hi);
        let v = self.bin(BinOp::MinI, v, hi);
        let lo = self.i32(lo);
        self.bin(BinOp::MaxI, v, lo)
    }

    /// Clamp on `f32`.
    #[inline(always)]
    fn clamp_f(&mut self, v: Self::V, lo: f32, hi: f32) -> Self::V {
        let hi = self.f32(hi);
        let v = self.bin(BinOp::MinF, v, hi);
        let lo = self.f32(lo);
        self.bin(BinOp::MaxF, v, lo)
    }
}

/// Computes scalar programs.
pub struct Eval;

impl Scalars for Eval {
    type V = u32;
    fn f32(&mut self, value: f32) -> u32 {
        value.to_bits()
    }
    fn i32(&mut self, value: i32) -> u32 {
        value as u32
    }
    fn un(&mut self, op: UnOp, a: u32) -> u32 {
        op.apply(a)
    }
    fn bin(&mut self, op: BinOp, a: u32, b: u32) -> u32 {
        op.apply(a, b)
    }
    fn select(&mut self, condition: u32, then: u32, other: u32) -> u32 {
        if condition != 0 { then } else { other }
    }
    fn share(&mut self, value: u32) -> u32 {
        value
    }
}
