//! Depthwise 3x3 convolution on pairs of half-words, channels innermost in memory.
//!
//! Four channels at a time are turned into lines of half-words, channel by channel, in working memory. A line runs along
//! the longer image axis, the *pair axis*; one word holds two neighbours on it, padding included. From three words, one a
//! line, SMLAD and its kin finish two outputs and start the next two with shifted weights, so that each word is read
//! once. Lines are held in bands: as many as fit into a little working memory, so that the six words of weights, the
//! bias and the scale of a channel stay in registers for many outputs. A band keeps its last lines for the next one.
//!
//! Input lines are read before an output that could lie over them is written, and no channel reads another: the output
//! may take over the input in place.

use super::rescale::Rescale;
use super::{Geometry, Style, Template, affine, plus, suits, work};
use crate::c::consts;
use crate::c::lines::Lines;
use crate::c::writer::Writer;
use mcc_ir::catalogue::{KernelSpec, Offer};
use mcc_ir::costs::{Code, Work};
use mcc_ir::dtype::DType;
use mcc_ir::op::Op;
use mcc_ir::packing::Packing;
use mcc_ir::plan::{Arg, Overlap};
use mcc_ir::target::{Feature, Target};
use mcc_ir::tensor::Tensor;
use mcc_ir::types::TensorType;

/// Bytes of working memory that a band may take.
const BAND_BYTES: usize = 4096;

/// Channels that are unpacked together.
const CHANNELS: usize = 4;

pub fn offer(spec: &KernelSpec<'_>, target: &Target) -> Option<Offer> {
    let Op::Conv2d(o) = spec.op else { return None };
    let g = Geometry::new(o, spec.arg_types, spec.out_type)?;
    let depthwise = o.groups == g.channels && g.outs == g.channels && g.channels.is_multiple_of(CHANNELS);
    let window = g.kernel == [3, 3] && g.dilation == [1, 1] && g.stride.iter().all(|s| (1..=2).contains(s));
    if !target.has(Feature::Dsp) || !depthwise || !window || !suits(spec, Style::Dsp) {
        return None;
    }
    let rows = Rows::new(&g);
    let fast = target.has(Feature::Fpu) && rescaled(spec.op, spec.consts, spec.arg_types, &g).is_some();
    let scratch_bytes = rows.scratch_bytes();
    // At stride 1 and one size the pads of an axis are two together: a band reads on from the line after the last written.
    let x = &spec.arg_types[0];
    let in_place = x.shape == spec.out_type.shape && x.bytes() == spec.out_type.bytes() && g.stride == [1, 1];
    let overlap = in_place.then_some(Overlap::InPlace);
    (scratch_bytes <= BAND_BYTES).then(|| Offer {
        packings: vec![Packing::None; spec.arg_types.len()],
        scratch_bytes,
        work: if fast { rows.work(&g, true) } else { work::epilogue(rows.work(&g, false), spec) },
        code: code(spec, &g, &rows),
        overlap,
    })
}

/// The code: a call of functions that layers of one shape share, or all of it.
fn code(spec: &KernelSpec<'_>, g: &Geometry, rows: &Rows) -> Code {
    let Some(rescale) = rescaled(spec.op, spec.consts, spec.arg_types, g) else {
        return Code::own(work::code(spec, usize::MAX, 2));
    };
    let Op::Conv2d(o) = spec.op else { unreachable!("offered for convolutions only") };
    let zero = rescale.zero();
    let function = shared_name(g, o.pad_value, zero, spec.arg_types[0].dtype == DType::U8);
    let size = || Work::default().and("functions", 1.0);
    let kind = if rows.stride == 1 { "lines" } else { "lines at stride 2" };
    let lines = rows.helper(g, zero);
    let turns = size().and("turns", lines.unrolled() as f64);
    let code = Code::own(Work::default().and("calls", 1.0)).sharing_one(function.into(), "depthwise", size());
    code.sharing_one(lines.name().into(), kind, turns)
}

