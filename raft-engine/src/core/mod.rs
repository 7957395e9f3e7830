//! Raft for one group: the protocol of the paper and the dissertation, and nothing else.
//!
//! A [`Raft`] is told what happened (a message came, time passed, a record became durable, the host proposes) and
//! answers with [`Effect`]s. It never waits, and knows no clock, file, socket or thread: time is an argument, and
//! [`Raft::deadline`] names the next moment at which it wants to be asked. What it must never know: other groups, how
//! bytes look on disk or wire, who the host is.
//!
//! Where to find the rules:
//!
//! | rule | file |
//! |---|---|
//! | elections, one vote a term, up-to-date check (§5.2, §5.4.1), pre-vote and stickiness (dissertation §9.6, §4.2.3) | `election.rs` |
//! | log matching at a follower, truncation on conflict and only then, conflict hints (§5.3) | `append.rs` |
//! | replication, window, probes, retries (§5.3) | `replication.rs`, `progress.rs` |
//! | commit by counting entries of the current term only (§5.4.2, Figure 8) | `commit.rs` |
//! | nothing leaves before what it stands on is durable (Figure 2) | `durability.rs` |
//! | heartbeats, check-quorum (§5.2; dissertation §6.2) | `heartbeat.rs` |
//! | linearizable reads (dissertation §6.4) | `read.rs` |
//! | reads by lease (dissertation §6.4.1) | `lease.rs` |
//! | changes of members (§6; dissertation chapter 4) | `membership.rs` |
//! | handing leadership over (dissertation §3.10) | `transfer.rs` |
//! | snapshot install (§7) | `snapshot.rs` |
//! | a leader known to be dead is not waited for | `suspicion.rs` |
//! | majorities, plain and joint (§6) | `quorum.rs` |

mod append;
mod commit;
mod durability;
mod effect;
mod election;
mod heartbeat;
mod lease;
mod log;
mod membership;
mod options;
mod progress;
mod quorum;
mod read;
mod replication;
mod snapshot;
mod suspicion;
#[cfg(test)]
mod tests;
mod transfer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use durability::Mark;
pub use effect::{Effect, Persist, Restored};
pub use membership::{ChangeEnd, ChangeRefusal, configuration_in};
pub use options::Options;
pub use snapshot::Offer;
pub use transfer::TransferRefusal;

use self::durability::Durability;
use self::lease::{Promise, SentRounds};
use self::log::Log;
use self::membership::Changing;
use self::progress::Progress;
use self::read::Reads;
use self::transfer::Transfer;
use crate::types::{
    Configuration, Entry, HardState, Index, LogTime, Message, Position, Proposed, ServerId, Term, Time,
};

/// What a server is in its term (§5.1, Figure 4).
#[derive(Clone, Debug)]
enum Role {
    /// Follows `leader`, or waits to hear from one.
    Follower { leader: Option<ServerId> },
    /// Asks whether it would be voted for, before it disturbs anybody with a new term.
    PreCandidate { granted: BTreeSet<ServerId> },
    /// Asks for votes. Its own counts once it is durable. `is_transfer`: a leader told it to.
    Candidate { granted: BTreeSet<ServerId>, is_transfer: bool },
    /// Leads.
    Leader(Box<Leader>),
}

/// What only a leader knows. It all begins anew with each term.
#[derive(Clone, Debug)]
struct Leader {
    /// Every other member.
    peers: BTreeMap<ServerId, Progress>,
    /// The no-op that opened the term: reads wait until it is committed.
    first_of_term: Index,
    /// The number of the last request sent to any peer.
    number: u64,
    /// The last round of leadership opened.
    round: u64,
    /// When the next heartbeat is due.
    heartbeat_at: Time,
    /// When the latest rounds were sent: what promises count from.
    sent_rounds: SentRounds,
    /// It told somebody to stand: it reads by lease no more in this term.
    is_lease_void: bool,
    /// What it remembers of a change of members.
    changing: Changing,
    /// Leadership is being handed over.
    transfer: Option<Transfer>,
    /// When it may hand over by itself again.
    no_hand_over_before: Time,
    /// From when on the next heartbeat looks whether a quorum still answers.
    check_quorum_at: Time,
    /// Where the group's log time stood, and when, as the term began.
    log_time_origin: (LogTime, Time),
    /// Entries that are not both committed and on the own disk, in bytes.
    uncommitted_bytes: usize,
    /// The last entry that is.
    settled: Index,
    /// Since when records wait for the own disk without any becoming durable.
    disk_waiting_since: Option<Time>,
    /// Reads that wait for a round, or for the first commit.
    reads: Reads,
}

