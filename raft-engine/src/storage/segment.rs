//! A segment file's name and header.

use bytes::Bytes;

use super::StorageError;
use crate::types::{FileName, Identity};

/// The version of the segment and batch layouts. Unknown means refuse.
pub(super) const VERSION: u32 = 1;

/// Where batches begin, and what every offset and length in a segment is a multiple of, in bytes.
pub(super) const BLOCK_BYTES: u64 = 4096;

/// What every damage report advises.
pub(super) const REMEDY: &str = "restore the whole data directory's disk from before the damage, or start this server \
                                 on an empty directory under a new id and let the group send it the state";

const MAGIC: [u8; 8] = *b"raftsegm";

/// The 16 random bytes that every batch of a segment repeats: a recycled file's old bytes are never believed.
pub(super) type SegmentNonce = [u8; 16];

/// One segment as the manifest and its own header name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SegmentId {
    /// 1 for the first; grows by one.
    pub(super) number: u32,
    /// Its random identity.
    pub(super) nonce: SegmentNonce,
}

/// The name of a live segment.
pub(super) fn segment_name(number: u32) -> FileName {
    FileName(format!("segment-{number:010}"))
}

/// The name of a segment filled ahead.
pub(super) fn spare_name(number: u64) -> FileName {
    FileName(format!("spare-{number}"))
}

/// The header block of a segment.
pub(super) fn encode_header(id: SegmentId, directory: Identity, length: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BLOCK_BYTES as usize);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&u64::from(id.number).to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&id.nonce);
    bytes.extend_from_slice(&directory.0);
    bytes.resize(BLOCK_BYTES as usize, 0);
    let crc = crc32c::crc32c(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Whether a file's first block is this segment's header.
pub(super) fn check_header(bytes: &Bytes, id: SegmentId, directory: Identity, length: u64) -> Result<(), StorageError> {
    let file = segment_name(id.number);
    if bytes.get(..8) == Some(&MAGIC) && bytes.len() >= 12 {
        let version = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        if version > VERSION {
            return Err(StorageError::UnknownVersion { file, version, known: VERSION });
        }
    }
    if bytes[..] != encode_header(id, directory, length)[..] {
        let what = "the segment's header is not the one that the manifest names".into();
        return Err(StorageError::Corrupt { file, offset: 0, what, remedy: REMEDY });
    }
    Ok(())
}
