//! A server for real: sockets, disk, clock and threads around the [`crate::driver`].
//!
//! What lives here moves bytes and takes no decisions. Host threads put requests into a bounded queue;
//! a turn drains it together with sockets and disk completions, feeds the driver and carries out its effects; the
//! state machines are called by the dispatch, on the host's threads or on one of ours; completions find their way back
//! through the completions. This folder may touch files, sockets, threads and clocks, and reaches core, storage and
//! transport only through what the driver re-exports. It must never know what a term, a vote or a quorum is for.

mod callback;
mod completion;
mod config;
mod disk;
mod dispatch;
mod error;
mod group;
mod lock;
#[cfg(test)]
mod model;
mod offline;
mod requests;
mod resolve;
#[expect(clippy::module_inception, reason = "the folder and its main handle have one name: server")]
mod server;
mod sessions;
mod shared;
mod signal;
mod snapshots;
mod sockets;
mod state_machine;
mod submission;
mod sync;
mod sys;
mod turn;
mod work_queue;

pub use completion::{Completion, Outcome, Polled, Unknown};
pub use config::{CompletionDelivery, Config, DiskBackend, Dispatch, Plaintext};
pub use error::{CallError, CloseError, ConfigError, DispatchError, OpenError, Refused, StartError};
pub use group::{Applied, Group, Item};
pub use offline::{OfflineError, RECOVERY_RISK, inspect, recover_quorum};
pub use server::{Server, ServerStatus};
pub use state_machine::{
    ApplyBatch, ApplyEntry, ApplyFailure, SnapshotReader, SnapshotSource, SnapshotStep, StateMachine,
};

pub use crate::driver::{
    Consistency, DirectoryReport, GroupReport, GroupStatus, MemberArgument, NotApplied, Notice, Recovered,
    RecoveryRefusal, Role, Settings, StartHow,
};
pub use crate::types::{Change, Configuration, GroupSettings, Member, MemberChange, MemberRole};
pub use crate::types::{DigestAnswer, DigestCheck, DigestVerdict, Divergence, HostDigest, StateDigest};
pub use crate::types::{Session, SessionId, SessionKey};
