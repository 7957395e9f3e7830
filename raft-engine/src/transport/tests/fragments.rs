//! Messages longer than a frame.

use bytes::Bytes;

use super::super::frame::{FrameDraft, FrameKind};
use super::super::message::Encoded;
use super::{GROUP, Purpose, Side, Violation, append, entry, exchange, heartbeat, limits, open};
use crate::transport::{Frame, MAX_FRAME_BYTES, PeerMessage};
use crate::types::{EntryKind, GroupId, Message, Time};

fn large(index: u64, bytes: usize) -> PeerMessage {
    let payload: Vec<u8> = (0..bytes).map(|at| (at * 31 % 251) as u8).collect();
    append(index - 1, vec![entry(index, 4, EntryKind::Command, payload)])
}

#[test]
fn a_message_of_any_length_arrives_whole() {
    // Around the edge between one frame and two, and far beyond.
    let edge = MAX_FRAME_BYTES - 28 - 48 - 25;
    for bytes in [edge - 1, edge, edge + 1, 2 * MAX_FRAME_BYTES, 3_000_000] {
        let (mut dialler, mut acceptor) = open(Purpose::Messages, limits());
        let message = large(1, bytes);
        dialler.send(&message);
        let mut frames = dialler.take_frames();
        assert_eq!(frames.len() > 2, bytes > edge, "{bytes} bytes in {} frames, one a lineage", frames.len());
        assert!(frames.iter().all(|frame| frame.len() <= MAX_FRAME_BYTES));
        let last = frames.pop().unwrap();
        frames.iter().for_each(|frame| acceptor.receive(frame.to_bytes()));
        assert!(acceptor.messages().is_empty());
        acceptor.receive(last.to_bytes());
        assert_eq!(acceptor.messages(), [message]);
    }
}

#[test]
fn entries_of_several_pieces_arrive_whole() {
    let (mut dialler, mut acceptor) = open(Purpose::Messages, limits());
    let payload = |at: u64| if at.is_multiple_of(3) { vec![at as u8; 70_000] } else { vec![at as u8; 100] };
    let message = append(0, (1..=20).map(|at| entry(at, 4, EntryKind::Command, payload(at))).collect());
    dialler.send(&message);
    exchange(&mut dialler, &mut acceptor);
    assert_eq!(acceptor.messages(), [message]);
}

#[test]
fn heartbeats_get_between_the_fragments_of_a_long_entry() {
    let (mut dialler, mut acceptor) = open(Purpose::Messages, limits());
    let message = large(1, 2_000_000);
    dialler.send(&message);
    let mut rounds = 0;
    while let Some(frame) = dialler.connection.next_frame(super::NOW) {
        dialler.connection.sent(frame.len(), super::NOW);
        acceptor.receive(frame.to_bytes());
        if acceptor.messages().last() != Some(&message) {
            rounds += 1;
            dialler.send(&heartbeat(rounds));
            let prompt = dialler.connection.next_frame(super::NOW).unwrap();
            dialler.connection.sent(prompt.len(), super::NOW);
            acceptor.receive(prompt.to_bytes());
            assert_eq!(acceptor.messages().last(), Some(&heartbeat(rounds)), "at once");
        }
    }
    assert!(rounds > 10);
    assert_eq!(acceptor.messages().last(), Some(&message));
}

#[test]
fn long_messages_of_several_groups_follow_each_other() {
    let (mut dialler, mut acceptor) = open(Purpose::Messages, limits());
    for group in 1..=3 {
        assert!(dialler.connection.send(GroupId(group), Some(super::LINEAGE), &large(group, 300_000)));
    }
    exchange(&mut dialler, &mut acceptor);
    assert_eq!(acceptor.messages(), [large(1, 300_000), large(2, 300_000), large(3, 300_000)]);
}

#[test]
fn half_an_entry_is_dropped_with_its_connection() {
    let (mut dialler, mut acceptor) = open(Purpose::Messages, limits());
    dialler.send(&large(1, 1_000_000));
    let frames = dialler.take_frames();
    frames[..4].iter().for_each(|frame| acceptor.receive(frame.to_bytes()));

    // The rest on a fresh connection continues nothing.
    let (_, mut fresh) = open(Purpose::Messages, limits());
    frames[4..].iter().for_each(|frame| fresh.receive(frame.to_bytes()));
    assert!(matches!(fresh.violation(), Some(Violation::Fragment { .. })));
    assert!(fresh.messages().is_empty());
}

