//! Scalar programs on vectors: what [`mcc_ir::scalar`] computes for one element, for as many as a vector has lanes.

use super::simd::Simd;
use mcc_ir::scalar::{BinOp, Scalars, UnOp};

/// The operations of the scalar language on vectors of 32-bit words, held as floats by their bits.
///
/// # Safety
/// As for [`Simd`].
pub unsafe trait Words: Simd {
    unsafe fn un(op: UnOp, a: Self::V) -> Self::V;
    unsafe fn bin(op: BinOp, a: Self::V, b: Self::V) -> Self::V;
    /// `then` where the word of `condition` is not 0, else `other`.
    unsafe fn select(condition: Self::V, then: Self::V, other: Self::V) -> Self::V;
}

/// Writes scalar programs that are computed at once, on the vectors of S.
pub struct Wide<S>(std::marker::PhantomData<S>);

impl<S: Words> Wide<S> {
    /// # Safety
    /// The level's instructions must be there.
    #[inline(always)]
    pub unsafe fn new() -> Wide<S> {
        Wide(std::marker::PhantomData)
    }
}

impl<S: Words> Scalars for Wide<S> {
    type V = S::V;

    #[inline(always)]
    fn f32(&mut self, value: f32) -> S::V {
        // SAFETY: who made this vouched for the instructions.
        unsafe { S::splat(value) }
    }
    #[inline(always)]
    fn i32(&mut self, value: i32) -> S::V {
        // SAFETY: as above.
        unsafe { S::splat(f32::from_bits(value as u32)) }
    }
    #[inline(always)]
    fn un(&mut self, op: UnOp, a: S::V) -> S::V {
        // SAFETY: as above.
        unsafe { S::un(op, a) }
    }
    #[inline(always)]
    fn bin(&mut self, op: BinOp, a: S::V, b: S::V) -> S::V {
        // SAFETY: as above.
        unsafe { S::bin(op, a, b) }
    }
    #[inline(always)]
    fn select(&mut self, condition: S::V, then: S::V, other: S::V) -> S::V {
        // SAFETY: as above.
        unsafe { S::select(condition, then, other) }
    }
    #[inline(always)]
    fn share(&mut self, value: S::V) -> S::V {
        value
    }
}

/// An operation lane by lane, where there is no instruction for it.
///
/// # Safety
/// The level's instructions must be there.
#[inline(always)]
pub(super) unsafe fn lanewise<S: Simd>(a: S::V, b: S::V, f: impl Fn(u32, u32) -> u32) -> S::V {
    let (mut x, mut y) = ([0f32; 16], [0f32; 16]);
    // SAFETY: no level has more than sixteen lanes.
    unsafe {
        S::store(x.as_mut_ptr(), a);
        S::store(y.as_mut_ptr(), b);
        for (x, y) in x.iter_mut().zip(y).take(S::LANES) {
            *x = f32::from_bits(f(x.to_bits(), y.to_bits()));
        }
        S::load(x.as_ptr())
    }
}

