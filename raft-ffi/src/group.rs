//! Section "Groups and members" of the header.

use std::ffi::c_char;

use crate::call::{entry, not_yet};
use crate::error::raft_error;

/// One Raft log and the state machine that it drives, on one server.
///
/// A group handle belongs to its server and ends with it: it is never released by itself. Like a server handle it is
/// a number in disguise: what is not a live group is told.
#[allow(non_camel_case_types)]
pub struct raft_group {}

/// The member votes and counts for commitment.
pub const RAFT_MEMBER_VOTER: u32 = 1;
/// The member receives the log and counts for nothing.
pub const RAFT_MEMBER_LEARNER: u32 = 2;

/// One member of a group. Lives in arrays: its layout is frozen. Zero it before filling it in.
#[repr(C)]
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
pub struct raft_member {
    /// The server's id; not 0.
    pub id: u64,
    /// Where its peers dial it: "host:port", NUL-terminated.
    pub address: *const c_char,
    /// Bytes of yours that travel with the member, opaque to the library: a client address, say. NULL if there are
    /// none.
    pub context: *const u8,
    /// How many; at most 1,024.
    pub context_length: usize,
    /// RAFT_MEMBER_...; when bootstrapping 0 or RAFT_MEMBER_VOTER.
    pub role: u32,
    /// Zero.
    pub reserved0: u32,
    /// Zero.
    pub reserved: [u64; 3],
}

/// The members of a group at one moment: a copy that the caller owns.
#[allow(non_camel_case_types)]
pub struct raft_members {}

/// Copies the members of the configuration that is in force.
///
/// - `out`: receives the members, which the caller owns and releases with raft_members_free; NULL on failure.
///
/// Any thread, also in a callback. Does not block.
/// Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_FORMING, RAFT_ERR_CLOSED, RAFT_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_members(
    group: *mut raft_group,
    out: *mut *mut raft_members,
    error: *mut *mut raft_error,
) -> i32 {
    let _ = (group, out);
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, not_yet) }
}

/// How many there are; 0 for NULL. One thread at a time. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_members_count(members: *const raft_members) -> usize {
    let _ = members;
    0
}

/// The members as an array, in order of id: raft_members_count of them; NULL if there are none. The array and
/// everything in it belongs to `members` and lives as long. One thread at a time. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_members_array(members: *const raft_members) -> *const raft_member {
    let _ = members;
    std::ptr::null()
}

/// The member with this id, or NULL. It belongs to `members` and lives as long. One thread at a time. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_members_find(members: *const raft_members, id: u64) -> *const raft_member {
    let _ = (members, id);
    std::ptr::null()
}

/// Releases the members. NULL is allowed. Any thread. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_members_free(members: *mut raft_members) {
    let _ = members;
}
