//! The state machine of these tests, and what a test sees of it.

use std::io::Read;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;

use raft_engine::server::{
    ApplyBatch, ApplyFailure, Completion, HostDigest, Notice, SnapshotReader, SnapshotSource, SnapshotStep,
    StateMachine,
};

use super::BOUND;

/// What the state machine of a test has seen, shared with the test.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) state: Mutex<SeenState>,
    pub(super) changed: Condvar,
}

#[derive(Default)]
pub(super) struct SeenState {
    pub(super) items: Vec<Vec<u8>>,
    pub(super) completions: Vec<Completion>,
    pub(super) notices: Vec<Notice>,
    pub(super) restores: usize,
    pub(super) snapshots: usize,
    /// What is added to the digest of the state, as if it were another.
    pub(super) skew: u64,
}

impl Seen {
    pub(super) fn wait(&self, what: &str, mut condition: impl FnMut(&mut SeenState) -> bool) {
        let state = self.state.lock().unwrap();
        let (state, timeout) = self.changed.wait_timeout_while(state, BOUND, |state| !condition(state)).unwrap();
        assert!(!timeout.timed_out(), "not in time: {what}; {:?}", state.notices);
    }

    pub(super) fn items(&self) -> Vec<Vec<u8>> {
        self.state.lock().unwrap().items.clone()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut SeenState)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }
}

/// Keeps every command. A result is the number of commands so far. Fails at `fail`, panics at `panic`.
pub(super) struct List {
    pub(super) items: Vec<Vec<u8>>,
    pub(super) seen: Arc<Seen>,
    pub(super) in_callback: Callback,
}

pub(super) type Callback = Box<dyn FnMut(&[Completion]) + Send>;

impl List {
    pub(super) fn new(seen: &Arc<Seen>) -> Box<Self> {
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

    fn digest(&mut self) -> Result<Option<HostDigest>, String> {
        let sum = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        let sum = self.items.iter().flatten().fold(0xcbf2_9ce4_8422_2325, sum);
        // Nothing is held where it panics.
        let skew = self.seen.state.lock().unwrap().skew;
        match skew {
            1 => Ok(None),
            2 => Err("told to fail".into()),
            3 => panic!("told to panic"),
            skew => Ok(Some(HostDigest::from(sum.wrapping_add(skew)))),
        }
    }

    fn completed(&mut self, completions: &[Completion]) {
        self.seen.change(|state| state.completions.extend_from_slice(completions));
        (self.in_callback)(completions);
    }

    fn notice(&mut self, notice: &Notice) {
        self.seen.change(|state| state.notices.push(notice.clone()));
    }
}

pub(super) struct ListSnapshot {
    pub(super) bytes: Vec<u8>,
    pub(super) done: usize,
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
