//! Convolution and matrix product as blocks of pixels times channels.
//!
//! A pixel's window is a row of `depth` values: a row of x as it lies, or gathered into working memory (im2col). A block
//! of a few rows and a few output channels shares its loads in registers. The DSP form widens rows to 16 bits, each four
//! values in the order 0, 2, 1, 3, which is how SXTB16 delivers the weights; the rows of a block are interleaved by fours.
//! Structure of arm_nn_mat_mult_kernel_s8_s16 (CMSIS-NN); the weights are interleaved at compile time.
//!
//! Where the weights allow it, two channels' weights a, b share half-words 256 * a + b, which saves half of the widening:
//! SMLAD with the word as it is sums 256 * A + B, and after SXTB16, which leaves b, it sums B. B is exact modulo 2^32, and
//! so is A = (256 * A + B - B) / 256 as long as |A| < 2^23.
//!
//! x of 16 bits needs no widening, only the order. Weights of four bits lie two in a byte: see [`nibbles`].

mod estimate;
mod gather;
mod nibbles;

use super::{Geometry, Style, Template, affine, ahead, plus, strips, suits_wide, work};
use crate::c::consts::c_type;
use crate::c::quads;
use crate::c::writer::Writer;
use gather::{copy_rows, gather_row, window_function};
use mcc_ir::catalogue::{KernelSpec, Offer};
use mcc_ir::costs::{Code, Work};
use mcc_ir::dtype::DType;
use mcc_ir::op::Op;
use mcc_ir::packing::Packing;
use mcc_ir::plan::Overlap;
use mcc_ir::target::{Feature, Target};
use mcc_ir::types::TensorType;

/// Bytes of working memory that several pairs of pixels may take at a time.
const MOST_WIDENED: usize = 512;

/// Pairs of pixels at a time of which the call is no longer felt.
const MOST_PAIRS: usize = 16;

/// Where a pixel's row comes from.
enum Source {
    /// Row p of x, contiguous.
    Rows,
    /// Gathered from the window, padding included.
    Window { g: Geometry, pad: i32 },
}

/// How weights lie in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One in each element, blocked.
    Bytes,
    /// Two channels in a half-word.
    Pairs,
    /// Four channels of four bits in a half-word.
    Fours,
    /// Four bits each, blocked.
    Nibbles,
}

/// A product of `pixels` rows of `depth` values with `outs` channels of weights.
pub struct Gemm {
    style: Style,
    source: Source,
    pixels: usize,
    depth: usize,
    outs: usize,
    bias: bool,
    /// The element type of x.
    x: DType,
    form: Form,
    /// Whether a helper makes all channels of a block, to the end.
    whole: bool,
}

pub fn offer_conv_pairs(spec: &KernelSpec<'_>, target: &Target) -> Option<Offer> {
    target.has(Feature::Dsp).then(|| offer_shared(spec, Form::Pairs, false))?
}

pub fn offer_conv_dsp(spec: &KernelSpec<'_>, target: &Target) -> Option<Offer> {
    target.has(Feature::Dsp).then(|| offer(spec, Style::Dsp, Form::Bytes, false))?
}

pub fn offer_conv_s8(spec: &KernelSpec<'_>, _: &Target) -> Option<Offer> {
    offer(spec, Style::S8, Form::Bytes, false)
}

pub fn offer_conv_f32(spec: &KernelSpec<'_>, _: &Target) -> Option<Offer> {
    offer(spec, Style::F32, Form::Bytes, false)
}

pub fn offer_matmul_pairs(spec: &KernelSpec<'_>, target: &Target) -> Option<Offer> {
    target.has(Feature::Dsp).then(|| offer_shared(spec, Form::Pairs, true))?
}

pub fn offer_matmul_dsp(spec: &KernelSpec<'_>, target: &Target) -> Option<Offer> {
    target.has(Feature::Dsp).then(|| offer(spec, Style::Dsp, Form::Bytes, true))?
}

pub fn offer_matmul_s8(spec: &KernelSpec<'_>, _: &Target) -> Option<Offer> {
    offer(spec, Style::S8, Form::Bytes, true)
}

pub fn offer_matmul_f32(spec: &KernelSpec<'_>, _: &Target) -> Option<Offer> {
    offer(spec, Style::F32, Form::Bytes, true)
}

pub fn offer_conv_s4_dsp(spec: &KernelSpec<'_>, target: &Target) -> Option<Offer> {
    target.has(Feature::Dsp).then(|| offer(spec, Style::Dsp, Form::Nibbles, false))?
}

