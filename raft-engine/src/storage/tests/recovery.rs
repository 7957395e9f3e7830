//! What a directory is when it is opened: whose it is, what is torn, what is corrupt, what is left over.

use bytes::Bytes;

use super::disk::Disk;
use super::rules::{
    FIRST, GROUP, MANY_TERMS, append, batch_offsets, file, last_of, long_log, ready, refused, short_log, write,
};
use super::world::{Crash, World, entry, is_explained, options};
use crate::storage::manifest::Manifest;
use crate::storage::recovery::{Directory, recover};
use crate::storage::{Record, StorageError, StorageEvent};
use crate::types::{ClusterId, DiskStep, DiskWork, FileName, Identity, Incarnation, ServerId};

/// Changes the batch at this offset, and makes its checksum fit.
fn forge(disk: &mut Disk, name: &FileName, offset: usize, change: impl FnOnce(&mut [u8])) {
    disk.damage(name, |bytes| {
        let batch = &mut bytes[offset..];
        change(batch);
        let length = |at: usize| u32::from_le_bytes(batch[at..at + 4].try_into().unwrap()) as usize;
        let covered = 96 + 48 * length(16) + length(20);
        batch[12..16].fill(0);
        let crc = crc32c::crc32c(&batch[..covered]);
        batch[12..16].copy_from_slice(&crc.to_le_bytes());
    });
}

/// Changes the manifest.
fn forge_manifest(disk: &mut Disk, change: impl FnOnce(&mut Manifest)) {
    disk.damage(&file("manifest"), |bytes| {
        let mut manifest = Manifest::decode(bytes).unwrap();
        change(&mut manifest);
        *bytes = manifest.encode().to_vec();
    });
}

/// A log of three entries, and where its batches are: checkpoint, incarnation, then one an entry.
fn three_entries() -> (World, Vec<usize>) {
    let mut world = ready(Disk::default(), 1);
    for index in 1..=3 {
        write(&mut world, index, index, 1, 100);
    }
    let offsets = batch_offsets(&world.disk, &file(FIRST));
    assert_eq!(offsets.len(), 5);
    (world, offsets)
}

#[test]
fn damage_below_the_synced_position_is_corruption_and_at_its_end_a_torn_tail() {
    // The last one is above the position that any batch names.
    let (mut world, offsets) = three_entries();
    for (at, &offset) in offsets.iter().enumerate() {
        for byte in [20, 100, 150] {
            let mut disk = world.disk.clone();
            disk.damage(&file(FIRST), |bytes| bytes[offset + byte] ^= 4);
            if at == 4 {
                let world = World::open(disk, 2).unwrap();
                assert_eq!(last_of(&world), 2);
                assert_eq!(world.recovered.cut, Some((file(FIRST), offset as u64)));
            } else if at > 1 || byte < 150 {
                // The first two batches are not that long.
                assert_eq!(refused(&disk), (file(FIRST), offset as u64), "batch {at}, byte {byte}");
            }
        }
    }
    // Once the log is idle and has said so, the last batch is below the synced position too.
    assert!(world.storage.watermark_due());
    world.storage.cut_watermark();
    world.settle();
    assert!(!world.storage.watermark_due());
    let mut disk = world.disk.clone();
    disk.damage(&file(FIRST), |bytes| bytes[offsets[4] + 150] ^= 4);
    assert_eq!(refused(&disk), (file(FIRST), offsets[4] as u64));
}

#[test]
fn a_tail_behind_a_tear_is_cut_and_never_comes_back() {
    let mut world = ready(Disk::default(), 1);
    write(&mut world, 1, 1, 1, 100);
    append(&mut world, 2, 2, 1, 100);
    world.storage.cut().unwrap();
    append(&mut world, 3, 3, 1, 100);
    world.storage.cut().unwrap();
    let writes = world.take_writes();
    assert_eq!(writes.len(), 2);
    // Only the second one reached the disk.
    world.carry_out(&writes[1].1);
    let mut random = fastrand::Rng::with_seed(1);
    let (disk, history, written) = world.crash(Crash::PowerCut, &mut random);
    let mut world = World::open(disk, 2).unwrap();
    assert_eq!(last_of(&world), 1);
    assert!(is_explained(&world.recovered, &history, written));
    world.settle();
    // As long as the batch that was lost: what lay behind the cut would continue it.
    write(&mut world, 2, 2, 2, 100);
    let (disk, ..) = world.crash(Crash::PowerCut, &mut random);
    let world = World::open(disk, 3).unwrap();
    assert_eq!(world.recovered.groups[0].last, entry(2, 2, 0).position());
    assert_eq!(world.recovered.cut, None);
}

