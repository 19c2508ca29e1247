//! Convolutions and matrix products of many shapes.

use super::{Random, single};
use mcc_ir::graph::{Def, Graph};
use mcc_ir::op::{Binary, Conv2d, Layout, MatMul, Pool2d, PoolKind, Rounding, Step, Unary};
use mcc_ir::types::{F32, QuantParams};
use mcc_ir::{DType, Op, Tensor};

/// An epilogue from 32-bit sums of products with x of a type to 8 bits, or to 16 where x has them, with its operands.
pub fn requant(r: &mut Random, channels: usize, x: DType) -> (Vec<Step>, Vec<Tensor>) {
    let scales: Vec<f32> = (0..channels).map(|_| (r.below(1000) + 1) as f32 / 200_000.0).collect();
    let (zero, lo, hi) = match r.below(3) {
        0 => (-128, -128, 127),
        1 => (7, -128, 127),
        _ => (-5, -5, 90),
    };
    let step = |zero, lo, hi, dtype| Step::Requant { rounding: Rounding::F32HalfEven, zero, lo, hi, dtype };
    if x == DType::I16 {
        let (zero, lo, hi) = [(0, -32768, 32767), (-300, -300, 32767), (0, -32768, 20_000)][r.below(3)];
        return (vec![step(zero, lo, hi, DType::I16)], vec![Tensor::new([channels], &scales)]);
    }
    if x == DType::U8 {
        return (vec![step(128, 0, 255, DType::U8)], vec![Tensor::new([channels], &scales)]);
    }
    (vec![step(zero, lo, hi, DType::I8)], vec![Tensor::new([channels], &scales)])
}

#[derive(Clone, Copy)]
pub struct Case {
    size: [usize; 4],
    outs: usize,
    kernel: [usize; 2],
    stride: [usize; 2],
    pad: [usize; 4],
    dilation: [usize; 2],
    depthwise: bool,
    bias: bool,
    /// Whether values and weights are all the smallest or the largest of their types.
    extreme: bool,
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
    extreme: false,
};

pub fn cases() -> Vec<Case> {
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

/// Weights: three times in four without -128, as quantisers give them, so that kernels with such a limit take them.
pub fn weights(r: &mut Random, dtype: DType, shape: &[usize]) -> Tensor {
    let t = r.tensor(dtype, shape);
    if dtype != DType::I8 || r.below(4) == 0 {
        return t;
    }
    Tensor::from_i64(t.ty().clone(), &t.to_i64().into_iter().map(|w| w.max(-127)).collect::<Vec<_>>())
}

/// Each element becomes the nearer end of its type.
pub fn to_the_ends(t: Tensor) -> Tensor {
    let (lo, hi) = t.dtype().int_range().map(|(lo, hi)| (lo as i64, hi as i64)).expect("an integer type");
    let ends: Vec<i64> = t.to_i64().into_iter().map(|v| if 2 * v < lo + hi { lo } else { hi }).collect();
    Tensor::from_i64(t.ty().clone(), &ends)
}

pub fn conv(case: Case, x: DType, seed: u64) -> (Graph, Vec<Tensor>) {
    conv_then(case, x, seed, |r, outs| {
        if x == DType::F32 {
            let add = Step::Binary { op: Binary::Add, swapped: false, dequant: None };
            return (vec![Step::Unary(Unary::Relu), add], vec![(r.tensor(DType::F32, &[outs]), false)]);
        }
        let (post, operands) = requant(r, outs, x);
        (post, operands.into_iter().map(|t| (t, false)).collect())
    })
}

/// A convolution with an epilogue made for its number of channels: steps, operands and whether those are inputs.
pub type Epilogue = (Vec<Step>, Vec<(Tensor, bool)>);

fn conv_then(
    case: Case,
    x: DType,
    seed: u64,
    epilogue: impl FnOnce(&mut Random, usize) -> Epilogue,
) -> (Graph, Vec<Tensor>) {
    let r = &mut Random::new(seed);
    let [_, _, _, channels] = case.size;
    let float = x == DType::F32;
    let (outs, ins) = if case.depthwise { (channels, 1) } else { (case.outs, channels) };
    let w_type = if float { DType::F32 } else { DType::I8 };
    let ends = |t: Tensor| if case.extreme { to_the_ends(t) } else { t };
    let mut inputs = vec![(ends(r.tensor(x, &case.size)), true)];
    inputs.push((ends(weights(r, w_type, &[outs, case.kernel[0], case.kernel[1], ins])), false));
    if case.bias {
        inputs.push((r.tensor(if float { DType::F32 } else { DType::I32 }, &[outs]), false));
    }
    let (post, operands) = epilogue(r, outs);
    inputs.extend(operands);
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
        } else if x == DType::I16 && seed.is_multiple_of(2) {
            -300
        } else {
            -128
        },
        bias: case.bias,
        post,
    };
    single(Op::Conv2d(op), &inputs)
}

