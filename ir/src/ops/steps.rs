//! Element-wise steps: the epilogues of other operators, and the whole of [`Op::Map`](crate::op::Op::Map).

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::math;
use crate::nest::{Expr, Index, Nest, NestBuilder, Var, linear, scalar_type};
use crate::op::{Binary, Rounding, Step, Unary};
use crate::requant;
use crate::scalar::{BinOp, Eval, ScalarType, Scalars, UnOp};
use crate::tensor::Tensor;
use crate::types::{TensorType, broadcast, broadcast_strides};

/// The type of a chain that starts from values of type `start`: element type after the last step, shape broadcast over
/// the operands.
pub fn infer(op: &'static str, steps: &[Step], start: TensorType, operands: &[&TensorType]) -> Result<TensorType> {
    let mut operands = operands.iter();
    let TensorType { mut dtype, mut shape } = start;
    for step in steps {
        let operand = if step.takes_operand() {
            let ty = operands.next().ok_or_else(|| Error::ty(op, format!("{} lacks an operand", step.name())))?;
            shape = broadcast(&shape, &ty.shape)
                .ok_or_else(|| Error::ty(op, format!("{ty} does not broadcast to {shape:?}")))?;
            Some(ty.dtype)
        } else {
            None
        };
        dtype = step_dtype(step, dtype, operand).ok_or_else(|| match operand {
            Some(o) => Error::ty(op, format!("{} does not take {dtype} with {o}", step.name())),
            None => Error::ty(op, format!("{} does not take {dtype}", step.name())),
        })?;
    }
    Ok(TensorType { dtype, shape })
}

/// The element type after one step, or `None` where it does not take its arguments.
fn step_dtype(step: &Step, dtype: DType, operand: Option<DType>) -> Option<DType> {
    let float = dtype == DType::F32;
    let narrow = matches!(dtype, DType::I32 | DType::I16 | DType::I8 | DType::U8 | DType::Bool);
    let ok = |condition: bool, result: DType| condition.then_some(result);
    let in_range =
        |lo: i32, hi: i32, to: DType| to.int_range().is_some_and(|(min, max)| min <= lo && lo <= hi && hi <= max);
    match step {
        Step::Unary(Unary::Not) => ok(dtype == DType::Bool, DType::Bool),
        Step::Unary(Unary::Neg | Unary::Abs | Unary::Sign | Unary::Relu) => {
            ok(float || (dtype.bits() >= 8 && dtype != DType::Bool), dtype)
        }
        Step::Unary(_) => ok(float, DType::F32),
        Step::Binary { op, dequant, .. } => {
            let operand = operand?;
            let operand = match dequant {
                Some(_) if operand.int_range().is_some() => DType::F32,
                Some(_) => return None,
                None => operand,
            };
            let fits = match op {
                Binary::And | Binary::Or | Binary::Xor => dtype == DType::Bool,
                Binary::Pow | Binary::PRelu => float,
                _ => dtype == DType::F32 || (dtype.bits() >= 8 && !dtype.is_float()),
            };
            ok(operand == dtype && fits, if op.is_predicate() { DType::Bool } else { dtype })
        }
        Step::Cast(to) => ok(to.is_byte_sized() && dtype.is_byte_sized(), *to),
        Step::Requant { rounding, lo, hi, dtype: to, .. } => {
            let wants = match rounding {
                Rounding::F32HalfEven => DType::F32,
                Rounding::Single { .. } => DType::I32,
            };
            ok(dtype == DType::I32 && operand == Some(wants) && in_range(*lo, *hi, *to), *to)
        }
        Step::Dequant(_) => ok(narrow, DType::F32),
        Step::Quant { lo, hi, dtype: to, .. } => ok(float && in_range(*lo, *hi, *to), *to),
    }
}

/// The element types before each step and after the last.
fn dtypes(steps: &[Step], start: DType, operands: &[DType]) -> Vec<DType> {
    let mut operands = operands.iter().copied();
    let mut all = vec![start];
    let mut dtype = start;
    for step in steps {
        let operand = step.takes_operand().then(|| operands.next()).flatten();
        dtype = step_dtype(step, dtype, operand).expect("the operator's type was inferred");
        all.push(dtype);
    }
    all
}

