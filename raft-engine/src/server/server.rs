//! A host's handle of one server: open, groups, dispatch, status, close. Any thread may use any clone of it.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use mio::Poll;
use mio::net::TcpListener;

use super::callback::{call, caught, is_in_callback};
use super::disk::{DirectoryFiles, Disk, remove_leftovers};
use super::dispatch::{Dispatcher, dispatch};
use super::lock::DirectoryLock;
use super::requests::Waiter;
use super::resolve::Resolver;
use super::shared::{Input, LoopWaker, Shared, Start};
use super::signal::Signal;
use super::snapshots::{SnapshotWriter, Sources};
use super::sockets::Sockets;
use super::submission::Inbox;
use super::sync::{Condvar, Mutex, lock, wait};
use super::turn::{self, Clock, FIRST_STREAM, LISTENER, Turn, WAKER};
use super::work_queue::WorkQueue;
use super::{
    CloseError, Config, ConfigError, Dispatch, DispatchError, Group, OpenError, Refused, StartError, StartHow,
    StateMachine, sys,
};
use crate::driver::{self, Driver, Me};
use crate::types::{ClusterId, GroupId, ServerId};

/// What a host may ask of a server at any time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerStatus {
    /// What the driver says.
    pub engine: driver::ServerStatus,
    /// Where it listens: the address with its port, also where port 0 was asked for.
    pub listen: SocketAddr,
    /// `aio`, `thread-direct` (direct and synchronous writes on a thread) or `thread-buffered` (write and fdatasync).
    pub disk_backend: &'static str,
    /// Why nobody is accepted at present (out of descriptors, say); tried again by itself.
    pub accept_error: Option<String>,
    /// Whether it is closed.
    pub is_closed: bool,
    /// Bytes in the submission queue.
    pub queued_bytes: usize,
}

/// An open server. Cheap to clone; dropping the last clone closes it.
#[derive(Clone)]
pub struct Server {
    handle: Arc<Handle>,
}

/// A stream whose bytes nobody acknowledges breaks after ten election timeouts, but not before this.
const LEAST_USER_TIMEOUT: Duration = Duration::from_secs(5);

/// What the start of a group costs the queue's budget, in bytes.
const START_BYTES: usize = 64;

/// Closes when the last clone is gone.
struct Handle {
    open: Arc<Open>,
}

struct Open {
    shared: Arc<Shared>,
    life: Mutex<Life>,
    closed: Condvar,
}

enum Life {
    Open { threads: Vec<JoinHandle<()>>, directory_lock: DirectoryLock },
    Closing,
    Closed,
}

impl Server {
    /// Opens the data directory, recovers its log, listens, and starts the threads. Blocks while it reads the log.
    ///
    /// # Errors
    /// Why it cannot be; nothing runs then, and nothing of the log was changed.
    pub fn open(config: Config) -> Result<Self, OpenError> {
        config.check()?;
        let directory_lock = DirectoryLock::acquire(&config.data_directory)?;
        remove_leftovers(&config.data_directory);
        let listener = listen(&config)?;
        let clock = Clock::new();
        let driver = open_driver(&config, clock)?;
        let (turn, mut threads) = assemble(&config, clock, driver, listener)?;
        let shared = turn.shared.clone();
        threads.push(sys::spawn("raft-loop", move || turn::run(turn)).map_err(system("starting raft-loop"))?);
        let life = Mutex::new(Life::Open { threads, directory_lock });
        let open = Arc::new(Open { shared: shared.clone(), life, closed: Condvar::new() });
        // From here on, dropping it closes what runs.
        let server = Self { handle: Arc::new(Handle { open }) };
        if config.dispatch == Dispatch::Threaded {
            let body = move || while dispatch(&shared, usize::MAX, None).is_ok() {};
            let thread = sys::spawn("raft-apply", body).map_err(system("starting raft-apply"))?;
            if let Life::Open { threads, .. } = &mut *lock(&server.handle.open.life) {
                threads.push(thread);
            }
        }
        Ok(server)
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.open.shared
    }

