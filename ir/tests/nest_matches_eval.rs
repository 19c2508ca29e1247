//! Every operator's loop nest against its evaluation, bit for bit, on random shapes, attributes, types and epilogues.

mod chains;

use chains::{Random, nest_and_evaluator_agree};
use mcc_ir::nest::{Expr, Stmt};
use mcc_ir::op::*;
use mcc_ir::types::F32;
use mcc_ir::{DType, Tensor, TensorType, ops};

/// Runs `cases` random cases; at least nine in ten must be well typed.
fn property(cases: u64, mut case: impl FnMut(&mut Random) -> bool) {
    let ran = (0..cases).filter(|seed| case(&mut Random(seed.wrapping_mul(0x0123_4567_89AB_CDEF)))).count();
    assert!(ran as u64 * 10 >= cases * 9, "only {ran} of {cases} cases were well typed");
}

fn agree(op: Op, own: &[Tensor], operands: &[Tensor]) -> bool {
    let inputs: Vec<&Tensor> = own.iter().chain(operands).collect();
    nest_and_evaluator_agree(&op, &inputs).is_some()
}

fn layout(r: &mut Random) -> Layout {
    r.pick(&[Layout::Nchw, Layout::Nhwc])
}

fn shape(layout: Layout, [n, c, h, w]: [usize; 4]) -> Vec<usize> {
    match layout {
        Layout::Nchw => vec![n, c, h, w],
        Layout::Nhwc => vec![n, h, w, c],
    }
}

fn up_to<const N: usize>(r: &mut Random, lo: usize, hi: usize) -> [usize; N] {
    [(); N].map(|_| lo + r.below(hi - lo + 1))
}

/// Output positions of one axis.
fn positions(size: usize, pads: usize, kernel: usize, dilation: usize, stride: usize) -> usize {
    (size + pads - ((kernel - 1) * dilation + 1)) / stride + 1
}

fn random_shape(r: &mut Random, rank: usize) -> Vec<usize> {
    (0..rank).map(|_| 1 + r.below(4)).collect()
}

#[test]
fn convolution() {
    property(400, |r| {
        let layout = layout(r);
        let [n, groups, in_c, per_group] = [1 + r.below(2), 1 + r.below(3), 1 + r.below(3), 1 + r.below(3)];
        let [h, w] = up_to(r, 5, 8);
        let [kh, kw] = up_to(r, 1, 3);
        let (stride, dilation, pad) = (up_to(r, 1, 3), up_to(r, 1, 2), up_to(r, 0, 2));
        let (x_type, w_type, acc) = r.pick(&[
            (DType::F32, DType::F32, DType::F32),
            (DType::I8, DType::I8, DType::I32),
            (DType::U8, DType::I8, DType::I32),
            (DType::I16, DType::I8, DType::I32),
        ]);
        let pad_value = x_type.int_range().map_or(0, |(lo, hi)| lo + r.below((hi - lo) as usize + 1) as i32);
        let out_c = groups * per_group;
        let oh = positions(h, pad[0] + pad[2], kh, dilation[0], stride[0]);
        let ow = positions(w, pad[1] + pad[3], kw, dilation[1], stride[1]);
        let mut own = vec![
            r.tensor(x_type, &shape(layout, [n, groups * in_c, h, w])),
            r.tensor(w_type, &shape(layout, [out_c, in_c, kh, kw])),
        ];
        let bias = r.flag();
        if bias {
            own.push(r.tensor(acc, &[out_c]));
        }
        let (post, operands) = r.chain(acc, &shape(layout, [n, out_c, oh, ow]), 4);
        agree(Op::Conv2d(Conv2d { layout, stride, pad, dilation, groups, pad_value, bias, post }), &own, &operands)
    });
}

