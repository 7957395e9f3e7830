//! The host's state machine as the engine sees it: a table of C functions behind the engine's trait.

use std::ffi::{CString, c_void};
use std::ptr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use raft_engine::server::{
    ApplyBatch, ApplyFailure, Completion, HostDigest, Notice, Role, SnapshotReader, SnapshotSource, SnapshotStep,
    StateMachine,
};
use raft_engine::types::Index;

use crate::call::InCallback;
use crate::completion;
use crate::handle::Lent;
use crate::state_machine::*;
use crate::status::role_number;

/// The host's table, shared by the state machine and the snapshots that it began: `destroy` comes after all of them.
pub(crate) struct Table {
    functions: raft_state_machine,
    /// Set when `destroy` is called, after which nothing else is. Callbacks hold it shared.
    is_let_go: RwLock<bool>,
}

// SAFETY: the header says which threads call the functions, and that `user` must bear it.
unsafe impl Send for Table {}
// SAFETY: as above; the one function that does not take turns with the others is named there.
unsafe impl Sync for Table {}

/// A callback of the host in progress.
struct Call<'a> {
    _callback: InCallback,
    _shared: RwLockReadGuard<'a, bool>,
}

impl Table {
    /// Enters a callback; `None` if the host was told that there would be no more.
    fn enter(&self) -> Option<Call<'_>> {
        let shared = self.is_let_go.read().unwrap_or_else(PoisonError::into_inner);
        if *shared {
            return None;
        }
        Some(Call { _callback: InCallback::enter(), _shared: shared })
    }

    /// As [`Table::enter`], where the engine wants to hear a reason.
    fn enter_or_say(&self) -> Result<Call<'_>, String> {
        self.enter().ok_or_else(|| "the state machine was let go".into())
    }

    /// Waits for the callback in progress and calls `destroy`, if that was not done.
    pub(crate) fn let_go(&self) {
        let mut is_let_go = self.is_let_go.write().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *is_let_go, true) {
            return;
        }
        if let Some(destroy) = self.functions.destroy {
            let _callback = InCallback::enter();
            // SAFETY: `user` is the host's own, and nothing calls with it afterwards.
            unsafe { destroy(self.functions.user) };
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// A state machine of the host.
pub(crate) struct HostMachine {
    table: Arc<Table>,
    applied: Index,
    /// The entries of the batch being applied; kept for its capacity.
    entries: Vec<raft_entry>,
    /// The completions being told; kept for its capacity.
    completions: Vec<raft_completion>,
}

// SAFETY: `table` is Send, and the two vectors hold pointers during a callback only.
unsafe impl Send for HostMachine {}

impl HostMachine {
    /// Takes the host's table: from now on its `destroy` will be called, once.
    pub(crate) fn new(table: raft_state_machine, applied: Index) -> Self {
        let table = Arc::new(Table { functions: table, is_let_go: RwLock::new(false) });
        Self { table, applied, entries: Vec::new(), completions: Vec::new() }
    }

    /// What the host gave.
    pub(crate) fn functions(&self) -> &raft_state_machine {
        &self.table.functions
    }

    /// The table, to let go of it where the engine does not take the state machine.
    pub(crate) fn table(&self) -> Arc<Table> {
        self.table.clone()
    }
}

impl StateMachine for HostMachine {
    fn apply(&mut self, batch: &mut ApplyBatch<'_>) -> Result<(), ApplyFailure> {
        let Some(apply) = self.table.functions.apply else {
            return Err(ApplyFailure { applied: 0, message: "the state machine has no `apply`".into() });
        };
        let count = batch.len();
        self.entries.clear();
        self.entries.extend(batch.entries().map(|entry| raft_entry {
            index: entry.index,
            term: entry.term,
            log_time: entry.log_time.0,
            data: entry.data.as_ptr(),
            length: entry.data.len(),
            reserved: [0; 3],
        }));
        assert_eq!(self.entries.len(), count);
        let mut results = Lent::new(raft_results { batch: ptr::from_mut(batch).cast(), failure: None });
        let applied = {
            let call = self.table.enter_or_say();
            let _call = call.map_err(|message| ApplyFailure { applied: 0, message })?;
            // SAFETY: the table is the host's; entries and results live until it returns.
            unsafe { apply(self.table.functions.user, self.entries.as_ptr(), count, results.pointer()) }
        };
        self.entries.clear();
        let failure = results.value().failure.take();
        if applied == count {
            return Ok(());
        }
        let message = match failure {
            _ if applied > count => format!("`apply` says that it applied {applied} entries of {count}"),
            Some(message) => message,
            None => "`apply` gave no reason".into(),
        };
        Err(ApplyFailure { applied: if applied > count { 0 } else { applied }, message })
    }

    fn query(&mut self, request: &[u8], reply: &mut Vec<u8>) -> Result<(), String> {
        let Some(query) = self.table.functions.query else { return Err("the state machine has no `query`".into()) };
        let mut answer = Lent::new(raft_reply { bytes: Vec::new() });
        let data = if request.is_empty() { ptr::null() } else { request.as_ptr() };
        let status = {
            let _call = self.table.enter_or_say()?;
            // SAFETY: the table is the host's; request and reply live until it returns.
            unsafe { query(self.table.functions.user, data, request.len(), answer.pointer()) }
        };
        let bytes = std::mem::take(&mut answer.value().bytes);
        if status == 0 {
            if reply.is_empty() {
                *reply = bytes
            } else {
                reply.extend_from_slice(&bytes)
            }
            return Ok(());
        }
        match bytes.is_empty() {
            true => Err(format!("`query` returned {status}")),
            false => Err(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    fn snapshot(&mut self) -> Result<Box<dyn SnapshotSource>, String> {
        let Some(begin) = self.table.functions.snapshot_begin else {
            return Err("the state machine has no snapshots".into());
        };
        let mut snapshot = ptr::null_mut();
        let status = {
            let _call = self.table.enter_or_say()?;
            // SAFETY: the table is the host's; `snapshot` may be written.
            unsafe { begin(self.table.functions.user, &raw mut snapshot) }
        };
        match status {
            0 => Ok(Box::new(HostSnapshot { table: self.table.clone(), snapshot })),
            _ => Err(format!("`snapshot_begin` returned {status}")),
        }
    }

    fn restore(&mut self, snapshot: &mut SnapshotReader) -> Result<(), String> {
        let Some(restore) = self.table.functions.restore else {
            return Err("the state machine has no `restore`, and there is a snapshot to restore".into());
        };
        let mut reader = Lent::new(raft_snapshot_reader { reader: ptr::from_mut(snapshot) });
        let status = {
            let _call = self.table.enter_or_say()?;
            // SAFETY: the table is the host's; the reader lives until it returns.
            unsafe { restore(self.table.functions.user, reader.pointer()) }
        };
        match status {
            0 => Ok(()),
            _ => Err(format!("`restore` returned {status}")),
        }
    }

    fn digest(&mut self) -> Result<Option<HostDigest>, String> {
        let Some(digest) = self.table.functions.digest else { return Ok(None) };
        let mut bytes = [0; HostDigest::BYTES];
        let status = {
            let _call = self.table.enter_or_say()?;
            // SAFETY: the table is the host's; `bytes` may be written until it returns.
            unsafe { digest(self.table.functions.user, bytes.as_mut_ptr()) }
        };
        match status {
            0 => Ok(Some(HostDigest(bytes))),
            _ => Err(format!("`digest` returned {status}")),
        }
    }

    fn completed(&mut self, completions: &[Completion]) {
        let Some(completed) = self.table.functions.completed else { return };
        let mut messages = Vec::new();
        self.completions.clear();
        completion::translate(completions, &mut messages, |completion| self.completions.push(completion));
        if let Some(_call) = self.table.enter() {
            // SAFETY: the table is the host's; completions, results and messages live until it returns.
            unsafe { completed(self.table.functions.user, self.completions.as_ptr(), self.completions.len()) };
        }
        self.completions.clear();
    }

    fn notice(&mut self, notice: &Notice) {
        let Some(callback) = self.table.functions.notice else { return };
        let mut told = raft_notice {
            size: size_of::<raft_notice>(),
            kind: 0,
            role: 0,
            term: 0,
            leader: 0,
            server: 0,
            message: ptr::null(),
            index: 0,
        };
        let message = match notice {
            Notice::Formed { group } => {
                told.kind = RAFT_NOTICE_FORMED;
                format!("group {group} is formed")
            }
            Notice::Role { group, role, term, leader } => {
                told.kind = RAFT_NOTICE_ROLE;
                told.role = role_number(*role);
                told.term = *term;
                told.leader = leader.map_or(0, |leader| leader.0);
                let role = match role {
                    Role::Forming => "forming",
                    Role::Follower => "follower",
                    Role::PreCandidate => "pre-candidate",
                    Role::Candidate => "candidate",
                    Role::Leader => "leader",
                };
                format!("{role} in group {group} and term {term}")
            }
            Notice::Configuration { group, configuration } => {
                told.kind = RAFT_NOTICE_MEMBERS;
                format!("group {group} has {} members", configuration.members.len())
            }
            Notice::Removed { group, index } => {
                told.kind = RAFT_NOTICE_REMOVED;
                format!("entry {index} of group {group} removed this server from it")
            }
            Notice::Diverged { group, check } => {
                told.kind = RAFT_NOTICE_DIVERGED;
                told.index = check.index;
                format!("the replicas of group {group} differ: {check}")
            }
            Notice::GroupStopped { reason, .. } => {
                told.kind = RAFT_NOTICE_GROUP_STOPPED;
                reason.clone()
            }
            Notice::ServerStopped { reason } => {
                told.kind = RAFT_NOTICE_SERVER_STOPPED;
                reason.clone()
            }
            Notice::Refused { peer, reason, .. } => {
                told.kind = RAFT_NOTICE_REFUSED;
                told.server = peer.map_or(0, |peer| peer.0);
                reason.clone()
            }
            Notice::Warning { message } => {
                told.kind = RAFT_NOTICE_WARNING;
                message.clone()
            }
        };
        let message = c_text(message);
        told.message = message.as_ptr();
        let Some(_call) = self.table.enter() else { return };
        // SAFETY: the table is the host's; the notice and its message live until it returns.
        unsafe { callback(self.table.functions.user, &raw const told) };
    }

    fn applied_index(&self) -> Index {
        self.applied
    }
}

/// A snapshot that the host began.
struct HostSnapshot {
    table: Arc<Table>,
    snapshot: *mut c_void,
}

// SAFETY: the header says that a snapshot is written on another thread.
unsafe impl Send for HostSnapshot {}

impl SnapshotSource for HostSnapshot {
    fn write(&mut self, buffer: &mut [u8]) -> Result<SnapshotStep, String> {
        let Some(write) = self.table.functions.snapshot_write else {
            return Err("the state machine has no `snapshot_write`".into());
        };
        let mut written = 0;
        // A byte, because any byte may come back; a bool of C is one.
        let mut done = 0_u8;
        let status = {
            let _call = self.table.enter_or_say()?;
            // SAFETY: the table is the host's; buffer, `written` and `done` may be written until it returns.
            unsafe {
                write(
                    self.table.functions.user,
                    self.snapshot,
                    buffer.as_mut_ptr(),
                    buffer.len(),
                    &raw mut written,
                    (&raw mut done).cast(),
                )
            }
        };
        if status != 0 {
            return Err(format!("`snapshot_write` returned {status}"));
        }
        if written > buffer.len() {
            return Err(format!("`snapshot_write` says that it wrote {written} bytes of {}", buffer.len()));
        }
        Ok(SnapshotStep { bytes: written, is_last: done != 0 })
    }
}

impl Drop for HostSnapshot {
    fn drop(&mut self) {
        let Some(release) = self.table.functions.snapshot_release else { return };
        if let Some(_call) = self.table.enter() {
            // SAFETY: the table is the host's, and this is the snapshot's end.
            unsafe { release(self.table.functions.user, self.snapshot) };
        }
    }
}

/// A text for C: what follows a NUL inside of it is lost with the NUL.
pub(crate) fn c_text(text: String) -> CString {
    CString::new(text).unwrap_or_else(|error| {
        let end = error.nul_position();
        let mut bytes = error.into_vec();
        bytes.truncate(end);
        CString::new(bytes).unwrap_or_default()
    })
}
