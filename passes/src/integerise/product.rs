//! Convolutions and matrix products on quantised operands.

use super::{Integeriser, narrow};
use mcc_ir::dtype::DType;
use mcc_ir::graph::{Def, Graph, Origin, Value, ValueId, join_origins};
use mcc_ir::op::{Binary, Layout, Op, Rounding, Step, Unary};
use mcc_ir::requant;
use mcc_ir::scalar::Eval;
use mcc_ir::types::{F32, QuantParams};
use mcc_ir::{Result, Tensor};

/// Literal integer biases are kept where their scale is that of the accumulator within this factor.
const BIAS_SCALE_TOLERANCE: f64 = 1e-4;

/// A product of integers that a graph reads as `f32(accumulator) * scale`, between two clamps.
#[derive(Clone, Debug)]
pub struct Product {
    /// Conv2d or MatMul without bias and epilogue.
    op: Op,
    x: ValueId,
    /// `i8` weights.
    w: ValueId,
    /// Real factor of the accumulator: one, or one a channel.
    scales: Vec<f32>,
    /// What the bias adds to each channel's accumulator, the zero point's part not included.
    bias: Vec<i64>,
    /// `zero_point of x * sum of weights` of each channel.
    offset: Vec<i64>,
    /// The least and the largest sum of products of each channel, the bias not included.
    range: Vec<(i64, i64)>,
    /// Bounds of a fused activation.
    clamp: (f32, f32),
    origin: Origin,
}

impl Product {
    fn channels(&self) -> usize {
        self.bias.len()
    }

    /// A per-channel constant in the shape that broadcasts to the product's result.
    fn operand_shape(&self, len: usize) -> Vec<usize> {
        match &self.op {
            Op::Conv2d(c) if c.layout == Layout::Nchw && len > 1 => vec![len, 1, 1],
            _ => vec![len],
        }
    }

    /// Whether `shape` holds one value, or one a channel at the channel's place, for a result of rank `rank`.
    fn is_per_channel(&self, shape: &[usize], rank: usize) -> bool {
        let channel = match &self.op {
            Op::Conv2d(c) if c.layout == Layout::Nchw => 1,
            _ => rank - 1,
        };
        shape.iter().enumerate().all(|(i, &d)| {
            let axis = i + rank - shape.len().min(rank);
            d == 1 || (axis == channel && d == self.channels())
        }) && shape.len() <= rank
    }

    /// The integer product with its bias and `post`, or `None` where a bias or an accumulator could leave 32 bits. What
    /// comes before the last addition may: it wraps.
    fn emit(&self, out: &mut Graph, post: Vec<Step>, operand: ValueId, origin: &Origin) -> Result<Option<ValueId>> {
        let bias: Option<Vec<i32>> =
            self.bias.iter().zip(&self.offset).map(|(b, o)| i32::try_from(b - o).ok()).collect();
        let fits = |(b, (lo, hi)): (&i64, &(i64, i64))| {
            [lo, hi].iter().all(|end| b.checked_add(**end).is_some_and(|sum| i32::try_from(sum).is_ok()))
        };
        let exact = self.bias.iter().zip(&self.range).all(fits);
        let Some(bias) = bias.filter(|_| exact) else { return Ok(None) };
        let bias = out.add_const(Tensor::new([self.channels()], &bias), self.origin.clone());
        let mut op = self.op.clone();
        match &mut op {
            Op::Conv2d(c) => c.bias = true,
            Op::MatMul(m) => m.bias = true,
            _ => unreachable!("a product is one of the two"),
        }
        *op.post_mut().expect("products have an epilogue") = post;
        out.add_node(op, vec![self.x, self.w, bias, operand], join_origins([&self.origin, origin])).map(Some)
    }

    /// The product rounded to an integer type.
    pub fn requantise(
        &self,
        out: &mut Graph,
        q: QuantParams,
        dtype: DType,
        origin: &Origin,
    ) -> Result<Option<ValueId>> {
        let (min, max) = dtype.int_range().expect("a narrow integer type");
        let quantised = |bound: f32| requant::quantize(&mut Eval, q, min, max, bound.to_bits()) as i32;
        let (lo, hi) = (quantised(self.clamp.0), quantised(self.clamp.1));
        let scales: Vec<f32> = self.scales.iter().map(|s| s / q.scale.0).collect();
        if lo > hi || !scales.iter().all(|s| s.is_finite() && *s > 0.0) {
            return Ok(None);
        }
        let operand = out.add_const(Tensor::new(self.operand_shape(scales.len()), &scales), self.origin.clone());
        let step = Step::Requant { rounding: Rounding::F32HalfEven, zero: q.zero_point, lo, hi, dtype };
        self.emit(out, vec![step], operand, origin)
    }

