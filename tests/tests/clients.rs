//! Redis clients of today drive the examples unmodified: redis-cli, redis-benchmark and redis-py.

use std::net::SocketAddr;
use std::process::{Command, Output};

use raft_tests::cluster::{Cluster, Program, Setup, in_tree, poll};
use raft_tests::resp::{Client, Connection, Outcome, Value};

/// Runs a client program and returns what it said.
///
/// # Panics
/// If it cannot be started or fails.
#[track_caller]
fn run(program: &str, address: SocketAddr, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = Command::new(program)
        .args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()])
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error} (`make tools` gets it)"));
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{program} {arguments:?}: {status}\n{stdout}\n{stderr}");
    assert!(!stderr.contains("rror"), "{program} {arguments:?}: {stderr}");
    stdout.trim_end().to_owned()
}

fn follower_of(cluster: &Cluster, leader: u64) -> u64 {
    cluster.ids().into_iter().find(|&id| id != leader).expect("three members")
}

fn redis_cli_session(programs: &[Program]) {
    let mut cluster = Cluster::start(Setup::new(programs));
    let leader = cluster.leader();
    let at = cluster.client_address(leader);
    let cli = |arguments: &[&str]| run("redis-cli", at, arguments);
    assert_eq!(cli(&["PING"]), "PONG");
    assert_eq!(cli(&["SET", "greeting", "hello"]), "OK");
    assert_eq!(cli(&["GET", "greeting"]), "hello");
    assert_eq!(cli(&["SET", "greeting", "again", "NX"]), "");
    assert_eq!(cli(&["SET", "greeting", "again", "XX", "GET"]), "hello");
    assert_eq!(cli(&["INCR", "count"]), "1");
    assert_eq!(cli(&["INCRBY", "count", "41"]), "42");
    assert_eq!(cli(&["DECR", "count"]), "41");
    assert_eq!(cli(&["APPEND", "greeting", "!"]), "6");
    assert_eq!(cli(&["STRLEN", "greeting"]), "6");
    assert_eq!(cli(&["MSET", "a", "1", "b", "2"]), "OK");
    assert_eq!(cli(&["MGET", "a", "none", "b"]), "1\n\n2");
    assert_eq!(cli(&["EXISTS", "a", "b", "none"]), "2");
    assert_eq!(cli(&["DBSIZE"]), "4");
    assert_eq!(cli(&["KEYS", "?"]), "a\nb");
    assert_eq!(cli(&["DEL", "a", "b", "none"]), "2");
    assert!(cli(&["INFO"]).contains("redis_version"), "INFO names a version");
    assert!(cli(&["INCR", "greeting"]).starts_with("ERR value is not an integer"));
    assert_eq!(cli(&["-3", "GET", "greeting"]), "again!", "RESP3 after HELLO 3");

    let follower = cluster.client_address(follower_of(&cluster, leader));
    assert_eq!(run("redis-cli", follower, &["SET", "k", "v"]), format!("MOVED 0 {at}"));
    assert!(run("redis-cli", follower, &["-c", "SET", "k", "v"]).ends_with("OK"), "-c follows to the leader");
    assert!(run("redis-cli", follower, &["-c", "GET", "k"]).ends_with('v'));
    assert_eq!(cli(&["FLUSHALL"]), "OK");
    assert_eq!(cli(&["DBSIZE"]), "0");
    cluster.wait_equal();
    cluster.terminate_all();
}

#[test]
fn redis_cli_drives_the_example_in_c() {
    redis_cli_session(&[Program::C; 3]);
}

#[test]
fn redis_cli_drives_the_example_in_python() {
    redis_cli_session(&[Program::Python; 3]);
}

