//! The handshake: two servers find out whether they belong together, speak a common version, and catch copies of data
//! directories, before a word of Raft is said.
//!
//! ```text
//!     dialler                                        acceptor
//!     Hello    who I am, whom I want          -->
//!                                             <--    Welcome  who I am, the pair of yours that I remember
//!     Confirm  whether my history holds it,
//!              the pair of yours I remember   -->
//!                                             <--    Ready    whether my history holds it
//! ```
//!
//! In place of any of its messages, either side may say `Refused` with a reason, which both sides report. Hello, Welcome
//! and Refused keep their layout in all versions. What the decisions stand on (which identities are bound, which pairs
//! are remembered, what the own history holds) comes from the [`Registry`]; this file only decides.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::Violation;
use super::frame::{Frame, FrameDraft, FrameKind};
use super::refusal::{Refusal, RefusalKind, RefusedBy, read_refusal, refused_frame};
use crate::codec;
use crate::types::{ClusterId, GroupId, Identity, Incarnation, ServerId};

/// The protocol version of this program: both the lowest and the highest that it speaks so far.
pub const PROTOCOL_VERSION: u16 = 1;

/// In a Hello: whoever is there.
const ANYBODY: ServerId = ServerId(0);

/// The longest address in a Hello, in bytes.
const MAX_ADDRESS_BYTES: usize = 512;

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Purpose {
    /// Everything but snapshots.
    Messages,
    /// One snapshot stream after the other, so that they delay no message.
    Snapshot,
}

/// Who we are in a handshake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Local {
    /// The servers that belong together.
    pub cluster: ClusterId,
    /// Our id.
    pub id: ServerId,
    /// Our data directory.
    pub identity: Identity,
    /// This open of it.
    pub incarnation: Incarnation,
    /// Where others dial us, as far as we know: whoever we dial may not know it. Empty: not known.
    pub address: String,
    /// The lowest protocol version that we speak.
    pub version_min: u16,
    /// The highest protocol version that we speak.
    pub version_max: u16,
}

impl Local {
    /// Speaks the versions of this program.
    pub fn new(cluster: ClusterId, id: ServerId, identity: Identity, incarnation: Incarnation) -> Self {
        let (version_min, version_max) = (PROTOCOL_VERSION, PROTOCOL_VERSION);
        Self { cluster, id, identity, incarnation, address: String::new(), version_min, version_max }
    }
}

/// Whether a history holds a pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Holds {
    /// It does (or there was no pair to look for).
    Yes,
    /// It does not: the directory is a copy, or was restored from one.
    No,
    /// The pair is older than the oldest kept: that proves nothing.
    TooOld,
}

/// What a handshake must know of the server. Answers must not change while one call of the connection runs.
pub trait Registry {
    /// Whether this id may come with this identity: it may not if a configuration known to be committed binds the id
    /// to another identity. The refusal's text should name the remedy.
    ///
    /// # Errors
    /// The refusal that both sides report.
    fn check_peer(&self, id: ServerId, identity: Identity) -> Result<(), Refusal>;

    /// The pair remembered, durably, of this identity.
    fn remembered(&self, identity: Identity) -> Option<Incarnation>;

    /// Whether the server's own history, the present incarnation included, holds this pair.
    fn history_holds(&self, pair: Incarnation) -> Holds;
}

