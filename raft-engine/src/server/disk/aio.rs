//! Log writes by Linux AIO: submitted from the loop, completed by an event descriptor that the loop polls. Direct and
//! synchronous, so that a completion means durable.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::sys::{AioContext, AioWrite};
use super::{Completed, LogBackend, PROBE_NAME, WriteMode, disk_error, files};
use crate::types::{AlignedBytes, DiskDone, DiskError, DiskWorkId, FileName};

/// The back end.
pub(super) struct AioLog {
    context: AioContext,
    directory: PathBuf,
    /// The segment written last, kept open.
    open_file: Option<(FileName, Arc<OwnedFd>)>,
    /// In order of submission. The number of the first is `first_key`.
    writes: VecDeque<Write>,
    first_key: u64,
    /// Set by a failure: later writes may not complete, since an earlier one never will.
    failure: Option<DiskError>,
}

struct Write {
    id: DiskWorkId,
    file: FileName,
    state: State,
}

enum State {
    /// The context is full: to be submitted when a completion makes room.
    Waiting(AioWrite),
    InFlight,
    Ended(Result<(), DiskError>),
}

impl AioLog {
    /// Makes a context and tries it on a file of the directory.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let mut context = AioContext::new()?;
        let probe = FileName(PROBE_NAME.into());
        let result = try_write(&mut context, directory, &probe);
        let _ = fs::remove_file(directory.join(PROBE_NAME));
        result?;
        Ok(Self {
            context,
            directory: directory.into(),
            open_file: None,
            writes: VecDeque::new(),
            first_key: 0,
            failure: None,
        })
    }

    fn open_file(&mut self, file: &FileName) -> io::Result<Arc<OwnedFd>> {
        if let Some((open_name, descriptor)) = &self.open_file
            && open_name == file
        {
            return Ok(descriptor.clone());
        }
        let descriptor = Arc::new(OwnedFd::from(WriteMode::Direct.open(&self.directory, file)?));
        self.open_file = Some((file.clone(), descriptor.clone()));
        Ok(descriptor)
    }

    fn start(&mut self, key: u64, write: AioWrite) {
        let place = usize::try_from(key - self.first_key).expect("a write that is queued");
        let state = match self.context.submit(key, write) {
            Ok(()) => State::InFlight,
            Err((error, write)) if error.raw_os_error() == Some(libc::EAGAIN) && self.context.in_flight() > 0 => {
                State::Waiting(write)
            }
            Err((error, _)) => State::Ended(Err(disk_error("write", &self.writes[place].file, &error))),
        };
        self.writes[place].state = state;
    }
}

impl LogBackend for AioLog {
    fn name(&self) -> &'static str {
        "aio"
    }

    fn submit(&mut self, id: DiskWorkId, file: FileName, offset: u64, data: AlignedBytes) {
        let key = self.first_key + self.writes.len() as u64;
        match self.open_file(&file) {
            Ok(descriptor) => {
                self.writes.push_back(Write { id, file, state: State::InFlight });
                self.start(key, AioWrite { file: descriptor, data, done_bytes: 0, offset });
            }
            Err(error) => {
                let state = State::Ended(Err(disk_error("open", &file, &error)));
                self.writes.push_back(Write { id, file, state });
            }
        }
        // A failure at once is reported like any other: the loop is not told by the kernel, so it is by us.
        if self.writes.iter().any(|write| matches!(write.state, State::Ended(_))) {
            let _ = rustix::io::write(self.context.events(), &1u64.to_ne_bytes());
        }
    }

    fn forget(&mut self, file: &FileName) {
        // Writes in flight keep the file open by themselves.
        self.open_file.take_if(|(open_name, _)| open_name == file);
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.context.events())
    }

    fn complete(&mut self, into: &mut Vec<Completed>) {
        let mut ended = Vec::new();
        if let Err(error) = self.context.complete(0, &mut ended) {
            // The kernel does not know its own context: nothing in flight can be believed.
            for write in &mut self.writes {
                write.state = State::Ended(Err(disk_error("complete", &write.file, &error)));
            }
        }
        for (key, mut write, result) in ended {
            let place = usize::try_from(key - self.first_key).expect("a write that is queued");
            let file = &self.writes[place].file;
            let state = match result {
                Err(error) => State::Ended(Err(disk_error("write", file, &error))),
                Ok(count) if write.done_bytes + count >= write.data.len() => State::Ended(Ok(())),
                Ok(count) => {
                    // A short write: the rest goes from the last whole block on.
                    let done_bytes = (write.done_bytes + count) / AlignedBytes::ALIGNMENT * AlignedBytes::ALIGNMENT;
                    if done_bytes == write.done_bytes {
                        let error = io::Error::from(io::ErrorKind::WriteZero);
                        State::Ended(Err(disk_error("write", file, &error)))
                    } else {
                        write.done_bytes = done_bytes;
                        State::Waiting(write)
                    }
                }
            };
            self.writes[place].state = state;
        }
        for place in 0..self.writes.len() {
            if matches!(self.writes[place].state, State::Waiting(_)) {
                let state = std::mem::replace(&mut self.writes[place].state, State::InFlight);
                let State::Waiting(write) = state else { unreachable!("just seen") };
                self.start(self.first_key + place as u64, write);
            }
        }
        while let Some(Write { state: State::Ended(_), .. }) = self.writes.front() {
            let write = self.writes.pop_front().expect("just seen");
            self.first_key += 1;
            let State::Ended(result) = write.state else { unreachable!("just seen") };
            let result = match (&self.failure, result) {
                (Some(failure), _) => Err(failure.clone()),
                (None, result) => result,
            };
            if let Err(error) = &result {
                self.failure.get_or_insert_with(|| error.clone());
            }
            into.push((write.id, result.map(|()| DiskDone::Done)));
        }
    }
}

/// Writes a block the way the log will be written, and reads it back.
fn try_write(context: &mut AioContext, directory: &Path, probe: &FileName) -> io::Result<()> {
    let length = AlignedBytes::ALIGNMENT;
    files::create(directory, probe)?.set_len(length as u64)?;
    let file = Arc::new(OwnedFd::from(WriteMode::Direct.open(directory, probe)?));
    let mut data = AlignedBytes::with_capacity(length);
    data.extend_from_slice(&[0x5A; AlignedBytes::ALIGNMENT]);
    let write = AioWrite { file, data, done_bytes: 0, offset: 0 };
    context.submit(0, write).map_err(|(error, _)| error)?;
    let mut ended = Vec::new();
    context.complete(1, &mut ended)?;
    let written = ended.pop().ok_or(io::ErrorKind::TimedOut)?.2?;
    // The probe's signal is not one of the log's.
    let _ = rustix::io::read(context.events(), &mut [0u8; 8]);
    if written == length && fs::read(directory.join(PROBE_NAME))? == vec![0x5A; length] {
        return Ok(());
    }
    Err(io::Error::other("a direct write did not arrive"))
}
