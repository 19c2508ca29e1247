//! The quantised graph, literally: QuantizeLinear and DequantizeLinear around float operators, as ONNX has it.

use super::histogram::Grid;
use super::prepare::with_bias;
use super::sites::{Layer, Sites};
use super::weights::{Levels, Rounded};
use crate::error::{Error, Result};
use mcc_ir::dtype::DType;
use mcc_ir::graph::{Def, Graph, Origin, ValueId};
use mcc_ir::op::Op;
use mcc_ir::types::QuantParams;
use mcc_ir::{Result as IrResult, Tensor, TensorType};
use std::collections::HashMap;

/// The integers of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerWeights {
    pub levels: Levels,
    pub rounded: Rounded,
    /// Whether all channels have one scale.
    pub shared: bool,
    /// The real bias of each channel.
    pub bias: Vec<f64>,
}

/// A quantised graph.
#[derive(Clone, Debug)]
pub struct Rewritten {
    pub graph: Graph,
    /// For each value of the float graph, the real numbers that stand for it: dequantised where it is rounded.
    pub values: Vec<Option<ValueId>>,
}

/// Largest bias of an accumulator: half of what 32 bits hold, the sums of products taking the other half.
const LARGEST_BIAS: f64 = (1u32 << 30) as f64;

/// Rounds the points of `sites` that `params` knows (by their class), and gives the layers in `weights` (by their value)
/// integer weights; other layers keep theirs.
///
/// # Errors
/// Only by a fault of this pass.
pub fn rewrite(
    graph: &Graph,
    sites: &Sites,
    params: &HashMap<ValueId, QuantParams>,
    grid: Grid,
    weights: &HashMap<ValueId, LayerWeights>,
) -> Result<Rewritten> {
    build(graph, sites, params, grid, weights).map_err(|source| Error::Pass { pass: "quantise", source })
}

fn build(
    graph: &Graph,
    sites: &Sites,
    params: &HashMap<ValueId, QuantParams>,
    grid: Grid,
    weights: &HashMap<ValueId, LayerWeights>,
) -> IrResult<Rewritten> {
    let live = graph.live();
    let mut out = Graph::new(graph.name.clone());
    let mut values: Vec<Option<ValueId>> = vec![None; graph.len()];
    for port in &graph.inputs {
        let new = out.add_input(port.name.clone(), graph.ty(port.value).clone());
        values[port.value.index()] = Some(new);
    }
    let mut points = vec![false; graph.len()];
    sites.points.iter().chain(&sites.moved).for_each(|v| points[v.index()] = true);
    let layers: HashMap<ValueId, &Layer> = sites.layers.iter().map(|l| (l.value, l)).collect();
    for (id, value) in graph.values() {
        if !live[id.index()] {
            continue;
        }
        let new = match &value.def {
            Def::Input(_) => values[id.index()].expect("inputs were added"),
            Def::Const(t) => out.add_const(t.clone(), value.origin.clone()),
            Def::Node { op, inputs } => {
                let new: Vec<ValueId> =
                    inputs.iter().map(|v| values[v.index()].expect("inputs come before their users")).collect();
                let layer = layers.get(&id).and_then(|l| Some((*l, weights.get(&id)?)));
                match layer {
                    Some((layer, w)) => {
                        let q = params.get(&sites.class(layer.x)).copied();
                        let origins = [layer.w, layer.bias.unwrap_or(id)].map(|v| graph.value(v).origin.clone());
                        let (weights, bias) = operands(&mut out, graph.ty(layer.w), layer, w, q, &origins)?;
                        out.add_node(with_bias(op.clone()), vec![new[0], weights, bias], value.origin.clone())?
                    }
                    None => out.add_node(op.clone(), new, value.origin.clone())?,
                }
            }
        };
        values[id.index()] = Some(match params.get(&sites.class(id)).filter(|_| points[id.index()]) {
            Some(q) => round(&mut out, new, *q, grid, &value.origin)?,
            None => new,
        });
    }
    for port in &graph.outputs {
        out.add_output(port.name.clone(), values[port.value.index()].expect("outputs are live"));
    }
    compacted(&out, values)
}

