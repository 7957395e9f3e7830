//! AppendEntries at a leader (§5.3): who gets which entries when, and what an answer means.

use super::progress::{InFlight, Pace, Progress};
use super::{Effect, Raft, Role};
use crate::types::{AppendOutcome, Entry, Index, Message, Position, ServerId, Term, Time};

impl Progress {
    /// What this peer counts for in a commitment.
    pub(super) fn counted(&self) -> Index {
        if self.pace == Pace::LostData { 0 } else { self.matched }
    }
}

impl Raft {
    /// Sends to every peer what it lacks and has room for.
    pub(super) fn replicate(&mut self, now: Time) {
        let Role::Leader(leader) = &self.role else { return };
        let peers: Vec<_> = leader.peers.keys().copied().collect();
        for peer in peers {
            while self.send_append(now, peer) {}
        }
    }

    /// Sends one request if the peer's pace allows it, and says whether another may follow.
    fn send_append(&mut self, now: Time, to: ServerId) -> bool {
        let last = self.log.last().index;
        let has_room = self.has_room(to);
        let Role::Leader(leader) = &mut self.role else { return false };
        let Some(peer) = leader.peers.get_mut(&to).filter(|peer| has_room && !peer.fetching) else { return false };
        if matches!(peer.pace, Pace::Replicate { .. }) && peer.next > last {
            return false;
        }
        let is_probe = matches!(peer.pace, Pace::Probe { .. });
        let previous = peer.next - 1;
        let Some(term) = self.log.term_at(previous) else {
            self.send_snapshot(now, to);
            return false;
        };
        if peer.next <= last && peer.next < self.log.cache_start() {
            peer.fetching = true;
            let through = last.min(self.log.cache_start() - 1);
            self.effects.push(Effect::Fetch { to, from: peer.next, through });
            return false;
        }
        let entries = self.log.cached(peer.next, last, self.options.message_bytes);
        self.send_entries(now, to, Position { term, index: previous }, entries);
        !is_probe
    }