/// Why a proposal was not taken. It is certainly not applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// This server does not lead.
    NotLeader,
    /// The entries that wait for their commitment fill their budget.
    Overloaded,
    /// Leadership is being handed over.
    Transferring,
}

/// What a core is, for status and for whoever watches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RoleName {
    /// See [`Raft`].
    Follower,
    /// Asks whether it would be voted for.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// One group's Raft at one server.
#[derive(Clone, Debug)]
pub struct Raft {
    id: ServerId,
    options: Options,
    /// For election timeouts only.
    random: fastrand::Rng,
    /// Term and vote, as they will be on disk once their mark is reached.
    hard_state: HardState,
    role: Role,
    log: Log,
    durability: Durability,
    /// The highest index known to be committed. Never goes back.
    commit: Index,
    /// The last index that the state machine was given. At most `commit`, and at most what the own disk has.
    delivered: Index,
    /// What a durable snapshot covers: entries through it are in memory or nowhere.
    compacted: Index,
    /// Grows whenever entries leave the end of the log.
    truncations: u64,
    /// Configurations by the index of their entry; the last is in force (§6).
    configurations: Vec<(Index, Arc<Configuration>)>,
    /// When to campaign. A leader has none.
    election_at: Time,
    /// When a leader of this term was last heard from: the ground of stickiness.
    leader_heard_at: Option<Time>,
    /// What this server promised, or may have before its start.
    promise: Promise,
    /// The entry that removed this server, as a peer says.
    removed: Option<Index>,
    /// The last leader, and its term, that was said to be dead: once is enough.
    suspected: Option<(Term, ServerId)>,
    /// Whether the own vote waits for the disk before it counts.
    own_vote_pending: Option<Mark>,
    /// An installed snapshot whose mark is not durable yet.
    pending_restore: Option<(Mark, crate::types::SnapshotMeta)>,
    effects: Vec<Effect>,
}

impl Raft {
    /// Continues from what recovery found. `seed` decides this server's election timeouts.
    pub fn new(id: ServerId, options: Options, restored: Restored, seed: u64, now: Time) -> Self {
        let log = Log::new(restored.base, restored.term_runs, restored.last, restored.last_log_time, restored.tail);
        assert!(restored.commit <= log.last().index, "what is committed here is in the log here");
        assert!(!restored.configurations.is_empty(), "a formed group has a configuration");
        let mut raft = Self {
            id,
            options,
            random: fastrand::Rng::with_seed(seed),
            hard_state: restored.hard_state,
            role: Role::Follower { leader: None },
            durability: Durability::new(log.last().index),
            commit: restored.commit.max(log.base().index),
            delivered: 0,
            compacted: log.base().index,
            truncations: 0,
            log,
            configurations: restored
                .configurations
                .into_iter()
                .map(|(at, configuration)| (at, configuration.into()))
                .collect(),
            election_at: now,
            leader_heard_at: None,
            promise: Promise::after_restart(now, restored.hard_state.term, restored.longest_lease),
            removed: None,
            suspected: None,
            own_vote_pending: None,
            pending_restore: None,
            effects: Vec::new(),
        };
        raft.begin_election_timer(now);
        raft
    }

