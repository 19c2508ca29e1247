//! Register tiles of products: MR output pixels times NV vectors of output channels, summed over K in registers.
//!
//! One body serves 1x1 and k x k convolutions and matrix products, of floats and of bytes ([`Products`]): a pixel's K
//! values are runs of memory, at the same offsets for all pixels ([`super::strips`]). Weights stream from a panel. The
//! epilogue is applied before the only store.

use super::bytes::{self, Bytes};
use super::floats::Floats;
use super::simd;

/// The arithmetic of a tile: vectors with a sum a lane.
///
/// # Safety
/// All functions need the instructions that the type stands for. Pointers must be good for what each function says.
pub unsafe trait Products: Copy + Send + Sync + 'static {
    const LANES: usize;
    /// How many vectors of sums the registers hold beside operands.
    const SUMS: usize;
    /// How many values of K a step takes.
    const DEPTH: usize;
    /// Activations, as tiles read them, and weights.
    type X: Copy + Send + Sync;
    type W: Copy;
    type Bias: Copy + Default + Send + Sync;
    type V: Copy;
    type Sum: Copy;
    type Epilogue;

    /// `DEPTH` activations in every lane.
    unsafe fn x(from: *const Self::X) -> Self::V;
    /// `DEPTH` weights for each of `LANES` lanes.
    unsafe fn weights(from: *const Self::W) -> Self::V;
    /// `LANES` sums to begin with.
    unsafe fn bias(from: *const Self::Bias) -> Self::Sum;
    /// `sum + x * w`, over the depth.
    unsafe fn add(sum: Self::Sum, x: Self::V, w: Self::V) -> Self::Sum;
    /// Stores the first `lanes` sums as elements `at...` of the output, which are channels `channel...`.
    unsafe fn finish(e: &Self::Epilogue, at: usize, channel: usize, lanes: usize, sum: Self::Sum);
}

/// The work of one call: tiles of neighbouring pixels with one panel of weights.
pub struct Panel<'a, P: Products> {
    pub runs: &'a [usize],
    /// Steps of `DEPTH` in a run.
    pub steps: usize,
    pub weights: *const P::W,
    /// Channels of a panel: whole vectors.
    pub width: usize,
    /// A value a channel of the panel.
    pub bias: *const P::Bias,
    pub epilogue: P::Epilogue,
    /// The panel's first channel, and its element of the first pixel in the output.
    pub channel: usize,
    pub at: usize,
    /// From a pixel of the output to the next.
    pub out_step: usize,
    /// Channels of the last vector.
    pub last: usize,
    /// The first run of the strip's first pixel.
    pub x: *const P::X,
    /// Output columns, and the steps in x from a column to the next and from a row to the next.
    pub columns: usize,
    pub column_step: usize,
    pub row_step: usize,
    /// The first pixel, counted in the strip.
    pub first: usize,
    pub tiles: usize,
}

/// Computes tiles.
///
/// # Safety
/// The machine must have the function's level; all pointers of the panel must be good for what its numbers say.
pub type TileFn<P> = unsafe fn(&Panel<'_, P>);

/// # Safety
/// As [`TileFn`].
#[inline(always)]
unsafe fn tiles<P: Products, const MR: usize, const NV: usize>(p: &Panel<'_, P>) {
    // SAFETY: the caller's contract covers every access: MR * tiles pixels, their runs, NV vectors of weights, bias and
    // output, of which the last one has `last` lanes.
    unsafe {
        let mut column = p.first % p.columns;
        let mut row = p.x.add(p.first / p.columns * p.row_step);
        let mut at = row.add(column * p.column_step);
        let mut done = p.at + p.first * p.out_step;
        for _ in 0..p.tiles {
            let mut pixels = [at; MR];
            for pixel in &mut pixels {
                *pixel = at;
                column += 1;
                at = at.wrapping_add(p.column_step);
                if column == p.columns {
                    column = 0;
                    row = row.wrapping_add(p.row_step);
                    at = row;
                }
            }
            let mut sums = [[P::bias(p.bias); NV]; MR];
            for j in 1..NV {
                let bias = P::bias(p.bias.add(j * P::LANES));
                for sums in &mut sums {
                    sums[j] = bias;
                }
            }
            let mut w = p.weights;
            for &run in p.runs {
                let mut lines = pixels;
                for line in &mut lines {
                    *line = line.add(run);
                }
                for k in 0..p.steps {
                    let mut weights = [P::weights(w); NV];
                    for (j, v) in weights.iter_mut().enumerate().skip(1) {
                        *v = P::weights(w.add(j * P::LANES * P::DEPTH));
                    }
                    for (sums, line) in sums.iter_mut().zip(&lines) {
                        let x = P::x(line.add(k * P::DEPTH));
                        for (sum, w) in sums.iter_mut().zip(&weights) {
                            *sum = P::add(*sum, x, *w);
                        }
                    }
                    w = w.add(p.width * P::DEPTH);
                }
            }
            // In memory from here on: the loop over them is too long to be unrolled, and would have the sums there above too.
            let mut finished = [[sums[0][0]; NV]; MR];
            for (to, from) in finished.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
                *to = *from;
            }
            for (i, sums) in finished.iter().enumerate() {
                for (j, sum) in sums.iter().enumerate() {
                    let lanes = if j + 1 == NV { p.last } else { P::LANES };
                    P::finish(&p.epilogue, done + i * p.out_step + j * P::LANES, p.channel + j * P::LANES, lanes, *sum);
                }
            }
            done += MR * p.out_step;
        }
    }
}

