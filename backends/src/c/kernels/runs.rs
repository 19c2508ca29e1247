//! Convolution of images with few channels: a row of a window is one run of values.
//!
//! In channels-last images the pixels under a row of a window lie side by side, so the row is a run of `width * channels`
//! values whatever the number of channels. The rows of one line of windows are held in working memory, widened to 16 bits
//! in their order and with their padding, one after the other: when the windows move down, they move up. All distances are
//! then constants, and a function made for them multiplies a whole window without a loop ([`crate::c::quads`]).

use super::{Geometry, Template, affine, ahead, strips, work};
use crate::c::quads::Runs;
use crate::c::writer::Writer;
use mcc_ir::catalogue::{KernelSpec, Offer};
use mcc_ir::costs::{Code, Work};
use mcc_ir::dtype::DType;
use mcc_ir::op::Op;
use mcc_ir::packing::Packing;
use mcc_ir::plan::Overlap;
use mcc_ir::target::Target;

/// Words of two values in a window, for each of which there is code.
const MOST_WORDS: usize = 64;

pub fn offer(spec: &KernelSpec<'_>, target: &Target) -> Option<Offer> {
    let Op::Conv2d(o) = spec.op else { return None };
    let g = Geometry::new(o, spec.arg_types, spec.out_type)?;
    let dense = o.groups == 1 && g.channels > 0 && g.dilation == [1, 1];
    if !dense || g.kernel[0] * Rows::run(&g).div_ceil(2) > MOST_WORDS || !strips::fits(spec, target) {
        return None;
    }
    let rows = Rows::new(&g);
    if !rows.helper(&g).fits() {
        return None;
    }
    let mut packings = vec![Packing::None; spec.arg_types.len()];
    packings[1] = Packing::PairRuns { rows: strips::CHANNELS, run: Rows::run(&g) };
    let goes_on = strips::goes_on(spec.op.post());
    // Before a line of output, the rows of its first window have been read but for the last ones.
    let ahead = || {
        ahead(spec, g.out[1], true, |p| {
            let (line, image) = (p / g.out[1] % g.out[0], p / g.out[1] / g.out[0]);
            let read = (line * g.stride[0] + g.kernel[0]).saturating_sub(g.stride[0] + g.pad[0]);
            let rows = if line == 0 { 0 } else { read.min(g.height) };
            (image * g.height + rows) * g.width * g.channels
        })
    };
    let size = Work::default().and("functions", 1.0).and("words", (g.kernel[0] * rows.words) as f64);
    let overlap = if grows(&g) { behind(&g) } else { ahead() };
    Some(Offer {
        packings,
        scratch_bytes: rows.bytes(&g) + if goes_on { 2 * g.outs } else { 0 },
        work: work::rest(rows.work(&g), spec),
        code: Code::own(work::rest_code(spec)).sharing_one(rows.helper(&g).name().into(), "runs", size),
        overlap: Some(overlap),
    })
}

/// Whether lines are made from the last one down: pixels that become larger, each from itself.
fn grows(g: &Geometry) -> bool {
    let plain = g.batch == 1 && g.kernel == [1, 1] && g.stride == [1, 1] && !g.clips(0) && !g.clips(1);
    plain && g.outs > g.channels
}

/// Of lines that grow, each is read before it is written over those above.
fn behind(g: &Geometry) -> Overlap {
    Overlap::Behind((g.height - 1) * g.width * (g.outs - g.channels))
}

/// The rows of a line of windows.
struct Rows {
    /// Words of a window's row.
    words: usize,
    /// Values of a row in working memory; a multiple of 8.
    length: usize,
}

impl Rows {
    fn new(g: &Geometry) -> Rows {
        let words = Rows::run(g).div_ceil(2);
        let last = (g.out[1].next_multiple_of(2) - 1) * g.stride[1] * g.channels;
        Rows { words, length: (last + 2 * words).next_multiple_of(8) }
    }

    /// Values of a window's row.
    fn run(g: &Geometry) -> usize {
        g.kernel[1] * g.channels
    }

    fn work(&self, g: &Geometry) -> Work {
        let lines = g.batch * g.out[0];
        let pairs = lines * g.out[1].div_ceil(2);
        let quads = pairs * (g.outs / strips::CHANNELS);
        let kept = (lines - g.batch) * (g.kernel[0] - self.fresh(g));
        Work::default()
            .and("runs of the kernel", 1.0)
            .and("lines", lines as f64)
            .and("pairs", pairs as f64)
            .and("quads", quads as f64)
            .and("words", (quads * g.kernel[0] * self.words) as f64)
            .and("values kept", (kept * self.length) as f64)
            .and("values read", ((lines * g.kernel[0] - kept) * self.length) as f64)
    }

