//! Pooling, NHWC, and reductions to channels, in vectors of channels: maximum and mean of floats, maximum of bytes, and mean of bytes read as real
//! numbers and quantised again. Sums go in row-major order of the window, as the operator's meaning has it.

use super::bytes::{self, Byte, Ints, Of};
use super::cut::Part;
use super::elementwise::Elements;
use super::floats::{FloatEpilogue, Floats};
use super::fused::{Finish, FusedFloat, Requantise};
use super::simd::{self, Simd};
use super::window::Window;
use super::{Call, Kernel, Prepared, Purpose};
use mcc_ir::DType;
use mcc_ir::catalogue::KernelSpec;
use mcc_ir::op::{Layout, Op, PoolKind, ReduceKind, Step};
use mcc_ir::packing::Packing;
use mcc_ir::types::QuantParams;
use std::marker::PhantomData;
use std::ops::Range;

/// What is made of the elements of a window, for a vector of channels.
///
/// # Safety
/// All functions need the instructions that the type stands for. Pointers must be good for `lanes` elements, of 1 to
/// `LANES`.
pub unsafe trait Windows: Copy + Send + Sync + 'static {
    const LANES: usize;
    type X: Send + Sync;
    type V: Copy;
    type Epilogue;

    unsafe fn start(e: &Self::Epilogue) -> Self::V;
    unsafe fn add(e: &Self::Epilogue, v: Self::V, from: *const Self::X, lanes: usize) -> Self::V;
    /// Stores the result of a window of `count` elements as elements `at...` of the output.
    unsafe fn finish(e: &Self::Epilogue, at: usize, lanes: usize, v: Self::V, count: usize);
}

/// The largest element.
#[derive(Clone, Copy, Debug)]
pub struct Largest<T>(PhantomData<T>);

/// The mean.
#[derive(Clone, Copy, Debug)]
pub struct Mean<T>(PhantomData<T>);

// SAFETY: the functions are those of S.
unsafe impl<S: Simd> Windows for Largest<Floats<S>> {
    const LANES: usize = S::LANES;
    type X = f32;
    type V = S::V;
    type Epilogue = FloatEpilogue;

    #[inline(always)]
    unsafe fn start(_: &FloatEpilogue) -> S::V {
        // SAFETY: the trait's contract.
        unsafe { S::splat(f32::NEG_INFINITY) }
    }
    #[inline(always)]
    unsafe fn add(_: &FloatEpilogue, v: S::V, from: *const f32, lanes: usize) -> S::V {
        // SAFETY: the trait's contract.
        unsafe { S::at_least(S::load_first(from, lanes), v) }
    }
    #[inline(always)]
    unsafe fn finish(e: &FloatEpilogue, at: usize, lanes: usize, v: S::V, _: usize) {
        // SAFETY: the trait's contract.
        unsafe { e.store::<S>(at, lanes, v) }
    }
}

// SAFETY: the functions are those of S.
unsafe impl<S: Simd> Windows for Mean<Floats<S>> {
    const LANES: usize = S::LANES;
    type X = f32;
    type V = S::V;
    type Epilogue = FloatEpilogue;

    #[inline(always)]
    unsafe fn start(_: &FloatEpilogue) -> S::V {
        // SAFETY: the trait's contract.
        unsafe { S::splat(0.0) }
    }
    #[inline(always)]
    unsafe fn add(_: &FloatEpilogue, v: S::V, from: *const f32, lanes: usize) -> S::V {
        // SAFETY: the trait's contract.
        unsafe { S::add(v, S::load_first(from, lanes)) }
    }
    #[inline(always)]
    unsafe fn finish(e: &FloatEpilogue, at: usize, lanes: usize, v: S::V, count: usize) {
        // SAFETY: the trait's contract.
        unsafe { e.store::<S>(at, lanes, S::div(v, S::splat(count as f32))) }
    }
}

