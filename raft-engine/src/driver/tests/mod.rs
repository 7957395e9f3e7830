//! Whole drivers in one process, as a host and its peers see them: disks and wires in memory, and time of the test's.

mod digests;
mod forwarding;
mod groups;
mod offline;
mod payloads;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::{
    ConnectionId, Consistency, Driver, Effect, Event, Frame, Me, MemberArgument, Outcome, Proposal, Role, Sessions,
    Settings, StartHow, Ticket, core_messages, digest_check,
};
use crate::types::{
    ClusterId, DiskDone, DiskError, DiskStep, DiskWork, Entry, EntryKind, FileName, GroupId, GroupSettings, Index,
    Message, ReadFiles, ServerId, SnapshotSection, Time,
};

const GROUP: GroupId = GroupId(7);

/// How a request ended, or how far it is.
#[derive(Clone, PartialEq, Eq, Debug)]
enum End {
    /// As the entry at this index, which carries this.
    Applied(Index, Bytes),
    /// The read may be served from what is applied at this index.
    Read(Index),
    Ended(Outcome),
}

/// A data directory whose every write is durable at once.
#[derive(Default)]
struct Files(BTreeMap<FileName, Vec<u8>>);

impl Files {
    fn file(&mut self, name: &FileName) -> &mut Vec<u8> {
        self.0.get_mut(name).expect("a file that was made")
    }

    fn write(&mut self, name: &FileName, offset: u64, data: &[u8]) {
        let (file, offset) = (self.file(name), offset as usize);
        file.resize(file.len().max(offset + data.len()), 0);
        file[offset..offset + data.len()].copy_from_slice(data);
    }

    fn perform(&mut self, work: DiskWork) -> DiskDone {
        match work {
            DiskWork::WriteLog { file, offset, data } => self.write(&file, offset, data.as_slice()),
            DiskWork::Job(steps) => steps.into_iter().for_each(|step| self.step(step)),
            DiskWork::Read { file, offset, length } => {
                return DiskDone::Read(self.read(&file, offset, length).expect("it reads"));
            }
        }
        DiskDone::Done
    }

    fn step(&mut self, step: DiskStep) {
        match step {
            DiskStep::CreateZeroed { file, length } => drop(self.0.insert(file, vec![0; length as usize])),
            DiskStep::Create { file, data } => drop(self.0.insert(file, data.to_vec())),
            DiskStep::Write { file, offset, data } => self.write(&file, offset, &data),
            DiskStep::WriteZeros { file, offset, length } => self.write(&file, offset, &vec![0; length as usize]),
            DiskStep::Rename { from, to } => {
                let content = self.0.remove(&from).expect("a file that was made");
                self.0.insert(to, content);
            }
            DiskStep::Remove { file } => drop(self.0.remove(&file)),
            DiskStep::Sync { .. } | DiskStep::SyncDirectory => {}
        }
    }
}

impl ReadFiles for Files {
    fn list(&mut self) -> Result<Vec<(FileName, u64)>, DiskError> {
        Ok(self.0.iter().map(|(name, content)| (name.clone(), content.len() as u64)).collect())
    }

    fn read(&mut self, file: &FileName, offset: u64, length: usize) -> Result<Bytes, DiskError> {
        let content = self.file(file);
        let start = content.len().min(offset as usize);
        Ok(Bytes::copy_from_slice(&content[start..content.len().min(start + length)]))
    }
}

/// One server, and what its host has seen.
struct Server {
    driver: Driver,
    /// What it applied, but for the engine's own entries.
    applied: Vec<Entry>,
    /// The kinds of what came, batch by batch.
    batches: Vec<Vec<EntryKind>>,
    ends: BTreeMap<u64, End>,
    next_accepted: u64,
    /// For what hosts say their states come down to.
    sessions: Sessions,
}

/// One stream: who dialled, who accepted, and the names that they have for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Stream {
    ends: [(u64, ConnectionId); 2],
}

/// What cores have said by one frame.
struct Said {
    from: u64,
    to: u64,
    messages: Vec<(GroupId, Message)>,
}

