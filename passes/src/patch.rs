//! Patch-wise stages: a part of a graph is computed strip by strip.
//!
//! Early stages of image networks have the largest tensors. Where a chain of convolutions, poolings and element-wise
//! operators lies between one tensor and another, the latter can be computed in strips of rows, each by small operators of
//! its own on the rows of the source that it needs; only the source and the result are ever whole. Rows that neighbouring
//! strips both need are computed twice. Source: Lin, Chen, Cai, Gan and Han, "MCUNetV2: Memory-Efficient Patch-based
//! Inference for Tiny Deep Learning", NeurIPS 2021, with rows in place of tiles: rows are pieces of memory.
//!
//! Every element is computed from the same elements in the same order as before: the change is exact, for floats too.

use mcc_ir::graph::{Graph, Value, ValueId};
use mcc_ir::op::{Layout, Op};
use mcc_ir::{Error, ops};
use std::collections::HashMap;

/// The most operators of a part that is split.
const MAX_OPERATORS: usize = 40;

/// A part of a graph between two values that can be split in strips.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    /// What all of it is computed from, constants aside.
    pub source: ValueId,
    /// The only value of it that anything else reads.
    pub cut: ValueId,
    /// Its operators in order, the cut last.
    pub nodes: Vec<ValueId>,
    /// The axis of the rows of the source and of each operator's result.
    axes: HashMap<ValueId, usize>,
}

/// The rows `from..to` that one operator reads of an input.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Read {
    input: usize,
    from: usize,
    to: usize,
}

/// A strip of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    pub from: usize,
    pub to: usize,
}

impl Rows {
    fn join(self, from: usize, to: usize) -> Rows {
        Rows { from: self.from.min(from), to: self.to.max(to) }
    }
}

fn layout_axis(layout: Layout) -> usize {
    match layout {
        Layout::Nhwc => 1,
        Layout::Nchw => 2,
    }
}

/// The axis of the rows of a value, as the operators behind it have it; `None` where none says so.
fn axis_of(graph: &Graph, id: ValueId) -> Option<usize> {
    let (mut id, mut steps) = (id, 0);
    loop {
        let (op, inputs) = graph.node(id)?;
        match op {
            Op::Conv2d(o) => return Some(layout_axis(o.layout)),
            Op::Pool2d(o) => return Some(layout_axis(o.layout)),
            Op::Map(_) if graph.ty(inputs[0]).shape == graph.ty(id).shape => id = inputs[0],
            _ => return None,
        }
        steps += 1;
        if steps > MAX_OPERATORS {
            return None;
        }
    }
}

/// For each input of an operator, the axis of its rows where it has them; `None` where the operator cannot be split. The
/// inputs after the `own` first are operands that broadcast.
fn input_axes(graph: &Graph, id: ValueId, axis: usize) -> Option<Vec<Option<usize>>> {
    let (op, inputs) = graph.node(id)?;
    let out = graph.ty(id);
    let (own, first) = match op {
        Op::Conv2d(o) if layout_axis(o.layout) == axis => (op.own_inputs()?, Some(axis)),
        Op::Pool2d(o) if layout_axis(o.layout) == axis => (1, Some(axis)),
        Op::Transpose { perm } => return Some(vec![Some(perm[axis])]),
        Op::Concat { axis: joined } if *joined != axis => return Some(vec![Some(axis); inputs.len()]),
        Op::Map(_) => (0, None),
        _ => return None,
    };
    let operand = |v: &ValueId| {
        let ty = graph.ty(*v);
        let at = (axis + ty.rank()).checked_sub(out.rank())?;
        (ty.shape[at] != 1 || out.shape[axis] == 1).then_some(at)
    };
    let axes = inputs.iter().enumerate().map(|(i, v)| match i {
        0 if own > 0 => first,
        i if i < own => None,
        _ => operand(v),
    });
    Some(axes.collect())
}

/// The rows of a window's input that some rows of its output need: from the first to the end, padding included.
fn window(rows: Rows, kernel: usize, stride: usize, dilation: usize, pad: usize) -> (i64, i64) {
    let from = (rows.from * stride) as i64 - pad as i64;
    let to = ((rows.to - 1) * stride + (kernel - 1) * dilation + 1) as i64 - pad as i64;
    (from, to)
}

