//! Sessions: compiled, looked at, run, freed.

use crate::error::{Failure, MccStatus, guarded};
use crate::options::{MccOptions, list, utf8};
use crate::port::MccPort;
use mcc::ir::DType;
use mcc::{Session, TensorMut, TensorRef};
use std::ffi::{c_char, c_void};
use std::sync::{Mutex, TryLockError};

/// A model compiled for this machine.
///
/// Any thread may use it, one at a time: a second one that runs it meanwhile gets `MCC_STATUS_BUSY`. Threads that run at
/// the same time need a session each. Ports may be looked at any time.
pub struct MccSession {
    inputs: Vec<MccPort>,
    outputs: Vec<MccPort>,
    arena_bytes: usize,
    weights_bytes: usize,
    /// Only ever tried, never waited for. A panic poisons it: the session is then refused.
    state: Mutex<State>,
}

struct State {
    session: Session,
    /// Room for the tensors of a run, so that `run` does not allocate. Empty between runs.
    inputs: Vec<TensorRef<'static>>,
    outputs: Vec<TensorMut<'static>>,
}

impl MccSession {
    fn new(session: Session) -> Result<MccSession, Failure> {
        let ports = |list: &[mcc::runtime::Port]| {
            let ports: Option<Vec<_>> = list.iter().map(MccPort::of).collect();
            ports.ok_or_else(|| Failure::internal("an input or output has elements that C does not have"))
        };
        let (inputs, outputs) = (ports(session.inputs())?, ports(session.outputs())?);
        Ok(MccSession {
            arena_bytes: session.arena_bytes(),
            weights_bytes: session.weights_bytes(),
            state: Mutex::new(State {
                session,
                inputs: Vec::with_capacity(inputs.len()),
                outputs: Vec::with_capacity(outputs.len()),
            }),
            inputs,
            outputs,
        })
    }

    /// # Safety
    /// Each pointer must be null or point to as many bytes as `bytes` says at its place: readable for inputs, readable
    /// and writable for outputs, and untouched by others until this returns.
    unsafe fn run(&self, inputs: Tensors<'_, *const c_void>, outputs: Tensors<'_, *mut c_void>) -> Result<(), Failure> {
        count("input", &self.inputs, inputs.pointers.len())?;
        count("output", &self.outputs, outputs.pointers.len())?;
        for (port, (pointer, bytes)) in self.inputs.iter().zip(inputs.each()) {
            check("input", port, pointer.addr(), bytes)?;
            // SAFETY: of the port's size and not null by `check`, readable by the caller's promise.
            if port.dtype == DType::Bool && !unsafe { all_bool(*pointer, bytes) } {
                return Err(Failure::tensor(format!("input \"{}\" has a bool that is neither 0 nor 1", port.name())));
            }
        }
        for (i, (port, (pointer, bytes))) in self.outputs.iter().zip(outputs.each()).enumerate() {
            let mine = (pointer.addr(), bytes);
            check("output", port, mine.0, mine.1)?;
            let read = inputs.each().map(|(p, bytes)| (p.addr(), bytes));
            let written = outputs.each().take(i).map(|(p, bytes)| (p.addr(), bytes));
            if read.chain(written).any(|other| overlap(mine, other)) {
                return Err(Failure::tensor(format!("output \"{}\" overlaps another tensor", port.name())));
            }
        }
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::WouldBlock) => return Err(Failure::busy()),
            Err(TryLockError::Poisoned(_)) => {
                return Err(Failure::internal("a fault of mcc left this session half run; it can only be freed"));
            }
        };
        let State { session, inputs: read, outputs: written } = &mut *state;
        for (port, (pointer, _)) in self.inputs.iter().zip(inputs.each()) {
            // SAFETY: not null, aligned, of the port's size and of 0 and 1 where it is `bool`, as checked above; readable
            // by the caller's promise. The slice is gone before this function returns.
            read.push(unsafe { borrowed(port, *pointer) });
        }
        for (port, (pointer, bytes)) in self.outputs.iter().zip(outputs.each()) {
            if port.dtype == DType::Bool {
                // SAFETY: `bytes` is the size of what is there, and writable. A slice of `bool` must hold 0 and 1 only.
                unsafe { pointer.cast::<u8>().write_bytes(0, bytes) };
            }
            // SAFETY: as for the inputs; what is written overlaps no other tensor of this call.
            written.push(unsafe { borrowed_mut(port, *pointer) });
        }
        let result = session.run(read, written);
        read.clear();
        written.clear();
        result.map_err(|e| mcc::Error::from(e).into())
    }
}

