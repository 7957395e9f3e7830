//! What the host of a follower or learner asks of the leader: proposals to append, and what a linearizable read must cover.
//!
//! Everything is asked once and never again: what was lost on the way to the leader and what was lost on the way back
//! look the same from here. So it goes over one *route*, the two connections between the two servers in one term of the
//! leader, and whatever has no answer when any of that changes ends here: proposals as unknown, reads as not applied,
//! since a read changes nothing. A proposal that the leader took has its place in the log from the answer, and from then
//! on waits with the rest for the own state machine.

use std::collections::BTreeMap;

use super::group::{Group, Pending, complete};
use super::{ConnectionId, Driver, Effect, NotApplied, Outcome, Proposal, Ticket, Unknown};
use crate::core::Refusal;
use crate::transport::{Connection, ForwardAnswer, ForwardRefusal, PeerMessage, Purpose, RequestId};
use crate::types::{Entry, GroupId, Index, Position, Proposed, ServerId, Term, Time};

/// Proposals of one message, in bytes, so that it fits a frame; a longer proposal goes alone.
const MESSAGE_BYTES: usize = 96 << 10;

/// The way to a leader and back. Where any of it changes, it is another way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Route {
    leader: ServerId,
    /// The term in which it leads.
    term: Term,
    /// Our connection to it.
    there: ConnectionId,
    /// Its connection to us: answers come here.
    back: ConnectionId,
}

/// Proposals that the leader was asked to append in one message.
#[derive(Debug)]
struct Forward {
    tickets: Vec<Ticket>,
    bytes: usize,
}

/// What one group of this server asks of its leader.
#[derive(Debug, Default)]
pub(super) struct Forwarding {
    /// Proposals of this turn.
    fresh: Vec<Proposal>,
    /// Reads of this turn: they go together.
    fresh_reads: Vec<Ticket>,
    /// The route that everything below was sent over.
    route: Option<Route>,
    /// Sent and not answered, by number.
    proposals: BTreeMap<u64, Forward>,
    reads: BTreeMap<u64, Vec<Ticket>>,
    /// Of proposals that are fresh, or have no answer.
    bytes: usize,
    /// Numbers are never used again.
    last_number: u64,
}

/// Who wants to know what a read must cover.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reader {
    /// The host.
    Host(Ticket),
    /// A follower, which asked on this connection.
    Peer { id: ServerId, connection: ConnectionId, request: RequestId },
}

/// How often what became of forwards, since the open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ForwardCounts {
    /// Proposals that a leader took.
    pub taken: u64,
    /// Proposals that a leader refused.
    pub refused: u64,
    /// Proposals without an answer when a connection, the leader or its term changed.
    pub broken: u64,
    /// Proposals whose answer named what was applied already.
    pub late: u64,
    /// Reads for which a leader said what they must cover.
    pub reads: u64,
}

impl Forwarding {
    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn is_idle(&self) -> bool {
        self.fresh.is_empty() && self.fresh_reads.is_empty() && self.proposals.is_empty() && self.reads.is_empty()
    }

    /// Of what is fresh, or has no answer, in bytes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The last number given to a request.
    #[cfg(test)]
    pub(super) fn last_number(&self) -> u64 {
        self.last_number
    }

    /// Takes what has no answer out: tickets of proposals, and of reads.
    fn take_unanswered(&mut self) -> (Vec<Ticket>, Vec<Ticket>) {
        let forwards = std::mem::take(&mut self.proposals).into_values();
        let proposals = forwards.flat_map(|forward| {
            self.bytes -= forward.bytes;
            forward.tickets
        });
        (proposals.collect(), std::mem::take(&mut self.reads).into_values().flatten().collect())
    }

    /// Ends everything, as nothing will come of it here. What was not sent is certainly in no log.
    pub(super) fn end_all(
        &mut self,
        id: GroupId,
        unknown: Unknown,
        not_applied: &NotApplied,
        effects: &mut Vec<Effect>,
    ) {
        let (proposals, mut rest) = self.take_unanswered();
        complete(id, proposals, Outcome::Unknown(unknown), effects);
        self.bytes = 0;
        rest.append(&mut self.fresh_reads);
        rest.extend(self.fresh.drain(..).map(|proposal| proposal.ticket));
        complete(id, rest, Outcome::NotApplied(not_applied.clone()), effects);
    }
}

fn cost_bytes(proposal: &Proposal) -> usize {
    proposal.proposed.payload.len() + Entry::OVERHEAD_BYTES
}

fn leader_of(group: &Group) -> Option<ServerId> {
    group.formed().and_then(|formed| formed.raft.leader())
}

