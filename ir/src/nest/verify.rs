//! The loop nest verifier: no nest that passes reads or writes outside its arguments.
//!
//! Indices are checked by interval analysis. The `i32` arithmetic behind an index is written as an affine form over loop
//! variables, registers and whatever is not affine; a bound of an enclosing [`Expr::Guard`] replaces its own form inside
//! the index by its range, which is how a padded access is proved. What cannot be proved is a fault.
//!
//! Left unchecked: that every element of the output is written, that shift counts are below 32, that a value fits the
//! element type it is stored as, and that a kernel that runs in place reads each element before it is overwritten.

use super::{Bound, Expr, Index, Nest, Reg, Stmt, Var, scalar_type};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::scalar::{BinOp, ScalarType, UnOp};

/// Checks a nest.
///
/// # Errors
/// [`Error::Verify`] with every fault found: arguments, registers and variables that do not exist or are used outside
/// their block, operations on the wrong scalar type, stores to anything but the output, indices that may leave their
/// argument, and an output that is never written.
pub fn verify(nest: &Nest) -> Result<()> {
    let faults = faults(nest);
    if faults.is_empty() { Ok(()) } else { Err(Error::Verify(faults)) }
}

/// Every fault of a nest.
pub(crate) fn faults(nest: &Nest) -> Vec<String> {
    if nest.args.len() != nest.inputs + nest.tables.len() + 1 {
        return vec![format!(
            "{} arguments, but {} inputs, {} tables and an output",
            nest.args.len(),
            nest.inputs,
            nest.tables.len()
        )];
    }
    let mut set = vec![false; nest.regs.len()];
    mark_set(&nest.body, &mut set);
    let mut checker = Checker {
        nest,
        table_ranges: nest.tables.iter().map(table_range).collect(),
        set,
        regs: vec![None; nest.regs.len()],
        vars: vec![None; nest.vars as usize],
        bounds: vec![],
        dead: false,
        stored: false,
        faults: vec![],
    };
    for (i, table) in nest.tables.iter().enumerate() {
        if table.ty() != &nest.args[nest.inputs + i] {
            checker.fault(format!("table {i} is {}, its argument {}", table.ty(), nest.args[nest.inputs + i]));
        }
    }
    if let Some(ty) = nest.args.iter().find(|t| !t.dtype.is_byte_sized()) {
        checker.fault(format!("an argument is packed: {ty}"));
    }
    checker.block(&nest.body);
    if !checker.stored && nest.args[nest.output()].elements() > 0 {
        checker.fault("the output is never written".into());
    }
    checker.faults
}

/// The registers that [`Stmt::Set`] changes.
fn mark_set(body: &[Stmt], set: &mut [bool]) {
    for stmt in body {
        match stmt {
            Stmt::For { body, .. } => mark_set(body, set),
            Stmt::Set { reg, .. } => set.iter_mut().skip(reg.0 as usize).take(1).for_each(|s| *s = true),
            Stmt::Let { .. } | Stmt::Store { .. } => {}
        }
    }
}

fn table_range(t: &crate::tensor::Tensor) -> Range {
    // As a load gives it: an i64 is truncated.
    let values = || t.to_i64().into_iter().map(|v| v as i32 as i128);
    match (values().min(), values().max()) {
        (Some(lo), Some(hi)) if !t.dtype().is_float() => Range { lo, hi },
        _ => Range::I32,
    }
}

/// Integers from `lo` to `hi`, both included.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Range {
    lo: i128,
    hi: i128,
}

impl Range {
    const I32: Range = Range { lo: i32::MIN as i128, hi: i32::MAX as i128 };
    const BOOL: Range = Range { lo: 0, hi: 1 };

    fn of(v: i128) -> Range {
        Range { lo: v, hi: v }
    }

    fn within(self, other: Range) -> bool {
        other.lo <= self.lo && self.hi <= other.hi
    }

    fn plus(self, other: Range) -> Range {
        Range { lo: self.lo.saturating_add(other.lo), hi: self.hi.saturating_add(other.hi) }
    }

    fn times(self, k: i128) -> Range {
        let (a, b) = (self.lo.saturating_mul(k), self.hi.saturating_mul(k));
        Range { lo: a.min(b), hi: a.max(b) }
    }

