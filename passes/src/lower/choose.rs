//! The choice among the implementations of each kernel.
//!
//! An implementation costs cycles, and flash at its price: its constants, its own code, and code that it shares with others.
//! What is shared is paid once by all that use it. So a search over sets of shared functions comes first: those in the
//! set are taken as there anyway, and each kernel pays in full for any other.

use mcc_ir::Target;
use mcc_ir::catalogue::{Implementation, KernelSpec, NEST, NEST_CYCLES, Offer};
use mcc_ir::costs::{Code, Work};
use mcc_ir::nest::Nest;
use mcc_ir::ops;
use mcc_ir::packing::Packing;
use mcc_ir::types::TensorType;
use std::collections::{BTreeMap, BTreeSet};

/// An implementation of a kernel.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub implementation: &'static str,
    pub offer: Offer,
    /// Estimated cycles.
    pub cycles: f64,
    /// Bytes of its constants and its own code.
    pub bytes: f64,
    /// Shared functions and their bytes.
    shared: Vec<(String, f64)>,
}

impl Candidate {
    /// Cycles, and what is its own of flash at its price.
    pub fn cost(&self, price: f64) -> f64 {
        self.cycles + price * self.bytes
    }

    /// Bytes of shared functions that are not there yet.
    pub fn absent_bytes(&self, present: &Present) -> f64 {
        self.shared.iter().filter(|(name, _)| !present.contains(name)).map(|(_, bytes)| bytes).sum()
    }

    pub fn shared_names(&self) -> impl Iterator<Item = &str> {
        self.shared.iter().map(|(name, _)| name.as_str())
    }
}

/// All implementations of a kernel, the loop nest last.
pub fn candidates(spec: &KernelSpec<'_>, nest: &Nest, target: &Target, catalogue: &[Implementation]) -> Vec<Candidate> {
    let candidate = |implementation, offer: Offer| {
        let table = &target.table;
        let cycles = table.cycles.of(implementation, &offer.work);
        let bytes = offer.const_bytes(spec) as f64 + table.code.of(implementation, &offer.code.own);
        let functions = offer.code.shared.iter();
        let shared = functions.map(|f| (f.name.to_string(), table.functions.of(f.kind, &f.size))).collect();
        Candidate { implementation, offer, cycles, bytes, shared }
    };
    let plain = Offer {
        packings: vec![Packing::None; spec.arg_types.len()],
        scratch_bytes: 0,
        work: if target.table.cycles.has(NEST) { nest.work() } else { nest_cycles(spec) },
        code: if target.table.code.has(NEST) { Code::own(nest.code()) } else { Code::bytes(NEST_BYTES) },
        overlap: None,
    };
    let offers = catalogue.iter().filter_map(|entry| Some(candidate(entry.id, (entry.offer)(spec, target)?)));
    offers.collect::<Vec<_>>().into_iter().chain([candidate(NEST, plain)]).collect()
}

/// Bytes of a loop nest's code where it was not measured.
const NEST_BYTES: usize = 400;

/// What a loop nest takes where it was not measured.
fn nest_cycles(spec: &KernelSpec<'_>) -> Work {
    let types: Vec<&TensorType> = spec.arg_types.iter().collect();
    let work = ops::macs(spec.op, &types, spec.out_type).max(spec.out_type.elements() as u64);
    // What is read has to be looked at: an average of a whole image is no one step.
    let work = work.max(spec.arg_types.first().map_or(0, |x| x.elements() as u64));
    Work::cycles(NEST_CYCLES * work as f64)
}

/// Shared functions that are there anyway, by name.
pub type Present = BTreeSet<String>;

/// The allowed implementation that costs least. The loop nest is there where nothing else is, allowed or not.
pub fn choose<'a>(
    candidates: &'a [Candidate],
    allowed: impl Fn(&'static str) -> bool,
    present: &Present,
    price: f64,
) -> &'a Candidate {
    let cost = |c: &Candidate| c.cost(price) + price * c.absent_bytes(present);
    let (nest, others) = candidates.split_last().expect("the loop nest is always one");
    match others.iter().filter(|c| allowed(c.implementation)).min_by(|a, b| cost(a).total_cmp(&cost(b))) {
        Some(best) if cost(best) < cost(nest) || !allowed(NEST) => best,
        _ => nest,
    }
}