    /// The product as `f32`.
    fn real(&self, out: &mut Graph) -> Result<Option<ValueId>> {
        let operand =
            out.add_const(Tensor::new(self.operand_shape(self.scales.len()), &self.scales), self.origin.clone());
        let mut steps = vec![Step::Cast(DType::F32), Step::Binary { op: Binary::Mul, swapped: false, dequant: None }];
        if self.clamp != (f32::NEG_INFINITY, f32::INFINITY) {
            steps.push(Step::Unary(Unary::Clip(F32(self.clamp.0), F32(self.clamp.1))));
        }
        self.emit(out, steps, operand, &self.origin)
    }

    /// Adds a real bias to the accumulators. `literal` are the integers it was dequantised from, with their scale.
    fn add_bias(&mut self, real: &[f32], literal: Option<Literal>) {
        let scale = |c: usize| self.scales[c.min(self.scales.len() - 1)] as f64;
        let at = |len: usize, c: usize| if len == 1 { 0 } else { c };
        let kept = literal.filter(|(_, scales)| {
            (0..self.bias.len()).all(|c| {
                let s = scales[at(scales.len(), c)] as f64;
                (s - scale(c)).abs() <= BIAS_SCALE_TOLERANCE * scale(c)
            })
        });
        let added: Vec<i64> = (0..self.bias.len())
            .map(|c| match &kept {
                Some((ints, _)) => ints[at(ints.len(), c)],
                None => (real[at(real.len(), c)] as f64 / scale(c)).round_ties_even() as i64,
            })
            .collect();
        self.bias.iter_mut().zip(added).for_each(|(b, a)| *b = b.saturating_add(a));
    }
}

/// A dequantised constant: its integers with the zero point taken off, and its scales.
struct Dequantised {
    axis: usize,
    shape: Vec<usize>,
    values: Vec<i64>,
    scales: Vec<f32>,
}

fn dequantised_constant(graph: &Graph, v: ValueId) -> Option<Dequantised> {
    let (Op::Dequantize { axis }, &[q, scale, zero]) = graph.node(v)? else { return None };
    let (q, scale, zero) = (graph.constant(q)?, graph.constant(scale)?, graph.constant(zero)?);
    let shape = q.shape().to_vec();
    let (scales, zeros) = (scale.to_f32(), zero.to_i64());
    let inner: usize = shape.iter().skip(axis + 1).product();
    let mut values = q.to_i64();
    for (i, v) in values.iter_mut().enumerate() {
        let channel = if zeros.len() == 1 { 0 } else { i / inner % shape[*axis] };
        *v -= zeros[channel];
    }
    Some(Dequantised { axis: *axis, shape, values, scales })
}

impl Integeriser {
    /// A convolution or matrix product: an integer one where both operands are quantised.
    pub(super) fn product(
        &mut self,
        out: &mut Graph,
        op: &Op,
        value: &Value,
        inputs: &[ValueId],
    ) -> Result<Option<ValueId>> {
        let Some(mut product) = self.start(out, op, value, inputs) else { return Ok(None) };
        let has_bias = match op {
            Op::Conv2d(c) => c.bias,
            Op::MatMul(m) => m.bias,
            _ => false,
        };
        if has_bias {
            match constant_real(out, inputs[2])? {
                Some((real, literal)) => product.add_bias(&real, literal),
                None => return Ok(None),
            }
        }
        self.pending(out, product)
    }

