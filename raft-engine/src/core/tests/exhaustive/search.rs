//! Breadth first through every state that a world can be in, so that what breaks a rule is found by a shortest way.

use std::fmt::Write as _;

use super::super::*;
use super::invariants;
use super::server::{Event, Server};
use super::state::{Bounds, Committed, EventCode, HIGHEST_INDEX, HIGHEST_TERM, Known, MOST_IN_FLIGHT, Outcome, State};

/// A person who waits is told of so many new states at a time.
const TOLD_EVERY: usize = 250_000;

/// What happens, to whom. Servers are counted from 0, messages by their place among those in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    Deliver { at: u8, stays: bool },
    DiskCompletes(u8),
    ElectionTimer(u8),
    TimePasses(u8),
    HeartbeatTimer(u8),
    Propose(u8),
    Read(u8),
    HandOver(u8, u8),
    Reconnect(u8, u8),
    Crash(u8),
}

/// An action, and which of the messages that it sends will arrive, as bits.
#[derive(Clone, Copy, Debug)]
struct Choice {
    action: Action,
    arriving: u8,
}

/// A rule that a choice breaks, in the state with this number.
struct Broken {
    number: u32,
    choice: Choice,
    rule: String,
}

/// Where a choice leads.
struct Step {
    /// `None` if more messages would be in flight than may be.
    next: Option<State>,
    /// Whom it happened to.
    stepped: usize,
    /// How many messages that server sent.
    sent: usize,
}

/// What was found of a world.
#[derive(Debug)]
pub(super) struct Findings {
    /// States that differ.
    pub(super) states: usize,
    /// Steps to the farthest of them.
    pub(super) depth: usize,
    /// Whether nothing within the bounds is left.
    pub(super) is_complete: bool,
    /// The rule that is broken, and a shortest way there.
    pub(super) broken: Option<String>,
}

/// A search through one world.
pub(super) struct Search {
    bounds: Bounds,
    known: Known,
    seen: Fingerprints,
    /// For each state in the order of discovery: the state before it, and what was chosen there.
    ways: Vec<(u32, Choice)>,
    origin: State,
}

impl Search {
    pub(super) fn new(bounds: Bounds, servers: [Server; 3]) -> Self {
        assert!(bounds.in_flight <= MOST_IN_FLIGHT && bounds.index as usize <= HIGHEST_INDEX);
        assert!(bounds.term as usize <= HIGHEST_TERM);
        let mut known = Known::new();
        let origin = State {
            servers: servers.map(|server| known.number_of(server)),
            flights: [0; MOST_IN_FLIGHT],
            in_flight: 0,
            duplicates: 0,
            crashes: 0,
            reads: 0,
            reconnects: 0,
            timeouts: 0,
            hand_overs: 0,
            leaders: [0; HIGHEST_TERM + 1],
            committed: [Committed::default(); HIGHEST_INDEX],
            committed_through: 1,
        };
        Self { bounds, known, seen: Fingerprints::new(), ways: Vec::new(), origin }
    }

    /// Visits states until none is left, a rule is broken, or there are `most` of them.
    pub(super) fn run(mut self, name: &str, most: usize) -> Findings {
        let mut said = 0;
        let nothing = Choice { action: Action::TimePasses(0), arriving: 0 };
        self.seen.insert(self.known.fingerprint(&self.origin));
        self.ways.push((0, nothing));
        let (mut layer, mut next_layer) = (vec![(self.origin, 0)], Vec::new());
        let mut depth = 0;
        let mut actions = Vec::new();
        loop {
            for (state, number) in layer.drain(..) {
                self.list_actions(&state, &mut actions);
                for &action in &actions {
                    if let Err(broken) = self.take(&state, number, action, &mut next_layer) {
                        return self.findings(depth + 1, false, Some(broken));
                    }
                }
                if self.ways.len() >= said + TOLD_EVERY {
                    said = self.ways.len();
                    self.say(name, depth);
                }
                if self.ways.len() >= most {
                    self.say(name, depth);
                    return self.findings(depth, false, None);
                }
            }
            if next_layer.is_empty() {
                self.say(name, depth);
                return self.findings(depth, true, None);
            }
            depth += 1;
            std::mem::swap(&mut layer, &mut next_layer);
        }
    }

