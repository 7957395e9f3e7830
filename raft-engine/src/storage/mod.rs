//! The write-ahead log and the snapshot files of one data directory: what bytes go where, as disk operations.
//!
//! A pure machine. It submits [`DiskWork`](crate::types::DiskWork) and is told of completions; it never touches a file, but for reading at open
//! through [`ReadFiles`](crate::types::ReadFiles). It knows records, entries and snapshots, and nothing of elections, peers or hosts: what is
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

mod batch;
mod error;
mod events;
mod group;
mod log;
mod manifest;
mod opening;
mod outline;
mod places;
mod reads;
mod record;
mod recovery;
mod segment;
mod snapshot_file;
mod snapshots;
mod state;
mod switch;
mod work;
mod write;

#[cfg(test)]
pub(crate) mod tests;

pub use self::error::{ReadError, SnapshotError, StorageError};
pub use self::events::{
    Pinned, ReadToken, Recovered, RecoveredGroup, SnapshotHead, SnapshotOrigin, StorageEvent, StorageOptions,
};
pub use self::log::Storage;
pub use self::opening::Owner;
pub use self::record::{Record, RecordNumber, WriteNumber};
pub use self::snapshot_file::SnapshotReader;
