//! Plans in several arenas and in strips: every executor gives the evaluator's bits.

mod c_support;

use c_support::cases::requant;
use c_support::{Random, agrees, bytes, difference, installed};
use mcc_backends::c::exec::{Core, run_qemu};
use mcc_backends::c::{CATALOGUE, COptions, CSource, emit};
use mcc_backends::{jit, targets};
use mcc_ir::graph::{Graph, ValueId, origin};
use mcc_ir::op::{Binary, Conv2d, Layout, Step};
use mcc_ir::plan::{Plan, interp};
use mcc_ir::target::{Memory, MemoryKind};
use mcc_ir::types::{F32, QuantParams};
use mcc_ir::{DType, Op, Target, Tensor, TensorType, eval};
use mcc_passes::lower::{Io, Options, Patch, lower};

/// An image, a 3 x 3 convolution, a residual block of another and a depthwise one, and a pointwise one with a stride.
fn network() -> (Graph, Vec<Tensor>) {
    let r = &mut Random::new(11);
    let mut g = Graph::new("net");
    let x = g.add_input("x", TensorType::new(DType::I8, [1, 24, 12, 4]));
    let mut conv = |g: &mut Graph, x: ValueId, outs: usize, kernel: usize, stride: usize, depthwise: bool| {
        let channels = g.ty(x).shape[3];
        let (post, operands) = requant(r, outs, DType::I8);
        let within = if depthwise { 1 } else { channels };
        let weights = g.add_const(r.tensor(DType::I8, &[outs, kernel, kernel, within]), origin("w"));
        let bias = g.add_const(r.tensor(DType::I32, &[outs]), origin("b"));
        let mut inputs = vec![x, weights, bias];
        inputs.extend(operands.into_iter().map(|t| g.add_const(t, origin("s"))));
        let op = Conv2d {
            layout: Layout::Nhwc,
            stride: [stride; 2],
            pad: [kernel / 2; 4],
            dilation: [1, 1],
            groups: if depthwise { channels } else { 1 },
            pad_value: 0,
            bias: true,
            post,
        };
        g.add_node(Op::Conv2d(op), inputs, origin("conv")).unwrap()
    };
    let a = conv(&mut g, x, 8, 3, 1, false);
    let b = conv(&mut g, a, 8, 3, 1, false);
    let c = conv(&mut g, b, 8, 3, 1, true);
    let q = QuantParams { scale: F32(0.25), zero_point: 3 };
    let add = Step::Binary { op: Binary::Add, swapped: false, dequant: Some(q) };
    let steps = vec![Step::Dequant(q), add, Step::Quant { q, lo: -128, hi: 127, dtype: DType::I8 }];
    let sum = g.add_node(Op::Map(steps), vec![c, a], origin("add")).unwrap();
    let y = conv(&mut g, sum, 4, 1, 2, false);
    g.add_output("y", y);
    (g, vec![r.tensor(DType::I8, &[1, 24, 12, 4])])
}

fn c_of(plan: &Plan, target: &Target) -> CSource {
    emit(plan, target, &COptions { name: "m".into() }).unwrap()
}

/// Interpreter, and C on an emulated core.
fn check_there(graph: &Graph, inputs: &[Tensor], plan: &Plan, target: &Target) {
    let expected = eval::run(graph, inputs).unwrap();
    assert_eq!(interp::run(plan, inputs), expected);
    let c = c_of(plan, target);
    if installed("arm-none-eabi-gcc") && installed("qemu-system-arm") {
        let core = Core::of(target).unwrap();
        let out = run_qemu(&c, core, &[bytes(inputs)], &["-Wall", "-Wextra", "-Wconversion", "-Werror"]);
        let out = out.unwrap_or_else(|e| panic!("{e}\n{}", c.source));
        assert_eq!(difference(&expected, &out[0], 0.0), None, "{}", c.source);
    }
}

/// C and machine code of this machine, for the memories of a target.
fn check_here(graph: &Graph, inputs: &[Tensor], target: &Target, options: Options) {
    let expected = eval::run(graph, inputs).unwrap();
    let portable = targets::find("generic-c").unwrap();
    let portable = Target { memories: target.memories.clone(), ram: target.ram, ..portable.clone() };
    if installed("cc") {
        let plan = lower(graph, &portable, CATALOGUE, options.clone()).unwrap();
        agrees(graph, &c_of(&plan, &portable), inputs, 0.0);
    }
    let host = targets::find("host").unwrap();
    let host = Target { memories: target.memories.clone(), alignment: 16, ..host.clone() };
    let plan = lower(graph, &host, mcc_runtime::CATALOGUE, Options { io: Io::Separate, ..options }).unwrap();
    let session = jit::compile(&plan).unwrap();
    let given: Vec<_> = inputs.iter().map(|t| t.bytes().to_vec()).collect();
    let mut out: Vec<Vec<u8>> = expected.iter().map(|t| vec![0; t.bytes().len()]).collect();
    run_session(session, &given, &mut out);
    assert_eq!(difference(&expected, &out, 0.0), None);
}

