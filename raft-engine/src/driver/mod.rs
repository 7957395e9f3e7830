//! One whole server as an event-in, effect-out machine.

#![allow(missing_docs)]

mod event;
mod settings;

pub use event::{
    ConnectionId, Consistency, Effect, Event, MemberArgument, NotApplied, Notice, Outcome, Proposal, Role, StartHow,
    Ticket, Unknown,
};
pub use settings::Settings;

use crate::types::{ClusterId, GroupId, Identity, Incarnation, Index, ReadFiles, ServerId, Term, Time};

/// Whose server it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Me {
    pub cluster: ClusterId,
    pub id: ServerId,
}

/// Why a data directory was not opened. Nothing in it was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0}")]
    Settings(String),
    #[error("{0}")]
    Storage(String),
}

/// What a host may ask of a group at any time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupStatus {
    pub role: Role,
    pub term: Term,
    pub leader: Option<ServerId>,
    pub commit: Index,
    /// The last entry handed to the state machine.
    pub delivered: Index,
    /// The last entry that the state machine has applied.
    pub applied: Index,
    pub last: Index,
    /// The last entry on this server's own disk.
    pub durable: Index,
    pub snapshot: Index,
    pub stopped: Option<String>,
    pub configuration: Option<crate::types::Configuration>,
}

/// What a host may ask of a server at any time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerStatus {
    pub id: ServerId,
    pub identity: Identity,
    pub incarnation: Incarnation,
    /// Recovery is durable: the server may speak.
    pub ready: bool,
    pub stopped: Option<String>,
    pub log_writes: u64,
    pub log_bytes: u64,
    pub connected_peers: Vec<ServerId>,
}

/// One server.
pub struct Driver {
    effects: Vec<Effect>,
}

impl Driver {
    /// Opens a data directory (an empty one is made into a new server's) and queues the disk work that makes what
    /// recovery kept durable. `seed` is 32 random bytes; the same seed and events give the same effects.
    pub fn open(
        _settings: Settings,
        _me: Me,
        _files: &mut dyn ReadFiles,
        _seed: [u8; 32],
        _now: Time,
    ) -> Result<Self, OpenError> {
        Ok(Self { effects: Vec::new() })
    }

    /// Takes one event. Effects gather until [`Driver::flush`].
    pub fn handle(&mut self, _now: Time, _event: Event) {}

    /// Ends a turn: does what has come due, sends what gathered, and cuts a log write if one may go.
    pub fn flush(&mut self, _now: Time) {}

    /// Takes the effects so far, to be carried out in order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// When [`Driver::flush`] must be called at the latest, even if nothing happens.
    pub fn deadline(&self) -> Time {
        Time::NEVER
    }

    /// The state of a group, if it is started.
    pub fn group_status(&self, _group: GroupId) -> Option<GroupStatus> {
        None
    }

    /// The state of the server.
    pub fn server_status(&self) -> ServerStatus {
        ServerStatus {
            id: ServerId(0),
            identity: Identity([0; 16]),
            incarnation: Incarnation { number: 0, nonce: 0 },
            ready: false,
            stopped: None,
            log_writes: 0,
            log_bytes: 0,
            connected_peers: Vec::new(),
        }
    }
}
