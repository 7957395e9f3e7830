//! Host names into addresses, off the loop: the system's resolver blocks for as long as it likes. Started with the first
//! name; numeric addresses never come here.

use std::collections::VecDeque;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use super::sync::{Condvar, Mutex, lock, wait};
use super::sys;
use crate::driver::ConnectionId;

/// What a name stands for, in the order to be tried; or why it is not known.
pub(super) type Resolved = (ConnectionId, Result<Vec<SocketAddr>, String>);

/// Takes answers, from the resolver's thread.
pub(super) type ReportResolved = Arc<dyn Fn(Resolved) + Send + Sync>;

/// The resolver.
pub(super) struct Resolver {
    report: ReportResolved,
    shared: Arc<Shared>,
    is_started: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    names: VecDeque<(ConnectionId, String)>,
    is_closing: bool,
}

impl Resolver {
    pub(super) fn new(report: ReportResolved) -> Self {
        Self { report, shared: Arc::default(), is_started: false }
    }

    /// Asks what `host:port` stands for. The answer is reported.
    pub(super) fn resolve(&mut self, connection: ConnectionId, address: String) {
        if !self.is_started {
            let (shared, report) = (self.shared.clone(), self.report.clone());
            // Not joined at close: a lookup under way may take minutes, and touches nothing of the server.
            match sys::spawn("raft-resolve", move || shared.run(&*report)) {
                Ok(_) => self.is_started = true,
                Err(error) => return (self.report)((connection, Err(format!("starting raft-resolve: {error}")))),
            }
        }
        lock(&self.shared.state).names.push_back((connection, address));
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn run(&self, report: &dyn Fn(Resolved)) {
        loop {
            let (connection, address) = {
                let mut state = lock(&self.state);
                loop {
                    if state.is_closing {
                        return;
                    }
                    if let Some(next) = state.names.pop_front() {
                        break next;
                    }
                    state = wait(&self.changed, state, None);
                }
            };
            let result = match address.to_socket_addrs() {
                Ok(addresses) => Ok(addresses.collect()),
                Err(error) => Err(format!("{address}: {error}")),
            };
            report((connection, result));
        }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        lock(&self.shared.state).is_closing = true;
        self.shared.changed.notify_one();
    }
}
