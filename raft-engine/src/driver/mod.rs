//! One whole server as an event-in, effect-out machine: its groups, its log, its connections, its timers.
//!
//! The real server and the simulator run this same machine; they move bytes and decide nothing. A turn is: any number of
//! [`Driver::handle`], one [`Driver::flush`], then the effects are carried out in order. Nothing here waits, and time is
//! an argument. Below the driver lie `core` (Raft for one group), `storage` (what bytes go where on disk) and
//! `transport` (what bytes go to whom); the driver is the only one that knows all three, and they do not know each other.
//! Beside them lies `session`, which belongs to the applying of entries: whoever moves these to the state machine holds a
//! [`Sessions`] for each group and takes them through it first.
//!
//! Architecture invariant: a message of the core leaves only through `Effect::Send` of the core, which comes after what
//! it stands on is durable; the driver never holds a message back, nor lets one go early.

mod caches;
mod changes;
mod delivery;
mod digests;
mod entropy;
mod event;
mod formation;
mod forwarding;
mod group;
mod groups;
mod heartbeats;
mod joining;
mod links;
mod log;
mod meeting;
mod members;
mod messages;
mod observe;
mod offline;
mod reclaim;
mod settings;
mod snapshots;
mod status;
mod suspicion;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

pub use self::event::{
    ConnectionId, Consistency, Effect, Event, MemberArgument, NotApplied, Notice, Outcome, Proposal, Role, StartHow,
    Ticket, Unknown,
};
pub use self::forwarding::ForwardCounts;
pub use self::observe::{Observed, RareCounts, core_messages};
pub use self::offline::{
    DirectoryReport, GroupReport, Recovered, Recovery, RecoveryRefusal, RecoveryRequest, check_directory, inspect,
};
pub use self::settings::Settings;
pub use self::status::{GroupStatus, ServerStatus};
pub use crate::session::{Admitted, Fate, FrozenSessions, Reply, Sessions, SessionsReader, digest_check};
pub use crate::storage::SnapshotReader;
pub use crate::transport::{Frame, MAX_FRAME_BYTES};

use self::caches::Caches;
use self::group::{Group, Phase, Told};
use self::groups::Groups;
use self::links::Links;
use self::reclaim::Reclaim;
use crate::core::{self, Mark, Persist};
use crate::storage::{ReadToken, Record, RecordNumber, RecoveredGroup, Storage, StorageOptions};
use crate::transport::PeerMessage;
use crate::types::{ClusterId, GroupId, Identity, Incarnation, ReadFiles, ServerId, Time};

/// An idle server names its synced position after this long.
const WATERMARK_AFTER: Duration = Duration::from_millis(100);

/// Entries read from the log for one peer at a time, in bytes.
const FETCH_BYTES: usize = 512 << 10;

/// Whose server it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Me {
    /// The cluster that it belongs to.
    pub cluster: ClusterId,
    /// Its id in it.
    pub id: ServerId,
}

/// Why a data directory was not opened. Nothing in it was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// A setting is out of its bounds.
    #[error("{0}")]
    Settings(String),
    /// The directory cannot be used: the text names the file, the place and the remedy.
    #[error("{0}")]
    Storage(#[from] crate::storage::StorageError),
}

/// What a read of the disk is for.
#[derive(Clone, Copy, Debug)]
enum ReadPurpose {
    /// Entries for the state machine.
    Apply(GroupId),
    /// Entries for a peer.
    Fetch(GroupId, ServerId),
    /// A chunk of a snapshot file for a peer, in the stream of this number.
    Chunk(GroupId, ServerId, u64),
}

/// Reads on their way.
#[derive(Debug, Default)]
struct Reads {
    last: u64,
    waiting: BTreeMap<ReadToken, ReadPurpose>,
}

impl Reads {
    fn begin(&mut self, purpose: ReadPurpose) -> ReadToken {
        self.last += 1;
        self.waiting.insert(ReadToken(self.last), purpose);
        ReadToken(self.last)
    }
}

