//! How the samples of a data set become inputs of a model: the specification `--preprocess`, described in
//! `docs/preprocess.md`.
//!
//! Steps are applied in the order given, in `f64`; the result is rounded once to the model's input type.

use mcc::ir::graph::Port;
use mcc::ir::types::F32;
use mcc::ir::{DType, QuantParams, Tensor, TensorType};

/// One step.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// Multiply.
    Scale(f64),
    /// Add.
    Offset(f64),
    /// Subtract; one value, or one a channel.
    Mean(Vec<f64>),
    /// Divide; one value, or one a channel.
    Std(Vec<f64>),
    /// Channels last to channels first.
    Nchw,
    /// Channels first to channels last.
    Nhwc,
    /// Integers of the data set become real numbers by its arrays `scale` and `zero_point`.
    Dequantise,
    /// Real numbers become integers by the parameters of the model's input.
    Quantise,
    /// Round half to even and saturate.
    Cast(DType),
}

/// Runs of consecutive rows of a sample, each an input of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    pub rows: usize,
    pub columns: usize,
}

/// A parsed specification.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spec {
    steps: Vec<Step>,
    /// Score a sample by the mean squared error between each window and what the model makes of it.
    pub windows: Option<Windows>,
}

/// One input of the model, and the real numbers that it stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    pub input: Tensor,
    pub real: Vec<f64>,
}

/// What the numbers of a sample are between two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// As stored.
    Stored(DType),
    Real,
    /// Integers for the model.
    Integers(DType),
}

impl std::str::FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> Result<Spec, String> {
        let mut spec = Spec::default();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (name, value) = part.split_once('=').map_or((part, None), |(n, v)| (n, Some(v)));
            let value = || value.ok_or_else(|| format!("step {name:?} needs a value"));
            let step = match name {
                "scale" => Step::Scale(number(value()?)?),
                "offset" => Step::Offset(number(value()?)?),
                "mean" => Step::Mean(numbers(value()?)?),
                "std" => Step::Std(numbers(value()?)?),
                "layout" => match value()? {
                    "nchw" => Step::Nchw,
                    "nhwc" => Step::Nhwc,
                    other => return Err(format!("layout {other:?} is neither nchw nor nhwc")),
                },
                "dequantise" | "dequantize" => Step::Dequantise,
                "quantise" | "quantize" => Step::Quantise,
                "dtype" => {
                    let ty = value()?;
                    let known = DType::from_name(ty).filter(|d| d.is_byte_sized() && d.int_range().is_some());
                    Step::Cast(known.ok_or_else(|| format!("{ty:?} is not one of i8, u8, i16, i32"))?)
                }
                "windows" => {
                    spec.windows = Some(windows(value()?)?);
                    continue;
                }
                other => {
                    let known = "scale, offset, mean, std, layout, dequantise, quantise, dtype, windows";
                    return Err(format!("there is no step {other:?}; the steps are {known}"));
                }
            };
            if let Step::Std(all) = &step
                && all.contains(&0.0)
            {
                return Err("std must not be 0".into());
            }
            spec.steps.push(step);
        }
        Ok(spec)
    }
}

/// A decimal, or a fraction such as `1/255`.
fn number(text: &str) -> Result<f64, String> {
    let plain = |t: &str| t.trim().parse::<f64>().ok().filter(|x| x.is_finite());
    match text.split_once('/') {
        Some((a, b)) => plain(a).zip(plain(b).filter(|b| *b != 0.0)).map(|(a, b)| a / b),
        None => plain(text),
    }
    .ok_or_else(|| format!("{text:?} is not a number or a fraction"))
}

fn numbers(text: &str) -> Result<Vec<f64>, String> {
    text.split(';').map(number).collect()
}

fn windows(text: &str) -> Result<Windows, String> {
    let parsed = text.strip_suffix(":mse").and_then(|t| t.split_once('x')).and_then(|(rows, columns)| {
        let size = |t: &str| t.parse().ok().filter(|n: &usize| *n > 0);
        Some(Windows { rows: size(rows)?, columns: size(columns)? })
    });
    parsed.ok_or_else(|| format!("{text:?} is not of the form ROWSxCOLUMNS:mse, such as 5x128:mse"))
}

