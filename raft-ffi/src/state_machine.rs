//! Section "State machine" of the header: what the host gives a group, and what its callbacks get.

use std::ffi::{c_char, c_void};
use std::io::Read;
use std::{ptr, slice};

use raft_engine::server::{ApplyBatch, SnapshotReader};

use crate::call::{Versioned, accessor, argument, array, entry, store, text};
use crate::error::{Failure, RAFT_ERR_HANDLE, RAFT_ERR_IO, RAFT_ERR_MEMORY, RAFT_ERR_TOO_LARGE};
use crate::handle::{self, Boxed, Kind};

/// One committed entry for the state machine. Comes in arrays: its layout is frozen.
#[repr(C)]
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
pub struct raft_entry {
    /// Its place in the log. Indices ascend; there are gaps where the library's own entries are.
    pub index: u64,
    /// The term of the leader that made it.
    pub term: u64,
    /// The group's own time, in nanoseconds since the group was formed; the same on every replica, and never less
    /// than the entry's before. The only clock that a state machine may look at.
    pub log_time: u64,
    /// What was proposed. Lives until `apply` returns.
    pub data: *const u8,
    /// Its length in bytes.
    pub length: usize,
    /// Zero.
    pub reserved: [u64; 3],
}

/// Where `apply` leaves its results. Lives until `apply` returns.
#[allow(non_camel_case_types)]
pub struct raft_results {
    // Its lifetime is that of the callback which this is lent to.
    pub(crate) batch: *mut ApplyBatch<'static>,
    pub(crate) failure: Option<String>,
}

impl Boxed for raft_results {
    const KIND: Kind = Kind::Results;
}

/// Gives the result of one entry, for whoever proposed it. It is copied at once. Without this call the result is
/// empty. Results must be the same on every replica.
///
/// - `position`: the entry's position in the array that `apply` got.
/// - `data`, `length`: the result; at most 1 MiB. NULL and 0 for none.
///
/// Only in `apply`, on its thread. Does not block.
/// Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_TOO_LARGE, RAFT_ERR_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_results_set(
    results: *mut raft_results,
    position: usize,
    data: *const u8,
    length: usize,
) -> i32 {
    let body = || {
        // SAFETY: the pointers are as the header asks.
        let (results, data) = unsafe {
            let results = handle::peek_mut(results).ok_or_else(|| not_lent("raft_results"))?;
            (results, array(data, length, "data")?)
        };
        if length > ApplyBatch::MAX_RESULT_BYTES {
            let message = format!("a result of {length} bytes is longer than {}", ApplyBatch::MAX_RESULT_BYTES);
            return Err(Failure::new(RAFT_ERR_TOO_LARGE, message));
        }
        // SAFETY: the batch outlives the callback, and nothing else uses it meanwhile.
        let batch = unsafe { &mut *results.batch };
        batch.set_result(position, data).map_err(argument)
    };
    // SAFETY: there is no error object to write.
    unsafe { entry(ptr::null_mut(), body) }
}

/// Says why `apply` is about to return less than it got: NUL-terminated UTF-8, copied. It is in the group's status
/// and in the notice that the group stopped.
///
/// Only in `apply`, on its thread. Does not block. Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_results_set_failure(results: *mut raft_results, message: *const c_char) -> i32 {
    let body = || {
        // SAFETY: the pointers are as the header asks.
        let (results, message) = unsafe {
            let results = handle::peek_mut(results).ok_or_else(|| not_lent("raft_results"))?;
            (results, text(message, "message")?)
        };
        results.failure = Some(message.to_owned());
        Ok(())
    };
    // SAFETY: there is no error object to write.
    unsafe { entry(ptr::null_mut(), body) }
}

/// Where `query` leaves its answer. Lives until `query` returns.
#[allow(non_camel_case_types)]
pub struct raft_reply {
    pub(crate) bytes: Vec<u8>,
}

impl Boxed for raft_reply {
    const KIND: Kind = Kind::Reply;
}

