//! The embedding examples run to their end. `cargo test` builds them; before `cargo test --test examples` alone,
//! `cargo build --examples` has to.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What an example prints; `None`, loudly, where it was not built.
fn example(name: &str, args: &[&str]) -> Option<String> {
    let program: PathBuf = Path::new(env!("CARGO_BIN_EXE_mcc")).with_file_name("examples").join(name);
    let program = program.with_extension(std::env::consts::EXE_EXTENSION);
    if !program.exists() {
        let missing = format!("{} is not built: cargo build --examples", program.display());
        assert!(std::env::var_os("CI").is_none(), "{missing}");
        eprintln!("SKIPPED: {missing}");
        return None;
    }
    let mut command = Command::new(program);
    let output = command.args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

/// The ten scores that an example prints for its gradient from black to white.
fn scores(text: &str) -> Vec<f32> {
    let list = text.lines().find_map(|line| line.strip_prefix('[')?.strip_suffix(']')).expect(text);
    list.split(", ").map(|v| v.parse().unwrap()).collect()
}

#[test]
fn the_server_answers_what_the_command_line_program_prints() {
    let (Some(embed), Some(server)) = (example("embed", &[]), example("server", &[])) else { return };
    assert_eq!(scores(&server), scores(&embed));
    assert_eq!(scores(&server).len(), 10);
    assert!(server.contains("200 requests"), "{server}");
    assert!(server.contains("an empty body: HTTP/1.1 400 Bad Request"), "{server}");
}

#[test]
fn the_real_time_loop_counts_every_period_twice() {
    let args = ["tests/models/fm_lenet5_int8_qdq.onnx", "500", "200"];
    let Some(text) = example("realtime", &args) else { return };
    assert!(text.starts_with("200 periods of 500"), "{text}");
    let counts = text.lines().filter(|line| line.contains(" us ")).filter_map(|line| line.split_whitespace().nth(3));
    let counted: u32 = counts.map(|count| count.parse::<u32>().unwrap()).sum();
    assert_eq!(counted, 400, "{text}");
}
