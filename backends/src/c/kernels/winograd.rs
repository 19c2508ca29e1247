//! Convolution 3x3 by Winograd's minimal filtering ([`mcc_ir::winograd`]), exact, with SMLAD.
//!
//! The output is cut into square tiles, which are numbered along rows, image by image. Four tiles at a time are brought
//! into working memory and transformed, all channels of them. Two filters at a time meet these four, frequency by
//! frequency, which is where nearly all time goes; then each tile is transformed back, and its outputs inside the image
//! are finished and stored.

use super::rescale::{self, Rescale};
use super::residual::Residual;
use super::{Geometry, Style, Template, affine, suits, work};
use crate::c::writer::Writer;
use mcc_ir::catalogue::{KernelSpec, Offer};
use mcc_ir::costs::{Code, Work};
use mcc_ir::dtype::DType;
use mcc_ir::op::Op;
use mcc_ir::packing::Packing;
use mcc_ir::target::{Feature, Target};
use mcc_ir::winograd::Winograd;

/// Tiles that are multiplied together.
const TILES: usize = 4;

/// Filters that are multiplied together.
const FILTERS: usize = 2;

/// More input channels would take more working memory than time that they save, and offsets too far for a load.
const MOST_CHANNELS: usize = 128;

pub fn offer_f2(spec: &KernelSpec<'_>, target: &Target) -> Option<Offer> {
    offer(spec, target, Winograd::F2)
}

pub fn offer_f4(spec: &KernelSpec<'_>, target: &Target) -> Option<Offer> {
    offer(spec, target, Winograd::F4)
}

pub fn offer_stride_2(spec: &KernelSpec<'_>, target: &Target) -> Option<Offer> {
    offer(spec, target, Winograd::Stride2)
}

fn offer(spec: &KernelSpec<'_>, target: &Target, form: Winograd) -> Option<Offer> {
    let Op::Conv2d(o) = spec.op else { return None };
    let g = Geometry::new(o, spec.arg_types, spec.out_type)?;
    let window = g.kernel == [3, 3] && g.dilation == [1, 1] && o.groups == 1 && g.stride == [form.stride(); 2];
    if !target.has(Feature::Dsp) || !window || !suits(spec, Style::Dsp) {
        return None;
    }
    let unsigned = spec.arg_types[0].dtype == DType::U8;
    let (range, limit) = if unsigned { (0..=255, 255) } else { (-128..=127, 128) };
    let weights: Vec<i8> = spec.consts[1]?.bytes().iter().map(|b| *b as i8).collect();
    if g.channels > MOST_CHANNELS || !range.contains(&o.pad_value) || !form.fits(&weights, 9 * g.channels, limit) {
        return None;
    }
    let mut packings = vec![Packing::None; spec.arg_types.len()];
    packings[1] = Packing::Winograd(form);
    let tiles = Tiles::new(form, &g);
    Some(Offer {
        packings,
        scratch_bytes: tiles.scratch_bytes(),
        work: tiles.work(&g, spec),
        code: tiles.code(spec),
        overlap: None,
    })
}

/// How a convolution is cut.
struct Tiles {
    form: Winograd,
    /// Rows of tiles of one image, and tiles of a row.
    rows: usize,
    columns: usize,
    /// Tiles of all images.
    count: usize,
    /// Words of a frequency of one tile.
    words: usize,
}

impl Tiles {
    fn new(form: Winograd, g: &Geometry) -> Tiles {
        let [rows, columns] = g.out.map(|n| n.div_ceil(form.outputs()));
        Tiles { form, rows, columns, count: g.batch * rows * columns, words: Winograd::words(g.channels) }
    }

    /// Words of the transformed tiles.
    fn transformed(&self) -> usize {
        self.form.frequencies() * self.words * TILES
    }

    /// Words of the sums of products.
    fn sums(&self) -> usize {
        self.form.frequencies() * TILES * FILTERS
    }

    /// Bytes of a pixel in a tile.
    fn pixel(&self) -> usize {
        2 * self.words
    }

    fn scratch_bytes(&self) -> usize {
        4 * (self.transformed() + self.sums()) + self.form.inputs() * self.form.inputs() * self.pixel()
    }

