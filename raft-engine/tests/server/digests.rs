//! Replicas that are compared, with a state machine that can be made to lie.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raft_engine::server::{
    CallError, Consistency, DigestAnswer, DigestCheck, DigestVerdict, Dispatch, NotApplied, Notice,
};
use raft_engine::types::ServerId;

use super::cluster::{Cluster, Node};
use super::{BOUND, now};

impl Cluster {
    /// Compares at whoever leads, as often as nothing comes of it.
    fn compare(&self, patience: Duration) -> Arc<DigestCheck> {
        let start = now();
        loop {
            match self.leader().group().check_digests(patience, BOUND) {
                Ok(check) => return check,
                Err(error) => assert!(start.elapsed() < BOUND, "{error}"),
            }
        }
    }
}

/// Replicas are compared; one whose state is another stops, and the others go on.
fn compared(dispatch: Dispatch) {
    let mut cluster = Cluster::new(3, dispatch, &[]);
    let mut items = vec!["first".to_owned()];
    let index = cluster.propose("first");
    let check = cluster.compare(BOUND);
    assert_eq!(check.verdict(), DigestVerdict::Agreed);
    assert!(check.index > index && check.replicas.iter().all(|(_, answer)| answer.given() == check.majority));

    // One gives no digest, and one fails to: nobody else knows better, and nobody stops.
    let follower = cluster.nodes.iter().position(|node| !node.is_leader()).unwrap();
    for skew in [1, 2] {
        cluster.nodes[follower].seen.change(|state| state.skew = skew);
        let check = cluster.compare(BOUND);
        assert_eq!(check.verdict(), DigestVerdict::Agreed);
        let id = ServerId(cluster.nodes[follower].id);
        assert_eq!(check.answer_of(id), Some(DigestAnswer::Unable));
    }
    let seen = &cluster.nodes[follower].seen;
    let is_told = |notice: &Notice| matches!(notice, Notice::Warning { message } if message.contains("told to fail"));
    seen.wait("a warning", |state| state.notices.iter().any(is_told));
    seen.change(|state| state.skew = 0);

    // The leader is the odd one: it says so, hands over, and stops.
    let odd = cluster.nodes.iter().position(Node::is_leader).unwrap();
    cluster.nodes[odd].seen.change(|state| state.skew = 1000);
    let check = cluster.nodes[odd].group().check_digests(BOUND, BOUND).unwrap();
    assert_eq!(check.verdict(), DigestVerdict::Diverged);
    assert!((1..=3).all(|id| check.is_odd(ServerId(id)) == (id == cluster.nodes[odd].id)));
    let is_stop = |notice: &Notice| matches!(notice, Notice::GroupStopped { .. });
    cluster.nodes[odd].seen.wait("a stop", |state| state.notices.iter().any(is_stop));
    let status = cluster.nodes[odd].group().status().unwrap();
    let divergence = status.divergence.unwrap();
    assert_eq!(divergence.check, *check);
    assert_eq!(divergence.own, check.answer_of(ServerId(cluster.nodes[odd].id)).unwrap().given());
    let reason = status.stopped.unwrap();
    assert!(reason.contains(&format!("entry {}", check.index)) && reason.contains("replace it"), "{reason}");
    let refused = cluster.nodes[odd].group().query(Bytes::new(), Consistency::Stale, BOUND);
    assert!(matches!(refused, Err(CallError::NotApplied(NotApplied::Closed))), "{refused:?}");
    for node in &cluster.nodes {
        let is_told = |notice: &Notice| matches!(notice, Notice::Diverged { check: told, .. } if *told == check);
        node.seen.wait("the verdict", |state| state.notices.iter().any(is_told));
        assert_eq!(node.group().status().unwrap().digest_check, Some(check.clone()));
    }
    items.push("second".into());
    cluster.propose("second");

    // What it holds in memory was wrong, and its log is not: started again, it comes to what the others have.
    cluster.restart(odd);
    cluster.agree_on(&items);
    let check = cluster.compare(BOUND);
    assert_eq!(check.verdict(), DigestVerdict::Agreed);
    assert!(check.replicas.iter().all(|(_, answer)| answer.given().is_some()));

    // A callback that panics stops its group, as any.
    let odd = cluster.nodes.iter().position(|node| !node.is_leader()).unwrap();
    cluster.nodes[odd].seen.change(|state| state.skew = 3);
    let check = cluster.compare(Duration::from_millis(200));
    assert_eq!(check.answer_of(ServerId(cluster.nodes[odd].id)), Some(DigestAnswer::Missing), "a panic stops it");
    cluster.nodes[odd].seen.wait("a stop", |state| state.notices.iter().any(is_stop));
}

#[test]
fn replicas_are_compared_and_the_odd_one_stops() {
    compared(Dispatch::Threaded);
}

#[test]
fn replicas_are_compared_and_the_odd_one_stops_where_the_host_dispatches() {
    compared(Dispatch::Host);
}
