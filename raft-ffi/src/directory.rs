//! Section "Directories without a server" of the header.

use std::ffi::{CString, OsStr, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use raft_engine::server::{OfflineError, RECOVERY_RISK, RecoveryRefusal, inspect, recover_quorum};
use raft_engine::types::{GroupId, Position};

use crate::call::{InCallback, argument, entry, raw_text, refuse_in_callback, silence_panics, text};
use crate::error::{Failure, RAFT_ERR_DISK_FULL, RAFT_ERR_INVALID, RAFT_ERR_IO, RAFT_ERR_STORAGE, raft_error};
use crate::live;

/// What a data directory holds of one group. Handed to the caller singly: it may grow at its end.
#[repr(C)]
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
pub struct raft_directory_group {
    /// How much of it the library has filled in.
    pub size: usize,
    /// The cluster that the server of the directory belongs to; NUL-terminated. Lives for the call of `each`, as all
    /// that is pointed to from here.
    pub cluster: *const c_char,
    /// The server's id.
    pub server: u64,
    /// The group's id.
    pub group: u64,
    /// The term of the last entry of the log. Servers are compared by (last_term, last_index), the term first.
    pub last_term: u64,
    /// The index of the last entry of the log.
    pub last_index: u64,
    /// How far entries are known here to be committed; more may be.
    pub commit_index: u64,
    /// The latest term that the server knew of.
    pub term: u64,
    /// The last entry that the latest snapshot includes; 0 if there is none.
    pub snapshot_index: u64,
    /// The ids of those who vote, in the last configuration of the log.
    pub voters: *const u64,
    /// How many.
    pub voter_count: usize,
    /// The group's lineage: groups with another one under the same id do not talk to it.
    pub lineage: [u8; 32],
    /// 1 when the group was once recovered from the loss of its quorum; else 0.
    pub recovered: u32,
    /// Zero.
    pub reserved0: u32,
}

/// Tells what the data directory of a server that does not run holds, group by group. Changes nothing.
///
/// - `directory`: NUL-terminated, borrowed for the call.
/// - `each`: called once a group, in order of their ids, on this thread and before the call returns.
/// - `user`: passed to `each`.
///
/// Any thread, not in a callback. Blocks while it reads the log.
/// Errors: RAFT_ERR_ARGUMENT, RAFT_ERR_LOCKED (a server runs on it), RAFT_ERR_INVALID (it is no server's), RAFT_ERR_IO,
/// RAFT_ERR_STORAGE, RAFT_ERR_IN_CALLBACK, RAFT_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_directory_inspect(
    directory: *const c_char,
    each: Option<unsafe extern "C" fn(user: *mut c_void, group: *const raft_directory_group)>,
    user: *mut c_void,
    error: *mut *mut raft_error,
) -> i32 {
    silence_panics();
    let body = || {
        // SAFETY: `directory` is as the header asks.
        let directory = unsafe { raw_text(directory, "directory") }?;
        let each = each.ok_or_else(|| argument("`each` is NULL: there is nobody to tell"))?;
        refuse_in_callback("raft_directory_inspect")?;
        live::refuse_forked()?;
        let report = inspect(Path::new(OsStr::from_bytes(directory)))?;
        // A name with a NUL in it cannot be said in C: it is told up to there.
        let cluster: Vec<u8> = report.cluster.as_str().bytes().take_while(|byte| *byte != 0).collect();
        let cluster = CString::new(cluster).unwrap_or_default();
        for found in &report.groups {
            let joint = found.configuration.outgoing_voters.iter().copied();
            let mut voters: Vec<u64> = found.configuration.voters().chain(joint).map(|id| id.0).collect();
            voters.sort_unstable();
            voters.dedup();
            let told = raft_directory_group {
                size: size_of::<raft_directory_group>(),
                cluster: cluster.as_ptr(),
                server: report.server.0,
                group: found.group.0,
                last_term: found.last.term,
                last_index: found.last.index,
                commit_index: found.commit,
                term: found.term,
                snapshot_index: found.snapshot.index,
                voters: voters.as_ptr(),
                voter_count: voters.len(),
                lineage: found.lineage.0,
                recovered: found.is_recovered.into(),
                reserved0: 0,
            };
            let _callback = InCallback::enter();
            // SAFETY: the header says what `each` must bear; what is pointed to outlives the call.
            unsafe { each(user, &raw const told) };
        }
        Ok(())
    };
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, body) }
}

