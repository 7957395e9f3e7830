//! A host's handle of one server: open, groups, dispatch, status, close. Any thread may use any clone of it.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use mio::net::TcpListener;
use mio::{Events, Poll};

use super::callback::{call, caught, is_in_callback};
use super::disk::{DirectoryFiles, Disk, remove_leftovers};
use super::dispatch::{Dispatcher, dispatch};
use super::lock::DirectoryLock;
use super::requests::{Requests, Waiter};
use super::resolve::Resolver;
use super::shared::{Input, LoopWaker, Shared, Start, Stream};
use super::signal::Signal;
use super::snapshots::{SnapshotWriter, Sources};
use super::sockets::Sockets;
use super::submission::Inbox;
use super::sync::{Condvar, Mutex, lock, wait};
use super::turn::{self, Clock, FIRST_STREAM, LISTENER, Turn, WAKER};
use super::work_queue::WorkQueue;
use super::{
    CloseError, Config, Dispatch, DispatchError, Group, OpenError, Refused, StartError, StartHow, StateMachine, sys,
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
    Open { threads: Vec<JoinHandle<()>>, lock: DirectoryLock },
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
        let system =
            |action: &'static str| move |error: io::Error| OpenError::System { action, message: error.to_string() };
        let directory = config.data_directory.clone();
        let lock = DirectoryLock::acquire(&directory)?;
        remove_leftovers(&directory);
        let listener = listen(&config.listen)?;
        let listen = listener.local_addr().map_err(system("naming the listener"))?;

        let mut seed = [0; 32];
        getrandom::fill(&mut seed)
            .map_err(|error| OpenError::System { action: "drawing a seed", message: error.to_string() })?;
        let cluster = ClusterId::new(config.cluster.clone()).expect("checked above");
        let me = Me { cluster, id: ServerId(config.id) };
        let clock = Clock::new();
        let mut files = DirectoryFiles::new(&directory);
        let driver = caught(|| Driver::open(config.settings.clone(), me, &mut files, seed, clock.now()));
        let driver = match driver {
            Ok(Ok(driver)) => driver,
            Ok(Err(error)) => return Err(OpenError::Refused { message: error.to_string() }),
            Err(panic) => return Err(OpenError::Refused { message: format!("opening the log {panic}") }),
        };

        let poll = Poll::new().map_err(system("making a poll"))?;
        let waker = mio::Waker::new(poll.registry(), WAKER).map_err(system("making a waker"))?;
        let inbox = Arc::new(Inbox::new(LoopWaker(waker), config.settings.queue_bytes));
        let for_disk = inbox.clone();
        let report: super::disk::Report = Arc::new(move |completed| for_disk.report(Input::Disk(completed)));
        let disk = Disk::open(&directory, config.disk, &report).map_err(system("opening the disk back end"))?;
        turn::register_disk(&poll, &disk).map_err(system("polling the disk"))?;
        let for_resolver = inbox.clone();
        let resolver = Resolver::new(Arc::new(move |resolved| for_resolver.report(Input::Resolved(resolved))));
        let registry = poll.registry().try_clone().map_err(system("making a poll"))?;
        let user_timeout = (10 * config.settings.election_timeout).max(Duration::from_secs(5));
        let sockets = Sockets::new(registry, listener, LISTENER, FIRST_STREAM, resolver, user_timeout)
            .map_err(system("polling the listener"))?;

        let mut threads = Vec::new();
        let for_snapshots = inbox.clone();
        let report = Box::new(move |event| for_snapshots.report(Input::Event(event)));
        let snapshots = match config.dispatch {
            Dispatch::Host => SnapshotWriter::Here(Sources::new(report)),
            Dispatch::Threaded => {
                let (writer, thread) =
                    SnapshotWriter::start_thread(report).map_err(system("starting raft-snapshot"))?;
                threads.push(thread);
                writer
            }
        };
        let signal = Arc::new(Signal::new().map_err(|error| system("making a descriptor")(error.into()))?);
        let status = ServerStatus {
            engine: driver.server_status(),
            listen,
            disk_backend: disk.backend_name(),
            accept_error: None,
            is_closed: false,
            queued_bytes: 0,
        };
        let work = WorkQueue::new(Box::new(Dispatcher::new(directory, snapshots)), signal.clone());
        let shared = Arc::new(Shared::new(inbox, work, signal, &config, status));
        let turn = Turn {
            driver,
            clock,
            poll,
            polled: Events::with_capacity(256),
            shared: shared.clone(),
            sockets,
            disk,
            requests: Requests::default(),
            inputs: std::collections::VecDeque::new(),
            spare_inputs: Vec::new(),
            handed_on_bytes: 0,
            events: Vec::new(),
            completed: Vec::new(),
            work: Vec::new(),
            stream: Stream::default(),
            cells: Vec::new(),
            starting: Vec::new(),
            is_closing: false,
        };
        threads.push(sys::spawn("raft-loop", move || turn::run(turn)).map_err(system("starting raft-loop"))?);
        let mut apply_error = None;
        if config.dispatch == Dispatch::Threaded {
            let for_apply = shared.clone();
            let body = move || while dispatch(&for_apply, usize::MAX, None).is_ok() {};
            match sys::spawn("raft-apply", body) {
                Ok(thread) => threads.push(thread),
                Err(error) => apply_error = Some(system("starting raft-apply")(error)),
            }
        }
        let life = Mutex::new(Life::Open { threads, lock });
        let open = Arc::new(Open { shared, life, closed: Condvar::new() });
        let server = Self { handle: Arc::new(Handle { open }) };
        match apply_error {
            // Dropping it closes what runs already.
            Some(error) => Err(error),
            None => Ok(server),
        }
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
                Life::Open { threads, lock } => break (threads, lock),
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

fn listen(address: &str) -> Result<TcpListener, OpenError> {
    let failed = |message: String| OpenError::Listen { address: address.into(), message };
    let addresses = address.to_socket_addrs().map_err(|error| failed(error.to_string()))?;
    let mut message = "the name has no address".to_owned();
    for address in addresses {
        match TcpListener::bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => message = error.to_string(),
        }
    }
    Err(failed(message))
}