/// A graph without what nothing reads, and where the values in `values` are then.
pub(crate) fn compacted(graph: &Graph, values: Vec<Option<ValueId>>) -> IrResult<Rewritten> {
    let mut map = vec![None; graph.len()];
    let new = graph.rebuild(|new, id, value, inputs| {
        let v = new.copy_value(value, inputs)?;
        map[id.index()] = Some(v);
        Ok(v)
    })?;
    graph.inputs.iter().zip(&new.inputs).for_each(|(old, new)| map[old.value.index()] = Some(new.value));
    Ok(Rewritten { graph: new, values: values.into_iter().map(|v| v.and_then(|v| map[v.index()])).collect() })
}

/// `x` rounded to integers and read back.
fn round(out: &mut Graph, x: ValueId, q: QuantParams, grid: Grid, origin: &Origin) -> IrResult<ValueId> {
    let dtype = match grid {
        Grid::I8 => DType::I8,
        Grid::I16 => DType::I16,
    };
    let scale = out.add_const(Tensor::new([1], &[q.scale.0]), origin.clone());
    let zero = Tensor::from_i64(TensorType::new(dtype, [1]), &[q.zero_point as i64]);
    let zero = out.add_const(zero, origin.clone());
    let integers = out.add_node(Op::Quantize { axis: 0, dtype }, vec![x, scale, zero], origin.clone())?;
    out.add_node(Op::Dequantize { axis: 0 }, vec![integers, scale, zero], origin.clone())
}

/// Weights and bias of a layer as dequantised constants; the bias as a constant where the input is not rounded.
fn operands(
    out: &mut Graph,
    ty: &TensorType,
    layer: &Layer,
    w: &LayerWeights,
    x: Option<QuantParams>,
    [w_origin, b_origin]: &[Origin; 2],
) -> IrResult<(ValueId, ValueId)> {
    let (channels, depth) = (layer.map.channels, layer.map.depth);
    let dtype = match w.levels {
        Levels::Int8 => DType::I8,
        _ => DType::I4,
    };
    let mut levels: Vec<i64> = w.rounded.levels.iter().map(|q| *q as i64).collect();
    let mut scales = w.rounded.scales.clone();
    if let Some(q) = x {
        let unit = |c: usize| w.bias[c].abs() / q.scale.0 as f64;
        let largest = (0..channels).map(unit).fold(0.0, f64::max);
        for (c, scale) in scales.iter_mut().enumerate() {
            let row = &mut levels[c * depth..(c + 1) * depth];
            let unit = if w.shared { largest } else { unit(c) };
            if !w.shared && row.iter().all(|q| *q == 0) {
                // Nothing but the bias needs a scale.
                *scale = if unit > 0.0 { unit / (1u32 << 20) as f64 } else { 1.0 };
            } else if unit / *scale > LARGEST_BIAS {
                let coarse = unit / LARGEST_BIAS;
                row.iter_mut().for_each(|q| *q = (*q as f64 * *scale / coarse).round_ties_even() as i64);
                *scale = coarse;
            }
        }
    }
    let scales: Vec<f32> = scales.iter().map(|s| (*s as f32).max(f32::MIN_POSITIVE)).collect();
    let integers = Tensor::from_i64(TensorType::new(dtype, ty.shape.clone()), &layer.map.stored(&levels));
    let integers = out.add_const(integers, w_origin.clone());
    let count = if w.shared { 1 } else { channels };
    let scale = out.add_const(Tensor::new([count], &scales[..count]), w_origin.clone());
    let zeros = |dtype| Tensor::from_i64(TensorType::new(dtype, [count]), &vec![0; count]);
    let zero = out.add_const(zeros(dtype), w_origin.clone());
    let dequantize = Op::Dequantize { axis: layer.map.axis };
    let weights = out.add_node(dequantize, vec![integers, scale, zero], w_origin.clone())?;
    let Some(q) = x else {
        let bias: Vec<f32> = w.bias.iter().map(|b| *b as f32).collect();
        return Ok((weights, out.add_const(Tensor::new([channels], &bias), b_origin.clone())));
    };
    let units: Vec<f32> = scales.iter().map(|s| s * q.scale.0).collect();
    let bias: Vec<i32> = w.bias.iter().zip(&units).map(|(b, u)| (b / *u as f64).round_ties_even() as i32).collect();
    let bias = out.add_const(Tensor::new([channels], &bias), b_origin.clone());
    let scale = out.add_const(Tensor::new([count], &units[..count]), b_origin.clone());
    let zero = out.add_const(zeros(DType::I32), b_origin.clone());
    let bias = out.add_node(Op::Dequantize { axis: 0 }, vec![bias, scale, zero], b_origin.clone())?;
    Ok((weights, bias))
}
