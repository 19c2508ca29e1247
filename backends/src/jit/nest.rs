//! Loop nests to Cranelift IR.
//!
//! Addresses are sums of loop variables, outermost first, so that Cranelift's invariant code motion lifts every partial
//! sum to the loop that fixes it. Loops run at least once (empty ones are not emitted) and test at the end.

use super::vector;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{F32, I32, I64};
use cranelift_codegen::ir::{Block, BlockArg, InstBuilder, MemFlagsData, Type, Value};
use cranelift_frontend::{FunctionBuilder, Variable};
use mcc_ir::DType;
use mcc_ir::nest::{Bound, Expr, Index, Nest, Reg, Stmt, Var};
use mcc_ir::scalar::{BinOp, ScalarType, UnOp};

/// Where an argument of a nest is.
#[derive(Clone, Copy)]
pub struct Pointer {
    pub base: Value,
    /// Whether nothing writes there while the model runs.
    pub constant: bool,
    /// Whether `base` is aligned for the elements.
    pub aligned: bool,
}

/// Writes one nest into a function.
pub struct Emitter<'a, 'f> {
    pub b: &'a mut FunctionBuilder<'f>,
    pub nest: &'a Nest,
    args: &'a [Pointer],
    vars: Vec<Option<Value>>,
    regs: Vec<Option<Variable>>,
    /// Registers of the loop that is being emitted four iterations at a time.
    pub wide_regs: Vec<Option<Value>>,
}

impl<'a, 'f> Emitter<'a, 'f> {
    pub fn new(b: &'a mut FunctionBuilder<'f>, nest: &'a Nest, args: &'a [Pointer]) -> Self {
        let regs = nest.regs.len();
        Emitter {
            b,
            nest,
            args,
            vars: vec![None; nest.vars as usize],
            regs: vec![None; regs],
            wide_regs: vec![None; regs],
        }
    }

    /// Gives a value to a variable that no loop of the nest binds.
    pub fn bind(&mut self, var: Var, value: Value) {
        self.vars[var.0 as usize] = Some(value);
    }

    pub fn block(&mut self, body: &[Stmt]) {
        for stmt in body {
            match stmt {
                Stmt::For { var, extent, body } => self.repeat(*var, *extent, body),
                Stmt::Let { reg, value } => {
                    let value = self.expr(value);
                    let ty = self.b.func.dfg.value_type(value);
                    let variable = self.b.declare_var(ty);
                    self.regs[reg.0 as usize] = Some(variable);
                    self.b.def_var(variable, value);
                }
                Stmt::Set { reg, value } => {
                    let value = self.expr(value);
                    let variable = self.variable(*reg);
                    self.b.def_var(variable, value);
                }
                Stmt::Store { arg, index, value } => {
                    let value = self.expr(value);
                    self.store(*arg, index, value);
                }
            }
        }
    }

    /// A loop; where its iterations are independent, four at a time and then the rest.
    fn repeat(&mut self, var: Var, extent: i64, body: &[Stmt]) {
        let wide = extent / vector::LANES * vector::LANES;
        if wide > 0 && vector::is_parallel(self.nest, var, body) {
            self.count(var, 0, wide, vector::LANES, |e| e.wide_block(var, body));
            self.count(var, wide, extent, 1, |e| e.block(body));
        } else {
            self.count(var, 0, extent, 1, |e| e.block(body));
        }
    }

    /// Runs `body` for `from, from + step, ...` below `to`.
    pub fn count(&mut self, var: Var, from: i64, to: i64, step: i64, body: impl FnOnce(&mut Self)) {
        if from >= to {
            return;
        }
        let start = self.b.ins().iconst(I64, from);
        if from + step >= to {
            self.bind(var, start);
            return body(self);
        }
        let (head, exit) = (self.b.create_block(), self.b.create_block());
        let at = self.b.append_block_param(head, I64);
        self.b.ins().jump(head, &[start.into()]);
        self.b.switch_to_block(head);
        self.bind(var, at);
        body(self);
        let next = self.b.ins().iadd_imm_s(at, step);
        let more = self.b.ins().icmp_imm_s(IntCC::SignedLessThan, next, to);
        self.b.ins().brif(more, head, &[next.into()], exit, &[]);
        self.b.seal_block(head);
        self.b.switch_to_block(exit);
        self.b.seal_block(exit);
    }

