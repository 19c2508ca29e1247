//! `mcc eval`: accuracy on a labelled data set.

use super::args::{ChoiceArgs, ModelArgs};
use super::executor::{Backend, Executor};
use super::npz::Npz;
use super::output;
use super::preprocess::{Prepared, Spec, stored_quant};
use clap::ValueEnum;
use mcc::ir::graph::Port;
use mcc::ir::{Tensor, TensorType};
use mcc::{Error, Result};
use serde::Serialize;
use std::path::PathBuf;

/// Runs handed to the executor at one time, so that memory stays bounded; C is built once for all.
const BATCH: usize = 512;

/// Measure a model's accuracy on a labelled data set
///
/// The data set holds the samples as array `x` and the labels as array `y`. The first output is scored. A model whose input
/// is an integer gets real samples quantised by the parameters of its input.
///
/// Preprocessing is a list of steps, applied in order:
///   scale=V  offset=V  mean=V[;V...]  std=V[;V...]   multiply, add, subtract, divide; V is 0.5 or 1/255
///   layout=nchw|nhwc     turn images of rank 3 to channels first or channels last
///   dequantise           integers become real by the data set's arrays scale and zero_point
///   quantise             real numbers become integers by the parameters of the model's input
///   dtype=i8|u8|i16|i32  round half to even and saturate
///   windows=RxC:mse      run every R consecutive rows of C columns; score is the mean squared error of the reconstruction
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:
  mcc eval ad.onnx --data ad01.npz --preprocess windows=5x128:mse --metric auc
  mcc eval net.onnx --data test.npz --preprocess scale=1/255,layout=nchw --metric top1"
)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    choices: ChoiceArgs,
    /// Archive with the arrays x and y
    #[arg(long, value_name = "SET.npz")]
    data: PathBuf,
    /// Steps that turn a sample into the model's input
    #[arg(long, value_name = "SPEC", default_value = "")]
    preprocess: Spec,
    /// What is measured
    #[arg(long, value_enum)]
    metric: Metric,
    /// What runs the model
    #[arg(long, value_enum, default_value = "jit")]
    backend: Backend,
    /// Target to compile for; by default host, for C generic-c, for QEMU cortex-m4
    #[arg(long)]
    target: Option<String>,
    /// Array of the samples
    #[arg(long, value_name = "NAME", default_value = "x")]
    x: String,
    /// Array of the labels
    #[arg(long, value_name = "NAME", default_value = "y")]
    y: String,
    /// Use the first N samples only
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Metric {
    /// Share of samples whose largest output is the label's
    Top1,
    /// Area under the ROC curve; label 0 is normal, 1 is to be found
    Auc,
}

#[derive(Serialize)]
struct Outcome {
    model: PathBuf,
    data: PathBuf,
    backend: Backend,
    target: String,
    metric: Metric,
    /// From 0 to 1.
    value: f64,
    samples: usize,
    /// Samples labelled rightly; for top1 only.
    correct: Option<usize>,
}

pub fn run(args: &Args) -> Result<()> {
    let bad = |reason: String| Error::Data { path: args.data.clone(), reason };
    let target = args.backend.target(args.target.as_deref())?;
    let mut npz = Npz::open(&args.data)?;
    let (x, y) = (npz.require(&args.x)?, npz.require(&args.y)?);
    let stored = stored_quant(npz.get("scale")?.as_ref(), npz.get("zero_point")?.as_ref());
    let samples = x.shape().first().copied().unwrap_or(0);
    if y.ty().elements() != samples || samples == 0 {
        return Err(bad(format!("{:?} holds {samples} samples, {:?} {} labels", args.x, args.y, y.ty().elements())));
    }
    let samples = samples.min(args.limit.unwrap_or(samples));
    let model = args.model.load(target, &args.choices)?;
    let mut executor = Executor::new(args.backend, &model)?;
    let [(port, ty)] = executor.inputs() else {
        return Err(Error::Usage(format!(
            "eval needs a model with one input, this one has {}",
            executor.inputs().len()
        )));
    };
    let (port, ty) = (port.clone(), ty.clone());
    let (out_port, _) = executor.outputs().first().cloned().ok_or_else(|| bad("the model has no output".into()))?;

    let sample_ty = TensorType::new(x.dtype(), &x.shape()[1..]);
    let mut runs: Vec<Prepared> = Vec::new();
    let mut scores: Vec<Vec<f64>> = Vec::new();
    let mut owners: Vec<usize> = Vec::new();
    let bar = output::progress(samples, "eval");
    let batch = if matches!(args.backend, Backend::C | Backend::Qemu) { usize::MAX } else { BATCH };
    for i in 0..samples {
        let size = sample_ty.bytes();
        let sample = Tensor::from_bytes(sample_ty.clone(), x.bytes().slice(i * size..(i + 1) * size))
            .map_err(|e| bad(e.to_string()))?;
        let inputs = args.preprocess.apply(&sample, &port, &ty, stored).map_err(Error::Usage)?;
        owners.extend(std::iter::repeat_n(i, inputs.len()));
        runs.extend(inputs);
        if runs.len() >= batch || i + 1 == samples {
            flush(&mut executor, &mut runs, &out_port, args, &mut scores)?;
            bar.set_position(i as u64 + 1);
        }
    }
    bar.finish_and_clear();

    let labels: Vec<i64> = y.to_i64().into_iter().take(samples).collect();
    let (value, correct) = match args.metric {
        Metric::Top1 => {
            let correct = scores.iter().zip(&labels).filter(|(s, y)| argmax(s) as i64 == **y).count();
            (correct as f64 / samples as f64, Some(correct))
        }
        Metric::Auc => {
            let mut sums = vec![(0f64, 0usize); samples];
            for (owner, score) in owners.iter().zip(&scores) {
                sums[*owner].0 += single(score).map_err(Error::Usage)?;
                sums[*owner].1 += 1;
            }
            let means: Vec<f64> = sums.iter().map(|(sum, n)| sum / *n as f64).collect();
            (auc(&means, &labels).map_err(bad)?, None)
        }
    };
    let outcome = Outcome {
        model: args.model.model.clone(),
        data: args.data.clone(),
        backend: args.backend,
        target: target.name.clone(),
        metric: args.metric,
        value,
        samples,
        correct,
    };
    if args.json {
        return output::print_json(&outcome);
    }
    output::print(&match correct {
        Some(correct) => format!("top1 {:.2} % ({correct} of {samples})\n", 100.0 * value),
        None => format!("auc {value:.4} ({samples} samples)\n"),
    })
}

