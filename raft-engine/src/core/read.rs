//! Linearizable reads without a log entry (dissertation §6.4, "ReadIndex").
//!
//! A leader remembers its commit index, makes sure with a round of heartbeats that it still led *after* the read came
//! in, and the read is served once that index is applied. A round opened before the read proves nothing for it, so
//! rounds have numbers that are never used again. Before the leader has committed in its term it does not know what is
//! committed: reads wait for the no-op.

use std::collections::VecDeque;

use super::{Effect, Raft, Refusal, Role, quorum};
use crate::types::{Index, Time};

/// Reads in the order in which they came.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads {
    /// Not in a round yet.
    pub(super) fresh: Vec<u64>,
    /// In a round: its number, what they must cover (unknown before the first commit of the term), and who.
    pub(super) in_round: VecDeque<Round>,
}

#[derive(Clone, Debug)]
pub(super) struct Round {
    pub(super) number: u64,
    pub(super) index: Option<Index>,
    pub(super) reads: Vec<u64>,
}

impl Raft {
    /// Registers a read under an id of the caller's. Its answer is an effect.
    pub fn read(&mut self, id: u64) -> Result<(), Refusal> {
        let Role::Leader(leader) = &mut self.role else { return Err(Refusal::NotLeader) };
        leader.reads.fresh.push(id);
        Ok(())
    }

    /// Opens one round for all reads that came since the last.
    pub(super) fn open_read_round(&mut self, now: Time) {
        let commit = self.known_commit();
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.reads.fresh.is_empty() {
            return;
        }
        let reads = std::mem::take(&mut leader.reads.fresh);
        leader.reads.in_round.push_back(Round { number: leader.round + 1, index: commit, reads });
        self.send_heartbeats(now);
        self.release_reads(now);
    }

    /// The commit index, if this leader knows it: once it has committed in its term.
    fn known_commit(&self) -> Option<Index> {
        match &self.role {
            Role::Leader(leader) if self.commit >= leader.first_of_term => Some(self.commit),
            _ => None,
        }
    }

    /// Serves the reads whose round a quorum confirmed.
    pub(super) fn release_reads(&mut self, _now: Time) {
        let Some(known) = self.known_commit() else { return };
        let Role::Leader(leader) = &self.role else { return };
        if leader.reads.in_round.is_empty() {
            return;
        }
        let confirmed = quorum::agreed_value(self.configuration(), |id| match leader.peers.get(&id) {
            Some(peer) => peer.confirmed_round,
            None if id == self.id => u64::MAX,
            None => 0,
        });
        let Role::Leader(leader) = &mut self.role else { return };
        while let Some(round) = leader.reads.in_round.pop_front_if(|round| round.number <= confirmed) {
            let index = round.index.unwrap_or(known);
            self.effects.extend(round.reads.into_iter().map(|id| Effect::ReadReady { id, index }));
        }
    }

    /// Leadership is lost: whoever asked may ask the next leader.
    pub(super) fn fail_reads(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        let reads = std::mem::take(&mut leader.reads);
        let all = reads.in_round.into_iter().flat_map(|round| round.reads).chain(reads.fresh);
        self.effects.extend(all.map(|id| Effect::ReadFailed { id }));
    }
}
