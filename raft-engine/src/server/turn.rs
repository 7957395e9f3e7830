//! One turn of the loop: sleep until something happens, take everything that did, hand it to the driver, and carry out
//! what it wants. Any thread that holds the turn can run it; today that is one thread, `raft-loop`.
//!
//! Frames go to the system before the own log write is submitted, so that replication and the own disk run beside each
//! other (§10.2.1 of the dissertation), and both before the state machines are woken.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::callback::caught;
use super::disk::{Completed, Disk};
use super::dispatch::{Work, not_applied, unknown};
use super::requests::{Question, ReplyTo, Request, Requests};
use super::shared::{GroupCell, Input, Shared, Start, StartAnswer, Stream};
use super::sockets::Sockets;
use super::submission::Rejection;
use super::sync::lock;
use super::{Completion, CompletionDelivery, NotApplied, Notice, Outcome, Refused, ServerStatus, StartError, Unknown};
use crate::driver::{self, Driver, Effect, Event, Proposal, Ticket};
use crate::types::{EntryKind, GroupId, Proposed, Time};

/// Wakes the poll.
pub(super) const WAKER: Token = Token(0);
/// The listener.
pub(super) const LISTENER: Token = Token(1);
/// Completions of log writes.
pub(super) const DISK: Token = Token(2);
/// Streams from here on.
pub(super) const FIRST_STREAM: usize = 8;

/// What one carrying-out brings back (bytes sent, dials failed) is handed to the driver at once, so often at most
/// before other things get their turn.
const ROUNDS: usize = 8;
/// Requests of the host are handed on up to so many bytes in a turn, so that under overload, where most are refused, the
/// disk and the peers do not wait for the refusals.
const REQUEST_BYTES: usize = 2 << 20;
/// No sleep is longer: the system counts milliseconds in 32 bits.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// The clock of one open of a server.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    origin: Instant,
}

impl Clock {
    #[allow(clippy::disallowed_methods, reason = "the real server's clock is made here, and nowhere else")]
    pub(super) fn new() -> Self {
        Self { origin: Instant::now() }
    }

    pub(super) fn now(&self) -> Time {
        Time::default() + self.origin.elapsed()
    }
}

/// The driver with everything that it moves.
pub(super) struct Turn {
    driver: Driver,
    clock: Clock,
    poll: Poll,
    polled: Events,
    pub(super) shared: Arc<Shared>,
    sockets: Sockets,
    disk: Disk,
    requests: Requests,
    /// Taken from the inbox, not handed to the driver yet.
    inputs: VecDeque<(Input, usize)>,
    /// The inbox's other half.
    spare_inputs: Vec<(Input, usize)>,
    /// What was handed on since the inbox last heard of it, in bytes.
    handed_on_bytes: usize,
    events: Vec<Event>,
    completed: Vec<Completed>,
    /// Gathered for the dispatch.
    work: Vec<Work>,
    stream: Stream,
    cells: BTreeMap<GroupId, Arc<GroupCell>>,
    /// Handed to the driver, to be answered when it has said how they started.
    starting: Vec<(GroupId, StartAnswer)>,
    is_closing: bool,
}

/// Runs turns until the server closes or something breaks; then answers everything that is open.
pub(super) fn run(mut turn: Turn) {
    let shared = turn.shared.clone();
    let result = caught(|| -> io::Result<()> {
        // What the open queued.
        turn.drive();
        turn.publish();
        while !turn.is_closing {
            turn.run()?;
        }
        Ok(())
    });
    let reason = match result {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("polling failed: {error}")),
        Err(panic) => Some(format!("the engine {panic}; this is a defect: please report it")),
    };
    let is_ended = caught(|| turn.finish(reason.as_deref()));
    // Dropping waits for the disk, and may meet the defect again.
    let _ = caught(|| drop(turn));
    if let Err(panic) = is_ended {
        shared.inbox.end(Rejection::Stopped);
        publish_stop(&shared, &format!("ending the loop {panic}"));
    }
}

impl Turn {
    /// A turn over an open driver. Nothing has been done yet of what the open queued.
    pub(super) fn new(
        driver: Driver,
        clock: Clock,
        poll: Poll,
        shared: Arc<Shared>,
        sockets: Sockets,
        disk: Disk,
    ) -> Self {
        Self {
            driver,
            clock,
            poll,
            polled: Events::with_capacity(256),
            shared,
            sockets,
            disk,
            requests: Requests::default(),
            inputs: VecDeque::new(),
            spare_inputs: Vec::new(),
            handed_on_bytes: 0,
            events: Vec::new(),
            completed: Vec::new(),
            work: Vec::new(),
            stream: Stream::default(),
            cells: BTreeMap::new(),
            starting: Vec::new(),
            is_closing: false,
        }
    }

