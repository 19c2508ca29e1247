//! The importers of the standard operators: one function an operator, grouped by family, listed in one table.
//!
//! An importer receives a [`Node`] with resolved inputs and gives the value of each output. Differences between opset
//! versions (attributes that became inputs, changed defaults) end here.

mod conv;
mod data;
mod elementwise;
mod matmul;
mod microsoft;
mod norm;
mod pool;
mod qonnx;
mod quantize;
mod recurrent;
mod reduce;
mod resize;
mod shape;
mod window;

use crate::cx::Cx;
use crate::error::{Result, clip, quote};
use crate::node::Node;
use mcc_ir::ValueId;
use mcc_ir::op::{Binary, Unary};

type Import = fn(&mut Cx, &Node) -> Result<Vec<ValueId>>;

/// One standard operator.
pub(crate) struct Importer {
    pub op_type: &'static str,
    /// The first opset that has the operator.
    pub since: i64,
    /// The attributes of all its versions.
    pub attributes: &'static [&'static str],
    pub import: Import,
}

const fn op(op_type: &'static str, since: i64, attributes: &'static [&'static str], import: Import) -> Importer {
    Importer { op_type, since, attributes, import }
}

/// Every supported operator of the standard domain, by name.
static TABLE: &[Importer] = &[
    op("Abs", 1, &[], |cx, n| elementwise::unary(cx, n, Unary::Abs)),
    op("Add", 1, &[], |cx, n| elementwise::binary(cx, n, Binary::Add)),
    op("And", 1, &[], |cx, n| elementwise::binary(cx, n, Binary::And)),
    op("ArgMax", 1, &["axis", "keepdims", "select_last_index"], |cx, n| reduce::arg(cx, n, false)),
    op("ArgMin", 1, &["axis", "keepdims", "select_last_index"], |cx, n| reduce::arg(cx, n, true)),
    op(
        "AveragePool",
        1,
        &["auto_pad", "ceil_mode", "count_include_pad", "dilations", "kernel_shape", "pads", "strides"],
        pool::average,
    ),
    op("BatchNormalization", 1, &["epsilon", "momentum", "spatial", "training_mode"], norm::batch),
    op("Cast", 1, &["round_mode", "saturate", "to"], elementwise::cast),
    op("CastLike", 15, &["round_mode", "saturate"], elementwise::cast_like),
    op("Ceil", 1, &[], |cx, n| elementwise::unary(cx, n, Unary::Ceil)),
    op("Celu", 12, &["alpha"], elementwise::celu),
    op("Clip", 1, &["max", "min"], elementwise::clip),
    op("Concat", 1, &["axis"], data::concat),
    op(
        "Constant",
        1,
        &[
            "sparse_value",
            "value",
            "value_float",
            "value_floats",
            "value_int",
            "value_ints",
            "value_string",
            "value_strings",
        ],
        shape::constant,
    ),
    op("ConstantOfShape", 9, &["value"], shape::constant_of_shape),
    op("Conv", 1, &["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"], conv::conv),
    op(
        "ConvTranspose",
        1,
        &["auto_pad", "dilations", "group", "kernel_shape", "output_padding", "output_shape", "pads", "strides"],
        conv::transposed,
    ),
    op("DepthToSpace", 1, &["blocksize", "mode"], data::depth_to_space),
    op("DequantizeLinear", 10, &["axis", "block_size", "output_dtype"], quantize::dequantize),
    op("Div", 1, &[], |cx, n| elementwise::binary(cx, n, Binary::Div)),
    op("Dropout", 1, &["ratio", "seed"], elementwise::dropout),
    op("Elu", 1, &["alpha"], elementwise::elu),
    op("Equal", 1, &[], |cx, n| elementwise::binary(cx, n, Binary::Equal)),
    op("Erf", 9, &[], |cx, n| elementwise::unary(cx, n, Unary::Erf)),
    op("Exp", 1, &[], |cx, n| elementwise::unary(cx, n, Unary::Exp)),
    op("Expand", 8, &[], data::expand),
    op("Flatten", 1, &["axis"], shape::flatten),
    op("Floor", 1, &[], |cx, n| elementwise::unary(cx, n, Unary::Floor)),
    op("GRU", 1, recurrent::GRU, recurrent::gru),
    op("Gather", 1, &["axis"], data::gather),
    op("Gelu", 20, &["approximate"], elementwise::gelu),
    op("Gemm", 1, &["alpha", "beta", "transA", "transB"], matmul::gemm),
    op("GlobalAveragePool", 1, &[], |cx, n| pool::global(cx, n, false)),
    op("GlobalMaxPool", 1, &[], |cx, n| pool::global(cx, n, true)),
    op("Greater", 1, &[], |cx, n| elementwise::binary(cx, n, Binary::Greater)),
    op("GreaterOrEqual", 12, &[], |cx, n| elementwise::binary(cx, n, Binary::GreaterEqual)),
    op("HardSigmoid", 1, &["alpha", "beta"], elementwise::hard_sigmoid),
    op("HardSwish", 14, &[], |cx, n| elementwise::unary(cx, n, Unary::HardSwish)),
    op("Identity", 1, &[], elementwise::identity),
    op("InstanceNormalization", 1, &["epsilon"], norm::instance),
    op("LSTM", 1, recurrent::LSTM, recurrent::lstm),
    op("LayerNormalization", 17, &["axis", "epsilon", "stash_type"], norm::layer),
    op("LeakyRelu", 1, &["alpha"], elementwise::leaky_relu),
    op("Less", 1, &[], |cx, n| elementwise::binary(cx, n, Binary::Less)),
    op("LessOrEqual", 12, &[], |cx, n| elementwise::binary(cx, n, Binary::LessEqual)),
    op("Log", 1, &[], |cx, n| elementwise::unary(cx, n, Unary::Log)),
    op("LogSoftmax", 1, &["axis"], |cx, n| norm::softmax(cx, n, true)),
    op("MatMul", 1, &[], matmul::matmul),
    op("Max", 1, &[], |cx, n| elementwise::variadic(cx, n, Binary::Max)),
    op(
        "MaxPool",
        1,
        &["auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "storage_order", "strides"],
        pool::max,
    ),
    op("Mean", 1, &[], elementwise::mean),
    op("Min", 1, &[], |cx, n| elementwise::variadic(cx, n, Binary::Min)),
    op("Mish", 18, &[], elementwise::mish),
    op("Mul", 1, &[], |cx, n| elementwise::binary(cx, n, Binary::Mul)),
    op("Neg", 1, &[], |cx, n| elementwise::unary(cx, n, Unary::Neg)),
    op("Not", 1, &[], |cx, n| elementwise::unary(cx, n, Unary::Not)),
    op("Or", 1, &[], |cx, n| elementwise::binary(cx, n, Binary::Or)),
    op("PRelu", 1, &[], |cx, n| elementwise::binary(cx, n, Binary::PRelu)),
    op("Pad", 1, &["mode", "pads", "value"], data::pad),
    op("Pow", 1, &[], elementwise::pow),
    op(
        "QLinearConv",
        10,
        &["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"],
        quantize::qlinear_conv,
    ),
    op("QLinearMatMul", 10, &[], quantize::qlinear_matmul),
    op("QuantizeLinear", 10, &["axis", "block_size", "output_dtype", "precision", "saturate"], quantize::quantize),
    op("RMSNormalization", 23, &["axis", "epsilon", "stash_type"], norm::rms),
    op("RNN", 1, recurrent::RNN, recurrent::rnn),
    op("Range", 11, &["stash_type"], shape::range),
    op("Reciprocal", 1, &[], |cx, n| elementwise::unary(cx, n, Unary::Reciprocal)),
    op("ReduceL1", 1, reduce::ATTRIBUTES, reduce::l1),
    op("ReduceL2", 1, reduce::ATTRIBUTES, reduce::l2),
    op("ReduceLogSum", 1, reduce::ATTRIBUTES, reduce::log_sum),
    op("ReduceMax", 1, reduce::ATTRIBUTES, |cx, n| reduce::reduce(cx, n, reduce::Kind::Max)),
    op("ReduceMean", 1, reduce::ATTRIBUTES, |cx, n| reduce::reduce(cx, n, reduce::Kind::Mean)),
    op("ReduceMin", 1, reduce::ATTRIBUTES, |cx, n| reduce::reduce(cx, n, reduce::Kind::Min)),
    op("ReduceProd", 1, reduce::ATTRIBUTES, |cx, n| reduce::reduce(cx, n, reduce::Kind::Prod)),
    op("ReduceSum", 1, reduce::ATTRIBUTES, |cx, n| reduce::reduce(cx, n, reduce::Kind::Sum)),
    op("ReduceSumSquare", 1, reduce::ATTRIBUTES, reduce::sum_square),
    op("Relu", 1, &[], |cx, n| elementwise::unary(cx, n, Unary::Relu)),
    op("Reshape", 5, &["allowzero"], shape::reshape),
    op(
        "Resize",
        10,
        &[
            "antialias",
            "axes",
            "coordinate_transformation_mode",
            "cubic_coeff_a",
            "exclude_outside",
            "extrapolation_value",
            "keep_aspect_ratio_policy",
            "mode",
            "nearest_mode",
        ],
        resize::resize,
    ),
    op("Round", 11, &[], |cx, n| elementwise::unary(cx, n, Unary::Round)),
    op("Selu", 1, &["alpha", "gamma"], elementwise::selu),
    op("Shape", 1, &["end", "start"], shape::shape),
    op("Sigmoid", 1, &[], |cx, n| elementwise::unary(cx, n, Unary::Sigmoid)),
    op("Sign", 9, &[], |cx, n| elementwise::unary(cx, n, Unary::Sign)),
    op("Size", 1, &[], shape::size),
    op("Slice", 1, &["axes", "ends", "starts"], data::slice),
    op("Softmax", 1, &["axis"], |cx, n| norm::softmax(cx, n, false)),
    op("Softplus", 1, &[], |cx, n| elementwise::unary(cx, n, Unary::Softplus)),
    op("Softsign", 1, &[], |cx, n| elementwise::unary(cx, n, Unary::Softsign)),
    op("SpaceToDepth", 1, &["blocksize", "mode"], data::space_to_depth),
    op("Split", 1, &["axis", "num_outputs", "split"], data::split),
    op("Sqrt", 1, &[], |cx, n| elementwise::unary(cx, n, Unary::Sqrt)),
    op("Squeeze", 1, &["axes"], shape::squeeze),
    op("Sub", 1, &[], |cx, n| elementwise::binary(cx, n, Binary::Sub)),
    op("Sum", 1, &[], |cx, n| elementwise::variadic(cx, n, Binary::Add)),
    op("Swish", 24, &["alpha"], elementwise::swish),
    op("Tanh", 1, &[], |cx, n| elementwise::unary(cx, n, Unary::Tanh)),
    op("ThresholdedRelu", 10, &["alpha"], elementwise::thresholded_relu),
    op("Tile", 6, &[], data::tile),
    op("Transpose", 1, &["perm"], shape::transpose),
    op("Unsqueeze", 1, &["axes"], shape::unsqueeze),
    op("Upsample", 7, &["mode", "scales"], resize::upsample),
    op("Where", 9, &[], elementwise::where_),
    op("Xor", 1, &[], |cx, n| elementwise::binary(cx, n, Binary::Xor)),
];

/// Every supported operator of the domain `com.microsoft`, by name. Its QDQ operators took 4 and 16 bits before the
/// standard ones did.
static MICROSOFT: &[Importer] = &[
    op("DequantizeLinear", 0, &["axis", "block_size"], |cx, n| quantize::dequantize_along(cx, n, n.int_or("axis", 1)?)),
    op("QLinearAdd", 0, &[], |cx, n| microsoft::binary(cx, n, Binary::Add)),
    op(
        "QLinearAveragePool",
        0,
        &["auto_pad", "ceil_mode", "channels_last", "count_include_pad", "kernel_shape", "pads", "strides"],
        microsoft::average_pool,
    ),
    op("QLinearConcat", 0, &["axis"], microsoft::concat),
    op("QLinearGlobalAveragePool", 0, &["channels_last"], microsoft::global_average_pool),
    op("QLinearLeakyRelu", 0, &["alpha"], microsoft::leaky_relu),
    op("QLinearMul", 0, &[], |cx, n| microsoft::binary(cx, n, Binary::Mul)),
    op("QLinearSigmoid", 0, &[], microsoft::sigmoid),
    op("QLinearSoftmax", 0, &["axis", "opset"], microsoft::softmax),
    op("QuantizeLinear", 0, &["axis", "block_size"], |cx, n| quantize::quantize_along(cx, n, n.int_or("axis", 1)?)),
];

/// The operators of QONNX, by name, and the domains that its versions use.
static QONNX: &[Importer] =
    &[op("BipolarQuant", 0, &[], qonnx::bipolar), op("Quant", 0, &["narrow", "rounding_mode", "signed"], qonnx::quant)];
const QONNX_DOMAINS: &[&str] = &["finn.custom_op.general", "onnx.brevitas", "qonnx.custom_op.general"];

/// The importer of an operator.
pub(crate) fn find(domain: &str, op_type: &str) -> Option<&'static Importer> {
    let table = match domain {
        "" => TABLE,
        "com.microsoft" => MICROSOFT,
        domain if QONNX_DOMAINS.contains(&domain) => QONNX,
        _ => return None,
    };
    table.binary_search_by(|row| row.op_type.cmp(op_type)).ok().map(|i| &table[i])
}

/// The names of all supported operators of the standard domain, ascending.
pub fn supported_operators() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|row| row.op_type)
}

