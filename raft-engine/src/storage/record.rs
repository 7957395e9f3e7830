//! What the log is made of, as the driver says it.

use serde::{Deserialize, Serialize};

use crate::types::{Entry, GroupId, HardState, Identity, Incarnation, Index, Lineage, SnapshotMeta};

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

/// An entry as a control record or a snapshot's header holds it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct StoredEntry {
    index: u64,
    term: u64,
    log_time: crate::types::LogTime,
    kind: u8,
    payload_crc: u32,
    payload: Vec<u8>,
}

impl From<&Entry> for StoredEntry {
    fn from(entry: &Entry) -> Self {
        Self {
            index: entry.index,
            term: entry.term,
            log_time: entry.log_time,
            kind: entry.kind as u8,
            payload_crc: entry.payload_crc,
            payload: entry.payload.to_vec(),
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
            kind: crate::types::EntryKind::from_number(self.kind)?,
            payload_crc: self.payload_crc,
            payload: self.payload.clone().into(),
        };
        entry.is_intact().then_some(entry)
    }
}