pub fn offer_conv_s4(spec: &KernelSpec<'_>, _: &Target) -> Option<Offer> {
    offer(spec, Style::S8, Form::Nibbles, false)
}

pub fn offer_matmul_s4_dsp(spec: &KernelSpec<'_>, target: &Target) -> Option<Offer> {
    target.has(Feature::Dsp).then(|| offer(spec, Style::Dsp, Form::Nibbles, true))?
}

pub fn offer_matmul_s4(spec: &KernelSpec<'_>, _: &Target) -> Option<Offer> {
    offer(spec, Style::S8, Form::Nibbles, true)
}

pub fn offer_conv_fours(spec: &KernelSpec<'_>, target: &Target) -> Option<Offer> {
    target.has(Feature::Dsp).then(|| offer_shared(spec, Form::Fours, false))?
}

pub fn offer_matmul_fours(spec: &KernelSpec<'_>, target: &Target) -> Option<Offer> {
    target.has(Feature::Dsp).then(|| offer_shared(spec, Form::Fours, true))?
}

fn offer(spec: &KernelSpec<'_>, style: Style, form: Form, matmul: bool) -> Option<Offer> {
    if matches!(spec.op, Op::MatMul(_)) != matmul {
        return None;
    }
    let g = Gemm::new(spec.op, spec.arg_types, spec.out_type, style, form)?;
    if !suits_wide(spec, style) {
        return None;
    }
    let mut packings = vec![Packing::None; spec.arg_types.len()];
    let rows = g.block().1;
    packings[1] = match (form, style) {
        (Form::Nibbles, Style::Dsp) => Packing::Octets { rows }.nibbles(spec.consts[1]?)?,
        (Form::Nibbles, _) => Packing::Panel { rows, depth: 1 }.nibbles(spec.consts[1]?)?,
        _ => Packing::Panel { rows, depth: g.group() },
    };
    let overlap = Some(g.overlap(spec));
    let (work, code) = (g.all_work(spec), g.code(spec));
    Some(Offer { packings, scratch_bytes: g.scratch_bytes(), work, code, overlap })
}

/// The DSP form with weights of several channels in a half-word, where they fit.
fn offer_shared(spec: &KernelSpec<'_>, form: Form, matmul: bool) -> Option<Offer> {
    if matches!(spec.op, Op::MatMul(_)) != matmul {
        return None;
    }
    let g = Gemm::new(spec.op, spec.arg_types, spec.out_type, Style::Dsp, form)?;
    if !suits_wide(spec, Style::Dsp) {
        return None;
    }
    let weights: Vec<i8> = spec.consts[1]?.bytes().iter().map(|b| *b as i8).collect();
    let (min, max) = g.x.int_range()?;
    let (limit, rows) = (min.unsigned_abs().max(max.unsigned_abs()), g.block().1);
    let (fit, packing) = match form {
        Form::Fours => (Packing::fours_fit(&weights, g.depth, limit), Packing::Fours { rows }),
        _ => (Packing::pairs_fit(&weights, g.depth, limit), Packing::Pairs { rows }),
    };
    if !fit {
        return None;
    }
    let mut packings = vec![Packing::None; spec.arg_types.len()];
    packings[1] = packing;
    let overlap = Some(g.overlap(spec));
    let (work, code) = (g.all_work(spec), g.code(spec));
    Some(Offer { packings, scratch_bytes: g.scratch_bytes(), work, code, overlap })
}

pub fn offer_conv_strips(spec: &KernelSpec<'_>, target: &Target) -> Option<Offer> {
    offer_strips(spec, target, false)
}

pub fn offer_matmul_strips(spec: &KernelSpec<'_>, target: &Target) -> Option<Offer> {
    offer_strips(spec, target, true)
}

