//! What values a tensor takes over a calibration set, in bounded memory, and where to clip them.
//!
//! Bins have a power of two as their width and one of them begins at 0, so a coarser histogram is a finer one with
//! neighbours joined. What is counted therefore does not depend on the order of the data, and histograms merge exactly.

use mcc_ir::types::{F32, QuantParams};
use std::collections::VecDeque;

/// Bins on each side of 0; at least half of them are in use where that side is the wider one.
const BINS: i64 = 4096;
/// Narrowest width: every finite `f32` is counted without an index leaving `i64`.
const LEAST_EXPONENT: i32 = -140;

/// How the range of an activation is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Method {
    /// The least and the largest value seen.
    MinMax,
    /// As much is cut off at both ends together as leaves this share, in percent.
    Percentile(f64),
    /// Least divergence (Kullback-Leibler) of the quantised distribution from the real one. Source: Migacz, "8-bit inference
    /// with TensorRT", 2017.
    Entropy,
    /// Least mean squared error of rounding and clipping together.
    #[default]
    Mse,
}

/// The integers that an activation becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grid {
    /// `-128..=127` with a zero point.
    I8,
    /// `-32767..=32767` around 0.
    I16,
}

impl Grid {
    /// Steps between the ends.
    fn steps(self) -> f64 {
        match self {
            Grid::I8 => 255.0,
            Grid::I16 => 65534.0,
        }
    }

    /// Scale and zero point for a range. It is widened to hold 0, which integers represent exactly, and by so much that
    /// the zero point is an integer.
    pub fn params(self, lo: f64, hi: f64) -> QuantParams {
        let (lo, hi) = (lo.min(0.0), hi.max(0.0));
        let least = f32::MIN_POSITIVE as f64 * 1e6;
        match self {
            Grid::I8 => {
                let scale = ((hi - lo) / self.steps()).max(least) as f32;
                let zero_point = (-128.0 - lo / scale as f64).round().clamp(-128.0, 127.0) as i32;
                QuantParams { scale: F32(scale), zero_point }
            }
            Grid::I16 => {
                let scale = (2.0 * hi.max(-lo) / self.steps()).max(least) as f32;
                QuantParams { scale: F32(scale), zero_point: 0 }
            }
        }
    }
}

/// Counts of values, with their exact range and energy.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Bins are `2^exponent` wide.
    exponent: i32,
    /// Index of the first bin: bin `i` holds `i * width <= x < (i + 1) * width`.
    first: i64,
    counts: VecDeque<u64>,
    /// Values that are exactly 0: no rounding changes them.
    zeros: u64,
    min: f32,
    max: f32,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            exponent: LEAST_EXPONENT,
            first: 0,
            counts: VecDeque::new(),
            zeros: 0,
            min: f32::INFINITY,
            max: f32::NEG_INFINITY,
        }
    }
}

impl Histogram {
    /// Counts values. Returns the position of the first that is not finite, and counts nothing then.
    ///
    /// # Errors
    /// That position.
    pub fn add(&mut self, values: &[f32]) -> Result<(), usize> {
        let (mut min, mut max) = (f32::INFINITY, f32::NEG_INFINITY);
        for (i, v) in values.iter().enumerate() {
            if !v.is_finite() {
                return Err(i);
            }
            min = min.min(*v);
            max = max.max(*v);
        }
        if values.is_empty() {
            return Ok(());
        }
        self.cover(min, max);
        let inverse = 2f64.powi(-self.exponent);
        for v in values {
            if *v == 0.0 {
                self.zeros += 1;
            } else {
                let bin = (*v as f64 * inverse).floor() as i64;
                self.counts[(bin - self.first) as usize] += 1;
            }
        }
        Ok(())
    }

    /// Counts what another histogram counted.
    pub fn merge(&mut self, other: &Histogram) {
        if other.min > other.max {
            return;
        }
        self.cover(other.min, other.max);
        // The width depends on the largest magnitude alone, so this one is now no narrower than the other.
        let mut other = other.clone();
        other.coarsen(self.exponent);
        for (i, n) in other.counts.iter().enumerate().filter(|(_, n)| **n > 0) {
            let bin = other.first + i as i64;
            self.grow(bin);
            self.counts[(bin - self.first) as usize] += n;
        }
        self.zeros += other.zeros;
    }

    pub fn min(&self) -> f32 {
        self.min
    }

    pub fn max(&self) -> f32 {
        self.max
    }

    pub fn count(&self) -> u64 {
        self.zeros + self.counts.iter().sum::<u64>()
    }