    fn work(&self, g: &Geometry, spec: &KernelSpec<'_>) -> Work {
        let (tiles, groups) = (self.count as f64, self.count.div_ceil(TILES) as f64);
        let (size, inputs) = (self.form.outputs(), self.form.inputs());
        let multiplied = groups * (g.outs.div_ceil(FILTERS) * self.form.frequencies()) as f64;
        // Tiles whose inputs leave the image, which are brought pixel by pixel.
        let inside = |axis: usize| {
            let (n, step) = ([self.rows, self.columns][axis], size * self.form.stride());
            let within =
                |t: &usize| t * step >= g.pad[axis] && t * step + inputs <= [g.height, g.width][axis] + g.pad[axis];
            (0..n).filter(within).count()
        };
        let whole = (g.batch * inside(0) * inside(1)) as f64;
        let pixels = (inputs * inputs) as f64;
        let work = Work::default()
            .and("runs of the kernel", 1.0)
            .and("tiles", tiles)
            .and("tiles inside", whole)
            .and("border pixels", (tiles - whole) * pixels)
            .and("border bytes", (tiles - whole) * pixels * g.channels as f64)
            .and("bytes inside", whole * pixels * g.channels as f64)
            .and("words brought", tiles * self.words as f64)
            .and("products", multiplied * self.words as f64)
            .and("frequencies", multiplied)
            .and("filters", groups * g.outs.div_ceil(FILTERS) as f64)
            .and("sums", tiles * g.outs as f64);
        let rescaled = Rescale::new(spec).is_some();
        let full = g.out.iter().all(|n| n.is_multiple_of(size));
        let outputs = spec.out_type.elements() as f64;
        match (rescaled, full) {
            (false, _) => work::epilogue(work, spec),
            (true, true) => work::rest(work.and("bytes in whole tiles", outputs), spec),
            (true, false) => work::rest(work.and("bytes in cut tiles", outputs), spec),
        }
    }

    fn code(&self, spec: &KernelSpec<'_>) -> Code {
        let size = Work::default().and("functions", 1.0).and("words", self.words.min(32) as f64);
        let rescaled = Rescale::new(spec).is_some();
        let own = if rescaled { work::rest_code(spec) } else { work::code(spec, usize::MAX, 1).and("sums", 1.0) };
        let products = format!("winograd_products_{}", self.words);
        let code = Code::own(own).sharing_one(products.into(), "winograd_products", size);
        match (self.form, spec.arg_types[0].dtype == DType::U8) {
            (Winograd::F4, false) => {
                let bring = format!("winograd_4_in_s8_{}", self.words);
                let code = code.sharing_one(bring.into(), "winograd_4_in_s8", Work::default().and("functions", 1.0));
                if rescaled { code.sharing("winograd_4_bytes") } else { code }
            }
            (Winograd::F4, true) if rescaled => code.sharing("winograd_4_bytes"),
            _ => code,
        }
    }
}

/// How the sums of a tile become outputs.
enum End {
    /// By the epilogue's own steps.
    Steps,
    /// To bytes by factors and scales, then by the other steps.
    Factors { rest: Rest },
}

/// What follows when sums are bytes.
enum Rest {
    Nothing,
    /// The addition of another byte in integers: the constants, and the argument.
    Residual(Residual, usize),
    Steps,
}

impl End {
    fn new(t: &Template<'_>, rescale: Option<&Rescale>) -> End {
        let k = t.kernel;
        let (Some(_), Some(post)) = (rescale, k.op.post()) else { return End::Steps };
        let argument = k.op.own_inputs().unwrap_or(0) + 1;
        let residual = match k.arg_types.get(argument) {
            Some(ty) if ty.elements() == k.out_type.elements() => Residual::new(&post[1..], ty.dtype),
            _ => None,
        };
        let rest = match residual {
            _ if post.len() == 1 => Rest::Nothing,
            Some(residual) => Rest::Residual(residual, argument),
            None => Rest::Steps,
        };
        End::Factors { rest }
    }

    /// Whether bytes are stored as they are.
    fn stores(&self) -> bool {
        matches!(self, End::Factors { rest: Rest::Nothing })
    }

