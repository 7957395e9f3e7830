//! Snapshot files: from one server to another, damaged, stale, and on a full disk.

use super::disk::Disk;
use super::rules::{GROUP, ready, refused, write};
use super::world::{Crash, LINEAGE, World, is_explained};
use crate::storage::{ReadToken, SnapshotError, SnapshotOrigin, SnapshotReader, StorageEvent};
use crate::types::SnapshotSection;

/// The bytes of the snapshot that the world marked last, and the host's bytes in it.
fn read_snapshot(world: &mut World) -> Vec<u8> {
    let meta = world.storage.snapshot(GROUP).unwrap().0.clone();
    let mut file = Vec::new();
    while (file.len() as u64) < meta.file_bytes {
        world.storage.read_snapshot(ReadToken(3), GROUP, &meta, file.len() as u64, 700);
        world.settle();
        let Some(StorageEvent::SnapshotRead { bytes: Ok(bytes), .. }) = world.events.pop() else { panic!() };
        file.extend_from_slice(&bytes);
    }
    file
}

#[test]
fn a_snapshot_goes_from_one_server_to_another_in_checked_chunks() {
    let mut source = ready(Disk::default(), 1);
    write(&mut source, 1, 20, 1, 100);
    let data: Vec<u8> = (0..9000_u32).map(|at| (at * 17) as u8).collect();
    source.begin_snapshot(GROUP, 15, &data);
    source.settle();
    let progress = source.events.iter().filter(|event| matches!(event, StorageEvent::SnapshotProgress { .. })).count();
    assert_eq!(progress, 1 + 9 + 9);
    source.mark_stored();
    source.settle_all();
    let bytes = read_snapshot(&mut source);
    let meta = source.storage.snapshot(GROUP).unwrap().0.clone();

    let mut target = ready(Disk::default(), 2);
    write(&mut target, 1, 3, 1, 100);
    target.storage.begin_receive(GROUP, meta.clone());
    let chunks: Vec<bytes::Bytes> = bytes.chunks(900).map(bytes::Bytes::copy_from_slice).collect();
    let mut offset = 0;
    for chunk in &chunks {
        let crc = crc32c::crc32c(chunk);
        let send = |target: &mut World, offset, crc| target.storage.receive_chunk(GROUP, offset, chunk.clone(), crc);
        assert!(matches!(send(&mut target, offset, crc ^ 1), Err(SnapshotError::Damaged { .. })));
        assert!(matches!(send(&mut target, offset + 1, crc), Err(SnapshotError::OutOfOrder { .. })));
        assert_eq!(send(&mut target, offset, crc), Ok(()));
        offset += chunk.len() as u64;
        // A new stream of the same snapshot goes on where the last one broke off.
        target.storage.begin_receive(GROUP, meta.clone());
        assert_eq!(target.storage.received_bytes(GROUP, &meta), Some(offset));
    }
    target.settle();
    assert_eq!(target.mark_stored(), 1);
    target.settle_all();
    target.storage.compact(GROUP);
    assert_eq!((target.storage.last_index(GROUP), target.storage.durable_index(GROUP)), (15, 15));
    assert_eq!(read_snapshot(&mut target), bytes);
    let mut reader = SnapshotReader::new(GROUP);
    let blocks: Vec<_> = chunks.into_iter().flat_map(|chunk| reader.push(chunk).unwrap()).collect();
    assert_eq!(reader.finish(), Ok(()));
    for section in [SnapshotSection::Sessions, SnapshotSection::Host] {
        let of_section = blocks.iter().filter(|(of, _)| *of == section);
        assert_eq!(of_section.flat_map(|(_, bytes)| bytes.to_vec()).collect::<Vec<u8>>(), data, "{section:?}");
    }
    // A stale one is refused.
    target.storage.begin_receive(GROUP, meta.clone());
    target.pump();
    assert!(matches!(target.events.last(), Some(StorageEvent::SnapshotFailed { origin: SnapshotOrigin::Peer, .. })));

    let (disk, history, written) = target.crash(Crash::PowerCut, &mut fastrand::Rng::with_seed(1));
    let target = World::open(disk.clone(), 3).unwrap();
    assert!(is_explained(&target.recovered, &history, written));
    assert_eq!(target.recovered.groups[0].lineage, Some(LINEAGE));
    // A marked snapshot that is damaged or gone means that entries are lost.
    let name = target.recovered.groups[0].snapshot.as_ref().unwrap().1.clone();
    for at in [0, 30, bytes.len() / 2, bytes.len() - 1] {
        let mut damaged = disk.clone();
        damaged.damage(&name, |bytes| bytes[at] ^= 1);
        assert_eq!(refused(&damaged).0, name);
    }
    let mut missing = disk;
    missing.remove(&name);
    assert_eq!(refused(&missing), (name, 0));
}

