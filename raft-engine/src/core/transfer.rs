//! Handing leadership over (dissertation §3.10).
//!
//! The leader stops taking proposals, brings the target's log up to its own, and tells it to stand at once. Its vote
//! requests say so, and a leader that is alive is no reason to refuse them. Whatever fails, the deadline ends it: the
//! leader goes on as if nothing had been, since nothing of this is in anybody's log.

use std::time::Duration;

use super::progress::Progress;
use super::{Effect, Raft, Role};
use crate::types::{Message, ServerId, Term, Time};

/// After a hand-over that came to nothing, a leader whom others outrank tries again after so many election timeouts.
const PATIENCE_AFTER_FAILURE: u32 = 10;

/// Why leadership is not handed over. Nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TransferRefusal {
    /// This server does not lead.
    #[error("this server does not lead the group")]
    NotLeader,
    /// A hand-over is under way.
    #[error("leadership is being handed over already")]
    InProgress,
    /// The server named leads already.
    #[error("server {0} leads already")]
    IsLeader(ServerId),
    /// The server named has no vote.
    #[error("server {0} is no voter of the group")]
    NotVoter(ServerId),
    /// Nobody who votes was heard from lately.
    #[error("no other voter was heard from within an election timeout")]
    NoTarget,
}

/// A hand-over under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Transfer {
    pub(super) to: ServerId,
    pub(super) deadline: Time,
    pub(super) is_told: bool,
}

impl Raft {
    /// Begins to hand leadership over to `to`, or to the best voter: that of the highest priority, and of these the one
    /// whose log is longest. Proposals are refused until it is over; given up after `patience`.
    pub fn transfer(
        &mut self,
        now: Time,
        to: Option<ServerId>,
        patience: Duration,
    ) -> Result<ServerId, TransferRefusal> {
        let Role::Leader(leader) = &self.role else { return Err(TransferRefusal::NotLeader) };
        if leader.transfer.is_some() {
            return Err(TransferRefusal::InProgress);
        }
        let to = match to {
            Some(to) if to == self.id => return Err(TransferRefusal::IsLeader(to)),
            Some(to) if !self.configuration().voters().any(|id| id == to) => return Err(TransferRefusal::NotVoter(to)),
            Some(to) => to,
            None => self.best_successor(now).ok_or(TransferRefusal::NoTarget)?,
        };
        self.begin_transfer(now, to, patience);
        Ok(to)
    }

    fn begin_transfer(&mut self, now: Time, to: ServerId, patience: Duration) {
        if let Role::Leader(leader) = &mut self.role {
            leader.transfer = Some(Transfer { to, deadline: now + patience, is_told: false });
        }
        self.advance_transfer(now);
    }

    /// The voter that should lead next, of those heard from within an election timeout.
    fn best_successor(&self, now: Time) -> Option<ServerId> {
        let Role::Leader(leader) = &self.role else { return None };
        let configuration = self.configuration();
        let is_heard = |peer: &Progress| now.since(peer.heard_at) < self.options.election_timeout;
        let rank = |id: ServerId| Some((configuration.member(id)?.priority, leader.peers.get(&id)?.counted()));
        let others = configuration.voters().filter(|id| leader.peers.get(id).is_some_and(is_heard));
        others.filter_map(|id| Some((rank(id)?, id))).filter(|((_, matched), _)| *matched > 0).max().map(|(_, id)| id)
    }

    /// Tells the target to stand once its log is the leader's.
    pub(super) fn advance_transfer(&mut self, now: Time) {
        let (last, term) = (self.log.last().index, self.hard_state.term);
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(transfer) = &mut leader.transfer else { return };
        let to = transfer.to;
        if now >= transfer.deadline || !leader.peers.contains_key(&to) {
            leader.transfer = None;
            leader.no_hand_over_before = now + self.options.election_timeout * PATIENCE_AFTER_FAILURE;
            return self.effects.push(Effect::TransferGivenUp { to });
        }
        if !transfer.is_told && leader.peers.get(&to).is_some_and(|peer| peer.counted() == last) {
            transfer.is_told = true;
            leader.is_lease_void = true;
            self.send(to, Message::TimeoutNow { term });
        }
    }

    /// What was said may have been lost: it is said again.
    pub(super) fn repeat_transfer(&mut self, now: Time) {
        if let Role::Leader(leader) = &mut self.role
            && let Some(transfer) = &mut leader.transfer
        {
            transfer.is_told = false;
            self.advance_transfer(now);
        }
    }

    /// A leader of priority 0 led only because nobody else did: it hands over to the best voter above it as soon as that
    /// one has caught up.
    pub(super) fn hand_over_if_outranked(&mut self, now: Time) {
        let Role::Leader(leader) = &self.role else { return };
        let is_busy = leader.transfer.is_some() || self.configuration().change.is_some();
        if self.priority_of(self.id) != 0 || is_busy || now < leader.no_hand_over_before {
            return;
        }
        let commit = self.commit;
        let has_caught_up = |id: &ServerId| leader.peers.get(id).is_some_and(|peer| peer.counted() >= commit);
        let best = self.best_successor(now).filter(|&id| self.priority_of(id) > 0).filter(has_caught_up);
        if let Some(to) = best {
            self.begin_transfer(now, to, self.options.election_timeout);
        }
    }

    /// The leader's last act in a group that it is no voter of any more: it hands over, and leads no longer.
    pub(super) fn leave(&mut self, now: Time) {
        let (last, term) = (self.log.last().index, self.hard_state.term);
        let successor = self.best_successor(now);
        let Role::Leader(leader) = &self.role else { return };
        let is_equal = |id: &ServerId| leader.peers.get(id).is_some_and(|peer| peer.counted() == last);
        if let Some(to) = successor.filter(is_equal) {
            self.send(to, Message::TimeoutNow { term });
        }
        self.follow(now, term, None);
    }

    /// A leader that must not lead any longer, though it is a voter: it hands over to the best of those who may, if one
    /// of them has its whole log, and leads no more.
    pub fn resign(&mut self, now: Time, may_lead: impl Fn(ServerId) -> bool) {
        let (last, term) = (self.log.last().index, self.hard_state.term);
        let Role::Leader(leader) = &self.role else { return };
        let is_ready = |id: &ServerId| may_lead(*id) && leader.peers.get(id).is_some_and(|peer| peer.counted() == last);
        let successor = self.configuration().voters().filter(is_ready).max_by_key(|&id| self.priority_of(id));
        if let Some(to) = successor {
            self.send(to, Message::TimeoutNow { term });
        }
        self.follow(now, term, None);
    }

    /// The leader hands over to this server: it stands at once, and asks nobody first.
    pub(super) fn on_timeout_now(&mut self, now: Time, from: ServerId, term: Term) {
        let is_from_leader = matches!(self.role, Role::Follower { leader: Some(leader) } if leader == from);
        if term == self.hard_state.term && is_from_leader && self.may_campaign() {
            self.stand(now, true);
        }
    }

    /// How much a member is wanted as a leader.
    pub(super) fn priority_of(&self, id: ServerId) -> u8 {
        self.configuration().member(id).map_or(0, |member| member.priority)
    }

    /// To whom leadership is being handed over.
    pub fn transferring_to(&self) -> Option<ServerId> {
        match &self.role {
            Role::Leader(leader) => leader.transfer.map(|transfer| transfer.to),
            _ => None,
        }
    }
}
