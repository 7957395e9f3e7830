//! What clients do to the keys of a group's state machine, and what they were told: kept for the check of linearizability
//! at the end of a run.
//!
//! A command names a key and a change of it, in bits of its payload; a read looks at one key. Keys have generations:
//! after so many operations the clients go on to fresh ones, so that the history of each key is short enough to be
//! judged. Nothing here looks at an index, but to say in which order the check is to try things first.

use std::collections::BTreeMap;

use super::history::History;
use super::invariants::Violation;
use super::linearizability::{Action, NEVER, Operation, Tick, Verdict, check};

/// Keys of one generation.
const KEYS: u64 = 8;

/// Operations of one generation, in a group: some hundred a key.
const GENERATION: u64 = 900;

/// The most steps of one key's check: a history that is as expected takes one an operation.
const MOST_STEPS: u64 = 200_000;

/// A change of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// It holds this from now on.
    Write(u64),
    /// It holds so much more; nothing counts as 0. Answers the new value.
    Add(u64),
    /// It holds `value` if what it held ended in this bit. Answers whether.
    CompareAndSet {
        /// The last bit expected.
        expected: u64,
        /// What it is to hold then.
        value: u64,
    },
}

impl Change {
    /// What the key holds after this, and what is answered.
    pub(super) fn apply(self, held: Option<u64>) -> (Option<u64>, u64) {
        let value = held.unwrap_or(0);
        match self {
            Self::Write(value) => (Some(value), 0),
            Self::Add(more) => {
                let sum = value.wrapping_add(more);
                (Some(sum), sum)
            }
            Self::CompareAndSet { expected, .. } if value & 1 != expected => (held, 0),
            Self::CompareAndSet { value, .. } => (Some(value), 1),
        }
    }
}

/// What was done to a key, with what was answered: nothing where the outcome is unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cell {
    /// It was changed.
    Changed(Change, Option<u64>),
    /// It was read, and held this.
    Read(Option<u64>),
}

impl Action for Cell {
    type State = Option<u64>;

    fn step(&self, state: Option<u64>) -> Option<Option<u64>> {
        match *self {
            Self::Read(saw) => (saw == state).then_some(state),
            Self::Changed(change @ Change::Write(_), _) => Some(change.apply(state).0),
            Self::Changed(change, answer) => {
                let (next, answered) = change.apply(state);
                answer.is_none_or(|answer| answer == answered).then_some(next)
            }
        }
    }

    fn is_read(&self) -> bool {
        match self {
            Self::Read(_) => true,
            Self::Changed(change, answer) => matches!((change, answer), (Change::CompareAndSet { .. }, Some(0))),
        }
    }
}

/// A key, and what is to become of it: what a command's first nine bytes say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Command {
    pub(super) key: u16,
    pub(super) change: Change,
}

/// The bits of a command's first word that say what it does; the others only tell it from all others.
const SAID: u64 = 0xff00_00ff_ffff_ffff;

impl Command {
    /// What a payload says; one that is too short changes nothing that anybody reads.
    pub(super) fn read(payload: &[u8]) -> Self {
        let word = payload.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let slot = u64::from(payload.get(8).copied().unwrap_or(0)) % KEYS;
        let value = word >> 8 & 0xffff_ffff;
        let change = match word & 7 {
            0..3 => Change::Write(value),
            3..6 => Change::Add(value & 0xff),
            _ => Change::CompareAndSet { expected: word >> 3 & 1, value },
        };
        Self { key: (word >> 56) as u16 * KEYS as u16 + slot as u16, change }
    }

    /// Makes a payload say what `as_said` says, or leaves to it what it says of a key of this generation.
    pub(super) fn write(payload: &mut [u8], generation: u8, as_said: Option<(u64, u8)>) -> (u64, u8) {
        let word = payload.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let drawn = (word & !(0xff << 56) | u64::from(generation) << 56, payload[8]);
        let (said, slot) = as_said.unwrap_or(drawn);
        let word = said & SAID | word & !SAID;
        payload[..8].copy_from_slice(&word.to_le_bytes());
        payload[8] = slot;
        (said, slot)
    }
}

/// One operation.
#[derive(Clone, Debug)]
struct Record {
    key: u16,
    invoked: Tick,
    returned: Tick,
    action: Cell,
    is_in_session: bool,
    /// The requests that it was asked with: several in a session.
    tags: Vec<u64>,
    /// What a read had applied.
    at: u64,
    /// A read without an answer, a command that was certainly not applied: nothing is to be explained.
    is_void: bool,
}

/// What was done to the keys of one group.
#[derive(Debug, Default)]
pub(super) struct Operations {
    now: Tick,
    records: Vec<Record>,
    by_tag: BTreeMap<u64, usize>,
    begun: u64,
    generation: u8,
}

/// How many operations and keys a check went through, and how many of the former were of unknown outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Checked {
    pub(super) operations: u64,
    pub(super) keys: u64,
    pub(super) unknown: u64,
}

impl Operations {
    /// The generation of the keys that clients are at.
    pub(super) fn generation(&self) -> u8 {
        self.generation
    }

    /// The key that a read with this tag looks at: one that is in use.
    pub(super) fn key_of_read(&self, tag: u64) -> u16 {
        u16::from(self.generation) * KEYS as u16 + (tag % KEYS) as u16
    }

