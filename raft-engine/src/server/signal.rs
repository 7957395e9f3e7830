//! The descriptor that a host polls: readable while any of a few reasons holds. Writes to the system only when that
//! changes, and only once somebody has asked for the descriptor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

use super::sync::{Mutex, lock};
use super::work_queue::Announce;

/// Why the descriptor is readable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Reason {
    /// There is something to dispatch.
    Work = 1,
    /// There are completions to poll.
    Completions = 2,
    /// The server is closed.
    Closed = 4,
}

/// The descriptor and its reasons.
pub(super) struct Signal {
    descriptor: OwnedFd,
    state: Mutex<State>,
}

struct State {
    reasons: u8,
    /// Somebody holds the descriptor.
    is_wanted: bool,
    is_readable: bool,
}

impl Signal {
    pub(super) fn new() -> rustix::io::Result<Self> {
        let descriptor = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { descriptor, state: Mutex::new(State { reasons: 0, is_wanted: false, is_readable: false }) })
    }

    /// Says whether a reason holds.
    pub(super) fn set(&self, reason: Reason, holds: bool) {
        let mut state = lock(&self.state);
        if holds {
            state.reasons |= reason as u8;
        } else {
            state.reasons &= !(reason as u8);
        }
        self.settle(&mut state);
    }

    fn settle(&self, state: &mut State) {
        let should_be_readable = state.is_wanted && state.reasons != 0;
        if should_be_readable && !state.is_readable {
            // An event counter that is not full takes a write at once; nothing else can fail here.
            let _ = rustix::io::write(&self.descriptor, &1u64.to_ne_bytes());
        } else if !should_be_readable && state.is_readable {
            let _ = rustix::io::read(&self.descriptor, &mut [0u8; 8]);
        }
        state.is_readable = should_be_readable;
    }

    /// The descriptor; from now on it is kept up to date.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        let mut state = lock(&self.state);
        state.is_wanted = true;
        self.settle(&mut state);
        self.descriptor.as_fd()
    }
}

impl Announce for Arc<Signal> {
    fn announce(&self, has_work: bool) {
        self.set(Reason::Work, has_work);
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    fn is_readable(descriptor: BorrowedFd<'_>) -> bool {
        let mut descriptors = [PollFd::new(&descriptor, PollFlags::IN)];
        poll(&mut descriptors, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    #[test]
    fn the_descriptor_is_readable_exactly_while_a_reason_holds() {
        let signal = Signal::new().unwrap();
        signal.set(Reason::Work, true);
        let descriptor = signal.descriptor();
        assert!(is_readable(descriptor), "a reason from before the descriptor was asked for counts");
        signal.set(Reason::Completions, true);
        signal.set(Reason::Work, false);
        assert!(is_readable(descriptor));
        signal.set(Reason::Completions, false);
        assert!(!is_readable(descriptor));
        signal.set(Reason::Closed, true);
        assert!(is_readable(descriptor));
    }
}
