//! Running one seed, and telling what came of it.

use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use super::coverage::Coverage;
use super::invariants::Violation;
use super::world::World;

/// How a failing run is told, in lines of trace.
const TAIL_LINES: usize = 300;

/// What to run, and how much of it to tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Everything follows from it.
    pub seed: u64,
    /// Print every step as it happens.
    pub trace: bool,
}

/// What came of a seed.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// How many things happened.
    pub steps: u64,
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
        write!(f, "again, with the whole trace: raft-sim --seed {} --trace", self.seed)
    }
}

/// Runs a seed. A seed that fails is run once more, to tell its last steps.
pub fn run(options: Options) -> Report {
    let Options { seed, trace } = options;
    let report = run_once(seed, 0, trace);
    if report.failure.is_some() && !trace { run_once(seed, TAIL_LINES, false) } else { report }
}

fn run_once(seed: u64, keep: usize, echo: bool) -> Report {
    let mut world = World::new(seed, keep, echo);
    let what = match catching(|| world.run()) {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some(Violation::to_string(&violation)),
        Err(panic) => Some(panic),
    };
    let failure =
        what.map(|what| Failure { seed, options: format!("{:?}", world.profile), what, tail: world.trace.tail() });
    Report { seed, steps: world.steps, trace_hash: world.trace.hash(), coverage: world.coverage, failure }
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
