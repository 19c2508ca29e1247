//! The kernel catalogue of the C backend: blocked kernels in portable C, with the DSP instructions of Armv7E-M and with the
//! vector instructions of Armv8.1-M (`mve_*`).
//!
//! Every kernel is printed from a template with all shapes, strides, pads and clamps as constants. Each sums in the order
//! of the operator's loop nest, so integers agree bit for bit and floats do where the compiler does not contract.

mod dense;
mod depthwise;
mod depthwise_rows;
mod direct;
mod gemm;
mod mve_dense;
mod mve_depthwise;
mod mve_gemm;
mod mve_pool;
mod mve_store;
mod nibbles;
pub(super) mod rescale;
mod residual;
mod runs;
mod strips;
mod winograd;
mod work;

use super::helpers::Helpers;
use super::nest::Printer;
use super::writer::Writer;
use gemm::Form;
use mcc_ir::catalogue::{Implementation, KernelSpec};
use mcc_ir::dtype::DType;
use mcc_ir::nest::{Expr, Index, NestBuilder, Var};
use mcc_ir::op::{Conv2d, Layout, Op, Step};
use mcc_ir::ops::steps;
use mcc_ir::plan::{Kernel, Overlap};
use mcc_ir::tensor::Tensor;
use mcc_ir::types::TensorType;
use mcc_ir::winograd::Winograd;
use rescale::Rescale;
use std::collections::BTreeSet;

/// What the C backend has beside the loop nests.
pub const CATALOGUE: &[Implementation] = &[
    Implementation { id: "conv2d-s8-mve", offer: mve_gemm::offer_conv },
    Implementation { id: mve_gemm::LEAN, offer: mve_gemm::offer_lean },
    Implementation { id: "matmul-s8-mve", offer: mve_gemm::offer_matmul },
    Implementation { id: "row-s8-mve", offer: mve_dense::offer },
    Implementation { id: "average-s8-mve", offer: mve_pool::offer },
    Implementation { id: "depthwise-s8-mve", offer: mve_depthwise::offer },
    Implementation { id: "conv2d-s8-winograd-4", offer: winograd::offer_f4 },
    Implementation { id: "conv2d-s8-winograd-2", offer: winograd::offer_f2 },
    Implementation { id: "conv2d-s8-winograd-stride-2", offer: winograd::offer_stride_2 },
    Implementation { id: "conv2d-s8-direct", offer: direct::offer },
    Implementation { id: "conv2d-s8-runs", offer: runs::offer },
    Implementation { id: "conv2d-s8-strips", offer: gemm::offer_conv_strips },
    Implementation { id: "matmul-s8-strips", offer: gemm::offer_matmul_strips },
    Implementation { id: "conv2d-s8-pairs", offer: gemm::offer_conv_pairs },
    Implementation { id: "conv2d-s8-dsp", offer: gemm::offer_conv_dsp },
    Implementation { id: "conv2d-s4-fours", offer: gemm::offer_conv_fours },
    Implementation { id: "conv2d-s4-dsp", offer: gemm::offer_conv_s4_dsp },
    Implementation { id: "conv2d-s4", offer: gemm::offer_conv_s4 },
    Implementation { id: "conv2d-s8", offer: gemm::offer_conv_s8 },
    Implementation { id: "conv2d-f32", offer: gemm::offer_conv_f32 },
    Implementation { id: "row-s8-pairs", offer: dense::offer },
    Implementation { id: "row-s8-bytes", offer: dense::offer_bytes },
    Implementation { id: "matmul-s8-pairs", offer: gemm::offer_matmul_pairs },
    Implementation { id: "matmul-s8-dsp", offer: gemm::offer_matmul_dsp },
    Implementation { id: "matmul-s4-fours", offer: gemm::offer_matmul_fours },
    Implementation { id: "matmul-s4-dsp", offer: gemm::offer_matmul_s4_dsp },
    Implementation { id: "matmul-s4", offer: gemm::offer_matmul_s4 },
    Implementation { id: "matmul-s8", offer: gemm::offer_matmul_s8 },
    Implementation { id: "matmul-f32", offer: gemm::offer_matmul_f32 },
    Implementation { id: "depthwise-s8-rows", offer: depthwise_rows::offer },
    Implementation { id: "depthwise-s8-dsp", offer: depthwise::offer_dsp },
    Implementation { id: "depthwise-s8", offer: depthwise::offer_s8 },
    Implementation { id: "depthwise-s4-dsp", offer: depthwise::offer_s4_dsp },
    Implementation { id: "depthwise-s4", offer: depthwise::offer_s4 },
    Implementation { id: "depthwise-f32", offer: depthwise::offer_f32 },
    Implementation { id: "nest-s4", offer: nibbles::offer },
];

