//! Random tensors and epilogues, and the comparison of a loop nest with the evaluator.

use mcc_ir::op::{Binary, Op, Rounding, Step, Unary};
use mcc_ir::types::F32;
use mcc_ir::{DType, QuantParams, Tensor, TensorType, nest, ops};

/// Pseudo-random numbers (splitmix64).
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// Mostly of the size of activations, with full significands, now and then zero, tiny or huge.
    fn float(&mut self) -> f32 {
        let unit = self.next() as i64 as f32 / 2f32.powi(63);
        match self.below(16) {
            0 => 0.0,
            1 => unit * 1e-30,
            2 => unit * 1e6,
            3 => (unit * 8.0).round() / 2.0,
            _ => unit * 4.0,
        }
    }

    /// Elements over the whole range of integer types of at most 16 bits, and 20 bits of wider ones.
    pub fn tensor(&mut self, dtype: DType, shape: &[usize]) -> Tensor {
        let ty = TensorType::new(dtype, shape);
        if dtype == DType::F32 {
            let values: Vec<f32> = (0..ty.elements()).map(|_| self.float()).collect();
            return Tensor::new(shape, &values);
        }
        let shift = if dtype.bits() > 16 { 44 } else { 0 };
        let values: Vec<i64> = (0..ty.elements()).map(|_| self.next() as i64 >> shift).collect();
        match dtype {
            DType::Bool => Tensor::from_i64(ty, &values.iter().map(|v| v & 1).collect::<Vec<_>>()),
            _ => Tensor::from_i64(ty, &values),
        }
    }

    /// Positive factors of about the size that brings an accumulator of a few hundred to 8 bits.
    pub fn scales(&mut self, shape: &[usize]) -> Tensor {
        let n = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|_| (1 + self.below(4000)) as f32 * 1e-4).collect();
        Tensor::new(shape, &values)
    }

    pub fn quant(&mut self) -> QuantParams {
        let scale = F32((1 + self.below(999)) as f32 * 3e-4);
        QuantParams { scale, zero_point: self.below(256) as i32 - 128 }
    }

    /// A shape that broadcasts to `shape`.
    pub fn operand_shape(&mut self, shape: &[usize]) -> Vec<usize> {
        let from = if self.flag() { 0 } else { self.below(shape.len() + 1) };
        let some = self.flag();
        shape[from..].iter().map(|&n| if some && self.flag() { 1 } else { n }).collect()
    }

    fn unary(&mut self) -> Unary {
        use Unary::*;
        let a = F32(self.float());
        self.pick(&[
            Neg,
            Abs,
            Sign,
            Relu,
            LeakyRelu(a),
            Elu(a),
            Clip(F32(-1.0), F32(6.0)),
            Sigmoid,
            HardSigmoid(F32(0.2), F32(0.5)),
            HardSwish,
            Tanh,
            Exp,
            Log,
            Sqrt,
            Reciprocal,
            Erf,
            Gelu,
            Softplus,
            Softsign,
            Floor,
            Ceil,
            Round,
        ])
    }

    fn arithmetic(&mut self, float: bool) -> Binary {
        use Binary::*;
        let all = [Add, Sub, Mul, Div, Min, Max, Pow, PRelu];
        self.pick(&all[..if float { 8 } else { 6 }])
    }

    /// Up to `length` steps on values of type `dtype`, and their operands, none larger than `shape`.
    pub fn chain(&mut self, mut dtype: DType, shape: &[usize], length: usize) -> (Vec<Step>, Vec<Tensor>) {
        let (mut steps, mut operands) = (vec![], vec![]);
        for _ in 0..self.below(length + 1) {
            let of = self.operand_shape(shape);
            let swapped = self.flag();
            let step = match (dtype, self.below(5)) {
                (DType::F32, 0) => Step::Unary(self.unary()),
                (DType::F32, 1) => {
                    operands.push(self.tensor(DType::F32, &of));
                    Step::Binary { op: self.arithmetic(true), swapped, dequant: None }
                }
                (DType::F32, 2) => {
                    let from = self.pick(&[DType::I8, DType::U8, DType::I16, DType::I32]);
                    operands.push(self.tensor(from, &of));
                    Step::Binary { op: self.arithmetic(true), swapped, dequant: Some(self.quant()) }
                }
                (DType::F32, 3) => {
                    let to = self.pick(&[DType::I8, DType::U8, DType::I16]);
                    let (lo, hi) = to.int_range().unwrap();
                    let mut q = self.quant();
                    q.zero_point = q.zero_point.clamp(lo, hi);
                    Step::Quant { q, lo: lo + self.below(3) as i32, hi: hi - self.below(3) as i32, dtype: to }
                }
                (DType::I32, 0 | 1) => {
                    let to = self.pick(&[DType::I8, DType::U8]);
                    let (lo, hi) = to.int_range().unwrap();
                    let rounding = match self.flag() {
                        true => Rounding::F32HalfEven,
                        false => Rounding::Single { shift: self.below(8) as u32 },
                    };
                    operands.push(match rounding {
                        Rounding::F32HalfEven => self.scales(&of),
                        Rounding::Single { .. } => self.tensor(DType::I32, &of),
                    });
                    Step::Requant { rounding, zero: lo + self.below(256) as i32, lo, hi, dtype: to }
                }
                (DType::Bool, 0) => Step::Unary(Unary::Not),
                (DType::Bool, 1) => {
                    operands.push(self.tensor(DType::Bool, &of));
                    Step::Binary { op: self.pick(&[Binary::And, Binary::Or, Binary::Xor]), swapped, dequant: None }
                }
                (DType::Bool, _) => Step::Cast(self.pick(&[DType::F32, DType::I32, DType::U8])),
                (DType::F32, _) => Step::Cast(self.pick(&[DType::I32, DType::I8, DType::U8, DType::Bool])),
                (_, 2) => Step::Dequant(self.quant()),
                (_, 3) => Step::Cast(self.pick(&[DType::F32, DType::I32, DType::I16, DType::I8, DType::Bool])),
                (_, n) => {
                    use Binary::*;
                    let comparisons = [Equal, Less, LessEqual, Greater, GreaterEqual];
                    match n {
                        0 => Step::Unary(self.pick(&[Unary::Neg, Unary::Abs, Unary::Sign, Unary::Relu])),
                        1 => {
                            operands.push(self.tensor(dtype, &of));
                            Step::Binary { op: self.pick(&comparisons), swapped, dequant: None }
                        }
                        _ => {
                            operands.push(self.tensor(dtype, &of));
                            Step::Binary { op: self.arithmetic(false), swapped, dequant: None }
                        }
                    }
                }
            };
            dtype = match &step {
                Step::Unary(_) => dtype,
                Step::Binary { op, .. } if op.is_predicate() => DType::Bool,
                Step::Binary { .. } => dtype,
                Step::Dequant(_) => DType::F32,
                Step::Cast(to) | Step::Requant { dtype: to, .. } | Step::Quant { dtype: to, .. } => *to,
            };
            steps.push(step);
        }
        (steps, operands)
    }
}

