//! Epilogues that kernels apply before they store.

use super::bytes::ByteEpilogue;
use super::elementwise::{self, Elements};
use super::floats::FloatEpilogue;
use mcc_ir::DType;
use mcc_ir::catalogue::KernelSpec;
use mcc_ir::op::{Binary, Rounding, Step, Unary};
use mcc_ir::types::QuantParams;
use std::ops::Range;

/// An epilogue that kernels apply.
pub trait Finish: Send + Sync + 'static {
    type Epilogue;

    /// Which operand of the operator's epilogue is a residual.
    fn residual(&self) -> Option<usize>;

    /// For an output and the extra argument.
    fn at(&self, out: *mut u8, extra: *const u8) -> Self::Epilogue;

    /// Applies what is left of the epilogue to `count` elements of the output from `first` on, just computed.
    ///
    /// # Safety
    /// The machine must have the level that this was made for; the elements lie inside the output.
    unsafe fn after(&self, _out: *mut u8, _first: usize, _count: usize) {}

    /// As [`Finish::after`], for some channels of some pixels of an output of so many channels.
    ///
    /// # Safety
    /// As [`Finish::after`].
    unsafe fn after_pixels(&self, out: *mut u8, channels: usize, pixels: Range<usize>, of: Range<usize>) {
        // SAFETY: the caller's contract.
        unsafe {
            if of.len() == channels {
                return self.after(out, pixels.start * channels, pixels.len() * channels);
            }
            for pixel in pixels {
                self.after(out, pixel * channels + of.start, of.len());
            }
        }
    }
}

/// Bounds that clamp nothing.
pub const ALL: (f32, f32) = (f32::NEG_INFINITY, f32::INFINITY);

/// One clamp is what the kernels have: the bounds of a step, where there were none and they are in order.
fn clamp(bounds: &mut (f32, f32), step: &Step) -> Option<()> {
    let (lo, hi) = match step {
        Step::Unary(Unary::Relu) => (0.0, f32::INFINITY),
        Step::Unary(Unary::Clip(lo, hi)) => (lo.0, hi.0),
        _ => return None,
    };
    (*bounds == ALL && lo <= hi).then(|| *bounds = (lo, hi))
}

/// Whether operand `i` of the epilogue is a tensor of the output's shape.
fn is_whole(spec: &KernelSpec<'_>, i: usize) -> bool {
    let ty = spec.op.own_inputs().and_then(|own| spec.arg_types.get(own + i));
    ty.is_some_and(|ty| ty.shape == spec.out_type.shape)
}

fn dtype(spec: &KernelSpec<'_>, i: usize) -> Option<DType> {
    Some(spec.arg_types.get(spec.op.own_inputs()? + i)?.dtype)
}

/// An epilogue of `f32` sums: perhaps a residual added, then a clamp; then functions of what is in the output.
#[derive(Clone, Debug)]
pub struct FusedFloat {
    pub residual: bool,
    pub bounds: (f32, f32),
    rest: Vec<Step>,
    chain: elementwise::InPlace,
}

impl FusedFloat {
    /// Sums as they are.
    pub fn none<S: Elements>() -> FusedFloat {
        FusedFloat { residual: false, bounds: ALL, rest: vec![], chain: S::in_place }
    }

    /// The operator's epilogue, where it is of this form.
    pub fn of<S: Elements>(spec: &KernelSpec<'_>) -> Option<FusedFloat> {
        let mut fused = FusedFloat::none::<S>();
        for (i, step) in spec.op.post()?.iter().enumerate() {
            match step {
                Step::Binary { op: Binary::Add, dequant: None, .. } if i == 0 => {
                    fused.residual = is_whole(spec, 0) && dtype(spec, 0) == Some(DType::F32);
                    fused.residual.then_some(())?;
                }
                _ if fused.rest.is_empty() && clamp(&mut fused.bounds, step).is_some() => {}
                Step::Unary(_) if elementwise::step_cycles(step).is_some() => fused.rest.push(step.clone()),
                _ => return None,
            }
        }
        Some(fused)
    }
}

impl Finish for FusedFloat {
    type Epilogue = FloatEpilogue;

    fn residual(&self) -> Option<usize> {
        self.residual.then_some(0)
    }

    fn at(&self, out: *mut u8, extra: *const u8) -> FloatEpilogue {
        FloatEpilogue::new(self, out, extra)
    }