    /// Entries that were read from the log for a peer: as many as it has room for go out, in requests that fit a frame.
    /// Nothing goes out if the peer needs something else by now.
    pub fn fetched(&mut self, now: Time, to: ServerId, entries: Vec<Entry>) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(peer) = leader.peers.get_mut(&to).filter(|peer| peer.fetching) else { return };
        peer.fetching = false;
        let is_current = entries.first().is_some_and(|entry| entry.index == peer.next)
            && entries.iter().all(|entry| self.log.holds(entry.position()));
        if !is_current {
            return;
        }
        let mut rest = entries.as_slice();
        while let Some(first) = rest.first().filter(|_| self.has_room(to)) {
            let mut bytes = 0;
            let fitting = rest.iter().take_while(|entry| {
                bytes += entry.cost_bytes();
                bytes <= self.options.message_bytes
            });
            let count = fitting.count().max(1);
            let previous = first.index - 1;
            let Some(term) = self.log.term_at(previous) else { return };
            self.send_entries(now, to, Position { term, index: previous }, rest[..count].to_vec());
            rest = &rest[count..];
        }
    }

    /// Whether a request may go to this peer now.
    fn has_room(&self, to: ServerId) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        leader.peers.get(&to).is_some_and(|peer| match &peer.pace {
            Pace::Probe { outstanding, .. } => outstanding.is_none(),
            Pace::Replicate { in_flight_bytes, .. } => *in_flight_bytes < self.options.in_flight_bytes,
            Pace::Snapshot { .. } | Pace::LostData => false,
        })
    }

    /// Entries for a peer could not be read. They are asked for again when the peer is next due.
    pub fn fetch_failed(&mut self, now: Time, to: ServerId) {
        let retry_at = now + self.retry_after();
        if let Role::Leader(leader) = &mut self.role
            && let Some(peer) = leader.peers.get_mut(&to)
        {
            peer.probe(now, peer.next, leader.number);
            peer.pace = Pace::Probe { outstanding: Some(leader.number), retry_at };
        }
    }

    fn send_entries(&mut self, now: Time, to: ServerId, previous: Position, entries: Vec<Entry>) {
        let retry_at = now + self.retry_after();
        let (term, commit) = (self.hard_state.term, self.commit);
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(peer) = leader.peers.get_mut(&to) else { return };
        leader.number += 1;
        let number = leader.number;
        let last = previous.index + entries.len() as u64;
        peer.commit_told = peer.commit_told.max(commit.min(last));
        match &mut peer.pace {
            Pace::Probe { outstanding, retry_at: at } => {
                *outstanding = Some(number);
                *at = retry_at;
            }
            Pace::Replicate { in_flight, in_flight_bytes } => {
                let bytes = entries.iter().map(Entry::cost_bytes).sum();
                in_flight.push_back(InFlight { last, bytes, sent_at: now });
                *in_flight_bytes += bytes;
                peer.next = last + 1;
            }
            Pace::Snapshot { .. } | Pace::LostData => return,
        }
        self.send(to, Message::Append { term, number, previous, commit, entries });
    }

    pub(super) fn on_append_reply(
        &mut self,
        now: Time,
        from: ServerId,
        term: Term,
        number: u64,
        outcome: AppendOutcome,
    ) {
        let last = self.log.last().index;
        // Number 0 answers a request of an earlier term: it only tells of the term.
        if term != self.hard_state.term || number == 0 {
            return;
        }
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(peer) = leader.peers.get_mut(&from) else { return };
        assert!(number <= leader.number, "{from} answered a request that was never sent");
        peer.heard_at = now;
        match outcome {
            AppendOutcome::Matched { through } => {
                assert!(through <= last, "{from} acknowledged {through}, beyond the leader's last index {last}");
                if peer.pace == Pace::LostData {
                    return;
                }
                if through > peer.matched {
                    peer.matched = through;
                    peer.matched_at_number = leader.number;
                }
                peer.next = peer.next.max(peer.matched + 1);
                match &peer.pace {
                    Pace::Probe { .. } => peer.replicate(),
                    Pace::Snapshot { .. } if number > peer.reset_at_number => peer.replicate(),
                    _ => peer.acknowledged(through),
                }
                self.advance_commit(now);
                self.advance_transfer(now);
            }
            AppendOutcome::Conflict { previous, hint, last: peer_last } => {
                let acknowledged = peer.matched;
                // A request sent in the knowledge of the acknowledgement is answered as if it had never been given:
                // the peer's disk lost data. An answer to an earlier request proves nothing.
                let knew_acknowledgement = acknowledged > 0 && number > peer.matched_at_number;
                if knew_acknowledgement && (previous <= acknowledged || peer_last < acknowledged) {
                    let denied = previous.min(peer_last);
                    peer.pace = Pace::LostData;
                    self.effects.push(Effect::LostData { peer: from, acknowledged, denied });
                    return;
                }
                let is_expected = match peer.pace {
                    Pace::Probe { outstanding, .. } => outstanding == Some(number),
                    Pace::Replicate { .. } => number > peer.reset_at_number && previous > peer.matched,
                    Pace::Snapshot { .. } | Pace::LostData => false,
                };
                if is_expected {
                    let meeting = self.log.last_at_most(hint).index.min(previous - 1);
                    peer.probe(now, meeting + 1, leader.number);
                }
            }
        }
    }

    /// The connection to a peer is new: whatever was in flight on the old one may be lost.
    pub fn peer_reconnected(&mut self, now: Time, peer: ServerId) {
        if let Role::Leader(leader) = &mut self.role
            && let Some(progress) = leader.peers.get_mut(&peer)
            && matches!(progress.pace, Pace::Probe { .. } | Pace::Replicate { .. })
        {
            let next = if progress.matched > 0 { progress.matched + 1 } else { progress.next };
            progress.probe(now, next, leader.number);
        }
        self.ask_again(peer);
    }

    /// Whoever has been silent about a request for long is probed again.
    pub(super) fn retry_silent_peers(&mut self, now: Time) {
        let retry_after = self.retry_after();
        let Role::Leader(leader) = &mut self.role else { return };
        for peer in leader.peers.values_mut().filter(|peer| now >= peer.deadline(retry_after)) {
            let next = match peer.pace {
                Pace::Probe { .. } | Pace::Snapshot { .. } => peer.next,
                Pace::Replicate { .. } | Pace::LostData => peer.matched + 1,
            };
            peer.probe(now, next, leader.number);
        }
    }
}