/// Gives the answer to a query, or, where `query` then returns something else than 0, a message that says why it
/// failed. It is copied at once; the last call counts.
///
/// - `data`, `length`: the answer. NULL and 0 for none.
///
/// Only in `query`, on its thread. Does not block. Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_reply_set(reply: *mut raft_reply, data: *const u8, length: usize) -> i32 {
    let body = || {
        // SAFETY: the pointers are as the header asks.
        let (reply, data) = unsafe {
            let reply = handle::peek_mut(reply).ok_or_else(|| not_lent("raft_reply"))?;
            (reply, array(data, length, "data")?)
        };
        let mut bytes = Vec::new();
        let reserved = bytes.try_reserve_exact(length);
        reserved.map_err(|_| Failure::new(RAFT_ERR_MEMORY, format!("no memory for an answer of {length} bytes")))?;
        bytes.extend_from_slice(data);
        reply.bytes = bytes;
        Ok(())
    };
    // SAFETY: there is no error object to write.
    unsafe { entry(ptr::null_mut(), body) }
}

/// A complete, verified snapshot on the local disk, read from its beginning. Lives until `restore` returns.
#[allow(non_camel_case_types)]
pub struct raft_snapshot_reader {
    // It outlives the callback which this is lent to.
    pub(crate) reader: *mut SnapshotReader,
}

impl Boxed for raft_snapshot_reader {
    const KIND: Kind = Kind::SnapshotReader;
}

fn not_lent(name: &str) -> Failure {
    Failure::new(RAFT_ERR_HANDLE, format!("this is no {name}, or its callback has returned"))
}

/// What a reader says of itself; 0 for what is not a reader.
///
/// # Safety
/// `reader` is as the header asks.
unsafe fn of_reader(reader: *const raft_snapshot_reader, field: impl FnOnce(&SnapshotReader) -> u64) -> u64 {
    // SAFETY: the caller vouches for it, and the engine's reader outlives the callback.
    accessor(0, || unsafe { handle::peek(reader) }.map_or(0, |reader| field(unsafe { &*reader.reader })))
}

/// Reads the next bytes of a snapshot.
///
/// - `buffer`, `capacity`: where to put them.
/// - `length`: receives how many there are; 0 at the end of the snapshot, and only there.
///
/// Only in `restore`, on its thread. Blocks on the disk. Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_IO.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_snapshot_reader_read(
    reader: *mut raft_snapshot_reader,
    buffer: *mut u8,
    capacity: usize,
    length: *mut usize,
) -> i32 {
    let body = || {
        // SAFETY: the pointers are as the header asks.
        let reader = unsafe {
            store(length, 0);
            handle::peek_mut(reader).ok_or_else(|| not_lent("raft_snapshot_reader"))?
        };
        if buffer.is_null() || capacity == 0 || capacity > isize::MAX as usize || length.is_null() {
            return Err(argument("`buffer` or `length` is NULL, or `capacity` is none"));
        }
        // SAFETY: the engine's reader outlives the callback, and nothing else uses it meanwhile. The buffer may hold
        // anything: it is made something before it is borrowed.
        let (reader, buffer) = unsafe {
            ptr::write_bytes(buffer, 0, capacity);
            (&mut *reader.reader, slice::from_raw_parts_mut(buffer, capacity))
        };
        let count = reader.read(buffer).map_err(|error| Failure::new(RAFT_ERR_IO, error.to_string()))?;
        // SAFETY: not NULL, and as the header asks.
        unsafe { store(length, count) };
        Ok(())
    };
    // SAFETY: there is no error object to write.
    unsafe { entry(ptr::null_mut(), body) }
}

/// The index of the last entry that the snapshot includes; 0 for what is not a reader. Only in `restore`. Does not
/// block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_snapshot_reader_index(reader: *const raft_snapshot_reader) -> u64 {
    // SAFETY: as the header asks.
    unsafe { of_reader(reader, SnapshotReader::index) }
}

/// The term of that entry; 0 for what is not a reader. Only in `restore`. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_snapshot_reader_term(reader: *const raft_snapshot_reader) -> u64 {
    // SAFETY: as the header asks.
    unsafe { of_reader(reader, SnapshotReader::term) }
}

