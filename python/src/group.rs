//! One group of an open server. Every request is a submission with a tag; its end comes through the bridge.

use bytes::Bytes;
use pyo3::exceptions::PyTypeError;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList, PyMemoryView};
use raft_engine::server::{self, Consistency, Item, SessionId, SessionKey};
use raft_engine::types::ServerId;

use crate::change::{ChangeRow, change, seconds};
use crate::server::Process;
use crate::{error, status};

/// The engine's group.
#[pyclass(frozen, module = "raft_engine._native")]
pub(crate) struct Group {
    group: server::Group,
    process: Process,
}

impl Group {
    pub(crate) fn new(group: server::Group, process: Process) -> Self {
        Self { group, process }
    }
}

#[pymethods]
impl Group {
    /// Submits items under consecutive tags, in one buffer. `keys` has one an item, or none at all; those of session 0 are of
    /// no session.
    fn propose(&self, first_tag: u64, items: &Bound<'_, PyList>, keys: Vec<(u64, u64, u64)>) -> PyResult<()> {
        self.process.check()?;
        let mut buffer = Vec::new();
        let mut ends = Vec::with_capacity(items.len());
        for item in items.iter() {
            append(&item, &mut buffer)?;
            ends.push(buffer.len());
        }
        let buffer = Bytes::from(buffer);
        let mut start = 0;
        let keys = keys.into_iter().map(session_key).chain(std::iter::repeat(None));
        let items = (first_tag..).zip(ends).zip(keys).map(|((tag, end), session)| {
            let data = buffer.slice(start..end);
            start = end;
            Item { tag, data, session }
        });
        self.group.propose(items.collect()).map_err(|refusal| error::refused(&refusal))
    }

    fn query(&self, tag: u64, request: &Bound<'_, PyAny>, freshness: &str, index: u64) -> PyResult<()> {
        self.process.check()?;
        let mut bytes = Vec::new();
        append(request, &mut bytes)?;
        let submitted = self.group.query_submit(tag, bytes.into(), consistency(freshness, index)?);
        submitted.map_err(|refusal| error::refused(&refusal))
    }

    fn read(&self, tag: u64, freshness: &str, index: u64) -> PyResult<()> {
        self.process.check()?;
        let submitted = self.group.read_submit(tag, consistency(freshness, index)?);
        submitted.map_err(|refusal| error::refused(&refusal))
    }

    fn snapshot(&self, tag: u64) -> PyResult<()> {
        self.process.check()?;
        self.group.snapshot_submit(tag).map_err(|refusal| error::refused(&refusal))
    }

    fn open_session(&self, tag: u64) -> PyResult<()> {
        self.process.check()?;
        self.group.open_session_submit(tag).map_err(|refusal| error::refused(&refusal))
    }

    fn renew_session(&self, tag: u64, session: u64) -> PyResult<()> {
        self.process.check()?;
        self.group.renew_session_submit(tag, SessionId(session)).map_err(|refusal| error::refused(&refusal))
    }

    fn close_session(&self, tag: u64, session: u64) -> PyResult<()> {
        self.process.check()?;
        self.group.close_session_submit(tag, SessionId(session)).map_err(|refusal| error::refused(&refusal))
    }

    fn change_members(&self, tag: u64, changes: Vec<ChangeRow>, patience_seconds: f64) -> PyResult<()> {
        self.process.check()?;
        let changes = changes.into_iter().map(change).collect::<PyResult<_>>()?;
        let submitted = self.group.change_members_submit(tag, changes, seconds(patience_seconds)?);
        submitted.map_err(|refusal| error::refused(&refusal))
    }

    fn cancel_change(&self, tag: u64) -> PyResult<()> {
        self.process.check()?;
        self.group.cancel_change_submit(tag).map_err(|refusal| error::refused(&refusal))
    }

    fn transfer_leadership(&self, tag: u64, to: Option<u64>, patience_seconds: f64) -> PyResult<()> {
        self.process.check()?;
        let submitted = self.group.transfer_leadership_submit(tag, to.map(ServerId), seconds(patience_seconds)?);
        submitted.map_err(|refusal| error::refused(&refusal))
    }

    fn check_digests(&self, tag: u64, patience_seconds: f64) -> PyResult<()> {
        self.process.check()?;
        let submitted = self.group.check_digests_submit(tag, seconds(patience_seconds)?);
        submitted.map_err(|refusal| error::refused(&refusal))
    }

    fn status<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        self.process.check()?;
        self.group.status().map(|status| status::of_group(py, &status)).transpose()
    }
}

fn session_key((session, sequence, lowest_outstanding): (u64, u64, u64)) -> Option<SessionKey> {
    (session != 0).then_some(SessionKey { session: SessionId(session), sequence, lowest_outstanding })
}

fn append(item: &Bound<'_, PyAny>, buffer: &mut Vec<u8>) -> PyResult<()> {
    if let Ok(bytes) = item.cast::<PyBytes>() {
        buffer.extend_from_slice(bytes.as_bytes());
    } else if item.is_instance_of::<PyByteArray>() || item.is_instance_of::<PyMemoryView>() {
        let bytes = item.py().get_type::<PyBytes>().call1((item,))?;
        buffer.extend_from_slice(bytes.cast::<PyBytes>()?.as_bytes());
    } else {
        return Err(PyTypeError::new_err(format!("a {} is no bytes", item.get_type().qualname()?)));
    }
    Ok(())
}

fn consistency(freshness: &str, index: u64) -> PyResult<Consistency> {
    match freshness {
        "linearizable" => Ok(Consistency::Linearizable),
        "lease" => Ok(Consistency::Lease),
        "stale" => Ok(Consistency::Stale),
        "at-least" => Ok(Consistency::AtLeast(index)),
        _ => Err(PyValueError::new_err(format!("{freshness} is no consistency"))),
    }
}
