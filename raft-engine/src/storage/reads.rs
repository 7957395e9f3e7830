//! Entries read back from the log: for followers far behind, and to be moved out of the oldest segment.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::batch;
use super::error::{ReadError, StorageError};
use super::events::{Pinned, ReadToken, StorageEvent};
use super::group::GroupLog;
use super::log::{Pending, Storage};
use super::places::{Place, Run};
use super::recovery::corrupt;
use super::segment::{SegmentId, segment_name};
use super::work::Purpose;
use crate::types::{DiskDone, DiskError, DiskWork, Entry, GroupId, Index};

/// Neighbouring batches are read together up to this many bytes.
const PIECE_BYTES: usize = 1 << 20;

/// How much of a segment's entries is moved at a time, in bytes.
const MOVE_BYTES: u64 = 1 << 20;

/// Reads under way.
#[derive(Debug, Default)]
pub(super) struct Reads {
    last: u64,
    under_way: BTreeMap<u64, Read>,
    /// How many entries of a group are on their way to a new place.
    moving: BTreeMap<GroupId, usize>,
}

/// One read.
#[derive(Debug)]
struct Read {
    purpose: ReadPurpose,
    group: GroupId,
    from: Index,
    through: Index,
    /// Entries of it were truncated or replaced since it began.
    is_stale: bool,
    pieces: Vec<Piece>,
    missing: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadPurpose {
    /// For the driver.
    Entries { token: ReadToken, max_bytes: usize },
    /// To be moved.
    Move,
}

/// Neighbouring batches of one segment, read at once.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) segment: u32,
    pub(super) offset: u64,
    pub(super) length: usize,
    runs: Vec<Run>,
    data: Option<Result<Bytes, DiskError>>,
}

/// The pieces to be read for these runs, in their order.
pub(super) fn pieces(runs: impl IntoIterator<Item = Run>) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for run in runs {
        let (offset, length) = (run.place.offset(), run.place.batch_bytes());
        if let Some(piece) = pieces.last_mut().filter(|piece| piece.segment == run.place.segment) {
            let end = piece.offset + piece.length as u64;
            if offset >= piece.offset && offset + length as u64 <= end {
                piece.runs.push(run);
                continue;
            }
            if offset == end && piece.length + length <= PIECE_BYTES {
                piece.length += length;
                piece.runs.push(run);
                continue;
            }
        }
        pieces.push(Piece { segment: run.place.segment, offset, length, runs: vec![run], data: None });
    }
    pieces
}

impl Piece {
    /// The entries of the piece's runs, verified, with their places. `Err` says where and what is wrong.
    pub(super) fn entries(
        &self,
        group: GroupId,
        id: SegmentId,
        data: &Bytes,
        into: &mut Vec<(Entry, Place)>,
    ) -> Result<(), StorageError> {
        let file = segment_name(self.segment);
        for run in &self.runs {
            let offset = run.place.offset();
            let start = (offset - self.offset) as usize;
            let end = start + run.place.batch_bytes();
            if data.len() < end {
                return Err(corrupt(&file, offset, "the file ends before the batch"));
            }
            let batch = batch::parse(&data.slice(start..end), id)
                .map_err(|fault| corrupt(&file, offset, format!("the batch is damaged: {fault:?}")))?;
            let rows = batch.entries().skip(run.place.row as usize).take(run.count as usize);
            let before = into.len();
            for (index, (row, range)) in (run.first..).zip(rows) {
                if row.group != group || row.index != index || range.end > run.place.batch_bytes() {
                    return Err(corrupt(&file, offset, format!("entry {index} of group {group} is not in its place")));
                }
                let entry = row.entry(batch.payload(range));
                if !entry.is_intact() {
                    let what = format!("the payload of entry {index} of group {group} is damaged");
                    return Err(corrupt(&file, offset, what));
                }
                let place = Place { row: run.place.row + (into.len() - before) as u32, ..run.place };
                into.push((entry, place));
            }
            if into.len() - before != run.count as usize {
                return Err(corrupt(&file, offset, "the batch has fewer entries than it had"));
            }
        }
        Ok(())
    }
}

