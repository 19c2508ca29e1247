//! Weights on few levels: scales, and rounding that minds what the layer reads.
//!
//! A layer's weights are rows of `depth` elements, one an output channel, with one scale each. `h` is the mean of `x x^T`
//! over the rows `x` that the layer reads, so that `(w - q) h (w - q)^T` is the mean squared error of its output.

use super::linear::{dot, inverse_factor};
use rayon::prelude::*;

/// The integers that weights become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Levels {
    /// `-127..=127`
    Int8,
    /// `-8..=7`
    Int4,
    /// `-2..=1`
    Int2,
    /// -1, 0 and 1
    Ternary,
    /// -1 and 1
    Binary,
}

impl Levels {
    /// Bits that one weight carries.
    pub fn bits(self) -> f64 {
        match self {
            Levels::Int8 => 8.0,
            Levels::Int4 => 4.0,
            Levels::Int2 => 2.0,
            Levels::Ternary => 3f64.log2(),
            Levels::Binary => 1.0,
        }
    }

    fn range(self) -> (f64, f64) {
        match self {
            Levels::Int8 => (-127.0, 127.0),
            Levels::Int4 => (-8.0, 7.0),
            Levels::Int2 => (-2.0, 1.0),
            Levels::Ternary | Levels::Binary => (-1.0, 1.0),
        }
    }

    /// The level nearest to `v`.
    pub fn round(self, v: f64) -> f64 {
        if self == Levels::Binary {
            return if v >= 0.0 { 1.0 } else { -1.0 };
        }
        let (lo, hi) = self.range();
        v.round_ties_even().clamp(lo, hi)
    }

    /// The scale at which nothing is clipped.
    pub fn whole_scale(self, row: &[f64]) -> f64 {
        let largest = row.iter().fold(0f64, |m, v| m.max(v.abs()));
        largest / self.range().1
    }
}

/// What weights are rounded against.
#[derive(Clone, Debug)]
pub struct Hessian<'a> {
    pub depth: usize,
    /// `depth * depth` elements, or `depth` for the diagonal alone.
    pub h: &'a [f64],
}

impl Hessian<'_> {
    fn is_full(&self) -> bool {
        self.h.len() == self.depth * self.depth
    }

    fn at(&self, i: usize) -> f64 {
        if self.is_full() { self.h[i * self.depth + i] } else { self.h[i] }
    }

    /// `e h e^T`.
    pub fn error(&self, e: &[f64]) -> f64 {
        match self.is_full() {
            true => (0..self.depth)
                .filter(|i| e[*i] != 0.0)
                .map(|i| e[i] * dot(&self.h[i * self.depth..(i + 1) * self.depth], e))
                .sum(),
            false => e.iter().zip(self.h).map(|(e, h)| e * e * h).sum(),
        }
    }

    /// With a share of the mean diagonal added to the diagonal, so that directions the data does not have cost something.
    fn damped(&self, share: f64) -> Vec<f64> {
        let mean = (0..self.depth).map(|i| self.at(i)).sum::<f64>() / self.depth.max(1) as f64;
        let add = if mean > 0.0 { mean * share } else { 1.0 };
        let step = if self.is_full() { self.depth + 1 } else { 1 };
        let mut h = self.h.to_vec();
        h.iter_mut().step_by(step).for_each(|v| *v += add);
        h
    }
}

/// Rows of weights on levels.
#[derive(Clone, Debug, PartialEq)]
pub struct Rounded {
    pub levels: Vec<i8>,
    /// One a row.
    pub scales: Vec<f64>,
}

impl Rounded {
    /// The weights that the levels stand for.
    pub fn weights(&self) -> Vec<f64> {
        let depth = self.levels.len() / self.scales.len().max(1);
        self.levels.iter().enumerate().map(|(i, q)| *q as f64 * self.scales[i / depth]).collect()
    }
}

/// Rounds to nearest. Scales: the whole range with 8 bits, else those of [`best_scale`].
pub fn nearest(w: &[f64], levels: Levels, hessian: &Hessian<'_>) -> Rounded {
    let rows: Vec<(Vec<i8>, f64)> = w
        .par_chunks(hessian.depth)
        .map(|row| {
            let scale = match levels {
                Levels::Int8 => levels.whole_scale(row),
                _ => best_scale(row, levels, hessian),
            };
            let scale = if scale > 0.0 { scale } else { 1.0 };
            (row.iter().map(|v| levels.round(v / scale) as i8).collect(), scale)
        })
        .collect();
    let (levels, scales): (Vec<Vec<i8>>, Vec<f64>) = rows.into_iter().unzip();
    Rounded { levels: levels.concat(), scales }
}

/// Rounds to nearest with one scale for all rows, that of the whole range.
pub fn shared(w: &[f64], levels: Levels, rows: usize) -> Rounded {
    let scale = levels.whole_scale(w);
    let scale = if scale > 0.0 { scale } else { 1.0 };
    Rounded { levels: w.iter().map(|v| levels.round(v / scale) as i8).collect(), scales: vec![scale; rows] }
}

