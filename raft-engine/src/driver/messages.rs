//! Messages between servers: what goes out on which connection, and what a message that came is worth.
//!
//! What a message is worth depends on who says it: the identity met in the handshake must be the one that the group's
//! configuration names, and the lineage said on the connection must be the group's own.

use super::formation::{self, Introduction};
use super::{ConnectionId, Driver, Effect, Notice};
use crate::transport::{Connection, Peer, PeerMessage};
use crate::types::{EntryKind, GroupId, Lineage, Message, ServerId, Time};

impl Driver {
    /// Says something of a group to a peer, if it can be reached and is who it must be. As on any lossy link, it may be
    /// lost.
    pub(super) fn send(&mut self, id: GroupId, to: ServerId, message: PeerMessage) -> bool {
        // A group that stopped has nothing more to say.
        let Some(group) = self.groups.get(&id).filter(|group| group.stopped.is_none()) else { return false };
        let lineage = group.formed().map(|formed| formed.lineage);
        let must_be = group.identity_of(to);
        let Some(link) = self.links.peers.get(&to) else { return false };
        let Some(stream) = link.dialled.and_then(|dialled| self.links.streams.get_mut(&dialled)) else { return false };
        let Some(connection) = &mut stream.connection else { return false };
        let Some(peer) = connection.peer() else { return false };
        if must_be.is_some_and(|identity| identity != peer.identity) {
            return false;
        }
        connection.send(id, lineage, &message)
    }

    /// Says something of a group on this very connection.
    pub(super) fn send_on(&mut self, connection: ConnectionId, id: GroupId, message: &PeerMessage) -> bool {
        let lineage = self.groups.get(&id).and_then(|group| group.formed()).map(|formed| formed.lineage);
        let stream = self.links.streams.get_mut(&connection);
        let connection = stream.and_then(|stream| stream.connection.as_mut());
        connection.is_some_and(|connection| connection.send(id, lineage, message))
    }

    /// Hands out what the connections release.
    pub(super) fn send_frames(&mut self, now: Time) {
        for (&id, stream) in &mut self.links.streams {
            let Some(connection) = &mut stream.connection else { continue };
            while let Some(frame) = connection.next_frame(now) {
                self.effects.push(Effect::Send { connection: id, frame });
            }
        }
    }

    pub(super) fn on_peer_message(&mut self, now: Time, connection: ConnectionId, id: GroupId, message: PeerMessage) {
        let own = self.groups.get(&id).and_then(|group| group.formed()).map(|formed| formed.lineage);
        let Some(stream) = self.links.streams.get_mut(&connection) else { return };
        let Some(peer) = stream.connection.as_ref().and_then(Connection::peer).cloned() else { return };
        let theirs = match message {
            PeerMessage::Lineage(lineage) => Some(lineage),
            PeerMessage::Introduce { formed, .. } => formed.filter(|lineage| own.is_some_and(|own| own != *lineage)),
            _ => None,
        };
        let is_news = theirs.is_some_and(|theirs| stream.lineages.insert(id, theirs) != Some(theirs));
        let said = stream.lineages.get(&id).copied();
        let from = peer.id;
        if self.is_closed || self.stopped.is_some() {
            return;
        }
        match message {
            PeerMessage::Introduce { .. } if theirs.is_some() => self.meet_lineage(id, &peer, said, is_news),
            PeerMessage::Introduce { digest, formed } => {
                self.on_introduce(
                    id,
                    from,
                    digest,
                    Introduction { identity: peer.identity, is_formed: formed.is_some() },
                );
            }
            PeerMessage::EntryOneRequest { digest } => self.on_entry_one_request(id, from, digest),
            PeerMessage::EntryOne { lineage, entry } => self.on_entry_one(id, from, entry, lineage),
            PeerMessage::FormationRefused { reason } => self.on_formation_refused(id, from, reason),
            PeerMessage::Lineage(_) => {
                // Whoever leads the group has met this server, which may not have met it.
                self.ask_to_join(id, from);
                self.meet_lineage(id, &peer, said, is_news);
            }
            PeerMessage::LineageRefused(lineage) => {
                if let Some(own) = own.filter(|own| *own != lineage) {
                    self.other_lineage(id, &peer, lineage, own);
                }
            }
            PeerMessage::Heartbeats(rows) => {
                rows.into_iter().for_each(|row| self.on_heartbeat(now, connection, &peer, row.message()));
            }
            PeerMessage::HeartbeatReplies(rows) => {
                rows.into_iter().for_each(|row| self.on_heartbeat(now, connection, &peer, row.message()));
            }
            message => {
                if self.heeds(connection, id, &peer, is_request(&message)) {
                    self.on_member_message(now, connection, id, from, message);
                }
            }
        }
    }

    /// Whether what a peer says of a group is listened to: it has said the group's own lineage on this connection, and is
    /// who it must be. What is asked is weighed on its merit: the asker may be newer here than what this server has heard.
    /// What is answered counts only from whom the configuration names.
    pub(super) fn heeds(&self, connection: ConnectionId, id: GroupId, peer: &Peer, is_request: bool) -> bool {
        let Some(group) = self.groups.get(&id) else { return false };
        let said = self.links.streams.get(&connection).and_then(|stream| stream.lineages.get(&id));
        let is_ours = group.formed().is_some_and(|formed| said == Some(&formed.lineage));
        let named = group.identity_of(peer.id);
        is_ours && (named == Some(peer.identity) || (named.is_none() && is_request))
    }

