//! Time of one run of compiled models, by the runtime's kernels and by loop nests alone.
//!
//! `cargo bench -p mcc-backends --bench jit [-- NAME...]`: names are parts of model names; without any, the MLPerf Tiny
//! models. Runs of both are interleaved and the least time of each counts.

use mcc_backends::jit;
use mcc_ir::plan::{Plan, PlanPort};
use mcc_ir::{DType, Target, TensorType};
use mcc_passes::PassCx;
use mcc_passes::lower::{Io, lower};
use mcc_runtime::{CATALOGUE, RunError, Session, TensorMut, TensorRef};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long to measure one model.
const TIME: Duration = Duration::from_secs(2);

fn main() {
    let shared = std::env::var_os("MCC_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from);
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let Ok(folder) = std::fs::read_dir(shared.join("models")) else {
        println!("no models in {}", shared.display());
        return;
    };
    let mut paths: Vec<PathBuf> = folder
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "onnx"))
        .filter(|path| {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            match wanted.is_empty() {
                true => name.starts_with("mlperf") && !name.ends_with("w8"),
                false => wanted.iter().any(|w| name.contains(w.as_str())),
            }
        })
        .collect();
    paths.sort();
    println!(
        "{:28} {:>11} {:>11} {:>11} {:>11} {:>11}",
        "model", "min us", "nests us", "compile ms", "arena", "weights"
    );
    for path in paths {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match measure(&path) {
            Ok(row) => println!("{name:28} {row}"),
            Err(e) => println!("{name:28} {e}"),
        }
    }
}

fn measure(path: &std::path::Path) -> Result<String, Box<dyn std::error::Error>> {
    let target = Target::parse("name = \"host\"\ndescription = \"\"\nbackend = \"jit\"\nalignment = 64\n")?;
    let mut graph = mcc_frontend::import_file(path, &Default::default())?;
    mcc_passes::pipeline::run(&mut graph, &PassCx::quiet(&target), |_, _, _| {})?;
    let start = Instant::now();
    let plan = lower(&graph, &target, CATALOGUE, Io::Separate)?;
    let mut session = jit::compile(&plan)?;
    let compile = start.elapsed();
    let mut nests = jit::compile(&lower(&graph, &target, &[], Io::Separate)?)?;
    let mut tensors = Tensors::of(&plan);
    let (mut best, mut slow) = (Duration::MAX, Duration::MAX);
    let start = Instant::now();
    while start.elapsed() < TIME {
        slow = slow.min(tensors.time(&mut nests)?);
        for _ in 0..20 {
            best = best.min(tensors.time(&mut session)?);
        }
    }
    let us = |d: Duration| d.as_secs_f64() * 1e6;
    let (arena, weights) = (session.arena_bytes(), session.weights_bytes());
    let compile = compile.as_secs_f64() * 1e3;
    Ok(format!("{:11.1} {:11.1} {compile:11.1} {arena:11} {weights:11}", us(best), us(slow)))
}

/// Memory for inputs and outputs.
struct Tensors {
    inputs: Vec<Memory>,
    outputs: Vec<Memory>,
}

enum Memory {
    F32(Vec<f32>),
    I8(Vec<i8>),
    U8(Vec<u8>),
    I32(Vec<i32>),
    I64(Vec<i64>),
}

impl Memory {
    fn of(ty: &TensorType) -> Memory {
        let n = ty.elements();
        match ty.dtype {
            DType::F32 => Memory::F32(vec![1.0; n]),
            DType::I8 => Memory::I8(vec![1; n]),
            DType::U8 => Memory::U8(vec![1; n]),
            DType::I32 => Memory::I32(vec![1; n]),
            _ => Memory::I64(vec![1; n]),
        }
    }
}

impl Tensors {
    fn of(plan: &Plan) -> Tensors {
        let all = |ports: &[PlanPort]| ports.iter().map(|p| Memory::of(&p.ty)).collect();
        Tensors { inputs: all(&plan.inputs), outputs: all(&plan.outputs) }
    }

    /// One run.
    fn time(&mut self, session: &mut Session) -> Result<Duration, RunError> {
        let inputs: Vec<TensorRef<'_>> = self
            .inputs
            .iter()
            .map(|m| match m {
                Memory::F32(v) => v.into(),
                Memory::I8(v) => v.into(),
                Memory::U8(v) => v.into(),
                Memory::I32(v) => v.into(),
                Memory::I64(v) => v.into(),
            })
            .collect();
        let mut outputs: Vec<TensorMut<'_>> = self
            .outputs
            .iter_mut()
            .map(|m| match m {
                Memory::F32(v) => v.into(),
                Memory::I8(v) => v.into(),
                Memory::U8(v) => v.into(),
                Memory::I32(v) => v.into(),
                Memory::I64(v) => v.into(),
            })
            .collect();
        let start = Instant::now();
        session.run(&inputs, &mut outputs)?;
        Ok(start.elapsed())
    }
}
