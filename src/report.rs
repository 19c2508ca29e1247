//! The compile report: what each kernel costs, and what the whole model needs.
//!
//! Bytes of constants and of the arena are exact. Code size is an estimate and named so: it depends on the C compiler.
//! The report depends on the plan and the target only, so that equal compilations give equal files.

use mcc_ir::Target;
use mcc_ir::costs::Unit;
use mcc_ir::op::{Op, Step};
use mcc_ir::plan::{Arg, Buffer, BufferId, BufferKind, Kernel, Plan, PlanPort};
use mcc_ir::target::{Feature, Memory, MemoryKind};
use serde::Serialize;
use std::collections::HashSet;
use std::sync::Arc;

/// One kernel of a plan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KernelReport {
    pub index: usize,
    /// The operator's name in the text form.
    pub op: &'static str,
    /// The steps of its epilogue, in order.
    pub fused: Vec<String>,
    /// The catalogue's implementation, or `nest`.
    pub implementation: &'static str,
    /// The ONNX nodes that it was made from.
    pub origin: Vec<String>,
    pub output_shape: Vec<usize>,
    pub output_type: &'static str,
    /// Multiply-accumulates of one run.
    pub macs: u64,
    /// Estimate of one run, in [`Totals::cost_unit`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_estimate: Option<u64>,
    /// Bytes of its constants as emitted.
    pub weight_bytes: usize,
    /// Bytes of the arena in use while it runs, its scratch included.
    pub live_bytes: usize,
    pub scratch_bytes: usize,
}

impl KernelReport {
    /// The operator with the steps of its epilogue.
    pub fn title(&self) -> String {
        if self.fused.is_empty() { self.op.to_string() } else { format!("{}({})", self.op, self.fused.join(",")) }
    }

    /// The output's type, as `f32[1x10]`.
    pub fn output(&self) -> String {
        let dims: Vec<String> = self.output_shape.iter().map(usize::to_string).collect();
        format!("{}[{}]", self.output_type, dims.join("x"))
    }
}

/// An input or output of the model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PortReport {
    pub name: String,
    pub shape: Vec<usize>,
    #[serde(rename = "type")]
    pub dtype: &'static str,
    pub bytes: usize,
    /// Bytes from the start of its arena; absent where the caller keeps it outside.
    pub offset: Option<usize>,
    /// The memory of its arena, where the plan has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    pub scale: Option<f32>,
    pub zero_point: Option<i32>,
}

/// What the whole model needs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Totals {
    pub kernels: usize,
    pub macs: u64,
    /// Estimate of one run without wait states of memory, and what it counts: cycles, or instructions where cycles are not
    /// known. Absent where the target has no table of costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_estimate: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_unit: Option<&'static str>,
    /// These cycles at the chip's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms_estimate: Option<f64>,
    /// Bytes of all constants as emitted, each counted once.
    pub weight_bytes: usize,
    /// The most bytes in use at one time.
    pub peak_live_bytes: usize,
    pub arena_bytes: usize,
    /// No placement of whole buffers under this schedule needs less.
    pub arena_bound_live_bytes: usize,
    /// No schedule needs less: the largest kernel if its output overlapped its inputs perfectly.
    pub arena_bound_operator_bytes: usize,
    /// The index of that kernel.
    pub arena_bound_operator_kernel: Option<usize>,
    /// How much larger the arena is than each bound, in percent of the bound.
    pub arena_gap_live_percent: f64,
    pub arena_gap_operator_percent: f64,
    /// Inputs and outputs that the caller keeps outside the arena.
    pub io_bytes_outside_arena: usize,
    /// Arena and outside inputs and outputs; the stack is not in it.
    pub ram_bytes: usize,
    pub code_bytes_estimate: usize,
    /// Constants and estimated code.
    pub flash_bytes_estimate: usize,
}

/// What another rounding than the model's own changed, on random inputs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RequantReport {
    pub samples: u64,
    /// Elements of all outputs of all samples.
    pub elements: usize,
    pub differing: usize,
}

/// A piece of the arena.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BufferReport {
    /// `input`, `output`, `value` (the result of a kernel), `part` (of another) or `scratch` (a kernel's working memory).
    pub kind: &'static str,
    /// Bytes from the start of its arena.
    pub offset: usize,
    /// The memory of its arena, where the plan has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    pub bytes: usize,
    /// The first and the last kernel during which it lives.
    pub first: usize,
    pub last: usize,
    /// The ONNX nodes behind it.
    pub origin: Vec<String>,
}

/// An arena: memory that the caller lends.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ArenaReport {
    /// The memory of the target that it is meant for; null where the target has none.
    pub memory: Option<String>,
    pub bytes: usize,
}

/// A memory of the target, and what the model takes of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemoryReport {
    pub name: String,
    pub kind: MemoryKind,
    pub bytes: usize,
    pub arena_bytes: usize,
    pub const_bytes: usize,
    pub code_bytes_estimate: usize,
}

