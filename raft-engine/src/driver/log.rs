//! The driver's side of the log: when a write is cut, and what follows from what storage says.

use std::collections::BTreeMap;

use super::{Driver, Effect, Notice, ReadPurpose, WATERMARK_AFTER};
use crate::storage::{ReadError, Record, RecordNumber, StorageEvent};
use crate::types::{GroupId, Time};

impl Driver {
    /// Cuts writes, as many as may be in flight. Commit indexes ride along: they let the next start apply at once.
    pub(super) fn write_log(&mut self, now: Time) {
        if self.storage.pending_bytes() > 0 {
            for id in self.unrecorded_commits.drain(..) {
                let Some(group) = self.groups.get_mut(&id) else { continue };
                group.is_commit_unrecorded = false;
                if let Some(commit) = group.formed().map(|formed| formed.raft.commit_index()) {
                    self.storage.append(Record::Commit { group: id, index: commit });
                    group.recorded_commit = commit;
                }
            }
        }
        while self.storage.writes_in_flight() < self.settings.writes_in_flight && self.storage.cut().is_some() {
            self.log_writes += 1;
            self.write_began.get_or_insert(now);
        }
        if !self.storage.watermark_due() {
            self.idle_since = None;
        } else if now >= *self.idle_since.get_or_insert(now) + WATERMARK_AFTER {
            self.storage.cut_watermark();
            self.idle_since = None;
        }
    }

    /// Notes that a group has committed more than the log says.
    pub(super) fn note_commit(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let is_news = group.formed().is_some_and(|formed| formed.raft.commit_index() > group.recorded_commit);
        if is_news && !std::mem::replace(&mut group.is_commit_unrecorded, true) {
            self.unrecorded_commits.push(id);
        }
    }

    pub(super) fn take_disk_work(&mut self, now: Time) {
        self.on_storage_events(now);
        for (id, work) in self.storage.take_work() {
            self.effects.push(Effect::Disk { id, work });
        }
    }

    pub(super) fn on_storage_events(&mut self, now: Time) {
        for event in self.storage.take_events() {
            match event {
                StorageEvent::Ready => self.on_ready(),
                StorageEvent::Written { through, .. } => self.on_written(now, through),
                StorageEvent::EntriesRead { token, entries, .. } => match self.reads.waiting.remove(&token) {
                    Some(ReadPurpose::Apply(id)) => match entries {
                        Ok(entries) => self.entries_to_deliver(id, entries),
                        // A snapshot took the place of the log meanwhile: what is to be delivered now is another range.
                        Err(ReadError::Changed { .. }) => self.entries_to_deliver(id, Vec::new()),
                        Err(error) => {
                            self.stop_group(id, format!("entries to apply cannot be read: {error}"));
                        }
                    },
                    Some(ReadPurpose::Fetch(id, to)) => {
                        if let Some(group) = self.groups.get_mut(&id) {
                            match entries {
                                Ok(entries) => group.run(|raft| raft.fetched(now, to, entries)),
                                Err(_) => group.run(|raft| raft.fetch_failed(now, to)),
                            };
                        }
                    }
                    Some(ReadPurpose::Chunk(..)) | None => {}
                },
                StorageEvent::SnapshotRead { token, offset, bytes, .. } => {
                    if let Some(ReadPurpose::Chunk(id, to, number)) = self.reads.waiting.remove(&token) {
                        self.chunk_read(now, id, to, number, offset, bytes.ok());
                    }
                }
                StorageEvent::SnapshotProgress { group, origin, file_bytes } => {
                    self.on_snapshot_progress(group, origin, file_bytes);
                }
                StorageEvent::SnapshotStored { group, origin, meta, first_entry, lineage, file } => {
                    self.on_snapshot_stored(now, group, origin, meta, first_entry, lineage, file);
                }
                StorageEvent::SnapshotFailed { group, origin, error } => {
                    self.on_snapshot_not_stored(now, group, origin, error.to_string());
                }
                StorageEvent::DirectoryRefused => {}
                StorageEvent::Room { has_room } => {
                    let message = if has_room {
                        "the disk has room again: proposals are taken"
                    } else {
                        "the disk is full: proposals are refused until there is room"
                    };
                    self.effects.push(Effect::Notice(Notice::Warning { message: message.into() }));
                }
                StorageEvent::Failed { error } => self.stop_server(error.to_string()),
            }
        }
    }

    fn on_ready(&mut self) {
        self.is_ready = true;
        self.groups.ids().into_iter().for_each(|id| self.form_if_complete(id));
    }

    /// Broadcast and sync must be short against the election timeout (§5.6): the host is told when they take a third of
    /// it, and may be told again once they took a sixth.
    fn warn_of_slowness(&mut self) {
        let round_trip = self.links.shortest_handshake.unwrap_or_default() / 2;
        let (taken, timeout) = (round_trip + self.sync_time, self.settings.election_timeout);
        if taken < timeout / 6 {
            self.is_warned_of_slowness = false;
        } else if taken > timeout / 3 && !std::mem::replace(&mut self.is_warned_of_slowness, true) {
            let message = format!(
                "a round trip ({round_trip:?}) and a log write ({:?}) take more than a third of the election timeout \
                 ({timeout:?}): leaders will be deposed for nothing. Raise election_timeout_ms on every server",
                self.sync_time
            );
            self.effects.push(Effect::Notice(Notice::Warning { message }));
        }
    }

    /// Everything through this record is on this server's disk.
    fn on_written(&mut self, now: Time, through: RecordNumber) {
        if let Some(began) = self.write_began.take() {
            self.sync_time = (3 * self.sync_time + now.since(began)) / 4;
            self.warn_of_slowness();
        }
        let formed: Vec<_> = self.forming_records.extract_if(.., |(record, _)| *record <= through).collect();
        for (_, id) in formed {
            self.formed(now, id);
        }
        let mut durable = BTreeMap::new();
        while let Some((_, id, mark)) = self.marks.pop_front_if(|(record, ..)| *record <= through) {
            durable.insert(id, mark);
        }
        for (id, mark) in durable {
            if let Some(group) = self.groups.get_mut(&id) {
                group.run(|raft| raft.persisted(now, mark));
            }
        }
        self.snapshot_marks_durable(through);
    }
}
