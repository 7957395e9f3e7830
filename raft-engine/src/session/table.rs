//! Who has a session, and which of its commands were applied. Everything here follows from the entries alone, one after
//! another: never from a reply, a clock, or what a server happens to hold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::types::{GroupSettings, Index, LogTime, SessionId, SessionKey};

/// The sequences of one session that are remembered as applied: with more, the lowest is forgotten, as if its client had
/// said that it will not ask again.
pub(super) const MAX_SEQUENCES: usize = 1024;

/// How long sessions last, and how many there are: the part of the group's settings that decides here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bounds {
    pub(super) expiry: Duration,
    pub(super) sessions: u32,
}

impl From<&GroupSettings> for Bounds {
    fn from(settings: &GroupSettings) -> Self {
        Self { expiry: settings.session_expiry, sessions: settings.max_sessions }
    }
}

/// What becomes of a command by its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It is the first of its sequence.
    New,
    /// It was applied, as the entry at this index.
    Repeats { index: Index },
    /// Its sequence lies below what the session remembers.
    Forgotten,
    /// There is no such session.
    Unknown,
}

/// One session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Session {
    /// The entry that used it last, and its log time.
    pub(super) used: (Index, LogTime),
    /// Sequences below are forgotten: a command with one is never applied, whether or not it was.
    pub(super) lowest: u64,
    /// What was applied, by sequence, with the index of its entry. None lies below `lowest`.
    pub(super) applied: BTreeMap<u64, Index>,
}

/// All sessions of a group.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) bounds: Bounds,
    /// The log time of the last entry.
    pub(super) now: LogTime,
    /// Shared with a snapshot that is being written.
    pub(super) sessions: BTreeMap<SessionId, Arc<Session>>,
    /// The same by the entry that used them last: who is in front expires first, and is evicted first.
    by_use: BTreeMap<Index, SessionId>,
    /// Ended for want of use since this table was made, and to make room.
    pub(super) expired: u64,
    pub(super) evicted: u64,
}

impl Default for Table {
    fn default() -> Self {
        let bounds = Bounds::from(&GroupSettings::default());
        let (sessions, by_use) = (BTreeMap::new(), BTreeMap::new());
        Self { bounds, now: LogTime(0), sessions, by_use, expired: 0, evicted: 0 }
    }
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// The group's time is `log_time`: that of an entry, which is never less than that of the one before it. Who has expired
    /// by it goes when it next matters ([`Table::expire`]); nobody can tell the difference.
    pub(super) fn pass(&mut self, log_time: LogTime) {
        debug_assert!(self.now <= log_time, "log time never goes back along a log");
        self.now = log_time;
    }

    /// Ends the sessions that were not used for longer than they last. To be called before anything else is done with an
    /// entry that concerns sessions, or their bounds.
    pub(super) fn expire(&mut self, ended: &mut impl FnMut(SessionId)) {
        while let Some(first) = self.by_use.first_entry() {
            let id = *first.get();
            let (_, used_at) = self.sessions[&id].used;
            if used_at + self.bounds.expiry >= self.now {
                return;
            }
            first.remove();
            self.sessions.remove(&id);
            self.expired += 1;
            ended(id);
        }
    }

    /// Opens the session that is named by its entry, in place of the ones used least recently where there are too many.
    /// Whether there is room for any.
    pub(super) fn open(&mut self, id: SessionId, ended: &mut impl FnMut(SessionId)) -> bool {
        let most = self.bounds.sessions as usize;
        while self.sessions.len() >= most.max(1)
            && let Some((_, evicted)) = self.by_use.pop_first()
        {
            self.sessions.remove(&evicted);
            self.evicted += 1;
            ended(evicted);
        }
        if most == 0 {
            return false;
        }
        self.insert(id, Session { used: (id.index(), self.now), lowest: 0, applied: BTreeMap::new() });
        true
    }

    /// Whether a session was used last by this entry.
    pub(super) fn is_used_by(&self, index: Index) -> bool {
        self.by_use.contains_key(&index)
    }

    /// Puts a session in.
    pub(super) fn insert(&mut self, id: SessionId, session: Session) {
        self.by_use.insert(session.used.0, id);
        let former = self.sessions.insert(id, Arc::new(session));
        assert!(former.is_none(), "a session is opened once");
        assert_eq!(self.by_use.len(), self.sessions.len(), "an entry uses one session");
    }

    /// The entry at `index` uses a session. Whether there is one.
    pub(super) fn touch(&mut self, id: SessionId, index: Index) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        let session = Arc::make_mut(session);
        self.by_use.remove(&session.used.0);
        session.used = (index, self.now);
        self.by_use.insert(index, id);
        true
    }

    /// Ends a session. Whether there was one.
    pub(super) fn end(&mut self, id: SessionId) -> bool {
        let Some(session) = self.sessions.remove(&id) else { return false };
        self.by_use.remove(&session.used.0);
        true
    }

    /// Decides on the command of the entry at `index`, and remembers it as applied if it is new.
    pub(super) fn decide(&mut self, key: SessionKey, index: Index, forgotten: &mut impl FnMut(Index)) -> Verdict {
        if !self.touch(key.session, index) {
            return Verdict::Unknown;
        }
        let session = self.sessions.get_mut(&key.session).expect("it was used just now");
        let session = Arc::make_mut(session);
        // One that says that it is answered itself asks all the same.
        session.forget_below(key.lowest_outstanding.min(key.sequence), forgotten);
        if key.sequence < session.lowest {
            return Verdict::Forgotten;
        }
        if let Some(&index) = session.applied.get(&key.sequence) {
            return Verdict::Repeats { index };
        }
        session.applied.insert(key.sequence, index);
        if session.applied.len() > MAX_SEQUENCES
            && let Some((&lowest, _)) = session.applied.first_key_value()
        {
            session.forget_below(lowest + 1, forgotten);
        }
        Verdict::New
    }
}

impl Session {
    fn forget_below(&mut self, lowest: u64, forgotten: &mut impl FnMut(Index)) {
        self.lowest = self.lowest.max(lowest);
        while let Some(first) = self.applied.first_entry()
            && *first.key() < self.lowest
        {
            forgotten(first.remove());
        }
    }
}