/// One server.
pub struct Driver {
    settings: Settings,
    me: Me,
    random: fastrand::Rng,
    identity: Identity,
    incarnation: Incarnation,
    /// The opens of this directory, this one last.
    history: Vec<Incarnation>,
    /// The incarnation remembered of each peer's directory.
    remembered: BTreeMap<Identity, Incarnation>,
    /// Ids that committed configurations bind to a directory.
    bound: BTreeMap<ServerId, Identity>,
    storage: Storage,
    links: Links,
    groups: Groups,
    /// Groups that the directory holds and nobody has started.
    recovered: BTreeMap<GroupId, RecoveredGroup>,
    /// Entries 1 that are not durable yet.
    forming_records: Vec<(RecordNumber, GroupId)>,
    /// Which mark of which core is durable with which record, ascending by record.
    marks: VecDeque<(RecordNumber, GroupId, Mark)>,
    /// Marks of own snapshots that are not durable yet.
    snapshot_records: Vec<(RecordNumber, GroupId)>,
    /// Groups whose commit index is further than the log says: the next write brings it.
    unrecorded_commits: Vec<GroupId>,
    /// Groups that wait for an answer of their leader: a route that is lost concerns them.
    forwarders: BTreeSet<GroupId>,
    reads: Reads,
    reclaim: Reclaim,
    caches: Caches,
    /// What recovery kept is durable: the server may speak.
    is_ready: bool,
    is_closed: bool,
    /// Why the server stopped, if it did.
    stopped: Option<String>,
    /// Since when the last write is not named as synced.
    idle_since: Option<Time>,
    effects: Vec<Effect>,
    log_writes: u64,
    /// When the log write under way was cut, and what a write takes, a running mean.
    write_began: Option<Time>,
    sync_time: Duration,
    /// The host was told that the election timeout is short for this network and disk.
    is_warned_of_slowness: bool,
    /// How often a group was told that its leader's process died.
    suspicions: u64,
    forward_counts: ForwardCounts,
    rare: RareCounts,
}

impl Driver {
    /// Opens a data directory (an empty one is made into a new server's) and queues the disk work that makes what
    /// recovery kept durable. `seed` is 32 fresh random bytes: identity, nonces and timeouts come from it, and the same
    /// seed and events give the same effects.
    ///
    /// # Errors
    /// Settings out of bounds, or a directory that cannot be used; nothing in it was changed.
    pub fn open(
        settings: Settings,
        me: Me,
        files: &mut dyn ReadFiles,
        seed: [u8; 32],
        _now: Time,
    ) -> Result<Self, OpenError> {
        settings.check().map_err(OpenError::Settings)?;
        let options = StorageOptions {
            cluster: me.cluster.clone(),
            server: me.id,
            segment_bytes: settings.segment_bytes,
            batch_bytes: settings.batch_bytes,
            tail_bytes: settings.cache_bytes,
        };
        let (storage, recovered) = Storage::open(options, files, seed)?;
        let torn_tails = u64::from(recovered.cut.is_some());
        Ok(Self {
            random: fastrand::Rng::with_seed(entropy::timeout_seed(seed)),
            settings,
            me,
            identity: recovered.identity,
            incarnation: recovered.incarnation,
            history: recovered.history,
            remembered: recovered.peers,
            bound: BTreeMap::new(),
            storage,
            links: Links::default(),
            groups: Groups::default(),
            recovered: recovered.groups.into_iter().map(|group| (group.group, group)).collect(),
            forming_records: Vec::new(),
            marks: VecDeque::new(),
            snapshot_records: Vec::new(),
            unrecorded_commits: Vec::new(),
            forwarders: BTreeSet::new(),
            reads: Reads::default(),
            reclaim: Reclaim::default(),
            caches: Caches::default(),
            is_ready: false,
            is_closed: false,
            stopped: None,
            idle_since: None,
            effects: Vec::new(),
            log_writes: 0,
            write_began: None,
            sync_time: Duration::ZERO,
            is_warned_of_slowness: false,
            suspicions: 0,
            forward_counts: ForwardCounts::default(),
            rare: RareCounts { torn_tails, ..RareCounts::default() },
        })
    }

