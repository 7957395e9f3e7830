//! What an operator does to the data directory of a server that does not run: look at it, and recover a group in it from
//! the loss of its quorum.
//!
//! It takes the directory's lock, as a server does, and carries out what the driver asks by the same disk.

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use super::callback::caught;
use super::disk::{DirectoryFiles, Disk, remove_leftovers};
use super::lock::DirectoryLock;
use super::{DiskBackend, OpenError};
use crate::driver::{self, DirectoryReport, Recovered, Recovery, RecoveryRefusal, RecoveryRequest};
use crate::types::{ClusterId, GroupId, Position, ReadFiles, ServerId};

/// What an operator must know before a group is recovered from the loss of its quorum.
pub const RECOVERY_RISK: &str = "\
A majority of the group's voters is taken to be gone for good, and one server becomes the only member.
  - What the lost majority had committed and this server does not have is LOST, although clients were told that it was \
applied.
  - What this server has and nobody had committed is kept and BECOMES COMMITTED, although clients may have been told that \
its outcome is unknown, or that it failed.
  - If the others are not gone but out of reach, they go on as the old group, and there are two groups with different \
data. Stop them first, wherever they are.
  - No server of the old group can ever take part in the new one: it comes back only with an empty data directory, under \
an id that was never used.
Choose the server whose last (term, index) is the highest, term first, among all that are left. Keep a copy of every data \
directory, and never start a server on a copy.";

/// Why a directory was not looked at, or a group not recovered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OfflineError {
    /// The directory cannot be had: it is missing, or a server runs on it.
    #[error(transparent)]
    Directory(#[from] OpenError),
    /// What is in it forbids it.
    #[error("{path}: {refusal}", path = path.display())]
    Refused {
        /// The directory.
        path: PathBuf,
        /// Why, and what to do.
        refusal: RecoveryRefusal,
    },
}

/// Tells what the data directory of a server that does not run holds: of each group the last entry, by which the servers
/// that are left are compared. Blocks while it reads the log, and changes nothing.
///
/// # Errors
/// A server runs on it, it is no server's directory, or it cannot be used.
pub fn inspect(directory: &Path) -> Result<DirectoryReport, OfflineError> {
    let (_lock, mut files) = take(directory)?;
    guarded(directory, || driver::inspect(&mut files))
}

/// Recovers a group from the loss of its quorum: makes this server its only member, by an entry behind its log, in a new
/// term and with a new lineage, and keeps all that the log holds. The risk is [`RECOVERY_RISK`]. `last` must be the last
/// entry as [`inspect`] told it: whoever asks has compared the servers that are left. Other groups of the server are left
/// alone. Blocks until it is durable.
///
/// # Errors
/// As for [`inspect`]; the directory is of another cluster or server; the log does not end at `last`; the server is no
/// member, or the only voter already. Nothing was changed then. Or the disk failed: the group is as it was or recovered,
/// and to inspect it again tells which.
pub fn recover_quorum(
    directory: &Path,
    cluster: &str,
    id: u64,
    group: GroupId,
    last: Position,
) -> Result<Recovered, OfflineError> {
    let conflict = |message: &str| OpenError::Config(super::ConfigError::Conflict { message: message.into() });
    let name = ClusterId::new(cluster).ok_or_else(|| conflict("the cluster's name must have 1 to 64 bytes"))?;
    let request = RecoveryRequest { cluster: name, server: ServerId(id), group, last };
    let (_lock, mut files) = take(directory)?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| OpenError::System { action: "drawing a seed", message: error.to_string() })?;
    let recovery = guarded(directory, || Recovery::open(&mut files, &request, seed))?;
    let (report, completions) = mpsc::channel();
    let report: super::disk::Report = Arc::new(move |completed| drop(report.send(completed)));
    let disk = Disk::open(directory, DiskBackend::Thread, &report)
        .map_err(|error| OpenError::System { action: "opening the disk back end", message: error.to_string() })?;
    guarded(directory, move || carry_out(recovery, disk, &completions))
}

/// Takes the lock of a directory that is a server's. One that is not is not made into one.
fn take(directory: &Path) -> Result<(DirectoryLock, DirectoryFiles), OfflineError> {
    let mut files = DirectoryFiles::new(directory);
    files.list().map_err(|error| OpenError::Directory {
        action: "list",
        path: directory.into(),
        message: error.message,
    })?;
    guarded(directory, || driver::check_directory(&mut files))?;
    let lock = DirectoryLock::acquire(directory)?;
    remove_leftovers(directory);
    Ok((lock, DirectoryFiles::new(directory)))
}

/// A panic on what the log holds is told like any other refusal.
fn guarded<T>(directory: &Path, body: impl FnOnce() -> Result<T, RecoveryRefusal>) -> Result<T, OfflineError> {
    match caught(body) {
        Ok(result) => result.map_err(|refusal| OfflineError::Refused { path: directory.into(), refusal }),
        Err(panic) => Err(OpenError::Refused { message: format!("{}: the log {panic}", directory.display()) }.into()),
    }
}

fn carry_out(
    mut recovery: Recovery,
    mut disk: Disk,
    completions: &mpsc::Receiver<super::disk::Completed>,
) -> Result<Recovered, RecoveryRefusal> {
    loop {
        for (id, work) in recovery.take_work() {
            disk.submit(id, work);
        }
        if let Some(outcome) = recovery.outcome() {
            return outcome.clone();
        }
        let (id, result) = completions.recv().expect("the disk reports the end of whatever is submitted");
        recovery.complete(id, result);
    }
}
