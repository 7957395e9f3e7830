//! What two servers say to each other once they have met, and how each of it is encoded.
//!
//! One frame kind a message kind. The metadata is structured and goes through the codec; entry payloads and pieces of
//! snapshots are raw behind it, shared where they are large and put together where they are small. Decoding verifies
//! every payload's CRC32C, so nothing damaged goes on from here.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use super::error::Violation;
use super::forward::{self, ForwardAnswer, ForwardRow, RequestId};
use super::frame::{Frame, FrameCutter, FrameDraft, FrameKind, MAX_FRAME_BYTES};
use super::heartbeats::{HeartbeatReplyRow, HeartbeatRow};
use crate::codec;
use crate::types::{
    AppendOutcome, Entry, EntryKind, FIRST_INDEX, GroupId, Index, Lineage, LogTime, Message, Position, Proposed,
    SnapshotMeta, StateDigest, Term,
};

/// What an entry takes in a frame beyond its payload, in bytes.
pub const ENTRY_ROW_BYTES: usize = 25;

/// Payloads shorter than this are copied together: a system call for 256 tiny pieces costs more than the copy.
const SMALL_PAYLOAD_BYTES: usize = 1 << 10;

/// The longest text that a refusal carries, in bytes.
pub(super) const MAX_TEXT_BYTES: usize = 1 << 10;

/// A message between two servers about one group, or of heartbeats about any number of them, after their handshake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerMessage {
    /// A message of the group's core. The receiver must know the sender's lineage first. Heartbeats and their answers are
    /// sent like any other, and come as one of the next two.
    Raft(Message),
    /// Heartbeats of groups that the sender leads, one at least.
    Heartbeats(Vec<HeartbeatRow>),
    /// What groups answer to heartbeats, one at least.
    HeartbeatReplies(Vec<HeartbeatReplyRow>),
    /// "My group is this one": said once a connection, before any [`PeerMessage::Raft`] or snapshot of the group.
    Lineage(Lineage),
    /// "Yours is another group under the same id; mine is this one." The receiver sends nothing more of that group.
    LineageRefused(Lineage),
    /// A member of a group to be formed says what it was started with (bootstrap).
    Introduce {
        /// Of cluster id, group id and member list with addresses and context.
        digest: [u8; 32],
        /// The lineage, once the sender has a synced entry 1.
        formed: Option<Lineage>,
    },
    /// Asks a formed member for entry 1, byte for byte.
    EntryOneRequest {
        /// The asker's digest; another one is refused. A server that joins knows no arguments, and has none.
        digest: Option<[u8; 32]>,
    },
    /// Entry 1, to be checked against the receiver's own arguments and identity.
    EntryOne {
        /// The group's lineage, which a server that joins adopts.
        lineage: Lineage,
        /// The entry.
        entry: Entry,
    },
    /// The receiver may not form or join this group as it was started.
    FormationRefused {
        /// What differs, and what to do. Cut after 1 KiB.
        reason: String,
    },
    /// Opens a snapshot stream: the chunks follow on the same connection (§7).
    SnapshotStart {
        /// The leader's term.
        term: Term,
        /// The leader's number for this stream, never used again in its term.
        number: u64,
        /// What the snapshot stands for.
        meta: SnapshotMeta,
        /// Entry 1, which every snapshot keeps.
        entry_one: Entry,
    },
    /// One piece of the snapshot file. Pieces may be sent again from what the receiver said is durable.
    SnapshotChunk {
        /// The snapshot's position: which snapshot it is a piece of.
        position: Position,
        /// Where the piece lies in the file, in bytes.
        offset: u64,
        /// CRC32C of `bytes`; verified here.
        crc: u32,
        /// The piece.
        bytes: Bytes,
    },
    /// How far a snapshot stream is. Comes on the receiver's own connection for messages.
    SnapshotProgress {
        /// The receiver's term.
        term: Term,
        /// The stream's number, repeated.
        number: u64,
        /// The snapshot's position, repeated.
        position: Position,
        /// The file is durable up to here, in bytes: where a new stream continues.
        durable_bytes: u64,
        /// The whole snapshot is installed, durably.
        is_installed: bool,
    },
    /// The receiver does not take this snapshot stream.
    SnapshotRefused {
        /// The receiver's term.
        term: Term,
        /// The stream's number, repeated.
        number: u64,
        /// The snapshot's position, repeated.
        position: Position,
        /// Why.
        reason: SnapshotRefusal,
    },
    /// What the sender's host proposes, for the leader of `term` to append. Sent once, and never again.
    Forward {
        /// Names it in the answer.
        request: RequestId,
        /// The term in which the receiver leads, as the sender knows: a leader of another takes nothing.
        term: Term,
        /// What to append, in order; never empty.
        proposals: Vec<Proposed>,
    },
    /// The answer to a [`PeerMessage::Forward`]. Comes on the leader's own connection, ahead of the entries.
    ForwardReply {
        /// The request, repeated.
        request: RequestId,
        /// What became of it.
        answer: ForwardAnswer,
    },
    /// Asks the leader of `term` what a linearizable read that comes now must cover (dissertation §6.4).
    ReadIndex {
        /// Names it in the answer.
        request: RequestId,
        /// The term in which the receiver leads, as the sender knows.
        term: Term,
    },
    /// The answer to a [`PeerMessage::ReadIndex`].
    ReadIndexReply {
        /// The request, repeated.
        request: RequestId,
        /// What the read must cover; `None` if the sender does not lead, or leads no more.
        index: Option<Index>,
    },
    /// A leader asks what the receiver's state came down to at a digest request. Asked again until it is answered.
    DigestQuery {
        /// The entry of the request.
        index: Index,
    },
    /// What the sender's state came down to: said to the leader when it is known, and when asked. True in any term, for
    /// who digests at an entry knows it to be committed.
    DigestReport {
        /// The entry of the request.
        index: Index,
        /// The number of the sender's open: a later one may have another state.
        incarnation: u64,
        /// `None`: it cannot say, and never will.
        digest: Option<StateDigest>,
    },
}

