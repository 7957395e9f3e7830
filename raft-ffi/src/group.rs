//! Section "Groups and members" of the header.

use std::ffi::{CString, c_char};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use raft_engine::server::{Configuration, GroupSettings, GroupStatus, Member, MemberRole};
use raft_engine::types::{Index, ServerId};

use crate::call::{Versioned, accessor, argument, clear, entry, fill, sized, struct_size};
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

/// The priority of a member that should lead only where nobody else can: it waits longest before it campaigns, and hands
/// leadership over as soon as another voter can take it.
pub const RAFT_PRIORITY_LAST: i32 = -1;
/// The priority of a member that nobody gave one.
pub const RAFT_PRIORITY_USUAL: i32 = 1;

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
    /// How much it is wanted as a leader, against the other voters: 1 to 255, RAFT_PRIORITY_LAST, or 0 for the usual
    /// one, which is 1. Nothing depends on it but who leads where several can.
    pub priority: i32,
    /// Told by raft_group_members, else zero: what it becomes by the change in progress: RAFT_MEMBER_..., or 0 if it
    /// leaves. Without a change the same as `role`.
    pub becomes: u32,
    /// Told by raft_group_members, else zero: 1 if its vote counts now. That is a voter, and, while a change is joint,
    /// one that was a voter before; else 0.
    pub votes: u32,
    /// Told by raft_group_members at the leader, else zero: of a member that does not vote, the last entry that it holds
    /// on its disk, as far as the leader knows.
    pub durable_index: u64,
    /// Zero.
    pub reserved: [u64; 1],
}

/// What every replica of a group computes by: kept in its log, never local to a server. Passed singly: it may grow at
/// its end. Zero it, then set `size` to its sizeof: what is 0 is the default.
#[repr(C)]
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
pub struct raft_settings {
    /// sizeof(raft_settings).
    pub size: usize,
    /// For how long a follower promises to help nobody else to lead, for RAFT_READ_LEASE, in milliseconds: at most the
    /// setting `election_timeout_ms` of the leader, and no server promises more than its own. 0, the default: no leases.
    pub lease_ms: u64,
    /// A session that is not used for so long, in the group's own time, expires; in milliseconds. 0: an hour.
    pub session_expiry_ms: u64,
    /// Sessions that the group keeps: to open one more ends the one that was used least recently. 0: 4,096.
    pub max_sessions: u32,
    /// The replies that one session keeps for retries, in bytes. 0: 65,536.
    pub session_reply_bytes: u32,
}

// SAFETY: whole numbers, the first of them the size, without padding.
unsafe impl Versioned for raft_settings {
    const NAME: &str = "raft_settings";
    const FIRST_BYTES: usize = 32;
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
    fn new(configuration: &Configuration, learners: &[(ServerId, Index)]) -> Self {
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
            let target = configuration.change.as_ref().map_or(&configuration.members, |change| &change.target);
            let becomes = target.iter().find(|after| after.id == member.id).map(|after| after.role);
            let durable = learners.iter().find(|(id, _)| *id == member.id).map(|(_, index)| *index);
            all.members.push(raft_member {
                id: member.id.0,
                address: address.as_ptr(),
                context: if context.is_empty() { ptr::null() } else { context.as_ptr() },
                context_length: context.len(),
                role: role_number(member.role),
                priority: priority_number(member.priority),
                becomes: becomes.map_or(0, role_number),
                votes: configuration.is_voter(member.id).into(),
                durable_index: durable.unwrap_or(0),
                reserved: [0; 1],
            });
            all.addresses.push(address);
            all.contexts.push(context);
        }
        assert_eq!(all.addresses.len(), all.contexts.len());
        all
    }
}

fn role_number(role: MemberRole) -> u32 {
    match role {
        MemberRole::Voter => RAFT_MEMBER_VOTER,
        MemberRole::Learner => RAFT_MEMBER_LEARNER,
    }
}

/// A role as the host names it.
pub(crate) fn role(number: u32) -> Option<MemberRole> {
    match number {
        RAFT_MEMBER_VOTER => Some(MemberRole::Voter),
        RAFT_MEMBER_LEARNER => Some(MemberRole::Learner),
        _ => None,
    }
}

fn priority_number(priority: u8) -> i32 {
    if priority == 0 { RAFT_PRIORITY_LAST } else { priority.into() }
}

/// A priority as the host names it.
pub(crate) fn priority(id: u64, number: i32) -> Result<u8, Failure> {
    match number {
        RAFT_PRIORITY_LAST => Ok(0),
        0 => Ok(Member::USUAL_PRIORITY),
        _ => u8::try_from(number).map_err(|_| {
            let range = "1 to 255, RAFT_PRIORITY_LAST, or 0 for the usual one";
            argument(format!("member {id}: the priority is {number}; it is {range}"))
        }),
    }
}

/// Settings as the host names them; NULL stands for the defaults.
///
/// # Safety
/// `given` is NULL or may be read for the size at its head.
pub(crate) unsafe fn settings(given: *const raft_settings) -> Result<GroupSettings, Failure> {
    let usual = GroupSettings::default();
    if given.is_null() {
        return Ok(usual);
    }
    // SAFETY: the caller vouches for it.
    let given = unsafe { sized(given) }?;
    let or = |number: u32, usual: u32| if number == 0 { usual } else { number };
    Ok(GroupSettings {
        lease: Duration::from_millis(given.lease_ms),
        session_expiry: match given.session_expiry_ms {
            0 => usual.session_expiry,
            milliseconds => Duration::from_millis(milliseconds),
        },
        max_sessions: or(given.max_sessions, usual.max_sessions),
        session_reply_bytes: or(given.session_reply_bytes, usual.session_reply_bytes),
    })
}

/// The status of a group that is formed, and its configuration.
fn formed(group: *mut raft_group) -> Result<(GroupStatus, Arc<Configuration>), Failure> {
    let group = live::group(group)?;
    let status = group.group.status().ok_or_else(|| Failure::new(RAFT_ERR_CLOSED, "the server is closed"))?;
    let why = "the group is not formed yet: its initial members have not all met, or this server was not added yet";
    let configuration = status.configuration.clone().ok_or_else(|| Failure::new(RAFT_ERR_FORMING, why))?;
    Ok((status, configuration))
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
        let (status, configuration) = formed(group)?;
        let members = raft_members::new(&configuration, &status.learners);
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

/// Tells the settings of the configuration that is in force.
///
/// - `settings`: borrowed for the call; its `size` must be set. The library stores how much of it is filled in.
///
/// Any thread, also in a callback. Does not block.
/// Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_STRUCT_SIZE, RAFT_ERR_FORMING, RAFT_ERR_CLOSED,
/// RAFT_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_settings(
    group: *mut raft_group,
    settings: *mut raft_settings,
    error: *mut *mut raft_error,
) -> i32 {
    let body = || {
        // SAFETY: `settings` is as the header asks.
        unsafe { struct_size(settings) }?;
        let (_, configuration) = formed(group)?;
        let in_force = &configuration.settings;
        let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let told = raft_settings {
            size: size_of::<raft_settings>(),
            lease_ms: milliseconds(in_force.lease),
            session_expiry_ms: milliseconds(in_force.session_expiry),
            max_sessions: in_force.max_sessions,
            session_reply_bytes: in_force.session_reply_bytes,
        };
        // SAFETY: as above.
        unsafe { fill(settings, told) }
    };
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, body) }
}
