//! Where tests find the shared models and data, and how they read `.npz` archives.

use mcc::ir::Tensor;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The folder of shared models and data: `MCC_SHARED`, or `../shared` beside the project.
///
/// `None`, loudly, where it is missing; under CI that is a failure.
pub fn shared() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let folder = std::env::var_os("MCC_SHARED").map_or(default, PathBuf::from);
    if folder.join("models").is_dir() {
        return Some(folder);
    }
    let missing = format!("shared models are missing: {} (set MCC_SHARED)", folder.display());
    assert!(std::env::var_os("CI").is_none(), "{missing}");
    eprintln!("SKIPPED: {missing}");
    None
}

/// The numeric arrays of an `.npz` archive.
pub fn npz(path: &Path) -> HashMap<String, Tensor> {
    let mut archive = npyz::npz::NpzArchive::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let names: Vec<String> = archive.array_names().map(String::from).collect();
    names
        .into_iter()
        .filter_map(|name| {
            let array = archive.by_name(&name).expect("readable").expect("listed");
            let shape: Vec<usize> = array.shape().iter().map(|&d| d as usize).collect();
            let dtype = array.dtype().descr();
            let tensor = match dtype.trim_matches('\'') {
                "<f4" => Tensor::new(shape, &array.into_vec::<f32>().expect("f32")),
                "<f8" => {
                    let values = array.into_vec::<f64>().expect("f64");
                    Tensor::new(shape, &values.iter().map(|v| *v as f32).collect::<Vec<_>>())
                }
                "|i1" => Tensor::new(shape, &array.into_vec::<i8>().expect("i8")),
                "|u1" => Tensor::new(shape, &array.into_vec::<u8>().expect("u8")),
                "<i4" => Tensor::new(shape, &array.into_vec::<i32>().expect("i32")),
                "<i8" => Tensor::new(shape, &array.into_vec::<i64>().expect("i64")),
                other if other.starts_with("<U") => return None,
                other => panic!("{}: {name} is {other}", path.display()),
            };
            Some((name, tensor))
        })
        .collect()
}
