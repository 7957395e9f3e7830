//! Recovery by position: from the manifest over the segments to the state, reading only.
//!
//! Torn or corrupt is decided by position, not by what follows. A bad batch below the highest synced position that any
//! valid batch names is corruption, and the directory is refused with no byte changed; at or above it the tail was torn,
//! whatever valid bytes lie behind, and is cut there. A segment is synced before the next one opens, so everything but
//! the end of the last one is below the synced position.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::batch::{self, Batch, BatchKind, Fault};
use super::manifest::{LiveSegment, Manifest, manifest_name, new_manifest_name};
use super::places::{LiveEntries, Place, Places, Run};
use super::record::Control;
use super::segment::{BLOCK_BYTES, REMEDY, VERSION, check_header, segment_name};
use super::snapshot_file::{SnapshotReader, incoming_group, snapshot_name};
use super::state::{LogChange, State};
use super::switch::MOST_SPARES;
use super::{StorageError, StorageOptions};
use crate::codec;
use crate::types::{FileName, GroupId, Index, ReadFiles};

/// How much is read at once, in bytes.
const PIECE_BYTES: usize = 4 << 20;

/// What was found.
#[derive(Debug)]
pub(super) enum Directory {
    /// No server yet, but perhaps files of an interrupted creation.
    New { leftovers: Vec<FileName> },
    /// A server's.
    Known(Box<Found>),
}

/// What a directory with a manifest holds.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) manifest: Manifest,
    pub(super) log: Log,
    /// Where the last segment's kept batches end.
    pub(super) end: u64,
    /// Whether anything but zeros was cut behind it.
    pub(super) is_torn: bool,
    /// The bytes of the last segment from the synced position to `end`, to be rewritten, and where they begin.
    pub(super) tail: (u64, Bytes),
    /// Files filled ahead or recycled, to be used again, by their names and lengths.
    pub(super) spares: Vec<(FileName, u64)>,
    /// Files that nothing names.
    pub(super) leftovers: Vec<FileName>,
    /// What was being received, with its length: a leader may go on with it.
    pub(super) incoming: Vec<(FileName, u64)>,
}

/// What replaying the log gives.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) state: State,
    pub(super) places: BTreeMap<GroupId, Places>,
    pub(super) live: LiveEntries,
    /// The next batch's sequence number.
    pub(super) next_sequence: u64,
}

/// Reads the directory.
pub(super) fn recover(files: &mut dyn ReadFiles, options: &StorageOptions) -> Result<Directory, StorageError> {
    let listed: BTreeMap<FileName, u64> = files.list()?.into_iter().collect();
    let Some(&length) = listed.get(&manifest_name()) else {
        return new_directory(files, &listed).map(|leftovers| Directory::New { leftovers });
    };
    let bytes = files.read(&manifest_name(), 0, length as usize)?;
    let manifest = Manifest::decode(&bytes)?;
    check_owner(&manifest, options)?;
    if let Some(reason) = &manifest.refused {
        return Err(StorageError::Refused { reason: reason.clone() });
    }
    let mut log = Log::default();
    let mut end = BLOCK_BYTES;
    let mut is_torn = false;
    let mut tail = (BLOCK_BYTES, Bytes::new());
    let Some(last) = manifest.segments.last() else {
        return Err(corrupt(&manifest_name(), 0, "the manifest names no segment"));
    };
    // What has come is looked at while the disk brings the rest.
    files.expect(&manifest.segments.iter().map(|live| segment_name(live.number)).collect::<Vec<_>>());
    for segment in &manifest.segments {
        let file = segment_name(segment.number);
        if listed.get(&file).is_none_or(|&length| length < segment.bytes) {
            return Err(corrupt(&file, 0, "the manifest names this segment, and it is missing or too short"));
        }
        let mut reader = SegmentReader { files, segment, file, piece: Bytes::new(), piece_offset: 0 };
        reader.check_header(&manifest)?;
        let first = segment.number == manifest.segments[0].number;
        let replayed = reader.replay(&mut log, first)?;
        end = replayed.end;
        is_torn = replayed.is_torn;
        if segment.number == last.number {
            let kept = reader.files.read(&reader.file, replayed.synced, (end - replayed.synced) as usize)?;
            if kept.len() as u64 != end - replayed.synced {
                return Err(corrupt(&reader.file, replayed.synced, "the segment became shorter while it was read"));
            }
            tail = (replayed.synced, kept);
        }
    }
    check_complete(&log)?;
    check_snapshots(files, &log.state, &listed)?;
    let (spares, leftovers) = sort_out(&manifest, &log.state, &listed, options.segment_bytes);
    let incoming = listed.into_iter().filter(|(file, _)| incoming_group(file).is_some()).collect();
    Ok(Directory::Known(Box::new(Found { manifest, log, end, is_torn, tail, spares, leftovers, incoming })))
}

