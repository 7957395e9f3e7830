//! A failing run made smaller: what it does not need is left out, one thing after another, as long as the same rule is
//! still broken, and no later. What is left is a shorter trace, and says by what is missing what does not matter.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::attacks::Clocks;
use super::profile::{Profile, Weights};

/// One thing that a run does without.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reduction {
    /// Faults of this kind, by its place in [`FAULTS`].
    Fault(usize),
    /// Messages lost, doubled, late or chopped.
    Network,
    /// All groups but the first.
    Groups,
    /// Operators; what members change stays as it is.
    Operators,
    /// Comparisons of replicas, and states that are corrupted.
    Digests,
    /// Log writes that overlap.
    Overlap,
    /// Turns that gather events.
    Gathering,
    /// Clocks that do not run alike.
    Drift,
    /// Partitions of known shapes.
    Shapes,
    /// What lies in wait for moments.
    Ambushes,
    /// The loss of a quorum for good.
    QuorumLoss,
    /// The partition that is left when faults have ended.
    Stall,
    /// Reads at whoever has believed longest that it leads.
    LeaseReads,
    /// Faults after so many milliseconds.
    After(u64),
}

/// The names of the kinds of faults.
pub const FAULTS: [&str; 13] = [
    "kill",
    "power-cut",
    "kill-then-power-cut",
    "close",
    "pause",
    "partition",
    "break-stream",
    "slow-disk",
    "fail-write",
    "fail-sync",
    "full-disk",
    "wipe",
    "all-down",
];

/// Everything that a run does beyond throwing dice: without it, a seed is what it was before there was any.
pub const ATTACKS: [Reduction; 6] = [
    Reduction::Drift,
    Reduction::Shapes,
    Reduction::Ambushes,
    Reduction::QuorumLoss,
    Reduction::Stall,
    Reduction::LeaseReads,
];

/// The earliest end of faults that is tried, in milliseconds: groups have formed by then.
const EARLIEST_END: u64 = 500;

impl Reduction {
    /// Leaves it out.
    pub(super) fn apply(self, profile: &mut Profile) {
        match self {
            Self::Fault(kind) => *weight(&mut profile.weights, kind) = 0,
            Self::Network => {
                let network = &mut profile.network;
                for permille in [
                    &mut network.slow_permille,
                    &mut network.loss_permille,
                    &mut network.double_permille,
                    &mut network.late_permille,
                    &mut network.chop_permille,
                ] {
                    *permille = 0;
                }
            }
            Self::Groups => profile.groups = 1,
            Self::Operators => profile.operator_interval = None,
            Self::Drift => profile.attacks.clocks = Clocks::Alike,
            Self::Shapes => profile.attacks.shape_interval = None,
            Self::Ambushes => profile.attacks.ambushes = 0,
            Self::QuorumLoss => profile.attacks.quorum_loss_at = None,
            Self::Stall => profile.attacks.stall = None,
            Self::LeaseReads => profile.attacks.lease_interval = None,
            Self::Digests => (profile.digest_interval, profile.corrupt_at) = (None, None),
            Self::Overlap => profile.settings.writes_in_flight = 1,
            Self::Gathering => profile.gather_eighths = 0,
            Self::After(milliseconds) => {
                profile.faults_end = profile.faults_end.min(Duration::from_millis(milliseconds));
            }
        }
    }
}

fn weight(weights: &mut Weights, kind: usize) -> &mut u32 {
    let all: [&mut u32; 13] = [
        &mut weights.kill,
        &mut weights.power_cut,
        &mut weights.kill_then_power_cut,
        &mut weights.close,
        &mut weights.pause,
        &mut weights.partition,
        &mut weights.break_stream,
        &mut weights.slow_disk,
        &mut weights.fail_write,
        &mut weights.fail_sync,
        &mut weights.full_disk,
        &mut weights.wipe,
        &mut weights.all_down,
    ];
    all.into_iter().nth(kind).expect("a kind of fault")
}

impl fmt::Display for Reduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(kind) => f.write_str(FAULTS[*kind]),
            Self::Network => f.write_str("network"),
            Self::Groups => f.write_str("groups"),
            Self::Operators => f.write_str("operators"),
            Self::Digests => f.write_str("digests"),
            Self::Overlap => f.write_str("overlap"),
            Self::Drift => f.write_str("drift"),
            Self::Shapes => f.write_str("shapes"),
            Self::Ambushes => f.write_str("ambushes"),
            Self::QuorumLoss => f.write_str("quorum-loss"),
            Self::Stall => f.write_str("stall"),
            Self::LeaseReads => f.write_str("lease-reads"),
            Self::Gathering => f.write_str("gathering"),
            Self::After(milliseconds) => write!(f, "after={milliseconds}"),
        }
    }
}

