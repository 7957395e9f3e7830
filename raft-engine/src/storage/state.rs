//! Everything that the log says but for entries' payloads: what a checkpoint holds, and what a replay gives.
//!
//! The writer applies each record here when it cuts it into a write; recovery applies the same records in the same
//! order. A checkpoint is this state encoded, so it states exactly what the segments before it hold, and recovery
//! compares the two.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::outline::LogOutline;
use super::record::{Control, StoredEntry};
use crate::codec;
use crate::types::{
    Configuration, Entry, EntryKind, FIRST_INDEX, GroupId, HardState, Identity, Incarnation, Index, Lineage,
    QuorumRecovery, SnapshotMeta, Term,
};

/// How many opens of the directory are remembered; a pair older than these proves nothing (docs/disk-format.md).
pub(super) const KEPT_INCARNATIONS: usize = 1024;

/// The state of the whole log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct State {
    pub(super) server: ServerState,
    pub(super) groups: BTreeMap<GroupId, GroupState>,
}

/// What belongs to no group.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct ServerState {
    /// The latest opens, oldest first.
    pub(super) incarnations: Vec<Incarnation>,
    /// The latest confirmed open of each peer.
    pub(super) peers: BTreeMap<Identity, Incarnation>,
}

/// What belongs to one group.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct GroupState {
    pub(super) hard_state: HardState,
    pub(super) first_entry: Option<StoredEntry>,
    pub(super) lineage: Option<Lineage>,
    pub(super) snapshot: Option<SnapshotMeta>,
    pub(super) outline: LogOutline,
    /// The highest commit hint.
    pub(super) commit: Index,
    /// The configuration entries behind the snapshot, ascending.
    pub(super) configurations: Vec<StoredEntry>,
    /// The longest lease of any configuration that was ever here, truncated since or not, in nanoseconds: a promise of it
    /// may still bind the server when it starts.
    pub(super) longest_lease: u64,
}

/// What a control record did to its group's log, for whoever keeps the places of entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LogChange {
    /// Nothing.
    None,
    /// The entries from here on are gone.
    Truncated { group: GroupId, from: Index },
    /// The entries through here are held by a snapshot, and the rest stays.
    Marked { group: GroupId, through: Index },
    /// A snapshot took the place of the whole log.
    Replaced { group: GroupId },
}

impl State {
    /// Applies a record that is not an entry. `Err` says how it does not fit what went before.
    pub(super) fn apply(&mut self, control: &Control) -> Result<LogChange, String> {
        match control {
            Control::Incarnation(incarnation) => {
                let last = self.server.incarnations.last().map_or(0, |last| last.number);
                if incarnation.number != last + 1 {
                    return Err(format!("incarnation {} after {last}", incarnation.number));
                }
                self.server.incarnations.push(*incarnation);
                let excess = self.server.incarnations.len().saturating_sub(KEPT_INCARNATIONS);
                self.server.incarnations.drain(..excess);
            }
            Control::PeerIncarnation { identity, incarnation } => {
                self.server.peers.insert(*identity, *incarnation);
            }
            Control::HardState { group, state } => self.group(*group).hard_state = *state,
            Control::Truncate { group, from } => {
                let state = self.group(*group);
                state.outline.truncate(*from)?;
                state.configurations.retain(|entry| entry.index < *from);
                return Ok(LogChange::Truncated { group: *group, from: *from });
            }
            Control::Commit { group, index } => {
                let state = self.group(*group);
                state.commit = state.commit.max(*index);
            }
            Control::Lineage { group, lineage } => self.group(*group).lineage = Some(*lineage),
            Control::Snapshot { group, meta, first_entry, lineage } => {
                let state = self.group(*group);
                let keeps = state.outline.mark(meta.position)?;
                state.saw(&meta.configuration);
                state.configurations.retain(|entry| keeps && entry.index > meta.position.index);
                state.commit = state.commit.max(meta.position.index);
                state.snapshot = Some(meta.clone());
                state.first_entry = Some(first_entry.clone());
                state.lineage = Some(*lineage);
                return Ok(match keeps {
                    true => LogChange::Marked { group: *group, through: meta.position.index },
                    false => LogChange::Replaced { group: *group },
                });
            }
        }
        Ok(LogChange::None)
    }

    /// The state of a group, from its first record on.
    pub(super) fn group(&mut self, group: GroupId) -> &mut GroupState {
        self.groups.entry(group).or_default()
    }

    /// The frames of a checkpoint: the server's state, then each group's.
    pub(super) fn frames(&self) -> Vec<Vec<u8>> {
        let groups = self.groups.iter().map(|(group, state)| codec::encode(&(*group, state)));
        std::iter::once(codec::encode(&self.server)).chain(groups).collect()
    }

    /// The state of these frames; `Err` says what is wrong with them.
    pub(super) fn from_frames<'a>(mut frames: impl Iterator<Item = &'a [u8]>) -> Result<Self, String> {
        let server = frames.next().ok_or("the checkpoint is empty")?;
        let server = codec::decode(server).map_err(|error| error.to_string())?;
        let groups =
            frames.map(|frame| codec::decode::<(GroupId, GroupState)>(frame).map_err(|error| error.to_string()));
        Ok(Self { server, groups: groups.collect::<Result<_, _>>()? })
    }
}

impl GroupState {
    fn saw(&mut self, configuration: &Configuration) {
        let lease = u64::try_from(configuration.settings.lease.as_nanos()).unwrap_or(u64::MAX);
        self.longest_lease = self.longest_lease.max(lease);
    }

    /// Applies an entry that continues the log. The payload is asked for only where the state keeps it.
    pub(super) fn apply_entry(
        &mut self,
        index: Index,
        term: Term,
        kind: EntryKind,
        entry: impl FnOnce() -> Entry,
    ) -> Result<(), String> {
        self.outline.push(index, term)?;
        if index == FIRST_INDEX {
            self.first_entry = Some(StoredEntry::from(&entry()));
        } else if matches!(kind, EntryKind::Configuration | EntryKind::Recovery) {
            let entry = entry();
            let configuration = match kind {
                EntryKind::Recovery => codec::decode(&entry.payload).map(|it: QuorumRecovery| it.configuration),
                _ => codec::decode(&entry.payload),
            };
            self.saw(&configuration.map_err(|error| format!("configuration {index}: {error}"))?);
            self.configurations.push(StoredEntry::from(&entry));
        }
        Ok(())
    }
}
