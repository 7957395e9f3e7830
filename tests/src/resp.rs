//! A small RESP2 client that tells outcomes apart: applied, certainly not applied, or unknown.
//!
//! Written apart from the servers under test, so that a mistake in their parser is not repeated here. A
//! [`Connection`] is one socket, with pipelining; a [`Client`] follows the leader, one attempt a call, and never
//! repeats a request by itself: whether that is safe is the caller's to decide, from the [`Outcome`].

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The longest wait for a connection or an answer; after it, the outcome is unknown.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A longer reply than any test asks for is a fault of the server, not a reason to take memory.
const LONGEST_REPLY_BYTES: usize = 256 << 20;

/// What a server answers to one request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// `+OK` and the like.
    Simple(String),
    /// `-CODE why`.
    Error(String),
    /// `:1`.
    Integer(i64),
    /// Bytes.
    Bulk(Vec<u8>),
    /// No value.
    Nil,
    /// Several values.
    Array(Vec<Value>),
}

impl Value {
    /// The text of a simple or bulk value; `None` for anything else, or bytes that are not UTF-8.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Simple(text) => Some(text),
            Self::Bulk(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }
}

/// One connection to one server.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
    unsent: Vec<u8>,
}

impl Connection {
    /// Connects; every later wait for the server is bounded by [`PATIENCE`] as well.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream), unsent: Vec::new() })
    }

    /// Adds a request to what [`Connection::flush`] sends.
    pub fn add<A: AsRef<[u8]>>(&mut self, arguments: &[A]) {
        self.unsent.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
        for argument in arguments {
            let argument = argument.as_ref();
            self.unsent.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            self.unsent.extend_from_slice(argument);
            self.unsent.extend_from_slice(b"\r\n");
        }
    }

    /// Sends everything that was added.
    pub fn flush(&mut self) -> io::Result<()> {
        let unsent = std::mem::take(&mut self.unsent);
        self.stream.get_mut().write_all(&unsent)
    }

    /// Waits for the next answer.
    pub fn receive(&mut self) -> io::Result<Value> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| malformed("an empty line"))?;
        let number = || rest.parse::<i64>().map_err(|_| malformed(&line));
        match kind {
            "+" => Ok(Value::Simple(rest.to_owned())),
            "-" => Ok(Value::Error(rest.to_owned())),
            ":" => Ok(Value::Integer(number()?)),
            "$" | "*" if rest == "-1" => Ok(Value::Nil),
            "$" => {
                let length = usize::try_from(number()?).map_err(|_| malformed(&line))?;
                if length > LONGEST_REPLY_BYTES {
                    return Err(malformed(&line));
                }
                let mut bytes = vec![0; length + 2];
                self.stream.read_exact(&mut bytes)?;
                if bytes.split_off(length) != b"\r\n" {
                    return Err(malformed("a bulk string without its end"));
                }
                Ok(Value::Bulk(bytes))
            }
            "*" => (0..number()?).map(|_| self.receive()).collect::<io::Result<_>>().map(Value::Array),
            _ => Err(malformed(&line)),
        }
    }

    /// Sends one request and waits for its answer.
    pub fn call<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> io::Result<Value> {
        self.add(arguments);
        self.flush()?;
        self.receive()
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\r\n") {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"));
        }
        line.truncate(line.len() - 2);
        String::from_utf8(line).map_err(|_| malformed("a line that is not UTF-8"))
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not RESP2: {what:?}"))
}

/// What became of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Applied; this is the answer.
    Done(Value),
    /// Certainly not applied: not leader, no leader, try again, or never sent.
    NotApplied(String),
    /// May or may not be applied, now or later.
    Unknown(String),
    /// An answer that says the request itself is wrong.
    Refused(String),
}

/// Asks the leader, wherever it is.
#[derive(Debug)]
pub struct Client {
    servers: Vec<SocketAddr>,
    /// Which server is asked next.
    target: SocketAddr,
    connection: Option<Connection>,
}

impl Client {
    /// Knows these servers and begins with the one at `first`. Connects when it is used.
    pub fn new(servers: Vec<SocketAddr>, first: usize) -> Self {
        let target = servers[first % servers.len()];
        Self { servers, target, connection: None }
    }

    /// One request, one attempt. On "moved" and on a dead server the next attempt goes elsewhere.
    pub fn call<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Outcome {
        let requests = [arguments.iter().map(|argument| argument.as_ref().to_vec()).collect::<Vec<_>>()];
        self.pipeline(&requests).remove(0)
    }

