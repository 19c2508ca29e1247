//! How the rows of a block come into working memory: contiguous ones widened or filled up, windows gathered.

use super::{Gemm, sum};
use crate::c::kernels::{Geometry, Template, affine, plus};
use crate::c::writer::Writer;
use mcc_ir::dtype::DType;

/// Rows of a window that are copied one by one in the text.
const UNROLLED_ROWS: usize = 8;

/// Gathers the window of one output pixel to `to`.
pub fn gather_row(t: &mut Template<'_>, w: &mut Writer, g: &Gemm, image: &str, (oy, ox): (&str, &str), to: &str) {
    let row = format!("{}_row", t.name);
    if !g.stages() {
        w.line(format!("{row}({image}, {oy}, {ox}, {to});"));
        return;
    }
    w.line(format!("{row}({image}, {oy}, {ox}, bytes);"));
    let widen = t.helpers.get(g.widen());
    w.line(format!("{widen}({to}, bytes, {}, {});", g.padded(), g.steps().1));
}

/// Brings `n` contiguous rows of x from pixel `p` on into working memory, widened or filled up to whole groups.
pub fn copy_rows(t: &mut Template<'_>, w: &mut Writer, g: &Gemm, x: &str, p: &str, n: usize) {
    let (depth, padded) = (g.depth, g.padded());
    let from = |i: usize, more: usize| sum(x, &affine(depth, p, (i * depth + more) as i64));
    if !g.widens() {
        w.line(format!("memcpy(rows, {}, {depth});", from(0, 0)));
        w.line(format!("memset(rows + {depth}, 0, {});", padded - depth));
        return;
    }
    let widen = t.helpers.get(g.widen());
    let ((row, step), whole) = (g.steps(), depth / 4 * 4);
    for i in 0..n {
        let to = plus("rows", i * row);
        if whole > 0 {
            w.line(format!("{widen}({to}, {}, {whole}, {step});", from(i, 0)));
        }
        if whole < depth {
            w.block_open();
            let ty = g.x_type();
            w.line(format!("{ty} tail[4] = {{0}};"));
            let rest = bytes(g, &(depth - whole).to_string());
            w.line(format!("memcpy(tail, {}, {rest});", from(i, whole)));
            w.line(format!("{widen}({}, tail, 4, {step});", plus("rows", i * row + whole / 4 * step)));
            w.close();
        }
        if depth.next_multiple_of(4) < padded {
            w.line(format!("memset({}, 0, 8);", plus("rows", i * row + depth.div_ceil(4) * step)));
        }
    }
}

