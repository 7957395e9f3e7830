//! Sessions by hand: entries in, fates out.

use std::time::Duration;

use bytes::Bytes;

use super::digests::MAX_KEPT;
use super::table::MAX_SEQUENCES;
use super::*;
use crate::types::{
    DigestAnswer, DigestCheck, HostDigest, LogTime, Member, MemberRole, Proposed, ServerId, StateDigest,
};

/// One server's sessions, with a host that numbers what it applies.
#[derive(Default)]
struct Replica {
    sessions: Sessions,
    /// The host's state: what it applied, in order.
    applied: Vec<Bytes>,
    /// What a durable state already holds.
    held: Index,
}

impl Replica {
    /// Takes a batch; what became of each entry.
    fn take(&mut self, entries: &[Entry]) -> Vec<Fate> {
        let (mut admitted, steps) = self.sessions.admit(entries.to_vec(), self.held);
        let results: Vec<Vec<u8>> = (admitted.commands.iter())
            .map(|entry| {
                self.applied.push(entry.payload.clone());
                answer(self.applied.len(), &entry.payload)
            })
            .collect();
        self.sessions.settle(&mut admitted, steps, results.len(), |at| &results[at]);
        (0..entries.len()).map(|position| admitted.fate(position)).collect()
    }
}

/// What the host answers to the command that it applies as its `count`-th: as long as the command.
fn answer(count: usize, command: &[u8]) -> Vec<u8> {
    let mut answer = format!("{count}:").into_bytes();
    answer.resize(command.len().max(answer.len()), b'.');
    answer
}

/// A log that grows by hand, one nanosecond an entry.
#[derive(Default)]
struct Script {
    entries: Vec<Entry>,
    now: u64,
}

impl Script {
    fn add(&mut self, kind: EntryKind, payload: impl Into<Bytes>) -> Index {
        self.now += 1;
        let position = Position { term: 3, index: self.entries.len() as u64 + 1 };
        self.entries.push(Entry::new(position, LogTime(self.now), kind, payload.into()));
        position.index
    }

    fn open(&mut self) -> SessionId {
        SessionId(self.add(EntryKind::SessionOpen, Bytes::new()))
    }

    fn command(&mut self, session: SessionId, sequence: u64, lowest_outstanding: u64, command: &'static str) -> Index {
        let key = SessionKey { session, sequence, lowest_outstanding };
        let Proposed { kind, payload } = Proposed::in_session(&key, command.as_bytes());
        self.add(kind, payload)
    }

    fn settings(&mut self, settings: GroupSettings) -> Index {
        let member = Member {
            id: ServerId(1),
            role: MemberRole::Voter,
            priority: 1,
            identity: crate::types::Identity([1; 16]),
            address: "a".into(),
            context: Vec::new(),
        };
        let configuration = Configuration {
            members: vec![member],
            outgoing_voters: Vec::new(),
            highest_id: ServerId(1),
            change: None,
            settings,
        };
        self.add(EntryKind::Configuration, codec::encode(&configuration))
    }

    fn renew(&mut self, session: SessionId) -> Index {
        self.add(EntryKind::SessionRenewal, session.payload())
    }

    /// A replica that took everything in one batch, and what became of each entry.
    fn run(&self) -> (Replica, Vec<Fate>) {
        let mut replica = Replica::default();
        let fates = replica.take(&self.entries);
        (replica, fates)
    }
}

fn settings(expiry: u64, max_sessions: u32, session_reply_bytes: u32) -> GroupSettings {
    let session_expiry = Duration::from_nanos(expiry);
    GroupSettings { session_expiry, max_sessions, session_reply_bytes, ..GroupSettings::default() }
}

/// The reply in a fate, which must be one.
#[track_caller]
fn repeated(fate: &Fate) -> (Index, &[u8]) {
    let Fate::Repeated(reply) = fate else { panic!("{fate:?}") };
    (reply.position.index, &reply.bytes)
}

#[test]
fn a_retry_is_not_applied_and_gets_the_first_reply() {
    let mut script = Script::default();
    let session = script.open();
    let first = script.command(session, 1, 1, "incr");
    script.command(session, 2, 1, "other");
    script.command(session, 1, 1, "incr");
    let (mut replica, fates) = script.run();
    assert_eq!(replica.applied, ["incr", "other"]);
    assert_eq!(fates[0], Fate::Done(Position { term: 3, index: session.0 }));
    assert_eq!((&fates[1], &fates[2]), (&Fate::Applied(0), &Fate::Applied(1)));
    assert_eq!(repeated(&fates[3]), (first, &b"1:.."[..]));
    // And once more, in a batch of its own.
    script.command(session, 2, 2, "other");
    assert_eq!(repeated(&replica.take(&script.entries[4..])[0]), (3, &b"2:..."[..]));
}

