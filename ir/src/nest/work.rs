//! What running a loop nest takes, as counts.
//!
//! The counts follow what compilers make of a nest: short loops around little work are unrolled, and cost no iterations;
//! what does not change in a loop is computed before it; a test whether an index is in bounds is left out where the
//! loops' extents answer it; rows that are only moved become copies of memory. What one of each takes depends on what else
//! a loop holds, so nests are of [`Kind`]s, each with counts of its own.

use super::{Bound, Expr, Index, Nest, Stmt};
use crate::costs::Work;
use crate::scalar::{BinOp, ScalarType, UnOp};
use std::collections::HashMap;

/// Loops of at most so many iterations are unrolled,
const SHORT: i64 = 17;
/// where what comes out has at most so many operations.
const UNROLLED: f64 = 300.0;
/// Products in a row whose operands have registers.
const ROW: f64 = 16.0;
/// Loops around each other that leave registers to the innermost one.
const LOOPS: usize = 4;

/// What a nest is mostly made of. All but the last are of two kinds: with unrolled loops, and without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Sums of products of integers.
    Integers,
    /// Sums of products of floats.
    Floats,
    /// Other values that change in loops: sums, maxima.
    Sums,
    /// Computed elements, each by itself.
    Chains,
    /// Elements that only change their place.
    Moves,
}

macro_rules! counts {
    ($($variant:ident $count:literal)*) => {
        #[derive(Clone, Copy)]
        enum Count {
            $($variant),*
        }
        const COUNTS: usize = [$($count),*].len();
        /// The names of counts, by kind and whether loops are unrolled.
        const NAMES: [[&str; COUNTS]; 9] = [
            [$(concat!("integers, ", $count)),*],
            [$(concat!("integers unrolled, ", $count)),*],
            [$(concat!("floats, ", $count)),*],
            [$(concat!("floats unrolled, ", $count)),*],
            [$(concat!("sums, ", $count)),*],
            [$(concat!("sums unrolled, ", $count)),*],
            [$(concat!("chains, ", $count)),*],
            [$(concat!("chains unrolled, ", $count)),*],
            [$(concat!("moves, ", $count)),*],
        ];
    };
}

counts! {
    Runs "runs"
    Loops "loops"
    Iterations "iterations"
    // Iterations of loops around loops that stay.
    Around "iterations around"
    Unrolled "iterations unrolled"
    Loads "loads"
    LoadsUnrolled "loads unrolled"
    Stores "stores"
    Integers "integers"
    IntegerProducts "integer products"
    Floats "floats"
    FloatProducts "float products"
    Comparisons "comparisons"
    // Of floats and integers, and square roots.
    Divisions "divisions"
    // Integers to floats; and floats to integers by rounding, the same within bounds, and towards 0.
    Conversions "conversions"
    Rounded "rounded"
    Saturated "saturated"
    Truncated "truncated"
    // Floats to whole floats.
    Whole "whole"
    Selections "selections"
    // Values that unrolled loops change within a loop that stays.
    Looped "unrolled in a loop"
    // Those of long rows of unrolled products, and of innermost loops under many others, which want for registers.
    Crowded "in a long row"
    Deep "under many loops"
    // Tests of bounds, decisions by them, and what hangs on those.
    Bounds "bounds"
    Guards "guards"
    Guarded "guarded"
    // Copies that a compiler writes out, and their words; those by calls, their bytes, and those that are no whole words.
    Short "short copies"
    Words "words"
    Copies "copies"
    Bytes "bytes"
    Odd "bytes of no words"
}

/// The names of all counts that [`Nest::work`] gives.
pub fn counts() -> impl Iterator<Item = &'static str> {
    NAMES.iter().flatten().copied()
}

/// A loop around the current place.
#[derive(Clone, Copy)]
struct Loop {
    var: u32,
    extent: i64,
    unrolled: bool,
}

struct Walk<'a> {
    nest: &'a Nest,
    /// Outermost first.
    loops: Vec<Loop>,
    /// For each register how many loops are around its definition, and in how many of them it changes.
    regs: HashMap<u32, (usize, usize)>,
    /// What registers are defined as that do not change.
    values: HashMap<u32, &'a Expr>,
    counts: [f64; COUNTS],
    /// The share of iterations in which the current place is reached.
    share: f64,
}

