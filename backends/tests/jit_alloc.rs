//! A run allocates nothing. Alone in its process, whose allocator it replaces.

mod jit_support;

use jit_support::*;
use mcc_backends::jit;
use mcc_ir::op::{Step, Unary};
use mcc_ir::{DType, TensorType};
use mcc_runtime::{CATALOGUE, TensorMut, TensorRef, Threads};
use std::alloc::{GlobalAlloc, Layout as Block, System};
use std::cell::Cell;

thread_local! {
    /// Allocations of this thread. Workers allocate as they start, at any time.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: all is done by the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, block: Block) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's contract.
        unsafe { System.alloc(block) }
    }

    unsafe fn dealloc(&self, at: *mut u8, block: Block) {
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(at, block) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn runs_allocate_nothing() {
    let x = random(&TensorType::new(DType::F32, [1, 16, 16, 24]), 1);
    let weights = random(&TensorType::new(DType::F32, [40, 3, 3, 24]), 2);
    let op = same_conv(vec![Step::Unary(Unary::Relu)]);
    let operands = [Operand::Input(x.clone()), Operand::Const(weights)];
    let values = x.to_f32();
    let mut out = vec![0f32; 16 * 16 * 40];
    for implementation in CATALOGUE.iter().filter(|i| i.id.starts_with("winograd") || i.id.starts_with("product_f32")) {
        let Some(plan) = implement(op_plan(&op, &operands, false), implementation) else { continue };
        for count in [1, 2, 3] {
            let mut session = jit::compile_for_threads(&plan, Threads { count, enough: 1.0 }).expect("a session");
            for run in 0..20 {
                let before = ALLOCATIONS.get();
                let result = session.run(&[TensorRef::from(&values[..])], &mut [TensorMut::from(&mut out[..])]);
                let now = ALLOCATIONS.get();
                assert!(result.is_ok());
                assert!(
                    run == 0 || now == before,
                    "{} on {count} threads: {} allocations",
                    implementation.id,
                    now - before
                );
                // Long enough for the workers to fall asleep, now and then.
                if run % 8 == 0 {
                    std::thread::sleep(std::time::Duration::from_millis(3));
                }
            }
        }
    }
}
