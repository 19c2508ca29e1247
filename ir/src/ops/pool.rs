//! 2-D pooling.

use super::conv::{axes, extents, positions, shape, shape_of};
use super::reduce::{constant, load, lowest, read, read_type};
use super::steps::{self, Epilogue};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::nest::{Bound, Expr, Index, Nest, NestBuilder, linear};
use crate::op::{Pool2d, PoolKind};
use crate::scalar::{BinOp, Scalars, UnOp};
use crate::tensor::Tensor;
use crate::types::TensorType;

/// The largest padding and window: positions are computed in 32 bits.
const MAX_REACH: usize = 1 << 24;

fn name(kind: PoolKind) -> &'static str {
    match kind {
        PoolKind::Max => "max_pool2d",
        PoolKind::Average { .. } => "avg_pool2d",
    }
}

/// One spatial axis.
#[derive(Clone, Copy)]
struct Axis {
    size: usize,
    kernel: usize,
    stride: usize,
    /// At the start.
    pad: usize,
    dilation: usize,
}

impl Axis {
    /// Rows, then columns.
    fn both(o: &Pool2d, x: &TensorType) -> [Axis; 2] {
        let [_, _, h, w] = extents(o.layout, &x.shape);
        let axis = |d: usize, size: usize| Axis {
            size,
            kernel: o.kernel[d],
            stride: o.stride[d],
            pad: o.pad[d],
            dilation: o.dilation[d],
        };
        [axis(0, h), axis(1, w)]
    }

    /// The input positions inside the image that the window of an output position covers.
    fn taps(&self, out: usize) -> impl Iterator<Item = usize> {
        let Axis { size, kernel, stride, pad, dilation } = *self;
        (0..kernel).filter_map(move |k| (out * stride + k * dilation).checked_sub(pad)).filter(move |at| *at < size)
    }

    /// Whether every window has an element inside the image. The first element at or after the start of the image is
    /// the one to be inside, so that windows which start inside need no look.
    fn meets_image(&self, outputs: usize) -> bool {
        let Axis { size, kernel, stride, pad, dilation } = *self;
        let meets = |out: usize| {
            let skipped = pad.saturating_sub(out * stride).div_ceil(dilation);
            skipped < kernel && out * stride + skipped * dilation - pad < size
        };
        let before = pad.div_ceil(stride).min(outputs);
        (0..before).all(meets) && meets(outputs - 1)
    }

    /// The number of elements of a window inside the image, as an `i32` program over the output position.
    fn count(&self, b: &mut NestBuilder, out: &Index) -> Expr {
        let d = self.dilation as i64;
        let start = Index::constant(-(self.pad as i64)).plus_scaled(out, self.stride as i64);
        let negated = Index::default().plus_scaled(&start, -1);
        // The first and the end of the taps inside: the start rounded up to a tap, the end of the image rounded up.
        let divide = |b: &mut NestBuilder, v: Index| {
            let v = Expr::Index(v.offset(d - 1));
            if d == 1 { v } else { b.bin(BinOp::DivI, v, Expr::I32(d as i32)) }
        };
        let first = divide(b, negated.clone());
        let first = b.bin(BinOp::MaxI, first, Expr::I32(0));
        let end = divide(b, negated.offset(self.size as i64));
        let end = b.bin(BinOp::MinI, end, Expr::I32(self.kernel as i32));
        b.bin(BinOp::SubI, end, first)
    }
}

pub fn infer(o: &Pool2d, inputs: &[&TensorType]) -> Result<TensorType> {
    let op = name(o.kind);
    let x = inputs[0];
    if x.rank() != 4 {
        return Err(Error::ty(op, format!("input {x} must have 4 dimensions")));
    }
    let dtype = read_type(op, x.dtype, o.dequant)?;
    let fits = match o.kind {
        PoolKind::Max => matches!(dtype, DType::F32 | DType::I32 | DType::I16 | DType::I8 | DType::U8),
        PoolKind::Average { .. } => dtype == DType::F32,
    };
    if !fits {
        return Err(Error::ty(op, format!("does not take {dtype}")));
    }
    let [n, c, _, _] = extents(o.layout, &x.shape);
    let mut outputs = [0; 2];
    for (d, axis) in Axis::both(o, x).into_iter().enumerate() {
        let window = axis.dilation.saturating_mul(axis.kernel);
        let reach = [axis.size, axis.pad, o.pad[d + 2], window, axis.stride];
        if reach.iter().any(|&v| v > MAX_REACH) {
            return Err(Error::ty(op, format!("a size, pad, window or stride of {reach:?} is beyond {MAX_REACH}")));
        }
        outputs[d] = positions(axis.size, axis.pad + o.pad[d + 2], axis.kernel, axis.dilation, axis.stride)
            .ok_or_else(|| Error::ty(op, format!("a window of {:?} does not fit input {x}", o.kernel)))?;
        if !axis.meets_image(outputs[d]) {
            return Err(Error::ty(op, format!("under pads {:?} a window lies wholly in the padding of {x}", o.pad)));
        }
    }
    let start = TensorType::new(dtype, shape(o.layout, [n, c, outputs[0], outputs[1]]));
    let out = steps::infer(op, &o.post, start.clone(), &inputs[1..])?;
    if out.shape != start.shape {
        return Err(Error::ty(op, format!("an operand of the epilogue is larger than the output {start}")));
    }
    Ok(out)
}