/// An operator with redis-cli adds a server, hands leadership over to it, and removes the one that led; cluster clients
/// are told of the members that there are.
fn redis_cli_changes_members(programs: &[Program], added: Program) {
    let mut cluster = Cluster::start(Setup::new(programs));
    let first = cluster.leader();
    let follower = cluster.client_address(follower_of(&cluster, first));
    let id = cluster.prepare_joiner(added);
    cluster.restart(id);
    let (raft, resp) = (cluster.raft_address(id).to_string(), cluster.client_address(id).to_string());
    // Before it is a member, it sends clients nowhere.
    assert!(run("redis-cli", cluster.client_address(id), &["GET", "k"]).starts_with("CLUSTERDOWN"));
    let index = run("redis-cli", follower, &["-c", "RAFT.ADD", &id.to_string(), &raft, &resp]);
    assert!(index.lines().last().is_some_and(|line| line.parse::<u64>().is_ok()), "{index}");
    let members = run("redis-cli", cluster.client_address(id), &["RAFT.MEMBERS"]);
    assert!(members.contains(&raft) && members.contains(&resp), "{members}");
    assert_eq!(run("redis-cli", follower, &["CLUSTER", "NODES"]).lines().count(), programs.len() + 1);
    assert!(run("redis-cli", follower, &["-c", "RAFT.TRANSFER", &id.to_string()]).ends_with("OK"));
    assert_eq!(run("redis-cli", follower, &["SET", "k", "v"]), format!("MOVED 0 {resp}"));
    assert!(run("redis-cli", follower, &["-c", "SET", "k", "v"]).ends_with("OK"));
    cluster.remove(first);
    let slots = run("redis-cli", follower, &["CLUSTER", "SLOTS"]);
    assert!(!slots.contains(&format!("{first:040x}")) && slots.contains(&format!("{id:040x}")), "{slots}");
    let why = run("redis-cli", follower, &["-c", "RAFT.ADD", &first.to_string(), &raft]);
    assert!(why.contains("never used again"), "{why}");
    cluster.wait_equal();
    cluster.terminate_all();
}

#[test]
fn redis_cli_changes_members_of_a_group_in_c() {
    redis_cli_changes_members(&[Program::C; 3], Program::Python);
}

#[test]
fn redis_cli_changes_members_of_a_group_in_python() {
    redis_cli_changes_members(&[Program::Python; 3], Program::C);
}

fn redis_benchmark_session(programs: &[Program], requests: u64) {
    let mut cluster = Cluster::start(Setup::new(programs));
    let leader = cluster.client_address(cluster.leader());
    let requests = requests.to_string();
    let load = ["-t", "set,get,incr,mset", "-n", &requests, "-c", "20", "-r", "1000", "-q"];
    let plain = run("redis-benchmark", leader, &load);
    let pipelined = run("redis-benchmark", leader, &[&load[..], &["-P", "16"]].concat());
    for (name, output) in [("plain", &plain), ("pipelined", &pipelined)] {
        let rates: Vec<&str> = output.lines().flat_map(|line| line.rsplit('\r').next()).collect();
        for command in ["SET", "GET", "INCR", "MSET"] {
            let rate = rates.iter().find(|line| line.trim_start().starts_with(command));
            let rate = rate.unwrap_or_else(|| panic!("{name}: no rate of {command} in {output}"));
            assert!(rate.contains("requests per second"), "{name}: {rate}");
            println!("{name}: {rate}");
        }
    }
    cluster.wait_equal();
    cluster.terminate_all();
}

#[test]
fn redis_benchmark_drives_the_example_in_c() {
    redis_benchmark_session(&[Program::C; 3], 20_000);
}

#[test]
fn redis_benchmark_drives_the_example_in_python() {
    redis_benchmark_session(&[Program::Python; 3], 5_000);
}

#[test]
fn redis_py_drives_a_mixed_group() {
    let mut cluster = Cluster::start(Setup::new(&[Program::C, Program::C, Program::Python]));
    let leader = cluster.leader();
    let follower = follower_of(&cluster, leader);
    let Output { status, stdout, stderr } = Command::new(in_tree(".venv/bin/python"))
        .arg(in_tree("tests/redis_py.py"))
        .arg(cluster.client_address(leader).to_string())
        .arg(cluster.client_address(follower).to_string())
        .output()
        .expect("the virtual environment: `make python` makes it");
    let said = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(status.success(), "redis_py.py: {status}\n{said}");
    cluster.wait_equal();
    cluster.terminate_all();
}

