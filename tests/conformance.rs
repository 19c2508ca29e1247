//! The executors agree: evaluator, plan interpreter, JIT, host C and C on emulated Cortex-M, on the shared models.
//!
//! Integer results are compared bit for bit. A float kernel may be 1e-5 of its result's largest magnitude away from the
//! evaluator; here whole networks are compared, so each convolution and matrix product of the lowered graph adds that much
//! (one kernel by itself is held to 1e-5 by the tests of the kernels and by `mcc validate`). The lowered graph may be as far
//! from the imported one as ONNX Runtime may be: passes of the class `Reassociates` move roundings through the network. The evaluator is compared with the outputs of
//! ONNX Runtime that are stored beside each model. A few samples of each data set by default; up to 1000, and 20 for the slow
//! executors, with `MCC_FULL=1`.

mod support;

use mcc::backends::c::exec::{self, Core};
use mcc::ir::graph::Def;
use mcc::ir::{DType, Graph, Op, Tensor, TensorType, eval, plan::interp};
use mcc::{Model, Options};
use std::path::Path;
use support::{npz, shared};

/// What one float kernel may add to the difference from the evaluator on the lowered graph, relative to the largest magnitude.
const KERNEL_BOUND: f64 = 1e-5;
/// The same against ONNX Runtime, and between the graphs before and after the passes.
const JUDGE_BOUND: f64 = 1e-4;

/// Samples for the fast executors and for the slow ones.
fn budget() -> (usize, usize) {
    if std::env::var_os("MCC_FULL").is_some() { (1000, 20) } else { (20, 2) }
}

/// The model's inputs from its data set.
fn samples(name: &str, shared: &Path, ty: &TensorType, limit: usize) -> Vec<Tensor> {
    let set = |file: &str| npz(&shared.join("data").join(file));
    let images = |file: &str, convert: &dyn Fn(u8) -> f64, chw: bool| -> Vec<Tensor> {
        let x = set(file).remove("x").expect("images");
        let [n, per] = [x.shape()[0], x.ty().elements() / x.shape()[0]];
        let bytes = x.bytes();
        let step = (n / limit.min(n)).max(1);
        (0..n)
            .step_by(step)
            .map(|i| {
                let image = &bytes[i * per..(i + 1) * per];
                let values: Vec<f64> = if chw {
                    let plane = per / 3;
                    (0..per).map(|k| convert(image[k % plane * 3 + k / plane])).collect()
                } else {
                    image.iter().map(|b| convert(*b)).collect()
                };
                Tensor::from_f64(ty.clone(), &values)
            })
            .collect()
    };
    let unit = |b: u8| b as f64 / 255.0;
    let signed = |b: u8| b as f64 - 128.0;
    let raw = |b: u8| b as f64;
    match name {
        n if n.starts_with("fm_") || n == "onnx_zoo_mnist" => images("fashion_mnist_test.npz", &unit, false),
        n if n.starts_with("cf_") => images("cifar10_test_1000.npz", &unit, true),
        "mlperf_ic_float" => images("cifar10_test_1000.npz", &raw, false),
        "mlperf_ic_int8_qdq" => images("cifar10_test_1000.npz", &signed, false),
        "mlperf_vww_float" => images("mlperf_vww01_200.npz", &unit, false),
        "mlperf_vww_int8_qdq" => images("mlperf_vww01_200.npz", &signed, false),
        n if n.starts_with("mlperf_kws") => {
            let set = set("kws01_mfcc_int8_1000.npz");
            let x = &set["x"];
            let per = ty.elements();
            let all = x.to_f64();
            let n = all.len() / per;
            let step = (n / limit.min(n)).max(1);
            let scalar = |key: &str| set.get(key).map(|t| t.to_f64()[0]);
            let (scale, zero) = (scalar("scale").expect("scale"), scalar("zero_point").expect("zero_point"));
            let convert = |v: &f64| if ty.dtype == DType::F32 { (v - zero) * scale } else { *v };
            (0..n)
                .step_by(step)
                .map(|i| {
                    Tensor::from_f64(ty.clone(), &all[i * per..(i + 1) * per].iter().map(convert).collect::<Vec<_>>())
                })
                .collect()
        }
        n if n.starts_with("mlperf_ad") => {
            let set = set("ad01_one_clip_196windows.npz");
            let x = set.values().find(|t| t.ty().elements() % 640 == 0).expect("windows of 640");
            let all = x.to_f64();
            let n = all.len() / 640;
            let step = (n / limit.min(n)).max(1);
            let integer = x.dtype() != DType::F32;
            let convert = |v: &f64| match (integer, ty.dtype) {
                (false, DType::I8) => ((v / 0.391_015_23).round_ties_even() + 89.0).clamp(-128.0, 127.0),
                (true, DType::F32) => (v - 89.0) * 0.391_015_23,
                _ => *v,
            };
            (0..n)
                .step_by(step)
                .map(|i| {
                    Tensor::from_f64(ty.clone(), &all[i * 640..(i + 1) * 640].iter().map(convert).collect::<Vec<_>>())
                })
                .collect()
        }
        other => panic!("{other} has no data set"),
    }
}

