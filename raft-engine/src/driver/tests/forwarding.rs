//! What a host asks of a server that does not lead.

use super::super::{NotApplied, Unknown};
use super::*;
use crate::transport::{ForwardAnswer, ForwardRefusal, PeerMessage, RequestId};
use crate::types::{Position, Proposed};

const LOST: End = End::Ended(Outcome::Unknown(Unknown::LeadershipLost));

fn refused(reason: NotApplied) -> End {
    End::Ended(Outcome::NotApplied(reason))
}

fn not_leader(leader: u64) -> End {
    refused(NotApplied::NotLeader { leader: Some(ServerId(leader)) })
}

impl Cluster {
    fn term(&self, id: u64) -> u64 {
        self.servers[&id].driver.observe(GROUP).expect("a group").term
    }

    /// The connection on which `from` speaks to `to`, as `to` names it.
    fn heard_on(&self, from: u64, to: u64) -> ConnectionId {
        let stream = self.streams.iter().find(|stream| stream.ends.map(|(id, _)| id) == [from, to]);
        stream.expect("a stream").ends[1].1
    }

    /// The last entry of the log of a server.
    fn last(&self, id: u64) -> Position {
        self.servers[&id].driver.observe(GROUP).expect("a group").last
    }
}

#[test]
fn a_followers_proposal_is_applied_where_it_was_made() {
    let mut cluster = Cluster::new(3);
    let (leader, follower, other) = cluster.roles();
    let tags = cluster.propose(follower, &[b"a", b"b"]);
    let later = cluster.propose_one(follower, b"c");
    // Everything but the follower's own apply has happened where nothing of the leader reaches it any more.
    cluster.end_turn(follower);
    cluster.pass(20);
    let first = cluster.last(leader).index - 2;
    for (tag, (index, command)) in tags.into_iter().chain([later]).zip((first..).zip([b"a", b"b", b"c"])) {
        assert_eq!(cluster.end_of(follower, tag), Some(&End::Applied(index, Bytes::from_static(command))));
    }
    cluster.pass(200);
    for id in [leader, follower, other] {
        assert_eq!(cluster.applied(id), [b"a", b"b", b"c"]);
    }
}

#[test]
fn a_forward_completes_after_the_followers_own_apply() {
    let mut cluster = Cluster::new(3);
    let (leader, follower, other) = cluster.roles();
    let tag = cluster.propose_one(follower, b"x");
    cluster.end_turn(follower);
    // The leader takes it and answers; then its entry goes to the other server alone, and is committed.
    let (_, to, connection, bytes) = cluster.wire.pop_front().expect("a forward");
    cluster.handle(to, Event::Received { connection, bytes });
    cluster.end_turn(leader);
    let of_follower = cluster.wire.iter().position(|(_, to, ..)| *to == follower).expect("an answer");
    let (_, _, connection, bytes) = cluster.wire.remove(of_follower).expect("just seen");
    cluster.held.insert((leader, follower));
    cluster.handle(follower, Event::Received { connection, bytes });
    cluster.settle();
    assert_eq!(cluster.applied(leader), [b"x"], "{other} and the leader are a majority");
    assert_eq!(cluster.end_of(follower, tag), None, "it is not applied here");
    cluster.held.clear();
    cluster.pass(200);
    assert!(matches!(cluster.end_of(follower, tag), Some(End::Applied(..))));
}

