//! Servers are killed with SIGKILL under load: no acknowledged write is lost, clients see only linearizable values, and
//! all replicas are equal in the end. `RAFT_TEST_KILLS` says how many kills a test does (20), `RAFT_TEST_SEED` which.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use raft_tests::cluster::{Cluster, Program, Setup, poll};
use raft_tests::resp::{Client, Connection, Outcome, Value};
use raft_tests::workload::Workload;
use rustix::process::Signal;

const CLIENTS: u32 = 8;

fn number_from(variable: &str, usual: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")),
        Err(_) => usual,
    }
}

/// Kills random servers, the leader as often as not, sometimes a majority and sometimes all at once, and starts them
/// again, while clients go on. Logs and segments are kept small, so that snapshots and recycling are under way as well.
fn kill_under_load(programs: &[Program], disk_backend: &str, forwarding: &str) {
    let kills = number_from("RAFT_TEST_KILLS", 20);
    let seed = number_from("RAFT_TEST_SEED", 1);
    let mut random = fastrand::Rng::with_seed(seed);
    let setup = Setup::new(programs)
        .with("disk_backend", disk_backend)
        .with("forwarding", forwarding)
        .with("segment_bytes", 4 << 20)
        .with("snapshot_log_bytes", 2 << 20)
        .with("log_bytes", 64 << 20);
    let mut cluster = Cluster::start(setup);
    let workload = Workload::start(&cluster.client_addresses(), CLIENTS, seed);
    workload.wait_progress(500);

    let mut killed = 0;
    while killed < kills {
        let mut victims = cluster.ids();
        random.shuffle(&mut victims);
        victims.truncate(match random.u32(..10) {
            0..7 => 1,
            7..9 => 2,
            _ => 3,
        });
        if random.bool() {
            let leader = cluster.leader();
            victims.retain(|&id| id != leader);
            victims.insert(0, leader);
        }
        for &victim in &victims {
            cluster.kill(victim);
            killed += 1;
        }
        if victims.len() == 1 && random.bool() {
            // A majority stands: it must go on without the dead one.
            workload.wait_progress(200);
        }
        random.shuffle(&mut victims);
        for &victim in &victims {
            cluster.launch(victim);
        }
        for &victim in &victims {
            cluster.wait_ready(victim);
        }
        workload.wait_progress(random.u64(1..500));
    }

    let record = workload.stop();
    println!(
        "{disk_backend}: {killed} kills, {:?}, {} ledger keys acknowledged",
        record.outcomes,
        record.ledger_length()
    );
    cluster.leader();
    let (applied, digest) = cluster.wait_equal();
    println!("all replicas equal at index {applied}: {digest}");
    record.assert_linearizable();
    record.assert_ledger(&cluster.client_addresses());

    // What is there now is on disk: it survives an orderly end and a new start as well.
    cluster.terminate_all();
    for id in cluster.ids() {
        cluster.launch(id);
    }
    for id in cluster.ids() {
        cluster.wait_ready(id);
    }
    cluster.leader();
    assert_eq!(cluster.wait_equal().1, digest, "a restart changed the state");
    record.assert_ledger(&cluster.client_addresses());
    cluster.terminate_all();
}

#[test]
fn kills_lose_nothing_with_asynchronous_writes() {
    kill_under_load(&[Program::C; 3], "aio", "off");
}

#[test]
fn kills_lose_nothing_with_a_disk_thread() {
    kill_under_load(&[Program::C; 3], "thread", "off");
}

/// Clients stay where they are: whatever leads, and whoever is killed, their server asks on their behalf.
#[test]
fn kills_lose_nothing_where_any_server_answers() {
    kill_under_load(&[Program::C, Program::C, Program::Python], "auto", "on");
}

#[test]
fn kills_lose_nothing_in_a_mixed_group() {
    kill_under_load(&[Program::C, Program::C, Program::Python], "auto", "off");
}

#[test]
fn kills_lose_nothing_in_python() {
    kill_under_load(&[Program::Python; 3], "auto", "off");
}

