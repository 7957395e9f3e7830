//! Entries of the log and positions in it (§5.3).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{LogTime, ServerId, SessionId, SessionKey};

/// An election term; 0 before the first election (§5.1).
pub type Term = u64;

/// A place in the log, from [`FIRST_INDEX`] up; 0 means "before the log" (§5.3).
pub type Index = u64;

/// The index of the entry that forms the group. It is committed from birth, in term 0.
pub const FIRST_INDEX: Index = 1;

/// A place in a log and the term of the entry there.
///
/// The derived order, term first, is the order of "up-to-date" (§5.4.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Position {
    /// The term of the entry at `index`.
    pub term: Term,
    /// The place.
    pub index: Index,
}

/// What a server must never forget, as one atomic record (§5.1, Figure 2 "persistent state").
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct HardState {
    /// The latest term that this server has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<ServerId>,
}

/// What an entry's payload is for. The numbers are on disk and on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[repr(u8)]
pub enum EntryKind {
    /// Entry 1: the bootstrap arguments with every member's identity.
    Formation = 1,
    /// Opens a leader's term, so that entries of earlier terms commit (§5.4.2, §8). Empty.
    NoOp = 2,
    /// A [`super::Configuration`], in force from the moment it is appended (§6).
    Configuration = 3,
    /// Bytes of the host, for its state machine.
    Command = 4,
    /// Opens a session, which is named by the entry's index (dissertation §6.3). Empty.
    SessionOpen = 5,
    /// A [`super::SessionKey`], and behind it bytes of the host: applied unless the session's table knows better.
    SessionCommand = 6,
    /// A [`super::SessionId`]: the session is used, so that it does not expire.
    SessionRenewal = 7,
    /// A [`super::SessionId`]: the session ends.
    SessionClose = 8,
    /// A [`super::QuorumRecovery`]: the group lost its quorum, and goes on from here with one server alone. Its
    /// configuration is in force from the moment it is appended, as any other.
    Recovery = 9,
    /// Every replica says what its state comes down to here, for its leader to compare. Empty.
    DigestRequest = 10,
    /// A [`super::DigestCheck`] in which replicas differ. Whose state is not the majority's stops here.
    DigestVerdict = 11,
}

impl EntryKind {
    /// The kind with this number; `None` if no version known here has it.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Formation),
            2 => Some(Self::NoOp),
            3 => Some(Self::Configuration),
            4 => Some(Self::Command),
            5 => Some(Self::SessionOpen),
            6 => Some(Self::SessionCommand),
            7 => Some(Self::SessionRenewal),
            8 => Some(Self::SessionClose),
            9 => Some(Self::Recovery),
            10 => Some(Self::DigestRequest),
            11 => Some(Self::DigestVerdict),
            _ => None,
        }
    }

    /// Whether hosts propose such entries: the engine makes the others by itself.
    pub fn is_proposed(self) -> bool {
        !matches!(
            self,
            Self::Formation
                | Self::NoOp
                | Self::Configuration
                | Self::Recovery
                | Self::DigestRequest
                | Self::DigestVerdict
        )
    }

    /// Whether the state is looked at just where such an entry is: nothing behind it is handed out with it.
    pub fn ends_batch(self) -> bool {
        matches!(self, Self::DigestRequest | Self::DigestVerdict)
    }

    /// Whether an entry of this kind can have this payload, as far as the kind alone tells.
    pub fn admits(self, payload: &[u8]) -> bool {
        match self {
            Self::Formation | Self::Configuration | Self::Command | Self::Recovery | Self::DigestVerdict => true,
            Self::NoOp | Self::SessionOpen | Self::DigestRequest => payload.is_empty(),
            Self::SessionCommand => SessionKey::read(payload).is_some(),
            Self::SessionRenewal | Self::SessionClose => SessionId::read(payload).is_some(),
        }
    }
}

/// An entry that is asked for: what its leader adds is its place and its time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposed {
    /// What the payload is for; one that [`EntryKind::is_proposed`].
    pub kind: EntryKind,
    /// The payload.
    pub payload: Bytes,
}

impl Proposed {
    /// A command within a session.
    pub fn in_session(key: &SessionKey, command: &[u8]) -> Self {
        Self { kind: EntryKind::SessionCommand, payload: key.payload(command) }
    }

    /// The host's bytes in it.
    pub fn command_bytes(&self) -> usize {
        match self.kind {
            EntryKind::SessionCommand => self.payload.len() - SessionKey::BYTES.min(self.payload.len()),
            _ => self.payload.len(),
        }
    }

    /// Whether a host can have proposed it.
    pub fn is_well_formed(&self) -> bool {
        self.kind.is_proposed() && self.kind.admits(&self.payload)
    }
}

impl From<Bytes> for Proposed {
    fn from(command: Bytes) -> Self {
        Self { kind: EntryKind::Command, payload: command }
    }
}

/// One entry of a group's log. Cheap to clone: the payload is shared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its place in the log.
    pub index: Index,
    /// The term of the leader that made it.
    pub term: Term,
    /// The group's time when its leader made it; never less than the entry before it.
    pub log_time: LogTime,
    /// What the payload is for.
    pub kind: EntryKind,
    /// CRC32C of the payload, computed once by the leader; every receiver verifies and stores it.
    pub payload_crc: u32,
    /// The payload. May be a slice of a larger buffer that it shares with its neighbours.
    pub payload: Bytes,
}

impl Entry {
    /// What an entry costs a budget beyond its payload, in bytes: its row in a frame or a batch.
    pub const OVERHEAD_BYTES: usize = 48;

    /// Makes an entry and computes its payload's CRC.
    pub fn new(position: Position, log_time: LogTime, kind: EntryKind, payload: Bytes) -> Self {
        let payload_crc = crc32c::crc32c(&payload);
        Self { index: position.index, term: position.term, log_time, kind, payload_crc, payload }
    }

    /// Its place and term.
    pub fn position(&self) -> Position {
        Position { term: self.term, index: self.index }
    }

    /// What it counts against budgets in bytes.
    pub fn cost_bytes(&self) -> usize {
        self.payload.len() + Self::OVERHEAD_BYTES
    }

    /// Whether the payload is the one that the leader made.
    pub fn is_intact(&self) -> bool {
        crc32c::crc32c(&self.payload) == self.payload_crc
    }
}
