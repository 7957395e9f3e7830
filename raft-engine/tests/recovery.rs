//! A group that lost its quorum, on real servers: one is recovered offline, leads alone, and gets new members.

use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft_engine::server::{
    ApplyBatch, ApplyFailure, Config, Consistency, Group, GroupReport, MemberArgument, MemberChange, MemberRole,
    Notice, OfflineError, OpenError, RECOVERY_RISK, RecoveryRefusal, Role, Server, SnapshotReader, SnapshotSource,
    SnapshotStep, StartHow, StateMachine, inspect, recover_quorum,
};
use raft_engine::types::{GroupId, GroupSettings, Position, ServerId};

const BOUND: Duration = Duration::from_secs(60);
const LOST: GroupId = GroupId(1);
const OTHER: GroupId = GroupId(2);

#[allow(clippy::disallowed_methods, reason = "the bound of a wait is real time")]
fn now() -> Instant {
    Instant::now()
}

/// Waits for a condition that no lock announces.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = now();
    while !condition() {
        assert!(start.elapsed() < BOUND, "not in time: {what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

/// What a state machine has seen.
#[derive(Default)]
struct Seen {
    state: Mutex<(Vec<String>, Vec<Notice>)>,
    changed: Condvar,
}

impl Seen {
    fn change(&self, change: impl FnOnce(&mut (Vec<String>, Vec<Notice>))) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    fn wait_for_items(&self, items: &[String]) {
        let state = self.state.lock().unwrap();
        let is_short = |state: &mut (Vec<String>, Vec<Notice>)| state.0.len() < items.len();
        let (state, timeout) = self.changed.wait_timeout_while(state, BOUND, is_short).unwrap();
        assert!(!timeout.timed_out(), "{} of {}; {:?}", state.0.len(), items.len(), state.1);
        assert_eq!(state.0, items);
    }

    /// Waits until the host was told of a refusal of this peer with this in it.
    fn wait_for_refusal(&self, by: u64, text: &str) {
        let is_missing = |state: &mut (Vec<String>, Vec<Notice>)| {
            !state.1.iter().any(|notice| {
                matches!(notice, Notice::Refused { peer, reason, .. }
                    if *peer == Some(ServerId(by)) && reason.contains(text))
            })
        };
        let state = self.state.lock().unwrap();
        let (state, timeout) = self.changed.wait_timeout_while(state, BOUND, is_missing).unwrap();
        assert!(!timeout.timed_out(), "no refusal of {by} with \"{text}\": {:?}", state.1);
    }
}

/// Keeps every command.
struct List {
    items: Vec<String>,
    seen: Arc<Seen>,
}

impl List {
    fn show(&self) {
        self.seen.change(|state| state.0.clone_from(&self.items));
    }
}

impl StateMachine for List {
    fn apply(&mut self, batch: &mut ApplyBatch<'_>) -> Result<(), ApplyFailure> {
        self.items.extend(batch.entries().map(|entry| String::from_utf8_lossy(entry.data).into_owned()));
        self.show();
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Box<dyn SnapshotSource>, String> {
        Ok(Box::new(ListSnapshot(self.items.join("\n").into_bytes())))
    }

    fn restore(&mut self, snapshot: &mut SnapshotReader) -> Result<(), String> {
        let mut text = String::new();
        snapshot.read_to_string(&mut text).map_err(|error| error.to_string())?;
        self.items = text.lines().map(str::to_owned).collect();
        self.show();
        Ok(())
    }

    fn notice(&mut self, notice: &Notice) {
        self.seen.change(|state| state.1.push(notice.clone()));
    }
}

struct ListSnapshot(Vec<u8>);

impl SnapshotSource for ListSnapshot {
    fn write(&mut self, buffer: &mut [u8]) -> Result<SnapshotStep, String> {
        let bytes = buffer.len().min(self.0.len());
        buffer[..bytes].copy_from_slice(&self.0[..bytes]);
        self.0.drain(..bytes);
        Ok(SnapshotStep { bytes, is_last: self.0.is_empty() })
    }
}

/// An open server, and its groups.
type Running = (Server, Vec<(Arc<Seen>, Group)>);

/// One server of the test.
struct Node {
    id: u64,
    directory: PathBuf,
    address: String,
    running: Option<Running>,
}

impl Node {
    fn new(root: &tempfile::TempDir, id: u64) -> Self {
        let mut node =
            Self { id, directory: root.path().join(id.to_string()), address: "127.0.0.1:0".into(), running: None };
        node.open();
        node
    }

    fn open(&mut self) {
        let mut config = Config::new("test", self.id, &self.directory, &self.address);
        config.set("segment_bytes", "1048576").unwrap();
        config.set("log_bytes", "8388608").unwrap();
        let server = Server::open(config).unwrap();
        self.address = server.status().listen.to_string();
        self.running = Some((server, Vec::new()));
    }

    fn start(&mut self, group: GroupId, how: StartHow) {
        let (server, groups) = self.running.as_mut().unwrap();
        let seen = Arc::<Seen>::default();
        let machine = Box::new(List { items: Vec::new(), seen: seen.clone() });
        groups.push((seen, server.start_group(group, machine, how).unwrap()));
    }

    fn stop(&mut self) {
        if let Some((server, _)) = self.running.take() {
            server.close().unwrap();
        }
    }

    fn seen(&self, group: GroupId) -> &Seen {
        &self.groups().iter().find(|(_, it)| it.id() == group).unwrap().0
    }

    fn group(&self, group: GroupId) -> &Group {
        &self.groups().iter().find(|(_, it)| it.id() == group).unwrap().1
    }

    fn groups(&self) -> &[(Arc<Seen>, Group)] {
        &self.running.as_ref().unwrap().1
    }

    fn leads(&self, group: GroupId) -> bool {
        self.running.is_some() && self.group(group).status().is_some_and(|status| status.role == Role::Leader)
    }

    fn inspect(&self, group: GroupId) -> GroupReport {
        let report = inspect(&self.directory).unwrap();
        assert_eq!(report.server, ServerId(self.id));
        report.groups.into_iter().find(|found| found.group == group).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Proposes through whoever leads until it is applied.
fn propose(nodes: &[Node], group: GroupId, items: &mut Vec<String>, count: usize) {
    for _ in 0..count {
        let item = format!("item {}", items.len());
        let start = now();
        loop {
            until("a leader", || nodes.iter().any(|node| node.leads(group)));
            let Some(leader) = nodes.iter().find(|node| node.leads(group)) else { continue };
            match leader.group(group).propose_wait(Bytes::from(item.clone()), BOUND) {
                Ok(_) => break,
                Err(error) => assert!(error.is_retriable() && start.elapsed() < BOUND, "{error}"),
            }
        }
        items.push(item);
    }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, OfflineError>) -> RecoveryRefusal {
    match result {
        Err(OfflineError::Refused { refusal, .. }) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_server_that_is_left_goes_on_alone_and_gets_new_members() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut nodes: Vec<_> = (1..=3).map(|id| Node::new(&root, id)).collect();
    let members: Vec<_> = nodes.iter().map(|node| MemberArgument::new(ServerId(node.id), &node.address)).collect();
    let bootstrap = || StartHow::Bootstrap { members: members.clone(), settings: GroupSettings::default() };
    for node in &mut nodes {
        node.start(LOST, bootstrap());
        node.start(OTHER, bootstrap());
    }
    let (mut items, mut others) = (Vec::new(), Vec::new());
    propose(&nodes, LOST, &mut items, 20);
    propose(&nodes, OTHER, &mut others, 5);
    nodes.iter().for_each(|node| node.seen(LOST).wait_for_items(&items));
    // The one that will be left has a snapshot of the old group: new servers get it, and what is behind it.
    nodes[2].group(LOST).snapshot(BOUND).unwrap();
    propose(&nodes, LOST, &mut items, 10);
    nodes.iter().for_each(|node| node.seen(LOST).wait_for_items(&items));

    let given = Position { term: 1, index: 1 };
    for result in
        [inspect(&nodes[2].directory).map(drop), recover_quorum(&nodes[2].directory, "test", 3, LOST, given).map(drop)]
    {
        assert!(matches!(result, Err(OfflineError::Directory(OpenError::Locked { .. }))), "{result:?}");
    }
    nodes.iter_mut().for_each(Node::stop);

    let before = nodes[2].inspect(LOST);
    assert!(nodes[..2].iter().all(|node| before.last.index >= node.inspect(LOST).commit) && !before.is_recovered);
    assert_eq!(before.configuration.voters().count(), 3);
    assert!(before.snapshot.index > 20, "{before:?}");
    let other = nodes[2].inspect(OTHER);
    let directory = nodes[2].directory.clone();
    let refused = refusal(recover_quorum(&directory, "test", 3, LOST, given));
    assert!(matches!(refused, RecoveryRefusal::OtherPosition { found, .. } if found == before.last), "{refused}");
    let done = recover_quorum(&directory, "test", 3, LOST, before.last).unwrap();
    assert_eq!((done.recovery.kept, done.recovery.former_lineage), (before.last, before.lineage));
    let again = refusal(recover_quorum(&directory, "test", 3, LOST, done.position));
    assert!(matches!(again, RecoveryRefusal::OnlyVoter { is_recovered: true, .. }), "{again}");
    let after = nodes[2].inspect(LOST);
    assert_eq!((after.last, after.lineage), (done.position, done.lineage));
    assert_eq!(nodes[2].inspect(OTHER), other, "another group of the server is left alone");

    // It leads alone, with everything that was acknowledged, also where it is started as it always was.
    nodes[2].open();
    nodes[2].start(LOST, bootstrap());
    nodes[2].start(OTHER, bootstrap());
    propose(&nodes[2..], LOST, &mut items, 10);
    nodes[2].seen(LOST).wait_for_items(&items);
    assert!(nodes[2].group(LOST).read(Consistency::Linearizable, BOUND).unwrap() > done.position.index);
    let term = nodes[2].group(LOST).status().unwrap().term;
    assert_eq!(term, done.position.term + 1);

    // Old ones that come back are told what they are; they go on with the other group, and take no part in this one.
    for node in &mut nodes[..2] {
        node.open();
        node.start(LOST, StartHow::Restart);
        node.start(OTHER, StartHow::Restart);
    }
    for old in &nodes[..2] {
        old.seen(LOST).wait_for_refusal(3, "can come back only as a new server");
        nodes[2].seen(LOST).wait_for_refusal(old.id, "before it was recovered from the loss of its quorum");
    }
    propose(&nodes, OTHER, &mut others, 5);
    nodes.iter().for_each(|node| node.seen(OTHER).wait_for_items(&others));
    nodes[..2].iter_mut().for_each(Node::stop);
    assert!(nodes[2].leads(LOST) && nodes[2].group(LOST).status().unwrap().term == term);
    nodes.drain(..2);

    // New servers, under ids that were never used.
    for id in [4, 5] {
        let mut node = Node::new(&root, id);
        node.start(LOST, StartHow::Join { contacts: vec![nodes[0].address.clone()] });
        nodes.push(node);
    }
    let add = |node: &Node| MemberChange::Add {
        id: ServerId(node.id),
        role: MemberRole::Voter,
        priority: 1,
        address: node.address.clone(),
        context: Vec::new(),
    };
    let changes = nodes[1..].iter().map(add).collect();
    nodes[0].group(LOST).change_members(changes, BOUND, BOUND).unwrap();
    propose(&nodes[..1], LOST, &mut items, 10);
    nodes.iter().for_each(|node| node.seen(LOST).wait_for_items(&items));

    // The new members carry the group without the one that they came from, and after a restart.
    nodes[0].stop();
    propose(&nodes[1..], LOST, &mut items, 5);
    for node in &mut nodes[1..] {
        node.stop();
        node.open();
        node.start(LOST, StartHow::Restart);
    }
    propose(&nodes[1..], LOST, &mut items, 5);
    nodes[1..].iter().for_each(|node| node.seen(LOST).wait_for_items(&items));
    nodes[1..].iter_mut().for_each(Node::stop);
    assert_eq!(nodes[1].inspect(LOST).lineage, done.lineage);
    assert!(RECOVERY_RISK.contains("LOST"));
}

#[test]
fn a_directory_that_is_no_servers_is_not_made_into_one() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    assert_eq!(refusal(inspect(root.path())), RecoveryRefusal::NoServer);
    assert_eq!(root.path().read_dir().unwrap().count(), 0);
    let missing = root.path().join("missing");
    assert!(matches!(inspect(&missing), Err(OfflineError::Directory(OpenError::Directory { .. }))));
    assert!(!missing.exists());
}
