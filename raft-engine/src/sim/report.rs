//! Running one seed, and telling what came of it.

use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;
use std::time::Duration;

use super::coverage::Coverage;
use super::invariants::Violation;
use super::shrink::{self, Reduction};
use super::world::World;

/// How a failing run is told, in lines of trace.
const TAIL_LINES: usize = 300;

/// What to run, and how much of it to tell.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Everything follows from it.
    pub seed: u64,
    /// What the run does without.
    pub reductions: Vec<Reduction>,
    /// Print every step as it happens.
    pub trace: bool,
    /// Clocks differ by more than leases allow: some seeds fail then, and must.
    pub clocks_beyond_bound: bool,
}

/// What came of a seed.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// How many things happened.
    pub steps: u64,
    /// How long it took in the simulation's own time.
    pub simulated: Duration,
    /// Over all that happened: the same for every run of the seed.
    pub trace_hash: u64,
    /// The rare things.
    pub coverage: Coverage,
    /// What went wrong, if anything did.
    pub failure: Option<Failure>,
}

/// A seed that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What it did without.
    pub reductions: Vec<Reduction>,
    /// What kind of run it was.
    pub options: String,
    /// The rule that was broken, or the assertion.
    pub what: String,
    /// The last steps, a line each.
    pub tail: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.tail)?;
        writeln!(f, "options: {}", self.options)?;
        writeln!(f, "seed {} failed: {}", self.seed, self.what)?;
        write!(f, "again, with the whole trace: raft-sim --seed {} --trace", self.seed)?;
        let names: Vec<_> = self.reductions.iter().map(Reduction::to_string).collect();
        if names.is_empty() { Ok(()) } else { write!(f, " --without {}", names.join(",")) }
    }
}

/// Runs a seed. A seed that fails is run once more, to tell its last steps.
pub fn run(options: Options) -> Report {
    let report = run_once(&options, 0);
    if report.failure.is_some() && !options.trace { run_once(&options, TAIL_LINES) } else { report }
}

/// Runs a seed that failed again and again, each time without one thing more, and tells of the smallest run that breaks
/// the same rule.
pub fn shrink(report: &Report) -> Option<Failure> {
    let (seed, failure) = (report.seed, report.failure.as_ref()?);
    let kept = shrink::shrink(&failure.what, report.steps, |reductions| {
        let report = run_once(&Options { seed, reductions: reductions.to_vec(), ..Options::default() }, 0);
        report.failure.map(|failure| (failure.what, report.steps))
    });
    run(Options { seed, reductions: kept, ..Options::default() }).failure
}

fn run_once(options: &Options, keep: usize) -> Report {
    let Options { seed, reductions, .. } = options;
    let seed = *seed;
    let mut world = World::new(options, keep);
    let what = match catching(|| world.run()) {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some(Violation::to_string(&violation)),
        Err(panic) => Some(panic),
    };
    let failure = what.map(|what| Failure {
        seed,
        reductions: reductions.to_vec(),
        options: format!("{:?}", world.profile),
        what,
        tail: world.trace.tail(),
    });
    let simulated = Duration::from_nanos(world.queue.now().0);
    Report { seed, steps: world.steps, simulated, trace_hash: world.trace.hash(), coverage: world.coverage, failure }
}

thread_local! {
    /// Where this thread's last panic was, if it runs a simulation.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs something, and tells of a panic in it, with its place, without printing. Drivers catch panics of their cores;
/// those are told too, in the notices.
fn catching<R>(run: impl FnOnce() -> R) -> Result<R, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |info| {
            let is_ours =
                PANIC.with_borrow_mut(|panic| panic.as_mut().map(|panic| *panic = info.to_string()).is_some());
            if !is_ours {
                others(info);
            }
        }));
    });
    PANIC.set(Some(String::new()));
    let result = catch_unwind(AssertUnwindSafe(run));
    let panic = PANIC.take().unwrap_or_default();
    result.map_err(|_| panic)
}

/// Where the last panic was that a driver caught, if one was.
pub(super) fn last_panic() -> String {
    PANIC.with_borrow(|panic| panic.clone().unwrap_or_default())
}
