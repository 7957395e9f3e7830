//! Linearizable reads (dissertation §6.4).

use super::*;

#[test]
fn a_read_covers_what_was_committed_before_it() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let index = cluster.propose(1, b"x");
    cluster.raft(1).read(7).expect("it leads");
    cluster.settle();
    assert_eq!(cluster.nodes[&1].reads, vec![(7, Some(index))]);
}

#[test]
fn a_leader_that_was_replaced_answers_no_read() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(1);
    cluster.raft(1).read(7).expect("it believes to lead");
    cluster.settle();
    assert!(cluster.nodes[&1].reads.is_empty(), "nobody confirmed it");
    cluster.pass(1500);
    assert_eq!(cluster.nodes[&1].reads, vec![(7, None)]);
}

#[test]
fn a_round_that_began_before_the_read_proves_nothing() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let now = cluster.now;
    // A heartbeat is on the wire; its answers come after the read.
    cluster.raft(1).send_heartbeats(now);
    cluster.carry_out(1);
    let early: Vec<_> = cluster.wire.drain(..).collect();
    cluster.raft(1).read(7).expect("it leads");
    cluster.carry_out(1);
    cluster.wire.clear();
    for (from, to, message) in early {
        cluster.raft(to).receive(now, ServerId(from), message);
        cluster.carry_out(to);
    }
    while let Some((from, to, message)) = cluster.wire.pop_front() {
        cluster.raft(to).receive(now, ServerId(from), message);
        cluster.carry_out(to);
    }
    assert!(cluster.nodes[&1].reads.is_empty());
    cluster.pass(100);
    assert_eq!(cluster.nodes[&1].reads.len(), 1, "the next round serves it");
}

#[test]
fn a_read_waits_for_the_first_commit_of_the_term() {
    let mut cluster = Cluster::with_logs(&[(1, 2, &[1, 2]), (2, 2, &[1, 2]), (3, 2, &[1, 2])]);
    cluster.elect(1);
    let committed = cluster.raft(1).commit_index();
    // A new leader whose no-op is not on any disk does not know what is committed.
    let mut fresh = Cluster::with_logs(&[(1, 2, &[1, 2]), (2, 2, &[1, 2]), (3, 2, &[1, 2])]);
    let now = fresh.now;
    fresh.raft(1).campaign(now);
    fresh.carry_out(1);
    while !fresh.raft(1).is_leader() {
        let (from, to, message) = fresh.wire.pop_front().expect("an election in progress");
        fresh.raft(to).receive(now, ServerId(from), message);
        fresh.carry_out(to);
    }
    fresh.raft(1).read(7).expect("it leads");
    fresh.carry_out(1);
    assert!(fresh.nodes[&1].reads.is_empty());
    fresh.settle();
    fresh.pass(100);
    assert_eq!(fresh.nodes[&1].reads, vec![(7, Some(committed))], "it covers the entries of earlier terms");
}

#[test]
fn a_peer_whose_host_waits_hears_of_the_commit_at_once() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let index = cluster.propose(1, b"x");
    assert!(cluster.raft(2).commit_index() < index, "else with the next heartbeat");
    let now = cluster.now;
    let index = cluster.raft(1).propose(now, vec![Bytes::from_static(b"y")]).expect("it leads").start;
    cluster.raft(1).hasten_commit(ServerId(2), index);
    cluster.settle();
    assert_eq!(cluster.raft(2).commit_index(), index);
    assert!(cluster.raft(3).commit_index() < index);
    cluster.carry_out(1);
    assert!(cluster.wire.is_empty(), "and once");
}

#[test]
fn a_follower_refuses_a_linearizable_read() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    assert_eq!(cluster.raft(2).read(7), Err(crate::core::Refusal::NotLeader));
}

#[test]
fn a_single_server_reads_at_once() {
    let mut cluster = Cluster::new(1);
    cluster.pass(1000);
    cluster.raft(1).read(7).expect("it leads");
    cluster.settle();
    assert_eq!(cluster.nodes[&1].reads.len(), 1);
}

#[test]
fn a_request_of_an_earlier_term_confirms_nothing_in_the_next() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let old = cluster.raft(1).hard_state().term;
    cluster.elect(1);
    // A round and a request of the earlier term, numbered beyond those of this one, come late.
    let now = cluster.now;
    let previous = Position { term: 0, index: 1 };
    for message in [
        Message::Heartbeat { term: old, round: 1_000, commit: 1 },
        Message::Append { term: old, number: 1_000, previous, commit: 1, entries: Vec::new() },
    ] {
        cluster.raft(2).receive(now, ServerId(1), message);
    }
    cluster.settle();
    cluster.isolate(1);
    cluster.raft(1).read(7).expect("it leads");
    cluster.settle();
    assert!(cluster.nodes[&1].reads.is_empty(), "nobody confirmed it");
}