/// Why a snapshot stream is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SnapshotRefusal {
    /// The stream is of a term that has passed.
    OldTerm,
    /// The receiver's log or snapshot covers as much already.
    Stale,
    /// A piece does not continue what is there; start again from [`PeerMessage::SnapshotProgress`].
    OutOfOrder,
    /// The whole file is not the one that its metadata names; it was dropped.
    Damaged,
    /// The disk has no room or failed.
    NoRoom,
    /// Another snapshot is being installed.
    Busy,
}

/// An entry's metadata: its index follows from its place in the message.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct EntryRow {
    term: Term,
    log_time: LogTime,
    kind: u8,
    length: u32,
    crc: u32,
}

/// The metadata of an Append on its way out; as `AppendIn`, without a row collection of its own.
struct AppendOut<'a> {
    term: Term,
    number: u64,
    previous: Position,
    commit: Index,
    entries: &'a [Entry],
}

impl Serialize for AppendOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Rows<'a>(&'a [Entry]);
        impl Serialize for Rows<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq(self.0.iter().map(EntryRow::of))
            }
        }
        let mut fields = serializer.serialize_struct("Append", 5)?;
        fields.serialize_field("term", &self.term)?;
        fields.serialize_field("number", &self.number)?;
        fields.serialize_field("previous", &self.previous)?;
        fields.serialize_field("commit", &self.commit)?;
        fields.serialize_field("entries", &Rows(self.entries))?;
        fields.end()
    }
}

#[derive(Deserialize)]
struct AppendIn {
    term: Term,
    number: u64,
    previous: Position,
    commit: Index,
    entries: Vec<EntryRow>,
}

/// [`AppendOutcome`] on the wire.
#[derive(Serialize, Deserialize)]
enum Outcome {
    Matched { through: Index },
    Conflict { previous: Index, hint: Position, last: Index },
}

impl EntryRow {
    fn of(entry: &Entry) -> Self {
        Self {
            term: entry.term,
            log_time: entry.log_time,
            kind: entry.kind as u8,
            length: u32::try_from(entry.payload.len()).expect("an entry is shorter than 4 GiB"),
            crc: entry.payload_crc,
        }
    }

