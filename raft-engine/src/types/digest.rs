//! What replicas compare, so that one whose state went its own way is found (etcd's corruption check, CockroachDB's
//! consistency check): the digests of their states at one entry, and what came of comparing them.
//!
//! A *digest request* is an entry of the log, so that every replica digests at the same index. Its leader gathers what
//! they say. Where replicas differ, what came of it is an entry too, the *verdict*: so it reaches every replica, whoever
//! was down, in the same place of the log, and the odd one stops there, now and after every restart.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Index, ServerId};

/// What a host's state comes down to: bytes that are equal where states are. Shorter ones are filled up with zeros.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HostDigest(pub [u8; Self::BYTES]);

impl HostDigest {
    /// Its length in bytes: a SHA-256, say.
    pub const BYTES: usize = 32;

    /// A digest of up to [`HostDigest::BYTES`] bytes; `None` for a longer one.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut digest = [0; Self::BYTES];
        digest.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self(digest))
    }
}

impl From<u64> for HostDigest {
    fn from(digest: u64) -> Self {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&digest.to_be_bytes());
        Self(bytes)
    }
}

/// What a replica's state comes down to: the host's, and what the engine keeps beside it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct StateDigest {
    /// The host's state, as the host says.
    pub host: HostDigest,
    /// CRC32C of the group's sessions, without replies: a server may lack some of these and decide as all others.
    pub sessions: u32,
}

/// What a replica says to a digest request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DigestAnswer {
    /// What its state came down to at the entry.
    Given(StateDigest),
    /// It cannot say: its state machine gives no digests, or its state was past the entry when it came to have it.
    Unable,
    /// It did not answer in time.
    Missing,
}

impl DigestAnswer {
    /// The digest, if it gave one.
    pub fn given(&self) -> Option<StateDigest> {
        match *self {
            Self::Given(digest) => Some(digest),
            Self::Unable | Self::Missing => None,
        }
    }
}

/// What came of comparing the replicas of a group at one entry. Where they differ, it is the payload of a
/// [`super::EntryKind::DigestVerdict`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DigestCheck {
    /// The entry of the request: each digest is of the state with everything through it applied, and nothing behind it.
    pub index: Index,
    /// The digest that a majority of the voters gave; of both majorities while a change of members is joint.
    pub majority: Option<StateDigest>,
    /// What each member said, in order of id.
    pub replicas: Vec<(ServerId, DigestAnswer)>,
}

/// A [`DigestCheck`] in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DigestVerdict {
    /// A majority agrees, and nobody who answered differs.
    Agreed,
    /// A majority agrees, and others differ: their group stops on their servers.
    Diverged,
    /// Replicas differ, and no majority agrees on anything: nobody knows who is right, and nobody is stopped.
    Split,
    /// Nobody differs, and those who gave a digest are no majority.
    Undecided,
}

impl DigestCheck {
    /// What it comes to.
    pub fn verdict(&self) -> DigestVerdict {
        let mut given = self.replicas.iter().filter_map(|(_, answer)| answer.given());
        let reference = self.majority.or_else(|| given.next());
        let is_equal = given.all(|digest| Some(digest) == reference);
        match (self.majority, is_equal) {
            (Some(_), true) => DigestVerdict::Agreed,
            (Some(_), false) => DigestVerdict::Diverged,
            (None, false) => DigestVerdict::Split,
            (None, true) => DigestVerdict::Undecided,
        }
    }

    /// Whether replicas differ.
    pub fn is_difference(&self) -> bool {
        matches!(self.verdict(), DigestVerdict::Diverged | DigestVerdict::Split)
    }

    /// What this server said; `None` if it was no member.
    pub fn answer_of(&self, id: ServerId) -> Option<DigestAnswer> {
        self.replicas.iter().find(|(server, _)| *server == id).map(|(_, answer)| *answer)
    }

    /// Whether this server said something else than the majority.
    pub fn is_odd(&self, id: ServerId) -> bool {
        let given = self.answer_of(id).and_then(|answer| answer.given());
        self.majority.is_some() && given.is_some() && given != self.majority
    }
}

/// A replica whose state is not that of the majority.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Divergence {
    /// The check that found it.
    pub check: DigestCheck,
    /// What its own state came down to; `None` where only the verdict knows, because the server was started since.
    pub own: Option<StateDigest>,
}

impl fmt::Display for HostDigest {
    /// Hexadecimal digits, without the zeros that fill it up.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.0.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1).next_multiple_of(4);
        self.0[..length].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for HostDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostDigest({self})")
    }
}

impl fmt::Display for StateDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:08x}", self.host, self.sessions)
    }
}

