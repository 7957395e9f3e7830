//! Section "Snapshots" of the header.

use crate::call::{entry, refuse_in_callback, store, timeout};
use crate::error::raft_error;
use crate::group::raft_group;
use crate::live;
use crate::propose::not_applied;

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
    let body = || {
        let group = live::group(group)?;
        group.refuse_unheard()?;
        Ok(group.group.snapshot_submit(tag)?)
    };
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, || body().map_err(not_applied)) }
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
    let body = || {
        // SAFETY: `out` is as the header asks.
        unsafe { store(out, 0) };
        let group = live::group(group)?;
        refuse_in_callback("raft_group_snapshot")?;
        let covered = group.group.snapshot(timeout(timeout_ms)?)?;
        // SAFETY: as above.
        unsafe { store(out, covered) };
        Ok(())
    };
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, || body().map_err(not_applied)) }
}