    /// Finishes and stores a value, a sum or (under [`End::Factors`]) a byte, as output `p + i` of a channel.
    fn store(&self, t: &mut Template<'_>, w: &mut Writer, value: &str, p: &str, i: usize) {
        let outs = t.kernel.out_type.shape[3];
        let at = format!("{} + channel", affine(outs, p, (i * outs) as i64));
        match self {
            End::Steps => t.store(w, value, (p, i), ("channel", 0)),
            End::Factors { rest: Rest::Nothing } => w.line(format!("out[{at}] = {value};")),
            End::Factors { rest: Rest::Steps } => t.store_from(w, 1, value, (p, i), ("channel", 0)),
            End::Factors { rest: Rest::Residual(r, argument) } => {
                let b = t.arg(*argument);
                let value = r.expression(t.helpers, value, &format!("{b}[{at}]"));
                w.line(format!("out[{at}] = {value};"));
            }
        }
    }
}

/// The factors and scales by which sums become bytes, where the epilogue begins with that.
fn rescale(t: &Template<'_>, outs: usize) -> Option<Rescale> {
    Rescale::of(&t.kernel.op, t.consts, t.kernel.arg_types[0].dtype, outs)
}

/// The tables of a kernel: of each channel where its sums start and its factor or scale; and where outputs of a tile go, elements
/// from one to the next and from row to row.
fn tables(t: &mut Template<'_>, rescale: &Rescale, outs: usize, place: Option<[usize; 2]>) {
    let w = &mut Writer::default();
    w.line(format!("static const uint32_t {}_channels[{}] = {{", t.name, 2 * outs));
    for c in 0..outs {
        let (start, factor) = rescale.plain(c);
        w.line(format!("    0x{:x}u, 0x{factor:x}u,", start as u32));
    }
    w.line("};");
    if let Some([pixel, row]) = place {
        let place = format!("{pixel}, {}, {}", row - pixel, start_of(rescale));
        w.line(format!("static const int32_t {}_place[3] = {{{place}}};", t.name));
    }
    t.function(w);
}

/// What a scaled sum is added to.
fn start_of(rescale: &Rescale) -> i32 {
    (2 * rescale.zero() + 1) << (rescale::SHIFT - 1)
}

pub fn print(t: &mut Template<'_>, w: &mut Writer, form: Winograd) {
    let k = t.kernel;
    let Op::Conv2d(o) = &k.op else { unreachable!("offered for convolutions only") };
    let g = Geometry::new(o, &k.arg_types, &k.out_type).expect("offered for NHWC only");
    let tiles = Tiles::new(form, &g);
    tile_function(t, &g, &tiles, o.pad_value);
    let unsigned = k.arg_types[0].dtype == DType::U8;
    let n = tiles.words;
    let bring = match form {
        Winograd::F2 => t.helpers.get_for("winograd_2_in", n),
        Winograd::F4 if unsigned => t.helpers.get_for("winograd_4_in", n),
        Winograd::F4 => {
            t.helpers.get_for("winograd_4_in", n);
            t.helpers.get_for("winograd_4_in_s8", n)
        }
        Winograd::Stride2 => t.helpers.get_for("winograd_s2_in", n),
    };
    let products = t.helpers.get_for("winograd_products", n);
    let (x, weights) = (t.arg(0), t.arg(1));
    w.line("uint32_t *const v = (uint32_t *)scratch;");
    w.line(format!("int32_t *const m = (int32_t *)(v + {});", tiles.transformed()));
    w.line(format!("uint8_t *const tile = (uint8_t *)(m + {});", tiles.sums()));
    w.open_for("first", tiles.count, TILES);
    let whole = tiles.count.is_multiple_of(TILES);
    let inside = if whole { String::new() } else { format!(" && first + i < {}", tiles.count) };
    w.open(format!("for (int32_t i = 0; i < {TILES}{inside}; i++)"));
    w.line(format!("{}_tile({x}, first + i, tile);", t.name));
    w.line(format!("{bring}(v + i, tile, {});", if unsigned { "0u" } else { "0x80808080u" }));
    w.close();
    w.open_for("c", g.outs, FILTERS);
    let filter = form.frequencies() * n * 2;
    w.line(format!("{products}(v, {weights} + {}, m, m + {});", affine(filter, "c", 0), tiles.sums()));
    w.open_for("i", TILES * FILTERS, 1);
    w.line(format!("const int32_t channel = c + i % {FILTERS};"));
    w.line(format!("const int32_t t = first + i / {FILTERS};"));
    let mut beyond = Vec::new();
    if !whole {
        beyond.push(format!("t >= {}", tiles.count));
    }
    if !g.outs.is_multiple_of(FILTERS) {
        beyond.push(format!("channel >= {}", g.outs));
    }
    if !beyond.is_empty() {
        w.open(format!("if ({})", beyond.join(" || ")));
        w.line("continue;");
        w.close();
    }
    place(w, &tiles);
    outputs(t, w, &g, &tiles, o.bias);
    w.close();
    w.close();
    w.close();
}