    /// Takes a message of a peer.
    pub fn receive(&mut self, now: Time, from: ServerId, message: Message) {
        if let Some(term) = message.term().filter(|&term| term > self.hard_state.term) {
            let vote = match message {
                Message::Vote { is_transfer, .. } => Some(is_transfer),
                _ => None,
            };
            if vote == Some(false) && self.is_leader_alive(now) {
                return; // Stickiness: a candidate cannot depose a leader that is alive (dissertation §4.2.3).
            }
            if vote.is_none() {
                self.follow(now, term, None); // A vote's term is taken together with the vote, as one record.
            }
        }
        if let (Message::PreVote { .. } | Message::Vote { .. }, Some(index)) = (&message, self.removed_by(from)) {
            return self.send(from, Message::Removed { index });
        }
        match message {
            Message::PreVote { campaign_term, last } => self.on_pre_vote(now, from, campaign_term, last),
            Message::PreVoteReply { term, campaign_term, granted } => {
                self.on_pre_vote_reply(now, from, term, campaign_term, granted);
            }
            Message::Vote { term, last, is_transfer } => self.on_vote(now, from, term, last, is_transfer),
            Message::VoteReply { term, granted } => self.on_vote_reply(now, from, term, granted),
            Message::Append { term, number, previous, commit, entries } => {
                self.on_append(now, from, term, number, previous, commit, entries);
            }
            Message::AppendReply { term, number, outcome } => self.on_append_reply(now, from, term, number, outcome),
            Message::Heartbeat { term, round, commit } => self.on_heartbeat(now, from, term, round, commit),
            Message::HeartbeatReply { term, round, promise } => {
                self.on_heartbeat_reply(now, from, term, round, promise);
            }
            Message::TimeoutNow { term } => self.on_timeout_now(now, from, term),
            Message::Removed { index } => self.on_removed(index),
        }
    }

    /// Appends what hosts propose, if this server leads. It goes out with the next [`Raft::flush`].
    pub fn propose<P: Into<Proposed>>(
        &mut self,
        now: Time,
        proposals: Vec<P>,
    ) -> Result<std::ops::Range<Index>, Refusal> {
        let log_time = self.log_time(now);
        let Role::Leader(leader) = &mut self.role else { return Err(Refusal::NotLeader) };
        if leader.transfer.is_some() {
            return Err(Refusal::Transferring);
        }
        let proposals: Vec<Proposed> = proposals.into_iter().map(P::into).collect();
        let bytes: usize = proposals.iter().map(|proposed| proposed.payload.len() + Entry::OVERHEAD_BYTES).sum();
        if leader.uncommitted_bytes > 0 && leader.uncommitted_bytes + bytes > self.options.uncommitted_bytes {
            return Err(Refusal::Overloaded);
        }
        let first = self.log.last().index + 1;
        let term = self.hard_state.term;
        let entries: Vec<_> = (first..)
            .zip(proposals)
            .map(|(index, Proposed { kind, payload })| Entry::new(Position { term, index }, log_time, kind, payload))
            .collect();
        let end = first + entries.len() as u64;
        self.append_own(now, entries);
        Ok(first..end)
    }

    /// Everything through `mark` is on this server's disk.
    pub fn persisted(&mut self, now: Time, mark: Mark) {
        for (to, message) in self.durability.persisted(mark) {
            self.effects.push(Effect::Send { to, message });
        }
        if let Role::Leader(leader) = &mut self.role {
            leader.disk_waiting_since = self.durability.is_waiting().then_some(now);
        }
        if let Some((_, meta)) = self.pending_restore.take_if(|(pending, _)| *pending <= mark) {
            self.effects.push(Effect::Restore(meta));
        }
        if self.own_vote_pending.take_if(|pending| *pending <= mark).is_some() {
            self.count_own_vote(now);
        }
        self.advance_commit(now);
    }

    /// Does what has come due.
    pub fn tick(&mut self, now: Time) {
        if matches!(self.role, Role::Leader(_)) {
            self.tick_leader(now);
        } else if now >= self.election_at {
            self.campaign(now);
        }
    }

    /// Sends what gathered since the last flush: entries to those who have room, a round for new reads.
    pub fn flush(&mut self, now: Time) {
        self.open_read_round(now);
        self.replicate(now);
        self.tell_commits();
    }

