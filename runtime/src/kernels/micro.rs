//! The innermost loops.
//!
//! Each has a form for the machine's baseline and one compiled for AVX2 and FMA. The latter are functions of their own:
//! inlined into the loops around, their sums would not stay in registers.

/// `sum + x * w`: fused where the machine has it, else in two roundings (the library's software FMA would be slow).
#[inline(always)]
pub fn multiply_add<const FUSED: bool>(sum: f32, x: f32, w: f32) -> f32 {
    if FUSED { x.mul_add(w, sum) } else { sum + x * w }
}

/// `sums[r][c] += sum over k of lines[r][k] * weights[k * stride + c]`, for as many k as the lines are long.
#[inline(always)]
pub fn accumulate<const ROWS: usize, const WIDTH: usize, const WIDE: bool>(
    sums: &mut [[f32; WIDTH]; ROWS],
    lines: [&[f32]; ROWS],
    weights: &[f32],
    stride: usize,
) {
    #[cfg(target_arch = "x86_64")]
    if WIDE {
        // SAFETY: WIDE code runs only where AVX2 and FMA are.
        return unsafe { accumulate_wide(sums, lines, weights, stride) };
    }
    accumulate_here::<ROWS, WIDTH, false>(sums, lines, weights, stride);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[inline(never)]
fn accumulate_wide<const ROWS: usize, const WIDTH: usize>(
    sums: &mut [[f32; WIDTH]; ROWS],
    lines: [&[f32]; ROWS],
    weights: &[f32],
    stride: usize,
) {
    accumulate_here::<ROWS, WIDTH, true>(sums, lines, weights, stride);
}

#[inline(always)]
fn accumulate_here<const ROWS: usize, const WIDTH: usize, const FUSED: bool>(
    sums: &mut [[f32; WIDTH]; ROWS],
    lines: [&[f32]; ROWS],
    weights: &[f32],
    stride: usize,
) {
    let mut local = *sums;
    let len = lines.first().map_or(0, |l| l.len());
    let lines = lines.map(|l| &l[..len]);
    let mut step = |k: usize, weights: &[f32; WIDTH]| {
        for (sums, line) in local.iter_mut().zip(&lines) {
            let x = line[k];
            for (sum, w) in sums.iter_mut().zip(weights) {
                *sum = multiply_add::<FUSED>(*sum, x, *w);
            }
        }
    };
    if stride == WIDTH {
        let (blocks, _) = weights.as_chunks::<WIDTH>();
        for (k, block) in blocks[..len].iter().enumerate() {
            step(k, block);
        }
    } else {
        for (k, row) in weights.chunks(stride).enumerate().take(len) {
            step(k, row.first_chunk().expect("a row holds the block"));
        }
    }
    *sums = local;
}

/// The sum of products, in partial sums.
#[inline(always)]
pub fn dot<const WIDE: bool>(a: &[f32], b: &[f32]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if WIDE {
        // SAFETY: WIDE code runs only where AVX2 and FMA are.
        return unsafe { dot_wide(a, b) };
    }
    dot_here::<false>(a, b)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[inline(never)]
fn dot_wide(a: &[f32], b: &[f32]) -> f32 {
    dot_here::<true>(a, b)
}

#[inline(always)]
fn dot_here<const FUSED: bool>(a: &[f32], b: &[f32]) -> f32 {
    let (a_blocks, a_rest) = a.as_chunks::<32>();
    let (b_blocks, b_rest) = b.as_chunks::<32>();
    let rest = a_rest.iter().zip(b_rest).fold(0f32, |s, (a, b)| multiply_add::<FUSED>(s, *a, *b));
    let mut sums = [0f32; 32];
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum = multiply_add::<FUSED>(*sum, *a, *b);
        }
    }
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both forms of every loop against the plain sum. Small integers, so that floats are exact too.
    fn check<const WIDE: bool>() {
        for len in [0, 1, 5, 32, 48, 71] {
            let x: Vec<f32> = (0..3 * len).map(|i| (i * 7 % 13) as f32 - 6.0).collect();
            let w: Vec<f32> = (0..len * 11 + 16).map(|i| (i * 5 % 17) as f32 - 8.0).collect();
            let lines: [&[f32]; 3] = std::array::from_fn(|r| &x[r * len..][..len]);
            for stride in [8, 11] {
                let mut sums = [[1f32; 8]; 3];
                accumulate::<3, 8, WIDE>(&mut sums, lines, &w, stride);
                for (r, sums) in sums.iter().enumerate() {
                    for (c, sum) in sums.iter().enumerate() {
                        let want: f32 = (0..len).map(|k| lines[r][k] * w[k * stride + c]).sum();
                        assert_eq!(*sum, want + 1.0, "row {r}, column {c}, stride {stride}");
                    }
                }
            }
            let want: f32 = lines[1].iter().zip(&w).map(|(a, b)| a * b).sum();
            assert_eq!(dot::<WIDE>(lines[1], &w[..len]), want);
        }
    }

    #[test]
    fn baseline_loops() {
        check::<false>();
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn wide_loops() {
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            check::<true>();
        }
    }
}
