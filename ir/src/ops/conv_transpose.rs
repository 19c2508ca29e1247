//! Transposed convolution, in gather form: each output element sums over the taps whose input position is a whole
//! number of strides away.
//!
//! The dimensions of the weights are those of an activation of the layout, with the input channel for the batch
//! and the output channel within its group for the channel.

use super::conv::{axes, check_types, extents, multiply_add, shape, shape_of};
use super::steps::{self, Epilogue};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::nest::{Bound, Expr, Index, Nest, NestBuilder, linear};
use crate::op::{ConvTranspose2d, Layout};
use crate::scalar::{BinOp, Scalars};
use crate::tensor::Tensor;
use crate::types::TensorType;

const OP: &str = "conv_transpose2d";

/// The extent along axis `d`: (size - 1) * stride + (kernel - 1) * dilation + 1 + output_pad - pads.
///
/// `None` where an attribute is 0, nothing is left, or a number exceeds `i32`.
fn output_size(o: &ConvTranspose2d, d: usize, size: usize, kernel: usize) -> Option<usize> {
    if o.stride[d] == 0 || o.dilation[d] == 0 {
        return None;
    }
    let spread = size.checked_sub(1)?.checked_mul(o.stride[d])?;
    let window = kernel.checked_sub(1)?.checked_mul(o.dilation[d])?;
    let full = spread.checked_add(window)?.checked_add(1)?.checked_add(o.output_pad[d])?;
    let kept = full.checked_sub(o.pad[d])?.checked_sub(o.pad[d + 2])?;
    (kept > 0 && full.max(o.stride[d]).max(o.dilation[d]) <= i32::MAX as usize).then_some(kept)
}

pub fn infer(o: &ConvTranspose2d, inputs: &[&TensorType]) -> Result<TensorType> {
    let (x, w) = (inputs[0], inputs[1]);
    if x.rank() != 4 || w.rank() != 4 {
        return Err(Error::ty(OP, format!("input {x} and weights {w} must have 4 dimensions")));
    }
    let [n, c, h, wd] = extents(o.layout, &x.shape);
    let [in_c, per_group, kh, kw] = axes(o.layout).map(|a| w.shape[a]);
    if o.groups == 0 || in_c != c || c == 0 || !c.is_multiple_of(o.groups) {
        return Err(Error::ty(OP, format!("{} groups do not fit input {x} and weights {w}", o.groups)));
    }
    let out_c = per_group.checked_mul(o.groups).ok_or_else(|| Error::ty(OP, "too many output channels"))?;
    let acc = check_types(OP, x.dtype, w.dtype, o.bias.then(|| (inputs[2], out_c)))?;
    if acc != DType::F32 {
        return Err(Error::ty(OP, format!("takes f32 only, not {x}")));
    }
    let (Some(oh), Some(ow)) = (output_size(o, 0, h, kh), output_size(o, 1, wd, kw)) else {
        let reason = format!(
            "a {kh}x{kw} kernel on {x} gives no output under stride {:?}, dilation {:?}, pad {:?} and output pad {:?}",
            o.stride, o.dilation, o.pad, o.output_pad
        );
        return Err(Error::ty(OP, reason));
    };
    let start = TensorType::new(acc, shape(o.layout, [n, out_c, oh, ow]));
    let out = steps::infer(OP, &o.post, start.clone(), &inputs[2 + o.bias as usize..])?;
    if out.shape != start.shape {
        return Err(Error::ty(OP, format!("an operand of the epilogue is larger than the output {start}")));
    }
    Ok(out)
}

/// The input position along axis `d` that tap `k` carries to output position `at`, if there is one.
fn source(o: &ConvTranspose2d, d: usize, at: usize, k: usize, size: usize) -> Option<usize> {
    let spread = (at + o.pad[d]).checked_sub(k * o.dilation[d])?;
    let from = spread / o.stride[d];
    (spread.is_multiple_of(o.stride[d]) && from < size).then_some(from)
}

