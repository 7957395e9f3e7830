//! The bytes of every kind of frame, as docs/wire-format.md lays them out. The table was made by a program of its own
//! that knows only that page, so that the code and the page are checked against each other. A change here is a change
//! of the wire, and goes into the CHANGELOG.

use bytes::Bytes;

use super::super::frame::{FrameCutter, FrameKind, MAX_FRAME_BYTES};
use super::super::heartbeats::OF_ALL_GROUPS;
use super::super::{
    Connection, ForwardAnswer, ForwardRefusal, HeartbeatReplyRow, HeartbeatRow, PeerMessage, Purpose, Refusal,
    RefusalKind, RequestId, SnapshotRefusal,
};
use super::{Book, GROUP, NOW, Side, append, entry, exchange, limits, snapshot_meta};
use crate::types::{
    AppendOutcome, Entry, EntryKind, GroupId, HostDigest, Incarnation, Lineage, LogTime, Message, Position, Proposed,
    ServerId, StateDigest,
};

/// A name, and the frame: magic, layout, kind, reserved, group, metadata length, payload length, CRC, metadata, payload.
const FRAMES: &[(&str, &str)] = &[
    (
        "Hello",
        "726674 01 01 000000 0000000000000000 4c000000 00000000 5812a395 0100 0300 0400000000000000 \
         64656d6f 0200000000000000 0100000000000000 22222222222222222222222222222222 0600000000000000 \
         efcdab0000000000 01 0300000000000000 623a32",
    ),
    (
        "Welcome",
        "726674 01 02 000000 0000000000000000 3b000000 00000000 dc353864 0100 0100000000000000 \
         11111111111111111111111111111111 0900000000000000 9900000000000000 01 0500000000000000 \
         efbe000000000000",
    ),
    ("Confirm", "726674 01 03 000000 0000000000000000 05000000 00000000 490d6784 00000000 00"),
    ("Ready", "726674 01 04 000000 0000000000000000 04000000 00000000 6c1c48c3 00000000"),
    (
        "Refused",
        "726674 01 05 000000 0000000000000000 19000000 00000000 297c552a 0200 0f00000000000000 \
         616e6f7468657220636c7573746572",
    ),
    (
        "Lineage",
        "726674 01 10 000000 0700000000000000 20000000 00000000 51520363 \
         000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
    ),
    (
        "LineageRefused",
        "726674 01 11 000000 0700000000000000 20000000 00000000 fba66dc7 \
         000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
    ),
    (
        "Introduce, not formed",
        "726674 01 18 000000 0700000000000000 21000000 00000000 e129cd69 \
         dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd 00",
    ),
    (
        "Introduce, formed",
        "726674 01 18 000000 0700000000000000 41000000 00000000 0d4dd631 \
         dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd 01 \
         000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
    ),
    (
        "EntryOneRequest",
        "726674 01 19 000000 0700000000000000 21000000 00000000 0ac72c9a 01 \
         dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd",
    ),
    (
        "EntryOne",
        "726674 01 1a 000000 0700000000000000 39000000 04000000 70ee6b4c \
         000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f 0000000000000000 0000000000000000 \
         01 04000000 6008d3dc 666f726d",
    ),
    (
        "FormationRefused",
        "726674 01 1b 000000 0700000000000000 15000000 00000000 ceee2b2c 0d00000000000000 \
         6f74686572206d656d62657273",
    ),
    (
        "PreVote",
        "726674 01 20 000000 0700000000000000 18000000 00000000 8875393d 0400000000000000 0300000000000000 \
         0c00000000000000",
    ),
    (
        "PreVoteReply",
        "726674 01 21 000000 0700000000000000 11000000 00000000 b090f4dd 0300000000000000 0400000000000000 \
         01",
    ),
    (
        "Vote",
        "726674 01 22 000000 0700000000000000 19000000 00000000 dde81d2f 0400000000000000 0300000000000000 \
         0c00000000000000 01",
    ),
    ("VoteReply", "726674 01 23 000000 0700000000000000 09000000 00000000 92a7e778 0400000000000000 00"),
    (
        "Append, empty",
        "726674 01 24 000000 0700000000000000 30000000 00000000 9608e46e 0400000000000000 0800000000000000 \
         0300000000000000 0c00000000000000 0a00000000000000 0000000000000000",
    ),
    (
        "Append, of three",
        "726674 01 24 000000 0700000000000000 7b000000 07000000 edcb92e8 0400000000000000 0900000000000000 \
         0300000000000000 0c00000000000000 0b00000000000000 0300000000000000 0400000000000000 \
         e803000000000000 02 00000000 00000000 0400000000000000 d007000000000000 04 05000000 4cbb719a \
         0400000000000000 d107000000000000 04 02000000 529ff803 68656c6c6f0102",
    ),
    (
        "AppendReply, matched",
        "726674 01 25 000000 0700000000000000 1c000000 00000000 fbb8a041 0400000000000000 0900000000000000 \
         00000000 0f00000000000000",
    ),
    (
        "AppendReply, conflict",
        "726674 01 25 000000 0700000000000000 34000000 00000000 6d1b92d4 0400000000000000 0900000000000000 \
         01000000 0c00000000000000 0200000000000000 0a00000000000000 0b00000000000000",
    ),
    (
        "Heartbeats",
        "726674 01 26 000000 0000000000000000 48000000 00000000 3f356768 \
         0200000000000000 \
         0700000000000000 0400000000000000 2100000000000000 0f00000000000000 \
         0900000000000000 0500000000000000 0200000000000000 0000000000000000",
    ),
    (
        "HeartbeatReplies",
        "726674 01 27 000000 0000000000000000 48000000 00000000 4bd5dfe2 \
         0200000000000000 \
         0700000000000000 0400000000000000 2100000000000000 8096980000000000 \
         0900000000000000 0500000000000000 0000000000000000 0000000000000000",
    ),
    ("TimeoutNow", "726674 01 28 000000 0700000000000000 08000000 00000000 8c55ee10 0400000000000000"),
    ("Removed", "726674 01 29 000000 0700000000000000 08000000 00000000 0b5d842b 0f00000000000000"),
    (
        "SnapshotStart",
        "726674 01 30 000000 0700000000000000 ef000000 04000000 9d5c357d 0600000000000000 0200000000000000 \
         0500000000000000 5a00000000000000 4d00000000000000 0200000000000000 0100000000000000 00000000 11 \
         11111111111111111111111111111111 0300000000000000 613a31 0100000000000000 c1 0200000000000000 \
         01000000 22 22222222222222222222222222222222 0300000000000000 623a32 0000000000000000 \
         0100000000000000 0100000000000000 0200000000000000 00 0000000000000000 00a0b83046030000 00100000 \
         00000100 0400000000000000 0010000000000000 04030201 0000000000000000 0000000000000000 01 04000000 \
         6008d3dc 666f726d",
    ),
    (
        "SnapshotChunk",
        "726674 01 31 000000 0700000000000000 1c000000 05000000 6ee6950e 0500000000000000 5a00000000000000 \
         0004000000000000 448e6b4a 6368756e6b",
    ),
    (
        "SnapshotProgress",
        "726674 01 32 000000 0700000000000000 29000000 00000000 7f485fe6 0600000000000000 0200000000000000 \
         0500000000000000 5a00000000000000 0504000000000000 00",
    ),
    (
        "SnapshotRefused",
        "726674 01 33 000000 0700000000000000 24000000 00000000 0c8ce2e0 0600000000000000 0200000000000000 \
         0500000000000000 5a00000000000000 01000000",
    ),
    (
        "Forward",
        "726674 01 50 000000 0700000000000000 32000000 07000000 d10b2d18 0600000000000000 2900000000000000 \
         0400000000000000 0200000000000000 04 05000000 4cbb719a 04 02000000 529ff803 68656c6c6f0102",
    ),
    (
        "ForwardReply, taken",
        "726674 01 51 000000 0700000000000000 24000000 00000000 38b3370d 0600000000000000 2900000000000000 \
         00000000 0400000000000000 0e00000000000000",
    ),
    (
        "ForwardReply, not the leader",
        "726674 01 51 000000 0700000000000000 21000000 00000000 0aa95d60 0600000000000000 2900000000000000 \
         01000000 00000000 01 0200000000000000",
    ),
    (
        "ForwardReply, leader unknown",
        "726674 01 51 000000 0700000000000000 19000000 00000000 64f91ef7 0600000000000000 2900000000000000 \
         01000000 00000000 00",
    ),
    (
        "ForwardReply, overloaded",
        "726674 01 51 000000 0700000000000000 18000000 00000000 04a979d1 0600000000000000 2900000000000000 \
         01000000 01000000",
    ),
    (
        "ForwardReply, too large",
        "726674 01 51 000000 0700000000000000 18000000 00000000 3d205bb3 0600000000000000 2900000000000000 \
         01000000 02000000",
    ),
    (
        "ForwardReply, disk full",
        "726674 01 51 000000 0700000000000000 18000000 00000000 858a1e6e 0600000000000000 2900000000000000 \
         01000000 03000000",
    ),
    (
        "ForwardReply, transferring",
        "726674 01 51 000000 0700000000000000 18000000 00000000 4f321e77 0600000000000000 \
         2900000000000000 01000000 04000000",
    ),
    (
        "ReadIndex",
        "726674 01 52 000000 0700000000000000 18000000 00000000 b790eec4 0600000000000000 2900000000000000 \
         0400000000000000",
    ),
    (
        "ReadIndexReply",
        "726674 01 53 000000 0700000000000000 19000000 00000000 d8b15c92 0600000000000000 2900000000000000 \
         01 0f00000000000000",
    ),
    (
        "ReadIndexReply, refused",
        "726674 01 53 000000 0700000000000000 11000000 00000000 19f37ac1 0600000000000000 2900000000000000 \
         00",
    ),
    ("DigestQuery", "726674 01 60 000000 0700000000000000 08000000 00000000 0286ef9c 0f00000000000000"),
    (
        "DigestReport",
        "726674 01 61 000000 0700000000000000 35000000 00000000 35b75d5f 0f00000000000000 \
         0600000000000000 01 dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd 04030201",
    ),
    (
        "DigestReport, none",
        "726674 01 61 000000 0700000000000000 11000000 00000000 aaef7c40 0f00000000000000 \
         0600000000000000 00",
    ),
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn pinned(name: &str) -> String {
    let found = FRAMES.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("no bytes are pinned for {name}")).1.replace(' ', "")
}

