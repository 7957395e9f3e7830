//! The rules of Raft, each as a story about one core or a small cluster of them, under a clock and a disk of the test's.

mod elections;
mod exhaustive;
mod figures;
mod leases;
mod membership;
mod reads;
mod replication;
mod snapshots;
mod transfer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::{Effect, Mark, Options, Persist, Raft, Restored, RoleName};
use crate::types::{
    Configuration, Entry, EntryKind, GroupSettings, HardState, Identity, Index, LogTime, Member, MemberRole, Message,
    Position, ServerId, SnapshotMeta, Term, Time,
};

fn configuration(ids: impl IntoIterator<Item = u64>) -> Configuration {
    let member = |id| Member {
        id: ServerId(id),
        role: MemberRole::Voter,
        priority: 1,
        identity: Identity([id as u8; 16]),
        address: String::new(),
        context: Vec::new(),
    };
    Configuration {
        members: ids.into_iter().map(member).collect(),
        outgoing_voters: Vec::new(),
        highest_id: ServerId(9),
        change: None,
        settings: GroupSettings::default(),
    }
}

fn entry(index: Index, term: Term) -> Entry {
    let kind = if index == 1 { EntryKind::Formation } else { EntryKind::Command };
    let payload = Bytes::from(format!("{index} of term {term}"));
    Entry::new(Position { term, index }, LogTime(index), kind, payload)
}

/// A log whose entry 1 formed the group, followed by entries of these terms.
fn restored(voters: u64, term: Term, terms: &[Term]) -> Restored {
    let tail: Vec<_> = std::iter::once(&0).chain(terms).zip(1..).map(|(&term, index)| entry(index, term)).collect();
    let mut term_runs: Vec<(Index, Term)> = Vec::new();
    for entry in &tail {
        if term_runs.last().is_none_or(|&(_, term)| term < entry.term) {
            term_runs.push((entry.index, entry.term));
        }
    }
    Restored {
        hard_state: HardState { term, vote: None },
        longest_lease: Duration::ZERO,
        base: Position::default(),
        term_runs,
        last: tail.len() as u64,
        last_log_time: LogTime(tail.len() as u64),
        commit: 1,
        configurations: vec![(1, configuration(1..=voters))],
        tail,
    }
}

/// One server: its core, its disk, and what it told its host.
struct Node {
    raft: Raft,
    /// Records asked for and not durable yet.
    disk: VecDeque<(Mark, Persist)>,
    /// The disk completes nothing while it is stuck.
    is_disk_stuck: bool,
    /// What is durable: the term and vote, and the log.
    hard_state: HardState,
    log: Vec<Entry>,
    applied: Vec<Entry>,
    reads: Vec<(u64, Option<Index>)>,
    other: Vec<Effect>,
}

/// Servers, the wire between them, and the time.
struct Cluster {
    nodes: BTreeMap<u64, Node>,
    wire: VecDeque<(u64, u64, Message)>,
    /// Directed links that lose everything.
    cut: BTreeSet<(u64, u64)>,
    now: Time,
    /// Who led in which term.
    leaders: BTreeMap<Term, u64>,
}

impl Cluster {
    fn new(voters: u64) -> Self {
        Self::with_logs(&(1..=voters).map(|id| (id, 0, &[][..])).collect::<Vec<_>>())
    }

    /// Servers with a term and a log each: (id, term, terms of the entries behind entry 1).
    fn with_logs(logs: &[(u64, Term, &[Term])]) -> Self {
        let voters = logs.len() as u64;
        let nodes = logs.iter().map(|&(id, term, terms)| {
            let restored = restored(voters, term, terms);
            let (hard_state, log) = (restored.hard_state, restored.tail.clone());
            let raft = Raft::new(ServerId(id), Options::default(), restored, 100 + id, Time(0));
            (id, Node::new(raft, hard_state, log))
        });
        Self {
            nodes: nodes.collect(),
            wire: VecDeque::new(),
            cut: BTreeSet::new(),
            now: Time(0),
            leaders: BTreeMap::new(),
        }
    }

    fn raft(&mut self, id: u64) -> &mut Raft {
        &mut self.nodes.get_mut(&id).expect("a server").raft
    }

    fn terms(&self, id: u64) -> Vec<Term> {
        self.nodes[&id].log.iter().map(|entry| entry.term).collect()
    }

    /// Loses everything between `id` and all others.
    fn isolate(&mut self, id: u64) {
        for &other in self.nodes.keys().filter(|&&other| other != id) {
            self.cut.extend([(id, other), (other, id)]);
        }
    }

    fn heal(&mut self) {
        self.cut.clear();
    }

