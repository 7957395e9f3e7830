//! Changes of the members of a group (§6; dissertation chapter 4).
//!
//! A change is one operation with one end, whatever it adds, removes, promotes or demotes. Where the voters stay the same
//! it is one entry. Where they change it has up to three: those who are to vote are added as learners and *catch up*;
//! then the *joint* configuration, in which every decision needs a majority of the old voters and one of the new; then
//! the target. Each is in force from when it is appended, and the next is appended once the one before is committed, so
//! that consecutive configurations always have a voter in common who says no.
//!
//! The entry names the target and a deadline, so that whoever leads next goes on with it. Until the joint configuration
//! is in a leader's log the change may be given up; from then on the only way is forward: a majority of the new voters
//! may hold it already, and going back would need their word.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::progress::{Pace, Progress};
use super::{Effect, Leader, Raft, Role};
use crate::codec::{self, CodecError};
use crate::types::{
    Change, Configuration, Entry, EntryKind, GroupSettings, Identity, Index, LogTime, Member, MemberChange, MemberRole,
    Message, Position, QuorumRecovery, ServerId, Time,
};

/// Why a change of members was not begun. Nothing was appended.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChangeRefusal {
    /// This server does not lead.
    #[error("this server does not lead the group")]
    NotLeader,
    /// The leader has not committed an entry of its term: it may not know of a change in progress (dissertation §4.1,
    /// and the correction to it).
    #[error("the leader has not committed an entry in its term yet: ask again in a moment")]
    NotReady,
    /// Another change is in progress; or leadership is being handed over.
    #[error("another change is in progress, or leadership is being handed over: wait for its end, or cancel it")]
    InProgress,
    /// There is no change that could be cancelled.
    #[error("no change is in progress")]
    NothingToCancel,
    /// The change is past the point of no return.
    #[error("the change is in its joint phase: it can only go forward")]
    TooLate,
    /// It asks for what cannot be.
    #[error("{0}")]
    Invalid(String),
}

/// How a change of members ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeEnd {
    /// The target is in force.
    Done,
    /// Those who are to vote did not catch up before the deadline. Whom it added is gone again.
    GivenUp,
    /// The operator cancelled it. Whom it added is gone again.
    Cancelled,
}

/// What a leader remembers of a change beside the configuration itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Changing {
    /// The operator wants it cancelled.
    is_cancelled: bool,
    /// The entry that ends it, and how.
    ending: Option<(Index, ChangeEnd)>,
    /// The commit index two heartbeats ago and one ago: who has the former has caught up.
    commits: [Index; 2],
}

/// The configuration that an entry brings, if it is of a kind that does.
///
/// # Errors
/// It is of such a kind and cannot be read.
pub fn configuration_in(entry: &Entry) -> Result<Option<Configuration>, CodecError> {
    match entry.kind {
        EntryKind::Configuration => codec::decode(&entry.payload).map(Some),
        EntryKind::Recovery => codec::decode(&entry.payload).map(|it: QuorumRecovery| Some(it.configuration)),
        _ => Ok(None),
    }
}

/// What a change of these members comes to: the members, sorted, and the settings.
fn target_of(
    configuration: &Configuration,
    changes: &[MemberChange],
    identities: &BTreeMap<ServerId, Identity>,
) -> Result<(Vec<Member>, GroupSettings), String> {
    let mut members: BTreeMap<_, _> = configuration.members.iter().map(|member| (member.id, member.clone())).collect();
    let mut settings = configuration.settings.clone();
    for change in changes {
        let unknown = |id: ServerId| format!("server {id} is not a member of the group");
        match change {
            MemberChange::Add { id, role, priority, address, context } => {
                if members.contains_key(id) {
                    return Err(format!("server {id} is a member already"));
                }
                if *id <= configuration.highest_id {
                    return Err(format!(
                        "id {id} is not above {}, the highest that the group ever used, and an id is never used again: \
                         give the new server a higher one",
                        configuration.highest_id
                    ));
                }
                let Some(&identity) = identities.get(id) else {
                    return Err(format!("server {id} was not met at {address}"));
                };
                let (id, role, priority) = (*id, *role, *priority);
                let (address, context) = (address.clone(), context.clone());
                members.insert(id, Member { id, role, priority, identity, address, context });
            }
            MemberChange::Remove { id } => {
                members.remove(id).ok_or_else(|| unknown(*id))?;
            }
            MemberChange::SetRole { id, role } => members.get_mut(id).ok_or_else(|| unknown(*id))?.role = *role,
            MemberChange::SetPriority { id, priority } => {
                members.get_mut(id).ok_or_else(|| unknown(*id))?.priority = *priority;
            }
            MemberChange::SetAddress { id, address } => {
                members.get_mut(id).ok_or_else(|| unknown(*id))?.address.clone_from(address);
            }
            MemberChange::SetContext { id, context } => {
                members.get_mut(id).ok_or_else(|| unknown(*id))?.context.clone_from(context);
            }
            MemberChange::SetSettings(given) => settings.clone_from(given),
        }
    }
    let members: Vec<_> = members.into_values().collect();
    if !members.iter().any(|member| member.role == MemberRole::Voter) {
        return Err("nobody would be left to vote".into());
    }
    Ok((members, settings))
}

