//! The rules of the log one by one: what is reported, what is moved, what is freed.

use std::time::Duration;

use super::disk::Disk;
use super::world::{Crash, World, entry, is_explained};
use crate::storage::{ReadError, ReadToken, Record, StorageError, StorageEvent};
use crate::types::{DiskDone, DiskError, DiskWork, Entry, FileName, GroupId, HardState, Index, Time};

pub(super) const GROUP: GroupId = GroupId(1);

pub(super) fn ready(disk: Disk, seed: u64) -> World {
    let mut world = World::open(disk, seed).unwrap();
    world.settle();
    assert!(world.is_ready);
    world
}

pub(super) fn append(world: &mut World, from: Index, through: Index, term: u64, length: usize) {
    let entries = (from..=through).map(|index| entry(index, if index == 1 { 0 } else { term }, length)).collect();
    world.append(Record::Entries { group: GROUP, entries });
}

/// Appends, cuts and makes durable one write.
pub(super) fn write(world: &mut World, from: Index, through: Index, term: u64, length: usize) {
    append(world, from, through, term, length);
    world.settle_all();
}

pub(super) fn file(name: &str) -> FileName {
    FileName(name.into())
}

pub(super) fn last_of(world: &World) -> Index {
    world.recovered.groups.iter().find(|group| group.group == GROUP).map_or(0, |group| group.last.index)
}

/// Opens, expects corruption, and that no byte was changed by it.
pub(super) fn refused(disk: &Disk) -> (FileName, u64) {
    match World::open(disk.clone(), 99).map(|_| ()) {
        Err(StorageError::Corrupt { file, offset, .. }) => (file, offset),
        other => panic!("corruption was not refused: {other:?}"),
    }
}

pub(super) fn batch_offsets(disk: &Disk, name: &FileName) -> Vec<usize> {
    let content = disk.content(name).unwrap();
    (0..content.len()).step_by(4096).filter(|&at| content[at..].starts_with(b"raftbtch")).collect()
}

pub(super) const FIRST: &str = "segment-0000000001";

#[test]
fn a_completion_in_front_of_an_earlier_write_is_not_reported() {
    let mut world = ready(Disk::default(), 1);
    for index in 1..=3 {
        append(&mut world, index, index, 1, 100);
        world.storage.cut().unwrap();
    }
    let writes = world.take_writes();
    writes.iter().for_each(|(_, work)| world.carry_out(work));
    let before = world.last_write;
    for at in [2, 1, 2] {
        world.storage.complete(writes[at].0, Ok(DiskDone::Done));
        world.pump();
        assert_eq!((world.last_write, world.storage.durable_index(GROUP)), (before, 0));
    }
    world.storage.complete(writes[0].0, Ok(DiskDone::Done));
    world.pump();
    assert_eq!((world.last_write.0, world.storage.durable_index(GROUP)), (before.0 + 3, 3));
}

#[test]
fn a_late_completion_of_a_truncated_copy_counts_for_nothing() {
    let mut world = ready(Disk::default(), 1);
    write(&mut world, 1, 4, 1, 100);
    append(&mut world, 5, 7, 1, 100);
    world.storage.cut().unwrap();
    world.append(Record::Truncate { group: GROUP, from: 6 });
    // The same index and term come back.
    append(&mut world, 6, 7, 1, 100);
    world.storage.cut().unwrap();
    let writes = world.take_writes();
    world.carry_out(&writes[0].1);
    world.storage.complete(writes[0].0, Ok(DiskDone::Done));
    assert_eq!(world.storage.durable_index(GROUP), 5);
    world.carry_out(&writes[1].1);
    world.storage.complete(writes[1].0, Ok(DiskDone::Done));
    assert_eq!(world.storage.durable_index(GROUP), 7);
    world.pump();
    let (disk, history, written) = world.crash(Crash::Kill, &mut fastrand::Rng::with_seed(0));
    assert!(is_explained(&World::open(disk, 2).unwrap().recovered, &history, written));
}

