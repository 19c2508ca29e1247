//! What quantisation cost: the float graph and the quantised one, side by side.

use super::Calibration;
use super::runner::Runner;
use crate::error::Result;
use mcc_ir::graph::ValueId;
use mcc_passes::quantize::Grid;
use mcc_passes::quantize::rewrite::{LayerWeights, Rewritten};
use serde::Serialize;
use std::collections::HashMap;

/// What quantisation cost, on the calibration samples.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub samples: usize,
    /// Layers by what they lost, the worst first.
    pub layers: Vec<LayerReport>,
    pub outputs: Vec<OutputReport>,
    pub weight_bytes_before: usize,
    pub weight_bytes_after: usize,
}

#[derive(Clone, Debug, Serialize)]
pub struct LayerReport {
    /// The layer's first name in the model.
    pub name: String,
    pub op: &'static str,
    /// Bits of information in a weight.
    pub weight_bits: f64,
    pub activation_bits: usize,
    /// Bytes of weights, biases and scales.
    pub bytes: usize,
    pub weight_sqnr_db: Option<f64>,
    /// Of the layer's result in the quantised graph, so with what the layers before it lost; none without any error.
    pub output_sqnr_db: Option<f64>,
    /// Root of the mean squared error of that result, as a share of its root mean square.
    pub output_error: f64,
}

#[derive(Clone, Debug, Serialize)]
pub struct OutputReport {
    pub name: String,
    pub sqnr_db: Option<f64>,
    /// Samples whose largest element stays the same one.
    pub same_largest: usize,
}

/// Energy of a signal and of its error.
#[derive(Clone, Copy, Debug, Default)]
struct Energy {
    signal: f64,
    error: f64,
}

impl Energy {
    fn add(&mut self, real: impl IntoIterator<Item = f64>, found: impl IntoIterator<Item = f64>) {
        for (a, b) in real.into_iter().zip(found) {
            self.signal += a * a;
            self.error += (a - b) * (a - b);
        }
    }

    fn sqnr(self) -> Option<f64> {
        (self.error > 0.0 && self.signal > 0.0).then(|| 10.0 * (self.signal / self.error).log10())
    }

    fn relative(self) -> f64 {
        if self.signal > 0.0 { (self.error / self.signal).sqrt() } else { 0.0 }
    }
}

impl Calibration<'_> {
    /// Runs both graphs on all samples.
    pub(super) fn compare(&mut self, done: &Rewritten, weights: &HashMap<ValueId, LayerWeights>) -> Result<Report> {
        let sites = self.sites;
        let outputs: Vec<ValueId> = self.float.outputs.iter().map(|p| p.value).collect();
        let ends: Vec<ValueId> =
            sites.layers.iter().map(|l| l.end).filter(|v| done.values[v.index()].is_some()).collect();
        let all: Vec<ValueId> = ends.iter().chain(&outputs).copied().collect();
        let new = |v: ValueId| done.values[v.index()].expect("filtered to be live");
        let mut real = Runner::new(self.float, &all)?;
        let mut rounded = Runner::new(&done.graph, &all.iter().map(|v| new(*v)).collect::<Vec<_>>())?;
        let mut energies = vec![Energy::default(); all.len()];
        let mut same = vec![0; outputs.len()];
        let count = self.samples.len();
        for i in 0..count {
            (self.progress)("compare", i, count);
            let sample = self.sample(i)?;
            let (a, b) = (real.run(&sample)?, rounded.run(&sample)?);
            for (v, energy) in all.iter().zip(&mut energies) {
                energy.add(a[v].iter().map(|x| *x as f64), b[&new(*v)].iter().map(|x| *x as f64));
            }
            for (v, same) in outputs.iter().zip(&mut same) {
                *same += (largest(&a[v]) == largest(&b[&new(*v)])) as usize;
            }
        }
        (self.progress)("compare", count, count);
        let bits = match self.options.scheme.grid() {
            Grid::I8 => 8,
            Grid::I16 => 16,
        };
        let of: HashMap<ValueId, Energy> = all.iter().copied().zip(energies.iter().copied()).collect();
        let mut layers: Vec<LayerReport> = Vec::new();
        let (mut before, mut after) = (0, 0);
        for layer in &sites.layers {
            let (Some(w), Some(energy)) = (weights.get(&layer.value), of.get(&layer.end)) else { continue };
            let (rows, _) = self.real(layer);
            let mut of_weights = Energy::default();
            of_weights.add(rows.iter().copied(), w.rounded.weights());
            let stored = if w.levels == mcc_passes::quantize::Levels::Int8 { 8 } else { 4 };
            let bytes = (rows.len() * stored).div_ceil(8) + 8 * layer.map.channels;
            before += 4 * (rows.len() + layer.bias.map_or(0, |_| layer.map.channels));
            after += bytes;
            layers.push(LayerReport {
                name: self.name(layer.value),
                op: self.float.node(layer.value).map_or("", |(op, _)| op.name()),
                weight_bits: w.levels.bits(),
                activation_bits: bits,
                bytes,
                weight_sqnr_db: of_weights.sqnr(),
                output_sqnr_db: energy.sqnr(),
                output_error: energy.relative(),
            });
        }
        layers.sort_by(|a, b| b.output_error.total_cmp(&a.output_error));
        let report = |(i, port): (usize, &mcc_ir::graph::Port)| OutputReport {
            name: port.name.clone(),
            sqnr_db: energies[ends.len() + i].sqnr(),
            same_largest: same[i],
        };
        let outputs = self.float.outputs.iter().enumerate().map(report).collect();
        Ok(Report { samples: count, layers, outputs, weight_bytes_before: before, weight_bytes_after: after })
    }
}

/// The index of the largest element, the first among equals.
fn largest(values: &[f32]) -> usize {
    (0..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}
