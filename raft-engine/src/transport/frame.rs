//! Frames: the unit of the wire. A fixed header, metadata, and raw payload behind it.
//!
//! The header and the metadata are guarded by one CRC32C; what is in the payload is guarded by CRCs in the metadata.
//! This file knows the layout (docs/wire-format.md) and how to cut a stream of bytes into frames within bounds; it does
//! not know what any kind of message means.

use bytes::Bytes;
use serde::Serialize;

use super::error::Violation;
use crate::codec;
use crate::types::GroupId;

/// The longest frame, in bytes: header, metadata and payload. Small enough that a heartbeat never waits long behind one.
pub const MAX_FRAME_BYTES: usize = 128 << 10;

/// The length of a frame's header in bytes.
pub const HEADER_BYTES: usize = 28;

/// The first three bytes of every frame.
const MAGIC: [u8; 3] = *b"rft";

/// The layout of the header, the fourth byte of every frame. Not the protocol version, which the handshake settles.
const LAYOUT: u8 = 1;

/// Where the CRC lies in the header; it covers the bytes before it and the metadata.
const CRC_OFFSET: usize = 24;

/// Payloads received in one frame that are shorter than this in all get memory of their own: a few bytes kept in a cache
/// must not keep a whole receive buffer alive.
const SHARE_FROM_BYTES: usize = 16 << 10;

/// One frame, encoded: at most [`MAX_FRAME_BYTES`] in all. Cheap to clone: the bytes are shared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Header and metadata.
    pub head: Bytes,
    /// Entry payloads, in order; never copied through a serializer.
    pub payloads: Vec<Bytes>,
}

impl Frame {
    /// How many bytes cross the wire.
    #[allow(clippy::len_without_is_empty, reason = "a frame is never empty: it has a header")]
    pub fn len(&self) -> usize {
        self.head.len() + self.payloads.iter().map(Bytes::len).sum::<usize>()
    }

    /// The bytes that cross the wire, in order, as few contiguous pieces.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> + '_ {
        std::iter::once(&self.head).chain(&self.payloads)
    }

    /// The bytes that cross the wire, in one piece. Copies, unless there is no payload.
    pub fn to_bytes(&self) -> Bytes {
        if self.payloads.is_empty() {
            return self.head.clone();
        }
        let mut bytes = Vec::with_capacity(self.len());
        self.pieces().for_each(|piece| bytes.extend_from_slice(piece));
        Bytes::from(bytes)
    }
}

/// What a frame says. The numbers are on the wire and never used again for something else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
#[allow(missing_docs, reason = "each is named for the message that it carries")]
pub enum FrameKind {
    Hello = 0x01,
    Welcome = 0x02,
    Confirm = 0x03,
    Ready = 0x04,
    Refused = 0x05,
    Lineage = 0x10,
    LineageRefused = 0x11,
    Introduce = 0x18,
    EntryOneRequest = 0x19,
    EntryOne = 0x1a,
    FormationRefused = 0x1b,
    PreVote = 0x20,
    PreVoteReply = 0x21,
    Vote = 0x22,
    VoteReply = 0x23,
    Append = 0x24,
    AppendReply = 0x25,
    Heartbeats = 0x26,
    HeartbeatReplies = 0x27,
    TimeoutNow = 0x28,
    Removed = 0x29,
    SnapshotStart = 0x30,
    SnapshotChunk = 0x31,
    SnapshotProgress = 0x32,
    SnapshotRefused = 0x33,
    Fragment = 0x40,
    Forward = 0x50,
    ForwardReply = 0x51,
    ReadIndex = 0x52,
    ReadIndexReply = 0x53,
    DigestQuery = 0x60,
    DigestReport = 0x61,
}

