//! Transport: what bytes go to whom, as pure state machines. Bytes in, bytes and events out.
//!
//! A [`Connection`] is one stream to or from a peer: its handshake, its frames, its fragments, and what waits to be
//! sent. A [`Backoff`] says when to dial again. [`PeerMessage`] is everything that crosses between two servers once they
//! have met. Nothing here touches a socket or a clock, takes a decision of Raft, or knows what is on the disk: what a
//! handshake needs to know of the server, it asks of a [`Registry`].
//!
//! Layouts, byte by byte, are in docs/wire-format.md.

mod backoff;
mod connection;
mod error;
mod forward;
mod fragment;
mod frame;
mod handshake;
mod heartbeats;
mod message;
mod outbox;
mod refusal;

pub use backoff::Backoff;
pub use connection::{Connection, ConnectionEvent, ConnectionLimits};
pub use error::Violation;
pub use forward::{ForwardAnswer, ForwardRefusal, RequestId};
pub use frame::{Frame, FrameKind, HEADER_BYTES, MAX_FRAME_BYTES};
pub use handshake::{Holds, Local, PROTOCOL_VERSION, Peer, Purpose, Registry};
pub use heartbeats::{HeartbeatReplyRow, HeartbeatRow};
pub use message::{ENTRY_ROW_BYTES, PeerMessage, SnapshotRefusal, core_messages};
pub use refusal::{Refusal, RefusalKind, RefusedBy};

#[cfg(test)]
mod tests;
