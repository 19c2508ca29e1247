//! Depthwise convolution, channels innermost.
//!
//! Windows inside the image run over their taps without a test; those at the border find the place of each tap once. The DSP form
//! takes four channels at a time.

use super::work::{self, Windows};
use super::{Geometry, Style, Template, affine, ahead, nibbles, offset, suits_wide};
use crate::c::consts::c_type;
use crate::c::writer::Writer;
use mcc_ir::catalogue::{KernelSpec, Offer};
use mcc_ir::costs::{Code, Work};
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

pub fn offer_s4_dsp(spec: &KernelSpec<'_>, target: &Target) -> Option<Offer> {
    target.has(Feature::Dsp).then(|| offer_nibbles(spec, Style::Dsp))?
}

pub fn offer_s4(spec: &KernelSpec<'_>, _: &Target) -> Option<Offer> {
    offer_nibbles(spec, Style::S8)
}

/// A form with weights of four bits.
fn offer_nibbles(spec: &KernelSpec<'_>, style: Style) -> Option<Offer> {
    let mut offer = offer(spec, style)?;
    offer.packings[1] = offer.packings[1].clone().nibbles(spec.consts[1]?)?;
    Some(offer)
}

pub fn offer_f32(spec: &KernelSpec<'_>, _: &Target) -> Option<Offer> {
    offer(spec, Style::F32)
}

fn offer(spec: &KernelSpec<'_>, style: Style) -> Option<Offer> {
    let Op::Conv2d(o) = spec.op else { return None };
    let g = Geometry::new(o, spec.arg_types, spec.out_type)?;
    let depthwise = o.groups == g.channels && g.outs == g.channels && g.channels > 1;
    if !depthwise || !suits_wide(spec, style) || (style == Style::Dsp && g.channels % 4 != 0) {
        return None;
    }
    let mut packings = vec![Packing::None; spec.arg_types.len()];
    packings[1] = Packing::Permute(vec![1, 2, 3, 0]);
    let work = work::epilogue(counts(&g, style), spec);
    let columns = if style == Style::Dsp { 4 } else { 1 };
    let code = work::code(spec, usize::MAX, columns).and("taps", (g.kernel[0] * g.kernel[1]).min(UNROLLED) as f64);
    let overlap = Some(ahead(spec, 1, false, |p| g.first_read(p)));
    Some(Offer { packings, scratch_bytes: 0, work, code: Code::own(code), overlap })
}

/// The work without the epilogue.
fn counts(g: &Geometry, style: Style) -> Work {
    let windows = Windows::new(g);
    let taps = g.kernel[0] * g.kernel[1];
    let columns = g.channels.div_ceil(if style == Style::Dsp { 4 } else { 1 }) as f64;
    let names = match taps {
        0..=UNROLLED => ["taps", "border taps"],
        _ => ["taps in loops", "border taps in loops"],
    };
    let taps = taps as f64;
    Work::default()
        .and("runs of the kernel", 1.0)
        .and("windows", windows.inside)
        .and("columns", (windows.inside + windows.border) * columns)
        .and(names[0], windows.inside * columns * taps)
        .and("border windows", windows.border)
        .and("border places", windows.border * taps)
        .and(names[1], windows.border * columns * taps)
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
    let nibbles = k
        .implementation
        .starts_with("depthwise-s4")
        .then(|| nibbles::low(t.consts[1]).expect("offered only where the weights fit"));
    let taps = Taps { style, x: k.arg_types[0].dtype, bias: o.bias, nibbles };
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
                let index = affine(1, "c", offset(ky, kx) as i64);
                taps.tap(t, w, ("from", &index), &affine(1, "c", ((ky * g.kernel[1] + kx) * c) as i64));
            }
        }
    } else {
        w.open_for("ky", g.kernel[0], 1);
        w.open_for("kx", g.kernel[1], 1);
        let index = format!("ky * {} + kx * {} + c", offset(1, 0), offset(0, 1));
        taps.tap(t, w, ("from", &index), &format!("(ky * {} + kx) * {c} + c", g.kernel[1]));
        w.close();
        w.close();
    }
    taps.store(t, w);
    w.close();
    if !tests.is_empty() {
        // At the border: where each tap reads, found once for all channels; outside the image, from a row of padding.
        let all = g.kernel[0] * g.kernel[1];
        let pad = format!("{}_pad", t.name);
        let values = vec![taps.pad(o.pad_value); c].join(", ");
        t.functions.push_str(&format!(
            "/* What windows read outside the image. */\n_Alignas(4) static const {} {pad}[{c}] = {{{values}}};\n\n",
            taps.x_type()
        ));
        w.or_else();
        w.line(format!("const {} *from[{all}];", taps.x_type()));
        w.open_for("ky", g.kernel[0], 1);
        w.line(format!("const int32_t y = y0 + {};", affine(g.dilation[0], "ky", 0)));
        w.open_for("kx", g.kernel[1], 1);
        w.line(format!("const int32_t x1 = x0 + {};", affine(g.dilation[1], "kx", 0)));
        w.line(format!("const int inside = (uint32_t)y < {}u && (uint32_t)x1 < {width}u;", g.height));
        let at = format!("{x} + {image}(y * {width} + x1) * {c}");
        w.line(format!("from[ky * {} + kx] = inside ? {at} : {pad};", g.kernel[1]));
        w.close();
        w.close();
        w.open_for("c", c, step);
        taps.start(t, w);
        if all <= UNROLLED {
            for k in 0..all {
                taps.tap(t, w, (&format!("from[{k}]"), "c"), &affine(1, "c", (k * c) as i64));
            }
        } else {
            w.open_for("k", all, 1);
            taps.tap(t, w, ("from[k]", "c"), &format!("k * {c} + c"));
            w.close();
        }
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
    x: DType,
    bias: bool,
    /// Of weights of four bits, what is added to each.
    nibbles: Option<i32>,
}

