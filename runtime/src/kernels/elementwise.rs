//! Chains of `f32` steps, softmax along the last axis and layer normalisation, on vectors.
//!
//! What is computed for an element is the scalar program of [`mcc_ir::math`], so chains have the evaluator's bits.

use super::cut::Part;
use super::words::{Wide, Words};
use super::{Kernel, Prepared, Purpose, simd};
use mcc_ir::DType;
use mcc_ir::catalogue::KernelSpec;
use mcc_ir::math::{self, elementary};
use mcc_ir::op::{Binary, LayerNorm, Op, Softmax, Step, Unary};
use mcc_ir::ops::norm;
use mcc_ir::scalar::{BinOp, Scalars};
use mcc_ir::types::TensorType;
use std::marker::PhantomData;
use std::ops::Range;

/// Arguments that a kernel's function takes.
const ARGUMENTS: usize = 3;

/// How an argument is read along rows of the output.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reading {
    /// Element by element.
    Whole,
    /// The same row each time.
    Row,
    /// One element.
    One,
    /// A number that is known.
    Constant(f32),
}

struct Map<S> {
    steps: Vec<Step>,
    /// How each argument is read, and which of the function's it is.
    arguments: Vec<(Reading, usize)>,
    rows: usize,
    /// Elements of a row.
    row: usize,
    level: PhantomData<S>,
}

/// How a type is read where the output has another shape, perhaps; with the length of its row.
fn reading(ty: &TensorType, out: &TensorType) -> Option<(Reading, usize)> {
    if ty.shape == out.shape {
        return Some((Reading::Whole, 0));
    }
    let elements = ty.elements();
    if elements == 1 {
        return Some((Reading::One, 0));
    }
    let first = ty.shape.iter().position(|d| *d != 1)?;
    let inner = &ty.shape[first..];
    out.shape.ends_with(inner).then_some((Reading::Row, elements))
}

/// About how many cycles a step takes for a vector; `None` for one that has no code here.
pub fn step_cycles(step: &Step) -> Option<usize> {
    match step {
        Step::Unary(Unary::Not) => None,
        Step::Unary(
            Unary::Sigmoid
            | Unary::Tanh
            | Unary::Exp
            | Unary::Log
            | Unary::Erf
            | Unary::Gelu
            | Unary::Elu(_)
            | Unary::Softplus,
        ) => Some(60),
        Step::Unary(_) => Some(4),
        Step::Binary { op, dequant: None, .. } if !op.is_predicate() && *op != Binary::Pow => Some(2),
        _ => None,
    }
}

pub fn prepare_map<S: Elements>(spec: &KernelSpec<'_>, _: Purpose) -> Option<Prepared> {
    let Op::Map(steps) = spec.op else { return None };
    let out = spec.out_type;
    let floats = spec.arg_types.iter().chain([out]).all(|t| t.dtype == DType::F32);
    if !floats || out.elements() == 0 {
        return None;
    }
    let cycles = steps.iter().map(step_cycles).sum::<Option<usize>>()?;
    let mut arguments = Vec::new();
    let mut taken = [None; ARGUMENTS];
    let (mut next, mut row) = (0, None);
    for (i, (ty, value)) in spec.arg_types.iter().zip(spec.consts).enumerate() {
        let (mut reading, length) = reading(ty, out)?;
        if let (Reading::One, Some(value)) = (reading, value) {
            reading = Reading::Constant(value.to_f32()[0]);
        }
        if reading == Reading::Row && *row.get_or_insert(length) != length {
            return None;
        }
        arguments.push((reading, next));
        if !matches!(reading, Reading::Constant(_)) {
            *taken.get_mut(next)? = Some(i);
            next += 1;
        }
    }
    let row = row.unwrap_or(out.elements());
    let kernel = Map::<S> { steps: steps.clone(), arguments, rows: out.elements() / row, row, level: PhantomData };
    let vectors = kernel.rows * row.div_ceil(S::LANES);
    Some(Prepared::of_arguments(spec, kernel, taken, (vectors * (cycles + 4)) as f64))
}

