//! Fast failover: nobody waits for a leader whose process is known to be gone.
//!
//! Whoever moves bytes may learn that a process died: its connection closed, and a fresh dial was refused or answered by
//! a later open of the same directory. A follower that is told so shortens its timer, once for that leader and term, and
//! until it hears from a leader it is bound to none: it refuses neither pre-votes nor votes for stickiness. A majority
//! must agree as ever, so what one server takes for a death disturbs nobody while the others hear their leader.

use std::time::Duration;

use super::{Raft, Role};
use crate::types::{ServerId, Time};

impl Raft {
    /// The process of `peer` died. If that is the leader of this term, this server campaigns within `spread`, a time in
    /// which a vote can be taken several times over, so that two seldom stand at once. Says whether it will.
    pub fn suspect(&mut self, now: Time, peer: ServerId, spread: Duration) -> bool {
        let suspicion = (self.hard_state.term, peer);
        // A lease is a promise to wait, whatever is said of the leader.
        let has_leases = !self.configuration().settings.lease.is_zero();
        if !matches!(self.role, Role::Follower { leader: Some(leader) } if leader == peer)
            || self.suspected == Some(suspicion)
            || has_leases
        {
            return false;
        }
        self.suspected = Some(suspicion);
        self.leader_heard_at = None;
        self.role = Role::Follower { leader: None };
        // Who is wanted less lets the others go first; with priority 0, as if nobody had said anything.
        let levels = self.levels_above();
        if levels == 0 || self.priority_of(self.id) > 0 {
            let spread = spread.min(self.options.election_timeout);
            let wait = spread * levels + self.random_wait(spread);
            self.election_at = self.election_at.min(now + wait);
        }
        true
    }
}
