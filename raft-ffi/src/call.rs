//! The edge: what every exported function goes through on its way in and out.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::time::Duration;
use std::{env, ptr, slice};

use crate::error::{
    Failure, RAFT_ERR_ARGUMENT, RAFT_ERR_IN_CALLBACK, RAFT_ERR_INTERNAL, RAFT_ERR_STRUCT_SIZE, RAFT_OK, raft_error,
};

/// The longest text that a host may pass, in bytes: a path.
const MAX_TEXT_BYTES: usize = 4096;

/// The longest struct that a later version may have, in bytes.
const MAX_STRUCT_BYTES: usize = 4096;

/// Stands for "without limit" where a wait takes a duration: a century, which clocks can add.
const FOREVER: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

thread_local! {
    /// How many callbacks of the host are on this thread's stack.
    static CALLBACKS: Cell<usize> = const { Cell::new(0) };
    /// Where the last panic of this thread was.
    static PANIC_PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs the body of an exported function: no panic gets out, and a failure becomes a status and an error.
///
/// # Safety
/// `error` is NULL or may be written.
pub(crate) unsafe fn entry(error: *mut *mut raft_error, body: impl FnOnce() -> Result<(), Failure>) -> i32 {
    if !error.is_null() {
        // SAFETY: the caller vouches for `error`.
        unsafe { ptr::write(error, ptr::null_mut()) };
    }
    match panic::catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| Err(caught(payload))) {
        Ok(()) => RAFT_OK,
        // SAFETY: the caller vouches for `error`.
        Err(failure) => unsafe { failure.hand_over(error) },
    }
}

/// Runs the body of an exported function that cannot fail: no panic gets out.
pub(crate) fn accessor<T>(neutral: T, body: impl FnOnce() -> T) -> T {
    panic::catch_unwind(AssertUnwindSafe(body)).unwrap_or(neutral)
}

fn caught(payload: Box<dyn Any + Send>) -> Failure {
    let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "a panic without a message".to_owned(),
    };
    // Dropping a foreign payload may itself panic.
    std::mem::forget(payload);
    let place = PANIC_PLACE.take().unwrap_or_else(|| "an unknown place".to_owned());
    Failure::new(RAFT_ERR_INTERNAL, format!("a defect of the library was caught: {text}, at {place}; please report it"))
}

/// Keeps panics off the host's standard error, unless its operator asked for them by RUST_BACKTRACE. The standard
/// library of this shared object is its own: no other Rust code of the process is affected.
pub(crate) fn silence_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let is_asked_for = env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
        let default = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            PANIC_PLACE.set(panic.location().map(ToString::to_string));
            if is_asked_for {
                default(panic);
            }
        }));
    });
}

/// Marks this thread as being in a callback of the host for as long as it lives.
pub(crate) struct InCallback(());

impl InCallback {
    /// Enters a callback.
    pub(crate) fn enter() -> Self {
        CALLBACKS.set(CALLBACKS.get() + 1);
        Self(())
    }
}

impl Drop for InCallback {
    fn drop(&mut self) {
        CALLBACKS.set(CALLBACKS.get() - 1);
    }
}

/// Refuses a call that waits, where it would wait for the callback that makes it.
pub(crate) fn refuse_in_callback(call: &str) -> Result<(), Failure> {
    if CALLBACKS.get() == 0 {
        return Ok(());
    }
    Err(Failure::new(RAFT_ERR_IN_CALLBACK, format!("{call} waits, and was called in a callback: call it from outside")))
}

/// A failure of an argument.
pub(crate) fn argument(message: impl Into<String>) -> Failure {
    Failure::new(RAFT_ERR_ARGUMENT, message)
}

/// Where a result goes: not NULL, and cleared, so that it is NULL or 0 after a failure.
///
/// # Safety
/// `out` is NULL or may be written.
pub(crate) unsafe fn clear<T>(out: *mut *mut T, name: &str) -> Result<(), Failure> {
    if out.is_null() {
        return Err(argument(format!("`{name}` is NULL: there is nowhere to put the result")));
    }
    // SAFETY: the caller vouches for `out`.
    unsafe { ptr::write(out, ptr::null_mut()) };
    Ok(())
}

/// Stores a value where the caller wants it; NULL where it does not.
///
/// # Safety
/// `out` is NULL or may be written.
pub(crate) unsafe fn store<T>(out: *mut T, value: T) {
    if !out.is_null() {
        // SAFETY: the caller vouches for `out`.
        unsafe { ptr::write(out, value) };
    }
}

/// A text of the host, without its NUL, of at most a path's length.
///
/// # Safety
/// `text` is NULL or ends with a NUL, and outlives the use.
pub(crate) unsafe fn raw_text<'a>(text: *const c_char, name: &str) -> Result<&'a [u8], Failure> {
    if text.is_null() {
        return Err(argument(format!("`{name}` is NULL")));
    }
    // SAFETY: the caller vouches for it.
    let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
    match bytes.len() {
        0 => Err(argument(format!("`{name}` is empty"))),
        1..=MAX_TEXT_BYTES => Ok(bytes),
        length => Err(argument(format!("`{name}` has {length} bytes, more than {MAX_TEXT_BYTES}"))),
    }
}

