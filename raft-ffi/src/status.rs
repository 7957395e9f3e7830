//! Section "Status" of the header.

use std::ffi::c_char;

use raft_engine::server::{Configuration, Role};

use crate::call::{Versioned, entry, fill, struct_size};
use crate::digest::verdict_number;
use crate::error::{Failure, RAFT_ERR_CLOSED, raft_error};
use crate::group::raft_group;
use crate::live;
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
    /// 1 when it is closed; else 0.
    pub closed: u32,
    /// Zero.
    pub reserved0: u32,
    /// Bytes of proposals that its loop has not taken yet.
    pub queued_bytes: u64,
    /// Peers that it has a connection to.
    pub connected_peers: u64,
    /// Writes to the log since it was opened.
    pub log_writes: u64,
    /// Bytes written to the log since it was opened.
    pub log_bytes: u64,
    /// Why it stopped; NUL-terminated, else empty.
    pub stopped_reason: [c_char; RAFT_STATUS_TEXT_BYTES],
}

// SAFETY: whole numbers, the first of them the size, without padding.
unsafe impl Versioned for raft_server_info {
    const NAME: &str = "raft_server_info";
    const FIRST_BYTES: usize = 352;
}

/// Tells the state of a server.
///
/// - `info`: borrowed for the call; its `size` must be set.
///
/// Any thread, also in a callback and after raft_server_close. Does not block.
/// Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_STRUCT_SIZE, RAFT_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_server_status(
    server: *mut raft_server,
    info: *mut raft_server_info,
    error: *mut *mut raft_error,
) -> i32 {
    let body = || {
        // SAFETY: `info` is as the header asks.
        unsafe { struct_size(info) }?;
        let live = live::server(server)?;
        let status = live.server.status();
        let engine = status.engine;
        let told = raft_server_info {
            size: size_of::<raft_server_info>(),
            id: engine.id.0,
            identity: engine.identity.0,
            incarnation: engine.incarnation.number,
            port: status.listen.port().into(),
            disk: match status.disk_backend {
                "aio" => RAFT_DISK_AIO,
                "thread-direct" => RAFT_DISK_THREAD,
                _ => RAFT_DISK_THREAD_BUFFERED,
            },
            ready: engine.ready.into(),
            stopped: engine.stopped.is_some().into(),
            closed: status.is_closed.into(),
            reserved0: 0,
            queued_bytes: status.queued_bytes as u64,
            connected_peers: engine.connected_peers.len() as u64,
            log_writes: engine.log_writes,
            log_bytes: engine.log_bytes,
            stopped_reason: text(engine.stopped.as_deref()),
        };
        // SAFETY: as above.
        unsafe { fill(info, told) }
    };
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, body) }
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

/// No change of members is in progress.
pub const RAFT_PHASE_NONE: u32 = 0;
/// Those who are to vote catch up. The change may be given up or cancelled.
pub const RAFT_PHASE_LEARNING: u32 = 1;
/// Every decision needs a majority of the voters before the change and one of those after it. There is no way but
/// forward.
pub const RAFT_PHASE_JOINT: u32 = 2;

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
    /// The entry that removed this server from the group, as far as it knows; else 0. It follows if a leader still
    /// speaks to it, and campaigns no more.
    pub removed_index: u64,
    /// To whom this leader is handing leadership over; else 0.
    pub transferring_to: u64,
    /// The highest id that the group ever used: a server that is added needs a higher one. 0 before it is formed.
    pub highest_id: u64,
    /// How far the change of members in progress is: RAFT_PHASE_NONE, RAFT_PHASE_LEARNING or RAFT_PHASE_JOINT. What
    /// each member becomes by it, raft_group_members tells.
    pub change_phase: u32,
    /// Zero.
    pub reserved0: u32,
    /// When that change is given up, if it still is in RAFT_PHASE_LEARNING; in the group's own time, as
    /// raft_entry.log_time. 0 without a change.
    pub change_deadline: u64,
    /// Where this server's state is not that of a majority: the entry at which they were compared. The group stopped for
    /// it. Else 0.
    pub diverged_index: u64,
    /// The entry of the latest comparison that raft_group_digest_check has; 0 if there is none.
    pub digest_index: u64,
    /// What that came to: RAFT_VERDICT_...; 0 if there is none.
    pub digest_verdict: u32,
    /// Zero.
    pub reserved1: u32,
}

// SAFETY: whole numbers, the first of them the size, without padding.
unsafe impl Versioned for raft_group_info {
    const NAME: &str = "raft_group_info";
    const FIRST_BYTES: usize = 336;
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
    let body = || {
        // SAFETY: `info` is as the header asks.
        unsafe { struct_size(info) }?;
        let live = live::group(group)?;
        let status = live.group.status().ok_or_else(|| Failure::new(RAFT_ERR_CLOSED, "the server is closed"))?;
        let configuration = status.configuration.as_deref();
        let change = configuration.and_then(|configuration| configuration.change.as_ref());
        let told = raft_group_info {
            size: size_of::<raft_group_info>(),
            group: live.group.id().0,
            role: role_number(status.role),
            stopped: status.stopped.is_some().into(),
            term: status.term,
            leader: status.leader.map_or(0, |leader| leader.0),
            last_index: status.last,
            durable_index: status.durable,
            commit_index: status.commit,
            applied_index: status.applied,
            snapshot_index: status.snapshot,
            stopped_reason: text(status.stopped.as_deref()),
            removed_index: status.removed.unwrap_or(0),
            transferring_to: status.transferring_to.map_or(0, |to| to.0),
            highest_id: configuration.map_or(0, |configuration| configuration.highest_id.0),
            change_phase: match change {
                None => RAFT_PHASE_NONE,
                Some(_) if configuration.is_some_and(Configuration::is_joint) => RAFT_PHASE_JOINT,
                Some(_) => RAFT_PHASE_LEARNING,
            },
            reserved0: 0,
            change_deadline: change.map_or(0, |change| change.deadline.0),
            diverged_index: status.divergence.map_or(0, |divergence| divergence.check.index),
            digest_index: status.digest_check.as_ref().map_or(0, |check| check.index),
            digest_verdict: status.digest_check.as_ref().map_or(0, |check| verdict_number(check.verdict())),
            reserved1: 0,
        };
        // SAFETY: as above.
        unsafe { fill(info, told) }
    };
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, body) }
}

/// The number of a role.
pub(crate) fn role_number(role: Role) -> u32 {
    match role {
        Role::Forming => RAFT_ROLE_FORMING,
        Role::Follower => RAFT_ROLE_FOLLOWER,
        Role::PreCandidate => RAFT_ROLE_PRE_CANDIDATE,
        Role::Candidate => RAFT_ROLE_CANDIDATE,
        Role::Leader => RAFT_ROLE_LEADER,
    }
}

/// A text of a status: cut between two characters where it is too long, and followed by zeros.
fn text(reason: Option<&str>) -> [c_char; RAFT_STATUS_TEXT_BYTES] {
    let mut text = [0; RAFT_STATUS_TEXT_BYTES];
    let reason = reason.unwrap_or_default();
    let length = reason.floor_char_boundary(RAFT_STATUS_TEXT_BYTES - 1);
    for (to, from) in text.iter_mut().zip(&reason.as_bytes()[..length]) {
        *to = *from as c_char;
    }
    text
}
