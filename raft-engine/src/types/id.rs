//! Who is who. All of these cross the wire and the disk.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A server's id within its cluster: chosen by the operator, never zero, never used again for another directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ServerId(pub u64);

/// One Raft log and the state machine that it drives. In every frame and every log record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct GroupId(pub u64);

/// The name that an operator gives to servers that belong together: 1 to 64 bytes of UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ClusterId(String);

impl ClusterId {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 64;

    /// `None` if the name is empty or longer than [`ClusterId::MAX_BYTES`].
    pub fn new(name: impl Into<String>) -> Option<Self> {
        let name = name.into();
        (!name.is_empty() && name.len() <= Self::MAX_BYTES).then_some(Self(name))
    }

    /// The name as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// 128 random bits made with a data directory. A server id belongs to one identity for ever, so that a wiped or copied
/// directory under an old id can be told from the one that voted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity(pub [u8; 16]);

/// One open of a data directory: a number that grows by one with each open, and a random nonce.
///
/// Ordered by number first. Two directories that went apart after a copy share numbers but not nonces.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Incarnation {
    /// 1 for the first open of a directory.
    pub number: u64,
    /// Random for each open.
    pub nonce: u64,
}

/// The SHA-256 of a group's entry 1, or of the entry of its latest recovery from the loss of its quorum
/// ([`super::QuorumRecovery`]). Groups with the same id and another lineage have nothing to say to each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lineage(pub [u8; 32]);

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({self})")
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lineage({self})")
    }
}