#[test]
fn plain_commands_pass_as_they_are() {
    let mut script = Script::default();
    script.add(EntryKind::Command, "a");
    script.add(EntryKind::Command, "b");
    let (replica, fates) = script.run();
    assert_eq!((replica.applied.len(), &fates[..]), (2, &[Fate::Applied(0), Fate::Applied(1)][..]));
    script.add(EntryKind::NoOp, "");
    script.add(EntryKind::Command, "c");
    let (replica, fates) = script.run();
    assert_eq!(replica.applied, ["a", "b", "c"]);
    assert_eq!(fates[2..], [Fate::Done(Position { term: 3, index: 3 }), Fate::Applied(2)]);
}

#[test]
fn what_the_client_will_not_ask_again_is_forgotten_and_never_applied() {
    let mut script = Script::default();
    let session = script.open();
    script.command(session, 1, 1, "one");
    script.command(session, 5, 4, "five");
    script.command(session, 1, 1, "one");
    script.command(session, 3, 1, "three, late");
    script.command(session, 4, 4, "four");
    let (replica, fates) = script.run();
    assert_eq!(replica.applied, ["one", "five", "four"]);
    assert_eq!(fates[3..5], [Fate::Forgotten, Fate::Forgotten]);
}

#[test]
fn a_client_that_names_a_lowest_beyond_its_own_sequence_is_answered_all_the_same() {
    let mut script = Script::default();
    let session = script.open();
    let first = script.command(session, 2, 9, "two");
    script.command(session, 2, 9, "two");
    let (replica, fates) = script.run();
    assert_eq!((replica.applied.len(), repeated(&fates[2]).0), (1, first));
}

#[test]
fn a_session_that_is_gone_or_never_was_applies_nothing() {
    let mut script = Script::default();
    let session = script.open();
    script.command(SessionId(77), 1, 1, "x");
    script.add(EntryKind::SessionClose, session.payload());
    script.command(session, 1, 1, "x");
    script.renew(session);
    script.add(EntryKind::SessionClose, session.payload());
    let (replica, fates) = script.run();
    assert!(replica.applied.is_empty() && replica.sessions.is_empty());
    assert_eq!([&fates[1], &fates[3], &fates[4]], [&Fate::Expired; 3]);
    assert_eq!(fates[5], Fate::Done(Position { term: 3, index: 6 }), "what is over may be ended again");
}

#[test]
fn a_session_expires_by_the_log_time_of_the_entry_at_hand() {
    let mut script = Script::default();
    script.settings(settings(10, 8, 1000));
    let (used, renewed, idle) = (script.open(), script.open(), script.open());
    script.now = 11;
    script.command(used, 1, 1, "in its last nanosecond");
    script.renew(renewed);
    script.now = 14;
    script.command(idle, 1, 1, "one late");
    script.now = 21;
    script.command(used, 1, 1, "in its last nanosecond");
    script.command(renewed, 1, 1, "in its last nanosecond, for it was renewed");
    let (replica, fates) = script.run();
    assert_eq!(fates[6], Fate::Expired);
    assert_eq!(repeated(&fates[7]).0, 5);
    assert_eq!(fates[8], Fate::Applied(1));
    assert_eq!(replica.sessions.len(), 2);
    // A batch that ends late makes nobody in it late.
    script.now = 1000;
    script.add(EntryKind::Command, "late");
    assert_eq!(script.run().1[..fates.len()], fates);
    script.command(used, 1, 1, "too late");
    assert_eq!(script.run().1.last(), Some(&Fate::Expired));
}

#[test]
fn one_session_more_than_may_be_ends_the_one_used_least_recently() {
    let mut script = Script::default();
    script.settings(settings(1000, 2, 1000));
    let (first, second) = (script.open(), script.open());
    script.renew(first);
    let third = script.open();
    script.command(first, 1, 1, "first");
    script.command(second, 1, 1, "second");
    script.command(third, 1, 1, "third");
    assert_eq!(script.run().0.applied, ["first", "third"]);
    script.settings(settings(1000, 0, 1000));
    script.open();
    let (replica, fates) = script.run();
    assert_eq!((replica.sessions.len(), fates.last()), (0, Some(&Fate::Expired)), "no session is to be had");
}

