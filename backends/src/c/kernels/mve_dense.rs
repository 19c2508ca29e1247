//! Matrix products of one or few rows with the vector instructions of Armv8.1-M (Helium).
//!
//! Each weight is used once for a row, so a load and a VMLADAVA for sixteen of them is the least there is. Up to seven
//! vectors of the row stay in registers while the weights of all outputs stream by; where the row is longer, passes
//! follow each other and sums wait in working memory.

use super::mve_store::{Clamp, Epilogue};
use super::{Geometry, Style, Template, affine, suits, work};
use crate::c::writer::Writer;
use mcc_ir::catalogue::{KernelSpec, Offer};
use mcc_ir::costs::{Code, Work};
use mcc_ir::dtype::DType;
use mcc_ir::op::Op;
use mcc_ir::packing::{LANES, Packing};
use mcc_ir::target::{Feature, Target};
use mcc_ir::types::TensorType;

/// Rows that are taken one after the other; more are a matter of tiles.
const MOST_ROWS: usize = 3;

/// Outputs whose sums are held at a time.
const CHUNK: usize = 128;

struct Rows {
    rows: usize,
    depth: usize,
    outs: usize,
    bias: bool,
    /// Vectors of a pass, and passes over the depth.
    vectors: usize,
    passes: usize,
    /// Outputs of a chunk, a multiple of eight.
    chunk: usize,
}

impl Rows {
    fn new(op: &Op, arg_types: &[TensorType], out: &TensorType) -> Option<Rows> {
        let (depth, outs, bias) = match op {
            Op::MatMul(o) if o.trans_b && arg_types[1].rank() == 2 => {
                (arg_types[1].shape[1], arg_types[1].shape[0], o.bias)
            }
            Op::Conv2d(o) if o.groups == 1 => {
                // A window that is the whole image.
                let g = Geometry::new(o, arg_types, out)?;
                let whole = g.kernel == [g.height, g.width] && g.out == [1, 1] && o.pad == [0; 4];
                (whole && g.dilation == [1, 1]).then_some(())?;
                (g.height * g.width * g.channels, g.outs, o.bias)
            }
            _ => return None,
        };
        let rows = out.elements().checked_div(outs)?;
        let all = depth.div_ceil(LANES);
        let cost = |n: usize| all.div_ceil(n) * (LANES * n + 6);
        let vectors = (1..=7).min_by_key(|n| cost(*n))?;
        let chunk = outs.next_multiple_of(8).min(CHUNK);
        let passes = all.div_ceil(vectors);
        (1..=MOST_ROWS).contains(&rows).then_some(Rows { rows, depth, outs, bias, vectors, passes, chunk })
    }

    fn padded(&self) -> usize {
        self.passes * self.vectors * LANES
    }

    /// Whether a row is copied, so that its last vector can be read.
    fn copies(&self) -> bool {
        self.depth != self.padded()
    }

    fn scratch_bytes(&self) -> usize {
        4 * self.chunk + if self.copies() { self.padded() } else { 0 }
    }

    fn code(&self, spec: &KernelSpec<'_>) -> Code {
        let dots = Work::default().and("functions", 1.0).and("vectors", self.vectors as f64);
        let chunks = if self.outs <= self.chunk || self.outs.is_multiple_of(self.chunk) { 1 } else { 2 };
        let scale = matches!(Epilogue::of(spec.op, spec.arg_types, spec.out_type), Some(Epilogue::Scale(_)));
        let own = work::code(spec, if scale { 0 } else { usize::MAX }, chunks).and("chunks", chunks as f64);
        let code = Code::own(own).sharing_one(format!("dots_{}", self.vectors).into(), "dots", dots);
        if scale { code.sharing("store_row") } else { code }
    }

    fn work(&self, spec: &KernelSpec<'_>) -> Work {
        let rows = self.rows as f64;
        let chunks = rows * self.outs.div_ceil(self.chunk) as f64;
        let groups = rows * (self.outs.div_ceil(8) * self.passes) as f64;
        let work = Work::default()
            .and("runs of the kernel", 1.0)
            .and("chunks", chunks)
            .and("passes", chunks * self.passes as f64)
            .and("groups", groups)
            .and("vectors", groups * self.vectors as f64)
            .and("copied", if self.copies() { rows * self.depth as f64 } else { 0.0 });
        match Epilogue::of(spec.op, spec.arg_types, spec.out_type) {
            Some(Epilogue::Scale(_)) => work.and("scaled", rows * self.outs as f64),
            _ => work::epilogue(work, spec),
        }
    }
}

