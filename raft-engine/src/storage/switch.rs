//! Segments coming and going: the spares, filled ahead or recycled, the switch to one, the manifest, and the freeing of
//! dead ones.
//!
//! A switch goes: cut no more; wait until every write is durable; write header and checkpoint into the spare, sync,
//! rename, sync the directory; only then a manifest names it (and no longer those that are dead by what this checkpoint
//! says); only then writes go on, and dead files are recycled. Records gather meanwhile.

use std::collections::VecDeque;
use std::time::Duration;

use super::batch::{self, BatchHead, BatchKind, Frame};
use super::events::StorageEvent;
use super::log::{ActiveSegment, Storage};
use super::manifest::LiveSegment;
use super::segment::{BLOCK_BYTES, SegmentId, encode_header, segment_name, spare_name};
use super::work::Purpose;
use crate::types::{DiskError, DiskStep, DiskWork, FileName, Time};

/// A spare is filled in pieces of this many bytes, so that other jobs get between.
const FILL_BYTES: u64 = 8 << 20;

/// Dead segments are kept as spares up to this many: a snapshot frees several at once, and each one that is used again
/// spares the disk a segment of zeros, which would otherwise double what a busy log writes.
pub(super) const MOST_SPARES: usize = 4;

/// How long after the disk was full it is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Switching {
    stage: Stage,
    /// Files that can become the next segment, with their lengths.
    ready: VecDeque<(FileName, u64)>,
    /// The one being filled.
    filling: Option<Filling>,
    /// Dead segments on their way to be spares.
    recycling: Vec<(FileName, u64)>,
    next_spare: u64,
    /// What waits for the next manifest.
    goals: Vec<Goal>,
    /// What the manifest on its way to the disk brings.
    goals_under_way: Option<Vec<Goal>>,
    /// No manifest may be written before what it names is durable.
    is_recovered: bool,
    /// What found the disk full, until it has worked.
    full: Attempts,
    /// What of it waits to be tried again.
    stalled: Attempts,
    retry_at: Option<Time>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Recovery or creation is under way.
    #[default]
    Opening,
    /// Writes may go.
    Idle,
    /// The segment is full; writes in flight, or the spare, are waited for. The next batch needs `need` bytes.
    Draining { need: u64 },
    /// The next segment is being made.
    Segment { need: u64, next: LiveSegment, offset: u64, spare: FileName, spare_bytes: u64 },
    /// The manifest that names it is being written.
    Manifest,
}