// SAFETY: needs no instructions beside the baseline.
unsafe impl Words for super::simd::Portable {
    #[inline(always)]
    unsafe fn un(op: UnOp, a: [f32; 4]) -> [f32; 4] {
        a.map(|a| f32::from_bits(op.apply(a.to_bits())))
    }
    #[inline(always)]
    unsafe fn bin(op: BinOp, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        let lane = |i: usize| f32::from_bits(op.apply(a[i].to_bits(), b[i].to_bits()));
        [lane(0), lane(1), lane(2), lane(3)]
    }
    #[inline(always)]
    unsafe fn select(condition: [f32; 4], then: [f32; 4], other: [f32; 4]) -> [f32; 4] {
        let lane = |i: usize| if condition[i].to_bits() != 0 { then[i] } else { other[i] };
        [lane(0), lane(1), lane(2), lane(3)]
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::simd::{Avx2, Avx512};
    use super::{Words, lanewise};
    use mcc_ir::scalar::{BinOp, UnOp};
    use std::arch::x86_64::*;

    // SAFETY: every operation uses AVX2, which the level has.
    unsafe impl Words for Avx2 {
        #[inline(always)]
        unsafe fn un(op: UnOp, a: __m256) -> __m256 {
            // SAFETY: the trait's contract.
            unsafe {
                let i = _mm256_castps_si256(a);
                let zero = _mm256_setzero_si256();
                match op {
                    UnOp::NegF => _mm256_xor_ps(a, _mm256_set1_ps(-0.0)),
                    UnOp::AbsF => _mm256_andnot_ps(_mm256_set1_ps(-0.0), a),
                    UnOp::SqrtF => _mm256_sqrt_ps(a),
                    UnOp::FloorF => _mm256_floor_ps(a),
                    UnOp::CeilF => _mm256_ceil_ps(a),
                    UnOp::RoundF => _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a),
                    UnOp::RoundToI => _mm256_castsi256_ps(_mm256_cvtps_epi32(a)),
                    UnOp::TruncToI => lanewise::<Avx2>(a, a, |a, _| UnOp::TruncToI.apply(a)),
                    UnOp::ToF => _mm256_cvtepi32_ps(i),
                    UnOp::BitsOfF | UnOp::FOfBits => a,
                    UnOp::NegI => _mm256_castsi256_ps(_mm256_sub_epi32(zero, i)),
                    UnOp::NotI => _mm256_castsi256_ps(_mm256_srli_epi32::<31>(_mm256_cmpeq_epi32(i, zero))),
                }
            }
        }

        #[inline(always)]
        unsafe fn bin(op: BinOp, a: __m256, b: __m256) -> __m256 {
            // SAFETY: the trait's contract.
            unsafe {
                let (x, y) = (_mm256_castps_si256(a), _mm256_castps_si256(b));
                // Comparisons set all bits of a lane; one is to stay.
                macro_rules! holds {
                    ($mask:expr) => {
                        _mm256_srli_epi32::<31>($mask)
                    };
                }
                macro_rules! compare {
                    ($how:ident) => {
                        holds!(_mm256_castps_si256(_mm256_cmp_ps::<$how>(a, b)))
                    };
                }
                let words = match op {
                    BinOp::AddF => return _mm256_add_ps(a, b),
                    BinOp::SubF => return _mm256_sub_ps(a, b),
                    BinOp::MulF => return _mm256_mul_ps(a, b),
                    BinOp::DivF => return _mm256_div_ps(a, b),
                    // Of unordered or equal values the instructions give the second.
                    BinOp::MinF => return _mm256_min_ps(b, a),
                    BinOp::MaxF => return _mm256_max_ps(b, a),
                    BinOp::DivI | BinOp::MulHighRound => return lanewise::<Avx2>(a, b, |a, b| op.apply(a, b)),
                    BinOp::AddI => _mm256_add_epi32(x, y),
                    BinOp::SubI => _mm256_sub_epi32(x, y),
                    BinOp::MulI => _mm256_mullo_epi32(x, y),
                    BinOp::MinI => _mm256_min_epi32(x, y),
                    BinOp::MaxI => _mm256_max_epi32(x, y),
                    BinOp::ShlI => _mm256_sllv_epi32(x, y),
                    BinOp::ShrI => _mm256_srav_epi32(x, y),
                    BinOp::ShrU => _mm256_srlv_epi32(x, y),
                    BinOp::AndI => _mm256_and_si256(x, y),
                    BinOp::OrI => _mm256_or_si256(x, y),
                    BinOp::XorI => _mm256_xor_si256(x, y),
                    BinOp::EqF => compare!(_CMP_EQ_OQ),
                    BinOp::LtF => compare!(_CMP_LT_OQ),
                    BinOp::LeF => compare!(_CMP_LE_OQ),
                    BinOp::EqI => holds!(_mm256_cmpeq_epi32(x, y)),
                    BinOp::LtI => holds!(_mm256_cmpgt_epi32(y, x)),
                    BinOp::LeI => _mm256_xor_si256(holds!(_mm256_cmpgt_epi32(x, y)), _mm256_set1_epi32(1)),
                };
                _mm256_castsi256_ps(words)
            }
        }

        #[inline(always)]
        unsafe fn select(condition: __m256, then: __m256, other: __m256) -> __m256 {
            // SAFETY: the trait's contract.
            unsafe {
                let none = _mm256_cmpeq_epi32(_mm256_castps_si256(condition), _mm256_setzero_si256());
                _mm256_blendv_ps(then, other, _mm256_castsi256_ps(none))
            }
        }
    }

