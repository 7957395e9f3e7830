//! Streams over loopback.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use mio::{Events, Poll};

use super::super::sys;
use super::*;

const BOUND: Duration = Duration::from_secs(20);
const LISTENER: Token = Token(1);

struct End {
    poll: Poll,
    sockets: Sockets,
    resolved: Receiver<Resolved>,
    address: SocketAddr,
    happened: Vec<Event>,
}

impl End {
    fn new() -> Self {
        let poll = Poll::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, resolved) = channel();
        let resolver = Resolver::new(Arc::new({
            let sender = std::sync::Mutex::new(sender);
            move |resolved| drop(sender.lock().unwrap().send(resolved))
        }));
        let registry = poll.registry().try_clone().unwrap();
        let sockets = Sockets::new(registry, listener, LISTENER, 8, resolver, BOUND, Plaintext::Loopback).unwrap();
        Self { poll, sockets, resolved, address, happened: Vec::new() }
    }

    /// Moves bytes once, waiting a little for something to happen.
    fn turn(&mut self) {
        let mut polled = Events::with_capacity(64);
        let wait = if self.sockets.is_busy() { Duration::ZERO } else { Duration::from_millis(1) };
        self.poll.poll(&mut polled, Some(wait)).unwrap();
        for event in &polled {
            if event.token() == LISTENER {
                self.sockets.accept(Time(0), &mut self.happened);
            } else {
                self.sockets.ready(event, &mut self.happened);
            }
        }
        self.sockets.read(&mut self.happened);
        self.sockets.write(Time(0), &mut self.happened);
    }

    fn received(&self, id: ConnectionId) -> Vec<u8> {
        let mut all = Vec::new();
        for event in &self.happened {
            if let Event::Received { connection, bytes } = event
                && *connection == id
            {
                all.extend_from_slice(bytes);
            }
        }
        all
    }

    fn sent(&self, id: ConnectionId) -> usize {
        let sent = self.happened.iter().map(|event| match event {
            Event::Sent { connection, bytes } if *connection == id => *bytes,
            _ => 0,
        });
        sent.sum()
    }

    fn is_closed(&self, id: ConnectionId) -> Option<bool> {
        self.happened.iter().find_map(|event| match event {
            Event::Closed { connection, refused } if *connection == id => Some(*refused),
            _ => None,
        })
    }
}

#[allow(clippy::disallowed_methods, reason = "the bound of a wait")]
fn until(ends: &mut [&mut End], mut condition: impl FnMut(&[&mut End]) -> bool) {
    let start = std::time::Instant::now();
    while !condition(ends) {
        assert!(start.elapsed() < BOUND, "not in time: {:?}", ends.iter().map(|end| &end.happened).collect::<Vec<_>>());
        ends.iter_mut().for_each(|end| end.turn());
    }
}

const DIALLED: ConnectionId = ConnectionId(2);
const ACCEPTED: ConnectionId = ConnectionId(1);

/// An end that listens and one that has dialled it.
fn pair() -> (End, End) {
    let (mut listening, mut dialling) = (End::new(), End::new());
    dialling.sockets.dial(DIALLED, listening.address.to_string(), &mut dialling.happened);
    until(&mut [&mut listening, &mut dialling], |ends| {
        ends[0].happened.contains(&Event::Accepted { connection: ACCEPTED })
            && ends[1].happened.contains(&Event::Dialled { connection: DIALLED })
    });
    (listening, dialling)
}

#[test]
fn frames_arrive_whole_and_in_order_whatever_their_pieces() {
    let (mut listening, mut dialling) = pair();
    let mut expected = Vec::new();
    for at in 0..200_usize {
        // Short and long payloads, more of them than one call to the system takes, and more than its buffers hold.
        let head = Bytes::from(format!("frame {at};"));
        let payloads: Vec<Bytes> =
            (0..at % 90).map(|piece| Bytes::from(vec![at as u8; (piece * 1371 + at) % 5000])).collect();
        expected.extend_from_slice(&head);
        payloads.iter().for_each(|payload| expected.extend_from_slice(payload));
        dialling.sockets.send(DIALLED, Frame { head, payloads });
    }
    until(&mut [&mut listening, &mut dialling], |ends| ends[0].received(ACCEPTED).len() == expected.len());
    assert!(listening.received(ACCEPTED) == expected);
    assert_eq!(dialling.sent(DIALLED), expected.len());
}

#[test]
fn what_was_given_before_a_close_arrives_and_then_the_end() {
    let (mut listening, mut dialling) = pair();
    // The other side has sent something that nobody reads: closing must not turn into a reset.
    listening.sockets.send(ACCEPTED, Frame { head: Bytes::from_static(b"unread"), payloads: Vec::new() });
    let length = 3 << 20;
    dialling.sockets.send(DIALLED, Frame { head: Bytes::from(vec![5; length]), payloads: Vec::new() });
    dialling.sockets.close(DIALLED);
    until(&mut [&mut listening, &mut dialling], |ends| ends[0].is_closed(ACCEPTED).is_some());
    assert_eq!(listening.received(ACCEPTED).len(), length);
    assert_eq!(listening.is_closed(ACCEPTED), Some(false));
    assert_eq!(dialling.is_closed(DIALLED), None, "whoever closes is not told");
    until(&mut [&mut dialling], |ends| ends[0].sockets.connections.iter().all(Option::is_none));
}

