//! Why each kernel of a plan has the implementation that it has: what else there is, what it would cost, and what speaks
//! against it.

use super::choose::{Candidate, candidates, choose, present};
use super::{Maker, Options, flash_price, roots, views};
use crate::error::{Error, Result};
use mcc_ir::catalogue::{Implementation, KernelSpec};
use mcc_ir::graph::Graph;
use mcc_ir::plan::{Arg, Kernel, Plan};
use mcc_ir::{Target, Tensor};
use std::collections::BTreeSet;

/// An implementation that a kernel has or could have.
#[derive(Clone, Debug, PartialEq)]
pub struct Alternative {
    pub implementation: &'static str,
    /// Estimated, in the target's unit.
    pub cycles: f64,
    /// Estimated bytes of constants, own code, and code of shared functions that the plan has not anyway.
    pub flash_bytes: f64,
    pub scratch_bytes: usize,
    pub verdict: Verdict,
}

/// What speaks for or against an implementation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    Chosen,
    /// It takes more cycles than the one chosen, or may: loop nests are trusted less than measured kernels.
    Slower,
    /// It saves cycles, but each byte of flash that it adds has to save so many.
    Flash {
        cycles_per_byte: f64,
    },
    /// It saves cycles, but takes memory where the arena is at its peak.
    Memory,
    /// Something else was asked for.
    Forced,
}

/// The choice made for one kernel of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The kernel's place in the plan.
    pub kernel: usize,
    /// The one chosen first, then the others by their cycles.
    pub alternatives: Vec<Alternative>,
    /// Implementations of the catalogue that do not take the kernel on this target.
    pub unfit: Vec<&'static str>,
}

/// The choices of a plan that was lowered for `target` with `options`.
pub fn explain(plan: &Plan, target: &Target, catalogue: &[Implementation], options: &Options) -> Vec<Choice> {
    let all: Vec<Vec<Candidate>> = plan.kernels.iter().map(|k| offered(plan, k, target, catalogue)).collect();
    let slices: Vec<&[Candidate]> = all.iter().map(Vec::as_slice).collect();
    let price = flash_price(&slices, options.goal, options.goal.cycles_per_byte(target));
    let wanted = present(&slices, price);
    let cost = |c: &Candidate| c.cost(price) + price * c.absent_bytes(&wanted);
    let has = |k: &Kernel, c: &Candidate| k.implementation == c.implementation;
    let chosen = plan.kernels.iter().zip(&all).filter_map(|(k, all)| all.iter().find(|c| has(k, c)));
    // Code that the plan has anyway.
    let there: BTreeSet<String> = chosen.flat_map(Candidate::shared_names).map(str::to_string).collect();
    let choice = |(kernel, (k, all)): (usize, (&Kernel, &Vec<Candidate>))| {
        let names: Vec<&str> = all.iter().map(|c| c.implementation).collect();
        let unfit = catalogue.iter().map(|e| e.id).filter(|id| !names.contains(id)).collect();
        let free = choose(all, |_| true, &wanted, price);
        let forced = options.force.iter().any(|f| k.origin.iter().any(|name| **name == *f.node));
        let now = all.iter().find(|c| has(k, c)).unwrap_or(free);
        let alternative = |c: &Candidate| {
            let flash_bytes = c.bytes + c.absent_bytes(&there);
            let verdict = match () {
                () if has(k, c) => Verdict::Chosen,
                () if forced => Verdict::Forced,
                () if c.cycles >= now.cycles => Verdict::Slower,
                () if cost(c) > cost(now) => Verdict::Flash { cycles_per_byte: price },
                () => Verdict::Memory,
            };
            let (cycles, scratch_bytes) = (c.cycles, c.offer.scratch_bytes);
            Alternative { implementation: c.implementation, cycles, flash_bytes, scratch_bytes, verdict }
        };
        let mut alternatives: Vec<Alternative> = all.iter().map(alternative).collect();
        alternatives.sort_by(|a, b| {
            let rank = |x: &Alternative| (x.verdict != Verdict::Chosen) as u8;
            rank(a).cmp(&rank(b)).then(a.cycles.total_cmp(&b.cycles))
        });
        Choice { kernel, alternatives, unfit }
    };
    plan.kernels.iter().zip(&all).enumerate().map(choice).collect()
}

/// All implementations of a kernel of a plan.
fn offered(plan: &Plan, k: &Kernel, target: &Target, catalogue: &[Implementation]) -> Vec<Candidate> {
    let value = |arg: &Arg| match arg {
        Arg::Const(c) => Some(&plan.consts[c.index()].tensor),
        Arg::Buffer(_) => None,
    };
    let consts: Vec<Option<&Tensor>> = k.args.iter().map(value).collect();
    let spec = KernelSpec { op: &k.op, arg_types: &k.arg_types, consts: &consts, out_type: &k.out_type };
    candidates(&spec, &k.nest, target, catalogue)
}

/// That each forced node is there and can have its implementation.
pub(super) fn check_forced(
    graph: &Graph,
    target: &Target,
    catalogue: &[Implementation],
    options: &Options,
) -> Result<()> {
    let roots = roots(graph);
    let maker = Maker { graph, target, catalogue, roots: &roots, force: &[] };
    for force in &options.force {
        let mut found = false;
        let mut offers = BTreeSet::new();
        for (id, value) in graph.values() {
            let Some((op, inputs)) = graph.node(id).filter(|_| !views::moves_nothing(graph, id)) else { continue };
            if value.origin.iter().any(|name| **name == *force.node) {
                found = true;
                let offered = maker.offered(op, inputs, &value.ty, &value.origin)?;
                offers.extend(offered.candidates.iter().map(|c| c.implementation));
            }
        }
        if !found {
            return Err(unknown(graph, &force.node));
        }
        if !offers.contains(force.implementation.as_str()) {
            return Err(Error::Force {
                node: force.node.clone(),
                wanted: force.implementation.clone(),
                target: target.name.clone(),
                offered: offers.into_iter().collect::<Vec<_>>().join(", "),
            });
        }
    }
    Ok(())
}

/// The nodes that an error lists at most.
const LISTED: usize = 12;

/// That no node of a graph has this name.
pub fn unknown(graph: &Graph, name: &str) -> Error {
    let mut names: Vec<String> = Vec::new();
    let nodes = graph.values().filter(|(id, _)| graph.node(*id).is_some());
    for origin in nodes.flat_map(|(_, value)| value.origin.iter()) {
        let shown = format!("{origin:?}");
        if !names.contains(&shown) {
            names.push(shown);
        }
    }
    let more = names.len().saturating_sub(LISTED);
    names.truncate(LISTED);
    let known = names.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() };
    Error::UnknownNode { name: name.to_string(), known }
}