fn run_session(mut session: mcc_runtime::Session, inputs: &[Vec<u8>], outputs: &mut [Vec<u8>]) {
    let inputs: Vec<Vec<i8>> = inputs.iter().map(|b| b.iter().map(|b| *b as i8).collect()).collect();
    let mut results: Vec<Vec<i8>> = outputs.iter().map(|o| vec![0; o.len()]).collect();
    let given: Vec<mcc_runtime::TensorRef<'_>> = inputs.iter().map(|i| i.as_slice().into()).collect();
    let mut taken: Vec<mcc_runtime::TensorMut<'_>> = results.iter_mut().map(|o| o.as_mut_slice().into()).collect();
    session.run(&given, &mut taken).unwrap();
    for (out, result) in outputs.iter_mut().zip(results) {
        out.copy_from_slice(&result.iter().map(|v| *v as u8).collect::<Vec<_>>());
    }
}

fn with_ram(core: &str, sizes: &[usize]) -> Target {
    let memory = |(i, bytes): (usize, &usize)| Memory {
        name: format!("bank-{i}"),
        kind: MemoryKind::Ram,
        bytes: *bytes,
        wait: i as u32,
        section: format!(".bank{i}"),
    };
    let target = targets::find(core).unwrap();
    Target { memories: sizes.iter().enumerate().map(memory).collect(), ram: None, ..target.clone() }
}

#[test]
fn several_arenas_hold_what_one_memory_does_not() {
    let (graph, inputs) = network();
    for core in ["cortex-m4", "cortex-m55"] {
        let options = Options { patch: Patch::Off, ..Options::default() };
        let whole = lower(&graph, &with_ram(core, &[1 << 20]), CATALOGUE, options.clone()).unwrap();
        assert_eq!(whole.arenas.len(), 1);
        // No memory holds all, two do.
        let target = with_ram(core, &[whole.arena_bytes * 2 / 3 / 16 * 16, whole.arena_bytes * 3 / 4 / 16 * 16]);
        let plan = lower(&graph, &target, CATALOGUE, options.clone()).unwrap();
        assert_eq!(plan.arenas.len(), 2, "{plan}");
        let c = c_of(&plan, &target);
        assert!(c.header.contains("int m_run(void *arena_bank_0, void *arena_bank_1, const int8_t *input_0,"));
        for i in 0..2 {
            assert!(c.header.contains(&format!("#define M_ARENA_BANK_{i}_BYTES {}\n", plan.bytes_of_arena(i))));
            assert!(c.header.contains(&format!("#define M_ARENA_BANK_{i}_SECTION \".bank{i}\"")));
            assert!(plan.bytes_of_arena(i) <= target.memories[i].bytes);
        }
        assert!(!c.header.contains("M_ARENA_BYTES"), "code for one arena must not compile");
        check_there(&graph, &inputs, &plan, &target);
        check_here(&graph, &inputs, &target, options.clone());
        // Where none of it is large enough, the largest memory is the one to be blamed.
        let small = lower(&graph, &with_ram(core, &[64, 128]), CATALOGUE, options).unwrap();
        assert_eq!(small.arenas[0].memory.as_deref(), Some("bank-1"));
    }
}

#[test]
fn strips_have_the_bits_of_the_whole() {
    let (graph, inputs) = network();
    for core in ["cortex-m4", "cortex-m7", "cortex-m55"] {
        let target = targets::find(core).unwrap();
        let by = |patch| lower(&graph, target, CATALOGUE, Options { patch, ..Options::default() }).unwrap();
        let whole = by(Patch::Off);
        for strips in [3, 6] {
            let plan = by(Patch::Strips(strips));
            assert!(plan.kernels.len() > whole.kernels.len() && plan.arena_bytes < whole.arena_bytes, "{plan}");
            assert!(plan.macs() > whole.macs());
            check_there(&graph, &inputs, &plan, target);
        }
    }
    let options = Options { patch: Patch::Strips(4), ..Options::default() };
    check_here(&graph, &inputs, targets::find("cortex-m4").unwrap(), options);
}

/// A budget that the whole tensors break is kept by strips; the price of memory alone does not make them.
#[test]
fn a_budget_is_kept_by_strips() {
    let (graph, _) = network();
    let target = targets::find("cortex-m4").unwrap();
    let by = |ram| lower(&graph, target, CATALOGUE, Options { ram, ..Options::default() }).unwrap();
    let free = by(None);
    let tight = by(Some(free.arena_bytes - 400));
    assert!(tight.arena_bytes <= free.arena_bytes - 400 && tight.kernels.len() > free.kernels.len());
    // Middle strips are one function.
    let c = c_of(
        &lower(&graph, target, CATALOGUE, Options { patch: Patch::Strips(6), ..Options::default() }).unwrap(),
        target,
    );
    let functions = c.source.matches("static void m_k").count();
    let calls = c.source.lines().filter(|l| l.starts_with("    m_k")).count();
    assert!(functions < calls, "{functions} functions, {calls} calls");
}
