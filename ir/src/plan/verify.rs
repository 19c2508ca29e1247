//! The plan verifier: what it lets through, the interpreter and the backends run without a check.
//!
//! Left unchecked, beside what [`crate::nest::verify`] leaves: that an implementation of the catalogue computes what the
//! loop nest says, also over its argument (tests of each implementation show it), and that the packing is the one it wants.

use super::{Arg, Buffer, BufferId, BufferKind, ConstId, Kernel, Over, Overlap, Plan, PlanPort, Within};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::nest;
use crate::ops;
use crate::packing::Packing;
use crate::types::TensorType;

/// Checks a plan.
///
/// - Every id is in range, every kernel has one type an argument, and types fit the buffers and constants behind them.
/// - Arenas follow one another, and buffers lie aligned inside one of them. Two buffers that are live at one time do not
///   overlap, except that one may lie [over](Buffer::over) the other in the kernel where that one dies, in place or far
///   enough ahead of or behind it, and that [parts](Buffer::within) of one buffer are where they are.
/// - Every byte is filled once and before it is read, buffers are live wherever they are used, and what is read of a part's
///   memory has lived on since it was filled; outputs stay live to the end.
/// - Each operator infers the output type from the argument types, and each loop nest has those types and is
///   [itself sound](crate::nest::verify).
///
/// # Errors
/// [`Error::Verify`] with every fault found.
pub fn verify(plan: &Plan) -> Result<()> {
    let mut v = Verifier { plan, faults: vec![] };
    v.arenas();
    v.buffers();
    v.constants();
    for (at, kernel) in plan.kernels.iter().enumerate() {
        v.kernel(at, kernel);
    }
    v.data_flow();
    v.ports();
    if v.faults.is_empty() { Ok(()) } else { Err(Error::Verify(v.faults)) }
}

struct Verifier<'a> {
    plan: &'a Plan,
    faults: Vec<String>,
}

/// Whether two pieces of memory have no byte in common.
fn apart(at: usize, bytes: usize, other: usize, other_bytes: usize) -> bool {
    at.saturating_add(bytes) <= other || other.saturating_add(other_bytes) <= at
}

/// Whether a buffer lies apart from another, or so at its offset and the other's.
fn apart_or(b: &Buffer, donor: &Buffer, so: impl Fn(usize, usize) -> bool) -> bool {
    match (b.offset, donor.offset) {
        (Some(at), Some(from)) => apart(at, b.bytes, from, donor.bytes) || so(at, from),
        // What the caller keeps outside the arena is apart.
        _ => true,
    }
}

/// A kernel as messages name it.
fn name(at: usize, kernel: &Kernel) -> String {
    let origin = if kernel.origin.is_empty() { String::new() } else { format!(" ({})", kernel.origin.join(", ")) };
    format!("kernel {at} {}{origin}", kernel.op.name())
}

impl<'a> Verifier<'a> {
    fn fault(&mut self, fault: String) {
        self.faults.push(fault);
    }

    fn check(&mut self, holds: bool, fault: impl FnOnce() -> String) {
        if !holds {
            self.faults.push(fault());
        }
    }

