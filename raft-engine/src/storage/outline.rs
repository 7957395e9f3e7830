//! A group's log without its payloads: where it begins, where its terms change, where it ends.

use serde::{Deserialize, Serialize};

use crate::types::{FIRST_INDEX, Index, Position, Term};

/// The shape of one log. Two of these are kept of each group: as appended, and as cut into writes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct LogOutline {
    /// The last entry that a snapshot mark stands for; 0 where there is none.
    snapshot: Position,
    /// The last index; the snapshot's where nothing follows it.
    last: Index,
    /// (first index, term) of each run of entries of one term behind the snapshot, both ascending.
    runs: Vec<(Index, Term)>,
}

impl LogOutline {
    /// The last index.
    pub(super) fn last(&self) -> Index {
        self.last
    }

    /// The last entry's place and term.
    pub(super) fn last_position(&self) -> Position {
        let term = self.runs.last().map_or(self.snapshot.term, |run| run.1);
        Position { term, index: self.last }
    }

    /// The last entry that a snapshot mark stands for.
    pub(super) fn snapshot(&self) -> Position {
        self.snapshot
    }

    /// The runs behind the snapshot.
    pub(super) fn runs(&self) -> &[(Index, Term)] {
        &self.runs
    }

    /// The term at `index`, from the snapshot's position through the last.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.snapshot.index {
            return Some(self.snapshot.term);
        }
        if index < self.snapshot.index || index > self.last {
            return None;
        }
        let after = self.runs.partition_point(|run| run.0 <= index);
        Some(self.runs[after - 1].1)
    }

    /// Appends one entry. `Err` says how it does not fit.
    pub(super) fn push(&mut self, index: Index, term: Term) -> Result<(), String> {
        let last = self.last_position();
        if index != last.index + 1 || term < last.term {
            return Err(format!(
                "entry {index} of term {term} does not follow entry {} of term {}",
                last.index, last.term
            ));
        }
        if self.runs.last().is_none_or(|run| run.1 != term) {
            self.runs.push((index, term));
        }
        self.last = index;
        Ok(())
    }

    /// Drops the entries from `from` on.
    pub(super) fn truncate(&mut self, from: Index) -> Result<(), String> {
        if from <= self.snapshot.index.max(FIRST_INDEX) || from > self.last {
            return Err(format!(
                "truncation from {from} of a log that has {} in its snapshot and ends at {}",
                self.snapshot.index, self.last
            ));
        }
        self.runs.truncate(self.runs.partition_point(|run| run.0 < from));
        self.last = from - 1;
        Ok(())
    }

    /// Marks the entries through `position` as held by a snapshot. `Ok(true)`: what follows it stays; `Ok(false)`: the
    /// log was another one, or shorter, and nothing of it is left.
    pub(super) fn mark(&mut self, position: Position) -> Result<bool, String> {
        if position.index <= self.snapshot.index {
            return Err(format!("snapshot mark at {} behind the one at {}", position.index, self.snapshot.index));
        }
        let keeps = self.term_at(position.index) == Some(position.term);
        if keeps {
            let after = self.runs.partition_point(|run| run.0 <= position.index + 1);
            let continues = self.last > position.index && self.runs[after - 1].0 <= position.index;
            self.runs.drain(..after - usize::from(self.last > position.index));
            if continues {
                self.runs[0].0 = position.index + 1;
            }
        } else {
            self.runs.clear();
            self.last = position.index;
        }
        self.snapshot = position;
        Ok(keeps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(terms: &[Term]) -> LogOutline {
        let mut outline = LogOutline::default();
        for (at, &term) in terms.iter().enumerate() {
            outline.push(at as Index + 1, term).unwrap();
        }
        outline
    }

    #[test]
    fn a_mark_keeps_what_follows_the_same_entry_and_nothing_else() {
        let terms = [0, 1, 1, 2, 2, 4];
        for at in 1..=6_u64 {
            let mut kept = outline(&terms);
            assert_eq!(kept.mark(Position { term: terms[at as usize - 1], index: at }), Ok(true));
            assert_eq!(kept.last(), 6);
            for index in 0..=7 {
                let expected = (at..=6).contains(&index).then(|| terms[index as usize - 1]);
                assert_eq!(kept.term_at(index), expected, "mark at {at}, index {index}");
            }
            let mut dropped = outline(&terms);
            assert_eq!(dropped.mark(Position { term: 9, index: at }), Ok(false));
            assert_eq!(dropped.last_position(), Position { term: 9, index: at });
            assert!(dropped.runs().is_empty());
        }
        let mut beyond = outline(&terms);
        assert_eq!(beyond.mark(Position { term: 4, index: 7 }), Ok(false));
        assert_eq!(beyond.push(8, 4), Ok(()));
        assert_eq!(beyond.term_at(6), None);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut outline = outline(&[0, 1, 2]);
        assert!(outline.push(5, 2).is_err());
        assert!(outline.push(4, 1).is_err());
        assert!(outline.truncate(1).is_err());
        assert!(outline.truncate(4).is_err());
        assert_eq!(outline.truncate(2), Ok(()));
        assert_eq!(outline.last_position(), Position { term: 0, index: 1 });
        assert_eq!(outline.mark(Position { term: 0, index: 1 }), Ok(true));
        assert!(outline.mark(Position { term: 0, index: 1 }).is_err());
    }
}
