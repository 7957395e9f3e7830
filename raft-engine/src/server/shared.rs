//! What the handles, the loop and the dispatch share: the queues between them, the groups' cells, and what is published
//! for whoever asks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::disk::Completed;
use super::dispatch::{Dispatcher, Work};
use super::requests::{ReplyTo, Request, Waiter};
use super::resolve::Resolved;
use super::signal::{Reason, Signal};
use super::submission::{Inbox, Rejection, Wake};
use super::sync::{Mutex, lock};
use super::work_queue::WorkQueue;
use super::{
    Completion, CompletionDelivery, Consistency, Dispatch, GroupStatus, Item, Polled, Refused, ServerStatus,
    StartError, StartHow, StateMachine,
};
use crate::driver::{Event, Ticket};
use crate::types::{GroupId, Index, MemberChange, Proposed, ServerId};

/// What the loop is told.
pub(super) enum Input {
    /// A batch for the completion stream.
    Propose { group: GroupId, items: Vec<Item> },
    /// One entry: of a thread that waits, or about a session.
    ProposeOne { group: GroupId, proposed: Proposed, reply_to: ReplyTo },
    /// A read or a query.
    Read { request: Request, consistency: Consistency },
    /// Something that its operator wants done.
    Operate { request: Request, operation: Operation },
    /// A new group, with its state machine.
    Start(Box<Start>),
    /// What the dispatch has to say to the driver.
    Event(Event),
    /// The disk, where it reports from a thread.
    Disk(Completed),
    /// A defect was caught on a thread of ours: the server stops.
    Defect(String),
    /// The resolver.
    Resolved(Resolved),
    /// The host closes the server.
    Close,
}

/// What an operator wants done with a group.
pub(super) enum Operation {
    /// A snapshot.
    Snapshot,
    /// Other members.
    ChangeMembers { changes: Vec<MemberChange>, patience: Duration },
    /// No other members after all.
    CancelChange,
    /// Another leader.
    TransferLeadership { to: Option<ServerId>, patience: Duration },
    /// The replicas compared.
    CheckDigests { patience: Duration },
}

impl Operation {
    /// What the driver is told.
    pub(super) fn event(self, group: GroupId, ticket: Ticket) -> Event {
        match self {
            Self::Snapshot => Event::Snapshot { group, ticket },
            Self::ChangeMembers { changes, patience } => Event::ChangeMembers { group, ticket, changes, patience },
            Self::CancelChange => Event::CancelChange { group, ticket },
            Self::TransferLeadership { to, patience } => Event::TransferLeadership { group, ticket, to, patience },
            Self::CheckDigests { patience } => Event::CheckDigests { group, ticket, patience },
        }
    }
}

/// What a thread that starts a group waits for.
pub(super) type StartAnswer = Arc<Waiter<Result<(), StartError>>>;

/// A group to start.
pub(super) struct Start {
    pub(super) group: GroupId,
    pub(super) machine: Box<dyn StateMachine>,
    pub(super) applied: Index,
    pub(super) how: StartHow,
    pub(super) answer: StartAnswer,
}

/// Wakes the loop's poll.
pub(super) struct LoopWaker(pub(super) mio::Waker);

impl Wake for LoopWaker {
    fn wake(&self) {
        // The counter behind it is never full for long: mio empties it and tries again.
        let _ = self.0.wake();
    }
}

/// One group as all sides see it.
pub(super) struct GroupCell {
    pub(super) id: GroupId,
    pub(super) status: Mutex<Option<Arc<GroupStatus>>>,
    /// The last index that the state machine has applied.
    pub(super) applied: AtomicU64,
    /// Polled by the host.
    completions: Mutex<VecDeque<Completion>>,
}

impl GroupCell {
    pub(super) fn new(id: GroupId) -> Self {
        Self { id, status: Mutex::new(None), applied: AtomicU64::new(0), completions: Mutex::default() }
    }
}

/// Everything between the threads of one server.
pub(super) struct Shared {
    pub(super) inbox: Arc<Inbox<Input, LoopWaker>>,
    pub(super) work: WorkQueue<Work, Box<Dispatcher>, Arc<Signal>>,
    pub(super) signal: Arc<Signal>,
    pub(super) dispatch: Dispatch,
    pub(super) completions: CompletionDelivery,
    pub(super) max_entry_bytes: usize,
    pub(super) groups: Mutex<BTreeMap<GroupId, Arc<GroupCell>>>,
    pub(super) status: Mutex<Arc<ServerStatus>>,
    /// Completions that the host has not polled, of all groups.
    unpolled: Mutex<Unpolled>,
    /// The process that opened the server.
    pub(super) process: u32,
    pub(super) is_closed: AtomicBool,
}

