//! A trace of system calls: nothing that a server says stands on bytes that are not yet on its disk, and under load one
//! write to the log serves many proposals.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use raft_tests::cluster::{Cluster, Program, Setup, poll};
use raft_tests::durability::{Account, judge};
use raft_tests::resp::{Connection, Value};
use raft_tests::trace::{self, STRACE};

const CONNECTIONS: usize = 8;
const PIPELINE: usize = 16;
const ROUNDS: usize = 40;
const PROPOSALS: u64 = (CONNECTIONS * PIPELINE * ROUNDS) as u64;

/// A cluster whose servers each run under strace; it writes to `trace-ID` in the cluster's folder.
fn traced_cluster() -> Cluster {
    let probe = Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    let probe = probe.unwrap_or_else(|error| panic!("strace: {error} (`make tools` gets it)"));
    assert!(
        probe.status.success(),
        "strace cannot trace here, so this test cannot judge; run it where ptrace is permitted (in a container, with \
         --cap-add=SYS_PTRACE): {}",
        String::from_utf8_lossy(&probe.stderr)
    );
    // Small segments, as strace shows the zeros that they are filled with.
    let mut setup = Setup::new(&[Program::C; 3]).with("disk_backend", "thread").with("segment_bytes", 4 << 20);
    setup.wrapper = STRACE.iter().map(|&word| word.to_owned()).collect();
    setup.wrapper.extend(["-o".to_owned(), "{folder}/trace-{id}".to_owned()]);
    Cluster::start(setup)
}

/// Many proposals at once: each connection sends a pipeline, then all read their answers.
fn load(cluster: &Cluster, leader: u64) {
    let mut connections: Vec<Connection> = (0..CONNECTIONS)
        .map(|_| Connection::open(cluster.client_address(leader)).expect("the leader takes clients"))
        .collect();
    for round in 0..ROUNDS {
        for (number, connection) in connections.iter_mut().enumerate() {
            for at in 0..PIPELINE {
                connection.add(&["SET", &format!("{number}:{at}"), &round.to_string()]);
            }
            connection.flush().expect("the leader reads");
        }
        for connection in &mut connections {
            for _ in 0..PIPELINE {
                let answer = connection.receive().expect("the leader answers");
                assert_eq!(answer, Value::Simple("OK".to_owned()), "the leader is stable");
            }
        }
    }
}

/// Waits until strace has written all of a server's trace, and judges it.
fn judged(cluster: &Cluster, id: u64) -> Account {
    let path: PathBuf = cluster.folder().join(format!("trace-{id}"));
    let text = poll("a complete trace", || {
        let text = fs::read_to_string(&path).expect("strace writes it");
        trace::is_complete(&text).then_some(text)
    });
    let members: BTreeMap<String, u64> =
        cluster.ids().into_iter().map(|id| (cluster.raft_address(id).to_string(), id)).collect();
    let stops = trace::parse(&text).unwrap_or_else(|error| panic!("server {id}: {error}"));
    judge(&stops, &members).unwrap_or_else(|error| panic!("server {id} spoke before its disk: {error}"))
}

#[test]
fn nothing_is_said_before_it_is_durable_and_one_write_serves_many_proposals() {
    let mut cluster = traced_cluster();
    let first = cluster.leader();
    load(&cluster, first);
    cluster.wait_equal();
    // A second election, so that there is a vote by somebody who has a log.
    cluster.kill(first);
    let second = cluster.leader();
    load(&cluster, second);
    let survivors: Vec<u64> = cluster.ids().into_iter().filter(|&id| id != first).collect();
    for &id in &survivors {
        cluster.terminate(id);
    }

    let accounts: BTreeMap<u64, Account> = cluster.ids().into_iter().map(|id| (id, judged(&cluster, id))).collect();
    for (id, account) in &accounts {
        println!("server {id}: {account:?}");
    }
    // The judge had something to judge.
    let votes: u64 = accounts.values().map(|account| account.votes).sum();
    assert!(votes >= 2, "two elections take two votes: {accounts:?}");
    for &follower in &survivors {
        assert!(accounts[&follower].acknowledgements >= 20, "{accounts:?}");
    }
    // Group commit: the first leader wrote its load once and nothing else.
    let leader = accounts[&first];
    assert!(leader.commands >= PROPOSALS, "{leader:?}");
    assert!(
        leader.log_batches * 5 <= leader.commands,
        "{} writes to the log for {} proposals are not far fewer",
        leader.log_batches,
        leader.commands
    );
}
