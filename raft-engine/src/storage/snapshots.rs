//! Snapshots being stored: written by the host or received from a leader, verified, and given their names.
//!
//! Temporary file, sync, read back and verify, rename, sync the directory; then the driver appends the mark, and when
//! that is durable it compacts. Snapshot files have their own completions and never fail the log.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::error::{ReadError, SnapshotError};
use super::events::{ReadToken, SnapshotHead, SnapshotOrigin, StorageEvent};
use super::log::Storage;
use super::snapshot_file::{
    FileHead, SnapshotKey, SnapshotReader, encode_blocks, encode_footer, encode_header, incoming_name, snapshot_name,
};
use super::work::{Purpose, StoringStep};
use crate::types::{
    DiskDone, DiskError, DiskStep, DiskWork, FileName, GroupId, Position, SnapshotMeta, SnapshotSection,
};

/// How much is read back at once, in bytes.
const VERIFY_BYTES: u64 = 1 << 20;

/// Snapshots of all groups.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    last_attempt: u64,
    storing: BTreeMap<(GroupId, SnapshotOrigin), Storing>,
    /// What has its name, marked or not.
    stored: BTreeMap<GroupId, BTreeSet<SnapshotKey>>,
    /// What an earlier open had received of a leader's snapshot, and how many bytes are there of it.
    interrupted: BTreeMap<GroupId, (FileName, u64)>,
}

/// One snapshot on its way to its name.
#[derive(Debug)]
struct Storing {
    attempt: u64,
    temporary: FileName,
    /// What a leader said of the file; `None` for the host's own.
    announced: Option<SnapshotMeta>,
    /// The bytes handed to the disk, and their CRC.
    file_bytes: u64,
    crc: u32,
    /// The host's bytes among them.
    data_bytes: u64,
    is_finished: bool,
    verified: Verification,
}

/// The file read back so far.
#[derive(Debug)]
struct Verification {
    reader: SnapshotReader,
    offset: u64,
    crc: u32,
}

impl Snapshots {
    /// Notes what recovery found of a snapshot that was being received. Returns another one of the group's, which goes.
    pub(super) fn found_interrupted(&mut self, group: GroupId, file: FileName, bytes: u64) -> Option<FileName> {
        self.interrupted.insert(group, (file, bytes)).map(|(other, _)| other)
    }

    /// Notes a snapshot that recovery verified.
    pub(super) fn found(&mut self, group: GroupId, key: SnapshotKey) {
        self.stored.entry(group).or_default().insert(key);
    }
}

impl Storage {
    /// Starts the file of a snapshot that the host writes, in place of one that is under way:
    /// [`StorageEvent::SnapshotProgress`] follows, or [`StorageEvent::SnapshotFailed`] where the log already has one as
    /// far.
    pub fn begin_snapshot(&mut self, group: GroupId, head: SnapshotHead) {
        let header = encode_header(&FileHead::new(group, &head));
        self.begin_storing(group, SnapshotOrigin::Host, head.position, None, header);
    }

    /// The next bytes of this server's own snapshot, section by section: [`StorageEvent::SnapshotProgress`] follows, once a
    /// call. Dropped where none is under way any more.
    pub fn snapshot_chunk(&mut self, group: GroupId, section: SnapshotSection, bytes: Bytes) {
        let Some(storing) = self.snapshots.storing.get_mut(&(group, SnapshotOrigin::Host)) else { return };
        if section == SnapshotSection::Host {
            storing.data_bytes += bytes.len() as u64;
        }
        self.store(group, SnapshotOrigin::Host, encode_blocks(section, &bytes));
    }

    /// The host's snapshot is complete: [`StorageEvent::SnapshotStored`] follows.
    pub fn finish_snapshot(&mut self, group: GroupId) {
        let Some(storing) = self.snapshots.storing.get_mut(&(group, SnapshotOrigin::Host)) else { return };
        storing.is_finished = true;
        let footer = encode_footer(storing.data_bytes);
        self.store(group, SnapshotOrigin::Host, footer);
    }

