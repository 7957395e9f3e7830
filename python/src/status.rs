//! Statuses as dicts, whose keys are the fields of `raft_engine.GroupStatus` and `raft_engine.ServerStatus`.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use raft_engine::server::{GroupStatus, ServerStatus};

use crate::notice;

pub(crate) fn of_group<'py>(py: Python<'py>, status: &GroupStatus) -> PyResult<Bound<'py, PyDict>> {
    let fields = PyDict::new(py);
    fields.set_item("role", notice::role_name(status.role))?;
    fields.set_item("term", status.term)?;
    fields.set_item("leader", status.leader.map(|leader| leader.0))?;
    fields.set_item("last", status.last)?;
    fields.set_item("durable", status.durable)?;
    fields.set_item("commit", status.commit)?;
    fields.set_item("applied", status.applied)?;
    fields.set_item("snapshot", status.snapshot)?;
    fields.set_item("stopped", &status.stopped)?;
    fields.set_item("members", notice::members(py, status.configuration.as_deref())?)?;
    Ok(fields)
}

pub(crate) fn of_server<'py>(py: Python<'py>, status: &ServerStatus) -> PyResult<Bound<'py, PyDict>> {
    let engine = &status.engine;
    let connected_peers: Vec<u64> = engine.connected_peers.iter().map(|peer| peer.0).collect();
    let fields = PyDict::new(py);
    fields.set_item("id", engine.id.0)?;
    fields.set_item("listen", status.listen.to_string())?;
    fields.set_item("identity", engine.identity.to_string())?;
    fields.set_item("incarnation", engine.incarnation.number)?;
    fields.set_item("ready", engine.ready)?;
    fields.set_item("closed", status.is_closed)?;
    fields.set_item("stopped", &engine.stopped)?;
    fields.set_item("disk_backend", status.disk_backend)?;
    fields.set_item("accept_error", &status.accept_error)?;
    fields.set_item("queued_bytes", status.queued_bytes)?;
    fields.set_item("log_writes", engine.log_writes)?;
    fields.set_item("log_bytes", engine.log_bytes)?;
    fields.set_item("connected_peers", connected_peers)?;
    Ok(fields)
}
