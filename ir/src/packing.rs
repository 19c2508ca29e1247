//! Packings: the orders in which kernels want their constant operands laid out.

use crate::dtype::DType;
use crate::tensor::Tensor;
use crate::types::TensorType;
use crate::winograd::Winograd;

/// A compile-time permutation of a constant's elements, or a transform of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Packing {
    /// Row-major, as it is.
    None,
    /// Dimension i of the packed tensor is dimension `perm[i]` of the tensor.
    Permute(Vec<usize>),
    /// A tensor `[N, K...]` as a matrix of N rows and K columns, in blocks: `[N / rows][K / depth][rows][depth]`, both
    /// rounded up and filled with zeros. Packed shape: `[ceil(N / rows), ceil(K / depth), rows, depth]`.
    Panel { rows: usize, depth: usize },
    /// As [`Packing::Panel`], with each run of `run` columns rounded up to `depth` by itself:
    /// `[N / rows][K / run * ceil(run / depth)][rows][depth]`.
    Runs { run: usize, rows: usize, depth: usize },
    /// An i8 tensor `[N, K...]` as a matrix of N rows and K columns, rounded up to `rows` (an even number) and to 4 and
    /// filled with zeros: two rows a, b share half-words `256 * a + b`, low byte first. Packed shape:
    /// `[ceil(N / rows), ceil(K / 4), 2, rows / 2, 2, 2]`: of each four columns 0 and 2, then 1 and 3; pairs of rows; the
    /// two columns; the two bytes. Where b is negative, the high byte is a - 1: see [`Packing::pairs_fit`].
    Pairs { rows: usize },
    /// The same, but a row is a sequence of runs of `run` columns, each rounded up to two, in their order. Packed shape:
    /// `[ceil(N / rows), K / run, ceil(run / 2), rows / 2, 2, 2]`.
    PairRuns { rows: usize, run: usize },
    /// An i8 tensor `[N, K...]` as a matrix of N rows and K columns, in vectors of sixteen columns. A row is a sequence of
    /// runs of `taps * channels` columns; each tap of a run is cut into vectors, the last one filled up with zeros. Passes
    /// of a run take `group` vectors: those at one place of all taps where there are several taps, else `group` in a row.
    /// Packed shape: `[ceil(N / 4), 2, passes, 2, group, 16]`: of each four rows 0 and 2, then 1 and 3; passes; the two
    /// rows; the vectors of a pass. Rows and vectors that lack are zero.
    Slices { channels: usize, taps: usize, group: usize },
    /// Filters `[N, 3, 3, C]` of f32, transformed for F(2x2, 3x3), in blocks of filters filled up with zeros:
    /// `[16][N / rows][C][rows]`.
    WinogradPanel { rows: usize },
    /// Filters `[N, 3, 3, C]` of i8, transformed, as i16 filled up with zeros. Packed shape: `[ceil(N / 2), frequencies,
    /// Winograd::words(C), 2, 2]`: pairs of filters; frequencies; words; the two filters; the two channels of the word.
    Winograd(Winograd),
    /// An i8 tensor `[N, K...]` as [`Packing::Panel`] of depth 8 packs it, the eight columns in the order
    /// [`OCTET`]. Packed shape: `[ceil(N / rows), ceil(K / 8), rows, 8]`.
    Octets { rows: usize },
    /// An i8 tensor `[N, K...]` of elements from -8 to 7 as a matrix of N rows and K columns, rounded up to `rows` (a
    /// multiple of four) and to 4: four rows a, b, c, d share half-words `4096 * a + 256 * (b + 8) + 16 * (c + 8) + d + 8`.
    /// Packed shape, in u4: `[ceil(N / rows), ceil(K / 4), 2, rows / 4, 2, 4]`: of each four columns 0 and 2, then 1 and 3;
    /// fours of rows; the two columns; d, c, b and a. See [`Packing::fours_fit`].
    Fours { rows: usize },
    /// An i8 tensor packed as `of` says, then each element w as `w - low` in four bits: see [`Packing::nibbles`]. What
    /// fills up holds any value. Packed shape: that of `of`, in u4.
    Nibbles { of: Box<Packing>, low: i32 },
}

