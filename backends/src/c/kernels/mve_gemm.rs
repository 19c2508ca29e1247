//! Convolution and matrix product with the vector instructions of Armv8.1-M (Helium).
//!
//! Output pixels come in lines, lines in tiles. For two output channels at a time, [`Sums`] goes over a tile: the weights
//! stay in registers while the pixels of all lines stream by, four sums of each channel at a time. Sums of four channels
//! and one tile lie in working memory, then become 8 bits together.
//!
//! Pixels are read where they lie (1x1), from the tile's rows copied with their padding, or from windows gathered one
//! after the other, whichever takes fewer instructions.

use super::mve_store::{self, Epilogue, Tile};
use super::{Geometry, Style, Template, affine, ahead_by, plus, suits, work};
use crate::c::mve::{Pass, Sums};
use crate::c::writer::Writer;
use mcc_ir::catalogue::{KernelSpec, Offer};
use mcc_ir::costs::{Code, Work};
use mcc_ir::dtype::DType;
use mcc_ir::op::Op;
use mcc_ir::packing::{LANES, Packing};
use mcc_ir::plan::Overlap;
use mcc_ir::target::{Feature, Target};
use mcc_ir::types::TensorType;

/// Bytes of working memory that a kernel takes to save instructions.
const SCRATCH_BYTES: usize = 3200;

/// Bytes of input, output and working memory up to which a kernel takes more.
const SMALL_BYTES: usize = 24 << 10;

/// Bytes that a tile spans at most in large tensors, because its output cannot overlap its input within the tile.
const SPAN_BYTES: usize = 4096;

/// Bytes of working memory that a kernel takes at all.
const MOST_BYTES: usize = 8192;

/// Bytes of working memory, and of a tile's span, of the form that spares memory.
const LEAN_BYTES: usize = 2048;

/// Bytes of sums of a block of four pixels and four channels.
const BLOCK_BYTES: usize = 64;

/// The id of the form that spares memory.
pub const LEAN: &str = "conv2d-s8-lean-mve";

pub fn offer_conv(spec: &KernelSpec<'_>, target: &Target) -> Option<Offer> {
    offer(spec, target, matches!(spec.op, Op::Conv2d(_)), false)
}

pub fn offer_matmul(spec: &KernelSpec<'_>, target: &Target) -> Option<Offer> {
    offer(spec, target, matches!(spec.op, Op::MatMul(_)), false)
}

/// The same in smaller tiles: less working memory, and an output that may lie further over its input.
pub fn offer_lean(spec: &KernelSpec<'_>, target: &Target) -> Option<Offer> {
    offer(spec, target, matches!(spec.op, Op::Conv2d(_)), true)
}

fn offer(spec: &KernelSpec<'_>, target: &Target, takes: bool, lean: bool) -> Option<Offer> {
    if !takes || !target.has(Feature::Mve) || !suits(spec, Style::S8) {
        return None;
    }
    let form = Form::new(spec.op, spec.arg_types, spec.out_type, lean)?;
    let mut packings = vec![Packing::None; spec.arg_types.len()];
    packings[1] = form.packing.clone();
    Some(Offer {
        packings,
        scratch_bytes: form.scratch_bytes(),
        work: form.work(spec, &Problem::new(spec.op, spec.arg_types, spec.out_type, lean)?),
        code: form.code(spec),
        overlap: form.overlap(spec),
    })
}

/// Where pixels are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// As they lie in x.
    Lie,
    /// In working memory: rows of the image with their padding.
    Rows { columns: usize },
    /// In working memory: one window after the other.
    Windows,
}

/// How a kernel goes about its pixels.
struct Form {
    source: Source,
    sums: Sums,
    packing: Packing,
    /// Where each pass reads, from a pixel's first byte on.
    offsets: Vec<usize>,
    depth: usize,
    outs: usize,
    bias: bool,
    images: usize,
    /// Lines of an image, the wanted pixels of a line, and its blocks of four pixels.
    lines: usize,
    width: usize,
    blocks: usize,
    /// Output pixels from one line to the next: fewer than `width` where lines overlap.
    next: usize,
    /// Bytes from one line to the next where pixels are read.
    pitch: usize,
    /// Lines of a tile, and what they take of working memory beside the sums.
    tile: usize,
    view_bytes: usize,
    instructions: f64,
}