impl Taps {
    fn x_type(&self) -> &'static str {
        c_type(self.x)
    }

    fn sums(&self) -> usize {
        if self.style == Style::Dsp { 4 } else { 1 }
    }

    fn start(&self, t: &mut Template<'_>, w: &mut Writer) {
        let starts: Vec<String> =
            (0..self.sums()).map(|j| t.start(self.bias, "c", j, self.style == Style::F32)).collect();
        w.line(match self.style {
            Style::Dsp => format!("int32_t s[4] = {{{}}};", starts.join(", ")),
            Style::S8 => format!("int32_t s = {};", starts[0]),
            Style::F32 => format!("float s = {};", starts[0]),
        });
    }

    /// What a tap reads outside the image.
    fn pad(&self, value: i32) -> String {
        if self.style == Style::F32 { "0.0f".into() } else { value.to_string() }
    }

    /// Adds element `index` behind a pointer times the weight at index `weight`.
    fn tap(&self, t: &mut Template<'_>, w: &mut Writer, (x, index): (&str, &str), weight: &str) {
        let weights = t.arg(1);
        if let Some(low) = self.nibbles {
            if self.style == Style::Dsp {
                let tap = t.helpers.get(match self.x {
                    DType::U8 => "taps_nibbles_u8",
                    DType::I16 => "taps_nibbles_s16",
                    _ => "taps_nibbles_s8",
                });
                let half = weight.parse::<usize>().map_or(format!("({weight}) / 2"), |at| (at / 2).to_string());
                let pair = (low as u16 as u32) << 16 | low as u16 as u32;
                return w.line(format!("{tap}(s, {x} + {index}, {weights} + {half}, 0x{pair:08x}u);"));
            }
            let value = offset(format!("{}({weights}, {weight})", t.helpers.get("nibble")), low);
            return w.line(format!("s = {}(s, {x}[{index}], {value});", t.helpers.get("mac")));
        }
        w.line(match self.style {
            Style::Dsp => {
                let tap = t.helpers.get(match self.x {
                    DType::U8 => "taps_u8",
                    DType::I16 => "taps_s16",
                    _ => "taps_s8",
                });
                format!("{tap}(s, {x} + {index}, {weights} + {weight});")
            }
            Style::S8 => format!("s = {}(s, {x}[{index}], {weights}[{weight}]);", t.helpers.get("mac")),
            Style::F32 => format!("s += {x}[{index}] * {weights}[{weight}];"),
        });
    }

    fn store(&self, t: &mut Template<'_>, w: &mut Writer) {
        for j in 0..self.sums() {
            let sum = if self.style == Style::Dsp { format!("s[{j}]") } else { "s".into() };
            t.store(w, &sum, ("p", 0), ("c", j));
        }
    }
}
