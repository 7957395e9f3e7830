//! The native part of the Python package `raft_engine`: the engine's server behind a few classes, and the state machines
//! of Python behind the engine's trait.
//!
//! What lives here translates and decides nothing: the rest of the package, which is Python, gives it its shape. Every
//! wait is detached from the interpreter; every callback attaches once for a whole batch. Locks of the engine are never
//! held by a thread that waits for the interpreter, but for the dispatcher itself, for which nobody waits attached.

mod change;
mod digest;
mod directory;
mod entry;
mod error;
mod group;
mod machine;
mod notice;
mod outcome;
mod reader;
mod server;
mod status;

/// The module `raft_engine._native`.
#[pyo3::pymodule]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::directory::{directory_inspect, directory_recover, recovery_risk};
    #[pymodule_export]
    use crate::entry::Entry;
    #[pymodule_export]
    use crate::group::Group;
    #[pymodule_export]
    use crate::reader::SnapshotReader;
    #[pymodule_export]
    use crate::server::Server;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
