//! `mcc explain`: why a node is computed as it is.

use super::args::PlanArgs;
use super::output;
use mcc::Result;
use mcc::ir::plan::Kernel;
use mcc::passes::lower::explain::{Alternative, Choice, Verdict, unknown};
use mcc::report::Report;
use serde::Serialize;

/// Show what else a node could be computed by, and what speaks against it.
///
/// Cycles (or instructions, where a core's cycles are not known) and bytes of flash are estimates. Flash counts the kernel's
/// constants, its own code, and shared code that no other kernel of the plan has. Without NODE, all nodes are explained.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  mcc explain model.onnx /conv1/Conv --target stm32h7
  mcc explain model.onnx /conv1/Conv --target stm32h7 --force /conv1/Conv=nest")]
pub struct Args {
    #[command(flatten)]
    plan: PlanArgs,
    /// Name of a node in the model
    node: Option<String>,
    /// Print the choices as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Explained {
    kernel: usize,
    op: String,
    origin: Vec<String>,
    implementation: &'static str,
    /// The first is the one chosen.
    alternatives: Vec<Row>,
    /// Implementations that do not take this kernel on this target.
    unfit: Vec<&'static str>,
}

impl Explained {
    /// Whether an implementation is for the same operator as one that takes the kernel, by the first word of its id.
    fn is_related(&self, id: &str) -> bool {
        let word = |id: &str| id.split(['-', '_']).next().map(str::to_string);
        self.alternatives.iter().any(|a| word(a.implementation) == word(id))
    }
}

#[derive(Serialize)]
struct Row {
    implementation: &'static str,
    cost: u64,
    flash_bytes: u64,
    scratch_bytes: usize,
    verdict: String,
}

pub fn run(args: &Args) -> Result<()> {
    let model = args.plan.load()?;
    let target = &model.target;
    let (plan, choices) = model.explained()?;
    let named = |k: &Kernel| args.node.as_ref().is_none_or(|node| k.origin.iter().any(|name| **name == **node));
    let report = Report::of(&plan, target);
    let explained: Vec<Explained> = choices
        .iter()
        .filter(|c| named(&plan.kernels[c.kernel]))
        .map(|c| explain(c, &plan.kernels[c.kernel]))
        .collect();
    if let (Some(node), true) = (&args.node, explained.is_empty()) {
        // A node of the model that became no kernel of its own is none to explain.
        return Err(unknown(&model.optimised, node).into());
    }
    if args.json {
        return output::print_json(&explained);
    }
    let unit = report.totals.cost_unit.unwrap_or("cost");
    for e in &explained {
        output::print(&format!("kernel {}, {}, from {}\n", e.kernel, e.op, origin(&e.origin)))?;
        let n = |n: u64| output::thousands(n);
        let row = |r: &Row| {
            vec![r.implementation.into(), n(r.cost), n(r.flash_bytes), n(r.scratch_bytes as u64), r.verdict.clone()]
        };
        let rows: Vec<Vec<String>> = e.alternatives.iter().map(row).collect();
        output::print(&output::table(&["impl", unit, "flash(B)", "scratch(B)", "verdict"], &rows))?;
        let related: Vec<&str> = e.unfit.iter().copied().filter(|id| e.is_related(id)).collect();
        if !related.is_empty() {
            output::print(&format!("do not take it on {}: {}\n", target.name, related.join(", ")))?;
        }
        output::print("\n")?;
    }
    Ok(())
}

fn origin(names: &[String]) -> String {
    names.iter().map(|n| n.escape_debug().to_string()).collect::<Vec<_>>().join(" ")
}

fn explain(choice: &Choice, kernel: &Kernel) -> Explained {
    let chosen = &choice.alternatives[0];
    let row = |a: &Alternative| Row {
        implementation: a.implementation,
        cost: a.cycles.round() as u64,
        flash_bytes: a.flash_bytes.max(0.0).round() as u64,
        scratch_bytes: a.scratch_bytes,
        verdict: verdict(a, chosen),
    };
    Explained {
        kernel: choice.kernel,
        op: kernel.op.name().to_string(),
        origin: kernel.origin.iter().map(|n| n.to_string()).collect(),
        implementation: chosen.implementation,
        alternatives: choice.alternatives.iter().map(row).collect(),
        unfit: choice.unfit.clone(),
    }
}

/// A verdict in words.
fn verdict(a: &Alternative, chosen: &Alternative) -> String {
    let times = if chosen.cycles > 0.0 { a.cycles / chosen.cycles } else { 1.0 };
    match a.verdict {
        Verdict::Chosen => "chosen".into(),
        Verdict::Forced => "another one was asked for".into(),
        Verdict::Slower if times >= 1.0 => format!("slower: {times:.2} times the cycles"),
        Verdict::Slower => "its estimate is not trusted that far".into(),
        Verdict::Flash { cycles_per_byte } => {
            let (saved, more) = (chosen.cycles - a.cycles, a.flash_bytes - chosen.flash_bytes);
            let n = |n: f64| output::thousands(n.max(0.0).round() as u64);
            format!("saves {} for {} B of flash; a byte has to save {cycles_per_byte:.1}", n(saved), n(more))
        }
        Verdict::Memory => "its memory would raise the arena's peak".into(),
    }
}
