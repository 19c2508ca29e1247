//! What emitted C takes when a core's cross compiler has built it.

use super::{Core, ExecError, Place, Region, build, linker_script};
use crate::c::CSource;
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

/// What a model takes when it is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// The compiler, its version and its optimisation level.
    pub compiler: String,
    /// Constants and code, with the functions of the C library and the compiler's own that the model calls.
    pub flash_bytes: usize,
    /// The deepest chain of the model's own functions. Functions of libraries are not in it.
    pub stack_bytes: usize,
}

/// Builds a model for a core as a program of its own, without running it.
///
/// # Errors
/// Where the compiler is missing or complains.
pub fn measure(c: &CSource, core: Core) -> Result<Measured, ExecError> {
    let folder = tempfile::Builder::new().prefix("mcc-").tempdir()?;
    let at = folder.path();
    std::fs::write(at.join(format!("{}.h", c.name)), &c.header)?;
    std::fs::write(at.join("model.c"), &c.source)?;
    // Room for any model; nothing but its size matters.
    let region = |origin| Region { origin, bytes: 1 << 30 };
    std::fs::write(at.join("board.ld"), linker_script([region(0), region(1 << 30)]))?;
    let (cc, package, own) = Place::Qemu(core).compiler();
    let command = |arguments: &[&str]| {
        let mut command = Command::new(cc);
        command.args(&own).args(arguments).current_dir(at);
        command
    };
    build(command(&["-fcallgraph-info=su", "-c", "model.c"]), cc, package)?;
    let entry = format!("-Wl,--gc-sections,--entry={}_run", c.name);
    build(command(&["-nostartfiles", "-T", "board.ld", &entry, "model.o", "-o", "program"]), cc, package)?;
    let version = Command::new(cc).arg("-dumpfullversion").output()?;
    Ok(Measured {
        compiler: format!("{cc} {} -O3", String::from_utf8_lossy(&version.stdout).trim()),
        flash_bytes: flash(core, at)?,
        stack_bytes: deepest(&std::fs::read_to_string(at.join("model.ci"))?, &format!("{}_run", c.name)),
    })
}

/// Bytes of code and data of the linked program.
fn flash(core: Core, at: &Path) -> Result<usize, ExecError> {
    let tool = core.tools().size;
    let out = Command::new(tool).arg("program").current_dir(at).output()?;
    let text = String::from_utf8_lossy(&out.stdout);
    let line = text.lines().nth(1).unwrap_or("");
    let sizes: Vec<usize> = line.split_whitespace().map_while(|n| n.parse().ok()).collect();
    match sizes[..] {
        [text, data, ..] => Ok(text + data),
        _ => Err(ExecError::Build { tool, output: text.into_owned() }),
    }
}

/// Bytes of stack on the deepest chain of calls from a function, by GCC's graph of calls (`-fcallgraph-info=su`).
fn deepest(graph: &str, entry: &str) -> usize {
    let mut frames: HashMap<&str, usize> = HashMap::new();
    let mut calls: HashMap<&str, Vec<&str>> = HashMap::new();
    for line in graph.lines() {
        let mut quoted = line.split('"').skip(1).step_by(2);
        let (Some(from), Some(other)) = (quoted.next(), quoted.next()) else { continue };
        if line.starts_with("node:") {
            // The label ends with `\n24 bytes (static)`.
            let bytes = other.rsplit("\\n").find_map(|part| part.split_once(" bytes")?.0.parse().ok());
            frames.insert(from, bytes.unwrap_or(0));
        } else if line.starts_with("edge:") {
            calls.entry(from).or_default().push(other);
        }
    }
    depth(entry, &frames, &calls, &mut HashMap::new())
}

/// Emitted C does not recurse; a function that calls itself counts once.
fn depth<'a>(
    function: &'a str,
    frames: &HashMap<&'a str, usize>,
    calls: &HashMap<&'a str, Vec<&'a str>>,
    known: &mut HashMap<&'a str, usize>,
) -> usize {
    if let Some(&bytes) = known.get(function) {
        return bytes;
    }
    known.insert(function, 0);
    let below = calls.get(function).into_iter().flatten().map(|f| depth(f, frames, calls, known)).max();
    let bytes = frames.get(function).unwrap_or(&0) + below.unwrap_or(0);
    known.insert(function, bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::deepest;

    #[test]
    fn the_deepest_chain_counts() {
        let graph = r#"graph: { title: "model.c"
node: { title: "model.c:m_k0" label: "m_k0\nmodel.c:3:13\n128 bytes (static)" }
node: { title: "model.c:m_k1" label: "m_k1\nmodel.c:9:13\n40 bytes (dynamic,bounded)" }
node: { title: "model.c:m_help" label: "m_help\nmodel.c:1:13\n100 bytes (static)" }
node: { title: "m_run" label: "m_run\nmodel.c:20:5\n24 bytes (static)" }
node: { title: "memcpy" label: "memcpy\n<built-in>" shape : ellipse }
edge: { sourcename: "m_run" targetname: "model.c:m_k0" label: "model.c:21:5" }
edge: { sourcename: "m_run" targetname: "model.c:m_k1" label: "model.c:22:5" }
edge: { sourcename: "model.c:m_k1" targetname: "model.c:m_help" label: "model.c:10:5" }
edge: { sourcename: "model.c:m_k1" targetname: "memcpy" }
edge: { sourcename: "model.c:m_k1" targetname: "model.c:m_k1" }
}"#;
        assert_eq!(deepest(graph, "m_run"), 24 + 40 + 100);
        assert_eq!(deepest(graph, "model.c:m_k0"), 128);
        assert_eq!(deepest(graph, "none"), 0);
    }
}
