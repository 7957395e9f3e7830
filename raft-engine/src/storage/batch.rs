//! One batch as bytes: what one write to the log holds.
//!
//! ```text
//! header 96 | rows of 48, one an entry | control area: frames | payloads | zeros to a multiple of 4 KiB
//! ```
//!
//! The header's CRC covers header, rows and control area, so everything but payloads is under it; a row has its
//! payload's CRC. All integers are little-endian. docs/disk-format.md has every field.

use bytes::Bytes;

use super::segment::{BLOCK_BYTES, SegmentId, VERSION};
use crate::types::{AlignedBytes, Entry, EntryKind, GroupId, Index, LogTime, Term};

/// The length of a batch's header in bytes.
pub(super) const HEADER_BYTES: usize = 96;

/// The length of an entry's row in bytes.
pub(super) const ROW_BYTES: usize = 48;

/// The length of a control frame's own header in bytes.
pub(super) const FRAME_BYTES: usize = 8;

const MAGIC: [u8; 8] = *b"raftbtch";

/// A row's flag: the entry has been written before, and this copy is to take the other one's place.
const MOVED: u8 = 1;

/// What a batch is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BatchKind {
    /// Records.
    Records = 1,
    /// The state of everything before the segment; first in it, and nowhere else.
    Checkpoint = 2,
}

/// What a batch says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BatchHead {
    pub(super) kind: BatchKind,
    /// Grows by one with each batch of the log.
    pub(super) sequence: u64,
    pub(super) segment: SegmentId,
    /// The synced position known when it was written: every byte of the segments before `synced_segment`, and those
    /// of it below `synced_offset`, were durable.
    pub(super) synced_segment: u32,
    /// Offset in bytes within `synced_segment`.
    pub(super) synced_offset: u64,
    /// The incarnation that wrote it.
    pub(super) incarnation: u64,
}

/// An entry but for its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Row {
    pub(super) group: GroupId,
    pub(super) index: Index,
    pub(super) term: Term,
    pub(super) log_time: LogTime,
    pub(super) kind: EntryKind,
    pub(super) is_moved: bool,
    pub(super) payload_bytes: u32,
    pub(super) payload_crc: u32,
}

impl Row {
    /// The entry of this row with this payload.
    pub(super) fn entry(&self, payload: Bytes) -> Entry {
        Entry {
            index: self.index,
            term: self.term,
            log_time: self.log_time,
            kind: self.kind,
            payload_crc: self.payload_crc,
            payload,
        }
    }
}

/// One control record, and how many rows of its batch come before it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    pub(super) rows_before: u32,
    pub(super) body: Vec<u8>,
}

/// The length of a batch with these parts in bytes, padding included.
pub(super) fn batch_bytes(rows: usize, control_bytes: usize, payload_bytes: usize) -> u64 {
    let bytes = (HEADER_BYTES + rows * ROW_BYTES + control_bytes + payload_bytes) as u64;
    bytes.next_multiple_of(BLOCK_BYTES)
}

/// The bytes of a batch.
pub(super) fn encode<'a>(
    head: &BatchHead,
    entries: impl Iterator<Item = (GroupId, &'a Entry, bool)> + Clone,
    frames: &[Frame],
) -> AlignedBytes {
    let control_bytes: usize = frames.iter().map(|frame| FRAME_BYTES + frame.body.len()).sum();
    let (rows, payload_bytes) =
        entries.clone().fold((0, 0), |(rows, bytes), (_, entry, _)| (rows + 1, bytes + entry.payload.len()));
    let total = batch_bytes(rows, control_bytes, payload_bytes);
    let mut batch = AlignedBytes::with_capacity(total as usize);

    let mut bytes = [0; HEADER_BYTES];
    bytes[0..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&(VERSION as u16).to_le_bytes());
    bytes[10..12].copy_from_slice(&(head.kind as u16).to_le_bytes());
    bytes[16..20].copy_from_slice(&length(rows).to_le_bytes());
    bytes[20..24].copy_from_slice(&length(control_bytes).to_le_bytes());
    bytes[24..28].copy_from_slice(&length(payload_bytes).to_le_bytes());
    bytes[28..32].copy_from_slice(&head.segment.number.to_le_bytes());
    bytes[32..40].copy_from_slice(&head.sequence.to_le_bytes());
    bytes[40..56].copy_from_slice(&head.segment.nonce);
    bytes[56..64].copy_from_slice(&u64::from(head.synced_segment).to_le_bytes());
    bytes[64..72].copy_from_slice(&head.synced_offset.to_le_bytes());
    bytes[72..80].copy_from_slice(&head.incarnation.to_le_bytes());
    batch.extend_from_slice(&bytes);

    for (group, entry, is_moved) in entries.clone() {
        let mut row = [0; ROW_BYTES];
        row[0] = entry.kind as u8;
        row[1] = if is_moved { MOVED } else { 0 };
        row[4..8].copy_from_slice(&length(entry.payload.len()).to_le_bytes());
        row[8..16].copy_from_slice(&group.0.to_le_bytes());
        row[16..24].copy_from_slice(&entry.index.to_le_bytes());
        row[24..32].copy_from_slice(&entry.term.to_le_bytes());
        row[32..40].copy_from_slice(&entry.log_time.0.to_le_bytes());
        row[40..44].copy_from_slice(&entry.payload_crc.to_le_bytes());
        batch.extend_from_slice(&row);
    }
    for frame in frames {
        batch.extend_from_slice(&frame.rows_before.to_le_bytes());
        batch.extend_from_slice(&length(frame.body.len()).to_le_bytes());
        batch.extend_from_slice(&frame.body);
    }
    let crc = crc32c::crc32c(batch.as_slice());
    batch.as_mut_slice()[12..16].copy_from_slice(&crc.to_le_bytes());

    for (_, entry, _) in entries {
        batch.extend_from_slice(&entry.payload);
    }
    batch.zero_fill_to(total as usize);
    batch
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a batch is cut long before 4 GiB")
}

