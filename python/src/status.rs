//! Statuses as dicts, whose keys are the fields of `raft_engine.GroupStatus` and `raft_engine.ServerStatus`.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use raft_engine::server::{Change, Configuration, GroupStatus, ServerStatus};

use crate::{digest, notice};

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
    let configuration = status.configuration.as_deref();
    let members = configuration.map_or(&[][..], |configuration| &configuration.members);
    fields.set_item("members", notice::members(py, members)?)?;
    let voters = configuration.map_or(&[][..], |configuration| &configuration.outgoing_voters);
    fields.set_item("outgoing_voters", voters.iter().map(|id| id.0).collect::<Vec<_>>())?;
    fields.set_item("highest_id", configuration.map_or(0, |configuration| configuration.highest_id.0))?;
    fields.set_item("settings", configuration.map(settings))?;
    let change = configuration.and_then(|configuration| configuration.change.as_ref());
    fields.set_item("change", change.map(|change| of_change(py, change)).transpose()?)?;
    let learners = PyDict::new(py);
    for (id, index) in &status.learners {
        learners.set_item(id.0, index)?;
    }
    fields.set_item("learners", learners)?;
    fields.set_item("transferring_to", status.transferring_to.map(|to| to.0))?;
    fields.set_item("removed", status.removed)?;
    let check = status.digest_check.as_deref().map(|check| digest::row(py, check)).transpose()?;
    fields.set_item("digest_check", check)?;
    fields.set_item("diverged", status.divergence.as_ref().map(|divergence| divergence.check.index))?;
    Ok(fields)
}

/// The arguments of `raft_engine.GroupSettings`.
fn settings(configuration: &Configuration) -> (f64, f64, u32, u32) {
    let settings = &configuration.settings;
    let (lease, expiry) = (settings.lease.as_secs_f64(), settings.session_expiry.as_secs_f64());
    (lease, expiry, settings.max_sessions, settings.session_reply_bytes)
}

/// The members that a change leads to, and its deadline.
fn of_change<'py>(py: Python<'py>, change: &Change) -> PyResult<(Bound<'py, PyList>, u64)> {
    Ok((notice::members(py, &change.target)?, change.deadline.0))
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
