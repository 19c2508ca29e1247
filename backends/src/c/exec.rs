//! Builds emitted C and runs it: on the host, or on a Cortex-M emulated by QEMU.
//!
//! Everything happens in a temporary folder. A driver feeds a batch of samples from a file and writes the outputs to
//! another; before each run it fills the arena with junk, so that nothing can lean on an earlier run.

use super::CSource;
use super::writer::Writer;
use mcc_ir::Target;
use std::fmt::Display;
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
        }
    }
}

/// The bytes of the tensors of one sample.
pub type Sample = Vec<Vec<u8>>;

/// A core with a board in QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Core {
    M4,
    M7,
    M55,
}

impl Core {
    pub const ALL: [Core; 3] = [Core::M4, Core::M7, Core::M55];

    /// The core of a target.
    ///
    /// # Errors
    /// [`ExecError::NoBoard`] for targets without an emulated board.
    pub fn of(target: &Target) -> Result<Core, ExecError> {
        match target.core.as_str() {
            "cortex-m4" => Ok(Core::M4),
            "cortex-m7" => Ok(Core::M7),
            "cortex-m55" => Ok(Core::M55),
            _ => Err(ExecError::NoBoard(target.name.clone())),
        }
    }

    fn machine(self) -> &'static str {
        match self {
            Core::M4 => "mps2-an386",
            Core::M7 => "mps2-an500",
            Core::M55 => "mps3-an547",
        }
    }

    /// The compiler's flags for the core.
    pub fn flags(self) -> &'static [&'static str] {
        match self {
            Core::M4 => &["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"],
            Core::M7 => &["-mcpu=cortex-m7", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"],
            Core::M55 => &["-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard"],
        }
    }

    /// Bytes of code memory and of data memory.
    fn memory(self) -> [usize; 2] {
        match self {
            Core::M4 | Core::M7 => [4 << 20, 4 << 20],
            Core::M55 => [512 << 10, 512 << 10],
        }
    }
}

/// Builds emitted C with the host's `cc` under `flags` and runs it on every sample.
///
/// # Errors
/// Where the compiler is missing or complains, the program fails, or a sample does not fit the model.
pub fn run_host(c: &CSource, samples: &[Sample], flags: &[&str]) -> Result<Vec<Sample>, ExecError> {
    let folder = prepare(c, samples)?;
    let at = folder.path();
    std::fs::write(at.join("board.c"), include_str!("board/host.c"))?;
    let program = at.join("program");
    let mut cc = Command::new("cc");
    cc.args(flags).args(["model.c", "driver.c", "board.c"]).arg("-o").arg(&program).current_dir(at);
    build(cc, "cc", "gcc")?;
    run(Command::new(program), at, "program", "cc")?;
    collect(c, samples.len(), &at.join("out.bin"))
}

/// Builds emitted C for a Cortex-M core with `arm-none-eabi-gcc`, `-O3` and `flags`, and runs it in QEMU on every sample.
///
/// # Errors
/// As [`run_host`].
pub fn run_qemu(c: &CSource, core: Core, samples: &[Sample], flags: &[&str]) -> Result<Vec<Sample>, ExecError> {
    let folder = prepare(c, samples)?;
    let at = folder.path();
    let [flash, ram] = core.memory();
    let script = include_str!("board/cortex_m.ld")
        .replace("FLASH_BYTES", &flash.to_string())
        .replace("RAM_BYTES", &ram.to_string());
    std::fs::write(at.join("board.ld"), script)?;
    std::fs::write(at.join("board.c"), include_str!("board/cortex_m.c"))?;
    let mut cc = Command::new("arm-none-eabi-gcc");
    cc.args(core.flags()).arg("-O3").args(flags).args(["-ffunction-sections", "-fdata-sections", "-nostartfiles"]);
    cc.args(["--specs=nano.specs", "-T", "board.ld", "-Wl,--gc-sections", "board.c", "driver.c", "model.c"]);
    cc.args(["-o", "firmware.elf"]).current_dir(at);
    build(cc, "arm-none-eabi-gcc", "gcc-arm-none-eabi")?;
    let mut qemu = Command::new("qemu-system-arm");
    qemu.args(["-M", core.machine(), "-nographic", "-monitor", "none", "-serial", "none"]);
    qemu.args(["-semihosting-config", "enable=on,target=native", "-kernel", "firmware.elf"]);
    run(qemu, at, "qemu-system-arm", "qemu-system-arm")?;
    collect(c, samples.len(), &at.join("out.bin"))
}

