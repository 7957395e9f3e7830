//! File jobs and reads, as blocking calls, and the files of a directory that is being opened. Buffered, but for the
//! zeros of segments filled ahead, which would push useful pages out of the cache.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rustix::fs::FallocateFlags;

use super::{LOCK_NAME, PROBE_NAME, disk_error, make_folder, path_of};
use crate::types::{AlignedBytes, DiskDone, DiskError, DiskStep, DiskWork, FileName, ReadFiles};

/// Zeros go out in pieces of this many bytes, so that a close need not wait for a whole segment.
const ZEROS_BYTES: usize = 1 << 20;

/// Carries out jobs and reads.
pub(super) struct Files {
    directory: PathBuf,
    is_closing: Arc<AtomicBool>,
}

impl Files {
    pub(super) fn new(directory: &Path, is_closing: Arc<AtomicBool>) -> Self {
        Self { directory: directory.into(), is_closing }
    }

    pub(super) fn carry_out(&self, work: DiskWork) -> Result<DiskDone, DiskError> {
        match work {
            DiskWork::Job(steps) => steps.into_iter().try_for_each(|step| self.step(step)).map(|()| DiskDone::Done),
            DiskWork::Read { file, offset, length } => {
                let result = path_of(&self.directory, &file).and_then(File::open);
                let result = result.and_then(|opened| read_up_to(&opened, offset, length));
                result.map(DiskDone::Read).map_err(|error| disk_error("read", &file, &error))
            }
            DiskWork::WriteLog { .. } => unreachable!("log writes have their own lane"),
        }
    }

    fn step(&self, step: DiskStep) -> Result<(), DiskError> {
        let (action, file, result) = match step {
            DiskStep::CreateZeroed { file, length } => {
                let result = self.create_zeroed(&file, length);
                ("create", file, result)
            }
            DiskStep::Create { file, data } => {
                let result = create(&self.directory, &file).and_then(|created| created.write_all_at(&data, 0));
                ("create", file, result)
            }
            DiskStep::Write { file, offset, data } => {
                let result = self.open_to_write(&file).and_then(|opened| opened.write_all_at(&data, offset));
                ("write", file, result)
            }
            DiskStep::WriteZeros { file, offset, length } => {
                let result = self.fill(&file, offset, length);
                ("write", file, result)
            }
            DiskStep::Sync { file } => {
                let result = self.open_to_write(&file).and_then(|opened| opened.sync_all());
                ("sync", file, result)
            }
            DiskStep::Rename { from, to } => {
                let result = self.rename(&from, &to);
                ("rename", from, result)
            }
            DiskStep::Remove { file } => {
                let result = path_of(&self.directory, &file).and_then(fs::remove_file);
                let result = match result {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    result => result,
                };
                ("remove", file, result)
            }
            DiskStep::SyncDirectory => ("sync", FileName(".".into()), self.sync_directory()),
        };
        result.map_err(|error| disk_error(action, &file, &error))
    }

    fn open_to_write(&self, file: &FileName) -> io::Result<File> {
        fs::OpenOptions::new().write(true).open(path_of(&self.directory, file)?)
    }

    fn create_zeroed(&self, file: &FileName, length: u64) -> io::Result<()> {
        create(&self.directory, file)?;
        self.fill(file, 0, length)
    }

    /// Writes zeros past the page cache where that can be: they would push useful pages out of it, and copying them into
    /// it costs more than everything else a server does.
    fn fill(&self, file: &FileName, offset: u64, length: u64) -> io::Result<()> {
        let buffered = self.open_to_write(file)?;
        // In one piece where the file system can, and a full disk is told of before anything is written.
        match rustix::fs::fallocate(&buffered, FallocateFlags::empty(), offset, length) {
            Err(error) if matches!(error, rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => {
                return Err(error.into());
            }
            _ => (),
        }
        let is_aligned = |number: u64| number.is_multiple_of(AlignedBytes::ALIGNMENT as u64);
        let direct = if is_aligned(offset) && is_aligned(length) {
            let mut options = fs::OpenOptions::new();
            options.write(true).custom_flags(libc::O_DIRECT);
            options.open(path_of(&self.directory, file)?).ok()
        } else {
            None
        };
        match direct {
            Some(direct) if self.write_zeros(&direct, offset, length).is_ok() => Ok(()),
            _ => self.write_zeros(&buffered, offset, length),
        }
    }

    fn write_zeros(&self, file: &File, offset: u64, length: u64) -> io::Result<()> {
        let mut zeros = AlignedBytes::with_capacity(ZEROS_BYTES);
        zeros.zero_fill_to(usize::try_from(length).unwrap_or(usize::MAX).min(ZEROS_BYTES));
        let mut done = 0;
        while done < length {
            if self.is_closing.load(Ordering::Relaxed) {
                return Err(io::Error::other("the server is closing"));
            }
            let piece = usize::try_from(length - done).unwrap_or(usize::MAX).min(zeros.len());
            file.write_all_at(&zeros.as_slice()[..piece], offset + done)?;
            done += piece as u64;
        }
        Ok(())
    }

    fn rename(&self, from: &FileName, to: &FileName) -> io::Result<()> {
        make_folder_of(&self.directory, to)?;
        fs::rename(path_of(&self.directory, from)?, path_of(&self.directory, to)?)
    }

    fn sync_directory(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                File::open(entry.path())?.sync_all()?;
            }
        }
        File::open(&self.directory)?.sync_all()
    }
}

