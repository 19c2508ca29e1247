//! The choice among the implementations of each kernel.
//!
//! An implementation costs cycles, and flash at its price: its constants, its own code, and code that it shares with others.
//! What is shared is paid once by all that use it. So a search over sets of shared functions comes first: those in the
//! set are taken as there anyway, and each kernel pays in full for any other.

use mcc_ir::Target;
use mcc_ir::catalogue::{Implementation, KernelSpec, NEST, NEST_CODE_BYTES, NEST_CYCLES, Offer};
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
    /// The same, with its constants and its own code at their price.
    cost: f64,
}

/// All implementations of a kernel, the loop nest last.
pub fn candidates(
    spec: &KernelSpec<'_>,
    nest: &Nest,
    target: &Target,
    catalogue: &[Implementation],
    price: f64,
) -> Vec<Candidate> {
    let candidate = |implementation, offer: Offer| {
        let cycles = target.table.cycles(implementation, &offer.work);
        let cost = cycles + price * (offer.const_bytes(spec) + offer.code.own) as f64;
        Candidate { implementation, offer, cycles, cost }
    };
    let plain = Offer {
        packings: vec![Packing::None; spec.arg_types.len()],
        scratch_bytes: 0,
        work: if target.table.has(NEST) { nest.work() } else { nest_cycles(spec) },
        code: Code::own(NEST_CODE_BYTES),
        overlap: None,
    };
    let offers = catalogue.iter().filter_map(|entry| Some(candidate(entry.id, (entry.offer)(spec, target)?)));
    offers.collect::<Vec<_>>().into_iter().chain([candidate(NEST, plain)]).collect()
}

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
    let cost = |c: &Candidate| {
        let absent = c.offer.code.shared.iter().filter(|(name, _)| !present.contains(name.as_ref()));
        c.cost + price * absent.map(|(_, bytes)| bytes).sum::<usize>() as f64
    };
    let (nest, others) = candidates.split_last().expect("the loop nest is always one");
    match others.iter().filter(|c| allowed(c.implementation)).min_by(|a, b| cost(a).total_cmp(&cost(b))) {
        Some(best) if cost(best) < cost(nest) || !allowed(NEST) => best,
        _ => nest,
    }
}

/// What some implementations cost together, shared functions once.
pub fn total<'a>(chosen: impl Iterator<Item = &'a Candidate>, price: f64) -> f64 {
    let mut shared: BTreeMap<&str, usize> = BTreeMap::new();
    let mut sum = 0.0;
    for c in chosen {
        sum += c.cost;
        shared.extend(c.offer.code.shared.iter().map(|(name, bytes)| (name.as_ref(), *bytes)));
    }
    sum + price * shared.values().sum::<usize>() as f64
}

/// The shared functions to have, for kernels that come one after the other: from all of them, those are left out one by
/// one without which the whole costs less.
pub fn present(kernels: &[&[Candidate]], price: f64) -> Present {
    let names = kernels.iter().copied().flatten().flat_map(|c| &c.offer.code.shared).map(|(name, _)| name.to_string());
    let mut present: Present = names.collect();
    let cost = |present: &Present| {
        let chosen: Vec<&Candidate> = kernels.iter().map(|all| choose(all, |_| true, present, price)).collect();
        let used: Present =
            chosen.iter().flat_map(|c| &c.offer.code.shared).map(|(name, _)| name.to_string()).collect();
        (total(chosen.into_iter(), price), used)
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
        let code = shared.iter().fold(Code::default(), |code, (name, bytes)| code.sharing(*name, *bytes));
        let offer = Offer { packings: vec![], scratch_bytes: 0, work: Work::default(), code, overlap: None };
        Candidate { implementation, offer, cycles, cost: cycles }
    }

    /// One kernel alone is not worth the code that several share; three are.
    #[test]
    fn shared_code_is_paid_once() {
        let kernel = || vec![candidate("fast", 100.0, &[("block", 50)]), candidate(NEST, 500.0, &[])];
        for (n, expected) in [(1, NEST), (3, "fast")] {
            let kernels: Vec<Vec<Candidate>> = (0..n).map(|_| kernel()).collect();
            let kernels: Vec<&[Candidate]> = kernels.iter().map(Vec::as_slice).collect();
            let present = present(&kernels, 10.0);
            let chosen: Vec<&Candidate> = kernels.iter().map(|k| choose(k, |_| true, &present, 10.0)).collect();
            assert!(chosen.iter().all(|c| c.implementation == expected), "{n}: {expected}");
            let sum = if n == 1 { 500.0 } else { 3.0 * 100.0 + 500.0 };
            assert_eq!(total(chosen.into_iter(), 10.0), sum);
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