/// The operator, reduced to what matters here.
struct Problem {
    geometry: Option<Geometry>,
    pad: i32,
    pixels: usize,
    depth: usize,
    outs: usize,
    bias: bool,
    epilogue: Option<Epilogue>,
    /// Whether the epilogue reads tensors of the output's shape, over which the output may be written.
    reads_pixels: bool,
    /// Bytes of working memory to save instructions with.
    room: usize,
    /// Bytes of input or output that a tile may span which reads them where they lie.
    span: usize,
}

impl Problem {
    fn new(op: &Op, arg_types: &[TensorType], out: &TensorType, lean: bool) -> Option<Problem> {
        if arg_types[0].dtype != DType::I8 {
            return None;
        }
        let (geometry, pad, depth, outs, bias) = match op {
            Op::Conv2d(o) if o.groups == 1 => {
                let g = Geometry::new(o, arg_types, out)?;
                let (depth, outs) = (g.kernel[0] * g.kernel[1] * g.channels, g.outs);
                let plain = g.kernel == [1, 1] && g.stride == [1, 1] && !g.clips(0) && !g.clips(1);
                ((!plain).then_some(g), o.pad_value, depth, outs, o.bias)
            }
            Op::MatMul(o) if o.trans_b && arg_types[1].rank() == 2 => {
                (None, 0, arg_types[1].shape[1], arg_types[1].shape[0], o.bias)
            }
            _ => return None,
        };
        let pixels = out.elements().checked_div(outs)?;
        let reads_pixels = arg_types[op.own_inputs()?..].iter().any(|ty| ty.elements() > outs);
        let epilogue = Epilogue::of(op, arg_types, out);
        let both = arg_types[0].bytes() + out.bytes();
        let room = SMALL_BYTES.saturating_sub(both).clamp(SCRATCH_BYTES, MOST_BYTES);
        let span = if both <= 2 * SPAN_BYTES { usize::MAX } else { SPAN_BYTES };
        let (room, span) = if lean { (LEAN_BYTES, LEAN_BYTES) } else { (room, span) };
        (pixels >= 4).then_some(Problem {
            geometry,
            pad,
            pixels,
            depth,
            outs,
            bias,
            epilogue,
            reads_pixels,
            room,
            span,
        })
    }
}

/// Vectors of a pass for runs of so many vectors: the fewest instructions; odd numbers make one pass more.
fn group(vectors: usize) -> usize {
    match vectors {
        v if v.is_multiple_of(3) => 3,
        v if v.is_multiple_of(2) => 2,
        _ => 1,
    }
}

impl Form {
    /// The form with the fewest estimated instructions.
    fn new(op: &Op, arg_types: &[TensorType], out: &TensorType, lean: bool) -> Option<Form> {
        let p = Problem::new(op, arg_types, out, lean)?;
        // A copied tile can be written over, one that is read where it lies only if its pixels grow.
        let lying = Form::lying(&p).filter(|f| !lean || f.descends());
        let forms = lying.into_iter().chain(Form::rows(&p)).chain(Form::windows(&p));
        let fits = forms.filter(|f| f.scratch_bytes() <= MOST_BYTES);
        fits.min_by(|a, b| a.instructions.total_cmp(&b.instructions))
    }

    fn base(p: &Problem, source: Source, sums: Sums, packing: Packing, offsets: Vec<usize>) -> Form {
        Form {
            source,
            sums,
            packing,
            offsets,
            depth: p.depth,
            outs: p.outs,
            bias: p.bias,
            images: 1,
            lines: 1,
            width: 0,
            blocks: 0,
            next: 0,
            pitch: 0,
            tile: 1,
            view_bytes: 0,
            instructions: f64::INFINITY,
        }
    }

