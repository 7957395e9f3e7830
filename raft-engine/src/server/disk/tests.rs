//! Both back ends against real files, on a disk and in memory.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;
use crate::types::ReadFiles;

const BOUND: Duration = Duration::from_secs(20);

struct Bench {
    directory: tempfile::TempDir,
    disk: Disk,
    reported: Receiver<Completed>,
    last_id: u64,
}

impl Bench {
    fn new(root: PathBuf, backend: DiskBackend) -> Self {
        let directory = tempfile::tempdir_in(root).unwrap();
        let (sender, reported) = channel();
        let report: Report = Arc::new(move |completed| drop(sender.send(completed)));
        let disk = Disk::open(directory.path(), backend, &report).unwrap();
        Self { directory, disk, reported, last_id: 0 }
    }

    fn submit(&mut self, work: DiskWork) -> DiskWorkId {
        self.last_id += 1;
        let id = DiskWorkId(self.last_id);
        self.disk.submit(id, work);
        id
    }

    /// The next log write to complete, however the back end tells it.
    fn logged(&mut self, completed: &mut Vec<Completed>) {
        let before = completed.len();
        while completed.len() == before {
            match self.disk.descriptor() {
                Some(descriptor) => {
                    let mut descriptors = [PollFd::new(&descriptor, PollFlags::IN)];
                    let bound = Timespec { tv_sec: BOUND.as_secs() as i64, tv_nsec: 0 };
                    assert_eq!(poll(&mut descriptors, Some(&bound)).unwrap(), 1, "no completion in time");
                    self.disk.complete(completed);
                }
                None => completed.push(self.reported.recv_timeout(BOUND).unwrap()),
            }
        }
    }

    fn done(&mut self, work: DiskWork) -> Result<DiskDone, DiskError> {
        let id = self.submit(work);
        let (completed, result) = self.reported.recv_timeout(BOUND).unwrap();
        assert_eq!(completed, id);
        result
    }
}

fn name(name: &str) -> FileName {
    FileName(name.into())
}

fn block(byte: u8, blocks: usize) -> AlignedBytes {
    let mut data = AlignedBytes::with_capacity(blocks * AlignedBytes::ALIGNMENT);
    data.extend_from_slice(&vec![byte; blocks * AlignedBytes::ALIGNMENT]);
    data
}

/// The disk under the build, which takes direct writes, and memory.
fn benches() -> Vec<Bench> {
    let mut benches = Vec::new();
    for root in [PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join("target"), "/dev/shm".into()] {
        std::fs::create_dir_all(&root).unwrap();
        benches.push(Bench::new(root.clone(), DiskBackend::Thread));
        benches.push(Bench::new(root, DiskBackend::Auto));
    }
    benches
}

#[test]
fn log_writes_complete_in_order_and_land_where_they_should() {
    for mut bench in benches() {
        let segment = name("segment");
        let length = 64 * AlignedBytes::ALIGNMENT as u64;
        let zeroed = DiskStep::CreateZeroed { file: segment.clone(), length };
        bench.done(DiskWork::Job(vec![zeroed, DiskStep::Sync { file: segment.clone() }])).unwrap();
        // More than the kernel's queue, so that some wait for room.
        let ids: Vec<_> = (0..60)
            .map(|at: u64| {
                let offset = at * AlignedBytes::ALIGNMENT as u64;
                let data = block(at as u8 + 1, 1);
                bench.submit(DiskWork::WriteLog { file: segment.clone(), offset, data })
            })
            .collect();
        let mut completed = Vec::new();
        while completed.len() < ids.len() {
            bench.logged(&mut completed);
        }
        assert_eq!(completed, ids.iter().map(|&id| (id, Ok(DiskDone::Done))).collect::<Vec<_>>());
        let content = std::fs::read(bench.directory.path().join("segment")).unwrap();
        for (at, block) in content.chunks(AlignedBytes::ALIGNMENT).enumerate() {
            let expected = if at < 60 { at as u8 + 1 } else { 0 };
            assert!(block.iter().all(|&byte| byte == expected), "block {at} of {}", bench.disk.backend_name());
        }
    }
}

#[test]
fn a_write_to_a_missing_file_fails_and_so_does_every_later_one() {
    for mut bench in benches() {
        let segment = name("segment");
        bench.done(DiskWork::Job(vec![DiskStep::CreateZeroed { file: segment.clone(), length: 8192 }])).unwrap();
        bench.submit(DiskWork::WriteLog { file: segment.clone(), offset: 0, data: block(1, 1) });
        bench.submit(DiskWork::WriteLog { file: name("missing"), offset: 0, data: block(2, 1) });
        bench.submit(DiskWork::WriteLog { file: segment, offset: 4096, data: block(3, 1) });
        let mut completed = Vec::new();
        while completed.len() < 3 {
            bench.logged(&mut completed);
        }
        assert!(completed[0].1.is_ok());
        let error = completed[1].1.as_ref().unwrap_err();
        assert_eq!((error.action, error.file.0.as_str(), error.is_full), ("open", "missing", false));
        assert!(completed[2].1.is_err(), "durable is what all earlier writes are, too");
    }
}

