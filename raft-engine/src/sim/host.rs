//! The program that embeds the engine: a deterministic state machine for one group, the thread that applies, and the
//! group's sessions, which that thread keeps as a real server's does.
//!
//! The state is a chain of all payloads applied and a small map, so that equal states mean equal histories. What the
//! engine hands over waits in order, as it does for a real apply thread, and is worked off a piece at a time.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use fastrand::Rng;

use super::operations::Command;
use crate::driver::{FrozenSessions, Sessions, Ticket};
use crate::types::{Entry, FileName, Index, SnapshotMeta, SnapshotSection};

/// A key that no command touches.
const UNTOUCHED: u16 = u16::MAX;

/// What a state machine holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct State {
    /// The last entry applied.
    pub(super) applied: Index,
    /// A digest of all payloads of commands, in order.
    chain: u64,
    values: BTreeMap<u16, u64>,
    /// Of all values: the sum of a digest of each.
    sum: u64,
}

/// What the engine wants of the host, in order.
#[derive(Debug)]
pub(super) enum Task {
    Apply { entries: VecDeque<Entry>, tickets: VecDeque<(u32, Ticket)>, done: u32 },
    Restore { file: FileName, meta: SnapshotMeta, with_host: bool },
    BeginSnapshot { index: Index },
    SnapshotMore,
    ReleaseSnapshot,
}

/// A snapshot that is being written.
#[derive(Debug)]
pub(super) struct Source {
    /// Written first.
    sessions: Option<FrozenSessions>,
    bytes: Bytes,
}

/// One group's state machine in one process.
#[derive(Debug, Default)]
pub(super) struct Host {
    pub(super) state: State,
    pub(super) sessions: Sessions,
    /// The last entry that the sessions were taken through.
    pub(super) reached: Index,
    /// What the state held by itself at the start.
    pub(super) held: Index,
    pub(super) tasks: VecDeque<Task>,
    pub(super) source: Option<Source>,
    /// Reads that may be answered once so much is applied.
    pub(super) reads: Vec<(Index, Ticket)>,
    /// Whether a turn of the apply thread is scheduled.
    pub(super) is_scheduled: bool,
    /// A verdict went against the state: nothing is applied or answered any more.
    pub(super) is_stopped: bool,
}

impl Host {
    /// Whether its state is to be replaced, or being so.
    pub(super) fn is_restoring(&self) -> bool {
        self.tasks.iter().any(|task| matches!(task, Task::Restore { .. }))
    }
}

impl State {
    /// Applies one command, and answers with what tells this effect from any other, at some length.
    pub(super) fn apply(&mut self, command: &Entry) -> Vec<u8> {
        self.applied = command.index;
        self.chain = (self.chain.rotate_left(7) ^ u64::from(command.payload_crc)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let Command { key, change } = Command::read(&command.payload);
        let held = self.values.get(&key).copied();
        let (holds, answered) = change.apply(held);
        if let Some(holds) = holds {
            self.sum = self.sum.wrapping_sub(held.map_or(0, |held| mix(u64::from(key), held)));
            self.sum = self.sum.wrapping_add(mix(u64::from(key), holds));
            self.values.insert(key, holds);
        }
        let mut answer = self.chain.to_le_bytes().to_vec();
        answer.extend_from_slice(&answered.to_le_bytes());
        answer.resize(16 + command.payload_crc as usize % 32, key as u8);
        answer
    }

    /// What an answer says of the key.
    pub(super) fn answered(answer: &[u8]) -> Option<u64> {
        Some(u64::from_le_bytes(answer.get(8..16)?.try_into().ok()?))
    }

    /// What a key holds.
    pub(super) fn value(&self, key: u16) -> Option<u64> {
        self.values.get(&key).copied()
    }

    /// Something in memory is not what it was: a key that no command touches, so that no answer depends on it.
    pub(super) fn corrupt(&mut self, rng: &mut Rng) {
        let value = rng.u64(..);
        if self.values.insert(UNTOUCHED, value).is_none() {
            self.sum = self.sum.wrapping_add(mix(u64::from(UNTOUCHED), value));
        }
    }

    /// What two equal states have in common.
    pub(super) fn digest(&self) -> u64 {
        mix(mix(self.chain, self.applied), self.sum)
    }

    /// The state as bytes, padded by a content that depends on it so that snapshots are of many sizes.
    fn to_bytes(&self, padding: usize) -> Bytes {
        let mut bytes = Vec::with_capacity(32 + 10 * self.values.len() + padding);
        bytes.extend_from_slice(&self.applied.to_le_bytes());
        bytes.extend_from_slice(&self.chain.to_le_bytes());
        bytes.extend_from_slice(&u16::try_from(self.values.len()).expect("keys have 16 bits").to_le_bytes());
        for (&key, &value) in &self.values {
            bytes.extend_from_slice(&key.to_le_bytes());
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes.resize(bytes.len() + padding, self.applied.to_le_bytes()[0]);
        bytes.into()
    }

    /// The state that these bytes are of.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let half = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let mut state = Self { applied: word(0)?, chain: word(8)?, ..Self::default() };
        for row in 0..usize::from(half(16)?) {
            let (key, value) = (half(18 + 10 * row)?, word(20 + 10 * row)?);
            state.sum = state.sum.wrapping_add(mix(u64::from(key), value));
            state.values.insert(key, value);
        }
        Some(state)
    }
}

fn mix(digest: u64, word: u64) -> u64 {
    (digest.rotate_left(9) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95)
}

impl Source {
    /// Freezes a state and the sessions beside it.
    pub(super) fn new(state: &State, sessions: FrozenSessions, rng: &mut Rng) -> Self {
        let padding = match rng.u8(..32) {
            0 => rng.usize(..150_000),
            1..6 => rng.usize(..10_000),
            6..10 => 0,
            _ => rng.usize(..1_000),
        };
        Self { sessions: Some(sessions), bytes: state.to_bytes(padding) }
    }

    /// The next piece, and whether it is the last.
    pub(super) fn next(&mut self, rng: &mut Rng) -> (SnapshotSection, Bytes, bool) {
        if let Some(sessions) = &mut self.sessions {
            // The length follows from what is left of the host's bytes: nothing is drawn for it.
            let (piece, has_ended) = sessions.next_piece(1 + self.bytes.len() % 300);
            self.sessions.take_if(|_| has_ended);
            return (SnapshotSection::Sessions, piece, false);
        }
        let length = match rng.u8(..4) {
            0 => self.bytes.len(),
            1 => rng.usize(..=self.bytes.len()),
            _ => self.bytes.len().min(rng.usize(1..64_000)),
        };
        let piece = self.bytes.split_to(length);
        (SnapshotSection::Host, piece, self.bytes.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{EntryKind, LogTime, Position};

    #[test]
    fn a_snapshot_brings_back_the_state_it_was_taken_of() {
        let mut rng = Rng::with_seed(3);
        let mut state = State::default();
        for index in 1..200 {
            let payload = Bytes::from(vec![u8::try_from(index).unwrap(); 20]); // Many keys.
            state.apply(&Entry::new(Position { term: 1, index }, LogTime(0), EntryKind::Command, payload));
            let mut source = Source::new(&state, Sessions::default().freeze(), &mut rng);
            let mut bytes = Vec::new();
            loop {
                let (section, piece, is_last) = source.next(&mut rng);
                if section == SnapshotSection::Host {
                    bytes.extend_from_slice(&piece);
                }
                if is_last {
                    break;
                }
            }
            let restored = State::from_bytes(&bytes).unwrap();
            assert_eq!(restored, state);
            assert_eq!(restored.digest(), state.digest());
        }
    }
}