/// Writes a chain as a scalar program. `operand` gives the scalar of the next operand, in order.
fn apply<S: Scalars>(
    s: &mut S,
    steps: &[Step],
    dtypes: &[DType],
    mut value: S::V,
    mut operand: impl FnMut(&mut S) -> S::V,
) -> S::V {
    for (i, step) in steps.iter().enumerate() {
        let dtype = dtypes[i];
        value = match step {
            Step::Unary(u) if dtype == DType::F32 => math::unary(s, *u, value),
            Step::Unary(u) => wrap(s, math::unary_int(*u), dtypes[i + 1], value),
            Step::Binary { op, swapped, dequant } => {
                let mut other = operand(s);
                if let Some(q) = dequant {
                    other = requant::dequantize(s, *q, other);
                }
                let (a, b) = if *swapped { (other, value) } else { (value, other) };
                if dtype == DType::F32 {
                    math::binary(s, *op, a, b)
                } else {
                    let v = math::binary_int(s, *op, a, b);
                    narrow(s, dtypes[i + 1], v)
                }
            }
            Step::Cast(to) => cast(s, dtype, *to, value),
            Step::Requant { rounding, zero, lo, hi, .. } => {
                let scale = operand(s);
                requant::requantize(s, *rounding, value, scale, *zero, *lo, *hi)
            }
            Step::Dequant(q) => requant::dequantize(s, *q, value),
            Step::Quant { q, lo, hi, .. } => requant::quantize(s, *q, *lo, *hi, value),
        };
    }
    value
}

fn wrap<S: Scalars>(s: &mut S, f: fn(&mut S, S::V) -> S::V, to: DType, value: S::V) -> S::V {
    let v = f(s, value);
    narrow(s, to, v)
}

/// Wraps an `i32` to the width of `to`.
fn narrow<S: Scalars>(s: &mut S, to: DType, v: S::V) -> S::V {
    match to {
        DType::I8 | DType::I16 => {
            let bits = s.i32(32 - to.bits() as i32);
            let v = s.bin(BinOp::ShlI, v, bits.clone());
            s.bin(BinOp::ShrI, v, bits)
        }
        DType::U8 => {
            let mask = s.i32(255);
            s.bin(BinOp::AndI, v, mask)
        }
        _ => v,
    }
}

/// Conversion of one scalar. To an integer: floats truncate and saturate at 32 bits, then wrap; to `bool`: whether not 0.
fn cast<S: Scalars>(s: &mut S, from: DType, to: DType, v: S::V) -> S::V {
    match (scalar_type(from), scalar_type(to)) {
        (ScalarType::F32, ScalarType::F32) => v,
        (ScalarType::I32, ScalarType::F32) => s.un(UnOp::ToF, v),
        (from, ScalarType::I32) if to == DType::Bool => {
            let zero = if from == ScalarType::F32 { s.f32(0.0) } else { s.i32(0) };
            let op = if from == ScalarType::F32 { BinOp::EqF } else { BinOp::EqI };
            let is_zero = s.bin(op, v, zero);
            s.un(UnOp::NotI, is_zero)
        }
        (ScalarType::F32, ScalarType::I32) => {
            let v = s.un(UnOp::TruncToI, v);
            narrow(s, to, v)
        }
        (ScalarType::I32, ScalarType::I32) => narrow(s, to, v),
    }
}

/// The elements of a tensor as scalars: floats by their bits, integers widened (an `i64` truncated) to `i32`.
pub fn words(t: &Tensor) -> Vec<u32> {
    match scalar_type(t.dtype()) {
        ScalarType::F32 => t.to_f32().into_iter().map(f32::to_bits).collect(),
        ScalarType::I32 => t.to_i64().into_iter().map(|v| v as u32).collect(),
    }
}

/// The tensor of type `ty` whose elements are these scalars.
pub fn from_words(ty: &TensorType, words: &[u32]) -> Tensor {
    match ty.dtype {
        DType::F32 => Tensor::new(ty.shape.clone(), &words.iter().map(|w| f32::from_bits(*w)).collect::<Vec<_>>()),
        d if d.is_float() => {
            Tensor::from_f64(ty.clone(), &words.iter().map(|w| f32::from_bits(*w) as f64).collect::<Vec<_>>())
        }
        _ => Tensor::from_i64(ty.clone(), &words.iter().map(|w| *w as i32 as i64).collect::<Vec<_>>()),
    }
}