/// The order of the columns in [`Packing::Octets`]: as four bits each, columns of a pair are 16 bits apart in the word. The
/// pairs are 0 and 2, 1 and 3, 4 and 6, 5 and 7, as SXTB16 delivers them from bytes.
pub const OCTET: [usize; 8] = [0, 1, 4, 5, 2, 3, 6, 7];

/// Columns of a vector in [`Packing::Slices`].
pub const LANES: usize = 16;

impl Packing {
    /// The type of the packed tensor.
    pub fn packed_type(&self, ty: &TensorType) -> TensorType {
        match self {
            Packing::None => ty.clone(),
            Packing::Permute(perm) => TensorType::new(ty.dtype, perm.iter().map(|&p| ty.shape[p]).collect::<Vec<_>>()),
            Packing::Panel { rows, depth } => {
                let (n, k) = matrix(ty);
                TensorType::new(ty.dtype, [n.div_ceil(*rows), k.div_ceil(*depth), *rows, *depth])
            }
            Packing::Runs { run, rows, depth } => {
                let (n, k) = matrix(ty);
                TensorType::new(ty.dtype, [n.div_ceil(*rows), k / run * run.div_ceil(*depth), *rows, *depth])
            }
            Packing::Pairs { rows } => {
                let (n, k) = matrix(ty);
                TensorType::new(ty.dtype, [n.div_ceil(*rows), k.div_ceil(4), 2, rows / 2, 2, 2])
            }
            Packing::PairRuns { rows, run } => {
                let (n, k) = matrix(ty);
                TensorType::new(ty.dtype, [n.div_ceil(*rows), k / run, run.div_ceil(2), rows / 2, 2, 2])
            }
            Packing::Slices { channels, taps, group } => {
                let (n, k) = matrix(ty);
                let passes = k / (channels * taps) * (taps * channels.div_ceil(LANES)).div_ceil(*group);
                TensorType::new(ty.dtype, [n.div_ceil(4), 2, passes, 2, *group, LANES])
            }
            Packing::WinogradPanel { rows } => {
                TensorType::new(ty.dtype, [16, ty.shape[0].div_ceil(*rows), ty.shape[3], *rows])
            }
            Packing::Winograd(form) => {
                let (n, channels) = (ty.shape[0], ty.shape[3]);
                TensorType::new(DType::I16, [n.div_ceil(2), form.frequencies(), Winograd::words(channels), 2, 2])
            }
            Packing::Octets { rows } => Packing::Panel { rows: *rows, depth: 8 }.packed_type(ty),
            Packing::Fours { rows } => {
                let (n, k) = matrix(ty);
                TensorType::new(DType::U4, [n.div_ceil(*rows), k.div_ceil(4), 2, rows / 4, 2, 4])
            }
            Packing::Nibbles { of, .. } => TensorType::new(DType::U4, of.packed_type(ty).shape),
        }
    }

    /// This packing with elements of four bits, where the elements of a constant fit: all from -8 to 7, or else within a
    /// range of sixteen.
    pub fn nibbles(self, tensor: &Tensor) -> Option<Packing> {
        if tensor.dtype() != DType::I8 {
            return None;
        }
        let values = || tensor.bytes().iter().map(|b| *b as i8 as i32);
        let (min, max) = (values().min()?, values().max()?);
        let low = if min >= -8 && max <= 7 { -8 } else { min };
        (max - low <= 15).then(|| Packing::Nibbles { of: Box::new(self), low })
    }

