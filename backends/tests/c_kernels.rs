//! Every implementation of the C catalogue, and the loop nests beside them, against the evaluator.

mod c_support;

use c_support::{Random, agrees, compile, installed, single};
use mcc_backends::c::CATALOGUE;
use mcc_ir::catalogue::Implementation;
use mcc_ir::op::{Binary, Conv2d, Layout, MatMul, Rounding, Step, Unary};
use mcc_ir::types::{F32, QuantParams};
use mcc_ir::{DType, Op, Tensor};
use mcc_passes::lower::Io;

/// An epilogue from 32-bit sums to 8 bits, with its operands.
fn requant(r: &mut Random, channels: usize, wide: bool) -> (Vec<Step>, Vec<Tensor>) {
    let scales: Vec<f32> = (0..channels).map(|_| (r.below(1000) + 1) as f32 / 200_000.0).collect();
    let (zero, lo, hi) = match r.below(3) {
        0 => (-128, -128, 127),
        1 => (7, -128, 127),
        _ => (-5, -5, 90),
    };
    let step = |zero, lo, hi, dtype| Step::Requant { rounding: Rounding::F32HalfEven, zero, lo, hi, dtype };
    if wide {
        return (vec![step(128, 0, 255, DType::U8)], vec![Tensor::new([channels], &scales)]);
    }
    (vec![step(zero, lo, hi, DType::I8)], vec![Tensor::new([channels], &scales)])
}

#[derive(Clone, Copy)]
struct Case {
    size: [usize; 4],
    outs: usize,
    kernel: [usize; 2],
    stride: [usize; 2],
    pad: [usize; 4],
    dilation: [usize; 2],
    depthwise: bool,
    bias: bool,
}

const BASE: Case = Case {
    size: [1, 5, 6, 4],
    outs: 6,
    kernel: [3, 3],
    stride: [1, 1],
    pad: [1, 1, 1, 1],
    dilation: [1, 1],
    depthwise: false,
    bias: true,
};

fn cases() -> Vec<Case> {
    vec![
        BASE,
        Case { outs: 5, pad: [0; 4], ..BASE },
        Case { size: [1, 9, 8, 3], stride: [2, 2], pad: [0, 0, 1, 1], ..BASE },
        Case { size: [2, 5, 5, 8], outs: 1, bias: false, ..BASE },
        Case { kernel: [1, 1], pad: [0; 4], ..BASE },
        Case { size: [1, 3, 3, 7], kernel: [1, 1], pad: [0; 4], ..BASE },
        Case { size: [1, 3, 5, 5], kernel: [1, 1], stride: [2, 2], pad: [0; 4], ..BASE },
        Case { size: [1, 9, 9, 4], dilation: [2, 3], pad: [2, 3, 2, 3], ..BASE },
        Case { size: [1, 3, 3, 4], pad: [0; 4], ..BASE },
        Case { size: [1, 3, 3, 5], outs: 7, pad: [0; 4], ..BASE },
        Case { size: [1, 2, 2, 4], kernel: [5, 5], pad: [4, 4, 4, 4], ..BASE },
        Case { depthwise: true, ..BASE },
        Case { size: [2, 7, 6, 8], depthwise: true, stride: [2, 2], pad: [0, 0, 1, 1], ..BASE },
        Case { size: [1, 6, 6, 5], depthwise: true, bias: false, ..BASE },
        Case { size: [1, 9, 9, 4], depthwise: true, kernel: [5, 5], dilation: [2, 1], pad: [4, 2, 4, 2], ..BASE },
        Case { size: [1, 4, 4, 4], depthwise: true, kernel: [4, 4], pad: [0; 4], ..BASE },
    ]
}

fn conv(case: Case, x: DType, seed: u64) -> (mcc_ir::Graph, Vec<Tensor>) {
    let r = &mut Random::new(seed);
    let [_, _, _, channels] = case.size;
    let float = x == DType::F32;
    let (outs, ins) = if case.depthwise { (channels, 1) } else { (case.outs, channels) };
    let w_type = if float { DType::F32 } else { DType::I8 };
    let mut inputs = vec![(r.tensor(x, &case.size), true)];
    inputs.push((r.tensor(w_type, &[outs, case.kernel[0], case.kernel[1], ins]), false));
    if case.bias {
        inputs.push((r.tensor(if float { DType::F32 } else { DType::I32 }, &[outs]), false));
    }
    let (post, operands) = if float {
        let add = Step::Binary { op: Binary::Add, swapped: false, dequant: None };
        (vec![Step::Unary(Unary::Relu), add], vec![r.tensor(DType::F32, &[outs])])
    } else {
        requant(r, outs, x == DType::U8)
    };
    inputs.extend(operands.into_iter().map(|t| (t, false)));
    let op = Conv2d {
        layout: Layout::Nhwc,
        stride: case.stride,
        pad: case.pad,
        dilation: case.dilation,
        groups: if case.depthwise { channels } else { 1 },
        pad_value: if float {
            0
        } else if x == DType::U8 {
            131
        } else {
            -128
        },
        bias: case.bias,
        post,
    };
    single(Op::Conv2d(op), &inputs)
}

fn entry(id: &str) -> Vec<Implementation> {
    CATALOGUE.iter().filter(|e| e.id == id).copied().collect()
}

