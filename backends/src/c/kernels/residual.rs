//! The sum of two bytes with scales as integer arithmetic, where it is proven equal on all pairs of bytes.
//!
//! Such an epilogue reads two bytes, turns them into `f32`, adds, perhaps cuts below zero, divides and rounds. It is
//! `clamp((a * m + b * n + start) >> SHIFT)` with the right constants, if there are any: each of the 65,536 pairs bounds
//! `start` from below and from above.

use crate::c::consts::int;
use crate::c::helpers::Helpers;
use mcc_ir::dtype::DType;
use mcc_ir::op::{Binary, Step, Unary};
use mcc_ir::ops::steps::Epilogue;
use mcc_ir::tensor::Tensor;
use mcc_ir::types::TensorType;

/// Bits below the point.
const SHIFT: u32 = 21;

/// The helper that takes these bits off and saturates to a byte.
const SATURATE: &str = "saturate_21";

/// Neighbours of the rounded factors that are tried, on either side.
const TRIES: i64 = 3;

/// The constants of the integer form.
#[derive(Debug, PartialEq)]
pub struct Residual {
    /// Factors of the value and of the operand.
    pub factors: [i64; 2],
    pub start: i64,
    /// The least and the greatest result.
    pub range: [i64; 2],
}

impl Residual {
    /// The integer form of the steps that follow a byte, whose only operand has element type `operand`.
    pub fn new(steps: &[Step], operand: DType) -> Option<Residual> {
        let (a, b, out) = match steps {
            [
                Step::Dequant(a),
                Step::Binary { op: Binary::Add, dequant: Some(b), .. },
                Step::Quant { q, dtype: DType::I8, .. },
            ]
            | [
                Step::Dequant(a),
                Step::Binary { op: Binary::Add, dequant: Some(b), .. },
                Step::Unary(Unary::Relu),
                Step::Quant { q, dtype: DType::I8, .. },
            ] if operand == DType::I8 => (a, b, q),
            _ => return None,
        };
        let wanted = table(steps);
        let range = [*wanted.iter().min()?, *wanted.iter().max()?];
        let exact = [a, b].map(|q| q.scale.0 as f64 / out.scale.0 as f64 * f64::from(1 << SHIFT));
        // The sum with its start stays below 2^31.
        let zeros: f64 = exact.iter().zip([a, b]).map(|(m, q)| m.abs() * (128.0 + (q.zero_point as f64).abs())).sum();
        if zeros + f64::from(1 << SHIFT) * 260.0 >= f64::from(i32::MAX) {
            return None;
        }
        let [m, n] = exact.map(|m| m.round() as i64);
        let near =
            |at: i64| [0, 1, -1, 2, -2, 3, -3].into_iter().filter(|d: &i64| d.abs() <= TRIES).map(move |d| at + d);
        near(m).flat_map(|m| near(n).map(move |n| [m, n])).find_map(|factors| {
            let (mut least, mut most) = (i32::MIN as i64, i32::MAX as i64);
            for (i, &y) in wanted.iter().enumerate() {
                let [a, b] = pair(i);
                let sum = a * factors[0] + b * factors[1];
                if y > range[0] {
                    least = least.max((y << SHIFT) - sum);
                }
                if y < range[1] {
                    most = most.min(((y + 1) << SHIFT) - 1 - sum);
                }
                if least > most {
                    return None;
                }
            }
            Some(Residual { factors, start: least + (most - least) / 2, range })
        })
    }
}

impl Residual {
    /// A C expression of the result of bytes `a` and `b`.
    pub fn expression(&self, helpers: &mut Helpers, a: &str, b: &str) -> String {
        let sum = format!("{a} * {} + {b} * {} + {}", self.factors[0], self.factors[1], int(self.start));
        if self.range == [-128, 127] {
            return format!("{}({sum})", helpers.get(SATURATE));
        }
        let ([low, high], min, max) = (self.range, helpers.get("min"), helpers.get("max"));
        format!("(int8_t){max}({min}(({sum}) >> {SHIFT}, {high}), {low})")
    }
}

/// The bytes of entry i of [`table`].
fn pair(i: usize) -> [i64; 2] {
    [i as i64 / 256 - 128, i as i64 % 256 - 128]
}

/// What the steps make of all pairs of a byte and an operand.
fn table(steps: &[Step]) -> Vec<i64> {
    const ALL: usize = 1 << 16;
    let side = |k: usize| (0..ALL).map(move |i| pair(i)[k]);
    let operand = Tensor::new([ALL], &side(1).map(|b| b as i8).collect::<Vec<_>>());
    let epilogue = Epilogue::new(steps, DType::I8, &[&operand], &TensorType::new(DType::I8, [ALL]));
    epilogue.apply(side(0).map(|a| a as u32).collect()).to_i64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcc_ir::types::{F32, QuantParams};

    fn steps(scales: [f32; 3], zeros: [i32; 3], relu: bool) -> Vec<Step> {
        let q = |i: usize| QuantParams { scale: F32(scales[i]), zero_point: zeros[i] };
        let mut all = vec![Step::Dequant(q(0)), Step::Binary { op: Binary::Add, swapped: false, dequant: Some(q(1)) }];
        if relu {
            all.push(Step::Unary(Unary::Relu));
        }
        all.push(Step::Quant { q: q(2), lo: -128, hi: 127, dtype: DType::I8 });
        all
    }

    #[test]
    fn constants_give_the_evaluators_bytes() {
        let mut found = 0;
        for i in 0..20 {
            let at = |k: i32| 0.02 + (i * k % 17) as f32 * 0.003_1;
            let steps = steps([at(3), at(5), at(7)], [4 - i, i - 128, -128 + 3 * i], i % 2 == 0);
            let Some(r) = Residual::new(&steps, DType::I8) else { continue };
            found += 1;
            for (i, wanted) in table(&steps).into_iter().enumerate() {
                let [a, b] = pair(i);
                let sum = i32::try_from(a * r.factors[0] + b * r.factors[1] + r.start).expect("no overflow");
                assert_eq!(((sum >> SHIFT) as i64).clamp(r.range[0], r.range[1]), wanted, "{a}, {b}");
            }
        }
        assert!(found > 12, "{found} of 20");
    }

    #[test]
    fn ties_have_no_constants() {
        assert_eq!(Residual::new(&steps([0.5, 0.5, 1.0], [0; 3], false), DType::I8), None);
        assert_eq!(Residual::new(&steps([0.5, 0.3, 1.0], [0; 3], false), DType::U8), None);
    }
}
