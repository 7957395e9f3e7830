//! How a request of the host ends: the words in which every proposal, query and snapshot request is answered, exactly
//! once. Knows nothing of how the answer travels.

use std::sync::Arc;

use bytes::Bytes;

use crate::driver::{self, NotApplied};
use crate::types::{DigestCheck, Index, ServerId, Term};

/// How a request ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The proposal is committed, and applied at this server; `Completion::result` is what its state machine answered. A
    /// command of a session that was applied before has the index, the term and the result of then.
    Applied,
    /// The query is answered, `Completion::result` is the reply; or the read may go on. Everything through
    /// `Completion::index` was applied.
    Answered,
    /// The snapshot is taken and durable; it covers `Completion::index`.
    SnapshotTaken,
    /// The members are as was asked, a change of them was cancelled, or leadership was handed over. `Completion::index`
    /// is that of the entry that did it; 0 for a hand-over.
    Done,
    /// The replicas were compared, at `Completion::index`. Where they differ, the log says so, and whose state is not that
    /// of a majority stops.
    DigestsChecked(Arc<DigestCheck>),
    /// Certainly not applied: retrying is safe.
    NotApplied(NotApplied),
    /// May or may not be applied, now or later.
    Unknown(Unknown),
}

/// Why a request's outcome is unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unknown {
    /// Leadership was lost before the entry was committed; or, where the leader had been asked, contact with it.
    LeadershipLost,
    /// The server was closed before the entry was applied.
    Closed,
    /// The group or the server stopped (a failed callback, a failed disk, a defect) before the entry was applied.
    Stopped,
    /// The caller waited no longer. The request goes on.
    TimedOut,
    /// The session expired, was evicted or closed, or never was. The command was not applied now; it may have been applied
    /// before, while there was the session.
    SessionExpired,
    /// The command was applied before, or its client has said since that it needs no answer; what the answer was is not kept
    /// any more.
    ReplyForgotten,
}

impl From<driver::Unknown> for Unknown {
    fn from(reason: driver::Unknown) -> Self {
        match reason {
            driver::Unknown::LeadershipLost => Self::LeadershipLost,
            driver::Unknown::Closed => Self::Closed,
            driver::Unknown::Stopped => Self::Stopped,
        }
    }
}

/// The end of one request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Completion {
    /// The host's name for the request.
    pub tag: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// The entry's index; for a query or a snapshot, what it covers; 0 where there is none.
    pub index: Index,
    /// The entry's term; 0 where there is none.
    pub term: Term,
    /// What the state machine answered; empty where it answered nothing. A view into the batch's buffer.
    pub result: Bytes,
}

impl Completion {
    /// The server that leads, as far as the one that refused knows.
    pub fn leader(&self) -> Option<ServerId> {
        match self.outcome {
            Outcome::NotApplied(NotApplied::NotLeader { leader }) => leader,
            _ => None,
        }
    }
}

/// What a poll found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Polled {
    /// So many completions were appended; 0: none for now.
    Completions(usize),
    /// The server is closed and every request has been answered: nothing will ever come again.
    End,
}
