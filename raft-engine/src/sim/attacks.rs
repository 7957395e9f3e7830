//! What a run does beyond throwing dice: it waits for the moments that dice seldom hit, and builds the partitions that are
//! known to stall others. Drawn from a stream of its own, so that a run can do without any of it and is else the same.

use std::time::Duration;

use fastrand::Rng;

use super::faults::{MAX_SERVERS, Masks};

/// How the rates of the servers' clocks compare.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Clocks {
    /// They run alike.
    #[default]
    Alike,
    /// They differ as much as leases allow: the fastest runs a tenth faster than the slowest.
    WithinBound,
    /// They differ by more. Leases prove nothing then: only a test wants to see that.
    BeyondBound,
}

/// The rate of a clock that is right, in the unit of all.
pub(super) const USUAL_RATE: u64 = 1024;

impl Clocks {
    /// The rate of one server's clock: mostly the slowest or the fastest there may be. Beyond the bound, the first server's is
    /// slow and all others are fast: its lease is long, and their promises short.
    pub(super) fn draw(self, server: usize, rng: &mut Rng) -> u64 {
        let (slowest, fastest) = match self {
            Self::Alike => return USUAL_RATE,
            // A lease counts nine tenths of a promise: 0.9 / 973 is less than 1 / 1075.
            Self::WithinBound => (973, 1_075),
            Self::BeyondBound => return if server == 0 { 600 } else { 1_500 },
        };
        match rng.u8(..4) {
            0 => slowest,
            1 | 2 => fastest,
            _ => rng.u64(slowest..=fastest),
        }
    }
}

/// A partition under which some servers still reach a majority, but none of them everybody, or hardly any.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// All reach one and nobody else: the loss of a quorum by a leader who is not that one (Ng, Petrov, Rashmi: Omni-Paxos,
    /// EuroSys 2023).
    Star,
    /// Each reaches two neighbours: with three servers, the failure of a switch that stopped an etcd (Cloudflare, 2020).
    Chain,
}

impl Shape {
    /// The blocked links among `servers` in this order. Of a star, the first is the hub. Others in the world reach nobody
    /// but the hub, or the end of the chain.
    pub(super) fn masks(self, order: &[usize]) -> Masks {
        let mut masks = [0; MAX_SERVERS];
        let is_open = |one: usize, other: usize| match self {
            Self::Star => one == 0 || other == 0,
            Self::Chain => one.abs_diff(other) == 1,
        };
        for (at, &from) in order.iter().enumerate() {
            for (other, &to) in order.iter().enumerate() {
                if at != other && !is_open(at, other) {
                    masks[from] |= 1 << to;
                }
            }
        }
        masks
    }
}

/// A moment that something is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Moment {
    /// A leader appended the first entry of a change of members.
    ChangeBegun,
    /// A leader appended a joint configuration.
    Joint,
    /// A leader appended the configuration that ends a change, or is all of it.
    Target,
    /// One of these is known to be committed.
    BegunCommitted,
    JointCommitted,
    TargetCommitted,
    /// A leader tells its successor to stand.
    HandingOver,
    /// A server begins to recover.
    Recovering,
    /// A host begins to write a snapshot.
    SnapshotBegun,
    /// Entries left the end of a log.
    Truncated,
}

/// What is made of a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ambush {
    /// The server is cut off: what it sends is lost, what it should hear, or both.
    CutOff { sends: bool, hears: bool, lasts: Duration },
    /// The process dies, or the power goes.
    Crash { is_power_cut: bool },
    /// The process stands still.
    Pause { lasts: Duration },
    /// It is cut off, and its disk is slow meanwhile.
    CutOffSlowly { lasts: Duration },
    /// Its host takes a snapshot now.
    Snapshot,
}

/// Everything of the kind that a seed decides.
#[derive(Clone, Debug, Default)]
pub(super) struct Attacks {
    /// How the clocks run.
    pub(super) clocks: Clocks,
    /// The mean time between two reads by lease at whoever has believed longest that it leads.
    pub(super) lease_interval: Option<Duration>,
    /// The mean time between two partitions of a known shape.
    pub(super) shape_interval: Option<Duration>,
    /// Of sixteen moments, how many are made something of.
    pub(super) ambushes: u8,
    /// When a majority is lost for good.
    pub(super) quorum_loss_at: Option<Duration>,
    /// The partition that is left when faults have ended and everyone has converged: it must stall nobody.
    pub(super) stall: Option<Shape>,
}

