//! Implementations of heavy kernels: convolutions and matrix products.
//!
//! Each implementation is there for one [level](crate::cpu::Level) of the processor and named after it, so that a plan says
//! what it runs. Its body is written once, over a type that stands for the level's vectors ([`simd`], [`bytes`]), and
//! compiled with the level's features.
//!
//! Usual epilogues ([`fused`]) are applied by the kernel, in one call. Any other leaves accumulators, which compiled code
//! finishes: the output is then cut along its leading dimensions into equal windows (an image row, a matrix), and each
//! call computes one, into scratch memory, or into the output itself where the epilogue reads nothing that the output may
//! have been placed upon.
//!
//! `f32` sums may be reordered and fused (bounded by 1e-5 of the output's largest magnitude); integer results are exact.

mod bytes;
mod cut;
mod depthwise;
mod elementwise;
mod floats;
mod fused;
mod matmul_f32;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pool;
mod product;
mod recurrent;
mod simd;
mod strips;
mod tile;
mod window;
mod winograd_f32;
mod words;

use crate::cpu::{self, Level};
use cut::{AnyTask, Part, Task, enter};
pub use cut::{Threads, share};
use fused::Finish;
use mcc_ir::catalogue::{Implementation, KernelSpec, Offer};
use mcc_ir::costs::{Code, Work};
use mcc_ir::op::{Op, Step};
use mcc_ir::packing::Packing;
use mcc_ir::target::Backend;
use mcc_ir::{DType, Target, TensorType};
use window::Window;

/// What a kernel is prepared for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// To state what it takes; what only runs need may be left out.
    Offer,
    Run,
}

/// An entry of the catalogue: what prepares its kernels, and the level they need.
struct Entry {
    id: &'static str,
    level: Level,
    prepare: fn(&KernelSpec<'_>, Purpose) -> Option<Prepared>,
}

const fn entry(id: &'static str, level: Level, prepare: fn(&KernelSpec<'_>, Purpose) -> Option<Prepared>) -> Entry {
    Entry { id, level, prepare }
}

