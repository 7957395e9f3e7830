//! A state of a small world, and the table of everything that states are made of.
//!
//! A server is in the same few thousand conditions over and over, and what one event makes of it never changes: so
//! servers, messages and steps are kept once, and a state is a handful of numbers.

#![allow(clippy::disallowed_types, reason = "the order of the tables here is never looked at")]

use std::collections::HashMap;

use super::super::*;
use super::canonical::{
    Counter, RENAMINGS, Slot, awaited_rounds, dead_from, exact_words, hash, hash_text, message_parts, mix, server_words,
};
use super::server::{Event, Server};

/// The most messages in flight, whatever the bounds say.
pub(super) const MOST_IN_FLIGHT: usize = 6;
/// The highest index, whatever the bounds say.
pub(super) const HIGHEST_INDEX: usize = 6;
/// The highest term, whatever the bounds say.
pub(super) const HIGHEST_TERM: usize = 5;

/// What keeps a world small. Beyond it nothing is explored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// No server enters a higher term.
    pub(super) term: Term,
    /// No log grows longer.
    pub(super) index: Index,
    /// Messages in flight that will arrive. Any other that is sent is lost.
    pub(super) in_flight: usize,
    /// Messages that arrive twice. Else a message is in flight once: a second, equal one is lost.
    pub(super) duplicates: u8,
    /// Messages that one server holds back until its disk is as far.
    pub(super) held: usize,
    /// Records that wait for one disk.
    pub(super) waiting: usize,
    /// Processes that die and start again.
    pub(super) crashes: u8,
    /// Reads that are asked.
    pub(super) reads: u8,
    /// Connections that are replaced.
    pub(super) reconnects: u8,
    /// Election timeouts that pass at a leader.
    pub(super) timeouts: u8,
    /// Times that a host wants another server to lead.
    pub(super) hand_overs: u8,
    /// Whether the host proposes (up to the highest index).
    pub(super) proposes: bool,
    /// Whether heartbeats come due by themselves, not only with a new leader, a read, or time that passes.
    pub(super) heartbeats: bool,
}

/// An entry known to be committed: never to change.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Committed {
    /// The entry's own term.
    pub(super) term: u8,
    /// The term of the leader that committed it.
    pub(super) by: u8,
}

/// One state: three servers, the messages between them, and what must be remembered of the past to judge the present.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    pub(super) servers: [u32; 3],
    /// Messages in flight, ascending; the first `in_flight` count.
    pub(super) flights: [u32; MOST_IN_FLIGHT],
    pub(super) in_flight: u8,
    pub(super) duplicates: u8,
    pub(super) crashes: u8,
    pub(super) reads: u8,
    pub(super) reconnects: u8,
    pub(super) timeouts: u8,
    pub(super) hand_overs: u8,
    /// Who led in which term; 0 for nobody.
    pub(super) leaders: [u8; HIGHEST_TERM + 1],
    /// Entry 1 is committed from birth; what follows it, in order.
    pub(super) committed: [Committed; HIGHEST_INDEX],
    /// The highest committed index.
    pub(super) committed_through: u8,
}

impl State {
    pub(super) fn in_flight(&self) -> &[u32] {
        &self.flights[..usize::from(self.in_flight)]
    }

    /// The committed entries behind entry 1, with their indexes.
    pub(super) fn committed(&self) -> impl Iterator<Item = (usize, Committed)> + '_ {
        (2..=usize::from(self.committed_through)).map(|index| (index, self.committed[index - 1]))
    }

    pub(super) fn take_flight(&mut self, at: usize) {
        let end = usize::from(self.in_flight);
        self.flights.copy_within(at + 1..end, at);
        self.in_flight -= 1;
        self.flights[end - 1] = 0;
    }

    pub(super) fn put_flight(&mut self, flight: u32) {
        let end = usize::from(self.in_flight);
        let at = self.in_flight().partition_point(|&other| other <= flight);
        self.flights.copy_within(at..end, at + 1);
        self.flights[at] = flight;
        self.in_flight += 1;
    }
}

/// What the invariants ask of a server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) term: u8,
    /// Its term on the disk.
    pub(super) durable_term: u8,
    pub(super) leads: bool,
    pub(super) is_bound: bool,
    pub(super) hands_over: bool,
    pub(super) waits_for_disk: bool,
    pub(super) commit: u8,
    /// The terms of its log from entry 1 on, and where it ends.
    pub(super) log: [u8; HIGHEST_INDEX + 1],
    pub(super) last: u8,
    /// The same of its disk.
    pub(super) disk: [u8; HIGHEST_INDEX + 1],
    pub(super) disk_last: u8,
}

