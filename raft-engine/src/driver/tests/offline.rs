//! The recovery of a group from the loss of its quorum, on a disk in memory that can fail at every step.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::codec;
use crate::driver::formation::{Forming, lineage_of};
use crate::driver::{GroupReport, MemberArgument, Recovered, Recovery, RecoveryRefusal, RecoveryRequest, inspect};
use crate::storage::tests::disk::Disk;
use crate::storage::{Record, Storage, StorageError, StorageOptions};
use crate::types::{
    ClusterId, Configuration, DiskDone, DiskError, DiskStep, DiskWork, DiskWorkId, Entry, EntryKind, GroupId,
    GroupSettings, HardState, Identity, LogTime, Member, MemberRole, Position, QuorumRecovery, ReadFiles, ServerId,
};

const LOST: GroupId = GroupId(1);
const OTHER: GroupId = GroupId(2);
const ME: ServerId = ServerId(2);
/// Where the log of the lost group ends.
const LAST: Position = Position { term: 5, index: 9 };

fn cluster() -> ClusterId {
    ClusterId::new("test").unwrap()
}

fn request() -> RecoveryRequest {
    RecoveryRequest { cluster: cluster(), server: ME, group: LOST, last: LAST }
}

/// A disk, and the work on its way to it.
#[derive(Clone, Default)]
struct Lanes {
    disk: Disk,
    /// Log writes, and whether the page cache has them.
    writes: VecDeque<(DiskWorkId, DiskWork, bool)>,
    jobs: VecDeque<(DiskWorkId, VecDeque<DiskStep>)>,
    /// Steps taken.
    steps: usize,
}

type Ended = (DiskWorkId, Result<DiskDone, DiskError>);

impl Lanes {
    fn submit(&mut self, work: Vec<(DiskWorkId, DiskWork)>) {
        for (id, work) in work {
            match work {
                DiskWork::Job(steps) => self.jobs.push_back((id, steps.into())),
                write @ DiskWork::WriteLog { .. } => self.writes.push_back((id, write, false)),
                DiskWork::Read { .. } => unreachable!("nothing is read once the directory is open"),
            }
        }
    }

    /// One step of either lane. What it ended, if it ended something.
    fn step(&mut self, random: &mut fastrand::Rng) -> Option<Ended> {
        self.steps += 1;
        if !self.writes.is_empty() && (self.jobs.is_empty() || random.bool()) {
            let (id, work, is_written) = self.writes.pop_front().unwrap();
            let DiskWork::WriteLog { file, offset, data } = &work else { unreachable!() };
            if is_written {
                return Some((id, self.disk.sync(file).map(|()| DiskDone::Done)));
            }
            self.disk.write(file, *offset, data.as_slice()).unwrap();
            self.writes.push_front((id, work, true));
            return None;
        }
        let (id, mut steps) = self.jobs.pop_front().expect("there is work");
        let result = steps.pop_front().map_or(Ok(()), |step| self.disk.step(&step));
        if result.is_ok() && !steps.is_empty() {
            self.jobs.push_front((id, steps));
            return None;
        }
        Some((id, result.map(|()| DiskDone::Done)))
    }

    /// What is left when the process dies here, and perhaps the power goes with it.
    fn crash(mut self, is_power_cut: bool, random: &mut fastrand::Rng) -> Disk {
        for (_, work, is_written) in &self.writes {
            if let DiskWork::WriteLog { file, offset, data } = work
                && !is_written
            {
                self.disk.tear(file, *offset, data.as_slice(), random);
            }
        }
        if is_power_cut {
            self.disk.power_cut(random);
        }
        self.disk
    }
}

fn configuration(identity: Identity) -> Configuration {
    let member = |id: u64| Member {
        id: ServerId(id),
        role: if id == 4 { MemberRole::Learner } else { MemberRole::Voter },
        priority: 1,
        identity: if id == ME.0 { identity } else { Identity([id as u8; 16]) },
        address: format!("host:{id}"),
        context: vec![id as u8],
    };
    Configuration {
        members: (1..=4).map(member).collect(),
        outgoing_voters: vec![ServerId(1), ME],
        highest_id: ServerId(7),
        change: None,
        settings: GroupSettings { max_sessions: 5, ..GroupSettings::default() },
    }
}

