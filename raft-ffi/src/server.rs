//! Section "Server" of the header.

use std::os::fd::AsRawFd;

use raft_engine::server::{CloseError, CompletionDelivery, DispatchError, OpenError, Server};

use crate::call::{argument, clear, entry, refuse_in_callback, silence_panics, store, timeout};
use crate::config::{self, raft_config};
use crate::error::{
    Failure, RAFT_ERR_ADDRESS, RAFT_ERR_CLOSED, RAFT_ERR_FORKED, RAFT_ERR_IN_CALLBACK, RAFT_ERR_IO, RAFT_ERR_LOCKED,
    RAFT_ERR_MODE, RAFT_ERR_SETTING, RAFT_ERR_STORAGE, raft_error,
};
use crate::live::{self, LiveServer, Opening};

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
    silence_panics();
    let body = || {
        // SAFETY: the pointers are as the header asks.
        let config = unsafe {
            clear(out, "out")?;
            config::look(config)?.clone()
        };
        refuse_in_callback("raft_server_open")?;
        live::refuse_forked()?;
        let opening = Opening::begin();
        let is_polled = config.completions == CompletionDelivery::Poll;
        let (max_entry_bytes, queue_bytes) = (config.settings.max_entry_bytes, config.settings.queue_bytes);
        let server = Server::open(config)?;
        let handle = live::add_server(LiveServer { server, is_polled, max_entry_bytes, queue_bytes }, opening);
        // SAFETY: `clear` found that it may be written.
        unsafe { out.write(handle) };
        Ok(())
    };
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, body) }
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
    let body = || {
        // SAFETY: `count` is as the header asks.
        unsafe { store(count, 0) };
        let server = live::server(server)?;
        let timeout = timeout(timeout_ms)?;
        refuse_in_callback("raft_server_dispatch")?;
        let max = if max == 0 { usize::MAX } else { max };
        let dispatched = server.server.dispatch(max, timeout)?;
        // SAFETY: as above.
        unsafe { store(count, dispatched) };
        Ok(())
    };
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, body) }
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
    let body = || {
        if out.is_null() {
            return Err(argument("`out` is NULL: there is nowhere to put the descriptor"));
        }
        // SAFETY: `out` is as the header asks.
        unsafe { store(out, -1) };
        let server = live::server(server)?;
        // SAFETY: as above.
        unsafe { store(out, server.server.descriptor().as_raw_fd()) };
        Ok(())
    };
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, body) }
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
    let body = || {
        let server = live::server(server)?;
        refuse_in_callback("raft_server_close")?;
        Ok(server.server.close()?)
    };
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, body) }
}

/// Ends a server, closing it first if that is not done, and with it its groups and what is left in their poll queues.
/// NULL is allowed.
///
/// Calls in progress on other threads end safely; later ones are told RAFT_ERR_HANDLE. Results that raft_group_poll
/// lent are gone. Any thread, not in a callback. Blocks as raft_server_close does.
/// Errors: RAFT_ERR_HANDLE, RAFT_ERR_IN_CALLBACK (the server lives on), RAFT_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_server_free(server: *mut raft_server, error: *mut *mut raft_error) -> i32 {
    let body = || {
        if server.is_null() {
            return Ok(());
        }
        let open = live::server(server)?;
        refuse_in_callback("raft_server_free")?;
        open.server.close()?;
        live::remove(server);
        Ok(())
    };
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, body) }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let code = match &error {
            OpenError::Config(_) => RAFT_ERR_SETTING,
            OpenError::Directory { .. } | OpenError::System { .. } => RAFT_ERR_IO,
            OpenError::Locked { .. } => RAFT_ERR_LOCKED,
            OpenError::Listen { .. } => RAFT_ERR_ADDRESS,
            OpenError::Refused { .. } => RAFT_ERR_STORAGE,
        };
        Self::new(code, error.to_string())
    }
}

impl From<DispatchError> for Failure {
    fn from(error: DispatchError) -> Self {
        let code = match &error {
            DispatchError::Closed => RAFT_ERR_CLOSED,
            DispatchError::Threaded => RAFT_ERR_MODE,
            DispatchError::InCallback => RAFT_ERR_IN_CALLBACK,
            DispatchError::Forked => RAFT_ERR_FORKED,
        };
        Self::new(code, error.to_string())
    }
}

impl From<CloseError> for Failure {
    fn from(error: CloseError) -> Self {
        let code = match &error {
            CloseError::InCallback => RAFT_ERR_IN_CALLBACK,
            CloseError::Forked => RAFT_ERR_FORKED,
        };
        Self::new(code, error.to_string())
    }
}
