//! The memory planner: byte offsets of buffers in one arena.
//!
//! Buffers that take over one another's memory in place form one block, live from the first to the last of them, which
//! shrinks where a smaller one follows. Blocks are placed one after the other, each at the lowest offset where it overlaps no placed block that lives at the same
//! time, but for the kernel's argument that its result may overlap from far enough ahead; several orders are tried, then
//! random changes of the best one, always from the same seed.

use super::Io;
use mcc_ir::plan::{Arg, Bounds, Buffer, BufferKind, Over, Overlap, Plan};
use std::collections::HashSet;

/// Orders tried after the fixed ones, unless the lower bound is met before.
const RANDOM_ORDERS: usize = 2000;
/// Blocks that live for more kernels than this are compared with every other.
const SHORT_SPAN: usize = 8;
/// Pairs of blocks that all random orders together may compare: large plans get fewer orders.
const RANDOM_PAIRS: usize = 50_000_000;

/// How a block may overlap another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// If it begins so many bytes before the other, or more.
    Ahead(usize),
    /// If it begins so many bytes after the other, or more; a negative number is allowed.
    Behind(i64),
}

/// Bytes that live from kernel `first` to kernel `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    pub bytes: usize,
    pub first: usize,
    pub last: usize,
    /// From which kernel on only so many bytes are in use, at the block's start.
    pub tail: Option<(usize, usize)>,
    /// A block that ends in the kernel where this one begins, and where this one may overlap it.
    pub over: Option<(usize, Side)>,
}

impl Block {
    fn meets(&self, other: &Block) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// The bytes in use while a kernel runs.
    fn bytes_at(&self, kernel: usize) -> usize {
        self.tail.filter(|(from, _)| kernel >= *from).map_or(self.bytes, |(_, bytes)| bytes)
    }

    /// The bytes that two blocks need together where this one lies over the other.
    fn together(&self, donor: &Block, side: Side) -> usize {
        let under = donor.bytes_at(self.first);
        let over = match side {
            Side::Ahead(lead) => self.bytes.max(lead + under),
            Side::Behind(shift) => under.max(self.bytes.saturating_add_signed(shift.max(0) as isize)),
        };
        over.min(self.bytes + under)
    }
}

/// The offsets, from above the first to below the second, that block `i` cannot have beside a placed one.
fn forbidden(blocks: &[Block], i: usize, j: usize, placed: usize) -> (i64, i64) {
    // As blocks only shrink, what is apart when they meet stays so.
    let meet = blocks[i].first.max(blocks[j].first);
    let (mut size, mut taken) = (blocks[i].bytes_at(meet) as i64, blocks[j].bytes_at(meet) as i64);
    match (blocks[i].over, blocks[j].over) {
        (Some((donor, Side::Ahead(lead))), _) if donor == j => size = size.min(lead as i64),
        (Some((donor, Side::Behind(shift))), _) if donor == j => taken = taken.min(shift),
        (_, Some((donor, Side::Ahead(lead)))) if donor == i => taken = taken.min(lead as i64),
        (_, Some((donor, Side::Behind(shift)))) if donor == i => size = size.min(shift),
        _ => {}
    }
    (placed as i64 - size, placed as i64 + taken)
}

/// Sets the offsets of all buffers that belong to the arena, its size and its lower bounds.
pub fn assign(plan: &mut Plan, io: Io) {
    let outside = |kind: BufferKind| io == Io::Separate && matches!(kind, BufferKind::Input(_) | BufferKind::Output(_));
    let mut block_of = vec![None; plan.buffers.len()];
    let mut blocks: Vec<Block> = Vec::new();
    for (i, buffer) in plan.buffers.iter().enumerate() {
        if outside(buffer.kind) {
            continue;
        }
        let bytes = buffer.bytes.max(1).next_multiple_of(plan.alignment);
        let donor = buffer.over.and_then(|over| Some((block_of[over.donor.index()]?, over)));
        let at = match donor {
            Some((at, Over { how: Overlap::InPlace, .. })) => at,
            _ => {
                let over = donor.and_then(|(at, over)| Some((at, side(plan, buffer, over)?)));
                blocks.push(Block { bytes, first: buffer.first, last: buffer.last, tail: None, over });
                blocks.len() - 1
            }
        };
        blocks[at].last = blocks[at].last.max(buffer.last);
        if bytes < blocks[at].bytes && blocks[at].tail.is_none() {
            blocks[at].tail = Some((buffer.first + 1, bytes));
        }
        block_of[i] = Some(at);
    }
    let (offsets, arena_bytes) = place(&blocks, plan.alignment);
    for (buffer, block) in plan.buffers.iter_mut().zip(&block_of) {
        buffer.offset = block.map(|at| offsets[at]);
    }
    plan.arena_bytes = arena_bytes;
    plan.bounds = Bounds { live: live_peak(&blocks), operator: largest_operator(plan, io) };
}