/// The instructions that a template uses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    /// 8-bit x and weights by SXTB16 and SMLAD.
    Dsp,
    /// 8-bit x and weights in plain C.
    S8,
    F32,
}

impl Style {
    /// The element types of x and weights that it takes.
    fn takes(self, x: DType, w: DType) -> bool {
        match self {
            Style::F32 => (x, w) == (DType::F32, DType::F32),
            Style::Dsp | Style::S8 => matches!(x, DType::I8 | DType::U8) && w == DType::I8,
        }
    }
}

/// One kernel being printed.
pub struct Template<'a> {
    pub kernel: &'a Kernel,
    pub helpers: &'a mut Helpers,
    /// The function's name.
    pub name: &'a str,
    /// C expressions of the pointers to the inputs, then the output (the nest's tables are not used).
    pub args: &'a [String],
    /// Whether input 0 and the output lie at multiples of 4.
    pub aligned: [bool; 2],
    /// The values of the inputs that are constants, in row-major order.
    pub consts: &'a [Option<&'a Tensor>],
    /// Static functions that the kernel's own function calls.
    pub functions: String,
    /// Inputs that were read.
    pub used: BTreeSet<usize>,
    /// Whether the target has floating point in hardware.
    pub fpu: bool,
    /// The table of the factors by which sums become bytes, and their zero point, where integers do that.
    pub factors: Option<(String, i32)>,
}

