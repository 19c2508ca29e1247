//! Constants, shapes, and operators that only change the shape.

use crate::cx::Cx;
use crate::error::{Fault, Result};
use crate::import::sparse_fault;
use crate::node::{Node, axes, axis};
use crate::tensor::{self, MAX_ELEMENTS, check_size, decode};
use mcc_ir::{DType, Tensor, TensorType, ValueId};

/// Exactly one of the attributes holds the value.
pub fn constant(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    if n.attributes.len() != 1 {
        return Err(Fault::node(format!("it has {} attributes, must have one", n.attributes.len())));
    }
    let tensor = match n.attributes[0].0 {
        "value" => {
            let proto = n.tensor("value")?.ok_or_else(|| Fault::node("attribute value is missing"))?;
            decode(proto, &mut cx.files)?
        }
        "value_float" => Tensor::scalar(n.float_or("value_float", 0.0)?),
        "value_floats" => {
            let values = n.floats("value_floats")?.unwrap_or_default();
            Tensor::new([values.len()], values)
        }
        "value_int" => Tensor::new([], &[n.int_or("value_int", 0)?]),
        "value_ints" => {
            let values = n.ints("value_ints")?.unwrap_or_default();
            Tensor::new([values.len()], values)
        }
        "sparse_value" => return Err(sparse_fault(&n.origin[0])),
        _ => return Err(Fault::dtype("it holds text", "remove text from the model")),
    };
    Ok(vec![cx.constant(tensor, n)])
}

/// A splat stays a broadcast scalar, so that its size costs nothing.
pub fn constant_of_shape(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let shape = tensor::shape(&cx.ints(n.input(0)?, "the shape")?)?;
    let value = match n.tensor("value")? {
        Some(t) => decode(t, &mut cx.files)?,
        None => Tensor::scalar(0.0),
    };
    if value.ty().elements() != 1 {
        return Err(Fault::node(format!("its value is {}, not one element", value.ty())));
    }
    let value = cx.constant(value.reshaped([]), n);
    Ok(vec![cx.broadcast(value, shape, n)?])
}

pub fn range(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let mut bounds = vec![];
    for (i, what) in ["the start", "the limit", "the step"].into_iter().enumerate() {
        let t = cx.known(n.input(i)?, what)?;
        if t.ty().elements() != 1 {
            return Err(Fault::node(format!("{what} is {}, not a scalar", t.ty())));
        }
        bounds.push(t.clone());
    }
    let dtype = bounds[0].dtype();
    if bounds.iter().any(|t| t.dtype() != dtype) {
        return Err(Fault::node("start, limit and step differ in their element types"));
    }
    let counted = |count: f64| -> Result<usize> {
        if !(0.0..=MAX_ELEMENTS as f64).contains(&count) {
            return Err(Fault::limit(format!("a range of {count} elements; at most {MAX_ELEMENTS} are supported")));
        }
        cx.charge(count as usize * dtype.bits() / 8)?;
        Ok(count as usize)
    };
    let tensor = match dtype {
        DType::F32 => {
            let [start, limit, step] = [0, 1, 2].map(|i| bounds[i].to_f64()[0]);
            let count = counted(((limit - start) / step).ceil().max(0.0))?;
            // NaN bounds were counted as 0 elements by `max`.
            let values: Vec<f64> = (0..count).map(|i| start + i as f64 * step).collect();
            Tensor::from_f64(TensorType::new(dtype, [count]), &values)
        }
        DType::I64 | DType::I32 | DType::I16 => {
            let [start, limit, step] = [0, 1, 2].map(|i| bounds[i].to_i64()[0] as i128);
            if step == 0 {
                return Err(Fault::node("the step is 0"));
            }
            let span = limit - start;
            let count = if (span > 0) == (step > 0) { (span.abs() + step.abs() - 1) / step.abs() } else { 0 };
            let count = counted(count as f64)? as i128;
            let values: Vec<i64> = (0..count).map(|i| (start + i * step) as i64).collect();
            Tensor::from_i64(TensorType::new(dtype, [values.len()]), &values)
        }
        d => return Err(Fault::dtype(format!("a range of {d}"), "supported: f32, i64, i32, i16")),
    };
    Ok(vec![cx.constant(tensor, n)])
}

/// Shapes are static, so this is a constant. Since opset 15 it may be cut by `start` and `end`.
pub fn shape(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let shape = cx.shape(n.input(0)?);
    let rank = shape.len() as i64;
    let clamp = |v: i64| (if v < 0 { v.saturating_add(rank) } else { v }).clamp(0, rank) as usize;
    let (start, end) = (clamp(n.int_or("start", 0)?), clamp(n.int_or("end", rank)?));
    let dims: Vec<i64> = shape[start..end.max(start)].iter().map(|&d| d as i64).collect();
    Ok(vec![cx.constant(Tensor::new([dims.len()], &dims), n)])
}