    /// Takes one event. Effects gather until [`Driver::flush`].
    pub fn handle(&mut self, now: Time, event: Event) {
        match event {
            Event::Disk { id, result } => {
                self.storage.complete(id, result);
                self.on_storage_events(now);
            }
            Event::Dialled { connection } => self.on_dialled(now, connection),
            Event::Accepted { connection } => self.on_accepted(now, connection),
            Event::Received { connection, bytes } => self.on_received(now, connection, bytes),
            Event::Sent { connection, bytes } => self.on_sent(now, connection, bytes),
            Event::Closed { connection, refused } => self.on_closed(now, connection, refused),
            Event::StartGroup { group, how, applied } => {
                let result = self.on_start_group(now, group, how, applied);
                self.effects.push(Effect::Started { group, result });
            }
            Event::Propose { group, proposals } => self.on_propose(now, group, proposals),
            Event::Read { group, ticket, consistency } => self.on_read(now, group, ticket, consistency),
            Event::ChangeMembers { group, ticket, changes, patience } => {
                self.on_change_members(now, group, ticket, changes, patience);
            }
            Event::CancelChange { group, ticket } => self.on_cancel_change(now, group, ticket),
            Event::TransferLeadership { group, ticket, to, patience } => {
                self.on_transfer_leadership(now, group, ticket, to, patience);
            }
            Event::Snapshot { group, ticket } => self.on_snapshot_asked(now, group, ticket),
            Event::CheckDigests { group, ticket, patience } => self.on_check_digests(now, group, ticket, patience),
            Event::Digested { group, index, digest } => self.on_digested(now, group, index, digest),
            Event::Diverged { group, index, divergence } => self.on_diverged(now, group, index, divergence),
            Event::Applied { group, index } => self.on_applied(group, index),
            Event::SnapshotChunk { group, section, bytes, is_last } => {
                self.on_snapshot_chunk(group, section, bytes, is_last);
            }
            Event::SnapshotFailed { group, message } => self.on_snapshot_failed(now, group, message),
            Event::Restored { group, index } => self.on_restored(group, index),
            failure @ (Event::ApplyFailed { .. } | Event::RestoreFailed { .. }) => self.on_host_failure(failure),
            Event::Close => self.on_close(),
        }
    }

    /// Ends a turn: does what has come due, sends what gathered, and cuts a log write if one may go. Frames come before
    /// the write, so that peers work while this disk does. Groups to which nothing happened, and whose time has not come,
    /// are not looked at.
    pub fn flush(&mut self, now: Time) {
        if self.may_speak() {
            self.storage.tick(now);
            self.trim_caches();
            self.tick_links(now);
            self.touch_forwarders();
            self.groups.touch_due(now);
            let touched = self.groups.take_touched();
            for &id in &touched {
                self.advance_check(now, id);
                if let Some(group) = self.groups.get_mut(&id) {
                    group.run(|raft| {
                        if now >= raft.deadline() {
                            raft.tick(now);
                        }
                        raft.flush(now);
                    });
                }
            }
            for &id in &touched {
                self.carry_out(now, id);
                self.resolve_proposals(id);
                self.resolve_changes(now, id);
                self.forward(id);
                self.tick_snapshots(now, id);
                self.note_commit(id);
            }
            self.send_frames(now);
            self.take_due_snapshots(now, &touched);
            self.write_log(now);
            for &id in &touched {
                self.deliver(id);
                self.tell(id);
                self.account_cache(id);
            }
            self.groups.looked_at(touched);
        }
        self.take_disk_work(now);
        self.groups.settle_timers();
    }

    /// Takes the effects so far, to be carried out in order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The groups whose status may differ from what it was at the last call.
    pub fn take_changed(&mut self) -> Vec<GroupId> {
        self.groups.take_changed()
    }

    /// When [`Driver::flush`] must be called at the latest, even if nothing happens.
    pub fn deadline(&self) -> Time {
        if !self.may_speak() {
            return Time::NEVER;
        }
        let watermark = self.idle_since.map_or(Time::NEVER, |since| since + WATERMARK_AFTER);
        self.groups.deadline().min(self.links.deadline()).min(self.storage.deadline()).min(watermark)
    }

    /// Whether recovery is durable and the server takes part.
    fn may_speak(&self) -> bool {
        self.is_ready && !self.is_closed && self.stopped.is_none()
    }