fn check_owner(manifest: &Manifest, options: &StorageOptions) -> Result<(), StorageError> {
    let foreign = |what, found: String, expected: String| Err(StorageError::Foreign { what, found, expected });
    if manifest.cluster != options.cluster {
        return foreign("cluster", manifest.cluster.to_string(), options.cluster.to_string());
    }
    if manifest.server != options.server {
        return foreign("server", manifest.server.to_string(), options.server.to_string());
    }
    Ok(())
}

pub(super) fn corrupt(file: &FileName, offset: u64, what: impl ToString) -> StorageError {
    StorageError::Corrupt { file: file.clone(), offset, what: what.to_string(), remedy: REMEDY }
}

/// A directory without a manifest is new, unless it holds what only a directory with one can hold: records behind a
/// first checkpoint, later segments, snapshots. The manifest is durable before the first record is written.
fn new_directory(files: &mut dyn ReadFiles, listed: &BTreeMap<FileName, u64>) -> Result<Vec<FileName>, StorageError> {
    let missing = |file: &FileName| corrupt(&manifest_name(), 0, format!("the manifest is missing beside {}", file.0));
    let mut leftovers = Vec::new();
    for (file, &length) in listed {
        if is_snapshot(file) || incoming_group(file).is_some() {
            return Err(missing(file));
        }
        if file.0.starts_with("segment-") {
            if *file != segment_name(1) || has_records(files, file, length)? {
                return Err(missing(file));
            }
            leftovers.push(file.clone());
        } else if is_spare(file) || *file == new_manifest_name() {
            leftovers.push(file.clone());
        }
    }
    Ok(leftovers)
}

/// Whether anything but zeros follows the first segment's header and checkpoint. A new segment is filled with zeros.
fn has_records(files: &mut dyn ReadFiles, file: &FileName, length: u64) -> Result<bool, StorageError> {
    let mut offset = 0;
    let mut batches = 0;
    while offset < length {
        let piece = files.read(file, offset, PIECE_BYTES)?;
        if piece.is_empty() {
            break;
        }
        for block in piece.chunks(BLOCK_BYTES as usize) {
            batches += usize::from(block.starts_with(b"raftbtch"));
        }
        offset += piece.len() as u64;
    }
    Ok(batches > 1)
}

fn is_spare(file: &FileName) -> bool {
    file.0.starts_with("spare-")
}

fn is_snapshot(file: &FileName) -> bool {
    file.0.starts_with("snapshot-")
}

/// Every entry behind the snapshot must have been found: a hole means that a segment was taken away.
fn check_complete(log: &Log) -> Result<(), StorageError> {
    for (group, state) in &log.state.groups {
        let (from, through) = (state.outline.snapshot().index + 1, state.outline.last());
        if from > through {
            continue;
        }
        let gap = log.places.get(group).map_or(Some(from), |places| places.first_gap(from, through));
        if let Some(index) = gap {
            let what = format!("no live segment holds entry {index} of group {group}");
            return Err(corrupt(&manifest_name(), 0, what));
        }
    }
    Ok(())
}

