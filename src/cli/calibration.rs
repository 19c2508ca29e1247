//! Calibration data, and the options of quantisation.

use super::args::ModelArgs;
use super::npz::{self, Npz};
use super::output;
use super::preprocess::{Spec, stored_quant};
use clap::ValueEnum;
use mcc::calibrate::{self, Progress, Quantised, Samples};
use mcc::ir::graph::{Graph, Port};
use mcc::ir::{DType, QuantParams, Tensor, TensorType};
use mcc::passes::quantize::{Method, Scheme};
use mcc::{Error, Result};
use std::path::{Path, PathBuf};

/// How to quantise.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
pub struct QuantizeArgs {
    /// Widths of weights and activations
    #[arg(long, value_enum, value_name = "SCHEME", default_value = "int8")]
    scheme: SchemeArg,
    /// How activations are clipped: `minmax`, `percentile` (of 99.99 %) or `percentile:P`, `entropy`, `mse`
    #[arg(long, value_name = "METHOD", value_parser = parse_method, default_value = "mse")]
    method: Method,
    /// One scale for all weights of a layer instead of one a channel, after equalisation across layers; for weights of 8 bits
    #[arg(long)]
    per_tensor: bool,
    /// Leave the node with this name in floating point; may be given more than once
    #[arg(long, value_name = "NODE")]
    keep: Vec<String>,
    #[command(flatten)]
    data: DataArgs,
}

/// How calibration data is read.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
pub struct DataArgs {
    /// Steps that turn stored samples into inputs of the model, as for `mcc eval`; none for inputs that are ready
    #[arg(long, value_name = "SPEC", default_value = "", hide_default_value = true)]
    preprocess: Spec,
    /// Use this many samples, spread over all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    samples: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum SchemeArg {
    /// Weights and activations of 8 bits
    #[default]
    Int8,
    /// Weights of 8 bits, activations of 16
    Int16x8,
    /// Weights of 4 bits, activations of 8
    W4a8,
    /// Weights of 2 bits, activations of 8; weights of the first and the last layer of 8 bits
    W2a8,
    /// Weights -1, 0, 1; else as w2a8
    Ternary,
    /// Weights -1 and 1; else as w2a8
    Binary,
}

impl From<SchemeArg> for Scheme {
    fn from(scheme: SchemeArg) -> Scheme {
        match scheme {
            SchemeArg::Int8 => Scheme::Int8,
            SchemeArg::Int16x8 => Scheme::Int16x8,
            SchemeArg::W4a8 => Scheme::W4a8,
            SchemeArg::W2a8 => Scheme::W2a8,
            SchemeArg::Ternary => Scheme::Ternary,
            SchemeArg::Binary => Scheme::Binary,
        }
    }
}

fn parse_method(text: &str) -> std::result::Result<Method, String> {
    match text {
        "minmax" => return Ok(Method::MinMax),
        "percentile" => return Ok(Method::Percentile(99.99)),
        "entropy" => return Ok(Method::Entropy),
        "mse" => return Ok(Method::Mse),
        _ => {}
    }
    let percent = text.strip_prefix("percentile:").and_then(|p| p.parse().ok()).filter(|p| (50.0..=100.0).contains(p));
    percent.map(Method::Percentile).ok_or_else(|| {
        format!("{text:?} is none of minmax, percentile, percentile:P with P from 50 to 100, entropy, mse")
    })
}

