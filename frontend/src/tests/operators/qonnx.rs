//! Fake quantisation of QONNX, against its definition written out here.

use super::*;
use proptest::prelude::*;

/// One node on x, of a domain of QONNX.
fn quantised(
    x: &[f32],
    op_type: &str,
    inits: &[(&str, Tensor)],
    attributes: Vec<Attribute>,
) -> Result<Graph, crate::Error> {
    let names: Vec<&str> = std::iter::once("x").chain(inits.iter().map(|(name, _)| *name)).collect();
    let inits: Vec<_> = inits.iter().map(|(name, t)| init(name, t)).collect();
    let call = Node { domain: "qonnx.custom_op.general".into(), ..node(op_type, &names, "y", attributes) };
    import(&model(&[x.len() as i64], inits, vec![call]))
}

fn values(graph: &Graph, x: &[f32]) -> Vec<f32> {
    eval::run(graph, &[Tensor::new([x.len()], x)]).unwrap()[0].to_f32()
}

fn parameters(scale: &[f32], zero: f32, bits: f32) -> [(&'static str, Tensor); 3] {
    let shape = if scale.len() == 1 { vec![] } else { vec![scale.len()] };
    [("scale", Tensor::new(shape, scale)), ("zero", Tensor::scalar(zero)), ("bits", Tensor::scalar(bits))]
}

type Rounding = fn(f32) -> f32;

const MODES: [(&str, Rounding); 4] =
    [("ROUND", f32::round_ties_even), ("CEIL", f32::ceil), ("FLOOR", f32::floor), ("ROUND_TO_ZERO", f32::trunc)];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn quant_is_its_definition(
        bits in 1u32..=10,
        signed in any::<bool>(),
        narrow in any::<bool>(),
        exponent in -4i32..4,
        zero in -3i32..=3,
        per_element in any::<bool>(),
        mode in 0usize..4,
        steps in prop::collection::vec(-2100i32..2100, 6),
    ) {
        // Quarters of a step: ties occur, and nothing is rounded in between.
        let scale = 2f32.powi(exponent);
        let x: Vec<f32> = steps.iter().map(|s| *s as f32 / 4.0 * scale).collect();
        let scales = if per_element { vec![scale; x.len()] } else { vec![scale] };
        let flags = vec![int("signed", signed as i64), int("narrow", narrow as i64), text("rounding_mode", MODES[mode].0)];
        let graph = quantised(&x, "Quant", &parameters(&scales, zero as f32, bits as f32), flags).unwrap();
        let half = 1i64 << (bits - 1);
        let (lo, hi) = match (signed, narrow) {
            (true, true) => (-half + 1, half - 1),
            (true, false) => (-half, half - 1),
            (false, true) => (0, 2 * half - 2),
            (false, false) => (0, 2 * half - 1),
        };
        let wanted: Vec<f32> = x
            .iter()
            .map(|x| {
                let q = (x / scale + zero as f32).clamp(lo as f32, hi as f32);
                (MODES[mode].1(q) - zero as f32) * scale
            })
            .collect();
        prop_assert_eq!(values(&graph, &x), wanted);
    }
}

/// Up to 8 bits without zero point there are integers for later passes.
#[test]
fn few_bits_are_integers() {
    let x = [-9.0, -0.75, -0.25, 0.0, 0.25, 0.3, 0.75, 9.0];
    let ops = |scale: &[f32], zero: f32, bits: f32| {
        let graph = quantised(&x, "Quant", &parameters(scale, zero, bits), vec![]).unwrap();
        graph.values().filter_map(|(id, _)| graph.node(id)).map(|(op, _)| op.name()).collect::<Vec<_>>()
    };
    assert_eq!(ops(&[0.5], 0.0, 8.0), ["quantize", "dequantize"]);
    assert_eq!(ops(&[0.5], 0.0, 2.0), ["clip", "quantize", "dequantize"]);
    assert_eq!(ops(&[0.5], 0.0, 9.0), ["div", "clip", "round", "mul"]);
    assert_eq!(ops(&[0.5], 1.0, 8.0), ["div", "add", "clip", "round", "sub", "mul"]);
    let graph = quantised(&x, "Quant", &parameters(&[0.5], 0.0, 2.0), vec![]).unwrap();
    assert_eq!(values(&graph, &x), [-1.0, -1.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.5]);
}

#[test]
fn two_values() {
    let x = [-3.0, -0.0, 0.0, 1e-30, 2.0];
    let graph = quantised(&x, "BipolarQuant", &[("scale", Tensor::scalar(0.5))], vec![]).unwrap();
    assert_eq!(values(&graph, &x), [-0.5, 0.5, 0.5, 0.5, 0.5]);
}

#[test]
fn what_is_not_supported_says_so() {
    let refused = |parameters: &[(&str, Tensor)], attributes: Vec<Attribute>| {
        let e = quantised(&[1.0, 2.0], "Quant", parameters, attributes).unwrap_err();
        (e.code(), e.to_string())
    };
    for (parameters, attributes, code, part) in [
        (parameters(&[0.5], 0.0, 2.5), vec![], "E0302", "2.5 bits"),
        (parameters(&[0.5], 0.0, 0.0), vec![], "E0302", "0 bits"),
        (parameters(&[0.5], 0.0, f32::NAN), vec![], "E0302", "NaN bits"),
        (parameters(&[-0.5], 0.0, 4.0), vec![], "E0112", "not positive"),
        (parameters(&[0.5], 1.0, 4.0), vec![text("rounding_mode", "HALF_UP")], "E0302", "HALF_UP"),
    ] {
        let (found, text) = refused(&parameters, attributes);
        assert_eq!(found, code, "{text}");
        assert!(text.contains(part), "{text}");
    }
    let mut few = parameters(&[0.5], 0.0, 4.0);
    few[1].1 = Tensor::new([0], &[] as &[f32]);
    assert!(quantised(&[1.0, 2.0], "Quant", &few, vec![]).is_ok());
}