/// Why bytes are not a batch of the segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// No header of this segment, or its CRC does not fit.
    Header(&'static str),
    /// A payload's CRC does not fit; all else is whole.
    Payload { group: GroupId, index: Index },
    /// A whole batch that this version cannot read.
    Unknown(u32),
}

/// The lengths that a header claims, not verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Lengths {
    /// Header, rows and control area.
    pub(super) covered: u64,
    /// The whole batch with its padding.
    pub(super) total: u64,
}

/// What the header at the start of `bytes` claims, if it claims to be of this segment.
pub(super) fn lengths(bytes: &[u8], segment: SegmentId) -> Option<Lengths> {
    let bytes = bytes.get(..HEADER_BYTES)?;
    if bytes[..8] != MAGIC || bytes[40..56] != segment.nonce || u32_at(bytes, 28) != segment.number {
        return None;
    }
    let covered = HEADER_BYTES as u64 + u64::from(u32_at(bytes, 16)) * ROW_BYTES as u64 + u64::from(u32_at(bytes, 20));
    Some(Lengths { covered, total: (covered + u64::from(u32_at(bytes, 24))).next_multiple_of(BLOCK_BYTES) })
}

/// A batch whose header, rows and control area are whole.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) head: BatchHead,
    /// The whole batch with its padding.
    pub(super) total_bytes: u64,
    rows: usize,
    control_end: usize,
    bytes: Bytes,
}

/// Reads the header, rows and control area at the start of `bytes`, which must hold them.
pub(super) fn parse(bytes: &Bytes, segment: SegmentId) -> Result<Batch, Fault> {
    let lengths = lengths(bytes, segment).ok_or(Fault::Header("there is no batch of this segment"))?;
    if lengths.covered > bytes.len() as u64 {
        return Err(Fault::Header("the batch is longer than what is there"));
    }
    let control_end = lengths.covered as usize;
    let zeroed = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &[0; 4]);
    if crc32c::crc32c_append(zeroed, &bytes[16..control_end]) != u32_at(bytes, 12) {
        return Err(Fault::Header("the batch header's checksum does not fit"));
    }
    let version = u32::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    if version != VERSION {
        return Err(Fault::Unknown(version));
    }
    let kind = match u16::from_le_bytes([bytes[10], bytes[11]]) {
        1 => BatchKind::Records,
        2 => BatchKind::Checkpoint,
        _ => return Err(Fault::Unknown(version)),
    };
    let rows = u32_at(bytes, 16) as usize;
    for at in 0..rows {
        let row = HEADER_BYTES + at * ROW_BYTES;
        if EntryKind::from_number(bytes[row]).is_none() || bytes[row + 1] > MOVED {
            return Err(Fault::Unknown(version));
        }
    }
    Ok(Batch {
        head: BatchHead {
            kind,
            sequence: u64_at(bytes, 32),
            segment,
            synced_segment: u32::try_from(u64_at(bytes, 56)).unwrap_or(u32::MAX),
            synced_offset: u64_at(bytes, 64),
            incarnation: u64_at(bytes, 72),
        },
        total_bytes: lengths.total,
        rows,
        control_end,
        bytes: bytes.clone(),
    })
}

impl Batch {
    /// The rows with their payloads, in order. What [`Batch::verify_payloads`] passed is whole.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Row, std::ops::Range<usize>)> + '_ {
        let mut end = self.control_end;
        (0..self.rows).map(move |at| {
            let row = self.row(at);
            let start = end;
            end += row.payload_bytes as usize;
            (row, start..end)
        })
    }

    /// The bytes of a payload's range.
    pub(super) fn payload(&self, range: std::ops::Range<usize>) -> Bytes {
        self.bytes.slice(range)
    }

    fn row(&self, at: usize) -> Row {
        let row = &self.bytes[HEADER_BYTES + at * ROW_BYTES..][..ROW_BYTES];
        Row {
            kind: EntryKind::from_number(row[0]).expect("kinds are checked when the batch is parsed"),
            is_moved: row[1] == MOVED,
            payload_bytes: u32_at(row, 4),
            group: GroupId(u64_at(row, 8)),
            index: u64_at(row, 16),
            term: u64_at(row, 24),
            log_time: LogTime(u64_at(row, 32)),
            payload_crc: u32_at(row, 40),
        }
    }

    /// Whether every payload is the one that its row names.
    pub(super) fn verify_payloads(&self) -> Result<(), Fault> {
        for (row, range) in self.entries() {
            let fits = self.bytes.get(range).is_some_and(|payload| crc32c::crc32c(payload) == row.payload_crc);
            if !fits {
                return Err(Fault::Payload { group: row.group, index: row.index });
            }
        }
        Ok(())
    }

    /// The control frames: how many rows come before each, and its body. `Err` where the area is not made of frames.
    pub(super) fn frames(&self) -> Result<Vec<(u32, &[u8])>, String> {
        let mut area = &self.bytes[HEADER_BYTES + self.rows * ROW_BYTES..self.control_end];
        let mut frames = Vec::new();
        while !area.is_empty() {
            let header = area.get(..FRAME_BYTES).ok_or("a control frame is cut off")?;
            let (rows_before, length) = (u32_at(header, 0), u32_at(header, 4) as usize);
            let body = area.get(FRAME_BYTES..FRAME_BYTES + length).ok_or("a control frame is cut off")?;
            frames.push((rows_before, body));
            area = &area[FRAME_BYTES + length..];
        }
        Ok(frames)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
