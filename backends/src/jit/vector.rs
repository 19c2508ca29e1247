//! Innermost loops, four iterations at a time in 128-bit vectors.
//!
//! A loop qualifies where its iterations are independent by their form: no register is carried, and every access steps by
//! one element or not at all. In-place kernels stay right, as they read an element at or after where they store it, and
//! here all loads of four iterations come before their stores.

use super::nest::{Comparison, Emitter, comparison};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{F32X4, I8X16, I16X8, I32, I32X4, I64, I64X2};
use cranelift_codegen::ir::{Endianness, InstBuilder, MemFlagsData, Type, Value};
use mcc_ir::DType;
use mcc_ir::nest::{Expr, Index, Nest, Reg, Stmt, Var};
use mcc_ir::scalar::{BinOp, ScalarType, UnOp};

/// Iterations at a time.
pub const LANES: i64 = 4;

/// Whether the iterations of a loop can run side by side.
pub fn is_parallel(nest: &Nest, var: Var, body: &[Stmt]) -> bool {
    let local: Vec<Reg> = body
        .iter()
        .filter_map(|s| match s {
            Stmt::Let { reg, .. } => Some(*reg),
            _ => None,
        })
        .collect();
    let scope = Scope { nest, var, local: &local };
    let mut stores = body.iter().filter(|s| matches!(s, Stmt::Store { .. }));
    // With two stores, the second could feed the first of the next iteration.
    stores.next().is_some()
        && stores.next().is_none()
        && body.iter().all(|stmt| match stmt {
            Stmt::Let { value, .. } => scope.supports(value),
            Stmt::Store { arg, index, value } => {
                has_lanes(nest.args[*arg].dtype) && scope.steps_by_one(index) && scope.supports(value)
            }
            Stmt::For { .. } | Stmt::Set { .. } => false,
        })
}

fn has_lanes(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::I32 | DType::I16 | DType::I8 | DType::U8 | DType::Bool)
}

fn coefficient(index: &Index, var: Var) -> i64 {
    index.terms.iter().find(|t| t.0 == var).map_or(0, |t| t.1)
}

/// What differs between the iterations of a loop.
struct Scope<'a> {
    nest: &'a Nest,
    var: Var,
    /// Registers defined in the loop.
    local: &'a [Reg],
}

impl Scope<'_> {
    fn is_uniform_index(&self, index: &Index) -> bool {
        coefficient(index, self.var) == 0 && index.dynamic.as_ref().is_none_or(|d| self.is_uniform(d))
    }

    fn steps_by_one(&self, index: &Index) -> bool {
        coefficient(index, self.var) == 1 && index.dynamic.as_ref().is_none_or(|d| self.is_uniform(d))
    }

    /// Whether all iterations give the expression the same value.
    fn is_uniform(&self, e: &Expr) -> bool {
        match e {
            Expr::F32(_) | Expr::I32(_) => true,
            Expr::Reg(r) => !self.local.contains(r),
            Expr::Index(i) => self.is_uniform_index(i),
            // An output may be written by an earlier iteration.
            Expr::Load { arg, index } => *arg != self.nest.output() && self.is_uniform_index(index),
            Expr::Un(_, a) => self.is_uniform(a),
            Expr::Bin(_, a, b) => self.is_uniform(a) && self.is_uniform(b),
            Expr::Select(e) => e.iter().all(|e| self.is_uniform(e)),
            Expr::Guard { bounds, then, other } => {
                bounds.iter().all(|b| self.is_uniform_index(&b.index))
                    && self.is_uniform(then)
                    && self.is_uniform(other)
            }
        }
    }

    fn supports(&self, e: &Expr) -> bool {
        if self.is_uniform(e) {
            return true;
        }
        match e {
            Expr::F32(_) | Expr::I32(_) | Expr::Reg(_) => true,
            Expr::Index(_) => false,
            Expr::Load { arg, index } => {
                *arg != self.nest.output() && has_lanes(self.nest.args[*arg].dtype) && self.steps_by_one(index)
            }
            Expr::Un(_, a) => self.supports(a),
            Expr::Bin(BinOp::DivI | BinOp::MulHighRound, ..) => false,
            Expr::Bin(BinOp::ShlI | BinOp::ShrI | BinOp::ShrU, a, count) => self.supports(a) && self.is_uniform(count),
            Expr::Bin(_, a, b) => self.supports(a) && self.supports(b),
            Expr::Select(e) => e.iter().all(|e| self.supports(e)),
            Expr::Guard { bounds, then, other } => {
                bounds.iter().all(|b| self.is_uniform_index(&b.index)) && self.supports(then) && self.supports(other)
            }
        }
    }
}

