//! LSTM, and GRU that resets after its product, in `f32`, with constant weights and the usual functions.
//!
//! Units are computed by vectors, all gates of a unit in one lane. The input's part of all sums comes first, several steps
//! at a time, into scratch memory; then each step adds the state's part and applies the gates. Weights are packed for that
//! order, [`GROUP`] vectors of units side by side, so that enough sums are in flight.

use super::simd::{self, Simd};
use super::words::{Wide, Words};
use super::{Call, Kernel, Part, Prepared, Purpose};
use mcc_ir::DType;
use mcc_ir::catalogue::KernelSpec;
use mcc_ir::math::elementary;
use mcc_ir::op::{Cell, Op};
use mcc_ir::ops::recurrent::{Rows, Sizes};
use mcc_ir::packing::Packing;
use mcc_ir::scalar::{BinOp, Scalars};
use mcc_ir::types::TensorType;
use std::marker::PhantomData;

/// Vectors of units that are computed together.
const GROUP: usize = 2;

/// Floats on whole cache lines.
struct Lines {
    lines: Vec<Line>,
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([f32; 16]);

impl Lines {
    fn new(values: &[f32]) -> Lines {
        let line = |part: &[f32]| {
            let mut line = Line([0.0; 16]);
            line.0[..part.len()].copy_from_slice(part);
            line
        };
        Lines { lines: values.chunks(16).map(line).collect() }
    }

