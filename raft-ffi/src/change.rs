//! Section "Changing members and leader" of the header.

use std::ffi::c_char;

use raft_engine::server::{Group, MemberChange, MemberRole};
use raft_engine::types::ServerId;

use crate::call::{argument, array, patience, text, timeout};
use crate::error::{Failure, raft_error};
use crate::group::{self, raft_group, raft_settings};
use crate::request::{submit, wait, wait_for_number};
use crate::start::{MAX_MEMBERS, context};

/// A new server joins, under an id above all that the group ever used. Fields: `id`, `address`; `role` (0 is
/// RAFT_MEMBER_VOTER), `priority`, `context`.
pub const RAFT_CHANGE_ADD: u32 = 1;
/// A member leaves. Fields: `id`.
pub const RAFT_CHANGE_REMOVE: u32 = 2;
/// A learner is promoted, or a voter demoted. Fields: `id`, `role`.
pub const RAFT_CHANGE_SET_ROLE: u32 = 3;
/// A member is wanted more or less as a leader. Fields: `id`, `priority`.
pub const RAFT_CHANGE_SET_PRIORITY: u32 = 4;
/// A member moved. Fields: `id`, `address`.
pub const RAFT_CHANGE_SET_ADDRESS: u32 = 5;
/// The host's bytes about a member change. Fields: `id`, `context`.
pub const RAFT_CHANGE_SET_CONTEXT: u32 = 6;
/// What every replica computes by changes. Fields: `settings`, all of them.
pub const RAFT_CHANGE_SET_SETTINGS: u32 = 7;

/// One part of a change of members. Lives in arrays: its layout is frozen. Zero it before filling it in; a field that
/// its kind does not name is zero.
#[repr(C)]
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
pub struct raft_member_change {
    /// RAFT_CHANGE_ADD to RAFT_CHANGE_SET_SETTINGS.
    pub kind: u32,
    /// RAFT_MEMBER_...
    pub role: u32,
    /// As raft_member.priority.
    pub priority: i32,
    /// Zero.
    pub reserved0: u32,
    /// The server's id.
    pub id: u64,
    /// Where its peers dial it: "host:port", NUL-terminated. Borrowed for the call, as all that follows.
    pub address: *const c_char,
    /// Bytes of yours, as raft_member.context.
    pub context: *const u8,
    /// How many; at most 1,024.
    pub context_length: usize,
    /// The new settings.
    pub settings: *const raft_settings,
    /// Zero.
    pub reserved: [u64; 3],
}

/// Changes the members of the group, at its leader, and waits until that is done.
///
/// All of `changes` are one operation with one end. A server that is added runs already, started with RAFT_START_JOIN:
/// the leader meets it at its address, brings it the log while it does not vote, and promotes it once it has caught up.
/// Then the voters change, by joint consensus. Roles that stay the same are changed at once.
///
/// - `changes`, `count`: borrowed for the call.
/// - `patience_ms`: the change is given up after this, and whom it added is gone again, if those who are to vote were
///   not met or have not caught up by then; -1: never. Once it is past that it is never given up.
/// - `timeout_ms`: how long to wait; -1 waits without limit. When it is over, the change goes on.
/// - `out`: receives the index of the entry that did it; may be NULL.
///
/// Any thread, not in a callback; in host mode not the thread that should dispatch meanwhile. Blocks.
/// Errors: those of raft_group_change_members_submit and its completion, RAFT_ERR_TIMEOUT, RAFT_ERR_IN_CALLBACK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_change_members(
    group: *mut raft_group,
    changes: *const raft_member_change,
    count: usize,
    patience_ms: i64,
    timeout_ms: i64,
    out: *mut u64,
    error: *mut *mut raft_error,
) -> i32 {
    let ask = |group: &Group| {
        // SAFETY: the changes are as the header asks.
        let changes = unsafe { parts(changes, count) }?;
        Ok(group.change_members(changes, patience(patience_ms)?, timeout(timeout_ms)?)?)
    };
    // SAFETY: `out` and `error` are as the header asks.
    unsafe { wait_for_number("raft_group_change_members", group, out, error, ask) }
}

