//! How a group comes to be: entry 1, and who may make it (docs/architecture.md, "Formation").
//!
//! Every initial member is started with the same arguments. The one with the lowest id makes entry 1, while it holds
//! accepted connections to all others at once and all have introduced themselves with the same digest of those arguments
//! and none has an entry 1 already; each other one takes it, byte for byte, from a member that has it. Entry 1 names
//! every member's identity, so that no wiped directory can take part under an old id. Until it is synced, a member
//! neither asks for nor grants a vote.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::MemberArgument;
use crate::codec;
use crate::types::{
    ClusterId, Configuration, Entry, EntryKind, FIRST_INDEX, GroupId, GroupSettings, Identity, Lineage, LogTime,
    Member, MemberRole, Position, ServerId,
};

/// The longest context of a member, in bytes.
pub(super) const MAX_CONTEXT_BYTES: usize = 1024;

/// What entry 1 says: the arguments of the bootstrap, and every member's identity.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct FirstEntry {
    cluster: ClusterId,
    group: GroupId,
    configuration: Configuration,
}

/// The arguments of a bootstrap, as far as the digest goes. Sorted by id.
#[derive(Serialize)]
struct Arguments<'a> {
    cluster: &'a ClusterId,
    group: GroupId,
    members: Vec<(ServerId, u8, &'a str, &'a [u8])>,
    settings: &'a GroupSettings,
}

/// What a member that introduced itself said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Introduction {
    pub(super) identity: Identity,
    pub(super) is_formed: bool,
}

/// A group that has no synced entry 1 yet.
#[derive(Debug)]
pub(super) struct Forming {
    /// As given, sorted by id.
    pub(super) members: Vec<MemberArgument>,
    /// As given.
    pub(super) settings: GroupSettings,
    /// Of cluster, group, members and settings.
    pub(super) digest: [u8; 32],
    /// Who said that it was started with the same arguments.
    pub(super) introduced: BTreeMap<ServerId, Introduction>,
    /// Entry 1, appended and not durable yet. From here on it binds, as far as this server is concerned.
    pub(super) entry: Option<Entry>,
    /// Why this server cannot form the group as it was started; the last reason heard.
    pub(super) refusal: Option<String>,
}