    unsafe fn after(&self, out: *mut u8, first: usize, count: usize) {
        if !self.rest.is_empty() {
            // SAFETY: the caller's contract.
            unsafe { (self.chain)(&self.rest, out.cast::<f32>().add(first), count) }
        }
    }
}

/// Clamps a real number in units of the output, rounds it half to even and adds the zero point.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Requantise {
    pub zero: i32,
    pub lo: f32,
    pub hi: f32,
}

impl Requantise {
    pub fn new(zero: i32, lo: i32, hi: i32) -> Requantise {
        Requantise { zero, lo: (lo - zero) as f32, hi: (hi - zero) as f32 }
    }
}

/// A residual added to a quantised value: both become real, are added, clamped, divided by the output's scale and
/// quantised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ByteAdd {
    pub zero: i32,
    pub scale: f32,
    /// Of the residual, whose bytes are signed or not.
    pub other_zero: i32,
    pub other_scale: f32,
    pub signed: bool,
    pub bounds: (f32, f32),
    pub divisor: f32,
    pub to: Requantise,
}

/// An epilogue of `i32` sums that gives bytes: the product with a scale a channel, rounded half to even, and perhaps a
/// residual.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FusedBytes {
    pub to: Requantise,
    pub add: Option<ByteAdd>,
}

impl FusedBytes {
    /// The operator's epilogue, where it is of this form, and its scales, one a channel.
    pub fn of(spec: &KernelSpec<'_>) -> Option<(FusedBytes, Vec<f32>)> {
        let (first, rest) = spec.op.post()?.split_first()?;
        let Step::Requant { rounding: Rounding::F32HalfEven, zero, lo, hi, dtype: to } = first else { return None };
        if !matches!(to, DType::I8 | DType::U8) {
            return None;
        }
        let add = if rest.is_empty() { None } else { Some(ByteAdd::of(rest, spec)?) };
        let channels = *spec.out_type.shape.last()?;
        let scales = spec.consts[spec.op.own_inputs()?]?;
        let scales = match (scales.ty().elements(), scales.shape().last()) {
            (1, _) => vec![scales.to_f32()[0]; channels],
            (n, Some(&last)) if n == channels && last == channels => scales.to_f32(),
            _ => return None,
        };
        Some((FusedBytes { to: Requantise::new(*zero, *lo, *hi), add }, scales))
    }
}

impl ByteAdd {
    /// `rest` follows the requantisation.
    fn of(rest: &[Step], spec: &KernelSpec<'_>) -> Option<ByteAdd> {
        let [Step::Dequant(q), Step::Binary { op: Binary::Add, dequant: Some(other), .. }, rest @ ..] = rest else {
            return None;
        };
        let (Step::Quant { q: QuantParams { scale, zero_point }, lo, hi, dtype: to }, activation) =
            rest.split_last()?
        else {
            return None;
        };
        let signed = match dtype(spec, 1)? {
            DType::I8 => true,
            DType::U8 => false,
            _ => return None,
        };
        let mut bounds = ALL;
        for step in activation {
            clamp(&mut bounds, step)?;
        }
        (is_whole(spec, 1) && matches!(to, DType::I8 | DType::U8)).then(|| ByteAdd {
            zero: q.zero_point,
            scale: q.scale.0,
            other_zero: other.zero_point,
            other_scale: other.scale.0,
            signed,
            bounds,
            divisor: scale.0,
            to: Requantise::new(*zero_point, *lo, *hi),
        })
    }
}

/// How sums of bytes are stored: requantised, or as they are.
#[derive(Clone, Debug, Default)]
pub struct ByteFinish {
    pub fused: Option<FusedBytes>,
    /// One a channel, up to whole vectors; none where sums are stored.
    pub scales: Vec<f32>,
}

impl Finish for ByteFinish {
    type Epilogue = ByteEpilogue;

    fn residual(&self) -> Option<usize> {
        self.fused.and_then(|f| f.add).map(|_| 1)
    }

