//! Servers of many groups, each a process of its own that is told what to do by lines: the very program that asks for it,
//! started again.

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

/// How long anything may take that is waited for.
pub(super) const BOUND: Duration = Duration::from_secs(60);
/// Names the process's server; without it, [`serve`] does nothing.
const SERVER: &str = "RAFT_TEST_GROUPS_SERVER";

#[allow(clippy::disallowed_methods, reason = "real processes take real time")]
pub(super) fn now() -> Instant {
    Instant::now()
}

pub(super) fn wait(time: Duration) {
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

/// A server, where the environment says so; else nothing. Says whether it was one.
pub(super) fn serve() -> bool {
    let Ok(arguments) = std::env::var(SERVER) else { return false };
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
    true
}

// ---- in the process that asks ----

/// One server's process.
pub(super) struct Process {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub(super) fn start(id: u64, groups: u64, directory: &Path, listen: &str) -> Self {
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

    pub(super) fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    pub(super) fn answer(&mut self) -> String {
        self.output.find_map(|line| line.unwrap().strip_prefix("> ").map(str::to_owned)).expect("the process lives")
    }

    pub(super) fn ask(&mut self, line: &str) -> u64 {
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
pub(super) struct Cluster {
    pub(super) groups: u64,
    pub(super) root: tempfile::TempDir,
    pub(super) addresses: Vec<String>,
    pub(super) processes: Vec<Process>,
}

impl Cluster {
    pub(super) fn new(groups: u64) -> Self {
        let root = tempfile::tempdir_in(PathBuf::from(env!("CARGO_TARGET_TMPDIR"))).unwrap();
        let start = |id: u64| Process::start(id, groups, &root.path().join(id.to_string()), "127.0.0.1:0");
        let mut processes: Vec<_> = (1..=3).map(start).collect();
        let addresses: Vec<String> = processes.iter_mut().map(Process::answer).collect();
        let mut cluster = Self { groups, root, addresses, processes };
        (0..3).for_each(|at| cluster.tell_members(at));
        cluster.processes.iter_mut().for_each(|process| assert_eq!(process.answer(), "started"));
        cluster
    }

    pub(super) fn tell_members(&mut self, at: usize) {
        let members = self.addresses.join(" ");
        self.processes[at].tell(&members);
    }

    /// Ends a server with SIGKILL.
    pub(super) fn kill(&mut self, at: usize) {
        self.processes[at].child.kill().unwrap();
        self.processes[at].child.wait().unwrap();
    }

    pub(super) fn restart(&mut self, at: usize) {
        let directory = self.root.path().join((at + 1).to_string());
        self.processes[at] = Process::start(at as u64 + 1, self.groups, &directory, &self.addresses[at]);
        assert_eq!(self.processes[at].answer(), self.addresses[at]);
        self.tell_members(at);
        assert_eq!(self.processes[at].answer(), "started");
    }

    /// Waits until a server holds all items through `last` in every group.
    pub(super) fn until_holds(&mut self, at: usize, last: u64) {
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