impl Reads {
    /// A moved copy is durable.
    pub(super) fn moved(&mut self, group: GroupId) {
        if let Some(moving) = self.moving.get_mut(&group) {
            *moving -= 1;
            if *moving == 0 {
                self.moving.remove(&group);
            }
        }
    }
}

impl Storage {
    /// Reads durable entries from `from` through `through` (at least one, then as many as fit `max_bytes`), verified:
    /// [`StorageEvent::EntriesRead`] follows. Entries that a snapshot stands for can be read until
    /// [`Storage::compact`].
    pub fn read_entries(&mut self, token: ReadToken, group: GroupId, from: Index, through: Index, max_bytes: usize) {
        let readable = self.groups.get(&group).filter(|log| from >= log.readable_from && from <= through);
        let mut runs = Vec::new();
        if let Some(log) = readable {
            let mut bytes = 0;
            for run in log.places.range(from, through.min(log.durable())) {
                // A budget may end within a batch; what is read of it beyond is dropped.
                bytes += run.bytes as usize;
                runs.push(run);
                if bytes >= max_bytes {
                    break;
                }
            }
        }
        if runs.first().is_none_or(|run| run.first != from) {
            let entries = Err(ReadError::NotThere { group, index: from });
            self.events.push(StorageEvent::EntriesRead { token, group, entries });
            return;
        }
        self.begin_read(ReadPurpose::Entries { token, max_bytes }, group, runs);
    }

    /// The runs are not empty.
    fn begin_read(&mut self, purpose: ReadPurpose, group: GroupId, runs: Vec<Run>) {
        let (from, through) = (runs[0].first, runs[runs.len() - 1].last());
        let pieces = pieces(runs);
        self.reads.last += 1;
        for (at, piece) in pieces.iter().enumerate() {
            let file = segment_name(piece.segment);
            let work = DiskWork::Read { file, offset: piece.offset, length: piece.length };
            self.work.submit(work, Purpose::ReadPiece { read: self.reads.last, piece: at });
        }
        let missing = pieces.len();
        self.reads
            .under_way
            .insert(self.reads.last, Read { purpose, group, from, through, is_stale: false, pieces, missing });
    }

    pub(super) fn complete_read(&mut self, number: u64, piece: usize, result: Result<DiskDone, DiskError>) {
        let Some(read) = self.reads.under_way.get_mut(&number) else { return };
        read.pieces[piece].data = Some(result.map(|done| match done {
            DiskDone::Read(bytes) => bytes,
            DiskDone::Done => Bytes::new(),
        }));
        read.missing -= 1;
        if read.missing > 0 {
            return;
        }
        let Some(read) = self.reads.under_way.remove(&number) else { return };
        let entries = self.finish_read(&read);
        match (read.purpose, entries) {
            // Moved or freed on the way, but still in the log: the present copy is read.
            (ReadPurpose::Entries { token, max_bytes }, None) if !read.is_stale => {
                self.read_entries(token, read.group, read.from, read.through, max_bytes);
            }
            (ReadPurpose::Entries { token, max_bytes }, entries) => {
                let entries = entries.unwrap_or(Err(ReadError::Changed { group: read.group }));
                let entries = entries.map(|entries| within(entries, max_bytes));
                self.events.push(StorageEvent::EntriesRead { token, group: read.group, entries });
            }
            (ReadPurpose::Move, entries) => self.move_entries(read.group, entries),
        }
    }

    /// `None`: the log changed on the way, and what came counts for nothing.
    fn finish_read(&self, read: &Read) -> Option<Result<Vec<(Entry, Place)>, ReadError>> {
        let log = self.groups.get(&read.group).filter(|_| !read.is_stale)?;
        let mut entries = Vec::new();
        for piece in &read.pieces {
            let segment = self.manifest.segments.iter().find(|segment| segment.number == piece.segment)?;
            let decoded = match piece.data.as_ref()? {
                Ok(data) => piece.entries(read.group, segment.id(), data, &mut entries),
                Err(error) => Err(error.clone().into()),
            };
            if let Err(error) = decoded {
                // The segment may have been freed meanwhile, its entries compacted or moved: that is no damage.
                let is_there = |run: &Run| log.places.place(run.first) == Some(run.place);
                return piece.runs.iter().all(is_there).then(|| Err(error.into()));
            }
        }
        Some(Ok(entries))
    }

