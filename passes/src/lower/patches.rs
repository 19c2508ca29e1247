//! Whether and where a graph is computed in strips: see [`crate::patch`].
//!
//! The parts that hold the peak of the arena are looked at, each cut in several ways; the most promising by an estimate of
//! its memory are lowered, and the best plan is kept. This is repeated while the plan gets better, since the peak moves.

use super::{Io, Lowered, Options, Patch, lower_once};
use crate::error::{Error, Result};
use crate::patch::{Region, Rows};
use mcc_ir::Target;
use mcc_ir::catalogue::Implementation;
use mcc_ir::graph::{Graph, ValueId};
use mcc_ir::plan::{BufferKind, Plan};
use std::collections::{HashMap, HashSet};

/// Numbers of strips that are tried.
const STRIPS: [usize; 8] = [2, 3, 4, 5, 6, 8, 12, 16];
/// Operators before and after the peak where a part may begin and end.
const REACH: usize = 12;
/// Ways that are lowered of those that an estimate prefers.
const TRIES: usize = 10;
/// Parts of a graph that are split one after the other.
const PARTS: usize = 3;
/// Estimated cycles of a multiply-accumulate, to sort the ways; bytes of code of a kernel more.
const MAC_CYCLES: f64 = 1.5;
const KERNEL_CODE_BYTES: f64 = 700.0;
/// Cycles that a kernel more takes at least: the call, and what is set up for it.
const KERNEL_CYCLES: f64 = 300.0;

/// The part of the arena that strips save at least where nothing forces them, and what they cost beside their estimate:
/// kernels of a few rows are estimated too low.
const LEAST_SAVING: f64 = 0.1;
const DOUBT: f64 = 2.0;

/// Cycles of a byte that must be saved.
const ANYTHING: f64 = 1e6;

/// A way to split a graph.
struct Way {
    region: Region,
    strips: usize,
    /// Estimated bytes of the arena.
    bytes: usize,
    /// The estimate's rank: less is better.
    rank: f64,
}

/// The plan of a graph, in strips where that is worth its price or the only way to fit.
pub fn lower_in_patches(
    graph: &Graph,
    target: &Target,
    catalogue: &[Implementation],
    options: &Options,
) -> Result<Lowered> {
    let mut best = lower_once(graph, target, catalogue, options)?;
    let price = options.goal.cycles_per_byte(target);
    let forced = matches!(options.patch, Patch::Strips(_));
    let mut graph = graph.clone();
    for _ in 0..if forced { 1 } else { PARTS } {
        let tight = !fits(&best.plan, options);
        if options.patch == Patch::Off || !(forced || tight || price > 0.0) {
            break;
        }
        // What a byte of the arena is worth: anything where the plan does not fit, or strips are asked for.
        let worth = if tight || forced { ANYTHING } else { price };
        let mut ways = ways(&graph, &best, options, worth, price);
        ways.sort_by(|a, b| a.rank.total_cmp(&b.rank));
        let mut better: Option<(Lowered, Graph)> = None;
        for way in ways.iter().take(TRIES) {
            let split = way.region.split(&graph, way.strips).map_err(|source| Error::Pass { pass: "patch", source })?;
            let Some(split) = split else { continue };
            let mut found = lower_once(&split, target, catalogue, options)?;
            let most = best.plan.arena_bytes as f64 * if tight || forced { 1.0 } else { 1.0 - LEAST_SAVING };
            if found.plan.arena_bytes as f64 > most || found.plan.arena_bytes == best.plan.arena_bytes {
                continue;
            }
            // Strips are never faster than the whole, whatever an estimate for small kernels says.
            let kernels = found.plan.kernels.len() - best.plan.kernels.len().min(found.plan.kernels.len());
            let more = (found.cost - best.cost).max(KERNEL_CYCLES * kernels as f64);
            found.cost = best.cost + DOUBT * more;
            let than = better.as_ref().map_or(&best, |(lowered, _)| lowered);
            // Once something fits, memory has its usual price again.
            let worth = if forced || !fits(&than.plan, options) { worth } else { price };
            if gain(than, &found, worth, options) > 0.0 {
                better = Some((found, split));
            }
        }
        let Some((lowered, split)) = better else { break };
        (best, graph) = (lowered, split);
    }
    Ok(best)
}

/// Cycles that another plan saves, bytes of the arena at what they are worth. What fits comes before what does not.
fn gain(than: &Lowered, other: &Lowered, worth: f64, options: &Options) -> f64 {
    let saved = than.plan.arena_bytes as f64 - other.plan.arena_bytes as f64;
    match (fits(&than.plan, options), fits(&other.plan, options)) {
        (false, true) => f64::INFINITY,
        (true, false) => f64::NEG_INFINITY,
        _ => worth * saved - (other.cost - than.cost),
    }
}

/// Whether a plan keeps to the RAM that it may take.
fn fits(plan: &Plan, options: &Options) -> bool {
    let outside = |kind: BufferKind| matches!(kind, BufferKind::Input(_) | BufferKind::Output(_));
    let apart: usize = match options.io {
        Io::Arena => 0,
        Io::Separate => plan.buffers.iter().filter(|b| outside(b.kind)).map(|b| b.bytes).sum(),
    };
    options.ram.is_none_or(|ram| plan.arena_bytes + apart <= ram)
}