    /// Starts a group: forms it, or continues it. Blocks until the loop has taken it (not until it is formed), so it is
    /// refused from a callback.
    ///
    /// # Errors
    /// The state machine is dropped, and nothing was started.
    pub fn start_group(
        &self,
        group: GroupId,
        machine: Box<dyn StateMachine>,
        how: StartHow,
    ) -> Result<Group, StartError> {
        let shared = self.shared();
        shared.check_process()?;
        if is_in_callback() {
            return Err(Refused::InCallback.into());
        }
        let stopped = |reason| StartError::Stopped { group, reason };
        let applied = call(|| machine.applied_index()).map_err(|panic| stopped(format!("applied_index {panic}")))?;
        let answer = Arc::new(Waiter::default());
        let start = Box::new(Start { group, machine, applied, how, answer: answer.clone() });
        shared.submit(Input::Start(start), START_BYTES)?;
        answer.wait(Duration::MAX).expect("a wait without an end")?;
        let cell = shared.cell(group).ok_or_else(|| stopped("it was closed at once".into()))?;
        Ok(Group::new(shared.clone(), cell))
    }

    /// Host mode: calls state machines with up to `max` pieces of work (a batch, a query, a step of a snapshot),
    /// waiting up to `timeout` for the first. Returns how many; 0 is possible before the time is over. One thread at a
    /// time does it; others wait.
    ///
    /// # Errors
    /// Closed, called from a callback, or in threaded mode.
    pub fn dispatch(&self, max: usize, timeout: Duration) -> Result<usize, DispatchError> {
        let shared = self.shared();
        if shared.check_process().is_err() {
            return Err(DispatchError::Forked);
        }
        if shared.dispatch == Dispatch::Threaded {
            return Err(DispatchError::Threaded);
        }
        if is_in_callback() {
            return Err(DispatchError::InCallback);
        }
        dispatch(shared, max.max(1), Some(timeout)).map_err(|_| DispatchError::Closed)
    }

    /// A descriptor that polls readable while there is something to dispatch (host mode) or to poll
    /// ([`super::CompletionDelivery::Poll`]), and after close. Never read it or write to it. It is good for as long as
    /// a clone of the server is.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.shared().signal.descriptor()
    }

    /// The server as it was at the end of the loop's last turn. Never blocks.
    pub fn status(&self) -> ServerStatus {
        let shared = self.shared();
        let mut status = ServerStatus::clone(&lock(&shared.status));
        status.is_closed = shared.is_closed.load(Ordering::Acquire);
        status.queued_bytes = shared.inbox.queued_bytes();
        status
    }

    /// A group that was started, if it was.
    pub fn group(&self, group: GroupId) -> Option<Group> {
        let shared = self.shared();
        Some(Group::new(shared.clone(), shared.cell(group)?))
    }

    /// Closes: takes nothing more, makes dispatch return, waits for the callback in progress, ends the threads, and
    /// completes everything still open, on the calling thread or into the poll queues. Everything acknowledged is
    /// durable anyway. Closing again waits for the first close.
    ///
    /// # Errors
    /// Called from a callback, or in a forked child: nothing was done.
    pub fn close(&self) -> Result<(), CloseError> {
        if self.shared().check_process().is_err() {
            return Err(CloseError::Forked);
        }
        if is_in_callback() {
            return Err(CloseError::InCallback);
        }
        self.handle.open.close();
        Ok(())
    }
}

