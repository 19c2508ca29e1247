//! What quantisation cost: the float graph and the quantised one, side by side.

use super::Calibration;
use super::run::{Compared, Energy};
use crate::error::Result;
use mcc_ir::graph::{Graph, Port, ValueId};
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

impl Calibration<'_> {
    /// Runs both graphs on all samples.
    pub(super) fn compare(&mut self, done: &Rewritten, weights: &HashMap<ValueId, LayerWeights>) -> Result<Report> {
        let sites = self.run.sites;
        let ends: Vec<ValueId> = sites.layers.iter().map(|l| l.end).collect();
        let compared = self.run.compare(done, &ends)?;
        let bits = match self.options.scheme.grid() {
            Grid::I8 => 8,
            Grid::I16 => 16,
        };
        let mut layers: Vec<LayerReport> = Vec::new();
        let (mut before, mut after) = (0, 0);
        for (layer, energy) in sites.layers.iter().zip(&compared.values) {
            let (Some(w), Some(energy)) = (weights.get(&layer.value), energy) else { continue };
            let (rows, _) = self.run.real(layer);
            let mut of_weights = Energy::default();
            of_weights.add(rows.iter().copied(), w.rounded.weights());
            let stored = if w.levels == mcc_passes::quantize::Levels::Int8 { 8 } else { 4 };
            let bytes = (rows.len() * stored).div_ceil(8) + 8 * layer.map.channels;
            before += 4 * (rows.len() + layer.bias.map_or(0, |_| layer.map.channels));
            after += bytes;
            layers.push(LayerReport {
                name: self.run.name(layer.value),
                op: self.run.float.node(layer.value).map_or("", |(op, _)| op.name()),
                weight_bits: w.levels.bits(),
                activation_bits: bits,
                bytes,
                weight_sqnr_db: of_weights.sqnr(),
                output_sqnr_db: energy.sqnr(),
                output_error: energy.relative(),
            });
        }
        layers.sort_by(|a, b| b.output_error.total_cmp(&a.output_error));
        let outputs = outputs(self.run.float, &compared);
        let samples = self.run.samples.len();
        Ok(Report { samples, layers, outputs, weight_bytes_before: before, weight_bytes_after: after })
    }
}

/// How far the outputs are off.
pub fn outputs(float: &Graph, compared: &Compared) -> Vec<OutputReport> {
    let report = |(port, (energy, same)): (&Port, &(Energy, usize))| OutputReport {
        name: port.name.clone(),
        sqnr_db: energy.sqnr(),
        same_largest: *same,
    };
    float.outputs.iter().zip(&compared.outputs).map(report).collect()
}
