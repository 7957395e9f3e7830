//! What a leader knows of one peer, and how much it may send to it.
//!
//! A peer is *probed* (one request outstanding, to find where the logs meet), then *replicated* to (requests pipelined
//! under a window in bytes), or given a *snapshot* where the entries that it needs are compacted. Every state has a timed
//! exit, so that no lost message stalls a peer.

use std::collections::VecDeque;

use crate::types::{Index, Time};

/// How a leader sends to a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Pace {
    /// At most one request until its answer, or until `retry_at`.
    Probe {
        /// The outstanding request's number, if any.
        outstanding: Option<u64>,
        /// When the next may go although no answer came.
        retry_at: Time,
    },
    /// Requests follow each other under a window; what is in flight as (last index, bytes, sent at), ascending.
    Replicate {
        /// Requests that wait for an acknowledgement.
        in_flight: VecDeque<InFlight>,
        /// Their bytes.
        in_flight_bytes: usize,
    },
    /// A snapshot is on its way; given up at `deadline` unless the stream says that it moves.
    Snapshot {
        /// When to probe again.
        deadline: Time,
    },
    /// The peer denied what it had acknowledged. Nothing is sent, nothing counts.
    LostData,
}

/// One request that waits for its acknowledgement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct InFlight {
    /// The last index of the request.
    pub(super) last: Index,
    /// What its entries cost, in bytes.
    pub(super) bytes: usize,
    /// When it went out.
    pub(super) sent_at: Time,
}

/// What a leader knows of one peer in its term.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// How to send.
    pub(super) pace: Pace,
    /// The last index that the peer acknowledged as durable and equal (`matchIndex`). Never goes back in a term.
    pub(super) matched: Index,
    /// The next index to send (`nextIndex`). Always beyond `matched`.
    pub(super) next: Index,
    /// The number of the last request sent before the latest acknowledgement came: a request with a higher number was
    /// sent in the knowledge of `matched`.
    pub(super) matched_at_number: u64,
    /// Requests up to this number were sent before the pace changed: their conflicts are stale.
    pub(super) reset_at_number: u64,
    /// The last answer of any kind.
    pub(super) heard_at: Time,
    /// The highest round of leadership that the peer confirmed.
    pub(super) confirmed_round: u64,
    /// Until when a promise binds the peer, by this leader's clock.
    pub(super) bound_until: Time,
    /// Whether entries for the peer are being read from the disk.
    pub(super) fetching: bool,
    /// The highest commit index that the peer was told and can apply.
    pub(super) commit_told: Index,
    /// The peer's host waits for this index: it is told of its commit at once.
    pub(super) commit_wanted: Index,
}

impl Progress {
    /// What a new leader assumes: that the logs are equal (§5.3).
    pub(super) fn new(now: Time, next: Index) -> Self {
        Self {
            pace: Pace::Probe { outstanding: None, retry_at: now },
            matched: 0,
            next,
            matched_at_number: 0,
            reset_at_number: 0,
            heard_at: now,
            confirmed_round: 0,
            bound_until: Time(0),
            fetching: false,
            commit_told: 0,
            commit_wanted: 0,
        }
    }

    /// The commit index that a heartbeat tells the peer: beyond what matches, it would commit a follower's own, perhaps
    /// conflicting entries.
    pub(super) fn tell_commit(&mut self, commit: Index) -> Index {
        let commit = commit.min(self.matched);
        self.commit_told = self.commit_told.max(commit);
        commit
    }

    /// Starts looking for the meeting place at `next`, as of request `number`.
    pub(super) fn probe(&mut self, now: Time, next: Index, number: u64) {
        self.pace = Pace::Probe { outstanding: None, retry_at: now };
        self.next = next.max(self.matched + 1);
        self.reset_at_number = number;
        self.fetching = false;
    }

    /// Pipelines from just behind what is matched.
    pub(super) fn replicate(&mut self) {
        self.pace = Pace::Replicate { in_flight: VecDeque::new(), in_flight_bytes: 0 };
        self.next = self.matched + 1;
    }

    /// Frees the window of everything acknowledged.
    pub(super) fn acknowledged(&mut self, through: Index) {
        if let Pace::Replicate { in_flight, in_flight_bytes } = &mut self.pace {
            while let Some(request) = in_flight.front().filter(|request| request.last <= through) {
                *in_flight_bytes -= request.bytes;
                in_flight.pop_front();
            }
        }
    }

    /// When this peer needs attention although nothing comes from it.
    pub(super) fn deadline(&self, retry_after: std::time::Duration) -> Time {
        match &self.pace {
            Pace::Probe { outstanding: Some(_), retry_at } => *retry_at,
            Pace::Probe { outstanding: None, .. } | Pace::LostData => Time::NEVER,
            Pace::Replicate { in_flight, .. } => {
                in_flight.front().map_or(Time::NEVER, |request| request.sent_at + retry_after)
            }
            Pace::Snapshot { deadline } => *deadline,
        }
    }
}
