//! What the commands write: data on stdout, remarks on stderr, files that appear whole or not at all.

use indicatif::{ProgressBar, ProgressStyle};
use mcc::ir::text;
use mcc::{Error, Result};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};

/// Writes text to stdout. A reader that has gone away is no error.
///
/// # Errors
/// Where stdout cannot be written.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(source) if source.kind() != ErrorKind::BrokenPipe => Err(Error::Io { path: "stdout".into(), source }),
        _ => Ok(()),
    }
}

/// Writes a value to stdout as indented JSON.
///
/// # Errors
/// As [`print`].
pub fn print_json(value: &impl Serialize) -> Result<()> {
    print(&json(value))
}

/// Indented JSON with a line break at the end.
pub fn json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("the commands' values have string keys") + "\n"
}

/// A remark on stderr.
pub fn note(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "note: {text}");
}

/// A file that was written.
#[derive(Clone, Debug, Serialize)]
pub struct Written {
    pub path: PathBuf,
    pub bytes: usize,
    pub sha256: String,
}

impl Written {
    /// `out/net.c  1234 bytes  sha256:...`
    pub fn line(&self) -> String {
        format!("{}  {} bytes  sha256:{}\n", self.path.display(), self.bytes, self.sha256)
    }
}

/// Writes files: every one to a temporary file beside its place first, then all are renamed. Creates missing folders.
///
/// # Errors
/// Where a file cannot be written; files that were not yet renamed leave nothing behind.
pub fn write_files(files: &[(PathBuf, Vec<u8>)]) -> Result<Vec<Written>> {
    let fail = |path: &Path| {
        let path = path.to_path_buf();
        move |source| Error::Io { path, source }
    };
    let mut ready = Vec::with_capacity(files.len());
    for (path, bytes) in files {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(fail(folder))?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(".mcc-");
        // The user's umask applies, as to any other file.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.tempfile_in(folder).map_err(fail(path))?;
        file.write_all(bytes).map_err(fail(path))?;
        ready.push(file);
    }
    let mut written = Vec::with_capacity(files.len());
    for ((path, bytes), file) in files.iter().zip(ready) {
        file.persist(path).map_err(|e| fail(path)(e.error))?;
        let sha256 = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
        written.push(Written { path: path.clone(), bytes: bytes.len(), sha256 });
    }
    Ok(written)
}

/// The files of a graph in the text form: `path`, and beside it the large constants where there are any.
pub fn graph_files(graph: &mcc::ir::Graph, path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = vec![(path.to_path_buf(), text::print(graph).into_bytes())];
    if let Some(bytes) = mcc::text_file::encode_constants(graph) {
        files.push((mcc::text_file::constants_path(path), bytes));
    }
    files
}

/// Whether a model is written to `path` as ONNX, or in the text form.
///
/// # Errors
/// Where the file's name says neither.
pub fn is_onnx(path: &Path) -> Result<bool> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("mcc") => Ok(false),
        Some("onnx") => Ok(true),
        _ => Err(Error::Usage(format!("{}: the file must end in .mcc or .onnx", path.display()))),
    }
}

/// The files of a graph as an ONNX model, or as [`graph_files`].
///
/// # Errors
/// Where ONNX has no operator for something in the graph.
pub fn model_files(graph: &mcc::ir::Graph, path: &Path, onnx: bool) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    Ok(if onnx { vec![(path.to_path_buf(), mcc::frontend::export(graph)?)] } else { graph_files(graph, path) })
}

/// A table with a header, numbers aligned to the right.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    use comfy_table::{CellAlignment, Table, presets::NOTHING};
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header(header.to_vec());
    rows.iter().for_each(|row| {
        table.add_row(row.clone());
    });
    let is_number = |text: &str| text.starts_with(|c: char| c.is_ascii_digit()) && !text.contains('x');
    for i in 0..header.len() {
        let numbers = !rows.is_empty() && rows.iter().all(|r| r.get(i).is_none_or(|t| is_number(t)));
        if let Some(column) = table.column_mut(i).filter(|_| numbers) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_string() + "\n").collect()
}

/// A name cut to what a table has room for.
pub fn short(name: &str) -> String {
    const ROOM: usize = 48;
    match name.char_indices().nth(ROOM) {
        Some((at, _)) => format!("{}...", &name[..at]),
        None => name.to_string(),
    }
}

/// An integer with thousands separated.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A progress bar on stderr where that is a terminal, and nothing elsewhere.
pub fn progress(len: usize, what: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} {eta}").expect("the template is valid");
    ProgressBar::new(len as u64).with_style(style).with_message(what.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_234_567), "1,234,567");
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("b")).unwrap();
        let files = [(folder.path().join("a"), b"1".to_vec()), (folder.path().join("a/c"), b"2".to_vec())];
        std::fs::write(folder.path().join("a"), b"old").unwrap();
        assert!(write_files(&files).is_err());
        assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), b"old");
        let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }
}