/// The tensors of one side as the caller gives them.
#[derive(Clone, Copy)]
struct Tensors<'a, P> {
    pointers: &'a [P],
    bytes: &'a [usize],
}

impl<'a, P> Tensors<'a, P> {
    fn each(self) -> impl Iterator<Item = (&'a P, usize)> {
        self.pointers.iter().zip(self.bytes.iter().copied())
    }
}

fn count(side: &str, ports: &[MccPort], found: usize) -> Result<(), Failure> {
    if ports.len() == found {
        return Ok(());
    }
    Err(Failure::tensor(format!("the model has {} {side}s, {found} are given", ports.len())))
}

fn check(side: &str, port: &MccPort, address: usize, bytes: usize) -> Result<(), Failure> {
    let name = port.name();
    if bytes != port.bytes {
        return Err(Failure::tensor(format!("{side} \"{name}\" has {} bytes; {bytes} are given", port.bytes)));
    }
    if address == 0 && bytes > 0 {
        return Err(Failure::argument(format!("the pointer of {side} \"{name}\" is null")));
    }
    let alignment = port.bytes / port.elements.max(1);
    if bytes > 0 && !address.is_multiple_of(alignment) {
        return Err(Failure::tensor(format!("{side} \"{name}\" is not aligned to {alignment} bytes")));
    }
    Ok(())
}

/// Whether two stretches of memory, each with its address and size, have a byte in common.
fn overlap(a: (usize, usize), b: (usize, usize)) -> bool {
    a.1 > 0 && b.1 > 0 && a.0 < b.0.saturating_add(b.1) && b.0 < a.0.saturating_add(a.1)
}

/// # Safety
/// `pointer` must point to `bytes` readable bytes, or `bytes` be 0.
unsafe fn all_bool(pointer: *const c_void, bytes: usize) -> bool {
    // SAFETY: the caller's promise.
    bytes == 0 || unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), bytes) }.iter().all(|b| *b <= 1)
}

/// # Safety
/// `pointer` must point to the port's elements, aligned, or the port have none; they must not change during `'a`.
unsafe fn borrowed<'a>(port: &MccPort, pointer: *const c_void) -> TensorRef<'a> {
    /// # Safety
    /// As above, for elements of type `T`.
    unsafe fn slice<'a, T>(port: &MccPort, pointer: *const c_void) -> &'a [T] {
        if port.elements == 0 {
            return &[];
        }
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(pointer.cast(), port.elements) }
    }
    // SAFETY: the caller's promise; ports have these element types only.
    unsafe {
        match port.dtype {
            DType::F32 => TensorRef::F32(slice(port, pointer)),
            DType::I64 => TensorRef::I64(slice(port, pointer)),
            DType::I32 => TensorRef::I32(slice(port, pointer)),
            DType::I16 => TensorRef::I16(slice(port, pointer)),
            DType::I8 => TensorRef::I8(slice(port, pointer)),
            DType::Bool => TensorRef::Bool(slice(port, pointer)),
            _ => TensorRef::U8(slice(port, pointer)),
        }
    }
}

/// # Safety
/// As [`borrowed`]; the elements must be writable, and nobody else look at them during `'a`.
unsafe fn borrowed_mut<'a>(port: &MccPort, pointer: *mut c_void) -> TensorMut<'a> {
    /// # Safety
    /// As above, for elements of type `T`.
    unsafe fn slice<'a, T>(port: &MccPort, pointer: *mut c_void) -> &'a mut [T] {
        if port.elements == 0 {
            return &mut [];
        }
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(pointer.cast(), port.elements) }
    }
    // SAFETY: the caller's promise; ports have these element types only.
    unsafe {
        match port.dtype {
            DType::F32 => TensorMut::F32(slice(port, pointer)),
            DType::I64 => TensorMut::I64(slice(port, pointer)),
            DType::I32 => TensorMut::I32(slice(port, pointer)),
            DType::I16 => TensorMut::I16(slice(port, pointer)),
            DType::I8 => TensorMut::I8(slice(port, pointer)),
            DType::Bool => TensorMut::Bool(slice(port, pointer)),
            _ => TensorMut::U8(slice(port, pointer)),
        }
    }
}