    fn at(&self, out: *mut u8, extra: *const u8) -> ByteEpilogue {
        ByteEpilogue { out, residual: extra, scales: self.scales.as_ptr(), fused: self.fused }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd::Portable;
    use mcc_ir::op::Op;
    use mcc_ir::types::F32;
    use mcc_ir::{Tensor, TensorType};

    /// Whether there is a residual, the bounds, and the number of steps left.
    fn fused(post: Vec<Step>, operand: &[usize]) -> Option<(bool, (f32, f32), usize)> {
        let out = TensorType::new(DType::F32, [2, 3]);
        let op = Op::Map(post);
        let args = [out.clone(), TensorType::new(DType::F32, operand)];
        let spec = KernelSpec { op: &op, arg_types: &args, consts: &[None, None], out_type: &out };
        FusedFloat::of::<Portable>(&spec).map(|f| (f.residual, f.bounds, f.rest.len()))
    }

    #[test]
    fn residual_then_one_clamp() {
        let add = || Step::Binary { op: Binary::Add, swapped: true, dequant: None };
        let relu = || Step::Unary(Unary::Relu);
        let clip = || Step::Unary(Unary::Clip(F32(0.0), F32(6.0)));
        let some = |residual, bounds| Some((residual, bounds, 0));
        assert_eq!(fused(vec![], &[]), some(false, ALL));
        assert_eq!(fused(vec![add(), clip()], &[2, 3]), some(true, (0.0, 6.0)));
        assert_eq!(fused(vec![relu()], &[]), some(false, (0.0, f32::INFINITY)));
        assert_eq!(fused(vec![add()], &[3]), None);
        assert_eq!(fused(vec![relu(), add()], &[2, 3]), None);
        assert_eq!(fused(vec![relu(), clip()], &[]), Some((false, (0.0, f32::INFINITY), 1)));
        assert_eq!(fused(vec![Step::Unary(Unary::Clip(F32(1.0), F32(0.0)))], &[]), Some((false, ALL, 1)));
        assert_eq!(fused(vec![Step::Unary(Unary::Tanh), relu()], &[]), Some((false, ALL, 2)));
        assert_eq!(fused(vec![Step::Cast(DType::F32)], &[]), None);
    }

    #[test]
    fn bytes_by_a_scale_a_channel_or_one_for_all() {
        let out = TensorType::new(DType::I8, [2, 3]);
        let of = |post: Vec<Step>, scales: Tensor, residual: DType| {
            let args = [TensorType::new(DType::I32, [2, 3]), scales.ty().clone(), TensorType::new(residual, [2, 3])];
            let consts = [None, Some(&scales), None];
            let op = Op::Map(post);
            FusedBytes::of(&KernelSpec { op: &op, arg_types: &args, consts: &consts, out_type: &out })
        };
        let requant = |dtype| Step::Requant { rounding: Rounding::F32HalfEven, zero: -3, lo: -100, hi: 100, dtype };
        let q = |scale, zero_point| QuantParams { scale: F32(scale), zero_point };
        let add = Step::Binary { op: Binary::Add, swapped: false, dequant: Some(q(0.25, 7)) };
        let quant = Step::Quant { q: q(2.0, 1), lo: 0, hi: 9, dtype: DType::I8 };
        let scales = Tensor::new([3], &[1f32, 2.0, 3.0]);
        let to = Requantise { zero: -3, lo: -97.0, hi: 103.0 };
        let plain = of(vec![requant(DType::I8)], scales.clone(), DType::I8);
        assert_eq!(plain, Some((FusedBytes { to, add: None }, vec![1.0, 2.0, 3.0])));
        let one = of(vec![requant(DType::I8)], Tensor::scalar(4.0), DType::I8);
        assert_eq!(one.unwrap().1, [4.0; 3]);
        assert_eq!(of(vec![requant(DType::I16)], scales.clone(), DType::I8), None);
        assert_eq!(of(vec![requant(DType::I8)], Tensor::new([2, 1], &[1f32, 2.0]), DType::I8), None);
        let steps = vec![requant(DType::I8), Step::Dequant(q(0.5, 2)), add, Step::Unary(Unary::Relu), quant];
        let found = of(steps.clone(), scales.clone(), DType::U8).unwrap().0.add.unwrap();
        assert_eq!((found.zero, found.scale, found.other_zero, found.other_scale), (2, 0.5, 7, 0.25));
        assert_eq!((found.signed, found.bounds, found.divisor), (false, (0.0, f32::INFINITY), 2.0));
        assert_eq!(found.to, Requantise { zero: 1, lo: -1.0, hi: 8.0 });
        assert_eq!(of(steps[..3].to_vec(), scales.clone(), DType::U8), None);
        assert_eq!(of(steps, scales, DType::I32), None);
    }
}
