//! What users read: help texts and error messages, as snapshots.

mod cli_support;

use cli_support::mcc;
use insta_cmd::assert_cmd_snapshot;

#[test]
fn help() {
    for command in [
        "compile", "quantize", "prune", "run", "eval", "bench", "analyze", "explain", "validate", "check", "opt",
        "targets", "ops", "passes",
    ] {
        insta::with_settings!({ snapshot_suffix => command }, {
            assert_cmd_snapshot!(mcc().args([command, "--help"]));
        });
    }
    assert_cmd_snapshot!("help-of-all", mcc().arg("--help"));
}

#[test]
fn no_such_target() {
    assert_cmd_snapshot!(mcc().args(["analyze", "fm_lenet5.onnx", "--target", "z80"]));
}

#[test]
fn no_c_for_the_host() {
    assert_cmd_snapshot!(mcc().args(["compile", "fm_lenet5.onnx", "--target", "host", "-o", "never", "--name", "net"]));
}

#[test]
fn no_c_identifier() {
    assert_cmd_snapshot!(mcc().args([
        "compile",
        "fm_lenet5.onnx",
        "--target",
        "stm32h7",
        "-o",
        "never",
        "--name",
        "a-b"
    ]));
}

#[test]
fn over_budget() {
    let line = "compile fm_lenet5.onnx --target stm32h7 --ram 2K --flash 100K -o never --name net";
    assert_cmd_snapshot!(mcc().args(line.split(' ')));
    assert!(!cli_support::models().join("never").exists());
}

#[test]
fn missing_file() {
    assert_cmd_snapshot!(mcc().args(["check", "none.onnx", "--target", "stm32h7"]));
}

#[test]
fn missing_arguments() {
    assert_cmd_snapshot!(mcc().args(["compile", "fm_lenet5.onnx"]));
}

#[test]
fn wrong_option_values() {
    assert_cmd_snapshot!(mcc().args(["check", "fm_lenet5.onnx", "--target", "host", "--input-dim", "batch"]));
}

#[test]
fn an_option_that_does_not_fit_the_model() {
    assert_cmd_snapshot!(mcc().args(["check", "fm_lenet5.onnx", "--target", "host", "--input-dim", "batch=1"]));
}

#[test]
fn a_wrong_step_of_preprocessing() {
    let line = "eval fm_lenet5.onnx --data fm_lenet5.npz --metric top1 --preprocess scale=1/255,layuot=nchw";
    assert_cmd_snapshot!(mcc().args(line.split(' ')));
}

#[test]
fn a_data_set_without_labels() {
    let line = "eval fm_lenet5.onnx --data fm_lenet5.npz --metric top1 --backend interp --target host";
    assert_cmd_snapshot!(mcc().args(line.split(' ')));
}

#[test]
fn no_such_pass() {
    assert_cmd_snapshot!(mcc().args(["opt", "fm_lenet5.onnx", "--pass", "fold,unfold"]));
}

#[test]
fn a_table_of_kernels() {
    assert_cmd_snapshot!(mcc().args(["analyze", "fm_lenet5.onnx", "--target", "generic-c"]));
}
