//! The arithmetic of `f32` tiles.

use super::fused::FusedFloat;
use super::simd::Simd;
use super::tile::Products;
use std::marker::PhantomData;

/// Products of floats by the vectors of S.
#[derive(Clone, Copy, Debug)]
pub struct Floats<S>(PhantomData<S>);

/// Where sums go.
pub struct FloatEpilogue {
    pub out: *mut f32,
    /// As `out`, to be added; or null.
    pub residual: *const f32,
    pub bounds: (f32, f32),
}

impl FloatEpilogue {
    pub fn new(fused: &FusedFloat, out: *mut u8, extra: *const u8) -> FloatEpilogue {
        let residual = if fused.residual { extra.cast() } else { std::ptr::null() };
        FloatEpilogue { out: out.cast(), residual, bounds: fused.bounds }
    }

    /// Stores the first `lanes` sums as elements `at...`.
    ///
    /// # Safety
    /// As the functions of [`Simd`].
    #[inline(always)]
    pub unsafe fn store<S: Simd>(&self, at: usize, lanes: usize, sum: S::V) {
        // SAFETY: the caller's contract.
        unsafe {
            let mut v = sum;
            if !self.residual.is_null() {
                let from = self.residual.add(at);
                v = S::add(v, S::load_first(from, lanes));
            }
            let v = S::at_least(S::splat(self.bounds.0), S::at_most(S::splat(self.bounds.1), v));
            S::store_first(self.out.add(at), lanes, v);
        }
    }
}

// SAFETY: the functions are those of S.
unsafe impl<S: Simd> Products for Floats<S> {
    const LANES: usize = S::LANES;
    const SUMS: usize = S::SUMS;
    const DEPTH: usize = 1;
    type X = f32;
    type W = f32;
    type Bias = f32;
    type V = S::V;
    type Sum = S::V;
    type Epilogue = FloatEpilogue;

    #[inline(always)]
    unsafe fn x(from: *const f32) -> S::V {
        // SAFETY: the trait's contract.
        unsafe { S::splat(*from) }
    }
    #[inline(always)]
    unsafe fn weights(from: *const f32) -> S::V {
        // SAFETY: the trait's contract.
        unsafe { S::load(from) }
    }
    #[inline(always)]
    unsafe fn bias(from: *const f32) -> S::V {
        // SAFETY: the trait's contract.
        unsafe { S::load(from) }
    }
    #[inline(always)]
    unsafe fn add(sum: S::V, x: S::V, w: S::V) -> S::V {
        // SAFETY: the trait's contract.
        unsafe { S::mul_add(x, w, sum) }
    }
    #[inline(always)]
    unsafe fn finish(e: &FloatEpilogue, at: usize, _channel: usize, lanes: usize, sum: S::V) {
        // SAFETY: the trait's contract.
        unsafe { e.store::<S>(at, lanes, sum) }
    }
}
