//! A host's handle of one group: proposals, queries, snapshots, status. Any thread may use any clone of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::callback::is_in_callback;
use super::requests::{Question, ReplyTo, Request, Waiter};
use super::shared::{GroupCell, Input, Operation, Shared};
use super::sync::lock;
use super::{CallError, Completion, Consistency, GroupStatus, Outcome, Polled, Refused, Unknown};
use crate::types::{DigestCheck, Entry, GroupId, Index, MemberChange, Proposed, ServerId, SessionKey, Term};

/// Bytes to append, under the host's name for them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// Handed back with the completion; the engine gives it no meaning.
    pub tag: u64,
    /// What to append. Items of a batch may share one buffer.
    pub data: Bytes,
    /// The session that it belongs to, if to any: then it is applied once, however often it is proposed.
    pub session: Option<SessionKey>,
}

impl Item {
    /// What stands in the entry behind what the session says.
    fn entry_bytes(&self) -> usize {
        self.data.len() + self.session.map_or(0, |_| SessionKey::BYTES) + Entry::OVERHEAD_BYTES
    }
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
    shared: Arc<Shared>,
    cell: Arc<GroupCell>,
}

/// What a request without data costs the queue's budget, in bytes.
const REQUEST_BYTES: usize = 64;

impl Group {
    pub(super) fn new(shared: Arc<Shared>, cell: Arc<GroupCell>) -> Self {
        Self { shared, cell }
    }

    /// The group's id.
    pub fn id(&self) -> GroupId {
        self.cell.id
    }

    /// Submits a batch. Each item completes exactly once, by callback or poll, also at close. Never blocks; may be
    /// called from a callback. An empty batch does nothing. Where another server leads, it is asked once, unless the
    /// setting `forwarding` is off; an item is applied here either way before it completes as applied.
    ///
    /// # Errors
    /// Nothing of the batch was taken: certainly not applied, and no completion comes.
    pub fn propose(&self, mut items: Vec<Item>) -> Result<(), Refused> {
        self.shared.check_process()?;
        let limit_bytes = self.shared.max_entry_bytes;
        let mut cost_bytes = 0;
        for (position, item) in items.iter().enumerate() {
            let bytes = item.data.len();
            if bytes > limit_bytes {
                return Err(Refused::TooLarge { position, bytes, limit_bytes });
            }
            cost_bytes += item.entry_bytes();
        }
        let limit_bytes = self.shared.inbox.limit_bytes();
        if cost_bytes > limit_bytes {
            return Err(Refused::TooLarge { position: items.len() - 1, bytes: cost_bytes, limit_bytes });
        }
        if items.is_empty() {
            return Ok(());
        }
        // The bytes of the entry are put together here, not on the loop.
        for item in &mut items {
            if let Some(key) = &item.session {
                item.data = key.payload(&item.data);
            }
        }
        self.shared.submit(Input::Propose { group: self.id(), items }, cost_bytes)
    }

    /// Proposes one entry and waits until it is applied here. Blocks up to `timeout`; in host mode another thread must
    /// dispatch meanwhile.
    ///
    /// # Errors
    /// As the error says: certainly not applied, or unknown. A timeout is unknown.
    pub fn propose_wait(&self, data: Bytes, timeout: Duration) -> Result<Applied, CallError> {
        self.propose_one(data.into(), timeout)
    }

    pub(super) fn propose_one(&self, proposed: Proposed, timeout: Duration) -> Result<Applied, CallError> {
        let (bytes, limit_bytes) = (proposed.command_bytes(), self.shared.max_entry_bytes);
        if bytes > limit_bytes {
            return Err(Refused::TooLarge { position: 0, bytes, limit_bytes }.into());
        }
        let completion = self.wait(timeout, |waiter| self.proposal(ReplyTo::Waiter(waiter), proposed))?;
        Ok(Applied { index: completion.index, term: completion.term, result: completion.result })
    }

    pub(super) fn propose_one_submit(&self, tag: u64, proposed: Proposed) -> Result<(), Refused> {
        self.shared.check_process()?;
        let (input, cost_bytes) = self.proposal(ReplyTo::Stream(tag), proposed);
        self.shared.submit(input, cost_bytes)
    }

    fn proposal(&self, reply_to: ReplyTo, proposed: Proposed) -> (Input, usize) {
        let cost_bytes = proposed.payload.len() + Entry::OVERHEAD_BYTES;
        (Input::ProposeOne { group: self.id(), proposed, reply_to }, cost_bytes)
    }

    /// Asks the state machine and waits for its reply. Blocks up to `timeout`; in host mode another thread must
    /// dispatch meanwhile.
    ///
    /// # Errors
    /// `NotApplied(Failed)` with the state machine's message, or why the read could not be as fresh as asked for.
    pub fn query(&self, request: Bytes, consistency: Consistency, timeout: Duration) -> Result<Bytes, CallError> {
        let question = Question::Query(Box::new(request));
        Ok(self.wait(timeout, |waiter| self.read_input(ReplyTo::Waiter(waiter), question, consistency))?.result)
    }

