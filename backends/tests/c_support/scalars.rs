//! Element-wise operators, and floats of every kind to try them on.

use super::Random;
use mcc_ir::graph::{Graph, origin};
use mcc_ir::op::{Binary, Step, Unary};
use mcc_ir::types::{F32, QuantParams};
use mcc_ir::{DType, Op, Tensor};

/// A graph whose outputs are the results of `ops` on input 0 and, where they take two, input 1.
pub fn fan(ops: Vec<Op>, inputs: &[Tensor]) -> Graph {
    let mut g = Graph::new("fan");
    let ids: Vec<_> = inputs.iter().enumerate().map(|(i, t)| g.add_input(format!("x{i}"), t.ty().clone())).collect();
    for (i, op) in ops.into_iter().enumerate() {
        let operands = op.post().map_or(0, |p| p.iter().filter(|s| s.takes_operand()).count());
        let own = op.own_inputs().unwrap();
        let node = g.add_node(op, ids[..own + operands].to_vec(), origin(&format!("n{i}"))).unwrap();
        g.add_output(format!("y{i}"), node);
    }
    g
}

/// Floats of every kind: small and huge, halves, integers, subnormals, zeros, infinities.
pub fn floats(n: usize) -> Vec<f32> {
    let r = &mut Random::new(5);
    let mut all = vec![0.0, -0.0, 0.5, -0.5, 1.5, 2.5, -2.5, 1e-40, -1e-45, 8_388_607.5, -8_388_608.0, 2_147_483_520.0];
    all.extend([f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE, f32::MAX, 0.49999997, -1.0, 65519.9, 65520.0]);
    while all.len() < n {
        let v = f32::from_bits(r.next() as u32);
        all.push(match r.below(3) {
            _ if v.is_nan() => 1.0,
            0 => v,
            1 => r.range(-4000, 4000) as f32 / 8.0,
            _ => r.range(-1 << 30, 1 << 30) as f32 / 65536.0,
        });
    }
    all
}

/// Every function of one float.
pub fn unaries() -> Vec<Op> {
    let all = [
        Unary::Neg,
        Unary::Abs,
        Unary::Sign,
        Unary::Relu,
        Unary::LeakyRelu(F32(0.1)),
        Unary::Elu(F32(0.7)),
        Unary::Clip(F32(-1.5), F32(6.0)),
        Unary::Clip(F32(f32::NEG_INFINITY), F32(2.0)),
        Unary::Sigmoid,
        Unary::HardSigmoid(F32(0.2), F32(0.5)),
        Unary::HardSwish,
        Unary::Tanh,
        Unary::Exp,
        Unary::Log,
        Unary::Sqrt,
        Unary::Reciprocal,
        Unary::Erf,
        Unary::Gelu,
        Unary::Softplus,
        Unary::Softsign,
        Unary::Floor,
        Unary::Ceil,
        Unary::Round,
    ];
    all.iter().map(|u| Op::unary(*u)).collect()
}

/// Sums of two dequantised tensors, quantised again to several ranges.
pub fn quantised_sums() -> Vec<Op> {
    let q = |scale: f32, zero_point: i32| QuantParams { scale: F32(scale), zero_point };
    let chain = |lo, hi, dtype, zero| {
        Op::Map(vec![
            Step::Dequant(q(0.1, 3)),
            Step::Binary { op: Binary::Add, swapped: false, dequant: Some(q(0.3, -7)) },
            Step::Quant { q: q(0.017, zero), lo, hi, dtype },
        ])
    };
    vec![
        chain(-128, 127, DType::I8, -4),
        chain(0, 255, DType::U8, 128),
        chain(-20, 100, DType::I8, 5),
        chain(-2000, 3000, DType::I16, 0),
    ]
}
