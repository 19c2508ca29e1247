//! The Plan: what runs, in order, with every buffer at its place in an arena.
//!
//! Passes make a Plan from a Graph; backends print it and hold no choice of their own. [`interp`] runs it on the
//! specification of each kernel, its loop nest.

pub mod interp;
pub mod text;
pub mod verify;

use crate::graph::Origin;
use crate::nest::Nest;
use crate::op::Op;
use crate::packing::Packing;
use crate::tensor::Tensor;
use crate::types::{QuantParams, TensorType};
use std::fmt;
use std::sync::Arc;

/// A buffer of the arena. Prints as `b3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub u32);

/// A constant of the plan. Prints as `k3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConstId(pub u32);

impl BufferId {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl ConstId {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for BufferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}", self.0)
    }
}

impl fmt::Display for ConstId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "k{}", self.0)
    }
}

/// What a buffer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferKind {
    /// Holds the model's input with this index before the first kernel runs.
    Input(usize),
    /// Holds the model's output with this index after the last kernel ran.
    Output(usize),
    /// A value between two kernels.
    Value,
    /// Working memory of one kernel.
    Scratch,
}

/// A piece of memory with a fixed size, live from kernel `first` to kernel `last`, both included.
#[derive(Clone, Debug, PartialEq)]
pub struct Buffer {
    pub kind: BufferKind,
    pub bytes: usize,
    /// Bytes from the start of the plan's arenas; `None` for inputs and outputs that the caller keeps outside.
    pub offset: Option<usize>,
    pub first: usize,
    pub last: usize,
    /// The buffer whose memory this one may take while it still lives: it dies in the kernel that fills this one.
    pub over: Option<Over>,
    /// The buffer of which this one is a part: a slice of it, or a piece that kernels fill one by one.
    pub within: Option<Within>,
    pub origin: Origin,
}

/// A place inside another buffer: the bytes there are the same memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Within {
    pub whole: BufferId,
    /// Bytes from the start of the whole.
    pub at: usize,
}

/// A piece of memory that the caller lends for a run. All arenas of a plan share one count of bytes: each begins where the
/// one before it ends, and no buffer lies in two of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arena {
    /// The target's memory that it is meant for, where the target has any.
    pub memory: Option<Arc<str>>,
    /// Offset of its first byte.
    pub start: usize,
}

impl Arena {
    /// One arena for the whole plan, in no named memory.
    pub fn whole() -> Vec<Arena> {
        vec![Arena { memory: None, start: 0 }]
    }
}

/// How a buffer may overlap another in the kernel that reads that one for the last time and fills this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    pub donor: BufferId,
    pub how: Overlap,
}

/// Where a kernel's output may lie over one of its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// At the same offset: no byte of the output is written before the argument's byte there has been read.
    InPlace,
    /// At an offset that is at least so many bytes lower: the kernel reads and writes in ascending order, and the end of
    /// what is written never gets further than this ahead of what is still to be read.
    Ahead(usize),
    /// So that it ends at least so many bytes after the argument: the kernel reads and writes in descending order.
    Behind(usize),
}

/// A constant: the tensor that the loop nest reads, and how the kernel's implementation wants it laid out.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanConst {
    pub tensor: Tensor,
    pub packing: Packing,
    /// The target's memory that it is read from, where the target has any.
    pub memory: Option<Arc<str>>,
    pub origin: Origin,
}

impl PlanConst {
    /// The bytes that are emitted.
    pub fn packed(&self) -> Tensor {
        self.packing.apply(&self.tensor)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arg {
    Buffer(BufferId),
    Const(ConstId),
}

/// One step of the plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// What it computes, with concrete attributes.
    pub op: Op,
    /// The operator's inputs, in order.
    pub args: Vec<Arg>,
    /// The type under which each argument is read (a buffer may be read under several shapes).
    pub arg_types: Vec<TensorType>,
    pub out: BufferId,
    pub out_type: TensorType,
    /// The specification.
    pub nest: Nest,
    /// Constants of `nest.tables`, in order.
    pub tables: Vec<ConstId>,
    /// The catalogue's implementation, or [`crate::catalogue::NEST`].
    pub implementation: &'static str,
    pub scratch: Option<BufferId>,
    /// Multiply-accumulates of one run.
    pub macs: u64,
    /// Estimated cost of one run, in the unit of the target's cost table.
    pub cycles: f64,
    pub origin: Origin,
}

/// An input or output of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanPort {
    pub name: String,
    pub ty: TensorType,
    pub quant: Option<QuantParams>,
    pub buffer: BufferId,
}

