//! From the commit index to the state machine: batches of committed entries, in log order, no further than the own disk;
//! and reads, which wait for an index to be applied.

use super::forwarding::Reader;
use super::group::{Pending, complete};
use super::{Consistency, Driver, Effect, Event, NotApplied, Notice, Outcome, Proposal, ReadPurpose, Ticket, Unknown};
use crate::core::Refusal;
use crate::types::{Entry, GroupId, Index, ServerId, Time};

/// One batch for the state machine, in bytes, about.
const BATCH_BYTES: usize = 1 << 20;

/// What the state machine may have been given and not applied, in bytes.
const OUTSTANDING_BYTES: usize = 4 << 20;

impl Driver {
    pub(super) fn on_propose(&mut self, now: Time, id: GroupId, mut proposals: Vec<Proposal>) {
        let max_entry_bytes = self.settings.max_entry_bytes;
        let too_large = proposals.extract_if(.., |proposal| proposal.proposed.command_bytes() > max_entry_bytes);
        let too_large = too_large.map(|proposal| proposal.ticket).collect();
        complete(id, too_large, Outcome::NotApplied(NotApplied::TooLarge), &mut self.effects);
        if proposals.is_empty() {
            return;
        }
        if self.forwards(id) {
            return self.forward_proposals(id, proposals);
        }
        let (tickets, proposed): (Vec<Ticket>, Vec<_>) =
            proposals.into_iter().map(|proposal| (proposal.ticket, proposal.proposed)).unzip();
        let refusal = match self.groups.get_mut(&id) {
            None => NotApplied::Closed,
            Some(group) if self.is_closed || self.stopped.is_some() || group.stopped.is_some() => NotApplied::Closed,
            Some(group) if group.formed().is_none() => NotApplied::Forming,
            Some(_) if !self.storage.has_room() => NotApplied::DiskFull,
            Some(group) => match group.run(|raft| (raft.propose(now, proposed), raft.hard_state().term, raft.leader()))
            {
                Some((Ok(indexes), term, _)) => {
                    let pending = indexes.zip(tickets).map(|(index, ticket)| Pending { index, term, ticket });
                    group.proposals.extend(pending);
                    return;
                }
                Some((Err(Refusal::NotLeader), _, leader)) => NotApplied::NotLeader { leader },
                Some((Err(Refusal::Overloaded), ..)) => NotApplied::Overloaded,
                Some((Err(Refusal::Transferring), ..)) => NotApplied::Transferring,
                None => NotApplied::Closed,
            },
        };
        complete(id, tickets, Outcome::NotApplied(refusal), &mut self.effects);
    }

    pub(super) fn on_read(&mut self, now: Time, id: GroupId, ticket: Ticket, consistency: Consistency) {
        if matches!(consistency, Consistency::Linearizable | Consistency::Lease) && self.forwards(id) {
            return self.forward_read(id, ticket);
        }
        let is_closed = self.is_closed || self.stopped.is_some();
        let refusal = match self.groups.get_mut(&id) {
            None => NotApplied::Closed,
            Some(group) if is_closed || group.stopped.is_some() => NotApplied::Closed,
            Some(group) if group.formed().is_none() => NotApplied::Forming,
            Some(group) => {
                let by_lease = match consistency {
                    Consistency::Lease => group.run(|raft| raft.read_by_lease(now)).flatten(),
                    _ => None,
                };
                let index = match consistency {
                    _ if let Some(index) = by_lease => index,
                    Consistency::Stale => 0,
                    Consistency::AtLeast(index) => index,
                    Consistency::Linearizable | Consistency::Lease => {
                        let read = group.next_read;
                        match group.run(|raft| (raft.read(read), raft.leader())) {
                            Some((Ok(()), _)) => {
                                group.next_read += 1;
                                group.reads.insert(read, Reader::Host(ticket));
                                return;
                            }
                            Some((Err(_), leader)) => {
                                let outcome = Outcome::NotApplied(NotApplied::NotLeader { leader });
                                return complete(id, vec![ticket], outcome, &mut self.effects);
                            }
                            None => {
                                return complete(
                                    id,
                                    vec![ticket],
                                    Outcome::NotApplied(NotApplied::Closed),
                                    &mut self.effects,
                                );
                            }
                        }
                    }
                };
                return self.effects.push(Effect::ReadReady { group: id, ticket, index });
            }
        };
        complete(id, vec![ticket], Outcome::NotApplied(refusal), &mut self.effects);
    }

    /// Gives the state machine what is committed and on this server's disk, as long as it keeps up.
    pub(super) fn deliver(&mut self, id: GroupId) {
        loop {
            let Some(group) = self.groups.get_mut(&id) else { return };
            let delivery = &group.delivery;
            let is_busy = delivery.is_restoring || delivery.is_reading;
            if is_busy || self.is_closed || delivery.outstanding_bytes >= OUTSTANDING_BYTES {
                return;
            }
            match group.run(|raft| raft.deliverable(BATCH_BYTES)) {
                None => return,
                Some(Ok(entries)) if entries.is_empty() => return,
                Some(Ok(entries)) => self.deliver_entries(id, entries),
                Some(Err((from, through))) => {
                    group.delivery.is_reading = true;
                    let token = self.reads.begin(ReadPurpose::Apply(id));
                    return self.storage.read_entries(token, id, from, through, BATCH_BYTES);
                }
            }
        }
    }

