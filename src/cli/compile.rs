//! `mcc compile`: a model becomes C.

use super::args::{ChoiceArgs, IoArg, MemoryArgs, ModelArgs, c_target, parse_bytes};
use super::calibration::QuantizeArgs;
use super::output::{self, Written};
use super::quantize;
use super::requant;
use mcc::backends::c::CSource;
use mcc::backends::c::exec::{self, Core, ExecError};
use mcc::budget::Budget;
use mcc::ir::{Target, text};
use mcc::passes::pipeline;
use mcc::report::Report;
use mcc::{Error, Model, Options, Result};
use serde::Serialize;
use std::path::PathBuf;

/// Compile a model to C for a microcontroller.
///
/// Writes NAME.c, NAME.h and NAME.report.json. Where the target's cross compiler is installed, it also builds the C and says
/// how much code and stack that takes. Where the model needs more memory than the target or a budget has, nothing
/// is written and the exit code is 2.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  mcc compile model.onnx --target stm32h7 -o out --name net")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    choices: ChoiceArgs,
    #[command(flatten)]
    memory: MemoryArgs,
    /// Quantise the float model first, by --calib; `mcc quantize --help` describes it
    #[arg(long, requires = "calib")]
    quantize: bool,
    /// Calibration inputs: a .npy or .npz file or a folder of them
    #[arg(long, value_name = "FILE|DIR", requires = "quantize")]
    calib: Option<PathBuf>,
    #[command(flatten)]
    scheme: QuantizeArgs,
    /// Chip, core or `generic-c`; `mcc targets` lists them
    #[arg(long)]
    target: String,
    /// Folder that the files are written to
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Prefix of every C identifier, and the files' name
    #[arg(short, long)]
    name: String,
    /// Where inputs and outputs live
    #[arg(long, value_enum, default_value_t)]
    io: IoArg,
    /// RAM that arena, inputs and outputs may take, such as 64K; by default that of the chip
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    ram: Option<usize>,
    /// Flash that constants and code (estimated) may take; by default that of the chip
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    flash: Option<usize>,
    /// Write the graph after each pass to this folder, in the text form
    #[arg(long, value_name = "DIR")]
    dump_passes: Option<PathBuf>,
    /// Show the graph after this pass on stderr; may be given more than once
    #[arg(long, value_name = "PASS")]
    print_after: Vec<String>,
    /// Print the report, the files and the time of each pass as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Summary {
    report: Report,
    /// What quantisation cost, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    quantised: Option<mcc::calibrate::Report>,
    /// Absent where the target's cross compiler is.
    built: Option<Built>,
    files: Vec<Written>,
    passes: Vec<PassTime>,
}

/// What the model takes when it is built. It depends on the compiler that is installed, so it is in no file.
#[derive(Serialize)]
struct Built {
    compiler: String,
    flash_bytes: usize,
    code_bytes: usize,
    stack_bytes: usize,
}

/// What a pass did and how long it took.
#[derive(Serialize)]
struct PassTime {
    name: &'static str,
    changed: bool,
    microseconds: u128,
    values: usize,
}

