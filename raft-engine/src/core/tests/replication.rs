//! §5.3: the follower's rules, acknowledgements and the disk, and the leader's account of each peer.

use super::super::Role;
use super::*;
use crate::types::AppendOutcome;

fn append(term: Term, number: u64, previous: (Index, Term), entries: &[(Index, Term)], commit: Index) -> Message {
    Message::Append {
        term,
        number,
        previous: Position { index: previous.0, term: previous.1 },
        commit,
        entries: entries.iter().map(|&(index, term)| entry(index, term)).collect(),
    }
}

fn answers(node: &mut Node) -> Vec<AppendOutcome> {
    let mut outcomes = Vec::new();
    for effect in node.raft.take_effects() {
        match effect {
            Effect::Send { message: Message::AppendReply { outcome, .. }, .. } => outcomes.push(outcome),
            Effect::Persist { mark, record } => node.disk.push_back((mark, record)),
            _ => {}
        }
    }
    outcomes
}

fn follower(term: Term, terms: &[Term]) -> Node {
    let mut cluster = Cluster::with_logs(&[(1, term, terms), (2, term, &[]), (3, term, &[])]);
    cluster.nodes.remove(&1).expect("a server")
}

const LEADER: ServerId = ServerId(2);

#[test]
fn an_acknowledgement_leaves_only_when_its_entries_are_durable() {
    let mut node = follower(1, &[]);
    node.raft.receive(Time(0), LEADER, append(1, 1, (1, 0), &[(2, 1), (3, 1)], 0));
    assert!(answers(&mut node).is_empty(), "the entries are not on disk yet");
    assert!(node.complete_write(Time(0)));
    assert_eq!(answers(&mut node), vec![AppendOutcome::Matched { through: 3 }]);
}

#[test]
fn a_conflict_truncates() {
    let mut node = follower(3, &[1, 1, 2]);
    node.raft.receive(Time(0), LEADER, append(3, 1, (2, 1), &[(3, 3)], 0));
    answers(&mut node);
    while node.complete_write(Time(0)) {}
    assert_eq!(node.log.iter().map(|entry| entry.term).collect::<Vec<_>>(), [0, 1, 3]);
}

#[test]
fn a_request_that_comes_late_truncates_nothing() {
    let mut node = follower(1, &[1, 1, 1]);
    node.raft.receive(Time(0), LEADER, append(1, 1, (1, 0), &[(2, 1)], 0));
    assert_eq!(answers(&mut node), vec![AppendOutcome::Matched { through: 2 }], "it speaks only of what it brought");
    assert_eq!(node.raft.last().index, 4, "what follows is not in conflict with it");
}

#[test]
fn a_commit_index_reaches_no_further_than_what_matches() {
    let mut node = follower(2, &[1, 1, 1]);
    node.raft.receive(Time(0), LEADER, append(2, 1, (2, 1), &[], 4));
    assert_eq!(node.raft.commit_index(), 2, "entries 3 and 4 may be others than the leader's");
}

#[test]
fn what_is_committed_is_applied_only_once_it_is_on_the_own_disk() {
    let mut node = follower(1, &[]);
    node.raft.receive(Time(0), LEADER, append(1, 1, (1, 0), &[(2, 1), (3, 1)], 3));
    assert_eq!(node.raft.commit_index(), 3);
    assert_eq!(node.raft.deliverable(usize::MAX).expect("cached").len(), 1, "entry 1 only");
    answers(&mut node);
    node.complete_write(Time(0));
    assert_eq!(node.raft.deliverable(usize::MAX).expect("cached").len(), 3);
}