impl Configuration {
    /// The change in its first step: who is to vote and does not yet is a learner; who is to go or to vote no more stays
    /// what it is; all else takes effect.
    fn learning(&self, target: Vec<Member>, deadline: LogTime, settings: GroupSettings) -> Self {
        let mut members: BTreeMap<_, _> = self.members.iter().map(|member| (member.id, member.clone())).collect();
        let mut added = Vec::new();
        for member in &target {
            let role = self.member(member.id).map(|present| present.role);
            if role.is_none() {
                added.push(member.id);
            }
            let role = role.unwrap_or(MemberRole::Learner);
            members.insert(member.id, Member { role, ..member.clone() });
        }
        Self {
            members: members.into_values().collect(),
            outgoing_voters: Vec::new(),
            highest_id: highest_id(self, &target),
            change: Some(Change { target, added, deadline }),
            settings,
        }
    }

    /// Both the old voters and the new (§6): who leaves, or is to vote no more, is a learner that still votes among the
    /// old.
    fn joint(&self, change: &Change) -> Self {
        let mut members: BTreeMap<_, _> = self.members.iter().map(|member| (member.id, member.clone())).collect();
        for member in members.values_mut() {
            member.role = MemberRole::Learner;
        }
        members.extend(change.target.iter().map(|member| (member.id, member.clone())));
        Self {
            members: members.into_values().collect(),
            outgoing_voters: self.voters().collect(),
            highest_id: highest_id(self, &change.target),
            change: Some(change.clone()),
            settings: self.settings.clone(),
        }
    }

    /// The change is done.
    fn reached(&self, target: Vec<Member>, settings: GroupSettings) -> Self {
        let highest_id = highest_id(self, &target);
        Self { members: target, outgoing_voters: Vec::new(), highest_id, change: None, settings }
    }

    /// The change is given up: whom it added goes.
    fn given_up(&self, change: &Change) -> Self {
        let stays = |member: &&Member| !change.added.contains(&member.id);
        Self { members: self.members.iter().filter(stays).cloned().collect(), change: None, ..self.clone() }
    }
}

fn highest_id(configuration: &Configuration, members: &[Member]) -> ServerId {
    members.iter().map(|member| member.id).fold(configuration.highest_id, ServerId::max)
}

impl Raft {
    /// Begins a change of members. `identities` are those met at the addresses of who is added; the change is given up
    /// after `patience` if those who are to vote have not caught up. Its end is an effect.
    pub fn change_members(
        &mut self,
        now: Time,
        changes: &[MemberChange],
        identities: &BTreeMap<ServerId, Identity>,
        patience: Duration,
    ) -> Result<(), ChangeRefusal> {
        let (target, settings) = self.plan(changes, identities)?;
        let configuration = self.configuration().clone();
        let voters = |members: &[Member]| -> Vec<ServerId> {
            members.iter().filter(|member| member.role == MemberRole::Voter).map(|member| member.id).collect()
        };
        if voters(&target) == voters(&configuration.members) {
            self.end_change(now, configuration.reached(target, settings), ChangeEnd::Done);
            return Ok(());
        }
        let deadline = self.log_time(now) + patience;
        self.append_configuration(now, configuration.learning(target, deadline, settings));
        Ok(())
    }

    /// Whether a change could begin now, but for meeting those whom it adds.
    pub fn check_change(&self, changes: &[MemberChange]) -> Result<(), ChangeRefusal> {
        let anybody = changes.iter().filter_map(|change| match change {
            MemberChange::Add { id, .. } => Some((*id, Identity([0; 16]))),
            _ => None,
        });
        self.plan(changes, &anybody.collect()).map(drop)
    }