macro_rules! catalogue {
    ($($(#[$cfg:meta])? $id:literal, $level:ident, $prepare:expr;)*) => {
        const ENTRIES: &[Entry] = &[$($(#[$cfg])? entry($id, Level::$level, $prepare),)*];
    };
}

catalogue! {
    "product_f32", Scalar, product::prepare_f32::<simd::Portable>;
    #[cfg(target_arch = "aarch64")]
    "product_f32_neon", Neon, product::prepare_f32::<neon::Neon>;
    #[cfg(target_arch = "x86_64")]
    "product_f32_avx2", Avx2, product::prepare_f32::<simd::Avx2>;
    #[cfg(target_arch = "x86_64")]
    "product_f32_avx512", Avx512, product::prepare_f32::<simd::Avx512>;
    "winograd_f32", Scalar, winograd_f32::prepare::<simd::Portable>;
    #[cfg(target_arch = "aarch64")]
    "winograd_f32_neon", Neon, winograd_f32::prepare::<neon::Neon>;
    #[cfg(target_arch = "x86_64")]
    "winograd_f32_avx2", Avx2, winograd_f32::prepare::<simd::Avx2>;
    #[cfg(target_arch = "x86_64")]
    "winograd_f32_avx512", Avx512, winograd_f32::prepare::<simd::Avx512>;
    "product_i8", Scalar, product::prepare_i8::<bytes::Portable>;
    #[cfg(target_arch = "aarch64")]
    "product_i8_neon", Neon, product::prepare_i8::<neon::NeonInts>;
    #[cfg(target_arch = "x86_64")]
    "product_i8_avx2", Avx2, product::prepare_i8::<bytes::Avx2>;
    #[cfg(target_arch = "x86_64")]
    "product_i8_avx512vnni", Avx512Vnni, product::prepare_i8::<bytes::Vnni>;
    "depthwise_f32", Scalar, depthwise::prepare_f32::<simd::Portable>;
    #[cfg(target_arch = "aarch64")]
    "depthwise_f32_neon", Neon, depthwise::prepare_f32::<neon::Neon>;
    #[cfg(target_arch = "x86_64")]
    "depthwise_f32_avx2", Avx2, depthwise::prepare_f32::<simd::Avx2>;
    #[cfg(target_arch = "x86_64")]
    "depthwise_f32_avx512", Avx512, depthwise::prepare_f32::<simd::Avx512>;
    "depthwise_i8", Scalar, depthwise::prepare_i8::<bytes::Portable>;
    #[cfg(target_arch = "aarch64")]
    "depthwise_i8_neon", Neon, depthwise::prepare_i8::<neon::NeonInts>;
    #[cfg(target_arch = "x86_64")]
    "depthwise_i8_avx2", Avx2, depthwise::prepare_i8::<bytes::Avx2>;
    #[cfg(target_arch = "x86_64")]
    "depthwise_i8_avx512vnni", Avx512Vnni, depthwise::prepare_i8::<bytes::Vnni>;
    "pool_f32", Scalar, pool::prepare_f32::<simd::Portable>;
    #[cfg(target_arch = "aarch64")]
    "pool_f32_neon", Neon, pool::prepare_f32::<neon::Neon>;
    #[cfg(target_arch = "x86_64")]
    "pool_f32_avx2", Avx2, pool::prepare_f32::<simd::Avx2>;
    #[cfg(target_arch = "x86_64")]
    "pool_f32_avx512", Avx512, pool::prepare_f32::<simd::Avx512>;
    "pool_i8", Scalar, pool::prepare_i8::<bytes::Portable>;
    #[cfg(target_arch = "aarch64")]
    "pool_i8_neon", Neon, pool::prepare_i8::<neon::NeonInts>;
    #[cfg(target_arch = "x86_64")]
    "pool_i8_avx2", Avx2, pool::prepare_i8::<bytes::Avx2>;
    #[cfg(target_arch = "x86_64")]
    "pool_i8_avx512vnni", Avx512Vnni, pool::prepare_i8::<bytes::Vnni>;
    "map_f32", Scalar, elementwise::prepare_map::<simd::Portable>;
    #[cfg(target_arch = "aarch64")]
    "map_f32_neon", Neon, elementwise::prepare_map::<neon::Neon>;
    #[cfg(target_arch = "x86_64")]
    "map_f32_avx2", Avx2, elementwise::prepare_map::<simd::Avx2>;
    #[cfg(target_arch = "x86_64")]
    "map_f32_avx512", Avx512, elementwise::prepare_map::<simd::Avx512>;
    "rows_f32", Scalar, elementwise::prepare_rows::<simd::Portable>;
    #[cfg(target_arch = "aarch64")]
    "rows_f32_neon", Neon, elementwise::prepare_rows::<neon::Neon>;
    #[cfg(target_arch = "x86_64")]
    "rows_f32_avx2", Avx2, elementwise::prepare_rows::<simd::Avx2>;
    #[cfg(target_arch = "x86_64")]
    "rows_f32_avx512", Avx512, elementwise::prepare_rows::<simd::Avx512>;
    "matmul_f32", Scalar, matmul_f32::prepare::<simd::Portable>;
    #[cfg(target_arch = "aarch64")]
    "matmul_f32_neon", Neon, matmul_f32::prepare::<neon::Neon>;
    #[cfg(target_arch = "x86_64")]
    "matmul_f32_avx2", Avx2, matmul_f32::prepare::<simd::Avx2>;
    #[cfg(target_arch = "x86_64")]
    "matmul_f32_avx512", Avx512, matmul_f32::prepare::<simd::Avx512>;
    "recurrent_f32", Scalar, recurrent::prepare::<simd::Portable>;
    #[cfg(target_arch = "aarch64")]
    "recurrent_f32_neon", Neon, recurrent::prepare::<neon::Neon>;
    #[cfg(target_arch = "x86_64")]
    "recurrent_f32_avx2", Avx2, recurrent::prepare::<simd::Avx2>;
    #[cfg(target_arch = "x86_64")]
    "recurrent_f32_avx512", Avx512, recurrent::prepare::<simd::Avx512>;
}

/// The implementations that the host has beside loop nests. Those whose level this process does not have offer nothing.
pub const CATALOGUE: &[Implementation] = &{
    let mut all = [Implementation { id: "", offer: offer::<0> }; ENTRIES.len()];
    let mut i = 0;
    while i < ENTRIES.len() {
        all[i] = Implementation { id: ENTRIES[i].id, offer: OFFERS[i] };
        i += 1;
    }
    all
};

type OfferFn = fn(&KernelSpec<'_>, &Target) -> Option<Offer>;

/// One function an entry, as many as there may be entries.
#[rustfmt::skip]
const OFFERS: [OfferFn; 40] = [
    offer::<0>, offer::<1>, offer::<2>, offer::<3>, offer::<4>, offer::<5>, offer::<6>, offer::<7>,
    offer::<8>, offer::<9>, offer::<10>, offer::<11>, offer::<12>, offer::<13>, offer::<14>, offer::<15>,
    offer::<16>, offer::<17>, offer::<18>, offer::<19>, offer::<20>, offer::<21>, offer::<22>, offer::<23>,
    offer::<24>, offer::<25>, offer::<26>, offer::<27>, offer::<28>, offer::<29>, offer::<30>, offer::<31>,
    offer::<32>, offer::<33>, offer::<34>, offer::<35>, offer::<36>, offer::<37>, offer::<38>, offer::<39>,
];

fn offer<const ENTRY: usize>(spec: &KernelSpec<'_>, target: &Target) -> Option<Offer> {
    let prepared =
        (target.backend == Backend::Jit).then(|| find(ENTRIES.get(ENTRY)?, spec, Purpose::Offer)).flatten()?;
    let mut packings = vec![Packing::None; spec.arg_types.len()];
    if let Some(packing) = packings.get_mut(1) {
        *packing = prepared.weights.clone();
    }
    let (scratch_bytes, cycles) = (prepared.scratch_bytes(), prepared.cycles);
    Some(Offer { packings, scratch_bytes, work: Work::cycles(cycles), code: Code::default(), overlap: None })
}

fn find(entry: &Entry, spec: &KernelSpec<'_>, purpose: Purpose) -> Option<Prepared> {
    let level = cpu::level().ok()?;
    (entry.level <= level && entry.level.is_available()).then(|| (entry.prepare)(spec, purpose)).flatten()
}

/// The kernel `spec` under the implementation `id`; `None` where there is none, it does not fit, or this process has not
/// its level.
pub fn prepare(id: &str, spec: &KernelSpec<'_>) -> Option<Prepared> {
    find(ENTRIES.iter().find(|e| e.id == id)?, spec, Purpose::Run)
}

/// Computes one window: parameters, index of the window, [`Prepared::arguments`] (ignored where there is none), output or
/// accumulators, scratch memory.
pub type KernelFn = unsafe extern "C" fn(*const u8, usize, *const u8, *const u8, *const u8, *mut u8, *mut u8);

/// A kernel ready to be called by compiled code.
pub struct Prepared {
    pub function: KernelFn,
    /// Owned here for the function, which has its address.
    task: Box<dyn AnyTask>,
    /// How many leading dimensions of the output the windows are cut along.
    pub outer: usize,
    /// Element type of the accumulators.
    pub accumulator: DType,
    /// Whether accumulators are computed in the output itself.
    pub in_output: bool,
    /// Whether the kernel applies the epilogue too, so that what it computes is the output.
    pub fused: bool,
    /// The arguments that the function takes: x, mostly weights, and an extra one.
    pub arguments: [Option<usize>; 3],
    /// Bytes of one window's accumulators.
    pub window_bytes: usize,
    /// Bytes that the function uses beside the accumulators.
    pub private_bytes: usize,
    /// How argument 1 is laid out.
    weights: Packing,
    cycles: f64,
    /// Bytes of all arguments and the output.
    bytes: usize,
    /// How many windows the output has.
    windows: usize,
}

impl Prepared {
    /// The parameters that `function` takes; valid while this lives.
    pub fn params(&self) -> *const u8 {
        self.task.address()
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

    /// A kernel that finds its way by itself, and the cut of its calls.
    fn of_kernel<K: Kernel>(
        spec: &KernelSpec<'_>,
        kernel: K,
        call: Call,
        scratch_bytes: usize,
        weights: Packing,
        cycles: f64,
    ) -> Prepared {
        let accumulator = if spec.arg_types[0].dtype == DType::F32 { DType::F32 } else { DType::I32 };
        Prepared {
            function: enter::<K>,
            task: Box::new(Task { kernel, sharing: None }),
            outer: call.outer,
            accumulator,
            in_output: call.fused || fits_output(spec, accumulator),
            fused: call.fused,
            arguments: [Some(0), (spec.arg_types.len() > 1).then_some(1), call.residual],
            window_bytes: spec.out_type.shape[call.outer..].iter().product::<usize>() * 4,
            private_bytes: scratch_bytes,
            weights,
            cycles,
            bytes: spec.arg_types.iter().chain([spec.out_type]).map(TensorType::bytes).sum(),
            windows: spec.out_type.shape[..call.outer].iter().product::<usize>().max(1),
        }
    }

    /// A kernel that computes the whole output from these arguments, as they are.
    fn of_arguments<K: Kernel>(
        spec: &KernelSpec<'_>,
        kernel: K,
        arguments: [Option<usize>; 3],
        cycles: f64,
    ) -> Prepared {
        let call = Call { fused: true, residual: None, outer: 0 };
        Prepared { arguments, ..Prepared::of_kernel(spec, kernel, call, 0, Packing::None, cycles) }
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("outer", &self.outer).field("fused", &self.fused).finish_non_exhaustive()
    }
}

/// A kernel over raw memory.
trait Kernel: Send + Sync + 'static {
    /// How many pieces a window has that may be computed in any order, and at the same time.
    fn pieces(&self) -> usize {
        1
    }

    /// Computes pieces of a window: the output where the epilogue is fused, else accumulators.
    ///
    /// # Safety
    /// Pointers must be to what [`Prepared`] and the operator's types say: all of x, packed weights, the extra argument;
    /// the window of the output or of accumulators; scratch memory that overlaps nothing and that no other call uses; all
    /// aligned for their elements. The output overlaps nothing but the extra argument, and that at the same place. Nobody
    /// else reads or writes what the pieces write.
    unsafe fn run(&self, part: &Part, x: *const u8, w: *const u8, extra: *const u8, out: *mut u8, scratch: *mut u8);
}

/// How a kernel is called: once where it applies the epilogue, else for windows whose accumulators stay near.
struct Call {
    fused: bool,
    /// The argument that is a residual.
    residual: Option<usize>,
    /// Leading dimensions of the output that windows are cut along.
    outer: usize,
}

impl Call {
    /// `fused` is the epilogue that the kernel applies, if any.
    fn of<F: Finish>(spec: &KernelSpec<'_>, window: &Window, fused: Option<&F>) -> Call {
        let image = window.out[0] * window.out[1] * window.out_channels;
        let outer = match spec.op {
            _ if fused.is_some() => 0,
            Op::Conv2d(_) if image <= 1 << 14 => 1,
            Op::Conv2d(_) => 2,
            _ => 0,
        };
        let residual = fused.and_then(F::residual).zip(spec.op.own_inputs()).map(|(i, own)| own + i);
        Call { fused: fused.is_some(), residual, outer }
    }

    /// Rows of the output in a call.
    fn rows(&self, window: &Window) -> usize {
        match self.outer {
            0 => window.batch * window.out[0],
            1 => window.out[0],
            _ => 1,
        }
    }
}

/// The values of a float bias, zeros where the operator has none; `None` where it is no constant.
fn bias(spec: &KernelSpec<'_>) -> Option<Vec<f32>> {
    let channels = spec.out_type.shape.last().copied().unwrap_or(1);
    match bias_len(spec.op, channels) {
        0 => Some(vec![0.0; channels]),
        _ => spec.consts[2].map(|t| t.to_f32()),
    }
}

/// As [`bias`], of an integer operator.
fn bias_i32(spec: &KernelSpec<'_>) -> Option<Vec<i32>> {
    let channels = spec.out_type.shape.last().copied().unwrap_or(1);
    match bias_len(spec.op, channels) {
        0 => Some(vec![0; channels]),
        _ => spec.consts[2]?.to_vec(),
    }
}

/// Filled up with zeros to a multiple of `unit`.
fn padded<T: Copy + Default>(mut values: Vec<T>, unit: usize) -> Vec<T> {
    values.resize(values.len().next_multiple_of(unit), T::default());
    values
}

/// `all` things in shares that differ by one at most and are no larger than `most`: sizes and how many of each.
fn shares(all: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = all.div_ceil(most).max(1);
    let (size, larger) = (all / count, all % count);
    [(size + 1, larger), (size, count - larger)].into_iter().filter(|(size, n)| *size > 0 && *n > 0)
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
