//! Depthwise convolution, NHWC, one output channel an input channel, in `f32` and 8-bit integers. Weights: `[kh][kw][C]`.

use super::window::Window;
use super::{Prepared, WindowKernel, bias_len, epilogue_cycles, multiply_add};
use mcc_ir::DType;
use mcc_ir::catalogue::KernelSpec;
use mcc_ir::packing::Packing;
use std::fmt::Debug;
use std::marker::PhantomData;

/// Channels at a time.
const WIDTH: usize = 16;

pub fn prepare_f32(spec: &KernelSpec<'_>) -> Option<Prepared> {
    prepare::<f32>(spec)
}

pub fn prepare_i8(spec: &KernelSpec<'_>) -> Option<Prepared> {
    prepare::<i8>(spec).or_else(|| prepare::<u8>(spec))
}

fn prepare<X: Product>(spec: &KernelSpec<'_>) -> Option<Prepared> {
    let (o, window) = Window::of(spec)?;
    let fits = o.groups == window.channels && window.out_channels == window.channels;
    if !fits || spec.arg_types[0].dtype != X::DTYPE {
        return None;
    }
    let bias = bias_len(spec.op, window.channels);
    let outputs = spec.out_type.elements();
    if outputs == 0 {
        return None;
    }
    let macs = outputs * window.kernel[0] * window.kernel[1];
    let cycles = macs as f64 / 2.0 + epilogue_cycles(spec.op, outputs);
    let packing = Packing::Permute(vec![1, 2, 3, 0]);
    let kernel = Depthwise::<X> { window, bias, pad: X::from_pad(o.pad_value), element: PhantomData };
    Some(Prepared::new(spec, kernel, 2, 0, packing, cycles))
}

/// An activation type with its weights and sums.
trait Product: Copy + Debug + Send + Sync + PartialEq + Default + 'static {
    const DTYPE: DType;
    type W: Copy;
    type Acc: Copy + Default;
    fn from_pad(pad: i32) -> Self;
    fn add<const WIDE: bool>(sum: Self::Acc, x: Self, w: Self::W) -> Self::Acc;
}

impl Product for f32 {
    const DTYPE: DType = DType::F32;
    type W = f32;
    type Acc = f32;
    fn from_pad(_: i32) -> f32 {
        0.0
    }
    #[inline(always)]
    fn add<const WIDE: bool>(sum: f32, x: f32, w: f32) -> f32 {
        multiply_add::<WIDE>(sum, x, w)
    }
}

macro_rules! integer {
    ($x:ty, $dtype:ident) => {
        impl Product for $x {
            const DTYPE: DType = DType::$dtype;
            type W = i8;
            type Acc = i32;
            fn from_pad(pad: i32) -> $x {
                pad as $x
            }
            /// The product of 8-bit integers fits 16 bits, of either sign of x.
            #[inline(always)]
            fn add<const WIDE: bool>(sum: i32, x: $x, w: i8) -> i32 {
                sum.wrapping_add((x as i16).wrapping_mul(w as i16) as i32)
            }
        }
    };
}
integer!(i8, I8);
integer!(u8, U8);

#[derive(Debug)]
struct Depthwise<X> {
    window: Window,
    bias: usize,
    /// What padding reads as.
    pad: X,
    element: PhantomData<X>,
}

impl<X: Product> WindowKernel for Depthwise<X> {
    type X = X;
    type W = X::W;
    type Acc = X::Acc;
    type Scratch = u8;

    fn lengths(&self) -> [usize; 5] {
        let w = &self.window;
        [w.x_len(), w.kernel[0] * w.kernel[1] * w.channels, self.bias, w.row_len(), 0]
    }

    #[inline(always)]
    fn run<const WIDE: bool>(
        &self,
        step: usize,
        x: &[X],
        w: &[X::W],
        bias: &[X::Acc],
        acc: &mut [X::Acc],
        _scratch: &mut [u8],
    ) {
        let channels = self.window.channels;
        for (column, acc) in acc.chunks_exact_mut(channels).enumerate() {
            let mut first = 0;
            while first + WIDTH <= channels {
                let mut sums = [X::Acc::default(); WIDTH];
                if let Some(bias) = bias.get(first..first + WIDTH) {
                    sums.copy_from_slice(bias);
                }
                self.pixel::<WIDTH, WIDE>(step, column, first, x, w, &mut sums);
                acc[first..first + WIDTH].copy_from_slice(&sums);
                first += WIDTH;
            }
            for (channel, acc) in acc.iter_mut().enumerate().skip(first) {
                let mut sums = [bias.get(channel).copied().unwrap_or_default()];
                self.pixel::<1, WIDE>(step, column, channel, x, w, &mut sums);
                *acc = sums[0];
            }
        }
    }
}

impl<X: Product> Depthwise<X> {
    /// Adds all taps of `N` channels from `first` on to `sums`.
    #[inline(always)]
    fn pixel<const N: usize, const WIDE: bool>(
        &self,
        step: usize,
        column: usize,
        first: usize,
        x: &[X],
        w: &[X::W],
        sums: &mut [X::Acc; N],
    ) {
        let g = &self.window;
        let (image, row) = (step / g.out[0], step % g.out[0]);
        let (rows, columns) = (g.taps(0, row), g.taps(1, column));
        let mut local = *sums;
        for ky in rows.clone() {
            let line = (image * g.size[0] + g.position(0, row, ky)) * g.size[1];
            for kx in columns.clone() {
                let x = &x[(line + g.position(1, column, kx)) * g.channels + first..][..N];
                let w = &w[(ky * g.kernel[1] + kx) * g.channels + first..][..N];
                for ((sum, x), w) in local.iter_mut().zip(x).zip(w) {
                    *sum = X::add::<WIDE>(*sum, *x, *w);
                }
            }
        }
        let all_inside = rows.len() == g.kernel[0] && columns.len() == g.kernel[1];
        if !all_inside && self.pad != X::default() {
            for ky in 0..g.kernel[0] {
                for kx in (0..g.kernel[1]).filter(|kx| !(rows.contains(&ky) && columns.contains(kx))) {
                    let w = &w[(ky * g.kernel[1] + kx) * g.channels + first..][..N];
                    for (sum, w) in local.iter_mut().zip(w) {
                        *sum = X::add::<WIDE>(*sum, self.pad, *w);
                    }
                }
            }
        }
        *sums = local;
    }
}