/// How a buffer's block may overlap its donor's; `None` for one and the same block.
fn side(plan: &Plan, buffer: &Buffer, over: Over) -> Option<Side> {
    match over.how {
        Overlap::InPlace => None,
        Overlap::Ahead(lead) => Some(Side::Ahead(lead.next_multiple_of(plan.alignment))),
        Overlap::Behind(lead) => {
            // From where both end to where both begin, up to a multiple of the alignment.
            let shift = (plan.buffer(over.donor).bytes + lead) as i64 - buffer.bytes as i64;
            let alignment = plan.alignment as i64;
            Some(Side::Behind((shift + alignment - 1).div_euclid(alignment) * alignment))
        }
    }
}

/// The most bytes that blocks which live at one time take at least.
pub fn live_peak(blocks: &[Block]) -> usize {
    let kernels = blocks.iter().map(|b| b.last + 1).max().unwrap_or(0);
    let (mut comes, mut goes, mut shared) = (vec![0; kernels], vec![0; kernels], vec![0; kernels]);
    for b in blocks {
        comes[b.first] += b.bytes;
        goes[b.last] += b.bytes_at(b.last);
        if let Some((from, bytes)) = b.tail.filter(|(from, _)| *from <= b.last) {
            goes[from - 1] += b.bytes - bytes;
        }
        if let Some((donor, side)) = b.over {
            let donor = &blocks[donor];
            shared[b.first] += b.bytes + donor.bytes_at(b.first) - b.together(donor, side);
        }
    }
    let (mut live, mut peak) = (0, 0);
    for k in 0..kernels {
        live += comes[k];
        peak = peak.max(live - shared[k]);
        live -= goes[k];
    }
    peak
}

/// The largest kernel if its output could overlap its inputs perfectly: the greater of input and output bytes.
fn largest_operator(plan: &Plan, io: Io) -> usize {
    let size = |id: mcc_ir::plan::BufferId| {
        let b = plan.buffer(id);
        let outside = io == Io::Separate && matches!(b.kind, BufferKind::Input(_) | BufferKind::Output(_));
        if outside { 0 } else { b.bytes }
    };
    let kernel = |k: &mcc_ir::plan::Kernel| {
        let inputs: HashSet<_> =
            k.args.iter().filter_map(|a| if let Arg::Buffer(b) = a { Some(*b) } else { None }).collect();
        inputs.into_iter().map(size).sum::<usize>().max(size(k.out))
    };
    plan.kernels.iter().map(kernel).max().unwrap_or(0)
}

/// Offsets of blocks and the bytes that they take together. Every size is a multiple of `alignment`.
pub fn place(blocks: &[Block], alignment: usize) -> (Vec<usize>, usize) {
    let bound = live_peak(blocks);
    let mut order: Vec<usize> = (0..blocks.len()).collect();
    let mut best: Option<(Vec<usize>, usize, Vec<usize>)> = None;
    let consider = |order: &[usize], best: &mut Option<(Vec<usize>, usize, Vec<usize>)>| {
        let (offsets, total) = first_fit(blocks, order);
        if best.as_ref().is_none_or(|b| total < b.1) {
            *best = Some((offsets, total, order.to_vec()));
        }
    };
    for by in [Order::Size, Order::Area, Order::Span] {
        order.sort_by_key(|&i| (std::cmp::Reverse(by.key(&blocks[i])), blocks[i].first, i));
        consider(&order, &mut best);
    }
    let mut random = SplitMix(0x6d63_6361_7265_6e61);
    for _ in 0..RANDOM_ORDERS.min(RANDOM_PAIRS / blocks.len().pow(2).max(1)) {
        let Some((_, total, order)) = &best else { break };
        if *total <= bound || order.len() < 2 {
            break;
        }
        let mut changed = order.clone();
        for _ in 0..1 + random.below(3) {
            let block = changed.remove(random.below(order.len()));
            changed.insert(random.below(order.len()), block);
        }
        consider(&changed, &mut best);
    }
    let (offsets, total, _) = best.unwrap_or_default();
    debug_assert!(offsets.iter().all(|o| o % alignment == 0));
    (offsets, total)
}

/// What is placed first.
#[derive(Clone, Copy)]
enum Order {
    Size,
    Area,
    Span,
}

impl Order {
    fn key(self, b: &Block) -> (usize, usize) {
        let span = b.last - b.first + 1;
        match self {
            Order::Size => (b.bytes, span),
            Order::Area => (b.bytes * span, b.bytes),
            Order::Span => (span, b.bytes),
        }
    }
}

/// Places blocks in this order, each as low as it goes.
fn first_fit(blocks: &[Block], order: &[usize]) -> (Vec<usize>, usize) {
    let mut offsets = vec![0; blocks.len()];
    let mut total = 0;
    // Placed blocks by their first kernel, those of a long life apart: most blocks live shortly and meet only a few.
    let end = blocks.iter().map(|b| b.last + 1).max().unwrap_or(0);
    let mut starting: Vec<Vec<usize>> = vec![vec![]; end];
    let mut long: Vec<usize> = Vec::new();
    for &i in order {
        let block = &blocks[i];
        let mut taken: Vec<(i64, i64)> = Vec::new();
        let from = block.first.saturating_sub(SHORT_SPAN);
        let near = starting[from..=block.last].iter().flatten().chain(&long);
        for &j in near.filter(|&&j| block.meets(&blocks[j])) {
            taken.push(forbidden(blocks, i, j, offsets[j]));
        }
        taken.sort_unstable();
        let mut at = 0;
        for (below, from) in taken {
            if at <= below {
                break;
            }
            at = at.max(from);
        }
        offsets[i] = at as usize;
        total = total.max(offsets[i] + block.bytes);
        if block.last - block.first > SHORT_SPAN {
            long.push(i);
        } else {
            starting[block.first].push(i);
        }
    }
    (offsets, total)
}

