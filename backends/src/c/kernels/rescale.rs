//! Requantisation by one integer multiplication, where it is proven equal to the rounding in `f32`.
//!
//! [`Rounding::F32HalfEven`] maps accumulators to bytes by a step function that never falls, and so does
//! `(acc * factor / 2^32 + ((zero << SHIFT) + half)) >> SHIFT`, which is SMMLA and SSAT. Two such functions are equal where
//! all their steps are. Each step bounds the factor; where no factor fits all steps that the accumulator can reach, the
//! channel keeps its scale in `f32`: a table holds one word a channel, of which the sign tells which it is.
//! [`Rounding::Single`] is such a function too; there a factor is a must.

use mcc_ir::catalogue::KernelSpec;
use mcc_ir::dtype::DType;
use mcc_ir::op::{Op, Rounding, Step};
use mcc_ir::requant;
use mcc_ir::scalar::Eval;
use mcc_ir::tensor::Tensor;

/// Bits that the integer form keeps below the point. More of them leave less room for large scales, as depthwise layers have
/// them; of factors there are hardly more.
pub const SHIFT: u32 = 2;

/// Scales below keep no exact product with 2^-8.
const SMALLEST: f64 = 1e-30;

/// The operands of a convolution or product to be requantised.
pub struct Rescale {
    weights: Vec<i8>,
    /// Weights of a channel.
    depth: usize,
    bias: Vec<i32>,
    rounding: Rounding,
    /// The scale of a channel as it is, and its operand's bits.
    scales: Vec<(f64, u32)>,
    zero: i32,
    /// The lowest and the highest value of an input.
    inputs: [i64; 2],
}

impl Rescale {
    /// `None` where the epilogue does not start with a rounding to the full range of `i8` by positive constant scales.
    pub fn new(spec: &KernelSpec<'_>) -> Option<Rescale> {
        Rescale::of(spec.op, spec.consts, spec.arg_types[0].dtype, *spec.out_type.shape.last()?)
    }

    /// As [`Rescale::new`], of the operator, its constant operands, the input's type and the number of channels.
    pub fn of(op: &Op, consts: &[Option<&Tensor>], input: DType, channels: usize) -> Option<Rescale> {
        let Some(Step::Requant { rounding, zero, lo: -128, hi: 127, dtype: DType::I8 }) = op.post()?.first() else {
            return None;
        };
        let own = op.own_inputs()?;
        let weights: Vec<i8> = consts[1]?.bytes().iter().map(|b| *b as i8).collect();
        let bias = match own {
            3 => consts[2]?.to_i64().into_iter().map(|b| b as i32).collect(),
            _ => vec![0; channels],
        };
        let operand = consts[own]?;
        let mut scales: Vec<(f64, u32)> = match rounding {
            Rounding::F32HalfEven => operand.to_f32().into_iter().map(|s| (s as f64, s.to_bits())).collect(),
            Rounding::Single { shift } => {
                let unit = 2f64.powi(*shift as i32 - 32);
                operand.to_i64().into_iter().map(|m| (m as f64 * unit, m as u32)).collect()
            }
        };
        if scales.len() == 1 {
            scales = vec![scales[0]; channels];
        }
        let fits = channels > 0
            && weights.len().is_multiple_of(channels)
            && bias.len() == channels
            && scales.len() == channels
            && scales.iter().all(|(s, _)| s.is_finite() && *s >= SMALLEST);
        let inputs = match input {
            DType::I8 => [-128, 127],
            DType::U8 => [0, 255],
            _ => return None,
        };
        let depth = weights.len() / channels.max(1);
        let rounding = *rounding;
        let rescale = fits.then_some(Rescale { weights, depth, bias, rounding, scales, zero: *zero, inputs })?;
        let exact = rounding == Rounding::F32HalfEven || (0..channels).all(|c| rescale.factor(c, 0).is_some());
        exact.then_some(rescale)
    }

    pub fn zero(&self) -> i32 {
        self.zero
    }

    /// The least and the greatest sum of a channel, the bias included.
    fn range(&self, channel: usize) -> [i64; 2] {
        let row = &self.weights[channel * self.depth..][..self.depth];
        let mut range = [self.bias[channel] as i64; 2];
        for &w in row {
            let ends = self.inputs.map(|x| x * w as i64);
            range[0] += ends[0].min(ends[1]);
            range[1] += ends[0].max(ends[1]);
        }
        range
    }

    /// The factor of a channel whose sums arrive `moved`, in 256ths.
    fn factor(&self, channel: usize, moved: i64) -> Option<u32> {
        self.factor_of(channel, self.range(channel), moved)
    }

