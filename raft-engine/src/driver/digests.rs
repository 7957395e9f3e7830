//! Comparing replicas ([`crate::types::DigestCheck`]): a request in the log, what every replica answers, and the verdict.
//!
//! The leader appends the request. Wherever it is applied, the mover asks the state machine what it comes down to, and
//! says so ([`super::Event::Digested`]); it is reported to the leader, which asks again whoever is silent. Once all
//! have answered, or the asker's patience is over, the leader compares. Where replicas differ it appends what it found,
//! and the asker is answered when that is committed: from then on no replica gets past the verdict whose state is another
//! than the majority's. Each judges its own state there, by what it came down to at the request. An answer that comes
//! later still, of a server that was down, say, is compared as well, for as long as the leader leads.
//!
//! Nothing here trusts a message further than an entry: a report that is lost, or wrong, costs a verdict or brings a wrong
//! one about nobody but its sender.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::group::{Group, complete};
use super::{Driver, Effect, NotApplied, Notice, Outcome, Ticket, Unknown};
use crate::codec;
use crate::core::Refusal;
use crate::session::digest_check;
use crate::transport::PeerMessage;
use crate::types::{
    DigestAnswer, DigestCheck, Divergence, Entry, EntryKind, GroupId, Index, Proposed, ServerId, StateDigest, Term,
    Time,
};

/// Whoever has not answered when the asker has long been, is asked again after this.
const LATE_INTERVAL: Duration = Duration::from_secs(1);

/// What this replica remembers of its own digests: of the latest so many requests.
const MAX_OWN: usize = 8;

/// What a group does about digests.
#[derive(Debug, Default)]
pub(super) struct Digests {
    /// By the entry of the request, what this replica answers; `None` while its host is at it.
    own: BTreeMap<Index, Option<Option<StateDigest>>>,
    /// This leader's check.
    check: Option<Check>,
    /// The latest that this server knows of: its own, or one that a verdict in the log tells.
    pub(super) latest: Option<Arc<DigestCheck>>,
    /// This replica is the odd one: the group stopped for it.
    pub(super) divergence: Option<Arc<Divergence>>,
}

/// A check that this leader makes, or has made.
#[derive(Debug)]
struct Check {
    index: Index,
    term: Term,
    /// Who waits for its end.
    asker: Option<Ticket>,
    deadline: Time,
    /// When the silent are asked again; never before this server has a digest of its own.
    ask_at: Time,
    /// Every member when it began, and what it said, in which open of its directory.
    replicas: BTreeMap<ServerId, Option<(u64, Option<StateDigest>)>>,
    /// Something came that was not compared.
    is_news: bool,
    /// What was last found to differ, and the entry that says so.
    logged: Option<(Index, DigestCheck)>,
}

impl Check {
    fn silent(&self) -> impl Iterator<Item = ServerId> + '_ {
        self.replicas.iter().filter(|(_, answer)| answer.is_none()).map(|(&id, _)| id)
    }

    /// Takes an answer. What a server could not say in a later open takes back nothing that it said in an earlier one.
    fn answer(&mut self, id: ServerId, incarnation: u64, digest: Option<StateDigest>) {
        let Some(answer) = self.replicas.get_mut(&id) else { return };
        let is_better = match *answer {
            None => true,
            Some((of, None)) => incarnation >= of,
            Some((of, Some(before))) => digest.is_some_and(|digest| incarnation > of && digest != before),
        };
        if is_better && *answer != Some((incarnation, digest)) {
            *answer = Some((incarnation, digest));
            self.is_news = true;
        }
    }

    /// What all that was said comes to: `is_quorum` tells whether those who agree are a majority.
    fn compare(&self, is_quorum: impl Fn(&dyn Fn(ServerId) -> bool) -> bool) -> DigestCheck {
        let given = |id: ServerId| self.replicas.get(&id).copied().flatten().and_then(|(_, digest)| digest);
        let different: std::collections::BTreeSet<_> = self.replicas.keys().filter_map(|&id| given(id)).collect();
        let majority = different.into_iter().find(|digest| is_quorum(&|id| given(id) == Some(*digest)));
        let answer = |answer: &Option<(u64, Option<StateDigest>)>| match answer {
            None => DigestAnswer::Missing,
            Some((_, None)) => DigestAnswer::Unable,
            Some((_, Some(digest))) => DigestAnswer::Given(*digest),
        };
        let replicas = self.replicas.iter().map(|(&id, said)| (id, answer(said))).collect();
        DigestCheck { index: self.index, majority, replicas }
    }
}

impl Digests {
    /// When a leader's check goes on by itself.
    pub(super) fn deadline(&self) -> Time {
        let Some(check) = &self.check else { return Time::NEVER };
        let is_waiting = check.asker.is_some() && check.logged.is_none();
        check.ask_at.min(if is_waiting { check.deadline } else { Time::NEVER })
    }

    /// Ends what waits, as nothing will come of it here.
    pub(super) fn end_all(&mut self, id: GroupId, unknown: Unknown, effects: &mut Vec<Effect>) {
        let asker = self.check.take().and_then(|check| check.asker);
        complete(id, asker.into_iter().collect(), Outcome::Unknown(unknown), effects);
    }

