//! Shapes and data movement.

use super::*;

#[test]
fn data_movement() {
    case(
        "Flatten",
        9,
        Tensor::new::<f32>([2, 2, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]),
        vec![int("axis", 2)],
        vec![],
        Tensor::new::<f32>([4, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]),
    );
    case(
        "Flatten",
        11,
        Tensor::new::<f32>([2, 2, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]),
        vec![int("axis", -2)],
        vec![],
        Tensor::new::<f32>([2, 4], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]),
    );
    case(
        "Flatten",
        9,
        Tensor::new::<f32>([2, 2], &[0.0, 1.0, 2.0, 3.0]),
        vec![int("axis", 0)],
        vec![],
        Tensor::new::<f32>([1, 4], &[0.0, 1.0, 2.0, 3.0]),
    );
    case(
        "Reshape",
        13,
        Tensor::new::<f32>([2, 1, 2], &[0.0, 1.0, 2.0, 3.0]),
        vec![],
        vec![Some(Tensor::new::<i64>([2], &[0, -1]))],
        Tensor::new::<f32>([2, 2], &[0.0, 1.0, 2.0, 3.0]),
    );
    case(
        "Squeeze",
        11,
        Tensor::new::<f32>([1, 2, 1], &[0.0, 1.0]),
        vec![ints("axes", &[-1])],
        vec![],
        Tensor::new::<f32>([1, 2], &[0.0, 1.0]),
    );
    case(
        "Squeeze",
        13,
        Tensor::new::<f32>([1, 2, 1], &[0.0, 1.0]),
        vec![],
        vec![],
        Tensor::new::<f32>([2], &[0.0, 1.0]),
    );
    case(
        "Squeeze",
        13,
        Tensor::new::<f32>([1, 2, 1], &[0.0, 1.0]),
        vec![],
        vec![Some(Tensor::new::<i64>([1], &[0]))],
        Tensor::new::<f32>([2, 1], &[0.0, 1.0]),
    );
    case(
        "Unsqueeze",
        11,
        Tensor::new::<f32>([2], &[0.0, 1.0]),
        vec![ints("axes", &[0, 2])],
        vec![],
        Tensor::new::<f32>([1, 2, 1], &[0.0, 1.0]),
    );
    case(
        "Unsqueeze",
        13,
        Tensor::new::<f32>([2], &[0.0, 1.0]),
        vec![],
        vec![Some(Tensor::new::<i64>([1], &[-1]))],
        Tensor::new::<f32>([2, 1], &[0.0, 1.0]),
    );
    case(
        "Transpose",
        13,
        Tensor::new::<f32>([1, 2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        vec![],
        vec![],
        Tensor::new::<f32>([3, 2, 1], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]),
    );
    case(
        "Transpose",
        13,
        Tensor::new::<f32>([1, 2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        vec![ints("perm", &[0, 2, 1])],
        vec![],
        Tensor::new::<f32>([1, 3, 2], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]),
    );
    case(
        "Slice",
        9,
        Tensor::new::<f32>([3, 4], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0]),
        vec![ints("starts", &[0, -2]), ints("ends", &[2, 9])],
        vec![],
        Tensor::new::<f32>([2, 2], &[2.0, 3.0, 6.0, 7.0]),
    );
    case(
        "Slice",
        13,
        Tensor::new::<f32>([3, 4], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0]),
        vec![],
        vec![
            Some(Tensor::new::<i64>([2], &[-1, 3])),
            Some(Tensor::new::<i64>([2], &[-9223372036854775807, 0])),
            Some(Tensor::new::<i64>([2], &[0, 1])),
            Some(Tensor::new::<i64>([2], &[-1, -2])),
        ],
        Tensor::new::<f32>([3, 2], &[11.0, 9.0, 7.0, 5.0, 3.0, 1.0]),
    );
    case(
        "Slice",
        11,
        Tensor::new::<f32>([3, 4], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0]),
        vec![],
        vec![
            Some(Tensor::new::<i64>([1], &[1])),
            Some(Tensor::new::<i64>([1], &[9223372036854775807])),
            Some(Tensor::new::<i64>([1], &[-1])),
        ],
        Tensor::new::<f32>([3, 3], &[1.0, 2.0, 3.0, 5.0, 6.0, 7.0, 9.0, 10.0, 11.0]),
    );
    case(
        "Pad",
        7,
        Tensor::new::<f32>([2, 2], &[0.0, 1.0, 2.0, 3.0]),
        vec![ints("pads", &[0, 1, 1, 0]), float("value", 9.0)],
        vec![],
        Tensor::new::<f32>([3, 3], &[9.0, 0.0, 1.0, 9.0, 2.0, 3.0, 9.0, 9.0, 9.0]),
    );
    case(
        "Pad",
        11,
        Tensor::new::<f32>([3], &[0.0, 1.0, 2.0]),
        vec![text("mode", "reflect")],
        vec![Some(Tensor::new::<i64>([2], &[2, 1]))],
        Tensor::new::<f32>([6], &[2.0, 1.0, 0.0, 1.0, 2.0, 1.0]),
    );
    case(
        "Pad",
        13,
        Tensor::new::<f32>([3], &[0.0, 1.0, 2.0]),
        vec![text("mode", "edge")],
        vec![Some(Tensor::new::<i64>([2], &[1, 2]))],
        Tensor::new::<f32>([6], &[0.0, 0.0, 1.0, 2.0, 2.0, 2.0]),
    );
    case(
        "Pad",
        13,
        Tensor::new::<f32>([4], &[0.0, 1.0, 2.0, 3.0]),
        vec![],
        vec![Some(Tensor::new::<i64>([2], &[-1, 1])), Some(Tensor::new::<f32>([], &[7.0]))],
        Tensor::new::<f32>([4], &[1.0, 2.0, 3.0, 7.0]),
    );
    case(
        "Pad",
        18,
        Tensor::new::<f32>([2, 2], &[0.0, 1.0, 2.0, 3.0]),
        vec![],
        vec![Some(Tensor::new::<i64>([2], &[1, 0])), None, Some(Tensor::new::<i64>([1], &[-1]))],
        Tensor::new::<f32>([2, 3], &[0.0, 0.0, 1.0, 0.0, 2.0, 3.0]),
    );
    case(
        "Gather",
        13,
        Tensor::new::<f32>([3, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        vec![int("axis", 1)],
        vec![Some(Tensor::new::<i64>([1], &[-1]))],
        Tensor::new::<f32>([3, 1], &[1.0, 3.0, 5.0]),
    );
    case(
        "Gather",
        13,
        Tensor::new::<f32>([3, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        vec![],
        vec![Some(Tensor::new::<i64>([], &[2]))],
        Tensor::new::<f32>([2], &[4.0, 5.0]),
    );
    case(
        "Expand",
        13,
        Tensor::new::<f32>([2, 1], &[0.0, 1.0]),
        vec![],
        vec![Some(Tensor::new::<i64>([3], &[2, 1, 3]))],
        Tensor::new::<f32>([2, 2, 3], &[0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0]),
    );
    case(
        "Tile",
        13,
        Tensor::new::<f32>([2, 2], &[0.0, 1.0, 2.0, 3.0]),
        vec![],
        vec![Some(Tensor::new::<i64>([2], &[2, 3]))],
        Tensor::new::<f32>(
            [4, 6],
            &[
                0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 2.0, 3.0, 2.0, 3.0, 2.0, 3.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 2.0, 3.0,
                2.0, 3.0, 2.0, 3.0,
            ],
        ),
    );
    case(
        "Split",
        11,
        Tensor::new::<f32>([2, 5], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]),
        vec![int("axis", 1), ints("split", &[2, 3])],
        vec![],
        Tensor::new::<f32>([2, 2], &[0.0, 1.0, 5.0, 6.0]),
    );
    case(
        "Split",
        13,
        Tensor::new::<f32>([2, 4], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]),
        vec![int("axis", -1)],
        vec![],
        Tensor::new::<f32>([2, 2], &[0.0, 1.0, 4.0, 5.0]),
    );
    case(
        "Split",
        18,
        Tensor::new::<f32>([5], &[0.0, 1.0, 2.0, 3.0, 4.0]),
        vec![int("num_outputs", 2)],
        vec![],
        Tensor::new::<f32>([3], &[0.0, 1.0, 2.0]),
    );
    case(
        "Split",
        13,
        Tensor::new::<f32>([5], &[0.0, 1.0, 2.0, 3.0, 4.0]),
        vec![],
        vec![Some(Tensor::new::<i64>([2], &[4, 1]))],
        Tensor::new::<f32>([4], &[0.0, 1.0, 2.0, 3.0]),
    );
    case(
        "DepthToSpace",
        13,
        Tensor::new::<f32>([1, 8, 1, 1], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]),
        vec![int("blocksize", 2)],
        vec![],
        Tensor::new::<f32>([1, 2, 2, 2], &[0.0, 2.0, 4.0, 6.0, 1.0, 3.0, 5.0, 7.0]),
    );
    case(
        "DepthToSpace",
        13,
        Tensor::new::<f32>([1, 8, 1, 1], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]),
        vec![int("blocksize", 2), text("mode", "CRD")],
        vec![],
        Tensor::new::<f32>([1, 2, 2, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]),
    );
    case(
        "SpaceToDepth",
        13,
        Tensor::new::<f32>([1, 2, 2, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]),
        vec![int("blocksize", 2)],
        vec![],
        Tensor::new::<f32>([1, 8, 1, 1], &[0.0, 4.0, 1.0, 5.0, 2.0, 6.0, 3.0, 7.0]),
    );
    case(
        "Shape",
        15,
        Tensor::new::<f32>(
            [2, 3, 4],
            &[
                0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0, 17.0, 18.0,
                19.0, 20.0, 21.0, 22.0, 23.0,
            ],
        ),
        vec![int("start", 1)],
        vec![],
        Tensor::new::<i64>([2], &[3, 4]),
    );
    case(
        "Shape",
        13,
        Tensor::new::<f32>([2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        vec![],
        vec![],
        Tensor::new::<i64>([2], &[2, 3]),
    );
    case(
        "Size",
        13,
        Tensor::new::<f32>([2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        vec![],
        vec![],
        Tensor::new::<i64>([], &[6]),
    );
    case("Dropout", 12, Tensor::new::<f32>([2], &[0.0, 1.0]), vec![], vec![], Tensor::new::<f32>([2], &[0.0, 1.0]));
    case("Identity", 13, Tensor::new::<f32>([2], &[0.0, 1.0]), vec![], vec![], Tensor::new::<f32>([2], &[0.0, 1.0]));
    case(
        "Concat",
        13,
        Tensor::new::<f32>([1, 2], &[0.0, 1.0]),
        vec![int("axis", 0)],
        vec![Some(Tensor::new::<f32>([1, 2], &[0.0, 1.0]))],
        Tensor::new::<f32>([2, 2], &[0.0, 1.0, 0.0, 1.0]),
    );
}
