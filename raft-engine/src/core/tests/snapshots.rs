//! §7: what a follower does with a snapshot, and a leader with its log.

use super::*;
use crate::core::Offer;

fn meta(index: Index, term: Term) -> SnapshotMeta {
    SnapshotMeta {
        position: Position { term, index },
        log_time: LogTime(index),
        configuration: configuration(1..=3).into(),
        configuration_index: 1,
        file_bytes: 1,
        file_crc: 0,
    }
}

fn node(term: Term, terms: &[Term]) -> Node {
    let mut cluster = Cluster::with_logs(&[(1, term, terms), (2, term, &[]), (3, term, &[])]);
    cluster.nodes.remove(&1).expect("a server")
}

fn run_disk(node: &mut Node) -> Vec<Effect> {
    let mut seen = Vec::new();
    loop {
        for effect in node.raft.take_effects() {
            match effect {
                Effect::Persist { mark, record } => node.disk.push_back((mark, record)),
                other => seen.push(other),
            }
        }
        if !node.complete_write(Time(0)) {
            return seen;
        }
    }
}

#[test]
fn a_snapshot_replaces_a_log_that_does_not_reach_it() {
    let mut node = node(3, &[1, 2, 2]);
    let position = Position { term: 3, index: 50 };
    assert_eq!(node.raft.snapshot_offered(Time(0), ServerId(2), 3, 4, position), Offer::Wanted);
    assert!(node.raft.install_snapshot(Time(0), ServerId(2), 3, 4, meta(50, 3)));
    assert_eq!((node.raft.last(), node.raft.commit_index()), (position, 50));
    assert!(node.raft.deliverable(usize::MAX).is_ok_and(|entries| entries.is_empty()));
    let effects = run_disk(&mut node);
    assert!(effects.contains(&Effect::Restore(meta(50, 3))), "restored once the mark is durable: {effects:?}");
    node.raft.restored(50);
    let next = Message::Append { term: 3, number: 5, previous: position, commit: 51, entries: vec![entry(51, 3)] };
    node.raft.receive(Time(0), ServerId(2), next);
    run_disk(&mut node);
    assert_eq!(node.raft.deliverable(usize::MAX).expect("cached").len(), 1);
}

#[test]
fn nothing_is_restored_before_the_mark_is_durable() {
    let mut node = node(3, &[]);
    node.raft.install_snapshot(Time(0), ServerId(2), 3, 4, meta(50, 3));
    let effects = node.raft.take_effects();
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Restore(_))));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Send { .. })), "nor acknowledged");
}

#[test]
fn a_stale_snapshot_is_refused() {
    let mut node = node(3, &[1, 2, 2]);
    let heard = Message::Append {
        term: 3,
        number: 1,
        previous: Position { term: 2, index: 4 },
        commit: 4,
        entries: Vec::new(),
    };
    node.raft.receive(Time(0), ServerId(2), heard);
    assert_eq!(node.raft.commit_index(), 4);
    let old = Position { term: 2, index: 3 };
    assert_eq!(node.raft.snapshot_offered(Time(0), ServerId(2), 3, 4, old), Offer::Stale);
    assert!(!node.raft.install_snapshot(Time(0), ServerId(2), 3, 4, meta(3, 2)), "even if it was already on its way");
    assert_eq!(node.raft.last().index, 4);
    let past = Position { term: 3, index: 9 };
    assert_eq!(node.raft.snapshot_offered(Time(0), ServerId(3), 2, 4, past), Offer::Stale, "of a leader of the past");
}

#[test]
fn a_tail_that_conflicts_with_a_snapshot_goes() {
    let mut node = node(3, &[1, 2, 2, 2, 2]);
    assert!(node.raft.install_snapshot(Time(0), ServerId(2), 3, 4, meta(4, 3)));
    assert_eq!(node.raft.last().index, 4, "entries 5 and 6 followed another entry 4");
}

#[test]
fn a_log_that_holds_the_snapshots_last_entry_stays() {
    let mut node = node(3, &[1, 2, 2, 2, 2]);
    assert!(!node.raft.install_snapshot(Time(0), ServerId(2), 3, 4, meta(4, 2)), "nothing to restore");
    assert_eq!((node.raft.last().index, node.raft.commit_index()), (6, 4));
}

#[test]
fn a_peer_that_needs_compacted_entries_is_given_a_snapshot() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(3);
    let options = Options { cache_bytes: 0, ..Options::default() };
    cluster.raft(1).options = options;
    for _ in 0..5 {
        cluster.propose(1, b"x");
    }
    let index = cluster.raft(1).commit_index();
    cluster.raft(1).compact(index);
    cluster.heal();
    cluster.pass(300);
    let wants = |effect: &Effect| matches!(effect, Effect::SendSnapshot { to: ServerId(3), .. });
    assert!(cluster.nodes[&1].other.iter().any(wants));
    assert!(
        !cluster.nodes[&1].other.iter().any(|effect| matches!(effect, Effect::SendSnapshot { to: ServerId(2), .. }))
    );
}

#[test]
fn compacted_entries_in_memory_serve_a_peer_that_is_a_little_slow() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(3);
    cluster.propose(1, b"x");
    let index = cluster.raft(1).commit_index();
    cluster.raft(1).compact(index);
    cluster.heal();
    cluster.pass(300);
    assert!(cluster.nodes[&1].other.is_empty(), "no snapshot: {:?}", cluster.nodes[&1].other);
    assert_eq!(cluster.raft(3).commit_index(), index);
}

#[test]
fn a_previous_index_behind_the_snapshot_matches() {
    let mut node = node(3, &[]);
    node.raft.install_snapshot(Time(0), ServerId(2), 3, 4, meta(50, 3));
    run_disk(&mut node);
    node.raft.restored(50);
    let entries = (48..=52).map(|index| entry(index, 3)).collect();
    let previous = Position { term: 3, index: 47 };
    node.raft.receive(Time(0), ServerId(2), Message::Append { term: 3, number: 9, previous, commit: 0, entries });
    run_disk(&mut node);
    assert_eq!(node.raft.last().index, 52);
    assert_eq!(node.raft.commit_index(), 50, "the commit index never goes back");
}
