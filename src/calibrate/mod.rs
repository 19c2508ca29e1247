//! Quantisation and pruning of a float model by running it: samples go through compiled code, and what is kept of them is histograms
//! and second moments, never activations.
//!
//! The mathematics is in [`mcc_passes::quantize`]. A model goes through as follows:
//! 1. the float graph runs on all samples; histograms of its activations give their scales and zero points;
//! 2. weights are rounded: all at once, or (weights of few bits) layer by layer, each fitted to the float layer's outputs
//!    given what the quantised layers before it make of the samples;
//! 3. the float graph and the quantised one run side by side, and the report says what each layer lost.

mod prune;
mod report;
mod run;
mod runner;

pub use prune::{PruneOptions, PruneReport, Pruned, PrunedLayer, prune};
pub use report::{LayerReport, OutputReport, Report};

use crate::error::{Error, Result};
use mcc_ir::Tensor;
use mcc_ir::graph::{Def, Graph, ValueId};
use mcc_ir::op::Op;
use mcc_ir::types::QuantParams;
use mcc_passes::PassCx;
use mcc_passes::quantize::columns::{Means, Moments};
use mcc_passes::quantize::rewrite::{LayerWeights, rewrite};
use mcc_passes::quantize::sites::Sites;
use mcc_passes::quantize::{Histogram, Method, Scheme, equalise, prepare, reconstruct};
use run::Run;
use runner::Runner;
use std::collections::HashMap;

/// Rows that a layer's moments are taken from, spread over all samples.
const ROWS: usize = 16 << 10;

/// Calibration inputs.
pub trait Samples {
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The inputs of the model for sample `i`, in the order of its ports.
    ///
    /// # Errors
    /// Where the sample cannot be read.
    fn get(&mut self, i: usize) -> Result<Vec<Tensor>>;
}

impl Samples for Vec<Vec<Tensor>> {
    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn get(&mut self, i: usize) -> Result<Vec<Tensor>> {
        Ok(self[i].clone())
    }
}

/// How to quantise.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub scheme: Scheme,
    /// How activations are clipped.
    pub method: Method,
    /// One scale for all weights of a layer, after equalisation across layers.
    pub per_tensor: bool,
    /// Names of nodes that stay in floating point.
    pub keep: Vec<String>,
}

/// A quantised model.
#[derive(Clone, Debug)]
pub struct Quantised {
    /// QuantizeLinear and DequantizeLinear around float operators, with inputs and outputs as they were.
    pub graph: Graph,
    pub report: Report,
}

/// Called with what is done, how many steps of it are done, and of how many.
pub type Progress<'a> = dyn Fn(&str, usize, usize) + 'a;

/// Quantises a float graph.
///
/// # Errors
/// [`Error::Calibration`] where the samples are none, or not what the model takes, or not finite; [`Error::Quantise`] where
/// the model is quantised already or has no layer to quantise; that of an unknown name in `keep`.
pub fn quantise(
    graph: &Graph,
    samples: &mut dyn Samples,
    options: &Options,
    progress: &Progress<'_>,
) -> Result<Quantised> {
    if options.per_tensor && options.scheme.is_sequential() {
        return Err(Error::Usage("one scale for all weights of a layer is for weights of 8 bits".into()));
    }
    let mut float = prepared(graph, samples)?;
    if options.per_tensor {
        float = equalise::equalise(&float)?;
    }
    let sites = layers(&float, &options.keep)?;
    let grid = options.scheme.grid();
    let run = Run { float: &float, sites: &sites, samples, progress };
    let mut run = Calibration { run, options };
    let (params, means) = run.activations()?;
    let weights = match options.scheme.is_sequential() {
        true => run.fit(&params)?,
        false => run.round(&means),
    };
    let done = rewrite(&float, &sites, &params, grid, &weights)?;
    let report = run.compare(&done, &weights)?;
    Ok(Quantised { graph: done.graph, report })
}

