//! Resampling.
//!
//! Every axis whose extent changes, or whose scale is not 1, has a list of taps for each output position: source
//! position and weight. Coordinates are computed in `f32`, in ONNX Runtime's order of operations; they decide
//! which element is read, so another precision would be another operator. Evaluator and nest share the taps.
//!
//! Linear mode is the product of the axes: an output is the sum over all corners of (weight of the first such axis *
//! weight of the second * ...) * element, low before high, the last axis fastest.

use super::data::{pick, refuse_wide, separable};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::nest::{Expr, Index, Nest, NestBuilder, linear};
use crate::op::{CoordinateMode, NearestMode, Op, Resize, ResizeMode};
use crate::scalar::{BinOp, Scalars};
use crate::tensor::Tensor;
use crate::types::TensorType;

/// Largest number of axes that linear mode interpolates along: 2 to this power elements are read for each output.
const MAX_LINEAR_AXES: usize = 3;

pub fn infer(o: &Resize, inputs: &[&TensorType]) -> Result<TensorType> {
    let wrong = |reason: String| Err(Error::ty("resize", reason));
    let x = inputs[0];
    if o.shape.len() != x.rank() || o.scales.len() != x.rank() {
        return wrong(format!("{} extents and {} scales do not fit {x}", o.shape.len(), o.scales.len()));
    }
    if let Some(scale) = o.scales.iter().find(|s| !(s.0 > 0.0 && s.0.is_finite())) {
        return wrong(format!("{scale} is no scale"));
    }
    if let Some(d) = (0..x.rank()).find(|&d| x.shape[d] == 0 && o.shape[d] > 0) {
        return wrong(format!("axis {d} of {x} has no element"));
    }
    if o.mode == ResizeMode::Linear {
        if x.dtype != DType::F32 {
            return wrong(format!("linear mode takes f32 only, not {x}"));
        }
        if (0..x.rank()).filter(|&d| changes(o, &x.shape, d)).count() > MAX_LINEAR_AXES {
            return wrong(format!("linear mode changes at most {MAX_LINEAR_AXES} axes"));
        }
    }
    Ok(TensorType::new(x.dtype, o.shape.clone()))
}

fn changes(o: &Resize, from: &[usize], d: usize) -> bool {
    o.shape[d] != from[d] || o.scales[d].0 != 1.0
}

/// The source coordinate of output position `i` of an axis that goes from `from` to `to` elements.
fn coordinate(mode: CoordinateMode, i: usize, scale: f32, from: usize, to: usize) -> f32 {
    let at = i as f32;
    match mode {
        CoordinateMode::PytorchHalfPixel if to == 1 => 0.0,
        CoordinateMode::HalfPixel | CoordinateMode::PytorchHalfPixel => (at + 0.5) / scale - 0.5,
        CoordinateMode::AlignCorners if to == 1 => 0.0,
        CoordinateMode::AlignCorners => at * (from - 1) as f32 / (to - 1) as f32,
        CoordinateMode::Asymmetric => at / scale,
    }
}

/// A source position and its weight.
type Tap = (usize, f32);

/// The taps of every output position along axis `d`, one after the other, and how many each has: one in nearest
/// mode, two in linear mode.
fn taps(o: &Resize, from: &[usize], d: usize) -> (Vec<Tap>, usize) {
    let (from, to) = (from[d], o.shape[d]);
    let coordinates = (0..to).map(|i| coordinate(o.coordinates, i, o.scales[d].0, from, to));
    let last = from.saturating_sub(1);
    match o.mode {
        ResizeMode::Nearest(mode) => {
            let nearest = |x: f32| match mode {
                NearestMode::RoundPreferFloor if x == x.floor() + 0.5 => x.floor(),
                NearestMode::RoundPreferFloor | NearestMode::RoundPreferCeil => x.round(),
                NearestMode::Floor => x.floor(),
                NearestMode::Ceil => x.ceil(),
            };
            // The conversion saturates, at 0 below.
            (coordinates.map(|x| ((nearest(x) as usize).min(last), 1.0)).collect(), 1)
        }
        ResizeMode::Linear => {
            let pair = |x: f32| {
                let x = x.min(last as f32).max(0.0);
                let low = (x as usize).min(last);
                let high = (low + 1).min(last);
                if low == high {
                    return [(low, 0.5), (high, 0.5)];
                }
                [(low, (x - high as f32).abs()), (high, (x - low as f32).abs())]
            };
            (coordinates.flat_map(pair).collect(), 2)
        }
    }
}