fn compare(what: &str, found: &[Tensor], wanted: &[Tensor], bound: f64) {
    for (found, wanted) in found.iter().zip(wanted) {
        assert_eq!(found.ty(), wanted.ty(), "{what}");
        if wanted.dtype() != DType::F32 {
            assert!(found.bytes() == wanted.bytes(), "{what}: integers differ");
            continue;
        }
        let (a, b) = (found.to_f32(), wanted.to_f32());
        let largest = b.iter().fold(0f64, |m, v| m.max(v.abs() as f64));
        let worst = a.iter().zip(&b).map(|(x, y)| (x - y).abs() as f64).fold(0.0, f64::max);
        assert!(worst <= bound * largest, "{what}: {worst:e} off, largest value {largest}");
    }
}

/// The bound of a whole network.
fn network_bound(graph: &Graph) -> f64 {
    let products = graph.values().filter(|(_, v)| match &v.def {
        Def::Node { op, inputs } => {
            matches!(op, Op::Conv2d(_) | Op::MatMul(_)) && graph.ty(inputs[0]).dtype == DType::F32
        }
        _ => false,
    });
    KERNEL_BOUND * products.count().max(1) as f64
}

/// What the evaluator makes of the graph that a model was optimised to, held against what the imported graph gives.
fn lowered(name: &str, model: &Model, inputs: &[Tensor], wanted: &[Vec<Tensor>]) -> Vec<Vec<Tensor>> {
    let run = |x: &Tensor| eval::run(&model.optimised, std::slice::from_ref(x)).expect("evaluates");
    let results: Vec<Vec<Tensor>> = inputs.iter().map(run).collect();
    for (found, wanted) in results.iter().zip(wanted) {
        compare(&format!("{name} after the passes"), found, wanted, JUDGE_BOUND);
    }
    results
}

fn bytes(samples: &[Tensor]) -> Vec<exec::Sample> {
    samples.iter().map(|t| vec![t.bytes().to_vec()]).collect()
}

