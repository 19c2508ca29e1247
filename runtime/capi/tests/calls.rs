//! The functions of the interface, called as C calls them.

mod support;

use mcc_capi::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::{CStr, CString, c_void};
use std::ptr::{null, null_mut};
use support::*;

/// Counts what each thread allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: `System` does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A session that is freed at the end.
struct Handle(*mut MccSession);

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the session came from the library, and nobody else has it.
        unsafe { mcc_session_free(self.0) };
    }
}

fn from_file(model: &str, options: *const MccOptions) -> Result<Handle, MccStatus> {
    let path = CString::new(models().join(model).to_str().unwrap()).unwrap();
    let mut session = null_mut();
    // SAFETY: a text that ends with a zero, options that live, and a writable pointer.
    let status = unsafe { mcc_session_from_file(path.as_ptr(), options, &mut session) };
    assert_eq!(status == MccStatus::Ok, !session.is_null());
    if status == MccStatus::Ok { Ok(Handle(session)) } else { Err(status) }
}

/// Code and message of the last error. Codes are looked up in a list, so that they compare with literals.
fn last() -> (&'static str, String) {
    // SAFETY: texts of the library, copied before its next call.
    let text = |p| unsafe { CStr::from_ptr(p) }.to_str().unwrap().to_string();
    let code = text(mcc_last_error_code());
    let known = ["E0101", "E0102", "E0701", "E0702", "E0703"];
    (known.into_iter().find(|k| *k == code).unwrap_or("another"), text(mcc_last_error_message()))
}

fn run(session: &Handle, inputs: &[(*const c_void, usize)], outputs: &[(*mut c_void, usize)]) -> MccStatus {
    let (from, from_bytes): (Vec<_>, Vec<_>) = inputs.iter().copied().unzip();
    let (to, to_bytes): (Vec<_>, Vec<_>) = outputs.iter().copied().unzip();
    let (from_bytes, to_bytes) = (from_bytes.as_ptr(), to_bytes.as_ptr());
    // SAFETY: the arrays are as long as said; the tests give pointers to memory of their sizes.
    unsafe { mcc_session_run(session.0, from.as_ptr(), from_bytes, from.len(), to.as_ptr(), to_bytes, to.len()) }
}