/// Servers of the same groups, and the wires between them.
struct Cluster {
    servers: BTreeMap<u64, Server>,
    files: BTreeMap<u64, Files>,
    settings: BTreeMap<u64, Settings>,
    streams: BTreeSet<Stream>,
    /// How many groups they host: [`GROUP`] and those behind it.
    groups: u64,
    /// What cores have said, by frames.
    said: Vec<Said>,
    /// How often each group's host was asked for a snapshot, at all servers.
    snapshots: BTreeMap<GroupId, usize>,
    /// Frames on their way: from whom, to whom at which of its streams, and what.
    wire: VecDeque<(u64, u64, ConnectionId, Bytes)>,
    /// What is said from one to another stays on its way.
    held: BTreeSet<(u64, u64)>,
    /// What the states of hosts come down to, wherever they are; nothing, of those that give no digests.
    digests: BTreeMap<u64, Option<u64>>,
    now: Time,
    last_tag: u64,
}

impl Cluster {
    /// A group of so many voters that has a leader, whom all of them follow.
    fn new(count: u64) -> Self {
        Self::with_settings(count, |_, _| {})
    }

    fn with_settings(count: u64, change: impl Fn(u64, &mut Settings)) -> Self {
        Self::of_groups(count, 1, change)
    }

    /// So many servers of so many groups, each of which has a leader whom all others follow.
    fn of_groups(count: u64, groups: u64, change: impl Fn(u64, &mut Settings)) -> Self {
        let settings_of = |id| {
            let mut settings = Settings { segment_bytes: 1 << 20, ..Settings::default() };
            change(id, &mut settings);
            (id, settings)
        };
        let mut cluster = Self {
            servers: BTreeMap::new(),
            files: (1..=count).map(|id| (id, Files::default())).collect(),
            settings: (1..=count).map(settings_of).collect(),
            streams: BTreeSet::new(),
            groups,
            said: Vec::new(),
            snapshots: BTreeMap::new(),
            wire: VecDeque::new(),
            held: BTreeSet::new(),
            digests: BTreeMap::new(),
            now: Time(0),
            last_tag: 0,
        };
        (1..=count).for_each(|id| cluster.start(id));
        cluster.until_led();
        cluster
    }

    /// Starts a server, for the first time or again.
    fn start(&mut self, id: u64) {
        let me = Me { cluster: ClusterId::new("test").expect("a name"), id: ServerId(id) };
        let seed = [id as u8 + (16 * self.last_tag % 240) as u8; 32];
        let files = self.files.get_mut(&id).expect("a directory");
        let driver = Driver::open(self.settings[&id].clone(), me, files, seed, self.now).expect("a directory");
        let server = Server {
            driver,
            applied: Vec::new(),
            batches: Vec::new(),
            ends: BTreeMap::new(),
            next_accepted: 1,
            sessions: Sessions::default(),
        };
        self.servers.insert(id, server);
        let members = self.files.keys().map(|&id| MemberArgument::new(ServerId(id), format!("{id}")));
        let how = StartHow::Bootstrap { members: members.collect(), settings: GroupSettings::default() };
        for group in self.group_ids() {
            self.handle(id, Event::StartGroup { group, how: how.clone(), applied: 0 });
        }
        self.settle();
    }

    fn group_ids(&self) -> Vec<GroupId> {
        (0..self.groups).map(|behind| GroupId(GROUP.0 + behind)).collect()
    }

    /// The process is gone.
    fn kill(&mut self, id: u64) {
        self.servers.remove(&id);
        let others = self.files.keys().copied().filter(|&other| other != id).collect::<Vec<_>>();
        others.into_iter().for_each(|other| self.break_streams(id, other));
    }

    fn driver(&mut self, id: u64) -> &mut Driver {
        &mut self.servers.get_mut(&id).expect("a server").driver
    }

    fn handle(&mut self, id: u64, event: Event) {
        let now = self.now;
        self.driver(id).handle(now, event);
    }

    /// Ends the turn of a server, and carries out what it wants.
    fn end_turn(&mut self, id: u64) {
        let now = self.now;
        let Some(server) = self.servers.get_mut(&id) else { return };
        server.driver.flush(now);
        loop {
            let effects = self.driver(id).take_effects();
            if effects.is_empty() {
                return;
            }
            effects.into_iter().for_each(|effect| self.carry_out(id, effect));
            self.driver(id).flush(now);
        }
    }

