//! Virtual time: a queue of what is going to happen, in order of time and, within one moment, of submission.
//!
//! Nothing else in the simulator knows what time it is, and nothing waits.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::types::Time;

/// What is going to happen, and when.
pub(super) struct Queue<T> {
    now: Time,
    heap: BinaryHeap<Slot<T>>,
    next_number: u64,
}

struct Slot<T> {
    at: Time,
    number: u64,
    what: T,
}

impl<T> Queue<T> {
    /// An empty queue at time zero.
    pub(super) fn new() -> Self {
        Self { now: Time(0), heap: BinaryHeap::new(), next_number: 0 }
    }

    /// The present.
    pub(super) fn now(&self) -> Time {
        self.now
    }

    /// Lets `what` happen at `at`, or at once if that has passed.
    pub(super) fn at(&mut self, at: Time, what: T) {
        let number = self.next_number;
        self.next_number += 1;
        self.heap.push(Slot { at: at.max(self.now), number, what });
    }

    /// Lets `what` happen after a while.
    pub(super) fn after(&mut self, delay: Duration, what: T) {
        self.at(self.now + delay, what);
    }

    /// Moves on to what happens next.
    pub(super) fn pop(&mut self) -> Option<T> {
        let slot = self.heap.pop()?;
        self.now = slot.at;
        Some(slot.what)
    }
}

impl<T> Ord for Slot<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<T> PartialOrd for Slot<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Slot<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Slot<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_goes_back_and_ties_keep_their_order() {
        let mut queue = Queue::new();
        queue.after(Duration::from_nanos(5), 'b');
        queue.after(Duration::from_nanos(5), 'c');
        queue.after(Duration::from_nanos(1), 'a');
        assert_eq!(queue.pop(), Some('a'));
        queue.at(Time(0), 'z');
        assert_eq!((queue.pop(), queue.now()), (Some('z'), Time(1)));
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some('b'), Some('c'), None));
    }
}
