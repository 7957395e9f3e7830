//! Section "Starting a group" of the header.

use crate::call::{entry, not_yet};
use crate::error::raft_error;
use crate::group::{raft_group, raft_member};
use crate::server::raft_server;
use crate::state_machine::raft_state_machine;

/// Form a new group with these members, all voters. The same arguments on every one of them; where the directory
/// already holds the group, formed with the same arguments, this continues it.
pub const RAFT_START_BOOTSTRAP: u32 = 1;
/// Continue a group that the directory already holds.
pub const RAFT_START_RESTART: u32 = 2;

/// How a group comes to be on a server. Passed singly: it may grow at its end. Zero it, then set `size` to its
/// sizeof.
#[repr(C)]
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
pub struct raft_start {
    /// sizeof(raft_start).
    pub size: usize,
    /// The group's id, the same on every server; not 0.
    pub group: u64,
    /// RAFT_START_...
    pub how: u32,
    /// Zero.
    pub reserved0: u32,
    /// The members to bootstrap with, this server among them; else NULL. Borrowed for the call.
    pub members: *const raft_member,
    /// How many.
    pub member_count: usize,
    /// The index through which the state machine has already applied, because it keeps its state durably itself; else
    /// 0. Beyond the log, the start is refused.
    pub applied: u64,
}

/// Starts a group on a server.
///
/// - `start`: which group, and how; borrowed for the call.
/// - `state_machine`: copied; what its `user` points to must live until `destroy` is called.
/// - `out`: receives the group, which belongs to the server; NULL on failure.
///
/// Returns before the group is formed or has a leader: notices and raft_group_status tell. The first callbacks may
/// come before it returns. Any thread, not in a callback. Blocks until the library's loop has taken it: milliseconds.
/// Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_STRUCT_SIZE, RAFT_ERR_GROUP_EXISTS, RAFT_ERR_GROUP_START,
/// RAFT_ERR_IN_CALLBACK, RAFT_ERR_CLOSED, RAFT_ERR_STOPPED, RAFT_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_server_start_group(
    server: *mut raft_server,
    start: *const raft_start,
    state_machine: *const raft_state_machine,
    out: *mut *mut raft_group,
    error: *mut *mut raft_error,
) -> i32 {
    let _ = (server, start, state_machine, out);
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, not_yet) }
}
