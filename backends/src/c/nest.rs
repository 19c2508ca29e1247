//! Prints loop nests and scalar expressions as C.

use super::consts;
use super::helpers::Helpers;
use super::writer::Writer;
use mcc_ir::dtype::DType;
use mcc_ir::nest::{Bound, Expr, Index, Nest, Reg, Stmt};
use mcc_ir::scalar::{BinOp, ScalarType, UnOp};
use std::collections::{BTreeSet, HashMap, HashSet};

/// How tightly an expression binds, weakest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Binds {
    Conditional,
    Bits,
    Compare,
    Shift,
    Add,
    Mul,
    Unary,
    Primary,
}

/// C text of an expression.
struct Text(String, Binds);

impl Text {
    fn primary(text: impl Into<String>) -> Text {
        Text(text.into(), Binds::Primary)
    }

    /// The text where at least `least` binding is needed.
    fn at(self, least: Binds) -> String {
        if self.1 >= least { self.0 } else { format!("({})", self.0) }
    }
}

/// Prints the statements of one nest.
pub struct Printer<'a> {
    nest: &'a Nest,
    helpers: &'a mut Helpers,
    /// C expressions of the arguments' pointers.
    args: &'a [String],
    /// C names given from outside to loop variables and registers, in place of `i<n>` and `v<n>`.
    pub vars: HashMap<u32, String>,
    pub regs: HashMap<u32, String>,
    /// An argument that is stored in four bits an element, and what is added to each: see [`Packing::Nibbles`].
    ///
    /// [`Packing::Nibbles`]: mcc_ir::packing::Packing::Nibbles
    pub nibbles: Option<(usize, i32)>,
    /// Known bounds of integer registers that never change.
    ranges: HashMap<u32, (i64, i64)>,
    /// Registers that are read, and that change.
    read: HashSet<u32>,
    changed: HashSet<u32>,
    /// Arguments that were printed.
    pub used: BTreeSet<usize>,
}

const FULL: (i64, i64) = (i32::MIN as i64, i32::MAX as i64);

