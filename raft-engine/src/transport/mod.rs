//! Frames, fragments, handshake.

use bytes::Bytes;

/// One frame, encoded: at most 128 KiB in all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Header and metadata.
    pub head: Bytes,
    /// Entry payloads, in order; never copied through a serializer.
    pub payloads: Vec<Bytes>,
}