/// As raft_group_change_members, and returns without waiting.
///
/// - `tag`: comes back with the completion, whose `index` is that of the entry that did it.
///
/// Any thread, also in a callback. Does not block.
/// Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_STRUCT_SIZE, RAFT_ERR_OVERLOADED, RAFT_ERR_MODE,
/// RAFT_ERR_STOPPED, RAFT_ERR_CLOSED, RAFT_ERR_FORKED. The completion's: RAFT_ERR_NOT_LEADER; RAFT_ERR_BUSY (another
/// change or a hand-over is in progress, or the leader has not committed in its term yet); RAFT_ERR_INVALID (it asks for
/// what cannot be); RAFT_ERR_GIVEN_UP; RAFT_ERR_CANCELLED; RAFT_ERR_FORMING; RAFT_ERR_UNKNOWN (leadership was lost: the
/// next leader goes on with it, and raft_group_members tells).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_change_members_submit(
    group: *mut raft_group,
    tag: u64,
    changes: *const raft_member_change,
    count: usize,
    patience_ms: i64,
    error: *mut *mut raft_error,
) -> i32 {
    let ask = |group: &Group| {
        // SAFETY: the changes are as the header asks.
        let changes = unsafe { parts(changes, count) }?;
        Ok(group.change_members_submit(tag, changes, patience(patience_ms)?)?)
    };
    // SAFETY: `error` is as the header asks.
    unsafe { submit(group, error, ask) }
}

/// Gives up the change of members in progress, at the leader, and waits for its end: whom it added is gone again.
///
/// - `timeout_ms`: how long to wait; -1 waits without limit.
/// - `out`: receives the index of the entry that did it; may be NULL.
///
/// Any thread, not in a callback; in host mode not the thread that should dispatch meanwhile. Blocks.
/// Errors: those of raft_group_cancel_change_submit and its completion, RAFT_ERR_TIMEOUT, RAFT_ERR_IN_CALLBACK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_cancel_change(
    group: *mut raft_group,
    timeout_ms: i64,
    out: *mut u64,
    error: *mut *mut raft_error,
) -> i32 {
    // SAFETY: `out` and `error` are as the header asks.
    unsafe {
        wait_for_number("raft_group_cancel_change", group, out, error, |group| {
            Ok(group.cancel_change(timeout(timeout_ms)?)?)
        })
    }
}

/// As raft_group_cancel_change, and returns without waiting.
///
/// - `tag`: comes back with the completion, whose `index` is that of the entry that did it.
///
/// Any thread, also in a callback. Does not block.
/// Errors: RAFT_ERR_HANDLE, RAFT_ERR_OVERLOADED, RAFT_ERR_MODE, RAFT_ERR_STOPPED, RAFT_ERR_CLOSED, RAFT_ERR_FORKED. The
/// completion's: RAFT_ERR_NOT_LEADER, RAFT_ERR_INVALID (there is no change, or it is past the point of no return),
/// RAFT_ERR_FORMING, RAFT_ERR_UNKNOWN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_cancel_change_submit(
    group: *mut raft_group,
    tag: u64,
    error: *mut *mut raft_error,
) -> i32 {
    // SAFETY: `error` is as the header asks.
    unsafe { submit(group, error, |group| Ok(group.cancel_change_submit(tag)?)) }
}

/// Hands leadership over, at the leader, and waits until the other leads. Proposals are refused meanwhile as
/// RAFT_ERR_TRANSFERRING, which is certainly not applied.
///
/// - `to`: the voter that is to lead, or 0 for the best one: that of the highest priority, and of these the one whose
///   log is longest.
/// - `patience_ms`: given up after this: the leader goes on leading; -1: never.
/// - `timeout_ms`: how long to wait; -1 waits without limit. When it is over, the hand-over goes on.
///
/// Any thread, not in a callback; in host mode not the thread that should dispatch meanwhile. Blocks.
/// Errors: those of raft_group_transfer_leadership_submit and its completion, RAFT_ERR_TIMEOUT, RAFT_ERR_IN_CALLBACK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_transfer_leadership(
    group: *mut raft_group,
    to: u64,
    patience_ms: i64,
    timeout_ms: i64,
    error: *mut *mut raft_error,
) -> i32 {
    // SAFETY: `error` is as the header asks.
    unsafe {
        wait("raft_group_transfer_leadership", group, error, |group| {
            Ok(group.transfer_leadership(target(to), patience(patience_ms)?, timeout(timeout_ms)?)?)
        })
    }
}

/// As raft_group_transfer_leadership, and returns without waiting.
///
/// - `tag`: comes back with the completion.
///
/// Any thread, also in a callback. Does not block.
/// Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_OVERLOADED, RAFT_ERR_MODE, RAFT_ERR_STOPPED, RAFT_ERR_CLOSED,
/// RAFT_ERR_FORKED. The completion's: RAFT_ERR_NOT_LEADER, RAFT_ERR_BUSY (a hand-over is under way), RAFT_ERR_INVALID
/// (who is named leads or has no vote, or nobody can take over), RAFT_ERR_GIVEN_UP, RAFT_ERR_FORMING, RAFT_ERR_UNKNOWN
/// (nobody is known to lead now).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_transfer_leadership_submit(
    group: *mut raft_group,
    tag: u64,
    to: u64,
    patience_ms: i64,
    error: *mut *mut raft_error,
) -> i32 {
    // SAFETY: `error` is as the header asks.
    unsafe {
        submit(group, error, |group| Ok(group.transfer_leadership_submit(tag, target(to), patience(patience_ms)?)?))
    }
}

