//! Where a group's entries lie in the log: runs of entries that one batch holds one after another.
//!
//! A run is 32 bytes whatever it holds, and costs the disk a 4 KiB block at least where the batch has nothing else; a
//! million entries written in batches of 256 take 125 KB.

use std::collections::{BTreeMap, VecDeque};

use super::segment::BLOCK_BYTES;
use crate::types::Index;

/// Where one entry lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// The segment's number.
    pub(super) segment: u32,
    /// Where its batch begins, in blocks of 4 KiB.
    pub(super) block: u32,
    /// The batch's length in blocks.
    pub(super) blocks: u32,
    /// Its row in the batch.
    pub(super) row: u32,
}

impl Place {
    /// Where the batch begins in its segment, in bytes.
    pub(super) fn offset(&self) -> u64 {
        u64::from(self.block) * BLOCK_BYTES
    }

    /// The batch's length in bytes.
    pub(super) fn batch_bytes(&self) -> usize {
        self.blocks as usize * BLOCK_BYTES as usize
    }

    /// Whether both lie in the same copy of the same batch.
    pub(super) fn is_same_batch(&self, other: &Self) -> bool {
        self.segment == other.segment && self.block == other.block
    }
}

/// Entries `first` to `first + count - 1`, in consecutive rows from `place` on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Run {
    pub(super) first: Index,
    pub(super) count: u32,
    pub(super) place: Place,
    /// What the entries cost in bytes, about (a run that was split shares it out evenly).
    pub(super) bytes: u32,
}

impl Run {
    /// The last index.
    pub(super) fn last(&self) -> Index {
        self.first + u64::from(self.count) - 1
    }

    /// The place of the entry at `index`, which is in the run.
    fn place_of(&self, index: Index) -> Place {
        Place { row: self.place.row + (index - self.first) as u32, ..self.place }
    }

    /// The part from `from` through `through`, both in the run.
    pub(super) fn part(&self, from: Index, through: Index) -> Self {
        let count = (through - from + 1) as u32;
        let bytes = u64::from(self.bytes) * u64::from(count) / u64::from(self.count.max(1));
        Self { first: from, count, place: self.place_of(from), bytes: bytes as u32 }
    }
}

/// How many live entries each segment holds.
#[derive(Debug, Default)]
pub(super) struct LiveEntries(BTreeMap<u32, u64>);

impl LiveEntries {
    /// Whether the segment holds none.
    pub(super) fn is_dead(&self, segment: u32) -> bool {
        !self.0.contains_key(&segment)
    }

    fn add(&mut self, run: &Run) {
        *self.0.entry(run.place.segment).or_default() += u64::from(run.count);
    }

    fn remove(&mut self, run: &Run) {
        let live = self.0.get_mut(&run.place.segment).expect("what is removed was added");
        *live -= u64::from(run.count);
        if *live == 0 {
            self.0.remove(&run.place.segment);
        }
    }
}

/// The runs of one group, ascending by index. Contiguous, but for gaps that recovery fills.
#[derive(Debug, Default)]
pub(super) struct Places {
    runs: VecDeque<Run>,
    bytes: u64,
}

