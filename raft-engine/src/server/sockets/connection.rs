//! One stream and what is queued on it.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsFd;

use bytes::{Buf, Bytes, BytesMut};
use mio::net::TcpStream;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

use super::super::sys;
use super::is_refusal;
use crate::driver::{ConnectionId, Frame};
use crate::types::Time;

/// Pieces shorter than this are put together by copying: cheaper than one more vector for the kernel.
const COPY_BYTES: usize = 2 << 10;
/// The most pieces of one call.
const PIECES: usize = 64;

/// Where a stream is in its life.
#[derive(Debug)]
pub(super) enum State {
    /// Dialled; if it fails, there are other addresses of the same name.
    Connecting { others: Vec<SocketAddr> },
    /// Both ways.
    Open,
    /// Closed by the driver; what was queued still goes out.
    Draining,
    /// All is out; what comes is dropped until the peer closes too.
    Lingering { until: Time },
}

/// How far a read came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    /// So many bytes, and there may be more.
    Moved(usize),
    /// So many bytes, and no more for now.
    MovedAll(usize),
    /// The stream is over.
    Ended { refused: bool },
}

/// A stream.
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) stream: TcpStream,
    pub(super) state: State,
    /// In the list of those with something to write, or to read.
    pub(super) is_to_write: bool,
    pub(super) is_to_read: bool,
    queue: VecDeque<Bytes>,
    /// The end of the queue, put together from small pieces.
    small: BytesMut,
    is_broken: bool,
}

impl Connection {
    pub(super) fn new(id: ConnectionId, stream: TcpStream, state: State) -> Self {
        Self {
            id,
            stream,
            state,
            is_to_write: false,
            is_to_read: false,
            queue: VecDeque::new(),
            small: BytesMut::new(),
            is_broken: false,
        }
    }

    /// Whether the driver waits for events of it.
    pub(super) fn is_known_to_driver(&self) -> bool {
        matches!(self.state, State::Connecting { .. } | State::Open)
    }

    /// Whether a connect that was under way has ended well.
    pub(super) fn connected(&self) -> io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            // A dial of a free port of our own range may meet itself: nobody listens there.
            Ok(peer) if self.stream.local_addr()? == peer => Err(io::ErrorKind::ConnectionRefused.into()),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) fn queue(&mut self, frame: Frame) {
        for piece in std::iter::once(frame.head).chain(frame.payloads) {
            if piece.len() < COPY_BYTES {
                self.small.extend_from_slice(&piece);
            } else {
                self.end_small();
                self.queue.push_back(piece);
            }
        }
    }

    fn end_small(&mut self) {
        if !self.small.is_empty() {
            self.queue.push_back(self.small.split().freeze());
        }
    }

    pub(super) fn is_all_written(&self) -> bool {
        self.queue.is_empty() && self.small.is_empty()
    }

    /// Writes as much as the system takes; says how many bytes, also where it then failed.
    pub(super) fn write(&mut self) -> (usize, io::Result<()>) {
        let mut total = 0;
        if self.is_broken {
            return (0, Ok(()));
        }
        self.end_small();
        while !self.queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); PIECES];
            let mut offered = 0;
            let mut count = 0;
            for (slice, piece) in slices.iter_mut().zip(&self.queue) {
                *slice = IoSlice::new(piece);
                offered += piece.len();
                count += 1;
            }
            // Not `write_vectored`: it would raise SIGPIPE in the host.
            let mut no_control = SendAncillaryBuffer::default();
            let result = sendmsg(&self.stream, &slices[..count], &mut no_control, SendFlags::NOSIGNAL);
            match result {
                Ok(bytes) => {
                    self.advance(bytes);
                    total += bytes;
                    if bytes < offered {
                        // The system's buffer is full; readiness will be told.
                        return (total, Ok(()));
                    }
                }
                Err(rustix::io::Errno::INTR) => (),
                Err(rustix::io::Errno::WOULDBLOCK) => return (total, Ok(())),
                Err(error) => {
                    self.is_broken = true;
                    self.queue.clear();
                    return (total, Err(error.into()));
                }
            }
        }
        (total, Ok(()))
    }

    fn advance(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let Some(front) = self.queue.front_mut() else { return };
            if front.len() > bytes {
                front.advance(bytes);
                return;
            }
            bytes -= front.len();
            self.queue.pop_front();
        }
    }

    /// Reads once into the unused capacity of `buffer`, which must have some.
    pub(super) fn read(&mut self, buffer: &mut BytesMut) -> Progress {
        let room = buffer.capacity() - buffer.len();
        loop {
            match sys::receive(self.stream.as_fd(), buffer) {
                Ok(0) => return Progress::Ended { refused: false },
                // Readiness is told anew when a stream that was emptied gets more (epoll(7), edge-triggered).
                Ok(bytes) if bytes < room && !self.is_broken => return Progress::MovedAll(bytes),
                Ok(bytes) => return Progress::Moved(bytes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !self.is_broken => {
                    return Progress::MovedAll(0);
                }
                Err(error) => return Progress::Ended { refused: is_refusal(&error) },
            }
        }
    }
}
