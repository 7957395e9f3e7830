//! Whole servers in one process, over loopback and real disks: what a host sees.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft_engine::server::{
    ApplyBatch, ApplyFailure, CallError, CloseError, Completion, CompletionDelivery, Config, Consistency, Dispatch,
    DispatchError, Group, Item, MemberArgument, NotApplied, Notice, OpenError, Outcome, Polled, Refused, Role, Server,
    SnapshotReader, SnapshotSource, SnapshotStep, StartError, StartHow, StateMachine, Unknown,
};
use raft_engine::types::{GroupId, GroupSettings, ServerId};

const BOUND: Duration = Duration::from_secs(30);
const GROUP: GroupId = GroupId(1);

fn bootstrap(members: Vec<MemberArgument>) -> StartHow {
    StartHow::Bootstrap { members, settings: GroupSettings::default() }
}

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

/// What the state machine of a test has seen, shared with the test.
#[derive(Default)]
struct Seen {
    state: Mutex<SeenState>,
    changed: Condvar,
}

#[derive(Default)]
struct SeenState {
    items: Vec<Vec<u8>>,
    completions: Vec<Completion>,
    notices: Vec<Notice>,
    restores: usize,
    snapshots: usize,
}

impl Seen {
    fn wait(&self, what: &str, mut condition: impl FnMut(&mut SeenState) -> bool) {
        let state = self.state.lock().unwrap();
        let (state, timeout) = self.changed.wait_timeout_while(state, BOUND, |state| !condition(state)).unwrap();
        assert!(!timeout.timed_out(), "not in time: {what}; {:?}", state.notices);
    }

    fn items(&self) -> Vec<Vec<u8>> {
        self.state.lock().unwrap().items.clone()
    }

    fn change(&self, change: impl FnOnce(&mut SeenState)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }
}

/// Keeps every command. A result is the number of commands so far. Fails at `fail`, panics at `panic`.
struct List {
    items: Vec<Vec<u8>>,
    seen: Arc<Seen>,
    in_callback: Callback,
}

type Callback = Box<dyn FnMut(&[Completion]) + Send>;

impl List {
    fn new(seen: &Arc<Seen>) -> Box<Self> {
        Box::new(Self { items: Vec::new(), seen: seen.clone(), in_callback: Box::new(|_| ()) })
    }
}

impl StateMachine for List {
    fn apply(&mut self, batch: &mut ApplyBatch<'_>) -> Result<(), ApplyFailure> {
        for (position, entry) in batch.entries().enumerate() {
            match entry.data {
                b"fail" => return Err(ApplyFailure { applied: position, message: "told to fail".into() }),
                b"panic" => panic!("told to panic"),
                _ => (),
            }
            self.items.push(entry.data.to_vec());
            self.seen.change(|state| state.items.push(entry.data.to_vec()));
            batch.set_result(position, &(self.items.len() as u64).to_le_bytes()).unwrap();
        }
        Ok(())
    }

    fn query(&mut self, request: &[u8], reply: &mut Vec<u8>) -> Result<(), String> {
        if request == b"bad" {
            return Err("a bad query".into());
        }
        reply.extend_from_slice(&(self.items.len() as u64).to_le_bytes());
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Box<dyn SnapshotSource>, String> {
        self.seen.change(|state| state.snapshots += 1);
        let mut bytes = Vec::new();
        for item in &self.items {
            bytes.extend_from_slice(&(item.len() as u32).to_le_bytes());
            bytes.extend_from_slice(item);
        }
        Ok(Box::new(ListSnapshot { bytes, done: 0 }))
    }

    fn restore(&mut self, snapshot: &mut SnapshotReader) -> Result<(), String> {
        let total_bytes = snapshot.total_bytes();
        let mut bytes = Vec::new();
        snapshot.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        assert_eq!(bytes.len() as u64, total_bytes);
        self.items.clear();
        let mut rest = &bytes[..];
        while let Some((length, tail)) = rest.split_first_chunk() {
            let (item, tail) = tail.split_at(u32::from_le_bytes(*length) as usize);
            self.items.push(item.to_vec());
            rest = tail;
        }
        self.seen.change(|state| {
            state.items.clone_from(&self.items);
            state.restores += 1;
        });
        Ok(())
    }

    fn completed(&mut self, completions: &[Completion]) {
        self.seen.change(|state| state.completions.extend_from_slice(completions));
        (self.in_callback)(completions);
    }

    fn notice(&mut self, notice: &Notice) {
        self.seen.change(|state| state.notices.push(notice.clone()));
    }
}

struct ListSnapshot {
    bytes: Vec<u8>,
    done: usize,
}

impl SnapshotSource for ListSnapshot {
    fn write(&mut self, buffer: &mut [u8]) -> Result<SnapshotStep, String> {
        // Small steps, so that there are several.
        let bytes = buffer.len().min(self.bytes.len() - self.done).min(10_000);
        buffer[..bytes].copy_from_slice(&self.bytes[self.done..self.done + bytes]);
        self.done += bytes;
        Ok(SnapshotStep { bytes, is_last: self.done == self.bytes.len() })
    }
}

/// One server of a test.
struct Node {
    id: u64,
    directory: PathBuf,
    address: SocketAddr,
    seen: Arc<Seen>,
    server: Option<Server>,
    group: Option<Group>,
    dispatcher: Option<thread::JoinHandle<()>>,
}

impl Node {
    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    fn group(&self) -> &Group {
        self.group.as_ref().unwrap()
    }