pub fn convs(types: &[DType]) -> Vec<(Graph, Vec<Tensor>)> {
    types.iter().flat_map(|x| cases().into_iter().enumerate().map(|(i, c)| conv(c, *x, i as u64 + 1))).collect()
}

/// Appends to an epilogue to 8 bits the addition of a tensor of the output's shape, with or without a ReLU.
pub fn residual(r: &mut Random, post: &mut Vec<Step>, shape: &[usize]) -> Tensor {
    let zero_point = match post.last() {
        Some(Step::Requant { zero, .. }) => *zero,
        _ => unreachable!("a requantisation comes first"),
    };
    let mut scale = || F32((r.below(1000) + 100) as f32 / 7000.0);
    let (q, other, last) = (scale(), scale(), scale());
    let other = Some(QuantParams { scale: other, zero_point: r.range(-128, 127) as i32 });
    post.push(Step::Dequant(QuantParams { scale: q, zero_point }));
    post.push(Step::Binary { op: Binary::Add, swapped: r.below(2) > 0, dequant: other });
    if r.below(2) > 0 {
        post.push(Step::Unary(Unary::Relu));
    }
    let q = QuantParams { scale: last, zero_point: r.range(-128, 127) as i32 };
    post.push(Step::Quant { q, lo: -128, hi: 127, dtype: DType::I8 });
    r.tensor(DType::I8, shape)
}

/// Random convolutions of 8 bits with channels of all kinds, among them multiples of sixteen, and with additions.
pub fn wide_convs(n: usize, seed: u64) -> Vec<(Graph, Vec<Tensor>)> {
    let r = &mut Random::new(seed);
    let mut all = Vec::new();
    while all.len() < n {
        let kernel = [[1, 1], [1, 1], [3, 3], [3, 3], [3, 3], [2, 5], [4, 3], [10, 4]][r.below(8)];
        let channels = [16, 32, 48, 64, 16, 32, 3, 1, 8, 20][r.below(10)];
        let size = [1 + r.below(4) / 3, 1 + r.below(13), 1 + r.below(13), channels];
        let outs = [4, 8, 16, 12, 1 + r.below(9)][r.below(5)];
        let plain = kernel == [1, 1] && r.below(3) > 0;
        let stride = if plain && r.below(2) > 0 { [1, 1] } else { [1 + r.below(2), 1 + r.below(3)] };
        let dilation = if r.below(4) > 0 { [1, 1] } else { [1 + r.below(3), 1 + r.below(3)] };
        let pad: [usize; 4] = std::array::from_fn(|_| if plain { 0 } else { r.below(4) });
        let reach = |axis: usize| (kernel[axis] - 1) * dilation[axis];
        if size[1] + pad[0] + pad[2] <= reach(0) || size[2] + pad[1] + pad[3] <= reach(1) {
            continue;
        }
        let out = |axis: usize| (size[1 + axis] + pad[axis] + pad[2 + axis] - reach(axis) - 1) / stride[axis] + 1;
        let mut inputs = vec![(r.tensor(DType::I8, &size), true)];
        inputs.push((r.tensor(DType::I8, &[outs, kernel[0], kernel[1], channels]), false));
        let bias = r.below(4) > 0;
        if bias {
            inputs.push((r.tensor(DType::I32, &[outs]), false));
        }
        let (mut post, operands) = requant(r, outs, DType::I8);
        inputs.extend(operands.into_iter().map(|t| (t, false)));
        if r.below(3) == 0 {
            inputs.push((residual(r, &mut post, &[size[0], out(0), out(1), outs]), true));
        }
        let pad_value = r.range(-128, 127) as i32;
        let op = Conv2d { layout: Layout::Nhwc, stride, pad, dilation, groups: 1, pad_value, bias, post };
        all.push(single(Op::Conv2d(op), &inputs));
    }
    all
}

