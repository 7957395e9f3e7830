//! What happens to a server, and what it wants done: the whole interface between the driver and whatever moves bytes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::transport::Frame;
use crate::types::{
    Configuration, DigestCheck, DiskDone, DiskError, DiskWork, DiskWorkId, Divergence, Entry, GroupId, GroupSettings,
    Identity, Index, Member, MemberChange, Proposed, ServerId, SnapshotMeta, SnapshotSection, StateDigest, Term,
};

/// One stream to or from a peer. The driver names those it dials with even numbers; the mover names those it accepts
/// with odd ones. Never used again within an incarnation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// Names one request of the host, opaque to the driver: handed back with its outcome, exactly once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket {
    /// Who asked: 0 for the group's completion stream, else a waiter that the mover knows.
    pub origin: u64,
    /// The host's tag.
    pub tag: u64,
}

/// What a host asks to append.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposal {
    /// Whom to tell.
    pub ticket: Ticket,
    /// What to append. May share a buffer with the rest of its batch.
    pub proposed: Proposed,
}

/// How fresh a read must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Consistency {
    /// Covers every write acknowledged anywhere before the read began (§6.4 of the dissertation).
    Linearizable,
    /// As linearizable, without a round of messages where the group's settings allow leases and this server holds one;
    /// else it is the same. Stands on clocks: every member's monotonic clock must run, while its machine does, at a rate
    /// within a tenth of the others', and a machine must not be suspended or migrated live.
    Lease,
    /// Covers at least this index, at this server.
    AtLeast(Index),
    /// Whatever is applied here now.
    Stale,
}

/// One member of a new group, as its operator names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberArgument {
    /// Its server id.
    pub id: ServerId,
    /// How much it is wanted as a leader ([`crate::types::Member::priority`]).
    pub priority: u8,
    /// Where its peers dial it.
    pub address: String,
    /// Opaque bytes of the host.
    pub context: Vec<u8>,
}

impl MemberArgument {
    /// A member of the usual priority, without context.
    pub fn new(id: ServerId, address: impl Into<String>) -> Self {
        Self { id, priority: Member::USUAL_PRIORITY, address: address.into(), context: Vec::new() }
    }
}

/// How a group comes to be on a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StartHow {
    /// Forms a new group with these members, all voters, and these settings; on a formed directory with the same
    /// arguments, a restart.
    Bootstrap {
        /// Every initial member.
        members: Vec<MemberArgument>,
        /// What every replica computes by.
        settings: GroupSettings,
    },
    /// Continues a group that the directory already holds.
    Restart,
    /// Waits to be added to a group that runs elsewhere; on a directory that holds it, a restart.
    Join {
        /// Where some of its members are dialled. They need not all be up, nor be all.
        contacts: Vec<String>,
    },
}