    /// When [`Raft::tick`] must be called at the latest.
    pub fn deadline(&self) -> Time {
        match &self.role {
            Role::Leader(leader) => self.leader_deadline(leader),
            _ => self.election_at,
        }
    }

    /// Takes what is to be done, in order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Committed entries that the state machine may now be given: at most about `max_bytes`, from just behind what it
    /// was given before, no further than the own disk. `Err` names a range that must be read from the log first.
    pub fn deliverable(&self, max_bytes: usize) -> Result<Vec<Entry>, (Index, Index)> {
        let through = self.commit.min(self.durability.durable());
        if self.delivered >= through || self.pending_restore.is_some() {
            return Ok(Vec::new());
        }
        let from = self.delivered + 1;
        if from < self.log.cache_start() {
            return Err((from, through.min(self.log.cache_start() - 1)));
        }
        Ok(self.log.cached(from, through, max_bytes))
    }

    /// The state machine was given everything through `index`.
    pub fn delivered(&mut self, index: Index) {
        assert!(index <= self.commit.min(self.durability.durable()), "applied can never be ahead of the own log");
        self.delivered = self.delivered.max(index);
        self.evict();
    }

    /// A durable snapshot covers everything through `index`: the log on disk may begin behind it. Entries that are still
    /// in memory stay for peers that are a little slow, within the budget of the cache.
    pub fn compact(&mut self, index: Index) {
        assert!(index <= self.delivered, "only what the state machine holds is compacted");
        self.compacted = self.compacted.max(index);
        self.evict();
    }

    /// Keeps no more than so many bytes of entries in memory, for now, but for those that are not both committed and on
    /// the own disk: others need the room.
    pub fn shrink_cache(&mut self, most_bytes: usize) {
        self.evict_to(most_bytes.min(self.options.cache_bytes));
        self.log.release();
    }

    // ---- what it is ----

    /// This server.
    pub fn id(&self) -> ServerId {
        self.id
    }

    /// Its role.
    pub fn role(&self) -> RoleName {
        match self.role {
            Role::Follower { .. } => RoleName::Follower,
            Role::PreCandidate { .. } => RoleName::PreCandidate,
            Role::Candidate { .. } => RoleName::Candidate,
            Role::Leader(_) => RoleName::Leader,
        }
    }

    /// Whether it leads.
    pub fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// Whom it believes to lead in its term.
    pub fn leader(&self) -> Option<ServerId> {
        match self.role {
            Role::Leader(_) => Some(self.id),
            Role::Follower { leader } => leader,
            _ => None,
        }
    }

    /// Term and vote.
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// The commit index.
    pub fn commit_index(&self) -> Index {
        self.commit
    }

    /// The last index that the state machine was given.
    pub fn delivered_index(&self) -> Index {
        self.delivered
    }

    /// The last index on this server's disk.
    pub fn durable_index(&self) -> Index {
        self.durability.durable()
    }

    /// The last entry's place.
    pub fn last(&self) -> Position {
        self.log.last()
    }

    /// The last entry that is compacted.
    pub fn base(&self) -> Position {
        self.log.base()
    }

