//! What every function goes through that asks something of a group: by completion, or waiting for the end.
//!
//! A failure of any of them is certainly not applied, unless it says otherwise: nothing was handed on.

use raft_engine::server::Group;

use crate::call::{entry, refuse_in_callback, store};
use crate::error::{Failure, raft_error};
use crate::group::raft_group;
use crate::live;
use crate::propose::not_applied;

/// Asks and returns: the end comes as a completion, which somebody must hear of.
///
/// # Safety
/// `error` is NULL or may be written.
pub(crate) unsafe fn submit(
    group: *mut raft_group,
    error: *mut *mut raft_error,
    ask: impl FnOnce(&Group) -> Result<(), Failure>,
) -> i32 {
    let body = || {
        let group = live::group(group)?;
        group.refuse_unheard()?;
        ask(&group.group)
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { entry(error, || body().map_err(not_applied)) }
}

/// Asks and waits for the end, on behalf of the function named `call`.
///
/// # Safety
/// `error` is NULL or may be written.
pub(crate) unsafe fn wait(
    call: &str,
    group: *mut raft_group,
    error: *mut *mut raft_error,
    ask: impl FnOnce(&Group) -> Result<(), Failure>,
) -> i32 {
    let body = || {
        let group = live::group(group)?;
        refuse_in_callback(call)?;
        ask(&group.group)
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { entry(error, || body().map_err(not_applied)) }
}

/// As [`wait`], for an end that is a number: it goes to `out`, which is 0 after a failure.
///
/// # Safety
/// `out` and `error` are each NULL or may be written.
pub(crate) unsafe fn wait_for_number(
    call: &str,
    group: *mut raft_group,
    out: *mut u64,
    error: *mut *mut raft_error,
    ask: impl FnOnce(&Group) -> Result<u64, Failure>,
) -> i32 {
    let body = || {
        // SAFETY: the caller vouches for `out`.
        unsafe { store(out, 0) };
        let group = live::group(group)?;
        refuse_in_callback(call)?;
        let number = ask(&group.group)?;
        // SAFETY: as above.
        unsafe { store(out, number) };
        Ok(())
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { entry(error, || body().map_err(not_applied)) }
}