    /// The entry, its payload verified.
    fn entry(self, kind: FrameKind, index: Index, payload: Bytes) -> Result<Entry, Violation> {
        let entry_kind = EntryKind::from_number(self.kind).ok_or(Violation::Value { kind, field: "entry kind" })?;
        let Self { term, log_time, crc: payload_crc, .. } = self;
        let entry = Entry { index, term, log_time, kind: entry_kind, payload_crc, payload };
        if entry.is_intact() { Ok(entry) } else { Err(Violation::EntryDamaged { index }) }
    }
}

/// A message on its way out: what a frame holds, but of any length.
pub(super) struct Encoded {
    pub(super) kind: FrameKind,
    pub(super) draft: FrameDraft,
    pub(super) payloads: Vec<Bytes>,
}

impl PeerMessage {
    /// The kind of frame that carries it.
    pub fn kind(&self) -> FrameKind {
        match self {
            Self::Raft(Message::PreVote { .. }) => FrameKind::PreVote,
            Self::Raft(Message::PreVoteReply { .. }) => FrameKind::PreVoteReply,
            Self::Raft(Message::Vote { .. }) => FrameKind::Vote,
            Self::Raft(Message::VoteReply { .. }) => FrameKind::VoteReply,
            Self::Raft(Message::Append { .. }) => FrameKind::Append,
            Self::Raft(Message::AppendReply { .. }) => FrameKind::AppendReply,
            Self::Raft(Message::Heartbeat { .. }) | Self::Heartbeats(_) => FrameKind::Heartbeats,
            Self::Raft(Message::HeartbeatReply { .. }) | Self::HeartbeatReplies(_) => FrameKind::HeartbeatReplies,
            Self::Raft(Message::TimeoutNow { .. }) => FrameKind::TimeoutNow,
            Self::Raft(Message::Removed { .. }) => FrameKind::Removed,
            Self::Lineage(_) => FrameKind::Lineage,
            Self::LineageRefused(_) => FrameKind::LineageRefused,
            Self::Introduce { .. } => FrameKind::Introduce,
            Self::EntryOneRequest { .. } => FrameKind::EntryOneRequest,
            Self::EntryOne { .. } => FrameKind::EntryOne,
            Self::FormationRefused { .. } => FrameKind::FormationRefused,
            Self::SnapshotStart { .. } => FrameKind::SnapshotStart,
            Self::SnapshotChunk { .. } => FrameKind::SnapshotChunk,
            Self::SnapshotProgress { .. } => FrameKind::SnapshotProgress,
            Self::SnapshotRefused { .. } => FrameKind::SnapshotRefused,
            Self::Forward { .. } => FrameKind::Forward,
            Self::ForwardReply { .. } => FrameKind::ForwardReply,
            Self::ReadIndex { .. } => FrameKind::ReadIndex,
            Self::ReadIndexReply { .. } => FrameKind::ReadIndexReply,
            Self::DigestQuery { .. } => FrameKind::DigestQuery,
            Self::DigestReport { .. } => FrameKind::DigestReport,
        }
    }

