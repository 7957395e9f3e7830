//! Section "Proposing" of the header.

use std::ptr;

use bytes::Bytes;
use raft_engine::server::{Item, Polled, SessionId, SessionKey};

use crate::call::{accessor, argument, array, entry, refuse_in_callback, store, timeout};
use crate::completion;
use crate::error::{
    Failure, RAFT_ERR_END, RAFT_ERR_MEMORY, RAFT_ERR_MODE, RAFT_ERR_TOO_LARGE, RAFT_OUTCOME_NOT_APPLIED, raft_error,
};
use crate::group::raft_group;
use crate::handle::{self, Boxed, Kind};
use crate::live::{self, LiveGroup};
use crate::state_machine::raft_completion;

/// Bytes to append to a group's log. Lives in arrays: its layout is frozen. Zero it before filling it in.
#[repr(C)]
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
pub struct raft_item {
    /// Comes back with the completion; need not be unique.
    pub tag: u64,
    /// The bytes: copied, borrowed for the call. NULL if there are none.
    pub data: *const u8,
    /// How many; at most the setting `max_entry_bytes`.
    pub length: usize,
    /// The session that it belongs to (raft_group_open_session); 0: to none, and then so are the next two fields.
    pub session: u64,
    /// Which of the session's commands it is. The same command has the same number whenever it is proposed again.
    pub sequence: u64,
    /// The lowest sequence of the session that may still be proposed again: answers of those below are forgotten. 0:
    /// any.
    pub lowest_outstanding: u64,
    /// Zero.
    pub reserved: [u64; 2],
}

/// Proposes an array of items, as one batch and in this order, and returns without waiting for them.
///
/// Items of sessions and others may be mixed. All of them are accepted or none. Each accepted one completes exactly
/// once, by `completed` or raft_group_poll. Items that are not accepted have no completion: they are certainly not
/// applied.
///
/// Where another server leads, it is asked, once: an item is applied on this server either way before it completes as
/// applied. Where contact with the leader is lost meanwhile, the outcome is unknown (RAFT_ERR_UNKNOWN). With the setting
/// `forwarding` off, or without contact, it completes as RAFT_ERR_NOT_LEADER.
///
/// - `items`, `count`: borrowed for the call. A count of 0 does nothing.
///
/// Any thread, also in a callback. Does not block.
/// Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_TOO_LARGE, RAFT_ERR_OVERLOADED (more than `queue_bytes`
/// wait), RAFT_ERR_MODE (there is neither `completed` nor poll to tell the end), RAFT_ERR_MEMORY, RAFT_ERR_STOPPED,
/// RAFT_ERR_CLOSED, RAFT_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_propose(
    group: *mut raft_group,
    items: *const raft_item,
    count: usize,
    error: *mut *mut raft_error,
) -> i32 {
    let body = || {
        let group = live::group(group)?;
        group.refuse_unheard()?;
        // SAFETY: the items are as the header asks.
        let items = unsafe { batch(&group, array(items, count, "items")?) }?;
        Ok(group.group.propose(items)?)
    };
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, || body().map_err(not_applied)) }
}

/// Takes completions, with the setting `completions` poll.
///
/// - `completions`, `capacity`: an array to fill. The results in it belong to the library and live until the next
///   raft_group_poll on this group, or raft_server_free.
/// - `count`: receives how many were stored; 0 if there are none now: wait on raft_server_descriptor.
///
/// In host mode completions are made by raft_server_dispatch, so poll after it. One thread at a time for each group,
/// also in a callback. Does not block.
/// Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_MODE (the setting is "callback"), RAFT_ERR_END (the server is
/// closed, and nothing is left), RAFT_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_poll(
    group: *mut raft_group,
    completions: *mut raft_completion,
    capacity: usize,
    count: *mut usize,
    error: *mut *mut raft_error,
) -> i32 {
    let body = || {
        // SAFETY: `count` is as the header asks.
        unsafe { store(count, 0) };
        let group = live::group(group)?;
        if completions.is_null() || capacity == 0 || count.is_null() {
            return Err(argument("`completions` or `count` is NULL, or `capacity` is 0"));
        }
        if !group.server.is_polled {
            let message = "completions are told by `completed`: poll goes with the setting `completions` poll";
            return Err(Failure::new(RAFT_ERR_MODE, message));
        }
        let mut polled = group.polled();
        let polled = &mut *polled;
        polled.completions.clear();
        polled.messages.clear();
        if group.group.poll(&mut polled.completions, capacity) == Polled::End && polled.completions.is_empty() {
            return Err(Failure::new(RAFT_ERR_END, "the server is closed, and every request is answered"));
        }
        assert!(polled.completions.len() <= capacity);
        let mut stored = 0;
        completion::translate(&polled.completions, &mut polled.messages, |completion| {
            // SAFETY: fewer than `capacity`, which the array has.
            unsafe { completions.add(stored).write(completion) };
            stored += 1;
        });
        // SAFETY: as above.
        unsafe { store(count, stored) };
        Ok(())
    };
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, body) }
}

