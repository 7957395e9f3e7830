//! Snapshots of a group (§7): taken from the host, sent to a peer, received from a leader; and the log's compaction.
//!
//! The order is the same everywhere: the file is complete and durable under its name, then its mark is durable in the
//! log, and only then the state machine is restored from it, or the log compacted behind it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::group::complete;
use super::{ConnectionId, Driver, Effect, NotApplied, Notice, Outcome, ReadPurpose, Ticket, Unknown};
use crate::core::Offer;
use crate::storage::{Record, RecordNumber, SnapshotHead, SnapshotOrigin};
use crate::transport::{PeerMessage, SnapshotRefusal};
use crate::types::{
    Entry, FileName, GroupId, Index, Lineage, Position, ServerId, SnapshotMeta, SnapshotSection, Term, Time,
};

/// One chunk of a snapshot file on the wire, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// How far a sender may be ahead of what the receiver has stored, in bytes.
const WINDOW_BYTES: u64 = 1 << 20;

/// What a group does with snapshots.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    /// The host writes one: what it will cover.
    pub(super) taking: Option<Taking>,
    /// Who asked for one.
    pub(super) waiting: Vec<Ticket>,
    /// Streams to peers.
    pub(super) sending: BTreeMap<ServerId, Sending>,
    /// A stream from a leader.
    pub(super) receiving: Option<Receiving>,
    /// One was received, in whole or in part, since the open.
    has_received: bool,
    /// A stored snapshot whose mark is not durable yet: when it is, the log is compacted behind it.
    pub(super) marking: Option<Index>,
    /// The file of a received snapshot that waits for its mark, and where it came from.
    pub(super) installing: Option<(FileName, Receiving)>,
    /// The length of the last snapshot file, in bytes.
    pub(super) last_bytes: u64,
    /// Do not try again before this, after a failure.
    pub(super) retry_at: Option<Time>,
}

/// A snapshot that the host writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taking {
    index: Index,
    /// The host has said its last.
    is_written: bool,
}

/// A stream to a peer.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) connection: ConnectionId,
    number: u64,
    term: Term,
    meta: SnapshotMeta,
    /// The receiver told where to begin.
    is_started: bool,
    /// Not before this goes the next chunk: the limit of the stream's rate.
    next_at: Time,
    /// The next byte to read.
    offset: u64,
    /// What the receiver has stored.
    stored: u64,
    is_reading: bool,
}

/// A stream from a leader.
#[derive(Debug)]
pub(super) struct Receiving {
    from: ServerId,
    connection: ConnectionId,
    term: Term,
    number: u64,
    meta: SnapshotMeta,
}

impl Driver {
    // ---- taking ----

    pub(super) fn on_snapshot_asked(&mut self, now: Time, id: GroupId, ticket: Ticket) {
        let is_closed = self.is_closed || self.stopped.is_some();
        let refusal = match self.groups.get(&id) {
            None => Some(NotApplied::Closed),
            Some(group) if is_closed || group.stopped.is_some() => Some(NotApplied::Closed),
            Some(group) if group.formed().is_none() => Some(NotApplied::Forming),
            Some(group) if group.snapshots.taking.is_some() || group.snapshots.marking.is_some() => {
                Some(NotApplied::Busy)
            }
            Some(_) => None,
        };
        if refusal.is_none() && self.take_snapshot(now, id) {
            if let Some(group) = self.groups.get_mut(&id) {
                group.snapshots.waiting.push(ticket);
            }
            return;
        }
        let outcome = Outcome::NotApplied(refusal.unwrap_or(NotApplied::Busy));
        complete(id, vec![ticket], outcome, &mut self.effects);
    }

    /// Takes a snapshot of what the state machine was given so far, if there is anything new in it.
    pub(super) fn take_snapshot(&mut self, now: Time, id: GroupId) -> bool {
        let Some(group) = self.groups.get_mut(&id) else { return false };
        let Some(formed) = group.formed() else { return false };
        let index = formed.raft.delivered_index();
        let stored = self.storage.snapshot(id).map_or(0, |(meta, _)| meta.position.index);
        // The sessions are at `index`, and the host is not: its own state holds more.
        let is_behind = index < group.delivery.held;
        let is_busy = is_behind
            || group.snapshots.taking.is_some()
            || group.snapshots.marking.is_some()
            || group.snapshots.installing.is_some()
            || group.delivery.is_restoring
            || group.snapshots.retry_at.is_some_and(|at| now < at);
        let (Some(log_time), Some(term)) = (group.delivery.log_time, formed.raft.term_at(index)) else { return false };
        if is_busy || index <= stored {
            return false;
        }
        let (configuration_index, configuration) = formed.raft.configuration_at(index);
        let head = SnapshotHead {
            position: Position { term, index },
            log_time,
            configuration: configuration.clone(),
            configuration_index,
            first_entry: formed.first_entry.clone(),
            lineage: formed.lineage,
        };
        group.snapshots.taking = Some(Taking { index, is_written: false });
        self.storage.begin_snapshot(id, head);
        // The first step is asked for when the file is there, so that there is one on its way at a time.
        self.effects.push(Effect::BeginSnapshot { group: id, index });
        true
    }

