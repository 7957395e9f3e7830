//! Section "Proposing" of the header.

use crate::call::{entry, not_yet};
use crate::error::raft_error;
use crate::group::raft_group;
use crate::state_machine::raft_completion;

/// Bytes to append to a group's log. Lives in arrays: its layout is frozen. Zero it before filling it in.
#[repr(C)]
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
pub struct raft_item {
    /// Comes back with the completion; need not be unique.
    pub tag: u64,
    /// The bytes: copied, borrowed for the call. NULL if there are none.
    pub data: *const u8,
    /// How many; at most the setting `max_entry_bytes`.
    pub length: usize,
    /// Zero: reserved for exactly-once sessions.
    pub session: u64,
    /// Zero: reserved for exactly-once sessions.
    pub sequence: u64,
    /// Zero.
    pub reserved: [u64; 3],
}

/// Proposes an array of items, as one batch and in this order, and returns without waiting for them.
///
/// All of them are accepted or none. Each accepted one completes exactly once, by `completed` or raft_group_poll.
/// Items that are not accepted have no completion: they are certainly not applied. That this server does not lead,
/// comes as a completion.
///
/// - `items`, `count`: borrowed for the call. A count of 0 does nothing.
///
/// Any thread, also in a callback. Does not block.
/// Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_TOO_LARGE, RAFT_ERR_OVERLOADED (more than `queue_bytes`
/// wait), RAFT_ERR_MODE (there is neither `completed` nor poll to tell the end), RAFT_ERR_MEMORY, RAFT_ERR_STOPPED,
/// RAFT_ERR_CLOSED, RAFT_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_propose(
    group: *mut raft_group,
    items: *const raft_item,
    count: usize,
    error: *mut *mut raft_error,
) -> i32 {
    let _ = (group, items, count);
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, not_yet) }
}

/// Takes completions, with the setting `completions` poll.
///
/// - `completions`, `capacity`: an array to fill. The results in it belong to the library and live until the next
///   raft_group_poll on this group, or raft_server_free.
/// - `count`: receives how many were stored; 0 if there are none now: wait on raft_server_descriptor.
///
/// In host mode completions are made by raft_server_dispatch, so poll after it. One thread at a time for each group,
/// also in a callback. Does not block.
/// Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_MODE (the setting is "callback"), RAFT_ERR_END (the server is
/// closed, and nothing is left), RAFT_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_poll(
    group: *mut raft_group,
    completions: *mut raft_completion,
    capacity: usize,
    count: *mut usize,
    error: *mut *mut raft_error,
) -> i32 {
    let _ = (group, completions, capacity, count);
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, not_yet) }
}

/// What a waiting call brought back: a copy that the caller owns.
#[allow(non_camel_case_types)]
pub struct raft_result {}

/// Proposes one entry and waits until it is applied on this server.
///
/// - `data`, `length`: borrowed for the call. NULL and 0 are an empty entry.
/// - `timeout_ms`: how long to wait; -1 waits without limit. When it is over, the outcome is unknown.
/// - `out`: receives what `apply` gave, which the caller owns and releases with raft_result_free; NULL on failure.
///   May be NULL where nobody asks.
///
/// Any thread, not in a callback; in host mode not the thread that should dispatch meanwhile. Blocks. The outcome is
/// in `error`: RAFT_OUTCOME_NOT_APPLIED or RAFT_OUTCOME_UNKNOWN.
/// Errors: those of raft_group_propose, RAFT_ERR_NOT_LEADER, RAFT_ERR_DISK_FULL, RAFT_ERR_FORMING, RAFT_ERR_UNKNOWN,
/// RAFT_ERR_TIMEOUT, RAFT_ERR_IN_CALLBACK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_propose_wait(
    group: *mut raft_group,
    data: *const u8,
    length: usize,
    timeout_ms: i64,
    out: *mut *mut raft_result,
    error: *mut *mut raft_error,
) -> i32 {
    let _ = (group, data, length, timeout_ms, out);
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, not_yet) }
}

/// The bytes of a result; NULL if there are none. They belong to the result and live as long. One thread at a time.
/// Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_result_data(result: *const raft_result) -> *const u8 {
    let _ = result;
    std::ptr::null()
}

/// How many there are. One thread at a time. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_result_length(result: *const raft_result) -> usize {
    let _ = result;
    0
}

/// The index of the entry; 0 of a query. One thread at a time. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_result_index(result: *const raft_result) -> u64 {
    let _ = result;
    0
}

/// The term of the entry; 0 of a query. One thread at a time. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_result_term(result: *const raft_result) -> u64 {
    let _ = result;
    0
}

/// Releases a result. NULL is allowed. Any thread. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_result_free(result: *mut raft_result) {
    let _ = result;
}