/// What one language writes every language reads, whoever leads, and whoever made the snapshot.
#[test]
fn any_language_takes_over_from_any_other() {
    let setup = Setup::new(&[Program::C, Program::C, Program::Python])
        .with("segment_bytes", 1 << 20)
        .with("snapshot_log_bytes", 256 << 10)
        .with("log_bytes", 16 << 20);
    let mut cluster = Cluster::start(setup);
    let mut client = Client::new(cluster.client_addresses(), 0);
    let mut expected = 0;
    let mut led = Vec::new();
    // Whoever leads is killed, so each takes its turn.
    for round in 0..12 {
        let leader = cluster.leader();
        led.push(leader);
        while !matches!(client.call(&["PING"]), Outcome::Done(_)) {}
        for _ in 0..200 {
            loop {
                match client.call(&["INCR", "count"]) {
                    Outcome::Done(value) => {
                        expected += 1;
                        assert_eq!(value, Value::Integer(expected), "round {round}, leader {leader}");
                        break;
                    }
                    Outcome::NotApplied(_) => {}
                    other => panic!("nothing was killed meanwhile: {other:?}"),
                }
            }
        }
        let padding = "x".repeat(4096);
        for at in 0..60 {
            let outcome = client.call(&["SET", &format!("padding:{round}:{at}"), &padding]);
            assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        }
        cluster.wait_equal();
        let all_led = cluster.ids().iter().all(|id| led.contains(id));
        if all_led && round >= 4 {
            cluster.terminate_all();
            return;
        }
        cluster.kill(leader);
        cluster.leader();
        cluster.restart(leader);
        cluster.wait_equal();
    }
    panic!("only {led:?} ever led");
}

/// Where servers forward, each answers every client by itself, and all see what any of them answered.
#[test]
fn servers_that_forward_answer_every_client() {
    let setup = Setup::new(&[Program::C, Program::Python, Program::C]).with("forwarding", "on");
    let mut cluster = Cluster::start(setup);
    cluster.leader();
    let addresses = cluster.client_addresses();
    let mut clients: Vec<_> = addresses.iter().map(|&at| Connection::open(at).expect("a server")).collect();
    for round in 1..=60 {
        let writer = round % clients.len();
        let count = clients[writer].call(&["INCR", "count"]).expect("an answer");
        assert_eq!(count, Value::Integer(i64::try_from(round).expect("few rounds")), "written at {writer}");
        for reader in &mut clients {
            let seen = reader.call(&["GET", "count"]).expect("an answer");
            assert_eq!(seen.text(), Some(round.to_string().as_str()));
        }
    }
    cluster.terminate_all();
}

/// Requests sent in one go are answered in order, and each sees those before it.
#[test]
fn a_pipeline_is_answered_in_order() {
    let mut cluster = Cluster::start(Setup::new(&[Program::C, Program::Python, Program::C]));
    let mut connection = Connection::open(cluster.client_address(cluster.leader())).expect("the leader answers");
    for round in 0..50 {
        for at in 0..20 {
            connection.add(&["SET", "k", &format!("{round}.{at}")]);
            connection.add(&["GET", "k"]);
            connection.add(&["ECHO", &at.to_string()]);
        }
        connection.flush().expect("sent");
        for at in 0..20 {
            assert_eq!(connection.receive().expect("an answer").text(), Some("OK"));
            assert_eq!(connection.receive().expect("an answer").text(), Some(format!("{round}.{at}").as_str()));
            assert_eq!(connection.receive().expect("an answer").text(), Some(at.to_string().as_str()));
        }
    }
    cluster.terminate_all();
}

/// A write that is sent again in its session counts once, whoever is killed meanwhile, and is answered as at first.
#[test]
fn an_increment_that_is_sent_again_in_a_session_counts_once() {
    let mut cluster = Cluster::start(Setup::new(&[Program::C, Program::Python, Program::C]));
    let mut client = Client::new(cluster.client_addresses(), 0);
    cluster.leader();
    let session = poll("a session", || match client.call(&["RAFT.SESSION", "OPEN"]) {
        Outcome::Done(Value::Integer(session)) => Some(session.to_string()),
        _ => None,
    });
    for sequence in 1..=60_i64 {
        if sequence % 20 == 0 {
            let leader = cluster.leader();
            cluster.kill(leader);
            cluster.launch(leader);
        }
        // Twice, whatever became of the first.
        for _ in 0..2 {
            let number = sequence.to_string();
            let value =
                poll("an answer", || match client.call(&["RAFT.SESSION", &session, &number, "INCR", "count"]) {
                    Outcome::Done(value) => Some(value),
                    _ => None,
                });
            assert_eq!(value, Value::Integer(sequence));
        }
    }
    cluster.wait_equal();
    cluster.terminate_all();
}
