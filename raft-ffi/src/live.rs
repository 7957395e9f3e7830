//! Servers and groups as hosts name them: by numbers that look like pointers.
//!
//! These handles are shared by threads and misused most. A number is never used again: a call with a handle that
//! was released, of the other kind, or made up is always told, and a handle that is released during a call does no harm
//! to the call. They are odd, so that none is mistaken for an object of [`crate::handle`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, RwLock};

use raft_engine::server::{Completion, Group, Server};

use crate::error::{Failure, RAFT_ERR_FORKED, RAFT_ERR_HANDLE};
use crate::group::raft_group;
use crate::server::raft_server;

const _: () = assert!(usize::BITS >= 64, "handles are 64-bit numbers");

/// An open or closed server that was not freed.
pub(crate) struct LiveServer {
    /// The engine's handle.
    pub(crate) server: Server,
    /// Whether completions are polled.
    pub(crate) is_polled: bool,
    /// The longest proposal, in bytes.
    pub(crate) max_entry_bytes: usize,
    /// The most that one batch of proposals may hold, in bytes.
    pub(crate) queue_bytes: usize,
}

/// A started group of such a server.
pub(crate) struct LiveGroup {
    /// The engine's handle.
    pub(crate) group: Group,
    /// Its server.
    pub(crate) server: Arc<LiveServer>,
    /// The state machine has `completed`.
    pub(crate) has_completed: bool,
    /// The state machine has `query`.
    pub(crate) has_query: bool,
    /// What the last poll lent.
    polled: Mutex<Polled>,
}

/// What a poll lends until the next one.
#[derive(Default)]
pub(crate) struct Polled {
    /// The completions, which hold the results.
    pub(crate) completions: Vec<Completion>,
    /// Messages of those that failed.
    pub(crate) messages: Vec<String>,
}

impl LiveGroup {
    pub(crate) fn new(group: Group, server: Arc<LiveServer>, has_completed: bool, has_query: bool) -> Self {
        Self { group, server, has_completed, has_query, polled: Mutex::default() }
    }

    /// What the last poll lent.
    pub(crate) fn polled(&self) -> MutexGuard<'_, Polled> {
        self.polled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Registry {
    /// The last number given out.
    last: usize,
    servers: BTreeMap<usize, Arc<LiveServer>>,
    /// A group, and the number of its server.
    groups: BTreeMap<usize, (usize, Arc<LiveGroup>)>,
}

static REGISTRY: RwLock<Registry> =
    RwLock::new(Registry { last: 0, servers: BTreeMap::new(), groups: BTreeMap::new() });

/// Servers that are open or being opened. A process forked while there are any may not call: their threads are not in
/// it, and locks may be held for ever.
static OPEN_SERVERS: AtomicUsize = AtomicUsize::new(0);
static IS_FORKED: AtomicBool = AtomicBool::new(false);

/// Odd, ascending, never used again.
fn next(registry: &mut Registry) -> usize {
    registry.last += 1;
    registry.last * 2 + 1
}

/// Refuses to do anything in the child of a process that had a server.
pub(crate) fn refuse_forked() -> Result<(), Failure> {
    if !IS_FORKED.load(Ordering::Relaxed) {
        return Ok(());
    }
    let message = "this process was forked from one that had a server open: the server lives in the parent only";
    Err(Failure::new(RAFT_ERR_FORKED, message))
}

/// Counts a server from before it is opened until it is gone.
pub(crate) struct Opening(bool);

impl Opening {
    /// Says that a server is about to be opened.
    pub(crate) fn begin() -> Self {
        extern "C" fn in_child() {
            if OPEN_SERVERS.load(Ordering::Relaxed) > 0 {
                IS_FORKED.store(true, Ordering::Relaxed);
            }
        }
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            // SAFETY: the handler only touches atomics. That it may fail for want of memory costs the check only.
            unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        });
        OPEN_SERVERS.fetch_add(1, Ordering::Relaxed);
        Self(true)
    }

    /// The server is open: it counts until [`remove`].
    fn keep(mut self) {
        self.0 = false;
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if self.0 {
            OPEN_SERVERS.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Gives a server its handle.
pub(crate) fn add_server(server: LiveServer, opening: Opening) -> *mut raft_server {
    let mut registry = REGISTRY.write().unwrap_or_else(PoisonError::into_inner);
    let number = next(&mut registry);
    registry.servers.insert(number, Arc::new(server));
    opening.keep();
    std::ptr::without_provenance_mut(number)
}

/// Gives a group its handle, as long as its server lives.
pub(crate) fn add_group(server: *mut raft_server, group: LiveGroup) -> Result<*mut raft_group, Failure> {
    let mut registry = REGISTRY.write().unwrap_or_else(PoisonError::into_inner);
    if !registry.servers.contains_key(&server.addr()) {
        return Err(not_a_server());
    }
    let number = next(&mut registry);
    registry.groups.insert(number, (server.addr(), Arc::new(group)));
    Ok(std::ptr::without_provenance_mut(number))
}

/// The server that a handle names.
pub(crate) fn server(handle: *const raft_server) -> Result<Arc<LiveServer>, Failure> {
    refuse_forked()?;
    let registry = REGISTRY.read().unwrap_or_else(PoisonError::into_inner);
    registry.servers.get(&handle.addr()).cloned().ok_or_else(not_a_server)
}

/// The group that a handle names.
pub(crate) fn group(handle: *const raft_group) -> Result<Arc<LiveGroup>, Failure> {
    refuse_forked()?;
    let registry = REGISTRY.read().unwrap_or_else(PoisonError::into_inner);
    let group = registry.groups.get(&handle.addr()).map(|(_, group)| group.clone());
    group.ok_or_else(|| Failure::new(RAFT_ERR_HANDLE, "this is no group of a server that lives"))
}

/// Takes a server and its groups away: their handles name nothing from now on.
pub(crate) fn remove(handle: *const raft_server) {
    let mut registry = REGISTRY.write().unwrap_or_else(PoisonError::into_inner);
    let Some(server) = registry.servers.remove(&handle.addr()) else { return };
    let (gone, kept) = std::mem::take(&mut registry.groups).into_iter().partition(|(_, (of, _))| *of == handle.addr());
    registry.groups = kept;
    OPEN_SERVERS.fetch_sub(1, Ordering::Relaxed);
    drop(registry);
    // Dropped last and outside of the lock: it may take a while.
    let gone: BTreeMap<usize, (usize, Arc<LiveGroup>)> = gone;
    drop(gone);
    drop(server);
}

fn not_a_server() -> Failure {
    Failure::new(RAFT_ERR_HANDLE, "this is no server that lives")
}
