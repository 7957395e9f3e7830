//! The one way out of the loop: work for the state machines, in order, and the right to do it. Whoever has the
//! dispatcher does the work; others wait, without holding anything. Only sleepers are woken; where nobody sleeps, a
//! descriptor is signalled. Knows nothing of what the work is.

use std::collections::VecDeque;
use std::time::Duration;

use super::sync::{Condvar, Mutex, lock, wait};

/// Tells hosts that poll a descriptor whether there is work.
pub(super) trait Announce {
    /// There is work and nobody at it, or not any more. Called under the queue's lock; repeats are cheap.
    fn announce(&self, has_work: bool);
}

/// Work of type `W`, done by a dispatcher of type `D`.
pub(super) struct WorkQueue<W, D, A> {
    state: Mutex<State<W, D>>,
    changed: Condvar,
    announcer: A,
}

struct State<W, D> {
    work: VecDeque<W>,
    /// Absent while somebody works.
    dispatcher: Option<D>,
    waiting: usize,
    is_closing: bool,
}

/// What a wait for work ended with.
pub(super) enum Taken<D> {
    /// The dispatcher is the caller's until [`WorkQueue::give_back`]; the work is in the vector it brought.
    Work(D),
    /// Nothing came in time.
    Nothing,
    /// The server closes.
    Closing,
}

impl<W, D, A: Announce> WorkQueue<W, D, A> {
    pub(super) fn new(dispatcher: D, announcer: A) -> Self {
        let state = State { work: VecDeque::new(), dispatcher: Some(dispatcher), waiting: 0, is_closing: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), announcer }
    }

    /// Appends work, in order.
    pub(super) fn push(&self, work: impl IntoIterator<Item = W>) {
        let must_wake = {
            let mut state = lock(&self.state);
            state.work.extend(work);
            self.call_worker(&state)
        };
        if must_wake {
            self.changed.notify_one();
        }
    }

    /// Whether a sleeper must be woken; announces where none is.
    fn call_worker(&self, state: &State<W, D>) -> bool {
        let is_waiting_for_worker = state.dispatcher.is_some() && !state.work.is_empty();
        if is_waiting_for_worker && state.waiting == 0 {
            self.announcer.announce(true);
        }
        is_waiting_for_worker && state.waiting > 0
    }

    /// Waits until there is work and nobody at it, for about `timeout` (`None`: for ever), and takes the dispatcher
    /// with up to `max` pieces into `into`.
    pub(super) fn take(&self, max: usize, timeout: Option<Duration>, into: &mut VecDeque<W>) -> Taken<D> {
        let mut state = lock(&self.state);
        let mut has_waited = false;
        loop {
            if state.is_closing {
                return Taken::Closing;
            }
            if !state.work.is_empty()
                && let Some(dispatcher) = state.dispatcher.take()
            {
                if state.work.len() <= max && into.is_empty() {
                    std::mem::swap(&mut state.work, into);
                } else {
                    let count = max.min(state.work.len());
                    into.extend(state.work.drain(..count));
                }
                self.announcer.announce(false);
                return Taken::Work(dispatcher);
            }
            // A wake for nothing ends a wait with a limit early: the caller may ask again.
            if has_waited && timeout.is_some() || timeout.is_some_and(|timeout| timeout.is_zero()) {
                return Taken::Nothing;
            }
            state.waiting += 1;
            state = wait(&self.changed, state, timeout);
            state.waiting -= 1;
            has_waited = true;
        }
    }

    /// Ends what [`WorkQueue::take`] began.
    pub(super) fn give_back(&self, dispatcher: D) {
        let (must_wake, is_closing) = {
            let mut state = lock(&self.state);
            state.dispatcher = Some(dispatcher);
            (self.call_worker(&state), state.is_closing)
        };
        if is_closing {
            self.changed.notify_all();
        } else if must_wake {
            self.changed.notify_one();
        }
    }

    /// Makes every [`WorkQueue::take`] return, now and for ever.
    pub(super) fn close(&self) {
        lock(&self.state).is_closing = true;
        self.changed.notify_all();
    }

    /// After [`WorkQueue::close`]: waits for whoever works, and takes the dispatcher for good, with the work so far. To be
    /// called once.
    pub(super) fn take_last(&self) -> (D, VecDeque<W>) {
        let mut state = lock(&self.state);
        loop {
            if let Some(dispatcher) = state.dispatcher.take() {
                return (dispatcher, std::mem::take(&mut state.work));
            }
            state = wait(&self.changed, state, None);
        }
    }

    /// After [`WorkQueue::take_last`]: what has come since.
    pub(super) fn take_left(&self) -> VecDeque<W> {
        std::mem::take(&mut lock(&self.state).work)
    }
}
