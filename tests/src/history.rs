//! What clients saw, and whether one server that never fails could have shown it to them.
//!
//! An operation is an interval between two ticks of one counter, and what it did to one key. [`check_register`] and
//! [`check_counter`] decide exactly, without searching: values are written once, or counted up, so who wrote what
//! everybody read is known. They know nothing of Raft, of servers or of time beyond the order of ticks.

use std::collections::BTreeMap;

/// A moment: a reading of one counter shared by all clients. Requests sent in one go share their begin; no end equals
/// any other tick. Real ticks begin at 2.
pub type Tick = u64;

/// The end of an operation whose answer never came, or was "unknown": it may take effect at any time from its begin on,
/// or never.
pub const NEVER: Tick = Tick::MAX;

/// Something that a client did to one key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operation<A> {
    /// Who did it, for the report.
    pub client: u32,
    /// Just before the request was sent.
    pub invoked: Tick,
    /// Just after the answer was read; [`NEVER`] where the outcome is unknown.
    pub returned: Tick,
    /// What it was, with what was answered.
    pub action: A,
}

/// What can be done to a register. Values are unique in a run, and never 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegisterAction {
    /// Made it hold this.
    Write(u64),
    /// Saw this; `None` where the key did not exist.
    Read(Option<u64>),
}

/// What can be done to a counter, which begins at 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CounterAction {
    /// Counted up by one and was told the new value; an unknown outcome was told nothing.
    Increment(Option<u64>),
    /// Saw this.
    Read(u64),
}

/// Why a history is not linearizable.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Anomaly {
    /// A value was read that nobody wrote, or whose writer was told that it was certainly not applied.
    #[error("{read} saw a value that no operation, finished or unknown, has written")]
    FromNowhere {
        /// Who saw it.
        read: String,
    },
    /// A value was read by somebody who had finished before its writer began.
    #[error("{read} finished before {write} began, and saw it")]
    FromTheFuture {
        /// Who saw it.
        read: String,
        /// Who wrote it.
        write: String,
    },
    /// Two values must each have been the present one for the whole of overlapping times.
    #[error("{first} and {second} were both seen, and the key cannot have held both in the order of their seeing")]
    Interleaved {
        /// One writer.
        first: String,
        /// The other.
        second: String,
    },
    /// Two increments were told the same value.
    #[error("{first} and {second} were told the same value")]
    CountedTwice {
        /// One of them.
        first: String,
        /// The other.
        second: String,
    },
    /// A value was reached that more increments must have led to than were begun.
    #[error("nobody counted to {value}, before {witness}")]
    CountedByNobody {
        /// The value.
        value: u64,
        /// The next operation that proves it.
        witness: String,
    },
    /// An operation ended before the value that it was told can have been there, or began after it was gone.
    #[error("{operation} was told a value that the counter can only have had later")]
    CountedBackwards {
        /// Who was told.
        operation: String,
    },
}

/// The lifetime of one written value: its write and all reads of it.
struct Lifetime<'a> {
    /// `None` for the state before any write.
    write: Option<&'a Operation<RegisterAction>>,
    /// The earliest end of any of them.
    first_return: Tick,
    /// The latest begin of any of them.
    last_invoke: Tick,
}

