//! The geometry of NHWC convolutions.

use mcc_ir::catalogue::KernelSpec;
use mcc_ir::op::{Conv2d, Layout, Op};
use std::ops::Range;

/// Sizes of a convolution, and which window of the output one call computes.
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

    /// A matrix product as a pointwise convolution of one line of pixels.
    pub fn line(pixels: usize, channels: usize, out_channels: usize) -> Window {
        Window {
            batch: 1,
            size: [1, pixels],
            channels,
            out: [1, pixels],
            out_channels,
            kernel: [1, 1],
            stride: [1, 1],
            pad: [0, 0],
            dilation: [1, 1],
        }
    }

    /// A pointwise convolution sees an image as one row; with it, the number of leading output dimensions that remain.
    pub fn flattened(self, limit: usize) -> (Window, usize) {
        let [oh, ow] = self.out;
        let pointwise = self.kernel == [1, 1] && self.stride == [1, 1] && self.out == self.size;
        if !pointwise || oh * ow * self.out_channels > limit {
            return (self, 2);
        }
        (Window { size: [1, oh * ow], out: [1, oh * ow], pad: [0, 0], ..self }, 1)
    }

    /// Taps of the kernel along an axis that fall inside x for output position `at`.
    pub fn taps(&self, axis: usize, at: usize) -> Range<usize> {
        let (start, pad, step) = (at * self.stride[axis], self.pad[axis], self.dilation[axis]);
        let taps = self.kernel[axis];
        let first = pad.saturating_sub(start).div_ceil(step).min(taps);
        let last = (self.size[axis] + pad).saturating_sub(start).div_ceil(step).min(taps);
        first..last.max(first)
    }

    /// Output columns whose taps all fall inside x.
    pub fn interior(&self) -> Range<usize> {
        let first = self.pad[1].div_ceil(self.stride[1]).min(self.out[1]);
        let reach = (self.kernel[1] - 1) * self.dilation[1];
        let last = match (self.size[1] + self.pad[1]).checked_sub(reach + 1) {
            Some(room) => (room / self.stride[1] + 1).min(self.out[1]),
            None => 0,
        };
        first..last.max(first)
    }

    /// The position in x that tap `tap` of output position `at` falls on; the tap must be one of [`Window::taps`].
    pub fn position(&self, axis: usize, at: usize, tap: usize) -> usize {
        at * self.stride[axis] + tap * self.dilation[axis] - self.pad[axis]
    }

    pub fn x_len(&self) -> usize {
        self.batch * self.size[0] * self.size[1] * self.channels
    }

    /// Elements of one output row.
    pub fn row_len(&self) -> usize {
        self.out[1] * self.out_channels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ranges against the definition, tap by tap.
    #[test]
    fn taps_and_interior_hold_what_falls_inside() {
        for (size, kernel, stride, pad, dilation) in
            [(5, 3, 1, 1, 1), (6, 3, 2, 1, 1), (7, 2, 3, 0, 1), (4, 3, 1, 3, 2), (2, 4, 1, 3, 1), (9, 3, 2, 2, 3)]
        {
            let out = (size + 2 * pad - (kernel - 1) * dilation - 1) / stride + 1;
            let w = Window {
                batch: 1,
                size: [size; 2],
                channels: 1,
                out: [out; 2],
                out_channels: 1,
                kernel: [kernel; 2],
                stride: [stride; 2],
                pad: [pad; 2],
                dilation: [dilation; 2],
            };
            for at in 0..out {
                let inside = |k: usize| {
                    let p = (at * stride + k * dilation) as isize - pad as isize;
                    (0..size as isize).contains(&p)
                };
                let want: Vec<usize> = (0..kernel).filter(|k| inside(*k)).collect();
                assert_eq!(w.taps(0, at).collect::<Vec<_>>(), want, "{w:?} at {at}");
                assert_eq!(w.interior().contains(&at), want.len() == kernel, "{w:?} at {at}");
                want.iter().for_each(|k| assert_eq!(w.position(0, at, *k), at * stride + k * dilation - pad));
            }
        }
    }
}
