//! Lowering: a Graph becomes a Plan.
//!
//! Every live operator becomes one kernel, except that a reshape only gives its buffer another shape, and that slices and
//! concatenations which move nothing are parts of buffers. The cheapest
//! implementation (under a [`Goal`]) of the target's catalogue is chosen for each kernel, constants are packed for it, a schedule is chosen
//! for a low memory peak, and the buffers get their places in the arena.

pub mod arena;
mod choose;
pub mod explain;
mod patches;
mod schedule;
mod views;

use crate::error::{Error, Result};
use choose::{Candidate, Present, candidates, choose, present, total};
use mcc_ir::catalogue::{Implementation, KernelSpec};
use mcc_ir::graph::{Def, Graph, Origin, Port, ValueId};
use mcc_ir::nest::Nest;
use mcc_ir::op::{Op, Step};
use mcc_ir::packing::Packing;
use mcc_ir::plan::{
    Arena, Arg, Buffer, BufferId, BufferKind, ConstId, Kernel, Over, Overlap, Plan, PlanConst, PlanPort,
};
use mcc_ir::target::{Backend, Memory, MemoryKind};
use mcc_ir::types::TensorType;
use mcc_ir::{Target, Tensor, ops};
use std::collections::{HashMap, HashSet};

/// Where inputs and outputs of the model live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Io {
    /// In the arena; the run may overwrite an input after its last use.
    #[default]
    Arena,
    /// Outside, in memory of the caller; inputs stay untouched.
    Separate,
}

/// What a choice among implementations is to save.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Goal {
    /// Cycles, whatever the memory.
    Time,
    /// Cycles, where they are worth their flash and RAM.
    #[default]
    Balanced,
    /// Memory, except where a byte would save very many cycles.
    Size,
}

impl Goal {
    /// Cycles that a byte of the arena has to save, and of flash at most. The host has both in plenty.
    fn cycles_per_byte(self, target: &Target) -> f64 {
        match self {
            _ if target.backend == Backend::Jit => 0.0,
            Goal::Time => 0.0,
            Goal::Balanced => 100.0,
            Goal::Size => 1000.0,
        }
    }
}

/// How to lower.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub io: Io,
    pub goal: Goal,
    /// Whether buffers fill the target's memories one after the other, also where one of them could hold all.
    pub spread: bool,
    /// Whether stages with large tensors are computed in strips.
    pub patch: Patch,
    /// Bytes that arenas, inputs and outputs may take: a plan that needs more is made in strips, at any price.
    pub ram: Option<usize>,
    /// Implementations that nodes have to have, whatever they cost.
    pub force: Vec<Force>,
}

/// An implementation that the kernels of a node have to have; where a node is computed in strips, those kernels that it fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Force {
    /// One of the names of the node's origin.
    pub node: String,
    /// An id of the catalogue, or [`mcc_ir::catalogue::NEST`].
    pub implementation: String,
}

/// Whether stages with large tensors are computed strip by strip: see [`crate::patch`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Patch {
    /// Where the memory saved is worth its price in cycles and code, or where nothing else fits.
    #[default]
    Auto,
    Off,
    /// One stage in so many strips, wherever that saves most memory.
    Strips(usize),
}

impl From<Io> for Options {
    fn from(io: Io) -> Options {
        Options { io, ..Options::default() }
    }
}

/// Lowers a verified graph for a target.
///
/// # Errors
/// [`Error::Lower`] where an operator has no code on the target; [`Error::Force`] where a node has not the implementation
/// that it is to have; [`Error::Plan`] where the result breaks the plan's rules.
pub fn lower(
    graph: &Graph,
    target: &Target,
    catalogue: &[Implementation],
    options: impl Into<Options>,
) -> Result<Plan> {
    let options = options.into();
    explain::check_forced(graph, target, catalogue, &options)?;
    let lowered = patches::lower_in_patches(graph, target, catalogue, &options)?;
    mcc_ir::plan::verify::verify(&lowered.plan).map_err(Error::Plan)?;
    Ok(lowered.plan)
}

/// A plan, and what patches ask about it.
#[derive(Clone)]
struct Lowered {
    plan: Plan,
    /// Estimated cycles, with flash at its price.
    cost: f64,
    /// The value that each kernel computes; none for a copy.
    values: Vec<Option<ValueId>>,
}