/// An epilogue ready to be evaluated.
pub struct Epilogue<'a> {
    steps: &'a [Step],
    dtypes: Vec<DType>,
    /// Scalars of each operand and its strides over the output shape.
    operands: Vec<(Vec<u32>, Vec<usize>)>,
    out: TensorType,
}

impl<'a> Epilogue<'a> {
    /// An epilogue over results of element type `start` and the given operands, stored as `out`.
    pub fn new(steps: &'a [Step], start: DType, operands: &[&Tensor], out: &TensorType) -> Epilogue<'a> {
        let types: Vec<DType> = operands.iter().map(|t| t.dtype()).collect();
        let operands = operands.iter().map(|t| (words(t), broadcast_strides(t.shape(), &out.shape))).collect();
        Epilogue { steps, dtypes: dtypes(steps, start, &types), operands, out: out.clone() }
    }

    /// Applies the chain to every element; `results` are scalars in row-major order of the output.
    pub fn apply(&self, mut results: Vec<u32>) -> Tensor {
        if !self.steps.is_empty() {
            let mut at = vec![0usize; self.out.rank()];
            let mut offsets = vec![0usize; self.operands.len()];
            for value in &mut results {
                let mut next = 0;
                *value = apply(&mut Eval, self.steps, &self.dtypes, *value, |_| {
                    next += 1;
                    self.operands[next - 1].0[offsets[next - 1]]
                });
                advance(&mut at, &self.out.shape, &mut offsets, &self.operands);
            }
        }
        from_words(&self.out, &results)
    }
}

/// Steps a row-major index over `shape`, and each operand's offset with it.
fn advance(at: &mut [usize], shape: &[usize], offsets: &mut [usize], operands: &[(Vec<u32>, Vec<usize>)]) {
    for d in (0..shape.len()).rev() {
        at[d] += 1;
        offsets.iter_mut().zip(operands).for_each(|(o, (_, strides))| *o += strides[d]);
        if at[d] < shape[d] {
            return;
        }
        offsets.iter_mut().zip(operands).for_each(|(o, (_, strides))| *o -= strides[d] * shape[d]);
        at[d] = 0;
    }
}

/// The epilogue of an operator as a nest of its own, for kernels whose accumulators are computed by other means.
///
/// Arguments: accumulators of element type `start`, the epilogue's operands, the output. The first `outer` dimensions of
/// the output are fixed by the returned variables, which no loop binds. Accumulators are of the output's shape where
/// `whole`, else of its inner dimensions only.
pub fn epilogue(
    steps: &[Step],
    start: DType,
    operands: &[&TensorType],
    out: &TensorType,
    outer: usize,
    whole: bool,
) -> (Nest, Vec<Var>) {
    let from = if whole { 0 } else { outer };
    let accumulators = TensorType::new(start, out.shape[from..].to_vec());
    let inputs: Vec<&TensorType> = [&accumulators].into_iter().chain(operands.iter().copied()).collect();
    let mut b = NestBuilder::new(&inputs, out);
    let fixed: Vec<Var> = (0..outer).map(|_| b.free_var()).collect();
    b.repeat_shape(&out.shape[outer..], |b, inner| {
        let at: Vec<Index> = fixed.iter().map(|v| Index::var(*v)).chain(inner.iter().cloned()).collect();
        let value = b.load(0, linear(&at[from..], &accumulators.strides()));
        store(b, steps, start, value, &at, 1);
    });
    (b.finish(), fixed)
}

/// Applies an epilogue inside a nest and stores the result at `at`. The operands are the arguments from `first` on.
pub fn store(b: &mut NestBuilder, steps: &[Step], start: DType, value: Expr, at: &[Index], first: usize) {
    let out = b.arg(b.output()).clone();
    let count = steps.iter().filter(|s| s.takes_operand()).count();
    let types: Vec<DType> = (first..first + count).map(|a| b.arg(a).dtype).collect();
    let mut next = first;
    let value = apply(b, steps, &dtypes(steps, start, &types), value, |b| {
        let strides = broadcast_strides(&b.arg(next).shape, &out.shape);
        next += 1;
        b.load(next - 1, linear(at, &strides))
    });
    let index = linear(at, &out.strides());
    b.store(index, value);
}
