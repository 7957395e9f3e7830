//! Which fault comes next, and to whom. What a fault does is the world's.

use std::time::Duration;

use fastrand::Rng;

use super::profile::{Profile, Weights};

/// One fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    Kill {
        server: usize,
    },
    PowerCut {
        server: usize,
    },
    /// A killed process; the power goes while it is down, or while it recovers.
    KillThenPowerCut {
        server: usize,
        after: Duration,
    },
    Close {
        server: usize,
    },
    Pause {
        server: usize,
        lasts: Duration,
    },
    /// Blocked links, as a mask of receivers by sender.
    Partition {
        masks: Masks,
    },
    BreakStream,
    SlowDisk {
        server: usize,
        times: u32,
    },
    FailWrite {
        server: usize,
    },
    FailSync {
        server: usize,
    },
    FullDisk {
        server: usize,
        room_bytes: u64,
    },
    Wipe {
        server: usize,
    },
    /// Every server goes down at once.
    AllDown {
        is_power_cut: bool,
    },
}

/// The most servers of a run.
pub(super) const MAX_SERVERS: usize = 8;

/// Whom each server cannot reach: bit `to` of `masks[from]`.
pub(super) type Masks = [u8; MAX_SERVERS];

/// Draws the rest of a fault of some kind.
type Draw<'a> = &'a dyn Fn(&mut Rng) -> Fault;

/// Draws the next fault.
pub(super) fn draw(profile: &Profile, rng: &mut Rng) -> Option<Fault> {
    let Weights {
        kill,
        power_cut,
        kill_then_power_cut,
        close,
        pause,
        partition,
        break_stream,
        slow_disk,
        fail_write,
        fail_sync,
        full_disk,
        wipe,
        all_down,
    } = profile.weights;
    let server = rng.usize(..profile.servers);
    let millis = |rng: &mut Rng, most: u64| Duration::from_micros(rng.u64(..most * 1_000));
    let choices: [(u32, Draw<'_>); 13] = [
        (kill, &|_| Fault::Kill { server }),
        (power_cut, &|_| Fault::PowerCut { server }),
        (kill_then_power_cut, &|rng| Fault::KillThenPowerCut { server, after: millis(rng, 100) }),
        (close, &|_| Fault::Close { server }),
        (pause, &|rng| Fault::Pause { server, lasts: millis(rng, 1_500) }),
        (partition, &|rng| Fault::Partition { masks: masks(profile.servers, rng) }),
        (break_stream, &|_| Fault::BreakStream),
        (slow_disk, &|rng| Fault::SlowDisk { server, times: rng.u32(2..2_000) }),
        (fail_write, &|_| Fault::FailWrite { server }),
        (fail_sync, &|_| Fault::FailSync { server }),
        (full_disk, &|rng| Fault::FullDisk { server, room_bytes: rng.u64(..300_000) }),
        (wipe, &|_| Fault::Wipe { server }),
        (all_down, &|rng| Fault::AllDown { is_power_cut: rng.bool() }),
    ];
    let total: u32 = choices.iter().map(|(weight, _)| weight).sum();
    let mut at = rng.u32(..total.max(1));
    for (weight, fault) in choices {
        if at < weight {
            return Some(fault(rng));
        }
        at -= weight;
    }
    None
}

/// A partition of some shape.
fn masks(servers: usize, rng: &mut Rng) -> Masks {
    let all = u8::MAX >> (MAX_SERVERS - servers);
    let mut masks = [0; MAX_SERVERS];
    match rng.u8(..5) {
        // Two sides.
        0 | 1 => {
            let side = rng.u8(..=all);
            for (from, mask) in masks.iter_mut().enumerate().take(servers) {
                *mask = if side >> from & 1 == 1 { all & !side } else { side };
            }
        }
        // One server cannot be heard, or hears nobody.
        2 => {
            let server = rng.usize(..servers);
            if rng.bool() {
                masks[server] = all & !(1 << server);
            } else {
                masks.iter_mut().take(servers).for_each(|mask| *mask = 1 << server);
                masks[server] = 0;
            }
        }
        // One server is the only bridge between two sides.
        3 => {
            let bridge = rng.usize(..servers);
            let side = rng.u8(..=all);
            for (from, mask) in masks.iter_mut().enumerate().take(servers).filter(|&(from, _)| from != bridge) {
                *mask = (if side >> from & 1 == 1 { all & !side } else { side }) & !(1 << bridge);
            }
        }
        // Any links.
        _ => {
            for (from, mask) in masks.iter_mut().enumerate().take(servers) {
                *mask = rng.u8(..=all) & rng.u8(..=all) & !(1 << from);
            }
        }
    }
    masks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_cut_off_from_itself() {
        let mut rng = Rng::with_seed(7);
        for _ in 0..1_000 {
            let servers = rng.usize(1..=MAX_SERVERS);
            let masks = masks(servers, &mut rng);
            assert!((0..MAX_SERVERS).all(|server| masks[server] >> server & 1 == 0), "{masks:?}");
        }
    }
}