    /// Pixels of 1x1 windows, read where they lie.
    fn lying(p: &Problem) -> Option<Form> {
        let vectors = p.depth.div_ceil(LANES);
        let n = group(vectors);
        let packing = Packing::Slices { channels: p.depth, taps: 1, group: n };
        let offsets = (0..vectors / n).map(|i| i * n * LANES).collect();
        let sums = |step| Sums { pass: Pass::Slices(n), step, words: p.depth.is_multiple_of(4) };
        // The last pixel's vectors end beyond it: those of the last tile are copied.
        let spills = !p.depth.is_multiple_of(LANES);
        if let Some(g) = &p.geometry {
            // With strides: lines are those of the image.
            let fits = g.kernel == [1, 1] && !spills && !g.clips(0) && !g.clips(1) && g.out[1].is_multiple_of(4);
            return fits.then(|| {
                let f = Form::base(p, Source::Lie, sums(g.stride[1] * g.channels), packing, offsets);
                let line = Form { images: g.batch, lines: g.out[0], width: g.out[1], ..f };
                let pitch = g.stride[0] * g.width * g.channels;
                Form { blocks: g.out[1] / 4, next: g.out[1], pitch, ..line }.with_tile(p, |_| 0)
            });
        }
        // All pixels as lines of one length at one distance; they overlap where they would not fill the last one.
        (1..=p.pixels / 4)
            .filter_map(|blocks| {
                let width = 4 * blocks;
                let lines = p.pixels.div_ceil(width);
                let next = match lines {
                    1 => width,
                    _ if (p.pixels - width).is_multiple_of(lines - 1) => (p.pixels - width) / (lines - 1),
                    _ => return None,
                };
                let whole = if lines == 1 { width == p.pixels } else { next == width || !p.reads_pixels };
                let small = blocks * BLOCK_BYTES <= SCRATCH_BYTES.min(p.room);
                (whole && small).then(|| {
                    let f = Form::base(p, Source::Lie, sums(p.depth), packing.clone(), offsets.clone());
                    let view = |tile| if spills { ((tile - 1) * next + width) * p.depth + LANES } else { 0 };
                    Form { lines, width, blocks, next, pitch: next * p.depth, ..f }.with_tile(p, view)
                })
            })
            .min_by(|a, b| a.instructions.total_cmp(&b.instructions))
    }

    /// Windows in rows that were copied with their padding.
    fn rows(p: &Problem) -> Option<Form> {
        let g = p.geometry.as_ref()?;
        let (c, [kh, kw]) = (g.channels, g.kernel);
        let blocks = g.out[1].div_ceil(4);
        let columns = (4 * blocks - 1) * g.stride[1] + g.reach(1) + 1;
        let taps = kw == 3 && g.dilation[1] == 1 && g.stride[1] <= 2 && c.is_multiple_of(LANES);
        let words = c.is_multiple_of(4);
        let pitch = columns * c;
        let row = |ky: usize| ky * g.dilation[0] * pitch;
        let (sums, packing, offsets): (_, _, Vec<usize>) = if taps {
            let offsets = (0..kh).flat_map(|ky| (0..c).step_by(LANES).map(move |at| row(ky) + at)).collect();
            let pass = Pass::Taps { stride: g.stride[1] };
            (Sums { pass, step: c, words }, Packing::Slices { channels: c, taps: 3, group: 3 }, offsets)
        } else {
            // Values that follow each other: rows of the window, or single taps.
            let (run, starts): (usize, Vec<usize>) = if g.dilation[1] == 1 || kw == 1 {
                (kw * c, (0..kh).map(row).collect())
            } else {
                (c, (0..kh).flat_map(|ky| (0..kw).map(move |kx| row(ky) + kx * g.dilation[1] * c)).collect())
            };
            let n = group(run.div_ceil(LANES));
            let passes = run.div_ceil(LANES) / n;
            let offsets = starts.iter().flat_map(|s| (0..passes).map(move |i| s + i * n * LANES)).collect();
            let sums = Sums { pass: Pass::Slices(n), step: g.stride[1] * c, words };
            (sums, Packing::Slices { channels: run, taps: 1, group: n }, offsets)
        };
        let f = Form::base(p, Source::Rows { columns }, sums, packing, offsets);
        let line = Form { images: g.batch, lines: g.out[0], width: g.out[1], blocks, next: g.out[1], ..f };
        // A window's last vector may end in the next one.
        Some(Form { pitch: g.stride[0] * pitch, ..line }.with_tile(p, |tile| Form::view_rows(g, tile) * pitch + LANES))
    }

    /// Rows of the image that a tile's windows span.
    fn view_rows(g: &Geometry, tile: usize) -> usize {
        (tile - 1) * g.stride[0] + g.reach(0) + 1
    }