pub fn size(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let elements = cx.ty(n.input(0)?).elements() as i64;
    Ok(vec![cx.constant(Tensor::new([], &[elements]), n)])
}

/// 0 copies a dimension unless `allowzero`, one -1 is what is left.
pub fn reshape(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    let wanted = cx.ints(n.input(1)?, "the shape")?;
    let from = cx.shape(x);
    let allow_zero = n.flag("allowzero", false)?;
    let misfit = || Fault::node(format!("{} cannot be reshaped to {:?}", cx.ty(x), &wanted[..wanted.len().min(32)]));
    let mut shape = Vec::with_capacity(wanted.len().min(32));
    let mut open = None;
    for (i, &d) in wanted.iter().enumerate() {
        shape.push(match d {
            0 if !allow_zero => *from.get(i).ok_or_else(misfit)?,
            -1 if open.is_none() => {
                open = Some(i);
                1
            }
            d => usize::try_from(d).map_err(|_| misfit())?,
        });
    }
    tensor::shape(&shape.iter().map(|&d| i64::try_from(d).unwrap_or(i64::MAX)).collect::<Vec<_>>())?;
    if let Some(i) = open {
        let known: usize = shape.iter().product();
        let elements = cx.ty(x).elements();
        if known == 0 || !elements.is_multiple_of(known) {
            return Err(misfit());
        }
        shape[i] = elements / known;
    }
    if shape.iter().product::<usize>() != cx.ty(x).elements() {
        return Err(misfit());
    }
    Ok(vec![cx.reshape(x, shape, n)?])
}

pub fn flatten(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    let from = cx.shape(x);
    let rank = from.len() as i64;
    let axis = n.int_or("axis", 1)?;
    let at = if axis < 0 { axis.saturating_add(rank) } else { axis };
    let at = usize::try_from(at).ok().filter(|&at| at <= from.len());
    let at = at.ok_or_else(|| Fault::node(format!("axis {axis} is not one of {}", cx.ty(x))))?;
    let shape = [from[..at].iter().product(), from[at..].iter().product()];
    Ok(vec![cx.reshape(x, shape, n)?])
}

/// The axes of Squeeze and Unsqueeze: an attribute before opset 13, an input since.
fn listed_axes(cx: &Cx, n: &Node) -> Result<Option<Vec<i64>>> {
    match (n.ints("axes")?, n.optional(1)) {
        (Some(list), _) => Ok(Some(list.to_vec())),
        (None, Some(v)) => Ok(Some(cx.ints(v, "the list of axes")?)),
        (None, None) => Ok(None),
    }
}

pub fn squeeze(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    let from = cx.shape(x);
    let drop = match listed_axes(cx, n)? {
        Some(list) => axes(&list, from.len())?,
        None => (0..from.len()).filter(|&a| from[a] == 1).collect(),
    };
    if let Some(&a) = drop.iter().find(|&&a| from[a] != 1) {
        return Err(Fault::node(format!("axis {a} of {} is not 1", cx.ty(x))));
    }
    let shape: Vec<usize> = (0..from.len()).filter(|a| !drop.contains(a)).map(|a| from[a]).collect();
    Ok(vec![cx.reshape(x, shape, n)?])
}

pub fn unsqueeze(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    let from = cx.shape(x);
    let list = listed_axes(cx, n)?.ok_or_else(|| Fault::node("it has no axes"))?;
    let rank = from.len() + list.len();
    if rank > tensor::MAX_RANK {
        return Err(Fault::limit(format!("a tensor of {rank} dimensions; at most {} are supported", tensor::MAX_RANK)));
    }
    let new = axes(&list, rank)?;
    let mut rest = from.into_iter();
    let shape: Vec<usize> = (0..rank).map(|a| if new.contains(&a) { 1 } else { rest.next().unwrap_or(1) }).collect();
    check_size(&shape)?;
    Ok(vec![cx.reshape(x, shape, n)?])
}

pub fn transpose(cx: &mut Cx, n: &Node) -> Result<Vec<ValueId>> {
    let x = n.input(0)?;
    let rank = cx.rank(x);
    let perm = match n.ints("perm")? {
        Some(list) => {
            let perm = list.iter().map(|&a| axis(a, rank)).collect::<Result<Vec<_>>>()?;
            if axes(list, rank)?.len() != rank {
                return Err(Fault::node(format!("perm {list:?} does not name every axis of {}", cx.ty(x))));
            }
            perm
        }
        None => (0..rank).rev().collect(),
    };
    Ok(vec![cx.transpose(x, perm, n)?])
}