impl<'a> Printer<'a> {
    pub fn new(nest: &'a Nest, helpers: &'a mut Helpers, args: &'a [String]) -> Printer<'a> {
        let mut p = Printer {
            nest,
            helpers,
            args,
            vars: HashMap::new(),
            regs: HashMap::new(),
            nibbles: None,
            ranges: HashMap::new(),
            read: HashSet::new(),
            changed: HashSet::new(),
            used: BTreeSet::new(),
        };
        p.scan(&nest.body);
        p
    }

    /// Finds which registers are read (other than by their own change) and which change.
    fn scan(&mut self, body: &[Stmt]) {
        for stmt in body {
            match stmt {
                Stmt::For { body, .. } => self.scan(body),
                Stmt::Let { reg, value } | Stmt::Set { reg, value } => {
                    reads(value, &mut |r| {
                        if r != *reg {
                            self.read.insert(r.0);
                        }
                    });
                    if matches!(stmt, Stmt::Set { .. }) {
                        self.changed.insert(reg.0);
                    }
                }
                Stmt::Store { index, value, .. } => {
                    let mut note = |r: Reg| {
                        self.read.insert(r.0);
                    };
                    reads(value, &mut note);
                    index_reads(index, &mut note);
                }
            }
        }
    }

    pub fn block(&mut self, w: &mut Writer, body: &[Stmt]) {
        for stmt in body {
            match stmt {
                Stmt::For { var, extent, body } => {
                    w.open_for(&self.var(var.0), extent, 1);
                    self.block(w, body);
                    w.close();
                }
                // A value that nobody reads; C compilers warn of it.
                Stmt::Let { reg, .. } | Stmt::Set { reg, .. } if !self.read.contains(&reg.0) => {}
                Stmt::Let { reg, value } => {
                    let ty = match self.nest.regs[reg.0 as usize] {
                        ScalarType::F32 => "float",
                        ScalarType::I32 => "int32_t",
                    };
                    let text = self.expr(value, true).0;
                    let fixed = if self.changed.contains(&reg.0) {
                        ""
                    } else {
                        let range = self.range(value);
                        self.ranges.insert(reg.0, range);
                        "const "
                    };
                    w.line(format!("{fixed}{ty} {} = {text};", self.reg(reg.0)));
                }
                Stmt::Set { reg, value } => {
                    let text = self.expr(value, true).0;
                    w.line(format!("{} = {text};", self.reg(reg.0)));
                }
                Stmt::Store { arg, index, value } => {
                    let text = self.expr(value, false);
                    let value = match self.nest.args[*arg].dtype {
                        DType::F32 | DType::I32 => text.0,
                        DType::F16 => format!("{}({})", self.helpers.get("to_f16"), text.0),
                        DType::BF16 => format!("{}({})", self.helpers.get("to_bf16"), text.0),
                        d => format!("({}){}", consts::c_type(d), text.at(Binds::Unary)),
                    };
                    self.used.insert(*arg);
                    let at = self.index(index).0;
                    w.line(format!("{}[{at}] = {value};", self.args[*arg]));
                }
            }
        }
    }

    fn var(&self, v: u32) -> String {
        self.vars.get(&v).cloned().unwrap_or_else(|| format!("i{v}"))
    }

    fn reg(&self, r: u32) -> String {
        self.regs.get(&r).cloned().unwrap_or_else(|| format!("v{r}"))
    }

    fn index(&mut self, index: &Index) -> Text {
        let mut parts: Vec<(bool, String, Binds)> = Vec::new();
        for &(v, k) in &index.terms {
            let var = self.var(v.0);
            match k {
                1 | -1 => parts.push((k < 0, var, Binds::Primary)),
                _ => parts.push((k < 0, format!("{} * {var}", k.unsigned_abs()), Binds::Mul)),
            }
        }
        if let Some(d) = &index.dynamic {
            let text = self.expr(d, false).at(Binds::Mul);
            parts.push((false, text, Binds::Mul));
        }
        if index.base != 0 || parts.is_empty() {
            parts.push((index.base < 0, index.base.unsigned_abs().to_string(), Binds::Primary));
        }
        // A positive part first saves a sign.
        if parts[0].0
            && let Some(at) = parts.iter().position(|p| !p.0)
        {
            parts.swap(0, at);
        }
        if let [(false, text, binds)] = parts.as_slice() {
            return Text(text.clone(), *binds);
        }
        let mut text = String::new();
        for (i, (negative, part, _)) in parts.iter().enumerate() {
            text.push_str(match (i, negative) {
                (0, true) => "-",
                (0, false) => "",
                (_, true) => " - ",
                (_, false) => " + ",
            });
            text.push_str(part);
        }
        Text(text, Binds::Add)
    }

    fn bound(&mut self, b: &Bound) -> String {
        let at = self.index(&b.index).0;
        // One comparison serves both ends: negative numbers become large.
        format!("(uint32_t)({at}) < {}u", b.extent)
    }

    /// Known bounds of an integer expression.
    fn range(&self, e: &Expr) -> (i64, i64) {
        let fits = |(lo, hi): (i64, i64)| if FULL.0 <= lo && hi <= FULL.1 { (lo, hi) } else { FULL };
        match e {
            Expr::I32(v) => (*v as i64, *v as i64),
            Expr::Reg(r) => self.ranges.get(&r.0).copied().unwrap_or(FULL),
            Expr::Load { arg, .. } => {
                self.nest.args[*arg].dtype.int_range().map_or(FULL, |(lo, hi)| (lo as i64, hi as i64))
            }
            Expr::Un(UnOp::NotI, _) => (0, 1),
            Expr::Un(UnOp::RoundToI, x) => rounded_clamp(x).map_or(FULL, |(_, lo, hi)| (lo as i64, hi as i64)),
            Expr::Un(UnOp::NegI, a) => {
                let (lo, hi) = self.range(a);
                fits((-hi, -lo))
            }
            Expr::Bin(op, a, b) => fits(self.exact(*op, a, b).unwrap_or(FULL)),
            Expr::Select(e) => union(self.range(&e[1]), self.range(&e[2])),
            Expr::Guard { then, other, .. } => union(self.range(then), self.range(other)),
            Expr::F32(_) | Expr::Index(_) | Expr::Un(..) => FULL,
        }
    }

    /// Bounds of an operation's result before it wraps, where they are simple.
    fn exact(&self, op: BinOp, a: &Expr, b: &Expr) -> Option<(i64, i64)> {
        use BinOp::*;
        if matches!(op, EqF | LtF | LeF | EqI | LtI | LeI) {
            return Some((0, 1));
        }
        let ((al, ah), (bl, bh)) = (self.range(a), self.range(b));
        match op {
            AddI => Some((al + bl, ah + bh)),
            SubI => Some((al - bh, ah - bl)),
            MulI => {
                let ends = [al * bl, al * bh, ah * bl, ah * bh];
                Some((*ends.iter().min()?, *ends.iter().max()?))
            }
            MinI => Some((al.min(bl), ah.min(bh))),
            MaxI => Some((al.max(bl), ah.max(bh))),
            AndI if bl >= 0 => Some((0, bh)),
            _ => None,
        }
    }

    /// Prints an expression. With `guard`, a product at its root must keep its rounding: an addition may consume it.
    fn expr(&mut self, e: &Expr, guard: bool) -> Text {
        match e {
            Expr::F32(v) => match consts::float(*v) {
                Some(text) if text.starts_with('-') => Text(text, Binds::Unary),
                Some(text) => Text::primary(text),
                None => self.call("f_of_bits", &[format!("{}u", v.to_bits())]),
            },
            Expr::I32(v) if *v < 0 && *v != i32::MIN => Text(v.to_string(), Binds::Unary),
            Expr::I32(v) => Text::primary(consts::int(*v as i64)),
            Expr::Reg(r) => Text::primary(self.reg(r.0)),
            Expr::Index(i) => self.index(i),
            Expr::Load { arg, index } => self.load(*arg, index),
            Expr::Un(op, a) => self.un(*op, a, guard),
            Expr::Bin(op, a, b) => self.bin(*op, a, b, guard),
            Expr::Select(e) => {
                let condition = self.expr(&e[0], false).at(Binds::Compare);
                let condition = if is_truth(&e[0]) { condition } else { format!("{condition} != 0") };
                self.conditional(condition, &e[1], &e[2], guard)
            }
            Expr::Guard { bounds, then, other } => {
                if bounds.is_empty() {
                    return self.expr(then, guard);
                }
                let condition: Vec<String> = bounds.iter().map(|b| self.bound(b)).collect();
                self.conditional(condition.join(" && "), then, other, guard)
            }
        }
    }

    fn conditional(&mut self, condition: String, then: &Expr, other: &Expr, guard: bool) -> Text {
        let then = self.expr(then, guard).at(Binds::Bits);
        let other = self.expr(other, guard).at(Binds::Bits);
        Text(format!("{condition} ? {then} : {other}"), Binds::Conditional)
    }

    fn load(&mut self, arg: usize, index: &Index) -> Text {
        self.used.insert(arg);
        let at = self.index(index).0;
        if let Some((_, low)) = self.nibbles.filter(|(packed, _)| *packed == arg) {
            let value = self.call("nibble", &[self.args[arg].clone(), at]);
            return if low == 0 { value } else { Text(super::kernels::offset(value.0, low), Binds::Add) };
        }
        let text = format!("{}[{at}]", self.args[arg]);
        match self.nest.args[arg].dtype {
            DType::F16 => self.call("from_f16", &[text]),
            DType::BF16 => self.call("from_bf16", &[text]),
            DType::I64 => Text(format!("(int32_t){text}"), Binds::Unary),
            _ => Text::primary(text),
        }
    }

    fn call(&mut self, helper: &'static str, args: &[String]) -> Text {
        Text::primary(format!("{}({})", self.helpers.get(helper), args.join(", ")))
    }

    fn un(&mut self, op: UnOp, a: &Expr, guard: bool) -> Text {
        if op == UnOp::RoundToI
            && let Some((x, lo, hi)) = rounded_clamp(a)
        {
            let x = self.expr(x, false).0;
            return self.call("round_clamp", &[x, lo.to_string(), hi.to_string()]);
        }
        let text = self.expr(a, guard && op == UnOp::NegF);
        match op {
            UnOp::NegF => Text(format!("-{}", signed(text)), Binds::Unary),
            UnOp::NegI if self.range(a).0 > FULL.0 => Text(format!("-{}", signed(text)), Binds::Unary),
            UnOp::NegI => self.call("sub", &["0".into(), text.0]),
            UnOp::NotI => Text(format!("{} == 0", text.at(Binds::Shift)), Binds::Compare),
            UnOp::ToF => Text(format!("(float){}", text.at(Binds::Unary)), Binds::Unary),
            UnOp::FOfBits => {
                let word = format!("(uint32_t){}", text.at(Binds::Unary));
                self.call("f_of_bits", &[word])
            }
            UnOp::AbsF => self.call("abs_f", &[text.0]),
            UnOp::SqrtF => self.call("sqrt", &[text.0]),
            UnOp::FloorF => self.call("floor", &[text.0]),
            UnOp::CeilF => self.call("ceil", &[text.0]),
            UnOp::RoundF => self.call("round", &[text.0]),
            UnOp::RoundToI => self.call("round_to_i", &[text.0]),
            UnOp::TruncToI => self.call("trunc_to_i", &[text.0]),
            UnOp::BitsOfF => self.call("bits_of_f", &[text.0]),
        }
    }

    fn bin(&mut self, op: BinOp, a: &Expr, b: &Expr, guard: bool) -> Text {
        use BinOp::*;
        if op == AddI
            && let (Expr::Un(UnOp::RoundToI, x), Expr::I32(zero)) = (a, b)
            && let Some((x, lo, hi)) = rounded_clamp(x)
        {
            let helper = match (lo as i64 + *zero as i64, hi as i64 + *zero as i64) {
                (-128, 127) => Some("round_to_s8"),
                (0, 255) => Some("round_to_u8"),
                _ => None,
            };
            if let Some(helper) = helper {
                let x = self.expr(x, false).0;
                return self.call(helper, &[x, zero.to_string()]);
            }
        }
        let sum = matches!(op, AddF | SubF);
        let (x, y) = (self.expr(a, sum), self.expr(b, sum));
        let plain = self.exact(op, a, b).is_some_and(|(lo, hi)| FULL.0 <= lo && hi <= FULL.1);
        let infix = |op: &str, x: Text, y: Text, binds: Binds, right: Binds| {
            Text(format!("{} {op} {}", x.at(binds), y.at(right)), binds)
        };
        let bits = |op: &str, x: Text, y: Text| {
            let word = |t: Text| format!("(uint32_t){}", t.at(Binds::Unary));
            Text(format!("(int32_t)({} {op} {})", word(x), word(y)), Binds::Unary)
        };
        match op {
            AddF => infix("+", x, y, Binds::Add, Binds::Mul),
            SubF => infix("-", x, y, Binds::Add, Binds::Mul),
            MulF if guard => self.call("mul", &[x.0, y.0]),
            MulF => infix("*", x, y, Binds::Mul, Binds::Unary),
            DivF => infix("/", x, y, Binds::Mul, Binds::Unary),
            MinF => self.call("min_f", &[x.0, y.0]),
            MaxF => self.call("max_f", &[x.0, y.0]),
            AddI if plain => infix("+", x, y, Binds::Add, Binds::Mul),
            SubI if plain => infix("-", x, y, Binds::Add, Binds::Mul),
            MulI if plain => infix("*", x, y, Binds::Mul, Binds::Unary),
            AddI => self.call("add", &[x.0, y.0]),
            SubI => self.call("sub", &[x.0, y.0]),
            MulI => self.call("mul_i", &[x.0, y.0]),
            DivI => self.call("div_i", &[x.0, y.0]),
            MinI => self.call("min", &[x.0, y.0]),
            MaxI => self.call("max", &[x.0, y.0]),
            ShlI => bits("<<", x, y),
            ShrU => bits(">>", x, y),
            ShrI => infix(">>", x, y, Binds::Shift, Binds::Add),
            AndI => bits("&", x, y),
            OrI => bits("|", x, y),
            XorI => bits("^", x, y),
            EqF | EqI => infix("==", x, y, Binds::Compare, Binds::Shift),
            LtF | LtI => infix("<", x, y, Binds::Compare, Binds::Shift),
            LeF | LeI => infix("<=", x, y, Binds::Compare, Binds::Shift),
            MulHighRound => self.call("mul_high_round", &[x.0, y.0]),
        }
    }
}

/// The operand of a minus sign: two signs in a row would be a decrement.
fn signed(text: Text) -> String {
    if text.0.starts_with('-') { format!("({})", text.0) } else { text.at(Binds::Unary) }
}

/// Whether an expression is 0 or 1 by a comparison of C.
fn is_truth(e: &Expr) -> bool {
    use BinOp::*;
    matches!(e, Expr::Bin(EqF | LtF | LeF | EqI | LtI | LeI, ..) | Expr::Un(UnOp::NotI, _))
}

fn union(a: (i64, i64), b: (i64, i64)) -> (i64, i64) {
    (a.0.min(b.0), a.1.max(b.1))
}

/// x, lo and hi of `max(min(x, hi), lo)` on floats with integral bounds that `i32` and `f32` hold exactly.
fn rounded_clamp(e: &Expr) -> Option<(&Expr, i32, i32)> {
    let Expr::Bin(BinOp::MaxF, inner, lo) = e else { return None };
    let Expr::Bin(BinOp::MinF, x, hi) = inner.as_ref() else { return None };
    let integral = |e: &Expr| match e {
        Expr::F32(v) if v.fract() == 0.0 && v.abs() <= 16_777_216.0 => Some(*v as i32),
        _ => None,
    };
    let (lo, hi) = (integral(lo)?, integral(hi)?);
    (lo <= hi).then_some((x, lo, hi))
}

fn reads(e: &Expr, note: &mut impl FnMut(Reg)) {
    match e {
        Expr::F32(_) | Expr::I32(_) => {}
        Expr::Reg(r) => note(*r),
        Expr::Index(i) | Expr::Load { index: i, .. } => index_reads(i, note),
        Expr::Un(_, a) => reads(a, note),
        Expr::Bin(_, a, b) => {
            reads(a, note);
            reads(b, note);
        }
        Expr::Select(e) => e.iter().for_each(|e| reads(e, note)),
        Expr::Guard { bounds, then, other } => {
            bounds.iter().for_each(|b| index_reads(&b.index, note));
            reads(then, note);
            reads(other, note);
        }
    }
}

fn index_reads(i: &Index, note: &mut impl FnMut(Reg)) {
    if let Some(d) = &i.dynamic {
        reads(d, note);
    }
}
