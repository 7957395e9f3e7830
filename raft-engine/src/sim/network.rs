//! Links and streams between the servers: what is sent, what arrives, when, and in which pieces.
//!
//! A connection is two byte streams. Frames that carry one whole core message are lost, doubled, delayed and overtaken
//! within their stream; all others only suffer what TCP lets happen: the stream breaks at any byte, each end learning of it
//! in its own time (so that an old connection lives on beside its successor), and bytes arrive in pieces of any size. A
//! blocked link holds what a stream carries until it heals. The network knows no server: it gives what happened to the
//! ends of a stream, and the world hands it on.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fastrand::Rng;

use super::faults::{MAX_SERVERS, Masks};
use super::queue::Queue;
use super::world::What;
use crate::driver::ConnectionId;
use crate::types::Time;

/// How unkind the network of a run is.
#[derive(Clone, Debug)]
pub(super) struct NetworkProfile {
    /// The time of most deliveries.
    pub(super) latency: Duration,
    /// Of a thousand deliveries, those that take up to a hundred times as long.
    pub(super) slow_permille: u32,
    /// Of a thousand core messages, those lost.
    pub(super) loss_permille: u32,
    /// Of a thousand core messages, those that arrive twice.
    pub(super) double_permille: u32,
    /// Of a thousand core messages, those that later ones may overtake.
    pub(super) late_permille: u32,
    /// Of a thousand deliveries, those cut in pieces.
    pub(super) chop_permille: u32,
}

/// A process's end of a stream. A new process of the same server has another epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) server: usize,
    pub(super) epoch: u32,
    pub(super) connection: ConnectionId,
}

/// What comes to an end of a stream.
#[derive(Debug)]
pub(super) enum Arrival {
    Bytes(Bytes),
    Closed,
}

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sending {
    OnItsWay,
    Late,
    Doubled,
    Lost,
}

struct Parcel {
    number: u64,
    bytes: Bytes,
    is_core: bool,
}

/// One direction of a stream: from end `n` to end `1 - n`.
#[derive(Default)]
struct Direction {
    /// Sent and not delivered, by number.
    parcels: VecDeque<Parcel>,
    next_number: u64,
    /// When the last delivery that keeps its order comes.
    last_at: Time,
    /// Numbers of parcels that wait for the link to heal, in order.
    held: VecDeque<u64>,
    /// Delivered by the network and not yet given to the receiver.
    rest: BytesMut,
}

struct Stream {
    ends: [Place; 2],
    /// Whether the end still listens.
    is_open: [bool; 2],
    directions: [Direction; 2],
}

/// All links and streams.
pub(super) struct Network {
    pub(super) profile: NetworkProfile,
    streams: Vec<Option<Box<Stream>>>,
    /// `blocked[from][to]`.
    blocked: [[bool; MAX_SERVERS]; MAX_SERVERS],
    by_place: BTreeMap<(usize, ConnectionId), (usize, usize)>,
}

impl Network {
    /// A network without streams.
    pub(super) fn new(profile: NetworkProfile) -> Self {
        Self { profile, streams: Vec::new(), blocked: [[false; MAX_SERVERS]; MAX_SERVERS], by_place: BTreeMap::new() }
    }

