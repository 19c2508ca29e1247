//! A model on its way through the compiler, with every stage at hand.

use crate::cache::Entry;
use crate::error::Result;
use crate::text_file;
use mcc_backends::{c, jit, targets};
use mcc_frontend::ImportOptions;
use mcc_ir::catalogue::Implementation;
use mcc_ir::target::Backend;
use mcc_ir::{Graph, Plan, Target};
use mcc_passes::lower::explain::{self, Choice};
use mcc_passes::lower::{self, Force, Goal, Io, Patch, lower};
use mcc_passes::{Changed, PassCx, Requant, pipeline};
use mcc_runtime::{Session, Threads};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How to compile.
#[derive(Clone, Debug)]
pub struct Options {
    pub target: Target,
    /// Sizes of symbolic dimensions and shapes of inputs.
    pub import: ImportOptions,
    /// Where inputs and outputs live. Sessions always keep them outside.
    pub io: Io,
    /// What kernels are chosen to save.
    pub goal: Goal,
    pub requant: Requant,
    /// Whether buffers fill the target's memories one after the other, also where one of them could hold all.
    pub spread: bool,
    /// Whether stages with large tensors are computed in strips.
    pub patch: Patch,
    /// RAM that a plan should keep to, if strips make it so; by default that of the target.
    pub ram: Option<usize>,
    /// Implementations that nodes have to have.
    pub force: Vec<Force>,
    /// Threads that share the large kernels of one run of a session, the caller's among them; 0 counts as 1. Results do not
    /// depend on it. With 1 there are no other threads, and a run takes no lock.
    pub threads: usize,
    /// A folder where optimised graphs are kept for the next time; none by default. Whoever may write there decides what
    /// sessions compute. See docs/embedding.md.
    pub cache: Option<PathBuf>,
}

impl Options {
    /// For this machine.
    pub fn host() -> Options {
        Self::for_target("host").expect("the target `host` is built in")
    }

    /// For a named target; see `mcc targets`.
    ///
    /// # Errors
    /// Where no target has this name or alias.
    pub fn for_target(name: &str) -> Result<Options> {
        let target = targets::find(name)?.clone();
        Ok(Options {
            ram: target.ram,
            patch: Patch::default(),
            target,
            import: ImportOptions::default(),
            io: Io::default(),
            goal: Goal::default(),
            requant: Requant::default(),
            spread: false,
            force: vec![],
            threads: 1,
            cache: None,
        })
    }
}

/// What one pass did.
#[derive(Clone, Debug)]
pub struct PassRecord {
    pub name: &'static str,
    pub changed: bool,
    pub time: Duration,
    /// Live values after the pass.
    pub values: usize,
}

/// A model after import and passes. Where `optimised` came from a cache, it stands for the stages before it as well, and no
/// passes have run.
#[derive(Clone, Debug)]
pub struct Model {
    /// ONNX, literally.
    pub imported: Graph,
    /// After `integerise`.
    pub exact: Graph,
    /// After `single-requant` where that was asked for, else as `exact`: what every executor computes.
    pub integer: Graph,
    /// The form that is lowered.
    pub optimised: Graph,
    pub target: Target,
    pub io: Io,
    pub goal: Goal,
    pub spread: bool,
    pub patch: Patch,
    pub ram: Option<usize>,
    pub force: Vec<Force>,
    /// Threads of a session.
    pub threads: usize,
    pub passes: Vec<PassRecord>,
    /// What passes had to say: sentences for the user, such as a limit that was hit.
    pub warnings: Vec<String>,
}

impl Model {
    /// Imports an ONNX file (or reads a graph in the text form, `.mcc`) and runs all passes for the target.
    ///
    /// # Errors
    /// Where the file is no model that mcc supports.
    pub fn load(path: impl AsRef<Path>, options: &Options) -> Result<Model> {
        Self::from_graph(text_file::load(path, &options.import)?, options)
    }

