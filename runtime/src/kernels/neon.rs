//! Vectors of Advanced SIMD, which every AArch64 processor has.

use super::bytes::Ints;
use super::simd::Simd;
use super::words::{Words, lanewise};
use mcc_ir::scalar::{BinOp, UnOp};
use std::arch::aarch64::*;

/// Four floats.
#[derive(Clone, Copy, Debug)]
pub struct Neon;

// SAFETY: needs no instructions beside the baseline; pointers are used as the trait says.
unsafe impl Simd for Neon {
    const LANES: usize = 4;
    const SUMS: usize = 20;
    const FUSED: bool = true;
    type V = float32x4_t;

    #[inline(always)]
    unsafe fn splat(value: f32) -> float32x4_t {
        // SAFETY: the trait's contract, as everywhere below.
        unsafe { vdupq_n_f32(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> float32x4_t {
        // SAFETY: as above.
        unsafe { vld1q_f32(from) }
    }
    #[inline(always)]
    unsafe fn load_part(from: *const f32, n: usize) -> float32x4_t {
        let mut all = [0f32; 4];
        // SAFETY: as above; lanes beyond `n` are not touched.
        unsafe {
            std::ptr::copy_nonoverlapping(from, all.as_mut_ptr(), n);
            vld1q_f32(all.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, v: float32x4_t) {
        // SAFETY: as above.
        unsafe { vst1q_f32(to, v) }
    }
    #[inline(always)]
    unsafe fn store_part(to: *mut f32, n: usize, v: float32x4_t) {
        let mut all = [0f32; 4];
        // SAFETY: as above; lanes beyond `n` are not touched.
        unsafe {
            vst1q_f32(all.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(all.as_ptr(), to, n);
        }
    }
    #[inline(always)]
    unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: as above.
        unsafe { vaddq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: as above.
        unsafe { vsubq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: as above.
        unsafe { vdivq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn mul_add(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        // SAFETY: as above.
        unsafe { vfmaq_f32(c, a, b) }
    }
    // The instructions for minimum and maximum order the two zeros, which the trait does not.
    #[inline(always)]
    unsafe fn at_least(bound: float32x4_t, v: float32x4_t) -> float32x4_t {
        // SAFETY: as above.
        unsafe { vbslq_f32(vcgtq_f32(bound, v), bound, v) }
    }
    #[inline(always)]
    unsafe fn at_most(bound: float32x4_t, v: float32x4_t) -> float32x4_t {
        // SAFETY: as above.
        unsafe { vbslq_f32(vcltq_f32(bound, v), bound, v) }
    }
}

// SAFETY: needs no instructions beside the baseline.
unsafe impl Words for Neon {
    #[inline(always)]
    unsafe fn un(op: UnOp, a: float32x4_t) -> float32x4_t {
        // SAFETY: as above.
        unsafe {
            let i = vreinterpretq_s32_f32(a);
            let words = match op {
                UnOp::NegF => return vnegq_f32(a),
                UnOp::AbsF => return vabsq_f32(a),
                UnOp::SqrtF => return vsqrtq_f32(a),
                UnOp::FloorF => return vrndmq_f32(a),
                UnOp::CeilF => return vrndpq_f32(a),
                UnOp::RoundF => return vrndnq_f32(a),
                UnOp::ToF => return vcvtq_f32_s32(i),
                UnOp::BitsOfF | UnOp::FOfBits => return a,
                UnOp::RoundToI => vcvtnq_s32_f32(a),
                UnOp::TruncToI => vcvtq_s32_f32(a),
                UnOp::NegI => vnegq_s32(i),
                UnOp::NotI => holds(vceqzq_s32(i)),
            };
            vreinterpretq_f32_s32(words)
        }
    }

    #[inline(always)]
    unsafe fn bin(op: BinOp, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: as above.
        unsafe {
            let (x, y) = (vreinterpretq_s32_f32(a), vreinterpretq_s32_f32(b));
            let words = match op {
                BinOp::AddF => return vaddq_f32(a, b),
                BinOp::SubF => return vsubq_f32(a, b),
                BinOp::MulF => return vmulq_f32(a, b),
                BinOp::DivF => return vdivq_f32(a, b),
                // Of unordered or equal values the first.
                BinOp::MinF => return vbslq_f32(vcltq_f32(b, a), b, a),
                BinOp::MaxF => return vbslq_f32(vcgtq_f32(b, a), b, a),
                BinOp::DivI | BinOp::MulHighRound => return lanewise::<Neon>(a, b, |a, b| op.apply(a, b)),
                BinOp::AddI => vaddq_s32(x, y),
                BinOp::SubI => vsubq_s32(x, y),
                BinOp::MulI => vmulq_s32(x, y),
                BinOp::MinI => vminq_s32(x, y),
                BinOp::MaxI => vmaxq_s32(x, y),
                BinOp::ShlI => vshlq_s32(x, y),
                BinOp::ShrI => vshlq_s32(x, vnegq_s32(y)),
                BinOp::ShrU => vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(x), vnegq_s32(y))),
                BinOp::AndI => vandq_s32(x, y),
                BinOp::OrI => vorrq_s32(x, y),
                BinOp::XorI => veorq_s32(x, y),
                BinOp::EqF => holds(vceqq_f32(a, b)),
                BinOp::LtF => holds(vcltq_f32(a, b)),
                BinOp::LeF => holds(vcleq_f32(a, b)),
                BinOp::EqI => holds(vceqq_s32(x, y)),
                BinOp::LtI => holds(vcltq_s32(x, y)),
                BinOp::LeI => holds(vcleq_s32(x, y)),
            };
            vreinterpretq_f32_s32(words)
        }
    }

    #[inline(always)]
    unsafe fn select(condition: float32x4_t, then: float32x4_t, other: float32x4_t) -> float32x4_t {
        // SAFETY: as above.
        unsafe { vbslq_f32(vceqzq_s32(vreinterpretq_s32_f32(condition)), other, then) }
    }
}

/// The integer 1 where all bits of a lane are set, else 0.
///
/// # Safety
/// None beyond the baseline.
#[inline(always)]
unsafe fn holds(mask: uint32x4_t) -> int32x4_t {
    // SAFETY: as above.
    unsafe { vreinterpretq_s32_u32(vshrq_n_u32::<31>(mask)) }
}

/// Eight integers: products of 16 bits are added to sums of 32 bits in one instruction for four.
#[derive(Clone, Copy, Debug)]
pub struct NeonInts;

/// A vector of two halves from an instruction on each.
macro_rules! halves {
    ($of:ident, $instruction:ident($($v:ident),*)) => {
        $of($instruction($($v.0),*), $instruction($($v.1),*))
    };
}

// SAFETY: needs no instructions beside the baseline; pointers are used as the trait says.
unsafe impl Ints for NeonInts {
    const LANES: usize = 8;
    const SUMS: usize = 10;
    const DEPTH: usize = 1;
    const OFFSET: i32 = 0;
    type X = i16;
    type V = int16x8_t;
    type I = int32x4x2_t;
    type F = float32x4x2_t;

    #[inline(always)]
    fn activation(value: i32) -> i16 {
        value as i16
    }
    #[inline(always)]
    unsafe fn x(from: *const i16) -> int16x8_t {
        // SAFETY: as above.
        unsafe { vld1q_dup_s16(from) }
    }
    #[inline(always)]
    unsafe fn weights(from: *const i8) -> int16x8_t {
        // SAFETY: as above: eight weights.
        unsafe { vmovl_s8(vld1_s8(from)) }
    }
    #[inline(always)]
    unsafe fn dot(sum: int32x4x2_t, x: int16x8_t, w: int16x8_t) -> int32x4x2_t {
        // SAFETY: as above.
        unsafe { int32x4x2_t(vmlal_s16(sum.0, vget_low_s16(x), vget_low_s16(w)), vmlal_high_s16(sum.1, x, w)) }
    }
    #[inline(always)]
    unsafe fn multiply_add(sum: int32x4x2_t, x: int32x4x2_t, w: int32x4x2_t) -> int32x4x2_t {
        // SAFETY: as above.
        unsafe { halves!(int32x4x2_t, vmlaq_s32(sum, x, w)) }
    }
    #[inline(always)]
    unsafe fn halves(w: int32x4x2_t) -> int32x4x2_t {
        w
    }
    #[inline(always)]
    unsafe fn load(from: *const i32) -> int32x4x2_t {
        // SAFETY: as above.
        unsafe { int32x4x2_t(vld1q_s32(from), vld1q_s32(from.add(4))) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut i32, lanes: usize, v: int32x4x2_t) {
        // SAFETY: as above; lanes beyond are not touched.
        unsafe {
            if lanes == 8 {
                vst1q_s32(to, v.0);
                return vst1q_s32(to.add(4), v.1);
            }
            let mut all = [0i32; 8];
            vst1q_s32(all.as_mut_ptr(), v.0);
            vst1q_s32(all.as_mut_ptr().add(4), v.1);
            std::ptr::copy_nonoverlapping(all.as_ptr(), to, lanes);
        }
    }
    #[inline(always)]
    unsafe fn load_bytes<const SIGNED: bool>(from: *const u8, lanes: usize) -> int32x4x2_t {
        // SAFETY: as above; bytes beyond are not touched.
        unsafe {
            let bytes = if lanes == 8 {
                vld1_u8(from)
            } else {
                let mut all = [0u8; 8];
                std::ptr::copy_nonoverlapping(from, all.as_mut_ptr(), lanes);
                vld1_u8(all.as_ptr())
            };
            let wide =
                if SIGNED { vmovl_s8(vreinterpret_s8_u8(bytes)) } else { vreinterpretq_s16_u16(vmovl_u8(bytes)) };
            int32x4x2_t(vmovl_s16(vget_low_s16(wide)), vmovl_high_s16(wide))
        }
    }
    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, lanes: usize, v: int32x4x2_t) {
        // SAFETY: as above; bytes beyond are not touched.
        unsafe {
            let bytes = vreinterpret_u8_s8(vmovn_s16(vcombine_s16(vmovn_s32(v.0), vmovn_s32(v.1))));
            if lanes == 8 {
                return vst1_u8(to, bytes);
            }
            let mut all = [0u8; 8];
            vst1_u8(all.as_mut_ptr(), bytes);
            std::ptr::copy_nonoverlapping(all.as_ptr(), to, lanes);
        }
    }
    #[inline(always)]
    unsafe fn splat(value: i32) -> int32x4x2_t {
        // SAFETY: as above.
        unsafe { int32x4x2_t(vdupq_n_s32(value), vdupq_n_s32(value)) }
    }
    #[inline(always)]
    unsafe fn add(a: int32x4x2_t, b: int32x4x2_t) -> int32x4x2_t {
        // SAFETY: as above.
        unsafe { halves!(int32x4x2_t, vaddq_s32(a, b)) }
    }
    #[inline(always)]
    unsafe fn max(a: int32x4x2_t, b: int32x4x2_t) -> int32x4x2_t {
        // SAFETY: as above.
        unsafe { halves!(int32x4x2_t, vmaxq_s32(a, b)) }
    }
    #[inline(always)]
    unsafe fn to_float(v: int32x4x2_t) -> float32x4x2_t {
        // SAFETY: as above.
        unsafe { halves!(float32x4x2_t, vcvtq_f32_s32(v)) }
    }
    #[inline(always)]
    unsafe fn round(v: float32x4x2_t) -> int32x4x2_t {
        // SAFETY: as above.
        unsafe { halves!(int32x4x2_t, vcvtnq_s32_f32(v)) }
    }
    #[inline(always)]
    unsafe fn load_float(from: *const f32) -> float32x4x2_t {
        // SAFETY: as above.
        unsafe { float32x4x2_t(vld1q_f32(from), vld1q_f32(from.add(4))) }
    }
    #[inline(always)]
    unsafe fn splat_float(value: f32) -> float32x4x2_t {
        // SAFETY: as above.
        unsafe { float32x4x2_t(vdupq_n_f32(value), vdupq_n_f32(value)) }
    }
    #[inline(always)]
    unsafe fn add_float(a: float32x4x2_t, b: float32x4x2_t) -> float32x4x2_t {
        // SAFETY: as above.
        unsafe { halves!(float32x4x2_t, vaddq_f32(a, b)) }
    }
    #[inline(always)]
    unsafe fn mul_float(a: float32x4x2_t, b: float32x4x2_t) -> float32x4x2_t {
        // SAFETY: as above.
        unsafe { halves!(float32x4x2_t, vmulq_f32(a, b)) }
    }
    #[inline(always)]
    unsafe fn div_float(a: float32x4x2_t, b: float32x4x2_t) -> float32x4x2_t {
        // SAFETY: as above.
        unsafe { halves!(float32x4x2_t, vdivq_f32(a, b)) }
    }
    // Both instructions keep a NaN.
    #[inline(always)]
    unsafe fn clamp_float(v: float32x4x2_t, lo: f32, hi: f32) -> float32x4x2_t {
        // SAFETY: as above.
        unsafe {
            let (lo, hi) = (Self::splat_float(lo), Self::splat_float(hi));
            let v = halves!(float32x4x2_t, vminq_f32(hi, v));
            halves!(float32x4x2_t, vmaxq_f32(lo, v))
        }
    }
}