#[test]
fn a_truncation_takes_durability_back_at_once() {
    let mut world = ready(Disk::default(), 1);
    write(&mut world, 1, 9, 1, 100);
    world.append(Record::Truncate { group: GROUP, from: 4 });
    assert_eq!(world.storage.durable_index(GROUP), 3);
    append(&mut world, 4, 6, 2, 100);
    assert_eq!(world.storage.durable_index(GROUP), 3);
    world.settle_all();
    assert_eq!(world.storage.durable_index(GROUP), 6);
}

#[test]
fn a_part_of_an_append_is_durable_when_its_write_is() {
    let mut world = ready(Disk::default(), 1);
    append(&mut world, 1, 40, 1, 1000);
    world.storage.cut().unwrap();
    world.settle();
    let durable = world.storage.durable_index(GROUP);
    assert!((10..20).contains(&durable), "{durable}");
    assert_eq!(world.written.0, 1 + durable);
}

#[test]
fn a_failed_write_is_final() {
    let mut world = ready(Disk::default(), 1);
    append(&mut world, 1, 1, 1, 100);
    world.storage.cut().unwrap();
    append(&mut world, 2, 2, 1, 100);
    world.storage.cut().unwrap();
    let writes = world.take_writes();
    let error = DiskError { action: "sync", file: file(FIRST), is_full: false, message: "EIO".into() };
    world.storage.complete(writes[0].0, Err(error));
    world.storage.complete(writes[1].0, Ok(DiskDone::Done));
    let events = world.storage.take_events();
    assert!(matches!(events[..], [StorageEvent::Failed { .. }]), "{events:?}");
    append(&mut world, 3, 3, 1, 100);
    assert_eq!(world.storage.cut(), None);
    assert_eq!(world.storage.durable_index(GROUP), 0);
}

/// Three segments at least, with every entry live.
pub(super) fn long_log(seed: u64) -> World {
    let mut world = ready(Disk::default(), seed);
    for index in 1..=120 {
        write(&mut world, index, index, 1, 1500);
    }
    assert!(world.disk.content(&file("segment-0000000003")).is_some());
    world
}

/// The first of the terms in [`short_log`]: nothing else looks like it.
pub(super) const MANY_TERMS: u64 = 7_654_321;

/// So many short entries in the first segment, and nothing but terms in two more.
pub(super) fn short_log(entries: Index) -> World {
    let mut world = ready(Disk::default(), 1);
    write(&mut world, 1, entries, 1, 100);
    let third = file("segment-0000000003");
    for term in MANY_TERMS.. {
        world.append(Record::HardState { group: GROUP, state: HardState { term, vote: None } });
        world.settle_all();
        if world.disk.content(&third).is_some() {
            break;
        }
    }
    world
}

#[test]
fn a_moved_copy_is_the_present_one_only_when_it_is_durable() {
    let mut world = long_log(1);
    let pinned = world.storage.pinning_oldest()[0];
    assert_eq!((pinned.group, pinned.first), (GROUP, 1));
    world.storage.relocate(GROUP);
    assert_eq!(world.storage.pinning_oldest(), []);
    world.settle();
    assert!(world.storage.pending_bytes() > 1500);
    while world.storage.cut().is_none() {
        world.settle();
    }
    let writes = world.take_writes();
    let read_from = |world: &mut World| {
        world.storage.read_entries(ReadToken(1), GROUP, 1, 1, 1);
        let work = world.storage.take_work();
        let [(id, DiskWork::Read { file, .. })] = &work[..] else { panic!("{work:?}") };
        let error = DiskError { action: "read", file: file.clone(), is_full: false, message: String::new() };
        world.storage.complete(*id, Err(error));
        world.storage.take_events();
        file.clone()
    };
    assert_eq!(read_from(&mut world), file(FIRST));
    world.carry_out(&writes[0].1);
    world.storage.complete(writes[0].0, Ok(DiskDone::Done));
    world.pump();
    assert_ne!(read_from(&mut world), file(FIRST));
    world.settle_all();
    world.storage.read_entries(ReadToken(2), GROUP, 1, 3, usize::MAX);
    world.settle();
    world.check_reads();
}

