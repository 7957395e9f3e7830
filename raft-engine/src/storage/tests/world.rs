//! A storage on a disk in memory, driven step by step, beside a plain model of what it should hold.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::disk::Disk;
use crate::storage::{
    ReadToken, Record, RecordNumber, Recovered, SnapshotHead, SnapshotOrigin, Storage, StorageError, StorageEvent,
    StorageOptions, WriteNumber,
};
use crate::types::{
    ClusterId, Configuration, DiskDone, DiskStep, DiskWork, DiskWorkId, Entry, EntryKind, GroupId, GroupSettings,
    HardState, Index, Lineage, LogTime, Position, ServerId, SnapshotMeta, SnapshotSection,
};

pub(super) fn options() -> StorageOptions {
    StorageOptions {
        cluster: ClusterId::new("test").unwrap(),
        server: ServerId(1),
        segment_bytes: 64 << 10,
        batch_bytes: 16 << 10,
        tail_bytes: 1 << 30,
    }
}

pub(super) fn configuration() -> Configuration {
    Configuration {
        members: Vec::new(),
        outgoing_voters: Vec::new(),
        highest_id: ServerId(3),
        change: None,
        settings: GroupSettings::default(),
    }
}

pub(super) fn entry(index: Index, term: u64, length: usize) -> Entry {
    let payload: Vec<u8> = (0..length).map(|at| (at as u64 * 7 + index * 31 + term) as u8).collect();
    let kind = match index {
        1 => EntryKind::Formation,
        _ if index.is_multiple_of(11) => EntryKind::Configuration,
        _ => EntryKind::Command,
    };
    let payload = match kind {
        EntryKind::Configuration => crate::codec::encode(&configuration()),
        _ => payload,
    };
    Entry::new(Position { term, index }, LogTime(index * 10 + term), kind, payload.into())
}

pub(super) const LINEAGE: Lineage = Lineage([7; 32]);

/// What one group should hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct GroupModel {
    pub(super) hard_state: HardState,
    pub(super) first_entry: Option<Entry>,
    pub(super) snapshot: Option<SnapshotMeta>,
    /// Behind the snapshot.
    pub(super) entries: BTreeMap<Index, Entry>,
    pub(super) commit: Index,
}

impl GroupModel {
    pub(super) fn last(&self) -> Position {
        let snapshot = self.snapshot.as_ref().map(|meta| meta.position).unwrap_or_default();
        self.entries.values().next_back().map_or(snapshot, Entry::position)
    }

    fn snapshot_index(&self) -> Index {
        self.snapshot.as_ref().map_or(0, |meta| meta.position.index)
    }
}

pub(super) type Model = BTreeMap<GroupId, GroupModel>;

/// A submission under way.
#[derive(Debug)]
enum UnderWay {
    Write { id: DiskWorkId, work: DiskWork, is_written: bool },
    Job { id: DiskWorkId, steps: VecDeque<DiskStep> },
    Read { id: DiskWorkId, work: DiskWork },
}

/// How a run ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Crash {
    Kill,
    PowerCut,
}

/// One incarnation on a disk.
pub(super) struct World {
    pub(super) disk: Disk,
    pub(super) storage: Storage,
    pub(super) recovered: Recovered,
    writes: VecDeque<UnderWay>,
    jobs: VecDeque<UnderWay>,
    reads: VecDeque<UnderWay>,
    pub(super) events: Vec<StorageEvent>,
    /// The model after each record, from the one recovered.
    pub(super) history: Vec<Model>,
    /// Every record through here is durable.
    pub(super) written: RecordNumber,
    pub(super) last_write: WriteNumber,
    pub(super) is_ready: bool,
    /// Disk steps taken.
    pub(super) steps: usize,
}

impl World {
    pub(super) fn open(disk: Disk, seed: u64) -> Result<Self, StorageError> {
        Self::open_with(disk, seed, options())
    }

