//! Ends of requests as plain values: a number, and what belongs to it. The numbers are those of
//! `raft_engine/_requests.py`.

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use raft_engine::server::{Completion, NotApplied, Outcome, Unknown};

use crate::digest;

/// The number of an outcome; 0 is success.
pub(crate) fn code(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Applied | Outcome::Answered | Outcome::SnapshotTaken | Outcome::Done | Outcome::DigestsChecked(_) => 0,
        Outcome::NotApplied(NotApplied::NotLeader { .. }) => 1,
        Outcome::NotApplied(NotApplied::Overloaded) => 2,
        Outcome::NotApplied(NotApplied::TooLarge) => 3,
        Outcome::NotApplied(NotApplied::DiskFull) => 4,
        Outcome::NotApplied(NotApplied::Closed) => 5,
        Outcome::NotApplied(NotApplied::Busy) => 6,
        Outcome::NotApplied(NotApplied::Forming) => 7,
        Outcome::NotApplied(NotApplied::Failed(_)) => 8,
        Outcome::Unknown(Unknown::LeadershipLost) => 9,
        Outcome::Unknown(Unknown::Closed) => 10,
        Outcome::Unknown(Unknown::Stopped) => 11,
        Outcome::Unknown(Unknown::TimedOut) => 12,
        Outcome::NotApplied(NotApplied::Transferring) => 13,
        Outcome::NotApplied(NotApplied::Invalid(_)) => 14,
        Outcome::NotApplied(NotApplied::GivenUp(_)) => 15,
        Outcome::NotApplied(NotApplied::Cancelled) => 16,
        Outcome::Unknown(Unknown::SessionExpired) => 17,
        Outcome::Unknown(Unknown::ReplyForgotten) => 18,
    }
}

/// The result as bytes, what came of a comparison, the leader as a number or None, the message of a failure; else None.
pub(crate) fn detail<'py>(py: Python<'py>, completion: &Completion) -> PyResult<Bound<'py, PyAny>> {
    match &completion.outcome {
        Outcome::Applied | Outcome::Answered | Outcome::SnapshotTaken | Outcome::Done => {
            Ok(PyBytes::new(py, &completion.result).into_any())
        }
        Outcome::DigestsChecked(check) => Ok(digest::row(py, check)?.into_any()),
        Outcome::NotApplied(NotApplied::NotLeader { leader }) => leader.map(|leader| leader.0).into_bound_py_any(py),
        Outcome::NotApplied(
            NotApplied::Failed(message) | NotApplied::Invalid(message) | NotApplied::GivenUp(message),
        ) => message.into_bound_py_any(py),
        _ => Ok(py.None().into_bound(py)),
    }
}