impl DataArgs {
    /// Does something with the calibration inputs in a file or a folder, and shows how far it is.
    ///
    /// # Errors
    /// Where the data does not serve, and those of `work`.
    pub fn with<T>(
        &self,
        graph: &Graph,
        calib: &Path,
        work: impl FnOnce(&mut dyn Samples, &Progress<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut data = DataSet::open(calib, graph, &self.preprocess, self.samples)?;
        let bar = output::progress(0, "");
        let progress = |what: &str, done: usize, of: usize| {
            if bar.message() != what {
                bar.reset();
                bar.set_message(what.to_string());
            }
            bar.set_length(of as u64);
            bar.set_position(done as u64);
        };
        let result = work(&mut data, &progress);
        bar.finish_and_clear();
        result
    }
}

impl QuantizeArgs {
    /// Quantises a graph with the calibration inputs in a file or a folder.
    ///
    /// # Errors
    /// Where the data or the model does not serve.
    pub fn quantise(&self, graph: &Graph, calib: &Path) -> Result<Quantised> {
        let options = calibrate::Options {
            scheme: self.scheme.into(),
            method: self.method,
            per_tensor: self.per_tensor,
            keep: self.keep.clone(),
        };
        self.data.with(graph, calib, |samples, progress| calibrate::quantise(graph, samples, &options, progress))
    }

    /// Imports a model and quantises it, where there is calibration data.
    ///
    /// # Errors
    /// As [`QuantizeArgs::quantise`], and where options are given that need the data.
    pub fn load(&self, model: &ModelArgs, calib: Option<&Path>) -> Result<(Graph, Option<Quantised>)> {
        let graph = mcc::text_file::load(&model.model, &model.import())?;
        match calib {
            Some(calib) => {
                let mut quantised = self.quantise(&graph, calib)?;
                let graph = std::mem::take(&mut quantised.graph);
                Ok((graph, Some(quantised)))
            }
            None if *self == QuantizeArgs::default() => Ok((graph, None)),
            None => Err(Error::Usage(
                "--scheme, --method, --per-tensor, --keep, --preprocess and --samples belong to --quantize with --calib".into(),
            )),
        }
    }
}

/// The arrays of one file, one for each input of the model, the first axis the samples.
struct Loaded {
    file: usize,
    arrays: Vec<Tensor>,
    stored: Option<QuantParams>,
}

/// Samples in files; one file at a time is in memory.
struct DataSet<'a> {
    ports: Vec<(Port, TensorType)>,
    spec: &'a Spec,
    /// Files, and the inputs that each gives.
    files: Vec<(PathBuf, usize)>,
    total: usize,
    wanted: usize,
    loaded: Option<Loaded>,
}

impl<'a> DataSet<'a> {
    fn open(path: &Path, graph: &Graph, spec: &'a Spec, limit: Option<u32>) -> Result<DataSet<'a>> {
        let paths = if path.is_dir() { folder(path)? } else { vec![path.to_path_buf()] };
        let ports = graph.inputs.iter().map(|p| (p.clone(), graph.ty(p.value).clone())).collect();
        let files = paths.into_iter().map(|p| (p, 0)).collect();
        let mut data = DataSet { ports, spec, files, total: 0, wanted: 0, loaded: None };
        for i in 0..data.files.len() {
            let count = data.load(i)?;
            data.files[i].1 = count;
            data.total += count;
        }
        data.wanted = data.total.min(limit.map_or(usize::MAX, |n| n as usize));
        if data.total == 0 {
            return Err(Error::Calibration(format!("{} holds no sample", path.display())));
        }
        Ok(data)
    }

    /// Loads a file, and says how many inputs it gives.
    fn load(&mut self, file: usize) -> Result<usize> {
        self.loaded = None;
        let path = &self.files[file].0;
        let bad = |reason: String| Error::Data { path: path.clone(), reason };
        let (arrays, stored) = read(path, &self.ports)?;
        let samples = arrays.first().and_then(|a| a.shape().first().copied()).unwrap_or(0);
        for (array, (port, ty)) in arrays.iter().zip(&self.ports) {
            let count = array.shape().first().copied();
            if count != Some(samples) {
                return Err(bad(format!("the array for input {:?} has no {samples} samples", port.name)));
            }
            let long = |shape: &[usize]| shape.iter().copied().filter(|d| *d != 1).collect::<Vec<_>>();
            if self.spec.is_empty() && long(&array.shape()[1..]) != long(&ty.shape) {
                let reason = format!("samples of shape {:?} are no input {:?} of {ty}", &array.shape()[1..], port.name);
                return Err(bad(reason));
            }
            if self.spec.is_empty() && array.dtype() != ty.dtype && !(array.dtype().is_float() && ty.dtype.is_float()) {
                let (has, takes) = (array.dtype(), ty.dtype);
                return Err(bad(format!(
                    "it holds {has}, input {:?} of the model is {takes}: say with --preprocess how samples become inputs, \
                     such as scale=1/255",
                    port.name
                )));
            }
        }
        // A sample of T rows holds T - R + 1 windows of R.
        let windows = self.spec.windows.map_or(1, |w| {
            arrays.first().and_then(|a| a.shape().get(1)).map_or(0, |rows| (rows + 1).saturating_sub(w.rows))
        });
        self.loaded = Some(Loaded { file, arrays, stored });
        Ok(samples * windows)
    }
}

impl Samples for DataSet<'_> {
    fn len(&self) -> usize {
        self.wanted
    }

