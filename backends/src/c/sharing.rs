//! Which kernels may have one function: those of one operator on the same types, constants and implementation, such as the
//! strips of a stage that is computed in patches. Their pointers are declared alike.

use mcc_ir::plan::{Arg, BufferId, ConstId, Kernel, Plan};
use mcc_ir::{Op, TensorType};
use std::collections::{HashMap, HashSet};

/// A pointer of a kernel's function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    Arg(usize),
    Scratch,
    Out,
}

type Key<'a> = (&'a Op, &'a [TensorType], Vec<Option<ConstId>>, &'static str);

/// The pointers of a plan's kernels that others of the same kernel may overlap.
pub struct Sharing {
    /// For each kernel, the first one like it.
    leader: Vec<usize>,
    open: HashSet<(usize, Slot)>,
}

impl Sharing {
    pub fn of(plan: &Plan) -> Sharing {
        let mut first: HashMap<Key<'_>, usize> = HashMap::new();
        let mut sharing = Sharing { leader: vec![], open: HashSet::new() };
        for (i, k) in plan.kernels.iter().enumerate() {
            let constant = |arg: &Arg| match arg {
                Arg::Const(c) => Some(*c),
                Arg::Buffer(_) => None,
            };
            let key = (&k.op, k.arg_types.as_slice(), k.args.iter().map(constant).collect(), k.implementation);
            let leader = *first.entry(key).or_insert(i);
            sharing.leader.push(leader);
            let open = slots(k).into_iter().filter(|(_, b)| overlapped(plan, k, *b)).map(|(slot, _)| (leader, slot));
            sharing.open.extend(open);
        }
        sharing
    }

    /// `restrict ` for a pointer of a kernel, unless it or that of a kernel like it shares memory that is written.
    pub fn restrict(&self, kernel: usize, slot: Slot) -> &'static str {
        if self.open.contains(&(self.leader[kernel], slot)) { "" } else { "restrict " }
    }
}

/// The buffers of a kernel.
fn slots(k: &Kernel) -> Vec<(Slot, BufferId)> {
    let args = k.args.iter().enumerate().filter_map(|(j, arg)| match arg {
        Arg::Buffer(b) => Some((Slot::Arg(j), *b)),
        Arg::Const(_) => None,
    });
    args.chain(k.scratch.map(|b| (Slot::Scratch, b))).chain([(Slot::Out, k.out)]).collect()
}

/// Whether a kernel writes memory of a buffer through another.
fn overlapped(plan: &Plan, k: &Kernel, b: BufferId) -> bool {
    let written = [Some(k.out), k.scratch];
    let others = k.args.iter().filter_map(|a| match a {
        Arg::Buffer(other) if written.contains(&Some(b)) => Some(*other),
        _ => None,
    });
    let own = plan.buffer(b);
    others.chain(written.into_iter().flatten()).filter(|other| *other != b).any(|other| {
        let other = plan.buffer(other);
        match (own.offset, other.offset) {
            (Some(a), Some(b)) => a < b + other.bytes && b < a + own.bytes,
            _ => false,
        }
    })
}
