//! What is known of a group from outside of all its servers: nothing in it ever changes once written.

use std::collections::{BTreeMap, BTreeSet};

use super::{EntryId, Violation, broken};
use crate::types::{EntryKind, FIRST_INDEX, Index, Position, SessionId, SessionKey, Term};

const SESSION_RULE: &str = "sessions give one effect and one reply";

/// The most that a server may hold, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Entries proposed and not committed.
    pub uncommitted_bytes: usize,
    /// Entries kept in memory.
    pub cached_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    id: EntryId,
    /// The term of the entry before; unknown where that was compacted.
    previous: Option<Term>,
}

/// The record.
#[derive(Default)]
pub(super) struct Record {
    /// By index, every entry ever seen there, one a term.
    seen: Vec<Vec<Seen>>,
    leaders: BTreeMap<Term, usize>,
    votes: BTreeMap<(usize, Term), usize>,
    /// From index 1: the entry, and the term in which it was first known to be committed.
    committed: Vec<(EntryId, Term)>,
    /// The digest of the state after each index.
    states: BTreeMap<Index, u64>,
    /// The digests of the sessions after some indexes.
    sessions: BTreeMap<Index, (u32, Option<u32>)>,
    /// Commands of sessions by session and sequence: the entry that was applied, and the reply.
    effects: BTreeMap<(SessionId, u64), (Index, Vec<u8>)>,
    /// Entries by which the group was recovered from the loss of a quorum.
    recoveries: BTreeSet<Index>,
}

impl Record {
    /// The last committed index.
    pub(super) fn last_committed(&self) -> Index {
        self.committed.len() as u64
    }

    /// The committed entry at an index.
    pub(super) fn committed(&self, index: Index) -> Option<EntryId> {
        self.committed_in(index).map(|(id, _)| id)
    }

    /// The committed entry at an index, and the term of whoever committed it first.
    pub(super) fn committed_in(&self, index: Index) -> Option<(EntryId, Term)> {
        self.committed.get(usize::try_from(index.checked_sub(1)?).ok()?).copied()
    }

    /// A server commits an index; whether it is the first to do so.
    pub(super) fn commit(&mut self, server: usize, index: Index, id: EntryId, term: Term) -> Result<bool, Violation> {
        if let Some(committed) = self.committed(index) {
            if committed != id {
                return broken(
                    "a committed entry never changes",
                    format!("server {server} commits {id:?} at {index}, where {committed:?} was committed"),
                );
            }
            return Ok(false);
        }
        if index != self.last_committed() + 1 {
            return broken(
                "entries are committed in order",
                format!("server {server} commits {index} after {}", self.last_committed()),
            );
        }
        if (index == FIRST_INDEX) != (id.kind == EntryKind::Formation) {
            return broken("entry 1 forms the group", format!("server {server} commits {id:?} at {index}"));
        }
        self.committed.push((id, term));
        Ok(true)
    }

    /// How far the log that ends at `last` has what was committed. Logs that agree at a place agree before it (§5.3).
    pub(super) fn agrees_through(&self, last: Position) -> Index {
        let Position { mut term, mut index } = last;
        while index > FIRST_INDEX {
            if self.committed(index).is_some_and(|id| id.term == term) {
                return index;
            }
            let seen = self.seen.get(usize::try_from(index).unwrap_or(usize::MAX));
            let seen = seen.and_then(|seen| seen.iter().find(|seen| seen.id.term == term));
            index -= 1;
            match seen.and_then(|seen| seen.previous) {
                Some(previous) => term = previous,
                // The log begins behind it: what a snapshot covers was committed.
                None => return index.min(self.last_committed()),
            }
        }
        index
    }

    /// What was committed behind `through` is lost, and with it all that followed from it. An entry at `by` says so.
    /// Nobody but who wrote an entry there before has seen that one, if a power cut undid it.
    pub(super) fn goes_back(&mut self, through: Index, by: Index) {
        if self.recoveries.contains(&by) {
            self.seen.truncate(usize::try_from(by).unwrap_or(usize::MAX));
        }
        self.committed.truncate(usize::try_from(through).unwrap_or(usize::MAX));
        self.states.split_off(&(through + 1));
        self.sessions.split_off(&(through + 1));
        self.effects.retain(|_, (index, _)| *index <= through);
        self.recoveries.insert(by);
    }

    /// Whether the entry at this index made one server the only member.
    pub(super) fn is_recovery(&self, index: Index) -> bool {
        self.recoveries.contains(&index)
    }

