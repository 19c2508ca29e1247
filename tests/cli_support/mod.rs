//! Running the `mcc` binary in tests.

#![allow(dead_code)]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The binary under test, in the folder of the tests' models.
pub fn mcc() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcc"));
    command.current_dir(models()).env_remove("RUST_BACKTRACE");
    command
}

/// The folder of the models that the project has made itself.
pub fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models")
}

/// Runs a command line of words without spaces.
pub fn run(line: &str) -> Output {
    mcc().args(line.split_whitespace()).output().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub fn status(output: &Output) -> i32 {
    output.status.code().expect("it was not killed")
}

/// Runs a command line that must succeed.
pub fn ok(line: &str) -> String {
    let output = run(line);
    assert_eq!(status(&output), 0, "mcc {line}\n{}", stderr(&output));
    stdout(&output)
}

/// Runs a command line that must succeed and print JSON.
pub fn json(line: &str) -> Value {
    serde_json::from_str(&ok(line)).unwrap()
}

/// Whether a tool answers to `--version`. In CI it must.
pub fn has(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok_and(|o| o.status.success());
    assert!(found || std::env::var_os("CI").is_none(), "{tool} is missing");
    if !found {
        eprintln!("SKIPPED: {tool} is not installed");
    }
    found
}

/// The folder of the shared models and data; `None` where it is absent, which CI does not allow.
pub fn shared() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let folder = std::env::var_os("MCC_SHARED").map_or_else(beside, PathBuf::from);
    let found = folder.join("models").is_dir();
    assert!(found || std::env::var_os("CI").is_none(), "{} is missing", folder.display());
    if !found {
        eprintln!("SKIPPED: {} is missing", folder.display());
    }
    found.then_some(folder)
}