    /// Asks the state machine; the reply comes as a completion with this tag. Never blocks.
    ///
    /// # Errors
    /// Not taken; no completion comes.
    pub fn query_submit(&self, tag: u64, request: Bytes, consistency: Consistency) -> Result<(), Refused> {
        self.shared.check_process()?;
        let question = Question::Query(Box::new(request));
        let (input, cost_bytes) = self.read_input(ReplyTo::Stream(tag), question, consistency);
        self.shared.submit(input, cost_bytes)
    }

    /// Waits until the state machine is as fresh as asked for, so that the host may read it by itself; says through
    /// which index it then was. Blocks up to `timeout`.
    ///
    /// # Errors
    /// Why it could not.
    pub fn read(&self, consistency: Consistency, timeout: Duration) -> Result<Index, CallError> {
        let input = |waiter| self.read_input(ReplyTo::Waiter(waiter), Question::Read, consistency);
        Ok(self.wait(timeout, input)?.index)
    }

    /// As [`Group::read`]; the end comes as a completion with this tag. Never blocks.
    ///
    /// # Errors
    /// Not taken; no completion comes.
    pub fn read_submit(&self, tag: u64, consistency: Consistency) -> Result<(), Refused> {
        self.shared.check_process()?;
        let (input, cost_bytes) = self.read_input(ReplyTo::Stream(tag), Question::Read, consistency);
        self.shared.submit(input, cost_bytes)
    }

    /// Takes a snapshot now and waits until it is durable; says which index it covers. Blocks up to `timeout`.
    ///
    /// # Errors
    /// `NotApplied(Busy)` where one is being taken, or there is nothing new; the host's message where it failed.
    pub fn snapshot(&self, timeout: Duration) -> Result<Index, CallError> {
        Ok(self.operate(Operation::Snapshot, timeout)?.index)
    }

    /// As [`Group::snapshot`]; the end comes as a completion with this tag. Never blocks.
    ///
    /// # Errors
    /// Not taken; no completion comes.
    pub fn snapshot_submit(&self, tag: u64) -> Result<(), Refused> {
        self.operate_submit(tag, Operation::Snapshot)
    }

    /// Changes the members of the group, at its leader, and waits until that is done; says by which entry. All of
    /// `changes` are one operation with one end: who is added is met at its address first, starts as a learner, and is
    /// promoted once it has caught up; then the voters change by joint consensus (§6). Given up after `patience` where
    /// those who are to vote were not met or have not caught up by then; never once the change is past that. Blocks up to
    /// `timeout`.
    ///
    /// # Errors
    /// `NotApplied(Invalid)` says what cannot be, `GivenUp` what was waited for; `Busy` while another change is in
    /// progress, or before the leader has committed an entry in its term. *Unknown* where leadership was lost or the
    /// timeout passed: the next leader goes on with it, and the configuration in the status tells.
    pub fn change_members(
        &self,
        changes: Vec<MemberChange>,
        patience: Duration,
        timeout: Duration,
    ) -> Result<Index, CallError> {
        Ok(self.operate(Operation::ChangeMembers { changes, patience }, timeout)?.index)
    }

    /// As [`Group::change_members`]; the end comes as a completion with this tag. Never blocks.
    ///
    /// # Errors
    /// Not taken; no completion comes.
    pub fn change_members_submit(
        &self,
        tag: u64,
        changes: Vec<MemberChange>,
        patience: Duration,
    ) -> Result<(), Refused> {
        self.operate_submit(tag, Operation::ChangeMembers { changes, patience })
    }

    /// Gives up the change of members in progress, at the leader, and waits for its end: whom it added goes again. Blocks
    /// up to `timeout`.
    ///
    /// # Errors
    /// `NotApplied(Invalid)` where there is none, or it is past the point of no return.
    pub fn cancel_change(&self, timeout: Duration) -> Result<Index, CallError> {
        Ok(self.operate(Operation::CancelChange, timeout)?.index)
    }

    /// As [`Group::cancel_change`]; the end comes as a completion with this tag. Never blocks.
    ///
    /// # Errors
    /// Not taken; no completion comes.
    pub fn cancel_change_submit(&self, tag: u64) -> Result<(), Refused> {
        self.operate_submit(tag, Operation::CancelChange)
    }

    /// Hands leadership over to `to`, or to the best voter, and waits until it leads (dissertation §3.10). Proposals are
    /// refused meanwhile as certainly not applied. Given up after `patience`: this server goes on leading then. Blocks up
    /// to `timeout`.
    ///
    /// # Errors
    /// `NotApplied(GivenUp)` where it came to nothing, `Invalid` where the target cannot lead; *unknown* where nobody is
    /// known to lead now.
    pub fn transfer_leadership(
        &self,
        to: Option<ServerId>,
        patience: Duration,
        timeout: Duration,
    ) -> Result<(), CallError> {
        self.operate(Operation::TransferLeadership { to, patience }, timeout).map(drop)
    }