fn vector_of(ty: ScalarType) -> Type {
    match ty {
        ScalarType::F32 => F32X4,
        ScalarType::I32 => I32X4,
    }
}

impl Emitter<'_, '_> {
    /// The body of a parallel loop for [`LANES`] iterations from `var` on.
    pub fn wide_block(&mut self, var: Var, body: &[Stmt]) {
        let nest = self.nest;
        let mut local = Vec::new();
        for stmt in body {
            if let Stmt::Let { reg, .. } = stmt {
                local.push(*reg);
            }
        }
        let scope = Scope { nest, var, local: &local };
        for stmt in body {
            match stmt {
                Stmt::Let { reg, value } => self.wide_regs[reg.0 as usize] = Some(self.wide(&scope, value)),
                Stmt::Store { arg, index, value } => {
                    let value = self.wide(&scope, value);
                    self.wide_store(*arg, index, value);
                }
                Stmt::For { .. } | Stmt::Set { .. } => unreachable!("not in a parallel loop"),
            }
        }
    }

    fn cast(&mut self, to: Type, value: Value) -> Value {
        if self.b.func.dfg.value_type(value) == to {
            return value;
        }
        self.b.ins().bitcast(to, MemFlagsData::new().with_endianness(Endianness::Little), value)
    }

    fn wide(&mut self, scope: &Scope<'_>, e: &Expr) -> Value {
        if scope.is_uniform(e) {
            let value = self.expr(e);
            let ty = vector_of(self.nest.type_of(e));
            return self.b.ins().splat(ty, value);
        }
        match e {
            Expr::Reg(r) => self.wide_regs[r.0 as usize].expect("a register is defined before its use"),
            Expr::Load { arg, index } => self.wide_load(*arg, index),
            Expr::Un(UnOp::NotI, a) => {
                let mask = self.mask(scope, a);
                let set = self.b.ins().bnot(mask);
                self.b.ins().ushr_imm_u(set, 31)
            }
            Expr::Un(op, a) => {
                let a = self.wide(scope, a);
                self.wide_unary(*op, a)
            }
            Expr::Bin(op, ..) if comparison(*op).is_some() => {
                let mask = self.mask(scope, e);
                self.b.ins().ushr_imm_u(mask, 31)
            }
            Expr::Bin(op @ (BinOp::ShlI | BinOp::ShrI | BinOp::ShrU), a, count) => {
                let (a, count) = (self.wide(scope, a), self.expr(count));
                match op {
                    BinOp::ShlI => self.b.ins().ishl(a, count),
                    BinOp::ShrI => self.b.ins().sshr(a, count),
                    _ => self.b.ins().ushr(a, count),
                }
            }
            Expr::Bin(op, a, b) => {
                let (a, b) = (self.wide(scope, a), self.wide(scope, b));
                self.wide_binary(*op, a, b)
            }
            Expr::Select(parts) => {
                let mask = self.mask(scope, &parts[0]);
                let (then, other) = (self.wide(scope, &parts[1]), self.wide(scope, &parts[2]));
                self.pick(mask, then, other)
            }
            Expr::Guard { bounds, then, other } => {
                let ty = vector_of(self.nest.type_of(then));
                self.guard(bounds, ty, |e| e.wide(scope, then), |e| e.wide(scope, other))
            }
            Expr::F32(_) | Expr::I32(_) | Expr::Index(_) => unreachable!("uniform, or not in a parallel loop"),
        }
    }

    /// Lanes of ones where `mask` is set, of the other where it is clear.
    fn pick(&mut self, mask: Value, then: Value, other: Value) -> Value {
        let ty = self.b.func.dfg.value_type(then);
        let mask = self.cast(ty, mask);
        self.b.ins().bitselect(mask, then, other)
    }

    /// All bits of a lane set where the scalar is not 0, else clear.
    fn mask(&mut self, scope: &Scope<'_>, e: &Expr) -> Value {
        if let Expr::Bin(op, a, b) = e
            && let Some(comparison) = comparison(*op)
        {
            let (a, b) = (self.wide(scope, a), self.wide(scope, b));
            return match comparison {
                Comparison::Float(cc) => self.b.ins().fcmp(cc, a, b),
                Comparison::Int(cc) => self.b.ins().icmp(cc, a, b),
            };
        }
        let value = self.wide(scope, e);
        let zero = self.i32(0);
        let zero = self.b.ins().splat(I32X4, zero);
        self.b.ins().icmp(IntCC::NotEqual, value, zero)
    }