/// The epilogue of a quantised residual block: requantise, add the other branch in f32, quantise.
#[test]
fn quantised_residual_epilogue() {
    property(100, |r| {
        let layout = layout(r);
        let out = shape(layout, [1, 5, 3, 7]);
        let channels = if layout == Layout::Nchw { vec![5, 1, 1] } else { vec![5] };
        let post = vec![
            Step::Requant { rounding: Rounding::F32HalfEven, zero: -3, lo: -128, hi: 127, dtype: DType::I8 },
            Step::Dequant(r.quant()),
            Step::Binary { op: Binary::Add, swapped: r.flag(), dequant: Some(r.quant()) },
            Step::Unary(Unary::Relu),
            Step::Quant { q: r.quant(), lo: -128, hi: 127, dtype: DType::I8 },
        ];
        let o = Conv2d {
            layout,
            stride: [1, 1],
            pad: [1, 0, 1, 2],
            dilation: [1, 1],
            groups: 1,
            pad_value: 9,
            bias: true,
            post,
        };
        let own = [
            r.tensor(DType::I8, &shape(layout, [1, 2, 3, 7])),
            r.tensor(DType::I8, &shape(layout, [5, 2, 3, 3])),
            r.tensor(DType::I32, &[5]),
        ];
        agree(Op::Conv2d(o), &own, &[r.scales(&channels), r.tensor(DType::I8, &out)])
    });
}

#[test]
fn matrix_product() {
    property(300, |r| {
        let [m, k, n] = up_to(r, 1, 5);
        let batch_rank = r.below(3);
        let batch = random_shape(r, batch_rank);
        let (a_batch, b_batch) = (r.operand_shape(&batch), r.operand_shape(&batch));
        let trans_b = r.flag();
        let matrix = if trans_b { [n, k] } else { [k, n] };
        let (a_type, b_type, acc) = r.pick(&[
            (DType::F32, DType::F32, DType::F32),
            (DType::I8, DType::I8, DType::I32),
            (DType::U8, DType::I8, DType::I32),
            (DType::I16, DType::I8, DType::I32),
        ]);
        let mut own = vec![
            r.tensor(a_type, &[a_batch.as_slice(), &[m, k]].concat()),
            r.tensor(b_type, &[b_batch.as_slice(), &matrix].concat()),
        ];
        let bias = r.flag();
        if bias {
            own.push(r.tensor(acc, &[n]));
        }
        let out = mcc_ir::types::broadcast(&a_batch, &b_batch).unwrap();
        let (post, operands) = r.chain(acc, &[out, vec![m, n]].concat(), 4);
        agree(Op::MatMul(MatMul { trans_b, bias, post }), &own, &operands)
    });
}

#[test]
fn recurrent_layers() {
    property(300, |r| {
        let [steps, batch, input, hidden] = up_to(r, 1, 4);
        let cell = r.pick(&[
            Cell::Rnn,
            Cell::Gru { linear_before_reset: false },
            Cell::Gru { linear_before_reset: true },
            Cell::Lstm { input_forget: false, peepholes: false },
            Cell::Lstm { input_forget: true, peepholes: false },
            Cell::Lstm { input_forget: false, peepholes: true },
        ]);
        let functions = [Unary::Sigmoid, Unary::Tanh, Unary::Relu, Unary::HardSigmoid(F32(0.2), F32(0.5))];
        let activations = match r.flag() {
            true => cell.default_activations().to_vec(),
            false => cell.default_activations().iter().map(|_| r.pick(&functions)).collect(),
        };
        let clip = r.flag().then_some(F32(1.5));
        let mut shapes = vec![
            vec![steps, batch, input],
            vec![cell.gates() * hidden, input],
            vec![cell.gates() * hidden, hidden],
            vec![cell.biases() * hidden],
            vec![batch, hidden],
        ];
        if let Cell::Lstm { peepholes, .. } = cell {
            shapes.push(vec![batch, hidden]);
            shapes.extend(peepholes.then(|| vec![3 * hidden]));
        }
        let own: Vec<Tensor> = shapes.iter().map(|shape| r.tensor(DType::F32, shape)).collect();
        agree(Op::Recurrent(Recurrent { cell, reverse: r.flag(), activations, clip }), &own, &[])
    });
}