/// The ways to split the graph around the peak of its arena that could lower it.
fn ways(graph: &Graph, lowered: &Lowered, options: &Options, price: f64, code_price: f64) -> Vec<Way> {
    let plan = &lowered.plan;
    let Some(peak) = plan.peak_kernel() else { return vec![] };
    let Some(&Some(at_peak)) = lowered.values.get(peak) else { return vec![] };
    let uses = graph.use_counts();
    let spatial: Vec<ValueId> = graph
        .values()
        .filter(|(id, value)| graph.constant(*id).is_none() && value.ty.rank() == 4)
        .map(|(id, _)| id)
        .collect();
    let here = spatial.partition_point(|id| *id < at_peak);
    let sources = &spatial[here.saturating_sub(REACH)..here];
    let cuts = &spatial[here..spatial.len().min(here + REACH)];
    let counts: Vec<usize> = match options.patch {
        Patch::Strips(n) => vec![n],
        _ => STRIPS.to_vec(),
    };
    let live: Vec<usize> = (0..plan.kernels.len()).map(|k| plan.live_bytes(k)).collect();
    let mut ways = Vec::new();
    for (&source, &cut) in sources.iter().flat_map(|s| cuts.iter().map(move |c| (s, c))) {
        let Some(region) = Region::find(graph, &uses, source, cut) else { continue };
        if !region.nodes.contains(&at_peak) {
            continue;
        }
        let inside: HashSet<ValueId> = region.nodes.iter().copied().collect();
        let of_part = |k: usize| lowered.values[k].is_some_and(|v| inside.contains(&v));
        let elsewhere = (0..live.len()).filter(|k| !of_part(*k)).map(|k| live[k]).max().unwrap_or(0);
        let whole = source_stays(graph, &uses, &region);
        for &strips in counts.iter().filter(|n| **n <= region.height(graph, cut)) {
            let rows = region.strips(graph, strips);
            let Some(needs) = rows.iter().map(|rows| region.needs(graph, *rows)).collect::<Option<Vec<_>>>() else {
                continue;
            };
            let bytes = elsewhere.max(peak_of(graph, &region, &needs, whole));
            if bytes >= plan.arena_bytes {
                continue;
            }
            let more = region.macs(graph, &needs) as f64 - macs_of(graph, &region) as f64;
            let shapes = if rows.len() > 2 { 2.0 } else { 1.0 };
            let code = shapes * region.nodes.len() as f64 * KERNEL_CODE_BYTES * code_price;
            // Within the budget, with a reserve for working memory, a byte less is no gain.
            let counted = match options.ram.filter(|_| options.patch == Patch::Auto && price == ANYTHING) {
                Some(ram) => ram.max(bytes + bytes / 8),
                None => bytes,
            };
            let rank = more * MAC_CYCLES + code + price * counted as f64;
            ways.push(Way { region: region.clone(), strips, bytes, rank });
        }
    }
    ways.dedup_by(|a, b| a.region == b.region && a.bytes == b.bytes && a.strips == b.strips);
    ways
}

fn macs_of(graph: &Graph, region: &Region) -> u64 {
    let all = |id: &ValueId| (*id, Rows { from: 0, to: region.height(graph, *id) });
    region.macs(graph, &[region.nodes.iter().map(all).collect()])
}

/// Whether anything outside of a part reads its source.
fn source_stays(graph: &Graph, uses: &[usize], region: &Region) -> bool {
    let inner = region.nodes.iter().filter_map(|id| graph.node(*id));
    let reads = inner.flat_map(|(_, inputs)| inputs).filter(|v| **v == region.source).count();
    uses[region.source.index()] > reads
}

/// Estimated bytes that the strips of a part need at one time: rows of the source that are still to be read, rows of the
/// cut that are there, and the values between them, of which a result may lie over the arguments that die.
fn peak_of(graph: &Graph, region: &Region, needs: &[HashMap<ValueId, Rows>], source_stays: bool) -> usize {
    let row = |id: ValueId| region.row_bytes(graph, id);
    let mut last: HashMap<ValueId, usize> = HashMap::new();
    for (i, id) in region.nodes.iter().enumerate() {
        if let Some((_, inputs)) = graph.node(*id) {
            last.extend(inputs.iter().map(|v| (*v, i)));
        }
    }
    let mut peak = 0;
    for (strip, need) in needs.iter().enumerate() {
        let read_later = needs[strip + 1..].iter().map(|n| n[&region.source].from).min();
        let height = region.height(graph, region.source);
        let kept = |from: Option<usize>| match (source_stays, from) {
            (true, _) => height,
            (false, Some(from)) => height.saturating_sub(from),
            (false, None) => 0,
        };
        let first = need[&region.source].from;
        let mut source = kept(Some(read_later.map_or(first, |later| later.min(first)))) * row(region.source);
        let done = need[&region.cut].from * row(region.cut);
        let mut between = 0;
        for (i, id) in region.nodes.iter().enumerate() {
            let own = |v: ValueId| (need[&v].to - need[&v].from) * row(v);
            let out = own(*id);
            let (_, inputs) = graph.node(*id).expect("a part is made of operators");
            let dying: HashSet<ValueId> =
                inputs.iter().copied().filter(|v| last[v] == i && region.nodes.contains(v)).collect();
            let freed: usize = dying.iter().map(|v| own(*v)).sum();
            if last.get(&region.source) == Some(&i) {
                let after = kept(read_later) * row(region.source);
                peak = peak.max(done + after + between - freed + out.max(freed + source - after));
                source = after;
            } else {
                peak = peak.max(done + source + between - freed + out.max(freed));
            }
            between = between - freed + out;
        }
    }
    peak
}
