//! What waits to be sent: its order, its budget, and when the next dial may go.

use std::time::Duration;

use super::super::outbox::{PROMPT_RESERVE_BYTES, RELEASE_BELOW_BYTES};
use super::{GROUP, LINEAGE, NOW, Purpose, Violation, append, entry, heartbeat, limits, open};
use crate::transport::{Backoff, ConnectionLimits, Frame, MAX_FRAME_BYTES, PeerMessage};
use crate::types::{EntryKind, Time};

fn batch(bytes: usize) -> PeerMessage {
    append(12, vec![entry(13, 4, EntryKind::Command, vec![1; bytes])])
}

fn kind(frame: &Frame) -> u8 {
    frame.head[4]
}

#[test]
fn bulk_waits_while_much_is_released_and_heartbeats_do_not() {
    let (mut dialler, _) = open(Purpose::Messages, limits());
    for _ in 0..20 {
        dialler.send(&batch(100_000));
    }
    let mut released = 0;
    while let Some(frame) = dialler.connection.next_frame(NOW) {
        released += frame.len();
    }
    assert!((RELEASE_BELOW_BYTES..RELEASE_BELOW_BYTES + MAX_FRAME_BYTES).contains(&released), "{released}");

    dialler.send(&heartbeat(1));
    let frame = dialler.connection.next_frame(NOW).expect("a heartbeat does not wait");
    assert_eq!(kind(&frame), 0x26);
    assert_eq!(dialler.connection.next_frame(NOW), None);

    dialler.connection.sent(released, NOW);
    assert_eq!(kind(&dialler.connection.next_frame(NOW).expect("there is room again")), 0x24);
}

#[test]
fn a_budget_bounds_what_waits_and_keeps_a_reserve_for_heartbeats() {
    let small = ConnectionLimits { connection_bytes: 1 << 20, ..limits() };
    let (mut dialler, _) = open(Purpose::Messages, small);
    let mut taken = 0;
    while dialler.connection.send(GROUP, Some(LINEAGE), &batch(50_000)) {
        taken += 1;
    }
    assert!(taken >= 19, "{taken}");
    assert!(dialler.connection.pending_bytes() <= 1 << 20);
    let mut heartbeats = 0;
    while dialler.connection.send(GROUP, Some(LINEAGE), &heartbeat(heartbeats)) {
        heartbeats += 1;
    }
    assert!(heartbeats > 100, "{heartbeats}");
    assert!(dialler.connection.pending_bytes() <= (1 << 20) + PROMPT_RESERVE_BYTES);

    // What was released and not sent counts too.
    let mut released = 0;
    while let Some(frame) = dialler.connection.next_frame(NOW) {
        released += frame.len();
    }
    assert!(!dialler.connection.send(GROUP, Some(LINEAGE), &batch(600_000)));
    dialler.connection.sent(released, NOW);
    dialler.take_frames();
    assert_eq!(dialler.connection.pending_bytes(), 0, "nothing is left on the account");
    assert!(dialler.connection.send(GROUP, Some(LINEAGE), &batch(600_000)));
}

#[test]
fn a_message_longer_than_the_whole_budget_goes_alone() {
    let small = ConnectionLimits { connection_bytes: 100_000, ..limits() };
    let (mut dialler, mut acceptor) = open(Purpose::Messages, small);
    let long = batch(1_000_000);
    dialler.send(&long);
    assert!(!dialler.connection.send(GROUP, Some(LINEAGE), &long));
    super::exchange(&mut dialler, &mut acceptor);
    assert_eq!(acceptor.messages(), [long]);
    assert_eq!(dialler.connection.pending_bytes(), 0);
}

