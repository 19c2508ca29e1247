//! Runs a loop nest, slowly and by the letter.

use super::{Expr, Index, Nest, Stmt};
use crate::dtype::DType;
use crate::tensor::Tensor;
use half::{bf16, f16};

/// Runs `nest` in `memory`, where argument i starts at byte `bases[i]`. Arguments may overlap, as in-place kernels do.
///
/// # Panics
/// Where the nest reads or writes outside `memory`, which a verified plan never does.
pub fn run(nest: &Nest, memory: &mut [u8], bases: &[usize]) {
    let mut machine = Machine {
        memory,
        args: nest.args.iter().zip(bases).map(|(t, &b)| (t.dtype, b)).collect(),
        regs: vec![0; nest.regs.len()],
        vars: vec![0; nest.vars as usize],
    };
    machine.block(&nest.body);
}

/// Runs `nest` on tensors and returns its output.
///
/// # Panics
/// Where the inputs are not of the nest's argument types, or an element type is narrower than a byte.
pub fn run_on(nest: &Nest, inputs: &[&Tensor]) -> Tensor {
    let mut memory = Vec::new();
    let mut bases = Vec::new();
    for (tensor, ty) in inputs.iter().copied().chain(&nest.tables).zip(&nest.args) {
        assert_eq!((tensor.dtype(), tensor.ty().elements()), (ty.dtype, ty.elements()), "argument {}", bases.len());
        bases.push(memory.len());
        memory.extend_from_slice(tensor.bytes());
    }
    let out = &nest.args[nest.output()];
    bases.push(memory.len());
    memory.resize(memory.len() + out.bytes(), 0xA5);
    run(nest, &mut memory, &bases);
    Tensor::from_bytes(out.clone(), memory[bases[nest.output()]..].to_vec()).expect("sized above")
}

struct Machine<'a> {
    memory: &'a mut [u8],
    args: Vec<(DType, usize)>,
    regs: Vec<u32>,
    vars: Vec<i64>,
}

impl Machine<'_> {
    fn block(&mut self, body: &[Stmt]) {
        for stmt in body {
            match stmt {
                Stmt::For { var, extent, body } => {
                    for i in 0..*extent {
                        self.vars[var.0 as usize] = i;
                        self.block(body);
                    }
                }
                Stmt::Let { reg, value } | Stmt::Set { reg, value } => {
                    self.regs[reg.0 as usize] = self.expr(value);
                }
                Stmt::Store { arg, index, value } => {
                    let word = self.expr(value);
                    let at = self.index(index);
                    self.store(*arg, at, word);
                }
            }
        }
    }

    fn index(&self, index: &Index) -> i64 {
        let mut at = index.base;
        for &(v, k) in &index.terms {
            at += self.vars[v.0 as usize] * k;
        }
        match &index.dynamic {
            Some(d) => at + self.expr(d) as i32 as i64,
            None => at,
        }
    }

    fn expr(&self, e: &Expr) -> u32 {
        match e {
            Expr::F32(v) => v.to_bits(),
            Expr::I32(v) => *v as u32,
            Expr::Reg(r) => self.regs[r.0 as usize],
            Expr::Index(i) => self.index(i) as u32,
            Expr::Load { arg, index } => self.load(*arg, self.index(index)),
            Expr::Un(op, a) => op.apply(self.expr(a)),
            Expr::Bin(op, a, b) => op.apply(self.expr(a), self.expr(b)),
            Expr::Select(e) => {
                let (condition, then, other) = (self.expr(&e[0]), self.expr(&e[1]), self.expr(&e[2]));
                if condition != 0 { then } else { other }
            }
            Expr::Guard { bounds, then, other } => {
                let inside = bounds.iter().all(|b| (0..b.extent).contains(&self.index(&b.index)));
                self.expr(if inside { then } else { other })
            }
        }
    }

    fn bytes<const N: usize>(&self, base: usize, at: i64) -> [u8; N] {
        let from = base + at as usize * N;
        self.memory[from..from + N].try_into().expect("N bytes")
    }

    fn load(&self, arg: usize, at: i64) -> u32 {
        let (dtype, base) = self.args[arg];
        match dtype {
            DType::F32 | DType::I32 => u32::from_le_bytes(self.bytes(base, at)),
            DType::I8 => i8::from_le_bytes(self.bytes(base, at)) as i32 as u32,
            DType::U8 | DType::Bool => self.memory[base + at as usize] as u32,
            DType::I16 => i16::from_le_bytes(self.bytes(base, at)) as i32 as u32,
            DType::I64 => i64::from_le_bytes(self.bytes(base, at)) as u32,
            DType::F16 => f16::from_le_bytes(self.bytes(base, at)).to_f32().to_bits(),
            DType::BF16 => bf16::from_le_bytes(self.bytes(base, at)).to_f32().to_bits(),
            DType::I4 | DType::U4 | DType::I2 | DType::U2 | DType::B1 | DType::T2 => {
                unreachable!("lowering refuses packed element types")
            }
        }
    }

    fn store(&mut self, arg: usize, at: i64, word: u32) {
        let (dtype, base) = self.args[arg];
        let size = dtype.bits() / 8;
        let from = base + at as usize * size;
        let to = &mut self.memory[from..from + size];
        match dtype {
            DType::F32 | DType::I32 => to.copy_from_slice(&word.to_le_bytes()),
            DType::I8 | DType::U8 | DType::Bool => to[0] = word as u8,
            DType::I16 => to.copy_from_slice(&(word as u16).to_le_bytes()),
            DType::I64 => to.copy_from_slice(&(word as i32 as i64).to_le_bytes()),
            DType::F16 => to.copy_from_slice(&f16::from_f32(f32::from_bits(word)).to_le_bytes()),
            DType::BF16 => to.copy_from_slice(&bf16::from_f32(f32::from_bits(word)).to_le_bytes()),
            DType::I4 | DType::U4 | DType::I2 | DType::U2 | DType::B1 | DType::T2 => {
                unreachable!("lowering refuses packed element types")
            }
        }
    }
}
