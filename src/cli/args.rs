//! Options that several commands share.

use clap::ValueEnum;
use mcc::backends::targets;
use mcc::frontend::ImportOptions;
use mcc::ir::Target;
use mcc::ir::target::Backend as Family;
use mcc::passes::Requant;
use mcc::passes::lower::{Force, Goal, Io, Patch};
use mcc::{Error, Model, Options, Result};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The model and what the user says about it.
#[derive(Clone, Debug, clap::Args)]
pub struct ModelArgs {
    /// ONNX model, or a graph in the text form (.mcc, with its .safetensors beside it)
    pub model: PathBuf,
    /// Size of a symbolic dimension; may be given more than once
    #[arg(long = "input-dim", value_name = "NAME=SIZE", value_parser = parse_dim)]
    pub input_dims: Vec<(String, usize)>,
    /// Shape of an input; may be given more than once
    #[arg(long = "input-shape", value_name = "NAME=SIZE,SIZE,...", value_parser = parse_shape)]
    pub input_shapes: Vec<(String, Vec<usize>)>,
}

impl ModelArgs {
    pub fn import(&self) -> ImportOptions {
        ImportOptions {
            input_dims: self.input_dims.iter().cloned().collect::<BTreeMap<_, _>>(),
            input_shapes: self.input_shapes.iter().cloned().collect::<BTreeMap<_, _>>(),
        }
    }

    pub fn options(&self, target: &Target, choices: &ChoiceArgs) -> Options {
        Options {
            target: target.clone(),
            import: self.import(),
            io: Io::default(),
            goal: choices.goal(),
            requant: choices.requant(),
            spread: false,
            patch: Patch::default(),
            ram: target.ram,
            force: choices.force.clone(),
            threads: 1,
            cache: None,
        }
    }

    /// Imports the model and runs all passes for a target.
    ///
    /// # Errors
    /// Where the model is not supported.
    pub fn load(&self, target: &Target, choices: &ChoiceArgs) -> Result<Model> {
        Model::load(&self.model, &self.options(target, choices))
    }
}

/// A model, a target, and how to lower the one for the other.
#[derive(Clone, Debug, clap::Args)]
pub struct PlanArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    choices: ChoiceArgs,
    #[command(flatten)]
    memory: MemoryArgs,
    /// Chip, core, `generic-c` or `host`; `mcc targets` lists them
    #[arg(long)]
    target: String,
    /// Where inputs and outputs live
    #[arg(long, value_enum, default_value_t)]
    io: IoArg,
}

impl PlanArgs {
    /// Imports the model and runs all passes for the target.
    ///
    /// # Errors
    /// Where there is no such target or memory, or the model is not supported.
    pub fn load(&self) -> Result<Model> {
        let target = targets::find(&self.target)?;
        let options = Options { io: self.io.into(), ..self.model.options(target, &self.choices) };
        Model::load(&self.model.model, &self.memory.choose(options)?)
    }
}

/// How a session on this machine is made.
#[derive(Clone, Debug, clap::Args)]
pub struct SessionArgs {
    /// Threads that share the large layers of a run on this machine; results do not depend on it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: u16,
    /// Keep the optimised graph in this folder, and take it from there the next time; only for folders that nobody else
    /// writes
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
}

impl SessionArgs {
    pub fn choose(&self, options: Options) -> Options {
        Options { threads: self.threads.into(), cache: self.cache.clone(), ..options }
    }
}

/// Which memories of the target a plan may use.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct MemoryArgs {
    /// RAM of the target that arenas may take, in this order: with one name the arena is there, with several it is spread
    /// over them. By default it is in the first that holds all of it, or spread where none does
    #[arg(long = "memory", value_name = "NAME,...", value_delimiter = ',')]
    memories: Vec<String>,
    /// Whether stages with large tensors are computed in strips of rows: `auto` where the memory is worth it or nothing
    /// else fits, `off`, or a number of strips for the stage where that saves most
    #[arg(long, value_name = "STRIPS", value_parser = parse_patch, default_value = "auto", hide_default_value = true)]
    patch: Patch,
}

impl MemoryArgs {
    /// The options with the target's memories as they were asked for.
    ///
    /// # Errors
    /// Where a memory is not the target's.
    pub fn choose(&self, mut options: Options) -> Result<Options> {
        if !self.memories.is_empty() {
            options.target = options.target.with_ram(&self.memories).map_err(|e| Error::Usage(e.to_string()))?;
            options.spread = self.memories.len() > 1;
            options.ram = options.target.ram;
        }
        options.patch = self.patch;
        Ok(options)
    }
}

/// What the compiler may choose.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ChoiceArgs {
    /// What kernels are chosen to save on a microcontroller
    #[arg(short = 'O', long = "optimize", value_enum, default_value_t, value_name = "GOAL")]
    optimize: GoalArg,
    /// How sums of products become small integers again
    #[arg(long, value_enum, default_value_t, value_name = "MODE")]
    requant: RequantArg,
    /// Implementation that a node is to have, whatever it costs; may be given more than once. `mcc explain` lists them
    #[arg(long, value_name = "NODE=IMPL", value_parser = parse_force)]
    force: Vec<Force>,
}