/// What a waiting call brought back: a copy that the caller owns.
#[allow(non_camel_case_types)]
pub struct raft_result {
    data: Bytes,
    index: u64,
    term: u64,
}

impl Boxed for raft_result {
    const KIND: Kind = Kind::Result;
}

impl raft_result {
    /// Hands a result to the host.
    pub(crate) fn hand_over(data: Bytes, index: u64, term: u64) -> *mut Self {
        handle::own(Self { data, index, term })
    }
}

/// One field of a result, or what stands for it.
///
/// # Safety
/// `result` is as the header asks.
unsafe fn of_result<T: Copy>(result: *const raft_result, neutral: T, field: impl FnOnce(&raft_result) -> T) -> T {
    // SAFETY: the caller vouches for it.
    accessor(neutral, || unsafe { handle::peek(result) }.map_or(neutral, field))
}

/// Proposes one entry and waits until it is applied on this server.
///
/// - `data`, `length`: borrowed for the call. NULL and 0 are an empty entry.
/// - `timeout_ms`: how long to wait; -1 waits without limit. When it is over, the outcome is unknown.
/// - `out`: receives what `apply` gave, which the caller owns and releases with raft_result_free; NULL on failure.
///   May be NULL where nobody asks.
///
/// Any thread, not in a callback; in host mode not the thread that should dispatch meanwhile. Blocks. The outcome is
/// in `error`: RAFT_OUTCOME_NOT_APPLIED or RAFT_OUTCOME_UNKNOWN.
/// Errors: those of raft_group_propose, RAFT_ERR_NOT_LEADER, RAFT_ERR_DISK_FULL, RAFT_ERR_FORMING, RAFT_ERR_UNKNOWN,
/// RAFT_ERR_TIMEOUT, RAFT_ERR_IN_CALLBACK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_propose_wait(
    group: *mut raft_group,
    data: *const u8,
    length: usize,
    timeout_ms: i64,
    out: *mut *mut raft_result,
    error: *mut *mut raft_error,
) -> i32 {
    let body = || {
        // SAFETY: `out` is as the header asks.
        unsafe { store(out, ptr::null_mut()) };
        let group = live::group(group)?;
        refuse_in_callback("raft_group_propose_wait")?;
        let timeout = timeout(timeout_ms)?;
        refuse_too_large(&group, 0, length)?;
        // SAFETY: the data is as the header asks.
        let data = copy(unsafe { array(data, length, "data") }?)?;
        let applied = group.group.propose_wait(data, timeout)?;
        if !out.is_null() {
            // SAFETY: not NULL, and as the header asks.
            unsafe { out.write(raft_result::hand_over(applied.result, applied.index, applied.term)) };
        }
        Ok(())
    };
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, || body().map_err(not_applied)) }
}

/// The bytes of a result; NULL if there are none. They belong to the result and live as long. One thread at a time.
/// Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_result_data(result: *const raft_result) -> *const u8 {
    // SAFETY: as the header asks.
    unsafe {
        of_result(result, ptr::null(), |result| if result.data.is_empty() { ptr::null() } else { result.data.as_ptr() })
    }
}

/// How many there are. One thread at a time. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_result_length(result: *const raft_result) -> usize {
    // SAFETY: as the header asks.
    unsafe { of_result(result, 0, |result| result.data.len()) }
}

/// The index of the entry; 0 of a query. One thread at a time. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_result_index(result: *const raft_result) -> u64 {
    // SAFETY: as the header asks.
    unsafe { of_result(result, 0, |result| result.index) }
}

/// The term of the entry; 0 of a query. One thread at a time. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_result_term(result: *const raft_result) -> u64 {
    // SAFETY: as the header asks.
    unsafe { of_result(result, 0, |result| result.term) }
}

/// Releases a result. NULL is allowed. Any thread. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_result_free(result: *mut raft_result) {
    // SAFETY: as the header asks.
    accessor((), || drop(unsafe { handle::release(result) }));
}

