//! Convolution straight from widened rows: no window is gathered twice.
//!
//! As many rows of the image as the window is high are held in working memory, widened to 16 bits, with their padding. For
//! each word of two channels the taps of a window's row slide over the words of neighbouring pixels, of which two output
//! pixels share all but the outermost at stride 1. The inner function is made for a number of channels, a size of the
//! window and a stride, and makes all channels of two pixels ([`crate::c::quads`]).

use super::{Geometry, Template, affine, ahead, strips, work};
use crate::c::quads;
use crate::c::writer::Writer;
use mcc_ir::catalogue::{KernelSpec, Offer};
use mcc_ir::costs::{Code, Work};
use mcc_ir::dtype::DType;
use mcc_ir::op::Op;
use mcc_ir::packing::Packing;
use mcc_ir::target::Target;

/// Bytes of working memory that the rows may take.
const MOST_BYTES: usize = 16384;

/// The greatest immediate offset of a load.
const MOST_OFFSET: usize = 4095;

pub fn offer(spec: &KernelSpec<'_>, target: &Target) -> Option<Offer> {
    let Op::Conv2d(o) = spec.op else { return None };
    let g = Geometry::new(o, spec.arg_types, spec.out_type)?;
    let shape = Shape::new(&g);
    let near = shape.farthest() <= MOST_OFFSET;
    let dense = o.groups == 1 && g.channels.is_multiple_of(4) && g.channels > 0 && g.dilation == [1, 1];
    if !dense || !near || shape.ring_bytes(&g) > MOST_BYTES || !strips::fits(spec, target) {
        return None;
    }
    let mut packings = vec![Packing::None; spec.arg_types.len()];
    packings[1] = Packing::Pairs { rows: strips::CHANNELS };
    let goes_on = strips::goes_on(spec.op.post());
    let scratch_bytes = shape.ring_bytes(&g) + if goes_on { 2 * g.outs } else { 0 };
    let size = Work::default().and("functions", 1.0).and("words", (shape.unrolled() * shape.width) as f64);
    let code = Code::own(work::rest_code(spec)).sharing_one(shape.name().into(), "window", size);
    // Before a line of output, the rows of its first window have been read but for the last ones.
    let overlap = ahead(spec, g.out[1], true, |p| {
        let (line, image) = (p / g.out[1] % g.out[0], p / g.out[1] / g.out[0]);
        let read = (line * g.stride[0] + shape.height).saturating_sub(g.stride[0] + g.pad[0]);
        let rows = if line == 0 { 0 } else { read.min(g.height) };
        (image * g.height + rows) * g.width * g.channels
    });
    Some(Offer { packings, scratch_bytes, work: work::rest(shape.work(&g), spec), code, overlap: Some(overlap) })
}

/// What the inner function depends on.
#[derive(Clone, Copy)]
struct Shape {
    height: usize,
    width: usize,
    /// Words of two channels of a pixel.
    words: usize,
    /// Pixels from one window to the next.
    stride: usize,
}

impl Shape {
    fn new(g: &Geometry) -> Shape {
        Shape { height: g.kernel[0], width: g.kernel[1], words: g.channels / 2, stride: g.stride[1] }
    }

    /// Pixels of a row in working memory; the last pair of windows is whole.
    fn pixels(&self, g: &Geometry) -> usize {
        (g.out[1].next_multiple_of(2) - 1) * self.stride + self.width
    }

    fn ring_bytes(&self, g: &Geometry) -> usize {
        4 * self.height * self.pixels(g) * self.words
    }

    /// Words that the inner loop's body takes at a time.
    fn unrolled(&self) -> usize {
        (1..=8).rev().find(|n| self.words.is_multiple_of(*n)).unwrap_or(1)
    }

    /// The farthest offset of a load in bytes.
    fn farthest(&self) -> usize {
        let pixels = 4 * self.words * (self.width - 1 + self.stride);
        pixels.max(8 * self.words * self.width) + 8 * self.unrolled() + 4
    }

    /// The taps of a row in an order in which the second pixel's word is often the first one's next.
    fn taps(&self) -> impl Iterator<Item = usize> {
        (0..self.stride.min(self.width)).flat_map(|first| (first..self.width).step_by(self.stride))
    }

    /// The work, without what follows when bytes are made.
    fn work(&self, g: &Geometry) -> Work {
        let lines = g.batch * g.out[0];
        let pairs = lines * g.out[1].div_ceil(2);
        let quads = pairs * (g.outs / strips::CHANNELS);
        let rows = (quads * self.height) as f64;
        let words = rows * self.words as f64;
        let read = g.batch * (g.height + g.pad[0]).min((g.out[0] - 1) * g.stride[0] + self.height);
        Work::default()
            .and("runs of the kernel", 1.0)
            .and("lines", lines as f64)
            .and("pairs", pairs as f64)
            .and("quads", quads as f64)
            .and("rows", rows)
            .and("turns", rows * (self.words / self.unrolled()) as f64)
            .and("words", words * self.width as f64)
            .and("first words", words * self.stride.min(self.width) as f64)
            .and("lines read", read as f64)
            .and("read", (read * g.width.min(self.pixels(g)) * g.channels) as f64)
    }

    /// The name of the inner function.
    fn name(&self) -> String {
        format!("window_{}x{}_{}_{}", self.height, self.width, 2 * self.words, self.stride)
    }

