//! Section "Status" of the header.

use std::ffi::c_char;

use crate::call::{entry, not_yet};
use crate::error::raft_error;
use crate::group::raft_group;
use crate::server::raft_server;

/// The length of a text in a status, its NUL included. What is longer is cut.
pub const RAFT_STATUS_TEXT_BYTES: usize = 256;

/// The log is written from the library's loop by Linux AIO.
pub const RAFT_DISK_AIO: u32 = 1;
/// The log is written by a thread, directly and synchronously.
pub const RAFT_DISK_THREAD: u32 = 2;
/// The log is written by a thread, through the page cache, which it then syncs.
pub const RAFT_DISK_THREAD_BUFFERED: u32 = 3;

/// The state of a server. Passed singly: it may grow at its end.
#[repr(C)]
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
pub struct raft_server_info {
    /// Set it to sizeof(raft_server_info) before the call. The library stores how much of it is filled in.
    pub size: usize,
    /// Its id in the cluster.
    pub id: u64,
    /// Random bytes made with its data directory.
    pub identity: [u8; 16],
    /// How many times the directory was opened.
    pub incarnation: u64,
    /// The port that it listens on.
    pub port: u32,
    /// RAFT_DISK_...
    pub disk: u32,
    /// 1 when what it recovered is durable and it speaks with its peers; else 0.
    pub ready: u32,
    /// 1 when it stopped by itself; else 0.
    pub stopped: u32,
    /// Peers that it has a connection to.
    pub connected_peers: u64,
    /// Writes to the log since it was opened.
    pub log_writes: u64,
    /// Bytes written to the log since it was opened.
    pub log_bytes: u64,
    /// Why it stopped; NUL-terminated, else empty.
    pub stopped_reason: [c_char; RAFT_STATUS_TEXT_BYTES],
}

/// Tells the state of a server.
///
/// - `info`: borrowed for the call; its `size` must be set.
///
/// Any thread, also in a callback. Does not block.
/// Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_STRUCT_SIZE, RAFT_ERR_CLOSED, RAFT_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_server_status(
    server: *mut raft_server,
    info: *mut raft_server_info,
    error: *mut *mut raft_error,
) -> i32 {
    let _ = (server, info);
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, not_yet) }
}

/// The group is not formed yet.
pub const RAFT_ROLE_FORMING: u32 = 1;
/// Follows a leader, or waits for one.
pub const RAFT_ROLE_FOLLOWER: u32 = 2;
/// Asks whether it would be voted for.
pub const RAFT_ROLE_PRE_CANDIDATE: u32 = 3;
/// Asks for votes.
pub const RAFT_ROLE_CANDIDATE: u32 = 4;
/// Leads.
pub const RAFT_ROLE_LEADER: u32 = 5;

/// The state of a group on a server. Passed singly: it may grow at its end.
#[repr(C)]
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
pub struct raft_group_info {
    /// Set it to sizeof(raft_group_info) before the call. The library stores how much of it is filled in.
    pub size: usize,
    /// The group's id.
    pub group: u64,
    /// RAFT_ROLE_...
    pub role: u32,
    /// 1 when it stopped by itself on this server; else 0.
    pub stopped: u32,
    /// The current term.
    pub term: u64,
    /// Who leads, as far as this server knows; else 0.
    pub leader: u64,
    /// The last entry of the log.
    pub last_index: u64,
    /// The last entry on this server's own disk.
    pub durable_index: u64,
    /// The last entry known to be committed.
    pub commit_index: u64,
    /// The last entry that the state machine has applied.
    pub applied_index: u64,
    /// The last entry that the latest snapshot includes; 0 if there is none.
    pub snapshot_index: u64,
    /// Why it stopped; NUL-terminated, else empty.
    pub stopped_reason: [c_char; RAFT_STATUS_TEXT_BYTES],
}

/// Tells the state of a group on this server.
///
/// - `info`: borrowed for the call; its `size` must be set.
///
/// Any thread, also in a callback. Does not block.
/// Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_STRUCT_SIZE, RAFT_ERR_CLOSED, RAFT_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_status(
    group: *mut raft_group,
    info: *mut raft_group_info,
    error: *mut *mut raft_error,
) -> i32 {
    let _ = (group, info);
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, not_yet) }
}