    /// Widens the range to hold `min` and `max`.
    fn cover(&mut self, min: f32, max: f32) {
        (self.min, self.max) = (self.min.min(min), self.max.max(max));
        let largest = self.max.abs().max(self.min.abs()) as f64;
        let mut exponent = self.exponent;
        while (largest * 2f64.powi(-exponent)).floor() >= BINS as f64 {
            exponent += 1;
        }
        self.coarsen(exponent);
        let width = 2f64.powi(-self.exponent);
        self.grow((min as f64 * width).floor() as i64);
        self.grow((max as f64 * width).floor() as i64);
    }

    fn grow(&mut self, bin: i64) {
        if self.counts.is_empty() {
            self.first = bin;
        }
        while bin < self.first {
            self.counts.push_front(0);
            self.first -= 1;
        }
        while bin >= self.first + self.counts.len() as i64 {
            self.counts.push_back(0);
        }
    }

    fn coarsen(&mut self, exponent: i32) {
        let shift = (exponent - self.exponent).max(0);
        if shift == 0 {
            return;
        }
        self.exponent = exponent;
        if self.counts.is_empty() {
            return;
        }
        let down = |bin: i64| if shift < 63 { bin >> shift } else { bin >> 63 };
        let first = down(self.first);
        let last = down(self.first + self.counts.len() as i64 - 1);
        let mut counts = VecDeque::from(vec![0; (last - first + 1) as usize]);
        for (i, n) in self.counts.iter().enumerate() {
            counts[(down(self.first + i as i64) - first) as usize] += n;
        }
        (self.first, self.counts) = (first, counts);
    }

    /// Middle and count of each bin that is not empty, ascending; values of 0 apart.
    fn bins(&self) -> Vec<(f64, f64)> {
        let width = 2f64.powi(self.exponent);
        let middle = |i: usize| (self.first as f64 + i as f64 + 0.5) * width;
        self.counts.iter().enumerate().filter(|(_, n)| **n > 0).map(|(i, n)| (middle(i), *n as f64)).collect()
    }

    /// The range that a method keeps. Without any value it is `0..0`.
    pub fn range(&self, method: Method, grid: Grid) -> (f64, f64) {
        if self.min > self.max {
            return (0.0, 0.0);
        }
        let (min, max) = (self.min as f64, self.max as f64);
        match method {
            Method::MinMax => (min, max),
            Method::Percentile(percent) => self.percentile(percent),
            // With 16 bits, what clipping would gain is below what a histogram resolves.
            Method::Entropy | Method::Mse if grid == Grid::I16 => (min, max),
            Method::Mse => {
                let bins = self.bins();
                self.search(|lo, hi| squared_error(&bins, grid, lo, hi))
            }
            Method::Entropy => {
                let bins = self.bins();
                self.search(|lo, hi| divergence(&bins, lo, hi))
            }
        }
    }

    fn percentile(&self, percent: f64) -> (f64, f64) {
        let width = 2f64.powi(self.exponent);
        let mut cut = (self.count() as f64 * (100.0 - percent) / 100.0).max(0.0);
        let bins = self.bins();
        let (mut from, mut to) = (0, bins.len());
        // The end that is further out loses its bin, until the next bin would be one too many.
        while from + 1 < to {
            let low = bins[from].0.abs() > bins[to - 1].0.abs();
            let (_, n) = if low { bins[from] } else { bins[to - 1] };
            if n > cut {
                break;
            }
            cut -= n;
            if low { from += 1 } else { to -= 1 }
        }
        let Some(kept) = bins.get(from..to).filter(|b| !b.is_empty()) else { return (0.0, 0.0) };
        let (lo, hi) = (kept[0].0 - width / 2.0, kept[kept.len() - 1].0 + width / 2.0);
        (lo.max(self.min as f64).min(0.0), hi.min(self.max as f64).max(0.0))
    }

    /// The range with the least cost: first both ends shrink together, then each on its own around what was best.
    fn search(&self, cost: impl Fn(f64, f64) -> f64) -> (f64, f64) {
        let (min, max) = ((self.min as f64).min(0.0), (self.max as f64).max(0.0));
        let mut best = (cost(min, max), 1.0, 1.0);
        let consider = |best: &mut (f64, f64, f64), a: f64, b: f64| {
            let c = cost(min * a, max * b);
            if c < best.0 {
                *best = (c, a, b);
            }
        };
        for i in 1..100 {
            let share = 1.0 - i as f64 / 100.0;
            consider(&mut best, share, share);
        }
        if min < 0.0 && max > 0.0 {
            for _ in 0..2 {
                for i in 1..=100 {
                    let share = i as f64 / 100.0;
                    let (_, _, b) = best;
                    consider(&mut best, share, b);
                }
                for i in 1..=100 {
                    let share = i as f64 / 100.0;
                    let (_, a, _) = best;
                    consider(&mut best, a, share);
                }
            }
        }
        (min * best.1, max * best.2)
    }

