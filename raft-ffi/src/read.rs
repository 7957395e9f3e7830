//! Section "Reading" of the header.

use bytes::Bytes;
use raft_engine::server::Consistency;

use crate::call::{argument, array, clear, entry, refuse_in_callback, store, timeout};
use crate::error::{Failure, raft_error};
use crate::group::raft_group;
use crate::live::{self, LiveGroup};
use crate::propose::{copy, not_applied, raft_result};

/// Covers every write that was acknowledged anywhere before the read began. Costs the leader a round trip to a
/// majority, and another server one to the leader; with the setting `forwarding` off, or without contact with the
/// leader, it ends there as RAFT_ERR_NOT_LEADER, and may be made again.
pub const RAFT_READ_LINEARIZABLE: u32 = 1;
/// Covers at least the index given, on this server, waiting for it if need be: what a completion named (read your
/// writes), or an earlier read (never backwards).
pub const RAFT_READ_AT_LEAST: u32 = 2;
/// Whatever is applied on this server now.
pub const RAFT_READ_STALE: u32 = 3;
/// As RAFT_READ_LINEARIZABLE, and without the round trip while the leader holds a lease: where the group's settings have
/// `lease_ms`, and the leader has committed in its term and is not handing over. Else it is the same. Stands on clocks:
/// the monotonic clock of every member's machine must run, while the machine does, at a rate within a tenth of the
/// others', and no machine may be suspended or migrated live: its clock would stand while the others' leases run out.
pub const RAFT_READ_LEASE: u32 = 4;

/// Asks the state machine, by its `query`, and returns without waiting for the answer, which comes as a completion.
///
/// - `tag`: comes back with the completion.
/// - `consistency`: RAFT_READ_...
/// - `index`: with RAFT_READ_AT_LEAST the index; else 0.
/// - `request`, `length`: passed to `query`; copied, borrowed for the call.
///
/// Any thread, also in a callback. Does not block.
/// Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT (also where there is no `query`), RAFT_ERR_OVERLOADED, RAFT_ERR_MODE,
/// RAFT_ERR_MEMORY, RAFT_ERR_STOPPED, RAFT_ERR_CLOSED, RAFT_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_query_submit(
    group: *mut raft_group,
    tag: u64,
    consistency: u32,
    index: u64,
    request: *const u8,
    length: usize,
    error: *mut *mut raft_error,
) -> i32 {
    let body = || {
        let group = live::group(group)?;
        group.refuse_unheard()?;
        let consistency = how_fresh(consistency, index)?;
        // SAFETY: the request is as the header asks.
        let request = unsafe { question(&group, request, length) }?;
        Ok(group.group.query_submit(tag, request, consistency)?)
    };
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, || body().map_err(not_applied)) }
}

/// Asks the state machine, by its `query`, and waits for the answer.
///
/// - `consistency`, `index`, `request`, `length`: as in raft_group_query_submit.
/// - `timeout_ms`: how long to wait; -1 waits without limit.
/// - `out`: receives the answer, which the caller owns and releases with raft_result_free; NULL on failure.
///
/// Any thread, not in a callback; in host mode not the thread that should dispatch meanwhile. Blocks.
/// Errors: those of raft_group_query_submit, RAFT_ERR_NOT_LEADER, RAFT_ERR_FORMING, RAFT_ERR_CALLBACK,
/// RAFT_ERR_UNKNOWN, RAFT_ERR_TIMEOUT, RAFT_ERR_IN_CALLBACK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_query(
    group: *mut raft_group,
    consistency: u32,
    index: u64,
    request: *const u8,
    length: usize,
    timeout_ms: i64,
    out: *mut *mut raft_result,
    error: *mut *mut raft_error,
) -> i32 {
    let body = || {
        // SAFETY: `out` is as the header asks.
        unsafe { clear(out, "out") }?;
        let group = live::group(group)?;
        refuse_in_callback("raft_group_query")?;
        let (consistency, timeout) = (how_fresh(consistency, index)?, timeout(timeout_ms)?);
        // SAFETY: the request is as the header asks.
        let request = unsafe { question(&group, request, length) }?;
        let answer = group.group.query(request, consistency, timeout)?;
        // SAFETY: `clear` found that it may be written.
        unsafe { out.write(raft_result::hand_over(answer, 0, 0)) };
        Ok(())
    };
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, || body().map_err(not_applied)) }
}

/// Asks when the host may read its own state, for hosts that keep it where they can look without `query`. Returns
/// without waiting; the completion comes when the state is fresh enough.
///
/// - `tag`, `consistency`, `index`: as in raft_group_query_submit.
///
/// Any thread, also in a callback. Does not block. Errors: those of raft_group_query_submit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_read_submit(
    group: *mut raft_group,
    tag: u64,
    consistency: u32,
    index: u64,
    error: *mut *mut raft_error,
) -> i32 {
    let body = || {
        let group = live::group(group)?;
        group.refuse_unheard()?;
        Ok(group.group.read_submit(tag, how_fresh(consistency, index)?)?)
    };
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, || body().map_err(not_applied)) }
}

/// Waits until the host may read its own state.
///
/// - `consistency`, `index`: as in raft_group_query_submit.
/// - `timeout_ms`: how long to wait; -1 waits without limit.
/// - `out`: receives the index through which the state is applied; may be NULL.
///
/// Any thread, not in a callback; in host mode not the thread that should dispatch meanwhile. Blocks.
/// Errors: those of raft_group_query.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_read(
    group: *mut raft_group,
    consistency: u32,
    index: u64,
    timeout_ms: i64,
    out: *mut u64,
    error: *mut *mut raft_error,
) -> i32 {
    let body = || {
        // SAFETY: `out` is as the header asks.
        unsafe { store(out, 0) };
        let group = live::group(group)?;
        refuse_in_callback("raft_group_read")?;
        let read = group.group.read(how_fresh(consistency, index)?, timeout(timeout_ms)?)?;
        // SAFETY: as above.
        unsafe { store(out, read) };
        Ok(())
    };
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, || body().map_err(not_applied)) }
}

fn how_fresh(consistency: u32, index: u64) -> Result<Consistency, Failure> {
    match (consistency, index) {
        (RAFT_READ_LINEARIZABLE, 0) => Ok(Consistency::Linearizable),
        (RAFT_READ_AT_LEAST, index) => Ok(Consistency::AtLeast(index)),
        (RAFT_READ_STALE, 0) => Ok(Consistency::Stale),
        (RAFT_READ_LEASE, 0) => Ok(Consistency::Lease),
        (RAFT_READ_LINEARIZABLE | RAFT_READ_STALE | RAFT_READ_LEASE, _) => {
            Err(argument(format!("`index` is {index}: it goes with RAFT_READ_AT_LEAST, and is else 0")))
        }
        _ => Err(argument(format!("`consistency` is {consistency}: it is one of RAFT_READ_..."))),
    }
}

/// Copies what the state machine is to be asked.
///
/// # Safety
/// `request` is as the header asks.
unsafe fn question(group: &LiveGroup, request: *const u8, length: usize) -> Result<Bytes, Failure> {
    if !group.has_query {
        return Err(argument("the state machine has no `query`"));
    }
    // SAFETY: the caller vouches for it.
    copy(unsafe { array(request, length, "request") }?)
}
