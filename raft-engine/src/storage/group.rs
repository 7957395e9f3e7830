//! What the writer keeps of one group: its log as appended, what of it is durable, and where its entries lie.

use std::collections::VecDeque;

use super::outline::LogOutline;
use super::places::Places;
use super::record::RecordNumber;
use super::snapshot_file::SnapshotKey;
use crate::types::{Entry, Index, Position};

/// Entries appended one after another and not durable yet; the last one has the record number `through`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Span {
    first: Index,
    last: Index,
    through: u64,
}

/// One group's log.
#[derive(Debug, Default)]
pub(super) struct GroupLog {
    /// The log with everything appended, cut or not.
    pub(super) appended: LogOutline,
    /// What of `appended` is not durable, ascending.
    spans: VecDeque<Span>,
    /// The last entry whose present copy is durable, and every one before it.
    durable: Index,
    /// Entries below have left the log.
    pub(super) readable_from: Index,
    /// Where the entries that were cut into writes lie.
    pub(super) places: Places,
    /// The latest snapshot whose mark is durable.
    pub(super) marked: Option<SnapshotKey>,
}

impl GroupLog {
    /// The log as recovery found it: all of it will be durable.
    pub(super) fn recovered(outline: LogOutline, places: Places, marked: Option<SnapshotKey>) -> Self {
        Self {
            durable: outline.last(),
            readable_from: outline.snapshot().index + 1,
            appended: outline,
            places,
            marked,
            ..Self::default()
        }
    }

    /// The last entry whose present copy is durable, and every one before it.
    pub(super) fn durable(&self) -> Index {
        self.durable
    }

    /// Appends entries, the last of which gets the number `through`.
    pub(super) fn append(&mut self, entries: &[Entry], through: RecordNumber) -> Result<(), String> {
        for entry in entries {
            self.appended.push(entry.index, entry.term)?;
        }
        if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
            self.spans.push_back(Span { first: first.index, last: last.index, through: through.0 });
        }
        Ok(())
    }

    /// Drops the entries from `from` on: whatever of them is on its way to the disk counts for nothing from here on,
    /// also where the same index and term come back.
    pub(super) fn truncate(&mut self, from: Index) -> Result<(), String> {
        self.appended.truncate(from)?;
        while let Some(span) = self.spans.pop_back_if(|span| span.last >= from) {
            if span.first < from {
                let last = from - 1;
                self.spans.push_back(Span { last, through: span.through - (span.last - last), ..span });
            }
        }
        self.durable = self.durable.min(from - 1);
        Ok(())
    }

    /// Marks a snapshot, by the record `number`. `Ok(false)`: nothing of the log before is left.
    pub(super) fn mark(&mut self, position: Position, number: RecordNumber) -> Result<bool, String> {
        let keeps = self.appended.mark(position)?;
        if !keeps {
            self.spans.clear();
            self.spans.push_back(Span { first: position.index, last: position.index, through: number.0 });
            self.durable = self.marked.map_or(0, |marked| marked.index);
            self.readable_from = position.index + 1;
        }
        Ok(keeps)
    }

    /// Every record through `through` is durable.
    pub(super) fn written(&mut self, through: RecordNumber) {
        while let Some(span) = self.spans.front_mut() {
            if span.through <= through.0 {
                self.durable = span.last;
                self.spans.pop_front();
                continue;
            }
            let missing = span.through - through.0;
            if missing <= span.last - span.first {
                self.durable = span.last - missing;
                span.first = self.durable + 1;
            }
            break;
        }
    }
}
