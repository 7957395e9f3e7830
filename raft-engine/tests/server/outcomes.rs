//! Every proposal ends once, as what happened to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use raft_engine::server::{
    Completion, CompletionDelivery, Config, Consistency, Dispatch, DispatchError, MemberArgument, NotApplied, Outcome,
    Polled, Refused, Role, Server, Unknown,
};
use raft_engine::types::ServerId;

use super::cluster::{Cluster, Node};
use super::machine::{List, SeenState};
use super::{BOUND, GROUP, bootstrap, items, now, number, until};

/// Each tag of an accepted batch has exactly one completion.
fn check_once(accepted: &[u64], completions: &[Completion]) {
    let mut count: BTreeMap<u64, usize> = accepted.iter().map(|&tag| (tag, 0)).collect();
    for completion in completions {
        *count.get_mut(&completion.tag).expect("nothing completes that was not accepted") += 1;
    }
    assert!(count.values().all(|&count| count == 1), "{count:?}");
}

#[test]
fn every_proposal_completes_once_also_when_the_server_closes_under_it() {
    // Small budgets, so that some are refused, some overloaded, and the flood does not drown the test.
    let budgets = [("max_entry_bytes", "4096"), ("queue_bytes", "200000"), ("uncommitted_bytes", "1000000")];
    for round in 0..4 {
        let mut cluster = Cluster::new(1, Dispatch::Threaded, &budgets);
        cluster.propose("first");
        let node = &cluster.nodes[0];
        let mut accepted = Vec::new();
        let server = node.server().clone();
        let closer = thread::spawn(move || {
            until("some work", || server.status().engine.log_writes > 4 + 10 * round);
            server.close().unwrap();
        });
        for batch in 0.. {
            match node.group().propose(items(batch * 50, 50)) {
                Ok(()) => accepted.extend(batch * 50..batch * 50 + 50),
                Err(Refused::Full { .. }) => thread::yield_now(),
                Err(error) => {
                    assert_eq!(error, Refused::Closed);
                    break;
                }
            }
        }
        closer.join().unwrap();
        let state = node.seen.state.lock().unwrap();
        check_once(&accepted, &state.completions);
        let applied: Vec<_> =
            state.completions.iter().filter(|completion| completion.outcome == Outcome::Applied).collect();
        assert!(applied.windows(2).all(|pair| pair[0].index < pair[1].index), "in log order");
        for completion in &applied {
            // The first command had result 1, and nothing else was in between.
            let position = number(&completion.result) as usize - 1;
            assert_eq!(state.items[position], completion.tag.to_string().into_bytes());
        }
        drop(state);
        assert_eq!(node.group().propose(items(1, 1)), Err(Refused::Closed));
        assert!(node.server().status().is_closed);
        node.server().close().unwrap();
        cluster.nodes[0].stop();
    }
}

#[test]
fn a_follower_that_does_not_forward_says_who_leads() {
    let cluster = Cluster::new(3, Dispatch::Threaded, &[("forwarding", "off")]);
    cluster.propose("first");
    let leader = cluster.leader();
    let follower = cluster.nodes.iter().find(|node| !node.is_leader()).unwrap();
    until("the follower knows its leader", || {
        follower.group().status().is_some_and(|status| status.leader == Some(ServerId(leader.id)))
    });
    let refused = follower.group().propose_wait(Bytes::from_static(b"no"), BOUND).unwrap_err();
    assert_eq!(refused.leader(), Some(ServerId(leader.id)));
    let refused = follower.group().read(Consistency::Linearizable, BOUND).unwrap_err();
    assert_eq!(refused.leader(), Some(ServerId(leader.id)));
}