    /// Starts to receive a snapshot file from a leader, as its sender's meta describes it. The same one goes on where
    /// it is ([`Storage::received_bytes`]); another one under way is dropped.
    pub fn begin_receive(&mut self, group: GroupId, meta: SnapshotMeta) {
        if self.received_bytes(group, &meta).is_some() {
            return;
        }
        let name = incoming_name(group, &meta);
        match self.snapshots.interrupted.remove(&group) {
            Some((file, bytes)) if file == name && bytes <= meta.file_bytes => {
                return self.resume_receive(group, bytes, meta);
            }
            Some((file, _)) => self.work.remove([file]),
            None => {}
        }
        self.begin_storing(group, SnapshotOrigin::Peer, meta.position, Some(meta), Bytes::new());
    }

    /// Goes on where an earlier open of this directory was interrupted. What it left is held against the announced CRC
    /// once all has come, as everything is.
    fn resume_receive(&mut self, group: GroupId, bytes: u64, meta: SnapshotMeta) {
        let is_finished = bytes == meta.file_bytes;
        let temporary = incoming_name(group, &meta);
        self.insert_storing(group, SnapshotOrigin::Peer, temporary, Some(meta), (bytes, 0));
        if is_finished && let Some(storing) = self.snapshots.storing.get_mut(&(group, SnapshotOrigin::Peer)) {
            storing.is_finished = true;
            self.store(group, SnapshotOrigin::Peer, Bytes::new());
        }
    }

    /// The next raw bytes of the file, with their CRC32C. When the last byte that the meta names has come, the file is
    /// verified and stored: [`StorageEvent::SnapshotProgress`] and, at the end, [`StorageEvent::SnapshotStored`]
    /// follow.
    ///
    /// # Errors
    /// Nothing was taken: no such snapshot is under way, the chunk does not continue it, or it is damaged.
    pub fn receive_chunk(&mut self, group: GroupId, offset: u64, bytes: Bytes, crc: u32) -> Result<(), SnapshotError> {
        let storing = self.snapshots.storing.get_mut(&(group, SnapshotOrigin::Peer));
        let Some((storing, announced)) = storing
            .and_then(|storing| storing.announced.as_ref().map(|meta| meta.file_bytes).map(|all| (storing, all)))
        else {
            return Err(SnapshotError::NotBegun { group });
        };
        if offset != storing.file_bytes {
            return Err(SnapshotError::OutOfOrder { group, expected: storing.file_bytes, offset });
        }
        if bytes.len() as u64 > announced - offset || crc32c::crc32c(&bytes) != crc {
            return Err(SnapshotError::Damaged { group, what: format!("the chunk at {offset} does not fit") });
        }
        storing.is_finished = offset + bytes.len() as u64 == announced;
        self.store(group, SnapshotOrigin::Peer, bytes);
        Ok(())
    }

    /// How much of a snapshot being received has come: where its sender should go on. `None` if none is under way or
    /// it is another one.
    pub fn received_bytes(&self, group: GroupId, meta: &SnapshotMeta) -> Option<u64> {
        let storing = self.snapshots.storing.get(&(group, SnapshotOrigin::Peer))?;
        (storing.announced.as_ref() == Some(meta)).then_some(storing.file_bytes)
    }

    /// Drops a snapshot under way, if there is one. No event follows.
    pub fn abort_snapshot(&mut self, group: GroupId, origin: SnapshotOrigin) {
        if let Some(storing) = self.snapshots.storing.remove(&(group, origin)) {
            self.work.remove([storing.temporary]);
        }
    }

    /// Reads raw bytes of a stored snapshot of the group, for sending: [`StorageEvent::SnapshotRead`] follows. The meta
    /// is what [`Storage::snapshot`] said when the sending began; once a newer mark has taken its place, the answer is
    /// [`ReadError::Changed`].
    pub fn read_snapshot(&mut self, token: ReadToken, group: GroupId, meta: &SnapshotMeta, offset: u64, length: usize) {
        let key = SnapshotKey::from(meta);
        if !self.is_stored(group, key) {
            let bytes = Err(ReadError::Changed { group });
            self.events.push(StorageEvent::SnapshotRead { token, group, offset, bytes });
            return;
        }
        let purpose = Purpose::SnapshotRead { token, group, key, offset };
        self.work.submit(DiskWork::Read { file: snapshot_name(group, key), offset, length }, purpose);
    }

