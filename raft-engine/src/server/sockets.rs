//! Streams to and from peers on mio: what the driver gives goes out in order, what comes is handed on as it is. Knows
//! nothing of frames but their bytes. Never blocks, and raises no SIGPIPE.

mod connection;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

use self::connection::{Connection, Progress, State};
use super::Plaintext;
use super::resolve::{Resolved, Resolver};
use crate::driver::{ConnectionId, Event, Frame};
use crate::types::Time;

/// The most accepted streams at once; more are closed as they come.
const MAX_ACCEPTED: usize = 256;
/// How long a listener rests after the system had nothing to accept with.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a closed stream may still take what was sent on it.
const LINGER: Duration = Duration::from_secs(1);
/// The most closed streams that linger.
const MAX_LINGERING: usize = 64;
/// Streams read into pieces of one buffer of this length.
const BUFFER_BYTES: usize = 256 << 10;
/// Less room than this is not worth a call.
const LEAST_ROOM_BYTES: usize = 32 << 10;
/// One stream's share of a turn.
const TURN_BYTES: usize = 1 << 20;

/// All streams of a server.
pub(super) struct Sockets {
    registry: Registry,
    listener: TcpListener,
    /// Tokens of streams are this plus their place.
    first_token: usize,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// Streams that the driver knows.
    places: BTreeMap<ConnectionId, usize>,
    resolver: Resolver,
    resolving: BTreeMap<ConnectionId, ()>,
    /// Places with something to write, and something to read.
    to_write: Vec<usize>,
    to_read: Vec<usize>,
    buffer: BytesMut,
    /// The number of the next accepted stream: odd.
    next_accepted: u64,
    /// Accepting failed: when to try again.
    accept_at: Option<Time>,
    accept_error: Option<String>,
    user_timeout: Duration,
    plaintext: Plaintext,
    /// Addresses that were not dialled for it, and those that nobody was told of yet.
    kept_from: BTreeSet<SocketAddr>,
    untold: Vec<SocketAddr>,
}

impl Sockets {
    /// Takes over a bound listener. A stream whose bytes are not acknowledged for `user_timeout` breaks.
    pub(super) fn new(
        registry: Registry,
        mut listener: TcpListener,
        listener_token: Token,
        first_token: usize,
        resolver: Resolver,
        user_timeout: Duration,
        plaintext: Plaintext,
    ) -> io::Result<Self> {
        registry.register(&mut listener, listener_token, Interest::READABLE)?;
        Ok(Self {
            registry,
            listener,
            first_token,
            connections: Vec::new(),
            free: Vec::new(),
            places: BTreeMap::new(),
            resolver,
            resolving: BTreeMap::new(),
            to_write: Vec::new(),
            to_read: Vec::new(),
            buffer: BytesMut::with_capacity(BUFFER_BYTES),
            next_accepted: 1,
            accept_at: None,
            accept_error: None,
            user_timeout,
            plaintext,
            kept_from: BTreeSet::new(),
            untold: Vec::new(),
        })
    }

    /// Opens a stream to `host:port`. Its end, good or bad, is an event.
    pub(super) fn dial(&mut self, id: ConnectionId, address: String, events: &mut Vec<Event>) {
        if let Ok(address) = address.parse::<SocketAddr>() {
            self.connect(id, vec![address], events);
        } else {
            self.resolving.insert(id, ());
            self.resolver.resolve(id, address);
        }
    }

    /// What the resolver found.
    pub(super) fn resolved(&mut self, (id, result): Resolved, events: &mut Vec<Event>) {
        // The driver may have given the stream up meanwhile.
        if self.resolving.remove(&id).is_some() {
            self.connect(id, result.unwrap_or_default(), events);
        }
    }

    /// Tries addresses until a connect is under way.
    fn connect(&mut self, id: ConnectionId, mut addresses: Vec<SocketAddr>, events: &mut Vec<Event>) {
        let mut refused = false;
        addresses.reverse();
        while let Some(address) = addresses.pop() {
            if !self.plaintext.allows(&address) {
                if self.kept_from.insert(address) {
                    self.untold.push(address);
                }
                continue;
            }
            match TcpStream::connect(address) {
                Ok(stream) => {
                    addresses.reverse();
                    let result = self.insert(Connection::new(id, stream, State::Connecting { others: addresses }));
                    if result.is_err() {
                        events.push(Event::Closed { connection: id, refused: false });
                    }
                    return;
                }
                Err(error) => refused = is_refusal(&error),
            }
        }
        events.push(Event::Closed { connection: id, refused });
    }

