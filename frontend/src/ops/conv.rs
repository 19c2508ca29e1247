//! Convolutions.

use super::window::{self, AutoPad, as_2d, as_nd, spatial};
use crate::cx::Cx;
use crate::error::{Fault, Result};
use crate::node::Node;
use mcc_ir::ValueId;
use mcc_ir::op::{Conv2d, ConvTranspose2d, Layout, Op};

pub fn conv(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let (x, w) = (cx.float(n, 0)?, cx.float(n, 1)?);
    let bias = n.optional(2).map(|_| cx.float(n, 2)).transpose()?;
    Ok(vec![convolve(cx, n, x, w, bias)?])
}

/// A convolution of float values; the attributes are the node's.
pub(super) fn convolve(cx: &mut Cx, n: &Node, x: ValueId, w: ValueId, bias: Option<ValueId>) -> Result<ValueId> {
    let spatial = spatial(cx, x)?;
    let (x, w) = (as_2d(cx, x, n)?, weights(cx, n, w, spatial)?);
    let shape = cx.shape(w);
    let win = window::window(n, Some([shape[2], shape[3]]), spatial)?;
    let size = cx.shape(x);
    let win = win.padded([size[2], size[3]]);
    let op = Op::Conv2d(Conv2d {
        layout: Layout::Nchw,
        stride: win.stride,
        pad: win.pad,
        dilation: win.dilation,
        groups: groups(n)?,
        pad_value: 0,
        bias: bias.is_some(),
        post: vec![],
    });
    let inputs = [Some(x), Some(w), bias].into_iter().flatten().collect();
    let y = cx.add(op, inputs, &n.origin)?;
    as_nd(cx, y, spatial, n)
}

/// Weights with as many spatial dimensions as the input, as two.
fn weights(cx: &mut Cx, n: &Node, w: ValueId, spatial: usize) -> Result<ValueId> {
    if cx.rank(w) != spatial + 2 || cx.ty(w).elements() == 0 {
        let reason = format!("weights {} do not fit an input of {} dimensions", cx.ty(w), spatial + 2);
        return Err(Fault::node(reason));
    }
    as_2d(cx, w, n)
}

fn groups(n: &Node) -> Result<usize> {
    match usize::try_from(n.int_or("group", 1)?) {
        Ok(groups) if groups > 0 => Ok(groups),
        _ => Err(Fault::node("attribute group is not positive")),
    }
}

pub fn transposed(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let (x, w) = (cx.float(n, 0)?, cx.float(n, 1)?);
    let bias = n.optional(2).map(|_| cx.float(n, 2)).transpose()?;
    let spatial = spatial(cx, x)?;
    let (x, w) = (as_2d(cx, x, n)?, weights(cx, n, w, spatial)?);
    let shape = cx.shape(w);
    let win = window::window(n, Some([shape[2], shape[3]]), spatial)?;
    let two = |name: &str, least: usize, first: usize| -> Result<Option<[usize; 2]>> {
        let Some(list) = n.ints(name)? else { return Ok(None) };
        // output_shape may name batch and channels too.
        let list = if name == "output_shape" && list.len() == spatial + 2 { &list[2..] } else { list };
        Ok(Some(match window::sizes(n, name, list, spatial, least)?[..] {
            [a, b] => [a, b],
            ref one => [first, one[0]],
        }))
    };
    let mut output_pad = two("output_padding", 0, 0)?.unwrap_or([0; 2]);
    let size = [cx.shape(x)[2], cx.shape(x)[3]];
    let wanted = match (two("output_shape", 1, 1)?, win.auto) {
        (Some(shape), _) => Some(shape),
        (None, AutoPad::SameUpper | AutoPad::SameLower) => {
            let grown = |d: usize| size[d].saturating_mul(win.stride[d]);
            Some([grown(0), grown(1)])
        }
        _ => None,
    };
    let mut pad = win.pad;
    if let Some(wanted) = wanted {
        for d in 0..2 {
            let full = size[d].saturating_sub(1).saturating_mul(win.stride[d]).saturating_add(win.extent(d));
            let full = full.saturating_add(output_pad[d]);
            if full < wanted[d] && matches!(win.auto, AutoPad::SameUpper | AutoPad::SameLower) {
                let reason = format!("auto_pad asks for {wanted:?}, more than the weights reach");
                return Err(Fault::form(reason, "give pads and output_padding instead of auto_pad"));
            }
            // What the weights do not reach of an explicit shape is filled up at the end.
            output_pad[d] += wanted[d].saturating_sub(full);
            let [begin, end] = window::split(full.saturating_sub(wanted[d]), win.auto == AutoPad::SameUpper);
            (pad[d], pad[d + 2]) = (begin, end);
        }
    }
    let op = Op::ConvTranspose2d(ConvTranspose2d {
        layout: Layout::Nchw,
        stride: win.stride,
        pad,
        output_pad,
        dilation: win.dilation,
        groups: groups(n)?,
        bias: bias.is_some(),
        post: vec![],
    });
    let inputs = [Some(x), Some(w), bias].into_iter().flatten().collect();
    let y = cx.add(op, inputs, &n.origin)?;
    Ok(vec![as_nd(cx, y, spatial, n)?])
}
