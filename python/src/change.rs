//! Changes of members and settings of groups, as plain values of Python.

use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use raft_engine::server::{GroupSettings, MemberChange, MemberRole};
use raft_engine::types::ServerId;

/// The fields of `raft_engine.GroupSettings`: seconds of lease and of session expiry, sessions, bytes of replies.
pub(crate) type SettingsRow = (f64, f64, u32, u32);

/// A member's id, address, context and priority.
pub(crate) type MemberRow = (u64, String, Vec<u8>, u8);

/// A change's kind, id, role, priority, address, context and settings; what its kind does not name is as it comes.
pub(crate) type ChangeRow = (String, u64, String, u8, String, Vec<u8>, Option<SettingsRow>);

pub(crate) fn settings((lease, expiry, max_sessions, session_reply_bytes): SettingsRow) -> PyResult<GroupSettings> {
    Ok(GroupSettings { lease: seconds(lease)?, session_expiry: seconds(expiry)?, max_sessions, session_reply_bytes })
}

/// A time that is given in seconds.
pub(crate) fn seconds(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|error| PyValueError::new_err(format!("{seconds} seconds: {error}")))
}

pub(crate) fn change((kind, id, role, priority, address, context, new): ChangeRow) -> PyResult<MemberChange> {
    let id = ServerId(id);
    let role = if role == "learner" { MemberRole::Learner } else { MemberRole::Voter };
    Ok(match (kind.as_str(), new) {
        ("add", _) => MemberChange::Add { id, role, priority, address, context },
        ("remove", _) => MemberChange::Remove { id },
        ("role", _) => MemberChange::SetRole { id, role },
        ("priority", _) => MemberChange::SetPriority { id, priority },
        ("address", _) => MemberChange::SetAddress { id, address },
        ("context", _) => MemberChange::SetContext { id, context },
        ("settings", Some(new)) => MemberChange::SetSettings(settings(new)?),
        _ => return Err(PyValueError::new_err(format!("{kind} is no change of members"))),
    })
}