/// The snapshot's length in bytes, as `snapshot_write` wrote it; 0 for what is not a reader. Only in `restore`. Does
/// not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_snapshot_reader_length(reader: *const raft_snapshot_reader) -> u64 {
    // SAFETY: as the header asks.
    unsafe { of_reader(reader, SnapshotReader::total_bytes) }
}

/// How one request ended. Every accepted request has exactly one. Comes in arrays: its layout is frozen.
#[repr(C)]
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
pub struct raft_completion {
    /// The tag that the request was made with.
    pub tag: u64,
    /// RAFT_OUTCOME_...: applied, certainly not applied, or unknown.
    pub outcome: u32,
    /// RAFT_OK where applied, else why not: RAFT_ERR_...
    pub status: i32,
    /// Of a proposal, the entry's index; of a query or read, through which index the state was applied; of a
    /// snapshot, the last index in it. 0 where `status` is not RAFT_OK.
    pub index: u64,
    /// Of a proposal, the entry's term; else 0.
    pub term: u64,
    /// What `apply` or `query` gave; where `status` is not RAFT_OK, a message for people in UTF-8, without a NUL.
    /// NULL if it is empty.
    pub result: *const u8,
    /// Its length in bytes.
    pub result_length: usize,
    /// With RAFT_ERR_NOT_LEADER: who leads, or 0 if that is not known. It was not reached, or not asked.
    pub leader: u64,
    /// Zero.
    pub reserved: [u64; 3],
}

/// The group has its first entry: its initial members have met.
pub const RAFT_NOTICE_FORMED: u32 = 1;
/// This server's role in the group, the term or the leader changed.
pub const RAFT_NOTICE_ROLE: u32 = 2;
/// A configuration took effect; raft_group_members has it.
pub const RAFT_NOTICE_MEMBERS: u32 = 3;
/// The group stopped on this server, for good until the server is opened again; `message` says why.
pub const RAFT_NOTICE_GROUP_STOPPED: u32 = 4;
/// The server stopped: its log failed, or it may not take part; `message` says why.
pub const RAFT_NOTICE_SERVER_STOPPED: u32 = 5;
/// A peer (`server`, if its id is known) was refused or refused this server; `message` has the reason and the remedy.
pub const RAFT_NOTICE_REFUSED: u32 = 6;
/// Something is odd and costs nothing yet; `message` says what.
pub const RAFT_NOTICE_WARNING: u32 = 7;
/// This server was removed from the group, by a committed entry that `message` names. It campaigns no more.
pub const RAFT_NOTICE_REMOVED: u32 = 8;
/// Replicas of the group differ at the entry `index`; `message` says who, and raft_group_digest_check has it. Where a
/// majority agrees, the group stops next on the servers of those who differ.
pub const RAFT_NOTICE_DIVERGED: u32 = 9;

/// Something that the host may want to know without having asked. Passed singly: it may grow at its end. Look at a
/// field that came in a later version only if `size` covers it. What concerns the server is told to each of its groups.
#[repr(C)]
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
pub struct raft_notice {
    /// The size of the struct that the library passes.
    pub size: usize,
    /// RAFT_NOTICE_...
    pub kind: u32,
    /// With RAFT_NOTICE_ROLE: RAFT_ROLE_...; else 0.
    pub role: u32,
    /// With RAFT_NOTICE_ROLE: the term; else 0.
    pub term: u64,
    /// With RAFT_NOTICE_ROLE: who leads, or 0.
    pub leader: u64,
    /// With RAFT_NOTICE_REFUSED: the peer's id, or 0; else 0.
    pub server: u64,
    /// A sentence for people, NUL-terminated UTF-8, never NULL. Lives until `notice` returns.
    pub message: *const c_char,
    /// With RAFT_NOTICE_DIVERGED: the entry at which replicas were compared; else 0.
    pub index: u64,
}

