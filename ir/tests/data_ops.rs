//! Operators that move or choose elements: each loop nest against the evaluator, bit for bit, on random operators
//! and tensors; and the evaluator against results written down by hand or computed by other programs.

mod support;

use mcc_ir::op::{Op, PadMode};
use mcc_ir::{DType, Tensor, TensorType, ops};
use proptest::prelude::*;
use support::{Random, refused, run};

fn shapes(rank: std::ops::Range<usize>) -> impl Strategy<Value = Vec<usize>> {
    // Now and then an empty dimension.
    prop::collection::vec(prop_oneof![1 => Just(0usize), 15 => 1usize..6], rank)
}

fn dtypes() -> impl Strategy<Value = DType> {
    prop::sample::select(DType::ALL.to_vec())
}

fn pad_modes() -> impl Strategy<Value = PadMode> {
    prop::sample::select(vec![PadMode::Constant, PadMode::Edge, PadMode::Reflect])
}

fn permutation(r: &mut Random, rank: usize) -> Vec<usize> {
    let mut perm: Vec<usize> = (0..rank).collect();
    (1..rank).for_each(|i| perm.swap(i, r.below(i + 1)));
    perm
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn transpose(dtype in dtypes(), shape in shapes(0..5), seed: u64) {
        let mut r = Random(seed);
        let x = r.tensor(dtype, &shape);
        let perm = permutation(&mut r, shape.len());
        let y = run(&Op::Transpose { perm: perm.clone() }, &[&x]);
        let mut inverse = vec![0; perm.len()];
        perm.iter().enumerate().for_each(|(i, &p)| inverse[p] = i);
        prop_assert_eq!(run(&Op::Transpose { perm: inverse }, &[&y]), x);
    }

    #[test]
    fn reshape_keeps_the_bytes(dtype in dtypes(), shape in shapes(0..5), seed: u64) {
        let mut r = Random(seed);
        let x = r.tensor(dtype, &shape);
        let to: Vec<usize> = permutation(&mut r, shape.len()).into_iter().map(|p| shape[p]).chain([1]).collect();
        let y = run(&Op::Reshape { shape: to.clone() }, &[&x]);
        prop_assert_eq!(y.bytes(), x.bytes());
        prop_assert_eq!(y.shape(), &to[..]);
    }

    #[test]
    fn slices_of_a_concatenation_are_its_parts(
        dtype in dtypes(), shape in shapes(1..5), parts in prop::collection::vec(0usize..4, 1..4), seed: u64,
    ) {
        let mut r = Random(seed);
        let axis = r.below(shape.len());
        let inputs: Vec<Tensor> = parts
            .iter()
            .map(|&n| {
                let mut shape = shape.clone();
                shape[axis] = n;
                r.tensor(dtype, &shape)
            })
            .collect();
        let whole = run(&Op::Concat { axis }, &inputs.iter().collect::<Vec<_>>());
        let mut start = vec![0; shape.len()];
        for part in &inputs {
            let slice = Op::Slice { start: start.clone(), step: vec![1; shape.len()], shape: part.shape().to_vec() };
            prop_assert_eq!(&run(&slice, &[&whole]), part);
            start[axis] += part.shape()[axis];
        }
    }

    #[test]
    fn slice_reads_start_plus_step(dtype in dtypes(), shape in shapes(1..5), seed: u64) {
        let mut r = Random(seed);
        let x = r.tensor(dtype, &shape);
        let (mut start, mut step, mut to) = (vec![], vec![], vec![]);
        for &dim in &shape {
            let first = r.below(dim.max(1));
            let by = [1, 2, 3, isize::MAX, -1, -2, isize::MIN][r.below(7)];
            let way = if by > 0 { dim.saturating_sub(first + 1) } else { first };
            let room = if dim == 0 { 0 } else { way / by.unsigned_abs() + 1 };
            start.push(first);
            step.push(by);
            to.push(if room == 0 { 0 } else { r.below(room + 1) });
        }
        let y = run(&Op::Slice { start: start.clone(), step: step.clone(), shape: to.clone() }, &[&x]);
        let (all, mut expected) = (x.to_f64(), vec![]);
        for mut i in 0..y.ty().elements() {
            let mut from = 0;
            for d in (0..to.len()).rev() {
                let at = start[d] as i128 + (i % to[d]) as i128 * step[d] as i128;
                from += at as usize * x.ty().strides()[d];
                i /= to[d];
            }
            expected.push(all[from].to_bits());
        }
        prop_assert_eq!(y.to_f64().into_iter().map(f64::to_bits).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn pad_then_slice_is_the_identity(
        dtype in dtypes(), shape in shapes(0..5), mode in pad_modes(), seed: u64,
    ) {
        let mut r = Random(seed);
        let x = r.tensor(dtype, &shape);
        let fill = r.tensor(dtype, &[]);
        let pads = |r: &mut Random| -> Vec<usize> {
            let widest = |dim: usize| match mode {
                PadMode::Constant => 3,
                PadMode::Edge => if dim == 0 { 0 } else { 4 },
                PadMode::Reflect => dim.saturating_sub(1),
            };
            shape.iter().map(|&dim| if r.below(3) == 0 { 0 } else { r.below(widest(dim) + 1) }).collect()
        };
        let (before, after) = (pads(&mut r), pads(&mut r));
        let inputs = if mode == PadMode::Constant { vec![&x, &fill] } else { vec![&x] };
        let y = run(&Op::Pad { before: before.clone(), after, mode }, &inputs);
        let slice = Op::Slice { start: before, step: vec![1; shape.len()], shape: shape.clone() };
        prop_assert_eq!(run(&slice, &[&y]), x);
    }

    #[test]
    fn broadcast(dtype in dtypes(), shape in shapes(0..5), seed: u64) {
        let mut r = Random(seed);
        let from: Vec<usize> = shape.iter().map(|&n| if r.below(2) == 0 { 1 } else { n }).collect();
        let leading = r.below(from.len() + 1);
        let x = r.tensor(dtype, &from[leading..]);
        let y = run(&Op::Broadcast { shape: shape.clone() }, &[&x]);
        let (all, got) = (x.to_f64(), y.to_f64());
        let strides = mcc_ir::types::broadcast_strides(x.shape(), &shape);
        for (i, v) in got.iter().enumerate() {
            let (mut rest, mut from) = (i, 0);
            for d in (0..shape.len()).rev() {
                from += rest % shape[d] * strides[d];
                rest /= shape[d];
            }
            prop_assert_eq!(v.to_bits(), all[from].to_bits());
        }
    }

    #[test]
    fn gather_reads_what_the_indices_name(
        dtype in dtypes(), shape in prop::collection::vec(1usize..5, 1..4), indices in shapes(0..3), wide: bool,
        seed: u64,
    ) {
        let mut r = Random(seed);
        let x = r.tensor(dtype, &shape);
        let axis = r.below(shape.len());
        let dim = shape[axis];
        let ty = TensorType::new(if wide { DType::I64 } else { DType::I32 }, indices);
        let values: Vec<i64> = (0..ty.elements())
            .map(|_| match r.below(8) {
                0 => i32::MIN as i64,
                1 => i32::MAX as i64,
                _ => r.below(2 * dim + 4) as i64 - dim as i64 - 2,
            })
            .collect();
        let y = run(&Op::Gather { axis }, &[&x, &Tensor::from_i64(ty.clone(), &values)]);
        let inner: usize = shape[axis + 1..].iter().product();
        let mut expected = vec![];
        for outer in x.to_f64().chunks(dim * inner) {
            for v in &values {
                let from_start = if *v < 0 { v + dim as i64 } else { *v };
                let at = from_start.max(0).min(dim as i64 - 1) as usize;
                expected.extend(outer[at * inner..(at + 1) * inner].iter().map(|v| v.to_bits()));
            }
        }
        prop_assert_eq!(y.to_f64().into_iter().map(f64::to_bits).collect::<Vec<_>>(), expected);
        prop_assert_eq!(y.shape(), [&shape[..axis], &ty.shape, &shape[axis + 1..]].concat());
    }

    #[test]
    fn where_chooses(dtype in dtypes(), shape in shapes(0..4), seed: u64) {
        let mut r = Random(seed);
        let mut operand = |dtype: DType| {
            let shape: Vec<usize> = shape.iter().map(|&n| if r.below(3) == 0 { 1 } else { n }).collect();
            let leading = if shape.first() == Some(&1) { r.below(2) } else { 0 };
            r.tensor(dtype, &shape[leading..])
        };
        let (condition, then, other) = (operand(DType::Bool), operand(dtype), operand(dtype));
        let y = run(&Op::Where, &[&condition, &then, &other]);
        let spread = |t: &Tensor| run(&Op::Broadcast { shape: y.shape().to_vec() }, &[t]).to_f64();
        let (condition, then, other) = (spread(&condition), spread(&then), spread(&other));
        for (i, v) in y.to_f64().into_iter().enumerate() {
            let expected = if condition[i] == 1.0 { then[i] } else { other[i] };
            prop_assert_eq!(v.to_bits(), expected.to_bits());
        }
    }

    #[test]
    fn arg_max_names_the_largest(
        dtype in dtypes(), shape in prop::collection::vec(1usize..6, 1..4), keepdims: bool, last: bool, ties: bool,
        seed: u64,
    ) {
        let mut r = Random(seed);
        let mut x = r.tensor(dtype, &shape);
        if ties {
            let few: Vec<i64> = (0..x.ty().elements()).map(|_| r.below(2) as i64).collect();
            x = Tensor::from_i64(x.ty().clone(), &few);
        }
        let axis = r.below(shape.len());
        let y = run(&Op::ArgMax { axis, keepdims, last }, &[&x]);
        let (dim, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
        // Integers of 64 bits do not fit f64.
        let all: Vec<f64> = x.to_f64();
        let exact = x.to_i64();
        let less = |a: usize, b: usize| if dtype == DType::I64 { exact[a] < exact[b] } else { all[a] < all[b] };
        for (i, best) in y.to_i64().into_iter().enumerate() {
            let at = |d: usize| (i / inner * dim + d) * inner + i % inner;
            let best = best as usize;
            if (0..dim).any(|d| all[at(d)].is_nan()) {
                continue;
            }
            prop_assert!((0..dim).all(|d| !less(at(best), at(d))));
            let mut rivals = if last { best + 1..dim } else { 0..best };
            prop_assert!(rivals.all(|d| less(at(d), at(best))), "a tie, last = {last}");
        }
    }
}

#[test]
fn moves_by_hand() {
    let x = Tensor::new([2, 3], &[1i32, 2, 3, 4, 5, 6]);
    let y = run(&Op::Transpose { perm: vec![1, 0] }, &[&x]);
    assert_eq!((y.shape(), y.to_i64()), (&[3, 2][..], vec![1, 4, 2, 5, 3, 6]));
    let y = run(&Op::Concat { axis: 1 }, &[&x, &Tensor::new([2, 1], &[7i32, 8]), &x]);
    assert_eq!(y.to_i64(), [1, 2, 3, 7, 1, 2, 3, 4, 5, 6, 8, 4, 5, 6]);
    let y = run(&Op::Slice { start: vec![1, 2], step: vec![-1, -2], shape: vec![2, 2] }, &[&x]);
    assert_eq!(y.to_i64(), [6, 4, 3, 1]);
    let y = run(&Op::Broadcast { shape: vec![2, 2, 3] }, &[&Tensor::new([2, 1], &[true, false])]);
    assert_eq!(y.to_i64(), [1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0]);
    let fill = Tensor::new([], &[9i32]);
    let y = run(&Op::Pad { before: vec![1, 0], after: vec![0, 2], mode: PadMode::Constant }, &[&x, &fill]);
    assert_eq!(y.to_i64(), [9, 9, 9, 9, 9, 1, 2, 3, 9, 9, 4, 5, 6, 9, 9]);
}

/// Against ONNX Runtime 1.32: `helper.make_node("Pad", ["x", "p"], ["y"], mode=m)`, opset 13, x =
/// arange(6).reshape(2, 3).
#[test]
fn pad_matches_onnx_runtime() {
    let x = Tensor::new([2, 3], &[0f32, 1.0, 2.0, 3.0, 4.0, 5.0]);
    let y = run(&Op::Pad { before: vec![1, 2], after: vec![0, 1], mode: PadMode::Reflect }, &[&x]);
    let expected = [5., 4., 3., 4., 5., 4., 2., 1., 0., 1., 2., 1., 5., 4., 3., 4., 5., 4.];
    assert_eq!((y.shape(), y.to_f64()), (&[3, 6][..], expected.to_vec()));
    let y = run(&Op::Pad { before: vec![2, 1], after: vec![1, 0], mode: PadMode::Edge }, &[&x]);
    let expected = [0., 0., 1., 2., 0., 0., 1., 2., 0., 0., 1., 2., 3., 3., 4., 5., 3., 3., 4., 5.];
    assert_eq!((y.shape(), y.to_f64()), (&[5, 4][..], expected.to_vec()));
}

#[test]
fn malformed_moves_are_refused() {
    let x = TensorType::new(DType::F32, [2, 3]);
    let other = TensorType::new(DType::I32, [2, 3]);
    let max = usize::MAX;
    let reshape = |shape: Vec<usize>| refused(&Op::Reshape { shape }, &[&x]);
    reshape(vec![5]);
    reshape(vec![max, max]);
    reshape([vec![1; 100_000], vec![6]].concat());
    for perm in [vec![0], vec![0, 0], vec![0, 2], vec![1, 0, 2], vec![max, 0]] {
        refused(&Op::Transpose { perm }, &[&x]);
    }
    refused(&Op::Concat { axis: 2 }, &[&x]);
    refused(&Op::Concat { axis: 0 }, &[&x, &other]);
    refused(&Op::Concat { axis: 0 }, &[&x, &TensorType::new(DType::F32, [3, 2])]);
    refused(&Op::Concat { axis: 0 }, &[&x, &TensorType::new(DType::F32, [3])]);
    refused(&Op::Concat { axis: 0 }, &[]);
    let half = TensorType::new(DType::F32, [ops::MAX_ELEMENTS]);
    assert!(refused(&Op::Concat { axis: 0 }, &[&half, &half]).contains("too large"));
    for (start, step, shape) in [
        (vec![0], vec![1, 1], vec![1, 1]),
        (vec![0, 0], vec![1, 1], vec![2, 4]),
        (vec![0, 3], vec![1, 1], vec![1, 1]),
        (vec![0, 4], vec![1, 1], vec![1, 0]),
        (vec![0, 1], vec![1, -1], vec![1, 3]),
        (vec![0, 0], vec![1, 0], vec![1, 1]),
        (vec![0, 1], vec![1, isize::MIN], vec![1, 2]),
        (vec![0, max], vec![1, isize::MAX], vec![1, max]),
        (vec![0, max], vec![1, isize::MIN], vec![1, max]),
    ] {
        refused(&Op::Slice { start, step, shape }, &[&x]);
    }
    for (before, after, mode) in [
        (vec![0], vec![0, 0], PadMode::Edge),
        (vec![0, 0], vec![0, 0, 0], PadMode::Edge),
        (vec![0, 3], vec![0, 0], PadMode::Reflect),
        (vec![0, 0], vec![2, 0], PadMode::Reflect),
        (vec![0, max], vec![0, 0], PadMode::Edge),
        (vec![0, max], vec![0, max], PadMode::Edge),
        (vec![0, max / 2], vec![0, max / 2], PadMode::Edge),
    ] {
        refused(&Op::Pad { before, after, mode }, &[&x]);
    }
    refused(&Op::Pad { before: vec![1], after: vec![0], mode: PadMode::Edge }, &[&TensorType::new(DType::F32, [0])]);
    let pad = Op::Pad { before: vec![0, 0], after: vec![0, 0], mode: PadMode::Constant };
    refused(&pad, &[&x]);
    refused(&pad, &[&x, &TensorType::new(DType::I32, [])]);
    refused(&pad, &[&x, &TensorType::new(DType::F32, [2])]);
    for shape in [vec![3], vec![3, 3], vec![2, 3, 1], vec![max, 2, 3]] {
        refused(&Op::Broadcast { shape }, &[&x]);
    }
    let huge = TensorType::new(DType::F32, [max, max, 0]);
    assert!(refused(&Op::Transpose { perm: vec![2, 1, 0] }, &[&huge]).contains("too large"));
}

/// Against ONNX Runtime 1.32: `helper.make_node("Gather", ["x", "i"], ["y"], axis=1)`, opset 13, and
/// `helper.make_node("ArgMax", ["x"], ["y"], axis=a, keepdims=0, select_last_index=l)`.
#[test]
fn gather_and_arg_max_match_onnx_runtime() {
    let x = Tensor::new([3, 4], &[1f32, 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12.]);
    let y = run(&Op::Gather { axis: 1 }, &[&x, &Tensor::new([2, 2], &[-1i64, 0, 2, -4])]);
    assert_eq!(y.shape(), [3, 2, 2]);
    assert_eq!(y.to_f64(), [4., 1., 3., 1., 8., 5., 7., 5., 12., 9., 11., 9.]);
    let x = Tensor::new([3, 4], &[3f32, 1., 3., 2., 0., 5., 5., 5., 7., 7., 1., 7.]);
    for (axis, last, expected) in
        [(0, false, vec![2, 2, 1, 2]), (0, true, vec![2, 2, 1, 2]), (1, false, vec![0, 1, 0]), (1, true, vec![2, 3, 3])]
    {
        assert_eq!(run(&Op::ArgMax { axis, keepdims: false, last }, &[&x]).to_i64(), expected);
    }
}

#[test]
fn arg_max_passes_over_nan() {
    let x = Tensor::new([4], &[1f32, f32::NAN, 2., f32::NAN]);
    assert_eq!(run(&Op::ArgMax { axis: 0, keepdims: true, last: true }, &[&x]).to_i64(), [2]);
    let x = Tensor::new([2], &[f32::NAN, 2.]);
    assert_eq!(run(&Op::ArgMax { axis: 0, keepdims: true, last: false }, &[&x]).to_i64(), [0]);
}

#[test]
fn malformed_choices_are_refused() {
    let ty = |dtype, shape: &[usize]| TensorType::new(dtype, shape);
    let (x, i) = (ty(DType::F32, &[2, 3]), ty(DType::I64, &[4]));
    refused(&Op::Gather { axis: 2 }, &[&x, &i]);
    refused(&Op::Gather { axis: usize::MAX }, &[&x, &i]);
    refused(&Op::Gather { axis: 0 }, &[&x]);
    refused(&Op::Gather { axis: 0 }, &[&x, &ty(DType::F32, &[4])]);
    refused(&Op::Gather { axis: 0 }, &[&x, &ty(DType::I16, &[4])]);
    refused(&Op::Gather { axis: 0 }, &[&ty(DType::F32, &[0, 3]), &i]);
    refused(&Op::Gather { axis: 0 }, &[&x, &ty(DType::I64, &[1 << 31])]);
    let c = ty(DType::Bool, &[3]);
    refused(&Op::Where, &[&x, &x, &x]);
    refused(&Op::Where, &[&c, &x, &ty(DType::F16, &[2, 3])]);
    refused(&Op::Where, &[&c, &x, &ty(DType::F32, &[2])]);
    refused(&Op::Where, &[&ty(DType::Bool, &[2]), &x, &x]);
    let arg_max = |axis| Op::ArgMax { axis, keepdims: false, last: false };
    refused(&arg_max(2), &[&x]);
    refused(&arg_max(0), &[&ty(DType::F32, &[0, 3])]);
    refused(&arg_max(0), &[&ty(DType::F32, &[])]);
}
