//! The snapshot file as bytes: a header with what the snapshot stands for, blocks of the table of sessions, blocks of the
//! host's bytes, a footer.
//!
//! Every part has a CRC32C of its own, so that whoever restores learns of damage before the host sees a byte of the
//! block; [`SnapshotMeta::file_crc`] is over the whole file. docs/disk-format.md has every field.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::SnapshotError;
use super::events::SnapshotHead;
use super::record::StoredEntry;
use crate::codec;
use crate::types::{
    Configuration, Entry, FileName, GroupId, Index, Lineage, LogTime, Position, SnapshotMeta, SnapshotSection, Term,
};

const MAGIC: [u8; 8] = *b"raftsnap";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 24;
const BLOCK_HEADER_BYTES: usize = 12;
const FOOTER_BYTES: usize = 24;

/// The longest block in bytes.
const MAX_BLOCK_BYTES: usize = 1 << 20;

/// The longest header body in bytes: entry 1 and a configuration.
const MAX_BODY_BYTES: u64 = 8 << 20;

/// What the header says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct FileHead {
    pub(super) group: GroupId,
    pub(super) position: Position,
    pub(super) log_time: LogTime,
    pub(super) configuration: Configuration,
    pub(super) configuration_index: Index,
    first_entry: StoredEntry,
    pub(super) lineage: Lineage,
}

impl FileHead {
    /// The head of a group's snapshot.
    pub(super) fn new(group: GroupId, head: &SnapshotHead) -> Self {
        Self {
            group,
            position: head.position,
            log_time: head.log_time,
            configuration: head.configuration.clone(),
            configuration_index: head.configuration_index,
            first_entry: StoredEntry::from(&head.first_entry),
            lineage: head.lineage,
        }
    }

    /// The meta of the file that has this head, this length and this CRC.
    pub(super) fn meta(&self, file_bytes: u64, file_crc: u32) -> SnapshotMeta {
        SnapshotMeta {
            position: self.position,
            log_time: self.log_time,
            configuration: Box::new(self.configuration.clone()),
            configuration_index: self.configuration_index,
            file_bytes,
            file_crc,
        }
    }

    /// Entry 1, if it is whole.
    pub(super) fn first_entry(&self) -> Option<Entry> {
        self.first_entry.entry()
    }
}

/// The name under which a snapshot of a leader's is received: it tells which one it is, so that whoever finds it after a
/// restart can go on with it.
pub(super) fn incoming_name(group: GroupId, meta: &SnapshotMeta) -> FileName {
    let Position { term, index } = meta.position;
    FileName(format!("incoming-{group}-{term}-{index}-{}-{:08x}", meta.file_bytes, meta.file_crc))
}

/// Whose snapshot is being received under this name, if it is such a name.
pub(super) fn incoming_group(file: &FileName) -> Option<GroupId> {
    let group = file.0.strip_prefix("incoming-")?.split('-').next()?;
    group.parse().ok().map(GroupId)
}

/// What tells the snapshots of one group apart: two of the same position need not have the same bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct SnapshotKey {
    pub(super) index: Index,
    pub(super) term: Term,
    pub(super) file_crc: u32,
}

impl From<&SnapshotMeta> for SnapshotKey {
    fn from(meta: &SnapshotMeta) -> Self {
        Self { index: meta.position.index, term: meta.position.term, file_crc: meta.file_crc }
    }
}

/// The name of a stored snapshot.
pub(super) fn snapshot_name(group: GroupId, key: SnapshotKey) -> FileName {
    FileName(format!("snapshot-{group}-{}-{}-{:08x}", key.index, key.term, key.file_crc))
}

/// The header of a file.
pub(super) fn encode_header(head: &FileHead) -> Bytes {
    let body = codec::encode(head);
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&body);
    let crc = crc32c::crc32c(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes.into()
}

/// The blocks that hold `data` of a section.
pub(super) fn encode_blocks(section: SnapshotSection, data: &[u8]) -> Bytes {
    let blocks = data.len().div_ceil(MAX_BLOCK_BYTES);
    let mut bytes = Vec::with_capacity(data.len() + blocks * BLOCK_HEADER_BYTES);
    for block in data.chunks(MAX_BLOCK_BYTES) {
        let start = bytes.len();
        bytes.extend_from_slice(&(section as u32).to_le_bytes());
        bytes.extend_from_slice(&(block.len() as u32).to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[start..]), block);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(block);
    }
    bytes.into()
}