/// Elements of a piece, where all are one row.
const PIECE: usize = 1024;

impl<S: Elements> Kernel for Map<S> {
    fn pieces(&self) -> usize {
        if self.rows == 1 { self.row.div_ceil(PIECE) } else { self.rows }
    }

    unsafe fn run(&self, part: &Part, x: *const u8, w: *const u8, extra: *const u8, out: *mut u8, _scratch: *mut u8) {
        let pieces = &part.pieces;
        let (rows, columns) = match self.rows {
            1 => (0..1, pieces.start * PIECE..self.row.min(pieces.end * PIECE)),
            _ => (pieces.clone(), 0..self.row),
        };
        let chain = Chain {
            steps: &self.steps,
            arguments: [x, w, extra].map(|p| p.cast()),
            readings: &self.arguments,
            rows,
            columns,
            row: self.row,
            out: out.cast(),
        };
        // SAFETY: the kernel was chosen for a level that the machine has; the caller's contract gives arguments and output.
        unsafe { S::chain(&chain) }
    }
}

/// The work of a chain: some columns of some rows.
pub struct Chain<'a> {
    steps: &'a [Step],
    arguments: [*const f32; ARGUMENTS],
    readings: &'a [(Reading, usize)],
    rows: Range<usize>,
    columns: Range<usize>,
    /// Elements of a whole row.
    row: usize,
    out: *mut f32,
}

/// # Safety
/// The level's instructions must be there; the argument must be good for what its reading says.
#[inline(always)]
unsafe fn argument<S: Words>(c: &Chain<'_>, i: usize, row: usize, at: usize, lanes: usize) -> S::V {
    // SAFETY: the caller's contract.
    unsafe {
        let (reading, which) = c.readings[i];
        match reading {
            Reading::Whole => S::load_first(c.arguments[which].add(row * c.row + at), lanes),
            Reading::Row => S::load_first(c.arguments[which].add(at), lanes),
            Reading::One => S::splat(*c.arguments[which]),
            Reading::Constant(value) => S::splat(value),
        }
    }
}

/// # Safety
/// The level's instructions must be there; all pointers must be good for what the numbers say.
#[inline(always)]
unsafe fn chain<S: Words>(c: &Chain<'_>) {
    // SAFETY: the caller's contract covers every vector of arguments and output.
    unsafe {
        let Range { start, end } = c.columns;
        for row in c.rows.clone() {
            let mut at = start;
            // Several vectors a step, so that finding out what it is does not count.
            while at + 4 * S::LANES <= end {
                block::<S, 4>(c, row, at, S::LANES);
                at += 4 * S::LANES;
            }
            for at in (at..end).step_by(S::LANES) {
                block::<S, 1>(c, row, at, S::LANES.min(end - at));
            }
        }
    }
}

/// The chain for NV vectors of a row, each of so many lanes.
///
/// # Safety
/// As [`chain`].
#[inline(always)]
unsafe fn block<S: Words, const NV: usize>(c: &Chain<'_>, row: usize, at: usize, lanes: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        let mut s = Wide::<S>::new();
        let mut values = [argument::<S>(c, 0, row, at, lanes); NV];
        for (j, v) in values.iter_mut().enumerate().skip(1) {
            *v = argument::<S>(c, 0, row, at + j * S::LANES, lanes);
        }
        let mut next = 0;
        for step in c.steps {
            match step {
                Step::Unary(Unary::HardSwish) if S::FUSED => {
                    for v in &mut values {
                        *v = hard_swish::<S>(*v);
                    }
                }
                Step::Unary(u) => {
                    for v in &mut values {
                        *v = math::unary(&mut s, *u, *v);
                    }
                }
                Step::Binary { op, swapped, .. } => {
                    next += 1;
                    for (j, v) in values.iter_mut().enumerate() {
                        let other = argument::<S>(c, next, row, at + j * S::LANES, lanes);
                        let (a, b) = if *swapped { (other, *v) } else { (*v, other) };
                        *v = math::binary(&mut s, *op, a, b);
                    }
                }
                _ => {}
            }
        }
        for (j, v) in values.iter().enumerate() {
            S::store_first(c.out.add(row * c.row + at + j * S::LANES), lanes, *v);
        }
    }
}