    fn union(self, other: Range) -> Range {
        Range { lo: self.lo.min(other.lo), hi: self.hi.max(other.hi) }
    }

    /// The range of a function that grows or falls in each argument, from its values at the corners.
    fn corners(a: Range, b: Range, f: impl Fn(i128, i128) -> i128) -> Range {
        let all = [f(a.lo, b.lo), f(a.lo, b.hi), f(a.hi, b.lo), f(a.hi, b.hi)];
        all.into_iter().map(Range::of).reduce(Range::union).expect("four corners")
    }

    fn or_wrapped(self) -> Range {
        if self.within(Range::I32) { self } else { Range::I32 }
    }
}

/// What an affine form is made of.
#[derive(Clone, Debug, PartialEq)]
enum Atom<'a> {
    Var(Var),
    Reg(Reg),
    /// An expression that is not affine, for use inside one statement.
    Other(&'a Expr),
}

#[derive(Clone, Debug)]
struct Term<'a> {
    atom: Atom<'a>,
    k: i128,
    range: Range,
}

/// `base` plus the sum of the terms.
#[derive(Clone, Debug, Default)]
struct Form<'a> {
    base: i128,
    terms: Vec<Term<'a>>,
}

impl<'a> Form<'a> {
    fn constant(base: i128) -> Form<'a> {
        Form { base, terms: vec![] }
    }

    fn atom(atom: Atom<'a>, range: Range) -> Form<'a> {
        Form { base: 0, terms: vec![Term { atom, k: 1, range }] }
    }

    fn plus_scaled(mut self, other: &Form<'a>, k: i128) -> Form<'a> {
        self.base = self.base.saturating_add(other.base.saturating_mul(k));
        for term in &other.terms {
            let k = term.k.saturating_mul(k);
            match self.terms.iter_mut().find(|t| t.atom == term.atom) {
                Some(t) => t.k = t.k.saturating_add(k),
                None => self.terms.push(Term { k, ..term.clone() }),
            }
        }
        self.terms.retain(|t| t.k != 0);
        self
    }

    fn range(&self) -> Range {
        self.terms.iter().fold(Range::of(self.base), |r, t| r.plus(t.range.times(t.k)))
    }

    fn coefficient(&self, atom: &Atom<'_>) -> i128 {
        self.terms.iter().find(|t| t.atom == *atom).map_or(0, |t| t.k)
    }

    fn is_constant(&self) -> bool {
        self.terms.is_empty()
    }
}

/// A register in scope.
#[derive(Clone, Debug)]
struct Defined<'a> {
    /// What an `i32` register that is never set again stands for.
    form: Form<'a>,
}

struct Checker<'a> {
    nest: &'a Nest,
    table_ranges: Vec<Range>,
    set: Vec<bool>,
    regs: Vec<Option<Defined<'a>>>,
    /// Extents of the open loops' variables.
    vars: Vec<Option<i64>>,
    /// Forms that are bounded where the checker is, each with the range that is left to it.
    bounds: Vec<(Form<'a>, Range)>,
    /// Whether nothing here ever runs.
    dead: bool,
    stored: bool,
    faults: Vec<String>,
}

