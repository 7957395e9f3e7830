//! What must hold after every step, checked against a record that is kept outside of all servers.
//!
//! Everything is incremental: a step costs as much as it changed. Log matching needs no comparison of logs: if every
//! (index, term) that was ever seen anywhere has one entry and one entry before it, logs that agree at one place agree
//! before it, by induction (§5.3). The record of committed entries is made by whoever commits an index first, at which
//! moment a majority must hold the entry on its disks, and never changes after.

mod copy;
mod record;

use std::fmt;
use std::sync::Arc;

pub use record::Limits;

use self::copy::Copy;
use self::record::Record;
use super::history::History;
use crate::driver::Role;
use crate::types::{Configuration, Entry, EntryKind, FIRST_INDEX, Index, Position, ServerId, SessionKey, Term};

/// A rule that was broken, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The rule, as it should hold.
    pub rule: &'static str,
    /// What happened instead.
    pub what: String,
}

impl Violation {
    /// A broken rule.
    pub fn new(rule: &'static str, what: String) -> Self {
        Self { rule, what }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "violated: {}: {}", self.rule, self.what)
    }
}

/// What tells one entry from another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryId {
    /// Its term.
    pub term: Term,
    /// What it is for.
    pub kind: EntryKind,
    /// CRC32C of its payload.
    pub payload_crc: u32,
}

/// What a server shows of one entry: its term, and, where it is in memory, what else tells it.
pub type Seen = (Term, Option<(EntryKind, u32)>);

/// A group as one server sees it, after a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct View {
    /// What the server is.
    pub role: Role,
    /// Its present term, synced or not.
    pub term: Term,
    /// Whom it voted for in it.
    pub vote: Option<ServerId>,
    /// The last index known to be committed.
    pub commit: Index,
    /// The last entry handed to the host.
    pub delivered: Index,
    /// The last entry applied.
    pub applied: Index,
    /// The end of the log in memory.
    pub last: Position,
    /// The last entry on the server's own disk.
    pub durable: Index,
    /// Behind this the log knows every entry's term; what is before it is in a snapshot.
    pub base: Position,
    /// How often entries were taken from the end of the log.
    pub truncations: u64,
    /// Entries proposed and not committed, in bytes.
    pub uncommitted_bytes: usize,
    /// Entries kept in memory, in bytes.
    pub cached_bytes: usize,
}

/// What happened to a log in a step, for the counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Changed {
    /// A leader was elected.
    pub elected: bool,
    /// Entries were taken from the end of a log.
    pub truncated: bool,
    /// Entries committed for the first time anywhere.
    pub committed: u64,
    /// The group's entry 1 reached a majority.
    pub formed: bool,
    /// Joint configurations that took effect.
    pub joint: u64,
    /// A configuration was undone.
    pub undone: bool,
    /// A joint one was.
    pub joint_undone: bool,
    /// A configuration took effect.
    pub configured: bool,
}

/// What the loss of a quorum cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost {
    /// What was committed through this index is what the group goes on with.
    pub through: Index,
    /// Committed entries that are gone.
    pub entries: u64,
    /// Entries that nobody had committed, and that are committed from here on.
    pub kept_uncommitted: u64,
}

/// The record of one group, and a copy of each server's log.
pub struct Invariants {
    /// The first so many servers form the group.
    initial: usize,
    limits: Limits,
    record: Record,
    copies: Vec<Copy>,
}

type Checked<T = ()> = Result<T, Violation>;

impl Invariants {
    /// Nothing has happened yet to a group that the first `initial` of so many servers are to form.
    pub fn new(servers: usize, initial: usize, limits: Limits) -> Self {
        Self { initial, limits, record: Record::default(), copies: (0..servers).map(|_| Copy::default()).collect() }
    }

    /// Whether entry 1 is on a majority's disks.
    pub fn is_formed(&self) -> bool {
        self.record.committed(FIRST_INDEX).is_some()
    }

    /// How many entries are committed.
    pub fn committed(&self) -> Index {
        self.record.last_committed()
    }

    /// Whether a server has ever synced an entry 1 and not lost it.
    pub fn has_first_entry(&self, server: usize) -> bool {
        self.copies[server].first_entry.is_some() && self.takes_part(server)
    }