/// The program's bits without its division: the product with 1/6, corrected by its exact error, is the quotient as
/// rounded (Markstein, Computation of elementary functions on the IBM RISC System/6000 processor, 1990). Where it is not,
/// below the normal numbers, adding 0.5 leaves no difference; beyond the bounds here the gate is closed or open.
///
/// # Safety
/// The level's instructions must be there.
#[inline(always)]
unsafe fn hard_swish<S: Words>(v: S::V) -> S::V {
    // SAFETY: the caller's contract.
    unsafe {
        let mut s = Wide::<S>::new();
        let x = s.clamp_f(v, -64.0, 64.0);
        let sixth = S::splat(1.0 / 6.0);
        let q = s.bin(BinOp::MulF, x, sixth);
        let error = S::mul_add(S::splat(-6.0), q, x);
        let line = S::add(S::mul_add(error, sixth, q), S::splat(0.5));
        let gate = s.clamp_f(line, 0.0, 1.0);
        s.bin(BinOp::MulF, v, gate)
    }
}

struct Rows<S> {
    rows: usize,
    /// Elements of a row.
    row: usize,
    /// What layer normalisation adds to the variance; none for softmax.
    epsilon: Option<f32>,
    level: PhantomData<S>,
}

pub fn prepare_rows<S: Elements>(spec: &KernelSpec<'_>, _: Purpose) -> Option<Prepared> {
    let x = &spec.arg_types[0];
    let floats = spec.arg_types.iter().chain([spec.out_type]).all(|t| t.dtype == DType::F32);
    let (axis, epsilon) = match spec.op {
        Op::Softmax(Softmax { axis, log: false, dequant: None, post }) if post.is_empty() && axis + 1 == x.rank() => {
            (*axis, None)
        }
        Op::LayerNorm(LayerNorm { axis, epsilon, post }) if post.is_empty() => (*axis, Some(epsilon.0)),
        _ => return None,
    };
    if !floats || x.elements() == 0 {
        return None;
    }
    let row = x.shape[axis..].iter().product::<usize>();
    let kernel = Rows::<S> { rows: x.elements() / row, row, epsilon, level: PhantomData };
    let vectors = kernel.rows * row.div_ceil(S::LANES);
    let arguments = [0, 1, 2].map(|i| (i < spec.arg_types.len()).then_some(i));
    Some(Prepared::of_arguments(spec, kernel, arguments, (vectors * 60) as f64))
}

impl<S: Elements> Kernel for Rows<S> {
    fn pieces(&self) -> usize {
        self.rows
    }

    unsafe fn run(&self, part: &Part, x: *const u8, w: *const u8, extra: *const u8, out: *mut u8, _scratch: *mut u8) {
        for i in part.pieces.clone() {
            // Rows of x and of the output.
            let (x, out) = (x.cast::<f32>().wrapping_add(i * self.row), out.cast::<f32>().wrapping_add(i * self.row));
            // SAFETY: the kernel was chosen for a level that the machine has; the caller's contract gives the arguments and
            // the output.
            unsafe {
                match self.epsilon {
                    None => S::softmax(x, out, self.row),
                    Some(epsilon) => S::layer_norm(x, w.cast(), extra.cast(), out, self.row, epsilon),
                }
            }
        }
    }
}

/// The sum of the lanes, and their largest.
///
/// # Safety
/// The level's instructions must be there.
#[inline(always)]
unsafe fn across<S: Words>(v: S::V, f: fn(f32, f32) -> f32) -> f32 {
    let mut all = [0f32; 16];
    // SAFETY: no level has more than sixteen lanes.
    unsafe { S::store(all.as_mut_ptr(), v) };
    all[1..S::LANES].iter().fold(all[0], |a, b| f(a, *b))
}

