//! Writes graphs in the text form.

use super::INLINE_ELEMENTS;
use crate::dtype::DType;
use crate::graph::{Def, Graph, Origin, Port};
use crate::op::*;
use crate::tensor::Tensor;
use crate::types::{F32, QuantParams, TensorType};
use half::{bf16, f16};
use std::fmt::{self, Write};

/// The text form of a graph. Every value is printed, whether used or not.
pub fn print(graph: &Graph) -> String {
    graph.to_string()
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port =
            |p: &Port| p.quant.map_or(String::new(), |q| format!(" quant({}, {})", float(q.scale), q.zero_point));
        let inputs =
            join(&self.inputs, |p| format!("{} {}: {}{}", p.value, quoted(&p.name), self.ty(p.value), port(p)));
        writeln!(f, "graph @{}({inputs}) {{", graph_name(&self.name))?;
        for (id, value) in self.values() {
            match &value.def {
                Def::Input(_) => {}
                Def::Const(t) => {
                    writeln!(f, "    {id} = const {}{} {}", t.ty(), origin_text(&value.origin), constant(t))?;
                }
                Def::Node { op, inputs } => {
                    let op = op_text(op, &join(inputs, |v| v.to_string()));
                    writeln!(f, "    {id} = {op} : {}{}", value.ty, origin_text(&value.origin))?;
                }
            }
        }
        let outputs = join(&self.outputs, |p| format!("{} {}{}", p.value, quoted(&p.name), port(p)));
        writeln!(f, "    return{}{outputs}", if outputs.is_empty() { "" } else { " " })?;
        f.write_str("}\n")
    }
}

fn join<T>(items: impl IntoIterator<Item = T>, f: impl Fn(T) -> String) -> String {
    items.into_iter().map(f).collect::<Vec<_>>().join(", ")
}

/// A graph's name, quoted where it is not one word.
fn graph_name(name: &str) -> String {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let plain = name.starts_with(|c: char| word(c) && !c.is_ascii_digit()) && name.chars().all(word);
    if plain { name.to_string() } else { quoted(name) }
}