#[test]
fn a_name_that_means_another_file_is_written_there() {
    for mut bench in benches() {
        let (first, second) = (name("first"), name("second"));
        let zeroed = |file: &FileName| DiskStep::CreateZeroed { file: file.clone(), length: 4096 };
        bench.done(DiskWork::Job(vec![zeroed(&first), zeroed(&second)])).unwrap();
        let mut completed = Vec::new();
        bench.submit(DiskWork::WriteLog { file: first.clone(), offset: 0, data: block(1, 1) });
        bench.logged(&mut completed);
        bench.done(DiskWork::Job(vec![DiskStep::Rename { from: second, to: first.clone() }])).unwrap();
        bench.submit(DiskWork::WriteLog { file: first, offset: 0, data: block(2, 1) });
        bench.logged(&mut completed);
        assert!(completed.iter().all(|(_, result)| result.is_ok()));
        assert_eq!(std::fs::read(bench.directory.path().join("first")).unwrap(), vec![2; 4096]);
    }
}

#[test]
fn jobs_do_what_they_say_and_stop_at_the_first_failure() {
    let mut bench = benches().remove(0);
    let (made, moved) = (name("made"), name("folder/moved"));
    bench
        .done(DiskWork::Job(vec![
            DiskStep::Create { file: made.clone(), data: Bytes::from_static(b"0123456789") },
            DiskStep::Write { file: made.clone(), offset: 8, data: Bytes::from_static(b"abcd") },
            DiskStep::WriteZeros { file: made.clone(), offset: 2, length: 2 },
            DiskStep::Sync { file: made.clone() },
            DiskStep::Rename { from: made.clone(), to: moved.clone() },
            DiskStep::SyncDirectory,
            DiskStep::Remove { file: name("not there") },
        ]))
        .unwrap();
    let read = |offset, length| DiskWork::Read { file: moved.clone(), offset, length };
    let content = bench.done(read(1, 100)).unwrap();
    assert_eq!(content, DiskDone::Read(Bytes::from_static(b"1\0\x004567abcd")));
    assert_eq!(bench.done(read(100, 5)).unwrap(), DiskDone::Read(Bytes::new()));

    let error = bench.done(DiskWork::Job(vec![
        DiskStep::Sync { file: name("not there") },
        DiskStep::Remove { file: moved.clone() },
    ]));
    assert_eq!(error.unwrap_err().action, "sync");
    assert!(bench.done(read(0, 1)).is_ok(), "what follows a failure is not done");
    let outside = bench.done(DiskWork::Job(vec![DiskStep::Remove { file: name("../moved") }]));
    assert_eq!(outside.unwrap_err().action, "remove");

    let mut files = DirectoryFiles::new(bench.directory.path());
    std::fs::write(bench.directory.path().join(LOCK_NAME), "").unwrap();
    assert_eq!(files.list().unwrap(), vec![(moved.clone(), 12)], "the lock is no file of the engine's");
    assert_eq!(files.read(&moved, 10, 100).unwrap(), Bytes::from_static(b"cd"));
    assert!(files.read(&made, 0, 1).is_err());
}

#[test]
fn files_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let mut bench = benches().remove(0);
    bench.done(DiskWork::Job(vec![DiskStep::Create { file: name("folder/file"), data: Bytes::new() }])).unwrap();
    let mode = |path: &str| {
        let metadata = std::fs::metadata(bench.directory.path().join(path)).unwrap();
        metadata.permissions().mode() & 0o777
    };
    assert_eq!((mode("folder"), mode("folder/file")), (0o700, 0o600));
}

#[test]
fn a_disk_that_is_dropped_leaves_no_write_half_done() {
    for mut bench in benches() {
        let segment = name("segment");
        let length = 32 * AlignedBytes::ALIGNMENT as u64;
        bench.done(DiskWork::Job(vec![DiskStep::CreateZeroed { file: segment.clone(), length }])).unwrap();
        for at in 0..16 {
            let offset = at * 2 * AlignedBytes::ALIGNMENT as u64;
            bench.submit(DiskWork::WriteLog { file: segment.clone(), offset, data: block(7, 2) });
        }
        drop(bench.disk);
        let content = std::fs::read(bench.directory.path().join("segment")).unwrap();
        assert!(content.chunks(2 * AlignedBytes::ALIGNMENT).all(|write| write.iter().all(|&byte| byte == write[0])));
    }
}