    /// How many different entries 1 there are.
    pub fn first_entries(&self) -> usize {
        let mut all: Vec<_> = self.copies.iter().filter_map(|copy| copy.first_entry).map(|id| id.payload_crc).collect();
        all.sort_unstable();
        all.dedup();
        all.len()
    }

    /// Whether the server belongs to the group that formed: not wiped, and with its entry 1.
    pub fn takes_part(&self, server: usize) -> bool {
        !self.copies[server].is_out
            && match (self.record.committed(FIRST_INDEX), self.copies[server].first_entry) {
                (Some(formed), Some(own)) => formed.payload_crc == own.payload_crc,
                _ => true,
            }
    }

    /// A server's process starts on its directory.
    pub fn opened(&mut self, server: usize) {
        self.copies[server].open();
    }

    /// The host of a started group says what it has applied.
    pub fn started(&mut self, server: usize, applied: Index) {
        self.copies[server].handed = applied;
        self.copies[server].held = applied;
    }

    /// A server's directory is emptied: with the group formed, it may never take part again under its id.
    pub fn wiped(&mut self, server: usize) {
        let is_out = self.is_formed();
        self.copies[server].wipe(is_out);
    }

    /// The group has formed, and its entry 1 names another identity for this server than it has.
    pub fn not_named(&mut self, server: usize) {
        self.copies[server].wipe(true);
    }

    /// A server was made the only member of what is left of the group, with its log through `kept`, of which it knew so
    /// much to be committed. The group goes on from what it has: what else was committed is lost.
    pub fn recovered(&mut self, server: usize, kept: Position, commit: Index) -> Checked<Lost> {
        let through = self.record.agrees_through(kept);
        if through < commit {
            return broken(
                "a committed entry never changes",
                format!("server {server} knows {commit} to be committed, and its log is the group's through {through}"),
            );
        }
        let entries = self.record.last_committed() - through;
        self.record.goes_back(through, kept.index + 1);
        Ok(Lost { through, entries, kept_uncommitted: kept.index - through })
    }

    /// A server belongs to a group that was recovered without it: nothing that it does concerns the group any more, and it
    /// never takes part.
    pub fn is_of_old_group(&mut self, server: usize) {
        self.copies[server].wipe(true);
        self.copies[server].is_of_old_group = true;
    }

    /// Whether it does.
    pub fn was_left_behind(&self, server: usize) -> bool {
        self.copies[server].is_of_old_group
    }

    /// A server that never was a member begins with an empty directory.
    pub fn is_new(&mut self, server: usize) {
        self.copies[server] = Copy::default();
    }

    /// What recovery kept is durable: all that was durable before must be there. Whether that formed the group.
    pub fn ready(&mut self, server: usize) -> Checked<bool> {
        self.copies[server].ready(server)?;
        self.copies[server].view.map_or(Ok(false), |view| self.note_first_entry(server, &view))
    }

    /// After a step of a server: everything that its view and its log tell.
    pub fn observe(
        &mut self,
        server: usize,
        view: &View,
        configurations: &[(Index, Arc<Configuration>)],
        entry: &dyn Fn(Index) -> Option<Seen>,
        history: &mut History,
    ) -> Checked<Changed> {
        let mut changed = Changed::default();
        let before = self.copies[server].view;
        if before == Some(*view) || self.copies[server].is_of_old_group {
            return Ok(changed);
        }
        self.in_bounds(server, view)?;
        let is_same_leader =
            |before: &View| before.role == Role::Leader && view.role == Role::Leader && before.term == view.term;
        if let Some(before) = before {
            never_back(server, &before, view)?;
            if is_same_leader(&before) && (before.truncations != view.truncations || view.last < before.last) {
                return broken(
                    "a leader only appends to its log (§5.3)",
                    format!("server {server}: {before:?} to {view:?}"),
                );
            }
            changed.truncated = before.truncations != view.truncations;
        }
        let copy = &mut self.copies[server];
        for index in copy.update(server, view, entry, &self.record)? {
            let (previous, id) = (copy.term_at(index - 1), copy.entry(index).expect("it was just appended"));
            self.record.saw(server, index, previous, id)?;
            if matches!(id.kind, EntryKind::Command | EntryKind::SessionCommand) {
                history.appended(id.payload_crc)?;
            }
        }
        copy.check_recovered(server)?;
        self.note_configurations(server, configurations, &mut changed)?;
        if view.role == Role::Leader && !before.as_ref().is_some_and(is_same_leader) {
            self.elected(server, view, configurations)?;
            changed.elected = true;
        }
        changed.formed = self.note_first_entry(server, view)?;
        if before.is_none_or(|before| before.commit < view.commit) {
            let from = before.map_or(0, |before| before.commit);
            changed.committed = self.advance(server, from, view, configurations, history)?;
        }
        Ok(changed)
    }

