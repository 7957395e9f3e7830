//! The commit index (§5.3, §5.4.2).

use super::{Raft, Role, quorum};
use crate::types::{Index, Time};

impl Raft {
    /// Commits what a quorum holds durably, this server's own disk counted as one of them and no further than it is.
    ///
    /// Only an entry of the leader's own term commits by counting; earlier ones commit with it (§5.4.2). Figure 8 shows
    /// what is lost otherwise.
    pub(super) fn advance_commit(&mut self, now: Time) {
        let Role::Leader(leader) = &self.role else { return };
        let own = self.durability.durable();
        let reached = |id| match leader.peers.get(&id) {
            Some(peer) => peer.counted(),
            None if id == self.id => own,
            None => 0,
        };
        let agreed: Index = quorum::agreed_value(self.configuration(), reached);
        if agreed <= self.commit || self.log.term_at(agreed) != Some(self.hard_state.term) {
            return;
        }
        let freed = self.log.cost_bytes(self.commit + 1, agreed);
        self.commit = agreed;
        if let Role::Leader(leader) = &mut self.role {
            leader.uncommitted_bytes = leader.uncommitted_bytes.saturating_sub(freed);
        }
        self.release_reads(now);
    }
}
