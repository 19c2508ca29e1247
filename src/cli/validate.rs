//! `mcc validate`: every executor against the evaluator, on random inputs.
//!
//! Each executor first runs the model as it is compiled, and its outputs are compared. Then it runs the same kernels with
//! every value as an output, and each node is held against the evaluator on the operands that it was given, so that a
//! wrong node is found where it is and rounding does not pile up.

use super::args::{ChoiceArgs, ModelArgs};
use super::compare::{self, Difference};
use super::executor::{raw, tensors};
use super::output;
use super::tap::{self, Divergence};
use mcc::backends::c::exec::{self, Core, ExecError};
use mcc::backends::targets;
use mcc::ir::target::Backend as Family;
use mcc::ir::{Graph, Tensor, eval, plan};
use mcc::passes::lower::Io;
use mcc::{Error, Model, Result};
use serde::Serialize;
use std::path::PathBuf;

/// Check that the plan, the JIT, the C and the C on an emulated core compute what the evaluator computes.
///
/// C is built with the address and undefined-behaviour sanitizers. Integer graphs must agree bit for bit; a float result
/// may differ by 1e-5 of the largest magnitude. The first node that differs is named, and the exit code is 3.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  mcc validate model.onnx --target stm32h7 --samples 5")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    choices: ChoiceArgs,
    /// Chip, core, `generic-c` or `host`; `mcc targets` lists them
    #[arg(long)]
    target: String,
    /// Random inputs to run
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,
    /// Seed of the random inputs
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Who is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Executor {
    Plan,
    Jit,
    C,
    Qemu,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Failed,
    Skipped,
}

#[derive(Serialize)]
struct Verdict {
    executor: Executor,
    status: Status,
    /// Why it was skipped or failed; empty where it is all right.
    reason: String,
    /// The largest difference of an output.
    max_abs: f64,
    /// Nodes compared one by one.
    nodes: usize,
    first_wrong_node: Option<Divergence>,
}

#[derive(Serialize)]
struct Outcome {
    model: PathBuf,
    target: String,
    samples: u32,
    seed: u64,
    ok: bool,
    executors: Vec<Verdict>,
}

pub fn run(args: &Args) -> Result<()> {
    let target = targets::find(&args.target)?;
    let mut options = args.model.options(target, &args.choices);
    let imported = mcc::text_file::load(&args.model.model, &options.import)?;
    let model = Model::from_graph(imported.clone(), &options)?;
    options.target = targets::find("host")?.clone();
    let host = Model::from_graph(imported, &options)?;
    let samples: Vec<Vec<Tensor>> = (0..args.samples as u64)
        .map(|i| tap::random_inputs(&model.integer, args.seed.wrapping_add(i)))
        .collect::<Result<_>>()?;
    let expected: Vec<Vec<Tensor>> =
        samples.iter().map(|s| eval::run(&model.integer, s)).collect::<mcc::ir::Result<_>>()?;

    let all = [Executor::Plan, Executor::Jit, Executor::C, Executor::Qemu];
    let bar = output::progress(all.len(), "validate");
    let mut executors = Vec::new();
    for executor in all {
        let model = if executor == Executor::Jit { &host } else { &model };
        executors.push(verdict(executor, model, &samples, &expected)?);
        bar.inc(1);
    }
    bar.finish_and_clear();

    let failed: Vec<String> =
        executors.iter().filter(|v| v.status == Status::Failed).map(|v| v.reason.clone()).collect();
    let outcome = Outcome {
        model: args.model.model.clone(),
        target: target.name.clone(),
        samples: args.samples,
        seed: args.seed,
        ok: failed.is_empty(),
        executors,
    };
    if args.json {
        output::print_json(&outcome)?;
    } else {
        output::print(&outcome.executors.iter().map(line).collect::<String>())?;
    }
    if failed.is_empty() { Ok(()) } else { Err(Error::Mismatch(failed.join("; "))) }
}

fn line(v: &Verdict) -> String {
    let name = name(v.executor);
    match v.status {
        Status::Ok => format!("{name:5} ok       max_abs {:.3e}, {} nodes one by one\n", v.max_abs, v.nodes),
        Status::Failed => format!("{name:5} FAILED   {}\n", v.reason),
        Status::Skipped => format!("{name:5} skipped  {}\n", v.reason),
    }
}

fn name(executor: Executor) -> &'static str {
    match executor {
        Executor::Plan => "plan",
        Executor::Jit => "jit",
        Executor::C => "c",
        Executor::Qemu => "qemu",
    }
}

