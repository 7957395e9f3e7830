//! Requests of the host that are open, and whom to answer. The loop owns the table: a request enters it when the loop
//! takes it from the queue and leaves it once, with its answer or on its way to the dispatch. So every request is
//! answered exactly once, whatever becomes of the driver.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Completion;
use super::sync::{Condvar, Mutex, lock, wait};
use crate::driver::Ticket;
use crate::types::GroupId;

/// Whom to answer.
pub(super) enum ReplyTo {
    /// The group's completion stream, under the host's tag.
    Stream(u64),
    /// A thread that waits.
    Waiter(Arc<Waiter>),
}

/// What was asked.
pub(super) enum Question {
    Proposal,
    /// Something that an operator wants done.
    Operation,
    /// To be told when the state machine is fresh enough.
    Read,
    /// To be answered by the state machine.
    Query(Box<Bytes>),
}

/// One open request.
pub(super) struct Request {
    pub(super) group: GroupId,
    pub(super) reply_to: ReplyTo,
    pub(super) question: Question,
}

/// A thread that waits for one answer.
pub(super) struct Waiter<T = Completion> {
    answer: Mutex<Option<T>>,
    answered: Condvar,
}

impl<T> Default for Waiter<T> {
    fn default() -> Self {
        Self { answer: Mutex::new(None), answered: Condvar::new() }
    }
}

impl<T> Waiter<T> {
    /// Ends the wait.
    pub(super) fn complete(&self, answer: T) {
        *lock(&self.answer) = Some(answer);
        self.answered.notify_one();
    }

    /// `None` if nothing came in time; whatever comes then is dropped.
    #[allow(clippy::disallowed_methods, reason = "a host's timeout is real time")]
    pub(super) fn wait(&self, timeout: Duration) -> Option<T> {
        // A deadline beyond what the clock can name is none.
        let deadline = Instant::now().checked_add(timeout);
        let mut answer = lock(&self.answer);
        loop {
            if answer.is_some() {
                return answer.take();
            }
            let remaining = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if remaining.is_some_and(|remaining| remaining.is_zero()) {
                return None;
            }
            answer = wait(&self.answered, answer, remaining);
        }
    }
}

/// The table of open requests. A ticket's tag is a place in it; its origin a number never used again, so that a ticket
/// that was answered is never taken for another.
#[derive(Default)]
pub(super) struct Requests {
    slots: Vec<Option<(u64, Request)>>,
    free: Vec<usize>,
    last_number: u64,
}

impl Requests {
    /// Enters a request.
    pub(super) fn insert(&mut self, request: Request) -> Ticket {
        self.last_number += 1;
        let slot = Some((self.last_number, request));
        let place = match self.free.pop() {
            Some(place) => {
                self.slots[place] = slot;
                place
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        };
        Ticket { origin: self.last_number, tag: place as u64 }
    }

    /// Takes the request of a ticket out.
    ///
    /// # Panics
    /// If it was taken before: the driver answered twice.
    pub(super) fn take(&mut self, ticket: Ticket) -> Request {
        let slot = usize::try_from(ticket.tag).ok().and_then(|place| self.slots.get_mut(place));
        let slot = slot.filter(|slot| slot.as_ref().is_some_and(|(number, _)| *number == ticket.origin));
        let taken = slot.and_then(Option::take);
        assert!(taken.is_some(), "request {} was answered twice", ticket.origin);
        self.free.push(ticket.tag as usize);
        taken.expect("just checked").1
    }

    /// Takes everything out, in no order.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Request> + use<> {
        self.free.clear();
        std::mem::take(&mut self.slots).into_iter().flatten().map(|(_, request)| request)
    }

    /// How many are open.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(tag: u64) -> Request {
        Request { group: GroupId(1), reply_to: ReplyTo::Stream(tag), question: Question::Proposal }
    }

    #[test]
    fn a_request_leaves_the_table_once_though_its_place_is_used_again() {
        let mut requests = Requests::default();
        let first = requests.insert(request(7));
        assert!(matches!(requests.take(first).reply_to, ReplyTo::Stream(7)));
        let second = requests.insert(request(8));
        assert_eq!(second.tag, first.tag);
        assert_eq!(requests.len(), 1);
        let twice = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| requests.take(first)));
        assert!(twice.is_err());
        assert!(matches!(requests.take(second).reply_to, ReplyTo::Stream(8)));
        assert_eq!(requests.len(), 0);
    }

    #[test]
    fn what_is_drained_is_everything_open() {
        let mut requests = Requests::default();
        let tickets: Vec<_> = (0..5).map(|tag| requests.insert(request(tag))).collect();
        requests.take(tickets[2]);
        assert_eq!(requests.drain().count(), 4);
        assert_eq!(requests.len(), 0);
    }

    #[test]
    fn a_wait_without_an_answer_ends() {
        assert_eq!(Waiter::<Completion>::default().wait(Duration::ZERO), None);
    }
}
