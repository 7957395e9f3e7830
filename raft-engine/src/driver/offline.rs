//! What is done to a data directory that no server has open: it is looked at, and a group is recovered from the loss of
//! its quorum.
//!
//! Where a majority of a group's voters is gone for good, no rule of Raft can bring it back: nobody knows what the
//! majority had committed. An operator can decide that one server's log is what is left. That server then becomes the
//! only member, by an entry behind its log, in a later term; when it starts, it elects itself, and all that it kept is
//! committed. The entry's digest is the group's new lineage, so that whoever is left of the old group and whoever joins
//! the new one refuse each other, for that group alone.
//!
//! Architecture invariant: all of a recovery is one write to the log, behind what opening the directory made durable. A
//! crash leaves the group as it was, or recovered; there is nothing between.

use bytes::Bytes;

use super::formation::{self, lineage_of};
use super::members::configurations_of;
use super::settings::Settings;
use crate::codec;
use crate::storage::{
    Owner, Record, RecordNumber, RecoveredGroup, Storage, StorageError, StorageEvent, StorageOptions,
};
use crate::types::{
    ClusterId, Configuration, DiskDone, DiskError, DiskWork, DiskWorkId, Entry, EntryKind, GroupId, HardState,
    Identity, Incarnation, Index, Lineage, LogTime, Member, MemberRole, Position, QuorumRecovery, ReadFiles, ServerId,
    TERMS_OF_AN_AGE, Term,
};

/// What a data directory holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirectoryReport {
    /// The cluster that its server belongs to.
    pub cluster: ClusterId,
    /// The server's id.
    pub server: ServerId,
    /// Made with the directory.
    pub identity: Identity,
    /// How often it was opened.
    pub incarnation: u64,
    /// The groups that were formed in it, by id.
    pub groups: Vec<GroupReport>,
}

/// What a data directory holds of one group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupReport {
    /// Which one.
    pub group: GroupId,
    /// The last entry. The order of positions, term first, is the order in which logs are more up to date (§5.4.1).
    pub last: Position,
    /// How far entries are known to be committed, as far as the directory tells: more may be.
    pub commit: Index,
    /// The latest term that the server knew of.
    pub term: Term,
    /// The last entry that the latest snapshot includes; index 0 if there is none.
    pub snapshot: Position,
    /// The index of the entry that brought the configuration in force.
    pub configuration_index: Index,
    /// The configuration in force: the last one in the log.
    pub configuration: Configuration,
    /// The group's lineage.
    pub lineage: Lineage,
    /// Whether the group was once recovered from the loss of its quorum.
    pub is_recovered: bool,
}

/// Which group is to be recovered, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecoveryRequest {
    /// The cluster that the directory must be of.
    pub cluster: ClusterId,
    /// The server that the directory must be of.
    pub server: ServerId,
    /// The group.
    pub group: GroupId,
    /// The last entry of its log, as [`inspect`] told: who asks has looked.
    pub last: Position,
}

/// What a recovery did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// The entry that it appended.
    pub position: Position,
    /// What that entry says.
    pub recovery: QuorumRecovery,
    /// The group's lineage from here on.
    pub lineage: Lineage,
}

/// Why a directory was not looked at, or a group not recovered. Nothing was changed, but where [`RecoveryRefusal::Log`]
/// says so.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecoveryRefusal {
    /// There is no manifest.
    #[error("no server was ever opened on this directory: there is nothing in it")]
    NoServer,
    /// The directory cannot be used: the text names the file, the place and the remedy.
    #[error(transparent)]
    Directory(StorageError),
    /// An entry of the engine's own cannot be read.
    #[error("group {group}: {what}; start a newer library on this directory")]
    Unreadable {
        /// Whose.
        group: GroupId,
        /// Which entry, and what is wrong.
        what: String,
    },
    /// The directory does not hold the group, or it was never formed there.
    #[error("group {group} was never formed in this directory: it holds {known:?}", known = .known.iter().map(|id| id.0).collect::<Vec<_>>())]
    NoGroup {
        /// The group.
        group: GroupId,
        /// Those that it holds.
        known: Vec<GroupId>,
    },
    /// The log is not what the caller has seen.
    #[error(
        "the log of group {group} ends at {}:{} (term:index), not at {}:{} as was given: look at this directory again, \
         and compare it with those of the other servers that are left", .found.term, .found.index, .given.term, .given.index
    )]
    OtherPosition {
        /// The group.
        group: GroupId,
        /// What the caller gave.
        given: Position,
        /// Where it ends.
        found: Position,
    },
    /// The server is no member by its own log.
    #[error(
        "server {server} is no member of group {group} by the configuration of entry {index}, the last in its log: the \
         group went on without it. Recover a server that is a member"
    )]
    NotMember {
        /// The server.
        server: ServerId,
        /// The group.
        group: GroupId,
        /// The entry that says so.
        index: Index,
    },
    /// There is nobody else whose vote is needed.
    #[error(
        "server {server} is the only voter of group {group} already, by entry {index}{}: there is nothing to recover. \
         Start it", if *.is_recovered { ", which an earlier recovery wrote" } else { "" }
    )]
    OnlyVoter {
        /// The server.
        server: ServerId,
        /// The group.
        group: GroupId,
        /// The entry that says so.
        index: Index,
        /// Whether an earlier recovery made it so.
        is_recovered: bool,
    },
    /// Writing failed. The group is as it was or recovered; to look at the directory tells which.
    #[error("{0}. The group is as it was, or recovered: look at the directory again to see which")]
    Log(StorageError),
    /// The disk has no room for the entry. The group is as it was.
    #[error("the disk has no room: the group is as it was. Make room and try again")]
    NoRoom,
}