    /// Whether the half-words of [`Packing::Pairs`] hold all rows of an i8 matrix `[N, K]`, and the sum of |a| * `limit`
    /// over each row is below 2^23: then sums of a and b times values up to `limit` can be told apart.
    pub fn pairs_fit(weights: &[i8], depth: usize, limit: u32) -> bool {
        let small = |row: &[i8]| row.iter().map(|w| w.unsigned_abs() as u64).sum::<u64>() * (limit as u64) < 1 << 23;
        let apart = |a: &[i8], b: &[i8]| a.iter().zip(b).all(|(a, b)| *a > i8::MIN || *b >= 0);
        let rows: Vec<&[i8]> = weights.chunks(depth.max(1)).collect();
        rows.chunks(2).all(|pair| small(pair[0]) && pair.get(1).is_none_or(|b| apart(pair[0], b)))
    }

    /// Whether [`Packing::Fours`] holds an i8 matrix `[N, K]` so that sums of the rows' products with values up to `limit`
    /// can be told apart: of each four rows, the first sums stay below 2^19, 2^23 and 2^27.
    pub fn fours_fit(weights: &[i8], depth: usize, limit: u32) -> bool {
        let sum = |row: &[i8]| row.iter().map(|w| w.unsigned_abs() as u64).sum::<u64>() * limit as u64;
        let bounds = [1 << 19, 1 << 23, 1 << 27, u64::MAX];
        weights.iter().all(|w| (-8..=7).contains(w))
            && weights.chunks(depth.max(1)).zip(bounds.iter().cycle()).all(|(row, bound)| sum(row) < *bound)
    }

    /// The packed tensor.
    pub fn apply(&self, tensor: &Tensor) -> Tensor {
        let ty = self.packed_type(tensor.ty());
        match self {
            Packing::None => tensor.clone(),
            Packing::Permute(perm) => {
                let strides: Vec<usize> = {
                    let s = tensor.ty().strides();
                    perm.iter().map(|&p| s[p]).collect()
                };
                let mut from = Vec::with_capacity(ty.elements());
                let mut at = vec![0usize; ty.rank()];
                for _ in 0..ty.elements() {
                    from.push(Some(at.iter().zip(&strides).map(|(i, s)| i * s).sum()));
                    advance(&mut at, &ty.shape);
                }
                gather(tensor, ty, &from)
            }
            Packing::Panel { rows, depth } => panel(tensor, ty, matrix(tensor.ty()).1, *rows, *depth),
            Packing::Runs { run, rows, depth } => panel(tensor, ty, *run, *rows, *depth),
            Packing::Pairs { rows } => {
                let (_, k) = matrix(tensor.ty());
                let words = (0..k).step_by(4).flat_map(|kb| [[kb, kb + 2], [kb + 1, kb + 3]]);
                pairs(tensor, ty, *rows, &words.collect::<Vec<_>>())
            }
            Packing::PairRuns { rows, run } => {
                let (_, k) = matrix(tensor.ty());
                // What fills up a run is no column of the next one.
                let word = |start: usize, i: usize| [start + i, if i + 1 < *run { start + i + 1 } else { k }];
                let words = (0..k).step_by(*run).flat_map(|start| (0..*run).step_by(2).map(move |i| word(start, i)));
                pairs(tensor, ty, *rows, &words.collect::<Vec<_>>())
            }
            Packing::Slices { channels, taps, group } => {
                let (n, k) = matrix(tensor.ty());
                let run = channels * taps;
                // For each vector of a pass, the first column in the run and the columns that there are.
                let slice = |i: usize| {
                    let (tap, c) = (i % taps, i / taps * LANES);
                    (tap * channels + c, LANES.min(channels.saturating_sub(c)))
                };
                let passes = (taps * channels.div_ceil(LANES)).div_ceil(*group);
                let mut from = Vec::with_capacity(ty.elements());
                for rows in (0..n).step_by(4).flat_map(|r| [[r, r + 2], [r + 1, r + 3]]) {
                    for start in (0..k).step_by(run) {
                        for pass in 0..passes {
                            for r in rows {
                                for i in pass * group..(pass + 1) * group {
                                    let (column, columns) = slice(i);
                                    from.extend(
                                        (0..LANES).map(|l| (r < n && l < columns).then(|| r * k + start + column + l)),
                                    );
                                }
                            }
                        }
                    }
                }
                gather(tensor, ty, &from)
            }
            Packing::WinogradPanel { rows } => winograd_panel(tensor, ty, *rows),
            Packing::Winograd(form) => winograd(tensor, ty, *form),
            Packing::Octets { rows } => {
                let panel = Packing::Panel { rows: *rows, depth: 8 }.apply(tensor);
                let from: Vec<Option<usize>> = (0..ty.elements()).map(|i| Some(i / 8 * 8 + OCTET[i % 8])).collect();
                gather(&panel, ty, &from)
            }
            Packing::Fours { rows } => {
                let (n, k) = matrix(tensor.ty());
                let at = |r: usize, c: usize| if r < n && c < k { tensor.bytes()[r * k + c] as i8 as i64 } else { 0 };
                let mut nibbles = Vec::with_capacity(ty.elements());
                for nb in (0..n).step_by(*rows) {
                    for first in (0..k).step_by(4).flat_map(|kb| [kb, kb + 1]) {
                        for r in (nb..nb + rows).step_by(4) {
                            for c in [first, first + 2] {
                                nibbles.extend((1..4).rev().map(|i| at(r + i, c) + 8));
                                nibbles.push(at(r, c));
                            }
                        }
                    }
                }
                Tensor::from_i64(ty, &nibbles)
            }
            Packing::Nibbles { of, low } => {
                let values = of.apply(tensor).to_i64();
                let nibbles: Vec<i64> = values.into_iter().map(|w| (w - *low as i64).clamp(0, 15)).collect();
                Tensor::from_i64(ty, &nibbles)
            }
        }
    }
}

