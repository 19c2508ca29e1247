//! Implementations of heavy kernels: convolutions and matrix products.
//!
//! A kernel here computes accumulators, and compiled code finishes them by the operator's epilogue. The output is cut
//! along its leading dimensions into equal windows (an image row, a matrix); each call computes one window, into scratch
//! memory, or into the output itself where the epilogue reads nothing that the output may have been placed upon.
//!
//! Code is plain Rust over fixed-size chunks, which the compiler turns into vector code, once for the machine's baseline
//! and once for AVX2 with FMA; [`Prepared`] picks by the running machine. [`micro`] holds the innermost loops. `f32` sums may be reordered and fused
//! (bounded by 1e-5 of the output's largest magnitude); integer sums are exact.

mod conv_f32;
mod depthwise;
mod integer;
mod matmul_f32;
mod micro;
mod window;

use mcc_ir::catalogue::{Implementation, KernelSpec, Offer};
use mcc_ir::costs::{Code, Work};
use mcc_ir::op::{Op, Step};
use mcc_ir::packing::Packing;
use mcc_ir::target::Backend;
use mcc_ir::{DType, Target};
use std::any::Any;

/// The implementations that the host has beside loop nests.
pub const CATALOGUE: &[Implementation] = &[
    Implementation { id: "conv2d_f32", offer: offer::<0> },
    Implementation { id: "depthwise_f32", offer: offer::<1> },
    Implementation { id: "matmul_f32", offer: offer::<2> },
    Implementation { id: "conv2d_i8", offer: offer::<3> },
    Implementation { id: "depthwise_i8", offer: offer::<4> },
    Implementation { id: "matmul_i8", offer: offer::<5> },
];

