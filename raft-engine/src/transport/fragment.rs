//! Fragments: a message longer than a frame, cut into frames between which smaller messages get through.
//!
//! One message a connection is open at a time, and its fragments come in order; half a message dies with its
//! connection. The receiver's memory grows with the bytes that came, never with the length that was claimed.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::error::Violation;
use super::frame::{Frame, FrameDraft, FrameKind, HEADER_BYTES, MAX_FRAME_BYTES};
use super::message::Encoded;
use crate::codec;
use crate::types::GroupId;

/// The metadata of a fragment; its payload is a piece of the message's metadata and payload, taken as one run of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct FragmentHead {
    /// Counts the fragmented messages of a connection, from 0.
    message: u64,
    /// The kind of the message.
    kind: u8,
    /// How many of the message's bytes are its metadata.
    metadata_length: u32,
    /// All bytes of the message: metadata and payload.
    message_length: u32,
    /// Where this piece begins.
    offset: u32,
    /// CRC32C of this piece.
    crc: u32,
}

/// The length of an encoded [`FragmentHead`] in bytes.
const FRAGMENT_HEAD_BYTES: usize = 25;

/// The most of a message that one fragment carries, in bytes.
const PIECE_BYTES: usize = MAX_FRAME_BYTES - HEADER_BYTES - FRAGMENT_HEAD_BYTES;

/// A message being cut: hands out one fragment after the other.
pub(super) struct Fragmenter {
    group: GroupId,
    next: FragmentHead,
    rest: VecDeque<Bytes>,
}

impl Fragmenter {
    /// Cuts `encoded`, the `message`-th fragmented message of its connection.
    ///
    /// # Panics
    /// If the message is 4 GiB long or longer; the settings forbid such entries.
    pub(super) fn new(encoded: Encoded, group: GroupId, message: u64) -> Self {
        let metadata_length = encoded.draft.metadata_length();
        let message_length = encoded.frame_bytes() - HEADER_BYTES;
        let metadata = Bytes::from(encoded.draft.head).slice(HEADER_BYTES..);
        let next = FragmentHead {
            message,
            kind: encoded.kind as u8,
            metadata_length: u32::try_from(metadata_length).expect("metadata is part of the message"),
            message_length: u32::try_from(message_length).expect("a message is shorter than 4 GiB"),
            offset: 0,
            crc: 0,
        };
        let rest = std::iter::once(metadata).chain(encoded.payloads).filter(|piece| !piece.is_empty()).collect();
        Self { group, next, rest }
    }

    /// How many bytes of the message are not handed out yet.
    pub(super) fn remaining_bytes(&self) -> usize {
        (self.next.message_length - self.next.offset) as usize
    }

    /// The next fragment; `None` after the last.
    pub(super) fn next_frame(&mut self) -> Option<Frame> {
        let mut missing = self.remaining_bytes().min(PIECE_BYTES);
        if missing == 0 {
            return None;
        }
        let length = missing;
        let mut payloads = Vec::new();
        let mut crc = 0;
        while missing > 0 {
            let piece = self.rest.front_mut().expect("the message's length is that of its pieces");
            let taken = piece.split_to(missing.min(piece.len()));
            if piece.is_empty() {
                self.rest.pop_front();
            }
            missing -= taken.len();
            crc = crc32c::crc32c_append(crc, &taken);
            payloads.push(taken);
        }
        let draft = FrameDraft::with(&FragmentHead { crc, ..self.next }, FRAGMENT_HEAD_BYTES);
        self.next.offset += length as u32;
        Some(draft.finish(FrameKind::Fragment, self.group, payloads))
    }
}

/// A message put together again.
pub(super) struct Reassembled {
    pub(super) kind: FrameKind,
    pub(super) metadata: Bytes,
    pub(super) payload: Bytes,
}

/// Puts fragments together, one message at a time.
pub(super) struct Reassembly {
    /// The longest message taken, in bytes.
    limit: usize,
    /// How many messages were put together.
    finished: u64,
    open: Option<Open>,
}

struct Open {
    group: GroupId,
    /// As its first fragment named it, with the offset of the fragment that must come next.
    head: FragmentHead,
    bytes: Vec<u8>,
}

impl Reassembly {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, finished: 0, open: None }
    }

    /// Whether a message has begun and not ended.
    pub(super) fn is_inside_message(&self) -> bool {
        self.open.is_some()
    }

    /// Takes a fragment; the message, if it was the last one.
    pub(super) fn receive(
        &mut self,
        group: GroupId,
        metadata: &[u8],
        piece: &[u8],
    ) -> Result<Option<Reassembled>, Violation> {
        let head: FragmentHead =
            codec::decode(metadata).map_err(|error| Violation::Metadata { kind: FrameKind::Fragment, error })?;
        if piece.is_empty() {
            return Err(Violation::Fragment { detail: "it is empty" });
        }
        if crc32c::crc32c(piece) != head.crc {
            return Err(Violation::PieceDamaged { kind: FrameKind::Fragment });
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin(group, head)?,
        };
        if open.group != group || (FragmentHead { crc: open.head.crc, ..head }) != open.head {
            return Err(Violation::Fragment { detail: "it is of another message, or not the next of this one" });
        }
        if piece.len() > (head.message_length - head.offset) as usize {
            return Err(Violation::Fragment { detail: "it reaches beyond its message" });
        }
        reserve(&mut open.bytes, piece.len(), head.message_length as usize)?;
        open.bytes.extend_from_slice(piece);
        open.head.offset = open.bytes.len() as u32;
        if open.head.offset < head.message_length {
            self.open = Some(open);
            return Ok(None);
        }
        self.finished += 1;
        let kind = FrameKind::from_number(head.kind).ok_or(Violation::UnknownKind { kind: head.kind })?;
        let mut metadata = Bytes::from(open.bytes);
        let payload = metadata.split_off(head.metadata_length as usize);
        Ok(Some(Reassembled { kind, metadata, payload }))
    }

    /// A new message: its first fragment must be in order, and its claims within bounds.
    fn begin(&self, group: GroupId, head: FragmentHead) -> Result<Open, Violation> {
        if head.message != self.finished || head.offset != 0 {
            return Err(Violation::Fragment { detail: "its message did not begin on this connection" });
        }
        if head.message_length as usize > self.limit {
            return Err(Violation::MessageTooLong { bytes: head.message_length.into(), limit: self.limit });
        }
        if head.metadata_length > head.message_length {
            return Err(Violation::Fragment { detail: "its metadata is longer than its message" });
        }
        FrameKind::from_number(head.kind).ok_or(Violation::UnknownKind { kind: head.kind })?;
        Ok(Open { group, head, bytes: Vec::new() })
    }
}

/// Makes room for `more` bytes: at most twice what came, and at most what the message needs.
fn reserve(bytes: &mut Vec<u8>, more: usize, most: usize) -> Result<(), Violation> {
    if bytes.capacity() - bytes.len() >= more {
        return Ok(());
    }
    let wanted = (bytes.len() + more).max(2 * bytes.len()).min(most) - bytes.len();
    bytes.try_reserve_exact(wanted).map_err(|_| Violation::NoMemory { bytes: wanted })
}