/// The form with weights in pairs that makes whole pixels, two at a time.
fn offer_strips(spec: &KernelSpec<'_>, target: &Target, matmul: bool) -> Option<Offer> {
    if matches!(spec.op, Op::MatMul(_)) != matmul {
        return None;
    }
    let g = Gemm::strips(spec.op, spec.arg_types, spec.out_type)?;
    if g.pixels < 2 || !strips::fits(spec, target) {
        return None;
    }
    let mut packings = vec![Packing::None; spec.arg_types.len()];
    packings[1] = Packing::Pairs { rows: g.block().1 };
    let goes_on = strips::goes_on(spec.op.post());
    let work = work::rest(g.strips_work(spec.op), spec);
    let scratch_bytes = g.pairs_at_once(spec.op) * g.scratch_bytes() + if goes_on { 2 * g.outs } else { 0 };
    let code = match g.shares(spec.op) {
        true => Code::own(Work::default().and("calls", 1.0)).sharing(if g.x == DType::U8 {
            "pixels_u8"
        } else {
            "pixels_s8"
        }),
        false => Code::own(g.rows_code(work::rest_code(spec))),
    };
    let code = code.sharing("quads");
    let block = 2 * g.pairs_at_once(spec.op);
    let overlap = match g.shares(spec.op) {
        true if g.grows() => g.behind(block),
        true => ahead(spec, block, true, |p| p * g.depth),
        false => g.overlap(spec),
    };
    Some(Offer { packings, scratch_bytes, work, code, overlap: Some(overlap) })
}

impl Gemm {
    /// Rows, their depth and channels of a product.
    pub fn rows(op: &Op, arg_types: &[TensorType], out: &TensorType) -> Option<(usize, usize, usize)> {
        let g = Gemm::new(op, arg_types, out, Style::Dsp, Form::Pairs)?;
        Some((g.pixels, g.depth, g.outs))
    }

    fn strips(op: &Op, arg_types: &[TensorType], out: &TensorType) -> Option<Gemm> {
        Some(Gemm { whole: true, ..Gemm::new(op, arg_types, out, Style::Dsp, Form::Pairs)? })
    }

    /// Whether pixels of that loop grow, and so are made from the last one down.
    fn grows(&self) -> bool {
        self.outs > self.depth
    }

    /// Of a block of pixels that grow, made in descending order, all is read before they are written over pixels above.
    fn behind(&self, block: usize) -> Overlap {
        Overlap::Behind(self.pixels.saturating_sub(block) * (self.outs - self.depth))
    }

    /// Pairs of pixels that are widened before they are multiplied.
    fn pairs_at_once(&self, op: &Op) -> usize {
        if !self.shares(op) {
            return 1;
        }
        (MOST_WIDENED / self.scratch_bytes().max(1)).clamp(1, MOST_PAIRS).min(self.pixels.div_ceil(2))
    }

    /// Whether the form that makes whole pixels does so in a loop that layers share.
    fn shares(&self, op: &Op) -> bool {
        matches!(self.source, Source::Rows) && self.depth.is_multiple_of(4) && !strips::goes_on(op.post())
    }

    fn new(op: &Op, arg_types: &[TensorType], out: &TensorType, style: Style, form: Form) -> Option<Gemm> {
        let x = arg_types[0].dtype;
        match op {
            Op::Conv2d(o) if o.groups == 1 => {
                let g = Geometry::new(o, arg_types, out)?;
                let depth = g.kernel[0] * g.kernel[1] * g.channels;
                let plain = g.kernel == [1, 1] && g.stride == [1, 1] && !g.clips(0) && !g.clips(1);
                let (pixels, outs) = (g.batch * g.out[0] * g.out[1], g.outs);
                let pad = if style == Style::F32 { 0 } else { o.pad_value };
                let source = if plain { Source::Rows } else { Source::Window { g, pad } };
                Some(Gemm { style, source, pixels, depth, outs, bias: o.bias, x, form, whole: false })
            }
            Op::MatMul(o) if o.trans_b && arg_types[1].rank() == 2 => {
                let (outs, depth) = (arg_types[1].shape[0], arg_types[1].shape[1]);
                let pixels = out.elements().checked_div(outs)?;
                let source = Source::Rows;
                Some(Gemm { style, source, pixels, depth, outs, bias: o.bias, x, form, whole: false })
            }
            _ => None,
        }
    }

    /// Pixels and channels of a block.
    fn block(&self) -> (usize, usize) {
        let shared = matches!(self.form, Form::Pairs | Form::Fours);
        let (pixels, channels) = match self.style {
            _ if shared && self.pixels == 1 => (1, 8),
            _ if shared => (2, 4),
            Style::Dsp if self.pixels == 1 => (1, 4),
            Style::Dsp => (2, 2),
            // A single pixel leaves registers for more channels, which share the load of its value; not for padding.
            Style::F32 if self.pixels == 1 && !(1..=4).contains(&(self.outs % 8)) => (1, 8),
            Style::S8 | Style::F32 => (2, 4),
        };
        (pixels.min(self.pixels), channels)
    }