/// Scales of all magnitudes, some of which have ties, to the full range of `i8`.
pub fn full_requant(r: &mut Random, channels: usize) -> Epilogue {
    let scale = |r: &mut Random| match r.below(6) {
        0 => 1.0 / (1 << (4 + r.below(8))) as f32,
        1 => 1e-10 * (1 + r.below(1000)) as f32,
        _ => (1 + r.below(100_000)) as f32 * 2f32.powi(-(21 + r.below(6) as i32)),
    };
    let scales: Vec<f32> = (0..channels).map(|_| scale(r)).collect();
    let zero = [-128, -128, 3, 127][r.below(4)];
    let step = |rounding| Step::Requant { rounding, zero, lo: -128, hi: 127, dtype: DType::I8 };
    if r.below(5) == 0 {
        let multipliers: Vec<i32> = (0..channels).map(|_| 1000 * (1 + r.below(20_000) as i32)).collect();
        let rounding = Rounding::Single { shift: r.below(5) as u32 };
        return (vec![step(rounding)], vec![(Tensor::new([channels], &multipliers), false)]);
    }
    (vec![step(Rounding::F32HalfEven)], vec![(Tensor::new([channels], &scales), false)])
}

/// Convolutions of random shapes to bytes, some with a residual addition.
pub fn wholes(n: usize) -> Vec<(Graph, Vec<Tensor>)> {
    let kernels = [[1, 1], [3, 3], [3, 3], [2, 3], [1, 5]];
    to_bytes(n, 51, &[3, 4, 6, 8, 12, 16, 20, 32], &kernels, true)
}

/// The same with few channels.
pub fn few_channels(n: usize) -> Vec<(Graph, Vec<Tensor>)> {
    to_bytes(n, 52, &[1, 1, 2, 3, 3, 3, 4, 5], &[[3, 3], [3, 3], [10, 4], [5, 2], [1, 7], [4, 1]], false)
}

fn to_bytes(
    n: usize,
    seed: u64,
    channels: &[usize],
    kernels: &[[usize; 2]],
    dilates: bool,
) -> Vec<(Graph, Vec<Tensor>)> {
    let r = &mut Random::new(seed);
    let mut all = Vec::new();
    while all.len() < n {
        let channels = channels[r.below(channels.len())];
        let size = [1 + r.below(2), 1 + r.below(9), 1 + r.below(9), channels];
        let kernel = kernels[r.below(kernels.len())];
        let pad: [usize; 4] = std::array::from_fn(|i| r.below(2 + kernel[i % 2] / 2));
        let stride = [1 + r.below(2), 1 + r.below(3)];
        let dilation = if r.below(6) == 0 && dilates { [2, 2] } else { [1, 1] };
        let spans = |axis: usize| (kernel[axis] - 1) * dilation[axis] + 1;
        let padded = [size[1] + pad[0] + pad[2], size[2] + pad[1] + pad[3]];
        if (0..2).any(|axis| padded[axis] < spans(axis)) {
            continue;
        }
        let outs = 4 * (1 + r.below(5));
        let out = [size[0], (padded[0] - spans(0)) / stride[0] + 1, (padded[1] - spans(1)) / stride[1] + 1, outs];
        let x = if r.below(3) == 0 { DType::U8 } else { DType::I8 };
        let case = Case { size, outs, kernel, stride, pad, dilation, bias: r.below(4) > 0, ..BASE };
        let adds = r.below(3) == 0;
        all.push(conv_then(case, x, r.next(), |r, outs| {
            let (mut post, mut operands) = full_requant(r, outs);
            if adds {
                operands.push((residual(r, &mut post, &out), true));
            }
            (post, operands)
        }));
    }
    all
}