    // SAFETY: every operation uses AVX-512 F and DQ, which the level has.
    unsafe impl Words for Avx512 {
        #[inline(always)]
        unsafe fn un(op: UnOp, a: __m512) -> __m512 {
            // SAFETY: the trait's contract.
            unsafe {
                let i = _mm512_castps_si512(a);
                match op {
                    UnOp::NegF => _mm512_xor_ps(a, _mm512_set1_ps(-0.0)),
                    UnOp::AbsF => _mm512_andnot_ps(_mm512_set1_ps(-0.0), a),
                    UnOp::SqrtF => _mm512_sqrt_ps(a),
                    UnOp::FloorF => _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(a),
                    UnOp::CeilF => _mm512_roundscale_ps::<{ _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC }>(a),
                    UnOp::RoundF => _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a),
                    UnOp::RoundToI => _mm512_castsi512_ps(_mm512_cvtps_epi32(a)),
                    UnOp::TruncToI => lanewise::<Avx512>(a, a, |a, _| UnOp::TruncToI.apply(a)),
                    UnOp::ToF => _mm512_cvtepi32_ps(i),
                    UnOp::BitsOfF | UnOp::FOfBits => a,
                    UnOp::NegI => _mm512_castsi512_ps(_mm512_sub_epi32(_mm512_setzero_si512(), i)),
                    UnOp::NotI => ones(_mm512_testn_epi32_mask(i, i)),
                }
            }
        }

