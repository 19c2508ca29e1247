//! The rows that a product multiplies with its weights, and their second moments `X^T X`.
//!
//! A row holds what one output position reads: `depth` elements in the order of a channel's weights. Convolutions have a
//! matrix for each group.

use mcc_ir::op::{Conv2d, Layout};
use mcc_ir::types::Shape;

/// Where a product reads its rows.
#[derive(Clone, Debug)]
pub enum Rows {
    /// Input and output positions of a convolution, and its kernel's height and width.
    Conv { op: Conv2d, input: Shape, output: Shape, kernel: [usize; 2] },
    /// `depth` elements each, one after the other.
    MatMul { depth: usize, count: usize },
}

impl Rows {
    /// Output positions of one run.
    pub fn count(&self) -> usize {
        match self {
            Rows::Conv { op: Conv2d { layout: Layout::Nchw, .. }, output, .. } => output[0] * output[2] * output[3],
            Rows::Conv { output, .. } => output[0] * output[1] * output[2],
            Rows::MatMul { count, .. } => *count,
        }
    }

    pub fn groups(&self) -> usize {
        match self {
            Rows::Conv { op, .. } => op.groups,
            Rows::MatMul { .. } => 1,
        }
    }

    /// Elements of a row.
    pub fn depth(&self) -> usize {
        match self {
            Rows::Conv { op, input, kernel, .. } => {
                let channels = match op.layout {
                    Layout::Nchw => input[1],
                    Layout::Nhwc => input[3],
                };
                channels / op.groups * kernel[0] * kernel[1]
            }
            Rows::MatMul { depth, .. } => *depth,
        }
    }

    /// Appends row `at` of a group to `out`. `x` is the whole input; padding reads as 0.
    pub fn read(&self, x: &[f32], at: usize, group: usize, out: &mut Vec<f32>) {
        let Rows::Conv { op, input, output, kernel } = self else {
            let depth = self.depth();
            out.extend_from_slice(&x[at * depth..(at + 1) * depth]);
            return;
        };
        let nchw = op.layout == Layout::Nchw;
        let (channels, height, width) =
            if nchw { (input[1], input[2], input[3]) } else { (input[3], input[1], input[2]) };
        let (rows, columns) = if nchw { (output[2], output[3]) } else { (output[1], output[2]) };
        let (n, y, column) = (at / (rows * columns), at / columns % rows, at % columns);
        let share = channels / op.groups;
        let pixel = |c: usize, ky: usize, kx: usize| {
            let iy = (y * op.stride[0] + ky * op.dilation[0]).wrapping_sub(op.pad[0]);
            let ix = (column * op.stride[1] + kx * op.dilation[1]).wrapping_sub(op.pad[1]);
            if iy >= height || ix >= width {
                return 0.0;
            }
            let c = group * share + c;
            x[if nchw {
                ((n * channels + c) * height + iy) * width + ix
            } else {
                ((n * height + iy) * width + ix) * channels + c
            }]
        };
        let (kh, kw) = (kernel[0], kernel[1]);
        if nchw {
            (0..share).for_each(|c| (0..kh).for_each(|ky| out.extend((0..kw).map(|kx| pixel(c, ky, kx)))));
        } else {
            (0..kh).for_each(|ky| (0..kw).for_each(|kx| out.extend((0..share).map(|c| pixel(c, ky, kx)))));
        }
    }

    /// The output element of channel `c` at row `at`: its index in the whole output.
    pub fn output_index(&self, at: usize, c: usize, channels: usize) -> usize {
        match self {
            Rows::Conv { op: Conv2d { layout: Layout::Nchw, .. }, output, .. } => {
                let plane = output[2] * output[3];
                (at / plane * channels + c) * plane + at % plane
            }
            _ => at * channels + c,
        }
    }

    /// `wanted` of all rows of run `run`, spread evenly, each at random within its part: the same for the same arguments.
    pub fn sample(&self, wanted: usize, run: usize) -> Vec<usize> {
        let count = self.count();
        if wanted >= count {
            return (0..count).collect();
        }
        let mut random = super::Random(run as u64 + 1);
        (0..wanted).map(|i| ((i as f64 + random.unit()) * count as f64 / wanted as f64) as usize).collect()
    }
}

/// Sums over rows: of the rows, of their products, and of their products with the outputs that are wanted.
#[derive(Clone, Debug)]
pub struct Moments {
    depth: usize,
    targets: usize,
    full: bool,
    count: usize,
    x: Vec<f64>,
    xx: Vec<f64>,
    y: Vec<f64>,
    /// `targets * depth`.
    yx: Vec<f64>,
    pending: Vec<f32>,
    pending_y: Vec<f32>,
}

