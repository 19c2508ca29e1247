//! Operators and steps from their names, attributes and arguments.

use super::attrs::{Attrs, Item, Read, Value};
use super::lex::Position;
use crate::dtype::DType;
use crate::error::Result;
use crate::op::*;
use crate::types::QuantParams;

/// The operator of this name: with `args` in parentheses after the name and `attrs` in braces after the operands.
///
/// # Errors
/// [`crate::Error::Parse`] for an unknown name, and for missing, unknown or wrong attributes.
pub fn op(name: &str, at: Position, args: Vec<Item>, attrs: Vec<Item>) -> Result<Op> {
    let first = args.first().map(|i| i.at);
    if let Some(step) = step(name, at, args)? {
        Attrs::new(name, at, attrs).finish()?;
        return Ok(Op::Map(vec![step]));
    }
    if let Some(at) = first {
        return Err(at.error(format!("{name} takes attributes in braces after its operands, no arguments here")));
    }
    let mut attrs = Attrs::new(name, at, attrs);
    let op = match plain_op(name, &mut attrs)? {
        Some(op) => op,
        None => return Err(at.error(format!("there is no operator `{name}`"))),
    };
    attrs.finish()?;
    Ok(op)
}

fn plain_op(name: &str, a: &mut Attrs) -> Result<Option<Op>> {
    Ok(Some(match name {
        "conv2d" => Op::Conv2d(Conv2d {
            layout: a.required("layout")?,
            stride: a.or("stride", [1; 2])?,
            pad: a.or("pad", [0; 4])?,
            dilation: a.or("dilation", [1; 2])?,
            groups: a.or("groups", 1)?,
            pad_value: a.or("pad_value", 0)?,
            bias: a.flag("bias"),
            post: a.or("post", vec![])?,
        }),
        "conv_transpose2d" => Op::ConvTranspose2d(ConvTranspose2d {
            layout: a.required("layout")?,
            stride: a.or("stride", [1; 2])?,
            pad: a.or("pad", [0; 4])?,
            output_pad: a.or("output_pad", [0; 2])?,
            dilation: a.or("dilation", [1; 2])?,
            groups: a.or("groups", 1)?,
            bias: a.flag("bias"),
            post: a.or("post", vec![])?,
        }),
        "matmul" => {
            Op::MatMul(MatMul { trans_b: a.flag("trans_b"), bias: a.flag("bias"), post: a.or("post", vec![])? })
        }
        "max_pool2d" => pool(PoolKind::Max, a)?,
        "avg_pool2d" => {
            let count_include_pad = a.flag("count_include_pad");
            pool(PoolKind::Average { count_include_pad }, a)?
        }
        "reduce_sum" => reduce(ReduceKind::Sum, a)?,
        "reduce_mean" => reduce(ReduceKind::Mean, a)?,
        "reduce_max" => reduce(ReduceKind::Max, a)?,
        "reduce_min" => reduce(ReduceKind::Min, a)?,
        "reduce_prod" => reduce(ReduceKind::Prod, a)?,
        "map" => Op::Map(a.required("steps")?),
        "softmax" | "log_softmax" => Op::Softmax(Softmax {
            axis: a.required("axis")?,
            log: name == "log_softmax",
            dequant: a.optional("dequant")?,
            post: a.or("post", vec![])?,
        }),
        "layer_norm" => Op::LayerNorm(LayerNorm {
            axis: a.required("axis")?,
            epsilon: a.required("epsilon")?,
            post: a.or("post", vec![])?,
        }),
        "rnn" => recurrent(Cell::Rnn, a)?,
        "gru" => recurrent(Cell::Gru { linear_before_reset: a.flag("linear_before_reset") }, a)?,
        "lstm" => {
            let (input_forget, peepholes) = (a.flag("input_forget"), a.flag("peepholes"));
            recurrent(Cell::Lstm { input_forget, peepholes }, a)?
        }
        "batch_norm" => Op::BatchNorm { epsilon: a.required("epsilon")? },
        "reshape" => Op::Reshape { shape: a.required("shape")? },
        "transpose" => Op::Transpose { perm: a.required("perm")? },
        "concat" => Op::Concat { axis: a.required("axis")? },
        "slice" => {
            let start: Vec<usize> = a.required("start")?;
            let step = a.optional("step")?.unwrap_or_else(|| vec![1; start.len()]);
            Op::Slice { start, step, shape: a.required("shape")? }
        }
        "pad" => Op::Pad { mode: a.required("mode")?, before: a.required("before")?, after: a.required("after")? },
        "gather" => Op::Gather { axis: a.required("axis")? },
        "broadcast" => Op::Broadcast { shape: a.required("shape")? },
        "where" => Op::Where,
        "resize" => Op::Resize(Resize {
            shape: a.required("shape")?,
            scales: a.required("scales")?,
            mode: a.required("mode")?,
            coordinates: a.required("coordinates")?,
        }),
        "arg_max" => Op::ArgMax { axis: a.required("axis")?, keepdims: a.flag("keepdims"), last: a.flag("last") },
        "quantize" => Op::Quantize { axis: a.required("axis")?, dtype: a.required("dtype")? },
        "dequantize" => Op::Dequantize { axis: a.required("axis")? },
        _ => return Ok(None),
    }))
}