#[test]
fn what_a_killed_process_left_in_the_cache_is_durable_before_anything_is_said() {
    let mut world = ready(Disk::default(), 1);
    write(&mut world, 1, 1, 1, 100);
    append(&mut world, 2, 2, 1, 100);
    world.storage.cut().unwrap();
    let writes = world.take_writes();
    let DiskWork::WriteLog { file, offset, data } = &writes[0].1 else { panic!() };
    world.disk.write(file, *offset, data.as_slice()).unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    let (disk, ..) = world.crash(Crash::Kill, &mut random);
    let mut world = World::open(disk, 2).unwrap();
    assert_eq!(last_of(&world), 2);
    world.settle();
    for seed in 0..20 {
        let mut disk = world.disk.clone();
        disk.power_cut(&mut fastrand::Rng::with_seed(seed));
        assert_eq!(last_of(&World::open(disk, 3).unwrap()), 2);
    }
}

#[test]
fn recovery_writes_again_what_may_be_in_the_cache_alone_and_zeros_behind_it() {
    let mut world = ready(Disk::default(), 1);
    write(&mut world, 1, 1, 1, 100);
    write(&mut world, 2, 2, 1, 100);
    append(&mut world, 3, 3, 1, 100);
    world.storage.cut().unwrap();
    let writes = world.take_writes();
    let DiskWork::WriteLog { file: segment, offset, data } = &writes[0].1 else { panic!() };
    world.disk.write(segment, *offset, data.as_slice()).unwrap();
    let (disk, ..) = world.crash(Crash::Kill, &mut fastrand::Rng::with_seed(1));
    let end = *offset + data.len() as u64;
    let length = disk.content(segment).unwrap().len() as u64 - end;
    let mut world = World::open(disk, 2).unwrap();
    let DiskWork::Job(steps) = &world.storage.take_work()[0].1 else { panic!() };
    // A kernel may have called these bytes clean when a sync of them failed: then another sync does nothing.
    let again = DiskStep::Write { file: segment.clone(), offset: *offset, data: data.as_slice().to_vec().into() };
    let zeros = DiskStep::WriteZeros { file: segment.clone(), offset: end, length };
    assert_eq!(steps[..], [again, zeros, DiskStep::Sync { file: segment.clone() }, DiskStep::SyncDirectory]);
}

#[test]
fn a_missing_segment_and_swapped_ones_are_refused() {
    let world = long_log(1);
    for number in 1..=3 {
        let name = file(&format!("segment-000000000{number}"));
        let mut disk = world.disk.clone();
        disk.remove(&name);
        assert_eq!(refused(&disk), (name.clone(), 0));
        let mut disk = world.disk.clone();
        disk.damage(&name, |bytes| bytes.truncate(bytes.len() - 4096));
        assert_eq!(refused(&disk), (name.clone(), 0));
        let mut disk = world.disk.clone();
        disk.damage(&name, |bytes| bytes.resize(bytes.len() + 4096, 0));
        assert_eq!(last_of(&World::open(disk, 2).unwrap()), 120, "what lies behind it is nobody's");
    }
    let mut disk = world.disk.clone();
    disk.rename(&file(FIRST), &file("other"));
    disk.rename(&file("segment-0000000002"), &file(FIRST));
    disk.rename(&file("other"), &file("segment-0000000002"));
    assert_eq!(refused(&disk), (file(FIRST), 0));
    // A tear anywhere but in the last segment is corruption.
    let mut disk = world.disk.clone();
    let last = *batch_offsets(&disk, &file(FIRST)).last().unwrap();
    disk.damage(&file(FIRST), |bytes| bytes[last] ^= 1);
    assert_eq!(refused(&disk), (file(FIRST), last as u64));
    let mut disk = world.disk.clone();
    disk.remove(&file("manifest"));
    assert_eq!(refused(&disk), (file("manifest"), 0));
    let mut disk = world.disk.clone();
    disk.damage(&file("manifest"), |bytes| *bytes.last_mut().unwrap() ^= 1);
    assert_eq!(refused(&disk), (file("manifest"), 0));
}

#[test]
fn an_entry_that_no_live_segment_holds_is_missed() {
    let world = short_log(1);
    let mut disk = world.disk.clone();
    // As if the segment had been freed too early: what is behind it knows of entry 1, and does not have it.
    forge_manifest(&mut disk, |manifest| {
        manifest.segments.remove(0);
    });
    assert_eq!(refused(&disk), (file("manifest"), 0));
}