#[test]
fn element_wise_chains() {
    property(1500, |r| {
        let rank = r.below(5);
        let shape = random_shape(r, rank);
        let dtype = r.pick(&[DType::F32, DType::F32, DType::I32, DType::I16, DType::I8, DType::U8, DType::Bool]);
        let of = r.operand_shape(&shape);
        let x = r.tensor(dtype, &of);
        let (steps, operands) = r.chain(dtype, &shape, 5);
        agree(Op::Map(steps), &[x], &operands)
    });
}

#[test]
fn pooling() {
    property(500, |r| {
        let layout = layout(r);
        let [h, w] = up_to(r, 5, 8);
        let kernel: [usize; 2] = up_to(r, 1, 3);
        let dilation: [usize; 2] = up_to(r, 1, 2);
        let stride: [usize; 2] = up_to(r, 1, 3);
        let pad = [0, 1, 2, 3].map(|d| r.below((kernel[d % 2] - 1) * dilation[d % 2] + 1));
        let kind = r.pick(&[
            PoolKind::Max,
            PoolKind::Average { count_include_pad: false },
            PoolKind::Average { count_include_pad: true },
        ]);
        let mut dtype = r.pick(&[DType::F32, DType::I8, DType::U8, DType::I16, DType::I32]);
        let dequant = match (kind, dtype) {
            (_, DType::F32) => None,
            (PoolKind::Max, _) if r.flag() => None,
            _ => Some(r.quant()),
        };
        let [n, c] = up_to(r, 1, 3);
        let x = r.tensor(dtype, &shape(layout, [n, c, h, w]));
        if dequant.is_some() {
            dtype = DType::F32;
        }
        let oh = positions(h, pad[0] + pad[2], kernel[0], dilation[0], stride[0]);
        let ow = positions(w, pad[1] + pad[3], kernel[1], dilation[1], stride[1]);
        let (post, operands) = r.chain(dtype, &shape(layout, [n, c, oh, ow]), 3);
        agree(Op::Pool2d(Pool2d { kind, layout, kernel, stride, pad, dilation, dequant, post }), &[x], &operands)
    });
}

#[test]
fn reductions() {
    use ReduceKind::*;
    property(500, |r| {
        let rank = r.below(5);
        let shape = random_shape(r, rank);
        let axes: Vec<usize> = (0..rank).filter(|_| r.flag()).collect();
        let keepdims = r.flag();
        let x_type = r.pick(&[DType::F32, DType::I32, DType::I16, DType::I8, DType::U8]);
        let dequant = (x_type != DType::F32 && r.flag()).then(|| r.quant());
        let dtype = if dequant.is_some() { DType::F32 } else { x_type };
        let kinds: &[ReduceKind] = match dtype {
            DType::F32 => &[Sum, Mean, Max, Min, Prod],
            DType::I32 => &[Sum, Max, Min, Prod],
            _ => &[Max, Min],
        };
        let kind = r.pick(kinds);
        let out: Vec<usize> = (0..rank)
            .filter(|d| keepdims || !axes.contains(d))
            .map(|d| if axes.contains(&d) { 1 } else { shape[d] })
            .collect();
        let x = r.tensor(x_type, &shape);
        let (post, operands) = r.chain(dtype, &out, 3);
        agree(Op::Reduce(Reduce { kind, axes, keepdims, dequant, post }), &[x], &operands)
    });
}

#[test]
fn softmax() {
    property(300, |r| {
        let rank = 1 + r.below(4);
        let shape = random_shape(r, rank);
        let x_type = r.pick(&[DType::F32, DType::I8, DType::U8]);
        let dequant = (x_type != DType::F32).then(|| r.quant());
        let x = r.tensor(x_type, &shape);
        let (post, operands) = r.chain(DType::F32, &shape, 3);
        agree(Op::Softmax(Softmax { axis: r.below(rank), log: r.flag(), dequant, post }), &[x], &operands)
    });
}

