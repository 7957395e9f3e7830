//! Members come and go while clients write, in groups of servers in several languages: no acknowledged write is lost,
//! clients see only linearizable values, and all replicas are equal in the end.

#![allow(clippy::disallowed_methods, reason = "tests of real processes live in real time")]

use std::time::{Duration, Instant};

use raft_tests::cluster::{Cluster, Program, Setup, poll};
use raft_tests::resp::{Client, Connection, Outcome, Value};
use raft_tests::workload::{Record, Workload};

const CLIENTS: u32 = 6;

/// Small logs, so that a server that joins needs a snapshot.
fn setup(programs: &[Program]) -> Setup {
    Setup::new(programs)
        .with("segment_bytes", 1 << 20)
        .with("snapshot_log_bytes", 256 << 10)
        .with("log_bytes", 16 << 20)
}

/// Clients that know the servers that there are now.
fn load(cluster: &Cluster, seed: u64) -> Workload {
    Workload::start(&cluster.client_addresses(), CLIENTS, seed)
}

/// Holds everybody to what the clients saw.
fn judge(cluster: &Cluster, records: &[Record]) {
    cluster.leader();
    let (applied, digest) = cluster.wait_equal();
    println!("all replicas equal at index {applied}: {digest}");
    for record in records {
        record.assert_linearizable();
        record.assert_ledger(&cluster.client_addresses());
    }
}

/// What a server answers itself, whoever leads.
fn ask(cluster: &Cluster, id: u64, words: &[&str]) -> Value {
    let mut connection = Connection::open(cluster.client_address(id)).expect("a server that runs");
    connection.call(words).expect("an answer")
}

fn refusal(cluster: &Cluster, words: &[&str]) -> String {
    let mut client = Client::new(cluster.client_addresses(), 0);
    poll(&format!("{words:?} to be refused"), || match client.call(words) {
        Outcome::Refused(why) => Some(why),
        Outcome::NotApplied(_) => None,
        other => panic!("{words:?}: {other:?}"),
    })
}

/// Every founder is replaced by a server in another language, and the leader is killed with each step under way.
#[test]
fn every_member_is_replaced_under_load_and_nothing_is_lost() {
    let mut cluster = Cluster::start(setup(&[Program::C, Program::Python, Program::C]));
    let workload = load(&cluster, 11);
    workload.wait_progress(500);
    for (founder, program) in [(1, Program::Python), (2, Program::C), (3, Program::Python)] {
        let added = cluster.add(program);
        workload.learn(&cluster.client_addresses());
        workload.wait_progress(200);
        // What is half done when a leader dies, its successor goes on with.
        let leader = cluster.leader();
        cluster.kill(leader);
        workload.wait_progress(200);
        cluster.restart(leader);
        cluster.remove(founder);
        println!("server {founder} was replaced by {added}; the leader killed in between was {leader}");
        workload.wait_progress(200);
    }
    let record = workload.stop();
    println!("{:?}, {} ledger keys acknowledged", record.outcomes, record.ledger_length());
    assert_eq!(cluster.member_ids(), Some(vec![4, 5, 6]));
    judge(&cluster, &[record]);
    // The new members find each other by what they hold: nobody who formed the group is left.
    for id in cluster.ids() {
        cluster.kill(id);
    }
    for id in cluster.ids() {
        cluster.launch(id);
    }
    for id in cluster.ids() {
        cluster.wait_ready(id);
    }
    cluster.leader();
    cluster.wait_equal();
    cluster.terminate_all();
}

#[test]
fn a_group_shrinks_to_one_and_grows_again() {
    let mut cluster = Cluster::start(setup(&[Program::C, Program::Python]));
    let workload = load(&cluster, 12);
    workload.wait_progress(200);
    // Who leads goes as well: its last act is to hand over.
    let leader = cluster.leader();
    cluster.remove(leader);
    workload.wait_progress(200);
    assert_eq!(cluster.member_ids(), Some(cluster.ids()));
    let added = cluster.add(Program::C);
    workload.learn(&cluster.client_addresses());
    workload.wait_progress(200);
    let old = cluster.ids().into_iter().find(|&id| id != added).expect("two members");
    cluster.remove(old);
    workload.wait_progress(200);
    cluster.add(Program::Python);
    workload.learn(&cluster.client_addresses());
    workload.wait_progress(200);
    let record = workload.stop();
    judge(&cluster, &[record]);
    cluster.terminate_all();
}

