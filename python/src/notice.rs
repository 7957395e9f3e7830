//! Notices as plain values, for `Bridge.notice`.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use raft_engine::server::{Member, MemberRole, Notice, Role};
use raft_engine::types::ServerId;

use crate::digest;

/// The members as rows of id, address, context, role and priority.
pub(crate) fn members<'py>(py: Python<'py>, members: &[Member]) -> PyResult<Bound<'py, PyList>> {
    let row = |member: &Member| {
        let role = match member.role {
            MemberRole::Voter => "voter",
            MemberRole::Learner => "learner",
        };
        (member.id.0, member.address.clone(), PyBytes::new(py, &member.context), role, member.priority)
    };
    PyList::new(py, members.iter().map(row))
}

/// The name of a role in `raft_engine.Role`.
pub(crate) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Forming => "forming",
        Role::Follower => "follower",
        Role::PreCandidate => "pre-candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
    }
}

/// Calls the bridge.
pub(crate) fn tell(bridge: &Bound<'_, PyAny>, notice: &Notice) -> PyResult<()> {
    let py = bridge.py();
    let (mut role, mut term, mut leader, mut peer, mut configuration) = (None, 0, None, None, None);
    let mut check = None;
    let (kind, message) = match notice {
        Notice::Formed { group } => ("formed", format!("group {group} is formed")),
        Notice::Role { group, role: new_role, term: new_term, leader: new_leader } => {
            (role, term, leader) = (Some(role_name(*new_role)), *new_term, *new_leader);
            ("role", format!("{} in group {group} and term {new_term}", role_name(*new_role)))
        }
        Notice::Configuration { group, configuration: members } => {
            configuration = Some(&**members);
            ("members", format!("group {group} has {} members", members.members.len()))
        }
        Notice::Removed { group, index } => {
            ("removed", format!("entry {index} of group {group} removed this server from it"))
        }
        Notice::Diverged { group, check: found } => {
            check = Some(digest::row(py, found)?);
            ("diverged", format!("the replicas of group {group} differ: {found}"))
        }
        Notice::GroupStopped { reason, .. } => ("group-stopped", reason.clone()),
        Notice::ServerStopped { reason } => ("server-stopped", reason.clone()),
        Notice::Refused { peer: refused, reason, .. } => {
            peer = *refused;
            ("refused", reason.clone())
        }
        Notice::Warning { message } => ("warning", message.clone()),
    };
    let id = |server: Option<ServerId>| server.map(|server| server.0);
    let named = configuration.map_or(&[][..], |configuration| &configuration.members);
    let arguments = (kind, message, role, term, id(leader), id(peer), members(py, named)?, check);
    bridge.call_method1(pyo3::intern!(py, "notice"), arguments)?;
    Ok(())
}