    fn bytes(&self, g: &Geometry) -> usize {
        2 * self.length * g.kernel[0]
    }

    /// Rows that a line of windows does not share with the line before.
    fn fresh(&self, g: &Geometry) -> usize {
        g.stride[0].min(g.kernel[0])
    }

    fn helper(&self, g: &Geometry) -> Runs {
        let next = 2 * g.stride[1] * g.channels;
        Runs { height: g.kernel[0], words: self.words, row: 2 * self.length, next }
    }
}

pub fn print(t: &mut Template<'_>, w: &mut Writer) {
    let k = t.kernel;
    let Op::Conv2d(o) = &k.op else { unreachable!("offered for convolutions only") };
    let g = Geometry::new(o, &k.arg_types, &k.out_type).expect("offered for NHWC only");
    let rows = Rows::new(&g);
    let runs = rows.helper(&g);
    t.helpers.get("runs");
    let helper = t.helpers.make(&runs.name(), || runs.text());
    strips::define(t, 0, g.out[1]);
    let goes_on = strips::goes_on(k.op.post());
    let unsigned = k.arg_types[0].dtype == DType::U8;
    let (spread, fill) =
        (t.helpers.get(if unsigned { "spread_u8" } else { "spread_s8" }), t.helpers.get("fill_halves"));
    let x = t.arg(0);
    let (c, length, height) = (g.channels, rows.length, g.kernel[0]);
    w.line("/* The rows of a line of windows, with their padding. */");
    w.line("int16_t *const rows = (int16_t *)scratch;");
    if goes_on {
        w.line(format!("int8_t *const pixels = (int8_t *)scratch + {};", rows.bytes(&g)));
    }
    w.line(format!("{fill}(rows, {}, {});", o.pad_value, length * height));
    if g.batch > 1 {
        w.open_for("n", g.batch, 1);
    }
    if grows(&g) {
        w.open(format!("for (int32_t oy = {}; oy >= 0; oy--)", g.out[0] - 1));
    } else {
        w.open_for("oy", g.out[0], 1);
    }
    let kept = height - rows.fresh(&g);
    let first = if kept > 0 {
        let (copy, words) = (t.helpers.get("move_words"), kept * length / 2);
        w.line(format!("const int32_t kept = oy == 0 ? 0 : {kept};"));
        w.open("if (kept != 0)");
        let from = rows.fresh(&g) * length;
        w.line(format!("{copy}((uint32_t *)scratch, (const uint32_t *)scratch + {}, {words});", from / 2));
        w.close();
        "kept"
    } else {
        "0"
    };
    w.open(format!("for (int32_t i = {first}; i < {height}; i++)"));
    let inside = length.saturating_sub(g.pad[1] * c).min(g.width * c);
    let image = if g.batch > 1 { format!(" + n * {}", g.height * g.width * c) } else { String::new() };
    if inside > 0 {
        w.line(format!("int16_t *const to = rows + {};", affine(length, "i", (g.pad[1] * c) as i64)));
        w.line(format!("const int32_t y = {} + i;", affine(g.stride[0], "oy", -(g.pad[0] as i64))));
        let read = format!("{spread}(to, {x}{image} + {}, {inside});", affine(g.width * c, "y", 0));
        if g.clips(0) {
            w.open(format!("if ((uint32_t)y < {}u)", g.height));
            w.line(read);
            w.or_else();
            w.line(format!("{fill}(to, {}, {inside});", o.pad_value));
            w.close();
        } else {
            w.line(read);
        }
    }
    w.close();
    let line = if g.batch > 1 { format!("(n * {} + oy)", g.out[0]) } else { "oy".into() };
    let whole = g.out[1] - g.out[1] % 2;
    let next = g.stride[1] * c;
    let from = |pixel: &str| match affine(next, pixel, 0).as_str() {
        "0" => "rows".to_string(),
        at => format!("rows + {at}"),
    };
    w.line(format!("const int32_t p = {};", affine(g.out[1], &line, 0)));
    if whole > 0 && goes_on {
        w.open_for("ox", whole, 2);
        strips::pixels(t, w, (&helper, &from("ox"), ", 1"), "pixels", ("(p + ox)", 2));
        w.close();
    } else if whole > 0 {
        strips::pixels(t, w, (&helper, "rows", &format!(", {}", whole / 2)), "pixels", ("p", 2));
    }
    if whole < g.out[1] {
        strips::pixels(t, w, (&helper, &from(&whole.to_string()), ", 1"), "pixels", (&format!("(p + {whole})"), 1));
    }
    w.close();
    if g.batch > 1 {
        w.close();
    }
}
