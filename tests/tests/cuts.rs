//! Links between real servers are cut, in one direction or both, so that every server reaches another and no two the same
//! ones: wherever a majority still reach each other there is a leader that commits, and nothing is lost.

#![allow(clippy::disallowed_methods, reason = "tests of real processes live in real time")]

use std::time::{Duration, Instant};

use raft_tests::cluster::{Cluster, Program, Setup, poll};
use raft_tests::links::Links;
use raft_tests::workload::Workload;

/// So long that whoever would campaign has done so several times over.
const SEVERAL_TIMEOUTS: Duration = Duration::from_secs(4);

/// Servers that talk to each other over links which the test cuts.
fn start(servers: usize) -> (Cluster, Links) {
    let setup = Setup::new(&vec![Program::C; servers]).with("election_timeout_ms", 600);
    let mut cluster = Cluster::prepare(setup);
    let addresses: Vec<_> = cluster.ids().into_iter().map(|id| (id, cluster.raft_address(id))).collect();
    let links = Links::new(&addresses);
    for &(from, _) in &addresses {
        for &(to, _) in addresses.iter().filter(|(to, _)| *to != from) {
            cluster.configure(from, &format!("peer.{to}"), links.address(from, to));
        }
    }
    for id in cluster.ids() {
        cluster.launch(id);
    }
    for id in cluster.ids() {
        cluster.wait_ready(id);
    }
    cluster.leader();
    (cluster, links)
}

/// Both directions between any of the first and any of the second.
fn between(some: &[u64], others: &[u64]) -> Vec<(u64, u64)> {
    let pairs = some.iter().flat_map(|&from| others.iter().map(move |&to| (from, to)));
    pairs.flat_map(|(from, to)| [(from, to), (to, from)]).collect()
}

fn finish(cluster: &mut Cluster, links: &Links, workload: Workload) {
    links.heal();
    workload.wait_progress(100);
    let record = workload.stop();
    cluster.leader();
    cluster.wait_equal();
    record.assert_linearizable();
    record.assert_ledger(&cluster.client_addresses());
    cluster.terminate_all();
}

/// The leader's id and two followers', as things stand.
fn roles(cluster: &Cluster) -> (u64, Vec<u64>) {
    let leader = cluster.leader();
    (leader, cluster.ids().into_iter().filter(|&id| id != leader).collect())
}

#[test]
fn a_cut_between_one_follower_and_the_leader_causes_no_election() {
    let (mut cluster, links) = start(3);
    let workload = Workload::start(&cluster.client_addresses(), 4, 3);
    workload.wait_progress(100);
    let (leader, followers) = roles(&cluster);
    let term = cluster.status(leader).expect("it answers").number("term");
    links.cut(&between(&[leader], &followers[..1]));
    let begun = Instant::now();
    while begun.elapsed() < SEVERAL_TIMEOUTS {
        workload.wait_progress(20);
    }
    for id in [leader, followers[1]] {
        let status = cluster.status(id).expect("it answers");
        assert_eq!((status.number("term"), status.number("leader")), (term, leader), "server {id}");
    }
    // The one that was cut off comes back and deposes nobody.
    links.heal();
    poll("the follower that was cut off to follow again", || {
        let status = cluster.status(followers[0])?;
        (status.number("leader") == leader && status.number("term") == term).then_some(())
    });
    finish(&mut cluster, &links, workload);
}

#[test]
fn three_servers_have_a_leader_whichever_link_is_cut() {
    let (mut cluster, links) = start(3);
    let workload = Workload::start(&cluster.client_addresses(), 4, 4);
    for round in 0..2 {
        for pattern in 0..5 {
            workload.wait_progress(50);
            let (leader, followers) = roles(&cluster);
            let (one, other) = (followers[0], followers[1]);
            let cut = match pattern {
                // The leader is not heard by one; hears nothing of one; both.
                0 => vec![(leader, one)],
                1 => vec![(one, leader)],
                2 => between(&[leader], &[one]),
                // It is heard by nobody, and hears all; or the other way round.
                3 => vec![(leader, one), (leader, other)],
                _ => vec![(one, leader), (other, leader)],
            };
            println!("round {round}: leader {leader}, cut {cut:?}");
            links.cut(&cut);
            let begun = Instant::now();
            workload.wait_progress(50);
            println!("    50 acknowledged after {:?}", begun.elapsed());
            links.heal();
        }
    }
    finish(&mut cluster, &links, workload);
}

#[test]
fn five_servers_have_a_leader_wherever_a_majority_is_connected() {
    let (mut cluster, links) = start(5);
    let workload = Workload::start(&cluster.client_addresses(), 4, 5);
    for pattern in 0..5 {
        workload.wait_progress(50);
        let (leader, followers) = roles(&cluster);
        let [a, b, c, d] = followers[..] else { panic!("five servers") };
        let cut = match pattern {
            // One server is the only bridge between two pairs: with either it is three. The leader is in one of them.
            0 => between(&[leader, a], &[c, d]),
            // The leader itself is the bridge.
            1 => between(&[a, b], &[c, d]),
            // The leader reaches one server only; the other four all reach each other.
            2 => between(&[leader], &[b, c, d]),
            // It is heard by one only, and hears all.
            3 => vec![(leader, b), (leader, c), (leader, d)],
            // A majority with a broken direction beside it.
            _ => [between(&[leader], &[c, d]), vec![(a, c), (d, b)]].concat(),
        };
        println!("leader {leader}, cut {cut:?}");
        links.cut(&cut);
        let begun = Instant::now();
        workload.wait_progress(50);
        println!("    50 acknowledged after {:?}", begun.elapsed());
        links.heal();
    }
    finish(&mut cluster, &links, workload);
}
