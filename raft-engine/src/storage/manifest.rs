//! The manifest: whose directory this is, whether it is refused, and which segments are alive. Replaced atomically.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::StorageError;
use super::segment::{REMEDY, SegmentId, SegmentNonce};
use crate::codec;
use crate::types::{ClusterId, DiskStep, FileName, Identity, ServerId};

const MAGIC: [u8; 8] = *b"raftmani";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 24;

/// What the manifest says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) cluster: ClusterId,
    pub(super) server: ServerId,
    pub(super) identity: Identity,
    /// Why the directory may never take part again.
    pub(super) refused: Option<String>,
    /// The live segments, ascending without gaps; the last one is open.
    pub(super) segments: Vec<LiveSegment>,
}

/// One live segment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct LiveSegment {
    pub(super) number: u32,
    pub(super) nonce: SegmentNonce,
    /// The file's length in bytes.
    pub(super) bytes: u64,
    /// The sequence number of its checkpoint.
    pub(super) first_sequence: u64,
    /// Where its batches end, once it is closed.
    pub(super) end: Option<u64>,
}

impl LiveSegment {
    /// The number and the identity.
    pub(super) fn id(&self) -> SegmentId {
        SegmentId { number: self.number, nonce: self.nonce }
    }
}

/// The manifest's name.
pub(super) fn manifest_name() -> FileName {
    FileName("manifest".into())
}

/// The name under which the next manifest is written.
pub(super) fn new_manifest_name() -> FileName {
    FileName("manifest.new".into())
}

impl Manifest {
    /// Header and body.
    pub(super) fn encode(&self) -> Bytes {
        let body = codec::encode(self);
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

    /// What the file's bytes say.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StorageError> {
        let corrupt = |what: String| StorageError::Corrupt { file: manifest_name(), offset: 0, what, remedy: REMEDY };
        if bytes.len() < HEADER_BYTES || bytes[..8] != MAGIC {
            return Err(corrupt("this is not a manifest".into()));
        }
        let version = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        if version > VERSION {
            return Err(StorageError::UnknownVersion { file: manifest_name(), version, known: VERSION });
        }
        let crc = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
        let with_zero =
            crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &[0; 4]), &bytes[16..]);
        if crc != with_zero || version == 0 {
            return Err(corrupt("the manifest's checksum does not fit".into()));
        }
        codec::decode(&bytes[HEADER_BYTES..]).map_err(|error| corrupt(error.to_string()))
    }

    /// The steps that replace the file by this.
    pub(super) fn replace(&self) -> Vec<DiskStep> {
        vec![
            DiskStep::Create { file: new_manifest_name(), data: self.encode() },
            DiskStep::Sync { file: new_manifest_name() },
            DiskStep::Rename { from: new_manifest_name(), to: manifest_name() },
            DiskStep::SyncDirectory,
        ]
    }
}