/// Runs one executor. A missing tool or board, or a board that is too small, is no error.
fn verdict(executor: Executor, model: &Model, samples: &[Vec<Tensor>], expected: &[Vec<Tensor>]) -> Result<Verdict> {
    match check(executor, model, samples, expected) {
        Err(Error::Exec(e @ (ExecError::Missing { .. } | ExecError::NoBoard(_) | ExecError::TooLarge { .. }))) => {
            Ok(Verdict { status: Status::Skipped, reason: e.to_string(), ..ok(executor) })
        }
        Err(Error::Exec(e @ (ExecError::Build { .. } | ExecError::Run { .. } | ExecError::Timeout))) => {
            Ok(Verdict { status: Status::Failed, reason: format!("{}: {e}", name(executor)), ..ok(executor) })
        }
        other => other,
    }
}

fn ok(executor: Executor) -> Verdict {
    let reason = String::new();
    Verdict { executor, status: Status::Ok, reason, max_abs: 0.0, nodes: 0, first_wrong_node: None }
}

fn check(executor: Executor, model: &Model, samples: &[Vec<Tensor>], expected: &[Vec<Tensor>]) -> Result<Verdict> {
    let is_c = matches!(executor, Executor::C | Executor::Qemu);
    if is_c && model.target.backend != Family::C {
        let reason = format!("no C is written for target {}", model.target.name);
        return Ok(Verdict { status: Status::Skipped, reason, ..ok(executor) });
    }
    let mut verdict = ok(executor);
    let found = execute(executor, model, samples)?;
    let tolerance = tap::graph_tolerance(&model.optimised);
    let mut wrong: Option<(usize, String, Difference)> = None;
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        for (port, (found, expected)) in model.integer.outputs.iter().zip(found.iter().zip(expected)) {
            let d = compare::compare(found, expected, tolerance);
            verdict.max_abs = verdict.max_abs.max(d.max_abs);
            if d.mismatches > 0 && wrong.is_none() {
                wrong = Some((i, port.name.clone(), d));
            }
        }
    }
    // The emulator is slow: there the nodes are looked at only where an output is wrong.
    if executor != Executor::Qemu || wrong.is_some() {
        let sample = wrong.as_ref().map_or(0, |w| w.0);
        let taps = tap::taps(&model.optimised);
        let inside = Model {
            optimised: tap::tapped(&model.optimised, &taps),
            integer: tap::tapped(&model.optimised, &taps),
            io: Io::Separate,
            ..model.clone()
        };
        let observed = execute(executor, &inside, &samples[sample..=sample])?.pop().unwrap_or_default();
        verdict.first_wrong_node = tap::first_divergence(&model.optimised, &samples[sample], &taps, &observed)?;
        verdict.nodes = taps.len();
    }
    let executor = name(executor);
    if let Some(d) = &verdict.first_wrong_node {
        verdict.status = Status::Failed;
        verdict.reason =
            format!("{executor}: node {:?} ({}) is the first that differs: {}", d.origin, d.op, words(&d.difference));
    } else if let Some((_, port, d)) = &wrong {
        verdict.status = Status::Failed;
        verdict.reason = format!("{executor}: output {port:?} differs, but no single node does: {}", words(d));
    }
    Ok(verdict)
}

fn words(d: &Difference) -> String {
    match &d.first_wrong {
        Some(w) => format!(
            "{} of {} elements, at {:?} {} instead of {}",
            d.mismatches, d.elements, w.index, w.found, w.expected
        ),
        None => String::new(),
    }
}

fn execute(executor: Executor, model: &Model, samples: &[Vec<Tensor>]) -> Result<Vec<Vec<Tensor>>> {
    let ports =
        |graph: &Graph| graph.outputs.iter().map(|p| (p.clone(), graph.ty(p.value).clone())).collect::<Vec<_>>();
    match executor {
        Executor::Plan => {
            let plan = model.plan()?;
            Ok(samples.iter().map(|s| plan::interp::run(&plan, s)).collect())
        }
        Executor::Jit => {
            let mut session = model.session()?;
            samples.iter().map(|s| session.run_tensors(s).map_err(Error::Run)).collect()
        }
        Executor::C => {
            let flags = [exec::STRICT, exec::SANITIZED].concat();
            let outputs = exec::run_host(&model.c_source("model")?, &raw(samples), &flags)?;
            Ok(tensors(&ports(&model.optimised), outputs))
        }
        Executor::Qemu => {
            let core = Core::of(&model.target)?;
            let outputs = exec::run_qemu(&model.c_source("model")?, core, &raw(samples), &[])?;
            Ok(tensors(&ports(&model.optimised), outputs))
        }
    }
}