    pub(super) fn open_with(mut disk: Disk, seed: u64, options: StorageOptions) -> Result<Self, StorageError> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut entropy = [0; 32];
        random.fill(&mut entropy);
        let (storage, recovered) = Storage::open(options, &mut disk, entropy)?;
        let model = model_of(&recovered);
        // The incarnation's own record is the first.
        let history = vec![model.clone(), model];
        Ok(Self {
            disk,
            storage,
            recovered,
            writes: VecDeque::new(),
            jobs: VecDeque::new(),
            reads: VecDeque::new(),
            events: Vec::new(),
            history,
            written: RecordNumber(0),
            last_write: WriteNumber(0),
            is_ready: false,
            steps: 0,
        })
    }

    pub(super) fn model(&self) -> &Model {
        self.history.last().unwrap()
    }

    pub(super) fn group(&self, group: GroupId) -> GroupModel {
        self.model().get(&group).cloned().unwrap_or_default()
    }

    /// Appends a record to both.
    pub(super) fn append(&mut self, record: Record) -> RecordNumber {
        let number = self.storage.append(record.clone());
        let mut model = self.model().clone();
        match record {
            Record::Entries { group, entries } => {
                for entry in entries {
                    let log = model.entry(group).or_default();
                    if entry.index == 1 {
                        log.first_entry = Some(entry.clone());
                    }
                    log.entries.insert(entry.index, entry);
                    self.history.push(model.clone());
                }
                assert_eq!(number.0 as usize + 1, self.history.len());
                return number;
            }
            Record::HardState { group, state } => model.entry(group).or_default().hard_state = state,
            Record::Truncate { group, from } => drop(model.entry(group).or_default().entries.split_off(&from)),
            Record::Commit { group, index } => {
                let log = model.entry(group).or_default();
                log.commit = log.commit.max(index);
            }
            Record::Snapshot { group, meta, first_entry, .. } => {
                let log = model.entry(group).or_default();
                let index = meta.position.index;
                let keeps = log.entries.get(&index).is_some_and(|entry| entry.term == meta.position.term);
                log.entries = if keeps { log.entries.split_off(&(index + 1)) } else { BTreeMap::new() };
                log.commit = log.commit.max(index);
                log.snapshot = Some(meta);
                log.first_entry = Some(first_entry);
            }
            Record::Lineage { group, .. } => drop(model.entry(group).or_default()),
            Record::PeerIncarnation { .. } => {}
        }
        self.history.push(model);
        assert_eq!(number.0 as usize + 1, self.history.len());
        number
    }

    /// Takes what storage submits and says.
    pub(super) fn pump(&mut self) {
        for (id, work) in self.storage.take_work() {
            match work {
                DiskWork::WriteLog { .. } => self.writes.push_back(UnderWay::Write { id, work, is_written: false }),
                DiskWork::Job(steps) => self.jobs.push_back(UnderWay::Job { id, steps: steps.into() }),
                DiskWork::Read { .. } => self.reads.push_back(UnderWay::Read { id, work }),
            }
        }
        for event in self.storage.take_events() {
            match &event {
                StorageEvent::Ready => self.is_ready = true,
                StorageEvent::Written { number, through, .. } => {
                    assert_eq!(number.0, self.last_write.0 + 1, "writes are reported in order, without gaps");
                    self.last_write = *number;
                    assert!(*through >= self.written);
                    self.written = *through;
                }
                StorageEvent::Failed { error } => panic!("the log failed: {error}"),
                _ => {}
            }
            self.events.push(event);
        }
    }

    /// One step of the disk in one of the lanes. `false` if there is nothing to do.
    pub(super) fn step(&mut self, random: &mut fastrand::Rng) -> bool {
        self.pump();
        let lanes: Vec<usize> = [!self.writes.is_empty(), !self.jobs.is_empty(), !self.reads.is_empty()]
            .into_iter()
            .enumerate()
            .filter_map(|(lane, has_work)| has_work.then_some(lane))
            .collect();
        if lanes.is_empty() {
            return false;
        }
        self.steps += 1;
        let lane = [&mut self.writes, &mut self.jobs, &mut self.reads][lanes[random.usize(0..lanes.len())]]
            .pop_front()
            .unwrap();
        match lane {
            UnderWay::Write { id, work, is_written } => {
                let DiskWork::WriteLog { file, offset, data } = &work else { unreachable!() };
                if is_written {
                    self.disk.sync(file).unwrap();
                    self.storage.complete(id, Ok(DiskDone::Done));
                } else {
                    assert!(offset % 4096 == 0 && data.len() % 4096 == 0);
                    let length = self.disk.content(file).unwrap().len();
                    assert!(*offset as usize + data.len() <= length, "writes go to bytes filled ahead");
                    self.disk.write(file, *offset, data.as_slice()).unwrap();
                    self.writes.push_front(UnderWay::Write { id, work, is_written: true });
                }
            }
            UnderWay::Job { id, mut steps } => {
                let result = steps.pop_front().map_or(Ok(()), |step| self.disk.step(&step));
                match result {
                    Ok(()) if !steps.is_empty() => self.jobs.push_front(UnderWay::Job { id, steps }),
                    result => self.storage.complete(id, result.map(|()| DiskDone::Done)),
                }
            }
            UnderWay::Read { id, work } => {
                use crate::types::ReadFiles;
                let DiskWork::Read { file, offset, length } = &work else { unreachable!() };
                let result = self.disk.read(file, *offset, *length).map(DiskDone::Read);
                self.storage.complete(id, result);
            }
        }
        self.pump();
        true
    }

    /// Runs the disk until nothing is left to do.
    pub(super) fn settle(&mut self) {
        let mut random = fastrand::Rng::with_seed(0);
        while self.step(&mut random) {}
    }

    /// Cuts and settles until everything appended is durable, or a full disk is in the way.
    pub(super) fn settle_all(&mut self) {
        self.settle();
        let mut idle = 0;
        while self.storage.pending_bytes() > 0 && idle < 3 {
            // A switch of segments takes one round without a write.
            idle = if self.storage.cut().is_some() { 0 } else { idle + 1 };
            self.settle();
        }
    }

    /// The submissions to the log that are not carried out, taken away from the disk.
    pub(super) fn take_writes(&mut self) -> Vec<(DiskWorkId, DiskWork)> {
        self.pump();
        let writes = self.writes.drain(..).filter_map(|write| match write {
            UnderWay::Write { id, work, .. } => Some((id, work)),
            _ => None,
        });
        writes.collect()
    }

    /// Carries out a write that was taken away, and syncs it, without telling storage.
    pub(super) fn carry_out(&mut self, work: &DiskWork) {
        let DiskWork::WriteLog { file, offset, data } = work else { unreachable!() };
        self.disk.write(file, *offset, data.as_slice()).unwrap();
        self.disk.sync(file).unwrap();
    }

    /// What the disk holds after the process ended here.
    pub(super) fn crash(mut self, crash: Crash, random: &mut fastrand::Rng) -> (Disk, Vec<Model>, RecordNumber) {
        self.pump();
        for write in &self.writes {
            if let UnderWay::Write { work: DiskWork::WriteLog { file, offset, data }, is_written: false, .. } = write {
                self.disk.tear(file, *offset, data.as_slice(), random);
            }
        }
        if crash == Crash::PowerCut {
            self.disk.power_cut(random);
        }
        (self.disk, self.history, self.written)
    }

    /// Stores and marks a snapshot of the group at `index`, whose sessions and state are `data`, twice.
    pub(super) fn begin_snapshot(&mut self, group: GroupId, index: Index, data: &[u8]) {
        let log = self.group(group);
        let at = log.entries[&index].clone();
        let head = SnapshotHead {
            position: at.position(),
            log_time: at.log_time,
            configuration: configuration(),
            configuration_index: 1,
            first_entry: log.first_entry.unwrap(),
            lineage: LINEAGE,
        };
        self.storage.begin_snapshot(group, head);
        for section in [SnapshotSection::Sessions, SnapshotSection::Host] {
            for chunk in data.chunks(1000) {
                self.storage.snapshot_chunk(group, section, Bytes::copy_from_slice(chunk));
            }
        }
        self.storage.finish_snapshot(group);
    }

    /// Marks the snapshots that were stored.
    pub(super) fn mark_stored(&mut self) -> usize {
        let mut marked = 0;
        for event in std::mem::take(&mut self.events) {
            if let StorageEvent::SnapshotStored { group, meta, first_entry, lineage, .. } = event
                && meta.position.index > self.group(group).snapshot_index()
            {
                self.append(Record::Snapshot { group, meta, first_entry, lineage });
                marked += 1;
            }
        }
        marked
    }

    /// One random thing that a driver may do.
    pub(super) fn act(&mut self, random: &mut fastrand::Rng) {
        let group = GroupId(random.u64(1..=2));
        let log = self.group(group);
        let last = log.last();
        match random.u32(0..20) {
            0..8 => {
                let term = last.term + u64::from(random.u8(0..8) == 0);
                let count = random.u64(1..6);
                // One entry for each index and term, as Raft has it (§5.3).
                let length = |index: u64, term: u64| match (index * 13 + term * 7) % 20 {
                    0 => 20_000,
                    at @ 1..4 => at * 1900 + index,
                    at => at * 15 + term,
                };
                let entries: Vec<Entry> = (1..=count)
                    .map(|at| {
                        let index = last.index + at;
                        let term = if index == 1 { 0 } else { term };
                        entry(index, term, length(index, term) as usize)
                    })
                    .collect();
                self.append(Record::Entries { group, entries });
            }
            8 => {
                let state = HardState { term: log.hard_state.term + 1, vote: Some(ServerId(random.u64(1..4))) };
                self.append(Record::HardState { group, state });
            }
            9 | 10 => {
                let lowest = log.commit.max(log.snapshot_index()).max(1) + 1;
                if lowest <= last.index {
                    let from = random.u64(lowest..=last.index);
                    self.append(Record::Truncate { group, from });
                }
            }
            11 => {
                let durable = self.storage.durable_index(group).min(last.index);
                if durable > log.commit {
                    let index = random.u64(log.commit + 1..=durable);
                    self.append(Record::Commit { group, index });
                }
            }
            12 | 13 => {
                let durable = log.commit.min(self.storage.durable_index(group));
                if durable > log.snapshot_index() + 3 && log.entries.contains_key(&durable) {
                    let data = vec![durable as u8; random.usize(0..5000)];
                    self.begin_snapshot(group, durable, &data);
                }
            }
            14 => drop(self.mark_stored()),
            15 => self.storage.compact(group),
            16 => {
                if let Some(pinned) = self.storage.pinning_oldest().first() {
                    self.storage.relocate(pinned.group);
                }
            }
            17 => drop(self.storage.cut_watermark()),
            18 => {
                let durable = self.storage.durable_index(group);
                let first = log.snapshot_index() + 1;
                if first <= durable {
                    self.storage.read_entries(ReadToken(group.0), group, random.u64(first..=durable), durable, 9000);
                }
            }
            _ => self.storage.abort_snapshot(group, SnapshotOrigin::Host),
        }
        if self.storage.writes_in_flight() < 3 && random.bool() {
            self.storage.cut();
        }
        self.pump();
    }

    /// Everything read so far is what the model has, unless it changed since.
    pub(super) fn check_reads(&mut self) {
        for event in &self.events {
            if let StorageEvent::EntriesRead { group, entries: Ok(entries), .. } = event {
                for entry in entries {
                    let known = self
                        .history
                        .iter()
                        .any(|model| model.get(group).and_then(|log| log.entries.get(&entry.index)) == Some(entry));
                    assert!(known, "an entry was read that never was: {entry:?}");
                }
            }
            if let StorageEvent::EntriesRead { entries: Err(error), .. } = event {
                assert!(!matches!(error, crate::storage::ReadError::Storage(_)), "{error}");
            }
        }
        self.events.retain(|event| !matches!(event, StorageEvent::EntriesRead { .. }));
    }
}

