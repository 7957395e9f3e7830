//! Starting a group at this server: forming it with the other initial members, or continuing it from the log.

use super::changes::MAX_ADDRESS_BYTES;
use super::formation::{self, FirstEntry, Forming, Introduction};
use super::group::{Formed, Group, Phase};
use super::joining::Joining;
use super::{Driver, Effect, Notice, StartHow};
use crate::core::{Options, Raft, Restored, configuration_in};
use crate::storage::{Record, RecoveredGroup};
use crate::transport::PeerMessage;
use crate::types::{
    Configuration, Entry, FIRST_INDEX, FileName, GroupId, Index, Lineage, Position, ServerId, SnapshotMeta, Time,
};

/// The configurations that a group's log holds by the indexes of their entries, ascending; the last is in force.
pub(super) fn configurations_of(
    snapshot: Option<&(SnapshotMeta, FileName)>,
    first: FirstEntry,
    entries: &[Entry],
) -> Result<Vec<(Index, Configuration)>, String> {
    let mut configurations = match snapshot {
        Some((meta, _)) => vec![(meta.configuration_index, (*meta.configuration).clone())],
        None => vec![(FIRST_INDEX, first.into_configuration())],
    };
    for entry in entries {
        let configuration = configuration_in(entry).map_err(|error| format!("entry {}: {error}", entry.index))?;
        configurations.extend(configuration.map(|configuration| (entry.index, configuration)));
    }
    Ok(configurations)
}

impl Driver {
    pub(super) fn on_start_group(
        &mut self,
        now: Time,
        id: GroupId,
        how: StartHow,
        applied: Index,
    ) -> Result<(), String> {
        if self.groups.contains_key(&id) {
            return Err(format!("group {id} is started already"));
        }
        if self.is_closed || self.stopped.is_some() {
            return Err("the server is closed, or stopped".into());
        }
        let recovered = self.recovered.get(&id).filter(|recovered| recovered.first_entry.is_some());
        let forming = match &how {
            StartHow::Restart | StartHow::Join { .. } => None,
            StartHow::Bootstrap { members, settings } => {
                Some(Forming::new(&self.me.cluster, id, self.me.id, members.clone(), settings.clone())?)
            }
        };
        match (recovered, forming) {
            (None, None) => match how {
                StartHow::Join { contacts } => self.begin_join(id, contacts, applied),
                _ => Err(format!("group {id} is not in the data directory: bootstrap it, or join it")),
            },
            (None, Some(_)) if applied > 0 => {
                Err(format!("the host says that it has applied entry {applied} of a group that is not formed yet"))
            }
            (None, Some(forming)) => {
                let others: Vec<_> = forming.others(self.me.id).map(|member| member.id).collect();
                for member in &forming.members {
                    self.know_peer(member.id, &member.address);
                }
                self.groups.insert(id, Group::new(id, Phase::Forming(forming)));
                others.into_iter().for_each(|other| self.introduce(id, other));
                self.form_if_complete(id);
                Ok(())
            }
            (Some(recovered), forming) => {
                let first_entry = recovered.first_entry.clone().ok_or("entry 1 is missing")?;
                let formed = formation::read_entry(&first_entry)?;
                if forming.is_some_and(|forming| forming.digest != formed.digest()) {
                    return Err(format!(
                        "group {id} was formed with other arguments (cluster, group or member list): start it with \
                         those, or as a restart"
                    ));
                }
                if applied > recovered.last.index {
                    return Err(format!(
                        "the host says that it has applied entry {applied}, but the log of group {id} ends at {}: its \
                         state and this data directory do not belong together",
                        recovered.last.index
                    ));
                }
                let recovered = self.recovered.remove(&id).ok_or("recovered a moment ago")?;
                self.continue_group(now, recovered, applied)?;
                // Whoever waits for entry 1 may have asked before the group was started here, and nobody heard.
                let formed = self.groups.get(&id).and_then(|group| group.formed());
                let members = formed.map(|formed| formed.raft.configuration().members.clone()).unwrap_or_default();
                let others = members.iter().map(|member| member.id).filter(|&other| other != self.me.id);
                others.collect::<Vec<_>>().into_iter().for_each(|other| self.introduce(id, other));
                Ok(())
            }
        }
    }

