//! What idle groups cost a server: processor and memory of three processes on loopback that host so many of them.
//!
//! `cargo bench -p raft-engine --bench idle_groups`

#[allow(dead_code, reason = "tests use the rest of it")]
#[path = "../tests/groups/processes.rs"]
mod processes;

use std::time::Duration;

use processes::{Cluster, now, serve, wait};

fn main() {
    if serve() {
        return;
    }
    for groups in [1, 100, 1_000] {
        let start = now();
        let mut cluster = Cluster::new(groups);
        cluster.processes[0].ask("propose 1");
        let formed = start.elapsed();
        wait(Duration::from_secs(2));
        let used = |cluster: &mut Cluster| -> Vec<u64> {
            cluster.processes.iter_mut().map(|process| process.ask("processor")).collect()
        };
        let (before, start) = (used(&mut cluster), now());
        wait(Duration::from_secs(10));
        let (after, took) = (used(&mut cluster), start.elapsed());
        let percent: Vec<String> = (before.iter().zip(&after))
            .map(|(before, after)| format!("{:.2} %", (after - before) as f64 / took.as_millis() as f64 * 100.0))
            .collect();
        let memory: Vec<u64> = cluster.processes.iter_mut().map(|process| process.ask("memory")).collect();
        let leads: Vec<u64> = cluster.processes.iter_mut().map(|process| process.ask("leads")).collect();
        println!("{groups} groups: formed in {formed:?}, idle {percent:?} of a core, {memory:?} KiB, leads {leads:?}");
    }
}