// SAFETY: the functions are those of Q.
unsafe impl<Q: Ints, A: Byte> Windows for Largest<Of<Q, A>> {
    const LANES: usize = Q::LANES;
    type X = A;
    type V = Q::I;
    type Epilogue = Bytes;

    #[inline(always)]
    unsafe fn start(_: &Bytes) -> Q::I {
        // SAFETY: the trait's contract.
        unsafe { Q::splat(i32::MIN) }
    }
    #[inline(always)]
    unsafe fn add(_: &Bytes, v: Q::I, from: *const A, lanes: usize) -> Q::I {
        // SAFETY: the trait's contract.
        unsafe { Q::max(v, bytes::load::<Q, A>(from, lanes)) }
    }
    #[inline(always)]
    unsafe fn finish(e: &Bytes, at: usize, lanes: usize, v: Q::I, _: usize) {
        // SAFETY: the trait's contract.
        unsafe { Q::store_bytes(e.out.add(at), lanes, v) }
    }
}

// SAFETY: the functions are those of Q.
unsafe impl<Q: Ints, A: Byte> Windows for Mean<Of<Q, A>> {
    const LANES: usize = Q::LANES;
    type X = A;
    type V = Q::F;
    type Epilogue = Bytes;

    #[inline(always)]
    unsafe fn start(_: &Bytes) -> Q::F {
        // SAFETY: the trait's contract.
        unsafe { Q::splat_float(0.0) }
    }
    #[inline(always)]
    unsafe fn add(e: &Bytes, v: Q::F, from: *const A, lanes: usize) -> Q::F {
        // SAFETY: the trait's contract.
        unsafe {
            let q = Q::add(bytes::load::<Q, A>(from, lanes), Q::splat(e.finish.zero.wrapping_neg()));
            Q::add_float(v, Q::mul_float(Q::to_float(q), Q::splat_float(e.finish.scale)))
        }
    }
    #[inline(always)]
    unsafe fn finish(e: &Bytes, at: usize, lanes: usize, v: Q::F, count: usize) {
        // SAFETY: the trait's contract.
        unsafe {
            let mean = Q::div_float(v, Q::splat_float(count as f32));
            let v = Q::div_float(mean, Q::splat_float(e.finish.divisor));
            Q::store_bytes(e.out.add(at), lanes, bytes::round::<Q>(v, e.finish.to));
        }
    }
}

/// How bytes become real numbers and these become bytes; only means use it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByteMean {
    zero: i32,
    scale: f32,
    divisor: f32,
    to: Requantise,
}

/// Where bytes go.
pub struct Bytes {
    out: *mut u8,
    finish: ByteMean,
}

impl Finish for ByteMean {
    type Epilogue = Bytes;

    fn residual(&self) -> Option<usize> {
        None
    }

    fn at(&self, out: *mut u8, _: *const u8) -> Bytes {
        Bytes { out, finish: *self }
    }
}

struct Pool<M, F> {
    window: Window,
    include_pad: bool,
    finish: F,
    mode: PhantomData<fn(M)>,
}

/// What a pooling is of.
struct Geometry<'a> {
    kind: PoolKind,
    dequant: Option<QuantParams>,
    post: &'a [Step],
    window: Window,
}

