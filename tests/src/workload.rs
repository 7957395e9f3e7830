//! Clients that write, count and read under load, and record what they saw.
//!
//! Each client is a thread with one connection that follows the leader. Every value is written once in a run, so that
//! whoever reads it names its writer. Three kinds of keys: registers and counters, contended by all clients, for the
//! linearizability of what is seen; and ledger keys, each written once, for what must be there at the end: everything
//! acknowledged, and nothing that was refused. Judging is [`crate::history`]'s part.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::cluster::{pause, poll};
use crate::history::{CounterAction, NEVER, Operation, RegisterAction, Tick, check_counter, check_register};
use crate::resp::{Client, Outcome, Value};

const REGISTERS: u64 = 12;
const COUNTERS: u64 = 3;

/// The most requests that a client sends in one go.
const LONGEST_PIPELINE: usize = 8;

/// How many keys the final look at the ledger asks for at once.
const LEDGER_PAGE: usize = 500;

/// What all clients share.
#[derive(Debug)]
struct Shared {
    servers: Mutex<Vec<SocketAddr>>,
    ticks: AtomicU64,
    values: AtomicU64,
    acknowledged: AtomicU64,
    stop: AtomicBool,
}

/// Clients at work.
#[derive(Debug)]
pub struct Workload {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Record>>,
}

/// What the clients saw.
#[derive(Debug, Default)]
pub struct Record {
    registers: BTreeMap<u64, Vec<Operation<RegisterAction>>>,
    counters: BTreeMap<u64, Vec<Operation<CounterAction>>>,
    ledger: Vec<LedgerEntry>,
    /// How many requests ended as applied, as certainly not applied, and as unknown.
    pub outcomes: Outcomes,
}

/// How many requests ended in which way.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Outcomes {
    /// Applied.
    pub done: u64,
    /// Certainly not applied.
    pub not_applied: u64,
    /// One or the other.
    pub unknown: u64,
}

#[derive(Debug)]
struct LedgerEntry {
    value: u64,
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Acknowledged,
    Refused,
    Unknown,
}

#[derive(Clone, Copy, Debug)]
enum Request {
    Write { key: u64, value: u64 },
    Read { key: u64 },
    Increment { key: u64 },
    ReadCounter { key: u64 },
    Note { value: u64 },
}

impl Request {
    fn random(random: &mut fastrand::Rng, shared: &Shared) -> Self {
        let value = || shared.values.fetch_add(1, Ordering::Relaxed) + 1;
        match random.u32(..100) {
            0..35 => Self::Write { key: random.u64(..REGISTERS), value: value() },
            35..65 => Self::Read { key: random.u64(..REGISTERS) },
            65..80 => Self::Increment { key: random.u64(..COUNTERS) },
            80..88 => Self::ReadCounter { key: random.u64(..COUNTERS) },
            _ => Self::Note { value: value() },
        }
    }

    fn words(self) -> Vec<String> {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        match self {
            Self::Write { key, value } => words(&["SET", &format!("register:{key}"), &value.to_string()]),
            Self::Read { key } => words(&["GET", &format!("register:{key}")]),
            Self::Increment { key } => words(&["INCR", &format!("counter:{key}")]),
            Self::ReadCounter { key } => words(&["GET", &format!("counter:{key}")]),
            Self::Note { value } => words(&["SET", &ledger_key(value), &value.to_string()]),
        }
    }
}

fn ledger_key(value: u64) -> String {
    format!("ledger:{value}")
}

impl Workload {
    /// Starts this many clients, spread over the servers. `seed` decides what they ask, not when.
    pub fn start(servers: &[SocketAddr], clients: u32, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            servers: Mutex::new(servers.to_vec()),
            ticks: AtomicU64::new(2),
            values: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let clients = (0..clients)
            .map(|client| {
                let shared = Arc::clone(&shared);
                let connection = Client::new(servers.to_vec(), client as usize);
                let random = fastrand::Rng::with_seed(seed.wrapping_add(u64::from(client)));
                std::thread::Builder::new()
                    .name(format!("client-{client}"))
                    .spawn(move || run_client(client, connection, random, &shared))
                    .expect("a thread")
            })
            .collect();
        Self { shared, clients }
    }

    /// Tells the clients of other servers, as they would hear by asking for the cluster's nodes.
    pub fn learn(&self, servers: &[SocketAddr]) {
        *self.shared.servers.lock().expect("no panic while held") = servers.to_vec();
    }

    /// How many requests were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until this many more requests were acknowledged.
    #[track_caller]
    pub fn wait_progress(&self, more: u64) {
        let goal = self.acknowledged() + more;
        poll(&format!("{more} more acknowledged requests"), || {
            assert!(self.clients.iter().all(|client| !client.is_finished()), "a client gave up");
            (self.acknowledged() >= goal).then_some(())
        });
    }

    /// Stops all clients and puts their records together.
    pub fn stop(self) -> Record {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut whole = Record::default();
        for client in self.clients {
            let part = client.join().expect("a client that met nothing forbidden");
            for (key, operations) in part.registers {
                whole.registers.entry(key).or_default().extend(operations);
            }
            for (key, operations) in part.counters {
                whole.counters.entry(key).or_default().extend(operations);
            }
            whole.ledger.extend(part.ledger);
            whole.outcomes.done += part.outcomes.done;
            whole.outcomes.not_applied += part.outcomes.not_applied;
            whole.outcomes.unknown += part.outcomes.unknown;
        }
        whole
    }
}

