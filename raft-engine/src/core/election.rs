//! Elections: §5.2, the up-to-date check of §5.4.1, pre-vote (dissertation §9.6) and stickiness (§4.2.3); and priorities,
//! which only make those who are wanted less as leaders wait longer.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Raft, Role, quorum};
use crate::types::{Message, Position, ServerId, Term, Time};

impl Raft {
    /// The first wait of an open, between a quarter and three quarters of an election timeout: whoever comes up finds a
    /// leader soon or there is none, and to ask early deposes nobody, since who hears a leader refuses a pre-vote. A
    /// server that is the only voter waits for nobody.
    pub(super) fn begin_election_timer(&mut self, now: Time) {
        let timeout = self.options.election_timeout;
        let wait = timeout / 4 + self.random_wait(timeout / 2) + self.handicap();
        let is_alone = quorum::is_quorum(self.configuration(), |id| id == self.id);
        self.election_at = if is_alone { now } else { now + wait };
    }

    /// Waits a new random time for a leader: between one and two election timeouts (§5.2).
    pub(super) fn reset_election_timer(&mut self, now: Time) {
        let timeout = self.options.election_timeout;
        self.election_at = now + (timeout + self.random_wait(timeout) + self.handicap());
    }

    /// How much longer this server waits than the voters of the highest priority: an election timeout for each priority
    /// above its own, up to three; with priority 0, as long as makes five in all.
    fn handicap(&self) -> Duration {
        let timeouts = match self.levels_above() {
            0 => 0,
            _ if self.priority_of(self.id) == 0 => 4,
            levels => levels,
        };
        self.options.election_timeout * timeouts
    }

    /// How many priorities above its own there are among the voters; three at most.
    pub(super) fn levels_above(&self) -> u32 {
        let own = self.priority_of(self.id);
        let others = self.configuration().voters().map(|id| self.priority_of(id));
        let above: BTreeSet<u8> = others.filter(|&priority| priority > own).collect();
        above.len().min(3) as u32
    }

    /// Whether this server may stand: it was not told that it was removed, and it votes by the latest configuration, or
    /// by one before it that may still be the one that counts. A server whose own log removes it may be the only one that
    /// can bring the entry to the voters who are left: it stands until that is committed (dissertation §4.2.2).
    pub(super) fn may_campaign(&self) -> bool {
        let committed = self.configurations.partition_point(|&(at, _)| at <= self.commit).saturating_sub(1);
        let votes = self.configurations[committed..].iter().any(|(_, configuration)| configuration.is_voter(self.id));
        votes && self.removed.is_none()
    }