    fn carry_out(&mut self, id: u64, effect: Effect) {
        let server = self.servers.get_mut(&id).expect("a server");
        match effect {
            Effect::Disk { id: work_id, work } => {
                let done = self.files.get_mut(&id).expect("a directory").perform(work);
                self.handle(id, Event::Disk { id: work_id, result: Ok(done) });
            }
            Effect::Dial { connection, address } => self.dial(id, connection, address.parse().expect("an id")),
            Effect::Send { connection, frame } => self.send(id, connection, &frame),
            Effect::Close { connection } => self.end_stream(id, connection),
            Effect::Apply { group, entries, tickets } => {
                server.batches.push(entries.iter().map(|entry| entry.kind).collect());
                for (at, ticket) in tickets {
                    let entry = &entries[at as usize];
                    server.end(ticket, End::Applied(entry.index, entry.payload.clone()));
                }
                let index = entries.last().expect("entries").index;
                let last = entries.last().expect("entries").clone();
                server.applied.extend(entries.into_iter().filter(|entry| entry.kind == EntryKind::Command));
                self.take_to_digests(id, group, &last, index);
            }
            Effect::Complete { tickets, outcome, .. } => {
                tickets.into_iter().for_each(|ticket| server.end(ticket, End::Ended(outcome.clone())));
            }
            Effect::ReadReady { ticket, index, .. } => server.end(ticket, End::Read(index)),
            Effect::Started { result, .. } => result.expect("the group starts"),
            Effect::BeginSnapshot { group, .. } => *self.snapshots.entry(group).or_default() += 1,
            Effect::SnapshotMore { group } => {
                let (section, bytes) = (SnapshotSection::Host, Bytes::from_static(b"state"));
                self.handle(id, Event::SnapshotChunk { group, section, bytes, is_last: true });
            }
            Effect::Restore { group, meta, .. } => {
                self.handle(id, Event::Restored { group, index: meta.position.index });
            }
            Effect::ReleaseSnapshot { .. } | Effect::Notice(_) => {}
            other => panic!("no test here asks for {other:?}"),
        }
    }

    /// What the host does with the last entry of a batch.
    fn take_to_digests(&mut self, id: u64, group: GroupId, last: &Entry, index: Index) {
        let server = self.servers.get_mut(&id).expect("a server");
        let divergence = digest_check(last).and_then(|check| server.sessions.judge(&check, ServerId(id)).err());
        if let Some(divergence) = divergence {
            self.handle(id, Event::Applied { group, index: index - 1 });
            return self.handle(id, Event::Diverged { group, index, divergence });
        }
        let digest = self.digests.get(&id).copied().flatten().filter(|_| last.kind == EntryKind::DigestRequest);
        let digest = digest.map(|digest| server.sessions.digested(index, digest.into()));
        self.handle(id, Event::Applied { group, index });
        if last.kind == EntryKind::DigestRequest {
            self.handle(id, Event::Digested { group, index, digest: Ok(digest) });
        }
    }

    fn dial(&mut self, from: u64, connection: ConnectionId, to: u64) {
        let Some(server) = self.servers.get_mut(&to) else {
            return self.handle(from, Event::Closed { connection, refused: true });
        };
        let accepted = ConnectionId(server.next_accepted);
        server.next_accepted += 2;
        self.streams.insert(Stream { ends: [(from, connection), (to, accepted)] });
        self.handle(to, Event::Accepted { connection: accepted });
        self.handle(from, Event::Dialled { connection });
    }

    fn send(&mut self, from: u64, connection: ConnectionId, frame: &Frame) {
        let end = self.streams.iter().find_map(|stream| stream.other_end(from, connection));
        if let Some((to, at)) = end {
            self.said.push(Said { from, to, messages: core_messages(frame) });
            self.wire.push_back((from, to, at, frame.to_bytes()));
        }
        self.handle(from, Event::Sent { connection, bytes: frame.len() });
    }

    /// One end closes its stream, and the other hears of it; what is on its way is lost.
    fn end_stream(&mut self, id: u64, connection: ConnectionId) {
        let found = self.streams.iter().copied().find(|stream| stream.other_end(id, connection).is_some());
        let Some(stream) = found else { return };
        self.streams.remove(&stream);
        for (server, connection) in stream.ends {
            self.wire.retain(|&(_, to, at, _)| (to, at) != (server, connection));
            if server != id && self.servers.contains_key(&server) {
                self.handle(server, Event::Closed { connection, refused: false });
            }
        }
    }

    /// Breaks everything between two servers; both hear of it.
    fn break_streams(&mut self, left: u64, right: u64) {
        self.break_dialled(left, right);
        self.break_dialled(right, left);
    }

    /// Breaks what one dialled to the other.
    fn break_dialled(&mut self, from: u64, to: u64) {
        let broken: Vec<_> =
            self.streams.iter().copied().filter(|stream| stream.ends.map(|(id, _)| id) == [from, to]).collect();
        for stream in broken {
            self.streams.remove(&stream);
            for (server, connection) in stream.ends {
                self.wire.retain(|&(_, to, at, _)| (to, at) != (server, connection));
                if self.servers.contains_key(&server) {
                    self.handle(server, Event::Closed { connection, refused: false });
                }
            }
        }
    }