/// The operator that computes some rows of a value, and what it reads; `None` where these rows see padding only.
fn strip(graph: &Graph, id: ValueId, rows: Rows, axes: &[Option<usize>]) -> Option<(Op, Vec<Read>)> {
    let (op, inputs) = graph.node(id)?;
    let mut op = op.clone();
    let mut first = (rows.from, rows.to);
    let height = |v: ValueId, axis: usize| graph.ty(v).shape[axis];
    let mut padded = |(from, to): (i64, i64), pad: &mut [usize; 4], height: usize| {
        (pad[0], pad[2]) = ((-from).max(0) as usize, (to - height as i64).max(0) as usize);
        first = (from.max(0) as usize, to.clamp(0, height as i64) as usize);
        first.0 < first.1
    };
    let holds = match &mut op {
        Op::Conv2d(o) => {
            let kernel = graph.ty(inputs[1]).shape[if o.layout == Layout::Nhwc { 1 } else { 2 }];
            let reach = window(rows, kernel, o.stride[0], o.dilation[0], o.pad[0]);
            padded(reach, &mut o.pad, height(inputs[0], axes[0]?))
        }
        Op::Pool2d(o) => {
            let reach = window(rows, o.kernel[0], o.stride[0], o.dilation[0], o.pad[0]);
            padded(reach, &mut o.pad, height(inputs[0], axes[0]?))
        }
        _ => true,
    };
    let windowed = matches!(op, Op::Conv2d(_) | Op::Pool2d(_));
    let read = |(input, axis): (usize, &Option<usize>)| {
        axis.map(|_| {
            let (from, to) = if windowed && input == 0 { first } else { (rows.from, rows.to) };
            Read { input, from, to }
        })
    };
    holds.then(|| (op, axes.iter().enumerate().filter_map(read).collect()))
}

impl Region {
    /// The part of a graph between two values; `None` where it cannot be split. `uses` are the graph's
    /// [use counts](Graph::use_counts).
    pub fn find(graph: &Graph, uses: &[usize], source: ValueId, cut: ValueId) -> Option<Region> {
        let mut axes = HashMap::from([(cut, axis_of(graph, cut)?)]);
        let (mut nodes, mut inner_uses) = (vec![], HashMap::new());
        let mut waiting = vec![cut];
        while let Some(id) = waiting.pop() {
            nodes.push(id);
            if nodes.len() > MAX_OPERATORS {
                return None;
            }
            let (_, inputs) = graph.node(id)?;
            let rows_of = input_axes(graph, id, axes[&id])?;
            for (v, rows) in inputs.iter().zip(rows_of) {
                let Some(axis) = rows else { continue };
                // What is read whole may come from anywhere; rows come from the source or the part itself.
                if *v < source {
                    return None;
                }
                *inner_uses.entry(*v).or_insert(0) += 1;
                match axes.get(v) {
                    Some(known) if *known != axis => return None,
                    Some(_) => {}
                    None => {
                        axes.insert(*v, axis);
                        if *v != source {
                            waiting.push(*v);
                        }
                    }
                }
            }
        }
        nodes.sort();
        let inside = |v: &ValueId| *v == cut || uses[v.index()] == inner_uses.get(v).copied().unwrap_or(0);
        let whole = axes.contains_key(&source) && nodes.iter().all(inside);
        whole.then_some(Region { source, cut, nodes, axes })
    }

    /// Rows of a value of the part.
    pub fn height(&self, graph: &Graph, id: ValueId) -> usize {
        graph.ty(id).shape[self.axes[&id]]
    }

    /// Bytes of one row of a value of the part.
    pub fn row_bytes(&self, graph: &Graph, id: ValueId) -> usize {
        graph.ty(id).bytes() / self.height(graph, id).max(1)
    }

    /// The rows of the cut that each of some strips computes: of equal height, the last one what is left.
    pub fn strips(&self, graph: &Graph, strips: usize) -> Vec<Rows> {
        let height = self.height(graph, self.cut);
        let rows = height.div_ceil(strips.max(1)).max(1);
        (0..height).step_by(rows).map(|from| Rows { from, to: (from + rows).min(height) }).collect()
    }

    /// The rows of the source and of each operator's result that a strip of the cut needs; `None` where an operator would
    /// see padding only.
    pub fn needs(&self, graph: &Graph, rows: Rows) -> Option<HashMap<ValueId, Rows>> {
        let mut needs = HashMap::from([(self.cut, rows)]);
        for &id in self.nodes.iter().rev() {
            let (_, inputs) = graph.node(id)?;
            let axes = input_axes(graph, id, self.axes[&id])?;
            let (_, reads) = strip(graph, id, needs[&id], &axes)?;
            for r in reads {
                let (from, to) = (r.from, r.to);
                needs.entry(inputs[r.input]).and_modify(|n| *n = n.join(from, to)).or_insert(Rows { from, to });
            }
        }
        Some(needs)
    }