#[test]
fn a_forward_without_an_answer_is_unknown_when_either_connection_breaks_and_is_never_sent_again() {
    for breaks_own in [true, false] {
        for is_taken in [true, false] {
            let mut cluster = Cluster::new(3);
            let (leader, follower, _) = cluster.roles();
            cluster.held.insert(if is_taken { (leader, follower) } else { (follower, leader) });
            let tag = cluster.propose_one(follower, b"x");
            let read = cluster.read(follower);
            cluster.settle();
            assert_eq!(cluster.end_of(follower, tag), None);
            let (from, to) = if breaks_own { (follower, leader) } else { (leader, follower) };
            cluster.break_dialled(from, to);
            cluster.settle();
            assert_eq!(cluster.end_of(follower, tag), Some(&LOST));
            assert_eq!(cluster.end_of(follower, read), Some(&not_leader(leader)));
            cluster.held.clear();
            cluster.pass(3_000);
            cluster.until_led();
            let times = cluster.applied(leader).iter().filter(|command| **command == b"x").count();
            // What was still on its way on a connection that stands arrives; nothing arrives twice.
            let is_there = is_taken || !breaks_own;
            assert_eq!(times, usize::from(is_there), "own {breaks_own}, taken {is_taken}");
            assert_eq!(cluster.servers[&follower].driver.observe_forwards().broken, 1);
            let next = cluster.propose_one(follower, b"y");
            cluster.pass(200);
            assert!(matches!(cluster.end_of(follower, next), Some(End::Applied(..))));
        }
    }
}

#[test]
fn a_forward_ends_when_its_leader_falls_silent() {
    let mut cluster = Cluster::new(3);
    let (leader, follower, other) = cluster.roles();
    // The machine is gone: nothing of it moves, and no connection says so.
    for id in [follower, other] {
        cluster.held.extend([(leader, id), (id, leader)]);
    }
    let tag = cluster.propose_one(follower, b"x");
    let read = cluster.read(follower);
    cluster.pass(50);
    assert_eq!(cluster.end_of(follower, tag), None);
    cluster.pass(3_000);
    assert_eq!(cluster.end_of(follower, tag), Some(&LOST));
    assert!(matches!(
        cluster.end_of(follower, read),
        Some(End::Ended(Outcome::NotApplied(NotApplied::NotLeader { .. })))
    ));
}

#[test]
fn a_forward_that_was_taken_and_never_committed_is_unknown() {
    let mut cluster = Cluster::new(3);
    let (leader, follower, other) = cluster.roles();
    // The leader's entries reach nobody; its answer does.
    let tag = cluster.propose_one(follower, b"x");
    cluster.end_turn(follower);
    let (_, to, connection, bytes) = cluster.wire.pop_front().expect("a forward");
    cluster.handle(to, Event::Received { connection, bytes });
    cluster.end_turn(leader);
    let answer = cluster.wire.iter().position(|(_, to, ..)| *to == follower).expect("an answer");
    let (_, _, connection, bytes) = cluster.wire.remove(answer).expect("just seen");
    cluster.handle(follower, Event::Received { connection, bytes });
    for id in [follower, other] {
        cluster.held.extend([(leader, id), (id, leader)]);
    }
    cluster.settle();
    assert_eq!(cluster.servers[&follower].driver.observe_forwards().taken, 1);
    assert_eq!(cluster.end_of(follower, tag), None);
    cluster.pass(3_000);
    assert_eq!(cluster.end_of(follower, tag), Some(&LOST));
}

#[test]
fn another_term_refuses_a_forward_and_a_read() {
    let mut cluster = Cluster::new(3);
    let (leader, follower, _) = cluster.roles();
    let (now, term, before) = (cluster.now, cluster.term(leader), cluster.last(leader));
    let request = RequestId { incarnation: 1, number: 99 };
    for other in [term - 1, term + 1] {
        let proposals = vec![Proposed { kind: EntryKind::Command, payload: Bytes::from_static(b"x") }];
        cluster.held.insert((leader, follower));
        cluster.driver(leader).on_forward(now, GROUP, ServerId(follower), request, other, proposals);
        let connection = cluster.heard_on(follower, leader);
        cluster.driver(leader).on_read_index(GROUP, ServerId(follower), connection, request, other);
        let group = &cluster.driver(leader).groups.get(&GROUP).expect("a group");
        assert!(group.reads.is_empty());
    }
    assert_eq!(cluster.last(leader), before);
}