/// A leader that wakes after its successor was elected must not answer from its old state: reads lie before it, asked
/// after a newer value was acknowledged elsewhere, and it wakes to them. `RAFT_TEST_PAUSES` says how often (10).
#[test]
fn a_paused_leader_answers_no_stale_read() {
    let mut cluster = Cluster::start(Setup::new(&[Program::C; 3]).with("election_timeout_ms", 300));
    let mut refused = 0;
    for value in 1..=number_from("RAFT_TEST_PAUSES", 10) {
        let leader = cluster.leader();
        let mut before: Vec<Connection> = (0..4).map(|_| open(&cluster, leader)).collect();
        // It has taken all of them, and answers.
        for connection in &mut before {
            connection.call(&["GET", "key"]).expect("an answer");
        }
        cluster.signal(leader, Signal::STOP);
        let written = poll("another leader to take a write", || {
            let others = cluster.ids().into_iter().filter(|&id| id != leader);
            others.into_iter().find(|&id| {
                let answer = Connection::open(cluster.client_address(id))
                    .and_then(|mut it| it.call(&["SET", "key", &value.to_string()]));
                answer.is_ok_and(|answer| answer.text() == Some("OK"))
            })
        });
        for connection in &mut before {
            connection.add(&["GET", "key"]);
            connection.flush().expect("the system takes it");
        }
        cluster.signal(leader, Signal::CONT);
        for connection in &mut before {
            let answer = connection.receive().expect("an answer, of whatever kind");
            let number = answer.text().filter(|_| !matches!(answer, Value::Error(_))).map(str::to_owned);
            let is_new = number.as_deref() == Some(&value.to_string());
            assert!(
                is_new || matches!(answer, Value::Error(_)),
                "server {leader} woke and said {answer:?}, not {value}"
            );
            refused += u64::from(!is_new);
        }
        println!("pause {value}: server {leader} slept, {written} took the write");
    }
    println!("{refused} reads were refused, none was stale");
    cluster.wait_equal();
    cluster.terminate_all();
}

/// Increments of one session, each tried again at any server until it has an answer, count once each, however often the
/// leader is killed under them. `RAFT_TEST_LEADER_KILLS` says how often (10).
#[test]
fn increments_in_a_session_are_exact_through_kills_of_the_leader() {
    let mut cluster =
        Cluster::start(Setup::new(&[Program::C, Program::Python, Program::C]).with("election_timeout_ms", 300));
    let addresses = cluster.client_addresses();
    let (count, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let client = {
        let (count, stop) = (Arc::clone(&count), Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut client = Client::new(addresses, 0);
            let session = poll("a session", || match client.call(&["RAFT.SESSION", "OPEN"]) {
                Outcome::Done(Value::Integer(session)) => Some(session.to_string()),
                _ => None,
            });
            let mut retries = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let sequence = count.load(Ordering::Relaxed) + 1;
                let request = ["RAFT.SESSION", &session, &sequence.to_string(), "INCR", "count"];
                let answer = poll("an answer", || match client.call(&request) {
                    Outcome::Done(value) => Some(value),
                    _ => {
                        retries += 1;
                        None
                    }
                });
                assert_eq!(answer, Value::Integer(i64::try_from(sequence).expect("small")));
                count.store(sequence, Ordering::Relaxed);
            }
            retries
        })
    };
    let wait_progress = || {
        let begun = count.load(Ordering::Relaxed);
        poll("the count to go on", || {
            (count.load(Ordering::Relaxed) >= begun + 20 || client.is_finished()).then_some(())
        });
    };
    let kills = number_from("RAFT_TEST_LEADER_KILLS", 10);
    for _ in 0..kills {
        wait_progress();
        let leader = cluster.leader();
        cluster.kill(leader);
        wait_progress();
        cluster.restart(leader);
    }
    stop.store(true, Ordering::Relaxed);
    let retries = client.join().expect("a client that met nothing forbidden");
    let count = count.load(Ordering::Relaxed);
    cluster.wait_equal();
    let leader = cluster.leader();
    let told = open(&cluster, leader).call(&["GET", "count"]).expect("an answer");
    assert_eq!(told.text(), Some(count.to_string().as_str()));
    println!("{kills} kills of the leader: {count} increments, {retries} tried again, each counted once");
    cluster.terminate_all();
}

fn open(cluster: &Cluster, id: u64) -> Connection {
    Connection::open(cluster.client_address(id)).expect("a server that runs")
}