fn pool(kind: PoolKind, a: &mut Attrs) -> Result<Op> {
    Ok(Op::Pool2d(Pool2d {
        kind,
        layout: a.required("layout")?,
        kernel: a.required("kernel")?,
        stride: a.or("stride", [1; 2])?,
        pad: a.or("pad", [0; 4])?,
        dilation: a.or("dilation", [1; 2])?,
        dequant: a.optional("dequant")?,
        post: a.or("post", vec![])?,
    }))
}

fn reduce(kind: ReduceKind, a: &mut Attrs) -> Result<Op> {
    Ok(Op::Reduce(Reduce {
        kind,
        axes: a.required("axes")?,
        keepdims: a.flag("keepdims"),
        dequant: a.optional("dequant")?,
        post: a.or("post", vec![])?,
    }))
}

/// The step of this name, or `None` where no step has it.
fn step(name: &str, at: Position, args: Vec<Item>) -> Result<Option<Step>> {
    let mut a = Attrs::new(name, at, args);
    let step = if let Some(op) = Binary::ALL.into_iter().find(|b| b.name() == name) {
        Step::Binary { op, swapped: a.flag("swapped"), dequant: a.optional("dequant")? }
    } else if let Some(unary) = unary(name, &mut a)? {
        Step::Unary(unary)
    } else {
        match name {
            "cast" => Step::Cast(a.positional("the element type")?),
            "requant" => {
                let rounding = a.positional("the rounding")?;
                let (zero, lo, hi, dtype) = integer_target(&mut a)?;
                Step::Requant { rounding, zero, lo, hi, dtype }
            }
            "dequant" => Step::Dequant(QuantParams {
                scale: a.positional("the scale")?,
                zero_point: a.positional("the zero point")?,
            }),
            "quant" => {
                let scale = a.positional("the scale")?;
                let (zero_point, lo, hi, dtype) = integer_target(&mut a)?;
                Step::Quant { q: QuantParams { scale, zero_point }, lo, hi, dtype }
            }
            _ => return Ok(None),
        }
    };
    a.finish()?;
    Ok(Some(step))
}

fn recurrent(cell: Cell, a: &mut Attrs) -> Result<Op> {
    Ok(Op::Recurrent(Recurrent {
        cell,
        reverse: a.flag("reverse"),
        activations: a.or("activations", cell.default_activations().to_vec())?,
        clip: a.optional("clip")?,
    }))
}

/// Zero point, bounds and element type.
fn integer_target(a: &mut Attrs) -> Result<(i32, i32, i32, DType)> {
    Ok((
        a.positional("the zero point")?,
        a.positional("the lower bound")?,
        a.positional("the upper bound")?,
        a.positional("the element type")?,
    ))
}

