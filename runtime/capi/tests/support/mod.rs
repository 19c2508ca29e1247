//! A model of the repository with a stored case.

use std::path::PathBuf;

pub fn models() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/models")
}

/// An array of floats of `fm_lenet5.npz`: `in:input` or `out:logits`.
pub fn stored(array: &str) -> Vec<f32> {
    let mut archive = npyz::npz::NpzArchive::open(models().join("fm_lenet5.npz")).unwrap();
    archive.by_name(array).unwrap().unwrap().into_vec().unwrap()
}

/// Holds logits against the stored ones: a float may differ by 1e-4 of the largest magnitude.
pub fn assert_close(found: &[f32]) {
    let expected = stored("out:logits");
    let bound = 1e-4 * expected.iter().fold(0f32, |m, v| m.max(v.abs()));
    assert_eq!(found.len(), expected.len());
    for (f, e) in found.iter().zip(&expected) {
        assert!((f - e).abs() <= bound, "{found:?} is not {expected:?}");
    }
}
