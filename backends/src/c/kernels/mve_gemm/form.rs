//! How a kernel goes about its pixels: where they are read, in which tiles, in how many passes, and what that takes.

use super::super::mve_store::Epilogue;
use super::super::{Geometry, ahead_by, work};
use crate::c::mve::{Pass, Sums};
use mcc_ir::catalogue::KernelSpec;
use mcc_ir::costs::{Code, Work};
use mcc_ir::dtype::DType;
use mcc_ir::op::Op;
use mcc_ir::packing::{LANES, Packing};
use mcc_ir::plan::Overlap;
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
pub const BLOCK_BYTES: usize = 64;

/// Where pixels are read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// As they lie in x.
    Lie,
    /// In working memory: rows of the image with their padding.
    Rows { columns: usize },
    /// In working memory: one window after the other.
    Windows,
}

/// How a kernel goes about its pixels.
pub struct Form {
    pub source: Source,
    pub sums: Sums,
    pub packing: Packing,
    /// Where each pass reads, from a pixel's first byte on.
    pub offsets: Vec<usize>,
    pub depth: usize,
    pub outs: usize,
    pub bias: bool,
    pub images: usize,
    /// Lines of an image, the wanted pixels of a line, and its blocks of four pixels.
    pub lines: usize,
    pub width: usize,
    pub blocks: usize,
    /// Output pixels from one line to the next: fewer than `width` where lines overlap.
    pub next: usize,
    /// Bytes from one line to the next where pixels are read.
    pub pitch: usize,
    /// Lines of a tile, and what they take of working memory beside the sums.
    pub tile: usize,
    pub view_bytes: usize,
    pub instructions: f64,
}

/// The operator, reduced to what matters here.
pub struct Problem {
    pub geometry: Option<Geometry>,
    pub pad: i32,
    pub pixels: usize,
    pub depth: usize,
    pub outs: usize,
    pub bias: bool,
    pub epilogue: Option<Epilogue>,
    /// Whether the epilogue reads tensors of the output's shape, over which the output may be written.
    pub reads_pixels: bool,
    /// Bytes of working memory to save instructions with.
    pub room: usize,
    /// Bytes of input or output that a tile may span which reads them where they lie.
    pub span: usize,
}

impl Problem {
    pub fn new(op: &Op, arg_types: &[TensorType], out: &TensorType, lean: bool) -> Option<Problem> {
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
    pub fn new(op: &Op, arg_types: &[TensorType], out: &TensorType, lean: bool) -> Option<Form> {
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
    pub fn view_rows(g: &Geometry, tile: usize) -> usize {
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
    pub fn descends(&self) -> bool {
        self.source == Source::Lie && self.images == 1 && self.outs > self.depth && self.pitch == self.next * self.depth
    }

    /// How far the output may overlap x.
    pub fn overlap(&self, spec: &KernelSpec<'_>) -> Option<Overlap> {
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

    pub fn scratch_bytes(&self) -> usize {
        // Sums of pairs lie apart.
        self.tile * self.blocks * BLOCK_BYTES + self.view_bytes.next_multiple_of(4)
    }

    pub fn code(&self, spec: &KernelSpec<'_>) -> Code {
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

    pub fn work(&self, spec: &KernelSpec<'_>, p: &Problem) -> Work {
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