/// Runs what is prepared and appends the score of each run: for windows the error of the reconstruction, else the output.
fn flush(
    executor: &mut Executor,
    runs: &mut Vec<Prepared>,
    port: &Port,
    args: &Args,
    scores: &mut Vec<Vec<f64>>,
) -> Result<()> {
    let (inputs, reals): (Vec<Vec<Tensor>>, Vec<Vec<f64>>) = runs.drain(..).map(|p| (vec![p.input], p.real)).unzip();
    let outputs = executor.run(&inputs, &indicatif::ProgressBar::hidden())?;
    for (mut outputs, real) in outputs.into_iter().zip(reals) {
        let output = dequantised(&outputs.swap_remove(0), port);
        if args.preprocess.windows.is_none() {
            scores.push(output);
        } else if output.len() == real.len() {
            let square: f64 = output.iter().zip(&real).map(|(a, b)| (a - b) * (a - b)).sum();
            scores.push(vec![square / real.len() as f64]);
        } else {
            let reason = format!("windows score a reconstruction: {} outputs for {} inputs", output.len(), real.len());
            return Err(Error::Usage(reason));
        }
    }
    Ok(())
}

/// The real numbers of an output.
fn dequantised(output: &Tensor, port: &Port) -> Vec<f64> {
    let values = output.to_f64();
    match port.quant.filter(|_| !output.dtype().is_float()) {
        Some(q) => values.into_iter().map(|v| (v - q.zero_point as f64) * q.scale.0 as f64).collect(),
        None => values,
    }
}

/// The index of the largest value, the first among equals.
fn argmax(values: &[f64]) -> usize {
    let mut best = 0;
    for (i, v) in values.iter().enumerate() {
        if *v > values[best] || values[best].is_nan() {
            best = i;
        }
    }
    best
}

/// One number that grows with the likelihood of label 1.
fn single(output: &[f64]) -> std::result::Result<f64, String> {
    match output {
        [one] => Ok(*one),
        [no, yes] => Ok(yes - no),
        _ => Err(format!("auc needs an output of one or two elements, or windows; this one has {}", output.len())),
    }
}

/// The chance that a sample of label 1 scores above one of label 0; equal scores count half (Mann and Whitney, 1947).
fn auc(scores: &[f64], labels: &[i64]) -> std::result::Result<f64, String> {
    if let Some(other) = labels.iter().find(|y| !matches!(y, 0 | 1)) {
        return Err(format!("auc needs labels 0 and 1, not {other}"));
    }
    if scores.iter().any(|s| s.is_nan()) {
        return Err("a score is not a number".into());
    }
    let positive = labels.iter().filter(|y| **y == 1).count();
    let negative = labels.len() - positive;
    if positive == 0 || negative == 0 {
        return Err("auc needs samples of both labels".into());
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    let mut rank_sum = 0.0;
    let mut at = 0;
    while at < order.len() {
        let equal = order[at..].iter().take_while(|i| scores[**i] == scores[order[at]]).count();
        let rank = at as f64 + (equal as f64 + 1.0) / 2.0;
        rank_sum += rank * order[at..at + equal].iter().filter(|i| labels[**i] == 1).count() as f64;
        at += equal;
    }
    let (p, n) = (positive as f64, negative as f64);
    Ok((rank_sum - p * (p + 1.0) / 2.0) / (p * n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auc_counts_pairs_and_halves_ties() {
        assert_eq!(auc(&[0.1, 0.2, 0.3, 0.4], &[0, 0, 1, 1]), Ok(1.0));
        assert_eq!(auc(&[0.4, 0.3, 0.2, 0.1], &[0, 0, 1, 1]), Ok(0.0));
        assert_eq!(auc(&[1.0, 1.0, 1.0, 1.0], &[0, 1, 0, 1]), Ok(0.5));
        // Pairs (label 1, label 0): 3 > 1, 3 > 2, 2 > 1, 2 = 2.
        assert_eq!(auc(&[1.0, 2.0, 2.0, 3.0], &[0, 0, 1, 1]), Ok(3.5 / 4.0));
        assert!(auc(&[1.0], &[1]).is_err() && auc(&[1.0, 2.0], &[0, 2]).is_err());
    }

    #[test]
    fn the_first_of_equal_outputs_is_the_label() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), 1);
        assert_eq!(argmax(&[f64::NAN, 1.0, 0.0]), 1);
    }
}
