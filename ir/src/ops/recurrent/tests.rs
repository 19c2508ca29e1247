use super::*;
use crate::types::F32;

/// Eighths between -1 and 1 that go round by steps of `k`.
fn wave(shape: &[usize], k: usize) -> Tensor {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i| ((i * k % 17) as f32 - 8.0) / 8.0).collect();
    Tensor::new(shape, &values)
}

fn layer(cell: Cell) -> Recurrent {
    Recurrent { cell, reverse: false, activations: cell.default_activations().to_vec(), clip: None }
}

/// Three steps of two sequences of two elements, and two units.
fn operands(cell: Cell) -> Vec<Tensor> {
    let (h, gates) = (2, cell.gates());
    let b = wave(&[2 * gates * h], 11).to_f32();
    let (of_x, of_h) = b.split_at(gates * h);
    let mut bias: Vec<f32> = of_x.iter().zip(of_h).map(|(a, b)| a + b).collect();
    if cell.biases() > gates {
        bias.truncate(2 * h);
        bias.extend(of_x[2 * h..].iter().chain(&of_h[2 * h..]));
    }
    let mut all = vec![wave(&[3, 2, 2], 5), wave(&[gates * h, 2], 3), wave(&[gates * h, h], 7)];
    all.push(Tensor::new([bias.len()], &bias));
    all.push(wave(&[2, h], 13));
    if let Cell::Lstm { peepholes, .. } = cell {
        all.push(wave(&[2, h], 4));
        all.extend(peepholes.then(|| wave(&[3 * h], 6)));
    }
    all
}

/// The states of the steps, and the extra row.
#[track_caller]
fn check(o: &Recurrent, states: &[f32], extra: Option<&[f32]>) {
    let operands = operands(o.cell);
    let inputs: Vec<&Tensor> = operands.iter().collect();
    let out = infer(o, &inputs.iter().map(|t| t.ty()).collect::<Vec<_>>()).unwrap();
    let got = eval(o, &inputs, &out).unwrap().to_f32();
    let first = Rows::new(o, 3).first() * 4;
    let near = |got: &[f32], expected: &[f32]| {
        assert_eq!(got.len(), expected.len());
        for (g, e) in got.iter().zip(expected) {
            assert!((g - e).abs() <= 1e-6, "{got:?}, not {expected:?}");
        }
    };
    near(&got[first..first + 12], states);
    assert_eq!(&got[Rows::new(o, 3).initial() * 4..][..4], operands[H0].to_f32());
    if let Some(extra) = extra {
        near(&got[16..], extra);
    }
}

// Expected values by ONNX Runtime 1.32, opset 14.
#[test]
#[rustfmt::skip]
fn agrees_with_onnx_runtime() {
    check(&layer(Cell::Rnn), &[
        0.653_423_55, 0.474_316_36, -0.978_026_1, 0.935_798_65, -0.898_178_3, 0.945_140_7, -0.531_385_4,
        -0.091_784_835, -0.522_185_1, 0.325_843_57, -0.908_635_14, 0.610_584_86,
    ], None);
    check(&layer(Cell::Gru { linear_before_reset: false }), &[
        -0.821_286_7, -0.315_525_23, 0.235_145_52, -0.350_614_43, -0.603_168_6, -0.584_987_5, -0.028_005_362,
        -0.564_308_7, -0.302_537_62, -0.639_635_3, -0.128_814_12, -0.664_718_1,
    ], None);
    check(&Recurrent { reverse: true, ..layer(Cell::Gru { linear_before_reset: true }) }, &[
        -0.207_836_42, -0.540_952_9, 0.142_958_84, -0.456_396_3, -0.317_779_87, -0.313_294_65, -0.071_421_24,
        -0.674_710_9, -0.555_603, 0.116_313_19, -0.023_799_203, -0.521_997_3,
    ], None);
    check(&layer(Cell::Lstm { input_forget: false, peepholes: false }), &[
        -0.081_011_996, -0.351_143_7, -0.015_511_787, 0.243_328_87, -0.201_882_88, 0.242_737_76, -0.012_240_876,
        0.192_261_86, -0.169_291_33, 0.292_288_4, -0.030_818_623, 0.143_648_2,
    ], Some(&[-0.469_079_2, 0.510_969_7, -0.081_066_57, 0.331_973]));
    let activations = vec![Unary::HardSigmoid(F32(0.2), F32(0.5)), Unary::Relu, Unary::Tanh];
    let cell = Cell::Lstm { input_forget: true, peepholes: true };
    check(&Recurrent { cell, reverse: true, activations, clip: Some(F32(0.75)) }, &[
        0.094_556, 0.212_929_53, 0.0, 0.191_125_6, -0.037_469_644, 0.182_789_04, 0.0, 0.172_035_37, -0.144_049_53,
        -0.140_930_33, 0.0, 0.203_008_67,
    ], Some(&[0.277_036_46, 0.340_119_33, 0.0, 0.612_768_65]));
}

