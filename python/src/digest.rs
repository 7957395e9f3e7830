//! What came of comparing replicas, as plain values, for `raft_engine._bridge.check_of`.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use raft_engine::server::{DigestAnswer, DigestCheck, DigestVerdict};

/// Index, verdict, and a row a replica: id, answer, digest, sessions, whether it is odd.
pub(crate) fn row<'py>(py: Python<'py>, check: &DigestCheck) -> PyResult<Bound<'py, PyTuple>> {
    let verdict = match check.verdict() {
        DigestVerdict::Agreed => "agreed",
        DigestVerdict::Diverged => "diverged",
        DigestVerdict::Split => "split",
        DigestVerdict::Undecided => "undecided",
    };
    let replicas = check.replicas.iter().map(|(id, answer)| {
        let name = match answer {
            DigestAnswer::Given(_) => "given",
            DigestAnswer::Unable => "unable",
            DigestAnswer::Missing => "missing",
        };
        let given = answer.given();
        let digest = given.map(|digest| PyBytes::new(py, &digest.host.0));
        (id.0, name, digest, given.map_or(0, |digest| digest.sessions), check.is_odd(*id))
    });
    (check.index, verdict, PyList::new(py, replicas)?).into_pyobject(py)
}
