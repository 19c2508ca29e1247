//! `mcc run`: one run of a model on given inputs, compared with stored outputs where there are any.

use super::args::{ChoiceArgs, ModelArgs, SessionArgs};
use super::compare::{self, Difference, Tolerance};
use super::executor::{Backend, Executor};
use super::npz::{self, Npz};
use super::output;
use indicatif::ProgressBar;
use mcc::ir::{Target, Tensor};
use mcc::{Error, Model, Result};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Elements of an output that are shown.
const SHOWN: usize = 16;

/// Run a model once, and compare its outputs with stored ones.
///
/// A case holds arrays `in:NAME` and `out:NAME`. Without --rtol and --atol, a float may differ by 1e-4 of the largest
/// magnitude of its output, an integer by 1. A mismatch is shown with its first wrong element, and the exit code is 3.
/// Sizes of symbolic dimensions that are not given are taken from the arrays.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  mcc run model.onnx --backend jit --case model.npz")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    choices: ChoiceArgs,
    #[command(flatten)]
    session: SessionArgs,
    /// What runs the model
    #[arg(long, value_enum)]
    backend: Backend,
    /// Target to compile for; by default host, for C generic-c, for QEMU cortex-m4
    #[arg(long)]
    target: Option<String>,
    /// Inputs and expected outputs: arrays `in:NAME` and `out:NAME`
    #[arg(long, value_name = "IO.npz", required_unless_present = "inputs", conflicts_with = "inputs")]
    case: Option<PathBuf>,
    /// Inputs only: arrays under the inputs' names
    #[arg(long, value_name = "X.npz")]
    inputs: Option<PathBuf>,
    /// Largest |found - expected| / |expected|, added to --atol
    #[arg(long, value_parser = bound)]
    rtol: Option<f64>,
    /// Largest |found - expected|, added to --rtol
    #[arg(long, value_parser = bound)]
    atol: Option<f64>,
    /// Write the outputs to this file, under their names
    #[arg(long, value_name = "O.npz")]
    outputs: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

fn bound(text: &str) -> std::result::Result<f64, String> {
    text.parse().ok().filter(|b: &f64| *b >= 0.0).ok_or_else(|| format!("{text:?} is no number of at least 0"))
}

#[derive(Serialize)]
struct Outcome {
    model: PathBuf,
    backend: Backend,
    target: String,
    /// Whether every output is within the tolerance; null where nothing was compared.
    ok: Option<bool>,
    outputs: Vec<OutputResult>,
}

#[derive(Serialize)]
struct OutputResult {
    name: String,
    #[serde(rename = "type")]
    ty: String,
    /// The first elements.
    values: Vec<f64>,
    #[serde(flatten)]
    difference: Option<Difference>,
}