impl Template<'_> {
    /// Prints the body of an implementation of [`CATALOGUE`]; `None` where there is none of that id.
    pub fn body(&mut self, w: &mut Writer) -> Option<()> {
        let k = self.kernel;
        match k.implementation {
            "conv2d-s8-mve" | "matmul-s8-mve" | mve_gemm::LEAN => mve_gemm::print(self, w),
            "depthwise-s8-mve" => mve_depthwise::print(self, w),
            "average-s8-mve" => mve_pool::print(self, w),
            "row-s8-mve" => mve_dense::print(self, w),
            "conv2d-s8-winograd-4" => winograd::print(self, w, Winograd::F4),
            "conv2d-s8-winograd-2" => winograd::print(self, w, Winograd::F2),
            "conv2d-s8-winograd-stride-2" => winograd::print(self, w, Winograd::Stride2),
            "conv2d-s8-direct" => direct::print(self, w),
            "conv2d-s8-runs" => runs::print(self, w),
            "conv2d-s8-strips" | "matmul-s8-strips" => gemm::print_strips(self, w),
            "row-s8-pairs" => dense::print(self, w, true),
            "row-s8-bytes" => dense::print(self, w, false),
            "conv2d-s8-pairs" | "matmul-s8-pairs" => gemm::print(self, w, Style::Dsp, Form::Pairs),
            "conv2d-s4-fours" | "matmul-s4-fours" => gemm::print(self, w, Style::Dsp, Form::Fours),
            "conv2d-s4-dsp" | "matmul-s4-dsp" => gemm::print(self, w, Style::Dsp, Form::Nibbles),
            "conv2d-s4" | "matmul-s4" => {
                self.define_factors();
                gemm::print(self, w, Style::S8, Form::Nibbles);
            }
            "conv2d-s8-dsp" | "matmul-s8-dsp" => gemm::print(self, w, Style::Dsp, Form::Bytes),
            "conv2d-s8" | "matmul-s8" => {
                self.define_factors();
                gemm::print(self, w, Style::S8, Form::Bytes);
            }
            "conv2d-f32" | "matmul-f32" => gemm::print(self, w, Style::F32, Form::Bytes),
            "depthwise-s8-rows" => depthwise_rows::print(self, w),
            "depthwise-s8-dsp" | "depthwise-s4-dsp" => depthwise::print(self, w, Style::Dsp),
            "depthwise-s8" | "depthwise-s4" => {
                self.define_factors();
                depthwise::print(self, w, Style::S8);
            }
            "depthwise-f32" => depthwise::print(self, w, Style::F32),
            "nest-s4" => nibbles::print(self, w),
            _ => return None,
        }
        Some(())
    }

    /// Puts a static function that was printed to a writer of its own before the kernel's.
    fn function(&mut self, w: &mut Writer) {
        self.functions.push_str(&std::mem::take(w).finish());
        self.functions.push('\n');
    }

    /// Lets sums become bytes by integer factors where floats are slow and the epilogue begins with that.
    fn define_factors(&mut self) {
        let k = self.kernel;
        let channels = k.out_type.shape.last().copied().unwrap_or(0);
        let rescale = Rescale::of(&k.op, self.consts, k.arg_types[0].dtype, channels);
        let Some(rescale) = rescale.filter(|_| !self.fpu) else { return };
        let table = format!("{}_factors", self.name);
        let w = &mut Writer::default();
        w.line(format!("static const uint32_t {table}[{channels}] = {{"));
        let words: Vec<String> = (0..channels).map(|c| format!("0x{:x}u", rescale.plain(c).1)).collect();
        for line in words.chunks(8) {
            w.line(format!("    {},", line.join(", ")));
        }
        w.line("};");
        self.function(w);
        self.factors = Some((table, rescale.zero()));
    }

    fn arg(&mut self, i: usize) -> String {
        self.used.insert(i);
        self.args[i].clone()
    }

    /// What a sum of output channel `c + j` starts from.
    fn start(&mut self, bias: bool, c: &str, j: usize, float: bool) -> String {
        match (bias, float) {
            (true, _) => format!("{}[{}]", self.arg(2), plus(c, j)),
            (false, true) => "0.0f".into(),
            (false, false) => "0".into(),
        }
    }

    /// Applies the epilogue to the accumulator `sum` and stores output channel `c + j` of pixel `p + i`.
    ///
    /// `p` and `c` are C expressions, constants where they are numbers.
    fn store(&mut self, w: &mut Writer, sum: &str, p: (&str, usize), c: (&str, usize)) {
        let Some((table, zero)) = self.factors.clone() else { return self.store_from(w, 0, sum, p, c) };
        let rescale = self.helpers.get("rescale");
        w.block_open();
        let factor = format!("{table}[{}]", plus(c.0, c.1));
        w.line(format!("const int32_t byte = {rescale}({sum}, {factor}, {zero}, {});", rescale::SHIFT));
        self.store_from(w, 1, "byte", p, c);
        w.close();
    }

    /// Applies the steps of the epilogue from step `first` on, of which the ones before take an operand each.
    fn store_from(&mut self, w: &mut Writer, first: usize, sum: &str, p: (&str, usize), c: (&str, usize)) {
        let acc = match self.kernel.op.post().and_then(|post| post[..first].last()) {
            Some(Step::Requant { dtype, .. }) => *dtype,
            _ if self.kernel.arg_types[0].dtype == DType::F32 => DType::F32,
            _ => DType::I32,
        };
        self.store_as(w, first, (sum, acc), p, c);
    }

    /// The same from a value of type `acc`.
    fn store_as(
        &mut self,
        w: &mut Writer,
        first: usize,
        (sum, acc): (&str, DType),
        p: (&str, usize),
        c: (&str, usize),
    ) {
        let k = self.kernel;
        let own = k.op.own_inputs().unwrap_or(0) + first;
        let post = k.op.post().cloned().unwrap_or_default();
        let spec = flat(&k.op, &k.arg_types, &k.out_type).expect("offered only where the epilogue is flat");
        let types: Vec<&TensorType> = spec.args.iter().collect();
        let mut b = NestBuilder::new(&types, &spec.out);
        let zero = if acc == DType::F32 { Expr::F32(0.0) } else { Expr::I32(0) };
        let reg = b.let_(zero);
        let index = |var: u32, (name, more): (&str, usize)| match name.parse::<i64>() {
            Ok(n) => Index::constant(n + more as i64),
            Err(_) => Index::var(Var(var)).offset(more as i64),
        };
        steps::store(&mut b, &post[first..], acc, Expr::Reg(reg), &[index(0, p), index(1, c)], own);
        let nest = b.finish();
        let mut printer = Printer::new(&nest, self.helpers, self.args);
        printer.vars.insert(0, p.0.into());
        printer.vars.insert(1, c.0.into());
        printer.regs.insert(reg.0, sum.into());
        // The first statement defines the accumulator.
        let body = &nest.body[1..];
        if body.len() > 1 {
            w.block_open();
        }
        printer.block(w, body);
        self.used.extend(printer.used.iter().filter(|&&a| a < types.len()));
        if body.len() > 1 {
            w.close();
        }
    }
}

