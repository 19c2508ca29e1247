//! Samples on their way through a float graph and what has been made of it so far.

use super::runner::Runner;
use super::{Progress, ROWS, Samples};
use crate::error::{Error, Result};
use mcc_ir::graph::{Graph, ValueId};
use mcc_ir::{Tensor, TensorType};
use mcc_passes::quantize::columns::{Means, Moments};
use mcc_passes::quantize::rewrite::Rewritten;
use mcc_passes::quantize::sites::{Layer, Sites};

/// A float graph, its layers, and the samples that run through it.
pub struct Run<'a> {
    pub float: &'a Graph,
    pub sites: &'a Sites,
    pub samples: &'a mut dyn Samples,
    pub progress: &'a Progress<'a>,
}

/// Energy of a signal and of its error.
#[derive(Clone, Copy, Debug, Default)]
pub struct Energy {
    signal: f64,
    error: f64,
}

impl Energy {
    pub fn add(&mut self, real: impl IntoIterator<Item = f64>, found: impl IntoIterator<Item = f64>) {
        for (a, b) in real.into_iter().zip(found) {
            self.signal += a * a;
            self.error += (a - b) * (a - b);
        }
    }

    pub fn sqnr(self) -> Option<f64> {
        (self.error > 0.0 && self.signal > 0.0).then(|| 10.0 * (self.signal / self.error).log10())
    }

    /// Root of the mean squared error, as a share of the signal's root mean square.
    pub fn relative(self) -> f64 {
        if self.signal > 0.0 { (self.error / self.signal).sqrt() } else { 0.0 }
    }
}

/// How far a graph is from the float one.
pub struct Compared {
    /// One a value that was asked for; none where the other graph has it not.
    pub values: Vec<Option<Energy>>,
    /// One an output, with the number of samples whose largest element stays the same one.
    pub outputs: Vec<(Energy, usize)>,
}

