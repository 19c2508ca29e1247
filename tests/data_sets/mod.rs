//! The shared data sets as inputs of the shared models.

use super::support::npz;
use mcc::ir::{DType, Tensor, TensorType};
use std::path::Path;

/// Part of a data set, as a model takes it.
pub struct Samples {
    /// The archive's name.
    pub set: &'static str,
    pub inputs: Vec<Tensor>,
    /// One a sample, or none at all.
    pub labels: Vec<usize>,
}

/// `limit` of `0..n` at most, evenly spread.
pub fn spread(n: usize, limit: usize) -> impl Iterator<Item = usize> {
    (0..n).step_by(n.div_ceil(limit).max(1))
}

/// The data sets of a model whose input has this type, `limit` samples of them all together.
pub fn of(model: &str, shared: &Path, ty: &TensorType, limit: usize) -> Vec<Samples> {
    let (read, sets): (Reader, &[&str]) = match model {
        m if m.starts_with("fm_") => (images(unit, false), &["fashion_mnist_test", "fashion_mnist_train_calib512"]),
        m if m.starts_with("cf_") => (images(unit, true), &["cifar10_test_1000", "cifar10_train_calib512"]),
        "mlperf_ic_float" => (images(f64::from, false), CIFAR),
        "mlperf_ic_int8_qdq" => (images(signed, false), CIFAR),
        "mlperf_vww_float" => (images(unit, false), &["mlperf_vww01_200"]),
        "mlperf_vww_int8_qdq" => (images(signed, false), &["mlperf_vww01_200"]),
        m if m.starts_with("mlperf_kws") => (Box::new(mfcc), &["kws01_mfcc_int8_1000"]),
        m if m.starts_with("mlperf_ad") => (Box::new(windows), &["mlperf_ad01_40", "ad01_one_clip_196windows"]),
        other => panic!("{other} has no data set"),
    };
    let part = |set: &&'static str| {
        let archive = npz(&shared.join("data").join(format!("{set}.npz")));
        let per_set = limit.div_ceil(sets.len());
        let (inputs, labels) = read(&archive, ty, per_set);
        Samples { set, inputs, labels }
    };
    sets.iter().map(part).collect()
}

const CIFAR: &[&str] = &["mlperf_ic01", "cifar10_test_1000", "cifar10_train_calib512"];

type Archive = std::collections::HashMap<String, Tensor>;

/// At most so many inputs of a type from an archive, and their labels.
type Reader = Box<dyn Fn(&Archive, &TensorType, usize) -> (Vec<Tensor>, Vec<usize>)>;

fn unit(byte: u8) -> f64 {
    f64::from(byte) / 255.0
}

fn signed(byte: u8) -> f64 {
    f64::from(byte) - 128.0
}

/// The labels of some samples.
fn labels(archive: &Archive, of: impl Iterator<Item = usize>) -> Vec<usize> {
    let all = archive["y"].to_i64();
    of.map(|i| usize::try_from(all[i]).expect("labels count from 0")).collect()
}

/// Images u8 [N, rows, columns(, 3)]; `planes` puts the colours first.
fn images(convert: fn(u8) -> f64, planes: bool) -> Reader {
    Box::new(move |archive, ty, limit| {
        let x = &archive["x"];
        let n = x.shape()[0];
        let per = x.ty().elements() / n;
        let image = |i: usize| {
            let bytes = &x.bytes()[i * per..(i + 1) * per];
            let plane = per / 3;
            let place = |k: usize| if planes { k % plane * 3 + k / plane } else { k };
            Tensor::from_f64(ty.clone(), &(0..per).map(|k| convert(bytes[place(k)])).collect::<Vec<_>>())
        };
        (spread(n, limit).map(image).collect(), labels(archive, spread(n, limit)))
    })
}

/// Features i8 [N, 49, 10, 1] with their scale and zero point.
fn mfcc(archive: &Archive, ty: &TensorType, limit: usize) -> (Vec<Tensor>, Vec<usize>) {
    let (scale, zero) = (archive["scale"].to_f64()[0], archive["zero_point"].to_f64()[0]);
    let convert = |v: &f64| if ty.dtype == DType::F32 { (v - zero) * scale } else { *v };
    let x = archive["x"].to_f64();
    let per = ty.elements();
    let n = x.len() / per;
    let sample =
        |i: usize| Tensor::from_f64(ty.clone(), &x[i * per..(i + 1) * per].iter().map(convert).collect::<Vec<_>>());
    (spread(n, limit).map(sample).collect(), labels(archive, spread(n, limit)))
}

/// Log-mel spectra f32: clips [N, 200, 128], of which every 5 frames in a row are a window, or windows [N, 640].
fn windows(archive: &Archive, ty: &TensorType, limit: usize) -> (Vec<Tensor>, Vec<usize>) {
    const FRAME: usize = 128;
    const WINDOW: usize = 5 * FRAME;
    let x = &archive["x"];
    let values = x.to_f64();
    let starts: Vec<usize> = match x.shape() {
        [clips, frames, FRAME] => {
            let of_clip = |c: usize| (0..=frames - 5).map(move |f| (c * frames + f) * FRAME);
            (0..*clips).flat_map(of_clip).collect()
        }
        [n, WINDOW] => (0..*n).map(|i| i * WINDOW).collect(),
        other => panic!("neither clips nor windows: {other:?}"),
    };
    // The scale and the zero point of the int8 model's input.
    let quantise = |v: &f64| ((v / 0.391_015_23).round_ties_even() + 89.0).clamp(-128.0, 127.0);
    let window = |i: usize| {
        let values = &values[starts[i]..starts[i] + WINDOW];
        match ty.dtype {
            DType::I8 => Tensor::from_f64(ty.clone(), &values.iter().map(quantise).collect::<Vec<_>>()),
            _ => Tensor::from_f64(ty.clone(), values),
        }
    };
    (spread(starts.len(), limit).map(window).collect(), vec![])
}
