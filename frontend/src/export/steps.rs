//! Element-wise steps as nodes.

use super::Exporter;
use super::message::{float, int};
use crate::error::{Fault, Result, code};
use mcc_ir::op::{Binary, Step, Unary};
use mcc_ir::types::{F32, QuantParams};
use mcc_ir::{DType, Tensor, TensorType, ValueId};

/// A value on its way through the steps.
pub(super) struct Current {
    pub name: String,
    pub ty: TensorType,
}

impl Exporter<'_> {
    /// The steps applied to a value; `operands` are those of the steps, in order.
    pub(super) fn steps(&mut self, steps: &[Step], start: Current, operands: &[ValueId]) -> Result<Current> {
        let mut operands = operands.iter().copied();
        let mut at = start;
        for step in steps {
            let operand = if step.takes_operand() { operands.next() } else { None };
            at = self.step(step, at, operand)?;
        }
        Ok(at)
    }

    fn step(&mut self, step: &Step, at: Current, operand: Option<ValueId>) -> Result<Current> {
        let Current { name, ty } = at;
        let same = |name: String, ty: TensorType| Current { name, ty };
        Ok(match step {
            Step::Unary(u) => same(self.unary(*u, name), ty),
            Step::Binary { op, swapped, dequant } => {
                let v = operand.ok_or_else(|| Fault::node("a step lacks its operand"))?;
                let of = self.graph.ty(v).clone();
                let mut other = self.name(v);
                if let Some(q) = dequant {
                    other = self.dequantize(other, of.dtype, *q)?;
                }
                let shape = mcc_ir::types::broadcast(&ty.shape, &of.shape)
                    .ok_or_else(|| Fault::node(format!("{of} does not broadcast with {ty}")))?;
                let (mut a, b) = if *swapped { (other, name) } else { (name, other) };
                // The slope of PRelu broadcasts to the value, which does not broadcast to the slope.
                let of_a = if *swapped { &of.shape } else { &ty.shape };
                if *op == Binary::PRelu && *of_a != shape {
                    let list = self.list("shape", shape.iter().map(|&d| d as i64));
                    a = self.emit("Expand", &[a, list], vec![]);
                }
                let dtype = if op.is_predicate() { DType::Bool } else { ty.dtype };
                same(self.emit(binary(*op), &[a, b], vec![]), TensorType { dtype, shape })
            }
            Step::Cast(to) => same(self.cast(name, *to)?, TensorType { dtype: *to, ..ty }),
            Step::Dequant(q) => {
                let real = self.dequantize(name, ty.dtype, *q)?;
                same(real, TensorType { dtype: DType::F32, ..ty })
            }
            Step::Quant { q, lo, hi, dtype } => {
                // A narrower range is that of the real numbers before: rounding keeps the order and both ends.
                let mut real = name;
                if dtype.int_range() != Some((*lo, *hi)) {
                    let end = |v: i32| (v - q.zero_point) as f32 * q.scale.0;
                    real = self.unary(Unary::Clip(F32(end(*lo)), F32(end(*hi))), real);
                }
                let (scale, zero) = self.parameters(*q, *dtype)?;
                let inputs: Vec<String> = [real, scale].into_iter().chain(zero).collect();
                let attributes = if inputs.len() == 3 { vec![] } else { vec![self.output_type(*dtype)?] };
                same(self.emit("QuantizeLinear", &inputs, attributes), TensorType { dtype: *dtype, ..ty })
            }
            Step::Requant { .. } => {
                let reason = "it requantises sums of integers, which ONNX writes as real numbers that are quantised";
                return Err(Fault::new(code::EXPORT, reason, "export the graph before the integer pass"));
            }
        })
    }

    pub(super) fn cast(&mut self, name: String, to: DType) -> Result<String> {
        let to = self.number(to)?;
        Ok(self.emit("Cast", &[name], vec![int("to", to)]))
    }

    fn output_type(&self, dtype: DType) -> Result<crate::proto::Attribute> {
        Ok(int("output_dtype", self.number(dtype)?))
    }

    fn number(&self, dtype: DType) -> Result<i64> {
        super::message::data_type(dtype)
            .map(i64::from)
            .ok_or_else(|| Fault::new(code::EXPORT, format!("it computes {dtype}"), "ONNX has no such element type"))
    }

    /// Integers as the real numbers that they stand for.
    pub(super) fn dequantize(&mut self, name: String, dtype: DType, q: QuantParams) -> Result<String> {
        let (scale, zero) = self.parameters(q, dtype)?;
        let inputs: Vec<String> = [name, scale].into_iter().chain(zero).collect();
        Ok(self.emit("DequantizeLinear", &inputs, vec![]))
    }

    /// Scale and zero point as constants. Integers of 32 bits have no zero point.
    fn parameters(&mut self, q: QuantParams, dtype: DType) -> Result<(String, Option<String>)> {
        let scale = self.constant("scale", &Tensor::scalar(q.scale.0));
        if dtype == DType::I32 && q.zero_point == 0 {
            return Ok((scale, None));
        }
        if matches!(dtype, DType::I32 | DType::Bool) {
            let reason = format!("it quantises {dtype} with the zero point {}", q.zero_point);
            return Err(Fault::new(code::EXPORT, reason, "ONNX has no such form"));
        }
        let zero = Tensor::from_i64(TensorType::new(dtype, []), &[i64::from(q.zero_point)]);
        Ok((scale, Some(self.constant("zero_point", &zero))))
    }

    fn unary(&mut self, u: Unary, x: String) -> String {
        let (op_type, attributes) = match u {
            Unary::Neg => ("Neg", vec![]),
            Unary::Abs => ("Abs", vec![]),
            Unary::Sign => ("Sign", vec![]),
            Unary::Relu => ("Relu", vec![]),
            Unary::LeakyRelu(alpha) => ("LeakyRelu", vec![float("alpha", alpha.0)]),
            Unary::Elu(alpha) => ("Elu", vec![float("alpha", alpha.0)]),
            Unary::Clip(lo, hi) => {
                let mut bound = |what: &str, v: f32, none: f32| match v == none {
                    true => String::new(),
                    false => self.constant(what, &Tensor::scalar(v)),
                };
                let inputs = [x, bound("min", lo.0, f32::NEG_INFINITY), bound("max", hi.0, f32::INFINITY)];
                return self.emit("Clip", &inputs, vec![]);
            }
            Unary::Sigmoid => ("Sigmoid", vec![]),
            Unary::HardSigmoid(alpha, beta) => ("HardSigmoid", vec![float("alpha", alpha.0), float("beta", beta.0)]),
            Unary::HardSwish => ("HardSwish", vec![]),
            Unary::Tanh => ("Tanh", vec![]),
            Unary::Exp => ("Exp", vec![]),
            Unary::Log => ("Log", vec![]),
            Unary::Sqrt => ("Sqrt", vec![]),
            Unary::Reciprocal => ("Reciprocal", vec![]),
            Unary::Erf => ("Erf", vec![]),
            Unary::Gelu => ("Gelu", vec![]),
            Unary::Softplus => ("Softplus", vec![]),
            Unary::Softsign => ("Softsign", vec![]),
            Unary::Floor => ("Floor", vec![]),
            Unary::Ceil => ("Ceil", vec![]),
            Unary::Round => ("Round", vec![]),
            Unary::Not => ("Not", vec![]),
        };
        self.emit(op_type, &[x], attributes)
    }
}

fn binary(op: Binary) -> &'static str {
    match op {
        Binary::Add => "Add",
        Binary::Sub => "Sub",
        Binary::Mul => "Mul",
        Binary::Div => "Div",
        Binary::Min => "Min",
        Binary::Max => "Max",
        Binary::Pow => "Pow",
        Binary::PRelu => "PRelu",
        Binary::Equal => "Equal",
        Binary::Less => "Less",
        Binary::LessEqual => "LessOrEqual",
        Binary::Greater => "Greater",
        Binary::GreaterEqual => "GreaterOrEqual",
        Binary::And => "And",
        Binary::Or => "Or",
        Binary::Xor => "Xor",
    }
}
