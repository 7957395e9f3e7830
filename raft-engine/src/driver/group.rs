//! One group at this server: its core, and what the driver must remember between the core's effects and the host.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::caches::Cached;
use super::changes::Changes;
use super::digests::Digests;
use super::formation::Forming;
use super::forwarding::{Forwarding, Reader};
use super::joining::Joining;
use super::snapshots::Snapshots;
use super::{Effect, NotApplied, Outcome, Role, Ticket, Unknown};
use crate::core::{self, Raft};
use crate::types::{Entry, GroupId, Identity, Index, Lineage, LogTime, ServerId, Term, Time};

/// How far a group has come.
#[derive(Debug)]
pub(super) enum Phase {
    /// No synced entry 1 yet.
    Forming(Forming),
    /// Waits for a member to hand it entry 1.
    Joining(Joining),
    /// Runs Raft.
    Formed(Box<Formed>),
}

/// A group with its entry 1.
#[derive(Debug)]
pub(super) struct Formed {
    pub(super) raft: Raft,
    pub(super) first_entry: Entry,
    pub(super) lineage: Lineage,
    /// Of the arguments that formed it.
    pub(super) digest: [u8; 32],
}

/// A proposal in the log whose outcome the host waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) index: Index,
    pub(super) term: Term,
    pub(super) ticket: Ticket,
}

/// What the state machine has been given and not yet applied.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    /// Batches on their way: last index and bytes.
    pub(super) outstanding: VecDeque<(Index, usize)>,
    pub(super) outstanding_bytes: usize,
    /// The last index that the state machine has applied.
    pub(super) applied: Index,
    /// What its own state held when the group was started.
    pub(super) held: Index,
    /// The log time of the last entry given.
    pub(super) log_time: Option<LogTime>,
    /// Entries are being read from the log.
    pub(super) is_reading: bool,
    /// The state machine is being replaced by a snapshot.
    pub(super) is_restoring: bool,
}

/// What the host was last told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Told {
    pub(super) role: Role,
    pub(super) term: Term,
    pub(super) leader: Option<ServerId>,
    pub(super) configuration_index: Index,
    pub(super) removed: Option<Index>,
}

/// One group at this server.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: GroupId,
    pub(super) phase: Phase,
    /// Why it stopped, if it did. Nothing happens in it any more.
    pub(super) stopped: Option<String>,
    /// Proposals in the log, this server's or that of the leader which took them, ascending by index.
    pub(super) proposals: VecDeque<Pending>,
    /// Linearizable reads in the core.
    pub(super) reads: BTreeMap<u64, Reader>,
    pub(super) next_read: u64,
    /// What is asked of another server that leads.
    pub(super) forwarding: Forwarding,
    /// The commit index last recorded in the log, as a hint for the next start.
    pub(super) recorded_commit: Index,
    /// The next log write records it anew.
    pub(super) is_commit_unrecorded: bool,
    /// What it keeps in memory, as far as the server's budget knows.
    pub(super) cached: Cached,
    pub(super) delivery: Delivery,
    pub(super) snapshots: Snapshots,
    pub(super) changes: Changes,
    pub(super) digests: Digests,
    pub(super) told: Told,
    /// The host knows that the group stopped.
    pub(super) told_stopped: bool,
}

impl Group {
    pub(super) fn new(id: GroupId, phase: Phase) -> Self {
        Self {
            id,
            phase,
            stopped: None,
            proposals: VecDeque::new(),
            reads: BTreeMap::new(),
            next_read: 1,
            forwarding: Forwarding::default(),
            recorded_commit: 0,
            is_commit_unrecorded: false,
            cached: Cached::default(),
            delivery: Delivery::default(),
            snapshots: Snapshots::default(),
            changes: Changes::default(),
            digests: Digests::default(),
            told: Told { role: Role::Forming, term: 0, leader: None, configuration_index: 0, removed: None },
            told_stopped: false,
        }
    }

    /// The formed part, unless the group stopped.
    pub(super) fn formed(&self) -> Option<&Formed> {
        match &self.phase {
            Phase::Formed(formed) if self.stopped.is_none() => Some(formed),
            _ => None,
        }
    }

    /// When it must be looked at, although nothing happens to it.
    pub(super) fn deadline(&self) -> Time {
        let Some(formed) = self.formed() else { return Time::NEVER };
        let waits = self.changes.deadline().min(self.snapshots.deadline()).min(self.digests.deadline());
        formed.raft.deadline().min(waits)
    }

    /// Runs the core. A panic in it is a broken invariant: the group stops where it is, with the report, and nothing more
    /// of it reaches the disk or a peer.
    pub(super) fn run<R>(&mut self, step: impl FnOnce(&mut Raft) -> R) -> Option<R> {
        if self.stopped.is_some() {
            return None;
        }
        let Phase::Formed(formed) = &mut self.phase else { return None };
        match catch_unwind(AssertUnwindSafe(|| step(&mut formed.raft))) {
            Ok(result) => Some(result),
            Err(panic) => {
                self.stopped = Some(format!("an invariant of the core is broken: {}", panic_message(&*panic)));
                None
            }
        }
    }

    /// The identity that `id` must have to be listened to here; `None` where it is not known.
    pub(super) fn identity_of(&self, id: ServerId) -> Option<Identity> {
        self.formed()?.raft.identity_of(id)
    }

    /// Why it cannot form or join as it was started; the last reason heard.
    pub(super) fn refusal(&self) -> Option<&String> {
        match &self.phase {
            Phase::Forming(forming) => forming.refusal.as_ref(),
            Phase::Joining(joining) => joining.refusal.as_ref(),
            Phase::Formed(_) => None,
        }
    }

    /// What it is, for the host.
    pub(super) fn role(&self) -> Role {
        match &self.phase {
            Phase::Forming(_) | Phase::Joining(_) => Role::Forming,
            Phase::Formed(formed) => match formed.raft.role() {
                core::RoleName::Follower => Role::Follower,
                core::RoleName::PreCandidate => Role::PreCandidate,
                core::RoleName::Candidate => Role::Candidate,
                core::RoleName::Leader => Role::Leader,
            },
        }
    }

    /// Ends everything that waits, as nothing will come of it here.
    pub(super) fn end_all(&mut self, unknown: Unknown, not_applied: &NotApplied, effects: &mut Vec<Effect>) {
        let proposals: Vec<_> = self.proposals.drain(..).map(|pending| pending.ticket).collect();
        complete(self.id, proposals, Outcome::Unknown(unknown), effects);
        self.forwarding.end_all(self.id, unknown, not_applied, effects);
        // Followers that wait to read hear no more of this server as their leader, and wait no longer.
        let readers = std::mem::take(&mut self.reads).into_values();
        let own = readers.filter_map(|reader| if let Reader::Host(ticket) = reader { Some(ticket) } else { None });
        let mut rest: Vec<_> = own.collect();
        rest.append(&mut self.snapshots.waiting);
        self.changes.end_all(self.id, unknown, not_applied, effects);
        self.digests.end_all(self.id, unknown, effects);
        complete(self.id, rest, Outcome::NotApplied(not_applied.clone()), effects);
    }
}

/// Tells the host how these ended; nothing, if there is none.
pub(super) fn complete(group: GroupId, tickets: Vec<Ticket>, outcome: Outcome, effects: &mut Vec<Effect>) {
    if !tickets.is_empty() {
        effects.push(Effect::Complete { group, tickets, outcome });
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