fn messages() -> Vec<(&'static str, PeerMessage)> {
    let last = Position { term: 3, index: 12 };
    let position = Position { term: 5, index: 90 };
    let lineage = Lineage(std::array::from_fn(|at| at as u8));
    let digest = [0xdd; 32];
    let form = || Entry::new(Position { term: 0, index: 1 }, LogTime(0), EntryKind::Formation, Bytes::from("form"));
    let entries = vec![
        Entry::new(Position { term: 4, index: 13 }, LogTime(1000), EntryKind::NoOp, Bytes::new()),
        Entry::new(Position { term: 4, index: 14 }, LogTime(2000), EntryKind::Command, Bytes::from("hello")),
        Entry::new(Position { term: 4, index: 15 }, LogTime(2001), EntryKind::Command, Bytes::from_static(&[1, 2])),
    ];
    let raft = PeerMessage::Raft;
    let chunk = Bytes::from("chunk");
    let request = RequestId { incarnation: 6, number: 41 };
    let answered = |answer| PeerMessage::ForwardReply { request, answer };
    let refused = |refusal| answered(ForwardAnswer::Refused(refusal));
    vec![
        ("Lineage", PeerMessage::Lineage(lineage)),
        ("LineageRefused", PeerMessage::LineageRefused(lineage)),
        ("Introduce, not formed", PeerMessage::Introduce { digest, formed: None }),
        ("Introduce, formed", PeerMessage::Introduce { digest, formed: Some(lineage) }),
        ("EntryOneRequest", PeerMessage::EntryOneRequest { digest: Some(digest) }),
        ("EntryOne", PeerMessage::EntryOne { lineage, entry: form() }),
        ("FormationRefused", PeerMessage::FormationRefused { reason: "other members".to_owned() }),
        ("PreVote", raft(Message::PreVote { campaign_term: 4, last })),
        ("PreVoteReply", raft(Message::PreVoteReply { term: 3, campaign_term: 4, granted: true })),
        ("Vote", raft(Message::Vote { term: 4, last, is_transfer: true })),
        ("VoteReply", raft(Message::VoteReply { term: 4, granted: false })),
        ("Append, empty", raft(Message::Append { term: 4, number: 8, previous: last, commit: 10, entries: vec![] })),
        ("Append, of three", append(12, entries)),
        ("AppendReply, matched", {
            let outcome = AppendOutcome::Matched { through: 15 };
            raft(Message::AppendReply { term: 4, number: 9, outcome })
        }),
        ("AppendReply, conflict", {
            let hint = Position { term: 2, index: 10 };
            let outcome = AppendOutcome::Conflict { previous: 12, hint, last: 11 };
            raft(Message::AppendReply { term: 4, number: 9, outcome })
        }),
        ("Heartbeats", {
            let row = |group, term, round, commit| HeartbeatRow { group: GroupId(group), term, round, commit };
            PeerMessage::Heartbeats(vec![row(7, 4, 33, 15), row(9, 5, 2, 0)])
        }),
        ("HeartbeatReplies", {
            let row = |group, term, round, promise| HeartbeatReplyRow { group: GroupId(group), term, round, promise };
            PeerMessage::HeartbeatReplies(vec![row(7, 4, 33, 10_000_000), row(9, 5, 0, 0)])
        }),
        ("TimeoutNow", raft(Message::TimeoutNow { term: 4 })),
        ("Removed", raft(Message::Removed { index: 15 })),
        ("SnapshotStart", {
            PeerMessage::SnapshotStart { term: 6, number: 2, meta: snapshot_meta(), entry_one: form() }
        }),
        ("SnapshotChunk", {
            let crc = crc32c::crc32c(&chunk);
            PeerMessage::SnapshotChunk { position, offset: 1024, crc, bytes: chunk }
        }),
        ("SnapshotProgress", {
            let (durable_bytes, is_installed) = (1029, false);
            PeerMessage::SnapshotProgress { term: 6, number: 2, position, durable_bytes, is_installed }
        }),
        ("SnapshotRefused", {
            PeerMessage::SnapshotRefused { term: 6, number: 2, position, reason: SnapshotRefusal::Stale }
        }),
        ("Forward", {
            let proposed = |payload| Proposed { kind: EntryKind::Command, payload };
            let proposals = vec![proposed(Bytes::from("hello")), proposed(Bytes::from_static(&[1, 2]))];
            PeerMessage::Forward { request, term: 4, proposals }
        }),
        ("ForwardReply, taken", answered(ForwardAnswer::Taken(Position { term: 4, index: 14 }))),
        ("ForwardReply, not the leader", refused(ForwardRefusal::NotLeader(Some(ServerId(2))))),
        ("ForwardReply, leader unknown", refused(ForwardRefusal::NotLeader(None))),
        ("ForwardReply, overloaded", refused(ForwardRefusal::Overloaded)),
        ("ForwardReply, too large", refused(ForwardRefusal::TooLarge)),
        ("ForwardReply, disk full", refused(ForwardRefusal::DiskFull)),
        ("ForwardReply, transferring", refused(ForwardRefusal::Transferring)),
        ("ReadIndex", PeerMessage::ReadIndex { request, term: 4 }),
        ("ReadIndexReply", PeerMessage::ReadIndexReply { request, index: Some(15) }),
        ("ReadIndexReply, refused", PeerMessage::ReadIndexReply { request, index: None }),
        ("DigestQuery", PeerMessage::DigestQuery { index: 15 }),
        ("DigestReport", {
            let digest = StateDigest { host: HostDigest([0xdd; 32]), sessions: 0x0102_0304 };
            PeerMessage::DigestReport { index: 15, incarnation: 6, digest: Some(digest) }
        }),
        ("DigestReport, none", PeerMessage::DigestReport { index: 15, incarnation: 6, digest: None }),
    ]
}