#[test]
fn a_moved_copy_of_a_truncated_entry_brings_nothing_back() {
    let mut world = long_log(1);
    world.storage.relocate(GROUP);
    world.settle();
    world.append(Record::Truncate { group: GROUP, from: 3 });
    append(&mut world, 3, 5, 2, 200);
    world.settle_all();
    let (disk, history, written) = world.crash(Crash::Kill, &mut fastrand::Rng::with_seed(0));
    let world = World::open(disk, 2).unwrap();
    assert!(is_explained(&world.recovered, &history, written));
    assert_eq!(last_of(&world), 5);
}

#[test]
fn a_moved_copy_never_takes_the_place_of_what_was_appended_after_it() {
    let mut world = short_log(5);
    world.storage.relocate(GROUP);
    world.settle();
    // In one write: copies of all entries, a truncation of most of them, and others in their place.
    world.append(Record::Truncate { group: GROUP, from: 3 });
    append(&mut world, 3, 5, 2, 200);
    world.storage.cut().unwrap();
    assert_eq!(world.storage.pending_bytes(), 0, "one write");
    world.settle();
    world.storage.read_entries(ReadToken(1), GROUP, 2, 5, usize::MAX);
    world.settle();
    let read = world.events.iter().find_map(|event| match event {
        StorageEvent::EntriesRead { entries, .. } => Some(entries.clone().unwrap()),
        _ => None,
    });
    let kept = [entry(2, 1, 100)].into_iter();
    assert_eq!(read.unwrap(), kept.chain((3..=5).map(|index| entry(index, 2, 200))).collect::<Vec<_>>());
}

#[test]
fn a_segment_goes_only_when_a_durable_manifest_has_forgotten_it_and_its_bytes_are_never_believed() {
    let mut world = long_log(1);
    world.begin_snapshot(GROUP, 118, b"state");
    world.settle();
    assert_eq!(world.mark_stored(), 1);
    world.settle_all();
    world.storage.compact(GROUP);
    assert_eq!(world.storage.pinning_oldest(), []);
    let mut random = fastrand::Rng::with_seed(4);
    let mut index = 121;
    while world.disk.content(&file(FIRST)).is_some() {
        let mut disk = world.disk.clone();
        disk.power_cut(&mut random);
        assert!(World::open(disk, 5).is_ok());
        if !world.step(&mut random) {
            write(&mut world, index, index, 1, 1500);
            index += 1;
        }
    }
    world.settle();
    // The freed file was filled ahead of the next switch; go on until it is the log again.
    let recycled = |world: &World| {
        let active = world.disk.names().into_iter().rfind(|name| name.0.starts_with("segment-")).unwrap();
        let content = world.disk.content(&active).unwrap();
        let nonce = &content[32..48];
        content.chunks(4096).any(|block| block.starts_with(b"raftbtch") && &block[40..56] != nonce)
    };
    while !recycled(&world) {
        write(&mut world, index, index, 1, 1500);
        index += 1;
    }
    let (disk, history, written) = world.crash(Crash::PowerCut, &mut random);
    let world = World::open(disk, 6).unwrap();
    assert!(is_explained(&world.recovered, &history, written));
    assert_eq!(world.recovered.groups[0].first_entry.as_ref(), Some(&entry(1, 0, 1500)));
    assert_eq!(last_of(&world), index - 1);
}

