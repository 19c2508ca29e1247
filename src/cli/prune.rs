//! `mcc prune`: weights that matter little become 0.

use super::args::ModelArgs;
use super::calibration::DataArgs;
use super::output::{self, Written};
use super::quantize::{db, outputs};
use mcc::Result;
use mcc::calibrate::{self, PruneOptions, PruneReport};
use mcc::passes::prune::Structure;
use serde::Serialize;
use std::path::PathBuf;

/// Set weights of a float model to 0, and fit the others anew, by running it on calibration inputs.
///
/// Weights go where that costs the layer's output least; layer by layer, those that stay are fitted to what the float model
/// computes. Shapes stay. The result is an ordinary model; kernels do not skip its zeros yet. Calibration inputs are as for
/// `mcc quantize`. The table says what each layer lost, the worst first.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  mcc prune net.onnx --calib train.npz --preprocess scale=1/255,layout=nchw --sparsity 0.5 -o p.onnx
  mcc prune net.onnx --calib inputs.npy --structure 2:4 -o p.onnx")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Calibration inputs: a .npy or .npz file or a folder of them
    #[arg(long, value_name = "FILE|DIR")]
    calib: PathBuf,
    /// Which weights become 0: `element`, any; `N:M`, all but N of each M successive input
    /// channels, in layers whose channels are a multiple of M
    #[arg(long, value_name = "STRUCTURE", value_parser = parse_structure, default_value = "element")]
    structure: Kind,
    /// Share of the weights that become 0, from 0 to below 1
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    sparsity: Option<f64>,
    /// Leave the weights of this node; may be given more than once
    #[arg(long, value_name = "NODE")]
    keep: Vec<String>,
    #[command(flatten)]
    data: DataArgs,
    /// Write the pruned model to this file, as ONNX or in the text form
    #[arg(short, long, value_name = "OUT.onnx|OUT.mcc")]
    output: PathBuf,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Element,
    Groups { keep: usize, of: usize },
}

fn parse_structure(text: &str) -> std::result::Result<Kind, String> {
    if text == "element" {
        return Ok(Kind::Element);
    }
    let numbers = text.split_once(':').and_then(|(keep, of)| Some((keep.parse().ok()?, of.parse().ok()?)));
    match numbers {
        Some((keep, of)) if 0 < keep && keep < of && of <= 64 => Ok(Kind::Groups { keep, of }),
        _ => Err(format!("{text:?} is neither `element` nor N:M with N below M, such as 2:4")),
    }
}

fn parse_share(text: &str) -> std::result::Result<f64, String> {
    let share = text.parse().ok().filter(|s| (0.0..1.0).contains(s));
    share.ok_or_else(|| format!("{text:?} is no share from 0 to below 1, such as 0.5"))
}

#[derive(Serialize)]
struct Outcome {
    #[serde(flatten)]
    report: PruneReport,
    files: Vec<Written>,
}

pub fn run(args: &Args) -> Result<()> {
    let onnx = output::is_onnx(&args.output)?;
    let structure = match (args.structure, args.sparsity) {
        (Kind::Groups { keep, of }, None) => Structure::Groups { keep, of },
        (Kind::Element, Some(sparsity)) => Structure::Element { sparsity },
        _ => return Err(mcc::Error::Usage("--sparsity belongs to --structure element, which needs it".into())),
    };
    let graph = mcc::text_file::load(&args.model.model, &args.model.import())?;
    let options = PruneOptions { structure, keep: args.keep.clone() };
    let work = |samples: &mut dyn calibrate::Samples, progress: &calibrate::Progress<'_>| {
        calibrate::prune(&graph, samples, &options, progress)
    };
    let pruned = args.data.with(&graph, &args.calib, work)?;
    let files = output::write_files(&output::model_files(&pruned.graph, &args.output, onnx)?)?;
    if args.json {
        return output::print_json(&Outcome { report: pruned.report, files });
    }
    output::print(&text(&pruned.report))?;
    output::print(&files.iter().map(Written::line).collect::<String>())
}

fn text(report: &PruneReport) -> String {
    let n = |n: usize| output::thousands(n as u64);
    let share = |zeros: usize, weights: usize| format!("{:.1} %", 100.0 * zeros as f64 / weights.max(1) as f64);
    let rows: Vec<Vec<String>> = report
        .layers
        .iter()
        .map(|l| {
            vec![
                format!("{:.2} %", 100.0 * l.output_error),
                db(l.output_sqnr_db),
                n(l.weights),
                share(l.zeros, l.weights),
                l.op.to_string(),
                output::short(&l.name),
            ]
        })
        .collect();
    let table = output::table(&["error", "SQNR dB", "weights", "zero", "op", "layer"], &rows);
    let zeros = format!(
        "{} of {} weights are 0: {}\n",
        n(report.zeros),
        n(report.weights),
        share(report.zeros, report.weights)
    );
    table + &outputs(&report.outputs, report.samples) + &zeros
}
