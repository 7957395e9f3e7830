//! The side of the state machines: one piece of work after another, in the order in which the loop handed it out, on
//! whichever thread holds the dispatcher. Applies batches, answers queries when their index is applied, writes and
//! restores snapshots, and delivers completions. Decides nothing: a failure goes to the driver, which stops the group.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::callback::{call, caught};
use super::disk::path_of;
use super::requests::{Question, ReplyTo, Request};
use super::shared::{GroupCell, Input, Shared, Stream};
use super::snapshots::{SnapshotWriter, Task};
use super::work_queue::Taken;
use super::{
    ApplyBatch, Completion, CompletionDelivery, NotApplied, Notice, Outcome, SnapshotReader, StateMachine, Unknown,
};
use crate::driver::{Event, Fate, Sessions, digest_check};
use crate::types::{Entry, EntryKind, FileName, GroupId, Index, Position, ServerId, SnapshotMeta};

/// One piece of work for a state machine.
pub(super) enum Work {
    /// A group starts.
    Start { cell: Arc<GroupCell>, machine: Box<dyn StateMachine>, applied: Index },
    /// It did not, after all.
    Forget { group: GroupId },
    /// Committed entries, and whom to answer, by position among them, ascending.
    Apply { group: GroupId, entries: Vec<Entry>, requests: Vec<(u32, ReplyTo)> },
    /// Ends of requests that need no state machine.
    Complete { group: GroupId, completions: Vec<Completion> },
    /// A read that may be answered once `index` is applied.
    Read { request: Request, index: Index },
    /// A snapshot of the state as it is.
    BeginSnapshot { group: GroupId },
    /// Its next step.
    SnapshotStep { group: GroupId },
    /// Its end.
    ReleaseSnapshot { group: GroupId },
    /// A snapshot to take the place of the sessions, and of the state unless that is further already.
    Restore { group: GroupId, file: FileName, meta: SnapshotMeta, with_host: bool },
    /// Something to be told.
    Notice(Notice),
}

/// Applying is told to a sleeping loop only after so many bytes: until then nothing waits for it there, and whatever
/// else wakes it brings the news along. Well below what the driver lets be outstanding.
const UNHEARD_BYTES: usize = 1 << 20;

/// All state machines of a server.
pub(super) struct Dispatcher {
    me: ServerId,
    directory: PathBuf,
    machines: BTreeMap<GroupId, Machine>,
    snapshots: SnapshotWriter,
    /// Reused from batch to batch.
    results: Vec<u8>,
    places: Vec<(u32, u32)>,
    /// Applied since the loop was last woken for it, in bytes.
    unheard_bytes: usize,
}

struct Machine {
    machine: Box<dyn StateMachine>,
    cell: Arc<GroupCell>,
    sessions: Sessions,
    applied: Index,
    /// What the state held by itself when the group was started.
    held: Index,
    /// A callback failed: nothing is applied or asked any more.
    is_stopped: bool,
    /// Reads whose index is not applied yet.
    parked: Vec<(Index, Request)>,
}

/// Takes work and does it: the one way in which callbacks are called. Returns how much it did.
///
/// # Errors
/// The server closes.
pub(super) fn dispatch(shared: &Shared, max: usize, timeout: Option<Duration>) -> Result<usize, Closing> {
    let mut work = VecDeque::new();
    let mut dispatcher = match shared.work.take(max, timeout, &mut work) {
        Taken::Work(dispatcher) => dispatcher,
        Taken::Nothing => return Ok(0),
        Taken::Closing => return Err(Closing),
    };
    let count = work.len();
    for work in work {
        if let Err(defect) = caught(|| dispatcher.run(work, shared)) {
            shared.inbox.report(Input::Defect(format!("dispatch {defect}")));
        }
    }
    if dispatcher.unheard_bytes >= UNHEARD_BYTES {
        dispatcher.unheard_bytes = 0;
        shared.inbox.nudge();
    }
    shared.work.give_back(dispatcher);
    Ok(count)
}

/// The server closes: nothing is dispatched any more.
#[derive(Debug)]
pub(super) struct Closing;

impl Dispatcher {
    pub(super) fn new(me: ServerId, directory: PathBuf, snapshots: SnapshotWriter) -> Self {
        Self {
            me,
            directory,
            machines: BTreeMap::new(),
            snapshots,
            results: Vec::new(),
            places: Vec::new(),
            unheard_bytes: 0,
        }
    }