    fn buffer(&mut self, id: BufferId, user: &str) -> Option<&'a Buffer> {
        let found = self.plan.buffers.get(id.index());
        self.check(found.is_some(), || format!("{user}: {id} does not exist"));
        found
    }

    fn constant(&mut self, id: ConstId, user: &str) -> Option<&'a TensorType> {
        let found = self.plan.consts.get(id.index());
        self.check(found.is_some(), || format!("{user}: {id} does not exist"));
        found.map(|c| c.tensor.ty())
    }

    /// The kernel before which or in which the last buffer dies.
    fn end(&self) -> usize {
        self.plan.kernels.len().saturating_sub(1)
    }

    fn arenas(&mut self) {
        let plan = self.plan;
        self.check(plan.arenas.first().is_some_and(|a| a.start == 0), || "no arena begins at 0".into());
        for (i, arena) in plan.arenas.iter().enumerate() {
            let after = i == 0 || plan.arenas[i - 1].start < arena.start;
            self.check(
                after && arena.start <= plan.arena_bytes && arena.start.is_multiple_of(plan.alignment.max(1)),
                || format!("arena {i} cannot begin at {}", arena.start),
            );
        }
    }

    fn buffers(&mut self) {
        let (plan, end) = (self.plan, self.end());
        let alignment = plan.alignment;
        self.check(alignment.is_power_of_two(), || format!("the alignment {alignment} is no power of two"));
        for (i, b) in plan.buffers.iter().enumerate() {
            let id = BufferId(i as u32);
            self.check(b.first <= b.last && b.last <= end, || {
                format!("{id} is live {}..={}, the plan runs kernels 0..={end}", b.first, b.last)
            });
            match b.offset {
                Some(at) => {
                    self.check(at.is_multiple_of(alignment.max(1)), || {
                        format!("{id} is at {at}, not aligned to {alignment}")
                    });
                    self.check(at.checked_add(b.bytes).is_some_and(|top| top <= plan.arena_bytes), || {
                        format!("{id} ({} bytes at {at}) leaves the arena of {} bytes", b.bytes, plan.arena_bytes)
                    });
                    let cut = plan.arenas.iter().any(|a| at < a.start && a.start < at.saturating_add(b.bytes));
                    self.check(!cut, || format!("{id} ({} bytes at {at}) lies in two arenas", b.bytes));
                }
                None => self.check(matches!(b.kind, BufferKind::Input(_) | BufferKind::Output(_)), || {
                    format!("{id} is outside the arena, but neither input nor output")
                }),
            }
            if let Some(over) = b.over {
                self.over(id, b, over);
            }
            if let Some(within) = b.within {
                self.within(id, b, within);
            }
        }
        self.overlaps();
    }

    fn within(&mut self, id: BufferId, b: &Buffer, Within { whole: whole_id, at }: Within) {
        let Some(whole) = self.buffer(whole_id, &format!("{id} within another")) else { return };
        let inside = at.checked_add(b.bytes).is_some_and(|end| end <= whole.bytes);
        self.check(inside, || format!("{id} ({} bytes at {at}) leaves {whole_id} of {} bytes", b.bytes, whole.bytes));
        let placed = whole.offset.is_some_and(|start| b.offset == start.checked_add(at));
        self.check(placed, || format!("{id} is not {at} bytes into {whole_id}"));
        let (root, _) = self.plan.root(id);
        self.check(self.plan.buffer(root).within.is_none(), || format!("{id} is a part of itself"));
        self.check(b.kind == BufferKind::Value, || format!("{id} is a part, but {:?}", b.kind));
    }

    fn over(&mut self, id: BufferId, b: &Buffer, Over { donor: donor_id, how }: Over) {
        let Some(donor) = self.buffer(donor_id, &format!("{id} over another")) else { return };
        match how {
            Overlap::InPlace => {
                self.check(b.offset.is_some() && b.offset == donor.offset, || {
                    format!("{id} takes over {donor_id} in place, at another offset")
                });
                self.check(b.bytes <= donor.bytes, || format!("{id} takes over {donor_id} in place, but is larger"));
            }
            Overlap::Ahead(lead) => self.check(apart_or(b, donor, |at, from| at.saturating_add(lead) <= from), || {
                format!("{id} overlaps {donor_id}, but not {lead} bytes ahead of it")
            }),
            Overlap::Behind(lead) => {
                let behind = |at: usize, from: usize| {
                    at.saturating_add(b.bytes) >= from.saturating_add(donor.bytes).saturating_add(lead)
                };
                self.check(apart_or(b, donor, behind), || {
                    format!("{id} overlaps {donor_id}, but not {lead} bytes behind it")
                });
            }
        }
        self.check(donor.last == b.first, || {
            format!("{id} is filled by kernel {}, but {donor_id} under it dies in kernel {}", b.first, donor.last)
        });
        let reads =
            self.plan.kernels.get(b.first).is_some_and(|k| k.out == id && k.args.contains(&Arg::Buffer(donor_id)));
        self.check(reads, || format!("{id} takes the memory of {donor_id}, but is not computed from it"));
    }

    fn overlaps(&mut self) {
        let buffers = &self.plan.buffers;
        for (i, a) in buffers.iter().enumerate() {
            let Some(at) = a.offset else { continue };
            for (j, b) in buffers.iter().enumerate().skip(i + 1) {
                let Some(bt) = b.offset else { continue };
                let together = a.first <= b.last && b.first <= a.last;
                let apart = apart(at, a.bytes, bt, b.bytes);
                let (ida, idb) = (BufferId(i as u32), BufferId(j as u32));
                // Whether they meet in one kernel only, where one may lie over the other.
                let takes_over = |new: &Buffer, old: &Buffer, id: BufferId| {
                    new.over.is_some_and(|o| o.donor == id) && old.last == new.first
                };
                let one = (a.within.is_some() || b.within.is_some()) && self.plan.root(ida).0 == self.plan.root(idb).0;
                if together && !apart && !one && !takes_over(a, b, idb) && !takes_over(b, a, ida) {
                    self.faults.push(format!("{ida} and {idb} are live together and overlap"));
                }
            }
        }
    }

    fn constants(&mut self) {
        for (i, c) in self.plan.consts.iter().enumerate() {
            let ty = c.tensor.ty();
            self.check(can_pack(&c.packing, ty), || format!("k{i}: {ty} cannot be packed as {:?}", c.packing));
            self.check(c.packing == Packing::None || ty.dtype.is_byte_sized(), || {
                format!("k{i}: {ty} has elements below a byte, which have no packing")
            });
        }
    }

    fn kernel(&mut self, at: usize, k: &'a Kernel) {
        let user = name(at, k);
        if k.args.len() != k.arg_types.len() {
            return self.fault(format!("{user}: {} arguments, {} types", k.args.len(), k.arg_types.len()));
        }
        for (arg, ty) in k.args.iter().zip(&k.arg_types) {
            match *arg {
                Arg::Const(c) => {
                    if let Some(found) = self.constant(c, &user) {
                        self.same_elements(found, ty, &format!("{user}: {c}"));
                    }
                }
                Arg::Buffer(b) => self.fits(b, ty, &user),
            }
        }
        self.fits(k.out, &k.out_type, &user);
        let types: Vec<&TensorType> = k.arg_types.iter().collect();
        match ops::infer(&k.op, &types) {
            Ok(ty) => self.check(ty == k.out_type, || format!("{user}: gives {ty}, not {}", k.out_type)),
            Err(e) => self.fault(format!("{user}: {e}")),
        }
        self.nest(k, &user);
        if let Some(id) = k.scratch
            && let Some(b) = self.buffer(id, &user)
        {
            self.check(b.kind == BufferKind::Scratch, || format!("{user}: {id} is no scratch memory"));
            self.check(b.first <= at && at <= b.last, || format!("{user}: the scratch memory {id} is not live"));
        }
    }

    fn nest(&mut self, k: &'a Kernel, user: &str) {
        let faults = nest::verify::faults(&k.nest);
        self.faults.extend(faults.into_iter().map(|fault| format!("{user}: nest: {fault}")));
        let tables = k.nest.tables.len();
        if k.nest.inputs != k.args.len() || tables != k.tables.len() || k.nest.args.len() != k.args.len() + tables + 1 {
            return self.fault(format!(
                "{user}: the nest has {} inputs and {tables} tables, the kernel {} and {}",
                k.nest.inputs,
                k.args.len(),
                k.tables.len()
            ));
        }
        let types = k.arg_types.iter().chain(k.nest.tables.iter().map(|t| t.ty())).chain([&k.out_type]);
        for (i, (ty, found)) in types.zip(&k.nest.args).enumerate() {
            self.check(ty == found, || format!("{user}: argument {i} is {ty}, in the nest {found}"));
        }
        for (id, table) in k.tables.iter().zip(&k.nest.tables) {
            if self.constant(*id, user).is_some() {
                let c = &self.plan.consts[id.index()];
                self.check(c.tensor == *table && c.packing == Packing::None, || {
                    format!("{user}: {id} is not the nest's table")
                });
            }
        }
    }

    fn same_elements(&mut self, found: &TensorType, ty: &TensorType, what: &str) {
        self.check(found.dtype == ty.dtype && found.elements() == ty.elements(), || {
            format!("{what} is {found}, read as {ty}")
        });
    }

    fn fits(&mut self, id: BufferId, ty: &TensorType, user: &str) {
        if let Some(b) = self.buffer(id, user) {
            self.check(ty.bytes() <= b.bytes, || format!("{user}: {ty} does not fit {id} of {} bytes", b.bytes));
        }
    }

    /// Replays the schedule.
    fn data_flow(&mut self) {
        let plan = self.plan;
        // By root buffer: the pieces of its memory that are filled, and by which buffer.
        let mut filled: Vec<Vec<(usize, usize, BufferId)>> = plan.buffers.iter().map(|_| vec![]).collect();
        for (i, b) in plan.buffers.iter().enumerate() {
            self.check(!matches!(b.kind, BufferKind::Input(_)) || b.first == 0, || {
                format!("b{i} is an input, but not live before kernel {}", b.first)
            });
            if matches!(b.kind, BufferKind::Input(_)) {
                filled[i].push((0, b.bytes, BufferId(i as u32)));
            }
        }
        for (at, k) in plan.kernels.iter().enumerate() {
            let user = name(at, k);
            let live = |b: &Buffer| b.first <= at && at <= b.last;
            for arg in &k.args {
                let Arg::Buffer(id) = *arg else { continue };
                let Some(b) = plan.buffers.get(id.index()) else { continue };
                self.reads_filled(id, b, &filled, &user);
                self.check(live(b), || format!("{user}: reads {id}, which is live {}..={}", b.first, b.last));
                self.check(k.out != id, || format!("{user}: reads its own output {id}"));
            }
            let Some(out) = plan.buffers.get(k.out.index()) else { continue };
            self.check(live(out), || format!("{user}: writes {}, which is live {}..={}", k.out, out.first, out.last));
            self.check(matches!(out.kind, BufferKind::Value | BufferKind::Output(_)), || {
                format!("{user}: writes {}, which holds no result", k.out)
            });
            let (root, from) = plan.root(k.out);
            let Some(pieces) = filled.get_mut(root.index()) else { continue };
            let (from, to) = (from, from.saturating_add(out.bytes));
            let fresh = pieces.iter().all(|(start, end, _)| *end <= from || to <= *start);
            pieces.push((from, to, k.out));
            self.check(fresh, || format!("{user}: fills {} a second time", k.out));
        }
        for port in &plan.outputs {
            if let Some(b) = plan.buffers.get(port.buffer.index()) {
                self.reads_filled(port.buffer, b, &filled, &format!("output {}", port.name));
            }
        }
    }

    /// Whether all bytes of a buffer are filled, and still there.
    fn reads_filled(&mut self, id: BufferId, b: &Buffer, filled: &[Vec<(usize, usize, BufferId)>], user: &str) {
        let (root, from) = self.plan.root(id);
        let to = from.saturating_add(b.bytes);
        let Some(pieces) = filled.get(root.index()) else { return };
        let mut pieces: Vec<_> = pieces.iter().filter(|(start, end, _)| *start < to && from < *end).collect();
        pieces.sort_unstable();
        let mut reached = from;
        for (start, end, by) in pieces {
            if *start > reached {
                break;
            }
            reached = reached.max(*end);
            let writer = self.plan.buffer(*by);
            self.check(b.first <= writer.last.saturating_add(1), || {
                format!("{user}: reads {id}, live from {} on, of {by} that dies in kernel {}", b.first, writer.last)
            });
        }
        self.check(reached >= to, || format!("{user}: reads {id} before anything fills it"));
    }

    fn ports(&mut self) {
        let (plan, end) = (self.plan, self.end());
        let mut port = |what: &str, port: &PlanPort, kind: BufferKind| {
            let user = format!("{what} {}", port.name);
            self.fits(port.buffer, &port.ty, &user);
            let Some(b) = plan.buffers.get(port.buffer.index()) else { return };
            self.check(b.kind == kind, || format!("{user}: {} is {:?}, not {kind:?}", port.buffer, b.kind));
            if matches!(kind, BufferKind::Output(_)) {
                self.check(b.last == end, || format!("{user}: {} dies in kernel {}", port.buffer, b.last));
            }
        };
        plan.inputs.iter().enumerate().for_each(|(i, p)| port("input", p, BufferKind::Input(i)));
        plan.outputs.iter().enumerate().for_each(|(i, p)| port("output", p, BufferKind::Output(i)));
    }
}