impl FrameKind {
    /// Every kind, in the order of the numbers.
    pub const ALL: [Self; 32] = [
        Self::Hello,
        Self::Welcome,
        Self::Confirm,
        Self::Ready,
        Self::Refused,
        Self::Lineage,
        Self::LineageRefused,
        Self::Introduce,
        Self::EntryOneRequest,
        Self::EntryOne,
        Self::FormationRefused,
        Self::PreVote,
        Self::PreVoteReply,
        Self::Vote,
        Self::VoteReply,
        Self::Append,
        Self::AppendReply,
        Self::Heartbeats,
        Self::HeartbeatReplies,
        Self::TimeoutNow,
        Self::Removed,
        Self::SnapshotStart,
        Self::SnapshotChunk,
        Self::SnapshotProgress,
        Self::SnapshotRefused,
        Self::Fragment,
        Self::Forward,
        Self::ForwardReply,
        Self::ReadIndex,
        Self::ReadIndexReply,
        Self::DigestQuery,
        Self::DigestReport,
    ];

    /// The kind with this number; `None` if no version known here has it.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// A frame on its way out, before its header is filled in: the metadata grows behind room for the header, so that head
/// and metadata are one allocation and no byte is moved.
pub(super) struct FrameDraft {
    /// Room for the header, then metadata.
    pub(super) head: Vec<u8>,
}

impl FrameDraft {
    /// Encodes the metadata; `capacity_bytes` is a guess at its length.
    pub(super) fn with<T: Serialize>(metadata: &T, capacity_bytes: usize) -> Self {
        let mut head = Vec::with_capacity(HEADER_BYTES + capacity_bytes);
        head.resize(HEADER_BYTES, 0);
        codec::encode_into(metadata, &mut head);
        Self { head }
    }

    pub(super) fn metadata_length(&self) -> usize {
        self.head.len() - HEADER_BYTES
    }

    /// Fills the header in.
    ///
    /// # Panics
    /// If the frame is longer than [`MAX_FRAME_BYTES`]: the caller should have cut fragments.
    pub(super) fn finish(self, kind: FrameKind, group: GroupId, payloads: Vec<Bytes>) -> Frame {
        let Self { mut head } = self;
        let payload_length: usize = payloads.iter().map(Bytes::len).sum();
        assert!(head.len() + payload_length <= MAX_FRAME_BYTES, "a frame holds at most {MAX_FRAME_BYTES} bytes");
        let header = Header {
            kind,
            group,
            metadata_length: (head.len() - HEADER_BYTES) as u32,
            payload_length: payload_length as u32,
        };
        head[..CRC_OFFSET].copy_from_slice(&header.encode());
        let crc = header_crc(&head);
        head[CRC_OFFSET..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        Frame { head: Bytes::from(head), payloads }
    }
}

/// CRC32C of a head: the header but for its CRC, then the metadata.
fn header_crc(head: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&head[..CRC_OFFSET]), &head[HEADER_BYTES..])
}

/// The fixed part of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Header {
    kind: FrameKind,
    group: GroupId,
    metadata_length: u32,
    payload_length: u32,
}

impl Header {
    fn encode(self) -> [u8; CRC_OFFSET] {
        let mut bytes = [0; CRC_OFFSET];
        bytes[..3].copy_from_slice(&MAGIC);
        bytes[3] = LAYOUT;
        bytes[4] = self.kind as u8;
        // Bytes 5 to 7 are reserved for flags and are zero.
        bytes[8..16].copy_from_slice(&self.group.0.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.metadata_length.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.payload_length.to_le_bytes());
        bytes
    }