    /// Several requests in one write; their outcomes, in order.
    pub fn pipeline<A: AsRef<[u8]>>(&mut self, requests: &[Vec<A>]) -> Vec<Outcome> {
        let target = self.target;
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => match Connection::open(target) {
                Ok(connection) => self.connection.insert(connection),
                Err(error) => {
                    self.turn_to_another();
                    let why = format!("connecting to {target}: {error}");
                    return vec![Outcome::NotApplied(why); requests.len()];
                }
            },
        };
        for request in requests {
            connection.add(request);
        }
        let mut failed = connection.flush().err();
        let mut moved_to = None;
        let mut outcomes = Vec::with_capacity(requests.len());
        for _ in requests {
            let answer = match &failed {
                None => connection.receive(),
                Some(error) => Err(io::Error::new(error.kind(), error.to_string())),
            };
            outcomes.push(match answer {
                Ok(value) => outcome_of(value, &mut moved_to),
                Err(error) => {
                    let why = format!("waiting for {target}: {error}");
                    failed.get_or_insert(error);
                    Outcome::Unknown(why)
                }
            });
        }
        if failed.is_some() {
            self.turn_to_another();
        } else if let Some(leader) = moved_to {
            self.connection = None;
            self.target = leader;
        } else if outcomes.iter().all(|outcome| matches!(outcome, Outcome::NotApplied(_))) {
            // It knows no leader; another one may.
            self.turn_to_another();
        }
        outcomes
    }

    /// Knows these servers from now on, as a client that asks for the cluster's nodes anew.
    pub fn learn(&mut self, servers: Vec<SocketAddr>) {
        self.servers = servers;
    }

    fn turn_to_another(&mut self) {
        self.connection = None;
        let at = self.servers.iter().position(|server| *server == self.target).unwrap_or(0);
        self.target = self.servers[(at + 1) % self.servers.len()];
    }
}

fn outcome_of(value: Value, moved_to: &mut Option<SocketAddr>) -> Outcome {
    let Value::Error(text) = value else { return Outcome::Done(value) };
    match text.split(' ').next().unwrap_or_default() {
        "MOVED" => {
            *moved_to = text.split(' ').nth(2).and_then(|address| address.parse().ok());
            assert!(moved_to.is_some(), "a MOVED that no client could follow: {text:?}");
            Outcome::NotApplied(text)
        }
        "TRYAGAIN" | "CLUSTERDOWN" => Outcome::NotApplied(text),
        "UNKNOWN" => Outcome::Unknown(text),
        _ => Outcome::Refused(text),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A server that reads `expected` and answers `reply`, then closes.
    fn server(expected: &'static [u8], reply: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            drop(listener);
            let mut request = vec![0; expected.len()];
            stream.read_exact(&mut request).expect("a request");
            assert_eq!(request, expected);
            stream.write_all(reply).expect("a client that reads");
        });
        address
    }

    #[test]
    fn requests_and_replies_of_every_kind_are_understood() {
        let address = server(
            b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
            b"*6\r\n+OK\r\n-ERR no\r\n:-5\r\n$4\r\n\r\n\r\n\r\n$-1\r\n*1\r\n:1\r\n",
        );
        let value = Connection::open(address).expect("open").call(&["GET", "k"]).expect("an answer");
        assert_eq!(
            value,
            Value::Array(vec![
                Value::Simple("OK".to_owned()),
                Value::Error("ERR no".to_owned()),
                Value::Integer(-5),
                Value::Bulk(b"\r\n\r\n".to_vec()),
                Value::Nil,
                Value::Array(vec![Value::Integer(1)]),
            ])
        );
    }

    #[test]
    fn a_lost_connection_leaves_the_outcome_unknown() {
        let address = server(b"*1\r\n$4\r\nPING\r\n", b"+PO");
        let mut client = Client::new(vec![address], 0);
        assert!(matches!(client.call(&["PING"]), Outcome::Unknown(_)));
        assert!(matches!(client.call(&["PING"]), Outcome::NotApplied(_)), "nobody listens any more");
    }

    #[test]
    fn a_client_follows_to_the_leader() {
        let leader = server(b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n");
        let text: &'static str = Box::leak(format!("-MOVED 0 {leader}\r\n").into_boxed_str());
        let follower = server(b"*1\r\n$4\r\nPING\r\n", text.as_bytes());
        let mut client = Client::new(vec![follower, leader], 0);
        assert!(matches!(client.call(&["PING"]), Outcome::NotApplied(_)));
        assert_eq!(client.call(&["PING"]), Outcome::Done(Value::Simple("PONG".to_owned())));
    }

    #[test]
    fn every_outcome_code_is_told_apart() {
        let mut moved = None;
        let mut outcome = |text: &str| outcome_of(Value::Error(text.to_owned()), &mut moved);
        assert!(matches!(outcome("TRYAGAIN full"), Outcome::NotApplied(_)));
        assert!(matches!(outcome("CLUSTERDOWN none"), Outcome::NotApplied(_)));
        assert!(matches!(outcome("UNKNOWN lost"), Outcome::Unknown(_)));
        assert!(matches!(outcome("ERR syntax"), Outcome::Refused(_)));
    }
}
