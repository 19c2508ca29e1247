//! What `--requant fast` changes, counted.

use super::tap;
use mcc::ir::eval;
use mcc::report::RequantReport;
use mcc::{Model, Result};

/// Random samples that are compared.
const SAMPLES: u64 = 8;

/// How many elements of the outputs differ from those under exact requantisation; `None` where no rounding was changed.
///
/// # Errors
/// Where an input is too large for random data.
pub fn differing(model: &Model) -> Result<Option<RequantReport>> {
    if !model.passes.iter().any(|p| p.name == "single-requant" && p.changed) {
        return Ok(None);
    }
    let mut report = RequantReport { samples: SAMPLES, elements: 0, differing: 0 };
    for seed in 0..SAMPLES {
        let inputs = tap::random_inputs(&model.exact, seed)?;
        let (exact, fast) = (eval::run(&model.exact, &inputs)?, eval::run(&model.integer, &inputs)?);
        for (a, b) in exact.iter().zip(&fast) {
            let size = (a.dtype().bits() / 8).max(1);
            let pairs = a.bytes().chunks(size).zip(b.bytes().chunks(size));
            report.elements += pairs.len();
            report.differing += pairs.filter(|(a, b)| a != b).count();
        }
    }
    Ok(Some(report))
}