/// The leader goes while a follower keeps forwarding: every proposal ends once, as what it says, and none is there twice.
#[test]
fn forwards_that_are_open_when_the_leader_goes_end_once_and_as_they_say() {
    let mut cluster = Cluster::new(3, Dispatch::Threaded, &[]);
    cluster.propose("first");
    let gone = cluster.nodes.iter().position(Node::is_leader).unwrap();
    let seen = cluster.nodes[(gone + 1) % 3].seen.clone();
    let group = cluster.nodes[(gone + 1) % 3].group().clone();
    until("the follower is served", || group.read(Consistency::Linearizable, BOUND).is_ok());
    let submit = {
        let seen = seen.clone();
        thread::spawn(move || {
            let mut accepted = Vec::new();
            let is_through = |state: &mut SeenState| {
                state.completions.iter().any(|end| end.outcome != Outcome::Applied)
                    && state.completions.last().is_some_and(|end| end.outcome == Outcome::Applied)
            };
            let start = now();
            while !is_through(&mut seen.state.lock().unwrap()) {
                assert!(start.elapsed() < BOUND, "not in time: forwards that were lost, and another that is applied");
                let batch = items(accepted.len() as u64, 20);
                let tags: Vec<u64> = batch.iter().map(|item| item.tag).collect();
                match group.propose(batch) {
                    Ok(()) => accepted.extend(tags),
                    Err(refused) => assert!(matches!(refused, Refused::Full { .. }), "{refused}"),
                }
                let before = accepted.len();
                seen.wait("some ends", |state| state.completions.len() + 400 >= before);
            }
            accepted
        })
    };
    seen.wait("forwards are applied", |state| state.completions.iter().any(|end| end.outcome == Outcome::Applied));
    cluster.nodes[gone].stop();
    let accepted = submit.join().unwrap();
    seen.wait("every end", |state| state.completions.len() == accepted.len());
    cluster.propose("last");
    seen.wait("the last", |state| state.items.last().is_some_and(|item| item == b"last"));
    let state = seen.state.lock().unwrap();
    check_once(&accepted, &state.completions);
    let times: BTreeMap<&[u8], usize> = state.items.iter().fold(BTreeMap::new(), |mut times, item| {
        *times.entry(item.as_slice()).or_default() += 1;
        times
    });
    for end in &state.completions {
        let times = times.get(end.tag.to_string().as_bytes()).copied().unwrap_or(0);
        match end.outcome {
            Outcome::Applied => assert_eq!(times, 1, "{end:?}"),
            Outcome::NotApplied(_) => assert_eq!(times, 0, "{end:?}"),
            _ => assert!(times <= 1, "{end:?}"),
        }
    }
}

#[test]
fn a_host_that_polls_gets_every_completion_and_then_the_end() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut config = Config::new("test", 1, root.path().join("data"), "127.0.0.1:0");
    config.dispatch = Dispatch::Host;
    config.completions = CompletionDelivery::Poll;
    config.set("segment_bytes", "1048576").unwrap();
    let server = Server::open(config).unwrap();
    let seen = Arc::default();
    let member = MemberArgument::new(ServerId(1), server.status().listen.to_string());
    let group = server.start_group(GROUP, List::new(&seen), bootstrap(vec![member])).unwrap();
    // One thread: it sleeps on the descriptor, and never in dispatch.
    let descriptor = server.descriptor();
    let mut completions = Vec::new();
    let mut accepted = Vec::new();
    let start = now();
    while completions.len() < 500 {
        assert!(start.elapsed() < BOUND, "{} completions", completions.len());
        let is_leader = group.status().is_some_and(|status| status.role == Role::Leader);
        if accepted.is_empty() && is_leader {
            group.propose(items(0, 500)).unwrap();
            accepted.extend(0..500);
        }
        let mut polled = [rustix::event::PollFd::new(&descriptor, rustix::event::PollFlags::IN)];
        let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        if rustix::event::poll(&mut polled, Some(&wait)).unwrap() == 0 {
            continue;
        }
        server.dispatch(1, Duration::ZERO).unwrap();
        group.poll(&mut completions, 64);
    }
    group.propose(items(500, 100)).unwrap();
    accepted.extend(500..600);
    server.close().unwrap();
    assert_eq!(server.dispatch(1, Duration::ZERO), Err(DispatchError::Closed));
    while group.poll(&mut completions, 64) != Polled::End {}
    check_once(&accepted, &completions);
    assert!(completions[..500].iter().all(|completion| completion.outcome == Outcome::Applied));
    for completion in &completions[500..] {
        let is_closed = matches!(
            completion.outcome,
            Outcome::Applied | Outcome::Unknown(Unknown::Closed) | Outcome::NotApplied(NotApplied::Closed)
        );
        assert!(is_closed, "{completion:?}");
    }
}
