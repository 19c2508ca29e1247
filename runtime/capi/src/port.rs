//! Inputs and outputs of a session.

use mcc::ir::{DType, QuantParams};
use mcc::runtime::Port;
use std::ffi::{CString, c_char};

/// The type of a tensor's elements, in the machine's byte order.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MccDtype {
    /// No element type: of a null port.
    None = 0,
    F32 = 1,
    I64 = 2,
    I32 = 3,
    I16 = 4,
    I8 = 5,
    U8 = 6,
    /// One byte, 0 or 1.
    Bool = 7,
}

/// An input or output of a session. It lives as long as its session, and any thread may look at it at any time.
pub struct MccPort {
    name: CString,
    pub(crate) dtype: DType,
    c_dtype: MccDtype,
    shape: Vec<usize>,
    pub(crate) elements: usize,
    pub(crate) bytes: usize,
    quant: Option<QuantParams>,
}

impl MccPort {
    /// `None` for element types that no session has at its border.
    pub(crate) fn of(port: &Port) -> Option<MccPort> {
        let c_dtype = match port.ty.dtype {
            DType::F32 => MccDtype::F32,
            DType::I64 => MccDtype::I64,
            DType::I32 => MccDtype::I32,
            DType::I16 => MccDtype::I16,
            DType::I8 => MccDtype::I8,
            DType::U8 => MccDtype::U8,
            DType::Bool => MccDtype::Bool,
            _ => return None,
        };
        Some(MccPort {
            name: CString::new(port.name.replace('\0', " ")).expect("zeros are replaced"),
            dtype: port.ty.dtype,
            c_dtype,
            shape: port.ty.shape.clone(),
            elements: port.ty.elements(),
            bytes: port.ty.bytes(),
            quant: port.quant,
        })
    }

    pub(crate) fn name(&self) -> std::borrow::Cow<'_, str> {
        self.name.to_string_lossy()
    }
}

/// The name in the model, in UTF-8; null of a null port.
///
/// # Safety
/// `port` must be null or a port of a live session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mcc_port_name(port: *const MccPort) -> *const c_char {
    // SAFETY: the caller's promise.
    unsafe { port.as_ref() }.map_or(std::ptr::null(), |p| p.name.as_ptr())
}

/// The element type.
///
/// # Safety
/// `port` must be null or a port of a live session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mcc_port_dtype(port: *const MccPort) -> MccDtype {
    // SAFETY: the caller's promise.
    unsafe { port.as_ref() }.map_or(MccDtype::None, |p| p.c_dtype)
}

/// Number of dimensions; 0 of a null port.
///
/// # Safety
/// `port` must be null or a port of a live session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mcc_port_rank(port: *const MccPort) -> usize {
    // SAFETY: the caller's promise.
    unsafe { port.as_ref() }.map_or(0, |p| p.shape.len())
}

/// The sizes of the dimensions, outermost first, as many as `mcc_port_rank` says; null of a null port.
///
/// # Safety
/// `port` must be null or a port of a live session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mcc_port_shape(port: *const MccPort) -> *const usize {
    // SAFETY: the caller's promise.
    unsafe { port.as_ref() }.map_or(std::ptr::null(), |p| p.shape.as_ptr())
}

/// Number of elements, which lie row-major; 0 of a null port.
///
/// # Safety
/// `port` must be null or a port of a live session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mcc_port_elements(port: *const MccPort) -> usize {
    // SAFETY: the caller's promise.
    unsafe { port.as_ref() }.map_or(0, |p| p.elements)
}

/// Number of bytes that `mcc_session_run` takes for this port; 0 of a null port.
///
/// # Safety
/// `port` must be null or a port of a live session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mcc_port_bytes(port: *const MccPort) -> usize {
    // SAFETY: the caller's promise.
    unsafe { port.as_ref() }.map_or(0, |p| p.bytes)
}

/// What the integers of a quantised tensor stand for: real = scale * (q - zero_point). Returns 1 and sets both, or 0
/// where the tensor is not quantised as a whole. Either pointer may be null.
///
/// # Safety
/// `port` must be null or a port of a live session, `scale` and `zero_point` null or point to one writable element.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mcc_port_quantization(port: *const MccPort, scale: *mut f32, zero_point: *mut i32) -> i32 {
    // SAFETY: the caller's promise.
    let Some(quant) = unsafe { port.as_ref() }.and_then(|p| p.quant) else { return 0 };
    if !scale.is_null() {
        // SAFETY: not null, and the caller's promise.
        unsafe { scale.write(quant.scale.0) };
    }
    if !zero_point.is_null() {
        // SAFETY: not null, and the caller's promise.
        unsafe { zero_point.write(quant.zero_point) };
    }
    1
}
