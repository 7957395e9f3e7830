//! When two states are the same: what of a server and of a message decides what can happen next.
//!
//! Left out, because nothing that can follow depends on it:
//! - Clocks. A core compares times only with each other, and no timeout is longer than one: times are kept as their
//!   distance from the server's own clock, and what is past or long past is the same. When an election timer runs out is
//!   the explorer's choice, so the random wait and its generator are nothing.
//! - Log times, payloads and the kinds of entries: index and term name an entry, for one leader makes it.
//! - Counters that only name: marks are counted from the last durable one. Request numbers are compared only with others
//!   between the same two servers in the same term, and every new one is higher than all: their order is kept, not they.
//!   Rounds are compared only with rounds that reads wait for: what is kept is how many of these a round reaches.
//! - Who is who. The cores treat ids alike, so a state in which servers changed places is the same state.
//!
//! The fields of a core are named one by one, so that a new one does not compile until somebody has said whether it
//! belongs here.

use super::super::*;
use super::server::{Disk, Server};
use crate::core::durability::Durability;
use crate::core::progress::{InFlight, Pace, Progress};
use crate::core::transfer::Transfer;
use crate::core::{Leader, Role};

/// Which id stands for which: `renaming[id]`.
pub(super) type Renaming = [u8; 4];

/// All ways in which three servers can change places.
pub(super) const RENAMINGS: [Renaming; 6] =
    [[0, 1, 2, 3], [0, 1, 3, 2], [0, 2, 1, 3], [0, 2, 3, 1], [0, 3, 1, 2], [0, 3, 2, 1]];

/// A counter that only its order with others gives a meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Counter {
    /// The number of a request from the leader of `term` to `follower`.
    Request { term: Term, follower: ServerId, number: u64 },
    /// A round of leadership in `term`.
    Round { term: Term, round: u64 },
}

/// A counter that a server holds, and where: the place's name, and the peer that it is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) place: u64,
    pub(super) peer: ServerId,
    pub(super) counter: Counter,
}

/// Mixes a word into a hash (the finalizer of SplitMix64 over their combination).
pub(super) fn mix(hash: u64, word: u64) -> u64 {
    let mut mixed = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x2545_f491_4f6c_dd1d);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The hash of words in their order.
pub(super) fn hash(words: &[u64]) -> u64 {
    words.iter().fold(words.len() as u64, |hash, &word| mix(hash, word))
}

/// The hash of a text.
pub(super) fn hash_text(text: &str) -> u64 {
    text.bytes().fold(text.len() as u64, |hash, byte| mix(hash, u64::from(byte)))
}

/// A message without its counter, as text, and the counter.
pub(super) fn message_parts(from: ServerId, to: ServerId, message: &Message) -> (String, Option<Counter>) {
    let mut bare = message.clone();
    let counter = match &mut bare {
        Message::Append { term, number, .. } => {
            Some(Counter::Request { term: *term, follower: to, number: std::mem::take(number) })
        }
        Message::AppendReply { term, number, .. } => {
            Some(Counter::Request { term: *term, follower: from, number: std::mem::take(number) })
        }
        Message::Heartbeat { term, round, .. } | Message::HeartbeatReply { term, round, .. } => {
            Some(Counter::Round { term: *term, round: std::mem::take(round) })
        }
        _ => None,
    };
    (format!("{bare:?}"), counter)
}

/// The term from which on, once its receiver has it durably, a message changes nothing ever again; `None` for what is
/// always answered.
pub(super) fn dead_from(message: &Message) -> Option<Term> {
    match *message {
        Message::PreVoteReply { campaign_term, granted: true, .. } => Some(campaign_term),
        Message::PreVoteReply { term, .. } | Message::VoteReply { term, granted: false, .. } => Some(term),
        Message::VoteReply { term, .. } | Message::HeartbeatReply { term, .. } | Message::TimeoutNow { term } => {
            Some(term + 1)
        }
        Message::AppendReply { term, number, .. } => Some(term + u64::from(number > 0)),
        _ => None,
    }
}

/// What a server is, without counters, under a renaming of ids; and the counters.
pub(super) fn server_words(server: &Server, renaming: &Renaming) -> (Vec<u64>, Vec<Slot>) {
    let mut words = Words { words: Vec::with_capacity(64), slots: Vec::new(), renaming };
    words.put_raft(server);
    words.put_disk(&server.disk, server.raft.durability.persisted);
    (words.words, words.slots)
}

