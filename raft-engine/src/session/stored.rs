//! The table as bytes, a piece at a time: what a snapshot holds of it (docs/disk-format.md has every field).
//!
//! A run of records, each a length (u32) and as many bytes in codec. The first one says how many of each kind follow.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::digests::{Digests, MAX_KEPT};
use super::replies::{Kept, Replies};
use super::table::{Bounds, MAX_SEQUENCES, Session, Table};
use super::{MAX_REPLY_BYTES, Sessions};
use crate::codec::{self, CodecError};
use crate::types::{Index, LogTime, Position, SessionId, StateDigest, Term};

/// The longest record, in bytes: a reply, and what goes with it.
const MAX_RECORD_BYTES: usize = MAX_REPLY_BYTES + 1024;

/// One record. Sessions come in the order of their ids, and each one's replies behind it, in the order of their entries.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Record {
    Head {
        log_time: LogTime,
        expiry_nanoseconds: u64,
        max_sessions: u32,
        reply_bytes: u32,
        sessions: u64,
        replies: u64,
    },
    Session {
        id: SessionId,
        used_by: Index,
        used_at: LogTime,
        lowest: u64,
        applied: Vec<(u64, Index)>,
    },
    Reply {
        index: Index,
        term: Term,
        bytes: Bytes,
    },
    /// What the state came down to at the request at `index`. They come last, in order, and are not counted.
    Digest {
        index: Index,
        digest: StateDigest,
    },
}

/// The sessions as they were when a snapshot began.
#[derive(Debug)]
pub struct FrozenSessions {
    head: Option<Record>,
    sessions: btree_map::IntoIter<SessionId, Arc<Session>>,
    replies: BTreeMap<SessionId, Arc<Kept>>,
    /// The replies of the session before, and the last one of them that is written.
    current: Option<(Arc<Kept>, Index)>,
    digests: std::vec::IntoIter<(Index, StateDigest)>,
}

impl FrozenSessions {
    pub(super) fn new(table: &Table, replies: &Replies, digests: &Digests) -> Self {
        let head = Record::Head {
            log_time: table.now,
            expiry_nanoseconds: u64::try_from(table.bounds.expiry.as_nanos()).unwrap_or(u64::MAX),
            max_sessions: table.bounds.sessions,
            reply_bytes: replies.bound,
            sessions: table.sessions.len() as u64,
            replies: replies.sessions.values().map(|kept| kept.replies.len() as u64).sum(),
        };
        Self {
            head: Some(head),
            sessions: table.sessions.clone().into_iter(),
            replies: replies.sessions.clone(),
            current: None,
            digests: digests.0.iter().map(|(&index, &digest)| (index, digest)).collect::<Vec<_>>().into_iter(),
        }
    }

    /// The next bytes, about so many, and whether they are the last. Never called again after the last.
    pub fn next_piece(&mut self, about: usize) -> (Bytes, bool) {
        let mut piece = Vec::new();
        while piece.len() < about {
            let Some(record) = self.next_record() else { return (piece.into(), true) };
            let start = piece.len();
            piece.extend_from_slice(&[0; 4]);
            codec::encode_into(&record, &mut piece);
            let length = u32::try_from(piece.len() - start - 4).expect("a record is short");
            piece[start..start + 4].copy_from_slice(&length.to_le_bytes());
        }
        (piece.into(), false)
    }

    fn next_record(&mut self) -> Option<Record> {
        if let Some(head) = self.head.take() {
            return Some(head);
        }
        if let Some((kept, last)) = &mut self.current {
            if let Some((&index, (term, bytes))) = kept.replies.range(*last + 1..).next() {
                *last = index;
                return Some(Record::Reply { index, term: *term, bytes: bytes.clone() });
            }
            self.current = None;
        }
        let Some((id, session)) = self.sessions.next() else {
            let (index, digest) = self.digests.next()?;
            return Some(Record::Digest { index, digest });
        };
        self.current = self.replies.remove(&id).map(|kept| (kept, 0));
        let applied = session.applied.iter().map(|(&sequence, &index)| (sequence, index)).collect();
        let (used_by, used_at) = session.used;
        Some(Record::Session { id, used_by, used_at, lowest: session.lowest, applied })
    }