/// A mark whose file is not what it was means that the entries before it are lost.
fn check_snapshots(
    files: &mut dyn ReadFiles,
    state: &State,
    listed: &BTreeMap<FileName, u64>,
) -> Result<(), StorageError> {
    for (&group, state) in &state.groups {
        let Some(meta) = &state.snapshot else { continue };
        let file = snapshot_name(group, meta.into());
        if listed.get(&file) != Some(&meta.file_bytes) {
            return Err(corrupt(&file, 0, "the log marks this snapshot, and it is missing or of another length"));
        }
        let mut reader = SnapshotReader::new(group);
        let (mut offset, mut crc) = (0, 0);
        while offset < meta.file_bytes {
            let piece = files.read(&file, offset, PIECE_BYTES)?;
            if piece.is_empty() {
                break;
            }
            crc = crc32c::crc32c_append(crc, &piece);
            let length = piece.len() as u64;
            reader.push(piece).map_err(|error| corrupt(&file, offset, error))?;
            offset += length;
        }
        reader.finish().map_err(|error| corrupt(&file, offset, error))?;
        let found = reader.head().map(|head| head.meta(offset, crc));
        if found.as_ref() != Some(meta) {
            return Err(corrupt(&file, 0, "the snapshot is not the one that the log marks"));
        }
    }
    Ok(())
}

fn sort_out(
    manifest: &Manifest,
    state: &State,
    listed: &BTreeMap<FileName, u64>,
    spare_bytes: u64,
) -> (Vec<(FileName, u64)>, Vec<FileName>) {
    let mut named: BTreeSet<FileName> = manifest.segments.iter().map(|live| segment_name(live.number)).collect();
    named.extend(
        state.groups.iter().filter_map(|(&group, state)| Some(snapshot_name(group, state.snapshot.as_ref()?.into()))),
    );
    let mut spares = Vec::new();
    let mut leftovers = Vec::new();
    for (file, &length) in listed {
        if is_spare(file) && length == spare_bytes && spares.len() < MOST_SPARES {
            spares.push((file.clone(), length));
        } else if is_spare(file)
            || *file == new_manifest_name()
            || ((file.0.starts_with("segment-") || is_snapshot(file)) && !named.contains(file))
        {
            leftovers.push(file.clone());
        }
    }
    (spares, leftovers)
}

/// Reads one segment from its start, in large pieces.
struct SegmentReader<'a> {
    files: &'a mut dyn ReadFiles,
    segment: &'a LiveSegment,
    file: FileName,
    piece: Bytes,
    piece_offset: u64,
}

/// What replaying one segment told.
struct Replayed {
    /// Where its kept batches end.
    end: u64,
    /// The highest synced position in it that is known: nothing below needs to be made durable again.
    synced: u64,
    /// Whether anything of this segment was found behind `end`.
    is_torn: bool,
}