/// Pointwise convolutions that grow and shrink, on even and odd numbers of pixels.
pub fn pointwises(n: usize) -> Vec<(Graph, Vec<Tensor>)> {
    let r = &mut Random::new(61);
    let pointwise = |r: &mut Random| {
        let size = [1 + r.below(2), 1 + r.below(5), 1 + r.below(5), 4 * (1 + r.below(5))];
        let case = Case { size, outs: 4 * (1 + r.below(5)), kernel: [1, 1], pad: [0; 4], ..BASE };
        let x = if r.below(3) == 0 { DType::U8 } else { DType::I8 };
        conv_then(case, x, r.next(), full_requant)
    };
    (0..n).map(|_| pointwise(r)).collect()
}

/// Depthwise 3x3 convolutions of random sizes, strides and pads.
pub fn depthwises(n: usize) -> Vec<(Graph, Vec<Tensor>)> {
    let r = &mut Random::new(33);
    let mut all = Vec::new();
    while all.len() < n {
        let mut size = [1 + r.below(2), 1 + r.below(12), 1 + r.below(12), 4 * (1 + r.below(3))];
        if r.below(4) == 0 {
            // Long enough for lines to come in bands.
            size[1 + r.below(2)] = 20 + r.below(40);
        }
        let most = if r.below(6) == 0 { 6 } else { 3 };
        let pad = std::array::from_fn(|_| r.below(most));
        if size[1] + pad[0] + pad[2] < 3 || size[2] + pad[1] + pad[3] < 3 {
            continue;
        }
        let stride = [1 + r.below(2), 1 + r.below(2)];
        let x = if r.below(3) == 0 { DType::U8 } else { DType::I8 };
        all.push(conv(Case { size, pad, stride, bias: r.below(4) > 0, depthwise: true, ..BASE }, x, r.next()));
    }
    all
}

/// Convolutions 3x3 of random sizes, channels, pads and epilogues, of one stride on both axes.
pub fn winograds(stride: usize, n: usize) -> Vec<(Graph, Vec<Tensor>)> {
    let r = &mut Random::new(40 + stride as u64);
    let mut all = Vec::new();
    while all.len() < n {
        let channels = if r.below(6) == 0 { 20 + r.below(60) } else { 1 + r.below(18) };
        let size = [1 + r.below(2), 1 + r.below(13), 1 + r.below(13), channels];
        let most = if r.below(6) == 0 { 6 } else { 3 };
        let pad = std::array::from_fn(|_| r.below(most));
        if size[1] + pad[0] + pad[2] < 3 || size[2] + pad[1] + pad[3] < 3 {
            continue;
        }
        let x = if r.below(3) == 0 { DType::U8 } else { DType::I8 };
        let (bias, extreme) = (r.below(4) > 0, r.below(4) == 0);
        let case = Case { size, outs: 1 + r.below(7), pad, stride: [stride; 2], bias, extreme, ..BASE };
        let out = |axis: usize| (size[1 + axis] + pad[axis] + pad[2 + axis] - 3) / stride + 1;
        let out = [size[0], out(0), out(1), case.outs];
        all.push(match r.below(3) {
            0 => conv(case, x, r.next()),
            kind => conv_then(case, x, r.next(), |r, outs| {
                let (mut post, mut operands) = full_requant(r, outs);
                if kind == 2 {
                    operands.push((residual(r, &mut post, &out), true));
                }
                (post, operands)
            }),
        });
    }
    all
}

pub fn matmuls(types: &[DType]) -> Vec<(Graph, Vec<Tensor>)> {
    let mut all = Vec::new();
    for &x in types {
        let float = x == DType::F32;
        for (i, (shape, n, bias)) in [
            (&[1, 16][..], 8, true),
            (&[1, 13], 5, true),
            (&[7, 12], 6, false),
            (&[2, 2, 9], 3, true),
            (&[3, 4], 1, true),
            (&[1, 70], 19, true),
            (&[5, 76], 9, true),
            (&[9, 64], 12, true),
            (&[2, 5, 160], 8, true),
            (&[1, 272], 21, true),
            (&[5, 76], 12, true),
            (&[2, 3, 30], 8, false),
            (&[4, 8], 20, true),
            (&[3, 128], 4, true),
        ]
        .into_iter()
        .enumerate()
        {
            let r = &mut Random::new(100 + i as u64);
            let k = *shape.last().unwrap();
            let mut inputs = vec![(r.tensor(x, shape), true)];
            inputs.push((weights(r, if float { DType::F32 } else { DType::I8 }, &[n, k]), false));
            if bias {
                inputs.push((r.tensor(if float { DType::F32 } else { DType::I32 }, &[n]), false));
            }
            let (post, operands) = match (float, n % 4) {
                (true, _) => (vec![Step::Unary(Unary::Relu)], vec![]),
                (false, 0) if x != DType::I16 => full_requant(r, n),
                _ => {
                    let (post, operands) = requant(r, n, x);
                    (post, operands.into_iter().map(|t| (t, false)).collect())
                }
            };
            inputs.extend(operands);
            all.push(single(Op::MatMul(MatMul { trans_b: true, bias, post }), &inputs));
        }
    }
    all
}

