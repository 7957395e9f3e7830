//! What a simulator sees of a driver after every step: cheap, and without any effect on it.

use std::sync::Arc;

use super::group::Phase;
use super::{Driver, ForwardCounts, Role};
use crate::transport::{self, Frame};
use crate::types::{Configuration, EntryKind, GroupId, Index, Message, Position, ServerId, Term, Time};

/// One group, as it is between two events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Observed {
    /// What the server is in it.
    pub role: Role,
    /// The present term, durable or not.
    pub term: Term,
    /// The present vote, durable or not.
    pub vote: Option<ServerId>,
    /// Whom the server believes to lead.
    pub leader: Option<ServerId>,
    /// The commit index.
    pub commit: Index,
    /// The last entry handed to the state machine.
    pub delivered: Index,
    /// The last entry that it has applied.
    pub applied: Index,
    /// The end of the log.
    pub last: Position,
    /// The last entry whose present copy is on the own disk.
    pub durable: Index,
    /// Behind this the log knows every entry's term.
    pub base: Position,
    /// Grows whenever entries leave the end of the log.
    pub truncations: u64,
    /// Entries proposed and not committed, in bytes.
    pub uncommitted_bytes: usize,
    /// Entries in memory, in bytes.
    pub cached_bytes: usize,
    /// Whether the group stopped.
    pub is_stopped: bool,
}

/// How often the rare things happened of which nothing else tells, since the open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RareCounts {
    /// Opens whose log ended in a torn tail: this one, or none.
    pub torn_tails: u64,
    /// Groups whose entries were copied to the end of the log, to free its oldest segment.
    pub relocations: u64,
    /// Streams of snapshots that went on where an earlier one had broken off.
    pub snapshots_resumed: u64,
    /// Those of them whose earlier one was received before the open.
    pub snapshots_resumed_after_restart: u64,
    /// Streams of snapshots that were refused, as nothing in them was new, or whoever sent them leads no more.
    pub snapshots_unwanted: u64,
    /// Own snapshots that an installed one had overtaken when they were written.
    pub snapshots_overtaken: u64,
}

impl Driver {
    /// How often rare things happened.
    pub fn observe_rare(&self) -> RareCounts {
        self.rare
    }

    /// What a read by lease would cover now; `None` where there is no lease.
    pub fn observe_lease(&self, id: GroupId, now: Time) -> Option<Index> {
        let Phase::Formed(formed) = &self.groups.get(&id)?.phase else { return None };
        formed.raft.read_by_lease(now)
    }

    /// Whether a promise binds this server now.
    pub fn observe_promise(&self, id: GroupId, now: Time) -> bool {
        self.groups.get(&id).and_then(|group| group.formed()).is_some_and(|formed| formed.raft.is_bound(now))
    }

    /// A formed group; `None` before.
    pub fn observe(&self, id: GroupId) -> Option<Observed> {
        let group = self.groups.get(&id)?;
        let Phase::Formed(formed) = &group.phase else { return None };
        let raft = &formed.raft;
        Some(Observed {
            role: group.role(),
            term: raft.hard_state().term,
            vote: raft.hard_state().vote,
            leader: raft.leader(),
            commit: raft.commit_index(),
            delivered: raft.delivered_index(),
            applied: group.delivery.applied,
            last: raft.last(),
            durable: raft.durable_index(),
            base: raft.base(),
            truncations: raft.truncations(),
            uncommitted_bytes: raft.uncommitted_bytes(),
            cached_bytes: raft.cache_bytes(),
            is_stopped: group.stopped.is_some(),
        })
    }

    /// The term of a live entry; its kind and payload's CRC too, if it is in memory.
    pub fn observe_entry(&self, id: GroupId, index: Index) -> Option<(Term, Option<(EntryKind, u32)>)> {
        let Phase::Formed(formed) = &self.groups.get(&id)?.phase else { return None };
        let cached = formed.raft.cached_entry(index).map(|entry| (entry.kind, entry.payload_crc));
        Some((formed.raft.term_at(index)?, cached))
    }

    /// The configurations that the log of a formed group knows, by the index of their entry; the last is in force.
    pub fn observe_configurations(&self, id: GroupId) -> &[(Index, Arc<Configuration>)] {
        match self.groups.get(&id).map(|group| &group.phase) {
            Some(Phase::Formed(formed)) => formed.raft.configurations(),
            _ => &[],
        }
    }

    /// How often a group was told that its leader's process died.
    pub fn observe_suspicions(&self) -> u64 {
        self.suspicions
    }

    /// What became of forwards.
    pub fn observe_forwards(&self) -> ForwardCounts {
        self.forward_counts
    }

    /// The most bytes queued for any one connection, and for all of them.
    pub fn observe_queues(&self) -> (usize, usize) {
        self.links.pending_bytes()
    }
}

/// The messages of cores that a frame carries, if it carries whole ones: such a frame stands alone, and may be lost,
/// doubled, delayed or reordered. There are several where heartbeats of several groups go together.
pub fn core_messages(frame: &Frame) -> Vec<(GroupId, Message)> {
    transport::core_messages(frame)
}