#[test]
fn ports_say_what_the_model_has() {
    let session = from_file("fm_lenet5.onnx", null()).unwrap();
    // SAFETY: the session lives; so do its ports, names and shapes.
    unsafe {
        assert_eq!((mcc_session_input_count(session.0), mcc_session_output_count(session.0)), (1, 1));
        let (input, output) = (mcc_session_input(session.0, 0), mcc_session_output(session.0, 0));
        assert_eq!(CStr::from_ptr(mcc_port_name(input)), c"input");
        assert_eq!(CStr::from_ptr(mcc_port_name(output)), c"logits");
        assert_eq!((mcc_port_dtype(input), mcc_port_dtype(output)), (MccDtype::F32, MccDtype::F32));
        assert_eq!(std::slice::from_raw_parts(mcc_port_shape(input), mcc_port_rank(input)), [1, 1, 28, 28]);
        assert_eq!((mcc_port_elements(input), mcc_port_bytes(input)), (784, 3136));
        assert_eq!((mcc_port_elements(output), mcc_port_bytes(output)), (10, 40));
        assert_eq!(mcc_port_quantization(input, null_mut(), null_mut()), 0);
        assert!(mcc_session_input(session.0, 1).is_null() && mcc_session_output(session.0, 1).is_null());
        assert!(mcc_session_arena_bytes(session.0) > 0 && mcc_session_weights_bytes(session.0) > 100_000);
        assert_eq!(CStr::from_ptr(mcc_version()).to_str(), Ok(env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn runs_from_a_file_and_from_bytes_without_allocating() {
    let bytes = std::fs::read(models().join("fm_lenet5.onnx")).unwrap();
    let mut second = null_mut();
    // SAFETY: the bytes are there, and the pointer is writable.
    let status = unsafe { mcc_session_from_bytes(bytes.as_ptr().cast(), bytes.len(), null(), &mut second) };
    assert_eq!(status, MccStatus::Ok);
    drop(bytes);
    for session in [from_file("fm_lenet5.onnx", null()).unwrap(), Handle(second)] {
        let (input, mut logits) = (stored("in:input"), [0f32; 10]);
        let from: [*const c_void; 1] = [input.as_ptr().cast()];
        let to: [*mut c_void; 1] = [logits.as_mut_ptr().cast()];
        let before = ALLOCATIONS.get();
        for _ in 0..3 {
            // SAFETY: arrays of one pointer, to as many bytes as said.
            let status = unsafe { mcc_session_run(session.0, from.as_ptr(), &3136, 1, to.as_ptr(), &40, 1) };
            assert_eq!(status, MccStatus::Ok);
        }
        assert_eq!(ALLOCATIONS.get(), before, "running allocates");
        assert_close(&logits);
    }
}

#[test]
fn tensors_that_do_not_fit_are_refused() {
    let session = from_file("fm_lenet5.onnx", null()).unwrap();
    let (input, mut all) = (stored("in:input"), vec![0f32; 800]);
    let (from, to): (*const c_void, *mut c_void) = (input.as_ptr().cast(), all.as_mut_ptr().cast());
    let refused = |inputs: &[(*const c_void, usize)], outputs: &[(*mut c_void, usize)]| {
        assert_ne!(run(&session, inputs, outputs), MccStatus::Ok);
        last()
    };
    assert_eq!(refused(&[], &[(to, 40)]), ("E0702", "the model has 1 inputs, 0 are given".into()));
    assert_eq!(refused(&[(from, 3136)], &[(to, 40); 2]), ("E0702", "the model has 1 outputs, 2 are given".into()));
    let small = "input \"input\" has 3136 bytes; 3135 are given";
    assert_eq!(refused(&[(from, 3135)], &[(to, 40)]), ("E0702", small.into()));
    let null_input = "the pointer of input \"input\" is null";
    assert_eq!(refused(&[(null(), 3136)], &[(to, 40)]), ("E0701", null_input.into()));
    let odd = to.wrapping_byte_add(1);
    assert_eq!(refused(&[(from, 3136)], &[(odd, 40)]), ("E0702", "output \"logits\" is not aligned to 4 bytes".into()));
    let inside = to.wrapping_byte_add(3132);
    assert_eq!(refused(&[(to, 3136)], &[(inside, 40)]), ("E0702", "output \"logits\" overlaps another tensor".into()));
    assert_eq!(run(&session, &[(from, 3136)], &[(to, 40)]), MccStatus::Ok, "the session is as good as before");
    assert_close(&all[..10]);
}

#[test]
fn null_is_an_error_and_not_a_crash() {
    // SAFETY: null is allowed everywhere.
    unsafe {
        mcc_session_free(null_mut());
        mcc_options_free(null_mut());
        assert_eq!((mcc_session_input_count(null()), mcc_session_output_count(null())), (0, 0));
        assert_eq!((mcc_session_arena_bytes(null()), mcc_session_weights_bytes(null())), (0, 0));
        assert!(mcc_session_input(null(), 0).is_null() && mcc_session_output(null(), 0).is_null());
        assert!(mcc_port_name(null()).is_null() && mcc_port_shape(null()).is_null());
        assert_eq!((mcc_port_rank(null()), mcc_port_elements(null()), mcc_port_bytes(null())), (0, 0, 0));
        assert_eq!(mcc_port_dtype(null()), MccDtype::None);
        assert_eq!(mcc_port_quantization(null(), null_mut(), null_mut()), 0);
        let argument = MccStatus::Argument;
        assert_eq!(mcc_options_set_input_dim(null_mut(), c"n".as_ptr(), 1), argument);
        assert_eq!(mcc_session_from_file(c"x".as_ptr(), null(), null_mut()), argument);
        let mut session = null_mut();
        assert_eq!(mcc_session_from_file(null(), null(), &mut session), argument);
        assert_eq!(mcc_session_from_file(c"\xff".as_ptr(), null(), &mut session), argument);
        assert_eq!(last(), ("E0701", "the path is not UTF-8".into()));
        assert_eq!(mcc_session_from_bytes(null(), 3, null(), &mut session), argument);
        assert_eq!(mcc_session_run(null_mut(), null(), null(), 0, null(), null(), 0), argument);
        assert_eq!(last(), ("E0701", "the session is null".into()));
        let session = from_file("fm_lenet5.onnx", null()).unwrap();
        assert_eq!(mcc_session_run(session.0, null(), &3136, 1, null(), null(), 0), argument);
        assert_eq!(last(), ("E0701", "the array of inputs is null".into()));
        let to = [null_mut()];
        assert_eq!(mcc_session_run(session.0, null(), null(), 0, to.as_ptr(), null(), 1), argument);
        assert_eq!(last(), ("E0701", "the array of the outputs' sizes is null".into()));
    }
}

#[test]
fn models_at_fault_are_told_with_their_code() {
    assert_eq!(from_file("README.md", null()).err(), Some(MccStatus::Model));
    assert_eq!(last().0, "E0101", "{:?}", last());
    let mut session = null_mut();
    // SAFETY: three bytes, and a writable pointer.
    let status = unsafe { mcc_session_from_bytes(c"abc".as_ptr().cast(), 3, null(), &mut session) };
    assert_eq!((status, session.is_null()), (MccStatus::Model, true));
}

#[test]
fn options_reach_the_import() {
    let options = mcc_options_new();
    // SAFETY: the options live until they are freed, the shape has four sizes.
    unsafe {
        assert_eq!(mcc_options_set_input_dim(options, c"batch".as_ptr(), 2), MccStatus::Ok);
        let shape = [1, 1, 28, 28];
        assert_eq!(mcc_options_set_input_shape(options, c"other".as_ptr(), shape.as_ptr(), 4), MccStatus::Ok);
    }
    assert_eq!(from_file("fm_lenet5.onnx", options).err(), Some(MccStatus::Model), "the model has neither");
    assert!(last().1.contains("other"), "{}", last().1);
    // SAFETY: not used again.
    unsafe { mcc_options_free(options) };
}

/// One session in two threads: who finds it busy tries again, and what ran is right.
#[test]
fn two_threads_may_share_a_session() {
    let session = from_file("fm_lenet5.onnx", null()).unwrap();
    let (address, input) = (session.0.expose_provenance(), stored("in:input"));
    let thread = || {
        let session = std::mem::ManuallyDrop::new(Handle(std::ptr::with_exposed_provenance_mut(address)));
        for _ in 0..200 {
            let mut logits = [0f32; 10];
            loop {
                match run(&session, &[(input.as_ptr().cast(), 3136)], &[(logits.as_mut_ptr().cast(), 40)]) {
                    MccStatus::Ok => break assert_close(&logits),
                    status => assert_eq!((status, last().0), (MccStatus::Busy, "E0703")),
                }
                std::thread::yield_now();
            }
        }
    };
    std::thread::scope(|scope| [scope.spawn(thread), scope.spawn(thread)].map(|t| t.join().unwrap()));
}
