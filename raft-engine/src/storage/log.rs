//! The writer: records in, numbered writes out, and what of them is durable.

use std::collections::{BTreeMap, VecDeque};

use super::batch;
use super::error::StorageError;
use super::events::{StorageEvent, StorageOptions};
use super::group::GroupLog;
use super::manifest::Manifest;
use super::places::{LiveEntries, Place};
use super::reads::Reads;
use super::record::{Control, Record, RecordNumber, StoredEntry, WriteNumber};
use super::segment::SegmentId;
use super::snapshots::Snapshots;
use super::state::State;
use super::switch::Switching;
use super::work::{Purpose, WorkQueue};
use super::write::{Plan, WriteInFlight};
use crate::types::{DiskDone, DiskError, DiskWork, DiskWorkId, Entry, FileName, GroupId, Index};

/// The disk side of one server.
#[derive(Debug)]
pub struct Storage {
    pub(super) options: StorageOptions,
    /// For the nonces of segments.
    pub(super) random: fastrand::Rng,
    pub(super) work: WorkQueue,
    pub(super) events: Vec<StorageEvent>,
    pub(super) manifest: Manifest,
    /// Everything cut into writes so far.
    pub(super) state: State,
    pub(super) groups: BTreeMap<GroupId, GroupLog>,
    pub(super) live: LiveEntries,
    /// Appended and not cut.
    pub(super) pending: VecDeque<Pending>,
    pub(super) pending_bytes: usize,
    /// The last record appended.
    last_record: RecordNumber,
    /// The last record cut.
    pub(super) cut_record: RecordNumber,
    pub(super) last_write: WriteNumber,
    pub(super) next_sequence: u64,
    pub(super) active: ActiveSegment,
    pub(super) in_flight: VecDeque<WriteInFlight>,
    pub(super) incarnation: u64,
    pub(super) is_ready: bool,
    pub(super) switching: Switching,
    pub(super) failure: Option<StorageError>,
    pub(super) reads: Reads,
    pub(super) snapshots: Snapshots,
    pub(super) has_room: bool,
    /// Files that recovery found and nothing names; removed once what recovery kept is durable.
    pub(super) leftovers: Vec<FileName>,
}

/// The segment that writes go to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ActiveSegment {
    pub(super) id: SegmentId,
    /// Its length in bytes.
    pub(super) bytes: u64,
    /// Where the next batch goes.
    pub(super) offset: u64,
    /// Everything below is durable.
    pub(super) synced: u64,
    /// The highest synced offset that a batch names.
    pub(super) named: u64,
    /// Where the last batch ends that is more than a watermark.
    pub(super) content_end: u64,
}

/// Something appended and not cut.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Pending {
    Entry {
        group: GroupId,
        entry: Entry,
    },
    /// Boxed: a rare one is large, and entries are many.
    Control(Box<Control>),
    /// A copy of a live entry that lies at `from`.
    Moved {
        group: GroupId,
        entry: Entry,
        from: Place,
    },
}

impl Pending {
    pub(super) fn cost_bytes(&self) -> usize {
        match self {
            Self::Entry { entry, .. } | Self::Moved { entry, .. } => entry.cost_bytes(),
            Self::Control(control) => match **control {
                Control::Snapshot { .. } => 1024,
                _ => 64,
            },
        }
    }

    pub(super) fn row(&self) -> Option<(GroupId, &Entry, bool)> {
        match self {
            Self::Entry { group, entry } => Some((*group, entry, false)),
            Self::Moved { group, entry, .. } => Some((*group, entry, true)),
            Self::Control(_) => None,
        }
    }
}

impl Storage {
    /// A writer over what recovery found, nothing queued yet.
    pub(super) fn new(options: StorageOptions, random: fastrand::Rng, manifest: Manifest) -> Self {
        let id = SegmentId { number: 0, nonce: [0; 16] };
        Self {
            options,
            random,
            work: WorkQueue::default(),
            events: Vec::new(),
            manifest,
            state: State::default(),
            groups: BTreeMap::new(),
            live: LiveEntries::default(),
            pending: VecDeque::new(),
            pending_bytes: 0,
            last_record: RecordNumber(0),
            cut_record: RecordNumber(0),
            last_write: WriteNumber(0),
            next_sequence: 1,
            active: ActiveSegment { id, bytes: 0, offset: 0, synced: 0, named: 0, content_end: 0 },
            in_flight: VecDeque::new(),
            incarnation: 0,
            is_ready: false,
            switching: Switching::default(),
            failure: None,
            reads: Reads::default(),
            snapshots: Snapshots::default(),
            has_room: true,
            leftovers: Vec::new(),
        }
    }

    /// Queues a record behind all earlier ones and returns its number (the last entry's, of entries; entries have
    /// consecutive numbers).
    ///
    /// # Panics
    /// Where the record does not fit the group's log: a caller's fault that must not reach the disk.
    pub fn append(&mut self, record: Record) -> RecordNumber {
        let control = match record {
            Record::Entries { group, entries } => return self.append_entries(group, entries),
            Record::HardState { group, state } => Control::HardState { group, state },
            Record::Truncate { group, from } => Control::Truncate { group, from },
            Record::Commit { group, index } => Control::Commit { group, index },
            Record::Lineage { group, lineage } => Control::Lineage { group, lineage },
            Record::Snapshot { group, meta, first_entry, lineage } => {
                Control::Snapshot { group, meta, first_entry: StoredEntry::from(&first_entry), lineage }
            }
            Record::PeerIncarnation { identity, incarnation } => Control::PeerIncarnation { identity, incarnation },
        };
        self.append_control(control)
    }

