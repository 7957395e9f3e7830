//! What a group may take of memory is bounded, and what does not fit is refused and goes through later.

use std::collections::BTreeSet;

use bytes::Bytes;
use raft_engine::server::{CallError, Dispatch, Item, NotApplied, Outcome, Refused};

use super::cluster::Cluster;
use super::{BOUND, until};

/// The terms that the servers are in.
fn terms(cluster: &Cluster) -> Vec<u64> {
    cluster.nodes.iter().map(|node| node.group().status().unwrap().term).collect()
}

/// An entry of the most that a limit can be raised to takes long on the wire and on the disk; heartbeats travel between
/// its fragments, so that nobody misses the leader.
#[test]
fn an_entry_of_64_mib_commits_without_an_election() {
    // Long enough for a machine that does much else.
    let raised = [("max_entry_bytes", "67108864"), ("queue_bytes", "68000000"), ("election_timeout_ms", "1500")];
    let mut cluster = Cluster::new(3, Dispatch::Threaded, &raised);
    cluster.propose("first");
    let leader = cluster.leader().id;
    until("one term", || terms(&cluster).windows(2).all(|pair| pair[0] == pair[1]));
    let before = terms(&cluster);
    let large = Bytes::from(vec![7; 64 << 20]);
    let [forwards, away] = [0, 1].map(|nth| cluster.nodes.iter().filter(|node| node.id != leader).nth(nth).unwrap().id);
    cluster.node(leader).group().propose_wait(large.clone(), BOUND).unwrap();
    let too_large = Bytes::from(vec![7; (64 << 20) + 1]);
    let too_large = cluster.node(leader).group().propose_wait(too_large, BOUND).unwrap_err();
    assert!(matches!(too_large, CallError::Refused(Refused::TooLarge { .. })), "{too_large}");

    // Forwarded by one follower, and read from the log for the other, which is away meanwhile.
    cluster.node(away).seen.wait("the first", |state| state.items.len() == 2);
    let place = cluster.nodes.iter().position(|node| node.id == away).unwrap();
    cluster.nodes[place].stop();
    cluster.node(forwards).group().propose_wait(large.clone(), BOUND).unwrap();
    cluster.node(leader).group().propose_wait(Bytes::from("last"), BOUND).unwrap();
    cluster.restart(place);
    for node in &cluster.nodes {
        node.seen.wait("all four", |state| state.items.len() == 4);
        let items = node.seen.items();
        assert!(items[1] == large && items[2] == large, "server {}", node.id);
    }
    assert_eq!(terms(&cluster), before);
}

/// Proposals that do not fit are refused as certainly not applied; proposed again until they fit, each is applied once.
#[test]
fn an_overloaded_group_refuses_and_recovers() {
    const ITEMS: u64 = 400;
    let budgets = [("uncommitted_bytes", "65536"), ("max_entry_bytes", "8192"), ("queue_bytes", "262144")];
    let cluster = Cluster::new(3, Dispatch::Threaded, &budgets);
    cluster.propose("first");
    let leader = cluster.leader();
    let item = |tag: u64| {
        let mut data = tag.to_le_bytes().to_vec();
        data.resize(4096, 0);
        Item { tag, data: Bytes::from(data), session: None }
    };
    let mut open: BTreeSet<u64> = (0..ITEMS).collect();
    let mut overloaded = 0;
    while !open.is_empty() {
        let mut accepted = 0;
        for &tag in &open {
            match leader.group().propose(vec![item(tag)]) {
                Ok(()) => accepted += 1,
                Err(Refused::Full { .. }) => break,
                Err(refused) => panic!("{refused}"),
            }
        }
        leader.seen.wait("an end for each", |state| state.completions.len() >= accepted);
        leader.seen.change(|state| {
            for end in state.completions.drain(..) {
                match end.outcome {
                    Outcome::Applied => assert!(open.remove(&end.tag), "{end:?}"),
                    Outcome::NotApplied(NotApplied::Overloaded) => overloaded += 1,
                    _ => panic!("{end:?}"),
                }
            }
        });
    }
    assert!(overloaded > 0, "more was proposed at once than the budget allows");
    until("nothing uncommitted", || {
        let status = leader.group().status().unwrap();
        status.applied == status.commit && status.commit == status.last
    });
    for node in &cluster.nodes {
        node.seen.wait("all of them", |state| state.items.len() as u64 == ITEMS + 1);
        let applied: BTreeSet<Vec<u8>> = node.seen.items().into_iter().collect();
        assert_eq!(applied.len() as u64, ITEMS + 1, "each once");
    }
}
