//! Section "Comparing replicas" of the header.

use std::ptr;

use raft_engine::server::{DigestAnswer, DigestCheck, DigestVerdict, Group};

use crate::call::{accessor, clear, entry, patience, refuse_in_callback, timeout};
use crate::error::{Failure, RAFT_ERR_BUSY, RAFT_ERR_CLOSED, raft_error};
use crate::group::raft_group;
use crate::handle::{self, Boxed, Kind};
use crate::live;
use crate::propose::not_applied;
use crate::request::submit;

/// The length of a digest of a state, in bytes.
pub const RAFT_DIGEST_BYTES: usize = 32;

/// A majority agrees, and nobody who answered differs.
pub const RAFT_VERDICT_AGREED: u32 = 1;
/// A majority agrees, and others differ: the group stops on their servers, for good.
pub const RAFT_VERDICT_DIVERGED: u32 = 2;
/// Replicas differ, and no majority agrees on anything: nobody knows who is right, and nobody is stopped.
pub const RAFT_VERDICT_SPLIT: u32 = 3;
/// Nobody differs, and those who gave a digest are no majority.
pub const RAFT_VERDICT_UNDECIDED: u32 = 4;

/// The replica gave a digest.
pub const RAFT_ANSWER_GIVEN: u32 = 1;
/// It cannot say: its state machine has no `digest` or it failed, or its state is not from before the entry.
pub const RAFT_ANSWER_UNABLE: u32 = 2;
/// It did not answer in time.
pub const RAFT_ANSWER_MISSING: u32 = 3;

/// What one replica said in a comparison. Comes in arrays: its layout is frozen.
#[repr(C)]
#[allow(non_camel_case_types)]
#[derive(Clone, Copy)]
pub struct raft_replica_digest {
    /// The server's id.
    pub server: u64,
    /// RAFT_ANSWER_...
    pub answer: u32,
    /// 1 if it said something else than the majority: the group stops there; else 0.
    pub odd: u32,
    /// With RAFT_ANSWER_GIVEN, what its `digest` wrote; else zeros.
    pub digest: [u8; RAFT_DIGEST_BYTES],
    /// With RAFT_ANSWER_GIVEN, the CRC of the group's sessions, which the library keeps and which are compared as
    /// well; else 0.
    pub sessions: u32,
    /// Zero.
    pub reserved0: u32,
    /// Zero.
    pub reserved: [u64; 1],
}

/// What came of comparing the replicas of a group at one entry: a copy that the caller owns.
#[allow(non_camel_case_types)]
pub struct raft_digest_check {
    index: u64,
    verdict: u32,
    replicas: Vec<raft_replica_digest>,
}

impl Boxed for raft_digest_check {
    const KIND: Kind = Kind::DigestCheck;
}

/// The number of a verdict.
pub(crate) fn verdict_number(verdict: DigestVerdict) -> u32 {
    match verdict {
        DigestVerdict::Agreed => RAFT_VERDICT_AGREED,
        DigestVerdict::Diverged => RAFT_VERDICT_DIVERGED,
        DigestVerdict::Split => RAFT_VERDICT_SPLIT,
        DigestVerdict::Undecided => RAFT_VERDICT_UNDECIDED,
    }
}

impl raft_digest_check {
    fn hand_over(check: &DigestCheck) -> *mut Self {
        let replicas = check.replicas.iter().map(|(server, answer)| {
            let given = answer.given();
            raft_replica_digest {
                server: server.0,
                answer: match answer {
                    DigestAnswer::Given(_) => RAFT_ANSWER_GIVEN,
                    DigestAnswer::Unable => RAFT_ANSWER_UNABLE,
                    DigestAnswer::Missing => RAFT_ANSWER_MISSING,
                },
                odd: check.is_odd(*server).into(),
                digest: given.map_or([0; RAFT_DIGEST_BYTES], |digest| digest.host.0),
                sessions: given.map_or(0, |digest| digest.sessions),
                reserved0: 0,
                reserved: [0; 1],
            }
        });
        let (index, verdict) = (check.index, verdict_number(check.verdict()));
        handle::own(Self { index, verdict, replicas: replicas.collect() })
    }
}