        #[inline(always)]
        unsafe fn bin(op: BinOp, a: __m512, b: __m512) -> __m512 {
            // SAFETY: the trait's contract.
            unsafe {
                let (x, y) = (_mm512_castps_si512(a), _mm512_castps_si512(b));
                let words = match op {
                    BinOp::AddF => return _mm512_add_ps(a, b),
                    BinOp::SubF => return _mm512_sub_ps(a, b),
                    BinOp::MulF => return _mm512_mul_ps(a, b),
                    BinOp::DivF => return _mm512_div_ps(a, b),
                    // Of unordered or equal values the instructions give the second.
                    BinOp::MinF => return _mm512_min_ps(b, a),
                    BinOp::MaxF => return _mm512_max_ps(b, a),
                    BinOp::DivI | BinOp::MulHighRound => return lanewise::<Avx512>(a, b, |a, b| op.apply(a, b)),
                    BinOp::EqF => return ones(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b)),
                    BinOp::LtF => return ones(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b)),
                    BinOp::LeF => return ones(_mm512_cmp_ps_mask::<_CMP_LE_OQ>(a, b)),
                    BinOp::EqI => return ones(_mm512_cmpeq_epi32_mask(x, y)),
                    BinOp::LtI => return ones(_mm512_cmplt_epi32_mask(x, y)),
                    BinOp::LeI => return ones(_mm512_cmple_epi32_mask(x, y)),
                    BinOp::AddI => _mm512_add_epi32(x, y),
                    BinOp::SubI => _mm512_sub_epi32(x, y),
                    BinOp::MulI => _mm512_mullo_epi32(x, y),
                    BinOp::MinI => _mm512_min_epi32(x, y),
                    BinOp::MaxI => _mm512_max_epi32(x, y),
                    BinOp::ShlI => _mm512_sllv_epi32(x, y),
                    BinOp::ShrI => _mm512_srav_epi32(x, y),
                    BinOp::ShrU => _mm512_srlv_epi32(x, y),
                    BinOp::AndI => _mm512_and_si512(x, y),
                    BinOp::OrI => _mm512_or_si512(x, y),
                    BinOp::XorI => _mm512_xor_si512(x, y),
                };
                _mm512_castsi512_ps(words)
            }
        }

        #[inline(always)]
        unsafe fn select(condition: __m512, then: __m512, other: __m512) -> __m512 {
            // SAFETY: the trait's contract.
            unsafe {
                let i = _mm512_castps_si512(condition);
                _mm512_mask_blend_ps(_mm512_test_epi32_mask(i, i), other, then)
            }
        }
    }

    /// The integer 1 in the lanes of a mask, else 0.
    ///
    /// # Safety
    /// Needs AVX-512 F.
    #[inline(always)]
    unsafe fn ones(mask: __mmask16) -> __m512 {
        // SAFETY: the caller's contract.
        unsafe { _mm512_castsi512_ps(_mm512_maskz_set1_epi32(mask, 1)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd;

    const UNARY: [UnOp; 13] = [
        UnOp::NegF,
        UnOp::AbsF,
        UnOp::SqrtF,
        UnOp::FloorF,
        UnOp::CeilF,
        UnOp::RoundF,
        UnOp::RoundToI,
        UnOp::TruncToI,
        UnOp::ToF,
        UnOp::BitsOfF,
        UnOp::FOfBits,
        UnOp::NegI,
        UnOp::NotI,
    ];
    const BINARY: [BinOp; 25] = [
        BinOp::AddF,
        BinOp::SubF,
        BinOp::MulF,
        BinOp::DivF,
        BinOp::MinF,
        BinOp::MaxF,
        BinOp::AddI,
        BinOp::SubI,
        BinOp::MulI,
        BinOp::DivI,
        BinOp::MinI,
        BinOp::MaxI,
        BinOp::ShlI,
        BinOp::ShrI,
        BinOp::ShrU,
        BinOp::AndI,
        BinOp::OrI,
        BinOp::XorI,
        BinOp::EqF,
        BinOp::LtF,
        BinOp::LeF,
        BinOp::EqI,
        BinOp::LtI,
        BinOp::LeI,
        BinOp::MulHighRound,
    ];

    /// Every operation against its meaning, on numbers that have something special.
    ///
    /// # Safety
    /// The level's instructions must be there.
    unsafe fn check<S: Words>() {
        let floats =
            [0.0, -0.0, 1.0, -1.5, 2.5, -3.5, 0.49, 1e-40, 3e9, -3e9, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        let ints = [0, 1, -1, 7, 31, i32::MAX, i32::MIN, 0x4049_0fdb];
        let words: Vec<u32> = floats.iter().map(|f| f.to_bits()).chain(ints.iter().map(|i| *i as u32)).collect();
        // SAFETY: the caller's contract, here and below.
        let vector = |w: u32| unsafe { S::splat(f32::from_bits(w)) };
        let first = |v: S::V| {
            let mut all = [0f32; 16];
            // SAFETY: no level has more than sixteen lanes.
            unsafe { S::store(all.as_mut_ptr(), v) };
            assert!(all[1..S::LANES].iter().all(|f| f.to_bits() == all[0].to_bits()));
            all[0].to_bits()
        };
        let same = |got: u32, want: u32| got == want || (f32::from_bits(got).is_nan() && f32::from_bits(want).is_nan());
        for &a in &words {
            for op in UNARY {
                // Beyond its range the operation is not specified.
                let rounded = f32::from_bits(a).round();
                if op == UnOp::RoundToI && !(-2e9..2e9).contains(&rounded) {
                    continue;
                }
                // SAFETY: as above.
                let got = first(unsafe { S::un(op, vector(a)) });
                assert!(same(got, op.apply(a)), "{op:?} of {a:#x}: {got:#x}");
            }
            for &b in &words {
                for op in BINARY {
                    let shift = matches!(op, BinOp::ShlI | BinOp::ShrI | BinOp::ShrU);
                    if shift && b > 31 {
                        continue;
                    }
                    // SAFETY: as above.
                    let got = first(unsafe { S::bin(op, vector(a), vector(b)) });
                    assert!(same(got, op.apply(a, b)), "{op:?} of {a:#x} and {b:#x}: {got:#x}");
                }
                // SAFETY: as above.
                let got = first(unsafe { S::select(vector(a), vector(b), vector(5)) });
                assert_eq!(got, if a != 0 { b } else { 5 });
            }
        }
    }

    #[test]
    fn operations_are_the_scalar_ones_on_every_level() {
        // SAFETY: of levels that are there.
        unsafe {
            check::<simd::Portable>();
            #[cfg(target_arch = "aarch64")]
            check::<crate::kernels::neon::Neon>();
            #[cfg(target_arch = "x86_64")]
            {
                use crate::Level;
                #[target_feature(enable = "avx2,fma")]
                unsafe fn avx2() {
                    // SAFETY: the caller's contract.
                    unsafe { check::<simd::Avx2>() }
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                unsafe fn avx512() {
                    // SAFETY: the caller's contract.
                    unsafe { check::<simd::Avx512>() }
                }
                if Level::Avx2.is_available() {
                    avx2();
                }
                if Level::Avx512.is_available() {
                    avx512();
                }
            }
        }
    }
}