/// Compiles and hands over what `compile` gives.
///
/// # Safety
/// `session` must be null or point to a writable pointer.
unsafe fn create(session: *mut *mut MccSession, compile: impl FnOnce() -> Result<Session, Failure>) -> MccStatus {
    guarded(|| {
        // SAFETY: the caller's promise.
        let Some(session) = (unsafe { session.as_mut() }) else {
            return Err(Failure::argument("there is no place for the session: the pointer is null"));
        };
        *session = std::ptr::null_mut();
        *session = Box::into_raw(Box::new(MccSession::new(compile()?)?));
        Ok(())
    })
}

/// Compiles an ONNX file (or a graph in the text form, `.mcc`) and puts the session into `*session`, to be freed with
/// `mcc_session_free`. After a failure `*session` is null.
///
/// # Safety
/// `path` must be null or a text in UTF-8 that ends with a zero; `options` null or a live handle that no other thread
/// changes; `session` null or point to a writable pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mcc_session_from_file(
    path: *const c_char,
    options: *const MccOptions,
    session: *mut *mut MccSession,
) -> MccStatus {
    let compile = || {
        // SAFETY: the caller's promise, which is that of the two functions.
        let (path, options) = unsafe { (utf8(path, "the path")?, MccOptions::or_default(options)) };
        Ok(mcc::compile_file(path, &options)?)
    };
    // SAFETY: the caller's promise.
    unsafe { create(session, compile) }
}

/// As `mcc_session_from_file`, of an ONNX file that lies in memory: `size` bytes, which are needed during the call
/// only. Models whose weights are in other files are refused.
///
/// # Safety
/// `model` must be null or point to `size` bytes; `options` null or a live handle that no other thread changes; `session`
/// null or point to a writable pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mcc_session_from_bytes(
    model: *const c_void,
    size: usize,
    options: *const MccOptions,
    session: *mut *mut MccSession,
) -> MccStatus {
    let compile = || {
        // SAFETY: the caller's promise, which is that of the two functions.
        let (model, options) =
            unsafe { (list(model.cast::<u8>(), size, "the model")?, MccOptions::or_default(options)) };
        Ok(mcc::compile_bytes(model.to_vec(), &options)?)
    };
    // SAFETY: the caller's promise.
    unsafe { create(session, compile) }
}

/// Frees a session and its ports. Null is allowed.
///
/// # Safety
/// `session` must be null or come from this library, not be in use by another thread, and not be used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mcc_session_free(session: *mut MccSession) {
    if !session.is_null() {
        guarded(|| {
            // SAFETY: it comes from `Box::into_raw`, and the caller gives it up.
            drop(unsafe { Box::from_raw(session) });
            Ok(())
        });
    }
}

/// Number of inputs; 0 of a null session.
///
/// # Safety
/// `session` must be null or a live session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mcc_session_input_count(session: *const MccSession) -> usize {
    // SAFETY: the caller's promise.
    unsafe { session.as_ref() }.map_or(0, |s| s.inputs.len())
}

/// Number of outputs; 0 of a null session.
///
/// # Safety
/// `session` must be null or a live session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mcc_session_output_count(session: *const MccSession) -> usize {
    // SAFETY: the caller's promise.
    unsafe { session.as_ref() }.map_or(0, |s| s.outputs.len())
}

/// An input, counted from 0 in the model's order; null of a null session and where there is none.
///
/// # Safety
/// `session` must be null or a live session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mcc_session_input(session: *const MccSession, index: usize) -> *const MccPort {
    // SAFETY: the caller's promise.
    unsafe { session.as_ref() }.and_then(|s| s.inputs.get(index)).map_or(std::ptr::null(), std::ptr::from_ref)
}

