//! Quantisation of a float model by running it: samples go through compiled code, and what is kept of them is histograms
//! and second moments, never activations.
//!
//! The mathematics is in [`mcc_passes::quantize`]. A model goes through as follows:
//! 1. the float graph runs on all samples; histograms of its activations give their scales and zero points;
//! 2. weights are rounded: all at once, or (weights of few bits) layer by layer, each fitted to the float layer's outputs
//!    given what the quantised layers before it make of the samples;
//! 3. the float graph and the quantised one run side by side, and the report says what each layer lost.

mod report;
mod runner;

pub use report::{LayerReport, OutputReport, Report};

use crate::error::{Error, Result};
use mcc_ir::graph::{Def, Graph, ValueId};
use mcc_ir::op::Op;
use mcc_ir::types::QuantParams;
use mcc_ir::{Tensor, TensorType};
use mcc_passes::PassCx;
use mcc_passes::quantize::columns::{Means, Moments};
use mcc_passes::quantize::rewrite::{LayerWeights, rewrite};
use mcc_passes::quantize::sites::{Layer, Sites};
use mcc_passes::quantize::{Histogram, Method, Scheme, equalise, prepare, reconstruct};
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
    mcc_ir::verify::verify(graph)?;
    let quantised = |op: &Op| matches!(op, Op::Quantize { .. } | Op::Dequantize { .. });
    if graph.values().any(|(_, v)| matches!(&v.def, Def::Node { op, .. } if quantised(op))) {
        return Err(Error::Quantise("the model is quantised already".into()));
    }
    if samples.is_empty() {
        return Err(Error::Calibration("there is no sample".into()));
    }
    let target = crate::Options::host().target;
    if options.per_tensor && options.scheme.is_sequential() {
        return Err(Error::Usage("one scale for all weights of a layer is for weights of 8 bits".into()));
    }
    let mut float = prepare::prepare(graph, &PassCx::quiet(&target))?;
    if options.per_tensor {
        float = equalise::equalise(&float)?;
    }
    let sites = Sites::of(&float, &options.keep)?;
    if sites.layers.is_empty() {
        let what = if options.keep.is_empty() { "" } else { " beside those that are kept" };
        return Err(Error::Quantise(format!("the model has no layer with constant weights to quantise{what}")));
    }
    let grid = options.scheme.grid();
    let mut run = Calibration { float: &float, sites: &sites, options, samples, progress };
    let (params, means) = run.activations()?;
    let weights = match options.scheme.is_sequential() {
        true => run.fit(&params)?,
        false => run.round(&means),
    };
    let done = rewrite(&float, &sites, &params, grid, &weights)?;
    let report = run.compare(&done, &weights)?;
    Ok(Quantised { graph: done.graph, report })
}

/// What all steps share.
struct Calibration<'a> {
    float: &'a Graph,
    sites: &'a Sites,
    options: &'a Options,
    samples: &'a mut dyn Samples,
    progress: &'a Progress<'a>,
}

/// Scale and zero point of each class of activations.
type Params = HashMap<ValueId, QuantParams>;

