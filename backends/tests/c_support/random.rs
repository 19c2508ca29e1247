//! Convolutions, depthwise convolutions and products of 8 or 16 bits with random shapes.

use super::cases::{Epilogue, full_requant, residual, to_the_ends, weights};
use super::{Random, single};
use mcc_ir::graph::Graph;
use mcc_ir::op::{Conv2d, Layout, MatMul, Rounding, Step};
use mcc_ir::{DType, Op, Tensor};

/// The most multiply-accumulates of a case, which keeps emulators and the evaluator quick.
const MACS: usize = 1_500_000;
const WEIGHTS: usize = 20_000;

/// `n` cases with at most `elements` elements in an input or output: in four, two convolutions, a depthwise one and a
/// product.
pub fn shapes(seed: u64, n: usize, elements: usize) -> Vec<(Graph, Vec<Tensor>)> {
    shapes_of(false, seed, n, elements)
}

/// The same on values of 16 bits.
pub fn wide_shapes(seed: u64, n: usize, elements: usize) -> Vec<(Graph, Vec<Tensor>)> {
    shapes_of(true, seed, n, elements)
}

fn shapes_of(wide: bool, seed: u64, n: usize, elements: usize) -> Vec<(Graph, Vec<Tensor>)> {
    let r = &mut Random::new(1000 + seed);
    let mut all = Vec::new();
    while all.len() < n {
        all.extend(match all.len() % 4 {
            3 => dense(r, elements, wide),
            kind => conv(r, elements, kind == 1, wide),
        });
    }
    all
}

/// Mostly odd or small numbers of channels, some that blocks of 4, 8 and 16 fit.
fn channels(r: &mut Random) -> usize {
    match r.below(4) {
        0 => 1 + r.below(4),
        1 => 2 * r.below(20) + 1,
        2 => 1 + r.below(40),
        _ => 4 * (1 + r.below(12)),
    }
}

/// Sides of an image: tiny, ordinary and large ones.
fn side(r: &mut Random) -> usize {
    match r.below(8) {
        0 => 1 + r.below(3),
        1 | 2 => 20 + r.below(60),
        _ => 3 + r.below(18),
    }
}

/// The type of x.
fn input(r: &mut Random, wide: bool) -> DType {
    match r.below(3) {
        _ if wide => DType::I16,
        0 => DType::U8,
        _ => DType::I8,
    }
}

fn conv(r: &mut Random, elements: usize, depthwise: bool, wide: bool) -> Option<(Graph, Vec<Tensor>)> {
    let square = r.below(3) > 0;
    let pair = |r: &mut Random, f: &dyn Fn(&mut Random) -> usize| {
        let first = f(r);
        [first, if square { first } else { f(r) }]
    };
    let ins = channels(r);
    let outs = if depthwise { ins } else { channels(r) };
    let [height, width] = pair(r, &side);
    let size = [1 + r.below(5) / 4, height, width, ins];
    let kernel = pair(r, &|r| [1, 1, 2, 3, 3, 3, 4, 5, 6, 7][r.below(10)]);
    let stride = pair(r, &|r| [1, 1, 2, 3][r.below(4)]);
    let dilation = pair(r, &|r| [1, 1, 1, 2, 3][r.below(5)]);
    let unpadded = r.below(4) == 0;
    let pad: [usize; 4] = std::array::from_fn(|i| if unpadded { 0 } else { r.below(1 + kernel[i % 2]) });
    let span = |axis: usize| (kernel[axis] - 1) * dilation[axis] + 1;
    let padded = [height + pad[0] + pad[2], width + pad[1] + pad[3]];
    if padded[0] < span(0) || padded[1] < span(1) {
        return None;
    }
    let out = |axis: usize| (padded[axis] - span(axis)) / stride[axis] + 1;
    let out = [size[0], out(0), out(1), outs];
    let taps = kernel[0] * kernel[1] * if depthwise { 1 } else { ins };
    let produced: usize = out.iter().product();
    if size.iter().product::<usize>() > elements || produced > elements {
        return None;
    }
    if produced * taps > MACS || outs * taps > WEIGHTS {
        return None;
    }
    let x = input(r, wide);
    let shape = [outs, kernel[0], kernel[1], if depthwise { 1 } else { ins }];
    let (mut inputs, bias) = operands(r, x, &size, &shape);
    let (mut post, operands) = epilogue(r, outs, taps, x);
    inputs.extend(operands);
    let to_i8 = matches!(post[..], [Step::Requant { dtype: DType::I8, .. }]);
    if to_i8 && r.below(5) == 0 {
        inputs.push((residual(r, &mut post, &out), true));
    }
    let pad_value = if x == DType::U8 { r.range(0, 255) } else { r.range(-128, 127) } as i32;
    let groups = if depthwise { ins } else { 1 };
    let op = Conv2d { layout: Layout::Nhwc, stride, pad, dilation, groups, pad_value, bias, post };
    Some(single(Op::Conv2d(op), &inputs))
}