/// What a directory holds, as a model.
pub(super) fn model_of(recovered: &Recovered) -> Model {
    let groups = recovered.groups.iter().map(|group| {
        let model = GroupModel {
            hard_state: group.hard_state,
            first_entry: group.first_entry.clone(),
            snapshot: group.snapshot.as_ref().map(|(meta, _)| meta.clone()),
            entries: group.tail.iter().map(|entry| (entry.index, entry.clone())).collect(),
            commit: group.commit,
        };
        assert_eq!(model.last(), group.last);
        for entry in &group.tail {
            let run = group.term_runs.partition_point(|run| run.0 <= entry.index);
            assert_eq!(group.term_runs[run - 1].1, entry.term);
        }
        let configurations: Vec<Entry> =
            (group.tail.iter()).filter(|entry| entry.kind == EntryKind::Configuration).cloned().collect();
        assert_eq!(group.configurations, configurations);
        (group.group, model)
    });
    groups.collect()
}

/// Whether a directory holds what was appended through some record that is at least `written`.
pub(super) fn is_explained(recovered: &Recovered, history: &[Model], written: RecordNumber) -> bool {
    let found = model_of(recovered);
    let mut nearest = None;
    for model in &history[written.0 as usize..] {
        let mut model = model.clone();
        for log in model.values_mut() {
            log.commit = log.commit.min(log.last().index);
        }
        if model == found {
            return true;
        }
        nearest = Some(model);
    }
    for (group, log) in nearest.into_iter().flatten() {
        let other = found.get(&group).cloned().unwrap_or_default();
        eprintln!(
            "group {group}: expected {:?} {:?} {}..{:?} commit {}",
            log.hard_state,
            log.snapshot,
            log.entries.len(),
            log.last(),
            log.commit
        );
        eprintln!(
            "group {group}: found    {:?} {:?} {}..{:?} commit {}",
            other.hard_state,
            other.snapshot,
            other.entries.len(),
            other.last(),
            other.commit
        );
    }
    false
}
