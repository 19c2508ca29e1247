//! The order in which kernels run.

use super::views::moves_nothing;
use mcc_ir::graph::{Def, Graph, ValueId};
use mcc_ir::op::Op;
use std::collections::{HashMap, HashSet};

/// The greedy order takes time in the square of the operators; larger graphs keep their own order.
const GREEDY_LIMIT: usize = 4000;

/// An order of the live operators (reshapes left out) that respects data flow: the graph's own, or a greedy one that
/// frees memory early, whichever has the lower peak of live bytes.
pub fn order(graph: &Graph, roots: &[ValueId]) -> Vec<ValueId> {
    let live = graph.live();
    let given: Vec<ValueId> = graph
        .values()
        .filter(|(id, v)| {
            live[id.index()] && matches!(&v.def, Def::Node { op, .. } if !matches!(op, Op::Reshape { .. }))
        })
        .map(|(id, _)| id)
        .collect();
    if given.len() > GREEDY_LIMIT {
        return given;
    }
    let flow = Flow::new(graph, roots, &given);
    let greedy = flow.greedy(&given);
    if flow.peak(&greedy) < flow.peak(&given) { greedy } else { given }
}

/// For each value, those whose memory holds it: itself, or what a view of others is made of. Constants have none.
fn sources(graph: &Graph) -> Vec<Vec<ValueId>> {
    let mut sources: Vec<Vec<ValueId>> = Vec::with_capacity(graph.len());
    for (id, value) in graph.values() {
        sources.push(match &value.def {
            Def::Const(_) => vec![],
            Def::Node { inputs, .. } if moves_nothing(graph, id) => {
                let mut all: Vec<ValueId> = inputs.iter().flat_map(|v| sources[v.index()].iter().copied()).collect();
                all.sort();
                all.dedup();
                all
            }
            _ => vec![id],
        });
    }
    sources
}

/// Who reads whose memory.
struct Flow<'a> {
    graph: &'a Graph,
    /// Distinct values whose memory each operator reads, constants left out.
    reads: HashMap<ValueId, Vec<ValueId>>,
    /// Operators and inputs of the graph that have to come before each operator.
    needs: HashMap<ValueId, Vec<ValueId>>,
    readers: HashMap<ValueId, usize>,
    outputs: HashSet<ValueId>,
}

impl<'a> Flow<'a> {
    fn new(graph: &'a Graph, roots: &[ValueId], order: &[ValueId]) -> Flow<'a> {
        let sources = sources(graph);
        let (mut reads, mut needs) = (HashMap::new(), HashMap::new());
        let mut readers = HashMap::new();
        for &id in order {
            let (_, inputs) = graph.node(id).expect("only operators are scheduled");
            let mut from: Vec<ValueId> = inputs.iter().flat_map(|v| sources[v.index()].iter().copied()).collect();
            from.sort();
            from.dedup();
            from.iter().for_each(|v| *readers.entry(*v).or_insert(0) += 1);
            reads.insert(id, from);
            let before = inputs.iter().map(|v| roots[v.index()]).filter(|v| graph.constant(*v).is_none());
            needs.insert(id, before.collect());
        }
        let outputs = graph.outputs.iter().flat_map(|p| sources[p.value.index()].iter().copied()).collect();
        Flow { graph, reads, needs, readers, outputs }
    }

    fn bytes(&self, v: ValueId) -> i64 {
        if moves_nothing(self.graph, v) { 0 } else { self.graph.ty(v).bytes() as i64 }
    }

    /// Bytes that die when `id` has run, given how many readers each value still has.
    fn freed(&self, id: ValueId, left: &HashMap<ValueId, usize>) -> i64 {
        self.reads[&id].iter().filter(|v| left[v] == 1 && !self.outputs.contains(v)).map(|v| self.bytes(*v)).sum()
    }

    /// The most bytes alive at one time, inputs counted from the start.
    fn peak(&self, order: &[ValueId]) -> i64 {
        let mut left = self.readers.clone();
        let mut alive: i64 = self.graph.inputs.iter().map(|p| self.bytes(p.value)).sum();
        let mut peak = alive;
        for &id in order {
            alive += self.bytes(id);
            peak = peak.max(alive);
            alive -= self.freed(id, &left);
            self.reads[&id].iter().for_each(|v| *left.get_mut(v).expect("counted") -= 1);
        }
        peak
    }

    /// Runs next, among the operators that can run, the one that changes the live bytes least; the first among equals.
    fn greedy(&self, given: &[ValueId]) -> Vec<ValueId> {
        let mut left = self.readers.clone();
        let mut done: HashSet<ValueId> = self.graph.inputs.iter().map(|p| p.value).collect();
        let mut waiting: Vec<ValueId> = given.to_vec();
        let mut order = Vec::with_capacity(given.len());
        while !waiting.is_empty() {
            let ready = |id: &ValueId| self.needs[id].iter().all(|v| done.contains(v));
            let (at, _) = waiting
                .iter()
                .enumerate()
                .filter(|(_, id)| ready(id))
                .min_by_key(|(_, id)| self.bytes(**id) - self.freed(**id, &left))
                .expect("the graph is acyclic");
            let id = waiting.remove(at);
            self.reads[&id].iter().for_each(|v| *left.get_mut(v).expect("counted") -= 1);
            done.insert(id);
            order.push(id);
        }
        order
    }
}
