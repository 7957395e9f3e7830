//! Who is met on a connection, what the handshake told of it, and what becomes of older connections.

use super::{ConnectionId, Driver, Effect, Notice};
use crate::storage::Record;
use crate::transport::{Connection, ConnectionEvent, Peer, Purpose, Refusal, RefusalKind, RefusedBy};
use crate::types::{Identity, ServerId, Time};

impl Driver {
    pub(super) fn on_connection_events(&mut self, now: Time, id: ConnectionId, events: Vec<ConnectionEvent>) {
        for event in events {
            match event {
                ConnectionEvent::Established(peer) => self.on_established(now, id, &peer),
                ConnectionEvent::Message { group, message } => self.on_peer_message(now, id, group, message),
                ConnectionEvent::Refused { by, peer, refusal } => self.on_refused(now, id, by, peer, &refusal),
                ConnectionEvent::CopyDetected { told_by, pair } => {
                    let reason = format!(
                        "server {told_by} has met this data directory as incarnation {}, which its history does not \
                         hold: the directory is a copy, or was restored from one",
                        pair.number
                    );
                    self.storage.refuse_directory(reason.clone());
                    self.stop_server(reason);
                }
                ConnectionEvent::Violation(violation) => {
                    let message = format!("a connection broke the protocol and was closed: {violation}");
                    self.effects.push(Effect::Notice(Notice::Warning { message }));
                }
            }
        }
        self.bury_if_over(now, id);
    }

    /// A connection that is over has its last frames sent, and is closed.
    fn bury_if_over(&mut self, now: Time, id: ConnectionId) {
        let Some(stream) = self.links.streams.get_mut(&id) else { return };
        let Some(connection) = stream.connection.as_mut().filter(|connection| connection.is_closed()) else { return };
        while let Some(frame) = connection.next_frame(now) {
            self.effects.push(Effect::Send { connection: id, frame });
        }
        self.effects.push(Effect::Close { connection: id });
        self.on_closed(now, id, false);
    }

    fn on_refused(
        &mut self,
        now: Time,
        id: ConnectionId,
        by: RefusedBy,
        peer: Option<(ServerId, Identity)>,
        refusal: &Refusal,
    ) {
        let dialled = self.links.streams.get(&id).and_then(|stream| stream.dialled).and_then(|(to, _)| to);
        let who = peer.map(|(id, _)| id).or(dialled);
        let reason = match by {
            RefusedBy::Us => format!("refused a peer: {refusal}"),
            RefusedBy::Peer => format!("refused by a peer: {refusal}"),
        };
        if let Some(who) = who.filter(|_| refusal.kind != RefusalKind::Replaced) {
            self.meeting_refused(who, &reason);
        }
        if let Some(link) = who.and_then(|who| self.links.peers.get_mut(&who)) {
            if refusal.kind != RefusalKind::Replaced && dialled.is_some() {
                link.backoff.refused(now);
            }
            if link.last_refusal.as_ref() == Some(&reason) {
                return;
            }
            link.last_refusal = Some(reason.clone());
        }
        let identity = peer.map(|(_, identity)| identity);
        self.effects.push(Effect::Notice(Notice::Refused { peer: who, identity, reason }));
    }

    /// A handshake is done.
    fn on_established(&mut self, now: Time, id: ConnectionId, peer: &Peer) {
        if peer.may_remember && self.remembered.get(&peer.identity) != Some(&peer.incarnation) {
            self.remembered.insert(peer.identity, peer.incarnation);
            let record = Record::PeerIncarnation { identity: peer.identity, incarnation: peer.incarnation };
            self.storage.append(record);
        }
        self.links.have_changed = true;
        self.close_older(id, peer);
        let dialled_at = self.links.streams.get(&id).and_then(|stream| stream.dialled_at);
        if let Some(handshake) = dialled_at.map(|at| now.since(at)) {
            let shortest = self.links.shortest_handshake.map_or(handshake, |before| before.min(handshake));
            self.links.shortest_handshake = Some(shortest);
        }
        let is_dialled = self.links.streams.get(&id).is_some_and(|stream| stream.dialled.is_some());
        if !self.know_whom_we_met(id, peer) {
            return;
        }
        match (is_dialled, peer.purpose) {
            (true, Purpose::Snapshot) => self.snapshot_connection_ready(id),
            (true, Purpose::Messages) => {
                let (mut has_restarted, mut older) = (false, None);
                if let Some(link) = self.links.peers.get_mut(&peer.id) {
                    link.backoff.succeeded();
                    link.last_refusal = None;
                    if let Some((_, before)) = link.check.take_if(|(check, _)| *check == id) {
                        has_restarted = before.number < peer.incarnation.number;
                        // The peer has put it in the place of the one before.
                        older = link.dialled.replace(id);
                    }
                }
                older.into_iter().for_each(|older| self.close(older));
                if has_restarted {
                    self.suspect(now, peer.id);
                }
                for group in self.groups.ids() {
                    self.begin_change_if_met(now, group);
                    self.introduce(group, peer.id);
                    // Everybody else may have introduced itself before this connection stood.
                    self.form_if_complete(group);
                    if let Some(group) = self.groups.get_mut(&group) {
                        group.run(|raft| raft.peer_reconnected(now, peer.id));
                    }
                }
            }
            (false, _) => {
                // Whoever reaches us can be reached: no need to wait any longer.
                if let Some(link) = self.links.peers.get_mut(&peer.id).filter(|link| link.dialled.is_none()) {
                    link.backoff.succeeded();
                }
            }
        }
    }

    /// Whoever was met is known from here on, and where it is dialled: a contact, or somebody of whom no configuration
    /// here has told yet. False where the connection to a contact is one too many, and was closed.
    fn know_whom_we_met(&mut self, id: ConnectionId, peer: &Peer) -> bool {
        self.links.are_stale = true;
        if let Some(contact) = self.links.contacts.iter_mut().find(|contact| contact.dialled == Some(id)) {
            contact.dialled = None;
            contact.is_met = true;
            let address = contact.address.clone();
            if !self.links.peers.contains_key(&peer.id) {
                self.know_peer(peer.id, &address);
            }
            let Some(link) = self.links.peers.get_mut(&peer.id) else { return false };
            if link.dialled.is_some() {
                self.close(id);
                return false;
            }
            link.dialled = Some(id);
        } else if let Some(address) = &peer.address
            && !self.groups.values().any(|group| group.identity_of(peer.id).is_some())
        {
            // Where a configuration names it, that one tells.
            self.know_peer(peer.id, address);
        }
        true
    }

    /// A newer accepted connection takes the place of an older one of the same directory and purpose; and nothing of an
    /// id stays open that was met under another identity: what it said there may not be what it knows now.
    fn close_older(&mut self, newer: ConnectionId, peer: &Peer) {
        let is_accepted = self.links.streams.get(&newer).is_some_and(|stream| stream.dialled.is_none());
        let older: Vec<_> = (self.links.streams.iter())
            .filter(|&(&id, stream)| {
                let Some(other) = stream.connection.as_ref().and_then(Connection::peer) else { return false };
                let is_other_directory = other.identity != peer.identity;
                let is_replaced = is_accepted && stream.dialled.is_none() && other.purpose == peer.purpose;
                id != newer && other.id == peer.id && (is_other_directory || is_replaced)
            })
            .map(|(&id, _)| id)
            .collect();
        for id in older {
            self.close(id);
        }
    }
}
