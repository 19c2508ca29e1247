//! Depthwise convolution, channels innermost.
//!
//! Windows inside the image run over their taps without a test; only those at the border look at each tap. The DSP form
//! takes four channels at a time.

use super::{Geometry, Style, Template, affine, suits};
use crate::c::writer::Writer;
use mcc_ir::catalogue::{KernelSpec, Offer};
use mcc_ir::dtype::DType;
use mcc_ir::op::Op;
use mcc_ir::packing::Packing;
use mcc_ir::target::{Feature, Target};

/// Windows of up to this many taps are written out.
const UNROLLED: usize = 12;

pub fn offer_dsp(spec: &KernelSpec<'_>, target: &Target) -> Option<Offer> {
    target.has(Feature::Dsp).then(|| offer(spec, Style::Dsp))?
}

pub fn offer_s8(spec: &KernelSpec<'_>, _: &Target) -> Option<Offer> {
    offer(spec, Style::S8)
}

pub fn offer_f32(spec: &KernelSpec<'_>, _: &Target) -> Option<Offer> {
    offer(spec, Style::F32)
}

fn offer(spec: &KernelSpec<'_>, style: Style) -> Option<Offer> {
    let Op::Conv2d(o) = spec.op else { return None };
    let g = Geometry::new(o, spec.arg_types, spec.out_type)?;
    let depthwise = o.groups == g.channels && g.outs == g.channels && g.channels > 1;
    if !depthwise || !suits(spec, style) || (style == Style::Dsp && g.channels % 4 != 0) {
        return None;
    }
    let mut packings = vec![Packing::None; spec.arg_types.len()];
    packings[1] = Packing::Permute(vec![1, 2, 3, 0]);
    let per_mac = match style {
        Style::Dsp => 3.0,
        Style::S8 => 6.0,
        Style::F32 => 5.0,
    };
    let taps = (g.kernel[0] * g.kernel[1]) as f64;
    Some(Offer { packings, scratch_bytes: 0, cycles: spec.out_type.elements() as f64 * (per_mac * taps + 20.0) })
}

pub fn print(t: &mut Template<'_>, w: &mut Writer, style: Style) {
    let k = t.kernel;
    let Op::Conv2d(o) = &k.op else { unreachable!("offered for convolutions only") };
    let g = Geometry::new(o, &k.arg_types, &k.out_type).expect("offered for NHWC only");
    let (c, width) = (g.channels, g.width);
    let step = if style == Style::Dsp { 4 } else { 1 };
    if g.batch > 1 {
        w.open_for("n", g.batch, 1);
    }
    w.open_for("oy", g.out[0], 1);
    w.open_for("ox", g.out[1], 1);
    w.line(format!("const int32_t y0 = {};", affine(g.stride[0], "oy", -(g.pad[0] as i64))));
    w.line(format!("const int32_t x0 = {};", affine(g.stride[1], "ox", -(g.pad[1] as i64))));
    let row = if g.batch > 1 { format!("(n * {} + oy)", g.out[0]) } else { "oy".into() };
    w.line(format!("const int32_t p = {} + ox;", affine(g.out[1], &row, 0)));
    let image = if g.batch > 1 { format!("n * {} + ", g.height * width * c) } else { String::new() };
    let mut tests = Vec::new();
    for (axis, name, size) in [(0, "y0", g.height), (1, "x0", width)] {
        if g.clips(axis) {
            tests.push(format!("{name} >= 0 && {name} <= {}", size as i64 - 1 - g.reach(axis) as i64));
        }
    }
    let x = t.arg(0);
    let taps = Taps { style, unsigned: k.arg_types[0].dtype == DType::U8, bias: o.bias };
    if !tests.is_empty() {
        w.open(format!("if ({})", tests.join(" && ")));
    }
    w.line(format!("const {} *const from = {x} + {image}(y0 * {width} + x0) * {c};", taps.x_type()));
    w.open_for("c", c, step);
    taps.start(t, w);
    let offset = |ky: usize, kx: usize| (ky * g.dilation[0] * width + kx * g.dilation[1]) * c;
    if g.kernel[0] * g.kernel[1] <= UNROLLED {
        for ky in 0..g.kernel[0] {
            for kx in 0..g.kernel[1] {
                let value = taps.load(t, "from", &affine(1, "c", offset(ky, kx) as i64));
                taps.tap(t, w, &value, &affine(1, "c", ((ky * g.kernel[1] + kx) * c) as i64));
            }
        }
    } else {
        w.open_for("ky", g.kernel[0], 1);
        w.open_for("kx", g.kernel[1], 1);
        let at = format!("ky * {} + kx * {} + c", offset(1, 0), offset(0, 1));
        let value = taps.load(t, "from", &at);
        taps.tap(t, w, &value, &format!("(ky * {} + kx) * {c} + c", g.kernel[1]));
        w.close();
        w.close();
    }
    taps.store(t, w);
    w.close();
    if !tests.is_empty() {
        w.or_else();
        w.open_for("c", c, step);
        taps.start(t, w);
        w.open_for("ky", g.kernel[0], 1);
        w.line(format!("const int32_t y = y0 + {};", affine(g.dilation[0], "ky", 0)));
        w.open_for("kx", g.kernel[1], 1);
        w.line(format!("const int32_t x1 = x0 + {};", affine(g.dilation[1], "kx", 0)));
        w.line(format!("const int inside = (uint32_t)y < {}u && (uint32_t)x1 < {width}u;", g.height));
        let value = taps.load(t, &x, &format!("{image}(y * {width} + x1) * {c} + c"));
        let value = format!("inside ? {value} : {}", taps.pad(o.pad_value));
        taps.tap(t, w, &value, &format!("(ky * {} + kx) * {c} + c", g.kernel[1]));
        w.close();
        w.close();
        taps.store(t, w);
        w.close();
        w.close();
    }
    w.close();
    w.close();
    if g.batch > 1 {
        w.close();
    }
}

