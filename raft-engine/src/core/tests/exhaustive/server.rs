//! One server of a small world: the real core, the disk under it, and what can happen to it.
//!
//! Everything that can be judged by one server alone is judged here, with each step: what it says against what its disk
//! holds, and that nothing goes back which must not.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::super::*;
use crate::types::AppendOutcome;

/// The only timeout of a small world, and the time that passes when one comes due.
const TIMEOUT: Duration = Duration::from_nanos(1_000);

/// Something that happens to one server.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// A message of a peer comes.
    Deliver { from: ServerId, message: Message },
    /// The oldest record that waits becomes durable.
    DiskCompletes,
    /// No leader was heard from for long, and its timer says so.
    ElectionTimer,
    /// An election timeout passes. A leader does what has come due; another server is no longer bound to its leader, but
    /// its own timer has not run out yet.
    TimePasses,
    /// A heartbeat is due, and nothing else.
    HeartbeatTimer,
    /// The host proposes one command.
    Propose,
    /// The host asks for a linearizable read, when the entries through `committed` are committed somewhere.
    Read { committed: Index },
    /// The host wants another server to lead.
    HandOver { to: ServerId },
    /// The connection to a peer is replaced.
    Reconnect { peer: ServerId },
    /// The process dies and starts again from its disk. What was not durable is gone.
    Crash,
}

/// What a server is on its disk.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) hard_state: HardState,
    /// The durable log from entry 1 on.
    pub(super) log: Vec<Entry>,
    /// Records asked for and not durable yet.
    pub(super) waiting: VecDeque<(Mark, Persist)>,
}

impl Disk {
    /// The term of the durable entry at `index`.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        self.log.get((index as usize).checked_sub(1)?).map(|entry| entry.term)
    }
}

/// A core and its disk.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) raft: Raft,
    pub(super) disk: Disk,
    /// When time last passed here. Timers are measured from it; everything else happens a moment later.
    pub(super) clock: Time,
}

/// What a server said in a step, in its order.
pub(super) type Sent = Vec<(ServerId, Message)>;

impl Server {
    /// One of three servers, with a term and the terms of the entries behind entry 1 on its disk. A request carries at
    /// most `message_bytes` of entries.
    pub(super) fn new(id: u64, term: Term, terms: &[Term], message_bytes: usize) -> Self {
        let mut log = vec![timeless(entry(1, 0))];
        for &term in terms {
            let last = log[log.len() - 1].position();
            log.push(made(Position { term, index: last.index + 1 }, term > last.term));
        }
        let disk = Disk { hard_state: HardState { term, vote: None }, log, waiting: VecDeque::new() };
        Self { raft: open(ServerId(id), &disk, message_bytes), disk, clock: Time(0) }
    }

    pub(super) fn id(&self) -> ServerId {
        self.raft.id
    }

    /// Whether a leader binds this server: it is asked for no vote in vain.
    pub(super) fn is_bound(&self) -> bool {
        !self.raft.is_leader() && self.raft.is_leader_alive(self.moment())
    }

    /// When everything happens that no timer causes.
    pub(super) fn moment(&self) -> Time {
        self.clock + Duration::from_nanos(1)
    }

    /// When time passes next.
    pub(super) fn next_clock(&self) -> Time {
        self.clock + TIMEOUT
    }

    /// What this server is after `event`, and what it said. `Err` says which rule was broken.
    pub(super) fn after(&self, event: &Event) -> Result<(Self, Sent), String> {
        let mut next = self.clone();
        let sent = catch_unwind(AssertUnwindSafe(|| {
            let mut sent = Sent::new();
            next.happen(event)?;
            next.carry_out(&mut sent)?;
            Ok::<_, String>(sent)
        }));
        let sent = sent.map_err(|panic| match panic.downcast::<String>() {
            Ok(text) => format!("the core panicked: {text}"),
            Err(panic) => format!("the core panicked: {}", panic.downcast_ref::<&str>().unwrap_or(&"without a word")),
        })??;
        self.check_steadiness(&next, matches!(event, Event::Crash))?;
        Ok((next, sent))
    }