    /// Windows gathered one after the other.
    fn windows(p: &Problem) -> Option<Form> {
        let mut vectors = p.depth.div_ceil(LANES);
        if vectors > 3 && group(vectors) == 1 {
            vectors += 1;
        }
        let n = group(vectors);
        let packing = Packing::Slices { channels: p.depth, taps: 1, group: n };
        let offsets = (0..vectors / n).map(|i| i * n * LANES).collect();
        let step = vectors * LANES;
        let sums = Sums { pass: Pass::Slices(n), step, words: true };
        let room = p.room / (BLOCK_BYTES + 4 * step);
        let blocks = room.clamp(1, p.pixels.div_ceil(4));
        // Of one size, as far as it goes.
        let blocks = p.pixels.div_ceil(4).div_ceil(p.pixels.div_ceil(4 * blocks));
        let f = Form::base(p, Source::Windows, sums, packing, offsets);
        let lines = p.pixels.div_ceil(4 * blocks);
        let line = Form { lines, width: 4 * blocks, blocks, next: 4 * blocks, pitch: 0, ..f };
        let mut line = Form { view_bytes: 4 * blocks * step, ..line };
        line.instructions = line.estimate(p);
        Some(line)
    }

    /// The number of lines in a tile with the fewest instructions.
    fn with_tile(self, p: &Problem, view_bytes: impl Fn(usize) -> usize) -> Form {
        let mut best = Form { tile: 1, view_bytes: view_bytes(1), ..self };
        best.instructions = best.estimate(p);
        let mut at = best.instructions;
        for tile in 2..=best.lines {
            let bytes = view_bytes(tile);
            let span = tile * best.next * p.depth.max(p.outs);
            if bytes + tile * best.blocks * BLOCK_BYTES > p.room || best.source == Source::Lie && span > p.span {
                break;
            }
            let (before, before_bytes) = (best.tile, best.view_bytes);
            (best.tile, best.view_bytes) = (tile, bytes);
            let now = best.estimate(p);
            if now < at {
                at = now;
            } else {
                (best.tile, best.view_bytes) = (before, before_bytes);
            }
        }
        best.instructions = at;
        best
    }

    /// Whether tiles come in descending order: pixels that grow can then be written over those not yet read.
    fn descends(&self) -> bool {
        self.source == Source::Lie && self.images == 1 && self.outs > self.depth && self.pitch == self.next * self.depth
    }

    /// How far the output may overlap x.
    fn overlap(&self, spec: &KernelSpec<'_>) -> Option<Overlap> {
        if self.descends() {
            // A tile's first pixel is written while its last one is still to be read.
            let pixels = (self.lines - 1) * self.next + self.width;
            let lead = (0..self.lines).step_by(self.tile).map(|line| {
                let (first, last) = (line * self.next, (line + self.tile).min(self.lines) - 1);
                (pixels - first) * self.outs - (pixels - (last * self.next + self.width)) * self.depth
            });
            return lead.max().map(Overlap::Behind);
        }
        let geometry = match spec.op {
            Op::Conv2d(o) => Geometry::new(o, spec.arg_types, spec.out_type),
            _ => None,
        };
        let pixels = (self.lines - 1) * self.next + self.width;
        let steps = (0..self.lines).step_by(self.tile).map(|line| {
            let end = (line + self.tile).min(self.lines);
            let next = if self.source == Source::Lie { line } else { end };
            ((end - 1) * self.next + self.width, if next == self.lines { pixels } else { next * self.next })
        });
        (self.images == 1).then(|| {
            ahead_by(spec, steps, |p| match &geometry {
                Some(g) => g.first_read(p),
                None => p * self.depth,
            })
        })
    }

    fn scratch_bytes(&self) -> usize {
        // Sums of pairs lie apart.
        self.tile * self.blocks * BLOCK_BYTES + self.view_bytes.next_multiple_of(4)
    }

    fn code(&self, spec: &KernelSpec<'_>) -> Code {
        let epilogue = Epilogue::of(spec.op, spec.arg_types, spec.out_type);
        let whole = self.outs.is_multiple_of(4);
        let source = match self.source {
            Source::Lie => "kernels of pixels in place",
            Source::Rows { .. } => "kernels of rows",
            Source::Windows => "kernels of windows",
        };
        let own = work::code(spec, if epilogue.is_some() && whole { 0 } else { usize::MAX }, 1).and(source, 1.0);
        let size = Work::default().and("functions", 1.0).and("instructions", self.sums.instructions() as f64);
        let code = Code::own(own).sharing_one(self.sums.name().into(), "sums", size);
        match (epilogue, whole) {
            (Some(Epilogue::Scale(_)), true) => code.sharing("store_4"),
            (Some(Epilogue::Add { .. }), true) => code.sharing("store_add_4"),
            (Some(Epilogue::Scale(_)), false) => code.sharing("store_1"),
            _ => code,
        }
    }