    pub(super) fn append_control(&mut self, control: Control) -> RecordNumber {
        self.last_record.0 += 1;
        let number = self.last_record;
        let fits = match &control {
            Control::Truncate { group, from } => {
                self.forget_reads(*group, *from);
                self.groups.entry(*group).or_default().truncate(*from)
            }
            Control::Snapshot { group, meta, .. } => {
                let kept = self.groups.entry(*group).or_default().mark(meta.position, number);
                if kept == Ok(false) {
                    self.forget_reads(*group, 0);
                }
                kept.map(drop)
            }
            _ => Ok(()),
        };
        if let Err(what) = fits {
            panic!("a record that does not fit the log was appended: {what}");
        }
        self.push_pending(Pending::Control(Box::new(control)));
        number
    }

    fn append_entries(&mut self, group: GroupId, entries: Vec<Entry>) -> RecordNumber {
        assert!(!entries.is_empty(), "an append of group {group} holds no entry");
        self.last_record.0 += entries.len() as u64;
        let log = self.groups.entry(group).or_default();
        if let Err(what) = log.append(&entries, self.last_record) {
            panic!("entries that do not fit the log of group {group} were appended: {what}");
        }
        for entry in entries {
            self.push_pending(Pending::Entry { group, entry });
        }
        self.last_record
    }

    pub(super) fn push_pending(&mut self, pending: Pending) {
        self.pending_bytes += pending.cost_bytes();
        self.pending.push_back(pending);
    }

    /// What waits to be cut into a write, in bytes, about.
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Cuts the next write from what is pending and queues it. `None` where nothing is pending, or recovery, a segment
    /// switch or a full disk is in the way: those go on by themselves, and records go on to gather. The caller bounds
    /// the writes in flight.
    pub fn cut(&mut self) -> Option<WriteNumber> {
        if !self.is_open() || self.pending.is_empty() {
            return None;
        }
        let plan = self.plan();
        if plan.total_bytes > self.active.bytes - self.active.offset {
            self.begin_switch(plan.total_bytes);
            return None;
        }
        Some(self.write(&plan))
    }

    /// Writes submitted and not yet reported as [`StorageEvent::Written`].
    pub fn writes_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether the last records are above the synced position that the log names, with nothing pending or in flight: an
    /// idle server then calls [`Storage::cut_watermark`], so that later damage to them is told from a torn tail.
    pub fn watermark_due(&self) -> bool {
        self.is_open()
            && self.pending.is_empty()
            && self.in_flight.is_empty()
            && self.active.named < self.active.content_end
    }

    /// Queues the empty write that names the synced position, if one is due. `None` where [`Storage::cut`] would be.
    pub fn cut_watermark(&mut self) -> Option<WriteNumber> {
        if !self.watermark_due() {
            return None;
        }
        let plan = Plan { records: 0, frames: Vec::new(), total_bytes: batch::batch_bytes(0, 0, 0) };
        if plan.total_bytes > self.active.bytes - self.active.offset {
            // The next segment's checkpoint says the same, and more.
            self.begin_switch(plan.total_bytes);
            return None;
        }
        Some(self.write(&plan))
    }

    /// The last entry of the group whose present copy, and that of every entry before it, is on this disk.
    pub fn durable_index(&self, group: GroupId) -> Index {
        self.groups.get(&group).map_or(0, GroupLog::durable)
    }

    /// The last entry appended, durable or not.
    pub fn last_index(&self, group: GroupId) -> Index {
        self.groups.get(&group).map_or(0, |log| log.appended.last())
    }

    /// Why the log failed, if it did.
    pub fn failure(&self) -> Option<&StorageError> {
        self.failure.as_ref()
    }

    /// The work queued since the last call, to be submitted in this order.
    pub fn take_work(&mut self) -> Vec<(DiskWorkId, DiskWork)> {
        self.work.take()
    }

    /// What has happened since the last call, in order.
    pub fn take_events(&mut self) -> Vec<StorageEvent> {
        std::mem::take(&mut self.events)
    }

    /// A submission ended. One that was told before counts for nothing.
    pub fn complete(&mut self, id: DiskWorkId, result: Result<DiskDone, DiskError>) {
        let Some(purpose) = self.work.finish(id) else { return };
        match purpose {
            Purpose::Write(number) => self.complete_write(number, result.map(drop)),
            Purpose::Recovery => self.complete_recovery(result.map(drop)),
            Purpose::Segment => self.complete_segment(result.map(drop)),
            Purpose::Manifest => self.complete_manifest(result.map(drop)),
            Purpose::Fill => self.complete_fill(result.map(drop)),
            Purpose::Recycle => self.complete_recycle(result.map(drop)),
            Purpose::CleanUp => {}
            Purpose::ReadPiece { read, piece } => self.complete_read(read, piece, result),
            Purpose::SnapshotRead { token, group, key, offset } => {
                self.complete_snapshot_read(token, group, key, offset, result);
            }
            Purpose::Storing { group, origin, attempt, step } => {
                self.complete_storing(group, origin, attempt, step, result);
            }
        }
        self.note_room();
    }

    /// Whether writes may be cut.
    fn is_open(&self) -> bool {
        self.failure.is_none() && self.switching.is_idle()
    }

    /// The log stops for good.
    pub(super) fn fail(&mut self, error: StorageError) {
        if self.failure.is_none() {
            self.failure = Some(error.clone());
            self.events.push(StorageEvent::Failed { error });
        }
    }
}
