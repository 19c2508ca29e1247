//! The arithmetic of 8-bit products: vectors of `i32` sums, one type a level, and their requantisation.
//!
//! AVX-512 VNNI multiplies unsigned activations with signed weights, four at a time: signed activations are copied with
//! 128 added, and the bias takes back what that adds. The other levels multiply 16-bit pairs. All sums wrap at 32 bits, so
//! every level gives the same bits.

use super::fused::{ByteAdd, FusedBytes, Requantise};
use super::strips::Convert;
use super::tile::Products;
use std::marker::PhantomData;

/// Vectors of [`Ints::LANES`] integers.
///
/// # Safety
/// All functions need the instructions that the type stands for. Loads and stores take pointers to as many elements as
/// they touch, of any alignment; `lanes` is 1 to `LANES`, and lanes beyond it are not touched.
pub unsafe trait Ints: Copy + Send + Sync + 'static {
    const LANES: usize;
    const SUMS: usize;
    const DEPTH: usize;
    /// What is added to signed activations when they are copied.
    const OFFSET: i32;
    /// Activations of products, as they are copied.
    type X: Copy + Send + Sync + 'static;
    /// Operands of [`Ints::dot`].
    type V: Copy;
    type I: Copy;
    type F: Copy;

    /// An activation, offset included, in the type for copies.
    fn activation(value: i32) -> Self::X;
    /// `DEPTH` activations in every lane.
    unsafe fn x(from: *const Self::X) -> Self::V;
    /// `DEPTH` weights for each lane.
    unsafe fn weights(from: *const i8) -> Self::V;
    /// The sum and `DEPTH` products a lane.
    unsafe fn dot(sum: Self::I, x: Self::V, w: Self::V) -> Self::I;
    /// The sum and one product a lane, of numbers of 9 bits; `w` as [`Ints::halves`] gives it.
    unsafe fn multiply_add(sum: Self::I, x: Self::I, w: Self::I) -> Self::I;
    /// A factor for [`Ints::multiply_add`].
    unsafe fn halves(w: Self::I) -> Self::I;
    unsafe fn load(from: *const i32) -> Self::I;
    unsafe fn store(to: *mut i32, lanes: usize, v: Self::I);
    /// Bytes, widened.
    unsafe fn load_bytes<const SIGNED: bool>(from: *const u8, lanes: usize) -> Self::I;
    /// The low byte of each lane.
    unsafe fn store_bytes(to: *mut u8, lanes: usize, v: Self::I);
    unsafe fn splat(value: i32) -> Self::I;
    unsafe fn add(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn max(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn to_float(v: Self::I) -> Self::F;
    /// To the nearest integer, half to even.
    unsafe fn round(v: Self::F) -> Self::I;
    unsafe fn load_float(from: *const f32) -> Self::F;
    unsafe fn splat_float(value: f32) -> Self::F;
    unsafe fn add_float(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul_float(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn div_float(a: Self::F, b: Self::F) -> Self::F;
    /// `max(lo, min(hi, v))`; a NaN in `v` stays.
    unsafe fn clamp_float(v: Self::F, lo: f32, hi: f32) -> Self::F;
}

/// Products of bytes by the vectors of Q.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<Q>(PhantomData<Q>);

/// Bytes of type A, by the vectors of Q.
#[derive(Clone, Copy, Debug)]
pub struct Of<Q, A>(PhantomData<(Q, A)>);

/// A byte, signed or not.
pub trait Byte: Convert<Self> + Send + Sync + 'static {
    const SIGNED: bool;
    fn of(value: i32) -> Self;
}

impl Byte for i8 {
    const SIGNED: bool = true;
    fn of(value: i32) -> i8 {
        value as i8
    }
}

impl Byte for u8 {
    const SIGNED: bool = false;
    fn of(value: i32) -> u8 {
        value as u8
    }
}

/// Bytes of type A, widened.
///
/// # Safety
/// As [`Ints::load_bytes`].
#[inline(always)]
pub unsafe fn load<Q: Ints, A: Byte>(from: *const A, lanes: usize) -> Q::I {
    // SAFETY: the caller's contract.
    unsafe {
        if A::SIGNED { Q::load_bytes::<true>(from.cast(), lanes) } else { Q::load_bytes::<false>(from.cast(), lanes) }
    }
}

/// Where sums go.
pub struct ByteEpilogue {
    /// Of bytes where the epilogue is fused, else of `i32`.
    pub out: *mut u8,
    /// As `out`; read where the epilogue adds it.
    pub residual: *const u8,
    /// One a channel, up to whole vectors.
    pub scales: *const f32,
    pub fused: Option<FusedBytes>,
}

impl ByteEpilogue {
    /// Stores the first `lanes` sums as elements `at...`.
    ///
    /// # Safety
    /// As the functions of [`Ints`].
    #[inline(always)]
    pub unsafe fn finish<Q: Ints>(&self, at: usize, channel: usize, lanes: usize, sum: Q::I) {
        // SAFETY: the caller's contract.
        unsafe {
            let Some(fused) = &self.fused else {
                return Q::store(self.out.cast::<i32>().add(at), lanes, sum);
            };
            let scaled = Q::mul_float(Q::to_float(sum), Q::load_float(self.scales.add(channel)));
            let mut v = round::<Q>(scaled, fused.to);
            if let Some(add) = &fused.add {
                let from = self.residual.add(at);
                let other =
                    if add.signed { Q::load_bytes::<true>(from, lanes) } else { Q::load_bytes::<false>(from, lanes) };
                v = added::<Q>(v, other, add);
            }
            Q::store_bytes(self.out.add(at), lanes, v);
        }
    }
}

/// Clamped, rounded and shifted by the zero point.
///
/// # Safety
/// As the functions of [`Ints`].
#[inline(always)]
pub unsafe fn round<Q: Ints>(v: Q::F, to: Requantise) -> Q::I {
    // SAFETY: the caller's contract.
    unsafe { Q::add(Q::round(Q::clamp_float(v, to.lo, to.hi)), Q::splat(to.zero)) }
}

/// The sum of two quantised values, quantised: each operation in `f32`, rounded once.
///
/// # Safety
/// As the functions of [`Ints`].
#[inline(always)]
unsafe fn added<Q: Ints>(v: Q::I, other: Q::I, add: &ByteAdd) -> Q::I {
    // SAFETY: the caller's contract.
    unsafe {
        let real = |v: Q::I, zero: i32, scale: f32| {
            Q::mul_float(Q::to_float(Q::add(v, Q::splat(zero.wrapping_neg()))), Q::splat_float(scale))
        };
        let sum = Q::add_float(real(v, add.zero, add.scale), real(other, add.other_zero, add.other_scale));
        let sum = Q::clamp_float(sum, add.bounds.0, add.bounds.1);
        round::<Q>(Q::div_float(sum, Q::splat_float(add.divisor)), add.to)
    }
}

// SAFETY: the functions are those of Q.
unsafe impl<Q: Ints> Products for Bytes<Q> {
    const LANES: usize = Q::LANES;
    const SUMS: usize = Q::SUMS;
    const DEPTH: usize = Q::DEPTH;
    type X = Q::X;
    type W = i8;
    type Bias = i32;
    type V = Q::V;
    type Sum = Q::I;
    type Epilogue = ByteEpilogue;

    #[inline(always)]
    unsafe fn x(from: *const Q::X) -> Q::V {
        // SAFETY: the trait's contract.
        unsafe { Q::x(from) }
    }
    #[inline(always)]
    unsafe fn weights(from: *const i8) -> Q::V {
        // SAFETY: the trait's contract.
        unsafe { Q::weights(from) }
    }
    #[inline(always)]
    unsafe fn bias(from: *const i32) -> Q::I {
        // SAFETY: the trait's contract.
        unsafe { Q::load(from) }
    }
    #[inline(always)]
    unsafe fn add(sum: Q::I, x: Q::V, w: Q::V) -> Q::I {
        // SAFETY: the trait's contract.
        unsafe { Q::dot(sum, x, w) }
    }
    #[inline(always)]
    unsafe fn finish(e: &ByteEpilogue, at: usize, channel: usize, lanes: usize, sum: Q::I) {
        // SAFETY: the trait's contract.
        unsafe { e.finish::<Q>(at, channel, lanes, sum) }
    }
}

/// Four lanes in plain Rust.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

#[inline(always)]
fn lanes<T>(f: impl Fn(usize) -> T) -> [T; 4] {
    [f(0), f(1), f(2), f(3)]
}

// SAFETY: needs no instructions beside the baseline; pointers are used as the trait says.
unsafe impl Ints for Portable {
    const LANES: usize = 4;
    const SUMS: usize = 8;
    const DEPTH: usize = 2;
    const OFFSET: i32 = 0;
    type X = i16;
    type V = [[i16; 2]; 4];
    type I = [i32; 4];
    type F = [f32; 4];

    #[inline(always)]
    fn activation(value: i32) -> i16 {
        value as i16
    }
    #[inline(always)]
    unsafe fn x(from: *const i16) -> Self::V {
        // SAFETY: the trait's contract.
        [unsafe { from.cast::<[i16; 2]>().read_unaligned() }; 4]
    }
    #[inline(always)]
    unsafe fn weights(from: *const i8) -> Self::V {
        // SAFETY: the trait's contract.
        unsafe { from.cast::<[[i8; 2]; 4]>().read() }.map(|w| [w[0] as i16, w[1] as i16])
    }
    #[inline(always)]
    unsafe fn dot(sum: [i32; 4], x: Self::V, w: Self::V) -> [i32; 4] {
        lanes(|i| {
            let products = x[i][0] as i32 * w[i][0] as i32 + x[i][1] as i32 * w[i][1] as i32;
            sum[i].wrapping_add(products)
        })
    }
    #[inline(always)]
    unsafe fn multiply_add(sum: [i32; 4], x: [i32; 4], w: [i32; 4]) -> [i32; 4] {
        lanes(|i| sum[i].wrapping_add(x[i] * w[i]))
    }
    #[inline(always)]
    unsafe fn halves(w: [i32; 4]) -> [i32; 4] {
        w
    }
    #[inline(always)]
    unsafe fn load(from: *const i32) -> [i32; 4] {
        // SAFETY: the trait's contract.
        unsafe { from.cast::<[i32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut i32, lanes: usize, v: [i32; 4]) {
        // SAFETY: the trait's contract.
        unsafe { std::ptr::copy_nonoverlapping(v.as_ptr(), to, lanes) }
    }
    #[inline(always)]
    unsafe fn load_bytes<const SIGNED: bool>(from: *const u8, count: usize) -> [i32; 4] {
        let mut bytes = [0u8; 4];
        // SAFETY: the trait's contract.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), count) };
        lanes(|i| if SIGNED { bytes[i] as i8 as i32 } else { bytes[i] as i32 })
    }
    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, count: usize, v: [i32; 4]) {
        let bytes = lanes(|i| v[i] as u8);
        // SAFETY: the trait's contract.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, count) }
    }
    #[inline(always)]
    unsafe fn splat(value: i32) -> [i32; 4] {
        [value; 4]
    }
    #[inline(always)]
    unsafe fn add(a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        lanes(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    unsafe fn max(a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        lanes(|i| a[i].max(b[i]))
    }
    #[inline(always)]
    unsafe fn to_float(v: [i32; 4]) -> [f32; 4] {
        lanes(|i| v[i] as f32)
    }
    #[inline(always)]
    unsafe fn round(v: [f32; 4]) -> [i32; 4] {
        lanes(|i| v[i].round_ties_even() as i32)
    }
    #[inline(always)]
    unsafe fn load_float(from: *const f32) -> [f32; 4] {
        // SAFETY: the trait's contract.
        unsafe { from.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn splat_float(value: f32) -> [f32; 4] {
        [value; 4]
    }
    #[inline(always)]
    unsafe fn add_float(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        lanes(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn mul_float(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        lanes(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn div_float(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        lanes(|i| a[i] / b[i])
    }
    #[inline(always)]
    unsafe fn clamp_float(v: [f32; 4], lo: f32, hi: f32) -> [f32; 4] {
        let upper = lanes(|i| if hi < v[i] { hi } else { v[i] });
        lanes(|i| if lo > upper[i] { lo } else { upper[i] })
    }
}

#[cfg(target_arch = "x86_64")]
#[path = "bytes_x86.rs"]
mod x86;
#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Vnni};