/// A string literal.
pub fn quoted(s: &str) -> String {
    let mut out = String::from("\"");
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Control characters, and those that change the direction or break of a line in an editor.
            c if c.is_control() || matches!(c, '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}') => {
                write!(out, "\\u{{{:x}}}", c as u32).expect("a string takes all")
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The names of an origin, each after a space or a comma; empty for none.
pub fn origin_text(origin: &Origin) -> String {
    if origin.is_empty() { String::new() } else { format!(" {}", join(origin.iter(), |name| quoted(name))) }
}

/// What a port's integers stand for, after a space; empty where unknown.
pub fn quant_text(quant: Option<QuantParams>) -> String {
    quant.map_or(String::new(), |q| format!(" quant({}, {})", float(q.scale), q.zero_point))
}

/// An `f32` that parses back to the same bits.
fn float(v: F32) -> String {
    if v.0.is_nan() { format!("nan(0x{:08x})", v.0.to_bits()) } else { v.to_string() }
}

/// How a constant is printed.
pub(super) enum ConstantForm {
    List,
    Splat,
    Hash,
}

pub(super) fn constant_form(t: &Tensor) -> ConstantForm {
    let count = t.ty().elements();
    let bits = t.dtype().bits();
    // Elements equal to the first: of packed types, only those that the list form holds are looked at.
    let uniform = count > 1
        && if bits >= 8 {
            let size = bits / 8;
            t.bytes().chunks_exact(size).all(|e| e == &t.bytes()[..size])
        } else {
            count <= INLINE_ELEMENTS && t.to_i64().windows(2).all(|w| w[0] == w[1])
        };
    if !(uniform || count <= INLINE_ELEMENTS) || !survives(t, uniform) {
        ConstantForm::Hash
    } else if uniform {
        ConstantForm::Splat
    } else {
        ConstantForm::List
    }
}

/// Whether the elements as numbers hold all of the bytes: not so for a `bool` of 2, a `t2` of -2, or set padding bits.
fn survives(t: &Tensor, uniform: bool) -> bool {
    if t.dtype().is_float() || t.dtype().bits() >= 16 {
        return true;
    }
    if t.dtype().is_byte_sized() {
        let one = &t.bytes()[..if uniform { 1 } else { t.bytes().len() }];
        return t.dtype() != DType::Bool || one.iter().all(|b| *b <= 1);
    }
    let values = t.to_i64();
    let (lo, hi) = t.dtype().int_range().expect("a packed type is an integer");
    values.iter().all(|v| (lo as i64..=hi as i64).contains(v)) && Tensor::from_i64(t.ty().clone(), &values) == *t
}

fn constant(t: &Tensor) -> String {
    match constant_form(t) {
        ConstantForm::Hash => format!("sha256:{}", t.sha256()),
        ConstantForm::List => format!("[{}]", elements(t).join(", ")),
        ConstantForm::Splat => {
            let count = if t.dtype().is_byte_sized() { 1 } else { t.ty().elements() };
            let size = (count * t.dtype().bits()).div_ceil(8);
            let first = Tensor::from_bytes(TensorType::new(t.dtype(), [count]), t.bytes().slice(..size));
            format!("splat({})", elements(&first.expect("a prefix of whole elements"))[0])
        }
    }
}

fn elements(t: &Tensor) -> Vec<String> {
    let halves = || t.bytes().chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let half = |bits: u16, value: f32| {
        if value.is_nan() { format!("nan(0x{bits:04x})") } else { F32(value).to_string() }
    };
    match t.dtype() {
        DType::F32 => t.to_f32().into_iter().map(|v| float(F32(v))).collect(),
        DType::F16 => halves().map(|b| half(b, f16::from_bits(b).to_f32())).collect(),
        DType::BF16 => halves().map(|b| half(b, bf16::from_bits(b).to_f32())).collect(),
        DType::Bool => t.to_i64().iter().map(|v| (*v != 0).to_string()).collect(),
        _ => t.to_i64().iter().map(i64::to_string).collect(),
    }
}

/// An operator with its arguments and attributes: `conv2d v0, v1 {layout = nhwc}`.
pub fn op_text(op: &Op, args: &str) -> String {
    let head = match op {
        Op::Map(steps) if steps.len() == 1 => step(&steps[0]),
        _ => op.name().to_string(),
    };
    let attrs = attributes(op).0;
    let space = if args.is_empty() { "" } else { " " };
    let attrs = if attrs.is_empty() { String::new() } else { format!(" {{{}}}", attrs.join(", ")) };
    format!("{head}{space}{args}{attrs}")
}

/// Attributes in the order in which they are printed.
struct Attributes(Vec<String>);

impl Attributes {
    fn add(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.0.push(format!("{key} = {value}"));
        self
    }

    fn list<T: ToString>(self, key: &str, values: &[T]) -> Self {
        self.add(key, format!("[{}]", join(values, T::to_string)))
    }

    /// A list that is left out where every element is `default`.
    fn list_unless<T: ToString + PartialEq>(self, key: &str, values: &[T], default: T) -> Self {
        if values.iter().all(|v| *v == default) { self } else { self.list(key, values) }
    }

    fn unless<T: fmt::Display + PartialEq>(self, key: &str, value: T, default: T) -> Self {
        if value == default { self } else { self.add(key, value) }
    }

    fn flag(mut self, key: &str, set: bool) -> Self {
        if set {
            self.0.push(key.to_string());
        }
        self
    }

    fn dequant(self, q: Option<QuantParams>) -> Self {
        match q {
            Some(q) => self.add("dequant", quant_params(q)),
            None => self,
        }
    }

    fn post(self, steps: &[Step]) -> Self {
        if steps.is_empty() { self } else { self.add("post", format!("[{}]", join(steps, step))) }
    }
}

fn attributes(op: &Op) -> Attributes {
    let a = Attributes(vec![]);
    match op {
        Op::Conv2d(o) => a
            .add("layout", layout(o.layout))
            .list_unless("stride", &o.stride, 1)
            .list_unless("pad", &o.pad, 0)
            .list_unless("dilation", &o.dilation, 1)
            .unless("groups", o.groups, 1)
            .unless("pad_value", o.pad_value, 0)
            .flag("bias", o.bias)
            .post(&o.post),
        Op::ConvTranspose2d(o) => a
            .add("layout", layout(o.layout))
            .list_unless("stride", &o.stride, 1)
            .list_unless("pad", &o.pad, 0)
            .list_unless("output_pad", &o.output_pad, 0)
            .list_unless("dilation", &o.dilation, 1)
            .unless("groups", o.groups, 1)
            .flag("bias", o.bias)
            .post(&o.post),
        Op::MatMul(o) => a.flag("trans_b", o.trans_b).flag("bias", o.bias).post(&o.post),
        Op::Pool2d(o) => a
            .add("layout", layout(o.layout))
            .list("kernel", &o.kernel)
            .list_unless("stride", &o.stride, 1)
            .list_unless("pad", &o.pad, 0)
            .list_unless("dilation", &o.dilation, 1)
            .flag("count_include_pad", o.kind == PoolKind::Average { count_include_pad: true })
            .dequant(o.dequant)
            .post(&o.post),
        Op::Reduce(o) => a.list("axes", &o.axes).flag("keepdims", o.keepdims).dequant(o.dequant).post(&o.post),
        Op::Map(steps) if steps.len() == 1 => a,
        Op::Map(steps) => a.add("steps", format!("[{}]", join(steps, step))),
        Op::Softmax(o) => a.add("axis", o.axis).dequant(o.dequant).post(&o.post),
        Op::LayerNorm(o) => a.add("axis", o.axis).add("epsilon", float(o.epsilon)).post(&o.post),
        Op::Recurrent(o) => {
            let a = match o.cell {
                Cell::Rnn => a,
                Cell::Gru { linear_before_reset } => a.flag("linear_before_reset", linear_before_reset),
                Cell::Lstm { input_forget, peepholes } => {
                    a.flag("input_forget", input_forget).flag("peepholes", peepholes)
                }
            };
            let a = a.flag("reverse", o.reverse);
            let a = match o.activations == o.cell.default_activations() {
                true => a,
                false => a.add("activations", format!("[{}]", join(&o.activations, |u| unary(*u)))),
            };
            match o.clip {
                Some(clip) => a.add("clip", float(clip)),
                None => a,
            }
        }
        Op::BatchNorm { epsilon } => a.add("epsilon", float(*epsilon)),
        Op::Reshape { shape } | Op::Broadcast { shape } => a.list("shape", shape),
        Op::Transpose { perm } => a.list("perm", perm),
        Op::Concat { axis } | Op::Gather { axis } | Op::Dequantize { axis } => a.add("axis", axis),
        Op::Slice { start, step, shape } => a.list("start", start).list_unless("step", step, 1).list("shape", shape),
        Op::Pad { before, after, mode } => a.add("mode", pad_mode(*mode)).list("before", before).list("after", after),
        Op::Where => a,
        Op::Resize(o) => a
            .list("shape", &o.shape)
            .add("scales", format!("[{}]", join(&o.scales, |s| float(*s))))
            .add("mode", resize_mode(o.mode))
            .add("coordinates", coordinate_mode(o.coordinates)),
        Op::ArgMax { axis, keepdims, last } => a.add("axis", axis).flag("keepdims", *keepdims).flag("last", *last),
        Op::Quantize { axis, dtype } => a.add("axis", axis).add("dtype", dtype),
    }
}

fn quant_params(q: QuantParams) -> String {
    format!("[{}, {}]", float(q.scale), q.zero_point)
}

/// A step with its arguments: `clip(0.0, 6.0)`.
fn step(step: &Step) -> String {
    let name = step.name();
    match step {
        Step::Unary(u) => unary(*u),
        Step::Binary { op: _, swapped, dequant } => {
            let args = Attributes(vec![]).flag("swapped", *swapped).dequant(*dequant).0;
            if args.is_empty() { name.to_string() } else { format!("{name}({})", args.join(", ")) }
        }
        Step::Cast(dtype) => format!("{name}({dtype})"),
        Step::Requant { rounding, zero, lo, hi, dtype } => {
            let rounding = match rounding {
                Rounding::F32HalfEven => "f32".to_string(),
                Rounding::Single { shift } => format!("single({shift})"),
            };
            format!("{name}({rounding}, {zero}, {lo}, {hi}, {dtype})")
        }
        Step::Dequant(q) => format!("{name}({}, {})", float(q.scale), q.zero_point),
        Step::Quant { q, lo, hi, dtype } => {
            format!("{name}({}, {}, {lo}, {hi}, {dtype})", float(q.scale), q.zero_point)
        }
    }
}

fn unary(u: Unary) -> String {
    let name = u.name();
    match u {
        Unary::LeakyRelu(alpha) | Unary::Elu(alpha) => format!("{name}({})", float(alpha)),
        Unary::Clip(lo, hi) => format!("{name}({}, {})", float(lo), float(hi)),
        Unary::HardSigmoid(alpha, beta) => format!("{name}({}, {})", float(alpha), float(beta)),
        Unary::Neg
        | Unary::Abs
        | Unary::Sign
        | Unary::Relu
        | Unary::Sigmoid
        | Unary::HardSwish
        | Unary::Tanh
        | Unary::Exp
        | Unary::Log
        | Unary::Sqrt
        | Unary::Reciprocal
        | Unary::Erf
        | Unary::Gelu
        | Unary::Softplus
        | Unary::Softsign
        | Unary::Floor
        | Unary::Ceil
        | Unary::Round
        | Unary::Not => name.to_string(),
    }
}

fn layout(l: Layout) -> &'static str {
    match l {
        Layout::Nchw => "nchw",
        Layout::Nhwc => "nhwc",
    }
}

fn pad_mode(m: PadMode) -> &'static str {
    match m {
        PadMode::Constant => "constant",
        PadMode::Reflect => "reflect",
        PadMode::Edge => "edge",
    }
}

fn resize_mode(m: ResizeMode) -> &'static str {
    match m {
        ResizeMode::Nearest(NearestMode::RoundPreferFloor) => "nearest(round_prefer_floor)",
        ResizeMode::Nearest(NearestMode::RoundPreferCeil) => "nearest(round_prefer_ceil)",
        ResizeMode::Nearest(NearestMode::Floor) => "nearest(floor)",
        ResizeMode::Nearest(NearestMode::Ceil) => "nearest(ceil)",
        ResizeMode::Linear => "linear",
    }
}

fn coordinate_mode(m: CoordinateMode) -> &'static str {
    match m {
        CoordinateMode::HalfPixel => "half_pixel",
        CoordinateMode::PytorchHalfPixel => "pytorch_half_pixel",
        CoordinateMode::AlignCorners => "align_corners",
        CoordinateMode::Asymmetric => "asymmetric",
    }
}