/// Pairs of rows of a matrix, of each `rows` rows the columns of all words in turn.
fn pairs(tensor: &Tensor, ty: TensorType, rows: usize, words: &[[usize; 2]]) -> Tensor {
    let (n, k) = matrix(tensor.ty());
    let at = |r: usize, c: usize| if r < n && c < k { tensor.bytes()[r * k + c] as i8 } else { 0 };
    let mut data = Vec::with_capacity(ty.elements());
    for nb in (0..n).step_by(rows) {
        for word in words {
            for r in (nb..nb + rows).step_by(2) {
                for &c in word {
                    let half = 256 * at(r, c) as i32 + at(r + 1, c) as i32;
                    data.extend_from_slice(&(half as i16).to_le_bytes());
                }
            }
        }
    }
    Tensor::from_bytes(ty, data).expect("one element each was written")
}

/// Runs of `run` columns in blocks of `rows` rows and `depth` columns.
fn panel(tensor: &Tensor, ty: TensorType, run: usize, rows: usize, depth: usize) -> Tensor {
    let (n, k) = matrix(tensor.ty());
    let mut from = Vec::with_capacity(ty.elements());
    for nb in (0..n).step_by(rows) {
        for start in (0..k).step_by(run.max(1)) {
            for kb in (0..run).step_by(depth) {
                for r in nb..nb + rows {
                    for c in kb..kb + depth {
                        from.push((r < n && c < run).then_some(r * k + start + c));
                    }
                }
            }
        }
    }
    gather(tensor, ty, &from)
}

