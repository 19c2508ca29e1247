//! Resize and transposed convolution: the loop nest against the evaluator, bit for bit, on random operators and
//! tensors; and the evaluator against ONNX Runtime and against the definition by scattering.

mod support;

use mcc_ir::op::{
    Binary, ConvTranspose2d, CoordinateMode, CoordinateMode::*, Layout, NearestMode, NearestMode::*, Op, Resize,
    ResizeMode, Step, Unary,
};
use mcc_ir::{DType, F32, Tensor, TensorType, ops};
use proptest::prelude::*;
use support::{Random, refused, run};

const COORDINATES: [CoordinateMode; 4] = [HalfPixel, PytorchHalfPixel, AlignCorners, Asymmetric];
const NEAREST: [NearestMode; 4] = [RoundPreferFloor, RoundPreferCeil, Floor, Ceil];

/// Values of -1..1 that do not add up exactly.
fn reals(r: &mut Random, shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|_| (r.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect();
    Tensor::new(shape, &values)
}

/// Integers of -8..8 as `f32`, whose small sums are exact in every order.
fn integers(r: &mut Random, shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor::new(shape, &(0..n).map(|_| r.below(16) as f32 - 8.0).collect::<Vec<_>>())
}

fn resize(from: &[usize], to: &[usize], mode: ResizeMode, coordinates: CoordinateMode) -> Resize {
    let scales = from.iter().zip(to).map(|(&a, &b)| F32(b.max(1) as f32 / a as f32)).collect();
    Resize { shape: to.to_vec(), scales, mode, coordinates }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn resize_nearest(
        dtype in prop::sample::select(DType::ALL.to_vec()), from in prop::collection::vec(1usize..6, 0..5),
        nearest in prop::sample::select(NEAREST.to_vec()), coordinates in prop::sample::select(COORDINATES.to_vec()),
        seed: u64,
    ) {
        let mut r = Random(seed);
        let to: Vec<usize> = from.iter().map(|&n| if r.below(3) == 0 { n } else { r.below(8) }).collect();
        let mut op = resize(&from, &to, ResizeMode::Nearest(nearest), coordinates);
        // Scales that are not the ratio of the extents, as models have them.
        op.scales.iter_mut().filter(|_| r.below(4) == 0).for_each(|s| s.0 *= 1.21);
        let x = r.tensor(dtype, &from);
        run(&Op::Resize(op), &[&x]);
    }

    #[test]
    fn resize_linear(
        from in prop::collection::vec(1usize..6, 0..5), coordinates in prop::sample::select(COORDINATES.to_vec()),
        seed: u64,
    ) {
        let mut r = Random(seed);
        let mut left = 3;
        let to: Vec<usize> = from
            .iter()
            .map(|&n| {
                let to = if left == 0 || r.below(4) == 0 { n } else { r.below(8) };
                left -= (to != n) as usize;
                to
            })
            .collect();
        let mut op = resize(&from, &to, ResizeMode::Linear, coordinates);
        if from.iter().zip(&to).any(|(a, b)| a != b) && r.below(3) == 0 {
            let d = from.iter().zip(&to).position(|(a, b)| a != b).unwrap();
            op.scales[d].0 *= 0.9;
        }
        let x = reals(&mut r, &from);
        let y = run(&Op::Resize(op.clone()), &[&x]);
        let (lo, hi) = x.to_f64().into_iter().fold((f64::MAX, f64::MIN), |(lo, hi), v| (lo.min(v), hi.max(v)));
        prop_assert!(y.to_f64().iter().all(|v| (lo - 1e-6..=hi + 1e-6).contains(v)), "interpolation stays in range");
    }

    #[test]
    fn conv_transpose(
        channels in (1usize..3, 1usize..4, 1usize..4), size in [1usize..5, 1usize..5], kernel in [1usize..4, 1usize..4],
        stride in [1usize..4, 1usize..4], dilation in [1usize..4, 1usize..4], output_pad in [0usize..3, 0usize..3],
        nhwc: bool, bias: bool, epilogue: bool, seed: u64,
    ) {
        let mut r = Random(seed);
        let (groups, in_group, out_group) = channels;
        let (c, out_c, n) = (groups * in_group, groups * out_group, 1 + r.below(2));
        let full: Vec<usize> =
            (0..2).map(|d| (size[d] - 1) * stride[d] + (kernel[d] - 1) * dilation[d] + 1 + output_pad[d]).collect();
        let mut pad = [0; 4];
        for d in 0..2 {
            pad[d] = r.below(full[d].min(3));
            pad[d + 2] = r.below((full[d] - pad[d]).min(3));
        }
        let out: Vec<usize> = (0..2).map(|d| full[d] - pad[d] - pad[d + 2]).collect();
        let nchw = ConvTranspose2d {
            layout: Layout::Nchw, stride, pad, output_pad, dilation, groups, bias, post: vec![],
        };

        // By definition: each input element, times the kernel, is added to the output at its place.
        let shapes = [vec![n, c, size[0], size[1]], vec![c, out_group, kernel[0], kernel[1]], vec![out_c]];
        let [x, w, b] = [0, 1, 2].map(|i| integers(&mut r, &shapes[i]));
        let (xv, wv, bv) = (x.to_f64(), w.to_f64(), b.to_f64());
        let mut expected = vec![0.0; n * out_c * out[0] * out[1]];
        if bias {
            expected.iter_mut().enumerate().for_each(|(i, v)| *v = bv[i / (out[0] * out[1]) % out_c]);
        }
        for (i, v) in xv.iter().enumerate() {
            let (ix, iy) = (i % size[1], i / size[1] % size[0]);
            let (ic, image) = (i / (size[1] * size[0]) % c, i / (size[1] * size[0] * c));
            for p in 0..out_group {
                for (ky, kx) in (0..kernel[0]).flat_map(|ky| (0..kernel[1]).map(move |kx| (ky, kx))) {
                    let y = (iy * stride[0] + ky * dilation[0]).wrapping_sub(pad[0]);
                    let xo = (ix * stride[1] + kx * dilation[1]).wrapping_sub(pad[1]);
                    if y < out[0] && xo < out[1] {
                        let oc = ic / in_group * out_group + p;
                        let to = ((image * out_c + oc) * out[0] + y) * out[1] + xo;
                        expected[to] += v * wv[((ic * out_group + p) * kernel[0] + ky) * kernel[1] + kx];
                    }
                }
            }
        }
        let with_bias = |x: &Tensor, w: &Tensor, op: ConvTranspose2d, more: &[&Tensor]| {
            let mut inputs = vec![x, w];
            inputs.extend(bias.then_some(&b));
            inputs.extend(more);
            run(&Op::ConvTranspose2d(op), &inputs)
        };
        let transposed = |t: &Tensor, perm: [usize; 4]| run(&Op::Transpose { perm: perm.to_vec() }, &[t]);
        let y = with_bias(&x, &w, nchw.clone(), &[]);
        prop_assert_eq!(y.shape(), [n, out_c, out[0], out[1]]);
        prop_assert_eq!(y.to_f64(), expected.clone());
        let channels_last = ConvTranspose2d { layout: Layout::Nhwc, ..nchw.clone() };
        let to_last = [0, 2, 3, 1];
        let y = with_bias(&transposed(&x, to_last), &transposed(&w, to_last), channels_last.clone(), &[]);
        prop_assert_eq!(transposed(&y, [0, 3, 1, 2]).to_f64(), expected);

        // With values that round, so that the order of the additions shows, and an epilogue.
        let mut op = if nhwc { channels_last } else { nchw };
        let order: Vec<usize> = if nhwc { vec![0, 2, 3, 1] } else { vec![0, 1, 2, 3] };
        let [x, w] = [0, 1].map(|i| reals(&mut r, &order.iter().map(|&d| shapes[i][d]).collect::<Vec<_>>()));
        let operand = reals(&mut r, &[if nhwc { out_c } else { out[1] }]);
        let mut more = vec![];
        if epilogue {
            op.post = vec![
                Step::Binary { op: Binary::Mul, swapped: false, dequant: None },
                Step::Unary(Unary::Relu),
            ];
            more.push(&operand);
        }
        with_bias(&x, &w, op, &more);
    }
}

/// Against ONNX Runtime 1.32: `helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="nearest",
/// coordinate_transformation_mode=c, nearest_mode=n)`, opset 13, x = arange(6), scales 1.5, 0.5, 1.7 and 0.2.
#[test]
fn resize_nearest_matches_onnx_runtime() {
    let x = Tensor::new([6], &[0f32, 1., 2., 3., 4., 5.]);
    for (coordinates, nearest, expected) in [
        (HalfPixel, RoundPreferFloor, ["001223445", "024", "0012233445", "2"]),
        (HalfPixel, RoundPreferCeil, ["011233455", "135", "0012233455", "2"]),
        (HalfPixel, Floor, ["001123345", "024", "0001223345", "2"]),
        (HalfPixel, Ceil, ["012234455", "135", "0112334455", "2"]),
        (PytorchHalfPixel, RoundPreferFloor, ["001223445", "024", "0012233445", "0"]),
        (PytorchHalfPixel, RoundPreferCeil, ["011233455", "135", "0012233455", "0"]),
        (PytorchHalfPixel, Floor, ["001123345", "024", "0001223345", "0"]),
        (PytorchHalfPixel, Ceil, ["012234455", "135", "0112334455", "0"]),
        (AlignCorners, RoundPreferFloor, ["011223445", "025", "0112233445", "0"]),
        (AlignCorners, RoundPreferCeil, ["011233445", "035", "0112233445", "0"]),
        (AlignCorners, Floor, ["001123345", "025", "0011223345", "0"]),
        (AlignCorners, Ceil, ["012234455", "035", "0122334455", "0"]),
        (Asymmetric, RoundPreferFloor, ["011233455", "024", "0112234455", "0"]),
        (Asymmetric, RoundPreferCeil, ["011233455", "024", "0112234455", "0"]),
        (Asymmetric, Floor, ["001223445", "024", "0011223445", "0"]),
        (Asymmetric, Ceil, ["012234455", "024", "0122334555", "0"]),
    ] {
        for (scale, expected) in [1.5f32, 0.5, 1.7, 0.2].into_iter().zip(expected) {
            let shape = vec![(6.0 * scale).floor() as usize];
            let op = Resize { shape, scales: vec![F32(scale)], mode: ResizeMode::Nearest(nearest), coordinates };
            let got: String = run(&Op::Resize(op), &[&x]).to_i64().iter().map(i64::to_string).collect();
            assert_eq!(got, expected, "{coordinates:?} {nearest:?} by {scale}");
        }
    }
}

/// Against ONNX Runtime 1.32: `helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], mode="linear",
/// coordinate_transformation_mode=c)`, opset 13, x = arange(15).reshape(3, 5) ** 2.
#[test]
fn resize_linear_matches_onnx_runtime() {
    let x = Tensor::new([3, 5], &(0..15).map(|i| (i * i) as f32).collect::<Vec<_>>());
    let cases: [(CoordinateMode, [usize; 2], &[f64]); 8] = [
        (
            HalfPixel,
            [5, 3],
            &[
                0.333333, 4., 13.666666, 11.666668, 22.000002, 38.333336, 28.666668, 49., 75.333328, 75.666672,
                106.000015, 142.333344, 107., 144., 187.,
            ],
        ),
        (
            HalfPixel,
            [2, 7],
            &[
                6.25, 8.25, 11.321428, 15.25, 20.607143, 26.821428, 32.25, 81.25, 91.821426, 105.60714, 120.25,
                136.321426, 153.25, 167.25,
            ],
        ),
        (
            PytorchHalfPixel,
            [5, 3],
            &[
                0.333333, 4., 13.666666, 11.666668, 22.000002, 38.333336, 28.666668, 49., 75.333328, 75.666672,
                106.000015, 142.333344, 107., 144., 187.,
            ],
        ),
        (
            PytorchHalfPixel,
            [2, 7],
            &[
                6.25, 8.25, 11.321428, 15.25, 20.607143, 26.821428, 32.25, 81.25, 91.821426, 105.60714, 120.25,
                136.321426, 153.25, 167.25,
            ],
        ),
        (AlignCorners, [5, 3], &[0., 4., 16., 12.5, 26.5, 48.5, 25., 49., 81., 62.5, 96.5, 138.5, 100., 144., 196.]),
        (
            AlignCorners,
            [2, 7],
            &[0., 0.666667, 2., 4., 7.333334, 11.333333, 16., 100., 114., 128.666672, 144., 160.666672, 178., 196.],
        ),
        (
            Asymmetric,
            [5, 3],
            &[
                0., 3., 11.333333, 15.000001, 28.000002, 46.333336, 40., 63., 91.333336, 85.000008, 118., 156.333328,
                100., 136.333328, 178.,
            ],
        ),
        (
            Asymmetric,
            [2, 7],
            &[
                0., 0.714286, 2.285714, 4.714285, 8.285715, 13., 16., 62.5, 73.928574, 86.214287, 99.357147,
                113.642853, 129.071426, 138.5,
            ],
        ),
    ];
    for (coordinates, to, expected) in cases {
        let got = run(&Op::Resize(resize(&[3, 5], &to, ResizeMode::Linear, coordinates)), &[&x]).to_f64();
        assert_eq!(got.len(), expected.len());
        for (a, b) in got.iter().zip(expected) {
            assert!((a - b).abs() <= 2e-5, "{coordinates:?} to {to:?}: {got:?}");
        }
    }
}

/// Against ONNX Runtime 1.32, as above, x = arange(8).reshape(1, 1, 2, 2, 2) ** 2, sizes (1, 1, 3, 3, 3).
#[test]
fn resize_of_three_axes_matches_onnx_runtime() {
    let x = Tensor::new([1, 1, 2, 2, 2], &[0f32, 1., 4., 9., 16., 25., 36., 49.]);
    let op = resize(x.shape(), &[1, 1, 3, 3, 3], ResizeMode::Linear, HalfPixel);
    let expected = [
        0.0, 0.5, 1.0, 2.0, 3.5, 5.0, 4.0, 6.5, 9.0, 8.0, 10.5, 13.0, 14.0, 17.5, 21.0, 20.0, 24.5, 29.0, 16.0, 20.5,
        25.0, 26.0, 31.5, 37.0, 36.0, 42.5, 49.0,
    ];
    assert_eq!(run(&Op::Resize(op), &[&x]).to_f64(), expected);
}

#[test]
fn malformed_resizes_are_refused() {
    let x = TensorType::new(DType::F32, [2, 3, 4, 5]);
    let good = resize(&x.shape, &[2, 3, 8, 9], ResizeMode::Linear, HalfPixel);
    assert!(ops::infer(&Op::Resize(good.clone()), &[&x]).is_ok());
    let refuse = |change: &dyn Fn(&mut Resize), x: &TensorType| {
        let mut op = good.clone();
        change(&mut op);
        refused(&Op::Resize(op), &[x])
    };
    refuse(&|o| o.shape.truncate(3), &x);
    refuse(&|o| o.scales.truncate(3), &x);
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        refuse(&|o| o.scales[2] = F32(scale), &x);
    }
    refuse(&|o| o.shape[3] = usize::MAX, &x);
    refuse(&|o| o.scales[0] = F32(2.0), &TensorType::new(DType::I8, [2, 3, 4, 5]));
    refuse(&|o| (0..4).for_each(|d| o.scales[d] = F32(2.0)), &x);
    refuse(&|_| {}, &TensorType::new(DType::F32, [2, 3, 0, 5]));
    // Scales that do not fit the shape read clamped positions.
    let nearest = ResizeMode::Nearest(Ceil);
    let tiny = Resize { shape: vec![3], scales: vec![F32(1e-38)], mode: nearest, coordinates: Asymmetric };
    let x = Tensor::new([2], &[7i8, 9]);
    assert_eq!(run(&Op::Resize(tiny), &[&x]).to_i64(), [7, 9, 9]);
}

