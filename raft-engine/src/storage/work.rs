//! What was submitted to the disk and why, so that a completion finds what it completes.

use std::collections::BTreeMap;

use super::events::{ReadToken, SnapshotOrigin};
use super::record::WriteNumber;
use super::snapshot_file::SnapshotKey;
use crate::types::{DiskStep, DiskWork, DiskWorkId, FileName, GroupId};

/// Why something was submitted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// A write to the log.
    Write(WriteNumber),
    /// Makes durable what recovery kept.
    Recovery,
    /// Makes the next segment with its checkpoint.
    Segment,
    /// Replaces the manifest.
    Manifest,
    /// Fills the spare segment a piece further.
    Fill,
    /// Makes a dead segment the spare one.
    Recycle,
    /// Removes what nothing names; if that fails, the next open does it.
    CleanUp,
    /// One piece of a read of entries.
    ReadPiece { read: u64, piece: usize },
    /// Raw bytes of a stored snapshot.
    SnapshotRead { token: ReadToken, group: GroupId, key: SnapshotKey, offset: u64 },
    /// A step of a snapshot that is being stored.
    Storing { group: GroupId, origin: SnapshotOrigin, attempt: u64, step: StoringStep },
}

/// What a snapshot being stored waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StoringStep {
    /// Bytes on their way to the system.
    Write,
    /// The sync before the verification.
    Sync,
    /// A piece read back.
    Verify,
    /// The rename to its name.
    Rename,
}

/// Submissions on their way.
#[derive(Debug, Default)]
pub(super) struct WorkQueue {
    last: u64,
    queued: Vec<(DiskWorkId, DiskWork)>,
    purposes: BTreeMap<DiskWorkId, Purpose>,
}

impl WorkQueue {
    /// Queues work.
    pub(super) fn submit(&mut self, work: DiskWork, purpose: Purpose) {
        self.last += 1;
        let id = DiskWorkId(self.last);
        self.queued.push((id, work));
        self.purposes.insert(id, purpose);
    }

    /// Queues the removal of files, which nothing waits for.
    pub(super) fn remove(&mut self, files: impl IntoIterator<Item = FileName>) {
        let mut steps: Vec<DiskStep> = files.into_iter().map(|file| DiskStep::Remove { file }).collect();
        if !steps.is_empty() {
            steps.push(DiskStep::SyncDirectory);
            self.submit(DiskWork::Job(steps), Purpose::CleanUp);
        }
    }

    /// What was queued since the last call.
    pub(super) fn take(&mut self) -> Vec<(DiskWorkId, DiskWork)> {
        std::mem::take(&mut self.queued)
    }

    /// What a completion completes; `None` if it was told before.
    pub(super) fn finish(&mut self, id: DiskWorkId) -> Option<Purpose> {
        self.purposes.remove(&id)
    }
}