    /// A step of the own snapshot.
    pub(super) fn on_snapshot_chunk(&mut self, id: GroupId, section: SnapshotSection, bytes: Bytes, is_last: bool) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(taking) = &mut group.snapshots.taking else { return };
        if taking.is_written {
            // Of one that was given up since.
            return;
        }
        taking.is_written = is_last;
        let is_empty = bytes.is_empty();
        if !is_empty {
            self.storage.snapshot_chunk(id, section, bytes);
        }
        if is_last {
            self.effects.push(Effect::ReleaseSnapshot { group: id });
            self.storage.finish_snapshot(id);
        } else if is_empty {
            self.effects.push(Effect::SnapshotMore { group: id });
        }
    }

    pub(super) fn on_snapshot_failed(&mut self, now: Time, id: GroupId, message: String) {
        self.storage.abort_snapshot(id, SnapshotOrigin::Host);
        self.snapshot_not_taken(now, id, message);
    }

    fn snapshot_not_taken(&mut self, now: Time, id: GroupId, message: String) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        if group.snapshots.taking.take().is_some() {
            self.effects.push(Effect::ReleaseSnapshot { group: id });
        }
        group.snapshots.retry_at = Some(now + std::time::Duration::from_secs(1));
        let waiting = std::mem::take(&mut group.snapshots.waiting);
        complete(id, waiting, Outcome::NotApplied(NotApplied::Failed(message.clone())), &mut self.effects);
        let message = format!("group {id}: no snapshot was taken: {message}");
        self.effects.push(Effect::Notice(Notice::Warning { message }));
    }

    // ---- what storage says ----

    pub(super) fn on_snapshot_progress(&mut self, id: GroupId, origin: SnapshotOrigin, file_bytes: u64) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        match origin {
            SnapshotOrigin::Host => {
                if group.snapshots.taking.is_some_and(|taking| !taking.is_written) {
                    self.effects.push(Effect::SnapshotMore { group: id });
                }
            }
            SnapshotOrigin::Peer => {
                if let Some(receiving) = &group.snapshots.receiving {
                    let (to, message) = receiving.progress(file_bytes, false);
                    self.send(id, to, message);
                }
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one event")]
    pub(super) fn on_snapshot_stored(
        &mut self,
        now: Time,
        id: GroupId,
        origin: SnapshotOrigin,
        meta: SnapshotMeta,
        first_entry: Entry,
        lineage: Lineage,
        file: FileName,
    ) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        match origin {
            SnapshotOrigin::Host => {
                let Some(taking) = group.snapshots.taking.take() else { return };
                assert_eq!(taking.index, meta.position.index, "the snapshot stored is the one that was taken");
                // An installed snapshot may have overtaken it: then it stands for nothing that the log still has.
                if formed_compacted(group) >= taking.index {
                    self.rare.snapshots_overtaken += 1;
                    let waiting = std::mem::take(&mut group.snapshots.waiting);
                    return complete(id, waiting, Outcome::NotApplied(NotApplied::Busy), &mut self.effects);
                }
                group.snapshots.last_bytes = meta.file_bytes;
                let record = self.storage.append(Record::Snapshot { group: id, meta, first_entry, lineage });
                group.snapshots.marking = Some(taking.index);
                self.snapshot_records.push((record, id));
            }
            SnapshotOrigin::Peer => {
                let Some(receiving) = group.snapshots.receiving.take() else { return };
                // Its lineage is the group's when it was taken: a recovery from the loss of a quorum keeps what was
                // before it. Whose it is now was said on the connection that it came by.
                let is_own = group.formed().is_some_and(|formed| formed.first_entry == first_entry);
                if !is_own || receiving.meta.position != meta.position {
                    return;
                }
                group.snapshots.last_bytes = meta.file_bytes;
                let Receiving { from, term, number, .. } = receiving;
                if group.run(|raft| raft.install_snapshot(now, from, term, number, meta)) == Some(true) {
                    // What was handed to the state machine is replaced as a whole.
                    group.delivery.is_restoring = true;
                    group.snapshots.installing = Some((file, receiving));
                } else {
                    let (to, message) = receiving.progress(receiving.meta.file_bytes, true);
                    self.send(id, to, message);
                }
            }
        }
    }

    pub(super) fn on_snapshot_not_stored(&mut self, now: Time, id: GroupId, origin: SnapshotOrigin, message: String) {
        match origin {
            SnapshotOrigin::Host => self.snapshot_not_taken(now, id, message),
            SnapshotOrigin::Peer => self.refuse_snapshot(id, SnapshotRefusal::Damaged),
        }
    }

    /// The mark of a snapshot is durable: the log may begin behind it.
    pub(super) fn snapshot_marks_durable(&mut self, through: RecordNumber) {
        let durable: Vec<_> = self.snapshot_records.extract_if(.., |(record, _)| *record <= through).collect();
        for (_, id) in durable {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let Some(index) = group.snapshots.marking.take() else { continue };
            self.storage.compact(id);
            group.run(|raft| raft.compact(index));
            let waiting = std::mem::take(&mut group.snapshots.waiting);
            complete(id, waiting, Outcome::SnapshotTaken { index }, &mut self.effects);
        }
    }

    /// An installed snapshot is durable, mark and all: the state machine is replaced by it.
    pub(super) fn restore(&mut self, id: GroupId, meta: SnapshotMeta) {
        self.storage.compact(id);
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some((file, receiving)) = group.snapshots.installing.take() else { return };
        let mut covered = Vec::new();
        while let Some(pending) = group.proposals.pop_front_if(|pending| pending.index <= meta.position.index) {
            covered.push(pending.ticket);
        }
        complete(id, covered, Outcome::Unknown(Unknown::LeadershipLost), &mut self.effects);
        group.delivery.is_restoring = true;
        self.effects.push(Effect::Restore { group: id, file, meta });
        let (to, message) = receiving.progress(receiving.meta.file_bytes, true);
        self.send(id, to, message);
    }

    pub(super) fn on_restored(&mut self, id: GroupId, index: Index) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.digests.restored(index);
        group.delivery.is_restoring = false;
        group.delivery.outstanding.clear();
        group.delivery.outstanding_bytes = 0;
        if group.run(|raft| raft.restored(index)).is_some() {
            group.delivery.applied = group.delivery.applied.max(index);
        }
    }

    // ---- sending ----

    /// A peer needs a snapshot: opens a connection of its own for it.
    pub(super) fn send_snapshot(&mut self, now: Time, id: GroupId, to: ServerId, number: u64) {
        self.end_sending(id, to);
        let meta = self.storage.snapshot(id).map(|(meta, _)| meta.clone());
        let address = self.links.address_of(to);
        let term = self.groups.get(&id).and_then(|group| group.formed()).map(|formed| formed.raft.hard_state().term);
        let (Some(meta), Some(address), Some(term)) = (meta, address, term) else {
            return self.snapshot_stream_failed(now, id, to);
        };
        let connection = self.dial(now, Some(to), address, crate::transport::Purpose::Snapshot);
        let sending = Sending {
            connection,
            number,
            term,
            meta,
            is_started: false,
            next_at: now,
            offset: 0,
            stored: 0,
            is_reading: false,
        };
        if let Some(group) = self.groups.get_mut(&id) {
            group.snapshots.sending.insert(to, sending);
        }
    }

    fn end_sending(&mut self, id: GroupId, to: ServerId) {
        let sending = self.groups.get_mut(&id).and_then(|group| group.snapshots.sending.remove(&to));
        if let Some(sending) = sending {
            self.close(sending.connection);
        }
    }

    fn snapshot_stream_failed(&mut self, now: Time, id: GroupId, to: ServerId) {
        self.end_sending(id, to);
        if let Some(group) = self.groups.get_mut(&id) {
            group.run(|raft| raft.snapshot_failed(now, to));
        }
    }

    /// A connection that was dialled for a snapshot stands.
    pub(super) fn snapshot_connection_ready(&mut self, connection: ConnectionId) {
        let found = self.groups.values().find_map(|group| {
            let sending = group.snapshots.sending.values().find(|sending| sending.connection == connection)?;
            Some((group.id, sending, group.formed()?))
        });
        let Some((id, sending, formed)) = found else { return self.close(connection) };
        let (lineage, entry_one) = (formed.lineage, formed.first_entry.clone());
        let start = PeerMessage::SnapshotStart {
            term: sending.term,
            number: sending.number,
            meta: sending.meta.clone(),
            entry_one,
        };
        self.send_on(connection, id, &PeerMessage::Lineage(lineage));
        self.send_on(connection, id, &start);
    }

    /// A connection ended: whatever snapshot it carried is over.
    pub(super) fn snapshot_connection_closed(&mut self, now: Time, connection: ConnectionId) {
        let sending: Vec<_> = (self.groups.values())
            .flat_map(|group| {
                group.snapshots.sending.iter().map(move |(&to, sending)| (group.id, to, sending.connection))
            })
            .filter(|&(_, _, of)| of == connection)
            .collect();
        for (id, to, _) in sending {
            self.snapshot_stream_failed(now, id, to);
        }
        let is_carried = |group: &&super::group::Group| {
            group.snapshots.receiving.as_ref().is_some_and(|receiving| receiving.connection == connection)
        };
        let receiving: Vec<_> = self.groups.values().filter(is_carried).map(|group| group.id).collect();
        for id in receiving {
            // What has come so far stays in its temporary file: the next stream of the same snapshot goes on there.
            if let Some(group) = self.groups.get_mut(&id) {
                group.snapshots.receiving = None;
            }
        }
    }

    /// The group stopped: whoever sends it a snapshot, or gets one from it, is told by the end of the connection.
    pub(super) fn end_streams(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let receiving = group.snapshots.receiving.take();
        let receivers: Vec<_> = group.snapshots.sending.keys().copied().collect();
        receivers.into_iter().for_each(|to| self.end_sending(id, to));
        if let Some(receiving) = receiving {
            self.close(receiving.connection);
        }
    }

    /// The receiver says how far it is.
    pub(super) fn on_receiver_progress(
        &mut self,
        now: Time,
        id: GroupId,
        from: ServerId,
        number: u64,
        stored: u64,
        is_installed: bool,
    ) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(sending) = group.snapshots.sending.get_mut(&from).filter(|sending| sending.number == number) else {
            return;
        };
        if !sending.is_started {
            sending.is_started = true;
            sending.offset = stored.min(sending.meta.file_bytes);
        }
        sending.stored = sending.stored.max(stored.min(sending.meta.file_bytes));
        group.run(|raft| raft.snapshot_moves(now, from));
        if is_installed {
            self.end_sending(id, from);
        } else {
            self.send_chunks(now, id, from);
        }
    }

    /// A group's streams that waited for their rate's limit go on, and what failed may be tried again.
    pub(super) fn tick_snapshots(&mut self, now: Time, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.snapshots.retry_at.take_if(|at| *at <= now);
        let is_due = |sending: &Sending| sending.is_held_back() && now >= sending.next_at;
        let due = group.snapshots.sending.iter().filter(|(_, sending)| is_due(sending)).map(|(&to, _)| to);
        let due: Vec<_> = due.collect();
        due.into_iter().for_each(|to| self.send_chunks(now, id, to));
    }

    /// Reads the next chunk for a peer, if window and rate allow.
    fn send_chunks(&mut self, now: Time, id: GroupId, to: ServerId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(sending) = group.snapshots.sending.get_mut(&to) else { return };
        if !sending.is_held_back() || now < sending.next_at {
            return;
        }
        sending.is_reading = true;
        if let Some(rate) = std::num::NonZeroU64::new(self.settings.snapshot_bytes_per_second) {
            let nanos = CHUNK_BYTES as u64 * 1_000_000_000 / rate;
            sending.next_at = sending.next_at.max(now) + std::time::Duration::from_nanos(nanos);
        }
        let token = self.reads.begin(ReadPurpose::Chunk(id, to, sending.number));
        self.storage.read_snapshot(token, id, &sending.meta, sending.offset, CHUNK_BYTES);
    }

    pub(super) fn chunk_read(
        &mut self,
        now: Time,
        id: GroupId,
        to: ServerId,
        number: u64,
        offset: u64,
        bytes: Option<Bytes>,
    ) {
        let current = self.storage.snapshot(id).map(|(meta, _)| meta.position);
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(sending) = group.snapshots.sending.get_mut(&to).filter(|sending| sending.number == number) else {
            return;
        };
        sending.is_reading = false;
        let is_whole = current == Some(sending.meta.position) && sending.offset == offset;
        let Some(bytes) = bytes.filter(|bytes| is_whole && !bytes.is_empty()) else {
            return self.snapshot_stream_failed(now, id, to);
        };
        sending.offset += bytes.len() as u64;
        let connection = sending.connection;
        let crc = crc32c::crc32c(&bytes);
        let chunk = PeerMessage::SnapshotChunk { position: sending.meta.position, offset, crc, bytes };
        if self.send_on(connection, id, &chunk) {
            self.send_chunks(now, id, to);
        } else {
            self.snapshot_stream_failed(now, id, to);
        }
    }

    pub(super) fn on_receiver_refusal(
        &mut self,
        now: Time,
        id: GroupId,
        from: ServerId,
        number: u64,
        reason: SnapshotRefusal,
    ) {
        let Some(group) = self.groups.get(&id) else { return };
        if group.snapshots.sending.get(&from).is_some_and(|sending| sending.number == number) {
            let message = format!("group {id}: server {from} refused a snapshot: {reason:?}");
            self.effects.push(Effect::Notice(Notice::Warning { message }));
            self.snapshot_stream_failed(now, id, from);
        }
    }

    // ---- receiving ----

    #[allow(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(super) fn on_snapshot_start(
        &mut self,
        now: Time,
        id: GroupId,
        from: ServerId,
        connection: ConnectionId,
        term: Term,
        number: u64,
        meta: SnapshotMeta,
    ) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        // The host still reads the file of the last one: it must stay until it is through.
        if group.snapshots.installing.is_some() || group.delivery.is_restoring {
            return self.close(connection);
        }
        match group.run(|raft| raft.snapshot_offered(now, from, term, number, meta.position)) {
            Some(Offer::Wanted) => {}
            _ => {
                self.rare.snapshots_unwanted += 1;
                return self.close(connection);
            }
        }
        if self.storage.received_bytes(id, &meta).is_none() {
            self.storage.abort_snapshot(id, SnapshotOrigin::Peer);
            self.storage.begin_receive(id, meta.clone());
        }
        let stored = self.storage.received_bytes(id, &meta).unwrap_or(0);
        let receiving = Receiving { from, connection, term, number, meta };
        let (to, message) = receiving.progress(stored, false);
        if let Some(group) = self.groups.get_mut(&id) {
            let has_received = std::mem::replace(&mut group.snapshots.has_received, true);
            self.rare.snapshots_resumed += u64::from(stored > 0);
            self.rare.snapshots_resumed_after_restart += u64::from(stored > 0 && !has_received);
            group.snapshots.receiving = Some(receiving);
        }
        self.send(id, to, message);
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(super) fn on_snapshot_piece(
        &mut self,
        id: GroupId,
        connection: ConnectionId,
        position: Position,
        offset: u64,
        crc: u32,
        bytes: Bytes,
    ) {
        let Some(group) = self.groups.get(&id) else { return };
        let Some(receiving) = &group.snapshots.receiving else { return };
        if receiving.connection != connection || receiving.meta.position != position {
            return;
        }
        if self.storage.receive_chunk(id, offset, bytes, crc).is_err() {
            self.refuse_snapshot(id, SnapshotRefusal::OutOfOrder);
        }
    }

    fn refuse_snapshot(&mut self, id: GroupId, reason: SnapshotRefusal) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(receiving) = group.snapshots.receiving.take() else { return };
        let Receiving { from, connection, term, number, meta } = receiving;
        let refusal = PeerMessage::SnapshotRefused { term, number, position: meta.position, reason };
        self.send(id, from, refusal);
        self.close(connection);
    }
}