/// What distinguishes a server from every other one, counters and all: equal words do the same in every step.
pub(super) fn exact_words(server: &Server) -> Vec<u64> {
    let (mut words, slots) = server_words(server, &RENAMINGS[0]);
    for slot in slots {
        words.push(match slot.counter {
            Counter::Request { number, .. } => number,
            Counter::Round { round, .. } => round,
        });
    }
    if let Role::Leader(leader) = &server.raft.role {
        words.extend([leader.number, leader.round]);
        words.extend(leader.reads.in_round.iter().map(|round| round.number));
    }
    words
}

/// The rounds of its term that a leader's reads wait for.
pub(super) fn awaited_rounds(server: &Server) -> Option<(Term, Vec<u64>)> {
    let Role::Leader(leader) = &server.raft.role else { return None };
    Some((server.raft.hard_state.term, leader.reads.in_round.iter().map(|round| round.number).collect()))
}

struct Words<'a> {
    words: Vec<u64>,
    slots: Vec<Slot>,
    renaming: &'a Renaming,
}

impl Words<'_> {
    fn put(&mut self, words: impl IntoIterator<Item = u64>) {
        self.words.extend(words);
    }

    fn renamed(&self, id: ServerId) -> u64 {
        u64::from(self.renaming[id.0 as usize])
    }

    fn put_id(&mut self, id: Option<ServerId>) {
        let id = id.map_or(0, |id| self.renamed(id));
        self.put([id]);
    }

    fn put_ids(&mut self, ids: &BTreeSet<ServerId>) {
        let set = ids.iter().map(|&id| 1 << self.renamed(id)).sum();
        self.put([set]);
    }

    fn put_slot(&mut self, place: u64, peer: ServerId, counter: Counter) {
        self.slots.push(Slot { place, peer, counter });
    }

    /// A mark as its distance from the last durable one; all durable ones are the same.
    fn put_mark(&mut self, mark: Mark, durable: Mark) {
        self.put([mark.0.saturating_sub(durable.0)]);
    }

    fn put_raft(&mut self, server: &Server) {
        let Raft {
            id,
            options: _, // The same everywhere and always.
            random: _,  // Decides nothing but timers.
            hard_state,
            role,
            log,
            durability,
            commit,
            delivered,
            compacted,
            truncations: _, // Only tells others when to look.
            configurations,
            election_at: _,     // The explorer's choice.
            leader_heard_at: _, // Through `is_bound`.
            promise: _,         // Without leases nobody gives one.
            removed,
            suspected,
            own_vote_pending,
            pending_restore,
            effects,
        } = &server.raft;
        assert!(effects.is_empty() && pending_restore.is_none() && suspected.is_none() && removed.is_none());
        let in_force = server.raft.configuration();
        assert!(in_force.change.is_none() && in_force.settings.lease.is_zero(), "not in a small world");
        assert_eq!((configurations.len(), *compacted, log.base().index), (1, 0, 0), "not in a small world");
        self.put_id(Some(*id));
        self.put_hard_state(*hard_state);
        let last = log.last().index;
        self.put([last, *commit, *delivered, u64::from(server.is_bound())]);
        self.put((1..=last).map(|index| log.term_at(index).expect("live")));
        self.put_durability(*id, durability);
        match own_vote_pending {
            None => self.put([0]),
            Some(mark) => self.put([1 + mark.0 - durability.persisted.0]),
        }
        match role {
            Role::Follower { leader } => {
                self.put([1]);
                self.put_id(*leader);
            }
            Role::PreCandidate { granted } => {
                self.put([2]);
                self.put_ids(granted);
            }
            Role::Candidate { granted, is_transfer } => {
                self.put([3, u64::from(*is_transfer)]);
                self.put_ids(granted);
            }
            Role::Leader(leader) => {
                self.put([4]);
                self.put_leader(server, leader);
            }
        }
    }

    fn put_hard_state(&mut self, state: HardState) {
        self.put([state.term]);
        self.put_id(state.vote);
    }

    fn put_durability(&mut self, from: ServerId, durability: &Durability) {
        let Durability { issued, persisted, hard_state, appends, durable, held } = durability;
        self.put_mark(*issued, *persisted);
        self.put_mark(*hard_state, *persisted);
        self.put([*durable, appends.len() as u64, held.len() as u64]);
        for &(mark, last) in appends {
            self.put_mark(mark, *persisted);
            self.put([last]);
        }
        for (at, (mark, to, message)) in held.iter().enumerate() {
            self.put_mark(*mark, *persisted);
            self.put_id(Some(*to));
            let (bare, counter) = message_parts(from, *to, message);
            self.put([hash_text(&bare)]);
            if let Some(counter) = counter {
                self.put_slot(100 + at as u64, *to, counter);
            }
        }
    }

    fn put_leader(&mut self, server: &Server, leader: &Leader) {
        let Leader {
            peers,
            first_of_term,
            number: _,        // Higher than all that are compared with the next.
            round: _,         // Likewise.
            heartbeat_at: _,  // Always due.
            sent_rounds: _,   // For leases only.
            is_lease_void: _, // Likewise.
            changing: _,      // For changes of members only.
            transfer,
            no_hand_over_before: _, // For servers of priority 0 only.
            check_quorum_at,
            log_time_origin: _,   // Nothing is decided by log time.
            uncommitted_bytes: _, // Never near its budget.
            settled,
            disk_waiting_since: _, // Never long enough.
            reads,
        } = leader;
        let term = server.raft.hard_state.term;
        self.put([*first_of_term, *settled, distance(*check_quorum_at, server.clock)]);
        match transfer {
            None => self.put([0]),
            Some(Transfer { to, deadline, is_told }) => {
                self.put_id(Some(*to));
                self.put([distance(*deadline, server.clock), u64::from(*is_told)]);
            }
        }
        assert!(reads.fresh.is_empty(), "every step ends with a flush");
        self.put([reads.in_round.len() as u64]);
        for round in &reads.in_round {
            self.put([round.index.map_or(0, |index| index + 1), round.reads.len() as u64]);
            self.put(round.reads.iter().copied());
        }
        let mut renamed: Vec<_> = peers.iter().map(|(&id, peer)| (self.renamed(id), id, peer)).collect();
        renamed.sort_by_key(|&(renamed, ..)| renamed);
        for (_, id, peer) in renamed {
            self.put_progress(server, term, id, peer);
        }
    }

    fn put_progress(&mut self, server: &Server, term: Term, id: ServerId, peer: &Progress) {
        let Progress {
            pace,
            matched,
            next,
            matched_at_number,
            reset_at_number,
            heard_at,
            confirmed_round,
            bound_until: _, // For leases only.
            fetching,
            commit_told: _, // Nobody's host waits for a commit here.
            commit_wanted: _,
        } = peer;
        let age = server.moment().since(*heard_at).min(server.next_clock().since(server.clock));
        self.put([*matched, *next, u64::try_from(age.as_nanos()).expect("short"), u64::from(*fetching)]);
        let request = |number: u64| Counter::Request { term, follower: id, number };
        self.put_slot(1, id, request(*matched_at_number));
        self.put_slot(2, id, request(*reset_at_number));
        self.put_slot(3, id, Counter::Round { term, round: *confirmed_round });
        match pace {
            Pace::Probe { outstanding: None, .. } => self.put([1]),
            Pace::Probe { outstanding: Some(number), retry_at } => {
                self.put([2, distance(*retry_at, server.clock)]);
                self.put_slot(4, id, request(*number));
            }
            Pace::Replicate { in_flight, in_flight_bytes: _ } => {
                self.put([3, in_flight.len() as u64]);
                for InFlight { last, bytes: _, sent_at } in in_flight {
                    let since = *sent_at + server.next_clock().since(server.clock);
                    self.put([*last, distance(since, server.clock)]);
                }
            }
            Pace::Snapshot { .. } | Pace::LostData => unreachable!("not in a small world"),
        }
    }

    fn put_disk(&mut self, disk: &Disk, durable: Mark) {
        self.put_hard_state(disk.hard_state);
        self.put([disk.log.len() as u64, disk.waiting.len() as u64]);
        self.put(disk.log.iter().map(|entry| entry.term));
        for (mark, record) in &disk.waiting {
            self.put_mark(*mark, durable);
            match record {
                Persist::HardState(state) => {
                    self.put([1]);
                    self.put_hard_state(*state);
                }
                Persist::Entries(entries) => {
                    self.put([2, entries.len() as u64]);
                    self.put(entries.iter().flat_map(|entry| [entry.index, entry.term]));
                }
                Persist::Truncate { from } => self.put([3, *from]),
                Persist::Snapshot(_) => unreachable!("not in a small world"),
            }
        }
    }
}

/// How far a deadline lies ahead of a server's clock; all that are past are the same.
fn distance(deadline: Time, clock: Time) -> u64 {
    u64::try_from(deadline.since(clock).as_nanos()).unwrap_or(u64::MAX)
}
