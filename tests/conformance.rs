//! The executors agree: evaluator, plan interpreter, JIT, host C and C on emulated Cortex-M, on the shared models.
//!
//! Integer results are compared bit for bit. A float kernel may be 1e-5 of its result's largest magnitude away from the
//! evaluator; here whole networks are compared, so each convolution and matrix product of the lowered graph adds that much
//! (one kernel by itself is held to 1e-5 by the tests of the kernels and by `mcc validate`). The lowered graph may be as far
//! from the imported one as ONNX Runtime may be: passes of the class `Reassociates` move roundings through the network. The
//! evaluator is compared with the outputs of ONNX Runtime that are stored beside each model.
//!
//! A few samples of each data set by default. With `MCC_FULL=1` JIT and host C run every stored sample and are compared with
//! each other, the evaluator runs up to 1000 of them, and the slow executors 20.

mod data_sets;
mod support;

use data_sets::spread;
use mcc::backends::c::exec::{self, Core};
use mcc::ir::graph::{Def, ValueId};
use mcc::ir::op::{Step, Unary};
use mcc::ir::{DType, Graph, Op, Tensor, eval, plan::interp};
use mcc::{Model, Options};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use support::{npz, shared};

/// What one float kernel may add to the difference from the evaluator on the lowered graph, relative to the largest magnitude.
const KERNEL_BOUND: f64 = 1e-5;
/// The same against ONNX Runtime, and between the graphs before and after the passes.
const JUDGE_BOUND: f64 = 1e-4;
/// Values up to this, relative to the largest beside them, are 0 but for the roundings of a sum.
const ROUNDING: f64 = 1e-6;

/// Flags of the builds for emulated cores: a warning is an error.
const EMBEDDED: &[&str] = &["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Werror"];

/// How many samples are run.
struct Budget {
    /// By the JIT and host C, which are compared with each other.
    compiled: usize,
    /// Of these also by the evaluator.
    evaluated: usize,
    /// Of these also by the plan interpreter and the emulated cores.
    slow: usize,
}

impl Budget {
    fn new() -> Budget {
        match std::env::var_os("MCC_FULL") {
            Some(_) => Budget { compiled: usize::MAX, evaluated: 1000, slow: 20 },
            None => Budget { compiled: 20, evaluated: usize::MAX, slow: 2 },
        }
    }
}

/// How `found` differs from `wanted`: integers at all, floats by more than `bound` of the largest magnitude.
fn difference(found: &[Tensor], wanted: &[Tensor], bound: f64) -> Option<String> {
    assert_eq!(found.len(), wanted.len(), "number of outputs");
    found.iter().zip(wanted).find_map(|(found, wanted)| {
        assert_eq!(found.ty(), wanted.ty());
        if wanted.dtype() != DType::F32 {
            return (found.bytes() != wanted.bytes()).then(|| "integers differ".to_string());
        }
        let (a, b) = (found.to_f32(), wanted.to_f32());
        let allowed = bound * largest(wanted);
        let close = |x: f32, y: f32| (x as f64 - y as f64).abs() <= allowed;
        a.iter()
            .zip(&b)
            .find(|(x, y)| !close(**x, **y))
            .map(|(x, y)| format!("{x} instead of {y}, allowed are {allowed:e}"))
    })
}

fn largest(tensor: &Tensor) -> f64 {
    tensor.to_f64().iter().fold(0.0, |m, v| m.max(v.abs()))
}

/// Holds what executors made of samples against what it should be.
///
/// A network that takes signs of floats is not continuous. Where a sum is 0 but for its roundings, the order of additions
/// decides the sign, and all layers behind see another number: ONNX Runtime differs from itself on such an image, with and
/// without optimisations. Such samples are no fault of an executor. They are counted, and they have to be rare.
struct Judge<'a> {
    name: &'a str,
    /// What the model means.
    graph: &'a Graph,
    samples: &'a [Tensor],
    /// Samples that came out differently because a rounding decides them.
    undecided: BTreeSet<usize>,
}

impl Judge<'_> {
    fn hold(&mut self, by: &str, sample: usize, found: &[Tensor], wanted: &[Tensor], bound: f64) {
        if let Some(fault) = difference(found, wanted, bound) {
            let name = self.name;
            assert!(rounding_decides(self.graph, &self.samples[sample]), "{name} {by}, sample {sample}: {fault}");
            self.undecided.insert(sample);
        }
    }
}