/// Creates or empties a file that only its owner can read, with the folder that it is in.
pub(super) fn create(directory: &Path, file: &FileName) -> io::Result<File> {
    make_folder_of(directory, file)?;
    fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path_of(directory, file)?)
}

fn make_folder_of(directory: &Path, file: &FileName) -> io::Result<()> {
    let path = path_of(directory, file)?;
    match path.parent() {
        Some(folder) if folder != directory => make_folder(folder),
        _ => Ok(()),
    }
}

/// Reads `length` bytes, or what there is. Reserved fallibly: the length may come from damaged bytes.
fn read_up_to(file: &File, offset: u64, length: usize) -> io::Result<Bytes> {
    let present = usize::try_from(file.metadata()?.len().saturating_sub(offset)).unwrap_or(usize::MAX);
    let length = length.min(present);
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
    while buffer.len() < length {
        let at = offset + buffer.len() as u64;
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut buffer), at) {
            Ok(0) => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => (),
            Err(error) => return Err(error.into()),
        }
    }
    buffer.truncate(length);
    Ok(buffer.into())
}

/// Removes what a killed open may have left of its own.
pub(in super::super) fn remove_leftovers(directory: &Path) {
    let _ = fs::remove_file(directory.join(PROBE_NAME));
}

/// The files of a directory that is being opened.
pub(in super::super) struct DirectoryFiles {
    directory: PathBuf,
    /// Read last, and likely next.
    open_file: Option<(FileName, File)>,
}

impl DirectoryFiles {
    pub(in super::super) fn new(directory: &Path) -> Self {
        Self { directory: directory.into(), open_file: None }
    }

    fn list_folder(&self, folder: &str, into: &mut Vec<(FileName, u64)>) -> io::Result<()> {
        for entry in fs::read_dir(self.directory.join(folder))? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            let kind = entry.file_type()?;
            if folder.is_empty() && kind.is_dir() {
                self.list_folder(&name, into)?;
            } else if kind.is_file() && name != LOCK_NAME && name != PROBE_NAME {
                let name = if folder.is_empty() { name } else { format!("{folder}/{name}") };
                into.push((FileName(name), entry.metadata()?.len()));
            }
        }
        Ok(())
    }
}

impl ReadFiles for DirectoryFiles {
    fn list(&mut self) -> Result<Vec<(FileName, u64)>, DiskError> {
        let mut files = Vec::new();
        self.list_folder("", &mut files).map_err(|error| disk_error("list", &FileName(".".into()), &error))?;
        files.sort();
        Ok(files)
    }

    fn read(&mut self, file: &FileName, offset: u64, length: usize) -> Result<Bytes, DiskError> {
        let describe = |error: io::Error| disk_error("read", file, &error);
        if self.open_file.as_ref().is_none_or(|(open_name, _)| open_name != file) {
            let opened = path_of(&self.directory, file).and_then(File::open).map_err(describe)?;
            self.open_file = Some((file.clone(), opened));
        }
        let Some((_, opened)) = &self.open_file else { unreachable!("just opened") };
        read_up_to(opened, offset, length).map_err(describe)
    }

    fn expect(&mut self, files: &[FileName]) {
        for file in files {
            if let Ok(opened) = path_of(&self.directory, file).and_then(File::open) {
                let _ = rustix::fs::fadvise(&opened, 0, None, rustix::fs::Advice::WillNeed);
            }
        }
    }
}