    fn work(&self, spec: &KernelSpec<'_>, p: &Problem) -> Work {
        let passes = self.offsets.len() as f64;
        let tiles = (self.images * self.lines.div_ceil(self.tile)) as f64;
        let lines = (self.images * self.lines) as f64;
        let blocks = lines * self.blocks as f64;
        let pairs = (2 * self.outs.div_ceil(4)) as f64;
        let whole = self.outs.is_multiple_of(4);
        let stored = blocks * (4 * self.outs) as f64;
        let work = Work::default()
            .and("runs of the kernel", 1.0)
            .and("tiles", tiles)
            .and("instructions of sums", pairs * blocks * passes * self.sums.instructions() as f64)
            .and("passes over lines", pairs * lines * passes)
            .and("passes over tiles", pairs * tiles * passes)
            .and("vectors of tiles", pairs * tiles * passes * self.sums.vectors() as f64)
            .and("tiles of pairs", pairs * tiles)
            .and(if whole { "stores" } else { "stores by channels" }, pairs * tiles);
        let work = match (p.epilogue, whole) {
            (Some(Epilogue::Scale(_)), true) => work.and("scaled", stored),
            (Some(Epilogue::Scale(_)), false) => work.and("scaled by channels", stored),
            (Some(Epilogue::Add { .. }), true) => work.and("added", stored),
            (Some(Epilogue::Add { .. }), false) => work.and("added by channels", stored),
            (None, _) => work::epilogue(work, spec),
        };
        match (self.source, &p.geometry) {
            (Source::Rows { columns }, Some(g)) => {
                let rows = tiles * Form::view_rows(g, self.tile) as f64;
                work.and("rows", rows).and("bytes of rows", rows * (columns * g.channels) as f64)
            }
            (Source::Windows, Some(g)) => {
                let vectors = g.kernel[0] * (g.kernel[1] * g.channels).div_ceil(LANES);
                work::gathering(work, g).and("vectors gathered", (p.pixels * vectors) as f64)
            }
            (Source::Windows, None) => {
                let vectors = p.pixels * p.depth.div_ceil(LANES);
                work.and("rows gathered", p.pixels as f64).and("vectors of rows", vectors as f64)
            }
            (Source::Lie, _) => work.and("copied", self.view_bytes as f64),
            (Source::Rows { .. }, None) => work,
        }
    }

    fn estimate(&self, p: &Problem) -> f64 {
        let passes = self.offsets.len() as f64;
        let tiles = (self.images * self.lines.div_ceil(self.tile)) as f64;
        let lines = (self.images * self.lines) as f64;
        let blocks = lines * self.blocks as f64;
        let pairs = (2 * self.outs.div_ceil(4)) as f64;
        let sums = pairs
            * (blocks * passes * (self.sums.instructions() as f64)
                + lines * passes * 8.0
                + tiles * (passes * (13.0 + 2.0 * self.sums.vectors() as f64) + 45.0));
        let whole = self.outs.is_multiple_of(4);
        let calls = tiles * pairs * if whole { 15.0 } else { 60.0 };
        let store = blocks * (4 * self.outs) as f64 * Epilogue::instructions(p.epilogue, whole) + calls;
        let view = match (self.source, &p.geometry) {
            (Source::Rows { columns }, Some(g)) => {
                let rows = tiles * Form::view_rows(g, self.tile) as f64;
                rows * ((columns * g.channels) as f64 / 5.0 + 45.0)
            }
            (Source::Windows, Some(g)) => {
                let run = (g.kernel[1] * g.channels).div_ceil(LANES) as f64;
                p.pixels as f64 * (g.kernel[0] as f64 * (10.0 + 6.0 * run) + 15.0)
            }
            (Source::Lie, _) => self.view_bytes as f64 / 4.0,
            (Source::Windows, None) => p.pixels as f64 * (20.0 + 3.0 * p.depth.div_ceil(LANES) as f64),
            (Source::Rows { .. }, None) => 0.0,
        };
        sums + store + view
    }
}

