//! The five ways to run a model, behind one face.

use clap::ValueEnum;
use indicatif::ProgressBar;
use mcc::backends::c::CSource;
use mcc::backends::c::exec::{self, Core, Sample};
use mcc::backends::targets;
use mcc::ir::graph::Port;
use mcc::ir::target::Backend as Family;
use mcc::ir::{Graph, Plan, Target, Tensor, TensorType, eval, plan};
use mcc::{Error, Model, Result, Session};
use rayon::prelude::*;
use serde::Serialize;

/// Flags of an ordinary build of emitted C on the host.
const HOST_FLAGS: &[&str] = &["-std=c11", "-O2"];

/// What runs the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// The reference evaluator, on the integer graph
    Interp,
    /// The interpreter of the plan: kernels by their loop nests, in the arena
    Plan,
    /// Code compiled just in time for this machine
    Jit,
    /// Emitted C, built with the host's compiler
    C,
    /// Emitted C, built for a microcontroller and run in QEMU
    Qemu,
}

impl Backend {
    /// The target that is assumed where the user names none.
    fn default_target(self) -> &'static str {
        match self {
            Backend::Interp | Backend::Plan | Backend::Jit => "host",
            Backend::C => "generic-c",
            Backend::Qemu => "cortex-m4",
        }
    }

    /// The target to compile for. Says on stderr which one was assumed.
    ///
    /// # Errors
    /// Where there is no such target, or the backend does not serve it.
    pub fn target(self, name: Option<&str>) -> Result<&'static Target> {
        if name.is_none() {
            super::output::note(format_args!("no --target given: {} is assumed", self.default_target()));
        }
        let target = targets::find(name.unwrap_or(self.default_target()))?;
        let serves = match self {
            Backend::Interp | Backend::Plan => true,
            Backend::Jit => target.backend == Family::Jit,
            Backend::C | Backend::Qemu => target.backend == Family::C,
        };
        if serves {
            return Ok(target);
        }
        let name = self.to_possible_value().map_or(String::new(), |v| v.get_name().to_string());
        Err(Error::Usage(format!("backend `{name}` does not run code for target `{}`", target.name)))
    }
}

/// A model ready to run by one backend.
pub struct Executor {
    kind: Kind,
    inputs: Vec<(Port, TensorType)>,
    outputs: Vec<(Port, TensorType)>,
}

enum Kind {
    Interp(Graph),
    Plan(Plan),
    Jit(Box<Session>),
    C(CSource),
    Qemu(CSource, Core),
}

impl Executor {
    /// Compiles the model for a backend.
    ///
    /// # Errors
    /// Where an operator has no code there.
    pub fn new(backend: Backend, model: &Model) -> Result<Executor> {
        let kind = match backend {
            Backend::Interp => Kind::Interp(model.integer.clone()),
            Backend::Plan => Kind::Plan(model.plan()?),
            Backend::Jit => Kind::Jit(Box::new(model.session()?)),
            Backend::C => Kind::C(model.c_source("model")?),
            Backend::Qemu => Kind::Qemu(model.c_source("model")?, Core::of(&model.target)?),
        };
        let graph = &model.integer;
        let ports = |ports: &[Port]| ports.iter().map(|p| (p.clone(), graph.ty(p.value).clone())).collect();
        Ok(Executor { kind, inputs: ports(&graph.inputs), outputs: ports(&graph.outputs) })
    }

    /// Inputs with their types, in order.
    pub fn inputs(&self) -> &[(Port, TensorType)] {
        &self.inputs
    }

    /// Outputs with their types, in order.
    pub fn outputs(&self) -> &[(Port, TensorType)] {
        &self.outputs
    }

    /// Runs every sample, one tensor an input, and returns its outputs.
    ///
    /// # Errors
    /// Where a tool is missing or a run fails.
    pub fn run(&mut self, samples: &[Vec<Tensor>], progress: &ProgressBar) -> Result<Vec<Vec<Tensor>>> {
        let counted = |outputs: Result<Vec<Tensor>>| {
            progress.inc(1);
            outputs
        };
        match &mut self.kind {
            Kind::Interp(graph) => {
                samples.par_iter().map(|s| counted(eval::run(graph, s).map_err(Error::Ir))).collect()
            }
            Kind::Plan(plan) => samples.par_iter().map(|s| counted(Ok(plan::interp::run(plan, s)))).collect(),
            Kind::Jit(session) => samples.iter().map(|s| counted(session.run_tensors(s).map_err(Error::Run))).collect(),
            Kind::C(c) => {
                let bytes = exec::run_host(c, &raw(samples), HOST_FLAGS)?;
                progress.inc(samples.len() as u64);
                Ok(tensors(&self.outputs, bytes))
            }
            Kind::Qemu(c, core) => {
                let bytes = exec::run_qemu(c, *core, &raw(samples), &[])?;
                progress.inc(samples.len() as u64);
                Ok(tensors(&self.outputs, bytes))
            }
        }
    }
}

/// The bytes of the tensors of every sample.
pub fn raw(samples: &[Vec<Tensor>]) -> Vec<Sample> {
    samples.iter().map(|s| s.iter().map(|t| t.bytes().to_vec()).collect()).collect()
}

/// Outputs as tensors. The driver returns as many bytes as the ports have.
pub fn tensors(ports: &[(Port, TensorType)], samples: Vec<Sample>) -> Vec<Vec<Tensor>> {
    let one = |((_, ty), bytes): (&(Port, TensorType), Vec<u8>)| {
        Tensor::from_bytes(ty.clone(), bytes).expect("the driver returns the bytes of the ports")
    };
    samples.into_iter().map(|s| ports.iter().zip(s).map(one).collect()).collect()
}