/// G g G^T of each filter g, where G maps three taps to `a, (a + b + c) / 2, (a - b + c) / 2, c`.
fn winograd_panel(tensor: &Tensor, ty: TensorType, rows: usize) -> Tensor {
    let (n, channels, blocks) = (tensor.shape()[0], tensor.shape()[3], ty.shape[1]);
    let taps = tensor.to_f32();
    let line = |[a, b, c]: [f64; 3]| [a, (a + b + c) / 2.0, (a - b + c) / 2.0, c];
    let mut data = vec![0f32; ty.elements()];
    for (filter, channel) in (0..n).flat_map(|f| (0..channels).map(move |c| (f, c))) {
        let tap = |y: usize, x: usize| taps[((filter * 3 + y) * 3 + x) * channels + channel] as f64;
        let across: [[f64; 4]; 3] = std::array::from_fn(|y| line(std::array::from_fn(|x| tap(y, x))));
        let down: [[f64; 4]; 4] = std::array::from_fn(|x| line(std::array::from_fn(|y| across[y][x])));
        for f in 0..16 {
            let block = f * blocks + filter / rows;
            data[(block * channels + channel) * rows + filter % rows] = down[f % 4][f / 4] as f32;
        }
    }
    Tensor::new(ty.shape, &data)
}

fn winograd(tensor: &Tensor, ty: TensorType, form: Winograd) -> Tensor {
    let (n, channels) = (tensor.shape()[0], tensor.shape()[3]);
    let (frequencies, words) = (form.frequencies(), Winograd::words(channels));
    let mut data = vec![0u8; ty.bytes()];
    for filter in 0..n {
        for (word, half) in (0..words).flat_map(|word| [(word, 0), (word, 1)]) {
            let channel = Winograd::channels_of(word)[half];
            if channel >= channels {
                continue;
            }
            let tap = |y, x| tensor.bytes()[((filter * 3 + y) * 3 + x) * channels + channel] as i8 as i32;
            let taps = std::array::from_fn(|y| std::array::from_fn(|x| tap(y, x)));
            for (f, u) in form.transform(taps).into_iter().enumerate() {
                let block = (filter / 2 * frequencies + f) * words + word;
                let at = 2 * ((block * 2 + filter % 2) * 2 + half);
                data[at..at + 2].copy_from_slice(&(u as i16).to_le_bytes());
            }
        }
    }
    Tensor::from_bytes(ty, data).expect("a transformed filter has its own size")
}

/// Steps a row-major index over `shape`.
fn advance(at: &mut [usize], shape: &[usize]) {
    for i in (0..shape.len()).rev() {
        at[i] += 1;
        if at[i] < shape[i] {
            return;
        }
        at[i] = 0;
    }
}

fn matrix(ty: &TensorType) -> (usize, usize) {
    let n = ty.shape.first().copied().unwrap_or(1);
    (n, ty.elements() / n.max(1))
}

