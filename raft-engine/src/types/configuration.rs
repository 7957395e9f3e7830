//! Who takes part in a group (§6), and what all replicas of it must agree on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Identity, LogTime, ServerId};

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
    /// How much it is wanted as a leader, against the other voters: who has a lower priority waits longer before it
    /// campaigns, and with 0 longest of all. Safety does not depend on it, nor that there is a leader.
    pub priority: u8,
    /// The data directory that the id belongs to; nobody else's vote or acknowledgement counts.
    pub identity: Identity,
    /// Where its peers dial it, as `host:port`.
    pub address: String,
    /// Bytes of the host, opaque to the engine; a client address, say. At most 1 KiB.
    pub context: Vec<u8>,
}

impl Member {
    /// The priority of a member that nobody gave one.
    pub const USUAL_PRIORITY: u8 = 1;
}

/// The members of a group, as an entry of its log: in force from when it is appended, undone when it is truncated.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Configuration {
    /// Sorted by id, without repeats.
    pub members: Vec<Member>,
    /// Voters of the outgoing configuration while a change is joint; empty otherwise. Sorted. Each is a member as well:
    /// one that leaves, or is to vote no more, is a learner among `members`.
    pub outgoing_voters: Vec<ServerId>,
    /// The highest id that the group ever used: an id is never used again.
    pub highest_id: ServerId,
    /// The change in progress, so that whoever leads next goes on with it.
    pub change: Option<Change>,
    /// What every replica computes by.
    pub settings: GroupSettings,
}

/// A change of members in progress: first the *learner phase*, in which those who are to vote catch up; then, where the
/// voters change, the *joint phase* (§6), in which there is no way but forward; then it is over.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Change {
    /// The members once it is done. Sorted by id.
    pub target: Vec<Member>,
    /// Those that it added, as learners: if it is given up, they go.
    pub added: Vec<ServerId>,
    /// It is given up at this time of the group, if its joint phase has not begun.
    pub deadline: LogTime,
}

/// One part of a change of members, as an operator asks for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MemberChange {
    /// A new server, under an id above all that the group ever used; its data directory is met at its address.
    Add {
        /// Its id.
        id: ServerId,
        /// What it becomes once it has caught up.
        role: MemberRole,
        /// See [`Member::priority`].
        priority: u8,
        /// Where its peers dial it, as `host:port`.
        address: String,
        /// Opaque bytes of the host.
        context: Vec<u8>,
    },
    /// A member leaves.
    Remove {
        /// Which.
        id: ServerId,
    },
    /// A learner is promoted, or a voter demoted.
    SetRole {
        /// Which.
        id: ServerId,
        /// What it becomes.
        role: MemberRole,
    },
    /// How much a member is wanted as a leader.
    SetPriority {
        /// Which.
        id: ServerId,
        /// See [`Member::priority`].
        priority: u8,
    },
    /// A member moved.
    SetAddress {
        /// Which.
        id: ServerId,
        /// Where it is dialled from now on.
        address: String,
    },
    /// The host's bytes about a member change.
    SetContext {
        /// Which.
        id: ServerId,
        /// The new bytes.
        context: Vec<u8>,
    },
    /// What every replica computes by changes.
    SetSettings(GroupSettings),
}

/// What every replica of a group computes by: replicated, never local to a server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GroupSettings {
    /// How long a follower promises not to elect anybody else, for reads at the leader without a round (dissertation
    /// §6.4.1); zero: no such reads. More than a member's election timeout is as much as that.
    #[serde(with = "nanoseconds")]
    pub lease: Duration,
    /// A session that is not used for so long, in the group's own time, expires.
    #[serde(with = "nanoseconds")]
    pub session_expiry: Duration,
    /// Sessions that the group keeps: to open one more ends the one that was used least recently.
    pub max_sessions: u32,
    /// The replies that one session keeps for retries, in bytes.
    pub session_reply_bytes: u32,
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self {
            lease: Duration::ZERO,
            session_expiry: Duration::from_secs(3600),
            max_sessions: 4096,
            session_reply_bytes: 64 << 10,
        }
    }
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

    /// Whether a change is in its joint phase: every decision needs a majority of both configurations (§6).
    pub fn is_joint(&self) -> bool {
        !self.outgoing_voters.is_empty()
    }
}

/// A duration in the codec: its nanoseconds, as a u64.
mod nanoseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_nanos)
    }
}