    /// A server has an entry in its log.
    pub(super) fn saw(
        &mut self,
        server: usize,
        index: Index,
        previous: Option<Term>,
        id: EntryId,
    ) -> Result<(), Violation> {
        if index == FIRST_INDEX {
            // Formation interrupted by a wipe may leave several; the first on a majority's disks is the one.
            return Ok(());
        }
        if previous.is_some_and(|previous| previous > id.term) {
            return broken(
                "terms grow along a log",
                format!("server {server} has {id:?} at {index} after {previous:?}"),
            );
        }
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        if self.seen.len() <= at {
            self.seen.resize_with(at + 1, Vec::new);
        }
        let Some(seen) = self.seen[at].iter_mut().find(|seen| seen.id.term == id.term) else {
            self.seen[at].push(Seen { id, previous });
            return Ok(());
        };
        let agrees = seen.id == id && (seen.previous.is_none() || previous.is_none() || seen.previous == previous);
        if !agrees {
            return broken(
                "logs that agree at an index and term agree before it (§5.3)",
                format!("server {server} has {id:?} at {index} after term {previous:?}; seen was {seen:?}"),
            );
        }
        seen.previous = seen.previous.or(previous);
        Ok(())
    }

    /// The entry of this term at this index, if any server ever had one.
    pub(super) fn known(&self, index: Index, term: Term) -> Option<EntryId> {
        let seen = self.seen.get(usize::try_from(index).ok()?)?;
        seen.iter().map(|seen| seen.id).find(|id| id.term == term)
    }

    /// A server leads a term.
    pub(super) fn leads(&mut self, server: usize, term: Term) -> Result<(), Violation> {
        match self.leaders.insert(term, server) {
            Some(other) if other != server => {
                broken("at most one leader a term (§5.2)", format!("servers {other} and {server} lead term {term}"))
            }
            _ => Ok(()),
        }
    }

    /// A server votes.
    pub(super) fn votes(&mut self, server: usize, term: Term, candidate: usize) -> Result<(), Violation> {
        match self.votes.insert((server, term), candidate) {
            Some(other) if other != candidate => broken(
                "one vote a term, across restarts (§5.2)",
                format!("server {server} votes for {other} and {candidate} in term {term}"),
            ),
            _ => Ok(()),
        }
    }

    /// For whom a server voted in a term.
    pub(super) fn voted(&self, server: usize, term: Term) -> Option<usize> {
        self.votes.get(&(server, term)).copied()
    }

    /// The sessions of a server have reached an index.
    pub(super) fn sessions(
        &mut self,
        server: usize,
        index: Index,
        digests: (u32, Option<u32>),
        is_restored: bool,
    ) -> Result<(), Violation> {
        match self.sessions.get(&index) {
            // Who took the snapshot had taken its sessions through the same index.
            None if is_restored => broken(
                "a snapshot equals the replay of its prefix",
                format!("server {server} restores sessions at {index}, which no server ever had there"),
            ),
            None => {
                self.sessions.insert(index, digests);
                Ok(())
            }
            Some(&other) if other != digests => broken(
                if is_restored {
                    "a snapshot equals the replay of its prefix"
                } else {
                    "equal logs make equal sessions"
                },
                format!("server {server} has sessions {digests:x?} at {index}; another had {other:x?}"),
            ),
            Some(_) => Ok(()),
        }
    }

    /// A host applies a command of a session.
    pub(super) fn effect(
        &mut self,
        server: usize,
        key: SessionKey,
        index: Index,
        reply: &[u8],
    ) -> Result<(), Violation> {
        let effect = self.effects.entry((key.session, key.sequence)).or_insert_with(|| (index, reply.to_vec()));
        if (effect.0, &effect.1[..]) == (index, reply) {
            return Ok(());
        }
        broken(SESSION_RULE, format!("server {server} applies {key:?} at {index}; it was applied at {}", effect.0))
    }

    /// A client is told that a command of its session was applied.
    pub(super) fn answered(
        &self,
        server: usize,
        key: SessionKey,
        index: Index,
        reply: Option<&[u8]>,
    ) -> Result<(), Violation> {
        let effect = self.effects.get(&(key.session, key.sequence));
        if effect.is_some_and(|effect| effect.0 == index && reply.is_none_or(|reply| reply == effect.1)) {
            return Ok(());
        }
        broken(SESSION_RULE, format!("server {server} answers {key:?} as applied at {index}; it was {effect:?}"))
    }

    /// What the state comes down to at an index, if a state machine ever reached it.
    pub(super) fn known_state(&self, index: Index) -> Option<u64> {
        self.states.get(&index).copied()
    }

    /// A state machine has reached an index.
    pub(super) fn state(
        &mut self,
        server: usize,
        index: Index,
        digest: u64,
        is_restored: bool,
    ) -> Result<(), Violation> {
        match self.states.get(&index) {
            None if is_restored => broken(
                "a snapshot equals the replay of its prefix",
                format!("server {server} restores {index}, which no host ever applied"),
            ),
            None => {
                self.states.insert(index, digest);
                Ok(())
            }
            Some(&other) if other != digest => broken(
                if is_restored { "a snapshot equals the replay of its prefix" } else { "equal logs make equal states" },
                format!("server {server} has state {digest:#x} at {index}; another had {other:#x}"),
            ),
            Some(_) => Ok(()),
        }
    }
}
