//! AppendEntries at a follower (§5.3): the consistency check, truncation on conflict and only then, acknowledgements.

use super::Raft;
use super::durability::Mark;
use crate::types::{AppendOutcome, Entry, Index, Message, Position, ServerId, Term, Time};

impl Raft {
    #[allow(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(super) fn on_append(
        &mut self,
        now: Time,
        from: ServerId,
        term: Term,
        number: u64,
        previous: Position,
        commit: Index,
        entries: Vec<Entry>,
    ) {
        if term < self.hard_state.term {
            // The term in the answer is what matters: it makes a leader that lost its place step down. The number must
            // not be repeated: by now its sender may lead this very term, and count its requests anew.
            let outcome = AppendOutcome::Conflict { previous: 0, hint: Position::default(), last: 0 };
            let term = self.hard_state.term;
            return self.send_after(Mark(0), from, Message::AppendReply { term, number: 0, outcome });
        }
        self.hear_leader(now, from);
        self.removed = None;
        let end = previous.index + entries.len() as u64;
        let base = self.log.base();
        if previous.index < base.index {
            // What a snapshot covers is committed, hence equal (§5.4.3): only what lies behind it is new.
            let entries: Vec<_> = entries.into_iter().filter(|entry| entry.index > base.index).collect();
            self.append_missing(entries);
            let matched = end.max(base.index);
            self.learn_commit(commit.min(matched));
            return self.acknowledge(from, number, matched);
        }
        if !self.log.holds(previous) {
            return self.conflict(from, number, previous);
        }
        self.append_missing(entries);
        self.learn_commit(commit.min(end));
        self.acknowledge(from, number, end);
    }

    /// Appends the entries that the log does not hold yet. Only where an entry *conflicts* (same index, other term) is
    /// the log cut: a request that came late, and is shorter than the log, undoes nothing (§5.3, Figure 2 "receiver
    /// implementation" 3).
    fn append_missing(&mut self, mut entries: Vec<Entry>) {
        let held = entries.iter().take_while(|entry| self.log.holds(entry.position())).count();
        let missing = entries.split_off(held);
        if let Some(first) = missing.first() {
            if first.index <= self.log.last().index {
                self.truncate(first.index);
            }
            self.append(missing);
        }
    }

    /// What a leader has committed, and this log holds equally, is committed here.
    pub(super) fn learn_commit(&mut self, commit: Index) {
        let commit = commit.min(self.log.last().index);
        self.commit = self.commit.max(commit);
    }

    /// Says that the log equals the leader's through `through`, once it is on disk that far.
    pub(super) fn acknowledge(&mut self, to: ServerId, number: u64, through: Index) {
        let outcome = AppendOutcome::Matched { through };
        let message = Message::AppendReply { term: self.hard_state.term, number, outcome };
        self.send_after(self.durability.mark_of(through), to, message);
    }

    fn conflict(&mut self, to: ServerId, number: u64, previous: Position) {
        let hint = self.log.last_at_most(previous);
        let outcome = AppendOutcome::Conflict { previous: previous.index, hint, last: self.log.last().index };
        self.send_after(Mark(0), to, Message::AppendReply { term: self.hard_state.term, number, outcome });
    }
}