#[test]
fn replies_are_bounded_in_bytes_and_the_oldest_goes() {
    let mut script = Script::default();
    script.settings(settings(1000, 8, 20));
    let session = script.open();
    script.command(session, 1, 1, "123456789");
    script.command(session, 2, 1, "123456789");
    script.command(session, 3, 1, "123456789");
    script.command(session, 4, 1, "longer than all that is kept");
    for sequence in 1..=4 {
        script.command(session, sequence, 1, "again");
    }
    let (replica, fates) = script.run();
    assert_eq!(replica.applied.len(), 4, "whether or not the reply is kept, nothing is applied twice");
    assert_eq!((&fates[6], &fates[9]), (&Fate::Forgotten, &Fate::Forgotten));
    assert_eq!((repeated(&fates[7]).0, repeated(&fates[8]).0), (4, 5));
    // A lower bound lets go at once.
    script.settings(settings(1000, 8, 10));
    script.command(session, 2, 1, "again");
    script.command(session, 3, 1, "again");
    let (_, fates) = script.run();
    assert_eq!((&fates[11], repeated(&fates[12]).0), (&Fate::Forgotten, 5));
}

#[test]
fn sequences_are_bounded_in_number_and_the_lowest_goes() {
    let mut script = Script::default();
    let session = script.open();
    for sequence in 1..=MAX_SEQUENCES as u64 + 1 {
        script.command(session, sequence, 1, "x");
    }
    script.command(session, 1, 1, "x");
    script.command(session, 2, 1, "x");
    let (replica, fates) = script.run();
    assert_eq!(replica.applied.len(), MAX_SEQUENCES + 1);
    assert_eq!((&fates[MAX_SEQUENCES + 2], repeated(&fates[MAX_SEQUENCES + 3]).0), (&Fate::Forgotten, 3));
}

/// A long log in which everything happens.
fn eventful() -> Script {
    let mut random = fastrand::Rng::with_seed(7);
    let mut script = Script::default();
    script.settings(settings(200, 4, 100));
    let mut sessions = vec![script.open()];
    for _ in 0..3000 {
        script.now += random.u64(..6);
        let session = sessions[sessions.len() - 1 - random.usize(..sessions.len().min(6))];
        match random.u8(..40) {
            0..3 => sessions.push(script.open()),
            3 => drop(script.add(EntryKind::SessionClose, session.payload())),
            4..6 => drop(script.renew(session)),
            6 => {
                let bounds = settings(random.u64(60..300), random.u32(1..6), random.u32(0..200));
                script.settings(bounds);
            }
            7..15 => drop(script.add(EntryKind::Command, "plain")),
            _ => {
                let sequence = random.u64(1..6);
                let length = random.usize(1..30);
                let command = &"abcdefghijklmnopqrstuvwxyzabcd"[..length];
                script.command(session, sequence, sequence.saturating_sub(random.u64(..4)), command);
            }
        }
    }
    script
}

#[test]
fn batches_make_no_difference() {
    let script = eventful();
    let (mut whole, fates) = script.run();
    let mut random = fastrand::Rng::with_seed(8);
    for _ in 0..20 {
        let mut replica = Replica::default();
        let (mut rest, mut others) = (&script.entries[..], Vec::new());
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(random.usize(1..=rest.len().min(50)));
            others.extend(replica.take(batch).into_iter().map(by_kind));
            rest = later;
            if random.u8(..4) == 0 {
                replica.sessions.digests();
            }
        }
        assert_eq!(others, fates.iter().cloned().map(by_kind).collect::<Vec<_>>());
        assert_eq!(replica.applied, whole.applied);
        assert_eq!(replica.sessions.digests(), whole.sessions.digests());
    }
    let count = |kind: &Fate| fates.iter().filter(|fate| by_kind((*fate).clone()) == *kind).count();
    assert!(count(&Fate::Expired) > 100 && count(&Fate::Forgotten) > 100);
    assert!(fates.iter().filter(|fate| matches!(fate, Fate::Repeated(_))).count() > 100);
}

/// A fate without its place in a batch.
fn by_kind(fate: Fate) -> Fate {
    match fate {
        Fate::Applied(_) => Fate::Applied(0),
        fate => fate,
    }
}

/// The bytes of a table, cut at random, read back.
fn through_bytes(sessions: &mut Sessions, random: &mut fastrand::Rng) -> Sessions {
    let mut frozen = sessions.freeze();
    let mut reader = SessionsReader::default();
    loop {
        let (mut piece, is_last) = frozen.next_piece(random.usize(1..600));
        while !piece.is_empty() {
            let some = piece.split_to(random.usize(1..=piece.len()));
            reader.push(&some).unwrap();
        }
        if is_last {
            return reader.finish().unwrap();
        }
    }
}

