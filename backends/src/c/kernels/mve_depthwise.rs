//! Depthwise 3x3 convolution with the vector instructions of Armv8.1-M (Helium), channels innermost in memory.
//!
//! The work is done by a function made for the geometry: see [`Planes`]. A channel is read in full before an output of it
//! is written, and no channel reads another: the output may take over the input in place.

use super::mve_store::{Clamp, Epilogue};
use super::{Geometry, Style, Template, affine, suits, work};
use crate::c::mve_depthwise::{Axis, Planes, WEIGHT_BYTES};
use crate::c::writer::Writer;
use mcc_ir::catalogue::{KernelSpec, Offer};
use mcc_ir::costs::{Code, Work};
use mcc_ir::dtype::DType;
use mcc_ir::op::Op;
use mcc_ir::packing::Packing;
use mcc_ir::plan::Overlap;
use mcc_ir::target::{Feature, Target};

/// Bytes of working memory that a plane may take.
const MOST_BYTES: usize = 6144;

pub fn offer(spec: &KernelSpec<'_>, target: &Target) -> Option<Offer> {
    let Op::Conv2d(o) = spec.op else { return None };
    let g = Geometry::new(o, spec.arg_types, spec.out_type)?;
    let depthwise = o.groups == g.channels && g.outs == g.channels && o.bias;
    let window = g.kernel == [3, 3] && g.dilation == [1, 1] && (g.stride == [1, 1] || g.stride == [2, 2]);
    if !target.has(Feature::Mve) || !depthwise || !window || !suits(spec, Style::S8) {
        return None;
    }
    let whole = matches!(
        Epilogue::of(spec.op, spec.arg_types, spec.out_type),
        Some(Epilogue::Scale(Clamp { lo: -128, hi: 127, .. }))
    );
    let planes = planes(&g)?;
    if !whole || spec.arg_types[0].dtype != DType::I8 {
        return None;
    }
    // A channel is read as a whole before it is written, and channel lies over channel.
    let in_place = g.batch == 1 && spec.out_type.bytes() <= spec.arg_types[0].bytes()
        || spec.arg_types[0].shape == spec.out_type.shape;
    let mut packings = vec![Packing::None; spec.arg_types.len()];
    packings[1] = Packing::Panel { rows: 1, depth: WEIGHT_BYTES };
    Some(Offer {
        packings,
        scratch_bytes: planes.bytes(),
        work: planes
            .counts()
            .into_iter()
            .fold(Work::default().and("runs of the kernel", 1.0), |work, (name, n)| work.and(name, g.batch as f64 * n)),
        code: Code::own(work::code(spec, 0, 0)).sharing_one(planes.name().into(), "depthwise", planes.size()),
        overlap: in_place.then_some(Overlap::InPlace),
    })
}

/// The cheaper of the two ways to lay rows.
fn planes(g: &Geometry) -> Option<Planes> {
    let c = g.channels;
    let axis = |axis: usize| {
        let (step, out_step) = if axis == 1 { (c, c) } else { (g.width * c, g.out[1] * c) };
        Axis { size: [g.height, g.width][axis], out: g.out[axis], pad: g.pad[axis], step, out_step }
    };
    let both = [false, true].map(|transposed| {
        let (along, across) = if transposed { (axis(0), axis(1)) } else { (axis(1), axis(0)) };
        Planes { along, across, stride: g.stride[0], channels: c, transposed }
    });
    let fits = |p: &Planes| p.fits() && p.bytes() <= MOST_BYTES;
    both.into_iter().filter(fits).min_by(|a, b| a.instructions().total_cmp(&b.instructions()))
}

pub fn print(t: &mut Template<'_>, w: &mut Writer) {
    let k = t.kernel;
    let Op::Conv2d(o) = &k.op else { unreachable!("offered for convolutions only") };
    let g = Geometry::new(o, &k.arg_types, &k.out_type).expect("offered for NHWC only");
    let p = planes(&g).expect("offered");
    let Some(Epilogue::Scale(clamp)) = Epilogue::of(&k.op, &k.arg_types, &k.out_type) else {
        unreachable!("offered for one scale only")
    };
    let (c, [oh, ow]) = (g.channels, g.out);
    let [x, weights, bias, scale] = [0, 1, 2, 3].map(|i| t.arg(i));
    let mve = t.helpers.get("mve");
    w.line("int8_t *const plane = (int8_t *)scratch;");
    let (from, to) = if g.batch > 1 {
        w.open_for("n", g.batch, 1);
        (format!("{x} + {}", affine(g.height * g.width * c, "n", 0)), format!("out + {}", affine(oh * ow * c, "n", 0)))
    } else {
        (x.clone(), "out".into())
    };
    w.line(format!("#if {mve}"));
    let (function, fill) = (t.helpers.depthwise(&p), t.helpers.get("fill_bytes"));
    w.line(format!("{fill}(plane, {}, {});", o.pad_value, p.bytes()));
    let step = if k.arg_types[3].elements() > 1 { 4 } else { 0 };
    let tables = format!("{function}_tables");
    w.line(format!("{function}({from}, {weights}, {bias}, {scale}, {to}, plane, {}, {step}, {tables});", clamp.zero));
    w.line("#else");
    plain(t, w, &g, &from, (o.pad_value, &p));
    w.line("#endif");
    if g.batch > 1 {
        w.close();
    }
}

/// The same in plain C: a plane of whole rows.
fn plain(t: &mut Template<'_>, w: &mut Writer, g: &Geometry, from: &str, (pad, p): (i32, &Planes)) {
    let (c, [oh, ow]) = (g.channels, g.out);
    // The plane's rows and columns, in the image's order.
    let (rows, columns) = if p.transposed { (p.columns(), p.rows()) } else { (p.rows(), p.columns()) };
    w.open_for("c", c, 1);
    w.open_for("r", rows, 1);
    w.open_for("k", columns, 1);
    w.line(format!(
        "const int32_t y = {}, column = {};",
        affine(1, "r", -(g.pad[0] as i64)),
        affine(1, "k", -(g.pad[1] as i64))
    ));
    w.line(format!("const int inside = (uint32_t)y < {}u && (uint32_t)column < {}u;", g.height, g.width));
    let at = format!("({from})[(y * {} + column) * {c} + c]", g.width);
    w.line(format!("plane[r * {columns} + k] = inside ? {at} : {pad};"));
    w.close();
    w.close();
    w.open_for("oy", oh, 1);
    w.open_for("ox", ow, 1);
    let row = if g.batch > 1 { format!("(n * {oh} + oy)") } else { "oy".into() };
    w.line(format!("const int32_t p = {row} * {ow} + ox;"));
    let start = t.start(true, "c", 0, false);
    w.line(format!("int32_t s = {start};"));
    w.open_for("tap", 9, 1);
    let window = format!("(oy * {} + tap / 3) * {columns} + ox * {} + tap % 3", g.stride[0], g.stride[1]);
    let (mac, weights) = (t.helpers.get("mac"), t.arg(1));
    w.line(format!("s = {mac}(s, plane[{window}], {weights}[c * {WEIGHT_BYTES} + tap]);"));
    w.close();
    t.store(w, "s", ("p", 0), ("c", 0));
    w.close();
    w.close();
    w.close();
}
