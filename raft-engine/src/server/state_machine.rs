//! What a host hands to the engine: a state machine, called serially, off the loop, inside a dispatch.
//!
//! A panic in any of these callbacks is caught and stops the group; the host lives.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use bytes::Bytes;

use super::{Completion, Notice};
use crate::driver::{self, Sessions, SessionsReader};
use crate::types::{Entry, GroupId, HostDigest, Index, LogTime, SnapshotMeta, SnapshotSection, Term};

/// A replicated state machine. Its calls never overlap; they come from the thread that dispatches.
pub trait StateMachine: Send {
    /// Applies entries in log order. What it does to the state, and the results it sets, must be the same on every
    /// replica: it may depend on nothing but the state and the entries.
    ///
    /// # Errors
    /// Says how many entries of the batch it applied; the next one failed. It stays unapplied, and the group stops: it
    /// is never tried again and never skipped.
    fn apply(&mut self, batch: &mut ApplyBatch<'_>) -> Result<(), ApplyFailure>;

    /// Answers a query from the state as it is, by appending to `reply`, without changing it.
    ///
    /// # Errors
    /// A message for the one who asked; nothing stops.
    fn query(&mut self, request: &[u8], reply: &mut Vec<u8>) -> Result<(), String> {
        let _ = (request, reply);
        Err("this state machine answers no queries".into())
    }

    /// Begins a snapshot of the state as it is. Must be cheap: entries wait. The source is read in the background, on
    /// another thread (threaded mode), or interleaved with `apply` (host mode).
    ///
    /// # Errors
    /// A message; the log stays as long as it is, and the snapshot is tried again later.
    fn snapshot(&mut self) -> Result<Box<dyn SnapshotSource>, String>;

    /// Replaces the state by a complete, verified snapshot, all or nothing. Never reads from the network.
    ///
    /// # Errors
    /// A message; the group stops.
    fn restore(&mut self, snapshot: &mut SnapshotReader) -> Result<(), String>;

    /// Tells what the state comes down to: bytes that are equal where states are and, as far as can be, only there. Asked
    /// for between batches, at the same entry on every replica, by [`super::Group::check_digests`]; what differs there is a
    /// state that went its own way. May take its time: entries wait, heartbeats do not. `None`, which is the default: this
    /// state machine takes no part.
    ///
    /// # Errors
    /// A message for a warning; this replica has nothing to say then, and nothing stops.
    fn digest(&mut self) -> Result<Option<HostDigest>, String> {
        Ok(None)
    }

    /// Takes the ends of requests, in log order where they were applied. Called with
    /// [`super::CompletionDelivery::Callback`] only; proposing from here is allowed and never blocks.
    fn completed(&mut self, completions: &[Completion]) {
        let _ = completions;
    }

    /// Hears of something it did not ask for: roles, configurations, a stop.
    fn notice(&mut self, notice: &Notice) {
        let _ = notice;
    }

    /// The last index that the state holds by itself when the group is started: 0 unless the host keeps the state on
    /// its own disk. Asked once, by [`super::Server::start_group`]. Beyond the log, the start is refused.
    fn applied_index(&self) -> Index {
        0
    }
}

/// How far a failed `apply` came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApplyFailure {
    /// How many entries of the batch are applied, with their results set.
    pub applied: usize,
    /// Why the next one is not; shown in status and notices.
    pub message: String,
}

/// One entry to apply: bytes that a host proposed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ApplyEntry<'a> {
    /// Its place in the log. Grows, with gaps where the engine's own entries are.
    pub index: Index,
    /// The term of the leader that made it.
    pub term: Term,
    /// The group's time when it was made, in nanoseconds since the group was formed; no wall clock is in it.
    pub log_time: LogTime,
    /// The bytes as proposed.
    pub data: &'a [u8],
}

/// Committed entries, and room for their results.
pub struct ApplyBatch<'a> {
    pub(super) entries: &'a [Entry],
    /// The results one after another.
    pub(super) results: &'a mut Vec<u8>,
    /// Where in `results` each entry's result is, by position; empty until set.
    pub(super) places: &'a mut Vec<(u32, u32)>,
}

impl<'a> ApplyBatch<'a> {
    /// The longest result of an entry, in bytes.
    pub const MAX_RESULT_BYTES: usize = 1 << 20;

    /// How many entries there are; never 0.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Always false: an empty batch is never handed out.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry at this position.
    ///
    /// # Panics
    /// At or beyond [`ApplyBatch::len`].
    pub fn entry(&self, position: usize) -> ApplyEntry<'a> {
        view(&self.entries[position])
    }

    /// The entries in log order. Does not borrow the batch, so results can be set on the way.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = ApplyEntry<'a>> + use<'a> {
        self.entries.iter().map(view)
    }

    /// Sets the result of the entry at this position, which is copied; the last one set counts.
    ///
    /// # Errors
    /// Longer than [`ApplyBatch::MAX_RESULT_BYTES`], or no such position: nothing is set.
    pub fn set_result(&mut self, position: usize, result: &[u8]) -> Result<(), String> {
        if result.len() > Self::MAX_RESULT_BYTES {
            return Err(format!("a result of {} bytes is longer than {}", result.len(), Self::MAX_RESULT_BYTES));
        }
        let Some(place) = self.places.get_mut(position) else {
            return Err(format!("there is no entry {position} in a batch of {}", self.entries.len()));
        };
        let (Ok(start), Ok(length)) = (u32::try_from(self.results.len()), u32::try_from(result.len())) else {
            return Err("the results of a batch are longer than 4 GiB".into());
        };
        self.results.extend_from_slice(result);
        *place = (start, length);
        Ok(())
    }
}