/// The name of the function that layers of one shape share.
fn shared_name(g: &Geometry, pad_value: i32, zero: i32, unsigned: bool) -> String {
    let minus = |v: i32| v.to_string().replace('-', "m");
    format!(
        "depthwise_{}x{}x{}x{}_{}x{}_{}x{}_{}x{}_{}_{}{}",
        g.batch,
        g.height,
        g.width,
        g.channels,
        g.stride[0],
        g.stride[1],
        g.pad[0],
        g.pad[1],
        g.out[0],
        g.out[1],
        minus(pad_value),
        minus(zero),
        if unsigned { "_u8" } else { "" }
    )
}

/// How an image is cut into lines and bands.
struct Rows {
    /// The image axis along which a line runs: 0 down, 1 across.
    axis: usize,
    /// Outputs of a line, and lines of output.
    length: usize,
    lines: usize,
    /// Strides along a line and from line to line.
    stride: usize,
    line_stride: usize,
    /// Words of one line in working memory.
    words: usize,
    /// Lines of output that a band makes.
    band: usize,
}

impl Rows {
    fn new(g: &Geometry) -> Rows {
        let along = |axis: usize| {
            let (length, lines) = (g.out[axis], g.out[1 - axis]);
            let (stride, line_stride) = (g.stride[axis], g.stride[1 - axis]);
            let words = if stride == 1 { length.div_ceil(2) } else { length } + 1;
            let fit = BAND_BYTES / (4 * CHANNELS * words);
            let most = (fit.saturating_sub(3) / line_stride + 1).min(lines);
            // Bands of one size, as far as it goes.
            let band = lines.div_ceil(lines.div_ceil(most));
            Rows { axis, length, lines, stride, line_stride, words, band }
        };
        let (across, down) = (along(1), along(0));
        if down.cycles(true) < across.cycles(true) { down } else { across }
    }

    /// Lines of input that a band reads.
    fn inputs(&self) -> usize {
        (self.band - 1) * self.line_stride + 3
    }

    /// The lines of a band of the whole image that lie before and after it, from one to another.
    fn padding(&self, g: &Geometry) -> [(usize, usize); 2] {
        let pad = g.pad[1 - self.axis].min(self.inputs());
        let stop = (pad + [g.height, g.width][1 - self.axis]).min(self.inputs());
        [(0, pad), (stop, self.inputs())]
    }

    /// Words of a channel in working memory.
    fn plane(&self) -> usize {
        self.inputs() * self.words
    }

    /// The words of weights, low and high half, as elements of `taps`: for each line taps 0 and 1, then 1 and 2 along the
    /// pair axis; at stride 2 the last taps of the lines come after all others, and make six words with zeros.
    fn pairs(&self) -> Vec<(String, String)> {
        let tap = |line: usize, along: usize| {
            let at = if self.axis == 1 { line * 3 + along } else { along * 3 + line };
            format!("taps[{at}]")
        };
        let begin = |line: usize| (tap(line, 0), tap(line, 1));
        match self.stride {
            1 => (0..3).flat_map(|line| [begin(line), (tap(line, 1), tap(line, 2))]).collect(),
            _ => {
                let lasts = [(tap(0, 2), tap(1, 2)), (tap(2, 2), "0".into()), ("0".into(), "0".into())];
                (0..3).map(begin).chain(lasts).collect()
            }
        }
    }

    /// The helper that makes lines of a channel of bytes.
    fn helper(&self, g: &Geometry, zero: i32) -> Lines {
        let (along, across) = if self.axis == 1 { (1, g.out[1]) } else { (g.out[1], 1) };
        Lines {
            length: self.length,
            stride: self.stride,
            words: self.words,
            plane: self.plane(),
            line_stride: self.line_stride,
            steps: [along * g.channels, across * g.channels],
            down: self.axis == 0,
            zero,
        }
    }

    fn scratch_bytes(&self) -> usize {
        4 * CHANNELS * self.plane()
    }

