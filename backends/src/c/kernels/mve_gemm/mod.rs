//! Convolution and matrix product with the vector instructions of Armv8.1-M (Helium).
//!
//! Output pixels come in lines, lines in tiles. For two output channels at a time, [`Sums`] goes over a tile: the weights
//! stay in registers while the pixels of all lines stream by, four sums of each channel at a time. Sums of four channels
//! and one tile lie in working memory, then become 8 bits together.
//!
//! Pixels are read where they lie (1x1), from the tile's rows copied with their padding, or from windows gathered one
//! after the other, whichever takes fewer instructions.

mod form;

use super::mve_store::{self, Tile};
use super::{Geometry, Style, Template, affine, plus, suits};
use crate::c::writer::Writer;
use form::{BLOCK_BYTES, Form, Problem, Source};
use mcc_ir::catalogue::{KernelSpec, Offer};
use mcc_ir::op::Op;
use mcc_ir::packing::{LANES, Packing};
use mcc_ir::target::{Feature, Target};

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
