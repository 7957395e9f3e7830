//! The disk as three lanes beside each other: log writes, which complete in the order of their submission, on one of two
//! back ends; file jobs on a thread; reads on a thread. Completions are reported to the loop; nothing here waits for the
//! disk on the loop, and nothing here knows what the bytes are.

mod aio;
mod files;
mod lane;
mod thread;

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) use files::{DirectoryFiles, remove_leftovers};

use self::aio::AioLog;
use self::files::Files;
use self::lane::Lane;
use self::thread::ThreadLog;
use super::DiskBackend;
use crate::types::{AlignedBytes, DiskDone, DiskError, DiskStep, DiskWork, DiskWorkId, FileName};

/// A file of ours in the data directory that is not the engine's.
pub(super) const LOCK_NAME: &str = "LOCK";
/// What the open tries direct writes on.
const PROBE_NAME: &str = "PROBE";

/// The end of a submission.
pub(super) type Completed = (DiskWorkId, Result<DiskDone, DiskError>);

/// Takes completions, from any thread.
pub(super) type Report = Arc<dyn Fn(Completed) + Send + Sync>;

/// Log writes: submitted in order, complete when durable, reported in order.
trait LogBackend: Send {
    /// For status.
    fn name(&self) -> &'static str;

    /// Submits a write of whole blocks to preallocated bytes. Never waits for the disk.
    fn submit(&mut self, id: DiskWorkId, file: FileName, offset: u64, data: AlignedBytes);

    /// Closes the file if it is kept open: its name is about to mean something else.
    fn forget(&mut self, file: &FileName);

    /// What to poll for completions, where the back end does not report them by itself.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;

    /// After the descriptor was signalled: appends what has completed.
    fn complete(&mut self, into: &mut Vec<Completed>);
}

/// The disk of an open server. Dropping it waits for what is in flight.
pub(super) struct Disk {
    log: Box<dyn LogBackend>,
    jobs: Lane,
    reads: Lane,
    is_closing: Arc<AtomicBool>,
}

impl Disk {
    /// Starts the lanes on a directory, choosing the back end by trying.
    pub(super) fn open(directory: &Path, backend: DiskBackend, report: &Report) -> Result<Self, io::Error> {
        let log: Box<dyn LogBackend> = match backend {
            DiskBackend::Aio => Box::new(AioLog::open(directory)?),
            DiskBackend::Thread => Box::new(ThreadLog::open(directory, report)?),
            DiskBackend::Auto => match AioLog::open(directory) {
                Ok(log) => Box::new(log),
                Err(_) => Box::new(ThreadLog::open(directory, report)?),
            },
        };
        let is_closing = Arc::new(AtomicBool::new(false));
        let files = Arc::new(Files::new(directory, is_closing.clone()));
        let for_reads = files.clone();
        let jobs = Lane::start("raft-files", report.clone(), move |work| files.carry_out(work))?;
        let reads = Lane::start("raft-reads", report.clone(), move |work| for_reads.carry_out(work))?;
        Ok(Self { log, jobs, reads, is_closing })
    }

    /// The back end's name, for status.
    pub(super) fn backend_name(&self) -> &'static str {
        self.log.name()
    }

    /// Submits work. Its end comes through the report, or from [`Disk::complete`].
    pub(super) fn submit(&mut self, id: DiskWorkId, work: DiskWork) {
        match work {
            DiskWork::WriteLog { file, offset, data } => self.log.submit(id, file, offset, data),
            DiskWork::Job(steps) => {
                for step in &steps {
                    match step {
                        DiskStep::Rename { from, to } => {
                            self.log.forget(from);
                            self.log.forget(to);
                        }
                        DiskStep::Create { file, .. }
                        | DiskStep::CreateZeroed { file, .. }
                        | DiskStep::Remove { file } => self.log.forget(file),
                        _ => (),
                    }
                }
                self.jobs.submit(id, DiskWork::Job(steps));
            }
            work @ DiskWork::Read { .. } => self.reads.submit(id, work),
        }
    }

    /// What to poll for completions of log writes, if anything.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.log.descriptor()
    }

    /// After the descriptor was signalled: appends what has completed.
    pub(super) fn complete(&mut self, into: &mut Vec<Completed>) {
        self.log.complete(into);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Segments being filled ahead need not be finished.
        self.is_closing.store(true, Ordering::Relaxed);
    }
}

/// How a log file is written so that completion means durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum WriteMode {
    /// O_DIRECT and O_DSYNC: past the page cache, durable by itself.
    Direct,
    /// Through the page cache, then fdatasync.
    Buffered,
}

impl WriteMode {
    fn open(self, directory: &Path, file: &FileName) -> io::Result<fs::File> {
        let mut options = fs::OpenOptions::new();
        options.write(true);
        if self == Self::Direct {
            options.custom_flags(libc::O_DIRECT | libc::O_DSYNC);
        }
        options.open(path_of(directory, file)?)
    }
}

/// Where a file of the data directory is. Names come from our own log; one that leads out of the directory is a defect
/// or damage, and is refused.
pub(super) fn path_of(directory: &Path, file: &FileName) -> io::Result<PathBuf> {
    let is_plain = file.0.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if !is_plain || file.0.split('/').count() > 2 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no name of a file in the data directory"));
    }
    Ok(directory.join(&file.0))
}

/// Makes a folder that only its owner can enter, if it is missing.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

fn disk_error(action: &'static str, file: &FileName, error: &io::Error) -> DiskError {
    let is_full = matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT));
    DiskError { action, file: file.clone(), is_full, message: error.to_string() }
}

#[cfg(test)]
mod tests;
