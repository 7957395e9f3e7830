//! A stream cut at any byte, and the rules of what may be said on it.

use bytes::Bytes;

use super::super::frame::{FrameDraft, FrameKind};
use super::super::heartbeats::OF_ALL_GROUPS;
use super::{
    Book, ConnectionEvent, GROUP, LINEAGE, NOW, Purpose, Side, Violation, append, entry, exchange, heartbeat,
    heartbeats, limits, open, snapshot_meta,
};
use crate::transport::{MAX_FRAME_BYTES, PeerMessage};
use crate::types::{EntryKind, GroupId, ServerId, Time};

fn small_messages() -> Vec<PeerMessage> {
    let entries = (13..16).map(|index| entry(index, 4, EntryKind::Command, vec![index as u8; 20])).collect();
    vec![PeerMessage::Introduce { digest: [1; 32], formed: Some(LINEAGE) }, heartbeat(1), append(12, entries)]
}

#[test]
fn a_stream_may_be_cut_at_any_byte() {
    let (mut dialler, _) = open(Purpose::Messages, limits());
    // What is prompt first, then heartbeats, then bulk: the order in which they come.
    let messages = small_messages();
    messages.iter().for_each(|message| dialler.send(message));
    let bytes = dialler.take_bytes();
    for at in 0..=bytes.len() {
        let (_, mut acceptor) = open(Purpose::Messages, limits());
        acceptor.receive(bytes.slice(..at));
        acceptor.receive(bytes.slice(at..));
        assert_eq!(acceptor.messages(), messages, "cut at {at}");
        assert_eq!(acceptor.connection.deadline(), Time::NEVER);
    }
    let (_, mut acceptor) = open(Purpose::Messages, limits());
    (0..bytes.len()).for_each(|at| acceptor.receive(bytes.slice(at..=at)));
    assert_eq!(acceptor.messages(), messages, "byte by byte");
}

#[test]
fn a_long_stream_may_be_cut_anywhere() {
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..20 {
        let (mut dialler, mut acceptor) = open(Purpose::Messages, limits());
        let messages: Vec<PeerMessage> = (0..8)
            .map(|_| {
                let count = random.u64(1..300);
                let bytes = random.usize(1..2_000);
                append(0, (1..=count).map(|at| entry(at, 4, EntryKind::Command, vec![at as u8; bytes])).collect())
            })
            .collect();
        messages.iter().for_each(|message| dialler.send(message));
        let mut bytes = dialler.take_bytes();
        while !bytes.is_empty() {
            acceptor.receive(bytes.split_to(random.usize(1..=bytes.len().min(200_000))));
        }
        assert_eq!(acceptor.messages(), messages);
    }
}

#[test]
fn a_handshake_may_be_cut_at_any_byte() {
    let mut dialler = Side::dial(Book::new(2, 1), 1, Purpose::Messages, limits());
    let mut acceptor = Side::accept(Book::new(1, 1), limits());
    for _ in 0..4 {
        let bytes = dialler.take_bytes();
        (0..bytes.len()).for_each(|at| acceptor.receive(bytes.slice(at..=at)));
        std::mem::swap(&mut dialler, &mut acceptor);
    }
    assert!(dialler.established().is_some() && acceptor.established().is_some());
}

#[test]
fn messages_right_behind_the_handshake_are_received() {
    let mut dialler = Side::dial(Book::new(2, 1), 1, Purpose::Messages, limits());
    let mut acceptor = Side::accept(Book::new(1, 1), limits());
    acceptor.receive(dialler.take_bytes());
    dialler.receive(acceptor.take_bytes());
    let confirm = dialler.take_bytes();
    let (mut other, _) = open(Purpose::Messages, limits());
    other.send(&heartbeat(1));
    acceptor.receive([confirm, other.take_bytes()].concat().into());
    assert!(matches!(acceptor.events[0], ConnectionEvent::Established(_)));
    assert_eq!(acceptor.messages(), [heartbeat(1)]);
}

