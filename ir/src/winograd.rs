//! Winograd's minimal filtering for 3x3 convolutions on 8-bit values, without rounding.
//!
//! On one axis a tile of outputs is `A (G w * B d)` for taps w and input values d, `*` element by element; two axes take
//! one after the other. All of G, B and A are scaled to integers, so a tile is a known multiple of the true sum, which the
//! kernel divides out. Tiles after Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015); the
//! form for stride 2 splits taps and values in even and odd ones: F(2,2) on the even ones, one plain tap on the odd.

/// A choice of tile: F(outputs x outputs, 3x3) at a stride.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Winograd {
    /// F(2x2, 3x3): 16 products instead of 36. A tile is 4 times its sums.
    F2,
    /// F(4x4, 3x3): 36 products instead of 144. A tile is 576 times its sums.
    F4,
    /// Two outputs an axis at stride 2: 25 products instead of 36. A tile is its sums.
    Stride2,
}

impl Winograd {
    pub const ALL: [Winograd; 3] = [Winograd::F2, Winograd::F4, Winograd::Stride2];

    /// Outputs of a tile along an axis.
    pub fn outputs(self) -> usize {
        match self {
            Winograd::F2 | Winograd::Stride2 => 2,
            Winograd::F4 => 4,
        }
    }

    pub fn stride(self) -> usize {
        if self == Winograd::Stride2 { 2 } else { 1 }
    }

    /// Input values that a tile needs along an axis.
    pub fn inputs(self) -> usize {
        (self.outputs() - 1) * self.stride() + 3
    }

    /// Products of a tile: G has the square root of that many rows.
    pub fn frequencies(self) -> usize {
        self.filter().len() * self.filter().len()
    }