impl Calibration<'_> {
    /// Sample `i`, checked.
    fn sample(&mut self, i: usize) -> Result<Vec<Tensor>> {
        let sample = self.samples.get(i)?;
        let types: Vec<&TensorType> = self.float.inputs.iter().map(|p| self.float.ty(p.value)).collect();
        if sample.len() != types.len() {
            let (has, takes) = (sample.len(), types.len());
            return Err(Error::Calibration(format!("sample {i} has {has} tensors, the model takes {takes}")));
        }
        for ((tensor, ty), port) in sample.iter().zip(types).zip(&self.float.inputs) {
            if tensor.ty() != ty {
                let reason = format!("sample {i}: input {:?} is {ty}, not {}", port.name, tensor.ty());
                return Err(Error::Calibration(reason));
            }
            if tensor.dtype().is_float() && tensor.to_f32().iter().any(|v| !v.is_finite()) {
                let reason = format!("sample {i}: input {:?} holds a value that is not finite", port.name);
                return Err(Error::Calibration(reason));
            }
        }
        Ok(sample)
    }

    /// Runs the float graph: scales of the activations, and means of what layers read, one a group, where layers are not
    /// fitted later.
    fn activations(&mut self) -> Result<(Params, Vec<Vec<Means>>)> {
        let layers = &self.sites.layers;
        let taps: Vec<ValueId> = self.sites.points.iter().copied().chain(layers.iter().map(|l| l.x)).collect();
        let mut runner = Runner::new(self.float, &taps)?;
        let mut histograms: HashMap<ValueId, Histogram> = HashMap::new();
        let mut moments: Vec<Vec<Moments>> = match self.options.scheme.is_sequential() {
            true => Vec::new(),
            false => layers.iter().map(|l| vec![Moments::squares(l.rows.depth()); l.rows.groups()]).collect(),
        };
        let count = self.samples.len();
        for i in 0..count {
            (self.progress)("calibrate", i, count);
            let values = runner.run(&self.sample(i)?)?;
            for v in &self.sites.points {
                let histogram = histograms.entry(self.sites.class(*v)).or_default();
                if histogram.add(&values[v]).is_err() {
                    let name = self.name(*v);
                    return Err(Error::Calibration(format!("sample {i}: the result of {name:?} is not finite")));
                }
            }
            for (layer, moments) in layers.iter().zip(&mut moments) {
                for at in layer.rows.sample(ROWS.div_ceil(count), i) {
                    for (g, m) in moments.iter_mut().enumerate() {
                        m.add(|row| layer.rows.read(&values[&layer.x], at, g, row), []);
                    }
                }
            }
        }
        (self.progress)("calibrate", count, count);
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
        let all = self.sites.layers.iter().zip(means).enumerate().map(|(i, (layer, means))| {
            let (rows, bias) = self.real(layer);
            let levels = self.options.scheme.levels(i, self.sites.layers.len());
            (layer.value, reconstruct::simple(&rows, &bias, layer, levels, self.options.per_tensor, means))
        });
        all.collect()
    }

    /// Fits the layers one after the other.
    fn fit(&mut self, params: &Params) -> Result<HashMap<ValueId, LayerWeights>> {
        let grid = self.options.scheme.grid();
        let mut weights = HashMap::new();
        let (layers, count) = (self.sites.layers.len(), self.samples.len());
        for (i, layer) in self.sites.layers.iter().enumerate() {
            let so_far = rewrite(self.float, self.sites, params, grid, &weights)?;
            let new = |v: ValueId| so_far.values[v.index()].expect("what a live layer reads is live");
            let skip: Vec<ValueId> = layer.skip.into_iter().collect();
            let wanted: Vec<ValueId> = [layer.value].iter().chain(&skip).copied().collect();
            let mut real = Runner::new(self.float, &wanted)?;
            let given: Vec<ValueId> = [layer.x].iter().chain(&skip).map(|v| new(*v)).collect();
            let mut rounded = Runner::new(&so_far.graph, &given)?;
            let (groups, channels) = (layer.rows.groups(), layer.map.channels);
            let share = channels / groups;
            let mut moments = vec![Moments::new(layer.rows.depth(), share); groups];
            for s in 0..count {
                (self.progress)("fit layers", i * count + s, layers * count);
                let sample = self.sample(s)?;
                let (wanted, given) = (real.run(&sample)?, rounded.run(&sample)?);
                let x = &given[&new(layer.x)];
                let skipped = layer.skip.map(|v| (&wanted[&v], &given[&new(v)]));
                for at in layer.rows.sample(ROWS.div_ceil(count), s) {
                    for (g, m) in moments.iter_mut().enumerate() {
                        let outputs = (g * share..(g + 1) * share).map(|c| {
                            let o = layer.rows.output_index(at, c, channels);
                            wanted[&layer.value][o] + skipped.map_or(0.0, |(real, rounded)| real[o] - rounded[o])
                        });
                        m.add(|row| layer.rows.read(x, at, g, row), outputs);
                    }
                }
            }
            let means: Vec<Means> = moments.into_iter().map(Moments::finish).collect();
            let (rows, _) = self.real(layer);
            let levels = self.options.scheme.levels(i, layers);
            weights.insert(layer.value, reconstruct::fitted(&rows, layer, levels, &means));
        }
        (self.progress)("fit layers", layers * count, layers * count);
        Ok(weights)
    }

    /// Weights of a layer as rows, and its bias.
    fn real(&self, layer: &Layer) -> (Vec<f64>, Vec<f64>) {
        let constant = |v: ValueId| self.float.constant(v).map(Tensor::to_f64).unwrap_or_default();
        let bias = layer.bias.map_or(vec![0.0; layer.map.channels], constant);
        (layer.map.rows(&constant(layer.w)), bias)
    }

    /// The name of a value's node in the model.
    fn name(&self, v: ValueId) -> String {
        self.float.value(v).origin.first().map_or(v.to_string(), |n| n.to_string())
    }
}
