//! Leadership: its beginning (§5.2, §8), heartbeats, and its end when a quorum or the own disk is silent.

use std::time::Duration;

use bytes::Bytes;

use super::lease::SentRounds;
use super::membership::Changing;
use super::progress::Progress;
use super::read::Reads;
use super::{Effect, Leader, Raft, Role, quorum};
use crate::types::{Entry, EntryKind, Index, LogTime, Message, Position, ServerId, Term, Time};

impl Raft {
    /// Begins to lead: every peer is assumed to be equal until it says otherwise, and a no-op opens the term, so that
    /// entries of earlier terms commit with it (§5.4.2, §8).
    pub(super) fn lead(&mut self, now: Time) {
        let last = self.log.last();
        let settled = self.commit.min(self.durability.durable());
        let peers = self.configuration().members.iter().map(|member| member.id).filter(|&id| id != self.id);
        let peers = peers.map(|id| (id, Progress::new(now, last.index + 1))).collect();
        self.role = Role::Leader(Box::new(Leader {
            peers,
            first_of_term: last.index + 1,
            number: 0,
            round: 0,
            heartbeat_at: now,
            check_quorum_at: now + self.options.election_timeout,
            log_time_origin: (self.log.last_log_time(), now),
            uncommitted_bytes: self.log.cost_bytes(settled + 1, last.index),
            settled,
            disk_waiting_since: None,
            sent_rounds: SentRounds::default(),
            is_lease_void: false,
            changing: Changing::default(),
            transfer: None,
            no_hand_over_before: now,
            reads: Reads::default(),
        }));
        let position = Position { term: self.hard_state.term, index: last.index + 1 };
        let no_op = Entry::new(position, self.log.last_log_time(), EntryKind::NoOp, Bytes::new());
        self.append_own(now, vec![no_op]);
        self.send_heartbeats(now);
    }

    /// The group's time at this leader: the last entry's as its term began, and what its clock says has passed since.
    pub(super) fn log_time(&self, now: Time) -> LogTime {
        match &self.role {
            Role::Leader(leader) => leader.log_time_origin.0 + now.since(leader.log_time_origin.1),
            _ => self.log.last_log_time(),
        }
    }

    /// Appends a leader's own entries.
    pub(super) fn append_own(&mut self, now: Time, entries: Vec<Entry>) {
        if let Role::Leader(leader) = &mut self.role {
            leader.uncommitted_bytes += entries.iter().map(Entry::cost_bytes).sum::<usize>();
            leader.disk_waiting_since.get_or_insert(now);
        }
        self.append(entries);
    }

    pub(super) fn leader_deadline(&self, leader: &Leader) -> Time {
        let stall = leader.disk_waiting_since.map_or(Time::NEVER, |since| since + self.options.disk_stall_timeout);
        let retry = leader.peers.values().map(|peer| peer.deadline(self.retry_after())).min().unwrap_or(Time::NEVER);
        leader.heartbeat_at.min(stall).min(retry)
    }

    pub(super) fn retry_after(&self) -> Duration {
        self.options.election_timeout
    }

    pub(super) fn tick_leader(&mut self, now: Time) {
        let Role::Leader(leader) = &mut self.role else { return };
        let waited = leader.disk_waiting_since.map(|since| now.since(since));
        if let Some(waited) = waited.filter(|waited| *waited >= self.options.disk_stall_timeout) {
            self.effects.push(Effect::DiskStalled { waited });
            return self.step_down(now);
        }
        // Looked at when a heartbeat is due: a timer of its own would wake an idle leader for nothing.
        let is_heartbeat_due = now >= leader.heartbeat_at;
        if is_heartbeat_due && now >= leader.check_quorum_at {
            leader.check_quorum_at = now + self.options.election_timeout;
            if !self.is_quorum_answering(now) {
                return self.step_down(now);
            }
        }
        self.retry_silent_peers(now);
        if is_heartbeat_due {
            self.note_commit_of_heartbeat();
            self.send_heartbeats(now);
            self.advance_change(now);
            self.repeat_transfer(now);
            self.hand_over_if_outranked(now);
        }
    }

    /// A leader that no quorum answers may have been replaced: it stops (dissertation §6.2). Its term stays.
    fn step_down(&mut self, now: Time) {
        self.follow(now, self.hard_state.term, None);
    }

    fn is_quorum_answering(&self, now: Time) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        quorum::is_quorum(self.configuration(), |id| match leader.peers.get(&id) {
            Some(peer) => now.since(peer.heard_at) < self.options.election_timeout,
            None => id == self.id,
        })
    }

    /// Opens a round of leadership and says so to every peer. The next one is due at a multiple of the interval by the
    /// server's clock, and not an interval from now: so all leaders of a server are due together, though none knows of
    /// another, and what they say goes together.
    pub(super) fn send_heartbeats(&mut self, now: Time) {
        let Role::Leader(leader) = &mut self.role else { return };
        leader.round += 1;
        leader.heartbeat_at = now.next_multiple(self.options.heartbeat_interval);
        leader.sent_rounds.sent(leader.round, now);
        let (term, round, commit) = (self.hard_state.term, leader.round, self.commit);
        let messages: Vec<_> = (leader.peers.iter_mut())
            .map(|(&to, peer)| (to, Message::Heartbeat { term, round, commit: peer.tell_commit(commit) }))
            .collect();
        for (to, message) in messages {
            self.send(to, message);
        }
    }

    pub(super) fn on_heartbeat(&mut self, now: Time, from: ServerId, term: Term, round: u64, commit: Index) {
        let is_current = term == self.hard_state.term;
        if is_current {
            self.hear_leader(now, from);
            self.learn_commit(commit);
        }
        // A round of an earlier term is not confirmed: by now its sender may lead this very term, and count anew.
        let round = if is_current { round } else { 0 };
        let promise = if is_current { self.promise(now) } else { Duration::ZERO };
        self.send(from, Message::HeartbeatReply { term: self.hard_state.term, round, promise });
    }

    pub(super) fn on_heartbeat_reply(&mut self, now: Time, from: ServerId, term: Term, round: u64, promise: Duration) {
        if term != self.hard_state.term {
            return;
        }
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(peer) = leader.peers.get_mut(&from) else { return };
        assert!(round <= leader.round, "{from} confirmed a round that was never opened");
        peer.heard_at = now;
        peer.confirmed_round = peer.confirmed_round.max(round);
        self.renew_lease(from, round, promise);
        self.release_reads(now);
    }

    /// Whether a message, of those that idle groups exchange, changes nothing but what time tells: a heartbeat of the
    /// leader that is followed, with nothing new committed, or its answer, where no read waits for it. What follows from
    /// it is an answer at most, and a deadline that moves.
    pub fn is_routine(&self, from: ServerId, message: &Message) -> bool {
        match (message, &self.role) {
            (Message::Heartbeat { term, commit, .. }, Role::Follower { leader }) => {
                *term == self.hard_state.term && *leader == Some(from) && *commit <= self.commit
            }
            (Message::HeartbeatReply { term, .. }, Role::Leader(leader)) => {
                *term == self.hard_state.term && leader.reads.in_round.is_empty()
            }
            _ => false,
        }
    }
}
