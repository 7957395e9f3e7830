//! Connections to peers: whom to dial and when, and who is met there.
//!
//! Every server dials every peer and sends only on what it dialled; on what it accepted it only listens.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::group::{Group, Phase};
use super::{ConnectionId, Driver, Effect};
use crate::transport::{
    Backoff, Connection, ConnectionLimits, Holds, Local, Peer, Purpose, Refusal, RefusalKind, Registry,
};
use crate::types::{GroupId, Identity, Incarnation, Lineage, ServerId, Time};

/// What the driver knows of one peer.
#[derive(Debug)]
pub(super) struct Link {
    /// Where to dial it.
    pub(super) address: String,
    pub(super) backoff: Backoff,
    /// The connection for messages that was dialled last, and is not over.
    pub(super) dialled: Option<ConnectionId>,
    /// The last refusal that the host was told of: it is told again only of another.
    pub(super) last_refusal: Option<String>,
    /// Some group names it, or it stands connected to us: else it is not dialled.
    is_wanted: bool,
    /// The connection from this peer broke in this incarnation of it: a fresh dial that will tell whether its process
    /// is gone.
    pub(super) check: Option<(ConnectionId, Incarnation)>,
}

impl Link {
    /// Nothing stands, and nothing is under way.
    fn is_to_dial(&self) -> bool {
        self.is_wanted && self.dialled.is_none() && self.check.is_none()
    }
}

/// An address at which some member of a group to be joined is met, whoever that is.
#[derive(Debug)]
pub(super) struct Contact {
    pub(super) address: String,
    backoff: Backoff,
    pub(super) dialled: Option<ConnectionId>,
    /// Whoever was met there is dialled as itself from then on.
    pub(super) is_met: bool,
}

/// One stream.
pub(super) struct Stream {
    /// `None` until what was dialled stands.
    pub(super) connection: Option<Connection>,
    /// Whom we dialled (`None`: a contact), and why.
    pub(super) dialled: Option<(Option<ServerId>, Purpose)>,
    /// When a dial that has no result is given up.
    dial_deadline: Time,
    /// When what was dialled stood.
    pub(super) dialled_at: Option<Time>,
    /// Where we said that we are dialled.
    said_address: String,
    /// What the peer said of its groups.
    pub(super) lineages: BTreeMap<GroupId, Lineage>,
}

/// All peers and streams of a server.
#[derive(Default)]
pub(super) struct Links {
    pub(super) peers: BTreeMap<ServerId, Link>,
    pub(super) streams: BTreeMap<ConnectionId, Stream>,
    pub(super) contacts: Vec<Contact>,
    dials: u64,
    /// Who is to be dialled may have changed.
    pub(super) are_stale: bool,
    /// A stream was met or is gone since routes were looked at.
    pub(super) have_changed: bool,
    /// The shortest handshake with anybody: two round trips and what the peer does between.
    pub(super) shortest_handshake: Option<Duration>,
}

/// What a handshake asks (section "Identity" of docs/architecture.md).
struct Acquaintance<'a> {
    bound: &'a BTreeMap<ServerId, Identity>,
    remembered: &'a BTreeMap<Identity, Incarnation>,
    history: &'a [Incarnation],
}

impl Registry for Acquaintance<'_> {
    fn check_peer(&self, id: ServerId, identity: Identity) -> Result<(), Refusal> {
        match self.bound.get(&id) {
            Some(bound) if *bound != identity => Err(Refusal::new(
                RefusalKind::IdentityBound,
                format!(
                    "server id {id} belongs to the data directory {bound}, not to {identity}: a directory that is new, \
                     wiped or copied from elsewhere may have forgotten votes and never takes part under an old id. Put \
                     the old directory back, or start with an empty one under a new id and add that"
                ),
            )),
            _ => Ok(()),
        }
    }

    fn remembered(&self, identity: Identity) -> Option<Incarnation> {
        self.remembered.get(&identity).copied()
    }

    fn history_holds(&self, pair: Incarnation) -> Holds {
        if self.history.contains(&pair) {
            Holds::Yes
        } else if self.history.first().is_some_and(|oldest| pair.number < oldest.number) {
            Holds::TooOld
        } else {
            Holds::No
        }
    }
}

impl Links {
    /// Where to dial a peer.
    pub(super) fn address_of(&self, id: ServerId) -> Option<String> {
        self.peers.get(&id).map(|link| link.address.clone())
    }