    /// Whether nothing goes from `from` to `to`.
    pub(super) fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.blocked[from][to]
    }

    /// Sets which links are blocked: bit `to` of `masks[from]`. What the opened ones held is delivered.
    pub(super) fn block(&mut self, masks: Masks, queue: &mut Queue<What>, rng: &mut Rng) {
        for (from, mask) in masks.into_iter().enumerate() {
            for to in 0..MAX_SERVERS {
                self.blocked[from][to] = mask >> to & 1 == 1;
            }
        }
        for number in 0..self.streams.len() {
            let Some(stream) = &mut self.streams[number] else { continue };
            for end in 0..2 {
                if self.blocked[stream.ends[end].server][stream.ends[1 - end].server] {
                    continue;
                }
                for parcel in std::mem::take(&mut stream.directions[end].held) {
                    let at = delivery_time(&mut stream.directions[end], false, &self.profile, queue.now(), rng);
                    queue.at(at, What::Deliver { stream: number, end, parcel });
                }
            }
        }
    }

    /// A stream between two processes; its two ends learn of it at once.
    pub(super) fn connect(&mut self, dialler: Place, acceptor: Place) -> usize {
        let number = self.streams.len();
        self.by_place.insert((dialler.server, dialler.connection), (number, 0));
        self.by_place.insert((acceptor.server, acceptor.connection), (number, 1));
        self.streams.push(Some(Box::new(Stream {
            ends: [dialler, acceptor],
            is_open: [true, true],
            directions: Default::default(),
        })));
        number
    }

    /// Who is at the other end of a connection.
    pub(super) fn peer(&self, server: usize, connection: ConnectionId) -> Option<usize> {
        let &(number, end) = self.by_place.get(&(server, connection))?;
        self.streams[number].as_ref().map(|stream| stream.ends[1 - end].server)
    }

    /// Whose end of a stream it is.
    pub(super) fn end_server(&self, number: usize, end: usize) -> Option<usize> {
        self.streams[number].as_ref().map(|stream| stream.ends[end].server)
    }

    /// How many streams stand; used to choose one to break.
    pub(super) fn open_streams(&self) -> Vec<usize> {
        let is_open = |stream: &Option<Box<Stream>>| stream.as_ref().is_some_and(|stream| stream.is_open != [false; 2]);
        (0..self.streams.len()).filter(|&number| is_open(&self.streams[number])).collect()
    }

    /// Sends one frame.
    pub(super) fn send(
        &mut self,
        server: usize,
        connection: ConnectionId,
        bytes: Bytes,
        is_core: bool,
        queue: &mut Queue<What>,
        rng: &mut Rng,
    ) -> Sending {
        let Some(&(number, end)) = self.by_place.get(&(server, connection)) else { return Sending::Lost };
        let Some(stream) = &mut self.streams[number] else { return Sending::Lost };
        if !stream.is_open[1 - end] {
            return Sending::Lost;
        }
        let to = stream.ends[1 - end].server;
        let is_blocked = self.blocked[server][to];
        let chance = |permille: u32, rng: &mut Rng| permille > 0 && rng.u32(..1000) < permille;
        if is_core && (chance(self.profile.loss_permille, rng) || (is_blocked && rng.u8(..4) != 0)) {
            return Sending::Lost;
        }
        let is_late = is_core && chance(self.profile.late_permille, rng);
        let is_doubled = is_core && chance(self.profile.double_permille, rng);
        let direction = &mut stream.directions[end];
        for copy in 0..1 + usize::from(is_doubled) {
            let parcel = direction.next_number;
            direction.next_number += 1;
            direction.parcels.push_back(Parcel { number: parcel, bytes: bytes.clone(), is_core });
            let at = delivery_time(direction, is_late || copy > 0, &self.profile, queue.now(), rng);
            queue.at(at, What::Deliver { stream: number, end, parcel });
        }
        match (is_doubled, is_late) {
            (true, _) => Sending::Doubled,
            (_, true) => Sending::Late,
            _ => Sending::OnItsWay,
        }
    }

    /// A parcel has come: what its receiver gets now. The rest, if any, comes by [`Network::rest`].
    pub(super) fn deliver(
        &mut self,
        number: usize,
        end: usize,
        parcel: u64,
        queue: &mut Queue<What>,
        rng: &mut Rng,
    ) -> Option<(Place, Arrival)> {
        let stream = self.streams[number].as_mut()?;
        let to = stream.ends[1 - end];
        let is_blocked = self.blocked[stream.ends[end].server][to.server];
        let direction = &mut stream.directions[end];
        let at = direction.parcels.iter().position(|waiting| waiting.number == parcel)?;
        if is_blocked {
            if direction.parcels[at].is_core && rng.bool() {
                direction.parcels.remove(at);
            } else {
                direction.held.push_back(parcel);
            }
            return None;
        }
        let bytes = direction.parcels.remove(at)?.bytes;
        if !stream.is_open[1 - end] {
            return None;
        }
        let is_chopped = self.profile.chop_permille > 0 && rng.u32(..1000) < self.profile.chop_permille;
        if direction.rest.is_empty() && !is_chopped {
            return Some((to, Arrival::Bytes(bytes)));
        }
        let had_rest = !direction.rest.is_empty();
        direction.rest.extend_from_slice(&bytes);
        if had_rest {
            return None;
        }
        let now = direction.rest.split_to(rng.usize(..=direction.rest.len()));
        let delay = Duration::from_nanos(rng.u64(..200_000));
        queue.after(delay, What::DeliverRest { stream: number, end });
        (!now.is_empty()).then(|| (to, Arrival::Bytes(now.freeze())))
    }

    /// The pieces that a chopped delivery left.
    pub(super) fn rest(
        &mut self,
        number: usize,
        end: usize,
        queue: &mut Queue<What>,
        rng: &mut Rng,
    ) -> Option<(Place, Arrival)> {
        let stream = self.streams[number].as_mut()?;
        let direction = &mut stream.directions[end];
        if direction.rest.is_empty() || !stream.is_open[1 - end] {
            return None;
        }
        let length = if rng.bool() { direction.rest.len() } else { rng.usize(1..=direction.rest.len()) };
        let bytes = direction.rest.split_to(length).freeze();
        if !direction.rest.is_empty() {
            queue.after(Duration::from_nanos(rng.u64(..200_000)), What::DeliverRest { stream: number, end });
        }
        Some((stream.ends[1 - end], Arrival::Bytes(bytes)))
    }

    /// The process closes its end: it hears nothing more; the other end learns of it behind what is on its way.
    pub(super) fn close(&mut self, server: usize, connection: ConnectionId, queue: &mut Queue<What>, rng: &mut Rng) {
        let Some((number, end)) = self.by_place.remove(&(server, connection)) else { return };
        let Some(stream) = &mut self.streams[number] else { return };
        stream.is_open[end] = false;
        stream.directions[1 - end].parcels.clear();
        let last_at = stream.directions[end].last_at.max(queue.now());
        queue.at(last_at + random_latency(&self.profile, rng), What::Break { stream: number, end: 1 - end });
    }

    /// The process is gone. Its peers learn of it soon, or (`is_silent`) late.
    pub(super) fn process_ends(&mut self, server: usize, is_silent: bool, queue: &mut Queue<What>, rng: &mut Rng) {
        let gone: Vec<_> = self
            .by_place
            .range((server, ConnectionId(0))..=(server, ConnectionId(u64::MAX)))
            .map(|(&key, &value)| (key, value))
            .collect();
        for (key, (number, end)) in gone {
            self.by_place.remove(&key);
            let Some(stream) = &mut self.streams[number] else { continue };
            stream.is_open[end] = false;
            stream.directions[1 - end].parcels.clear();
            let delay = if is_silent || rng.u8(..8) == 0 {
                Duration::from_micros(rng.u64(..3_000_000))
            } else {
                random_latency(&self.profile, rng)
            };
            queue.after(delay, What::Break { stream: number, end: 1 - end });
        }
    }

    /// A stream breaks: its ends learn of it each in its own time.
    pub(super) fn break_stream(&mut self, number: usize, queue: &mut Queue<What>, rng: &mut Rng) {
        let long = Duration::from_micros(rng.u64(..2_000_000));
        let late_end = rng.usize(..4);
        for end in 0..2 {
            let delay = if end == late_end { long } else { random_latency(&self.profile, rng) };
            queue.after(delay, What::Break { stream: number, end });
        }
    }

    /// One end of a stream learns that it broke: it gets a prefix of what was on its way, then the news.
    pub(super) fn broken(&mut self, number: usize, end: usize, rng: &mut Rng) -> Vec<(Place, Arrival)> {
        let Some(stream) = &mut self.streams[number] else { return Vec::new() };
        let mut arrivals = Vec::new();
        let place = stream.ends[end];
        if std::mem::take(&mut stream.is_open[end]) {
            let direction = &mut stream.directions[1 - end];
            let mut bytes = std::mem::take(&mut direction.rest);
            if let Some(parcel) = direction.parcels.pop_front() {
                bytes.extend_from_slice(&parcel.bytes);
            }
            bytes.truncate(rng.usize(..=bytes.len()));
            if !bytes.is_empty() {
                arrivals.push((place, Arrival::Bytes(bytes.freeze())));
            }
            direction.parcels.clear();
            arrivals.push((place, Arrival::Closed));
            self.by_place.remove(&(place.server, place.connection));
        }
        if stream.is_open == [false; 2] {
            self.streams[number] = None;
        }
        arrivals
    }

    /// A delivery time for something that is not a frame.
    pub(super) fn latency(&self, rng: &mut Rng) -> Duration {
        random_latency(&self.profile, rng)
    }
}

