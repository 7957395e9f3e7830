//! No flipped bit, wherever it is, becomes another message.

use bytes::Bytes;

use super::{Book, Purpose, Side, append, entry, exchange, heartbeat, limits, open, snapshot_meta};
use crate::transport::PeerMessage;
use crate::types::EntryKind;

/// Every copy of `bytes` with one bit changed.
fn flipped(bytes: &Bytes) -> impl Iterator<Item = (usize, Bytes)> + '_ {
    (0..bytes.len() * 8).map(|bit| {
        let mut changed = bytes.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        (bit, Bytes::from(changed))
    })
}

#[test]
fn every_flipped_bit_of_a_message_is_detected() {
    let entries = || vec![entry(13, 4, EntryKind::Command, "hello"), entry(14, 4, EntryKind::Command, "world")];
    let form = entry(1, 0, EntryKind::Formation, "form");
    let position = snapshot_meta().position;
    let chunk = Bytes::from("piece of a snapshot");
    let crc = crc32c::crc32c(&chunk);
    let samples = [
        (Purpose::Messages, append(12, entries())),
        (Purpose::Messages, heartbeat(1)),
        (Purpose::Messages, PeerMessage::Introduce { digest: [1; 32], formed: None }),
        (Purpose::Messages, PeerMessage::EntryOne { lineage: super::LINEAGE, entry: form.clone() }),
        (Purpose::Snapshot, PeerMessage::SnapshotChunk { position, offset: 5, crc, bytes: chunk }),
        (Purpose::Snapshot, PeerMessage::SnapshotStart { term: 4, number: 1, meta: snapshot_meta(), entry_one: form }),
    ];
    for (purpose, message) in samples {
        let (mut dialler, mut acceptor) = open(purpose, limits());
        dialler.send(&message);
        let bytes = dialler.take_bytes();
        acceptor.receive(bytes.clone());
        assert_eq!(acceptor.messages(), [message]);
        for (bit, changed) in flipped(&bytes) {
            let (_, mut acceptor) = open(purpose, limits());
            acceptor.receive(changed);
            // A changed length can also mean that more is awaited, which the stall deadline ends.
            let is_awaiting = acceptor.connection.deadline() < crate::types::Time::NEVER;
            assert!(acceptor.violation().is_some() || is_awaiting, "bit {bit}");
            assert!(acceptor.messages().is_empty(), "bit {bit}");
        }
    }
}

#[test]
fn every_flipped_bit_of_a_handshake_is_detected() {
    // The message to be damaged, by its place in the handshake; the one who hears it.
    for damaged in 0..4 {
        let mut bits = 0..;
        loop {
            let bit: usize = bits.next().unwrap();
            let mut speaker = Side::dial(Book::new(2, 1), 1, Purpose::Messages, limits());
            let mut hearer = Side::accept(Book::new(1, 1), limits());
            for _ in 0..damaged {
                hearer.receive(speaker.take_bytes());
                std::mem::swap(&mut speaker, &mut hearer);
            }
            let Some((_, changed)) = flipped(&speaker.take_bytes()).nth(bit) else { break };
            hearer.receive(changed);
            assert!(hearer.established().is_none(), "message {damaged}, bit {bit}");
            assert!(hearer.take_frames().is_empty(), "message {damaged}, bit {bit}");
        }
    }
}

#[test]
fn garbage_is_a_violation_and_takes_no_memory() {
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..500 {
        let (mut dialler, mut acceptor) = open(Purpose::Messages, limits());
        let length = random.usize(28..500);
        let garbage: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
        acceptor.receive(Bytes::from(garbage));
        assert!(acceptor.violation().is_some());
        // What comes after is not looked at.
        dialler.send(&heartbeat(1));
        exchange(&mut dialler, &mut acceptor);
        assert!(acceptor.messages().is_empty());
    }
}