/// Whom a connection leads to, once its handshake is done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its id.
    pub id: ServerId,
    /// Its data directory.
    pub identity: Identity,
    /// Its present open of it.
    pub incarnation: Incarnation,
    /// The protocol version spoken.
    pub version: u16,
    /// What the connection is for.
    pub purpose: Purpose,
    /// Where it says that it is dialled, if it dialled us and knows. Nothing vouches for it.
    pub address: Option<String>,
    /// The present pair is new and may be remembered in place of the one handed back: the peer has confirmed that its
    /// history holds that one (or there was none).
    pub may_remember: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Hello {
    version_min: u16,
    version_max: u16,
    cluster: String,
    from: ServerId,
    /// 0: whoever is there.
    to: ServerId,
    identity: Identity,
    incarnation: Incarnation,
    purpose: u8,
    address: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Welcome {
    version: u16,
    id: ServerId,
    identity: Identity,
    incarnation: Incarnation,
    /// The pair that the acceptor remembers of the dialler's identity.
    remembered: Option<Incarnation>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Confirm {
    /// Whether the dialler's history holds the pair of the Welcome.
    holds: Holds,
    /// The pair that the dialler remembers of the acceptor's identity.
    remembered: Option<Incarnation>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Ready {
    /// Whether the acceptor's history holds the pair of the Confirm.
    holds: Holds,
}

/// One side of a handshake in progress.
pub(super) struct Handshake {
    local: Local,
    state: State,
}

enum State {
    /// Dialler: said Hello.
    SaidHello { to: Option<ServerId>, purpose: Purpose },
    /// Dialler: said Confirm, with the pair that it remembers of the acceptor.
    SaidConfirm { peer: Peer, remembered: Option<Incarnation> },
    /// Acceptor: said nothing.
    Silent,
    /// Acceptor: said Welcome, with the pair that it remembers of the dialler.
    SaidWelcome { peer: Peer, remembered: Option<Incarnation> },
}

/// What follows from a handshake message.
pub(super) struct Step {
    /// What to say.
    pub(super) say: Option<Frame>,
    /// How the handshake ended, if it did.
    pub(super) end: Option<End>,
}

/// How a handshake ended.
pub(super) enum End {
    Established(Peer),
    Refused {
        by: RefusedBy,
        peer: Option<(ServerId, Identity)>,
        refusal: Refusal,
    },
    /// Our own history lacks a pair that the peer met: we are a copy.
    Copy {
        told_by: ServerId,
        pair: Incarnation,
    },
}

impl Handshake {
    /// The dialler's side, and its first frame. `to`: whom we want to meet; `None` where only an address is known.
    pub(super) fn dial(local: Local, to: Option<ServerId>, purpose: Purpose) -> (Self, Frame) {
        let hello = Hello {
            version_min: local.version_min,
            version_max: local.version_max,
            cluster: local.cluster.as_str().to_owned(),
            from: local.id,
            to: to.unwrap_or(ANYBODY),
            identity: local.identity,
            incarnation: local.incarnation,
            purpose: match purpose {
                Purpose::Messages => 1,
                Purpose::Snapshot => 2,
            },
            address: local.address.clone(),
        };
        (Self { local, state: State::SaidHello { to, purpose } }, frame(FrameKind::Hello, &hello))
    }

    /// The acceptor's side.
    pub(super) fn accept(local: Local) -> Self {
        Self { local, state: State::Silent }
    }

    /// Whom the handshake is with, as far as that is known.
    fn peer(&self) -> Option<(ServerId, Identity)> {
        match &self.state {
            State::SaidHello { .. } | State::Silent => None,
            State::SaidConfirm { peer, .. } | State::SaidWelcome { peer, .. } => Some((peer.id, peer.identity)),
        }
    }

    /// Takes the peer's next message.
    pub(super) fn receive(
        &mut self,
        kind: FrameKind,
        metadata: &[u8],
        registry: &dyn Registry,
    ) -> Result<Step, Violation> {
        match (&self.state, kind) {
            (State::SaidHello { .. } | State::SaidConfirm { .. } | State::SaidWelcome { .. }, FrameKind::Refused) => {
                let end = End::Refused { by: RefusedBy::Peer, peer: self.peer(), refusal: read_refusal(metadata)? };
                Ok(Step { say: None, end: Some(end) })
            }
            (State::Silent, FrameKind::Hello) => self.on_hello(read(kind, metadata)?, registry),
            (&State::SaidHello { to, purpose }, FrameKind::Welcome) => {
                self.on_welcome(to, purpose, read(kind, metadata)?, registry)
            }
            (State::SaidWelcome { peer, remembered }, FrameKind::Confirm) => {
                on_confirm(peer.clone(), *remembered, &read(kind, metadata)?, registry)
            }
            (State::SaidConfirm { peer, remembered }, FrameKind::Ready) => {
                on_ready(peer.clone(), *remembered, &read(kind, metadata)?)
            }
            _ => Err(Violation::OutOfTurn { kind }),
        }
    }

    fn on_hello(&mut self, hello: Hello, registry: &dyn Registry) -> Result<Step, Violation> {
        let kind = FrameKind::Hello;
        let impossible = |field| Violation::Value { kind, field };
        let cluster = ClusterId::new(hello.cluster.as_str()).ok_or(impossible("cluster id"))?;
        let purpose = match hello.purpose {
            1 => Purpose::Messages,
            2 => Purpose::Snapshot,
            _ => return Err(impossible("purpose")),
        };
        if hello.from.0 == 0 {
            return Err(impossible("server id"));
        }
        if hello.address.len() > MAX_ADDRESS_BYTES {
            return Err(impossible("address"));
        }
        if hello.version_min > hello.version_max {
            return Err(impossible("version range"));
        }
        let version = hello.version_max.min(self.local.version_max);
        let checked =
            self.check_hello(&hello, &cluster, version).and_then(|()| registry.check_peer(hello.from, hello.identity));
        if let Err(refusal) = checked {
            return Ok(refuse(Some((hello.from, hello.identity)), refusal));
        }
        let remembered = registry.remembered(hello.identity);
        let welcome = Welcome {
            version,
            id: self.local.id,
            identity: self.local.identity,
            incarnation: self.local.incarnation,
            remembered,
        };
        let peer = Peer {
            id: hello.from,
            identity: hello.identity,
            incarnation: hello.incarnation,
            version,
            purpose,
            address: Some(hello.address).filter(|address| !address.is_empty()),
            may_remember: false,
        };
        self.state = State::SaidWelcome { peer, remembered };
        Ok(Step { say: Some(frame(FrameKind::Welcome, &welcome)), end: None })
    }

    fn check_hello(&self, hello: &Hello, cluster: &ClusterId, version: u16) -> Result<(), Refusal> {
        let Local { cluster: ours, id, version_min, version_max, .. } = &self.local;
        if version < *version_min || version < hello.version_min {
            let text = format!(
                "server {id} speaks protocol versions {version_min} to {version_max} and server {} speaks {} to {}: \
                 upgrade the older one",
                hello.from, hello.version_min, hello.version_max
            );
            return Err(Refusal::new(RefusalKind::Version, text));
        }
        if cluster != ours {
            let text = format!(
                "server {id} belongs to cluster \"{ours}\" and server {} to \"{cluster}\": check the cluster id and \
                 the address",
                hello.from
            );
            return Err(Refusal::new(RefusalKind::Cluster, text));
        }
        if hello.to != *id && hello.to != ANYBODY {
            let text = format!("this is server {id}, not server {}: check the address", hello.to);
            return Err(Refusal::new(RefusalKind::WrongServer, text));
        }
        if hello.from == *id {
            let text = format!("both sides are server {id}: give each server an id of its own and check the addresses");
            return Err(Refusal::new(RefusalKind::SameServer, text));
        }
        Ok(())
    }

    fn on_welcome(
        &mut self,
        to: Option<ServerId>,
        purpose: Purpose,
        welcome: Welcome,
        registry: &dyn Registry,
    ) -> Result<Step, Violation> {
        let Welcome { version, id, identity, incarnation, remembered: handed_back } = welcome;
        if !(self.local.version_min..=self.local.version_max).contains(&version) {
            return Err(Violation::Value { kind: FrameKind::Welcome, field: "version" });
        }
        if id.0 == 0 {
            return Err(Violation::Value { kind: FrameKind::Welcome, field: "server id" });
        }
        if let Some(to) = to.filter(|to| id != *to) {
            let text = format!("the address of server {to} leads to server {id}: check the address");
            return Ok(refuse(Some((id, identity)), Refusal::new(RefusalKind::WrongServer, text)));
        }
        if let Err(refusal) = registry.check_peer(id, identity) {
            return Ok(refuse(Some((id, identity)), refusal));
        }
        let holds = holds(handed_back, registry);
        let remembered = registry.remembered(identity);
        let say = Some(frame(FrameKind::Confirm, &Confirm { holds, remembered }));
        if let (Holds::No, Some(pair)) = (holds, handed_back) {
            return Ok(Step { say, end: Some(End::Copy { told_by: id, pair }) });
        }
        let peer = Peer { id, identity, incarnation, version, purpose, address: None, may_remember: false };
        self.state = State::SaidConfirm { peer, remembered };
        Ok(Step { say, end: None })
    }
}

fn on_confirm(
    peer: Peer,
    remembered: Option<Incarnation>,
    confirm: &Confirm,
    registry: &dyn Registry,
) -> Result<Step, Violation> {
    let may_remember = match judge(FrameKind::Confirm, &peer, remembered, confirm.holds)? {
        Ok(may_remember) => may_remember,
        Err(refusal) => return Ok(refuse(Some((peer.id, peer.identity)), refusal)),
    };
    let holds = holds(confirm.remembered, registry);
    let say = Some(frame(FrameKind::Ready, &Ready { holds }));
    let end = match (holds, confirm.remembered) {
        (Holds::No, Some(pair)) => End::Copy { told_by: peer.id, pair },
        _ => End::Established(Peer { may_remember, ..peer }),
    };
    Ok(Step { say, end: Some(end) })
}

fn on_ready(peer: Peer, remembered: Option<Incarnation>, ready: &Ready) -> Result<Step, Violation> {
    let end = match judge(FrameKind::Ready, &peer, remembered, ready.holds)? {
        Ok(may_remember) => End::Established(Peer { may_remember, ..peer }),
        Err(refusal) => End::Refused { by: RefusedBy::Us, peer: Some((peer.id, peer.identity)), refusal },
    };
    Ok(Step { say: None, end: Some(end) })
}

/// Whether our own history holds the pair that a peer handed back.
fn holds(handed_back: Option<Incarnation>, registry: &dyn Registry) -> Holds {
    handed_back.map_or(Holds::Yes, |pair| registry.history_holds(pair))
}

/// What follows from a peer's answer to the pair that we handed back: whether its present pair may be remembered in
/// place of that one, or why it is refused.
fn judge(
    kind: FrameKind,
    peer: &Peer,
    remembered: Option<Incarnation>,
    holds: Holds,
) -> Result<Result<bool, Refusal>, Violation> {
    let Some(pair) = remembered else {
        // Nothing was handed back, so there is nothing to lack.
        return if holds == Holds::Yes { Ok(Ok(true)) } else { Err(Violation::Value { kind, field: "holds" }) };
    };
    let Peer { id, incarnation, .. } = peer;
    Ok(match holds {
        Holds::No => Err(Refusal::new(
            RefusalKind::Copy,
            format!(
                "the data directory of server {id} does not know its own incarnation {}: it is a copy or was restored \
                 from one, and must not take part; remove it and add the server under a new id",
                pair.number
            ),
        )),
        // A history that holds a pair ends with that pair or a higher number: anything else is no answer of a server
        // that is running, but a replay, or a copy that lies.
        Holds::Yes | Holds::TooOld
            if incarnation.number < pair.number || (incarnation.number == pair.number && *incarnation != pair) =>
        {
            Err(Refusal::new(
                RefusalKind::StaleIncarnation,
                format!("server {id} comes as incarnation {} after {} was met", incarnation.number, pair.number),
            ))
        }
        Holds::Yes => Ok(*incarnation != pair),
        Holds::TooOld => Ok(false),
    })
}

fn refuse(peer: Option<(ServerId, Identity)>, refusal: Refusal) -> Step {
    let say = Some(refused_frame(&refusal));
    Step { say, end: Some(End::Refused { by: RefusedBy::Us, peer, refusal }) }
}

/// A frame of the handshake: it belongs to no group and has no payload.
pub(super) fn frame<T: Serialize>(kind: FrameKind, metadata: &T) -> Frame {
    FrameDraft::with(metadata, 192).finish(kind, GroupId(0), Vec::new())
}

/// Reads the metadata of a frame of the handshake.
pub(super) fn read<T: DeserializeOwned>(kind: FrameKind, metadata: &[u8]) -> Result<T, Violation> {
    codec::decode(metadata).map_err(|error| Violation::Metadata { kind, error })
}
