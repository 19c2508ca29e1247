//! Vectors of `f32`, one type a level, so that kernels are written once.
//!
//! Everything is `inline(always)`: kernels are compiled with the level's features around them, in the functions that the
//! macros named `level` make.

/// Vectors of [`Simd::LANES`] floats.
///
/// # Safety
/// All functions need the instructions that the type stands for. Loads and stores take pointers to as many elements as they
/// touch, aligned for `f32` only.
pub unsafe trait Simd: Copy + Send + Sync + 'static {
    const LANES: usize;
    /// How many vectors kernels may hold as sums: what the register file has beside operands.
    const SUMS: usize;
    /// Whether [`Simd::mul_add`] rounds once.
    const FUSED: bool;
    type V: Copy;

    unsafe fn splat(value: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    /// The first `n` lanes, of 1 to `LANES`; the others are 0.
    unsafe fn load_part(from: *const f32, n: usize) -> Self::V;
    unsafe fn store(to: *mut f32, v: Self::V);
    /// The first `n` lanes, of 1 to `LANES`.
    unsafe fn store_part(to: *mut f32, n: usize, v: Self::V);
    /// The first `lanes` lanes: a whole vector, or a part of one.
    #[inline(always)]
    unsafe fn load_first(from: *const f32, lanes: usize) -> Self::V {
        // SAFETY: the trait's contract.
        unsafe { if lanes < Self::LANES { Self::load_part(from, lanes) } else { Self::load(from) } }
    }
    /// The first `lanes` lanes: a whole vector, or a part of one.
    #[inline(always)]
    unsafe fn store_first(to: *mut f32, lanes: usize, v: Self::V) {
        // SAFETY: the trait's contract.
        unsafe { if lanes < Self::LANES { Self::store_part(to, lanes, v) } else { Self::store(to, v) } }
    }
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, in one rounding or two.
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `v > bound ? v : bound`, but a NaN in `v` stays.
    unsafe fn at_least(bound: Self::V, v: Self::V) -> Self::V;
    /// `v < bound ? v : bound`, but a NaN in `v` stays.
    unsafe fn at_most(bound: Self::V, v: Self::V) -> Self::V;
}

/// Four lanes in plain Rust.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

// SAFETY: needs no instructions beside the baseline; pointers are used as the trait says.
unsafe impl Simd for Portable {
    const LANES: usize = 4;
    const SUMS: usize = 8;
    const FUSED: bool = false;
    type V = [f32; 4];

