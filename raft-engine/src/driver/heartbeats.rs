//! Heartbeats as they come: those of all groups that a peer leads in one frame, and all groups' answers in another.
//!
//! That they go together is the transport's doing, and that they come due together the core's, which names multiples of
//! the interval. A frame is gone through row by row, and each group says by itself what it makes of its own: nothing is
//! answered for a group that did not answer.

use super::group::Group;
use super::{ConnectionId, Driver};
use crate::core;
use crate::transport::{Peer, PeerMessage};
use crate::types::{GroupId, Message, Time};

impl Driver {
    /// One group's row of a frame of heartbeats, or of answers to them. Where it brings no news, as between idle groups, the
    /// group is not looked at when the turn ends: all that can follow is an answer, and that its deadline moves.
    pub(super) fn on_heartbeat(
        &mut self,
        now: Time,
        connection: ConnectionId,
        peer: &Peer,
        (id, message): (GroupId, Message),
    ) {
        if !self.heeds(connection, id, peer, matches!(message, Message::Heartbeat { .. })) {
            return;
        }
        let from = peer.id;
        let is_routine = |group: &&mut Group| group.formed().is_some_and(|it| it.raft.is_routine(from, &message));
        let Some(group) = self.groups.get_quiet(&id).filter(is_routine) else {
            return self.on_member_message(now, connection, id, from, PeerMessage::Raft(message));
        };
        let answers = group.run(|raft| {
            raft.receive(now, from, message);
            let answers = raft.take_effects();
            let is_answer = |effect: &core::Effect| matches!(effect, core::Effect::Send { .. });
            assert!(answers.iter().all(is_answer), "what is routine asks for nothing but to be answered");
            answers
        });
        self.groups.keep_time(id);
        let Some(answers) = answers else { return self.groups.touch(id) };
        for answer in answers {
            if let core::Effect::Send { to, message } = answer {
                self.send(id, to, PeerMessage::Raft(message));
            }
        }
    }
}
