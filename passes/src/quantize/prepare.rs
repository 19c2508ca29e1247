//! The float graph as quantisation wants it: constants folded, scales and biases of layers inside the layers.

use crate::error::{Error, Result};
use crate::fold::Fold;
use crate::pass::{Pass, PassCx};
use mcc_ir::graph::{Def, Graph, Origin, Value, ValueId, join_origins};
use mcc_ir::op::{Binary, Layout, Op, Step};
use mcc_ir::{Result as IrResult, Tensor};

/// The same function, up to rounding: batch normalisations, factors and summands a channel that follow a convolution or a
/// product with constant weights are folded into its weights and bias.
///
/// # Errors
/// Only by a fault of this pass.
pub fn prepare(graph: &Graph, cx: &PassCx<'_>) -> Result<Graph> {
    let fault = |source| Error::Pass { pass: "quantise", source };
    let mut graph = graph.clone();
    Fold.run(&mut graph, cx)?;
    let uses = graph.use_counts();
    let mut new = graph
        .rebuild(|out, _, value, inputs| {
            let Def::Node { inputs: old, .. } = &value.def else { return out.copy_value(value, inputs) };
            match affine(out, value, inputs, |i| uses[old[i].index()] == 1) {
                Some(a) => fold(out, a, &value.origin),
                None => out.copy_value(value, inputs),
            }
        })
        .map_err(fault)?;
    new = new.rebuild(|out, _, value, inputs| out.copy_value(value, inputs)).map_err(fault)?;
    Ok(new)
}

/// `x * factor + summand` of each channel of a layer's result.
struct Affine {
    layer: ValueId,
    factor: Vec<f64>,
    summand: Vec<f64>,
}

/// The axis of a layer's channels in its result, and their number; `None` where `v` is no layer with constant weights.
pub fn channels(graph: &Graph, v: ValueId) -> Option<(usize, usize)> {
    let (op, inputs) = graph.node(v)?;
    let w = graph.constant(*inputs.get(1)?)?;
    let rank = graph.ty(v).rank();
    match op {
        Op::Conv2d(c) if c.post.is_empty() => match c.layout {
            Layout::Nchw => Some((1, w.shape()[0])),
            Layout::Nhwc => Some((3, w.shape()[0])),
        },
        // A batch of weight matrices has no channel of its own.
        Op::MatMul(m) if m.post.is_empty() && w.shape()[..w.shape().len() - 2].iter().all(|d| *d == 1) => {
            Some((rank - 1, *graph.ty(v).shape.last()?))
        }
        _ => None,
    }
}

fn affine(out: &Graph, value: &Value, inputs: &[ValueId], only_use: impl Fn(usize) -> bool) -> Option<Affine> {
    let Def::Node { op, .. } = &value.def else { return None };
    let reads = |i: usize| {
        let (axis, channels) = channels(out, inputs[i])?;
        let biased = match out.node(inputs[i])? {
            (Op::Conv2d(c), inputs) if c.bias => Some(inputs[2]),
            (Op::MatMul(m), inputs) if m.bias => Some(inputs[2]),
            _ => None,
        };
        let constant =
            out.ty(inputs[i]).dtype == mcc_ir::DType::F32 && biased.is_none_or(|b| out.constant(b).is_some());
        (constant && only_use(i)).then_some((inputs[i], axis, channels))
    };
    match op {
        Op::BatchNorm { epsilon } => {
            let (layer, axis, channels) = reads(0).filter(|(_, axis, _)| *axis == 1)?;
            debug_assert_eq!(axis, 1);
            let p: Vec<Vec<f32>> =
                inputs[1..5].iter().map(|v| out.constant(*v).map(Tensor::to_f32)).collect::<Option<_>>()?;
            let factor: Vec<f64> =
                (0..channels).map(|c| p[0][c] as f64 / (p[3][c] as f64 + epsilon.0 as f64).sqrt()).collect();
            let summand = (0..channels).map(|c| p[1][c] as f64 - p[2][c] as f64 * factor[c]).collect();
            Some(Affine { layer, factor, summand })
        }
        Op::Map(steps) => {
            let [Step::Binary { op, swapped, dequant: None }] = steps.as_slice() else { return None };
            let (first, second) = (reads(0), inputs.get(1).and_then(|_| reads(1)));
            let ((layer, axis, channels), other) = match (first, second) {
                (Some(l), _) if out.constant(inputs[1]).is_some() => (l, inputs[1]),
                (_, Some(l)) if out.constant(inputs[0]).is_some() => (l, inputs[0]),
                _ => return None,
            };
            let operand_first = (other == inputs[0]) != *swapped;
            if out.ty(layer) != &value.ty {
                return None;
            }
            let k = per_channel(out.constant(other)?, value.ty.rank(), axis, channels)?;
            let ones = vec![1.0; channels];
            let (factor, summand) = match op {
                Binary::Add => (ones, k),
                Binary::Sub if !operand_first => (ones, k.into_iter().map(|v| -v).collect()),
                Binary::Mul => (k, vec![0.0; channels]),
                Binary::Div if !operand_first && k.iter().all(|v| *v != 0.0) => {
                    (k.into_iter().map(|v| 1.0 / v).collect(), vec![0.0; channels])
                }
                _ => return None,
            };
            Some(Affine { layer, factor, summand })
        }
        _ => None,
    }
}

