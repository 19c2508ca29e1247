//! The memory planner: byte offsets of buffers in the arena, or in one for each of several memories.
//!
//! Buffers that take over one another's memory in place form one block, live from the first to the last of them, which
//! shrinks where a smaller one follows. A buffer and its parts are blocks at fixed distances, each with a life of its own:
//! they are placed as one. Blocks are placed one after the other, each at the lowest offset where it overlaps no placed
//! block that lives at the same time, but for the kernel's argument that its result may overlap from far enough ahead;
//! several orders are tried, then random changes of the best one, always from the same seed.
//!
//! The arena goes to the first memory of the target that holds it. Where none does, or the user asks for it, blocks are
//! spread over the memories, each in the first that has room for it.

use super::Io;
use mcc_ir::plan::{Arena, Arg, Bounds, Buffer, BufferId, BufferKind, Over, Overlap, Plan};
use mcc_ir::target::Memory;
use std::collections::HashMap;

/// Orders tried after the fixed ones, unless the lower bound is met before.
const RANDOM_ORDERS: usize = 2000;
/// Blocks that live for more kernels than this are compared with every other.
const SHORT_SPAN: usize = 8;
/// Pairs of blocks that all random orders together may compare: large plans get fewer orders.
const RANDOM_PAIRS: usize = 50_000_000;
/// Orders tried for several memories.
const SPREAD_ORDERS: usize = 200;

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
    /// The first of the blocks that are placed together: itself, where it is alone.
    pub group: usize,
    /// Bytes from the start of the group.
    pub at: usize,
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

/// Sets the offsets of all buffers that belong to the arenas, the arenas and their size, and the lower bounds.
///
/// `ram` are the target's memories, the best first; with `spread` blocks fill one after the other, also where one of them
/// holds all.
pub fn assign(plan: &mut Plan, io: Io, ram: &[&Memory], spread: bool) {
    let outside = |kind: BufferKind| io == Io::Separate && matches!(kind, BufferKind::Input(_) | BufferKind::Output(_));
    let mut block_of = vec![None; plan.buffers.len()];
    let mut blocks: Vec<Block> = Vec::new();
    let mut leader: HashMap<BufferId, usize> = HashMap::new();
    for (i, buffer) in plan.buffers.iter().enumerate() {
        if outside(buffer.kind) {
            continue;
        }
        let bytes = buffer.bytes.max(1).next_multiple_of(plan.alignment);
        let donor = buffer.over.and_then(|over| Some((block_of[over.donor.index()]?, over)));
        let block = match donor {
            Some((block, Over { how: Overlap::InPlace, .. })) => block,
            _ => {
                let over = donor.and_then(|(block, over)| Some((block, side(plan, buffer, over)?)));
                let (root, at) = plan.root(BufferId(i as u32));
                let group = *leader.entry(root).or_insert(blocks.len());
                blocks.push(Block { bytes, first: buffer.first, last: buffer.last, tail: None, over, group, at });
                blocks.len() - 1
            }
        };
        blocks[block].last = blocks[block].last.max(buffer.last);
        if bytes < blocks[block].bytes && blocks[block].tail.is_none() {
            blocks[block].tail = Some((buffer.first + 1, bytes));
        }
        block_of[i] = Some(block);
    }
    let (offsets, arena_bytes) = place(&blocks, plan.alignment);
    let one = || ram.iter().find(|m| m.bytes >= arena_bytes).or(ram.iter().max_by_key(|m| m.bytes));
    let held = ram.iter().any(|m| m.bytes >= arena_bytes);
    let several =
        (ram.len() > 1 && (spread || !held)).then(|| place_in(&blocks, &traffic(plan, &block_of, blocks.len()), ram));
    let (offsets, arenas, arena_bytes) = match several.flatten() {
        Some((places, totals)) => {
            let mut starts = Vec::with_capacity(ram.len());
            let mut arenas = Vec::new();
            let mut start = 0;
            for (memory, total) in ram.iter().zip(&totals) {
                starts.push(start);
                if *total > 0 {
                    arenas.push(Arena { memory: Some(memory.name.as_str().into()), start });
                }
                start += total;
            }
            (places.iter().map(|(bank, at)| starts[*bank] + at).collect(), arenas, start)
        }
        None => (offsets, vec![Arena { memory: one().map(|m| m.name.as_str().into()), start: 0 }], arena_bytes),
    };
    for (buffer, block) in plan.buffers.iter_mut().zip(&block_of) {
        buffer.offset = block.map(|at| offsets[at]);
    }
    (plan.arena_bytes, plan.arenas) = (arena_bytes, arenas);
    let operator = (0..plan.kernels.len()).map(|k| plan.operator_bytes(k)).max().unwrap_or(0);
    plan.bounds = Bounds { live: live_peak(&blocks), operator };
}