/// An output, counted from 0 in the model's order; null of a null session and where there is none.
///
/// # Safety
/// `session` must be null or a live session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mcc_session_output(session: *const MccSession, index: usize) -> *const MccPort {
    // SAFETY: the caller's promise.
    unsafe { session.as_ref() }.and_then(|s| s.outputs.get(index)).map_or(std::ptr::null(), std::ptr::from_ref)
}

/// Bytes of working memory; 0 of a null session.
///
/// # Safety
/// `session` must be null or a live session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mcc_session_arena_bytes(session: *const MccSession) -> usize {
    // SAFETY: the caller's promise.
    unsafe { session.as_ref() }.map_or(0, |s| s.arena_bytes)
}

/// Bytes of constants as laid out for the kernels; 0 of a null session.
///
/// # Safety
/// `session` must be null or a live session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mcc_session_weights_bytes(session: *const MccSession) -> usize {
    // SAFETY: the caller's promise.
    unsafe { session.as_ref() }.map_or(0, |s| s.weights_bytes)
}

/// Runs the model once: reads the inputs, fills the outputs. Allocates nothing unless it fails, and copies no tensor that
/// the model can read or write in place.
///
/// `inputs[i]` points to `input_bytes[i]` bytes, which must be as many as `mcc_port_bytes` says,
/// aligned for the elements; so for outputs. Outputs may not overlap other tensors. What outputs hold after a failure is
/// not defined.
///
/// # Safety
/// `session` must be null or a live session. Each array must be null or have as many elements as the count beside it says;
/// each pointer in it must be null or point to as many bytes as are given for it, writable ones for outputs, and no other
/// thread may write inputs or touch outputs during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mcc_session_run(
    session: *mut MccSession,
    inputs: *const *const c_void,
    input_bytes: *const usize,
    input_count: usize,
    outputs: *const *mut c_void,
    output_bytes: *const usize,
    output_count: usize,
) -> MccStatus {
    guarded(|| {
        // SAFETY: the caller's promise.
        let session = unsafe { session.as_ref() }.ok_or_else(|| Failure::argument("the session is null"))?;
        // SAFETY: the caller's promise, which is that of `list`.
        let (inputs, outputs) = unsafe {
            let inputs = Tensors {
                pointers: list(inputs, input_count, "the array of inputs")?,
                bytes: list(input_bytes, input_count, "the array of the inputs' sizes")?,
            };
            let outputs = Tensors {
                pointers: list(outputs, output_count, "the array of outputs")?,
                bytes: list(output_bytes, output_count, "the array of the outputs' sizes")?,
            };
            (inputs, outputs)
        };
        // SAFETY: the caller's promise.
        unsafe { session.run(inputs, outputs) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(session: &MccSession) -> Result<(), MccStatus> {
        let (input, mut logits) = ([0f32; 784], [0f32; 10]);
        let (from, to) = ([input.as_ptr().cast()], [logits.as_mut_ptr().cast()]);
        let (inputs, outputs) = (Tensors { pointers: &from, bytes: &[3136] }, Tensors { pointers: &to, bytes: &[40] });
        // SAFETY: both pointers have as many bytes as said.
        unsafe { session.run(inputs, outputs) }.map_err(|failure| failure.status)
    }

    #[test]
    fn a_session_in_use_is_busy_and_one_after_a_panic_is_refused() {
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/models/fm_lenet5.onnx");
        let session = mcc::compile_file(model, &mcc::Options::host()).unwrap();
        let session = MccSession::new(session).ok().unwrap();
        assert_eq!(run(&session), Ok(()));
        let held = session.state.lock().unwrap();
        assert_eq!(run(&session), Err(MccStatus::Busy));
        drop(held);
        assert_eq!(run(&session), Ok(()));
        let status = guarded(|| {
            let _held = session.state.lock();
            panic!("while it runs")
        });
        assert_eq!((status, run(&session)), (MccStatus::Internal, Err(MccStatus::Internal)));
    }
}