impl Attacks {
    /// Those of a seed.
    pub(super) fn new(rng: &mut Rng, faults_end: Duration) -> Self {
        let part = |rng: &mut Rng, of: u8| rng.u8(..of) == 0;
        let until = u64::try_from(faults_end.as_millis()).unwrap_or(u64::MAX);
        Self {
            clocks: if part(rng, 2) { Clocks::WithinBound } else { Clocks::Alike },
            lease_interval: part(rng, 2).then(|| Duration::from_millis(rng.u64(2..30))),
            shape_interval: part(rng, 4).then(|| Duration::from_millis(rng.u64(400..3_000))),
            ambushes: if part(rng, 2) { rng.u8(1..12) } else { 0 },
            quorum_loss_at: part(rng, 2).then(|| Duration::from_millis(rng.u64(1_500..until.max(1_600)))),
            stall: part(rng, 4).then(|| if rng.bool() { Shape::Star } else { Shape::Chain }),
        }
    }

    /// Whether something is made of a moment, and what.
    pub(super) fn ambush(&self, moment: Moment, rng: &mut Rng) -> Option<Ambush> {
        // A recovery comes more often than all others, and keeps them from coming if it never ends.
        let is_seldom = moment == Moment::Recovering && rng.u8(..4) != 0;
        if self.ambushes == 0 || is_seldom || rng.u8(..16) >= self.ambushes {
            return None;
        }
        let lasts = Duration::from_micros(rng.u64(50_000..1_500_000));
        let crash = Ambush::Crash { is_power_cut: rng.bool() };
        let cut_off = match rng.u8(..4) {
            0 => Ambush::CutOff { sends: false, hears: true, lasts },
            1 => Ambush::CutOff { sends: true, hears: false, lasts },
            _ => Ambush::CutOff { sends: false, hears: false, lasts },
        };
        Some(match (moment, rng.u8(..8)) {
            (Moment::Recovering, _) => crash,
            (Moment::Truncated, 0..3) => crash,
            (Moment::Truncated, _) => Ambush::Snapshot,
            (Moment::SnapshotBegun, 0..2) => crash,
            (Moment::SnapshotBegun, _) => Ambush::CutOffSlowly { lasts },
            (_, 0) => Ambush::Pause { lasts },
            (_, 1 | 2) => crash,
            _ => cut_off,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whom each reaches both ways, itself too.
    fn reach(masks: &Masks, servers: usize) -> Vec<usize> {
        let is_open = |one: usize, other: usize| masks[one] >> other & 1 == 0 && masks[other] >> one & 1 == 0;
        (0..servers).map(|one| (0..servers).filter(|&other| is_open(one, other)).count()).collect()
    }

    #[test]
    fn of_a_star_only_the_hub_reaches_a_majority() {
        assert_eq!(reach(&Shape::Star.masks(&[2, 0, 1, 3, 4]), 5), [2, 2, 5, 2, 2]);
        assert_eq!(reach(&Shape::Star.masks(&[3, 0, 1, 2]), 4), [2, 2, 2, 4]);
    }

    #[test]
    fn of_a_chain_all_but_the_ends_reach_a_majority_of_five() {
        assert_eq!(reach(&Shape::Chain.masks(&[0, 1, 2, 3, 4]), 5), [2, 3, 3, 3, 2]);
        assert_eq!(reach(&Shape::Chain.masks(&[1, 0, 2]), 3), [3, 2, 2]);
    }

    #[test]
    fn no_two_clocks_within_the_bound_differ_by_more_than_leases_allow() {
        let mut rng = Rng::with_seed(1);
        let rates: Vec<u64> = (0..1_000).map(|_| Clocks::WithinBound.draw(0, &mut rng)).collect();
        let (slowest, fastest) = (rates.iter().min().unwrap(), rates.iter().max().unwrap());
        assert!(fastest * 9 < slowest * 10 && fastest * 10 > slowest * 11, "{slowest} to {fastest}");
    }
}