impl Nest {
    /// The work of one run.
    pub fn work(&self) -> Work {
        let mut walk = Walk::new(self);
        walk.add(Count::Runs, 1.0);
        walk.block(&self.body);
        let unrolled = walk.counts[Count::Unrolled as usize] > 0.0;
        let names = match self.kind() {
            Kind::Moves => &NAMES[2 * Kind::Moves as usize],
            kind => &NAMES[2 * kind as usize + usize::from(unrolled)],
        };
        names
            .iter()
            .zip(walk.counts)
            .filter(|(_, n)| *n > 0.0)
            .fold(Work::default(), |work, (name, n)| work.and(name, n))
    }

    /// What its code is made of: loops, and operations, of which those of unrolled loops are there many times.
    pub fn code(&self) -> Work {
        let mut loops = 0.0;
        each(&self.body, &mut |s| loops += f64::from(u8::from(matches!(s, Stmt::For { .. }))));
        Work::default().and("nests", 1.0).and("loops", loops).and("operations", size(&self.body).0)
    }

    fn kind(&self) -> Kind {
        let mut kind = Kind::Moves;
        each(&self.body, &mut |s| {
            kind = match s {
                Stmt::Set { value, .. } => match product(value) {
                    Some(ScalarType::I32) => Kind::Integers,
                    Some(ScalarType::F32) => Kind::Floats,
                    None if matches!(kind, Kind::Integers | Kind::Floats) => kind,
                    None => Kind::Sums,
                },
                Stmt::Store { value, .. } if kind == Kind::Moves && computes(value) => Kind::Chains,
                _ => kind,
            }
        });
        kind
    }
}

/// Calls a function for each statement.
fn each<'a>(body: &'a [Stmt], f: &mut impl FnMut(&'a Stmt)) {
    for s in body {
        f(s);
        if let Stmt::For { body, .. } = s {
            each(body, f);
        }
    }
}

/// The type of the product of two tensors' elements that a value adds to another.
fn product(value: &Expr) -> Option<ScalarType> {
    let value = if let Expr::Guard { then, .. } = value { then } else { value };
    let Expr::Bin(add @ (BinOp::AddI | BinOp::AddF), _, term) = value else { return None };
    match &**term {
        Expr::Bin(BinOp::MulI | BinOp::MulF, a, b) if loads(a) && loads(b) => Some(add.argument()),
        _ => None,
    }
}

fn loads(e: &Expr) -> bool {
    match e {
        Expr::Load { .. } => true,
        Expr::Un(_, a) => loads(a),
        Expr::Bin(_, a, b) => loads(a) || loads(b),
        Expr::Guard { then, .. } => loads(then),
        _ => false,
    }
}

fn computes(e: &Expr) -> bool {
    match e {
        Expr::Un(..) | Expr::Bin(..) | Expr::Reg(_) => true,
        Expr::Select(parts) => parts.iter().any(computes),
        Expr::Guard { then, other, .. } => computes(then) || computes(other),
        _ => false,
    }
}

/// Whether a loop around so much work is unrolled, if it holds none that stays.
fn short(extent: i64, inner: f64) -> bool {
    extent <= SHORT && inner * extent as f64 <= UNROLLED
}

/// Operations of a block, those of unrolled loops many times, and whether it holds a loop that stays.
fn size(body: &[Stmt]) -> (f64, bool) {
    body.iter().fold((0.0, false), |(n, stays), s| match s {
        Stmt::For { extent, body, .. } => match size(body) {
            (inner, false) if short(*extent, inner) => (n + inner * *extent as f64, stays),
            (inner, _) => (n + inner + 3.0, true),
        },
        Stmt::Let { value, .. } | Stmt::Set { value, .. } => (n + operations(value), stays),
        Stmt::Store { value, .. } => (n + 1.0 + operations(value), stays),
    })
}

fn operations(e: &Expr) -> f64 {
    match e {
        Expr::F32(_) | Expr::I32(_) | Expr::Reg(_) => 0.0,
        Expr::Index(_) => 1.0,
        Expr::Load { index, .. } => 2.0 + index.dynamic.as_deref().map_or(0.0, operations),
        Expr::Un(UnOp::RoundToI, a) => 3.0 + operations(saturated(a).unwrap_or(a)),
        Expr::Un(_, a) => 1.0 + operations(a),
        // An addition of integers wraps, which takes conversions.
        Expr::Bin(op, a, b) => operations(a) + operations(b) + if op.argument() == ScalarType::I32 { 2.0 } else { 1.0 },
        Expr::Select(parts) => 2.0 + parts.iter().map(operations).sum::<f64>(),
        Expr::Guard { bounds, then, other } => 2.0 * bounds.len() as f64 + operations(then) + operations(other),
    }
}