/// A model's needs on a target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub mcc: &'static str,
    pub model: String,
    pub target: String,
    pub inputs: Vec<PortReport>,
    pub outputs: Vec<PortReport>,
    pub kernels: Vec<KernelReport>,
    pub memory: Vec<BufferReport>,
    pub arenas: Vec<ArenaReport>,
    pub memories: Vec<MemoryReport>,
    pub totals: Totals,
    /// Absent where every rounding is the model's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requant: Option<RequantReport>,
}

impl Report {
    pub fn of(plan: &Plan, target: &Target) -> Report {
        let kernels: Vec<KernelReport> =
            plan.kernels.iter().enumerate().map(|(i, k)| kernel(plan, target, i, k)).collect();
        let ports = |ports: &[PlanPort]| ports.iter().map(|p| port(plan, p)).collect::<Vec<_>>();
        let (inputs, outputs) = (ports(&plan.inputs), ports(&plan.outputs));
        let outside: usize = inputs.iter().chain(&outputs).filter(|p| p.offset.is_none()).map(|p| p.bytes).sum();
        let (weight_bytes, code) = (plan.const_bytes(), code_estimate(plan, target));
        let totals = Totals {
            kernels: kernels.len(),
            macs: plan.macs(),
            cost_estimate: cost(target, plan.kernels.iter().map(|k| k.cycles).sum()),
            cost_unit: has_costs(target).then(|| target.table.unit.name()),
            latency_ms_estimate: latency(plan, target),
            weight_bytes,
            peak_live_bytes: kernels.iter().map(|k| k.live_bytes).max().unwrap_or(0),
            arena_bytes: plan.arena_bytes,
            arena_bound_live_bytes: plan.bounds.live,
            arena_bound_operator_bytes: plan.bounds.operator,
            arena_bound_operator_kernel: (0..plan.kernels.len()).rev().max_by_key(|k| plan.operator_bytes(*k)),
            arena_gap_live_percent: gap(plan.arena_bytes, plan.bounds.live),
            arena_gap_operator_percent: gap(plan.arena_bytes, plan.bounds.operator),
            io_bytes_outside_arena: outside,
            ram_bytes: plan.arena_bytes + outside,
            code_bytes_estimate: code,
            flash_bytes_estimate: weight_bytes + code,
        };
        Report {
            mcc: env!("CARGO_PKG_VERSION"),
            model: plan.name.clone(),
            target: target.name.clone(),
            inputs,
            outputs,
            kernels,
            memory: plan.buffers.iter().filter_map(|b| buffer(plan, b)).collect(),
            arenas: (0..plan.arenas.len()).map(|i| arena(plan, i)).collect(),
            memories: memories(plan, target, code),
            totals,
            requant: None,
        }
    }

    /// What lies in the arena while a kernel runs, by offset.
    pub fn live(&self, kernel: usize) -> Vec<&BufferReport> {
        let mut live: Vec<_> = self.memory.iter().filter(|b| b.first <= kernel && kernel <= b.last).collect();
        live.sort_by_key(|b| (b.memory.clone(), b.offset, b.first));
        live
    }

    /// The kernel during which most of the arena lives.
    pub fn peak(&self) -> Option<&KernelReport> {
        // The first of several.
        self.kernels.iter().rev().max_by_key(|k| k.live_bytes)
    }
}

fn has_costs(target: &Target) -> bool {
    !target.table.cycles.0.is_empty()
}

fn cost(target: &Target, cycles: f64) -> Option<u64> {
    has_costs(target).then(|| cycles.round() as u64)
}

/// Milliseconds of one run, to a hundredth; `None` where the cycles or the clock are not known.
fn latency(plan: &Plan, target: &Target) -> Option<f64> {
    let cycles: f64 = plan.kernels.iter().map(|k| k.cycles).sum();
    let mhz = target.mhz.filter(|_| has_costs(target) && target.table.unit == Unit::Cycles)?;
    Some((cycles / mhz / 10.0).round() / 100.0)
}

/// How much larger `size` is than `bound`, in percent of it, with two decimals.
fn gap(size: usize, bound: usize) -> f64 {
    match bound {
        0 => 0.0,
        _ => (1e4 * (size as f64 / bound as f64 - 1.0)).round() / 100.0,
    }
}

fn port(plan: &Plan, p: &PlanPort) -> PortReport {
    PortReport {
        name: p.name.clone(),
        shape: p.ty.shape.clone(),
        dtype: p.ty.dtype.name(),
        bytes: p.ty.bytes(),
        offset: plan.buffer(p.buffer).offset.map(|at| place(plan, at).0),
        memory: plan.buffer(p.buffer).offset.and_then(|at| place(plan, at).1),
        scale: p.quant.map(|q| q.scale.0),
        zero_point: p.quant.map(|q| q.zero_point),
    }
}

/// `None` for what the caller keeps outside the arena.
fn buffer(plan: &Plan, b: &Buffer) -> Option<BufferReport> {
    let (offset, memory) = place(plan, b.offset?);
    Some(BufferReport {
        kind: match b.kind {
            _ if b.within.is_some() => "part",
            BufferKind::Input(_) => "input",
            BufferKind::Output(_) => "output",
            BufferKind::Value => "value",
            BufferKind::Scratch => "scratch",
        },
        offset,
        memory,
        bytes: b.bytes,
        first: b.first,
        last: b.last,
        origin: b.origin.iter().map(|n| n.to_string()).collect(),
    })
}