impl Driver {
    // ---- at a follower ----

    /// Whether what only a leader can do is asked of another server.
    pub(super) fn forwards(&self, id: GroupId) -> bool {
        let formed = self.groups.get(&id).and_then(Group::formed);
        let is_open = !self.is_closed && self.stopped.is_none();
        self.settings.forwarding && is_open && formed.is_some_and(|formed| !formed.raft.is_leader())
    }

    /// Proposals for the leader. They go at the end of the turn, all together.
    pub(super) fn forward_proposals(&mut self, id: GroupId, proposals: Vec<Proposal>) {
        let has_route = self.route(id).is_some();
        let limit = self.settings.forward_bytes;
        let Some(group) = self.groups.get_mut(&id) else { return };
        let leader = leader_of(group);
        let forwarding = &mut group.forwarding;
        let bytes: usize = proposals.iter().map(cost_bytes).sum();
        let refusal = if !has_route {
            NotApplied::NotLeader { leader }
        } else if forwarding.bytes > 0 && forwarding.bytes + bytes > limit {
            NotApplied::Overloaded
        } else {
            forwarding.bytes += bytes;
            return forwarding.fresh.extend(proposals);
        };
        let tickets = proposals.into_iter().map(|proposal| proposal.ticket).collect();
        complete(id, tickets, Outcome::NotApplied(refusal), &mut self.effects);
    }

    /// A linearizable read that the leader must say something to. All of a turn are one question.
    pub(super) fn forward_read(&mut self, id: GroupId, ticket: Ticket) {
        let has_route = self.route(id).is_some();
        let Some(group) = self.groups.get_mut(&id) else { return };
        if has_route {
            return group.forwarding.fresh_reads.push(ticket);
        }
        let outcome = Outcome::NotApplied(NotApplied::NotLeader { leader: leader_of(group) });
        complete(id, vec![ticket], outcome, &mut self.effects);
    }

    /// The way to the leader that this server follows, while both connections stand and it has said on its own that it
    /// speaks of the same group.
    fn route(&self, id: GroupId) -> Option<Route> {
        let group = self.groups.get(&id)?;
        let formed = group.formed()?;
        let leader = formed.raft.leader().filter(|&leader| leader != self.me.id)?;
        let identity = group.identity_of(leader)?;
        let there = self.links.peers.get(&leader)?.dialled?;
        self.links.met(leader).filter(|peer| peer.identity == identity)?;
        let mut streams = self.links.streams.iter();
        let (&back, _) = streams.find(|(_, stream)| {
            let connection = stream.connection.as_ref().filter(|connection| !connection.is_dialled());
            let peer = connection.and_then(Connection::peer).filter(|peer| peer.purpose == Purpose::Messages);
            peer.is_some_and(|peer| (peer.id, peer.identity) == (leader, identity))
                && stream.lineages.get(&id) == Some(&formed.lineage)
        })?;
        Some(Route { leader, term: formed.raft.hard_state().term, there, back })
    }

    /// Where connections have changed, whoever waits for an answer looks whether it still can come.
    pub(super) fn touch_forwarders(&mut self) {
        if std::mem::take(&mut self.links.have_changed) {
            self.forwarders.iter().for_each(|&id| self.groups.touch(id));
        }
    }

    /// Ends what the route was lost for, and sends what gathered in this turn.
    pub(super) fn forward(&mut self, id: GroupId) {
        if self.groups.get(&id).is_none_or(|group| group.forwarding.is_idle()) {
            self.forwarders.remove(&id);
            return;
        }
        self.forwarders.insert(id);
        let present = self.route(id);
        let Some(group) = self.groups.get_mut(&id) else { return };
        let lost = Outcome::NotApplied(NotApplied::NotLeader { leader: leader_of(group) });
        let forwarding = &mut group.forwarding;
        if forwarding.route != present {
            let (proposals, reads) = forwarding.take_unanswered();
            self.forward_counts.broken += proposals.len() as u64;
            complete(id, proposals, Outcome::Unknown(Unknown::LeadershipLost), &mut self.effects);
            complete(id, reads, lost.clone(), &mut self.effects);
            forwarding.route = present;
        }
        let fresh = std::mem::take(&mut forwarding.fresh);
        let fresh_reads = std::mem::take(&mut forwarding.fresh_reads);
        match present {
            Some(route) => {
                self.send_proposals(id, route, fresh);
                self.send_reads(id, route, fresh_reads);
            }
            None => {
                forwarding.bytes -= fresh.iter().map(cost_bytes).sum::<usize>();
                let tickets = fresh.into_iter().map(|proposal| proposal.ticket).chain(fresh_reads).collect();
                complete(id, tickets, lost, &mut self.effects);
            }
        }
    }

