//! A copy of one server's log, kept beside it from what it shows after each step.

use super::record::Record;
use super::{EntryId, Seen, View, Violation, broken};
use crate::types::{FIRST_INDEX, Index, Term};

/// A run of entries behind a snapshot.
#[derive(Clone, Debug, Default)]
struct Log {
    /// The index and term just before the first entry.
    base: (Index, Term),
    entries: Vec<EntryId>,
    durable: Index,
}

impl Log {
    fn entry(&self, index: Index) -> Option<EntryId> {
        let at = index.checked_sub(self.base.0 + 1)?;
        self.entries.get(usize::try_from(at).ok()?).copied()
    }

    fn last(&self) -> Index {
        self.base.0 + self.entries.len() as u64
    }

    /// Whether the disk holds this entry; what a snapshot covers was committed, and is the same everywhere.
    fn holds(&self, index: Index, id: EntryId) -> bool {
        index <= self.durable && (index <= self.base.0 || self.entry(index) == Some(id))
    }
}

/// One server's log, in its present process and in the one before until that is recovered.
#[derive(Debug, Default)]
pub(super) struct Copy {
    /// What the present process showed last.
    pub(super) view: Option<View>,
    /// Entry 1, once synced.
    pub(super) first_entry: Option<EntryId>,
    /// The directory was emptied when it may have voted: it never takes part again.
    pub(super) is_out: bool,
    /// The group was recovered without it: it is of another group, under the same name.
    pub(super) is_of_old_group: bool,
    /// The index of the configuration in force.
    pub(super) configuration_index: Index,
    /// Whether that is joint.
    pub(super) is_joint: bool,
    /// The last entry handed to the host of the present process.
    pub(super) handed: Index,
    /// What that host held by itself when it started.
    pub(super) held: Index,
    /// The highest term that the server ever named to others as its own.
    pub(super) said_term: Term,
    /// What the present process found on its disk is durable. Until then a power cut may take some of it.
    pub(super) is_ready: bool,
    log: Log,
    /// What the process before had, until the present one is ready.
    earlier: Option<Log>,
    /// The present process is ready, and what it shows of the group has not been held against `earlier` yet.
    is_unproven: bool,
}

impl Copy {
    /// A new process starts.
    pub(super) fn open(&mut self) {
        let log = std::mem::take(&mut self.log);
        // A process that dies before it showed anything leaves what the one before it left.
        if self.earlier.is_none() {
            self.earlier = Some(log);
        }
        self.view = None;
        self.configuration_index = 0;
        self.is_joint = false;
        self.handed = 0;
        self.held = 0;
        self.is_ready = false;
        self.is_unproven = false;
    }

    /// The directory is emptied.
    pub(super) fn wipe(&mut self, is_out: bool) {
        self.is_out |= is_out;
        self.first_entry = None;
        self.said_term = 0;
        let log = std::mem::take(&mut self.log);
        // What it held while it took part stays held: it was counted then.
        self.earlier = self.is_out.then(|| self.earlier.take().unwrap_or(log));
    }

    /// What recovery kept is durable.
    pub(super) fn ready(&mut self, server: usize) -> Result<(), Violation> {
        self.is_ready = true;
        self.is_unproven = true;
        self.check_recovered(server)
    }

    /// Everything that was durable in the process before must be there, and every term said.
    pub(super) fn check_recovered(&mut self, server: usize) -> Result<(), Violation> {
        let Some(view) = self.view.filter(|_| self.is_unproven && !self.is_out) else { return Ok(()) };
        self.is_unproven = false;
        let Some(earlier) = self.earlier.take() else { return Ok(()) };
        if view.term < self.said_term {
            return broken(
                "a term that was said survives a restart",
                format!("server {server} said term {} and restarts in {}", self.said_term, view.term),
            );
        }
        if view.last.index < earlier.durable.min(earlier.last()) {
            return broken(
                "what was durable survives a restart",
                format!("server {server} had {} on its disk and restarts with {:?}", earlier.durable, view.last),
            );
        }
        for index in self.log.base.0.max(earlier.base.0) + 1..=earlier.durable.min(earlier.last()) {
            if self.entry(index) != earlier.entry(index) {
                return broken(
                    "what was durable survives a restart",
                    format!("server {server} at {index}: {:?} became {:?}", earlier.entry(index), self.entry(index)),
                );
            }
        }
        Ok(())
    }

    /// Takes over what changed of the log, and says which indexes are new.
    pub(super) fn update(
        &mut self,
        server: usize,
        view: &View,
        entry: &dyn Fn(Index) -> Option<Seen>,
        record: &Record,
    ) -> Result<std::ops::RangeInclusive<Index>, Violation> {
        let before = self.view.replace(*view);
        let is_rewritten = before.is_none_or(|before| before.truncations != view.truncations);
        let log = &mut self.log;
        let was_last = if is_rewritten { 0 } else { log.last() };
        if is_rewritten || view.base.index >= log.last() {
            log.base = (view.base.index, view.base.term);
            log.entries.clear();
        } else if view.base.index > log.base.0 {
            let gone = usize::try_from(view.base.index - log.base.0).unwrap_or(usize::MAX);
            log.entries.drain(..gone.min(log.entries.len()));
            log.base = (view.base.index, view.base.term);
        }
        if view.last.index < log.last() {
            return broken("a log is shortened only by truncation", format!("server {server}: {before:?} to {view:?}"));
        }
        let first = log.last() + 1;
        for index in first..=view.last.index {
            let Some((term, rest)) = entry(index) else {
                return broken("a log has no holes", format!("server {server} has no entry {index}: {view:?}"));
            };
            // What is not in memory was seen when it was appended, here or at its leader.
            let known = match rest {
                Some((kind, payload_crc)) => Some(EntryId { term, kind, payload_crc }),
                // Who received more than its cache holds in the turn in which it synced entry 1 goes on from the one
                // that formed the group.
                None if index == FIRST_INDEX => {
                    self.first_entry.or(record.committed(FIRST_INDEX)).filter(|first| first.term == term)
                }
                None => record.known(index, term),
            };
            let Some(id) = known else {
                return broken(
                    "nothing is in a log that was never appended",
                    format!("server {server} has an entry {index} of term {term}"),
                );
            };
            log.entries.push(id);
        }
        log.durable = view.durable;
        let end = log.entries.last().map_or(log.base.1, |last| last.term);
        if end != view.last.term || view.durable > view.last.index {
            return broken("a log ends where it says", format!("server {server} ends in term {end}: {view:?}"));
        }
        Ok(first.max(was_last + 1)..=view.last.index)
    }

    /// The term at an index of the log, or just before it.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.log.base.0 { Some(self.log.base.1) } else { self.log.entry(index).map(|id| id.term) }
    }

    /// The entry at an index.
    pub(super) fn entry(&self, index: Index) -> Option<EntryId> {
        self.log.entry(index).or(self.first_entry.filter(|_| index == FIRST_INDEX))
    }

    /// Whether the server's disk holds this entry, in its present log or in the one that is being recovered.
    pub(super) fn holds(&self, index: Index, id: EntryId) -> bool {
        (self.is_ready && self.log.holds(index, id))
            || self.earlier.as_ref().is_some_and(|earlier| earlier.holds(index, id))
    }
}
