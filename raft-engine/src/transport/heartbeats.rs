//! Heartbeats of all groups to a peer, and the answers to them: a frame of each, whatever the number of groups.
//!
//! What one group's core says is one row. Rows gather while a turn lasts, and go out together when its frames are taken.
//! Each row stands for its own group alone: who takes the frame asks each group what it makes of its row, and answers for
//! those that answered.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::frame::{Frame, HEADER_BYTES, MAX_FRAME_BYTES};
use super::message::PeerMessage;
use super::outbox::QUEUED_OVERHEAD_BYTES;
use crate::types::{GroupId, Index, Message, Term};

/// What the header of a frame names that speaks of many groups.
pub(super) const OF_ALL_GROUPS: GroupId = GroupId(0);

/// The length of an encoded row of either kind in bytes.
const ROW_BYTES: usize = 32;

/// The most rows that fit a frame, behind their count.
pub(super) const MOST_ROWS: usize = (MAX_FRAME_BYTES - HEADER_BYTES - 8) / ROW_BYTES;

/// [`Message::Heartbeat`] of one group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeartbeatRow {
    /// Whose.
    pub group: GroupId,
    /// The leader's term.
    pub term: Term,
    /// The round that an answer confirms.
    pub round: u64,
    /// The commit index, as far as the receiver holds it.
    pub commit: Index,
}

/// [`Message::HeartbeatReply`] of one group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeartbeatReplyRow {
    /// Whose.
    pub group: GroupId,
    /// The follower's term.
    pub term: Term,
    /// The round confirmed.
    pub round: u64,
    /// What is promised, in nanoseconds.
    pub promise: u64,
}

impl HeartbeatRow {
    /// Whose it is, and what it says.
    pub fn message(self) -> (GroupId, Message) {
        let Self { group, term, round, commit } = self;
        (group, Message::Heartbeat { term, round, commit })
    }
}

impl HeartbeatReplyRow {
    /// Whose it is, and what it says.
    pub fn message(self) -> (GroupId, Message) {
        let Self { group, term, round, promise } = self;
        (group, Message::HeartbeatReply { term, round, promise: Duration::from_nanos(promise) })
    }
}

/// What a frame of rows costs a queue's budget beyond the rows.
const FRAME_COST_BYTES: usize = HEADER_BYTES + 8 + QUEUED_OVERHEAD_BYTES;

/// Rows that wait for the end of the turn.
#[derive(Default)]
pub(super) struct Gathered {
    heartbeats: Vec<HeartbeatRow>,
    replies: Vec<HeartbeatReplyRow>,
}

impl Gathered {
    /// Whether a message goes together with those of other groups.
    pub(super) fn is_for(message: &PeerMessage) -> bool {
        matches!(message, PeerMessage::Raft(Message::Heartbeat { .. } | Message::HeartbeatReply { .. }))
    }

    /// What one more of this message costs the queue's budget, in bytes.
    pub(super) fn cost_bytes(&self, message: &Message) -> usize {
        let rows = match message {
            Message::Heartbeat { .. } => self.heartbeats.len(),
            _ => self.replies.len(),
        };
        if rows.is_multiple_of(MOST_ROWS) { FRAME_COST_BYTES + ROW_BYTES } else { ROW_BYTES }
    }

    /// Takes a message for which [`Gathered::is_for`] holds.
    pub(super) fn push(&mut self, group: GroupId, message: &Message) {
        match *message {
            Message::Heartbeat { term, round, commit } => {
                self.heartbeats.push(HeartbeatRow { group, term, round, commit });
            }
            Message::HeartbeatReply { term, round, promise } => {
                let promise = u64::try_from(promise.as_nanos()).unwrap_or(u64::MAX);
                self.replies.push(HeartbeatReplyRow { group, term, round, promise });
            }
            _ => unreachable!("only heartbeats and their answers gather"),
        }
    }

    /// The next frame, and what its rows have cost.
    pub(super) fn next_frame(&mut self) -> Option<(Frame, usize)> {
        let (message, rows) = if !self.heartbeats.is_empty() {
            let rows: Vec<_> = self.heartbeats.drain(..self.heartbeats.len().min(MOST_ROWS)).collect();
            let count = rows.len();
            (PeerMessage::Heartbeats(rows), count)
        } else if !self.replies.is_empty() {
            let rows: Vec<_> = self.replies.drain(..self.replies.len().min(MOST_ROWS)).collect();
            let count = rows.len();
            (PeerMessage::HeartbeatReplies(rows), count)
        } else {
            return None;
        };
        Some((message.encode().into_frame(OF_ALL_GROUPS), FRAME_COST_BYTES + rows * ROW_BYTES))
    }
}