pub fn eval(o: &Pool2d, inputs: &[&Tensor], out: &TensorType) -> Result<Tensor> {
    let x = inputs[0];
    let dtype = read_type(name(o.kind), x.dtype(), o.dequant)?;
    let values = read(x, o.dequant);
    let [rows, columns] = Axis::both(o, x.ty());
    let [n, c, oh, ow] = extents(o.layout, &out.shape);
    let [xn, xc, xh, xw] = axes(o.layout).map(|a| x.ty().strides()[a]);
    let [sn, sc, sh, sw] = axes(o.layout).map(|a| out.strides()[a]);
    let mut results = vec![0; out.elements()];
    for b in 0..n {
        for c in 0..c {
            for y in 0..oh {
                for xo in 0..ow {
                    let window: Vec<u32> = rows
                        .taps(y)
                        .flat_map(|iy| columns.taps(xo).map(move |ix| b * xn + c * xc + iy * xh + ix * xw))
                        .map(|at| values[at])
                        .collect();
                    results[b * sn + c * sc + y * sh + xo * sw] = match o.kind {
                        PoolKind::Max => maximum(dtype, &window),
                        PoolKind::Average { count_include_pad } => {
                            let count = if count_include_pad { o.kernel[0] * o.kernel[1] } else { window.len() };
                            let sum = window.iter().fold(0.0, |s, v| s + f32::from_bits(*v));
                            (sum / count as f32).to_bits()
                        }
                    };
                }
            }
        }
    }
    Ok(Epilogue::new(&o.post, dtype, &inputs[1..], out).apply(results))
}

/// The largest element; NaN is passed over.
fn maximum(dtype: DType, window: &[u32]) -> u32 {
    let float = dtype == DType::F32;
    let op = if float { BinOp::MaxF } else { BinOp::MaxI };
    window.iter().fold(lowest(float), |a, v| op.apply(a, *v))
}