    fn get(&mut self, i: usize) -> Result<Vec<Tensor>> {
        let mut at = i * self.total / self.wanted;
        let mut file = 0;
        while at >= self.files[file].1 {
            at -= self.files[file].1;
            file += 1;
        }
        if self.loaded.as_ref().is_none_or(|l| l.file != file) {
            self.load(file)?;
        }
        let loaded = self.loaded.as_ref().expect("just loaded");
        let samples = loaded.arrays[0].shape()[0];
        let windows = self.files[file].1 / samples;
        let bad = |reason: String| Error::Data { path: self.files[file].0.clone(), reason };
        let one = |(array, (port, ty)): (&Tensor, &(Port, TensorType))| {
            let sample_ty = TensorType::new(array.dtype(), &array.shape()[1..]);
            let (size, sample) = (sample_ty.bytes(), at / windows);
            let sample = Tensor::from_bytes(sample_ty, array.bytes().slice(sample * size..(sample + 1) * size))
                .map_err(|e| bad(e.to_string()))?;
            if self.spec.is_empty() {
                let ready = if ty.dtype == DType::F32 { Tensor::new(sample.shape(), &sample.to_f32()) } else { sample };
                return Ok(ready.reshaped(ty.shape.clone()));
            }
            let mut inputs = self.spec.apply(&sample, port, ty, loaded.stored).map_err(bad)?;
            Ok(inputs.swap_remove(at % windows).input)
        };
        loaded.arrays.iter().zip(&self.ports).map(one).collect()
    }
}

