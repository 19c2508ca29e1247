//! The geometry of NHWC convolutions.

use mcc_ir::catalogue::KernelSpec;
use mcc_ir::op::{Conv2d, Layout, Op};

/// Sizes of a convolution.
#[derive(Clone, Debug)]
pub struct Window {
    pub batch: usize,
    /// Rows and columns of x.
    pub size: [usize; 2],
    pub channels: usize,
    /// Rows and columns of the output.
    pub out: [usize; 2],
    pub out_channels: usize,
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    /// Rows above, columns to the left.
    pub pad: [usize; 2],
    pub dilation: [usize; 2],
}

impl Window {
    /// The geometry of an NHWC convolution with constant weights.
    pub fn of<'a>(spec: &KernelSpec<'a>) -> Option<(&'a Conv2d, Window)> {
        let Op::Conv2d(o) = spec.op else { return None };
        if o.layout != Layout::Nhwc || spec.consts[1].is_none() {
            return None;
        }
        let (x, w, out) = (&spec.arg_types[0].shape, &spec.arg_types[1].shape, &spec.out_type.shape);
        let window = Window {
            batch: x[0],
            size: [x[1], x[2]],
            channels: x[3],
            out: [out[1], out[2]],
            out_channels: out[3],
            kernel: [w[1], w[2]],
            stride: o.stride,
            pad: [o.pad[0], o.pad[1]],
            dilation: o.dilation,
        };
        Some((o, window))
    }

    /// A matrix product as a pointwise convolution of one column of pixels.
    pub fn column(pixels: usize, channels: usize, out_channels: usize) -> Window {
        Window {
            batch: 1,
            size: [pixels, 1],
            channels,
            out: [pixels, 1],
            out_channels,
            kernel: [1, 1],
            stride: [1, 1],
            pad: [0, 0],
            dilation: [1, 1],
        }
    }
}