    /// Values of a row that lie together in the packed weights.
    fn group(&self) -> usize {
        match (self.style, self.form) {
            (Style::Dsp, Form::Nibbles) => 8,
            (Style::Dsp, _) => 4,
            _ => 1,
        }
    }

    /// The depth with what fills the last group.
    fn padded(&self) -> usize {
        self.depth.next_multiple_of(self.group())
    }

    /// Whether rows are widened to 16 bits before use; for a single pixel and few channels a pass is not worth it.
    fn widens(&self) -> bool {
        self.style == Style::Dsp && (self.pixels > 1 || self.form != Form::Bytes || self.x == DType::I16)
    }

    /// Whether gathered rows go through bytes before they are widened: runs that are no multiple of four.
    fn stages(&self) -> bool {
        matches!(&self.source, Source::Window { g, .. } if self.widens() && g.channels % 4 != 0)
    }

    /// Whether rows are read from working memory.
    fn gathers(&self) -> bool {
        match self.source {
            Source::Window { .. } => true,
            Source::Rows => self.widens() || self.depth != self.padded(),
        }
    }

    fn row_type(&self) -> (&'static str, usize) {
        if self.widens() { ("uint32_t", 4) } else { (self.x_type(), self.x.bits() / 8) }
    }

    /// Elements of the row type from one row of a block in working memory to the next, and from one group to the next.
    fn steps(&self) -> (usize, usize) {
        if self.widens() { (2, 2 * self.block().0) } else { (self.padded(), self.group()) }
    }

    /// Elements of the row type that a block of rows takes.
    fn row_elements(&self) -> usize {
        self.block().0 * self.padded() / if self.widens() { 2 } else { 1 }
    }

    fn scratch_bytes(&self) -> usize {
        let rows = if self.gathers() { self.row_elements() * self.row_type().1 } else { 0 };
        rows + if self.stages() { self.padded() * self.x.bits() / 8 } else { 0 }
    }

    /// Rows in working memory are all read before the block's results are written.
    fn overlap(&self, spec: &KernelSpec<'_>) -> Overlap {
        ahead(spec, self.block().0, self.gathers(), |p| match &self.source {
            Source::Rows => p * self.depth,
            Source::Window { g, .. } => g.first_read(p),
        })
    }

    fn x_type(&self) -> &'static str {
        c_type(self.x)
    }

    /// The helper that widens x.
    fn widen(&self) -> &'static str {
        match self.x {
            DType::U8 => "widen_u8",
            DType::I16 => "widen_s16",
            _ => "widen_s8",
        }
    }
}

/// Prints a convolution or a matrix product.
pub fn print(t: &mut Template<'_>, w: &mut Writer, style: Style, form: Form) {
    let k = t.kernel;
    let g = Gemm::new(&k.op, &k.arg_types, &k.out_type, style, form).expect("offered");
    print_gemm(t, w, g);
}

/// Prints the form that makes whole pixels.
pub fn print_strips(t: &mut Template<'_>, w: &mut Writer) {
    let k = t.kernel;
    let g = Gemm::strips(&k.op, &k.arg_types, &k.out_type).expect("offered");
    if g.shares(&k.op) {
        // The loop over all pixels is one helper.
        strips::define(t, g.padded() / 4, 2);
        let unsigned = g.x == DType::U8;
        let (bits, extend) = if unsigned { ("u8", "uxtb16") } else { ("s8", "sxtb16") };
        for helper in ["shared", "quads", "load_4", extend] {
            t.helpers.get(helper);
        }
        let pixels = t.helpers.make(&format!("pixels_{bits}"), || quads::pixels(unsigned));
        let x = t.arg(0);
        w.line(format!(
            "{pixels}({x}, (uint32_t *)scratch, out, &{}_layer, {}, {}, {});",
            t.name,
            g.pixels,
            2 * g.pairs_at_once(&k.op),
            g.grows() as u8
        ));
        return;
    }
    strips::define(t, g.padded() / 4, g.pixels);
    if strips::goes_on(k.op.post()) {
        w.line(format!("int8_t *const pixels = (int8_t *)scratch + {};", g.scratch_bytes()));
    }
    print_gemm(t, w, g);
}

