//! One write: what of the pending records fits it, its bytes, what it changes in the writer's state, and its completion.

use std::collections::BTreeSet;

use super::batch::{self, BatchHead, BatchKind, Frame};
use super::events::StorageEvent;
use super::log::{Pending, Storage};
use super::places::{Place, Run};
use super::record::{Control, RecordNumber, WriteNumber};
use super::segment::{BLOCK_BYTES, segment_name};
use super::snapshot_file::SnapshotKey;
use super::state::LogChange;
use super::work::Purpose;
use crate::codec;
use crate::types::{DiskError, DiskWork, Entry, GroupId, Index};

/// A write that was submitted and not reported.
#[derive(Debug)]
pub(super) struct WriteInFlight {
    number: WriteNumber,
    through: RecordNumber,
    /// Where it ends in the segment.
    end: u64,
    groups: BTreeSet<GroupId>,
    moved: Vec<Move>,
    marks: Vec<(GroupId, SnapshotKey)>,
    is_done: bool,
}

/// A moved copy: it becomes the present one when it is durable, if the present one is still the one it was made from.
#[derive(Clone, Copy, Debug)]
struct Move {
    group: GroupId,
    index: Index,
    from: Place,
    to: Place,
    bytes: u32,
}

/// What fits the next write.
pub(super) struct Plan {
    pub(super) records: usize,
    pub(super) frames: Vec<Frame>,
    pub(super) total_bytes: u64,
}

impl Storage {
    /// As many pending records as fit, and what they take.
    pub(super) fn plan(&self) -> Plan {
        let mut plan = Plan { records: 0, frames: Vec::new(), total_bytes: 0 };
        let (mut rows, mut control_bytes, mut payload_bytes) = (0_usize, 0, 0);
        for pending in &self.pending {
            let frame = match pending {
                Pending::Control(control) => Some(codec::encode(&**control)),
                Pending::Entry { .. } | Pending::Moved { .. } => None,
            };
            let cost = frame.as_ref().map_or(pending.cost_bytes(), |body| batch::FRAME_BYTES + body.len());
            let so_far = rows * batch::ROW_BYTES + control_bytes + payload_bytes;
            if plan.records > 0 && so_far + cost > self.options.batch_bytes {
                break;
            }
            match (frame, pending.row()) {
                (Some(body), _) => {
                    plan.frames.push(Frame { rows_before: rows as u32, body });
                    control_bytes += cost;
                }
                (None, Some((_, entry, _))) => {
                    rows += 1;
                    payload_bytes += entry.payload.len();
                }
                (None, None) => {}
            }
            plan.records += 1;
        }
        plan.total_bytes = batch::batch_bytes(rows, control_bytes, payload_bytes);
        plan
    }

    /// Queues the write that a plan describes.
    pub(super) fn write(&mut self, plan: &Plan) -> WriteNumber {
        let head = BatchHead {
            kind: BatchKind::Records,
            sequence: self.next_sequence,
            segment: self.active.id,
            synced_segment: self.active.id.number,
            synced_offset: self.active.synced,
            incarnation: self.incarnation,
        };
        let records = self.pending.range(..plan.records);
        let data = batch::encode(&head, records.filter_map(Pending::row), &plan.frames);
        assert_eq!(data.len() as u64, plan.total_bytes, "a batch is as long as it was planned");
        let offset = self.active.offset;
        self.next_sequence += 1;
        self.last_write.0 += 1;
        self.active.offset += plan.total_bytes;
        self.active.named = self.active.synced;
        if plan.records > 0 {
            self.active.content_end = self.active.offset;
        }
        let mut write = WriteInFlight {
            number: self.last_write,
            through: self.cut_record,
            end: self.active.offset,
            groups: BTreeSet::new(),
            moved: Vec::new(),
            marks: Vec::new(),
            is_done: false,
        };
        let block = (offset / BLOCK_BYTES) as u32;
        let blocks = (plan.total_bytes / BLOCK_BYTES) as u32;
        let mut place = Place { segment: self.active.id.number, block, blocks, row: 0 };
        let mut left = plan.records;
        while left > 0 {
            left -= self.apply_next(left, &mut place, &mut write);
        }
        self.cut_record = write.through;
        self.work.submit(
            DiskWork::WriteLog { file: segment_name(self.active.id.number), offset, data },
            Purpose::Write(self.last_write),
        );
        self.in_flight.push_back(write);
        self.last_write
    }