    /// A peer said the lineage of its group: another one than ours is refused, and told of once a connection.
    fn meet_lineage(&mut self, id: GroupId, peer: &Peer, theirs: Option<Lineage>, is_news: bool) {
        let own = self.groups.get(&id).and_then(|group| group.formed()).map(|formed| formed.lineage);
        let (Some(own), Some(theirs)) = (own, theirs) else { return };
        if own != theirs {
            self.send(id, peer.id, PeerMessage::LineageRefused(own));
            if is_news {
                self.other_lineage(id, peer, theirs, own);
            }
        }
    }

    fn other_lineage(&mut self, id: GroupId, peer: &Peer, theirs: Lineage, own: Lineage) {
        let formed = self.groups.get(&id).and_then(|group| group.formed());
        let founded = formed.map(|formed| formation::lineage_of(&formed.first_entry));
        let from = peer.id;
        let reason = if founded == Some(theirs) {
            format!(
                "server {from} belongs to group {id} as it was (lineage {theirs}) before it was recovered from the loss \
                 of its quorum (lineage {own}): the two do not talk. It can come back only as a new server: stop it, and \
                 add one with an empty data directory under a new id"
            )
        } else {
            format!(
                "group {id} of server {from} has the lineage {theirs}, and ours has {own}: the two do not talk. Where the \
                 group was recovered from the loss of its quorum without this server, this one can come back only as a \
                 new server: stop it, and add one with an empty data directory under a new id. Where they are different \
                 groups under one id, start one of them under another group id, or in another cluster"
            )
        };
        let notice = Notice::Refused { peer: Some(peer.id), identity: Some(peer.identity), reason };
        self.effects.push(Effect::Notice(notice));
    }

    /// A message from a server that the group's configuration names, by id and identity.
    pub(super) fn on_member_message(
        &mut self,
        now: Time,
        connection: ConnectionId,
        id: GroupId,
        from: ServerId,
        message: PeerMessage,
    ) {
        match message {
            PeerMessage::Raft(message) => {
                if !is_well_formed(&message) {
                    let message = format!("group {id}: server {from} sent a message that no server sends; dropped");
                    return self.effects.push(Effect::Notice(Notice::Warning { message }));
                }
                if let Some(group) = self.groups.get_mut(&id) {
                    group.run(|raft| raft.receive(now, from, message));
                }
            }
            PeerMessage::SnapshotStart { term, number, meta, entry_one: _ } => {
                self.on_snapshot_start(now, id, from, connection, term, number, meta);
            }
            PeerMessage::SnapshotChunk { position, offset, crc, bytes } => {
                self.on_snapshot_piece(id, connection, position, offset, crc, bytes);
            }
            PeerMessage::SnapshotProgress { number, durable_bytes, is_installed, .. } => {
                self.on_receiver_progress(now, id, from, number, durable_bytes, is_installed);
            }
            PeerMessage::SnapshotRefused { number, reason, .. } => {
                self.on_receiver_refusal(now, id, from, number, reason);
            }
            PeerMessage::Forward { request, term, proposals } => {
                self.on_forward(now, id, from, request, term, proposals);
            }
            PeerMessage::ForwardReply { request, answer } => self.on_forward_reply(id, connection, request, answer),
            PeerMessage::ReadIndex { request, term } => self.on_read_index(id, from, connection, request, term),
            PeerMessage::ReadIndexReply { request, index } => {
                self.on_read_index_reply(id, connection, request, index);
            }
            PeerMessage::DigestQuery { index } => self.on_digest_query(id, from, index),
            PeerMessage::DigestReport { index, incarnation, digest } => {
                self.on_digest_report(id, from, index, incarnation, digest);
            }
            _ => {}
        }
    }
}

/// Whether a message asks or tells, rather than answer: it needs no place in a configuration.
fn is_request(message: &PeerMessage) -> bool {
    match message {
        PeerMessage::Raft(message) => !matches!(
            message,
            Message::PreVoteReply { .. }
                | Message::VoteReply { .. }
                | Message::AppendReply { .. }
                | Message::HeartbeatReply { .. }
        ),
        PeerMessage::SnapshotStart { .. } | PeerMessage::SnapshotChunk { .. } => true,
        _ => false,
    }
}

/// What every message of an honest peer keeps, so that the core may assert it.
fn is_well_formed(message: &Message) -> bool {
    let Message::Append { term, previous, entries, .. } = message else { return true };
    let mut before = *previous;
    entries.iter().all(|entry| {
        let follows = entry.index == before.index + 1 && entry.term >= before.term && entry.term <= *term;
        let is_verdict = entry.kind == EntryKind::DigestVerdict;
        let is_readable = crate::core::configuration_in(entry).is_ok()
            && entry.kind.admits(&entry.payload)
            && (!is_verdict || crate::session::digest_check(entry).is_some());
        before = entry.position();
        follows && is_readable
    })
}