    fn insert(&mut self, mut connection: Connection) -> io::Result<usize> {
        let place = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let token = Token(self.first_token + place);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.registry.register(&mut connection.stream, token, interest) {
            self.free.push(place);
            return Err(error);
        }
        self.places.insert(connection.id, place);
        self.connections[place] = Some(connection);
        Ok(place)
    }

    fn remove(&mut self, place: usize) -> Option<Connection> {
        let mut connection = self.connections[place].take()?;
        let _ = self.registry.deregister(&mut connection.stream);
        self.places.remove(&connection.id);
        self.free.push(place);
        Some(connection)
    }

    fn fail(&mut self, place: usize, refused: bool, events: &mut Vec<Event>) {
        if let Some(connection) = self.remove(place)
            && connection.is_known_to_driver()
        {
            events.push(Event::Closed { connection: connection.id, refused });
        }
    }

    /// Queues a frame. Nothing goes out before [`Sockets::write`].
    pub(super) fn send(&mut self, id: ConnectionId, frame: Frame) {
        // A stream that broke in this turn: its end is on its way to the driver.
        let Some(&place) = self.places.get(&id) else { return };
        let Some(connection) = &mut self.connections[place] else { return };
        connection.queue(frame);
        if !std::mem::replace(&mut connection.is_to_write, true) {
            self.to_write.push(place);
        }
    }

    /// Closes a stream when what was queued is out. No event follows.
    pub(super) fn close(&mut self, id: ConnectionId) {
        self.resolving.remove(&id);
        let Some(&place) = self.places.get(&id) else { return };
        self.places.remove(&id);
        let Some(connection) = &mut self.connections[place] else { return };
        if matches!(connection.state, State::Connecting { .. }) {
            self.remove(place);
        } else {
            connection.state = State::Draining;
            if !std::mem::replace(&mut connection.is_to_write, true) {
                self.to_write.push(place);
            }
        }
    }

    /// A stream's readiness, as polled.
    pub(super) fn ready(&mut self, event: &mio::event::Event, events: &mut Vec<Event>) {
        let Some(place) = event.token().0.checked_sub(self.first_token) else { return };
        let Some(Some(connection)) = self.connections.get_mut(place) else { return };
        if matches!(connection.state, State::Connecting { .. }) {
            match connection.connected() {
                Ok(false) => return,
                Ok(true) => {
                    configure(&connection.stream, self.user_timeout);
                    connection.state = State::Open;
                    events.push(Event::Dialled { connection: connection.id });
                }
                Err(error) => {
                    let Some(Connection { id, state: State::Connecting { others }, .. }) = self.remove(place) else {
                        return;
                    };
                    if others.is_empty() {
                        events.push(Event::Closed { connection: id, refused: is_refusal(&error) });
                    } else {
                        self.connect(id, others, events);
                    }
                    return;
                }
            }
        }
        if event.is_writable() && !std::mem::replace(&mut connection.is_to_write, true) {
            self.to_write.push(place);
        }
        let is_over = event.is_error() || event.is_read_closed();
        if (event.is_readable() || is_over) && !std::mem::replace(&mut connection.is_to_read, true) {
            self.to_read.push(place);
        }
    }

