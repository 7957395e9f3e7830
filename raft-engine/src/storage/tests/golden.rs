//! The bytes of a batch and of a snapshot's parts, pinned: what is on a disk today must be read for ever.

use bytes::Bytes;

use crate::storage::batch::{self, BatchHead, BatchKind, Frame};
use crate::storage::segment::SegmentId;
use crate::storage::snapshot_file::{encode_blocks, encode_footer};
use crate::types::{Entry, EntryKind, GroupId, LogTime, Position, SnapshotSection};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const SEGMENT: SegmentId = SegmentId { number: 0x0102_0304, nonce: *b"0123456789abcdef" };

fn small() -> (BatchHead, Vec<(GroupId, Entry, bool)>, Vec<Frame>) {
    let head = BatchHead {
        kind: BatchKind::Records,
        sequence: 0x1112_1314_1516_1718,
        segment: SEGMENT,
        synced_segment: 0x0102_0304,
        synced_offset: 0x2000,
        incarnation: 5,
    };
    let at = |index, term, kind, payload: &'static [u8]| {
        Entry::new(Position { term, index }, LogTime(0x3132), kind, Bytes::from_static(payload))
    };
    let entries = vec![
        (GroupId(7), at(9, 3, EntryKind::Command, b"hello"), false),
        (GroupId(8), at(2, 1, EntryKind::NoOp, b""), true),
    ];
    (head, entries, vec![Frame { rows_before: 1, body: b"body".to_vec() }])
}

#[test]
fn a_small_batch_has_the_documented_bytes() {
    let (head, entries, frames) = small();
    let rows = entries.iter().map(|(group, entry, is_moved)| (*group, entry, *is_moved));
    let bytes = batch::encode(&head, rows, &frames);
    assert_eq!(bytes.len(), 4096);
    assert_eq!(hex(&bytes.as_slice()[..96]), HEADER);
    assert_eq!(hex(&bytes.as_slice()[96..192]), ROWS);
    assert_eq!(hex(&bytes.as_slice()[192..209]), REST);
    assert!(bytes.as_slice()[209..].iter().all(|&byte| byte == 0));
}

#[test]
fn a_batch_is_read_as_it_was_written() {
    let (head, entries, frames) = small();
    let rows = entries.iter().map(|(group, entry, is_moved)| (*group, entry, *is_moved));
    let bytes = Bytes::copy_from_slice(batch::encode(&head, rows, &frames).as_slice());
    let batch = batch::parse(&bytes, SEGMENT).unwrap();
    assert_eq!((batch.head, batch.total_bytes), (head, 4096));
    assert_eq!(batch.verify_payloads(), Ok(()));
    assert_eq!(batch.frames().unwrap(), [(1, &b"body"[..])]);
    let read: Vec<_> =
        (batch.entries()).map(|(row, range)| (row.group, row.entry(batch.payload(range)), row.is_moved)).collect();
    assert_eq!(read, entries);
}

#[test]
fn every_flipped_bit_of_a_batch_is_told() {
    let (head, entries, frames) = small();
    let rows = entries.iter().map(|(group, entry, is_moved)| (*group, entry, *is_moved));
    let bytes = batch::encode(&head, rows, &frames);
    for at in 0..209 {
        for bit in 0..8 {
            let mut damaged = bytes.as_slice().to_vec();
            damaged[at] ^= 1 << bit;
            let damaged = Bytes::from(damaged);
            let result = batch::parse(&damaged, SEGMENT).and_then(|batch| batch.verify_payloads());
            assert!(result.is_err(), "byte {at}, bit {bit}");
        }
    }
}

const HEADER: &str = concat!(
    "726166746274636801000100eb9c1d5d020000000c000000050000000403020118171615141312113031323334353637",
    "383961626364656604030201000000000020000000000000050000000000000000000000000000000000000000000000",
);
const ROWS: &str = concat!(
    "040000000500000007000000000000000900000000000000030000000000000032310000000000004cbb719a00000000",
    "020100000000000008000000000000000200000000000000010000000000000032310000000000000000000000000000",
);
const REST: &str = "0100000004000000626f647968656c6c6f";

#[test]
fn the_bytes_of_a_snapshots_sections_are_pinned() {
    let sessions = encode_blocks(SnapshotSection::Sessions, b"table");
    let host = encode_blocks(SnapshotSection::Host, b"state");
    assert_eq!(hex(&sessions), "010000000500000068415b2a7461626c65");
    assert_eq!(hex(&host), "0200000005000000bfdfa7d47374617465");
    assert_eq!(hex(&encode_footer(5)), "00000000d999eec105000000000000007261667473656e64");
}