    /// Brings what was cut next into the state and the places: at most `most` records. Says how many.
    fn apply_next(&mut self, most: usize, place: &mut Place, write: &mut WriteInFlight) -> usize {
        if let Some(Pending::Entry { group, .. }) = self.pending.front() {
            return self.apply_entries(*group, most, place, write);
        }
        let record = self.pending.pop_front().expect("what was planned is pending");
        self.pending_bytes -= record.cost_bytes();
        self.apply(&record, place, write);
        1
    }

    /// Entries of one group, one after another: what is looked up for them is looked up once.
    fn apply_entries(&mut self, group: GroupId, most: usize, place: &mut Place, write: &mut WriteInFlight) -> usize {
        let state = self.state.group(group);
        let mut run: Option<Run> = None;
        let mut count = 0;
        let is_next = |pending: &mut Pending| matches!(pending, Pending::Entry { group: of, .. } if *of == group);
        while count < most
            && let Some(Pending::Entry { entry, .. }) = self.pending.pop_front_if(is_next)
        {
            let bytes = cost(&entry);
            self.pending_bytes -= entry.cost_bytes();
            let (index, term, kind) = (entry.index, entry.term, entry.kind);
            let applied = state.apply_entry(index, term, kind, || entry);
            assert_eq!(applied, Ok(()), "an entry was checked when it was appended");
            let run = run.get_or_insert(Run { first: index, count: 0, place: *place, bytes: 0 });
            run.count += 1;
            run.bytes = run.bytes.saturating_add(bytes);
            count += 1;
        }
        if let Some(run) = run {
            place.row += run.count;
            write.through.0 += u64::from(run.count);
            write.groups.insert(group);
            self.groups.entry(group).or_default().places.push(run, &mut self.live);
        }
        count
    }

    /// Brings a record that was cut into the state and the places.
    fn apply(&mut self, record: &Pending, place: &mut Place, write: &mut WriteInFlight) {
        match record {
            Pending::Entry { .. } => unreachable!("entries are taken together"),
            Pending::Moved { group, entry, from } => {
                write.moved.push(Move {
                    group: *group,
                    index: entry.index,
                    from: *from,
                    to: *place,
                    bytes: cost(entry),
                });
                place.row += 1;
            }
            Pending::Control(control) => {
                write.through.0 += 1;
                match self.state.apply(control) {
                    Err(what) => panic!("a record was checked when it was appended: {what}"),
                    Ok(LogChange::None) => {}
                    Ok(LogChange::Truncated { group, from }) => {
                        self.groups.entry(group).or_default().places.truncate(from, &mut self.live);
                        write.groups.insert(group);
                    }
                    // The entries before the mark stay readable until the driver says `compact`.
                    Ok(LogChange::Marked { group, .. }) => {
                        write.groups.insert(group);
                    }
                    Ok(LogChange::Replaced { group }) => {
                        self.groups.entry(group).or_default().places.truncate(0, &mut self.live);
                        write.groups.insert(group);
                    }
                }
                if let Control::Snapshot { group, meta, .. } = &**control {
                    write.marks.push((*group, SnapshotKey::from(meta)));
                }
            }
        }
    }

    /// Reports the contiguous prefix of what is done: a write counts only with every earlier one.
    pub(super) fn complete_write(&mut self, number: WriteNumber, result: Result<(), DiskError>) {
        if let Err(error) = result {
            return self.fail(error.into());
        }
        if self.failure.is_some() {
            return;
        }
        if let Some(write) = self.in_flight.iter_mut().find(|write| write.number == number) {
            write.is_done = true;
        }
        while let Some(write) = self.in_flight.pop_front_if(|write| write.is_done) {
            self.written(write);
        }
        self.advance_switch();
    }

    fn written(&mut self, write: WriteInFlight) {
        self.active.synced = write.end;
        for (group, key) in write.marks {
            self.groups.entry(group).or_default().marked = Some(key);
        }
        for copy in write.moved {
            let log = self.groups.entry(copy.group).or_default();
            if log.places.place(copy.index) == Some(copy.from) {
                log.places.set(copy.index, copy.to, copy.bytes, &mut self.live);
            }
            self.reads.moved(copy.group);
        }
        let mut groups = Vec::with_capacity(write.groups.len());
        for group in write.groups {
            let log = self.groups.entry(group).or_default();
            log.written(write.through);
            groups.push((group, log.durable()));
        }
        if !self.is_ready && write.through >= RecordNumber(1) {
            self.is_ready = true;
            self.events.push(StorageEvent::Ready);
        }
        self.events.push(StorageEvent::Written { number: write.number, through: write.through, groups });
    }
}

fn cost(entry: &Entry) -> u32 {
    u32::try_from(entry.cost_bytes()).unwrap_or(u32::MAX)
}
