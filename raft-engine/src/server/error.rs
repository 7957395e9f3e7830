//! Everything that a call of the server can refuse, with what happened, to what, and what to do.

use std::path::PathBuf;

use super::{NotApplied, Unknown};
use crate::types::{GroupId, ServerId};

/// Why a setting was not taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// No setting has this name.
    #[error("no setting is named `{key}`: there are {names}, and peer.ID", names = super::config::NAMES.join(", "))]
    UnknownKey {
        /// The name as given.
        key: String,
    },
    /// The value is none for this setting.
    #[error("`{value}` is no value for `{key}`: expected {expected}")]
    BadValue {
        /// The setting.
        key: String,
        /// The value as given.
        value: String,
        /// What would be one.
        expected: &'static str,
    },
    /// The settings do not fit each other.
    #[error("{message}")]
    Conflict {
        /// Which, and what to do.
        message: String,
    },
}

/// Why a server was not opened. Nothing runs, and nothing was changed but for an empty data directory and its lock file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// The configuration cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory cannot be used.
    #[error("{action} {path}: {message}", path = path.display())]
    Directory {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        message: String,
    },
    /// Another process (or another server of this one) has the data directory open.
    #[error("{path} is in use by {holder}: one process per data directory", path = path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// `process N`, or `another process` where it left no name.
        holder: String,
    },
    /// The listen address cannot be used.
    #[error("listening on {address}: {message}")]
    Listen {
        /// The address as given.
        address: String,
        /// What the system said.
        message: String,
    },
    /// The log or its directory was refused: corrupt, foreign, of another version. Says which file and what to do.
    #[error("{message}")]
    Refused {
        /// The reason and the remedy.
        message: String,
    },
    /// The system lacks something: descriptors, memory, threads, a kernel interface that was forced.
    #[error("{action}: {message}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        message: String,
    },
}

/// Why a submission was not taken: nothing of it was, and it is certainly not applied.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// The queue's byte budget (`queue_bytes`) is full, or completions are not fetched. Try again when some came.
    #[error("the submission queue is full ({limit_bytes} bytes): wait for completions and try again")]
    Full {
        /// The budget.
        limit_bytes: usize,
    },
    /// One item is longer than an entry may be (`max_entry_bytes`), or the whole batch than the queue.
    #[error("item {position} has {bytes} bytes, more than the limit of {limit_bytes}")]
    TooLarge {
        /// Which of the items.
        position: usize,
        /// Its length; at the last position, that of the batch where only the batch is too long.
        bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// The server is closed or closing.
    #[error("the server is closed")]
    Closed,
    /// The server stopped by itself; its status says why.
    #[error("the server stopped: its status says why")]
    Stopped,
    /// The call would wait for itself: it was made from a callback.
    #[error("a call that waits was made from a callback")]
    InCallback,
    /// The process was forked after the server was opened: its threads are in the parent.
    #[error("the server was opened before a fork: it lives in the parent process only")]
    Forked,
}

/// Why a group was not started.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StartError {
    /// The server took nothing.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The group runs already.
    #[error("group {0} is started already")]
    AlreadyStarted(GroupId),
    /// The group stopped at once: wrong arguments, a directory without it, a state machine ahead of the log.
    #[error("group {group}: {reason}")]
    Stopped {
        /// The group.
        group: GroupId,
        /// Why, and what to do.
        reason: String,
    },
}

/// How a blocking call failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CallError {
    /// Not taken, hence certainly not applied.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Certainly not applied.
    #[error("not applied: {}", describe(.0))]
    NotApplied(NotApplied),
    /// May or may not be applied.
    #[error("unknown: {}", match .0 {
        Unknown::LeadershipLost => "leadership, or contact with the leader, was lost before the entry was applied",
        Unknown::Closed => "the server was closed",
        Unknown::Stopped => "the group stopped",
        Unknown::TimedOut => "the wait timed out",
        Unknown::SessionExpired => "the session expired, or never was: the command was not applied now, but may have been before",
        Unknown::ReplyForgotten => "the command was done before, or given up by its client, and its reply is not kept any more",
    })]
    Unknown(Unknown),
}

impl CallError {
    /// Whether the same request may be made again: nothing can come of this one any more, and the next may succeed
    /// without anyone repairing something, here after a while or at the leader. Never true of an unknown outcome.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Refused(refused) => matches!(refused, Refused::Full { .. }),
            Self::NotApplied(reason) => match reason {
                NotApplied::NotLeader { .. }
                | NotApplied::Overloaded
                | NotApplied::DiskFull
                | NotApplied::Busy
                | NotApplied::Transferring
                | NotApplied::GivenUp(_)
                | NotApplied::Forming => true,
                NotApplied::TooLarge
                | NotApplied::Closed
                | NotApplied::Invalid(_)
                | NotApplied::Cancelled
                | NotApplied::Failed(_) => false,
            },
            Self::Unknown(_) => false,
        }
    }

    /// The server that leads, as far as the one that refused knows.
    pub fn leader(&self) -> Option<ServerId> {
        match self {
            Self::NotApplied(NotApplied::NotLeader { leader }) => *leader,
            _ => None,
        }
    }
}

fn describe(reason: &NotApplied) -> String {
    match reason {
        NotApplied::NotLeader { leader: Some(leader) } => format!("server {leader} leads, not this one"),
        NotApplied::NotLeader { leader: None } => "this server does not lead, and knows of no leader".into(),
        NotApplied::Overloaded => "too much is uncommitted already".into(),
        NotApplied::TooLarge => "longer than an entry may be".into(),
        NotApplied::DiskFull => "the disk is full".into(),
        NotApplied::Closed => "the server or group is closed or stopped".into(),
        NotApplied::Busy => "another such request is in progress".into(),
        NotApplied::Forming => "the group is not formed yet".into(),
        NotApplied::Transferring => "leadership is being handed over".into(),
        NotApplied::Cancelled => "it was cancelled".into(),
        NotApplied::Failed(message) | NotApplied::Invalid(message) | NotApplied::GivenUp(message) => message.clone(),
    }
}

/// Why a dispatch did nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DispatchError {
    /// The server is closed or closing.
    #[error("the server is closed")]
    Closed,
    /// The library dispatches by itself ([`super::Dispatch::Threaded`]).
    #[error("the server was opened in threaded mode: it dispatches by itself")]
    Threaded,
    /// It was called from a callback.
    #[error("dispatch was called from a callback")]
    InCallback,
    /// The process was forked after the server was opened.
    #[error("the server was opened before a fork: it lives in the parent process only")]
    Forked,
}

/// Why a server was not closed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CloseError {
    /// It was called from a callback, for which it would have to wait.
    #[error("close was called from a callback: call it from outside")]
    InCallback,
    /// The process was forked after the server was opened.
    #[error("the server was opened before a fork: it lives in the parent process only")]
    Forked,
}
