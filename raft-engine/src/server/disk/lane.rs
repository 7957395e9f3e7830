//! One thread that carries out work in the order of its submission and reports each end.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use super::super::sync::{lock, wait};
use super::super::sys;
use super::Report;
use crate::types::{DiskDone, DiskError, DiskWork, DiskWorkId};

/// The lane. Dropping it finishes what was submitted and ends the thread.
pub(super) struct Lane {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Work without an id is not reported.
    queue: VecDeque<(Option<DiskWorkId>, DiskWork)>,
    is_asleep: bool,
    is_closing: bool,
}

impl Lane {
    pub(super) fn start(
        name: &'static str,
        report: Report,
        mut carry_out: impl FnMut(DiskWork) -> Result<DiskDone, DiskError> + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let for_thread = shared.clone();
        let thread = sys::spawn(name, move || {
            while let Some((id, work)) = for_thread.next() {
                let result = carry_out(work);
                if let Some(id) = id {
                    report((id, result));
                }
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(super) fn submit(&self, id: DiskWorkId, work: DiskWork) {
        self.shared.push(Some(id), work);
    }

    pub(super) fn submit_silently(&self, work: DiskWork) {
        self.shared.push(None, work);
    }
}

impl Shared {
    fn push(&self, id: Option<DiskWorkId>, work: DiskWork) {
        let must_wake = {
            let mut state = lock(&self.state);
            state.queue.push_back((id, work));
            std::mem::take(&mut state.is_asleep)
        };
        if must_wake {
            self.changed.notify_one();
        }
    }

    fn next(&self) -> Option<(Option<DiskWorkId>, DiskWork)> {
        let mut state = lock(&self.state);
        loop {
            if let Some(next) = state.queue.pop_front() {
                return Some(next);
            }
            if state.is_closing {
                return None;
            }
            state.is_asleep = true;
            state = wait(&self.changed, state, None);
            state.is_asleep = false;
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        lock(&self.shared.state).is_closing = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic on the thread was a defect in carrying out; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}