    /// Encodes in one pass over the entries: one allocation for header and metadata, and one for each run of small
    /// payloads.
    ///
    /// # Panics
    /// If the entries of an Append do not follow `previous` without a gap: then the core is broken. Or if it is one
    /// heartbeat, or an answer to one: those gather.
    pub(super) fn encode(&self) -> Encoded {
        let kind = self.kind();
        let encoded = |draft, payloads| Encoded { kind, draft, payloads };
        macro_rules! plain {
            ($($field:expr),*) => { encoded(FrameDraft::with(&($($field,)*), 64), Vec::new()) };
        }
        match self {
            Self::Raft(message) => match *message {
                Message::PreVote { campaign_term, last } => plain!(campaign_term, last),
                Message::PreVoteReply { term, campaign_term, granted } => plain!(term, campaign_term, granted),
                Message::Vote { term, last, is_transfer } => plain!(term, last, is_transfer),
                Message::VoteReply { term, granted } => plain!(term, granted),
                Message::Append { term, number, previous, commit, ref entries } => {
                    let follows = |(index, entry): (Index, &Entry)| index == entry.index;
                    assert!((previous.index + 1..).zip(entries).all(follows), "entries must follow {previous:?}");
                    let out = AppendOut { term, number, previous, commit, entries };
                    let metadata_bytes = 48 + entries.len() * ENTRY_ROW_BYTES;
                    encoded(FrameDraft::with(&out, metadata_bytes), gather(entries, |entry| &entry.payload))
                }
                Message::AppendReply { term, number, outcome } => {
                    let outcome = match outcome {
                        AppendOutcome::Matched { through } => Outcome::Matched { through },
                        AppendOutcome::Conflict { previous, hint, last } => Outcome::Conflict { previous, hint, last },
                    };
                    plain!(term, number, outcome)
                }
                Message::Heartbeat { .. } | Message::HeartbeatReply { .. } => {
                    panic!("heartbeats gather, and go as rows")
                }
                Message::TimeoutNow { term } => plain!(term),
                Message::Removed { index } => plain!(index),
            },
            Self::Heartbeats(rows) => encoded(FrameDraft::with(rows, 8 + 32 * rows.len()), Vec::new()),
            Self::HeartbeatReplies(rows) => encoded(FrameDraft::with(rows, 8 + 32 * rows.len()), Vec::new()),
            Self::Lineage(lineage) | Self::LineageRefused(lineage) => plain!(lineage),
            Self::Introduce { digest, formed } => plain!(digest, formed),
            Self::EntryOneRequest { digest } => plain!(digest),
            Self::EntryOne { lineage, entry } => {
                let fields = (lineage, entry_one_row(entry));
                let payloads = gather(std::slice::from_ref(entry), |entry| &entry.payload);
                encoded(FrameDraft::with(&fields, 32 + ENTRY_ROW_BYTES), payloads)
            }
            Self::FormationRefused { reason } => plain!(cut(reason)),
            Self::SnapshotStart { term, number, meta, entry_one } => {
                let fields = (*term, *number, meta, entry_one_row(entry_one));
                encoded(FrameDraft::with(&fields, 512), gather(std::slice::from_ref(entry_one), |entry| &entry.payload))
            }
            Self::SnapshotChunk { position, offset, crc, bytes } => {
                let payloads = if bytes.is_empty() { Vec::new() } else { vec![bytes.clone()] };
                encoded(FrameDraft::with(&(position, offset, crc), 32), payloads)
            }
            Self::SnapshotProgress { term, number, position, durable_bytes, is_installed } => {
                plain!(term, number, position, durable_bytes, is_installed)
            }
            Self::SnapshotRefused { term, number, position, reason } => plain!(term, number, position, reason),
            Self::Forward { request, term, proposals } => {
                assert!(!proposals.is_empty(), "nothing is forwarded in vain");
                let rows: Vec<_> = proposals.iter().map(ForwardRow::of).collect();
                let draft = FrameDraft::with(&(request, term, &rows), 32 + rows.len() * ForwardRow::BYTES);
                encoded(draft, gather(proposals, |proposed| &proposed.payload))
            }
            Self::ForwardReply { request, answer } => plain!(request, answer),
            Self::ReadIndex { request, term } => plain!(request, term),
            Self::ReadIndexReply { request, index } => plain!(request, index),
            Self::DigestQuery { index } => plain!(index),
            Self::DigestReport { index, incarnation, digest } => plain!(index, incarnation, digest),
        }
    }