/// Cycles and bytes of some implementations together, shared functions once.
pub fn total<'a>(chosen: impl Iterator<Item = &'a Candidate>) -> (f64, f64) {
    let mut shared: BTreeMap<&str, f64> = BTreeMap::new();
    let (mut cycles, mut bytes) = (0.0, 0.0);
    for c in chosen {
        cycles += c.cycles;
        bytes += c.bytes;
        shared.extend(c.shared.iter().map(|(name, bytes)| (name.as_str(), *bytes)));
    }
    (cycles, bytes + shared.values().sum::<f64>())
}

/// The shared functions to have, for kernels that come one after the other: from all of them, those are left out one by
/// one without which the whole costs less.
pub fn present(kernels: &[&[Candidate]], price: f64) -> Present {
    let names = kernels.iter().copied().flatten().flat_map(|c| &c.shared).map(|(name, _)| name.clone());
    let mut present: Present = names.collect();
    let cost = |present: &Present| {
        let chosen: Vec<&Candidate> = kernels.iter().map(|all| choose(all, |_| true, present, price)).collect();
        let used: Present = chosen.iter().flat_map(|c| &c.shared).map(|(name, _)| name.clone()).collect();
        let (cycles, bytes) = total(chosen.into_iter());
        (cycles + price * bytes, used)
    };
    let (mut least, used) = cost(&present);
    present = used;
    loop {
        let before = least;
        for name in present.clone() {
            let without: Present = present.iter().filter(|other| **other != name).cloned().collect();
            let (now, used) = cost(&without);
            if now < least {
                (least, present) = (now, used);
            }
        }
        if least == before {
            return present;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(implementation: &'static str, cycles: f64, shared: &[(&'static str, usize)]) -> Candidate {
        let offer =
            Offer { packings: vec![], scratch_bytes: 0, work: Work::default(), code: Code::default(), overlap: None };
        let shared = shared.iter().map(|(name, bytes)| (name.to_string(), *bytes as f64)).collect();
        Candidate { implementation, offer, cycles, bytes: 0.0, shared }
    }

    /// One kernel alone is not worth the code that several share; three are.
    #[test]
    fn shared_code_is_paid_once() {
        let kernel = || vec![candidate("fast", 100.0, &[("block", 50)]), candidate(NEST, 400.0, &[])];
        for (n, expected) in [(1, NEST), (3, "fast")] {
            let kernels: Vec<Vec<Candidate>> = (0..n).map(|_| kernel()).collect();
            let kernels: Vec<&[Candidate]> = kernels.iter().map(Vec::as_slice).collect();
            let present = present(&kernels, 10.0);
            let chosen: Vec<&Candidate> = kernels.iter().map(|k| choose(k, |_| true, &present, 10.0)).collect();
            assert!(chosen.iter().all(|c| c.implementation == expected), "{n}: {expected}");
            let sum = if n == 1 { (400.0, 0.0) } else { (3.0 * 100.0, 50.0) };
            assert_eq!(total(chosen.into_iter()), sum);
        }
    }

    /// What one kernel needs anyway makes another implementation the better one elsewhere.
    #[test]
    fn the_set_of_shared_functions_that_costs_least_is_found() {
        let kernels = [
            vec![candidate("a", 100.0, &[("x", 40)]), candidate("b", 150.0, &[("y", 40)]), candidate(NEST, 1e6, &[])],
            vec![candidate("b", 100.0, &[("y", 40)]), candidate(NEST, 1e6, &[])],
        ];
        let kernels: Vec<&[Candidate]> = kernels.iter().map(Vec::as_slice).collect();
        let present = present(&kernels, 10.0);
        let chosen: Vec<&str> = kernels.iter().map(|k| choose(k, |_| true, &present, 10.0).implementation).collect();
        assert_eq!(chosen, ["b", "b"]);
    }
}
