//! The locks that the queues are built on, in one place, so that a model checker can put its own in their stead
//! (`model.rs` compiles the queues a second time over loom's).

pub(super) use std::sync::{Condvar, Mutex, MutexGuard};
use std::sync::{LockResult, PoisonError};
use std::time::Duration;

/// Locks. A panic while one of these locks was held cannot have left it half changed: nothing under them calls out.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    unpoisoned(mutex.lock())
}

/// Waits until notified, or for about `timeout` (`None`: for ever). May wake for nothing.
pub(super) fn wait<'a, T>(
    condition: &Condvar,
    guard: MutexGuard<'a, T>,
    timeout: Option<Duration>,
) -> MutexGuard<'a, T> {
    match timeout {
        Some(timeout) => condition.wait_timeout(guard, timeout).unwrap_or_else(PoisonError::into_inner).0,
        None => unpoisoned(condition.wait(guard)),
    }
}

fn unpoisoned<T>(result: LockResult<T>) -> T {
    result.unwrap_or_else(PoisonError::into_inner)
}