pub fn print(t: &mut Template<'_>, w: &mut Writer) {
    let k = t.kernel;
    let lean = k.implementation == LEAN;
    let p = Problem::new(&k.op, &k.arg_types, &k.out_type, lean).expect("offered");
    let mut f = Form::new(&k.op, &k.arg_types, &k.out_type, lean).expect("offered");
    f.sums.words &= f.source != Source::Lie || t.aligned[0];
    let sums_bytes = f.tile * f.blocks * BLOCK_BYTES;
    w.line("int32_t *const sums = (int32_t *)scratch;");
    if f.view_bytes > 0 {
        w.line(format!("int8_t *const view = (int8_t *)(sums + {});", sums_bytes / 4));
    }
    let numbers: Vec<String> =
        [f.offsets.len(), f.blocks, f.pitch].iter().chain(&f.offsets).map(usize::to_string).collect();
    let plan = format!("{}_plan", t.name);
    t.functions.push_str("/* Passes, blocks in a line, bytes from line to line; where each pass reads. */\n");
    t.functions.push_str(&format!("static const int32_t {plan}[{}] = {{", numbers.len()));
    for (i, line) in numbers.chunks(16).enumerate() {
        t.functions.push_str(if i > 0 { ",\n    " } else { "" });
        t.functions.push_str(&line.join(", "));
    }
    t.functions.push_str("};\n\n");
    match f.source {
        Source::Lie => lying(t, w, &f),
        Source::Rows { columns } => rows(t, w, &f, &p, columns),
        Source::Windows => windows(t, w, &f, &p),
    }
}

/// A loop over `count` lines in tiles; gives the first line, and the lines of the tile.
fn tiles(t: &mut Template<'_>, w: &mut Writer, f: &Form) -> (String, String) {
    if f.lines <= f.tile {
        return ("0".into(), f.lines.to_string());
    }
    if f.descends() {
        let last = (f.lines - 1) / f.tile * f.tile;
        w.open(format!("for (int32_t line = {last}; line >= 0; line -= {})", f.tile));
    } else {
        w.open_for("line", f.lines, f.tile);
    }
    if f.lines.is_multiple_of(f.tile) {
        return ("line".into(), f.tile.to_string());
    }
    let min = t.helpers.get("min");
    w.line(format!("const int32_t lines = {min}({} - line, {});", f.lines, f.tile));
    ("line".into(), "lines".into())
}

fn close_tiles(w: &mut Writer, f: &Form) {
    if f.lines > f.tile {
        w.close();
    }
    if f.images > 1 {
        w.close();
    }
}

/// The first pixel of a line, images included.
fn pixel(f: &Form, line: &str) -> String {
    let at = affine(f.next, line, 0);
    match (f.images > 1, at.as_str()) {
        (false, _) => at,
        (true, "0") => affine(f.lines * f.next, "n", 0),
        (true, _) => format!("{} + {at}", affine(f.lines * f.next, "n", 0)),
    }
}

fn lying(t: &mut Template<'_>, w: &mut Writer, f: &Form) {
    let x = t.arg(0);
    let image = t.kernel.arg_types[0].elements() / t.kernel.arg_types[0].shape[0].max(1);
    if f.images > 1 {
        w.open_for("n", f.images, 1);
    }
    let (line, lines) = tiles(t, w, f);
    let mut from = x;
    if f.images > 1 {
        from = format!("{from} + {}", affine(image, "n", 0));
    }
    match affine(f.pitch, &line, 0).as_str() {
        "0" => {}
        at => from = format!("{from} + {at}"),
    }
    if f.view_bytes > 0 {
        let copy = t.helpers.get("copy_bytes");
        let last = (f.lines - 1) / f.tile * f.tile;
        let bytes = ((f.lines - last - 1) * f.next + f.width) * f.depth;
        w.line(format!("const int8_t *from = {from};"));
        if f.lines > f.tile {
            w.open(format!("if (line == {last})"));
        }
        w.line(format!("{copy}(view, from, {bytes});"));
        w.line("from = view;");
        if f.lines > f.tile {
            w.close();
        }
        from = "from".into();
    }
    let at = pixel(f, &line);
    channels(t, w, f, &from, (&at, &lines, f.width.to_string()));
    close_tiles(w, f);
}