    fn say(&self, name: &str, depth: usize) {
        println!(
            "{name}: {} states, depth {depth}, {} conditions of a server, {} messages",
            self.ways.len(),
            self.known.servers.len(),
            self.known.messages.len()
        );
    }

    fn findings(mut self, depth: usize, is_complete: bool, broken: Option<Broken>) -> Findings {
        let broken = broken.map(|Broken { number, choice, rule }| {
            let way = self.describe_way(number, choice);
            format!("{rule}\n{way}")
        });
        Findings { states: self.ways.len(), depth, is_complete, broken }
    }

    fn list_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let bounds = &self.bounds;
        actions.clear();
        for at in 0..state.in_flight().len() {
            actions.push(Action::Deliver { at: at as u8, stays: false });
            if state.duplicates < bounds.duplicates {
                actions.push(Action::Deliver { at: at as u8, stays: true });
            }
        }
        for at in 0..3 {
            let facts = &self.known.servers[state.servers[usize::from(at)] as usize].facts;
            if facts.waits_for_disk {
                actions.push(Action::DiskCompletes(at));
            }
            if !facts.leads && u64::from(facts.term) < bounds.term {
                actions.push(Action::ElectionTimer(at));
            }
            if facts.is_bound || facts.leads && state.timeouts < bounds.timeouts {
                actions.push(Action::TimePasses(at));
            }
            if facts.leads {
                if bounds.heartbeats {
                    actions.push(Action::HeartbeatTimer(at));
                }
                if bounds.proposes && !facts.hands_over && u64::from(facts.last) < bounds.index {
                    actions.push(Action::Propose(at));
                }
                if state.reads < bounds.reads {
                    actions.push(Action::Read(at));
                }
            }
            if facts.leads && !facts.hands_over && state.hand_overs < bounds.hand_overs {
                actions.extend((0..3).filter(|&to| to != at).map(|to| Action::HandOver(at, to)));
            }
            if state.reconnects < bounds.reconnects {
                actions.extend((0..3).filter(|&peer| peer != at).map(|peer| Action::Reconnect(at, peer)));
            }
            if state.crashes < bounds.crashes {
                actions.push(Action::Crash(at));
            }
        }
    }

    /// Visits every state that an action can lead to: one for each choice of the messages that will arrive.
    fn take(
        &mut self,
        state: &State,
        number: u32,
        action: Action,
        found: &mut Vec<(State, u32)>,
    ) -> Result<(), Broken> {
        let mut choice = Choice { action, arriving: 0 };
        loop {
            let Step { next, stepped, sent } = match self.follow(state, choice) {
                Ok(Some(step)) => step,
                Ok(None) => return Ok(()),
                Err(rule) => return Err(Broken { number, choice, rule }),
            };
            if let Some(next) = next
                && self.seen.insert(self.known.fingerprint(&next))
            {
                if let Err(rule) = invariants::check(&self.known, &next, stepped) {
                    return Err(Broken { number, choice, rule });
                }
                found.push((next, u32::try_from(self.ways.len()).expect("fewer than four thousand million")));
                self.ways.push((number, choice));
            }
            if usize::from(choice.arriving) + 1 == 1 << sent {
                return Ok(());
            }
            choice.arriving += 1;
        }
    }

    /// Where a choice leads; nowhere, if the action leads beyond the bounds.
    fn follow(&mut self, state: &State, choice: Choice) -> Result<Option<Step>, String> {
        let mut next = *state;
        let (stepped, code, event) = self.prepare(&mut next, choice.action);
        let (server, sent) = match self.known.step(next.servers[stepped], code, event, &self.bounds) {
            Outcome::Beyond => return Ok(None),
            Outcome::Broken(rule) => return Err(rule.clone()),
            Outcome::Next { server, sent } => (*server, sent),
        };
        assert!(sent.len() <= 8, "one byte says which arrive");
        let mut step = Step { next: None, stepped, sent: sent.len() };
        let arriving = sent.iter().enumerate().filter(|(at, _)| choice.arriving >> at & 1 == 1);
        let arriving: Vec<u32> = arriving.map(|(_, &message)| message).collect();
        next.servers[stepped] = server;
        self.drop_dead(&mut next);
        for message in arriving {
            if usize::from(next.in_flight) == self.bounds.in_flight || next.in_flight().contains(&message) {
                return Ok(Some(step));
            }
            next.put_flight(message);
        }
        self.drop_dead(&mut next);
        invariants::remember(&self.known, &mut next, stepped)?;
        step.next = Some(next);
        Ok(Some(step))
    }

    /// Takes out of flight what can change nothing any more.
    fn drop_dead(&self, state: &mut State) {
        for at in (0..usize::from(state.in_flight)).rev() {
            let message = &self.known.messages[state.flights[at] as usize];
            let receiver = state.servers[message.to.0 as usize - 1] as usize;
            let durable = u64::from(self.known.servers[receiver].facts.durable_term);
            if message.dead_from.is_some_and(|term| durable >= term) {
                state.take_flight(at);
            }
        }
    }

    /// Spends what an action costs; says which server it happens to, and what.
    fn prepare(&self, state: &mut State, action: Action) -> (usize, EventCode, impl FnOnce(&Known) -> Event + use<>) {
        /// Codes below are for events without a message.
        const MESSAGES: EventCode = 1 << 10;
        let committed = state.committed_through;
        let mut delivered = 0;
        let (stepped, code) = match action {
            Action::Deliver { at, stays } => {
                delivered = state.flights[usize::from(at)];
                if stays {
                    state.duplicates += 1;
                } else {
                    state.take_flight(usize::from(at));
                }
                (self.known.messages[delivered as usize].to.0 as u8 - 1, MESSAGES + delivered)
            }
            Action::DiskCompletes(server) => (server, 0),
            Action::ElectionTimer(server) => (server, 1),
            Action::TimePasses(server) => {
                let leads = self.known.servers[state.servers[usize::from(server)] as usize].facts.leads;
                state.timeouts += u8::from(leads);
                (server, 2)
            }
            Action::HeartbeatTimer(server) => (server, 3),
            Action::Propose(server) => (server, 4),
            Action::Crash(server) => {
                state.crashes += 1;
                (server, 5)
            }
            Action::Read(server) => {
                state.reads += 1;
                (server, 100 + u32::from(committed))
            }
            Action::HandOver(server, to) => {
                state.hand_overs += 1;
                (server, 20 + u32::from(to))
            }
            Action::Reconnect(server, peer) => {
                state.reconnects += 1;
                (server, 10 + u32::from(peer))
            }
        };
        let event = move |known: &Known| match action {
            Action::Deliver { .. } => {
                let message = &known.messages[delivered as usize];
                Event::Deliver { from: message.from, message: message.message.clone() }
            }
            Action::DiskCompletes(_) => Event::DiskCompletes,
            Action::ElectionTimer(_) => Event::ElectionTimer,
            Action::TimePasses(_) => Event::TimePasses,
            Action::HeartbeatTimer(_) => Event::HeartbeatTimer,
            Action::Propose(_) => Event::Propose,
            Action::Crash(_) => Event::Crash,
            Action::Read(_) => Event::Read { committed: u64::from(committed) },
            Action::HandOver(_, to) => Event::HandOver { to: ServerId(u64::from(to) + 1) },
            Action::Reconnect(_, peer) => Event::Reconnect { peer: ServerId(u64::from(peer) + 1) },
        };
        (usize::from(stepped), code, event)
    }

    // ---- telling how it came to it ----

    /// Every step to a state and one beyond it, in words.
    fn describe_way(&mut self, number: u32, last: Choice) -> String {
        let mut choices = vec![last];
        let mut at = number;
        while at != 0 {
            let (before, choice) = self.ways[at as usize];
            choices.push(choice);
            at = before;
        }
        let mut state = self.origin;
        let mut text = String::new();
        for server in state.servers {
            let _ = writeln!(text, "      {}", self.describe_server(server));
        }
        for (step, choice) in choices.into_iter().rev().enumerate() {
            let (action, sent) = self.describe_step(&state, choice);
            let _ = writeln!(text, "{:4}. {action}", step + 1);
            for (at, sent) in sent.iter().enumerate() {
                let fate = if choice.arriving >> at & 1 == 1 { "" } else { " (lost)" };
                let _ = writeln!(text, "        says to {sent}{fate}");
            }
            let Ok(Some(Step { next: Some(next), stepped, .. })) = self.follow(&state, choice) else { break };
            state = next;
            let _ = writeln!(text, "      {}", self.describe_server(state.servers[stepped]));
        }
        text
    }

    fn describe_step(&mut self, state: &State, choice: Choice) -> (String, Vec<String>) {
        let mut next = *state;
        let (stepped, code, event) = self.prepare(&mut next, choice.action);
        let server = stepped + 1;
        let action = match choice.action {
            Action::Deliver { at, stays } => {
                let message = &self.known.messages[state.flights[usize::from(at)] as usize];
                let again = if stays { ", and will once more" } else { "" };
                format!("to server {server} comes from {}{again}: {:?}", message.from, message.message)
            }
            Action::DiskCompletes(_) => {
                let waiting = &self.known.servers[state.servers[stepped] as usize].server.disk.waiting;
                format!("the disk of server {server} completes {:?}", waiting.front().map(|(_, record)| record))
            }
            Action::ElectionTimer(_) => format!("the election timer of server {server} runs out"),
            Action::TimePasses(_) => format!("an election timeout passes at server {server}"),
            Action::HeartbeatTimer(_) => format!("a heartbeat is due at server {server}"),
            Action::Propose(_) => format!("the host of server {server} proposes"),
            Action::Read(_) => {
                let committed = state.committed_through;
                format!("the host of server {server} asks for a read; entries through {committed} are committed")
            }
            Action::HandOver(_, to) => format!("the host of server {server} wants server {} to lead", to + 1),
            Action::Reconnect(_, peer) => format!("server {server} has a new connection to {}", peer + 1),
            Action::Crash(_) => format!("server {server} dies and starts again"),
        };
        let sent = match self.known.step(next.servers[stepped], code, event, &self.bounds) {
            Outcome::Next { sent, .. } => sent.clone(),
            _ => Box::default(),
        };
        let sent = sent.iter().map(|&message| &self.known.messages[message as usize]);
        (action, sent.map(|message| format!("{}: {:?}", message.to, message.message)).collect())
    }

    fn describe_server(&self, number: u32) -> String {
        let known = &self.known.servers[number as usize];
        let (raft, facts) = (&known.server.raft, &known.facts);
        format!(
            "server {}: {:?} of term {}, voted for {:?}, log {:?}, committed through {}, disk: {:?}, log {:?}",
            raft.id,
            raft.role(),
            facts.term,
            raft.hard_state.vote.map(|vote| vote.0),
            &facts.log[1..=usize::from(facts.last)],
            facts.commit,
            known.server.disk.hard_state,
            &facts.disk[1..=usize::from(facts.disk_last)],
        )
    }
}

/// A set of fingerprints, eight bytes each.
struct Fingerprints {
    /// 0 is nothing; the length is a power of two.
    places: Vec<u64>,
    count: usize,
}

impl Fingerprints {
    fn new() -> Self {
        Self { places: vec![0; 1 << 12], count: 0 }
    }

    /// Says whether it is new.
    fn insert(&mut self, fingerprint: u64) -> bool {
        let mut at = fingerprint as usize & (self.places.len() - 1);
        while self.places[at] != 0 {
            if self.places[at] == fingerprint {
                return false;
            }
            at = (at + 1) & (self.places.len() - 1);
        }
        self.places[at] = fingerprint;
        self.count += 1;
        if self.count * 3 > self.places.len() * 2 {
            self.grow();
        }
        true
    }

    fn grow(&mut self) {
        let larger = vec![0; self.places.len() * 2];
        let smaller = std::mem::replace(&mut self.places, larger);
        self.count = 0;
        for fingerprint in smaller.into_iter().filter(|&fingerprint| fingerprint != 0) {
            self.insert(fingerprint);
        }
    }
}