/// Turns sums of products `m + i` into the outputs of tile t that lie inside the image.
fn outputs(t: &mut Template<'_>, w: &mut Writer, g: &Geometry, tiles: &Tiles, bias: bool) {
    let (form, size, [height, width]) = (tiles.form, tiles.form.outputs(), g.out);
    let image = if g.batch > 1 { format!("image * {} + ", height * width) } else { String::new() };
    w.line(format!("int32_t p = {image}y * {} + x * {size};", width * size));
    let full = height.is_multiple_of(size) && width.is_multiple_of(size);
    let rescale = rescale(t, g.outs);
    let end = End::new(t, rescale.as_ref());
    // Outputs of a tile in C: the name of the first one, and elements from one to the next.
    let (from, step, scaled) = match (form, &rescale) {
        (Winograd::F4, Some(rescale)) => {
            let bytes = t.helpers.get("winograd_4_bytes");
            let tables_of = format!("{0}_channels + 2 * channel, {0}_place", t.name);
            if full && end.stores() {
                tables(t, rescale, g.outs, Some([g.outs, width * g.outs]));
                w.line(format!("{bytes}(m + i, out + {} + channel, {tables_of});", affine(g.outs, "p", 0)));
                return;
            }
            tables(t, rescale, g.outs, Some([1, size]));
            w.line(format!("int8_t bytes[{}];", size * size));
            w.line(format!("{bytes}(m + i, bytes, {tables_of});"));
            ("const int8_t *s = bytes;", 1, None)
        }
        (_, rescale) => {
            let back = t.helpers.get(match form {
                Winograd::F2 => "winograd_2_out",
                Winograd::F4 => "winograd_4_out",
                Winograd::Stride2 => "winograd_s2_out",
            });
            let first = match rescale {
                Some(rescale) => {
                    tables(t, rescale, g.outs, None);
                    format!("(int32_t){}_channels[2 * channel]", t.name)
                }
                None => t.start(bias, "channel", 0, false),
            };
            w.line(format!("{back}(m + i, {first});"));
            ("const int32_t *s = m + i;", TILES * FILTERS, rescale.as_ref())
        }
    };
    let scale = scaled.map(|r| {
        w.line(format!("const uint32_t factor = {}_channels[2 * channel + 1];", t.name));
        (t.helpers.get("scale_to_s8"), start_of(r))
    });
    let value = |at: String| match &scale {
        Some((scale, start)) => format!("{scale}(s[{at}], factor, {start})"),
        None => format!("s[{at}]"),
    };
    let min = t.helpers.get("min");
    w.line(from);
    let rows =
        if height.is_multiple_of(size) { size.to_string() } else { format!("{min}({height} - y * {size}, {size})") };
    w.open_for("r", rows, 1);
    if width.is_multiple_of(size) {
        for q in 0..size {
            end.store(t, w, &value((q * step).to_string()), "p", q);
        }
    } else {
        w.line(format!("const int32_t columns = {min}({width} - x * {size}, {size});"));
        w.open_for("q", "columns", 1);
        w.line("const int32_t pixel = p + q;");
        end.store(t, w, &value(affine(step, "q", 0)), "pixel", 0);
        w.close();
    }
    w.line(format!("p += {width};"));
    w.line(format!("s += {};", size * step));
    w.close();
}