fn print_gemm(t: &mut Template<'_>, w: &mut Writer, g: Gemm) {
    let x = t.arg(0);
    let (row_type, _) = g.row_type();
    let (block, _) = g.block();
    let depth = g.depth;
    if g.gathers() {
        w.line(format!("{row_type} *const rows = ({row_type} *)scratch;"));
    }
    match &g.source {
        Source::Rows => {
            let whole = g.pixels - g.pixels % block;
            let rows = |t: &mut Template<'_>, w: &mut Writer, p: &str, n: usize| {
                if g.gathers() {
                    copy_rows(t, w, &g, &x, p, n);
                }
                let from = if g.gathers() { "rows".to_string() } else { sum(&x, &affine(depth, p, 0)) };
                channels(t, w, &g, &from, p, n);
            };
            if whole == block {
                rows(t, w, "0", block);
            } else {
                w.open_for("p", whole, block);
                rows(t, w, "p", block);
                w.close();
            }
            if whole < g.pixels {
                rows(t, w, &whole.to_string(), g.pixels - whole);
            }
        }
        Source::Window { g: geo, pad } => {
            window_function(t, &g, geo, *pad);
            let image = geo.height * geo.width * geo.channels;
            if g.stages() {
                let bytes = g.x_type();
                w.line(format!("{bytes} *const bytes = ({bytes} *)(rows + {});", g.row_elements()));
            }
            if g.pixels == 1 {
                gather_row(t, w, &g, &x, ("0", "0"), "rows");
                channels(t, w, &g, "rows", "0", 1);
                return;
            }
            let rest = g.pixels % block;
            w.line("int32_t done = 0;");
            if block > 1 {
                w.line("int32_t filled = 0;");
            }
            if geo.batch > 1 {
                w.open_for("n", geo.batch, 1);
            }
            w.open_for("oy", geo.out[0], 1);
            w.open_for("ox", geo.out[1], 1);
            let image = if geo.batch > 1 { format!("{x} + n * {image}") } else { x.clone() };
            let to = if block > 1 { format!("rows + filled * {}", g.steps().0) } else { "rows".into() };
            gather_row(t, w, &g, &image, ("oy", "ox"), &to);
            if block > 1 {
                w.line("filled++;");
                w.open(format!("if (filled < {block})"));
                w.line("continue;");
                w.close();
                w.line("filled = 0;");
            }
            channels(t, w, &g, "rows", "done", block);
            w.line(format!("done += {block};"));
            w.close();
            w.close();
            if geo.batch > 1 {
                w.close();
            }
            if rest > 0 {
                channels(t, w, &g, "rows", "done", rest);
            }
        }
    }
}

/// A pointer plus an offset.
fn sum(pointer: &str, offset: &str) -> String {
    if offset == "0" { pointer.into() } else { format!("{pointer} + {offset}") }
}

/// All output channels of `n` pixels from `p` on, whose rows start at `from`.
fn channels(t: &mut Template<'_>, w: &mut Writer, g: &Gemm, from: &str, p: &str, n: usize) {
    if g.whole {
        let quads = t.helpers.get("quads");
        return strips::pixels(t, w, (&quads, from, ", 1"), "pixels", (p, n));
    }
    let (_, block) = g.block();
    let whole = g.outs - g.outs % block;
    let block_of_sums = nibbles::sums(t, w, g, from, n);
    if whole > 0 {
        w.open_for("c", whole, block);
        products(t, w, g, from, (p, n), ("c", block));
        w.close();
    }
    if whole < g.outs {
        w.block_open();
        products(t, w, g, from, (p, n), (&whole.to_string(), g.outs - whole));
        w.close();
    }
    if block_of_sums {
        w.close();
    }
}

