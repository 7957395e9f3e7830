//! Whether one thing that never fails could have shown clients what they saw: a search for an order in which everything
//! that they did takes effect, each between its begin and its end.
//!
//! The search is Wing's and Gong's ("Testing and Verifying Concurrent Objects", 1993), with Lowe's memory of what failed
//! ("Testing for Linearizability", 2017). What was done to one key is a history by itself: a history is linearizable if
//! those of its keys are (Herlihy and Wing, 1990), and so the histories stay short. The caller may say in which order it
//! expects the operations: that is tried first, so that a history that is as expected takes one step an operation.
//! Nothing rests on it: an order that is wrong costs time. The verdict is exact, or there is none within the steps
//! given, which is as good as a failure; steps and not seconds, so that a verdict is always the same one.

use std::collections::BTreeSet;
use std::fmt;

/// A moment: a reading of one counter that all clients share.
pub type Tick = u64;

/// The end of an operation of unknown outcome: it takes effect at any time from its begin on, or never.
pub const NEVER: Tick = Tick::MAX;

/// Something that a client did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operation<A> {
    /// When it was asked for.
    pub invoked: Tick,
    /// When its answer came; [`NEVER`] where none did that says whether it was done.
    pub returned: Tick,
    /// Its place in the order that is expected.
    pub expected: u64,
    /// What it was, and what was answered.
    pub action: A,
}

/// What can be done to one thing, and what it answers.
pub trait Action: Copy + fmt::Debug {
    /// What the thing holds.
    type State: Copy + Ord + fmt::Debug;

    /// What it holds after this, if it holds `state` and answers so; `None` where it would have answered otherwise.
    fn step(&self, state: Self::State) -> Option<Self::State>;

    /// Whether it changes nothing, whatever the thing holds.
    fn is_read(&self) -> bool;
}

/// What came of the search.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// There is an order.
    Linearizable,
    /// There is none. The text says how far the search came.
    Not(String),
    /// Not decided within the steps given.
    Undecided,
}

/// A place in the order that is being built.
struct Frame<S> {
    /// What the thing holds here.
    state: S,
    /// Where its candidates begin in the pile of all.
    first: usize,
    /// The next of them to try.
    next: usize,
    /// The operation that was taken here.
    taken: Option<usize>,
}

/// The operations that are not in the order yet, by their begin.
struct Left {
    /// Behind operation `n - 1` comes `next[n]`; `next[0]` is the first.
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Those among them that have an end.
    ended: usize,
    /// Bit by bit, which are in the order.
    taken: Vec<u64>,
}

impl Left {
    fn new<A>(operations: &[Operation<A>]) -> Self {
        let count = operations.len();
        Self {
            next: (1..=count + 1).collect(),
            previous: (0..=count + 1).map(|at| at.saturating_sub(1)).collect(),
            ended: operations.iter().filter(|operation| operation.returned != NEVER).count(),
            taken: vec![0; count.div_ceil(64)],
        }
    }

    fn take<A>(&mut self, at: usize, operations: &[Operation<A>]) {
        let (previous, next) = (self.previous[at + 1], self.next[at + 1]);
        self.next[previous] = next;
        self.previous[next] = previous;
        self.taken[at / 64] |= 1 << (at % 64);
        self.ended -= usize::from(operations[at].returned != NEVER);
    }

    fn put_back<A>(&mut self, at: usize, operations: &[Operation<A>]) {
        let (previous, next) = (self.previous[at + 1], self.next[at + 1]);
        self.next[previous] = at + 1;
        self.previous[next] = at + 1;
        self.taken[at / 64] &= !(1 << (at % 64));
        self.ended += usize::from(operations[at].returned != NEVER);
    }

    /// Puts on the pile what may come next: whatever began before anything that is left ended. A read that fits comes
    /// alone: it changes nothing, so that it can only be right to take it now.
    fn candidates<A: Action>(&self, operations: &[Operation<A>], state: A::State, pile: &mut Vec<usize>) {
        let first = pile.len();
        let mut first_return = NEVER;
        let mut at = self.next[0];
        while let Some(operation) = operations.get(at - 1).filter(|operation| operation.invoked < first_return) {
            if operation.action.step(state).is_some() {
                if operation.action.is_read() {
                    pile.truncate(first);
                    return pile.push(at - 1);
                }
                pile.push(at - 1);
            }
            first_return = first_return.min(operation.returned);
            at = self.next[at];
        }
        pile[first..].sort_by_key(|&at| operations[at].expected);
    }
}

