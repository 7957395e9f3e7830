//! Servers of one group, started, stopped and started again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use raft_engine::server::{Config, Dispatch, DispatchError, Group, MemberArgument, Role, Server, StartHow};
use raft_engine::types::ServerId;

use super::machine::{List, Seen};
use super::{BOUND, GROUP, bootstrap, now};

/// One server of a test.
pub(super) struct Node {
    pub(super) id: u64,
    pub(super) directory: PathBuf,
    pub(super) address: SocketAddr,
    pub(super) seen: Arc<Seen>,
    pub(super) server: Option<Server>,
    pub(super) group: Option<Group>,
    pub(super) dispatcher: Option<thread::JoinHandle<()>>,
}

impl Node {
    pub(super) fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    pub(super) fn group(&self) -> &Group {
        self.group.as_ref().unwrap()
    }

    pub(super) fn is_leader(&self) -> bool {
        self.group.as_ref().and_then(Group::status).is_some_and(|status| status.role == Role::Leader)
    }

    /// Ends the server; whatever is not on its disk is gone.
    pub(super) fn stop(&mut self) {
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
pub(super) struct Cluster {
    pub(super) _root: tempfile::TempDir,
    pub(super) settings: Vec<(&'static str, String)>,
    pub(super) dispatch: Dispatch,
    pub(super) nodes: Vec<Node>,
}

impl Cluster {
    pub(super) fn new(count: u64, dispatch: Dispatch, settings: &[(&'static str, &str)]) -> Self {
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

    pub(super) fn node(&self, id: u64) -> &Node {
        self.nodes.iter().find(|node| node.id == id).unwrap()
    }

    pub(super) fn members(&self) -> Vec<MemberArgument> {
        let member = |node: &Node| MemberArgument {
            context: format!("client {}", node.id).into_bytes(),
            ..MemberArgument::new(ServerId(node.id), node.address.to_string())
        };
        self.nodes.iter().map(member).collect()
    }

    pub(super) fn config(&self, node: &Node) -> Config {
        let mut config = Config::new("test", node.id, &node.directory, node.address.to_string());
        config.dispatch = self.dispatch;
        for (key, value) in &self.settings {
            config.set(key, value).unwrap();
        }
        config
    }

    pub(super) fn open(&self, node: &mut Node) {
        let server = Server::open(self.config(node)).unwrap();
        node.address = server.status().listen;
        if self.dispatch == Dispatch::Host {
            let server = server.clone();
            node.dispatcher =
                Some(thread::spawn(move || while server.dispatch(16, BOUND) != Err(DispatchError::Closed) {}));
        }
        node.server = Some(server);
    }

    pub(super) fn restart(&mut self, place: usize) {
        let mut node = self.nodes.remove(place);
        node.stop();
        node.seen = Arc::default();
        self.open(&mut node);
        let group = node.server().start_group(GROUP, List::new(&node.seen), StartHow::Restart).unwrap();
        node.group = Some(group);
        self.nodes.insert(place, node);
    }

    /// Waits for a leader that the running servers know of.
    pub(super) fn leader(&self) -> &Node {
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
    pub(super) fn propose(&self, data: &str) -> u64 {
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
    pub(super) fn agree_on(&self, items: &[String]) {
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