    fn wide_unary(&mut self, op: UnOp, a: Value) -> Value {
        let ins = self.b.ins();
        match op {
            UnOp::NegF => ins.fneg(a),
            UnOp::AbsF => ins.fabs(a),
            UnOp::SqrtF => ins.sqrt(a),
            UnOp::FloorF => ins.floor(a),
            UnOp::CeilF => ins.ceil(a),
            UnOp::RoundF => ins.nearest(a),
            UnOp::RoundToI => {
                let rounded = ins.nearest(a);
                self.b.ins().fcvt_to_sint_sat(I32X4, rounded)
            }
            UnOp::TruncToI => ins.fcvt_to_sint_sat(I32X4, a),
            UnOp::ToF => ins.fcvt_from_sint(F32X4, a),
            UnOp::BitsOfF => self.cast(I32X4, a),
            UnOp::FOfBits => self.cast(F32X4, a),
            UnOp::NegI => ins.ineg(a),
            UnOp::NotI => unreachable!("a mask"),
        }
    }

    fn wide_binary(&mut self, op: BinOp, x: Value, y: Value) -> Value {
        let ins = self.b.ins();
        match op {
            BinOp::AddF => ins.fadd(x, y),
            BinOp::SubF => ins.fsub(x, y),
            BinOp::MulF => ins.fmul(x, y),
            BinOp::DivF => ins.fdiv(x, y),
            BinOp::MinF => {
                let less = ins.fcmp(FloatCC::LessThan, y, x);
                self.pick(less, y, x)
            }
            BinOp::MaxF => {
                let less = ins.fcmp(FloatCC::LessThan, x, y);
                self.pick(less, y, x)
            }
            BinOp::AddI => ins.iadd(x, y),
            BinOp::SubI => ins.isub(x, y),
            BinOp::MulI => ins.imul(x, y),
            BinOp::MinI => ins.smin(x, y),
            BinOp::MaxI => ins.smax(x, y),
            BinOp::AndI => ins.band(x, y),
            BinOp::OrI => ins.bor(x, y),
            BinOp::XorI => ins.bxor(x, y),
            _ => unreachable!("not in a parallel loop, or handled before"),
        }
    }

    fn wide_load(&mut self, arg: usize, index: &Index) -> Value {
        let flags = self.flags(arg, false);
        let (at, offset) = self.address(arg, index);
        match self.nest.args[arg].dtype {
            DType::F32 => self.b.ins().load(F32X4, flags, at, offset),
            DType::I8 | DType::U8 | DType::Bool => {
                let four = self.b.ins().load(I32, flags, at, offset);
                let lanes = self.b.ins().splat(I32X4, four);
                let bytes = self.cast(I8X16, lanes);
                if self.nest.args[arg].dtype == DType::I8 {
                    let halves = self.b.ins().swiden_low(bytes);
                    self.b.ins().swiden_low(halves)
                } else {
                    let halves = self.b.ins().uwiden_low(bytes);
                    self.b.ins().uwiden_low(halves)
                }
            }
            DType::I16 => {
                let four = self.b.ins().load(I64, flags, at, offset);
                let lanes = self.b.ins().splat(I64X2, four);
                let halves = self.cast(I16X8, lanes);
                self.b.ins().swiden_low(halves)
            }
            _ => self.b.ins().load(I32X4, flags, at, offset),
        }
    }

    /// Narrows by saturation, which keeps every value of the type's range as it is.
    fn wide_store(&mut self, arg: usize, index: &Index, value: Value) {
        let dtype = self.nest.args[arg].dtype;
        let value = match dtype {
            DType::F32 | DType::I32 => value,
            DType::I16 => {
                let halves = self.b.ins().snarrow(value, value);
                let pairs = self.cast(I64X2, halves);
                self.b.ins().extractlane(pairs, 0)
            }
            _ => {
                let value = if dtype == DType::Bool {
                    let zero = self.i32(0);
                    let zero = self.b.ins().splat(I32X4, zero);
                    let set = self.b.ins().icmp(IntCC::NotEqual, value, zero);
                    self.b.ins().ushr_imm_u(set, 31)
                } else {
                    value
                };
                let halves = self.b.ins().snarrow(value, value);
                let bytes = if dtype == DType::U8 {
                    self.b.ins().unarrow(halves, halves)
                } else {
                    self.b.ins().snarrow(halves, halves)
                };
                let fours = self.cast(I32X4, bytes);
                self.b.ins().extractlane(fours, 0)
            }
        };
        let flags = self.flags(arg, false);
        let (at, offset) = self.address(arg, index);
        self.b.ins().store(flags, value, at, offset);
    }
}
