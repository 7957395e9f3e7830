//! Round trips of messages, and how few pieces they are made of.

use bytes::Bytes;

use super::super::frame::{FrameCutter, FrameKind, MAX_FRAME_BYTES};
use super::super::message::PeerMessage;
use super::super::{ENTRY_ROW_BYTES, Violation};
use super::{GROUP, append, entry};
use crate::types::{AppendOutcome, Entry, EntryKind, LogTime, Message, Position};

fn there_and_back(message: &PeerMessage) -> Result<PeerMessage, Violation> {
    let mut bytes = message.encode().into_frame(GROUP).to_bytes();
    let frame = FrameCutter::default().next(&mut bytes, MAX_FRAME_BYTES)?.expect("a whole frame");
    assert!(bytes.is_empty());
    PeerMessage::decode(frame.kind, &frame.metadata, frame.payload)
}

fn random_message(random: &mut fastrand::Rng) -> PeerMessage {
    let position = |random: &mut fastrand::Rng| Position { term: random.u64(..), index: random.u64(..) };
    PeerMessage::Raft(match random.u8(..6) {
        0 => Message::PreVote { campaign_term: random.u64(..), last: position(random) },
        1 => Message::VoteReply { term: random.u64(..), granted: random.bool() },
        2 => {
            let outcome = AppendOutcome::Matched { through: random.u64(..) };
            Message::AppendReply { term: random.u64(..), number: random.u64(..), outcome }
        }
        3 => {
            let (previous, last) = (random.u64(..), random.u64(..));
            let outcome = AppendOutcome::Conflict { previous, hint: position(random), last };
            Message::AppendReply { term: random.u64(..), number: random.u64(..), outcome }
        }
        _ => {
            let previous = Position { term: random.u64(..), index: random.u64(..1 << 60) };
            let kinds = [EntryKind::Formation, EntryKind::NoOp, EntryKind::Configuration, EntryKind::Command];
            let entries = (1..=random.u64(..40)).map(|after| {
                let longest = if random.u8(..) < 20 { 3000 } else { 200 };
                let length = random.usize(..longest);
                let payload: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
                let at = Position { term: random.u64(..), index: previous.index + after };
                Entry::new(at, LogTime(random.u64(..)), kinds[random.usize(..4)], payload.into())
            });
            let entries = entries.collect();
            Message::Append { term: random.u64(..), number: random.u64(..), previous, commit: random.u64(..), entries }
        }
    })
}

#[test]
fn what_is_sent_is_what_is_received() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..2_000 {
        let message = random_message(&mut random);
        assert_eq!(there_and_back(&message).as_ref(), Ok(&message));
    }
}

#[test]
fn small_payloads_travel_as_one_piece_and_large_ones_are_shared() {
    let small = |index| entry(index, 4, EntryKind::Command, vec![index as u8; 128]);
    let large = entry(260, 4, EntryKind::Command, vec![9; 4096]);
    let entries: Vec<Entry> = (1..=256).map(small).collect();
    let frame = append(0, entries).encode().into_frame(GROUP);
    assert_eq!(frame.payloads.len(), 1);
    assert_eq!(frame.len(), 28 + 48 + 256 * (ENTRY_ROW_BYTES + 128));

    let mixed = vec![small(258), small(259), large.clone(), entry(261, 4, EntryKind::NoOp, ""), small(262)];
    let frame = append(257, mixed).encode().into_frame(GROUP);
    let lengths: Vec<usize> = frame.payloads.iter().map(Bytes::len).collect();
    assert_eq!(lengths, [256, 4096, 128]);
    assert_eq!(frame.payloads[1].as_ptr(), large.payload.as_ptr(), "not copied");
}

#[test]
fn received_payloads_are_slices_of_the_buffer_where_they_are_large() {
    let buffer_of = |bytes: usize| append(12, vec![entry(13, 4, EntryKind::Command, vec![1; bytes])]);
    for (bytes, is_slice) in [(100, false), (64 << 10, true)] {
        let buffer = buffer_of(bytes).encode().into_frame(GROUP).to_bytes();
        let received = FrameCutter::default().next(&mut buffer.clone(), MAX_FRAME_BYTES).unwrap().unwrap();
        assert_eq!(buffer.as_ptr_range().contains(&received.payload.as_ptr()), is_slice, "{bytes} bytes");
    }
}

/// Takes a message apart, lets `change` loose on its metadata, and reads it again.
fn changed(message: &PeerMessage, change: impl Fn(&mut Vec<u8>)) -> Violation {
    let encoded = message.encode();
    let mut metadata = encoded.draft.head[28..].to_vec();
    change(&mut metadata);
    let payload: Bytes = encoded.payloads.iter().flatten().copied().collect();
    PeerMessage::decode(message.kind(), &metadata, payload).unwrap_err()
}

#[test]
fn entries_that_do_not_add_up_to_the_payload_are_refused() {
    let message = append(12, vec![entry(13, 4, EntryKind::Command, "hello"), entry(14, 4, EntryKind::Command, "x")]);
    let length_of_first = 48 + 17;
    let kind = FrameKind::Append;
    let violation = changed(&message, |metadata| metadata[length_of_first] = 4);
    assert_eq!(violation, Violation::PayloadLength { kind, named: 5, found: 6 });
    let violation = changed(&message, |metadata| metadata[length_of_first + 3] = 0xff);
    assert!(matches!(violation, Violation::PayloadLength { named: 0xff00_0006, .. }));
    // The same sum, cut at another place: each entry has its own CRC.
    let violation = changed(&message, |metadata| {
        metadata[length_of_first] = 4;
        metadata[length_of_first + ENTRY_ROW_BYTES] = 2;
    });
    assert_eq!(violation, Violation::EntryDamaged { index: 13 });
}

#[test]
fn impossible_values_are_refused() {
    let message = append(12, vec![entry(13, 4, EntryKind::Command, "hello")]);
    let kind = FrameKind::Append;
    let violation = changed(&message, |metadata| metadata[48 + 16] = 99);
    assert_eq!(violation, Violation::Value { kind, field: "entry kind" });
    let violation = changed(&message, |metadata| metadata[24..32].copy_from_slice(&u64::MAX.to_le_bytes()));
    assert_eq!(violation, Violation::Value { kind, field: "previous index" });
    let violation = changed(&message, |metadata| metadata.push(0));
    assert!(matches!(violation, Violation::Metadata { .. }));
    // More entries than the metadata has bytes for.
    let violation = changed(&message, |metadata| metadata[40..48].copy_from_slice(&(1_u64 << 40).to_le_bytes()));
    assert!(matches!(violation, Violation::Metadata { .. }));
}

#[test]
fn a_long_reason_is_cut_at_a_character() {
    let reason = "é".repeat(2_000);
    let read = there_and_back(&PeerMessage::FormationRefused { reason: reason.clone() }).unwrap();
    assert_eq!(read, PeerMessage::FormationRefused { reason: reason[..1024].to_owned() });
}

#[test]
fn a_reason_cannot_write_into_the_log_of_its_reader() {
    let read = there_and_back(&PeerMessage::FormationRefused { reason: "no\n\x1b[2Jyes".to_owned() }).unwrap();
    assert_eq!(read, PeerMessage::FormationRefused { reason: "no\u{fffd}\u{fffd}[2Jyes".to_owned() });
}

#[test]
#[should_panic(expected = "entries must follow")]
fn a_gap_between_entries_is_never_sent() {
    let _ = append(12, vec![entry(14, 4, EntryKind::NoOp, "")]).encode();
}