    /// Who is met at the connection for messages that we dialled to `id`, if its handshake is done.
    pub(super) fn met(&self, id: ServerId) -> Option<&Peer> {
        let dialled = self.peers.get(&id)?.dialled?;
        self.streams.get(&dialled)?.connection.as_ref()?.peer()
    }

    /// Peers to whom messages can go now.
    pub(super) fn connected(&self) -> Vec<ServerId> {
        self.peers.keys().copied().filter(|&id| self.met(id).is_some()).collect()
    }

    /// Whether a peer said another lineage of a group than ours, on a connection that stands.
    pub(super) fn said_other_lineage(&self, id: ServerId, group: GroupId, own: Lineage) -> bool {
        let is_of =
            |stream: &&Stream| stream.connection.as_ref().and_then(Connection::peer).is_some_and(|it| it.id == id);
        let mut said = self.streams.values().filter(is_of).filter_map(|stream| stream.lineages.get(&group));
        said.any(|lineage| *lineage != own)
    }

    /// The most bytes queued for one connection, and for all.
    pub(super) fn pending_bytes(&self) -> (usize, usize) {
        let each =
            || self.streams.values().filter_map(|stream| stream.connection.as_ref()).map(Connection::pending_bytes);
        (each().max().unwrap_or(0), each().sum())
    }

    /// When something here comes due.
    pub(super) fn deadline(&self) -> Time {
        let idle = self.peers.values().filter(|link| link.is_to_dial()).map(|link| link.backoff.deadline());
        let streams = self
            .streams
            .values()
            .map(|stream| stream.connection.as_ref().map_or(stream.dial_deadline, Connection::deadline));
        let contacts = self.contacts.iter().filter(|it| it.dialled.is_none() && !it.is_met);
        let contacts = contacts.map(|contact| contact.backoff.deadline());
        idle.chain(contacts).chain(streams).min().unwrap_or(Time::NEVER)
    }
}

impl Driver {
    /// A peer and where to dial it.
    pub(super) fn know_peer(&mut self, id: ServerId, address: &str) {
        if id == self.me.id {
            return;
        }
        self.links.are_stale = true;
        let is_met = self.links.met(id).is_some();
        let address = self.settings.peer_addresses.get(&id).map_or(address, String::as_str);
        let seed = self.random.u64(..);
        let link = self.links.peers.entry(id).or_insert_with(|| Link {
            address: address.to_owned(),
            backoff: Backoff::new(Backoff::SHORTEST, Backoff::LONGEST, seed),
            dialled: None,
            last_refusal: None,
            is_wanted: true,
            check: None,
        });
        if link.address != address {
            address.clone_into(&mut link.address);
            link.backoff.succeeded();
            // Whoever answers at the old address answers for nobody.
            if let Some(dialled) = link.dialled.filter(|_| !is_met) {
                self.close(dialled);
            }
        }
    }

    /// Somebody wants a peer met now, whatever became of earlier dials.
    pub(super) fn dial_soon(&mut self, id: ServerId) {
        if let Some(link) = self.links.peers.get_mut(&id) {
            link.backoff.succeeded();
            link.last_refusal = None;
        }
    }

    /// Where somebody is met who is a member of a group to be joined.
    pub(super) fn know_contact(&mut self, address: String) {
        let backoff = Backoff::new(Backoff::SHORTEST, Backoff::LONGEST, self.random.u64(..));
        if !self.links.contacts.iter().any(|contact| contact.address == address) {
            self.links.contacts.push(Contact { address, backoff, dialled: None, is_met: false });
        }
    }

    /// Whom to dial: the members of all groups, whoever is to be added to one, and whoever stands connected to us, since
    /// it may need an answer. Who was removed is let go.
    fn choose_links(&mut self) {
        let is_joining = self.is_joining();
        let met = self.links.streams.values().filter(|stream| stream.dialled.is_none());
        let mut wanted: BTreeSet<ServerId> =
            met.filter_map(|stream| Some(stream.connection.as_ref()?.peer()?.id)).collect();
        for group in self.groups.values() {
            wanted.extend(group.changes.to_meet());
            match &group.phase {
                Phase::Forming(forming) => wanted.extend(forming.members.iter().map(|member| member.id)),
                Phase::Joining(_) => {}
                Phase::Formed(formed) => {
                    wanted.extend(formed.raft.configuration().members.iter().map(|member| member.id));
                }
            }
        }
        for (id, link) in &mut self.links.peers {
            link.is_wanted = is_joining || wanted.contains(id);
        }
    }

    fn local(&self) -> Local {
        let local = Local::new(self.me.cluster.clone(), self.me.id, self.identity, self.incarnation);
        Local { address: self.own_address().unwrap_or_default(), ..local }
    }

