//! One stream to or from a peer: handshake, then frames and fragments in, or messages out.
//!
//! Every server sends only on what it dialled, so a connection carries messages one way: from the dialler to the
//! acceptor. Order holds within a connection and nowhere else; half a message dies with it. A connection knows nothing
//! of sockets: it is handed bytes and hands out frames. What it keeps for a peer, known or not, is bounded, and whatever
//! was begun has a deadline.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use super::error::Violation;
use super::fragment::Reassembly;
use super::frame::{Frame, FrameCutter, FrameKind, MAX_FRAME_BYTES, ReceivedFrame};
use super::handshake::{End, Handshake, Local, Peer, Purpose, Registry};
use super::heartbeats::{Gathered, OF_ALL_GROUPS};
use super::message::PeerMessage;
use super::outbox::Outbox;
use super::refusal::{Refusal, RefusedBy, read_refusal, refused_frame};
use crate::types::{GroupId, Identity, Incarnation, Lineage, ServerId, Time};

/// The longest frame before a handshake is done, in bytes: all that an unknown peer can make us keep.
const HANDSHAKE_FRAME_BYTES: usize = 2 << 10;

/// What a message may have beyond its longest entry, in bytes: configurations in metadata, mostly.
const MESSAGE_OVERHEAD_BYTES: usize = 1 << 20;

/// The groups whose lineage one connection keeps account of.
const MAX_GROUPS: usize = 1 << 16;

/// The bounds of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectionLimits {
    /// The longest entry that a peer may send, in bytes: at least as long as the longest that any member proposes. At
    /// most 1 GiB.
    pub max_entry_bytes: usize,
    /// Bytes queued for the peer, or released and not sent, before messages are dropped. One message more is taken if
    /// it is longer than all of this.
    pub connection_bytes: usize,
    /// The handshake must be done in this time.
    pub handshake_timeout: Duration,
    /// What was begun (a frame, a fragmented message, the sending of what was released) must move within this time.
    pub stall_timeout: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            max_entry_bytes: 8 << 20,
            connection_bytes: 8 << 20,
            handshake_timeout: Duration::from_secs(2),
            stall_timeout: Duration::from_secs(5),
        }
    }
}

/// What comes out of a connection. After any but the first and the last of these, the connection is over: what
/// [`Connection::next_frame`] still hands out is to be sent, and the stream closed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConnectionEvent {
    /// The handshake is done.
    Established(Peer),
    /// One side refused the other, which both report.
    Refused {
        /// Which side.
        by: RefusedBy,
        /// Who the peer said it is, if it came to that.
        peer: Option<(ServerId, Identity)>,
        /// Why.
        refusal: Refusal,
    },
    /// The peer met an incarnation of ours that our own history lacks: our data directory is a copy. It must be marked
    /// as refused, durably, and this server stops.
    CopyDetected {
        /// The peer.
        told_by: ServerId,
        /// The pair that it met.
        pair: Incarnation,
    },
    /// The peer broke a rule.
    Violation(Violation),
    /// The peer says this about a group, or by [`PeerMessage::Heartbeats`] and [`PeerMessage::HeartbeatReplies`] about
    /// several, each of which has its lineage.
    Message {
        /// The group; 0 for several.
        group: GroupId,
        /// What it says; payloads are verified.
        message: PeerMessage,
    },
}

/// One stream to or from a peer, from the moment when bytes can flow.
pub struct Connection {
    limits: ConnectionLimits,
    is_dialled: bool,
    state: State,
    /// Whom the handshake met.
    peer: Option<Peer>,
    cutter: FrameCutter,
    reassembly: Reassembly,
    outbox: Outbox,
    /// Groups whose lineage we said, or the peer did.
    introduced: BTreeSet<GroupId>,
    /// When the part of a frame or message that is here began, or last moved.
    inbound_since: Option<Time>,
    /// When what was released and not sent began to wait, or last moved.
    outbound_since: Option<Time>,
}

enum State {
    Handshake { handshake: Box<Handshake>, deadline: Time },
    Open,
    Closed,
}

impl Connection {
    /// The stream that we dialled stands; `to` is whom we want to meet there, if we know.
    pub fn dial(local: Local, to: Option<ServerId>, purpose: Purpose, limits: ConnectionLimits, now: Time) -> Self {
        let (handshake, hello) = Handshake::dial(local, to, purpose);
        let mut connection = Self::new(handshake, true, limits, now);
        connection.say(hello);
        connection
    }

