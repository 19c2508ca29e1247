//! The protobuf structs against an independent decoder of the official schema.

use super::*;
use crate::proto::DimensionValue;
use onnx_protobuf::Message as _;
use std::path::{Path, PathBuf};

fn models() -> Vec<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let folder = std::env::var_os("MCC_SHARED").map_or(default, PathBuf::from).join("models");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        assert!(std::env::var_os("CI").is_none(), "{} is missing; set MCC_SHARED", folder.display());
        eprintln!("SKIPPED: no models at {}; set MCC_SHARED", folder.display());
        return vec![];
    };
    entries.map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "onnx")).collect()
}

fn same_tensor(ours: &TensorProto, theirs: &onnx_protobuf::TensorProto) {
    assert_eq!(ours.name, theirs.name);
    assert_eq!((&ours.dims, ours.data_type), (&theirs.dims, theirs.data_type));
    assert_eq!(ours.raw_data.as_deref().unwrap_or_default(), theirs.raw_data);
    assert_eq!((&ours.float_data, &ours.int32_data), (&theirs.float_data, &theirs.int32_data));
    assert_eq!((&ours.int64_data, &ours.uint64_data), (&theirs.int64_data, &theirs.uint64_data));
    assert_eq!(ours.double_data, theirs.double_data);
}

fn same_values(ours: &[ValueInfo], theirs: &[onnx_protobuf::ValueInfoProto]) {
    assert_eq!(ours.len(), theirs.len());
    for (a, b) in ours.iter().zip(theirs) {
        assert_eq!(a.name, b.name);
        let ours = a.r#type.as_ref().unwrap().tensor_type.as_ref().unwrap();
        let theirs = b.type_.tensor_type();
        assert_eq!(ours.elem_type, theirs.elem_type);
        let dims = &ours.shape.as_ref().unwrap().dim;
        assert_eq!(dims.len(), theirs.shape.dim.len());
        for (a, b) in dims.iter().zip(&theirs.shape.dim) {
            match &a.value {
                Some(DimensionValue::Value(v)) => assert!(b.has_dim_value() && b.dim_value() == *v),
                Some(DimensionValue::Param(p)) => assert!(b.has_dim_param() && b.dim_param() == p),
                None => assert!(!b.has_dim_value() && !b.has_dim_param()),
            }
        }
    }
}

#[test]
fn both_decoders_read_the_same() {
    for path in models() {
        let bytes = std::fs::read(&path).unwrap();
        let ours = Model::decode(bytes::Bytes::from(bytes.clone())).unwrap();
        let theirs = onnx_protobuf::ModelProto::parse_from_bytes(&bytes).unwrap();
        assert_eq!(ours.ir_version, Some(theirs.ir_version));
        for (a, b) in ours.opset_import.iter().zip(&theirs.opset_import) {
            assert_eq!((&a.domain, a.version), (&b.domain, b.version));
        }
        let graph = ours.graph.unwrap();
        assert_eq!(graph.name, theirs.graph.name);
        assert_eq!(graph.node.len(), theirs.graph.node.len());
        for (a, b) in graph.node.iter().zip(&theirs.graph.node) {
            assert_eq!((&a.input, &a.output), (&b.input, &b.output));
            assert_eq!((&a.name, &a.op_type, &a.domain), (&b.name, &b.op_type, &b.domain));
            assert_eq!(a.attribute.len(), b.attribute.len());
            for (a, b) in a.attribute.iter().zip(&b.attribute) {
                assert_eq!((&a.name, a.r#type), (&b.name, b.type_.value()));
                assert_eq!((a.f.unwrap_or(0.0), a.i.unwrap_or(0)), (b.f, b.i));
                assert_eq!(a.s.as_deref().unwrap_or_default(), b.s);
                assert_eq!((&a.floats, &a.ints), (&b.floats, &b.ints));
                assert_eq!(a.t.is_some(), b.t.is_some());
                if let Some(t) = &a.t {
                    same_tensor(t, &b.t);
                }
            }
        }
        assert_eq!(graph.initializer.len(), theirs.graph.initializer.len());
        graph.initializer.iter().zip(&theirs.graph.initializer).for_each(|(a, b)| same_tensor(a, b));
        same_values(&graph.input, &theirs.graph.input);
        same_values(&graph.output, &theirs.graph.output);
    }
}

#[test]
fn tensor_bytes_are_not_copied() {
    let raw = vec![1u8; 1 << 16];
    let t = TensorProto { raw_data: Some(raw.into()), ..TensorProto::default() };
    let file = bytes::Bytes::from(model(&[1], vec![t], vec![]).encode_to_vec());
    let decoded = Model::decode(file.clone()).unwrap();
    let raw = decoded.graph.unwrap().initializer[0].raw_data.clone().unwrap();
    let (file, raw) = (file.as_ptr_range(), raw.as_ptr_range());
    assert!(file.start <= raw.start && raw.end <= file.end);
}