fn rows(t: &mut Template<'_>, w: &mut Writer, f: &Form, p: &Problem, columns: usize) {
    let g = p.geometry.as_ref().expect("rows are an image's");
    let x = t.arg(0);
    let (c, height, width) = (g.channels, g.height, g.width);
    if f.images > 1 {
        w.open_for("n", f.images, 1);
    }
    let (line, lines) = tiles(t, w, f);
    let (copy, fill) = (t.helpers.get("copy_bytes"), t.helpers.get("fill_bytes"));
    let view_rows = match lines.as_str() {
        "lines" => affine(g.stride[0], "lines", g.reach(0) as i64 + 1 - g.stride[0] as i64),
        _ => Form::view_rows(g, f.tile.min(f.lines)).to_string(),
    };
    w.open_for("r", view_rows, 1);
    let (first, pad) = (affine(g.stride[0], &line, -(g.pad[0] as i64)), p.pad);
    w.line(format!("const int32_t y = {first} + r;"));
    w.line(format!("int8_t *const to = view + {};", affine(columns * c, "r", 0)));
    let left = g.pad[1].min(columns);
    let inside = width.min(columns - left);
    let right = columns - left - inside;
    if g.clips(0) {
        w.open(format!("if ((uint32_t)y >= {height}u)"));
        w.line(format!("{fill}(to, {pad}, {});", columns * c));
        w.line("continue;");
        w.close();
    }
    if left > 0 {
        w.line(format!("{fill}(to, {pad}, {});", left * c));
    }
    let image = if f.images > 1 { format!("n * {} + ", height * width * c) } else { String::new() };
    if inside > 0 {
        w.line(format!("{copy}({}, {x} + {image}y * {}, {});", plus("to", left * c), width * c, inside * c));
    }
    if right > 0 {
        w.line(format!("{fill}({}, {pad}, {});", plus("to", (left + inside) * c), right * c));
    }
    w.close();
    let at = pixel(f, &line);
    channels(t, w, f, "view", (&at, &lines, f.width.to_string()));
    close_tiles(w, f);
}

fn windows(t: &mut Template<'_>, w: &mut Writer, f: &Form, p: &Problem) {
    let x = t.arg(0);
    let step = f.sums.step;
    if let Some(g) = &p.geometry {
        window_function(t, g, p.pad);
        w.line("int32_t oy = 0, ox = 0;");
        if g.batch > 1 {
            w.line(format!("const int8_t *image = {x};"));
        }
    }
    let count = if f.lines > 1 {
        w.open_for("p0", p.pixels, f.width);
        let min = t.helpers.get("min");
        w.line(format!("const int32_t count = {min}({} - p0, {});", p.pixels, f.width));
        "count".to_string()
    } else {
        p.pixels.to_string()
    };
    let first = if f.lines > 1 { "p0" } else { "0" };
    w.open_for("i", &count, 1);
    match &p.geometry {
        Some(g) => {
            let image = if g.batch > 1 { "image" } else { &x };
            w.line(format!("{}_window({image}, oy, ox, view + {});", t.name, affine(step, "i", 0)));
            w.open(format!("if (++ox == {})", g.out[1]));
            w.line("ox = 0;");
            w.line("oy++;");
            if g.batch > 1 {
                w.open(format!("if (oy == {})", g.out[0]));
                w.line("oy = 0;");
                w.line(format!("image += {};", g.height * g.width * g.channels));
                w.close();
            }
            w.close();
        }
        None => {
            let copy = t.helpers.get("copy_bytes");
            let at = if f.lines > 1 { "(p0 + i)" } else { "i" };
            w.line(format!("{copy}(view + {}, {x} + {}, {});", affine(step, "i", 0), affine(f.depth, at, 0), f.depth));
        }
    }
    w.close();
    channels(t, w, f, "view", (first, "1", count));
    if f.lines > 1 {
        w.close();
    }
}