    fn send_proposals(&mut self, id: GroupId, route: Route, proposals: Vec<Proposal>) {
        // A leader takes a message whole or refuses it: it is given none that exceeds what may be uncommitted.
        let most = MESSAGE_BYTES.min(self.settings.uncommitted_bytes);
        let mut rest = proposals.into_iter();
        while !rest.as_slice().is_empty() {
            let mut bytes = 0;
            let fitting = rest.as_slice().iter().take_while(|proposal| {
                bytes += cost_bytes(proposal);
                bytes <= most
            });
            let count = fitting.count().max(1);
            let bytes = rest.as_slice()[..count].iter().map(cost_bytes).sum();
            let run = rest.by_ref().take(count).map(|Proposal { ticket, proposed }| (ticket, proposed));
            let (tickets, proposals): (Vec<_>, Vec<_>) = run.unzip();
            let Some(number) = self.groups.get_mut(&id).map(|group| group.forwarding.next_number()) else { return };
            let request = RequestId { incarnation: self.incarnation.number, number };
            let is_sent = self.send_on(route.there, id, &PeerMessage::Forward { request, term: route.term, proposals });
            let Some(group) = self.groups.get_mut(&id) else { return };
            if is_sent {
                group.forwarding.proposals.insert(number, Forward { tickets, bytes });
            } else {
                group.forwarding.bytes -= bytes;
                complete(id, tickets, Outcome::NotApplied(NotApplied::Overloaded), &mut self.effects);
            }
        }
    }

    fn send_reads(&mut self, id: GroupId, route: Route, tickets: Vec<Ticket>) {
        if tickets.is_empty() {
            return;
        }
        let Some(number) = self.groups.get_mut(&id).map(|group| group.forwarding.next_number()) else { return };
        let request = RequestId { incarnation: self.incarnation.number, number };
        let is_sent = self.send_on(route.there, id, &PeerMessage::ReadIndex { request, term: route.term });
        let Some(group) = self.groups.get_mut(&id) else { return };
        if is_sent {
            group.forwarding.reads.insert(number, tickets);
        } else {
            complete(id, tickets, Outcome::NotApplied(NotApplied::Overloaded), &mut self.effects);
        }
    }

    /// What the leader made of a forward: it says so ahead of the entries.
    pub(super) fn on_forward_reply(
        &mut self,
        id: GroupId,
        connection: ConnectionId,
        request: RequestId,
        answer: ForwardAnswer,
    ) {
        let Some((group, route)) = self.asked(id, connection, request) else { return };
        let Some(Forward { tickets, bytes }) = group.forwarding.proposals.remove(&request.number) else { return };
        group.forwarding.bytes -= bytes;
        let count = tickets.len() as u64;
        let first = match answer {
            ForwardAnswer::Refused(refusal) => {
                self.forward_counts.refused += count;
                return complete(id, tickets, Outcome::NotApplied(refusal.into()), &mut self.effects);
            }
            ForwardAnswer::Taken(first) => first,
        };
        if is_awaited(group, route.term, first, count) {
            let Position { term, index } = first;
            let pending = (index..).zip(tickets).map(|(index, ticket)| Pending { index, term, ticket });
            group.proposals.extend(pending);
            self.forward_counts.taken += count;
        } else {
            // The entries came first, by another way, and what the state machine answered to them is gone.
            self.forward_counts.late += count;
            complete(id, tickets, Outcome::Unknown(Unknown::LeadershipLost), &mut self.effects);
        }
    }

    /// What reads must cover: once that is applied here, they may be served.
    pub(super) fn on_read_index_reply(
        &mut self,
        id: GroupId,
        connection: ConnectionId,
        request: RequestId,
        index: Option<Index>,
    ) {
        let Some((group, _)) = self.asked(id, connection, request) else { return };
        let Some(tickets) = group.forwarding.reads.remove(&request.number) else { return };
        let Some(index) = index else {
            let outcome = Outcome::NotApplied(NotApplied::NotLeader { leader: leader_of(group) });
            return complete(id, tickets, outcome, &mut self.effects);
        };
        self.forward_counts.reads += tickets.len() as u64;
        self.effects.extend(tickets.into_iter().map(|ticket| Effect::ReadReady { group: id, ticket, index }));
    }

    /// The group that asked this and waits for its answer on this connection; nobody waits for any other answer.
    fn asked(&mut self, id: GroupId, connection: ConnectionId, request: RequestId) -> Option<(&mut Group, Route)> {
        let is_ours = request.incarnation == self.incarnation.number;
        let group = self.groups.get_mut(&id).filter(|_| is_ours)?;
        let route = group.forwarding.route.filter(|route| route.back == connection)?;
        Some((group, route))
    }