fn dense(r: &mut Random, elements: usize, wide: bool) -> Option<(Graph, Vec<Tensor>)> {
    let rows = if r.below(3) == 0 { 1 } else { 1 + r.below(20) };
    let k = if r.below(2) == 0 { 1 + r.below(600) } else { 1 + r.below(80) };
    let n = channels(r) + if r.below(4) == 0 { r.below(100) } else { 0 };
    let shape = if r.below(4) == 0 { vec![1 + r.below(3), rows, k] } else { vec![rows, k] };
    if shape.iter().product::<usize>() > elements || n * k > WEIGHTS {
        return None;
    }
    let x = input(r, wide);
    let (mut inputs, bias) = operands(r, x, &shape, &[n, k]);
    let (post, operands) = epilogue(r, n, k, x);
    inputs.extend(operands);
    Some(single(Op::MatMul(MatMul { trans_b: true, bias, post }), &inputs))
}

/// Input, weights and, mostly, a bias; in one of eight cases input and weights are as large as they can be.
fn operands(r: &mut Random, x: DType, shape: &[usize], weight_shape: &[usize]) -> (Vec<(Tensor, bool)>, bool) {
    let extreme = r.below(8) == 0;
    let ends = |t: Tensor| if extreme { to_the_ends(t) } else { t };
    let mut inputs = vec![(ends(r.tensor(x, shape)), true), (ends(weights(r, DType::I8, weight_shape)), false)];
    let bias = r.below(5) > 0;
    if bias {
        inputs.push((r.tensor(DType::I32, &weight_shape[..1]), false));
    }
    (inputs, bias)
}

/// Requantisation to 8 bits, or to 16 where x has them, with an activation's clamp, by scales that spread sums of `taps` products over the range.
fn epilogue(r: &mut Random, channels: usize, taps: usize, x: DType) -> Epilogue {
    if r.below(4) == 0 {
        return full_requant(r, channels);
    }
    let typical = 0.01 / (taps as f32).sqrt();
    let scales: Vec<f32> = (0..channels).map(|_| typical * (200 + r.below(1800)) as f32 / 1000.0).collect();
    let (dtype, floor, ceiling) = match r.below(3) {
        _ if x == DType::I16 => (DType::I16, -32768, 32767),
        0 => (DType::U8, 0, 255),
        _ => (DType::I8, -128, 127),
    };
    let zero = r.range(floor.into(), ceiling.into()) as i32;
    let (lo, hi) = match r.below(4) {
        // ReLU, an activation with a bound, and none.
        0 => (zero, ceiling),
        1 => (zero, r.range(zero.into(), ceiling.into()) as i32),
        _ => (floor, ceiling),
    };
    let step = Step::Requant { rounding: Rounding::F32HalfEven, zero, lo, hi, dtype };
    (vec![step], vec![(Tensor::new([channels], &scales), false)])
}