/// Against ONNX Runtime 1.32: `helper.make_node("ConvTranspose", ["x", "w", "b"], ["y"], strides=.., pads=..,
/// output_padding=.., dilations=.., group=..)`, opset 13, x = arange(12).reshape(1, 2, 2, 3) - 5,
/// w = arange(24).reshape(2, 2, 2, 3) * 7 % 11 - 4, b = [1, -2].
#[test]
fn conv_transpose_matches_onnx_runtime() {
    let x = Tensor::new([1, 2, 2, 3], &(0..12).map(|i| i as f32 - 5.0).collect::<Vec<_>>());
    let w = Tensor::new([2, 2, 2, 3], &(0..24).map(|i| (i * 7 % 11 - 4) as f32).collect::<Vec<_>>());
    let b = Tensor::new([2], &[1f32, -2.0]);
    let op = ConvTranspose2d {
        layout: Layout::Nchw,
        stride: [2, 3],
        pad: [0, 1, 1, 0],
        output_pad: [1, 2],
        dilation: [2, 1],
        groups: 1,
        bias: true,
        post: vec![],
    };
    let y = run(&Op::ConvTranspose2d(op.clone()), &[&x, &w, &b]);
    assert_eq!(y.shape(), [1, 2, 5, 10]);
    let expected = [
        -15, 12, 23, -13, 17, 22, -11, 22, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -21, 42, 0, -19, 50, 7, -17, 58, 1, 1,
        1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -11, 25, 5, -11, 28, 13, -11, 31, 1, 1, -10, 17, -20, -12, 18, -14, -14, 19, -2,
        -2, -2, -2, -2, -2, -2, -2, -2, -2, -2, -2, -20, 43, -18, -26, 43, -8, -32, 43, -2, -2, -2, -2, -2, -2, -2, -2,
        -2, -2, -2, -2, -18, 18, -6, -22, 17, -2, -26, 16, -2, -2,
    ];
    assert_eq!(y.to_i64(), expected);
    let op = ConvTranspose2d {
        stride: [1, 2],
        pad: [1, 1, 0, 2],
        output_pad: [0, 0],
        dilation: [1, 2],
        groups: 2,
        bias: false,
        ..op
    };
    let y = run(&Op::ConvTranspose2d(op), &[&x, &w]);
    assert_eq!(y.shape(), [1, 4, 2, 6]);
    let expected = [
        0, -36, 0, -17, 0, 3, 0, -10, 0, 2, 0, 2, 0, -23, 0, 13, 0, 19, 0, -4, 0, 8, 0, 4, 0, 13, 0, 44, 0, 28, 0, 2,
        0, 22, 0, 13, 0, -11, 0, 2, 0, -4, 0, -16, 0, -8, 0, -9,
    ];
    assert_eq!(y.to_i64(), expected);
}

