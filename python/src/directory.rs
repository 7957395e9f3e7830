//! Data directories that no server has open.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use raft_engine::server::{GroupReport, RECOVERY_RISK, inspect, recover_quorum};
use raft_engine::types::{GroupId, Position};

use crate::error;

/// What a directory holds, as dicts whose keys are the fields of `raft_engine.recover.Directory`.
#[pyfunction]
pub(crate) fn directory_inspect(py: Python<'_>, directory: std::path::PathBuf) -> PyResult<Bound<'_, PyDict>> {
    let report = py.detach(|| inspect(&directory)).map_err(|failure| error::offline(&failure))?;
    let fields = PyDict::new(py);
    fields.set_item("cluster", report.cluster.as_str())?;
    fields.set_item("server", report.server.0)?;
    fields.set_item("identity", report.identity.to_string())?;
    let groups = report.groups.iter().map(|group| of_group(py, group)).collect::<PyResult<Vec<_>>>()?;
    fields.set_item("groups", groups)?;
    Ok(fields)
}

fn of_group<'py>(py: Python<'py>, group: &GroupReport) -> PyResult<Bound<'py, PyDict>> {
    let mut voters: Vec<u64> = group.configuration.voters().map(|id| id.0).collect();
    voters.extend(group.configuration.outgoing_voters.iter().map(|id| id.0));
    voters.sort_unstable();
    voters.dedup();
    let fields = PyDict::new(py);
    fields.set_item("group", group.group.0)?;
    fields.set_item("last_term", group.last.term)?;
    fields.set_item("last_index", group.last.index)?;
    fields.set_item("commit", group.commit)?;
    fields.set_item("term", group.term)?;
    fields.set_item("snapshot", group.snapshot.index)?;
    fields.set_item("voters", voters)?;
    fields.set_item("lineage", group.lineage.to_string())?;
    fields.set_item("recovered", group.is_recovered)?;
    Ok(fields)
}

/// Recovers a group from the loss of its quorum.
#[pyfunction]
pub(crate) fn directory_recover(
    py: Python<'_>,
    directory: std::path::PathBuf,
    cluster: &str,
    server: u64,
    group: u64,
    last: (u64, u64),
) -> PyResult<()> {
    let last = Position { term: last.0, index: last.1 };
    let done = py.detach(|| recover_quorum(&directory, cluster, server, GroupId(group), last));
    done.map(drop).map_err(|failure| error::offline(&failure))
}

/// What an operator must know before that.
#[pyfunction]
pub(crate) fn recovery_risk() -> &'static str {
    RECOVERY_RISK
}