impl FromStr for Reduction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(kind) = FAULTS.iter().position(|name| *name == text) {
            return Ok(Self::Fault(kind));
        }
        Ok(match text {
            "network" => Self::Network,
            "groups" => Self::Groups,
            "operators" => Self::Operators,
            "digests" => Self::Digests,
            "overlap" => Self::Overlap,
            "drift" => Self::Drift,
            "shapes" => Self::Shapes,
            "ambushes" => Self::Ambushes,
            "quorum-loss" => Self::QuorumLoss,
            "stall" => Self::Stall,
            "lease-reads" => Self::LeaseReads,
            "gathering" => Self::Gathering,
            _ => match text.strip_prefix("after=").and_then(|number| number.parse().ok()) {
                Some(milliseconds) => Self::After(milliseconds),
                None => return Err(format!("nothing is named {text} that a run could do without")),
            },
        })
    }
}

/// The rule that a failure is about: what follows it differs from run to run.
fn rule_of(what: &str) -> &str {
    match what.strip_prefix("violated: ") {
        Some(rest) => rest.split(": ").next().unwrap_or(rest),
        None => what.lines().next().unwrap_or(what),
    }
}

/// Leaves out what a failure does not need. `run` tells how a run with these reductions fails, if it does, and how many
/// steps it took; `what` is how the whole run failed, and `steps` after how many.
pub(super) fn shrink(
    what: &str,
    steps: u64,
    mut run: impl FnMut(&[Reduction]) -> Option<(String, u64)>,
) -> Vec<Reduction> {
    let mut kept: Vec<Reduction> = Vec::new();
    let mut fewest = steps;
    let mut is_smaller = |reductions: &[Reduction]| {
        let same = run(reductions).filter(|(other, _)| rule_of(other) == rule_of(what));
        let steps = same.map(|(_, steps)| steps).filter(|steps| *steps <= fewest);
        fewest = steps.unwrap_or(fewest);
        steps.is_some()
    };
    let mut candidates = vec![Reduction::Groups, Reduction::Operators, Reduction::Digests, Reduction::Network];
    candidates.extend(ATTACKS);
    candidates.extend((0..FAULTS.len()).map(Reduction::Fault));
    candidates.extend([Reduction::Overlap, Reduction::Gathering]);
    for candidate in candidates {
        let with = [&kept[..], &[candidate]].concat();
        if is_smaller(&with) {
            kept = with;
        }
    }
    // The end of faults, by halves.
    let (mut fails_at, mut holds_at) = (16_000, EARLIEST_END);
    while fails_at - holds_at > 100 {
        let middle = (fails_at + holds_at) / 2;
        let with = [&kept[..], &[Reduction::After(middle)]].concat();
        match is_smaller(&with) {
            true => fails_at = middle,
            false => holds_at = middle,
        }
    }
    if fails_at < 16_000 {
        kept.push(Reduction::After(fails_at));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_failure_needs_is_left() {
        // It needs kills, the network's faults, and faults for three seconds; with pauses alone, something else fails.
        let kill = Reduction::Fault(0);
        let run = |reductions: &[Reduction]| {
            let is_without = |what| reductions.contains(&what);
            let ends = reductions.iter().find_map(|reduction| match reduction {
                Reduction::After(milliseconds) => Some(*milliseconds),
                _ => None,
            });
            if is_without(Reduction::Network) || ends.is_some_and(|end| end < 3_000) {
                return None;
            }
            let rule = if is_without(kill) { "another" } else { "one leader a term" };
            Some((format!("violated: {rule}: {reductions:?}"), 1))
        };
        let kept = shrink("violated: one leader a term: servers 1 and 2", 1, run);
        assert!(!kept.contains(&kill) && !kept.contains(&Reduction::Network));
        assert!(kept.contains(&Reduction::Groups) && kept.contains(&Reduction::Fault(5)));
        assert!(matches!(kept.last(), Some(Reduction::After(3_000..=3_100))));
    }

    #[test]
    fn a_run_that_fails_later_is_not_smaller() {
        let run = |reductions: &[Reduction]| Some(("violated: a rule: x".to_owned(), 100 + reductions.len() as u64));
        assert_eq!(shrink("violated: a rule: y", 100, run), []);
    }

    #[test]
    fn every_reduction_is_told_and_read_again() {
        let others = [Reduction::Network, Reduction::Groups, Reduction::Operators, Reduction::After(1_234)];
        let more = [Reduction::Overlap, Reduction::Gathering];
        for reduction in (0..FAULTS.len()).map(Reduction::Fault).chain(others).chain(more).chain(ATTACKS) {
            assert_eq!(reduction.to_string().parse(), Ok(reduction));
        }
        assert!("everything".parse::<Reduction>().is_err());
    }

    #[test]
    fn a_run_without_every_fault_has_none() {
        let mut profile = Profile::new(&mut fastrand::Rng::with_seed(3));
        (0..FAULTS.len()).for_each(|kind| Reduction::Fault(kind).apply(&mut profile));
        assert!(super::super::faults::draw(&profile, &mut fastrand::Rng::with_seed(4)).is_none());
    }
}
