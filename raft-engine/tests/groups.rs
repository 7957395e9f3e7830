//! A thousand groups on three servers, each server a process of its own over loopback and a real disk.
//!
//! The processes are this very test program, started again as [`server_process`]; they are told what to do by lines.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft_engine::server::{
    ApplyBatch, ApplyFailure, Completion, Config, Group, Item, MemberArgument, Outcome, Role, Server, SnapshotReader,
    SnapshotSource, SnapshotStep, StartHow, StateMachine,
};
use raft_engine::types::{GroupId, GroupSettings, ServerId};

/// How long anything may take that a test waits for.
const BOUND: Duration = Duration::from_secs(60);
/// How long after a kill every group has a leader again that commits: an election timeout or two where a suspicion does
/// not help, and the time that two slow cores take for some hundred elections.
const FAILOVER_BOUND: Duration = Duration::from_secs(10);
/// Names the process's server; without it, [`server_process`] is no server.
const SERVER: &str = "RAFT_TEST_GROUPS_SERVER";

#[allow(clippy::disallowed_methods, reason = "real processes take real time")]
fn now() -> Instant {
    Instant::now()
}

fn wait(time: Duration) {
    let start = now();
    while let Some(left) = time.checked_sub(start.elapsed()) {
        thread::park_timeout(left);
    }
}

// ---- in the process of a server ----

/// Keeps all that was ever applied, shared with the process's main thread.
struct Kept {
    group: GroupId,
    items: Arc<Mutex<Vec<u64>>>,
    completions: Sender<(GroupId, Completion)>,
}

struct Written(Vec<u8>);

impl StateMachine for Kept {
    fn apply(&mut self, batch: &mut ApplyBatch<'_>) -> Result<(), ApplyFailure> {
        let items = batch.entries().map(|entry| number(&entry.data[..8])).collect::<Vec<_>>();
        self.items.lock().unwrap().extend(items);
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Box<dyn SnapshotSource>, String> {
        let items = self.items.lock().unwrap();
        Ok(Box::new(Written(items.iter().flat_map(|item| item.to_le_bytes()).collect())))
    }

    fn restore(&mut self, snapshot: &mut SnapshotReader) -> Result<(), String> {
        let mut bytes = Vec::new();
        snapshot.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        *self.items.lock().unwrap() = bytes.chunks_exact(8).map(number).collect();
        Ok(())
    }

    fn completed(&mut self, completions: &[Completion]) {
        for completion in completions {
            let _ = self.completions.send((self.group, completion.clone()));
        }
    }
}

impl SnapshotSource for Written {
    fn write(&mut self, buffer: &mut [u8]) -> Result<SnapshotStep, String> {
        let bytes = buffer.len().min(self.0.len());
        buffer[..bytes].copy_from_slice(&self.0[..bytes]);
        self.0.drain(..bytes);
        Ok(SnapshotStep { bytes, is_last: self.0.is_empty() })
    }
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap())
}

/// All groups of a process.
struct Hosted {
    groups: BTreeMap<GroupId, Group>,
    items: BTreeMap<GroupId, Arc<Mutex<Vec<u64>>>>,
    completions: Receiver<(GroupId, Completion)>,
}

impl Hosted {
    fn start(server: &Server, count: u64, members: &[MemberArgument]) -> Self {
        let (sender, completions) = channel();
        let (mut groups, mut items) = (BTreeMap::new(), BTreeMap::new());
        for group in (1..=count).map(GroupId) {
            let kept: Arc<Mutex<Vec<u64>>> = Arc::default();
            let machine = Kept { group, items: kept.clone(), completions: sender.clone() };
            let how = StartHow::Bootstrap { members: members.to_vec(), settings: GroupSettings::default() };
            groups.insert(group, server.start_group(group, Box::new(machine), how).unwrap());
            items.insert(group, kept);
        }
        Self { groups, items, completions }
    }

    /// Proposes this in each of these groups until it is applied.
    fn propose(&self, item: u64, data_bytes: usize, groups: impl Iterator<Item = GroupId>) {
        let mut data = vec![0; data_bytes.max(8)];
        data[..8].copy_from_slice(&item.to_le_bytes());
        let data = Bytes::from(data);
        let mut fresh: Vec<GroupId> = groups.collect();
        let mut waiting = 0;
        let start = now();
        while !fresh.is_empty() || waiting > 0 {
            assert!(start.elapsed() < BOUND, "{} groups are not through, {fresh:?} not taken", fresh.len() + waiting);
            let mut refused = Vec::new();
            for group in fresh.drain(..) {
                match self.groups[&group].propose(vec![Item { tag: item, data: data.clone(), session: None }]) {
                    Ok(()) => waiting += 1,
                    Err(_) => refused.push(group),
                }
            }
            let mut patience = Duration::from_millis(20);
            while let Ok((group, completion)) = self.completions.recv_timeout(patience) {
                waiting -= 1;
                if completion.outcome != Outcome::Applied {
                    refused.push(group);
                } else if waiting == 0 {
                    patience = Duration::ZERO;
                }
            }
            fresh = refused;
        }
    }

    fn leads(&self) -> usize {
        let leads = |group: &&Group| group.status().is_some_and(|status| status.role == Role::Leader);
        self.groups.values().filter(leads).count()
    }