    // ---- at a leader ----

    /// A follower forwards what its host proposes. It is answered before the entries go to anybody.
    pub(super) fn on_forward(
        &mut self,
        now: Time,
        id: GroupId,
        from: ServerId,
        request: RequestId,
        term: Term,
        proposals: Vec<Proposed>,
    ) {
        if let Some(answer) = self.take_forward(now, id, from, term, proposals) {
            self.answer(id, from, PeerMessage::ForwardReply { request, answer });
        }
    }

    fn take_forward(
        &mut self,
        now: Time,
        id: GroupId,
        from: ServerId,
        term: Term,
        proposals: Vec<Proposed>,
    ) -> Option<ForwardAnswer> {
        let max_entry_bytes = self.settings.max_entry_bytes;
        let group = self.groups.get_mut(&id)?;
        let raft = &group.formed()?.raft;
        let refusal = if !raft.is_leader() || raft.hard_state().term != term {
            ForwardRefusal::NotLeader(raft.leader())
        } else if proposals.iter().any(|proposed| proposed.command_bytes() > max_entry_bytes) {
            ForwardRefusal::TooLarge
        } else if !self.storage.has_room() {
            ForwardRefusal::DiskFull
        } else {
            match group.run(|raft| raft.propose(now, proposals))? {
                Ok(indexes) => {
                    group.run(|raft| raft.hasten_commit(from, indexes.end - 1));
                    return Some(ForwardAnswer::Taken(Position { term, index: indexes.start }));
                }
                Err(Refusal::NotLeader) => ForwardRefusal::NotLeader(None),
                Err(Refusal::Overloaded) => ForwardRefusal::Overloaded,
                Err(Refusal::Transferring) => ForwardRefusal::Transferring,
            }
        };
        Some(ForwardAnswer::Refused(refusal))
    }

    /// A follower asks what its reads must cover.
    pub(super) fn on_read_index(
        &mut self,
        id: GroupId,
        from: ServerId,
        connection: ConnectionId,
        request: RequestId,
        term: Term,
    ) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let read = group.next_read;
        let is_taken = group.run(|raft| raft.hard_state().term == term && raft.read(read).is_ok());
        if is_taken == Some(true) {
            group.next_read += 1;
            group.reads.insert(read, Reader::Peer { id: from, connection, request });
        } else {
            self.answer(id, from, PeerMessage::ReadIndexReply { request, index: None });
        }
    }

    /// Tells a follower what its read must cover, unless the connection is gone on which it asked: it has given up then.
    pub(super) fn answer_reader(
        &mut self,
        id: GroupId,
        to: ServerId,
        connection: ConnectionId,
        request: RequestId,
        index: Option<Index>,
    ) {
        if self.links.streams.contains_key(&connection) {
            if let (Some(index), Some(group)) = (index, self.groups.get_mut(&id)) {
                group.run(|raft| raft.hasten_commit(to, index));
            }
            self.answer(id, to, PeerMessage::ReadIndexReply { request, index });
        }
    }

    /// Answers a follower. An answer is never lost in silence: where there is no room for it, the connection closes, and
    /// the follower waits no more.
    fn answer(&mut self, id: GroupId, to: ServerId, message: PeerMessage) {
        let is_met = self.links.met(to).is_some();
        if !self.send(id, to, message) && is_met {
            let dialled = self.links.peers.get(&to).and_then(|link| link.dialled);
            dialled.into_iter().for_each(|dialled| self.close(dialled));
        }
    }
}

/// Whether entries from `first` on, which a leader of `term` took, are still to come here: behind what the state machine
/// was given, and behind whatever waits already.
fn is_awaited(group: &Group, term: Term, first: Position, count: u64) -> bool {
    let Some(formed) = group.formed() else { return false };
    let given = formed.raft.delivered_index().max(formed.raft.base().index);
    let waits = group.proposals.back().map_or(0, |pending| pending.index);
    first.term == term && first.index > given.max(waits) && first.index.checked_add(count).is_some()
}

impl From<ForwardRefusal> for NotApplied {
    fn from(refusal: ForwardRefusal) -> Self {
        match refusal {
            ForwardRefusal::NotLeader(leader) => Self::NotLeader { leader },
            ForwardRefusal::Overloaded => Self::Overloaded,
            ForwardRefusal::TooLarge => Self::TooLarge,
            ForwardRefusal::DiskFull => Self::DiskFull,
            ForwardRefusal::Transferring => Self::Transferring,
        }
    }
}