#[test]
fn the_frame_of_every_message_is_pinned() {
    for (name, message) in messages() {
        let is_of_all = matches!(message, PeerMessage::Heartbeats(_) | PeerMessage::HeartbeatReplies(_));
        let group = if is_of_all { OF_ALL_GROUPS } else { GROUP };
        let frame = message.encode().into_frame(group);
        assert_eq!(hex(&frame.to_bytes()), pinned(name), "{name}");
        assert_eq!(frame.len(), frame.to_bytes().len(), "{name}");
        let mut cutter = FrameCutter::default();
        let received = cutter.next(&mut frame.to_bytes(), MAX_FRAME_BYTES).unwrap().unwrap();
        assert_eq!((received.kind, received.group), (message.kind(), group));
        let read = PeerMessage::decode(received.kind, &received.metadata, received.payload).unwrap();
        assert_eq!(read, message, "{name}");
    }
}

#[test]
fn the_frames_of_the_handshake_are_pinned() {
    let earlier = Incarnation { number: 5, nonce: 0xbeef };
    let mut from = Book::new(2, 6);
    from.local.incarnation = Incarnation { number: 6, nonce: 0x00ab_cdef };
    from.local.version_max = 3;
    from.local.address = "b:2".to_owned();
    from.history = vec![earlier];
    let mut to = Book::new(1, 9).remembering(from.local.identity, earlier);
    to.local.incarnation = Incarnation { number: 9, nonce: 0x99 };

    let mut dialler = Side::dial(from, 1, Purpose::Messages, limits());
    let mut acceptor = Side::accept(to, limits());
    for name in ["Hello", "Welcome", "Confirm", "Ready"] {
        let bytes = dialler.take_bytes();
        assert_eq!(hex(&bytes), pinned(name));
        acceptor.receive(bytes);
        std::mem::swap(&mut dialler, &mut acceptor);
    }
    exchange(&mut dialler, &mut acceptor);
    assert!(dialler.established().is_some() && acceptor.established().is_some());

    let mut connection = Connection::dial(dialler.book.local, Some(ServerId(1)), Purpose::Messages, limits(), NOW);
    connection.next_frame(NOW).unwrap();
    connection.refuse(&Refusal::new(RefusalKind::Cluster, "another cluster"));
    assert_eq!(hex(&connection.next_frame(NOW).unwrap().to_bytes()), pinned("Refused"));
}