    /// Continues a group that the log holds.
    fn continue_group(&mut self, now: Time, recovered: RecoveredGroup, applied: Index) -> Result<(), String> {
        let id = recovered.group;
        let first_entry = recovered.first_entry.ok_or("entry 1 is missing")?;
        let first = formation::read_entry(&first_entry)?;
        let (digest, first_lease) = (first.digest(), first.lease());
        let configurations = configurations_of(recovered.snapshot.as_ref(), first, &recovered.configurations)?;
        let base = recovered.snapshot.as_ref().map_or(Position::default(), |(meta, _)| meta.position);
        let longest_lease = recovered.longest_lease.max(first_lease);
        let restored = Restored {
            longest_lease,
            hard_state: recovered.hard_state,
            base,
            term_runs: recovered.term_runs,
            last: recovered.last.index,
            last_log_time: recovered.last_log_time,
            commit: recovered.commit.max(applied).max(first_entry.index),
            configurations,
            tail: recovered.tail,
        };
        let seed = self.random.u64(..);
        let raft = Raft::new(self.me.id, self.core_options(), restored, seed, now);
        let lineage = recovered.lineage.unwrap_or_else(|| formation::lineage_of(&first_entry));
        let mut group = Group::new(id, Phase::Formed(Box::new(Formed { raft, first_entry, lineage, digest })));
        group.recorded_commit = recovered.commit;
        group.delivery.applied = applied;
        group.delivery.held = applied;
        // What the host holds by itself it need not be given, but its sessions must: they begin at the snapshot too, or at
        // entry 1, and take every entry from there on.
        if let Some((meta, file)) = recovered.snapshot {
            group.delivery.is_restoring = true;
            group.delivery.log_time = Some(meta.log_time);
            group.snapshots.last_bytes = meta.file_bytes;
            self.effects.push(match meta.position.index > applied {
                true => Effect::Restore { group: id, file, meta },
                false => Effect::RestoreSessions { group: id, file, meta },
            });
        }
        self.groups.insert(id, group);
        self.know_members(id);
        Ok(())
    }

    /// Waits to be added to a group: dials whom its operator named.
    fn begin_join(&mut self, id: GroupId, contacts: Vec<String>, applied: Index) -> Result<(), String> {
        if applied > 0 {
            return Err(format!("the host says that it has applied entry {applied} of a group that is not joined yet"));
        }
        if contacts.is_empty() || contacts.iter().any(|it| it.is_empty() || it.len() > MAX_ADDRESS_BYTES) {
            return Err(format!("to join takes addresses of members, each of 1 to {MAX_ADDRESS_BYTES} bytes"));
        }
        self.groups.insert(id, Group::new(id, Phase::Joining(Joining::default())));
        contacts.into_iter().for_each(|address| self.know_contact(address));
        let known: Vec<_> = self.links.peers.keys().copied().collect();
        known.into_iter().for_each(|peer| self.ask_to_join(id, peer));
        Ok(())
    }

    fn core_options(&self) -> Options {
        Options {
            election_timeout: self.settings.election_timeout,
            heartbeat_interval: self.settings.heartbeat_interval,
            disk_stall_timeout: self.settings.disk_stall_timeout,
            in_flight_bytes: self.settings.in_flight_bytes,
            message_bytes: Options::default().message_bytes.min(self.settings.in_flight_bytes),
            uncommitted_bytes: self.settings.uncommitted_bytes,
            cache_bytes: self.settings.cache_bytes,
        }
    }