impl Forming {
    /// Checks the arguments of a bootstrap at server `me`.
    pub(super) fn new(
        cluster: &ClusterId,
        group: GroupId,
        me: ServerId,
        mut members: Vec<MemberArgument>,
        settings: GroupSettings,
    ) -> Result<Self, String> {
        members.sort_by_key(|member| member.id);
        if members.is_empty() {
            return Err("a group needs at least one member".into());
        }
        if members.iter().any(|member| member.id.0 == 0) {
            return Err("server id 0 is not an id: ids begin at 1".into());
        }
        if let Some(pair) = members.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(format!("server {} is named twice in the member list", pair[0].id));
        }
        if !members.iter().any(|member| member.id == me) {
            return Err(format!("the member list does not name this server ({me})"));
        }
        if let Some(member) = members.iter().find(|member| member.context.len() > MAX_CONTEXT_BYTES) {
            return Err(format!("the context of server {} is longer than {MAX_CONTEXT_BYTES} bytes", member.id));
        }
        if let Some(member) = members.iter().find(|member| member.address.is_empty() || member.address.len() > 512) {
            return Err(format!("the address of server {} must have 1 to 512 bytes", member.id));
        }
        let digest = digest(
            cluster,
            group,
            members.iter().map(|it| (it.id, it.priority, it.address.as_str(), it.context.as_slice())),
            &settings,
        );
        Ok(Self { members, settings, digest, introduced: BTreeMap::new(), entry: None, refusal: None })
    }

    /// Whether `me` is the one that makes entry 1.
    pub(super) fn is_former(&self, me: ServerId) -> bool {
        self.members[0].id == me
    }

    /// Everybody but `me`.
    pub(super) fn others(&self, me: ServerId) -> impl Iterator<Item = &MemberArgument> {
        self.members.iter().filter(move |member| member.id != me)
    }

    /// The identities of all others, if every one has introduced itself over a pair of connections that stands (as
    /// `connected` tells) and none has an entry 1.
    pub(super) fn all_others(
        &self,
        me: ServerId,
        connected: impl Fn(ServerId) -> Option<Identity>,
    ) -> Option<BTreeMap<ServerId, Identity>> {
        self.others(me)
            .map(|member| {
                let introduction = self.introduced.get(&member.id)?;
                let is_present = connected(member.id) == Some(introduction.identity) && !introduction.is_formed;
                is_present.then_some((member.id, introduction.identity))
            })
            .collect()
    }

    /// Makes entry 1.
    pub(super) fn make_entry(
        &self,
        cluster: &ClusterId,
        group: GroupId,
        identities: &BTreeMap<ServerId, Identity>,
    ) -> Entry {
        let members = self.members.iter().map(|member| Member {
            id: member.id,
            role: MemberRole::Voter,
            priority: member.priority,
            identity: identities[&member.id],
            address: member.address.clone(),
            context: member.context.clone(),
        });
        let highest_id = self.members[self.members.len() - 1].id;
        let configuration = Configuration {
            members: members.collect(),
            outgoing_voters: Vec::new(),
            highest_id,
            change: None,
            settings: self.settings.clone(),
        };
        let first = FirstEntry { cluster: cluster.clone(), group, configuration };
        let position = Position { term: 0, index: FIRST_INDEX };
        Entry::new(position, LogTime(0), EntryKind::Formation, Bytes::from(codec::encode(&first)))
    }

    /// Whether an entry 1 that a peer sent is the one of this group: same arguments, and this server's own identity.
    pub(super) fn check_entry(&self, entry: &Entry, me: ServerId, identity: Identity) -> Result<(), String> {
        let formed = read_entry(entry)?;
        if formed.digest() != self.digest {
            return Err(
                "the group was formed with other arguments (cluster, group or member list): start this server \
                        with the arguments of the others"
                    .into(),
            );
        }
        match formed.configuration.member(me) {
            Some(member) if member.identity == identity => Ok(()),
            _ => Err(format!(
                "the group was formed with another data directory under id {me}: this one is new or was wiped, and may \
                 have forgotten votes. Put the old directory back, or add this server under a new id"
            )),
        }
    }
}

impl FirstEntry {
    /// The digest of the arguments that made it.
    pub(super) fn digest(&self) -> [u8; 32] {
        let members = self.configuration.members.iter();
        digest(
            &self.cluster,
            self.group,
            members.map(|it| (it.id, it.priority, it.address.as_str(), it.context.as_slice())),
            &self.configuration.settings,
        )
    }

    /// The lease that the group was formed with.
    pub(super) fn lease(&self) -> std::time::Duration {
        self.configuration.settings.lease
    }

    /// Whether it is of the group that a server is to join.
    pub(super) fn check_join(&self, cluster: &ClusterId, group: GroupId) -> Result<(), String> {
        if self.cluster == *cluster && self.group == group {
            return Ok(());
        }
        let (theirs, of) = (self.group, &self.cluster);
        Err(format!("what was sent is entry 1 of group {theirs} of cluster \"{of}\", and not of group {group}"))
    }

    /// The first configuration.
    pub(super) fn into_configuration(self) -> Configuration {
        self.configuration
    }
}

/// Reads an entry 1.
pub(super) fn read_entry(entry: &Entry) -> Result<FirstEntry, String> {
    let is_first = entry.index == FIRST_INDEX && entry.term == 0 && entry.log_time == LogTime(0);
    if !is_first || entry.kind != EntryKind::Formation || !entry.is_intact() {
        return Err("what was sent as entry 1 is not one".into());
    }
    let first: FirstEntry =
        codec::decode(&entry.payload).map_err(|error| format!("entry 1 cannot be read: {error}"))?;
    let members = &first.configuration.members;
    if members.is_empty() || !members.is_sorted_by(|a, b| a.id < b.id) {
        return Err("entry 1 names no members, or not in order".into());
    }
    Ok(first)
}