    /// Committed entries came back from the log.
    pub(super) fn entries_to_deliver(&mut self, id: GroupId, entries: Vec<Entry>) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.delivery.is_reading = false;
        let next = group.formed().map(|formed| formed.raft.delivered_index() + 1);
        if entries.first().map(|entry| entry.index) == next && !group.delivery.is_restoring && !self.is_closed {
            self.deliver_entries(id, entries);
        }
    }

    fn deliver_entries(&mut self, id: GroupId, mut entries: Vec<Entry>) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        if let Some(end) = entries.iter().position(|entry| entry.kind.ends_batch()) {
            entries.truncate(end + 1);
        }
        let Some(last) = entries.last() else { return };
        let (first, last, log_time) = (entries[0].index, last.index, last.log_time);
        if group.run(|raft| raft.delivered(last)).is_none() {
            return;
        }
        let mut tickets = Vec::new();
        while let Some(pending) = group.proposals.pop_front_if(|pending| pending.index <= last) {
            let at = (pending.index.wrapping_sub(first)) as usize;
            if entries.get(at).is_some_and(|entry| entry.term == pending.term) {
                tickets.push((at as u32, pending.ticket));
            } else {
                let outcome = Outcome::Unknown(Unknown::LeadershipLost);
                complete(id, vec![pending.ticket], outcome, &mut self.effects);
            }
        }
        let bytes = entries.iter().map(Entry::cost_bytes).sum();
        group.delivery.outstanding.push_back((last, bytes));
        group.delivery.outstanding_bytes += bytes;
        group.delivery.log_time = Some(log_time);
        let digest_entry = entries.last().filter(|entry| entry.kind.ends_batch()).cloned();
        self.effects.push(Effect::Apply { group: id, entries, tickets });
        if let Some(entry) = digest_entry {
            self.digest_entry_delivered(id, &entry);
        }
    }

    pub(super) fn on_applied(&mut self, id: GroupId, index: Index) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let delivery = &mut group.delivery;
        while let Some((_, bytes)) = delivery.outstanding.pop_front_if(|(last, _)| *last <= index) {
            delivery.outstanding_bytes -= bytes;
        }
        delivery.applied = delivery.applied.max(index);
    }

    /// The leadership under which proposals were taken has ended, this server's or another's: those that are committed
    /// will be applied, what becomes of the others is not known here.
    pub(super) fn resolve_proposals(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(last) = group.proposals.back().copied() else { return };
        let Some(formed) = group.formed() else { return };
        let raft = &formed.raft;
        if raft.leader().is_some() && raft.hard_state().term == last.term {
            return;
        }
        let (commit, raft) = (raft.commit_index(), &formed.raft);
        let is_sure = |pending: &Pending| {
            pending.index <= commit && raft.term_at(pending.index).is_some_and(|term| term == pending.term)
        };
        let (kept, lost): (Vec<_>, Vec<_>) = group.proposals.iter().copied().partition(is_sure);
        group.proposals = kept.into();
        let lost = lost.into_iter().map(|pending| pending.ticket).collect();
        complete(id, lost, Outcome::Unknown(Unknown::LeadershipLost), &mut self.effects);
    }

    /// Stops one group: the rest of the server goes on.
    pub(super) fn stop_group(&mut self, id: GroupId, reason: String) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.stopped.get_or_insert_with(|| reason.clone());
        group.end_all(Unknown::Stopped, &NotApplied::Failed(reason), &mut self.effects);
        self.end_streams(id);
    }

    pub(super) fn read_answered(&mut self, id: GroupId, read: u64, answer: Result<Index, Option<ServerId>>) {
        let reader = self.groups.get_mut(&id).and_then(|group| group.reads.remove(&read));
        match (reader, answer) {
            (Some(Reader::Peer { id: to, connection, request }), answer) => {
                self.answer_reader(id, to, connection, request, answer.ok());
            }
            (Some(Reader::Host(ticket)), Ok(index)) => {
                self.effects.push(Effect::ReadReady { group: id, ticket, index });
            }
            (Some(Reader::Host(ticket)), Err(leader)) => {
                let outcome = Outcome::NotApplied(NotApplied::NotLeader { leader });
                complete(id, vec![ticket], outcome, &mut self.effects);
            }
            (None, _) => {}
        }
    }

    /// The host's state machine failed: the group stops where it is, and says so.
    pub(super) fn on_host_failure(&mut self, event: Event) {
        match event {
            Event::ApplyFailed { group, index, message } => {
                self.stop_group(group, format!("apply of entry {index} failed: {message}"));
            }
            Event::RestoreFailed { group, message } => self.stop_group(group, format!("restore failed: {message}")),
            _ => self.effects.push(Effect::Notice(Notice::Warning { message: "an unexpected failure".into() })),
        }
    }
}