/// x of `max(min(x, hi), lo)` with whole bounds, which rounding and saturating in one takes.
fn saturated(e: &Expr) -> Option<&Expr> {
    let Expr::Bin(BinOp::MaxF, inner, lo) = e else { return None };
    let Expr::Bin(BinOp::MinF, x, hi) = &**inner else { return None };
    let whole = |e: &Expr| matches!(e, Expr::F32(v) if v.fract() == 0.0 && v.abs() <= 16_777_216.0);
    (whole(lo) && whole(hi)).then_some(x)
}

fn coefficient(index: &Index, var: u32) -> i64 {
    index.terms.iter().find(|t| t.0.0 == var).map_or(0, |t| t.1)
}

impl<'a> Walk<'a> {
    fn new(nest: &'a Nest) -> Walk<'a> {
        let (regs, values) = (HashMap::new(), HashMap::new());
        Walk { nest, loops: vec![], regs, values, counts: [0.0; COUNTS], share: 1.0 }
    }

    fn add(&mut self, count: Count, n: f64) {
        self.counts[count as usize] += n;
    }

    /// Adds what is done once in each iteration of the outermost `depth` loops.
    fn at(&mut self, count: Count, depth: usize) {
        let share = if depth == self.loops.len() { self.share } else { 1.0 };
        self.add(count, self.times(depth) * share);
    }

    fn times(&self, depth: usize) -> f64 {
        self.loops[..depth].iter().map(|l| l.extent as f64).product()
    }

    /// How many loops are around the one that an index changes in, with that one.
    fn depth(&self, index: &Index) -> usize {
        let place = |var: u32| self.loops.iter().position(|l| l.var == var).map_or(0, |at| at + 1);
        index.terms.iter().map(|t| place(t.0.0)).max().unwrap_or(0)
    }

    fn block(&mut self, body: &'a [Stmt]) {
        let here = self.loops.len();
        for s in body {
            match s {
                Stmt::For { .. } if self.copy(s) => {}
                Stmt::For { var, extent, body } => {
                    let (inner, stays) = size(body);
                    let unrolled = !stays && short(*extent, inner);
                    self.loops.push(Loop { var: var.0, extent: *extent, unrolled });
                    match (unrolled, stays) {
                        (true, _) => self.at(Count::Unrolled, here + 1),
                        (false, false) => self.at(Count::Iterations, here + 1),
                        (false, true) => self.at(Count::Around, here + 1),
                    }
                    if !unrolled {
                        self.at(Count::Loops, here);
                    }
                    self.block(body);
                    self.loops.pop();
                }
                Stmt::Let { reg, value } => {
                    let depth = self.expression(value);
                    let mut changes = false;
                    each(&self.nest.body, &mut |s| {
                        changes |= matches!(s, Stmt::Set { reg: other, .. } if other == reg)
                    });
                    self.regs.insert(reg.0, (here, if changes { usize::MAX } else { depth }));
                    if !changes {
                        self.values.insert(reg.0, value);
                    }
                }
                Stmt::Set { reg, value } => {
                    self.change(reg.0);
                    self.expression(value);
                }
                Stmt::Store { index, value, .. } => {
                    self.at(Count::Stores, here);
                    self.index(index);
                    self.expression(value);
                }
            }
        }
    }

    /// Counts what the change of a register says about the registers that are left.
    fn change(&mut self, reg: u32) {
        let here = self.loops.len();
        let defined = self.regs.get(&reg).map_or(0, |(depth, _)| *depth);
        let inner = &self.loops[defined..];
        let row: f64 = inner.iter().rev().take_while(|l| l.unrolled).map(|l| l.extent as f64).product();
        let looped = inner.iter().any(|l| !l.unrolled);
        if row > 1.0 {
            if looped {
                self.at(Count::Looped, here);
            }
            self.add(Count::Crowded, self.times(here) * (1.0 - ROW / row).max(0.0));
        } else if looped && here > LOOPS {
            self.at(Count::Deep, here);
        }
    }

    /// Counts a loop that only copies elements which lie together, with those around it that make it longer.
    fn copy(&mut self, statement: &Stmt) -> bool {
        let Stmt::For { var, extent, body } = statement else { return false };
        let [Stmt::Store { arg, index: to, value: Expr::Load { arg: source, index: from } }] = &body[..] else {
            return false;
        };
        let dtype = self.nest.args[*arg].dtype;
        let both = |var: u32, step: i64| coefficient(to, var) == step && coefficient(from, var) == step;
        if dtype != self.nest.args[*source].dtype || !both(var.0, 1) || from.dynamic.is_some() {
            return false;
        }
        let (mut run, mut around) = (*extent, self.loops.len());
        while let Some(l) = self.loops[..around].last().filter(|l| both(l.var, run)) {
            run *= l.extent;
            around -= 1;
        }
        let size = dtype.bits() as i64 / 8;
        let (bytes, rows) = (run * size, self.times(around));
        if bytes <= if size >= 4 { 64 } else { 16 } {
            self.add(Count::Short, rows);
            self.add(Count::Words, rows * (bytes as f64 / 4.0).ceil());
        } else {
            let steps = || self.loops[..around].iter().flat_map(|l| [coefficient(to, l.var), coefficient(from, l.var)]);
            let whole = steps().chain([to.base, from.base, run]).all(|step| step * size % 4 == 0);
            self.add(Count::Copies, rows);
            self.add(if whole { Count::Bytes } else { Count::Odd }, rows * bytes as f64);
        }
        true
    }

    fn index(&mut self, index: &Index) -> usize {
        let depth = self.depth(index);
        match &index.dynamic {
            Some(e) => {
                let depth = depth.max(self.expression(e));
                self.at(Count::Integers, depth);
                depth
            }
            None => depth,
        }
    }

    /// Counts an expression where it is computed, and gives the number of loops around that place.
    fn expression(&mut self, e: &Expr) -> usize {
        match e {
            Expr::F32(_) | Expr::I32(_) => 0,
            Expr::Reg(r) => self.regs.get(&r.0).map_or(usize::MAX, |(_, changes)| *changes).min(self.loops.len()),
            Expr::Index(index) => self.index(index),
            Expr::Load { index, .. } => {
                let depth = self.index(index);
                let unrolled = self.loops[..depth].last().is_some_and(|l| l.unrolled);
                self.at(if unrolled { Count::LoadsUnrolled } else { Count::Loads }, depth);
                depth
            }
            Expr::Un(op, a) => {
                let (count, a) = match op {
                    UnOp::RoundToI => saturated(a).map_or((Count::Rounded, &**a), |x| (Count::Saturated, x)),
                    UnOp::TruncToI => (Count::Truncated, &**a),
                    UnOp::ToF => (Count::Conversions, &**a),
                    UnOp::SqrtF => (Count::Divisions, &**a),
                    UnOp::FloorF | UnOp::CeilF | UnOp::RoundF => (Count::Whole, &**a),
                    UnOp::NegF | UnOp::AbsF => (Count::Floats, &**a),
                    UnOp::BitsOfF | UnOp::FOfBits | UnOp::NegI | UnOp::NotI => (Count::Integers, &**a),
                };
                let depth = self.expression(a);
                self.at(count, depth);
                depth
            }
            Expr::Bin(op, a, b) => {
                let depth = self.expression(a).max(self.expression(b));
                let count = match (op, op.argument()) {
                    (BinOp::DivF | BinOp::DivI, _) => Count::Divisions,
                    (BinOp::MulI | BinOp::MulHighRound, _) => Count::IntegerProducts,
                    (BinOp::MulF, _) => Count::FloatProducts,
                    (BinOp::MinF | BinOp::MaxF | BinOp::EqF | BinOp::LtF | BinOp::LeF, _) => Count::Comparisons,
                    (_, ScalarType::F32) => Count::Floats,
                    (_, ScalarType::I32) => Count::Integers,
                };
                self.at(count, depth);
                depth
            }
            Expr::Select(parts) => {
                let depth = self.expression(&parts[0]);
                // Both sides are computed, or there is a branch around each where they are long.
                let branch = parts[1..].iter().any(|part| operations(part) > 4.0);
                let share = self.share;
                self.share *= if branch { 0.5 } else { 1.0 };
                let depth = parts[1..].iter().map(|part| self.expression(part)).fold(depth, usize::max);
                self.share = share;
                self.at(Count::Selections, depth);
                depth
            }
            Expr::Guard { bounds, then, other } => {
                let (mut holds, mut known, mut tests, mut depth) = (1.0, 1.0, 0.0, 0);
                for bound in bounds {
                    let always = self.known(bound);
                    tests += 1.0 - always;
                    known *= always;
                    holds *= self.holds(bound);
                    depth = depth.max(self.depth(&bound.index));
                }
                self.add(Count::Bounds, self.times(depth) * tests);
                self.add(Count::Guards, self.times(depth) * (1.0 - known));
                self.add(Count::Guarded, self.times(self.loops.len()) * (1.0 - known));
                let share = self.share;
                self.share = share * holds;
                depth = depth.max(self.expression(then));
                self.share = share * (1.0 - holds);
                depth = depth.max(self.expression(other));
                self.share = share;
                depth
            }
        }
    }

    /// The share of iterations in which a bound holds; 1 where it depends on data.
    fn holds(&self, bound: &Bound) -> f64 {
        let mut used = vec![false; self.loops.len()];
        if !self.uses(&bound.index, &mut used) {
            return 1.0;
        }
        self.share_of(&used, |at| self.place(&bound.index, at).is_some_and(|i| (0..bound.extent).contains(&i)))
    }

    /// The share of the iterations of unrolled loops in which a bound holds whatever the other loops do.
    fn known(&self, bound: &Bound) -> f64 {
        if bound.index.dynamic.is_some() {
            return 0.0;
        }
        let end = |l: &Loop| coefficient(&bound.index, l.var) * (l.extent - 1);
        let others = || self.loops.iter().filter(|l| !l.unrolled);
        let (lo, hi) = (others().map(|l| end(l).min(0)).sum::<i64>(), others().map(|l| end(l).max(0)).sum::<i64>());
        let used: Vec<bool> = self.loops.iter().map(|l| l.unrolled && coefficient(&bound.index, l.var) != 0).collect();
        self.share_of(&used, |at| self.place(&bound.index, at).is_some_and(|i| 0 <= i + lo && i + hi < bound.extent))
    }

    /// The share of the iterations of some loops, the others in their first, in which something is so.
    fn share_of(&self, over: &[bool], is: impl Fn(&[i64]) -> bool) -> f64 {
        /// More are not counted one by one.
        const MOST: i64 = 1 << 14;
        let extents = || self.loops.iter().zip(over).map(|(l, over)| if *over { l.extent } else { 1 });
        let n = extents().product::<i64>().clamp(1, MOST);
        let at = |i: i64| {
            let split = |rest: &mut i64, extent: i64| {
                let at = *rest % extent;
                *rest /= extent;
                Some(at)
            };
            extents().scan(i, split).collect::<Vec<_>>()
        };
        (0..n).filter(|&i| is(&at(i))).count() as f64 / n as f64
    }

    /// Marks the loops that an index depends on; false where it depends on data.
    fn uses(&self, index: &Index, used: &mut [bool]) -> bool {
        used.iter_mut().zip(&self.loops).for_each(|(used, l)| *used |= coefficient(index, l.var) != 0);
        index.dynamic.as_deref().is_none_or(|e| self.depends(e, used))
    }

    fn depends(&self, e: &Expr, used: &mut [bool]) -> bool {
        match e {
            Expr::I32(_) => true,
            Expr::Index(index) => self.uses(index, used),
            Expr::Reg(r) => self.values.get(&r.0).is_some_and(|e| self.depends(e, used)),
            Expr::Bin(_, a, b) => self.depends(a, used) && self.depends(b, used),
            _ => false,
        }
    }

    /// The value of an index in an iteration.
    fn place(&self, index: &Index, at: &[i64]) -> Option<i64> {
        let affine = self.loops.iter().zip(at).map(|(l, at)| coefficient(index, l.var) * at).sum::<i64>();
        let dynamic = index.dynamic.as_deref().map_or(Some(0), |e| self.value(e, at))?;
        Some(index.base + affine + dynamic)
    }

    fn value(&self, e: &Expr, at: &[i64]) -> Option<i64> {
        match e {
            Expr::I32(v) => Some(i64::from(*v)),
            Expr::Index(index) => self.place(index, at),
            Expr::Reg(r) => self.value(self.values.get(&r.0)?, at),
            Expr::Bin(op, a, b) => {
                let (a, b) = (self.value(a, at)?, self.value(b, at)?);
                match op {
                    BinOp::AddI => Some(a + b),
                    BinOp::SubI => Some(a - b),
                    BinOp::MulI => a.checked_mul(b),
                    BinOp::DivI => a.checked_div(b),
                    BinOp::MinI => Some(a.min(b)),
                    BinOp::MaxI => Some(a.max(b)),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::costs::Work;
    use crate::nest::{Bound, Expr, NestBuilder};
    use crate::scalar::{BinOp, Scalars};
    use crate::{DType, TensorType};

    fn of(work: &Work, count: &str) -> f64 {
        work.counts().iter().find(|(name, _)| *name == count).map_or(0.0, |(_, n)| *n)
    }

    fn nest(x: &[usize], y: &[usize], build: impl FnOnce(&mut NestBuilder)) -> Work {
        let [x, y] = [x, y].map(|shape| TensorType::new(DType::F32, shape.to_vec()));
        let mut b = NestBuilder::new(&[&x], &y);
        build(&mut b);
        b.finish().work()
    }

    /// Adds x to itself, in `n` iterations within 20.
    fn chain(n: usize) -> Work {
        nest(&[20, n], &[20, n], |b| {
            b.repeat_shape(&[20, n], |b, at| {
                let at = crate::nest::linear(at, &[n, 1]);
                let x = b.load(0, at.clone());
                let sum = b.bin(BinOp::AddF, x.clone(), x);
                b.store(at, sum);
            });
        })
    }

    #[test]
    fn short_loops_are_unrolled() {
        let (short, long) = (chain(8), chain(40));
        assert_eq!(of(&short, "chains unrolled, iterations unrolled"), 160.0);
        assert_eq!(of(&short, "chains unrolled, iterations"), 20.0);
        assert_eq!(of(&long, "chains, iterations"), 800.0);
        assert_eq!(of(&long, "chains, iterations around"), 20.0);
        assert_eq!(of(&long, "chains, floats"), 800.0);
    }

    #[test]
    fn what_stays_the_same_is_computed_before_the_loop() {
        let work = nest(&[20], &[20, 40], |b| {
            b.repeat_shape(&[20, 40], |b, at| {
                let x = b.load(0, at[0].clone());
                let root = b.bin(BinOp::DivF, Expr::F32(1.0), x);
                b.store(crate::nest::linear(at, &[40, 1]), root);
            });
        });
        assert_eq!(of(&work, "chains, divisions"), 20.0);
        assert_eq!(of(&work, "chains, loads"), 20.0);
        assert_eq!(of(&work, "chains, stores"), 800.0);
    }

    #[test]
    fn rows_that_lie_together_are_copied_at_once() {
        let copy = |to: [usize; 3]| {
            nest(&[2, 5, 40], &[2, 5, 80], |b| {
                b.repeat_shape(&[2, 5, 40], |b, at| {
                    let x = b.load(0, crate::nest::linear(at, &[200, 40, 1]));
                    b.store(crate::nest::linear(at, &to), x);
                });
            })
        };
        let (rows, whole) = (copy([400, 80, 1]), copy([200, 40, 1]));
        assert_eq!((of(&rows, "moves, copies"), of(&rows, "moves, bytes")), (10.0, 1600.0));
        assert_eq!((of(&whole, "moves, copies"), of(&whole, "moves, bytes")), (1.0, 1600.0));
    }

    /// Of three taps of an unrolled loop over 40 places, the middle one is always inside; the others are not, once each.
    #[test]
    fn tests_of_bounds_are_those_that_extents_do_not_answer() {
        let work = nest(&[40], &[40], |b| {
            b.repeat(40, |b, at| {
                let sum = b.let_(Expr::F32(0.0));
                b.repeat(3, |b, tap| {
                    let index = at.clone().plus_scaled(&tap, 1).offset(-1);
                    let bound = Bound { index: index.clone(), extent: 40 };
                    let then = Box::new(b.load(0, index));
                    let x = Expr::Guard { bounds: vec![bound], then, other: Box::new(Expr::F32(0.0)) };
                    let next = b.bin(BinOp::AddF, Expr::Reg(sum), x);
                    b.set(sum, next);
                });
                b.store(at, Expr::Reg(sum));
            });
        });
        assert!((of(&work, "sums unrolled, bounds") - 80.0).abs() < 1e-9);
        assert!((of(&work, "sums unrolled, loads unrolled") - 118.0).abs() < 1e-9);
    }
}