    /// The work, by the helper in assembly or without the epilogue.
    fn work(&self, g: &Geometry, fast: bool) -> Work {
        let channels = (g.batch * g.channels) as f64;
        let bands = self.lines.div_ceil(self.band);
        let keep = 3usize.saturating_sub(self.line_stride);
        let read = bands * self.inputs() - (bands - 1) * keep;
        let [words, lines] = match (self.stride, fast) {
            (1, true) => ["words", "lines"],
            (1, false) => ["words in C", "lines in C"],
            (_, true) => ["words at stride 2", "lines"],
            (_, false) => ["words at stride 2 in C", "lines in C"],
        };
        let columns = channels / CHANNELS as f64;
        Work::default()
            .and("runs of the kernel", 1.0)
            .and("columns", columns)
            .and("bands", columns * bands as f64)
            .and(lines, channels * self.lines as f64)
            .and(words, channels * (self.lines * (self.words - 1)) as f64)
            .and("lines read", columns * read as f64)
            .and("words read", columns * (read * self.words) as f64)
            .and("words kept", columns * ((bands - 1) * keep * self.words) as f64)
    }

    /// Estimated cycles of one channel, to choose an axis; `fast`: by the helper in assembly.
    fn cycles(&self, fast: bool) -> f64 {
        let (lines, words) = (self.lines as f64, (self.words - 1) as f64);
        let bands = self.lines.div_ceil(self.band) as f64;
        let word = match (self.stride, fast) {
            (1, true) => 26.5,
            (1, false) => 42.0,
            (_, true) => 14.0,
            (_, false) => 29.0,
        };
        let line = word * words + if fast { 22.0 } else { 35.0 };
        let unpack = (5.0 * words + 12.0) * (self.line_stride as f64 * lines + 2.0);
        60.0 * bands + lines * line + unpack
    }
}

pub fn print(t: &mut Template<'_>, w: &mut Writer) {
    let k = t.kernel;
    let Op::Conv2d(o) = &k.op else { unreachable!("offered for convolutions only") };
    let g = Geometry::new(o, &k.arg_types, &k.out_type).expect("offered for NHWC only");
    let rows = Rows::new(&g);
    if let Some(rescale) = rescaled(&k.op, t.consts, &k.arg_types, &g) {
        return print_shared(t, w, (&g, &rows), o.pad_value, &rescale);
    }
    channel_function(t, &g, &rows, o.bias);
    let x = t.arg(0);
    w.line("uint32_t *const rows = (uint32_t *)scratch;");
    bands(t, w, (&g, &rows), &x, o.pad_value, |t, w, first, lines| {
        w.open_for("j", CHANNELS, 1);
        let mut values = vec![format!("rows + {}", affine(rows.plane(), "j", 0))];
        for (j, _) in operands(t) {
            values.push(t.arg(j));
        }
        values.extend(["out", "c + j", first, lines].map(String::from));
        w.line(format!("{}_lines({});", t.name, values.join(", ")));
        w.close();
    });
}

/// The requantisation of a layer that ends with bytes, where the helpers in assembly can make it.
fn rescaled(op: &Op, consts: &[Option<&Tensor>], arg_types: &[TensorType], g: &Geometry) -> Option<Rescale> {
    let only = op.post().is_some_and(|p| p.len() == 1);
    let rescale = Rescale::of(op, consts, arg_types[0].dtype, g.channels).filter(|_| only)?;
    Rows::new(g).helper(g, rescale.zero()).fits().then_some(rescale)
}