/// Rows that are multiplied at one time, in `f32`.
const BLOCK: usize = 64;
/// Rows of more elements have only the squares of their elements summed.
pub const DEEPEST: usize = 2304;

impl Moments {
    /// For rows of `depth` elements, their means and squares.
    pub fn squares(depth: usize) -> Moments {
        Self::with(depth, 0, false)
    }

    /// For rows of `depth` elements and `targets` outputs each, with the products of all pairs, where rows are no deeper
    /// than [`DEEPEST`].
    pub fn new(depth: usize, targets: usize) -> Moments {
        Self::with(depth, targets, depth <= DEEPEST)
    }

    fn with(depth: usize, targets: usize, full: bool) -> Moments {
        Moments {
            depth,
            targets,
            full,
            count: 0,
            x: vec![0.0; depth],
            xx: vec![0.0; if full { depth * depth } else { depth }],
            y: vec![0.0; targets],
            yx: vec![0.0; if full { targets * depth } else { 0 }],
            pending: Vec::new(),
            pending_y: Vec::new(),
        }
    }

    /// Adds one row that `row` appends, and the outputs wanted of it.
    pub fn add(&mut self, row: impl FnOnce(&mut Vec<f32>), wanted: impl IntoIterator<Item = f32>) {
        row(&mut self.pending);
        self.pending_y.extend(wanted);
        debug_assert_eq!(self.pending_y.len() * self.depth, self.pending.len() * self.targets);
        if self.pending.len() == BLOCK * self.depth {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let (d, t) = (self.depth, self.targets);
        let rows = self.pending.len() / d.max(1);
        self.count += rows;
        for row in self.pending.chunks_exact(d.max(1)) {
            self.x.iter_mut().zip(row).for_each(|(s, v)| *s += *v as f64);
        }
        for row in self.pending_y.chunks_exact(t.max(1)) {
            self.y.iter_mut().zip(row).for_each(|(s, v)| *s += *v as f64);
        }
        if !self.full {
            for row in self.pending.chunks_exact(d) {
                self.xx.iter_mut().zip(row).for_each(|(s, v)| *s += (*v as f64).powi(2));
            }
        } else {
            let mut sums = vec![0f32; d];
            for i in 0..d {
                // The lower triangle; `finish` mirrors it.
                accumulate(&self.pending, d, |r| self.pending[r * d + i], rows, &mut sums[..=i]);
                self.xx[i * d..=i * d + i].iter_mut().zip(&sums).for_each(|(s, v)| *s += *v as f64);
            }
            for i in 0..t {
                accumulate(&self.pending, d, |r| self.pending_y[r * t + i], rows, &mut sums);
                self.yx[i * d..(i + 1) * d].iter_mut().zip(&sums).for_each(|(s, v)| *s += *v as f64);
            }
        }
        self.pending.clear();
        self.pending_y.clear();
    }

    /// The means over all rows.
    pub fn finish(mut self) -> Means {
        self.flush();
        let (d, n) = (self.depth, (self.count as f64).max(1.0));
        if self.full {
            (0..d).for_each(|i| (0..i).for_each(|j| self.xx[j * d + i] = self.xx[i * d + j]));
        }
        let mean = |v: Vec<f64>| v.into_iter().map(|s| s / n).collect();
        Means { depth: d, x: mean(self.x), xx: mean(self.xx), y: mean(self.y), yx: mean(self.yx) }
    }
}

/// `sums[j] = sum over rows of by(row) * row[j]`.
fn accumulate(rows: &[f32], depth: usize, by: impl Fn(usize) -> f32, count: usize, sums: &mut [f32]) {
    sums.fill(0.0);
    for r in 0..count {
        let by = by(r);
        // Rectified activations are often 0.
        if by != 0.0 {
            sums.iter_mut().zip(&rows[r * depth..(r + 1) * depth]).for_each(|(s, v)| *s += by * v);
        }
    }
}

/// Means over rows: of the row, of `x_i x_j` (or of the squares alone), of the wanted outputs, of `y_i x_j`.
#[derive(Clone, Debug)]
pub struct Means {
    pub depth: usize,
    pub x: Vec<f64>,
    pub xx: Vec<f64>,
    pub y: Vec<f64>,
    pub yx: Vec<f64>,
}

impl Means {
    /// Whether `xx` is the whole matrix, and `yx` is there.
    pub fn is_full(&self) -> bool {
        self.xx.len() == self.depth * self.depth
    }