impl Open {
    fn close(&self) {
        let mut life = lock(&self.life);
        let (threads, directory_lock) = loop {
            match std::mem::replace(&mut *life, Life::Closing) {
                Life::Open { threads, directory_lock } => break (threads, directory_lock),
                Life::Closing => life = wait(&self.closed, life, None),
                Life::Closed => {
                    *life = Life::Closed;
                    return;
                }
            }
        };
        drop(life);
        let shared = &self.shared;
        shared.inbox.close(Input::Close);
        shared.work.close();
        // The loop pushes its last work before it ends, and everybody else waits for it or for the work's end. The
        // snapshot thread ends when the dispatcher is dropped.
        let (dispatcher, mut left) = shared.work.take_last();
        let mut joined_later = Vec::new();
        for thread in threads {
            if thread.thread().name() == Some("raft-snapshot") {
                joined_later.push(thread);
            } else {
                let _ = thread.join();
            }
        }
        left.extend(shared.work.take_left());
        if let Err(defect) = caught(|| dispatcher.close(left, shared)) {
            debug_assert!(false, "closing {defect}");
        }
        joined_later.into_iter().for_each(|thread| drop(thread.join()));
        shared.end_polls();
        drop(directory_lock);
        *lock(&self.life) = Life::Closed;
        self.closed.notify_all();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.open.shared.check_process().is_err() {
            return;
        }
        if is_in_callback() {
            // The close must wait for this very callback: somebody else does it.
            let open = self.open.clone();
            let _ = sys::spawn("raft-close", move || open.close());
        } else {
            self.open.close();
        }
    }
}

/// An error of the system, with what was tried.
fn system<E: Into<io::Error>>(action: &'static str) -> impl Fn(E) -> OpenError {
    move |error| OpenError::System { action, message: error.into().to_string() }
}

/// Recovers the log. A panic on what it holds is told like any other refusal.
fn open_driver(config: &Config, clock: Clock) -> Result<Driver, OpenError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| OpenError::System { action: "drawing a seed", message: error.to_string() })?;
    let cluster = ClusterId::new(config.cluster.clone()).expect("checked with the configuration");
    let me = Me { cluster, id: ServerId(config.id) };
    let mut files = DirectoryFiles::new(&config.data_directory);
    match caught(|| Driver::open(config.settings.clone(), me, &mut files, seed, clock.now())) {
        Ok(Ok(driver)) => Ok(driver),
        Ok(Err(error)) => Err(OpenError::Refused { message: error.to_string() }),
        Err(panic) => Err(OpenError::Refused { message: format!("opening the log {panic}") }),
    }
}

/// Puts together everything that a turn moves, with the threads that it needs besides its own.
fn assemble(
    config: &Config,
    clock: Clock,
    driver: Driver,
    listener: TcpListener,
) -> Result<(Turn, Vec<JoinHandle<()>>), OpenError> {
    let poll = Poll::new().map_err(system("making a poll"))?;
    let waker = mio::Waker::new(poll.registry(), WAKER).map_err(system("making a waker"))?;
    let inbox = Arc::new(Inbox::new(LoopWaker(waker), config.settings.queue_bytes));

    let for_disk = inbox.clone();
    let report: super::disk::Report = Arc::new(move |completed| for_disk.report(Input::Disk(completed)));
    let disk = Disk::open(&config.data_directory, config.disk, &report).map_err(system("opening the disk back end"))?;
    turn::register_disk(&poll, &disk).map_err(system("polling the disk"))?;

    let listen = listener.local_addr().map_err(system("naming the listener"))?;
    let for_resolver = inbox.clone();
    let resolver = Resolver::new(Arc::new(move |resolved| for_resolver.report(Input::Resolved(resolved))));
    let registry = poll.registry().try_clone().map_err(system("making a poll"))?;
    let user_timeout = (10 * config.settings.election_timeout).max(LEAST_USER_TIMEOUT);
    let sockets = Sockets::new(registry, listener, LISTENER, FIRST_STREAM, resolver, user_timeout, config.plaintext)
        .map_err(system("polling the listener"))?;

    let mut threads = Vec::new();
    let for_snapshots = inbox.clone();
    let report = Box::new(move |event| for_snapshots.report(Input::Event(event)));
    let snapshots = match config.dispatch {
        Dispatch::Host => SnapshotWriter::Here(Sources::new(report)),
        Dispatch::Threaded => {
            let (writer, thread) = SnapshotWriter::start_thread(report).map_err(system("starting raft-snapshot"))?;
            threads.push(thread);
            writer
        }
    };
    let signal = Arc::new(Signal::new().map_err(system("making a descriptor"))?);
    let status = ServerStatus {
        engine: driver.server_status(),
        listen,
        disk_backend: disk.backend_name(),
        accept_error: None,
        is_closed: false,
        queued_bytes: 0,
    };
    let dispatcher = Box::new(Dispatcher::new(ServerId(config.id), config.data_directory.clone(), snapshots));
    let work = WorkQueue::new(dispatcher, signal.clone());
    let shared = Arc::new(Shared::new(inbox, work, signal, config, status));
    Ok((Turn::new(driver, clock, poll, shared, sockets, disk), threads))
}

