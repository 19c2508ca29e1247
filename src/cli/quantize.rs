//! `mcc quantize`: a float model becomes an integer one.

use super::args::ModelArgs;
use super::calibration::QuantizeArgs;
use super::output::{self, Written};
use mcc::Result;
use mcc::calibrate::{OutputReport, Report};
use serde::Serialize;
use std::path::PathBuf;

/// Quantise a float model by running it on calibration inputs.
///
/// Weights become integers with a scale for each channel, activations integers with a scale and a zero point, and the biases
/// make up for the mean error. Weights of fewer than 8 bits are fitted layer by layer to what the float model computes. The
/// result is the model with QuantizeLinear and DequantizeLinear in it; inputs and outputs stay as they are. The table says
/// what each layer lost, the worst first.
///
/// Calibration inputs are a .npy or .npz file or a folder of them, the first axis the samples: some hundred inputs of the
/// kind that the model will see, without labels. In an archive they are the arrays under the inputs' names, or `x`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  mcc quantize net.onnx --calib train.npz --preprocess scale=1/255,layout=nchw -o q.onnx
  mcc quantize net.onnx --calib inputs.npy --scheme w4a8 -o q.onnx")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Calibration inputs
    #[arg(long, value_name = "FILE|DIR")]
    calib: PathBuf,
    #[command(flatten)]
    quantize: QuantizeArgs,
    /// Write the quantised model to this file, as ONNX or in the text form
    #[arg(short, long, value_name = "OUT.onnx|OUT.mcc")]
    output: PathBuf,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Outcome {
    #[serde(flatten)]
    report: Report,
    files: Vec<Written>,
}

pub fn run(args: &Args) -> Result<()> {
    let onnx = output::is_onnx(&args.output)?;
    let graph = mcc::text_file::load(&args.model.model, &args.model.import())?;
    let quantised = args.quantize.quantise(&graph, &args.calib)?;
    let files = output::write_files(&output::model_files(&quantised.graph, &args.output, onnx)?)?;
    if args.json {
        return output::print_json(&Outcome { report: quantised.report, files });
    }
    output::print(&text(&quantised.report))?;
    output::print(&files.iter().map(Written::line).collect::<String>())
}

/// A table of the layers, and a line for each output.
pub fn text(report: &Report) -> String {
    let rows: Vec<Vec<String>> = report
        .layers
        .iter()
        .map(|l| {
            vec![
                format!("{:.2} %", 100.0 * l.output_error),
                db(l.output_sqnr_db),
                db(l.weight_sqnr_db),
                format!("{:.3}", l.weight_bits).trim_end_matches('0').trim_end_matches('.').to_string(),
                l.activation_bits.to_string(),
                output::thousands(l.bytes as u64),
                l.op.to_string(),
                output::short(&l.name),
            ]
        })
        .collect();
    let header = ["error", "SQNR dB", "weights dB", "w bits", "a bits", "bytes", "op", "layer"];
    let mut text = output::table(&header, &rows);
    let n = |n: usize| output::thousands(n as u64);
    text += &outputs(&report.outputs, report.samples);
    text + &format!("weights {} B, were {} B\n", n(report.weight_bytes_after), n(report.weight_bytes_before))
}

/// A line for each output.
pub fn outputs(outputs: &[OutputReport], samples: usize) -> String {
    let line = |o: &OutputReport| {
        format!(
            "output {:?}: SQNR {} dB, largest element the same on {} of {samples} samples\n",
            o.name,
            db(o.sqnr_db),
            o.same_largest
        )
    };
    outputs.iter().map(line).collect()
}

pub fn db(v: Option<f64>) -> String {
    v.map_or("exact".into(), |v| format!("{v:.1}"))
}