    /// CRC32C of all that is left.
    pub(super) fn digest(mut self) -> u32 {
        let mut crc = 0;
        loop {
            let (piece, is_last) = self.next_piece(64 << 10);
            crc = crc32c::crc32c_append(crc, &piece);
            if is_last {
                return crc;
            }
        }
    }
}

/// Why bytes are no table of sessions.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoredError {
    /// A record cannot be read.
    #[error("a record of the sessions cannot be read: {0}")]
    Codec(#[from] CodecError),
    /// The records do not make a table.
    #[error("the sessions are damaged: {what}")]
    Damaged {
        /// What is wrong.
        what: &'static str,
    },
}

/// Reads the bytes of [`FrozenSessions`] back, in pieces of any size.
#[derive(Debug, Default)]
pub struct SessionsReader {
    rest: BytesMut,
    sessions: Sessions,
    /// What the head announced and has not come yet: sessions, replies.
    missing: Option<(u64, u64)>,
    /// The last session that came, and its commands that no reply came for yet.
    last: SessionId,
    unanswered: BTreeSet<Index>,
}

impl SessionsReader {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// Says what is damaged: then nothing of it is to be used.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), StoredError> {
        self.rest.extend_from_slice(bytes);
        while self.rest.len() >= 4 {
            let length = (&self.rest[..4]).get_u32_le() as usize;
            if length > MAX_RECORD_BYTES {
                return damaged("a record is longer than any");
            }
            if self.rest.len() < 4 + length {
                break;
            }
            let record = self.rest.split_to(4 + length);
            self.take(codec::decode(&record[4..])?)?;
        }
        Ok(())
    }

    fn take(&mut self, record: Record) -> Result<(), StoredError> {
        let Sessions { table, replies, digests } = &mut self.sessions;
        match (record, &mut self.missing) {
            (
                Record::Head { log_time, expiry_nanoseconds, max_sessions, reply_bytes, sessions, replies: count },
                missing @ None,
            ) => {
                *missing = Some((sessions, count));
                table.now = log_time;
                table.bounds = Bounds { expiry: Duration::from_nanos(expiry_nanoseconds), sessions: max_sessions };
                replies.bound = reply_bytes;
            }
            (Record::Session { id, used_by, used_at, lowest, applied }, Some((missing @ 1.., _))) => {
                *missing -= 1;
                let is_new =
                    id > self.last && used_by >= id.index() && used_at <= table.now && !table.is_used_by(used_by);
                let fits = applied.len() <= MAX_SEQUENCES && applied.first().is_none_or(|first| first.0 >= lowest);
                if !is_new || !fits || !applied.is_sorted_by(|a, b| a.0 < b.0) {
                    return damaged("a session cannot be");
                }
                self.last = id;
                self.unanswered = applied.iter().map(|&(_, index)| index).collect();
                let applied = applied.into_iter().collect();
                table.insert(id, Session { used: (used_by, used_at), lowest, applied });
            }
            (Record::Reply { index, term, bytes }, Some((_, missing @ 1..))) => {
                *missing -= 1;
                if !self.unanswered.remove(&index) || bytes.len() > replies.bound as usize {
                    return damaged("a reply belongs to nothing");
                }
                replies.keep(self.last, Position { term, index }, &bytes);
            }
            (Record::Digest { index, digest }, Some((0, 0))) => {
                if digests.0.len() == MAX_KEPT || digests.0.last_key_value().is_some_and(|(last, _)| *last >= index) {
                    return damaged("a digest cannot be");
                }
                digests.keep(index, digest);
            }
            _ => return damaged("a record is out of place"),
        }
        Ok(())
    }

    /// The sessions, all bytes having come.
    ///
    /// # Errors
    /// They end too early.
    pub fn finish(self) -> Result<Sessions, StoredError> {
        if self.missing != Some((0, 0)) || !self.rest.is_empty() {
            return damaged("the records end too early");
        }
        Ok(self.sessions)
    }
}

fn damaged<T>(what: &'static str) -> Result<T, StoredError> {
    Err(StoredError::Damaged { what })
}
