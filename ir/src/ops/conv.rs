//! Convolution.

use super::steps::{self, Epilogue};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::nest::{Bound, Expr, Index, Nest, NestBuilder, linear};
use crate::op::{Conv2d, Layout};
use crate::scalar::{BinOp, Scalars};
use crate::tensor::Tensor;
use crate::types::TensorType;

/// Dimensions of an activation of a layout: positions of batch, channel, row and column.
pub(super) fn axes(layout: Layout) -> [usize; 4] {
    match layout {
        Layout::Nchw => [0, 1, 2, 3],
        Layout::Nhwc => [0, 3, 1, 2],
    }
}

/// The shape with these extents of batch, channel, row and column.
pub(super) fn shape(layout: Layout, [n, c, h, w]: [usize; 4]) -> Vec<usize> {
    match layout {
        Layout::Nchw => vec![n, c, h, w],
        Layout::Nhwc => vec![n, h, w, c],
    }
}

/// Extents of batch, channel, row and column.
pub(super) fn extents(layout: Layout, shape: &[usize]) -> [usize; 4] {
    axes(layout).map(|a| shape[a])
}

/// Output positions along one axis; `None` where the window does not fit or an attribute is 0.
pub(super) fn positions(size: usize, pads: usize, kernel: usize, dilation: usize, stride: usize) -> Option<usize> {
    let window = dilation.checked_mul(kernel.checked_sub(1)?)?.checked_add(1)?;
    let room = size.checked_add(pads)?.checked_sub(window)?;
    (dilation > 0).then_some(())?;
    Some(room.checked_div(stride)? + 1)
}

/// The accumulator of an activation and a weight type.
fn accumulator(x: DType, w: DType) -> Option<DType> {
    match (x, w) {
        (DType::F32, DType::F32) => Some(DType::F32),
        (DType::I8 | DType::U8 | DType::I16, DType::I8) => Some(DType::I32),
        _ => None,
    }
}

/// Checks x, w and bias of a convolution or matrix product and returns the accumulator's type.
pub(super) fn check_types(op: &'static str, x: DType, w: DType, bias: Option<(&TensorType, usize)>) -> Result<DType> {
    let acc = accumulator(x, w).ok_or_else(|| Error::ty(op, format!("no product of {x} and {w} is defined")))?;
    if let Some((ty, channels)) = bias
        && (ty.dtype != acc || ty.shape != [channels])
    {
        return Err(Error::ty(op, format!("the bias must be {acc}[{channels}], not {ty}")));
    }
    Ok(acc)
}

pub fn infer(o: &Conv2d, inputs: &[&TensorType]) -> Result<TensorType> {
    let op = "conv2d";
    let (x, w) = (inputs[0], inputs[1]);
    if x.rank() != 4 || w.rank() != 4 {
        return Err(Error::ty(op, format!("input {x} and weights {w} must have 4 dimensions")));
    }
    let [n, c, h, wd] = extents(o.layout, &x.shape);
    let [out_c, in_c, kh, kw] = extents(o.layout, &w.shape);
    if o.groups == 0 || in_c.checked_mul(o.groups) != Some(c) || out_c % o.groups != 0 {
        return Err(Error::ty(op, format!("{} groups do not fit input {x} and weights {w}", o.groups)));
    }
    let acc = check_types(op, x.dtype, w.dtype, o.bias.then(|| (inputs[2], out_c)))?;
    if let Some((lo, hi)) = x.dtype.int_range()
        && !(lo..=hi).contains(&o.pad_value)
    {
        return Err(Error::ty(op, format!("pad value {} is no {}", o.pad_value, x.dtype)));
    }
    let sizes = (
        positions(h, o.pad[0].saturating_add(o.pad[2]), kh, o.dilation[0], o.stride[0]),
        positions(wd, o.pad[1].saturating_add(o.pad[3]), kw, o.dilation[1], o.stride[1]),
    );
    let (Some(oh), Some(ow)) = sizes else {
        return Err(Error::ty(op, format!("a {kh}x{kw} window does not fit input {x} under stride {:?}", o.stride)));
    };
    let start = TensorType::new(acc, shape(o.layout, [n, out_c, oh, ow]));
    let own = 2 + o.bias as usize;
    let out = steps::infer(op, &o.post, start.clone(), &inputs[own..])?;
    if out.shape != start.shape {
        return Err(Error::ty(op, format!("an operand of the epilogue is larger than the output {start}")));
    }
    Ok(out)
}

