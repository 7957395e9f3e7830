//! Log writes on a thread of their own, `raft-disk`, for kernels without AIO and file systems without direct writes.

use std::fs::{self, File};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::lane::Lane;
use super::{LogBackend, PROBE_NAME, Report, WriteMode, disk_error, files};
use crate::types::{AlignedBytes, DiskDone, DiskError, DiskStep, DiskWork, DiskWorkId, FileName};

/// The back end.
pub(super) struct ThreadLog {
    lane: Lane,
    mode: WriteMode,
}

impl ThreadLog {
    /// Chooses the mode by trying, and starts the thread.
    pub(super) fn open(directory: &Path, report: &Report) -> io::Result<Self> {
        let mode = if can_write_directly(directory) { WriteMode::Direct } else { WriteMode::Buffered };
        let mut writer = Writer { directory: directory.into(), mode, open_file: None, failure: None };
        let lane = Lane::start("raft-disk", report.clone(), move |work| writer.carry_out(work))?;
        Ok(Self { lane, mode })
    }
}

impl LogBackend for ThreadLog {
    fn name(&self) -> &'static str {
        match self.mode {
            WriteMode::Direct => "thread-direct",
            WriteMode::Buffered => "thread-buffered",
        }
    }

    fn submit(&mut self, id: DiskWorkId, file: FileName, offset: u64, data: AlignedBytes) {
        self.lane.submit(id, DiskWork::WriteLog { file, offset, data });
    }

    fn forget(&mut self, file: &FileName) {
        self.lane.submit_silently(DiskWork::Job(vec![DiskStep::Remove { file: file.clone() }]));
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn complete(&mut self, _into: &mut Vec<super::Completed>) {}
}

/// What the thread holds.
struct Writer {
    directory: PathBuf,
    mode: WriteMode,
    open_file: Option<(FileName, File)>,
    /// A failed sync is final: the page cache may claim what the disk does not have (§4 of DESIGN.md).
    failure: Option<DiskError>,
}

impl Writer {
    fn carry_out(&mut self, work: DiskWork) -> Result<DiskDone, DiskError> {
        match work {
            DiskWork::WriteLog { file, offset, data } => {
                if let Some(failure) = &self.failure {
                    return Err(failure.clone());
                }
                let result = self.write(&file, offset, &data);
                if let Err(failure) = &result {
                    self.failure = Some(failure.clone());
                }
                result.map(|()| DiskDone::Done)
            }
            // Only "forget" comes this way: the name means another file from now on.
            DiskWork::Job(steps) => {
                for step in steps {
                    if let DiskStep::Remove { file } = step {
                        self.open_file.take_if(|(open_name, _)| *open_name == file);
                    }
                }
                Ok(DiskDone::Done)
            }
            DiskWork::Read { .. } => unreachable!("reads have their own lane"),
        }
    }

    fn write(&mut self, file: &FileName, offset: u64, data: &AlignedBytes) -> Result<(), DiskError> {
        if self.open_file.as_ref().is_none_or(|(open_name, _)| open_name != file) {
            let opened = self.mode.open(&self.directory, file).map_err(|error| disk_error("open", file, &error))?;
            self.open_file = Some((file.clone(), opened));
        }
        let Some((_, opened)) = &self.open_file else { unreachable!("just opened") };
        // Direct writes that come back short are taken up at a whole block by the kernel's own contract; `write_all_at`
        // goes on after interruptions and short writes.
        opened.write_all_at(data.as_slice(), offset).map_err(|error| disk_error("write", file, &error))?;
        if self.mode == WriteMode::Buffered {
            opened.sync_data().map_err(|error| disk_error("sync", file, &error))?;
        }
        Ok(())
    }
}

fn can_write_directly(directory: &Path) -> bool {
    let probe = FileName(PROBE_NAME.into());
    let mut data = AlignedBytes::with_capacity(AlignedBytes::ALIGNMENT);
    data.extend_from_slice(&[0x5A; AlignedBytes::ALIGNMENT]);
    let result = files::create(directory, &probe)
        .and_then(|_| WriteMode::Direct.open(directory, &probe))
        .and_then(|file| file.write_all_at(data.as_slice(), 0));
    let _ = fs::remove_file(directory.join(PROBE_NAME));
    result.is_ok()
}
