//! A thousand groups on three servers, each server a process of its own over loopback and a real disk.

mod processes;

use std::time::Duration;

use processes::{BOUND, Cluster, Process, now, serve, wait};

/// How long after a kill every group has a leader again that commits: an election timeout or two where a suspicion does
/// not help, and the time that two slow cores take for some hundred elections.
const FAILOVER_BOUND: Duration = Duration::from_secs(10);

/// What a process of a server runs.
#[test]
fn server_process() {
    serve();
}

#[test]
fn a_thousand_groups_survive_the_kill_of_a_server_that_leads_some_of_them() {
    let start = now();
    let mut cluster = Cluster::new(1_000);
    cluster.processes[0].ask("propose 1");
    println!("formed and committed in each group: {:?}", start.elapsed());
    let leads: Vec<u64> = cluster.processes.iter_mut().map(|process| process.ask("leads")).collect();
    println!("leads: {leads:?}");
    assert_eq!(leads.iter().sum::<u64>(), 1_000, "{leads:?}");
    let victim = (1..3).max_by_key(|&at| leads[at]).unwrap();
    assert!(leads[victim] >= 100, "{leads:?}");

    cluster.kill(victim);
    let killed = now();
    cluster.processes[0].ask("propose 2");
    println!("all commit again after {:?}", killed.elapsed());
    assert!(killed.elapsed() < FAILOVER_BOUND, "{:?}", killed.elapsed());

    cluster.restart(victim);
    cluster.processes[victim].ask("propose 3");
    for at in 0..3 {
        cluster.until_holds(at, 3);
    }
    println!("memory: {} KiB", cluster.processes[0].ask("memory"));
    println!("in all {:?}", start.elapsed());
}

#[test]
fn idle_groups_do_not_pin_the_log_and_lose_nothing_by_it() {
    let mut cluster = Cluster::new(200);
    cluster.processes[0].ask("propose 1");
    // Three times what the log may hold, through one group.
    for _ in 0..48 {
        cluster.processes[0].ask("busy 4 524288");
    }
    for at in 0..3 {
        let start = now();
        loop {
            let log_bytes = cluster.processes[at].ask("logbytes");
            if log_bytes <= (32 << 20) + 2 * (4 << 20) {
                break;
            }
            assert!(start.elapsed() < BOUND, "server {at} has a log of {log_bytes} bytes");
            wait(Duration::from_millis(20));
        }
    }
    for at in 0..3 {
        cluster.kill(at);
    }
    for at in 0..3 {
        let directory = cluster.root.path().join((at + 1).to_string());
        cluster.processes[at] = Process::start(at as u64 + 1, cluster.groups, &directory, &cluster.addresses[at]);
    }
    for at in 0..3 {
        assert_eq!(cluster.processes[at].answer(), cluster.addresses[at]);
        cluster.tell_members(at);
    }
    for at in 0..3 {
        assert_eq!(cluster.processes[at].answer(), "started");
    }
    cluster.processes[1].ask("propose 2");
    for at in 0..3 {
        cluster.until_holds(at, 2);
    }
}