    /// As [`Group::transfer_leadership`]; the end comes as a completion with this tag. Never blocks.
    ///
    /// # Errors
    /// Not taken; no completion comes.
    pub fn transfer_leadership_submit(
        &self,
        tag: u64,
        to: Option<ServerId>,
        patience: Duration,
    ) -> Result<(), Refused> {
        self.operate_submit(tag, Operation::TransferLeadership { to, patience })
    }

    /// Compares the replicas of the group, at its leader: an entry is appended at which each says what its state comes down
    /// to ([`super::StateMachine::digest`]), and the leader waits for all members, or for `patience`. Where a majority of
    /// the voters agrees and others differ, the group stops on the servers of these, for good: they are named in the log.
    /// That goes for a leader and for learners, too. Where no majority agrees, all are told and nobody is stopped. Blocks up
    /// to `timeout`.
    ///
    /// # Errors
    /// `NotApplied(Busy)` while another comparison waits; `GivenUp` where the entry was not applied here within `patience`;
    /// *unknown* where leadership was lost or the timeout passed: it may be asked again in any case.
    pub fn check_digests(&self, patience: Duration, timeout: Duration) -> Result<Arc<DigestCheck>, CallError> {
        match self.operate(Operation::CheckDigests { patience }, timeout)?.outcome {
            Outcome::DigestsChecked(check) => Ok(check),
            other => unreachable!("a comparison ended as {other:?}"),
        }
    }

    /// As [`Group::check_digests`]; the end comes as a completion with this tag. Never blocks.
    ///
    /// # Errors
    /// Not taken; no completion comes.
    pub fn check_digests_submit(&self, tag: u64, patience: Duration) -> Result<(), Refused> {
        self.operate_submit(tag, Operation::CheckDigests { patience })
    }

    /// Appends up to `max` completions to `into`, oldest first. Never blocks. With
    /// [`super::CompletionDelivery::Poll`] only (else there is never one). After close it goes on until
    /// [`Polled::End`].
    pub fn poll(&self, into: &mut Vec<Completion>, max: usize) -> Polled {
        self.shared.poll(&self.cell, into, max)
    }

    /// The group as it was at the end of the loop's last turn, with what has been applied since; it has what a notice told,
    /// and the end of a request that is no proposal or read. `None` once the group is gone. Never blocks.
    pub fn status(&self) -> Option<GroupStatus> {
        let published = lock(&self.cell.status).clone()?;
        let mut status = GroupStatus::clone(&published);
        // The loop hears of what was applied when it next wakes; here it is told at once.
        status.applied = status.applied.max(self.cell.applied.load(Ordering::Acquire));
        Some(status)
    }

    fn read_input(&self, reply_to: ReplyTo, question: Question, consistency: Consistency) -> (Input, usize) {
        let query_bytes = match &question {
            Question::Query(query) => query.len(),
            _ => 0,
        };
        let request = Request { group: self.id(), reply_to, question };
        (Input::Read { request, consistency }, REQUEST_BYTES + query_bytes)
    }

    fn operate(&self, operation: Operation, timeout: Duration) -> Result<Completion, CallError> {
        self.wait(timeout, |waiter| self.operation(ReplyTo::Waiter(waiter), operation))
    }

    fn operate_submit(&self, tag: u64, operation: Operation) -> Result<(), Refused> {
        self.shared.check_process()?;
        let (input, cost_bytes) = self.operation(ReplyTo::Stream(tag), operation);
        self.shared.submit(input, cost_bytes)
    }

    fn operation(&self, reply_to: ReplyTo, operation: Operation) -> (Input, usize) {
        let request = Request { group: self.id(), reply_to, question: Question::Operation };
        (Input::Operate { request, operation }, REQUEST_BYTES)
    }

    /// Submits and waits. A wait from a callback would wait for itself.
    fn wait(
        &self,
        timeout: Duration,
        input: impl FnOnce(Arc<Waiter>) -> (Input, usize),
    ) -> Result<Completion, CallError> {
        self.shared.check_process()?;
        if is_in_callback() {
            return Err(Refused::InCallback.into());
        }
        let waiter = Arc::new(Waiter::default());
        let (input, cost_bytes) = input(waiter.clone());
        self.shared.submit(input, cost_bytes)?;
        let completion = waiter.wait(timeout).ok_or(CallError::Unknown(Unknown::TimedOut))?;
        match completion.outcome {
            Outcome::Applied
            | Outcome::Answered
            | Outcome::SnapshotTaken
            | Outcome::Done
            | Outcome::DigestsChecked(_) => Ok(completion),
            Outcome::NotApplied(reason) => Err(CallError::NotApplied(reason)),
            Outcome::Unknown(reason) => Err(CallError::Unknown(reason)),
        }
    }
}
