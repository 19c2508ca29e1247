//! The Plan interpreter: every kernel by its loop nest, in one arena.

use super::{Arg, BufferKind, Plan};
use crate::catalogue::NEST;
use crate::nest::run;
use crate::tensor::Tensor;

/// Runs a verified plan on one tensor an input and returns its outputs.
///
/// # Panics
/// Where the inputs are not of the plan's types.
pub fn run(plan: &Plan, inputs: &[Tensor]) -> Vec<Tensor> {
    run_with(plan, inputs, |_, _| {})
}

/// As [`run`], showing the result of every kernel (by its index) to `observe`.
///
/// # Panics
/// As [`run`].
pub fn run_with(plan: &Plan, inputs: &[Tensor], mut observe: impl FnMut(usize, &Tensor)) -> Vec<Tensor> {
    // One memory: the arena, then buffers that live outside it, then constants.
    let mut memory = vec![0xA5u8; plan.arena_bytes];
    let buffers: Vec<usize> = plan
        .buffers
        .iter()
        .map(|b| {
            b.offset.unwrap_or_else(|| {
                let at = memory.len();
                memory.resize(at + b.bytes, 0xA5);
                at
            })
        })
        .collect();
    let consts: Vec<usize> = plan
        .consts
        .iter()
        .map(|c| {
            let at = memory.len();
            memory.extend_from_slice(c.tensor.bytes());
            at
        })
        .collect();
    for (port, tensor) in plan.inputs.iter().zip(inputs) {
        assert_eq!(&port.ty, tensor.ty(), "input {}", port.name);
        let at = buffers[port.buffer.index()];
        memory[at..at + tensor.bytes().len()].copy_from_slice(tensor.bytes());
    }
    for (i, kernel) in plan.kernels.iter().enumerate() {
        let mut bases: Vec<usize> = kernel
            .args
            .iter()
            .map(|arg| match arg {
                Arg::Buffer(b) => buffers[b.index()],
                Arg::Const(c) => consts[c.index()],
            })
            .chain(kernel.tables.iter().map(|c| consts[c.index()]))
            .collect();
        let at = buffers[kernel.out.index()];
        let bytes = kernel.out_type.bytes();
        // An implementation may work over its argument where the loop nest cannot.
        let aside = kernel.implementation != NEST && plan.buffer(kernel.out).over.is_some();
        if aside {
            bases.push(memory.len());
            memory.resize(memory.len() + bytes, 0xA5);
        } else {
            bases.push(at);
        }
        run::run(&kernel.nest, &mut memory, &bases);
        if aside {
            let from = memory.len() - bytes;
            memory.copy_within(from.., at);
            memory.truncate(from);
        }
        let out = memory[at..at + bytes].to_vec();
        observe(i, &Tensor::from_bytes(kernel.out_type.clone(), out).expect("sized by its type"));
    }
    plan.outputs
        .iter()
        .map(|port| {
            debug_assert!(!matches!(plan.buffer(port.buffer).kind, BufferKind::Scratch));
            let at = buffers[port.buffer.index()];
            let bytes = memory[at..at + port.ty.bytes()].to_vec();
            Tensor::from_bytes(port.ty.clone(), bytes).expect("sized by its type")
        })
        .collect()
}
