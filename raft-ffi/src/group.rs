//! Section "Groups and members" of the header.

use std::ffi::{CString, c_char};
use std::ptr;

use raft_engine::types::{Configuration, MemberRole};

use crate::call::{accessor, clear, entry};
use crate::error::{Failure, RAFT_ERR_CLOSED, RAFT_ERR_FORMING, raft_error};
use crate::handle::{self, Boxed, Kind};
use crate::live;

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
pub struct raft_members {
    members: Vec<raft_member>,
    // What `members` points to.
    addresses: Vec<CString>,
    contexts: Vec<Vec<u8>>,
}

impl Boxed for raft_members {
    const KIND: Kind = Kind::Members;
}

impl raft_members {
    fn new(configuration: &Configuration) -> Self {
        let count = configuration.members.len();
        let mut all = Self {
            members: Vec::with_capacity(count),
            addresses: Vec::with_capacity(count),
            contexts: Vec::with_capacity(count),
        };
        for member in &configuration.members {
            // An address came through a C string or is of no use with a NUL in it.
            let address = CString::new(member.address.as_str()).unwrap_or_default();
            let context = member.context.clone();
            all.members.push(raft_member {
                id: member.id.0,
                address: address.as_ptr(),
                context: if context.is_empty() { ptr::null() } else { context.as_ptr() },
                context_length: context.len(),
                role: match member.role {
                    MemberRole::Voter => RAFT_MEMBER_VOTER,
                    MemberRole::Learner => RAFT_MEMBER_LEARNER,
                },
                reserved0: 0,
                reserved: [0; 3],
            });
            all.addresses.push(address);
            all.contexts.push(context);
        }
        assert_eq!(all.addresses.len(), all.contexts.len());
        all
    }
}

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
    let body = || {
        // SAFETY: `out` is as the header asks.
        unsafe { clear(out, "out") }?;
        let group = live::group(group)?;
        let status = group.group.status().ok_or_else(|| Failure::new(RAFT_ERR_CLOSED, "the server is closed"))?;
        let forming =
            || Failure::new(RAFT_ERR_FORMING, "the group is not formed yet: its initial members have not all met");
        let members = raft_members::new(status.configuration.as_deref().ok_or_else(forming)?);
        // SAFETY: `clear` found that it may be written.
        unsafe { out.write(handle::own(members)) };
        Ok(())
    };
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, body) }
}

/// How many there are; 0 for NULL. One thread at a time. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_members_count(members: *const raft_members) -> usize {
    // SAFETY: as the header asks.
    accessor(0, || unsafe { handle::peek(members) }.map_or(0, |members| members.members.len()))
}

/// The members as an array, in order of id: raft_members_count of them; NULL if there are none. The array and
/// everything in it belongs to `members` and lives as long. One thread at a time. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_members_array(members: *const raft_members) -> *const raft_member {
    // SAFETY: as the header asks.
    accessor(ptr::null(), || match unsafe { handle::peek(members) } {
        Some(members) if !members.members.is_empty() => members.members.as_ptr(),
        _ => ptr::null(),
    })
}

/// The member with this id, or NULL. It belongs to `members` and lives as long. One thread at a time. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_members_find(members: *const raft_members, id: u64) -> *const raft_member {
    let find = || {
        // SAFETY: as the header asks.
        let found = unsafe { handle::peek(members) }?.members.iter().find(|member| member.id == id);
        found.map(ptr::from_ref)
    };
    accessor(None, find).unwrap_or(ptr::null())
}

/// Releases the members. NULL is allowed. Any thread. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_members_free(members: *mut raft_members) {
    // SAFETY: as the header asks.
    accessor((), || drop(unsafe { handle::release(members) }));
}