    /// Reads a message of `kind`, whose metadata is whole and undamaged, and verifies its payload.
    pub(super) fn decode(kind: FrameKind, metadata: &[u8], payload: Bytes) -> Result<Self, Violation> {
        fn read<T: DeserializeOwned>(kind: FrameKind, metadata: &[u8]) -> Result<T, Violation> {
            codec::decode(metadata).map_err(|error| Violation::Metadata { kind, error })
        }
        macro_rules! plain {
            (|$($field:ident),*| $message:expr) => {{
                exactly(kind, 0, &payload)?;
                let ($($field,)*) = read(kind, metadata)?;
                $message
            }};
        }
        Ok(match kind {
            FrameKind::PreVote => plain!(|campaign_term, last| Self::Raft(Message::PreVote { campaign_term, last })),
            FrameKind::PreVoteReply => plain!(|term, campaign_term, granted| Self::Raft(Message::PreVoteReply {
                term,
                campaign_term,
                granted
            })),
            FrameKind::Vote => {
                plain!(|term, last, is_transfer| Self::Raft(Message::Vote { term, last, is_transfer }))
            }
            FrameKind::VoteReply => plain!(|term, granted| Self::Raft(Message::VoteReply { term, granted })),
            FrameKind::Append => {
                let AppendIn { term, number, previous, commit, entries } = read(kind, metadata)?;
                let entries = scatter(kind, previous.index, &entries, payload)?;
                Self::Raft(Message::Append { term, number, previous, commit, entries })
            }
            FrameKind::AppendReply => plain!(|term, number, outcome| {
                let outcome = match outcome {
                    Outcome::Matched { through } => AppendOutcome::Matched { through },
                    Outcome::Conflict { previous, hint, last } => AppendOutcome::Conflict { previous, hint, last },
                };
                Self::Raft(Message::AppendReply { term, number, outcome })
            }),
            FrameKind::Heartbeats => {
                exactly(kind, 0, &payload)?;
                Self::Heartbeats(some_rows(kind, read(kind, metadata)?)?)
            }
            FrameKind::HeartbeatReplies => {
                exactly(kind, 0, &payload)?;
                Self::HeartbeatReplies(some_rows(kind, read(kind, metadata)?)?)
            }
            FrameKind::TimeoutNow => {
                exactly(kind, 0, &payload)?;
                Self::Raft(Message::TimeoutNow { term: read(kind, metadata)? })
            }
            FrameKind::Removed => {
                exactly(kind, 0, &payload)?;
                Self::Raft(Message::Removed { index: read(kind, metadata)? })
            }
            FrameKind::Lineage => plain!(|lineage| Self::Lineage(lineage)),
            FrameKind::LineageRefused => plain!(|lineage| Self::LineageRefused(lineage)),
            FrameKind::Introduce => plain!(|digest, formed| Self::Introduce { digest, formed }),
            FrameKind::EntryOneRequest => plain!(|digest| Self::EntryOneRequest { digest }),
            FrameKind::EntryOne => {
                let (lineage, row): (Lineage, EntryRow) = read(kind, metadata)?;
                exactly(kind, row.length.into(), &payload)?;
                Self::EntryOne { lineage, entry: row.entry(kind, FIRST_INDEX, payload)? }
            }
            FrameKind::FormationRefused => plain!(|reason| Self::FormationRefused { reason: printable(reason) }),
            FrameKind::SnapshotStart => {
                let (term, number, meta, row): (_, _, _, EntryRow) = read(kind, metadata)?;
                exactly(kind, row.length.into(), &payload)?;
                let entry_one = row.entry(kind, FIRST_INDEX, payload)?;
                Self::SnapshotStart { term, number, meta, entry_one }
            }
            FrameKind::SnapshotChunk => {
                let (position, offset, crc) = read(kind, metadata)?;
                if crc32c::crc32c(&payload) != crc {
                    return Err(Violation::PieceDamaged { kind });
                }
                Self::SnapshotChunk { position, offset, crc, bytes: payload }
            }
            FrameKind::SnapshotProgress => plain!(|term, number, position, durable_bytes, is_installed| {
                Self::SnapshotProgress { term, number, position, durable_bytes, is_installed }
            }),
            FrameKind::SnapshotRefused => {
                plain!(|term, number, position, reason| Self::SnapshotRefused { term, number, position, reason })
            }
            FrameKind::Forward => {
                let (request, term, rows): (_, _, Vec<ForwardRow>) = read(kind, metadata)?;
                let named = rows.iter().map(|row| u64::from(row.length)).sum();
                exactly(kind, named, &payload)?;
                Self::Forward { request, term, proposals: forward::scatter(rows, payload)? }
            }
            FrameKind::ForwardReply => plain!(|request, answer| Self::ForwardReply { request, answer }),
            FrameKind::ReadIndex => plain!(|request, term| Self::ReadIndex { request, term }),
            FrameKind::ReadIndexReply => plain!(|request, index| Self::ReadIndexReply { request, index }),
            FrameKind::DigestQuery => {
                exactly(kind, 0, &payload)?;
                Self::DigestQuery { index: read(kind, metadata)? }
            }
            FrameKind::DigestReport => {
                plain!(|index, incarnation, digest| Self::DigestReport { index, incarnation, digest })
            }
            FrameKind::Hello
            | FrameKind::Welcome
            | FrameKind::Confirm
            | FrameKind::Ready
            | FrameKind::Refused
            | FrameKind::Fragment => return Err(Violation::OutOfTurn { kind }),
        })
    }
}

