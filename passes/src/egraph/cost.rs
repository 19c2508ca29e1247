//! What a node costs on a target: rough cycles, enough to rank the forms of one operator.
//!
//! The figures are relative: 1 is a multiply-accumulate of a channels-last convolution on a core with an FPU. What differs
//! between targets so far is the price of float and of integer arithmetic; fitted tables come with the choice of algorithms.

use super::lang::{EGraph, Head, Node};
use mcc_ir::op::{Binary, Layout, Op, PoolKind, Step, Unary};
use mcc_ir::target::{Backend, Feature};
use mcc_ir::types::TensorType;
use mcc_ir::{DType, Target, ops};

/// Entering and leaving a kernel.
const KERNEL: f64 = 200.0;
/// An operator on constants: nothing at run time, but the shorter derivation is preferred.
const DERIVED: f64 = 1e-3;
/// A byte stored, or read as an operand of an epilogue.
const BYTE: f64 = 0.5;
/// A reshape, which only renames.
const RENAME: f64 = 1.0;

/// What an operation of each kind costs on a target.
struct Prices {
    float: f64,
    integer: f64,
}

impl Prices {
    fn of(target: &Target) -> Prices {
        match target.backend {
            Backend::Jit => Prices { float: 1.0, integer: 1.0 },
            Backend::C => Prices {
                // Without an FPU every operation is a call of some 20 to 50 cycles; portable C is taken to have one.
                float: if target.core.is_empty() || target.has(Feature::Fpu) { 1.0 } else { 25.0 },
                // SMLAD does two multiply-accumulates.
                integer: if target.has(Feature::Dsp) { 0.7 } else { 1.5 },
            },
        }
    }
}

pub fn cycles(eg: &EGraph, node: &Node, target: &Target) -> f64 {
    let op = match &node.head {
        Head::Input(..) => return 0.0,
        Head::Const(_) => return DERIVED,
        Head::Op(op) => op,
    };
    if node.children.iter().all(|c| eg[*c].data.is_const) {
        return DERIVED;
    }
    let inputs: Vec<&TensorType> = node.children.iter().map(|c| &eg[*c].data.ty).collect();
    let out = ops::infer(op, &inputs).expect("nodes of the e-graph are well typed");
    let elements = out.elements() as f64;
    let prices = Prices::of(target);
    let integer = inputs.first().is_some_and(|t| t.dtype != DType::F32);
    let macs = ops::macs(op, &inputs, &out) as f64 * if integer { prices.integer } else { prices.float };
    let channels_first = |layout: Layout| layout == Layout::Nchw;
    let body = match op {
        Op::Reshape { .. } => return RENAME,
        Op::Conv2d(c) => macs * if channels_first(c.layout) { 4.0 } else { 1.0 },
        Op::ConvTranspose2d(c) => macs * if channels_first(c.layout) { 4.0 } else { 2.0 },
        Op::MatMul(m) => macs * if m.trans_b { 1.0 } else { 1.5 },
        Op::Pool2d(p) => {
            let window = (p.kernel[0] * p.kernel[1]) as f64;
            let each = if matches!(p.kind, PoolKind::Max) { 1.0 } else { 1.5 };
            elements * window * each * if channels_first(p.layout) { 1.5 } else { 1.0 }
        }
        Op::Reduce(_) => inputs[0].elements() as f64 * 1.5,
        Op::Softmax(_) => elements * 60.0,
        Op::LayerNorm(_) => elements * 8.0,
        Op::Recurrent(o) => macs + elements * 30.0 * prices.float * o.activations.len() as f64,
        Op::BatchNorm { .. } => elements * 20.0,
        Op::Transpose { .. } => elements * 6.0,
        Op::Map(_) => elements,
        Op::Resize(_) => elements * 10.0,
        _ => elements * 3.0,
    };
    let own = op.own_inputs().unwrap_or(inputs.len()).min(inputs.len());
    let operands: usize = inputs[own..].iter().map(|t| t.bytes()).sum();
    let steps: f64 = op.post().map_or(0.0, |p| p.iter().map(step).sum());
    KERNEL + body + steps * prices.float * elements + BYTE * (out.bytes() + operands) as f64
}

fn step(step: &Step) -> f64 {
    match step {
        Step::Unary(u) => match u {
            Unary::Neg | Unary::Abs | Unary::Relu | Unary::Clip(..) | Unary::Not => 1.0,
            Unary::Sign | Unary::LeakyRelu(_) | Unary::Floor | Unary::Ceil | Unary::Round => 2.0,
            Unary::HardSigmoid(..) | Unary::HardSwish | Unary::Reciprocal | Unary::Sqrt => 6.0,
            _ => 30.0,
        },
        Step::Binary { op, dequant, .. } => {
            let each = match op {
                Binary::Div => 6.0,
                Binary::Pow => 60.0,
                _ => 1.0,
            };
            each + if dequant.is_some() { 2.0 } else { 0.0 }
        }
        Step::Cast(_) => 1.0,
        Step::Requant { .. } => 5.0,
        Step::Dequant(_) => 2.0,
        Step::Quant { .. } => 8.0,
    }
}