    /// Lets frames flow until nobody has anything to say, but for what is held.
    fn settle(&mut self) {
        loop {
            self.servers.keys().copied().collect::<Vec<_>>().into_iter().for_each(|id| self.end_turn(id));
            let free = self.wire.iter().position(|(from, to, ..)| !self.held.contains(&(*from, *to)));
            let Some((_, to, connection, bytes)) = free.and_then(|at| self.wire.remove(at)) else { return };
            if self.servers.contains_key(&to) {
                self.handle(to, Event::Received { connection, bytes });
            }
        }
    }

    fn pass(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds.div_ceil(5) {
            self.now = self.now + Duration::from_millis(5);
            self.settle();
        }
    }

    fn leader(&self) -> Option<u64> {
        self.leader_of(GROUP)
    }

    fn leader_of(&self, group: GroupId) -> Option<u64> {
        let observed = |server: &Server| server.driver.observe(group);
        let leads = |server: &&Server| observed(server).is_some_and(|it| it.role == Role::Leader);
        let leader = self.servers.values().filter(leads).max_by_key(|server| observed(server).map(|it| it.term))?;
        Some(leader.driver.me.id.0)
    }

    /// Waits until somebody leads each group and all others follow; says who leads [`GROUP`].
    fn until_led(&mut self) -> u64 {
        for _ in 0..1_000 {
            self.pass(10);
            let is_led = |group| {
                let Some(leader) = self.leader_of(group).map(ServerId) else { return false };
                let observed = self.servers.values().map(|server| server.driver.observe(group));
                observed.into_iter().all(|it| it.is_some_and(|it| it.leader == Some(leader) && it.commit > 1))
            };
            if self.group_ids().into_iter().all(is_led) {
                return self.leader().expect("a leader");
            }
        }
        panic!("nobody leads");
    }

    /// The leader, and two others.
    fn roles(&self) -> (u64, u64, u64) {
        let leader = self.leader().expect("a leader");
        let mut others = self.servers.keys().copied().filter(|&id| id != leader);
        (leader, others.next().expect("a follower"), others.next().expect("another"))
    }

    /// A host proposes all of these within one turn; their tags.
    fn propose(&mut self, id: u64, commands: &[&[u8]]) -> Vec<u64> {
        self.propose_in(GROUP, id, commands)
    }

    fn propose_in(&mut self, group: GroupId, id: u64, commands: &[&[u8]]) -> Vec<u64> {
        let tags: Vec<u64> = commands.iter().zip(self.last_tag + 1..).map(|(_, tag)| tag).collect();
        self.last_tag += commands.len() as u64;
        let proposals = tags.iter().zip(commands).map(|(&tag, command)| {
            let data = Bytes::copy_from_slice(command);
            Proposal { ticket: Ticket { origin: 0, tag }, proposed: data.into() }
        });
        self.handle(id, Event::Propose { group, proposals: proposals.collect() });
        tags
    }

    fn propose_one(&mut self, id: u64, command: &[u8]) -> u64 {
        self.propose(id, &[command])[0]
    }

    fn read(&mut self, id: u64) -> u64 {
        self.last_tag += 1;
        let ticket = Ticket { origin: 1, tag: self.last_tag };
        self.handle(id, Event::Read { group: GROUP, ticket, consistency: Consistency::Linearizable });
        self.last_tag
    }

    fn end_of(&self, id: u64, tag: u64) -> Option<&End> {
        self.servers[&id].ends.get(&tag)
    }

    /// What a server's state machine was given of the host's.
    fn applied(&self, id: u64) -> Vec<&[u8]> {
        self.servers[&id].applied.iter().map(|entry| &entry.payload[..]).collect()
    }
}

impl Server {
    fn end(&mut self, ticket: Ticket, end: End) {
        let before = self.ends.insert(ticket.tag, end);
        assert_eq!(before, None, "request {} ends once", ticket.tag);
    }
}

impl Stream {
    /// The end that is not this one, if this is one.
    fn other_end(&self, id: u64, connection: ConnectionId) -> Option<(u64, ConnectionId)> {
        let at = self.ends.iter().position(|end| *end == (id, connection))?;
        Some(self.ends[1 - at])
    }
}