/// Lower bounds of the arena, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The most bytes of whole buffers that live at one time under this schedule.
    pub live: usize,
    /// The largest single kernel if its output could overlap its inputs perfectly.
    pub operator: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub name: String,
    pub buffers: Vec<Buffer>,
    pub consts: Vec<PlanConst>,
    pub kernels: Vec<Kernel>,
    pub inputs: Vec<PlanPort>,
    pub outputs: Vec<PlanPort>,
    /// Bytes of all arenas.
    pub arena_bytes: usize,
    /// At least one, by start.
    pub arenas: Vec<Arena>,
    /// Alignment of every arena and of every offset, in bytes.
    pub alignment: usize,
    pub bounds: Bounds,
}

impl Plan {
    /// Bytes of an arena, by its index.
    pub fn bytes_of_arena(&self, arena: usize) -> usize {
        let end = self.arenas.get(arena + 1).map_or(self.arena_bytes, |next| next.start);
        end.saturating_sub(self.arenas[arena].start)
    }

    /// The arena that holds an offset, by its index.
    pub fn arena_at(&self, offset: usize) -> usize {
        self.arenas.partition_point(|a| a.start <= offset).saturating_sub(1)
    }

    /// The buffer that a buffer is a part of in the end, and how far into it: itself, where it is no part.
    pub fn root(&self, id: BufferId) -> (BufferId, usize) {
        let (mut root, mut at) = (id, 0usize);
        // A plan that is not verified could go round in circles.
        for _ in 0..self.buffers.len() {
            let Some(within) = self.buffers.get(root.index()).and_then(|b| b.within) else { break };
            (root, at) = (within.whole, at.saturating_add(within.at));
        }
        (root, at)
    }

    /// The first kernel during which the most bytes of the arena are in use.
    pub fn peak_kernel(&self) -> Option<usize> {
        (0..self.kernels.len()).rev().max_by_key(|k| self.live_bytes(*k))
    }

    /// Bytes of the arena that belong to a buffer which lives while kernel `now` runs, each rounded up to the alignment.
    pub fn live_bytes(&self, now: usize) -> usize {
        let mut spans: Vec<(usize, usize)> = self
            .buffers
            .iter()
            .filter(|b| b.first <= now && now <= b.last)
            .filter_map(|b| b.offset.map(|at| (at, at + b.bytes.next_multiple_of(self.alignment))))
            .collect();
        spans.sort_unstable();
        let (mut total, mut end) = (0, 0);
        for (from, to) in spans {
            total += to.saturating_sub(from.max(end));
            end = end.max(to);
        }
        total
    }

    /// Bytes of the arena that a kernel needs if its output overlaps its inputs perfectly: the greater of both.
    pub fn operator_bytes(&self, kernel: usize) -> usize {
        let size = |id: BufferId| self.buffers[id.index()].offset.map_or(0, |_| self.buffers[id.index()].bytes);
        let k = &self.kernels[kernel];
        let mut inputs: Vec<BufferId> =
            k.args.iter().filter_map(|a| if let Arg::Buffer(b) = a { Some(*b) } else { None }).collect();
        inputs.sort();
        inputs.dedup();
        inputs.into_iter().map(size).sum::<usize>().max(size(k.out))
    }

    pub fn buffer(&self, id: BufferId) -> &Buffer {
        &self.buffers[id.index()]
    }

    pub fn constant(&self, id: ConstId) -> &PlanConst {
        &self.consts[id.index()]
    }

    /// A kernel's arguments that are constants, as a catalogue's offer wants them.
    pub fn constants(&self, kernel: &Kernel) -> Vec<Option<&Tensor>> {
        let value = |arg: &Arg| match arg {
            Arg::Const(c) => self.consts.get(c.index()).map(|c| &c.tensor),
            Arg::Buffer(_) => None,
        };
        kernel.args.iter().map(value).collect()
    }

    /// Bytes of all constants as emitted.
    pub fn const_bytes(&self) -> usize {
        self.consts.iter().map(|c| c.packing.packed_type(c.tensor.ty()).bytes()).sum()
    }

    pub fn macs(&self) -> u64 {
        self.kernels.iter().map(|k| k.macs).sum()
    }
}
