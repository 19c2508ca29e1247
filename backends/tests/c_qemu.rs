//! Emitted C on emulated Cortex-M cores: instructions of the DSP extension and the FPU against the evaluator.

mod c_support;

use c_support::cases::{averages, convs, depthwises, matmuls, pointwises, wholes, wide_convs, winograds};
use c_support::scalars::{fan, floats, quantised_sums, unaries};
use c_support::{Random, bytes, compile, installed, same};
use mcc_backends::c::CATALOGUE;
use mcc_backends::c::exec::{Core, run_qemu};
use mcc_backends::targets;
use mcc_ir::catalogue::Implementation;
use mcc_ir::graph::Graph;
use mcc_ir::{DType, Tensor, eval};
use mcc_passes::lower::Io;

const TARGETS: [&str; 3] = ["cortex-m4", "cortex-m7", "cortex-m55"];

fn ready() -> bool {
    installed("arm-none-eabi-gcc") && installed("qemu-system-arm")
}

/// Runs a graph on a target's core, on two samples of which the first is `inputs`, and compares the first.
fn check(g: &Graph, inputs: &[Tensor], target: &str, flags: &[&str], bound: f32) {
    check_by(CATALOGUE, g, inputs, target, flags, bound);
}

fn check_by(catalogue: &[Implementation], g: &Graph, inputs: &[Tensor], target: &str, flags: &[&str], bound: f32) {
    check_io(catalogue, g, inputs, target, flags, bound, Io::Arena);
}

fn check_io(
    catalogue: &[Implementation],
    g: &Graph,
    inputs: &[Tensor],
    target: &str,
    flags: &[&str],
    bound: f32,
    io: Io,
) {
    let core = Core::of(targets::find(target).unwrap()).unwrap();
    let c = compile(g, target, catalogue, io);
    let samples = [bytes(inputs), bytes(inputs)];
    let out = run_qemu(&c, core, &samples, flags).unwrap_or_else(|e| panic!("{target}: {e}\n{}", c.source));
    assert_eq!(out[0], out[1], "the second run differs");
    same(&eval::run(g, inputs).unwrap(), &out[0], bound, &c.source);
}

#[test]
fn integer_kernels_have_the_evaluators_bits() {
    if !ready() {
        return;
    }
    let strict = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Werror"];
    for (i, (g, inputs)) in convs(&[DType::I8, DType::U8]).iter().chain(&matmuls(&[DType::I8, DType::U8])).enumerate() {
        check(g, inputs, TARGETS[i % 3], &strict, 0.0);
        if i % 4 == 0 {
            check(g, inputs, "cortex-m4", &["-Os"], 0.0);
        }
        if i % 8 == 0 {
            check(g, inputs, "cortex-m4", &["-O0"], 0.0);
        }
    }
}

/// Forces one kernel on all cases, which its cost would keep from small images.
fn check_forced(id: &str, cases: &[(Graph, Vec<Tensor>)]) {
    if !ready() {
        return;
    }
    let one: Vec<_> = CATALOGUE.iter().filter(|e| e.id == id).copied().collect();
    let strict = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Werror"];
    for (i, (g, inputs)) in cases.iter().enumerate() {
        let flags = [&strict[..], &["-Os"], &strict[..], &["-O0"]][i % 4];
        check_by(&one, g, inputs, TARGETS[i % 3], flags, 0.0);
    }
}

/// Vector instructions; each kernel is forced on all that it takes.
#[test]
fn vector_kernels_have_the_evaluators_bits() {
    if !ready() {
        return;
    }
    let vectors: Vec<_> = CATALOGUE.iter().filter(|e| e.id.ends_with("mve")).copied().collect();
    let strict = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Werror"];
    let all = wide_convs(40, 9).into_iter().chain(depthwises(60)).chain(convs(&[DType::I8]));
    for (i, (g, inputs)) in all.chain(matmuls(&[DType::I8])).chain(averages(12)).enumerate() {
        let flags = [&strict[..], &["-Os"], &strict[..], &["-O0"]][i % 4];
        let io = if i % 3 == 0 { Io::Separate } else { Io::Arena };
        check_io(&vectors, &g, &inputs, "cortex-m55", flags, 0.0, io);
    }
}

#[test]
fn depthwise_rows_have_the_evaluators_bits() {
    check_forced("depthwise-s8-rows", &depthwises(24));
}

#[test]
fn winograd_has_the_evaluators_bits() {
    check_forced("conv2d-s8-winograd-2", &winograds(1, 12));
    check_forced("conv2d-s8-winograd-4", &winograds(1, 18));
    check_forced("conv2d-s8-winograd-stride-2", &winograds(2, 12));
}

#[test]
fn whole_pixels_have_the_evaluators_bits() {
    check_forced("conv2d-s8-strips", &wholes(32));
    check_forced("conv2d-s8-strips", &pointwises(12));
    check_forced("conv2d-s8-direct", &wholes(32));
}

#[test]
fn float_kernels_are_close_to_the_evaluator() {
    if !ready() {
        return;
    }
    for (i, (g, inputs)) in convs(&[DType::F32]).iter().chain(&matmuls(&[DType::F32])).enumerate() {
        if i % 2 == 0 {
            check(g, inputs, TARGETS[i / 2 % 3], &[], 1e-6);
        }
    }
}

/// GCC contracts to fused multiply-add by default on these cores.
#[test]
fn scalars_have_the_evaluators_bits() {
    if !ready() {
        return;
    }
    let x = Tensor::new([1000], &floats(1000));
    let g = fan(unaries(), std::slice::from_ref(&x));
    let r = &mut Random::new(21);
    let pair = [r.tensor(DType::I8, &[5000]), r.tensor(DType::I8, &[5000])];
    let sums = fan(quantised_sums(), &pair);
    for target in TARGETS {
        check(&g, std::slice::from_ref(&x), target, &[], 0.0);
        check(&sums, &pair, target, &[], 0.0);
    }
}