/// How each entry of [`CATALOGUE`] prepares a kernel.
const PREPARE: [fn(&KernelSpec<'_>) -> Option<Prepared>; CATALOGUE.len()] = [
    conv_f32::prepare,
    depthwise::prepare_f32,
    matmul_f32::prepare,
    integer::prepare_conv,
    depthwise::prepare_i8,
    integer::prepare_matmul,
];

fn offer<const ENTRY: usize>(spec: &KernelSpec<'_>, target: &Target) -> Option<Offer> {
    let prepared = (target.backend == Backend::Jit).then(|| PREPARE[ENTRY](spec)).flatten()?;
    let mut packings = vec![Packing::None; spec.arg_types.len()];
    packings[1] = prepared.weights.clone();
    let (scratch_bytes, cycles) = (prepared.scratch_bytes(), prepared.cycles);
    Some(Offer { packings, scratch_bytes, work: Work::cycles(cycles), code: Code::default(), overlap: None })
}

/// The kernel `spec` under the implementation `id`; `None` where there is none, or it does not fit.
pub fn prepare(id: &str, spec: &KernelSpec<'_>) -> Option<Prepared> {
    let entry = CATALOGUE.iter().position(|i| i.id == id)?;
    PREPARE[entry](spec)
}

/// Computes the accumulators of one window: parameters, index of the window, x, weights, bias (ignored where the operator
/// has none), accumulators, scratch memory.
pub type KernelFn = unsafe extern "C" fn(*const u8, usize, *const u8, *const u8, *const u8, *mut u8, *mut u8);

/// A kernel ready to be called by compiled code.
pub struct Prepared {
    pub function: KernelFn,
    params: Box<dyn Any + Send + Sync>,
    address: *const u8,
    /// How many leading dimensions of the output the windows are cut along.
    pub outer: usize,
    /// Element type of the accumulators.
    pub accumulator: DType,
    /// Whether accumulators are computed in the output itself.
    pub in_output: bool,
    /// Bytes of one window's accumulators.
    pub window_bytes: usize,
    /// Bytes that the function uses beside the accumulators.
    pub private_bytes: usize,
    /// How argument 1 is laid out.
    weights: Packing,
    cycles: f64,
}

// SAFETY: `address` points into `params`, which is `Send` and is not changed.
unsafe impl Send for Prepared {}

impl Prepared {
    /// The parameters that `function` takes; valid while this lives.
    pub fn params(&self) -> *const u8 {
        self.address
    }

    /// Where the function's own scratch memory starts, behind the accumulators.
    pub fn private_offset(&self) -> usize {
        if self.in_output { 0 } else { self.window_bytes.next_multiple_of(64) }
    }

    /// Scratch memory in all.
    pub fn scratch_bytes(&self) -> usize {
        if self.in_output { self.private_bytes } else { self.private_offset() + self.private_bytes }
    }

    /// How the kernel wants an argument laid out.
    pub fn packing(&self, arg: usize) -> &Packing {
        if arg == 1 { &self.weights } else { &Packing::None }
    }

    fn new<K: WindowKernel>(
        spec: &KernelSpec<'_>,
        kernel: K,
        outer: usize,
        private_bytes: usize,
        weights: Packing,
        cycles: f64,
    ) -> Prepared {
        let params = Box::new(kernel);
        let address = (&raw const *params).cast();
        let accumulator = if spec.arg_types[0].dtype == DType::F32 { DType::F32 } else { DType::I32 };
        Prepared {
            function: function::<K>(),
            address,
            params,
            outer,
            accumulator,
            in_output: fits_output(spec, accumulator),
            window_bytes: spec.out_type.shape[outer..].iter().product::<usize>() * 4,
            private_bytes,
            weights,
            cycles,
        }
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("params", &self.params).field("outer", &self.outer).finish_non_exhaustive()
    }
}

/// Whether accumulators may be computed in the output: they have its type, and no operand of the epilogue can have lent
/// the output its memory.
fn fits_output(spec: &KernelSpec<'_>, accumulator: DType) -> bool {
    let own = spec.op.own_inputs().unwrap_or(0);
    spec.out_type.dtype == accumulator && spec.consts[own..].iter().all(Option::is_some)
}

/// Number of elements of the bias: that of the output channels, or none.
fn bias_len(op: &Op, channels: usize) -> usize {
    let bias = match op {
        Op::Conv2d(o) => o.bias,
        Op::MatMul(o) => o.bias,
        _ => false,
    };
    if bias { channels } else { 0 }
}

/// Operations of the epilogue, for cost estimates.
fn epilogue_cycles(op: &Op, outputs: usize) -> f64 {
    let steps: usize = op.post().map_or(0, |p| p.iter().map(|s| if matches!(s, Step::Unary(_)) { 2 } else { 4 }).sum());
    (outputs * (1 + steps)) as f64 / 2.0
}

/// A kernel over typed slices.
trait WindowKernel: Any + Send + Sync {
    type X: Copy;
    type W: Copy;
    type Acc: Copy;
    type Scratch: Copy;

    /// Numbers of elements of x, weights, bias, one window's accumulators, and scratch memory.
    fn lengths(&self) -> [usize; 5];

    /// Computes the accumulators of window `step`. `WIDE`: the code around is compiled for AVX2 and FMA.
    fn run<const WIDE: bool>(
        &self,
        step: usize,
        x: &[Self::X],
        w: &[Self::W],
        bias: &[Self::Acc],
        acc: &mut [Self::Acc],
        scratch: &mut [Self::Scratch],
    );
}

/// # Safety
/// `params` must point to a `K`, the others to as many elements of its types as `K::lengths` says, aligned for them;
/// `acc` and `scratch` must overlap nothing else.
#[inline(always)]
unsafe fn border<K: WindowKernel, const WIDE: bool>(
    params: *const u8,
    step: usize,
    pointers: [*const u8; 3],
    acc: *mut u8,
    scratch: *mut u8,
) {
    // SAFETY: the caller's contract.
    let kernel = unsafe { &*params.cast::<K>() };
    let [x_len, w_len, bias_len, acc_len, scratch_len] = kernel.lengths();
    let [x, w, bias] = pointers;
    // SAFETY: the caller's contract; `slice` and `slice_mut` take any pointer for no elements.
    unsafe {
        let (x, w, bias) = (slice(x, x_len), slice(w, w_len), slice(bias, bias_len));
        kernel.run::<WIDE>(step, x, w, bias, slice_mut(acc, acc_len), slice_mut(scratch, scratch_len));
    }
}

/// # Safety
/// `at` must point to `len` elements that nothing writes meanwhile, unless `len` is 0.
#[inline(always)]
unsafe fn slice<'a, T>(at: *const u8, len: usize) -> &'a [T] {
    match len {
        0 => &[],
        // SAFETY: the caller's contract.
        _ => unsafe { std::slice::from_raw_parts(at.cast(), len) },
    }
}

/// # Safety
/// `at` must point to `len` initialised elements that nothing else uses meanwhile, unless `len` is 0.
#[inline(always)]
unsafe fn slice_mut<'a, T>(at: *mut u8, len: usize) -> &'a mut [T] {
    match len {
        0 => &mut [],
        // SAFETY: the caller's contract.
        _ => unsafe { std::slice::from_raw_parts_mut(at.cast(), len) },
    }
}

unsafe extern "C" fn baseline<K: WindowKernel>(
    params: *const u8,
    step: usize,
    x: *const u8,
    w: *const u8,
    bias: *const u8,
    acc: *mut u8,
    scratch: *mut u8,
) {
    // SAFETY: the caller keeps the contract of `border`.
    unsafe { border::<K, false>(params, step, [x, w, bias], acc, scratch) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe extern "C" fn wide<K: WindowKernel>(
    params: *const u8,
    step: usize,
    x: *const u8,
    w: *const u8,
    bias: *const u8,
    acc: *mut u8,
    scratch: *mut u8,
) {
    // SAFETY: the caller keeps the contract of `border`.
    unsafe { border::<K, true>(params, step, [x, w, bias], acc, scratch) }
}

/// The code of a kernel for this machine.
fn function<K: WindowKernel>() -> KernelFn {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        return wide::<K>;
    }
    baseline::<K>
}
