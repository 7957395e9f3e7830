//! Section "Errors" of the header: statuses, outcomes, and the error object.

use std::ffi::{CString, c_char};
use std::ptr;

use crate::handle::{self, Boxed, Kind};

/// The call did what it says.
pub const RAFT_OK: i32 = 0;
/// An argument cannot be: NULL where something is needed, an empty or overlong name, a number out of its range.
pub const RAFT_ERR_ARGUMENT: i32 = -1;
/// A handle is NULL, was released, or is of another kind.
pub const RAFT_ERR_HANDLE: i32 = -2;
/// The size at the head of a struct is none that a version of this header had.
pub const RAFT_ERR_STRUCT_SIZE: i32 = -3;
/// A setting has no such name or value, or settings do not fit together.
pub const RAFT_ERR_SETTING: i32 = -4;
/// Memory for a buffer whose size a host or a peer chose could not be had.
pub const RAFT_ERR_MEMORY: i32 = -5;
/// This process is a child by fork(2) of one that had a server open. A server lives in the process that opened it.
pub const RAFT_ERR_FORKED: i32 = -6;
/// The call waits, and was made in a callback, which it would wait for.
pub const RAFT_ERR_IN_CALLBACK: i32 = -7;
/// The call belongs to the other mode: dispatch in threaded mode, or poll where a `completed` callback is set.
pub const RAFT_ERR_MODE: i32 = -8;
/// The server is closed.
pub const RAFT_ERR_CLOSED: i32 = -9;
/// The operating system refused a file, directory or thread.
pub const RAFT_ERR_IO: i32 = -10;
/// Another process has the data directory open.
pub const RAFT_ERR_LOCKED: i32 = -11;
/// The data directory could not be opened: damage in it, or a format that this version does not know. The message
/// names the file, the offset and the remedy. Nothing in the directory was changed.
pub const RAFT_ERR_STORAGE: i32 = -12;
/// The listen address could not be taken.
pub const RAFT_ERR_ADDRESS: i32 = -13;
/// The group is already started on this server.
pub const RAFT_ERR_GROUP_EXISTS: i32 = -14;
/// The group may not start as asked: there is nothing to restart, or the directory was formed with other arguments.
pub const RAFT_ERR_GROUP_START: i32 = -15;
/// This server does not lead the group; the error or completion names who does, if that is known.
pub const RAFT_ERR_NOT_LEADER: i32 = -16;
/// A budget in bytes is full (queue, uncommitted log). Try again when some completions have come.
pub const RAFT_ERR_OVERLOADED: i32 = -17;
/// The proposal is longer than an entry may be (setting `max_entry_bytes`).
pub const RAFT_ERR_TOO_LARGE: i32 = -18;
/// The disk has no room. Proposals are accepted again, by themselves, when it has.
pub const RAFT_ERR_DISK_FULL: i32 = -19;
/// Another request of this kind is in progress, or there is nothing to do.
pub const RAFT_ERR_BUSY: i32 = -20;
/// The group is not formed yet: its initial members have not all met.
pub const RAFT_ERR_FORMING: i32 = -21;
/// The group or the server stopped by itself; its status says why.
pub const RAFT_ERR_STOPPED: i32 = -22;
/// A callback of the host said that it failed.
pub const RAFT_ERR_CALLBACK: i32 = -23;
/// Leadership or contact was lost after the proposal was handed on: it may or may not be applied.
pub const RAFT_ERR_UNKNOWN: i32 = -24;
/// The time given to a waiting call is over. A proposal may or may not be applied.
pub const RAFT_ERR_TIMEOUT: i32 = -25;
/// No completion will ever come again: the server is closed, and all are polled.
pub const RAFT_ERR_END: i32 = -26;
/// A defect of this library was caught at its edge; the message says where. Please report it.
pub const RAFT_ERR_INTERNAL: i32 = -27;
/// Leadership is being handed over: its next leader takes proposals in a moment.
pub const RAFT_ERR_TRANSFERRING: i32 = -28;
/// The group cannot do what was asked; the message says what, and what to do instead.
pub const RAFT_ERR_INVALID: i32 = -29;
/// The request was given up at its deadline, and nothing is left of it; the message says what it waited for.
pub const RAFT_ERR_GIVEN_UP: i32 = -30;
/// The request was cancelled, and nothing is left of it.
pub const RAFT_ERR_CANCELLED: i32 = -31;
/// The session expired, was ended, or never was. The command was not applied now; while there was the session it may
/// have been. Nothing more can be asked in that session.
pub const RAFT_ERR_SESSION_EXPIRED: i32 = -32;
/// The command of the session was applied before, or its client said since that it needs no answer; what the answer was
/// is not kept any more.
pub const RAFT_ERR_REPLY_FORGOTTEN: i32 = -33;

