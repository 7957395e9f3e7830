//! What storage is told at open, what it brings back, and what it says later.

use std::collections::BTreeMap;

use std::time::Duration;

use bytes::Bytes;

use super::{ReadError, RecordNumber, SnapshotError, StorageError, WriteNumber};
use crate::types::{
    ClusterId, Configuration, Entry, FileName, GroupId, HardState, Identity, Incarnation, Index, Lineage, LogTime,
    Position, ServerId, SnapshotMeta, Term,
};

/// Whose directory it is, and how it is laid out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StorageOptions {
    /// The cluster that the server belongs to; another one's directory is refused.
    pub cluster: ClusterId,
    /// The server's id; another one's directory is refused.
    pub server: ServerId,
    /// The length of a new segment in bytes: a multiple of 4 KiB, at least 64 KiB, at most 2 GiB.
    pub segment_bytes: u64,
    /// A write is cut at about so many bytes; a larger entry goes alone.
    pub batch_bytes: usize,
    /// How much of the end of each group's log [`Recovered`] brings, in bytes of all groups together.
    pub tail_bytes: usize,
}

/// What a data directory held.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// The directory's own identity.
    pub identity: Identity,
    /// This open. Durable at [`StorageEvent::Ready`].
    pub incarnation: Incarnation,
    /// The latest 1,024 opens, this one last.
    pub history: Vec<Incarnation>,
    /// The incarnation remembered of each peer.
    pub peers: BTreeMap<Identity, Incarnation>,
    /// Every group that the directory knows, by id.
    pub groups: Vec<RecoveredGroup>,
    /// Where a torn tail was cut, if there was one: the segment and the offset in it.
    pub cut: Option<(FileName, u64)>,
}

/// What the directory held of one group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecoveredGroup {
    /// Which one.
    pub group: GroupId,
    /// Its term and vote.
    pub hard_state: HardState,
    /// Entry 1, kept for ever; `None` before the group is formed.
    pub first_entry: Option<Entry>,
    /// Its lineage; `None` before the group is formed.
    pub lineage: Option<Lineage>,
    /// The latest marked snapshot and its file, verified.
    pub snapshot: Option<(SnapshotMeta, FileName)>,
    /// The terms of the live log, those entries after the snapshot: (first index, term), ascending.
    pub term_runs: Vec<(Index, Term)>,
    /// The last entry (the snapshot's, where the log behind it is empty).
    pub last: Position,
    /// The last entry's log time.
    pub last_log_time: LogTime,
    /// The highest commit index recorded; at least the snapshot's, at most the last.
    pub commit: Index,
    /// The configuration entries in the live log, ascending. The configuration before them is the snapshot's, or
    /// entry 1's.
    pub configurations: Vec<Entry>,
    /// The longest lease of any configuration that the directory ever held, of entry 1 apart.
    pub longest_lease: Duration,
    /// The end of the live log: contiguous through `last`.
    pub tail: Vec<Entry>,
}

/// Names a read, chosen by the driver, opaque to storage.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReadToken(pub u64);

/// Where the bytes of a snapshot come from. Each group has at most one of each kind under way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SnapshotOrigin {
    /// The host of this server writes it.
    Host,
    /// A leader sends it.
    Peer,
}

/// What a snapshot of this server's own state stands for: the meta but for what only the finished file tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotHead {
    /// The last entry that the snapshot includes.
    pub position: Position,
    /// That entry's log time.
    pub log_time: LogTime,
    /// The configuration in force at that entry.
    pub configuration: Configuration,
    /// The index of the entry that brought it.
    pub configuration_index: Index,
    /// Entry 1 of the group.
    pub first_entry: Entry,
    /// The group's lineage.
    pub lineage: Lineage,
}

/// A group's live entries in the oldest segment: they keep it from being freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pinned {
    /// Whose.
    pub group: GroupId,
    /// The lowest such index.
    pub first: Index,
    /// The highest such index.
    pub last: Index,
    /// What moving them would write, in bytes, about.
    pub bytes: u64,
}

/// What storage has to say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StorageEvent {
    /// What recovery kept is durable, and so is this incarnation: the server may speak.
    Ready,
    /// This write and every earlier one are durable.
    Written {
        /// The write.
        number: WriteNumber,
        /// Every record through this one is durable.
        through: RecordNumber,
        /// The groups whose durable index may have moved, with [`super::Storage::durable_index`] of each.
        groups: Vec<(GroupId, Index)>,
    },
    /// The answer to [`super::Storage::read_entries`].
    EntriesRead {
        /// As given.
        token: ReadToken,
        /// Whose.
        group: GroupId,
        /// Contiguous from the index asked for, at least one; every payload verified.
        entries: Result<Vec<Entry>, ReadError>,
    },
    /// The answer to [`super::Storage::read_snapshot`].
    SnapshotRead {
        /// As given.
        token: ReadToken,
        /// Whose.
        group: GroupId,
        /// Where in the file.
        offset: u64,
        /// Fewer bytes than asked for only where the file ends.
        bytes: Result<Bytes, ReadError>,
    },
    /// A beginning or a chunk is with the system: the next chunk may come. Once for each of them, but for the last one
    /// received, which [`StorageEvent::SnapshotStored`] follows.
    SnapshotProgress {
        /// Whose.
        group: GroupId,
        /// Which of the two.
        origin: SnapshotOrigin,
        /// The length of the file so far.
        file_bytes: u64,
    },
    /// The snapshot is complete, verified and durable under its name. It counts once a [`super::Record::Snapshot`] is durable.
    SnapshotStored {
        /// Whose.
        group: GroupId,
        /// Which of the two.
        origin: SnapshotOrigin,
        /// What it stands for.
        meta: SnapshotMeta,
        /// Entry 1, as the file has it.
        first_entry: Entry,
        /// The lineage, as the file has it.
        lineage: Lineage,
        /// Its name.
        file: FileName,
    },
    /// The snapshot was dropped.
    SnapshotFailed {
        /// Whose.
        group: GroupId,
        /// Which of the two.
        origin: SnapshotOrigin,
        /// Why.
        error: SnapshotError,
    },
    /// [`super::Storage::refuse_directory`] is durable.
    DirectoryRefused,
    /// [`super::Storage::has_room`] changed.
    Room {
        /// What it is now.
        has_room: bool,
    },
    /// The log failed: nothing more becomes durable, and the directory must be opened again.
    Failed {
        /// Why.
        error: StorageError,
    },
}
