//! The engine's errors as exceptions of `raft_engine.errors`.

use pyo3::PyErr;
use raft_engine::server::{CloseError, ConfigError, DispatchError, OfflineError, OpenError, Refused, StartError};

/// The classes, found when the first of them is raised.
mod class {
    #![allow(missing_docs, reason = "the macro documents nothing")]

    pyo3::import_exception!(raft_engine.errors, Closed);
    pyo3::import_exception!(raft_engine.errors, ConfigError);
    pyo3::import_exception!(raft_engine.errors, DirectoryLocked);
    pyo3::import_exception!(raft_engine.errors, Forked);
    pyo3::import_exception!(raft_engine.errors, InCallback);
    pyo3::import_exception!(raft_engine.errors, OpenError);
    pyo3::import_exception!(raft_engine.errors, Overloaded);
    pyo3::import_exception!(raft_engine.errors, RecoveryError);
    pyo3::import_exception!(raft_engine.errors, StartError);
    pyo3::import_exception!(raft_engine.errors, TooLarge);
}

pub(crate) fn config(error: &ConfigError) -> PyErr {
    class::ConfigError::new_err(error.to_string())
}

pub(crate) fn open(error: &OpenError) -> PyErr {
    match error {
        OpenError::Config(error) => config(error),
        OpenError::Locked { .. } => class::DirectoryLocked::new_err(error.to_string()),
        _ => class::OpenError::new_err(error.to_string()),
    }
}

pub(crate) fn offline(error: &OfflineError) -> PyErr {
    match error {
        OfflineError::Directory(error) => open(error),
        OfflineError::Refused { .. } => class::RecoveryError::new_err(error.to_string()),
    }
}

pub(crate) fn refused(error: &Refused) -> PyErr {
    let message = error.to_string();
    match error {
        Refused::Full { .. } => class::Overloaded::new_err(message),
        Refused::TooLarge { .. } => class::TooLarge::new_err(message),
        Refused::Closed | Refused::Stopped => class::Closed::new_err(message),
        Refused::InCallback => class::InCallback::new_err(message),
        Refused::Forked => class::Forked::new_err(message),
    }
}

pub(crate) fn start(error: &StartError) -> PyErr {
    match error {
        StartError::Refused(error) => refused(error),
        _ => class::StartError::new_err(error.to_string()),
    }
}

pub(crate) fn dispatch(error: &DispatchError) -> PyErr {
    let message = error.to_string();
    match error {
        DispatchError::Closed => class::Closed::new_err(message),
        DispatchError::Threaded | DispatchError::InCallback => class::InCallback::new_err(message),
        DispatchError::Forked => class::Forked::new_err(message),
    }
}

pub(crate) fn close(error: &CloseError) -> PyErr {
    let message = error.to_string();
    match error {
        CloseError::InCallback => class::InCallback::new_err(message),
        CloseError::Forked => class::Forked::new_err(message),
    }
}