    /// The term of the entry at `index`, if it is live or the base.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.log.term_at(index)
    }

    /// The last entry that a durable snapshot covers.
    pub fn compacted_index(&self) -> Index {
        self.compacted
    }

    /// How often entries left the end of the log.
    pub fn truncations(&self) -> u64 {
        self.truncations
    }

    /// Entries that are not both committed and on the own disk, in bytes; 0 where this server does not lead.
    pub fn uncommitted_bytes(&self) -> usize {
        if let Role::Leader(leader) = &self.role { leader.uncommitted_bytes } else { 0 }
    }

    /// Kind and payload CRC of the entry at `index`, if it is in memory.
    pub fn cached_entry(&self, index: Index) -> Option<Entry> {
        self.log.cached(index, index, 0).pop()
    }

    /// Entries in memory, in bytes.
    pub fn cache_bytes(&self) -> usize {
        self.log.cache_bytes()
    }

    /// The configuration in force: the last one appended (§6).
    pub fn configuration(&self) -> &Arc<Configuration> {
        &self.configurations[self.configurations.len() - 1].1
    }

    /// Every configuration that is still known, by the index of its entry; the last is in force.
    pub fn configurations(&self) -> &[(Index, Arc<Configuration>)] {
        &self.configurations
    }

    /// The configuration in force at `index`, and the index of its entry.
    pub fn configuration_at(&self, index: Index) -> (Index, &Configuration) {
        let after = self.configurations.partition_point(|&(at, _)| at <= index);
        let (at, configuration) = &self.configurations[after.saturating_sub(1)];
        (*at, configuration)
    }

    /// Whether the members named by the configuration in force are committed.
    pub fn is_configuration_committed(&self) -> bool {
        self.configurations[self.configurations.len() - 1].0 <= self.commit
    }

    /// Whether those for whom `agrees` holds are a majority of the voters in force; both majorities while a change is
    /// joint (§6).
    pub fn is_quorum(&self, agrees: impl Fn(ServerId) -> bool) -> bool {
        quorum::is_quorum(self.configuration(), agrees)
    }

    // ---- parts that several rules share ----

    /// Says something to a peer that stands on the term alone.
    fn send(&mut self, to: ServerId, message: Message) {
        self.send_after(Mark(0), to, message);
    }

    /// Says something to a peer that stands on `mark`.
    fn send_after(&mut self, mark: Mark, to: ServerId, message: Message) {
        assert!(to != self.id, "a server does not talk to itself");
        if let Some(message) = self.durability.hold(mark, to, message) {
            self.effects.push(Effect::Send { to, message });
        }
    }

    /// Takes a new term and vote, as one record. The term never goes back, and a vote is given once a term (§5.2).
    fn set_hard_state(&mut self, term: Term, vote: Option<ServerId>) -> Mark {
        assert!(term >= self.hard_state.term, "the term never goes back");
        assert!(term > self.hard_state.term || self.hard_state.vote.is_none(), "one vote a term");
        self.hard_state = HardState { term, vote };
        let mark = self.durability.record_hard_state();
        self.effects.push(Effect::Persist { mark, record: Persist::HardState(self.hard_state) });
        mark
    }

    /// Appends entries to the own log: memory at once, disk with the next write. Configurations take effect (§6).
    fn append(&mut self, entries: Vec<Entry>) {
        let Some(last) = entries.last().map(|entry| entry.index) else { return };
        self.log.append(&entries);
        for entry in &entries {
            let configuration = configuration_in(entry).expect("an entry is checked where it enters the server");
            self.configurations.extend(configuration.map(|configuration| (entry.index, configuration.into())));
        }
        let mark = self.durability.record_append(last);
        self.effects.push(Effect::Persist { mark, record: Persist::Entries(entries) });
        self.evict();
    }

    /// Undoes everything from `from` on; configurations too (§6).
    fn truncate(&mut self, from: Index) {
        assert!(from > self.commit, "what is committed is never undone");
        self.log.truncate(from);
        self.truncations += 1;
        self.configurations.retain(|&(at, _)| at < from);
        assert!(!self.configurations.is_empty(), "the first configuration is committed from birth");
        let mark = self.durability.record_truncation(from);
        self.durability.drop_acknowledgements();
        self.effects.push(Effect::Persist { mark, record: Persist::Truncate { from } });
    }

    /// Lets go of the oldest entries beyond the budget, as long as the own disk has them and they are committed; and of
    /// their terms, where a snapshot covers them and the disk does not have them either.
    fn evict(&mut self) {
        self.evict_to(self.options.cache_bytes);
    }

    fn evict_to(&mut self, budget_bytes: usize) {
        let through = self.commit.min(self.durability.durable());
        self.log.evict(through, budget_bytes);
        let base = self.compacted.min(self.log.cache_start() - 1);
        if let Some(term) = self.log.term_at(base).filter(|_| base > self.log.base().index) {
            self.log.compact(Position { term, index: base });
            let in_force = self.configurations.partition_point(|&(at, _)| at <= base);
            self.configurations.drain(..in_force.saturating_sub(1));
        }
    }
}