    fn variable(&self, reg: Reg) -> Variable {
        self.regs[reg.0 as usize].expect("a register is defined before its use")
    }

    pub fn var(&self, var: Var) -> Value {
        self.vars[var.0 as usize].expect("a loop variable is used inside its loop")
    }

    pub fn i32(&mut self, value: i32) -> Value {
        self.b.ins().iconst(I32, value as i64)
    }

    /// `start + index * scale` without the index's constant part.
    fn sum(&mut self, start: Option<Value>, index: &Index, scale: i64) -> Option<Value> {
        let mut at = start;
        for &(var, k) in &index.terms {
            let var = self.var(var);
            at = Some(self.add_scaled(at, var, k * scale));
        }
        if let Some(dynamic) = &index.dynamic {
            let value = self.expr(dynamic);
            let value = self.b.ins().sextend(I64, value);
            at = Some(self.add_scaled(at, value, scale));
        }
        at
    }

    fn add_scaled(&mut self, at: Option<Value>, value: Value, scale: i64) -> Value {
        let term = if scale == 1 { value } else { self.b.ins().imul_imm_s(value, scale) };
        match at {
            Some(at) => self.b.ins().iadd(at, term),
            None => term,
        }
    }

    /// The value of an index, 64 bits.
    fn index(&mut self, index: &Index) -> Value {
        match self.sum(None, index, 1) {
            Some(at) if index.base == 0 => at,
            Some(at) => self.b.ins().iadd_imm_s(at, index.base),
            None => self.b.ins().iconst(I64, index.base),
        }
    }

    /// Pointer and constant offset of an element.
    pub fn address(&mut self, arg: usize, index: &Index) -> (Value, i32) {
        let size = (self.nest.args[arg].dtype.bits() / 8) as i64;
        let base = self.args[arg].base;
        let at = self.sum(Some(base), index, size).unwrap_or(base);
        match i32::try_from(index.base * size) {
            Ok(offset) => (at, offset),
            Err(_) => (self.b.ins().iadd_imm_s(at, index.base * size), 0),
        }
    }

    /// Flags of an access of one element, or of several neighbours.
    pub fn flags(&self, arg: usize, single: bool) -> MemFlagsData {
        let mut flags = MemFlagsData::new().with_notrap();
        if self.args[arg].aligned && single {
            flags = flags.with_aligned();
        }
        if self.args[arg].constant {
            flags = flags.with_readonly().with_can_move();
        }
        flags
    }

    fn load(&mut self, arg: usize, index: &Index) -> Value {
        let flags = self.flags(arg, true);
        let (at, offset) = self.address(arg, index);
        let ins = self.b.ins();
        match self.nest.args[arg].dtype {
            DType::F32 => ins.load(F32, flags, at, offset),
            DType::I8 => ins.sload8(I32, flags, at, offset),
            DType::U8 | DType::Bool => ins.uload8(I32, flags, at, offset),
            DType::I16 => ins.sload16(I32, flags, at, offset),
            // The low half of a little-endian i64 is what its truncation is; see `super::compile`.
            _ => ins.load(I32, flags, at, offset),
        }
    }