    /// What a change comes to, if it may begin now.
    fn plan(
        &self,
        changes: &[MemberChange],
        identities: &BTreeMap<ServerId, Identity>,
    ) -> Result<(Vec<Member>, GroupSettings), ChangeRefusal> {
        self.may_change()?;
        let configuration = self.configuration();
        let (target, settings) = target_of(configuration, changes, identities).map_err(ChangeRefusal::Invalid)?;
        if settings.lease > self.options.election_timeout {
            return Err(ChangeRefusal::Invalid(format!(
                "a lease of {:?} is longer than the election timeout of {:?}",
                settings.lease, self.options.election_timeout
            )));
        }
        if target == configuration.members && settings == configuration.settings {
            return Err(ChangeRefusal::Invalid("nothing would change".into()));
        }
        Ok((target, settings))
    }

    /// Gives up the change in progress, if it is not past the point of no return. Its end is an effect.
    pub fn cancel_change(&mut self, now: Time) -> Result<(), ChangeRefusal> {
        let configuration = self.configuration().clone();
        let Role::Leader(leader) = &mut self.role else { return Err(ChangeRefusal::NotLeader) };
        match configuration.change {
            None => return Err(ChangeRefusal::NothingToCancel),
            Some(_) if configuration.is_joint() => return Err(ChangeRefusal::TooLate),
            Some(_) => leader.changing.is_cancelled = true,
        }
        self.advance_change(now);
        Ok(())
    }

    /// Whether a change may begin: one at a time, and none before the leader has committed in its term.
    fn may_change(&self) -> Result<(), ChangeRefusal> {
        let Role::Leader(leader) = &self.role else { return Err(ChangeRefusal::NotLeader) };
        if self.commit < leader.first_of_term {
            return Err(ChangeRefusal::NotReady);
        }
        if self.configuration().change.is_some() || !self.is_configuration_committed() || leader.transfer.is_some() {
            return Err(ChangeRefusal::InProgress);
        }
        Ok(())
    }

    /// Takes a change one step further, if it is time.
    pub(super) fn advance_change(&mut self, now: Time) {
        let Role::Leader(leader) = &self.role else { return };
        if self.commit < leader.first_of_term || !self.is_configuration_committed() {
            return;
        }
        if let Some((index, end)) = leader.changing.ending {
            self.change_ended(now, index, end);
        }
        let configuration = self.configuration().clone();
        let Role::Leader(leader) = &self.role else { return };
        let Some(change) = &configuration.change else { return };
        if configuration.is_joint() {
            let reached = configuration.reached(change.target.clone(), configuration.settings.clone());
            self.end_change(now, reached, ChangeEnd::Done);
        } else if leader.changing.is_cancelled {
            self.end_change(now, configuration.given_up(change), ChangeEnd::Cancelled);
        } else if self.have_caught_up(now, &configuration, leader, change) {
            self.append_configuration(now, configuration.joint(change));
        } else if self.log_time(now) >= change.deadline {
            self.end_change(now, configuration.given_up(change), ChangeEnd::GivenUp);
        }
    }

    /// Whether everybody who is to vote has what was committed two heartbeats ago, and was heard from within an election
    /// timeout (dissertation §4.2.1: else the group could not commit anything for long after the change).
    fn have_caught_up(&self, now: Time, configuration: &Configuration, leader: &Leader, change: &Change) -> bool {
        let is_new = |member: &&Member| member.role == MemberRole::Voter && !configuration.is_voter(member.id);
        change.target.iter().filter(is_new).all(|member| {
            let has_all = |peer: &Progress| peer.counted() >= leader.changing.commits[0].max(leader.first_of_term);
            let is_heard = |peer: &Progress| now.since(peer.heard_at) < self.options.election_timeout;
            leader.peers.get(&member.id).is_some_and(|peer| has_all(peer) && is_heard(peer))
        })
    }

    /// A heartbeat passed: what is committed now is what a learner must have in two.
    pub(super) fn note_commit_of_heartbeat(&mut self) {
        let commit = self.commit;
        if let Role::Leader(leader) = &mut self.role {
            leader.changing.commits = [leader.changing.commits[1], commit];
        }
    }

    fn end_change(&mut self, now: Time, configuration: Configuration, end: ChangeEnd) {
        let index = self.append_configuration(now, configuration);
        if let Role::Leader(leader) = &mut self.role {
            leader.changing.ending = Some((index, end));
            leader.changing.is_cancelled = false;
        }
    }