/// No request was made: the call itself failed, or the status is not about a request.
pub const RAFT_OUTCOME_NONE: u32 = 0;
/// The request was done.
pub const RAFT_OUTCOME_APPLIED: u32 = 1;
/// The request was certainly not done, and never will be. Doing it again is safe.
pub const RAFT_OUTCOME_NOT_APPLIED: u32 = 2;
/// The request may or may not be done, now or later. Doing it again may do it twice.
pub const RAFT_OUTCOME_UNKNOWN: u32 = 3;

/// What went wrong, to what, and what to do about it.
///
/// Every call that can fail takes a `raft_error **error` as its last argument. It may be NULL. Where it is not, a
/// call that fails stores a new error there, which the caller owns and releases with raft_error_free; a call that
/// succeeds stores NULL. The returned status alone is enough to decide what to do.
#[allow(non_camel_case_types)]
pub struct raft_error {
    pub(crate) code: i32,
    pub(crate) outcome: u32,
    pub(crate) retriable: bool,
    pub(crate) leader: u64,
    pub(crate) message: CString,
}

impl Boxed for raft_error {
    const KIND: Kind = Kind::Error;
}

/// The status that the failed call returned: RAFT_ERR_...; RAFT_OK for NULL.
///
/// Any thread, also in a callback. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_error_code(error: *const raft_error) -> i32 {
    // SAFETY: the caller passes NULL or an error that it owns, as the header asks.
    unsafe { handle::peek(error) }.map_or(RAFT_OK, |error| error.code)
}

/// A sentence for people, in UTF-8, NUL-terminated, never NULL. It belongs to the error and lives as long. Its
/// wording is no part of the ABI.
///
/// Any thread, also in a callback. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_error_message(error: *const raft_error) -> *const c_char {
    // SAFETY: as above.
    unsafe { handle::peek(error) }.map_or(c"".as_ptr(), |error| error.message.as_ptr())
}

/// Whether the same call may be made again: nothing can come of the failed one any more, and the next may succeed
/// without anyone repairing something, here after a while or at the leader. Never true of an unknown outcome.
///
/// Any thread, also in a callback. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_error_retriable(error: *const raft_error) -> bool {
    // SAFETY: as above.
    unsafe { handle::peek(error) }.is_some_and(|error| error.retriable)
}

/// What became of the request: RAFT_OUTCOME_...
///
/// Any thread, also in a callback. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_error_outcome(error: *const raft_error) -> u32 {
    // SAFETY: as above.
    unsafe { handle::peek(error) }.map_or(RAFT_OUTCOME_NONE, |error| error.outcome)
}

/// The server that leads, as far as this one knows; 0 where it knows none or the error has nothing to do with
/// leading.
///
/// Any thread, also in a callback. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_error_leader(error: *const raft_error) -> u64 {
    // SAFETY: as above.
    unsafe { handle::peek(error) }.map_or(0, |error| error.leader)
}

/// Releases an error. NULL is allowed, and what is not an error is left alone.
///
/// Any thread, also in a callback. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_error_free(error: *mut raft_error) {
    // SAFETY: as above; the caller gives the error up.
    drop(unsafe { handle::release(error) });
}