/// `c + j`, shorter where one of them is 0 or both are numbers.
fn plus(c: &str, j: usize) -> String {
    match (c.parse::<usize>(), j) {
        (Ok(c), j) => (c + j).to_string(),
        (_, 0) => c.into(),
        _ => format!("{c} + {j}"),
    }
}

/// `text + k`; the text binds at least as tightly as a sum.
pub fn offset(text: String, k: i32) -> String {
    match k {
        0 => text,
        k if k < 0 => format!("{text} - {}", k.unsigned_abs()),
        k => format!("{text} + {k}"),
    }
}

/// `k * i + c`, in its simplest form.
fn affine(k: usize, i: &str, c: i64) -> String {
    let term = match (k, i.parse::<usize>()) {
        (_, Ok(i)) => return (k as i64 * i as i64 + c).to_string(),
        (1, _) => i.into(),
        _ => format!("{i} * {k}"),
    };
    match c {
        0 => term,
        c if c < 0 => format!("{term} - {}", -c),
        c => format!("{term} + {c}"),
    }
}

/// An output seen as a matrix `[pixels, channels]`, and the arguments with it.
struct Flat {
    args: Vec<TensorType>,
    out: TensorType,
}

/// The flat view of an operator whose last output dimension is the channel; `None` where an operand of the epilogue
/// neither has the output's size nor depends on the channel only.
fn flat(op: &Op, arg_types: &[TensorType], out: &TensorType) -> Option<Flat> {
    let own = op.own_inputs()?;
    let channels = *out.shape.last()?;
    let pixels = out.elements().checked_div(channels)?;
    let mut args = arg_types[..own].to_vec();
    for ty in &arg_types[own..] {
        let n = ty.elements();
        let shape = if n == 1 {
            vec![1]
        } else if n == channels && ty.shape.last() == Some(&channels) {
            vec![channels]
        } else if ty.shape == out.shape || n == out.elements() {
            vec![pixels, channels]
        } else {
            return None;
        };
        args.push(TensorType::new(ty.dtype, shape));
    }
    Some(Flat { args, out: TensorType::new(out.dtype, [pixels, channels]) })
}

/// The geometry of an NHWC convolution.
struct Geometry {
    batch: usize,
    height: usize,
    width: usize,
    channels: usize,
    kernel: [usize; 2],
    out: [usize; 2],
    outs: usize,
    stride: [usize; 2],
    pad: [usize; 2],
    dilation: [usize; 2],
}

impl Geometry {
    /// `None` for NCHW, where channels are no inner dimension.
    fn new(o: &Conv2d, arg_types: &[TensorType], out: &TensorType) -> Option<Geometry> {
        if o.layout != Layout::Nhwc {
            return None;
        }
        let (x, w) = (&arg_types[0].shape, &arg_types[1].shape);
        Some(Geometry {
            batch: x[0],
            height: x[1],
            width: x[2],
            channels: x[3],
            kernel: [w[1], w[2]],
            out: [out.shape[1], out.shape[2]],
            outs: out.shape[3],
            stride: o.stride,
            pad: [o.pad[0], o.pad[1]],
            dilation: o.dilation,
        })
    }

