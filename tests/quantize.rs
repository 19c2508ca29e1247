//! Quantisation and pruning end to end: accuracy on stored data sets, agreement of the executors, faults of the input.
//!
//! By default a few schemes and models; with `MCC_FULL=1` all that have a bar.

mod cli_support;

use cli_support::{has, json, mcc, models, run, shared, status, stderr};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Samples of a labelled set that are evaluated.
const IMAGES: usize = 1000;

fn full() -> bool {
    std::env::var_os("MCC_FULL").is_some()
}

/// A model, its data and how they fit.
struct Case {
    model: PathBuf,
    calibration: PathBuf,
    test: PathBuf,
    preprocess: &'static str,
}

impl Case {
    fn shared(model: &str, set: &str, preprocess: &'static str) -> Option<Case> {
        let folder = shared()?;
        let test = if set == "cifar10" { "cifar10_test_1000.npz" } else { "fashion_mnist_test.npz" };
        Some(Case {
            model: folder.join(format!("models/{model}.onnx")),
            calibration: folder.join(format!("data/{set}_train_calib512.npz")),
            test: folder.join("data").join(test),
            preprocess,
        })
    }

    fn quantise(&self, scheme: &str, to: &Path) -> Value {
        self.calibrated("quantize", &["--scheme", scheme], to)
    }