/// Looks for an order of `operations` on one thing that holds `initial` at first, in no more than so many steps.
pub fn check<A: Action>(operations: &[Operation<A>], initial: A::State, most_steps: u64) -> Verdict {
    let mut sorted = operations.to_vec();
    sorted.sort_by_key(|operation| operation.invoked);
    let operations = &sorted[..];
    let mut left = Left::new(operations);
    let mut pile = Vec::new();
    left.candidates(operations, initial, &mut pile);
    let mut frames = vec![Frame { state: initial, first: 0, next: 0, taken: None }];
    // What can be left to do, and the state in which nothing comes of it.
    let mut failed: BTreeSet<(A::State, Vec<u64>)> = BTreeSet::new();
    let (mut steps, mut deepest) = (0, (0, initial));
    while left.ended > 0 {
        let depth = frames.len();
        let Some(frame) = frames.last_mut() else {
            let (depth, state) = deepest;
            return Verdict::Not(format!("after {depth} of {} operations nothing fits {state:?}", operations.len()));
        };
        let Some(&at) = pile.get(frame.next) else {
            failed.insert((frame.state, left.taken.clone()));
            pile.truncate(frame.first);
            frames.pop();
            if let Some(taken) = frames.last_mut().and_then(|frame| frame.taken.take()) {
                left.put_back(taken, operations);
            }
            continue;
        };
        frame.next += 1;
        let Some(state) = operations[at].action.step(frame.state) else { continue };
        steps += 1;
        if steps > most_steps {
            return Verdict::Undecided;
        }
        left.take(at, operations);
        // Nothing has failed yet where everything is as expected.
        if !failed.is_empty() && failed.contains(&(state, left.taken.clone())) {
            left.put_back(at, operations);
            continue;
        }
        frame.taken = Some(at);
        let first = pile.len();
        left.candidates(operations, state, &mut pile);
        frames.push(Frame { state, first, next: first, taken: None });
        if depth > deepest.0 {
            deepest = (depth, state);
        }
    }
    Verdict::Linearizable
}

#[cfg(test)]
mod tests {
    use super::super::operations::{Cell, Change};
    use super::*;
    use fastrand::Rng;

    const WRITE: fn(u64) -> Cell = |value| Cell::Changed(Change::Write(value), None);
    const READ: fn(Option<u64>) -> Cell = Cell::Read;

    fn add(made: impl Into<Option<u64>>) -> Cell {
        Cell::Changed(Change::Add(1), made.into())
    }

    fn verdict(history: &[(Tick, Tick, Cell)]) -> Verdict {
        let operations: Vec<_> = (history.iter())
            .map(|&(invoked, returned, action)| Operation { invoked, returned, expected: invoked, action })
            .collect();
        check(&operations, None, 10_000)
    }

    #[track_caller]
    fn holds(history: &[(Tick, Tick, Cell)]) {
        assert_eq!(verdict(history), Verdict::Linearizable);
    }

    #[track_caller]
    fn is_caught(history: &[(Tick, Tick, Cell)]) {
        assert!(matches!(verdict(history), Verdict::Not(_)), "{:?}", verdict(history));
    }

    #[test]
    fn what_happened_in_order_is_linearizable() {
        holds(&[]);
        holds(&[(1, 2, READ(None)), (3, 4, WRITE(7)), (5, 6, READ(Some(7))), (7, 8, add(8)), (9, 10, READ(Some(8)))]);
    }

    #[test]
    fn what_overlaps_may_be_seen_in_any_order_but_in_one() {
        let history = [(1, 20, WRITE(1)), (2, 21, WRITE(2)), (3, 4, READ(Some(2))), (5, 6, READ(Some(1)))];
        holds(&history);
        is_caught(&[&history[..], &[(7, 8, READ(Some(2)))]].concat());
    }

    #[test]
    fn a_stale_read_is_caught() {
        is_caught(&[(1, 2, WRITE(1)), (3, 4, WRITE(2)), (5, 6, READ(Some(1)))]);
        is_caught(&[(1, 2, WRITE(1)), (3, 4, READ(None))]);
    }

    #[test]
    fn a_read_that_goes_back_is_caught() {
        let history = [(1, 9, WRITE(1)), (2, 3, READ(Some(1))), (4, 5, READ(None))];
        is_caught(&history);
        holds(&history[..2]);
    }

    #[test]
    fn a_lost_write_is_caught() {
        is_caught(&[(1, 2, add(1)), (3, 4, add(2)), (5, 6, add(2))]);
        is_caught(&[(1, 2, WRITE(1)), (3, 4, WRITE(2)), (5, 6, add(2)), (7, 8, READ(Some(2)))]);
    }

    #[test]
    fn what_is_applied_twice_is_caught() {
        is_caught(&[(1, 2, add(1)), (3, 4, READ(Some(2)))]);
        is_caught(&[(1, NEVER, add(None)), (3, 4, READ(Some(2)))]);
        is_caught(&[(1, 2, WRITE(1)), (3, 4, WRITE(2)), (5, 6, READ(Some(2))), (7, 8, READ(Some(1)))]);
    }

