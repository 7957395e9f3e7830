//! Clients with sessions: they try a command again at any server until they know what became of it, several at once, and
//! give up nothing but a session that is gone.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::super::history::Request;
use super::super::invariants::Violation;
use super::super::trace::Kind;
use super::clients::{Drawn, Said};
use super::{Checked, Phase, What, World, group_id};
use crate::driver::{Event, Fate, Proposal, Ticket};
use crate::types::{Entry, EntryKind, Index, Proposed, Session, SessionId, SessionKey};

/// The most commands of a client that wait for their answers.
const MOST_OUTSTANDING: usize = 3;

/// A command without an answer, as it was first tried.
#[derive(Clone, Copy, Debug)]
struct Outstanding {
    key: SessionKey,
    /// With which request, and what it says; nothing before the first try is made.
    first: Option<(u64, Said)>,
}

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    group: usize,
    session: Option<Session>,
    /// Commands without an answer, by sequence, as they were first tried.
    outstanding: BTreeMap<u64, Outstanding>,
}

impl Client {
    /// A client of a group, without a session yet.
    pub(super) fn new(group: usize) -> Self {
        Self { group, session: None, outstanding: BTreeMap::new() }
    }

    /// The client has heard of a command.
    fn answered(&mut self, key: SessionKey) {
        let Some(session) = self.session.as_mut().filter(|session| session.id == key.session) else { return };
        self.outstanding.remove(&key.sequence);
        let lowest = self.outstanding.first_key_value().map_or(session.next_sequence, |(&sequence, _)| sequence);
        session.answered(lowest - 1);
    }

    /// The client has heard that its session is gone.
    fn gone(&mut self, id: SessionId) {
        if self.session.take_if(|session| session.id == id).is_some() {
            self.outstanding.clear();
        }
    }
}

impl World {
    /// A client with a session, or without one yet, asks some server for something, and the next one is scheduled.
    pub(super) fn session_request(&mut self) -> Checked {
        let mean = u64::try_from(self.profile.request_interval.as_micros()).unwrap_or(u64::MAX);
        let micros = self.rng.u64(..mean * 4);
        if self.phase == Phase::Faults {
            self.queue.after(Duration::from_micros(micros), What::SessionRequest);
        }
        let at = self.rng.usize(..self.clients.len());
        let group = self.clients[at].group;
        let likely = self.leaders[group].filter(|_| self.rng.u8(..6) != 0);
        let server = likely.unwrap_or_else(|| self.rng.usize(..self.profile.servers));
        if !self.is_up(server, group) {
            return Ok(());
        }
        let draw = self.rng.u8(..32);
        let client = &mut self.clients[at];
        let Some(session) = &mut client.session else {
            let open = Proposed { kind: EntryKind::SessionOpen, payload: Bytes::new() };
            return self.ask_in_session(server, at, open, Request::Session);
        };
        let id = session.id;
        match draw {
            0 => {
                let close = Proposed { kind: EntryKind::SessionClose, payload: id.payload() };
                client.gone(id);
                return self.ask_in_session(server, at, close, Request::Session);
            }
            1..3 => {
                let renewal = Proposed { kind: EntryKind::SessionRenewal, payload: id.payload() };
                return self.ask_in_session(server, at, renewal, Request::Session);
            }
            _ => {}
        }
        let is_full = client.outstanding.len() >= MOST_OUTSTANDING;
        let mut first = None;
        let key = if is_full || (draw < 24 && !client.outstanding.is_empty()) {
            let which = self.rng.usize(..client.outstanding.len());
            let Outstanding { key, first: tried } = *client.outstanding.values().nth(which).expect("one of them");
            first = tried;
            self.coverage.session_retries += 1;
            // As it was, or with what the client knows by now.
            let lowest_outstanding =
                if self.rng.bool() { key.lowest_outstanding } else { session.lowest_outstanding.min(key.sequence) };
            SessionKey { lowest_outstanding, ..key }
        } else {
            let key = session.next_key();
            client.outstanding.insert(key.sequence, Outstanding { key, first: None });
            key
        };
        let said = first.map(|(_, said)| said);
        let Drawn { proposed, payload_crc, command, said } = self.command(group, Some((&key, said)));
        let request = Request::Propose { payload_crc };
        let tag = self.begin_in_session(server, at, request);
        match first {
            Some((first, _)) => self.operations[group].asks_again(tag, first),
            None => {
                self.operations[group].asks(tag, command, true);
                let outstanding = self.clients[at].outstanding.get_mut(&key.sequence);
                outstanding.expect("it was just put there").first = Some((tag, said));
            }
        }
        self.propose_in_session(server, group, tag, proposed)
    }

    fn ask_in_session(&mut self, server: usize, client: usize, proposed: Proposed, request: Request) -> Checked {
        let tag = self.begin_in_session(server, client, request);
        self.propose_in_session(server, self.clients[client].group, tag, proposed)
    }

    fn begin_in_session(&mut self, server: usize, client: usize, request: Request) -> u64 {
        let epoch = self.servers[server].epoch;
        let tag = self.history.begin(self.clients[client].group, server, epoch, request);
        self.asked.insert(tag, client);
        tag
    }

    fn propose_in_session(&mut self, server: usize, group: usize, tag: u64, proposed: Proposed) -> Checked {
        self.note(server, Kind::Propose, [1, tag, group as u64 + 1, proposed.payload.len() as u64]);
        let proposals = vec![Proposal { ticket: Ticket { origin: 3, tag }, proposed }];
        self.feed(server, Event::Propose { group: group_id(group), proposals })
    }

    /// A client of a session hears what became of its request.
    pub(super) fn answer_session(
        &mut self,
        server: usize,
        group: usize,
        tag: u64,
        entry: &Entry,
        fate: &Fate,
    ) -> Checked {
        let Some(client) = self.asked.remove(&tag) else { return Ok(()) };
        let client = &mut self.clients[client];
        let coverage = &mut self.coverage;
        let told: Option<(Index, Option<&[u8]>)> = match fate {
            Fate::Applied(_) => Some((entry.index, None)),
            Fate::Done(_) => None,
            Fate::Repeated(reply) => {
                coverage.session_repeats += 1;
                Some((reply.position.index, Some(&reply.bytes)))
            }
            Fate::Forgotten => {
                coverage.session_forgotten += 1;
                None
            }
            Fate::Expired | Fate::Unsettled => {
                coverage.session_gone += 1;
                None
            }
        };
        match entry.kind {
            EntryKind::SessionOpen if matches!(fate, Fate::Done(_)) => {
                coverage.sessions_opened += 1;
                let id = SessionId::opened_by(entry.position());
                client.session.get_or_insert_with(|| Session::new(id));
                if !self.sessions_given.insert((group, id)) {
                    let what = format!("server {server} gives session {id:?}, which somebody was given before");
                    return Err(Violation::new("the id of a session is given once", what));
                }
            }
            EntryKind::SessionCommand => {
                let Some(key) = SessionKey::read(&entry.payload) else { return Ok(()) };
                match fate {
                    Fate::Expired => client.gone(key.session),
                    _ => client.answered(key),
                }
                if let Some((index, reply)) = told {
                    self.invariants[group].answered(server, key, index, reply)?;
                }
            }
            EntryKind::SessionRenewal => {
                if let (Fate::Expired, Some(id)) = (fate, SessionId::read(&entry.payload)) {
                    client.gone(id);
                }
            }
            _ => {}
        }
        Ok(())
    }
}
