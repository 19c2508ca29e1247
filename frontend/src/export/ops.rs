//! Operators as nodes.

use super::Exporter;
use super::message::{float, int, ints, text};
use super::steps::Current;
use crate::error::{Fault, Result, code};
use crate::proto::Attribute;
use mcc_ir::op::{
    Conv2d, CoordinateMode, Layout, MatMul, NearestMode, Op, PadMode, Pool2d, PoolKind, ReduceKind, Resize, ResizeMode,
    Step,
};
use mcc_ir::types::QuantParams;
use mcc_ir::{DType, Tensor, TensorType, ValueId};

/// Dimensions of NHWC in the order of NCHW, and the other way round.
const TO_NCHW: [i64; 4] = [0, 3, 1, 2];
const TO_NHWC: [i64; 4] = [0, 2, 3, 1];

pub(super) fn numbers(values: &[usize]) -> Vec<i64> {
    values.iter().map(|&v| v as i64).collect()
}

/// A tensor of one element without dimensions, as ONNX gives parameters of a whole tensor.
fn parameter(t: &Tensor) -> Tensor {
    if t.ty().elements() == 1 { t.reshaped([]) } else { t.clone() }
}

impl Exporter<'_> {
    /// Writes an operator and gives its result's name. `ty` is the type of its result.
    pub(super) fn operator(&mut self, op: &Op, inputs: &[ValueId], ty: &TensorType) -> Result<String> {
        let own = op.own_inputs().unwrap_or(inputs.len()).min(inputs.len());
        let (own, operands) = inputs.split_at(own);
        let name = match op {
            Op::Conv2d(o) => self.convolution(o, own)?,
            Op::ConvTranspose2d(o) => {
                let mut attributes = window(&o.stride, &o.pad, &o.dilation);
                attributes.extend([int("group", o.groups as i64), ints("output_padding", &numbers(&o.output_pad))]);
                // The weights of NHWC are [I, kh, kw, O]: transposed as activations are.
                let inputs = self.spatial(o.layout, own, 2);
                let y = self.emit("ConvTranspose", &inputs, attributes);
                self.back(o.layout, y)
            }
            Op::MatMul(o) => self.product(o, own)?,
            Op::Pool2d(o) => self.pool(o, own[0])?,
            Op::Reduce(o) => {
                let x = self.real(own[0], o.dequant)?;
                let axes = self.list("axes", numbers(&o.axes));
                let op_type = match o.kind {
                    ReduceKind::Sum => "ReduceSum",
                    ReduceKind::Mean => "ReduceMean",
                    ReduceKind::Max => "ReduceMax",
                    ReduceKind::Min => "ReduceMin",
                    ReduceKind::Prod => "ReduceProd",
                };
                self.emit(op_type, &[x, axes], vec![int("keepdims", o.keepdims as i64)])
            }
            Op::Map(_) => self.name(own[0]),
            Op::Softmax(o) => {
                let x = self.real(own[0], o.dequant)?;
                self.emit(if o.log { "LogSoftmax" } else { "Softmax" }, &[x], vec![int("axis", o.axis as i64)])
            }
            Op::LayerNorm(o) => {
                let attributes = vec![int("axis", o.axis as i64), float("epsilon", o.epsilon.0)];
                self.plain("LayerNormalization", own, attributes)
            }
            Op::Recurrent(o) => self.recurrent(o, own)?,
            Op::BatchNorm { epsilon } => self.plain("BatchNormalization", own, vec![float("epsilon", epsilon.0)]),
            Op::Reshape { shape } => {
                let inputs = [self.name(own[0]), self.list("shape", numbers(shape))];
                let zero = shape.contains(&0);
                self.emit("Reshape", &inputs, if zero { vec![int("allowzero", 1)] } else { vec![] })
            }
            Op::Transpose { perm } => self.plain("Transpose", own, vec![ints("perm", &numbers(perm))]),
            Op::Concat { axis } => self.plain("Concat", own, vec![int("axis", *axis as i64)]),
            Op::Slice { start, step, shape } => self.slice(own[0], start, step, shape),
            Op::Pad { before, after, mode } => {
                let mut inputs = vec![self.name(own[0])];
                inputs.push(self.list("pads", numbers(before).into_iter().chain(numbers(after))));
                let mode = match mode {
                    PadMode::Constant => {
                        inputs.push(self.name(own[1]));
                        "constant"
                    }
                    PadMode::Reflect => "reflect",
                    PadMode::Edge => "edge",
                };
                self.emit("Pad", &inputs, vec![text("mode", mode)])
            }
            Op::Gather { axis } => self.plain("Gather", own, vec![int("axis", *axis as i64)]),
            Op::Broadcast { shape } => {
                let inputs = [self.name(own[0]), self.list("shape", numbers(shape))];
                self.emit("Expand", &inputs, vec![])
            }
            Op::Where => self.plain("Where", own, vec![]),
            Op::Resize(o) => self.resize(o, own[0])?,
            Op::ArgMax { axis, keepdims, last } => {
                let flag = |name: &str, on: bool| int(name, on as i64);
                let attributes =
                    vec![int("axis", *axis as i64), flag("keepdims", *keepdims), flag("select_last_index", *last)];
                self.plain("ArgMax", own, attributes)
            }
            Op::Quantize { axis, dtype } => self.linear("QuantizeLinear", own, *axis, *dtype)?,
            Op::Dequantize { axis } => {
                let dtype = self.graph.ty(own[0]).dtype;
                self.linear("DequantizeLinear", own, *axis, dtype)?
            }
        };
        let steps = op.post().map_or(&[][..], Vec::as_slice);
        let started = self.start(op, own, ty, steps)?;
        Ok(self.steps(steps, Current { name, ty: started }, operands)?.name)
    }

    /// The type that the steps of an operator start from.
    fn start(&self, op: &Op, own: &[ValueId], ty: &TensorType, steps: &[Step]) -> Result<TensorType> {
        if steps.is_empty() {
            return Ok(ty.clone());
        }
        let mut bare = op.clone();
        if let (Some(post), false) = (bare.post_mut(), matches!(op, Op::Map(_))) {
            post.clear();
            let types: Vec<&TensorType> = own.iter().map(|v| self.graph.ty(*v)).collect();
            return Ok(mcc_ir::ops::infer(&bare, &types)?);
        }
        Ok(self.graph.ty(own[0]).clone())
    }

    /// An operator that takes its inputs as they are.
    fn plain(&mut self, op_type: &str, own: &[ValueId], attributes: Vec<Attribute>) -> String {
        let inputs: Vec<String> = own.iter().map(|v| self.name(*v)).collect();
        self.emit(op_type, &inputs, attributes)
    }

    /// An input as real numbers.
    fn real(&mut self, v: ValueId, dequant: Option<QuantParams>) -> Result<String> {
        let name = self.name(v);
        match dequant {
            Some(q) => self.dequantize(name, self.graph.ty(v).dtype, q),
            None => Ok(name),
        }
    }

    /// The inputs of a spatial operator, the first `spatial` of which have its layout, as ONNX wants them.
    fn spatial(&mut self, layout: Layout, own: &[ValueId], spatial: usize) -> Vec<String> {
        let mut names: Vec<String> = own.iter().map(|v| self.name(*v)).collect();
        if layout == Layout::Nhwc {
            for name in &mut names[..spatial] {
                *name = self.emit("Transpose", &[std::mem::take(name)], vec![ints("perm", &TO_NCHW)]);
            }
        }
        names
    }

    /// A result in the layout of the operator.
    fn back(&mut self, layout: Layout, name: String) -> String {
        match layout {
            Layout::Nchw => name,
            Layout::Nhwc => self.emit("Transpose", &[name], vec![ints("perm", &TO_NHWC)]),
        }
    }

    /// The operator of products of two inputs, for floats or for integers; `None` where it has none.
    fn products(
        &self,
        own: &[ValueId],
        float: &'static str,
        integer: &'static str,
        whole: bool,
    ) -> Result<&'static str> {
        match self.graph.ty(own[0]).dtype {
            DType::F32 => Ok(float),
            DType::I8 | DType::U8 if whole => Ok(integer),
            dtype => {
                let reason = format!("it multiplies {dtype} in a form of its own");
                Err(Fault::new(code::EXPORT, reason, "export the graph before the integer pass"))
            }
        }
    }

    fn convolution(&mut self, o: &Conv2d, own: &[ValueId]) -> Result<String> {
        let op_type = self.products(own, "Conv", "ConvInteger", !o.bias && o.pad_value == 0)?;
        let mut attributes = window(&o.stride, &o.pad, &o.dilation);
        attributes.push(int("group", o.groups as i64));
        let inputs = self.spatial(o.layout, own, 2);
        let y = self.emit(op_type, &inputs, attributes);
        Ok(self.back(o.layout, y))
    }

    fn product(&mut self, o: &MatMul, own: &[ValueId]) -> Result<String> {
        let op_type = self.products(own, "MatMul", "MatMulInteger", !o.bias)?;
        let (rank_a, rank_b) = (self.graph.ty(own[0]).rank(), self.graph.ty(own[1]).rank());
        if op_type == "MatMul" && rank_a == 2 && rank_b == 2 && (o.bias || o.trans_b) {
            return Ok(self.plain("Gemm", own, vec![int("transB", o.trans_b as i64)]));
        }
        let mut names: Vec<String> = own.iter().map(|v| self.name(*v)).collect();
        if o.trans_b {
            let mut perm: Vec<usize> = (0..rank_b).collect();
            perm.swap(rank_b - 2, rank_b - 1);
            names[1] = self.emit("Transpose", &names[1..2], vec![ints("perm", &numbers(&perm))]);
        }
        let y = self.emit(op_type, &names[..2], vec![]);
        Ok(if o.bias { self.emit("Add", &[y, names[2].clone()], vec![]) } else { y })
    }

    fn pool(&mut self, o: &Pool2d, x: ValueId) -> Result<String> {
        let mut name = self.real(x, o.dequant)?;
        if o.layout == Layout::Nhwc {
            name = self.emit("Transpose", &[name], vec![ints("perm", &TO_NCHW)]);
        }
        let mut attributes = window(&o.stride, &o.pad, &o.dilation);
        attributes.push(ints("kernel_shape", &numbers(&o.kernel)));
        let op_type = match o.kind {
            PoolKind::Max => "MaxPool",
            PoolKind::Average { count_include_pad } => {
                attributes.push(int("count_include_pad", count_include_pad as i64));
                "AveragePool"
            }
        };
        if (0..4).any(|i| o.pad[i] > (o.kernel[i % 2] - 1) * o.dilation[i % 2]) {
            let reason = format!("its padding {:?} reaches the size of its kernel {:?}", o.pad, o.kernel);
            return Err(Fault::new(code::EXPORT, reason, "ONNX has no such form"));
        }
        let y = self.emit(op_type, &[name], attributes);
        Ok(self.back(o.layout, y))
    }

    pub(super) fn slice(&mut self, x: ValueId, start: &[usize], step: &[isize], shape: &[usize]) -> String {
        let ends = start.iter().zip(step).zip(shape).map(|((&start, &step), &n)| {
            let (start, step) = (start as i64, step as i64);
            match n as i64 {
                0 => start,
                // An end before the first element is not an index from the end.
                n => match start + (n - 1) * step + step.signum() {
                    end if end < 0 => i64::MIN,
                    end => end,
                },
            }
        });
        let ends: Vec<i64> = ends.collect();
        let inputs = [
            self.name(x),
            self.list("starts", numbers(start)),
            self.list("ends", ends),
            self.list("axes", 0..shape.len() as i64),
            self.list("steps", step.iter().map(|&s| s as i64)),
        ];
        self.emit("Slice", &inputs, vec![])
    }

    fn resize(&mut self, o: &Resize, x: ValueId) -> Result<String> {
        let from = self.graph.ty(x).shape.clone();
        let by_scales =
            from.iter().zip(&o.scales).zip(&o.shape).all(|((&n, s), &m)| (n as f32 * s.0).floor() == m as f32);
        let by_sizes = from.iter().zip(&o.scales).zip(&o.shape).all(|((&n, s), &m)| m as f32 / n as f32 == s.0);
        let mut inputs = vec![self.name(x), String::new()];
        if by_scales {
            let scales: Vec<f32> = o.scales.iter().map(|s| s.0).collect();
            inputs.push(self.constant("scales", &Tensor::new([scales.len()], &scales)));
        } else if by_sizes {
            inputs.extend([String::new(), self.list("sizes", numbers(&o.shape))]);
        } else {
            let reason = format!("it resizes {from:?} to {:?} by factors that do not give that", o.shape);
            return Err(Fault::new(code::EXPORT, reason, "ONNX has no such form"));
        }
        let coordinates = match o.coordinates {
            CoordinateMode::HalfPixel => "half_pixel",
            CoordinateMode::PytorchHalfPixel => "pytorch_half_pixel",
            CoordinateMode::AlignCorners => "align_corners",
            CoordinateMode::Asymmetric => "asymmetric",
        };
        let mut attributes = vec![text("coordinate_transformation_mode", coordinates)];
        match o.mode {
            ResizeMode::Linear => attributes.push(text("mode", "linear")),
            ResizeMode::Nearest(rounding) => {
                let rounding = match rounding {
                    NearestMode::RoundPreferFloor => "round_prefer_floor",
                    NearestMode::RoundPreferCeil => "round_prefer_ceil",
                    NearestMode::Floor => "floor",
                    NearestMode::Ceil => "ceil",
                };
                attributes.extend([text("mode", "nearest"), text("nearest_mode", rounding)]);
            }
        }
        Ok(self.emit("Resize", &inputs, attributes))
    }

    /// QuantizeLinear or DequantizeLinear, from or to `dtype`.
    fn linear(&mut self, op_type: &str, own: &[ValueId], axis: usize, dtype: DType) -> Result<String> {
        let mut inputs = vec![self.name(own[0])];
        let mut per_axis = false;
        for (v, what) in [(own[1], "scale"), (own[2], "zero_point")] {
            let constant = self.graph.constant(v).map(parameter);
            per_axis |= constant.as_ref().is_some_and(|t| !t.shape().is_empty());
            let name = match constant {
                // Integers of 32 bits have no zero point.
                Some(_) if what == "zero_point" && dtype == DType::I32 => continue,
                Some(t) if t.shape().is_empty() => self.constant(what, &t),
                _ => self.name(v),
            };
            inputs.push(name);
        }
        let mut attributes = if per_axis { vec![int("axis", axis as i64)] } else { vec![] };
        if op_type == "QuantizeLinear" && inputs.len() == 2 {
            let to = super::message::data_type(dtype).map_or(0, i64::from);
            attributes.push(int("output_dtype", to));
        }
        Ok(self.emit(op_type, &inputs, attributes))
    }
}

/// Dilations are left out where they say nothing: integer average pooling of ONNX Runtime refuses them.
fn window(stride: &[usize; 2], pad: &[usize; 4], dilation: &[usize; 2]) -> Vec<Attribute> {
    let mut attributes = vec![ints("strides", &numbers(stride)), ints("pads", &numbers(pad))];
    if *dilation != [1, 1] {
        attributes.push(ints("dilations", &numbers(dilation)));
    }
    attributes
}