/// Lowers a graph as it is.
fn lower_once(graph: &Graph, target: &Target, catalogue: &[Implementation], options: &Options) -> Result<Lowered> {
    let roots = roots(graph);
    let order = schedule::order(graph, &roots);
    let price = options.goal.cycles_per_byte(target);
    let maker = Maker { graph, target, catalogue, roots: &roots, force: &options.force };
    let mut offers = HashMap::new();
    for &id in &order {
        if let Some((op, inputs)) = graph.node(id).filter(|_| !views::moves_nothing(graph, id)) {
            offers.insert(id, maker.offered(op, inputs, graph.ty(id), &graph.value(id).origin)?);
        }
    }
    let all: Vec<&[Candidate]> =
        order.iter().filter_map(|id| offers.get(id)).map(|o| o.candidates.as_slice()).collect();
    let flash_price = flash_price(&all, options.goal, price);
    let present = present(&all, flash_price);
    let attempt = |avoided: &Avoided| {
        let mut lowering = Lowering::new(&maker, options, (&offers, &present, flash_price), avoided);
        for &id in &order {
            lowering.kernel(id)?;
        }
        lowering.finish()
    };
    let whole = |l: &Lowered| l.cost + price * l.plan.arena_bytes as f64;
    let mut avoided = Avoided::new();
    let mut now = attempt(&avoided)?;
    let mut best = now.clone();
    // An implementation's memory counts only where the arena is at its peak: there the next best may be the better one.
    for _ in 0..if price > 0.0 { PEAK_TRIES } else { 0 } {
        // Where all have been tried, the last one comes again.
        let Some(k) = now.plan.peak_kernel() else { break };
        if !avoided.insert((k, now.plan.kernels[k].implementation)) {
            break;
        }
        now = attempt(&avoided)?;
        if whole(&now) < whole(&best) {
            best = now.clone();
        }
    }
    Ok(best)
}

/// What a byte of flash is worth: where speed and memory are to be in balance, no more than one percent of the time for one
/// percent of the flash. So a model that is fast for its size does not slow down for a little code.
fn flash_price(offers: &[&[Candidate]], goal: Goal, price: f64) -> f64 {
    if goal != Goal::Balanced || price == 0.0 {
        return price;
    }
    let present = present(offers, price);
    let (cycles, bytes) = total(offers.iter().map(|all| choose(all, |_| true, &present, price)));
    if bytes > 0.0 { price.min(cycles / bytes) } else { price }
}

/// Plans that are made with another implementation at the peak of the arena.
const PEAK_TRIES: usize = 16;

/// Implementations that a kernel, by its place in the schedule, is not to have.
type Avoided = HashSet<(usize, &'static str)>;

/// For each value, the value whose memory holds it: itself, or through reshapes the one that was reshaped.
fn roots(graph: &Graph) -> Vec<ValueId> {
    let mut roots: Vec<ValueId> = Vec::with_capacity(graph.len());
    for (id, value) in graph.values() {
        roots.push(match &value.def {
            Def::Node { op: Op::Reshape { .. }, inputs } => roots[inputs[0].index()],
            _ => id,
        });
    }
    roots
}

/// What kernels that share their code have in common: operator, types, constants and implementation.
type CodeKey = (Op, Vec<TensorType>, Vec<Option<ConstId>>, &'static str);

/// What implementations depend on.
struct Maker<'a> {
    graph: &'a Graph,
    target: &'a Target,
    catalogue: &'a [Implementation],
    roots: &'a [ValueId],
    force: &'a [Force],
}

impl Maker<'_> {
    /// What there is for an operator on graph values.
    fn offered(&self, op: &Op, inputs: &[ValueId], out_type: &TensorType, origin: &Origin) -> Result<Offered> {
        let arg_types: Vec<TensorType> = inputs.iter().map(|v| self.graph.ty(*v).clone()).collect();
        let types: Vec<&TensorType> = arg_types.iter().collect();
        let nest = ops::nest(op, &types, out_type).map_err(|e| Error::Lower {
            node: origin.join(", "),
            ty: out_type.to_string(),
            target: self.target.name.clone(),
            reason: e.to_string(),
        })?;
        let consts: Vec<Option<&Tensor>> = inputs.iter().map(|v| self.graph.constant(self.roots[v.index()])).collect();
        let spec = KernelSpec { op, arg_types: &arg_types, consts: &consts, out_type };
        let mut candidates = candidates(&spec, &nest, self.target, self.catalogue);
        let of_node = self.force.iter().filter(|f| origin.iter().any(|name| **name == *f.node));
        for force in of_node {
            if let Some(only) = candidates.iter().find(|c| c.implementation == force.implementation) {
                candidates = vec![only.clone()];
            }
        }
        Ok(Offered { nest, candidates })
    }
}

