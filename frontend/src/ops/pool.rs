//! Pooling.

use super::window::{self, AutoPad, Window, as_2d, as_nd, spatial};
use crate::cx::Cx;
use crate::error::{Fault, Result};
use crate::node::Node;
use mcc_ir::op::{Layout, Op, PadMode, Pool2d, PoolKind, Reduce, ReduceKind};
use mcc_ir::{DType, ValueId};

pub fn max(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    cx.want(x, &[DType::F32, DType::I8, DType::U8], "input 0")?;
    let spatial = spatial(cx, x)?;
    let x = as_2d(cx, x, n)?;
    let (win, _) = resolved(cx, n, x, spatial)?;
    let y = pool(cx, n, x, PoolKind::Max, win)?;
    Ok(vec![as_nd(cx, y, spatial, n)?])
}

pub fn average(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let x = cx.float(n, 0)?;
    Ok(vec![average_of(cx, n, x)?])
}

/// Average pooling of a float value by the node's attributes.
pub(super) fn average_of(cx: &mut Cx, n: &Node, x: ValueId) -> Result<ValueId> {
    let spatial = spatial(cx, x)?;
    let mut x = as_2d(cx, x, n)?;
    let mut count_include_pad = n.flag("count_include_pad", false)?;
    let (mut win, declared) = resolved(cx, n, x, spatial)?;
    if count_include_pad && win.pad != declared {
        // What ceil_mode adds never counts in the divisor, so the padding that does becomes part of the image.
        let zero = cx.scalar(0.0, n);
        let (before, after) = (vec![0, 0, declared[0], declared[1]], vec![0, 0, declared[2], declared[3]]);
        x = cx.add(Op::Pad { before, after, mode: PadMode::Constant }, vec![x, zero], &n.origin)?;
        for (p, d) in win.pad.iter_mut().zip(declared) {
            *p = p.saturating_sub(d);
        }
        count_include_pad = false;
    }
    let y = pool(cx, n, x, PoolKind::Average { count_include_pad }, win)?;
    as_nd(cx, y, spatial, n)
}

fn pool(cx: &mut Cx, n: &Node, x: ValueId, kind: PoolKind, win: Window) -> Result<ValueId> {
    let op = Op::Pool2d(Pool2d {
        kind,
        layout: Layout::Nchw,
        kernel: win.kernel,
        stride: win.stride,
        pad: win.pad,
        dilation: win.dilation,
        dequant: None,
        post: vec![],
    });
    cx.add(op, vec![x], &n.origin)
}

/// The window with `auto_pad` and `ceil_mode` resolved, and its padding before `ceil_mode`.
fn resolved(cx: &Cx, n: &Node, x: ValueId, spatial: usize) -> Result<(Window, [usize; 4])> {
    let size = [cx.shape(x)[2], cx.shape(x)[3]];
    let win = window::window(n, None, spatial)?;
    // Between windows that far apart, runtimes differ in where the first one starts.
    let apart =
        |d: usize| size[d].div_ceil(win.stride[d]).saturating_sub(1) * win.stride[d] + win.extent(d) + 1 < size[d];
    if matches!(win.auto, AutoPad::SameUpper | AutoPad::SameLower) && (apart(0) || apart(1)) {
        let reason = format!("auto_pad with a {:?} kernel and strides {:?}", win.kernel, win.stride);
        return Err(Fault::form(reason, "give pads instead of auto_pad"));
    }
    let mut win = win.padded(size);
    let declared = win.pad;
    for d in 0..2 {
        if declared[d] >= win.extent(d) || declared[d + 2] >= win.extent(d) {
            return Err(Fault::node(format!("pads {declared:?} reach the size of the kernel {:?}", win.kernel)));
        }
    }
    if n.flag("ceil_mode", false)? && matches!(win.auto, AutoPad::No | AutoPad::Valid) {
        for d in 0..2 {
            let padded = size[d].saturating_add(declared[d]).saturating_add(declared[d + 2]);
            let Some(room) = padded.checked_sub(win.extent(d)) else {
                return Err(Fault::node(format!("a {:?} window does not fit {}", win.kernel, cx.ty(x))));
            };
            let mut positions = room.div_ceil(win.stride[d]) + 1;
            // A window that would start behind the image is left out.
            if (positions - 1).saturating_mul(win.stride[d]) >= size[d] + declared[d] {
                positions -= 1;
            }
            let covered = (positions - 1).saturating_mul(win.stride[d]).saturating_add(win.extent(d));
            win.pad[d + 2] = covered.saturating_sub(size[d] + declared[d]);
        }
    }
    Ok((win, declared))
}

/// Pooling over the whole image, which keeps its dimensions with extent 1.
pub fn global(cx: &mut Cx, n: &Node, max: bool) -> Result<Vec<ValueId>> {
    let x = cx.float(n, 0)?;
    Ok(vec![global_of(cx, n, x, max)?])
}

pub(super) fn global_of(cx: &mut Cx, n: &Node, x: ValueId, max: bool) -> Result<ValueId> {
    let rank = cx.rank(x);
    if rank < 3 {
        return Err(Fault::node(format!("{} has no spatial dimensions", cx.ty(x))));
    }
    let kind = if max { ReduceKind::Max } else { ReduceKind::Mean };
    let op = Op::Reduce(Reduce { kind, axes: (2..rank).collect(), keepdims: true, dequant: None, post: vec![] });
    cx.add(op, vec![x], &n.origin)
}