    /// Does one piece of work.
    pub(super) fn run(&mut self, work: Work, shared: &Shared) {
        match work {
            Work::Start { cell, machine, applied } => {
                let id = cell.id;
                let sessions = Sessions::default();
                let machine =
                    Machine { machine, cell, sessions, applied, held: applied, is_stopped: false, parked: Vec::new() };
                self.machines.insert(id, machine);
            }
            Work::Forget { group } => {
                let machine = self.machines.remove(&group);
                let _ = call(|| drop(machine));
            }
            Work::Apply { group, entries, requests } => self.apply(group, entries, requests, shared),
            Work::Complete { group, completions } => {
                if let Some(machine) = self.machines.get_mut(&group) {
                    machine.deliver(completions, shared);
                }
            }
            Work::Read { request, index } => {
                let Some(machine) = self.machines.get_mut(&request.group) else {
                    return refuse(request, NotApplied::Closed, shared, &mut Stream::default());
                };
                if machine.applied < index && !machine.is_stopped {
                    machine.parked.push((index, request));
                } else {
                    let mut stream = Stream::default();
                    machine.answer(request, shared, &mut stream);
                    machine.deliver_stream(stream, shared);
                }
            }
            Work::BeginSnapshot { group } => self.begin_snapshot(group, shared),
            Work::SnapshotStep { group } => self.snapshots.run(Task::Step(group)),
            Work::ReleaseSnapshot { group } => self.snapshots.run(Task::Release(group)),
            Work::Restore { group, file, meta, with_host } => self.restore(group, &file, &meta, with_host, shared),
            Work::Notice(notice) => self.notice(&notice, shared),
        }
    }