/// Products of one row that end as bytes.
pub fn rows_to_bytes(n: usize) -> Vec<(Graph, Vec<Tensor>)> {
    let r = &mut Random::new(71);
    let row = |r: &mut Random| {
        let (k, outs, bias) = (4 * (1 + r.below(40)), 8 * (1 + r.below(4)), r.below(4) > 0);
        let x = if r.below(3) == 0 { DType::U8 } else { DType::I8 };
        let mut inputs = vec![(r.tensor(x, &[1, k]), true), (weights(r, DType::I8, &[outs, k]), false)];
        if bias {
            inputs.push((r.tensor(DType::I32, &[outs]), false));
        }
        // One scale for all channels.
        let (post, operands) = full_requant(r, 1);
        inputs.extend(operands);
        single(Op::MatMul(MatMul { trans_b: true, bias, post }), &inputs)
    };
    (0..n).map(|_| row(r)).collect()
}

/// Average pooling of 8 bits, windows of many sizes.
pub fn averages(n: usize) -> Vec<(Graph, Vec<Tensor>)> {
    let r = &mut Random::new(44);
    (0..n)
        .map(|i| {
            let size = [1 + r.below(2), 2 + r.below(7), 2 + r.below(7), 8 * (1 + r.below(3))];
            let whole = r.below(3) == 0;
            let kernel = if whole { [size[1], size[2]] } else { [1 + r.below(2), 1 + r.below(2)] };
            let mut scale = || F32((r.below(1000) + 10) as f32 / 7000.0);
            let (from, to) = (scale(), scale());
            let mut zero = || r.range(-128, 127) as i32;
            let q = QuantParams { scale: if i % 2 == 0 { from } else { to }, zero_point: zero() };
            let post = Step::Quant { q, lo: -128, hi: 127, dtype: DType::I8 };
            let op = Pool2d {
                kind: PoolKind::Average { count_include_pad: i % 2 == 0 },
                layout: Layout::Nhwc,
                kernel,
                stride: [1 + r.below(2), 1 + r.below(2)],
                pad: [0; 4],
                dilation: [1, 1],
                dequant: Some(QuantParams { scale: from, zero_point: r.range(-128, 127) as i32 }),
                post: vec![post],
            };
            single(Op::Pool2d(op), &[(r.tensor(DType::I8, &size), true)])
        })
        .collect()
}

/// The same with weights that fit in four bits: mostly from -8 to 7, in every fourth case in another range.
pub fn narrow(cases: Vec<(Graph, Vec<Tensor>)>) -> Vec<(Graph, Vec<Tensor>)> {
    let one = |(i, (g, inputs)): (usize, (Graph, Vec<Tensor>))| {
        let low = if i % 4 == 3 { [-15, 0, -6][i / 4 % 3] } else { -8 };
        let narrowed = g.rebuild(|out, _, value, inputs| match &value.def {
            Def::Const(t) if t.dtype() == DType::I8 => {
                let values: Vec<i64> = t.to_i64().into_iter().map(|w| (w & 15) + low).collect();
                Ok(out.add_const(Tensor::from_i64(t.ty().clone(), &values), value.origin.clone()))
            }
            _ => out.copy_value(value, inputs),
        });
        (narrowed.expect("types stay"), inputs)
    };
    cases.into_iter().enumerate().map(one).collect()
}
