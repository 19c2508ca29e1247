//! The C interface to sessions: `include/mcc.h`, which cbindgen makes of this crate, and a shared and a static library.
//!
//! What holds for all functions:
//!
//! - Handles are opaque. What grows later, grows by new functions: the layout of no struct is part of the interface.
//! - A function that can fail returns an [`MccStatus`] and leaves code and message for [`mcc_last_error_code`] and
//!   [`mcc_last_error_message`], which are the calling thread's own.
//! - Null where a pointer is needed is an error, not a crash; null is a valid argument of every `free`.
//! - No panic leaves a function: it becomes `MCC_STATUS_INTERNAL`.

mod error;
mod options;
mod port;
mod session;

pub use error::{MccStatus, mcc_last_error_code, mcc_last_error_message};
pub use options::{
    MccOptions, mcc_options_free, mcc_options_new, mcc_options_set_input_dim, mcc_options_set_input_shape,
};
pub use port::{
    MccDtype, MccPort, mcc_port_bytes, mcc_port_dtype, mcc_port_elements, mcc_port_name, mcc_port_quantization,
    mcc_port_rank, mcc_port_shape,
};
pub use session::{
    MccSession, mcc_session_arena_bytes, mcc_session_free, mcc_session_from_bytes, mcc_session_from_file,
    mcc_session_input, mcc_session_input_count, mcc_session_output, mcc_session_output_count, mcc_session_run,
    mcc_session_weights_bytes,
};

use std::ffi::c_char;

/// The version of the library, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn mcc_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}
