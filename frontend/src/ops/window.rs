//! The attributes that convolutions and pooling share: kernel, strides, dilations, pads. One spatial dimension is read as
//! two, of which the first has extent 1.

use crate::cx::Cx;
use crate::error::{Fault, Result, quote};
use crate::node::Node;
use crate::tensor::MAX_ELEMENTS;
use mcc_ir::ValueId;

/// A window over two spatial dimensions.
#[derive(Clone, Copy)]
pub struct Window {
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub dilation: [usize; 2],
    /// Top, left, bottom, right.
    pub pad: [usize; 4],
    pub auto: AutoPad,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum AutoPad {
    /// `pad` is explicit.
    No,
    Valid,
    SameUpper,
    SameLower,
}

/// How many spatial dimensions a value `[N, C, ...]` has; 1 or 2.
pub fn spatial(cx: &Cx, x: ValueId) -> Result<usize> {
    match cx.rank(x) {
        rank @ (3 | 4) => Ok(rank - 2),
        rank if rank > 4 => Err(Fault::form(
            format!("{} has {} spatial dimensions, supported are 1 and 2", cx.ty(x), rank - 2),
            "use a one- or two-dimensional operator",
        )),
        _ => Err(Fault::node(format!("{} has no spatial dimensions", cx.ty(x)))),
    }
}

/// A value `[A, B, L]` as `[A, B, 1, L]`; one of two spatial dimensions stays as it is.
pub fn as_2d(cx: &mut Cx, x: ValueId, n: &Node) -> Result<ValueId> {
    let shape = cx.shape(x);
    match shape[..] {
        [a, b, l] => cx.reshape(x, [a, b, 1, l], n),
        _ => Ok(x),
    }
}

/// Undoes [`as_2d`] on a result.
pub fn as_nd(cx: &mut Cx, y: ValueId, spatial: usize, n: &Node) -> Result<ValueId> {
    let shape = cx.shape(y);
    match (spatial, &shape[..]) {
        (1, [a, b, 1, l]) => cx.reshape(y, [*a, *b, *l], n),
        _ => Ok(y),
    }
}

/// Sizes of an attribute, one a spatial dimension, each at least `least`.
pub fn sizes(n: &Node, name: &str, list: &[i64], count: usize, least: usize) -> Result<Vec<usize>> {
    if list.len() != count {
        return Err(Fault::node(format!("{name} has {} values, {count} are needed", list.len())));
    }
    let one = |&v: &i64| match usize::try_from(v) {
        Ok(v) if (least..=MAX_ELEMENTS).contains(&v) => Ok(v),
        _ if v < 0 && name == "pads" => {
            Err(Fault::form(format!("pads {list:?} are negative"), "slice the input instead of cropping by pads"))
        }
        _ => Err(Fault::node(format!("{name} {list:?} of {} are out of range", crate::error::clip(&n.proto.op_type)))),
    };
    list.iter().map(one).collect()
}

/// The window of a node over an input of `size` rows and columns. `kernel` is that of the weights, where there are any.
pub fn window(n: &Node, kernel: Option<[usize; 2]>, spatial: usize) -> Result<Window> {
    let two = |v: Vec<usize>, first: usize| match v[..] {
        [a, b] => [a, b],
        _ => [first, v[0]],
    };
    let attribute = |name: &str, default: usize| -> Result<[usize; 2]> {
        Ok(match n.ints(name)? {
            Some(list) => two(sizes(n, name, list, spatial, 1)?, 1),
            None => [default; 2],
        })
    };
    let declared = match n.ints("kernel_shape")? {
        Some(list) => Some(two(sizes(n, "kernel_shape", list, spatial, 1)?, 1)),
        None => None,
    };
    let kernel = match (declared, kernel) {
        (Some(d), Some(k)) if d != k => {
            return Err(Fault::node(format!("kernel_shape {d:?} differs from the weights' {k:?}")));
        }
        (_, Some(k)) => k,
        (Some(d), None) => d,
        (None, None) => return Err(Fault::node("attribute kernel_shape is missing")),
    };
    let pad = match n.ints("pads")? {
        Some(list) => match sizes(n, "pads", list, 2 * spatial, 0)?[..] {
            [top, left, bottom, right] => [top, left, bottom, right],
            [begin, end] => [0, begin, 0, end],
            _ => [0; 4],
        },
        None => [0; 4],
    };
    let auto = match n.text_or("auto_pad", "NOTSET")? {
        "NOTSET" | "" => AutoPad::No,
        "VALID" => AutoPad::Valid,
        "SAME_UPPER" => AutoPad::SameUpper,
        "SAME_LOWER" => AutoPad::SameLower,
        other => return Err(Fault::node(format!("auto_pad {} is not defined", quote(other)))),
    };
    let (stride, dilation) = (attribute("strides", 1)?, attribute("dilations", 1)?);
    Ok(Window { kernel, stride, dilation, pad: if auto == AutoPad::No { pad } else { [0; 4] }, auto })
}

impl Window {
    /// Rows or columns that one position covers.
    pub fn extent(&self, d: usize) -> usize {
        (self.kernel[d] - 1).saturating_mul(self.dilation[d]).saturating_add(1)
    }

    /// The window with `auto_pad` resolved for an input of this many rows and columns.
    pub fn padded(mut self, size: [usize; 2]) -> Window {
        if matches!(self.auto, AutoPad::SameUpper | AutoPad::SameLower) {
            for (d, size) in size.into_iter().enumerate() {
                let positions = size.div_ceil(self.stride[d]);
                let covered = positions.saturating_sub(1).saturating_mul(self.stride[d]).saturating_add(self.extent(d));
                let [begin, end] = split(covered.saturating_sub(size), self.auto == AutoPad::SameUpper);
                (self.pad[d], self.pad[d + 2]) = (begin, end);
            }
        }
        self
    }
}

/// Halves of a padding; the odd element goes to the end where `upper`.
pub fn split(total: usize, upper: bool) -> [usize; 2] {
    let (small, large) = (total / 2, total - total / 2);
    if upper { [small, large] } else { [large, small] }
}