/// Why an operator without importer is refused, and the next step.
pub(crate) fn refusal(domain: &str, op_type: &str) -> (String, String) {
    let shown = clip(op_type);
    let help = match (domain, op_type) {
        ("", "If" | "Loop" | "Scan") => {
            "export without control flow (`torch.jit.trace` or `torch.export`), or fold it with onnxsim"
        }
        ("", "NonMaxSuppression" | "TopK" | "NonZero" | "Unique") => {
            "cut the model before it and do this step in the application"
        }
        ("", "ConvInteger" | "MatMulInteger" | "DynamicQuantizeLinear") => "quantise statically to the QDQ format",
        ("", _) => "replace it by supported operators, or cut the model before it",
        ("com.microsoft", _) => {
            "export in the QDQ format without ONNX Runtime's own operators (optimisation level basic)"
        }
        _ if domain.contains("qonnx") || domain.contains("finn") || domain.contains("brevitas") => {
            "convert the model to the QDQ format (`qonnx.transformation.qonnx_to_qcdq`)"
        }
        _ => "add the operator to the model as a local function, or replace it by standard operators",
    };
    let reason = match domain {
        "" => format!("operator {shown} is not supported"),
        _ => format!("operator {shown} of domain {} is not supported", quote(domain)),
    };
    (reason, help.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_for_binary_search() {
        for pair in [TABLE, MICROSOFT, QONNX].into_iter().flat_map(|table| table.windows(2)) {
            assert!(pair[0].op_type < pair[1].op_type, "{} before {}", pair[0].op_type, pair[1].op_type);
        }
    }
}