pub fn run(args: &Args) -> Result<()> {
    let tolerance = match (args.rtol, args.atol) {
        (None, None) => compare::STORED,
        (rtol, atol) => Tolerance::Stated { rtol: rtol.unwrap_or(0.0), atol: atol.unwrap_or(0.0) },
    };
    let target = args.backend.target(args.target.as_deref())?;
    let (path, prefix) = match (&args.case, &args.inputs) {
        (Some(path), _) => (path, "in:"),
        (None, Some(path)) => (path, ""),
        (None, None) => return Err(Error::Usage("give --case or --inputs".into())),
    };
    if (args.session.threads != 1 || args.session.cache.is_some()) && args.backend != Backend::Jit {
        return Err(Error::Usage("--threads and --cache are for the backend `jit`".into()));
    }
    let mut npz = Npz::open(path)?;
    let model = load(args, target, &mut npz, prefix)?;
    model.warnings.iter().for_each(output::note);
    let mut executor = Executor::new(args.backend, &model)?;
    let mut inputs = Vec::new();
    for (port, ty) in executor.inputs() {
        let tensor = npz.require(&format!("{prefix}{}", port.name))?;
        if tensor.ty() != ty {
            let reason = format!("array {:?} is {}, the model takes {ty}", port.name, tensor.ty());
            return Err(Error::Data { path: path.clone(), reason });
        }
        inputs.push(tensor);
    }
    let ports = executor.outputs().to_vec();
    let mut expected = Vec::new();
    for (port, ty) in &ports {
        let tensor = if args.case.is_some() { npz.get(&format!("out:{}", port.name))? } else { None };
        if let Some(t) = tensor.as_ref().filter(|t| t.ty() != ty) {
            let reason = format!("array \"out:{}\" is {}, the model gives {ty}", port.name, t.ty());
            return Err(Error::Data { path: path.clone(), reason });
        }
        expected.push(tensor);
    }
    if args.case.is_some() && expected.iter().all(Option::is_none) {
        let names: Vec<String> = ports.iter().map(|(p, _)| format!("out:{}", p.name)).collect();
        let reason = format!("it has none of the arrays {}; use --inputs to run without comparing", names.join(", "));
        return Err(Error::Data { path: path.clone(), reason });
    }
    let found = executor.run(&[inputs], &ProgressBar::hidden())?.pop().unwrap_or_default();
    let results: Vec<OutputResult> = ports
        .iter()
        .zip(found.iter().zip(&expected))
        .map(|((port, ty), (found, expected))| OutputResult {
            name: port.name.clone(),
            ty: ty.to_string(),
            values: found.to_f64().into_iter().take(SHOWN).collect(),
            difference: expected.as_ref().map(|e| compare::compare(found, e, tolerance)),
        })
        .collect();
    let wrong: Vec<String> = results.iter().filter_map(mismatch).collect();
    let ok = expected.iter().any(Option::is_some).then_some(wrong.is_empty());
    if let Some(to) = &args.outputs {
        save(to, &ports.iter().map(|(p, _)| p.name.clone()).zip(found).collect::<Vec<_>>(), args.json)?;
    }
    let outcome = Outcome {
        model: args.model.model.clone(),
        backend: args.backend,
        target: target.name.clone(),
        ok,
        outputs: results,
    };
    if args.json {
        output::print_json(&outcome)?;
    } else {
        output::print(&outcome.outputs.iter().map(line).collect::<String>())?;
    }
    if wrong.is_empty() { Ok(()) } else { Err(Error::Mismatch(wrong.join("; "))) }
}

/// Loads the model. Where dimensions are not known, those inputs that the user gave no shape take that of their array.
fn load(args: &Args, target: &'static Target, npz: &mut Npz, prefix: &str) -> Result<Model> {
    let load =
        |model: &ModelArgs| Model::load(&model.model, &args.session.choose(model.options(target, &args.choices)));
    match load(&args.model) {
        Err(Error::Import(e)) if e.code() == mcc::frontend::code::DIMENSION => {}
        other => return other,
    }
    let mut model = args.model.clone();
    for name in npz.names().to_vec() {
        let Some(input) = name.strip_prefix(prefix).filter(|i| model.input_shapes.iter().all(|(n, _)| n != i)) else {
            continue;
        };
        if let Some(tensor) = npz.get(&name)? {
            model.input_shapes.push((input.to_string(), tensor.shape().to_vec()));
        }
    }
    load(&model)
}

/// What is wrong with an output, if anything.
fn mismatch(result: &OutputResult) -> Option<String> {
    let d = result.difference.as_ref()?;
    let wrong = d.first_wrong.as_ref()?;
    Some(format!(
        "output {:?}: {} of {} elements differ, the first at {:?}: {} instead of {}",
        result.name, d.mismatches, d.elements, wrong.index, wrong.found, wrong.expected
    ))
}

fn line(result: &OutputResult) -> String {
    match &result.difference {
        Some(d) => format!(
            "{} {}: {} of {} elements differ, max_abs {:.3e}, max_rel {:.3e}\n",
            result.name, result.ty, d.mismatches, d.elements, d.max_abs, d.max_rel
        ),
        None => format!("{} {}: {:?}\n", result.name, result.ty, result.values),
    }
}

fn save(path: &Path, arrays: &[(String, Tensor)], quiet: bool) -> Result<()> {
    let bytes = npz::encode(arrays).map_err(|source| Error::Io { path: path.into(), source })?;
    let files = output::write_files(&[(path.into(), bytes)])?;
    if quiet { Ok(()) } else { output::print(&files.iter().map(output::Written::line).collect::<String>()) }
}
