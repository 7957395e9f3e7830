//! Snapshots between servers (§7): when a leader sends one, and what a follower does with it.

use std::sync::Arc;

use super::progress::Pace;
use super::{Effect, Persist, Raft, Role};
use crate::types::{Position, ServerId, SnapshotMeta, Term, Time};

/// What a follower says to a snapshot that it is offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offer {
    /// It is needed: receive it.
    Wanted,
    /// What it covers is committed here, or its leader is of the past. The answer is on its way.
    Stale,
}

impl Raft {
    /// The entries that `to` needs are compacted: it is given the latest snapshot.
    pub(super) fn send_snapshot(&mut self, now: Time, to: ServerId) {
        let deadline = now + self.snapshot_patience();
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(peer) = leader.peers.get_mut(&to) else { return };
        peer.reset_at_number = leader.number;
        leader.number += 1;
        peer.pace = Pace::Snapshot { deadline };
        self.effects.push(Effect::SendSnapshot { to, number: leader.number });
    }

    fn snapshot_patience(&self) -> std::time::Duration {
        self.options.election_timeout * 10
    }

    /// The stream of a snapshot to `to` moves on.
    pub fn snapshot_moves(&mut self, now: Time, to: ServerId) {
        let later = now + self.snapshot_patience();
        if let Role::Leader(leader) = &mut self.role
            && let Some(peer) = leader.peers.get_mut(&to)
        {
            peer.heard_at = now;
            if let Pace::Snapshot { deadline } = &mut peer.pace {
                *deadline = later;
            }
        }
    }

    /// The stream of a snapshot to `to` broke, or could not begin. The peer is probed again, after a while.
    pub fn snapshot_failed(&mut self, now: Time, to: ServerId) {
        let soon = now + self.options.heartbeat_interval;
        if let Role::Leader(leader) = &mut self.role
            && let Some(peer) = leader.peers.get_mut(&to)
            && let Pace::Snapshot { deadline } = &mut peer.pace
        {
            *deadline = (*deadline).min(soon);
        }
    }

    /// A leader of `term` offers a snapshot at `position`. What this server has committed is never replaced by something
    /// older (§7).
    pub fn snapshot_offered(
        &mut self,
        now: Time,
        from: ServerId,
        term: Term,
        number: u64,
        position: Position,
    ) -> Offer {
        if term < self.hard_state.term {
            return Offer::Stale;
        }
        if term > self.hard_state.term {
            self.follow(now, term, None);
        }
        self.hear_leader(now, from);
        if position.index <= self.commit || self.pending_restore.is_some() {
            self.acknowledge(from, number, self.commit);
            return Offer::Stale;
        }
        Offer::Wanted
    }

    /// A snapshot that was [`Offer::Wanted`] is complete, verified, and durable under its name. Returns whether it is
    /// installed: not, if it has become stale. `from`, `term` and `number` are those of the offer.
    ///
    /// Where the log holds the snapshot's last entry, the log is right and merely becomes committed that far; else all of
    /// it goes (§7, "receiver implementation" 6 and 7), and the state machine is replaced once the mark is durable.
    pub fn install_snapshot(&mut self, now: Time, from: ServerId, term: Term, number: u64, meta: SnapshotMeta) -> bool {
        let position = meta.position;
        let is_current = term == self.hard_state.term && !self.is_leader();
        let installed = position.index > self.commit && self.pending_restore.is_none();
        if installed && self.log.holds(position) {
            self.commit = position.index;
        } else if installed {
            self.replace_log(meta);
        }
        if is_current {
            self.hear_leader(now, from);
            self.acknowledge(from, number, self.commit);
        }
        installed && self.log.base() == position
    }

    fn replace_log(&mut self, meta: SnapshotMeta) {
        let position = meta.position;
        assert!(!self.is_leader(), "a leader holds everything that is committed");
        let kept = self.commit;
        if self.log.last().index > kept {
            self.truncate(kept + 1);
        }
        let mark = self.durability.record_snapshot(kept, position.index);
        self.log.reset(position, meta.log_time);
        self.configurations = vec![(meta.configuration_index, Arc::new((*meta.configuration).clone()))];
        self.commit = position.index;
        self.compacted = position.index;
        self.truncations += 1;
        self.effects.push(Effect::Persist { mark, record: Persist::Snapshot(meta.clone()) });
        self.pending_restore = Some((mark, meta));
    }

    /// The state machine equals the snapshot at `index`: what comes next is the entry behind it.
    pub fn restored(&mut self, index: crate::types::Index) {
        self.delivered = self.delivered.max(index);
    }
}
