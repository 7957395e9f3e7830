//! What waits to be sent on one connection, in two lanes and within a budget.
//!
//! Heartbeats, votes and answers go through the prompt lane and are released at once, heartbeats of all groups in one frame. Entries and snapshots go through
//! the bulk lane and are released only while little is waiting below: what was released cannot be overtaken any more, so
//! a heartbeat waits behind [`RELEASE_BELOW_BYTES`] and one frame at most, whatever is queued.

use std::collections::VecDeque;

use super::fragment::Fragmenter;
use super::frame::{Frame, HEADER_BYTES, MAX_FRAME_BYTES};
use super::heartbeats::Gathered;
use super::message::Encoded;
use crate::types::{GroupId, Message};

/// Bulk frames are released while fewer bytes than this were released and not sent.
pub(super) const RELEASE_BELOW_BYTES: usize = 256 << 10;

/// What the prompt lane may hold when the budget is used up by the bulk lane, in bytes.
pub(super) const PROMPT_RESERVE_BYTES: usize = 64 << 10;

/// What a queued frame costs the budget beyond its bytes.
pub(super) const QUEUED_OVERHEAD_BYTES: usize = 128;

pub(super) struct Outbox {
    prompt: VecDeque<Frame>,
    /// What goes together, behind all that is prompt.
    gathered: Gathered,
    bulk: VecDeque<Bulk>,
    /// Costs of all that is queued and not released.
    queued_bytes: usize,
    /// Released and not sent.
    unsent_bytes: usize,
    /// The budget for both, in bytes.
    limit_bytes: usize,
    /// What the message that is longer than the whole budget cost when it was taken, until what is pending fits again.
    oversize_bytes: usize,
    /// How many messages were fragmented on this connection.
    fragmented: u64,
}

enum Bulk {
    Frame(Frame),
    Fragments(Fragmenter),
}

impl Outbox {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self {
            prompt: VecDeque::new(),
            gathered: Gathered::default(),
            bulk: VecDeque::new(),
            queued_bytes: 0,
            unsent_bytes: 0,
            limit_bytes,
            oversize_bytes: 0,
            fragmented: 0,
        }
    }

    /// Queued, or released and not known to be sent, in bytes.
    pub(super) fn pending_bytes(&self) -> usize {
        self.queued_bytes + self.unsent_bytes
    }

    /// Released and not known to be sent, in bytes.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.unsent_bytes
    }

    /// Whether the reserve holds so many bytes more. It is there beside a message that is longer than the budget, too.
    fn has_reserve(&self, cost_bytes: usize) -> bool {
        self.pending_bytes() + cost_bytes <= self.limit_bytes.max(self.oversize_bytes) + PROMPT_RESERVE_BYTES
    }

    /// Queues a small frame ahead of all bulk; `false`, and it is dropped, if even the reserve is used up.
    pub(super) fn push_prompt(&mut self, frame: Frame) -> bool {
        let cost = frame.len() + QUEUED_OVERHEAD_BYTES;
        if !self.has_reserve(cost) {
            return false;
        }
        self.queued_bytes += cost;
        self.prompt.push_back(frame);
        true
    }

    /// Queues a heartbeat or an answer to one, to go with those of other groups; `false` as for any prompt frame.
    pub(super) fn gather(&mut self, group: GroupId, message: &Message) -> bool {
        let cost = self.gathered.cost_bytes(message);
        if !self.has_reserve(cost) {
            return false;
        }
        self.queued_bytes += cost;
        self.gathered.push(group, message);
        true
    }

    /// Queues a message of any length behind the bulk before it; `false`, and it is dropped, if the budget does not
    /// hold it. A message that is longer than the whole budget is taken when nothing else is pending: else it would
    /// never go.
    pub(super) fn push_bulk(&mut self, group: GroupId, encoded: Encoded) -> bool {
        let cost = encoded.frame_bytes() + QUEUED_OVERHEAD_BYTES;
        if self.pending_bytes() + cost > self.limit_bytes && !(self.bulk.is_empty() && self.unsent_bytes == 0) {
            return false;
        }
        if cost > self.limit_bytes {
            self.oversize_bytes = cost;
        }
        self.queued_bytes += cost;
        self.bulk.push_back(if encoded.frame_bytes() <= MAX_FRAME_BYTES {
            Bulk::Frame(encoded.into_frame(group))
        } else {
            self.fragmented += 1;
            Bulk::Fragments(Fragmenter::new(encoded, group, self.fragmented - 1))
        });
        true
    }

    /// Releases the next frame, if one may go now.
    pub(super) fn next_frame(&mut self) -> Option<Frame> {
        let frame = if let Some(frame) = self.prompt.pop_front() {
            self.queued_bytes -= frame.len() + QUEUED_OVERHEAD_BYTES;
            frame
        } else if let Some((frame, cost)) = self.gathered.next_frame() {
            self.queued_bytes -= cost;
            frame
        } else if self.unsent_bytes < RELEASE_BELOW_BYTES {
            self.next_bulk()?
        } else {
            return None;
        };
        self.unsent_bytes += frame.len();
        Some(frame)
    }

    fn next_bulk(&mut self) -> Option<Frame> {
        let (frame, is_last, cost) = match self.bulk.front_mut()? {
            Bulk::Frame(frame) => (frame.clone(), true, frame.len() + QUEUED_OVERHEAD_BYTES),
            Bulk::Fragments(fragmenter) => {
                let before = fragmenter.remaining_bytes();
                let frame = fragmenter.next_frame().expect("a fragmenter leaves the lane with its last fragment");
                let after = fragmenter.remaining_bytes();
                let overhead = if after == 0 { HEADER_BYTES + QUEUED_OVERHEAD_BYTES } else { 0 };
                (frame, after == 0, before - after + overhead)
            }
        };
        if is_last {
            self.bulk.pop_front();
        }
        self.queued_bytes -= cost;
        Some(frame)
    }

    /// So many bytes of what was released have gone.
    ///
    /// # Panics
    /// If that is more than was released.
    pub(super) fn sent(&mut self, bytes: usize) {
        assert!(bytes <= self.unsent_bytes, "{bytes} bytes sent of {} released", self.unsent_bytes);
        self.unsent_bytes -= bytes;
        if self.pending_bytes() <= self.limit_bytes {
            self.oversize_bytes = 0;
        }
    }
}
