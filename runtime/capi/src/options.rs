//! How to compile: an opaque handle with a function for each setting.

use crate::error::{Failure, MccStatus, guarded};
use mcc::Options;
use std::ffi::{CStr, c_char};

/// How a model is compiled. Where a function takes options, null means the defaults.
pub struct MccOptions(Options);

impl MccOptions {
    /// # Safety
    /// `options` is null or a live handle that nobody changes during `'a`.
    pub(crate) unsafe fn or_default(options: *const MccOptions) -> Options {
        // SAFETY: the caller's promise.
        unsafe { options.as_ref() }.map_or_else(Options::host, |o| o.0.clone())
    }
}

/// # Safety
/// `text` is null or points to bytes that end with a zero and do not change during `'a`.
pub(crate) unsafe fn utf8<'a>(text: *const c_char, what: &str) -> Result<&'a str, Failure> {
    if text.is_null() {
        return Err(Failure::argument(format!("{what} is null")));
    }
    // SAFETY: not null, and the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Failure::argument(format!("{what} is not UTF-8")))
}

/// # Safety
/// As [`MccOptions::or_default`], and nobody else uses the handle during `'a`.
unsafe fn settings<'a>(options: *mut MccOptions) -> Result<&'a mut Options, Failure> {
    // SAFETY: the caller's promise.
    let options = unsafe { options.as_mut() };
    options.map(|o| &mut o.0).ok_or_else(|| Failure::argument("the options are null"))
}

/// Options with their defaults, to be freed with `mcc_options_free`; null only after a fault of mcc.
#[unsafe(no_mangle)]
pub extern "C" fn mcc_options_new() -> *mut MccOptions {
    let mut options = std::ptr::null_mut();
    guarded(|| {
        options = Box::into_raw(Box::new(MccOptions(Options::host())));
        Ok(())
    });
    options
}

/// Frees options; sessions that were made with them do not mind. Null is allowed.
///
/// # Safety
/// `options` must be null or come from `mcc_options_new`, and not be used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mcc_options_free(options: *mut MccOptions) {
    if !options.is_null() {
        guarded(|| {
            // SAFETY: it comes from `Box::into_raw`, and the caller gives it up.
            drop(unsafe { Box::from_raw(options) });
            Ok(())
        });
    }
}

/// Gives a symbolic dimension of the model, such as "batch", its size.
///
/// # Safety
/// `options` must be null or a live handle that no other thread uses; `name` null or a text that ends with a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mcc_options_set_input_dim(
    options: *mut MccOptions,
    name: *const c_char,
    size: usize,
) -> MccStatus {
    guarded(|| {
        // SAFETY: the caller's promise, which is that of the two functions.
        let (options, name) = unsafe { (settings(options)?, utf8(name, "the name")?) };
        options.import.input_dims.insert(name.into(), size);
        Ok(())
    })
}

/// Gives an input of the model a whole shape, of `rank` dimensions, outermost first.
///
/// # Safety
/// `options` must be null or a live handle that no other thread uses; `name` null or a text that ends with a zero;
/// `shape` null or point to `rank` sizes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mcc_options_set_input_shape(
    options: *mut MccOptions,
    name: *const c_char,
    shape: *const usize,
    rank: usize,
) -> MccStatus {
    guarded(|| {
        // SAFETY: the caller's promise, which is that of the two functions.
        let (options, name) = unsafe { (settings(options)?, utf8(name, "the name")?) };
        // SAFETY: the caller's promise.
        let shape = unsafe { list(shape, rank, "the shape") }?;
        options.import.input_shapes.insert(name.into(), shape.to_vec());
        Ok(())
    })
}

/// `count` elements at `first`, which may be null where there are none.
///
/// # Safety
/// `first` is null, not aligned, or points to `count` elements that do not change during `'a`.
pub(crate) unsafe fn list<'a, T>(first: *const T, count: usize, what: &str) -> Result<&'a [T], Failure> {
    if count == 0 {
        return Ok(&[]);
    }
    if first.is_null() {
        return Err(Failure::argument(format!("{what} is null")));
    }
    if !first.is_aligned() || count > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(Failure::argument(format!("{what} is not an array of {count}")));
    }
    // SAFETY: not null, aligned, not larger than memory can be, and the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(first, count) })
}
