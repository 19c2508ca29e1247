//! The work that several kernels have in common, as counts for the cost tables.

use super::Geometry;
use mcc_ir::catalogue::KernelSpec;
use mcc_ir::costs::Work;
use mcc_ir::op::{Binary, Step};

/// Adds what an epilogue takes that [`super::Template::store`] prints: its outputs, and each kind of step for each of them.
pub fn epilogue(work: Work, spec: &KernelSpec<'_>) -> Work {
    let n = spec.out_type.elements() as f64;
    steps(work.and("outputs", n), spec.op.post().map_or(&[], Vec::as_slice), n)
}

/// Adds `n` times what follows when a helper has made bytes: the addition of a tensor in integers, or steps.
pub fn rest(work: Work, spec: &KernelSpec<'_>) -> Work {
    let n = spec.out_type.elements() as f64;
    let rest = spec.op.post().and_then(|post| post.get(1..)).unwrap_or(&[]);
    let (own, types) = (spec.op.own_inputs().unwrap_or(0) + 1, spec.arg_types);
    let whole = types.get(own).is_some_and(|ty| ty.elements() == spec.out_type.elements());
    match rest {
        [Step::Dequant(_), Step::Binary { op: Binary::Add, .. }, .., Step::Quant { .. }] if whole => {
            work.and("residuals", n)
        }
        rest => steps(work, rest, n),
    }
}

fn steps(work: Work, steps: &[Step], n: f64) -> Work {
    steps.iter().fold(work, |work, step| {
        let name = match step {
            Step::Requant { .. } => "requants",
            Step::Quant { .. } => "quants",
            _ => "steps",
        };
        work.and(name, n)
    })
}

/// The windows of a convolution that leave the image, and those that do not.
pub struct Windows {
    pub inside: f64,
    pub border: f64,
}

impl Windows {
    pub fn new(g: &Geometry) -> Windows {
        let inside = |axis: usize| {
            let size = [g.height, g.width][axis];
            let fits = |out: &usize| {
                let from = out * g.stride[axis];
                from >= g.pad[axis] && from + g.reach(axis) < size + g.pad[axis]
            };
            (0..g.out[axis]).filter(fits).count()
        };
        let (all, inside) = (g.batch * g.out[0] * g.out[1], g.batch * inside(0) * inside(1));
        Windows { inside: inside as f64, border: (all - inside) as f64 }
    }
}

/// Adds the gathering of all windows: those inside the image and at its border, the runs that are copied, the bytes.
pub fn gathering(work: Work, g: &Geometry) -> Work {
    let windows = Windows::new(g);
    let runs = g.kernel[0] * if g.dilation[1] == 1 { 1 } else { g.kernel[1] };
    let bytes = g.kernel[0] * g.kernel[1] * g.channels;
    let all = windows.inside + windows.border;
    work.and("windows", windows.inside)
        .and("runs", windows.inside * runs as f64)
        .and("border windows", windows.border)
        .and("border runs", windows.border * runs as f64)
        .and("gathered", all * bytes as f64)
}

/// A kernel's own code: itself, and the steps of an epilogue that are printed so many times.
pub fn code(spec: &KernelSpec<'_>, steps: usize, times: usize) -> Work {
    let all = spec.op.post().map_or(0, Vec::len);
    Work::default().and("kernels", 1.0).and("steps", (all.min(steps) * times) as f64)
}

/// The same where a helper has made bytes before.
pub fn rest_code(spec: &KernelSpec<'_>) -> Work {
    let work = Work::default().and("kernels", 1.0);
    match spec.op.post().map_or(0, Vec::len) {
        0 | 1 => work,
        n => work.and("rests", 1.0).and("steps", n as f64),
    }
}
