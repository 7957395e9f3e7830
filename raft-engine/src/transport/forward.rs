//! What a follower asks of its leader on behalf of its own host: proposals to append, and what a read must cover.
//!
//! A forward carries payloads as an Append does, raw behind the metadata, and has a row for each; the entries' places and
//! log times are the leader's to say.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::error::Violation;
use super::frame::FrameKind;
use crate::types::{EntryKind, Position, Proposed, ServerId};

/// Names a request of one server to its leader, and is repeated in the answer. Never used again by that server's
/// directory: numbers begin anew with each open, and the open's own number tells them apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct RequestId {
    /// The number of the asker's open ([`crate::types::Incarnation`]).
    pub incarnation: u64,
    /// Grows with every request of that open about the group.
    pub number: u64,
}

/// What a leader says to a forward.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ForwardAnswer {
    /// The first of the proposals has this place in the leader's log, and the others follow it. That is not to say that
    /// they are committed.
    Taken(Position),
    /// None of them is in any log, nor will be.
    Refused(ForwardRefusal),
}

/// Why a leader took nothing of a forward.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ForwardRefusal {
    /// It does not lead the term that the forward names; who does, as far as it knows.
    NotLeader(Option<ServerId>),
    /// What it has uncommitted fills its budget.
    Overloaded,
    /// One of them is longer than an entry may be there.
    TooLarge,
    /// Its disk has no room.
    DiskFull,
    /// It is handing leadership over.
    Transferring,
}

/// A proposal's metadata.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct ForwardRow {
    kind: u8,
    pub(super) length: u32,
    crc: u32,
}

impl ForwardRow {
    /// The length of an encoded row in bytes.
    pub(super) const BYTES: usize = 9;

    pub(super) fn of(proposed: &Proposed) -> Self {
        Self {
            kind: proposed.kind as u8,
            length: u32::try_from(proposed.payload.len()).expect("an entry is shorter than 4 GiB"),
            crc: crc32c::crc32c(&proposed.payload),
        }
    }
}

/// The proposals of these rows, their payloads cut from `payload` without a copy, and verified. The rows' lengths add up
/// to the payload's.
pub(super) fn scatter(rows: Vec<ForwardRow>, mut payload: Bytes) -> Result<Vec<Proposed>, Violation> {
    let kind = FrameKind::Forward;
    if rows.is_empty() {
        return Err(Violation::Value { kind, field: "number of proposals" });
    }
    let proposed = |row: ForwardRow| {
        let payload = payload.split_to(row.length as usize);
        if crc32c::crc32c(&payload) != row.crc {
            return Err(Violation::PieceDamaged { kind });
        }
        // The engine's own entries are made by a leader, and by nobody for it.
        let proposed = EntryKind::from_number(row.kind).map(|kind| Proposed { kind, payload });
        proposed.filter(Proposed::is_well_formed).ok_or(Violation::Value { kind, field: "proposal" })
    };
    rows.into_iter().map(proposed).collect()
}
