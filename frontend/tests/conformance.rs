//! The ONNX project's own node tests: each one is refused with a code, or gives the expected outputs.
//!
//! The tests are not part of this repository. `MCC_ONNX_NODE_TESTS` names a folder that holds one folder a test, with
//! `model.onnx` and `test_data_set_0/{input,output}_N.pb`, as the `onnx` Python package generates them.

use mcc_frontend::{ImportOptions, import_bytes, tensor_from_bytes};
use mcc_ir::{DType, Tensor, eval};
use onnx_protobuf::{Message, ModelProto, TensorProto};
use std::path::{Path, PathBuf};

/// Tests that give other results by decision, and why.
const DIFFERENT: &[(&str, &str)] = &[
    ("test_cast_FLOAT_to_BFLOAT16", "bf16 is computed as f32"),
    ("test_castlike_FLOAT_to_BFLOAT16", "bf16 is computed as f32"),
    ("test_castlike_FLOAT_to_BFLOAT16_expanded", "bf16 is computed as f32"),
    ("test_celu_bfloat16", "bf16 is computed as f32"),
    ("test_celu_bfloat16_expanded", "bf16 is computed as f32"),
    ("test_resize_downsample_scales_linear_align_corners", "corners are those of the rounded size, as in ONNX Runtime"),
];

#[test]
fn node_tests_are_refused_or_right() {
    let Some(folder) = std::env::var_os("MCC_ONNX_NODE_TESTS").map(PathBuf::from) else {
        assert!(std::env::var_os("CI").is_none(), "MCC_ONNX_NODE_TESTS is not set");
        eprintln!("SKIPPED: MCC_ONNX_NODE_TESTS is not set");
        return;
    };
    let mut tests: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
    tests.sort();
    let (mut right, mut refused, mut wrong) = (0, vec![], vec![]);
    for test in &tests {
        let name = test.file_name().unwrap().to_str().unwrap();
        match run(test) {
            Outcome::Right => right += 1,
            Outcome::Refused(reason) => refused.push(format!("{name}: {reason}")),
            Outcome::Wrong(_) if DIFFERENT.iter().any(|(n, _)| *n == name) => {}
            Outcome::Wrong(reason) => wrong.push(format!("{name}: {reason}")),
        }
    }
    if let Some(path) = std::env::var_os("MCC_ONNX_NODE_REPORT") {
        std::fs::write(path, refused.join("\n")).unwrap();
    }
    println!("{right} right, {} refused, {} wrong of {}", refused.len(), wrong.len(), tests.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(right > 0, "no test ran");
}

enum Outcome {
    Right,
    Refused(String),
    Wrong(String),
}

fn run(test: &Path) -> Outcome {
    let bytes = std::fs::read(test.join("model.onnx")).unwrap();
    let read = |kind: &str, i: usize| std::fs::read(test.join(format!("test_data_set_0/{kind}_{i}.pb"))).ok();
    let inputs: Vec<Vec<u8>> = (0..).map_while(|i| read("input", i)).collect();
    let outputs: Vec<Vec<u8>> = (0..).map_while(|i| read("output", i)).collect();
    // What must be constant is an input in these tests: so all inputs but the first are tried as constants too.
    let mut last = match attempt(&bytes, &inputs, &outputs) {
        Outcome::Refused(reason) => reason,
        other => return other,
    };
    for first in [1, 0] {
        if let Some(constant) = with_constants(&bytes, &inputs, first) {
            match attempt(&constant, &inputs, &outputs) {
                Outcome::Refused(reason) => last = reason,
                other => return other,
            }
        }
    }
    Outcome::Refused(last)
}

/// The model with its inputs from `first` on as initializers.
fn with_constants(bytes: &[u8], inputs: &[Vec<u8>], first: usize) -> Option<Vec<u8>> {
    let mut model = ModelProto::parse_from_bytes(bytes).ok()?;
    let graph = model.graph.as_mut()?;
    let names: Vec<String> = graph.input.iter().map(|i| i.name.clone()).collect();
    for (name, bytes) in names.iter().zip(inputs).skip(first) {
        let mut tensor = TensorProto::parse_from_bytes(bytes).ok()?;
        tensor.name = name.clone();
        graph.initializer.push(tensor);
    }
    model.write_to_bytes().ok()
}

fn attempt(bytes: &[u8], inputs: &[Vec<u8>], outputs: &[Vec<u8>]) -> Outcome {
    let graph = match import_bytes(bytes.to_vec(), None, &ImportOptions::default()) {
        Ok(graph) => graph,
        Err(e) => return Outcome::Refused(e.to_string().replace('\n', " | ")),
    };
    let names = ModelProto::parse_from_bytes(bytes).unwrap();
    let names: Vec<String> = names.graph.input.iter().map(|i| i.name.clone()).collect();
    let mut given = vec![];
    for port in &graph.inputs {
        let at = names.iter().position(|n| *n == port.name).unwrap();
        match tensor_from_bytes(inputs[at].clone()) {
            Ok((_, t)) => given.push(t),
            Err(e) => return Outcome::Refused(format!("input: {e}")),
        }
    }
    let results = match eval::run(&graph, &given) {
        Ok(results) => results,
        Err(e @ mcc_ir::Error::Unsupported { .. }) => return Outcome::Refused(format!("evaluation: {e}")),
        Err(e) => return Outcome::Wrong(format!("evaluation: {e}")),
    };
    for (port, (got, want)) in graph.outputs.iter().zip(results.iter().zip(outputs)) {
        let want = match tensor_from_bytes(want.clone()) {
            Ok((_, want)) => want,
            Err(e) => return Outcome::Refused(format!("output: {e}")),
        };
        if let Err(reason) = compare(got, &want) {
            return Outcome::Wrong(format!("{}: {reason}", port.name));
        }
    }
    Outcome::Right
}

/// The tolerances of ONNX's own runner for floats; integers must be equal.
fn compare(got: &Tensor, want: &Tensor) -> Result<(), String> {
    if got.ty() != want.ty() {
        return Err(format!("{} instead of {}", got.ty(), want.ty()));
    }
    let float = want.dtype() == DType::F32;
    for (i, (g, w)) in got.to_f64().into_iter().zip(want.to_f64()).enumerate() {
        let bound = if float { 1e-3 * w.abs() + 1e-6 } else { 0.0 };
        if !(g == w || g.is_nan() && w.is_nan() || (g - w).abs() <= bound) {
            return Err(format!("element {i} is {g} instead of {w}"));
        }
    }
    Ok(())
}