    fn apply(&mut self, group: GroupId, entries: Vec<Entry>, requests: Vec<(u32, ReplyTo)>, shared: &Shared) {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return };
        let (first, last) = (first.index, last.index);
        let bytes: usize = entries.iter().map(Entry::cost_bytes).sum();
        let mut stream = Stream::default();
        let machine = self.machines.get_mut(&group).filter(|machine| !machine.is_stopped);
        let Some(machine) = machine else {
            for (_, reply_to) in requests {
                shared.answer(group, reply_to, unknown(Unknown::Stopped), &mut stream);
            }
            if let Some(machine) = self.machines.get_mut(&group) {
                machine.deliver_stream(stream, shared);
            }
            return;
        };
        let digest_entry = entries.last().filter(|entry| entry.kind.ends_batch()).cloned();
        let (mut admitted, steps) = machine.sessions.admit(entries, machine.held);
        let commands = &admitted.commands;
        self.results.clear();
        self.places.clear();
        self.places.resize(commands.len(), (0, 0));
        let mut failure = None;
        if !commands.is_empty() {
            let mut batch = ApplyBatch { entries: commands, results: &mut self.results, places: &mut self.places };
            let result = call(|| machine.machine.apply(&mut batch));
            failure = match result {
                Ok(Ok(())) => None,
                // A count of all of them names no entry that failed; the last is the one then.
                Ok(Err(failure)) => Some((failure.applied.min(commands.len() - 1), failure.message)),
                Err(panic) => Some((0, format!("apply {panic}"))),
            };
        }
        let applied = failure.as_ref().map_or(commands.len(), |(applied, _)| *applied);
        let (results, places) = (&self.results, &self.places);
        let result = |at: usize| &results[places[at].0 as usize..][..places[at].1 as usize];
        machine.sessions.settle(&mut admitted, steps, applied, result);
        let verdict = digest_entry.as_ref().filter(|_| failure.is_none()).and_then(digest_check);
        let divergence = verdict.and_then(|check| machine.sessions.judge(&check, self.me).err());
        let reached = match &failure {
            Some(_) => admitted.commands[applied].index - 1,
            // A verdict is the last of its batch.
            None => last - u64::from(divergence.is_some()),
        };
        machine.applied = machine.applied.max(reached);
        machine.cell.applied.store(machine.applied, Ordering::Release);
        // Ahead of the completions: what the host proposes from them wakes the loop for both.
        shared.inbox.report_quietly(Input::Event(Event::Applied { group, index: reached }));
        self.unheard_bytes += bytes;
        if !requests.is_empty() {
            let results = Bytes::from(std::mem::take(&mut self.results));
            let mut completions = Vec::with_capacity(requests.len());
            for (position, reply_to) in requests {
                let completion = if first + u64::from(position) > reached {
                    unknown(Unknown::Stopped)
                } else {
                    let result = |at: usize| match self.places[at] {
                        (_, 0) => Bytes::new(),
                        (start, length) => results.slice(start as usize..start as usize + length as usize),
                    };
                    completion_of(admitted.fate(position as usize), &admitted.commands, result)
                };
                match reply_to {
                    ReplyTo::Stream(tag) => completions.push(Completion { tag, ..completion }),
                    ReplyTo::Waiter(waiter) => waiter.complete(completion),
                }
            }
            machine.deliver(completions, shared);
        }
        match failure {
            Some((applied, message)) => {
                let index = admitted.commands[applied].index;
                machine.stop(Event::ApplyFailed { group, index, message }, shared);
            }
            None if divergence.is_none() => machine.answer_parked(shared),
            None => (),
        }
        if let Some(divergence) = divergence {
            machine.stop(Event::Diverged { group, index: last, divergence }, shared);
        } else if digest_entry.is_some_and(|entry| entry.kind == EntryKind::DigestRequest) {
            machine.digest(last, shared);
        }
    }

    fn begin_snapshot(&mut self, group: GroupId, shared: &Shared) {
        let machine = self.machines.get_mut(&group).filter(|machine| !machine.is_stopped);
        let Some(machine) = machine else {
            let message = "the group stopped".to_owned();
            return shared.inbox.report(Input::Event(Event::SnapshotFailed { group, message }));
        };
        match call(|| machine.machine.snapshot()) {
            Ok(Ok(source)) => self.snapshots.run(Task::Begin(group, Box::new(machine.sessions.freeze()), source)),
            Ok(Err(message)) => shared.inbox.report(Input::Event(Event::SnapshotFailed { group, message })),
            Err(panic) => {
                let message = format!("snapshot {panic}");
                shared.inbox.report(Input::Event(Event::SnapshotFailed { group, message: message.clone() }));
                machine.panicked(message, shared);
            }
        }
    }

    fn restore(&mut self, group: GroupId, file: &FileName, meta: &SnapshotMeta, with_host: bool, shared: &Shared) {
        let Some(machine) = self.machines.get_mut(&group).filter(|machine| !machine.is_stopped) else { return };
        let failed = |error| format!("{}: {error}", file.0);
        let opened = path_of(&self.directory, file).and_then(File::open);
        let mut reader = opened.map(|opened| SnapshotReader::new(opened, group, meta)).map_err(failed);
        let sessions = reader.as_mut().map_err(|error| error.clone());
        let sessions = sessions.and_then(|reader| reader.take_sessions().map_err(failed));
        let result = match (reader, sessions) {
            (Err(message), _) | (_, Err(message)) => Err(message),
            (Ok(mut reader), Ok(sessions)) => {
                machine.sessions = sessions;
                match with_host {
                    true => call(|| machine.machine.restore(&mut reader))
                        .unwrap_or_else(|panic| Err(format!("restore {panic}"))),
                    false => Ok(()),
                }
            }
        };
        match result {
            Ok(()) => {
                let index = meta.position.index;
                machine.applied = machine.applied.max(index);
                machine.cell.applied.store(machine.applied, Ordering::Release);
                shared.inbox.report(Input::Event(Event::Restored { group, index }));
                machine.answer_parked(shared);
            }
            Err(message) => machine.stop(Event::RestoreFailed { group, message }, shared),
        }
    }

    fn notice(&mut self, notice: &Notice, shared: &Shared) {
        let group = match notice {
            Notice::Formed { group }
            | Notice::Role { group, .. }
            | Notice::Configuration { group, .. }
            | Notice::Removed { group, .. }
            | Notice::Diverged { group, .. }
            | Notice::GroupStopped { group, .. } => Some(*group),
            _ => None,
        };
        let concerned = match group {
            Some(group) => self.machines.range_mut(group..=group),
            None => self.machines.range_mut(..),
        };
        for (_, machine) in concerned {
            if let Err(panic) = call(|| machine.machine.notice(notice)) {
                machine.panicked(format!("notice {panic}"), shared);
            }
        }
    }

    /// At close: ends everything that this side still holds, then lets go of the state machines. `left` is what was
    /// never run.
    pub(super) fn close(mut self, left: impl IntoIterator<Item = Work>, shared: &Shared) {
        let mut stream = Stream::default();
        for machine in self.machines.values_mut() {
            for (_, request) in machine.parked.drain(..) {
                refuse(request, NotApplied::Closed, shared, &mut stream);
            }
        }
        self.deliver_all(&mut stream, shared);
        for work in left {
            match work {
                Work::Apply { group, requests, .. } => {
                    for (_, reply_to) in requests {
                        shared.answer(group, reply_to, unknown(Unknown::Closed), &mut stream);
                    }
                }
                Work::Read { request, .. } => refuse(request, NotApplied::Closed, shared, &mut stream),
                work @ (Work::Start { .. } | Work::Forget { .. } | Work::Complete { .. } | Work::Notice(_)) => {
                    self.run(work, shared);
                }
                _ => (),
            }
            self.deliver_all(&mut stream, shared);
        }
        for (_, machine) in std::mem::take(&mut self.machines) {
            let _ = call(|| drop(machine));
        }
    }

    fn deliver_all(&mut self, stream: &mut Stream, shared: &Shared) {
        for (group, completions) in stream.take() {
            if let Some(machine) = self.machines.get_mut(&group) {
                machine.deliver(completions, shared);
            }
        }
    }
}