/// The function that gathers one pixel's window.
pub fn window_function(t: &mut Template<'_>, g: &Gemm, geo: &Geometry, pad: i32) {
    let wide = g.widens() && !g.stages();
    let to_type = if wide { "uint32_t" } else { g.x_type() };
    let (c, width) = (geo.channels, geo.width);
    let run = geo.kernel[1] * c;
    let pair = format!("0x{:08x}u", (pad as u16 as u32) << 16 | pad as u16 as u32);
    let widen = wide.then(|| t.helpers.get(g.widen()));
    let fill_pairs = wide.then(|| t.helpers.get("fill_pairs"));
    let copy = |from: String, n: &str| match &widen {
        Some(widen) => format!("to = {widen}(to, {from}, {n}, {});", g.steps().1),
        None => format!("memcpy(to, {from}, {});", bytes(g, n)),
    };
    // A byte that fills a value of 16 bits has to be both of its bytes.
    let by_bytes = g.x != DType::I16 || pad & 255 == pad >> 8 & 255;
    let fill_s16 = (!wide && !by_bytes).then(|| t.helpers.get("fill_s16"));
    let fill = |n: &str| match (&fill_pairs, &fill_s16) {
        (Some(fill), _) => format!("to = {fill}(to, {pair}, {n}, {});", g.steps().1),
        (None, Some(fill)) => format!("{fill}(to, {pad}, {n});"),
        (None, None) => format!("memset(to, {}, {});", pad & 255, bytes(g, n)),
    };
    let step = |w: &mut Writer, n: &str| {
        if !wide {
            w.line(format!("to += {n};"));
        }
    };
    let w = &mut Writer::default();
    w.line("/* Gathers the window of output pixel (oy, ox). */");
    w.open(format!(
        "static inline void {}_row(const {} *x, int32_t oy, int32_t ox, {to_type} *to)",
        t.name,
        g.x_type()
    ));
    let origin = |axis: usize, out: &str| affine(geo.stride[axis], out, -(geo.pad[axis] as i64));
    w.line(format!("const int32_t y0 = {};", origin(0, "oy")));
    w.line(format!("const int32_t x0 = {};", origin(1, "ox")));
    let runs = geo.dilation[1] == 1 || geo.kernel[1] == 1;
    let spare = [0, 1].map(|axis| [geo.height, width][axis] as i64 - 1 - geo.reach(axis) as i64);
    if !wide
        && runs
        && geo.kernel[0] <= UNROLLED_ROWS
        && spare.iter().all(|s| *s >= 0)
        && (geo.clips(0) || geo.clips(1))
    {
        // Most windows lie inside the image: one test for all of their rows.
        w.open(format!("if (y0 >= 0 && y0 <= {} && x0 >= 0 && x0 <= {})", spare[0], spare[1]));
        w.line(format!("const {} *const from = x + {};", g.x_type(), affine(c, &format!("(y0 * {width} + x0)"), 0)));
        for ky in 0..geo.kernel[0] {
            let (to, from) = (plus("to", ky * run), plus("from", ky * geo.dilation[0] * width * c));
            w.line(format!("memcpy({to}, {from}, {});", bytes(g, &run.to_string())));
        }
        if g.depth < g.padded() {
            let rest = bytes(g, &(g.padded() - g.depth).to_string());
            w.line(format!("memset({}, 0, {rest});", plus("to", g.depth)));
        }
        w.line("return;");
        w.close();
    }
    w.open_for("ky", geo.kernel[0], 1);
    w.line(format!("const int32_t y = y0 + {};", affine(geo.dilation[0], "ky", 0)));
    if geo.clips(0) {
        w.open(format!("if ((uint32_t)y >= {}u)", geo.height));
        w.line(fill(&run.to_string()));
        step(w, &run.to_string());
        w.line("continue;");
        w.close();
    }
    w.line(format!("const {} *const row = x + y * {};", g.x_type(), width * c));
    if runs {
        let all = copy(format!("row + {}", affine(c, "x0", 0)), &run.to_string());
        if geo.clips(1) {
            let (min, max) = (t.helpers.get("min"), t.helpers.get("max"));
            let kw = geo.kernel[1];
            w.open(format!("if (x0 >= 0 && x0 <= {})", width as i64 - kw as i64));
            w.line(all);
            step(w, &run.to_string());
            w.or_else();
            w.line(format!("const int32_t first = {min}({max}(-x0, 0), {kw});"));
            w.line(format!("const int32_t last = {min}({max}({width} - x0, first), {kw});"));
            for (text, n) in [
                (None, affine(c, "first", 0)),
                (Some(()), affine(c, "(last - first)", 0)),
                (None, affine(c, &format!("({kw} - last)"), 0)),
            ] {
                w.line(match text {
                    None => fill(&n),
                    Some(()) => copy(format!("row + {}", affine(c, "(x0 + first)", 0)), &n),
                });
                step(w, &n);
            }
            w.close();
        } else {
            w.line(all);
            step(w, &run.to_string());
        }
    } else {
        w.open_for("kx", geo.kernel[1], 1);
        w.line(format!("const int32_t at = x0 + {};", affine(geo.dilation[1], "kx", 0)));
        let one = copy(format!("row + {}", affine(c, "at", 0)), &c.to_string());
        if geo.clips(1) {
            w.open(format!("if ((uint32_t)at < {width}u)"));
            w.line(one);
            w.or_else();
            w.line(fill(&c.to_string()));
            w.close();
        } else {
            w.line(one);
        }
        step(w, &c.to_string());
        w.close();
    }
    w.close();
    if g.depth < g.padded() {
        // Widened here are multiples of four.
        let rest = if wide { "8".into() } else { bytes(g, &(g.padded() - g.depth).to_string()) };
        w.line(format!("memset(to, 0, {rest});"));
    }
    w.close();
    t.function(w);
}

/// The size of n elements of x as a `size_t`.
fn bytes(g: &Gemm, n: &str) -> String {
    let size = g.x.bits() / 8;
    match n.parse::<usize>() {
        Ok(n) => (size * n).to_string(),
        Err(_) if size == 1 => format!("(size_t)({n})"),
        Err(_) => format!("(size_t)({n}) * sizeof({})", g.x_type()),
    }
}