    /// Knows the members of a formed group: where to dial them, and which directories their ids belong to.
    pub(super) fn know_members(&mut self, id: GroupId) {
        let Some(formed) = self.groups.get(&id).and_then(|group| group.formed()) else { return };
        let is_committed = formed.raft.is_configuration_committed();
        let members = formed.raft.configuration().members.clone();
        for (peer, address) in formed.raft.known_addresses() {
            self.know_peer(peer, &address);
        }
        for member in members {
            if is_committed {
                self.bound.insert(member.id, member.identity);
            }
        }
    }

    // ---- forming ----

    /// Says to a peer with what arguments this server was started, and whether the group is formed here. Said on every
    /// new connection: whatever was lost with an older one is asked for again.
    pub(super) fn introduce(&mut self, id: GroupId, to: ServerId) {
        let Some(group) = self.groups.get(&id).filter(|group| group.stopped.is_none()) else { return };
        let (digest, formed, is_member) = match &group.phase {
            Phase::Forming(forming) => (forming.digest, None, forming.others(self.me.id).any(|other| other.id == to)),
            Phase::Joining(_) => return self.ask_to_join(id, to),
            Phase::Formed(formed) => {
                let lineage = formed.lineage;
                if self.links.said_other_lineage(to, id, lineage) {
                    self.send(id, to, PeerMessage::LineageRefused(lineage));
                    return;
                }
                (formed.digest, Some(lineage), formed.raft.configuration().member(to).is_some())
            }
        };
        if is_member {
            self.send(id, to, PeerMessage::Introduce { digest, formed });
        }
    }

