//! Links between servers that a test can cut: every pair has a proxy of its own for each direction.
//!
//! A server sends only on connections that it dialled, so the proxy on the way from one server to another carries what
//! the first says to the second, and a handshake's answers. A cut link passes nothing on and loses nothing, as a cable
//! that was pulled: a new connection is taken and hears nothing, and what was under way arrives when the cut heals.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Whether a link passes anything on.
#[derive(Debug, Default)]
struct Gate {
    is_cut: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, is_cut: bool) {
        *self.is_cut.lock().unwrap_or_else(PoisonError::into_inner) = is_cut;
        self.changed.notify_all();
    }

    /// Returns once the link stands.
    fn pass(&self) {
        let is_cut = self.is_cut.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(is_cut, |is_cut| *is_cut));
    }
}

/// All links of a cluster. Their threads end with the test's process.
#[derive(Debug)]
pub struct Links {
    gates: BTreeMap<(u64, u64), Arc<Gate>>,
    addresses: BTreeMap<(u64, u64), SocketAddr>,
}

impl Links {
    /// Proxies between all of these servers, each of which listens at its address.
    pub fn new(servers: &[(u64, SocketAddr)]) -> Self {
        let (mut gates, mut addresses) = (BTreeMap::new(), BTreeMap::new());
        for &(from, _) in servers {
            for &(to, target) in servers.iter().filter(|(to, _)| *to != from) {
                let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
                addresses.insert((from, to), listener.local_addr().expect("it is bound"));
                let gate = Arc::new(Gate::default());
                gates.insert((from, to), Arc::clone(&gate));
                std::thread::spawn(move || accept(&listener, target, &gate));
            }
        }
        Self { gates, addresses }
    }

    /// Where `from` is to dial `to`.
    pub fn address(&self, from: u64, to: u64) -> SocketAddr {
        self.addresses[&(from, to)]
    }

    /// Cuts exactly these links, each from the first server to the second, and heals all others.
    pub fn cut(&self, cut: &[(u64, u64)]) {
        for (link, gate) in &self.gates {
            gate.set(cut.contains(link));
        }
    }

    /// Heals everything.
    pub fn heal(&self) {
        self.cut(&[]);
    }
}

fn accept(listener: &TcpListener, target: SocketAddr, gate: &Arc<Gate>) {
    for accepted in listener.incoming() {
        let Ok(near) = accepted else { return };
        let gate = Arc::clone(gate);
        std::thread::spawn(move || {
            gate.pass();
            // Whoever is not there refuses, as it would without a proxy.
            let Ok(far) = TcpStream::connect(target) else { return };
            let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) else { return };
            let back = Arc::clone(&gate);
            std::thread::spawn(move || copy(far_too, near_too, &back));
            copy(near, far, &gate);
        });
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, gate: &Gate) {
    let _ = to.set_nodelay(true);
    let mut piece = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        gate.pass();
        if to.write_all(&piece[..length]).is_err() {
            break;
        }
    }
    // Either end has closed: the other learns of it, once the link stands.
    gate.pass();
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