/// # Safety
/// The level's instructions must be there; `x` and `out`, which may be one, must be good for `n` elements, 1 at least.
#[inline(always)]
unsafe fn softmax<S: Words>(x: *const f32, out: *mut f32, n: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        let mut s = Wide::<S>::new();
        let mut largest = S::splat(f32::NEG_INFINITY);
        let whole = n / S::LANES * S::LANES;
        for at in (0..whole).step_by(S::LANES) {
            largest = s.bin(BinOp::MaxF, largest, S::load(x.add(at)));
        }
        let mut max = across::<S>(largest, |a, b| if b > a { b } else { a });
        for at in whole..n {
            let v = *x.add(at);
            max = if v > max { v } else { max };
        }
        let max = S::splat(max);
        let mut sums = S::splat(0.0);
        for at in (0..n).step_by(S::LANES) {
            let lanes = S::LANES.min(n - at);
            let below = s.bin(BinOp::SubF, S::load_first(x.add(at), lanes), max);
            let e = elementary::exp(&mut s, below);
            S::store_first(out.add(at), lanes, e);
            // Lanes beyond the row are 0 in what is read again.
            sums = S::add(sums, if lanes < S::LANES { S::load_part(out.add(at), lanes) } else { e });
        }
        let sum = S::splat(across::<S>(sums, |a, b| a + b));
        for at in (0..n).step_by(S::LANES) {
            let lanes = S::LANES.min(n - at);
            let v = S::div(S::load_first(out.add(at), lanes), sum);
            S::store_first(out.add(at), lanes, v);
        }
    }
}

/// # Safety
/// The level's instructions must be there; all pointers must be good for `n` elements, 1 at least. `x` and `out` may be
/// one.
#[inline(always)]
unsafe fn layer_norm<S: Words>(
    x: *const f32,
    scale: *const f32,
    bias: *const f32,
    out: *mut f32,
    n: usize,
    epsilon: f32,
) {
    // SAFETY: the caller's contract.
    unsafe {
        let mut s = Wide::<S>::new();
        let count = n as f32;
        let mut sums = S::splat(0.0);
        for at in (0..n).step_by(S::LANES) {
            sums = S::add(sums, S::load_first(x.add(at), S::LANES.min(n - at)));
        }
        let mean = S::splat(across::<S>(sums, |a, b| a + b) / count);
        let mut squares = S::splat(0.0);
        let whole = n / S::LANES * S::LANES;
        for at in (0..whole).step_by(S::LANES) {
            let v = S::sub(S::load(x.add(at)), mean);
            squares = S::mul_add(v, v, squares);
        }
        let mut square = across::<S>(squares, |a, b| a + b);
        let first = across::<S>(mean, |a, _| a);
        for at in whole..n {
            let v = *x.add(at) - first;
            square += v * v;
        }
        let deviation = norm::deviation(&mut s, S::splat(square / count), epsilon);
        for at in (0..n).step_by(S::LANES) {
            let lanes = S::LANES.min(n - at);
            let v = S::sub(S::load_first(x.add(at), lanes), mean);
            let (scale, bias) = (S::load_first(scale.add(at), lanes), S::load_first(bias.add(at), lanes));
            S::store_first(out.add(at), lanes, norm::normalise(&mut s, v, deviation, scale, bias));
        }
    }
}

/// Applies functions of one argument to elements where they are.
///
/// # Safety
/// The level's instructions must be there; the pointer must be good for so many elements.
pub type InPlace = unsafe fn(&[Step], *mut f32, usize);