/// Defines the place of tile `t`: its image where there is more than one, and its row and column of tiles.
fn place(w: &mut Writer, tiles: &Tiles) {
    let (rows, columns) = (tiles.rows, tiles.columns);
    let row = format!("t / {columns}");
    if tiles.count > rows * columns {
        w.line(format!("const int32_t image = {row} / {rows};"));
        w.line(format!("const int32_t y = {row} % {rows};"));
    } else {
        w.line(format!("const int32_t y = {row};"));
    }
    w.line(format!("const int32_t x = t % {columns};"));
}

/// The function that brings the pixels of one tile into working memory, padding included.
fn tile_function(t: &mut Template<'_>, g: &Geometry, tiles: &Tiles, pad_value: i32) {
    let (form, c, pixel) = (tiles.form, g.channels, tiles.pixel());
    let (inputs, step) = (form.inputs(), form.outputs() * form.stride());
    let ty = if t.kernel.arg_types[0].dtype == DType::U8 { "uint8_t" } else { "int8_t" };
    let size = [g.height as i64, g.width as i64];
    // Whether some tile has pixels before or after the image along an axis.
    let before = |axis: usize| g.pad[axis] > 0;
    let after = |axis: usize, count: usize| ((count - 1) * step + inputs) as i64 - g.pad[axis] as i64 > size[axis];
    let w = &mut Writer::default();
    w.line("/* Brings tile t into working memory. */");
    w.open(format!("static void {}_tile(const {ty} *in, int32_t t, uint8_t *to)", t.name));
    place(w, tiles);
    let image = if g.batch > 1 {
        w.line(format!("const {ty} *const from = in + image * {};", g.height * g.width * c));
        "from"
    } else {
        "in"
    };
    let pad = |axis: usize| -(g.pad[axis] as i64);
    w.line(format!("const int32_t x0 = {};", affine(step, "x", pad(1))));
    w.open(format!("for (int32_t i = 0; i < {inputs}; i++, to += {})", inputs * pixel));
    w.line(format!("const int32_t line = {} + i;", affine(step, "y", pad(0))));
    let fill = pad_value & 255;
    if before(0) || after(0, tiles.rows) {
        w.open(format!("if ((uint32_t)line >= {}u)", g.height));
        w.line(format!("memset(to, {fill}, {});", inputs * pixel));
        w.line("continue;");
        w.close();
    }
    w.line(format!("const {ty} *const row = {image} + {};", affine(g.width * c, "line", 0)));
    let clips = before(1) || after(1, tiles.columns);
    if c == pixel {
        let all = format!("memcpy(to, row + {}, {});", affine(c, "x0", 0), inputs * c);
        if clips {
            let (min, max) = (t.helpers.get("min"), t.helpers.get("max"));
            w.open(format!("if (x0 >= 0 && x0 <= {})", size[1] - inputs as i64));
            w.line(all);
            w.or_else();
            w.line(format!("const int32_t begin = {min}({max}(-x0, 0), {inputs});"));
            w.line(format!("const int32_t stop = {min}({max}({} - x0, begin), {inputs});", g.width));
            let bytes = |n: &str| format!("(size_t)({})", affine(c, n, 0));
            w.line(format!("memset(to, {fill}, {});", bytes("begin")));
            let source = affine(c, "(x0 + begin)", 0);
            w.line(format!("memcpy(to + {}, row + {source}, {});", affine(c, "begin", 0), bytes("(stop - begin)")));
            let rest = bytes(&format!("({inputs} - stop)"));
            w.line(format!("memset(to + {}, {fill}, {rest});", affine(c, "stop", 0)));
            w.close();
        } else {
            w.line(all);
        }
    } else {
        // The bytes that fill up a pixel meet weights of zero.
        w.open_for("j", inputs, 1);
        w.line("const int32_t at = x0 + j;");
        let to = format!("to + {}", affine(pixel, "j", 0));
        let copy = format!("memcpy({to}, row + {}, {c});", affine(c, "at", 0));
        if clips {
            w.open(format!("if ((uint32_t)at < {}u)", g.width));
            w.line(copy);
            w.or_else();
            w.line(format!("memset({to}, {fill}, {c});"));
            w.close();
        } else {
            w.line(copy);
        }
        w.close();
    }
    w.close();
    w.close();
    t.function(w);
}