impl Places {
    /// What all entries cost in bytes, about.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The runs, ascending.
    pub(super) fn runs(&self) -> impl DoubleEndedIterator<Item = &Run> + '_ {
        self.runs.iter()
    }

    /// The runs that hold entries from `from` through `through`, cut to these.
    pub(super) fn range(&self, from: Index, through: Index) -> impl Iterator<Item = Run> + '_ {
        let start = self.runs.partition_point(|run| run.last() < from);
        let hits = self.runs.range(start..).take_while(move |run| run.first <= through);
        hits.map(move |run| run.part(run.first.max(from), run.last().min(through)))
    }

    /// The place of one entry.
    pub(super) fn place(&self, index: Index) -> Option<Place> {
        let run = self.runs.get(self.runs.partition_point(|run| run.last() < index))?;
        (run.first <= index).then(|| run.place_of(index))
    }

    /// Appends entries behind all others.
    pub(super) fn push(&mut self, next: Run, live: &mut LiveEntries) {
        self.remember(&next, live);
        match self.runs.back_mut() {
            Some(run) if continues(run, &next) => {
                run.count += next.count;
                run.bytes = run.bytes.saturating_add(next.bytes);
            }
            last => {
                assert!(last.is_none_or(|run| run.last() < next.first), "entries are placed behind all others");
                self.runs.push_back(next);
            }
        }
    }

    /// Forgets the entries from `from` on.
    pub(super) fn truncate(&mut self, from: Index, live: &mut LiveEntries) {
        while let Some(run) = self.runs.pop_back_if(|run| run.last() >= from) {
            self.forget(&run, live);
            if run.first < from {
                let kept = run.part(run.first, from - 1);
                self.remember(&kept, live);
                self.runs.push_back(kept);
            }
        }
    }

    /// Forgets the entries through `through`.
    pub(super) fn compact(&mut self, through: Index, live: &mut LiveEntries) {
        while let Some(run) = self.runs.pop_front_if(|run| run.first <= through) {
            self.forget(&run, live);
            if run.last() > through {
                let kept = run.part(through + 1, run.last());
                self.remember(&kept, live);
                self.runs.push_front(kept);
            }
        }
    }

    /// Gives one entry a place, in place of the one that it has, if it has one.
    pub(super) fn set(&mut self, index: Index, place: Place, bytes: u32, live: &mut LiveEntries) {
        let mut at = self.runs.partition_point(|run| run.last() < index);
        if let Some(run) = self.runs.get(at).copied().filter(|run| run.first <= index) {
            self.runs.remove(at);
            self.forget(&run, live);
            if run.last() > index {
                let behind = run.part(index + 1, run.last());
                self.remember(&behind, live);
                self.runs.insert(at, behind);
            }
            if run.first < index {
                let before = run.part(run.first, index - 1);
                self.remember(&before, live);
                self.runs.insert(at, before);
                at += 1;
            }
        }
        let one = Run { first: index, count: 1, place, bytes };
        self.remember(&one, live);
        match at.checked_sub(1).and_then(|before| self.runs.get_mut(before)) {
            Some(run) if continues(run, &one) => {
                run.count += 1;
                run.bytes = run.bytes.saturating_add(bytes);
            }
            _ => self.runs.insert(at, one),
        }
    }

    /// Whether every entry from `from` through `through` has a place; the first that has none otherwise.
    pub(super) fn first_gap(&self, from: Index, through: Index) -> Option<Index> {
        let mut next = from;
        for run in self.range(from, through) {
            if run.first != next {
                break;
            }
            next = run.last() + 1;
        }
        (next <= through).then_some(next)
    }

    fn forget(&mut self, run: &Run, live: &mut LiveEntries) {
        live.remove(run);
        self.bytes -= u64::from(run.bytes).min(self.bytes);
    }

    fn remember(&mut self, run: &Run, live: &mut LiveEntries) {
        live.add(run);
        self.bytes += u64::from(run.bytes);
    }
}

fn continues(run: &Run, next: &Run) -> bool {
    run.last() + 1 == next.first && run.place.is_same_batch(&next.place) && run.place.row + run.count == next.place.row
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(segment: u32, block: u32, row: u32) -> Place {
        Place { segment, block, blocks: 1, row }
    }

    #[test]
    fn places_agree_with_a_plain_map() {
        let mut random = fastrand::Rng::with_seed(7);
        let (mut places, mut live, mut model) = (Places::default(), LiveEntries::default(), BTreeMap::new());
        let mut first = 1;
        for step in 0..3000_u32 {
            let last = model.keys().next_back().copied().unwrap_or(first - 1);
            match random.u32(0..10) {
                0..6 => {
                    let (mut row, rows) = (0, random.u32(1..6));
                    while row < rows {
                        let count = random.u32(1..=rows - row);
                        let first = last + 1 + u64::from(row);
                        let run = Run { first, count, place: place(step / 100, step, row), bytes: 64 * count };
                        places.push(run, &mut live);
                        for at in 0..count {
                            model.insert(first + u64::from(at), place(step / 100, step, row + at));
                        }
                        row += count;
                    }
                }
                6 if last >= first => {
                    let from = random.u64(first..=last).max(last.saturating_sub(8));
                    places.truncate(from, &mut live);
                    model.split_off(&from);
                }
                7 if last >= first => {
                    let through = random.u64(first..=last).min(first + 3);
                    places.compact(through, &mut live);
                    model = model.split_off(&(through + 1));
                    first = through + 1;
                }
                8 | 9 if last >= first => {
                    let from = random.u64(first..=last);
                    for row in 0..random.u64(1..5).min(last - from + 1) {
                        places.set(from + row, place(step / 100, step, row as u32), 64, &mut live);
                        model.insert(from + row, place(step / 100, step, row as u32));
                    }
                }
                _ => {}
            }
            let mut counts = BTreeMap::new();
            for index in first..=model.keys().next_back().copied().unwrap_or(first) + 1 {
                assert_eq!(places.place(index), model.get(&index).copied(), "step {step}, index {index}");
            }
            model.values().for_each(|place| *counts.entry(place.segment).or_default() += 1);
            assert_eq!(live.0, counts, "step {step}");
            let end = model.keys().next_back().copied().unwrap_or(first - 1);
            assert_eq!(places.first_gap(first, end), None);
        }
    }
}
