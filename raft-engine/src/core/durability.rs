//! What is on this server's own disk, and which messages wait for it.
//!
//! The rule (§5.2, §5.3; "respond to RPCs only after updating stable storage", Figure 2): a vote, a term or an
//! acknowledgement leaves only after the bytes it stands on are durable. Every record that the core asks to persist gets
//! a [`Mark`]; marks become durable in order. A message stands on a mark and is held until it is reached.

use std::collections::VecDeque;

use crate::types::{Index, Message, ServerId};

/// The place of a record in the order of one core's records. Grows by one, is never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Mark(pub u64);

/// The state of this server's own disk, as far as its group goes.
#[derive(Clone, Debug)]
pub(super) struct Durability {
    /// The last mark given out.
    pub(super) issued: Mark,
    /// The last mark whose record, and every one before it, is durable.
    pub(super) persisted: Mark,
    /// The mark of the latest term and vote. No message of this term leaves before it.
    pub(super) hard_state: Mark,
    /// Appends not yet durable: the mark, and the last index that *this copy* brings. Both ascend: a truncation lowers
    /// the indexes of those it undoes, so that their late completion counts for nothing.
    pub(super) appends: VecDeque<(Mark, Index)>,
    /// The last index whose present copy is durable.
    pub(super) durable: Index,
    /// Messages that wait, in the order in which they were said.
    pub(super) held: VecDeque<(Mark, ServerId, Message)>,
}

impl Durability {
    /// All of the log through `durable` was found on disk.
    pub(super) fn new(durable: Index) -> Self {
        Self {
            issued: Mark(0),
            persisted: Mark(0),
            hard_state: Mark(0),
            appends: VecDeque::new(),
            durable,
            held: VecDeque::new(),
        }
    }

    /// The last index whose present copy, and everything before it, is durable.
    pub(super) fn durable(&self) -> Index {
        self.durable
    }

    /// Whether records wait for the disk.
    pub(super) fn is_waiting(&self) -> bool {
        self.persisted < self.issued
    }

    /// The mark of a record that changes no entry.
    pub(super) fn next_mark(&mut self) -> Mark {
        self.issued.0 += 1;
        self.issued
    }

    /// The mark of a new term and vote.
    pub(super) fn record_hard_state(&mut self) -> Mark {
        self.hard_state = self.next_mark();
        self.hard_state
    }

    /// The mark of an append that ends at `last`.
    pub(super) fn record_append(&mut self, last: Index) -> Mark {
        let mark = self.next_mark();
        debug_assert!(self.appends.back().is_none_or(|&(_, before)| before < last));
        self.appends.push_back((mark, last));
        mark
    }

    /// The mark of a truncation: copies from `from` on are no longer the present ones, whenever they reach the disk,
    /// even if entries of the same index and term come back.
    pub(super) fn record_truncation(&mut self, from: Index) -> Mark {
        self.durable = self.durable.min(from - 1);
        for (_, last) in &mut self.appends {
            *last = (*last).min(from - 1);
        }
        self.next_mark()
    }

    /// The mark of a snapshot that takes the place of the whole log, of which `kept` is the last index that stays true.
    pub(super) fn record_snapshot(&mut self, kept: Index, last: Index) -> Mark {
        self.durable = self.durable.min(kept);
        self.appends.clear();
        self.record_append(last)
    }

    /// What a message stands on that speaks of the log through `through`.
    pub(super) fn mark_of(&self, through: Index) -> Mark {
        if through <= self.durable {
            return Mark(0);
        }
        let covering = self.appends.iter().find(|&&(_, last)| last >= through);
        covering.map_or(self.issued, |&(mark, _)| mark)
    }

    /// Takes a message that stands on `mark`, and on the term. Returns it if it may leave at once.
    pub(super) fn hold(&mut self, mark: Mark, to: ServerId, message: Message) -> Option<Message> {
        let mark = mark.max(self.hard_state);
        if mark <= self.persisted {
            return Some(message);
        }
        self.held.push_back((mark, to, message));
        None
    }

    /// Everything through `mark` is durable. Returns the messages that may leave.
    ///
    /// Of several acknowledgements to one leader in one term only the last leaves: it covers the others.
    pub(super) fn persisted(&mut self, mark: Mark) -> Vec<(ServerId, Message)> {
        assert!(mark <= self.issued, "the disk completed a record that was never asked for: {mark:?}");
        if mark <= self.persisted {
            return Vec::new();
        }
        self.persisted = mark;
        while let Some(&(_, last)) = self.appends.front().filter(|&&(append, _)| append <= mark) {
            self.durable = self.durable.max(last);
            self.appends.pop_front();
        }
        let mut released: Vec<(ServerId, Message)> = Vec::new();
        let mut waiting = VecDeque::new();
        for (held, to, message) in self.held.drain(..) {
            if held > mark {
                waiting.push_back((held, to, message));
            } else if let Some(last) =
                released.last_mut().filter(|(earlier, last)| *earlier == to && covers(&message, last))
            {
                last.1 = message;
            } else {
                released.push((to, message));
            }
        }
        self.held = waiting;
        released
    }