#[test]
fn another_owner_a_refused_directory_and_a_newer_version_are_told_apart() {
    let mut world = ready(Disk::default(), 1);
    let open = |disk: &Disk, change: fn(&mut crate::storage::StorageOptions)| {
        let mut options = options();
        change(&mut options);
        World::open_with(disk.clone(), 2, options).map(|_| ())
    };
    let other = open(&world.disk, |options| options.server = ServerId(2));
    assert!(matches!(other, Err(StorageError::Foreign { what: "server", .. })), "{other:?}");
    let other = open(&world.disk, |options| options.cluster = ClusterId::new("other").unwrap());
    assert!(matches!(other, Err(StorageError::Foreign { what: "cluster", .. })), "{other:?}");
    let other = open(&world.disk, |options| options.segment_bytes = 5000);
    assert!(matches!(other, Err(StorageError::Option { .. })), "{other:?}");
    let mut newer = world.disk.clone();
    newer.damage(&file("manifest"), |bytes| bytes[8] = 2);
    assert!(matches!(open(&newer, |_| ()), Err(StorageError::UnknownVersion { version: 2, .. })));
    let mut newer = world.disk.clone();
    newer.damage(&file(FIRST), |bytes| bytes[8] = 2);
    assert!(matches!(open(&newer, |_| ()), Err(StorageError::UnknownVersion { version: 2, .. })));

    world.storage.refuse_directory("it is a copy".into());
    world.settle();
    assert!(world.events.contains(&StorageEvent::DirectoryRefused));
    let (disk, ..) = world.crash(Crash::PowerCut, &mut fastrand::Rng::with_seed(1));
    assert_eq!(open(&disk, |_| ()), Err(StorageError::Refused { reason: "it is a copy".into() }));
}

#[test]
fn a_directory_without_its_manifest_is_new_only_if_nothing_was_ever_written_in_it() {
    let empty = |length: usize| {
        let mut content = vec![0; length];
        content[4096..4104].copy_from_slice(b"raftbtch");
        content
    };
    let with = |name: &str, content: Vec<u8>| {
        let mut disk = Disk::default();
        for (name, content) in
            [("spare-77", vec![0; 4096]), ("manifest.new", vec![1]), ("notes", vec![2]), (name, content)]
        {
            disk.step(&DiskStep::Create { file: file(name), data: content.into() }).unwrap();
        }
        disk
    };
    // What an interrupted creation leaves goes, and what is nobody's stays.
    let mut world = World::open(with(FIRST, empty(65_536)), 1).unwrap();
    world.settle();
    assert!(world.is_ready);
    let names = world.disk.names();
    assert!(names.contains(&file("notes")), "{names:?}");
    assert!(!names.contains(&file("manifest.new")) && !names.contains(&file("spare-77")), "{names:?}");

    // A second batch is a record, wherever it is.
    for (length, at) in [(65_536, 8_192), (65_536, 61_440), (5 << 20, (5 << 20) - 4096)] {
        let mut content = empty(length);
        content[at..at + 8].copy_from_slice(b"raftbtch");
        assert_eq!(refused(&with(FIRST, content)), (file("manifest"), 0), "a batch at {at}");
    }
    for name in ["segment-0000000002", "snapshot-1-0000000007-3", "incoming-1"] {
        assert_eq!(refused(&with(name, vec![0; 4096])), (file("manifest"), 0), "{name}");
    }
}

#[test]
fn identity_incarnations_and_peers_are_remembered() {
    let mut disk = Disk::default();
    let mut history = Vec::new();
    let peer = Identity([9; 16]);
    let mut identity = None;
    for number in 1..=5 {
        let mut world = ready(disk, number);
        assert_eq!(*identity.get_or_insert(world.recovered.identity), world.recovered.identity);
        history.push(world.recovered.incarnation);
        assert_eq!(world.recovered.incarnation.number, number);
        assert_eq!(world.recovered.history, history);
        let remembered = Incarnation { number: number - 1, nonce: 3 };
        assert_eq!(world.recovered.peers.get(&peer), Some(&remembered).filter(|_| number > 1));
        let incarnation = Incarnation { number, nonce: 3 };
        world.append(Record::PeerIncarnation { identity: peer, incarnation });
        world.settle_all();
        disk = world.crash(Crash::PowerCut, &mut fastrand::Rng::with_seed(number)).0;
    }
}

#[test]
fn leftovers_go_and_foreign_files_stay() {
    let mut world = ready(Disk::default(), 1);
    write(&mut world, 1, 5, 1, 100);
    world.begin_snapshot(GROUP, 5, b"never marked");
    world.settle();
    let mut disk = world.crash(Crash::Kill, &mut fastrand::Rng::with_seed(1)).0;
    for name in ["lock", "manifest.new", "segment-0000000009", "snapshot-new-1-1"] {
        disk.step(&DiskStep::Create { file: file(name), data: Bytes::from_static(b"x") }).unwrap();
    }
    let world = ready(disk, 2);
    let names: Vec<String> = world.disk.names().into_iter().map(|name| name.0).collect();
    assert_eq!(
        names.iter().filter(|name| !name.starts_with("spare-")).collect::<Vec<_>>(),
        ["lock", "manifest", FIRST]
    );
}