    #[test]
    fn what_nobody_knows_may_come_late_or_never_and_does_not_go_again() {
        holds(&[(1, NEVER, WRITE(1)), (2, 3, READ(None)), (4, 5, READ(Some(1)))]);
        holds(&[(1, NEVER, WRITE(1)), (2, 3, READ(None)), (4, 5, READ(None))]);
        holds(&[(1, 2, add(1)), (3, NEVER, add(None)), (4, 5, add(2)), (6, 7, add(4))]);
        is_caught(&[(1, NEVER, WRITE(1)), (2, 3, READ(Some(1))), (4, 5, READ(None))]);
        is_caught(&[(1, 2, READ(Some(1))), (3, NEVER, WRITE(1))]);
    }

    #[test]
    fn a_compare_and_set_tells_what_it_found() {
        let set = |expected, done| Cell::Changed(Change::CompareAndSet { expected, value: 8 }, Some(done));
        holds(&[(1, 2, WRITE(5)), (3, 4, set(1, 1)), (5, 6, READ(Some(8))), (7, 8, set(1, 0))]);
        is_caught(&[(1, 2, WRITE(5)), (3, 4, set(1, 0))]);
        is_caught(&[(1, 2, WRITE(5)), (3, 4, set(1, 1)), (5, 6, READ(Some(5)))]);
    }

    #[test]
    fn what_cannot_be_decided_in_the_steps_given_is_no_success() {
        // Writes that nobody knows of, in any order, and a read that none of them explains.
        let mut history: Vec<_> = (1..=12).map(|value| (value, NEVER, WRITE(value))).collect();
        history.push((20, 21, READ(Some(99))));
        assert_eq!(verdict(&history), Verdict::Undecided);
    }

    #[test]
    fn a_history_that_is_as_expected_takes_a_step_an_operation() {
        let mut operations = Vec::new();
        for at in 0..1_000 {
            let (invoked, action) = (2 * at, Cell::Changed(Change::Add(1), (at % 3 != 0).then_some(at + 1)));
            let returned = if at % 3 == 0 { NEVER } else { invoked + 15 };
            operations.push(Operation { invoked, returned, expected: at, action });
        }
        assert_eq!(check(&operations, None, 1_000), Verdict::Linearizable);
    }

    /// Tries every order.
    fn search(left: &[Operation<Cell>], state: Option<u64>) -> bool {
        if left.iter().all(|operation| operation.returned == NEVER) {
            return true;
        }
        let first_return = left.iter().map(|operation| operation.returned).min().expect("not empty");
        (0..left.len()).filter(|&at| left[at].invoked < first_return).any(|at| {
            let mut rest = left.to_vec();
            let operation = rest.remove(at);
            operation.action.step(state).is_some_and(|state| search(&rest, state))
        })
    }

    #[test]
    fn the_verdict_is_that_of_trying_every_order() {
        let mut rng = Rng::with_seed(1);
        let mut verdicts = [0_u32; 2];
        for _ in 0..30_000 {
            let count = rng.usize(2..8);
            let mut ticks: Vec<Tick> = (1..=2 * count as Tick).collect();
            // Mostly short intervals, or everything would overlap everything.
            for at in 0..ticks.len() - 1 {
                if rng.u8(..3) == 0 {
                    ticks.swap(at, at + 1);
                }
            }
            let operations: Vec<_> = ticks
                .chunks(2)
                .map(|pair| {
                    let (invoked, mut returned) = (pair[0].min(pair[1]), pair[0].max(pair[1]));
                    let small = |rng: &mut Rng| rng.u64(1..4);
                    let change = match rng.u8(..3) {
                        0 => Change::Write(small(&mut rng)),
                        1 => Change::Add(1),
                        _ => Change::CompareAndSet { expected: rng.u64(..2), value: small(&mut rng) },
                    };
                    let is_unknown = rng.u8(..5) == 0;
                    let action = match (rng.u8(..3), change) {
                        (0, _) => Cell::Read(Some(small(&mut rng)).filter(|value| *value < 3)),
                        (_, Change::Write(_)) => Cell::Changed(change, None),
                        _ if is_unknown => Cell::Changed(change, None),
                        (_, Change::Add(_)) => Cell::Changed(change, Some(small(&mut rng))),
                        (_, Change::CompareAndSet { .. }) => Cell::Changed(change, Some(rng.u64(..2))),
                    };
                    if is_unknown && !action.is_read() {
                        returned = NEVER;
                    }
                    Operation { invoked, returned, expected: rng.u64(..10), action }
                })
                .collect();
            let is_linearizable = search(&operations, None);
            verdicts[usize::from(is_linearizable)] += 1;
            let verdict = check(&operations, None, 100_000);
            assert_eq!(verdict == Verdict::Linearizable, is_linearizable, "{operations:?}: {verdict:?}");
        }
        assert!(verdicts.iter().all(|&count| count > 3_000), "{verdicts:?}");
    }
}
