//! Reads at a leader without a round of messages (dissertation §6.4.1), where the group's settings allow them.
//!
//! A follower that answers a heartbeat *promises* to help nobody else to lead for the lease's time from its receipt: no
//! vote, no pre-vote, no candidacy of its own. While a quorum is bound by promises, counted from when their heartbeats
//! were *sent*, there is no other leader, and what this one has committed is all that is committed.
//!
//! What it stands on: every member's monotonic clock runs, while its server does, at a rate within a tenth of the
//! others'. A clock that stands still while its machine is suspended, and the leader with it, is no danger to the
//! promise of a follower that goes on; a leader whose clock stood still while it was suspended would be: where machines
//! are suspended or migrated live, no lease.
//!
//! Only a hand-over sets a promise aside: the vote request that a TimeoutNow caused, for a term after the promise's. The
//! leader that sent the TimeoutNow serves no such read in its term again.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Raft, Role, quorum};
use crate::types::{Index, Term, Time};

/// What a follower promised.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Promise {
    /// The term in which it was given last.
    term: Term,
    /// Until when it binds. Never goes back.
    until: Time,
}

/// When a leader sent its rounds that no quorum has confirmed yet, and the latest ones.
#[derive(Clone, Debug, Default)]
pub(super) struct SentRounds {
    rounds: VecDeque<(u64, Time)>,
}

impl SentRounds {
    /// More are not kept: whoever answers later than this many rounds renews nothing.
    const MOST: usize = 64;

    pub(super) fn sent(&mut self, round: u64, at: Time) {
        self.rounds.push_back((round, at));
        if self.rounds.len() > Self::MOST {
            self.rounds.pop_front();
        }
    }

    fn sent_at(&self, round: u64) -> Option<Time> {
        let at = self.rounds.binary_search_by_key(&round, |&(round, _)| round).ok()?;
        Some(self.rounds[at].1)
    }
}

impl Promise {
    /// What a server is bound by after a start: it may have promised as much as it ever could, until the moment before.
    pub(super) fn after_restart(now: Time, term: Term, longest: Duration) -> Self {
        Self { term, until: if longest.is_zero() { Time(0) } else { now + longest } }
    }

    /// Whether it binds now.
    pub(super) fn binds(self, now: Time) -> bool {
        now < self.until
    }

    /// Until when it binds.
    pub(super) fn until(self) -> Time {
        self.until
    }

    /// Whether it forbids a vote in `term`. A vote that a hand-over asks for is above promises of earlier terms.
    pub(super) fn forbids_vote(self, now: Time, term: Term, is_transfer: bool) -> bool {
        self.binds(now) && !(is_transfer && self.term < term)
    }
}

impl Raft {
    /// Whether a promise binds this server now: one that it gave, or may have given before its start.
    pub fn is_bound(&self, now: Time) -> bool {
        self.promise.binds(now)
    }

    /// Promises the leader of the present term, from whom a heartbeat has just come, as much as the settings say: those
    /// of a configuration that is on the own disk, and no more than the own election timeout.
    pub(super) fn promise(&mut self, now: Time) -> Duration {
        let (at, configuration) = &self.configurations[self.configurations.len() - 1];
        if *at > self.durability.durable() {
            return Duration::ZERO;
        }
        let lease = configuration.settings.lease.min(self.options.election_timeout);
        if !lease.is_zero() {
            let until = self.promise.until.max(now + lease);
            self.promise = Promise { term: self.hard_state.term, until };
        }
        lease
    }

    /// A follower answered `round` with a promise: it binds that follower from when the round was sent, by the leader's
    /// clock, which may be a tenth slower.
    pub(super) fn renew_lease(&mut self, from: crate::types::ServerId, round: u64, promise: Duration) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(sent_at) = leader.sent_rounds.sent_at(round).filter(|_| !promise.is_zero()) else { return };
        if let Some(peer) = leader.peers.get_mut(&from) {
            peer.bound_until = peer.bound_until.max(sent_at + promise * 9 / 10);
        }
    }

    /// What a read must cover now, if a quorum is bound by promises to this leader at `now`: a clock read after the read
    /// came in. `None` where there is no lease: then a round tells.
    pub fn read_by_lease(&self, now: Time) -> Option<Index> {
        let Role::Leader(leader) = &self.role else { return None };
        let is_known = self.commit >= leader.first_of_term && self.is_configuration_committed();
        if !is_known || leader.is_lease_void || self.configuration().settings.lease.is_zero() {
            return None;
        }
        let bound_until = quorum::agreed_value(self.configuration(), |id| match leader.peers.get(&id) {
            Some(peer) => peer.bound_until.0,
            None if id == self.id => Time::NEVER.0,
            None => 0,
        });
        (now < Time(bound_until)).then_some(self.commit)
    }
}