    /// Multiply-accumulates of the part when it is computed in strips.
    pub fn macs(&self, graph: &Graph, needs: &[HashMap<ValueId, Rows>]) -> u64 {
        let of = |id: &ValueId| {
            let Some((op, inputs)) = graph.node(*id) else { return 0 };
            let types: Vec<_> = inputs.iter().map(|v| graph.ty(*v)).collect();
            let rows: usize = needs.iter().map(|n| n[id].to - n[id].from).sum();
            ops::macs(op, &types, graph.ty(*id)) * rows as u64 / self.height(graph, *id).max(1) as u64
        };
        self.nodes.iter().map(of).sum()
    }

    /// The graph with this part computed strip by strip; `None` where it cannot be.
    ///
    /// # Errors
    /// Where a strip is ill-typed: a fault of this pass.
    pub fn split(&self, graph: &Graph, strips: usize) -> Result<Option<Graph>, Error> {
        let strips = self.strips(graph, strips);
        let needs: Option<Vec<_>> = strips.iter().map(|rows| self.needs(graph, *rows)).collect();
        let Some(needs) = needs.filter(|n| n.len() > 1) else { return Ok(None) };
        let mut map: HashMap<ValueId, ValueId> = HashMap::new();
        let split = graph.rebuild(|out, id, value, inputs| {
            if let Some((_, old)) = graph.node(id) {
                map.extend(old.iter().copied().zip(inputs.iter().copied()));
            }
            if id != self.cut {
                // Nothing reads an operator of the part but the part.
                return match inputs.first() {
                    Some(any) if self.nodes.contains(&id) => Ok(*any),
                    _ => out.copy_value(value, inputs),
                };
            }
            let pieces: Result<Vec<_>, Error> = needs.iter().map(|needs| self.piece(graph, out, needs, &map)).collect();
            let axis = self.axes[&self.cut];
            out.add_node(Op::Concat { axis }, pieces?, value.origin.clone())
        })?;
        Ok(Some(split))
    }

    /// Adds one strip's operators and returns its rows of the cut.
    fn piece(
        &self,
        graph: &Graph,
        out: &mut Graph,
        needs: &HashMap<ValueId, Rows>,
        map: &HashMap<ValueId, ValueId>,
    ) -> Result<ValueId, Error> {
        let mut made: HashMap<ValueId, ValueId> = HashMap::new();
        for &id in &self.nodes {
            let Value { ty: _, origin, .. } = graph.value(id);
            let Some((_, inputs)) = graph.node(id) else { continue };
            let axes = input_axes(graph, id, self.axes[&id]).expect("found before");
            let (op, reads) = strip(graph, id, needs[&id], &axes).expect("found before");
            let mut new: Vec<ValueId> = Vec::with_capacity(inputs.len());
            for (i, v) in inputs.iter().enumerate() {
                let read = reads.iter().find(|r| r.input == i);
                new.push(match (read, made.get(v)) {
                    (None, _) => map[v],
                    (Some(r), Some(strip)) => {
                        let start = needs[v].from;
                        self.cut_rows(graph, out, *v, *strip, r.from - start, r.to - start)?
                    }
                    (Some(r), None) => self.cut_rows(graph, out, *v, map[v], r.from, r.to)?,
                });
            }
            made.insert(id, out.add_node(op, new, origin.clone())?);
        }
        Ok(made[&self.cut])
    }

    /// Rows of a new value that stands for `old`, or itself where that is all of it.
    fn cut_rows(
        &self,
        graph: &Graph,
        out: &mut Graph,
        old: ValueId,
        new: ValueId,
        from: usize,
        to: usize,
    ) -> Result<ValueId, Error> {
        let axis = self.axes[&old];
        let mut shape = out.ty(new).shape.clone();
        if from == 0 && to == shape[axis] {
            return Ok(new);
        }
        let mut start = vec![0; shape.len()];
        (start[axis], shape[axis]) = (from, to - from);
        let op = Op::Slice { step: vec![1; shape.len()], start, shape };
        out.add_node(op, vec![new], graph.value(old).origin.clone())
    }
}

#[cfg(test)]
mod tests;
