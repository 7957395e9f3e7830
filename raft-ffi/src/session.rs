//! Section "Sessions" of the header.

use std::ptr;

use raft_engine::server::SessionId;

use crate::call::{argument, entry, refuse_in_callback, store, timeout};
use crate::error::{Failure, raft_error};
use crate::group::raft_group;
use crate::live;
use crate::propose::{self, not_applied, raft_item, raft_result};
use crate::request::{submit, wait};

/// Opens a session, under which commands that are proposed again are applied once, and waits until it is open.
///
/// A session is a number, which is never used again in its group. Give it with each item, and number the items of a
/// session from 1; then an item that ended as unknown may be proposed again, at any server of the group, with the same
/// `session` and `sequence`: it is applied once, and every proposal of it that ends as applied has the first one's
/// result, index and term. A client tells in `lowest_outstanding` which answers it has, so that they can be forgotten.
///
/// A session ends when it is ended, when nobody uses it for as long as the group's settings say, or when others are
/// opened and it is the one used least recently. A command of one that has ended is not applied, and ends as unknown:
/// RAFT_ERR_SESSION_EXPIRED.
///
/// - `timeout_ms`: how long to wait; -1 waits without limit. Where the outcome is unknown, open another one.
/// - `session`: receives the session's number; 0 on failure.
///
/// Any thread, not in a callback; in host mode not the thread that should dispatch meanwhile. Blocks.
/// Errors: those of raft_group_propose_wait, but for RAFT_ERR_TOO_LARGE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_open_session(
    group: *mut raft_group,
    timeout_ms: i64,
    session: *mut u64,
    error: *mut *mut raft_error,
) -> i32 {
    let body = || {
        if session.is_null() {
            return Err(argument("`session` is NULL"));
        }
        // SAFETY: `session` is as the header asks.
        unsafe { store(session, 0) };
        let group = live::group(group)?;
        refuse_in_callback("raft_group_open_session")?;
        let opened = group.group.open_session(timeout(timeout_ms)?)?;
        // SAFETY: as above.
        unsafe { store(session, opened.id.0) };
        Ok(())
    };
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, || body().map_err(not_applied)) }
}

/// As raft_group_open_session, without waiting: the session's number is the completion's `index`.
///
/// - `tag`: comes back with the completion.
///
/// Any thread, also in a callback. Does not block.
/// Errors: RAFT_ERR_HANDLE, RAFT_ERR_OVERLOADED, RAFT_ERR_MODE, RAFT_ERR_STOPPED, RAFT_ERR_CLOSED, RAFT_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_open_session_submit(
    group: *mut raft_group,
    tag: u64,
    error: *mut *mut raft_error,
) -> i32 {
    // SAFETY: `error` is as the header asks.
    unsafe { submit(group, error, |group| Ok(group.open_session_submit(tag)?)) }
}

/// Uses a session without a command, so that it does not expire, and waits until that is done.
///
/// - `timeout_ms`: how long to wait; -1 waits without limit. It may be done again, whatever the outcome.
///
/// Any thread, not in a callback; in host mode not the thread that should dispatch meanwhile. Blocks.
/// Errors: those of raft_group_open_session, RAFT_ERR_SESSION_EXPIRED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_renew_session(
    group: *mut raft_group,
    session: u64,
    timeout_ms: i64,
    error: *mut *mut raft_error,
) -> i32 {
    // SAFETY: `error` is as the header asks.
    unsafe {
        wait("raft_group_renew_session", group, error, |group| {
            Ok(group.renew_session(SessionId(session), timeout(timeout_ms)?)?)
        })
    }
}

/// As raft_group_renew_session, without waiting.
///
/// - `tag`: comes back with the completion.
///
/// Any thread, also in a callback. Does not block.
/// Errors: those of raft_group_open_session_submit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_renew_session_submit(
    group: *mut raft_group,
    tag: u64,
    session: u64,
    error: *mut *mut raft_error,
) -> i32 {
    // SAFETY: `error` is as the header asks.
    unsafe { submit(group, error, |group| Ok(group.renew_session_submit(tag, SessionId(session))?)) }
}

/// Ends a session, if it has not ended, and waits until that is done.
///
/// - `timeout_ms`: how long to wait; -1 waits without limit. It may be done again, whatever the outcome.
///
/// Any thread, not in a callback; in host mode not the thread that should dispatch meanwhile. Blocks.
/// Errors: those of raft_group_open_session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_close_session(
    group: *mut raft_group,
    session: u64,
    timeout_ms: i64,
    error: *mut *mut raft_error,
) -> i32 {
    // SAFETY: `error` is as the header asks.
    unsafe {
        wait("raft_group_close_session", group, error, |group| {
            Ok(group.close_session(SessionId(session), timeout(timeout_ms)?)?)
        })
    }
}

/// As raft_group_close_session, without waiting.
///
/// - `tag`: comes back with the completion.
///
/// Any thread, also in a callback. Does not block.
/// Errors: those of raft_group_open_session_submit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_close_session_submit(
    group: *mut raft_group,
    tag: u64,
    session: u64,
    error: *mut *mut raft_error,
) -> i32 {
    // SAFETY: `error` is as the header asks.
    unsafe { submit(group, error, |group| Ok(group.close_session_submit(tag, SessionId(session))?)) }
}

/// As raft_group_propose_wait, for an item that may belong to a session.
///
/// - `item`: borrowed for the call. Its tag is not looked at.
/// - `timeout_ms`, `out`: as there. Where the outcome is unknown, an item of a session may be proposed again.
///
/// Any thread, not in a callback; in host mode not the thread that should dispatch meanwhile. Blocks.
/// Errors: those of raft_group_propose_wait, RAFT_ERR_SESSION_EXPIRED, RAFT_ERR_REPLY_FORGOTTEN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_propose_item_wait(
    group: *mut raft_group,
    item: *const raft_item,
    timeout_ms: i64,
    out: *mut *mut raft_result,
    error: *mut *mut raft_error,
) -> i32 {
    let body = || -> Result<(), Failure> {
        // SAFETY: `out` is as the header asks.
        unsafe { store(out, ptr::null_mut()) };
        let group = live::group(group)?;
        refuse_in_callback("raft_group_propose_item_wait")?;
        let timeout = timeout(timeout_ms)?;
        // SAFETY: the item is as the header asks.
        let item = unsafe { propose::copy_of(&group, item) }?;
        let applied = match item.session {
            Some(key) => group.group.propose_in_session(key, item.data, timeout)?,
            None => group.group.propose_wait(item.data, timeout)?,
        };
        if !out.is_null() {
            // SAFETY: not NULL, and as the header asks.
            unsafe { out.write(raft_result::hand_over(applied.result, applied.index, applied.term)) };
        }
        Ok(())
    };
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, || body().map_err(not_applied)) }
}