impl Run<'_> {
    /// Sample `i`, checked.
    pub fn sample(&mut self, i: usize) -> Result<Vec<Tensor>> {
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

    /// Means of what a layer reads in the graph so far, and of the outputs that it has in the float graph: one a group. A
    /// layer makes up for errors in what an addition joins with its result. `at` is its place among the layers.
    pub fn moments(
        &mut self,
        layer: &Layer,
        so_far: &Rewritten,
        what: &str,
        (at, layers): (usize, usize),
    ) -> Result<Vec<Means>> {
        let new = |v: ValueId| so_far.values[v.index()].expect("what a live layer reads is live");
        let skip: Vec<ValueId> = layer.skip.into_iter().collect();
        let wanted: Vec<ValueId> = [layer.value].iter().chain(&skip).copied().collect();
        let mut real = Runner::new(self.float, &wanted)?;
        let given: Vec<ValueId> = [layer.x].iter().chain(&skip).map(|v| new(*v)).collect();
        let mut changed = Runner::new(&so_far.graph, &given)?;
        let (groups, channels) = (layer.rows.groups(), layer.map.channels);
        let share = channels / groups;
        let mut moments = vec![Moments::new(layer.rows.depth(), share); groups];
        let count = self.samples.len();
        for s in 0..count {
            (self.progress)(what, at * count + s, layers * count);
            let sample = self.sample(s)?;
            let (wanted, given) = (real.run(&sample)?, changed.run(&sample)?);
            let x = &given[&new(layer.x)];
            let skipped = layer.skip.map(|v| (&wanted[&v], &given[&new(v)]));
            for at in layer.rows.sample(ROWS.div_ceil(count), s) {
                for (g, m) in moments.iter_mut().enumerate() {
                    let outputs = (g * share..(g + 1) * share).map(|c| {
                        let o = layer.rows.output_index(at, c, channels);
                        wanted[&layer.value][o] + skipped.map_or(0.0, |(real, changed)| real[o] - changed[o])
                    });
                    m.add(|row| layer.rows.read(x, at, g, row), outputs);
                }
            }
        }
        (self.progress)(what, (at + 1) * count, layers * count);
        Ok(moments.into_iter().map(Moments::finish).collect())
    }

    /// Means of what each layer reads in the float graph, and their squares: one a group.
    pub fn squares(&mut self) -> Result<Vec<Vec<Means>>> {
        let layers = &self.sites.layers;
        let mut runner = Runner::new(self.float, &layers.iter().map(|l| l.x).collect::<Vec<_>>())?;
        let of = |l: &Layer| vec![Moments::squares(l.rows.depth()); l.rows.groups()];
        let mut moments: Vec<Vec<Moments>> = layers.iter().map(of).collect();
        let count = self.samples.len();
        for i in 0..count {
            (self.progress)("calibrate", i, count);
            let values = runner.run(&self.sample(i)?)?;
            for (layer, moments) in layers.iter().zip(&mut moments) {
                add_rows(layer, moments, &values[&layer.x], (i, count));
            }
        }
        (self.progress)("calibrate", count, count);
        Ok(moments.into_iter().map(|l| l.into_iter().map(Moments::finish).collect()).collect())
    }

    /// Runs the float graph and what was made of it on all samples.
    pub fn compare(&mut self, done: &Rewritten, values: &[ValueId]) -> Result<Compared> {
        let new = |v: ValueId| done.values[v.index()];
        let outputs: Vec<ValueId> = self.float.outputs.iter().map(|p| p.value).collect();
        let both: Vec<(ValueId, ValueId)> =
            values.iter().chain(&outputs).filter_map(|v| Some((*v, new(*v)?))).collect();
        let (old, changed): (Vec<ValueId>, Vec<ValueId>) = both.iter().copied().unzip();
        let (mut real, mut other) = (Runner::new(self.float, &old)?, Runner::new(&done.graph, &changed)?);
        let mut energies = vec![Energy::default(); both.len()];
        let mut same = vec![0; outputs.len()];
        let count = self.samples.len();
        for i in 0..count {
            (self.progress)("compare", i, count);
            let sample = self.sample(i)?;
            let (a, b) = (real.run(&sample)?, other.run(&sample)?);
            for ((old, new), energy) in both.iter().zip(&mut energies) {
                energy.add(a[old].iter().map(|x| *x as f64), b[new].iter().map(|x| *x as f64));
            }
            for (v, same) in outputs.iter().zip(&mut same) {
                let new = new(*v).expect("outputs are live");
                *same += (largest(&a[v]) == largest(&b[&new])) as usize;
            }
        }
        (self.progress)("compare", count, count);
        let found = |v: &ValueId| both.iter().position(|(old, _)| old == v).map(|i| energies[i]);
        let outputs = outputs.iter().zip(same).map(|(v, same)| (found(v).unwrap_or_default(), same)).collect();
        Ok(Compared { values: values.iter().map(found).collect(), outputs })
    }

    /// Weights of a layer as rows, and its bias.
    pub fn real(&self, layer: &Layer) -> (Vec<f64>, Vec<f64>) {
        let constant = |v: ValueId| self.float.constant(v).map(Tensor::to_f64).unwrap_or_default();
        let bias = layer.bias.map_or(vec![0.0; layer.map.channels], constant);
        (layer.map.rows(&constant(layer.w)), bias)
    }

    /// The name of a value's node in the model.
    pub fn name(&self, v: ValueId) -> String {
        self.float.value(v).origin.first().map_or(v.to_string(), |n| n.to_string())
    }
}

/// Adds rows of what a layer reads in sample `i` of `count` to its moments, one a group.
pub fn add_rows(layer: &Layer, moments: &mut [Moments], x: &[f32], (i, count): (usize, usize)) {
    for at in layer.rows.sample(ROWS.div_ceil(count), i) {
        for (g, m) in moments.iter_mut().enumerate() {
            m.add(|row| layer.rows.read(x, at, g, row), []);
        }
    }
}

/// The index of the largest element, the first among equals.
fn largest(values: &[f32]) -> usize {
    (0..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}
