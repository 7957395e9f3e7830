//! A snapshot lent to `restore`.

use std::io::Read;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use raft_engine::server;

/// A snapshot on the local disk, good until `restore` returns, whoever keeps it.
#[pyclass(frozen, module = "raft_engine._native")]
pub(crate) struct SnapshotReader {
    lent: Mutex<Option<Lent>>,
    #[pyo3(get)]
    index: u64,
    #[pyo3(get)]
    term: u64,
}

struct Lent(NonNull<server::SnapshotReader>);

// SAFETY: the engine's reader is Send, and the mutex around this gives it to one thread at a time.
unsafe impl Send for Lent {}

const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<server::SnapshotReader>();
};

impl SnapshotReader {
    fn lock(&self) -> MutexGuard<'_, Option<Lent>> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lends the engine's reader to Python for as long as `call` runs.
pub(crate) fn lend<R>(
    py: Python<'_>,
    reader: &mut server::SnapshotReader,
    call: impl FnOnce(&Bound<'_, SnapshotReader>) -> PyResult<R>,
) -> PyResult<R> {
    let (index, term) = (reader.index(), reader.term());
    let lent = Mutex::new(Some(Lent(NonNull::from(reader))));
    let object = Bound::new(py, SnapshotReader { lent, index, term })?;
    /// Takes it back, also from a panic.
    struct Loan<'a, 'py>(&'a Bound<'py, SnapshotReader>);
    impl Drop for Loan<'_, '_> {
        fn drop(&mut self) {
            // A reader on another thread holds the lock, but never waits for the interpreter with it.
            *self.0.get().lock() = None;
        }
    }
    let _loan = Loan(&object);
    call(&object)
}

#[pymethods]
impl SnapshotReader {
    /// The next bytes, at most `size`; empty at the end only.
    fn read<'py>(&self, py: Python<'py>, size: usize) -> PyResult<Bound<'py, PyBytes>> {
        let result = py.detach(|| {
            let lent = self.lock();
            let lent = lent.as_ref()?;
            // SAFETY: it is lent until `lend` takes it back under this lock, and nothing else uses it meanwhile.
            let reader = unsafe { &mut *lent.0.as_ptr() };
            let mut buffer = vec![0; size];
            Some(reader.read(&mut buffer).map(|count| {
                buffer.truncate(count);
                buffer
            }))
        });
        match result {
            Some(Ok(bytes)) => Ok(PyBytes::new(py, &bytes)),
            Some(Err(error)) => Err(PyOSError::new_err(error.to_string())),
            None => Err(PyValueError::new_err("`restore` has returned: its snapshot can no longer be read")),
        }
    }
}
