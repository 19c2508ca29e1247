//! `mcc opt`: passes on a graph, shown in the text form.

use super::args::ModelArgs;
use super::output::{self, Written};
use mcc::Result;
use mcc::backends::targets;
use mcc::ir::text;
use mcc::passes::{PassCx, pass, pipeline};
use std::path::PathBuf;

/// Run passes on a graph and show it in the text form.
///
/// With -o OUT.mcc, constants of more than 64 elements go to a .safetensors file beside the text. With -o OUT.onnx, the
/// graph is written as an ONNX model of the standard operators.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  mcc opt model.onnx -o model.mcc
  mcc opt model.mcc --pass fold,integerise
  mcc opt model.mcc --pass fold -o model.onnx")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Passes to run, in order; none without this option or --pipeline. `mcc passes` lists them
    #[arg(long, value_name = "PASS,...", value_delimiter = ',', conflicts_with = "pipeline")]
    pass: Vec<String>,
    /// Run all passes, as the compiler does
    #[arg(long)]
    pipeline: bool,
    /// Target that the passes optimise for
    #[arg(long, default_value = "generic-c")]
    target: String,
    /// Show the graph after each pass on stderr
    #[arg(long)]
    print_after: bool,
    /// Write the graph to this file
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    let target = targets::find(&args.target)?;
    let cx = PassCx { warn: &output::note, ..PassCx::quiet(target) };
    let passes = match args.pipeline {
        true => pipeline::wanted(&cx).collect(),
        false => args.pass.iter().map(|name| pipeline::find(name)).collect::<std::result::Result<Vec<_>, _>>()?,
    };
    let onnx = args.output.as_deref().map_or(Ok(false), output::is_onnx)?;
    let mut graph = mcc::text_file::load(&args.model.model, &args.model.import())?;
    mcc::ir::verify::verify(&graph)?;
    for pass in passes {
        pass::run(pass, &mut graph, &cx)?;
        if args.print_after {
            eprint!("// after {}\n{}", pass.name(), text::print(&graph));
        }
    }
    match &args.output {
        Some(path) => {
            let files = output::write_files(&output::model_files(&graph, path, onnx)?)?;
            output::print(&files.iter().map(Written::line).collect::<String>())
        }
        None => output::print(&text::print(&graph)),
    }
}