/// A server in one of its conditions.
pub(super) struct KnownServer {
    pub(super) server: Server,
    pub(super) facts: Facts,
    /// Its hash under each renaming, without counters.
    hashes: [u64; RENAMINGS.len()],
    slots: Box<[Slot]>,
    awaited: Option<(Term, Vec<u64>)>,
}

/// A message from one server to another.
pub(super) struct KnownMessage {
    pub(super) from: ServerId,
    pub(super) to: ServerId,
    pub(super) message: Message,
    /// See [`dead_from`].
    pub(super) dead_from: Option<Term>,
    hash: u64,
    counter: Option<Counter>,
}

/// What an event makes of a server.
pub(super) enum Outcome {
    /// It becomes this, and sends these.
    Next { server: u32, sent: Box<[u32]> },
    /// It would leave the bounds.
    Beyond,
    /// A rule is broken.
    Broken(String),
}

/// An event as a number, for the table of steps.
pub(super) type EventCode = u32;

/// Everything that was met so far.
pub(super) struct Known {
    pub(super) servers: Vec<KnownServer>,
    pub(super) messages: Vec<KnownMessage>,
    outcomes: Vec<Outcome>,
    server_numbers: HashMap<Box<[u64]>, u32>,
    message_numbers: HashMap<String, u32>,
    steps: HashMap<(u32, EventCode), u32>,
}

impl Known {
    pub(super) fn new() -> Self {
        Self {
            servers: Vec::new(),
            messages: Vec::new(),
            outcomes: Vec::new(),
            server_numbers: HashMap::new(),
            message_numbers: HashMap::new(),
            steps: HashMap::new(),
        }
    }

    pub(super) fn number_of(&mut self, server: Server) -> u32 {
        let exact = exact_words(&server).into_boxed_slice();
        if let Some(&number) = self.server_numbers.get(&exact) {
            return number;
        }
        let number = u32::try_from(self.servers.len()).expect("fewer than four thousand million");
        self.server_numbers.insert(exact, number);
        let hashes = RENAMINGS.map(|renaming| hash(&server_words(&server, &renaming).0));
        let slots = server_words(&server, &RENAMINGS[0]).1.into_boxed_slice();
        let (facts, awaited) = (facts(&server), awaited_rounds(&server));
        self.servers.push(KnownServer { server, facts, hashes, slots, awaited });
        number
    }

    fn number_of_message(&mut self, from: ServerId, to: ServerId, message: Message) -> u32 {
        let text = format!("{from} {to} {message:?}");
        if let Some(&number) = self.message_numbers.get(&text) {
            return number;
        }
        let number = u32::try_from(self.messages.len()).expect("fewer than four thousand million");
        self.message_numbers.insert(text, number);
        let (bare, counter) = message_parts(from, to, &message);
        let (hash, dead_from) = (hash_text(&bare), dead_from(&message));
        self.messages.push(KnownMessage { from, to, message, dead_from, hash, counter });
        number
    }

    /// What `event` makes of a server. `code` names the event.
    pub(super) fn step(
        &mut self,
        server: u32,
        code: EventCode,
        event: impl FnOnce(&Self) -> Event,
        bounds: &Bounds,
    ) -> &Outcome {
        let at = match self.steps.get(&(server, code)) {
            Some(&at) => at,
            None => {
                let event = event(self);
                let outcome = self.outcome_of(server, &event, bounds);
                let at = u32::try_from(self.outcomes.len()).expect("fewer than four thousand million");
                self.outcomes.push(outcome);
                self.steps.insert((server, code), at);
                at
            }
        };
        &self.outcomes[at as usize]
    }

    fn outcome_of(&mut self, server: u32, event: &Event, bounds: &Bounds) -> Outcome {
        match self.servers[server as usize].server.after(event) {
            Err(rule) => Outcome::Broken(rule),
            Ok((next, _)) if next.raft.hard_state.term > bounds.term => Outcome::Beyond,
            Ok((next, _)) if next.raft.last().index > bounds.index => Outcome::Beyond,
            Ok((next, _)) if next.disk.waiting.len() > bounds.waiting => Outcome::Beyond,
            Ok((next, _)) if next.raft.durability.held.len() > bounds.held => Outcome::Beyond,
            Ok((next, sent)) => {
                let from = next.id();
                let sent = sent.into_iter().map(|(to, message)| self.number_of_message(from, to, message)).collect();
                Outcome::Next { server: self.number_of(next), sent }
            }
        }
    }