/// The loop nest of a kernel, and all its implementations.
#[derive(Clone)]
struct Offered {
    nest: Nest,
    candidates: Vec<Candidate>,
}

struct Lowering<'a> {
    maker: &'a Maker<'a>,
    options: &'a Options,
    /// The implementations of each kernel, and the shared functions that are there.
    offers: &'a HashMap<ValueId, Offered>,
    present: &'a Present,
    /// Cycles that a byte of flash is worth.
    price: f64,
    avoided: &'a Avoided,
    /// The buffer of each root value.
    buffers_of: HashMap<ValueId, BufferId>,
    consts_of: HashMap<(Tensor, Packing), ConstId>,
    buffers: Vec<Buffer>,
    consts: Vec<PlanConst>,
    kernels: Vec<Kernel>,
    /// How each kernel's implementation may write over argument 0.
    overlaps: Vec<Option<Overlap>>,
    chosen: Vec<Candidate>,
    /// Kernels that have code already: equal ones share it.
    coded: HashSet<CodeKey>,
    values: Vec<Option<ValueId>>,
    inputs: Vec<PlanPort>,
    /// Buffers that are made of parts, with these.
    joined: Vec<(BufferId, Vec<BufferId>)>,
}

impl<'a> Lowering<'a> {
    fn new(
        maker: &'a Maker<'a>,
        options: &'a Options,
        (offers, present, price): (&'a HashMap<ValueId, Offered>, &'a Present, f64),
        avoided: &'a Avoided,
    ) -> Lowering<'a> {
        let graph = maker.graph;
        let mut lowering = Lowering {
            maker,
            options,
            offers,
            present,
            price,
            avoided,
            buffers_of: HashMap::new(),
            consts_of: HashMap::new(),
            buffers: vec![],
            consts: vec![],
            kernels: vec![],
            overlaps: vec![],
            chosen: vec![],
            coded: HashSet::new(),
            values: vec![],
            inputs: vec![],
            joined: vec![],
        };
        for (i, port) in graph.inputs.iter().enumerate() {
            let value = graph.value(port.value);
            let buffer = lowering.buffer(BufferKind::Input(i), value.ty.bytes(), value.origin.clone());
            lowering.buffers_of.insert(port.value, buffer);
            lowering.inputs.push(plan_port(port, &value.ty, buffer));
        }
        lowering
    }

    fn buffer(&mut self, kind: BufferKind, bytes: usize, origin: Origin) -> BufferId {
        let now = self.kernels.len();
        self.buffers.push(Buffer {
            kind,
            bytes,
            offset: None,
            first: now,
            last: now,
            over: None,
            within: None,
            origin,
        });
        BufferId(self.buffers.len() as u32 - 1)
    }

    fn constant(&mut self, tensor: &Tensor, packing: Packing, origin: &Origin) -> ConstId {
        *self.consts_of.entry((tensor.clone(), packing.clone())).or_insert_with(|| {
            let memory = self.maker.target.memories_of(MemoryKind::Flash).next().map(|m| m.name.as_str().into());
            self.consts.push(PlanConst { tensor: tensor.clone(), packing, memory, origin: origin.clone() });
            ConstId(self.consts.len() as u32 - 1)
        })
    }

    fn kernel(&mut self, id: ValueId) -> Result<()> {
        let value = self.maker.graph.value(id);
        let Def::Node { op, inputs } = &value.def else { return Ok(()) };
        let out = match self.view(id, op, inputs)? {
            Some(view) => view,
            None => self.emit(Some(id), op.clone(), inputs, &value.ty, value.origin.clone())?,
        };
        self.buffers_of.insert(id, out);
        self.values.resize(self.kernels.len(), None);
        if let Some(made) = self.values.last_mut().filter(|_| self.kernels.last().is_some_and(|k| k.out == out)) {
            *made = Some(id);
        }
        Ok(())
    }

    /// The bytes of a kernel that others have brought already: constants, and the code of an equal one.
    fn known_bytes(&mut self, kernel: (&Op, &[TensorType], &[Arg]), consts_before: usize, choice: &Candidate) -> f64 {
        let (op, types, args) = kernel;
        let constant = |arg: &Arg| match arg {
            Arg::Const(c) => Some(*c),
            Arg::Buffer(_) => None,
        };
        let key = (op.clone(), types.to_vec(), args.iter().map(constant).collect(), choice.implementation);
        if !self.coded.insert(key) {
            return choice.bytes;
        }
        let bytes = |c: ConstId| {
            let c = &self.consts[c.index()];
            c.packing.packed_type(c.tensor.ty()).bytes()
        };
        let known = args.iter().filter_map(constant).filter(|c| c.index() < consts_before);
        (known.map(bytes).sum::<usize>() as f64).min(choice.bytes)
    }

    /// Adds a kernel that computes `op` on graph values, as `value` does if given, into a new buffer.
    fn emit(
        &mut self,
        value: Option<ValueId>,
        op: Op,
        inputs: &[ValueId],
        out_type: &TensorType,
        origin: Origin,
    ) -> Result<BufferId> {
        let maker = self.maker;
        let graph = maker.graph;
        let arg_types: Vec<TensorType> = inputs.iter().map(|v| graph.ty(*v).clone()).collect();
        let roots: Vec<ValueId> = inputs.iter().map(|v| maker.roots[v.index()]).collect();
        let now = self.kernels.len();
        // Others are copies, and views that no alignment allows.
        let Offered { nest, candidates } = match value.and_then(|v| self.offers.get(&v)) {
            Some(offered) => offered.clone(),
            None => maker.offered(&op, inputs, out_type, &origin)?,
        };
        let allowed = |id| !self.avoided.contains(&(now, id));
        let mut choice = choose(&candidates, allowed, self.present, self.price).clone();
        let Candidate { implementation, offer, cycles, .. } = choice.clone();
        let consts_before = self.consts.len();
        let mut args = Vec::with_capacity(inputs.len());
        for ((root, ty), packing) in roots.iter().zip(&arg_types).zip(offer.packings.clone()) {
            args.push(match graph.constant(*root) {
                Some(t) => {
                    let tensor = t.reshaped(ty.shape.clone());
                    Arg::Const(self.constant(&tensor, packing, &graph.value(*root).origin))
                }
                None => Arg::Buffer(self.buffers_of[root]),
            });
        }
        choice.bytes -= self.known_bytes((&op, &arg_types, &args), consts_before, &choice);
        self.chosen.push(choice);
        let tables = nest.tables.iter().map(|t| self.constant(t, Packing::None, &origin)).collect();
        let scratch =
            (offer.scratch_bytes > 0).then(|| self.buffer(BufferKind::Scratch, offer.scratch_bytes, origin.clone()));
        for arg in &args {
            if let Arg::Buffer(b) = arg {
                self.buffers[b.index()].last = now;
            }
        }
        let out = self.buffer(BufferKind::Value, out_type.bytes(), origin.clone());
        let macs = ops::macs(&op, &arg_types.iter().collect::<Vec<_>>(), out_type);
        self.overlaps.push(offer.overlap);
        self.kernels.push(Kernel {
            op,
            args,
            arg_types,
            out,
            out_type: out_type.clone(),
            nest,
            tables,
            implementation,
            scratch,
            macs,
            cycles,
            origin,
        });
        Ok(out)
    }

    /// The plan and its cost.
    fn finish(mut self) -> Result<Lowered> {
        let mut outputs = Vec::with_capacity(self.maker.graph.outputs.len());
        for (i, port) in self.maker.graph.outputs.iter().enumerate() {
            let ty = self.maker.graph.ty(port.value);
            let root = self.maker.roots[port.value.index()];
            // An output needs a buffer of its own that a kernel fills.
            let own = self.buffers_of.get(&root).copied().filter(|b| {
                let b = &self.buffers[b.index()];
                b.kind == BufferKind::Value && b.within.is_none()
            });
            let buffer = match own {
                Some(b) => b,
                None => self.emit(
                    None,
                    Op::Map(vec![]),
                    &[port.value],
                    ty,
                    self.maker.graph.value(port.value).origin.clone(),
                )?,
            };
            self.buffers[buffer.index()].kind = BufferKind::Output(i);
            outputs.push(plan_port(port, ty, buffer));
        }
        let end = self.kernels.len().saturating_sub(1);
        for buffer in &mut self.buffers {
            match buffer.kind {
                BufferKind::Input(_) => buffer.first = 0,
                BufferKind::Output(_) => buffer.last = end,
                BufferKind::Value | BufferKind::Scratch => {}
            }
        }
        self.keep_parts(end);
        let mut plan = Plan {
            name: self.maker.graph.name.clone(),
            buffers: self.buffers,
            consts: self.consts,
            kernels: self.kernels,
            inputs: self.inputs,
            outputs,
            arena_bytes: 0,
            arenas: Arena::whole(),
            alignment: self.maker.target.alignment,
            bounds: Default::default(),
        };
        share_memory(&mut plan, &self.overlaps, self.options.io == Io::Arena);
        let ram: Vec<&Memory> = self.maker.target.memories_of(MemoryKind::Ram).collect();
        arena::assign(&mut plan, self.options.io, &ram, self.options.spread);
        self.values.resize(plan.kernels.len(), None);
        let (cycles, bytes) = total(self.chosen.iter());
        Ok(Lowered { plan, cost: cycles + self.price * bytes, values: self.values })
    }
}

