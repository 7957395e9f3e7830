//! An open server in host mode: a thread of Python dispatches.

use std::mem::ManuallyDrop;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use raft_engine::server::{self, Config, Dispatch, DispatchError, MemberArgument, Refused, StartHow};
use raft_engine::types::{GroupId, ServerId};

use crate::change::{MemberRow, SettingsRow, settings};
use crate::group::Group;
use crate::machine::PythonMachine;
use crate::{error, status};

/// The process that opened the server: in a child of it, locks of the engine may be held for ever.
#[derive(Clone, Copy)]
pub(crate) struct Process(u32);

impl Process {
    fn is_forked(self) -> bool {
        self.0 != std::process::id()
    }

    pub(crate) fn check(self) -> PyResult<()> {
        if self.is_forked() { Err(error::refused(&Refused::Forked)) } else { Ok(()) }
    }
}

/// The engine's server. Let go of without a close, it is closed.
#[pyclass(frozen, module = "raft_engine._native")]
pub(crate) struct Server {
    server: ManuallyDrop<server::Server>,
    process: Process,
}

#[pymethods]
impl Server {
    #[staticmethod]
    fn open(
        py: Python<'_>,
        cluster: String,
        id: u64,
        data_dir: String,
        listen: String,
        settings: Vec<(String, String)>,
    ) -> PyResult<Self> {
        let mut config = Config::new(cluster, id, data_dir, listen);
        config.dispatch = Dispatch::Host;
        for (key, value) in &settings {
            config.set(key, value).map_err(|refusal| error::config(&refusal))?;
        }
        let process = Process(std::process::id());
        let server = py.detach(|| server::Server::open(config)).map_err(|failure| error::open(&failure))?;
        Ok(Self { server: ManuallyDrop::new(server), process })
    }

    #[allow(clippy::too_many_arguments, reason = "one call from Python, by name there")]
    fn start_group(
        &self,
        py: Python<'_>,
        group: u64,
        bridge: Py<PyAny>,
        applied_index: u64,
        members: Option<Vec<MemberRow>>,
        group_settings: SettingsRow,
        contacts: Option<Vec<String>>,
    ) -> PyResult<Group> {
        self.process.check()?;
        let how = match (members, contacts) {
            (_, Some(contacts)) => StartHow::Join { contacts },
            (None, None) => StartHow::Restart,
            (Some(members), None) => {
                let members = members.into_iter().map(|(id, address, context, priority)| MemberArgument {
                    id: ServerId(id),
                    priority,
                    address,
                    context,
                });
                StartHow::Bootstrap { members: members.collect(), settings: settings(group_settings)? }
            }
        };
        let machine = Box::new(PythonMachine::new(bridge, applied_index));
        let started = py.detach(|| self.server.start_group(GroupId(group), machine, how));
        Ok(Group::new(started.map_err(|failure| error::start(&failure))?, self.process))
    }

    /// Does up to `max` pieces of work. False: the server is closed, nothing will come any more.
    fn dispatch(&self, py: Python<'_>, max: usize, timeout_seconds: f64) -> PyResult<bool> {
        let timeout = Duration::try_from_secs_f64(timeout_seconds).unwrap_or(Duration::ZERO);
        match py.detach(|| self.server.dispatch(max, timeout)) {
            Ok(_) => Ok(true),
            Err(DispatchError::Closed) => Ok(false),
            Err(failure) => Err(error::dispatch(&failure)),
        }
    }

    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.process.check()?;
        status::of_server(py, &self.server.status())
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.server.close()).map_err(|failure| error::close(&failure))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.process.is_forked() {
            return;
        }
        // SAFETY: this is the drop, and nothing uses it afterwards.
        let server = unsafe { ManuallyDrop::take(&mut self.server) };
        // It waits for callbacks, which wait for the interpreter.
        Python::attach(|py| py.detach(|| drop(server)));
    }
}