    fn pointer(&self) -> *const f32 {
        self.lines.as_ptr().cast()
    }
}

/// What the functions of a level read.
pub struct Layer {
    sizes: Sizes,
    rows: Rows,
    /// Vectors of units.
    blocks: usize,
    /// For each group of blocks: for each element of the vector, for each block, for each gate, a vector of weights.
    w: Lines,
    r: Lines,
    /// For each block, for each gate, a vector.
    bias: Lines,
    /// Of a GRU: the bias of the state's part of the candidate, a vector a block.
    state_bias: Lines,
}

/// Weights `[gates * hidden, depth]` in the order of [`Layer::w`], units filled up with zeros.
fn pack(weights: &[f32], gates: usize, hidden: usize, depth: usize, lanes: usize) -> Vec<f32> {
    let blocks = hidden.div_ceil(lanes);
    let mut packed = Vec::with_capacity(blocks * gates * lanes * depth);
    for first in (0..blocks).step_by(GROUP) {
        for k in 0..depth {
            for block in first..blocks.min(first + GROUP) {
                for gate in 0..gates {
                    let unit = |lane: usize| Some(block * lanes + lane).filter(|j| *j < hidden);
                    let weight = |j: usize| weights[(gate * hidden + j) * depth + k];
                    packed.extend((0..lanes).map(|lane| unit(lane).map_or(0.0, weight)));
                }
            }
        }
    }
    packed
}

struct Recurrent<S, const GATES: usize> {
    layer: Layer,
    level: PhantomData<S>,
}

pub fn prepare<S: Layers>(spec: &KernelSpec<'_>, purpose: Purpose) -> Option<Prepared> {
    let Op::Recurrent(o) = spec.op else { return None };
    let types: Vec<&TensorType> = spec.arg_types.iter().collect();
    let usual = o.clip.is_none() && o.activations == o.cell.default_activations();
    if !usual || spec.out_type.dtype != DType::F32 {
        return None;
    }
    let sizes = Sizes::of(&types);
    let gates = o.cell.gates();
    let arguments = match o.cell {
        Cell::Gru { linear_before_reset: true } => [Some(0), Some(4), None],
        Cell::Lstm { input_forget: false, peepholes: false } => [Some(0), Some(4), Some(5)],
        _ => return None,
    };
    let [w, r, bias] = [spec.consts[1]?, spec.consts[2]?, spec.consts[3]?];
    let blocks = sizes.hidden.div_ceil(S::LANES);
    let all = blocks * gates * S::LANES;
    let packed = |values: &[f32], gates: usize, depth: usize| match purpose {
        Purpose::Offer => Lines { lines: vec![] },
        Purpose::Run => Lines::new(&pack(values, gates, sizes.hidden, depth, S::LANES)),
    };
    let bias = bias.to_f32();
    let (of_sums, of_state) = bias.split_at(gates * sizes.hidden);
    let state_bias = if of_state.is_empty() { Lines { lines: vec![] } } else { packed(of_state, 1, 1) };
    let layer = Layer {
        sizes,
        rows: Rows::new(o, sizes.steps),
        blocks,
        w: packed(&w.to_f32(), gates, sizes.input),
        r: packed(&r.to_f32(), gates, sizes.hidden),
        bias: packed(of_sums, gates, 1),
        state_bias,
    };
    let steps = sizes.steps * sizes.batch;
    let products = steps * all * (sizes.input + sizes.hidden) / S::LANES;
    let cycles = (products + steps * blocks * 60 * (gates + 1)) as f64;
    let call = Call { fused: true, residual: None, outer: 0 };
    let scratch = steps * all * 4;
    let prepared = match gates {
        3 => of::<S, 3>(spec, layer, call, scratch, cycles),
        _ => of::<S, 4>(spec, layer, call, scratch, cycles),
    };
    Some(Prepared { arguments, ..prepared })
}

fn of<S: Layers, const GATES: usize>(
    spec: &KernelSpec<'_>,
    layer: Layer,
    call: Call,
    scratch: usize,
    cycles: f64,
) -> Prepared {
    let kernel = Recurrent::<S, GATES> { layer, level: PhantomData };
    Prepared::of_kernel(spec, kernel, call, scratch, Packing::None, cycles)
}

impl<S: Layers, const GATES: usize> Kernel for Recurrent<S, GATES> {
    unsafe fn run(&self, _part: &Part, x: *const u8, h: *const u8, c: *const u8, out: *mut u8, scratch: *mut u8) {
        let data = Data { x: x.cast(), h: h.cast(), c: c.cast(), out: out.cast(), sums: scratch.cast() };
        // SAFETY: the kernel was chosen for a level that the machine has; the caller's contract gives arguments, output and
        // scratch memory of the sizes that the operator's types and `prepare` say.
        unsafe { if GATES == 4 { S::lstm(&self.layer, &data) } else { S::gru(&self.layer, &data) } }
    }
}

/// The memory of a run: input, initial state and cell state, all states, and the input's part of all sums.
pub struct Data {
    x: *const f32,
    h: *const f32,
    c: *const f32,
    out: *mut f32,
    sums: *mut f32,
}

/// Adds the products of MR vectors with NV vectors of weights for each of their elements.
///
/// # Safety
/// The level's instructions must be there; each of `x` must be good for `depth` elements, and `w` for `depth * NV` vectors.
#[inline(always)]
unsafe fn add_products<S: Simd, const MR: usize, const NV: usize>(
    mut sums: [[S::V; NV]; MR],
    x: [*const f32; MR],
    depth: usize,
    mut w: *const f32,
) -> [[S::V; NV]; MR] {
    // SAFETY: the caller's contract.
    unsafe {
        for k in 0..depth {
            let mut values = [S::splat(*x[0].add(k)); MR];
            for (value, x) in values.iter_mut().zip(x).skip(1) {
                *value = S::splat(*x.add(k));
            }
            for j in 0..NV {
                let weight = S::load(w.add(j * S::LANES));
                for (sums, value) in sums.iter_mut().zip(&values) {
                    sums[j] = S::mul_add(*value, weight, sums[j]);
                }
            }
            w = w.add(NV * S::LANES);
        }
    }
    sums
}

/// # Safety
/// As [`simd::Simd::load`], of NV vectors that follow one another.
#[inline(always)]
unsafe fn load_all<S: Simd, const NV: usize>(from: *const f32) -> [S::V; NV] {
    // SAFETY: the caller's contract.
    unsafe {
        let mut all = [S::load(from); NV];
        for (j, v) in all.iter_mut().enumerate().skip(1) {
            *v = S::load(from.add(j * S::LANES));
        }
        all
    }
}

/// The input's part of the sums of NV vectors, `first` of them before, for all steps.
///
/// # Safety
/// As [`layer`].
#[inline(always)]
unsafe fn input<S: Simd, const MR: usize, const NV: usize>(l: &Layer, d: &Data, first: usize, all: usize) {
    let count = l.sizes.steps * l.sizes.batch;
    let depth = l.sizes.input;
    // SAFETY: rows of x and of the sums below `count`, and vectors below `all`.
    unsafe {
        let bias = load_all::<S, NV>(l.bias.pointer().add(first * S::LANES));
        let w = l.w.pointer().add(first * S::LANES * depth);
        let to = |row: usize| d.sums.add((row * all + first) * S::LANES);
        let mut row = 0;
        while row + MR <= count {
            let x = std::array::from_fn(|i| d.x.add((row + i) * depth));
            let sums = add_products::<S, MR, NV>([bias; MR], x, depth, w);
            for (i, sums) in sums.iter().enumerate() {
                for (j, sum) in sums.iter().enumerate() {
                    S::store(to(row + i).add(j * S::LANES), *sum);
                }
            }
            row += MR;
        }
        for row in row..count {
            let [sums] = add_products::<S, 1, NV>([bias], [d.x.add(row * depth)], depth, w);
            for (j, sum) in sums.iter().enumerate() {
                S::store(to(row).add(j * S::LANES), *sum);
            }
        }
    }
}

/// One step of a group of blocks, for one sequence of the batch.
struct Place {
    /// The first block of the group.
    block: usize,
    /// The state before, from its first unit on.
    before: *const f32,
    /// The sums of the group.
    sums: *const f32,
    /// The new state and the cell state, from their first units on.
    after: *mut f32,
    cell: *mut f32,
}

/// # Safety
/// As [`layer`].
#[inline(always)]
unsafe fn lstm_group<S: Words, const BLOCKS: usize, const NV: usize>(l: &Layer, p: &Place) {
    let hidden = l.sizes.hidden;
    // SAFETY: the units of a group's blocks; those beyond the last are neither loaded nor stored.
    unsafe {
        let r = l.r.pointer().add(p.block * 4 * S::LANES * hidden);
        let [sums] = add_products::<S, 1, NV>([load_all::<S, NV>(p.sums)], [p.before], hidden, r);
        let mut s = Wide::<S>::new();
        for block in 0..BLOCKS {
            let first = (p.block + block) * S::LANES;
            let lanes = S::LANES.min(hidden - first);
            let [i, o, f, g] = [0, 1, 2, 3].map(|gate| sums[block * 4 + gate]);
            let (i, f) = (elementary::sigmoid(&mut s, i), elementary::sigmoid(&mut s, f));
            let (o, g) = (elementary::sigmoid(&mut s, o), elementary::tanh(&mut s, g));
            let c = S::load_first(p.cell.add(first), lanes);
            let kept = s.bin(BinOp::MulF, f, c);
            let c = S::mul_add(i, g, kept);
            S::store_first(p.cell.add(first), lanes, c);
            let shown = elementary::tanh(&mut s, c);
            let h = s.bin(BinOp::MulF, o, shown);
            S::store_first(p.after.add(first), lanes, h);
        }
    }
}

/// # Safety
/// As [`layer`].
#[inline(always)]
unsafe fn gru_group<S: Words, const BLOCKS: usize, const NV: usize>(l: &Layer, p: &Place) {
    let hidden = l.sizes.hidden;
    // SAFETY: the units of a group's blocks; those beyond the last are neither loaded nor stored.
    unsafe {
        let r = l.r.pointer().add(p.block * 3 * S::LANES * hidden);
        let of_x = load_all::<S, NV>(p.sums);
        let mut start = of_x;
        for block in 0..BLOCKS {
            start[block * 3 + 2] = S::load(l.state_bias.pointer().add((p.block + block) * S::LANES));
        }
        let [sums] = add_products::<S, 1, NV>([start], [p.before], hidden, r);
        let mut s = Wide::<S>::new();
        for block in 0..BLOCKS {
            let first = (p.block + block) * S::LANES;
            let lanes = S::LANES.min(hidden - first);
            let [z, r, of_h] = [0, 1, 2].map(|gate| sums[block * 3 + gate]);
            let (z, r) = (elementary::sigmoid(&mut s, z), elementary::sigmoid(&mut s, r));
            let candidate = elementary::tanh(&mut s, S::mul_add(r, of_h, of_x[block * 3 + 2]));
            let h = S::load_first(p.before.add(first), lanes);
            // (1 - z) * candidate + z * h.
            let h = S::mul_add(z, S::sub(h, candidate), candidate);
            S::store_first(p.after.add(first), lanes, h);
        }
    }
}

/// The whole layer: an LSTM where GATES is 4, a GRU where it is 3. NV is the vectors of a group.
///
/// # Safety
/// The level's instructions must be there, weights must be packed for its lanes, and the data must be of the layer's sizes.
#[inline(always)]
unsafe fn layer<S: Words, const ROWS: usize, const GATES: usize, const NV: usize>(l: &Layer, d: &Data) {
    let Sizes { steps, batch, hidden, .. } = l.sizes;
    let all = l.blocks * GATES;
    let row = batch * hidden;
    let groups = || (0..l.blocks).step_by(GROUP).map(|block| (block, block + GROUP <= l.blocks));
    // SAFETY: rows of the states that `Rows` gives, and blocks below their number.
    unsafe {
        std::ptr::copy_nonoverlapping(d.h, d.out.add(l.rows.initial() * row), row);
        if GATES == 4 {
            std::ptr::copy_nonoverlapping(d.c, d.out.add(l.rows.extra() * row), row);
        }
        for (block, whole) in groups() {
            match whole {
                true => input::<S, ROWS, NV>(l, d, block * GATES, all),
                false => input::<S, ROWS, GATES>(l, d, block * GATES, all),
            }
        }
        for t in 0..steps {
            let [at, before, after] = l.rows.at(t);
            for n in 0..batch {
                for (block, whole) in groups() {
                    let place = Place {
                        block,
                        before: d.out.add(before * row + n * hidden),
                        sums: d.sums.add(((at * batch + n) * all + block * GATES) * S::LANES),
                        after: d.out.add(after * row + n * hidden),
                        // Beyond the output where there is no cell state, and not used there.
                        cell: d.out.wrapping_add(l.rows.extra() * row + n * hidden),
                    };
                    match (GATES, whole) {
                        (4, true) => lstm_group::<S, GROUP, NV>(l, &place),
                        (4, false) => lstm_group::<S, 1, GATES>(l, &place),
                        (_, true) => gru_group::<S, GROUP, NV>(l, &place),
                        (_, false) => gru_group::<S, 1, GATES>(l, &place),
                    }
                }
            }
        }
    }
}

/// The functions of a level.
pub trait Layers: Words {
    /// # Safety
    /// The level's instructions must be there, weights must be packed for its lanes, and the data must be of the layer's
    /// sizes.
    unsafe fn lstm(l: &Layer, d: &Data);
    /// # Safety
    /// As [`Layers::lstm`].
    unsafe fn gru(l: &Layer, d: &Data);
}

/// `ROWS` steps of the input are computed together.
macro_rules! level {
    ($simd:ty, $rows:literal, $(#[$feature:meta])?) => {
        impl Layers for $simd {
            unsafe fn lstm(l: &Layer, d: &Data) {
                $(#[$feature])?
                unsafe fn compiled(l: &Layer, d: &Data) {
                    // SAFETY: the caller's contract.
                    unsafe { layer::<$simd, $rows, 4, { 4 * GROUP }>(l, d) }
                }
                // SAFETY: the caller's contract.
                unsafe { compiled(l, d) }
            }
            unsafe fn gru(l: &Layer, d: &Data) {
                $(#[$feature])?
                unsafe fn compiled(l: &Layer, d: &Data) {
                    // SAFETY: the caller's contract.
                    unsafe { layer::<$simd, $rows, 3, { 3 * GROUP }>(l, d) }
                }
                // SAFETY: the caller's contract.
                unsafe { compiled(l, d) }
            }
        }
    };
}

level!(simd::Portable, 1,);
#[cfg(target_arch = "aarch64")]
level!(super::neon::Neon, 2,);
#[cfg(target_arch = "x86_64")]
level!(simd::Avx2, 1, #[target_feature(enable = "avx2,fma")]);
#[cfg(target_arch = "x86_64")]
level!(simd::Avx512, 3, #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]);
