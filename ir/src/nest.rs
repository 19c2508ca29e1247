//! Loop nests: what a Plan kernel computes, spelled out over the closed scalar language of [`crate::scalar`].
//!
//! A nest reads its arguments (tensors of static type) at affine positions, computes scalars and stores them. It is the
//! specification of a kernel: the Plan interpreter runs it, the C backend prints it and the JIT compiles it wherever the
//! target's catalogue has nothing better.

pub mod print;
pub mod run;
pub mod verify;
mod work;

pub use work::counts;

use crate::dtype::DType;
use crate::scalar::{BinOp, ScalarType, Scalars, UnOp};
use crate::tensor::Tensor;
use crate::types::TensorType;

/// A loop variable, counting from 0 in steps of 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Var(pub u32);

/// A scalar variable. Defined by [`Stmt::Let`], changed by [`Stmt::Set`], visible to the end of the defining block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reg(pub u32);

/// An integer that is affine in the loop variables, plus at most one computed `i32`.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Index {
    pub base: i64,
    /// Variables with their coefficients, ascending, none zero.
    pub terms: Vec<(Var, i64)>,
    pub dynamic: Option<Box<Expr>>,
}

impl Index {
    pub fn constant(base: i64) -> Index {
        Index { base, ..Index::default() }
    }

    pub fn var(v: Var) -> Index {
        Index { terms: vec![(v, 1)], ..Index::default() }
    }

    /// This index plus `k` times a variable.
    pub fn plus(mut self, v: Var, k: i64) -> Index {
        match self.terms.binary_search_by_key(&v, |t| t.0) {
            Ok(at) => {
                self.terms[at].1 += k;
                if self.terms[at].1 == 0 {
                    self.terms.remove(at);
                }
            }
            Err(at) if k != 0 => self.terms.insert(at, (v, k)),
            Err(_) => {}
        }
        self
    }

    /// This index plus `k` times another.
    ///
    /// # Panics
    /// Where `other` has a computed part and `k` is not 1, or both have one: a bug in a lowering.
    pub fn plus_scaled(mut self, other: &Index, k: i64) -> Index {
        self.base += other.base * k;
        for &(v, c) in &other.terms {
            self = self.plus(v, c * k);
        }
        if let Some(d) = &other.dynamic {
            assert!(k == 1 && self.dynamic.is_none(), "a computed index cannot be scaled or doubled");
            self.dynamic = Some(d.clone());
        }
        self
    }

    pub fn offset(mut self, by: i64) -> Index {
        self.base += by;
        self
    }
}

/// `0 <= index < extent`.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    pub index: Index,
    pub extent: i64,
}

/// A scalar expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    F32(f32),
    I32(i32),
    Reg(Reg),
    /// The value of an index as `i32`.
    Index(Index),
    /// Element `index` of argument `arg`: `f32` for float types, else widened to `i32` (an `i64` is truncated).
    Load {
        arg: usize,
        index: Index,
    },
    Un(UnOp, Box<Expr>),
    Bin(BinOp, Box<Expr>, Box<Expr>),
    /// condition, then, other. All are computed.
    Select(Box<[Expr; 3]>),
    /// `then` where all bounds hold, else `other`; only the chosen one is computed.
    Guard {
        bounds: Vec<Bound>,
        then: Box<Expr>,
        other: Box<Expr>,
    },
}

/// A statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Stmt {
    For {
        var: Var,
        extent: i64,
        body: Vec<Stmt>,
    },
    Let {
        reg: Reg,
        value: Expr,
    },
    Set {
        reg: Reg,
        value: Expr,
    },
    /// Stores to argument `arg`, narrowing to its element type (the value is in range; `bool` stores 0 or 1).
    Store {
        arg: usize,
        index: Index,
        value: Expr,
    },
}

/// A loop nest. Arguments are the kernel's inputs, then its tables, then its output.
#[derive(Clone, Debug, PartialEq)]
pub struct Nest {
    /// Types of all arguments, in order.
    pub args: Vec<TensorType>,
    /// Constants that the nest itself needs (index or weight tables); arguments `inputs..inputs + tables.len()`.
    pub tables: Vec<Tensor>,
    pub inputs: usize,
    /// Type of each register.
    pub regs: Vec<ScalarType>,
    pub vars: u32,
    pub body: Vec<Stmt>,
}

impl Nest {
    /// The index of the output among the arguments.
    pub fn output(&self) -> usize {
        self.args.len() - 1
    }

    /// The scalar type of an expression.
    pub fn type_of(&self, e: &Expr) -> ScalarType {
        match e {
            Expr::F32(_) => ScalarType::F32,
            Expr::I32(_) | Expr::Index(_) => ScalarType::I32,
            Expr::Reg(r) => self.regs[r.0 as usize],
            Expr::Load { arg, .. } => scalar_type(self.args[*arg].dtype),
            Expr::Un(op, _) => op.result(),
            Expr::Bin(op, ..) => op.result(),
            Expr::Select(e) => self.type_of(&e[1]),
            Expr::Guard { then, .. } => self.type_of(then),
        }
    }
}

