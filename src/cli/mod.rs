//! The subcommands, one file each, and what they share.
//!
//! Data goes to stdout; remarks and errors go to stderr. Exit codes: 0 done, 1 the model or a file is at fault, 2 over
//! budget, 3 a numeric check failed, 4 a fault of mcc, 64 wrong usage.

mod analyze;
mod args;
mod bench;
mod calibration;
mod check;
mod compare;
mod compile;
mod costs;
mod eval;
mod executor;
mod explain;
mod lists;
mod npz;
mod opt;
mod output;
mod preprocess;
mod prune;
mod quantize;
mod render;
mod requant;
mod run;
mod tap;
mod validate;

use clap::{Parser, Subcommand};
use std::io::Write;
use std::process::ExitCode;

/// Deep graphs are walked by recursion.
const STACK_BYTES: usize = 256 << 20;

const USAGE: u8 = 64;
const INTERNAL: u8 = 4;

/// A deep-learning compiler for micro-AI: ONNX models become C for microcontrollers and JIT-compiled host code.
#[derive(Debug, Parser)]
#[command(
    name = "mcc",
    version,
    term_width = 100,
    after_help = "\
Exit codes: 0 done, 1 the model or a file is at fault, 2 over budget, 3 a numeric check failed, 4 a fault of mcc, \
64 wrong usage.

Example:
  mcc compile model.onnx --target stm32h7 -o out --name net"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Compile(compile::Args),
    Quantize(quantize::Args),
    Prune(prune::Args),
    Run(run::Args),
    Eval(eval::Args),
    Bench(bench::Args),
    Analyze(analyze::Args),
    Explain(explain::Args),
    Validate(validate::Args),
    Check(check::Args),
    Opt(opt::Args),
    Targets(lists::TargetsArgs),
    Ops(lists::OpsArgs),
    Passes(lists::PassesArgs),
}

impl Command {
    fn run(&self) -> mcc::Result<ExitCode> {
        let done = match self {
            Command::Check(args) => return check::run(args),
            Command::Compile(args) => compile::run(args),
            Command::Quantize(args) => quantize::run(args),
            Command::Prune(args) => prune::run(args),
            Command::Run(args) => run::run(args),
            Command::Eval(args) => eval::run(args),
            Command::Bench(args) => bench::run(args),
            Command::Analyze(args) => analyze::run(args),
            Command::Explain(args) => explain::run(args),
            Command::Validate(args) => validate::run(args),
            Command::Opt(args) => opt::run(args),
            Command::Targets(args) => lists::targets(args),
            Command::Ops(args) => lists::ops(args),
            Command::Passes(args) => lists::passes(args),
        };
        done.map(|()| ExitCode::SUCCESS)
    }
}

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // A reader that has gone away is no error.
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { USAGE } else { 0 });
        }
    };
    std::panic::set_hook(Box::new(internal_error));
    let worker = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || cli.command.run());
    match worker.map(|w| w.join()) {
        Ok(Ok(Ok(code))) => code,
        Ok(Ok(Err(error))) => {
            let _ = std::io::stderr().write_all(render::error(&error).as_bytes());
            ExitCode::from(error.exit_status() as u8)
        }
        // The hook has spoken.
        Ok(Err(_)) => ExitCode::from(INTERNAL),
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "error[E0900]: no thread can be started: {e}");
            ExitCode::from(INTERNAL)
        }
    }
}

/// Says in one sentence what broke; the backtrace only where it is asked for.
fn internal_error(info: &std::panic::PanicHookInfo<'_>) {
    let what = info.payload_as_str().unwrap_or("a panic").lines().next().unwrap_or_default();
    let place = info.location().map_or(String::new(), |l| format!(" at {}:{}", l.file(), l.line()));
    let mut err = std::io::stderr().lock();
    let _ = writeln!(err, "error[E0900]: internal error{place}: {what}");
    let _ = writeln!(err, "  = help: this is a fault of mcc; please report it with the model and the command");
    if std::env::var_os("RUST_BACKTRACE").is_some_and(|v| v != "0") {
        let _ = writeln!(err, "{}", std::backtrace::Backtrace::force_capture());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_help_text_ends_in_an_example() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(|h| h.to_string()).unwrap_or_default();
            let last = help.lines().last().unwrap_or_default().trim();
            let name = command.get_name();
            assert!(help.contains("Example") && last.starts_with(&format!("mcc {name}")), "{name}: {help}");
        }
    }
}