fn entry_one_row(entry: &Entry) -> EntryRow {
    assert_eq!(entry.index, FIRST_INDEX, "only entry 1 travels alone");
    EntryRow::of(entry)
}

/// The payloads as few pieces: large ones are shared, runs of small ones are copied together.
fn gather<T>(items: &[T], payload: impl Fn(&T) -> &Bytes) -> Vec<Bytes> {
    let is_small = |item: &T| payload(item).len() < SMALL_PAYLOAD_BYTES;
    let mut pieces = Vec::new();
    for run in items.chunk_by(|left, right| is_small(left) && is_small(right)) {
        let piece = match run {
            [one] => payload(one).clone(),
            many => {
                let mut together = Vec::with_capacity(many.iter().map(|item| payload(item).len()).sum());
                many.iter().for_each(|item| together.extend_from_slice(payload(item)));
                Bytes::from(together)
            }
        };
        if !piece.is_empty() {
            pieces.push(piece);
        }
    }
    pieces
}

/// The entries after `previous`, their payloads cut from `payload` without a copy, and verified.
fn scatter(kind: FrameKind, previous: Index, rows: &[EntryRow], mut payload: Bytes) -> Result<Vec<Entry>, Violation> {
    let named: u64 = rows.iter().map(|row| u64::from(row.length)).sum();
    exactly(kind, named, &payload)?;
    if previous.checked_add(rows.len() as u64).is_none() {
        return Err(Violation::Value { kind, field: "previous index" });
    }
    let mut entries = Vec::with_capacity(rows.len());
    for (row, index) in rows.iter().zip(previous + 1..) {
        entries.push(row.entry(kind, index, payload.split_to(row.length as usize))?);
    }
    Ok(entries)
}

fn some_rows<T>(kind: FrameKind, rows: Vec<T>) -> Result<Vec<T>, Violation> {
    if rows.is_empty() { Err(Violation::Value { kind, field: "number of groups" }) } else { Ok(rows) }
}

fn exactly(kind: FrameKind, named: u64, payload: &Bytes) -> Result<(), Violation> {
    match payload.len() as u64 == named {
        true => Ok(()),
        false => Err(Violation::PayloadLength { kind, named, found: payload.len() }),
    }
}

/// As much of `text` as [`MAX_TEXT_BYTES`] hold.
pub(super) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT_BYTES)]
}

/// `text` of a peer, fit to be shown: a peer must not write lines or control a terminal of ours.
pub(super) fn printable(text: String) -> String {
    if text.contains(char::is_control) { text.replace(char::is_control, "\u{fffd}") } else { text }
}

impl Encoded {
    /// How many bytes one frame with all of it would have.
    pub(super) fn frame_bytes(&self) -> usize {
        self.draft.head.len() + self.payloads.iter().map(Bytes::len).sum::<usize>()
    }

    /// One frame with all of it, which must fit.
    pub(super) fn into_frame(self, group: GroupId) -> super::frame::Frame {
        self.draft.finish(self.kind, group, self.payloads)
    }
}

/// The messages of cores that a frame of ours carries, if it carries whole ones and nothing else: those of one group, or
/// heartbeats of many.
pub fn core_messages(frame: &Frame) -> Vec<(GroupId, Message)> {
    let Ok(Some(whole)) = FrameCutter::default().next(&mut frame.to_bytes(), MAX_FRAME_BYTES) else {
        return Vec::new();
    };
    let is_core = matches!(
        whole.kind,
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
    );
    match is_core.then(|| PeerMessage::decode(whole.kind, &whole.metadata, whole.payload)) {
        Some(Ok(PeerMessage::Raft(message))) => vec![(whole.group, message)],
        Some(Ok(PeerMessage::Heartbeats(rows))) => rows.into_iter().map(HeartbeatRow::message).collect(),
        Some(Ok(PeerMessage::HeartbeatReplies(rows))) => rows.into_iter().map(HeartbeatReplyRow::message).collect(),
        _ => Vec::new(),
    }
}
