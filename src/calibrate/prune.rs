//! Pruning of a float model by running it: the mathematics is in [`mcc_passes::prune`].

use super::report::{OutputReport, outputs};
use super::run::Run;
use super::{Progress, Samples, layers, prepared};
use crate::error::Result;
use mcc_ir::graph::{Graph, ValueId};
use mcc_passes::prune::{Share, Structure, allocate, fitted, replace, saliency};
use mcc_passes::quantize::columns::Means;
use mcc_passes::quantize::sites::Layer;
use serde::Serialize;
use std::collections::HashMap;

/// How to prune.
#[derive(Clone, Debug)]
pub struct PruneOptions {
    pub structure: Structure,
    /// Names of nodes that keep all their weights.
    pub keep: Vec<String>,
}

/// A pruned model: a float graph of the same shapes, with zeros in its weights.
#[derive(Clone, Debug)]
pub struct Pruned {
    pub graph: Graph,
    pub report: PruneReport,
}

/// What pruning cost, on the calibration samples.
#[derive(Clone, Debug, Serialize)]
pub struct PruneReport {
    pub samples: usize,
    /// Layers by what they lost, the worst first.
    pub layers: Vec<PrunedLayer>,
    pub outputs: Vec<OutputReport>,
    /// Of the layers that were pruned.
    pub weights: usize,
    pub zeros: usize,
}

#[derive(Clone, Debug, Serialize)]
pub struct PrunedLayer {
    /// The layer's first name in the model.
    pub name: String,
    pub op: &'static str,
    pub weights: usize,
    pub zeros: usize,
    /// Of the layer's result in the pruned graph, so with what the layers before it lost; none without any error.
    pub output_sqnr_db: Option<f64>,
    /// Root of the mean squared error of that result, as a share of its root mean square.
    pub output_error: f64,
}

/// Prunes a float graph: layers in order, each fitted to the float layer's outputs given what the pruned layers before it
/// make of the samples.
///
/// # Errors
/// As [`super::quantise`].
pub fn prune(
    graph: &Graph,
    samples: &mut dyn Samples,
    options: &PruneOptions,
    progress: &Progress<'_>,
) -> Result<Pruned> {
    let float = prepared(graph, samples)?;
    let sites = layers(&float, &options.keep)?;
    let mut run = Run { float: &float, sites: &sites, samples, progress };
    let shares: Vec<Share> = match options.structure {
        Structure::Groups { keep, of } => vec![Share::Groups { keep, of }; sites.layers.len()],
        Structure::Element { sparsity } => {
            let means = run.squares()?;
            let of_layer = |(layer, means): (&Layer, &Vec<Means>)| saliency(&run.real(layer).0, layer.map.depth, means);
            let saliencies: Vec<Vec<f64>> = sites.layers.iter().zip(&means).map(of_layer).collect();
            allocate(&saliencies, sparsity).into_iter().map(Share::Count).collect()
        }
    };
    let mut weights = HashMap::new();
    let mut done = replace(&float, &sites, &weights)?;
    for (i, (layer, share)) in sites.layers.iter().zip(shares).enumerate() {
        let means = run.moments(layer, &done, "prune layers", (i, sites.layers.len()))?;
        weights.insert(layer.value, fitted(&run.real(layer).0, layer, share, &means));
        done = replace(&float, &sites, &weights)?;
    }
    let ends: Vec<ValueId> = sites.layers.iter().map(|l| l.end).collect();
    let compared = run.compare(&done, &ends)?;
    let mut layers: Vec<PrunedLayer> = Vec::new();
    for (layer, energy) in sites.layers.iter().zip(&compared.values) {
        let Some(energy) = energy else { continue };
        let rows = &weights[&layer.value].rows;
        layers.push(PrunedLayer {
            name: run.name(layer.value),
            op: float.node(layer.value).map_or("", |(op, _)| op.name()),
            weights: rows.len(),
            zeros: rows.iter().filter(|w| **w == 0.0).count(),
            output_sqnr_db: energy.sqnr(),
            output_error: energy.relative(),
        });
    }
    layers.sort_by(|a, b| b.output_error.total_cmp(&a.output_error));
    let report = PruneReport {
        samples: run.samples.len(),
        weights: layers.iter().map(|l| l.weights).sum(),
        zeros: layers.iter().map(|l| l.zeros).sum(),
        outputs: outputs(&float, &compared),
        layers,
    };
    Ok(Pruned { graph: done.graph, report })
}