#[test]
fn only_the_answer_of_the_route_is_taken_and_only_once() {
    let mut cluster = Cluster::new(3);
    let (leader, follower, other) = cluster.roles();
    cluster.held.insert((follower, leader));
    let tag = cluster.propose_one(follower, b"x");
    let read = cluster.read(follower);
    cluster.settle();
    let incarnation = cluster.driver(follower).incarnation.number;
    let (route, elsewhere) = (cluster.heard_on(leader, follower), cluster.heard_on(other, follower));
    let busy = ForwardAnswer::Refused(ForwardRefusal::Overloaded);
    let asked = |number| RequestId { incarnation, number };
    let driver = cluster.driver(follower);
    for (connection, request) in [
        (elsewhere, asked(1)),
        (route, asked(3)),
        (route, RequestId { incarnation: incarnation - 1, number: 1 }),
        (route, RequestId { incarnation: incarnation + 1, number: 1 }),
    ] {
        driver.on_forward_reply(GROUP, connection, request, busy);
        driver.on_read_index_reply(GROUP, connection, RequestId { number: request.number + 1, ..request }, Some(1));
    }
    // A read is no proposal.
    driver.on_forward_reply(GROUP, route, asked(2), busy);
    cluster.end_turn(follower);
    assert_eq!((cluster.end_of(follower, tag), cluster.end_of(follower, read)), (None, None));
    let driver = cluster.driver(follower);
    for _ in 0..2 {
        driver.on_forward_reply(GROUP, route, asked(1), busy);
        driver.on_read_index_reply(GROUP, route, asked(2), Some(5));
    }
    cluster.end_turn(follower);
    assert_eq!(cluster.end_of(follower, tag), Some(&refused(NotApplied::Overloaded)));
    assert_eq!(cluster.end_of(follower, read), Some(&End::Read(5)));
}

#[test]
fn an_answer_that_names_what_is_applied_or_another_term_is_unknown() {
    let mut cluster = Cluster::new(3);
    let (leader, follower, _) = cluster.roles();
    let (term, last) = (cluster.term(leader), cluster.last(leader).index);
    for position in [
        Position { term, index: last },
        Position { term, index: 0 },
        Position { term: term - 1, index: last + 1 },
        Position { term: term + 1, index: last + 1 },
        Position { term, index: u64::MAX },
    ] {
        cluster.held.insert((follower, leader));
        let tags = cluster.propose(follower, &[b"x", b"y"]);
        cluster.settle();
        let driver = cluster.driver(follower);
        let request = RequestId {
            incarnation: driver.incarnation.number,
            number: driver.groups.get(&GROUP).expect("a group").forwarding.last_number(),
        };
        let route = cluster.heard_on(leader, follower);
        cluster.driver(follower).on_forward_reply(GROUP, route, request, ForwardAnswer::Taken(position));
        cluster.end_turn(follower);
        for tag in tags {
            assert_eq!(cluster.end_of(follower, tag), Some(&LOST), "{position:?}");
        }
    }
    // The leader's own answers come late, to nobody.
    cluster.held.clear();
    cluster.pass(200);
    assert_eq!(cluster.applied(follower).len(), 10);
}

#[test]
fn a_servers_requests_have_names_that_an_earlier_open_of_it_never_used() {
    let mut cluster = Cluster::new(3);
    let (leader, follower, _) = cluster.roles();
    let before = cluster.driver(follower).incarnation.number;
    cluster.kill(follower);
    cluster.settle();
    cluster.start(follower);
    cluster.until_led();
    let leader = cluster.leader().filter(|now| *now == leader).expect("a follower's restart deposes nobody");
    cluster.held.insert((leader, follower));
    let read = cluster.read(follower);
    cluster.settle();
    // The answer to the first question of the open before, over the connection of this one.
    let route = cluster.heard_on(leader, follower);
    let old = RequestId { incarnation: before, number: 1 };
    cluster.driver(follower).on_read_index_reply(GROUP, route, old, Some(1));
    cluster.end_turn(follower);
    assert_eq!(cluster.end_of(follower, read), None);
    cluster.held.clear();
    cluster.pass(100);
    let index = cluster.last(leader).index;
    assert_eq!(cluster.end_of(follower, read), Some(&End::Read(index)));
}