impl<'a> Checker<'a> {
    fn fault(&mut self, fault: String) {
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    fn block(&mut self, body: &'a [Stmt]) {
        let mut defined = Vec::new();
        for stmt in body {
            match stmt {
                Stmt::For { var, extent, body } => self.repeat(*var, *extent, body),
                Stmt::Let { reg, value } => {
                    let ty = self.expr(value);
                    match self.nest.regs.get(reg.0 as usize) {
                        None => self.fault(format!("r{} is not declared", reg.0)),
                        Some(_) if self.regs[reg.0 as usize].is_some() => {
                            self.fault(format!("r{} is defined twice", reg.0));
                        }
                        Some(declared) => {
                            self.expect(ty, *declared, &format!("r{}", reg.0));
                            let form = self.register_form(*reg, *declared, ty, value);
                            self.regs[reg.0 as usize] = Some(Defined { form });
                            defined.push(*reg);
                        }
                    }
                }
                Stmt::Set { reg, value } => {
                    let ty = self.expr(value);
                    if let Some(declared) = self.register(*reg) {
                        self.expect(ty, declared, &format!("r{}", reg.0));
                    }
                }
                Stmt::Store { arg, index, value } => {
                    let ty = self.expr(value);
                    self.index(index);
                    if *arg != self.nest.output() {
                        self.fault(format!("a store to argument {arg}, which is not the output"));
                        continue;
                    }
                    self.stored |= !self.dead;
                    self.expect(ty, scalar_type(self.nest.args[*arg].dtype), "the stored value");
                    self.access(*arg, index, "store");
                }
            }
        }
        defined.into_iter().for_each(|reg| self.regs[reg.0 as usize] = None);
    }

    fn repeat(&mut self, var: Var, extent: i64, body: &'a [Stmt]) {
        match self.vars.get(var.0 as usize) {
            None => return self.fault(format!("i{} is not declared", var.0)),
            Some(Some(_)) => return self.fault(format!("i{} counts two loops, one inside the other", var.0)),
            Some(None) => {}
        }
        let dead = self.dead;
        self.dead |= extent <= 0;
        self.vars[var.0 as usize] = Some(extent);
        self.block(body);
        self.vars[var.0 as usize] = None;
        self.dead = dead;
    }

    fn expect(&mut self, found: Option<ScalarType>, wanted: ScalarType, what: &str) {
        if let Some(found) = found
            && found != wanted
        {
            self.fault(format!("{what} is {wanted:?}, but its value {found:?}"));
        }
    }

    fn register(&mut self, reg: Reg) -> Option<ScalarType> {
        match self.regs.get(reg.0 as usize) {
            Some(Some(_)) => Some(self.nest.regs[reg.0 as usize]),
            _ => {
                self.fault(format!("r{} is used where it is not defined", reg.0));
                None
            }
        }
    }

    /// The form under which a register is known: its definition's where that keeps its meaning, else itself.
    fn register_form(&self, reg: Reg, declared: ScalarType, found: Option<ScalarType>, value: &'a Expr) -> Form<'a> {
        let opaque = |range| Form::atom(Atom::Reg(reg), range);
        if declared != ScalarType::I32 || found != Some(ScalarType::I32) || self.set[reg.0 as usize] {
            return opaque(Range::I32);
        }
        let form = self.form(value);
        let constant = |t: &Term<'_>| match t.atom {
            Atom::Var(_) => true,
            Atom::Reg(r) => !self.set[r.0 as usize],
            Atom::Other(_) => false,
        };
        if form.terms.iter().all(constant) { form } else { opaque(form.range()) }
    }

    /// Checks an expression and gives its type, `None` where a fault hides it.
    fn expr(&mut self, e: &'a Expr) -> Option<ScalarType> {
        match e {
            Expr::F32(_) => Some(ScalarType::F32),
            Expr::I32(_) => Some(ScalarType::I32),
            Expr::Reg(r) => self.register(*r),
            Expr::Index(i) => {
                self.index(i);
                Some(ScalarType::I32)
            }
            Expr::Load { arg, index } => {
                self.index(index);
                match self.nest.args.get(*arg) {
                    None => {
                        self.fault(format!("argument {arg} does not exist"));
                        None
                    }
                    Some(ty) => {
                        self.access(*arg, index, "load");
                        Some(scalar_type(ty.dtype))
                    }
                }
            }
            Expr::Un(op, a) => {
                let ty = self.expr(a);
                self.expect(ty, op.argument(), &format!("the argument of {op:?}"));
                Some(op.result())
            }
            Expr::Bin(op, a, b) => {
                for side in [a, b] {
                    let ty = self.expr(side);
                    self.expect(ty, op.argument(), &format!("an argument of {op:?}"));
                }
                Some(op.result())
            }
            Expr::Select(e) => {
                let condition = self.expr(&e[0]);
                self.expect(condition, ScalarType::I32, "a condition");
                self.same(&e[1], &e[2])
            }
            Expr::Guard { bounds, then, other } => {
                bounds.iter().for_each(|b| self.index(&b.index));
                let ty = self.guarded(bounds, then);
                let other = self.expr(other);
                if let (Some(a), Some(_)) = (ty, other) {
                    self.expect(other, a, "the other branch");
                }
                ty.or(other)
            }
        }
    }

    fn same(&mut self, a: &'a Expr, b: &'a Expr) -> Option<ScalarType> {
        let (a, b) = (self.expr(a), self.expr(b));
        if let Some(a) = a {
            self.expect(b, a, "the other branch");
        }
        a.or(b)
    }

    /// Checks an expression that runs only where the bounds hold.
    fn guarded(&mut self, bounds: &'a [Bound], then: &'a Expr) -> Option<ScalarType> {
        let (outer, dead) = (self.bounds.len(), self.dead);
        for bound in bounds {
            let form = self.index_form(&bound.index);
            let range = self.bounded(&form);
            let held = Range { lo: range.lo.max(0), hi: range.hi.min(bound.extent as i128 - 1) };
            self.dead |= held.lo > held.hi;
            if !form.is_constant() {
                self.bounds.push((form, held));
            }
        }
        let ty = self.expr(then);
        self.bounds.truncate(outer);
        self.dead = dead;
        ty
    }

    /// Checks what an index is made of.
    fn index(&mut self, index: &'a Index) {
        for (var, _) in &index.terms {
            if !matches!(self.vars.get(var.0 as usize), Some(Some(_))) {
                self.fault(format!("i{} is used outside its loop", var.0));
            }
        }
        if let Some(d) = &index.dynamic {
            let ty = self.expr(d);
            self.expect(ty, ScalarType::I32, "a computed index");
        }
    }

    fn access(&mut self, arg: usize, index: &'a Index, what: &str) {
        if self.dead {
            return;
        }
        let ty = &self.nest.args[arg];
        let range = self.bounded(&self.index_form(index));
        // An empty range is an access that never happens.
        if range.lo <= range.hi && !range.within(Range { lo: 0, hi: ty.elements() as i128 - 1 }) {
            let Range { lo, hi } = range;
            self.fault(format!("a {what} at {index} of argument {arg} ({ty}) may reach elements {lo}..={hi}"));
        }
    }

    /// The range of a form where the current bounds hold.
    fn bounded(&self, form: &Form<'a>) -> Range {
        let free = form.range();
        let width = |form: &Form<'_>, added: Range| {
            let range = form.range().plus(added);
            range.hi.saturating_sub(range.lo)
        };
        let mut rest = form.clone();
        let mut added = Range::of(0);
        // Takes a multiple of one bound's form out of the rest, the one that narrows the range most, while any does.
        loop {
            let candidates = self.bounds.iter().flat_map(|(bound, held)| {
                let multiples = bound.terms.iter().map(|t| (rest.coefficient(&t.atom), t.k));
                let multiples = multiples.filter(|(k, of)| *k != 0 && k % of == 0).map(|(k, of)| k / of);
                let (rest, added) = (&rest, &added);
                multiples.map(move |k| (rest.clone().plus_scaled(bound, -k), added.plus(held.times(k))))
            });
            match candidates.min_by_key(|(rest, added)| width(rest, *added)) {
                Some((r, a)) if width(&r, a) < width(&rest, added) => (rest, added) = (r, a),
                _ => break,
            }
        }
        let refined = rest.range().plus(added);
        Range { lo: free.lo.max(refined.lo), hi: free.hi.min(refined.hi) }
    }

