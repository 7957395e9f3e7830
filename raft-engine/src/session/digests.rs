//! What this state came down to at the digest requests that may yet be judged, and the judgement ([`crate::types::DigestCheck`]).
//!
//! The digests belong to the state and not to the server: a snapshot has them, and whoever restores it is judged by them.
//! A server that holds a state without its digest (its host's own, and the server was started since) is judged by what
//! it answered: the verdict names it.

use std::collections::BTreeMap;

use super::Sessions;
use crate::codec;
use crate::types::{DigestCheck, Divergence, Entry, EntryKind, HostDigest, Index, ServerId, StateDigest};

/// The latest so many requests are remembered.
pub(super) const MAX_KEPT: usize = 8;

/// What this state came down to, by the entry of the request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Digests(pub(super) BTreeMap<Index, StateDigest>);

impl Digests {
    pub(super) fn keep(&mut self, index: Index, digest: StateDigest) {
        self.0.insert(index, digest);
        while self.0.len() > MAX_KEPT {
            self.0.pop_first();
        }
    }
}

/// The check in the entry of a verdict; `None` if it is none, or cannot be read.
pub fn digest_check(entry: &Entry) -> Option<DigestCheck> {
    (entry.kind == EntryKind::DigestVerdict).then(|| codec::decode(&entry.payload).ok()).flatten()
}

impl Sessions {
    /// The host's state comes down to this at the request at `index`, the last entry that was settled. What the whole state
    /// comes down to.
    pub fn digested(&mut self, index: Index, host: HostDigest) -> StateDigest {
        let digest = StateDigest { host, sessions: self.digests().0 };
        self.digests.keep(index, digest);
        digest
    }

    /// Whether this state may be served behind a verdict, at server `me`.
    ///
    /// # Errors
    /// It is not the majority's.
    pub fn judge(&self, check: &DigestCheck, me: ServerId) -> Result<(), Divergence> {
        let own = self.digests.0.get(&check.index).copied();
        let is_odd = match (own, check.majority) {
            (_, None) => false,
            (Some(own), Some(majority)) => own != majority,
            (None, Some(_)) => check.is_odd(me),
        };
        if is_odd { Err(Divergence { check: check.clone(), own }) } else { Ok(()) }
    }
}