#[test]
fn a_table_goes_through_a_snapshot_unchanged_at_any_place() {
    let script = eventful();
    let (mut whole, fates) = script.run();
    let mut random = fastrand::Rng::with_seed(9);
    for _ in 0..20 {
        let (before, after) = script.entries.split_at(random.usize(1..script.entries.len()));
        let mut source = Replica::default();
        source.take(before);
        let mut target = Replica { sessions: through_bytes(&mut source.sessions, &mut random), ..source };
        let others = target.take(after);
        assert_eq!(
            others.into_iter().map(by_kind).collect::<Vec<_>>(),
            fates[before.len()..].iter().cloned().map(by_kind).collect::<Vec<_>>()
        );
        assert_eq!(target.sessions.digests(), whole.sessions.digests());
    }
}

#[test]
fn a_frozen_table_does_not_change_with_the_one_that_goes_on() {
    let script = eventful();
    let (before, after) = script.entries.split_at(1500);
    let mut replica = Replica::default();
    replica.take(before);
    let frozen = replica.sessions.freeze();
    let expected = replica.sessions.digests().1;
    replica.take(after);
    assert_ne!(replica.sessions.digests().1, expected);
    assert_eq!(frozen.digest(), expected);
}

#[test]
fn a_host_that_holds_its_state_decides_as_all_others_though_it_knows_fewer_replies() {
    let script = eventful();
    let (mut whole, fates) = script.run();
    for held in [1, 700, 2999] {
        let mut replica = Replica { held, ..Replica::default() };
        let others = replica.take(&script.entries);
        let applied = fates[held as usize..].iter().filter(|fate| matches!(fate, Fate::Applied(_))).count();
        assert_eq!(replica.applied.len(), applied, "nothing that is held is applied again");
        for (index, (fate, other)) in fates.iter().zip(&others).enumerate().skip(held as usize) {
            let is_unknown = matches!((fate, other), (Fate::Repeated(_), Fate::Forgotten));
            let is_equal = by_kind(fate.clone()) == by_kind(other.clone()) || is_same_reply(fate, other);
            assert!(is_equal || is_unknown, "{index}: {fate:?}, {other:?}");
        }
        assert_eq!(replica.sessions.digests().0, whole.sessions.digests().0);
    }
}

/// Whether both are answered by the same entry: hosts that did not apply everything count otherwise.
fn is_same_reply(one: &Fate, other: &Fate) -> bool {
    matches!((one, other), (Fate::Repeated(one), Fate::Repeated(other)) if one.position == other.position)
        || matches!((one, other), (Fate::Forgotten, Fate::Repeated(_)))
}

#[test]
fn what_follows_a_failed_command_is_not_settled() {
    let mut script = Script::default();
    let session = script.open();
    script.command(session, 1, 1, "fine");
    script.command(session, 2, 1, "fails");
    script.command(session, 2, 1, "fails");
    let mut sessions = Sessions::default();
    let (mut admitted, steps) = sessions.admit(script.entries.clone(), 0);
    assert_eq!(admitted.commands.len(), 2);
    sessions.settle(&mut admitted, steps, 1, |_| b"result");
    assert_eq!((admitted.fate(1), admitted.fate(3)), (Fate::Applied(0), Fate::Unsettled));
}

#[test]
fn damaged_bytes_are_told() {
    let (mut replica, _) = eventful().run();
    let (bytes, is_last) = replica.sessions.freeze().next_piece(usize::MAX);
    assert!(is_last);
    let read = |bytes: &[u8]| {
        let mut reader = SessionsReader::default();
        reader.push(bytes)?;
        reader.finish()
    };
    assert!(read(&bytes).is_ok());
    for length in [0, 3, 4, 40, bytes.len() - 1] {
        assert!(read(&bytes[..length]).is_err(), "{length}");
    }
    let twice = [&bytes[..], &bytes[..]].concat();
    assert!(read(&twice).is_err());
    for at in 0..bytes.len() {
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 0x80;
        // Some of it is free to be anything; none of it may be a panic.
        let _ = read(&damaged);
    }
}

// ---- digests ----

const ME: ServerId = ServerId(2);

