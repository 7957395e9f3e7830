//! What a snapshot stands for (§7).

use serde::{Deserialize, Serialize};

use super::{Configuration, LogTime, Position};

/// Whose bytes a part of a snapshot is. Sections come in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u32)]
pub enum SnapshotSection {
    /// The engine's table of sessions.
    Sessions = 1,
    /// The host's state.
    Host = 2,
}

/// A snapshot's place in the log and what must outlive the entries that it replaces.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SnapshotMeta {
    /// The last entry that the snapshot includes.
    pub position: Position,
    /// That entry's log time.
    pub log_time: LogTime,
    /// The configuration in force at that entry, and the index of the entry that brought it.
    pub configuration: Box<Configuration>,
    /// The index of the entry that brought `configuration`.
    pub configuration_index: super::Index,
    /// The whole file's length in bytes.
    pub file_bytes: u64,
    /// CRC32C of the whole file.
    pub file_crc: u32,
}