/// What happens to a server.
#[allow(missing_docs, reason = "the text of each variant tells of its fields")]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A submission to the disk ended.
    Disk { id: DiskWorkId, result: Result<DiskDone, DiskError> },
    /// A stream that [`Effect::Dial`] asked for stands.
    Dialled { connection: ConnectionId },
    /// A peer's stream was accepted.
    Accepted { connection: ConnectionId },
    /// Bytes of a stream, in order.
    Received { connection: ConnectionId, bytes: Bytes },
    /// So many bytes of the frames given to this stream have gone to the system.
    Sent { connection: ConnectionId, bytes: usize },
    /// A stream ended, or a dial failed. Said once for each stream that the driver did not close itself.
    Closed { connection: ConnectionId, refused: bool },
    /// The host starts a group; `applied` is what its own durable state already holds (0: nothing).
    StartGroup { group: GroupId, how: StartHow, applied: Index },
    /// The host proposes, wherever the leader is.
    Propose { group: GroupId, proposals: Vec<Proposal> },
    /// The host wants to read.
    Read { group: GroupId, ticket: Ticket, consistency: Consistency },
    /// The host wants other members. Given up after `patience` if those who are to vote were not met, or have not caught
    /// up.
    ChangeMembers { group: GroupId, ticket: Ticket, changes: Vec<MemberChange>, patience: Duration },
    /// The host wants the change in progress given up.
    CancelChange { group: GroupId, ticket: Ticket },
    /// The host wants `to` (or the best voter) to lead; given up after `patience`.
    TransferLeadership { group: GroupId, ticket: Ticket, to: Option<ServerId>, patience: Duration },
    /// The host asks for a snapshot now.
    Snapshot { group: GroupId, ticket: Ticket },
    /// The host wants the replicas' digests compared, of the entry that this appends. Whoever has not answered after
    /// `patience` is not waited for.
    CheckDigests { group: GroupId, ticket: Ticket, patience: Duration },
    /// The host's state machine has applied everything handed to it through `index`.
    Applied { group: GroupId, index: Index },
    /// The host's state machine failed at `index`, which is not applied. The group stops.
    ApplyFailed { group: GroupId, index: Index, message: String },
    /// What the state comes down to at the request at `index`, with everything through it applied
    /// ([`crate::session::Sessions::digested`]); `None` where the host gives no digests, or its state is further. `Err` where
    /// it failed to. Said once for each request that was handed over.
    Digested { group: GroupId, index: Index, digest: Result<Option<StateDigest>, String> },
    /// The verdict at `index`, the last entry handed over, goes against this state ([`crate::session::Sessions::judge`]): it
    /// is not applied, and the group stops.
    Diverged { group: GroupId, index: Index, divergence: Divergence },
    /// A step of writing the snapshot that [`Effect::BeginSnapshot`] began: first the sessions, piece by piece, as they were
    /// when it began ([`crate::session::Sessions::freeze`]); then what the host writes.
    SnapshotChunk { group: GroupId, section: SnapshotSection, bytes: Bytes, is_last: bool },
    /// The host could not write the snapshot; the log stays as it is.
    SnapshotFailed { group: GroupId, message: String },
    /// What [`Effect::Restore`] or [`Effect::RestoreSessions`] wanted restored now equals the snapshot.
    Restored { group: GroupId, index: Index },
    /// It could not be restored. The group stops.
    RestoreFailed { group: GroupId, message: String },
    /// The host closes the server: everything open completes, nothing more is sent.
    Close,
}

/// What a server wants done. Effects are carried out in order.
#[allow(missing_docs, reason = "the text of each variant tells of its fields")]
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Submit this to the disk.
    Disk { id: DiskWorkId, work: DiskWork },
    /// Open a stream to `address` (`host:port`).
    Dial { connection: ConnectionId, address: String },
    /// Send a frame; order holds within a connection.
    Send { connection: ConnectionId, frame: Frame },
    /// Close a stream once what was given to it is sent.
    Close { connection: ConnectionId },
    /// Take committed entries to the group's sessions ([`crate::session::Sessions::admit`]) and what these leave of them to
    /// the state machine, in log order. `tickets` name those that were proposed here, by position in `entries`, ascending;
    /// the mover completes them by what became of them. Where a host said at the start that it holds a state, these may begin
    /// before its end: the sessions need them, and it does not. A request for digests or a verdict on them is the last of
    /// its batch: behind everything else in it, [`Event::Digested`] or [`Event::Diverged`] is to be said.
    Apply { group: GroupId, entries: Vec<Entry>, tickets: Vec<(u32, Ticket)> },
    /// Proposals (or snapshot requests) that end otherwise.
    Complete { group: GroupId, tickets: Vec<Ticket>, outcome: Outcome },
    /// The read may be answered from the state machine as it is once `index` is applied.
    ReadReady { group: GroupId, ticket: Ticket, index: Index },
    /// Start a snapshot of the state machine between batches, once everything handed to it is applied: through exactly
    /// `index`. Then send [`Event::SnapshotChunk`] once for each [`Effect::SnapshotMore`].
    BeginSnapshot { group: GroupId, index: Index },
    /// Write the next step of the snapshot.
    SnapshotMore { group: GroupId },
    /// Drop the snapshot's source.
    ReleaseSnapshot { group: GroupId },
    /// Replace the sessions and the state machine by a local, complete, verified snapshot file.
    Restore { group: GroupId, file: crate::types::FileName, meta: SnapshotMeta },
    /// As [`Effect::Restore`], but for the state machine, whose own state is not behind that snapshot.
    RestoreSessions { group: GroupId, file: crate::types::FileName, meta: SnapshotMeta },
    /// The answer to [`Event::StartGroup`]: `Err` says why nothing was started, and what to do.
    Started { group: GroupId, result: Result<(), String> },
    /// Something that the host may want to know.
    Notice(Notice),
}