#[test]
fn what_a_whole_batch_says_and_this_version_does_not_know_is_told_wherever_it_is() {
    let (world, offsets) = three_entries();
    let opened = |change: &dyn Fn(&mut Disk)| {
        let mut disk = world.disk.clone();
        change(&mut disk);
        World::open(disk, 2).map(|_| ())
    };
    // At the end too: a torn batch is not whole.
    for &at in &offsets[2..5] {
        let forged =
            |from: usize, number: u8| opened(&|disk| forge(disk, &file(FIRST), at, |batch| batch[from] = number));
        let newer = forged(8, 2);
        assert!(matches!(newer, Err(StorageError::UnknownVersion { version: 2, known: 1, .. })), "{newer:?}");
        for (from, number) in [(10, 3), (96, 200), (97, 2)] {
            let Err(StorageError::Corrupt { offset, what, .. }) = forged(from, number) else { panic!("{from}") };
            assert_eq!(offset, at as u64);
            assert_eq!(
                what, "the batch holds a kind of record that does not exist",
                "byte {from} of the batch at {at}"
            );
        }
    }
    // And behind what looks torn: a newer version may have written there what counts.
    let behind = opened(&|disk| {
        forge(disk, &file(FIRST), offsets[4], |batch| batch[8] = 2);
        disk.damage(&file(FIRST), |bytes| bytes[offsets[3] + 20] ^= 4);
    });
    assert!(matches!(behind, Err(StorageError::UnknownVersion { version: 2, .. })), "{behind:?}");
}

#[test]
fn a_checkpoint_is_the_first_batch_of_its_segment_and_no_other() {
    let mut world = ready(Disk::default(), 1);
    write(&mut world, 1, 1, 1, 100);
    let offsets = batch_offsets(&world.disk, &file(FIRST));
    for (at, kind) in [(0, 1), (2, 2)] {
        let mut disk = world.disk.clone();
        forge(&mut disk, &file(FIRST), offsets[at], |batch| batch[10] = kind);
        let Err(StorageError::Corrupt { offset, what, .. }) = World::open(disk, 2).map(|_| ()) else { panic!("{at}") };
        assert!(offset == offsets[at] as u64 && what.contains("checkpoint"), "{offset}: {what}");
    }
}

#[test]
fn a_checkpoint_is_what_the_segments_before_it_hold() {
    let world = short_log(1);
    let second = file("segment-0000000002");
    let checkpoint = batch_offsets(&world.disk, &second)[0];
    // Another term than that of the last record before it.
    let mut disk = world.disk.clone();
    forge(&mut disk, &second, checkpoint, |batch| {
        let control = u32::from_le_bytes(batch[20..24].try_into().unwrap()) as usize;
        let mut terms = MANY_TERMS..MANY_TERMS + 1_000;
        let place = |term: u64| batch[96..96 + control].windows(8).position(|bytes| bytes == term.to_le_bytes());
        let at = terms.find_map(place).unwrap();
        batch[96 + at] ^= 1;
    });
    assert_eq!(refused(&disk), (second.clone(), checkpoint as u64));
    // Another number than the next one, in the manifest too.
    let mut disk = world.disk.clone();
    forge_manifest(&mut disk, |manifest| manifest.segments[1].first_sequence += 1);
    forge(&mut disk, &second, checkpoint, |batch| batch[32] += 1);
    assert_eq!(refused(&disk), (second.clone(), checkpoint as u64));
}

#[test]
fn spares_of_the_right_length_are_used_again_and_all_else_that_nobody_names_is_left_over() {
    let mut disk = ready(Disk::default(), 1).disk;
    let names: Vec<_> = disk.names().into_iter().filter(|name| name.0.starts_with("spare-")).collect();
    names.iter().for_each(|name| disk.remove(name));
    let length = options().segment_bytes as usize;
    let (short, long) = ("spare-10", "spare-30");
    let right: Vec<String> = (20..26).map(|number| format!("spare-{number}")).collect();
    let lengths = right.iter().map(|name| (name.as_str(), length)).chain([
        (short, length - 4096),
        (long, length + 4096),
        ("manifest.new", 1),
        ("notes", 1),
    ]);
    for (name, length) in lengths {
        disk.step(&DiskStep::Create { file: file(name), data: vec![0; length].into() }).unwrap();
    }
    let Directory::Known(found) = recover(&mut disk, &options()).unwrap() else { panic!("a manifest is there") };
    let spares: Vec<_> = found.spares.iter().map(|(file, length)| (file.0.as_str(), *length as usize)).collect();
    assert_eq!(spares, right[..4].iter().map(|name| (name.as_str(), length)).collect::<Vec<_>>());
    let mut leftovers: Vec<_> = found.leftovers.iter().map(|file| file.0.as_str()).collect();
    leftovers.sort_unstable();
    assert_eq!(leftovers, ["manifest.new", short, right[4].as_str(), right[5].as_str(), long]);
}
