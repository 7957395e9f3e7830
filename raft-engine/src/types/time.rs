//! Time as an argument. Nothing below the driver's events reads a clock.

use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point of one server's monotonic clock, in nanoseconds since an origin of its own choice (its open, or the start of
/// a simulation). Never sent to a peer and never stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Time(pub u64);

impl Time {
    /// Later than any deadline.
    pub const NEVER: Self = Self(u64::MAX);

    /// The first multiple of `interval` after this; now, where that is zero.
    pub fn next_multiple(self, interval: Duration) -> Self {
        let interval = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        let passed = self.0.checked_rem(interval).unwrap_or(0);
        Self(self.0.saturating_add(interval - passed))
    }

    /// The time passed since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Time {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

/// A group's own time, in nanoseconds since its formation: the last entry's log time plus the leader's monotonic time
/// since. Carried by entries, never goes back along a log, and no wall clock is in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct LogTime(pub u64);

impl Add<Duration> for LogTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_multiple_is_after_now_and_no_further_than_an_interval() {
        let next = |now, interval| Time(now).next_multiple(Duration::from_nanos(interval));
        assert_eq!([next(0, 50), next(1, 50), next(49, 50), next(50, 50)], [Time(50), Time(50), Time(50), Time(100)]);
        assert_eq!(next(7, 0), Time(7));
        assert_eq!(next(u64::MAX - 1, 100), Time::NEVER);
    }
}
