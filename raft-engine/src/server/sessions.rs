//! A host's side of sessions: opening, using, renewing and closing them. A session is a plain value; any server of the
//! group will do for the next command.

use std::time::Duration;

use bytes::Bytes;

use super::{Applied, CallError, Group, Refused};
use crate::types::{EntryKind, Proposed, Session, SessionId, SessionKey};

impl Group {
    /// Opens a session, and waits until it is open. It lasts until it is closed, is not used for as long as the group's
    /// settings say, or is the one used least recently where another is opened and there are too many. Blocks up to
    /// `timeout`; in host mode another thread must dispatch meanwhile.
    ///
    /// # Errors
    /// Certainly not opened, or *unknown*: then open another; one that nobody uses expires.
    pub fn open_session(&self, timeout: Duration) -> Result<Session, CallError> {
        let opened = self.propose_one(open(), timeout)?;
        Ok(Session::new(SessionId(opened.index)))
    }

    /// As [`Group::open_session`]; the end comes as a completion with this tag, whose index is the session's id. Never blocks.
    ///
    /// # Errors
    /// Not taken; no completion comes.
    pub fn open_session_submit(&self, tag: u64) -> Result<(), Refused> {
        self.propose_one_submit(tag, open())
    }

    /// Proposes one command of a session ([`Session::next_key`]) and waits until it is applied here, or has been before: a
    /// command that is proposed again with its key, here or at another server, is applied once, and answered with the
    /// first result. Blocks up to `timeout`; in host mode another thread must dispatch meanwhile.
    ///
    /// # Errors
    /// As [`Group::propose_wait`]; and what was *unknown* may be proposed again with its key. But for two: with
    /// [`super::Unknown::SessionExpired`] nothing can be asked in that session any more, and with
    /// [`super::Unknown::ReplyForgotten`] it was done, and the result is lost.
    pub fn propose_in_session(&self, key: SessionKey, data: Bytes, timeout: Duration) -> Result<Applied, CallError> {
        self.propose_one(Proposed::in_session(&key, &data), timeout)
    }

    /// Uses a session without a command, so that it does not expire, and waits until that is done. Blocks up to `timeout`; in
    /// host mode another thread must dispatch meanwhile.
    ///
    /// # Errors
    /// [`super::Unknown::SessionExpired`] where it is over already.
    pub fn renew_session(&self, session: SessionId, timeout: Duration) -> Result<(), CallError> {
        self.propose_one(about(EntryKind::SessionRenewal, session), timeout).map(drop)
    }

    /// As [`Group::renew_session`]; the end comes as a completion with this tag. Never blocks.
    ///
    /// # Errors
    /// Not taken; no completion comes.
    pub fn renew_session_submit(&self, tag: u64, session: SessionId) -> Result<(), Refused> {
        self.propose_one_submit(tag, about(EntryKind::SessionRenewal, session))
    }

    /// Ends a session, if it is not over, and waits until that is done. Blocks up to `timeout`; in host mode another thread
    /// must dispatch meanwhile.
    ///
    /// # Errors
    /// As [`Group::propose_wait`]; it may be closed again.
    pub fn close_session(&self, session: SessionId, timeout: Duration) -> Result<(), CallError> {
        self.propose_one(about(EntryKind::SessionClose, session), timeout).map(drop)
    }

    /// As [`Group::close_session`]; the end comes as a completion with this tag. Never blocks.
    ///
    /// # Errors
    /// Not taken; no completion comes.
    pub fn close_session_submit(&self, tag: u64, session: SessionId) -> Result<(), Refused> {
        self.propose_one_submit(tag, about(EntryKind::SessionClose, session))
    }
}

fn open() -> Proposed {
    Proposed { kind: EntryKind::SessionOpen, payload: Bytes::new() }
}

fn about(kind: EntryKind, session: SessionId) -> Proposed {
    Proposed { kind, payload: session.payload() }
}