    /// In how many groups everything from 1 through `last` was applied here.
    fn holds(&self, last: u64) -> usize {
        let has_all = |items: &&Arc<Mutex<Vec<u64>>>| {
            let items = items.lock().unwrap();
            (1..=last).all(|item| items.contains(&item))
        };
        self.items.values().filter(has_all).count()
    }
}

/// What the process has used of the processor, in milliseconds, and its resident memory in KiB.
fn usage() -> (u64, u64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    (ticks * 10, resident.split_whitespace().next().unwrap().parse().unwrap())
}

/// A server, where the environment says so; else nothing.
#[test]
fn server_process() {
    let Ok(arguments) = std::env::var(SERVER) else { return };
    let mut arguments = arguments.split(' ');
    let mut argument = || arguments.next().unwrap();
    let (id, count) = (argument().parse().unwrap(), argument().parse().unwrap());
    let mut config = Config::new("groups", id, argument(), argument().to_owned());
    for (key, value) in [("segment_bytes", "4194304"), ("log_bytes", "33554432")] {
        config.set(key, value).unwrap();
    }
    let server = Server::open(config).unwrap();
    println!("\n> {}", server.status().listen);
    let mut lines = std::io::stdin().lines().map(Result::unwrap);
    let members: Vec<_> = lines
        .next()
        .unwrap()
        .split(' ')
        .zip(1..)
        .map(|(address, id)| MemberArgument::new(ServerId(id), address))
        .collect();
    let hosted = Hosted::start(&server, count, &members);
    println!("\n> started");
    for line in lines {
        let mut words = line.split(' ');
        let word = words.next().unwrap();
        let mut number = || words.next().map_or(0, |word| word.parse::<u64>().unwrap());
        let answer = match word {
            "propose" => {
                hosted.propose(number(), 8, (1..=count).map(GroupId));
                0
            }
            // So many items of so many bytes to group 1.
            "busy" => {
                let (items, bytes) = (number(), number());
                (0..items).for_each(|_| hosted.propose(1, bytes as usize, std::iter::once(GroupId(1))));
                0
            }
            "leads" => hosted.leads() as u64,
            "holds" => hosted.holds(number()) as u64,
            "logbytes" => server.status().engine.log_bytes,
            "processor" => usage().0,
            "memory" => usage().1,
            other => panic!("{other} means nothing here"),
        };
        println!("\n> {answer}");
    }
    server.close().unwrap();
}

// ---- in the test ----

/// One server's process.
struct Process {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(id: u64, groups: u64, directory: &Path, listen: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "server_process", "--nocapture"])
            .env(SERVER, format!("{id} {groups} {} {listen}", directory.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()).lines());
        Self { child, input, output }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    fn answer(&mut self) -> String {
        self.output.find_map(|line| line.unwrap().strip_prefix("> ").map(str::to_owned)).expect("the process lives")
    }

    fn ask(&mut self, line: &str) -> u64 {
        self.tell(line);
        self.answer().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Three servers that host the same groups.
struct Cluster {
    groups: u64,
    root: tempfile::TempDir,
    addresses: Vec<String>,
    processes: Vec<Process>,
}

impl Cluster {
    fn new(groups: u64) -> Self {
        let root = tempfile::tempdir_in(PathBuf::from(env!("CARGO_TARGET_TMPDIR"))).unwrap();
        let start = |id: u64| Process::start(id, groups, &root.path().join(id.to_string()), "127.0.0.1:0");
        let mut processes: Vec<_> = (1..=3).map(start).collect();
        let addresses: Vec<String> = processes.iter_mut().map(Process::answer).collect();
        let mut cluster = Self { groups, root, addresses, processes };
        (0..3).for_each(|at| cluster.tell_members(at));
        cluster.processes.iter_mut().for_each(|process| assert_eq!(process.answer(), "started"));
        cluster
    }

    fn tell_members(&mut self, at: usize) {
        let members = self.addresses.join(" ");
        self.processes[at].tell(&members);
    }

    /// Ends a server with SIGKILL.
    fn kill(&mut self, at: usize) {
        self.processes[at].child.kill().unwrap();
        self.processes[at].child.wait().unwrap();
    }

    fn restart(&mut self, at: usize) {
        let directory = self.root.path().join((at + 1).to_string());
        self.processes[at] = Process::start(at as u64 + 1, self.groups, &directory, &self.addresses[at]);
        assert_eq!(self.processes[at].answer(), self.addresses[at]);
        self.tell_members(at);
        assert_eq!(self.processes[at].answer(), "started");
    }

    /// Waits until a server holds all items through `last` in every group.
    fn until_holds(&mut self, at: usize, last: u64) {
        let start = now();
        loop {
            let holds = self.processes[at].ask(&format!("holds {last}"));
            if holds == self.groups {
                return;
            }
            assert!(start.elapsed() < BOUND, "server {at} holds everything in {holds} groups only");
            wait(Duration::from_millis(20));
        }
    }
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

/// Not a test but a measurement: `cargo test --release -p raft-engine --test groups -- --ignored --nocapture idle_costs`.
#[test]
#[ignore = "a measurement"]
fn idle_costs() {
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