fn run_client(client: u32, mut connection: Client, mut random: fastrand::Rng, shared: &Shared) -> Record {
    let mut record = Record::default();
    while !shared.stop.load(Ordering::Relaxed) {
        let requests: Vec<Request> =
            (0..random.usize(1..=LONGEST_PIPELINE)).map(|_| Request::random(&mut random, shared)).collect();
        let words: Vec<Vec<String>> = requests.iter().map(|request| request.words()).collect();
        let invoked = shared.ticks.fetch_add(1, Ordering::SeqCst);
        let outcomes = connection.pipeline(&words);
        let mut rested = false;
        for (request, outcome) in requests.into_iter().zip(outcomes) {
            let returned = shared.ticks.fetch_add(1, Ordering::SeqCst);
            if matches!(outcome, Outcome::Done(_)) {
                shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            } else if !std::mem::replace(&mut rested, true) {
                connection.learn(shared.servers.lock().expect("no panic while held").clone());
                pause();
            }
            record.note(client, invoked, returned, request, &outcome);
        }
    }
    record
}

impl Record {
    fn note(&mut self, client: u32, invoked: Tick, returned: Tick, request: Request, outcome: &Outcome) {
        let returned = match outcome {
            Outcome::Done(_) => {
                self.outcomes.done += 1;
                returned
            }
            Outcome::Unknown(_) => {
                self.outcomes.unknown += 1;
                NEVER
            }
            Outcome::NotApplied(_) => {
                self.outcomes.not_applied += 1;
                if let Request::Note { value } = request {
                    self.ledger.push(LedgerEntry { value, fate: Fate::Refused });
                }
                return; // Left out of the history: if it shows after all, it comes from nowhere.
            }
            Outcome::Refused(why) => panic!("{request:?} was refused: {why}"),
        };
        let done = match outcome {
            Outcome::Done(value) => Some(value),
            _ => None,
        };
        match request {
            Request::Write { key, value } => {
                assert!(done.is_none_or(|reply| reply.text() == Some("OK")), "{request:?}: {outcome:?}");
                let action = RegisterAction::Write(value);
                self.registers.entry(key).or_default().push(Operation { client, invoked, returned, action });
            }
            Request::Read { key } => {
                if let Some(reply) = done {
                    let action = RegisterAction::Read(number_or_nil(reply));
                    self.registers.entry(key).or_default().push(Operation { client, invoked, returned, action });
                }
            }
            Request::Increment { key } => {
                let told = done.map(|reply| match reply {
                    Value::Integer(number) => u64::try_from(*number).expect("counted up from 0"),
                    other => panic!("{request:?}: {other:?}"),
                });
                let action = CounterAction::Increment(told);
                self.counters.entry(key).or_default().push(Operation { client, invoked, returned, action });
            }
            Request::ReadCounter { key } => {
                if let Some(reply) = done {
                    let action = CounterAction::Read(number_or_nil(reply).unwrap_or(0));
                    self.counters.entry(key).or_default().push(Operation { client, invoked, returned, action });
                }
            }
            Request::Note { value } => {
                let fate = if done.is_some() { Fate::Acknowledged } else { Fate::Unknown };
                self.ledger.push(LedgerEntry { value, fate });
            }
        }
    }

    /// Holds every key's history to linearizability.
    ///
    /// # Panics
    /// With the anomaly.
    pub fn assert_linearizable(&self) {
        for (key, operations) in &self.registers {
            check_register(operations)
                .unwrap_or_else(|anomaly| panic!("register:{key} is not linearizable: {anomaly}"));
        }
        for (key, operations) in &self.counters {
            check_counter(operations).unwrap_or_else(|anomaly| panic!("counter:{key} is not linearizable: {anomaly}"));
        }
    }

    /// Holds the servers to the ledger: what was acknowledged is there, what was refused is not.
    ///
    /// # Panics
    /// With the first keys that are wrong.
    pub fn assert_ledger(&self, servers: &[SocketAddr]) {
        let mut client = Client::new(servers.to_vec(), 0);
        let mut wrong = Vec::new();
        for page in self.ledger.chunks(LEDGER_PAGE) {
            let mut words = vec!["MGET".to_owned()];
            words.extend(page.iter().map(|entry| ledger_key(entry.value)));
            let reply = poll("an answer about the ledger", || match client.call(&words) {
                Outcome::Done(Value::Array(values)) => Some(values),
                Outcome::NotApplied(_) | Outcome::Unknown(_) => None,
                other => panic!("MGET: {other:?}"),
            });
            assert_eq!(reply.len(), page.len(), "MGET answers every key");
            for (entry, value) in page.iter().zip(&reply) {
                let held = number_or_nil(value);
                let right = match entry.fate {
                    Fate::Acknowledged => held == Some(entry.value),
                    Fate::Refused => held.is_none(),
                    Fate::Unknown => held.is_none_or(|value| value == entry.value),
                };
                if !right {
                    wrong.push(format!("{} is {held:?}, and was {:?}", ledger_key(entry.value), entry.fate));
                }
            }
        }
        let shown = wrong.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
        assert!(wrong.is_empty(), "{} of {} ledger keys are wrong:\n{shown}", wrong.len(), self.ledger.len());
    }

    /// How many ledger keys were acknowledged.
    pub fn ledger_length(&self) -> usize {
        self.ledger.iter().filter(|entry| entry.fate == Fate::Acknowledged).count()
    }
}

fn number_or_nil(value: &Value) -> Option<u64> {
    match value {
        Value::Nil => None,
        other => Some(other.text().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("not ours: {other:?}"))),
    }
}