/// The tiles of a level.
pub trait Tiles: Products {
    /// Multiply-accumulates in a cycle, about, all lanes counted.
    const MACS_PER_CYCLE: f64;
    /// The largest number of pixels of a tile with so many vectors; 0 where there is none.
    fn pixels(vectors: usize) -> usize;
    /// The function for a tile of so many pixels and vectors, at most what [`Tiles::pixels`] says.
    fn function(pixels: usize, vectors: usize) -> TileFn<Self>;
}

macro_rules! level {
    ($products:ty, $compiled:ident, $macs:literal, $(#[$feature:meta])? $($vectors:literal: $($pixels:literal)*;)*) => {
        $(#[$feature])?
        unsafe fn $compiled<const MR: usize, const NV: usize>(p: &Panel<'_, $products>) {
            // SAFETY: the caller's contract.
            unsafe { tiles::<$products, MR, NV>(p) }
        }

        impl Tiles for $products {
            const MACS_PER_CYCLE: f64 = $macs;

            fn pixels(vectors: usize) -> usize {
                match vectors {
                    $($vectors => [$($pixels),*].len(),)*
                    _ => 0,
                }
            }

            fn function(pixels: usize, vectors: usize) -> TileFn<Self> {
                match (vectors, pixels) {
                    $($(($vectors, $pixels) => $compiled::<$pixels, $vectors>,)*)*
                    _ => unreachable!("no tile of {pixels} pixels and {vectors} vectors"),
                }
            }
        }
    };
}

level! {
    Floats<simd::Portable>, floats, 4.0,
    1: 1 2 3 4;
    2: 1 2 3 4;
}

level! {
    Bytes<bytes::Portable>, bytes, 4.0,
    1: 1 2 3 4;
    2: 1 2 3 4;
}

#[cfg(target_arch = "aarch64")]
level! {
    Floats<super::neon::Neon>, floats_neon, 8.0,
    1: 1 2 3 4 5 6 7 8;
    2: 1 2 3 4 5 6 7 8;
    3: 1 2 3 4 5 6;
    4: 1 2 3 4;
    8: 1 2;
}

#[cfg(target_arch = "aarch64")]
level! {
    Bytes<super::neon::NeonInts>, bytes_neon, 6.0,
    1: 1 2 3 4 5 6 7 8;
    2: 1 2 3 4 5;
    4: 1 2;
}

#[cfg(target_arch = "x86_64")]
level! {
    Floats<simd::Avx2>, floats_avx2, 10.0, #[target_feature(enable = "avx2,fma")]
    1: 1 2 3 4 5 6 7 8;
    2: 1 2 3 4 5 6;
    3: 1 2 3 4;
    4: 1 2;
    8: 1;
}

#[cfg(target_arch = "x86_64")]
level! {
    Bytes<bytes::Avx2>, bytes_avx2, 24.0, #[target_feature(enable = "avx2,fma")]
    1: 1 2 3 4 5 6 7 8;
    2: 1 2 3 4 5;
    4: 1 2;
    8: 1;
}

#[cfg(target_arch = "x86_64")]
level! {
    Floats<simd::Avx512>, floats_avx512, 16.0, #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    1: 1 2 3 4 5 6 7 8 9 10 11 12;
    2: 1 2 3 4 5 6 7 8 9 10 11 12;
    3: 1 2 3 4 5 6 7 8;
    4: 1 2 3 4 5 6;
    8: 1 2;
}

#[cfg(target_arch = "x86_64")]
level! {
    Bytes<bytes::Vnni>, bytes_vnni, 56.0,
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
    1: 1 2 3 4 5 6 7 8 9 10 11 12;
    2: 1 2 3 4 5 6 7 8 9 10 11 12;
    3: 1 2 3 4 5 6 7 8;
    4: 1 2 3 4 5 6;
    8: 1 2;
}