/// A sample on its way.
struct Sample {
    values: Vec<f64>,
    shape: Vec<usize>,
    channel: usize,
    kind: Kind,
}

impl Spec {
    /// Whether samples are inputs as they are.
    pub fn is_empty(&self) -> bool {
        *self == Spec::default()
    }

    /// The model's inputs for one sample: one, or one a window. `stored` is the quantisation of the data set, if any.
    ///
    /// # Errors
    /// Where the steps do not fit the sample or the model's input.
    pub fn apply(
        &self,
        sample: &Tensor,
        port: &Port,
        ty: &TensorType,
        stored: Option<QuantParams>,
    ) -> Result<Vec<Prepared>, String> {
        let mut s = Sample {
            values: sample.to_f64(),
            shape: sample.shape().to_vec(),
            channel: sample.shape().len().saturating_sub(1),
            kind: Kind::Stored(sample.dtype()),
        };
        // What is scored against are the real numbers, before they are rounded to integers.
        let mut real = None;
        for step in &self.steps {
            if matches!(step, Step::Quantise | Step::Cast(_)) && real.is_none() {
                real = Some(s.values.clone());
            }
            s.step(step, port.quant, ty, stored)?;
        }
        let real = real.unwrap_or_else(|| s.values.clone());
        s.finish(port, ty)?;
        let Some(w) = self.windows else { return Ok(vec![prepared(&s.values, &real, ty)?]) };
        if s.shape.len() != 2 || s.shape[1] != w.columns || s.shape[0] < w.rows {
            return Err(format!("windows of {}x{} do not fit a sample of shape {:?}", w.rows, w.columns, s.shape));
        }
        let size = w.rows * w.columns;
        let starts = (0..=s.shape[0] - w.rows).map(|row| row * w.columns);
        starts.map(|at| prepared(&s.values[at..at + size], &real[at..at + size], ty)).collect()
    }
}

fn prepared(values: &[f64], real: &[f64], ty: &TensorType) -> Result<Prepared, String> {
    if values.len() != ty.elements() {
        return Err(format!("a sample of {} elements does not fill the model's input {ty}", values.len()));
    }
    Ok(Prepared { input: Tensor::from_f64(ty.clone(), values), real: real.to_vec() })
}

impl Sample {
    fn step(
        &mut self,
        step: &Step,
        input: Option<QuantParams>,
        ty: &TensorType,
        stored: Option<QuantParams>,
    ) -> Result<(), String> {
        match step {
            Step::Scale(by) => self.map(|v| v * by),
            Step::Offset(by) => self.map(|v| v + by),
            Step::Mean(all) => self.per_channel(all, |v, m| v - m)?,
            Step::Std(all) => self.per_channel(all, |v, s| v / s)?,
            Step::Nchw => self.layout(|r| [&[r - 1], &(0..r - 1).collect::<Vec<_>>()[..]].concat(), 0)?,
            Step::Nhwc => self.layout(|r| [&(1..r).collect::<Vec<_>>()[..], &[0]].concat(), 2)?,
            Step::Dequantise => {
                let q = stored.ok_or("dequantise: the data set has no arrays scale and zero_point")?;
                self.map(|v| (v - q.zero_point as f64) * q.scale.0 as f64);
            }
            Step::Quantise => self.quantise(input, ty)?,
            Step::Cast(dtype) => {
                let (lo, hi) = dtype.int_range().ok_or("dtype must be an integer type")?;
                self.map(|v| v.round_ties_even().clamp(lo as f64, hi as f64));
                self.kind = Kind::Integers(*dtype);
            }
        }
        Ok(())
    }

    fn map(&mut self, f: impl Fn(f64) -> f64) {
        self.values.iter_mut().for_each(|v| *v = f(*v));
        self.kind = Kind::Real;
    }

