//! What cannot be is refused with its reason, and costs nothing.

use std::sync::Arc;

use bytes::Bytes;
use raft_engine::server::{Dispatch, Item, OpenError, Refused, Server, StartError, StartHow};
use raft_engine::types::GroupId;

use super::GROUP;
use super::cluster::Cluster;
use super::machine::List;

#[test]
fn what_cannot_start_says_why() {
    let mut cluster = Cluster::new(1, Dispatch::Threaded, &[]);
    cluster.propose("first");
    let node = &cluster.nodes[0];
    let seen = Arc::default();
    let again = node.server().start_group(GROUP, List::new(&seen), StartHow::Restart);
    assert_eq!(again.err(), Some(StartError::AlreadyStarted(GROUP)));
    let other = node.server().start_group(GroupId(2), List::new(&seen), StartHow::Restart);
    assert!(matches!(other.err(), Some(StartError::Stopped { group: GroupId(2), .. })));
    let locked = Server::open(cluster.config(node)).err();
    assert!(matches!(locked, Some(OpenError::Locked { .. })), "{locked:?}");
    let mut config = cluster.config(node);
    config.data_directory.set_file_name("other");
    let listening = Server::open(config.clone()).err();
    assert!(matches!(listening, Some(OpenError::Listen { .. })), "{listening:?}");
    let mut exposed = config.clone();
    exposed.listen = "0.0.0.0:0".into();
    let refused = Server::open(exposed).err().expect("nothing is encrypted");
    assert!(matches!(refused, OpenError::Config(_)) && refused.to_string().contains("plaintext=anywhere"), "{refused}");
    config.set("heartbeat_ms", "200").unwrap();
    assert!(matches!(Server::open(config).err(), Some(OpenError::Config(_))));
    let mut foreign = cluster.config(node);
    foreign.cluster = "another".into();
    cluster.nodes[0].stop();
    let foreign = Server::open(foreign).err();
    assert!(matches!(foreign, Some(OpenError::Refused { .. })), "{foreign:?}");
}

#[test]
fn what_is_too_much_is_refused_before_anything_is_taken() {
    let cluster = Cluster::new(1, Dispatch::Threaded, &[("max_entry_bytes", "1000"), ("queue_bytes", "10000")]);
    let group = cluster.nodes[0].group();
    let item = |bytes| Item { tag: 1, data: Bytes::from(vec![0; bytes]), session: None };
    let refused = group.propose(vec![item(1000), item(1001)]);
    assert_eq!(refused, Err(Refused::TooLarge { position: 1, bytes: 1001, limit_bytes: 1000 }));
    let refused = group.propose((0..10).map(|_| item(1000)).collect());
    assert!(matches!(refused, Err(Refused::TooLarge { position: 9, limit_bytes: 10000, .. })), "{refused:?}");
    assert_eq!(group.propose(Vec::new()), Ok(()));
    assert!(cluster.nodes[0].seen.state.lock().unwrap().completions.is_empty());
}
