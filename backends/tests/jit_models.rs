//! Whole models, from ONNX to machine code, against the evaluator.

mod jit_support;

use jit_support::*;
use mcc_backends::jit;
use mcc_ir::{DType, Graph, Tensor, eval};
use mcc_passes::PassCx;
use mcc_passes::lower::{Io, lower};
use mcc_runtime::{CATALOGUE, Threads};
use std::path::PathBuf;

/// Models of which every operator runs: the MLPerf Tiny ones and small networks of each kind, float and 8 bits.
const MODELS: [&str; 16] = [
    "mlperf_ad_float",
    "mlperf_ad_int8_qdq",
    "mlperf_ic_float",
    "mlperf_ic_int8_qdq",
    "mlperf_kws_float",
    "mlperf_kws_int8_qdq",
    "mlperf_vww_float",
    "mlperf_vww_int8_qdq",
    "fm_lenet5",
    "fm_lenet5_int8_qdq",
    "fm_dscnn_bn",
    "fm_dscnn_int8_qdq",
    "fm_bigk11",
    "fm_vgg_int8_qdq",
    "cf_vgg_bn",
    "cf_vgg_int8_qdq",
];

/// The folder of the shared models; `None`, loudly, where it is absent outside of CI.
fn models() -> Option<PathBuf> {
    let shared = std::env::var_os("MCC_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from);
    let folder = shared.join("models");
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(std::env::var_os("CI").is_none(), "{} is absent", folder.display());
    eprintln!("SKIPPED: {} is absent", folder.display());
    None
}

fn optimised(name: &str) -> Option<Graph> {
    let path = models()?.join(format!("{name}.onnx"));
    let mut graph = mcc_frontend::import_file(&path, &Default::default()).expect("a supported model");
    mcc_passes::pipeline::run(&mut graph, &PassCx::quiet(&host()), |_, _, _| {}).expect("passes that keep types");
    Some(graph)
}

/// Whether all arithmetic between quantisation and dequantisation at the borders is exact.
fn is_integer(name: &str) -> bool {
    name.contains("int8")
}

#[test]
fn models_agree_with_the_evaluator() {
    for name in MODELS {
        let Some(graph) = optimised(name) else { return };
        for io in [Io::Arena, Io::Separate] {
            let plan = lower(&graph, &host(), CATALOGUE, io).expect("a plan");
            let mut session = jit::compile(&plan).expect("a session");
            assert!(session.arena_bytes() >= plan.arena_bytes);
            assert!(session.weights_bytes() >= plan.const_bytes());
            // The second run meets what the first left in the arena.
            for seed in [1, 2] {
                let inputs: Vec<Tensor> = plan.inputs.iter().map(|p| random(&p.ty, seed)).collect();
                let want = eval::run(&graph, &inputs).expect("an evaluation");
                let got = session.run_tensors(&inputs).expect("a run");
                for (got, want) in got.iter().zip(&want) {
                    if is_integer(name) {
                        assert_eq!(difference(got, want), None, "{name}");
                    } else {
                        assert_eq!(want.dtype(), DType::F32);
                        let distance = distance(got, want);
                        assert!(distance <= 1e-5, "{name} is off by {distance:e}");
                    }
                }
            }
        }
    }
}

/// Models have the same bits on any number of threads, run after run.
#[test]
fn threads_change_no_bit() {
    for name in MODELS {
        let Some(graph) = optimised(name) else { return };
        let plan = lower(&graph, &host(), CATALOGUE, Io::Separate).expect("a plan");
        let mut one = jit::compile(&plan).expect("a session");
        for count in [2, 3, 7] {
            // However small the kernels.
            let threads = Threads { count, enough: 1.0 };
            let mut shared = jit::compile_for_threads(&plan, threads).expect("a session");
            for seed in 1..5 {
                let inputs: Vec<Tensor> = plan.inputs.iter().map(|p| random(&p.ty, seed)).collect();
                let want = one.run_tensors(&inputs).expect("a run");
                let got = shared.run_tensors(&inputs).expect("a run");
                for (got, want) in got.iter().zip(&want) {
                    assert_eq!(difference(got, want), None, "{name} on {count} threads");
                }
            }
        }
    }
}

/// Every convolution and matrix product of the MLPerf models has an implementation better than its loop nest.
#[test]
fn heavy_kernels_are_implemented() {
    for name in MODELS.iter().filter(|n| n.starts_with("mlperf")) {
        let Some(graph) = optimised(name) else { return };
        let plan = lower(&graph, &host(), CATALOGUE, Io::Arena).expect("a plan");
        for kernel in plan.kernels.iter().filter(|k| k.macs > 0) {
            assert_ne!(kernel.implementation, mcc_ir::catalogue::NEST, "{name}: {:?}", kernel.origin);
        }
    }
}