/// The function that gathers the window of one output pixel.
fn window_function(t: &mut Template<'_>, g: &Geometry, pad: i32) {
    let (c, [kh, kw], width) = (g.channels, g.kernel, g.width);
    let (copy, fill) = (t.helpers.get("copy_bytes"), t.helpers.get("fill_bytes"));
    let w = &mut Writer::default();
    w.line("/* Gathers the window of output pixel (oy, ox). */");
    w.open(format!("static inline void {}_window(const int8_t *x, int32_t oy, int32_t ox, int8_t *to)", t.name));
    w.line(format!("const int32_t y0 = {};", affine(g.stride[0], "oy", -(g.pad[0] as i64))));
    w.line(format!("const int32_t x0 = {};", affine(g.stride[1], "ox", -(g.pad[1] as i64))));
    let run = kw * c;
    w.open(format!("for (int32_t ky = 0; ky < {kh}; ky++, to += {run})"));
    w.line(format!("const int32_t y = y0 + {};", affine(g.dilation[0], "ky", 0)));
    if g.clips(0) {
        w.open(format!("if ((uint32_t)y >= {}u)", g.height));
        w.line(format!("{fill}(to, {pad}, {run});"));
        w.line("continue;");
        w.close();
    }
    w.line(format!("const int8_t *const row = x + y * {};", width * c));
    if g.dilation[1] == 1 || kw == 1 {
        // Compilers turn a few bytes into loads and stores.
        let short = |from: &str| match run {
            0..=16 => format!("memcpy(to, {from}, {run});"),
            _ => format!("{copy}(to, {from}, {run});"),
        };
        let from = format!("row + {}", affine(c, "x0", 0));
        if g.clips(1) {
            let (min, max) = (t.helpers.get("min"), t.helpers.get("max"));
            w.open(format!("if (x0 >= 0 && x0 <= {})", width as i64 - kw as i64));
            w.line(short(&from));
            w.or_else();
            w.line(format!("const int32_t first = {min}({max}(-x0, 0), {kw});"));
            w.line(format!("const int32_t last = {min}({max}({width} - x0, first), {kw});"));
            w.line(format!("{fill}(to, {pad}, {run});"));
            let (at, n) = (affine(c, "first", 0), affine(c, "(last - first)", 0));
            w.line(format!("{copy}(to + {at}, row + {}, {n});", affine(c, "(x0 + first)", 0)));
            w.close();
        } else {
            w.line(short(&from));
        }
    } else {
        w.open_for("kx", kw, 1);
        w.line(format!("const int32_t column = x0 + {};", affine(g.dilation[1], "kx", 0)));
        let copy = format!("{copy}(to + {}, row + {}, {c});", affine(c, "kx", 0), affine(c, "column", 0));
        if g.clips(1) {
            w.open(format!("if ((uint32_t)column >= {width}u)"));
            w.line(format!("{fill}(to + {}, {pad}, {c});", affine(c, "kx", 0)));
            w.line("continue;");
            w.close();
        }
        w.line(copy);
        w.close();
    }
    w.close();
    w.close();
    t.function(w);
}

/// All output channels of a tile, whose pixels are read from `from` on: its first pixel, lines and wanted pixels of a line.
fn channels(t: &mut Template<'_>, w: &mut Writer, f: &Form, from: &str, (pixel, lines, width): (&str, &str, String)) {
    let plane = f.tile * f.blocks * 8;
    let tile = Tile {
        pixel: pixel.into(),
        lines: lines.into(),
        flat: lines == "1" || f.next == 4 * f.blocks && f.next == f.width,
        width,
        pitch: f.next,
        blocks: f.blocks,
        plane,
        channels: f.outs,
    };
    let block = |t: &mut Template<'_>, w: &mut Writer, c: &str, m: usize| {
        let function = t.helpers.sums(&f.sums);
        // Bytes of weights of a channel, rounded up to whole vectors.
        let channel = f.offsets.len() * f.sums.vectors() * LANES;
        let weights = t.arg(1);
        let plan = format!("{}_plan", t.name);
        for pair in 0..m.min(2) {
            let [a, b] = [pair, pair + 2].map(|j| if j < m { t.start(f.bias, c, j, false) } else { "0".into() });
            let at = affine(channel, c, (2 * channel * pair) as i64);
            let to = plus("sums", pair * plane);
            w.line(format!("{function}({from}, {weights} + {at}, {to}, {plan}, {lines}, {a}, {b});"));
        }
        mve_store::print(t, w, &tile, (c, m));
    };
    let whole = f.outs - f.outs % 4;
    if whole > 4 {
        w.open_for("c", whole, 4);
        block(t, w, "c", 4);
        w.close();
    } else if whole > 0 {
        w.block_open();
        block(t, w, "0", 4);
        w.close();
    }
    if whole < f.outs {
        w.block_open();
        block(t, w, &whole.to_string(), f.outs - whole);
        w.close();
    }
}