    /// G: what each frequency of an axis takes of the three taps.
    pub fn filter(self) -> &'static [[i32; 3]] {
        match self {
            Winograd::F2 => &[[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]],
            Winograd::F4 => &[[3, 0, 0], [-1, -1, -1], [-1, 1, -1], [1, 2, 4], [1, -2, 4], [0, 0, 3]],
            Winograd::Stride2 => &[[1, 0, 0], [1, 0, 1], [0, 0, 1], [0, 1, 0], [0, 1, 0]],
        }
    }

    /// How many times the true sum the two axes give.
    pub fn scale(self) -> u32 {
        match self {
            Winograd::F2 => 4,
            Winograd::F4 => 576,
            Winograd::Stride2 => 1,
        }
    }

    /// Whether sums modulo 2^32 give back the true ones: `weights` are rows of `depth` values, one an output channel, and
    /// multiply values of magnitude up to `limit`. An odd factor divides out modulo 2^32; a power of two needs its bits.
    pub fn fits(self, weights: &[i8], depth: usize, limit: u32) -> bool {
        let most = (1u64 << 31) >> self.scale().trailing_zeros();
        self.scale() == 1
            || weights
                .chunks(depth.max(1))
                .all(|row| row.iter().map(|w| w.unsigned_abs() as u64).sum::<u64>().saturating_mul(limit as u64) < most)
    }

    /// Words of two input channels each that a frequency takes: a whole number of fours of channels, and more than 32
    /// words in equal runs of up to 32.
    pub fn words(channels: usize) -> usize {
        let words = 2 * channels.div_ceil(4);
        let runs = words.div_ceil(32).max(1);
        runs * words.div_ceil(runs).next_multiple_of(2)
    }

    /// The two input channels of a word: as SXTB16 takes them from four bytes.
    pub fn channels_of(word: usize) -> [usize; 2] {
        let first = word / 2 * 4 + word % 2;
        [first, first + 2]
    }

    /// The filter `taps[y][x]` in all frequencies, rows first; at most 49 times the largest weight.
    pub fn transform(self, taps: [[i32; 3]; 3]) -> Vec<i32> {
        let g = self.filter();
        let dot = |row: &[i32; 3], column: [i32; 3]| row.iter().zip(column).map(|(g, w)| g * w).sum::<i32>();
        let mut all = Vec::with_capacity(self.frequencies());
        for down in g {
            let line: [i32; 3] = std::array::from_fn(|x| dot(down, [taps[0][x], taps[1][x], taps[2][x]]));
            all.extend(g.iter().map(|across| dot(across, line)));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// B: what each frequency takes of the input values, and A: what each output takes of the frequencies.
    fn other_matrices(form: Winograd) -> (Vec<Vec<i64>>, Vec<Vec<i64>>) {
        match form {
            Winograd::F2 => (
                vec![vec![1, 0, -1, 0], vec![0, 1, 1, 0], vec![0, -1, 1, 0], vec![0, 1, 0, -1]],
                vec![vec![1, 1, 1, 0], vec![0, 1, -1, -1]],
            ),
            Winograd::F4 => (
                vec![
                    vec![4, 0, -5, 0, 1, 0],
                    vec![0, -4, -4, 1, 1, 0],
                    vec![0, 4, -4, -1, 1, 0],
                    vec![0, -2, -1, 2, 1, 0],
                    vec![0, 2, -1, -2, 1, 0],
                    vec![0, 4, 0, -5, 0, 1],
                ],
                vec![
                    vec![2, 4, 4, 1, 1, 0],
                    vec![0, 4, -4, 2, -2, 0],
                    vec![0, 4, 4, 4, 4, 0],
                    vec![0, 4, -4, 8, -8, 8],
                ],
            ),
            Winograd::Stride2 => (
                vec![
                    vec![1, 0, -1, 0, 0],
                    vec![0, 0, 1, 0, 0],
                    vec![0, 0, -1, 0, 1],
                    vec![0, 1, 0, 0, 0],
                    vec![0, 0, 0, 1, 0],
                ],
                vec![vec![1, 1, 0, 1, 0], vec![0, 1, 1, 0, 1]],
            ),
        }
    }

    fn product(a: &[Vec<i64>], b: &[Vec<i64>]) -> Vec<Vec<i64>> {
        a.iter().map(|row| (0..b[0].len()).map(|j| (0..b.len()).map(|k| row[k] * b[k][j]).sum()).collect()).collect()
    }

    fn transposed(a: &[Vec<i64>]) -> Vec<Vec<i64>> {
        (0..a[0].len()).map(|j| a.iter().map(|row| row[j]).collect()).collect()
    }

    proptest::proptest! {
        #[test]
        fn tiles_are_the_stated_multiple_of_the_sums(
            taps in proptest::array::uniform9(-128i32..=127),
            values in proptest::array::uniform::<_, 36>(-128i64..=255),
        ) {
            for form in Winograd::ALL {
                let (b, a) = other_matrices(form);
                let n = form.inputs();
                let d: Vec<Vec<i64>> = (0..n).map(|y| values[6 * y..6 * y + n].to_vec()).collect();
                let v = product(&product(&b, &d), &transposed(&b));
                let u = form.transform(std::array::from_fn(|y| std::array::from_fn(|x| taps[3 * y + x])));
                proptest::prop_assert!(u.iter().all(|u| u.unsigned_abs() <= 49 * 128));
                proptest::prop_assert!(v.iter().flatten().all(|v| i16::try_from(*v).is_ok()));
                let width = b.len();
                let m: Vec<Vec<i64>> =
                    (0..width).map(|i| (0..width).map(|j| v[i][j] * u[i * width + j] as i64).collect()).collect();
                let tile = product(&product(&a, &m), &transposed(&a));
                for (y, row) in tile.iter().enumerate() {
                    for (x, found) in row.iter().enumerate() {
                        let sum: i64 = (0..9)
                            .map(|k| taps[k] as i64 * d[y * form.stride() + k / 3][x * form.stride() + k % 3])
                            .sum();
                        proptest::prop_assert_eq!(*found, form.scale() as i64 * sum, "{:?}", form);
                    }
                }
            }
        }
    }

    #[test]
    fn sums_that_need_their_upper_bits_do_not_fit() {
        // 576 is 9 * 2^6: sums must stay below 2^25, here 2^7 * n * 2^7.
        let row = |n: usize| vec![-128i8; n];
        assert!(Winograd::F4.fits(&row(2047), 2047, 128) && !Winograd::F4.fits(&row(2048), 2048, 128));
        assert!(Winograd::F2.fits(&row(32767), 32767, 128) && !Winograd::F2.fits(&row(32768), 32768, 128));
        assert!(Winograd::Stride2.fits(&row(1 << 18), 1 << 18, 255));
        // Each row counts by itself.
        assert!(Winograd::F4.fits(&row(4094), 2047, 128));
    }

    #[test]
    fn words_come_in_equal_runs() {
        let found: Vec<usize> = [1, 3, 4, 5, 16, 64, 65, 128, 130, 200].map(Winograd::words).to_vec();
        assert_eq!(found, [2, 2, 2, 4, 8, 32, 36, 64, 66, 104]);
        assert_eq!([0, 1, 2, 3].map(Winograd::channels_of), [[0, 2], [1, 3], [4, 6], [5, 7]]);
    }
}