/// Whether the sign of a float is taken that is 0 but for its roundings.
fn rounding_decides(graph: &Graph, input: &Tensor) -> bool {
    let takes_sign = |op: &Op| matches!(op, Op::Map(steps) if steps[0] == Step::Unary(Unary::Sign));
    let read: Vec<ValueId> = graph
        .values()
        .filter_map(|(id, _)| graph.node(id))
        .filter(|(op, inputs)| takes_sign(op) && graph.ty(inputs[0]).dtype == DType::F32)
        .map(|(_, inputs)| inputs[0])
        .collect();
    let mut decides = false;
    let observe = |id: ValueId, tensor: &Tensor| {
        if read.contains(&id) {
            let rounding = ROUNDING * largest(tensor);
            decides |= tensor.to_f64().iter().any(|v| v.abs() <= rounding);
        }
    };
    eval::run_with(graph, std::slice::from_ref(input), observe).expect("evaluates");
    decides
}

/// Convolutions, matrix products and recurrent layers on floats.
fn float_products(graph: &Graph) -> usize {
    let products = graph.values().filter(|(_, v)| match &v.def {
        Def::Node { op, inputs } => {
            matches!(op, Op::Conv2d(_) | Op::MatMul(_) | Op::Recurrent(_)) && graph.ty(inputs[0]).dtype == DType::F32
        }
        _ => false,
    });
    products.count()
}

/// The bound of a whole network.
fn network_bound(graph: &Graph) -> f64 {
    KERNEL_BOUND * float_products(graph).max(1) as f64
}

/// What the evaluator makes of the graph that a model was optimised to, held against what the imported graph gives.
fn lowered(judge: &mut Judge, model: &Model, samples: &[usize], wanted: &[Vec<Tensor>]) -> Vec<Vec<Tensor>> {
    let run = |&i: &usize| eval::run(&model.optimised, std::slice::from_ref(&judge.samples[i])).expect("evaluates");
    let results: Vec<Vec<Tensor>> = samples.iter().map(run).collect();
    for ((&i, found), wanted) in samples.iter().zip(&results).zip(wanted) {
        judge.hold("after the passes", i, found, wanted, JUDGE_BOUND);
    }
    results
}

fn bytes<'a>(samples: impl Iterator<Item = &'a Tensor>) -> Vec<exec::Sample> {
    samples.map(|t| vec![t.bytes().to_vec()]).collect()
}