/// Prints the call of a function that layers of one shape share, and that function at its first use.
fn print_shared(
    t: &mut Template<'_>,
    w: &mut Writer,
    (g, rows): (&Geometry, &Rows),
    pad_value: i32,
    rescale: &Rescale,
) {
    let table: Vec<String> = (0..g.channels)
        .map(|c| {
            let (start, word) = rescale.plain(c);
            format!("0x{:x}u, 0x{word:x}u,", start as u32)
        })
        .collect();
    let table = table.chunks(4).map(|line| format!("    {}\n", line.join(" "))).collect::<String>();
    t.functions.push_str(&format!("static const uint32_t {}_table[{}] = {{\n{table}}};\n\n", t.name, 2 * g.channels));
    let lines = rows.helper(g, rescale.zero());
    t.helpers.get("lines");
    let lines = t.helpers.make(&lines.name(), || lines.text());
    let unsigned = t.kernel.arg_types[0].dtype == DType::U8;
    let ty = if unsigned { "uint8_t" } else { "int8_t" };
    let f = &mut Writer::default();
    bands(t, f, (g, rows), "x", pad_value, |_, f, first, lines_of| {
        let to = match first {
            "0" => "out + c".into(),
            _ => format!("out + ({first}) * {} + c", g.channels),
        };
        f.line(format!("{lines}(rows, {to}, weights + c * 9, table + c * 2, {lines_of});"));
    });
    let name = shared_name(g, pad_value, rescale.zero(), unsigned);
    let body = std::mem::take(f).finish();
    let shared = t.helpers.make(&name, || {
        let mut f = Writer::default();
        f.line("");
        f.line("/* Depthwise 3x3 convolution: four channels at a time, as lines of pairs of half-words. */");
        f.line("#if defined(__GNUC__)");
        f.line("__attribute__((noinline))");
        f.line("#endif");
        f.open(format!(
            "static void $_{name}(const {ty} *x, uint32_t *rows, int8_t *out, const int8_t *weights, const uint32_t *table)"
        ));
        body.lines().for_each(|line| f.line(line));
        f.close();
        f.finish()
    });
    let (x, weights) = (t.arg(0), t.arg(1));
    w.line(format!("{shared}({x}, (uint32_t *)scratch, out, {weights}, {}_table);", t.name));
}