impl Machine {
    /// Hands completions to the host.
    fn deliver(&mut self, completions: Vec<Completion>, shared: &Shared) {
        if completions.is_empty() {
            return;
        }
        match shared.completions {
            CompletionDelivery::Poll => shared.queue_for_poll(&self.cell, completions.into_iter()),
            CompletionDelivery::Callback => {
                if let Err(panic) = call(|| self.machine.completed(&completions)) {
                    self.panicked(format!("completed {panic}"), shared);
                }
            }
        }
    }

    fn deliver_stream(&mut self, mut stream: Stream, shared: &Shared) {
        for (_, completions) in stream.take() {
            self.deliver(completions, shared);
        }
    }

    fn answer(&mut self, request: Request, shared: &Shared, stream: &mut Stream) {
        let Request { group, reply_to, question } = request;
        let answered = |result| Completion { tag: 0, outcome: Outcome::Answered, index: self.applied, term: 0, result };
        let completion = match question {
            _ if self.is_stopped => not_applied(NotApplied::Closed),
            Question::Query(query) => {
                let mut reply = Vec::new();
                match call(|| self.machine.query(&query, &mut reply)) {
                    Ok(Ok(())) => answered(reply.into()),
                    Ok(Err(message)) => not_applied(NotApplied::Failed(message)),
                    Err(panic) => {
                        let message = format!("query {panic}");
                        self.panicked(message.clone(), shared);
                        not_applied(NotApplied::Failed(message))
                    }
                }
            }
            _ => answered(Bytes::new()),
        };
        shared.answer(group, reply_to, completion, stream);
    }

    fn answer_parked(&mut self, shared: &Shared) {
        if self.parked.is_empty() {
            return;
        }
        let (applied, is_stopped) = (self.applied, self.is_stopped);
        let mut stream = Stream::default();
        let parked = std::mem::take(&mut self.parked);
        let (due, parked) = parked.into_iter().partition(|(index, _)| *index <= applied || is_stopped);
        self.parked = parked;
        let due: Vec<(Index, Request)> = due;
        for (_, request) in due {
            self.answer(request, shared, &mut stream);
        }
        self.deliver_stream(stream, shared);
    }

    /// The state is at a request for digests: asks the host what it comes down to.
    fn digest(&mut self, index: Index, shared: &Shared) {
        if self.is_stopped {
            return;
        }
        // A state that the host held by itself is further than the entry.
        let host = match index > self.held {
            true => call(|| self.machine.digest()),
            false => Ok(Ok(None)),
        };
        let host = host.unwrap_or_else(|panic| {
            self.panicked(format!("digest {panic}"), shared);
            Ok(None)
        });
        let digest = host.map(|host| host.map(|host| self.sessions.digested(index, host)));
        shared.inbox.report(Input::Event(Event::Digested { group: self.cell.id, index, digest }));
    }

    /// A callback panicked: nothing can be said of the state any more.
    fn panicked(&mut self, message: String, shared: &Shared) {
        if !self.is_stopped {
            let (group, index) = (self.cell.id, self.applied + 1);
            self.stop(Event::ApplyFailed { group, index, message }, shared);
        }
    }

    fn stop(&mut self, failure: Event, shared: &Shared) {
        self.is_stopped = true;
        shared.inbox.report(Input::Event(failure));
        self.answer_parked(shared);
    }
}

/// How a proposal ended whose entry was gone through; `result` is what the host answered to each of `commands`.
fn completion_of(fate: Fate, commands: &[Entry], result: impl Fn(usize) -> Bytes) -> Completion {
    let (Position { term, index }, result) = match fate {
        Fate::Applied(at) => (commands[at].position(), result(at)),
        Fate::Done(position) => (position, Bytes::new()),
        Fate::Repeated(reply) => (reply.position, reply.bytes),
        Fate::Forgotten => return unknown(Unknown::ReplyForgotten),
        Fate::Expired => return unknown(Unknown::SessionExpired),
        Fate::Unsettled => return unknown(Unknown::Stopped),
    };
    Completion { tag: 0, outcome: Outcome::Applied, index, term, result }
}

fn refuse(request: Request, reason: NotApplied, shared: &Shared, stream: &mut Stream) {
    shared.answer(request.group, request.reply_to, not_applied(reason), stream);
}

pub(super) fn not_applied(reason: NotApplied) -> Completion {
    Completion { tag: 0, outcome: Outcome::NotApplied(reason), index: 0, term: 0, result: Bytes::new() }
}

pub(super) fn unknown(reason: Unknown) -> Completion {
    Completion { tag: 0, outcome: Outcome::Unknown(reason), index: 0, term: 0, result: Bytes::new() }
}