    /// What the group's latest snapshot stands for whose mark was cut into a write, and its file.
    pub fn snapshot(&self, group: GroupId) -> Option<(&SnapshotMeta, FileName)> {
        let meta = self.state.groups.get(&group)?.snapshot.as_ref()?;
        Some((meta, snapshot_name(group, meta.into())))
    }

    /// Forgets the entries that the group's latest durable snapshot mark stands for, and removes older snapshot files.
    pub fn compact(&mut self, group: GroupId) {
        let Some(log) = self.groups.get_mut(&group) else { return };
        let Some(marked) = log.marked else { return };
        log.places.compact(marked.index, &mut self.live);
        log.readable_from = log.readable_from.max(marked.index + 1);
        if let Some(stored) = self.snapshots.stored.get_mut(&group) {
            let is_old = |key: &SnapshotKey| key.index <= marked.index && *key != marked;
            self.work.remove(stored.iter().filter(|key| is_old(key)).map(|&key| snapshot_name(group, key)));
            stored.retain(|key| !is_old(key));
        }
    }

    fn is_stored(&self, group: GroupId, key: SnapshotKey) -> bool {
        self.snapshots.stored.get(&group).is_some_and(|stored| stored.contains(&key))
    }

    fn begin_storing(
        &mut self,
        group: GroupId,
        origin: SnapshotOrigin,
        position: Position,
        announced: Option<SnapshotMeta>,
        header: Bytes,
    ) {
        self.abort_snapshot(group, origin);
        let marked = self.snapshot(group).map_or(0, |(meta, _)| meta.position.index);
        if position.index <= marked {
            let what = format!("it ends at {}, and the log has one that ends at {marked}", position.index);
            let error = SnapshotError::Damaged { group, what };
            self.events.push(StorageEvent::SnapshotFailed { group, origin, error });
            return;
        }
        let temporary = match &announced {
            Some(meta) => incoming_name(group, meta),
            None => FileName(format!("snapshot-new-{}-{}", self.incarnation, self.snapshots.last_attempt + 1)),
        };
        let begun = (header.len() as u64, crc32c::crc32c(&header));
        let attempt = self.insert_storing(group, origin, temporary.clone(), announced, begun);
        let create = DiskStep::Create { file: temporary, data: header };
        let purpose = Purpose::Storing { group, origin, attempt, step: StoringStep::Write };
        self.work.submit(DiskWork::Job(vec![create]), purpose);
    }

    /// A file is under way, of which so many bytes of this CRC are handed to the disk.
    fn insert_storing(
        &mut self,
        group: GroupId,
        origin: SnapshotOrigin,
        temporary: FileName,
        announced: Option<SnapshotMeta>,
        (file_bytes, crc): (u64, u32),
    ) -> u64 {
        self.snapshots.last_attempt += 1;
        let attempt = self.snapshots.last_attempt;
        let verified = Verification { reader: SnapshotReader::new(group), offset: 0, crc: 0 };
        let storing =
            Storing { attempt, temporary, announced, file_bytes, crc, data_bytes: 0, is_finished: false, verified };
        self.snapshots.storing.insert((group, origin), storing);
        attempt
    }

    /// Appends bytes to the temporary file, and syncs it if they are the last ones.
    fn store(&mut self, group: GroupId, origin: SnapshotOrigin, data: Bytes) {
        let Some(storing) = self.snapshots.storing.get_mut(&(group, origin)) else { return };
        let (file, offset) = (storing.temporary.clone(), storing.file_bytes);
        storing.file_bytes += data.len() as u64;
        storing.crc = crc32c::crc32c_append(storing.crc, &data);
        let attempt = storing.attempt;
        let mut steps = Vec::new();
        if !data.is_empty() {
            steps.push(DiskStep::Write { file: file.clone(), offset, data });
        }
        let step = match storing.is_finished {
            true => {
                steps.push(DiskStep::Sync { file });
                StoringStep::Sync
            }
            false => StoringStep::Write,
        };
        self.work.submit(DiskWork::Job(steps), Purpose::Storing { group, origin, attempt, step });
    }

