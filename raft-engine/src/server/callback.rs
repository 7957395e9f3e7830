//! Calls into the host: marked, so that calls that would wait for themselves are refused, and caught, so that a panic in
//! one takes nothing else down.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Whether this thread is in a callback of any server.
pub(super) fn is_in_callback() -> bool {
    DEPTH.get() > 0
}

/// Calls the host.
///
/// # Errors
/// What it panicked with.
pub(super) fn call<R>(callback: impl FnOnce() -> R) -> Result<R, String> {
    DEPTH.set(DEPTH.get() + 1);
    let result = caught(callback);
    DEPTH.set(DEPTH.get() - 1);
    result
}

/// Calls something that may have a defect.
///
/// # Errors
/// What it panicked with.
pub(super) fn caught<R>(call: impl FnOnce() -> R) -> Result<R, String> {
    // Whoever catches drops, or never uses again, what the call may have left half changed.
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| format!("panicked: {}", message(&*panic)))
}

fn message(panic: &(dyn Any + Send)) -> &str {
    if let Some(message) = panic.downcast_ref::<&str>() {
        message
    } else if let Some(message) = panic.downcast_ref::<String>() {
        message
    } else {
        "no message"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_caught_and_told_and_leaves_no_mark() {
        assert_eq!(call(|| -> () { panic!("here: {}", 1) }), Err("panicked: here: 1".into()));
        assert!(!is_in_callback());
        assert_eq!(call(is_in_callback), Ok(true));
    }
}