/// Leadership is sent round under load; the pauses are printed.
#[test]
fn leadership_is_handed_over_under_load_and_nothing_is_lost() {
    let mut cluster = Cluster::start(setup(&[Program::C, Program::C, Program::Python]));
    let workload = load(&cluster, 13);
    let mut gaps = Vec::new();
    for round in 0..9 {
        workload.wait_progress(200);
        let leader = cluster.leader();
        let to = cluster.ids().into_iter().cycle().skip_while(|&id| id != leader).nth(1).expect("three members");
        gaps.push(write_gap(&cluster, || {
            let named = [to.to_string()];
            let words: Vec<&str> =
                if round % 3 == 2 { vec!["RAFT.TRANSFER"] } else { vec!["RAFT.TRANSFER", &named[0]] };
            assert_eq!(ask(&cluster, leader, &words), Value::Simple("OK".to_owned()), "{words:?} at server {leader}");
        }));
        let leads = cluster.leader();
        assert!(leads != leader && (round % 3 == 2 || leads == to), "server {leads} leads, after {leader}");
    }
    gaps.sort();
    println!("longest pauses between acknowledged writes of one client, around nine hand-overs: {gaps:?}");
    let record = workload.stop();
    println!("{:?}, {} ledger keys acknowledged", record.outcomes, record.ledger_length());
    judge(&cluster, &[record]);
    cluster.terminate_all();
}

/// The longest pause between two acknowledged writes of a client that does nothing else, while `action` is done.
fn write_gap(cluster: &Cluster, action: impl FnOnce()) -> Duration {
    use std::sync::atomic::{AtomicBool, Ordering};
    let is_over = AtomicBool::new(false);
    let addresses = cluster.client_addresses();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut client = Client::new(addresses.clone(), 0);
            let (mut last, mut longest, mut left) = (None::<Instant>, Duration::ZERO, 20);
            // Some writes more, behind the hand-over.
            while left > 0 {
                if matches!(client.call(&["SET", "gap", "x"]), Outcome::Done(_)) {
                    let now = Instant::now();
                    longest = longest.max(last.map_or(Duration::ZERO, |last| now - last));
                    last = Some(now);
                    left -= i32::from(is_over.load(Ordering::Relaxed));
                }
            }
            longest
        });
        action();
        is_over.store(true, Ordering::Relaxed);
        writer.join().expect("a writer that met nothing forbidden")
    })
}

#[test]
fn a_wrong_joiner_is_refused_with_the_reason() {
    let mut cluster = Cluster::start(setup(&[Program::C, Program::Python, Program::C]));
    let raft = |cluster: &Cluster, id| cluster.raft_address(id).to_string();
    // An id that was used, of a member or of one that is gone.
    let why = refusal(&cluster, &["RAFT.ADD", "2", &raft(&cluster, 2)]);
    assert!(why.contains("member already"), "{why}");
    let gone = if cluster.leader() == 3 { 2 } else { 3 };
    cluster.remove(gone);
    let why = refusal(&cluster, &["RAFT.ADD", &gone.to_string(), "127.0.0.1:1"]);
    assert!(why.contains("never used again") && why.contains("higher"), "{why}");
    // Somebody else is at the address.
    let why = refusal(&cluster, &["RAFT.ADD", "4", &raft(&cluster, 1)]);
    assert!(why.contains("server 4 cannot be added") && why.contains('1'), "{why}");
    // Nobody is such a member.
    let why = refusal(&cluster, &["RAFT.REMOVE", "9"]);
    assert!(why.contains("not a member"), "{why}");
    let why = refusal(&cluster, &["RAFT.TRANSFER", "9"]);
    assert!(why.contains("no voter"), "{why}");
    // Nobody is there: the operator need not wait.
    let leader = cluster.leader();
    let mut adding = Connection::open(cluster.client_address(leader)).expect("a leader");
    adding.add(&["RAFT.ADD", "5", "127.0.0.1:1"]);
    adding.flush().expect("a leader that listens");
    poll("the change to be cancelled", || {
        matches!(ask(&cluster, leader, &["RAFT.CANCEL"]), Value::Integer(_)).then_some(())
    });
    let Value::Error(why) = adding.receive().expect("an answer") else { panic!("nobody was there") };
    assert!(why.contains("cancelled"), "{why}");
    // Nothing came of all that, and a good one is taken.
    let added = cluster.add(Program::Python);
    assert_eq!(added, 4);
    assert!(matches!(ask(&cluster, added, &["RAFT.SNAPSHOT"]), Value::Integer(_) | Value::Error(_)));
    cluster.wait_equal();
    cluster.terminate_all();
}