pub fn eval(o: &Resize, inputs: &[&Tensor], out: &TensorType) -> Result<Tensor> {
    let x = inputs[0];
    let strides = &x.ty().strides();
    let axes: Vec<(Vec<Tap>, usize)> = (0..out.rank())
        .map(|d| match changes(o, x.shape(), d) {
            true => taps(o, x.shape(), d),
            false => ((0..out.shape[d]).map(|i| (i, 1.0)).collect(), 1),
        })
        .collect();
    if o.mode != ResizeMode::Linear {
        let tables: Vec<Vec<Option<usize>>> = axes
            .iter()
            .zip(strides)
            .map(|((taps, _), stride)| taps.iter().map(|(at, _)| Some(at * stride)).collect())
            .collect();
        return pick(inputs, out, separable(&tables).flatten().map(|at| (0, at)));
    }
    let all = x.to_f32();
    let out_strides = out.strides();
    let mut results = Vec::with_capacity(out.elements());
    for i in 0..out.elements() {
        let at: Vec<usize> = out_strides.iter().zip(&out.shape).map(|(s, n)| i / s % n).collect();
        let mut corners: Vec<(usize, Option<f32>)> = vec![(0, None)];
        for (d, (taps, count)) in axes.iter().enumerate() {
            let here = &taps[at[d] * count..(at[d] + 1) * count];
            let times = &|w: Option<f32>, by: f32| if *count == 1 { w } else { Some(w.map_or(by, |w| w * by)) };
            corners = corners
                .into_iter()
                .flat_map(|(from, w)| here.iter().map(move |(t, by)| (from + t * strides[d], times(w, *by))))
                .collect();
        }
        let terms = corners.into_iter().map(|(from, w)| w.map_or(all[from], |w| w * all[from]));
        results.push(terms.reduce(|sum, term| sum + term).unwrap_or_default());
    }
    Ok(Tensor::new(out.shape.clone(), &results))
}

/// A tap of all axes so far: what it adds to the affine position, and its weight.
#[derive(Clone)]
struct Corner {
    offset: Option<Expr>,
    weight: Option<Expr>,
}

pub fn nest(o: &Resize, inputs: &[&TensorType], out: &TensorType) -> Result<Nest> {
    refuse_wide(&Op::Resize(o.clone()), inputs)?;
    let x = inputs[0];
    let strides = x.strides();
    let mut b = NestBuilder::new(inputs, out);
    let axes: Vec<Axis> = (0..out.rank())
        .map(|d| {
            let (extent, stride) = (out.shape[d], strides[d]);
            if !changes(o, &x.shape, d) {
                return Axis { extent, stride, tables: None };
            }
            let (taps, count) = taps(o, &x.shape, d);
            let offsets: Vec<i32> = taps.iter().map(|(at, _)| (at * stride) as i32).collect();
            let offsets = b.table(Tensor::new([extent, count], &offsets));
            let weights = (count > 1).then(|| {
                let weights: Vec<f32> = taps.iter().map(|(_, w)| *w).collect();
                b.table(Tensor::new([extent, count], &weights))
            });
            Axis { extent, stride, tables: Some((offsets, weights)) }
        })
        .collect();
    loops(&mut b, &axes, vec![], Index::default(), vec![Corner { offset: None, weight: None }]);
    Ok(b.finish())
}

struct Axis {
    extent: usize,
    /// Elements between neighbours of the input.
    stride: usize,
    /// Arguments with the offsets of the taps and, in linear mode, their weights.
    tables: Option<(usize, Option<usize>)>,
}

/// The loops over the axes from `at.len()` on, each table being read in the loop of its axis.
fn loops(b: &mut NestBuilder, axes: &[Axis], at: Vec<Index>, affine: Index, corners: Vec<Corner>) {
    let Some(axis) = axes.get(at.len()) else {
        let mut terms = corners.into_iter().map(|corner| {
            let from = Index { dynamic: corner.offset.map(Box::new), ..affine.clone() };
            (Expr::Load { arg: 0, index: from }, corner.weight)
        });
        let mut sum = None;
        for (value, weight) in &mut terms {
            let term = match weight {
                Some(w) => b.bin(BinOp::MulF, w, value),
                None => value,
            };
            sum = Some(match sum {
                Some(sum) => b.bin(BinOp::AddF, sum, term),
                None => term,
            });
        }
        let index = linear(&at, &b.arg(b.output()).strides());
        return b.store(index, sum.expect("there is at least one corner"));
    };
    b.repeat(axis.extent, |b, i| {
        let (affine, corners) = match axis.tables {
            None => (affine.plus_scaled(&i, axis.stride as i64), corners),
            Some((offsets, weights)) => {
                let count = b.arg(offsets).shape[1];
                let taps: Vec<Corner> = (0..count)
                    .map(|k| {
                        let entry = Index::constant(k as i64).plus_scaled(&i, count as i64);
                        let offset = b.load(offsets, entry.clone());
                        let weight = weights.map(|arg| b.load(arg, entry));
                        Corner { offset: Some(b.share(offset)), weight: weight.map(|w| b.share(w)) }
                    })
                    .collect();
                let mut joined = vec![];
                for corner in &corners {
                    for tap in &taps {
                        let offset = join(b, BinOp::AddI, corner.offset.clone(), tap.offset.clone());
                        let weight = join(b, BinOp::MulF, corner.weight.clone(), tap.weight.clone());
                        joined.push(Corner { offset, weight });
                    }
                }
                (affine, joined)
            }
        };
        loops(b, axes, [at, vec![i]].concat(), affine, corners);
    });
}

/// `op` of two values where both exist, else the one that does.
fn join(b: &mut NestBuilder, op: BinOp, left: Option<Expr>, right: Option<Expr>) -> Option<Expr> {
    match (left, right) {
        (Some(left), Some(right)) => {
            let value = b.bin(op, left, right);
            Some(b.share(value))
        }
        (left, right) => left.or(right),
    }
}
