//! The write-ahead log and the snapshot files of one data directory: what bytes go where, as disk operations.
//!
//! A pure machine. It submits [`DiskWork`] and is told of completions; it never touches a file, but for reading at open
//! through [`ReadFiles`]. It knows records, entries and snapshots, and nothing of elections, peers or hosts: what is
//! appended, when a write may be cut and what a durable record allows to be said is the driver's to decide. The layouts
//! and the rules are in docs/disk-format.md.
//!
//! How a driver uses it:
//!
//! - [`Storage::open`], then carry out [`Storage::take_work`] and hand each completion to [`Storage::complete`], until
//!   [`StorageEvent::Ready`]. Nothing may be said to anyone before.
//! - [`Storage::append`] what changed, [`Storage::cut`] when a write may go. [`StorageEvent::Written`] says what is
//!   durable; [`Storage::durable_index`] is the last entry that the own disk has, truncations minded.
//! - After every call, take work and events; call [`Storage::tick`] when [`Storage::deadline`] has come.

mod error;
mod record;
mod snapshot_file;

use std::collections::BTreeMap;

use bytes::Bytes;

pub use self::error::{ReadError, SnapshotError, StorageError};
pub use self::record::{Record, RecordNumber, WriteNumber};
pub use self::snapshot_file::SnapshotReader;
use crate::types::{
    ClusterId, Configuration, DiskDone, DiskError, DiskWork, DiskWorkId, Entry, FileName, GroupId, HardState, Identity,
    Incarnation, Index, Lineage, LogTime, Position, ReadFiles, ServerId, SnapshotMeta, Term, Time,
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
        /// The groups whose durable index may have moved, with [`Storage::durable_index`] of each.
        groups: Vec<(GroupId, Index)>,
    },
    /// The answer to [`Storage::read_entries`].
    EntriesRead {
        /// As given.
        token: ReadToken,
        /// Whose.
        group: GroupId,
        /// Contiguous from the index asked for, at least one; every payload verified.
        entries: Result<Vec<Entry>, ReadError>,
    },
    /// The answer to [`Storage::read_snapshot`].
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
    /// The chunks handed over so far are with the system: the next one may come.
    SnapshotProgress {
        /// Whose.
        group: GroupId,
        /// Which of the two.
        origin: SnapshotOrigin,
        /// The length of the file so far.
        file_bytes: u64,
    },
    /// The snapshot is complete, verified and durable under its name. It counts once a [`Record::Snapshot`] is durable.
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
    /// [`Storage::refuse_directory`] is durable.
    DirectoryRefused,
    /// [`Storage::has_room`] changed.
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

/// The disk side of one server.
#[derive(Debug)]
pub struct Storage {}

#[allow(clippy::unused_self, clippy::needless_pass_by_value)]
impl Storage {
    /// Opens a data directory: an empty one is made into a new server's (with an identity from `entropy`), any other is
    /// recovered. Reads only; what must be written is queued as work. `entropy` must be fresh random bytes: nonces
    /// and segment identities come from it.
    pub fn open(
        _options: StorageOptions,
        _files: &mut dyn ReadFiles,
        _entropy: [u8; 32],
    ) -> Result<(Self, Recovered), StorageError> {
        Err(StorageError::Option { option: "open", message: "not there yet".into() })
    }

    /// Queues a record behind all earlier ones and returns its number (the last entry's, of entries). Panics where the
    /// record does not fit the group's log: a caller's fault that must not reach the disk.
    pub fn append(&mut self, _record: Record) -> RecordNumber {
        RecordNumber(0)
    }

    /// What waits to be cut into a write, in bytes, about.
    pub fn pending_bytes(&self) -> usize {
        0
    }

    /// Cuts the next write from what is pending and queues it. `None` where nothing is pending, or a segment switch (or
    /// recovery, or a full disk) is under way: it goes on by itself, and records go on to gather. The caller bounds the
    /// writes in flight.
    pub fn cut(&mut self) -> Option<WriteNumber> {
        None
    }

    /// Writes submitted and not yet reported as [`StorageEvent::Written`].
    pub fn writes_in_flight(&self) -> usize {
        0
    }

    /// Whether the last records are above the synced position that the log names, with nothing pending or in flight: an
    /// idle server then calls [`Storage::cut_watermark`], so that later damage to them is told from a torn tail.
    pub fn watermark_due(&self) -> bool {
        false
    }

    /// Queues the empty write that names the synced position. `None` where [`Storage::cut`] would be.
    pub fn cut_watermark(&mut self) -> Option<WriteNumber> {
        None
    }

    /// The last entry of the group whose present copy, and that of every entry before it, is on this disk.
    pub fn durable_index(&self, _group: GroupId) -> Index {
        0
    }