    /// Reads the header that `bytes` begin with, and checks all of it but the CRC.
    fn parse(bytes: &[u8], limit: usize) -> Result<Self, Violation> {
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk().expect("the caller has a whole header");
        let [m0, m1, m2, layout, kind, r0, r1, r2, ..] = *bytes;
        if [m0, m1, m2] != MAGIC {
            return Err(Violation::NotAFrame { found: [m0, m1, m2] });
        }
        if layout != LAYOUT {
            return Err(Violation::FrameVersion { version: layout });
        }
        let kind = FrameKind::from_number(kind).ok_or(Violation::UnknownKind { kind })?;
        if [r0, r1, r2] != [0; 3] {
            return Err(Violation::ReservedBits);
        }
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let group = GroupId(u64::from(word(8)) | u64::from(word(12)) << 32);
        let header = Self { kind, group, metadata_length: word(16), payload_length: word(20) };
        let length = HEADER_BYTES as u64 + u64::from(header.metadata_length) + u64::from(header.payload_length);
        if length > limit as u64 {
            return Err(Violation::FrameTooLong { bytes: length, limit });
        }
        Ok(header)
    }

    /// The whole frame's length in bytes; within the limit that it was parsed with.
    fn frame_length(self) -> usize {
        HEADER_BYTES + self.metadata_length as usize + self.payload_length as usize
    }
}

/// A frame that came whole, its head verified. Its payload is not: the metadata says how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ReceivedFrame {
    pub(super) kind: FrameKind,
    pub(super) group: GroupId,
    pub(super) metadata: Bytes,
    pub(super) payload: Bytes,
}

/// Cuts a stream of bytes into frames. A frame that lies whole in a received buffer is a slice of it; only one that
/// is spread over several is put together, in memory of at most one frame.
#[derive(Default)]
pub(super) struct FrameCutter {
    /// The beginning of a frame whose rest has not come.
    partial: Vec<u8>,
}

impl FrameCutter {
    /// Whether a frame has begun and not ended.
    pub(super) fn is_inside_frame(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Takes the next frame, of at most `limit` bytes, from what is left over and `input`. `None` means that all of
    /// `input` was taken and more is needed.
    pub(super) fn next(&mut self, input: &mut Bytes, limit: usize) -> Result<Option<ReceivedFrame>, Violation> {
        if self.partial.is_empty() {
            if input.len() >= HEADER_BYTES {
                let header = Header::parse(input, limit)?;
                if input.len() >= header.frame_length() {
                    return verified(header, input.split_to(header.frame_length()), true).map(Some);
                }
            } else if input.is_empty() {
                return Ok(None);
            }
        }
        if !self.fill(input, HEADER_BYTES)? {
            return Ok(None);
        }
        let header = Header::parse(&self.partial, limit)?;
        if !self.fill(input, header.frame_length())? {
            return Ok(None);
        }
        verified(header, Bytes::from(std::mem::take(&mut self.partial)), false).map(Some)
    }

    /// Moves bytes from `input` until `length` are together; whether they are.
    fn fill(&mut self, input: &mut Bytes, length: usize) -> Result<bool, Violation> {
        let missing = length.saturating_sub(self.partial.len());
        self.partial.try_reserve_exact(missing).map_err(|_| Violation::NoMemory { bytes: missing })?;
        let taken = input.split_to(missing.min(input.len()));
        self.partial.extend_from_slice(&taken);
        Ok(self.partial.len() >= length)
    }
}

/// Checks a whole frame's CRC and takes it apart. `is_shared` tells that `bytes` are part of a larger buffer.
fn verified(header: Header, bytes: Bytes, is_shared: bool) -> Result<ReceivedFrame, Violation> {
    let head_length = HEADER_BYTES + header.metadata_length as usize;
    let (head, payload) = bytes.split_at(head_length);
    let stored =
        u32::from_le_bytes([head[CRC_OFFSET], head[CRC_OFFSET + 1], head[CRC_OFFSET + 2], head[CRC_OFFSET + 3]]);
    if header_crc(head) != stored {
        return Err(Violation::HeadDamaged { kind: header.kind });
    }
    let payload = if is_shared && payload.len() < SHARE_FROM_BYTES {
        Bytes::copy_from_slice(payload)
    } else {
        bytes.slice(head_length..)
    };
    Ok(ReceivedFrame {
        kind: header.kind,
        group: header.group,
        metadata: bytes.slice(HEADER_BYTES..head_length),
        payload,
    })
}
