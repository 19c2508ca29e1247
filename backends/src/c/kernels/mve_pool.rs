//! Average pooling of 8 bits with the vector instructions of Armv8.1-M (Helium): eight channels at a time, each summed in
//! the order of the operator's loop nest.

use super::{Template, affine, flat, printable, work};
use crate::c::consts;
use crate::c::writer::Writer;
use mcc_ir::catalogue::{KernelSpec, Offer};
use mcc_ir::costs::{Code, Work};
use mcc_ir::dtype::DType;
use mcc_ir::op::{Layout, Op, Pool2d, PoolKind};
use mcc_ir::packing::Packing;
use mcc_ir::target::{Feature, Target};

/// Channels that are summed at a time.
const CHANNELS: usize = 8;

/// Whether the kernel takes a pooling: windows inside the image, neighbours side by side.
fn takes(o: &Pool2d) -> bool {
    // Far from where vectors flush small numbers to zero.
    let usual = o.dequant.is_some_and(|q| (1e-12..1e12).contains(&q.scale.0));
    let average = matches!(o.kind, PoolKind::Average { .. });
    average && usual && o.layout == Layout::Nhwc && o.pad == [0; 4] && o.dilation == [1, 1]
}

pub fn offer(spec: &KernelSpec<'_>, target: &Target) -> Option<Offer> {
    let Op::Pool2d(o) = spec.op else { return None };
    let (x, out) = (&spec.arg_types[0], spec.out_type);
    let channels = *out.shape.last()?;
    let fits = takes(o) && x.dtype == DType::I8 && out.elements() > 0 && channels.is_multiple_of(CHANNELS);
    if !fits || !target.has(Feature::Mve) || flat(spec.op, spec.arg_types, out).is_none() {
        return None;
    }
    let pixels = (out.elements() / channels) as f64;
    let taps = (o.kernel[0] * o.kernel[1]) as f64;
    o.post.iter().all(printable).then(|| Offer {
        packings: vec![Packing::None; spec.arg_types.len()],
        scratch_bytes: 4 * channels,
        work: work::epilogue(
            Work::default()
                .and("runs of the kernel", 1.0)
                .and("windows", pixels)
                .and("rows", pixels * o.kernel[0] as f64)
                .and("taps", pixels * taps)
                .and("vectors", pixels * taps * (channels / CHANNELS) as f64),
            spec,
        ),
        code: Code::own(work::code(spec, usize::MAX, 1)),
        overlap: None,
    })
}

pub fn print(t: &mut Template<'_>, w: &mut Writer) {
    let k = t.kernel;
    let Op::Pool2d(o) = &k.op else { unreachable!("offered for pooling only") };
    let q = o.dequant.expect("offered for integers only");
    let [height, width, c] = [1, 2, 3].map(|d| k.arg_types[0].shape[d]);
    let [batch, oh, ow] = [0, 1, 2].map(|d| k.out_type.shape[d]);
    let x = t.arg(0);
    let add = t.helpers.get("add_reals");
    w.line("float *const sums = (float *)scratch;");
    let mut loops = 0;
    let mut place = |w: &mut Writer, name: &str, count: usize, step: usize| {
        if count == 1 {
            return None;
        }
        w.open_for(name, count, 1);
        loops += 1;
        Some(affine(step, name, 0))
    };
    let at = [
        place(w, "n", batch, height * width * c),
        place(w, "oy", oh, o.stride[0] * width * c),
        place(w, "ox", ow, o.stride[1] * c),
    ];
    let from: Vec<String> = [Some(x)].into_iter().chain(at).flatten().collect();
    let (n, oy, ox) =
        (if batch > 1 { "n" } else { "0" }, if oh > 1 { "oy" } else { "0" }, if ow > 1 { "ox" } else { "0" });
    w.line(format!("const int32_t p = ({n} * {oh} + {oy}) * {ow} + {ox};"));
    let scale = consts::float(q.scale.0).expect("an ordinary scale");
    let [kh, kw] = o.kernel;
    w.line(format!("{add}(sums, {}, {c}, {kh}, {}, {kw}, {}, {scale});", from.join(" + "), width * c, q.zero_point));
    w.open_for("c", c, 1);
    // Windows lie inside the image, so both ways to count agree.
    w.line(format!("const float mean = sums[c] / {}.0f;", kh * kw));
    t.store_as(w, 0, ("mean", DType::F32), ("p", 0), ("c", 0));
    w.close();
    for _ in 0..loops {
        w.close();
    }
}