    /// A random time below `bound`.
    pub(super) fn random_wait(&mut self, bound: Duration) -> Duration {
        let bound = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.random.u64(0..bound.max(1)))
    }

    /// Whether a leader was heard from within the shortest election timeout, or this server itself leads. Then nobody
    /// can win an election without deposing a leader that works, and no vote is given (dissertation §4.2.3).
    pub(super) fn is_leader_alive(&self, now: Time) -> bool {
        match self.role {
            Role::Leader(_) => true,
            _ => self.leader_heard_at.is_some_and(|heard| now.since(heard) < self.options.election_timeout),
        }
    }

    /// Becomes a follower in `term`. A higher term is taken as a new record, without a vote.
    pub(super) fn follow(&mut self, now: Time, term: Term, leader: Option<ServerId>) {
        let was_leader = matches!(self.role, Role::Leader(_));
        if term > self.hard_state.term {
            self.set_hard_state(term, None);
            self.enter_term();
        }
        if was_leader {
            self.fail_reads();
        }
        self.role = Role::Follower { leader };
        if was_leader {
            self.reset_election_timer(now);
        }
    }

    /// What was said in an earlier term is not said in a later one.
    fn enter_term(&mut self) {
        self.own_vote_pending = None;
        self.leader_heard_at = None;
        self.durability.drop_acknowledgements();
    }

    /// A leader of the current term was heard from.
    pub(super) fn hear_leader(&mut self, now: Time, from: ServerId) {
        match self.role {
            Role::Leader(_) => panic!("two leaders in term {}: {} and {from}", self.hard_state.term, self.id),
            Role::Follower { leader: Some(leader) } => {
                assert!(leader == from, "two leaders in term {}: {leader} and {from}", self.hard_state.term);
            }
            _ => self.follow(now, self.hard_state.term, Some(from)),
        }
        self.leader_heard_at = Some(now);
        self.reset_election_timer(now);
    }

    /// No leader was heard from for an election timeout: asks who would vote for this server.
    pub(super) fn campaign(&mut self, now: Time) {
        self.reset_election_timer(now);
        if !self.may_campaign() {
            // It stands for nothing; but whom it followed is silent, and answers nothing.
            return self.follow(now, self.hard_state.term, None);
        }
        if self.promise.binds(now) {
            self.election_at = self.election_at.max(self.promise.until());
            return;
        }
        self.leader_heard_at = None;
        self.role = Role::PreCandidate { granted: BTreeSet::from([self.id]) };
        let message = Message::PreVote { campaign_term: self.hard_state.term + 1, last: self.log.last() };
        self.ask_voters(&message);
        self.count_pre_votes(now);
    }

    /// Starts a term and asks for votes (§5.2); `is_transfer` where the leader wants it.
    pub(super) fn stand(&mut self, now: Time, is_transfer: bool) {
        self.reset_election_timer(now);
        let mark = self.set_hard_state(self.hard_state.term + 1, Some(self.id));
        self.enter_term();
        self.own_vote_pending = Some(mark);
        self.role = Role::Candidate { granted: BTreeSet::new(), is_transfer };
        let message = Message::Vote { term: self.hard_state.term, last: self.log.last(), is_transfer };
        self.ask_voters(&message);
    }

    /// What a candidate asked may have been lost with an older connection, or said before there was one.
    pub(super) fn ask_again(&mut self, peer: ServerId) {
        let last = self.log.last();
        let message = match &self.role {
            Role::PreCandidate { granted } if !granted.contains(&peer) => {
                Message::PreVote { campaign_term: self.hard_state.term + 1, last }
            }
            &Role::Candidate { ref granted, is_transfer } if !granted.contains(&peer) => {
                Message::Vote { term: self.hard_state.term, last, is_transfer }
            }
            _ => return,
        };
        if self.configuration().is_voter(peer) {
            self.send(peer, message);
        }
    }

    fn ask_voters(&mut self, message: &Message) {
        let others: Vec<_> =
            self.configuration().members.iter().map(|member| member.id).filter(|&id| id != self.id).collect();
        for to in others {
            if self.configuration().is_voter(to) {
                self.send(to, message.clone());
            }
        }
    }

    /// A candidate's log must be at least as up-to-date as the voter's: later last term, or same and at least as long
    /// (§5.4.1). [`Position`] is ordered so.
    fn is_up_to_date(&self, last: Position) -> bool {
        last >= self.log.last()
    }

    pub(super) fn on_pre_vote(&mut self, now: Time, from: ServerId, campaign_term: Term, last: Position) {
        let is_bound = self.is_leader_alive(now) || self.promise.binds(now);
        let granted = campaign_term > self.hard_state.term && self.is_up_to_date(last) && !is_bound;
        if granted && self.steps_back_for(from, last) {
            self.role = Role::Follower { leader: None };
        }
        self.send(from, Message::PreVoteReply { term: self.hard_state.term, campaign_term, granted });
    }

    /// Whether this server asks for pre-votes itself, and `from`, who asks too, goes first: where two ask at the same
    /// moment each would grant, both stand, and the votes be split. Whoever steps back keeps its timer and asks again.
    fn steps_back_for(&self, from: ServerId, last: Position) -> bool {
        let rank = |last: Position, id| (last, self.priority_of(id), id);
        matches!(self.role, Role::PreCandidate { .. }) && rank(last, from) > rank(self.log.last(), self.id)
    }

    pub(super) fn on_pre_vote_reply(
        &mut self,
        now: Time,
        from: ServerId,
        term: Term,
        campaign_term: Term,
        granted: bool,
    ) {
        if let Role::PreCandidate { granted: grants } = &mut self.role
            && granted
            && term <= self.hard_state.term
            && campaign_term == self.hard_state.term + 1
        {
            grants.insert(from);
            self.count_pre_votes(now);
        }
    }

    fn count_pre_votes(&mut self, now: Time) {
        if let Role::PreCandidate { granted } = &self.role
            && quorum::is_quorum(self.configuration(), |id| granted.contains(&id))
        {
            self.stand(now, false);
        }
    }

    /// Votes at most once a term, first come first served, for a candidate whose log is up to date. Term and vote are one
    /// record, and the answer leaves after it (§5.2, §5.4.1).
    pub(super) fn on_vote(&mut self, now: Time, from: ServerId, term: Term, last: Position, is_transfer: bool) {
        if self.promise.forbids_vote(now, term, is_transfer) {
            return;
        }
        if term < self.hard_state.term {
            return self.send(from, Message::VoteReply { term: self.hard_state.term, granted: false });
        }
        let vote_is_free = term > self.hard_state.term || self.hard_state.vote.is_none();
        let granted = self.is_up_to_date(last) && (vote_is_free || self.hard_state.vote == Some(from));
        if term > self.hard_state.term {
            let vote = granted.then_some(from);
            if matches!(self.role, Role::Leader(_)) {
                self.fail_reads();
            }
            self.set_hard_state(term, vote);
            self.enter_term();
            self.role = Role::Follower { leader: None };
        } else if granted && self.hard_state.vote.is_none() {
            self.set_hard_state(term, Some(from));
        }
        if granted {
            self.reset_election_timer(now);
        }
        self.send(from, Message::VoteReply { term, granted });
    }

    pub(super) fn on_vote_reply(&mut self, now: Time, from: ServerId, term: Term, granted: bool) {
        if let Role::Candidate { granted: grants, .. } = &mut self.role
            && granted
            && term == self.hard_state.term
        {
            grants.insert(from);
            self.count_votes(now);
        }
    }

    /// The own vote is on disk, and counts.
    pub(super) fn count_own_vote(&mut self, now: Time) {
        if let Role::Candidate { granted, .. } = &mut self.role {
            granted.insert(self.id);
            self.count_votes(now);
        }
    }

    /// The others were asked once the own term was on disk, so their answers come after it.
    fn count_votes(&mut self, now: Time) {
        if let Role::Candidate { granted, .. } = &self.role
            && quorum::is_quorum(self.configuration(), |id| granted.contains(&id))
        {
            self.lead(now);
        }
    }
}