#[test]
fn the_late_completion_of_a_truncated_copy_counts_for_nothing() {
    let mut node = follower(1, &[]);
    node.raft.receive(Time(0), LEADER, append(1, 1, (1, 0), &[(2, 1), (3, 1)], 0));
    // Another leader truncates it, and a third brings the same entries again, before the disk has done anything.
    node.raft.receive(Time(0), ServerId(3), append(2, 1, (1, 0), &[(2, 2)], 0));
    node.raft.receive(Time(0), LEADER, append(3, 1, (1, 0), &[(2, 1), (3, 1)], 0));
    answers(&mut node);
    assert!(node.complete_write(Time(0)));
    assert_eq!(node.raft.durable_index(), 1, "the first copy reached the disk, and is not the present one");
    assert!(answers(&mut node).is_empty(), "and no acknowledgement of it leaves");
    while node.complete_write(Time(0)) {}
    assert_eq!(node.raft.durable_index(), 3);
    assert_eq!(answers(&mut node), vec![AppendOutcome::Matched { through: 3 }]);
}

#[test]
fn a_leader_counts_itself_only_up_to_its_own_disk() {
    let mut cluster = Cluster::new(2);
    cluster.elect(1);
    cluster.nodes.get_mut(&1).expect("a server").is_disk_stuck = true;
    let index = cluster.propose(1, b"x");
    assert!(cluster.raft(1).commit_index() < index, "server 2 has it, this disk has not");
    cluster.nodes.get_mut(&1).expect("a server").is_disk_stuck = false;
    cluster.settle();
    assert_eq!(cluster.raft(1).commit_index(), index);
}

#[test]
fn a_majority_commits_without_the_leaders_disk_and_it_applies_nothing_ahead_of_it() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let before = cluster.nodes[&1].applied.len();
    cluster.nodes.get_mut(&1).expect("a server").is_disk_stuck = true;
    let index = cluster.propose(1, b"x");
    assert_eq!(cluster.raft(1).commit_index(), index, "two of three have it durably");
    assert_eq!(cluster.nodes[&1].applied.len(), before, "applied is never ahead of the own log");
}

#[test]
fn lost_messages_are_made_good() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(3);
    for _ in 0..10 {
        cluster.propose(1, b"while 3 is away");
    }
    cluster.heal();
    cluster.pass(1000);
    assert_eq!(cluster.nodes[&3].log, cluster.nodes[&1].log);
    assert_eq!(cluster.leader(), Some(1));
}

#[test]
fn conflicts_are_found_in_one_round_trip_a_term() {
    let long: Vec<Term> = std::iter::repeat_n(2, 500).chain(std::iter::repeat_n(3, 500)).collect();
    let other: Vec<Term> = std::iter::repeat_n(2, 200).chain(std::iter::repeat_n(4, 900)).collect();
    let mut cluster = Cluster::with_logs(&[(1, 4, &other), (2, 4, &long), (3, 4, &other)]);
    cluster.elect(1);
    cluster.pass(100);
    assert_eq!(cluster.nodes[&2].log, cluster.nodes[&1].log);
    let Message::Append { number, .. } = ({
        cluster.propose(1, b"x");
        cluster.isolate(2);
        let now = cluster.now;
        cluster.raft(1).propose(now, vec![Bytes::from_static(b"y")]).expect("it leads");
        cluster.raft(1).flush(now);
        let effects = cluster.raft(1).take_effects();
        effects
            .into_iter()
            .find_map(|effect| match effect {
                Effect::Send { message: message @ Message::Append { .. }, .. } => Some(message),
                _ => None,
            })
            .expect("a request")
    }) else {
        panic!("not a request")
    };
    assert!(number < 20, "{number} requests, where a thousand entries differed");
}

#[test]
fn a_peer_that_denies_what_it_acknowledged_counts_no_more() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1, b"x");
    let (now, term) = (cluster.now, cluster.raft(1).hard_state().term);
    let last = cluster.raft(1).last();
    cluster.isolate(3);
    cluster.propose(1, b"y");
    let number = {
        let Role::Leader(leader) = &cluster.raft(1).role else { panic!("it leads") };
        leader.number
    };
    let hint = Position { term: 0, index: 1 };
    let denial = AppendOutcome::Conflict { previous: last.index, hint, last: 1 };
    cluster.raft(1).receive(now, ServerId(3), Message::AppendReply { term, number, outcome: denial });
    cluster.settle();
    let lost = |effect: &Effect| matches!(effect, Effect::LostData { peer: ServerId(3), .. });
    assert!(cluster.nodes[&1].other.iter().any(lost), "{:?}", cluster.nodes[&1].other);
}

