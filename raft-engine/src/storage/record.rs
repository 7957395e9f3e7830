//! What the log is made of, as the driver says it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::types::{
    Entry, EntryKind, GroupId, HardState, Identity, Incarnation, Index, Lineage, LogTime, SnapshotMeta, Term,
};

/// A running number of what was appended in this incarnation, from 1: every entry counts one, every other record one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct RecordNumber(pub u64);

/// A running number of the writes to the log in this incarnation, from 1. Never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct WriteNumber(pub u64);

/// Something to append to the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// {term, vote} as one atomic record.
    HardState {
        /// Whose.
        group: GroupId,
        /// What it is from here on.
        state: HardState,
    },
    /// Entries that continue the group's log: contiguous, from its last index plus one. Where they replace others, a
    /// [`Record::Truncate`] comes first.
    Entries {
        /// Whose.
        group: GroupId,
        /// Not empty.
        entries: Vec<Entry>,
    },
    /// Drops the entries from this index on (§5.3).
    Truncate {
        /// Whose.
        group: GroupId,
        /// The first index dropped: above the snapshot, at most the last index.
        from: Index,
    },
    /// A hint: the entries through this index are committed. May be late or missing.
    Commit {
        /// Whose.
        group: GroupId,
        /// The commit index.
        index: Index,
    },
    /// The group's lineage, said once with its entry 1.
    Lineage {
        /// Whose.
        group: GroupId,
        /// The digest.
        lineage: Lineage,
    },
    /// A stored snapshot stands for the entries through its position. Where the log does not hold the entry at that
    /// position in that term, the mark replaces the whole log; else what follows it stays (§7).
    Snapshot {
        /// Whose.
        group: GroupId,
        /// As [`super::StorageEvent::SnapshotStored`] brought it.
        meta: SnapshotMeta,
        /// Entry 1 of the group, which every mark keeps.
        first_entry: Entry,
        /// The group's lineage.
        lineage: Lineage,
    },
    /// A peer's incarnation, to be handed back to it in the handshake.
    PeerIncarnation {
        /// The peer's data directory.
        identity: Identity,
        /// Its latest incarnation that was confirmed.
        incarnation: Incarnation,
    },
}

/// What a control area holds: every record that is not an entry. The order of the variants is on disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Control {
    /// This open of the directory.
    Incarnation(Incarnation),
    /// A peer's.
    PeerIncarnation { identity: Identity, incarnation: Incarnation },
    /// {term, vote}.
    HardState { group: GroupId, state: HardState },
    /// Drops the entries from an index on.
    Truncate { group: GroupId, from: Index },
    /// A commit hint.
    Commit { group: GroupId, index: Index },
    /// The group's lineage.
    Lineage { group: GroupId, lineage: Lineage },
    /// A snapshot mark.
    Snapshot { group: GroupId, meta: SnapshotMeta, first_entry: StoredEntry, lineage: Lineage },
}

/// An entry as a control record, a checkpoint or a snapshot's header holds it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct StoredEntry {
    pub(super) index: Index,
    pub(super) term: Term,
    log_time: LogTime,
    kind: u8,
    payload_crc: u32,
    payload: Bytes,
}

impl From<&Entry> for StoredEntry {
    fn from(entry: &Entry) -> Self {
        Self {
            index: entry.index,
            term: entry.term,
            log_time: entry.log_time,
            kind: entry.kind as u8,
            payload_crc: entry.payload_crc,
            // A copy: the payload may be a slice of a large buffer, which must not live as long as this.
            payload: Bytes::copy_from_slice(&entry.payload),
        }
    }
}

impl StoredEntry {
    /// The entry, if its kind is known and its payload intact.
    pub(super) fn entry(&self) -> Option<Entry> {
        let entry = Entry {
            index: self.index,
            term: self.term,
            log_time: self.log_time,
            kind: EntryKind::from_number(self.kind)?,
            payload_crc: self.payload_crc,
            payload: self.payload.clone(),
        };
        entry.is_intact().then_some(entry)
    }
}