fn random_latency(profile: &NetworkProfile, rng: &mut Rng) -> Duration {
    let nanos = u64::try_from(profile.latency.as_nanos()).unwrap_or(u64::MAX);
    let times = if rng.u32(..1000) < profile.slow_permille { rng.u64(1..=100) } else { 1 };
    Duration::from_nanos((nanos / 2 + rng.u64(..=nanos)) * times)
}

fn delivery_time(
    direction: &mut Direction,
    is_overtaken: bool,
    profile: &NetworkProfile,
    now: Time,
    rng: &mut Rng,
) -> Time {
    if is_overtaken {
        return now + random_latency(profile, rng) * rng.u32(1..30);
    }
    direction.last_at = direction.last_at.max(now + random_latency(profile, rng));
    direction.last_at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind() -> NetworkProfile {
        NetworkProfile {
            latency: Duration::from_micros(100),
            slow_permille: 10,
            loss_permille: 0,
            double_permille: 0,
            late_permille: 0,
            chop_permille: 0,
        }
    }

    fn connected(profile: NetworkProfile) -> (Network, ConnectionId) {
        let mut network = Network::new(profile);
        let place = |server, connection| Place { server, epoch: 1, connection: ConnectionId(connection) };
        network.connect(place(0, 2), place(1, 1));
        (network, ConnectionId(2))
    }

    fn run(network: &mut Network, queue: &mut Queue<What>, rng: &mut Rng) -> (Vec<u8>, usize) {
        let (mut received, mut closes) = (Vec::new(), 0);
        while let Some(what) = queue.pop() {
            let arrivals = match what {
                What::Deliver { stream, end, parcel } => {
                    network.deliver(stream, end, parcel, queue, rng).into_iter().collect()
                }
                What::DeliverRest { stream, end } => network.rest(stream, end, queue, rng).into_iter().collect(),
                What::Break { stream, end } => network.broken(stream, end, rng),
                _ => Vec::new(),
            };
            for (place, arrival) in arrivals.into_iter().filter(|(place, _)| place.server == 1) {
                assert_eq!(place.connection, ConnectionId(1));
                match arrival {
                    Arrival::Bytes(bytes) => received.extend_from_slice(&bytes),
                    Arrival::Closed => closes += 1,
                }
            }
        }
        (received, closes)
    }

    fn send(network: &mut Network, queue: &mut Queue<What>, rng: &mut Rng, is_core: bool, count: u8) {
        for byte in 0..count {
            network.send(0, ConnectionId(2), Bytes::from(vec![byte; 10]), is_core, queue, rng);
        }
    }

    #[test]
    fn a_stream_keeps_order_however_it_is_chopped_or_held() {
        for seed in 0..100 {
            let mut rng = Rng::with_seed(seed);
            let mut queue = Queue::new();
            let (mut network, connection) = connected(NetworkProfile { chop_permille: 500, ..kind() });
            if seed % 2 == 0 {
                network.block([2, 0, 0, 0, 0, 0, 0, 0], &mut queue, &mut rng);
            }
            send(&mut network, &mut queue, &mut rng, false, 50);
            let early = run(&mut network, &mut queue, &mut rng).0;
            assert_eq!(early.is_empty(), seed % 2 == 0);
            network.block([0; MAX_SERVERS], &mut queue, &mut rng);
            let late = run(&mut network, &mut queue, &mut rng).0;
            let sent: Vec<u8> = (0..50).flat_map(|byte| [byte; 10]).collect();
            assert_eq!([early, late].concat(), sent);
            network.close(0, connection, &mut queue, &mut rng);
            assert_eq!(run(&mut network, &mut queue, &mut rng).1, 1);
        }
    }

    #[test]
    fn core_messages_are_lost_doubled_and_overtaken_as_whole_frames() {
        let mut rng = Rng::with_seed(1);
        let mut queue = Queue::new();
        let profile = NetworkProfile { loss_permille: 200, double_permille: 200, late_permille: 200, ..kind() };
        let (mut network, _) = connected(NetworkProfile { chop_permille: 300, ..profile });
        send(&mut network, &mut queue, &mut rng, true, 200);
        let (received, _) = run(&mut network, &mut queue, &mut rng);
        let frames: Vec<u8> = received.chunks(10).map(|frame| frame[0]).collect();
        assert!(received.chunks(10).all(|frame| frame.iter().all(|&byte| byte == frame[0])));
        assert!((0..200).any(|byte| !frames.contains(&byte)));
        assert!((0..200).any(|byte| frames.iter().filter(|&&frame| frame == byte).count() == 2));
        assert!(!frames.is_sorted());
    }

    #[test]
    fn a_broken_stream_gives_a_prefix_and_then_the_news() {
        for seed in 0..100 {
            let mut rng = Rng::with_seed(seed);
            let mut queue = Queue::new();
            let (mut network, connection) = connected(kind());
            send(&mut network, &mut queue, &mut rng, false, 20);
            network.break_stream(0, &mut queue, &mut rng);
            let (received, closes) = run(&mut network, &mut queue, &mut rng);
            let sent: Vec<u8> = (0..20).flat_map(|byte| [byte; 10]).collect();
            assert!(sent.starts_with(&received));
            assert_eq!(closes, 1);
            assert_eq!(network.peer(0, connection), None);
        }
    }
}
