//! One layer's integers, from its real weights and the moments of what it reads.

use super::columns::Means;
use super::linear;
use super::rewrite::LayerWeights;
use super::sites::Layer;
use super::weights::{self, Hessian, Levels, Rounded};

/// Share of the mean square that is added to every square, so that least squares stay near the given weights where the
/// data says little.
const RIDGE: f64 = 0.01;

/// Rounds weights to nearest, with a scale for each channel or `shared` by all, and corrects the bias by the mean error of
/// the layer's output. `means` has one entry a group.
pub fn simple(
    rows: &[f64],
    bias: &[f64],
    layer: &Layer,
    levels: Levels,
    shared: bool,
    means: &[Means],
) -> LayerWeights {
    let depth = layer.map.depth;
    let share = layer.map.channels / means.len().max(1) * depth;
    let mut all = Rounded { levels: vec![], scales: vec![] };
    for (w, m) in rows.chunks(share.max(1)).zip(means) {
        let part = weights::nearest(w, levels, &Hessian { depth, h: &m.xx });
        all.levels.extend(part.levels);
        all.scales.extend(part.scales);
    }
    if shared {
        all = weights::shared(rows, levels, layer.map.channels);
    }
    let rounded = all.weights();
    let bias = (0..layer.map.channels)
        .map(|c| {
            let at = c * depth..(c + 1) * depth;
            let mean = &means[c * means.len() / layer.map.channels].x;
            let error: f64 = rows[at.clone()].iter().zip(&rounded[at]).zip(mean).map(|((w, q), x)| (w - q) * x).sum();
            bias[c] + error
        })
        .collect();
    LayerWeights { levels, rounded: all, shared, bias }
}

/// Fits the layer to wanted outputs: least squares on what it reads now, rounding against the Hessian, and the bias that
/// makes the means right. `means` has one entry a group, with the wanted outputs of the group's channels.
pub fn fitted(rows: &[f64], layer: &Layer, levels: Levels, means: &[Means]) -> LayerWeights {
    let depth = layer.map.depth;
    let channels = layer.map.channels / means.len().max(1);
    let mut all = Rounded { levels: vec![], scales: vec![] };
    let mut bias = Vec::new();
    for (w, m) in rows.chunks((channels * depth).max(1)).zip(means) {
        let h = m.covariance();
        let wanted = if m.is_full() { least_squares(w, &h, m) } else { w.to_vec() };
        let part = weights::against(&wanted, levels, &Hessian { depth, h: &h });
        for (c, q) in part.weights().chunks(depth).enumerate() {
            bias.push(m.y[c] - linear::dot(q, &m.x));
        }
        all.levels.extend(part.levels);
        all.scales.extend(part.scales);
    }
    LayerWeights { levels, rounded: all, shared: false, bias }
}

/// The weights whose outputs are nearest to the wanted ones, drawn towards `w`.
pub(crate) fn least_squares(w: &[f64], h: &[f64], m: &Means) -> Vec<f64> {
    let d = m.depth;
    let trace: f64 = (0..d).map(|i| h[i * d + i]).sum();
    let ridge = RIDGE * trace / d as f64;
    let mut factor = h.to_vec();
    (0..d).for_each(|i| factor[i * d + i] += ridge);
    if trace <= 0.0 || !linear::cholesky(&mut factor, d) {
        return w.to_vec();
    }
    let one = |(c, w): (usize, &[f64])| {
        let mut right = m.cross(c);
        right.iter_mut().enumerate().for_each(|(j, r)| *r -= linear::dot(w, &h[j * d..(j + 1) * d]));
        linear::solve(&factor, d, &mut right);
        w.iter().zip(right).map(|(w, by)| w + by).collect::<Vec<f64>>()
    };
    w.chunks(d).enumerate().flat_map(one).collect()
}
