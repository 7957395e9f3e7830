//! What the servers of one group say to each other: one variant a kind, and no field that means two things.

use std::time::Duration;

use super::{Entry, Index, Position, Term};

/// A message between two cores of one group. Every one carries its sender's term, but for [`Message::PreVote`], which
/// carries the term that its sender would campaign in, and [`Message::Removed`], which is true in any.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// "Would you vote for me?" (dissertation §9.6). Changes nothing at the receiver.
    PreVote {
        /// The term after the sender's own: the one that it would start.
        campaign_term: Term,
        /// The sender's last entry.
        last: Position,
    },
    /// The answer to a [`Message::PreVote`].
    PreVoteReply {
        /// The voter's own term.
        term: Term,
        /// The term asked about, repeated.
        campaign_term: Term,
        /// Whether it would vote.
        granted: bool,
    },
    /// RequestVote (§5.2).
    Vote {
        /// The candidate's term.
        term: Term,
        /// The candidate's last entry (§5.4.1).
        last: Position,
        /// The leader of the term before told the candidate to stand ([`Message::TimeoutNow`]): a leader that is alive
        /// is no reason to refuse.
        is_transfer: bool,
    },
    /// The answer to a [`Message::Vote`]. A grant leaves only when it is durable.
    VoteReply {
        /// The voter's term.
        term: Term,
        /// Whether the vote is the candidate's.
        granted: bool,
    },
    /// AppendEntries with entries, or a probe without (§5.3).
    Append {
        /// The leader's term.
        term: Term,
        /// The leader's number for this request, never used again in its term; the answer repeats it.
        number: u64,
        /// The entry just before `entries`.
        previous: Position,
        /// The leader's commit index.
        commit: Index,
        /// Contiguous from `previous.index + 1`; all entries of one message fit a frame, or it is one large entry.
        entries: Vec<Entry>,
    },
    /// The answer to [`Message::Append`]. `Matched` leaves only when what it says is durable.
    AppendReply {
        /// The follower's term.
        term: Term,
        /// The number of the request answered (the latest, where one answer serves several); 0 where the request was
        /// of an earlier term, in which case only the term counts.
        number: u64,
        /// Whether the logs met.
        outcome: AppendOutcome,
    },
    /// "I lead": carries no entry and asks for none (§5.2). Opens or confirms a round of leadership (§6.4 of the
    /// dissertation).
    Heartbeat {
        /// The leader's term.
        term: Term,
        /// The round that an answer confirms; grows within the term, never used again.
        round: u64,
        /// The leader's commit index, but no further than what this follower is known to hold.
        commit: Index,
    },
    /// The answer to a [`Message::Heartbeat`].
    HeartbeatReply {
        /// The follower's term.
        term: Term,
        /// The round confirmed; 0 where it was of an earlier term, and confirms nothing.
        round: u64,
        /// The follower helps nobody else to lead for so long from the receipt of the heartbeat (dissertation §6.4.1);
        /// zero: it promises nothing.
        promise: Duration,
    },
    /// "Stand for election at once": how a leader hands over (dissertation §3.10).
    TimeoutNow {
        /// The leader's term.
        term: Term,
    },
    /// "You were removed from the group": said to a candidate, from a configuration known to be committed.
    Removed {
        /// The index of the entry that brought that configuration.
        index: Index,
    },
}

impl Message {
    /// The sender's own term, as far as the message tells it.
    pub fn term(&self) -> Option<Term> {
        match *self {
            Self::PreVote { .. } | Self::Removed { .. } => None,
            Self::PreVoteReply { term, .. }
            | Self::Vote { term, .. }
            | Self::VoteReply { term, .. }
            | Self::Append { term, .. }
            | Self::AppendReply { term, .. }
            | Self::Heartbeat { term, .. }
            | Self::HeartbeatReply { term, .. }
            | Self::TimeoutNow { term } => Some(term),
        }
    }
}

/// How a follower's log met a leader's request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AppendOutcome {
    /// The follower's log equals the leader's through this index, and holds it durably.
    Matched {
        /// The last index known to be equal.
        through: Index,
    },
    /// The logs differ at the request's previous index, or the follower's ends before it.
    Conflict {
        /// The request's previous index, repeated.
        previous: Index,
        /// The last entry of the follower at or before `previous` whose term is at most the previous term: the logs
        /// cannot be equal after it, so a term at a time is skipped (§5.3, "the optimisation").
        hint: Position,
        /// The follower's last index.
        last: Index,
    },
}