    /// Runs all passes on a graph, or finds in the cache what they made of it.
    ///
    /// # Errors
    /// Where the graph breaks the IR's rules.
    pub fn from_graph(imported: Graph, options: &Options) -> Result<Model> {
        let Some(folder) = &options.cache else { return Self::from_graph_with(imported, options, |_, _| {}) };
        let entry = Entry::new(folder, &imported, options);
        if let Some(optimised) = entry.read(&imported) {
            let (exact, integer) = (optimised.clone(), optimised.clone());
            return Ok(Self::of_stages(imported, exact, integer, optimised, options));
        }
        let mut model = Self::from_graph_with(imported, options, |_, _| {})?;
        // What passes had to say is said each time.
        if model.warnings.is_empty()
            && let Err(e) = entry.write(&model.optimised)
        {
            model.warnings.push(format!("the cache {} cannot be written: {e}", folder.display()));
        }
        Ok(model)
    }

    /// As [`Model::from_graph`]; `observe` sees the name of each pass and the graph after it.
    ///
    /// # Errors
    /// As [`Model::from_graph`].
    pub fn from_graph_with(
        imported: Graph,
        options: &Options,
        mut observe: impl FnMut(&'static str, &Graph),
    ) -> Result<Model> {
        mcc_ir::verify::verify(&imported)?;
        let mut graph = imported.clone();
        let mut exact = imported.clone();
        let mut integer = imported.clone();
        let mut passes = Vec::new();
        let mut start = Instant::now();
        let warnings = RefCell::new(Vec::new());
        let warn = |text| warnings.borrow_mut().push(text);
        let cx = PassCx { target: &options.target, requant: options.requant, warn: &warn };
        pipeline::run(&mut graph, &cx, |pass, changed, graph| {
            let time = start.elapsed();
            let changed = changed == Changed::Yes;
            passes.push(PassRecord { name: pass.name(), changed, time, values: graph.len() });
            if pass.name() == "integerise" {
                exact = graph.clone();
            }
            if ["integerise", "single-requant"].contains(&pass.name()) {
                integer = graph.clone();
            }
            observe(pass.name(), graph);
            start = Instant::now();
        })?;
        let warnings = warnings.into_inner();
        Ok(Model { passes, warnings, ..Self::of_stages(imported, exact, integer, graph, options) })
    }

    fn of_stages(imported: Graph, exact: Graph, integer: Graph, optimised: Graph, options: &Options) -> Model {
        Model {
            imported,
            exact,
            integer,
            optimised,
            target: options.target.clone(),
            io: options.io,
            goal: options.goal,
            spread: options.spread,
            patch: options.patch,
            ram: options.ram,
            force: options.force.clone(),
            threads: options.threads,
            passes: vec![],
            warnings: vec![],
        }
    }

    pub(crate) fn lowering(&self, io: Io) -> lower::Options {
        let force = self.force.clone();
        lower::Options { io, goal: self.goal, spread: self.spread, patch: self.patch, ram: self.ram, force }
    }

    /// The plan for the target.
    ///
    /// # Errors
    /// Where an operator has no code on the target.
    pub fn plan(&self) -> Result<Plan> {
        Ok(lower(&self.optimised, &self.target, catalogue(&self.target), self.lowering(self.io))?)
    }

    /// The plan for the target, and for each of its kernels what else there is.
    ///
    /// # Errors
    /// As [`Model::plan`].
    pub fn explained(&self) -> Result<(Plan, Vec<Choice>)> {
        let plan = self.plan()?;
        let choices = explain::explain(&plan, &self.target, catalogue(&self.target), &self.lowering(self.io));
        Ok((plan, choices))
    }

    /// The model compiled for this machine.
    ///
    /// # Errors
    /// Where an operator has no code on this machine.
    pub fn session(&self) -> Result<Session> {
        let plan = lower(&self.optimised, &self.target, mcc_runtime::CATALOGUE, self.lowering(Io::Separate))?;
        Ok(jit::compile_for_threads(&plan, Threads::new(self.threads))?)
    }

    /// The model as C for its target.
    ///
    /// # Errors
    /// Where an operator has no code on the target, or `name` is no C identifier.
    pub fn c_source(&self, name: &str) -> Result<c::CSource> {
        let plan = lower(&self.optimised, &self.target, c::CATALOGUE, self.lowering(self.io))?;
        Ok(c::emit(&plan, &self.target, &c::COptions { name: name.to_string() })?)
    }
}

/// The kernel implementations that a target's backend offers.
pub(crate) fn catalogue(target: &Target) -> &'static [Implementation] {
    match target.backend {
        Backend::C => c::CATALOGUE,
        Backend::Jit => mcc_runtime::CATALOGUE,
    }
}
