//! What an operator may set, with its defaults and its bounds.

use std::time::Duration;

/// Settings of one server. Every field is local: nothing here decides what a replica computes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// An election begins after a random time between this and twice this without a leader (§5.2).
    pub election_timeout: Duration,
    /// A leader is heard from at least this often.
    pub heartbeat_interval: Duration,
    /// A leader whose own log write makes no progress for so long steps down.
    pub disk_stall_timeout: Duration,
    /// The longest entry, in bytes.
    pub max_entry_bytes: usize,
    /// Entries sent to one peer and not yet acknowledged, in bytes.
    pub in_flight_bytes: usize,
    /// Entries proposed and not yet committed, in bytes; more is refused as overloaded.
    pub uncommitted_bytes: usize,
    /// Proposals of the host that the loop has not taken yet, in bytes.
    pub queue_bytes: usize,
    /// Recent entries kept in memory, of all groups together, in bytes.
    pub cache_bytes: usize,
    /// Bytes queued for one connection before messages to it are dropped.
    pub connection_bytes: usize,
    /// The length of a log segment in bytes; a multiple of 4 KiB.
    pub segment_bytes: u64,
    /// A snapshot is taken when the log behind it is longer than this and than four times the last snapshot, in bytes.
    pub snapshot_log_bytes: u64,
    /// How fast one snapshot stream goes at most, in bytes a second; 0: as fast as it can.
    pub snapshot_bytes_per_second: u64,
    /// The most that the log may hold before the oldest segment's groups are snapshotted or moved, in bytes.
    pub log_bytes: u64,
    /// One log write is cut at so many bytes of records.
    pub batch_bytes: usize,
    /// Own log writes submitted and not completed: one in a server, one to four in the simulator.
    pub writes_in_flight: usize,
    /// What only a leader can do is asked of the leader where this server is none; else the host is told who leads.
    pub forwarding: bool,
    /// Proposals forwarded to the leader and not yet answered, in bytes; more is refused as overloaded.
    pub forward_bytes: usize,
    /// Where to dial a member, in place of the address in the log.
    pub peer_addresses: std::collections::BTreeMap<crate::types::ServerId, String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            election_timeout: Duration::from_millis(300),
            heartbeat_interval: Duration::from_millis(100),
            disk_stall_timeout: Duration::from_secs(1),
            max_entry_bytes: 8 << 20,
            in_flight_bytes: 2 << 20,
            uncommitted_bytes: 64 << 20,
            queue_bytes: 16 << 20,
            cache_bytes: 16 << 20,
            connection_bytes: 8 << 20,
            segment_bytes: 64 << 20,
            snapshot_log_bytes: 256 << 20,
            snapshot_bytes_per_second: 0,
            log_bytes: 1 << 30,
            batch_bytes: 512 << 10,
            writes_in_flight: 1,
            forwarding: true,
            forward_bytes: 8 << 20,
            peer_addresses: std::collections::BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Whether every setting is within its bounds; if not, which one, and what would be.
    pub fn check(&self) -> Result<(), String> {
        if self.election_timeout < self.heartbeat_interval * 3 || self.heartbeat_interval.is_zero() {
            return Err(format!(
                "election_timeout ({:?}) must be at least three times heartbeat_interval ({:?})",
                self.election_timeout, self.heartbeat_interval
            ));
        }
        if self.max_entry_bytes == 0 || self.max_entry_bytes > 1 << 30 {
            return Err(format!("max_entry_bytes ({}) must be between 1 and 1 GiB", self.max_entry_bytes));
        }
        if self.writes_in_flight == 0 {
            return Err("writes_in_flight must be at least 1".into());
        }
        for (name, value) in [
            ("in_flight_bytes", self.in_flight_bytes),
            ("uncommitted_bytes", self.uncommitted_bytes),
            ("queue_bytes", self.queue_bytes),
            ("connection_bytes", self.connection_bytes),
            ("forward_bytes", self.forward_bytes),
        ] {
            if value < 4096 {
                return Err(format!("{name} ({value}) must be at least 4096"));
            }
        }
        Ok(())
    }
}