    /// A peer's stream was accepted.
    pub fn accept(local: Local, limits: ConnectionLimits, now: Time) -> Self {
        Self::new(Handshake::accept(local), false, limits, now)
    }

    fn new(handshake: Handshake, is_dialled: bool, limits: ConnectionLimits, now: Time) -> Self {
        assert!(limits.max_entry_bytes <= 1 << 30, "an entry is at most 1 GiB");
        Self {
            is_dialled,
            state: State::Handshake { handshake: Box::new(handshake), deadline: now + limits.handshake_timeout },
            peer: None,
            cutter: FrameCutter::default(),
            reassembly: Reassembly::new(limits.max_entry_bytes + MESSAGE_OVERHEAD_BYTES),
            outbox: Outbox::new(limits.connection_bytes),
            introduced: BTreeSet::new(),
            inbound_since: None,
            outbound_since: None,
            limits,
        }
    }

    /// Whom the handshake met, once it is done; also when the connection is over.
    pub fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    /// Whether we dialled.
    pub fn is_dialled(&self) -> bool {
        self.is_dialled
    }

    /// Whether the connection is over.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Takes bytes of the stream, in order, and appends what follows from them to `events`. Whole frames in `bytes` are
    /// not copied, but for small payloads; a partial one is kept, in at most [`MAX_FRAME_BYTES`].
    pub fn receive(&mut self, mut bytes: Bytes, now: Time, registry: &dyn Registry, events: &mut Vec<ConnectionEvent>) {
        let mut moved = self.inbound_since.is_none();
        while !self.is_closed() {
            let limit = match self.state {
                State::Open => MAX_FRAME_BYTES,
                State::Handshake { .. } | State::Closed => HANDSHAKE_FRAME_BYTES,
            };
            let taken = match self.cutter.next(&mut bytes, limit) {
                Ok(Some(frame)) => self.take_frame(frame, registry, events),
                Ok(None) => break,
                Err(violation) => Err(violation),
            };
            moved = true;
            if let Err(violation) = taken {
                self.close();
                events.push(ConnectionEvent::Violation(violation));
            }
        }
        if !self.cutter.is_inside_frame() && !self.reassembly.is_inside_message() {
            self.inbound_since = None;
        } else if moved {
            self.inbound_since = Some(now);
        }
    }

    /// Queues a message of `group`. Says the group's `lineage` first, once a connection; only the messages that form a
    /// group go without one.
    ///
    /// Returns `false` if the message was dropped: the connection is not established, or its budget is used up. As on
    /// any lossy link, whoever sent it sends again or does without.
    ///
    /// # Panics
    /// If the message does not belong on a connection of this purpose, or lacks its lineage, or we did not dial.
    #[must_use = "the message may have been dropped"]
    pub fn send(&mut self, group: GroupId, lineage: Option<Lineage>, message: &PeerMessage) -> bool {
        let (State::Open, Some(peer)) = (&self.state, &self.peer) else { return false };
        let kind = message.kind();
        assert!(self.is_dialled, "each server sends only on what it dialled");
        assert!(is_allowed(kind, peer.purpose), "a {kind:?} message on a connection for {:?}", peer.purpose);
        if let PeerMessage::Lineage(lineage) = *message {
            return self.say_lineage(group, lineage);
        }
        if needs_lineage(kind) {
            let lineage = lineage.expect("a formed group's messages come with its lineage");
            if !self.say_lineage(group, lineage) {
                return false;
            }
        }
        if let PeerMessage::Raft(beat) = message
            && Gathered::is_for(message)
        {
            return self.outbox.gather(group, beat);
        }
        let encoded = message.encode();
        if is_bulk(kind) {
            self.outbox.push_bulk(group, encoded)
        } else {
            self.outbox.push_prompt(encoded.into_frame(group))
        }
    }

    /// Says a group's lineage, if that was not done on this connection; whether it is said now.
    fn say_lineage(&mut self, group: GroupId, lineage: Lineage) -> bool {
        if self.introduced.contains(&group) {
            return true;
        }
        // The prompt lane, so that no message of the group overtakes it.
        let is_said = self.introduced.len() < MAX_GROUPS
            && self.outbox.push_prompt(PeerMessage::Lineage(lineage).encode().into_frame(group));
        if is_said {
            self.introduced.insert(group);
        }
        is_said
    }

