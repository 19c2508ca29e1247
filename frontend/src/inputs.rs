//! The graph's inputs: element types, and shapes made static by the user's options.

use crate::ImportOptions;
use crate::cx::Cx;
use crate::error::{Diagnostic, Error, Fault, code, quote};
use crate::import::{Entry, Scope};
use crate::proto::{self, DimensionValue, data_type};
use crate::tensor::{self, check_size};
use mcc_ir::TensorType;
use std::collections::BTreeSet;

/// Adds every input that is not also an initializer: those are constants, as in files older than IR version 4.
pub(crate) fn add<'m>(
    cx: &mut Cx,
    graph: &'m proto::Graph,
    options: &ImportOptions,
    scope: &mut Scope<'m>,
) -> Result<(), Error> {
    let mut dims = BTreeSet::new();
    let mut unknown = Vec::new();
    let mut seen = BTreeSet::new();
    for info in &graph.input {
        let name = info.name.as_str();
        if name.is_empty() {
            return Err(Fault::new(code::GRAPH, "an input has no name", "export the model again").into());
        }
        if !seen.insert(name) {
            let reason = format!("{} is an input twice", quote(name));
            return Err(Fault::new(code::GRAPH, reason, "give every tensor its own name").into());
        }
        if scope.names.contains_key(name) {
            continue;
        }
        let tensor_type = info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
        let Some(dtype) = tensor_type.and_then(|t| tensor::dtype(t.elem_type)) else {
            let met = tensor_type.map_or("no tensor".into(), |t| format!("of {}", data_type::name(t.elem_type)));
            let reason = format!("input {} is {met}", quote(name));
            let help = "supported are tensors of FLOAT, FLOAT16, BFLOAT16, DOUBLE, INT8 to INT64, UINT8 and BOOL";
            return Err(Fault::new(code::ELEMENT_TYPE, reason, help).into());
        };
        let declared = tensor_type.and_then(|t| t.shape.as_ref()).map(|s| s.dim.as_slice());
        for d in declared.into_iter().flatten() {
            if let Some(DimensionValue::Param(p)) = &d.value {
                dims.insert(p.as_str());
            }
        }
        match shape(name, declared, options)? {
            Ok(shape) => {
                check_size(&shape)
                    .map_err(|f| Fault { reason: format!("input {}: {}", quote(name), f.reason), ..f })?;
                let v = cx.graph.add_input(name, TensorType::new(dtype, shape));
                scope.define(name, Entry::Value(v))?;
            }
            Err(reason) => unknown.push(reason),
        }
    }
    let list = |names: &BTreeSet<&str>| match names.is_empty() {
        true => "none".to_string(),
        false => names.iter().map(|n| quote(n)).collect::<Vec<_>>().join(", "),
    };
    if let Some(name) = options.input_shapes.keys().find(|n| !seen.contains(n.as_str())) {
        let reason = format!("--input-shape names {}, which is no input", quote(name));
        return Err(Fault::new(code::OPTION, reason, format!("the inputs are {}", list(&seen))).into());
    }
    if let Some(name) = options.input_dims.keys().find(|n| !dims.contains(n.as_str())) {
        let reason = format!("--input-dim names {}, which is no symbolic dimension of an input", quote(name));
        return Err(Fault::new(code::OPTION, reason, format!("the symbolic dimensions are {}", list(&dims))).into());
    }
    if unknown.is_empty() {
        return Ok(());
    }
    let (reasons, helps): (Vec<_>, Vec<_>) = unknown.into_iter().unzip();
    let helps: BTreeSet<String> = helps.into_iter().collect();
    let help = format!("add {}", helps.into_iter().collect::<Vec<_>>().join(" "));
    Err(Diagnostic::file(code::DIMENSION, reasons.join("; "), help).into())
}

/// What is not known of an input's shape, and the options that say it.
type Unknown = (String, String);

/// The static shape of one input.
fn shape(
    name: &str,
    declared: Option<&[proto::Dimension]>,
    options: &ImportOptions,
) -> Result<Result<Vec<usize>, Unknown>, Error> {
    let fixed = |d: &proto::Dimension| match &d.value {
        Some(DimensionValue::Value(v)) => usize::try_from(*v).ok().filter(|v| *v > 0),
        Some(DimensionValue::Param(p)) => options.input_dims.get(p).copied(),
        None => None,
    };
    let refuse = |reason: String| Err(Fault::new(code::OPTION, reason, "give sizes that fit the model").into());
    if let Some((dim, _)) = options.input_dims.iter().find(|(_, size)| **size == 0) {
        return refuse(format!("--input-dim {dim}=0 leaves nothing to compute"));
    }
    if let Some(given) = options.input_shapes.get(name) {
        let fits = declared.is_none_or(|dims| {
            dims.len() == given.len() && dims.iter().zip(given).all(|(d, g)| fixed(d).is_none_or(|f| f == *g))
        });
        if !fits || given.contains(&0) {
            let declared = declared.map_or(String::new(), |d| describe(d).join(","));
            return refuse(format!("--input-shape {name} gives {given:?}, the model has [{declared}]"));
        }
        return Ok(Ok(given.clone()));
    }
    let Some(dims) = declared else {
        let reason = format!("input {} has no shape", quote(name));
        return Ok(Err((reason, format!("--input-shape {}=1,3,224,224 with its own sizes", crate::error::clip(name)))));
    };
    let shape: Vec<Option<usize>> = dims.iter().map(fixed).collect();
    if let Some(known) = shape.iter().copied().collect::<Option<Vec<usize>>>() {
        return Ok(Ok(known));
    }
    let named = |d: &proto::Dimension| match &d.value {
        Some(DimensionValue::Param(p)) if !p.is_empty() && p != "?" => Some(crate::error::clip(p)),
        _ => None,
    };
    let open: Vec<&proto::Dimension> = dims.iter().zip(&shape).filter(|(_, s)| s.is_none()).map(|(d, _)| d).collect();
    let help = match open.iter().map(|d| named(d)).collect::<Option<Vec<String>>>() {
        Some(names) => names.iter().map(|n| format!("--input-dim {n}=1")).collect::<Vec<_>>().join(" "),
        None => {
            let sizes: Vec<String> = shape.iter().map(|s| s.map_or("1".into(), |s| s.to_string())).collect();
            format!("--input-shape {}={}", crate::error::clip(name), sizes.join(","))
        }
    };
    let reason = format!("input {} has the shape [{}], not all of it known", quote(name), describe(dims).join(","));
    Ok(Err((reason, help)))
}

fn describe(dims: &[proto::Dimension]) -> Vec<String> {
    let one = |d: &proto::Dimension| match &d.value {
        Some(DimensionValue::Value(v)) => v.to_string(),
        Some(DimensionValue::Param(p)) => crate::error::clip(p),
        None => "?".into(),
    };
    dims.iter().take(32).map(one).collect()
}