#[test]
fn a_full_disk_refuses_in_time_and_recovers_by_itself() {
    let mut world = ready(Disk::default(), 1);
    world.settle();
    let mut index = 1;
    while world.disk.content(&file("segment-0000000002")).is_none() {
        world.disk.is_full = world.disk.names().iter().any(|name| name.0.starts_with("spare-"));
        write(&mut world, index, index, 1, 1500);
        index += 1;
    }
    // The switch itself needs no new bytes, but for the manifest, which waits.
    assert!(!world.storage.has_room());
    assert_eq!(world.storage.cut(), None);
    assert_eq!(world.storage.failure(), None);
    assert_eq!(world.storage.deadline(), Time(0));
    let mut now = Time(5);
    for _ in 0..3 {
        world.storage.tick(now);
        now = world.storage.deadline().max(now + Duration::from_secs(1));
        world.settle();
        assert!(!world.storage.has_room());
    }
    world.disk.is_full = false;
    for _ in 0..3 {
        world.storage.tick(now);
        world.settle();
        now = now + Duration::from_secs(2);
    }
    assert!(world.storage.has_room());
    assert_eq!(world.storage.deadline(), Time::NEVER);
    write(&mut world, index, index + 40, 1, 1500);
    assert_eq!(world.storage.durable_index(GROUP), index + 40);
}

#[test]
fn an_entry_longer_than_a_segment_gets_a_longer_one() {
    let mut world = ready(Disk::default(), 1);
    write(&mut world, 1, 2, 1, 100);
    write(&mut world, 3, 3, 1, 300_000);
    write(&mut world, 4, 4, 1, 10);
    let (disk, history, written) = world.crash(Crash::PowerCut, &mut fastrand::Rng::with_seed(1));
    let world = World::open(disk, 2).unwrap();
    assert!(is_explained(&world.recovered, &history, written));
    assert_eq!(last_of(&world), 4);
}

#[test]
fn a_read_is_right_whatever_happens_meanwhile() {
    let mut world = long_log(1);
    let read = |world: &mut World, from, through, bytes| {
        world.storage.read_entries(ReadToken(9), GROUP, from, through, bytes);
    };
    let answer = |world: &mut World| -> Result<Vec<Entry>, ReadError> {
        world.settle();
        let events = std::mem::take(&mut world.events);
        let answers = events.into_iter().filter_map(|event| match event {
            StorageEvent::EntriesRead { token: ReadToken(9), entries, .. } => Some(entries),
            _ => None,
        });
        let mut answers: Vec<_> = answers.collect();
        assert_eq!(answers.len(), 1);
        answers.remove(0)
    };
    read(&mut world, 2, 119, usize::MAX);
    let entries = answer(&mut world).unwrap();
    assert_eq!(entries, (2..=119).map(|index| entry(index, 1, 1500)).collect::<Vec<_>>());
    read(&mut world, 2, 119, 4000);
    assert_eq!(answer(&mut world).unwrap().len(), 2);
    read(&mut world, 50, 119, 1);
    assert_eq!(answer(&mut world).unwrap(), [entry(50, 1, 1500)]);
    read(&mut world, 121, 121, 1);
    assert_eq!(answer(&mut world), Err(ReadError::NotThere { group: GROUP, index: 121 }));
    // What is truncated meanwhile is gone; what is before is not.
    read(&mut world, 100, 120, usize::MAX);
    world.append(Record::Truncate { group: GROUP, from: 110 });
    assert_eq!(answer(&mut world), Err(ReadError::Changed { group: GROUP }));
    read(&mut world, 100, 120, usize::MAX);
    assert_eq!(answer(&mut world).unwrap().len(), 10);
    read(&mut world, 1, 109, usize::MAX);
    world.append(Record::Truncate { group: GROUP, from: 109 + 1 - 1 });
    assert_eq!(answer(&mut world), Err(ReadError::Changed { group: GROUP }));
    read(&mut world, 1, 20, usize::MAX);
    world.append(Record::Truncate { group: GROUP, from: 60 });
    assert_eq!(answer(&mut world).unwrap().len(), 20);
    // Damage is told as such.
    let offset = batch_offsets(&world.disk, &file(FIRST))[10];
    world.disk.damage(&file(FIRST), |bytes| bytes[offset + 1000] ^= 1);
    read(&mut world, 1, 40, usize::MAX);
    assert!(matches!(answer(&mut world), Err(ReadError::Storage(StorageError::Corrupt { .. }))));
}