/// The scalar as which elements of a type are computed.
pub fn scalar_type(dtype: DType) -> ScalarType {
    if dtype.is_float() { ScalarType::F32 } else { ScalarType::I32 }
}

/// Builds a nest statement by statement, and is a [`Scalars`] that records expressions.
pub struct NestBuilder {
    nest: Nest,
    /// Open blocks, innermost last.
    blocks: Vec<Vec<Stmt>>,
}

impl NestBuilder {
    /// A nest over the given inputs and output.
    pub fn new(inputs: &[&TensorType], output: &TensorType) -> NestBuilder {
        let mut args: Vec<TensorType> = inputs.iter().map(|t| (*t).clone()).collect();
        args.push(output.clone());
        let nest = Nest { args, tables: vec![], inputs: inputs.len(), regs: vec![], vars: 0, body: vec![] };
        NestBuilder { nest, blocks: vec![vec![]] }
    }

    /// Adds a constant table and returns its argument index. Call before any store: it moves the output's index.
    pub fn table(&mut self, table: Tensor) -> usize {
        let at = self.nest.output();
        self.nest.args.insert(at, table.ty().clone());
        self.nest.tables.push(table);
        at
    }

    pub fn output(&self) -> usize {
        self.nest.output()
    }

    pub fn arg(&self, arg: usize) -> &TensorType {
        &self.nest.args[arg]
    }

    /// A variable that no loop of this nest binds: whoever runs the nest gives it a value.
    pub fn free_var(&mut self) -> Var {
        self.nest.vars += 1;
        Var(self.nest.vars - 1)
    }

    /// A loop of `extent` iterations; none is emitted for an extent of 1 (the variable is then constant 0).
    pub fn repeat(&mut self, extent: usize, body: impl FnOnce(&mut NestBuilder, Index)) {
        if extent == 1 {
            return body(self, Index::constant(0));
        }
        let var = Var(self.nest.vars);
        self.nest.vars += 1;
        self.blocks.push(vec![]);
        body(self, Index::var(var));
        let body = self.blocks.pop().expect("the block opened above");
        self.emit(Stmt::For { var, extent: extent as i64, body });
    }

    /// Nested loops over a shape, with the index along each dimension.
    pub fn repeat_shape(&mut self, shape: &[usize], body: impl FnOnce(&mut NestBuilder, &[Index])) {
        type Body<'a> = Box<dyn FnOnce(&mut NestBuilder, &[Index]) + 'a>;
        fn go(b: &mut NestBuilder, shape: &[usize], mut at: Vec<Index>, body: Body<'_>) {
            match shape.split_first() {
                None => body(b, &at),
                Some((&n, rest)) => b.repeat(n, |b, i| {
                    at.push(i);
                    go(b, rest, at, body);
                }),
            }
        }
        go(self, shape, vec![], Box::new(body));
    }

    /// Defines a register.
    pub fn let_(&mut self, value: Expr) -> Reg {
        let reg = Reg(self.nest.regs.len() as u32);
        self.nest.regs.push(self.nest.type_of(&value));
        self.emit(Stmt::Let { reg, value });
        reg
    }

    pub fn set(&mut self, reg: Reg, value: Expr) {
        self.emit(Stmt::Set { reg, value });
    }

    pub fn load(&self, arg: usize, index: Index) -> Expr {
        Expr::Load { arg, index }
    }

    /// Stores to the output.
    pub fn store(&mut self, index: Index, value: Expr) {
        let arg = self.nest.output();
        self.emit(Stmt::Store { arg, index, value });
    }

    pub fn type_of(&self, e: &Expr) -> ScalarType {
        self.nest.type_of(e)
    }

    fn emit(&mut self, stmt: Stmt) {
        self.blocks.last_mut().expect("the outermost block stays").push(stmt);
    }

    pub fn finish(mut self) -> Nest {
        self.nest.body = self.blocks.pop().expect("the outermost block stays");
        self.nest
    }
}

/// Row-major position of `at` under `strides`.
pub fn linear(at: &[Index], strides: &[usize]) -> Index {
    at.iter().zip(strides).fold(Index::default(), |acc, (i, &s)| acc.plus_scaled(i, s as i64))
}

impl Scalars for NestBuilder {
    type V = Expr;
    fn f32(&mut self, value: f32) -> Expr {
        Expr::F32(value)
    }
    fn i32(&mut self, value: i32) -> Expr {
        Expr::I32(value)
    }
    fn un(&mut self, op: UnOp, a: Expr) -> Expr {
        Expr::Un(op, Box::new(a))
    }
    fn bin(&mut self, op: BinOp, a: Expr, b: Expr) -> Expr {
        Expr::Bin(op, Box::new(a), Box::new(b))
    }
    fn select(&mut self, condition: Expr, then: Expr, other: Expr) -> Expr {
        Expr::Select(Box::new([condition, then, other]))
    }
    fn share(&mut self, value: Expr) -> Expr {
        match value {
            Expr::F32(_) | Expr::I32(_) | Expr::Reg(_) => value,
            _ => Expr::Reg(self.let_(value)),
        }
    }
}