/// One block: `n` pixels from `p` on times `m` channels from `c` on.
fn products(t: &mut Template<'_>, w: &mut Writer, g: &Gemm, from: &str, (p, n): (&str, usize), (c, m): (&str, usize)) {
    let float = g.style == Style::F32;
    let (rows, block) = g.block();
    if g.form == Form::Nibbles {
        return nibbles::products(t, w, g, from, (p, n), (c, m));
    }
    let weights = t.arg(1);
    let weights = sum(&weights, &affine(g.padded() / if g.form == Form::Fours { 2 } else { 1 }, c, 0));
    if g.form != Form::Bytes {
        let first = if g.bias && m == block {
            sum(&t.arg(2), c)
        } else {
            let starts: Vec<String> = (0..m).map(|j| t.start(g.bias, c, j, false)).collect();
            w.line(format!("const int32_t first[{block}] = {{{}}};", starts.join(", ")));
            "first".into()
        };
        let dot = t.helpers.get(match (g.form, rows) {
            (Form::Fours, 1) => "fours_1x8",
            (Form::Fours, _) => "fours_2x4",
            (_, 1) => "pairs_1x8",
            _ => "pairs_2x4",
        });
        w.line(match g.form {
            Form::Fours => format!("int32_t s[8] = {{{}}};", nibbles::names(n).join(", ")),
            _ => "int32_t s[8];".into(),
        });
        w.line(format!("{dot}({from}, {weights}, s, {first}, {});", g.padded() / 4));
        // A block of one pixel at the end computes a second one of what was there before.
        for i in 0..n {
            for j in 0..m {
                let at = match g.form {
                    _ if rows == 1 => j,
                    Form::Fours => 2 * j + i,
                    _ => j / 2 * 4 + 2 * i + j % 2,
                };
                t.store(w, &format!("s[{at}]"), (p, i), (c, j));
            }
        }
        return;
    }
    let starts: Vec<String> = (0..m).map(|j| t.start(g.bias, c, j, float)).collect();
    let whole = match (g.style, n, m) {
        (Style::Dsp, 2, 2) if g.widens() => Some("dot_2x2"),
        (Style::Dsp, 1, 4) if !g.widens() => Some(if g.x == DType::U8 { "dot_1x4_u8" } else { "dot_1x4_s8" }),
        _ => None,
    };
    if let Some(dot) = whole {
        let dot = t.helpers.get(dot);
        w.line(format!("int32_t s[4] = {{{}}};", vec![starts.join(", "); n].join(", ")));
        w.line(format!("{dot}(s, {from}, {weights}, {});", g.padded() / 4));
        for i in 0..n {
            for j in 0..m {
                t.store(w, &format!("s[{}]", m * i + j), (p, i), (c, j));
            }
        }
        return;
    }
    let (row_type, _) = g.row_type();
    let (weight_type, sum_type) = if float { ("float", "float") } else { ("int8_t", "int32_t") };
    w.line(format!("const {row_type} *a = {from};"));
    w.line(format!("const {weight_type} *w = {weights};"));
    for (j, start) in starts.iter().enumerate() {
        for i in 0..n {
            w.line(format!("{sum_type} s{i}{j} = {start};"));
        }
    }
    let (_, step) = g.steps();
    w.open(format!(
        "for (int32_t k = 0; k < {}; k++, a += {step}, w += {})",
        g.padded() / g.group(),
        g.group() * block
    ));
    match g.style {
        Style::Dsp => dsp_group(t, w, g, (n, m)),
        Style::S8 | Style::F32 => {
            let element = if float { "float" } else { "int32_t" };
            for i in 0..n {
                w.line(format!("const {element} a{i} = a[{}];", i * g.padded()));
            }
            let mac = if float { String::new() } else { t.helpers.get("mac") };
            for j in 0..m {
                w.line(format!("const {element} w{j} = w[{j}];"));
                for i in 0..n {
                    w.line(if float {
                        format!("s{i}{j} += a{i} * w{j};")
                    } else {
                        format!("s{i}{j} = {mac}(s{i}{j}, a{i}, w{j});")
                    });
                }
            }
        }
    }
    w.close();
    for i in 0..n {
        for j in 0..m {
            t.store(w, &format!("s{i}{j}"), (p, i), (c, j));
        }
    }
}

/// Four values of each row times four weights of each channel, by SMLAD on pairs: the blocks at the edges.
fn dsp_group(t: &mut Template<'_>, w: &mut Writer, g: &Gemm, (n, m): (usize, usize)) {
    let (load, smlad, sxtb16) = (t.helpers.get("load_4"), t.helpers.get("smlad"), t.helpers.get("sxtb16"));
    if !g.widens() {
        let extend = t.helpers.get(if g.x == DType::U8 { "uxtb16" } else { "sxtb16" });
        w.line(format!("const uint32_t x = {load}(a), a0 = {extend}(x), b0 = {extend}_ror8(x);"));
    }
    for j in 0..m {
        w.line(format!("const uint32_t q{j} = {load}({});", plus("w", 4 * j)));
        for i in 0..n {
            let (low, high) = if g.widens() {
                (format!("a[{}]", 2 * i), format!("a[{}]", 2 * i + 1))
            } else {
                ("a0".into(), "b0".into())
            };
            w.line(format!("s{i}{j} = {smlad}({sxtb16}(q{j}), {low}, s{i}{j});"));
            w.line(format!("s{i}{j} = {smlad}({sxtb16}_ror8(q{j}), {high}, s{i}{j});"));
        }
    }
}