#[test]
fn a_leader_tells_nobody_who_asked_on_a_connection_that_is_gone() {
    let mut cluster = Cluster::new(3);
    let (leader, follower, other) = cluster.roles();
    // The leader cannot confirm that it leads while the question waits.
    cluster.held.extend([(other, leader), (leader, follower)]);
    cluster.read(follower);
    cluster.settle();
    assert_eq!(cluster.driver(leader).groups.get(&GROUP).expect("a group").reads.len(), 1);
    cluster.break_dialled(follower, leader);
    cluster.held.remove(&(other, leader));
    let is_answer = |(from, to, _, bytes): &(u64, u64, ConnectionId, Bytes)| {
        (*from, *to, bytes[4]) == (leader, follower, crate::transport::FrameKind::ReadIndexReply as u8)
    };
    cluster.pass(20);
    assert!(cluster.driver(leader).groups.get(&GROUP).expect("a group").reads.is_empty());
    assert!(!cluster.wire.iter().any(is_answer));
}

#[test]
fn a_refusal_comes_back_with_its_reason() {
    let mut cluster = Cluster::with_settings(3, |_, settings| settings.uncommitted_bytes = 4_096);
    let (leader, follower, other) = cluster.roles();
    // Nothing commits any more, and the leader's budget fills.
    cluster.held.extend([(other, leader)]);
    let held = cluster.propose_one(leader, &[1; 4_000]);
    cluster.end_turn(leader);
    let tag = cluster.propose_one(follower, &[2; 4_000]);
    cluster.end_turn(follower);
    while let Some(at) = cluster.wire.iter().position(|(_, to, ..)| *to == leader) {
        let (_, _, connection, bytes) = cluster.wire.remove(at).expect("just seen");
        cluster.handle(leader, Event::Received { connection, bytes });
    }
    cluster.end_turn(leader);
    cluster.held.clear();
    cluster.settle();
    assert!(matches!(cluster.end_of(leader, held), Some(End::Applied(..))));
    assert_eq!(cluster.end_of(follower, tag), Some(&refused(NotApplied::Overloaded)));

    let mut cluster = Cluster::with_settings(3, |_, settings| settings.max_entry_bytes = 1_000);
    let (leader, follower, _) = cluster.roles();
    cluster.driver(follower).settings.max_entry_bytes = 1_001;
    let tag = cluster.propose_one(follower, &[0; 1_001]);
    cluster.settle();
    assert_eq!(cluster.end_of(follower, tag), Some(&refused(NotApplied::TooLarge)));
    let tag = cluster.propose_one(follower, &[0; 1_002]);
    cluster.settle();
    assert_eq!(cluster.end_of(follower, tag), Some(&refused(NotApplied::TooLarge)), "without asking");
    assert!(cluster.applied(leader).is_empty());
}

#[test]
fn forwards_without_an_answer_stay_in_their_budget() {
    let mut cluster = Cluster::with_settings(3, |_, settings| settings.forward_bytes = 10_000);
    let (leader, follower, _) = cluster.roles();
    cluster.held.insert((follower, leader));
    let tags: Vec<u64> = (0..4).map(|_| cluster.propose_one(follower, &[0; 4_000])).collect();
    cluster.settle();
    assert_eq!((cluster.end_of(follower, tags[0]), cluster.end_of(follower, tags[1])), (None, None));
    assert_eq!(cluster.end_of(follower, tags[2]), Some(&refused(NotApplied::Overloaded)));
    assert_eq!(cluster.end_of(follower, tags[3]), Some(&refused(NotApplied::Overloaded)));
    cluster.held.clear();
    cluster.pass(200);
    assert_eq!(cluster.applied(follower).len(), 2);
    // Alone, one that is longer than the budget goes.
    let tag = cluster.propose_one(follower, &[0; 20_000]);
    cluster.pass(200);
    assert!(matches!(cluster.end_of(follower, tag), Some(End::Applied(..))));
    assert_eq!(cluster.driver(follower).groups.get(&GROUP).expect("a group").forwarding.bytes(), 0);
}

