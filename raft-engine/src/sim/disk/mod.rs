//! A disk that keeps what was synced apart from what was written.
//!
//! Each file has two contents, the one that a process sees (the page cache) and the one that survives a power cut, and
//! each directory two sets of names. Between them lie the faults: a killed process leaves the first visible and
//! unsynced; a power cut loses, tears and reorders what lies between them, in sectors of 512 bytes and single names.
//! The disk takes the engine's submissions as they are, a log write or a step at a time, and knows nothing of what the
//! bytes mean.

mod inode;
mod names;
mod view;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use fastrand::Rng;

use crate::types::{AlignedBytes, DiskDone, DiskError, DiskStep, DiskWork, DiskWorkId, FileName};
use inode::Inode;
use names::Names;
pub(super) use view::{SyncedFiles, VisibleFiles};

/// How much of what was not synced a crash keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kept {
    Nothing,
    Everything,
    /// The first so many of it.
    Prefix,
    /// Each piece or not.
    Some,
}

impl Kept {
    fn random(rng: &mut Rng) -> Self {
        [Self::Nothing, Self::Everything, Self::Prefix, Self::Some, Self::Some][rng.usize(..5)]
    }
}

/// Which lane a submission went to: the world schedules what comes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lane {
    /// One more log write: [`SimDisk::complete_log_write`] is due once more.
    Log,
    /// A job, and whether the lane was idle, so that its first [`SimDisk::step_job`] is due.
    Job { was_idle: bool },
    /// A read: [`SimDisk::complete_read`] is due.
    Read,
}

/// What a crash did to the log writes that were under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct CrashReport {
    /// Log writes submitted and not completed.
    pub(super) in_flight: u64,
    /// Those of them that reached the disk in part.
    pub(super) torn: u64,
    /// Those of them that are visible, in whole or in part, and not synced.
    pub(super) unsynced: u64,
}

/// How a submission ended.
pub(super) type Ending = Result<DiskDone, DiskError>;

struct LogWrite {
    id: DiskWorkId,
    inode: Option<u64>,
    file: FileName,
    offset: u64,
    data: AlignedBytes,
}

struct Job {
    id: DiskWorkId,
    steps: Vec<DiskStep>,
    next: usize,
}

/// One server's data directory.
pub(super) struct SimDisk {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    names: Names,
    log_writes: VecDeque<LogWrite>,
    jobs: VecDeque<Job>,
    reads: BTreeMap<DiskWorkId, (FileName, u64, usize)>,
    /// Log writes go around the page cache (O_DIRECT); else a killed process may leave them in it.
    is_direct: bool,
    /// A log write failed in this incarnation: none completes any more, as the contract of the lane says.
    log_failed: bool,
    fail_next_log_write: bool,
    fail_next_sync: bool,
    /// How many bytes all files may have together.
    capacity_bytes: Option<u64>,
}

impl SimDisk {
    /// An empty directory.
    pub(super) fn new(is_direct: bool) -> Self {
        Self {
            inodes: BTreeMap::new(),
            next_inode: 1,
            names: Names::default(),
            log_writes: VecDeque::new(),
            jobs: VecDeque::new(),
            reads: BTreeMap::new(),
            is_direct,
            log_failed: false,
            fail_next_log_write: false,
            fail_next_sync: false,
            capacity_bytes: None,
        }
    }

    /// Takes one submission.
    pub(super) fn submit(&mut self, id: DiskWorkId, work: DiskWork) -> Lane {
        match work {
            DiskWork::WriteLog { file, offset, data } => {
                let alignment = AlignedBytes::ALIGNMENT;
                assert!(
                    offset.is_multiple_of(alignment as u64) && data.len().is_multiple_of(alignment) && !data.is_empty(),
                    "a log write of {} bytes at {offset} is not aligned",
                    data.len()
                );
                let inode = self.names.visible(&file);
                self.log_writes.push_back(LogWrite { id, inode, file, offset, data });
                Lane::Log
            }
            DiskWork::Job(steps) => {
                let was_idle = self.jobs.is_empty();
                self.jobs.push_back(Job { id, steps, next: 0 });
                Lane::Job { was_idle }
            }
            DiskWork::Read { file, offset, length } => {
                self.reads.insert(id, (file, offset, length));
                Lane::Read
            }
        }
    }

