//! The world: servers, their disks, hosts and clients, and the network between them, moved on event by event.
//!
//! Everything happens in one thread, in an order that the seed decides. The world moves bytes and keeps the record; what
//! a server says and writes is its driver's.

mod attacks;
mod clients;
mod digests;
mod effects;
mod faults;
mod hosts;
mod judge;
mod liveness;
mod operators;
mod process;
mod quorum;
mod sessions;

use self::digests::Comparing;
use self::sessions::Client;
use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;

use super::attacks::Ambush;
use super::coverage::Coverage;
use super::disk::SimDisk;
use super::faults::Masks;
use super::history::History;
use super::host::{Host, State};
use super::invariants::{Invariants, Limits, Violation};
use super::network::{Arrival, Network, Place};
use super::operations::Operations;
use super::profile::Profile;
use super::queue::Queue;
use super::report::Options;
use super::trace::{Kind, Trace};
use crate::driver::{ConnectionId, Driver, Event, ForwardCounts, RareCounts};
use crate::types::{DiskWorkId, GroupId, Identity, Index, ServerId, SessionId, Term, Time};

/// What is going to happen. A process is named by its server and epoch: what was meant for an earlier one is dropped.
#[derive(Debug)]
pub(super) enum What {
    /// The driver's deadline has come, perhaps.
    Wake { server: usize, epoch: u32 },
    /// A turn that gathered events ends.
    EndTurn { server: usize, epoch: u32 },
    /// The oldest log write completes.
    DiskLog { server: usize, epoch: u32 },
    /// The oldest job does its next step.
    DiskStep { server: usize, epoch: u32 },
    /// A read completes.
    DiskRead { server: usize, epoch: u32, id: DiskWorkId },
    /// A dial reaches its server.
    DialArrives { from: Place, to: usize },
    /// A dial fails.
    DialFails { from: Place, is_refused: bool },
    /// A frame arrives at the far end of a stream's end.
    Deliver { stream: usize, end: usize, parcel: u64 },
    /// More of what was chopped arrives.
    DeliverRest { stream: usize, end: usize },
    /// One end of a stream learns that it broke.
    Break { stream: usize, end: usize },
    /// The system has taken what was sent.
    Sent { server: usize, epoch: u32 },
    /// The apply thread has a turn.
    Host { server: usize, epoch: u32, group: usize },
    /// The host starts a group.
    StartGroup { server: usize, epoch: u32, group: usize },
    /// Somebody starts the server's process, if it is not running.
    Start { server: usize, epoch: u32 },
    /// The power of one server goes, running or not.
    PowerCut { server: usize },
    /// An operator restarts a server that stopped.
    Restart { server: usize, epoch: u32 },
    /// The disk is as fast as ever, and has room.
    DiskHeals { server: usize },
    /// The network heals.
    Heal,
    /// A client asks for something.
    Request,
    /// An operator does.
    Operate,
    /// One that has a session does.
    SessionRequest,
    /// An operator has replicas compared.
    CheckDigests,
    /// The state of some replica is corrupted.
    Corrupt,
    /// A fault comes.
    Fault,
    /// What lay in wait for a moment.
    Ambush { server: usize, epoch: u32, group: usize, ambush: Ambush },
    /// A partition of a known shape comes.
    Shape,
    /// It becomes another one.
    Reshape { masks: Masks },
    /// A read by lease at whoever has believed longest that it leads.
    ProbeLease,
    /// A majority is lost for good.
    QuorumLoss,
    /// Faults end.
    FaultsEnd,
    /// Has everyone converged?
    Look,
}

/// A running process.
struct Process {
    driver: Driver,
    /// Its clock's origin.
    clock_offset: u64,
    /// Its rate, of 1,024.
    clock_rate: u64,
    hosts: Vec<Host>,
    started: Vec<bool>,
    is_ready: bool,
    /// The driver said that the server has stopped.
    is_stopped: bool,
    /// When the next [`What::Wake`] comes.
    wake_at: Time,
    /// Events were taken, and the turn has not ended.
    is_turn_open: bool,
    /// Dials under way.
    dialling: std::collections::BTreeSet<ConnectionId>,
    /// What the system has taken and the driver was not told, by connection.
    sent: BTreeMap<ConnectionId, usize>,
    is_sent_scheduled: bool,
    next_accepted: u64,
    /// Suspicions counted so far.
    suspicions: u64,
    /// Forwards counted so far.
    forwards: ForwardCounts,
    /// Rare things counted so far.
    rare: RareCounts,
    /// It dies within its next turn, after so many effects.
    dies_after: Option<usize>,
    /// A fault of its disk was injected: it may stop.
    may_stop: bool,
}