/// Depth up to which scales are searched with the whole matrix; beyond, with its diagonal.
const SEARCHED: usize = 640;

/// The scale under which rounding a row to nearest costs least, among 60 up to that of the whole range.
pub fn best_scale(row: &[f64], levels: Levels, hessian: &Hessian<'_>) -> f64 {
    let whole = levels.whole_scale(row);
    if whole == 0.0 {
        return 0.0;
    }
    let diagonal: Vec<f64>;
    let hessian = if hessian.depth <= SEARCHED || !hessian.is_full() {
        hessian.clone()
    } else {
        diagonal = (0..hessian.depth).map(|i| hessian.at(i)).collect();
        Hessian { depth: hessian.depth, h: &diagonal }
    };
    let from = if matches!(levels, Levels::Int8 | Levels::Int4) { 1.0 } else { 1.3 };
    let mut best = (f64::INFINITY, whole);
    let mut e = vec![0.0; row.len()];
    for i in 0..60 {
        let scale = whole * (from + (0.12 - from) * i as f64 / 59.0);
        e.iter_mut().zip(row).for_each(|(e, v)| *e = v - levels.round(v / scale) * scale);
        let cost = hessian.error(&e);
        if cost < best.0 {
            best = (cost, scale);
        }
    }
    best.1
}

/// Rounds against the Hessian: columns in the order of their weight, each error spread over those that follow (Frantar et
/// al., "GPTQ", 2022), then cyclic coordinate descent on the levels, and scales refitted to them in closed form. Never
/// costs more than rounding to nearest.
pub fn against(w: &[f64], levels: Levels, hessian: &Hessian<'_>) -> Rounded {
    let start = nearest(w, levels, hessian);
    let depth = hessian.depth;
    if !hessian.is_full() {
        return start;
    }
    let mut order: Vec<usize> = (0..depth).collect();
    order.sort_by(|a, b| hessian.at(*b).total_cmp(&hessian.at(*a)));
    let damped = hessian.damped(0.01);
    let permuted: Vec<f64> = (0..depth * depth).map(|i| damped[order[i / depth] * depth + order[i % depth]]).collect();
    let Some(factor) = inverse_factor(&permuted, depth) else { return start };
    let descent = hessian.damped(1e-4);
    let rows: Vec<(Vec<i8>, f64)> = w
        .par_chunks(depth)
        .zip(start.levels.par_chunks(depth))
        .zip(&start.scales)
        .map(|((row, nearest), first)| {
            let mut z = spread(row, *first, levels, &order, &factor);
            let mut scale = *first;
            for _ in 0..ROUNDS {
                descend(row, &mut z, scale, levels, depth, &descent);
                // 8 bits cover the whole range; a refitted scale would clip.
                if levels != Levels::Int8 {
                    scale = refit(row, &z, hessian).unwrap_or(scale);
                }
            }
            let error = |z: &[f64], scale: f64| {
                hessian.error(&row.iter().zip(z).map(|(w, z)| w - z * scale).collect::<Vec<_>>())
            };
            let simple: Vec<f64> = nearest.iter().map(|q| *q as f64).collect();
            match error(&simple, *first) < error(&z, scale) {
                true => (nearest.to_vec(), *first),
                false => (z.iter().map(|z| *z as i8).collect(), scale),
            }
        })
        .collect();
    let (levels, scales): (Vec<Vec<i8>>, Vec<f64>) = rows.into_iter().unzip();
    Rounded { levels: levels.concat(), scales }
}

/// Alternations of coordinate descent and scale.
const ROUNDS: usize = 3;
/// Sweeps of one coordinate descent.
const SWEEPS: usize = 4;

/// Rounds the elements in order and makes up for the error of each with those that follow, by the upper factor of the
/// inverse Hessian in that order.
fn spread(row: &[f64], scale: f64, levels: Levels, order: &[usize], factor: &[f64]) -> Vec<f64> {
    let depth = row.len();
    let mut w: Vec<f64> = order.iter().map(|i| row[*i]).collect();
    let mut z = vec![0.0; depth];
    for j in 0..depth {
        let level = levels.round(w[j] / scale);
        z[order[j]] = level;
        let u = &factor[j * depth..(j + 1) * depth];
        let error = (w[j] - level * scale) / u[j];
        w[j + 1..].iter_mut().zip(&u[j + 1..]).for_each(|(w, u)| *w -= error * u);
    }
    z
}