    pub(super) fn on_introduce(&mut self, id: GroupId, from: ServerId, digest: [u8; 32], said: Introduction) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let (own_digest, formed) = match &group.phase {
            Phase::Joining(_) => return,
            Phase::Forming(forming) => (forming.digest, None),
            Phase::Formed(formed) => (formed.digest, Some(formed.lineage)),
        };
        if digest != own_digest {
            if let Phase::Forming(forming) = &mut group.phase {
                forming.introduced.remove(&from);
            }
            let reason = format!(
                "server {} was started for group {id} with another cluster, group or member list: start all initial \
                 members with the same arguments",
                self.me.id
            );
            self.send(id, from, PeerMessage::FormationRefused { reason: reason.clone() });
            let reason = format!("server {from} and this one were started with different arguments: {reason}");
            return self.effects.push(Effect::Notice(Notice::Refused { peer: Some(from), identity: None, reason }));
        }
        if formed.is_some() {
            if !said.is_formed {
                self.send(id, from, PeerMessage::Introduce { digest, formed });
            }
            return;
        }
        if let Phase::Forming(forming) = &mut group.phase
            && forming.entry.is_none()
        {
            let is_news = forming.introduced.insert(from, said) != Some(said);
            if said.is_formed {
                self.send(id, from, PeerMessage::EntryOneRequest { digest: Some(digest) });
                return;
            }
            if is_news {
                // What this server said before the peer's host started the group was lost on it.
                self.introduce(id, from);
            }
            self.form_if_complete(id);
        }
    }

    /// Makes entry 1, if that falls to this server and everybody is there.
    pub(super) fn form_if_complete(&mut self, id: GroupId) {
        if !self.may_speak() {
            return;
        }
        let Some(Group { phase: Phase::Forming(forming), stopped: None, .. }) = self.groups.get(&id) else { return };
        if !forming.is_former(self.me.id) || forming.entry.is_some() {
            return;
        }
        let met = |peer| self.links.met(peer).map(|peer| peer.identity);
        let Some(mut identities) = forming.all_others(self.me.id, met) else { return };
        identities.insert(self.me.id, self.identity);
        let entry = forming.make_entry(&self.me.cluster, id, &identities);
        self.take_entry_one(id, entry);
    }

    pub(super) fn on_entry_one_request(&mut self, id: GroupId, from: ServerId, digest: Option<[u8; 32]>) {
        let Some(formed) = self.groups.get(&id).and_then(|group| group.formed()) else { return };
        if digest.is_none_or(|digest| digest == formed.digest) {
            let (lineage, entry) = (formed.lineage, formed.first_entry.clone());
            self.send(id, from, PeerMessage::EntryOne { lineage, entry });
        }
    }

    pub(super) fn on_entry_one(&mut self, id: GroupId, from: ServerId, entry: Entry, lineage: Lineage) {
        let Some(group) = self.groups.get(&id).filter(|group| group.stopped.is_none()) else { return };
        let Phase::Forming(forming) = &group.phase else { return self.join_by(id, from, entry, lineage) };
        if forming.entry.is_some() {
            return;
        }
        match forming.check_entry(&entry, self.me.id, self.identity) {
            Ok(()) => self.take_entry_one(id, entry),
            Err(reason) => self.on_formation_refused(id, from, reason),
        }
    }

    /// Appends entry 1. From here on it binds this server; it counts once it is durable.
    fn take_entry_one(&mut self, id: GroupId, entry: Entry) {
        let Some(Group { phase: Phase::Forming(forming), .. }) = self.groups.get_mut(&id) else { return };
        let Ok(first) = formation::read_entry(&entry) else { return };
        for member in first.into_configuration().members {
            self.bound.insert(member.id, member.identity);
        }
        let lineage = formation::lineage_of(&entry);
        let record = self.storage.append(Record::Entries { group: id, entries: vec![entry.clone()] });
        let record = self.storage.append(Record::Lineage { group: id, lineage }).max(record);
        forming.entry = Some(entry);
        self.forming_records.push((record, id));
    }

    /// Entry 1 is durable: the group runs.
    pub(super) fn formed(&mut self, now: Time, id: GroupId) {
        let options = self.core_options();
        let seed = self.random.u64(..);
        let Some(group) = self.groups.get_mut(&id) else { return };
        let (first_entry, lineage, waiting) = match &mut group.phase {
            Phase::Forming(forming) => {
                let Some(entry) = forming.entry.take() else { return };
                let lineage = formation::lineage_of(&entry);
                (entry, lineage, forming.others(self.me.id).map(|member| member.id).collect())
            }
            Phase::Joining(joining) => {
                let Some((entry, lineage)) = joining.entry.take() else { return };
                (entry, lineage, Vec::new())
            }
            Phase::Formed(_) => return,
        };
        let Ok(first) = formation::read_entry(&first_entry) else { return };
        let digest = first.digest();
        let restored = Restored {
            longest_lease: std::time::Duration::ZERO,
            hard_state: crate::types::HardState::default(),
            base: Position::default(),
            term_runs: vec![(first_entry.index, 0)],
            last: first_entry.index,
            last_log_time: first_entry.log_time,
            commit: first_entry.index,
            configurations: vec![(first_entry.index, first.into_configuration())],
            tail: vec![first_entry.clone()],
        };
        let waiting: Vec<ServerId> = waiting;
        let raft = Raft::new(self.me.id, options, restored, seed, now);
        group.phase = Phase::Formed(Box::new(Formed { raft, first_entry, lineage, digest }));
        group.recorded_commit = 1;
        self.effects.push(Effect::Notice(Notice::Formed { group: id }));
        self.know_members(id);
        waiting.into_iter().for_each(|peer| self.introduce(id, peer));
    }

    pub(super) fn on_formation_refused(&mut self, id: GroupId, from: ServerId, reason: String) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let refusal = match &mut group.phase {
            Phase::Forming(forming) => &mut forming.refusal,
            Phase::Joining(joining) => &mut joining.refusal,
            Phase::Formed(_) => return,
        };
        if refusal.as_ref() != Some(&reason) {
            *refusal = Some(reason.clone());
            self.effects.push(Effect::Notice(Notice::Refused { peer: Some(from), identity: None, reason }));
        }
    }
}