    /// One leader a term, and every leader has all that earlier terms committed (§5.2, §5.4).
    fn elected(&mut self, server: usize, view: &View, configurations: &[(Index, Arc<Configuration>)]) -> Checked {
        self.record.leads(server, view.term)?;
        // By the configuration it was elected in: the last but what it has appended since.
        let was_voter = |(_, configuration): &(Index, Arc<Configuration>)| configuration.is_voter(id_of(server));
        if !configurations.iter().any(was_voter) {
            return broken("only a voter leads (§6)", format!("server {server} leads term {}", view.term));
        }
        // The own vote is on its way to the disk before anybody else's is asked for.
        let voted = |id: ServerId| at(id) == server || self.record.voted(at(id), view.term) == Some(server);
        if !configurations.iter().any(|(_, configuration)| is_quorum(configuration, voted)) {
            return broken(
                "a quorum voted for a leader (§5.2, §6)",
                format!("server {server} leads term {}, by {configurations:?}", view.term),
            );
        }
        let copy = &self.copies[server];
        for index in view.base.index + 1..=self.record.last_committed() {
            let committed = self.record.committed_in(index);
            let Some((id, term)) = committed.filter(|&(_, term)| term < view.term) else { continue };
            if copy.entry(index) != Some(id) {
                return broken(
                    "a leader has every entry that was committed in earlier terms (§5.4)",
                    format!(
                        "server {server} leads term {} with {:?} at {index}, where {id:?} was committed in term {term}",
                        view.term,
                        copy.entry(index),
                    ),
                );
            }
        }
        Ok(())
    }

    /// Entry 1 counts as committed once a majority of the members has synced it.
    fn note_first_entry(&mut self, server: usize, view: &View) -> Checked<bool> {
        let copy = &mut self.copies[server];
        if !copy.is_ready || view.durable < FIRST_INDEX || copy.first_entry.is_some() {
            return Ok(false);
        }
        let Some(first) = copy.entry(FIRST_INDEX) else { return Ok(false) };
        copy.first_entry = Some(first);
        let initial = &self.copies[..self.initial];
        let holders = initial.iter().filter(|copy| copy.first_entry == Some(first)).count();
        if holders <= self.initial / 2 {
            return Ok(false);
        }
        self.record.commit(server, FIRST_INDEX, first, 0)
    }

    fn advance(
        &mut self,
        server: usize,
        from: Index,
        view: &View,
        configurations: &[(Index, Arc<Configuration>)],
        history: &mut History,
    ) -> Checked<u64> {
        let mut news = 0;
        for index in (from + 1).max(FIRST_INDEX + 1)..=view.commit {
            let copy = &self.copies[server];
            let Some(id) = copy.entry(index) else {
                if index <= view.base.index && index <= self.record.last_committed() {
                    continue;
                }
                return broken(
                    "what is committed is in the log or in a snapshot",
                    format!("server {server} has no entry {index}: {view:?}"),
                );
            };
            if self.record.commit(server, index, id, view.term)? {
                news += 1;
                if matches!(id.kind, EntryKind::Command | EntryKind::SessionCommand) {
                    history.committed(id.payload_crc, index)?;
                }
                // By a configuration that the committer knows: it may have gone through several in one step.
                let holds = |other: ServerId| self.copies[at(other)].holds(index, id);
                if !configurations.iter().any(|(_, configuration)| is_quorum(configuration, holds)) {
                    let holders: Vec<_> =
                        (0..self.copies.len()).filter(|&other| self.copies[other].holds(index, id)).collect();
                    return broken(
                        "an entry is committed when a majority has it on its disks (§5.3)",
                        format!("server {server} commits {index} ({id:?}), which {holders:?} have: {configurations:?}"),
                    );
                }
                if view.role == Role::Leader && index == view.commit && id.term != view.term {
                    return broken(
                        "a leader commits by counting only entries of its own term (§5.4.2)",
                        format!("server {server} in term {} commits {index} of term {}", view.term, id.term),
                    );
                }
            }
        }
        Ok(news)
    }