/// Bytes from the start of an arena, and its memory where there are several.
fn place(plan: &Plan, offset: usize) -> (usize, Option<String>) {
    let arena = &plan.arenas[plan.arena_at(offset)];
    let memory = arena.memory.as_ref().filter(|_| plan.arenas.len() > 1);
    (offset - arena.start, memory.map(|m| m.to_string()))
}

fn arena(plan: &Plan, i: usize) -> ArenaReport {
    ArenaReport { memory: plan.arenas[i].memory.as_ref().map(|m| m.to_string()), bytes: plan.bytes_of_arena(i) }
}

/// The memory map. Code is in the first flash, like constants without a place of their own.
fn memories(plan: &Plan, target: &Target, code: usize) -> Vec<MemoryReport> {
    let flash = target.memories_of(MemoryKind::Flash).next();
    let of = |m: &Memory| {
        let here = |name: &Option<Arc<str>>| name.as_deref() == Some(m.name.as_str());
        let arenas = plan.arenas.iter().enumerate().filter(|(_, a)| here(&a.memory));
        let consts = plan.consts.iter().filter(|c| here(&c.memory));
        MemoryReport {
            name: m.name.clone(),
            kind: m.kind,
            bytes: m.bytes,
            arena_bytes: arenas.map(|(i, _)| plan.bytes_of_arena(i)).sum(),
            const_bytes: consts.map(|c| c.packing.packed_type(c.tensor.ty()).bytes()).sum(),
            code_bytes_estimate: if flash.is_some_and(|f| f.name == m.name) { code } else { 0 },
        }
    };
    target.memories.iter().map(of).collect()
}

fn kernel(plan: &Plan, target: &Target, index: usize, k: &Kernel) -> KernelReport {
    let used: HashSet<_> = k
        .args
        .iter()
        .filter_map(|a| match a {
            Arg::Const(c) => Some(*c),
            Arg::Buffer(_) => None,
        })
        .chain(k.tables.iter().copied())
        .collect();
    let const_bytes = |c: &mcc_ir::plan::ConstId| {
        let c = plan.constant(*c);
        c.packing.packed_type(c.tensor.ty()).bytes()
    };
    KernelReport {
        index,
        op: k.op.name(),
        fused: fused(&k.op),
        implementation: k.implementation,
        origin: k.origin.iter().map(|n| n.to_string()).collect(),
        output_shape: k.out_type.shape.clone(),
        output_type: k.out_type.dtype.name(),
        macs: k.macs,
        cost_estimate: cost(target, k.cycles),
        weight_bytes: used.iter().map(const_bytes).sum(),
        live_bytes: plan.live_bytes(index),
        scratch_bytes: k.scratch.map_or(0, |b: BufferId| plan.buffer(b).bytes),
    }
}

/// The names of an epilogue's steps. A chain is its steps; the first is the operator's own name where it has only one.
fn fused(op: &Op) -> Vec<String> {
    let steps = match op {
        Op::Map(steps) if steps.len() == 1 => &[],
        op => op.post().map_or(&[][..], Vec::as_slice),
    };
    let name = |s: &Step| match s {
        Step::Requant { .. } => "requant".to_string(),
        Step::Dequant(_) => "dequant".to_string(),
        Step::Quant { .. } => "quant".to_string(),
        Step::Cast(d) => format!("cast_{d}"),
        one => Op::Map(vec![one.clone()]).name().to_string(),
    };
    steps.iter().map(name).collect()
}

/// Bytes of code: the mean of what `arm-none-eabi-gcc -O3` makes of each family of kernels, for a Cortex-M4 without and a
/// Cortex-M55 with vectors. Whole models of the test corpus are off by up to 30 %.
fn code_estimate(plan: &Plan, target: &Target) -> usize {
    const CHECKS_AND_HELPERS: usize = 300;
    let kernel = |k: &Kernel| {
        let float = k.arg_types.first().is_some_and(|t| t.dtype.is_float());
        let depthwise = matches!(&k.op, Op::Conv2d(c) if c.groups > 1);
        let scalar = match (&k.op, float) {
            (Op::Conv2d(_) | Op::ConvTranspose2d(_), true) => 600,
            (Op::Conv2d(_), false) if depthwise => 1900,
            (Op::Conv2d(_) | Op::ConvTranspose2d(_), false) => 1500,
            (Op::MatMul(_), true) => 400,
            (Op::MatMul(_), false) => 600,
            (Op::Softmax(_) | Op::LayerNorm(_) | Op::Resize(_), _) => 1100,
            _ => 350,
        };
        // GCC vectorises float loops for Helium, and peels them.
        if float && target.has(Feature::Mve) { scalar * 5 / 2 } else { scalar }
    };
    CHECKS_AND_HELPERS + plan.kernels.iter().map(kernel).sum::<usize>()
}