/// Recovers a group whose majority is gone for good, from this directory alone: its server becomes the only member of
/// the group, and leads when it is started. Everything in its log is kept and becomes committed; what it does not have
/// is lost. The group has a new lineage from then on: nobody of the old group can ever take part in it, but as a new
/// server under a new id. Other groups in the directory are left alone. The log says what was done.
///
/// Read raft_directory_risk first, and docs/operations.md: it says which server to choose, and what to do with the
/// others.
///
/// - `directory`, `cluster`: NUL-terminated, borrowed for the call.
/// - `cluster`, `server`: whose directory it must be.
/// - `last_term`, `last_index`: the last entry of the log, as raft_directory_inspect told it: the caller has compared
///   the servers that are left.
///
/// If the power fails meanwhile, the group is as it was, or recovered; raft_directory_inspect tells which.
///
/// Any thread, not in a callback. Blocks until it is durable.
/// Errors: RAFT_ERR_ARGUMENT, RAFT_ERR_SETTING (no name of a cluster), RAFT_ERR_LOCKED (a server runs on it),
/// RAFT_ERR_INVALID (the log ends elsewhere; no member; the only voter already; no such group), RAFT_ERR_STORAGE (also
/// where it is another cluster's or server's), RAFT_ERR_DISK_FULL, RAFT_ERR_IO, RAFT_ERR_IN_CALLBACK, RAFT_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_directory_recover(
    directory: *const c_char,
    cluster: *const c_char,
    server: u64,
    group: u64,
    last_term: u64,
    last_index: u64,
    error: *mut *mut raft_error,
) -> i32 {
    silence_panics();
    let body = || {
        // SAFETY: the texts are as the header asks.
        let (directory, cluster) = unsafe { (raw_text(directory, "directory")?, text(cluster, "cluster")?) };
        refuse_in_callback("raft_directory_recover")?;
        live::refuse_forked()?;
        let last = Position { term: last_term, index: last_index };
        recover_quorum(Path::new(OsStr::from_bytes(directory)), cluster, server, GroupId(group), last)?;
        Ok(())
    };
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, body) }
}

/// What an operator must know before raft_directory_recover, in some lines for people. Static, NUL-terminated; never
/// release it.
///
/// Any thread, also in a callback. Does not block, cannot fail.
#[unsafe(no_mangle)]
pub extern "C" fn raft_directory_risk() -> *const c_char {
    static RISK: std::sync::OnceLock<CString> = std::sync::OnceLock::new();
    RISK.get_or_init(|| CString::new(RECOVERY_RISK).unwrap_or_default()).as_ptr()
}

impl From<OfflineError> for Failure {
    fn from(error: OfflineError) -> Self {
        let message = error.to_string();
        match error {
            OfflineError::Directory(error) => error.into(),
            OfflineError::Refused { refusal, .. } => Self::new(
                match refusal {
                    RecoveryRefusal::Directory(_) | RecoveryRefusal::Unreadable { .. } => RAFT_ERR_STORAGE,
                    RecoveryRefusal::Log(_) => RAFT_ERR_IO,
                    RecoveryRefusal::NoRoom => RAFT_ERR_DISK_FULL,
                    RecoveryRefusal::NoServer
                    | RecoveryRefusal::NoGroup { .. }
                    | RecoveryRefusal::OtherPosition { .. }
                    | RecoveryRefusal::NotMember { .. }
                    | RecoveryRefusal::OnlyVoter { .. } => RAFT_ERR_INVALID,
                },
                message,
            ),
        }
    }
}
