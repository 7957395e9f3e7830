//! Section "Starting a group" of the header.

use std::ffi::c_char;

use raft_engine::server::{MemberArgument, StartError, StartHow};
use raft_engine::types::{GroupId, ServerId};

use crate::call::{Versioned, argument, array, clear, entry, refuse_in_callback, sized, text};
use crate::error::{Failure, RAFT_ERR_GROUP_EXISTS, RAFT_ERR_GROUP_START, raft_error};
use crate::group::{self, RAFT_MEMBER_VOTER, raft_group, raft_member, raft_settings};
use crate::host::HostMachine;
use crate::live::{self, LiveGroup};
use crate::server::raft_server;
use crate::state_machine::raft_state_machine;

/// More members than any group has.
pub(crate) const MAX_MEMBERS: usize = 1024;

/// The longest context of a member, in bytes.
const MAX_CONTEXT_BYTES: usize = 1024;

/// Form a new group with these members, all voters, and these settings. The same arguments on every one of them; where
/// the directory already holds the group, formed with the same arguments, this continues it.
pub const RAFT_START_BOOTSTRAP: u32 = 1;
/// Continue a group that the directory already holds.
pub const RAFT_START_RESTART: u32 = 2;
/// Wait to be added to a group that runs elsewhere, by raft_group_change_members at its leader; until then its role is
/// RAFT_ROLE_FORMING. Where the directory already holds the group, this continues it. Its id must be above all that the
/// group ever used.
pub const RAFT_START_JOIN: u32 = 3;

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
    /// With RAFT_START_BOOTSTRAP, what every replica computes by; NULL for the defaults. Else NULL. Borrowed for the
    /// call.
    pub settings: *const raft_settings,
    /// With RAFT_START_JOIN, where some members of the group are dialled: "host:port" each, NUL-terminated. They need
    /// not all be up, nor be all; with none, the server waits to be dialled. Else NULL. Borrowed for the call.
    pub contacts: *const *const c_char,
    /// How many.
    pub contact_count: usize,
}

// SAFETY: whole numbers and pointers, the first of them the size, without padding.
unsafe impl Versioned for raft_start {
    const NAME: &str = "raft_start";
    const FIRST_BYTES: usize = 48;
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
    let body = || {
        // First of all, because from here on `destroy` is called whatever happens.
        // SAFETY: the pointer is as the header asks.
        let table = unsafe { sized(state_machine) }?;
        // SAFETY: as above.
        let start = unsafe { sized(start) };
        let machine = HostMachine::new(table, start.as_ref().map_or(0, |start| start.applied));
        let table = machine.table();
        // SAFETY: as above.
        let started = start.and_then(|start| unsafe {
            clear(out, "out")?;
            let group = run(server, &start, machine)?;
            out.write(group);
            Ok(())
        });
        // The engine lets go of what it does not take in its own time; the host is told before it hears of the failure.
        started.inspect_err(|_| table.let_go())
    };
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, body) }
}

/// Starts a group.
///
/// # Safety
/// The members in `start` are as the header asks.
unsafe fn run(server: *mut raft_server, start: &raft_start, machine: HostMachine) -> Result<*mut raft_group, Failure> {
    let live = live::server(server)?;
    refuse_in_callback("raft_server_start_group")?;
    let table = machine.functions();
    check(table)?;
    let (has_completed, has_query) = (table.completed.is_some(), table.query.is_some());
    if start.group == 0 || start.reserved0 != 0 {
        return Err(argument("a group's id is never 0, and `reserved0` of raft_start is"));
    }
    // SAFETY: the caller vouches for the members.
    let how = unsafe { how(start) }?;
    let group = live.server.start_group(GroupId(start.group), Box::new(machine), how)?;
    live::add_group(server, LiveGroup::new(group, live, has_completed, has_query))
}

/// Whether the callbacks that belong together are there.
fn check(table: &raft_state_machine) -> Result<(), Failure> {
    if table.apply.is_none() {
        return Err(argument("raft_state_machine has no `apply`"));
    }
    let snapshots = [
        table.snapshot_begin.is_some(),
        table.snapshot_write.is_some(),
        table.snapshot_release.is_some(),
        table.restore.is_some(),
    ];
    if snapshots.contains(&true) && snapshots.contains(&false) {
        let message = "raft_state_machine has some of `snapshot_begin`, `snapshot_write`, `snapshot_release` and \
                       `restore`: it takes all four or none";
        return Err(argument(message));
    }
    Ok(())
}