/// Steele, Lea and Flood's SplitMix64.
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blocks() -> impl Strategy<Value = Vec<Block>> {
        let ahead = (0usize..40).prop_map(|l| Some(Side::Ahead(4 * l)));
        let behind = (-40i64..40).prop_map(|l| Some(Side::Behind(4 * l)));
        let block = (1usize..40, 0usize..20, 0usize..14, 1usize..80, prop_oneof![Just(None), ahead, behind]);
        proptest::collection::vec(block, 0..20).prop_map(|all| {
            let mut blocks: Vec<Block> = Vec::new();
            for (n, first, span, shrink, side) in all {
                let donor = blocks.iter().position(|d| d.last == first);
                let over = donor.zip(side);
                let tail = (shrink < n).then_some((first + 1, shrink * 4));
                blocks.push(Block { bytes: n * 4, first, last: first + span, tail, over });
            }
            blocks
        })
    }

    proptest! {
        #[test]
        fn blocks_that_live_together_never_overlap(blocks in blocks()) {
            let (offsets, total) = place(&blocks, 4);
            for i in 0..blocks.len() {
                prop_assert!(offsets[i] + blocks[i].bytes <= total);
                for j in 0..i {
                    let both = blocks[i].first.max(blocks[j].first)..=blocks[i].last.min(blocks[j].last);
                    let apart = both.clone().all(|k| {
                        let [a, b] = [i, j].map(|b| (offsets[b], offsets[b] + blocks[b].bytes_at(k)));
                        a.1 <= b.0 || b.1 <= a.0
                    });
                    let over = blocks[i].over.is_some_and(|(d, side)| d == j && match side {
                        Side::Ahead(lead) => offsets[i] + lead <= offsets[j],
                        Side::Behind(shift) => offsets[i] as i64 >= offsets[j] as i64 + shift,
                    });
                    prop_assert!(apart || over);
                }
            }
            prop_assert!(total >= live_peak(&blocks));
        }
    }

    #[test]
    fn a_fragmenting_order_is_improved_to_the_bound() {
        let b = |bytes, first, last| Block { bytes, first, last, tail: None, over: None };
        // First-fit in program order leaves a hole of 8 under the third block.
        let blocks = [b(8, 0, 1), b(16, 0, 2), b(16, 2, 3), b(8, 3, 4)];
        assert_eq!(place(&blocks, 4).1, live_peak(&blocks));
    }

    #[test]
    fn a_result_lies_over_the_argument_that_it_consumes() {
        let b = |bytes, first, last, over| Block { bytes, first, last, tail: None, over };
        // 8 bytes become 16 with a lead of 12, then 4 with a lead of 4.
        let blocks = [b(8, 0, 0, None), b(16, 0, 1, Some((0, Side::Ahead(12)))), b(4, 1, 1, Some((1, Side::Ahead(4))))];
        assert_eq!(live_peak(&blocks), 20);
        assert_eq!(place(&blocks, 4), (vec![12, 0, 16], 20));
        assert_eq!(first_fit(&blocks, &[0, 1, 2]), (vec![0, 8, 0], 24));
        assert_eq!(first_fit(&blocks, &[2, 1, 0]), (vec![16, 4, 0], 24));
    }

    #[test]
    fn a_block_that_shrinks_leaves_its_end() {
        let b = |bytes, first, last, tail| Block { bytes, first, last, tail, over: None };
        // 40 bytes become 8 in place; from the next kernel on there is room for 32 more.
        let blocks = [b(40, 0, 3, Some((2, 8))), b(32, 2, 3, None)];
        assert_eq!(place(&blocks, 4), (vec![0, 8], 40));
        assert_eq!(live_peak(&blocks), 40);
        assert_eq!(place(&[blocks[0], b(32, 1, 3, None)], 4).1, 72);
    }

    #[test]
    fn results_over_one_another_from_both_sides() {
        let b = |bytes, first, last, over| Block { bytes, first, last, tail: None, over };
        // 28 bytes shrink to 20 in ascending order and grow to 36 in descending order: 36 hold them all.
        let blocks =
            [b(28, 0, 0, None), b(20, 0, 1, Some((0, Side::Ahead(4)))), b(36, 1, 1, Some((1, Side::Behind(-16))))];
        assert_eq!(place(&blocks, 4).1, 36);
        assert_eq!(live_peak(&blocks), 36);
        // In ascending order the last one ends up far before the first.
        let ahead = [blocks[0], blocks[1], b(36, 1, 1, Some((1, Side::Ahead(16))))];
        assert_eq!(place(&ahead, 4).1, 48);
    }
}