/// What a majority has at an entry, where this server said something.
fn verdict(index: Index, majority: Option<StateDigest>, mine: DigestAnswer) -> DigestCheck {
    let others = majority.map_or(DigestAnswer::Unable, DigestAnswer::Given);
    DigestCheck { index, majority, replicas: vec![(ServerId(1), others), (ME, mine), (ServerId(3), others)] }
}

#[test]
fn a_state_is_judged_by_what_it_came_down_to_at_the_request() {
    let (mut replica, _) = eventful().run();
    let own = replica.sessions.digested(9, HostDigest::from(1));
    let other = StateDigest { host: HostDigest::from(2), ..own };
    let judge = |sessions: &Sessions, majority, mine| sessions.judge(&verdict(9, majority, mine), ME);
    assert_eq!(judge(&replica.sessions, Some(own), DigestAnswer::Given(own)), Ok(()));
    let stopped = judge(&replica.sessions, Some(other), DigestAnswer::Given(own)).unwrap_err();
    assert_eq!((stopped.own, stopped.check.majority), (Some(own), Some(other)));
    // It need not have been heard; and one that was rebuilt since is right, whatever it said before.
    assert!(judge(&replica.sessions, Some(other), DigestAnswer::Missing).is_err());
    assert_eq!(judge(&replica.sessions, Some(own), DigestAnswer::Given(other)), Ok(()));
    // Nobody knows who is right.
    assert_eq!(judge(&replica.sessions, None, DigestAnswer::Given(own)), Ok(()));
    // The engine's own state is compared as well.
    let sessions = StateDigest { sessions: own.sessions ^ 1, ..own };
    assert!(judge(&replica.sessions, Some(sessions), DigestAnswer::Given(own)).is_err());
}

#[test]
fn a_state_without_a_digest_is_judged_by_what_its_server_said() {
    let sessions = Sessions::default();
    let [one, other] = [1, 2].map(|number| StateDigest { host: HostDigest::from(number), sessions: 0 });
    let judge = |mine| sessions.judge(&verdict(9, Some(one), mine), ME);
    assert!(judge(DigestAnswer::Given(other)).is_err());
    for fine in [DigestAnswer::Given(one), DigestAnswer::Unable, DigestAnswer::Missing] {
        assert_eq!(judge(fine), Ok(()), "{fine:?}");
    }
}

#[test]
fn a_snapshot_of_a_state_has_what_it_came_down_to() {
    let (mut replica, _) = eventful().run();
    let mut random = fastrand::Rng::with_seed(4);
    let before = replica.sessions.digests();
    let given: Vec<_> =
        (1..=MAX_KEPT as u64 + 2).map(|at| replica.sessions.digested(at, HostDigest::from(at))).collect();
    assert_eq!(replica.sessions.digests(), before, "what was asked is no part of the table");
    let restored = through_bytes(&mut replica.sessions, &mut random);
    for (index, own) in (1..).zip(given) {
        let other = StateDigest { host: HostDigest::from(0), ..own };
        let judged = restored.judge(&verdict(index, Some(other), DigestAnswer::Missing), ME);
        assert_eq!(judged.is_err(), index > 2, "the latest {MAX_KEPT} are remembered: {index}");
    }
}

/// The bytes of docs/disk-format.md.
#[test]
fn the_bytes_of_a_table_are_pinned() {
    let mut script = Script::default();
    script.settings(settings(0x0102, 3, 0x40));
    let session = script.open();
    script.command(session, 9, 8, "abc");
    let (mut replica, _) = script.run();
    replica.sessions.digested(3, HostDigest([0xdd; 32]));
    let (bytes, _) = replica.sessions.freeze().next_piece(usize::MAX);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = [
        // Length, head: log time, expiry, most sessions, bytes of replies, sessions, replies.
        "2c000000",
        "00000000",
        "0300000000000000",
        "0201000000000000",
        "03000000",
        "40000000",
        "0100000000000000",
        "0100000000000000",
        // Length, session: id, used by, used at, lowest, one sequence applied: 9 by entry 3.
        "3c000000",
        "01000000",
        "0200000000000000",
        "0300000000000000",
        "0300000000000000",
        "0800000000000000",
        "0100000000000000",
        "0900000000000000",
        "0300000000000000",
        // Length, reply: entry 3 of term 3, three bytes.
        "1f000000",
        "02000000",
        "0300000000000000",
        "0300000000000000",
        "0300000000000000",
        "313a2e",
        // Length, digest: the request's entry, the host's digest; the sessions' follows.
        "30000000",
        "03000000",
        "0300000000000000",
        &"dd".repeat(32),
    ];
    assert_eq!(hex[..hex.len() - 8], expected.concat());
}