/// How the group is to start.
///
/// # Safety
/// The pointers in `start` are as the header asks.
unsafe fn how(start: &raft_start) -> Result<StartHow, Failure> {
    match start.how {
        RAFT_START_RESTART | RAFT_START_JOIN if start.member_count != 0 || !start.settings.is_null() => {
            Err(argument("members and settings go with RAFT_START_BOOTSTRAP: a group that exists has them"))
        }
        RAFT_START_RESTART | RAFT_START_BOOTSTRAP if start.contact_count != 0 => {
            Err(argument("contacts go with RAFT_START_JOIN"))
        }
        RAFT_START_RESTART => Ok(StartHow::Restart),
        RAFT_START_JOIN if start.contact_count <= MAX_MEMBERS => {
            // SAFETY: the caller vouches for it.
            let contacts = unsafe { array(start.contacts, start.contact_count, "contacts") }?;
            // SAFETY: as above.
            let contacts = contacts.iter().map(|contact| unsafe { text(*contact, "contact") }.map(str::to_owned));
            Ok(StartHow::Join { contacts: contacts.collect::<Result<_, _>>()? })
        }
        RAFT_START_JOIN => Err(argument(format!("a server that joins takes at most {MAX_MEMBERS} contacts"))),
        RAFT_START_BOOTSTRAP if (1..=MAX_MEMBERS).contains(&start.member_count) => {
            // SAFETY: the caller vouches for it.
            let members = unsafe { array(start.members, start.member_count, "members") }?;
            // SAFETY: as above.
            let members = members.iter().map(|given| unsafe { member(given) });
            let members = members.collect::<Result<_, _>>()?;
            // SAFETY: as above.
            Ok(StartHow::Bootstrap { members, settings: unsafe { group::settings(start.settings) }? })
        }
        RAFT_START_BOOTSTRAP => Err(argument(format!("a group is formed by 1 to {MAX_MEMBERS} members"))),
        other => Err(argument(format!("`how` is {other}: it is one of RAFT_START_..."))),
    }
}

/// One member as its operator names it.
///
/// # Safety
/// The pointers in `given` are as the header asks.
unsafe fn member(given: &raft_member) -> Result<MemberArgument, Failure> {
    if given.id == 0 {
        return Err(argument("a member's id is never 0"));
    }
    if given.role != 0 && given.role != RAFT_MEMBER_VOTER {
        return Err(argument(format!("member {}: who forms a group votes", given.id)));
    }
    if (given.becomes, given.votes, given.durable_index, given.reserved) != (0, 0, 0, [0; 1]) {
        return Err(argument(format!("member {}: fields that the library tells, and reserved ones, are 0", given.id)));
    }
    let priority = group::priority(given.id, given.priority)?;
    // SAFETY: the caller vouches for them.
    let (address, context) = unsafe {
        let context = context(given.id, given.context, given.context_length)?;
        (text(given.address, "address")?.to_owned(), context)
    };
    Ok(MemberArgument { id: ServerId(given.id), priority, address, context })
}

/// A member's context, copied.
///
/// # Safety
/// `data` and `length` are as the header asks.
pub(crate) unsafe fn context(id: u64, data: *const u8, length: usize) -> Result<Vec<u8>, Failure> {
    if length > MAX_CONTEXT_BYTES {
        return Err(argument(format!("member {id}: a context of {length} bytes is longer than {MAX_CONTEXT_BYTES}")));
    }
    // SAFETY: the caller vouches for it.
    Ok(unsafe { array(data, length, "context") }?.to_vec())
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let message = error.to_string();
        match error {
            StartError::Refused(refused) => Self { outcome: crate::error::RAFT_OUTCOME_NONE, ..refused.into() },
            StartError::AlreadyStarted(_) => Self::new(RAFT_ERR_GROUP_EXISTS, message),
            StartError::Stopped { .. } => Self::new(RAFT_ERR_GROUP_START, message),
        }
    }
}
