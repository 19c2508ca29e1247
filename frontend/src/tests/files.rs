//! External data stays in the model's folder.

use super::*;
use crate::proto::StringStringEntry;
use crate::{code, import_file};
use std::path::Path;

/// A model that adds a constant of two floats from an external file to x.
fn external(entries: &[(&str, &str)]) -> Model {
    let external_data =
        entries.iter().map(|(k, v)| StringStringEntry { key: k.to_string(), value: v.to_string() }).collect();
    let t = TensorProto {
        name: "c".into(),
        dims: vec![2],
        data_type: dt::FLOAT,
        data_location: 1,
        external_data,
        ..TensorProto::default()
    };
    model(&[2], vec![t], vec![node("Add", &["x", "c"], "y", vec![])])
}

fn attempt(folder: &Path, entries: &[(&str, &str)]) -> Result<Graph, Error> {
    let path = folder.join("model.onnx");
    std::fs::write(&path, external(entries).encode_to_vec()).unwrap();
    import_file(path, &ImportOptions::default())
}

#[test]
fn data_is_read_from_the_models_folder_only() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("inside");
    std::fs::create_dir_all(folder.join("sub")).unwrap();
    let data: Vec<u8> = [9f32, 1.0, 2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    for path in [folder.join("data.bin"), folder.join("sub/data.bin"), outer.path().join("secret.bin")] {
        std::fs::write(path, &data).unwrap();
    }
    for location in ["data.bin", "sub/data.bin", "./data.bin"] {
        let graph = attempt(&folder, &[("location", location), ("offset", "4"), ("length", "8")]).unwrap();
        let y = eval::run(&graph, &[count(&[2])]).unwrap().remove(0);
        assert_eq!(y, Tensor::new([2], &[1f32, 3.0]));
    }
    let secret = outer.path().join("secret.bin");
    let mut refused = vec![
        vec![("location", "../secret.bin")],
        vec![("location", "sub/../../secret.bin")],
        vec![("location", secret.to_str().unwrap())],
        vec![("location", "")],
        vec![("location", "sub")],
        vec![("location", "missing.bin")],
        vec![("location", "c:data.bin")],
        vec![("location", "data.bin\0")],
        vec![],
        vec![("location", "data.bin"), ("offset", "5")],
        vec![("location", "data.bin"), ("offset", "-4")],
        vec![("location", "data.bin"), ("offset", "18446744073709551615")],
        vec![("location", "data.bin"), ("length", "12")],
    ];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&secret, folder.join("soft.bin")).unwrap();
        std::fs::hard_link(&secret, folder.join("hard.bin")).unwrap();
        refused.extend([
            vec![("location", "soft.bin")],
            vec![("location", "hard.bin")],
            vec![("location", "/dev/zero")],
        ]);
    }
    for entries in refused {
        let e = attempt(&folder, &entries).expect_err(&format!("{entries:?}"));
        assert_eq!(e.code(), code::EXTERNAL_DATA, "{entries:?}: {e}");
    }
}

#[test]
fn external_data_needs_a_folder_and_excludes_own_data() {
    assert_eq!(refused(&external(&[("location", "data.bin")])).0, code::EXTERNAL_DATA);
    let mut both = external(&[("location", "data.bin")]);
    both.graph.as_mut().unwrap().initializer[0].float_data = vec![1.0, 2.0];
    assert_eq!(refused(&both).0, code::TENSOR);
}

#[test]
fn files_that_are_no_models() {
    let folder = tempfile::tempdir().unwrap();
    let code_of = |name: &str| import_file(folder.path().join(name), &ImportOptions::default()).unwrap_err();
    assert_eq!(code_of("missing.onnx").code(), code::READ);
    assert_eq!(code_of(".").code(), code::READ);
    std::fs::write(folder.path().join("text.onnx"), "#!/bin/sh\necho hello\n").unwrap();
    assert_eq!(code_of("text.onnx").code(), code::NOT_ONNX);
    std::fs::write(folder.path().join("empty.onnx"), "").unwrap();
    let empty = code_of("empty.onnx");
    assert_eq!(empty.code(), code::NO_GRAPH);
    assert_eq!(crate::check_file(folder.path().join("empty.onnx"), &ImportOptions::default()).len(), 1);
}