    fn index_form(&self, index: &'a Index) -> Form<'a> {
        let mut form = Form::constant(index.base as i128);
        for (var, k) in &index.terms {
            let extent = self.vars.get(var.0 as usize).copied().flatten().unwrap_or(i64::MAX);
            let range = Range { lo: 0, hi: (extent as i128 - 1).max(0) };
            form = form.plus_scaled(&Form::atom(Atom::Var(*var), range), *k as i128);
        }
        match &index.dynamic {
            Some(d) => form.plus_scaled(&self.form(d), 1),
            None => form,
        }
    }

    /// An `i32` expression as an affine form. Sums that might wrap are taken as they come, not taken apart.
    fn form(&self, e: &'a Expr) -> Form<'a> {
        let affine = match e {
            Expr::I32(v) => return Form::constant(*v as i128),
            Expr::Reg(r) => match self.regs.get(r.0 as usize) {
                Some(Some(d)) => return d.form.clone(),
                _ => return Form::atom(Atom::Reg(*r), Range::I32),
            },
            Expr::Index(i) => Some(self.index_form(i)),
            Expr::Un(UnOp::NegI, a) => Some(Form::default().plus_scaled(&self.form(a), -1)),
            Expr::Bin(BinOp::AddI, a, b) => Some(self.form(a).plus_scaled(&self.form(b), 1)),
            Expr::Bin(BinOp::SubI, a, b) => Some(self.form(a).plus_scaled(&self.form(b), -1)),
            Expr::Bin(BinOp::MulI, a, b) => {
                let (a, b) = (self.form(a), self.form(b));
                match (a.is_constant(), b.is_constant()) {
                    (true, _) => Some(Form::default().plus_scaled(&b, a.base)),
                    (_, true) => Some(Form::default().plus_scaled(&a, b.base)),
                    _ => None,
                }
            }
            _ => None,
        };
        match affine {
            Some(form) if form.range().within(Range::I32) => form,
            _ => Form::atom(Atom::Other(e), self.computed(e)),
        }
    }

    /// The range of an `i32` expression that is not affine.
    fn computed(&self, e: &'a Expr) -> Range {
        match e {
            Expr::Load { arg, .. } => self.loaded(*arg),
            Expr::Un(UnOp::NotI, _) => Range::BOOL,
            Expr::Bin(BinOp::MaxI, a, b) if negated(a, b) => {
                let r = self.form(a).range();
                let lo = if r.lo > 0 { r.lo } else { (-r.hi).max(0) };
                Range { lo, hi: r.hi.max(-r.lo) }.or_wrapped()
            }
            Expr::Bin(op, a, b) if op.argument() == ScalarType::I32 => {
                self.combined(*op, self.form(a).range(), self.form(b).range())
            }
            Expr::Bin(BinOp::EqF | BinOp::LtF | BinOp::LeF, ..) => Range::BOOL,
            Expr::Select(e) => self.form(&e[1]).range().union(self.form(&e[2]).range()),
            Expr::Guard { then, other, .. } => self.form(then).range().union(self.form(other).range()),
            _ => Range::I32,
        }
    }

    fn combined(&self, op: BinOp, a: Range, b: Range) -> Range {
        let range = match op {
            BinOp::MulI => Range::corners(a, b, |a, b| a * b),
            BinOp::MinI => Range { lo: a.lo.min(b.lo), hi: a.hi.min(b.hi) },
            BinOp::MaxI => Range { lo: a.lo.max(b.lo), hi: a.hi.max(b.hi) },
            BinOp::DivI if b.lo > 0 => Range::corners(a, b, |a, b| a / b),
            BinOp::ShrI if b.within(Range { lo: 0, hi: 31 }) => Range::corners(a, b, |a, b| a >> b),
            BinOp::AndI if b.lo >= 0 => Range { lo: 0, hi: b.hi },
            BinOp::AndI if a.lo >= 0 => Range { lo: 0, hi: a.hi },
            BinOp::EqI | BinOp::LtI | BinOp::LeI => Range::BOOL,
            _ => Range::I32,
        };
        range.or_wrapped()
    }

    fn loaded(&self, arg: usize) -> Range {
        let Some(ty) = self.nest.args.get(arg) else { return Range::I32 };
        if let Some(range) = arg.checked_sub(self.nest.inputs).and_then(|t| self.table_ranges.get(t)) {
            return *range;
        }
        match ty.dtype {
            // A byte of any value can be there.
            DType::Bool => Range { lo: 0, hi: 255 },
            d => d.int_range().map_or(Range::I32, |(lo, hi)| Range { lo: lo as i128, hi: hi as i128 }),
        }
    }
}

/// Whether one side is the other's negation, so that their maximum is a magnitude.
fn negated(a: &Expr, b: &Expr) -> bool {
    matches!(b, Expr::Un(UnOp::NegI, n) if **n == *a)
}

#[cfg(test)]
mod tests;
