//! Integer vectors of x86-64.

use super::Ints;
use std::arch::x86_64::*;

/// Eight lanes of AVX2, multiplied in 16-bit pairs.
#[derive(Clone, Copy, Debug)]
pub struct Avx2;

// SAFETY: every function uses AVX2, which the level has, and pointers as the trait says.
unsafe impl Ints for Avx2 {
    const LANES: usize = 8;
    const SUMS: usize = 10;
    const DEPTH: usize = 2;
    const OFFSET: i32 = 0;
    type X = i16;
    type V = __m256i;
    type I = __m256i;
    type F = __m256;

    #[inline(always)]
    fn activation(value: i32) -> i16 {
        value as i16
    }
    #[inline(always)]
    unsafe fn x(from: *const i16) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn weights(from: *const i8) -> __m256i {
        // SAFETY: the trait's contract: sixteen weights.
        unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(from.cast())) }
    }
    #[inline(always)]
    unsafe fn dot(sum: __m256i, x: __m256i, w: __m256i) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_add_epi32(sum, _mm256_madd_epi16(x, w)) }
    }
    /// The high half of a lane of `x` is its sign, and meets the 0 above the factor.
    #[inline(always)]
    unsafe fn multiply_add(sum: __m256i, x: __m256i, w: __m256i) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_add_epi32(sum, _mm256_madd_epi16(x, w)) }
    }
    #[inline(always)]
    unsafe fn halves(w: __m256i) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_and_si256(w, _mm256_set1_epi32(0xFFFF)) }
    }
    #[inline(always)]
    unsafe fn load(from: *const i32) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut i32, lanes: usize, v: __m256i) {
        // SAFETY: the trait's contract; lanes beyond are not touched.
        unsafe {
            if lanes == 8 {
                return _mm256_storeu_si256(to.cast(), v);
            }
            let mut all = [0i32; 8];
            _mm256_storeu_si256(all.as_mut_ptr().cast(), v);
            std::ptr::copy_nonoverlapping(all.as_ptr(), to, lanes);
        }
    }
    #[inline(always)]
    unsafe fn load_bytes<const SIGNED: bool>(from: *const u8, lanes: usize) -> __m256i {
        // SAFETY: the trait's contract; bytes beyond are not touched.
        unsafe {
            let bytes = if lanes == 8 {
                _mm_loadl_epi64(from.cast())
            } else {
                let mut all = [0u8; 16];
                std::ptr::copy_nonoverlapping(from, all.as_mut_ptr(), lanes);
                _mm_loadu_si128(all.as_ptr().cast())
            };
            if SIGNED { _mm256_cvtepi8_epi32(bytes) } else { _mm256_cvtepu8_epi32(bytes) }
        }
    }
    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, lanes: usize, v: __m256i) {
        // SAFETY: the trait's contract; bytes beyond are not touched.
        unsafe {
            let low = _mm256_and_si256(v, _mm256_set1_epi32(0xFF));
            let halves = _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256::<1>(low));
            let bytes = _mm_packus_epi16(halves, halves);
            if lanes == 8 {
                return _mm_storel_epi64(to.cast(), bytes);
            }
            let mut all = [0u8; 16];
            _mm_storeu_si128(all.as_mut_ptr().cast(), bytes);
            std::ptr::copy_nonoverlapping(all.as_ptr(), to, lanes);
        }
    }
    #[inline(always)]
    unsafe fn splat(value: i32) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_set1_epi32(value) }
    }
    #[inline(always)]
    unsafe fn add(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_max_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn to_float(v: __m256i) -> __m256 {
        // SAFETY: the trait's contract.
        unsafe { _mm256_cvtepi32_ps(v) }
    }
    // The processor rounds half to even unless a program changes that, which Rust forbids.
    #[inline(always)]
    unsafe fn round(v: __m256) -> __m256i {
        // SAFETY: the trait's contract.
        unsafe { _mm256_cvtps_epi32(v) }
    }
    #[inline(always)]
    unsafe fn load_float(from: *const f32) -> __m256 {
        // SAFETY: the trait's contract.
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn splat_float(value: f32) -> __m256 {
        // SAFETY: the trait's contract.
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn add_float(a: __m256, b: __m256) -> __m256 {
        // SAFETY: the trait's contract.
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul_float(a: __m256, b: __m256) -> __m256 {
        // SAFETY: the trait's contract.
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div_float(a: __m256, b: __m256) -> __m256 {
        // SAFETY: the trait's contract.
        unsafe { _mm256_div_ps(a, b) }
    }
    // Of unordered values the instructions give the second.
    #[inline(always)]
    unsafe fn clamp_float(v: __m256, lo: f32, hi: f32) -> __m256 {
        // SAFETY: the trait's contract.
        unsafe { _mm256_max_ps(_mm256_set1_ps(lo), _mm256_min_ps(_mm256_set1_ps(hi), v)) }
    }
}

/// Sixteen lanes of AVX-512 with VNNI.
#[derive(Clone, Copy, Debug)]
pub struct Vnni;

/// The first `n` of sixteen lanes.
#[inline(always)]
fn mask(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

// SAFETY: every function uses AVX-512 F, BW, VL and VNNI, which the level has, and pointers as the trait says.
unsafe impl Ints for Vnni {
    const LANES: usize = 16;
    const SUMS: usize = 24;
    const DEPTH: usize = 4;
    const OFFSET: i32 = 128;
    type X = u8;
    type V = __m512i;
    type I = __m512i;
    type F = __m512;

    #[inline(always)]
    fn activation(value: i32) -> u8 {
        value as u8
    }
    #[inline(always)]
    unsafe fn x(from: *const u8) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn weights(from: *const i8) -> __m512i {
        // SAFETY: the trait's contract: 64 weights.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn dot(sum: __m512i, x: __m512i, w: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_dpbusd_epi32(sum, x, w) }
    }
    /// The high half of a lane of `x` is its sign, and meets the 0 above the factor.
    #[inline(always)]
    unsafe fn multiply_add(sum: __m512i, x: __m512i, w: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_dpwssd_epi32(sum, x, w) }
    }
    #[inline(always)]
    unsafe fn halves(w: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_and_si512(w, _mm512_set1_epi32(0xFFFF)) }
    }
    #[inline(always)]
    unsafe fn load(from: *const i32) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut i32, lanes: usize, v: __m512i) {
        // SAFETY: the trait's contract; lanes beyond are not touched.
        unsafe { _mm512_mask_storeu_epi32(to, mask(lanes), v) }
    }
    #[inline(always)]
    unsafe fn load_bytes<const SIGNED: bool>(from: *const u8, lanes: usize) -> __m512i {
        // SAFETY: the trait's contract; bytes beyond are not touched.
        unsafe {
            let bytes =
                if lanes == 16 { _mm_loadu_si128(from.cast()) } else { _mm_maskz_loadu_epi8(mask(lanes), from.cast()) };
            if SIGNED { _mm512_cvtepi8_epi32(bytes) } else { _mm512_cvtepu8_epi32(bytes) }
        }
    }
    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, lanes: usize, v: __m512i) {
        // SAFETY: the trait's contract; bytes beyond are not touched.
        unsafe {
            let bytes = _mm512_cvtepi32_epi8(v);
            if lanes == 16 {
                _mm_storeu_si128(to.cast(), bytes);
            } else {
                _mm_mask_storeu_epi8(to.cast(), mask(lanes), bytes);
            }
        }
    }
    #[inline(always)]
    unsafe fn splat(value: i32) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_set1_epi32(value) }
    }
    #[inline(always)]
    unsafe fn add(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_max_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn to_float(v: __m512i) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_cvtepi32_ps(v) }
    }
    // The processor rounds half to even unless a program changes that, which Rust forbids.
    #[inline(always)]
    unsafe fn round(v: __m512) -> __m512i {
        // SAFETY: the trait's contract.
        unsafe { _mm512_cvtps_epi32(v) }
    }
    #[inline(always)]
    unsafe fn load_float(from: *const f32) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn splat_float(value: f32) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn add_float(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul_float(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div_float(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_div_ps(a, b) }
    }
    // Of unordered values the instructions give the second.
    #[inline(always)]
    unsafe fn clamp_float(v: __m512, lo: f32, hi: f32) -> __m512 {
        // SAFETY: the trait's contract.
        unsafe { _mm512_max_ps(_mm512_set1_ps(lo), _mm512_min_ps(_mm512_set1_ps(hi), v)) }
    }
}