    /// Rows and columns that a window spans, less one.
    fn reach(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1) * self.dilation[axis]
    }

    /// The first element of x that output pixel `p` and those after it read, in raster order.
    fn first_read(&self, p: usize) -> usize {
        let [rows, columns] = self.out;
        let (n, oy, ox) = (p / (rows * columns), p / columns % rows, p % columns);
        let from = |axis: usize, out: usize| (out * self.stride[axis]).saturating_sub(self.pad[axis]);
        let at = |oy: usize, x: usize| (n * self.height + from(0, oy)) * self.width + x;
        // The next row of windows may begin before this window: in the same row of x, but at its left end.
        at(oy, from(1, ox)).min(at(oy + 1, 0)) * self.channels
    }

    /// Whether some window leaves the image along an axis.
    fn clips(&self, axis: usize) -> bool {
        let size = [self.height, self.width][axis];
        self.pad[axis] > 0 || (self.out[axis] - 1) * self.stride[axis] + self.reach(axis) >= size
    }
}

/// How far the output may overlap x in a kernel that makes `step` pixels at a time, all their channels, in raster order.
///
/// `first_read` is the first element of x that this pixel and all later ones read. `aside`: a step reads all it needs
/// before it writes; else it may read its pixels' elements until it is done.
fn ahead(spec: &KernelSpec<'_>, step: usize, aside: bool, first_read: impl Fn(usize) -> usize) -> Overlap {
    let pixels = spec.out_type.elements() / spec.out_type.shape.last().expect("a kernel with channels");
    let steps = (0..pixels).step_by(step).map(|p| {
        let done = (p + step).min(pixels);
        (done, if aside { done } else { p })
    });
    ahead_by(spec, steps, first_read)
}

/// The same of steps of any size: each up to which pixel it writes, and from which pixel on x is read once it has begun
/// to write.
fn ahead_by(
    spec: &KernelSpec<'_>,
    steps: impl Iterator<Item = (usize, usize)>,
    first_read: impl Fn(usize) -> usize,
) -> Overlap {
    let (x, out) = (&spec.arg_types[0], spec.out_type);
    let pixels = out.elements() / out.shape.last().expect("a kernel with channels");
    let pixel = out.bytes() / pixels;
    let lead = steps
        .filter(|(_, next)| *next < pixels)
        .map(|(done, next)| (done.min(pixels) * pixel).saturating_sub(first_read(next) * x.bytes() / x.elements()));
    Overlap::Ahead(lead.max().unwrap_or(0))
}

/// Whether a kernel is one of a style: constant weights of the right types and an epilogue that is flat.
fn suits(spec: &KernelSpec<'_>, style: Style) -> bool {
    style.takes(spec.arg_types[0].dtype, spec.arg_types[1].dtype) && is_flat(spec)
}

/// The same where the integer styles take x of 16 bits too.
fn suits_wide(spec: &KernelSpec<'_>, style: Style) -> bool {
    let wide = style != Style::F32 && (spec.arg_types[0].dtype, spec.arg_types[1].dtype) == (DType::I16, DType::I8);
    suits(spec, style) || wide && is_flat(spec)
}

/// Constant weights, and an epilogue that sees the output as pixels times channels.
fn is_flat(spec: &KernelSpec<'_>) -> bool {
    spec.consts[1].is_some()
        && spec.out_type.elements() > 0
        && spec.arg_types[1].elements() > 0
        && flat(spec.op, spec.arg_types, spec.out_type).is_some()
        && spec.op.post().is_some_and(|p| p.iter().all(printable))
}

/// Whether a step's result is a 32-bit scalar, which all steps' results are but casts to 64 bits.
fn printable(step: &Step) -> bool {
    !matches!(step, Step::Cast(DType::I64))
}
