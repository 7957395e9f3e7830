//! Sessions on real servers, as a host sees them: whatever happens between a command and its retry, it is applied once and
//! answered as at first.

#![allow(missing_docs)]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft_engine::server::{
    ApplyBatch, ApplyFailure, CallError, Completion, CompletionDelivery, Config, Group, Item, MemberArgument, Outcome,
    Polled, Role, Server, Session, SessionId, SessionKey, SnapshotReader, SnapshotSource, SnapshotStep, StartHow,
    StateMachine, Unknown,
};
use raft_engine::types::{GroupId, GroupSettings, ServerId};

const BOUND: Duration = Duration::from_secs(30);
const GROUP: GroupId = GroupId(1);

#[allow(clippy::disallowed_methods, reason = "the bound of a wait is real time")]
fn now() -> Instant {
    Instant::now()
}

/// Waits for something that no lock announces.
fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(start.elapsed() < BOUND, "not in time: {what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

/// What a counter holds, shared with the test: its sum, and the index that it is at.
#[derive(Default)]
struct Shown {
    state: Mutex<(u64, u64)>,
    changed: Condvar,
    restores: AtomicUsize,
}

impl Shown {
    fn show(&self, sum: u64, index: u64) {
        *self.state.lock().unwrap() = (sum, index);
        self.changed.notify_all();
    }

    /// Waits until it is at this index; its sum then.
    fn at(&self, index: u64) -> u64 {
        let state = self.state.lock().unwrap();
        let (state, timeout) = self.changed.wait_timeout_while(state, BOUND, |state| state.1 < index).unwrap();
        assert!(!timeout.timed_out(), "not in time: index {index}, it is at {state:?}");
        state.0
    }
}

/// Adds up what it is given, and answers with the sum: to apply twice shows.
struct Counter {
    sum: u64,
    /// What it claims to have kept.
    held: (u64, u64),
    shown: Arc<Shown>,
}

impl Counter {
    fn new(shown: &Arc<Shown>) -> Box<Self> {
        Box::new(Self { sum: 0, held: (0, 0), shown: shown.clone() })
    }
}

impl StateMachine for Counter {
    fn apply(&mut self, batch: &mut ApplyBatch<'_>) -> Result<(), ApplyFailure> {
        for (position, entry) in batch.entries().enumerate() {
            let text = std::str::from_utf8(entry.data).unwrap();
            self.sum += text.parse::<u64>().unwrap();
            batch.set_result(position, self.sum.to_string().as_bytes()).unwrap();
            self.shown.show(self.sum, entry.index);
        }
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Box<dyn SnapshotSource>, String> {
        Ok(Box::new(Sum(self.sum)))
    }

    fn restore(&mut self, snapshot: &mut SnapshotReader) -> Result<(), String> {
        let mut sum = [0; 8];
        snapshot.read_exact(&mut sum).map_err(|error| error.to_string())?;
        self.sum = u64::from_le_bytes(sum);
        self.shown.restores.fetch_add(1, Ordering::Relaxed);
        self.shown.show(self.sum, snapshot.index());
        Ok(())
    }

    fn applied_index(&self) -> u64 {
        self.held.1
    }
}

struct Sum(u64);

impl SnapshotSource for Sum {
    fn write(&mut self, buffer: &mut [u8]) -> Result<SnapshotStep, String> {
        buffer[..8].copy_from_slice(&self.0.to_le_bytes());
        Ok(SnapshotStep { bytes: 8, is_last: true })
    }
}

/// A server of a test, or the place of one that is closed.
struct Node {
    directory: PathBuf,
    address: String,
    shown: Arc<Shown>,
    running: Option<(Server, Group)>,
}

impl Node {
    fn open(id: u64, directory: &Path, address: &str) -> Server {
        let mut config = Config::new("sessions", id, directory, address);
        config.set("segment_bytes", "1048576").unwrap();
        // Nothing stays in memory for a peer that was away: it needs a snapshot.
        config.set("cache_bytes", "4096").unwrap();
        config.completions = CompletionDelivery::Poll;
        Server::open(config).unwrap()
    }

    fn group(&self) -> &Group {
        &self.running.as_ref().unwrap().1
    }

    fn close(&mut self) {
        if let Some((server, _)) = self.running.take() {
            server.close().unwrap();
        }
    }

    /// Opens it again, with a state machine that kept what it held, or nothing.
    fn reopen(&mut self, id: u64, held: (u64, u64)) {
        self.close();
        self.shown = Arc::default();
        self.shown.show(held.0, held.1);
        let server = Self::open(id, &self.directory, &self.address);
        let machine = Box::new(Counter { sum: held.0, held, shown: self.shown.clone() });
        let group = server.start_group(GROUP, machine, StartHow::Restart).unwrap();
        self.running = Some((server, group));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.close();
    }
}

fn cluster(root: &Path, count: u64, settings: &GroupSettings) -> Vec<Node> {
    let servers: Vec<_> = (1..=count)
        .map(|id| {
            let directory = root.join(id.to_string());
            (Node::open(id, &directory, "127.0.0.1:0"), directory)
        })
        .collect();
    let members: Vec<_> = (1..)
        .zip(&servers)
        .map(|(id, (server, _))| MemberArgument::new(ServerId(id), server.status().listen.to_string()))
        .collect();
    let start = |(server, directory): (Server, PathBuf)| {
        let shown = Arc::default();
        let how = StartHow::Bootstrap { members: members.clone(), settings: settings.clone() };
        let group = server.start_group(GROUP, Counter::new(&shown), how).unwrap();
        Node { directory, address: server.status().listen.to_string(), shown, running: Some((server, group)) }
    };
    servers.into_iter().map(start).collect()
}

/// The place of the server that leads.
fn leader(nodes: &[Node]) -> usize {
    until("a leader", || {
        nodes.iter().position(|node| {
            let status = node.running.as_ref().and_then(|(_, group)| group.status());
            status.is_some_and(|status| status.role == Role::Leader && status.commit == status.last)
        })
    })
}

/// Does something at whoever leads, until it is neither refused nor unknown for want of a leader.
fn at_leader<T>(nodes: &[Node], mut call: impl FnMut(&Group) -> Result<T, CallError>) -> Result<T, CallError> {
    until("an answer of a leader", || match call(nodes[leader(nodes)].group()) {
        Err(CallError::Unknown(Unknown::LeadershipLost)) => None,
        Err(error) if error.is_retriable() => None,
        answer => Some(answer),
    })
}

/// Adds within a session; the sum that the first try answered.
fn add(nodes: &[Node], key: SessionKey, number: u64) -> Result<u64, CallError> {
    let data = Bytes::from(number.to_string());
    let applied = at_leader(nodes, |group| group.propose_in_session(key, data.clone(), BOUND))?;
    Ok(std::str::from_utf8(&applied.result).unwrap().parse().unwrap())
}

#[test]
fn a_retry_anywhere_is_applied_once_and_answered_as_at_first() {
    let root = tempfile::tempdir().unwrap();
    let mut nodes = cluster(root.path(), 3, &GroupSettings::default());
    let mut session = at_leader(&nodes, |group| group.open_session(BOUND)).unwrap();
    let (first, second) = (session.next_key(), session.next_key());
    assert_eq!((add(&nodes, first, 5), add(&nodes, second, 7)), (Ok(5), Ok(12)));
    assert_eq!(add(&nodes, first, 5), Ok(5), "at the same leader");

    // At another leader, which learned of the command as a follower.
    let old = leader(&nodes);
    nodes[old].close();
    assert_eq!((add(&nodes, first, 5), add(&nodes, second, 7)), (Ok(5), Ok(12)));

    // The others go on without it, and compact their logs: it gets a snapshot, with the sessions in it.
    let third = session.next_key();
    assert_eq!(add(&nodes, third, 1), Ok(13));
    let filler = Bytes::from("0".repeat(4000));
    for _ in 0..300 {
        at_leader(&nodes, |group| group.propose_wait(filler.clone(), BOUND)).unwrap();
    }
    for node in nodes.iter().filter(|node| node.running.is_some()) {
        until("a snapshot", || node.group().snapshot(BOUND).ok());
    }
    let last = at_leader(&nodes, |group| group.propose_wait("0".into(), BOUND)).unwrap().index;
    nodes[old].reopen(old as u64 + 1, (0, 0));
    assert_eq!(nodes[old].shown.at(last), 13);
    assert_eq!(nodes[old].shown.restores.load(Ordering::Relaxed), 1);

    // It leads, with what the snapshot told it.
    let other = leader(&nodes);
    let to = Some(ServerId(old as u64 + 1));
    if other != old {
        until("a hand-over", || nodes[other].group().transfer_leadership(to, BOUND, BOUND).ok());
    }
    assert_eq!(leader(&nodes), old);
    assert_eq!((add(&nodes, first, 5), add(&nodes, third, 1)), (Ok(5), Ok(13)));

    // All of them start again, from their own snapshots and logs.
    for (id, node) in (1..).zip(&mut nodes) {
        node.reopen(id, (0, 0));
    }
    assert_eq!((add(&nodes, second, 7), add(&nodes, session.next_key(), 1)), (Ok(12), Ok(14)));

    session.answered(third.sequence);
    assert_eq!(add(&nodes, session.next_key(), 0), Ok(14));
    assert_eq!(add(&nodes, first, 5), Err(CallError::Unknown(Unknown::ReplyForgotten)));
    at_leader(&nodes, |group| group.close_session(session.id, BOUND)).unwrap();
    let gone = Err(CallError::Unknown(Unknown::SessionExpired));
    assert_eq!(add(&nodes, session.next_key(), 5), gone);
    assert_eq!(at_leader(&nodes, |group| group.renew_session(session.id, BOUND)), gone.map(drop));
    let last = at_leader(&nodes, |group| group.propose_wait("0".into(), BOUND)).unwrap();
    assert!(nodes.iter().all(|node| node.shown.at(last.index) == 14));
}

#[test]
fn a_batch_may_hold_a_command_and_its_retry() {
    let root = tempfile::tempdir().unwrap();
    let nodes = cluster(root.path(), 1, &GroupSettings::default());
    let mut session = at_leader(&nodes, |group| group.open_session(BOUND)).unwrap();
    let (first, second) = (session.next_key(), session.next_key());
    let item = |tag, key, number: &'static str| Item { tag, data: number.into(), session: key };
    let items = vec![
        item(1, Some(first), "3"),
        item(2, None, "10"),
        item(3, Some(first), "3"),
        item(4, Some(second), "4"),
        item(5, Some(first), "3"),
        item(6, Some(SessionKey { session: SessionId(999), ..first }), "3"),
    ];
    let group = nodes[0].group();
    group.propose(items).unwrap();
    let mut completions: Vec<Completion> = Vec::new();
    until("all completions", || {
        assert!(matches!(group.poll(&mut completions, 100), Polled::Completions(_)));
        (completions.len() == 6).then_some(())
    });
    let results: Vec<_> = completions.iter().map(|it| (it.tag, std::str::from_utf8(&it.result).unwrap())).collect();
    assert_eq!(results, [(1, "3"), (2, "13"), (3, "3"), (4, "17"), (5, "3"), (6, "")]);
    assert_eq!((completions[2].index, completions[4].index), (completions[0].index, completions[0].index));
    assert_eq!(completions[5].outcome, Outcome::Unknown(Unknown::SessionExpired));
    group.open_session_submit(7).unwrap();
    group.renew_session_submit(8, session.id).unwrap();
    group.close_session_submit(9, session.id).unwrap();
    until("three more", || {
        group.poll(&mut completions, 100);
        (completions.len() == 9).then_some(())
    });
    assert!(completions[6..].iter().all(|it| it.outcome == Outcome::Applied));
    let mut other = Session::new(SessionId(completions[6].index));
    assert_eq!(add(&nodes, other.next_key(), 1), Ok(18));
}

#[test]
fn a_session_that_nobody_uses_expires_and_too_many_end_the_oldest() {
    let root = tempfile::tempdir().unwrap();
    let short = GroupSettings { session_expiry: Duration::from_nanos(1), ..GroupSettings::default() };
    let nodes = cluster(root.path(), 1, &short);
    let mut session = at_leader(&nodes, |group| group.open_session(BOUND)).unwrap();
    // Log time is the leader's clock at each proposal: more than a nanosecond passes.
    assert_eq!(add(&nodes, session.next_key(), 1), Err(CallError::Unknown(Unknown::SessionExpired)));

    let few = GroupSettings { max_sessions: 1, ..GroupSettings::default() };
    let root = tempfile::tempdir().unwrap();
    let nodes = cluster(root.path(), 1, &few);
    let mut first = at_leader(&nodes, |group| group.open_session(BOUND)).unwrap();
    let mut second = at_leader(&nodes, |group| group.open_session(BOUND)).unwrap();
    assert_eq!(add(&nodes, first.next_key(), 1), Err(CallError::Unknown(Unknown::SessionExpired)));
    assert_eq!(add(&nodes, second.next_key(), 1), Ok(1));
}

#[test]
fn a_host_that_kept_its_state_applies_nothing_again_though_it_cannot_repeat_what_it_said() {
    let root = tempfile::tempdir().unwrap();
    let mut nodes = cluster(root.path(), 1, &GroupSettings::default());
    let mut session = at_leader(&nodes, |group| group.open_session(BOUND)).unwrap();
    let (before, after) = (session.next_key(), session.next_key());
    assert_eq!(add(&nodes, before, 5), Ok(5));
    let held = nodes[0].shown.state.lock().unwrap().to_owned();
    assert_eq!(add(&nodes, after, 2), Ok(7));
    for has_snapshot in [false, true] {
        if has_snapshot {
            at_leader(&nodes, |group| group.snapshot(BOUND)).unwrap();
        }
        // It holds the first command, or what the snapshot holds, and is given what comes after.
        let held = if has_snapshot { nodes[0].shown.state.lock().unwrap().to_owned() } else { held };
        nodes[0].reopen(1, held);
        assert_eq!(add(&nodes, after, 2), Ok(7));
        assert_eq!(add(&nodes, before, 5), Err(CallError::Unknown(Unknown::ReplyForgotten)));
    }
    assert_eq!(add(&nodes, session.next_key(), 1), Ok(8));
}