    /// The last entry appended, durable or not.
    pub fn last_index(&self, _group: GroupId) -> Index {
        0
    }

    /// Reads durable entries from `from` through `through` (at least one, then as many as fit `max_bytes`), verified:
    /// [`StorageEvent::EntriesRead`] follows.
    pub fn read_entries(
        &mut self,
        _token: ReadToken,
        _group: GroupId,
        _from: Index,
        _through: Index,
        _max_bytes: usize,
    ) {
    }

    /// The bytes of all live segments.
    pub fn log_bytes(&self) -> u64 {
        0
    }

    /// The bytes of the group's entries in the live log, about: what its next snapshot would free.
    pub fn group_log_bytes(&self, _group: GroupId) -> u64 {
        0
    }

    /// The first group with live entries in the oldest segment: snapshot it (then [`Storage::compact`]) or
    /// [`Storage::relocate`] it. `None` where nothing keeps the oldest segment, or what does is on its way.
    pub fn oldest_pinned(&self) -> Option<Pinned> {
        None
    }

    /// Copies the group's live entries of the oldest segment to the end of the log, about 1 MiB a call, as moved
    /// records.
    pub fn relocate(&mut self, _group: GroupId) {}

    /// Forgets the entries that the group's latest durable snapshot mark stands for, and removes older snapshot files.
    pub fn compact(&mut self, _group: GroupId) {}

    /// Starts the file of a snapshot that the host writes.
    pub fn begin_snapshot(&mut self, _group: GroupId, _head: SnapshotHead) {}

    /// The next bytes of the host's snapshot: [`StorageEvent::SnapshotProgress`] follows.
    pub fn snapshot_chunk(&mut self, _group: GroupId, _bytes: Bytes) {}

    /// The host's snapshot is complete: [`StorageEvent::SnapshotStored`] follows.
    pub fn finish_snapshot(&mut self, _group: GroupId) {}

    /// Starts to receive a snapshot file from a leader, as its sender's meta describes it.
    pub fn begin_receive(&mut self, _group: GroupId, _meta: SnapshotMeta) {}

    /// The next raw bytes of the file. When the last byte that the meta names has come, the file is verified and
    /// stored: [`StorageEvent::SnapshotProgress`] and, at the end, [`StorageEvent::SnapshotStored`] follow.
    pub fn receive_chunk(
        &mut self,
        _group: GroupId,
        _offset: u64,
        _bytes: Bytes,
        _crc: u32,
    ) -> Result<(), SnapshotError> {
        Ok(())
    }

    /// How much of a snapshot being received has come: where its sender should go on. `None` if none is under way or
    /// it is another one.
    pub fn received_bytes(&self, _group: GroupId, _meta: &SnapshotMeta) -> Option<u64> {
        None
    }

    /// Drops a snapshot under way, if there is one. No event follows.
    pub fn abort_snapshot(&mut self, _group: GroupId, _origin: SnapshotOrigin) {}

    /// Reads raw bytes of the group's marked snapshot, for sending: [`StorageEvent::SnapshotRead`] follows.
    pub fn read_snapshot(&mut self, _token: ReadToken, _group: GroupId, _offset: u64, _length: usize) {}

    /// The name of the group's marked snapshot and what it stands for.
    pub fn snapshot(&self, _group: GroupId) -> Option<(&SnapshotMeta, FileName)> {
        None
    }

    /// Marks the directory as one that may never take part again: [`StorageEvent::DirectoryRefused`] when durable, and
    /// every later open fails with the reason.
    pub fn refuse_directory(&mut self, _reason: String) {}

    /// Whether proposals may be accepted. `false` while the disk has no room for the next segment and the present one
    /// nears its end; storage tries again by itself ([`Storage::tick`]).
    pub fn has_room(&self) -> bool {
        true
    }

    /// When [`Storage::tick`] wants to be called; `Time::NEVER` if it need not be.
    pub fn deadline(&self) -> Time {
        Time::NEVER
    }

    /// Tries again what a full disk refused, if it is time.
    pub fn tick(&mut self, _now: Time) {}

    /// Why the log failed, if it did.
    pub fn failure(&self) -> Option<&StorageError> {
        None
    }

    /// The work queued since the last call, to be submitted in this order.
    pub fn take_work(&mut self) -> Vec<(DiskWorkId, DiskWork)> {
        Vec::new()
    }

    /// A submission ended.
    pub fn complete(&mut self, _id: DiskWorkId, _result: Result<DiskDone, DiskError>) {}

    /// What has happened since the last call, in order.
    pub fn take_events(&mut self) -> Vec<StorageEvent> {
        Vec::new()
    }
}