    /// One turn.
    pub(super) fn run(&mut self) -> io::Result<()> {
        self.sleep()?;
        self.take_polled();
        self.take_inputs();
        self.drive();
        self.publish();
        Ok(())
    }

    fn sleep(&mut self) -> io::Result<()> {
        let now = self.clock.now();
        let deadline = self.driver.deadline().min(self.sockets.deadline());
        let is_busy = deadline <= now || self.sockets.is_busy() || !self.events.is_empty() || !self.inputs.is_empty();
        let timeout = match is_busy || !self.shared.inbox.may_sleep() {
            true => Duration::ZERO,
            false => deadline.since(now).min(LONGEST_SLEEP),
        };
        let result = self.poll.poll(&mut self.polled, Some(timeout));
        self.shared.inbox.awake();
        match result {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    fn take_polled(&mut self) {
        let now = self.clock.now();
        for polled in &self.polled {
            match polled.token() {
                WAKER => (),
                LISTENER => self.sockets.accept(now, &mut self.events),
                DISK => self.disk.complete(&mut self.completed),
                _ => self.sockets.ready(polled, &mut self.events),
            }
        }
        for (id, result) in self.completed.drain(..) {
            self.events.push(Event::Disk { id, result });
        }
        self.sockets.tick(now, &mut self.events);
        self.sockets.read(&mut self.events);
    }

    fn take_inputs(&mut self) {
        self.shared.inbox.take(&mut self.spare_inputs, std::mem::take(&mut self.handed_on_bytes));
        // What our own threads report passes the host's requests: it frees what they wait for.
        let mut reports = std::mem::take(&mut self.spare_inputs);
        self.inputs.extend(reports.extract_if(.., |(_, cost_bytes)| *cost_bytes > 0));
        for (report, _) in reports.drain(..) {
            self.take_input(report);
        }
        self.spare_inputs = reports;
        while self.handed_on_bytes < REQUEST_BYTES
            && let Some((request, cost_bytes)) = self.inputs.pop_front()
        {
            self.handed_on_bytes += cost_bytes;
            self.take_input(request);
        }
    }

    fn take_input(&mut self, input: Input) {
        match input {
            Input::Propose { group, items } => {
                let mut proposals = Vec::with_capacity(items.len());
                for item in items {
                    let ticket = self.open(group, ReplyTo::Stream(item.tag), Question::Proposal);
                    let kind = if item.session.is_some() { EntryKind::SessionCommand } else { EntryKind::Command };
                    proposals.push(Proposal { ticket, proposed: Proposed { kind, payload: item.data } });
                }
                self.events.push(Event::Propose { group, proposals });
            }
            Input::ProposeOne { group, proposed, reply_to } => {
                let ticket = self.open(group, reply_to, Question::Proposal);
                self.events.push(Event::Propose { group, proposals: vec![Proposal { ticket, proposed }] });
            }
            Input::Read { request, consistency } => {
                let group = request.group;
                let ticket = self.requests.insert(request);
                self.events.push(Event::Read { group, ticket, consistency });
            }
            Input::Operate { request, operation } => {
                let group = request.group;
                let ticket = self.requests.insert(request);
                self.events.push(operation.event(group, ticket));
            }
            Input::Start(start) => self.start(*start),
            Input::Event(event) => self.events.push(event),
            Input::Disk((id, result)) => self.events.push(Event::Disk { id, result }),
            Input::Resolved(resolved) => self.sockets.resolved(resolved, &mut self.events),
            Input::Defect(message) => panic!("{message}"),
            Input::Close => {
                self.events.push(Event::Close);
                self.is_closing = true;
            }
        }
    }

    fn open(&mut self, group: GroupId, reply_to: ReplyTo, question: Question) -> Ticket {
        self.requests.insert(Request { group, reply_to, question })
    }

    fn start(&mut self, start: Start) {
        let Start { group, machine, applied, how, answer } = start;
        if self.cells.contains_key(&group) {
            return answer.complete(Err(StartError::AlreadyStarted(group)));
        }
        let cell = Arc::new(GroupCell::new(group));
        self.cells.insert(group, cell.clone());
        lock(&self.shared.groups).insert(group, cell.clone());
        self.work.push(Work::Start { cell, machine, applied });
        self.events.push(Event::StartGroup { group, how, applied });
        self.starting.push((group, answer));
    }

    /// Hands the driver what has happened, and carries out what it wants.
    fn drive(&mut self) {
        for _ in 0..ROUNDS {
            for event in self.events.drain(..) {
                self.driver.handle(self.clock.now(), event);
            }
            self.driver.flush(self.clock.now());
            let effects = self.driver.take_effects();
            self.carry_out(effects);
            if self.events.is_empty() {
                break;
            }
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        // Whoever hears of something finds it in the status.
        if effects.iter().any(|effect| matches!(effect, Effect::Complete { .. } | Effect::Notice(_))) {
            self.publish();
        }
        let mut disk_work = Vec::new();
        for effect in effects {
            match effect {
                Effect::Disk { id, work } => disk_work.push((id, work)),
                Effect::Dial { connection, address } => self.sockets.dial(connection, address, &mut self.events),
                Effect::Send { connection, frame } => self.sockets.send(connection, frame),
                Effect::Close { connection } => self.sockets.close(connection),
                Effect::Apply { group, entries, tickets } => {
                    let requests = &mut self.requests;
                    let replies = tickets.into_iter().map(|(at, ticket)| (at, requests.take(ticket).reply_to));
                    let replies = replies.collect();
                    self.work.push(Work::Apply { group, entries, requests: replies });
                }
                Effect::Complete { group, tickets, outcome } => {
                    let completion = completion_of(outcome);
                    for ticket in tickets {
                        let reply_to = self.requests.take(ticket).reply_to;
                        self.shared.answer(group, reply_to, completion.clone(), &mut self.stream);
                    }
                }
                Effect::ReadReady { ticket, index, .. } => {
                    let request = self.requests.take(ticket);
                    self.work.push(Work::Read { request, index });
                }
                Effect::BeginSnapshot { group, .. } => self.work.push(Work::BeginSnapshot { group }),
                Effect::SnapshotMore { group } => self.work.push(Work::SnapshotStep { group }),
                Effect::ReleaseSnapshot { group } => self.work.push(Work::ReleaseSnapshot { group }),
                Effect::Restore { group, file, meta } => {
                    self.work.push(Work::Restore { group, file, meta, with_host: true });
                }
                Effect::RestoreSessions { group, file, meta } => {
                    self.work.push(Work::Restore { group, file, meta, with_host: false });
                }
                Effect::Started { group, result } => self.started(group, result),
                Effect::Notice(notice) => self.work.push(Work::Notice(notice)),
            }
        }
        for address in self.sockets.take_untold() {
            let message = format!(
                "{address} is not dialled: it is beyond this machine, where everything would travel unencrypted. Set \
                 plaintext=anywhere where only you can reach that network"
            );
            self.work.push(Work::Notice(Notice::Warning { message }));
        }
        self.sockets.write(self.clock.now(), &mut self.events);
        for (id, work) in disk_work {
            self.disk.submit(id, work);
        }
        self.hand_out();
    }

    /// Gives the dispatch what gathered for it.
    fn hand_out(&mut self) {
        for (group, completions) in self.stream.take() {
            match (self.shared.completions, self.cells.get(&group)) {
                (CompletionDelivery::Poll, Some(cell)) => {
                    self.shared.queue_for_poll(cell, completions.into_iter());
                }
                _ => self.work.push(Work::Complete { group, completions }),
            }
        }
        if !self.work.is_empty() {
            self.shared.work.push(self.work.drain(..));
        }
    }

    /// The driver has said whether a group started.
    fn started(&mut self, group: GroupId, result: Result<(), String>) {
        let Some(place) = self.starting.iter().position(|(of, _)| *of == group) else { return };
        let (_, answer) = self.starting.swap_remove(place);
        match result {
            Ok(()) => {
                // The handle that the caller gets next shows a status at once.
                self.publish();
                answer.complete(Ok(()));
            }
            Err(reason) => {
                self.cells.remove(&group);
                lock(&self.shared.groups).remove(&group);
                self.work.push(Work::Forget { group });
                answer.complete(Err(StartError::Stopped { group, reason }));
            }
        }
    }

    /// Publishes what has changed for whoever asks.
    fn publish(&mut self) {
        for id in self.driver.take_changed() {
            let Some(cell) = self.cells.get(&id) else { continue };
            let status = self.driver.group_status(id);
            let mut published = lock(&cell.status);
            if published.as_deref() != status.as_ref() {
                *published = status.map(Arc::new);
            }
        }
        let engine = self.driver.server_status();
        let accept_error = self.sockets.accept_error();
        let mut published = lock(&self.shared.status);
        if published.engine != engine || published.accept_error.as_deref() != accept_error {
            // Copied only where somebody still reads the last one.
            let published = Arc::make_mut(&mut published);
            published.engine = engine;
            published.accept_error = accept_error.map(str::to_owned);
        }
    }

    /// Answers everything that is open: the server is closed, or stopped for a reason. Whatever the driver did, every
    /// request is answered once.
    fn finish(&mut self, stopped: Option<&str>) {
        let (rejection, refused, reason) = match stopped {
            None => (Rejection::Closed, Refused::Closed, Unknown::Closed),
            Some(_) => (Rejection::Stopped, Refused::Stopped, Unknown::Stopped),
        };
        if let Some(reason) = stopped {
            publish_stop(&self.shared, reason);
        }
        let left = self.shared.inbox.end(rejection);
        let inputs: Vec<Input> = self.inputs.drain(..).map(|(input, _)| input).chain(left).collect();
        for (_, answer) in std::mem::take(&mut self.starting) {
            answer.complete(Err(refused.clone().into()));
        }
        for input in inputs {
            self.refuse(input, &refused);
        }
        for request in self.requests.drain() {
            let completion = match request.question {
                Question::Proposal | Question::Operation => unknown(reason),
                _ => not_applied(NotApplied::Closed),
            };
            self.shared.answer(request.group, request.reply_to, completion, &mut self.stream);
        }
        if let Some(reason) = stopped {
            self.work.push(Work::Notice(Notice::ServerStopped { reason: reason.to_owned() }));
        }
        self.hand_out();
    }

    /// Answers what never reached the driver: certainly not applied.
    fn refuse(&mut self, input: Input, refused: &Refused) {
        let mut answer = |group, reply_to| {
            self.shared.answer(group, reply_to, not_applied(NotApplied::Closed), &mut self.stream);
        };
        match input {
            Input::Propose { group, items } => {
                items.into_iter().for_each(|item| answer(group, ReplyTo::Stream(item.tag)));
            }
            Input::ProposeOne { group, reply_to, .. } => answer(group, reply_to),
            Input::Read { request, .. } | Input::Operate { request, .. } => answer(request.group, request.reply_to),
            Input::Start(start) => {
                let Start { machine, answer, .. } = *start;
                let _ = super::callback::call(|| drop(machine));
                answer.complete(Err(refused.clone().into()));
            }
            _ => (),
        }
    }
}

/// Registers what the disk is polled by.
pub(super) fn register_disk(poll: &Poll, disk: &Disk) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    match disk.descriptor() {
        Some(descriptor) => poll.registry().register(&mut SourceFd(&descriptor.as_raw_fd()), DISK, Interest::READABLE),
        None => Ok(()),
    }
}

fn publish_stop(shared: &Shared, reason: &str) {
    let mut published = lock(&shared.status);
    let mut status = ServerStatus::clone(&published);
    status.engine.stopped.get_or_insert_with(|| reason.to_owned());
    *published = Arc::new(status);
}

fn completion_of(outcome: driver::Outcome) -> Completion {
    match outcome {
        driver::Outcome::NotApplied(reason) => not_applied(reason),
        driver::Outcome::Unknown(reason) => unknown(reason.into()),
        driver::Outcome::SnapshotTaken { index } => {
            Completion { outcome: Outcome::SnapshotTaken, index, ..unknown(Unknown::Closed) }
        }
        driver::Outcome::MembersChanged { index } | driver::Outcome::ChangeCancelled { index } => {
            Completion { outcome: Outcome::Done, index, ..unknown(Unknown::Closed) }
        }
        driver::Outcome::DigestsChecked(check) => {
            let index = check.index;
            Completion { outcome: Outcome::DigestsChecked(check), index, ..unknown(Unknown::Closed) }
        }
        driver::Outcome::LeadershipTransferred { .. } => {
            Completion { outcome: Outcome::Done, ..unknown(Unknown::Closed) }
        }
    }
}