    /// One configuration follows another only by way of a joint one, unless their voters are the same (§6): quorums of
    /// consecutive ones meet. And every replica has the same one at an index and term.
    fn note_configurations(
        &mut self,
        server: usize,
        configurations: &[(Index, Arc<Configuration>)],
        changed: &mut Changed,
    ) -> Checked {
        let copy = &mut self.copies[server];
        let latest = configurations.last().map_or(0, |(index, _)| *index);
        let before = std::mem::replace(&mut copy.configuration_index, latest);
        if before == latest {
            return Ok(());
        }
        let is_joint = configurations.last().is_some_and(|(_, configuration)| configuration.is_joint());
        let was_joint = std::mem::replace(&mut copy.is_joint, is_joint);
        changed.undone = latest < before;
        changed.joint_undone = changed.undone && was_joint && !is_joint;
        changed.configured = latest > before;
        let news = configurations.iter().filter(|(index, _)| *index > before);
        changed.joint = news.filter(|(_, configuration)| configuration.is_joint()).count() as u64;
        for pair in configurations.windows(2) {
            let [(_, earlier), (index, later)] = pair else { continue };
            if self.record.is_recovery(*index) {
                continue;
            }
            let follows = match (earlier.is_joint(), later.is_joint()) {
                (false, false) => earlier.voters().eq(later.voters()),
                (false, true) => earlier.voters().eq(later.outgoing_voters.iter().copied()),
                (true, false) => earlier.voters().eq(later.voters()),
                (true, true) => false,
            };
            if !follows || later.highest_id < earlier.highest_id {
                return broken(
                    "consecutive configurations' quorums meet (§6)",
                    format!("server {server} has {later:?} at {index} after {earlier:?}"),
                );
            }
        }
        Ok(())
    }

    fn in_bounds(&self, server: usize, view: &View) -> Checked {
        // A host with state of its own has applied what nobody handed to it.
        let fits = view.applied <= view.delivered.max(self.copies[server].held)
            && view.delivered <= view.commit
            && view.commit <= view.last.index
            && view.base.index <= view.last.index;
        if !fits {
            return broken("applied ≤ delivered ≤ commit ≤ last", format!("server {server}: {view:?}"));
        }
        if view.delivered > view.durable {
            return broken("applied is never ahead of the server's own disk", format!("server {server}: {view:?}"));
        }
        let Limits { uncommitted_bytes, cached_bytes } = self.limits;
        if view.uncommitted_bytes > uncommitted_bytes || view.cached_bytes > cached_bytes {
            return broken("queues stay in their budgets", format!("server {server}: {view:?}, {:?}", self.limits));
        }
        Ok(())
    }

    /// Entries are handed to a host.
    pub fn handed(&mut self, server: usize, entries: &[Entry]) -> Checked {
        if self.copies[server].is_of_old_group {
            return Ok(());
        }
        for entry in entries {
            let copy = &mut self.copies[server];
            if entry.index != copy.handed + 1 {
                return broken(
                    "entries are applied in order, each once an incarnation",
                    format!("server {server} hands {} to its host after {}", entry.index, copy.handed),
                );
            }
            copy.handed = entry.index;
            let id = EntryId { term: entry.term, kind: entry.kind, payload_crc: entry.payload_crc };
            let is_right = match self.record.committed(entry.index) {
                Some(committed) => committed == id && entry.is_intact(),
                // A maker applies entry 1 before a majority has it.
                None => entry.index == FIRST_INDEX && copy.entry(FIRST_INDEX) == Some(id),
            };
            if !is_right && (entry.index != FIRST_INDEX || self.takes_part(server)) {
                return broken(
                    "every server applies the same entry at an index (§5.4.3)",
                    format!("server {server}: {id:?} at {}, not {:?}", entry.index, self.record.committed(entry.index)),
                );
            }
        }
        Ok(())
    }

    /// A host is about to be replaced by a snapshot.
    pub fn restoring(&mut self, server: usize, index: Index) -> Checked {
        let copy = &mut self.copies[server];
        if index <= copy.handed && index > 0 && !copy.is_of_old_group {
            return broken(
                "a snapshot never takes a host back",
                format!("server {server} restores {index} after handing over {}", copy.handed),
            );
        }
        copy.handed = index;
        Ok(())
    }

