//! Snapshots being written, a step at a time: on a thread of their own in threaded mode, so that entries are applied
//! meanwhile; in host mode wherever the dispatch runs, between batches.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;

use super::SnapshotSource;
use super::callback::call;
use super::sys;
use crate::driver::{Event, FrozenSessions};
use crate::types::{GroupId, SnapshotSection};

/// The bytes of one step.
const STEP_BYTES: usize = 256 << 10;

/// What is to be done with a group's snapshot.
pub(super) enum Task {
    Begin(GroupId, Box<FrozenSessions>, Box<dyn SnapshotSource>),
    Step(GroupId),
    Release(GroupId),
}

/// Takes what comes of it, from any thread.
pub(super) type ReportEvent = Box<dyn Fn(Event) + Send>;

/// Writes snapshots.
pub(super) enum SnapshotWriter {
    /// On the thread that dispatches.
    Here(Sources),
    /// On `raft-snapshot`, which ends when this is dropped.
    Thread(mpsc::Sender<Task>),
}

impl SnapshotWriter {
    /// Starts the thread.
    pub(super) fn start_thread(report: ReportEvent) -> io::Result<(Self, JoinHandle<()>)> {
        let (sender, receiver) = mpsc::channel();
        let mut sources = Sources::new(report);
        let thread = sys::spawn("raft-snapshot", move || {
            while let Ok(task) = receiver.recv() {
                sources.run(task);
            }
            sources.release_all();
        })?;
        Ok((Self::Thread(sender), thread))
    }

    pub(super) fn run(&mut self, task: Task) {
        match self {
            Self::Here(sources) => sources.run(task),
            // The thread outlives the sender; if it is gone, so is whoever waits for the snapshot.
            Self::Thread(sender) => drop(sender.send(task)),
        }
    }
}

/// The sources of snapshots being written.
pub(super) struct Sources {
    report: ReportEvent,
    sources: BTreeMap<GroupId, Source>,
}

/// One snapshot being written.
struct Source {
    /// What comes first, until it is written.
    sessions: Option<Box<FrozenSessions>>,
    host: Box<dyn SnapshotSource>,
}

impl Sources {
    pub(super) fn new(report: ReportEvent) -> Self {
        Self { report, sources: BTreeMap::new() }
    }

    fn run(&mut self, task: Task) {
        match task {
            Task::Begin(group, sessions, host) => {
                let former = self.sources.insert(group, Source { sessions: Some(sessions), host });
                let _ = call(|| drop(former));
            }
            Task::Step(group) => self.step(group),
            Task::Release(group) => {
                let source = self.sources.remove(&group);
                let _ = call(|| drop(source));
            }
        }
    }

    fn step(&mut self, group: GroupId) {
        // One that failed to begin has been reported.
        let Some(source) = self.sources.get_mut(&group) else { return };
        if let Some(sessions) = &mut source.sessions {
            let (bytes, has_ended) = sessions.next_piece(STEP_BYTES);
            source.sessions.take_if(|_| has_ended);
            let section = SnapshotSection::Sessions;
            return (self.report)(Event::SnapshotChunk { group, section, bytes, is_last: false });
        }
        let mut buffer = vec![0; STEP_BYTES];
        let result = call(|| source.host.write(&mut buffer)).unwrap_or_else(|panic| Err(format!("snapshot {panic}")));
        match result {
            Ok(step) if step.bytes <= buffer.len() => {
                buffer.truncate(step.bytes);
                let (section, is_last) = (SnapshotSection::Host, step.is_last);
                (self.report)(Event::SnapshotChunk { group, section, bytes: buffer.into(), is_last });
            }
            Ok(step) => {
                let message = format!("a step of {} bytes does not fit its buffer of {STEP_BYTES}", step.bytes);
                (self.report)(Event::SnapshotFailed { group, message });
            }
            Err(message) => (self.report)(Event::SnapshotFailed { group, message }),
        }
    }

    fn release_all(&mut self) {
        for (_, source) in std::mem::take(&mut self.sources) {
            let _ = call(|| drop(source));
        }
    }
}

impl Drop for Sources {
    fn drop(&mut self) {
        self.release_all();
    }
}
