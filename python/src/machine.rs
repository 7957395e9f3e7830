//! A state machine of Python behind the engine's trait. Each call attaches to the interpreter once.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use raft_engine::server::{
    ApplyBatch, ApplyFailure, Completion, HostDigest, Notice, SnapshotReader, SnapshotSource, SnapshotStep,
    StateMachine,
};
use raft_engine::types::Index;

use crate::entry::Entry;
use crate::{notice, outcome, reader};

/// A `Bridge` of `raft_engine._bridge`.
pub(crate) struct PythonMachine {
    bridge: Attached,
    applied: Index,
}

impl PythonMachine {
    pub(crate) fn new(bridge: Py<PyAny>, applied: Index) -> Self {
        Self { bridge: Attached(Some(bridge)), applied }
    }
}

/// An object that is called, and let go of, attached.
struct Attached(Option<Py<PyAny>>);

impl Attached {
    /// Calls with the object.
    ///
    /// # Errors
    /// What Python raised, in one line.
    fn with<R>(&self, call: impl for<'py> FnOnce(&Bound<'py, PyAny>) -> PyResult<R>) -> Result<R, String> {
        let object = self.0.as_ref().expect("it is let go of by drop only");
        let result = Python::try_attach(|py| call(object.bind(py)).map_err(|error| describe(py, &error)));
        result.unwrap_or_else(|| Err("the interpreter is ending: the server was not closed before".into()))
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut object = self.0.take();
        // Where the interpreter is gone, so is the object.
        if Python::try_attach(|_| drop(object.take())).is_none() {
            std::mem::forget(object);
        }
    }
}

fn describe(py: Python<'_>, error: &PyErr) -> String {
    let described = py
        .import(pyo3::intern!(py, "raft_engine._bridge"))
        .and_then(|module| module.call_method1(pyo3::intern!(py, "describe"), (error.value(py),)))
        .and_then(|text| text.extract());
    described.unwrap_or_else(|_| error.to_string())
}

impl StateMachine for PythonMachine {
    fn apply(&mut self, batch: &mut ApplyBatch<'_>) -> Result<(), ApplyFailure> {
        let failure = self.bridge.with(|bridge| {
            let py = bridge.py();
            let entries: PyResult<Vec<_>> =
                batch.entries().map(|entry| Bound::new(py, Entry::copy(py, entry))).collect();
            let returned = bridge.call_method1(pyo3::intern!(py, "apply"), (PyList::new(py, entries?)?,))?;
            let (results, message): (Bound<'_, PyList>, Option<String>) = returned.extract()?;
            for (position, result) in results.iter().enumerate() {
                if result.is_none() {
                    continue;
                }
                if let Err(message) = batch.set_result(position, result.cast::<PyBytes>()?.as_bytes()) {
                    return Ok(Some(ApplyFailure { applied: position, message }));
                }
            }
            Ok(message.map(|message| ApplyFailure { applied: results.len(), message }))
        });
        match failure {
            Ok(None) => Ok(()),
            Ok(Some(failure)) => Err(failure),
            Err(message) => Err(ApplyFailure { applied: 0, message }),
        }
    }

    fn query(&mut self, request: &[u8], reply: &mut Vec<u8>) -> Result<(), String> {
        self.bridge.with(|bridge| {
            let py = bridge.py();
            let answer = bridge.call_method1(pyo3::intern!(py, "query"), (PyBytes::new(py, request),))?;
            reply.extend_from_slice(answer.cast::<PyBytes>()?.as_bytes());
            Ok(())
        })
    }

    fn snapshot(&mut self) -> Result<Box<dyn SnapshotSource>, String> {
        self.bridge.with(|bridge| {
            let pieces = bridge.call_method0(pyo3::intern!(bridge.py(), "snapshot"))?.unbind();
            Ok(Box::new(PythonSnapshot(Attached(Some(pieces)))) as Box<dyn SnapshotSource>)
        })
    }

    fn restore(&mut self, snapshot: &mut SnapshotReader) -> Result<(), String> {
        let failure: Option<String> = self.bridge.with(|bridge| {
            let py = bridge.py();
            reader::lend(py, snapshot, |reader| bridge.call_method1(pyo3::intern!(py, "restore"), (reader,))?.extract())
        })?;
        failure.map_or(Ok(()), Err)
    }

    fn digest(&mut self) -> Result<Option<HostDigest>, String> {
        self.bridge.with(|bridge| {
            let digest: Option<Bound<'_, PyBytes>> =
                bridge.call_method0(pyo3::intern!(bridge.py(), "digest"))?.extract()?;
            // The bridge gives no longer ones.
            Ok(digest.and_then(|digest| HostDigest::new(digest.as_bytes())))
        })
    }

    fn completed(&mut self, completions: &[Completion]) {
        let told = self.bridge.with(|bridge| {
            let py = bridge.py();
            let details: PyResult<Vec<_>> =
                completions.iter().map(|completion| outcome::detail(py, completion)).collect();
            let columns = (
                PyList::new(py, completions.iter().map(|completion| completion.tag))?,
                PyList::new(py, completions.iter().map(|completion| outcome::code(&completion.outcome)))?,
                PyList::new(py, details?)?,
                PyList::new(py, completions.iter().map(|completion| completion.index))?,
                PyList::new(py, completions.iter().map(|completion| completion.term))?,
            );
            bridge.call_method1(pyo3::intern!(py, "completed"), columns)?;
            Ok(())
        });
        // Somebody would wait for ever: the engine stops the group and says so.
        if let Err(message) = told {
            panic!("{message}");
        }
    }

    fn notice(&mut self, notice: &Notice) {
        if let Err(message) = self.bridge.with(|bridge| notice::tell(bridge, notice)) {
            panic!("{message}");
        }
    }

    fn applied_index(&self) -> Index {
        self.applied
    }
}

/// A `Pieces` of `raft_engine._bridge`.
struct PythonSnapshot(Attached);

impl SnapshotSource for PythonSnapshot {
    fn write(&mut self, buffer: &mut [u8]) -> Result<SnapshotStep, String> {
        self.0.with(|pieces| {
            let read = pieces.call_method1(pyo3::intern!(pieces.py(), "read"), (buffer.len(),))?;
            let (step, is_last): (Bound<'_, PyBytes>, bool) = read.extract()?;
            let step = step.as_bytes();
            buffer[..step.len()].copy_from_slice(step);
            Ok(SnapshotStep { bytes: step.len(), is_last })
        })
    }
}

impl Drop for PythonSnapshot {
    fn drop(&mut self) {
        // `release` raises nothing; where the interpreter is ending, there is nothing to release.
        let _ = self.0.with(|pieces| pieces.call_method0(pyo3::intern!(pieces.py(), "release")).map(drop));
    }
}
