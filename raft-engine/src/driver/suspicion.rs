//! Whether a leader's process died: one fresh dial tells. What follows from it is the core's to say.

use std::time::Duration;

use super::{Driver, group::Group};
use crate::transport::Purpose;
use crate::types::{Incarnation, ServerId, Time};

/// Followers that know their leader to be dead campaign within so many round trips and syncs of each other...
const SPREAD: u32 = 10;

/// ...and no less than this, since timers and threads have their own grain.
const LEAST_SPREAD: Duration = Duration::from_millis(10);

impl Driver {
    /// The connection on which a peer speaks to us broke. If it leads, one fresh dial tells whether its process died: it
    /// is refused then, or answered by a later incarnation. Anything else says nothing.
    pub(super) fn doubt(&mut self, now: Time, peer: ServerId, incarnation: Incarnation) {
        if !self.may_speak() || !self.groups.values().any(|group| follows(group, peer)) {
            return;
        }
        let Some(link) = self.links.peers.get(&peer).filter(|link| link.check.is_none()) else { return };
        // What we dialled before may still stand. It is not closed for a doubt: the peer, if it doubts us too, would see
        // that as one more reason.
        let address = link.address.clone();
        let check = self.dial(now, Some(peer), address, Purpose::Messages);
        if let Some(link) = self.links.peers.get_mut(&peer) {
            link.check = Some((check, incarnation));
        }
    }

    /// The process of a peer died: nobody waits for it to lead.
    pub(super) fn suspect(&mut self, now: Time, peer: ServerId) {
        // Two round trips are in a handshake; a vote takes two round trips and two syncs.
        let round_trip = self.links.shortest_handshake.unwrap_or_default() / 2;
        let spread = (SPREAD * (round_trip + self.sync_time)).max(LEAST_SPREAD);
        let led: Vec<_> = self.groups.values().filter(|group| follows(group, peer)).map(|group| group.id).collect();
        for id in led {
            let group = self.groups.get_mut(&id);
            let is_suspected = group.and_then(|group| group.run(|raft| raft.suspect(now, peer, spread)));
            self.suspicions += u64::from(is_suspected == Some(true));
        }
    }
}

/// Whether this server follows `peer` in a group.
fn follows(group: &Group, peer: ServerId) -> bool {
    group.formed().is_some_and(|formed| formed.raft.leader() == Some(peer))
}
