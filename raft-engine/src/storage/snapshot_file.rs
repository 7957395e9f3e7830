//! The snapshot file as bytes: header, blocks, footer.

use bytes::Bytes;

use super::SnapshotError;
use crate::types::GroupId;

/// Turns the bytes of a snapshot file, handed over in order in pieces of any size, into the host's bytes, and verifies
/// every block and the footer. Pure: whoever restores reads the file.
#[derive(Debug)]
pub struct SnapshotReader {
    group: GroupId,
}

impl SnapshotReader {
    /// Reads a snapshot of this group from its first byte.
    pub fn new(group: GroupId) -> Self {
        Self { group }
    }

    /// Takes the next bytes of the file and gives the host's bytes that they complete, block by block.
    pub fn push(&mut self, _bytes: Bytes) -> Result<Vec<Bytes>, SnapshotError> {
        Ok(Vec::new())
    }

    /// Says that the file has ended: an error if the footer was not reached.
    pub fn finish(&self) -> Result<(), SnapshotError> {
        Err(SnapshotError::NotBegun { group: self.group })
    }
}
