//! The system edge where no safe wrapper serves: Linux AIO, signal masks of new threads, receiving into unused memory.
//!
//! The only file of the engine with `unsafe` in it. Each function here is safe to call with any arguments.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use bytes::BytesMut;
use rustix::net::RecvFlags;

use crate::types::AlignedBytes;

/// Starts a thread of the library: named, and with all signals blocked, so that the host's handlers run on the host's
/// threads.
pub(super) fn spawn(name: &'static str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    debug_assert!(name.len() <= 15, "the kernel cuts longer names");
    // SAFETY: both sets are owned by this frame and initialised by sigfillset and pthread_sigmask before they are read;
    // the mask of this thread is put back below, whatever the spawn brings.
    unsafe {
        let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigfillset(all.as_mut_ptr());
        let status = libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        if status != 0 {
            return Err(io::Error::from_raw_os_error(status));
        }
        let thread = Builder::new().name(name.into()).spawn(body);
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
        thread
    }
}

/// Receives into the unused capacity of `buffer` and lengthens it by what came; 0 at the end of the stream, or where
/// there is no unused capacity.
pub(super) fn receive(stream: BorrowedFd<'_>, buffer: &mut BytesMut) -> io::Result<usize> {
    let count = {
        let (filled, _) = rustix::net::recv(stream, buffer.spare_capacity_mut(), RecvFlags::empty())?.0;
        filled.len()
    };
    let length = buffer.len() + count;
    // SAFETY: the kernel has just filled `count` bytes of the capacity behind the length.
    unsafe { buffer.set_len(length) };
    Ok(count)
}

/// `struct iocb` of linux/aio_abi.h, on little-endian machines.
#[repr(C)]
#[derive(Default)]
struct ControlBlock {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    priority: i16,
    descriptor: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    result_descriptor: u32,
}

/// `struct io_event` of linux/aio_abi.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CompletionEvent {
    data: u64,
    control_block: u64,
    result: i64,
    result2: i64,
}

#[cfg(target_endian = "big")]
compile_error!("struct iocb is laid out for little-endian machines here");

const OPCODE_WRITE: u16 = 1;
const FLAG_RESULT_DESCRIPTOR: u32 = 1;

/// A kernel AIO context with the writes that it holds. Owns their buffers and files until the kernel is done with them.
pub(super) struct AioContext {
    id: libc::c_ulong,
    /// Signalled by the kernel at each completion.
    events: OwnedFd,
    in_flight: BTreeMap<u64, AioWrite>,
}

/// One write: all of `data` at `offset`.
pub(super) struct AioWrite {
    pub(super) file: Arc<OwnedFd>,
    pub(super) data: AlignedBytes,
    /// Where in `data` to begin: what lies before is written already.
    pub(super) done_bytes: usize,
    pub(super) offset: u64,
}

impl AioContext {
    /// The most writes in flight.
    pub(super) const DEPTH: u32 = 32;

    /// Makes a context. Fails where the kernel has no AIO, or the system's `fs.aio-max-nr` is used up.
    pub(super) fn new() -> io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        let events = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let mut id: libc::c_ulong = 0;
        // SAFETY: io_setup writes one aio_context_t, which is an unsigned long, through the pointer.
        let result = unsafe { libc::syscall(libc::SYS_io_setup, libc::c_long::from(Self::DEPTH), &raw mut id) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { id, events, in_flight: BTreeMap::new() })
    }

    /// The descriptor that the kernel signals.
    pub(super) fn events(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// How many writes the kernel holds.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Submits a write under a key that is not in flight.
    ///
    /// # Errors
    /// Not submitted: the write comes back.
    pub(super) fn submit(&mut self, key: u64, write: AioWrite) -> Result<(), (io::Error, AioWrite)> {
        assert!(!self.in_flight.contains_key(&key), "write {key} is in flight");
        let rest = write.data.as_slice().get(write.done_bytes..).unwrap_or_default();
        let mut block = ControlBlock {
            data: key,
            opcode: OPCODE_WRITE,
            descriptor: write.file.as_raw_fd().cast_unsigned(),
            buffer: rest.as_ptr() as u64,
            bytes: rest.len() as u64,
            offset: i64::try_from(write.offset + write.done_bytes as u64).unwrap_or(i64::MAX),
            flags: FLAG_RESULT_DESCRIPTOR,
            result_descriptor: self.events.as_raw_fd().cast_unsigned(),
            ..ControlBlock::default()
        };
        let mut blocks = [&raw mut block];
        loop {
            // SAFETY: the kernel copies the control block during the call. The buffer that it names is on the heap and
            // neither moves nor is changed or freed before the completion was fetched or the context destroyed, since
            // `in_flight` owns it from here on; so is the file.
            let result = unsafe { libc::syscall(libc::SYS_io_submit, self.id, 1 as libc::c_long, blocks.as_mut_ptr()) };
            if result == 1 {
                self.in_flight.insert(key, write);
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err((error, write));
            }
        }
    }

    /// Fetches completions, waiting for at least `least`: the key, the write, and how many bytes were written.
    pub(super) fn complete(
        &mut self,
        least: usize,
        into: &mut Vec<(u64, AioWrite, io::Result<usize>)>,
    ) -> io::Result<()> {
        let mut events = [CompletionEvent::default(); Self::DEPTH as usize];
        let least = least.min(self.in_flight.len()).min(events.len()) as libc::c_long;
        loop {
            // SAFETY: the kernel writes at most `events.len()` events into the array; no timeout is passed, which waits
            // until `least` are there.
            let result = unsafe {
                libc::syscall(
                    libc::SYS_io_getevents,
                    self.id,
                    least,
                    events.len() as libc::c_long,
                    events.as_mut_ptr(),
                    if least == 0 { &raw const ZERO_TIMEOUT } else { std::ptr::null() },
                )
            };
            let Ok(count) = usize::try_from(result) else {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(error);
            };
            for event in &events[..count] {
                let Some(write) = self.in_flight.remove(&event.data) else { continue };
                let result = usize::try_from(event.result)
                    .map_err(|_| io::Error::from_raw_os_error(i32::try_from(-event.result).unwrap_or(libc::EIO)));
                into.push((event.data, write, result));
            }
            return Ok(());
        }
    }
}

static ZERO_TIMEOUT: libc::timespec = libc::timespec { tv_sec: 0, tv_nsec: 0 };

impl Drop for AioContext {
    fn drop(&mut self) {
        // SAFETY: the id is that of a context that io_setup made and nobody destroyed. The call returns when no write is
        // in flight any more; the buffers in `in_flight` are freed only after it.
        let result = unsafe { libc::syscall(libc::SYS_io_destroy, self.id) };
        if result != 0 {
            // Nothing is known of the writes then: their buffers are never freed.
            std::mem::forget(std::mem::take(&mut self.in_flight));
        }
    }
}
