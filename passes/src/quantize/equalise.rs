//! Cross-layer equalisation: scales move from channels of one layer to the next, so that one scale serves all weights of a
//! layer. Source: Nagel et al., "Data-free quantization through weight equalization and bias correction", 2019.

use super::columns::Rows;
use super::sites::{Layer, Sites};
use crate::error::{Error, Result};
use mcc_ir::Tensor;
use mcc_ir::graph::{Def, Graph, ValueId};
use mcc_ir::op::{Layout, Op, Step, Unary};
use std::collections::HashMap;

/// Sweeps over all pairs of layers.
const SWEEPS: usize = 20;

/// The same function up to rounding: where a layer alone reads another one's result, behind a ReLU or nothing, each channel
/// between them is scaled so that its largest weights on both sides are equal.
///
/// # Errors
/// Only by a fault of this pass.
pub fn equalise(graph: &Graph) -> Result<Graph> {
    let sites = Sites::of(graph, &[])?;
    let layers = &sites.layers;
    let pairs: Vec<(usize, usize)> = (0..layers.len())
        .flat_map(|a| (0..layers.len()).map(move |b| (a, b)))
        .filter(|(a, b)| follows(graph, &layers[*a], &layers[*b]))
        .collect();
    let constant = |v: ValueId| graph.constant(v).map(Tensor::to_f64).unwrap_or_default();
    let mut weights: Vec<Vec<f64>> = layers.iter().map(|l| l.map.rows(&constant(l.w))).collect();
    let mut biases: Vec<Option<Vec<f64>>> = layers.iter().map(|l| l.bias.map(constant)).collect();
    for _ in 0..SWEEPS {
        for (a, b) in &pairs {
            let channels = layers[*a].map.channels;
            let (mut before, mut after) = (vec![0f64; channels], vec![0f64; channels]);
            for (i, w) in weights[*a].iter().enumerate() {
                let c = i / layers[*a].map.depth;
                before[c] = before[c].max(w.abs());
            }
            for (i, w) in weights[*b].iter().enumerate() {
                let c = reads(&layers[*b], i);
                after[c] = after[c].max(w.abs());
            }
            let by = |c: usize| {
                let by = (before[c] / after[c]).sqrt();
                if by.is_normal() { by } else { 1.0 }
            };
            let depth = layers[*a].map.depth;
            weights[*a].iter_mut().enumerate().for_each(|(i, w)| *w /= by(i / depth));
            biases[*a].iter_mut().flatten().enumerate().for_each(|(c, v)| *v /= by(c));
            weights[*b].iter_mut().enumerate().for_each(|(i, w)| *w *= by(reads(&layers[*b], i)));
        }
    }
    let at: HashMap<ValueId, usize> = layers.iter().enumerate().map(|(i, l)| (l.value, i)).collect();
    let real = |values: &[f64]| values.iter().map(|v| *v as f32).collect::<Vec<f32>>();
    let new = graph.rebuild(|out, id, value, inputs| {
        let (Some(&i), Def::Node { op, .. }) = (at.get(&id), &value.def) else { return out.copy_value(value, inputs) };
        let layer = &layers[i];
        let shape = graph.ty(layer.w).shape.clone();
        let mut inputs = inputs.to_vec();
        let w = Tensor::new(shape, &real(&layer.map.stored(&weights[i])));
        inputs[1] = out.add_const(w, graph.value(layer.w).origin.clone());
        if let (Some(bias), Some(v)) = (&biases[i], layer.bias) {
            inputs[2] = out.add_const(Tensor::new([bias.len()], &real(bias)), graph.value(v).origin.clone());
        }
        out.add_node(op.clone(), inputs, value.origin.clone())
    });
    // The second time drops the old weights.
    new.and_then(|new| new.rebuild(|out, _, value, inputs| out.copy_value(value, inputs)))
        .map_err(|source| Error::Pass { pass: "equalise", source })
}

/// Whether `b` alone reads what `a` gives, and a factor a channel passes from one to the other.
fn follows(graph: &Graph, a: &Layer, b: &Layer) -> bool {
    let relu = |v: ValueId| matches!(graph.node(v), Some((Op::Map(steps), _)) if matches!(steps.as_slice(), [Step::Unary(Unary::Relu)]));
    let uses = |v: ValueId| {
        let inputs = |(_, value): (ValueId, &mcc_ir::graph::Value)| match &value.def {
            Def::Node { inputs, .. } => inputs.iter().filter(|i| **i == v).count(),
            _ => 0,
        };
        graph.values().map(inputs).sum::<usize>() + graph.outputs.iter().filter(|p| p.value == v).count()
    };
    let alike = match (&a.rows, &b.rows) {
        (Rows::Conv { op: first, .. }, Rows::Conv { op: second, .. }) => first.layout == second.layout,
        (Rows::MatMul { .. }, Rows::MatMul { .. }) => true,
        _ => false,
    };
    b.x == a.end && (a.end == a.value || relu(a.end)) && alike && uses(a.end) == 1
}

/// The channel of the layer's input that element `i` of its rows belongs to.
fn reads(layer: &Layer, i: usize) -> usize {
    let (row, at) = (i / layer.map.depth, i % layer.map.depth);
    match &layer.rows {
        Rows::MatMul { .. } => at,
        Rows::Conv { op, kernel, .. } => {
            let share = layer.map.depth / (kernel[0] * kernel[1]);
            let within = match op.layout {
                Layout::Nchw => at / (kernel[0] * kernel[1]),
                Layout::Nhwc => at % share,
            };
            row / (layer.map.channels / op.groups) * share + within
        }
    }
}