    /// Ends the connection with a reason that the peer reports. Its frame is still handed out, if the reserve has room
    /// for it: a peer that took nothing for long is not told.
    pub fn refuse(&mut self, refusal: &Refusal) {
        if !self.is_closed() {
            let _ = self.outbox.push_prompt(refused_frame(refusal));
            self.close();
        }
    }

    /// The next frame to be handed to the stream, if one may go now: bulk waits while much was handed out and not sent.
    pub fn next_frame(&mut self, now: Time) -> Option<Frame> {
        let frame = self.outbox.next_frame()?;
        self.outbound_since.get_or_insert(now);
        Some(frame)
    }

    /// So many bytes of what was handed out have gone. More may be released now.
    ///
    /// # Panics
    /// If that is more than was handed out.
    pub fn sent(&mut self, bytes: usize, now: Time) {
        self.outbox.sent(bytes);
        self.outbound_since = (self.outbox.unsent_bytes() > 0).then_some(now);
    }

    /// Bytes that wait: queued, or handed out and not sent.
    pub fn pending_bytes(&self) -> usize {
        self.outbox.pending_bytes()
    }

    /// When [`Connection::expire`] must be called at the latest.
    pub fn deadline(&self) -> Time {
        let stalled = |since: Option<Time>| since.map_or(Time::NEVER, |since| since + self.limits.stall_timeout);
        match self.state {
            State::Handshake { deadline, .. } => deadline,
            State::Open => stalled(self.inbound_since).min(stalled(self.outbound_since)),
            State::Closed => Time::NEVER,
        }
    }

    /// Closes the connection if its deadline has passed.
    pub fn expire(&mut self, now: Time, events: &mut Vec<ConnectionEvent>) {
        if now < self.deadline() || self.is_closed() {
            return;
        }
        let violation = match self.state {
            State::Handshake { .. } => Violation::HandshakeTooSlow,
            State::Open | State::Closed => Violation::Stalled,
        };
        self.close();
        events.push(ConnectionEvent::Violation(violation));
    }

    /// Queues a frame of the handshake.
    fn say(&mut self, frame: Frame) {
        let is_queued = self.outbox.push_prompt(frame);
        assert!(is_queued, "the reserve holds a handshake");
    }

    /// Drops whatever was half received. What was to be said still goes.
    fn close(&mut self) {
        self.state = State::Closed;
        self.cutter = FrameCutter::default();
        self.reassembly = Reassembly::new(0);
    }

    fn take_frame(
        &mut self,
        frame: ReceivedFrame,
        registry: &dyn Registry,
        events: &mut Vec<ConnectionEvent>,
    ) -> Result<(), Violation> {
        let ReceivedFrame { kind, group, metadata, payload } = frame;
        match &mut self.state {
            State::Handshake { handshake, .. } => {
                if !payload.is_empty() {
                    return Err(Violation::PayloadLength { kind, named: 0, found: payload.len() });
                }
                let step = handshake.receive(kind, &metadata, registry)?;
                if let Some(frame) = step.say {
                    self.say(frame);
                }
                if let Some(end) = step.end {
                    self.end_handshake(end, events);
                }
                Ok(())
            }
            // The only thing that an acceptor says after the handshake is why it ends the connection.
            State::Open if self.is_dialled && kind == FrameKind::Refused => {
                let peer = self.peer.as_ref().map(|peer| (peer.id, peer.identity));
                let refusal = read_refusal(&metadata)?;
                self.close();
                events.push(ConnectionEvent::Refused { by: RefusedBy::Peer, peer, refusal });
                Ok(())
            }
            State::Open if self.is_dialled => Err(Violation::OutOfTurn { kind }),
            State::Open if kind == FrameKind::Fragment => match self.reassembly.receive(group, &metadata, &payload)? {
                Some(whole) => self.deliver(whole.kind, group, &whole.metadata, whole.payload, events),
                None => Ok(()),
            },
            State::Open => self.deliver(kind, group, &metadata, payload, events),
            State::Closed => Ok(()),
        }
    }

