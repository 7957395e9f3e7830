//! Changes of members and hand-overs of leadership, as the host asks for them: who is added is met first, and whoever
//! asked is told the end.
//!
//! A leader appends nothing about a server that it has not met: the handshake tells which data directory answers at the
//! address, and the entry binds the id to it for ever.

use std::collections::BTreeMap;
use std::time::Duration;

use super::group::{Group, complete};
use super::{Driver, Effect, NotApplied, Outcome, Ticket, Unknown};
use crate::core::{ChangeEnd, ChangeRefusal, TransferRefusal};
use crate::types::{GroupId, Identity, Index, MemberChange, ServerId, Term, Time};

/// The longest address, in bytes.
pub(super) const MAX_ADDRESS_BYTES: usize = 512;

/// What a group's operator waits for.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Servers to be added are being met.
    meeting: Option<Meeting>,
    /// A change is in the log, in this term.
    waiting: Option<(Term, Ticket)>,
    /// Who wants it cancelled.
    cancelling: Vec<Ticket>,
    /// A hand-over is under way.
    transfer: Option<Transfer>,
}

/// A change that waits until everybody whom it adds has been met.
#[derive(Debug)]
struct Meeting {
    ticket: Ticket,
    changes: Vec<MemberChange>,
    deadline: Time,
}

/// A hand-over that this server began.
#[derive(Clone, Copy, Debug)]
struct Transfer {
    ticket: Ticket,
    term: Term,
    to: ServerId,
    deadline: Time,
}

impl Changes {
    /// When somebody has waited long enough.
    pub(super) fn deadline(&self) -> Time {
        let meeting = self.meeting.as_ref().map_or(Time::NEVER, |meeting| meeting.deadline);
        meeting.min(self.transfer.map_or(Time::NEVER, |transfer| transfer.deadline))
    }

    /// Servers that are to be met.
    pub(super) fn to_meet(&self) -> impl Iterator<Item = ServerId> + '_ {
        self.meeting.iter().flat_map(|meeting| added(&meeting.changes)).map(|(id, _)| id)
    }

    /// Ends everything that waits, as nothing will come of it here.
    pub(super) fn end_all(&mut self, id: GroupId, unknown: Unknown, why: &NotApplied, effects: &mut Vec<Effect>) {
        let not_begun: Vec<_> = self.meeting.take().map(|meeting| meeting.ticket).into_iter().collect();
        complete(id, not_begun, Outcome::NotApplied(why.clone()), effects);
        let mut begun = std::mem::take(&mut self.cancelling);
        begun.extend(self.waiting.take().map(|(_, ticket)| ticket));
        begun.extend(self.transfer.take().map(|transfer| transfer.ticket));
        complete(id, begun, Outcome::Unknown(unknown), effects);
    }
}

/// Whom these changes add, and where they are met.
fn added(changes: &[MemberChange]) -> impl Iterator<Item = (ServerId, &str)> {
    changes.iter().filter_map(|change| match change {
        MemberChange::Add { id, address, .. } => Some((*id, address.as_str())),
        _ => None,
    })
}

/// What the core need not check, since it never looks at it.
fn check(changes: &[MemberChange]) -> Result<(), String> {
    for change in changes {
        let (address, context) = match change {
            MemberChange::Add { id, .. } if id.0 == 0 => return Err("server id 0 is not an id: ids begin at 1".into()),
            MemberChange::Add { address, context, .. } => (Some(address), Some(context)),
            MemberChange::SetAddress { address, .. } => (Some(address), None),
            MemberChange::SetContext { context, .. } => (None, Some(context)),
            _ => (None, None),
        };
        if address.is_some_and(|address| address.is_empty() || address.len() > MAX_ADDRESS_BYTES) {
            return Err(format!("an address must have 1 to {MAX_ADDRESS_BYTES} bytes"));
        }
        if context.is_some_and(|context| context.len() > super::formation::MAX_CONTEXT_BYTES) {
            return Err(format!("a context is longer than {} bytes", super::formation::MAX_CONTEXT_BYTES));
        }
    }
    Ok(())
}

