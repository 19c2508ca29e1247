//! Real models: each one is imported and agrees with ONNX Runtime on the stored pair.

use mcc_frontend::{ImportOptions, import_file};
use mcc_ir::graph::Def;
use mcc_ir::{DType, Graph, Tensor, TensorType, eval, ops};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The folder of shared models, or `None` (loudly) where it is absent. On CI it must be there.
fn shared() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let folder = std::env::var_os("MCC_SHARED").map_or(default, PathBuf::from).join("models");
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(std::env::var_os("CI").is_none(), "{} is missing; set MCC_SHARED", folder.display());
    eprintln!("SKIPPED: no models at {}; set MCC_SHARED", folder.display());
    None
}

/// Larger ones are imported, but not evaluated here.
const MAX_MACS: u64 = 60_000_000;

#[test]
fn models_are_imported_and_agree_with_onnx_runtime() {
    let Some(folder) = shared() else { return };
    let mut names: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
    names.retain(|p| p.extension().is_some_and(|e| e == "onnx"));
    names.sort();
    assert!(names.len() >= 50, "{} models", names.len());
    let mut failures = Vec::new();
    for path in names {
        let name = path.file_stem().unwrap().to_str().unwrap();
        if let Err(reason) = check(&path, name) {
            failures.push(format!("{name}: {reason}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn check(path: &Path, name: &str) -> Result<(), String> {
    let pair = read_pair(&path.parent().unwrap().join(format!("io/{name}.npz")));
    // Symbolic shapes are taken from the stored inputs.
    let input_shapes = pair
        .iter()
        .filter_map(|(k, t)| Some((k.strip_prefix("in:")?.to_string(), t.shape().to_vec())))
        .collect::<BTreeMap<_, _>>();
    let options = ImportOptions { input_shapes, ..ImportOptions::default() };
    let graph = import_file(path, &options).map_err(|e| e.to_string())?;
    for port in &graph.outputs {
        let stored = pair[&format!("out:{}", port.name)].ty();
        if stored != graph.ty(port.value) {
            return Err(format!("output {} is {}, stored is {stored}", port.name, graph.ty(port.value)));
        }
    }
    if macs(&graph) > MAX_MACS {
        return Ok(());
    }
    let inputs: Vec<Tensor> = graph.inputs.iter().map(|p| pair[&format!("in:{}", p.name)].clone()).collect();
    let outputs = eval::run(&graph, &inputs).map_err(|e| e.to_string())?;
    for (port, got) in graph.outputs.iter().zip(outputs) {
        let want = &pair[&format!("out:{}", port.name)];
        let largest = want.to_f64().iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        let bound = match want.dtype() {
            DType::F32 => float_bound(&graph, largest),
            _ => 1.0,
        };
        let distance = got.to_f64().iter().zip(want.to_f64()).fold(0.0, |m: f64, (a, b)| m.max((a - b).abs()));
        if distance.is_nan() || distance > bound {
            return Err(format!("output {} is off by {distance}, at most {bound} is right", port.name));
        }
    }
    Ok(())
}

/// The bound on a float output. One that is dequantised from integers may be off by one step of its scale.
fn float_bound(graph: &Graph, largest: f64) -> f64 {
    let step = graph.outputs.iter().filter_map(|p| match &graph.value(p.value).def {
        Def::Node { op: mcc_ir::Op::Dequantize { .. }, inputs } => {
            graph.constant(inputs[1]).map(|t| t.to_f64()[0] * 1.0001)
        }
        _ => None,
    });
    step.fold(1e-4 * largest, f64::max)
}

fn macs(graph: &Graph) -> u64 {
    let types = |inputs: &[mcc_ir::ValueId]| inputs.iter().map(|v| graph.ty(*v)).collect::<Vec<&TensorType>>();
    let nodes = graph.values().filter_map(|(id, _)| graph.node(id).map(|n| (id, n)));
    nodes.map(|(id, (op, inputs))| ops::macs(op, &types(inputs), graph.ty(id))).sum()
}

fn read_pair(path: &Path) -> BTreeMap<String, Tensor> {
    let mut npz = npyz::npz::NpzArchive::open(path).unwrap();
    let names: Vec<String> = npz.array_names().map(str::to_string).collect();
    let mut all = BTreeMap::new();
    for name in names {
        let file = npz.by_name(&name).unwrap().unwrap();
        let shape: Vec<usize> = file.shape().iter().map(|&d| d as usize).collect();
        let descr = file.dtype().descr();
        let tensor = match descr.trim_matches('\'') {
            "<f4" => Tensor::new(shape, &file.into_vec::<f32>().unwrap()),
            "<i8" => Tensor::new(shape, &file.into_vec::<i64>().unwrap()),
            "|i1" => Tensor::new(shape, &file.into_vec::<i8>().unwrap()),
            "|u1" => Tensor::new(shape, &file.into_vec::<u8>().unwrap()),
            other => panic!("{name} has dtype {other}"),
        };
        all.insert(name, tensor);
    }
    all
}
