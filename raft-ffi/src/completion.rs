//! How requests end, in the words of C.

use std::ptr;

use raft_engine::server::{CallError, Completion, NotApplied, Outcome, Refused, Unknown};

use crate::error::{
    Failure, RAFT_ERR_BUSY, RAFT_ERR_CALLBACK, RAFT_ERR_CANCELLED, RAFT_ERR_CLOSED, RAFT_ERR_DISK_FULL,
    RAFT_ERR_FORKED, RAFT_ERR_FORMING, RAFT_ERR_GIVEN_UP, RAFT_ERR_IN_CALLBACK, RAFT_ERR_INVALID, RAFT_ERR_NOT_LEADER,
    RAFT_ERR_OVERLOADED, RAFT_ERR_REPLY_FORGOTTEN, RAFT_ERR_SESSION_EXPIRED, RAFT_ERR_STOPPED, RAFT_ERR_TIMEOUT,
    RAFT_ERR_TOO_LARGE, RAFT_ERR_TRANSFERRING, RAFT_ERR_UNKNOWN, RAFT_OK, RAFT_OUTCOME_APPLIED,
    RAFT_OUTCOME_NOT_APPLIED, RAFT_OUTCOME_UNKNOWN,
};
use crate::state_machine::raft_completion;

/// Hands on completions as C reads them. They point into `completions` and `messages`, which must outlive them.
pub(crate) fn translate(completions: &[Completion], messages: &mut Vec<String>, mut next: impl FnMut(raft_completion)) {
    for completion in completions {
        let (outcome, status) = match &completion.outcome {
            Outcome::Applied
            | Outcome::Answered
            | Outcome::SnapshotTaken
            | Outcome::Done
            | Outcome::DigestsChecked(_) => (RAFT_OUTCOME_APPLIED, RAFT_OK),
            Outcome::NotApplied(reason) => (RAFT_OUTCOME_NOT_APPLIED, not_applied_status(reason)),
            Outcome::Unknown(reason) => (RAFT_OUTCOME_UNKNOWN, unknown_status(*reason)),
        };
        let (result, result_length) = match message(&completion.outcome) {
            None => view(&completion.result),
            Some(message) => {
                // The text of a String stays where it is when the vector grows.
                let place = view(message.as_bytes());
                messages.push(message);
                place
            }
        };
        next(raft_completion {
            tag: completion.tag,
            outcome,
            status,
            index: if status == RAFT_OK { completion.index } else { 0 },
            term: if status == RAFT_OK { completion.term } else { 0 },
            result,
            result_length,
            leader: completion.leader().map_or(0, |leader| leader.0),
            reserved: [0; 3],
        });
    }
}

/// Bytes as C is told of them: NULL where there are none.
fn view(bytes: &[u8]) -> (*const u8, usize) {
    (if bytes.is_empty() { ptr::null() } else { bytes.as_ptr() }, bytes.len())
}

/// What people are told of a request that failed.
fn message(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Applied | Outcome::Answered | Outcome::SnapshotTaken | Outcome::Done | Outcome::DigestsChecked(_) => {
            None
        }
        Outcome::NotApplied(reason) => Some(CallError::NotApplied(reason.clone()).to_string()),
        Outcome::Unknown(reason) => Some(CallError::Unknown(*reason).to_string()),
    }
}

fn not_applied_status(reason: &NotApplied) -> i32 {
    match reason {
        NotApplied::NotLeader { .. } => RAFT_ERR_NOT_LEADER,
        NotApplied::Overloaded => RAFT_ERR_OVERLOADED,
        NotApplied::TooLarge => RAFT_ERR_TOO_LARGE,
        NotApplied::DiskFull => RAFT_ERR_DISK_FULL,
        NotApplied::Closed => RAFT_ERR_CLOSED,
        NotApplied::Busy => RAFT_ERR_BUSY,
        NotApplied::Forming => RAFT_ERR_FORMING,
        NotApplied::Failed(_) => RAFT_ERR_CALLBACK,
        NotApplied::Transferring => RAFT_ERR_TRANSFERRING,
        NotApplied::Invalid(_) => RAFT_ERR_INVALID,
        NotApplied::GivenUp(_) => RAFT_ERR_GIVEN_UP,
        NotApplied::Cancelled => RAFT_ERR_CANCELLED,
    }
}

fn unknown_status(reason: Unknown) -> i32 {
    match reason {
        Unknown::LeadershipLost => RAFT_ERR_UNKNOWN,
        Unknown::Closed => RAFT_ERR_CLOSED,
        Unknown::Stopped => RAFT_ERR_STOPPED,
        Unknown::TimedOut => RAFT_ERR_TIMEOUT,
        Unknown::SessionExpired => RAFT_ERR_SESSION_EXPIRED,
        Unknown::ReplyForgotten => RAFT_ERR_REPLY_FORGOTTEN,
    }
}

impl From<Refused> for Failure {
    fn from(error: Refused) -> Self {
        let code = match &error {
            Refused::Full { .. } => RAFT_ERR_OVERLOADED,
            Refused::TooLarge { .. } => RAFT_ERR_TOO_LARGE,
            Refused::Closed => RAFT_ERR_CLOSED,
            Refused::Stopped => RAFT_ERR_STOPPED,
            Refused::InCallback => RAFT_ERR_IN_CALLBACK,
            Refused::Forked => RAFT_ERR_FORKED,
        };
        Self::new(code, error.to_string()).with_outcome(RAFT_OUTCOME_NOT_APPLIED)
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let leader = error.leader().map_or(0, |leader| leader.0);
        let message = error.to_string();
        let failure = match error {
            CallError::Refused(refused) => Self::from(refused),
            CallError::NotApplied(reason) => {
                Self::new(not_applied_status(&reason), message).with_outcome(RAFT_OUTCOME_NOT_APPLIED)
            }
            CallError::Unknown(reason) => Self::new(unknown_status(reason), message).with_outcome(RAFT_OUTCOME_UNKNOWN),
        };
        Self { leader, ..failure }
    }
}