    fn store(&mut self, arg: usize, index: &Index, value: Value) {
        let flags = self.flags(arg, true);
        let (at, offset) = self.address(arg, index);
        match self.nest.args[arg].dtype {
            DType::I8 | DType::U8 => self.b.ins().istore8(flags, value, at, offset),
            DType::Bool => {
                // Memory of a `bool` holds nothing but 0 and 1, whatever a model computes.
                let value = self.b.ins().icmp_imm_s(IntCC::NotEqual, value, 0);
                self.b.ins().store(flags, value, at, offset)
            }
            DType::I16 => self.b.ins().istore16(flags, value, at, offset),
            DType::I64 => {
                let value = self.b.ins().sextend(I64, value);
                self.b.ins().store(flags, value, at, offset)
            }
            _ => self.b.ins().store(flags, value, at, offset),
        };
    }

    pub fn expr(&mut self, e: &Expr) -> Value {
        match e {
            Expr::F32(v) => self.b.ins().f32const(*v),
            Expr::I32(v) => self.i32(*v),
            Expr::Reg(r) => {
                let variable = self.variable(*r);
                self.b.use_var(variable)
            }
            Expr::Index(i) => {
                let at = self.index(i);
                self.b.ins().ireduce(I32, at)
            }
            Expr::Load { arg, index } => self.load(*arg, index),
            Expr::Un(op, a) => {
                let a = self.expr(a);
                self.unary(*op, a)
            }
            Expr::Bin(op, x, y) => {
                if comparison(*op).is_some() {
                    let holds = self.condition(e);
                    return self.b.ins().uextend(I32, holds);
                }
                let (x, y) = (self.expr(x), self.expr(y));
                self.binary(*op, x, y)
            }
            Expr::Select(parts) => {
                let condition = self.condition(&parts[0]);
                let (then, other) = (self.expr(&parts[1]), self.expr(&parts[2]));
                self.b.ins().select(condition, then, other)
            }
            Expr::Guard { bounds, then, other } => {
                let ty = match self.nest.type_of(then) {
                    ScalarType::F32 => F32,
                    ScalarType::I32 => I32,
                };
                self.guard(bounds, ty, |e| e.expr(then), |e| e.expr(other))
            }
        }
    }

    /// A branch on bounds; only the chosen side is computed.
    pub fn guard(
        &mut self,
        bounds: &[Bound],
        ty: Type,
        then: impl FnOnce(&mut Self) -> Value,
        other: impl FnOnce(&mut Self) -> Value,
    ) -> Value {
        let mut inside = None;
        for bound in bounds {
            let at = self.index(&bound.index);
            // A negative index is beyond any extent as an unsigned number.
            let holds = self.b.ins().icmp_imm_s(IntCC::UnsignedLessThan, at, bound.extent.max(0));
            inside = Some(match inside {
                Some(all) => self.b.ins().band(all, holds),
                None => holds,
            });
        }
        let Some(inside) = inside else { return then(self) };
        let (yes, no, join) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        let result = self.b.append_block_param(join, ty);
        self.b.ins().brif(inside, yes, &[], no, &[]);
        self.branch(yes, join, then);
        self.branch(no, join, other);
        self.b.seal_block(join);
        self.b.switch_to_block(join);
        result
    }

    fn branch(&mut self, block: Block, join: Block, value: impl FnOnce(&mut Self) -> Value) {
        self.b.seal_block(block);
        self.b.switch_to_block(block);
        let value = value(self);
        self.b.ins().jump(join, &[BlockArg::from(value)]);
    }

    /// A scalar as a condition: not 0 where it holds.
    fn condition(&mut self, e: &Expr) -> Value {
        let Expr::Bin(op, x, y) = e else { return self.expr(e) };
        match comparison(*op) {
            Some(comparison) => {
                let (x, y) = (self.expr(x), self.expr(y));
                match comparison {
                    Comparison::Float(cc) => self.b.ins().fcmp(cc, x, y),
                    Comparison::Int(cc) => self.b.ins().icmp(cc, x, y),
                }
            }
            None => self.expr(e),
        }
    }