/// The lineage that an entry 1 founds.
pub(super) fn lineage_of(entry: &Entry) -> Lineage {
    Lineage(Sha256::digest(&entry.payload).into())
}

fn digest<'a>(
    cluster: &ClusterId,
    group: GroupId,
    members: impl Iterator<Item = (ServerId, u8, &'a str, &'a [u8])>,
    settings: &'a GroupSettings,
) -> [u8; 32] {
    let arguments = Arguments { cluster, group, members: members.collect(), settings };
    Sha256::digest(codec::encode(&arguments)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(ids: &[u64]) -> Vec<MemberArgument> {
        let member = |&id: &u64| MemberArgument {
            id: ServerId(id),
            priority: 1,
            address: format!("host:{id}"),
            context: vec![1],
        };
        ids.iter().map(member).collect()
    }

    fn forming(ids: &[u64], me: u64) -> Forming {
        let cluster = ClusterId::new("c").expect("a name");
        Forming::new(&cluster, GroupId(1), ServerId(me), arguments(ids), GroupSettings::default())
            .expect("good arguments")
    }

    fn identities(ids: &[u64]) -> BTreeMap<ServerId, Identity> {
        ids.iter().map(|&id| (ServerId(id), Identity([id as u8; 16]))).collect()
    }

    #[test]
    fn the_order_of_the_member_list_does_not_matter() {
        assert_eq!(forming(&[3, 1, 2], 1).digest, forming(&[1, 2, 3], 2).digest);
        assert_ne!(forming(&[1, 2], 1).digest, forming(&[1, 2, 3], 1).digest);
        assert!(forming(&[3, 2], 2).is_former(ServerId(2)));
    }

    #[test]
    fn bad_arguments_are_refused() {
        let cluster = ClusterId::new("c").expect("a name");
        for (ids, me) in [(&[][..], 1), (&[0, 1][..], 1), (&[1, 1][..], 1), (&[2, 3][..], 1)] {
            let forming = Forming::new(&cluster, GroupId(1), ServerId(me), arguments(ids), GroupSettings::default());
            assert!(forming.is_err(), "{ids:?}");
        }
    }

    #[test]
    fn a_wiped_directory_does_not_fit_entry_1() {
        let forming = forming(&[1, 2, 3], 2);
        let cluster = ClusterId::new("c").expect("a name");
        let entry = forming.make_entry(&cluster, GroupId(1), &identities(&[1, 2, 3]));
        assert_eq!(forming.check_entry(&entry, ServerId(2), Identity([2; 16])), Ok(()));
        let refusal = forming.check_entry(&entry, ServerId(2), Identity([9; 16])).expect_err("another directory");
        assert!(refusal.contains("new id"), "{refusal}");
        let other = self::forming(&[1, 2], 2);
        assert!(other.check_entry(&entry, ServerId(2), Identity([2; 16])).is_err());
    }

    #[test]
    fn entry_1_waits_for_everybody_at_once() {
        let mut forming = forming(&[1, 2, 3], 1);
        let everybody = identities(&[1, 2, 3]);
        let connected = |id: ServerId| everybody.get(&id).copied();
        let introduction = |id: u8, is_formed| Introduction { identity: Identity([id; 16]), is_formed };
        forming.introduced.insert(ServerId(2), introduction(2, false));
        assert_eq!(forming.all_others(ServerId(1), connected), None, "3 is missing");
        forming.introduced.insert(ServerId(3), introduction(7, false));
        assert_eq!(forming.all_others(ServerId(1), connected), None, "3 introduced itself as somebody else");
        forming.introduced.insert(ServerId(3), introduction(3, false));
        assert!(forming.all_others(ServerId(1), connected).is_some());
        forming.introduced.insert(ServerId(2), introduction(2, true));
        assert_eq!(forming.all_others(ServerId(1), connected), None, "2 has an entry 1 already");
    }
}