    fn happen(&mut self, event: &Event) -> Result<(), String> {
        let now = self.moment();
        match event {
            Event::Deliver { from, message } => self.raft.receive(now, *from, message.clone()),
            Event::DiskCompletes => {
                let (mark, record) = self.disk.waiting.pop_front().expect("a record waits");
                self.disk.write(record)?;
                self.raft.persisted(now, mark);
            }
            Event::ElectionTimer => {
                self.clock = self.next_clock().max(self.raft.deadline());
                self.raft.tick(self.clock);
            }
            Event::TimePasses => {
                self.clock = self.next_clock();
                if self.raft.is_leader() {
                    self.raft.tick(self.clock);
                }
            }
            Event::HeartbeatTimer => self.raft.tick(now),
            Event::Propose => {
                self.raft.propose(now, vec![Bytes::new()]).map_err(|refusal| format!("refused: {refusal:?}"))?;
            }
            // A read is named by what it must cover, so that its answer can be judged without remembering it.
            Event::Read { committed } => {
                self.raft.read(*committed).map_err(|refusal| format!("refused: {refusal:?}"))?;
            }
            Event::HandOver { to } => {
                self.raft.transfer(now, Some(*to), TIMEOUT).map_err(|refusal| format!("refused: {refusal:?}"))?;
            }
            Event::Reconnect { peer } => self.raft.peer_reconnected(now, *peer),
            Event::Crash => {
                self.disk.waiting.clear();
                self.raft = open(self.raft.id, &self.disk, self.raft.options.message_bytes);
                self.clock = Time(0);
            }
        }
        Ok(())
    }

    /// Does what the core wants done, and judges it.
    fn carry_out(&mut self, sent: &mut Sent) -> Result<(), String> {
        self.raft.flush(self.moment());
        for effect in self.raft.take_effects() {
            match effect {
                Effect::Persist { mark, record } => self.disk.waiting.push_back((mark, timeless_record(record))),
                Effect::Send { to, message } => {
                    let message = timeless_message(message);
                    self.check_backing(to, &message)?;
                    sent.push((to, message));
                }
                Effect::ReadReady { id: committed, index } if index < committed => {
                    return Err(format!("a read covers {index}, but {committed} was committed before it was asked"));
                }
                Effect::ReadReady { .. } | Effect::ReadFailed { .. } | Effect::TransferGivenUp { .. } => {}
                other => return Err(format!("nothing can cause {other:?} in a small world")),
            }
        }
        let deliverable = self.raft.deliverable(usize::MAX).map_err(|range| format!("{range:?} is not in memory"))?;
        for entry in deliverable {
            if self.raft.delivered_index() + 1 != entry.index || self.disk.term_at(entry.index) != Some(entry.term) {
                return Err(format!(
                    "{:?} is given to the state machine, but is not on the own disk",
                    entry.position()
                ));
            }
            self.raft.delivered(entry.index);
        }
        Ok(())
    }

    /// Whatever a server says stands on its durable bytes alone.
    fn check_backing(&self, to: ServerId, message: &Message) -> Result<(), String> {
        let durable = self.disk.hard_state;
        if let Some(term) = message.term().filter(|&term| term > durable.term) {
            return Err(format!("{message:?} leaves, but term {term} is not durable"));
        }
        match *message {
            Message::VoteReply { term, granted: true } if durable.term == term && durable.vote != Some(to) => {
                Err(format!("{message:?} leaves to {to}, but the disk knows of the vote {:?}", durable.vote))
            }
            Message::AppendReply { outcome: AppendOutcome::Matched { through }, .. }
                if self.disk.term_at(through) != self.raft.term_at(through) || self.raft.term_at(through).is_none() =>
            {
                Err(format!("{message:?} leaves, but the own disk does not hold the log so far"))
            }
            _ => Ok(()),
        }
    }

