//! What kind of run a seed is: how many servers, how large things are, how bad the day.
//!
//! Sizes are small, so that segments roll, caches miss, logs are compacted and snapshots installed within a few thousand
//! steps; a few seeds are quiet in one respect or another, so that no fault hides what another would show.

use std::time::Duration;

use fastrand::Rng;

use super::attacks::{Attacks, Clocks};
use super::faults::MAX_SERVERS;
use super::network::NetworkProfile;
use crate::driver::Settings;
use crate::types::GroupSettings;

/// How often each fault comes; zero is never.
#[derive(Clone, Debug, Default)]
pub(super) struct Weights {
    pub(super) kill: u32,
    pub(super) power_cut: u32,
    pub(super) kill_then_power_cut: u32,
    pub(super) close: u32,
    pub(super) pause: u32,
    pub(super) partition: u32,
    pub(super) break_stream: u32,
    pub(super) slow_disk: u32,
    pub(super) fail_write: u32,
    pub(super) fail_sync: u32,
    pub(super) full_disk: u32,
    pub(super) wipe: u32,
    pub(super) all_down: u32,
}

/// Everything that a seed decides before its run begins.
#[derive(Clone, Debug)]
pub(super) struct Profile {
    /// All servers: the initial members, and those that may be added.
    pub(super) servers: usize,
    /// The first so many form each group.
    pub(super) initial: usize,
    /// The mean time between two wishes of an operator, if there is one.
    pub(super) operator_interval: Option<Duration>,
    /// What the groups are formed with.
    pub(super) group_settings: GroupSettings,
    pub(super) groups: usize,
    pub(super) settings: Settings,
    pub(super) network: NetworkProfile,
    pub(super) weights: Weights,
    /// The mean time between two faults.
    pub(super) fault_interval: Duration,
    /// When faults end.
    pub(super) faults_end: Duration,
    /// Most log writes take less than this.
    pub(super) disk_latency: Duration,
    /// Log writes go around the page cache.
    pub(super) direct_disk: bool,
    /// The mean time between two requests of clients.
    pub(super) request_interval: Duration,
    /// The longest command, in bytes.
    pub(super) max_command_bytes: usize,
    /// The most commands that one request proposes.
    pub(super) max_batch: usize,
    /// Most tasks of a host take less than this.
    pub(super) host_latency: Duration,
    /// The host keeps its state across kills and says what it has applied.
    pub(super) durable_host: bool,
    /// Of eight events, how many wait for a later one before the turn ends.
    pub(super) gather_eighths: u8,
    /// One server is first started with other members than the rest.
    pub(super) other_members: bool,
    /// Clients that use sessions.
    pub(super) session_clients: usize,
    /// What lies in wait.
    pub(super) attacks: Attacks,
    /// The mean time between two comparisons of replicas, if anybody asks for them.
    pub(super) digest_interval: Option<Duration>,
    /// When the state of one replica is corrupted, if it is.
    pub(super) corrupt_at: Option<Duration>,
}

impl Profile {
    /// The profile of a seed.
    pub(super) fn new(rng: &mut Rng) -> Self {
        let has_large_entries = rng.u8(..12) == 0;
        let max_command_bytes = match rng.u8(..4) {
            _ if has_large_entries => rng.usize(140_000..400_000),
            0 => 64,
            1 => 6_000,
            _ => 800,
        };
        let settings = Settings {
            election_timeout: Duration::from_millis(150),
            heartbeat_interval: Duration::from_millis(50),
            disk_stall_timeout: Duration::from_millis(rng.u64(300..1_500)),
            max_entry_bytes: if has_large_entries { 400_000 } else { max_command_bytes.max(4_096) },
            in_flight_bytes: rng.usize(4_096..60_000),
            uncommitted_bytes: rng.usize(8_000..400_000).max(max_command_bytes + 1_000),
            queue_bytes: 1 << 20,
            cache_bytes: rng.usize(1_000..60_000),
            connection_bytes: rng.usize(300_000..1_000_000),
            segment_bytes: if has_large_entries { 1 << 20 } else { (64 << 10) << rng.u32(..2) },
            snapshot_log_bytes: if rng.u8(..5) == 0 { 10 << 20 } else { rng.u64(4_000..120_000) },
            log_bytes: 0,
            writes_in_flight: rng.usize(1..=4),
            ..Settings::default()
        };
        let settings = Settings { log_bytes: settings.segment_bytes * rng.u64(3..8), ..settings };
        let is_lossy = rng.u8(..3) != 0;
        let permille = |rng: &mut Rng, most: u32| if is_lossy && rng.bool() { rng.u32(..most) } else { 0 };
        let network = NetworkProfile {
            latency: Duration::from_micros(rng.u64(30..3_000)),
            slow_permille: if rng.bool() { rng.u32(..30) } else { 0 },
            loss_permille: permille(rng, 150),
            double_permille: permille(rng, 100),
            late_permille: permille(rng, 200),
            chop_permille: if rng.bool() { rng.u32(..300) } else { 0 },
        };
        let weight = |rng: &mut Rng, most: u32| if rng.u8(..3) == 0 { 0 } else { rng.u32(..=most) };
        let weights = Weights {
            kill: weight(rng, 10),
            power_cut: weight(rng, 10),
            kill_then_power_cut: weight(rng, 8),
            close: weight(rng, 3),
            pause: weight(rng, 5),
            partition: weight(rng, 15),
            break_stream: weight(rng, 10),
            slow_disk: weight(rng, 4),
            fail_write: weight(rng, 2),
            fail_sync: weight(rng, 2),
            full_disk: weight(rng, 3),
            wipe: if rng.u8(..4) == 0 { rng.u32(1..4) } else { 0 },
            all_down: weight(rng, 2),
        };
        let servers = [3, 3, 3, 3, 3, 3, 5, 5, 4, 2, 1][rng.usize(..11)];
        Self {
            servers,
            initial: servers,
            operator_interval: None,
            group_settings: GroupSettings::default(),
            groups: [1, 1, 1, 1, 3, 5][rng.usize(..6)],
            settings,
            network,
            weights,
            fault_interval: Duration::from_millis(rng.u64(60..1_200)),
            faults_end: Duration::from_millis(rng.u64(3_000..12_000)),
            disk_latency: Duration::from_micros([50, 300, 2_000, 10_000][rng.usize(..4)]),
            direct_disk: rng.bool(),
            request_interval: Duration::from_millis(rng.u64(2..60)),
            max_command_bytes,
            max_batch: if has_large_entries { 2 } else { [1, 4, 20][rng.usize(..3)] },
            host_latency: Duration::from_micros([20, 500, 20_000][rng.usize(..3)]),
            durable_host: rng.u8(..4) == 0,
            gather_eighths: rng.u8(..6),
            // Alone, it would form the group that it was told to.
            other_members: rng.u8(..12) == 0 && servers > 1,
            session_clients: 0,
            attacks: Attacks::default(),
            digest_interval: None,
            corrupt_at: None,
        }
        .with_batches(rng.clone())
        .with_operators(rng.clone())
        .with_sessions(rng.clone())
    }