    /// Where others dial this server may be known only since it dialled them, or have changed: it dials them again, and
    /// says so. Whoever has not heard of this server yet, and is spoken to, could not answer otherwise.
    fn say_where_we_are(&mut self) {
        let Some(address) = self.own_address() else { return };
        let is_outdated = |stream: &Stream| {
            let is_dialled = matches!(stream.dialled, Some((_, Purpose::Messages)));
            is_dialled && stream.connection.is_some() && stream.said_address != address
        };
        let outdated = self.links.streams.iter().filter(|(_, stream)| is_outdated(stream));
        let outdated: Vec<_> = outdated.map(|(&id, _)| id).collect();
        outdated.into_iter().for_each(|id| self.close(id));
    }

    /// Where others dial this server, as its operator says, or the first group that names it.
    fn own_address(&self) -> Option<String> {
        let own = self.me.id;
        let named = |group: &Group| match &group.phase {
            Phase::Forming(forming) => {
                let mut members = forming.members.iter();
                members.find(|member| member.id == own).map(|member| member.address.clone())
            }
            Phase::Joining(_) => None,
            Phase::Formed(formed) => formed.raft.configuration().member(own).map(|member| member.address.clone()),
        };
        self.settings.peer_addresses.get(&own).cloned().or_else(|| self.groups.values().find_map(named))
    }