    /// A host has applied through `index`, one entry at a time or by a snapshot, and its state has this digest.
    pub fn state(&mut self, server: usize, index: Index, digest: u64, is_restored: bool) -> Checked {
        if self.copies[server].is_of_old_group || (index == FIRST_INDEX && !self.takes_part(server)) {
            return Ok(());
        }
        self.record.state(server, index, digest, is_restored)
    }

    /// What the state comes down to at an index, if a host whose state is right ever reached it.
    pub fn known_state(&self, index: Index) -> Option<u64> {
        self.record.known_state(index)
    }

    /// A server's sessions were taken through `index`, and have these digests: of what decides, and of all, where its host
    /// knows what it answered.
    pub fn sessions(
        &mut self,
        server: usize,
        index: Index,
        decisions: u32,
        replies: Option<u32>,
        is_restored: bool,
    ) -> Checked {
        if self.copies[server].is_of_old_group || (index == FIRST_INDEX && !self.takes_part(server)) {
            return Ok(());
        }
        self.record.sessions(server, index, (decisions, replies), is_restored)
    }

    /// A host applies a command of a session, by the entry at `index`, and answers.
    pub fn effect(&mut self, server: usize, key: SessionKey, index: Index, reply: &[u8]) -> Checked {
        if self.copies[server].is_of_old_group {
            return Ok(());
        }
        self.record.effect(server, key, index, reply)
    }

    /// A client is told that its command was applied, as the entry at `index`; and the reply, where it is said to have been
    /// applied before.
    pub fn answered(&self, server: usize, key: SessionKey, index: Index, reply: Option<&[u8]>) -> Checked {
        self.record.answered(server, key, index, reply)
    }

    /// A server gives its vote, to itself or another.
    pub fn votes(&mut self, server: usize, term: Term, candidate: usize) -> Checked {
        self.speaks(server, term)?;
        self.record.votes(server, term, candidate)
    }

    /// A server sends something that names its own term and that only a member may send.
    pub fn speaks(&mut self, server: usize, term: Term) -> Checked {
        let copy = &mut self.copies[server];
        if copy.is_out || copy.first_entry.is_none() || !self.takes_part(server) {
            return broken(
                "only a member with its entry 1 synced votes and acknowledges",
                format!("server {server} speaks in term {term}"),
            );
        }
        let copy = &mut self.copies[server];
        copy.said_term = copy.said_term.max(term);
        Ok(())
    }

    /// The entry at an index of a server's log in memory.
    pub fn entry(&self, server: usize, index: Index) -> Option<EntryId> {
        self.copies[server].entry(index)
    }

    /// The last index that is covered by a server's snapshot.
    pub fn view(&self, server: usize) -> Option<View> {
        self.copies[server].view
    }
}

fn id_of(server: usize) -> ServerId {
    ServerId(server as u64 + 1)
}

fn at(id: ServerId) -> usize {
    usize::try_from(id.0 - 1).expect("ids are small")
}

/// Whether a majority of a configuration, or of both where it is joint, agrees: written anew, so that the engine's own
/// count is held against it.
pub(super) fn is_quorum(configuration: &Configuration, agrees: impl Fn(ServerId) -> bool) -> bool {
    let is_majority = |voters: Vec<ServerId>| 2 * voters.iter().filter(|id| agrees(**id)).count() > voters.len();
    let incoming = is_majority(configuration.voters().collect());
    incoming && (!configuration.is_joint() || is_majority(configuration.outgoing_voters.clone()))
}

fn broken<T>(rule: &'static str, what: String) -> Checked<T> {
    Err(Violation::new(rule, what))
}

fn never_back(server: usize, before: &View, view: &View) -> Checked {
    let goes_back = view.term < before.term
        || view.commit < before.commit
        || view.delivered < before.delivered
        || view.applied < before.applied
        || view.base < before.base
        || view.truncations < before.truncations;
    if goes_back {
        return broken("term, commit and applied never go back", format!("server {server}: {before:?} to {view:?}"));
    }
    if view.term == before.term && before.vote.is_some() && view.vote != before.vote {
        return broken("one vote a term (§5.2)", format!("server {server}: {before:?} to {view:?}"));
    }
    Ok(())
}