/// The arrays that a folder holds, by name.
fn folder(path: &Path) -> Result<Vec<PathBuf>> {
    let fail = |source| Error::Io { path: path.into(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some_and(|e| e == "npy" || e == "npz") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// One array for each input: of an archive those under the inputs' names (or `in:NAME`); for a model of one input also
/// `x`, or the only one.
fn read(path: &Path, ports: &[(Port, TensorType)]) -> Result<(Vec<Tensor>, Option<QuantParams>)> {
    let bad = |reason: String| Error::Data { path: path.into(), reason };
    if path.extension().is_some_and(|e| e == "npy") {
        if ports.len() != 1 {
            return Err(bad(format!("one array does not serve a model of {} inputs: use a .npz", ports.len())));
        }
        return Ok((vec![npz::read_array(path)?], None));
    }
    let mut npz = Npz::open(path)?;
    let stored = stored_quant(npz.get("scale")?.as_ref(), npz.get("zero_point")?.as_ref());
    let mut arrays = Vec::new();
    for (port, _) in ports {
        let names = npz.names().to_vec();
        let mut candidates = vec![port.name.clone(), format!("in:{}", port.name)];
        if ports.len() == 1 {
            candidates.push("x".into());
            candidates.extend((names.len() == 1).then(|| names[0].clone()));
        }
        let name = candidates.into_iter().find(|c| names.contains(c)).unwrap_or_else(|| port.name.clone());
        arrays.push(npz.require(&name)?);
    }
    Ok((arrays, stored))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_words() {
        assert_eq!(parse_method("minmax"), Ok(Method::MinMax));
        assert_eq!(parse_method("percentile:99.9"), Ok(Method::Percentile(99.9)));
        assert!(parse_method("percentile:0").is_err() && parse_method("best").is_err());
    }

    fn graph(shape: &[usize]) -> Graph {
        let mut graph = Graph::new("g");
        let x = graph.add_input("image", TensorType::new(DType::F32, shape));
        graph.add_output("y", x);
        graph
    }

    fn saved(folder: &Path, name: &str, arrays: &[(&str, Tensor)]) -> PathBuf {
        let path = folder.join(name);
        let arrays: Vec<_> = arrays.iter().map(|(n, t)| (n.to_string(), t.clone())).collect();
        std::fs::write(&path, npz::encode(&arrays).unwrap()).unwrap();
        path
    }

    #[test]
    fn samples_come_from_all_files_of_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let ramp =
            |from: usize, n: usize| Tensor::new([n, 2], &(0..2 * n).map(|i| (from + i) as f32).collect::<Vec<_>>());
        saved(folder.path(), "b.npz", &[("x", ramp(6, 2))]);
        saved(folder.path(), "a.npz", &[("in:image", ramp(0, 3)), ("y", ramp(0, 1))]);
        let (graph, spec) = (graph(&[1, 2]), Spec::default());
        let mut all = DataSet::open(folder.path(), &graph, &spec, None).unwrap();
        assert_eq!(all.len(), 5);
        for i in [0, 4, 2, 3, 1] {
            assert_eq!(all.get(i).unwrap(), [Tensor::new([1, 2], &[2.0 * i as f32, 2.0 * i as f32 + 1.0])]);
        }
        let mut some = DataSet::open(folder.path(), &graph, &spec, Some(2)).unwrap();
        assert_eq!(some.get(1).unwrap()[0].to_f32(), [4.0, 5.0]);
    }

    #[test]
    fn windows_are_samples() {
        let folder = tempfile::tempdir().unwrap();
        let path = saved(folder.path(), "a.npz", &[("x", Tensor::new([2, 3, 1], &[0f32, 1.0, 2.0, 10.0, 11.0, 12.0]))]);
        let (graph, spec) = (graph(&[1, 2]), "windows=2x1:mse".parse().unwrap());
        let mut all = DataSet::open(&path, &graph, &spec, None).unwrap();
        let firsts: Vec<f32> = (0..all.len()).map(|i| all.get(i).unwrap()[0].to_f32()[0]).collect();
        assert_eq!(firsts, [0.0, 1.0, 10.0, 11.0]);
    }

    #[test]
    fn data_that_does_not_fit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str, array: Tensor, spec: &str| {
            let path = saved(folder.path(), name, &[("x", array)]);
            let spec = spec.parse().unwrap();
            DataSet::open(&path, &graph(&[1, 1, 2, 3]), &spec, None).map(|d| d.len()).map_err(|e| e.code())
        };
        assert_eq!(open("a.npz", Tensor::new([4, 2, 3], &[0f32; 24]), ""), Ok(4));
        assert_eq!(open("b.npz", Tensor::new([4, 3, 2], &[0f32; 24]), ""), Err("E0902"));
        assert_eq!(open("c.npz", Tensor::new([4, 2, 3], &[0u8; 24]), ""), Err("E0902"));
        assert_eq!(open("c.npz", Tensor::new([4, 2, 3], &[0u8; 24]), "scale=1/255"), Ok(4));
        assert_eq!(open("d.npz", Tensor::new([0, 2, 3], &[0f32; 0]), ""), Err("E0906"));
        let nothing = folder.path().join("nothing");
        std::fs::create_dir(&nothing).unwrap();
        let found = DataSet::open(&nothing, &graph(&[1]), &Spec::default(), None).map(|d| d.len());
        assert_eq!(found.map_err(|e| e.code()), Err("E0906"));
    }
}