/// How a request ended, where it did not end as applied.
#[allow(missing_docs, reason = "the text of each variant tells of its fields")]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Certainly not applied: retrying is safe.
    NotApplied(NotApplied),
    /// May or may not be applied.
    Unknown(Unknown),
    /// A snapshot request is done: it covers this index.
    SnapshotTaken { index: Index },
    /// The members are as was asked: the entry at `index` is committed.
    MembersChanged { index: Index },
    /// The change of members was given up as was asked, by the entry at `index`.
    ChangeCancelled { index: Index },
    /// This server leads.
    LeadershipTransferred { to: ServerId },
    /// The replicas were compared. Where they differ, the log says so.
    DigestsChecked(Arc<DigestCheck>),
}

/// Why a request was certainly not applied.
#[allow(missing_docs, reason = "the text of each variant tells of its fields")]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotApplied {
    /// This server does not lead, and did not reach who does; `leader` is its best guess.
    NotLeader { leader: Option<ServerId> },
    /// A budget is full.
    Overloaded,
    /// Longer than an entry may be.
    TooLarge,
    /// The disk has no room.
    DiskFull,
    /// The server or group is closed, stopped, or not started.
    Closed,
    /// Another request of the same kind is in progress, or there is nothing to do.
    Busy,
    /// The group is not formed yet.
    Forming,
    /// Leadership is being handed over: its next leader is asked in a moment.
    Transferring,
    /// It asks for what cannot be; the text says what, and what to do.
    Invalid(String),
    /// Its time passed; the text says what was waited for.
    GivenUp(String),
    /// The operator cancelled it.
    Cancelled,
    /// The host's callback failed.
    Failed(String),
}

/// Why a request's outcome is unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unknown {
    /// Leadership was lost before the entry was committed; or, where another server leads, contact with it.
    LeadershipLost,
    /// Closed before the entry was applied.
    Closed,
    /// The group stopped (a failed callback, a failed disk) before the entry was applied.
    Stopped,
}

/// What a host may want to know without having asked.
#[allow(missing_docs, reason = "the text of each variant tells of its fields")]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// The group has its entry 1.
    Formed { group: GroupId },
    /// The role, term or leader changed.
    Role { group: GroupId, role: Role, term: Term, leader: Option<ServerId> },
    /// A configuration took effect (appended).
    Configuration { group: GroupId, configuration: Arc<Configuration> },
    /// This server was removed from the group, by the entry at `index`. It follows if a leader still speaks to it, and
    /// campaigns no more; its data may go once nobody needs it.
    Removed { group: GroupId, index: Index },
    /// Replicas of the group differ, as a verdict in its log says. Whose state is not the majority's stops next.
    Diverged { group: GroupId, check: Arc<DigestCheck> },
    /// The group stopped; the server goes on.
    GroupStopped { group: GroupId, reason: String },
    /// The server stopped: its log failed, or it may not take part. It lives only to answer.
    ServerStopped { reason: String },
    /// A peer was refused, or refused us, with the reason and the remedy.
    Refused { peer: Option<ServerId>, identity: Option<Identity>, reason: String },
    /// Something odd that costs nothing yet.
    Warning { message: String },
}

/// What a server is in a group (§5.1, Figure 4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    /// Not formed yet, or not joined.
    Forming,
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether it would be voted for (dissertation §9.6).
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}