    /// The state machine was replaced by a snapshot at `index`: what its state before came down to is nobody's.
    pub(super) fn restored(&mut self, index: Index) {
        self.own.retain(|&at, _| at > index);
    }
}

impl Driver {
    /// The host wants the replicas compared.
    pub(super) fn on_check_digests(&mut self, now: Time, id: GroupId, ticket: Ticket, patience: Duration) {
        let begun = self.may_ask(id).and_then(|()| self.begin_check(now, id, ticket, patience));
        if let Err(refusal) = begun {
            complete(id, vec![ticket], Outcome::NotApplied(refusal), &mut self.effects);
        }
    }

    fn begin_check(&mut self, now: Time, id: GroupId, ticket: Ticket, patience: Duration) -> Result<(), NotApplied> {
        let (me, has_room) = (self.me.id, self.storage.has_room());
        let group = self.groups.get_mut(&id).ok_or(NotApplied::Closed)?;
        let raft = &group.formed().ok_or(NotApplied::Forming)?.raft;
        match &group.digests.check {
            _ if !raft.is_leader() => return Err(NotApplied::NotLeader { leader: raft.leader() }),
            Some(check) if check.asker.is_some() => return Err(NotApplied::Busy),
            _ if !has_room => return Err(NotApplied::DiskFull),
            _ => {}
        }
        let members = raft.configuration().members.iter().map(|member| member.id);
        let replicas = members.chain([me]).map(|id| (id, None)).collect();
        let term = raft.hard_state().term;
        let index = append(group, now, EntryKind::DigestRequest, Vec::new())?;
        let deadline = now + patience;
        group.digests.check = Some(Check {
            index,
            term,
            asker: Some(ticket),
            deadline,
            ask_at: Time::NEVER,
            replicas,
            is_news: false,
            logged: None,
        });
        Ok(())
    }