/// A directory in which two groups were formed; the log of one is joint, and its tail is not known to be committed.
/// `filler` is the length of its last entry but one.
fn directory(filler: usize) -> Disk {
    directory_with(filler, configuration)
}

/// The same, with another configuration in entry 5.
fn directory_with(filler: usize, configuration: impl Fn(Identity) -> Configuration) -> Disk {
    let options = StorageOptions {
        cluster: cluster(),
        server: ME,
        segment_bytes: 64 << 10,
        batch_bytes: 16 << 10,
        tail_bytes: 1 << 20,
    };
    let mut lanes = Lanes::default();
    let (mut storage, recovered) = Storage::open(options, &mut lanes.disk, [3; 32]).unwrap();
    settle(&mut storage, &mut lanes);
    for group in [LOST, OTHER] {
        let arguments = (1..=3).map(|id| MemberArgument::new(ServerId(id), format!("host:{id}"))).collect();
        let forming = Forming::new(&cluster(), group, ME, arguments, GroupSettings::default()).unwrap();
        let identities = (1..=3).map(ServerId).map(|id| match id {
            ME => (id, recovered.identity),
            ServerId(other) => (id, Identity([other as u8; 16])),
        });
        let first = forming.make_entry(&cluster(), group, &identities.collect());
        let lineage = lineage_of(&first);
        storage.append(Record::Entries { group, entries: vec![first] });
        storage.append(Record::Lineage { group, lineage });
        storage.append(Record::HardState { group, state: HardState { term: 6, vote: Some(ServerId(1)) } });
    }
    let entries = (2..=9).map(|index| {
        let position = Position { term: 1 + index.min(8) / 2, index };
        let (kind, payload) = match index {
            5 => (EntryKind::Configuration, codec::encode(&configuration(recovered.identity)).into()),
            8 => (EntryKind::Command, Bytes::from(vec![8; filler])),
            _ => (EntryKind::Command, Bytes::from_static(b"command")),
        };
        Entry::new(position, LogTime(index * 100), kind, payload)
    });
    storage.append(Record::Entries { group: LOST, entries: entries.collect() });
    storage.append(Record::Commit { group: LOST, index: 6 });
    settle(&mut storage, &mut lanes);
    lanes.disk
}

fn settle(storage: &mut Storage, lanes: &mut Lanes) {
    let mut random = fastrand::Rng::with_seed(0);
    loop {
        storage.cut();
        lanes.submit(storage.take_work());
        if lanes.writes.is_empty() && lanes.jobs.is_empty() {
            return;
        }
        lanes.step(&mut random).into_iter().for_each(|(id, result)| storage.complete(id, result));
        storage.take_events();
    }
}

/// Recovers, up to a step of the disk.
fn recover(
    disk: &Disk,
    through: usize,
    random: &mut fastrand::Rng,
) -> (Lanes, Option<Result<Recovered, RecoveryRefusal>>) {
    let mut lanes = Lanes { disk: disk.clone(), ..Lanes::default() };
    let mut seed = [0; 32];
    random.fill(&mut seed);
    let mut recovery = match Recovery::open(&mut lanes.disk, &request(), seed) {
        Ok(recovery) => recovery,
        Err(refusal) => return (lanes, Some(Err(refusal))),
    };
    loop {
        lanes.submit(recovery.take_work());
        if recovery.outcome().is_some() || lanes.steps == through {
            return (lanes, recovery.outcome().cloned());
        }
        lanes.step(random).into_iter().for_each(|(id, result)| recovery.complete(id, result));
    }
}

fn group(disk: &Disk, group: GroupId) -> GroupReport {
    let report = inspect(&mut disk.clone()).unwrap();
    report.groups.into_iter().find(|found| found.group == group).unwrap()
}

/// Whether the lost group is as its recovery leaves it; else it must be as it was.
fn is_recovered(disk: &Disk, before: &Disk) -> bool {
    assert_eq!(group(disk, OTHER), group(before, OTHER), "other groups are left alone");
    let (found, old) = (group(disk, LOST), group(before, LOST));
    if found == old {
        return false;
    }
    assert_eq!(found.last, Position { term: 2 << 20, index: LAST.index + 1 });
    assert_eq!((found.term, found.configuration_index), (found.last.term, found.last.index));
    assert_eq!(found.configuration.voters().collect::<Vec<_>>(), [ME]);
    assert!(found.is_recovered && found.lineage != old.lineage);
    true
}

