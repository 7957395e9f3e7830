//! What a core is told once.

use std::time::Duration;

/// The settings of one group's core. Local to a server: none of them decides what a replica computes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// An election begins after a random time between this and twice this without a leader (§5.2).
    pub election_timeout: Duration,
    /// A leader is heard from at least this often.
    pub heartbeat_interval: Duration,
    /// A leader whose own log makes no progress for so long steps down.
    pub disk_stall_timeout: Duration,
    /// Entries of one message, in bytes, so that it fits a frame; a longer entry goes alone.
    pub message_bytes: usize,
    /// Entries sent to one peer and not yet acknowledged, in bytes.
    pub in_flight_bytes: usize,
    /// Entries proposed and not yet committed, in bytes.
    pub uncommitted_bytes: usize,
    /// Recent entries kept in memory, in bytes. Entries that are not both committed and durable are kept beyond it.
    pub cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            election_timeout: Duration::from_millis(300),
            heartbeat_interval: Duration::from_millis(100),
            disk_stall_timeout: Duration::from_secs(1),
            message_bytes: 96 << 10,
            in_flight_bytes: 2 << 20,
            uncommitted_bytes: 64 << 20,
            cache_bytes: 16 << 20,
        }
    }
}
