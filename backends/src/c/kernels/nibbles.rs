//! The loop nest with weights of four bits, two in a byte: for whatever has no better kernel.

use super::{Template, printable, work};
use crate::c::nest::Printer;
use crate::c::writer::Writer;
use mcc_ir::Tensor;
use mcc_ir::catalogue::{KernelSpec, Offer};
use mcc_ir::costs::{Code, Work};
use mcc_ir::op::{Layout, Op};
use mcc_ir::ops;
use mcc_ir::packing::Packing;
use mcc_ir::target::{Backend, Target};
use mcc_ir::types::TensorType;

/// Innermost loops of at most so many iterations are unrolled.
const UNROLLED: usize = 16;

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
    // Short innermost loops are unrolled.
    let inner = match spec.op {
        Op::Conv2d(o) if o.layout == Layout::Nhwc => types[1].shape[3],
        Op::Conv2d(_) => types[1].shape[3] * types[1].shape[2],
        _ => types[0].shape[types[0].rank() - 1],
    };
    let macs = ops::macs(spec.op, &types, spec.out_type) as f64;
    let products = if inner <= UNROLLED { "products unrolled" } else { "products" };
    let work = Work::default().and("runs of the kernel", 1.0).and(products, macs).and("loops", macs / inner as f64);
    let work = work::epilogue(work, spec);
    let code = Code::own(ops::nest(spec.op, &types, spec.out_type).ok()?.code());
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
