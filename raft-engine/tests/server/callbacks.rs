//! What a state machine may do in a callback, and what comes of one that fails.

use std::sync::Arc;
use std::sync::Mutex;

use bytes::Bytes;
use raft_engine::server::{
    CallError, CloseError, Config, Consistency, Dispatch, DispatchError, Group, Item, MemberArgument, NotApplied,
    Notice, OpenError, Refused, Role, Server, StartHow, Unknown,
};
use raft_engine::types::ServerId;

use super::cluster::Cluster;
use super::machine::List;
use super::{BOUND, GROUP, bootstrap, items, until};

#[test]
fn a_failing_or_panicking_state_machine_stops_its_group_and_nothing_else() {
    for (command, reason) in [("fail", "told to fail"), ("panic", "told to panic")] {
        let cluster = Cluster::new(1, Dispatch::Threaded, &[]);
        cluster.propose("good");
        let node = &cluster.nodes[0];
        let error = node.group().propose_wait(Bytes::from(command), BOUND).unwrap_err();
        assert_eq!(error, CallError::Unknown(Unknown::Stopped));
        node.seen.wait("a notice of the stop", |state| {
            state.notices.iter().any(|notice| matches!(notice, Notice::GroupStopped { .. }))
        });
        until("the reason", || node.group().status().unwrap().stopped.is_some_and(|stopped| stopped.contains(reason)));
        let status = node.group().status().unwrap();
        assert!(status.stopped.unwrap().contains(&format!("entry {}", status.applied + 1)));
        assert_eq!(node.seen.items(), [b"good"]);
        let refused = node.group().propose_wait(Bytes::from("more"), BOUND).unwrap_err();
        assert_eq!(refused, CallError::NotApplied(NotApplied::Closed));
        assert!(node.group().query(Bytes::new(), Consistency::Stale, BOUND).is_err());
        assert_eq!(node.server().status().engine.stopped, None);
    }
}

#[test]
fn from_a_callback_proposing_works_and_waiting_is_refused() {
    let mut cluster = Cluster::new(1, Dispatch::Threaded, &[]);
    cluster.propose("first");
    cluster.nodes[0].stop();
    let mut node = cluster.nodes.remove(0);
    cluster.open(&mut node);
    let handles: Arc<Mutex<Option<(Server, Group)>>> = Arc::default();
    let mut machine = List::new(&node.seen);
    let for_callback = handles.clone();
    machine.in_callback = Box::new(move |completions| {
        let handles = for_callback.lock().unwrap();
        let Some((server, group)) = &*handles else { return };
        if completions[0].tag == 1 {
            assert_eq!(server.close(), Err(CloseError::InCallback));
            assert_eq!(server.dispatch(1, BOUND), Err(DispatchError::Threaded));
            let waited = group.propose_wait(Bytes::from("waits"), BOUND);
            assert_eq!(waited, Err(CallError::Refused(Refused::InCallback)));
            group.propose(vec![Item { tag: 2, data: Bytes::from("again"), session: None }]).unwrap();
        }
    });
    let group = node.server().start_group(GROUP, machine, StartHow::Restart).unwrap();
    *handles.lock().unwrap() = Some((node.server().clone(), group.clone()));
    until("a leader", || group.status().is_some_and(|status| status.role == Role::Leader));
    group.propose(items(1, 1)).unwrap();
    node.seen.wait("both completions", |state| state.completions.iter().map(|completion| completion.tag).eq([1, 2]));
    handles.lock().unwrap().take();
    node.stop();
}

#[test]
fn the_last_handle_dropped_in_a_callback_closes_the_server() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut config = Config::new("test", 1, root.path().join("data"), "127.0.0.1:0");
    config.set("segment_bytes", "1048576").unwrap();
    let server = Server::open(config.clone()).unwrap();
    let seen = Arc::default();
    let held: Arc<Mutex<Option<Server>>> = Arc::default();
    let mut machine = List::new(&seen);
    let for_callback = held.clone();
    machine.in_callback = Box::new(move |_| drop(for_callback.lock().unwrap().take()));
    let member = MemberArgument::new(ServerId(1), server.status().listen.to_string());
    let group = server.start_group(GROUP, machine, bootstrap(vec![member])).unwrap();
    *held.lock().unwrap() = Some(server);
    until("a leader", || group.status().is_some_and(|status| status.role == Role::Leader));
    group.propose(items(1, 1)).unwrap();
    until("its end", || group.propose(items(2, 1)) == Err(Refused::Closed));
    // The directory is free again.
    until("the lock", || !matches!(Server::open(config.clone()), Err(OpenError::Locked { .. })));
}