/// One server, running or not.
struct Server {
    epoch: u32,
    process: Option<Process>,
    disk: SimDisk,
    slow_times: u32,
    is_full: bool,
    paused_until: Time,
    last_log_at: Time,
    /// What a host with state of its own kept, by group.
    saved: Vec<State>,
    /// It is started with other members than the rest.
    has_other_members: bool,
    was_wiped: bool,
    /// It never comes back.
    is_gone: bool,
    /// The last process did not end by a power cut, and what it left unsynced may still be visible.
    was_killed: bool,
    /// The identity of its directory, once it was opened.
    identity: Option<Identity>,
    /// The highest term known to be in its synced bytes, by group.
    synced_terms: Vec<u64>,
}

/// A whole run.
pub(super) struct World {
    pub(super) profile: Profile,
    pub(super) rng: Rng,
    /// What lies in wait is drawn from here.
    attack_rng: Rng,
    pub(super) queue: Queue<What>,
    pub(super) trace: Trace,
    pub(super) coverage: Coverage,
    pub(super) steps: u64,
    network: Network,
    servers: Vec<Server>,
    invariants: Vec<Invariants>,
    history: History,
    /// What clients did to keys, by group.
    operations: Vec<Operations>,
    /// Clients with sessions.
    clients: Vec<Client>,
    /// Ids that sessions were given, by group.
    sessions_given: std::collections::BTreeSet<(usize, SessionId)>,
    /// Which of them made a request, by its tag.
    asked: BTreeMap<u64, usize>,
    /// Who seems to lead each group.
    leaders: Vec<Option<usize>>,
    phase: Phase,
    /// What was acknowledged in each group when faults had ended and it had a leader: more proves that it lives.
    proofs: Vec<Option<Index>>,
    /// Since faults ended.
    dials_since_faults: u64,
    /// How long after faults ended a leader was last seen, by group.
    leader_seen: Vec<Duration>,
    /// Who led, in which term, when a partial partition that stalled nobody healed.
    led_through_partition: Option<(usize, Term)>,
    /// On this server a group was recovered from the loss of its quorum, and nobody was told that it is done.
    recovering: Option<usize>,
    /// Somebody may be refused in this run: a directory was wiped or other members were given.
    may_refuse: bool,
    /// What is known of each group's states beside the servers.
    comparing: Vec<Comparing>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Faults,
    /// Since when; and whether the last proof of life was proposed.
    Liveness {
        since: Time,
    },
    /// A partial partition stands, everyone having converged before.
    Stalled {
        since: Time,
        masks: Masks,
    },
    Done,
}

pub(super) type Checked<T = ()> = Result<T, Violation>;

/// The most steps of a run: far beyond what any takes that ends.
const MAX_STEPS: u64 = 400_000;