impl SegmentReader<'_> {
    /// The bytes from `offset`, `length` of them, or fewer where the segment ends.
    fn bytes(&mut self, offset: u64, length: usize) -> Result<Bytes, StorageError> {
        let length = length.min((self.segment.bytes.saturating_sub(offset)) as usize);
        let inside = offset.checked_sub(self.piece_offset).map(|start| start as usize);
        if let Some(start) = inside.filter(|start| start + length <= self.piece.len()) {
            return Ok(self.piece.slice(start..start + length));
        }
        self.piece = self.files.read(&self.file, offset, length.max(PIECE_BYTES))?;
        self.piece_offset = offset;
        Ok(self.piece.slice(..length.min(self.piece.len())))
    }

    fn check_header(&mut self, manifest: &Manifest) -> Result<(), StorageError> {
        let header = self.bytes(0, BLOCK_BYTES as usize)?;
        check_header(&header, self.segment.id(), manifest.identity, self.segment.bytes)
    }

    /// The batch at `offset`, whole, with its payloads verified.
    fn batch(&mut self, offset: u64, sequence: u64) -> Result<Result<Batch, Fault>, StorageError> {
        let header = self.bytes(offset, batch::HEADER_BYTES)?;
        let Some(lengths) = batch::lengths(&header, self.segment.id()) else {
            return Ok(Err(Fault::Header("there is no batch of this segment")));
        };
        if offset + lengths.total > self.segment.bytes {
            return Ok(Err(Fault::Header("the batch reaches beyond the segment")));
        }
        let bytes = self.bytes(offset, lengths.total as usize)?;
        let batch = match batch::parse(&bytes, self.segment.id()) {
            Ok(batch) => batch,
            Err(fault) => return Ok(Err(fault)),
        };
        if batch.head.sequence != sequence {
            return Ok(Err(Fault::Header("the batch is not the next one")));
        }
        Ok(batch.verify_payloads().map(|()| batch))
    }

    fn replay(&mut self, log: &mut Log, is_first: bool) -> Result<Replayed, StorageError> {
        let checkpoint = match self.batch(BLOCK_BYTES, self.segment.first_sequence)? {
            Ok(batch) if batch.head.kind == BatchKind::Checkpoint => batch,
            Ok(_) => return Err(corrupt(&self.file, BLOCK_BYTES, "the segment does not begin with a checkpoint")),
            Err(fault) => return Err(self.damage(BLOCK_BYTES, &fault)),
        };
        let frames = checkpoint.frames().map_err(|what| corrupt(&self.file, BLOCK_BYTES, what))?;
        let state = State::from_frames(frames.into_iter().map(|(_, body)| body))
            .map_err(|what| corrupt(&self.file, BLOCK_BYTES, what))?;
        if is_first {
            log.state = state;
        } else if log.state != state || log.next_sequence != self.segment.first_sequence {
            let what = "the checkpoint is not what the segments before it hold";
            return Err(corrupt(&self.file, BLOCK_BYTES, what));
        }
        log.next_sequence = self.segment.first_sequence + 1;
        let mut offset = BLOCK_BYTES + checkpoint.total_bytes;
        // The manifest names a segment only after its header and checkpoint are synced, and the ones before it entirely.
        let mut synced = offset;
        loop {
            if self.segment.end == Some(offset) {
                return Ok(Replayed { end: offset, synced: offset, is_torn: false });
            }
            let fault = match self.batch(offset, log.next_sequence)? {
                Ok(batch) if batch.head.kind == BatchKind::Records => {
                    log.replay(&batch, self.segment.number, offset)
                        .map_err(|what| corrupt(&self.file, offset, what))?;
                    synced = synced.max(self.synced_by(&batch));
                    offset += batch.total_bytes;
                    log.next_sequence += 1;
                    continue;
                }
                Ok(_) => return Err(corrupt(&self.file, offset, "a checkpoint lies behind the start of the segment")),
                Err(fault) => fault,
            };
            if self.segment.end.is_some() || matches!(fault, Fault::Unknown(_)) {
                return Err(self.damage(offset, &fault));
            }
            let (named_behind, is_torn) = self.scan_behind(offset)?;
            synced = synced.max(named_behind);
            if synced > offset {
                return Err(self.damage(offset, &fault));
            }
            return Ok(Replayed { end: offset, synced, is_torn });
        }
    }

    /// The offset in this segment that a batch of it names as synced.
    fn synced_by(&self, batch: &Batch) -> u64 {
        if batch.head.synced_segment == self.segment.number { batch.head.synced_offset } else { 0 }
    }

    /// The highest synced position that any valid batch behind a bad one names, and whether there is anything there.
    fn scan_behind(&mut self, bad: u64) -> Result<(u64, bool), StorageError> {
        let mut named = 0;
        let mut is_torn = false;
        let mut offset = bad;
        while offset < self.segment.bytes {
            let header = self.bytes(offset, batch::HEADER_BYTES)?;
            if let Some(lengths) = batch::lengths(&header, self.segment.id()) {
                is_torn = true;
                let bytes = self.bytes(offset, lengths.covered as usize)?;
                match batch::parse(&bytes, self.segment.id()) {
                    Ok(batch) => named = named.max(self.synced_by(&batch)),
                    Err(fault @ Fault::Unknown(_)) => return Err(self.damage(offset, &fault)),
                    Err(Fault::Header(_) | Fault::Payload { .. }) => {}
                }
            }
            offset += BLOCK_BYTES;
        }
        Ok((named, is_torn))
    }

    fn damage(&self, offset: u64, fault: &Fault) -> StorageError {
        match fault {
            Fault::Header(what) => corrupt(&self.file, offset, what),
            Fault::Payload { group, index } => {
                corrupt(&self.file, offset, format!("the payload of entry {index} of group {group} is damaged"))
            }
            Fault::Unknown(version) if *version != VERSION => {
                StorageError::UnknownVersion { file: self.file.clone(), version: *version, known: VERSION }
            }
            Fault::Unknown(_) => corrupt(&self.file, offset, "the batch holds a kind of record that does not exist"),
        }
    }
}

