//! Disk work as values: what the storage layer asks for, and what comes back, late and in order.
//!
//! The engine never touches a file below the line. It submits [`DiskWork`] and is told of its completion by an event.
//! Three lanes go on beside each other: log writes, which complete in the order of their submission; file jobs, which
//! run one after another; and reads.

use bytes::Bytes;

/// A file of the data directory, named relative to it: `name` or `folder/name`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileName(pub String);

/// Names one submission. Never used again within an incarnation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DiskWorkId(pub u64);

/// One submission to the disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DiskWork {
    /// Overwrites preallocated bytes of a log segment. `offset` and length are multiples of 4 KiB. Complete means
    /// durable, together with every log write submitted before it.
    WriteLog {
        /// A segment.
        file: FileName,
        /// Where in it.
        offset: u64,
        /// What to write.
        data: AlignedBytes,
    },
    /// Steps done one after another; the first failure ends the job. Jobs run in the order of their submission.
    Job(Vec<DiskStep>),
    /// Reads `length` bytes; fewer only where the file ends.
    Read {
        /// The file.
        file: FileName,
        /// Where in it.
        offset: u64,
        /// How many bytes.
        length: usize,
    },
}

/// One step of a [`DiskWork::Job`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DiskStep {
    /// Creates (or empties) a file and writes `length` zeros into it, not a hole. Not durable before `Sync`.
    CreateZeroed {
        /// The file.
        file: FileName,
        /// Its length in bytes.
        length: u64,
    },
    /// Creates (or empties) a file with these bytes. Not durable before `Sync`.
    Create {
        /// The file.
        file: FileName,
        /// Its content.
        data: Bytes,
    },
    /// Writes at an offset of an existing file, lengthening it if needed. Not durable before `Sync`.
    Write {
        /// The file.
        file: FileName,
        /// Where in it.
        offset: u64,
        /// What to write.
        data: Bytes,
    },
    /// Writes `length` zeros at an offset of an existing file. Not durable before `Sync`.
    WriteZeros {
        /// The file.
        file: FileName,
        /// Where in it.
        offset: u64,
        /// How many.
        length: u64,
    },
    /// Makes a file's content and length durable (fsync); not its name.
    Sync {
        /// The file.
        file: FileName,
    },
    /// Gives a file another name, in place of any file of that name. Not durable before `SyncDirectory`.
    Rename {
        /// The old name.
        from: FileName,
        /// The new name.
        to: FileName,
    },
    /// Removes a file's name, if it is there. Not durable before `SyncDirectory`.
    Remove {
        /// The file.
        file: FileName,
    },
    /// Makes the names of the data directory (and of its folders) durable.
    SyncDirectory,
}

/// What a completed submission brings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DiskDone {
    /// A log write or a job is done.
    Done,
    /// What a read found.
    Read(Bytes),
}

/// Why a submission failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{action} {file}: {message}", file = file.0)]
pub struct DiskError {
    /// What was tried: `write`, `sync`, `rename`...
    pub action: &'static str,
    /// On which file.
    pub file: FileName,
    /// Whether the disk (or a quota) is full: waiting for room may help.
    pub is_full: bool,
    /// What the system said.
    pub message: String,
}

/// Reading while a data directory is opened, before any event: the one place where the engine waits for a file.
pub trait ReadFiles {
    /// All files of the directory and its folders with their lengths, sorted by name.
    fn list(&mut self) -> Result<Vec<(FileName, u64)>, DiskError>;

    /// Reads `length` bytes at `offset`; fewer only where the file ends.
    fn read(&mut self, file: &FileName, offset: u64, length: usize) -> Result<Bytes, DiskError>;

    /// These are going to be read, from the first to the last: the disk may begin. Promises nothing, fails never.
    fn expect(&mut self, _files: &[FileName]) {}
}

/// Bytes whose address is a multiple of [`AlignedBytes::ALIGNMENT`], as direct writes need; grown by appending.
#[derive(Default)]
pub struct AlignedBytes {
    /// The allocation, longer than `length` by up to an alignment on both sides.
    allocation: Vec<u8>,
    /// Where the aligned bytes begin in it.
    start: usize,
}

impl AlignedBytes {
    /// The alignment of address, offset and length that direct writes are held to, in bytes.
    pub const ALIGNMENT: usize = 4096;

    /// An empty buffer that holds `capacity` bytes without moving.
    pub fn with_capacity(capacity: usize) -> Self {
        let mut allocation: Vec<u8> = Vec::with_capacity(capacity + Self::ALIGNMENT);
        let start = allocation.as_ptr().align_offset(Self::ALIGNMENT);
        allocation.resize(start, 0);
        Self { allocation, start }
    }

    /// The bytes so far.
    pub fn as_slice(&self) -> &[u8] {
        &self.allocation[self.start..]
    }

    /// The bytes so far, to be changed in place.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.allocation[self.start..]
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.allocation.len() - self.start
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends bytes; moves to a larger aligned allocation where the capacity does not reach.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.allocation.extend_from_slice(bytes);
    }

    /// Appends zeros until the length is `length`.
    pub fn zero_fill_to(&mut self, length: usize) {
        let more = length.saturating_sub(self.len());
        self.reserve(more);
        self.allocation.resize(self.allocation.len() + more, 0);
    }

    fn reserve(&mut self, more: usize) {
        if self.allocation.len() + more <= self.allocation.capacity() && self.allocation.capacity() != 0 {
            return;
        }
        let mut larger = Self::with_capacity((self.len() + more).max(2 * self.len()));
        larger.allocation.extend_from_slice(self.as_slice());
        *self = larger;
    }
}

impl Clone for AlignedBytes {
    fn clone(&self) -> Self {
        let mut copy = Self::with_capacity(self.len());
        copy.allocation.extend_from_slice(self.as_slice());
        copy
    }
}

impl PartialEq for AlignedBytes {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for AlignedBytes {}

impl std::fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedBytes({} bytes)", self.len())
    }
}