    /// The mean squared error of quantising to a range.
    pub fn squared_error(&self, grid: Grid, lo: f64, hi: f64) -> f64 {
        squared_error(&self.bins(), grid, lo, hi) / (self.count() as f64).max(1.0)
    }
}

/// The sum of squared errors of what bins hold, quantised to a range.
fn squared_error(bins: &[(f64, f64)], grid: Grid, lo: f64, hi: f64) -> f64 {
    let q = grid.params(lo, hi);
    let (scale, zero) = (q.scale.0 as f64, q.zero_point as f64);
    let (from, to) = match grid {
        Grid::I8 => (-128.0, 127.0),
        Grid::I16 => (-32767.0, 32767.0),
    };
    let error = |&(x, n): &(f64, f64)| {
        let level = ((x / scale).round_ties_even() + zero).clamp(from, to);
        let e = x - (level - zero) * scale;
        n * e * e
    };
    bins.iter().map(error).sum()
}

/// The divergence of a distribution, clipped to a range, from itself on 256 levels. What is clipped counts at the ends of
/// the clipped distribution and is missing in the quantised one, so that clipping has a price.
fn divergence(bins: &[(f64, f64)], lo: f64, hi: f64) -> f64 {
    let levels = Grid::I8.steps() as usize + 1;
    let step = (hi - lo) / Grid::I8.steps();
    let from = bins.partition_point(|b| b.0 < lo);
    let to = bins.partition_point(|b| b.0 <= hi);
    if step <= 0.0 || from >= to {
        return f64::INFINITY;
    }
    let mass = |bins: &[(f64, f64)]| bins.iter().map(|b| b.1).sum::<f64>();
    let (below, inside, above) = (mass(&bins[..from]), &bins[from..to], mass(&bins[to..]));
    let kept = mass(inside);
    let level = |x: f64| (((x - lo) / step).round() as usize).min(levels - 1);
    let mut quantised = vec![(0.0, 0.0); levels];
    for (x, n) in inside {
        let q = &mut quantised[level(*x)];
        *q = (q.0 + n, q.1 + 1.0);
    }
    let last = inside.len() - 1;
    let one = |(i, (x, n)): (usize, &(f64, f64))| {
        let clipped = if i == 0 { below } else { 0.0 } + if i == last { above } else { 0.0 };
        let p = (n + clipped) / (kept + below + above);
        let (sum, bins) = quantised[level(*x)];
        p * (p / (sum / bins / kept)).ln()
    };
    inside.iter().enumerate().map(one).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Values of a normal distribution, by sums of twelve uniform ones.
    fn normal(n: usize, seed: u64) -> Vec<f32> {
        let mut random = super::super::Random(seed);
        (0..n).map(|_| ((0..12).map(|_| random.unit()).sum::<f64>() - 6.0) as f32).collect()
    }

    fn of(values: &[f32]) -> Histogram {
        let mut h = Histogram::default();
        h.add(values).unwrap();
        h
    }

    proptest! {
        #[test]
        fn parts_merge_to_the_whole(
            a in prop::collection::vec(-1e4f32..1e4, 0..50),
            b in prop::collection::vec(-1e-3f32..10.0, 0..50),
        ) {
            let whole = of(&[a.clone(), b.clone()].concat());
            let (mut ab, mut ba) = (of(&a), of(&b));
            ab.merge(&of(&b));
            ba.merge(&of(&a));
            prop_assert_eq!(&ab.bins(), &whole.bins());
            prop_assert_eq!(&ba.bins(), &whole.bins());
            prop_assert_eq!((ab.zeros, ab.min, ab.max), (whole.zeros, whole.min, whole.max));
            let mut one_by_one = Histogram::default();
            a.iter().chain(&b).for_each(|v| one_by_one.add(&[*v]).unwrap());
            prop_assert_eq!(one_by_one.bins(), whole.bins());
            prop_assert_eq!(whole.count(), (a.len() + b.len()) as u64);
            prop_assert!(whole.counts.len() <= 2 * BINS as usize);
        }

        #[test]
        fn rounding_is_off_by_half_a_step_within_the_range(values in prop::collection::vec(-50f32..50.0, 1..40)) {
            let h = of(&values);
            for grid in [Grid::I8, Grid::I16] {
                let (lo, hi) = h.range(Method::MinMax, grid);
                let q = grid.params(lo, hi);
                let (from, to) = if grid == Grid::I8 { (-128, 127) } else { (-32767, 32767) };
                for v in &values {
                    let mut s = mcc_ir::scalar::Eval;
                    let int = mcc_ir::requant::quantize(&mut s, q, from, to, v.to_bits());
                    let back = f32::from_bits(mcc_ir::requant::dequantize(&mut s, q, int));
                    // The zero point is rounded, so an end may be half a step outside.
                    prop_assert!((back - v).abs() <= 1.001 * q.scale.0, "{} {}", back, v);
                }
                let zero = mcc_ir::requant::quantize(&mut mcc_ir::scalar::Eval, q, from, to, 0f32.to_bits());
                prop_assert_eq!(zero as i32, q.zero_point);
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_named() {
        let mut h = Histogram::default();
        assert_eq!(h.add(&[1.0, f32::NAN]), Err(1));
        assert_eq!(h.add(&[f32::INFINITY]), Err(0));
        assert_eq!(h, Histogram::default());
        assert_eq!(h.range(Method::Mse, Grid::I8), (0.0, 0.0));
        h.add(&[f32::MAX, f32::MIN_POSITIVE, -f32::MAX]).unwrap();
        assert_eq!(h.count(), 3);
    }

    #[test]
    fn the_error_is_that_of_the_values() {
        let values = normal(20_000, 1);
        let h = of(&values);
        for (lo, hi) in [(-6.0, 6.0), (-2.0, 2.0), (-1.0, 3.0)] {
            let q = Grid::I8.params(lo, hi);
            let exact: f64 = values
                .iter()
                .map(|v| {
                    let int = mcc_ir::requant::quantize(&mut mcc_ir::scalar::Eval, q, -128, 127, v.to_bits());
                    let back = f32::from_bits(mcc_ir::requant::dequantize(&mut mcc_ir::scalar::Eval, q, int));
                    ((back - v) as f64).powi(2)
                })
                .sum::<f64>()
                / values.len() as f64;
            let found = h.squared_error(Grid::I8, lo, hi);
            assert!((found - exact).abs() < 0.02 * exact + 1e-7, "{found} {exact}");
        }
    }

    #[test]
    fn outliers_are_clipped_and_even_distributions_are_not() {
        let mut values = normal(100_000, 2);
        values.push(100.0);
        let h = of(&values);
        let error = |(lo, hi)| h.squared_error(Grid::I8, lo, hi);
        let (lo, hi) = h.range(Method::Percentile(99.99), Grid::I8);
        assert!((3.0..6.0).contains(&hi) && (-6.0..-3.0).contains(&lo), "{lo} {hi}");
        let (lo, hi) = h.range(Method::Entropy, Grid::I8);
        assert!((2.0..12.0).contains(&hi) && (-6.0..=-2.0).contains(&lo), "{lo} {hi}");
        // One value in a hundred thousand costs 9000 / 100000 by its square: it pays to keep it, at some loss.
        let mse = h.range(Method::Mse, Grid::I8);
        for method in [Method::MinMax, Method::Percentile(99.99), Method::Entropy] {
            assert!(error(mse) <= error(h.range(method, Grid::I8)), "{method:?}");
        }
        let even: Vec<f32> = (0..10_000).map(|i| i as f32 / 1000.0).collect();
        for method in [Method::MinMax, Method::Mse, Method::Entropy, Method::Percentile(100.0)] {
            let (lo, hi) = of(&even).range(method, Grid::I8);
            assert!(lo == 0.0 && hi > 9.5, "{method:?}: {lo} {hi}");
        }
    }

    #[test]
    fn mse_clips_long_tails() {
        // Laplace: half of the range holds all but a few values.
        let mut random = super::super::Random(3);
        let values: Vec<f32> = (0..200_000)
            .map(|_| {
                let u = random.unit() - 0.5;
                (-u.signum() * (1.0 - 2.0 * u.abs()).max(1e-9).ln()) as f32
            })
            .collect();
        let h = of(&values);
        let (lo, hi) = h.range(Method::Mse, Grid::I8);
        // The best clip of a Laplace distribution with 8 bits is at 9.89 times its scale (Banner et al., 2018).
        assert!((8.0..11.0).contains(&hi) && (-11.0..-8.0).contains(&lo), "{lo} {hi}");
    }
}
