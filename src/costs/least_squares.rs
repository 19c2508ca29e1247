//! Least squares without negative coefficients.

/// The coefficients `x >= 0` that fit most rows: least squares over and over, each time with less weight on the rows that
/// are off, so that the few which no coefficients explain do not spoil the rest.
pub fn solve_most(rows: &[Vec<f64>], wanted: &[f64]) -> Vec<f64> {
    /// Errors that count alike.
    const NEAR: f64 = 0.05;
    const ROUNDS: usize = 8;
    let mut x = solve(rows, wanted);
    for _ in 0..ROUNDS {
        let error = |r: &[f64], w: &f64| (r.iter().zip(&x).map(|(a, b)| a * b).sum::<f64>() - w).abs();
        let weights: Vec<f64> = rows.iter().zip(wanted).map(|(r, w)| error(r, w).max(NEAR).powf(-0.5)).collect();
        let weighed: Vec<Vec<f64>> =
            rows.iter().zip(&weights).map(|(r, weight)| r.iter().map(|v| v * weight).collect()).collect();
        x = solve(&weighed, &wanted.iter().zip(&weights).map(|(w, weight)| w * weight).collect::<Vec<_>>());
    }
    x
}

/// The coefficients `x >= 0` under which `|rows x - wanted|` is least, by the active set method of Lawson and Hanson
/// (Solving Least Squares Problems, 1974, chapter 23). Columns that others make up for stay 0.
pub fn solve(rows: &[Vec<f64>], wanted: &[f64]) -> Vec<f64> {
    let n = rows.first().map_or(0, Vec::len);
    // Columns of length 1, so that one tolerance does for all.
    let length = |j: usize| rows.iter().map(|r| r[j] * r[j]).sum::<f64>().sqrt();
    let scales: Vec<f64> = (0..n).map(|j| Some(length(j)).filter(|l| *l > 0.0).unwrap_or(1.0)).collect();
    let rows: Vec<Vec<f64>> = rows.iter().map(|r| r.iter().zip(&scales).map(|(v, s)| v / s).collect()).collect();
    let mut x = vec![0.0; n];
    let mut active: Vec<usize> = Vec::new();
    // Each round takes one more column, or ends; far more than that is a circle of roundings.
    for _ in 0..10 * n {
        let residual: Vec<f64> =
            rows.iter().zip(wanted).map(|(r, w)| w - r.iter().zip(&x).map(|(a, b)| a * b).sum::<f64>()).collect();
        let gradient = |j: usize| rows.iter().zip(&residual).map(|(r, e)| r[j] * e).sum::<f64>();
        let best = (0..n).filter(|j| !active.contains(j)).map(|j| (j, gradient(j))).max_by(|a, b| a.1.total_cmp(&b.1));
        let Some((next, _)) = best.filter(|(_, g)| *g > 1e-9) else { break };
        active.push(next);
        let mut dependent = false;
        while let Some(z) = normal(&rows, wanted, &active) {
            if z.iter().all(|v| *v > 0.0) {
                x.fill(0.0);
                active.iter().zip(&z).for_each(|(&j, v)| x[j] = *v);
                break;
            }
            // As far towards z as nothing becomes negative.
            let step = active.iter().zip(&z).filter(|(_, z)| **z <= 0.0).map(|(&j, z)| x[j] / (x[j] - z));
            let step = step.fold(1.0, f64::min);
            active.iter().zip(&z).for_each(|(&j, z)| x[j] += step * (z - x[j]));
            if active.iter().zip(&z).any(|(&j, z)| j == next && *z <= 0.0) {
                dependent = true;
            }
            active.retain(|&j| x[j] > 1e-12);
            (0..n).filter(|j| !active.contains(j)).for_each(|j| x[j] = 0.0);
        }
        if dependent {
            break;
        }
        active.retain(|&j| x[j] > 0.0);
    }
    x.iter().zip(scales).map(|(v, s)| v / s).collect()
}