#[test]
fn a_message_is_no_longer_than_what_a_leader_may_have_uncommitted() {
    let mut cluster = Cluster::with_settings(3, |_, settings| settings.uncommitted_bytes = 10_000);
    let (leader, follower, other) = cluster.roles();
    // The leader hears the follower, and nobody hears the leader: nothing is committed, and all that it took waits.
    cluster.held.extend([(leader, follower), (leader, other)]);
    let commands = [[0; 4_000]; 8];
    cluster.propose(follower, &commands.each_ref().map(|command| &command[..]));
    cluster.settle();
    let waiting = cluster.servers[&leader].driver.observe(GROUP).expect("a group").uncommitted_bytes;
    assert!((8_000..=10_000).contains(&waiting), "{waiting} bytes wait");
}

#[test]
fn long_proposals_go_in_fragments_and_many_in_messages_that_fit_a_frame() {
    let mut cluster = Cluster::new(3);
    let (leader, follower, _) = cluster.roles();
    let long = vec![3; 1 << 20];
    let mut commands: Vec<Vec<u8>> = (0..300_u32).map(|number| number.to_le_bytes().repeat(250)).collect();
    commands.push(long);
    commands.extend((0..5_000_u32).map(|number| number.to_le_bytes().to_vec()));
    let tags = cluster.propose(follower, &commands.iter().map(Vec::as_slice).collect::<Vec<_>>());
    cluster.pass(200);
    for (tag, command) in tags.iter().zip(&commands) {
        let Some(End::Applied(_, payload)) = cluster.end_of(follower, *tag) else { panic!("{tag} is not applied") };
        assert_eq!(payload, command);
    }
    assert_eq!(cluster.applied(leader), commands.iter().map(Vec::as_slice).collect::<Vec<_>>(), "in order");
}

#[test]
fn a_close_ends_what_was_sent_as_unknown_and_what_was_not_as_not_applied() {
    let mut cluster = Cluster::new(3);
    let (leader, follower, _) = cluster.roles();
    cluster.held.insert((leader, follower));
    let sent = cluster.propose_one(follower, b"x");
    let asked = cluster.read(follower);
    cluster.settle();
    let fresh = cluster.propose_one(follower, b"y");
    let unasked = cluster.read(follower);
    cluster.handle(follower, Event::Close);
    cluster.settle();
    assert_eq!(cluster.end_of(follower, sent), Some(&End::Ended(Outcome::Unknown(Unknown::Closed))));
    for tag in [fresh, asked, unasked] {
        assert_eq!(cluster.end_of(follower, tag), Some(&refused(NotApplied::Closed)));
    }
}

#[test]
fn a_stopped_group_ends_its_forwards() {
    let mut cluster = Cluster::new(3);
    let (leader, follower, _) = cluster.roles();
    cluster.held.insert((leader, follower));
    let sent = cluster.propose_one(follower, b"x");
    let asked = cluster.read(follower);
    cluster.settle();
    cluster.handle(follower, Event::ApplyFailed { group: GROUP, index: 9, message: "no".into() });
    cluster.settle();
    assert_eq!(cluster.end_of(follower, sent), Some(&End::Ended(Outcome::Unknown(Unknown::Stopped))));
    assert!(matches!(cluster.end_of(follower, asked), Some(End::Ended(Outcome::NotApplied(NotApplied::Failed(_))))));
    let late = cluster.propose_one(follower, b"y");
    assert_eq!(cluster.end_of(follower, late), None);
    cluster.settle();
    assert_eq!(cluster.end_of(follower, late), Some(&refused(NotApplied::Closed)));
}

#[test]
fn reads_of_a_turn_are_one_question_and_cover_what_was_acknowledged_before_them() {
    let mut cluster = Cluster::new(3);
    let (leader, follower, other) = cluster.roles();
    let write = cluster.propose_one(other, b"x");
    cluster.pass(200);
    let Some(&End::Applied(index, _)) = cluster.end_of(other, write) else { panic!("not applied") };
    let tags: Vec<u64> = (0..50).map(|_| cluster.read(follower)).collect();
    cluster.end_turn(follower);
    let is_question = |bytes: &Bytes| bytes[4] == crate::transport::FrameKind::ReadIndex as u8;
    let questions =
        cluster.wire.iter().filter(|(from, to, _, bytes)| (*from, *to) == (follower, leader) && is_question(bytes));
    assert_eq!(questions.count(), 1);
    cluster.settle();
    for tag in tags {
        assert_eq!(cluster.end_of(follower, tag), Some(&End::Read(index)));
    }
}

