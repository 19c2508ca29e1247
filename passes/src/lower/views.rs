//! Slices and concatenations that move no data: a slice that is one piece of its input is a part of that buffer, and what
//! is joined along the outermost dimension is written to its place by the kernels that compute it.

use super::{Io, Lowering};
use crate::error::Result;
use mcc_ir::graph::{Graph, Origin, ValueId};
use mcc_ir::op::Op;
use mcc_ir::plan::{Buffer, BufferId, BufferKind, Within};
use mcc_ir::types::TensorType;

/// The elements before a slice, where it is one piece of its input.
fn slice_start(x: &TensorType, start: &[usize], step: &[isize], shape: &[usize]) -> Option<usize> {
    let forward = step.iter().zip(shape).all(|(step, n)| *step == 1 || *n == 1);
    let outer = shape.iter().position(|&n| n > 1).unwrap_or(shape.len());
    let whole = shape.iter().zip(&x.shape).skip(outer + 1).all(|(n, of)| n == of);
    let elements: usize = shape.iter().product();
    let at = start.iter().zip(&x.shape).fold(0, |at, (start, n)| at * n + start);
    (forward && whole && elements > 0 && x.dtype.is_byte_sized()).then_some(at)
}

/// Whether inputs joined along an axis follow one another in memory.
fn joins_pieces(out: &TensorType, axis: usize) -> bool {
    out.shape[..axis].iter().product::<usize>() == 1 && out.elements() > 0 && out.dtype.is_byte_sized()
}

/// Whether a value can be had without a copy, if its alignment allows it.
pub fn moves_nothing(graph: &Graph, id: ValueId) -> bool {
    match graph.node(id) {
        Some((Op::Reshape { .. }, _)) => true,
        Some((Op::Slice { start, step, shape }, inputs)) => {
            slice_start(graph.ty(inputs[0]), start, step, shape).is_some()
        }
        Some((Op::Concat { axis }, _)) => joins_pieces(graph.ty(id), *axis),
        _ => false,
    }
}