    /// The same for all sums of a range.
    fn factor_of(&self, channel: usize, range: [i64; 2], moved: i64) -> Option<u32> {
        let (scale, bits) = self.scales[channel];
        // A sum that wraps when it is shifted makes no steps.
        if let Rounding::Single { shift } = self.rounding
            && range.iter().any(|end| end.abs() >= 1 << (31 - shift.min(31)))
        {
            return None;
        }
        let rounded = |acc| {
            requant::requantize(&mut Eval, self.rounding, acc, bits, self.zero, i8::MIN.into(), i8::MAX.into()) as i32
        };
        factor(rounded, scale, self.zero, range, moved)
    }

    /// As [`Rescale::factor`] for sums that arrive times 2^8, which leaves room for a part of one: that part, and the factor.
    fn fine_factor(&self, channel: usize, moved: i64) -> Option<(i64, u32)> {
        let parts = (0..8).flat_map(|bit| [2 << bit, 3 << bit]).map(|n| n / 2).flat_map(|n: i64| [n, -n]);
        let parts = std::iter::once(0).chain(parts.filter(|n| n.abs() <= 128));
        parts.into_iter().find_map(|part| Some((part, self.factor(channel, 256 * moved + part)?)))
    }

    /// Where the sums of a channel start, and its word: a factor, which is not negative, or the bits of the negative scale.
    pub fn plain(&self, channel: usize) -> (i32, u32) {
        let scale = self.scales[channel].0 as f32;
        (self.bias[channel], self.factor(channel, 0).unwrap_or((-scale).to_bits()))
    }

    /// As [`Rescale::plain`] for sums that stay below 2^23 and arrive times 2^8, as they start. A greater bias, as channels have that are
    /// dead or nearly so, is replaced by another one with a factor that makes up for it; `None` where none does.
    pub fn raised(&self, channel: usize) -> Option<(i32, u32)> {
        let (bias, scale, range) = (self.bias[channel] as i64, self.scales[channel].0 as f32, self.range(channel));
        if range.iter().all(|end| end.abs() < (1 << 23) - 1) {
            let (part, word) = self.fine_factor(channel, 0).unwrap_or((0, (-scale / 256.0).to_bits()));
            return Some(((256 * bias + part) as i32, word));
        }
        let room = (1 << 23) - 2 - (range[0] - bias).abs().max((range[1] - bias).abs());
        let moved = (room >= 0).then(|| bias.clamp(-room, room))?;
        let (part, word) = self.fine_factor(channel, moved - bias)?;
        Some(((256 * moved + part) as i32, word))
    }

    /// Where the sums of a channel start.
    pub fn start(&self, channel: usize) -> i32 {
        self.bias[channel]
    }

    /// The same of a channel whose sums stay below 2^23.
    pub fn small(&self, channel: usize) -> Option<i32> {
        self.range(channel).iter().all(|end| end.abs() < 1 << 23).then(|| self.bias[channel])
    }

    /// The word that suits all channels: a factor, or the bits of the negative scale where that is one.
    pub fn common(&self) -> Option<u32> {
        let (scale, bits) = self.scales[0];
        let same = self.scales.iter().all(|other| other.1 == bits);
        let ranges = (0..self.scales.len()).map(|c| self.range(c));
        let range = ranges.reduce(|[low, high], [l, h]| [low.min(l), high.max(h)]).filter(|_| same)?;
        let by_scale = || (self.rounding == Rounding::F32HalfEven).then(|| (-(scale as f32)).to_bits());
        self.factor_of(0, range, 0).or_else(by_scale)
    }

    /// Whether [`Rescale::raised`] is there.
    pub fn can_raise(&self, channel: usize) -> bool {
        self.range(channel).iter().all(|end| end.abs() < (1 << 23) - 1) || self.raised(channel).is_some()
    }
}

