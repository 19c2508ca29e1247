//! Resampling.

use crate::cx::Cx;
use crate::error::{Fault, Result, quote};
use crate::node::{Node, axes, axis};
use crate::tensor::{MAX_ELEMENTS, check_size};
use mcc_ir::ValueId;
use mcc_ir::op::{CoordinateMode, NearestMode, Op, Resize, ResizeMode};
use mcc_ir::types::F32;

/// Opset 10 has the rules of Upsample; opset 11 brought coordinate modes, sizes, and inputs of their own.
pub fn resize(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    if n.opset < 11 {
        return upsample(cx, n);
    }
    let x = n.input(0)?;
    let coordinates = match n.text_or("coordinate_transformation_mode", "half_pixel")? {
        "half_pixel" => CoordinateMode::HalfPixel,
        "pytorch_half_pixel" => CoordinateMode::PytorchHalfPixel,
        "align_corners" => CoordinateMode::AlignCorners,
        "asymmetric" => CoordinateMode::Asymmetric,
        other => {
            return Err(Fault::form(
                format!("coordinate_transformation_mode {}", quote(other)),
                "supported: half_pixel, pytorch_half_pixel, align_corners, asymmetric",
            ));
        }
    };
    let nearest = match n.text_or("nearest_mode", "round_prefer_floor")? {
        "round_prefer_floor" => NearestMode::RoundPreferFloor,
        "round_prefer_ceil" => NearestMode::RoundPreferCeil,
        "floor" => NearestMode::Floor,
        "ceil" => NearestMode::Ceil,
        other => return Err(Fault::node(format!("nearest_mode {} is not defined", quote(other)))),
    };
    let mode = mode(n, nearest)?;
    let policy = n.text_or("keep_aspect_ratio_policy", "stretch")?;
    if policy != "stretch" {
        let reason = format!("keep_aspect_ratio_policy {}", quote(policy));
        return Err(Fault::form(reason, "give the sizes themselves, with policy stretch"));
    }
    if mode == ResizeMode::Linear && (n.flag("antialias", false)? || n.flag("exclude_outside", false)?) {
        return Err(Fault::form("antialias or exclude_outside is set", "resize without them"));
    }
    let rank = cx.rank(x);
    let list = match n.ints("axes")? {
        Some(list) => {
            axes(list, rank)?;
            list.iter().map(|&a| axis(a, rank)).collect::<Result<Vec<usize>>>()?
        }
        None => (0..rank).collect(),
    };
    // An empty tensor stands for an input left out.
    let given = |i: usize| n.optional(i).filter(|v| cx.ty(*v).elements() > 0);
    let shape = cx.shape(x);
    let mut scales = vec![1f32; rank];
    let mut out = shape.clone();
    match (given(2), given(3)) {
        (Some(v), None) => {
            for (a, s) in paired(&list, cx.floats(v, "the list of scales")?)? {
                (scales[a], out[a]) = (s, scaled(shape[a], s)?);
            }
        }
        (None, Some(v)) => {
            for (a, size) in paired(&list, cx.ints(v, "the list of sizes")?)? {
                let size = usize::try_from(size).ok().filter(|s| (1..=MAX_ELEMENTS).contains(s));
                out[a] = size.ok_or_else(|| Fault::node("a size is out of range"))?;
                scales[a] = out[a] as f32 / shape[a] as f32;
            }
        }
        _ => return Err(Fault::node("exactly one of scales and sizes must be given")),
    }
    emit(cx, n, x, out, scales, mode, coordinates)
}

/// Scales were an attribute before opset 9. Coordinates are divided by the scale and, for nearest, rounded down.
pub fn upsample(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    let scales = match n.floats("scales")? {
        Some(list) => list.to_vec(),
        None => cx.floats(n.input(1)?, "the list of scales")?,
    };
    let shape = cx.shape(x);
    let list: Vec<usize> = (0..shape.len()).collect();
    let mut out = shape.clone();
    for (a, s) in paired(&list, scales.clone())? {
        out[a] = scaled(shape[a], s)?;
    }
    let mode = mode(n, NearestMode::Floor)?;
    emit(cx, n, x, out, scales, mode, CoordinateMode::Asymmetric)
}

fn mode(n: &Node, nearest: NearestMode) -> Result<ResizeMode> {
    match n.text_or("mode", "nearest")? {
        "nearest" => Ok(ResizeMode::Nearest(nearest)),
        "linear" | "bilinear" => Ok(ResizeMode::Linear),
        other => Err(Fault::form(format!("mode {}", quote(other)), "supported: nearest, linear")),
    }
}

fn paired<T>(axes: &[usize], values: Vec<T>) -> Result<Vec<(usize, T)>> {
    match values.len() == axes.len() {
        true => Ok(axes.iter().copied().zip(values).collect()),
        false => Err(Fault::node(format!("{} scales or sizes for {} axes", values.len(), axes.len()))),
    }
}

/// floor(size * scale), computed as ONNX Runtime does, in f32.
fn scaled(size: usize, scale: f32) -> Result<usize> {
    let out = (size as f32 * scale).floor();
    match scale > 0.0 && (1.0..=MAX_ELEMENTS as f32).contains(&out) {
        true => Ok(out as usize),
        false => Err(Fault::node(format!("scale {scale} of an axis of {size} is out of range"))),
    }
}

fn emit(
    cx: &mut Cx,
    n: &Node,
    x: ValueId,
    shape: Vec<usize>,
    scales: Vec<f32>,
    mode: ResizeMode,
    coordinates: CoordinateMode,
) -> Result<Vec<ValueId>> {
    check_size(&shape)?;
    if scales.iter().all(|&s| s == 1.0) {
        return Ok(vec![x]);
    }
    let scales = scales.into_iter().map(F32).collect();
    Ok(vec![cx.add(Op::Resize(Resize { shape, scales, mode, coordinates }), vec![x], &n.origin)?])
}