    fn limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            max_entry_bytes: self.settings.max_entry_bytes,
            connection_bytes: self.settings.connection_bytes,
            ..ConnectionLimits::default()
        }
    }

    /// Dials whoever is due, and gives up what takes too long.
    pub(super) fn tick_links(&mut self, now: Time) {
        if !self.may_speak() {
            return;
        }
        if std::mem::take(&mut self.links.are_stale) {
            self.choose_links();
            self.say_where_we_are();
        }
        for at in 0..self.links.contacts.len() {
            let contact = &self.links.contacts[at];
            if contact.dialled.is_none() && !contact.is_met && contact.backoff.deadline() <= now {
                let address = contact.address.clone();
                self.links.contacts[at].dialled = Some(self.dial(now, None, address, Purpose::Messages));
            }
        }
        let due: Vec<_> = (self.links.peers.iter())
            .filter(|(_, link)| link.is_to_dial() && link.backoff.deadline() <= now)
            .map(|(&id, link)| (id, link.address.clone()))
            .collect();
        for (id, address) in due {
            let connection = self.dial(now, Some(id), address, Purpose::Messages);
            if let Some(link) = self.links.peers.get_mut(&id) {
                link.dialled = Some(connection);
            }
        }
        let late: Vec<_> = (self.links.streams.iter())
            .filter(|(_, stream)| now >= stream.connection.as_ref().map_or(stream.dial_deadline, Connection::deadline))
            .map(|(&id, _)| id)
            .collect();
        for id in late {
            let mut events = Vec::new();
            match self.links.streams.get_mut(&id).map(|stream| &mut stream.connection) {
                Some(Some(connection)) => connection.expire(now, &mut events),
                Some(None) => {
                    self.effects.push(Effect::Close { connection: id });
                    self.on_closed(now, id, false);
                }
                None => {}
            }
            self.on_connection_events(now, id, events);
        }
    }

    /// Opens a stream to a peer.
    pub(super) fn dial(&mut self, now: Time, to: Option<ServerId>, address: String, purpose: Purpose) -> ConnectionId {
        self.links.dials += 1;
        let connection = ConnectionId(2 * self.links.dials);
        let stream = Stream {
            connection: None,
            dialled: Some((to, purpose)),
            dial_deadline: now + self.limits().handshake_timeout,
            dialled_at: None,
            said_address: String::new(),
            lineages: BTreeMap::new(),
        };
        self.links.streams.insert(connection, stream);
        self.effects.push(Effect::Dial { connection, address });
        connection
    }

    pub(super) fn on_dialled(&mut self, now: Time, id: ConnectionId) {
        let (local, limits) = (self.local(), self.limits());
        let Some(stream) = self.links.streams.get_mut(&id) else { return };
        if let Some((to, purpose)) = stream.dialled {
            stream.said_address.clone_from(&local.address);
            stream.connection = Some(Connection::dial(local, to, purpose, limits, now));
            stream.dialled_at = Some(now);
        }
    }

    pub(super) fn on_accepted(&mut self, now: Time, id: ConnectionId) {
        if !self.may_speak() {
            return self.effects.push(Effect::Close { connection: id });
        }
        let connection = Some(Connection::accept(self.local(), self.limits(), now));
        let stream = Stream {
            connection,
            dialled: None,
            dial_deadline: Time::NEVER,
            dialled_at: None,
            said_address: String::new(),
            lineages: BTreeMap::new(),
        };
        self.links.streams.insert(id, stream);
    }

    pub(super) fn on_received(&mut self, now: Time, id: ConnectionId, bytes: Bytes) {
        let registry = Acquaintance { bound: &self.bound, remembered: &self.remembered, history: &self.history };
        let Some(stream) = self.links.streams.get_mut(&id) else { return };
        let Some(connection) = &mut stream.connection else { return };
        let mut events = Vec::new();
        connection.receive(bytes, now, &registry, &mut events);
        self.on_connection_events(now, id, events);
    }

    pub(super) fn on_sent(&mut self, now: Time, id: ConnectionId, bytes: usize) {
        if let Some(connection) = self.links.streams.get_mut(&id).and_then(|stream| stream.connection.as_mut()) {
            connection.sent(bytes, now);
        }
    }

    /// A stream ended, or never began; `refused` where the peer's system said that nobody is there.
    pub(super) fn on_closed(&mut self, now: Time, id: ConnectionId, refused: bool) {
        let Some(stream) = self.links.streams.remove(&id) else { return };
        self.links.have_changed = true;
        let met = stream.connection.as_ref().and_then(Connection::peer);
        if let Some(contact) = self.links.contacts.iter_mut().find(|contact| contact.dialled == Some(id)) {
            contact.dialled = None;
            contact.backoff.failed(now);
        }
        // Whom a contact turned out to be.
        let dialled = stream.dialled.and_then(|(to, purpose)| Some((to.or(met.map(|peer| peer.id))?, purpose)));
        if let Some((to, Purpose::Messages)) = dialled
            && let Some(link) = self.links.peers.get_mut(&to)
        {
            if link.dialled == Some(id) {
                link.dialled = None;
                link.backoff.failed(now);
            }
            let was_check = link.check.take_if(|(check, _)| *check == id).is_some();
            if was_check && refused && met.is_none() {
                self.suspect(now, to);
            }
        }
        if let Some(peer) = met.filter(|peer| stream.dialled.is_none() && peer.purpose == Purpose::Messages) {
            self.doubt(now, peer.id, peer.incarnation);
            self.links.are_stale = true;
        }
        self.forget_introduction(&stream);
        self.snapshot_connection_closed(now, id);
    }

    /// Closes a stream from our side. What was given to it still goes out.
    pub(super) fn close(&mut self, id: ConnectionId) {
        if let Some(stream) = self.links.streams.remove(&id) {
            self.forget_introduction(&stream);
            self.links.are_stale = true;
            self.links.have_changed = true;
            if let Some(contact) = self.links.contacts.iter_mut().find(|contact| contact.dialled == Some(id)) {
                contact.dialled = None;
            }
            let met = stream.connection.as_ref().and_then(Connection::peer).map(|peer| peer.id);
            let dialled = stream.dialled.and_then(|(to, purpose)| Some((to.or(met)?, purpose)));
            if let Some((to, Purpose::Messages)) = dialled
                && let Some(link) = self.links.peers.get_mut(&to)
            {
                link.dialled.take_if(|dialled| *dialled == id);
                link.check.take_if(|(check, _)| *check == id);
            }
            self.effects.push(Effect::Close { connection: id });
        }
    }

    /// Closes everything.
    pub(super) fn close_all(&mut self) {
        let all: Vec<_> = self.links.streams.keys().copied().collect();
        all.into_iter().for_each(|id| self.close(id));
    }

    /// What a peer said of itself holds while the connection stands that brought it: one that the peer dialled. It says
    /// it again on its next one, and not because one of ours was closed.
    fn forget_introduction(&mut self, stream: &Stream) {
        let Some(peer) = stream.connection.as_ref().and_then(Connection::peer) else { return };
        if stream.dialled.is_some() || peer.purpose != Purpose::Messages {
            return;
        }
        let is_said = |group: &&Group| match &group.phase {
            Phase::Forming(forming) => {
                forming.introduced.get(&peer.id).is_some_and(|said| said.identity == peer.identity)
            }
            _ => false,
        };
        let said: Vec<_> = self.groups.values().filter(is_said).map(|group| group.id).collect();
        for id in said {
            if let Some(Group { phase: Phase::Forming(forming), .. }) = self.groups.get_mut(&id) {
                forming.introduced.remove(&peer.id);
            }
        }
    }
}