/// A folder with the model, its driver and the input file.
fn prepare(c: &CSource, samples: &[Sample]) -> Result<tempfile::TempDir, ExecError> {
    let expected: Vec<usize> = c.inputs.iter().map(|p| p.bytes).collect();
    for (sample, tensors) in samples.iter().enumerate() {
        let found: Vec<usize> = tensors.iter().map(Vec::len).collect();
        if found != expected {
            return Err(ExecError::Inputs { sample, found, expected });
        }
    }
    let folder = tempfile::Builder::new().prefix("mcc-").tempdir()?;
    let at = folder.path();
    std::fs::write(at.join(format!("{}.h", c.name)), &c.header)?;
    std::fs::write(at.join("model.c"), &c.source)?;
    std::fs::write(at.join("driver.c"), driver(c, samples.len()))?;
    std::fs::write(at.join("in.bin"), samples.concat().concat())?;
    Ok(folder)
}

/// C that runs the model on `samples` samples.
fn driver(c: &CSource, samples: usize) -> String {
    let mut w = Writer::default();
    w.line("#include <stddef.h>");
    w.line("#include <string.h>");
    w.line(format!("#include \"{}.h\"", c.name));
    w.line("int io_read(void *to, size_t bytes);");
    w.line("int io_write(const void *from, size_t bytes);");
    w.line("int driver_main(void);");
    let memory = |w: &mut Writer, name: &dyn Display, bytes: usize| {
        w.line(format!("static _Alignas(16) unsigned char {name}[{}];", bytes.max(1)));
    };
    memory(&mut w, &"arena", c.arena_bytes);
    let mut places = vec!["arena".to_string()];
    for (kind, ports) in [("input", &c.inputs), ("output", &c.outputs)] {
        for (i, port) in ports.iter().enumerate() {
            match port.offset {
                Some(at) => places.push(format!("(void *)(arena + {at})")),
                None => {
                    memory(&mut w, &format_args!("{kind}_{i}"), port.bytes);
                    places.push(format!("(void *){kind}_{i}"));
                }
            }
        }
    }
    w.open("int driver_main(void)");
    w.open_for("sample", samples, 1);
    w.line("memset(arena, 0xA5, sizeof arena);");
    let (inputs, outputs) = places[1..].split_at(c.inputs.len());
    let each = |w: &mut Writer, call: &str, places: &[String], ports: &[super::CPort]| {
        for (place, port) in places.iter().zip(ports) {
            w.open(format!("if (!{call}({place}, {}))", port.bytes));
            w.line("return 97;");
            w.close();
        }
    };
    each(&mut w, "io_read", inputs, &c.inputs);
    w.line(format!("const int code = {}_run({});", c.name, places.join(", ")));
    w.open("if (code != 0)");
    w.line("return code;");
    w.close();
    each(&mut w, "io_write", outputs, &c.outputs);
    w.close();
    w.line("return 0;");
    w.close();
    w.finish()
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

/// Splits the output file into samples and tensors.
fn collect(c: &CSource, samples: usize, file: &Path) -> Result<Vec<Sample>, ExecError> {
    let bytes = std::fs::read(file)?;
    let sizes: Vec<usize> = c.outputs.iter().map(|p| p.bytes).collect();
    if bytes.len() != samples * sizes.iter().sum::<usize>() {
        let output = format!("it wrote {} bytes", bytes.len());
        return Err(ExecError::Run { status: "success".into(), output });
    }
    let mut rest = bytes.as_slice();
    let mut take = |n: usize| {
        let (head, tail) = rest.split_at(n);
        rest = tail;
        head.to_vec()
    };
    Ok((0..samples).map(|_| sizes.iter().map(|&n| take(n)).collect()).collect())
}