#[test]
fn fragments_lost_doubled_or_out_of_order_are_a_violation() {
    let (mut dialler, _) = open(Purpose::Messages, limits());
    dialler.send(&large(1, 500_000));
    let frames = dialler.take_frames();
    // Frame 0 is the lineage.
    for order in [&[0, 1, 3][..], &[0, 1, 1], &[0, 2], &[0, 1, 2, 3, 4, 1]] {
        let (_, mut acceptor) = open(Purpose::Messages, limits());
        order.iter().for_each(|at: &usize| acceptor.receive(frames[*at].to_bytes()));
        assert!(matches!(acceptor.violation(), Some(Violation::Fragment { .. })), "{order:?}");
    }
}

/// A fragment with these claims; the piece is of one byte.
fn claim(message: u64, kind: u8, metadata_length: u32, message_length: u32, offset: u32) -> Frame {
    let piece = Bytes::from_static(&[0]);
    let metadata = (message, kind, metadata_length, message_length, offset, crc32c::crc32c(&piece));
    Encoded { kind: FrameKind::Fragment, draft: FrameDraft::with(&metadata, 25), payloads: vec![piece] }
        .into_frame(GROUP)
}

#[test]
fn claims_out_of_bounds_take_no_memory() {
    let append = FrameKind::Append as u8;
    let limit = limits().max_entry_bytes + (1 << 20);
    let is_refused = |frame: Frame| {
        let (_, mut acceptor) = open(Purpose::Messages, limits());
        acceptor.receive(frame.to_bytes());
        acceptor.violation().cloned()
    };
    assert_eq!(
        is_refused(claim(0, append, 50, u32::MAX, 0)),
        Some(Violation::MessageTooLong { bytes: u32::MAX.into(), limit })
    );
    assert!(matches!(is_refused(claim(0, append, 200, 100, 0)), Some(Violation::Fragment { .. })));
    assert!(matches!(is_refused(claim(0, append, 0, 0, 0)), Some(Violation::Fragment { .. })));
    assert!(matches!(is_refused(claim(1, append, 50, 100, 0)), Some(Violation::Fragment { .. })));
    assert_eq!(is_refused(claim(0, 0xee, 50, 100, 0)), Some(Violation::UnknownKind { kind: 0xee }));
    // A fragment of a fragment, and of a handshake, come to nothing once they are whole.
    for kind in [FrameKind::Fragment, FrameKind::Hello] {
        assert_eq!(is_refused(claim(0, kind as u8, 1, 1, 0)), Some(Violation::OutOfTurn { kind }));
    }
}

#[test]
fn half_a_message_does_not_wait_for_ever() {
    let (mut dialler, mut acceptor) = open(Purpose::Messages, limits());
    dialler.send(&large(1, 500_000));
    let frames = dialler.take_frames();
    let receive = |acceptor: &mut Side, frame: &Frame, now| {
        acceptor.connection.receive(frame.to_bytes(), now, &acceptor.book, &mut acceptor.events);
    };
    receive(&mut acceptor, &frames[0], super::NOW);
    assert_eq!(acceptor.connection.deadline(), Time::NEVER);
    receive(&mut acceptor, &frames[1], super::NOW);
    assert_eq!(acceptor.connection.deadline(), super::NOW + limits().stall_timeout);
    let later = super::NOW + limits().stall_timeout / 2;
    receive(&mut acceptor, &frames[2], later);
    assert_eq!(acceptor.connection.deadline(), later + limits().stall_timeout);
    acceptor.connection.expire(acceptor.connection.deadline(), &mut acceptor.events);
    assert_eq!(acceptor.violation(), Some(&Violation::Stalled));
}

#[test]
fn a_long_entry_is_not_copied_on_its_way_out() {
    let (mut dialler, _) = open(Purpose::Messages, limits());
    let message = large(1, 1_000_000);
    dialler.send(&message);
    let PeerMessage::Raft(Message::Append { entries, .. }) = &message else { unreachable!() };
    let payload = entries[0].payload.as_ptr_range();
    for frame in &dialler.take_frames()[2..] {
        assert!(frame.payloads.iter().all(|piece| payload.contains(&piece.as_ptr())));
    }
}