impl LiveGroup {
    /// Refuses a request whose end nobody would hear of.
    pub(crate) fn refuse_unheard(&self) -> Result<(), Failure> {
        if self.has_completed || self.server.is_polled {
            return Ok(());
        }
        let message = "the state machine has no `completed`, and the setting `completions` is not poll: nobody would \
                       be told how this ends";
        Err(Failure::new(RAFT_ERR_MODE, message))
    }
}

/// A failure before anything was handed on: certainly not applied.
pub(crate) fn not_applied(failure: Failure) -> Failure {
    match failure.outcome {
        crate::error::RAFT_OUTCOME_NONE => failure.with_outcome(RAFT_OUTCOME_NOT_APPLIED),
        _ => failure,
    }
}

fn refuse_too_large(group: &LiveGroup, position: usize, length: usize) -> Result<(), Failure> {
    let limit = group.server.max_entry_bytes;
    if length <= limit {
        return Ok(());
    }
    let message = format!("item {position} has {length} bytes, more than max_entry_bytes, which is {limit}");
    Err(Failure::new(RAFT_ERR_TOO_LARGE, message))
}

/// Copies bytes of the host; fails where there is no memory for them.
pub(crate) fn copy(data: &[u8]) -> Result<Bytes, Failure> {
    let mut bytes = reserve(data.len())?;
    bytes.extend_from_slice(data);
    Ok(bytes.into())
}

fn reserve<T>(length: usize) -> Result<Vec<T>, Failure> {
    let mut all = Vec::new();
    let message = |_| Failure::new(RAFT_ERR_MEMORY, format!("no memory for {length} elements"));
    all.try_reserve_exact(length).map_err(message)?;
    Ok(all)
}

fn check_session(position: usize, item: &raft_item) -> Result<(), Failure> {
    if item.session == 0 && (item.sequence != 0 || item.lowest_outstanding != 0) {
        return Err(argument(format!("item {position} has a sequence, and no session that it is of")));
    }
    if item.reserved != [0; 2] {
        return Err(argument(format!("item {position}: the reserved fields are 0 in this version")));
    }
    Ok(())
}

/// What an item says of its session, if it is of one.
fn session_of(item: &raft_item) -> Option<SessionKey> {
    let &raft_item { session, sequence, lowest_outstanding, .. } = item;
    (session != 0).then_some(SessionKey { session: SessionId(session), sequence, lowest_outstanding })
}

/// Copies one item that is proposed alone.
///
/// # Safety
/// `item` and the pointer in it are as the header asks.
pub(crate) unsafe fn copy_of(group: &LiveGroup, item: *const raft_item) -> Result<Item, Failure> {
    // SAFETY: the caller vouches for it.
    let item = &unsafe { array(item, 1, "item") }?[0];
    refuse_too_large(group, 0, item.length)?;
    check_session(0, item)?;
    // SAFETY: the caller vouches for it.
    let data = copy(unsafe { array(item.data, item.length, "data") }?)?;
    Ok(Item { tag: item.tag, data, session: session_of(item) })
}

/// Copies a batch of items into one buffer. Checked as a whole before memory is taken.
///
/// # Safety
/// The pointers in `items` are as the header asks.
unsafe fn batch(group: &LiveGroup, items: &[raft_item]) -> Result<Vec<Item>, Failure> {
    let mut total_bytes = 0_usize;
    for (position, item) in items.iter().enumerate() {
        refuse_too_large(group, position, item.length)?;
        // SAFETY: the caller vouches for it.
        unsafe { array(item.data, item.length, "data") }?;
        check_session(position, item)?;
        total_bytes = total_bytes.saturating_add(item.length);
    }
    let limit = group.server.queue_bytes;
    if total_bytes > limit {
        let message = format!("the batch has {total_bytes} bytes, more than queue_bytes, which is {limit}");
        return Err(Failure::new(RAFT_ERR_TOO_LARGE, message));
    }
    let mut buffer = reserve(total_bytes)?;
    for item in items {
        // SAFETY: as above.
        buffer.extend_from_slice(unsafe { array(item.data, item.length, "data") }?);
    }
    let buffer = Bytes::from(buffer);
    let mut copies = reserve(items.len())?;
    let mut from = 0;
    for item in items {
        copies.push(Item { tag: item.tag, data: buffer.slice(from..from + item.length), session: session_of(item) });
        from += item.length;
    }
    assert_eq!(from, buffer.len());
    Ok(copies)
}