impl Driver {
    pub(super) fn on_change_members(
        &mut self,
        now: Time,
        id: GroupId,
        ticket: Ticket,
        changes: Vec<MemberChange>,
        patience: Duration,
    ) {
        if let Err(refusal) = self.may_ask(id).and_then(|()| check(&changes).map_err(NotApplied::Invalid)) {
            return complete(id, vec![ticket], Outcome::NotApplied(refusal), &mut self.effects);
        }
        let Some(group) = self.groups.get_mut(&id) else { return };
        let is_busy = group.changes.meeting.is_some() || group.changes.waiting.is_some();
        // What is refused in any case is refused before anybody is met.
        let refusal = match group.run(|raft| (raft.check_change(&changes), raft.leader())) {
            Some((Err(refusal), leader)) => Some(change_refused(refusal, leader)),
            Some((Ok(()), _)) => is_busy.then_some(NotApplied::Busy),
            None => Some(NotApplied::Closed),
        };
        if let Some(refusal) = refusal {
            return complete(id, vec![ticket], Outcome::NotApplied(refusal), &mut self.effects);
        }
        let to_meet: Vec<_> = added(&changes).map(|(id, address)| (id, address.to_owned())).collect();
        group.changes.meeting = Some(Meeting { ticket, changes, deadline: now + patience });
        for (peer, address) in to_meet {
            self.know_peer(peer, &address);
            self.dial_soon(peer);
        }
        self.begin_change_if_met(now, id);
    }

    /// Hands the change to the core if everybody whom it adds has been met.
    pub(super) fn begin_change_if_met(&mut self, now: Time, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(meeting) = &group.changes.meeting else { return };
        let met = |peer| Some((peer, self.links.met(peer)?.identity));
        let Some(identities) = added(&meeting.changes).map(|(peer, _)| met(peer)).collect() else { return };
        let identities: BTreeMap<ServerId, Identity> = identities;
        let Some(Meeting { ticket, changes, deadline }) = group.changes.meeting.take() else { return };
        let patience = deadline.since(now);
        let begun = group.run(|raft| {
            let begun = raft.change_members(now, &changes, &identities, patience);
            (begun, raft.hard_state().term, raft.leader())
        });
        let refusal = match begun {
            Some((Ok(()), term, _)) => return group.changes.waiting = Some((term, ticket)),
            Some((Err(refusal), _, leader)) => change_refused(refusal, leader),
            None => NotApplied::Closed,
        };
        complete(id, vec![ticket], Outcome::NotApplied(refusal), &mut self.effects);
    }

    pub(super) fn on_cancel_change(&mut self, now: Time, id: GroupId, ticket: Ticket) {
        if let Err(refusal) = self.may_ask(id) {
            return complete(id, vec![ticket], Outcome::NotApplied(refusal), &mut self.effects);
        }
        let Some(group) = self.groups.get_mut(&id) else { return };
        if let Some(meeting) = group.changes.meeting.take() {
            self.links.are_stale = true;
            let index = group.formed().map_or(0, |formed| formed.raft.configuration_at(Index::MAX).0);
            complete(id, vec![meeting.ticket], Outcome::NotApplied(NotApplied::Cancelled), &mut self.effects);
            return complete(id, vec![ticket], Outcome::ChangeCancelled { index }, &mut self.effects);
        }
        let refusal = match group.run(|raft| (raft.cancel_change(now), raft.leader())) {
            Some((Ok(()), _)) => return group.changes.cancelling.push(ticket),
            Some((Err(refusal), leader)) => change_refused(refusal, leader),
            None => NotApplied::Closed,
        };
        complete(id, vec![ticket], Outcome::NotApplied(refusal), &mut self.effects);
    }