    /// Term and commit index never go back, a leader only appends, and it leads with its own vote on its disk.
    fn check_steadiness(&self, next: &Self, crashed: bool) -> Result<(), String> {
        if crashed {
            return Ok(());
        }
        if next.raft.hard_state.term < self.raft.hard_state.term {
            return Err("the term went back".to_owned());
        }
        if next.raft.commit < self.raft.commit || next.raft.delivered < self.raft.delivered {
            return Err("the commit index or what was applied went back".to_owned());
        }
        let led = self.raft.is_leader() && self.raft.hard_state.term == next.raft.hard_state.term;
        let kept = |index| next.raft.term_at(index) == self.raft.term_at(index);
        if led && !(1..=self.raft.last().index).all(kept) {
            return Err("a leader undid entries of its own log".to_owned());
        }
        let own_vote = HardState { term: next.raft.hard_state.term, vote: Some(self.id()) };
        if next.raft.is_leader() && !self.raft.is_leader() && next.disk.hard_state != own_vote {
            return Err(format!("it leads, but its disk holds {:?}", next.disk.hard_state));
        }
        Ok(())
    }
}

impl Disk {
    fn write(&mut self, record: Persist) -> Result<(), String> {
        match record {
            Persist::HardState(new) => {
                let old = std::mem::replace(&mut self.hard_state, new);
                let is_second_vote = new.term == old.term && old.vote.is_some() && new.vote != old.vote;
                if new.term < old.term || is_second_vote {
                    return Err(format!("{new:?} replaces {old:?} on the disk"));
                }
            }
            Persist::Entries(entries) => {
                if entries.first().is_some_and(|entry| entry.index != self.log.len() as u64 + 1) {
                    return Err(format!("{:?} does not follow the log on the disk", entries[0].position()));
                }
                self.log.extend(entries);
            }
            Persist::Truncate { from } => self.log.truncate(from as usize - 1),
            Persist::Snapshot(_) => return Err("nothing can cause a snapshot in a small world".to_owned()),
        }
        Ok(())
    }
}

/// A core as it starts from a disk.
fn open(id: ServerId, disk: &Disk, message_bytes: usize) -> Raft {
    let mut term_runs: Vec<(Index, Term)> = Vec::new();
    for entry in &disk.log {
        if term_runs.last().is_none_or(|&(_, term)| term < entry.term) {
            term_runs.push((entry.index, entry.term));
        }
    }
    let restored = Restored {
        hard_state: disk.hard_state,
        term_runs,
        last: disk.log.len() as u64,
        tail: disk.log.clone(),
        ..restored(3, 0, &[])
    };
    // A heartbeat may be due at any moment, and a disk is never taken for stuck: time is the explorer's to pass.
    let options = Options {
        election_timeout: TIMEOUT,
        heartbeat_interval: Duration::ZERO,
        disk_stall_timeout: Duration::from_secs(1 << 30),
        message_bytes,
        ..Options::default()
    };
    Raft::new(id, options, restored, 1, Time(0))
}

/// The entry that a leader makes here: a no-op where its term begins, an empty command elsewhere.
fn made(position: Position, begins_a_term: bool) -> Entry {
    let kind = if begins_a_term { EntryKind::NoOp } else { EntryKind::Command };
    Entry::new(position, LogTime(0), kind, Bytes::new())
}

/// Nothing in a small world is decided by log time: without it, states are equal that differ in nothing else.
fn timeless(entry: Entry) -> Entry {
    Entry { log_time: LogTime(0), ..entry }
}

fn timeless_record(record: Persist) -> Persist {
    match record {
        Persist::Entries(entries) => Persist::Entries(entries.into_iter().map(timeless).collect()),
        other => other,
    }
}

fn timeless_message(mut message: Message) -> Message {
    if let Message::Append { entries, .. } = &mut message {
        entries.iter_mut().for_each(|entry| entry.log_time = LogTime(0));
    }
    message
}
