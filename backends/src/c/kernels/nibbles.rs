//! The loop nest with weights of four bits, two in a byte: for whatever has no better kernel.

use super::{Template, printable};
use crate::c::nest::Printer;
use crate::c::writer::Writer;
use mcc_ir::Tensor;
use mcc_ir::catalogue::{KernelSpec, Offer};
use mcc_ir::costs::{Code, Work};
use mcc_ir::op::Op;
use mcc_ir::ops;
use mcc_ir::packing::Packing;
use mcc_ir::target::{Backend, Target};
use mcc_ir::types::TensorType;

/// Estimated cycles of a multiply-accumulate, and bytes of code.
const MAC_CYCLES: f64 = 13.0;
const CODE_BYTES: usize = 440;

/// What is added to the four bits of each weight; `None` where the weights do not fit.
pub fn low(weights: Option<&Tensor>) -> Option<i32> {
    match Packing::None.nibbles(weights?)? {
        Packing::Nibbles { low, .. } => Some(low),
        _ => None,
    }
}

pub fn offer(spec: &KernelSpec<'_>, target: &Target) -> Option<Offer> {
    let product = matches!(spec.op, Op::Conv2d(_) | Op::MatMul(_));
    let printed = spec.op.post().is_some_and(|p| p.iter().all(printable));
    if !product || !printed || target.backend != Backend::C {
        return None;
    }
    let mut packings = vec![Packing::None; spec.arg_types.len()];
    packings[1] = Packing::None.nibbles(spec.consts[1]?)?;
    let types: Vec<&TensorType> = spec.arg_types.iter().collect();
    let work = ops::macs(spec.op, &types, spec.out_type).max(spec.out_type.elements() as u64);
    let cycles = MAC_CYCLES * work as f64;
    let (work, code) = (Work::cycles(cycles), Code::bytes(CODE_BYTES));
    Some(Offer { packings, scratch_bytes: 0, work, code, overlap: None })
}

pub fn print(t: &mut Template<'_>, w: &mut Writer) {
    let nest = &t.kernel.nest;
    let mut pointers = t.args.to_vec();
    // Products have no tables: the pointers are those of the nest.
    debug_assert_eq!(pointers.len(), nest.args.len());
    pointers.truncate(nest.args.len());
    let mut printer = Printer::new(nest, t.helpers, &pointers);
    printer.nibbles = Some((1, low(t.consts[1]).expect("offered only where the weights fit")));
    printer.block(w, &nest.body);
    let used: Vec<usize> = printer.used.iter().copied().collect();
    t.used.extend(used);
}
