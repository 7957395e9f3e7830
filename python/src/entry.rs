//! One entry, as a state machine of Python gets it.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use raft_engine::server::ApplyEntry;

/// One committed entry: bytes that somebody proposed.
#[pyclass(frozen, get_all, module = "raft_engine")]
pub(crate) struct Entry {
    /// Its place in the log. Grows, with gaps where the engine's own entries are.
    index: u64,
    /// The term of the leader that made it.
    term: u64,
    /// The group's own time when it was made, in nanoseconds since the group was formed; no wall clock is in it.
    log_time: u64,
    /// What was proposed.
    data: Py<PyBytes>,
}

#[pymethods]
impl Entry {
    #[new]
    fn new(index: u64, term: u64, log_time: u64, data: Py<PyBytes>) -> Self {
        Self { index, term, log_time, data }
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let Self { index, term, log_time, data } = self;
        let data = data.bind(py).repr()?;
        Ok(format!("Entry(index={index}, term={term}, log_time={log_time}, data={data})"))
    }
}

impl Entry {
    /// Copies an entry of a batch.
    pub(crate) fn copy(py: Python<'_>, entry: ApplyEntry<'_>) -> Self {
        let data = PyBytes::new(py, entry.data).unbind();
        Self { index: entry.index, term: entry.term, log_time: entry.log_time.0, data }
    }
}