    /// `E[(x - mean)(x - mean)^T]`, or its diagonal.
    pub fn covariance(&self) -> Vec<f64> {
        let d = self.depth;
        match self.is_full() {
            true => (0..d * d).map(|i| self.xx[i] - self.x[i / d] * self.x[i % d]).collect(),
            false => (0..d).map(|i| (self.xx[i] - self.x[i] * self.x[i]).max(0.0)).collect(),
        }
    }

    /// `E[(y_t - mean)(x - mean)]` of one output.
    pub fn cross(&self, t: usize) -> Vec<f64> {
        let d = self.depth;
        (0..d).map(|j| self.yx[t * d + j] - self.y[t] * self.x[j]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcc_ir::op::Op;
    use mcc_ir::{Tensor, ops};

    #[test]
    fn rows_times_weights_are_the_convolution() {
        let mut random = super::super::Random(5);
        for layout in [Layout::Nchw, Layout::Nhwc] {
            for (groups, stride, pad, dilation) in [
                (1, [1, 1], [1, 1, 1, 1], [1, 1]),
                (2, [2, 1], [0, 1, 2, 0], [1, 2]),
                (4, [1, 2], [1, 0, 0, 1], [2, 1]),
            ] {
                let op = Conv2d { layout, stride, pad, dilation, groups, pad_value: 0, bias: false, post: vec![] };
                let (channels, outs, kernel) = (4, 8, [2, 3]);
                let (share, depth) = (channels / groups, channels / groups * 6);
                let nchw = layout == Layout::Nchw;
                let x_shape = if nchw { [2, channels, 6, 7] } else { [2, 6, 7, channels] };
                let w_shape = if nchw { [outs, share, 2, 3] } else { [outs, 2, 3, share] };
                let mut tensor = |shape: [usize; 4]| {
                    let n = shape.iter().product();
                    Tensor::new(shape, &(0..n).map(|_| (random.unit() - 0.5) as f32).collect::<Vec<_>>())
                };
                let (x, w) = (tensor(x_shape), tensor(w_shape));
                let ty = ops::infer(&Op::Conv2d(op.clone()), &[x.ty(), w.ty()]).unwrap();
                let y = ops::eval(&Op::Conv2d(op.clone()), &[&x, &w], &ty).unwrap().to_f32();
                let rows = Rows::Conv { op, input: x_shape.to_vec(), output: ty.shape.clone(), kernel };
                assert_eq!((rows.depth(), rows.groups()), (depth, groups));
                assert_eq!(rows.count() * outs, y.len());
                let (x, w) = (x.to_f32(), w.to_f32());
                for at in 0..rows.count() {
                    for c in 0..outs {
                        let mut row = vec![];
                        rows.read(&x, at, c / (outs / groups), &mut row);
                        let sum: f32 = row.iter().zip(&w[c * depth..(c + 1) * depth]).map(|(a, b)| a * b).sum();
                        assert!((sum - y[rows.output_index(at, c, outs)]).abs() < 1e-5);
                    }
                }
            }
        }
    }

    #[test]
    fn moments_are_means_of_products() {
        let rows = [[1f32, 2.0, 0.0], [3.0, -1.0, 4.0], [0.5, 0.0, 1.0]];
        let mut m = Moments::new(3, 2);
        for _ in 0..50 {
            rows.iter().for_each(|r| m.add(|out| out.extend_from_slice(r), [r[0] + 1.0, r[1] * 2.0]));
        }
        let means = m.finish();
        let mean = |f: &dyn Fn(&[f32; 3]) -> f32| rows.iter().map(f).sum::<f32>() as f64 / 3.0;
        for i in 0..3 {
            assert!((means.x[i] - mean(&|r| r[i])).abs() < 1e-9);
            for j in 0..3 {
                assert!((means.xx[i * 3 + j] - mean(&|r| r[i] * r[j])).abs() < 1e-6);
                let covariance = mean(&|r| r[i] * r[j]) - mean(&|r| r[i]) * mean(&|r| r[j]);
                assert!((means.covariance()[i * 3 + j] - covariance).abs() < 1e-6);
            }
            let cross = mean(&|r| 2.0 * r[1] * r[i]) - mean(&|r| 2.0 * r[1]) * mean(&|r| r[i]);
            assert!((means.cross(1)[i] - cross).abs() < 1e-6);
        }
    }

    #[test]
    fn samples_are_spread_and_repeatable() {
        let rows = Rows::MatMul { depth: 1, count: 1000 };
        let some = rows.sample(10, 3);
        assert_eq!(some, rows.sample(10, 3));
        assert!(some.iter().enumerate().all(|(i, r)| r / 100 == i));
        assert_eq!(rows.sample(5000, 0).len(), 1000);
    }
}