    /// An entry about digests goes to the state machine, the last of its batch.
    pub(super) fn digest_entry_delivered(&mut self, id: GroupId, entry: &Entry) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let digests = &mut group.digests;
        if entry.kind == EntryKind::DigestRequest {
            digests.own.insert(entry.index, None);
            while digests.own.len() > MAX_OWN {
                digests.own.pop_first();
            }
            return;
        }
        let Some(check) = digest_check(entry) else { return };
        let check = Arc::new(check);
        digests.latest = Some(check.clone());
        self.effects.push(Effect::Notice(Notice::Diverged { group: id, check: check.clone() }));
        let mine = digests.check.as_mut().filter(|mine| mine.logged.as_ref().is_some_and(|(at, _)| *at == entry.index));
        let asker = mine.and_then(|mine| mine.asker.take());
        complete(id, asker.into_iter().collect(), Outcome::DigestsChecked(check), &mut self.effects);
    }

    /// The state machine has said what its state comes down to at a request.
    pub(super) fn on_digested(
        &mut self,
        now: Time,
        id: GroupId,
        index: Index,
        said: Result<Option<StateDigest>, String>,
    ) {
        let digest = said.unwrap_or_else(|message| {
            let message = format!("group {id}: the state machine gave no digest at entry {index}: {message}");
            self.effects.push(Effect::Notice(Notice::Warning { message }));
            None
        });
        let (me, incarnation) = (self.me.id, self.incarnation.number);
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(leader) = group.formed().map(|formed| formed.raft.leader()) else { return };
        if let Some(own) = group.digests.own.get_mut(&index) {
            *own = Some(digest);
        }
        if let Some(check) = group.digests.check.as_mut().filter(|check| check.index == index) {
            check.answer(me, incarnation, digest);
            // The others have it too by now, or soon: whoever says nothing by then is asked.
            check.ask_at = now + self.settings.heartbeat_interval;
        }
        if let Some(leader) = leader.filter(|&leader| leader != me) {
            self.send(id, leader, PeerMessage::DigestReport { index, incarnation, digest });
        }
    }

    /// A leader asks what this replica's state came down to.
    pub(super) fn on_digest_query(&mut self, id: GroupId, from: ServerId, index: Index) {
        let Some(group) = self.groups.get(&id) else { return };
        let digest = match group.digests.own.get(&index) {
            Some(Some(digest)) => *digest,
            // Its state has passed the entry, and what it came down to there was never asked for here.
            None if index <= group.delivery.applied => None,
            // It will be said once it is known.
            _ => return,
        };
        let incarnation = self.incarnation.number;
        self.send(id, from, PeerMessage::DigestReport { index, incarnation, digest });
    }

    /// A replica says what its state came down to.
    pub(super) fn on_digest_report(
        &mut self,
        id: GroupId,
        from: ServerId,
        index: Index,
        incarnation: u64,
        digest: Option<StateDigest>,
    ) {
        let check = self.groups.get_mut(&id).and_then(|group| group.digests.check.as_mut());
        if let Some(check) = check.filter(|check| check.index == index) {
            check.answer(from, incarnation, digest);
        }
    }

    /// Takes a check further, if it is time.
    pub(super) fn advance_check(&mut self, now: Time, id: GroupId) {
        let (me, heartbeat) = (self.me.id, self.settings.heartbeat_interval);
        let Some(group) = self.groups.get(&id).filter(|group| group.digests.check.is_some()) else { return };
        let leads = |term| {
            let raft = group.formed().map(|formed| &formed.raft);
            raft.is_some_and(|raft| raft.is_leader() && raft.hard_state().term == term)
        };
        let is_lost = group.digests.check.as_ref().is_some_and(|check| !leads(check.term));
        let Some(group) = self.groups.get_mut(&id) else { return };
        if is_lost {
            return group.digests.end_all(id, Unknown::LeadershipLost, &mut self.effects);
        }
        let Some(check) = &mut group.digests.check else { return };
        let is_over = check.asker.is_some() && now >= check.deadline;
        if check.replicas.get(&me).copied().flatten().is_none() {
            if is_over {
                let why = format!("entry {} was not applied here in time: nothing was compared", check.index);
                let asker = check.asker.take().into_iter().collect();
                group.digests.check = None;
                complete(id, asker, Outcome::NotApplied(NotApplied::GivenUp(why)), &mut self.effects);
            }
            return;
        }
        let has_all = check.silent().next().is_none();
        let is_waiting = check.asker.is_some() && check.logged.is_none();
        if (is_waiting && (has_all || is_over)) || (!is_waiting && check.is_news) {
            self.conclude(now, id);
        }
        let Some(check) = self.groups.get_mut(&id).and_then(|group| group.digests.check.as_mut()) else { return };
        if now >= check.ask_at {
            check.ask_at = now + if check.asker.is_some() { heartbeat } else { LATE_INTERVAL };
            let (index, silent) = (check.index, check.silent().collect::<Vec<_>>());
            if silent.is_empty() && check.asker.is_none() && !check.is_news {
                // Nothing more is to come, unless somebody changes his mind.
                check.ask_at = Time::NEVER;
            }
            for to in silent {
                self.send(id, to, PeerMessage::DigestQuery { index });
            }
        }
    }

    /// Compares what was said. Where replicas differ, the log is to tell everybody; else the asker is told.
    fn conclude(&mut self, now: Time, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(raft) = group.formed().map(|formed| &formed.raft) else { return };
        let Some(found) = group.digests.check.as_ref().map(|check| check.compare(|agrees| raft.is_quorum(agrees)))
        else {
            return;
        };
        let is_known = group.digests.check.as_ref().is_some_and(|check| {
            check.logged.as_ref().is_some_and(|(_, logged)| *logged == found) || !found.is_difference()
        });
        let mut logged = None;
        if !is_known {
            match append(group, now, EntryKind::DigestVerdict, codec::encode(&found)) {
                Ok(index) => logged = Some((index, found.clone())),
                Err(_) => {
                    // It is tried again.
                    if let Some(check) = &mut group.digests.check {
                        check.deadline = now + self.settings.heartbeat_interval;
                    }
                    return;
                }
            }
        }
        let Some(check) = &mut group.digests.check else { return };
        check.is_news = false;
        if logged.is_some() {
            check.logged = logged;
            return;
        }
        if check.logged.is_none() {
            let found = Arc::new(found);
            group.digests.latest = Some(found.clone());
            let asker = check.asker.take().into_iter().collect();
            complete(id, asker, Outcome::DigestsChecked(found), &mut self.effects);
        }
    }

    /// The verdict at `index` goes against this replica: it stops there, unapplied. A leader hands over first, to one whose
    /// state is the majority's.
    pub(super) fn on_diverged(&mut self, now: Time, id: GroupId, index: Index, divergence: Divergence) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let agrees = |id: ServerId| {
            let given = divergence.check.answer_of(id).and_then(|answer| answer.given());
            given.is_some() && given == divergence.check.majority
        };
        group.run(|raft| raft.resign(now, agrees));
        let reason = format!("stopped at entry {index}: {divergence}");
        group.digests.divergence = Some(Arc::new(divergence));
        self.carry_out(now, id);
        self.send_frames(now);
        self.stop_group(id, reason);
    }
}

/// Appends an entry of the engine's own at the leader. Everybody is told of its commit at once.
fn append(group: &mut Group, now: Time, kind: EntryKind, payload: Vec<u8>) -> Result<Index, NotApplied> {
    let appended = group.run(|raft| {
        let indexes = raft.propose(now, vec![Proposed { kind, payload: payload.into() }])?;
        let members: Vec<_> = raft.configuration().members.iter().map(|member| member.id).collect();
        members.into_iter().for_each(|id| raft.hasten_commit(id, indexes.start));
        Ok(indexes.start)
    });
    match appended {
        Some(Ok(index)) => Ok(index),
        Some(Err(Refusal::NotLeader)) => Err(NotApplied::NotLeader { leader: None }),
        Some(Err(Refusal::Overloaded)) => Err(NotApplied::Overloaded),
        Some(Err(Refusal::Transferring)) => Err(NotApplied::Transferring),
        None => Err(NotApplied::Closed),
    }
}