fn view(entry: &Entry) -> ApplyEntry<'_> {
    ApplyEntry { index: entry.index, term: entry.term, log_time: entry.log_time, data: &entry.payload }
}

/// A snapshot being written: the state as it was when it began. Dropped when it is done or given up.
pub trait SnapshotSource: Send {
    /// Fills the front of `buffer` with the next bytes. Never called again after the last step or a failure.
    ///
    /// # Errors
    /// A message; the snapshot is given up.
    fn write(&mut self, buffer: &mut [u8]) -> Result<SnapshotStep, String>;
}

/// What one step of a snapshot wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotStep {
    /// How many bytes of the buffer are filled; 0 is allowed.
    pub bytes: usize,
    /// Whether the snapshot is complete with them.
    pub is_last: bool,
}

/// A complete, verified snapshot on the local disk, to be read from its beginning to its end.
pub struct SnapshotReader {
    file: File,
    /// Takes the file's own framing off, and verifies it once more on the way.
    decoder: driver::SnapshotReader,
    /// The table of sessions that comes first, until it is taken.
    sessions: SessionsReader,
    /// Bytes of the host, decoded and not yet read.
    ready: VecDeque<Bytes>,
    is_at_end: bool,
    group: GroupId,
    total_bytes: OnceCell<u64>,
    index: Index,
    term: Term,
}

/// How much of a snapshot file is read at once.
const READ_BYTES: usize = 256 << 10;

impl SnapshotReader {
    pub(super) fn new(file: File, group: GroupId, meta: &SnapshotMeta) -> Self {
        Self {
            file,
            decoder: driver::SnapshotReader::new(group),
            sessions: SessionsReader::default(),
            ready: VecDeque::new(),
            is_at_end: false,
            group,
            total_bytes: OnceCell::new(),
            index: meta.position.index,
            term: meta.position.term,
        }
    }

    /// How many bytes there are to read in all. The first call goes through the file, so ask only where it helps; 0
    /// where the file cannot be read, which [`Read::read`] then tells of.
    pub fn total_bytes(&self) -> u64 {
        *self.total_bytes.get_or_init(|| self.count_bytes().unwrap_or(0))
    }

    fn count_bytes(&self) -> io::Result<u64> {
        let mut decoder = driver::SnapshotReader::new(self.group);
        let (mut total_bytes, mut offset) = (0, 0);
        loop {
            let mut buffer = vec![0; READ_BYTES];
            let count = self.file.read_at(&mut buffer, offset)?;
            if count == 0 {
                return Ok(total_bytes);
            }
            buffer.truncate(count);
            offset += count as u64;
            let decoded = decoder.push(buffer.into()).map_err(io::Error::other)?;
            let of_host = decoded.iter().filter(|(section, _)| *section == SnapshotSection::Host);
            total_bytes += of_host.map(|(_, piece)| piece.len() as u64).sum::<u64>();
        }
    }

    /// The last entry that the snapshot includes.
    pub fn index(&self) -> Index {
        self.index
    }

    /// That entry's term.
    pub fn term(&self) -> Term {
        self.term
    }

    /// Reads the sessions, which come before anything of the host.
    pub(super) fn take_sessions(&mut self) -> io::Result<Sessions> {
        self.fill()?;
        std::mem::take(&mut self.sessions).finish().map_err(io::Error::other)
    }

    /// Goes on to the next bytes of the host.
    fn fill(&mut self) -> io::Result<()> {
        while self.ready.is_empty() && !self.is_at_end {
            let mut buffer = vec![0; READ_BYTES];
            let count = self.file.read(&mut buffer)?;
            buffer.truncate(count);
            if count == 0 {
                self.decoder.finish().map_err(io::Error::other)?;
                self.is_at_end = true;
            } else {
                let decoded = self.decoder.push(buffer.into()).map_err(io::Error::other)?;
                for (section, piece) in decoded {
                    match section {
                        SnapshotSection::Sessions => self.sessions.push(&piece).map_err(io::Error::other)?,
                        SnapshotSection::Host => self.ready.push_back(piece),
                    }
                }
            }
        }
        Ok(())
    }
}

impl Read for SnapshotReader {
    /// Reads the next bytes; 0 at the end, which is reached only if the whole file was intact.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.fill()?;
        let Some(piece) = self.ready.front_mut() else { return Ok(0) };
        let count = piece.len().min(buffer.len());
        buffer[..count].copy_from_slice(&piece.split_to(count));
        if piece.is_empty() {
            self.ready.pop_front();
        }
        Ok(count)
    }
}