pub fn offer(spec: &KernelSpec<'_>, target: &Target) -> Option<Offer> {
    let takes = matches!(spec.op, Op::MatMul(_) | Op::Conv2d(_));
    if !takes || !target.has(Feature::Mve) || !suits(spec, Style::S8) || spec.arg_types[0].dtype != DType::I8 {
        return None;
    }
    let r = Rows::new(spec.op, spec.arg_types, spec.out_type)?;
    let mut packings = vec![Packing::None; spec.arg_types.len()];
    packings[1] = Packing::Panel { rows: r.chunk, depth: LANES * r.vectors };
    Some(Offer { packings, scratch_bytes: r.scratch_bytes(), work: r.work(spec), code: r.code(spec), overlap: None })
}

pub fn print(t: &mut Template<'_>, w: &mut Writer) {
    let k = t.kernel;
    let r = Rows::new(&k.op, &k.arg_types, &k.out_type).expect("offered");
    let x = t.arg(0);
    w.line("int32_t *const sums = (int32_t *)scratch;");
    if r.rows > 1 {
        w.open_for("p", r.rows, 1);
    }
    let row = if r.rows > 1 { format!("{x} + {}", affine(r.depth, "p", 0)) } else { x };
    let row = if r.copies() {
        let copy = t.helpers.get("copy_bytes");
        w.line(format!("int8_t *const row = (int8_t *)(sums + {});", r.chunk));
        w.line(format!("{copy}(row, {row}, {});", r.depth));
        "row".into()
    } else {
        row
    };
    let whole = r.outs - r.outs % r.chunk;
    if whole > r.chunk {
        w.open_for("c0", whole, r.chunk);
        chunk(t, w, &r, &row, ("c0", r.chunk));
        w.close();
    } else if whole > 0 {
        w.block_open();
        chunk(t, w, &r, &row, ("0", r.chunk));
        w.close();
    }
    if whole < r.outs {
        w.block_open();
        chunk(t, w, &r, &row, (&whole.to_string(), r.outs - whole));
        w.close();
    }
    if r.rows > 1 {
        w.close();
    }
}

/// `m` outputs from `c` on.
fn chunk(t: &mut Template<'_>, w: &mut Writer, r: &Rows, row: &str, (c, m): (&str, usize)) {
    let k = t.kernel;
    let dots = t.helpers.dots(r.vectors);
    let groups = m.div_ceil(8);
    let weights = format!("{} + {}", t.arg(1), affine(r.padded(), c, 0));
    let from = if r.bias && m.is_multiple_of(8) {
        format!("{} + {c}", t.arg(2))
    } else {
        w.open_for("c", m, 1);
        let at = if c == "0" { "c".into() } else { format!("{c} + c") };
        let start = t.start(r.bias, &at, 0, false);
        w.line(format!("sums[c] = {start};"));
        w.close();
        if !m.is_multiple_of(8) {
            w.open(format!("for (int32_t c = {m}; c < {}; c++)", 8 * groups));
            w.line("sums[c] = 0;");
            w.close();
        }
        "sums".into()
    };
    let step = r.vectors * LANES;
    w.line(format!("{dots}({from}, sums, {row}, {weights}, {groups});"));
    if r.passes > 1 {
        w.open(format!("for (int32_t k = 1; k < {}; k++)", r.passes));
        w.line(format!("{dots}(sums, sums, {row} + k * {step}, {weights} + k * {}, {groups});", r.chunk * step));
        w.close();
    }
    let scale = match Epilogue::of(&k.op, &k.arg_types, &k.out_type) {
        Some(Epilogue::Scale(clamp)) => Some(clamp),
        _ => None,
    };
    if let Some(Clamp { zero, lo, hi }) = scale {
        let own = k.op.own_inputs().unwrap_or(0);
        let (store, mve) = (t.helpers.get("store_row"), t.helpers.get("mve"));
        let (scales, many) = (t.arg(own), k.arg_types[own].elements() > 1);
        let scales = if many { format!("{scales} + {c}") } else { scales };
        let out = if r.rows > 1 { format!("out + {} + {c}", affine(r.outs, "p", 0)) } else { format!("out + {c}") };
        w.line(format!("#if {mve}"));
        w.line(format!("{store}({out}, sums, {scales}, {}, {zero}, {lo}, {hi}, {m});", many as i32));
        w.line("#else");
    }
    w.open_for("i", m, 1);
    w.line(format!("const int32_t c = {};", if c == "0" { "i".into() } else { format!("{c} + i") }));
    t.store(w, "sums[i]", (if r.rows > 1 { "p" } else { "0" }, 0), ("c", 0));
    w.close();
    if scale.is_some() {
        w.line("#endif");
    }
}
