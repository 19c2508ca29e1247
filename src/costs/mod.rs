//! Cost tables: the layers that are measured, and the fit of a table to what was measured.
//!
//! A data set is a list of rows: a layer, an implementation, and what one run took. Layers are graphs of one operator in
//! the text form, from which the work of each implementation is counted again. The fit chooses for each implementation
//! what one of each count takes, so that relative errors are least, none negative. Layers whose name starts with `held`
//! have no say in that, and show what the table is worth for layers that it has not seen.

mod fit;
mod least_squares;

pub use fit::{Quality, Row, fit, functions, print, rows, unit};

use crate::{Error, Result};
use mcc_backends::c::{self, COptions, CSource};
use mcc_ir::catalogue::{Implementation, KernelSpec, NEST};
use mcc_ir::costs::{CYCLES, Code, CostTable, Work};
use mcc_ir::graph::Def;
use mcc_ir::{Graph, Op, Target, Tensor, ops, text};
use mcc_passes::lower::{Goal, Options, lower};
use std::path::Path;

/// Reads layers: graphs of one operator each, one after the other.
///
/// # Errors
/// [`Error::Data`] where a graph is none of one operator, or cannot be read.
pub fn layers(path: &Path, text: &str) -> Result<Vec<Graph>> {
    let fail = |reason: String| Error::Data { path: path.into(), reason };
    let starts = text.match_indices("graph @").map(|(at, _)| at).chain([text.len()]).collect::<Vec<_>>();
    let parse = |ends: &[usize]| {
        let graph = text::parse(&text[ends[0]..ends[1]], &|_: &str| None).map_err(|e| fail(e.to_string()))?;
        match operator(&graph) {
            Some(_) => Ok(graph),
            None => Err(fail(format!("{} is no graph of one operator", graph.name))),
        }
    };
    starts.windows(2).map(parse).collect()
}

/// The only operator of a graph, with its operands and its result.
fn operator(graph: &Graph) -> Option<(&Op, &[mcc_ir::ValueId], mcc_ir::ValueId)> {
    let mut nodes = graph.values().filter_map(|(id, value)| match &value.def {
        Def::Node { op, inputs } => Some((op, inputs.as_slice(), id)),
        _ => None,
    });
    nodes.next().filter(|_| nodes.next().is_none())
}

/// The work and the code of a layer by an implementation; `None` where it does not take the layer.
pub fn counts(layer: &Graph, target: &Target, implementation: &str) -> Option<(Work, Code)> {
    let (op, inputs, out) = operator(layer)?;
    let arg_types: Vec<_> = inputs.iter().map(|v| layer.ty(*v).clone()).collect();
    let consts: Vec<Option<&Tensor>> = inputs.iter().map(|v| layer.constant(*v)).collect();
    if implementation == NEST {
        let nest = ops::nest(op, &arg_types.iter().collect::<Vec<_>>(), layer.ty(out)).ok()?;
        return Some((nest.work(), Code::own(nest.code())));
    }
    let spec = KernelSpec { op, arg_types: &arg_types, consts: &consts, out_type: layer.ty(out) };
    let entry = c::CATALOGUE.iter().find(|entry| entry.id == implementation)?;
    (entry.offer)(&spec, target).map(|offer| (offer.work, offer.code))
}

/// The C of each layer by each implementation that takes it: the layer's name, the implementation, the C.
///
/// # Errors
/// Where a layer cannot be lowered.
pub fn sources(layers: &[Graph], target: &Target) -> Result<Vec<(String, &'static str, CSource)>> {
    // What would be chosen matters nothing here: nests are out of the question, or all there is.
    let mut only = target.clone();
    only.table = CostTable::default();
    for count in mcc_ir::nest::counts().chain([CYCLES]) {
        only.table.cycles.set(NEST, count, 1e12);
    }
    let mut all = Vec::new();
    for layer in layers {
        let nothing: [&[Implementation]; 1] = [&[]];
        for catalogue in c::CATALOGUE.chunks(1).chain(nothing) {
            let plan = lower(layer, &only, catalogue, Options { goal: Goal::Time, ..Options::default() })?;
            let implementation = plan.kernels[0].implementation;
            if plan.kernels.len() == 1 && implementation == catalogue.first().map_or(NEST, |entry| entry.id) {
                let name = format!("l{}", all.len());
                all.push((layer.name.clone(), implementation, c::emit(&plan, target, &COptions { name })?));
            }
        }
    }
    Ok(all)
}