pub fn eval(o: &Conv2d, inputs: &[&Tensor], out: &TensorType) -> Result<Tensor> {
    let acc = check_types("conv2d", inputs[0].dtype(), inputs[1].dtype(), None)?;
    let results = if acc == DType::F32 {
        let bias = if o.bias { inputs[2].to_f32() } else { vec![] };
        let add = |s: f32, x: f32, w: f32| s + x * w;
        convolve(o, inputs, out, &inputs[0].to_f32(), &inputs[1].to_f32(), &bias, 0.0, add)
            .into_iter()
            .map(f32::to_bits)
            .collect()
    } else {
        let ints = |t: &Tensor| t.to_i64().into_iter().map(|v| v as i32).collect::<Vec<_>>();
        let bias = if o.bias { ints(inputs[2]) } else { vec![] };
        let add = |s: i32, x: i32, w: i32| s.wrapping_add(x.wrapping_mul(w));
        convolve(o, inputs, out, &ints(inputs[0]), &ints(inputs[1]), &bias, o.pad_value, add)
            .into_iter()
            .map(|v| v as u32)
            .collect()
    };
    Ok(Epilogue::new(&o.post, acc, &inputs[2 + o.bias as usize..], out).apply(results))
}

/// The accumulators, in row-major order of the output. Sums start from the bias and run over row, column and channel of
/// the window.
#[allow(clippy::too_many_arguments)]
fn convolve<T: Copy + Default>(
    o: &Conv2d,
    inputs: &[&Tensor],
    out: &TensorType,
    x: &[T],
    w: &[T],
    bias: &[T],
    pad: T,
    add: impl Fn(T, T, T) -> T,
) -> Vec<T> {
    let (xt, wt) = (inputs[0].ty(), inputs[1].ty());
    let [_, _, h, wd] = extents(o.layout, &xt.shape);
    let [out_c, in_c, kh, kw] = extents(o.layout, &wt.shape);
    let [n, _, oh, ow] = extents(o.layout, &out.shape);
    let [xn, xc, xh, xw] = axes(o.layout).map(|a| xt.strides()[a]);
    let [wo, wi, wh, ww] = axes(o.layout).map(|a| wt.strides()[a]);
    let [sn, sc, sh, sw] = axes(o.layout).map(|a| out.strides()[a]);
    let per_group = out_c / o.groups;
    let mut results = vec![T::default(); out.elements()];
    for b in 0..n {
        for y in 0..oh {
            for xo in 0..ow {
                for c in 0..out_c {
                    let first = c / per_group * in_c;
                    let mut sum = bias.get(c).copied().unwrap_or_default();
                    for ky in 0..kh {
                        let iy = (y * o.stride[0] + ky * o.dilation[0]).wrapping_sub(o.pad[0]);
                        for kx in 0..kw {
                            let ix = (xo * o.stride[1] + kx * o.dilation[1]).wrapping_sub(o.pad[1]);
                            let inside = iy < h && ix < wd;
                            let at = if inside { b * xn + iy * xh + ix * xw + first * xc } else { 0 };
                            let from = c * wo + ky * wh + kx * ww;
                            for i in 0..in_c {
                                let v = if inside { x[at + i * xc] } else { pad };
                                sum = add(sum, v, w[from + i * wi]);
                            }
                        }
                    }
                    results[b * sn + c * sc + y * sh + xo * sw] = sum;
                }
            }
        }
    }
    results
}