    pub(super) fn complete_storing(
        &mut self,
        group: GroupId,
        origin: SnapshotOrigin,
        attempt: u64,
        step: StoringStep,
        result: Result<DiskDone, DiskError>,
    ) {
        let key = (group, origin);
        let Some(storing) = self.snapshots.storing.get_mut(&key).filter(|storing| storing.attempt == attempt) else {
            return;
        };
        let next = match (step, result) {
            (_, Err(error)) => Err(error.into()),
            (StoringStep::Write, Ok(_)) => {
                let file_bytes = storing.file_bytes;
                self.events.push(StorageEvent::SnapshotProgress { group, origin, file_bytes });
                return;
            }
            (StoringStep::Sync, Ok(_)) => Ok(false),
            (StoringStep::Verify, Ok(DiskDone::Read(bytes))) => storing.verify(group, bytes),
            (StoringStep::Verify, Ok(DiskDone::Done)) => storing.verify(group, Bytes::new()),
            (StoringStep::Rename, Ok(_)) => return self.stored(group, origin),
        };
        match next {
            Err(error) => {
                self.abort_snapshot(group, origin);
                self.events.push(StorageEvent::SnapshotFailed { group, origin, error });
            }
            Ok(false) => {
                let (file, offset) = (storing.temporary.clone(), storing.verified.offset);
                let length = VERIFY_BYTES.min(storing.file_bytes - offset) as usize;
                let purpose = Purpose::Storing { group, origin, attempt, step: StoringStep::Verify };
                self.work.submit(DiskWork::Read { file, offset, length }, purpose);
            }
            Ok(true) => {
                let Some(head) = storing.verified.reader.head() else { return };
                let key = SnapshotKey::from(&head.meta(storing.file_bytes, storing.expected_crc()));
                let rename = DiskStep::Rename { from: storing.temporary.clone(), to: snapshot_name(group, key) };
                let purpose = Purpose::Storing { group, origin, attempt, step: StoringStep::Rename };
                self.work.submit(DiskWork::Job(vec![rename, DiskStep::SyncDirectory]), purpose);
            }
        }
    }

    fn stored(&mut self, group: GroupId, origin: SnapshotOrigin) {
        let Some(storing) = self.snapshots.storing.remove(&(group, origin)) else { return };
        let Some(head) = storing.verified.reader.head() else { return };
        let Some(first_entry) = head.first_entry() else { return };
        let meta = head.meta(storing.file_bytes, storing.expected_crc());
        let key = SnapshotKey::from(&meta);
        let lineage = head.lineage;
        self.snapshots.found(group, key);
        let file = snapshot_name(group, key);
        self.events.push(StorageEvent::SnapshotStored { group, origin, meta, first_entry, lineage, file });
    }

    pub(super) fn complete_snapshot_read(
        &mut self,
        token: ReadToken,
        group: GroupId,
        key: SnapshotKey,
        offset: u64,
        result: Result<DiskDone, DiskError>,
    ) {
        let bytes = match result {
            Ok(DiskDone::Read(bytes)) => Ok(bytes),
            Ok(DiskDone::Done) => Ok(Bytes::new()),
            Err(_) if !self.is_stored(group, key) => Err(ReadError::Changed { group }),
            Err(error) => Err(ReadError::Storage(error.into())),
        };
        self.events.push(StorageEvent::SnapshotRead { token, group, offset, bytes });
    }
}

impl Storing {
    /// What the CRC of the whole file must be: as a leader announced, or of what was handed to the disk.
    fn expected_crc(&self) -> u32 {
        self.announced.as_ref().map_or(self.crc, |meta| meta.file_crc)
    }

    /// Verifies a piece read back. `Ok(true)`: it was the last one, and the file is what it should be.
    fn verify(&mut self, group: GroupId, bytes: Bytes) -> Result<bool, SnapshotError> {
        let damaged = |what: &str| Err(SnapshotError::Damaged { group, what: what.into() });
        if bytes.is_empty() {
            return damaged("the file is shorter than what was written");
        }
        self.verified.offset += bytes.len() as u64;
        self.verified.crc = crc32c::crc32c_append(self.verified.crc, &bytes);
        self.verified.reader.push(bytes)?;
        if self.verified.offset < self.file_bytes {
            return Ok(false);
        }
        self.verified.reader.finish()?;
        if self.verified.crc != self.expected_crc() {
            return damaged("what was read back is not what was written");
        }
        let found = self.verified.reader.head().map(|head| head.meta(self.file_bytes, self.expected_crc()));
        if self.announced.is_some() && self.announced != found {
            return damaged("it is not the one that its sender announced");
        }
        Ok(true)
    }
}
