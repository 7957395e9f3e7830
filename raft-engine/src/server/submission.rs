//! The one way into the loop: a queue that host threads, disk threads and the dispatch put things into, and that the
//! loop swaps out whole. Requests of the host have a byte budget; reports of our own threads do not, since what they
//! report on has one. Only a loop that sleeps is woken. Knows nothing of what it carries.

use super::sync::{Mutex, lock};

/// Wakes the loop from its sleep; called at most once a sleep.
pub(super) trait Wake {
    /// Makes the loop's poll return.
    fn wake(&self);
}

/// Why a request was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rejection {
    /// The byte budget is full.
    Full,
    /// Nothing is taken any more: the server is closed.
    Closed,
    /// Nothing is taken any more: the server stopped by itself.
    Stopped,
}

/// The queue.
pub(super) struct Inbox<T, W> {
    state: Mutex<State<T>>,
    waker: W,
    limit_bytes: usize,
}

struct State<T> {
    /// Everything queued, with what it costs: nothing, for a report.
    items: Vec<(T, usize)>,
    /// What the requests cost that the loop has not handed on.
    bytes: usize,
    /// The loop is in its poll, or about to be, and saw this queue empty.
    is_asleep: bool,
    /// Set: no request is taken any more.
    rejection: Option<Rejection>,
    /// The loop has taken its last: whatever comes is dropped.
    is_ended: bool,
}

impl<T, W: Wake> Inbox<T, W> {
    pub(super) fn new(waker: W, limit_bytes: usize) -> Self {
        let state = State { items: Vec::new(), bytes: 0, is_asleep: false, rejection: None, is_ended: false };
        Self { state: Mutex::new(state), waker, limit_bytes }
    }

    /// A host's request. On an error nothing was taken.
    pub(super) fn submit(&self, item: T, cost_bytes: usize) -> Result<(), Rejection> {
        let must_wake = {
            let mut state = lock(&self.state);
            if let Some(rejection) = state.rejection {
                return Err(rejection);
            }
            if state.bytes + cost_bytes > self.limit_bytes {
                return Err(Rejection::Full);
            }
            state.bytes += cost_bytes;
            state.items.push((item, cost_bytes));
            std::mem::take(&mut state.is_asleep)
        };
        if must_wake {
            self.waker.wake();
        }
        Ok(())
    }

    /// What one of our own threads has to say. Dropped once the loop has ended.
    pub(super) fn report(&self, item: T) {
        if self.push(item, true) {
            self.waker.wake();
        }
    }

    /// As [`Inbox::report`], for what can wait: a sleeping loop sleeps on, until [`Inbox::nudge`] or anything else.
    pub(super) fn report_quietly(&self, item: T) {
        self.push(item, false);
    }

    /// Wakes the loop if it sleeps over quiet reports.
    pub(super) fn nudge(&self) {
        let must_wake = {
            let mut state = lock(&self.state);
            !state.items.is_empty() && std::mem::take(&mut state.is_asleep)
        };
        if must_wake {
            self.waker.wake();
        }
    }

    fn push(&self, item: T, may_wake: bool) -> bool {
        let mut state = lock(&self.state);
        if state.is_ended {
            return false;
        }
        state.items.push((item, 0));
        may_wake && std::mem::take(&mut state.is_asleep)
    }

    /// Refuses requests from now on; `last` comes behind everything taken before. Only the first call counts.
    pub(super) fn close(&self, last: T) {
        let must_wake = {
            let mut state = lock(&self.state);
            if state.rejection == Some(Rejection::Closed) {
                return;
            }
            state.rejection = Some(Rejection::Closed);
            if !state.is_ended {
                state.items.push((last, 0));
            }
            std::mem::take(&mut state.is_asleep)
        };
        if must_wake {
            self.waker.wake();
        }
    }

    /// The loop: swaps everything queued, each with its cost, for `empty`, an empty vector; and opens the budget by what
    /// it has handed on of what it took before.
    pub(super) fn take(&self, empty: &mut Vec<(T, usize)>, handed_on_bytes: usize) {
        debug_assert!(empty.is_empty());
        let mut state = lock(&self.state);
        std::mem::swap(&mut state.items, empty);
        state.bytes -= handed_on_bytes;
    }

    /// The loop, before its poll: whether it may sleep. If so, whatever comes from now on wakes it, once.
    pub(super) fn may_sleep(&self) -> bool {
        let mut state = lock(&self.state);
        state.is_asleep = state.items.is_empty();
        state.is_asleep
    }

    /// The loop, after its poll.
    pub(super) fn awake(&self) {
        lock(&self.state).is_asleep = false;
    }

    /// The loop, at its end: takes what is left, and refuses everything from now on.
    pub(super) fn end(&self, rejection: Rejection) -> Vec<T> {
        let mut state = lock(&self.state);
        state.rejection.get_or_insert(rejection);
        state.is_ended = true;
        state.bytes = 0;
        std::mem::take(&mut state.items).into_iter().map(|(item, _)| item).collect()
    }

    /// Bytes of requests that the loop has not handed on.
    pub(super) fn queued_bytes(&self) -> usize {
        lock(&self.state).bytes
    }

    /// The budget in bytes.
    pub(super) fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }
}