#[test]
fn layer_norm() {
    property(200, |r| {
        let rank = 1 + r.below(4);
        let shape = random_shape(r, rank);
        let axis = r.below(rank);
        let own =
            [r.tensor(DType::F32, &shape), r.tensor(DType::F32, &shape[axis..]), r.tensor(DType::F32, &shape[axis..])];
        let (post, operands) = r.chain(DType::F32, &shape, 3);
        agree(Op::LayerNorm(LayerNorm { axis, epsilon: F32(1e-5), post }), &own, &operands)
    });
}

#[test]
fn batch_norm() {
    property(100, |r| {
        let rank = 2 + r.below(3);
        let shape = random_shape(r, rank);
        let mut own = vec![r.tensor(DType::F32, &shape)];
        own.extend((0..3).map(|_| r.tensor(DType::F32, &shape[1..2])));
        own.push(r.scales(&shape[1..2]));
        agree(Op::BatchNorm { epsilon: F32(1e-5) }, &own, &[])
    });
}

#[test]
fn quantisation() {
    property(400, |r| {
        let rank = 1 + r.below(4);
        let shape = random_shape(r, rank);
        let axis = r.below(rank);
        let of = if r.flag() { vec![1] } else { vec![shape[axis]] };
        let scale = r.scales(&of);
        if r.flag() {
            let dtype = r.pick(&[DType::I8, DType::U8, DType::I16]);
            let from = r.pick(&[DType::F32, DType::F32, DType::I32]);
            agree(Op::Quantize { axis, dtype }, &[r.tensor(from, &shape), scale, r.tensor(dtype, &of)], &[])
        } else {
            let dtype = r.pick(&[DType::I8, DType::U8, DType::I16, DType::I32]);
            agree(Op::Dequantize { axis }, &[r.tensor(dtype, &shape), scale, r.tensor(dtype, &of)], &[])
        }
    });
}

fn nodes(e: &Expr) -> usize {
    1 + match e {
        Expr::F32(_) | Expr::I32(_) | Expr::Reg(_) => 0,
        Expr::Index(i) | Expr::Load { index: i, .. } => i.dynamic.as_deref().map_or(0, nodes),
        Expr::Un(_, a) => nodes(a),
        Expr::Bin(_, a, b) => nodes(a) + nodes(b),
        Expr::Select(e) => e.iter().map(nodes).sum(),
        Expr::Guard { then, other, .. } => nodes(then) + nodes(other),
    }
}

fn size(body: &[Stmt]) -> usize {
    body.iter()
        .map(|s| match s {
            Stmt::For { body, .. } => size(body),
            Stmt::Let { value, .. } | Stmt::Set { value, .. } | Stmt::Store { value, .. } => nodes(value),
        })
        .sum()
}

/// A value that is used twice is named once: recorded functions stay as small as they are written.
#[test]
fn recorded_functions_stay_small() {
    let f = TensorType::new(DType::F32, [8]);
    let unary = |u: Unary| (Op::unary(u), 1);
    let pow = (Op::binary(Binary::Pow), 2);
    for ((op, arity), limit) in [
        (unary(Unary::Exp), 70),
        (unary(Unary::Log), 105),
        (unary(Unary::Tanh), 105),
        (unary(Unary::Erf), 135),
        (unary(Unary::Gelu), 145),
        (unary(Unary::Sigmoid), 135),
        (unary(Unary::Softplus), 180),
        (unary(Unary::Elu(F32(1.0))), 70),
        (pow, 400),
    ] {
        let inputs = vec![&f; arity];
        let nest = ops::nest(&op, &inputs, &f).unwrap();
        let found = size(&nest.body);
        assert!(found <= limit, "{} takes {found} nodes, not {limit}", op.name());
    }
}
