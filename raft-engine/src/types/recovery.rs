//! What the recovery of a group from the loss of its quorum writes into the log.

use serde::{Deserialize, Serialize};

use super::{ClusterId, Configuration, GroupId, Identity, Incarnation, Index, Lineage, Position, Term};

/// The terms of a group between two recoveries, and before the first, are of one age: the term of a recovery is a multiple
/// of this, and at least so much above any that its server knew of. The lost majority may have gone on for some terms, and
/// what is left of it may still; nothing that it ever says can reach the next age.
pub const TERMS_OF_AN_AGE: Term = 1 << 20;

/// The payload of an [`super::EntryKind::Recovery`]: what was done, so that the log itself tells. Its digest is the
/// group's lineage from there on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct QuorumRecovery {
    /// In force from this entry on: its only member is the server in whose directory this was done.
    pub configuration: Configuration,
    /// The cluster.
    pub cluster: ClusterId,
    /// The group in it.
    pub group: GroupId,
    /// The directory in which it was done.
    pub identity: Identity,
    /// The open of that directory in which it was done. Its nonce is random, so that no two recoveries give one lineage.
    pub incarnation: Incarnation,
    /// The lineage before.
    pub former_lineage: Lineage,
    /// The configuration in force before.
    pub former_configuration: Configuration,
    /// The latest term that the server knew of before.
    pub former_term: Term,
    /// The last entry before. It was kept, and so was everything before it.
    pub kept: Position,
    /// How far the server knew entries to be committed. Those behind it, through `kept`, may never have been: they are now.
    pub committed: Index,
}