    /// Drawn from a copy, too. Sessions expire, are evicted and lose replies within a run; seldom all of it at once, so that
    /// retries are answered.
    fn with_sessions(mut self, mut rng: Rng) -> Self {
        // Not the draws that the sizes came from.
        let mut rng = rng.fork();
        if rng.u8(..3) == 0 {
            return self;
        }
        self.session_clients = rng.usize(1..=6) * self.groups;
        self.group_settings = GroupSettings {
            session_expiry: Duration::from_millis([200, 1_000, 4_000, 60_000][rng.usize(..4)]),
            max_sessions: [1, 2, 4, 16, 64][rng.usize(..5)],
            session_reply_bytes: [0, 60, 200, 10_000, 10_000][rng.usize(..5)],
            ..self.group_settings
        };
        self
    }

    /// Drawn from a copy: seeds that were kept stay what they are.
    fn with_batches(mut self, mut rng: Rng) -> Self {
        self.settings.batch_bytes = rng.usize(4 << 10..512 << 10);
        self.settings.forwarding = rng.u8(..8) != 0;
        self.settings.forward_bytes = rng.usize(4 << 10..200_000);
        self
    }

    /// Members change in some runs, and leadership is handed over; leases are in force in some.
    fn with_operators(mut self, mut rng: Rng) -> Self {
        // Not the draws that the sizes came from.
        rng.u64(..);
        if rng.u8(..4) == 0 {
            let longest = u64::try_from(self.settings.election_timeout.as_micros()).unwrap_or(u64::MAX);
            self.group_settings.lease = Duration::from_micros(rng.u64(longest / 5..=longest));
        }
        if rng.u8(..6) == 0 {
            self.settings.snapshot_bytes_per_second = rng.u64(100_000..3_000_000);
        }
        if rng.u8(..5) < 2 && !self.other_members {
            self.operator_interval = Some(Duration::from_millis(rng.u64(30..1_500)));
            self.servers = (self.initial + rng.usize(..=4)).min(MAX_SERVERS);
            // Nobody knows which wiped directory would be one too many.
            self.weights.wipe = 0;
        }
        self
    }

    /// What lies in wait, of a stream of its own.
    pub(super) fn with_attacks(mut self, rng: &mut Rng) -> Self {
        self.attacks = Attacks::new(rng, self.faults_end);
        if self.group_settings.lease.is_zero() {
            self.attacks.lease_interval = None;
        }
        // Whoever is left needs somebody who can be added; and what a majority is, is said of one group.
        if self.groups > 1 || !self.has_operator() || self.servers == self.initial {
            self.attacks.quorum_loss_at = None;
        }
        self
    }

    /// Replicas are compared in some runs, of a stream of its own. A state is corrupted only where whoever is left can go on
    /// without whom that stops: members stay as they are, and nobody's directory is wiped.
    pub(super) fn with_digests(mut self, rng: &mut Rng) -> Self {
        // After the loss of a quorum, an index may be another entry's, and the old group's servers do not know.
        if rng.u8(..3) != 0 || self.attacks.quorum_loss_at.is_some() {
            return self;
        }
        self.digest_interval = Some(Duration::from_millis(rng.u64(50..3_000)));
        let is_fit = !self.has_operator() && !self.other_members && self.weights.wipe == 0;
        if rng.bool() && is_fit && self.attacks.stall.is_none() {
            let micros = u64::try_from(self.faults_end.as_micros()).unwrap_or(u64::MAX);
            self.corrupt_at = Some(Duration::from_micros(rng.u64(micros / 5..micros)));
        }
        self
    }

    /// Clocks that differ by more than leases allow, and leases, so that somebody reads what is stale.
    pub(super) fn with_clocks_beyond_the_bound(mut self) -> Self {
        self.group_settings.lease = self.settings.election_timeout;
        self.weights = Weights::default();
        self.request_interval = Duration::from_millis(5);
        self.operator_interval = None;
        self.attacks = Attacks {
            clocks: Clocks::BeyondBound,
            lease_interval: Some(Duration::from_millis(1)),
            ..Attacks::default()
        };
        self
    }

    /// Whether an operator is at work.
    pub(super) fn has_operator(&self) -> bool {
        self.operator_interval.is_some()
    }
}