/// What the host gives a group. Passed singly: it may grow at its end. Zero it, then set `size` to its sizeof.
///
/// All callbacks of a group are called one at a time, and in this order of the log: in host mode by
/// raft_server_dispatch, else by a thread of the library named "raft-apply". The one exception is `snapshot_write`,
/// which may run on a thread named "raft-snapshot" at the same time as the others. `user` is passed to each of them.
///
/// A callback may make every call that does not wait: proposing and submitting are allowed. It may not leave by
/// longjmp or by an exception. A slow callback costs throughput, not leadership: heartbeats and disk have threads of
/// their own.
#[repr(C)]
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
pub struct raft_state_machine {
    /// sizeof(raft_state_machine).
    pub size: usize,
    /// Passed to every callback. The library never looks behind it.
    pub user: *mut c_void,
    /// Called exactly once, after the last other callback: in raft_server_close, or in raft_server_start_group where
    /// that fails, whatever the reason (but for NULL or a wrong `size` of this struct). May be NULL.
    pub destroy: Option<unsafe extern "C" fn(user: *mut c_void)>,
    /// Applies committed entries, in log order: each once, and never again in the life of this state. Must do the
    /// same on every replica: no clock, no random number, nothing from outside.
    ///
    /// Returns how many it applied. `count` is the usual case; fewer means that the next one failed: the group stops
    /// on this server at that entry, unapplied. It is not tried again before the server is opened again. Never NULL.
    pub apply: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            entries: *const raft_entry,
            count: usize,
            results: *mut raft_results,
        ) -> usize,
    >,
    /// Answers a question about the state, between batches of entries. It must not change the state. Returns 0, or
    /// anything else if it failed. `request` lives until it returns. May be NULL: queries are then refused.
    pub query: Option<
        unsafe extern "C" fn(user: *mut c_void, request: *const u8, length: usize, reply: *mut raft_reply) -> i32,
    >,
    /// Begins a snapshot of the state as it is now, between batches. Should be cheap: fork the state, freeze it, or
    /// copy what is small. What it stores in `snapshot` is passed to the next two. Returns 0, or anything else if
    /// there can be no snapshot now. NULL in all four where the state machine has no snapshots: the log then grows
    /// for ever.
    pub snapshot_begin: Option<unsafe extern "C" fn(user: *mut c_void, snapshot: *mut *mut c_void) -> i32>,
    /// Writes the next part of the snapshot: up to `capacity` bytes to `buffer`, how many to `written`, and true to
    /// `done` with the last ones. Equal states need not give equal bytes. Returns 0, or anything else to give the
    /// snapshot up.
    pub snapshot_write: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            snapshot: *mut c_void,
            buffer: *mut u8,
            capacity: usize,
            written: *mut usize,
            done: *mut bool,
        ) -> i32,
    >,
    /// Ends a snapshot, complete or not: called exactly once for each `snapshot_begin` that returned 0.
    pub snapshot_release: Option<unsafe extern "C" fn(user: *mut c_void, snapshot: *mut c_void)>,
    /// Replaces the whole state by the one in the snapshot, at start or when this server was far behind. All or
    /// nothing: returns 0 and has the new state, or anything else and the group stops on this server.
    pub restore: Option<unsafe extern "C" fn(user: *mut c_void, reader: *mut raft_snapshot_reader) -> i32>,
    /// Tells how requests ended, many at a time and proposals in log order. The array and the results live until it
    /// returns. NULL with the setting `completions` poll, and where only waiting calls are made.
    pub completed: Option<unsafe extern "C" fn(user: *mut c_void, completions: *const raft_completion, count: usize)>,
    /// Tells what the host may want to know without having asked. May be NULL.
    pub notice: Option<unsafe extern "C" fn(user: *mut c_void, notice: *const raft_notice)>,
    /// Tells what the state comes down to, for raft_group_check_digests: bytes that are equal where states are and, as
    /// far as can be, only there. Called between batches, at the same entry on every replica. `digest` has
    /// RAFT_DIGEST_BYTES bytes, which are zero; it fills in as many as it has. Returns 0, or anything else if it cannot
    /// say. May take its time: entries wait, heartbeats do not. NULL: this replica takes no part.
    pub digest: Option<unsafe extern "C" fn(user: *mut c_void, digest: *mut u8) -> i32>,
}

// SAFETY: whole numbers, pointers and functions that may be NULL, the first of them the size, without padding.
unsafe impl Versioned for raft_state_machine {
    const NAME: &str = "raft_state_machine";
    const FIRST_BYTES: usize = 88;
}
