//! What a host may ask at any time.

use std::sync::Arc;

use super::group::{Group, Phase};
use super::{Driver, Role};
use crate::types::{Configuration, DigestCheck, Divergence, GroupId, Identity, Incarnation, Index, ServerId, Term};

/// The state of a group at this server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupStatus {
    /// What this server is in it.
    pub role: Role,
    /// The current term.
    pub term: Term,
    /// Whom this server believes to lead.
    pub leader: Option<ServerId>,
    /// The commit index, as far as it is known here.
    pub commit: Index,
    /// The last entry handed to the state machine.
    pub delivered: Index,
    /// The last entry that the state machine has applied.
    pub applied: Index,
    /// The last entry of the log.
    pub last: Index,
    /// The last entry on this server's own disk.
    pub durable: Index,
    /// The last entry that a snapshot covers; 0 if there is none.
    pub snapshot: Index,
    /// Why the group stopped, if it did.
    pub stopped: Option<String>,
    /// The configuration in force; `None` before the group is formed.
    pub configuration: Option<Arc<Configuration>>,
    /// At the leader, the last entry that each learner holds durably: how far those are that a change waits for.
    pub learners: Vec<(ServerId, Index)>,
    /// To whom this leader is handing over.
    pub transferring_to: Option<ServerId>,
    /// The entry that removed this server from the group, as far as it knows.
    pub removed: Option<Index>,
    /// The latest comparison of replicas that this server knows of since its start: one that it made as the leader, or one
    /// in which they differ, which the log tells.
    pub digest_check: Option<Arc<DigestCheck>>,
    /// This replica's state is not the majority's: why the group stopped.
    pub divergence: Option<Arc<Divergence>>,
}

/// The state of a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerStatus {
    /// Its id.
    pub id: ServerId,
    /// Its data directory.
    pub identity: Identity,
    /// This open of it.
    pub incarnation: Incarnation,
    /// Recovery is durable: the server may speak.
    pub ready: bool,
    /// Why the server stopped, if it did.
    pub stopped: Option<String>,
    /// Log writes since the open.
    pub log_writes: u64,
    /// The bytes of all live log segments.
    pub log_bytes: u64,
    /// Peers to whom messages can go now.
    pub connected_peers: Vec<ServerId>,
}

impl Driver {
    /// The state of a group, if it is started.
    pub fn group_status(&self, id: GroupId) -> Option<GroupStatus> {
        let group = self.groups.get(&id)?;
        let stopped = group.stopped.clone();
        Some(match &group.phase {
            Phase::Forming(_) | Phase::Joining(_) => GroupStatus {
                role: Role::Forming,
                term: 0,
                leader: None,
                commit: 0,
                delivered: 0,
                applied: 0,
                last: 0,
                durable: 0,
                snapshot: 0,
                stopped: stopped.or_else(|| group.refusal().cloned()),
                configuration: None,
                learners: Vec::new(),
                transferring_to: None,
                removed: None,
                digest_check: None,
                divergence: None,
            },
            Phase::Formed(formed) => GroupStatus {
                role: Group::role(group),
                term: formed.raft.hard_state().term,
                leader: formed.raft.leader(),
                commit: formed.raft.commit_index(),
                delivered: formed.raft.delivered_index(),
                applied: group.delivery.applied,
                last: formed.raft.last().index,
                durable: formed.raft.durable_index(),
                snapshot: self.storage.snapshot(id).map_or(0, |(meta, _)| meta.position.index),
                stopped,
                configuration: Some(formed.raft.configuration().clone()),
                learners: formed.raft.learners(),
                transferring_to: formed.raft.transferring_to(),
                removed: formed.raft.removed(),
                digest_check: group.digests.latest.clone(),
                divergence: group.digests.divergence.clone(),
            },
        })
    }

    /// The state of the server.
    pub fn server_status(&self) -> ServerStatus {
        ServerStatus {
            id: self.me.id,
            identity: self.identity,
            incarnation: self.incarnation,
            ready: self.is_ready,
            stopped: self.stopped.clone(),
            log_writes: self.log_writes,
            log_bytes: self.storage.log_bytes(),
            connected_peers: self.links.connected(),
        }
    }
}