    /// Drops acknowledgements of entries that wait: what they would say belongs to an earlier term, or to copies that
    /// are gone.
    pub(super) fn drop_acknowledgements(&mut self) {
        self.held.retain(|(_, _, message)| !matches!(message, Message::AppendReply { .. }));
    }
}

/// Whether `later` says everything that `earlier` said.
fn covers(later: &Message, earlier: &Message) -> bool {
    use crate::types::AppendOutcome::Matched;
    match (later, earlier) {
        (
            Message::AppendReply { term, number, outcome: Matched { through } },
            Message::AppendReply {
                term: earlier_term,
                number: earlier_number,
                outcome: Matched { through: earlier_through },
            },
        ) => term == earlier_term && number >= earlier_number && through >= earlier_through,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::AppendOutcome::Matched;

    fn acknowledgement(number: u64, through: Index) -> Message {
        Message::AppendReply { term: 1, number, outcome: Matched { through } }
    }

    #[test]
    fn records_wait_until_the_last_of_them_is_durable() {
        let mut disk = Durability::new(5);
        assert!(!disk.is_waiting());
        let (first, second) = (disk.next_mark(), disk.next_mark());
        disk.persisted(first);
        assert!(disk.is_waiting());
        disk.persisted(second);
        assert!(!disk.is_waiting());
    }

    #[test]
    fn what_was_durable_and_is_truncated_is_durable_no_more() {
        let mut disk = Durability::new(10);
        disk.record_truncation(8);
        assert_eq!(disk.durable(), 7);
    }

    #[test]
    fn an_entry_is_durable_through_the_write_that_holds_its_present_copy() {
        let mut disk = Durability::new(5);
        let first = disk.record_append(10);
        disk.record_truncation(8);
        let again = disk.record_append(10);
        disk.persisted(first);
        assert_eq!(disk.durable(), 7, "the late completion of the truncated copy counts for nothing beyond the cut");
        disk.persisted(again);
        assert_eq!(disk.durable(), 10);
    }

    #[test]
    fn an_acknowledgement_waits_for_its_entries_and_one_serves_several() {
        let mut disk = Durability::new(0);
        let first = disk.record_append(3);
        assert_eq!(disk.hold(disk.mark_of(3), ServerId(1), acknowledgement(1, 3)), None);
        let second = disk.record_append(6);
        assert_eq!(disk.hold(disk.mark_of(6), ServerId(1), acknowledgement(2, 6)), None);
        assert_eq!(disk.mark_of(2), first);
        assert_eq!(disk.persisted(second), vec![(ServerId(1), acknowledgement(2, 6))]);
    }

    #[test]
    fn an_acknowledgement_takes_the_place_of_those_alone_that_it_covers() {
        let in_term = |term, number, through| Message::AppendReply { term, number, outcome: Matched { through } };
        assert!(covers(&in_term(1, 2, 6), &in_term(1, 1, 3)));
        assert!(covers(&in_term(1, 2, 6), &in_term(1, 2, 6)));
        for (later, earlier) in [((2, 2, 6), (1, 1, 3)), ((1, 1, 6), (1, 2, 3)), ((1, 2, 3), (1, 1, 6))] {
            let message = |(term, number, through)| in_term(term, number, through);
            assert!(!covers(&message(later), &message(earlier)), "{later:?} for {earlier:?}");
        }

        let mut disk = Durability::new(0);
        let mark = disk.record_append(6);
        let refusal = Message::VoteReply { term: 1, granted: false };
        let said = [
            (ServerId(1), acknowledgement(1, 3)),
            (ServerId(2), acknowledgement(2, 6)),
            (ServerId(2), refusal.clone()),
            (ServerId(2), refusal),
        ];
        for (to, message) in said.clone() {
            assert_eq!(disk.hold(mark, to, message), None);
        }
        assert_eq!(disk.persisted(mark), said, "to somebody else, or something else");
    }

    #[test]
    fn nothing_of_a_term_leaves_before_the_term_is_durable() {
        let mut disk = Durability::new(9);
        let mark = disk.record_hard_state();
        let reply = Message::VoteReply { term: 4, granted: false };
        assert_eq!(disk.hold(Mark(0), ServerId(2), reply.clone()), None);
        assert_eq!(disk.persisted(mark), vec![(ServerId(2), reply)]);
    }
}