#[derive(Debug)]
struct Filling {
    file: FileName,
    filled: u64,
    bytes: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Goal {
    /// What recovery kept is durable; these files are not needed.
    Recovered { leftovers: Vec<FileName> },
    /// The next segment counts; these do not any more.
    Switched { dead: Vec<LiveSegment> },
    /// The directory is refused.
    Refused,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Attempts {
    fill: bool,
    segment: bool,
    manifest: bool,
}

impl Attempts {
    fn any(self) -> bool {
        self.fill || self.segment || self.manifest
    }
}

impl Switching {
    /// Whether writes may be cut.
    pub(super) fn is_idle(&self) -> bool {
        self.stage == Stage::Idle
    }

    /// Takes over a file that an earlier incarnation filled ahead.
    pub(super) fn adopt_spare(&mut self, file: FileName, bytes: u64) {
        let number = file.0.strip_prefix("spare-").and_then(|number| number.parse::<u64>().ok());
        self.next_spare = self.next_spare.max(number.map_or(0, |number| number.saturating_add(1)));
        self.ready.push_back((file, bytes));
    }
}

impl Storage {
    /// Makes the first segment of a new directory.
    pub(super) fn create_first_segment(&mut self) {
        let (file, bytes) = (self.next_spare_name(), self.options.segment_bytes);
        self.submit_segment(0, file, bytes, true);
    }

    /// What recovery kept is durable: the manifest is next.
    pub(super) fn recovered(&mut self, leftovers: Vec<FileName>) {
        self.switching.is_recovered = true;
        self.switching.goals.push(Goal::Recovered { leftovers });
        self.pump_manifest();
    }

    /// The active segment has no room for a batch of `need` bytes.
    pub(super) fn begin_switch(&mut self, need: u64) {
        self.switching.stage = Stage::Draining { need };
        self.ensure_spare();
        self.advance_switch();
    }

    /// Goes on with a switch if nothing is waited for.
    pub(super) fn advance_switch(&mut self) {
        let Stage::Draining { need } = self.switching.stage else { return };
        if self.failure.is_some() || !self.in_flight.is_empty() || self.switching.stalled.segment {
            return;
        }
        if let Some((file, bytes)) = self.switching.ready.pop_front() {
            self.submit_segment(need, file, bytes, false);
        }
    }

    /// Writes the next segment's header and checkpoint into `file` and gives it its name.
    fn submit_segment(&mut self, need: u64, file: FileName, file_bytes: u64, is_new: bool) {
        let mut nonce = [0; 16];
        self.random.fill(&mut nonce);
        let number = self.active.id.number.checked_add(1).expect("segment numbers last for ever");
        let id = SegmentId { number, nonce };
        let frames: Vec<Frame> = self.state.frames().into_iter().map(|body| Frame { rows_before: 0, body }).collect();
        let head = BatchHead {
            kind: BatchKind::Checkpoint,
            sequence: self.next_sequence,
            segment: id,
            synced_segment: self.active.id.number,
            synced_offset: self.active.synced,
            incarnation: self.incarnation,
        };
        let checkpoint = batch::encode(&head, std::iter::empty(), &frames);
        let offset = BLOCK_BYTES + checkpoint.len() as u64;
        let bytes = file_bytes.max(offset + need).next_multiple_of(BLOCK_BYTES);
        let mut data = encode_header(id, self.manifest.identity, bytes);
        data.extend_from_slice(checkpoint.as_slice());

        let mut steps = Vec::new();
        if is_new {
            steps.push(DiskStep::CreateZeroed { file: file.clone(), length: bytes });
        } else if bytes > file_bytes {
            let length = bytes - file_bytes;
            steps.push(DiskStep::WriteZeros { file: file.clone(), offset: file_bytes, length });
        }
        steps.push(DiskStep::Write { file: file.clone(), offset: 0, data: data.into() });
        steps.push(DiskStep::Sync { file: file.clone() });
        steps.push(DiskStep::Rename { from: file.clone(), to: segment_name(number) });
        steps.push(DiskStep::SyncDirectory);
        self.work.submit(DiskWork::Job(steps), Purpose::Segment);
        let next = LiveSegment { number, nonce, bytes, first_sequence: self.next_sequence, end: None };
        self.switching.stage = Stage::Segment { need, next, offset, spare: file, spare_bytes: file_bytes };
    }

    pub(super) fn complete_segment(&mut self, result: Result<(), DiskError>) {
        let Stage::Segment { need, next, offset, spare, spare_bytes } = std::mem::take(&mut self.switching.stage)
        else {
            return;
        };
        if let Err(error) = result {
            // The steps before the rename can be done again from the start; a new directory has nothing to wait for.
            if !error.is_full || error.file != spare || self.manifest.segments.is_empty() {
                return self.fail(error.into());
            }
            self.switching.ready.push_front((spare, spare_bytes));
            self.switching.stage = Stage::Draining { need };
            self.switching.full.segment = true;
            self.switching.stalled.segment = true;
            return;
        }
        self.switching.full.segment = false;
        if let Some(closed) = self.manifest.segments.last_mut() {
            closed.end = Some(self.active.offset);
        }
        self.active = ActiveSegment {
            id: next.id(),
            bytes: next.bytes,
            offset,
            synced: offset,
            named: offset,
            content_end: offset,
        };
        self.next_sequence += 1;
        self.manifest.segments.push(next);
        let dead = self
            .manifest
            .segments
            .iter()
            .take_while(|segment| segment.number != self.active.id.number && self.live.is_dead(segment.number));
        let dead = dead.count();
        let dead = self.manifest.segments.drain(..dead).collect();
        self.switching.is_recovered = true;
        self.switching.stage = Stage::Manifest;
        self.switching.goals.push(Goal::Switched { dead });
        self.pump_manifest();
    }

    fn pump_manifest(&mut self) {
        let switching = &mut self.switching;
        if !switching.is_recovered
            || switching.goals_under_way.is_some()
            || switching.goals.is_empty()
            || switching.stalled.manifest
        {
            return;
        }
        switching.goals_under_way = Some(std::mem::take(&mut switching.goals));
        self.work.submit(DiskWork::Job(self.manifest.replace()), Purpose::Manifest);
    }

    pub(super) fn complete_manifest(&mut self, result: Result<(), DiskError>) {
        let mut goals = self.switching.goals_under_way.take().unwrap_or_default();
        if let Err(error) = result {
            if !error.is_full {
                return self.fail(error.into());
            }
            goals.append(&mut self.switching.goals);
            self.switching.goals = goals;
            self.switching.full.manifest = true;
            self.switching.stalled.manifest = true;
            return;
        }
        self.switching.full.manifest = false;
        for goal in goals {
            match goal {
                Goal::Recovered { leftovers } => {
                    self.work.remove(leftovers);
                    self.resume();
                }
                Goal::Switched { dead } => {
                    self.recycle(dead);
                    self.resume();
                }
                Goal::Refused => self.events.push(StorageEvent::DirectoryRefused),
            }
        }
        self.pump_manifest();
    }

    /// Writes may go again. The first one of all makes this incarnation durable.
    fn resume(&mut self) {
        self.switching.stage = Stage::Idle;
        self.ensure_spare();
        if !self.is_ready && self.in_flight.is_empty() {
            self.cut();
        }
    }

    /// Makes spares of dead segments, and removes those that are too many. Nothing names them any more.
    fn recycle(&mut self, dead: Vec<LiveSegment>) {
        let mut steps = Vec::new();
        let mut purpose = Purpose::CleanUp;
        for segment in dead {
            let file = segment_name(segment.number);
            let spares = self.switching.ready.len() + self.switching.recycling.len();
            if spares < MOST_SPARES && segment.bytes == self.options.segment_bytes {
                let to = self.next_spare_name();
                self.switching.recycling.push((to.clone(), segment.bytes));
                purpose = Purpose::Recycle;
                steps.push(DiskStep::Rename { from: file, to });
            } else {
                steps.push(DiskStep::Remove { file });
            }
        }
        if !steps.is_empty() {
            steps.push(DiskStep::SyncDirectory);
            self.work.submit(DiskWork::Job(steps), purpose);
        }
    }

    pub(super) fn complete_recycle(&mut self, result: Result<(), DiskError>) {
        let recycled = std::mem::take(&mut self.switching.recycling);
        // Where it failed, the next open removes what is left of them, and another spare is filled.
        if result.is_ok() {
            self.switching.ready.extend(recycled);
        }
        self.ensure_spare();
        self.advance_switch();
    }

    /// Starts to fill a spare segment if there is none.
    fn ensure_spare(&mut self) {
        let switching = &self.switching;
        let is_coming = switching.filling.is_some() || !switching.recycling.is_empty();
        if switching.ready.is_empty() && !is_coming && self.failure.is_none() {
            let (file, bytes) = (self.next_spare_name(), self.options.segment_bytes);
            self.switching.filling = Some(Filling { file, filled: 0, bytes });
            self.submit_fill();
        }
    }

    fn submit_fill(&mut self) {
        let Some(Filling { file, filled, bytes }) = &self.switching.filling else { return };
        let (file, offset) = (file.clone(), *filled);
        let length = (bytes - filled).min(FILL_BYTES);
        let zeros = match offset {
            0 => DiskStep::CreateZeroed { file: file.clone(), length },
            _ => DiskStep::WriteZeros { file: file.clone(), offset, length },
        };
        self.work.submit(DiskWork::Job(vec![zeros, DiskStep::Sync { file }]), Purpose::Fill);
    }

    pub(super) fn complete_fill(&mut self, result: Result<(), DiskError>) {
        let Some(filling) = &mut self.switching.filling else { return };
        // A spare that cannot be filled costs nothing yet, whatever the reason: it is tried again.
        if result.is_err() {
            self.switching.full.fill = true;
            self.switching.stalled.fill = true;
            return;
        }
        self.switching.full.fill = false;
        filling.filled += (filling.bytes - filling.filled).min(FILL_BYTES);
        if filling.filled < filling.bytes {
            return self.submit_fill();
        }
        if let Some(Filling { file, bytes, .. }) = self.switching.filling.take() {
            self.switching.ready.push_back((file, bytes));
        }
        self.advance_switch();
    }

    fn next_spare_name(&mut self) -> FileName {
        self.switching.next_spare += 1;
        spare_name(self.switching.next_spare)
    }

    /// Marks the directory as one that may never take part again: [`StorageEvent::DirectoryRefused`] when durable, and
    /// every later open fails with the reason.
    pub fn refuse_directory(&mut self, reason: String) {
        self.manifest.refused = Some(reason);
        self.switching.goals.push(Goal::Refused);
        self.pump_manifest();
    }

    /// The bytes of all live segments' batches.
    pub fn log_bytes(&self) -> u64 {
        self.manifest.segments.iter().map(|segment| segment.end.unwrap_or(self.active.offset)).sum()
    }

    /// Whether proposals may be accepted. `false` while the disk has no room for the next segment and the present one
    /// nears its end; storage tries again by itself ([`Storage::tick`]).
    pub fn has_room(&self) -> bool {
        self.has_room
    }

    /// Brings [`Storage::has_room`] up to date.
    pub(super) fn note_room(&mut self) {
        let full = self.switching.full;
        let reserve = self.options.segment_bytes / 4;
        let has_room =
            !full.segment && !full.manifest && (!full.fill || self.active.bytes - self.active.offset >= reserve);
        if has_room != self.has_room {
            self.has_room = has_room;
            self.events.push(StorageEvent::Room { has_room });
        }
    }

    /// When [`Storage::tick`] wants to be called; `Time::NEVER` if it need not be.
    pub fn deadline(&self) -> Time {
        match self.switching.stalled.any() && self.failure.is_none() {
            true => self.switching.retry_at.unwrap_or_default(),
            false => Time::NEVER,
        }
    }

    /// Tries again what a full disk refused, if it is time: a second after the first call that follows the refusal.
    pub fn tick(&mut self, now: Time) {
        if !self.switching.stalled.any() || self.failure.is_some() {
            return;
        }
        match self.switching.retry_at {
            None => self.switching.retry_at = Some(now + RETRY_INTERVAL),
            Some(at) if at <= now => {
                self.switching.retry_at = None;
                let stalled = std::mem::take(&mut self.switching.stalled);
                if stalled.fill {
                    self.submit_fill();
                }
                if stalled.manifest {
                    self.pump_manifest();
                }
                if stalled.segment {
                    self.advance_switch();
                }
            }
            Some(_) => {}
        }
    }
}
