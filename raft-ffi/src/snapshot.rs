//! Section "Snapshots" of the header.

use crate::call::{entry, not_yet};
use crate::error::raft_error;
use crate::group::raft_group;

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
    let _ = (group, tag);
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, not_yet) }
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
    let _ = (group, timeout_ms, out);
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, not_yet) }
}