impl Lowering<'_> {
    /// The buffer of a value that is a part of another's, or is made of parts; `None` where a kernel has to fill it.
    pub(super) fn view(&mut self, id: ValueId, op: &Op, inputs: &[ValueId]) -> Result<Option<BufferId>> {
        match op {
            Op::Slice { start, step, shape } => {
                let at = slice_start(self.maker.graph.ty(inputs[0]), start, step, shape);
                Ok(at.and_then(|at| self.slice(id, inputs[0], at)))
            }
            Op::Concat { axis } if joins_pieces(self.maker.graph.ty(id), *axis) => self.join(id, inputs),
            _ => Ok(None),
        }
    }

    fn slice(&mut self, id: ValueId, input: ValueId, elements: usize) -> Option<BufferId> {
        let root = self.maker.roots[input.index()];
        let whole = *self.buffers_of.get(&root)?;
        let Buffer { kind, first, within, .. } = self.buffers[whole.index()];
        let outside = self.options.io == Io::Separate && (kind != BufferKind::Value || self.is_output(root));
        let ty = self.maker.graph.ty(id);
        let at = elements * (ty.bytes() / ty.elements());
        if outside || !at.is_multiple_of(self.maker.target.alignment) {
            return None;
        }
        let part = self.buffer(BufferKind::Value, ty.bytes(), self.maker.graph.value(id).origin.clone());
        // While a kernel fills the whole, that stands for its parts: it may lie over what the kernel reads.
        let filled_there = kind == BufferKind::Value && within.is_none() && !self.is_joined(whole);
        let first = first + usize::from(filled_there);
        let buffer = &mut self.buffers[part.index()];
        (buffer.first, buffer.last, buffer.within) = (first, first, Some(Within { whole, at }));
        Some(part)
    }

    fn join(&mut self, id: ValueId, inputs: &[ValueId]) -> Result<Option<BufferId>> {
        let graph = self.maker.graph;
        let mut places = Vec::with_capacity(inputs.len());
        let mut at = 0;
        for v in inputs {
            places.push(at);
            at += graph.ty(*v).bytes();
        }
        let aligned = places.iter().all(|at| at.is_multiple_of(self.maker.target.alignment));
        let outside = self.options.io == Io::Separate && self.is_output(id);
        let own: Vec<Option<BufferId>> = inputs.iter().enumerate().map(|(i, v)| self.piece(*v, &inputs[..i])).collect();
        let bytes = |v: &ValueId| graph.ty(*v).bytes();
        let kept: usize = inputs.iter().zip(&own).filter(|(_, own)| own.is_some()).map(|(v, _)| bytes(v)).sum();
        // One kernel copies several pieces better than several do.
        if !aligned || outside || 2 * kept < at {
            return Ok(None);
        }
        let mut parts = Vec::with_capacity(inputs.len());
        for (v, own) in inputs.iter().zip(own) {
            let origin: Origin = graph.value(*v).origin.clone();
            parts.push(match own {
                Some(buffer) => buffer,
                None if bytes(v) == 0 => continue,
                None => self.emit(None, Op::Map(vec![]), &[*v], graph.ty(*v), origin)?,
            });
        }
        let whole = self.buffer(BufferKind::Value, at, graph.value(id).origin.clone());
        // The parts are there when the last of them is filled; from then on the whole is.
        let next = self.kernels.len();
        let buffer = &mut self.buffers[whole.index()];
        (buffer.first, buffer.last) = (next, next);
        let places = places.into_iter().zip(inputs).filter(|(_, v)| bytes(v) > 0).map(|(at, _)| at);
        for (part, at) in parts.iter().zip(places) {
            self.buffers[part.index()].within = Some(Within { whole, at });
        }
        self.joined.push((whole, parts));
        Ok(Some(whole))
    }

    /// The buffer of a value that can become a part: one that kernels fill and that is nothing else yet.
    fn piece(&self, v: ValueId, before: &[ValueId]) -> Option<BufferId> {
        let root = self.maker.roots[v.index()];
        let buffer = *self.buffers_of.get(&root)?;
        let b = &self.buffers[buffer.index()];
        let twice = before.iter().any(|other| self.maker.roots[other.index()] == root);
        let free = b.kind == BufferKind::Value && b.within.is_none() && !twice && !self.is_output(root);
        (free && b.bytes > 0).then_some(buffer)
    }

    fn is_output(&self, root: ValueId) -> bool {
        self.maker.graph.outputs.iter().any(|p| self.maker.roots[p.value.index()] == root)
    }

    fn is_joined(&self, buffer: BufferId) -> bool {
        self.joined.iter().any(|(whole, _)| *whole == buffer)
    }

    /// Parts live until what is made of them does, in the end. `end` is the last kernel.
    pub(super) fn keep_parts(&mut self, end: usize) {
        // What nothing reads may begin after the end.
        for buffer in &mut self.buffers {
            (buffer.first, buffer.last) = (buffer.first.min(end), buffer.last.min(end));
        }
        // A whole that is a part itself was made before the one that it is a part of.
        for (whole, parts) in self.joined.iter().rev() {
            let whole = &self.buffers[whole.index()];
            let last = if whole.within.is_some() { whole.last } else { whole.first.saturating_sub(1) };
            for part in parts {
                let buffer = &mut self.buffers[part.index()];
                buffer.last = buffer.last.max(last);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Io, lower};
    use super::*;
    use mcc_ir::graph::Origin;
    use mcc_ir::op::Unary;
    use mcc_ir::plan::{Plan, interp};
    use mcc_ir::{DType, Target, Tensor, eval};

    fn plan_of(graph: &Graph, io: Io) -> Plan {
        let target = Target::parse("name = 'core'\ndescription = ''\nbackend = 'c'\nalignment = 4").unwrap();
        let plan = lower(graph, &target, &[], io).unwrap();
        let inputs: Vec<Tensor> = graph
            .inputs
            .iter()
            .map(|p| {
                let ty = graph.ty(p.value);
                let values: Vec<f32> = (0..ty.elements()).map(|i| (i * 7 % 23) as f32 - 11.0).collect();
                Tensor::new(ty.shape.clone(), &values)
            })
            .collect();
        assert_eq!(interp::run(&plan, &inputs), eval::run(graph, &inputs).unwrap());
        plan
    }

    fn unary(graph: &mut Graph, u: Unary, x: ValueId) -> ValueId {
        graph.add_node(Op::unary(u), vec![x], Origin::default()).unwrap()
    }

    fn rows(graph: &mut Graph, x: ValueId, from: usize, to: usize) -> ValueId {
        let mut shape = graph.ty(x).shape.clone();
        let mut start = vec![0; shape.len()];
        (start[1], shape[1]) = (from, to - from);
        let op = Op::Slice { step: vec![1; shape.len()], start, shape };
        graph.add_node(op, vec![x], Origin::default()).unwrap()
    }

    fn names(plan: &Plan) -> Vec<&'static str> {
        plan.kernels.iter().map(|k| k.op.name()).collect()
    }

    /// Rows of an input, with an overlap, through an operator each and joined again.
    fn halves(width: usize) -> Graph {
        let mut g = Graph::new("halves");
        let x = g.add_input("x", TensorType::new(DType::F32, [1, 8, width, 2]));
        let (upper, lower) = (rows(&mut g, x, 0, 5), rows(&mut g, x, 3, 8));
        let (upper, lower) = (unary(&mut g, Unary::Abs, upper), unary(&mut g, Unary::Neg, lower));
        let y = g.add_node(Op::Concat { axis: 1 }, vec![upper, lower], Origin::default()).unwrap();
        let y = unary(&mut g, Unary::Relu, y);
        g.add_output("y", y);
        g
    }

    #[test]
    fn rows_are_cut_and_joined_in_place() {
        let plan = plan_of(&halves(3), Io::Arena);
        assert_eq!(names(&plan), ["abs", "neg", "relu"]);
        // What the caller keeps is not cut.
        assert_eq!(names(&plan_of(&halves(3), Io::Separate)), ["slice", "slice", "abs", "neg", "relu"]);
    }

    #[test]
    fn columns_are_copied() {
        let mut g = Graph::new("columns");
        let x = g.add_input("x", TensorType::new(DType::F32, [1, 4, 6]));
        let mut half = |from| {
            let op = Op::Slice { start: vec![0, 0, from], step: vec![1; 3], shape: vec![1, 4, 3] };
            let v = g.add_node(op, vec![x], Origin::default()).unwrap();
            unary(&mut g, Unary::Abs, v)
        };
        let (a, b) = (half(0), half(3));
        let y = g.add_node(Op::Concat { axis: 2 }, vec![b, a], Origin::default()).unwrap();
        g.add_output("y", y);
        assert_eq!(names(&plan_of(&g, Io::Arena)), ["slice", "abs", "slice", "abs", "concat"]);
    }

    /// One value twice, an input of the graph and an output of it cannot be parts; the rest can.
    #[test]
    fn what_is_needed_elsewhere_is_copied_to_its_place() {
        let mut g = Graph::new("parts");
        let x = g.add_input("x", TensorType::new(DType::F32, [1, 2, 2]));
        let large = g.add_input("large", TensorType::new(DType::F32, [1, 20, 2]));
        let (a, b, out) =
            (unary(&mut g, Unary::Abs, large), unary(&mut g, Unary::Neg, x), unary(&mut g, Unary::Relu, x));
        let inner = g.add_node(Op::Concat { axis: 1 }, vec![a, b], Origin::default()).unwrap();
        let y = g.add_node(Op::Concat { axis: 1 }, vec![b, inner, b, x, out], Origin::default()).unwrap();
        g.add_output("y", y);
        g.add_output("out", out);
        let plan = plan_of(&g, Io::Arena);
        let copies = plan.kernels.iter().filter(|k| k.op == Op::Map(vec![])).count();
        assert_eq!((copies, names(&plan).contains(&"concat")), (4, false));
        assert!(names(&plan_of(&g, Io::Separate)).contains(&"concat"));
    }

    #[test]
    fn a_part_that_is_an_output_has_memory_of_its_own() {
        let mut g = Graph::new("slice");
        let x = g.add_input("x", TensorType::new(DType::F32, [1, 6, 2]));
        let y = unary(&mut g, Unary::Abs, x);
        let part = {
            let op = Op::Slice { start: vec![0, 2, 0], step: vec![1; 3], shape: vec![1, 3, 2] };
            g.add_node(op, vec![y], Origin::default()).unwrap()
        };
        let z = unary(&mut g, Unary::Neg, part);
        g.add_output("part", part);
        g.add_output("z", z);
        let plan = plan_of(&g, Io::Arena);
        assert_eq!(plan.kernels.iter().filter(|k| k.op == Op::Map(vec![])).count(), 1);
    }

    /// Pieces that do not begin at a multiple of the alignment are copied.
    #[test]
    fn places_are_aligned() {
        let mut g = Graph::new("odd");
        let x = g.add_input("x", TensorType::new(DType::U8, [1, 6, 1]));
        let mut cast = |from| {
            let v = rows(&mut g, x, from, from + 2);
            let op = Op::Slice { start: vec![0, 1, 0], step: vec![1, -1, 1], shape: vec![1, 2, 1] };
            g.add_node(op, vec![v], Origin::default()).unwrap()
        };
        let (a, b) = (cast(2), cast(4));
        let y = g.add_node(Op::Concat { axis: 1 }, vec![a, b], Origin::default()).unwrap();
        g.add_output("y", y);
        let target = Target::parse("name = 'core'\ndescription = ''\nbackend = 'c'\nalignment = 4").unwrap();
        let plan = lower(&g, &target, &[], Io::Arena).unwrap();
        // Only the rows from 4 on begin at a multiple of 4.
        assert_eq!(names(&plan), ["slice", "slice", "slice", "concat"]);
    }
}