/// Compares the replicas of the group, at its leader, and waits for what comes of it.
///
/// An entry is appended. When a replica has applied everything up to it, its state machine's `digest` says what the
/// state comes down to, and the leader compares. Where replicas differ, a second entry tells everybody
/// (RAFT_NOTICE_DIVERGED). Where, besides, a majority of the voters agrees, the group stops at that entry wherever
/// the state is another, be it the leader or a learner, and again after every restart; the leader hands over first.
/// docs/operations.md says what to do then.
///
/// - `patience_ms`: whoever has not answered by then is not waited for; -1: everybody is. Where his answer comes
///   later, it is compared as well for as long as this leader leads.
/// - `timeout_ms`: how long to wait; -1 waits without limit. When it is over, the comparison goes on.
/// - `out`: receives what came of it, which the caller owns and releases with raft_digest_check_free; NULL on
///   failure.
///
/// Any thread, not in a callback; in host mode not the thread that should dispatch meanwhile. Blocks. It may be
/// asked again whatever the outcome: it changes nothing but what it finds.
/// Errors: those of raft_group_check_digests_submit and its completion, RAFT_ERR_TIMEOUT, RAFT_ERR_IN_CALLBACK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_check_digests(
    group: *mut raft_group,
    patience_ms: i64,
    timeout_ms: i64,
    out: *mut *mut raft_digest_check,
    error: *mut *mut raft_error,
) -> i32 {
    let body = || {
        // SAFETY: `out` is as the header asks.
        unsafe { clear(out, "out") }?;
        let group = live::group(group)?;
        refuse_in_callback("raft_group_check_digests")?;
        let check = group.group.check_digests(patience(patience_ms)?, timeout(timeout_ms)?)?;
        // SAFETY: `clear` found that it may be written.
        unsafe { out.write(raft_digest_check::hand_over(&check)) };
        Ok(())
    };
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, || body().map_err(not_applied)) }
}

/// As raft_group_check_digests, and returns without waiting.
///
/// - `tag`: comes back with the completion, whose `index` is that of the entry; raft_group_digest_check then has
///   what came of it.
///
/// Any thread, also in a callback. Does not block.
/// Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_OVERLOADED, RAFT_ERR_MODE, RAFT_ERR_STOPPED,
/// RAFT_ERR_CLOSED, RAFT_ERR_FORKED. The completion's: RAFT_ERR_NOT_LEADER, RAFT_ERR_BUSY (another comparison
/// waits), RAFT_ERR_GIVEN_UP (the entry was not applied here in time), RAFT_ERR_TRANSFERRING, RAFT_ERR_OVERLOADED,
/// RAFT_ERR_DISK_FULL, RAFT_ERR_FORMING, RAFT_ERR_UNKNOWN (leadership was lost).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_check_digests_submit(
    group: *mut raft_group,
    tag: u64,
    patience_ms: i64,
    error: *mut *mut raft_error,
) -> i32 {
    let ask = |group: &Group| Ok(group.check_digests_submit(tag, patience(patience_ms)?)?);
    // SAFETY: `error` is as the header asks.
    unsafe { submit(group, error, ask) }
}

/// The latest comparison that this server knows of since its start: one that it made as the leader, or one in which
/// replicas differ, which the log tells.
///
/// - `out`: receives it; the caller owns it and releases it with raft_digest_check_free; NULL on failure.
///
/// Any thread, also in a callback. Does not block.
/// Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_BUSY (there is none), RAFT_ERR_CLOSED, RAFT_ERR_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_group_digest_check(
    group: *mut raft_group,
    out: *mut *mut raft_digest_check,
    error: *mut *mut raft_error,
) -> i32 {
    let body = || {
        // SAFETY: `out` is as the header asks.
        unsafe { clear(out, "out") }?;
        let status = live::group(group)?.group.status();
        let status = status.ok_or_else(|| Failure::new(RAFT_ERR_CLOSED, "the server is closed"))?;
        let none = || Failure::new(RAFT_ERR_BUSY, "no replicas were compared since this server was opened");
        let check = status.digest_check.ok_or_else(none)?;
        // SAFETY: `clear` found that it may be written.
        unsafe { out.write(raft_digest_check::hand_over(&check)) };
        Ok(())
    };
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, body) }
}

/// One field of a comparison, or what stands for it.
///
/// # Safety
/// `check` is as the header asks.
unsafe fn of_check<T: Copy>(
    check: *const raft_digest_check,
    neutral: T,
    field: impl FnOnce(&raft_digest_check) -> T,
) -> T {
    // SAFETY: the caller vouches for it.
    accessor(neutral, || unsafe { handle::peek(check) }.map_or(neutral, field))
}

/// The entry at which replicas were compared; 0 for NULL. One thread at a time. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_digest_check_index(check: *const raft_digest_check) -> u64 {
    // SAFETY: as the header asks.
    unsafe { of_check(check, 0, |check| check.index) }
}

/// What it comes to: RAFT_VERDICT_...; 0 for NULL. One thread at a time. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_digest_check_verdict(check: *const raft_digest_check) -> u32 {
    // SAFETY: as the header asks.
    unsafe { of_check(check, 0, |check| check.verdict) }
}

/// How many replicas there are; 0 for NULL. One thread at a time. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_digest_check_count(check: *const raft_digest_check) -> usize {
    // SAFETY: as the header asks.
    unsafe { of_check(check, 0, |check| check.replicas.len()) }
}

/// What each replica said, as an array in order of id: raft_digest_check_count of them. It belongs to `check` and
/// lives as long. One thread at a time. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_digest_check_replicas(check: *const raft_digest_check) -> *const raft_replica_digest {
    // SAFETY: as the header asks.
    unsafe { of_check(check, ptr::null(), |check| check.replicas.as_ptr()) }
}

/// Releases a comparison. NULL is allowed. Any thread. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_digest_check_free(check: *mut raft_digest_check) {
    // SAFETY: as the header asks.
    accessor((), || drop(unsafe { handle::release(check) }));
}
