//! Sessions as clients and entries speak of them (dissertation §6.3): a client names every command of its session by a
//! number, so that a command that comes twice is applied once.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Index, Position, TERMS_OF_AN_AGE};

/// Names a session within its group: the index of the entry that opened it, and in the upper bits the age of that entry's
/// term ([`TERMS_OF_AN_AGE`]), so that no id is ever used again. A recovery from the loss of a quorum may give an index to
/// another entry; what was opened there before has another age. Before any recovery, an id is an index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct SessionId(pub u64);

impl SessionId {
    /// Bits of the index: more entries than a group ever has.
    const INDEX_BITS: u32 = 44;

    /// The session that the entry at this place opens.
    pub fn opened_by(entry: Position) -> Self {
        Self(entry.index | (entry.term / TERMS_OF_AN_AGE) << Self::INDEX_BITS)
    }

    /// The index of the entry that opened it.
    pub fn index(self) -> Index {
        self.0 & ((1 << Self::INDEX_BITS) - 1)
    }

    /// What a renewal or a close of this session carries.
    pub fn payload(self) -> Bytes {
        Bytes::copy_from_slice(&self.0.to_le_bytes())
    }

    /// The session that such a payload names; `None` if it is none.
    pub fn read(payload: &[u8]) -> Option<Self> {
        Some(Self(u64::from_le_bytes(payload.try_into().ok()?)))
    }
}

/// What a command of a session says of itself. A retry says the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionKey {
    /// Whose command it is.
    pub session: SessionId,
    /// Which one: chosen by the client, and never for two commands.
    pub sequence: u64,
    /// The lowest sequence that the client may still retry: replies below it are forgotten. At most `sequence`.
    pub lowest_outstanding: u64,
}

impl SessionKey {
    /// What stands before the command in the payload of its entry, in bytes.
    pub const BYTES: usize = 24;

    /// The payload of the entry of a command.
    pub fn payload(&self, command: &[u8]) -> Bytes {
        let mut payload = Vec::with_capacity(Self::BYTES + command.len());
        for number in [self.session.0, self.sequence, self.lowest_outstanding] {
            payload.extend_from_slice(&number.to_le_bytes());
        }
        payload.extend_from_slice(command);
        payload.into()
    }

    /// What a payload says; `None` if it is too short to be one. The command is what follows [`SessionKey::BYTES`].
    pub fn read(payload: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_le_bytes(payload.get(at..at + 8)?.try_into().ok()?));
        Some(Self { session: SessionId(number(0)?), sequence: number(8)?, lowest_outstanding: number(16)? })
    }
}

/// A session as its client holds it: plain numbers, which the client may store, and take to any server of the group.
///
/// A client with one command at a time calls [`Session::next_key`] for each, tries it with the same key until it is answered,
/// and then [`Session::answered`]. One with several under way does the same, and says that a command is answered once all
/// before it are, too.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Session {
    /// Its name.
    pub id: SessionId,
    /// The sequence of the next command.
    pub next_sequence: u64,
    /// The lowest sequence that has no answer yet.
    pub lowest_outstanding: u64,
}

impl Session {
    /// A session that was just opened.
    pub fn new(id: SessionId) -> Self {
        Self { id, next_sequence: 1, lowest_outstanding: 1 }
    }

    /// The key of the next command.
    pub fn next_key(&mut self) -> SessionKey {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        SessionKey { session: self.id, sequence, lowest_outstanding: self.lowest_outstanding }
    }

    /// The client has the answers of all commands through `sequence`, and will retry none of them.
    pub fn answered(&mut self, sequence: u64) {
        self.lowest_outstanding = self.lowest_outstanding.max(sequence + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_back_from_the_payload_that_it_begins() {
        let key = SessionKey { session: SessionId(0x0102), sequence: 7, lowest_outstanding: 5 };
        let payload = key.payload(b"incr");
        assert_eq!(
            payload[..],
            [&[2, 1, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0][..], b"incr"].concat()
        );
        assert_eq!(SessionKey::read(&payload), Some(key));
        assert_eq!(SessionKey::read(&payload[..SessionKey::BYTES - 1]), None);
        assert_eq!(SessionId::read(&SessionId(9).payload()), Some(SessionId(9)));
        assert_eq!(SessionId::read(b"short"), None);
        assert_eq!(SessionId::read(b"too long."), None);
    }

    #[test]
    fn the_id_of_a_session_is_its_index_until_a_quorum_is_lost_and_never_the_same_after() {
        let opened = |term| SessionId::opened_by(Position { term, index: 57 });
        assert_eq!(opened(3), SessionId(57));
        assert_eq!(opened(TERMS_OF_AN_AGE - 1), SessionId(57));
        assert_ne!(opened(TERMS_OF_AN_AGE), SessionId(57));
        assert_ne!(opened(TERMS_OF_AN_AGE), opened(2 * TERMS_OF_AN_AGE));
        assert_eq!(opened(5 * TERMS_OF_AN_AGE + 7).index(), 57);
    }

    #[test]
    fn what_is_answered_is_outstanding_no_more() {
        let mut session = Session::new(SessionId(9));
        let (first, second) = (session.next_key(), session.next_key());
        assert_eq!((first.sequence, second.sequence, second.lowest_outstanding), (1, 2, 1));
        session.answered(first.sequence);
        assert_eq!(session.next_key(), SessionKey { session: SessionId(9), sequence: 3, lowest_outstanding: 2 });
    }
}
