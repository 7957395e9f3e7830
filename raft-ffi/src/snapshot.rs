//! Section "Snapshots" of the header.

use crate::call::timeout;
use crate::error::raft_error;
use crate::group::raft_group;
use crate::request::{submit, wait_for_number};

/// Asks for a snapshot of the state machine now, and returns without waiting for it. The library also takes them by
/// itself, by the length of the log.
///
/// - `tag`: comes back with the completion.
///
/// Any thread, also in a callback. Does not block.
/// Errors: RAFT_ERR_HANDLE, RAFT_ERR_MODE, RAFT_ERR_STOPPED, RAFT_ERR_CLOSED, RAFT_ERR_FORKED. The completion's:
/// RAFT_ERR_BUSY (one is in progress, or nothing was applied since the last), RAFT_ERR_CALLBACK, RAFT_ERR_DISK_FULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_snapshot_submit(
    group: *mut raft_group,
    tag: u64,
    error: *mut *mut raft_error,
) -> i32 {
    // SAFETY: `error` is as the header asks.
    unsafe { submit(group, error, |group| Ok(group.snapshot_submit(tag)?)) }
}

/// Takes a snapshot now and waits until it is durable.
///
/// - `timeout_ms`: how long to wait; -1 waits without limit. When it is over, the snapshot goes on.
/// - `out`: receives the index through which it covers the log; may be NULL.
///
/// Any thread, not in a callback; in host mode not the thread that should dispatch meanwhile. Blocks.
/// Errors: those of raft_group_snapshot_submit and its completion, RAFT_ERR_TIMEOUT, RAFT_ERR_IN_CALLBACK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_snapshot(
    group: *mut raft_group,
    timeout_ms: i64,
    out: *mut u64,
    error: *mut *mut raft_error,
) -> i32 {
    // SAFETY: `out` and `error` are as the header asks.
    unsafe {
        wait_for_number("raft_group_snapshot", group, out, error, |group| Ok(group.snapshot(timeout(timeout_ms)?)?))
    }
}
