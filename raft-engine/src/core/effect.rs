//! What a core wants done.

use crate::types::{Entry, HardState, Index, Message, Position, ServerId, SnapshotMeta};

use super::durability::Mark;
use super::membership::ChangeEnd;

/// One thing to be done, in the order in which it was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Append this record to the log; say [`super::Raft::persisted`] once it and everything before it is durable.
    Persist {
        /// Names the record.
        mark: Mark,
        /// What to append.
        record: Persist,
    },
    /// Send this now: all that it stands on is durable.
    Send {
        /// To whom.
        to: ServerId,
        /// What.
        message: Message,
    },
    /// A peer needs entries that are no longer in memory: read them from the log, and say [`super::Raft::fetched`] (or
    /// `fetch_failed`).
    Fetch {
        /// Who needs them.
        to: ServerId,
        /// From which index.
        from: Index,
        /// Through which index at most.
        through: Index,
    },
    /// A peer needs entries that are compacted: stream the latest snapshot to it (§7).
    SendSnapshot {
        /// Who needs it.
        to: ServerId,
        /// The number that its acknowledgement will repeat.
        number: u64,
    },
    /// An installed snapshot is durable, mark and all: only now may the state machine be replaced by it (§7).
    Restore(SnapshotMeta),
    /// The read may be served once `index` is applied (dissertation §6.4).
    ReadReady {
        /// The read.
        id: u64,
        /// What it must cover.
        index: Index,
    },
    /// This server no longer leads, and cannot say what the read must cover. Nothing was read.
    ReadFailed {
        /// The read.
        id: u64,
    },
    /// The change of members that was in progress has ended: the entry at `index` is committed.
    ChangeEnded {
        /// The entry that ended it.
        index: Index,
        /// How.
        end: ChangeEnd,
    },
    /// Leadership was not handed over in time: this server goes on leading.
    TransferGivenUp {
        /// To whom.
        to: ServerId,
    },
    /// This leader's own log made no progress for `waited`: it has stepped down.
    DiskStalled {
        /// How long records waited.
        waited: std::time::Duration,
    },
    /// A peer denied what it had acknowledged: its disk lost data. It counts no more in this term.
    LostData {
        /// The peer.
        peer: ServerId,
        /// What it had acknowledged.
        acknowledged: Index,
        /// Where its log now ends, or differs.
        denied: Index,
    },
}

/// A record for the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Persist {
    /// Term and vote, as one atomic record.
    HardState(HardState),
    /// Entries that follow the last one, contiguous.
    Entries(Vec<Entry>),
    /// Everything from this index on is undone.
    Truncate {
        /// The first index undone.
        from: Index,
    },
    /// The log now begins after this snapshot, and is empty.
    Snapshot(SnapshotMeta),
}

/// What a core is restored from: what recovery found durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restored {
    /// Term and vote.
    pub hard_state: HardState,
    /// The last entry before the live log: that of the snapshot, or zero.
    pub base: Position,
    /// First index and term of each run of equal terms in the live log, ascending.
    pub term_runs: Vec<(Index, crate::types::Term)>,
    /// The last index of the live log (`base.index` if it is empty).
    pub last: Index,
    /// The log time of the last entry.
    pub last_log_time: crate::types::LogTime,
    /// An index known to be committed, at most `last`; at least that of the snapshot, and at least 1.
    pub commit: Index,
    /// The longest lease that the directory ever held, truncated or not: a promise of it may still bind this server.
    pub longest_lease: std::time::Duration,
    /// Configurations by the index of their entry, ascending; never empty.
    pub configurations: Vec<(Index, crate::types::Configuration)>,
    /// The last entries of the live log, contiguous through `last`; may be empty.
    pub tail: Vec<Entry>,
}