    /// The state's fingerprint: equal for states that are the same up to what `canonical` leaves out.
    pub(super) fn fingerprint(&self, state: &State) -> u64 {
        let servers = state.servers.map(|server| &self.servers[server as usize]);
        let messages = || state.in_flight().iter().map(|&message| &self.messages[message as usize]);
        let mut requests: Vec<(Term, ServerId, u64)> = Vec::with_capacity(32);
        let slots = servers.iter().flat_map(|known| known.slots.iter().map(|slot| slot.counter));
        for counter in slots.chain(messages().filter_map(|known| known.counter)) {
            if let Counter::Request { term, follower, number } = counter {
                requests.push((term, follower, number));
            }
        }
        requests.sort_unstable();
        requests.dedup();
        let meaning = |counter: Counter| match counter {
            Counter::Request { number: 0, .. } => 0,
            Counter::Request { term, follower, number } => {
                let first = requests.partition_point(|&other| other < (term, follower, 1));
                let at = requests.partition_point(|&other| other < (term, follower, number));
                1 + (at - first) as u64
            }
            Counter::Round { term, round } => {
                let awaited = servers.iter().filter_map(|known| known.awaited.as_ref());
                let awaited = awaited.filter(|(of, _)| *of == term).flat_map(|(_, rounds)| rounds);
                awaited.filter(|&&awaited| awaited <= round).count() as u64
            }
        };
        // Under each renaming a sum, so that the order of servers, slots and messages is nothing; the least of all.
        let mut sums = [0u64; RENAMINGS.len()];
        for known in servers {
            for (sum, hash) in sums.iter_mut().zip(known.hashes) {
                *sum = sum.wrapping_add(mix(hash, 1));
            }
            let id = known.server.id().0 as usize;
            for slot in &known.slots {
                let value = slot.place << 32 | meaning(slot.counter);
                for (sum, renaming) in sums.iter_mut().zip(&RENAMINGS) {
                    let place = u64::from(renaming[id]) << 2 | u64::from(renaming[slot.peer.0 as usize]);
                    *sum = sum.wrapping_add(mix(mix(place, value), 2));
                }
            }
        }
        for known in messages() {
            let value = mix(known.hash, known.counter.map_or(0, meaning));
            for (sum, renaming) in sums.iter_mut().zip(&RENAMINGS) {
                let way = u64::from(renaming[known.from.0 as usize]) << 2 | u64::from(renaming[known.to.0 as usize]);
                *sum = sum.wrapping_add(mix(mix(way, value), 3));
            }
        }
        for (sum, renaming) in sums.iter_mut().zip(&RENAMINGS) {
            for (term, &leader) in state.leaders.iter().enumerate() {
                let way = (term as u64) << 2 | u64::from(renaming[usize::from(leader)]);
                *sum = sum.wrapping_add(mix(way, 4));
            }
        }
        let least = sums.into_iter().min().unwrap_or_default();
        let spent = [state.duplicates, state.crashes, state.reads, state.reconnects, state.timeouts, state.hand_overs];
        let committed = state.committed().map(|(_, entry)| u64::from(entry.term) << 8 | u64::from(entry.by));
        spent.map(u64::from).into_iter().chain(committed).fold(least, mix).max(1)
    }
}

fn facts(server: &Server) -> Facts {
    let small = |value: u64| u8::try_from(value).expect("a small world");
    let last = server.raft.last().index;
    let mut facts = Facts {
        term: small(server.raft.hard_state.term),
        durable_term: small(server.disk.hard_state.term),
        leads: server.raft.is_leader(),
        is_bound: server.is_bound(),
        hands_over: server.raft.transferring_to().is_some(),
        waits_for_disk: !server.disk.waiting.is_empty(),
        commit: small(server.raft.commit),
        log: [0; HIGHEST_INDEX + 1],
        last: small(last),
        disk: [0; HIGHEST_INDEX + 1],
        disk_last: small(server.disk.log.len() as u64),
    };
    for index in 1..=last {
        facts.log[index as usize] = small(server.raft.term_at(index).expect("live"));
    }
    for entry in &server.disk.log {
        facts.disk[entry.index as usize] = small(entry.term);
    }
    facts
}
