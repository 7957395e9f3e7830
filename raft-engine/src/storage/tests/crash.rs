//! Crashes: at every step of a scripted run, and at random ones of many.

use super::disk::Disk;
use super::world::{Crash, Model, World, is_explained, model_of};
use crate::storage::RecordNumber;

/// Opens after a crash, with up to two more crashes on the way, and checks what was found each time.
fn reopen(mut disk: Disk, history: &[Model], written: RecordNumber, random: &mut fastrand::Rng, why: &str) -> World {
    let mut cached = None;
    for crash in 0.. {
        let mut world = match World::open(disk, random.u64(..)) {
            Ok(world) => world,
            Err(error) => panic!("{why}: {error}"),
        };
        let found = model_of(&world.recovered);
        assert!(is_explained(&world.recovered, history, written), "{why}: what was found was never there");
        assert!(cached.is_none_or(|cached| cached == found), "{why}: a killed recovery changed what was there");
        let mut left = if crash < 2 { random.usize(0..40) } else { usize::MAX };
        while left > 0 && !world.is_ready {
            assert!(world.step(random), "{why}: recovery ends");
            left -= 1;
        }
        if world.is_ready {
            return world;
        }
        // Nothing was said: a power cut may still take whatever was not durable.
        let kind = if random.bool() { Crash::Kill } else { Crash::PowerCut };
        cached = (kind == Crash::Kill).then_some(found);
        disk = world.crash(kind, random).0;
    }
    unreachable!()
}

fn run(seed: u64, crash_at: Option<usize>, crash: Crash) -> usize {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut world = World::open(Disk::default(), seed).unwrap();
    let mut fault = fastrand::Rng::with_seed(seed ^ crash_at.unwrap_or(0) as u64);
    for _ in 0..220 {
        if world.is_ready {
            world.act(&mut random);
        }
        for _ in 0..random.usize(0..6) {
            if Some(world.steps) == crash_at {
                let why = format!("seed {seed}, {crash:?} at step {}", world.steps);
                let (mut disk, history, written) = world.crash(crash, &mut fault);
                if crash == Crash::Kill && fault.bool() {
                    // A killed process, then a power cut before anyone has started again.
                    disk.power_cut(&mut fault);
                }
                let mut world = reopen(disk, &history, written, &mut fault, &why);
                for _ in 0..10 {
                    world.act(&mut fault);
                    world.step(&mut fault);
                    world.check_reads();
                }
                world.settle_all();
                let (mut disk, history, written) = world.crash(Crash::Kill, &mut fault);
                assert_eq!(written.0 as usize + 1, history.len());
                disk.power_cut(&mut fault);
                reopen(disk, &history, written, &mut fault, &why);
                return 0;
            }
            world.step(&mut random);
            world.check_reads();
        }
    }
    world.steps
}

#[test]
fn a_crash_at_every_step_loses_nothing_that_was_durable() {
    let steps = run(1, None, Crash::Kill);
    assert!(steps > 200, "{steps}");
    for crash_at in 0..steps {
        for crash in [Crash::Kill, Crash::PowerCut] {
            run(1, Some(crash_at), crash);
        }
    }
}

#[test]
fn crashes_anywhere_lose_nothing_that_was_durable() {
    for seed in 100..400 {
        let crash = if seed % 2 == 0 { Crash::Kill } else { Crash::PowerCut };
        run(seed, Some((seed * 7 % 500) as usize), crash);
    }
}

#[test]
fn many_incarnations_go_on_where_the_last_one_ended() {
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::open(Disk::default(), seed).unwrap();
        let mut freed = false;
        for incarnation in 1..12_u64 {
            while !world.is_ready {
                assert!(world.step(&mut random));
            }
            assert!(world.recovered.incarnation.number >= incarnation);
            for _ in 0..random.usize(50..300) {
                world.act(&mut random);
                for _ in 0..random.usize(0..8) {
                    world.step(&mut random);
                }
                world.check_reads();
            }
            freed |= world.disk.names().iter().all(|name| name.0 != "segment-0000000001");
            let crash = if random.bool() { Crash::Kill } else { Crash::PowerCut };
            let (disk, history, written) = world.crash(crash, &mut random);
            world = reopen(disk, &history, written, &mut random, &format!("seed {seed}, incarnation {incarnation}"));
        }
        assert!(freed, "seed {seed}: no segment was ever freed");
    }
}
