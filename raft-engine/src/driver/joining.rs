//! A server that joins a group which runs elsewhere.
//!
//! It is started with the addresses of some members and nothing else, and waits to be added. Whoever of the group it
//! meets, at one of these addresses or because the leader dialled it, hands it entry 1 and the group's lineage; once these
//! are on its disk it is a server without a log, and its leader brings it the rest.

use super::group::{Group, Phase};
use super::{Driver, formation};
use crate::storage::Record;
use crate::transport::PeerMessage;
use crate::types::{Entry, GroupId, Lineage, ServerId};

/// A group that this server is to join.
#[derive(Debug, Default)]
pub(super) struct Joining {
    /// Entry 1 and the group's lineage, appended and not durable yet. From here on they bind this server.
    pub(super) entry: Option<(Entry, Lineage)>,
    /// Why this server cannot join as it was started; the last reason heard.
    pub(super) refusal: Option<String>,
}

impl Driver {
    /// Asks a peer for entry 1, if a group here is to be joined.
    pub(super) fn ask_to_join(&mut self, id: GroupId, peer: ServerId) {
        if let Some(Group { phase: Phase::Joining(Joining { entry: None, .. }), stopped: None, .. }) =
            self.groups.get(&id)
        {
            self.send(id, peer, PeerMessage::EntryOneRequest { digest: None });
        }
    }

    /// A member handed entry 1 to this server, which joins.
    pub(super) fn join_by(&mut self, id: GroupId, from: ServerId, entry: Entry, lineage: Lineage) {
        let checked = formation::read_entry(&entry).and_then(|first| first.check_join(&self.me.cluster, id));
        if let Err(reason) = checked {
            return self.on_formation_refused(id, from, reason);
        }
        let Some(Group { phase: Phase::Joining(joining), .. }) = self.groups.get_mut(&id) else { return };
        if joining.entry.is_some() {
            return;
        }
        let record = self.storage.append(Record::Entries { group: id, entries: vec![entry.clone()] });
        let record = self.storage.append(Record::Lineage { group: id, lineage }).max(record);
        joining.entry = Some((entry, lineage));
        self.forming_records.push((record, id));
    }

    /// Whether any group waits to be joined.
    pub(super) fn is_joining(&self) -> bool {
        self.groups.values().any(|group| matches!(group.phase, Phase::Joining(_)))
    }
}
