//! The log as the core sees it: the term of every live entry, and the entries that are still in memory.
//!
//! Terms are kept as runs of equal terms, so that a log of a million entries costs a handful of them, and consistency
//! checks (§5.3) never wait for the disk. Entries themselves are cached from the end backwards within a budget; older
//! ones are fetched by the driver when a slow peer needs them.

use std::collections::VecDeque;

use crate::types::{Entry, Index, LogTime, Position, Term};

/// One group's log.
#[derive(Clone, Debug)]
pub(super) struct Log {
    /// The last entry that is no longer live: that of the last compaction, or zero. Its term is still known.
    base: Position,
    /// First index and term of each run of equal terms after `base`. Both ascend.
    runs: VecDeque<(Index, Term)>,
    /// The last index; `base.index` if no entry is live.
    last: Index,
    /// The log time of the last entry.
    last_log_time: LogTime,
    /// The last entries, contiguous through `last`.
    cache: VecDeque<Entry>,
    /// What the cache costs, in bytes.
    cache_bytes: usize,
}

impl Log {
    pub(super) fn new(
        base: Position,
        runs: Vec<(Index, Term)>,
        last: Index,
        last_log_time: LogTime,
        tail: Vec<Entry>,
    ) -> Self {
        assert!(runs.first().is_none_or(|&(first, _)| first == base.index + 1), "the log begins after its base");
        assert!(runs.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1), "terms never go back along a log");
        assert_eq!(runs.is_empty(), last == base.index);
        assert!(tail.last().is_none_or(|entry| entry.index == last));
        let cache_bytes = tail.iter().map(Entry::cost_bytes).sum();
        Self { base, runs: runs.into(), last, last_log_time, cache: tail.into(), cache_bytes }
    }

    /// The last entry that is no longer live.
    pub(super) fn base(&self) -> Position {
        self.base
    }

    /// The last entry's place, live or not.
    pub(super) fn last(&self) -> Position {
        Position { index: self.last, term: self.runs.back().map_or(self.base.term, |&(_, term)| term) }
    }

    pub(super) fn last_log_time(&self) -> LogTime {
        self.last_log_time
    }

    /// The term at `index`; `None` before the base and after the end.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index > self.last {
            return None;
        }
        let run = self.runs.partition_point(|&(first, _)| first <= index).checked_sub(1)?;
        Some(self.runs[run].1)
    }

    /// Whether the log holds this entry: same index, same term, hence the same entry and all before it (§5.3, Log
    /// Matching).
    pub(super) fn holds(&self, position: Position) -> bool {
        self.term_at(position.index) == Some(position.term)
    }

    /// The last entry at or before `limit.index` whose term is at most `limit.term`; the base if there is none.
    ///
    /// Both sides of a conflict use it: where terms differ, logs cannot be equal after it (§5.3).
    pub(super) fn last_at_most(&self, limit: Position) -> Position {
        let mut end = limit.index.min(self.last);
        for &(first, term) in self.runs.iter().rev() {
            if first > end {
                continue;
            }
            if term <= limit.term {
                return Position { index: end, term };
            }
            end = first - 1;
        }
        self.base
    }

    /// Appends entries that follow the last one.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        for entry in entries {
            let last = self.last();
            assert_eq!(entry.index, last.index + 1, "entries are contiguous");
            assert!(entry.term >= last.term, "terms never go back along a log: {entry:?} after {last:?}");
            if self.runs.is_empty() || entry.term > last.term {
                self.runs.push_back((entry.index, entry.term));
            }
            self.last = entry.index;
            self.last_log_time = self.last_log_time.max(entry.log_time);
            self.cache_bytes += entry.cost_bytes();
            self.cache.push_back(entry.clone());
        }
    }

    /// Undoes everything from `from` on. The log time of what remains is not needed exactly: time never goes back, and
    /// what was undone can only have been later.
    pub(super) fn truncate(&mut self, from: Index) {
        assert!(from > self.base.index, "what is compacted is committed and cannot be undone");
        while self.runs.back().is_some_and(|&(first, _)| first >= from) {
            self.runs.pop_back();
        }
        while self.cache.back().is_some_and(|entry| entry.index >= from) {
            let undone = self.cache.pop_back().map_or(0, |entry| entry.cost_bytes());
            self.cache_bytes -= undone;
        }
        if let Some(entry) = self.cache.back() {
            self.last_log_time = entry.log_time;
        }
        self.last = self.last.min(from - 1);
    }

    /// Forgets everything through `to`, which the log holds (or which lies behind its end: then all of it).
    pub(super) fn compact(&mut self, to: Position) {
        if to.index <= self.base.index {
            return;
        }
        assert!(self.holds(to), "only what the log holds is compacted: {to:?}");
        while self.runs.get(1).is_some_and(|&(next, _)| next <= to.index + 1) {
            self.runs.pop_front();
        }
        if to.index == self.last {
            self.runs.clear();
        } else if let Some(first) = self.runs.front_mut() {
            first.0 = first.0.max(to.index + 1);
        }
        self.base = to;
        self.evict_while(|log| log.cache.front().is_some_and(|entry| entry.index <= to.index));
    }

    /// Starts anew after a snapshot.
    pub(super) fn reset(&mut self, base: Position, log_time: LogTime) {
        *self = Self::new(base, Vec::new(), base.index, log_time, Vec::new());
    }

    /// Lets go of the oldest cached entries through `through` while the cache is over its budget.
    pub(super) fn evict(&mut self, through: Index, budget_bytes: usize) {
        self.evict_while(|log| {
            log.cache_bytes > budget_bytes && log.cache.front().is_some_and(|entry| entry.index <= through)
        });
    }

    fn evict_while(&mut self, condition: impl Fn(&Self) -> bool) {
        while condition(self) {
            let gone = self.cache.pop_front().map_or(0, |entry| entry.cost_bytes());
            self.cache_bytes -= gone;
        }
    }

    /// Gives memory back that the cache once took and does not need.
    pub(super) fn release(&mut self) {
        self.cache.shrink_to(2 * self.cache.len());
    }

    /// The first cached index; one past the last if nothing is cached.
    pub(super) fn cache_start(&self) -> Index {
        self.last + 1 - self.cache.len() as u64
    }

    pub(super) fn cache_bytes(&self) -> usize {
        self.cache_bytes
    }

    /// Cached entries from `from` on, through `through`, as long as they cost at most `max_bytes` together; at least
    /// one, if it is cached.
    pub(super) fn cached(&self, from: Index, through: Index, max_bytes: usize) -> Vec<Entry> {
        let start = self.cache_start();
        if from < start || from > through.min(self.last) {
            return Vec::new();
        }
        let (skip, end) = ((from - start) as usize, (through.min(self.last) + 1 - start) as usize);
        let mut bytes = 0;
        let fitting = self.cache.range(skip..end).take_while(|entry| {
            let is_first = bytes == 0;
            bytes += entry.cost_bytes();
            is_first || bytes <= max_bytes
        });
        // Counted first, so that what is collected has its size at once.
        let count = fitting.count();
        self.cache.range(skip..skip + count).cloned().collect()
    }

    /// What the cached entries from `from` through `through` cost.
    pub(super) fn cost_bytes(&self, from: Index, through: Index) -> usize {
        let start = self.cache_start();
        let (from, through) = (from.max(start), through.min(self.last));
        if from > through {
            return 0;
        }
        self.cache.range((from - start) as usize..=(through - start) as usize).map(Entry::cost_bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::EntryKind;

    fn log(terms: &[Term]) -> Log {
        let mut log = Log::new(Position::default(), Vec::new(), 0, LogTime(0), Vec::new());
        for (at, &term) in terms.iter().enumerate() {
            let position = Position { index: at as u64 + 1, term };
            log.append(&[Entry::new(
                position,
                LogTime(at as u64),
                EntryKind::Command,
                bytes::Bytes::from_static(b"x"),
            )]);
        }
        log
    }

    #[test]
    fn the_term_of_every_live_entry_is_known() {
        let mut log = log(&[0, 1, 1, 4, 4, 5, 5, 6, 6, 6]);
        let terms: Vec<_> = (0..=11).map(|index| log.term_at(index)).collect();
        assert_eq!(terms[..4], [Some(0), Some(0), Some(1), Some(1)]);
        assert_eq!(terms[10..], [Some(6), None]);
        assert_eq!(log.runs.len(), 5, "a run a term");
        log.compact(Position { index: 5, term: 4 });
        assert_eq!((log.term_at(4), log.term_at(5), log.term_at(6)), (None, Some(4), Some(5)));
        assert_eq!(log.cache_start(), 6);
        assert_eq!(log.runs, [(6, 5), (8, 6)]);
        log.compact(Position { index: 9, term: 6 });
        assert_eq!(log.runs, [(10, 6)]);
        log.compact(Position { index: 10, term: 6 });
        assert!(log.runs.is_empty());
        assert_eq!(log.last(), Position { index: 10, term: 6 });
    }

    #[test]
    fn a_conflict_skips_a_term_at_a_time() {
        let log = log(&[0, 1, 1, 4, 4, 5, 5, 6]);
        assert_eq!(log.last_at_most(Position { index: 7, term: 4 }), Position { index: 5, term: 4 });
        assert_eq!(log.last_at_most(Position { index: 4, term: 3 }), Position { index: 3, term: 1 });
        assert_eq!(log.last_at_most(Position { index: 90, term: 9 }), Position { index: 8, term: 6 });
    }

    #[test]
    fn truncation_undoes_terms_and_cache() {
        let mut log = log(&[0, 1, 1, 4, 4]);
        log.truncate(3);
        assert_eq!(log.last(), Position { index: 2, term: 1 });
        assert_eq!(log.cached(1, 9, usize::MAX).len(), 2);
        log.truncate(2);
        assert_eq!(log.last(), Position { index: 1, term: 0 });
    }

    #[test]
    fn the_log_time_is_that_of_the_last_entry_and_never_less_than_one_before() {
        let mut log = log(&[0, 1, 1, 1]);
        assert_eq!(log.last_log_time(), LogTime(3));
        log.truncate(3);
        assert_eq!(log.last_log_time(), LogTime(1));
        let earlier = Entry::new(Position { index: 3, term: 2 }, LogTime(0), EntryKind::NoOp, bytes::Bytes::new());
        log.append(&[earlier]);
        assert_eq!(log.last_log_time(), LogTime(1));
    }

    #[test]
    fn only_what_is_through_with_leaves_the_cache() {
        let mut log = log(&[0, 1, 1, 1]);
        log.evict(2, 0);
        assert_eq!(log.cache_start(), 3);
        assert!(log.cached(2, 4, 1000).is_empty());
        assert_eq!(log.cached(3, 4, 1).len(), 1);
        assert!(log.cached(5, 9, 1000).is_empty());
    }

    #[test]
    fn the_cache_knows_what_it_costs_and_keeps_to_its_budget() {
        let one = log(&[0]).cache_bytes();
        let mut log = log(&[0, 1, 1, 1, 1, 1]);
        assert_eq!((one > 1, log.cache_bytes()), (true, 6 * one));
        log.truncate(6);
        assert_eq!(log.cache_bytes(), 5 * one);
        log.evict(5, 4 * one);
        assert_eq!((log.cache_bytes(), log.cache_start()), (4 * one, 2), "as much as it may have, and no less");
        log.compact(Position { index: 2, term: 1 });
        assert_eq!((log.cache_bytes(), log.cache_start()), (3 * one, 3));
        let costs = [(1, 9), (3, 5), (4, 5), (4, 4), (5, 4), (1, 2), (6, 9)];
        let costs = costs.map(|(from, through)| log.cost_bytes(from, through));
        assert_eq!(costs, [3 * one, 3 * one, 2 * one, one, 0, 0, 0]);
        let lengths = [0, 2 * one - 1, 2 * one, 9 * one].map(|most| log.cached(3, 9, most).len());
        assert_eq!(lengths, [1, 1, 2, 3], "as many as fit, and at least one");
        assert_eq!(log.cached(4, 4, 9 * one).len(), 1);
    }

    #[test]
    fn memory_that_the_cache_once_took_is_given_back() {
        let mut log = log(&[1; 1_000]);
        log.evict(990, 0);
        assert!(log.cache.capacity() >= 1_000);
        log.release();
        assert!((20..100).contains(&log.cache.capacity()), "{}", log.cache.capacity());
    }

    #[test]
    fn compaction_behind_the_base_changes_nothing() {
        let mut log = log(&[0, 1, 1, 4]);
        log.compact(Position { index: 3, term: 1 });
        log.compact(Position { index: 2, term: 1 });
        assert_eq!((log.base(), log.last()), (Position { index: 3, term: 1 }, Position { index: 4, term: 4 }));
        assert_eq!((log.term_at(2), log.term_at(3), log.term_at(4)), (None, Some(1), Some(4)));
    }

    #[test]
    #[should_panic(expected = "only what the log holds is compacted")]
    fn what_the_log_does_not_hold_is_never_compacted() {
        log(&[0, 1, 1, 4]).compact(Position { index: 3, term: 2 });
    }

    #[test]
    #[should_panic(expected = "is committed and cannot be undone")]
    fn what_is_compacted_is_never_truncated() {
        let mut log = log(&[0, 1, 1, 4]);
        log.compact(Position { index: 2, term: 1 });
        log.truncate(2);
    }
}