impl Sending {
    /// Whether a chunk could go, but for the limit of the rate.
    fn is_held_back(&self) -> bool {
        let is_ahead = self.offset >= self.stored + WINDOW_BYTES;
        self.is_started && !self.is_reading && !is_ahead && self.offset < self.meta.file_bytes
    }
}

impl Snapshots {
    /// When a stream that waits for its rate's limit goes on, or what failed may be tried again.
    pub(super) fn deadline(&self) -> Time {
        let held_back = self.sending.values().filter(|sending| sending.is_held_back());
        held_back.map(|sending| sending.next_at).chain(self.retry_at).min().unwrap_or(Time::NEVER)
    }

    /// Whether a snapshot is on its way that will free the log behind it.
    pub(super) fn is_under_way(&self) -> bool {
        self.taking.is_some() || self.marking.is_some() || self.installing.is_some()
    }
}

impl Receiving {
    fn progress(&self, durable_bytes: u64, is_installed: bool) -> (ServerId, PeerMessage) {
        let (term, number, position) = (self.term, self.number, self.meta.position);
        (self.from, PeerMessage::SnapshotProgress { term, number, position, durable_bytes, is_installed })
    }
}

fn formed_compacted(group: &super::group::Group) -> Index {
    group.formed().map_or(Index::MAX, |formed| formed.raft.compacted_index())
}
