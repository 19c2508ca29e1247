//! `mcc check`: everything that keeps a model from being compiled, at once.

use super::args::{ChoiceArgs, ModelArgs};
use super::output;
use super::render::{Fault, faults};
use mcc::backends::targets;
use mcc::ir::graph::Def;
use mcc::ir::op::Op;
use mcc::ir::{Graph, TensorType, ops};
use mcc::{Error, Result};
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// List every node of a model that is not supported, with the reason and the next step.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  mcc check model.onnx --target stm32h7")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Chip, core, `generic-c` or `host`; `mcc targets` lists them
    #[arg(long)]
    target: String,
    /// Print the faults as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Outcome {
    model: PathBuf,
    target: String,
    ok: bool,
    errors: Vec<Fault>,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let target = targets::find(&args.target)?;
    let mut errors = Vec::new();
    match args.model.load(target, &ChoiceArgs::default()) {
        Ok(model) => {
            errors.extend(without_code(&model.optimised, &target.name));
            if errors.is_empty()
                && let Err(e) = model.plan()
            {
                errors.extend(faults(&e));
            }
        }
        Err(e @ Error::Usage(_)) => return Err(e),
        Err(e) if e.exit_status() != 1 => return Err(e),
        Err(e) => errors.extend(faults(&e)),
    }
    let ok = errors.is_empty();
    if args.json {
        let outcome = Outcome { model: args.model.model.clone(), target: target.name.clone(), ok, errors };
        output::print_json(&outcome)?;
    } else if ok {
        output::print(&format!("{} can be compiled for {}\n", args.model.model.display(), target.name))?;
    } else {
        let mut text: String = errors.iter().map(Fault::text).collect();
        text += &format!("{} error{}\n", errors.len(), if errors.len() == 1 { "" } else { "s" });
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Every operator that has no loop nest: lowering stops at the first of them.
fn without_code(graph: &Graph, target: &str) -> Vec<Fault> {
    let live = graph.live();
    let mut all = Vec::new();
    for (id, value) in graph.values() {
        let Def::Node { op, inputs } = &value.def else { continue };
        if !live[id.index()] || matches!(op, Op::Reshape { .. }) {
            continue;
        }
        let types: Vec<&TensorType> = inputs.iter().map(|v| graph.ty(*v)).collect();
        if let Err(e) = ops::nest(op, &types, &value.ty) {
            let node = value.origin.join(", ");
            let ty = value.ty.to_string();
            let lower = mcc::passes::Error::Lower { node, ty, target: target.into(), reason: e.to_string() };
            all.extend(faults(&Error::Passes(lower)));
        }
    }
    all
}