/// The head of a frame that claims a payload of `payload_length` bytes, whatever there is.
fn claim(payload_length: u32) -> Bytes {
    let mut bytes =
        FrameDraft::with(&(1_u64, 2_u64, 3_u64), 24).finish(FrameKind::Heartbeats, GROUP, vec![]).to_bytes().to_vec();
    bytes[20..24].copy_from_slice(&payload_length.to_le_bytes());
    bytes.into()
}

#[test]
fn a_frame_longer_than_allowed_is_refused_by_its_header_alone() {
    let longest = (MAX_FRAME_BYTES - 28 - 24) as u32;
    for (length, is_refused) in [(longest, false), (longest + 1, true), (u32::MAX, true)] {
        let (_, mut acceptor) = open(Purpose::Messages, limits());
        acceptor.receive(claim(length));
        assert_eq!(matches!(acceptor.violation(), Some(Violation::FrameTooLong { .. })), is_refused, "{length}");
    }
    // Before the handshake, an unknown peer gets much less.
    let mut acceptor = Side::accept(Book::new(1, 1), limits());
    acceptor.receive(claim(4096));
    assert!(matches!(acceptor.violation(), Some(Violation::FrameTooLong { limit: 2048, .. })));
}

#[test]
fn another_protocol_and_another_layout_are_told_apart() {
    let accept = |bytes: Bytes| {
        let mut acceptor = Side::accept(Book::new(1, 1), limits());
        acceptor.receive(bytes);
        acceptor.violation().cloned().unwrap()
    };
    let http = Bytes::from_static(b"GET / HTTP/1.1\r\nHost: example\r\n\r\n");
    assert_eq!(accept(http), Violation::NotAFrame { found: *b"GET" });
    let mut bytes = claim(0).to_vec();
    bytes[3] = 2;
    assert_eq!(accept(bytes.clone().into()), Violation::FrameVersion { version: 2 });
    (bytes[3], bytes[4]) = (1, 0x7f);
    assert_eq!(accept(bytes.clone().into()), Violation::UnknownKind { kind: 0x7f });
    (bytes[4], bytes[6]) = (0x26, 1);
    assert_eq!(accept(bytes.into()), Violation::ReservedBits);
}

#[test]
fn a_slow_drip_moves_no_deadline() {
    let (mut dialler, mut acceptor) = open(Purpose::Messages, limits());
    dialler.send(&heartbeat(1));
    let bytes = dialler.take_bytes();
    let second = |at: u64| Time(NOW.0 + at * 1_000_000_000);
    // The lineage is 60 bytes; then a byte a second.
    acceptor.receive(bytes.slice(..60));
    for at in 0..5 {
        let byte = bytes.slice(60 + at as usize..61 + at as usize);
        acceptor.connection.receive(byte, second(at), &acceptor.book, &mut acceptor.events);
        assert_eq!(acceptor.connection.deadline(), NOW + limits().stall_timeout);
        acceptor.connection.expire(second(at), &mut acceptor.events);
        assert_eq!(acceptor.violation(), None);
    }
    acceptor.connection.expire(second(5), &mut acceptor.events);
    assert_eq!(acceptor.violation(), Some(&Violation::Stalled));
}

#[test]
fn the_lineage_is_said_once_a_group_and_connection_before_its_first_message() {
    let (mut dialler, mut acceptor) = open(Purpose::Messages, limits());
    let other = GroupId(8);
    let introduce = PeerMessage::Introduce { digest: [1; 32], formed: None };
    assert!(dialler.connection.send(other, None, &introduce), "forming groups have none");
    dialler.send(&heartbeat(1));
    dialler.send(&append(12, vec![]));
    assert!(dialler.connection.send(other, Some(LINEAGE), &heartbeat(2)));
    exchange(&mut dialler, &mut acceptor);
    let said: Vec<(GroupId, PeerMessage)> = acceptor
        .events
        .iter()
        .map(|event| match event {
            ConnectionEvent::Message { group, message } => (*group, message.clone()),
            other => panic!("{other:?}"),
        })
        .collect();
    let lineage = || PeerMessage::Lineage(LINEAGE);
    assert_eq!(
        said,
        [
            (other, introduce),
            (GROUP, lineage()),
            (other, lineage()),
            (OF_ALL_GROUPS, heartbeats(&[(GROUP, 1), (other, 2)])),
            (GROUP, append(12, vec![])),
        ]
    );
}

