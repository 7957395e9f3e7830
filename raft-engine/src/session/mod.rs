//! Exactly-once sessions (dissertation §6.3): which commands of which clients were applied, and what they were answered;
//! and, since it is kept in the same place, what the state came down to when it was asked.
//!
//! A client opens a session and numbers its commands; a command that comes twice, because its client could not tell what
//! became of it, is applied once, and answered twice with the same reply. The table that remembers this is replicated: it
//! follows from the log alone, and is the same on every server. What lives here is that table, as a data structure: it
//! takes committed entries, and says which of them the host is to apply. Time is the log time of the entry at hand. It
//! must never know a clock, a file, a thread, or what a command means.
//!
//! | what | file |
//! |---|---|
//! | who has a session, which of its commands were applied, expiry and eviction: decided by the entries alone | `table.rs` |
//! | what they were answered: known once the host has applied them | `replies.rs` |
//! | what the state came down to at digest requests, and the judgement of it | `digests.rs` |
//! | all of it as bytes, for a snapshot | `stored.rs` |
//!
//! The table is in two halves because the host is handed a batch as a whole: whether a command is applied is decided for
//! all of a batch before the host sees any of it, and what it answered is remembered after. Each half goes through the
//! log one entry after another, so that nothing depends on where a batch begins and ends; and the first half never looks
//! at the second, so that a server that lacks some replies (its host holds them applied, and cannot tell them again) decides
//! as all others do.

mod digests;
mod replies;
mod stored;
mod table;
#[cfg(test)]
mod tests;

pub use digests::digest_check;
pub use stored::{FrozenSessions, SessionsReader, StoredError};

use self::digests::Digests;
use self::replies::Replies;
use self::table::{Bounds, Table, Verdict};
use crate::codec;
use crate::types::{
    ClusterId, Configuration, Entry, EntryKind, GroupId, GroupSettings, Index, Position, SessionId, SessionKey,
};
use bytes::Bytes;

/// The longest reply that is kept for retries, in bytes.
pub const MAX_REPLY_BYTES: usize = 1 << 20;

/// What a command was answered when it was applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The entry that was applied.
    pub position: Position,
    /// What the host answered.
    pub bytes: Bytes,
}

/// What becomes of a committed entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// The host applies it: the command at this place of [`Admitted::commands`].
    Applied(usize),
    /// Nothing is left to do: the engine's own, done by now; or the host's state holds it already. Of a session that was
    /// opened, the index is the id.
    Done(Position),
    /// It was applied before, and is not applied again: this was the answer.
    Repeated(Reply),
    /// It was applied before, or its client said that it would not ask again; what the answer was is not known any more.
    Forgotten,
    /// Its session is over, or never was.
    Expired,
    /// It repeats a command that was applied no earlier than in this batch: [`Sessions::settle`] knows more.
    Unsettled,
}

/// Committed entries, and what becomes of them.
#[derive(Debug)]
pub struct Admitted {
    /// What the host is to apply, in log order. Their payloads are the host's bytes and nothing else.
    pub commands: Vec<Entry>,
    /// By position among all entries; empty where each is a command for the host.
    fates: Vec<Fate>,
}

impl Admitted {
    /// What becomes of the entry at this position among those that were admitted.
    pub fn fate(&self, position: usize) -> Fate {
        self.fates.get(position).cloned().unwrap_or(Fate::Applied(position))
    }
}

/// What is to be done to the replies, in log order.
#[derive(Debug)]
enum Step {
    /// Keep what the host answers to this command.
    Keep { command: usize, session: SessionId, position: Position },
    /// The reply of this entry is asked for by nobody any more.
    Forget { session: SessionId, index: Index },
    /// The session is over.
    End { session: SessionId },
    /// So many bytes of replies may be kept in a session.
    Bound { bytes: u32 },
    /// The entry at this position repeats the one at that index.
    Repeat { position: usize, session: SessionId, index: Index },
}

/// The sessions of one group at one server.
#[derive(Clone, Debug, Default)]
pub struct Sessions {
    table: Table,
    replies: Replies,
    digests: Digests,
}

/// What [`Sessions::admit`] found and [`Sessions::settle`] goes through.
#[derive(Debug, Default)]
pub struct Steps(Vec<Step>);

impl Sessions {
    /// Takes committed entries, contiguous from the last ones, and decides what becomes of each. Of what the host's own
    /// state holds already (through `held`) nothing is applied again, but all of it counts. [`Sessions::settle`] must follow.
    pub fn admit(&mut self, entries: Vec<Entry>, held: Index) -> (Admitted, Steps) {
        let Some(log_time) = entries.last().map(|entry| entry.log_time) else {
            return (Admitted { commands: entries, fates: Vec::new() }, Steps::default());
        };
        if entries[0].index > held && entries.iter().all(|entry| entry.kind == EntryKind::Command) {
            self.table.pass(log_time);
            return (Admitted { commands: entries, fates: Vec::new() }, Steps::default());
        }
        let mut admitted = Admitted { commands: Vec::new(), fates: Vec::with_capacity(entries.len()) };
        let mut steps = Steps::default();
        for entry in entries {
            let fate = self.admit_one(entry, held, &mut admitted, &mut steps);
            admitted.fates.push(fate);
        }
        (admitted, steps)
    }