#[test]
fn a_follower_of_a_replaced_leader_is_told_nothing_stale() {
    let mut cluster = Cluster::new(5);
    let (leader, follower, _) = cluster.roles();
    let others: Vec<u64> = (1..=5).filter(|id| ![leader, follower].contains(id)).collect();
    for &other in &others {
        for id in [leader, follower] {
            cluster.held.extend([(id, other), (other, id)]);
        }
    }
    // The others elect a leader of their own, which the old one and its follower do not hear of.
    let before = cluster.term(leader);
    while !others.iter().any(|&id| cluster.term(id) > before && cluster.leader() == Some(id)) {
        cluster.now = cluster.now + Duration::from_millis(5);
        for &id in &others {
            cluster.end_turn(id);
        }
        while let Some(at) = cluster.wire.iter().position(|(from, to, ..)| !cluster.held.contains(&(*from, *to))) {
            let (_, to, connection, bytes) = cluster.wire.remove(at).expect("just seen");
            cluster.handle(to, Event::Received { connection, bytes });
            if others.contains(&to) {
                cluster.end_turn(to);
            }
        }
    }
    let new = cluster.leader().expect("just elected");
    let write = cluster.propose_one(new, b"x");
    let read = cluster.read(follower);
    cluster.settle();
    assert!(matches!(cluster.end_of(new, write), Some(End::Applied(..))));
    assert!(!matches!(cluster.end_of(follower, read), Some(End::Read(_))), "nobody confirms the old leader");
    cluster.held.clear();
    cluster.pass(3_000);
    assert!(!matches!(cluster.end_of(follower, read), Some(End::Read(_))));
}

#[test]
fn without_forwarding_a_host_is_told_who_leads() {
    let mut cluster = Cluster::with_settings(3, |_, settings| settings.forwarding = false);
    let (leader, follower, _) = cluster.roles();
    let (tag, read) = (cluster.propose_one(follower, b"x"), cluster.read(follower));
    cluster.settle();
    assert_eq!(cluster.end_of(follower, tag), Some(&not_leader(leader)));
    assert_eq!(cluster.end_of(follower, read), Some(&not_leader(leader)));
    assert!(cluster.applied(leader).is_empty());
}

#[test]
fn an_answer_that_finds_no_room_closes_the_connection() {
    let mut cluster = Cluster::new(3);
    let (leader, follower, _) = cluster.roles();
    let tag = cluster.propose_one(follower, b"x");
    cluster.end_turn(follower);
    let before = cluster.heard_on(leader, follower);
    // Whatever the leader has to say waits, until the reserve for short messages is used up too.
    let driver = cluster.driver(leader);
    driver.send(
        GROUP,
        ServerId(follower),
        PeerMessage::EntryOne {
            lineage: crate::types::Lineage([0; 32]),
            entry: Entry::new(
                Position { term: 0, index: 1 },
                crate::types::LogTime(0),
                EntryKind::Formation,
                Bytes::from(vec![0; 8 << 20]),
            ),
        },
    );
    let question = PeerMessage::ReadIndex { request: RequestId { incarnation: 9, number: 9 }, term: 1 };
    while driver.send(GROUP, ServerId(follower), question.clone()) {}
    let (_, to, connection, bytes) = cluster.wire.pop_front().expect("a forward");
    cluster.handle(to, Event::Received { connection, bytes });
    cluster.end_turn(leader);
    cluster.end_turn(follower);
    assert_eq!(cluster.end_of(follower, tag), Some(&LOST));
    assert!(!cluster.streams.iter().any(|stream| stream.ends[1] == (follower, before)));
}
