//! Register tiles of `f32` products: MR output pixels times NV vectors of output channels, summed over K in registers.
//!
//! One body serves 1x1 and k x k convolutions and matrix products: a pixel's K values are runs of memory, at the same
//! offsets for all pixels ([`super::strips`]). Weights stream from a panel `[K][NV * LANES]`. Bias, residual and
//! activation are applied before the only store.

use super::simd::Simd;

/// The work of one call: tiles of neighbouring pixels with one panel of weights.
pub struct Panel<'a> {
    pub runs: &'a [usize],
    pub run_len: usize,
    /// Row k starts at `k * width`.
    pub weights: *const f32,
    pub width: usize,
    /// A value a channel, as many as the vectors have lanes.
    pub bias: *const f32,
    /// The panel's first channel of the first pixel.
    pub out: *mut f32,
    /// From a pixel of the output to the next.
    pub out_step: usize,
    /// As `out`, to be added; or null.
    pub residual: *const f32,
    pub bounds: (f32, f32),
    /// Channels of the last vector.
    pub last: usize,
    /// The first run of the strip's first pixel.
    pub x: *const f32,
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
pub type TileFn = unsafe fn(&Panel<'_>);

/// # Safety
/// As [`TileFn`].
#[inline(always)]
unsafe fn tiles<S: Simd, const MR: usize, const NV: usize>(p: &Panel<'_>) {
    // SAFETY: the caller's contract covers every access: MR * tiles pixels, their runs, NV vectors of weights, bias and
    // output, of which the last one has `last` lanes.
    unsafe {
        let (lo, hi) = (S::splat(p.bounds.0), S::splat(p.bounds.1));
        let mut column = p.first % p.columns;
        let mut row = p.x.add(p.first / p.columns * p.row_step);
        let mut at = row.add(column * p.column_step);
        let mut done = p.first * p.out_step;
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
            let mut sums = [[lo; NV]; MR];
            for j in 0..NV {
                let bias = S::load(p.bias.add(j * S::LANES));
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
                for k in 0..p.run_len {
                    let mut weights = [lo; NV];
                    for (j, v) in weights.iter_mut().enumerate() {
                        *v = S::load(w.add(j * S::LANES));
                    }
                    for i in 0..MR {
                        let x = S::splat(*lines[i].add(k));
                        for j in 0..NV {
                            sums[i][j] = S::mul_add(x, weights[j], sums[i][j]);
                        }
                    }
                    w = w.add(p.width);
                }
            }
            if !p.residual.is_null() {
                for (i, sums) in sums.iter_mut().enumerate() {
                    let from = p.residual.add(done + i * p.out_step);
                    for (j, sum) in sums.iter_mut().enumerate() {
                        let from = from.add(j * S::LANES);
                        let part = j + 1 == NV && p.last < S::LANES;
                        *sum = S::add(*sum, if part { S::load_part(from, p.last) } else { S::load(from) });
                    }
                }
            }
            for (i, sums) in sums.iter().enumerate() {
                let to = p.out.add(done + i * p.out_step);
                for (j, sum) in sums.iter().enumerate() {
                    let to = to.add(j * S::LANES);
                    let v = S::at_least(lo, S::at_most(hi, *sum));
                    if j + 1 == NV && p.last < S::LANES {
                        S::store_part(to, p.last, v);
                    } else {
                        S::store(to, v);
                    }
                }
            }
            done += MR * p.out_step;
        }
    }
}

/// The tiles of a level.
pub trait Tiles: Simd {
    /// Multiply-accumulates in a cycle, about, all lanes counted.
    const MACS_PER_CYCLE: f64;
    /// The largest number of pixels of a tile with so many vectors; 0 where there is none.
    fn pixels(vectors: usize) -> usize;
    /// The function for a tile of so many pixels and vectors, at most what [`Tiles::pixels`] says.
    fn function(pixels: usize, vectors: usize) -> TileFn;
}

macro_rules! level {
    ($simd:ty, $compiled:ident, $macs:literal, $(#[$feature:meta])? $($vectors:literal: $($pixels:literal)*;)*) => {
        $(#[$feature])?
        unsafe fn $compiled<const MR: usize, const NV: usize>(p: &Panel<'_>) {
            // SAFETY: the caller's contract.
            unsafe { tiles::<$simd, MR, NV>(p) }
        }

        impl Tiles for $simd {
            const MACS_PER_CYCLE: f64 = $macs;

            fn pixels(vectors: usize) -> usize {
                match vectors {
                    $($vectors => [$($pixels),*].len(),)*
                    _ => 0,
                }
            }

            fn function(pixels: usize, vectors: usize) -> TileFn {
                match (vectors, pixels) {
                    $($(($vectors, $pixels) => $compiled::<$pixels, $vectors>,)*)*
                    _ => unreachable!("no tile of {pixels} pixels and {vectors} vectors"),
                }
            }
        }
    };
}

level! {
    super::simd::Portable, portable, 4.0,
    1: 1 2 3 4;
    2: 1 2 3 4;
}

#[cfg(target_arch = "x86_64")]
level! {
    super::simd::Avx2, avx2, 14.0, #[target_feature(enable = "avx2,fma")]
    1: 1 2 3 4 5 6 7 8;
    2: 1 2 3 4 5 6;
    3: 1 2 3 4;
    4: 1 2;
    8: 1;
}

#[cfg(target_arch = "x86_64")]
level! {
    super::simd::Avx512, avx512, 16.0, #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    1: 1 2 3 4 5 6 7 8 9 10 11 12;
    2: 1 2 3 4 5 6 7 8 9 10 11 12;
    3: 1 2 3 4 5 6 7 8;
    4: 1 2 3 4 5 6;
    8: 1 2;
}
