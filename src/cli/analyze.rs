//! `mcc analyze`: what each kernel costs on a target.

use super::args::PlanArgs;
use super::compile::totals;
use super::output;
use super::requant;
use mcc::Result;
use mcc::budget::Budget;
use mcc::ir::target::MemoryKind;
use mcc::report::{BufferReport, KernelReport, MemoryReport, Report};
use serde::Serialize;

/// Show what a model needs on a target, kernel by kernel.
///
/// `live` is the memory of the arena in use while a kernel runs. Code size is an estimate, and so are cycles (or
/// instructions, where a core's cycles are not known): they come from measured kernels, without wait states of memory.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  mcc analyze model.onnx --target stm32h7")]
pub struct Args {
    #[command(flatten)]
    plan: PlanArgs,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Outcome {
    #[serde(flatten)]
    report: Report,
    /// Null where the target has no memory of its own.
    fits: Option<bool>,
    /// What does not fit, in words.
    over: Vec<String>,
}

pub fn run(args: &Args) -> Result<()> {
    let model = args.plan.load()?;
    let target = &model.target;
    let report = Report { requant: requant::differing(&model)?, ..Report::of(&model.plan()?, target) };
    let over = Budget::of(target).excess(&report);
    let fits = (target.ram.is_some() || target.flash.is_some()).then_some(over.is_empty());
    if args.json {
        return output::print_json(&Outcome { report, fits, over });
    }
    let rows: Vec<Vec<String>> = report.kernels.iter().map(|k| row(k, &report)).collect();
    let unit = report.totals.cost_unit.unwrap_or("cost");
    let header = ["id", "op(fused)", "out", "macc", "%", unit, "%", "w(B)", "live(B)", "%peak", "impl", "from"];
    output::print(&output::table(&header, &rows))?;
    output::print(&totals(&report))?;
    if let Some(peak) = report.peak() {
        output::print(&format!("while kernel {} runs, most of the arena is in use:\n", peak.index))?;
        let rows: Vec<Vec<String>> = report.live(peak.index).into_iter().map(memory_row).collect();
        output::print(&output::table(&["offset", "bytes", "what", "live", "from"], &rows))?;
    }
    if let Some(k) = report.totals.arena_bound_operator_kernel.and_then(|k| report.kernels.get(k)) {
        output::print(&format!("the largest operator is kernel {}, {} {}\n", k.index, k.op, short(&k.origin)))?;
    }
    if !report.memories.is_empty() {
        output::print("the target's memories:\n")?;
        let rows: Vec<Vec<String>> = report.memories.iter().map(map_row).collect();
        output::print(&output::table(&["memory", "kind", "bytes", "arena", "const", "code", "%"], &rows))?;
    }
    let share = |need: usize, have: Option<usize>, what: &str| {
        have.map(|have| {
            format!("{what} {:.1} % of {} B", 100.0 * need as f64 / have as f64, output::thousands(have as u64))
        })
    };
    let t = &report.totals;
    let parts = [share(t.ram_bytes, target.ram, "ram"), share(t.flash_bytes_estimate, target.flash, "flash")];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    match fits {
        Some(true) => output::print(&format!("fits: {}\n", parts.join(", "))),
        Some(false) => output::print(&format!("does not fit: {}\n", over.join("\n    "))),
        None => Ok(()),
    }
}

/// A memory: its size, and what a model takes of it.
fn map_row(m: &MemoryReport) -> Vec<String> {
    let n = |n: usize| output::thousands(n as u64);
    let used = m.arena_bytes + m.const_bytes + m.code_bytes_estimate;
    let share = format!("{:.1}", 100.0 * used as f64 / m.bytes.max(1) as f64);
    let kind = match m.kind {
        MemoryKind::Ram => "ram",
        MemoryKind::Flash => "flash",
        MemoryKind::Code => "code",
    };
    let (arena, constants, code) = (n(m.arena_bytes), n(m.const_bytes), n(m.code_bytes_estimate));
    vec![m.name.clone(), kind.into(), n(m.bytes), arena, constants, code, share]
}

fn memory_row(b: &BufferReport) -> Vec<String> {
    let live = format!("{}..{}", b.first, b.last);
    let place = b.memory.as_ref().map_or_else(String::new, |memory| format!("{memory} "));
    vec![place + &b.offset.to_string(), b.bytes.to_string(), b.kind.to_string(), live, short(&b.origin)]
}

/// Node names in the width of a column.
fn short(origin: &[String]) -> String {
    let all = origin.join(" ");
    let mut text: String = all.chars().take(40).flat_map(char::escape_debug).collect();
    if all.chars().nth(40).is_some() {
        text.push_str("...");
    }
    text
}

fn row(k: &KernelReport, report: &Report) -> Vec<String> {
    let percent =
        |part: f64, whole: f64| if whole > 0.0 { format!("{:.1}", 100.0 * part / whole) } else { "0.0".into() };
    let t = &report.totals;
    vec![
        k.index.to_string(),
        k.title(),
        k.output(),
        k.macs.to_string(),
        percent(k.macs as f64, t.macs as f64),
        k.cost_estimate.map_or("-".into(), |n| n.to_string()),
        percent(k.cost_estimate.unwrap_or(0) as f64, t.cost_estimate.unwrap_or(0) as f64),
        k.weight_bytes.to_string(),
        k.live_bytes.to_string(),
        percent(k.live_bytes as f64, t.peak_live_bytes as f64),
        k.implementation.to_string(),
        short(&k.origin),
    ]
}
