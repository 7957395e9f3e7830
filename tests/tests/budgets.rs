//! A follower that takes nothing costs its leader bounded memory, whether its process stands still or is gone.

use std::fs;

use raft_tests::cluster::{Cluster, Program, Setup, poll};
use raft_tests::resp::{Client, Outcome};
use rustix::process::Signal;

const MIB: u64 = 1 << 20;

/// What the leader may need beside what it needs with all followers there: the in-flight window and the queue of one
/// connection (10 MiB), and as much again for the allocator.
const MOST_MORE_BYTES: u64 = 20 * MIB;

/// Memory of a server that is not shared with others, in bytes.
fn resident_bytes(cluster: &Cluster, id: u64) -> u64 {
    let path = format!("/proc/{}/status", cluster.process(id));
    let status = fs::read_to_string(path).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its resident set");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("a number of KiB") << 10
}

/// Writes so many bytes through a server, in values that replace each other, so that the state stays small.
fn write(cluster: &Cluster, server: u64, bytes: u64) {
    const VALUE: usize = 256 << 10;
    let mut client = Client::new(vec![cluster.client_address(server)], 0);
    let value = "v".repeat(VALUE);
    for number in 0..bytes / VALUE as u64 {
        let key = format!("k{}", number % 8);
        poll("a write to be applied", || match client.call(&["SET", &key, &value]) {
            Outcome::Done(_) => Some(()),
            Outcome::NotApplied(_) | Outcome::Unknown(_) => None, // Writing the same again does no harm.
            Outcome::Refused(why) => panic!("{why}"),
        });
    }
}

#[test]
fn a_follower_that_takes_nothing_costs_its_leader_bounded_memory() {
    let setup = Setup::new(&[Program::C; 3]).with("log_bytes", 128 * MIB).with("segment_bytes", 16 * MIB);
    let mut cluster = Cluster::start(setup);
    // The caches are full then, and the log was compacted.
    let leader = cluster.leader();
    write(&cluster, leader, 160 * MIB);
    let before = resident_bytes(&cluster, leader);
    let follower = cluster.ids().into_iter().find(|&id| id != leader).expect("three members");
    let mut most = 0;
    for signal in [Signal::STOP, Signal::KILL] {
        cluster.signal(follower, signal);
        for _ in 0..8 {
            write(&cluster, leader, 20 * MIB);
            most = most.max(resident_bytes(&cluster, leader));
        }
    }
    cluster.wait_exit(follower);
    println!("leader: {} MiB before, {} MiB at most with a follower that takes nothing", before / MIB, most / MIB);
    assert!(most < before + MOST_MORE_BYTES, "{} MiB more", most.saturating_sub(before) / MIB);
    assert_eq!(cluster.leader(), leader, "nobody else led meanwhile");
    // It is brought up by a snapshot, since the log that it needs is gone.
    cluster.restart(follower);
    cluster.wait_equal();
    cluster.terminate_all();
}
