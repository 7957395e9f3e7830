//! When to dial a peer again.

use std::time::Duration;

use crate::types::Time;

/// Waits longer after each failed dial, with jitter, so that servers that lost each other at one moment do not dial in
/// step. Pure state: it names a deadline and reads no clock.
#[derive(Clone, Debug)]
pub struct Backoff {
    shortest: Duration,
    longest: Duration,
    /// Failures since the last success.
    attempts: u32,
    deadline: Time,
    random: fastrand::Rng,
}

impl Backoff {
    /// The shortest wait for a local network, before jitter.
    pub const SHORTEST: Duration = Duration::from_millis(20);
    /// The longest wait for a local network: a peer that comes back is met again within this.
    pub const LONGEST: Duration = Duration::from_millis(500);

    /// The first dial may go at once. The waits grow from `shortest` to `longest`; `seed` decides the jitter.
    pub fn new(shortest: Duration, longest: Duration, seed: u64) -> Self {
        assert!(shortest <= longest, "a shortest wait of {shortest:?} is above the longest, {longest:?}");
        Self { shortest, longest, attempts: 0, deadline: Time(0), random: fastrand::Rng::with_seed(seed) }
    }

    /// When the next dial may go.
    pub fn deadline(&self) -> Time {
        self.deadline
    }

    /// Failures since the last success.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// A dial failed, or its connection ended before the handshake did. The next waits between half and all of a time
    /// that doubles with each failure.
    pub fn failed(&mut self, now: Time) {
        let doubled = self.shortest.saturating_mul(1 << self.attempts.min(20));
        self.attempts = self.attempts.saturating_add(1);
        self.wait(doubled.min(self.longest), now);
    }

    /// The peer refused us with a reason that a quick retry does not change: waits the longest time at once.
    pub fn refused(&mut self, now: Time) {
        self.attempts = self.attempts.saturating_add(1);
        self.wait(self.longest, now);
    }

    /// A handshake ended well. When that connection breaks, the next dial may go at once.
    pub fn succeeded(&mut self) {
        self.attempts = 0;
        self.deadline = Time(0);
    }

    /// Never shortens a wait: a refusal is followed by the end of its connection, which is no other failure.
    fn wait(&mut self, most: Duration, now: Time) {
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        let deadline = now + Duration::from_nanos(self.random.u64(nanos / 2..=nanos));
        self.deadline = self.deadline.max(deadline);
    }
}