/// A tensor of byte-sized elements whose element i is element `from[i]`, or zero.
fn gather(tensor: &Tensor, ty: TensorType, from: &[Option<usize>]) -> Tensor {
    let size = ty.dtype.bits() / 8;
    let mut data = Vec::with_capacity(from.len() * size);
    for source in from {
        match source {
            Some(i) => data.extend_from_slice(&tensor.bytes()[i * size..(i + 1) * size]),
            None => data.resize(data.len() + size, 0),
        }
    }
    Tensor::from_bytes(ty, data).expect("one element each was written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_take_vectors_in_order_of_use() {
        // Three rows of two runs of three taps of 17 channels; an element says row, run, tap and channel.
        let element = |r: usize, run: usize, tap: usize, c: usize| (1 + r * 40 + run * 20 + tap * 6 + c / 3) as i8;
        let all = |r: usize| (0..2 * 3 * 17).map(move |i| element(r, i / 51, i % 51 / 17, i % 17));
        let t = Tensor::new([3, 2, 3, 17], &(0..3).flat_map(all).collect::<Vec<i8>>());
        let p = Packing::Slices { channels: 17, taps: 3, group: 3 }.apply(&t);
        assert_eq!(p.shape(), [1, 2, 4, 2, 3, 16]);
        let at = |pair: usize, pass: usize, row: usize, tap: usize, lane: usize| {
            p.bytes()[(((pair * 4 + pass) * 2 + row) * 3 + tap) * 16 + lane] as i8
        };
        for (pair, row, r) in [(0, 0, 0), (0, 1, 2), (1, 0, 1)] {
            for (run, tap) in [(0, 0), (0, 2), (1, 1)] {
                assert_eq!(at(pair, 2 * run, row, tap, 5), element(r, run, tap, 5));
                assert_eq!(at(pair, 2 * run + 1, row, tap, 0), element(r, run, tap, 16));
                assert_eq!(at(pair, 2 * run + 1, row, tap, 1), 0);
            }
        }
        assert!((0..4).all(|pass| (0..3).all(|tap| at(1, pass, 1, tap, 0) == 0)));
        // One tap: vectors in a row, and one that lacks.
        let t = Tensor::new([1, 37], &(1..=37).collect::<Vec<i8>>());
        let p = Packing::Slices { channels: 37, taps: 1, group: 2 }.apply(&t);
        assert_eq!(p.shape(), [1, 2, 2, 2, 2, 16]);
        let bytes: Vec<i8> = p.bytes().iter().map(|b| *b as i8).collect();
        assert_eq!(bytes[..32], (1..=32).collect::<Vec<i8>>());
        assert_eq!(bytes[64..70], [33, 34, 35, 36, 37, 0]);
        assert!(bytes[80..].iter().all(|b| *b == 0) && bytes[32..64].iter().all(|b| *b == 0));
    }

    #[test]
    fn panel_interleaves_rows_and_pads() {
        let t = Tensor::new([3, 3], &[1i8, 2, 3, 4, 5, 6, 7, 8, 9]);
        let p = Packing::Panel { rows: 2, depth: 2 }.apply(&t);
        assert_eq!(p.shape(), [2, 2, 2, 2]);
        assert_eq!(p.to_i64(), [1, 2, 4, 5, 3, 0, 6, 0, 7, 8, 0, 0, 9, 0, 0, 0]);
    }

    #[test]
    fn runs_are_rounded_up_each() {
        let t = Tensor::new([3, 2, 3], &[1i8, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]);
        let p = Packing::Runs { run: 3, rows: 2, depth: 2 }.apply(&t);
        assert_eq!(p.shape(), [2, 4, 2, 2]);
        let first = [1, 2, 7, 8, 3, 0, 9, 0, 4, 5, 10, 11, 6, 0, 12, 0];
        let second = [13, 14, 0, 0, 15, 0, 0, 0, 16, 17, 0, 0, 18, 0, 0, 0];
        assert_eq!(p.to_i64(), [first, second].concat());
        let one = Packing::Runs { run: 6, rows: 2, depth: 4 };
        assert_eq!(one.apply(&t), Packing::Panel { rows: 2, depth: 4 }.apply(&t));
    }

    #[test]
    fn pairs_share_half_words() {
        let t = Tensor::new([3, 5], &[1i8, 2, 3, 4, 5, -1, 7, -8, 9, -128, 10, 20, 30, 40, -50]);
        let p = Packing::Pairs { rows: 2 }.apply(&t);
        assert_eq!(p.shape(), [2, 2, 2, 1, 2, 2]);
        let words: Vec<i16> = p.bytes().chunks(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect();
        let w = |a: i16, b: i16| 256 * a + b;
        let first = [w(1, -1), w(3, -8), w(2, 7), w(4, 9), w(5, -128), 0, 0, 0];
        let second = [w(10, 0), w(30, 0), w(20, 0), w(40, 0), w(-50, 0), 0, 0, 0];
        assert_eq!(words, [first, second].concat());
    }

    #[test]
    fn runs_of_pairs_are_filled_up_one_by_one() {
        let t = Tensor::new([2, 2, 3], &[1i8, 2, 3, 4, 5, 6, -1, 7, -8, 9, -128, 10]);
        let p = Packing::PairRuns { rows: 4, run: 3 }.apply(&t);
        assert_eq!(p.shape(), [1, 2, 2, 2, 2, 2]);
        let words: Vec<i16> = p.bytes().chunks(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect();
        let w = |a: i16, b: i16| 256 * a + b;
        assert_eq!(words[..8], [w(1, -1), w(2, 7), 0, 0, w(3, -8), 0, 0, 0]);
        assert_eq!(words[8..], [w(4, 9), w(5, -128), 0, 0, w(6, 10), 0, 0, 0]);
    }

    #[test]
    fn pairs_fit_where_sums_stay_apart() {
        assert!(Packing::pairs_fit(&[-128, 0, 127, -128], 2, 128));
        assert!(Packing::pairs_fit(&[-127, -128], 1, 128));
        assert!(!Packing::pairs_fit(&[-128, -1], 1, 128));
        // The last row of an odd number has no partner.
        assert!(Packing::pairs_fit(&[1, -1, -128], 1, 128));
        let long = |n: usize| Packing::pairs_fit(&[vec![127i8; n], vec![-128; n]].concat(), n, 128);
        assert!(long(516) && !long(517));
    }

    #[test]
    fn winograd_panels_hold_frequencies() {
        // Three filters of two channels. Channel 1 of filter 2 has a centre tap, channel 0 of filter 1 a corner.
        let mut taps = vec![0f32; 3 * 18];
        taps[2 * 18 + 4 * 2 + 1] = 4.0;
        taps[18 + 8 * 2] = 8.0;
        let p = Packing::WinogradPanel { rows: 2 }.apply(&Tensor::new([3, 3, 3, 2], &taps));
        assert_eq!(p.shape(), [16, 2, 2, 2]);
        let at = |f: usize, filter: usize, c: usize| p.to_f32()[((f * 2 + filter / 2) * 2 + c) * 2 + filter % 2];
        let all = |filter, c| (0..16).map(|f| at(f, filter, c)).collect::<Vec<_>>();
        assert_eq!(all(2, 1), [0., 0., 0., 0., 0., 1., -1., 0., 0., -1., 1., 0., 0., 0., 0., 0.]);
        assert_eq!(all(1, 0), [0., 0., 0., 0., 0., 2., 2., 4., 0., 2., 2., 4., 0., 4., 4., 8.]);
        assert_eq!(p.to_f32().iter().filter(|v| **v != 0.0).count(), 13);
    }

    #[test]
    fn winograd_pairs_filters_and_channels() {
        // Three filters of five channels; only the centre tap of channel 1 or 4 is not zero.
        let mut taps = vec![0i8; 3 * 45];
        for (filter, channel, w) in [(0, 1, -128), (1, 4, 3), (2, 1, 5)] {
            taps[filter * 45 + 4 * 5 + channel] = w;
        }
        let p = Packing::Winograd(Winograd::F4).apply(&Tensor::new([3, 3, 3, 5], &taps));
        assert_eq!(p.ty(), &TensorType::new(DType::I16, [2, 36, 4, 2, 2]));
        let at = |pair: usize, f: usize, word: usize, filter: usize, half: usize| {
            p.to_i64()[(((pair * 36 + f) * 4 + word) * 2 + filter) * 2 + half]
        };
        // Frequency (1, 1) takes all taps once, (3, 4) the centre 2 * -2 times. Channel 1 is in word 1, channel 4 in word 2.
        assert_eq!([at(0, 7, 1, 0, 0), at(0, 22, 1, 0, 0)], [-128, 512]);
        assert_eq!([at(0, 7, 2, 1, 0), at(0, 22, 2, 1, 0)], [3, -12]);
        assert_eq!([at(1, 7, 1, 0, 0), at(1, 22, 1, 0, 0)], [5, -20]);
        assert_eq!(p.to_i64().iter().filter(|v| **v != 0).count(), 3 * 16);
    }

    #[test]
    fn octets_bring_pairs_sixteen_bits_apart() {
        let t = Tensor::new([3, 9], &(0..27).map(|i| (i % 9) as i8 - i as i8 / 9).collect::<Vec<i8>>());
        let p = Packing::Octets { rows: 2 }.apply(&t);
        assert_eq!(p.shape(), [2, 2, 2, 8]);
        assert_eq!(p.to_i64()[..16], [0, 1, 4, 5, 2, 3, 6, 7, -1, 0, 3, 4, 1, 2, 5, 6]);
        assert_eq!(p.to_i64()[16..25], [8, 0, 0, 0, 0, 0, 0, 0, 7]);
        let packed = Packing::Octets { rows: 2 }.nibbles(&t).unwrap();
        assert_eq!(packed, Packing::Nibbles { of: Box::new(Packing::Octets { rows: 2 }), low: -2 });
        let packed = packed.apply(&t);
        assert_eq!(packed.ty(), &TensorType::new(DType::U4, [2, 2, 2, 8]));
        // 2, 3, 6, 7, 4, 5, 8, 9 from bit 0 on.
        assert_eq!(packed.bytes()[..4], [0x32, 0x76, 0x54, 0x98]);
    }

    #[test]
    fn fours_share_half_words() {
        let t = Tensor::new([5, 3], &[-8i8, 1, 2, 7, -7, 3, 0, 4, -1, -8, 7, 5, 6, -6, 7]);
        let p = Packing::Fours { rows: 4 }.apply(&t);
        assert_eq!(p.ty(), &TensorType::new(DType::U4, [2, 1, 2, 1, 2, 4]));
        let words: Vec<i16> = p.bytes().chunks(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect();
        let w = |a: i32, b: i32, c: i32, d: i32| (4096 * a + 256 * (b + 8) + 16 * (c + 8) + d + 8) as i16;
        let first = [w(-8, 7, 0, -8), w(2, 3, -1, 5), w(1, -7, 4, 7), w(0, 0, 0, 0)];
        let second = [w(6, 0, 0, 0), w(7, 0, 0, 0), w(-6, 0, 0, 0), w(0, 0, 0, 0)];
        assert_eq!(words, [first, second].concat());
    }

    #[test]
    fn fours_fit_where_sums_stay_apart() {
        let fits = |rows: [i8; 4], n: usize| {
            Packing::fours_fit(&rows.iter().flat_map(|w| vec![*w; n]).collect::<Vec<_>>(), n, 128)
        };
        assert!(fits([-8, 7, -8, 7], 511) && !fits([-8, 7, -8, 7], 512));
        assert!(fits([0, -8, -8, 7], 8191) && !fits([0, -8, 0, 0], 8192));
        assert!(fits([0, 0, -8, -8], 131_071) && !fits([0, 0, -8, 0], 131_072));
        assert!(!Packing::fours_fit(&[8], 1, 128) && Packing::fours_fit(&[1; 5], 1, 128));
    }

    #[test]
    fn nibbles_hold_what_fits_in_sixteen_values() {
        let low = |w: &[i8]| match Packing::None.nibbles(&Tensor::new([w.len()], w))? {
            Packing::Nibbles { low, .. } => Some(low),
            other => panic!("{other:?}"),
        };
        assert_eq!(low(&[-8, 7, 0]), Some(-8));
        assert_eq!(low(&[1, 2, 3]), Some(-8));
        assert_eq!(low(&[-8, 8]), None);
        assert_eq!(low(&[0, 15]), Some(0));
        assert_eq!(low(&[-128, -113]), Some(-128));
        assert_eq!(low(&[]), None);
        assert!(Packing::None.nibbles(&Tensor::new([1], &[1i32])).is_none());
        let t = Tensor::new([3], &[-8i8, 7, -1]);
        assert_eq!(Packing::None.nibbles(&t).unwrap().apply(&t).bytes()[..], [0xf0, 0x07]);
    }

    #[test]
    fn permute_transposes() {
        let t = Tensor::new([2, 3], &[1i32, 2, 3, 4, 5, 6]);
        let p = Packing::Permute(vec![1, 0]).apply(&t);
        assert_eq!(p.shape(), [3, 2]);
        assert_eq!(p.to_i64(), [1, 4, 2, 5, 3, 6]);
    }
}
