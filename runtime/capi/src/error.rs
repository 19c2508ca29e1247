//! Status, and the last error of each thread.

use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How a call ended.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MccStatus {
    /// The call did what it says.
    Ok = 0,
    /// The model cannot be read, or mcc does not support it.
    Model = 1,
    /// Number, size or alignment of the tensors is not what the model's inputs and outputs need, or they overlap.
    Tensor = 2,
    /// A pointer is null, a text is not UTF-8, or options do not go together.
    Argument = 3,
    /// Another thread runs this session.
    Busy = 4,
    /// A fault of mcc. A session that it happened in can only be freed.
    Internal = 5,
}

/// Why a call failed; the message is for people, the code is stable.
pub(crate) struct Failure {
    pub status: MccStatus,
    code: &'static str,
    message: String,
}

impl Failure {
    pub fn argument(message: impl Into<String>) -> Failure {
        Failure { status: MccStatus::Argument, code: "E0701", message: message.into() }
    }

    pub fn tensor(message: impl Into<String>) -> Failure {
        Failure { status: MccStatus::Tensor, code: "E0702", message: message.into() }
    }

    pub fn busy() -> Failure {
        let message = "another thread runs this session; each thread needs a session of its own".into();
        Failure { status: MccStatus::Busy, code: "E0703", message }
    }

    pub fn internal(message: impl Into<String>) -> Failure {
        Failure { status: MccStatus::Internal, code: "E0704", message: message.into() }
    }
}

impl From<mcc::Error> for Failure {
    fn from(error: mcc::Error) -> Failure {
        let status = match (&error, error.exit_status()) {
            (mcc::Error::Run(_), _) => MccStatus::Tensor,
            (_, 4) => MccStatus::Internal,
            (_, 64) => MccStatus::Argument,
            _ => MccStatus::Model,
        };
        Failure { status, code: error.code(), message: error.to_string() }
    }
}

thread_local! {
    static LAST: RefCell<(CString, CString)> = RefCell::default();
}

fn remember(failure: Failure) -> MccStatus {
    let text = |s: &str| CString::new(s.replace('\0', " ")).expect("zeros are replaced");
    let texts = (text(failure.code), text(&failure.message));
    // While a thread ends, its storage may be gone; the status still tells.
    let _ = LAST.try_with(|last| *last.borrow_mut() = texts);
    failure.status
}

/// Runs the body of a function of the interface: a failure or a panic is remembered and becomes the status.
///
/// What a panic may leave half done is a session, whose lock is poisoned then and refuses further use.
pub(crate) fn guarded(body: impl FnOnce() -> Result<(), Failure>) -> MccStatus {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => MccStatus::Ok,
        Ok(Err(failure)) => remember(failure),
        Err(payload) => {
            let text = payload.downcast_ref::<&str>().copied();
            let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic");
            let status = remember(Failure::internal(text));
            // What was thrown may throw again when it is dropped.
            std::mem::forget(payload);
            status
        }
    }
}

/// The stable code of the last error in this thread, such as "E0601"; empty where there was none.
///
/// The text is valid until the next call of this library that fails in the same thread, and until the thread ends.
#[unsafe(no_mangle)]
pub extern "C" fn mcc_last_error_code() -> *const c_char {
    LAST.try_with(|last| last.borrow().0.as_ptr()).unwrap_or(c"".as_ptr())
}

/// The message of the last error in this thread, in UTF-8; empty where there was none.
///
/// The text is valid until the next call of this library that fails in the same thread, and until the thread ends.
#[unsafe(no_mangle)]
pub extern "C" fn mcc_last_error_message() -> *const c_char {
    LAST.try_with(|last| last.borrow().1.as_ptr()).unwrap_or(c"".as_ptr())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    fn last() -> (String, String) {
        // SAFETY: both are texts that end with a zero, and no call that fails comes between.
        let text = |p| unsafe { CStr::from_ptr(p) }.to_str().unwrap().to_string();
        (text(mcc_last_error_code()), text(mcc_last_error_message()))
    }

    #[test]
    fn panics_become_a_status() {
        assert_eq!(guarded(|| panic!("about {}", 7)), MccStatus::Internal);
        assert_eq!(last(), ("E0704".into(), "about 7".into()));
        assert_eq!(guarded(|| std::panic::panic_any(7)), MccStatus::Internal);
        assert_eq!(last().1, "a panic");
    }

    #[test]
    fn each_thread_has_its_own_last_error() {
        assert_eq!(guarded(|| Err(Failure::argument("of this thread"))), MccStatus::Argument);
        std::thread::spawn(|| {
            assert_eq!(last(), (String::new(), String::new()));
            assert_eq!(guarded(|| Err(Failure::tensor("of\0another"))), MccStatus::Tensor);
            assert_eq!(last(), ("E0702".into(), "of another".into()));
        })
        .join()
        .unwrap();
        assert_eq!(guarded(|| Ok(())), MccStatus::Ok);
        assert_eq!(last(), ("E0701".into(), "of this thread".into()), "success leaves the last error alone");
    }
}