    /// Entries from `from` on are truncated: what is being read of them is another log's.
    pub(super) fn forget_reads(&mut self, group: GroupId, from: Index) {
        for read in self.reads.under_way.values_mut() {
            read.is_stale |= read.group == group && read.through >= from;
        }
    }

    /// The bytes of the group's entries in the live log, about: what its next snapshot would free.
    pub fn group_log_bytes(&self, group: GroupId) -> u64 {
        self.groups.get(&group).map_or(0, |log| log.places.bytes())
    }

    /// The bytes of all groups' entries in the live log, about.
    pub fn live_bytes(&self) -> u64 {
        self.groups.values().map(|log| log.places.bytes()).sum()
    }

    /// The oldest segment, if live entries keep it. It is freed with the next switch after they are gone.
    pub fn oldest_kept(&self) -> Option<u32> {
        let oldest = self.manifest.segments.first()?.number;
        (oldest != self.active.id.number && !self.live.is_dead(oldest)).then_some(oldest)
    }

    /// The groups with live entries in the oldest segment: snapshot each (then [`Storage::compact`]) or
    /// [`Storage::relocate`] it. Those that are being moved are not among them. Looks at all places of all groups.
    pub fn pinning_oldest(&self) -> Vec<Pinned> {
        let Some(oldest) = self.oldest_kept() else { return Vec::new() };
        let pinned = |(&group, log): (&GroupId, &GroupLog)| {
            let mut runs = log.places.runs().filter(|run| run.place.segment == oldest);
            let first = *runs.next()?;
            let mut pinned = Pinned { group, first: first.first, last: first.last(), bytes: u64::from(first.bytes) };
            for run in runs {
                pinned.last = run.last();
                pinned.bytes += u64::from(run.bytes);
            }
            Some(pinned)
        };
        self.groups.iter().filter(|(group, _)| !self.reads.moving.contains_key(group)).filter_map(pinned).collect()
    }

    /// How many groups' entries are on their way to a new place.
    pub fn moving_groups(&self) -> usize {
        self.reads.moving.len()
    }

    /// Copies the group's live entries of the oldest segment to the end of the log, about 1 MiB a call, as moved
    /// records. Does nothing while an earlier call's copies are on their way.
    pub fn relocate(&mut self, group: GroupId) {
        let Some(oldest) = self.manifest.segments.first().map(|segment| segment.number) else { return };
        if oldest == self.active.id.number || self.reads.moving.contains_key(&group) {
            return;
        }
        let Some(log) = self.groups.get(&group) else { return };
        let mut runs = Vec::new();
        let (mut bytes, mut count) = (0, 0);
        for run in log.places.runs().filter(|run| run.place.segment == oldest) {
            bytes += u64::from(run.bytes);
            count += run.count as usize;
            runs.push(*run);
            if bytes >= MOVE_BYTES {
                break;
            }
        }
        if count > 0 {
            self.reads.moving.insert(group, count);
            self.begin_read(ReadPurpose::Move, group, runs);
        }
    }

    fn move_entries(&mut self, group: GroupId, entries: Option<Result<Vec<(Entry, Place)>, ReadError>>) {
        match entries {
            Some(Ok(entries)) => {
                for (entry, from) in entries {
                    self.push_pending(Pending::Moved { group, entry, from });
                }
            }
            Some(Err(ReadError::Storage(error))) => {
                self.reads.moving.remove(&group);
                self.fail(error);
            }
            Some(Err(_)) | None => {
                self.reads.moving.remove(&group);
            }
        }
    }
}

fn within(entries: Vec<(Entry, Place)>, max_bytes: usize) -> Vec<Entry> {
    let mut bytes = 0;
    let fits = entries.into_iter().map(|(entry, _)| entry).enumerate().take_while(|(at, entry)| {
        bytes += entry.cost_bytes();
        *at == 0 || bytes <= max_bytes
    });
    fits.map(|(_, entry)| entry).collect()
}