/// Tells what a data directory holds, as a server that is started on it would find it. Reads only.
///
/// # Errors
/// There is no server's directory, or it cannot be used.
pub fn inspect(files: &mut dyn ReadFiles) -> Result<DirectoryReport, RecoveryRefusal> {
    let Owner { cluster, server, segment_bytes } = owner(files)?;
    // Nothing of this open is written: chance decides nothing.
    let (_, recovered) = open(files, cluster.clone(), server, segment_bytes, [0; 32])?;
    let formed = recovered.groups.iter().filter(|group| group.first_entry.is_some());
    Ok(DirectoryReport {
        cluster,
        server,
        identity: recovered.identity,
        incarnation: recovered.incarnation.number - 1,
        groups: formed.map(report).collect::<Result<_, _>>()?,
    })
}

/// Whether a server was ever opened on a directory. Reads its manifest and nothing else, so that a server may run on it.
///
/// # Errors
/// None was, or the manifest cannot be read.
pub fn check_directory(files: &mut dyn ReadFiles) -> Result<(), RecoveryRefusal> {
    owner(files).map(drop)
}

fn owner(files: &mut dyn ReadFiles) -> Result<Owner, RecoveryRefusal> {
    Storage::owner(files).map_err(RecoveryRefusal::Directory)?.ok_or(RecoveryRefusal::NoServer)
}

fn open(
    files: &mut dyn ReadFiles,
    cluster: ClusterId,
    server: ServerId,
    segment_bytes: u64,
    seed: [u8; 32],
) -> Result<(Storage, crate::storage::Recovered), RecoveryRefusal> {
    let batch_bytes = Settings::default().batch_bytes;
    let options = StorageOptions { cluster, server, segment_bytes, batch_bytes, tail_bytes: 0 };
    Storage::open(options, files, seed).map_err(RecoveryRefusal::Directory)
}

fn report(recovered: &RecoveredGroup) -> Result<GroupReport, RecoveryRefusal> {
    let group = recovered.group;
    let unreadable = |what| RecoveryRefusal::Unreadable { group, what };
    let first_entry = recovered.first_entry.as_ref().ok_or_else(|| unreadable("entry 1 is missing".into()))?;
    let first = formation::read_entry(first_entry).map_err(unreadable)?;
    let configurations = configurations_of(recovered.snapshot.as_ref(), first, &recovered.configurations);
    let last = configurations.map_err(unreadable)?.pop();
    let (configuration_index, configuration) = last.ok_or_else(|| unreadable("no configuration is left".into()))?;
    let founded = lineage_of(first_entry);
    let lineage = recovered.lineage.unwrap_or(founded);
    Ok(GroupReport {
        group,
        last: recovered.last,
        commit: recovered.commit.max(first_entry.index),
        term: recovered.hard_state.term,
        snapshot: recovered.snapshot.as_ref().map(|(meta, _)| meta.position).unwrap_or_default(),
        configuration_index,
        configuration,
        lineage,
        is_recovered: lineage != founded,
    })
}

/// The recovery of a group from the loss of its quorum: a machine that is told of the disk and asks it for work.
#[derive(Debug)]
pub struct Recovery {
    storage: Storage,
    group: GroupId,
    entry: Entry,
    told: Recovered,
    stage: Stage,
    /// Work on its way to the disk.
    submitted: usize,
    outcome: Option<Result<Recovered, RecoveryRefusal>>,
}

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// What the directory held is made durable.
    Opening,
    /// The records are on their way, this one last.
    Writing(RecordNumber),
    /// They are durable. An empty write is to say so, so that damage to them is never taken for a torn tail.
    Closing,
}