impl Log {
    /// Applies a batch's records in the order in which they were appended.
    fn replay(&mut self, batch: &Batch, segment: u32, offset: u64) -> Result<(), String> {
        let block = (offset / BLOCK_BYTES) as u32;
        let blocks = (batch.total_bytes / BLOCK_BYTES) as u32;
        let mut frames = batch.frames()?.into_iter().peekable();
        let mut run: Option<(GroupId, Run)> = None;
        for (at, (row, range)) in (0_u32..).zip(batch.entries()) {
            while let Some((_, body)) = frames.next_if(|frame| frame.0 <= at) {
                self.place(run.take());
                self.replay_control(body)?;
            }
            let place = Place { segment, block, blocks, row: at };
            let bytes = row.payload_bytes.saturating_add(batch::ROW_BYTES as u32);
            let state = self.state.group(row.group);
            if row.is_moved {
                let is_live = row.index > state.outline.snapshot().index;
                let is_present = is_live && state.outline.term_at(row.index) == Some(row.term);
                self.place(run.take());
                if is_present {
                    self.places.entry(row.group).or_default().set(row.index, place, bytes, &mut self.live);
                }
                continue;
            }
            state.apply_entry(row.index, row.term, row.kind, || row.entry(batch.payload(range)))?;
            match &mut run {
                Some((group, run)) if *group == row.group => {
                    run.count += 1;
                    run.bytes = run.bytes.saturating_add(bytes);
                }
                _ => {
                    let begun = Run { first: row.index, count: 1, place, bytes };
                    self.place(run.replace((row.group, begun)));
                }
            }
        }
        self.place(run);
        frames.try_for_each(|(_, body)| self.replay_control(body))
    }

    /// Entries of one group in consecutive rows have their places.
    fn place(&mut self, run: Option<(GroupId, Run)>) {
        if let Some((group, run)) = run {
            self.places.entry(group).or_default().push(run, &mut self.live);
        }
    }

    fn replay_control(&mut self, body: &[u8]) -> Result<(), String> {
        let control: Control = codec::decode(body).map_err(|error| error.to_string())?;
        let change = self.state.apply(&control)?;
        self.change_places(change);
        Ok(())
    }

    fn change_places(&mut self, change: LogChange) {
        match change {
            LogChange::None => {}
            LogChange::Truncated { group, from } => self.truncate_places(group, from),
            LogChange::Replaced { group } => self.truncate_places(group, 0),
            LogChange::Marked { group, through } => {
                self.places.entry(group).or_default().compact(through, &mut self.live);
            }
        }
    }

    fn truncate_places(&mut self, group: GroupId, from: Index) {
        self.places.entry(group).or_default().truncate(from, &mut self.live);
    }
}