/// Checks the cases that one implementation takes, and that it takes some.
fn check(id: &str, graphs: Vec<(mcc_ir::Graph, Vec<Tensor>)>) {
    if !installed("cc") {
        return;
    }
    let mut taken = 0;
    for (g, inputs) in graphs {
        let c = compile(&g, "cortex-m4", &entry(id), Io::Separate);
        if c.source.contains(&format!("by {id}")) {
            taken += 1;
            agrees(&g, &c, &inputs, 0.0);
        }
    }
    assert!(taken >= 4, "{id} takes only {taken} of the cases");
}

fn convs(types: &[DType]) -> Vec<(mcc_ir::Graph, Vec<Tensor>)> {
    types.iter().flat_map(|x| cases().into_iter().enumerate().map(|(i, c)| conv(c, *x, i as u64 + 1))).collect()
}

#[test]
fn conv2d_dsp_is_its_nest() {
    check("conv2d-s8-dsp", convs(&[DType::I8, DType::U8]));
}

#[test]
fn conv2d_s8_is_its_nest() {
    check("conv2d-s8", convs(&[DType::I8, DType::U8]));
}

#[test]
fn conv2d_f32_is_its_nest() {
    check("conv2d-f32", convs(&[DType::F32]));
}

#[test]
fn depthwise_dsp_is_its_nest() {
    check("depthwise-s8-dsp", convs(&[DType::I8, DType::U8]));
}

#[test]
fn depthwise_s8_is_its_nest() {
    check("depthwise-s8", convs(&[DType::I8, DType::U8]));
}

#[test]
fn depthwise_f32_is_its_nest() {
    check("depthwise-f32", convs(&[DType::F32]));
}

fn matmuls(types: &[DType]) -> Vec<(mcc_ir::Graph, Vec<Tensor>)> {
    let mut all = Vec::new();
    for &x in types {
        let float = x == DType::F32;
        for (i, (shape, n, bias)) in [
            (&[1, 16][..], 8, true),
            (&[1, 13], 5, true),
            (&[7, 12], 6, false),
            (&[2, 2, 9], 3, true),
            (&[3, 4], 1, true),
        ]
        .into_iter()
        .enumerate()
        {
            let r = &mut Random::new(100 + i as u64);
            let k = *shape.last().unwrap();
            let mut inputs = vec![(r.tensor(x, shape), true)];
            inputs.push((r.tensor(if float { DType::F32 } else { DType::I8 }, &[n, k]), false));
            if bias {
                inputs.push((r.tensor(if float { DType::F32 } else { DType::I32 }, &[n]), false));
            }
            let (post, operands) =
                if float { (vec![Step::Unary(Unary::Relu)], vec![]) } else { requant(r, n, x == DType::U8) };
            inputs.extend(operands.into_iter().map(|t| (t, false)));
            all.push(single(Op::MatMul(MatMul { trans_b: true, bias, post }), &inputs));
        }
    }
    all
}

#[test]
fn matmul_dsp_is_its_nest() {
    check("matmul-s8-dsp", matmuls(&[DType::I8, DType::U8]));
}

#[test]
fn matmul_s8_is_its_nest() {
    check("matmul-s8", matmuls(&[DType::I8, DType::U8]));
}

#[test]
fn matmul_f32_is_its_nest() {
    check("matmul-f32", matmuls(&[DType::F32]));
}

/// A residual addition in the epilogue reads an operand of the output's shape, here under its output in place.
#[test]
fn residual_epilogues_read_before_they_write() {
    if !installed("cc") {
        return;
    }
    let r = &mut Random::new(77);
    let q = QuantParams { scale: F32(0.05), zero_point: 3 };
    let post = vec![
        Step::Requant { rounding: Rounding::F32HalfEven, zero: 3, lo: -128, hi: 127, dtype: DType::I8 },
        Step::Dequant(q),
        Step::Binary {
            op: Binary::Add,
            swapped: false,
            dequant: Some(QuantParams { scale: F32(0.07), zero_point: -4 }),
        },
        Step::Quant { q: QuantParams { scale: F32(0.1), zero_point: -128 }, lo: -128, hi: 127, dtype: DType::I8 },
    ];
    let op = Conv2d {
        layout: Layout::Nhwc,
        stride: [1, 1],
        pad: [1; 4],
        dilation: [1, 1],
        groups: 1,
        pad_value: -9,
        bias: true,
        post,
    };
    let inputs = [
        (r.tensor(DType::I8, &[1, 5, 5, 8]), true),
        (r.tensor(DType::I8, &[8, 3, 3, 8]), false),
        (r.tensor(DType::I32, &[8]), false),
        (Tensor::new([8], &[0.0002f32; 8]), false),
        (r.tensor(DType::I8, &[1, 5, 5, 8]), true),
    ];
    let (g, given) = single(Op::Conv2d(op), &inputs);
    for (catalogue, io) in
        [(&[][..], Io::Separate), (CATALOGUE, Io::Separate), (CATALOGUE, Io::Arena), (&[][..], Io::Arena)]
    {
        let c = compile(&g, "cortex-m4", catalogue, io);
        agrees(&g, &c, &given, 0.0);
    }
}

#[test]
fn nests_of_convolutions_and_products_agree() {
    if !installed("cc") {
        return;
    }
    let types = [DType::I8, DType::U8, DType::F32];
    for (i, (g, inputs)) in convs(&types).into_iter().chain(matmuls(&types)).enumerate() {
        // All of them take a while to compile; every third covers each type and each case over the list.
        if i % 3 == 0 {
            agrees(&g, &compile(&g, "generic-c", &[], Io::Arena), &inputs, 0.0);
        }
    }
}
