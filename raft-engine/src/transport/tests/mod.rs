//! Two connections back to back, and what they need to know of their servers.

mod damage;
mod fragments;
mod golden;
mod handshake;
mod heartbeats;
mod lanes;
mod messages;
mod stream;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::handshake::{Holds, Local, Peer, Purpose, Registry};
use super::refusal::{Refusal, RefusalKind};
use super::{Connection, ConnectionEvent, ConnectionLimits, Frame, HeartbeatRow, PeerMessage, Violation};
use crate::types::{
    ClusterId, Configuration, Entry, EntryKind, GroupId, GroupSettings, Identity, Incarnation, Lineage, LogTime,
    Member, MemberRole, Message, Position, ServerId, SnapshotMeta, Time,
};

pub(super) const GROUP: GroupId = GroupId(7);
pub(super) const NOW: Time = Time(1_000_000_000);
pub(super) const LINEAGE: Lineage = Lineage([0xaa; 32]);

/// A server as its handshakes see it.
pub(super) struct Book {
    pub(super) local: Local,
    /// Pairs before the present one; pairs with a number below the first's are too old to tell.
    pub(super) history: Vec<Incarnation>,
    pub(super) remembered: BTreeMap<Identity, Incarnation>,
    pub(super) bound: BTreeMap<ServerId, Identity>,
}

impl Book {
    /// Server `id` in its `number`-th incarnation, with an identity and nonces made of its id.
    pub(super) fn new(id: u64, number: u64) -> Self {
        let cluster = ClusterId::new("demo").unwrap();
        let identity = Identity([id as u8 * 0x11; 16]);
        Self {
            local: Local::new(cluster, ServerId(id), identity, pair(id, number)),
            history: (1..number).map(|earlier| pair(id, earlier)).collect(),
            remembered: BTreeMap::new(),
            bound: BTreeMap::new(),
        }
    }

    pub(super) fn remembering(mut self, identity: Identity, pair: Incarnation) -> Self {
        self.remembered.insert(identity, pair);
        self
    }
}

/// The pair of server `id`'s `number`-th open.
pub(super) fn pair(id: u64, number: u64) -> Incarnation {
    Incarnation { number, nonce: 1000 * id + number }
}

impl Registry for Book {
    fn check_peer(&self, id: ServerId, identity: Identity) -> Result<(), Refusal> {
        match self.bound.get(&id) {
            Some(bound) if *bound != identity => Err(Refusal::new(
                RefusalKind::IdentityBound,
                format!("server {id} is bound to {bound}, not to {identity}: add it under a new id"),
            )),
            _ => Ok(()),
        }
    }

    fn remembered(&self, identity: Identity) -> Option<Incarnation> {
        self.remembered.get(&identity).copied()
    }

    fn history_holds(&self, pair: Incarnation) -> Holds {
        if pair == self.local.incarnation || self.history.contains(&pair) {
            Holds::Yes
        } else if self.history.first().is_some_and(|first| pair.number < first.number) {
            Holds::TooOld
        } else {
            Holds::No
        }
    }
}

/// A connection, its server, and what came out of it.
pub(super) struct Side {
    pub(super) book: Book,
    pub(super) connection: Connection,
    pub(super) events: Vec<ConnectionEvent>,
}

impl Side {
    pub(super) fn dial(book: Book, to: u64, purpose: Purpose, limits: ConnectionLimits) -> Self {
        let connection = Connection::dial(book.local.clone(), Some(ServerId(to)), purpose, limits, NOW);
        Self { book, connection, events: Vec::new() }
    }

    pub(super) fn accept(book: Book, limits: ConnectionLimits) -> Self {
        let connection = Connection::accept(book.local.clone(), limits, NOW);
        Self { book, connection, events: Vec::new() }
    }

    pub(super) fn receive(&mut self, bytes: Bytes) {
        self.connection.receive(bytes, NOW, &self.book, &mut self.events);
    }

    /// Takes all frames that may go, and says that they went.
    pub(super) fn take_frames(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.connection.next_frame(NOW) {
            self.connection.sent(frame.len(), NOW);
            frames.push(frame);
        }
        frames
    }

    pub(super) fn take_bytes(&mut self) -> Bytes {
        self.take_frames().iter().flat_map(Frame::to_bytes).collect()
    }

    pub(super) fn send(&mut self, message: &PeerMessage) {
        assert!(self.connection.send(GROUP, Some(LINEAGE), message), "not taken: {message:?}");
    }