/// The coefficients of the active columns, by the normal equations; `None` where a column depends on others.
fn normal(rows: &[Vec<f64>], wanted: &[f64], active: &[usize]) -> Option<Vec<f64>> {
    let n = active.len();
    let mut m: Vec<Vec<f64>> = active
        .iter()
        .map(|&i| {
            let sum = |value: &dyn Fn(&Vec<f64>, f64) -> f64| rows.iter().zip(wanted).map(|(r, w)| value(r, *w)).sum();
            let mut row: Vec<f64> = active.iter().map(|&j| sum(&|r, _| r[i] * r[j])).collect();
            row.push(sum(&|r, w| r[i] * w));
            row
        })
        .collect();
    for k in 0..n {
        let pivot = (k..n).max_by(|&a, &b| m[a][k].abs().total_cmp(&m[b][k].abs()))?;
        m.swap(k, pivot);
        if m[k][k].abs() < 1e-10 {
            return None;
        }
        for i in 0..n {
            if i != k {
                let factor = m[i][k] / m[k][k];
                (k..=n).for_each(|j| m[i][j] -= factor * m[k][j]);
            }
        }
    }
    Some((0..n).map(|k| m[k][n] / m[k][k]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// At the least point no coefficient can grow or shrink to any gain.
        #[test]
        fn no_direction_is_better(
            (rows, wanted) in (1usize..6).prop_flat_map(|n| {
                let rows = proptest::collection::vec(proptest::collection::vec(0.0f64..10.0, n), n..20);
                rows.prop_flat_map(|rows| {
                    let wanted = proptest::collection::vec(-3.0f64..10.0, rows.len());
                    (Just(rows), wanted)
                })
            })
        ) {
            let x = solve(&rows, &wanted);
            let dot = |r: &Vec<f64>| r.iter().zip(&x).map(|(a, b)| a * b).sum::<f64>();
            for (j, v) in x.iter().enumerate() {
                let slope: f64 = rows.iter().zip(&wanted).map(|(r, w)| r[j] * (w - dot(r))).sum();
                prop_assert!(*v >= 0.0);
                prop_assert!(slope < 1e-5, "{j} should grow: {slope}");
                prop_assert!(*v == 0.0 || slope > -1e-5, "{j} should shrink: {slope}");
            }
        }
    }

    /// One row in five that is off by half moves the others' estimates less than a quarter as far as in plain least squares.
    #[test]
    fn most_rows_are_fitted() {
        let rows: Vec<Vec<f64>> = (1..40).map(|i| vec![1.0, f64::from(i)]).collect();
        let exact = |i: usize| 40.0 + 2.5 * rows[i][1];
        let is_off = |i: usize| i.is_multiple_of(5);
        let measured = |i: usize| if is_off(i) { 2.0 } else { 1.0 } * exact(i);
        let scaled: Vec<Vec<f64>> =
            rows.iter().enumerate().map(|(i, r)| r.iter().map(|v| v / measured(i)).collect()).collect();
        let wanted = vec![1.0; rows.len()];
        let error = |x: &[f64]| {
            let off = |i: usize| ((x[0] + x[1] * rows[i][1]) / exact(i) - 1.0).abs();
            (0..rows.len()).filter(|i| !is_off(*i)).map(off).fold(0.0, f64::max)
        };
        let (most, all) = (error(&solve_most(&scaled, &wanted)), error(&solve(&scaled, &wanted)));
        assert!(all > 0.05 && most < 0.25 * all, "{most} {all}");
    }

    #[test]
    fn exact_coefficients_are_found() {
        let rows: Vec<Vec<f64>> = (1..12).map(|i| vec![1.0, i as f64, (i * i % 7) as f64, (i % 3) as f64]).collect();
        let wanted: Vec<f64> = rows.iter().map(|r| 40.0 * r[0] + 2.5 * r[1] + 0.125 * r[3]).collect();
        for (found, exact) in solve(&rows, &wanted).iter().zip([40.0, 2.5, 0.0, 0.125]) {
            assert!((found - exact).abs() < 1e-7, "{found} for {exact}");
        }
    }
}