/// The name of a status, such as "RAFT_ERR_NOT_LEADER"; "RAFT_ERR_?" for a number that this version does not know.
/// Static, NUL-terminated; never release it.
///
/// Any thread, also in a callback and in a signal handler. Does not block, cannot fail.
#[unsafe(no_mangle)]
pub extern "C" fn raft_error_name(code: i32) -> *const c_char {
    let name = match code {
        RAFT_OK => c"RAFT_OK",
        RAFT_ERR_ARGUMENT => c"RAFT_ERR_ARGUMENT",
        RAFT_ERR_HANDLE => c"RAFT_ERR_HANDLE",
        RAFT_ERR_STRUCT_SIZE => c"RAFT_ERR_STRUCT_SIZE",
        RAFT_ERR_SETTING => c"RAFT_ERR_SETTING",
        RAFT_ERR_MEMORY => c"RAFT_ERR_MEMORY",
        RAFT_ERR_FORKED => c"RAFT_ERR_FORKED",
        RAFT_ERR_IN_CALLBACK => c"RAFT_ERR_IN_CALLBACK",
        RAFT_ERR_MODE => c"RAFT_ERR_MODE",
        RAFT_ERR_CLOSED => c"RAFT_ERR_CLOSED",
        RAFT_ERR_IO => c"RAFT_ERR_IO",
        RAFT_ERR_LOCKED => c"RAFT_ERR_LOCKED",
        RAFT_ERR_STORAGE => c"RAFT_ERR_STORAGE",
        RAFT_ERR_ADDRESS => c"RAFT_ERR_ADDRESS",
        RAFT_ERR_GROUP_EXISTS => c"RAFT_ERR_GROUP_EXISTS",
        RAFT_ERR_GROUP_START => c"RAFT_ERR_GROUP_START",
        RAFT_ERR_NOT_LEADER => c"RAFT_ERR_NOT_LEADER",
        RAFT_ERR_OVERLOADED => c"RAFT_ERR_OVERLOADED",
        RAFT_ERR_TOO_LARGE => c"RAFT_ERR_TOO_LARGE",
        RAFT_ERR_DISK_FULL => c"RAFT_ERR_DISK_FULL",
        RAFT_ERR_BUSY => c"RAFT_ERR_BUSY",
        RAFT_ERR_FORMING => c"RAFT_ERR_FORMING",
        RAFT_ERR_STOPPED => c"RAFT_ERR_STOPPED",
        RAFT_ERR_CALLBACK => c"RAFT_ERR_CALLBACK",
        RAFT_ERR_UNKNOWN => c"RAFT_ERR_UNKNOWN",
        RAFT_ERR_TIMEOUT => c"RAFT_ERR_TIMEOUT",
        RAFT_ERR_END => c"RAFT_ERR_END",
        RAFT_ERR_INTERNAL => c"RAFT_ERR_INTERNAL",
        RAFT_ERR_TRANSFERRING => c"RAFT_ERR_TRANSFERRING",
        RAFT_ERR_INVALID => c"RAFT_ERR_INVALID",
        RAFT_ERR_GIVEN_UP => c"RAFT_ERR_GIVEN_UP",
        RAFT_ERR_CANCELLED => c"RAFT_ERR_CANCELLED",
        RAFT_ERR_SESSION_EXPIRED => c"RAFT_ERR_SESSION_EXPIRED",
        RAFT_ERR_REPLY_FORGOTTEN => c"RAFT_ERR_REPLY_FORGOTTEN",
        _ => c"RAFT_ERR_?",
    };
    name.as_ptr()
}

/// A failure on its way out: becomes a status and, where the caller wants it, a `raft_error`.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: i32,
    pub(crate) outcome: u32,
    pub(crate) leader: u64,
    pub(crate) message: String,
}

impl Failure {
    /// A failure of the call itself.
    pub(crate) fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, outcome: RAFT_OUTCOME_NONE, leader: 0, message: message.into() }
    }

    /// The same failure, of a request with this outcome.
    pub(crate) fn with_outcome(self, outcome: u32) -> Self {
        Self { outcome, ..self }
    }

    /// Whether the same call may be made again, and may succeed without anyone repairing something.
    fn is_retriable(&self) -> bool {
        matches!(
            self.code,
            RAFT_ERR_LOCKED
                | RAFT_ERR_NOT_LEADER
                | RAFT_ERR_OVERLOADED
                | RAFT_ERR_DISK_FULL
                | RAFT_ERR_BUSY
                | RAFT_ERR_FORMING
                | RAFT_ERR_TRANSFERRING
                | RAFT_ERR_GIVEN_UP
        )
    }

    /// Stores the failure where the caller wants it, and gives its status.
    ///
    /// # Safety
    /// `error` is NULL or may be written.
    pub(crate) unsafe fn hand_over(self, error: *mut *mut raft_error) -> i32 {
        let code = self.code;
        if !error.is_null() {
            let retriable = self.is_retriable();
            let text: Vec<u8> = self.message.into_bytes().into_iter().filter(|byte| *byte != 0).collect();
            let message = CString::new(text).unwrap_or_default();
            let object = raft_error { code, outcome: self.outcome, retriable, leader: self.leader, message };
            // SAFETY: the caller vouches for `error`.
            unsafe { ptr::write(error, handle::own(object)) };
        }
        code
    }
}