    /// Carries out what a core wants done.
    fn carry_out(&mut self, now: Time, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Phase::Formed(formed) = &mut group.phase else { return };
        let (first_entry, lineage) = (&formed.first_entry, formed.lineage);
        let mut sends = Vec::new();
        for effect in formed.raft.take_effects() {
            if group.stopped.is_some() {
                return;
            }
            match effect {
                core::Effect::Persist { mark, record } => {
                    let record = match record {
                        Persist::HardState(state) => Record::HardState { group: id, state },
                        Persist::Entries(entries) => Record::Entries { group: id, entries },
                        Persist::Truncate { from } => Record::Truncate { group: id, from },
                        Persist::Snapshot(meta) => {
                            Record::Snapshot { group: id, meta, first_entry: first_entry.clone(), lineage }
                        }
                    };
                    self.marks.push_back((self.storage.append(record), id, mark));
                }
                core::Effect::Fetch { to, from, through } => {
                    let token = self.reads.begin(ReadPurpose::Fetch(id, to));
                    self.storage.read_entries(token, id, from, through, FETCH_BYTES);
                }
                core::Effect::DiskStalled { waited } => {
                    let message = format!(
                        "group {id}: this server led, and its log has made no progress for {waited:?} \
                         (disk_stall_timeout is {:?}): it leads no longer. Look at its disk",
                        self.settings.disk_stall_timeout
                    );
                    self.effects.push(Effect::Notice(Notice::Warning { message }));
                }
                core::Effect::LostData { peer, acknowledged, denied } => {
                    let message = format!(
                        "group {id}: server {peer} acknowledged entry {acknowledged} and now says that its log differs \
                         or ends at {denied}: its disk lost data. It counts no more. Remove it, and add a new server \
                         with an empty directory under a new id"
                    );
                    self.effects.push(Effect::Notice(Notice::Warning { message }));
                }
                other => sends.push(other),
            }
        }
        for effect in sends {
            match effect {
                core::Effect::Send { to, message } => {
                    self.send(id, to, PeerMessage::Raft(message));
                }
                core::Effect::SendSnapshot { to, number } => self.send_snapshot(now, id, to, number),
                core::Effect::Restore(meta) => self.restore(id, meta),
                core::Effect::ChangeEnded { index, end } => self.change_ended(id, index, end),
                core::Effect::TransferGivenUp { to } => self.transfer_given_up(id, to),
                core::Effect::ReadReady { id: read, index } => self.read_answered(id, read, Ok(index)),
                core::Effect::ReadFailed { id: read } => {
                    let leader = self.groups.get(&id).and_then(Group::formed).and_then(|formed| formed.raft.leader());
                    self.read_answered(id, read, Err(leader));
                }
                _ => {}
            }
        }
    }

    // ---- the end ----

    /// The server can take part no more: its log failed, or its directory is a copy. It lives on to answer its host.
    fn stop_server(&mut self, reason: String) {
        if self.stopped.is_some() {
            return;
        }
        self.stopped = Some(reason.clone());
        self.close_all();
        for id in self.groups.ids() {
            self.stop_group(id, reason.clone());
        }
        self.effects.push(Effect::Notice(Notice::ServerStopped { reason }));
    }

    fn on_close(&mut self) {
        self.is_closed = true;
        self.close_all();
        for id in self.groups.ids() {
            if let Some(group) = self.groups.get_mut(&id) {
                group.end_all(Unknown::Closed, &NotApplied::Closed, &mut self.effects);
            }
        }
    }

    /// Tells the host what has changed.
    fn tell(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Phase::Formed(formed) = &group.phase else { return };
        let raft = &formed.raft;
        let told = Told {
            role: group.role(),
            term: raft.hard_state().term,
            leader: raft.leader(),
            configuration_index: raft.configuration_at(u64::MAX).0,
            removed: raft.removed(),
        };
        let before = std::mem::replace(&mut group.told, told);
        if before == told && group.stopped.is_none() {
            return;
        }
        let configuration =
            (before.configuration_index != told.configuration_index).then(|| raft.configuration().clone());
        if (before.role, before.term, before.leader) != (told.role, told.term, told.leader) {
            let Told { role, term, leader, .. } = told;
            self.effects.push(Effect::Notice(Notice::Role { group: id, role, term, leader }));
        }
        if let Some(configuration) = configuration {
            self.effects.push(Effect::Notice(Notice::Configuration { group: id, configuration }));
            self.know_members(id);
        }
        if let Some(index) = told.removed.filter(|_| before.removed.is_none()) {
            self.effects.push(Effect::Notice(Notice::Removed { group: id, index }));
        }
        self.tell_stopped(id);
    }

    fn tell_stopped(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        if let Some(reason) = group.stopped.clone().filter(|_| !std::mem::replace(&mut group.told_stopped, true)) {
            self.stop_group(id, reason.clone());
            self.effects.push(Effect::Notice(Notice::GroupStopped { group: id, reason }));
        }
    }
}
