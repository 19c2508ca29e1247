//! Post-training pruning: weights become 0 where that costs a layer's output least, and those that stay are fitted anew.
//!
//! A weight's saliency is `w^2 E[x^2]`, what its loss alone would cost the layer's output (LeCun et al., "Optimal Brain
//! Damage", 1990, with the layer's output for the loss). Weights go in several steps; after each the others take over what
//! is lost, by least squares on the second moments of what the layer reads. In groups they go at once, and their saliency is
//! `w^2 / [H^-1]_jj`, what is lost after the others have taken over (Hassibi and Stork, "Optimal Brain Surgeon", 1993).
//! What runs the model is the facade's `calibrate`.

#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::quantize::columns::{Means, Rows};
use crate::quantize::prepare::with_bias;
use crate::quantize::rewrite::{Rewritten, compacted};
use crate::quantize::sites::{Layer, Sites};
use crate::quantize::{linear, reconstruct};
use mcc_ir::Tensor;
use mcc_ir::graph::{Def, Graph, ValueId};
use mcc_ir::op::Layout;
use rayon::prelude::*;
use std::collections::HashMap;

/// Which weights become 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Structure {
    /// A share of all weights, wherever they are.
    Element { sparsity: f64 },
    /// All but `keep` of each `of` weights of successive input channels. Layers whose channels are no multiple of `of` stay.
    Groups { keep: usize, of: usize },
}

/// How many weights of a layer stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    Count(usize),
    Groups { keep: usize, of: usize },
}

/// The weights of a layer in rows, one a channel, and its bias.
#[derive(Clone, Debug, PartialEq)]
pub struct Pruned {
    pub rows: Vec<f64>,
    pub bias: Vec<f64>,
}

/// Steps in which weights go.
const STEPS: usize = 4;
/// Share of the mean square that is added to every square, so that least squares have one answer.
const DAMPING: f64 = 1e-4;

/// What the loss of each weight alone costs: `w^2 E[x^2]`, in the order of `rows`.
pub fn saliency(rows: &[f64], depth: usize, means: &[Means]) -> Vec<f64> {
    let part = rows.len() / means.len().max(1);
    let square = |i: usize| {
        let m = &means[i / part.max(1)];
        if m.is_full() { m.xx[i % depth * (depth + 1)] } else { m.xx[i % depth] }
    };
    rows.iter().enumerate().map(|(i, w)| w * w * square(i)).collect()
}

/// How many weights of each layer stay, of all together `1 - sparsity`: those that matter most to their own layer's output.
pub fn allocate(saliencies: &[Vec<f64>], sparsity: f64) -> Vec<usize> {
    let total: usize = saliencies.iter().map(Vec::len).sum();
    let keep = ((1.0 - sparsity) * total as f64).round() as usize;
    let mut all: Vec<(f64, usize)> = Vec::with_capacity(total);
    for (layer, values) in saliencies.iter().enumerate() {
        let sum: f64 = values.iter().sum();
        all.extend(values.iter().map(|v| (if sum > 0.0 { v / sum } else { 0.0 }, layer)));
    }
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut counts = vec![0; saliencies.len()];
    all[..keep.min(total)].iter().for_each(|(_, layer)| counts[*layer] += 1);
    counts
}

/// Prunes a layer to wanted outputs. `means` has one entry a group, with the wanted outputs of the group's channels.
pub fn fitted(rows: &[f64], layer: &Layer, share: Share, means: &[Means]) -> Pruned {
    let depth = layer.map.depth;
    let part = rows.len() / means.len().max(1);
    // What least squares give without zeros, and the second moments about the mean, damped.
    let wanted: Vec<f64> = rows
        .chunks(part.max(1))
        .zip(means)
        .flat_map(|(w, m)| if m.is_full() { reconstruct::least_squares(w, &m.covariance(), m) } else { w.to_vec() })
        .collect();
    let moments: Vec<Vec<f64>> = means.iter().map(damped).collect();
    let mut now = wanted.clone();
    let mut mask = vec![true; now.len()];
    let group_of = |row: usize| row * depth / part.max(1);
    match share {
        Share::Count(count) => {
            // Where nothing takes over what is lost, steps make no difference.
            let steps = if means.iter().all(Means::is_full) { STEPS } else { 1 };
            for step in 1..=steps {
                let value = |i: usize| now[i] * now[i] * diagonal(&moments[group_of(i / depth)], depth, i % depth);
                let values: Vec<f64> = (0..now.len()).map(|i| if mask[i] { value(i) } else { -1.0 }).collect();
                let gone = (now.len() - count.min(now.len())) * step / steps;
                keep_largest(&values, now.len() - gone, &mut mask);
                now = refitted(&wanted, &mask, depth, |row| &moments[group_of(row)]);
            }
        }
        Share::Groups { keep, of } => {
            let factors: Vec<Vec<f64>> = moments.iter().map(|h| surgeon(h, depth)).collect();
            for (row, (w, mask)) in wanted.chunks(depth).zip(mask.chunks_mut(depth)).enumerate() {
                for group in input_groups(layer, of) {
                    let values: Vec<f64> = group.iter().map(|i| w[*i] * w[*i] * factors[group_of(row)][*i]).collect();
                    let mut kept = vec![true; of];
                    keep_largest(&values, keep, &mut kept);
                    group.iter().zip(kept).for_each(|(i, kept)| mask[*i] = kept);
                }
            }
            now = refitted(&wanted, &mask, depth, |row| &moments[group_of(row)]);
        }
    }
    let channels = layer.map.channels / means.len().max(1);
    let bias = now.chunks(depth).enumerate().map(|(c, w)| {
        let m = &means[c / channels];
        m.y[c % channels] - linear::dot(w, &m.x)
    });
    Pruned { bias: bias.collect(), rows: now }
}

