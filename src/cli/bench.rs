//! `mcc bench`: how fast the just-in-time compiled model runs on this machine.

use super::args::{ChoiceArgs, ModelArgs, SessionArgs};
use super::output;
use super::tap::random_inputs;
use mcc::backends::targets;
use mcc::ir::{DType, Tensor};
use mcc::passes::lower::Io;
use mcc::report::{KernelReport, Report};
use mcc::{Error, Model, Result, TensorMut, TensorRef};
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Runs before the clock counts.
const WARM_UP: usize = 10;

/// Time the just-in-time compiled model on this machine.
///
/// Inputs are random, always the same. Each run is timed on its own.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  mcc bench model.onnx --runs 1000 --json")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    session: SessionArgs,
    /// Timed runs
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Show the time of every kernel
    #[arg(long)]
    per_node: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The time of one kernel, the least of all runs.
#[derive(Serialize)]
struct NodeTime {
    min_us: f64,
    #[serde(flatten)]
    kernel: KernelReport,
}

#[derive(Serialize)]
struct Outcome {
    model: PathBuf,
    runs: usize,
    threads: usize,
    median_us: f64,
    min_us: f64,
    p95_us: f64,
    /// Import and passes.
    load_ms: f64,
    /// Plan, packed weights and code.
    session_ms: f64,
    /// Both.
    compile_ms: f64,
    arena_bytes: usize,
    weight_bytes: usize,
    /// By how much compiling and the first run raised the most memory that the process held; Linux only.
    #[serde(skip_serializing_if = "Option::is_none")]
    session_peak_bytes: Option<usize>,
    macs: u64,
    /// The level of the processor that kernels were chosen for.
    cpu: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<Vec<NodeTime>>,
}

/// The most bytes that this process ever held, where the system tells.
fn most_memory() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<usize>().ok().map(|kib| kib * 1024)
}

pub fn run(args: &Args) -> Result<()> {
    let target = targets::find("host")?;
    let memory_before = most_memory();
    let start = Instant::now();
    let options = args.session.choose(args.model.options(target, &ChoiceArgs::default()));
    let mut model = Model::load(&args.model.model, &options)?;
    let load = start.elapsed();
    model.warnings.iter().for_each(output::note);
    // As sessions have it.
    model.io = Io::Separate;
    let mut session = model.session()?;
    let compile = start.elapsed();
    let inputs = random_inputs(&model.integer, 1)?;
    let inputs: Option<Vec<Elements>> = inputs.iter().map(Elements::of).collect();
    let outputs: Option<Vec<Elements>> = session
        .outputs()
        .iter()
        .map(|p| Elements::of(&Tensor::from_bytes(p.ty.clone(), vec![0; p.ty.bytes()]).ok()?))
        .collect();
    let (Some(inputs), Some(mut outputs)) = (inputs, outputs) else {
        return Err(Error::Usage("an input or output has an element type that sessions do not take".into()));
    };
    let inputs: Vec<TensorRef<'_>> = inputs.iter().map(Elements::borrow).collect();
    let mut outputs: Vec<TensorMut<'_>> = outputs.iter_mut().map(Elements::borrow_mut).collect();
    session.run(&inputs, &mut outputs)?;
    let session_peak_bytes = most_memory().zip(memory_before).map(|(now, before)| now - before);
    let runs = args.runs as usize;
    let bar = output::progress(runs, "bench");
    let mut times = Vec::with_capacity(runs);
    for i in 0..WARM_UP + runs {
        let start = Instant::now();
        session.run(&inputs, &mut outputs)?;
        let time = start.elapsed();
        if i >= WARM_UP {
            times.push(time);
            bar.inc(1);
        }
    }
    let plan = model.plan()?;
    let mut least = vec![Duration::MAX; plan.kernels.len()];
    for _ in 0..if args.per_node { runs } else { 0 } {
        let mut last = Instant::now();
        session.run_observed(&inputs, &mut outputs, |done| {
            let now = Instant::now();
            if let Some(least) = done.checked_sub(1).and_then(|i| least.get_mut(i)) {
                *least = (*least).min(now - last);
            }
            last = Instant::now();
        })?;
    }
    bar.finish_and_clear();
    times.sort();
    let us = |t: Duration| t.as_nanos() as f64 / 1e3;
    let outcome = Outcome {
        model: args.model.model.clone(),
        runs,
        threads: options.threads,
        median_us: us(times[runs / 2]),
        min_us: us(times[0]),
        p95_us: us(times[(runs * 95).div_ceil(100).max(1) - 1]),
        load_ms: us(load) / 1e3,
        session_ms: us(compile - load) / 1e3,
        compile_ms: us(compile) / 1e3,
        arena_bytes: session.arena_bytes(),
        weight_bytes: session.weights_bytes(),
        session_peak_bytes,
        macs: plan.macs(),
        cpu: mcc::runtime::cpu::level().map_err(mcc::backends::jit::Error::from)?.name(),
        nodes: args.per_node.then(|| {
            let kernels = Report::of(&plan, target).kernels;
            kernels.into_iter().zip(&least).map(|(kernel, t)| NodeTime { min_us: us(*t), kernel }).collect()
        }),
    };
    if args.json {
        return output::print_json(&outcome);
    }
    let o = &outcome;
    if let Some(nodes) = &o.nodes {
        let total: f64 = nodes.iter().map(|n| n.min_us).sum();
        let rows: Vec<Vec<String>> = nodes.iter().map(|n| node_row(n, total)).collect();
        output::print(&output::table(&["id", "op(fused)", "out", "us", "%", "GMAC/s", "impl"], &rows))?;
    }
    output::print(&format!(
        "median {:.1} us   min {:.1} us   p95 {:.1} us   ({runs} runs, {}, {})\ncompiled in {:.1} ms   arena {} B   \
         weights {} B   {:.2} GMAC/s\n",
        o.median_us,
        o.min_us,
        o.p95_us,
        if o.threads == 1 { "1 thread".to_string() } else { format!("{} threads", o.threads) },
        o.cpu,
        o.compile_ms,
        output::thousands(o.arena_bytes as u64),
        output::thousands(o.weight_bytes as u64),
        o.macs as f64 / o.median_us / 1e3,
    ))
}

fn node_row(n: &NodeTime, total: f64) -> Vec<String> {
    let k = &n.kernel;
    vec![
        k.index.to_string(),
        k.title(),
        k.output(),
        format!("{:.2}", n.min_us),
        format!("{:.1}", 100.0 * n.min_us / total),
        if k.macs > 0 { format!("{:.1}", k.macs as f64 / n.min_us / 1e3) } else { String::new() },
        k.implementation.to_string(),
    ]
}

macro_rules! elements {
    ($($variant:ident, $element:ty;)*) => {
        /// Elements that a session reads or writes.
        enum Elements {
            $($variant(Vec<$element>),)*
        }

        impl Elements {
            /// `None` for element types that sessions do not take.
            fn of(tensor: &Tensor) -> Option<Elements> {
                match tensor.dtype() {
                    $(DType::$variant => tensor.to_vec().map(Elements::$variant),)*
                    _ => None,
                }
            }

            fn borrow(&self) -> TensorRef<'_> {
                match self {
                    $(Elements::$variant(v) => v.into(),)*
                }
            }

            fn borrow_mut(&mut self) -> TensorMut<'_> {
                match self {
                    $(Elements::$variant(v) => v.into(),)*
                }
            }
        }
    };
}

elements! {
    F32, f32;
    I64, i64;
    I32, i32;
    I16, i16;
    I8, i8;
    U8, u8;
    Bool, bool;
}
