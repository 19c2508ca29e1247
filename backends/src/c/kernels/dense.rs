//! Products of one row of bytes with weights in pairs, requantised to bytes: dense layers.
//!
//! A helper of assembly makes eight channels at a time, to the end of the layer ([`crate::c::pairs`]).

use super::gemm::Gemm;
use super::rescale::Rescale;
use super::{Style, Template, ahead, suits};
use crate::c::pairs;
use crate::c::writer::Writer;
use mcc_ir::catalogue::{KernelSpec, Offer};
use mcc_ir::costs::{Code, Work};
use mcc_ir::dtype::DType;
use mcc_ir::op::Op;
use mcc_ir::packing::Packing;
use mcc_ir::target::{Feature, Target};
use mcc_ir::tensor::Tensor;
use mcc_ir::types::TensorType;

/// Channels that are made together.
const CHANNELS: usize = 8;

/// The form that widens the row first.
pub fn offer(spec: &KernelSpec<'_>, target: &Target) -> Option<Offer> {
    offer_form(spec, target, true)
}

/// The form that reads the row as it lies, for each block anew: slower by a twentieth, without working memory.
pub fn offer_bytes(spec: &KernelSpec<'_>, target: &Target) -> Option<Offer> {
    offer_form(spec, target, false)
}

fn offer_form(spec: &KernelSpec<'_>, target: &Target, widens: bool) -> Option<Offer> {
    let able = target.has(Feature::Dsp) && target.has(Feature::Fpu);
    if !able || !matches!(spec.op, Op::MatMul(_)) || !suits(spec, Style::Dsp) {
        return None;
    }
    let (depth, outs) = shape(spec.op, spec.arg_types, spec.out_type)?;
    let weights: Vec<i8> = spec.consts[1]?.bytes().iter().map(|b| *b as i8).collect();
    let limit = if spec.arg_types[0].dtype == DType::U8 { 255 } else { 128 };
    if !Packing::pairs_fit(&weights, depth, limit) {
        return None;
    }
    table(spec.op, spec.consts, spec.arg_types[0].dtype, outs)?;
    let mut packings = vec![Packing::None; spec.arg_types.len()];
    packings[1] = Packing::Pairs { rows: CHANNELS };
    let (blocks, groups) = ((outs / CHANNELS) as f64, depth / 4);
    let work = Work::default()
        .and("runs of the kernel", 1.0)
        .and("blocks", blocks)
        .and("groups", blocks * groups as f64)
        .and("turns", blocks * groups.div_ceil(8) as f64);
    let work = if widens { work.and("copied", depth as f64) } else { work };
    let unsigned = spec.arg_types[0].dtype == DType::U8;
    let kind = if widens { "row_widened" } else { ["row_s8", "row_u8"][unsigned as usize] };
    Some(Offer {
        packings,
        scratch_bytes: if widens { 2 * depth } else { 0 },
        work,
        code: Code::own(Work::default().and("calls", 1.0)).sharing(kind),
        overlap: widens.then(|| ahead(spec, 1, true, |p| p * depth)),
    })
}

/// The depth and the number of channels of a product of one row that ends as bytes.
fn shape(op: &Op, arg_types: &[TensorType], out: &TensorType) -> Option<(usize, usize)> {
    let (pixels, depth, outs) = Gemm::rows(op, arg_types, out)?;
    let whole = pixels == 1 && depth > 0 && depth.is_multiple_of(4) && outs.is_multiple_of(CHANNELS);
    (whole && op.post().is_some_and(|p| p.len() == 1)).then_some((depth, outs))
}

/// Where the sums of all channels start, of pairs 256 * a + b and b, and the one factor or scale of a layer.
fn table(op: &Op, consts: &[Option<&Tensor>], input: DType, outs: usize) -> Option<(Vec<u32>, u32)> {
    let rescale = Rescale::of(op, consts, input, outs)?;
    let word = rescale.common()?;
    let mut words = Vec::with_capacity(outs);
    for c in (0..outs).step_by(2) {
        let (a, b) = (rescale.small(c)?, rescale.start(c + 1));
        words.extend([a.wrapping_mul(256).wrapping_add(b), b].map(|start| start as u32));
    }
    Some((words, word))
}

pub fn print(t: &mut Template<'_>, w: &mut Writer, widens: bool) {
    let k = t.kernel;
    let (depth, outs) = shape(&k.op, &k.arg_types, &k.out_type).expect("offered");
    let (words, factor) = table(&k.op, t.consts, k.arg_types[0].dtype, outs).expect("offered");
    let zero = Rescale::of(&k.op, t.consts, k.arg_types[0].dtype, outs).map_or(0, |r| r.zero());
    let (weights, layer, name) = (t.arg(1), t.helpers.get("layer"), t.name);
    let f = &mut Writer::default();
    f.line(format!("static const uint32_t {name}_table[{}] = {{", words.len()));
    for line in words.chunks(CHANNELS) {
        f.line(format!("    {}", line.iter().map(|v| format!("0x{v:x}u,")).collect::<Vec<_>>().join(" ")));
    }
    f.line("};");
    let all = format!("{weights}, {name}_table, {name}_table + {}, {}, 0, {zero}", words.len(), depth / 4);
    f.line(format!("static const struct {layer} {name}_layer = {{{all}}};"));
    t.function(f);
    let (unsigned, x) = (k.arg_types[0].dtype == DType::U8, t.arg(0));
    t.helpers.get("row_pieces");
    t.helpers.get(if unsigned { "uxtb16" } else { "sxtb16" });
    let (kind, text) = pairs::row((!widens).then_some(unsigned));
    let row = t.helpers.make(&format!("row_{kind}"), || text);
    let from = if widens {
        let widen = t.helpers.get(if unsigned { "widen_u8" } else { "widen_s8" });
        w.line("uint32_t *const row = (uint32_t *)scratch;");
        w.line(format!("{widen}(row, {x}, {depth}, 2);"));
        "row"
    } else {
        &x
    };
    w.line(format!("{row}({from}, out, &{name}_layer, 0x{factor:x}u);"));
}
