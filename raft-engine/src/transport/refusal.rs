//! Refusals: why a peer is not talked to, in words that both sides report.

use serde::{Deserialize, Serialize};

use super::error::Violation;
use super::frame::{Frame, FrameKind};
use super::handshake::{frame, read};
use super::message::{cut, printable};

/// What kind of reason a refusal has. The numbers are on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusalKind {
    /// No protocol version is common.
    Version,
    /// The cluster ids differ.
    Cluster,
    /// The address leads to another server than the one wanted.
    WrongServer,
    /// Both sides have the same id.
    SameServer,
    /// The id belongs to another identity: a wiped, foreign or re-made directory.
    IdentityBound,
    /// The incarnation is older than one that was met, and its server does not know: a copy, or a replay.
    StaleIncarnation,
    /// The directory is a copy: its history lacks a pair that was met.
    Copy,
    /// The server does not take part any more.
    Stopped,
    /// A newer connection took the place of this one.
    Replaced,
    /// A number of a later version.
    Other(u16),
}

impl RefusalKind {
    const NUMBERED: [(u16, Self); 9] = [
        (1, Self::Version),
        (2, Self::Cluster),
        (3, Self::WrongServer),
        (4, Self::SameServer),
        (5, Self::IdentityBound),
        (6, Self::StaleIncarnation),
        (7, Self::Copy),
        (8, Self::Stopped),
        (9, Self::Replaced),
    ];

    /// The number on the wire.
    pub fn number(self) -> u16 {
        match self {
            Self::Other(number) => number,
            known => Self::NUMBERED.iter().find(|(_, kind)| *kind == known).expect("every kind has a number").0,
        }
    }

    /// The kind with this number.
    pub fn from_number(number: u16) -> Self {
        Self::NUMBERED.iter().find(|(known, _)| *known == number).map_or(Self::Other(number), |(_, kind)| *kind)
    }
}

/// Why a peer is refused: said to it, and reported on both sides.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// For programs.
    pub kind: RefusalKind,
    /// For people: what is wrong, with what, and what to do. Cut after 1 KiB.
    pub text: String,
}

impl Refusal {
    /// A refusal of this kind with this text.
    pub fn new(kind: RefusalKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}

/// Which side refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusedBy {
    /// This server.
    Us,
    /// The peer.
    Peer,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Refused {
    kind: u16,
    text: String,
}

/// The frame that says a refusal.
pub(super) fn refused_frame(refusal: &Refusal) -> Frame {
    frame(FrameKind::Refused, &Refused { kind: refusal.kind.number(), text: cut(&refusal.text).to_owned() })
}

/// Reads what [`refused_frame`] says.
pub(super) fn read_refusal(metadata: &[u8]) -> Result<Refusal, Violation> {
    let Refused { kind, text } = read(FrameKind::Refused, metadata)?;
    Ok(Refusal { kind: RefusalKind::from_number(kind), text: printable(text) })
}
