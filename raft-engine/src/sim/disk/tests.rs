use super::*;
use crate::types::ReadFiles;

fn name(name: &str) -> FileName {
    FileName(name.to_owned())
}

fn run_job(disk: &mut SimDisk, steps: Vec<DiskStep>) -> Result<(), DiskError> {
    disk.submit(DiskWorkId(99), DiskWork::Job(steps));
    loop {
        if let (_, _, Some(result)) = disk.step_job().expect("a job was submitted") {
            return result.map(|_| ());
        }
    }
}

fn segment(disk: &mut SimDisk, sectors: u64) {
    let file = name("segment");
    run_job(
        disk,
        vec![
            DiskStep::CreateZeroed { file: file.clone(), length: sectors * 512 },
            DiskStep::Sync { file },
            DiskStep::SyncDirectory,
        ],
    )
    .unwrap();
}

fn page(byte: u8) -> AlignedBytes {
    let mut data = AlignedBytes::with_capacity(4096);
    data.extend_from_slice(&[byte; 4096]);
    data
}

fn visible(disk: &SimDisk, file: &str) -> Option<Bytes> {
    VisibleFiles(disk).read(&name(file), 0, 1 << 20).ok()
}

fn synced(disk: &SimDisk, file: &str) -> Option<Bytes> {
    SyncedFiles(disk).read(&name(file), 0, 1 << 20).ok()
}

#[test]
fn a_completed_log_write_survives_a_power_cut() {
    for seed in 0..50 {
        let mut rng = Rng::with_seed(seed);
        let mut disk = SimDisk::new(seed % 2 == 0);
        segment(&mut disk, 16);
        disk.submit(DiskWorkId(1), DiskWork::WriteLog { file: name("segment"), offset: 4096, data: page(7) });
        disk.complete_log_write(&mut rng).unwrap().1.unwrap();
        disk.kill(&mut rng);
        disk.cut_power(&mut rng);
        assert_eq!(visible(&disk, "segment").unwrap()[4096..8192], [7; 4096]);
    }
}

#[test]
fn a_log_write_under_way_may_be_torn_or_lost_and_a_killed_process_may_leave_it_unsynced() {
    let (mut lost, mut whole, mut torn, mut only_visible) = (0, 0, 0, 0);
    for seed in 0..200 {
        let mut rng = Rng::with_seed(seed);
        let mut disk = SimDisk::new(false);
        segment(&mut disk, 16);
        disk.submit(DiskWorkId(1), DiskWork::WriteLog { file: name("segment"), offset: 0, data: page(7) });
        disk.kill(&mut rng);
        let written = |content: Bytes| content[..4096].iter().filter(|&&byte| byte == 7).count();
        only_visible += usize::from(visible(&disk, "segment") != synced(&disk, "segment"));
        disk.cut_power(&mut rng);
        assert_eq!(visible(&disk, "segment"), synced(&disk, "segment"));
        match written(visible(&disk, "segment").unwrap()) {
            0 => lost += 1,
            4096 => whole += 1,
            _ => torn += 1,
        }
    }
    assert!(lost > 10 && whole > 10 && torn > 10 && only_visible > 10, "{lost} {whole} {torn} {only_visible}");
}

#[test]
fn a_file_without_a_synced_name_may_be_lost() {
    let mut kept = 0;
    for seed in 0..100 {
        let mut rng = Rng::with_seed(seed);
        let mut disk = SimDisk::new(true);
        let file = name("a");
        let steps =
            vec![DiskStep::Create { file: file.clone(), data: Bytes::from_static(b"x") }, DiskStep::Sync { file }];
        run_job(&mut disk, steps).unwrap();
        assert_eq!(synced(&disk, "a"), None);
        disk.cut_power(&mut rng);
        kept += usize::from(visible(&disk, "a").is_some());
    }
    assert!((1..100).contains(&kept));
}

#[test]
fn a_rename_leaves_the_old_or_the_new_file() {
    for seed in 0..100 {
        let mut rng = Rng::with_seed(seed);
        let mut disk = SimDisk::new(true);
        let create =
            |file: &str, data: &'static [u8]| DiskStep::Create { file: name(file), data: Bytes::from_static(data) };
        let old = vec![create("m", b"old"), DiskStep::Sync { file: name("m") }, DiskStep::SyncDirectory];
        run_job(&mut disk, old).unwrap();
        let rename = DiskStep::Rename { from: name("t"), to: name("m") };
        run_job(&mut disk, vec![create("t", b"new"), DiskStep::Sync { file: name("t") }, rename]).unwrap();
        disk.cut_power(&mut rng);
        let content = visible(&disk, "m").unwrap();
        assert!(&content[..] == b"old" || &content[..] == b"new");
    }
}

#[test]
fn a_failed_sync_is_not_repaired_by_a_later_one() {
    let mut rng = Rng::with_seed(1);
    let mut disk = SimDisk::new(true);
    segment(&mut disk, 16);
    let file = name("segment");
    disk.fail_next_sync();
    let write = DiskStep::Write { file: file.clone(), offset: 0, data: Bytes::from_static(&[7; 512]) };
    run_job(&mut disk, vec![write.clone(), DiskStep::Sync { file: file.clone() }]).unwrap_err();
    run_job(&mut disk, vec![DiskStep::Sync { file: file.clone() }]).unwrap();
    assert_eq!(visible(&disk, "segment").unwrap()[0], 7);
    assert_eq!(synced(&disk, "segment").unwrap()[0], 0);
    run_job(&mut disk, vec![write, DiskStep::Sync { file }]).unwrap();
    disk.cut_power(&mut rng);
    assert_eq!(visible(&disk, "segment").unwrap()[0], 7);
}

#[test]
fn after_a_failed_log_write_none_completes() {
    let mut rng = Rng::with_seed(1);
    let mut disk = SimDisk::new(true);
    segment(&mut disk, 16);
    disk.fail_next_log_write();
    for id in 1..3 {
        disk.submit(DiskWorkId(id), DiskWork::WriteLog { file: name("segment"), offset: 0, data: page(7) });
    }
    disk.complete_log_write(&mut rng).unwrap().1.unwrap_err();
    disk.complete_log_write(&mut rng).unwrap().1.unwrap_err();
}

#[test]
fn a_full_disk_says_so() {
    let mut disk = SimDisk::new(true);
    disk.set_room(Some(1000));
    let create = DiskStep::CreateZeroed { file: name("a"), length: 4096 };
    assert!(run_job(&mut disk, vec![create.clone()]).unwrap_err().is_full);
    disk.set_room(None);
    run_job(&mut disk, vec![create]).unwrap();
}
