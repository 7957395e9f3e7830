//! The commit index (§5.3, §5.4.2).

use super::{Raft, Role, quorum};
use crate::types::{Index, Message, ServerId, Time};

impl Raft {
    /// Commits what a quorum holds durably, this server's own disk counted as one of them and no further than it is.
    ///
    /// Only an entry of the leader's own term commits by counting; earlier ones commit with it (§5.4.2). Figure 8 shows
    /// what is lost otherwise.
    pub(super) fn advance_commit(&mut self, now: Time) {
        self.settle();
        let Role::Leader(leader) = &self.role else { return };
        let own = self.durability.durable();
        let reached = |id| if id == self.id { own } else { leader.peers.get(&id).map_or(0, super::Progress::counted) };
        let agreed: Index = quorum::agreed_value(self.configuration(), reached);
        if agreed <= self.commit || self.log.term_at(agreed) != Some(self.hard_state.term) {
            return;
        }
        self.commit = agreed;
        self.settle();
        self.release_reads(now);
        self.advance_change(now);
    }

    /// A host at `to` waits for `index` to be applied there: that it is committed is said as soon as that peer has it,
    /// and not only with the next heartbeat.
    pub fn hasten_commit(&mut self, to: ServerId, index: Index) {
        if let Role::Leader(leader) = &mut self.role
            && let Some(peer) = leader.peers.get_mut(&to)
        {
            peer.commit_wanted = peer.commit_wanted.max(index);
        }
    }

    /// Tells those who wait and were told by no entries that went to them anyhow. It opens no round: the last one is said
    /// again.
    pub(super) fn tell_commits(&mut self) {
        let (term, commit) = (self.hard_state.term, self.commit);
        let Role::Leader(leader) = &mut self.role else { return };
        let round = leader.round;
        let is_due =
            |wanted: Index, peer: &super::Progress| peer.commit_told < wanted && wanted <= commit.min(peer.matched);
        let waiting = leader.peers.iter_mut().filter(|(_, peer)| is_due(peer.commit_wanted, peer));
        let messages: Vec<_> = waiting
            .map(|(&to, peer)| (to, Message::Heartbeat { term, round, commit: peer.tell_commit(commit) }))
            .collect();
        for (to, message) in messages {
            self.send(to, message);
        }
    }

    /// Gives the budget of proposals back what is committed *and* on the own disk: until then it stays in memory, and a
    /// leader whose disk is slower than its followers' must not take ever more.
    fn settle(&mut self) {
        let settled = self.commit.min(self.durability.durable());
        let Role::Leader(leader) = &mut self.role else { return };
        let freed = self.log.cost_bytes(leader.settled + 1, settled);
        leader.uncommitted_bytes = leader.uncommitted_bytes.saturating_sub(freed);
        leader.settled = settled;
    }
}