    fn per_channel(&mut self, all: &[f64], f: impl Fn(f64, f64) -> f64) -> Result<(), String> {
        if let [one] = all {
            self.map(|v| f(v, *one));
            return Ok(());
        }
        let channels = self.shape.get(self.channel).copied().unwrap_or(1);
        if channels != all.len() {
            return Err(format!("{} values are given for {channels} channels", all.len()));
        }
        let inner: usize = self.shape[self.channel + 1..].iter().product();
        for (i, v) in self.values.iter_mut().enumerate() {
            *v = f(*v, all[i / inner % channels]);
        }
        self.kind = Kind::Real;
        Ok(())
    }

    /// Moves the channels of an image; a sample of rank 2 has one channel and stays as it is.
    fn layout(&mut self, perm: impl Fn(usize) -> Vec<usize>, channel: usize) -> Result<(), String> {
        match self.shape.len() {
            2 => return Ok(()),
            3 => {}
            rank => return Err(format!("layout needs samples of rank 3 (or 2), not {rank}")),
        }
        let perm = perm(3);
        let [_, b, c] = [self.shape[0], self.shape[1], self.shape[2]];
        let strides = [b * c, c, 1];
        let shape: Vec<usize> = perm.iter().map(|&p| self.shape[p]).collect();
        let mut values = Vec::with_capacity(self.values.len());
        for i in 0..shape[0] {
            for j in 0..shape[1] {
                for k in 0..shape[2] {
                    values.push(self.values[i * strides[perm[0]] + j * strides[perm[1]] + k * strides[perm[2]]]);
                }
            }
        }
        (self.values, self.shape, self.channel) = (values, shape, channel);
        Ok(())
    }

    fn quantise(&mut self, q: Option<QuantParams>, ty: &TensorType) -> Result<(), String> {
        let q = q.ok_or("quantise: the scale and zero point of the model's input are not known")?;
        let (lo, hi) = ty.dtype.int_range().ok_or_else(|| format!("quantise: the model's input is {ty}"))?;
        self.map(|v| quantise(v, q, lo, hi));
        self.kind = Kind::Integers(ty.dtype);
        Ok(())
    }

    /// The values as the model's input takes them.
    fn finish(&mut self, port: &Port, ty: &TensorType) -> Result<(), String> {
        match self.kind {
            _ if ty.dtype.is_float() => Ok(()),
            Kind::Stored(d) | Kind::Integers(d) if d == ty.dtype => Ok(()),
            Kind::Real => self.quantise(port.quant, ty),
            Kind::Stored(d) if d.is_float() => self.quantise(port.quant, ty),
            Kind::Stored(d) | Kind::Integers(d) => {
                let dtype = ty.dtype;
                Err(format!(
                    "the samples are {d}, the model takes {dtype}: say how with `offset=-128,dtype={dtype}`, or a scale"
                ))
            }
        }
    }
}

/// Round half to even, saturate. The quotient is rounded to `f32`, as QuantizeLinear does.
fn quantise(v: f64, q: QuantParams, lo: i32, hi: i32) -> f64 {
    let scaled = (v as f32 / q.scale.0).round_ties_even() as f64;
    (scaled + q.zero_point as f64).clamp(lo as f64, hi as f64)
}

