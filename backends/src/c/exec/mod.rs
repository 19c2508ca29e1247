//! Builds emitted C and runs it: on the host, or on a microcontroller's core emulated by QEMU.
//!
//! Everything happens in a temporary folder. A driver feeds the samples of all models from a file and writes the outputs to
//! another; before each run it fills the arena with junk, so that nothing can lean on an earlier run.

mod core;
mod driver;
mod measure;

pub use self::core::{Core, Region, Tools};
pub use measure::{Measured, measure};

use super::CSource;
use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Flags of a build on the host that shows every warning as an error.
pub const STRICT: &[&str] = &["-std=c11", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Wpedantic", "-Werror"];

/// Further flags: undefined behaviour and stray accesses end the run.
pub const SANITIZED: &[&str] = &["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

/// Longest run of one batch.
const LIMIT: Duration = Duration::from_secs(600);

/// Why emitted C could not be built or run.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error("`{tool}` is not installed; it comes with the package {package}")]
    Missing { tool: &'static str, package: &'static str },
    #[error("`{tool}` failed:\n{output}")]
    Build { tool: &'static str, output: String },
    #[error("the program ended with {status}: {output}")]
    Run { status: String, output: String },
    #[error("the program ran for more than {} s", LIMIT.as_secs())]
    Timeout,
    #[error("sample {sample} has inputs of {found:?} bytes, the model takes {expected:?}")]
    Inputs { sample: usize, found: Vec<usize>, expected: Vec<usize> },
    #[error("no emulated board runs the core of target {0}")]
    NoBoard(String),
    #[error("the emulated board of {core} has {} bytes of code memory and {} of data memory, the model needs more", .memory[0], .memory[1])]
    TooLarge { core: &'static str, memory: [usize; 2] },
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl ExecError {
    /// The stable code shown to users.
    pub fn code(&self) -> &'static str {
        match self {
            ExecError::Missing { .. } => "E0420",
            ExecError::Build { .. } => "E0421",
            ExecError::Run { .. } | ExecError::Timeout => "E0422",
            ExecError::Inputs { .. } => "E0423",
            ExecError::NoBoard(_) => "E0424",
            ExecError::Io(_) => "E0425",
            ExecError::TooLarge { .. } => "E0426",
        }
    }
}

/// The bytes of the tensors of one sample.
pub type Sample = Vec<Vec<u8>>;

/// A model and the samples that it runs on.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    pub c: &'a CSource,
    pub samples: &'a [Sample],
}

/// Where emitted C runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// This machine, built by `cc` with nothing but the flags that are given.
    Host,
    /// A core that QEMU emulates, built by its cross compiler with `-O3` and the flags that are given.
    Qemu(Core),
}

impl Place {
    /// The compiler, its package and its flags for this place.
    fn compiler(self) -> (&'static str, &'static str, Vec<&'static str>) {
        let Place::Qemu(core) = self else { return ("cc", "gcc", Vec::new()) };
        let flags = [core.flags(), &["-O3", core.tools().library, "-ffunction-sections", "-fdata-sections"]].concat();
        (core.tools().cc, core.tools().cc_package, flags)
    }
}

/// Builds emitted C with the host's `cc` under `flags` and runs it on every sample.
///
/// # Errors
/// Where the compiler is missing or complains, the program fails, or a sample does not fit the model.
pub fn run_host(c: &CSource, samples: &[Sample], flags: &[&str]) -> Result<Vec<Sample>, ExecError> {
    Ok(run_all(Place::Host, &[Job { c, samples }], flags)?.remove(0))
}

/// Builds emitted C for a core and runs it in QEMU on every sample.
///
/// # Errors
/// As [`run_host`]; [`ExecError::TooLarge`] where the board's memory does not hold the program.
pub fn run_qemu(c: &CSource, core: Core, samples: &[Sample], flags: &[&str]) -> Result<Vec<Sample>, ExecError> {
    Ok(run_all(Place::Qemu(core), &[Job { c, samples }], flags)?.remove(0))
}

/// Builds many models, each with a name of its own, as one program and runs it once; as more programs where a board's
/// memory does not hold all. Returns the outputs of every sample of every model.
///
/// # Errors
/// As [`run_qemu`]. Where a run fails, the error names the first model and sample that did.
///
/// # Panics
/// Where two models have the same name.
pub fn run_all(place: Place, jobs: &[Job], flags: &[&str]) -> Result<Vec<Vec<Sample>>, ExecError> {
    let names: HashSet<&str> = jobs.iter().map(|job| job.c.name.as_str()).collect();
    assert_eq!(names.len(), jobs.len(), "models of one program have different names");
    driver::feed(jobs)?;
    let folder = tempfile::Builder::new().prefix("mcc-").tempdir()?;
    let at = folder.path();
    for job in jobs {
        std::fs::write(at.join(format!("{}.h", job.c.name)), &job.c.header)?;
        std::fs::write(at.join(format!("{}.c", job.c.name)), &job.c.source)?;
    }
    let board = match place {
        Place::Host => include_str!("../board/host.c"),
        Place::Qemu(core) => {
            std::fs::write(at.join("board.ld"), linker_script(core.memory()))?;
            include_str!("../board/bare.c")
        }
    };
    std::fs::write(at.join("board-of-mcc.c"), board)?;
    let names: Vec<&str> = jobs.iter().map(|job| job.c.name.as_str()).chain(["board-of-mcc"]).collect();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let parts = names.chunks(names.len().div_ceil(workers));
    std::thread::scope(|scope| {
        let parts: Vec<_> = parts.map(|part| scope.spawn(|| objects(place, at, part, flags))).collect();
        parts.into_iter().try_for_each(|part| part.join().expect("building does not panic"))
    })?;
    linked(place, at, jobs, flags)
}

fn linker_script([flash, ram]: [Region; 2]) -> String {
    include_str!("../board/bare.ld")
        .replace("FLASH_ORIGIN", &flash.origin.to_string())
        .replace("FLASH_BYTES", &flash.bytes.to_string())
        .replace("RAM_ORIGIN", &ram.origin.to_string())
        .replace("RAM_BYTES", &ram.bytes.to_string())
}

/// Compiles `NAME.c` to `NAME.o` for each name.
fn objects(place: Place, at: &Path, names: &[&str], flags: &[&str]) -> Result<(), ExecError> {
    let (cc, package, own) = place.compiler();
    let mut command = Command::new(cc);
    command.args(own).args(flags).arg("-c").args(names.iter().map(|n| format!("{n}.c"))).current_dir(at);
    build(command, cc, package)
}

/// Links the objects of the models and runs them; the two halves of the models where all are too large for a board.
fn linked(place: Place, at: &Path, jobs: &[Job], flags: &[&str]) -> Result<Vec<Vec<Sample>>, ExecError> {
    std::fs::write(at.join("driver-of-mcc.c"), driver::print(jobs, place != Place::Host))?;
    objects(place, at, &["driver-of-mcc"], flags)?;
    let (cc, package, own) = place.compiler();
    let program = at.join("program");
    let mut link = Command::new(cc);
    link.args(own).args(flags).args(["board-of-mcc.o", "driver-of-mcc.o"]).current_dir(at);
    link.args(jobs.iter().map(|job| format!("{}.o", job.c.name))).arg("-o").arg(&program);
    let (mut command, tool, package_of_tool) = match place {
        Place::Host => (Command::new(&program), "program", "gcc"),
        Place::Qemu(core) => {
            link.args(["-nostartfiles", "-T", "board.ld", "-Wl,--gc-sections"]);
            let tools = core.tools();
            let mut qemu = Command::new(tools.emulator);
            qemu.args(core.machine()).args(["-nographic", "-monitor", "none", "-serial", "none"]);
            qemu.args(["-semihosting-config", "enable=on,target=native", "-kernel"]).arg(&program);
            (qemu, tools.emulator, tools.emulator_package)
        }
    };
    match (build(link, cc, package), place) {
        (Err(ExecError::Build { output, .. }), Place::Qemu(core)) if output.contains("overflowed by") => {
            if jobs.len() == 1 {
                return Err(ExecError::TooLarge { core: core.name(), memory: core.memory().map(|m| m.bytes) });
            }
            let (head, tail) = jobs.split_at(jobs.len() / 2);
            return Ok([linked(place, at, head, flags)?, linked(place, at, tail, flags)?].concat());
        }
        (result, _) => result?,
    }
    std::fs::write(at.join("in.bin"), driver::feed(jobs)?)?;
    command.current_dir(at);
    let ended = run(command, at, tool, package_of_tool);
    let found = driver::split(jobs, &std::fs::read(at.join("out.bin")).unwrap_or_default());
    match (ended, found) {
        (Ok(()), Ok(found)) => Ok(found),
        (Ok(()), Err((status, output))) => Err(ExecError::Run { status, output }),
        // What the driver wrote up to its end tells which model it was at.
        (Err(ExecError::Run { status, output }), Err((_, at))) => {
            Err(ExecError::Run { status: format!("{status} at {at}"), output })
        }
        (Err(e), _) => Err(e),
    }
}

fn build(mut command: Command, tool: &'static str, package: &'static str) -> Result<(), ExecError> {
    match command.stdin(Stdio::null()).output() {
        Err(e) if e.kind() == ErrorKind::NotFound => Err(ExecError::Missing { tool, package }),
        Err(e) => Err(e.into()),
        Ok(out) if out.status.success() => Ok(()),
        Ok(out) => Err(ExecError::Build { tool, output: String::from_utf8_lossy(&out.stderr).into_owned() }),
    }
}

/// Runs a program in a folder, for at most [`LIMIT`].
fn run(mut command: Command, at: &Path, tool: &'static str, package: &'static str) -> Result<(), ExecError> {
    let log: PathBuf = at.join("log.txt");
    let file = std::fs::File::create(&log)?;
    command.current_dir(at).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let mut child = match command.spawn() {
        Err(e) if e.kind() == ErrorKind::NotFound => return Err(ExecError::Missing { tool, package }),
        child => child?,
    };
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            if status.success() {
                return Ok(());
            }
            let output = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
            return Err(ExecError::Run { status: status.to_string(), output });
        }
        if start.elapsed() > LIMIT {
            child.kill()?;
            child.wait()?;
            return Err(ExecError::Timeout);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
