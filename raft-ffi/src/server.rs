//! Section "Server" of the header.

use crate::call::{entry, not_yet};
use crate::config::raft_config;
use crate::error::raft_error;

/// One process's endpoint: a data directory, a listen address, and the groups that live on them.
///
/// A server handle is a number in disguise, not an address: any value may be passed where one is expected, and what
/// is not a live server is told, also after raft_server_free.
#[allow(non_camel_case_types)]
pub struct raft_server {}

/// Opens a server: locks and recovers its directory, listens, and starts the library's threads. It takes part in
/// nothing until its groups are started.
///
/// - `config`: borrowed for the call.
/// - `out`: receives the server, which the caller owns and ends with raft_server_free; NULL on failure.
///
/// Any thread, not in a callback. Blocks while it reads the log: tens of milliseconds for a log of usual length.
/// Errors: RAFT_ERR_ARGUMENT, RAFT_ERR_HANDLE, RAFT_ERR_SETTING, RAFT_ERR_IO, RAFT_ERR_LOCKED, RAFT_ERR_STORAGE,
/// RAFT_ERR_ADDRESS, RAFT_ERR_IN_CALLBACK, RAFT_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_server_open(
    config: *const raft_config,
    out: *mut *mut raft_server,
    error: *mut *mut raft_error,
) -> i32 {
    let _ = (config, out);
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, not_yet) }
}

/// In host mode, runs the callbacks of this server's groups that are due, on the calling thread.
///
/// - `max`: pieces of work to do at most (a batch, a query, a step of a snapshot); 0 means no limit.
/// - `timeout_ms`: how long to wait for the first: 0 does not wait, -1 waits without limit. The call returns as soon
///   as it has run what was due.
/// - `count`: receives how many were done; may be NULL.
///
/// Any thread; calls on one server take turns. Blocks for `timeout_ms` and for as long as the callbacks take. Not in
/// a callback. raft_server_close makes it return.
/// Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_MODE (the library's thread dispatches), RAFT_ERR_IN_CALLBACK,
/// RAFT_ERR_CLOSED, RAFT_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_server_dispatch(
    server: *mut raft_server,
    max: usize,
    timeout_ms: i64,
    count: *mut usize,
    error: *mut *mut raft_error,
) -> i32 {
    let _ = (server, max, timeout_ms, count);
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, not_yet) }
}

/// A file descriptor for poll(2), select(2), epoll(7) or an event loop: it is readable (POLLIN) while there is
/// something for raft_server_dispatch (with `dispatch` host) or raft_group_poll (with `completions` poll), and once
/// the server is closed. Wait on it, and do nothing else with it: neither read nor close it.
///
/// - `out`: receives the descriptor. It belongs to the server and lives until raft_server_free.
///
/// Any thread. Does not block.
/// Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_server_descriptor(
    server: *mut raft_server,
    out: *mut i32,
    error: *mut *mut raft_error,
) -> i32 {
    let _ = (server, out);
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, not_yet) }
}

/// Closes a server: leaves its peers, makes what was promised durable, and ends the library's threads.
///
/// It makes raft_server_dispatch return, waits for the callback in progress, and then completes every request still
/// open, on the calling thread: by `completed`, or into the queue of raft_group_poll, which may be emptied until it
/// says RAFT_ERR_END. Last it calls the `destroy` of every state machine. The handle stays valid, and other calls on
/// it return RAFT_ERR_CLOSED, until raft_server_free. Closing again is allowed and does nothing.
///
/// Any thread, not in a callback. Blocks until the callback in progress is over and the disk is quiet.
/// Errors: RAFT_ERR_HANDLE, RAFT_ERR_IN_CALLBACK, RAFT_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_server_close(server: *mut raft_server, error: *mut *mut raft_error) -> i32 {
    let _ = server;
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, not_yet) }
}

/// Ends a server, closing it first if that is not done, and with it its groups and what is left in their poll queues.
/// NULL is allowed.
///
/// Calls in progress on other threads end safely; later ones are told RAFT_ERR_HANDLE. Results that raft_group_poll
/// lent are gone. Any thread, not in a callback. Blocks as raft_server_close does.
/// Errors: RAFT_ERR_HANDLE, RAFT_ERR_IN_CALLBACK (the server lives on), RAFT_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_server_free(server: *mut raft_server, error: *mut *mut raft_error) -> i32 {
    let _ = server;
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, not_yet) }
}