impl World {
    /// The world of a seed, before anything happens.
    pub(super) fn new(options: &Options, keep: usize) -> Self {
        let mut rng = Rng::with_seed(options.seed);
        let mut attack_rng = Rng::with_seed(options.seed ^ 0x6174_7461_636b);
        let mut profile = Profile::new(&mut rng).with_attacks(&mut attack_rng);
        profile = profile.with_digests(&mut Rng::with_seed(options.seed ^ 0x6469_6765_7374));
        if options.clocks_beyond_bound {
            profile = profile.with_clocks_beyond_the_bound();
        }
        options.reductions.iter().for_each(|reduction| reduction.apply(&mut profile));
        let settings = &profile.settings;
        let limits = Limits {
            // A batch is taken as a whole where nothing waits. A new leader begins with what the one before it had
            // uncommitted, and with as much that it has not heard to be committed; it takes nothing more then.
            uncommitted_bytes: 2 * settings.uncommitted_bytes + profile.max_batch * (profile.max_command_bytes + 100),
            // What is not durable, or not known to be committed, stays in memory beyond the cache: what a leader may
            // have uncommitted, and as much that a follower has not heard to be committed.
            cached_bytes: settings.cache_bytes
                + 2 * settings.uncommitted_bytes
                + settings.in_flight_bytes * profile.servers
                + settings.max_entry_bytes * 2
                + profile.max_batch * (profile.max_command_bytes + 100)
                + crate::driver::MAX_FRAME_BYTES,
        };
        let server = |_| Server {
            epoch: 0,
            process: None,
            disk: SimDisk::new(profile.direct_disk),
            slow_times: 1,
            is_full: false,
            paused_until: Time(0),
            last_log_at: Time(0),
            saved: vec![State::default(); profile.groups],
            has_other_members: false,
            was_wiped: false,
            is_gone: false,
            was_killed: false,
            identity: None,
            synced_terms: vec![0; profile.groups],
        };
        let mut world = Self {
            network: Network::new(profile.network.clone()),
            servers: (0..profile.servers).map(server).collect(),
            invariants: (0..profile.groups)
                .map(|_| Invariants::new(profile.servers, profile.initial, limits))
                .collect(),
            history: History::default(),
            operations: (0..profile.groups).map(|_| Operations::default()).collect(),
            clients: (0..profile.session_clients).map(|client| Client::new(client % profile.groups)).collect(),
            sessions_given: Default::default(),
            asked: BTreeMap::new(),
            leaders: vec![None; profile.groups],
            phase: Phase::Faults,
            proofs: vec![None; profile.groups],
            dials_since_faults: 0,
            leader_seen: vec![Duration::ZERO; profile.groups],
            led_through_partition: None,
            recovering: None,
            may_refuse: profile.other_members,
            comparing: (0..profile.groups).map(|_| Comparing::new(profile.servers)).collect(),
            queue: Queue::new(),
            trace: Trace::new(keep, options.trace),
            coverage: Coverage::default(),
            steps: 0,
            rng,
            attack_rng,
            profile,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for server in 0..self.profile.servers {
            let delay = Duration::from_micros(self.rng.u64(..300_000));
            self.queue.after(delay, What::Start { server, epoch: 0 });
        }
        if self.profile.other_members {
            let server = self.rng.usize(..self.profile.initial);
            self.servers[server].has_other_members = true;
        }
        let first_fault = self.profile.fault_interval;
        self.queue.after(first_fault, What::Fault);
        self.queue.after(Duration::from_millis(200), What::Request);
        if self.profile.has_operator() {
            self.queue.after(Duration::from_millis(500), What::Operate);
        }
        if !self.clients.is_empty() {
            self.queue.after(Duration::from_millis(250), What::SessionRequest);
        }
        let attacks = &self.profile.attacks;
        for (at, what) in [
            (attacks.shape_interval, What::Shape),
            (attacks.lease_interval, What::ProbeLease),
            (attacks.quorum_loss_at, What::QuorumLoss),
            (self.profile.digest_interval, What::CheckDigests),
            (self.profile.corrupt_at, What::Corrupt),
        ] {
            if let Some(at) = at {
                self.queue.after(at, what);
            }
        }
        self.queue.after(self.profile.faults_end, What::FaultsEnd);
    }

    /// Runs until everyone has converged.
    pub(super) fn run(&mut self) -> Checked {
        while self.phase != Phase::Done {
            let Some(what) = self.queue.pop() else { break };
            self.steps += 1;
            self.step(what)?;
            if self.steps > MAX_STEPS {
                return Err(Violation::new("a run ends", format!("{} steps and no end", self.steps)));
            }
        }
        Ok(())
    }

    /// The present, and a line of the trace.
    fn note<const N: usize>(&mut self, server: impl Into<Option<usize>>, kind: Kind, numbers: [u64; N]) {
        self.trace.add(self.queue.now(), server.into(), kind, numbers);
    }

    /// The process that `server` runs now, if it is the one of this epoch.
    fn process(&mut self, server: usize, epoch: u32) -> Option<&mut Process> {
        let server = &mut self.servers[server];
        if server.epoch == epoch { server.process.as_mut() } else { None }
    }

    fn step(&mut self, what: What) -> Checked {
        let Some(what) = self.unless_paused(what) else { return Ok(()) };
        match what {
            What::Wake { server, epoch } => self.wake(server, epoch),
            What::EndTurn { server, epoch } => match self.process(server, epoch) {
                Some(_) => self.end_turn(server),
                None => Ok(()),
            },
            What::DiskLog { server, epoch } => self.disk_log(server, epoch),
            What::DiskStep { server, epoch } => self.disk_step(server, epoch),
            What::DiskRead { server, epoch, id } => self.disk_read(server, epoch, id),
            What::DialArrives { from, to } => self.dial_arrives(from, to),
            What::DialFails { from, is_refused } => self.dial_fails(from, is_refused),
            What::Deliver { stream, end, parcel } => {
                let arrival = self.network.deliver(stream, end, parcel, &mut self.queue, &mut self.rng);
                arrival.map_or(Ok(()), |(place, arrival)| self.arrive(place, arrival))
            }
            What::DeliverRest { stream, end } => {
                let arrival = self.network.rest(stream, end, &mut self.queue, &mut self.rng);
                arrival.map_or(Ok(()), |(place, arrival)| self.arrive(place, arrival))
            }
            What::Break { stream, end } => {
                let arrivals = self.network.broken(stream, end, &mut self.rng);
                arrivals.into_iter().try_for_each(|(place, arrival)| self.arrive(place, arrival))
            }
            What::Sent { server, epoch } => self.sent(server, epoch),
            What::Host { server, epoch, group } => self.host_turn(server, epoch, group),
            What::StartGroup { server, epoch, group } => self.start_group(server, epoch, group),
            What::Start { server, epoch } => self.start(server, epoch),
            What::PowerCut { server } => {
                self.power_cut(server);
                Ok(())
            }
            What::Restart { server, epoch } => {
                if self.process(server, epoch).is_some() {
                    self.kill(server);
                }
                Ok(())
            }
            What::DiskHeals { server } => {
                self.disk_heals(server);
                Ok(())
            }
            What::Heal => {
                // One that is left to stand is not healed by what was to heal another.
                if !matches!(self.phase, Phase::Stalled { .. }) {
                    self.heal();
                }
                Ok(())
            }
            What::Request => self.request(),
            What::Operate => self.operate(),
            What::SessionRequest => self.session_request(),
            What::CheckDigests => self.ask_to_compare(),
            What::Corrupt => {
                self.corrupt();
                Ok(())
            }
            What::Fault => self.fault(),
            What::Ambush { server, epoch, group, ambush } => self.ambush(server, epoch, group, ambush),
            What::Shape => self.shape(),
            What::Reshape { masks } => {
                if self.phase == Phase::Faults {
                    self.block(masks);
                }
                Ok(())
            }
            What::ProbeLease => self.probe_lease(),
            What::QuorumLoss => self.lose_quorum(),
            What::FaultsEnd => {
                self.faults_end();
                Ok(())
            }
            What::Look => self.look(),
        }
    }

    /// A paused process gets everything later.
    fn unless_paused(&mut self, what: What) -> Option<What> {
        let server = match what {
            What::Wake { server, .. }
            | What::EndTurn { server, .. }
            | What::DiskLog { server, .. }
            | What::DiskStep { server, .. }
            | What::DiskRead { server, .. }
            | What::Sent { server, .. }
            | What::Host { server, .. }
            | What::StartGroup { server, .. }
            | What::DialArrives { to: server, .. }
            | What::DialFails { from: Place { server, .. }, .. } => server,
            What::Deliver { stream, end, .. } | What::DeliverRest { stream, end } => {
                self.network.end_server(stream, 1 - end)?
            }
            What::Break { stream, end } => self.network.end_server(stream, end)?,
            _ => return Some(what),
        };
        let until = self.servers[server].paused_until;
        if until <= self.queue.now() {
            return Some(what);
        }
        self.queue.at(until, what);
        None
    }

    fn arrive(&mut self, place: Place, arrival: Arrival) -> Checked {
        if self.process(place.server, place.epoch).is_none() {
            return Ok(());
        }
        let connection = place.connection;
        match arrival {
            Arrival::Bytes(bytes) => {
                self.note(place.server, Kind::Received, [bytes.len() as u64, connection.0]);
                self.feed(place.server, Event::Received { connection, bytes })
            }
            Arrival::Closed => {
                self.note(place.server, Kind::Closed, [connection.0]);
                self.feed(place.server, Event::Closed { connection, refused: false })
            }
        }
    }
}

/// The id of the server at a place in the world.
fn server_id(server: usize) -> ServerId {
    ServerId(server as u64 + 1)
}

/// The place in the world of a server.
fn server_at(id: ServerId) -> usize {
    usize::try_from(id.0 - 1).expect("ids are small")
}

/// The id of a group by its number.
fn group_id(group: usize) -> GroupId {
    GroupId(group as u64 + 1)
}

/// The number of a group.
fn group_at(id: GroupId) -> usize {
    usize::try_from(id.0 - 1).expect("ids are small")
}