impl fmt::Display for DigestCheck {
    /// A sentence for people: who has what.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut different: Vec<StateDigest> = Vec::new();
        different.extend(self.majority);
        for digest in self.replicas.iter().filter_map(|(_, answer)| answer.given()) {
            if !different.contains(&digest) {
                different.push(digest);
            }
        }
        write!(f, "at entry {}", self.index)?;
        for digest in different {
            let mark = if Some(digest) == self.majority { " (the majority)" } else { "" };
            write!(f, ", {} have {digest}{mark}", self.named(DigestAnswer::Given(digest)))?;
        }
        for (answer, what) in [(DigestAnswer::Unable, "cannot say"), (DigestAnswer::Missing, "did not answer")] {
            if self.replicas.iter().any(|(_, other)| *other == answer) {
                write!(f, ", {} {what}", self.named(answer))?;
            }
        }
        Ok(())
    }
}

impl DigestCheck {
    /// Those who said this.
    fn named(&self, answer: DigestAnswer) -> String {
        let ids = self.replicas.iter().filter(|(_, other)| *other == answer).map(|(id, _)| id.to_string());
        format!("servers {}", ids.collect::<Vec<_>>().join(" "))
    }
}

impl fmt::Display for Divergence {
    /// The index, both digests and the servers first: a status may cut the rest.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { check, own } = self;
        write!(f, "the state differs from the majority's: ")?;
        match own {
            Some(own) => write!(f, "here {own}; {check}")?,
            None => write!(f, "{check}")?,
        }
        write!(f, ". This server must not serve it: replace it by a new one with an empty directory under a new id")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u64) -> StateDigest {
        StateDigest { host: number.into(), sessions: 7 }
    }

    fn check(majority: Option<u64>, answers: &[DigestAnswer]) -> DigestCheck {
        let replicas = (1..).map(ServerId).zip(answers.iter().copied()).collect();
        DigestCheck { index: 9, majority: majority.map(digest), replicas }
    }

    #[test]
    fn a_check_comes_to_one_of_four_ends() {
        use DigestAnswer::{Given, Missing, Unable};
        let [a, b] = [1, 2].map(|number| Given(digest(number)));
        assert_eq!(check(Some(1), &[a, a, Missing]).verdict(), DigestVerdict::Agreed);
        assert_eq!(check(Some(1), &[a, a, b]).verdict(), DigestVerdict::Diverged);
        assert_eq!(check(Some(2), &[a, b, b]).verdict(), DigestVerdict::Diverged);
        assert_eq!(check(None, &[a, b, Unable]).verdict(), DigestVerdict::Split);
        assert_eq!(check(None, &[a, Missing, Unable]).verdict(), DigestVerdict::Undecided);
        assert_eq!(check(None, &[Unable, Missing]).verdict(), DigestVerdict::Undecided);
    }

    #[test]
    fn only_who_differs_from_a_majority_is_odd() {
        use DigestAnswer::{Given, Unable};
        let [a, b] = [1, 2].map(|number| Given(digest(number)));
        let odd = |check: DigestCheck| (1..=4).filter(|&id| check.is_odd(ServerId(id))).collect::<Vec<_>>();
        assert_eq!(odd(check(Some(1), &[a, b, a, Unable])), [2]);
        assert_eq!(odd(check(None, &[a, b])), Vec::<u64>::new());
        let other_sessions = Given(StateDigest { sessions: 8, ..digest(1) });
        assert_eq!(odd(check(Some(1), &[a, a, other_sessions])), [3], "sessions are state, too");
    }

    #[test]
    fn a_check_is_told_in_a_sentence() {
        use DigestAnswer::{Given, Missing, Unable};
        let [a, b] = [0x0a0b_0c0d_0e0f_1011, 2].map(|number| Given(digest(number)));
        let check = check(Some(0x0a0b_0c0d_0e0f_1011), &[a, a, b, Unable, Missing]);
        assert_eq!(
            check.to_string(),
            "at entry 9, servers 1 2 have 0a0b0c0d0e0f1011/00000007 (the majority), servers 3 have \
             0000000000000002/00000007, servers 4 cannot say, servers 5 did not answer"
        );
    }

    #[test]
    fn a_digest_is_filled_up_and_never_cut() {
        assert_eq!(HostDigest::new(b"abc").map(|digest| digest.to_string()), Some("61626300".into()));
        assert_eq!(HostDigest::new(&[1; 33]), None);
        assert_eq!(HostDigest::from(0x0102).0[..8], [0, 0, 0, 0, 0, 0, 1, 2]);
    }
}
