//! Memory of compiled code. Alone in its process, as it looks at the resident set.
#![cfg(target_os = "linux")]

mod jit_support;

use jit_support::*;
use mcc_backends::jit;
use mcc_ir::Tensor;
use mcc_ir::op::{Op, Unary};

/// Resident memory of this process, in pages.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux has statm");
    text.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("the second number is the resident set")
}

/// Dropping a session gives its code's memory back: a thousand of them would hold 1500 pages.
#[test]
fn code_memory_is_freed() {
    let x = Tensor::new([3], &[1f32, -2.0, 3.0]);
    let plan = op_plan(&Op::unary(Unary::Neg), &[Operand::Input(x.clone())], true);
    let run = |times: usize| {
        for _ in 0..times {
            let out = jit::compile(&plan).unwrap().run_tensors(std::slice::from_ref(&x)).unwrap();
            assert_eq!(out[0].to_f32(), [-1.0, 2.0, -3.0]);
        }
    };
    run(50);
    let before = resident();
    run(1000);
    let grown = resident().saturating_sub(before);
    assert!(grown < 500, "{grown} pages more are resident after 1000 sessions");
}