    /// The oldest log write becomes durable, or fails.
    pub(super) fn complete_log_write(&mut self, rng: &mut Rng) -> Option<(DiskWorkId, Ending)> {
        let write = self.log_writes.pop_front()?;
        let failed = |message| Err(error("write", &write.file, message));
        let Some(inode) = write.inode.and_then(|number| self.inodes.get_mut(&number)) else {
            self.log_failed = true;
            return Some((write.id, failed("no such file")));
        };
        let data = write.data.as_slice();
        assert!(
            write.offset + data.len() as u64 <= inode.visible().len() as u64,
            "a log write behind the end of {}",
            write.file.0
        );
        if std::mem::take(&mut self.fail_next_log_write) {
            self.log_failed = true;
            crash_write(inode, write.offset, data, Kept::random(rng), rng.bool(), rng);
            return Some((write.id, failed("injected input/output error")));
        }
        if self.log_failed {
            crash_write(inode, write.offset, data, Kept::random(rng), rng.bool(), rng);
            return Some((write.id, failed("an earlier write failed")));
        }
        inode.write_synced(write.offset, data);
        Some((write.id, Ok(DiskDone::Done)))
    }

    /// Does the next step of the oldest job. Says which step it was, and the job's end if it was the last one or failed.
    pub(super) fn step_job(&mut self) -> Option<(DiskWorkId, DiskStep, Option<Ending>)> {
        let job = self.jobs.front_mut()?;
        let id = job.id;
        let Some(step) = job.steps.get(job.next).cloned() else {
            self.jobs.pop_front();
            return Some((id, DiskStep::SyncDirectory, Some(Ok(DiskDone::Done))));
        };
        job.next += 1;
        let is_last = job.next == job.steps.len();
        let result = self.do_step(&step);
        if is_last || result.is_err() {
            self.jobs.pop_front();
            return Some((id, step, Some(result.map(|()| DiskDone::Done))));
        }
        Some((id, step, None))
    }

    /// Whether a log write is under way.
    pub(super) fn is_writing_log(&self) -> bool {
        !self.log_writes.is_empty()
    }