pub fn nest(o: &Conv2d, inputs: &[&TensorType], out: &TensorType) -> Result<Nest> {
    let (x, w) = (inputs[0], inputs[1]);
    let acc = check_types("conv2d", x.dtype, w.dtype, None)?;
    let [_, _, h, wd] = extents(o.layout, &x.shape);
    let [out_c, in_c, kh, kw] = extents(o.layout, &w.shape);
    let x_strides = x.strides();
    let w_strides = w.strides();
    let per_group = out_c / o.groups;
    let float = acc == DType::F32;
    let pad = if float { Expr::F32(0.0) } else { Expr::I32(o.pad_value) };
    let padded = o.pad.iter().any(|&p| p > 0);
    let [n, _, oh, ow] = extents(o.layout, &out.shape);
    let mut b = NestBuilder::new(inputs, out);
    let order: Vec<usize> = match o.layout {
        Layout::Nchw => vec![n, o.groups, per_group, oh, ow],
        Layout::Nhwc => vec![n, oh, ow, o.groups, per_group],
    };
    b.repeat_shape(&order, |b, i| {
        let (n, g, p, y, xo) = match o.layout {
            Layout::Nchw => (&i[0], &i[1], &i[2], &i[3], &i[4]),
            Layout::Nhwc => (&i[0], &i[3], &i[4], &i[1], &i[2]),
        };
        let channel = p.clone().plus_scaled(g, per_group as i64);
        let start = if o.bias {
            b.load(2, channel.clone())
        } else if float {
            Expr::F32(0.0)
        } else {
            Expr::I32(0)
        };
        let sum = b.let_(start);
        b.repeat_shape(&[kh, kw, in_c], |b, k| {
            let at = |out: &Index, tap: &Index, d: usize| {
                Index::constant(-(o.pad[d] as i64))
                    .plus_scaled(out, o.stride[d] as i64)
                    .plus_scaled(tap, o.dilation[d] as i64)
            };
            let (iy, ix) = (at(y, &k[0], 0), at(xo, &k[1], 1));
            let ic = k[2].clone().plus_scaled(g, in_c as i64);
            let from = shape_of(o.layout, [n.clone(), ic, iy.clone(), ix.clone()]);
            let mut value = b.load(0, linear(&from, &x_strides));
            if padded {
                let bounds = vec![Bound { index: iy, extent: h as i64 }, Bound { index: ix, extent: wd as i64 }];
                value = Expr::Guard { bounds, then: Box::new(value), other: Box::new(pad.clone()) };
            }
            let from = shape_of(o.layout, [channel.clone(), k[2].clone(), k[0].clone(), k[1].clone()]);
            let weight = b.load(1, linear(&from, &w_strides));
            let next = multiply_add(b, float, Expr::Reg(sum), value, weight);
            b.set(sum, next);
        });
        let at = shape_of(o.layout, [n.clone(), channel, y.clone(), xo.clone()]);
        steps::store(b, &o.post, acc, Expr::Reg(sum), &at, 2 + o.bias as usize);
    });
    Ok(b.finish())
}

/// `sum + a * b`, rounded twice on floats.
pub(super) fn multiply_add(b: &mut NestBuilder, float: bool, sum: Expr, x: Expr, w: Expr) -> Expr {
    let (mul, add) = if float { (BinOp::MulF, BinOp::AddF) } else { (BinOp::MulI, BinOp::AddI) };
    let product = b.bin(mul, x, w);
    b.bin(add, sum, product)
}

/// Indices of batch, channel, row and column in a layout's order.
pub(super) fn shape_of(layout: Layout, [n, c, h, w]: [Index; 4]) -> Vec<Index> {
    match layout {
        Layout::Nchw => vec![n, c, h, w],
        Layout::Nhwc => vec![n, h, w, c],
    }
}