    /// The messages that came, but for lineages; heartbeats and their answers each as its own.
    pub(super) fn messages(&self) -> Vec<PeerMessage> {
        let of_group = |(_, message)| PeerMessage::Raft(message);
        let messages = |event: &ConnectionEvent| match event {
            ConnectionEvent::Message { message: PeerMessage::Heartbeats(rows), .. } => {
                rows.iter().map(|row| of_group(row.message())).collect()
            }
            ConnectionEvent::Message { message: PeerMessage::HeartbeatReplies(rows), .. } => {
                rows.iter().map(|row| of_group(row.message())).collect()
            }
            ConnectionEvent::Message { message: PeerMessage::Lineage(_), .. } => Vec::new(),
            ConnectionEvent::Message { message, .. } => vec![message.clone()],
            _ => Vec::new(),
        };
        self.events.iter().flat_map(messages).collect()
    }

    pub(super) fn violation(&self) -> Option<&Violation> {
        self.events.iter().find_map(|event| match event {
            ConnectionEvent::Violation(violation) => Some(violation),
            _ => None,
        })
    }

    pub(super) fn established(&self) -> Option<&Peer> {
        self.events.iter().find_map(|event| match event {
            ConnectionEvent::Established(peer) => Some(peer),
            _ => None,
        })
    }
}

/// Carries bytes to and fro until nobody has anything to say.
pub(super) fn exchange(left: &mut Side, right: &mut Side) {
    loop {
        let (there, back) = (left.take_bytes(), right.take_bytes());
        if there.is_empty() && back.is_empty() {
            return;
        }
        right.receive(there);
        left.receive(back);
    }
}

pub(super) fn limits() -> ConnectionLimits {
    ConnectionLimits {
        max_entry_bytes: 4 << 20,
        connection_bytes: 8 << 20,
        handshake_timeout: Duration::from_secs(2),
        stall_timeout: Duration::from_secs(5),
    }
}

/// Server 2 and the server 1 that it dialled, past their handshake, with nothing heard yet.
pub(super) fn open(purpose: Purpose, limits: ConnectionLimits) -> (Side, Side) {
    let mut dialler = Side::dial(Book::new(2, 1), 1, purpose, limits.clone());
    let mut acceptor = Side::accept(Book::new(1, 1), limits);
    exchange(&mut dialler, &mut acceptor);
    assert!(dialler.established().is_some() && acceptor.established().is_some());
    dialler.events.clear();
    acceptor.events.clear();
    (dialler, acceptor)
}

pub(super) fn entry(index: u64, term: u64, kind: EntryKind, payload: impl Into<Bytes>) -> Entry {
    Entry::new(Position { term, index }, LogTime(1000 * index), kind, payload.into())
}

pub(super) fn append(previous_index: u64, entries: Vec<Entry>) -> PeerMessage {
    let previous = Position { term: 3, index: previous_index };
    PeerMessage::Raft(Message::Append { term: 4, number: 9, previous, commit: 11, entries })
}

pub(super) fn heartbeat(round: u64) -> PeerMessage {
    PeerMessage::Raft(Message::Heartbeat { term: 4, round, commit: 15 })
}

/// What a heartbeat of [`GROUP`] and others are on the wire.
pub(super) fn heartbeats(rounds: &[(GroupId, u64)]) -> PeerMessage {
    let row = |&(group, round)| HeartbeatRow { group, term: 4, round, commit: 15 };
    PeerMessage::Heartbeats(rounds.iter().map(row).collect())
}

pub(super) fn snapshot_meta() -> SnapshotMeta {
    let member = |id, role, byte, address: &str, context: &[u8]| Member {
        id: ServerId(id),
        role,
        priority: byte,
        identity: Identity([byte; 16]),
        address: address.to_owned(),
        context: context.to_vec(),
    };
    SnapshotMeta {
        position: Position { term: 5, index: 90 },
        log_time: LogTime(77),
        configuration: Box::new(Configuration {
            members: vec![
                member(1, MemberRole::Voter, 0x11, "a:1", &[0xc1]),
                member(2, MemberRole::Learner, 0x22, "b:2", &[]),
            ],
            outgoing_voters: vec![ServerId(1)],
            highest_id: ServerId(2),
            change: None,
            settings: GroupSettings::default(),
        }),
        configuration_index: 4,
        file_bytes: 4096,
        file_crc: 0x0102_0304,
    }
}