/// The factor under which all sums of `range` come out as `rounded` says, if there is one; it multiplies the sum plus
/// `moved` 256ths. `rounded` never falls and is about `scale` times the sum, plus `zero`.
fn factor(rounded: impl Fn(u32) -> i32, scale: f64, zero: i32, [low, high]: [i64; 2], moved: i64) -> Option<u32> {
    let (low, high) = (i32::try_from(low).ok()? as i64, i32::try_from(high).ok()? as i64);
    let rounded = |acc: i64| rounded(acc as i32 as u32);
    let start = ((zero as i128) << SHIFT) + (1 << (SHIFT - 1));
    let (mut least, mut most) = (0i128, i32::MAX as i128);
    for step in -127..=127 {
        // The first sum that reaches this step, or the one after the last.
        let near = ((step - zero) as f64 - 0.5) / scale;
        let mut first = (near.ceil() as i64).clamp(low, high + 1);
        while first > low && rounded(first - 1) >= step {
            first -= 1;
        }
        while first <= high && rounded(first) < step {
            first += 1;
        }
        // What the product has to reach from there on, and must not reach before.
        let goal = (((step as i128) << SHIFT) - start) << 40;
        for (acc, reach) in [(first, true), (first - 1, false)] {
            if acc < low || acc > high {
                continue;
            }
            let acc = (256 * acc + moved) as i128;
            match (acc.signum(), reach) {
                (0, _) if (goal <= 0) == reach => {}
                (0, _) => return None,
                (1, true) => least = least.max(ceil_div(goal, acc)),
                (1, false) => most = most.min(floor_div(goal - 1, acc)),
                (_, true) => most = most.min(floor_div(-goal, -acc)),
                (_, false) => least = least.max(ceil_div(1 - goal, -acc)),
            }
        }
    }
    (least <= most).then(|| (least + (most - least) / 2) as u32)
}

fn floor_div(a: i128, b: i128) -> i128 {
    a.div_euclid(b)
}

fn ceil_div(a: i128, b: i128) -> i128 {
    -(-a).div_euclid(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Of a sum in 256ths.
    fn by_factor(acc: i64, factor: u32, zero: i32) -> i64 {
        let start = ((zero as i64) << SHIFT) + (1 << (SHIFT - 1));
        let scaled = (acc as i128 * factor as i128 + ((start as i128) << 40)) >> (40 + SHIFT);
        scaled.clamp(-128, 127) as i64
    }

    fn wanted(rounding: Rounding, acc: i64, operand: u32, zero: i32) -> i32 {
        requant::requantize(&mut Eval, rounding, acc as i32 as u32, operand, zero, -128, 127) as i32
    }

    fn half_even_factor(scale: f32, zero: i32, range: [i64; 2], moved: i64) -> Option<u32> {
        let rounded = |acc: u32| wanted(Rounding::F32HalfEven, acc as i32 as i64, scale.to_bits(), zero);
        factor(rounded, scale as f64, zero, range, moved)
    }

    proptest! {
        #[test]
        fn a_factor_gives_what_f32_gives(
            mantissa in 1.0f32..2.0, exponent in -24i32..-3, zero in -128i32..128, low in -40_000i64..1, high in 0i64..40_000,
            moved in prop_oneof![Just(0i64), -100_000i64..100_000],
        ) {
            let scale = mantissa * 2f32.powi(exponent);
            if let Some(factor) = half_even_factor(scale, zero, [low, high], moved) {
                prop_assert!(factor < 1 << 31);
                for acc in low..=high {
                    let wanted = wanted(Rounding::F32HalfEven, acc, scale.to_bits(), zero);
                    prop_assert_eq!(by_factor(256 * acc + moved, factor, zero), wanted as i64, "{} * {} + {}", acc, scale, zero);
                }
            }
        }
    }

    #[test]
    fn the_single_rounding_has_factors() {
        let mut found = 0;
        for (i, scale) in [0.012_31, 0.000_453, 0.007_1, 0.029].into_iter().enumerate() {
            let (shift, multipliers) = requant::single_multipliers(&[scale], 300_000).unwrap();
            let (rounding, zero) = (Rounding::Single { shift }, 40 - 50 * i as i32);
            let rounded = |acc: u32| wanted(rounding, acc as i32 as i64, multipliers[0] as u32, zero);
            let Some(factor) = factor(rounded, scale, zero, [-300_000, 300_000], 0) else { continue };
            found += 1;
            for acc in -300_000..=300_000 {
                assert_eq!(by_factor(256 * acc, factor, zero), rounded(acc as i32 as u32) as i64, "{acc} * {scale}");
            }
        }
        assert!(found > 2, "{found} of 4");
    }

    #[test]
    fn most_scales_have_a_factor_and_ties_have_none() {
        let found =
            (1..200).filter(|i| half_even_factor(*i as f32 * 1.234e-4, -128, [-300_000, 300_000], 0).is_some()).count();
        assert!(found > 150, "{found} of 199");
        // Half way between two steps the even one wins, now the upper and now the lower.
        assert_eq!(half_even_factor(0.015_625, 0, [-10_000, 10_000], 0), None);
        // No step is reached at all.
        assert!(half_even_factor(1e-9, 3, [-1000, 1000], 0).is_some());
        assert!(half_even_factor(1e-9, -128, [2_000_000_000, 2_000_100_000], -1_996_000_000 * 256).is_some());
    }
}
