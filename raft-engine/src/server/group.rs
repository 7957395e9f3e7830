//! A host's handle of one group: proposals, queries, snapshots, status. Any thread may use any clone of it.

use std::time::Duration;

use bytes::Bytes;

use super::{CallError, Completion, Consistency, GroupStatus, Polled, Refused};
use crate::types::{GroupId, Index, Term};

/// Bytes to append, under the host's name for them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// Handed back with the completion; the engine gives it no meaning.
    pub tag: u64,
    /// What to append. Items of a batch may share one buffer.
    pub data: Bytes,
}

/// A proposal that was applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// Its place in the log.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// What the state machine answered.
    pub result: Bytes,
}

/// One group of an open server. Cheap to clone; outlives the server's close, after which it refuses.
#[derive(Clone)]
pub struct Group {
    id: GroupId,
}

impl Group {
    /// The group's id.
    pub fn id(&self) -> GroupId {
        self.id
    }

    /// Submits a batch. Each item completes exactly once, by callback or poll, also at close. Never blocks; may be
    /// called from a callback. An empty batch does nothing.
    ///
    /// # Errors
    /// Nothing of the batch was taken: certainly not applied, and no completion comes.
    pub fn propose(&self, items: Vec<Item>) -> Result<(), Refused> {
        let _ = items;
        Err(Refused::Closed)
    }

    /// Proposes one entry and waits until it is applied here. Blocks up to `timeout`; in host mode another thread must
    /// dispatch meanwhile.
    ///
    /// # Errors
    /// As the error says: certainly not applied, or unknown. A timeout is unknown.
    pub fn propose_wait(&self, data: Bytes, timeout: Duration) -> Result<Applied, CallError> {
        let _ = (data, timeout);
        Err(Refused::Closed.into())
    }

    /// Asks the state machine and waits for its reply. Blocks up to `timeout`; in host mode another thread must
    /// dispatch meanwhile.
    ///
    /// # Errors
    /// `NotApplied(Failed)` with the state machine's message, or why the read could not be as fresh as asked for.
    pub fn query(&self, request: Bytes, consistency: Consistency, timeout: Duration) -> Result<Bytes, CallError> {
        let _ = (request, consistency, timeout);
        Err(Refused::Closed.into())
    }

    /// Asks the state machine; the reply comes as a completion with this tag. Never blocks.
    ///
    /// # Errors
    /// Not taken; no completion comes.
    pub fn query_submit(&self, tag: u64, request: Bytes, consistency: Consistency) -> Result<(), Refused> {
        let _ = (tag, request, consistency);
        Err(Refused::Closed)
    }

    /// Waits until the state machine is as fresh as asked for, so that the host may read it by itself; says through
    /// which index it then was. Blocks up to `timeout`.
    ///
    /// # Errors
    /// Why it could not.
    pub fn read(&self, consistency: Consistency, timeout: Duration) -> Result<Index, CallError> {
        let _ = (consistency, timeout);
        Err(Refused::Closed.into())
    }

    /// As [`Group::read`]; the end comes as a completion with this tag. Never blocks.
    ///
    /// # Errors
    /// Not taken; no completion comes.
    pub fn read_submit(&self, tag: u64, consistency: Consistency) -> Result<(), Refused> {
        let _ = (tag, consistency);
        Err(Refused::Closed)
    }

    /// Takes a snapshot now and waits until it is durable; says which index it covers. Blocks up to `timeout`.
    ///
    /// # Errors
    /// `NotApplied(Busy)` where one is being taken, or there is nothing new; the host's message where it failed.
    pub fn snapshot(&self, timeout: Duration) -> Result<Index, CallError> {
        let _ = timeout;
        Err(Refused::Closed.into())
    }

    /// As [`Group::snapshot`]; the end comes as a completion with this tag. Never blocks.
    ///
    /// # Errors
    /// Not taken; no completion comes.
    pub fn snapshot_submit(&self, tag: u64) -> Result<(), Refused> {
        let _ = tag;
        Err(Refused::Closed)
    }

    /// Appends up to `max` completions to `into`, oldest first. Never blocks. With
    /// [`super::CompletionDelivery::Poll`] only (else there is never one). After close it goes on until
    /// [`Polled::End`].
    pub fn poll(&self, into: &mut Vec<Completion>, max: usize) -> Polled {
        let _ = (into, max);
        Polled::End
    }

    /// The group as it was at the end of the loop's last turn. Never blocks.
    pub fn status(&self) -> Option<GroupStatus> {
        None
    }
}