fn check(name: &str) {
    let Some(shared) = shared() else { return };
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    let here = own.join(format!("{name}.onnx")).is_file();
    let (models, pairs) = if here { (own.clone(), own) } else { (shared.join("models"), shared.join("models/io")) };
    let path = models.join(format!("{name}.onnx"));
    let pair = npz(&pairs.join(format!("{name}.npz")));
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
            let [found, judged] = [found, judged].map(std::slice::from_ref);
            assert_eq!(difference(found, judged, JUDGE_BOUND), None, "{name} against ONNX Runtime");
        } else {
            let worst = found.to_i64().iter().zip(judged.to_i64()).map(|(a, b)| (a - b).abs()).max();
            assert!(worst <= Some(1), "{name} differs from ONNX Runtime by {worst:?} steps");
        }
    }

    let budget = Budget::new();
    let sets = data_sets::of(name, &shared, &ty, budget.compiled);
    let all: Vec<Tensor> = sets.iter().flat_map(|s| s.inputs.iter().cloned()).collect();
    let mut judge = Judge { name, graph, samples: &all, undecided: BTreeSet::new() };
    let evaluated: Vec<usize> = spread(all.len(), budget.evaluated).collect();
    let slow = &evaluated[..budget.slow.min(evaluated.len())];
    let run = |&i: &usize| eval::run(graph, std::slice::from_ref(&all[i])).expect("evaluates");
    let imported: Vec<Vec<Tensor>> = evaluated.iter().map(run).collect();

    let plan = model.plan().expect("lowers");
    let wanted = lowered(&mut judge, &model, &evaluated, &imported);
    let bound = network_bound(&model.optimised);
    for (&i, wanted) in slow.iter().zip(&wanted) {
        judge.hold("by the plan", i, &interp::run(&plan, std::slice::from_ref(&all[i])), wanted, bound);
    }

    let host = Model::load(&path, &Options { import: options.import.clone(), ..Options::host() }).expect("imports");
    let mut session = host.session().expect("compiles");
    let by_jit: Vec<Vec<Tensor>> =
        all.iter().map(|x| session.run_tensors(std::slice::from_ref(x)).expect("runs")).collect();
    for (&i, wanted) in evaluated.iter().zip(&lowered(&mut judge, &host, &evaluated, &imported)) {
        judge.hold("by the JIT", i, &by_jit[i], wanted, bound);
    }

    let tensors = |sample: &exec::Sample| -> Vec<Tensor> {
        sample
            .iter()
            .zip(&graph.outputs)
            .map(|(b, p)| Tensor::from_bytes(graph.ty(p.value).clone(), b.clone()).expect("sized by the header"))
            .collect()
    };
    let c = model.c_source("model").expect("emits");
    let by_c = exec::run_host(&c, &bytes(all.iter()), exec::STRICT).expect("host C runs");
    let by_c: Vec<Vec<Tensor>> = by_c.iter().map(tensors).collect();
    for (&i, wanted) in evaluated.iter().zip(&wanted) {
        judge.hold("by host C", i, &by_c[i], wanted, bound);
    }
    // An integer network is exact even where it gives floats.
    let apart = if float_products(&model.optimised) == 0 { 0.0 } else { JUDGE_BOUND };
    for (i, (found, wanted)) in by_jit.iter().zip(&by_c).enumerate() {
        judge.hold("by the JIT against host C", i, found, wanted, apart);
    }

    for target in ["cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55", "riscv32imc"] {
        let options = Options { import: options.import.clone(), ..Options::for_target(target).expect("built in") };
        let model = Model::load(&path, &options).expect("imports");
        let wanted = lowered(&mut judge, &model, slow, &imported);
        let c = model.c_source("model").expect("emits");
        let samples = bytes(slow.iter().map(|&i| &all[i]));
        let core = Core::of(&model.target).expect("has a board");
        let found = match exec::run_qemu(&c, core, &samples, EMBEDDED) {
            // The M55's board has 512 KiB of each memory.
            Err(exec::ExecError::TooLarge { .. }) if core == Core::M55 => continue,
            found => found.expect("C runs on the emulated core"),
        };
        for ((&i, found), wanted) in slow.iter().zip(&found).zip(&wanted) {
            judge.hold(&format!("on {target}"), i, &tensors(found), wanted, bound);
        }
    }

    let mut next = 0;
    for set in &sets {
        let part = next..next + set.inputs.len();
        next = part.end;
        println!("{name} on {}: {}", set.set, summary(&by_jit[part.clone()], &by_c[part], &set.labels));
    }
    println!("{name}: {} samples by the evaluator, {} on plan and emulated cores", evaluated.len(), slow.len());
    if !judge.undecided.is_empty() {
        println!("{name}: a rounding decides samples {:?}", judge.undecided);
    }
    assert!(judge.undecided.len() <= all.len().div_ceil(1000), "{name}: too many samples hang on a rounding");
}

/// What JIT and host C made of a set: how far apart they are, and how often the largest output is the label's.
fn summary(by_jit: &[Vec<Tensor>], by_c: &[Vec<Tensor>], labels: &[usize]) -> String {
    let mut worst = 0f64;
    for (a, b) in by_jit.iter().zip(by_c).flat_map(|(a, b)| a.iter().zip(b)) {
        let largest = largest(b).max(f64::MIN_POSITIVE);
        worst = a.to_f64().iter().zip(&b.to_f64()).fold(worst, |m, (x, y)| m.max((x - y).abs() / largest));
    }
    let mut text = format!("{} samples by JIT and host C, {worst:.1e} apart", by_jit.len());
    if !labels.is_empty() {
        for (executor, outputs) in [("JIT", by_jit), ("C", by_c)] {
            let right = outputs.iter().zip(labels).filter(|(o, label)| top(&o[0]) == **label).count();
            write!(text, ", {executor} top-1 {:.2} %", 100.0 * right as f64 / labels.len() as f64).expect("a string");
        }
    }
    text
}

/// The first of the largest elements.
fn top(output: &Tensor) -> usize {
    let values = output.to_f64();
    values.iter().enumerate().fold(0, |best, (i, v)| if *v > values[best] { i } else { best })
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
    fm_lstm fm_lstm_dynamo fm_gru fm_gru_dynamo
    fm_binary fm_binary_bn fm_ternary fm_ternary_bn
    fm_lenet5_a8w4_qdq fm_lenet5_a16w8_qdq fm_dscnn_a8w4_qdq fm_dscnn_a16w4_qdq
    cf_vgg cf_vgg_bn cf_vgg_int8_qdq
}
