//! Depthwise convolution, NHWC, one output channel an input channel, in `f32` and 8-bit integers. Weights: `[kh][kw][C]`.

use super::micro::multiply_add;
use super::window::Window;
use super::{Prepared, WindowKernel, bias_len, epilogue_cycles};
use mcc_ir::DType;
use mcc_ir::catalogue::KernelSpec;
use mcc_ir::packing::Packing;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::ops::Range;

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
    /// `sum + x * w`, fused where `FUSED` and a float.
    fn add<const FUSED: bool>(sum: Self::Acc, x: Self, w: Self::W) -> Self::Acc;
}

impl Product for f32 {
    const DTYPE: DType = DType::F32;
    type W = f32;
    type Acc = f32;
    fn from_pad(_: i32) -> f32 {
        0.0
    }
    #[inline(always)]
    fn add<const FUSED: bool>(sum: f32, x: f32, w: f32) -> f32 {
        multiply_add::<FUSED>(sum, x, w)
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
            fn add<const FUSED: bool>(sum: i32, x: $x, w: i8) -> i32 {
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
        let g = &self.window;
        let (image, row) = (step / g.out[0], step % g.out[0]);
        let rows = g.taps(0, row);
        let interior = g.interior();
        for (column, acc) in acc.chunks_exact_mut(g.channels).enumerate() {
            let columns = if interior.contains(&column) { 0..g.kernel[1] } else { g.taps(1, column) };
            let at = Pixel { image, row, column, rows: rows.clone(), columns };
            let done = self.blocks::<16, WIDE>(&at, 0, x, w, bias, acc);
            let done = self.blocks::<8, WIDE>(&at, done, x, w, bias, acc);
            self.blocks::<1, WIDE>(&at, done, x, w, bias, acc);
        }
    }
}

/// An output pixel, and the kernel's rows and columns that fall inside x there.
struct Pixel {
    image: usize,
    row: usize,
    column: usize,
    rows: Range<usize>,
    columns: Range<usize>,
}

impl<X: Product> Depthwise<X> {
    /// The channels of a pixel from `first` on, as far as whole blocks of `N` reach. Returns where they end.
    #[inline(always)]
    fn blocks<const N: usize, const WIDE: bool>(
        &self,
        at: &Pixel,
        first: usize,
        x: &[X],
        w: &[X::W],
        bias: &[X::Acc],
        acc: &mut [X::Acc],
    ) -> usize {
        let (blocks, _) = acc[first..].as_chunks_mut::<N>();
        let mut first = first;
        for acc in blocks {
            let start = bias.get(first..).and_then(|b| b.first_chunk()).copied().unwrap_or([X::Acc::default(); N]);
            *acc = self.block::<N, WIDE>(at, first, x, w, start);
            first += N;
        }
        first
    }

    /// `start` and all taps of `N` channels from `first` on.
    #[inline(always)]
    fn block<const N: usize, const WIDE: bool>(
        &self,
        at: &Pixel,
        first: usize,
        x: &[X],
        w: &[X::W],
        start: [X::Acc; N],
    ) -> [X::Acc; N] {
        #[cfg(target_arch = "x86_64")]
        if WIDE {
            // SAFETY: WIDE code runs only where AVX2 and FMA are.
            return unsafe { self.block_wide(at, first, x, w, start) };
        }
        self.block_here::<N, false>(at, first, x, w, start)
    }

    /// A function of its own, so that the sums stay in registers.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    #[inline(never)]
    fn block_wide<const N: usize>(
        &self,
        at: &Pixel,
        first: usize,
        x: &[X],
        w: &[X::W],
        start: [X::Acc; N],
    ) -> [X::Acc; N] {
        self.block_here::<N, true>(at, first, x, w, start)
    }

    #[inline(always)]
    fn block_here<const N: usize, const FUSED: bool>(
        &self,
        at: &Pixel,
        first: usize,
        x: &[X],
        w: &[X::W],
        start: [X::Acc; N],
    ) -> [X::Acc; N] {
        let g = &self.window;
        let mut sums = start;
        for ky in at.rows.clone() {
            let line = (at.image * g.size[0] + g.position(0, at.row, ky)) * g.size[1];
            for kx in at.columns.clone() {
                let x = &x[(line + g.position(1, at.column, kx)) * g.channels + first..][..N];
                let w = &w[(ky * g.kernel[1] + kx) * g.channels + first..][..N];
                for ((sum, x), w) in sums.iter_mut().zip(x).zip(w) {
                    *sum = X::add::<FUSED>(*sum, *x, *w);
                }
            }
        }
        let all_inside = at.rows.len() == g.kernel[0] && at.columns.len() == g.kernel[1];
        if !all_inside && self.pad != X::default() {
            for ky in 0..g.kernel[0] {
                for kx in (0..g.kernel[1]).filter(|kx| !(at.rows.contains(&ky) && at.columns.contains(kx))) {
                    let w = &w[(ky * g.kernel[1] + kx) * g.channels + first..][..N];
                    for (sum, w) in sums.iter_mut().zip(w) {
                        *sum = X::add::<FUSED>(*sum, self.pad, *w);
                    }
                }
            }
        }
        sums
    }
}