/// A constant's value for each channel, where it has one for each, or one for all.
fn per_channel(t: &Tensor, rank: usize, axis: usize, channels: usize) -> Option<Vec<f64>> {
    let shape = t.shape();
    let along = |(i, d): (usize, &usize)| *d == 1 || (i + rank - shape.len() == axis && *d == channels);
    if shape.len() > rank || !shape.iter().enumerate().all(along) {
        return None;
    }
    let values = t.to_f64();
    Some(if values.len() == 1 { vec![values[0]; channels] } else { values })
}

fn fold(out: &mut Graph, a: Affine, origin: &Origin) -> IrResult<ValueId> {
    let Affine { layer, factor, summand } = a;
    let (op, inputs) = out.node(layer).map(|(op, inputs)| (op.clone(), inputs.to_vec())).expect("a layer is a node");
    let w = out.constant(inputs[1]).expect("layers have constant weights");
    let (w_ty, w_origin) = (w.ty().clone(), out.value(inputs[1]).origin.clone());
    let map = WeightMap::of(&op, &w_ty.shape);
    let scaled: Vec<f32> = w.to_f64().iter().enumerate().map(|(i, v)| (v * factor[map.channel(i)]) as f32).collect();
    let old_bias = inputs.get(2).and_then(|b| out.constant(*b)).map(Tensor::to_f64);
    let bias: Vec<f32> =
        (0..factor.len()).map(|c| (old_bias.as_ref().map_or(0.0, |b| b[c]) * factor[c] + summand[c]) as f32).collect();
    let origin = join_origins([&out.value(layer).origin, origin]);
    let w = if factor.iter().all(|f| *f == 1.0) {
        inputs[1]
    } else {
        out.add_const(Tensor::new(w_ty.shape, &scaled), w_origin)
    };
    let bias = out.add_const(Tensor::new([bias.len()], &bias), origin.clone());
    out.add_node(with_bias(op), vec![inputs[0], w, bias], origin)
}

/// A layer that has a bias.
pub fn with_bias(mut op: Op) -> Op {
    match &mut op {
        Op::Conv2d(c) => c.bias = true,
        Op::MatMul(m) => m.bias = true,
        _ => {}
    }
    op
}

/// Where an element of a layer's weights belongs: its output channel, and its place in that channel's row.
#[derive(Clone, Copy, Debug)]
pub struct WeightMap {
    /// Axis of the channels in the weights.
    pub axis: usize,
    pub channels: usize,
    pub depth: usize,
    /// Whether rows are the columns of a stored matrix `[depth, channels]`.
    turned: bool,
}

impl WeightMap {
    /// Of a convolution or a product.
    pub fn of(op: &Op, shape: &[usize]) -> WeightMap {
        let elements: usize = shape.iter().product();
        let rank = shape.len();
        let (axis, turned) = match op {
            Op::MatMul(m) if m.trans_b => (rank - 2, false),
            Op::MatMul(_) => (rank - 1, true),
            _ => (0, false),
        };
        let channels = shape[axis];
        WeightMap { axis, channels, depth: elements / channels.max(1), turned }
    }

    /// The channel of the stored element `i`.
    pub fn channel(&self, i: usize) -> usize {
        if self.turned { i % self.channels } else { i / self.depth }
    }

    /// Stored elements in the order of rows, `channels * depth`.
    pub fn rows<T: Copy>(&self, stored: &[T]) -> Vec<T> {
        match self.turned {
            true => (0..stored.len()).map(|i| stored[i % self.depth * self.channels + i / self.depth]).collect(),
            false => stored.to_vec(),
        }
    }

    /// The inverse of [`WeightMap::rows`].
    pub fn stored<T: Copy>(&self, rows: &[T]) -> Vec<T> {
        match self.turned {
            true => (0..rows.len()).map(|i| rows[i % self.channels * self.depth + i / self.channels]).collect(),
            false => rows.to_vec(),
        }
    }
}