/// The first element in which two tensors differ, any two NaNs being equal.
fn difference(a: &Tensor, b: &Tensor) -> Option<String> {
    if a.ty() != b.ty() {
        return Some(format!("{} against {}", a.ty(), b.ty()));
    }
    if a.dtype() != DType::F32 {
        let at = a.to_i64().into_iter().zip(b.to_i64()).position(|(a, b)| a != b)?;
        return Some(format!("element {at}: {} against {}", a.to_i64()[at], b.to_i64()[at]));
    }
    let (a, b) = (a.to_f32(), b.to_f32());
    let at = a.iter().zip(&b).position(|(a, b)| a.to_bits() != b.to_bits() && !(a.is_nan() && b.is_nan()))?;
    Some(format!("element {at}: {:?} against {:?}", a[at], b[at]))
}

/// Runs an operator's loop nest and its evaluation, which must give the same bits. `None` where type inference refuses
/// the inputs; generators make such operators rarely.
pub fn nest_and_evaluator_agree(op: &Op, inputs: &[&Tensor]) -> Option<Tensor> {
    let types: Vec<&TensorType> = inputs.iter().map(|t| t.ty()).collect();
    let out = ops::infer(op, &types).ok()?;
    let expected = ops::eval(op, inputs, &out).unwrap();
    assert_eq!(expected.ty(), &out, "{op:?} on {types:?}");
    let nest = ops::nest(op, &types, &out).unwrap();
    mcc_ir::nest::verify::verify(&nest).unwrap_or_else(|e| panic!("{op:?} on {types:?}: {e}"));
    let got = nest::run::run_on(&nest, inputs);
    if let Some(difference) = difference(&got, &expected) {
        panic!("{op:?} on {types:?}: {difference}");
    }
    Some(expected)
}