fn check(name: &str) {
    let Some(shared) = shared() else { return };
    let path = shared.join("models").join(format!("{name}.onnx"));
    let pair = npz(&shared.join("models/io").join(format!("{name}.npz")));
    let mut options = Options::for_target("generic-c").expect("built in");
    for (key, tensor) in &pair {
        if let Some(input) = key.strip_prefix("in:") {
            options.import.input_shapes.insert(input.to_string(), tensor.shape().to_vec());
        }
    }
    let model = Model::load(&path, &options).expect("imports");
    let graph = &model.integer;
    let ty = graph.ty(graph.inputs[0].value).clone();

    // The outside judge: within 1e-4, or one step of an integer.
    let given: Vec<Tensor> = graph.inputs.iter().map(|p| pair[&format!("in:{}", p.name)].clone()).collect();
    let judged: Vec<Tensor> = graph.outputs.iter().map(|p| pair[&format!("out:{}", p.name)].clone()).collect();
    let own = eval::run(graph, &given).expect("evaluates");
    for (found, judged) in own.iter().zip(&judged) {
        if judged.dtype() == DType::F32 {
            compare(
                &format!("{name} against ONNX Runtime"),
                std::slice::from_ref(found),
                std::slice::from_ref(judged),
                JUDGE_BOUND,
            );
        } else {
            let worst = found.to_i64().iter().zip(judged.to_i64()).map(|(a, b)| (a - b).abs()).max();
            assert!(worst <= Some(1), "{name} differs from ONNX Runtime by {worst:?} steps");
        }
    }

    let (many, few) = budget();
    let inputs = samples(name, &shared, &ty, many);
    let wanted: Vec<Vec<Tensor>> =
        inputs.iter().map(|x| eval::run(graph, std::slice::from_ref(x)).expect("evaluates")).collect();
    let few = few.min(inputs.len());

    let plan = model.plan().expect("lowers");
    let imported = wanted;
    let wanted = lowered(name, &model, &inputs, &imported);
    let bound = network_bound(&model.optimised);
    for (x, wanted) in inputs.iter().zip(&wanted).take(few) {
        compare(&format!("{name} by the plan"), &interp::run(&plan, std::slice::from_ref(x)), wanted, bound);
    }

    let host = Model::load(&path, &Options { import: options.import.clone(), ..Options::host() }).expect("imports");
    let mut session = host.session().expect("compiles");
    let on_host = lowered(name, &host, &inputs, &imported);
    for (x, wanted) in inputs.iter().zip(&on_host) {
        let found = session.run_tensors(std::slice::from_ref(x)).expect("runs");
        compare(&format!("{name} by the JIT"), &found, wanted, bound);
    }

    let tensors = |sample: &exec::Sample| -> Vec<Tensor> {
        sample
            .iter()
            .zip(&graph.outputs)
            .map(|(b, p)| Tensor::from_bytes(graph.ty(p.value).clone(), b.clone()).expect("sized by the header"))
            .collect()
    };
    let c = model.c_source("model").expect("emits");
    let found = exec::run_host(&c, &bytes(&inputs), exec::STRICT).expect("host C runs");
    for (found, wanted) in found.iter().zip(&wanted) {
        compare(&format!("{name} by host C"), &tensors(found), wanted, bound);
    }
    for (target, core) in [("cortex-m4", Core::M4), ("cortex-m7", Core::M7), ("cortex-m55", Core::M55)] {
        // The M55 board has 512 KiB of each memory.
        if core == Core::M55 && (c.arena_bytes > 400_000 || plan.const_bytes() > 400_000) {
            continue;
        }
        let options = Options { import: options.import.clone(), ..Options::for_target(target).expect("built in") };
        let model = Model::load(&path, &options).expect("imports");
        let wanted = lowered(name, &model, &inputs[..few], &imported);
        let c = model.c_source("model").expect("emits");
        let found = exec::run_qemu(&c, core, &bytes(&inputs[..few]), &[]).expect("C runs on the emulated core");
        for (found, wanted) in found.iter().zip(&wanted) {
            compare(&format!("{name} on {target}"), &tensors(found), wanted, bound);
        }
    }
    println!("{name}: {} samples, {few} on plan and emulated cores", inputs.len());
}

macro_rules! models {
    ($($name:ident)*) => { $( #[test] fn $name() { check(stringify!($name)); } )* };
}

models! {
    mlperf_ic_float mlperf_ic_int8_qdq
    mlperf_kws_float mlperf_kws_int8_qdq mlperf_kws_w8
    mlperf_vww_float mlperf_vww_int8_qdq
    mlperf_ad_float mlperf_ad_int8_qdq
    fm_lenet5 fm_lenet5_dynamo fm_lenet5_int8_qdq
    fm_vgg fm_vgg_bn fm_vgg_dynamo fm_vgg_int8_qdq
    fm_dscnn fm_dscnn_bn fm_dscnn_dynamo fm_dscnn_dynbatch fm_dscnn_int8_qdq
    fm_bigk11 fm_bigk11_int8_qdq
    fm_binary fm_binary_bn fm_ternary fm_ternary_bn
    cf_vgg cf_vgg_bn cf_vgg_int8_qdq
}
