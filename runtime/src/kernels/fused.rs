//! Epilogues that kernels apply before they store.

use mcc_ir::DType;
use mcc_ir::catalogue::KernelSpec;
use mcc_ir::op::{Binary, Step, Unary};

/// An epilogue of `f32` sums: perhaps a residual of the output's shape added, then a clamp.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fused {
    pub residual: bool,
    pub bounds: (f32, f32),
}

impl Default for Fused {
    fn default() -> Fused {
        Fused { residual: false, bounds: (f32::NEG_INFINITY, f32::INFINITY) }
    }
}

impl Fused {
    /// The operator's epilogue, where it is of this form.
    pub fn of(post: &[Step], spec: &KernelSpec<'_>) -> Option<Fused> {
        let mut fused = Fused::default();
        let residual = spec.op.own_inputs().and_then(|own| spec.arg_types.get(own));
        for (i, step) in post.iter().enumerate() {
            match step {
                Step::Binary { op: Binary::Add, dequant: None, .. } if i == 0 => {
                    let ty = residual?;
                    if ty.dtype != DType::F32 || ty != spec.out_type {
                        return None;
                    }
                    fused.residual = true;
                }
                Step::Unary(Unary::Relu) => fused.clamp(0.0, f32::INFINITY)?,
                Step::Unary(Unary::Clip(lo, hi)) => fused.clamp(lo.0, hi.0)?,
                _ => return None,
            }
        }
        Some(fused)
    }

    /// One clamp is what the kernels have; `max(lo, min(hi, v))` of proper bounds.
    fn clamp(&mut self, lo: f32, hi: f32) -> Option<()> {
        let none = self.bounds == Fused::default().bounds;
        (none && lo <= hi).then(|| self.bounds = (lo, hi))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcc_ir::TensorType;
    use mcc_ir::op::Op;
    use mcc_ir::types::F32;

    fn fused(post: Vec<Step>, operand: &[usize]) -> Option<Fused> {
        let out = TensorType::new(DType::F32, [2, 3]);
        let op = Op::Map(post.clone());
        let args = [out.clone(), TensorType::new(DType::F32, operand)];
        Fused::of(&post, &KernelSpec { op: &op, arg_types: &args, consts: &[None, None], out_type: &out })
    }

    #[test]
    fn residual_then_one_clamp() {
        let add = || Step::Binary { op: Binary::Add, swapped: true, dequant: None };
        let relu = || Step::Unary(Unary::Relu);
        let clip = || Step::Unary(Unary::Clip(F32(0.0), F32(6.0)));
        let (none, up) = (f32::NEG_INFINITY, f32::INFINITY);
        let some = |residual, bounds| Some(Fused { residual, bounds });
        assert_eq!(fused(vec![], &[]), some(false, (none, up)));
        assert_eq!(fused(vec![add(), clip()], &[2, 3]), some(true, (0.0, 6.0)));
        assert_eq!(fused(vec![relu()], &[]), some(false, (0.0, up)));
        assert_eq!(fused(vec![add()], &[3]), None);
        assert_eq!(fused(vec![relu(), add()], &[2, 3]), None);
        assert_eq!(fused(vec![relu(), clip()], &[]), None);
        assert_eq!(fused(vec![Step::Unary(Unary::Clip(F32(1.0), F32(0.0)))], &[]), None);
        assert_eq!(fused(vec![Step::Unary(Unary::Tanh)], &[]), None);
    }
}