/// Whether a register that only ever held unique values is linearizable.
///
/// After Gibbons and Korach, "Testing Shared Memories" (1997), §4.2: the operations on one value surround a zone between
/// the earliest end and the latest begin among them. Where the end is first (a forward zone), the register must hold
/// the value throughout; else (a backward zone) at some moment in it. The history is linearizable if and only if no
/// read precedes its write, no two forward zones overlap, and no backward zone lies within a forward one.
pub fn check_register(operations: &[Operation<RegisterAction>]) -> Result<(), Anomaly> {
    // The initial state is a write that ended before everything.
    let mut lifetimes = BTreeMap::from([(0, Lifetime { write: None, first_return: 1, last_invoke: 0 })]);
    for operation in operations {
        if let RegisterAction::Write(value) = operation.action {
            assert!(value != 0, "0 is the initial state");
            let lifetime =
                Lifetime { write: Some(operation), first_return: operation.returned, last_invoke: operation.invoked };
            assert!(lifetimes.insert(value, lifetime).is_none(), "{value} was written twice: the test is wrong");
        }
    }
    for operation in operations {
        let RegisterAction::Read(value) = operation.action else { continue };
        let Some(lifetime) = lifetimes.get_mut(&value.unwrap_or(0)) else {
            return Err(Anomaly::FromNowhere { read: format!("{operation:?}") });
        };
        if let Some(write) = lifetime.write
            && operation.returned < write.invoked
        {
            return Err(Anomaly::FromTheFuture { read: format!("{operation:?}"), write: format!("{write:?}") });
        }
        lifetime.first_return = lifetime.first_return.min(operation.returned);
        lifetime.last_invoke = lifetime.last_invoke.max(operation.invoked);
    }
    let (mut forward, mut backward) = (Vec::new(), Vec::new());
    for lifetime in lifetimes.values() {
        if lifetime.first_return < lifetime.last_invoke {
            forward.push(lifetime);
        } else if lifetime.first_return != NEVER {
            // A value of unknown outcome that nobody saw may never have been there: it asks for nothing.
            backward.push(lifetime);
        }
    }
    forward.sort_by_key(|lifetime| lifetime.first_return);
    let interleaved = |first: &Lifetime<'_>, second: &Lifetime<'_>| {
        let name = |lifetime: &Lifetime<'_>| match lifetime.write {
            Some(write) => format!("{write:?}"),
            None => "the initial state".to_owned(),
        };
        Anomaly::Interleaved { first: name(first), second: name(second) }
    };
    for pair in forward.windows(2) {
        if pair[1].first_return < pair[0].last_invoke {
            return Err(interleaved(pair[0], pair[1]));
        }
    }
    for inner in backward {
        // Forward zones do not overlap, so only the last one that begins before it can hold it.
        let before = forward.partition_point(|outer| outer.first_return < inner.last_invoke);
        if let Some(outer) = before.checked_sub(1).map(|at| forward[at])
            && inner.first_return < outer.last_invoke
        {
            return Err(interleaved(outer, inner));
        }
    }
    Ok(())
}

