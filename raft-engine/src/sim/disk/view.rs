//! Reading a simulated disk: as a new process would find it, or as it would be if the power went now.

use bytes::Bytes;

use super::SimDisk;
use crate::types::{DiskError, FileName, ReadFiles};

/// What a process sees: everything written, synced or not.
pub(in crate::sim) struct VisibleFiles<'a>(pub(in crate::sim) &'a SimDisk);

/// What is certain to survive: synced bytes under synced names, and nothing else.
pub(in crate::sim) struct SyncedFiles<'a>(pub(in crate::sim) &'a SimDisk);

impl ReadFiles for VisibleFiles<'_> {
    fn list(&mut self) -> Result<Vec<(FileName, u64)>, DiskError> {
        let length = |number| self.0.inodes.get(&number).map_or(0, |inode| inode.visible().len() as u64);
        Ok(self.0.names.all_visible().map(|(name, number)| (name.clone(), length(number))).collect())
    }

    fn read(&mut self, file: &FileName, offset: u64, length: usize) -> Result<Bytes, DiskError> {
        self.0.read_visible(file, offset, length)
    }
}

impl ReadFiles for SyncedFiles<'_> {
    fn list(&mut self) -> Result<Vec<(FileName, u64)>, DiskError> {
        let length = |number| self.0.inodes.get(&number).map_or(0, |inode| inode.synced().len() as u64);
        Ok(self.0.names.all_synced().map(|(name, number)| (name.clone(), length(number))).collect())
    }

    fn read(&mut self, file: &FileName, offset: u64, length: usize) -> Result<Bytes, DiskError> {
        self.0.read_synced(file, offset, length)
    }
}