fn plan_port(port: &Port, ty: &TensorType, buffer: BufferId) -> PlanPort {
    PlanPort { name: port.name.clone(), ty: ty.clone(), quant: port.quant, buffer }
}

/// Lets kernels write their output over an argument that dies there: in place where each output element needs only that
/// argument's element at the same place, or as the implementation says of argument 0 (`overlaps`, one a kernel). Inputs
/// and outputs take part where they live in the arena. Parts of a buffer and what is made of them have their place, and take
/// over no other.
fn share_memory(plan: &mut Plan, overlaps: &[Option<Overlap>], ports_in_arena: bool) {
    let mut placed: Vec<bool> = plan.buffers.iter().map(|b| b.within.is_some()).collect();
    plan.buffers.iter().filter_map(|b| b.within).for_each(|w| placed[w.whole.index()] = true);
    for (now, kernel) in plan.kernels.iter().enumerate() {
        let out = &plan.buffers[kernel.out.index()];
        if !ports_in_arena && matches!(out.kind, BufferKind::Output(_)) {
            continue;
        }
        // The buffer behind an argument that dies here and that only the arguments of `with` read.
        let dying = |i: usize, with: &[usize]| {
            let Arg::Buffer(b) = kernel.args[i] else { return None };
            let buffer = &plan.buffers[b.index()];
            let in_arena = match buffer.kind {
                BufferKind::Value => true,
                BufferKind::Input(_) => ports_in_arena,
                BufferKind::Output(_) | BufferKind::Scratch => false,
            };
            let mut others = kernel.args.iter().enumerate().filter(|(j, _)| !with.contains(j));
            let dies = buffer.last == now && others.all(|(_, a)| *a != Arg::Buffer(b));
            (in_arena && dies).then_some(b)
        };
        let mut same_place = elementwise_args(kernel);
        let promised = overlaps[now] == Some(Overlap::InPlace);
        if promised && !same_place.contains(&0) {
            same_place.insert(0, 0);
        }
        let in_place = same_place
            .iter()
            .filter_map(|&i| Some((i, dying(i, &same_place)?)))
            .filter(|(_, b)| !placed[b.index()] && !placed[kernel.out.index()])
            .find(|&(i, b)| {
                let bytes = plan.buffers[b.index()].bytes;
                bytes == out.bytes || promised && i == 0 && bytes > out.bytes
            })
            .map(|(_, donor)| Over { donor, how: Overlap::InPlace });
        let ahead = || match overlaps[now] {
            Some(how @ (Overlap::Ahead(_) | Overlap::Behind(_))) => dying(0, &[0]).map(|donor| Over { donor, how }),
            _ => None,
        };
        plan.buffers[kernel.out.index()].over = in_place.or_else(ahead);
    }
}

/// The arguments of which an output element needs only the element at the same place: those of a chain and the operands
/// of an epilogue that have the output's shape.
fn elementwise_args(kernel: &Kernel) -> Vec<usize> {
    let Some(own) = kernel.op.own_inputs() else { return vec![] };
    let first = match &kernel.op {
        Op::Map(_) => 0,
        op if op.post().is_some_and(|p| p.iter().any(Step::takes_operand)) => own,
        _ => return vec![],
    };
    (first..kernel.args.len()).filter(|&i| kernel.arg_types[i].shape == kernel.out_type.shape).collect()
}

#[cfg(test)]
mod tests;