#[test]
fn heartbeats_get_between_the_fragments_of_a_message_longer_than_the_whole_budget() {
    let small = ConnectionLimits { connection_bytes: 100_000, ..limits() };
    let (mut dialler, _) = open(Purpose::Messages, small);
    dialler.take_frames();
    dialler.send(&batch(2_000_000));
    let mut heartbeats = 0;
    while dialler.connection.pending_bytes() > 0 {
        let mut released = 0;
        while let Some(frame) = dialler.connection.next_frame(NOW) {
            released += frame.len();
            heartbeats += u64::from(kind(&frame) == 0x26);
        }
        // Whatever is on the way, one more goes next, and does not wait.
        dialler.send(&heartbeat(heartbeats));
        let frame = dialler.connection.next_frame(NOW).expect("a heartbeat");
        assert_eq!(kind(&frame), 0x26);
        heartbeats += 1;
        dialler.connection.sent(released + frame.len(), NOW);
    }
    assert!(heartbeats > 2_000_000 / (RELEASE_BELOW_BYTES + MAX_FRAME_BYTES) as u64, "{heartbeats}");
    // A peer that takes nothing of it gets no more of them than the reserve holds.
    dialler.send(&batch(2_000_000));
    let pending = dialler.connection.pending_bytes();
    while dialler.connection.send(GROUP, Some(LINEAGE), &heartbeat(heartbeats)) {}
    assert!(dialler.connection.pending_bytes() <= pending + PROMPT_RESERVE_BYTES);
}

#[test]
fn a_peer_that_takes_nothing_is_given_up() {
    let (mut dialler, _) = open(Purpose::Messages, limits());
    assert_eq!(dialler.connection.deadline(), Time::NEVER);
    dialler.send(&heartbeat(1));
    let lineage = dialler.connection.next_frame(NOW).unwrap();
    let beat = dialler.connection.next_frame(NOW + Duration::from_secs(1)).unwrap();
    assert_eq!(dialler.connection.deadline(), NOW + limits().stall_timeout);
    let later = NOW + Duration::from_secs(2);
    dialler.connection.sent(lineage.len(), later);
    assert_eq!(dialler.connection.deadline(), later + limits().stall_timeout, "it moves");
    dialler.connection.sent(beat.len(), later);
    assert_eq!(dialler.connection.deadline(), Time::NEVER);
    dialler.send(&heartbeat(2));
    let _ = dialler.connection.next_frame(later).unwrap();
    dialler.connection.expire(later + limits().stall_timeout, &mut dialler.events);
    assert_eq!(dialler.violation(), Some(&Violation::Stalled));
}

#[test]
#[should_panic(expected = "bytes sent of")]
fn more_cannot_be_sent_than_was_released() {
    let (mut dialler, _) = open(Purpose::Messages, limits());
    dialler.connection.sent(1, NOW);
}

#[test]
fn dials_wait_longer_after_each_failure_and_never_in_step() {
    let (shortest, longest) = (Duration::from_millis(20), Duration::from_millis(500));
    let mut left = Backoff::new(shortest, longest, 1);
    let mut right = Backoff::new(shortest, longest, 2);
    assert_eq!(left.deadline(), Time(0), "the first goes at once");
    let mut differ = 0;
    for attempt in 0_u32..100 {
        let now = NOW + longest * (attempt + 1);
        left.failed(now);
        right.failed(now);
        let most = shortest.saturating_mul(1 << attempt.min(10)).min(longest);
        let wait = left.deadline().since(now);
        assert!((most / 2..=most).contains(&wait), "attempt {attempt}: {wait:?}");
        differ += usize::from(left.deadline() != right.deadline());
    }
    assert!(differ > 90);
    assert_eq!(left.attempts(), 100);
    left.succeeded();
    assert_eq!((left.deadline(), left.attempts()), (Time(0), 0));
    left.refused(NOW);
    left.failed(NOW);
    assert!(left.deadline().since(NOW) >= longest / 2, "a refusal is not asked for again soon, whatever follows it");
}

#[test]
fn the_same_seed_gives_the_same_waits() {
    let waits = |seed| {
        let mut backoff = Backoff::new(Backoff::SHORTEST, Backoff::LONGEST, seed);
        std::array::from_fn::<Time, 20, _>(|_| {
            backoff.failed(NOW);
            backoff.deadline()
        })
    };
    assert_eq!(waits(5), waits(5));
    assert_ne!(waits(5), waits(6));
}