#[test]
fn malformed_transposed_convolutions_are_refused() {
    let ty = |shape: &[usize]| TensorType::new(DType::F32, shape);
    let (x, w, b) = (ty(&[1, 4, 3, 3]), ty(&[4, 2, 2, 2]), ty(&[4]));
    let good = ConvTranspose2d {
        layout: Layout::Nchw,
        stride: [2, 2],
        pad: [0; 4],
        output_pad: [0; 2],
        dilation: [1, 1],
        groups: 2,
        bias: true,
        post: vec![],
    };
    assert_eq!(ops::infer(&Op::ConvTranspose2d(good.clone()), &[&x, &w, &b]).unwrap().shape, [1, 4, 6, 6]);
    let max = usize::MAX;
    let attributes: [fn(&mut ConvTranspose2d); 12] = [
        |o| o.groups = 0,
        |o| o.groups = 3,
        |o| o.groups = usize::MAX,
        |o| o.stride[0] = 0,
        |o| o.stride[1] = usize::MAX,
        |o| o.dilation[1] = 0,
        |o| o.dilation[0] = usize::MAX,
        |o| o.pad[2] = 6,
        |o| o.pad = [usize::MAX; 4],
        |o| o.output_pad[0] = usize::MAX,
        |o| o.output_pad = [1 << 20, 1 << 20],
        |o| o.post = vec![Step::Unary(Unary::Not)],
    ];
    for change in attributes {
        let mut op = good.clone();
        change(&mut op);
        refused(&Op::ConvTranspose2d(op), &[&x, &w, &b]);
    }
    let op = Op::ConvTranspose2d(good.clone());
    for (x, w, b) in [
        (&ty(&[4, 3, 3]), &w, &b),
        (&x, &ty(&[4, 2, 2]), &b),
        (&ty(&[1, 6, 3, 3]), &w, &b),
        (&ty(&[1, 4, 0, 3]), &w, &b),
        (&ty(&[1, 0, 3, 3]), &ty(&[0, 2, 2, 2]), &b),
        (&x, &ty(&[4, 2, 0, 2]), &b),
        (&x, &w, &ty(&[2])),
        (&x, &TensorType::new(DType::I8, [4, 2, 2, 2]), &b),
        (&TensorType::new(DType::I8, [1, 4, 3, 3]), &TensorType::new(DType::I8, [4, 2, 2, 2]), &b),
        (&x, &ty(&[4, max / 2, 2, 2]), &b),
    ] {
        refused(&op, &[x, w, b]);
    }
    let binary = vec![Step::Binary { op: Binary::Add, swapped: false, dequant: None }];
    let op = Op::ConvTranspose2d(ConvTranspose2d { post: binary, ..good });
    refused(&op, &[&x, &w, &b, &ty(&[2, 4, 6, 6])]);
    refused(&op, &[&x, &w, &b]);
    // One tap is not dilated, whatever the attribute says, and one position takes no stride.
    let one = ConvTranspose2d {
        stride: [1 << 30, 1],
        dilation: [1 << 30, 1 << 30],
        groups: 1,
        bias: false,
        post: vec![],
        ..match op {
            Op::ConvTranspose2d(o) => o,
            _ => unreachable!(),
        }
    };
    let y = run(
        &Op::ConvTranspose2d(one),
        &[&Tensor::new([1, 1, 1, 2], &[2f32, 3.0]), &Tensor::new([1, 1, 1, 1], &[5f32])],
    );
    assert_eq!(y.to_f64(), [10.0, 15.0]);
}
