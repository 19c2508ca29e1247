//! Convolution, pooling, matrix products, normalisation, resampling, quantisation.

use super::*;

#[test]
fn windows_products_and_normalisations() {
    case(
        "Conv",
        11,
        Tensor::new::<f32>([1, 1, 3, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]),
        vec![text("auto_pad", "SAME_UPPER"), ints("strides", &[2, 2])],
        vec![Some(Tensor::new::<f32>([1, 1, 2, 2], &[1.0, 1.0, 1.0, 1.0])), Some(Tensor::new::<f32>([1], &[0.5]))],
        Tensor::new::<f32>([1, 1, 2, 2], &[8.5, 7.5, 13.5, 8.5]),
    );
    case(
        "Conv",
        11,
        Tensor::new::<f32>(
            [1, 1, 4, 4],
            &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0],
        ),
        vec![text("auto_pad", "SAME_LOWER"), ints("strides", &[1, 2])],
        vec![Some(Tensor::new::<f32>([1, 1, 2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]))],
        Tensor::new::<f32>([1, 1, 4, 2], &[5.0, 26.0, 43.0, 82.0, 91.0, 142.0, 139.0, 202.0]),
    );
    case(
        "Conv",
        7,
        Tensor::new::<f32>([1, 2, 4], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]),
        vec![ints("pads", &[1, 0]), int("group", 2), ints("dilations", &[2])],
        vec![Some(Tensor::new::<f32>([2, 1, 2], &[0.0, 1.0, 2.0, 3.0]))],
        Tensor::new::<f32>([1, 2, 3], &[1.0, 2.0, 3.0, 15.0, 26.0, 31.0]),
    );
    case(
        "Conv",
        7,
        Tensor::new::<f32>([1, 1, 3, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]),
        vec![text("auto_pad", "VALID")],
        vec![Some(Tensor::new::<f32>([1, 1, 2, 2], &[0.0, 1.0, 2.0, 3.0]))],
        Tensor::new::<f32>([1, 1, 2, 2], &[19.0, 25.0, 37.0, 43.0]),
    );
    case(
        "ConvTranspose",
        11,
        Tensor::new::<f32>([1, 1, 2, 2], &[0.0, 1.0, 2.0, 3.0]),
        vec![ints("strides", &[2, 2]), ints("pads", &[0, 1, 0, 0]), ints("output_padding", &[1, 0])],
        vec![Some(Tensor::new::<f32>([1, 1, 2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))],
        Tensor::new::<f32>(
            [1, 1, 5, 4],
            &[0.0, 1.0, 2.0, 3.0, 0.0, 4.0, 5.0, 6.0, 4.0, 9.0, 6.0, 9.0, 10.0, 24.0, 15.0, 18.0, 0.0, 0.0, 0.0, 0.0],
        ),
    );
    case(
        "ConvTranspose",
        11,
        Tensor::new::<f32>([1, 1, 2, 2], &[0.0, 1.0, 2.0, 3.0]),
        vec![ints("strides", &[2, 2]), ints("output_shape", &[4, 4])],
        vec![Some(Tensor::new::<f32>([1, 1, 3, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]))],
        Tensor::new::<f32>(
            [1, 1, 4, 4],
            &[0.0, 4.0, 5.0, 6.0, 4.0, 16.0, 14.0, 18.0, 10.0, 24.0, 15.0, 18.0, 16.0, 39.0, 24.0, 27.0],
        ),
    );
    case(
        "ConvTranspose",
        11,
        Tensor::new::<f32>([1, 1, 3], &[0.0, 1.0, 2.0]),
        vec![ints("strides", &[2]), text("auto_pad", "SAME_UPPER")],
        vec![Some(Tensor::new::<f32>([1, 1, 3], &[1.0, 2.0, 3.0]))],
        Tensor::new::<f32>([1, 1, 6], &[0.0, 0.0, 1.0, 2.0, 5.0, 4.0]),
    );
    case(
        "MaxPool",
        12,
        Tensor::new::<f32>(
            [1, 1, 5, 4],
            &[
                0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0, 17.0, 18.0,
                19.0,
            ],
        ),
        vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 3]), int("ceil_mode", 1)],
        vec![],
        Tensor::new::<f32>([1, 1, 3, 2], &[5.0, 7.0, 13.0, 15.0, 17.0, 19.0]),
    );
    case(
        "MaxPool",
        10,
        Tensor::new::<f32>([1, 1, 5], &[0.0, 1.0, 2.0, 3.0, 4.0]),
        vec![ints("kernel_shape", &[2]), ints("dilations", &[2]), ints("pads", &[1, 1])],
        vec![],
        Tensor::new::<f32>([1, 1, 5], &[1.0, 2.0, 3.0, 4.0, 3.0]),
    );
    case(
        "MaxPool",
        7,
        Tensor::new::<f32>([1, 1, 3, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]),
        vec![ints("kernel_shape", &[2, 2]), text("auto_pad", "SAME_LOWER")],
        vec![],
        Tensor::new::<f32>([1, 1, 3, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]),
    );
    case(
        "AveragePool",
        19,
        Tensor::new::<f32>(
            [1, 1, 4, 4],
            &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0],
        ),
        vec![
            ints("kernel_shape", &[3, 3]),
            ints("strides", &[2, 2]),
            ints("pads", &[1, 1, 0, 0]),
            int("ceil_mode", 1),
            int("count_include_pad", 1),
        ],
        vec![],
        Tensor::new::<f32>([1, 1, 2, 2], &[1.5555556, 3.3333333, 6.3333335, 11.0]),
    );
    case(
        "AveragePool",
        19,
        Tensor::new::<f32>(
            [1, 1, 4, 4],
            &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0],
        ),
        vec![ints("kernel_shape", &[3, 3]), ints("strides", &[2, 2]), ints("pads", &[1, 1, 0, 0]), int("ceil_mode", 1)],
        vec![],
        Tensor::new::<f32>([1, 1, 2, 2], &[3.5, 5.0, 9.5, 11.0]),
    );
    case(
        "AveragePool",
        7,
        Tensor::new::<f32>([1, 1, 3, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]),
        vec![ints("kernel_shape", &[2, 2]), text("auto_pad", "SAME_UPPER"), int("count_include_pad", 1)],
        vec![],
        Tensor::new::<f32>([1, 1, 3, 3], &[3.0, 4.0, 2.25, 6.0, 7.0, 3.75, 3.75, 4.25, 2.25]),
    );
    case(
        "GlobalAveragePool",
        7,
        Tensor::new::<f32>([1, 2, 2, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]),
        vec![],
        vec![],
        Tensor::new::<f32>([1, 2, 1, 1], &[1.5, 5.5]),
    );
    case(
        "GlobalMaxPool",
        7,
        Tensor::new::<f32>([1, 2, 2, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]),
        vec![],
        vec![],
        Tensor::new::<f32>([1, 2, 1, 1], &[3.0, 7.0]),
    );
    case(
        "Gemm",
        9,
        Tensor::new::<f32>([2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        vec![int("transB", 1)],
        vec![
            Some(Tensor::new::<f32>([2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])),
            Some(Tensor::new::<f32>([2], &[0.0, 1.0])),
        ],
        Tensor::new::<f32>([2, 2], &[5.0, 15.0, 14.0, 51.0]),
    );
    case(
        "Gemm",
        9,
        Tensor::new::<f32>([3, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        vec![int("transA", 1), float("alpha", 0.5), float("beta", 2.0)],
        vec![
            Some(Tensor::new::<f32>([3, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])),
            Some(Tensor::new::<f32>([2, 1], &[0.0, 1.0])),
        ],
        Tensor::new::<f32>([2, 2], &[10.0, 13.0, 15.0, 19.5]),
    );
    case(
        "Gemm",
        11,
        Tensor::new::<f32>([2, 2], &[0.0, 1.0, 2.0, 3.0]),
        vec![],
        vec![Some(Tensor::new::<f32>([2, 2], &[0.0, 1.0, 2.0, 3.0]))],
        Tensor::new::<f32>([2, 2], &[2.0, 3.0, 6.0, 11.0]),
    );
    case(
        "Gemm",
        7,
        Tensor::new::<f32>([2, 2], &[0.0, 1.0, 2.0, 3.0]),
        vec![float("beta", 0.0)],
        vec![Some(Tensor::new::<f32>([2, 2], &[0.0, 1.0, 2.0, 3.0])), Some(Tensor::new::<f32>([2], &[0.0, 1.0]))],
        Tensor::new::<f32>([2, 2], &[2.0, 3.0, 6.0, 11.0]),
    );
    case(
        "MatMul",
        9,
        Tensor::new::<f32>([3], &[0.0, 1.0, 2.0]),
        vec![],
        vec![Some(Tensor::new::<f32>([3, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]))],
        Tensor::new::<f32>([2], &[10.0, 13.0]),
    );
    case(
        "MatMul",
        9,
        Tensor::new::<f32>([2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        vec![],
        vec![Some(Tensor::new::<f32>([3], &[0.0, 1.0, 2.0]))],
        Tensor::new::<f32>([2], &[5.0, 14.0]),
    );
    case(
        "MatMul",
        13,
        Tensor::new::<f32>([3], &[0.0, 1.0, 2.0]),
        vec![],
        vec![Some(Tensor::new::<f32>([3], &[0.0, 1.0, 2.0]))],
        Tensor::new::<f32>([], &[5.0]),
    );
    case(
        "MatMul",
        13,
        Tensor::new::<f32>([2, 1, 2], &[0.0, 1.0, 2.0, 3.0]),
        vec![],
        vec![Some(Tensor::new::<f32>([2, 2], &[0.0, 1.0, 2.0, 3.0]))],
        Tensor::new::<f32>([2, 1, 2], &[2.0, 3.0, 6.0, 11.0]),
    );
    case(
        "Softmax",
        11,
        Tensor::new::<f32>([1, 2, 2], &[0.0, std::f32::consts::LN_2, 1.0986123, 1.3862944]),
        vec![],
        vec![],
        Tensor::new::<f32>([1, 2, 2], &[0.1, 0.2, 0.3, 0.4]),
    );
    case(
        "Softmax",
        13,
        Tensor::new::<f32>([1, 2, 2], &[0.0, std::f32::consts::LN_2, 1.0986123, 1.3862944]),
        vec![],
        vec![],
        Tensor::new::<f32>([1, 2, 2], &[0.33333334, 0.6666667, 0.42857146, 0.5714286]),
    );
    case(
        "LogSoftmax",
        7,
        Tensor::new::<f32>([2, 2], &[0.0, 0.25, 0.5, 0.75]),
        vec![int("axis", 0)],
        vec![],
        Tensor::new::<f32>([2, 2], &[-1.8000164, -1.5500164, -1.3000164, -1.0500164]),
    );
    case(
        "BatchNormalization",
        9,
        Tensor::new::<f32>([1, 2, 2], &[0.0, 1.0, 2.0, 3.0]),
        vec![],
        vec![
            Some(Tensor::new::<f32>([2], &[1.0, 2.0])),
            Some(Tensor::new::<f32>([2], &[0.0, 1.0])),
            Some(Tensor::new::<f32>([2], &[0.0, 1.0])),
            Some(Tensor::new::<f32>([2], &[1.0, 2.0])),
        ],
        Tensor::new::<f32>([1, 2, 2], &[0.0, 0.999995, 2.4142098, 3.8284202]),
    );
    case(
        "InstanceNormalization",
        7,
        Tensor::new::<f32>([1, 2, 4], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]),
        vec![],
        vec![Some(Tensor::new::<f32>([2], &[1.0, 2.0])), Some(Tensor::new::<f32>([2], &[0.0, 1.0]))],
        Tensor::new::<f32>(
            [1, 2, 4],
            &[-1.3416355, -0.4472118, 0.44721186, 1.3416355, -1.6832709, 0.105576515, 1.8944235, 3.6832714],
        ),
    );
    case(
        "LayerNormalization",
        17,
        Tensor::new::<f32>([2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        vec![],
        vec![Some(Tensor::new::<f32>([3], &[0.0, 1.0, 2.0]))],
        Tensor::new::<f32>([2, 3], &[-0.0, 0.0, 2.4494712, -0.0, 0.0, 2.4494712]),
    );
    case(
        "LayerNormalization",
        17,
        Tensor::new::<f32>([2, 2], &[0.0, 1.0, 2.0, 3.0]),
        vec![int("axis", 0)],
        vec![
            Some(Tensor::new::<f32>([2, 2], &[0.0, 1.0, 2.0, 3.0])),
            Some(Tensor::new::<f32>([2, 2], &[0.0, 1.0, 2.0, 3.0])),
        ],
        Tensor::new::<f32>([2, 2], &[0.0, 0.55278814, 2.8944237, 7.024906]),
    );
    case(
        "Resize",
        10,
        Tensor::new::<f32>([1, 1, 1, 3], &[0.0, 1.0, 2.0]),
        vec![],
        vec![Some(Tensor::new::<f32>([4], &[1.0, 1.0, 2.0, 1.5]))],
        Tensor::new::<f32>([1, 1, 2, 4], &[0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 1.0, 2.0]),
    );
    case(
        "Resize",
        11,
        Tensor::new::<f32>([1, 1, 2, 2], &[0.0, 1.0, 2.0, 3.0]),
        vec![text("mode", "linear")],
        vec![Some(Tensor::new::<f32>([0], &[])), Some(Tensor::new::<f32>([4], &[1.0, 1.0, 1.0, 2.0]))],
        Tensor::new::<f32>([1, 1, 2, 4], &[0.0, 0.25, 0.75, 1.0, 2.0, 2.25, 2.75, 3.0]),
    );
    case(
        "Resize",
        13,
        Tensor::new::<f32>([1, 1, 1, 4], &[0.0, 1.0, 2.0, 3.0]),
        vec![text("nearest_mode", "floor"), text("coordinate_transformation_mode", "asymmetric")],
        vec![None, None, Some(Tensor::new::<i64>([4], &[1, 1, 1, 2]))],
        Tensor::new::<f32>([1, 1, 1, 2], &[0.0, 2.0]),
    );
    case(
        "Upsample",
        9,
        Tensor::new::<f32>([1, 1, 1, 2], &[0.0, 1.0]),
        vec![],
        vec![Some(Tensor::new::<f32>([4], &[1.0, 1.0, 2.0, 2.0]))],
        Tensor::new::<f32>([1, 1, 2, 4], &[0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]),
    );
    case(
        "Upsample",
        7,
        Tensor::new::<f32>([1, 1, 1, 2], &[0.0, 1.0]),
        vec![text("mode", "linear"), floats("scales", &[1.0, 1.0, 1.0, 2.0])],
        vec![],
        Tensor::new::<f32>([1, 1, 1, 4], &[0.0, 0.5, 1.0, 1.0]),
    );
    case(
        "Resize",
        18,
        Tensor::new::<f32>([1, 1, 2, 2], &[0.0, 1.0, 2.0, 3.0]),
        vec![text("mode", "linear"), ints("axes", &[-1]), text("coordinate_transformation_mode", "align_corners")],
        vec![None, None, Some(Tensor::new::<i64>([1], &[3]))],
        Tensor::new::<f32>([1, 1, 2, 3], &[0.0, 0.5, 1.0, 2.0, 2.5, 3.0]),
    );
    case(
        "QuantizeLinear",
        10,
        Tensor::new::<f32>([2, 3], &[-100.0, -60.0, -20.0, 20.0, 60.0, 100.0]),
        vec![],
        vec![Some(Tensor::new::<f32>([], &[0.5]))],
        Tensor::new::<u8>([2, 3], &[0, 0, 0, 40, 120, 200]),
    );
    case(
        "QuantizeLinear",
        13,
        Tensor::new::<f32>([2, 3], &[-100.0, -60.0, -20.0, 20.0, 60.0, 100.0]),
        vec![int("axis", 0)],
        vec![Some(Tensor::new::<f32>([2], &[0.5, 2.0])), Some(Tensor::new::<i8>([2], &[3, -3]))],
        Tensor::new::<i8>([2, 3], &[-128, -117, -37, 7, 27, 47]),
    );
    case(
        "DequantizeLinear",
        10,
        Tensor::new::<u8>([3], &[0, 1, 2]),
        vec![],
        vec![Some(Tensor::new::<f32>([], &[0.5])), Some(Tensor::new::<u8>([], &[2]))],
        Tensor::new::<f32>([3], &[-1.0, -0.5, 0.0]),
    );
    case(
        "DequantizeLinear",
        13,
        Tensor::new::<i8>([2, 3], &[0, 1, 2, 3, 4, 5]),
        vec![],
        vec![Some(Tensor::new::<f32>([3], &[0.5, 1.0, 2.0]))],
        Tensor::new::<f32>([2, 3], &[0.0, 1.0, 4.0, 1.5, 4.0, 10.0]),
    );
    case(
        "QLinearConv",
        10,
        Tensor::new::<u8>([1, 1, 2, 2], &[0, 1, 2, 3]),
        vec![],
        vec![
            Some(Tensor::new::<f32>([], &[0.5])),
            Some(Tensor::new::<u8>([], &[1])),
            Some(Tensor::new::<i8>([2, 1, 1, 2], &[1, 2, -3, 4])),
            Some(Tensor::new::<f32>([2], &[0.5, 0.25])),
            Some(Tensor::new::<i8>([2], &[0, 0])),
            Some(Tensor::new::<f32>([], &[0.25])),
            Some(Tensor::new::<u8>([], &[9])),
            Some(Tensor::new::<i32>([2], &[4, -8])),
        ],
        Tensor::new::<u8>([1, 2, 2, 1], &[12, 18, 7, 7]),
    );
    case(
        "QLinearMatMul",
        10,
        Tensor::new::<u8>([2, 2], &[0, 1, 2, 3]),
        vec![],
        vec![
            Some(Tensor::new::<f32>([], &[0.5])),
            Some(Tensor::new::<u8>([], &[1])),
            Some(Tensor::new::<i8>([2, 2], &[1, 2, -3, 4])),
            Some(Tensor::new::<f32>([], &[0.25])),
            Some(Tensor::new::<i8>([], &[1])),
            Some(Tensor::new::<f32>([], &[0.25])),
            Some(Tensor::new::<u8>([], &[9])),
        ],
        Tensor::new::<u8>([2, 2], &[9, 9, 5, 13]),
    );
}