    /// The entry that ends a change is committed.
    fn change_ended(&mut self, now: Time, index: Index, end: ChangeEnd) {
        let configuration = self.configuration().clone();
        let Role::Leader(leader) = &mut self.role else { return };
        leader.changing.ending = None;
        let gone: Vec<_> = leader.peers.keys().copied().filter(|&id| configuration.member(id).is_none()).collect();
        for id in gone {
            leader.peers.remove(&id);
        }
        self.effects.push(Effect::ChangeEnded { index, end });
        // Those who went are told: they would campaign otherwise, not having heard of their removal.
        let before = self.configurations.iter().rev().skip(1).map(|(_, configuration)| configuration);
        let left: Vec<_> = before
            .flat_map(|earlier| earlier.members.iter().map(|member| member.id))
            .filter(|&id| id != self.id && configuration.member(id).is_none())
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect();
        for id in left {
            self.send(id, Message::Removed { index });
        }
        if !configuration.is_voter(self.id) {
            self.leave(now);
        }
    }

    /// Appends a configuration as leader: whom it names is replicated to from now on. Whom it names no more still gets
    /// what is appended until it is committed.
    fn append_configuration(&mut self, now: Time, configuration: Configuration) -> Index {
        let position = Position { term: self.hard_state.term, index: self.log.last().index + 1 };
        let payload = Bytes::from(crate::codec::encode(&configuration));
        let entry = Entry::new(position, self.log_time(now), EntryKind::Configuration, payload);
        self.append_own(now, vec![entry]);
        let (own, next) = (self.id, position.index);
        let Role::Leader(leader) = &mut self.role else { return position.index };
        for member in configuration.members.iter().filter(|member| member.id != own) {
            leader.peers.entry(member.id).or_insert_with(|| Progress::new(now, next));
        }
        // With other voters, what everybody holds may be enough at once.
        self.advance_commit(now);
        position.index
    }

    // ---- those who are no member ----

    /// Whether a configuration known to be committed says that `id` was removed, and which. An id is never used again, so
    /// that once is for ever.
    pub(super) fn removed_by(&self, id: ServerId) -> Option<Index> {
        let (at, configuration) = self.configuration_at(self.commit);
        (id <= configuration.highest_id && configuration.member(id).is_none()).then_some(at)
    }

    /// Somebody says that this server was removed, by the entry at `index`. It stops to campaign, and does nothing else:
    /// if a leader appends, it was not so.
    pub(super) fn on_removed(&mut self, index: Index) {
        let (at, configuration) = self.configuration_at(self.commit);
        let knows_better = at >= index && configuration.member(self.id).is_some();
        if self.is_leader() || knows_better {
            return;
        }
        self.removed = Some(index);
        if matches!(self.role, Role::PreCandidate { .. } | Role::Candidate { .. }) {
            self.role = Role::Follower { leader: None };
        }
    }

    /// The entry that removed this server from the group, as far as it knows.
    pub fn removed(&self) -> Option<Index> {
        self.removed.or_else(|| self.removed_by(self.id))
    }

    /// The identity that the latest configuration names for a server, or an earlier one that is still known: who was
    /// removed may still be spoken with.
    pub fn identity_of(&self, id: ServerId) -> Option<Identity> {
        let named = |(_, configuration): &(Index, Arc<Configuration>)| Some(configuration.member(id)?.identity);
        self.configurations.iter().rev().find_map(named)
    }

    /// Where to dial whoever is or was a member, as far as the log still tells; the latest address of each.
    pub fn known_addresses(&self) -> BTreeMap<ServerId, String> {
        let members = self.configurations.iter().flat_map(|(_, configuration)| &configuration.members);
        members.map(|member| (member.id, member.address.clone())).collect()
    }

    /// How far each learner is, in order of id: what it holds durably, as this leader knows. Empty at anyone else.
    pub fn learners(&self) -> Vec<(ServerId, Index)> {
        let Role::Leader(leader) = &self.role else { return Vec::new() };
        let is_learner = |id: ServerId| !self.configuration().is_voter(id);
        let learners = leader.peers.iter().filter(|(id, _)| is_learner(**id));
        learners.map(|(&id, peer)| (id, if peer.pace == Pace::LostData { 0 } else { peer.matched })).collect()
    }
}