/// The functions of a level.
pub trait Elements: Words {
    /// # Safety
    /// As [`InPlace`].
    unsafe fn in_place(steps: &[Step], at: *mut f32, count: usize) {
        let arguments = [at.cast_const(), std::ptr::null(), std::ptr::null()];
        let chain = Chain {
            steps,
            arguments,
            readings: &[(Reading::Whole, 0)],
            rows: 0..1,
            columns: 0..count,
            row: count,
            out: at,
        };
        // SAFETY: the caller's contract.
        unsafe { Self::chain(&chain) }
    }
    /// # Safety
    /// The level's instructions must be there; all pointers must be good for what the numbers say.
    unsafe fn chain(c: &Chain<'_>);
    /// # Safety
    /// As [`Elements::chain`]; `x` and `out` have `n` elements.
    unsafe fn softmax(x: *const f32, out: *mut f32, n: usize);
    /// # Safety
    /// As [`Elements::softmax`].
    unsafe fn layer_norm(x: *const f32, scale: *const f32, bias: *const f32, out: *mut f32, n: usize, epsilon: f32);
}

macro_rules! level {
    ($simd:ty, $(#[$feature:meta])?) => {
        level!{ @functions $simd, $(#[$feature])?
            chain(c: &Chain<'_>),
            softmax(x: *const f32, out: *mut f32, n: usize),
            layer_norm(x: *const f32, scale: *const f32, bias: *const f32, out: *mut f32, n: usize, epsilon: f32),
        }
    };
    (@functions $simd:ty, #[$feature:meta] $($name:ident($($arg:ident: $ty:ty),*),)*) => {
        impl Elements for $simd {
            $(unsafe fn $name($($arg: $ty),*) {
                #[$feature]
                unsafe fn compiled($($arg: $ty),*) {
                    // SAFETY: the caller's contract.
                    unsafe { $name::<$simd>($($arg),*) }
                }
                // SAFETY: the caller's contract.
                unsafe { compiled($($arg),*) }
            })*
        }
    };
    (@functions $simd:ty, $($name:ident($($arg:ident: $ty:ty),*),)*) => {
        impl Elements for $simd {
            $(unsafe fn $name($($arg: $ty),*) {
                // SAFETY: the caller's contract.
                unsafe { $name::<$simd>($($arg),*) }
            })*
        }
    };
}

level!(simd::Portable,);
#[cfg(target_arch = "aarch64")]
level!(super::neon::Neon,);
#[cfg(target_arch = "x86_64")]
level!(simd::Avx2, #[target_feature(enable = "avx2,fma")]);
#[cfg(target_arch = "x86_64")]
level!(simd::Avx512, #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Level;
    use mcc_ir::scalar::Eval;

    #[test]
    fn hard_swish_has_the_programs_bits() {
        let special = [0.0, -0.0, 3.0, -3.0, 1e-45, -1e-38, 1e30, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        let dense =
            (0..200_000u32).map(|i| f32::from_bits(0x3000_0000 + i * 1931) * if i % 2 == 0 { 1.0 } else { -1.0 });
        let values: Vec<f32> = special.into_iter().chain(dense).collect();
        let check = |level: Level, in_place: InPlace| {
            if !level.is_available() {
                return;
            }
            let mut got = values.clone();
            // SAFETY: the level is there, and the elements are those of a vector.
            unsafe { in_place(&[Step::Unary(Unary::HardSwish)], got.as_mut_ptr(), got.len()) };
            for (v, got) in values.iter().zip(got) {
                let want = f32::from_bits(math::unary(&mut Eval, Unary::HardSwish, v.to_bits()));
                assert!(
                    got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()),
                    "of {v:e}: {got:e}, not {want:e}"
                );
            }
        };
        check(Level::Scalar, simd::Portable::in_place);
        #[cfg(target_arch = "aarch64")]
        check(Level::Neon, crate::kernels::neon::Neon::in_place);
        #[cfg(target_arch = "x86_64")]
        {
            check(Level::Avx2, simd::Avx2::in_place);
            check(Level::Avx512, simd::Avx512::in_place);
        }
    }
}
