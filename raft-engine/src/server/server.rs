//! A host's handle of one server: open, groups, dispatch, status, close. Any thread may use any clone of it.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::{CloseError, Config, DispatchError, Group, OpenError, Refused, StartError, StartHow, StateMachine};
use crate::driver;
use crate::types::GroupId;

/// What a host may ask of a server at any time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerStatus {
    /// What the driver says.
    pub engine: driver::ServerStatus,
    /// Where it listens: the address with its port, also where port 0 was asked for.
    pub listen: SocketAddr,
    /// `aio`, `thread-direct` (direct and synchronous writes on a thread) or `thread-buffered` (write and fdatasync).
    pub disk_backend: &'static str,
    /// Whether it is closed.
    pub is_closed: bool,
    /// Bytes in the submission queue.
    pub queued_bytes: usize,
}

/// An open server. Cheap to clone; dropping the last clone closes it.
#[derive(Clone)]
pub struct Server {}

impl Server {
    /// Opens the data directory, recovers its log, listens, and starts the threads. Blocks while it reads the log.
    ///
    /// # Errors
    /// Why it cannot be; nothing runs then, and nothing in the directory was changed.
    pub fn open(config: Config) -> Result<Self, OpenError> {
        config.check()?;
        Err(OpenError::System { action: "open", message: "not built yet".into() })
    }

    /// Starts a group: forms it, or continues it. Blocks until the loop has taken it (not until it is formed), so it is
    /// refused from a callback.
    ///
    /// # Errors
    /// The state machine is dropped, and nothing was started.
    pub fn start_group(
        &self,
        group: GroupId,
        machine: Box<dyn StateMachine>,
        how: StartHow,
    ) -> Result<Group, StartError> {
        let _ = (group, machine, how);
        Err(Refused::Closed.into())
    }

    /// Host mode: calls state machines with up to `max` pieces of work (a batch, a query, a step of a snapshot),
    /// waiting up to `timeout` for the first. Returns how many. One thread at a time does it; others wait.
    ///
    /// # Errors
    /// Closed, called from a callback, or in threaded mode.
    pub fn dispatch(&self, max: usize, timeout: Duration) -> Result<usize, DispatchError> {
        let _ = (max, timeout);
        Err(DispatchError::Closed)
    }

    /// A descriptor that polls readable while there is something to dispatch (host mode) or to poll
    /// ([`super::CompletionDelivery::Poll`]), and after close. Never read it or write to it.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        unreachable!("a server was never opened")
    }

    /// The server as it was at the end of the loop's last turn. Never blocks.
    pub fn status(&self) -> ServerStatus {
        unreachable!("a server was never opened")
    }

    /// Closes: takes nothing more, makes dispatch return, waits for the callback in progress, ends the threads, and
    /// completes everything still open, on the calling thread or into the poll queues. Everything acknowledged is
    /// durable anyway. Closing again waits for the first close.
    ///
    /// # Errors
    /// Called from a callback, or in a forked child: nothing was done.
    pub fn close(&self) -> Result<(), CloseError> {
        Ok(())
    }
}
