//! Whole pixels by the helpers of [`crate::c::quads`]: what convolutions and products need to be made that way.
//!
//! The helpers end with bytes. Where the epilogue goes on, as with a residual addition, the bytes of a few pixels wait in
//! working memory and the other steps follow in C.

use super::rescale::Rescale;
use super::residual::Residual;
use super::{Style, Template, affine, plus, suits};
use crate::c::writer::Writer;
use mcc_ir::catalogue::KernelSpec;
use mcc_ir::dtype::DType;
use mcc_ir::packing::Packing;
use mcc_ir::target::{Feature, Target};

/// Channels that are made together.
pub const CHANNELS: usize = 4;

/// Whether a layer can be made by whole pixels: weights that fit in pairs with their bias, requantised to `i8`.
pub fn fits(spec: &KernelSpec<'_>, target: &Target) -> bool {
    let able = target.has(Feature::Dsp) && target.has(Feature::Fpu) && suits(spec, Style::Dsp);
    let Some(channels) = spec.out_type.shape.last().copied().filter(|c| able && c.is_multiple_of(CHANNELS)) else {
        return false;
    };
    let Some(weights) = spec.consts[1] else { return false };
    let weights: Vec<i8> = weights.bytes().iter().map(|b| *b as i8).collect();
    let limit = if spec.arg_types[0].dtype == DType::U8 { 255 } else { 128 };
    Packing::pairs_fit(&weights, weights.len() / channels, limit)
        && Rescale::new(spec).is_some_and(|r| (0..channels).step_by(2).all(|c| r.can_raise(c)))
}

/// Whether steps of the epilogue are left when the bytes are made.
pub fn goes_on(spec_post: Option<&Vec<mcc_ir::op::Step>>) -> bool {
    spec_post.is_some_and(|p| p.len() > 1)
}

/// Defines a layer's table and the layer itself, of `groups` groups of four values in a row: for lines of `length`
/// pixels, which come in pairs, and then that of a last pixel by itself.
pub fn define(t: &mut Template<'_>, groups: usize, length: usize) {
    let k = t.kernel;
    let channels = k.out_type.shape.last().copied().unwrap_or(0);
    let rescale = Rescale::of(&k.op, t.consts, k.arg_types[0].dtype, channels).expect("offered only where it is one");
    let (weights, layer) = (t.arg(1), t.helpers.get("layer"));
    let w = &mut Writer::default();
    w.line(format!("static const uint32_t {}_table[{}] = {{", t.name, 2 * channels));
    for c in (0..channels).step_by(CHANNELS) {
        let raised = |c: usize| rescale.raised(c).expect("offered only where there is one");
        let all = [raised(c), rescale.plain(c + 1), raised(c + 2), rescale.plain(c + 3)];
        let starts = [0, 2].map(|i| [all[i].0.wrapping_add(all[i + 1].0), all[i + 1].0]);
        let words = starts.concat().into_iter().map(|s| s as u32).chain(all.map(|(_, word)| word));
        let words: Vec<String> = words.map(|v| format!("0x{v:x}u,")).collect();
        w.line(format!("    {}", words.join(" ")));
    }
    w.line("};");
    for (name, step, used) in [("layer", channels, length > 1), ("last", 0, length % 2 == 1)] {
        if used {
            let table = format!("{0}_table, {0}_table + {1}", t.name, 2 * channels);
            let rest = format!("{groups}, {step}, {}", rescale.zero());
            w.line(format!("static const struct {layer} {}_{name} = {{{weights}, {table}, {rest}}};", t.name));
        }
    }
    t.function(w);
}

/// Prints the call of a helper that makes `n` (one or two) pixels from `p` on, and what follows it. `helper` and the
/// arguments before the output and after the layer; `bytes` is where pixels wait that are not finished yet.
pub fn pixels(
    t: &mut Template<'_>,
    w: &mut Writer,
    (helper, before, after): (&str, &str, &str),
    bytes: &str,
    (p, n): (&str, usize),
) {
    let channels = t.kernel.out_type.shape.last().copied().unwrap_or(0);
    let layer = format!("&{}_{}", t.name, if n == 2 { "layer" } else { "last" });
    if !goes_on(t.kernel.op.post()) {
        let at = affine(channels, p, 0);
        let to = if at == "0" { "out".into() } else { format!("out + {at}") };
        w.line(format!("{helper}({before}, {to}, {layer}{after});"));
        return;
    }
    w.line(format!("{helper}({before}, {bytes}, {layer}{after});"));
    if residual(t, w, bytes, (p, n)).is_some() {
        return;
    }
    w.open_for("c", channels, 1);
    for i in 0..n {
        t.store_from(w, 1, &format!("{bytes}[{}]", plus("c", i * channels)), (p, i), ("c", 0));
    }
    w.close();
}

/// Prints an epilogue that adds the bytes of an operand of the output's shape in integers.
fn residual(t: &mut Template<'_>, w: &mut Writer, bytes: &str, (p, n): (&str, usize)) -> Option<()> {
    let k = t.kernel;
    let (post, operand) = (k.op.post()?, k.op.own_inputs()? + 1);
    let ty = k.arg_types.get(operand)?;
    if ty.elements() != k.out_type.elements() {
        return None;
    }
    let r = Residual::new(&post[1..], ty.dtype)?;
    let channels = *k.out_type.shape.last()?;
    let b = t.arg(operand);
    let at = affine(channels, p, 0);
    w.open_for("i", n * channels, CHANNELS);
    for j in 0..CHANNELS {
        let (i, all) = (plus("i", j), plus(&format!("{at} + i"), j));
        let value = r.expression(t.helpers, &format!("{bytes}[{i}]"), &format!("{b}[{all}]"));
        w.line(format!("out[{all}] = {value};"));
    }
    w.close();
    Some(())
}