#[test]
fn a_closed_stream_does_not_linger_for_ever() {
    let (_listening, mut dialling) = pair();
    dialling.sockets.close(DIALLED);
    dialling.turn();
    let deadline = dialling.sockets.deadline();
    assert!(deadline < Time::NEVER);
    dialling.sockets.tick(deadline, &mut dialling.happened);
    assert!(dialling.sockets.connections.iter().all(Option::is_none));
}

#[test]
fn writing_to_a_peer_that_is_gone_is_an_event_and_no_signal() {
    // A thread of the library blocks all signals: one that was raised would be pending in it.
    let body = || {
        let (mut listening, mut dialling) = pair();
        listening.sockets.close(ACCEPTED);
        drop(listening);
        let frame = || Frame { head: Bytes::from(vec![0; 64 << 10]), payloads: Vec::new() };
        for _ in 0..64 {
            dialling.sockets.send(DIALLED, frame());
        }
        until(&mut [&mut dialling], |ends| ends[0].is_closed(DIALLED).is_some());
        // Known to be gone: nothing more happens.
        dialling.sockets.send(DIALLED, frame());
        dialling.turn();
        assert_eq!(dialling.happened.iter().filter(|event| matches!(event, Event::Closed { .. })).count(), 1);
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let mask = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap()
        };
        let sigpipe = 1 << (libc::SIGPIPE - 1);
        assert_eq!((mask("SigPnd") & sigpipe, mask("SigBlk") & sigpipe), (0, sigpipe));
    };
    sys::spawn("test", body).unwrap().join().unwrap();
}

#[test]
fn a_refused_dial_says_so() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut dialling = End::new();
    dialling.sockets.dial(DIALLED, free.to_string(), &mut dialling.happened);
    until(&mut [&mut dialling], |ends| ends[0].is_closed(DIALLED).is_some());
    assert_eq!(dialling.is_closed(DIALLED), Some(true));
}

#[test]
fn a_name_is_resolved_elsewhere_and_every_address_is_tried() {
    let (mut listening, mut dialling) = (End::new(), End::new());
    dialling.sockets.dial(DIALLED, format!("localhost:{}", listening.address.port()), &mut dialling.happened);
    assert!(dialling.happened.is_empty());
    let (id, result) = dialling.resolved.recv_timeout(BOUND).unwrap();
    assert_eq!(id, DIALLED);
    assert!(!result.unwrap().is_empty());
    // Nobody listens at the first.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    dialling.sockets.resolved((DIALLED, Ok(vec![free, listening.address])), &mut dialling.happened);
    until(&mut [&mut listening, &mut dialling], |ends| {
        ends[1].happened.contains(&Event::Dialled { connection: DIALLED })
    });

    let given_up = ConnectionId(4);
    dialling.sockets.dial(given_up, "localhost:1".into(), &mut dialling.happened);
    dialling.sockets.close(given_up);
    dialling.sockets.resolved((given_up, Err("unknown".into())), &mut dialling.happened);
    let unknown = ConnectionId(6);
    dialling.sockets.dial(unknown, "localhost:1".into(), &mut dialling.happened);
    dialling.sockets.resolved((unknown, Err("unknown".into())), &mut dialling.happened);
    assert_eq!((dialling.is_closed(given_up), dialling.is_closed(unknown)), (None, Some(false)));
}

#[test]
fn accepted_streams_are_bounded() {
    let mut listening = End::new();
    let mut streams = Vec::new();
    for _ in 0..MAX_ACCEPTED + 8 {
        streams.push(std::net::TcpStream::connect(listening.address).unwrap());
        listening.turn();
    }
    let last = streams.last().unwrap();
    last.set_nonblocking(true).unwrap();
    until(&mut [&mut listening], |_| matches!(last.peek(&mut [0]), Ok(0)));
    let accepted = listening.happened.iter().filter(|event| matches!(event, Event::Accepted { .. }));
    assert_eq!(accepted.count(), MAX_ACCEPTED);
}

#[test]
fn nothing_leaves_the_machine_unasked() {
    let mut end = End::new();
    // Nobody is at this address (RFC 5737); with leave to go there, it would be dialled all the same.
    for _ in 0..2 {
        end.sockets.dial(DIALLED, "192.0.2.1:9".into(), &mut end.happened);
    }
    let closed = |event: &Event| matches!(event, Event::Closed { connection: DIALLED, refused: false });
    assert!(end.happened.len() == 2 && end.happened.iter().all(closed), "{:?}", end.happened);
    assert_eq!(end.sockets.take_untold(), vec!["192.0.2.1:9".parse().unwrap()]);
    assert!(end.sockets.take_untold().is_empty(), "each is told once");
}