    #[inline(always)]
    unsafe fn splat(value: f32) -> [f32; 4] {
        [value; 4]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; 4] {
        // SAFETY: the trait's contract.
        unsafe { from.cast::<[f32; 4]>().read() }
    }
    #[inline(always)]
    unsafe fn load_part(from: *const f32, n: usize) -> [f32; 4] {
        let mut v = [0.0; 4];
        // SAFETY: the trait's contract: `n` is at most 4.
        unsafe { std::ptr::copy_nonoverlapping(from, v.as_mut_ptr(), n) };
        v
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, v: [f32; 4]) {
        // SAFETY: the trait's contract.
        unsafe { to.cast::<[f32; 4]>().write(v) }
    }
    #[inline(always)]
    unsafe fn store_part(to: *mut f32, n: usize, v: [f32; 4]) {
        // SAFETY: the trait's contract: `n` is at most 4.
        unsafe { std::ptr::copy_nonoverlapping(v.as_ptr(), to, n) };
    }
    #[inline(always)]
    unsafe fn add(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        lanes(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        lanes(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn div(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        lanes(|i| a[i] / b[i])
    }
    #[inline(always)]
    unsafe fn mul_add(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        lanes(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn at_least(bound: [f32; 4], v: [f32; 4]) -> [f32; 4] {
        lanes(|i| if bound[i] > v[i] { bound[i] } else { v[i] })
    }
    #[inline(always)]
    unsafe fn at_most(bound: [f32; 4], v: [f32; 4]) -> [f32; 4] {
        lanes(|i| if bound[i] < v[i] { bound[i] } else { v[i] })
    }
}

#[inline(always)]
fn lanes(f: impl Fn(usize) -> f32) -> [f32; 4] {
    [f(0), f(1), f(2), f(3)]
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Simd;
    use std::arch::x86_64::*;

    /// Eight lanes of AVX.
    #[derive(Clone, Copy, Debug)]
    pub struct Avx2;

    /// A mask of the first `n` of eight lanes.
    ///
    /// # Safety
    /// Needs AVX2; `n` is at most 8.
    #[inline(always)]
    unsafe fn first(n: usize) -> __m256i {
        const BITS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
        // SAFETY: eight elements from one of the first nine.
        unsafe { _mm256_loadu_si256(BITS.as_ptr().add(8 - n).cast()) }
    }

    // SAFETY: every function uses AVX2 and FMA, which the level has, and pointers as the trait says.
    unsafe impl Simd for Avx2 {
        const LANES: usize = 8;
        const SUMS: usize = 12;
        const FUSED: bool = true;
        type V = __m256;

        #[inline(always)]
        unsafe fn splat(value: f32) -> __m256 {
            // SAFETY: the trait's contract.
            unsafe { _mm256_set1_ps(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m256 {
            // SAFETY: the trait's contract.
            unsafe { _mm256_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn load_part(from: *const f32, n: usize) -> __m256 {
            // SAFETY: the trait's contract; lanes beyond `n` are not touched.
            unsafe { _mm256_maskload_ps(from, first(n)) }
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, v: __m256) {
            // SAFETY: the trait's contract.
            unsafe { _mm256_storeu_ps(to, v) }
        }
        #[inline(always)]
        unsafe fn store_part(to: *mut f32, n: usize, v: __m256) {
            // SAFETY: the trait's contract; lanes beyond `n` are not touched.
            unsafe { _mm256_maskstore_ps(to, first(n), v) }
        }
        #[inline(always)]
        unsafe fn add(a: __m256, b: __m256) -> __m256 {
            // SAFETY: the trait's contract.
            unsafe { _mm256_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: __m256, b: __m256) -> __m256 {
            // SAFETY: the trait's contract.
            unsafe { _mm256_sub_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn div(a: __m256, b: __m256) -> __m256 {
            // SAFETY: the trait's contract.
            unsafe { _mm256_div_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 {
            // SAFETY: the trait's contract.
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }
        // Of unordered or equal values the instructions give the second.
        #[inline(always)]
        unsafe fn at_least(bound: __m256, v: __m256) -> __m256 {
            // SAFETY: the trait's contract.
            unsafe { _mm256_max_ps(bound, v) }
        }
        #[inline(always)]
        unsafe fn at_most(bound: __m256, v: __m256) -> __m256 {
            // SAFETY: the trait's contract.
            unsafe { _mm256_min_ps(bound, v) }
        }
    }

    /// Sixteen lanes of AVX-512.
    #[derive(Clone, Copy, Debug)]
    pub struct Avx512;

    /// The first `n` of sixteen lanes.
    #[inline(always)]
    fn mask(n: usize) -> __mmask16 {
        ((1u32 << n) - 1) as __mmask16
    }

    // SAFETY: every function uses AVX-512 F, which the level has, and pointers as the trait says.
    unsafe impl Simd for Avx512 {
        const LANES: usize = 16;
        const SUMS: usize = 24;
        const FUSED: bool = true;
        type V = __m512;

        #[inline(always)]
        unsafe fn splat(value: f32) -> __m512 {
            // SAFETY: the trait's contract.
            unsafe { _mm512_set1_ps(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m512 {
            // SAFETY: the trait's contract.
            unsafe { _mm512_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn load_part(from: *const f32, n: usize) -> __m512 {
            // SAFETY: the trait's contract; lanes beyond `n` are not touched.
            unsafe { _mm512_maskz_loadu_ps(mask(n), from) }
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, v: __m512) {
            // SAFETY: the trait's contract.
            unsafe { _mm512_storeu_ps(to, v) }
        }
        #[inline(always)]
        unsafe fn store_part(to: *mut f32, n: usize, v: __m512) {
            // SAFETY: the trait's contract; lanes beyond `n` are not touched.
            unsafe { _mm512_mask_storeu_ps(to, mask(n), v) }
        }
        #[inline(always)]
        unsafe fn add(a: __m512, b: __m512) -> __m512 {
            // SAFETY: the trait's contract.
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: __m512, b: __m512) -> __m512 {
            // SAFETY: the trait's contract.
            unsafe { _mm512_sub_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn div(a: __m512, b: __m512) -> __m512 {
            // SAFETY: the trait's contract.
            unsafe { _mm512_div_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
            // SAFETY: the trait's contract.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        // Of unordered or equal values the instructions give the second.
        #[inline(always)]
        unsafe fn at_least(bound: __m512, v: __m512) -> __m512 {
            // SAFETY: the trait's contract.
            unsafe { _mm512_max_ps(bound, v) }
        }
        #[inline(always)]
        unsafe fn at_most(bound: __m512, v: __m512) -> __m512 {
            // SAFETY: the trait's contract.
            unsafe { _mm512_min_ps(bound, v) }
        }
    }
}
#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};
