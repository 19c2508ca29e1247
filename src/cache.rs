//! Optimised graphs kept in a folder, so that a model that was compiled before is imported and lowered, not optimised again.
//!
//! An entry is found by the imported graph itself: its text, which has the hashes of all weights, wherever they came from.
//! Its file holds the optimised graph in the text form with its constants, behind a checksum. It is data, not code: what
//! is read is parsed and verified as a graph, planned, and compiled again for this processor, so a file that somebody
//! else wrote can make a session compute something else, but never run foreign code. A file that is not whole, or not
//! what was asked for, counts as absent and is replaced.

use crate::model::Options;
use crate::text_file;
use mcc_ir::graph::Port;
use mcc_ir::{Graph, TensorType, text};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The first bytes of a file.
const MAGIC: &[u8; 8] = b"mccgraph";
/// Magic, key, checksum of what follows, length of the text.
const HEADER: usize = 8 + 32 + 32 + 8;

/// The place of one model's graph.
pub struct Entry {
    key: [u8; 32],
    path: PathBuf,
}

impl Entry {
    /// For an imported graph under these options, in this folder.
    pub fn new(folder: &Path, imported: &Graph, options: &Options) -> Entry {
        let mut hash = Sha256::new();
        let passes: Vec<&str> = mcc_passes::PASSES.iter().map(|p| p.name()).collect();
        // Passes see the target and how to requantise; neither depends on the level of the processor.
        let context = format!("{} {passes:?} {:?} {:?}\n", env!("CARGO_PKG_VERSION"), options.target, options.requant);
        hash.update(context);
        hash.update(text::print(imported));
        let key: [u8; 32] = hash.finalize().into();
        let name: String = key.iter().map(|b| format!("{b:02x}")).collect();
        Entry { key, path: folder.join(name).with_extension("mccgraph") }
    }

    /// The optimised graph; `None` where there is no whole and valid file of it.
    pub fn read(&self, imported: &Graph) -> Option<Graph> {
        let bytes = std::fs::read(&self.path).ok()?;
        let (header, body) = bytes.split_at_checked(HEADER)?;
        let (magic, header) = header.split_at(8);
        let (key, header) = header.split_at(32);
        let (checksum, length) = header.split_at(32);
        if magic != MAGIC || key != self.key || checksum != Sha256::digest(body).as_slice() {
            return None;
        }
        let length = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
        let (source, constants) = body.split_at_checked(length)?;
        let constants = match constants {
            [] => Default::default(),
            bytes => text_file::decode(bytes).ok()?,
        };
        let graph = text::parse(std::str::from_utf8(source).ok()?, &|hash| constants.get(hash).cloned()).ok()?;
        mcc_ir::verify::verify(&graph).ok()?;
        let same = ports(&graph, &graph.inputs).eq(ports(imported, &imported.inputs))
            && ports(&graph, &graph.outputs).eq(ports(imported, &imported.outputs));
        same.then_some(graph)
    }

    /// Keeps an optimised graph: the file appears whole or not at all.
    ///
    /// # Errors
    /// Where folder or file cannot be written.
    pub fn write(&self, optimised: &Graph) -> std::io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let source = text::print(optimised);
        let constants = text_file::encode_constants(optimised).unwrap_or_default();
        let checksum = Sha256::new().chain_update(&source).chain_update(&constants).finalize();
        let mut file = tempfile::Builder::new().prefix(".mcc-").tempfile_in(folder)?;
        for part in
            [&MAGIC[..], &self.key, &checksum, &(source.len() as u64).to_le_bytes(), source.as_bytes(), &constants]
        {
            file.write_all(part)?;
        }
        file.persist(&self.path).map_err(|e| e.error)?;
        Ok(())
    }
}