    /// Accepts what waits at the listener.
    pub(super) fn accept(&mut self, now: Time, events: &mut Vec<Event>) {
        self.accept_at = None;
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    self.accept_error = None;
                    let accepted = self.places.keys().filter(|id| id.0 % 2 == 1).count();
                    if accepted >= MAX_ACCEPTED {
                        continue;
                    }
                    configure(&stream, self.user_timeout);
                    let id = ConnectionId(self.next_accepted);
                    self.next_accepted += 2;
                    if self.insert(Connection::new(id, stream, State::Open)).is_ok() {
                        events.push(Event::Accepted { connection: id });
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {
                }
                Err(error) => {
                    // Out of descriptors or memory. Readiness is told once, so ask again by ourselves.
                    self.accept_error = Some(error.to_string());
                    self.accept_at = Some(now + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    /// Addresses that are not dialled because nothing may leave this machine unencrypted, each told once.
    pub(super) fn take_untold(&mut self) -> Vec<SocketAddr> {
        std::mem::take(&mut self.untold)
    }

    /// Why the listener accepts nobody at present, if so.
    pub(super) fn accept_error(&self) -> Option<&str> {
        self.accept_error.as_deref()
    }

    /// Reads what has come.
    pub(super) fn read(&mut self, events: &mut Vec<Event>) {
        for place in std::mem::take(&mut self.to_read) {
            let Some(connection) = &mut self.connections[place] else { continue };
            connection.is_to_read = false;
            let mut share_bytes = TURN_BYTES;
            let progress = loop {
                if self.buffer.capacity() - self.buffer.len() < LEAST_ROOM_BYTES {
                    // Takes the same memory again where everything that was read into it is gone.
                    self.buffer.reserve(BUFFER_BYTES);
                }
                match connection.read(&mut self.buffer) {
                    Progress::Moved(bytes) => {
                        let bytes = self.buffer.split_to(bytes).freeze();
                        share_bytes = share_bytes.saturating_sub(bytes.len());
                        if connection.is_known_to_driver() {
                            events.push(Event::Received { connection: connection.id, bytes });
                        }
                        if share_bytes == 0 {
                            break Progress::Moved(0);
                        }
                    }
                    Progress::MovedAll(0) => break Progress::MovedAll(0),
                    Progress::MovedAll(bytes) => {
                        let bytes = self.buffer.split_to(bytes).freeze();
                        if connection.is_known_to_driver() {
                            events.push(Event::Received { connection: connection.id, bytes });
                        }
                        break Progress::MovedAll(0);
                    }
                    ended => break ended,
                }
            };
            match progress {
                Progress::Moved(_) => {
                    connection.is_to_read = true;
                    self.to_read.push(place);
                }
                Progress::MovedAll(_) => (),
                Progress::Ended { refused } => self.fail(place, refused, events),
            }
        }
    }

    /// Writes what is queued.
    pub(super) fn write(&mut self, now: Time, events: &mut Vec<Event>) {
        for place in std::mem::take(&mut self.to_write) {
            let Some(connection) = &mut self.connections[place] else { continue };
            connection.is_to_write = false;
            if matches!(connection.state, State::Connecting { .. }) {
                continue;
            }
            let (bytes, result) = connection.write();
            if bytes > 0 && connection.is_known_to_driver() {
                events.push(Event::Sent { connection: connection.id, bytes });
            }
            if result.is_err() {
                if !connection.is_known_to_driver() {
                    self.remove(place);
                } else if !std::mem::replace(&mut connection.is_to_read, true) {
                    // What the peer said last may still be there to read, and then its end.
                    self.to_read.push(place);
                }
            } else if matches!(connection.state, State::Draining) && connection.is_all_written() {
                // Closing with bytes unread would reset the stream, and the peer might lose what we said last.
                let _ = connection.stream.shutdown(std::net::Shutdown::Write);
                connection.state = State::Lingering { until: now + LINGER };
                if !std::mem::replace(&mut connection.is_to_read, true) {
                    self.to_read.push(place);
                }
                self.limit_lingering();
            }
        }
    }

    /// Whether something is left to do at once.
    pub(super) fn is_busy(&self) -> bool {
        !self.to_read.is_empty() || !self.to_write.is_empty()
    }

    /// When [`Sockets::tick`] must be called at the latest.
    pub(super) fn deadline(&self) -> Time {
        let lingering = self.lingering().map(|(_, until)| until).min();
        lingering.into_iter().chain(self.accept_at).min().unwrap_or(Time::NEVER)
    }

    /// Does what has come due.
    pub(super) fn tick(&mut self, now: Time, events: &mut Vec<Event>) {
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept(now, events);
        }
        if self.deadline() <= now {
            let over: Vec<usize> = self.lingering().filter(|(_, until)| *until <= now).map(|(at, _)| at).collect();
            for place in over {
                self.remove(place);
            }
        }
    }

    fn lingering(&self) -> impl Iterator<Item = (usize, Time)> + '_ {
        let places = self.connections.iter().enumerate();
        places.filter_map(|(place, connection)| match connection.as_ref()?.state {
            State::Lingering { until } => Some((place, until)),
            _ => None,
        })
    }

    fn limit_lingering(&mut self) {
        if self.lingering().count() > MAX_LINGERING
            && let Some((place, _)) = self.lingering().min_by_key(|(_, until)| *until)
        {
            self.remove(place);
        }
    }
}

/// What every stream is set to. A failure leaves a slower stream, not a wrong one.
fn configure(stream: &TcpStream, user_timeout: Duration) {
    let _ = stream.set_nodelay(true);
    let milliseconds = u32::try_from(user_timeout.as_millis()).unwrap_or(u32::MAX);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(stream, milliseconds);
}

/// Whether the peer's system said that nobody is there (any more).
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests;