fn target(to: u64) -> Option<ServerId> {
    (to != 0).then_some(ServerId(to))
}

/// The parts of a change.
///
/// # Safety
/// The array and the pointers in it are as the header asks.
unsafe fn parts(changes: *const raft_member_change, count: usize) -> Result<Vec<MemberChange>, Failure> {
    if !(1..=MAX_MEMBERS).contains(&count) {
        return Err(argument(format!("a change has 1 to {MAX_MEMBERS} parts, not {count}")));
    }
    // SAFETY: the caller vouches for it.
    let changes = unsafe { array(changes, count, "changes") }?;
    // SAFETY: as above.
    changes.iter().enumerate().map(|(position, given)| unsafe { part(position, given) }).collect()
}

/// The fields of a change: which of them are set, or may be.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Fields {
    id: bool,
    role: bool,
    priority: bool,
    address: bool,
    context: bool,
    settings: bool,
}

/// One part of a change.
///
/// # Safety
/// The pointers in `given` are as the header asks.
unsafe fn part(position: usize, given: &raft_member_change) -> Result<MemberChange, Failure> {
    refuse_unused(position, given)?;
    let id = ServerId(given.id);
    let role = group::role(given.role);
    // SAFETY: the caller vouches for the pointers.
    let address = || unsafe { text(given.address, "address") }.map(str::to_owned);
    // SAFETY: as above.
    let context = || unsafe { context(given.id, given.context, given.context_length) };
    let priority = || group::priority(given.id, given.priority);
    let no_role = || argument(format!("change {position}: the role is {}; it is one of RAFT_MEMBER_...", given.role));
    Ok(match given.kind {
        RAFT_CHANGE_ADD => MemberChange::Add {
            id,
            role: if given.role == 0 { MemberRole::Voter } else { role.ok_or_else(no_role)? },
            priority: priority()?,
            address: address()?,
            context: context()?,
        },
        RAFT_CHANGE_REMOVE => MemberChange::Remove { id },
        RAFT_CHANGE_SET_ROLE => MemberChange::SetRole { id, role: role.ok_or_else(no_role)? },
        RAFT_CHANGE_SET_PRIORITY => MemberChange::SetPriority { id, priority: priority()? },
        RAFT_CHANGE_SET_ADDRESS => MemberChange::SetAddress { id, address: address()? },
        RAFT_CHANGE_SET_CONTEXT => MemberChange::SetContext { id, context: context()? },
        // SAFETY: as above.
        _ => MemberChange::SetSettings(unsafe { group::settings(given.settings) }?),
    })
}

/// Refuses a kind that is none, one without its server or settings, and fields that would be ignored.
fn refuse_unused(position: usize, given: &raft_member_change) -> Result<(), Failure> {
    let member = Fields { id: true, ..Fields::default() };
    let may = match given.kind {
        RAFT_CHANGE_ADD => Fields { role: true, priority: true, address: true, context: true, ..member },
        RAFT_CHANGE_REMOVE => member,
        RAFT_CHANGE_SET_ROLE => Fields { role: true, ..member },
        RAFT_CHANGE_SET_PRIORITY => Fields { priority: true, ..member },
        RAFT_CHANGE_SET_ADDRESS => Fields { address: true, ..member },
        RAFT_CHANGE_SET_CONTEXT => Fields { context: true, ..member },
        RAFT_CHANGE_SET_SETTINGS => Fields { settings: true, ..Fields::default() },
        other => return Err(argument(format!("change {position}: the kind is {other}; it is one of RAFT_CHANGE_..."))),
    };
    let is = Fields {
        id: given.id != 0,
        role: given.role != 0,
        priority: given.priority != 0,
        address: !given.address.is_null(),
        context: given.context_length != 0,
        settings: !given.settings.is_null(),
    };
    let is_unused = |is: bool, may: bool| is && !may;
    let unused = is_unused(is.id, may.id)
        || is_unused(is.role, may.role)
        || is_unused(is.priority, may.priority)
        || is_unused(is.address, may.address)
        || is_unused(is.context, may.context)
        || is_unused(is.settings, may.settings);
    match () {
        () if given.reserved0 != 0 || given.reserved != [0; 3] => {
            Err(argument(format!("change {position}: reserved fields are 0")))
        }
        () if unused => Err(argument(format!("change {position}: a field is set that its kind does not name"))),
        () if may.id && !is.id => Err(argument(format!("change {position}: a server's id is never 0"))),
        () if may.settings && !is.settings => Err(argument(format!("change {position}: `settings` is NULL"))),
        () => Ok(()),
    }
}
