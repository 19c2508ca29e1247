//! The text form of graphs, `.mcc`: [`print`](print()) writes it, [`parse`](parse()) reads it back to the same graph.
//!
//! The grammar is in `docs/ir.md`. Values are printed under their ids (`v3`), so a message that names a value can be
//! looked up; the parser takes any name and numbers values anew, inputs first, in order of definition. A graph whose
//! inputs come before its other values therefore comes back with the same ids.
//!
//! # Constants
//! Up to [`INLINE_ELEMENTS`] elements are printed as a list, equal elements as `splat(x)`; larger constants as the hash
//! of [`Tensor::sha256`]. There is no I/O here: [`collect_constants`] gives the tensors that a file beside the text has to
//! hold, and the parser asks its caller for them. `rand(seed, lo, hi)` is read but never printed.

mod attrs;
mod lex;
mod ops;
mod parse;
mod print;
#[cfg(test)]
mod tests;

pub use parse::parse;
pub use print::print;
pub(crate) use print::{op_text, origin_text, quant_text, quoted};

use crate::dtype::DType;
use crate::graph::{Def, Graph};
use crate::tensor::Tensor;
use crate::types::TensorType;
use half::{bf16, f16};

/// The largest constant that is printed element by element.
pub const INLINE_ELEMENTS: usize = 64;

/// The most elements that `splat` and `rand` may make in one text, all constants together.
pub const GENERATED_ELEMENTS: usize = 1 << 24;

/// The constants that [`print`](print()) writes as a hash, with it, in order of first use.
pub fn collect_constants(graph: &Graph) -> Vec<(String, Tensor)> {
    let by_hash = |t: &&Tensor| matches!(print::constant_form(t), print::ConstantForm::Hash);
    let constants = graph.values().filter_map(|(_, v)| match &v.def {
        Def::Const(t) => Some(t),
        _ => None,
    });
    constants.filter(by_hash).map(|t| (t.sha256(), t.clone())).collect()
}

/// The tensor that `rand(seed, lo, hi)` stands for.
///
/// Element i (row-major) is drawn with word i of the SplitMix64 sequence that starts from `seed`. A float is
/// `lo + (hi - lo) * (word >> 11) / 2^53`, computed in `f64` and rounded once to the element type. An integer is
/// `lo + floor(word * (hi - lo + 1) / 2^64)`, both bounds included; of a `b1` whose bounds are -1 and 1, the sign of
/// `word` read as two's complement.
///
/// `None` where `lo` is above `hi`, a bound is not finite or not an integer of the type (of an `i64`, at most 2^53), or
/// the tensor is larger than [`GENERATED_ELEMENTS`].
pub fn random_tensor(ty: &TensorType, seed: u64, lo: f64, hi: f64) -> Option<Tensor> {
    let count = ty.checked_elements().filter(|n| *n <= GENERATED_ELEMENTS)?;
    if !(lo <= hi && (hi - lo).is_finite()) {
        return None;
    }
    let mut words = SplitMix64(seed);
    if ty.dtype.is_float() {
        let mut data = Vec::with_capacity(ty.bytes());
        for _ in 0..count {
            let x = lo + (hi - lo) * ((words.next() >> 11) as f64 * 2f64.powi(-53));
            match ty.dtype {
                DType::F16 => data.extend(f16::from_f64(x).to_le_bytes()),
                DType::BF16 => data.extend(bf16::from_f64(x).to_le_bytes()),
                _ => data.extend((x as f32).to_le_bytes()),
            }
        }
        return Tensor::from_bytes(ty.clone(), data).ok();
    }
    let (min, max) = match ty.dtype {
        DType::I64 => (-(2f64.powi(53)), 2f64.powi(53)),
        d => d.int_range().map(|(a, b)| (a as f64, b as f64))?,
    };
    if lo.fract() != 0.0
        || hi.fract() != 0.0
        || lo < min
        || hi > max
        || (ty.dtype == DType::B1 && (lo, hi) != (-1.0, 1.0))
    {
        return None;
    }
    let (lo, span) = (lo as i64, (hi - lo) as u128 + 1);
    let draw = || match ty.dtype {
        DType::B1 => (words.next() as i64).signum() | 1,
        _ => lo + ((words.next() as u128 * span) >> 64) as i64,
    };
    Some(integers(ty, draw))
}

/// The tensor of an integer type whose elements `next` gives, in order.
fn integers(ty: &TensorType, mut next: impl FnMut() -> i64) -> Tensor {
    let count = ty.elements();
    let mut data = Vec::with_capacity(ty.bytes());
    // In pieces, so that the work needs little memory beside the result; 64 elements of any type are whole bytes.
    for from in (0..count).step_by(64) {
        let piece: Vec<i64> = (from..count.min(from + 64)).map(|_| next()).collect();
        data.extend_from_slice(Tensor::from_i64(TensorType::new(ty.dtype, [piece.len()]), &piece).bytes());
    }
    Tensor::from_bytes(ty.clone(), data).expect("one element each was written")
}

/// The SplitMix64 generator (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
