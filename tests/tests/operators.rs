//! An operator's mistakes are refused with the reason and the remedy, and cost nothing but themselves.

use std::fs;

use raft_tests::cluster::{Cluster, Program, Setup, poll};
use raft_tests::resp::{Client, Outcome, Value};

/// Every request of a small known state, so that a test can tell that nothing was lost.
fn write_some(cluster: &Cluster, from: u64, to: u64) {
    let mut client = Client::new(cluster.client_addresses(), 0);
    for number in from..to {
        poll("a write to be applied", || match client.call(&["SET", &format!("k{number}"), &number.to_string()]) {
            Outcome::Done(_) => Some(()),
            Outcome::NotApplied(_) | Outcome::Unknown(_) => None, // Writing the same again does no harm.
            Outcome::Refused(why) => panic!("{why}"),
        });
    }
}

fn assert_all_there(cluster: &Cluster, to: u64) {
    let mut client = Client::new(cluster.client_addresses(), 0);
    for number in 0..to {
        let value = poll("a read to be answered", || match client.call(&["GET", &format!("k{number}")]) {
            Outcome::Done(value) => Some(value),
            _ => None,
        });
        assert_eq!(value, Value::Bulk(number.to_string().into_bytes()), "k{number}");
    }
}

/// Waits until a server has said on its output, or as it ended, everything of `words`.
#[track_caller]
fn wait_said(cluster: &Cluster, id: u64, words: &[&str]) {
    poll(&format!("server {id} to say {words:?}"), || {
        let output = cluster.output(id).to_lowercase();
        words.iter().all(|word| output.contains(word)).then_some(())
    });
}

#[test]
fn a_wiped_server_is_refused_under_its_old_id_with_reason_and_remedy() {
    for victim_leads in [false, true] {
        let mut cluster = Cluster::start(Setup::new(&[Program::C; 3]));
        write_some(&cluster, 0, 50);
        let leader = cluster.leader();
        let victim = cluster.ids().into_iter().find(|&id| (id == leader) == victim_leads).expect("three members");
        cluster.kill(victim);
        fs::remove_dir_all(cluster.data(victim)).expect("a wiped disk");
        cluster.launch(victim);
        // It is told why, and what to do.
        wait_said(&cluster, victim, &["belongs to the data directory", "may have forgotten votes", "new id"]);

        // The others go on, and know why the third does not.
        write_some(&cluster, 50, 100);
        assert_all_there(&cluster, 100);
        // It never takes part: with one of the two formed servers down, nobody leads.
        let formed: Vec<u64> = cluster.ids().into_iter().filter(|&id| id != victim).collect();
        let down = formed[0];
        cluster.kill(down);
        let mut client = Client::new(vec![cluster.client_address(formed[1])], 0);
        poll("the last formed server to lead no more", || {
            matches!(client.call(&["SET", "k0", "0"]), Outcome::NotApplied(_)).then_some(())
        });
        let term = cluster.status(formed[1]).expect("it answers").number("term");
        cluster.restart(down);
        write_some(&cluster, 100, 110);
        assert_all_there(&cluster, 110);
        let leads = poll("one of the formed to lead", || {
            formed.iter().copied().find(|&id| cluster.status(id).is_some_and(|status| status.field("role") == "leader"))
        });
        assert!(formed.contains(&leads));
        assert!(cluster.status(leads).expect("it answers").number("term") >= term);
        for id in formed {
            cluster.terminate(id);
        }
    }
}

#[test]
fn a_different_member_list_is_refused_at_formation() {
    let mut cluster = Cluster::prepare(Setup::new(&[Program::C; 3]));
    let mut other = cluster.member_arguments();
    let third = other.last_mut().expect("three members");
    *third = third.replace("127.0.0.1", "localhost");
    cluster.launch(1);
    cluster.launch(2);
    cluster.launch_with(3, &other);
    for id in [1, 3] {
        wait_said(&cluster, id, &["member", "differ"]);
    }
    // With the same list everywhere, formation goes on where it was.
    if cluster.is_running(3) {
        cluster.kill(3);
    }
    cluster.restart(3);
    cluster.wait_ready(1);
    cluster.wait_ready(2);
    write_some(&cluster, 0, 10);
    assert_all_there(&cluster, 10);
    cluster.terminate_all();
}

#[test]
fn a_different_member_list_is_refused_on_a_formed_server() {
    let mut cluster = Cluster::start(Setup::new(&[Program::C; 3]));
    write_some(&cluster, 0, 10);
    cluster.terminate(2);
    let mut fewer = cluster.member_arguments();
    fewer.truncate(4);
    cluster.launch_with(2, &fewer);
    wait_said(&cluster, 2, &["other arguments", "member list", "start it with those"]);
    assert!(!cluster.wait_exit(2).success(), "it does not run with the wrong list");
    cluster.restart(2);
    write_some(&cluster, 10, 20);
    cluster.wait_equal();
    assert_all_there(&cluster, 20);
    cluster.terminate_all();
}

#[test]
fn a_second_process_on_a_data_directory_is_refused() {
    let mut cluster = Cluster::start(Setup::new(&[Program::C; 3]));
    write_some(&cluster, 0, 10);
    let rogue = Cluster::prepare(Setup::new(&[Program::C; 3]));
    let mut command = std::process::Command::new(
        std::env::var("RAFT_KV_C").unwrap_or_else(|_| raft_tests::cluster::in_tree("build/kv-c")),
    );
    command.args(["--cluster", "test", "--id", "1", "--data"]).arg(cluster.data(1));
    command.args(["--raft", &rogue.raft_address(1).to_string(), "--resp", &rogue.client_address(1).to_string()]);
    command.args(cluster.member_arguments());
    let output = command.output().expect("started");
    let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert!(!output.status.success(), "a second process was let in");
    assert!(said.contains("is in use by process"), "it says why: {said}");
    write_some(&cluster, 10, 20);
    assert_all_there(&cluster, 20);
    cluster.terminate_all();
}

#[test]
fn formation_interrupted_by_kills_and_wipes_gives_one_cluster() {
    for seed in 0..4 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut cluster = Cluster::prepare(Setup::new(&[Program::C; 3]));
        // Servers come up, die and lose their disks before there is an entry 1; none of it may leave a stale member.
        cluster.launch(1);
        cluster.launch(2);
        for _ in 0..6 {
            let victim = random.u64(1..=2);
            cluster.kill(victim);
            if random.bool() {
                // Nothing is formed while the third has never run, so the directory may go.
                let _ = fs::remove_dir_all(cluster.data(victim)); // Killed before it was made.
            }
            cluster.launch(victim);
        }
        cluster.launch(3);
        for id in cluster.ids() {
            cluster.wait_ready(id);
        }
        cluster.leader();
        write_some(&cluster, 0, 20);
        cluster.wait_equal();
        assert_all_there(&cluster, 20);
        cluster.terminate_all();
    }
}