/// Prints the loops over images, channels and bands. `each` prints what makes the lines of the channels from `c` on, of
/// their first pixel and number of lines.
fn bands(
    t: &mut Template<'_>,
    w: &mut Writer,
    (g, rows): (&Geometry, &Rows),
    x: &str,
    pad_value: i32,
    each: impl Fn(&mut Template<'_>, &mut Writer, &str, &str),
) {
    let whole = rows.band == rows.lines;
    if whole {
        // Lines of padding are there for all channels.
        for (from, to) in rows.padding(g).into_iter().filter(|(from, to)| from < to) {
            let words = (to - from) * rows.words;
            fill(t, w, (rows, pad_value), &plus("rows", from * rows.words), words);
        }
    }
    if g.batch > 1 {
        w.open_for("n", g.batch, 1);
    }
    w.open_for("c", g.channels, CHANNELS);
    if !whole {
        w.open_for("first", rows.lines, rows.band);
    }
    unpack(t, w, (g, rows), x, pad_value);
    let image = if g.batch > 1 { format!("n * {}", g.out[0] * g.out[1]) } else { String::new() };
    let line = if rows.axis == 1 { g.out[1] } else { 1 };
    let first = if whole { String::new() } else { affine(line, "first", 0) };
    let pixel = match (image.is_empty(), first.is_empty()) {
        (true, true) => "0".into(),
        (false, false) => format!("{image} + {first}"),
        _ => format!("{image}{first}"),
    };
    let lines = if whole {
        rows.lines.to_string()
    } else {
        let min = t.helpers.get("min");
        format!("{min}({} - first, {})", rows.lines, rows.band)
    };
    each(t, w, &pixel, &lines);
    let keep = 3usize.saturating_sub(rows.line_stride);
    if !whole {
        // The first lines of the next band.
        if keep > 0 {
            let from = (rows.inputs() - keep) * rows.words;
            let copy = t.helpers.get("copy_planes");
            w.line(format!("{copy}(rows, rows + {from}, {}, {});", keep * rows.words, rows.plane()));
        }
        w.close();
    }
    w.close();
    if g.batch > 1 {
        w.close();
    }
}

/// Fills words of the four channels with padding.
fn fill(t: &mut Template<'_>, w: &mut Writer, (rows, pad_value): (&Rows, i32), to: &str, words: usize) {
    let (planes, half) = (t.helpers.get("fill_planes"), pad_value as u16 as u32);
    w.line(format!("{planes}({to}, 0x{:08x}u, {words}, {});", half << 16 | half, rows.plane()));
}

/// Brings the input lines of a band into working memory.
fn unpack(t: &mut Template<'_>, w: &mut Writer, (g, rows): (&Geometry, &Rows), x: &str, pad_value: i32) {
    let unsigned = t.kernel.arg_types[0].dtype == DType::U8;
    let (split, load) = (t.helpers.get(if unsigned { "split_u8" } else { "split_s8" }), t.helpers.get("load_4"));
    let size = [g.height, g.width];
    let (across, down) = (g.channels, g.width * g.channels);
    let (step, line_step) = if rows.axis == 1 { (across, down) } else { (down, across) };
    let (pad, line_pad) = (g.pad[rows.axis] as i64, g.pad[1 - rows.axis] as i64);
    let (length, lines) = (size[rows.axis] as i64, size[1 - rows.axis]);
    let whole = rows.band == rows.lines;
    let keep = 3usize.saturating_sub(rows.line_stride);
    if whole {
        let [(_, first), (stop, _)] = rows.padding(g);
        w.open(format!("for (int32_t i = {first}; i < {stop}; i++)"));
        w.line(format!("const int32_t line = {};", affine(1, "i", -line_pad)));
    } else {
        let start = if keep > 0 { format!("first == 0 ? 0 : {keep}") } else { "0".into() };
        w.open(format!("for (int32_t i = {start}; i < {}; i++)", rows.inputs()));
        w.line(format!("const int32_t line = {} + i;", affine(rows.line_stride, "first", -line_pad)));
    }
    w.line(format!("uint32_t *const to = rows + {};", affine(rows.words, "i", 0)));
    let opaque = t.helpers.get("opaque");
    let last = (rows.lines as i64 - 1) * rows.line_stride as i64 + 3 - line_pad;
    let spare = (rows.lines.div_ceil(rows.band) * rows.band - rows.lines) * rows.line_stride;
    if !whole && (line_pad > 0 || last + spare as i64 > lines as i64) {
        w.open(format!("if ((uint32_t)line >= {lines}u)"));
        fill(t, w, (rows, pad_value), "to", rows.words);
        w.line("continue;");
        w.close();
    }
    let image = if g.batch > 1 { format!("n * {} + ", g.height * g.width * g.channels) } else { String::new() };
    let ty = if unsigned { "uint8_t" } else { "int8_t" };
    w.line(format!("const {ty} *const row = {x} + {image}{} + c;", affine(line_step, "line", 0)));
    // Word k holds the places 2 k - pad and 2 k + 1 - pad.
    let places = |k: usize| [2 * k as i64 - pad, 2 * k as i64 + 1 - pad];
    let inside = |place: i64| (0..length).contains(&place);
    let count = |k: usize| places(k).into_iter().filter(|p| inside(*p)).count();
    let outside = format!("0x{:08x}u", pad_value as u8 as u32 * 0x0101_0101);
    let mut k = 0;
    while k < rows.words {
        let run = (k..rows.words).take_while(|&other| count(other) == count(k)).count();
        match count(k) {
            0 => fill(t, w, (rows, pad_value), &plus("to", k), run),
            2 => {
                let from = 2 * k as i64 - pad;
                let word = |w: &mut Writer, to: &str, at: &str, place: usize| {
                    let [a, b] = [place, place + 1].map(|p| format!("{load}({})", plus(at, p * step)));
                    w.line(format!("{split}({to}, {a}, {b}, {});", rows.plane()));
                };
                // Two words a turn: the loop itself would take a quarter of the time.
                if run > 1 {
                    w.block_open();
                    w.line(format!("const {ty} *at = {};", plus("row", from as usize * step)));
                    w.line(format!("uint32_t *word = {};", plus("to", k)));
                    w.line(format!("uint32_t *const stop = word + {opaque}({});", run / 2 * 2));
                    w.open(format!("for (; word != stop; word += 2, at += {})", 4 * step));
                    word(w, "word", "at", 0);
                    word(w, "word + 1", "at", 2);
                    w.close();
                    w.close();
                }
                if run % 2 == 1 {
                    word(w, &plus("to", k + run - 1), "row", from as usize + 2 * (run - 1));
                }
            }
            _ => {
                for k in k..k + run {
                    let [a, b] = places(k).map(|place| match place {
                        _ if !inside(place) => outside.clone(),
                        place => format!("{load}(row + {})", place * step as i64),
                    });
                    w.line(format!("{split}({}, {a}, {b}, {});", plus("to", k), rows.plane()));
                }
            }
        }
        k += run;
    }
    w.close();
}

/// The function that makes `lines` lines of output of one channel from pixel `first` on. On its own, all registers are its.
fn channel_function(t: &mut Template<'_>, g: &Geometry, rows: &Rows, bias: bool) {
    let k = t.kernel;
    let mut params = vec!["const uint32_t *restrict line".to_string()];
    for (j, ty) in operands(t) {
        params.push(format!("const {} *{}", consts::c_type(ty), t.args[j]));
    }
    params.push(format!("{} *out", consts::c_type(k.out_type.dtype)));
    let w = &mut Writer::default();
    w.line("/* Lines of output of one channel, from pixel first on. */");
    w.line("#if defined(__GNUC__)");
    w.line("__attribute__((noinline))");
    w.line("#endif");
    w.open(format!(
        "static void {}_lines({}, int32_t channel, int32_t first, int32_t lines)",
        t.name,
        params.join(", ")
    ));
    let (pair, opaque) = (t.helpers.get("pair"), t.helpers.get("opaque"));
    let weights = t.arg(1);
    w.line(format!("const int8_t *const taps = {weights} + channel * 9;"));
    for (i, (low, high)) in rows.pairs().into_iter().take(7 - rows.stride).enumerate() {
        w.line(format!("const uint32_t w{i} = {pair}({low}, {high});"));
    }
    let start = t.start(bias, "channel", 0, false);
    w.line(format!("const int32_t start = {start};"));
    // Pixels from one output to the next along a line, and from line to line.
    let (next, next_line) = if rows.axis == 1 { (1, g.out[1]) } else { (g.out[1], 1) };
    w.open(format!(
        "for (int32_t l = 0; l < lines; l++, line += {}, first += {next_line})",
        rows.line_stride * rows.words
    ));
    w.line("int32_t p = first;");
    w.line("const uint32_t *at = line;");
    let now: Vec<String> = (0..3).map(|i| format!("at[{}]", i * rows.words)).collect();
    if rows.stride == 1 {
        let step = t.helpers.get("rows_3");
        let begin = format!("{step}_begin");
        w.line("int32_t sums[2];");
        w.line(format!("{begin}(sums, {}, w0, w2, w4, start);", now.join(", ")));
        if rows.length > 1 {
            w.line(format!("const uint32_t *const stop = at + {opaque}({});", rows.length / 2));
            w.open(format!("for (; at != stop; p += {})", 2 * next));
            w.line("at++;");
            w.line("int32_t done[2];");
            w.line(format!("{step}(sums, done, {}, w0, w2, w4, w1, w3, w5, start);", now.join(", ")));
            t.store(w, "done[0]", ("p", 0), ("channel", 0));
            t.store(w, "done[1]", ("p", next), ("channel", 0));
            w.close();
        }
        if rows.length % 2 == 1 {
            w.line("at++;");
            w.line(format!("const int32_t done = {step}_end(sums, {}, w1, w3, w5);", now.join(", ")));
            t.store(w, "done", ("p", 0), ("channel", 0));
        }
    } else {
        for (name, word) in ["a", "b", "d"].iter().zip(&now) {
            w.line(format!("uint32_t {name} = {word};"));
        }
        w.line(format!("const uint32_t *const stop = at + {opaque}({});", rows.length));
        w.open(format!("for (; at != stop; p += {next})"));
        w.line("at++;");
        let row = t.helpers.get("row_3");
        w.line(format!("const int32_t sum = {row}_begin(a, b, d, w0, w1, w2, start);"));
        for (name, word) in ["a", "b", "d"].iter().zip(&now) {
            w.line(format!("{name} = {word};"));
        }
        w.line(format!("const int32_t done = {row}_end(a, b, d, w3, w4, sum);"));
        t.store(w, "done", ("p", 0), ("channel", 0));
        w.close();
    }
    w.close();
    w.close();
    t.function(w);
}

/// The operands of the epilogue that are buffers, with their types.
fn operands(t: &Template<'_>) -> Vec<(usize, DType)> {
    let k = t.kernel;
    let own = k.op.own_inputs().unwrap_or(0);
    (own..k.args.len()).filter(|&j| matches!(k.args[j], Arg::Buffer(_))).map(|j| (j, k.arg_types[j].dtype)).collect()
}