#[derive(Default)]
struct Unpolled {
    count: usize,
    has_ended: bool,
}

/// More completions than this must be polled before anything new is taken.
const MAX_UNPOLLED: usize = 1 << 17;

impl Shared {
    pub(super) fn new(
        inbox: Arc<Inbox<Input, LoopWaker>>,
        work: WorkQueue<Work, Box<Dispatcher>, Arc<Signal>>,
        signal: Arc<Signal>,
        config: &super::Config,
        status: ServerStatus,
    ) -> Self {
        Self {
            inbox,
            work,
            signal,
            dispatch: config.dispatch,
            completions: config.completions,
            max_entry_bytes: config.settings.max_entry_bytes,
            groups: Mutex::default(),
            status: Mutex::new(Arc::new(status)),
            unpolled: Mutex::default(),
            process: std::process::id(),
            is_closed: AtomicBool::new(false),
        }
    }

    /// A fork leaves the threads behind; their locks may be held for ever.
    pub(super) fn check_process(&self) -> Result<(), Refused> {
        if self.process == std::process::id() { Ok(()) } else { Err(Refused::Forked) }
    }

    /// Puts a request into the queue.
    pub(super) fn submit(&self, input: Input, cost_bytes: usize) -> Result<(), Refused> {
        let limit_bytes = self.inbox.limit_bytes();
        if self.completions == CompletionDelivery::Poll && lock(&self.unpolled).count > MAX_UNPOLLED {
            return Err(Refused::Full { limit_bytes });
        }
        self.inbox.submit(input, cost_bytes).map_err(|rejection| match rejection {
            Rejection::Full => Refused::Full { limit_bytes },
            Rejection::Closed => Refused::Closed,
            Rejection::Stopped => Refused::Stopped,
        })
    }

    /// Answers one request that the dispatch need not see.
    pub(super) fn answer(&self, group: GroupId, reply_to: ReplyTo, completion: Completion, stream: &mut Stream) {
        match reply_to {
            ReplyTo::Waiter(waiter) => waiter.complete(completion),
            ReplyTo::Stream(tag) => stream.push(group, Completion { tag, ..completion }),
        }
    }

    /// Puts completions where the host polls them.
    pub(super) fn queue_for_poll(&self, cell: &GroupCell, completions: impl ExactSizeIterator<Item = Completion>) {
        let mut unpolled = lock(&self.unpolled);
        if completions.len() == 0 || unpolled.has_ended {
            return;
        }
        unpolled.count += completions.len();
        lock(&cell.completions).extend(completions);
        self.signal.set(Reason::Completions, true);
    }

    /// Takes completions of a group.
    pub(super) fn poll(&self, cell: &GroupCell, into: &mut Vec<Completion>, max: usize) -> Polled {
        let mut unpolled = lock(&self.unpolled);
        let mut completions = lock(&cell.completions);
        let count = max.min(completions.len());
        into.extend(completions.drain(..count));
        unpolled.count -= count;
        if unpolled.count == 0 {
            self.signal.set(Reason::Completions, false);
        }
        if count == 0 && completions.is_empty() && unpolled.has_ended {
            return Polled::End;
        }
        Polled::Completions(count)
    }

    /// Nothing will ever be queued again.
    pub(super) fn end_polls(&self) {
        lock(&self.unpolled).has_ended = true;
        self.is_closed.store(true, Ordering::Release);
        self.signal.set(Reason::Closed, true);
    }

    /// The cell of a group that was started.
    pub(super) fn cell(&self, group: GroupId) -> Option<Arc<GroupCell>> {
        lock(&self.groups).get(&group).cloned()
    }
}

/// Completions for streams, gathered to be delivered a batch a group.
#[derive(Default)]
pub(super) struct Stream {
    batches: BTreeMap<GroupId, Vec<Completion>>,
}

impl Stream {
    pub(super) fn push(&mut self, group: GroupId, completion: Completion) {
        self.batches.entry(group).or_default().push(completion);
    }

    pub(super) fn take(&mut self) -> BTreeMap<GroupId, Vec<Completion>> {
        std::mem::take(&mut self.batches)
    }
}
