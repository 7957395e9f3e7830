//! What a group is for: it forms, agrees, reads, loses a server and takes it back.

use bytes::Bytes;
use raft_engine::server::{CallError, Consistency, Dispatch, NotApplied};
use raft_engine::types::ServerId;

use super::cluster::{Cluster, Node};
use super::{BOUND, number, until};

/// Forms, proposes, reads, loses its leader, takes it back.
fn story(dispatch: Dispatch, backend: &str) {
    let mut cluster = Cluster::new(3, dispatch, &[("disk_backend", backend)]);
    let mut items = Vec::new();
    for at in 0..20 {
        items.push(format!("item {at}"));
        cluster.propose(&items[at]);
    }
    cluster.agree_on(&items);

    let leader = cluster.leader();
    let reply = leader.group().query(Bytes::new(), Consistency::Linearizable, BOUND).unwrap();
    assert_eq!(number(&reply), 20);
    let index = leader.group().read(Consistency::Linearizable, BOUND).unwrap();
    let follower = cluster.nodes.iter().find(|node| !node.is_leader()).unwrap();
    let reply = follower.group().query(Bytes::new(), Consistency::AtLeast(index), BOUND).unwrap();
    assert_eq!(number(&reply), 20);
    let failed = leader.group().query(Bytes::from_static(b"bad"), Consistency::Stale, BOUND);
    assert_eq!(failed, Err(CallError::NotApplied(NotApplied::Failed("a bad query".into()))));
    // A follower asks the leader, and has applied what it says is applied.
    for at in [20, 21] {
        items.push(format!("item {at}"));
        let applied = follower.group().propose_wait(Bytes::from(items[at].clone()), BOUND).unwrap();
        assert_eq!((number(&applied.result), follower.seen.items().len()), (at as u64 + 1, at + 1));
        assert!(follower.group().read(Consistency::Linearizable, BOUND).unwrap() >= applied.index);
    }
    let status = leader.group().status().unwrap();
    let context = &status.configuration.unwrap().member(ServerId(leader.id)).unwrap().context.clone();
    assert_eq!(context, format!("client {}", leader.id).as_bytes());

    let place = cluster.nodes.iter().position(Node::is_leader).unwrap();
    cluster.nodes[place].stop();
    for at in 22..40 {
        items.push(format!("item {at}"));
        cluster.propose(&items[at]);
    }
    cluster.agree_on(&items);
    cluster.restart(place);
    cluster.agree_on(&items);

    // All of them, one after the other: what was acknowledged is there.
    for place in 0..3 {
        cluster.restart(place);
    }
    items.push("last".into());
    cluster.propose("last");
    cluster.agree_on(&items);
}

#[test]
fn three_servers_agree_and_survive_their_leader_with_the_disk_on_the_loop() {
    story(Dispatch::Threaded, "auto");
}

#[test]
fn three_servers_agree_and_survive_their_leader_with_a_disk_thread() {
    story(Dispatch::Threaded, "thread");
}

#[test]
fn three_servers_agree_and_survive_their_leader_where_the_host_dispatches() {
    story(Dispatch::Host, "auto");
}

/// A server that was away so long that the log it needs is gone gets a snapshot.
fn away(dispatch: Dispatch) {
    let mut cluster = Cluster::new(3, dispatch, &[("snapshot_log_bytes", "200000"), ("cache_bytes", "100000")]);
    let mut items = vec!["first".to_owned()];
    cluster.propose("first");
    cluster.agree_on(&items);
    let away = cluster.nodes.iter().position(|node| !node.is_leader()).unwrap();
    cluster.nodes[away].stop();
    for at in 0..120 {
        let item = format!("{at}: {}", "x".repeat(10_000));
        cluster.propose(&item);
        items.push(item);
    }
    let leader = cluster.leader();
    leader.seen.wait("a snapshot by itself", |state| state.snapshots > 0);
    until("its end", || leader.group().status().unwrap().snapshot > 1);
    let snapshot = loop {
        // One that is being taken anyway makes this one busy.
        match leader.group().snapshot(BOUND) {
            Ok(index) => break index,
            Err(CallError::NotApplied(NotApplied::Busy)) => {
                let status = leader.group().status().unwrap();
                if status.snapshot == status.applied {
                    break status.snapshot;
                }
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert!(snapshot > 1);
    cluster.restart(away);
    cluster.agree_on(&items);
    // Its own snapshot, too, takes the place of its log at the next start.
    cluster.restart(away);
    cluster.agree_on(&items);
    assert!(cluster.nodes[away].seen.state.lock().unwrap().restores > 0);
}

#[test]
fn a_server_that_was_away_for_long_catches_up_by_a_snapshot() {
    away(Dispatch::Threaded);
}

#[test]
fn a_server_that_was_away_for_long_catches_up_by_a_snapshot_where_the_host_dispatches() {
    away(Dispatch::Host);
}