    /// Carries out what `id` wants done; its messages go onto the wire.
    fn carry_out(&mut self, id: u64) {
        let now = self.now;
        let node = self.nodes.get_mut(&id).expect("a server");
        node.raft.flush(now);
        loop {
            for effect in node.raft.take_effects() {
                match effect {
                    Effect::Persist { mark, record } => node.disk.push_back((mark, record)),
                    Effect::Send { to, message } => self.wire.push_back((id, to.0, message)),
                    Effect::ReadReady { id, index } => node.reads.push((id, Some(index))),
                    Effect::ReadFailed { id } => node.reads.push((id, None)),
                    other => node.other.push(other),
                }
            }
            if node.is_disk_stuck || !node.complete_write(now) {
                break;
            }
        }
        while let Ok(entries) = node.raft.deliverable(usize::MAX) {
            let Some(last) = entries.last() else { break };
            node.raft.delivered(last.index);
            node.applied.extend(entries);
        }
        if node.raft.is_leader() {
            let leader = *self.leaders.entry(node.raft.hard_state().term).or_insert(id);
            assert_eq!(leader, id, "one leader a term");
        }
    }

    /// Lets messages flow until nobody has anything to say.
    fn settle(&mut self) {
        let ids: Vec<_> = self.nodes.keys().copied().collect();
        ids.iter().for_each(|&id| self.carry_out(id));
        while let Some((from, to, message)) = self.wire.pop_front() {
            if self.cut.contains(&(from, to)) || !self.nodes.contains_key(&to) {
                continue;
            }
            let now = self.now;
            self.raft(to).receive(now, ServerId(from), message);
            self.carry_out(to);
        }
    }

    fn pass(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds.div_ceil(5) {
            self.now = self.now + Duration::from_millis(5);
            let now = self.now;
            for node in self.nodes.values_mut() {
                if now >= node.raft.deadline() {
                    node.raft.tick(now);
                }
            }
            self.settle();
        }
    }

    /// Makes `id` campaign, whatever its timer says, and lets the vote take place once nobody is bound to a leader.
    fn elect(&mut self, id: u64) {
        for _ in 0..20 {
            let now = self.now;
            for (&other, node) in &mut self.nodes {
                if other != id {
                    node.raft.reset_election_timer(now + Duration::from_secs(60));
                    node.raft.leader_heard_at = None;
                    if node.raft.is_leader() {
                        node.raft.follow(now, node.raft.hard_state.term, None);
                    }
                }
            }
            self.raft(id).campaign(now);
            self.settle();
            if self.nodes[&id].raft.is_leader() {
                return;
            }
        }
        panic!("server {id} was not elected");
    }

    fn propose(&mut self, id: u64, command: &'static [u8]) -> Index {
        let now = self.now;
        let indexes = self.raft(id).propose(now, vec![Bytes::from_static(command)]).expect("it leads");
        self.settle();
        indexes.start
    }

    fn leader(&self) -> Option<u64> {
        let leads = |node: &&Node| node.raft.is_leader();
        self.nodes.values().filter(leads).max_by_key(|node| node.raft.hard_state().term).map(|node| node.raft.id().0)
    }
}

impl Node {
    fn new(raft: Raft, hard_state: HardState, log: Vec<Entry>) -> Self {
        Self {
            raft,
            disk: VecDeque::new(),
            is_disk_stuck: false,
            hard_state,
            log,
            applied: Vec::new(),
            reads: Vec::new(),
            other: Vec::new(),
        }
    }

    /// Makes the oldest record durable.
    fn complete_write(&mut self, now: Time) -> bool {
        let Some((mark, record)) = self.disk.pop_front() else { return false };
        match record {
            Persist::HardState(state) => self.hard_state = state,
            Persist::Entries(entries) => self.log.extend(entries),
            Persist::Truncate { from } => self.log.retain(|entry| entry.index < from),
            Persist::Snapshot(_) => self.log.clear(),
        }
        self.raft.persisted(now, mark);
        true
    }
}

/// A server of a group of three whose entry 2 removes server 3, where entries through `commit` are committed.
fn where_entry_2_removes_3(id: u64, commit: Index) -> Raft {
    let mut restored = restored(3, 1, &[1]);
    restored.commit = commit;
    restored.configurations.push((2, configuration(1..=2)));
    Raft::new(ServerId(id), Options::default(), restored, 7, Time(0))
}

/// What a server sends now, to whom.
fn sent(raft: &mut Raft) -> Vec<(u64, Message)> {
    let effects = raft.take_effects().into_iter();
    let sent = effects.filter_map(|effect| match effect {
        Effect::Send { to, message } => Some((to.0, message)),
        _ => None,
    });
    sent.collect()
}