#[test]
fn a_gru_that_resets_first_shows_what_it_reset() {
    let o = layer(Cell::Gru { linear_before_reset: false });
    let operands = operands(o.cell);
    let inputs: Vec<&Tensor> = operands.iter().collect();
    let out = infer(&o, &inputs.iter().map(|t| t.ty()).collect::<Vec<_>>()).unwrap();
    let got = eval(&o, &inputs, &out).unwrap().to_f32();
    let [x, w, r, b] = [0, 1, 2, 3].map(|i| operands[i].to_f32());
    // Unit 1 of sequence 1 in the last step: row 3 of the weights.
    let (x, h) = (&x[2 * 4 + 2..], &got[2 * 4 + 2..]);
    let sum = b[3] + x[0] * w[6] + x[1] * w[7] + h[0] * r[6] + h[1] * r[7];
    let expected = h[1] / (1.0 + (-sum).exp());
    assert!((got[19] - expected).abs() < 1e-6, "{} {expected}", got[19]);
}

#[test]
fn wrong_shapes_are_refused() {
    let f = |s: &[usize]| TensorType::new(DType::F32, s);
    let cell = Cell::Lstm { input_forget: false, peepholes: true };
    let good = [f(&[5, 2, 3]), f(&[16, 3]), f(&[16, 4]), f(&[16]), f(&[2, 4]), f(&[2, 4]), f(&[12])];
    let run = |o: &Recurrent, types: &[TensorType]| infer(o, &types.iter().collect::<Vec<_>>());
    assert_eq!(run(&layer(cell), &good), Ok(f(&[7, 2, 4])));
    let wrong: [&[usize]; 7] = [&[5, 2, 4], &[12, 3], &[12, 4], &[32], &[4], &[1, 4], &[16]];
    for (at, shape) in wrong.into_iter().enumerate() {
        let mut types = good.clone();
        types[at] = f(shape);
        assert!(run(&layer(cell), &types).is_err(), "{shape:?}");
        types[at] = TensorType::new(DType::I32, good[at].shape.clone());
        assert!(run(&layer(cell), &types).is_err(), "{shape:?}");
    }
    for (at, shape) in [(0, vec![5, 2]), (0, vec![0, 2, 3]), (2, vec![16]), (2, vec![0, 0])] {
        let mut types = good.clone();
        types[at] = f(&shape);
        assert!(run(&layer(cell), &types).is_err(), "{shape:?}");
    }
    let huge = 1usize << 62;
    for types in [[f(&[1, 1, 1]), f(&[huge, 1]), f(&[huge, huge])], [f(&[huge, huge, 1]), f(&[1, 1]), f(&[1, 1])]] {
        let types: Vec<TensorType> = types.into_iter().chain([f(&[1]), f(&[1, 1])]).collect();
        let types: Vec<&TensorType> = types.iter().collect();
        assert!(crate::ops::infer(&crate::op::Op::Recurrent(layer(Cell::Rnn)), &types).is_err());
    }
    let o = Recurrent { activations: vec![Unary::Tanh], ..layer(cell) };
    assert!(run(&o, &good).is_err());
    let o = Recurrent { activations: vec![Unary::Not; 3], ..layer(cell) };
    assert!(run(&o, &good).is_err());
    for clip in [-1.0, f32::NAN] {
        assert!(run(&Recurrent { clip: Some(F32(clip)), ..layer(cell) }, &good).is_err());
    }
}
