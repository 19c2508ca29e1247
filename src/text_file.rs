//! Graphs in files: the text form `.mcc`, and beside it the large constants in a `.safetensors` file of the same name.
//!
//! A constant is stored under its SHA-256, which the text names. Element types that safetensors does not have are stored
//! as bytes, under the hash followed by type and shape: `9f2c...:i4:64x3`.

use crate::error::{Error, Result};
use mcc_frontend::ImportOptions;
use mcc_ir::{DType, Graph, Tensor, TensorType, text};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Reads a graph: an ONNX model, or the text form where the file's name ends in `.mcc`.
///
/// # Errors
/// Where the file cannot be read, or is no model that mcc supports.
pub fn load(path: impl AsRef<Path>, options: &ImportOptions) -> Result<Graph> {
    let path = path.as_ref();
    if path.extension().is_none_or(|e| e != "mcc") {
        return Ok(mcc_frontend::import_file(path, options)?);
    }
    let source = std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.into(), source })?;
    let constants_path = constants_path(path);
    let constants = match std::fs::read(&constants_path) {
        Ok(bytes) => decode(&bytes).map_err(|reason| Error::Data { path: constants_path, reason })?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => HashMap::new(),
        Err(source) => return Err(Error::Io { path: constants_path, source }),
    };
    let graph = text::parse(&source, &|hash| constants.get(hash).cloned())?;
    if !options.input_dims.is_empty() || !options.input_shapes.is_empty() {
        return Err(Error::Usage(
            "the shapes of a .mcc file are static: --input-dim and --input-shape are for ONNX".into(),
        ));
    }
    Ok(graph)
}

/// The file beside `path` that holds its large constants.
pub fn constants_path(path: &Path) -> PathBuf {
    path.with_extension("safetensors")
}

/// The large constants of a graph as the bytes of a `.safetensors` file; `None` where there are none.
pub fn encode_constants(graph: &Graph) -> Option<Vec<u8>> {
    let constants = text::collect_constants(graph);
    let mut views = Vec::with_capacity(constants.len());
    for (hash, tensor) in &constants {
        let (name, dtype, shape) = match dtype_of(tensor.dtype()) {
            Some(dtype) => (hash.clone(), dtype, tensor.shape().to_vec()),
            None => (packed_name(hash, tensor.ty()), Dtype::U8, vec![tensor.bytes().len()]),
        };
        views.push((name, TensorView::new(dtype, shape, tensor.bytes()).expect("a tensor has the bytes of its type")));
    }
    (!views.is_empty()).then(|| safetensors::serialize(views, None).expect("names are unique and sizes match"))
}

fn packed_name(hash: &str, ty: &TensorType) -> String {
    let dims: Vec<String> = ty.shape.iter().map(usize::to_string).collect();
    format!("{hash}:{}:{}", ty.dtype, dims.join("x"))
}

/// The constants of a `.safetensors` file, by their hashes.
pub(crate) fn decode(bytes: &[u8]) -> std::result::Result<HashMap<String, Tensor>, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| format!("not a safetensors file: {e}"))?;
    let mut all = HashMap::new();
    for (name, view) in file.tensors() {
        let mut parts = name.splitn(3, ':');
        let hash = parts.next().unwrap_or_default().to_string();
        let ty = match (parts.next(), parts.next()) {
            (Some(dtype), Some(shape)) => packed_type(dtype, shape),
            _ => dtype_from(view.dtype()).map(|d| TensorType::new(d, view.shape())),
        };
        let ty = ty.ok_or_else(|| format!("the element type of {name:?} is not supported"))?;
        if ty.dtype == DType::Bool && view.data().iter().any(|b| *b > 1) {
            return Err(format!("{name:?} holds a bool that is neither 0 nor 1"));
        }
        let tensor = Tensor::from_bytes(ty, view.data().to_vec()).map_err(|e| format!("{name:?}: {e}"))?;
        all.insert(hash, tensor);
    }
    Ok(all)
}

fn packed_type(dtype: &str, shape: &str) -> Option<TensorType> {
    let dims: Option<Vec<usize>> = shape.split('x').filter(|d| !d.is_empty()).map(|d| d.parse().ok()).collect();
    Some(TensorType::new(DType::from_name(dtype)?, dims?))
}

/// The element types that both formats have.
const TYPES: [(DType, Dtype); 9] = [
    (DType::F32, Dtype::F32),
    (DType::F16, Dtype::F16),
    (DType::BF16, Dtype::BF16),
    (DType::I64, Dtype::I64),
    (DType::I32, Dtype::I32),
    (DType::I16, Dtype::I16),
    (DType::I8, Dtype::I8),
    (DType::U8, Dtype::U8),
    (DType::Bool, Dtype::BOOL),
];

fn dtype_of(dtype: DType) -> Option<Dtype> {
    TYPES.iter().find(|(ours, _)| *ours == dtype).map(|(_, theirs)| *theirs)
}

fn dtype_from(dtype: Dtype) -> Option<DType> {
    TYPES.iter().find(|(_, theirs)| *theirs == dtype).map(|(ours, _)| *ours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcc_ir::graph::origin;
    use mcc_ir::op::{Binary, Op};

    #[test]
    fn constants_of_every_type_come_back() {
        for dtype in DType::ALL {
            let values: Vec<i64> = (0..70).map(|i| if dtype == DType::B1 { i % 2 * 2 - 1 } else { i % 2 }).collect();
            let tensor = Tensor::from_i64(TensorType::new(dtype, [7, 10]), &values);
            let mut graph = Graph::new("g");
            let v = graph.add_const(tensor.clone(), origin("w"));
            graph.add_output("w", v);
            let all = decode(&encode_constants(&graph).unwrap()).unwrap();
            assert_eq!(all[&tensor.sha256()], tensor, "{dtype}");
        }
    }

    #[test]
    fn a_graph_in_two_files_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut graph = Graph::new("g");
        let x = graph.add_input("x", TensorType::new(DType::F32, [80]));
        let ramp: Vec<f32> = (0..80).map(|i| i as f32 / 7.0).collect();
        let w = graph.add_const(Tensor::new([80], &ramp), origin("w"));
        let y = graph.add_node(Op::binary(Binary::Mul), vec![x, w], origin("mul")).unwrap();
        graph.add_output("y", y);
        let path = folder.path().join("g.mcc");
        std::fs::write(&path, text::print(&graph)).unwrap();
        std::fs::write(constants_path(&path), encode_constants(&graph).unwrap()).unwrap();
        let back = load(&path, &ImportOptions::default()).unwrap();
        assert_eq!(text::print(&back), text::print(&graph));
        std::fs::write(constants_path(&path), b"garbage").unwrap();
        assert!(matches!(load(&path, &ImportOptions::default()), Err(Error::Data { .. })));
    }
}