    /// The inner function.
    fn helper(&self, t: &mut Template<'_>) -> String {
        let window = t.helpers.get("window");
        let name = self.name();
        let shape = [self.height, self.width, self.words, self.stride].map(|n| n.to_string()).join(", ");
        let text = || quads::window(&name, &self.assembly(), &format!("{window}(rows, out, layer, first, {shape});"));
        t.helpers.make(&name, text)
    }

    /// The strings of assembly between the pieces that all such functions share.
    fn assembly(&self) -> quads::Window {
        let mut macs = Vec::new();
        for j in 0..self.unrolled() {
            // The registers that hold the words of both pixels.
            let (mut x, mut y) = ("r12", "lr");
            let mut held = None;
            for tap in self.taps() {
                let at = |pixel: usize| 4 * (pixel * self.words + j);
                let mut line = format!("$_QUAD_WEIGHTS(\"{}\") ", 8 * (tap * self.words + j));
                if held == Some(tap) {
                    (x, y) = (y, x);
                } else {
                    line += &format!("\"ldr.w {x}, [r0, #{}]\\n\\t\" ", at(tap));
                }
                line += &format!("\"ldr.w {y}, [r0, #{}]\\n\\t\" ", at(tap + self.stride));
                line += &format!("$_QUAD_SUMS(\"{x}\", \"{y}\")");
                macs.push(line);
                held = Some(tap + self.stride);
            }
        }
        let loops = self.unrolled() < self.words;
        quads::Window {
            list: 4 * self.height,
            row: loops.then_some(4 * self.words),
            step: 4 * self.unrolled(),
            next: 8 * self.words * (self.width - loops as usize),
            macs,
        }
    }
}

pub fn print(t: &mut Template<'_>, w: &mut Writer) {
    let k = t.kernel;
    let Op::Conv2d(o) = &k.op else { unreachable!("offered for convolutions only") };
    let g = Geometry::new(o, &k.arg_types, &k.out_type).expect("offered for NHWC only");
    let shape = Shape::new(&g);
    let helper = shape.helper(t);
    let odd = g.out[1] % 2 == 1;
    strips::define(t, 0, g.out[1]);
    let unsigned = k.arg_types[0].dtype == DType::U8;
    let (widen, fill) = (t.helpers.get(if unsigned { "widen_u8" } else { "widen_s8" }), t.helpers.get("fill_pairs"));
    let x = t.arg(0);
    let (c, row) = (g.channels, shape.pixels(&g) * shape.words);
    let half = o.pad_value as u16 as u32;
    let pair = format!("0x{:08x}u", half << 16 | half);
    w.line("/* Rows of the image by turns, with their padding. */");
    w.line("uint32_t *const ring = (uint32_t *)scratch;");
    w.line(format!("const uint32_t *window[{}];", shape.height));
    if strips::goes_on(k.op.post()) {
        w.line(format!("int8_t *const pixels = (int8_t *)scratch + {};", shape.ring_bytes(&g)));
    }
    w.line(format!("{fill}(ring, {pair}, {}, 2);", 2 * shape.height * row));
    if g.batch > 1 {
        w.open_for("n", g.batch, 1);
    }
    w.line("int32_t next = 0;");
    w.open_for("oy", g.out[0], 1);
    w.line(format!("const int32_t top = {};", affine(g.stride[0], "oy", 0)));
    if g.stride[0] > shape.height {
        w.line("next = top;");
    }
    w.open(format!("for (; next < top + {}; next++)", shape.height));
    let inside = shape.pixels(&g).saturating_sub(g.pad[1]).min(g.width) * c;
    let slot = |row_of: &str| format!("ring + {row_of} % {} * {row}", shape.height);
    w.line(format!("uint32_t *const to = {};", affine(1, &slot("next"), (g.pad[1] * shape.words) as i64)));
    let image = if g.batch > 1 { format!(" + n * {}", g.height * g.width * c) } else { String::new() };
    let read = |y: &str| format!("{widen}(to, {x}{image} + {}, {inside}, 2);", affine(g.width * c, y, 0));
    if inside > 0 {
        if g.clips(0) {
            w.line(format!("const int32_t y = {};", affine(1, "next", -(g.pad[0] as i64))));
            w.open(format!("if ((uint32_t)y < {}u)", g.height));
            w.line(read("y"));
            w.or_else();
            w.line(format!("{fill}(to, {pair}, {inside}, 2);"));
            w.close();
        } else {
            w.line(read("next"));
        }
    }
    w.close();
    w.open_for("ky", shape.height, 1);
    w.line(format!("window[ky] = {};", slot("(top + ky)")));
    w.close();
    let line = if g.batch > 1 { format!("(n * {} + oy)", g.out[0]) } else { "oy".into() };
    let whole = g.out[1] - odd as usize;
    if whole > 0 {
        w.open_for("ox", whole, 2);
        w.line(format!("const int32_t p = {} + ox;", affine(g.out[1], &line, 0)));
        let first = affine(shape.stride * shape.words, "ox", 0);
        strips::pixels(t, w, (&helper, "window", &format!(", {first}")), "pixels", ("p", 2));
        w.close();
    }
    if odd {
        w.line(format!("const int32_t p = {};", affine(g.out[1], &line, whole as i64)));
        let first = whole * shape.stride * shape.words;
        strips::pixels(t, w, (&helper, "window", &format!(", {first}")), "pixels", ("p", 1));
    }
    w.close();
    if g.batch > 1 {
        w.close();
    }
}