#[test]
fn a_recovery_says_in_the_log_what_it_did() {
    let disk = directory(10);
    let before = group(&disk, LOST);
    assert_eq!((before.last, before.commit, before.term, before.configuration_index), (LAST, 6, 6, 5));
    let (mut lanes, outcome) = recover(&disk, usize::MAX, &mut fastrand::Rng::with_seed(1));
    let told = outcome.unwrap().unwrap();
    lanes.disk.power_cut(&mut fastrand::Rng::with_seed(2));
    assert!(is_recovered(&lanes.disk, &disk), "what was told is durable");

    let report = inspect(&mut lanes.disk.clone()).unwrap();
    let after = group(&lanes.disk, LOST);
    let former = before.configuration.clone();
    let me = Member { role: MemberRole::Voter, ..former.member(ME).unwrap().clone() };
    let expected = QuorumRecovery {
        configuration: Configuration {
            members: vec![me],
            outgoing_voters: Vec::new(),
            highest_id: ServerId(7),
            change: None,
            settings: former.settings.clone(),
        },
        cluster: cluster(),
        group: LOST,
        identity: report.identity,
        incarnation: told.recovery.incarnation,
        former_lineage: before.lineage,
        former_configuration: former,
        former_term: 6,
        kept: LAST,
        committed: 6,
    };
    assert_eq!(told.recovery, expected);
    assert_eq!((told.position, told.lineage), (after.last, after.lineage));

    let options = StorageOptions {
        cluster: cluster(),
        server: ME,
        segment_bytes: 64 << 10,
        batch_bytes: 16 << 10,
        tail_bytes: 1 << 20,
    };
    let (_, recovered) = Storage::open(options, &mut lanes.disk, [9; 32]).unwrap();
    let recovered = &recovered.groups[0];
    assert_eq!(recovered.hard_state, HardState { term: told.position.term, vote: Some(ME) });
    let entry = recovered.tail.last().unwrap();
    assert_eq!((entry.position(), entry.kind, entry.log_time), (told.position, EntryKind::Recovery, LogTime(900)));
    assert_eq!(codec::decode::<QuorumRecovery>(&entry.payload), Ok(expected));
    assert_eq!(lineage_of(entry), told.lineage, "the digest of the entry is the lineage");
    assert_eq!(recovered.tail[8].position(), LAST, "nothing of the log is gone");
}

#[test]
fn a_crash_at_every_step_leaves_the_group_as_it_was_or_recovered() {
    let disk = directory(10);
    let (lanes, _) = recover(&disk, usize::MAX, &mut fastrand::Rng::with_seed(7));
    let steps = lanes.steps;
    assert!(steps > 12, "{steps}");
    let mut found = [0; 2];
    for (at, seed) in (0..=steps).flat_map(|at| (0..40).map(move |seed| (at, seed))) {
        let mut random = fastrand::Rng::with_seed(7);
        let (lanes, outcome) = recover(&disk, at, &mut random);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut left = lanes.crash(seed % 2 == 0, &mut random);
        if seed % 4 == 1 {
            // A killed process, then a power cut.
            is_recovered(&left, &disk);
            left.power_cut(&mut random);
        }
        let is_done = is_recovered(&left, &disk);
        found[usize::from(is_done)] += 1;
        assert!(is_done || outcome.is_none(), "step {at}, seed {seed}: what was told is lost");

        let (mut lanes, outcome) = recover(&left, usize::MAX, &mut random);
        let index = LAST.index + 1;
        match outcome.unwrap() {
            Ok(_) => assert!(!is_done),
            Err(refusal) => {
                let expected = RecoveryRefusal::OnlyVoter { server: ME, group: LOST, index, is_recovered: true };
                assert!(is_done && refusal == expected, "step {at}, seed {seed}: {refusal}");
            }
        }
        if !is_done {
            lanes.disk.power_cut(&mut random);
            assert!(is_recovered(&lanes.disk, &disk), "step {at}, seed {seed}: done at the second try");
        }
    }
    assert!(found.iter().all(|&count| count > 50), "{found:?}");
}

