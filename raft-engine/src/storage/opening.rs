//! Opening a directory: from what recovery found to a writer that makes it durable, and the report to the driver.

use bytes::Bytes;

use super::error::StorageError;
use super::events::{Recovered, RecoveredGroup, StorageOptions};
use super::group::GroupLog;
use super::log::{ActiveSegment, Storage};
use super::manifest::{Manifest, manifest_name};
use super::places::Run;
use super::reads::pieces;
use super::record::Control;
use super::recovery::{Directory, Found, corrupt, recover};
use super::segment::{BLOCK_BYTES, segment_name};
use super::snapshot_file::{SnapshotKey, incoming_group, snapshot_name};
use super::state::{GroupState, KEPT_INCARNATIONS};
use super::work::Purpose;
use crate::types::{
    ClusterId, DiskError, DiskStep, DiskWork, Entry, FileName, GroupId, Identity, Incarnation, LogTime, ReadFiles,
    ServerId,
};

/// Bounds of [`StorageOptions::segment_bytes`].
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = (64 << 10)..=(2 << 30);

/// Bounds of [`StorageOptions::batch_bytes`].
const BATCH_BYTES: std::ops::RangeInclusive<usize> = 1..=(64 << 20);

/// What a manifest tells to whoever does not know whose directory it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// The cluster that its server belongs to.
    pub cluster: ClusterId,
    /// The server's id.
    pub server: ServerId,
    /// The length of its shortest segment, in bytes: that of files kept for the next ones.
    pub segment_bytes: u64,
}

impl Storage {
    /// Whose data directory this is; `None` if it has no manifest. Reads only.
    ///
    /// # Errors
    /// The manifest is damaged or of a newer version, or cannot be read.
    pub fn owner(files: &mut dyn ReadFiles) -> Result<Option<Owner>, StorageError> {
        let listed = files.list()?;
        let Some((file, length)) = listed.iter().find(|(file, _)| *file == manifest_name()) else { return Ok(None) };
        let manifest = Manifest::decode(&files.read(file, 0, *length as usize)?)?;
        let segment_bytes = manifest.segments.iter().map(|segment| segment.bytes).min();
        let segment_bytes = segment_bytes.unwrap_or(*SEGMENT_BYTES.start());
        Ok(Some(Owner { cluster: manifest.cluster, server: manifest.server, segment_bytes }))
    }

    /// Opens a data directory: an empty one is made into a new server's (with an identity from `entropy`), any other is
    /// recovered. Reads only, and waits for it; what must be written is queued as work. `entropy` must be fresh random
    /// bytes: nonces and segment identities come from it.
    ///
    /// # Errors
    /// The directory is damaged, refused, another server's or a newer version's, or cannot be read. No byte of it was
    /// changed.
    pub fn open(
        options: StorageOptions,
        files: &mut dyn ReadFiles,
        entropy: [u8; 32],
    ) -> Result<(Self, Recovered), StorageError> {
        check(&options)?;
        let [identity, rest] = [0, 16].map(|at| std::array::from_fn::<u8, 16, _>(|byte| entropy[at + byte]));
        let [seed, nonce] =
            [0, 8].map(|at| u64::from_le_bytes(std::array::from_fn::<u8, 8, _>(|byte| rest[at + byte])));
        let random = fastrand::Rng::with_seed(seed);
        let found = match recover(files, &options)? {
            Directory::Known(found) => found,
            Directory::New { leftovers } => {
                let manifest = Manifest {
                    cluster: options.cluster.clone(),
                    server: options.server,
                    identity: Identity(identity),
                    refused: None,
                    segments: Vec::new(),
                };
                let mut storage = Self::new(options, random, manifest);
                storage.work.remove(leftovers);
                let incarnation = storage.begin_incarnation(nonce);
                storage.create_first_segment();
                let recovered = storage.report(files, incarnation, None)?;
                return Ok((storage, recovered));
            }
        };
        let Found { manifest, log, end, is_torn, tail, spares, mut leftovers, incoming } = *found;
        let mut storage = Self::new(options, random, manifest);
        storage.state = log.state;
        storage.live = log.live;
        storage.next_sequence = log.next_sequence;
        let mut places = log.places;
        for (&group, state) in &storage.state.groups {
            let places = places.remove(&group).unwrap_or_default();
            let marked = state.snapshot.as_ref().map(SnapshotKey::from);
            storage.groups.insert(group, GroupLog::recovered(state.outline.clone(), places, marked));
            marked.into_iter().for_each(|key| storage.snapshots.found(group, key));
        }
        let Some(last) = storage.manifest.segments.last() else {
            unreachable!("recovery refuses a manifest without segments");
        };
        let (id, bytes) = (last.id(), last.bytes);
        storage.active = ActiveSegment { id, bytes, offset: end, synced: end, named: tail.0, content_end: end };
        for (file, bytes) in spares {
            storage.switching.adopt_spare(file, bytes);
        }
        for (file, bytes) in incoming {
            let other = match incoming_group(&file).filter(|group| storage.state.groups.contains_key(group)) {
                Some(group) => storage.snapshots.found_interrupted(group, file, bytes),
                None => Some(file),
            };
            leftovers.extend(other);
        }
        let incarnation = storage.begin_incarnation(nonce);
        storage.submit_recovery(tail, leftovers);
        let cut = is_torn.then(|| (segment_name(id.number), end));
        let recovered = storage.report(files, incarnation, cut)?;
        Ok((storage, recovered))
    }

