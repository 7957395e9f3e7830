//! What commands were answered, for those who ask again: bounded in bytes a session, the oldest going first. Nothing is
//! decided by it but what a retry is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::{MAX_REPLY_BYTES, Reply};
use crate::types::{GroupSettings, Index, Position, SessionId, Term};

/// The replies of one session.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Kept {
    bytes: usize,
    /// By the index of the entry that was applied, with its term.
    pub(super) replies: BTreeMap<Index, (Term, Bytes)>,
}

/// The replies of all sessions of a group.
#[derive(Clone, Debug)]
pub(super) struct Replies {
    /// What one session may keep, in bytes.
    pub(super) bound: u32,
    /// Sessions without replies are not among them. Shared with a snapshot that is being written.
    pub(super) sessions: BTreeMap<SessionId, Arc<Kept>>,
}

impl Default for Replies {
    fn default() -> Self {
        Self { bound: GroupSettings::default().session_reply_bytes, sessions: BTreeMap::new() }
    }
}

impl Replies {
    /// Keeps a copy of the reply of the entry at `position`. One that would not fit alone is not kept, and drives no other
    /// out.
    pub(super) fn keep(&mut self, session: SessionId, position: Position, reply: &[u8]) {
        if reply.len() <= MAX_REPLY_BYTES.min(self.bound as usize) {
            let kept = Arc::make_mut(self.sessions.entry(session).or_default());
            kept.bytes += reply.len();
            kept.replies.insert(position.index, (position.term, Bytes::copy_from_slice(reply)));
            kept.shrink(self.bound as usize);
        }
    }

    /// What the entry at `index` was answered, if that is still kept.
    pub(super) fn get(&self, session: SessionId, index: Index) -> Option<Reply> {
        let (term, bytes) = self.sessions.get(&session)?.replies.get(&index)?;
        Some(Reply { position: Position { term: *term, index }, bytes: bytes.clone() })
    }

    /// Nobody asks for this reply any more.
    pub(super) fn forget(&mut self, session: SessionId, index: Index) {
        let Some(kept) = self.sessions.get_mut(&session) else { return };
        let kept = Arc::make_mut(kept);
        if let Some((_, bytes)) = kept.replies.remove(&index) {
            kept.bytes -= bytes.len();
        }
        if kept.replies.is_empty() {
            self.sessions.remove(&session);
        }
    }

    /// The session is over.
    pub(super) fn end(&mut self, session: SessionId) {
        self.sessions.remove(&session);
    }

    /// From here on a session keeps so many bytes.
    pub(super) fn set_bound(&mut self, bytes: u32) {
        if bytes < self.bound {
            self.sessions.values_mut().for_each(|kept| Arc::make_mut(kept).shrink(bytes as usize));
            self.sessions.retain(|_, kept| !kept.replies.is_empty());
        }
        self.bound = bytes;
    }
}

impl Kept {
    fn shrink(&mut self, bound: usize) {
        while self.bytes > bound
            && let Some((_, (_, bytes))) = self.replies.pop_first()
        {
            self.bytes -= bytes.len();
        }
    }
}