fn listen(config: &Config) -> Result<TcpListener, OpenError> {
    let address = &config.listen;
    let failed = |message: String| OpenError::Listen { address: address.into(), message };
    let addresses = address.to_socket_addrs().map_err(|error| failed(error.to_string()))?;
    let mut message = "the name has no address".to_owned();
    for address in addresses {
        if !config.plaintext.allows(&address) {
            let message = format!(
                "listening on {address} would take and give everything unencrypted beyond this machine: listen on a \
                 loopback address, or set plaintext=anywhere where only you can reach that network"
            );
            return Err(ConfigError::Conflict { message }.into());
        }
        match TcpListener::bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => message = error.to_string(),
        }
    }
    Err(failed(message))
}

#[cfg(test)]
mod tests {
    use super::super::{
        ApplyBatch, ApplyFailure, CallError, Completion, Item, SnapshotReader, SnapshotSource, Unknown,
    };
    use super::*;
    use crate::driver::MemberArgument;
    use crate::types::GroupSettings;

    const BOUND: Duration = Duration::from_secs(30);

    /// Tells of completions, and lets `apply` wait until the test has dropped its end.
    struct Told {
        completions: std::sync::mpsc::Sender<Completion>,
        gate: std::sync::mpsc::Receiver<()>,
    }

    impl StateMachine for Told {
        fn apply(&mut self, _batch: &mut ApplyBatch<'_>) -> Result<(), ApplyFailure> {
            let _ = self.gate.recv();
            Ok(())
        }

        fn snapshot(&mut self) -> Result<Box<dyn SnapshotSource>, String> {
            Err("none".into())
        }

        fn restore(&mut self, _snapshot: &mut SnapshotReader) -> Result<(), String> {
            Err("none".into())
        }

        fn completed(&mut self, completions: &[Completion]) {
            completions.iter().for_each(|completion| drop(self.completions.send(completion.clone())));
        }
    }

    #[test]
    fn a_defect_in_the_engine_stops_the_server_and_leaves_nobody_without_an_answer() {
        let root = tempfile::tempdir().unwrap();
        let server = Server::open(Config::new("test", 1, root.path().join("data"), "127.0.0.1:0")).unwrap();
        let (sender, completions) = std::sync::mpsc::channel();
        let (open_gate, gate) = std::sync::mpsc::channel();
        let address = server.status().listen.to_string();
        let member = MemberArgument::new(ServerId(1), address);
        let machine = Box::new(Told { completions: sender, gate });
        let group = server
            .start_group(
                GroupId(1),
                machine,
                StartHow::Bootstrap { members: vec![member], settings: GroupSettings::default() },
            )
            .unwrap();
        // Any number of these may be open in the driver, on their way, or not taken yet.
        let batch = |first: u64| (first..first + 10).map(|tag| Item { tag, data: "x".into(), session: None }).collect();
        let mut expected = 0;
        for first in (0..1000).step_by(10) {
            if first == 500 {
                server.shared().inbox.report(Input::Defect("on purpose".into()));
            }
            expected += group.propose(batch(first)).map_or(0, |()| 10);
        }
        let waited = group.propose_wait("y".into(), BOUND).unwrap_err();
        assert_ne!(waited, CallError::Unknown(Unknown::TimedOut));
        drop(open_gate);
        let mut tags: Vec<u64> = (0..expected).map(|_| completions.recv_timeout(BOUND).unwrap().tag).collect();
        tags.sort_unstable();
        assert_eq!(tags, (0..expected).collect::<Vec<_>>());
        assert!(server.status().engine.stopped.unwrap().contains("on purpose"));
        assert_eq!(group.propose(batch(0)), Err(Refused::Stopped));
        server.close().unwrap();
        assert_eq!(group.propose(batch(0)), Err(Refused::Closed));
    }
}
