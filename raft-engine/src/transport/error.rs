//! What a peer can do wrong on a connection. Each of these closes the connection and nothing more: no term, no log and
//! no other peer is touched by it.

use crate::codec::CodecError;
use crate::types::{GroupId, Index};

use super::frame::FrameKind;

/// Why a connection is closed at once. Garbage, damage on the way and a peer that keeps no rule all end here; the way
/// on is a fresh connection.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    /// The first bytes of a frame are not ours: another program, or the wrong port.
    #[error("not a frame of this protocol: it begins with {found:02x?}")]
    NotAFrame {
        /// The bytes in the place of the magic.
        found: [u8; 3],
    },
    /// The frame layout is of a version that this program cannot read.
    #[error("frame layout {version} is unknown")]
    FrameVersion {
        /// The version named.
        version: u8,
    },
    /// A frame kind that no spoken version has.
    #[error("frame kind {kind:#04x} is unknown")]
    UnknownKind {
        /// The number named.
        kind: u8,
    },
    /// Bits that must be zero are not.
    #[error("reserved bits of a frame header are set")]
    ReservedBits,
    /// A frame longer than is allowed here. No memory was taken for it.
    #[error("a frame of {bytes} bytes is longer than the {limit} allowed here")]
    FrameTooLong {
        /// What the header claims, in bytes.
        bytes: u64,
        /// What is allowed, in bytes.
        limit: usize,
    },
    /// Header or metadata were damaged on the way.
    #[error("the header or metadata of a {kind:?} frame was damaged on the way (CRC32C)")]
    HeadDamaged {
        /// The kind that the header names, if that is true.
        kind: FrameKind,
    },
    /// Metadata that is no encoding of what the kind has.
    #[error("the metadata of a {kind:?} message: {error}")]
    Metadata {
        /// The kind of the message.
        kind: FrameKind,
        /// What is wrong with it.
        #[source]
        error: CodecError,
    },
    /// A value outside the range that the kind allows.
    #[error("a {kind:?} message with an impossible {field}")]
    Value {
        /// The kind of the message.
        kind: FrameKind,
        /// The field.
        field: &'static str,
    },
    /// The payload is not as long as the metadata says.
    #[error("the payload of a {kind:?} message has {found} bytes where its metadata names {named}")]
    PayloadLength {
        /// The kind of the message.
        kind: FrameKind,
        /// What the metadata adds up to, in bytes.
        named: u64,
        /// What came, in bytes.
        found: usize,
    },
    /// An entry's payload was damaged between the leader that made it and here.
    #[error("the payload of entry {index} is not the one that its leader made (CRC32C)")]
    EntryDamaged {
        /// The entry's index.
        index: Index,
    },
    /// A piece of a snapshot or of a fragmented message was damaged on the way.
    #[error("the payload of a {kind:?} message was damaged on the way (CRC32C)")]
    PieceDamaged {
        /// What kind of piece.
        kind: FrameKind,
    },
    /// A fragment that does not continue what is open on this connection.
    #[error("a fragment that continues nothing: {detail}")]
    Fragment {
        /// How it fails to fit.
        detail: &'static str,
    },
    /// A fragmented message longer than the longest entry allows. No memory was taken for it.
    #[error("a message of {bytes} bytes is longer than the {limit} allowed")]
    MessageTooLong {
        /// What the first fragment claims, in bytes.
        bytes: u64,
        /// What is allowed, in bytes.
        limit: usize,
    },
    /// There is no memory for what the peer sends.
    #[error("no memory for {bytes} bytes from a peer")]
    NoMemory {
        /// How many bytes were asked for.
        bytes: usize,
    },
    /// A kind that may not come at this point, or not on a connection of this purpose, or not from this side.
    #[error("a {kind:?} message out of turn")]
    OutOfTurn {
        /// The kind of the message.
        kind: FrameKind,
    },
    /// A group's message before the group's lineage was said on this connection.
    #[error("a {kind:?} message of group {group} before the group's lineage was said")]
    NoLineage {
        /// The group.
        group: GroupId,
        /// The kind of the message.
        kind: FrameKind,
    },
    /// A group's lineage said a second time on one connection.
    #[error("the lineage of group {group} was said twice")]
    LineageTwice {
        /// The group.
        group: GroupId,
    },
    /// More groups on one connection than are kept account of.
    #[error("lineages of more than {limit} groups on one connection")]
    TooManyGroups {
        /// How many are allowed.
        limit: usize,
    },
    /// The handshake did not end in time.
    #[error("the handshake did not end in time")]
    HandshakeTooSlow,
    /// Something was begun, and nothing of it came or went for too long.
    #[error("the peer stalled in the middle of a frame or message")]
    Stalled,
}
