//! Tensor data in files beside the model.
//!
//! A model is untrusted: its data may lie only in regular files inside the model's own folder. Absolute paths, `..`, and
//! symbolic or hard links that lead outside are refused. Each file is read once and shared.

use crate::error::{Fault, Result, code, quote};
use crate::proto::TensorProto;
use bytes::Bytes;
use std::collections::HashMap;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

/// Largest external file.
const MAX_FILE: u64 = 4 << 30;

/// The external files of one model.
pub(crate) struct Files {
    folder: Option<PathBuf>,
    read: HashMap<PathBuf, Bytes>,
}

impl Files {
    /// Files beside a model in `folder`; without one, external data is refused.
    pub fn new(folder: Option<&Path>) -> Files {
        Files { folder: folder.map(Path::to_path_buf), read: HashMap::new() }
    }

    /// The bytes of an external tensor that takes `expected` of them.
    pub fn read(&mut self, t: &TensorProto, expected: usize) -> Result<Bytes> {
        let fault = |reason: String| {
            let help = "put the data file in the model's folder under the name that the model gives";
            Fault::new(code::EXTERNAL_DATA, format!("tensor {}: {reason}", quote(&t.name)), help)
        };
        let mut location = None;
        let (mut offset, mut length) = (0usize, None);
        for entry in &t.external_data {
            let number = || {
                let parsed = entry.value.parse::<usize>();
                parsed.map_err(|_| fault(format!("external {} {} is no size", entry.key, quote(&entry.value))))
            };
            match entry.key.as_str() {
                "location" => location = Some(entry.value.as_str()),
                "offset" => offset = number()?,
                "length" => length = Some(number()?),
                // A checksum is informative, and unknown keys are reserved for later versions of ONNX.
                _ => {}
            }
        }
        let location = location.ok_or_else(|| fault("its external data has no location".into()))?;
        if length.is_some_and(|l| l != expected) {
            let found = length.unwrap_or_default();
            return Err(fault(format!("its type takes {expected} bytes, its external data has {found}")));
        }
        let file = self.file(location).map_err(fault)?;
        let end = offset.checked_add(expected).filter(|&end| end <= file.len());
        let end = end.ok_or_else(|| {
            fault(format!("{expected} bytes at {offset} exceed {} of {} bytes", quote(location), file.len()))
        })?;
        Ok(file.slice(offset..end))
    }

    /// The contents of a file, or why it may not be read.
    fn file(&mut self, location: &str) -> std::result::Result<Bytes, String> {
        let shown = quote(location);
        let folder = self.folder.as_ref().ok_or("the model was not read from a folder, so it has no external data")?;
        let relative = Path::new(location);
        let plain = relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        if location.is_empty() || !plain || location.contains(['\\', ':', '\0']) {
            return Err(format!("its external file {shown} is not a plain path inside the model's folder"));
        }
        let missing = |e: std::io::Error| format!("its external file {shown} cannot be read: {e}");
        let root = folder.canonicalize().map_err(missing)?;
        let path = root.join(relative).canonicalize().map_err(missing)?;
        if !path.starts_with(&root) {
            return Err(format!("its external file {shown} leads outside the model's folder"));
        }
        if let Some(bytes) = self.read.get(&path) {
            return Ok(bytes.clone());
        }
        // A named pipe would block at opening, so the type is asked first and once more on the open file.
        if !std::fs::metadata(&path).map_err(missing)?.is_file() {
            return Err(format!("its external file {shown} is not a regular file"));
        }
        let file = std::fs::File::open(&path).map_err(missing)?;
        let meta = file.metadata().map_err(missing)?;
        if !meta.is_file() || has_other_names(&meta) {
            return Err(format!("its external file {shown} is not a regular file with one name"));
        }
        if meta.len() > MAX_FILE {
            return Err(format!("its external file {shown} is larger than {MAX_FILE} bytes"));
        }
        let mut data = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut data).map_err(missing)?;
        let bytes = Bytes::from(data);
        self.read.insert(path, bytes.clone());
        Ok(bytes)
    }
}

/// Whether a file has further hard links, which may lie outside the folder.
#[cfg(unix)]
fn has_other_names(meta: &std::fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::nlink(meta) > 1
}

#[cfg(not(unix))]
fn has_other_names(_meta: &std::fs::Metadata) -> bool {
    false
}