#[test]
fn the_frames_of_a_fragmented_message_are_pinned() {
    let payload = Bytes::from(vec![0x55; 128 << 10]);
    let mut large = entry(13, 4, EntryKind::Command, payload);
    large.log_time = LogTime(1000);
    let encoded = append(12, vec![large]).encode();
    let mut fragmenter = super::super::fragment::Fragmenter::new(encoded, GROUP, 0);
    // Header, the message's number, kind, metadata length, length, and the piece's offset; its CRC follows.
    let heads = [
        "726674 01 40 000000 0700000000000000 19000000 cbff0100 bbd8dff3 0000000000000000 24 49000000 49000200 00000000",
        "726674 01 40 000000 0700000000000000 19000000 7e000000 a6a8b7aa 0000000000000000 24 49000000 49000200 cbff0100",
    ];
    for head in heads {
        let frame = fragmenter.next_frame().unwrap();
        assert_eq!(hex(&frame.head[..49]), head.replace(' ', ""));
        let piece: Bytes = frame.payloads.iter().flatten().copied().collect();
        assert_eq!(frame.head[49..], crc32c::crc32c(&piece).to_le_bytes());
    }
    assert_eq!(fragmenter.next_frame(), None);
}

#[test]
fn every_kind_of_frame_is_pinned_and_has_a_number_of_its_own() {
    for kind in FrameKind::ALL {
        assert_eq!(FrameKind::from_number(kind as u8), Some(kind));
        let number = format!("{:02x}", kind as u8);
        let is_pinned = FRAMES.iter().any(|(_, frame)| frame.split(' ').nth(2) == Some(&number));
        assert!(is_pinned || kind == FrameKind::Fragment, "{kind:?}");
    }
    assert_eq!(FrameKind::from_number(0), None);
}
