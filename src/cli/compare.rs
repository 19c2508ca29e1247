//! Comparison of an output with what is expected.

use mcc::ir::Tensor;
use serde::Serialize;

/// What counts as equal, element by element: |found - expected| <= atol + rtol * |expected|.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tolerance {
    /// The same bits; -0 and 0 differ, equal NaNs do not.
    Exact,
    /// As stated by the user.
    Stated { rtol: f64, atol: f64 },
    /// Floats within `float` of the output's largest magnitude, integers within `lsb`.
    Relative { float: f64, lsb: f64 },
}

/// How far ONNX Runtime's stored outputs may be away: its own kernels differ among each other.
pub const STORED: Tolerance = Tolerance::Relative { float: 1e-4, lsb: 1.0 };

/// The bound of reordered float reductions among mcc's own executors.
pub const REORDERED: Tolerance = Tolerance::Relative { float: 1e-5, lsb: 1.0 };

/// The first element that differs too much.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Wrong {
    /// One a dimension.
    pub index: Vec<usize>,
    pub found: f64,
    pub expected: f64,
}

/// The difference of two tensors of one type.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    pub elements: usize,
    pub max_abs: f64,
    /// The largest of |found - expected| / |expected|, where expected is not 0.
    pub max_rel: f64,
    /// Elements beyond the tolerance.
    pub mismatches: usize,
    pub first_wrong: Option<Wrong>,
}

/// Compares two tensors of one type.
pub fn compare(found: &Tensor, expected: &Tensor, tolerance: Tolerance) -> Difference {
    let (a, b) = (found.to_f64(), expected.to_f64());
    let largest = b.iter().filter(|x| x.is_finite()).fold(0f64, |m, x| m.max(x.abs()));
    let float = expected.dtype().is_float();
    let allowed = |expected: f64| match tolerance {
        Tolerance::Exact => 0.0,
        Tolerance::Stated { rtol, atol } => atol + rtol * expected.abs(),
        Tolerance::Relative { float: bound, .. } if float => bound * largest,
        Tolerance::Relative { lsb, .. } => lsb,
    };
    let mut d = Difference { elements: b.len(), max_abs: 0.0, max_rel: 0.0, mismatches: 0, first_wrong: None };
    let width = (expected.dtype().bits() / 8).max(1);
    for (i, (&found_i, &expected_i)) in a.iter().zip(&b).enumerate() {
        let same = found_i == expected_i || (found_i.is_nan() && expected_i.is_nan());
        let away = if same { 0.0 } else { (found_i - expected_i).abs() };
        // A NaN or an infinity on one side only is infinitely far away.
        let away = if away.is_nan() { f64::INFINITY } else { away };
        d.max_abs = d.max_abs.max(away);
        if expected_i != 0.0 && away > 0.0 {
            d.max_rel = d.max_rel.max(away / expected_i.abs());
        }
        // The distance is never NaN here, and a bound that is NaN comes from options that are refused.
        let wrong = match tolerance {
            Tolerance::Exact if float => {
                let bits = |t: &Tensor| t.bytes()[i * width..(i + 1) * width].to_vec();
                !(found_i.is_nan() && expected_i.is_nan()) && bits(found) != bits(expected)
            }
            _ => away > allowed(expected_i),
        };
        if wrong {
            d.mismatches += 1;
            d.first_wrong.get_or_insert_with(|| Wrong {
                index: unravel(i, expected.shape()),
                found: found_i,
                expected: expected_i,
            });
        }
    }
    d
}

/// The index of element `i` in a row-major tensor.
fn unravel(mut i: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (at, &dim) in index.iter_mut().zip(shape).rev() {
        *at = i % dim.max(1);
        i /= dim.max(1);
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_measured_by_the_largest_magnitude() {
        let expected = Tensor::new([2, 2], &[100.0f32, 0.0, 1.0, -1.0]);
        let found = Tensor::new([2, 2], &[100.005f32, 0.009, 1.0, -1.02]);
        let d = compare(&found, &expected, STORED);
        assert_eq!((d.mismatches, d.elements), (1, 4));
        let wrong = d.first_wrong.unwrap();
        assert_eq!((wrong.index, wrong.expected), (vec![1, 1], -1.0));
        assert!((d.max_abs - 0.02).abs() < 1e-6 && (d.max_rel - 0.02).abs() < 1e-6);
    }

    #[test]
    fn integers_may_be_one_apart() {
        let expected = Tensor::new([3], &[1i8, 2, 3]);
        assert_eq!(compare(&Tensor::new([3], &[2i8, 2, 2]), &expected, STORED).mismatches, 0);
        assert_eq!(compare(&Tensor::new([3], &[3i8, 2, 3]), &expected, STORED).mismatches, 1);
        assert_eq!(compare(&Tensor::new([3], &[1i8, 2, 4]), &expected, Tolerance::Exact).mismatches, 1);
    }

    #[test]
    fn what_is_not_a_number_equals_only_itself() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        let expected = Tensor::new([4], &[nan, inf, 1.0, -0.0]);
        assert_eq!(compare(&expected, &expected, Tolerance::Exact).mismatches, 0);
        let d = compare(&Tensor::new([4], &[0.0, -inf, nan, -0.0]), &expected, STORED);
        assert_eq!((d.mismatches, d.max_abs), (3, f64::INFINITY));
        let zero = compare(&Tensor::new([4], &[nan, inf, 1.0, 0.0f32]), &expected, Tolerance::Exact);
        assert_eq!(zero.mismatches, 1);
    }

    #[test]
    fn stated_tolerances_add_up() {
        let expected = Tensor::new([2], &[10.0f32, 0.0]);
        let found = Tensor::new([2], &[11.0f32, 0.5]);
        assert_eq!(compare(&found, &expected, Tolerance::Stated { rtol: 0.1, atol: 0.5 }).mismatches, 0);
        assert_eq!(compare(&found, &expected, Tolerance::Stated { rtol: 0.1, atol: 0.0 }).mismatches, 1);
    }
}