impl ChoiceArgs {
    fn requant(&self) -> Requant {
        match self.requant {
            RequantArg::Exact => Requant::Exact,
            RequantArg::Fast => Requant::Fast,
        }
    }

    fn goal(&self) -> Goal {
        match self.optimize {
            GoalArg::Time => Goal::Time,
            GoalArg::Balanced => Goal::Balanced,
            GoalArg::Size => Goal::Size,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum GoalArg {
    /// Cycles, whatever the flash
    Time,
    /// Cycles, where they are worth their flash
    #[default]
    Balanced,
    /// Flash
    Size,
}

/// How sums of products become small integers again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum RequantArg {
    /// As in the model: in floating point, ties to even
    #[default]
    Exact,
    /// In integers, for cores without FPU: few results differ, by one; the report counts them
    Fast,
}

/// Where inputs and outputs live in emitted C.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum IoArg {
    /// In the arena; a run may overwrite its inputs
    #[default]
    Arena,
    /// Outside, untouched
    Separate,
}

impl From<IoArg> for Io {
    fn from(io: IoArg) -> Io {
        match io {
            IoArg::Arena => Io::Arena,
            IoArg::Separate => Io::Separate,
        }
    }
}

/// The target with this name, for which C is emitted.
///
/// # Errors
/// Where there is none, or it is compiled for in another way.
pub fn c_target(name: &str) -> Result<&'static Target> {
    let target = targets::find(name)?;
    match target.backend {
        Family::C => Ok(target),
        Family::Jit => Err(Error::Usage(format!(
            "no C is written for target `{}`, which is compiled just in time: use `mcc run` or `mcc bench`, or embed \
             the library (`mcc::compile_file`); `--target generic-c` writes portable C",
            target.name
        ))),
    }
}

fn parse_dim(text: &str) -> std::result::Result<(String, usize), String> {
    let (name, size) = text.rsplit_once('=').ok_or("expected NAME=SIZE, such as batch=1")?;
    let size = size.parse().map_err(|_| format!("{size:?} is not a size"))?;
    Ok((name.to_string(), size))
}

fn parse_force(text: &str) -> std::result::Result<Force, String> {
    let (node, implementation) = text.rsplit_once('=').ok_or("expected NODE=IMPL, such as conv1=nest")?;
    Ok(Force { node: node.to_string(), implementation: implementation.to_string() })
}

fn parse_shape(text: &str) -> std::result::Result<(String, Vec<usize>), String> {
    let (name, sizes) = text.rsplit_once('=').ok_or("expected NAME=SIZE,SIZE,..., such as input=1,3,32,32")?;
    let sizes: std::result::Result<Vec<usize>, String> = sizes
        .split(',')
        .filter(|s| !s.is_empty())
        .map(|s| s.trim().parse().map_err(|_| format!("{s:?} is not a size")))
        .collect();
    Ok((name.to_string(), sizes?))
}

fn parse_patch(text: &str) -> std::result::Result<Patch, String> {
    match (text, text.parse()) {
        ("auto", _) => Ok(Patch::Auto),
        ("off", _) => Ok(Patch::Off),
        (_, Ok(strips @ 2..)) => Ok(Patch::Strips(strips)),
        _ => Err(format!("{text:?} is neither `auto`, `off` nor a number from 2 on")),
    }
}

/// Bytes, with K for 1024 and M for 1024 * 1024.
pub fn parse_bytes(text: &str) -> std::result::Result<usize, String> {
    let (digits, factor) = match text.trim_end_matches(['b', 'B']) {
        t if t.ends_with(['k', 'K']) => (&t[..t.len() - 1], 1usize << 10),
        t if t.ends_with(['m', 'M']) => (&t[..t.len() - 1], 1 << 20),
        t => (t, 1),
    };
    let n: Option<usize> = digits.parse().ok();
    n.and_then(|n| n.checked_mul(factor))
        .ok_or_else(|| format!("{text:?} is not a size in bytes, such as 65536 or 64K"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_equal_signs() {
        assert_eq!(parse_dim("a=b=3"), Ok(("a=b".into(), 3)));
        assert_eq!(parse_shape("x=1,3,2"), Ok(("x".into(), vec![1, 3, 2])));
        assert_eq!(parse_shape("x="), Ok(("x".into(), vec![])));
        assert!(parse_dim("batch").is_err() && parse_dim("batch=-1").is_err() && parse_shape("x=1,?").is_err());
    }

    #[test]
    fn strips_are_a_number_or_a_word() {
        assert_eq!(parse_patch("auto"), Ok(Patch::Auto));
        assert_eq!(parse_patch("off"), Ok(Patch::Off));
        assert_eq!(parse_patch("4"), Ok(Patch::Strips(4)));
        assert!(parse_patch("1").is_err() && parse_patch("on").is_err() && parse_patch("-2").is_err());
    }

    #[test]
    fn bytes_take_a_suffix() {
        assert_eq!(parse_bytes("64K"), Ok(65536));
        assert_eq!(parse_bytes("2MB"), Ok(2 << 20));
        assert_eq!(parse_bytes("17"), Ok(17));
        assert!(parse_bytes("99999999999999M").is_err() && parse_bytes("K").is_err() && parse_bytes("").is_err());
    }
}