fn ports<'a>(graph: &'a Graph, ports: &'a [Port]) -> impl Iterator<Item = (&'a str, &'a TensorType)> {
    ports.iter().map(|p| (p.name.as_str(), graph.ty(p.value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Model;
    use mcc_ir::graph::origin;
    use mcc_ir::op::{Binary, Op};
    use mcc_ir::{DType, Tensor};

    /// `x * w + w`, with a constant too large for the text.
    fn graph(factor: f32) -> Graph {
        let mut graph = Graph::new("g");
        let x = graph.add_input("x", TensorType::new(DType::F32, [80]));
        let ramp: Vec<f32> = (0..80).map(|i| i as f32 * factor).collect();
        let w = graph.add_const(Tensor::new([80], &ramp), origin("w"));
        let y = graph.add_node(Op::binary(Binary::Mul), vec![x, w], origin("mul")).unwrap();
        let y = graph.add_node(Op::binary(Binary::Add), vec![y, w], origin("add")).unwrap();
        graph.add_output("y", y);
        graph
    }

    fn options(folder: &Path) -> Options {
        Options { cache: Some(folder.into()), ..Options::host() }
    }

    /// The files of a folder, and whether passes ran for a model with it as cache.
    fn compile(folder: &Path, factor: f32) -> (Vec<PathBuf>, bool) {
        let model = Model::from_graph(graph(factor), &options(folder)).unwrap();
        assert_eq!(model.warnings, Vec::<String>::new());
        let x: Vec<f32> = (0..80).map(|i| 40.0 - i as f32).collect();
        let got = model.session().unwrap().run_tensors(&[Tensor::new([80], &x)]).unwrap();
        let want: Vec<f32> = x.iter().enumerate().map(|(i, x)| x * (i as f32 * factor) + i as f32 * factor).collect();
        assert_eq!(got[0].to_f32(), want);
        let files = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()).collect();
        (files, !model.passes.is_empty())
    }

    #[test]
    fn the_second_time_passes_do_not_run() {
        let folder = tempfile::tempdir().unwrap();
        let folder = &folder.path().join("made");
        let (files, ran) = compile(folder, 0.5);
        assert_eq!((files.len(), ran), (1, true));
        assert_eq!(compile(folder, 0.5), (files, false));
        // Another weight, another entry.
        let (files, ran) = compile(folder, 0.25);
        assert_eq!((files.len(), ran), (2, true));
    }

    #[test]
    fn the_key_has_what_passes_see() {
        let key = |o: &Options| Entry::new(Path::new("."), &graph(0.5), o).key;
        let host = Options::host();
        let m4 = Options::for_target("cortex-m4").unwrap();
        let fast = Options { requant: mcc_passes::Requant::Fast, ..host.clone() };
        assert_ne!(key(&host), key(&m4));
        assert_ne!(key(&host), key(&fast));
        assert_eq!(key(&host), key(&Options { threads: 2, ..host.clone() }));
    }

    /// Whatever byte is wrong or missing, the file is not trusted, and is made again.
    #[test]
    fn damaged_files_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let (files, _) = compile(folder, 0.5);
        let good = std::fs::read(&files[0]).unwrap();
        let step = good.len() / 97 + 1;
        let mut damaged: Vec<Vec<u8>> = (0..good.len()).step_by(step).map(|n| good[..n].to_vec()).collect();
        damaged.extend((0..good.len()).step_by(step).map(|i| {
            let mut bytes = good.clone();
            bytes[i] ^= 1 << (i % 8);
            bytes
        }));
        damaged.push([&good[..], b"more"].concat());
        for bytes in damaged {
            std::fs::write(&files[0], &bytes).unwrap();
            assert_eq!(compile(folder, 0.5), (files.clone(), true));
            assert_eq!(std::fs::read(&files[0]).unwrap(), good);
        }
    }

    /// A whole file under the name of another model's.
    #[test]
    fn foreign_files_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let (first, _) = compile(folder, 0.5);
        let entry = Entry::new(folder, &graph(0.25), &options(folder));
        std::fs::copy(&first[0], &entry.path).unwrap();
        assert!(compile(folder, 0.25).1);
        assert!(!compile(folder, 0.25).1);
    }

    /// A whole file with a valid checksum and another graph's ports.
    #[test]
    fn graphs_with_other_ports_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let imported = graph(0.5);
        let entry = Entry::new(folder.path(), &imported, &Options::host());
        let mut other = Graph::new("g");
        let x = other.add_input("x", TensorType::new(DType::F32, [81]));
        other.add_output("y", x);
        entry.write(&other).unwrap();
        assert!(entry.read(&imported).is_none());
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let model = Model::from_graph(graph(0.5), &options(&file)).unwrap();
        assert_eq!(model.warnings.len(), 1, "{:?}", model.warnings);
        assert!(model.session().is_ok());
    }
}
