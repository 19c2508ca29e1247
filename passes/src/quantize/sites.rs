//! What of a graph becomes integer: layers with constant weights, and the activations that lead to them.

use super::columns::Rows;
use super::prepare::{WeightMap, channels};
use crate::error::{Error, Result};
use mcc_ir::dtype::DType;
use mcc_ir::graph::{Def, Graph, Value, ValueId};
use mcc_ir::op::{Binary, Op, PadMode, PoolKind, ReduceKind, Step, Unary};

/// A convolution or a product with constant weights.
#[derive(Clone, Debug)]
pub struct Layer {
    pub value: ValueId,
    /// The result after an activation that is part of the layer, else `value`.
    pub end: ValueId,
    pub x: ValueId,
    pub w: ValueId,
    pub bias: Option<ValueId>,
    /// What an addition joins with the result and nothing else does, where it is computed before the layer: the layer may
    /// make up for errors in it.
    pub skip: Option<ValueId>,
    pub map: WeightMap,
    pub rows: Rows,
}

/// What becomes integer.
#[derive(Clone, Debug)]
pub struct Sites {
    /// In the graph's order.
    pub layers: Vec<Layer>,
    /// Activations that are rounded, in the graph's order.
    pub points: Vec<ValueId>,
    /// What only moves elements of rounded activations. Rounding it changes nothing, and tells other tools that it may be
    /// done on integers.
    pub moved: Vec<ValueId>,
    /// For each value, the first of those that share its scale and zero point: operators that only move elements keep
    /// them, and what is concatenated shares them.
    class: Vec<ValueId>,
}

impl Sites {
    /// Finds them. Nodes whose names are in `keep` stay in floating point.
    ///
    /// # Errors
    /// [`Error::UnknownNode`] for a name in `keep` that no node has.
    pub fn of(graph: &Graph, keep: &[String]) -> Result<Sites> {
        let named = |v: &Value, name: &String| v.origin.iter().any(|n| **n == **name);
        let nodes = || graph.values().filter(|(_, v)| matches!(v.def, Def::Node { .. }));
        if let Some(name) = keep.iter().find(|name| !nodes().any(|(_, v)| named(v, name))) {
            let layers = nodes().filter(|(id, _)| channels(graph, *id).is_some());
            let known = layers.filter_map(|(_, v)| v.origin.first()).map(|n| format!("{n:?}")).collect::<Vec<_>>();
            return Err(Error::UnknownNode { name: name.clone(), known: known.join(", ") });
        }
        let kept: Vec<bool> = graph.values().map(|(_, v)| keep.iter().any(|name| named(v, name))).collect();
        let consumers = consumers(graph);
        let only_consumer = |v: ValueId| match consumers[v.index()].as_slice() {
            [Some(c)] => Some(*c),
            _ => None,
        };
        let mut layers = Vec::new();
        let mut layer_end = vec![false; graph.len()];
        for (value, v) in graph.values() {
            if let Some(mut layer) = layer(graph, value, v).filter(|_| !kept[value.index()]) {
                if let Some(c) = only_consumer(value).filter(|c| !kept[c.index()] && is_activation(graph, *c)) {
                    layer.end = c;
                }
                layer.skip = only_consumer(value).and_then(|c| joined(graph, c, value)).filter(|s| *s < value);
                layer_end[layer.end.index()] = true;
                layers.push(layer);
            }
        }
        let float = |v: ValueId| graph.ty(v).dtype == DType::F32 && graph.constant(v).is_none();
        // Whether a value runs into the next element-wise operator without being stored.
        let runs_on = |v: ValueId| {
            let map = |v: ValueId| matches!(graph.node(v), Some((Op::Map(_), _)));
            only_consumer(v).is_some_and(|c| {
                let inside = layers.iter().any(|l| l.value == v && l.end == c);
                let chain = map(v) && map(c) && !layer_end[v.index()] && graph.ty(v).shape == graph.ty(c).shape;
                inside || chain
            })
        };
        let mut wanted = vec![false; graph.len()];
        for layer in &layers {
            wanted[layer.x.index()] = true;
        }
        for (id, value) in graph.values().rev() {
            let Def::Node { op, inputs } = &value.def else { continue };
            if !wanted[id.index()] || kept[id.index()] {
                continue;
            }
            let passes = match op {
                // Layers want their input anyway; the operands of other products stay real.
                Op::Conv2d(_) | Op::MatMul(_) | Op::LayerNorm(_) | Op::ConvTranspose2d(_) => false,
                _ => true,
            };
            inputs.iter().filter(|v| passes && float(**v)).for_each(|v| wanted[v.index()] = true);
        }
        let class = classes(graph);
        let rounded = |v: ValueId| wanted[v.index()] && float(v) && !kept[v.index()] && !runs_on(v);
        let all = graph.values().map(|(id, _)| id).filter(|v| rounded(*v));
        let (moved, points): (Vec<ValueId>, Vec<ValueId>) = all.partition(|v| moves(graph, *v));
        Ok(Sites { layers, points, moved, class })
    }