/// Whether a counter that is only counted up by one and read is linearizable.
///
/// The values told put everything but unknown increments in order, so each operation is given the earliest moment that
/// it can have taken effect, in that order. Where a value is missing, the unknown increment that began first stands in:
/// it could have taken effect at any time since, so none is the better choice.
pub fn check_counter(operations: &[Operation<CounterAction>]) -> Result<(), Anomaly> {
    let mut known: Vec<(u64, bool, &Operation<CounterAction>)> = Vec::new();
    let mut unknown: Vec<&Operation<CounterAction>> = Vec::new();
    for operation in operations {
        match operation.action {
            CounterAction::Increment(Some(value)) => known.push((value, false, operation)),
            CounterAction::Read(value) => known.push((value, true, operation)),
            CounterAction::Increment(None) => unknown.push(operation),
        }
    }
    known.sort_by_key(|(value, is_read, operation)| (*value, *is_read, operation.invoked));
    unknown.sort_by_key(|operation| operation.invoked);
    let mut unknown = unknown.into_iter();
    let (mut value, mut moment) = (0, 0);
    let mut counted_by: Option<&Operation<CounterAction>> = None;
    for (told, is_read, operation) in known {
        if !is_read && told == value {
            let first = counted_by.map_or_else(|| "the initial state".to_owned(), |first| format!("{first:?}"));
            return Err(Anomaly::CountedTwice { first, second: format!("{operation:?}") });
        }
        let missing_until = if is_read { told } else { told - 1 };
        while value < missing_until {
            value += 1;
            let Some(stand_in) = unknown.next() else {
                return Err(Anomaly::CountedByNobody { value, witness: format!("{operation:?}") });
            };
            moment = moment.max(stand_in.invoked);
            counted_by = Some(stand_in);
        }
        moment = moment.max(operation.invoked);
        if moment > operation.returned {
            return Err(Anomaly::CountedBackwards { operation: format!("{operation:?}") });
        }
        if !is_read {
            value = told;
            counted_by = Some(operation);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(operations: &[(Tick, Tick, RegisterAction)]) -> Result<(), Anomaly> {
        let operations: Vec<_> = operations
            .iter()
            .map(|&(invoked, returned, action)| Operation { client: 0, invoked, returned, action })
            .collect();
        check_register(&operations)
    }

    fn counter(operations: &[(Tick, Tick, CounterAction)]) -> Result<(), Anomaly> {
        let operations: Vec<_> = operations
            .iter()
            .map(|&(invoked, returned, action)| Operation { client: 0, invoked, returned, action })
            .collect();
        check_counter(&operations)
    }

    use CounterAction::Increment;
    use RegisterAction::{Read, Write};

    #[test]
    fn a_history_in_order_is_linearizable() {
        assert_eq!(register(&[(2, 3, Read(None)), (4, 5, Write(7)), (6, 7, Read(Some(7)))]), Ok(()));
    }

    #[test]
    fn a_stale_read_is_found() {
        let history = [(2, 3, Write(1)), (4, 5, Write(2)), (6, 7, Read(Some(1)))];
        assert!(matches!(register(&history), Err(Anomaly::Interleaved { .. })), "{:?}", register(&history));
        assert!(register(&[(2, 3, Write(1)), (4, 5, Read(None))]).is_err(), "the initial state is stale as well");
    }

    #[test]
    fn a_lost_acknowledged_write_is_found() {
        // As after a kill that lost 2: later readers agree with each other, and not with its writer.
        let history = [(2, 3, Write(1)), (4, 5, Read(Some(1))), (6, 7, Write(2)), (8, 9, Read(Some(1)))];
        assert!(register(&history).is_err());
    }

    #[test]
    fn a_value_that_flickers_is_found() {
        let history = [(2, 20, Write(1)), (3, 21, Write(2)), (4, 5, Read(Some(1))), (6, 7, Read(Some(2)))];
        assert_eq!(register(&history), Ok(()));
        let flickers = [&history[..], &[(8, 9, Read(Some(1)))]].concat();
        assert!(register(&flickers).is_err());
    }

    #[test]
    fn an_unknown_write_may_come_late_or_never_but_not_before_it_was_begun() {
        assert_eq!(register(&[(2, NEVER, Write(1)), (3, 4, Read(None)), (5, 6, Read(Some(1)))]), Ok(()));
        assert_eq!(register(&[(2, NEVER, Write(1)), (3, 4, Read(None)), (5, 6, Read(None))]), Ok(()));
        assert!(register(&[(2, 3, Read(Some(1))), (4, NEVER, Write(1))]).is_err());
        let gone_again = [(2, NEVER, Write(1)), (3, 4, Read(Some(1))), (5, 6, Read(None))];
        assert!(register(&gone_again).is_err());
    }

    #[test]
    fn a_refused_write_that_is_read_is_found() {
        // A write that was answered "not applied" is left out of the history, so its value comes from nowhere.
        assert!(matches!(register(&[(2, 3, Read(Some(9)))]), Err(Anomaly::FromNowhere { .. })));
    }

    #[test]
    fn a_lost_or_doubled_increment_is_found() {
        assert_eq!(counter(&[(2, 3, Increment(Some(1))), (4, 5, Increment(Some(2)))]), Ok(()));
        let lost = [(2, 3, Increment(Some(1))), (4, 5, Increment(Some(1)))];
        assert!(matches!(counter(&lost), Err(Anomaly::CountedTwice { .. })));
        let doubled = [(2, 3, Increment(Some(1))), (4, 5, Increment(Some(3)))];
        assert!(matches!(counter(&doubled), Err(Anomaly::CountedByNobody { .. })));
        let unknown_explains_it = [&doubled[..], &[(4, NEVER, Increment(None))]].concat();
        assert_eq!(counter(&unknown_explains_it), Ok(()));
        let but_not_from_the_future = [&doubled[..], &[(6, NEVER, Increment(None))]].concat();
        assert!(matches!(counter(&but_not_from_the_future), Err(Anomaly::CountedBackwards { .. })));
    }

    #[test]
    fn a_counter_read_that_is_stale_is_found() {
        let history = [(2, 3, Increment(Some(1))), (4, 5, CounterAction::Read(0))];
        assert!(matches!(counter(&history), Err(Anomaly::CountedBackwards { .. })), "{:?}", counter(&history));
    }

    /// Tries every order in which the operations can have taken effect.
    fn search<A: Copy, S: Copy>(left: &[Operation<A>], state: S, step: &impl Fn(S, A) -> Option<S>) -> bool {
        if left.iter().all(|operation| operation.returned == NEVER) {
            return true;
        }
        let first_return = left.iter().map(|operation| operation.returned).min().expect("not empty");
        (0..left.len()).filter(|&at| left[at].invoked < first_return).any(|at| {
            let mut rest = left.to_vec();
            let operation = rest.remove(at);
            step(state, operation.action).is_some_and(|state| search(&rest, state, step))
        })
    }

    /// Random intervals, with every tick used once.
    fn random_intervals(random: &mut fastrand::Rng, count: usize) -> Vec<(Tick, Tick)> {
        let mut ticks: Vec<Tick> = (2..2 + 2 * count as Tick).collect();
        random.shuffle(&mut ticks);
        // Mostly short intervals, or everything would overlap everything.
        let mut pairs: Vec<(Tick, Tick)> =
            ticks.chunks(2).map(|pair| (pair[0].min(pair[1]), pair[0].max(pair[1]))).collect();
        if random.bool() {
            let mut flat: Vec<Tick> = (2..2 + 2 * count as Tick).collect();
            for at in 0..flat.len() - 1 {
                if random.u8(..3) == 0 {
                    flat.swap(at, at + 1);
                }
            }
            pairs = flat.chunks(2).map(|pair| (pair[0].min(pair[1]), pair[0].max(pair[1]))).collect();
        }
        pairs
    }

    #[test]
    fn the_register_check_agrees_with_trying_every_order() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut verdicts = [0_u32; 2];
        for _ in 0..30_000 {
            let count = random.usize(2..7);
            let mut next_value = 0;
            let operations: Vec<_> = random_intervals(&mut random, count)
                .into_iter()
                .map(|(invoked, returned)| {
                    if random.bool() {
                        next_value += 1;
                        let returned = if random.u8(..4) == 0 { NEVER } else { returned };
                        Operation { client: 0, invoked, returned, action: Write(next_value) }
                    } else {
                        let seen = random.u64(0..3);
                        Operation { client: 0, invoked, returned, action: Read((seen > 0).then_some(seen)) }
                    }
                })
                .collect();
            let step = |state: u64, action| match action {
                Write(value) => Some(value),
                Read(seen) => (seen.unwrap_or(0) == state).then_some(state),
            };
            let expected = search(&operations, 0, &step);
            assert_eq!(check_register(&operations).is_ok(), expected, "{operations:#?}");
            verdicts[usize::from(expected)] += 1;
        }
        assert!(verdicts.iter().all(|&count| count > 3_000), "one-sided test: {verdicts:?}");
    }

    #[test]
    fn the_counter_check_agrees_with_trying_every_order() {
        let mut random = fastrand::Rng::with_seed(2);
        let mut verdicts = [0_u32; 2];
        for _ in 0..30_000 {
            let count = random.usize(2..7);
            let mut told: u64 = 0;
            let operations: Vec<_> = random_intervals(&mut random, count)
                .into_iter()
                .map(|(invoked, returned)| match random.u8(..4) {
                    0 => Operation { client: 0, invoked, returned: NEVER, action: Increment(None) },
                    1 => {
                        let seen = random.u64(told.saturating_sub(1)..=told + 1);
                        Operation { client: 0, invoked, returned, action: CounterAction::Read(seen) }
                    }
                    _ => {
                        told += if random.u8(..5) == 0 { 2 } else { 1 };
                        let returned = if random.u8(..8) == 0 { NEVER } else { returned };
                        let answer = (returned != NEVER).then_some(told);
                        Operation { client: 0, invoked, returned, action: Increment(answer) }
                    }
                })
                .collect();
            let step = |state: u64, action| match action {
                Increment(told) => (told.unwrap_or(state + 1) == state + 1).then_some(state + 1),
                CounterAction::Read(seen) => (seen == state).then_some(state),
            };
            let expected = search(&operations, 0, &step);
            assert_eq!(check_counter(&operations).is_ok(), expected, "{operations:#?}");
            verdicts[usize::from(expected)] += 1;
        }
        assert!(verdicts.iter().all(|&count| count > 3_000), "one-sided test: {verdicts:?}");
    }
}
