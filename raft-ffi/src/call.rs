//! The edge: what every exported function goes through on its way in and out.

use std::panic::{self, AssertUnwindSafe};
use std::ptr;

use crate::error::{Failure, RAFT_ERR_INTERNAL, RAFT_OK, raft_error};

/// Runs the body of an exported function: no panic gets out, and a failure becomes a status and an error.
///
/// # Safety
/// `error` is NULL or may be written.
pub(crate) unsafe fn entry(error: *mut *mut raft_error, body: impl FnOnce() -> Result<(), Failure>) -> i32 {
    if !error.is_null() {
        // SAFETY: the caller vouches for `error`.
        unsafe { ptr::write(error, ptr::null_mut()) };
    }
    let result = panic::catch_unwind(AssertUnwindSafe(body))
        .unwrap_or_else(|_| Err(Failure::new(RAFT_ERR_INTERNAL, "a defect of the library was caught")));
    match result {
        Ok(()) => RAFT_OK,
        // SAFETY: the caller vouches for `error`.
        Err(failure) => unsafe { failure.hand_over(error) },
    }
}

pub(crate) fn not_yet() -> Result<(), Failure> {
    Err(Failure::new(RAFT_ERR_INTERNAL, "not implemented in this version"))
}