    /// The product of `inputs`, without its bias.
    fn start(&self, out: &mut Graph, op: &Op, value: &Value, inputs: &[ValueId]) -> Option<Product> {
        let (x, qx) = self.dequantised(out, inputs[0])?;
        let w = dequantised_constant(out, inputs[1])?;
        if !op.post()?.is_empty() || !narrow(out.ty(x).dtype) {
            return None;
        }
        let mut op = op.clone();
        let (channel_axis, channels) = match &mut op {
            Op::Conv2d(c) => {
                c.bias = false;
                c.pad_value = qx.zero_point;
                (0, w.shape[0])
            }
            Op::MatMul(m) => {
                m.bias = false;
                let rank = w.shape.len();
                let axis = if m.trans_b { rank - 2 } else { rank - 1 };
                // A batch of weight matrices has no channel that one scale could belong to.
                if w.shape[..rank - 2].iter().any(|&d| d != 1) {
                    return None;
                }
                (axis, w.shape[axis])
            }
            _ => return None,
        };
        if w.scales.len() != 1 && (w.axis != channel_axis || w.scales.len() != channels) {
            return None;
        }
        let weights: Vec<i8> = w.values.iter().map(|v| i8::try_from(*v).ok()).collect::<Option<_>>()?;
        let inner: usize = w.shape[channel_axis + 1..].iter().product();
        let mut offset = vec![0i64; channels];
        let mut range = vec![(0i64, 0i64); channels];
        let zero = qx.zero_point as i64;
        let (min, max) = out.ty(x).dtype.int_range().expect("a narrow integer type");
        for (i, v) in weights.iter().enumerate() {
            let (c, w) = (i / inner % channels, *v as i64);
            offset[c] += w * zero;
            let ends = [w * (min as i64 - zero), w * (max as i64 - zero)];
            range[c].0 += ends[0].min(ends[1]);
            range[c].1 += ends[0].max(ends[1]);
        }
        let scales: Vec<f32> = w.scales.iter().map(|s| qx.scale.0 * s).collect();
        if !scales.iter().all(|s| s.is_finite() && *s > 0.0) {
            return None;
        }
        let w = out.add_const(Tensor::new(w.shape, &weights), out.value(inputs[1]).origin.clone());
        let clamp = (f32::NEG_INFINITY, f32::INFINITY);
        Some(Product { op, x, w, scales, bias: vec![0; channels], offset, range, clamp, origin: value.origin.clone() })
    }

    /// Emits a product as `f32` and remembers it, so that a quantisation further on can take it over.
    fn pending(&mut self, out: &mut Graph, product: Product) -> Result<Option<ValueId>> {
        let Some(new) = product.real(out)? else { return Ok(None) };
        self.products.insert(new, product);
        Ok(Some(new))
    }

    /// A bias or an activation after a product.
    pub(super) fn extend_product(
        &mut self,
        out: &mut Graph,
        steps: &[Step],
        value: &Value,
        inputs: &[ValueId],
    ) -> Result<Option<ValueId>> {
        let [step] = steps else { return Ok(None) };
        let extended = match step {
            Step::Unary(Unary::Relu) => self.clamped(inputs[0], 0.0, f32::INFINITY),
            Step::Unary(Unary::Clip(lo, hi)) => self.clamped(inputs[0], lo.0, hi.0),
            Step::Binary { op: Binary::Add, dequant: None, .. } => {
                let (product, bias) = if self.products.contains_key(&inputs[0]) {
                    (inputs[0], inputs[1])
                } else {
                    (inputs[1], inputs[0])
                };
                self.biased(out, product, bias, value)?
            }
            _ => None,
        };
        let Some(mut product) = extended else { return Ok(None) };
        product.origin = join_origins([&product.origin, &value.origin]);
        self.pending(out, product)
    }

    fn clamped(&self, v: ValueId, lo: f32, hi: f32) -> Option<Product> {
        let mut product = self.products.get(&v)?.clone();
        let (from, to) = product.clamp;
        product.clamp = (from.max(lo).min(hi), to.min(hi).max(lo));
        (lo <= hi).then_some(product)
    }

    fn biased(&self, out: &Graph, v: ValueId, bias: ValueId, value: &Value) -> Result<Option<Product>> {
        let Some(product) = self.products.get(&v) else { return Ok(None) };
        let fits = product.clamp == (f32::NEG_INFINITY, f32::INFINITY)
            && &value.ty == out.ty(v)
            && product.is_per_channel(&out.ty(bias).shape, value.ty.rank());
        let Some((real, literal)) = constant_real(out, bias)?.filter(|_| fits) else { return Ok(None) };
        let mut product = product.clone();
        product.add_bias(&real, literal);
        Ok(Some(product))
    }
}

/// The integers of a dequantised constant, and their scales.
type Literal = (Vec<i64>, Vec<f32>);

/// The elements of a constant, and the integers with their scales where it is a dequantised one.
fn constant_real(out: &Graph, v: ValueId) -> Result<Option<(Vec<f32>, Option<Literal>)>> {
    if let Some(t) = out.constant(v) {
        return Ok(Some((t.to_f32(), None)));
    }
    let Some(d) = dequantised_constant(out, v) else { return Ok(None) };
    let Def::Node { op, inputs } = &out.value(v).def else { return Ok(None) };
    let tensors: Vec<&Tensor> = inputs.iter().filter_map(|i| out.constant(*i)).collect();
    let real = mcc_ir::ops::eval(op, &tensors, out.ty(v))?.to_f32();
    Ok(Some((real, Some((d.values, d.scales)))))
}