    /// Whether a job waits for its next step.
    pub(super) fn has_job(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Does a read.
    pub(super) fn complete_read(&mut self, id: DiskWorkId) -> Option<Ending> {
        let (file, offset, length) = self.reads.remove(&id)?;
        Some(self.read_visible(&file, offset, length).map(DiskDone::Read))
    }

    /// The next log write fails, and with it all later ones of this incarnation.
    pub(super) fn fail_next_log_write(&mut self) {
        self.fail_next_log_write = true;
    }

    /// The next sync fails: what it should have made durable stays visible until a power cut, and is never written.
    pub(super) fn fail_next_sync(&mut self) {
        self.fail_next_sync = true;
    }

    /// Leaves room for so many more bytes, or for any number.
    pub(super) fn set_room(&mut self, more_bytes: Option<u64>) {
        self.capacity_bytes = more_bytes.map(|more| self.used_bytes() + more);
    }

    /// The process dies. What it wrote stays visible; what was under way is done in whole, in part or not at all.
    pub(super) fn kill(&mut self, rng: &mut Rng) -> CrashReport {
        let report = self.end_in_flight(rng, false);
        // The kernel goes on writing back as it likes.
        if rng.bool() {
            for inode in self.inodes.values_mut() {
                inode.write_back(rng);
            }
        }
        report
    }

    /// The power goes: of everything that was not synced, any part is lost.
    pub(super) fn cut_power(&mut self, rng: &mut Rng) -> CrashReport {
        let report = self.end_in_flight(rng, true);
        self.names.cut_power(Kept::random(rng), rng);
        let kept = Kept::random(rng);
        for inode in self.inodes.values_mut() {
            inode.cut_power(kept, rng);
        }
        let names = &self.names;
        self.inodes.retain(|&number, _| names.is_used(number));
        report
    }

    /// An operator removes everything.
    pub(super) fn wipe(&mut self) {
        *self = Self::new(self.is_direct);
    }

    /// Nothing is under way any more, and no fault waits: as a new process finds it.
    fn end_in_flight(&mut self, rng: &mut Rng, is_power_cut: bool) -> CrashReport {
        let mut report = CrashReport { in_flight: self.log_writes.len() as u64, ..CrashReport::default() };
        for write in std::mem::take(&mut self.log_writes) {
            let Some(inode) = write.inode.and_then(|number| self.inodes.get_mut(&number)) else { continue };
            let kept = Kept::random(rng);
            // Around the page cache, what the kernel has taken is done unless the power goes.
            let (kept, is_synced) = match (self.is_direct, is_power_cut) {
                (true, false) => ([Kept::Nothing, Kept::Everything, Kept::Prefix][rng.usize(..3)], true),
                (true, true) => (kept, true),
                (false, _) => (kept, rng.u8(..4) == 0),
            };
            report.torn += u64::from(matches!(kept, Kept::Prefix | Kept::Some));
            report.unsynced += u64::from(!is_synced && kept != Kept::Nothing);
            crash_write(inode, write.offset, write.data.as_slice(), kept, is_synced, rng);
        }
        if let Some(job) = self.jobs.front()
            && let Some(step) = job.steps.get(job.next).cloned()
            && rng.bool()
        {
            self.do_part_of(&step, rng);
        }
        self.jobs.clear();
        self.reads.clear();
        self.log_failed = false;
        self.fail_next_log_write = false;
        self.fail_next_sync = false;
        report
    }

    fn do_step(&mut self, step: &DiskStep) -> Result<(), DiskError> {
        match step {
            DiskStep::CreateZeroed { file, length } => {
                self.reserve("create", file, *length)?;
                let inode = self.create(file);
                inode.write_zeros(0, *length);
            }
            DiskStep::Create { file, data } => {
                self.reserve("create", file, data.len() as u64)?;
                self.create(file).write(0, data);
            }
            DiskStep::Write { file, offset, data } => {
                self.reserve("write", file, data.len() as u64)?;
                self.existing("write", file)?.write(*offset, data);
            }
            DiskStep::WriteZeros { file, offset, length } => {
                self.reserve("write", file, *length)?;
                self.existing("write", file)?.write_zeros(*offset, *length);
            }
            DiskStep::Sync { file } => {
                let fails = std::mem::take(&mut self.fail_next_sync);
                let inode = self.existing("sync", file)?;
                if fails {
                    inode.abandon();
                    return Err(error("sync", file, "injected input/output error"));
                }
                inode.sync();
            }
            DiskStep::Rename { from, to } => {
                if !self.names.rename(from, to) {
                    return Err(error("rename", from, "no such file"));
                }
            }
            DiskStep::Remove { file } => self.names.remove(file),
            DiskStep::SyncDirectory => {
                self.names.sync();
                let names = &self.names;
                self.inodes.retain(|&number, _| names.is_used(number));
            }
        }
        Ok(())
    }

    /// A step that a crash interrupts.
    fn do_part_of(&mut self, step: &DiskStep, rng: &mut Rng) {
        let part = |length: usize, rng: &mut Rng| if length == 0 { 0 } else { rng.usize(..=length) };
        match step {
            DiskStep::CreateZeroed { file, length } => {
                let length = part(usize::try_from(*length).unwrap_or(0), rng) as u64;
                self.create(file).write_zeros(0, length);
            }
            DiskStep::Create { file, data } => {
                let length = part(data.len(), rng);
                self.create(file).write(0, &data[..length]);
            }
            DiskStep::Write { file, offset, data } => {
                let length = part(data.len(), rng);
                if let Ok(inode) = self.existing("write", file) {
                    inode.write(*offset, &data[..length]);
                }
            }
            DiskStep::WriteZeros { file, offset, length } => {
                let length = part(usize::try_from(*length).unwrap_or(0), rng) as u64;
                if let Ok(inode) = self.existing("write", file) {
                    inode.write_zeros(*offset, length);
                }
            }
            DiskStep::Sync { file } => {
                if let Ok(inode) = self.existing("sync", file) {
                    inode.write_back(rng);
                }
            }
            DiskStep::Rename { .. } | DiskStep::Remove { .. } => {
                let _ = self.do_step(step);
            }
            DiskStep::SyncDirectory => self.names.sync_some(rng),
        }
    }

    fn used_bytes(&self) -> u64 {
        self.inodes.values().map(|inode| inode.visible().len() as u64).sum()
    }

    fn reserve(&self, action: &'static str, file: &FileName, more_bytes: u64) -> Result<(), DiskError> {
        match self.capacity_bytes {
            Some(capacity) if self.used_bytes() + more_bytes > capacity => {
                Err(DiskError { is_full: true, ..error(action, file, "no space left on device") })
            }
            _ => Ok(()),
        }
    }

    /// The file of this name, emptied if it is there.
    fn create(&mut self, file: &FileName) -> &mut Inode {
        let number = self.names.visible(file).unwrap_or_else(|| {
            let number = self.next_inode;
            self.next_inode += 1;
            self.names.create(file, number);
            number
        });
        let inode = self.inodes.entry(number).or_default();
        inode.truncate();
        inode
    }

    fn existing(&mut self, action: &'static str, file: &FileName) -> Result<&mut Inode, DiskError> {
        let inode = self.names.visible(file).and_then(|number| self.inodes.get_mut(&number));
        inode.ok_or_else(|| error(action, file, "no such file"))
    }

    fn read_visible(&self, file: &FileName, offset: u64, length: usize) -> Result<Bytes, DiskError> {
        let inode = self.names.visible(file).and_then(|number| self.inodes.get(&number));
        Ok(slice(inode.ok_or_else(|| error("read", file, "no such file"))?.visible(), offset, length))
    }

    fn read_synced(&self, file: &FileName, offset: u64, length: usize) -> Result<Bytes, DiskError> {
        let inode = self.names.synced(file).and_then(|number| self.inodes.get(&number));
        Ok(slice(inode.ok_or_else(|| error("read", file, "no such file"))?.synced(), offset, length))
    }
}

/// Writes what a crash keeps of a log write, to the disk itself or to the page cache only.
fn crash_write(inode: &mut Inode, offset: u64, data: &[u8], kept: Kept, is_synced: bool, rng: &mut Rng) {
    let sectors = data.len() / inode::SECTOR_BYTES;
    let prefix = rng.usize(..=sectors);
    for (number, sector) in data.chunks(inode::SECTOR_BYTES).enumerate() {
        let keeps = match kept {
            Kept::Nothing => false,
            Kept::Everything => true,
            Kept::Prefix => number < prefix,
            Kept::Some => rng.bool(),
        };
        if keeps {
            let offset = offset + (number * inode::SECTOR_BYTES) as u64;
            if is_synced {
                inode.write_synced(offset, sector);
            } else {
                inode.write(offset, sector);
            }
        }
    }
}

fn slice(content: &[u8], offset: u64, length: usize) -> Bytes {
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
    Bytes::copy_from_slice(&content[from..from.saturating_add(length).min(content.len())])
}

fn error(action: &'static str, file: &FileName, message: &str) -> DiskError {
    DiskError { action, file: file.clone(), is_full: false, message: message.to_owned() }
}

#[cfg(test)]
mod tests;