/// How the taps of one to four channels are read and summed.
struct Taps {
    style: Style,
    unsigned: bool,
    bias: bool,
}

impl Taps {
    fn x_type(&self) -> &'static str {
        match (self.style, self.unsigned) {
            (Style::F32, _) => "float",
            (_, true) => "uint8_t",
            (_, false) => "int8_t",
        }
    }

    fn sums(&self) -> usize {
        if self.style == Style::Dsp { 4 } else { 1 }
    }

    fn start(&self, t: &mut Template<'_>, w: &mut Writer) {
        let float = self.style == Style::F32;
        for j in 0..self.sums() {
            let start = t.start(self.bias, "c", j, float);
            w.line(format!("{} s{j} = {start};", if float { "float" } else { "int32_t" }));
        }
    }

    /// The value of x at an index.
    fn load(&self, t: &mut Template<'_>, pointer: &str, index: &str) -> String {
        match self.style {
            Style::Dsp => format!("{}({pointer} + {index})", t.helpers.get("load_4")),
            Style::S8 | Style::F32 => format!("{pointer}[{index}]"),
        }
    }

    /// What a tap reads outside the image.
    fn pad(&self, value: i32) -> String {
        match self.style {
            Style::F32 => "0.0f".into(),
            Style::S8 => value.to_string(),
            Style::Dsp => format!("0x{:08x}u", value as u8 as u32 * 0x0101_0101),
        }
    }

    /// Adds `x` times the weight at index `weight`.
    fn tap(&self, t: &mut Template<'_>, w: &mut Writer, x: &str, weight: &str) {
        let weights = t.arg(1);
        match self.style {
            Style::Dsp => {
                let load = t.helpers.get("load_4");
                let (signed, smlabb) = (t.helpers.get("sxtb16"), t.helpers.get("smlabb"));
                let extend = t.helpers.get(if self.unsigned { "uxtb16" } else { "sxtb16" });
                let smlatt = smlabb.replace("smlabb", "smlatt");
                w.block_open();
                w.line(format!("const uint32_t x4 = {x}, w4 = {load}({weights} + {weight});"));
                w.line(format!("const uint32_t a = {extend}(x4), b = {extend}_ror8(x4);"));
                w.line(format!("const uint32_t u = {signed}(w4), v = {signed}_ror8(w4);"));
                w.line(format!("s0 = {smlabb}(a, u, s0);"));
                w.line(format!("s1 = {smlabb}(b, v, s1);"));
                w.line(format!("s2 = {smlatt}(a, u, s2);"));
                w.line(format!("s3 = {smlatt}(b, v, s3);"));
                w.close();
            }
            Style::S8 => {
                let mac = t.helpers.get("mac");
                w.line(format!("s0 = {mac}(s0, {x}, {weights}[{weight}]);"));
            }
            Style::F32 => {
                let x = if x.contains('?') { format!("({x})") } else { x.into() };
                w.line(format!("s0 += {x} * {weights}[{weight}];"));
            }
        }
    }

    fn store(&self, t: &mut Template<'_>, w: &mut Writer) {
        for j in 0..self.sums() {
            t.store(w, &format!("s{j}"), ("p", 0), ("c", j));
        }
    }
}
