//! `examples/c/classify.c`, built by the system's C compiler against the header, with either library.
#![cfg(unix)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::*;

/// Libraries that Rust's standard library needs: `rustc --print native-static-libs`.
const SYSTEM: &[&str] = if cfg!(target_os = "macos") {
    &["-framework", "CoreFoundation", "-liconv", "-lm"]
} else {
    &["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl"]
};

/// Where cargo put the libraries of this crate: beside the test itself.
fn libraries() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().into()
}

/// Builds the example into `folder`; `None`, loudly, without a C compiler.
fn build(folder: &Path, shared: bool) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    if Command::new(&compiler).arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "{compiler} is missing");
        eprintln!("SKIPPED: {compiler} is missing");
        return None;
    }
    let (program, libraries) = (folder.join("classify"), libraries());
    let mut command = Command::new(compiler);
    command.args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-o"]).arg(&program);
    command.arg("-I").arg(root.join("include")).arg(root.join("../../examples/c/classify.c"));
    if shared {
        let at_run_time = format!("-Wl,-rpath,{}", libraries.display());
        command.arg("-L").arg(&libraries).arg(at_run_time).arg("-lmcc_capi");
    } else {
        command.arg(libraries.join("libmcc_capi.a")).args(SYSTEM);
    }
    let built = command.output().unwrap();
    assert!(built.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&built.stderr));
    Some(program)
}

fn run(program: &Path, model: &str, input: &Path) -> Output {
    Command::new(program).arg(models().join(model)).arg(input).output().unwrap()
}

#[test]
fn the_c_example_computes_what_is_stored_and_tells_errors() {
    let folder = tempfile::tempdir().unwrap();
    let (input, short) = (folder.path().join("input.f32"), folder.path().join("short.f32"));
    let bytes: Vec<u8> = stored("in:input").iter().flat_map(|v| v.to_ne_bytes()).collect();
    std::fs::write(&input, &bytes).unwrap();
    std::fs::write(&short, &bytes[1..]).unwrap();
    for shared in [false, true] {
        let Some(program) = build(folder.path(), shared) else { return };
        let output = run(&program, "fm_lenet5.onnx", &input);
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{stderr}");
        assert_close(&stdout.lines().map(|line| line.parse().unwrap()).collect::<Vec<f32>>());

        let output = run(&program, "absent.onnx", &input);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(1), true));
        assert!(stderr.contains("absent.onnx: error[E0102]: "), "{stderr}");
        let output = run(&program, "fm_lenet5.onnx", &short);
        assert_eq!(output.status.code(), Some(1));
    }
}