/// Moves one level after the other to where the error is least, the others fixed.
fn descend(row: &[f64], z: &mut [f64], scale: f64, levels: Levels, depth: usize, h: &[f64]) {
    let e: Vec<f64> = row.iter().zip(z.iter()).map(|(w, z)| w - z * scale).collect();
    let mut gradient: Vec<f64> = (0..depth).map(|i| dot(&h[i * depth..(i + 1) * depth], &e)).collect();
    for _ in 0..SWEEPS {
        let mut moved = false;
        for j in 0..depth {
            let row = &h[j * depth..(j + 1) * depth];
            let level = levels.round(z[j] + gradient[j] / row[j] / scale);
            if level != z[j] {
                let by = (level - z[j]) * scale;
                gradient.iter_mut().zip(row).for_each(|(g, h)| *g -= by * h);
                z[j] = level;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
}

/// The scale that costs least for fixed levels: `(z h w) / (z h z)`.
fn refit(row: &[f64], z: &[f64], hessian: &Hessian<'_>) -> Option<f64> {
    let depth = row.len();
    let (mut zw, mut zz) = (0.0, 0.0);
    for i in (0..depth).filter(|i| z[*i] != 0.0) {
        let h = &hessian.h[i * depth..(i + 1) * depth];
        zw += z[i] * dot(h, row);
        zz += z[i] * dot(h, z);
    }
    (zw > 0.0 && zz > 0.0).then(|| zw / zz)
}

#[cfg(test)]
mod tests {
    use super::super::Random;
    use super::*;
    use proptest::prelude::*;

    const ALL: [Levels; 5] = [Levels::Int8, Levels::Int4, Levels::Int2, Levels::Ternary, Levels::Binary];

    /// A mean of products of `rows` random rows whose elements depend on one another.
    fn hessian(depth: usize, rows: usize, seed: u64) -> Vec<f64> {
        let mut random = Random(seed);
        let mut h = vec![0.0; depth * depth];
        for _ in 0..rows {
            let common: Vec<f64> = (0..4).map(|_| 4.0 * random.unit()).collect();
            let x: Vec<f64> = (0..depth).map(|i| common[i % 4] + random.unit() - 0.5).collect();
            (0..depth * depth).for_each(|i| h[i] += x[i / depth] * x[i % depth] / rows as f64);
        }
        h
    }

    fn weights(n: usize, seed: u64) -> Vec<f64> {
        let mut random = Random(seed);
        (0..n).map(|_| random.unit() + random.unit() - 1.0).collect()
    }

    fn cost(w: &[f64], r: &Rounded, hessian: &Hessian<'_>) -> f64 {
        let e: Vec<f64> = w.iter().zip(r.weights()).map(|(w, q)| w - q).collect();
        e.chunks(hessian.depth).map(|e| hessian.error(e)).sum()
    }

    proptest! {
        #[test]
        fn nearest_with_8_bits_is_within_half_a_step(w in prop::collection::vec(-9f64..9.0, 24)) {
            let h = vec![1.0; 8];
            let r = nearest(&w, Levels::Int8, &Hessian { depth: 8, h: &h });
            for (i, (w, q)) in w.iter().zip(r.weights()).enumerate() {
                prop_assert!((w - q).abs() <= 0.5 * r.scales[i / 8] * 1.000001);
            }
        }

        #[test]
        fn rounding_against_the_hessian_never_costs_more(depth in 1usize..20, rows in 1usize..40, seed: u64) {
            let h = hessian(depth, rows, seed);
            let hessian = Hessian { depth, h: &h };
            let w = weights(3 * depth, seed ^ 1);
            for levels in ALL {
                let (simple, minded) = (nearest(&w, levels, &hessian), against(&w, levels, &hessian));
                prop_assert!(cost(&w, &minded, &hessian) <= cost(&w, &simple, &hessian) * 1.000001, "{:?}", levels);
                let (lo, hi) = levels.range();
                prop_assert!(minded.levels.iter().all(|q| (lo..=hi).contains(&(*q as f64))));
                prop_assert!(levels != Levels::Binary || minded.levels.iter().all(|q| *q != 0));
            }
        }
    }

    #[test]
    fn rounding_against_the_hessian_costs_far_less() {
        let (depth, rows) = (32, 200);
        let h = hessian(depth, rows, 7);
        let hessian = Hessian { depth, h: &h };
        let w = weights(16 * depth, 8);
        for levels in [Levels::Int4, Levels::Int2, Levels::Ternary] {
            let (simple, minded) = (nearest(&w, levels, &hessian), against(&w, levels, &hessian));
            let share = cost(&w, &minded, &hessian) / cost(&w, &simple, &hessian);
            assert!(share < 0.6, "{levels:?}: {share}");
        }
    }

    #[test]
    fn exact_weights_stay() {
        let h = hessian(6, 50, 3);
        let hessian = Hessian { depth: 6, h: &h };
        let w = [-3.0, 1.5, 0.0, 3.5, -4.0, 0.5];
        let r = against(&w, Levels::Int4, &hessian);
        assert!(r.weights().iter().zip(&w).all(|(a, b)| (a - b).abs() < 1e-9), "{r:?}");
        let zero = against(&[0.0; 6], Levels::Int4, &hessian);
        assert_eq!(zero.weights(), [0.0; 6]);
    }

    #[test]
    fn a_diagonal_weighs_elements_in_the_search_of_scales() {
        let row = [1.0, 0.1, 0.1, 0.1];
        let (large, small) = ([100.0, 1.0, 1.0, 1.0], [1e-4, 1.0, 1.0, 1.0]);
        let scale = |h: &[f64]| best_scale(&row, Levels::Ternary, &Hessian { depth: 4, h });
        assert!(scale(&large) > 0.9 && scale(&small) < 0.2);
    }
}