    /// The value that stands for all that share scale and zero point with `v`.
    pub fn class(&self, v: ValueId) -> ValueId {
        self.class[v.index()]
    }
}

/// The nodes that read each value; `None` for an output of the graph.
fn consumers(graph: &Graph) -> Vec<Vec<Option<ValueId>>> {
    let mut all = vec![Vec::new(); graph.len()];
    for (id, value) in graph.values() {
        if let Def::Node { inputs, .. } = &value.def {
            inputs.iter().for_each(|v| all[v.index()].push(Some(id)));
        }
    }
    graph.outputs.iter().for_each(|p| all[p.value.index()].push(None));
    all
}

fn layer(graph: &Graph, value: ValueId, v: &Value) -> Option<Layer> {
    let (op, inputs) = graph.node(value)?;
    channels(graph, value)?;
    let (x, w) = (inputs[0], inputs[1]);
    let x_ty = graph.ty(x);
    let bias = match op {
        Op::Conv2d(c) if c.bias => Some(inputs[2]),
        Op::MatMul(m) if m.bias => Some(inputs[2]),
        _ => None,
    };
    let constant_bias = bias.is_none_or(|b| graph.constant(b).is_some());
    if v.ty.dtype != DType::F32 || graph.constant(x).is_some() || !constant_bias || v.ty.elements() == 0 {
        return None;
    }
    let shape = graph.ty(w).shape.clone();
    let map = WeightMap::of(op, &shape);
    let rows = match op {
        Op::Conv2d(c) => {
            let kernel = match c.layout {
                mcc_ir::op::Layout::Nchw => [shape[2], shape[3]],
                mcc_ir::op::Layout::Nhwc => [shape[1], shape[2]],
            };
            Rows::Conv { op: c.clone(), input: x_ty.shape.clone(), output: v.ty.shape.clone(), kernel }
        }
        _ => Rows::MatMul { depth: map.depth, count: x_ty.elements() / map.depth.max(1) },
    };
    (map.depth > 0).then_some(Layer { value, end: value, x, w, bias, skip: None, map, rows })
}

/// The other side of an addition of two values of one type.
fn joined(graph: &Graph, sum: ValueId, v: ValueId) -> Option<ValueId> {
    let (Op::Map(steps), &[a, b]) = graph.node(sum)? else { return None };
    let adds = matches!(steps.as_slice(), [Step::Binary { op: Binary::Add, dequant: None, .. }]);
    let other = if a == v { b } else { a };
    (adds && a != b && graph.constant(other).is_none() && graph.ty(a) == graph.ty(b)).then_some(other)
}

/// Activations that an integer product clamps to at no cost.
fn is_activation(graph: &Graph, v: ValueId) -> bool {
    matches!(graph.node(v), Some((Op::Map(steps), _))
        if matches!(steps.as_slice(), [Step::Unary(Unary::Relu | Unary::Clip(..))]))
}

/// Whether an operator only moves or selects elements of its first input, so that scale and zero point stay.
fn moves(graph: &Graph, v: ValueId) -> bool {
    let Some((op, inputs)) = graph.node(v) else { return false };
    match op {
        Op::Reshape { .. } | Op::Transpose { .. } | Op::Slice { .. } | Op::Broadcast { .. } | Op::Gather { .. } => true,
        Op::Pool2d(p) => p.kind == PoolKind::Max && p.post.is_empty(),
        Op::Reduce(r) => matches!(r.kind, ReduceKind::Max | ReduceKind::Min) && r.post.is_empty(),
        Op::Pad { mode: PadMode::Constant, .. } => {
            graph.constant(inputs[1]).is_some_and(|t| t.to_f64().iter().all(|v| *v == 0.0))
        }
        Op::Pad { .. } => true,
        Op::Concat { .. } => inputs.iter().all(|v| graph.constant(*v).is_none()),
        _ => false,
    }
}

fn classes(graph: &Graph) -> Vec<ValueId> {
    let mut parent: Vec<ValueId> = graph.values().map(|(id, _)| id).collect();
    fn root(parent: &[ValueId], mut v: ValueId) -> ValueId {
        while parent[v.index()] != v {
            v = parent[v.index()];
        }
        v
    }
    for (id, value) in graph.values() {
        let Def::Node { op, inputs } = &value.def else { continue };
        if value.ty.dtype != DType::F32 || !moves(graph, id) {
            continue;
        }
        let moved = if matches!(op, Op::Concat { .. }) { inputs.len() } else { 1 };
        for v in &inputs[..moved] {
            let (a, b) = (root(&parent, id), root(&parent, *v));
            parent[a.max(b).index()] = a.min(b);
        }
    }
    (0..parent.len()).map(|i| root(&parent, ValueId(i as u32))).collect()
}