/// The quantisation that a data set states in its arrays `scale` and `zero_point`.
pub fn stored_quant(scale: Option<&Tensor>, zero_point: Option<&Tensor>) -> Option<QuantParams> {
    let (scale, zero_point) = (scale?.to_f32(), zero_point?.to_i64());
    Some(QuantParams { scale: F32(*scale.first()?), zero_point: i32::try_from(*zero_point.first()?).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcc::ir::ValueId;

    fn port(quant: Option<(f32, i32)>) -> Port {
        let quant = quant.map(|(s, zero_point)| QuantParams { scale: F32(s), zero_point });
        Port { name: "x".into(), value: ValueId(0), quant }
    }

    fn one(spec: &str, sample: &Tensor, port: &Port, ty: TensorType) -> Result<Prepared, String> {
        spec.parse::<Spec>()?.apply(sample, port, &ty, None).map(|mut all| all.remove(0))
    }

    #[test]
    fn images_are_scaled_and_turned() {
        let image = Tensor::new([1, 2, 3], &[0u8, 51, 102, 153, 204, 255]);
        let p = one("scale=1/255,layout=nchw", &image, &port(None), TensorType::new(DType::F32, [1, 3, 1, 2])).unwrap();
        assert_eq!(p.input, Tensor::new([1, 3, 1, 2], &[0.0f32, 0.6, 0.2, 0.8, 0.4, 1.0]));
        let back = Tensor::new([3, 1, 2], &[0u8, 153, 51, 204, 102, 255]);
        let p = one("layout=nhwc", &back, &port(None), TensorType::new(DType::F32, [1, 1, 2, 3])).unwrap();
        assert_eq!(p.input.to_f64(), image.to_f64());
    }

    #[test]
    fn mean_and_std_are_per_channel() {
        let image = Tensor::new([1, 2, 2], &[1u8, 10, 3, 30]);
        let ty = TensorType::new(DType::F32, [4]);
        let p = one("mean=1;10,std=2;20", &image, &port(None), ty.clone()).unwrap();
        assert_eq!(p.input.to_f64(), [0.0, 0.0, 1.0, 1.0]);
        let p = one("layout=nchw,mean=1;10", &image, &port(None), ty.clone()).unwrap();
        assert_eq!(p.input.to_f64(), [0.0, 2.0, 0.0, 20.0]);
        assert!(one("mean=1;2;3", &image, &port(None), ty).is_err());
    }

    #[test]
    fn integers_round_half_to_even_and_saturate() {
        let real = Tensor::new([5], &[0.25f32, 0.75, -0.25, 1000.0, -1000.0]);
        let ty = TensorType::new(DType::I8, [5]);
        // A real sample is quantised without being told to.
        for spec in ["", "quantise"] {
            let p = one(spec, &real, &port(Some((0.5, 3))), ty.clone()).unwrap();
            assert_eq!(p.input.to_i64(), [3, 5, 3, 127, -128]);
            assert_eq!(p.real, real.to_f64());
        }
        assert!(one("", &real, &port(None), ty).is_err());
    }

    #[test]
    fn the_type_of_integers_is_never_guessed() {
        let image = Tensor::new([2], &[0u8, 255]);
        let ty = TensorType::new(DType::I8, [2]);
        assert!(one("", &image, &port(Some((1.0, -128))), ty.clone()).is_err());
        let p = one("offset=-128,dtype=i8", &image, &port(None), ty).unwrap();
        assert_eq!(p.input.to_i64(), [-128, 127]);
        let p = one("", &image, &port(None), TensorType::new(DType::U8, [2])).unwrap();
        assert_eq!(p.input.to_i64(), [0, 255]);
    }

    #[test]
    fn windows_slide_by_one_row() {
        let clip = Tensor::new([4, 2], &[0f32, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        let spec: Spec = "windows=3x2:mse".parse().unwrap();
        let ty = TensorType::new(DType::F32, [1, 6]);
        let all = spec.apply(&clip, &port(None), &ty, None).unwrap();
        let first: Vec<Vec<f64>> = all.iter().map(|p| p.input.to_f64()).collect();
        assert_eq!(first, [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]]);
        let wide: Spec = "windows=3x3:mse".parse().unwrap();
        assert!(wide.apply(&clip, &port(None), &ty, None).is_err());
    }

    #[test]
    fn stored_integers_become_real() {
        let q = stored_quant(Some(&Tensor::scalar(0.5)), Some(&Tensor::new([], &[3i32])));
        let spec: Spec = "dequantise".parse().unwrap();
        let x = Tensor::new([2], &[3i8, 5]);
        let p = spec.apply(&x, &port(None), &TensorType::new(DType::F32, [2]), q).unwrap();
        assert_eq!(p[0].input.to_f64(), [0.0, 1.0]);
        assert!(spec.apply(&x, &port(None), &TensorType::new(DType::F32, [2]), None).is_err());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            ("scal=2", "scal"),
            ("scale", "value"),
            ("scale=1/0", "1/0"),
            ("std=0", "std"),
            ("layout=hwc", "hwc"),
            ("dtype=f32", "f32"),
            ("windows=5:mse", "5x128:mse"),
        ] {
            let message = text.parse::<Spec>().unwrap_err();
            assert!(message.contains(word), "{text}: {message}");
        }
    }
}