/// Bytes that kernels read and write in each block, every element once a kernel.
fn traffic(plan: &Plan, block_of: &[Option<usize>], blocks: usize) -> Vec<u64> {
    let mut traffic = vec![0; blocks];
    let mut touch = |b: BufferId, bytes: usize| {
        if let Some(block) = block_of[b.index()] {
            traffic[block] += bytes as u64;
        }
    };
    for k in &plan.kernels {
        for (arg, ty) in k.args.iter().zip(&k.arg_types) {
            if let Arg::Buffer(b) = arg {
                touch(*b, ty.bytes());
            }
        }
        touch(k.out, k.out_type.bytes());
        // Working memory is written and read.
        k.scratch.into_iter().for_each(|b| touch(b, 2 * plan.buffer(b).bytes));
    }
    traffic
}

/// The memory and the offset there of each block, and the bytes taken of each memory; `None` where they do not fit. Of
/// several ways to place them it is the one that waits least.
fn place_in(blocks: &[Block], traffic: &[u64], ram: &[&Memory]) -> Option<Placement> {
    let room: Vec<usize> = ram.iter().map(|m| m.bytes).collect();
    let groups = groups(blocks);
    let rank = |(places, totals): &Placement| {
        let over: usize = totals.iter().zip(&room).map(|(total, room)| total.saturating_sub(*room)).sum();
        let waits: u64 = places.iter().zip(traffic).map(|((bank, _), n)| n * u64::from(ram[*bank].wait)).sum();
        (over, waits, totals.iter().sum::<usize>())
    };
    let best = search(blocks, &groups, &room, SPREAD_ORDERS, rank, (0, 0, 0))?;
    (rank(&best).0 == 0).then_some(best)
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

/// Blocks by the group that they belong to.
fn groups(blocks: &[Block]) -> Vec<Vec<usize>> {
    let mut place = HashMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (i, block) in blocks.iter().enumerate() {
        let at = *place.entry(block.group).or_insert(groups.len());
        if at == groups.len() {
            groups.push(vec![]);
        }
        groups[at].push(i);
    }
    groups
}

/// The most bytes that blocks which live at one time take at least.
pub fn live_peak(blocks: &[Block]) -> usize {
    let kernels = blocks.iter().map(|b| b.last + 1).max().unwrap_or(0);
    let (mut live, mut shared) = (vec![0; kernels], vec![0; kernels]);
    for group in groups(blocks) {
        let first = group.iter().map(|&i| blocks[i].first).min().unwrap_or(0);
        let last = group.iter().map(|&i| blocks[i].last).max().unwrap_or(0);
        for (k, live) in live.iter_mut().enumerate().take(last + 1).skip(first) {
            // Parts of one buffer may be the same bytes.
            let now = group.iter().map(|&i| &blocks[i]).filter(|b| b.first <= k && k <= b.last);
            let mut spans: Vec<(usize, usize)> = now.map(|b| (b.at, b.at + b.bytes_at(k))).collect();
            spans.sort_unstable();
            let mut end = 0;
            for (from, to) in spans {
                *live += to.saturating_sub(from.max(end));
                end = end.max(to);
            }
        }
    }
    for b in blocks {
        if let Some((donor, side)) = b.over {
            let donor = &blocks[donor];
            shared[b.first] += b.bytes + donor.bytes_at(b.first) - b.together(donor, side);
        }
    }
    live.iter().zip(&shared).map(|(live, shared): (&usize, &usize)| live.saturating_sub(*shared)).max().unwrap_or(0)
}

/// Where each block is, by memory and offset, and the bytes taken of each memory.
type Placement = (Vec<(usize, usize)>, Vec<usize>);

/// Offsets of blocks and the bytes that they take together. Every size is a multiple of `alignment`.
pub fn place(blocks: &[Block], alignment: usize) -> (Vec<usize>, usize) {
    let orders = RANDOM_ORDERS.min(RANDOM_PAIRS / blocks.len().pow(2).max(1));
    let total = |placement: &Placement| placement.1[0];
    let found = search(blocks, &groups(blocks), &[usize::MAX], orders, total, live_peak(blocks));
    let (places, totals) = found.unwrap_or((vec![], vec![0]));
    let offsets: Vec<usize> = places.into_iter().map(|(_, at)| at).collect();
    debug_assert!(offsets.iter().all(|o| o % alignment == 0));
    (offsets, totals[0])
}

/// The placement of least rank among some orders of the groups, or the first that reaches `bound`.
fn search<R: PartialOrd + Copy>(
    blocks: &[Block],
    groups: &[Vec<usize>],
    room: &[usize],
    orders: usize,
    rank: impl Fn(&Placement) -> R,
    bound: R,
) -> Option<Placement> {
    let mut order: Vec<usize> = (0..groups.len()).collect();
    let mut best: Option<(Placement, R, Vec<usize>)> = None;
    let consider = |order: &[usize], best: &mut Option<(Placement, R, Vec<usize>)>| {
        let placement = first_fit(blocks, groups, order, room);
        let rank = rank(&placement);
        if best.as_ref().is_none_or(|b| rank < b.1) {
            *best = Some((placement, rank, order.to_vec()));
        }
    };
    for by in [Order::Size, Order::Area, Order::Span, Order::Late, Order::Early] {
        order.sort_by_key(|&g| {
            let first = groups[g].iter().map(|&i| blocks[i].first).min();
            (std::cmp::Reverse(by.key(blocks, &groups[g])), first, groups[g][0])
        });
        consider(&order, &mut best);
    }
    let mut random = SplitMix(0x6d63_6361_7265_6e61);
    for _ in 0..orders {
        let Some((_, rank, order)) = &best else { break };
        if *rank <= bound || order.len() < 2 {
            break;
        }
        let mut changed = order.clone();
        for _ in 0..1 + random.below(3) {
            let group = changed.remove(random.below(order.len()));
            changed.insert(random.below(order.len()), group);
        }
        consider(&changed, &mut best);
    }
    best.map(|(placement, ..)| placement)
}

/// What is placed first.
#[derive(Clone, Copy)]
enum Order {
    Size,
    Area,
    Span,
    /// Results before what they are made of: one after the other, each far enough ahead of its argument.
    Late,
    /// The same for results behind their arguments.
    Early,
}

impl Order {
    fn key(self, blocks: &[Block], group: &[usize]) -> (usize, usize) {
        let of = |i: &usize| &blocks[*i];
        let first = group.iter().map(|i| of(i).first).min().unwrap_or(0);
        let last = group.iter().map(|i| of(i).last).max().unwrap_or(0);
        let (span, bytes) = (last - first + 1, extent(blocks, group));
        let area = group.iter().map(of).map(|b| b.bytes * (b.last - b.first + 1)).sum();
        match self {
            Order::Size => (bytes, span),
            Order::Area => (area, bytes),
            Order::Span => (span, bytes),
            Order::Late => (last, first),
            Order::Early => (usize::MAX - first, usize::MAX - last),
        }
    }
}

/// The bytes from the start of a group to its end.
fn extent(blocks: &[Block], group: &[usize]) -> usize {
    group.iter().map(|&i| blocks[i].at + blocks[i].bytes).max().unwrap_or(0)
}

/// Places groups in this order, each in the first memory that has room and there as low as it goes. What fits nowhere
/// overflows the last one.
fn first_fit(blocks: &[Block], groups: &[Vec<usize>], order: &[usize], room: &[usize]) -> Placement {
    let mut places = vec![(0, 0); blocks.len()];
    let mut totals = vec![0; room.len()];
    // Placed blocks by their first kernel, those of a long life apart: most blocks live shortly and meet only a few.
    let end = blocks.iter().map(|b| b.last + 1).max().unwrap_or(0);
    let mut starting: Vec<Vec<usize>> = vec![vec![]; end];
    let mut long: Vec<usize> = Vec::new();
    let mut taken: Vec<(i64, i64)> = Vec::new();
    for &g in order {
        let size = extent(blocks, &groups[g]);
        for (bank, &room) in room.iter().enumerate() {
            taken.clear();
            for &i in &groups[g] {
                let block = &blocks[i];
                let from = block.first.saturating_sub(SHORT_SPAN);
                let near = starting[from..=block.last].iter().flatten().chain(&long);
                for &j in near.filter(|&&j| places[j].0 == bank && block.meets(&blocks[j])) {
                    let (below, from) = forbidden(blocks, i, j, places[j].1);
                    taken.push((below - block.at as i64, from - block.at as i64));
                }
            }
            taken.sort_unstable();
            let mut at = 0;
            for &(below, from) in &taken {
                if at <= below {
                    break;
                }
                at = at.max(from);
            }
            let at = at as usize;
            if at.saturating_add(size) > room && bank + 1 < totals.len() {
                continue;
            }
            totals[bank] = totals[bank].max(at + size);
            for &i in &groups[g] {
                places[i] = (bank, at + blocks[i].at);
            }
            break;
        }
        for &i in &groups[g] {
            let block = &blocks[i];
            if block.last - block.first > SHORT_SPAN {
                long.push(i);
            } else {
                starting[block.first].push(i);
            }
        }
    }
    (places, totals)
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
                let group = blocks.len();
                blocks.push(Block { bytes: n * 4, first, last: first + span, tail, over, group, at: 0 });
            }
            blocks
        })
    }

    /// Blocks of which some are parts of earlier ones.
    fn grouped() -> impl Strategy<Value = Vec<Block>> {
        (blocks(), proptest::collection::vec((0usize..6, 0usize..30), 20)).prop_map(|(mut blocks, parts)| {
            for i in 0..blocks.len() {
                let (leader, at) = parts[i];
                if leader < i && blocks[leader].group == leader {
                    (blocks[i].group, blocks[i].at) = (leader, 4 * at);
                }
            }
            blocks
        })
    }

    proptest! {
        #[test]
        fn blocks_that_live_together_never_overlap(blocks in prop_oneof![blocks(), grouped()]) {
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
                    let one = blocks[i].group == blocks[j].group;
                    prop_assert!(apart || over || one);
                    let distance = offsets[i] as i64 - offsets[j] as i64;
                    prop_assert!(!one || distance == blocks[i].at as i64 - blocks[j].at as i64);
                }
            }
            prop_assert!(total >= live_peak(&blocks));
        }

        #[test]
        fn every_memory_is_kept_to_its_size(blocks in grouped(), room in proptest::collection::vec(1usize..60, 1..4)) {
            let memory = |(i, n): (usize, &usize)| Memory {
                name: format!("m{i}"),
                kind: mcc_ir::target::MemoryKind::Ram,
                bytes: 4 * n,
                wait: i as u32,
                section: String::new(),
            };
            let memories: Vec<Memory> = room.iter().enumerate().map(memory).collect();
            let ram: Vec<&Memory> = memories.iter().collect();
            let alone = place(&blocks, 4).1;
            match place_in(&blocks, &vec![1; blocks.len()], &ram) {
                None => prop_assert!(alone > 4 * room[0]),
                Some((places, totals)) => {
                    for i in 0..blocks.len() {
                        let (bank, at) = places[i];
                        prop_assert!(at + blocks[i].bytes <= totals[bank] && totals[bank] <= 4 * room[bank]);
                        for j in (0..i).filter(|&j| places[j].0 == bank && blocks[j].meets(&blocks[i])) {
                            let free = blocks[i].over.is_none() && blocks[j].over.is_none();
                            let one = blocks[i].group == blocks[j].group;
                            let both = blocks[i].first.max(blocks[j].first)..=blocks[i].last.min(blocks[j].last);
                            let apart = both.clone().all(|k| {
                                at + blocks[i].bytes_at(k) <= places[j].1 || places[j].1 + blocks[j].bytes_at(k) <= at
                            });
                            prop_assert!(!free || one || apart);
                        }
                    }
                }
            }
        }
    }

    /// Bytes, first and last kernel, and what a block may lie over.
    type Alone = (usize, usize, usize, Option<(usize, Side)>);

    /// Blocks that are placed one by one.
    fn apart(all: &[Alone]) -> Vec<Block> {
        let block = |(group, &(bytes, first, last, over))| Block { bytes, first, last, tail: None, over, group, at: 0 };
        all.iter().enumerate().map(block).collect()
    }

    #[test]
    fn a_fragmenting_order_is_improved_to_the_bound() {
        // First-fit in program order leaves a hole of 8 under the third block.
        let blocks = apart(&[(8, 0, 1, None), (16, 0, 2, None), (16, 2, 3, None), (8, 3, 4, None)]);
        assert_eq!(place(&blocks, 4).1, live_peak(&blocks));
    }

    #[test]
    fn a_result_lies_over_the_argument_that_it_consumes() {
        // 8 bytes become 16 with a lead of 12, then 4 with a lead of 4.
        let ahead = |donor, lead| Some((donor, Side::Ahead(lead)));
        let blocks = apart(&[(8, 0, 0, None), (16, 0, 1, ahead(0, 12)), (4, 1, 1, ahead(1, 4))]);
        assert_eq!(live_peak(&blocks), 20);
        assert_eq!(place(&blocks, 4), (vec![12, 0, 16], 20));
        let in_order = |order: &[usize]| first_fit(&blocks, &groups(&blocks), order, &[usize::MAX]);
        assert_eq!(in_order(&[0, 1, 2]), (vec![(0, 0), (0, 8), (0, 0)], vec![24]));
        assert_eq!(in_order(&[2, 1, 0]), (vec![(0, 16), (0, 4), (0, 0)], vec![24]));
    }

    #[test]
    fn a_block_that_shrinks_leaves_its_end() {
        // 40 bytes become 8 in place; from the next kernel on there is room for 32 more.
        let then = |first| {
            let mut blocks = apart(&[(40, 0, 3, None), (32, first, 3, None)]);
            blocks[0].tail = Some((2, 8));
            blocks
        };
        assert_eq!(place(&then(2), 4), (vec![0, 8], 40));
        assert_eq!(live_peak(&then(2)), 40);
        assert_eq!(place(&then(1), 4).1, 72);
    }

    #[test]
    fn results_over_one_another_from_both_sides() {
        // 28 bytes shrink to 20 in ascending order and grow to 36 in descending order: 36 hold them all.
        let then =
            |side| apart(&[(28, 0, 0, None), (20, 0, 1, Some((0, Side::Ahead(4)))), (36, 1, 1, Some((1, side)))]);
        let blocks = then(Side::Behind(-16));
        assert_eq!(place(&blocks, 4).1, 36);
        assert_eq!(live_peak(&blocks), 36);
        // In ascending order the last one ends up far before the first.
        assert_eq!(place(&then(Side::Ahead(16)), 4).1, 48);
    }

    /// Each lies over the one before, a little ahead: the last comes first, and all form stairs.
    #[test]
    fn a_chain_of_overlaps_forms_stairs() {
        let chain: Vec<_> = (0..12).map(|i| (64, i, i + 1, (i > 0).then(|| (i - 1, Side::Ahead(4))))).collect();
        assert_eq!(place(&apart(&chain), 4).1, 64 + 11 * 4);
    }

    /// Rows of a tensor are read one half after the other; the result of a half lies where the rows before were.
    #[test]
    fn parts_die_one_by_one() {
        let b = |bytes, first, last, group, at| Block { bytes, first, last, tail: None, over: None, group, at };
        let whole = [b(32, 0, 0, 0, 0), b(16, 0, 0, 0, 0), b(16, 0, 1, 0, 16)];
        let blocks = [whole[0], whole[1], whole[2], b(16, 1, 2, 3, 0)];
        assert_eq!((place(&blocks, 4), live_peak(&blocks)), ((vec![0, 0, 16, 0], 32), 32));
    }

    #[test]
    fn blocks_spill_to_the_next_memory() {
        let memory = |name: &str, bytes, wait| Memory {
            name: name.into(),
            kind: mcc_ir::target::MemoryKind::Ram,
            bytes,
            wait,
            section: String::new(),
        };
        let (fast, slow) = (memory("fast", 24, 0), memory("slow", 64, 2));
        // The blocks with most traffic stay in the fast memory.
        let blocks = apart(&[(32, 0, 3, None), (16, 0, 1, None), (16, 1, 2, None), (8, 2, 3, None)]);
        let found = place_in(&blocks, &[64, 9, 400, 300], &[&fast, &slow]).unwrap();
        assert_eq!(found.0.iter().map(|p| p.0).collect::<Vec<_>>(), [1, 1, 0, 0]);
        assert!(place_in(&blocks, &[1; 4], &[&fast, &memory("small", 30, 2)]).is_none());
    }
}