/// The footer of a file that holds so many bytes of the host.
pub(super) fn encode_footer(data_bytes: u64) -> Bytes {
    let mut bytes = vec![0; FOOTER_BYTES];
    bytes[8..16].copy_from_slice(&data_bytes.to_le_bytes());
    bytes[16..24].copy_from_slice(b"raftsend");
    let crc = crc32c::crc32c(&bytes[8..]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    bytes.into()
}

/// Turns the bytes of a snapshot file, handed over in order in pieces of any size, into the bytes of its sections, and
/// verifies the header, every block and the footer. Pure: whoever restores reads the file.
#[derive(Debug)]
pub struct SnapshotReader {
    group: GroupId,
    head: Option<FileHead>,
    /// What has come and is not a whole part yet.
    rest: BytesMut,
    /// The section of the last block.
    section: SnapshotSection,
    data_bytes: u64,
    is_complete: bool,
}

impl SnapshotReader {
    /// Reads a snapshot of this group from its first byte.
    pub fn new(group: GroupId) -> Self {
        let section = SnapshotSection::Sessions;
        Self { group, head: None, rest: BytesMut::new(), section, data_bytes: 0, is_complete: false }
    }

    /// Takes the next bytes of the file and gives the bytes of its sections that they complete, block by block.
    ///
    /// # Errors
    /// Says what is damaged. What earlier calls gave was whole, but the snapshot is not.
    pub fn push(&mut self, bytes: Bytes) -> Result<Vec<(SnapshotSection, Bytes)>, SnapshotError> {
        self.rest.extend_from_slice(&bytes);
        let mut blocks = Vec::new();
        if self.head.is_none() && !self.read_header()? {
            return Ok(blocks);
        }
        while !self.is_complete {
            let Some(kind) = self.rest.get(..4).map(|bytes| u32_at(bytes, 0)) else { break };
            let section = match kind {
                0 if self.rest.len() < FOOTER_BYTES => break,
                0 => {
                    self.read_footer()?;
                    break;
                }
                1 => SnapshotSection::Sessions,
                2 => SnapshotSection::Host,
                _ => return Err(self.damaged("a block is of no section that is known here")),
            };
            if section < self.section {
                return Err(self.damaged("its sections are out of order"));
            }
            self.section = section;
            let Some(length) = self.rest.get(..8).map(|bytes| u32_at(bytes, 4) as usize) else { break };
            if length == 0 || length > MAX_BLOCK_BYTES {
                return Err(self.damaged("a block is empty, or longer than any"));
            }
            if self.rest.len() < BLOCK_HEADER_BYTES + length {
                break;
            }
            let mut block = self.rest.split_to(BLOCK_HEADER_BYTES + length).freeze();
            let (head, crc) = (crc32c::crc32c(&block[..8]), u32_at(&block, 8));
            block = block.slice(BLOCK_HEADER_BYTES..);
            if crc32c::crc32c_append(head, &block) != crc {
                return Err(self.damaged("a block's checksum does not fit"));
            }
            if section == SnapshotSection::Host {
                self.data_bytes += length as u64;
            }
            blocks.push((section, block));
        }
        if self.is_complete && !self.rest.is_empty() {
            return Err(self.damaged("bytes follow its footer"));
        }
        Ok(blocks)
    }

    /// Says that the file has ended.
    ///
    /// # Errors
    /// The footer was not reached.
    pub fn finish(&self) -> Result<(), SnapshotError> {
        if self.is_complete { Ok(()) } else { Err(self.damaged("the file ends before its footer")) }
    }

    /// What the header says, once it has come.
    pub(super) fn head(&self) -> Option<&FileHead> {
        self.head.as_ref()
    }

    fn read_header(&mut self) -> Result<bool, SnapshotError> {
        if self.rest.len() < HEADER_BYTES {
            return Ok(false);
        }
        if self.rest[..8] != MAGIC {
            return Err(self.damaged("this is not a snapshot file"));
        }
        if u32_at(&self.rest, 8) != VERSION {
            return Err(self.damaged("its format version is not known here: a newer library wrote it"));
        }
        let body_bytes = u64::from(u32_at(&self.rest, 16)) | u64::from(u32_at(&self.rest, 20)) << 32;
        if body_bytes > MAX_BODY_BYTES {
            return Err(self.damaged("its header is longer than any"));
        }
        if self.rest.len() < HEADER_BYTES + body_bytes as usize {
            return Ok(false);
        }
        let header = self.rest.split_to(HEADER_BYTES + body_bytes as usize);
        let zeroed = crc32c::crc32c_append(crc32c::crc32c(&header[..12]), &[0; 4]);
        if crc32c::crc32c_append(zeroed, &header[16..]) != u32_at(&header, 12) {
            return Err(self.damaged("its header's checksum does not fit"));
        }
        let head: FileHead = codec::decode(&header[HEADER_BYTES..]).map_err(|error| self.damaged(error))?;
        if head.group != self.group || head.first_entry().is_none() {
            return Err(self.damaged("it is another group's, or its entry 1 is damaged"));
        }
        self.head = Some(head);
        Ok(true)
    }

    fn read_footer(&mut self) -> Result<(), SnapshotError> {
        let footer = self.rest.split_to(FOOTER_BYTES);
        let expected = encode_footer(self.data_bytes);
        if footer[..] != expected[..] {
            return Err(self.damaged("its footer does not fit"));
        }
        self.is_complete = true;
        Ok(())
    }

    fn damaged(&self, what: impl ToString) -> SnapshotError {
        SnapshotError::Damaged { group: self.group, what: what.to_string() }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