/// A text of the host in UTF-8.
///
/// # Safety
/// As for [`raw_text`].
pub(crate) unsafe fn text<'a>(text: *const c_char, name: &str) -> Result<&'a str, Failure> {
    // SAFETY: the caller vouches for it.
    let bytes = unsafe { raw_text(text, name) }?;
    std::str::from_utf8(bytes).map_err(|_| argument(format!("`{name}` is not UTF-8")))
}

/// An array of the host; NULL and 0 are an empty one.
///
/// # Safety
/// `data` is NULL or has `length` elements that may be read for as long as they are used.
pub(crate) unsafe fn array<'a, T>(data: *const T, length: usize, name: &str) -> Result<&'a [T], Failure> {
    if length == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(argument(format!("`{name}` is NULL, and its length is {length}")));
    }
    if !data.is_aligned() {
        return Err(argument(format!("`{name}` is not aligned")));
    }
    let is_possible = length.checked_mul(size_of::<T>()).is_some_and(|bytes| bytes <= isize::MAX as usize);
    if !is_possible {
        return Err(argument(format!("`{name}` cannot have a length of {length}")));
    }
    // SAFETY: not NULL, aligned, of a possible length; the rest is the caller's word.
    Ok(unsafe { slice::from_raw_parts(data, length) })
}

/// A struct that is passed singly: it begins with its size, and grows at its end.
///
/// # Safety
/// `Self` is plain data that begins with a `usize`, without padding, and zeros are a value of it.
pub(crate) unsafe trait Versioned: Copy {
    /// Its name in C.
    const NAME: &str;
    /// The size that it had in the first version of the header.
    const FIRST_BYTES: usize;
}

/// Copies a struct that begins with its size. What a program of an earlier header does not have is zero. A program of a
/// later one may pass a longer one, as long as what this library does not know is zero: it then asks for nothing that
/// would be ignored.
///
/// # Safety
/// `from` is NULL or may be read for the size at its head.
pub(crate) unsafe fn sized<T: Versioned>(from: *const T) -> Result<T, Failure> {
    // SAFETY: the caller vouches for it.
    let size = unsafe { struct_size(from) }?;
    let known = size.min(size_of::<T>());
    // SAFETY: `size` bytes may be read.
    let rest = unsafe { slice::from_raw_parts(from.cast::<u8>().add(known), size - known) };
    if rest.iter().any(|byte| *byte != 0) {
        let message = format!("{} uses fields that this version of the library does not know", T::NAME);
        return Err(Failure::new(RAFT_ERR_STRUCT_SIZE, message));
    }
    let mut copy = MaybeUninit::<T>::zeroed();
    // SAFETY: `known` bytes may be read, and T has them; zeros are a value of the rest.
    unsafe {
        ptr::copy_nonoverlapping(from.cast::<u8>(), copy.as_mut_ptr().cast::<u8>(), known);
        Ok(copy.assume_init())
    }
}

/// Fills in a struct of the host as far as it goes, and says how far in its size.
///
/// # Safety
/// `into` is NULL or may be written for the size at its head.
pub(crate) unsafe fn fill<T: Versioned>(into: *mut T, told: T) -> Result<(), Failure> {
    // SAFETY: the caller vouches for it.
    let known = unsafe { struct_size(into) }?.min(size_of::<T>());
    // SAFETY: `known` bytes may be written, and `told` has them; a T begins with its size.
    unsafe {
        ptr::copy_nonoverlapping((&raw const told).cast::<u8>(), into.cast::<u8>(), known);
        ptr::write(into.cast::<usize>(), known);
    }
    Ok(())
}

/// The size at the head of a struct, if one of a version of the header.
///
/// # Safety
/// `from` is NULL or begins with a size that may be read.
pub(crate) unsafe fn struct_size<T: Versioned>(from: *const T) -> Result<usize, Failure> {
    let name = T::NAME;
    if from.is_null() || !from.is_aligned() {
        return Err(argument(format!("{name} is NULL or not aligned")));
    }
    // SAFETY: the caller vouches for it.
    let size = unsafe { ptr::read(from.cast::<usize>()) };
    if (T::FIRST_BYTES..=MAX_STRUCT_BYTES).contains(&size) {
        return Ok(size);
    }
    let message = format!("{name} has size {size}; set it to sizeof({name}), which is {}", size_of::<T>());
    Err(Failure::new(RAFT_ERR_STRUCT_SIZE, message))
}

/// How long a call may wait.
pub(crate) fn timeout(timeout_ms: i64) -> Result<Duration, Failure> {
    match u64::try_from(timeout_ms) {
        Ok(milliseconds) => Ok(Duration::from_millis(milliseconds).min(FOREVER)),
        Err(_) if timeout_ms == -1 => Ok(FOREVER),
        Err(_) => Err(argument(format!("`timeout_ms` is {timeout_ms}: it is 0 or more, or -1 for no limit"))),
    }
}

/// How long what was asked for may take before it is given up.
pub(crate) fn patience(patience_ms: i64) -> Result<Duration, Failure> {
    timeout(patience_ms)
        .map_err(|_| argument(format!("`patience_ms` is {patience_ms}: it is 0 or more, or -1 for no limit")))
}