    fn is_leader(&self) -> bool {
        self.group.as_ref().and_then(Group::status).is_some_and(|status| status.role == Role::Leader)
    }

    /// Ends the server; whatever is not on its disk is gone.
    fn stop(&mut self) {
        self.group = None;
        if let Some(server) = self.server.take() {
            server.close().unwrap();
        }
        if let Some(dispatcher) = self.dispatcher.take() {
            dispatcher.join().unwrap();
        }
    }
}

/// Some servers of one group.
struct Cluster {
    _root: tempfile::TempDir,
    settings: Vec<(&'static str, String)>,
    dispatch: Dispatch,
    nodes: Vec<Node>,
}

impl Cluster {
    fn new(count: u64, dispatch: Dispatch, settings: &[(&'static str, &str)]) -> Self {
        let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let root = tempfile::tempdir_in(target).unwrap();
        let mut all = vec![
            ("election_timeout_ms", "300".to_owned()),
            ("segment_bytes", "1048576".to_owned()),
            ("log_bytes", "8388608".to_owned()),
        ];
        all.extend(settings.iter().map(|(key, value)| (*key, (*value).to_owned())));
        let mut cluster = Self { settings: all, dispatch, nodes: Vec::new(), _root: root };
        for id in 1..=count {
            let directory = cluster._root.path().join(id.to_string());
            let mut node = Node {
                id,
                directory,
                address: "127.0.0.1:0".parse().unwrap(),
                seen: Arc::default(),
                server: None,
                group: None,
                dispatcher: None,
            };
            cluster.open(&mut node);
            cluster.nodes.push(node);
        }
        let members = cluster.members();
        for node in &mut cluster.nodes {
            let how = bootstrap(members.clone());
            node.group = Some(node.server().start_group(GROUP, List::new(&node.seen), how).unwrap());
        }
        cluster
    }

    fn members(&self) -> Vec<MemberArgument> {
        let member = |node: &Node| MemberArgument {
            context: format!("client {}", node.id).into_bytes(),
            ..MemberArgument::new(ServerId(node.id), node.address.to_string())
        };
        self.nodes.iter().map(member).collect()
    }

    fn config(&self, node: &Node) -> Config {
        let mut config = Config::new("test", node.id, &node.directory, node.address.to_string());
        config.dispatch = self.dispatch;
        for (key, value) in &self.settings {
            config.set(key, value).unwrap();
        }
        config
    }

    fn open(&self, node: &mut Node) {
        let server = Server::open(self.config(node)).unwrap();
        node.address = server.status().listen;
        if self.dispatch == Dispatch::Host {
            let server = server.clone();
            node.dispatcher =
                Some(thread::spawn(move || while server.dispatch(16, BOUND) != Err(DispatchError::Closed) {}));
        }
        node.server = Some(server);
    }

    fn restart(&mut self, place: usize) {
        let mut node = self.nodes.remove(place);
        node.stop();
        node.seen = Arc::default();
        self.open(&mut node);
        let group = node.server().start_group(GROUP, List::new(&node.seen), StartHow::Restart).unwrap();
        node.group = Some(group);
        self.nodes.insert(place, node);
    }

    /// Waits for a leader that the running servers know of.
    fn leader(&self) -> &Node {
        let start = now();
        while !self.nodes.iter().any(Node::is_leader) {
            let seen = |node: &Node| {
                let status = node.group.as_ref().map(|group| (group.status(), node.server().status()));
                (status, node.seen.state.lock().unwrap().notices.clone())
            };
            assert!(start.elapsed() < BOUND, "no leader: {:#?}", self.nodes.iter().map(seen).collect::<Vec<_>>());
            thread::park_timeout(Duration::from_millis(2));
        }
        self.nodes.iter().find(|node| node.is_leader()).unwrap_or_else(|| self.leader())
    }

    /// Proposes through whoever leads until it is applied.
    fn propose(&self, data: &str) -> u64 {
        let start = now();
        loop {
            let leader = self.leader();
            match leader.group().propose_wait(Bytes::copy_from_slice(data.as_bytes()), BOUND) {
                Ok(applied) => return applied.index,
                Err(error) => {
                    assert!(start.elapsed() < BOUND, "{error}");
                    assert!(error.is_retriable(), "{error}");
                }
            }
        }
    }

    /// Waits until every running server has applied this.
    fn agree_on(&self, items: &[String]) {
        let items: Vec<Vec<u8>> = items.iter().map(|item| item.clone().into_bytes()).collect();
        for node in self.nodes.iter().filter(|node| node.server.is_some()) {
            node.seen.wait("equal states", |state| state.items.len() >= items.len());
            assert!(node.seen.items() == items, "server {}", node.id);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.iter_mut().for_each(Node::stop);
    }
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap())
}

/// Forms, proposes, reads, loses its leader, takes it back.
fn story(dispatch: Dispatch, backend: &str) {
    let mut cluster = Cluster::new(3, dispatch, &[("disk_backend", backend)]);
    let mut items = Vec::new();
    for at in 0..20 {
        items.push(format!("item {at}"));
        cluster.propose(&items[at]);
    }
    cluster.agree_on(&items);

    let leader = cluster.leader();
    let reply = leader.group().query(Bytes::new(), Consistency::Linearizable, BOUND).unwrap();
    assert_eq!(number(&reply), 20);
    let index = leader.group().read(Consistency::Linearizable, BOUND).unwrap();
    let follower = cluster.nodes.iter().find(|node| !node.is_leader()).unwrap();
    let reply = follower.group().query(Bytes::new(), Consistency::AtLeast(index), BOUND).unwrap();
    assert_eq!(number(&reply), 20);
    let failed = leader.group().query(Bytes::from_static(b"bad"), Consistency::Stale, BOUND);
    assert_eq!(failed, Err(CallError::NotApplied(NotApplied::Failed("a bad query".into()))));
    // A follower asks the leader, and has applied what it says is applied.
    for at in [20, 21] {
        items.push(format!("item {at}"));
        let applied = follower.group().propose_wait(Bytes::from(items[at].clone()), BOUND).unwrap();
        assert_eq!((number(&applied.result), follower.seen.items().len()), (at as u64 + 1, at + 1));
        assert!(follower.group().read(Consistency::Linearizable, BOUND).unwrap() >= applied.index);
    }
    let status = leader.group().status().unwrap();
    let context = &status.configuration.unwrap().member(ServerId(leader.id)).unwrap().context.clone();
    assert_eq!(context, format!("client {}", leader.id).as_bytes());

    let place = cluster.nodes.iter().position(Node::is_leader).unwrap();
    cluster.nodes[place].stop();
    for at in 22..40 {
        items.push(format!("item {at}"));
        cluster.propose(&items[at]);
    }
    cluster.agree_on(&items);
    cluster.restart(place);
    cluster.agree_on(&items);

    // All of them, one after the other: what was acknowledged is there.
    for place in 0..3 {
        cluster.restart(place);
    }
    items.push("last".into());
    cluster.propose("last");
    cluster.agree_on(&items);
}

#[test]
fn three_servers_agree_and_survive_their_leader_with_the_disk_on_the_loop() {
    story(Dispatch::Threaded, "auto");
}

#[test]
fn three_servers_agree_and_survive_their_leader_with_a_disk_thread() {
    story(Dispatch::Threaded, "thread");
}

#[test]
fn three_servers_agree_and_survive_their_leader_where_the_host_dispatches() {
    story(Dispatch::Host, "auto");
}

/// A server that was away so long that the log it needs is gone gets a snapshot.
fn away(dispatch: Dispatch) {
    let mut cluster = Cluster::new(3, dispatch, &[("snapshot_log_bytes", "200000"), ("cache_bytes", "100000")]);
    let mut items = vec!["first".to_owned()];
    cluster.propose("first");
    cluster.agree_on(&items);
    let away = cluster.nodes.iter().position(|node| !node.is_leader()).unwrap();
    cluster.nodes[away].stop();
    for at in 0..120 {
        let item = format!("{at}: {}", "x".repeat(10_000));
        cluster.propose(&item);
        items.push(item);
    }
    let leader = cluster.leader();
    leader.seen.wait("a snapshot by itself", |state| state.snapshots > 0);
    until("its end", || leader.group().status().unwrap().snapshot > 1);
    let snapshot = loop {
        // One that is being taken anyway makes this one busy.
        match leader.group().snapshot(BOUND) {
            Ok(index) => break index,
            Err(CallError::NotApplied(NotApplied::Busy)) => {
                let status = leader.group().status().unwrap();
                if status.snapshot == status.applied {
                    break status.snapshot;
                }
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert!(snapshot > 1);
    cluster.restart(away);
    cluster.agree_on(&items);
    // Its own snapshot, too, takes the place of its log at the next start.
    cluster.restart(away);
    cluster.agree_on(&items);
    assert!(cluster.nodes[away].seen.state.lock().unwrap().restores > 0);
}

#[test]
fn a_server_that_was_away_for_long_catches_up_by_a_snapshot() {
    away(Dispatch::Threaded);
}

#[test]
fn a_server_that_was_away_for_long_catches_up_by_a_snapshot_where_the_host_dispatches() {
    away(Dispatch::Host);
}

/// Each tag of an accepted batch has exactly one completion.
fn check_once(accepted: &[u64], completions: &[Completion]) {
    let mut count: BTreeMap<u64, usize> = accepted.iter().map(|&tag| (tag, 0)).collect();
    for completion in completions {
        *count.get_mut(&completion.tag).expect("nothing completes that was not accepted") += 1;
    }
    assert!(count.values().all(|&count| count == 1), "{count:?}");
}

fn items(first_tag: u64, count: u64) -> Vec<Item> {
    (first_tag..first_tag + count).map(|tag| Item { tag, data: Bytes::from(tag.to_string()), session: None }).collect()
}

#[test]
fn every_proposal_completes_once_also_when_the_server_closes_under_it() {
    // Small budgets, so that some are refused, some overloaded, and the flood does not drown the test.
    let budgets = [("max_entry_bytes", "4096"), ("queue_bytes", "200000"), ("uncommitted_bytes", "1000000")];
    for round in 0..4 {
        let mut cluster = Cluster::new(1, Dispatch::Threaded, &budgets);
        cluster.propose("first");
        let node = &cluster.nodes[0];
        let mut accepted = Vec::new();
        let server = node.server().clone();
        let closer = thread::spawn(move || {
            until("some work", || server.status().engine.log_writes > 4 + 10 * round);
            server.close().unwrap();
        });
        for batch in 0.. {
            match node.group().propose(items(batch * 50, 50)) {
                Ok(()) => accepted.extend(batch * 50..batch * 50 + 50),
                Err(Refused::Full { .. }) => thread::yield_now(),
                Err(error) => {
                    assert_eq!(error, Refused::Closed);
                    break;
                }
            }
        }
        closer.join().unwrap();
        let state = node.seen.state.lock().unwrap();
        check_once(&accepted, &state.completions);
        let applied: Vec<_> =
            state.completions.iter().filter(|completion| completion.outcome == Outcome::Applied).collect();
        assert!(applied.windows(2).all(|pair| pair[0].index < pair[1].index), "in log order");
        for completion in &applied {
            // The first command had result 1, and nothing else was in between.
            let position = number(&completion.result) as usize - 1;
            assert_eq!(state.items[position], completion.tag.to_string().into_bytes());
        }
        drop(state);
        assert_eq!(node.group().propose(items(1, 1)), Err(Refused::Closed));
        assert!(node.server().status().is_closed);
        node.server().close().unwrap();
        cluster.nodes[0].stop();
    }
}

#[test]
fn a_follower_that_does_not_forward_says_who_leads() {
    let cluster = Cluster::new(3, Dispatch::Threaded, &[("forwarding", "off")]);
    cluster.propose("first");
    let leader = cluster.leader();
    let follower = cluster.nodes.iter().find(|node| !node.is_leader()).unwrap();
    until("the follower knows its leader", || {
        follower.group().status().is_some_and(|status| status.leader == Some(ServerId(leader.id)))
    });
    let refused = follower.group().propose_wait(Bytes::from_static(b"no"), BOUND).unwrap_err();
    assert_eq!(refused.leader(), Some(ServerId(leader.id)));
    let refused = follower.group().read(Consistency::Linearizable, BOUND).unwrap_err();
    assert_eq!(refused.leader(), Some(ServerId(leader.id)));
}

/// The leader goes while a follower keeps forwarding: every proposal ends once, as what it says, and none is there twice.
#[test]
fn forwards_that_are_open_when_the_leader_goes_end_once_and_as_they_say() {
    let mut cluster = Cluster::new(3, Dispatch::Threaded, &[]);
    cluster.propose("first");
    let gone = cluster.nodes.iter().position(Node::is_leader).unwrap();
    let seen = cluster.nodes[(gone + 1) % 3].seen.clone();
    let group = cluster.nodes[(gone + 1) % 3].group().clone();
    until("the follower is served", || group.read(Consistency::Linearizable, BOUND).is_ok());
    let submit = {
        let seen = seen.clone();
        thread::spawn(move || {
            let mut accepted = Vec::new();
            let is_through = |state: &mut SeenState| {
                state.completions.iter().any(|end| end.outcome != Outcome::Applied)
                    && state.completions.last().is_some_and(|end| end.outcome == Outcome::Applied)
            };
            let start = now();
            while !is_through(&mut seen.state.lock().unwrap()) {
                assert!(start.elapsed() < BOUND, "not in time: forwards that were lost, and another that is applied");
                let batch = items(accepted.len() as u64, 20);
                let tags: Vec<u64> = batch.iter().map(|item| item.tag).collect();
                match group.propose(batch) {
                    Ok(()) => accepted.extend(tags),
                    Err(refused) => assert!(matches!(refused, Refused::Full { .. }), "{refused}"),
                }
                let before = accepted.len();
                seen.wait("some ends", |state| state.completions.len() + 400 >= before);
            }
            accepted
        })
    };
    seen.wait("forwards are applied", |state| state.completions.iter().any(|end| end.outcome == Outcome::Applied));
    cluster.nodes[gone].stop();
    let accepted = submit.join().unwrap();
    seen.wait("every end", |state| state.completions.len() == accepted.len());
    cluster.propose("last");
    seen.wait("the last", |state| state.items.last().is_some_and(|item| item == b"last"));
    let state = seen.state.lock().unwrap();
    check_once(&accepted, &state.completions);
    let times: BTreeMap<&[u8], usize> = state.items.iter().fold(BTreeMap::new(), |mut times, item| {
        *times.entry(item.as_slice()).or_default() += 1;
        times
    });
    for end in &state.completions {
        let times = times.get(end.tag.to_string().as_bytes()).copied().unwrap_or(0);
        match end.outcome {
            Outcome::Applied => assert_eq!(times, 1, "{end:?}"),
            Outcome::NotApplied(_) => assert_eq!(times, 0, "{end:?}"),
            _ => assert!(times <= 1, "{end:?}"),
        }
    }
}

#[test]
fn a_host_that_polls_gets_every_completion_and_then_the_end() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut config = Config::new("test", 1, root.path().join("data"), "127.0.0.1:0");
    config.dispatch = Dispatch::Host;
    config.completions = CompletionDelivery::Poll;
    config.set("segment_bytes", "1048576").unwrap();
    let server = Server::open(config).unwrap();
    let seen = Arc::default();
    let member = MemberArgument::new(ServerId(1), server.status().listen.to_string());
    let group = server.start_group(GROUP, List::new(&seen), bootstrap(vec![member])).unwrap();
    // One thread: it sleeps on the descriptor, and never in dispatch.
    let descriptor = server.descriptor();
    let mut completions = Vec::new();
    let mut accepted = Vec::new();
    let start = now();
    while completions.len() < 500 {
        assert!(start.elapsed() < BOUND, "{} completions", completions.len());
        let is_leader = group.status().is_some_and(|status| status.role == Role::Leader);
        if accepted.is_empty() && is_leader {
            group.propose(items(0, 500)).unwrap();
            accepted.extend(0..500);
        }
        let mut polled = [rustix::event::PollFd::new(&descriptor, rustix::event::PollFlags::IN)];
        let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        if rustix::event::poll(&mut polled, Some(&wait)).unwrap() == 0 {
            continue;
        }
        server.dispatch(1, Duration::ZERO).unwrap();
        group.poll(&mut completions, 64);
    }
    group.propose(items(500, 100)).unwrap();
    accepted.extend(500..600);
    server.close().unwrap();
    assert_eq!(server.dispatch(1, Duration::ZERO), Err(DispatchError::Closed));
    while group.poll(&mut completions, 64) != Polled::End {}
    check_once(&accepted, &completions);
    assert!(completions[..500].iter().all(|completion| completion.outcome == Outcome::Applied));
    for completion in &completions[500..] {
        let is_closed = matches!(
            completion.outcome,
            Outcome::Applied | Outcome::Unknown(Unknown::Closed) | Outcome::NotApplied(NotApplied::Closed)
        );
        assert!(is_closed, "{completion:?}");
    }
}

#[test]
fn a_failing_or_panicking_state_machine_stops_its_group_and_nothing_else() {
    for (command, reason) in [("fail", "told to fail"), ("panic", "told to panic")] {
        let cluster = Cluster::new(1, Dispatch::Threaded, &[]);
        cluster.propose("good");
        let node = &cluster.nodes[0];
        let error = node.group().propose_wait(Bytes::from(command), BOUND).unwrap_err();
        assert_eq!(error, CallError::Unknown(Unknown::Stopped));
        node.seen.wait("a notice of the stop", |state| {
            state.notices.iter().any(|notice| matches!(notice, Notice::GroupStopped { .. }))
        });
        until("the reason", || node.group().status().unwrap().stopped.is_some_and(|stopped| stopped.contains(reason)));
        let status = node.group().status().unwrap();
        assert!(status.stopped.unwrap().contains(&format!("entry {}", status.applied + 1)));
        assert_eq!(node.seen.items(), [b"good"]);
        let refused = node.group().propose_wait(Bytes::from("more"), BOUND).unwrap_err();
        assert_eq!(refused, CallError::NotApplied(NotApplied::Closed));
        assert!(node.group().query(Bytes::new(), Consistency::Stale, BOUND).is_err());
        assert_eq!(node.server().status().engine.stopped, None);
    }
}

#[test]
fn from_a_callback_proposing_works_and_waiting_is_refused() {
    let mut cluster = Cluster::new(1, Dispatch::Threaded, &[]);
    cluster.propose("first");
    cluster.nodes[0].stop();
    let mut node = cluster.nodes.remove(0);
    cluster.open(&mut node);
    let handles: Arc<Mutex<Option<(Server, Group)>>> = Arc::default();
    let mut machine = List::new(&node.seen);
    let for_callback = handles.clone();
    machine.in_callback = Box::new(move |completions| {
        let handles = for_callback.lock().unwrap();
        let Some((server, group)) = &*handles else { return };
        if completions[0].tag == 1 {
            assert_eq!(server.close(), Err(CloseError::InCallback));
            assert_eq!(server.dispatch(1, BOUND), Err(DispatchError::Threaded));
            let waited = group.propose_wait(Bytes::from("waits"), BOUND);
            assert_eq!(waited, Err(CallError::Refused(Refused::InCallback)));
            group.propose(vec![Item { tag: 2, data: Bytes::from("again"), session: None }]).unwrap();
        }
    });
    let group = node.server().start_group(GROUP, machine, StartHow::Restart).unwrap();
    *handles.lock().unwrap() = Some((node.server().clone(), group.clone()));
    until("a leader", || group.status().is_some_and(|status| status.role == Role::Leader));
    group.propose(items(1, 1)).unwrap();
    node.seen.wait("both completions", |state| state.completions.iter().map(|completion| completion.tag).eq([1, 2]));
    handles.lock().unwrap().take();
    node.stop();
}

#[test]
fn the_last_handle_dropped_in_a_callback_closes_the_server() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut config = Config::new("test", 1, root.path().join("data"), "127.0.0.1:0");
    config.set("segment_bytes", "1048576").unwrap();
    let server = Server::open(config.clone()).unwrap();
    let seen = Arc::default();
    let held: Arc<Mutex<Option<Server>>> = Arc::default();
    let mut machine = List::new(&seen);
    let for_callback = held.clone();
    machine.in_callback = Box::new(move |_| drop(for_callback.lock().unwrap().take()));
    let member = MemberArgument::new(ServerId(1), server.status().listen.to_string());
    let group = server.start_group(GROUP, machine, bootstrap(vec![member])).unwrap();
    *held.lock().unwrap() = Some(server);
    until("a leader", || group.status().is_some_and(|status| status.role == Role::Leader));
    group.propose(items(1, 1)).unwrap();
    until("its end", || group.propose(items(2, 1)) == Err(Refused::Closed));
    // The directory is free again.
    until("the lock", || !matches!(Server::open(config.clone()), Err(OpenError::Locked { .. })));
}

#[test]
fn what_cannot_start_says_why() {
    let mut cluster = Cluster::new(1, Dispatch::Threaded, &[]);
    cluster.propose("first");
    let node = &cluster.nodes[0];
    let seen = Arc::default();
    let again = node.server().start_group(GROUP, List::new(&seen), StartHow::Restart);
    assert_eq!(again.err(), Some(StartError::AlreadyStarted(GROUP)));
    let other = node.server().start_group(GroupId(2), List::new(&seen), StartHow::Restart);
    assert!(matches!(other.err(), Some(StartError::Stopped { group: GroupId(2), .. })));
    let locked = Server::open(cluster.config(node)).err();
    assert!(matches!(locked, Some(OpenError::Locked { .. })), "{locked:?}");
    let mut config = cluster.config(node);
    config.data_directory.set_file_name("other");
    let listening = Server::open(config.clone()).err();
    assert!(matches!(listening, Some(OpenError::Listen { .. })), "{listening:?}");
    let mut exposed = config.clone();
    exposed.listen = "0.0.0.0:0".into();
    let refused = Server::open(exposed).err().expect("nothing is encrypted");
    assert!(matches!(refused, OpenError::Config(_)) && refused.to_string().contains("plaintext=anywhere"), "{refused}");
    config.set("heartbeat_ms", "200").unwrap();
    assert!(matches!(Server::open(config).err(), Some(OpenError::Config(_))));
    let mut foreign = cluster.config(node);
    foreign.cluster = "another".into();
    cluster.nodes[0].stop();
    let foreign = Server::open(foreign).err();
    assert!(matches!(foreign, Some(OpenError::Refused { .. })), "{foreign:?}");
}

#[test]
fn what_is_too_much_is_refused_before_anything_is_taken() {
    let cluster = Cluster::new(1, Dispatch::Threaded, &[("max_entry_bytes", "1000"), ("queue_bytes", "10000")]);
    let group = cluster.nodes[0].group();
    let item = |bytes| Item { tag: 1, data: Bytes::from(vec![0; bytes]), session: None };
    let refused = group.propose(vec![item(1000), item(1001)]);
    assert_eq!(refused, Err(Refused::TooLarge { position: 1, bytes: 1001, limit_bytes: 1000 }));
    let refused = group.propose((0..10).map(|_| item(1000)).collect());
    assert!(matches!(refused, Err(Refused::TooLarge { position: 9, limit_bytes: 10000, .. })), "{refused:?}");
    assert_eq!(group.propose(Vec::new()), Ok(()));
    assert!(cluster.nodes[0].seen.state.lock().unwrap().completions.is_empty());
}