    fn tick(&mut self) -> Tick {
        self.now += 1;
        self.now
    }

    fn begin(&mut self, tag: u64, key: u16, action: Cell, is_in_session: bool) {
        let invoked = self.tick();
        self.by_tag.insert(tag, self.records.len());
        let (tags, at) = (vec![tag], 0);
        self.records.push(Record { key, invoked, returned: NEVER, action, is_in_session, tags, at, is_void: false });
        self.begun += 1;
        if self.begun.is_multiple_of(GENERATION) {
            self.generation = self.generation.saturating_add(1);
        }
    }

    /// A client asks for a command.
    pub(super) fn asks(&mut self, tag: u64, command: Command, is_in_session: bool) {
        self.begin(tag, command.key, Cell::Changed(command.change, None), is_in_session);
    }

    /// A client asks for the command once more that it asked for with the tag `first`.
    pub(super) fn asks_again(&mut self, tag: u64, first: u64) {
        if let Some(&at) = self.by_tag.get(&first) {
            self.by_tag.insert(tag, at);
            self.records[at].tags.push(tag);
            self.records[at].is_void = false;
        }
    }

    /// A client reads a key.
    pub(super) fn reads(&mut self, tag: u64, key: u16) {
        self.begin(tag, key, Cell::Read(None), false);
        self.records.last_mut().expect("it was just begun").is_void = true;
    }

    /// The key that a read looks at, while its answer is waited for.
    pub(super) fn key_of(&self, tag: u64) -> Option<u16> {
        let record = &self.records[*self.by_tag.get(&tag)?];
        matches!(record.action, Cell::Read(_)).then_some(record.key)
    }

    /// A read is answered by what had applied so much.
    pub(super) fn saw(&mut self, tag: u64, value: Option<u64>, applied: u64) {
        let now = self.tick();
        let Some(&at) = self.by_tag.get(&tag) else { return };
        let record = &mut self.records[at];
        (record.returned, record.action) = (now, Cell::Read(value));
        (record.at, record.is_void) = (applied, false);
    }

    /// A command is answered, by `None` where the outcome stays unknown.
    pub(super) fn answered(&mut self, tag: u64, answer: Option<u64>) {
        let now = self.tick();
        let Some(&at) = self.by_tag.get(&tag) else { return };
        let record = &mut self.records[at];
        // What a second try is told says nothing that the first was not told.
        if let (Cell::Changed(_, told), Some(answer), NEVER) = (&mut record.action, answer, record.returned) {
            (*told, record.returned) = (Some(answer), now);
        }
    }

    /// A command was certainly not applied. One that was asked for more than once may have been all the same.
    pub(super) fn not_applied(&mut self, tag: u64) {
        if let Some(&at) = self.by_tag.get(&tag) {
            let record = &mut self.records[at];
            record.is_void |= record.tags.len() == 1 && record.returned == NEVER;
        }
    }

    /// Judges what was done so far to every key, and forgets it: clients go on with keys that nobody used.
    pub(super) fn judge(&mut self, history: &History) -> Result<Checked, Violation> {
        let mut by_key: BTreeMap<u16, Vec<Operation<Cell>>> = BTreeMap::new();
        let mut checked = Checked::default();
        for record in self.records.drain(..).filter(|record| !record.is_void) {
            let is_read = matches!(record.action, Cell::Read(_));
            let effect = |&tag: &u64| history.effect_at(tag, record.is_in_session);
            let first_effect = || record.tags.iter().filter_map(effect).min();
            let expected = match is_read {
                true => 2 * record.at + 1,
                false => first_effect().map_or(u64::MAX, |index| 2 * index),
            };
            let Record { key, invoked, returned, action, .. } = record;
            checked.operations += 1;
            checked.unknown += u64::from(returned == NEVER);
            by_key.entry(key).or_default().push(Operation { invoked, returned, expected, action });
        }
        self.by_tag.clear();
        self.generation = self.generation.saturating_add(1);
        for (key, operations) in by_key {
            checked.keys += 1;
            let what = match check(&operations, None, MOST_STEPS) {
                Verdict::Linearizable => continue,
                Verdict::Not(why) => why,
                Verdict::Undecided => format!("{MOST_STEPS} steps did not decide"),
            };
            return Err(Violation::new(
                "what clients saw is linearizable",
                format!("key {key}: {what}; {}", first_misfit(&operations)),
            ));
        }
        Ok(checked)
    }
}

/// Where the order of the log stops to explain what clients saw, for a report.
fn first_misfit(operations: &[Operation<Cell>]) -> String {
    let mut logged: Vec<_> = operations.iter().filter(|operation| operation.expected != u64::MAX).collect();
    logged.sort_by_key(|operation| operation.expected);
    let (mut state, mut latest) = (None, 0);
    for (at, operation) in logged.iter().enumerate() {
        latest = latest.max(operation.invoked);
        match operation.action.step(state).filter(|_| latest <= operation.returned) {
            Some(next) => state = next,
            None => {
                let near = &logged[at.saturating_sub(5)..logged.len().min(at + 5)];
                return format!(
                    "in the order of the log the first that does not fit {state:?} is {operation:?}, of {near:?}"
                );
            }
        }
    }
    "the order of the log explains it".into()
}
