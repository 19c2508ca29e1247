//! Recurrent layers on three steps of two sequences of two elements, with two units. Values of ONNX Runtime 1.32, opset 14.

use super::*;

/// Eighths between -1 and 1 that go round by steps of `k`.
fn wave(shape: &[usize], k: usize) -> Tensor {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i| ((i * k % 17) as f32 - 8.0) / 8.0).collect();
    Tensor::new(shape, &values)
}

fn texts(name: &str, texts: &[&str]) -> Attribute {
    let strings = texts.iter().map(|s| bytes::Bytes::copy_from_slice(s.as_bytes())).collect();
    Attribute { name: name.into(), strings, r#type: at::STRINGS, ..Attribute::default() }
}

/// The operands after x, by their place in the node.
fn operands(op: &str, directions: usize) -> Vec<(usize, Tensor)> {
    let rows = match op {
        "RNN" => 2,
        "GRU" => 6,
        _ => 8,
    };
    let d = directions;
    let mut all = vec![
        (1, wave(&[d, rows, 2], 3)),
        (2, wave(&[d, rows, 2], 7)),
        (3, wave(&[d, 2 * rows], 11)),
        (5, wave(&[d, 2, 2], 13)),
    ];
    if op == "LSTM" {
        all.extend([(6, wave(&[d, 2, 2], 4)), (7, wave(&[d, 6], 6))]);
    }
    all
}

/// The model whose output is one of the node's.
fn layer(op: &str, operands: &[(usize, Tensor)], output: usize, attributes: Vec<Attribute>) -> Model {
    let mut inputs = vec!["x".to_string()];
    let mut inits = vec![];
    for (at, tensor) in operands {
        inputs.resize(*at, String::new());
        inputs.push(format!("c{at}"));
        inits.push(init(&format!("c{at}"), tensor));
    }
    let mut layer = node(op, &[], "", attributes);
    layer.input = inputs;
    layer.output = (0..=output).map(|i| if i == output { "y".into() } else { String::new() }).collect();
    model(&[3, 2, 2], inits, vec![layer]).opset(14)
}

#[track_caller]
fn check(op: &str, directions: usize, output: usize, attributes: Vec<Attribute>, shape: &[usize], want: &[f32]) {
    let got = run(&layer(op, &operands(op, directions), output, attributes), wave(&[3, 2, 2], 5));
    assert_eq!(got.shape(), shape);
    for (g, w) in got.to_f32().iter().zip(want) {
        assert!((g - w).abs() <= 1e-6, "{op}: {:?} instead of {want:?}", got.to_f32());
    }
}

#[test]
#[rustfmt::skip]
fn both_directions_and_all_outputs() {
    let both = || text("direction", "bidirectional");
    check("GRU", 2, 0, vec![both(), int("hidden_size", 2)], &[3, 2, 2, 2], &[
        -0.821_286_7, -0.315_525_23, 0.235_145_52, -0.350_614_43, -0.627_385, -0.384_452_94, -0.179_567_6,
        -0.158_938_96, -0.603_168_6, -0.584_987_5, -0.028_005_362, -0.564_308_7, -0.591_559_1, -0.361_126_78,
        -0.304_270_1, 0.721_162_56, -0.302_537_62, -0.639_635_3, -0.128_814_12, -0.664_718_1, -0.570_832_85,
        -0.230_660_35, -0.078_246_03, 0.350_257_87,
    ]);
    check("GRU", 2, 1, vec![both(), int("linear_before_reset", 1)], &[2, 2, 2], &[
        -0.258_979_7, -0.504_250_9, -0.061_218_44, -0.602_922_2, -0.481_691_45, -0.458_377_75, -0.053_295_24,
        -0.233_542_11,
    ]);
    check("LSTM", 2, 1, vec![both()], &[2, 2, 2], &[
        -0.142_227, 0.256_236_76, -0.029_660_042, 0.145_279_48, -0.224_904_5, 0.029_339_85, 0.211_436_56,
        0.020_857_226,
    ]);
    let functions = texts("activations", &["Sigmoid", "Tanh", "Tanh", "HardSigmoid", "LeakyRelu", "Softsign"]);
    let parameters = [floats("activation_alpha", &[0.3, 0.1]), floats("activation_beta", &[0.4])];
    let attributes = [both(), functions].into_iter().chain(parameters).collect();
    check("LSTM", 2, 2, attributes, &[2, 2, 2], &[
        -0.440_963_6, 0.575_057_4, -0.080_936_43, 0.422_685_44, 0.045_634_724, 0.028_766_193, 0.363_803_57,
        0.182_135_14,
    ]);
    let functions = texts("activations", &["Relu", "elu"]);
    check("RNN", 2, 0, vec![both(), functions, floats("activation_alpha", &[0.5])], &[3, 2, 2, 2], &[
        0.781_25, 0.515_625, 0.0, 1.703_125, 0.157_714_84, 1.077_148_4, 2.833_53, -0.359_682_26, 0.0, 1.859_375, 0.0,
        0.257_812_5, 0.667_968_75, 0.445_312_5, 1.542_550_2, -0.273_655_56, 0.0, 0.554_687_5, 0.0, 0.933_593_75,
        0.343_75, 0.312_5, 1.5, -0.352_200_27,
    ]);
}

/// ONNX Runtime has no `layout` of 1; so it is held against the other one.
#[test]
fn the_batch_may_come_first() {
    let swapped = |t: &Tensor| -> Tensor {
        let (values, shape) = (t.to_f32(), t.shape());
        let ([a, b], rest) = ([shape[0], shape[1]], shape[2..].iter().product::<usize>());
        let order = (0..b).flat_map(|j| (0..a).map(move |i| (i * b + j) * rest));
        let moved: Vec<f32> = order.flat_map(|at| values[at..at + rest].to_vec()).collect();
        Tensor::new([&[b, a], &shape[2..]].concat(), &moved)
    };
    for output in [1, 2] {
        let attributes = || vec![text("direction", "bidirectional")];
        let plain = layer("LSTM", &operands("LSTM", 2), output, attributes());
        let mut states = operands("LSTM", 2);
        states.iter_mut().filter(|(at, _)| *at == 5 || *at == 6).for_each(|(_, t)| *t = swapped(t));
        let mut first = layer("LSTM", &states, output, [attributes(), vec![int("layout", 1)]].concat());
        first.graph.as_mut().unwrap().input[0] = value("x", dt::FLOAT, &[2, 3, 2]);
        let x = wave(&[3, 2, 2], 5);
        assert_eq!(run(&first, swapped(&x)), swapped(&run(&plain, x)));
    }
    let mut first = layer("GRU", &operands("GRU", 1)[..2], 0, vec![int("layout", 1)]);
    first.graph.as_mut().unwrap().input[0] = value("x", dt::FLOAT, &[2, 3, 2]);
    let x = wave(&[3, 2, 2], 5);
    let got = run(&first, swapped(&x));
    assert_eq!(got.shape(), [2, 3, 1, 2]);
    let plain = run(&layer("GRU", &operands("GRU", 1)[..2], 0, vec![]), x);
    assert_eq!(got.to_f32(), swapped(&plain.reshaped([3, 2, 2])).to_f32());
}

#[test]
fn lengths_of_whole_sequences_are_taken() {
    let lengths = |values: &[i32]| {
        let mut all = operands("LSTM", 1);
        all.insert(3, (4, Tensor::new([values.len()], values)));
        layer("LSTM", &all, 0, vec![])
    };
    let x = wave(&[3, 2, 2], 5);
    let plain = run(&layer("LSTM", &operands("LSTM", 1), 0, vec![]), x.clone());
    assert_eq!(run(&lengths(&[3, 3]), x), plain);
    let (code, message) = refused(&lengths(&[3, 2]));
    assert!(code == crate::code::FORM && message.contains("leave `sequence_lens` out"), "{message}");
    assert_eq!(refused(&lengths(&[3])).0, crate::code::NODE);
    let mut m = lengths(&[3, 3]);
    let graph = m.graph.as_mut().unwrap();
    graph.initializer.retain(|t| t.name != "c4");
    graph.input.push(value("c4", dt::INT32, &[2]));
    let (code, message) = refused(&m);
    assert!(code == crate::code::NOT_CONSTANT && message.contains("node \"y\" #0, LSTM"), "{message}");
}

#[test]
fn malformed_layers_are_refused() {
    use crate::code::{FORM, LIMIT, NODE, OPERATOR_TYPE};
    for (attribute, code) in [
        (text("direction", "backward"), NODE),
        (text("direction", "bidirectional"), NODE),
        (int("hidden_size", 3), NODE),
        (int("hidden_size", -1), NODE),
        (int("layout", 2), NODE),
        (float("clip", -1.0), NODE),
        (texts("activations", &["Sigmoid", "Tanh"]), NODE),
        (texts("activations", &["Sigmoid", "Tanh", "ScaledTanh"]), FORM),
    ] {
        assert_eq!(refused(&layer("LSTM", &operands("LSTM", 1), 0, vec![attribute.clone()])).0, code, "{attribute:?}");
    }
    for (at, shape) in [
        (1, vec![1, 8, 3]),
        (1, vec![8, 2]),
        (2, vec![1, 6, 2]),
        (2, vec![2]),
        (2, vec![]),
        (2, vec![1, 0, 0]),
        (3, vec![1, 8]),
        (5, vec![1, 1, 2]),
        (6, vec![2, 2]),
        (7, vec![1, 8]),
    ] {
        let mut all = operands("LSTM", 1);
        all.iter_mut().filter(|(i, _)| *i == at).for_each(|(_, t)| *t = wave(&shape, 1));
        assert_eq!(refused(&layer("LSTM", &all, 0, vec![])).0, NODE, "{at}: {shape:?}");
    }
    let mut all = operands("GRU", 1);
    all[3].1 = Tensor::new([1, 2, 2], &[0i32; 4]);
    assert_eq!(refused(&layer("GRU", &all, 0, vec![])).0, OPERATOR_TYPE);
    // States of absurd size are refused before they are made.
    for dims in [[1, 1 << 30, 2], [1 << 30, 1, 2], [1 << 20, 1 << 20, 2]] {
        let mut m = layer("GRU", &operands("GRU", 1)[..3], 0, vec![]);
        m.graph.as_mut().unwrap().input[0] = value("x", dt::FLOAT, &dims);
        assert!([LIMIT, NODE].contains(&refused(&m).0), "{dims:?}");
    }
}