#[test]
fn a_lineage_said_of_our_own_accord_is_not_said_again() {
    let (mut dialler, mut acceptor) = open(Purpose::Messages, limits());
    dialler.send(&PeerMessage::Lineage(LINEAGE));
    dialler.send(&heartbeat(1));
    dialler.send(&PeerMessage::Lineage(LINEAGE));
    exchange(&mut dialler, &mut acceptor);
    assert_eq!(acceptor.violation(), None);
    assert_eq!(acceptor.events.len(), 2);
}

/// The frames of a message on a connection that never said a lineage.
fn bare(message: &PeerMessage) -> Bytes {
    let is_of_all = matches!(message, PeerMessage::Heartbeats(_) | PeerMessage::HeartbeatReplies(_));
    message.encode().into_frame(if is_of_all { OF_ALL_GROUPS } else { GROUP }).to_bytes()
}

#[test]
fn a_message_before_its_lineage_and_a_lineage_said_twice_are_violations() {
    let (_, mut acceptor) = open(Purpose::Messages, limits());
    acceptor.receive(bare(&heartbeats(&[(GROUP, 1)])));
    assert!(matches!(acceptor.violation(), Some(Violation::NoLineage { group: GROUP, .. })));
    let (_, mut acceptor) = open(Purpose::Messages, limits());
    let lineage = bare(&PeerMessage::Lineage(LINEAGE));
    acceptor.receive(lineage.clone());
    acceptor.receive(lineage);
    assert_eq!(acceptor.violation(), Some(&Violation::LineageTwice { group: GROUP }));
}

#[test]
fn each_kind_has_its_connection_and_only_the_dialler_speaks() {
    let chunk = || {
        let bytes = Bytes::from("x");
        let (position, crc) = (snapshot_meta().position, crc32c::crc32c(&bytes));
        PeerMessage::SnapshotChunk { position, offset: 0, crc, bytes }
    };
    let lineage = bare(&PeerMessage::Lineage(LINEAGE));
    for (purpose, message, is_allowed) in [
        (Purpose::Messages, heartbeats(&[(GROUP, 1)]), true),
        (Purpose::Messages, chunk(), false),
        (Purpose::Snapshot, heartbeats(&[(GROUP, 1)]), false),
        (Purpose::Snapshot, chunk(), true),
    ] {
        let (mut dialler, mut acceptor) = open(purpose, limits());
        acceptor.receive(lineage.clone());
        acceptor.receive(bare(&message));
        assert_eq!(acceptor.violation().is_none(), is_allowed, "{purpose:?} {message:?}");
        dialler.receive(bare(&message));
        assert!(matches!(dialler.violation(), Some(Violation::OutOfTurn { .. })));
    }
}

#[test]
fn nothing_is_sent_before_the_handshake_or_after_the_end() {
    let mut dialler = Side::dial(Book::new(2, 1), 1, Purpose::Messages, limits());
    assert!(!dialler.connection.send(GROUP, Some(LINEAGE), &heartbeat(1)));
    assert_eq!(dialler.connection.peer(), None);
    let (mut dialler, _) = open(Purpose::Messages, limits());
    assert_eq!(dialler.connection.peer().unwrap().id, ServerId(1));
    dialler.receive(Bytes::from_static(&[0; 28]));
    assert!(dialler.connection.is_closed());
    assert!(!dialler.connection.send(GROUP, Some(LINEAGE), &heartbeat(1)));
    assert_eq!(dialler.connection.peer().unwrap().id, ServerId(1), "who it was is still known");
}