pub fn nest(o: &Pool2d, inputs: &[&TensorType], out: &TensorType) -> Result<Nest> {
    let x = inputs[0];
    let dtype = read_type(name(o.kind), x.dtype, o.dequant)?;
    let float = dtype == DType::F32;
    let [rows, columns] = Axis::both(o, x);
    let padded = o.pad.iter().any(|&p| p > 0);
    let (start, op) = match o.kind {
        PoolKind::Average { .. } => (Expr::F32(0.0), BinOp::AddF),
        PoolKind::Max => (constant(float, lowest(float)), if float { BinOp::MaxF } else { BinOp::MaxI }),
    };
    let strides = x.strides();
    let mut b = NestBuilder::new(inputs, out);
    b.repeat_shape(&out.shape, |b, at| {
        let [n, c, y, xo] = axes(o.layout).map(|a| &at[a]);
        let acc = b.let_(start.clone());
        b.repeat_shape(&o.kernel, |b, k| {
            let position = |a: &Axis, out: &Index, tap: &Index| {
                Index::constant(-(a.pad as i64)).plus_scaled(out, a.stride as i64).plus_scaled(tap, a.dilation as i64)
            };
            let (iy, ix) = (position(&rows, y, &k[0]), position(&columns, xo, &k[1]));
            let from = shape_of(o.layout, [n.clone(), c.clone(), iy.clone(), ix.clone()]);
            let value = load(b, 0, linear(&from, &strides), o.dequant);
            let mut next = b.bin(op, Expr::Reg(acc), value);
            if padded {
                let bounds = [(iy, rows.size), (ix, columns.size)];
                let bounds = bounds.map(|(index, n)| Bound { index, extent: n as i64 }).into();
                next = Expr::Guard { bounds, then: Box::new(next), other: Box::new(Expr::Reg(acc)) };
            }
            b.set(acc, next);
        });
        let mut value = Expr::Reg(acc);
        if let PoolKind::Average { count_include_pad } = o.kind {
            let count = if padded && !count_include_pad {
                let (height, width) = (rows.count(b, y), columns.count(b, xo));
                let count = b.bin(BinOp::MulI, height, width);
                b.un(UnOp::ToF, count)
            } else {
                Expr::F32((o.kernel[0] * o.kernel[1]) as f32)
            };
            value = b.bin(BinOp::DivF, value, count);
        }
        steps::store(b, &o.post, dtype, value, at, 1);
    });
    Ok(b.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::Layout;

    fn pool(kind: PoolKind, kernel: [usize; 2], stride: [usize; 2], pad: [usize; 4], dilation: [usize; 2]) -> Pool2d {
        Pool2d { kind, layout: Layout::Nchw, kernel, stride, pad, dilation, dequant: None, post: vec![] }
    }

    /// 1x2x4x5, with negative values at the borders.
    fn image() -> Tensor {
        Tensor::new([1, 2, 4, 5], &(0..40).map(|i| (i * 7 % 11 - 4) as f32).collect::<Vec<_>>())
    }

    fn run(o: &Pool2d) -> Vec<f32> {
        let x = image();
        let out = infer(o, &[x.ty()]).unwrap();
        eval(o, &[&x], &out).unwrap().to_f32()
    }

    // Expected values by ONNX Runtime 1.32, AveragePool and MaxPool of opset 21 on the same image.
    #[test]
    fn agrees_with_onnx_runtime() {
        let average = |count_include_pad| PoolKind::Average { count_include_pad };
        let (k, s, p, d) = ([3, 2], [2, 2], [1, 1, 1, 0], [1, 1]);
        // Sums over counts: ONNX Runtime's floats are these quotients.
        let exclude: [(i32, i32); 12] =
            [(-3, 1), (2, 1), (9, 4), (0, 1), (4, 3), (2, 3), (5, 1), (-1, 1), (2, 1), (2, 3), (2, 1), (4, 3)];
        let include: [(i32, i32); 12] =
            [(-1, 1), (4, 3), (3, 2), (0, 1), (4, 3), (2, 3), (5, 3), (-2, 3), (4, 3), (1, 3), (2, 1), (4, 3)];
        let quotients = |all: [(i32, i32); 12]| all.map(|(sum, count)| sum as f32 / count as f32);
        assert_eq!(run(&pool(average(false), k, s, p, d)), quotients(exclude));
        assert_eq!(run(&pool(average(true), k, s, p, d)), quotients(include));
        let dilated = [1.5, -1.0, -1.25, 1.75, 0.75, 1.0, -2.0, 1.0, 4.0, 1.5, 1.25, -1.25, 3.25, 0.75, 0.5, -2.0];
        assert_eq!(run(&pool(average(false), [2, 2], [1, 2], [1, 0, 1, 0], [2, 1])), dilated);
        let max = [5.0, 4.0, 3.0, 6.0, 5.0, 5.0, 3.0, 6.0, 6.0, 5.0, 4.0, 3.0, 6.0, 5.0, 4.0, 3.0];
        assert_eq!(run(&pool(PoolKind::Max, [2, 3], [1, 2], [1, 0, 1, 1], [2, 1])), max);
    }

    #[test]
    fn padding_never_wins_a_maximum() {
        let x = Tensor::new([1, 1, 1, 2], &[-7i8, -9]);
        let o = pool(PoolKind::Max, [3, 3], [1, 1], [1, 1, 1, 1], [1, 1]);
        let out = infer(&o, &[x.ty()]).unwrap();
        assert_eq!(out, TensorType::new(DType::I8, [1, 1, 1, 2]));
        assert_eq!(eval(&o, &[&x], &out).unwrap().to_i64(), [-7, -7]);
    }

    #[test]
    fn windows_in_the_padding_are_refused() {
        let x = TensorType::new(DType::F32, [1, 1, 3, 3]);
        let ok =
            |kernel, stride, pad, dilation| infer(&pool(PoolKind::Max, kernel, stride, pad, dilation), &[&x]).is_ok();
        assert!(ok([2, 2], [1, 1], [1, 1, 1, 1], [1, 1]));
        assert!(!ok([2, 2], [1, 1], [2, 1, 1, 1], [1, 1]));
        assert!(!ok([2, 2], [1, 1], [1, 1, 1, 2], [1, 1]));
        // Unreached bottom padding does no harm.
        assert!(ok([2, 2], [4, 4], [0, 0, 2, 2], [1, 1]));
        // Taps 5 apart jump over an image of 3.
        assert!(!ok([2, 1], [1, 1], [2, 0, 2, 0], [5, 1]));
        for (kernel, stride, dilation) in [([0, 1], [1, 1], [1, 1]), ([1, 1], [0, 1], [1, 1]), ([1, 1], [1, 1], [1, 0])]
        {
            assert!(!ok(kernel, stride, [0; 4], dilation), "{kernel:?} {stride:?} {dilation:?}");
        }
        assert!(!ok([usize::MAX, 1], [1, 1], [usize::MAX, 0, usize::MAX, 0], [usize::MAX, 1]));
    }
}