/// The float graph that samples run through, with the layers' scales and biases inside the layers.
fn prepared(graph: &Graph, samples: &dyn Samples) -> Result<Graph> {
    mcc_ir::verify::verify(graph)?;
    let quantised = |op: &Op| matches!(op, Op::Quantize { .. } | Op::Dequantize { .. });
    if graph.values().any(|(_, v)| matches!(&v.def, Def::Node { op, .. } if quantised(op))) {
        return Err(Error::Quantise("the model is quantised already".into()));
    }
    if samples.is_empty() {
        return Err(Error::Calibration("there is no sample".into()));
    }
    Ok(prepare::prepare(graph, &PassCx::quiet(&crate::Options::host().target))?)
}

/// The layers with constant weights but those with names in `keep`.
fn layers(float: &Graph, keep: &[String]) -> Result<Sites> {
    let sites = Sites::of(float, keep)?;
    if sites.layers.is_empty() {
        let what = if keep.is_empty() { "" } else { " beside those that are kept" };
        return Err(Error::Quantise(format!("the model has no layer with constant weights{what}")));
    }
    Ok(sites)
}

/// A run that quantises.
struct Calibration<'a> {
    run: Run<'a>,
    options: &'a Options,
}

/// Scale and zero point of each class of activations.
type Params = HashMap<ValueId, QuantParams>;

impl Calibration<'_> {
    /// Runs the float graph: scales of the activations, and means of what layers read, one a group, where layers are not
    /// fitted later.
    fn activations(&mut self) -> Result<(Params, Vec<Vec<Means>>)> {
        let layers = &self.run.sites.layers;
        let taps: Vec<ValueId> = self.run.sites.points.iter().copied().chain(layers.iter().map(|l| l.x)).collect();
        let mut runner = Runner::new(self.run.float, &taps)?;
        let mut histograms: HashMap<ValueId, Histogram> = HashMap::new();
        let mut moments: Vec<Vec<Moments>> = match self.options.scheme.is_sequential() {
            true => Vec::new(),
            false => layers.iter().map(|l| vec![Moments::squares(l.rows.depth()); l.rows.groups()]).collect(),
        };
        let count = self.run.samples.len();
        for i in 0..count {
            (self.run.progress)("calibrate", i, count);
            let values = runner.run(&self.run.sample(i)?)?;
            for v in &self.run.sites.points {
                let histogram = histograms.entry(self.run.sites.class(*v)).or_default();
                if histogram.add(&values[v]).is_err() {
                    let name = self.run.name(*v);
                    return Err(Error::Calibration(format!("sample {i}: the result of {name:?} is not finite")));
                }
            }
            for (layer, moments) in layers.iter().zip(&mut moments) {
                run::add_rows(layer, moments, &values[&layer.x], (i, count));
            }
        }
        (self.run.progress)("calibrate", count, count);
        let grid = self.options.scheme.grid();
        let params = histograms.iter().map(|(v, h)| {
            let (lo, hi) = h.range(self.options.method, grid);
            (*v, grid.params(lo, hi))
        });
        let means = moments.into_iter().map(|l| l.into_iter().map(Moments::finish).collect()).collect();
        Ok((params.collect(), means))
    }

    /// Rounds all weights to nearest.
    fn round(&self, means: &[Vec<Means>]) -> HashMap<ValueId, LayerWeights> {
        let all = self.run.sites.layers.iter().zip(means).enumerate().map(|(i, (layer, means))| {
            let (rows, bias) = self.run.real(layer);
            let levels = self.options.scheme.levels(i, self.run.sites.layers.len());
            (layer.value, reconstruct::simple(&rows, &bias, layer, levels, self.options.per_tensor, means))
        });
        all.collect()
    }

    /// Fits the layers one after the other.
    fn fit(&mut self, params: &Params) -> Result<HashMap<ValueId, LayerWeights>> {
        let grid = self.options.scheme.grid();
        let mut weights = HashMap::new();
        let layers = self.run.sites.layers.len();
        for (i, layer) in self.run.sites.layers.iter().enumerate() {
            let so_far = rewrite(self.run.float, self.run.sites, params, grid, &weights)?;
            let means = self.run.moments(layer, &so_far, "fit layers", (i, layers))?;
            let (rows, _) = self.run.real(layer);
            let levels = self.options.scheme.levels(i, layers);
            weights.insert(layer.value, reconstruct::fitted(&rows, layer, levels, &means));
        }
        Ok(weights)
    }
}