impl Recovery {
    /// Checks that the group can be recovered, and is the one that the caller means. Reads only. `seed` is 32 fresh
    /// random bytes.
    ///
    /// # Errors
    /// It cannot, and the text says what to do instead. Nothing was changed.
    pub fn open(files: &mut dyn ReadFiles, request: &RecoveryRequest, seed: [u8; 32]) -> Result<Self, RecoveryRefusal> {
        let &RecoveryRequest { server, group, last, .. } = request;
        let segment_bytes = owner(files)?.segment_bytes;
        let (storage, recovered) = open(files, request.cluster.clone(), server, segment_bytes, seed)?;
        let formed = || recovered.groups.iter().filter(|group| group.first_entry.is_some());
        let Some(found) = formed().find(|recovered| recovered.group == group) else {
            return Err(RecoveryRefusal::NoGroup { group, known: formed().map(|group| group.group).collect() });
        };
        let report = report(found)?;
        let index = report.configuration_index;
        let named = report.configuration.member(server).filter(|member| member.identity == recovered.identity);
        let Some(member) = named else { return Err(RecoveryRefusal::NotMember { server, group, index }) };
        let is_other = |id: &ServerId| *id != server;
        if !report.configuration.voters().any(|id| is_other(&id))
            && !report.configuration.outgoing_voters.iter().any(is_other)
        {
            let is_recovered = found.configurations.last().is_some_and(|entry| entry.kind == EntryKind::Recovery);
            return Err(RecoveryRefusal::OnlyVoter { server, group, index, is_recovered });
        }
        if report.last != last {
            return Err(RecoveryRefusal::OtherPosition { group, given: last, found: report.last });
        }
        let configuration = alone(&report.configuration, member);
        let incarnation = recovered.incarnation;
        let (entry, told) =
            recover(request, &report, configuration, recovered.identity, incarnation, found.last_log_time);
        Ok(Self { storage, group, entry, told, stage: Stage::Opening, submitted: 0, outcome: None })
    }

    /// The disk work queued since the last call, to be submitted in this order.
    pub fn take_work(&mut self) -> Vec<(DiskWorkId, DiskWork)> {
        self.go_on();
        let work = self.storage.take_work();
        self.submitted += work.len();
        if self.submitted == 0 && self.outcome.is_none() {
            self.outcome = Some(match self.stage {
                Stage::Closing => Ok(self.told.clone()),
                // Only a full disk lets storage wait for anything else.
                Stage::Opening | Stage::Writing(_) => Err(RecoveryRefusal::NoRoom),
            });
        }
        work
    }

    /// A submission ended.
    pub fn complete(&mut self, id: DiskWorkId, result: Result<DiskDone, DiskError>) {
        self.submitted -= 1;
        self.storage.complete(id, result);
    }

    /// How it ended, once it has: what was done is durable. To be asked after [`Recovery::take_work`].
    pub fn outcome(&self) -> Option<&Result<Recovered, RecoveryRefusal>> {
        self.outcome.as_ref()
    }

    fn go_on(&mut self) {
        for event in self.storage.take_events() {
            match event {
                StorageEvent::Ready => self.append(),
                StorageEvent::Written { through, .. } => match self.stage {
                    Stage::Writing(last) if through >= last => self.stage = Stage::Closing,
                    _ => {}
                },
                StorageEvent::Failed { error } => self.outcome = Some(Err(RecoveryRefusal::Log(error))),
                _ => {}
            }
        }
        match self.stage {
            Stage::Opening => {}
            Stage::Writing(_) => {
                if self.storage.cut().is_some() {
                    assert!(self.storage.pending_bytes() == 0, "a recovery is one write");
                }
            }
            Stage::Closing => {
                self.storage.cut_watermark();
            }
        }
    }

    /// Everything that the recovery writes. The vote of its term is this server's: nobody else makes entries in it.
    fn append(&mut self) {
        let group = self.group;
        let state = HardState { term: self.entry.term, vote: Some(self.told.recovery.configuration.members[0].id) };
        self.storage.append(Record::HardState { group, state });
        self.storage.append(Record::Entries { group, entries: vec![self.entry.clone()] });
        let last = self.storage.append(Record::Lineage { group, lineage: self.told.lineage });
        self.stage = Stage::Writing(last);
    }
}

/// The configuration in which `member` is the only one, and votes. No id that was ever used comes back, and a change that
/// was in progress is dropped with those whom it concerned.
fn alone(former: &Configuration, member: &Member) -> Configuration {
    Configuration {
        members: vec![Member { role: MemberRole::Voter, ..member.clone() }],
        outgoing_voters: Vec::new(),
        highest_id: former.highest_id,
        change: None,
        settings: former.settings.clone(),
    }
}

/// The entry of the recovery, and what it tells.
fn recover(
    request: &RecoveryRequest,
    found: &GroupReport,
    configuration: Configuration,
    identity: Identity,
    incarnation: Incarnation,
    log_time: LogTime,
) -> (Entry, Recovered) {
    let recovery = QuorumRecovery {
        configuration,
        cluster: request.cluster.clone(),
        group: request.group,
        identity,
        incarnation,
        former_lineage: found.lineage,
        former_configuration: found.configuration.clone(),
        former_term: found.term.max(found.last.term),
        kept: found.last,
        committed: found.commit,
    };
    // A new age: no two entries of the old group and the new share index and term, no two sessions an id, and a host that
    // fences others off by terms can go on to.
    let term = (recovery.former_term + TERMS_OF_AN_AGE).next_multiple_of(TERMS_OF_AN_AGE);
    let position = Position { term, index: found.last.index + 1 };
    let entry = Entry::new(position, log_time, EntryKind::Recovery, Bytes::from(codec::encode(&recovery)));
    let lineage = lineage_of(&entry);
    (entry, Recovered { position, recovery, lineage })
}
