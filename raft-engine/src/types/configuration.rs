//! Who takes part in a group (§6).

use serde::{Deserialize, Serialize};

use super::{Identity, ServerId};

/// A server's place in a group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum MemberRole {
    /// Counts in elections and for commitment.
    Voter,
    /// Receives the log and counts for nothing (dissertation §4.2.1).
    Learner,
}

/// One server of a configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// Its id in the cluster.
    pub id: ServerId,
    /// Whether it counts.
    pub role: MemberRole,
    /// The data directory that the id belongs to; nobody else's vote or acknowledgement counts.
    pub identity: Identity,
    /// Where its peers dial it, as `host:port`.
    pub address: String,
    /// Bytes of the host, opaque to the engine; a client address, say. At most 1 KiB.
    pub context: Vec<u8>,
}

/// The members of a group, as an entry of its log: in force from when it is appended, undone when it is truncated.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Configuration {
    /// Sorted by id, without repeats.
    pub members: Vec<Member>,
    /// Voters of the outgoing configuration while a change is joint; empty otherwise. Sorted.
    pub outgoing_voters: Vec<ServerId>,
    /// The highest id that the group ever used: an id is never used again.
    pub highest_id: ServerId,
}

impl Configuration {
    /// The member with this id, voter or learner.
    pub fn member(&self, id: ServerId) -> Option<&Member> {
        self.members.binary_search_by_key(&id, |member| member.id).ok().map(|at| &self.members[at])
    }

    /// The voters of the incoming configuration, in order of id.
    pub fn voters(&self) -> impl Iterator<Item = ServerId> + '_ {
        self.members.iter().filter(|member| member.role == MemberRole::Voter).map(|member| member.id)
    }

    /// Whether `id` votes, in the incoming or in the outgoing configuration.
    pub fn is_voter(&self, id: ServerId) -> bool {
        self.outgoing_voters.contains(&id) || self.voters().any(|voter| voter == id)
    }
}