/// Sums start from the bias and run over row, column and input channel of the kernel; taps without input are left
/// out.
pub fn eval(o: &ConvTranspose2d, inputs: &[&Tensor], out: &TensorType) -> Result<Tensor> {
    let (xt, wt) = (inputs[0].ty(), inputs[1].ty());
    let (x, w) = (inputs[0].to_f32(), inputs[1].to_f32());
    let bias = if o.bias { inputs[2].to_f32() } else { vec![] };
    let [n, c, h, wd] = extents(o.layout, &xt.shape);
    let [_, per_group, kh, kw] = axes(o.layout).map(|a| wt.shape[a]);
    let [_, out_c, oh, ow] = extents(o.layout, &out.shape);
    let [xn, xc, xh, xw] = axes(o.layout).map(|a| xt.strides()[a]);
    let [wi, wo, wh, ww] = axes(o.layout).map(|a| wt.strides()[a]);
    let [sn, sc, sh, sw] = axes(o.layout).map(|a| out.strides()[a]);
    let in_group = c / o.groups;
    let mut results = vec![0; out.elements()];
    for b in 0..n {
        for oc in 0..out_c {
            let (g, p) = (oc / per_group, oc % per_group);
            for y in 0..oh {
                for xo in 0..ow {
                    let mut sum = bias.get(oc).copied().unwrap_or_default();
                    for ky in 0..kh {
                        let Some(iy) = source(o, 0, y, ky, h) else { continue };
                        for kx in 0..kw {
                            let Some(ix) = source(o, 1, xo, kx, wd) else { continue };
                            for ic in g * in_group..(g + 1) * in_group {
                                let value = x[b * xn + ic * xc + iy * xh + ix * xw];
                                sum += value * w[ic * wi + p * wo + ky * wh + kx * ww];
                            }
                        }
                    }
                    results[b * sn + oc * sc + y * sh + xo * sw] = sum.to_bits();
                }
            }
        }
    }
    Ok(Epilogue::new(&o.post, DType::F32, &inputs[2 + o.bias as usize..], out).apply(results))
}

pub fn nest(o: &ConvTranspose2d, inputs: &[&TensorType], out: &TensorType) -> Result<Nest> {
    let (x, w) = (inputs[0], inputs[1]);
    let [n, c, h, wd] = extents(o.layout, &x.shape);
    let [_, per_group, kh, kw] = axes(o.layout).map(|a| w.shape[a]);
    let [_, _, oh, ow] = extents(o.layout, &out.shape);
    let [xn, xc, xh, xw] = axes(o.layout).map(|a| x.strides()[a] as i64);
    let [wi, wo, wh, ww] = axes(o.layout).map(|a| w.strides()[a]);
    let in_group = c / o.groups;
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
        let start = if o.bias { b.load(2, channel.clone()) } else { Expr::F32(0.0) };
        let sum = b.let_(start);
        b.repeat(kh, |b, ky| {
            let (rows, iy) = reached(b, o, 0, y, &ky, h);
            b.repeat(kw, |b, kx| {
                let (columns, ix) = reached(b, o, 1, xo, &kx, wd);
                // Where the bounds hold the clamps do nothing; they let the verifier see that the load stays inside.
                let iy = b.clamp_i(iy.clone(), 0, h as i32 - 1);
                let ix = b.clamp_i(ix, 0, wd as i32 - 1);
                let row = b.bin(BinOp::MulI, iy, Expr::I32(xh as i32));
                let column = b.bin(BinOp::MulI, ix, Expr::I32(xw as i32));
                let pixel = b.bin(BinOp::AddI, row, column);
                let pixel = b.share(pixel);
                b.repeat(in_group, |b, ic| {
                    let ic = ic.plus_scaled(g, in_group as i64);
                    let mut from = Index::default().plus_scaled(n, xn).plus_scaled(&ic, xc);
                    from.dynamic = Some(Box::new(pixel.clone()));
                    let value = b.load(0, from);
                    let weight = b.load(1, linear(&[ic, p.clone(), ky.clone(), kx.clone()], &[wi, wo, wh, ww]));
                    let then = multiply_add(b, true, Expr::Reg(sum), value, weight);
                    let bounds = [&rows[..], &columns[..]].concat();
                    let next = Expr::Guard { bounds, then: Box::new(then), other: Box::new(Expr::Reg(sum)) };
                    b.set(sum, next);
                });
            });
        });
        let at = shape_of(o.layout, [n.clone(), channel, y.clone(), xo.clone()]);
        steps::store(b, &o.post, DType::F32, Expr::Reg(sum), &at, 2 + o.bias as usize);
    });
    Ok(b.finish())
}

/// The input position along axis `d` that tap `k` carries to output position `at`, and the bounds under which it
/// is one: the division by the stride leaves no rest, and the quotient lies inside the input.
fn reached(
    b: &mut NestBuilder,
    o: &ConvTranspose2d,
    d: usize,
    at: &Index,
    k: &Index,
    size: usize,
) -> (Vec<Bound>, Expr) {
    let spread = at.clone().offset(o.pad[d] as i64).plus_scaled(k, -(o.dilation[d] as i64));
    let stride = o.stride[d] as i32;
    if stride == 1 {
        return (vec![Bound { index: spread.clone(), extent: size as i64 }], Expr::Index(spread));
    }
    let from = b.bin(BinOp::DivI, Expr::Index(spread.clone()), Expr::I32(stride));
    let from = b.share(from);
    let taken = b.bin(BinOp::MulI, from.clone(), Expr::I32(-stride));
    let rest = Index { dynamic: Some(Box::new(taken)), ..spread };
    let inside = Index { dynamic: Some(Box::new(from.clone())), ..Index::default() };
    (vec![Bound { index: rest, extent: 1 }, Bound { index: inside, extent: size as i64 }], from)
}