/// The covariance of a group's rows, or its diagonal, with a share of the mean square added to the diagonal.
fn damped(m: &Means) -> Vec<f64> {
    let mut h = m.covariance();
    let step = if m.is_full() { m.depth + 1 } else { 1 };
    let mean = h.iter().step_by(step).sum::<f64>() / m.depth.max(1) as f64;
    let add = if mean > 0.0 { mean * DAMPING } else { 1.0 };
    h.iter_mut().step_by(step).for_each(|v| *v += add);
    h
}

/// Rows that are 0 outside the mask, fitted to `wanted`.
fn refitted<'a>(wanted: &[f64], mask: &[bool], depth: usize, h: impl Fn(usize) -> &'a Vec<f64> + Sync) -> Vec<f64> {
    let rows = wanted.par_chunks(depth).zip(mask.par_chunks(depth)).enumerate();
    rows.flat_map_iter(|(row, (wanted, mask))| masked(wanted, mask, h(row))).collect()
}

/// `1 / [H^-1]_jj` for each element; the diagonal itself where only that is known.
fn surgeon(h: &[f64], depth: usize) -> Vec<f64> {
    let factor = if h.len() == depth { None } else { linear::inverse_factor(h, depth) };
    match factor {
        // H^-1 = U^T U.
        Some(u) => (0..depth).map(|j| 1.0 / (0..=j).map(|i| u[i * depth + j].powi(2)).sum::<f64>()).collect(),
        None => (0..depth).map(|j| diagonal(h, depth, j)).collect(),
    }
}

/// The places in a row of each `of` successive input channels; none where the channels are no multiple of `of`.
fn input_groups(layer: &Layer, of: usize) -> Vec<Vec<usize>> {
    let depth = layer.map.depth;
    let (taps, channels_last) = match &layer.rows {
        Rows::Conv { op, kernel, .. } => (kernel[0] * kernel[1], op.layout == Layout::Nhwc),
        Rows::MatMul { .. } => (1, true),
    };
    let channels = depth / taps.max(1);
    if !channels.is_multiple_of(of) {
        return vec![];
    }
    let place =
        |tap: usize, channel: usize| if channels_last { tap * channels + channel } else { channel * taps + tap };
    let starts = (0..taps).flat_map(|tap| (0..channels).step_by(of).map(move |first| (tap, first)));
    starts.map(|(tap, first)| (first..first + of).map(|channel| place(tap, channel)).collect()).collect()
}

fn diagonal(h: &[f64], depth: usize, i: usize) -> f64 {
    if h.len() == depth { h[i] } else { h[i * (depth + 1)] }
}

/// Leaves the `count` largest values, the first among equals.
fn keep_largest(values: &[f64], count: usize, mask: &mut [bool]) {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]).then(a.cmp(b)));
    order[count..].iter().for_each(|i| mask[*i] = false);
}

/// The weights that are 0 outside the mask and whose outputs are nearest to those of `wanted`: where only squares are known,
/// `wanted` itself under the mask.
fn masked(wanted: &[f64], mask: &[bool], h: &[f64]) -> Vec<f64> {
    let depth = wanted.len();
    let kept: Vec<usize> = (0..depth).filter(|i| mask[*i]).collect();
    let mut out = vec![0.0; depth];
    kept.iter().for_each(|i| out[*i] = wanted[*i]);
    if h.len() == depth || kept.len() == depth || kept.is_empty() {
        return out;
    }
    let n = kept.len();
    let mut factor: Vec<f64> = kept.iter().flat_map(|i| kept.iter().map(move |j| h[i * depth + j])).collect();
    if linear::cholesky(&mut factor, n) {
        let mut right: Vec<f64> = kept.iter().map(|i| linear::dot(&h[i * depth..(i + 1) * depth], wanted)).collect();
        linear::solve(&factor, n, &mut right);
        kept.iter().zip(right).for_each(|(i, v)| out[*i] = v);
    }
    out
}

/// The graph with the layers in `weights` (by their value) replaced.
///
/// # Errors
/// Only by a fault of this pass.
pub fn replace(graph: &Graph, sites: &Sites, weights: &HashMap<ValueId, Pruned>) -> Result<Rewritten> {
    let layers: HashMap<ValueId, &Layer> = sites.layers.iter().map(|l| (l.value, l)).collect();
    let mut values = vec![None; graph.len()];
    graph.inputs.iter().enumerate().for_each(|(i, p)| values[p.value.index()] = Some(ValueId(i as u32)));
    let new = graph.rebuild(|out, id, value, inputs| {
        let new = match (&value.def, layers.get(&id).and_then(|l| Some((*l, weights.get(&id)?)))) {
            (Def::Node { op, .. }, Some((layer, w))) => {
                let stored: Vec<f32> = layer.map.stored(&w.rows).iter().map(|v| *v as f32).collect();
                let tensor = Tensor::new(graph.ty(layer.w).shape.clone(), &stored);
                let weights = out.add_const(tensor, graph.value(layer.w).origin.clone());
                let bias: Vec<f32> = w.bias.iter().map(|v| *v as f32).collect();
                let origin = graph.value(layer.bias.unwrap_or(id)).origin.clone();
                let bias = out.add_const(Tensor::new([bias.len()], &bias), origin);
                out.add_node(with_bias(op.clone()), vec![inputs[0], weights, bias], value.origin.clone())?
            }
            _ => out.copy_value(value, inputs)?,
        };
        values[id.index()] = Some(new);
        Ok(new)
    });
    new.and_then(|new| compacted(&new, values)).map_err(|source| Error::Pass { pass: "prune", source })
}