    /// The record of this open is the first of all.
    fn begin_incarnation(&mut self, nonce: u64) -> Incarnation {
        let last = self.state.server.incarnations.last().map_or(0, |last| last.number);
        let incarnation = Incarnation { number: last + 1, nonce };
        self.incarnation = incarnation.number;
        self.append_control(Control::Incarnation(incarnation));
        incarnation
    }

    /// Makes durable what recovery kept, whatever of it was only in the system's cache: the tail is rewritten in place
    /// byte for byte, nothing old stays behind it, and the names that were relied on are synced. Doing it twice, or half
    /// and then again, changes nothing.
    fn submit_recovery(&mut self, (from, tail): (u64, Bytes), leftovers: Vec<FileName>) {
        let file = segment_name(self.active.id.number);
        let mut steps = Vec::new();
        if !tail.is_empty() {
            steps.push(DiskStep::Write { file: file.clone(), offset: from, data: tail });
        }
        let (offset, length) = (self.active.offset, self.active.bytes - self.active.offset);
        if length > 0 {
            steps.push(DiskStep::WriteZeros { file: file.clone(), offset, length });
        }
        steps.push(DiskStep::Sync { file });
        steps.push(DiskStep::SyncDirectory);
        self.work.submit(DiskWork::Job(steps), Purpose::Recovery);
        self.leftovers = leftovers;
    }

    pub(super) fn complete_recovery(&mut self, result: Result<(), DiskError>) {
        if let Err(error) = result {
            return self.fail(error.into());
        }
        let leftovers = std::mem::take(&mut self.leftovers);
        self.recovered(leftovers);
    }

    fn report(
        &self,
        files: &mut dyn ReadFiles,
        incarnation: Incarnation,
        cut: Option<(FileName, u64)>,
    ) -> Result<Recovered, StorageError> {
        let mut history = self.state.server.incarnations.clone();
        history.push(incarnation);
        history.drain(..history.len().saturating_sub(KEPT_INCARNATIONS));
        let budget = self.options.tail_bytes / self.state.groups.len().max(1);
        let mut groups = Vec::with_capacity(self.state.groups.len());
        for (&group, state) in &self.state.groups {
            groups.push(self.report_group(files, group, state, budget)?);
        }
        Ok(Recovered {
            identity: self.manifest.identity,
            incarnation,
            history,
            peers: self.state.server.peers.clone(),
            groups,
            cut,
        })
    }

    fn report_group(
        &self,
        files: &mut dyn ReadFiles,
        group: GroupId,
        state: &GroupState,
        budget: usize,
    ) -> Result<RecoveredGroup, StorageError> {
        let tail = self.read_tail(files, group, budget)?;
        let snapshot = state.snapshot.as_ref();
        let last = state.outline.last_position();
        let entries = |stored: &super::record::StoredEntry| {
            let what = format!("entry {} of group {group} in the checkpoint is damaged", stored.index);
            stored.entry().ok_or_else(|| corrupt(&segment_name(self.active.id.number), BLOCK_BYTES, what))
        };
        Ok(RecoveredGroup {
            group,
            hard_state: state.hard_state,
            first_entry: state.first_entry.as_ref().map(entries).transpose()?,
            lineage: state.lineage,
            snapshot: snapshot.map(|meta| (meta.clone(), snapshot_name(group, meta.into()))),
            term_runs: state.outline.runs().to_vec(),
            last,
            last_log_time: match tail.last() {
                Some(entry) => entry.log_time,
                None => snapshot.map_or(LogTime(0), |meta| meta.log_time),
            },
            commit: state.commit.max(state.outline.snapshot().index).min(last.index),
            configurations: state.configurations.iter().map(entries).collect::<Result<_, _>>()?,
            longest_lease: std::time::Duration::from_nanos(state.longest_lease),
            tail,
        })
    }

    /// The last entries of a group: at least one, where the live log is not empty, then as many as fit the budget.
    fn read_tail(&self, files: &mut dyn ReadFiles, group: GroupId, budget: usize) -> Result<Vec<Entry>, StorageError> {
        let Some(log) = self.groups.get(&group) else { return Ok(Vec::new()) };
        let mut runs: Vec<Run> = Vec::new();
        let mut bytes = 0;
        for run in log.places.runs().rev() {
            if bytes + run.bytes as usize > budget && !runs.is_empty() {
                break;
            }
            bytes += run.bytes as usize;
            runs.push(*run);
        }
        runs.reverse();
        let mut entries = Vec::new();
        for piece in pieces(runs) {
            let file = segment_name(piece.segment);
            let id = self.manifest.segments.iter().find(|segment| segment.number == piece.segment);
            let Some(id) = id.map(|segment| segment.id()) else { continue };
            let data = files.read(&file, piece.offset, piece.length)?;
            piece.entries(group, id, &data, &mut entries)?;
        }
        Ok(entries.into_iter().map(|(entry, _)| entry).collect())
    }
}

fn check(options: &StorageOptions) -> Result<(), StorageError> {
    let refuse = |option, message: String| Err(StorageError::Option { option, message });
    if !SEGMENT_BYTES.contains(&options.segment_bytes) || !options.segment_bytes.is_multiple_of(BLOCK_BYTES) {
        let message = format!("{} is not a multiple of 4 KiB from 64 KiB to 2 GiB", options.segment_bytes);
        return refuse("segment_bytes", message);
    }
    if !BATCH_BYTES.contains(&options.batch_bytes) {
        return refuse("batch_bytes", format!("{} is not from 1 byte to 64 MiB", options.batch_bytes));
    }
    Ok(())
}