/// Whether a packing is defined for a tensor of a type.
fn can_pack(packing: &Packing, ty: &TensorType) -> bool {
    match packing {
        Packing::None => true,
        Packing::Permute(perm) => {
            let mut sorted = perm.clone();
            sorted.sort();
            sorted.into_iter().eq(0..ty.rank())
        }
        Packing::Panel { rows, depth } => *rows > 0 && *depth > 0,
        Packing::Runs { run, rows, depth } => {
            let columns = ty.elements() / ty.shape.first().copied().unwrap_or(1).max(1);
            *run > 0 && *rows > 0 && *depth > 0 && columns.is_multiple_of(*run)
        }
        Packing::WinogradPanel { rows } => {
            *rows > 0 && ty.dtype == DType::F32 && ty.rank() == 4 && ty.shape[1..3] == [3, 3]
        }
        Packing::Pairs { rows } => *rows > 0 && rows % 2 == 0 && ty.dtype == DType::I8,
        Packing::PairRuns { rows, run } => {
            let columns = ty.elements() / ty.shape.first().copied().unwrap_or(1).max(1);
            *rows > 0 && rows % 2 == 0 && *run > 0 && ty.dtype == DType::I8 && columns.is_multiple_of(*run)
        }
        Packing::Slices { channels, taps, group } => *channels > 0 && *taps > 0 && *group > 0,
        Packing::Winograd(_) => ty.dtype == DType::I8 && ty.rank() == 4 && ty.shape[1..3] == [3, 3],
        Packing::Octets { rows } => *rows > 0 && ty.dtype == DType::I8,
        Packing::Fours { rows } => *rows > 0 && rows % 4 == 0 && ty.dtype == DType::I8,
        Packing::Nibbles { of, .. } => {
            ty.dtype == DType::I8
                && matches!(**of, Packing::None | Packing::Permute(_) | Packing::Panel { .. } | Packing::Octets { .. })
                && can_pack(of, ty)
        }
    }
}

#[cfg(test)]
mod tests;