    /// What a command that takes calibration data reports.
    fn calibrated(&self, command: &str, options: &[&str], to: &Path) -> Value {
        let output = mcc()
            .args([command, "--samples", "256", "--json", "--preprocess", self.preprocess])
            .args(options)
            .arg(&self.model)
            .arg("--calib")
            .arg(&self.calibration)
            .arg("-o")
            .arg(to)
            .output()
            .unwrap();
        assert_eq!(status(&output), 0, "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Percent of right labels.
    fn accuracy(&self, model: &Path) -> f64 {
        let output = mcc()
            .args(["eval", "--metric", "top1", "--json", "--target", "host", "--preprocess", self.preprocess])
            .args(["--limit", &IMAGES.to_string()])
            .arg(model)
            .arg("--data")
            .arg(&self.test)
            .output()
            .unwrap();
        assert_eq!(status(&output), 0, "{}", stderr(&output));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        100.0 * report["value"].as_f64().unwrap()
    }

    /// What a scheme loses, in points.
    fn loss(&self, scheme: &str) -> f64 {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("q.onnx");
        let report = self.quantise(scheme, &to);
        let errors: Vec<f64> =
            report["layers"].as_array().unwrap().iter().map(|l| l["output_error"].as_f64().unwrap()).collect();
        assert!(errors.is_sorted_by(|a, b| a >= b), "{errors:?}");
        assert!(report["weight_bytes_after"].as_u64() < report["weight_bytes_before"].as_u64());
        self.accuracy(&self.model) - self.accuracy(&to)
    }
}

#[test]
fn resnet8_keeps_its_accuracy() {
    let Some(case) = Case::shared("mlperf_ic_float", "cifar10", "scale=1") else { return };
    for (scheme, points) in [("int8", 0.3), ("w4a8", 1.5), ("int16x8", 0.3), ("ternary", 8.0)] {
        if full() || scheme == "int8" {
            let loss = case.loss(scheme);
            assert!(loss <= points, "{scheme}: {loss} points lost");
        }
    }
}

#[test]
fn models_of_fashion_mnist_keep_their_accuracy() {
    for model in ["fm_dscnn_bn", "fm_dscnn", "fm_lenet5", "fm_vgg", "fm_vgg_bn", "fm_bigk11"] {
        let Some(case) = Case::shared(model, "fashion_mnist", "scale=1/255") else { return };
        for scheme in ["int8", "w4a8"] {
            if full() || model == "fm_dscnn_bn" {
                let loss = case.loss(scheme);
                assert!(loss <= 1.0, "{model} {scheme}: {loss} points lost");
            }
        }
    }
}

#[test]
fn resnet8_keeps_its_accuracy_with_half_its_weights() {
    let Some(case) = Case::shared("mlperf_ic_float", "cifar10", "scale=1") else { return };
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("p.onnx");
    let report = case.calibrated("prune", &["--sparsity", "0.5"], &to);
    assert_eq!(report["zeros"].as_u64().unwrap() * 2, report["weights"].as_u64().unwrap());
    let loss = case.accuracy(&case.model) - case.accuracy(&to);
    assert!(loss <= 1.5, "{loss} points lost");
}

#[test]
fn pruned_models_are_models() {
    let folder = tempfile::tempdir().unwrap();
    let data = inputs(folder.path(), noise);
    let to = folder.path().join("p.onnx");
    let line = |options: &str| {
        let (data, to) = (data.display(), to.display());
        format!("prune fm_lenet5.onnx --calib {data} --preprocess= {options} -o {to}")
    };
    for options in ["--sparsity 0.75", "--structure 2:4", "--sparsity 0"] {
        let report = json(&format!("{} --json", line(options)));
        let count = |key: &str| report[key].as_u64().unwrap();
        let layers = report["layers"].as_array().unwrap();
        let sum = |key: &str| layers.iter().map(|l| l[key].as_u64().unwrap()).sum::<u64>();
        assert_eq!((sum("zeros"), sum("weights")), (count("zeros"), count("weights")));
        let share = count("zeros") as f64 / count("weights") as f64;
        match options {
            "--sparsity 0.75" => assert!((share - 0.75).abs() < 1e-3, "{share}"),
            "--sparsity 0" => assert_eq!(json(&format!("{} --json", line(options)))["outputs"][0]["same_largest"], 20),
            // Half of each layer, but of those whose input channels are no multiple of 4.
            _ => {
                let halves = layers.iter().map(|l| (l["zeros"].as_u64().unwrap() * 2, l["weights"].as_u64().unwrap()));
                let (whole, half): (Vec<_>, Vec<_>) = halves.partition(|(zeros, _)| *zeros == 0);
                assert!(whole.len() < half.len() && half.iter().all(|(zeros, weights)| zeros == weights), "{report}");
            }
        }
        let case = models().join("fm_lenet5.npz");
        assert_eq!(
            status(&run(&format!("run {} --backend plan --case {} --atol 1e9", to.display(), case.display()))),
            0
        );
    }
    for options in ["", "--structure 2:4 --sparsity 0.5", "--structure 4:2", "--structure filter", "--sparsity 1"] {
        assert_eq!(status(&run(&line(options))), 64, "{options}");
    }
    let keep = run(&line("--sparsity 0.5 --keep nowhere"));
    assert!(stderr(&keep).contains("error[E0405]"), "{}", stderr(&keep));
}

/// Random inputs of the LeNet in the tests' models, 20 samples.
fn inputs(folder: &Path, f: impl Fn(usize) -> f32) -> PathBuf {
    let path = folder.join("inputs.npy");
    let mut bytes = Vec::new();
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (20, 1, 28, 28), }";
    bytes.extend_from_slice(b"\x93NUMPY\x01\x00");
    let padding = 64 - (10 + header.len() + 1) % 64;
    bytes.extend_from_slice(&((header.len() + padding + 1) as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend(std::iter::repeat_n(b' ', padding));
    bytes.push(b'\n');
    (0..20 * 784).for_each(|i| bytes.extend_from_slice(&f(i).to_le_bytes()));
    std::fs::write(&path, bytes).unwrap();
    path
}

fn noise(i: usize) -> f32 {
    (i.wrapping_mul(2_654_435_761) >> 8 & 0xFFFF) as f32 / 65_536.0
}

#[test]
fn all_executors_agree_on_a_quantised_model() {
    let folder = tempfile::tempdir().unwrap();
    let data = inputs(folder.path(), noise);
    for scheme in ["int8", "int8 --per-tensor", "w4a8", "int16x8"] {
        let to = folder.path().join("q.mcc");
        let line = format!("quantize fm_lenet5.onnx --calib {} --scheme {scheme} -o {}", data.display(), to.display());
        let report = json(&format!("{line} --json"));
        assert_eq!(report["samples"], 20);
        assert!(report["outputs"][0]["same_largest"].as_u64().unwrap() >= 18, "{report}");
        // The same bytes again.
        assert_eq!(json(&format!("{line} --json"))["files"], report["files"]);
        if has("cc") && (full() || scheme == "w4a8") {
            let line = format!("validate {} --target generic-c --samples 1 --json", to.display());
            assert_eq!(json(&line)["ok"], true, "{scheme}");
        }
    }
}

#[test]
fn compile_quantises_as_quantize_does() {
    let folder = tempfile::tempdir().unwrap();
    let data = inputs(folder.path(), noise);
    let (q, out) = (folder.path().join("q.mcc"), folder.path().join("out"));
    json(&format!("quantize fm_lenet5.onnx --calib {} -o {} --json", data.display(), q.display()));
    let common = format!("--target cortex-m4 --name net --json -o {}", out.display());
    let direct = json(&format!("compile fm_lenet5.onnx --quantize --calib {} {common}", data.display()));
    let source = std::fs::read(out.join("net.c")).unwrap();
    json(&format!("compile {} {common}", q.display()));
    assert_eq!(std::fs::read(out.join("net.c")).unwrap(), source);
    assert_eq!(direct["quantised"]["layers"].as_array().unwrap().len(), 5);
}

#[test]
fn faults_of_the_input_have_codes() {
    let folder = tempfile::tempdir().unwrap();
    let fails = |model: &str, data: &Path, options: &str| {
        let to = folder.path().join("q.mcc");
        let line = format!("quantize {model} --calib {} -o {} {options}", data.display(), to.display());
        let output = run(&line);
        assert!(!to.exists());
        (stderr(&output), status(&output))
    };
    let expect = |(text, found): (String, i32), code: &str, exit: i32, part: &str| {
        let first = text.lines().find(|l| l.starts_with("error")).unwrap_or_default().to_string();
        assert!(
            first.starts_with(&format!("error[{code}]")) && text.contains(part) && found == exit,
            "{found}: {text}"
        );
    };
    expect(fails("fm_lenet5.onnx", &inputs(folder.path(), noise), "--scheme w4a8 --per-tensor"), "E0903", 64, "8 bits");
    let good = inputs(folder.path(), noise);
    expect(fails("fm_lenet5.onnx", &good, "--keep nowhere"), "E0405", 64, "\"nowhere\"");
    expect(fails("fm_lenet5_int8_qdq.onnx", &good, ""), "E0907", 1, "quantised already");
    expect(fails("fm_lenet5.onnx", &folder.path().join("none.npy"), ""), "E0901", 1, "none.npy");
    expect(fails("fm_lenet5.onnx", &models().join("fm_lenet5.onnx"), ""), "E0902", 1, "archive");
    let bad = inputs(folder.path(), |i| if i == 7 * 784 { f32::NAN } else { noise(i) });
    expect(fails("fm_lenet5.onnx", &bad, ""), "E0906", 1, "sample 7");
    let large = inputs(folder.path(), |_| f32::MAX);
    expect(fails("fm_lenet5.onnx", &large, ""), "E0906", 1, "not finite");
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    expect(fails("fm_lenet5.onnx", &empty, ""), "E0906", 1, "no sample");
    assert_eq!(status(&run("compile fm_lenet5.onnx --target cortex-m4 --name net -o never --quantize")), 64);
    expect(
        {
            let output = run("compile fm_lenet5.onnx --target cortex-m4 --name net -o never --scheme w4a8");
            (stderr(&output), status(&output))
        },
        "E0903",
        64,
        "--calib",
    );
}