    /// A change has ended, by the entry at `index`.
    pub(super) fn change_ended(&mut self, id: GroupId, index: Index, end: ChangeEnd) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let waiting = group.changes.waiting.take().map(|(_, ticket)| ticket).into_iter().collect();
        let cancelling = std::mem::take(&mut group.changes.cancelling);
        let (change, cancel) = match end {
            ChangeEnd::Done => {
                let why = "the change was done before it could be cancelled";
                (Outcome::MembersChanged { index }, Outcome::NotApplied(NotApplied::Invalid(why.into())))
            }
            ChangeEnd::GivenUp => {
                let why = "those who are to vote did not catch up in time: whom the change added is gone again";
                (Outcome::NotApplied(NotApplied::GivenUp(why.into())), Outcome::ChangeCancelled { index })
            }
            ChangeEnd::Cancelled => (Outcome::NotApplied(NotApplied::Cancelled), Outcome::ChangeCancelled { index }),
        };
        complete(id, waiting, change, &mut self.effects);
        complete(id, cancelling, cancel, &mut self.effects);
    }

    /// A server that is to be added cannot be: the change is refused at once.
    pub(super) fn meeting_refused(&mut self, peer: ServerId, reason: &str) {
        let is_meant = |group: &&Group| group.changes.to_meet().any(|id| id == peer);
        let meant: Vec<_> = self.groups.values().filter(is_meant).map(|group| group.id).collect();
        for id in meant {
            if let Some(meeting) = self.groups.get_mut(&id).and_then(|group| group.changes.meeting.take()) {
                self.links.are_stale = true;
                let why = NotApplied::Invalid(format!("server {peer} cannot be added: {reason}"));
                complete(id, vec![meeting.ticket], Outcome::NotApplied(why), &mut self.effects);
            }
        }
    }

    pub(super) fn on_transfer_leadership(
        &mut self,
        now: Time,
        id: GroupId,
        ticket: Ticket,
        to: Option<ServerId>,
        patience: Duration,
    ) {
        if let Err(refusal) = self.may_ask(id) {
            return complete(id, vec![ticket], Outcome::NotApplied(refusal), &mut self.effects);
        }
        let Some(group) = self.groups.get_mut(&id) else { return };
        let begun = group.run(|raft| (raft.transfer(now, to, patience), raft.hard_state().term, raft.leader()));
        let refusal = match begun {
            Some((Ok(to), term, _)) if group.changes.transfer.is_none() => {
                // The core gives up first, where it still leads.
                let deadline = now + patience + self.settings.election_timeout;
                return group.changes.transfer = Some(Transfer { ticket, term, to, deadline });
            }
            Some((Ok(_), ..)) => NotApplied::Busy,
            Some((Err(TransferRefusal::NotLeader), _, leader)) => NotApplied::NotLeader { leader },
            Some((Err(TransferRefusal::InProgress), ..)) => NotApplied::Busy,
            Some((Err(refusal), ..)) => NotApplied::Invalid(refusal.to_string()),
            None => NotApplied::Closed,
        };
        complete(id, vec![ticket], Outcome::NotApplied(refusal), &mut self.effects);
    }

    pub(super) fn transfer_given_up(&mut self, id: GroupId, to: ServerId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(transfer) = group.changes.transfer.take_if(|transfer| transfer.to == to) else { return };
        let why = format!("server {to} did not take over in time: this server goes on leading");
        let outcome = Outcome::NotApplied(NotApplied::GivenUp(why));
        complete(id, vec![transfer.ticket], outcome, &mut self.effects);
    }

    /// Looks whether what an operator waits for has come, or can come no more.
    pub(super) fn resolve_changes(&mut self, now: Time, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(formed) = group.formed() else { return };
        let (leader, term, is_leader) = (formed.raft.leader(), formed.raft.hard_state().term, formed.raft.is_leader());
        let changes = &mut group.changes;
        let effects = &mut self.effects;
        if let Some(meeting) = changes.meeting.take_if(|meeting| !is_leader || now >= meeting.deadline) {
            self.links.are_stale = true;
            let absent: Vec<_> = added(&meeting.changes)
                .filter(|(peer, _)| self.links.met(*peer).is_none())
                .map(|(peer, address)| format!("server {peer} was not met at {address}"))
                .collect();
            let why = if is_leader { NotApplied::GivenUp(absent.join("; ")) } else { NotApplied::NotLeader { leader } };
            complete(id, vec![meeting.ticket], Outcome::NotApplied(why), effects);
        }
        if let Some((_, ticket)) = changes.waiting.take_if(|(begun, _)| !is_leader || *begun != term) {
            complete(id, vec![ticket], Outcome::Unknown(Unknown::LeadershipLost), effects);
        }
        if !is_leader {
            let cancelling = std::mem::take(&mut changes.cancelling);
            complete(id, cancelling, Outcome::Unknown(Unknown::LeadershipLost), effects);
        }
        let is_over = |transfer: &mut Transfer| (term > transfer.term && leader.is_some()) || now >= transfer.deadline;
        if let Some(Transfer { ticket, to, .. }) = changes.transfer.take_if(is_over) {
            let outcome = match leader {
                Some(leader) if leader == to => Outcome::LeadershipTransferred { to },
                Some(other) => {
                    Outcome::NotApplied(NotApplied::GivenUp(format!("server {other} was elected, and not {to}")))
                }
                None => Outcome::Unknown(Unknown::LeadershipLost),
            };
            complete(id, vec![ticket], outcome, effects);
        }
    }

    /// Whether a group can be asked for something at all.
    pub(super) fn may_ask(&self, id: GroupId) -> Result<(), NotApplied> {
        let is_closed = self.is_closed || self.stopped.is_some();
        match self.groups.get(&id) {
            Some(Group { stopped: None, .. }) if is_closed => Err(NotApplied::Closed),
            None | Some(Group { stopped: Some(_), .. }) => Err(NotApplied::Closed),
            Some(group) if group.formed().is_none() => Err(NotApplied::Forming),
            Some(_) => Ok(()),
        }
    }
}

fn change_refused(refusal: ChangeRefusal, leader: Option<ServerId>) -> NotApplied {
    match refusal {
        ChangeRefusal::NotLeader => NotApplied::NotLeader { leader },
        ChangeRefusal::NotReady | ChangeRefusal::InProgress => NotApplied::Busy,
        ChangeRefusal::NothingToCancel | ChangeRefusal::TooLate | ChangeRefusal::Invalid(_) => {
            NotApplied::Invalid(refusal.to_string())
        }
    }
}