    fn end_handshake(&mut self, end: End, events: &mut Vec<ConnectionEvent>) {
        events.push(match end {
            End::Established(peer) => {
                self.state = State::Open;
                self.peer = Some(peer.clone());
                ConnectionEvent::Established(peer)
            }
            End::Refused { by, peer, refusal } => {
                self.close();
                ConnectionEvent::Refused { by, peer, refusal }
            }
            End::Copy { told_by, pair } => {
                self.close();
                ConnectionEvent::CopyDetected { told_by, pair }
            }
        });
    }

    /// A whole message, in one frame or put together.
    fn deliver(
        &mut self,
        kind: FrameKind,
        group: GroupId,
        metadata: &[u8],
        payload: Bytes,
        events: &mut Vec<ConnectionEvent>,
    ) -> Result<(), Violation> {
        if !self.peer.as_ref().is_some_and(|peer| is_allowed(kind, peer.purpose)) {
            return Err(Violation::OutOfTurn { kind });
        }
        let knows = |group: GroupId| match self.introduced.contains(&group) {
            true => Ok(()),
            false => Err(Violation::NoLineage { group, kind }),
        };
        let is_of_all = matches!(kind, FrameKind::Heartbeats | FrameKind::HeartbeatReplies);
        if needs_lineage(kind) && !is_of_all {
            knows(group)?;
        }
        let message = PeerMessage::decode(kind, metadata, payload)?;
        match &message {
            PeerMessage::Heartbeats(rows) => rows.iter().try_for_each(|row| knows(row.group))?,
            PeerMessage::HeartbeatReplies(rows) => rows.iter().try_for_each(|row| knows(row.group))?,
            _ => {}
        }
        if is_of_all && group != OF_ALL_GROUPS {
            return Err(Violation::Value { kind, field: "group" });
        }
        if kind == FrameKind::Lineage {
            if self.introduced.len() >= MAX_GROUPS {
                return Err(Violation::TooManyGroups { limit: MAX_GROUPS });
            }
            if !self.introduced.insert(group) {
                return Err(Violation::LineageTwice { group });
            }
        }
        events.push(ConnectionEvent::Message { group, message });
        Ok(())
    }
}

/// Whether a kind of message may come on a connection of this purpose.
fn is_allowed(kind: FrameKind, purpose: Purpose) -> bool {
    match kind {
        FrameKind::Hello
        | FrameKind::Welcome
        | FrameKind::Confirm
        | FrameKind::Ready
        | FrameKind::Refused
        | FrameKind::Fragment => false,
        FrameKind::Lineage => true,
        FrameKind::SnapshotStart | FrameKind::SnapshotChunk => purpose == Purpose::Snapshot,
        _ => purpose == Purpose::Messages,
    }
}

/// Whether the group's lineage must have been said before a message of this kind: it speaks of a formed group's log.
fn needs_lineage(kind: FrameKind) -> bool {
    match kind {
        FrameKind::PreVote
        | FrameKind::PreVoteReply
        | FrameKind::Vote
        | FrameKind::VoteReply
        | FrameKind::Append
        | FrameKind::AppendReply
        | FrameKind::Heartbeats
        | FrameKind::HeartbeatReplies
        | FrameKind::TimeoutNow
        | FrameKind::Removed
        | FrameKind::SnapshotStart
        | FrameKind::SnapshotChunk
        | FrameKind::SnapshotProgress
        | FrameKind::SnapshotRefused
        | FrameKind::Forward
        | FrameKind::ForwardReply
        | FrameKind::ReadIndex
        | FrameKind::ReadIndexReply
        | FrameKind::DigestQuery
        | FrameKind::DigestReport => true,
        FrameKind::Hello
        | FrameKind::Welcome
        | FrameKind::Confirm
        | FrameKind::Ready
        | FrameKind::Refused
        | FrameKind::Lineage
        | FrameKind::LineageRefused
        | FrameKind::Introduce
        | FrameKind::EntryOneRequest
        | FrameKind::EntryOne
        | FrameKind::FormationRefused
        | FrameKind::Fragment => false,
    }
}

/// Whether messages of this kind can be long, and so keep their order among each other behind everything prompt.
fn is_bulk(kind: FrameKind) -> bool {
    matches!(
        kind,
        FrameKind::Append
            | FrameKind::EntryOne
            | FrameKind::SnapshotStart
            | FrameKind::SnapshotChunk
            | FrameKind::Forward
    )
}
