//! One process per data directory.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::OpenError;
use super::disk::{LOCK_NAME, make_folder};

/// Held while the server is open; the system lets go of it with the process.
pub(super) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Makes the directory if it is missing, and locks it.
    pub(super) fn acquire(directory: &Path) -> Result<Self, OpenError> {
        let failed = |action: &'static str, path: &Path, message: String| OpenError::Directory {
            action,
            path: path.into(),
            message,
        };
        make_folder(directory).map_err(|error| failed("create", directory, error.to_string()))?;
        let path = directory.join(LOCK_NAME);
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = opened.map_err(|error| failed("open", &path, error.to_string()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => (),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut name = String::new();
                let _ = Read::by_ref(&mut file).take(20).read_to_string(&mut name);
                let holder = match name.trim().parse::<u32>() {
                    Ok(process) => format!("process {process}"),
                    Err(_) => "another process".into(),
                };
                return Err(OpenError::Locked { path: directory.into(), holder });
            }
            Err(error) => return Err(failed("lock", &path, error.to_string())),
        }
        // Only for whoever finds the directory locked: nothing depends on it.
        let _ = file.set_len(0);
        let _ = writeln!(file, "{}", std::process::id());
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_holder_who_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let held = DirectoryLock::acquire(&data).unwrap();
        let Err(OpenError::Locked { holder, .. }) = DirectoryLock::acquire(&data) else { panic!("locked twice") };
        assert_eq!(holder, format!("process {}", std::process::id()));
        drop(held);
        DirectoryLock::acquire(&data).unwrap();
    }
}