impl<'a> Geometry<'a> {
    /// An NHWC pooling without dilation, or a reduction of neighbouring dimensions but the last: that is a pooling of a line
    /// of pixels.
    fn of(spec: &KernelSpec<'a>) -> Option<Geometry<'a>> {
        let (x, out) = (&spec.arg_types[0].shape, &spec.out_type.shape);
        if spec.out_type.elements() == 0 {
            return None;
        }
        Some(match spec.op {
            Op::Pool2d(o) if o.layout == Layout::Nhwc && o.dilation == [1, 1] => {
                let window = Window {
                    batch: x[0],
                    size: [x[1], x[2]],
                    channels: x[3],
                    out: [out[1], out[2]],
                    out_channels: x[3],
                    kernel: o.kernel,
                    stride: o.stride,
                    pad: [o.pad[0], o.pad[1]],
                    dilation: o.dilation,
                };
                Geometry { kind: o.kind, dequant: o.dequant, post: &o.post, window }
            }
            Op::Reduce(o) => {
                let kind = match o.kind {
                    ReduceKind::Mean => PoolKind::Average { count_include_pad: false },
                    ReduceKind::Max => PoolKind::Max,
                    _ => return None,
                };
                let (first, last) = (*o.axes.first()?, *o.axes.last()?);
                let pixels = x[first..=last].iter().product();
                if last - first + 1 != o.axes.len() || last + 1 == x.len() || pixels == 0 {
                    return None;
                }
                let channels = x[last + 1..].iter().product();
                let window =
                    Window { batch: x[..first].iter().product(), ..Window::column(pixels, channels, channels) };
                // Along one row: the inner loop is that over columns.
                let size = [1, pixels];
                let window = Window { size, out: [1, 1], kernel: size, ..window };
                Geometry { kind, dequant: o.dequant, post: &o.post, window }
            }
            _ => return None,
        })
    }
}

impl<M: Images, F: Finish<Epilogue = M::Epilogue>> Pool<M, F> {
    fn prepared(spec: &KernelSpec<'_>, geometry: Geometry<'_>, finish: F) -> Prepared {
        let window = geometry.window;
        let vectors = spec.out_type.elements() / window.channels * window.channels.div_ceil(M::LANES);
        let cycles = (vectors * window.kernel[0] * window.kernel[1]) as f64;
        let include_pad = matches!(geometry.kind, PoolKind::Average { count_include_pad: true });
        let call = Call::of(spec, &window, Some(&finish));
        let kernel = Pool::<M, F> { window, include_pad, finish, mode: PhantomData };
        Prepared::of_kernel(spec, kernel, call, 0, Packing::None, cycles)
    }
}

pub fn prepare_f32<S: Elements>(spec: &KernelSpec<'_>, _: Purpose) -> Option<Prepared>
where
    Largest<Floats<S>>: Images<Epilogue = FloatEpilogue>,
    Mean<Floats<S>>: Images<Epilogue = FloatEpilogue>,
{
    let geometry = Geometry::of(spec).filter(|_| spec.arg_types[0].dtype == DType::F32)?;
    let fused = FusedFloat::of::<S>(spec)?;
    Some(match geometry.kind {
        PoolKind::Max => Pool::<Largest<Floats<S>>, _>::prepared(spec, geometry, fused),
        PoolKind::Average { .. } => Pool::<Mean<Floats<S>>, _>::prepared(spec, geometry, fused),
    })
}

pub fn prepare_i8<Q: Ints>(spec: &KernelSpec<'_>, _: Purpose) -> Option<Prepared>
where
    Largest<Of<Q, i8>>: Images<Epilogue = Bytes>,
    Largest<Of<Q, u8>>: Images<Epilogue = Bytes>,
    Mean<Of<Q, i8>>: Images<Epilogue = Bytes>,
    Mean<Of<Q, u8>>: Images<Epilogue = Bytes>,
{
    match spec.arg_types[0].dtype {
        DType::I8 => prepare_bytes::<Q, i8>(spec),
        DType::U8 => prepare_bytes::<Q, u8>(spec),
        _ => None,
    }
}

fn prepare_bytes<Q: Ints, A: Byte>(spec: &KernelSpec<'_>) -> Option<Prepared>
where
    Largest<Of<Q, A>>: Images<Epilogue = Bytes>,
    Mean<Of<Q, A>>: Images<Epilogue = Bytes>,
{
    let geometry = Geometry::of(spec)?;
    Some(match (geometry.kind, geometry.dequant, geometry.post) {
        (PoolKind::Max, None, []) => Pool::<Largest<Of<Q, A>>, _>::prepared(spec, geometry, ByteMean::default()),
        (PoolKind::Average { .. }, Some(from), [Step::Quant { q, lo, hi, dtype: DType::I8 | DType::U8 }]) => {
            let finish = ByteMean {
                zero: from.zero_point,
                scale: from.scale.0,
                divisor: q.scale.0,
                to: Requantise::new(q.zero_point, *lo, *hi),
            };
            Pool::<Mean<Of<Q, A>>, _>::prepared(spec, geometry, finish)
        }
        _ => return None,
    })
}

impl<M: Images, F: Finish<Epilogue = M::Epilogue>> Kernel for Pool<M, F> {
    fn pieces(&self) -> usize {
        self.window.batch * self.window.out[0]
    }

    unsafe fn run(&self, part: &Part, x: *const u8, _w: *const u8, extra: *const u8, out: *mut u8, _scratch: *mut u8) {
        let w = &self.window;
        let mut row = part.pieces.start;
        while row < part.pieces.end {
            let (image, start) = (row / w.out[0], row % w.out[0]);
            let rows = start..w.out[0].min(start + part.pieces.end - row);
            let pixels = row * w.out[1]..(row + rows.len()) * w.out[1];
            row += rows.len();
            let mut first = 0;
            while first < w.channels {
                let left = w.channels - first;
                // Several vectors at a time, as the steps of one wait for each other.
                let vectors = if left >= 4 * M::LANES { 4 } else { 1 };
                let lanes = M::LANES.min(left);
                let work = Image::<M> {
                    window: w,
                    include_pad: self.include_pad,
                    // Inside x.
                    x: x.cast::<M::X>().wrapping_add(image * w.size[0] * w.size[1] * w.channels + first),
                    rows: rows.clone(),
                    epilogue: self.finish.at(out, extra),
                    at: pixels.start * w.channels + first,
                    lanes,
                };
                // SAFETY: the kernel was chosen for a level that the machine has; the caller's contract gives x, residual
                // and output; `vectors` vectors of channels are left, or `lanes` lanes of one.
                unsafe { M::function(vectors, lanes)(&work) };
                first += vectors * M::LANES;
            }
            // SAFETY: as above; these pixels are computed.
            unsafe { self.finish.after_pixels(out, w.channels, pixels, 0..w.channels) };
        }
    }
}

/// The work of one call: some channels of some rows of an image.
pub struct Image<'a, M: Windows> {
    window: &'a Window,
    /// Whether padding counts as elements of a mean.
    include_pad: bool,
    /// The first channel of the image.
    x: *const M::X,
    /// Output rows.
    rows: Range<usize>,
    epilogue: M::Epilogue,
    /// Its element in the output, of the first row.
    at: usize,
    lanes: usize,
}

/// Computes the channels of an image.
///
/// # Safety
/// The machine must have the function's level; all pointers must be good for what the numbers say.
pub type ImageFn<M> = unsafe fn(&Image<'_, M>);

/// NV vectors of channels; fewer lanes than a vector has where `PART`.
///
/// # Safety
/// As [`ImageFn`].
#[inline(always)]
unsafe fn image<M: Windows, const NV: usize, const PART: bool>(p: &Image<'_, M>) {
    let w = p.window;
    let c = w.channels;
    let lanes = if PART { p.lanes } else { M::LANES };
    let inside = |axis: usize, at: usize| {
        let start = at * w.stride[axis];
        let first = start.saturating_sub(w.pad[axis]);
        let end = (start + w.kernel[axis]).saturating_sub(w.pad[axis]).min(w.size[axis]);
        first..end.max(first)
    };
    let mut at = p.at;
    for row in p.rows.clone() {
        let rows = inside(0, row);
        for column in 0..w.out[1] {
            let columns = inside(1, column);
            // SAFETY: the caller's contract: elements of the image, and its output pixels in order.
            unsafe {
                let mut values = [M::start(&p.epilogue); NV];
                for y in rows.clone() {
                    let mut from = p.x.add((y * w.size[1] + columns.start) * c);
                    for _ in columns.clone() {
                        for (j, value) in values.iter_mut().enumerate() {
                            *value = M::add(&p.epilogue, *value, from.add(j * M::LANES), lanes);
                        }
                        from = from.wrapping_add(c);
                    }
                }
                let all = if p.include_pad { w.kernel[0] * w.kernel[1] } else { rows.len() * columns.len() };
                for (j, value) in values.iter().enumerate() {
                    M::finish(&p.epilogue, at + j * M::LANES, lanes, *value, all);
                }
            }
            at += c;
        }
    }
}

/// The functions of a level.
pub trait Images: Windows {
    /// For 4 vectors or 1, of so many lanes.
    fn function(vectors: usize, lanes: usize) -> ImageFn<Self>;
}

macro_rules! level {
    ($($windows:ty, $compiled:ident, $(#[$feature:meta])?;)*) => { $(
        $(#[$feature])?
        unsafe fn $compiled<const NV: usize, const PART: bool>(p: &Image<'_, $windows>) {
            // SAFETY: the caller's contract.
            unsafe { image::<$windows, NV, PART>(p) }
        }

        impl Images for $windows {
            fn function(vectors: usize, lanes: usize) -> ImageFn<Self> {
                match (vectors, lanes < Self::LANES) {
                    (4, _) => $compiled::<4, false>,
                    (_, false) => $compiled::<1, false>,
                    (_, true) => $compiled::<1, true>,
                }
            }
        }
    )* };
}

level! {
    Largest<Floats<simd::Portable>>, largest_f32,;
    Mean<Floats<simd::Portable>>, mean_f32,;
    Largest<Of<bytes::Portable, i8>>, largest_i8,;
    Largest<Of<bytes::Portable, u8>>, largest_u8,;
    Mean<Of<bytes::Portable, i8>>, mean_i8,;
    Mean<Of<bytes::Portable, u8>>, mean_u8,;
}

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use super::super::neon::{Neon, NeonInts};
    use super::*;

    level! {
        Largest<Floats<Neon>>, largest_f32_neon,;
        Mean<Floats<Neon>>, mean_f32_neon,;
        Largest<Of<NeonInts, i8>>, largest_i8_neon,;
        Largest<Of<NeonInts, u8>>, largest_u8_neon,;
        Mean<Of<NeonInts, i8>>, mean_i8_neon,;
        Mean<Of<NeonInts, u8>>, mean_u8_neon,;
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;

    level! {
        Largest<Floats<simd::Avx2>>, largest_f32_avx2, #[target_feature(enable = "avx2,fma")];
        Mean<Floats<simd::Avx2>>, mean_f32_avx2, #[target_feature(enable = "avx2,fma")];
        Largest<Of<bytes::Avx2, i8>>, largest_i8_avx2, #[target_feature(enable = "avx2,fma")];
        Largest<Of<bytes::Avx2, u8>>, largest_u8_avx2, #[target_feature(enable = "avx2,fma")];
        Mean<Of<bytes::Avx2, i8>>, mean_i8_avx2, #[target_feature(enable = "avx2,fma")];
        Mean<Of<bytes::Avx2, u8>>, mean_u8_avx2, #[target_feature(enable = "avx2,fma")];
        Largest<Floats<simd::Avx512>>, largest_f32_avx512,
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")];
        Mean<Floats<simd::Avx512>>, mean_f32_avx512,
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")];
        Largest<Of<bytes::Vnni, i8>>, largest_i8_vnni,
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")];
        Largest<Of<bytes::Vnni, u8>>, largest_u8_vnni,
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")];
        Mean<Of<bytes::Vnni, i8>>, mean_i8_vnni,
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")];
        Mean<Of<bytes::Vnni, u8>>, mean_u8_vnni,
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")];
    }
}
