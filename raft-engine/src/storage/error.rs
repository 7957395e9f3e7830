//! What can go wrong with a data directory, said with the file, the place in it, and what to do.

use crate::types::{DiskError, FileName, GroupId, Index};

/// Why a data directory was not opened, or why its log stopped.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StorageError {
    /// Reading or writing failed.
    #[error("{0}; the log of this server stops here: repair the disk and start the server again")]
    Disk(#[from] DiskError),
    /// Bytes that were durable are not what was written. Nothing was changed.
    #[error("corruption: {file} at offset {offset}: {what}; {remedy}", file = file.0)]
    Corrupt {
        /// The damaged file.
        file: FileName,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong there.
        what: String,
        /// What the operator can do.
        remedy: &'static str,
    },
    /// The file was written by a version of this library that this one does not know.
    #[error("{file} has format version {version}, and this library reads {known}: start a newer library on it", file = file.0)]
    UnknownVersion {
        /// The file.
        file: FileName,
        /// Its version.
        version: u32,
        /// The version that this library writes.
        known: u32,
    },
    /// The directory belongs to another server or cluster.
    #[error("the data directory belongs to {what} {found}, not {expected}: start this server on its own directory")]
    Foreign {
        /// `cluster` or `server`.
        what: &'static str,
        /// Whose the directory is.
        found: String,
        /// Who opened it.
        expected: String,
    },
    /// The directory was marked as refused: it may never take part again.
    #[error("the data directory is refused: {reason}; start with an empty directory under a new server id")]
    Refused {
        /// Why, as given when it was marked.
        reason: String,
    },
    /// An option is out of bounds.
    #[error("storage option {option}: {message}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What is wrong with it.
        message: String,
    },
}

/// Why a read of entries or of a stored snapshot brought nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    /// The log holds no durable entry there: compacted, truncated, or not written yet.
    #[error("group {group} has no durable entry {index} in its log")]
    NotThere {
        /// The group.
        group: GroupId,
        /// The first index asked for.
        index: Index,
    },
    /// The entries were truncated, or the snapshot removed, while the read was on its way.
    #[error("the log of group {group} changed during the read")]
    Changed {
        /// The group.
        group: GroupId,
    },
    /// The disk brought something else than what was written, or nothing.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why a snapshot was not stored. Nothing of it remains, and the log stays as it is.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The disk refused it; `is_full` in it says whether waiting may help.
    #[error("{0}; the snapshot was dropped")]
    Disk(#[from] DiskError),
    /// The bytes are not those of the snapshot that was announced.
    #[error("snapshot of group {group}: {what}; it was dropped")]
    Damaged {
        /// The group.
        group: GroupId,
        /// What does not fit.
        what: String,
    },
    /// There is no such snapshot under way.
    #[error("no snapshot of group {group} is being stored")]
    NotBegun {
        /// The group.
        group: GroupId,
    },
    /// A chunk does not continue what was received: send from `expected` on.
    #[error("snapshot of group {group}: expected the chunk at {expected}, not {offset}")]
    OutOfOrder {
        /// The group.
        group: GroupId,
        /// The offset that comes next.
        expected: u64,
        /// The chunk's offset.
        offset: u64,
    },
}