    fn unary(&mut self, op: UnOp, a: Value) -> Value {
        let flags = MemFlagsData::new();
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
                self.b.ins().fcvt_to_sint_sat(I32, rounded)
            }
            UnOp::TruncToI => ins.fcvt_to_sint_sat(I32, a),
            UnOp::ToF => ins.fcvt_from_sint(F32, a),
            UnOp::BitsOfF => ins.bitcast(I32, flags, a),
            UnOp::FOfBits => ins.bitcast(F32, flags, a),
            UnOp::NegI => ins.ineg(a),
            UnOp::NotI => {
                let zero = ins.icmp_imm_s(IntCC::Equal, a, 0);
                self.b.ins().uextend(I32, zero)
            }
        }
    }

    fn binary(&mut self, op: BinOp, x: Value, y: Value) -> Value {
        let ins = self.b.ins();
        match op {
            BinOp::AddF => ins.fadd(x, y),
            BinOp::SubF => ins.fsub(x, y),
            BinOp::MulF => ins.fmul(x, y),
            BinOp::DivF => ins.fdiv(x, y),
            BinOp::MinF => {
                let less = ins.fcmp(FloatCC::LessThan, y, x);
                self.b.ins().select(less, y, x)
            }
            BinOp::MaxF => {
                let greater = ins.fcmp(FloatCC::GreaterThan, y, x);
                self.b.ins().select(greater, y, x)
            }
            BinOp::AddI => ins.iadd(x, y),
            BinOp::SubI => ins.isub(x, y),
            BinOp::MulI => ins.imul(x, y),
            BinOp::DivI => self.divide(x, y),
            BinOp::MinI => ins.smin(x, y),
            BinOp::MaxI => ins.smax(x, y),
            BinOp::ShlI => ins.ishl(x, y),
            BinOp::ShrI => ins.sshr(x, y),
            BinOp::ShrU => ins.ushr(x, y),
            BinOp::AndI => ins.band(x, y),
            BinOp::OrI => ins.bor(x, y),
            BinOp::XorI => ins.bxor(x, y),
            BinOp::MulHighRound => {
                let x = ins.sextend(I64, x);
                let y = self.b.ins().sextend(I64, y);
                let product = self.b.ins().imul(x, y);
                let rounded = self.b.ins().iadd_imm_s(product, 1 << 31);
                let high = self.b.ins().sshr_imm_u(rounded, 32);
                self.b.ins().ireduce(I32, high)
            }
            BinOp::EqF | BinOp::LtF | BinOp::LeF | BinOp::EqI | BinOp::LtI | BinOp::LeI => {
                unreachable!("comparisons are conditions")
            }
        }
    }

    /// Division that never traps: by 0 gives 0, `i32::MIN / -1` wraps.
    fn divide(&mut self, x: Value, y: Value) -> Value {
        let zero = self.b.ins().icmp_imm_s(IntCC::Equal, y, 0);
        let minus = self.b.ins().icmp_imm_s(IntCC::Equal, y, -1);
        let special = self.b.ins().bor(zero, minus);
        let one = self.i32(1);
        let divisor = self.b.ins().select(special, one, y);
        let quotient = self.b.ins().sdiv(x, divisor);
        let negated = self.b.ins().ineg(x);
        let nothing = self.i32(0);
        let quotient = self.b.ins().select(minus, negated, quotient);
        self.b.ins().select(zero, nothing, quotient)
    }
}

pub enum Comparison {
    Float(FloatCC),
    Int(IntCC),
}

/// The comparison that an operation is, if it is one.
pub fn comparison(op: BinOp) -> Option<Comparison> {
    Some(match op {
        BinOp::EqF => Comparison::Float(FloatCC::Equal),
        BinOp::LtF => Comparison::Float(FloatCC::LessThan),
        BinOp::LeF => Comparison::Float(FloatCC::LessThanOrEqual),
        BinOp::EqI => Comparison::Int(IntCC::Equal),
        BinOp::LtI => Comparison::Int(IntCC::SignedLessThan),
        BinOp::LeI => Comparison::Int(IntCC::SignedLessThanOrEqual),
        _ => return None,
    })
}