#[test]
fn uncommitted_entries_keep_their_budget() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(1);
    let now = cluster.now;
    let large = Bytes::from(vec![0; 30 << 20]);
    assert!(cluster.raft(1).propose(now, vec![large.clone()]).is_ok());
    assert!(cluster.raft(1).propose(now, vec![large.clone()]).is_ok());
    assert_eq!(cluster.raft(1).propose(now, vec![large.clone()]), Err(crate::core::Refusal::Overloaded));
    assert!(cluster.raft(1).propose(now, vec![Bytes::from_static(b"x")]).is_ok(), "what fits is taken");
}

#[test]
fn what_is_committed_and_on_the_own_disk_leaves_the_budget_once() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.nodes.get_mut(&1).expect("a server").is_disk_stuck = true;
    cluster.propose(1, b"a");
    let last = cluster.propose(1, b"bb");
    assert_eq!(cluster.raft(1).commit_index(), last, "the others have both");
    let now = cluster.now;
    for bytes in [Entry::OVERHEAD_BYTES * 2 + 3, Entry::OVERHEAD_BYTES + 2, 0] {
        assert_eq!(cluster.raft(1).uncommitted_bytes(), bytes);
        cluster.nodes.get_mut(&1).expect("a server").complete_write(now);
    }
}

#[test]
fn a_leader_whose_own_disk_falls_behind_takes_no_more_than_its_budget() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.raft(1).options.uncommitted_bytes = 1_000;
    cluster.nodes.get_mut(&1).expect("a server").is_disk_stuck = true;
    let now = cluster.now;
    let mut taken = 0;
    while cluster.raft(1).propose(now, vec![Bytes::from_static(&[7; 100])]).is_ok() {
        cluster.settle();
        taken += 1;
        assert!(taken < 100, "everything is committed by the others and waits for the own disk");
    }
    assert!(cluster.raft(1).commit_index() > 5);
    assert!(cluster.raft(1).uncommitted_bytes() <= 1_000);
    cluster.nodes.get_mut(&1).expect("a server").is_disk_stuck = false;
    cluster.settle();
    cluster.propose(1, b"there is room again");
}

#[test]
fn a_conflict_of_before_the_pace_changed_moves_nothing() {
    // Server 2 lacks entries: request 1 to it conflicts, and later ones bring them.
    let mut cluster = Cluster::with_logs(&[(1, 1, &[1, 1]), (2, 1, &[]), (3, 1, &[1, 1])]);
    cluster.elect(1);
    cluster.isolate(2);
    let index = cluster.propose(1, b"x");
    let (term, now) = (cluster.raft(1).hard_state().term, cluster.now);
    let hint = Position { term: 0, index: 1 };
    let outcome = AppendOutcome::Conflict { previous: index, hint, last: 1 };
    cluster.raft(1).receive(now, ServerId(2), Message::AppendReply { term, number: 1, outcome });
    cluster.raft(1).flush(now);
    let effects = cluster.raft(1).take_effects();
    assert!(effects.is_empty(), "what is in flight is not sent again: {effects:?}");
}

#[test]
fn a_server_alone_commits_only_what_its_disk_has() {
    let mut cluster = Cluster::new(1);
    cluster.pass(1000);
    cluster.nodes.get_mut(&1).expect("a server").is_disk_stuck = true;
    let first = cluster.propose(1, b"x");
    let second = cluster.propose(1, b"y");
    let now = cluster.now;
    assert!(cluster.nodes.get_mut(&1).expect("a server").complete_write(now));
    cluster.carry_out(1);
    assert_eq!(cluster.raft(1).commit_index(), first, "the second is not on the disk yet");
    assert_eq!(cluster.nodes[&1].applied.last().map(|entry| entry.index), Some(first));
    cluster.nodes.get_mut(&1).expect("a server").is_disk_stuck = false;
    cluster.settle();
    assert_eq!(cluster.raft(1).commit_index(), second);
}