pub fn run(args: &Args) -> Result<()> {
    let target = c_target(&args.target)?;
    for name in &args.print_after {
        pipeline::find(name)?;
    }
    let options = Options { io: args.io.into(), ..args.model.options(target, &args.choices) };
    let mut options = args.memory.choose(options)?;
    options.ram = args.ram.or(options.ram);
    let target = &options.target;
    let (graph, quantised) = args.scheme.load(&args.model, args.calib.as_deref())?;
    let mut files = Vec::new();
    if let Some(folder) = &args.dump_passes {
        files.extend(output::graph_files(&graph, &folder.join("00-import.mcc")));
    }
    let mut step = 0;
    let model = Model::from_graph_with(graph, &options, |name, graph| {
        step += 1;
        if let Some(folder) = &args.dump_passes {
            files.extend(output::graph_files(graph, &folder.join(format!("{step:02}-{name}.mcc"))));
        }
        if args.print_after.iter().any(|p| p == name) {
            eprint!("// after {name}\n{}", text::print(graph));
        }
    })?;
    model.warnings.iter().for_each(output::note);
    let plan = model.plan()?;
    let report = Report { requant: requant::differing(&model)?, ..Report::of(&plan, target) };
    let budget = Budget { ram: args.ram.or(target.ram), flash: args.flash.or(target.flash) };
    if !budget.holds(&report) {
        let (over, remedies) = (budget.excess(&report), budget.remedies(&model, &plan));
        return Err(Error::Budget { over, remedies });
    }
    let source = model.c_source(&args.name)?;
    let built = built(&source, target, report.totals.weight_bytes);
    let at = |ending: &str| args.output.join(format!("{}{ending}", args.name));
    files.push((at(".c"), source.source.into_bytes()));
    files.push((at(".h"), source.header.into_bytes()));
    files.push((at(".report.json"), output::json(&report).into_bytes()));
    let files = output::write_files(&files)?;
    if args.json {
        let time = |p: &mcc::PassRecord| PassTime {
            name: p.name,
            changed: p.changed,
            microseconds: p.time.as_micros(),
            values: p.values,
        };
        let quantised = quantised.map(|q| q.report);
        let passes = model.passes.iter().map(time).collect();
        return output::print_json(&Summary { report, quantised, built, files, passes });
    }
    if let Some(q) = &quantised {
        output::print(&quantize::text(&q.report))?;
    }
    output::print(&files.iter().map(Written::line).collect::<String>())?;
    output::print(&totals(&report))?;
    output::print(&built.as_ref().map_or(String::new(), line))
}

/// Builds the C, where the target's core has a cross compiler that is installed.
fn built(c: &CSource, target: &Target, weight_bytes: usize) -> Option<Built> {
    let core = Core::of(target).ok()?;
    match exec::measure(c, core) {
        Ok(m) => Some(Built {
            code_bytes: m.flash_bytes.saturating_sub(weight_bytes),
            compiler: m.compiler,
            flash_bytes: m.flash_bytes,
            stack_bytes: m.stack_bytes,
        }),
        Err(ExecError::Missing { .. }) => None,
        Err(e) => {
            output::note(format_args!("code and stack are not measured: {e}"));
            None
        }
    }
}

fn line(b: &Built) -> String {
    let n = |n: usize| output::thousands(n as u64);
    format!(
        "built by {}: code {} B, flash {} B, stack {} B\n",
        b.compiler,
        n(b.code_bytes),
        n(b.flash_bytes),
        n(b.stack_bytes)
    )
}

/// The totals in one paragraph.
pub fn totals(report: &Report) -> String {
    let t = &report.totals;
    let n = |n: usize| output::thousands(n as u64);
    let mut text = format!(
        "target {}   macc {}   weights (ro) {} B   activations (rw) {} B   ram {} B   flash {} B (code estimated)\n",
        report.target,
        output::thousands(t.macs),
        n(t.weight_bytes),
        n(t.arena_bytes),
        n(t.ram_bytes),
        n(t.flash_bytes_estimate),
    );
    text += &format!(
        "arena {} B: {:.1} % above the {} B that live together, {:.1} % above the largest operator's {} B\n",
        n(t.arena_bytes),
        t.arena_gap_live_percent,
        n(t.arena_bound_live_bytes),
        t.arena_gap_operator_percent,
        n(t.arena_bound_operator_bytes),
    );
    if let (Some(cost), Some(unit)) = (t.cost_estimate, t.cost_unit) {
        let latency = t.latency_ms_estimate.map_or(String::new(), |ms| format!(", {ms} ms at the chip's clock"));
        text += &format!("one run {} {unit}{latency} (estimate, without wait states)\n", output::thousands(cost));
    }
    if let Some(r) = &report.requant {
        text += &format!(
            "requantised in integers: {} of {} output elements differ on {} random samples\n",
            n(r.differing),
            n(r.elements),
            r.samples
        );
    }
    text
}
