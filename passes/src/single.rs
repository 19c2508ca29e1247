//! `single-requant`: one rounding in integers instead of one in `f32`.
//!
//! [`Rounding::F32HalfEven`] becomes [`Rounding::Single`] where weights, bias and scales are constants: the largest
//! accumulator is then known, and with it the shift. A few results in a hundred thousand differ by one, where the real
//! product is next to a tie. It pays where there is no floating-point unit.

use crate::error::{Error, Result};
use crate::pass::{Changed, Class, Pass, PassCx, Requant};
use mcc_ir::dtype::DType;
use mcc_ir::graph::{Def, Graph, ValueId};
use mcc_ir::op::{Op, Rounding, Step};
use mcc_ir::requant::single_multipliers;
use mcc_ir::{Result as IrResult, Tensor};

pub struct SingleRequant;

impl Pass for SingleRequant {
    fn name(&self) -> &'static str {
        "single-requant"
    }
    fn summary(&self) -> &'static str {
        "round products once, in integers instead of f32 (--requant fast only)"
    }
    fn class(&self) -> Class {
        Class::Lossy
    }
    fn wanted(&self, cx: &PassCx<'_>) -> bool {
        cx.requant == Requant::Fast
    }
    fn run(&self, graph: &mut Graph, _: &PassCx<'_>) -> Result<Changed> {
        let mut changed = Changed::No;
        let new = graph.rebuild(|out, _, value, inputs| {
            if let Def::Node { op, .. } = &value.def
                && let Some((op, multipliers)) = single(out, op, inputs)
            {
                changed = Changed::Yes;
                let at = op.own_inputs().expect("products have a fixed number of inputs");
                let multipliers = out.add_const(multipliers, out.value(inputs[at]).origin.clone());
                let mut inputs = inputs.to_vec();
                inputs[at] = multipliers;
                return out.add_node(op, inputs, value.origin.clone());
            }
            out.copy_value(value, inputs)
        });
        // The second time drops the scales.
        let new: IrResult<Graph> =
            new.and_then(|new| new.rebuild(|out, _, value, inputs| out.copy_value(value, inputs)));
        *graph = new.map_err(|source| Error::Pass { pass: self.name(), source })?;
        Ok(changed)
    }
}

/// A product with the other rounding, and its multipliers; `None` where it has none or its accumulators are not bounded.
fn single(graph: &Graph, op: &Op, inputs: &[ValueId]) -> Option<(Op, Tensor)> {
    let Step::Requant { rounding: Rounding::F32HalfEven, .. } = op.post()?.first()? else { return None };
    let scales = graph.constant(*inputs.get(op.own_inputs()?)?)?;
    let reals: Vec<f64> = scales.to_f32().into_iter().map(f64::from).collect();
    let (shift, multipliers) = single_multipliers(&reals, bound(graph, op, inputs)?)?;
    let mut op = op.clone();
    let Some(Step::Requant { rounding, .. }) = op.post_mut()?.first_mut() else { return None };
    *rounding = Rounding::Single { shift };
    Some((op, Tensor::new(scales.shape(), &multipliers)))
}

/// The largest magnitude that an accumulator of an integer product can have.
fn bound(graph: &Graph, op: &Op, inputs: &[ValueId]) -> Option<u32> {
    let limit = match graph.ty(inputs[0]).dtype {
        DType::I8 => 128,
        DType::U8 => 255,
        DType::I16 => 32_768,
        _ => return None,
    };
    let weights = graph.constant(inputs[1]).filter(|w| w.dtype() == DType::I8)?;
    let rank = weights.shape().len();
    let (axis, bias) = match op {
        Op::Conv2d(c) => (0, c.bias),
        Op::MatMul(m) if rank >= 2 => (rank - if m.trans_b { 2 } else { 1 }, m.bias),
        _ => return None,
    };
    let channels = weights.shape()[axis];
    let inner: usize = weights.shape()[axis + 1..].iter().product();
    let mut most = vec![0u64; channels];
    for (i, w) in weights.to_i64().into_iter().enumerate() {
        most[i / inner % channels] += w.unsigned_abs() * limit;
    }
    if bias {
        let bias = graph.constant(inputs[2])?.to_i64();
        (bias.len() == channels).then_some(())?;
        most.iter_mut().zip(bias).for_each(|(m, b)| *m += b.unsigned_abs());
    }
    u32::try_from(most.into_iter().max()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcc_ir::graph::Origin;
    use mcc_ir::op::MatMul;
    use mcc_ir::{Target, TensorType, eval, text};

    /// A product of `rows` with constant or given weights, requantised by many scales.
    fn product(constant: bool) -> Graph {
        let mut graph = Graph::new("product");
        let x = graph.add_input("x", TensorType::new(DType::I8, [64, 9]));
        let w: Vec<i8> = (0..40 * 9).map(|i| (i * 89 % 255 - 127) as i8).collect();
        let w = match constant {
            true => graph.add_const(Tensor::new([40, 9], &w), Origin::default()),
            false => graph.add_input("w", TensorType::new(DType::I8, [40, 9])),
        };
        let bias: Vec<i32> = (0..40).map(|i| i * 300 - 6000).collect();
        let scales: Vec<f32> = (0..40).map(|i| 0.0007 + i as f32 * 0.000_031).collect();
        let bias = graph.add_const(Tensor::new([40], &bias), Origin::default());
        let scales = graph.add_const(Tensor::new([40], &scales), Origin::default());
        let step = Step::Requant { rounding: Rounding::F32HalfEven, zero: -3, lo: -128, hi: 127, dtype: DType::I8 };
        let op = Op::MatMul(MatMul { trans_b: true, bias: true, post: vec![step] });
        let y = graph.add_node(op, vec![x, w, bias, scales], Origin::default()).unwrap();
        graph.add_output("y", y);
        graph
    }

    fn run(graph: &mut Graph) -> Changed {
        let target = Target::parse("name = 'core'\ndescription = ''\nbackend = 'c'\nalignment = 8").unwrap();
        crate::pass::run(&SingleRequant, graph, &PassCx::quiet(&target)).unwrap()
    }

    #[test]
    fn few_results_differ_and_by_one() {
        let exact = product(true);
        let mut fast = exact.clone();
        assert_eq!(run(&mut fast), Changed::Yes);
        let (mut differing, mut all) = (0, 0);
        for seed in 0..20 {
            let x: Vec<i8> = (0..64 * 9).map(|i| ((i * 7919 + seed * 104_729) % 256 - 128) as i8).collect();
            let x = [Tensor::new([64, 9], &x)];
            let (a, b) = (eval::run(&exact, &x).unwrap(), eval::run(&fast, &x).unwrap());
            for (a, b) in a[0].to_i64().into_iter().zip(b[0].to_i64()) {
                assert!((a - b).abs() <= 1, "{a} and {b}");
                differing += (a != b) as usize;
                all += 1;
            }
        }
        assert!(differing * 1000 < all, "{differing} of {all} differ");
    }

    #[test]
    fn unbounded_accumulators_keep_their_rounding() {
        let mut graph = product(false);
        assert_eq!(run(&mut graph), Changed::No);
        assert_eq!(text::print(&graph), text::print(&product(false)));
    }
}