fn unary(name: &str, a: &mut Attrs) -> Result<Option<Unary>> {
    Ok(Some(match name {
        "neg" => Unary::Neg,
        "abs" => Unary::Abs,
        "sign" => Unary::Sign,
        "relu" => Unary::Relu,
        "leaky_relu" => Unary::LeakyRelu(a.positional("alpha")?),
        "elu" => Unary::Elu(a.positional("alpha")?),
        "clip" => Unary::Clip(a.positional("the lower bound")?, a.positional("the upper bound")?),
        "sigmoid" => Unary::Sigmoid,
        "hard_sigmoid" => Unary::HardSigmoid(a.positional("alpha")?, a.positional("beta")?),
        "hard_swish" => Unary::HardSwish,
        "tanh" => Unary::Tanh,
        "exp" => Unary::Exp,
        "log" => Unary::Log,
        "sqrt" => Unary::Sqrt,
        "reciprocal" => Unary::Reciprocal,
        "erf" => Unary::Erf,
        "gelu" => Unary::Gelu,
        "softplus" => Unary::Softplus,
        "softsign" => Unary::Softsign,
        "floor" => Unary::Floor,
        "ceil" => Unary::Ceil,
        "round" => Unary::Round,
        "not" => Unary::Not,
        _ => return Ok(None),
    }))
}

impl Read for Step {
    fn read(item: &Item) -> Result<Step> {
        let Value::Word(name, args) = &item.value else { return Err(item.at.error("expected a step, as relu")) };
        step(name, item.at, args.clone())?.ok_or_else(|| item.at.error(format!("there is no step `{name}`")))
    }
}

impl Read for Unary {
    fn read(item: &Item) -> Result<Unary> {
        match Step::read(item)? {
            Step::Unary(u) => Ok(u),
            step => Err(item.at.error(format!("`{}` is no function of one argument", step.name()))),
        }
    }
}

impl Read for Rounding {
    fn read(item: &Item) -> Result<Rounding> {
        match &item.value {
            Value::Word(w, args) if w == "f32" && args.is_empty() => Ok(Rounding::F32HalfEven),
            Value::Word(w, args) if w == "single" && args.len() == 1 && args[0].key.is_none() => {
                let shift: u32 = args[0].read()?;
                if shift > 31 { Err(args[0].at.error("a shift is at most 31")) } else { Ok(Rounding::Single { shift }) }
            }
            _ => Err(item.at.error("expected a rounding: f32, or single(shift)")),
        }
    }
}

impl Read for Layout {
    fn read(item: &Item) -> Result<Layout> {
        item.choice(&[("nchw", Layout::Nchw), ("nhwc", Layout::Nhwc)])
    }
}

impl Read for PadMode {
    fn read(item: &Item) -> Result<PadMode> {
        item.choice(&[("constant", PadMode::Constant), ("reflect", PadMode::Reflect), ("edge", PadMode::Edge)])
    }
}

impl Read for ResizeMode {
    fn read(item: &Item) -> Result<ResizeMode> {
        match &item.value {
            Value::Word(w, args) if w == "nearest" && args.len() == 1 && args[0].key.is_none() => {
                Ok(ResizeMode::Nearest(args[0].choice(&[
                    ("round_prefer_floor", NearestMode::RoundPreferFloor),
                    ("round_prefer_ceil", NearestMode::RoundPreferCeil),
                    ("floor", NearestMode::Floor),
                    ("ceil", NearestMode::Ceil),
                ])?))
            }
            Value::Word(w, args) if w == "linear" && args.is_empty() => Ok(ResizeMode::Linear),
            _ => Err(item.at.error("expected linear, or nearest with its rounding, as nearest(floor)")),
        }
    }
}

impl Read for CoordinateMode {
    fn read(item: &Item) -> Result<CoordinateMode> {
        item.choice(&[
            ("half_pixel", CoordinateMode::HalfPixel),
            ("pytorch_half_pixel", CoordinateMode::PytorchHalfPixel),
            ("align_corners", CoordinateMode::AlignCorners),
            ("asymmetric", CoordinateMode::Asymmetric),
        ])
    }
}
