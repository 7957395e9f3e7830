//! Heartbeats of many groups to one peer, and the answers to them: one frame.

use std::time::Duration;

use super::super::heartbeats::{MOST_ROWS, OF_ALL_GROUPS};
use super::{GROUP, LINEAGE, NOW, Purpose, Violation, exchange, heartbeat, heartbeats, limits, open};
use crate::transport::{ConnectionEvent, FrameKind, HeartbeatReplyRow, HeartbeatRow, MAX_FRAME_BYTES, PeerMessage};
use crate::types::{GroupId, Message};

#[test]
fn heartbeats_of_all_groups_and_their_answers_are_a_frame_each() {
    let (mut dialler, mut acceptor) = open(Purpose::Messages, limits());
    let reply =
        |round| PeerMessage::Raft(Message::HeartbeatReply { term: 4, round, promise: Duration::from_nanos(round) });
    for group in 1..=1_000 {
        let group = GroupId(group);
        assert!(dialler.connection.send(group, Some(LINEAGE), &reply(group.0)));
        assert!(dialler.connection.send(group, Some(LINEAGE), &heartbeat(group.0)));
    }
    let frames = dialler.take_frames();
    let beats: Vec<_> = frames.iter().filter(|frame| frame.head[4] != FrameKind::Lineage as u8).collect();
    let kinds: Vec<u8> = beats.iter().map(|frame| frame.head[4]).collect();
    assert_eq!(kinds, [FrameKind::Heartbeats as u8, FrameKind::HeartbeatReplies as u8]);
    assert_eq!(beats[0].len(), 28 + 8 + 1_000 * 32);
    assert_eq!(dialler.connection.pending_bytes(), 0, "nothing is left on the account");

    frames.iter().for_each(|frame| acceptor.receive(frame.to_bytes()));
    let came: Vec<_> = acceptor.events.iter().skip(1_000).collect();
    let row = |group| HeartbeatRow { group: GroupId(group), term: 4, round: group, commit: 15 };
    let reply_row = |group| HeartbeatReplyRow { group: GroupId(group), term: 4, round: group, promise: group };
    let expected = [
        PeerMessage::Heartbeats((1..=1_000).map(row).collect()),
        PeerMessage::HeartbeatReplies((1..=1_000).map(reply_row).collect()),
    ]
    .map(|message| ConnectionEvent::Message { group: OF_ALL_GROUPS, message });
    assert_eq!(came, expected.iter().collect::<Vec<_>>());
}

#[test]
fn more_groups_than_a_frame_holds_take_another_frame() {
    let (mut dialler, mut acceptor) = open(Purpose::Messages, limits());
    let count = MOST_ROWS as u64 + 1;
    for round in 1..=count {
        dialler.send(&heartbeat(round));
    }
    let frames = dialler.take_frames();
    let lengths: Vec<usize> = frames.iter().skip(1).map(|frame| frame.len()).collect();
    assert_eq!(lengths, [28 + 8 + MOST_ROWS * 32, 28 + 8 + 32]);
    assert!(lengths[0] <= MAX_FRAME_BYTES && lengths[0] + 32 > MAX_FRAME_BYTES);
    frames.iter().for_each(|frame| acceptor.receive(frame.to_bytes()));
    assert_eq!(acceptor.messages(), (1..=count).map(heartbeat).collect::<Vec<_>>());
    assert_eq!(dialler.connection.pending_bytes(), 0, "nothing is left on the account");
}

#[test]
fn a_row_of_a_group_without_its_lineage_is_a_violation() {
    let (mut dialler, mut acceptor) = open(Purpose::Messages, limits());
    dialler.send(&heartbeat(1));
    exchange(&mut dialler, &mut acceptor);
    let other = GroupId(8);
    let frame = heartbeats(&[(GROUP, 2), (other, 1)]).encode().into_frame(OF_ALL_GROUPS);
    acceptor.receive(frame.to_bytes());
    let kind = FrameKind::Heartbeats;
    assert_eq!(acceptor.violation(), Some(&Violation::NoLineage { group: other, kind }));
    assert_eq!(acceptor.messages(), [heartbeat(1)], "nothing of such a frame is taken");
}

#[test]
fn a_frame_of_heartbeats_has_rows_and_names_no_group_in_its_header() {
    for (message, group, field) in [
        (heartbeats(&[]), OF_ALL_GROUPS, "number of groups"),
        (PeerMessage::HeartbeatReplies(Vec::new()), OF_ALL_GROUPS, "number of groups"),
        (heartbeats(&[(GROUP, 2)]), GROUP, "group"),
    ] {
        let (mut dialler, mut acceptor) = open(Purpose::Messages, limits());
        dialler.send(&heartbeat(1));
        exchange(&mut dialler, &mut acceptor);
        acceptor.receive(message.encode().into_frame(group).to_bytes());
        assert_eq!(acceptor.violation(), Some(&Violation::Value { kind: message.kind(), field }));
    }
}

#[test]
fn a_heartbeat_that_finds_no_room_is_dropped_and_says_so() {
    let small = crate::transport::ConnectionLimits { connection_bytes: 4_096, ..limits() };
    let (mut dialler, _) = open(Purpose::Messages, small);
    let mut taken = 0;
    while dialler.connection.send(GROUP, Some(LINEAGE), &heartbeat(taken)) {
        taken += 1;
    }
    assert!(taken > 1_000, "{taken}");
    let released: usize = dialler.take_frames().iter().map(|frame| frame.len()).sum();
    assert!(released > 32 * taken as usize);
    assert_eq!(dialler.connection.pending_bytes(), 0);
    assert!(dialler.connection.send(GROUP, Some(LINEAGE), &heartbeat(0)));
    let _ = dialler.connection.next_frame(NOW);
}