#[test]
fn a_recovery_that_is_done_is_never_taken_for_a_torn_tail() {
    let disk = directory(10);
    let (mut lanes, outcome) = recover(&disk, usize::MAX, &mut fastrand::Rng::with_seed(3));
    let position = outcome.unwrap().unwrap().position;
    let file = lanes.disk.names().into_iter().rfind(|name| name.0.starts_with("segment-")).unwrap();
    let recorded = position.term.to_le_bytes();
    lanes.disk.damage(&file, |bytes| {
        let at = bytes.windows(8).rposition(|window| window == recorded).unwrap();
        bytes[at] ^= 1;
    });
    let refusal = inspect(&mut lanes.disk).unwrap_err();
    assert!(matches!(refusal, RecoveryRefusal::Directory(StorageError::Corrupt { .. })), "{refusal}");
}

#[test]
fn a_disk_without_room_is_told_and_the_group_stays_as_it_was() {
    // The segment has no room for one more batch, and there is none for another segment.
    let mut disk = directory(40_000);
    let spares: Vec<_> = disk.names().into_iter().filter(|name| name.0.starts_with("spare-")).collect();
    spares.iter().for_each(|spare| disk.remove(spare));
    disk.is_full = true;
    let (lanes, outcome) = recover(&disk, usize::MAX, &mut fastrand::Rng::with_seed(4));
    assert_eq!(outcome, Some(Err(RecoveryRefusal::NoRoom)));
    assert!(!is_recovered(&lanes.disk, &disk));
}

#[test]
fn what_is_not_meant_is_refused_with_no_byte_changed() {
    let mut disk = directory(10);
    let refusal = |disk: &mut Disk, request: &RecoveryRequest| Recovery::open(disk, request, [1; 32]).unwrap_err();
    for given in [Position { term: 5, index: 8 }, Position { term: 4, index: 9 }, Position { term: 6, index: 10 }] {
        let found = refusal(&mut disk, &RecoveryRequest { last: given, ..request() });
        assert_eq!(found, RecoveryRefusal::OtherPosition { group: LOST, given, found: LAST });
        assert!(found.to_string().contains("ends at 5:9"), "{found}");
    }
    let unknown = refusal(&mut disk, &RecoveryRequest { group: GroupId(3), ..request() });
    assert_eq!(unknown, RecoveryRefusal::NoGroup { group: GroupId(3), known: vec![LOST, OTHER] });
    let elsewhere = ClusterId::new("elsewhere").unwrap();
    for request in
        [RecoveryRequest { cluster: elsewhere, ..request() }, RecoveryRequest { server: ServerId(1), ..request() }]
    {
        let foreign = refusal(&mut disk, &request);
        assert!(matches!(foreign, RecoveryRefusal::Directory(StorageError::Foreign { .. })), "{foreign}");
    }
    let without = |me: Identity| {
        let mut without = configuration(me);
        without.members.retain(|member| member.id != ME);
        without.outgoing_voters = vec![ServerId(1)];
        without
    };
    let removed = refusal(&mut directory_with(10, without), &request());
    assert_eq!(removed, RecoveryRefusal::NotMember { server: ME, group: LOST, index: 5 });
    let wiped = refusal(&mut directory_with(10, |_| configuration(Identity([0; 16]))), &request());
    assert_eq!(wiped, RecoveryRefusal::NotMember { server: ME, group: LOST, index: 5 });
    let alone = |me: Identity| {
        let mut alone = configuration(me);
        alone.members.iter_mut().filter(|it| it.id != ME).for_each(|it| it.role = MemberRole::Learner);
        alone.outgoing_voters.clear();
        alone
    };
    let alone = refusal(&mut directory_with(10, alone), &request());
    assert_eq!(alone, RecoveryRefusal::OnlyVoter { server: ME, group: LOST, index: 5, is_recovered: false });
    assert_eq!(inspect(&mut Disk::default()).unwrap_err(), RecoveryRefusal::NoServer);
    let unchanged = directory(10);
    for (file, _) in disk.list().unwrap() {
        assert_eq!(disk.content(&file), unchanged.content(&file), "{}", file.0);
    }
}