#[test]
fn a_snapshot_that_was_being_received_goes_on_after_a_restart() {
    let mut source = ready(Disk::default(), 1);
    write(&mut source, 1, 20, 1, 100);
    let data: Vec<u8> = (0..9000_u32).map(|at| (at * 17) as u8).collect();
    source.begin_snapshot(GROUP, 15, &data);
    source.settle();
    source.mark_stored();
    source.settle_all();
    let bytes = read_snapshot(&mut source);
    let meta = source.storage.snapshot(GROUP).unwrap().0.clone();
    // Interrupted nowhere, in the middle, and with the last byte.
    for came in [0, 900, 4000, bytes.len()] {
        for how in [Crash::Kill, Crash::PowerCut] {
            let mut target = ready(Disk::default(), 2);
            write(&mut target, 1, 3, 1, 100);
            target.settle_all();
            target.storage.begin_receive(GROUP, meta.clone());
            let first = bytes::Bytes::copy_from_slice(&bytes[..came.min(bytes.len() - 1)]);
            target.storage.receive_chunk(GROUP, 0, first.clone(), crc32c::crc32c(&first)).unwrap();
            target.settle();
            if came == bytes.len() {
                let last = bytes::Bytes::copy_from_slice(&bytes[came - 1..]);
                let crc = crc32c::crc32c(&last);
                target.storage.receive_chunk(GROUP, came as u64 - 1, last, crc).unwrap();
                // The write is done, and nothing of what follows it.
                target.step(&mut fastrand::Rng::with_seed(1));
            }
            let is_kill = matches!(how, Crash::Kill);
            let disk = target.crash(how, &mut fastrand::Rng::with_seed(5)).0;
            let mut target = ready(disk, 3);
            target.storage.begin_receive(GROUP, meta.clone());
            let mut offset = target.storage.received_bytes(GROUP, &meta).unwrap();
            assert!(!is_kill || offset >= first.len() as u64, "what a killed process wrote is there");
            target.settle();
            while (offset as usize) < bytes.len() {
                let end = bytes.len().min(offset as usize + 700);
                let chunk = bytes::Bytes::copy_from_slice(&bytes[offset as usize..end]);
                let crc = crc32c::crc32c(&chunk);
                target.storage.receive_chunk(GROUP, offset, chunk, crc).unwrap();
                offset = end as u64;
            }
            target.settle();
            let is_failed = |event: &StorageEvent| matches!(event, StorageEvent::SnapshotFailed { .. });
            if !is_kill && target.events.iter().any(is_failed) {
                // What the power cut left was not what had been written: it is dropped, and the next stream is whole.
                target.storage.begin_receive(GROUP, meta.clone());
                assert_eq!(target.storage.received_bytes(GROUP, &meta), Some(0));
                let all = bytes::Bytes::copy_from_slice(&bytes);
                target.storage.receive_chunk(GROUP, 0, all, crc32c::crc32c(&bytes)).unwrap();
                target.settle();
            }
            assert_eq!(target.mark_stored(), 1);
            target.settle_all();
            assert_eq!(read_snapshot(&mut target), bytes);
        }
    }
}

#[test]
fn another_snapshot_takes_the_place_of_one_that_was_interrupted() {
    let mut source = ready(Disk::default(), 1);
    write(&mut source, 1, 20, 1, 100);
    let mut metas = Vec::new();
    for index in [10, 15] {
        source.begin_snapshot(GROUP, index, &[index as u8; 3000]);
        source.settle();
        source.mark_stored();
        source.settle_all();
        metas.push((source.storage.snapshot(GROUP).unwrap().0.clone(), read_snapshot(&mut source)));
    }
    let mut target = ready(Disk::default(), 2);
    write(&mut target, 1, 3, 1, 100);
    target.settle_all();
    let (earlier, bytes) = &metas[0];
    target.storage.begin_receive(GROUP, earlier.clone());
    let part = bytes::Bytes::copy_from_slice(&bytes[..1000]);
    target.storage.receive_chunk(GROUP, 0, part.clone(), crc32c::crc32c(&part)).unwrap();
    target.settle();
    let mut target = ready(target.crash(Crash::Kill, &mut fastrand::Rng::with_seed(5)).0, 3);
    let (later, bytes) = &metas[1];
    target.storage.begin_receive(GROUP, later.clone());
    assert_eq!(target.storage.received_bytes(GROUP, later), Some(0));
    let all = bytes::Bytes::copy_from_slice(bytes);
    target.storage.receive_chunk(GROUP, 0, all, crc32c::crc32c(bytes)).unwrap();
    target.settle();
    assert_eq!(target.mark_stored(), 1);
    target.settle_all();
    assert!(target.disk.names().iter().all(|name| !name.0.starts_with("incoming-")));
}

#[test]
fn every_flipped_byte_of_a_snapshot_file_is_told() {
    let mut world = ready(Disk::default(), 1);
    write(&mut world, 1, 5, 1, 20);
    world.begin_snapshot(GROUP, 4, b"twenty bytes of data");
    world.settle();
    world.mark_stored();
    world.settle_all();
    let bytes = read_snapshot(&mut world);
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        let mut reader = SnapshotReader::new(GROUP);
        let result =
            damaged.chunks(7).try_for_each(|piece| reader.push(bytes::Bytes::copy_from_slice(piece)).map(drop));
        assert!(result.and_then(|()| reader.finish()).is_err(), "byte {at}");
    }
}

#[test]
fn a_snapshot_that_cannot_be_stored_leaves_the_log_as_it_is() {
    let mut world = ready(Disk::default(), 1);
    write(&mut world, 1, 5, 1, 100);
    world.disk.is_full = true;
    world.begin_snapshot(GROUP, 5, b"data");
    world.settle();
    let failed = world.events.iter().any(|event| {
        matches!(event, StorageEvent::SnapshotFailed { error: SnapshotError::Disk(error), .. } if error.is_full)
    });
    assert!(failed);
    assert_eq!(world.storage.failure(), None);
    write(&mut world, 6, 6, 1, 100);
    assert!(world.disk.names().iter().all(|name| !name.0.starts_with("snapshot-")));
}