    fn admit_one(&mut self, mut entry: Entry, held: Index, admitted: &mut Admitted, steps: &mut Steps) -> Fate {
        let position = entry.position();
        let ended = &mut |session| steps.0.push(Step::End { session });
        self.table.pass(entry.log_time);
        match entry.kind {
            EntryKind::Command => {}
            // A recovery keeps the settings.
            EntryKind::NoOp | EntryKind::Recovery | EntryKind::DigestRequest | EntryKind::DigestVerdict => {
                return Fate::Done(position);
            }
            EntryKind::Formation | EntryKind::Configuration => {
                self.table.expire(ended);
                if let Some(settings) = settings_of(&entry) {
                    steps.0.push(Step::Bound { bytes: settings.session_reply_bytes });
                    self.table.bounds = Bounds::from(&settings);
                }
                return Fate::Done(position);
            }
            EntryKind::SessionOpen => {
                self.table.expire(ended);
                let id = SessionId::opened_by(position);
                let is_open = self.table.open(id, ended);
                // Whoever asked is told the id in place of the index.
                return if is_open { Fate::Done(Position { index: id.0, ..position }) } else { Fate::Expired };
            }
            EntryKind::SessionRenewal => {
                self.table.expire(ended);
                let is_used = SessionId::read(&entry.payload).is_some_and(|id| self.table.touch(id, entry.index));
                return if is_used { Fate::Done(position) } else { Fate::Expired };
            }
            EntryKind::SessionClose => {
                self.table.expire(ended);
                if let Some(session) = SessionId::read(&entry.payload).filter(|&id| self.table.end(id)) {
                    ended(session);
                }
                return Fate::Done(position);
            }
            EntryKind::SessionCommand => {
                self.table.expire(ended);
                let Some(key) = SessionKey::read(&entry.payload) else { return Fate::Expired };
                let session = key.session;
                let forgotten = &mut |index| steps.0.push(Step::Forget { session, index });
                match self.table.decide(key, entry.index, forgotten) {
                    Verdict::Unknown => return Fate::Expired,
                    Verdict::Forgotten => return Fate::Forgotten,
                    Verdict::Repeats { index } => {
                        steps.0.push(Step::Repeat { position: admitted.fates.len(), session, index });
                        return Fate::Unsettled;
                    }
                    Verdict::New if entry.index > held => {
                        steps.0.push(Step::Keep { command: admitted.commands.len(), session, position });
                        entry.payload = entry.payload.slice(SessionKey::BYTES..);
                    }
                    Verdict::New => {}
                }
            }
        }
        if entry.index <= held {
            return Fate::Done(position);
        }
        admitted.commands.push(entry);
        Fate::Applied(admitted.commands.len() - 1)
    }

    /// The host has applied the first `applied` commands and answered `result` to each; where that is not all of them, the
    /// next one failed, and nothing behind it is settled.
    pub fn settle<'a>(
        &mut self,
        admitted: &mut Admitted,
        steps: Steps,
        applied: usize,
        result: impl Fn(usize) -> &'a [u8],
    ) {
        for step in steps.0 {
            match step {
                Step::Keep { command, .. } if command >= applied => return,
                Step::Keep { command, session, position } => self.replies.keep(session, position, result(command)),
                Step::Forget { session, index } => self.replies.forget(session, index),
                Step::End { session } => self.replies.end(session),
                Step::Bound { bytes } => self.replies.set_bound(bytes),
                Step::Repeat { position, session, index } => {
                    let reply = self.replies.get(session, index);
                    admitted.fates[position] = reply.map_or(Fate::Forgotten, Fate::Repeated);
                }
            }
        }
    }

    /// How many sessions there are, as of the last entry that could change it.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// How many ended for want of use, and how many to make room, since the start or the last restore.
    pub fn ended(&self) -> (u64, u64) {
        (self.table.expired, self.table.evicted)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sessions as they are, for a snapshot. Cheap: what is large is shared until it changes.
    pub fn freeze(&mut self) -> FrozenSessions {
        let replies = &mut self.replies;
        self.table.expire(&mut |session| replies.end(session));
        FrozenSessions::new(&self.table, &self.replies, &self.digests)
    }

    /// What servers with the same log have in common: of what decides, and of the replies, which a server lacks whose host
    /// held their commands applied when it started.
    pub fn digests(&mut self) -> (u32, u32) {
        let replies = &mut self.replies;
        self.table.expire(&mut |session| replies.end(session));
        let [decisions, all] = [&Replies::default(), &self.replies]
            .map(|replies| FrozenSessions::new(&self.table, replies, &Digests::default()).digest());
        (decisions, all)
    }
}

/// The settings that an entry brings.
fn settings_of(entry: &Entry) -> Option<GroupSettings> {
    let configuration = match entry.kind {
        EntryKind::Formation => codec::decode::<(ClusterId, GroupId, Configuration)>(&entry.payload).ok()?.2,
        _ => codec::decode::<Configuration>(&entry.payload).ok()?,
    };
    Some(configuration.settings)
}
