//! Element-wise operators and reductions.

use super::*;

#[test]
fn elementwise_and_reductions() {
    case(
        "Clip",
        7,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![float("min", -1.0)],
        vec![],
        Tensor::new::<f32>([2, 3], &[-1.0, -1.0, -0.5, 0.5, 1.5, 2.5]),
    );
    case(
        "Clip",
        13,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![],
        vec![None, Some(Tensor::new::<f32>([], &[0.5]))],
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 0.5, 0.5]),
    );
    case(
        "Clip",
        13,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![],
        vec![Some(Tensor::new::<f32>([], &[2.0])), Some(Tensor::new::<f32>([], &[1.0]))],
        Tensor::new::<f32>([2, 3], &[1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
    );
    case(
        "Clip",
        12,
        Tensor::new::<u8>([6], &[0, 1, 2, 3, 4, 5]),
        vec![],
        vec![Some(Tensor::new::<u8>([], &[2])), Some(Tensor::new::<u8>([], &[4]))],
        Tensor::new::<u8>([6], &[2, 2, 2, 3, 4, 4]),
    );
    case(
        "LeakyRelu",
        7,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![],
        vec![],
        Tensor::new::<f32>([2, 3], &[-0.024999999, -0.015, -0.005, 0.5, 1.5, 2.5]),
    );
    case(
        "LeakyRelu",
        7,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![float("alpha", 0.5)],
        vec![],
        Tensor::new::<f32>([2, 3], &[-1.25, -0.75, -0.25, 0.5, 1.5, 2.5]),
    );
    case(
        "Elu",
        7,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![],
        vec![],
        Tensor::new::<f32>([2, 3], &[-0.917915, -0.77686983, -0.39346933, 0.5, 1.5, 2.5]),
    );
    case(
        "Selu",
        7,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![],
        vec![],
        Tensor::new::<f32>([2, 3], &[-1.6137857, -1.3658143, -0.69175816, 0.5253505, 1.5760515, 2.6267526]),
    );
    case(
        "HardSigmoid",
        7,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![],
        vec![],
        Tensor::new::<f32>([2, 3], &[0.0, 0.19999999, 0.4, 0.6, 0.8, 1.0]),
    );
    case(
        "ThresholdedRelu",
        10,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![],
        vec![],
        Tensor::new::<f32>([2, 3], &[0.0, 0.0, 0.0, 0.0, 1.5, 2.5]),
    );
    case(
        "Softsign",
        7,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![],
        vec![],
        Tensor::new::<f32>([2, 3], &[-0.71428573, -0.6, -0.33333334, 0.33333334, 0.6, 0.71428573]),
    );
    case(
        "Softplus",
        7,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![],
        vec![],
        Tensor::new::<f32>([2, 3], &[0.07888974, 0.20141326, 0.474077, 0.974077, 1.7014133, 2.5788898]),
    );
    case(
        "Sigmoid",
        7,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![],
        vec![],
        Tensor::new::<f32>([2, 3], &[0.075858176, 0.18242556, 0.3775407, 0.6224593, 0.81757444, 0.9241418]),
    );
    case(
        "Tanh",
        7,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![],
        vec![],
        Tensor::new::<f32>([2, 3], &[-0.98661435, -0.9051482, -0.46211717, 0.46211717, 0.9051482, 0.98661435]),
    );
    case(
        "Abs",
        7,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![],
        vec![],
        Tensor::new::<f32>([2, 3], &[2.5, 1.5, 0.5, 0.5, 1.5, 2.5]),
    );
    case(
        "Neg",
        7,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![],
        vec![],
        Tensor::new::<f32>([2, 3], &[2.5, 1.5, 0.5, -0.5, -1.5, -2.5]),
    );
    case(
        "Floor",
        7,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![],
        vec![],
        Tensor::new::<f32>([2, 3], &[-3.0, -2.0, -1.0, 0.0, 1.0, 2.0]),
    );
    case(
        "Ceil",
        7,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![],
        vec![],
        Tensor::new::<f32>([2, 3], &[-2.0, -1.0, -0.0, 1.0, 2.0, 3.0]),
    );
    case(
        "Exp",
        7,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![],
        vec![],
        Tensor::new::<f32>([2, 3], &[0.082085, 0.22313017, 0.60653067, 1.6487212, 4.481689, 12.182494]),
    );
    case(
        "HardSwish",
        14,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![],
        vec![],
        Tensor::new::<f32>([2, 3], &[-0.20833328, -0.375, -0.20833333, 0.29166666, 1.125, 2.2916667]),
    );
    case(
        "Mish",
        18,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![],
        vec![],
        Tensor::new::<f32>([2, 3], &[-0.19681619, -0.2980997, -0.22074378, 0.37524524, 1.4033782, 2.4713924]),
    );
    case(
        "Celu",
        12,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![float("alpha", 2.0)],
        vec![],
        Tensor::new::<f32>([2, 3], &[-1.4269904, -1.0552669, -0.44239843, 0.5, 1.5, 2.5]),
    );
    case(
        "Gelu",
        20,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![],
        vec![],
        Tensor::new::<f32>([2, 3], &[-0.015524104, -0.100210816, -0.15426877, 0.34573123, 1.3997892, 2.484476]),
    );
    case(
        "Gelu",
        20,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![text("approximate", "tanh")],
        vec![],
        Tensor::new::<f32>([2, 3], &[-0.015084296, -0.10042843, -0.154286, 0.345714, 1.3995715, 2.4849157]),
    );
    case(
        "Round",
        11,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![],
        vec![],
        Tensor::new::<f32>([2, 3], &[-2.0, -2.0, -0.0, 0.0, 2.0, 2.0]),
    );
    case(
        "Sign",
        9,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![],
        vec![],
        Tensor::new::<f32>([2, 3], &[-1.0, -1.0, -1.0, 1.0, 1.0, 1.0]),
    );
    case(
        "Erf",
        9,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![],
        vec![],
        Tensor::new::<f32>([2, 3], &[-0.9995931, -0.96610516, -0.5204999, 0.5204999, 0.96610516, 0.9995931]),
    );
    case(
        "Reciprocal",
        7,
        Tensor::new::<f32>([3], &[1.0, 2.0, 3.0]),
        vec![],
        vec![],
        Tensor::new::<f32>([3], &[1.0, 0.5, 0.33333334]),
    );
    case(
        "Sqrt",
        7,
        Tensor::new::<f32>([3], &[0.0, 1.0, 2.0]),
        vec![],
        vec![],
        Tensor::new::<f32>([3], &[0.0, 1.0, std::f32::consts::SQRT_2]),
    );
    case(
        "Log",
        7,
        Tensor::new::<f32>([3], &[1.0, 2.0, 3.0]),
        vec![],
        vec![],
        Tensor::new::<f32>([3], &[0.0, std::f32::consts::LN_2, 1.0986123]),
    );
    case(
        "Pow",
        13,
        Tensor::new::<f32>([3], &[0.0, 1.0, 2.0]),
        vec![],
        vec![Some(Tensor::new::<i64>([1], &[2]))],
        Tensor::new::<f32>([3], &[0.0, 1.0, 4.0]),
    );
    case(
        "PRelu",
        9,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![],
        vec![Some(Tensor::new::<f32>([3], &[0.0, 1.0, 2.0]))],
        Tensor::new::<f32>([2, 3], &[-0.0, -1.5, -1.0, 0.5, 1.5, 2.5]),
    );
    case(
        "Sub",
        7,
        Tensor::new::<f32>([2, 2], &[0.0, 1.0, 2.0, 3.0]),
        vec![],
        vec![Some(Tensor::new::<f32>([2], &[0.0, 1.0]))],
        Tensor::new::<f32>([2, 2], &[0.0, 0.0, 2.0, 2.0]),
    );
    case(
        "Div",
        7,
        Tensor::new::<f32>([2, 2], &[0.0, 1.0, 2.0, 3.0]),
        vec![],
        vec![Some(Tensor::new::<f32>([2], &[1.0, 2.0]))],
        Tensor::new::<f32>([2, 2], &[0.0, 0.5, 2.0, 1.5]),
    );
    case(
        "Sum",
        8,
        Tensor::new::<f32>([2, 2], &[0.0, 1.0, 2.0, 3.0]),
        vec![],
        vec![Some(Tensor::new::<f32>([2], &[0.0, 1.0])), Some(Tensor::new::<f32>([2, 1], &[0.0, 1.0]))],
        Tensor::new::<f32>([2, 2], &[0.0, 2.0, 3.0, 5.0]),
    );
    case(
        "Mean",
        8,
        Tensor::new::<f32>([2, 2], &[0.0, 1.0, 2.0, 3.0]),
        vec![],
        vec![Some(Tensor::new::<f32>([2], &[0.0, 1.0])), Some(Tensor::new::<f32>([2, 1], &[0.0, 1.0]))],
        Tensor::new::<f32>([2, 2], &[0.0, 0.6666667, 1.0, 1.6666667]),
    );
    case(
        "Max",
        8,
        Tensor::new::<f32>([2, 2], &[0.0, 1.0, 2.0, 3.0]),
        vec![],
        vec![Some(Tensor::new::<f32>([2], &[1.0, 0.0]))],
        Tensor::new::<f32>([2, 2], &[1.0, 1.0, 2.0, 3.0]),
    );
    case(
        "Min",
        8,
        Tensor::new::<f32>([2, 2], &[0.0, 1.0, 2.0, 3.0]),
        vec![],
        vec![Some(Tensor::new::<f32>([2], &[1.0, 2.0]))],
        Tensor::new::<f32>([2, 2], &[0.0, 1.0, 1.0, 2.0]),
    );
    case(
        "Equal",
        11,
        Tensor::new::<f32>([3], &[0.0, 1.0, 2.0]),
        vec![],
        vec![Some(Tensor::new::<f32>([], &[1.0]))],
        Tensor::new([3], &[false, true, false]),
    );
    case(
        "GreaterOrEqual",
        12,
        Tensor::new::<f32>([3], &[0.0, 1.0, 2.0]),
        vec![],
        vec![Some(Tensor::new::<f32>([], &[1.0]))],
        Tensor::new([3], &[false, true, true]),
    );
    case(
        "Less",
        9,
        Tensor::new::<f32>([3], &[0.0, 1.0, 2.0]),
        vec![],
        vec![Some(Tensor::new::<f32>([], &[1.0]))],
        Tensor::new([3], &[true, false, false]),
    );
    case("Not", 7, Tensor::new([2], &[true, false]), vec![], vec![], Tensor::new([2], &[false, true]));
    case(
        "And",
        7,
        Tensor::new([2], &[true, false]),
        vec![],
        vec![Some(Tensor::new([2], &[true, true]))],
        Tensor::new([2], &[true, false]),
    );
    case(
        "Xor",
        7,
        Tensor::new([2], &[true, false]),
        vec![],
        vec![Some(Tensor::new([2], &[true, true]))],
        Tensor::new([2], &[false, true]),
    );
    case(
        "Where",
        9,
        Tensor::new([2], &[true, false]),
        vec![],
        vec![Some(Tensor::new::<f32>([2], &[5.0, 6.0])), Some(Tensor::new::<f32>([2], &[0.0, 1.0]))],
        Tensor::new::<f32>([2], &[5.0, 1.0]),
    );
    case(
        "Cast",
        9,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![int("to", 6)],
        vec![],
        Tensor::new::<i32>([2, 3], &[-2, -1, 0, 0, 1, 2]),
    );
    case(
        "Cast",
        9,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![int("to", 9)],
        vec![],
        Tensor::new([2, 3], &[true, true, true, true, true, true]),
    );
    case(
        "Cast",
        13,
        Tensor::new::<i64>([2], &[-1, 300]),
        vec![int("to", 2)],
        vec![],
        Tensor::new::<u8>([2], &[255, 44]),
    );
    case(
        "ReduceMean",
        11,
        Tensor::new::<f32>([2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        vec![ints("axes", &[-1]), int("keepdims", 0)],
        vec![],
        Tensor::new::<f32>([2], &[1.0, 4.0]),
    );
    case(
        "ReduceSum",
        13,
        Tensor::new::<f32>([2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        vec![],
        vec![Some(Tensor::new::<i64>([1], &[0]))],
        Tensor::new::<f32>([1, 3], &[3.0, 5.0, 7.0]),
    );
    case(
        "ReduceSum",
        13,
        Tensor::new::<f32>([2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        vec![int("noop_with_empty_axes", 1)],
        vec![],
        Tensor::new::<f32>([2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
    );
    case(
        "ReduceMax",
        11,
        Tensor::new::<f32>([2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        vec![],
        vec![],
        Tensor::new::<f32>([1, 1], &[5.0]),
    );
    case(
        "ReduceMin",
        18,
        Tensor::new::<f32>([2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        vec![int("keepdims", 0)],
        vec![Some(Tensor::new::<i64>([1], &[1]))],
        Tensor::new::<f32>([2], &[0.0, 3.0]),
    );
    case(
        "ReduceProd",
        13,
        Tensor::new::<f32>([2, 2], &[1.0, 2.0, 3.0, 4.0]),
        vec![ints("axes", &[0])],
        vec![],
        Tensor::new::<f32>([1, 2], &[3.0, 8.0]),
    );
    case(
        "ReduceL1",
        11,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![ints("axes", &[1])],
        vec![],
        Tensor::new::<f32>([2, 1], &[4.5, 4.5]),
    );
    case(
        "ReduceL2",
        11,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![ints("axes", &[1])],
        vec![],
        Tensor::new::<f32>([2, 1], &[2.95804, 2.95804]),
    );
    case(
        "ReduceSumSquare",
        11,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![ints("axes", &[1])],
        vec![],
        Tensor::new::<f32>([2, 1], &[8.75, 8.75]),
    );
    case(
        "ReduceLogSum",
        11,
        Tensor::new::<f32>([2, 2], &[1.0, 2.0, 3.0, 4.0]),
        vec![ints("axes", &[1])],
        vec![],
        Tensor::new::<f32>([2, 1], &[1.0986123, 1.9459101]),
    );
    case(
        "ArgMax",
        12,
        Tensor::new::<f32>([1, 3], &[1.0, 3.0, 3.0]),
        vec![int("axis", 1), int("select_last_index", 1)],
        vec![],
        Tensor::new::<i64>([1, 1], &[2]),
    );
    case(
        "ArgMax",
        11,
        Tensor::new::<f32>([1, 3], &[1.0, 3.0, 3.0]),
        vec![int("axis", -1), int("keepdims", 0)],
        vec![],
        Tensor::new::<i64>([1], &[1]),
    );
    case(
        "ArgMin",
        11,
        Tensor::new::<f32>([1, 3], &[4.0, 3.0, 3.0]),
        vec![int("axis", 1)],
        vec![],
        Tensor::new::<i64>([1, 1], &[1]),
    );
    case(
        "CastLike",
        15,
        Tensor::new::<f32>([2, 3], &[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]),
        vec![],
        vec![Some(Tensor::new::<i64>([1], &[1]))],
        Tensor::new::<i64>([2, 3], &[-2, -1, 0, 0, 1, 2]),
    );
}

#[test]
fn operators_newer_than_the_judge() {
    // x / sqrt(mean(x * x)) * scale, without epsilon: sqrt(12.5) = 3.5355339.
    case(
        "RMSNormalization",
        23,
        Tensor::new([1, 2], &[3f32, 4.0]),
        vec![float("epsilon", 0.0)],
        vec![Some(Tensor::new([2], &[1f32, 2.0]))],
        Tensor::new([1, 2], &[0.848_528_1_f32, 2.262_741_7]),
    );
    // x * sigmoid(2 x).
    case(
        "Swish",
        24,
        Tensor::new([2], &[0f32, 1.0]),
        vec![float("alpha", 2.0)],
        vec![],
        Tensor::new([2], &[0f32, 0.880_797_1]),
    );
}
