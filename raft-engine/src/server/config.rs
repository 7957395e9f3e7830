//! What an operator and a host decide before a server is opened: names, places, limits. Checked as a whole at open.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::ConfigError;
use crate::driver::Settings;
use crate::types::ServerId;

/// Who calls the state machines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Dispatch {
    /// A thread of the library, `raft-apply`.
    #[default]
    Threaded,
    /// The host, by [`super::Server::dispatch`].
    Host,
}

/// How completions reach the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CompletionDelivery {
    /// [`super::StateMachine::completed`] is called, once a batch.
    #[default]
    Callback,
    /// The host fetches them by [`super::Group::poll`].
    Poll,
}

/// How log writes reach the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DiskBackend {
    /// Linux AIO where the kernel and the file system can, else a thread.
    #[default]
    Auto,
    /// Linux AIO from the loop, direct and synchronous; open fails where that cannot be.
    Aio,
    /// A thread, `raft-disk`.
    Thread,
}

/// Where bytes may travel unencrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Plaintext {
    /// Within this machine only: other listen addresses are refused, other peers are not dialled.
    #[default]
    Loopback,
    /// Anywhere: the operator vouches for the network.
    Anywhere,
}

impl Plaintext {
    /// Whether a stream to or from `address` may be opened.
    pub(super) fn allows(self, address: &SocketAddr) -> bool {
        self == Self::Anywhere || address.ip().to_canonical().is_loopback()
    }
}

/// Everything that opens a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The name that all servers of the cluster share: 1 to 64 bytes.
    pub cluster: String,
    /// This server's id, never 0, and never used again for another directory.
    pub id: u64,
    /// Where its log and snapshots are. Made if it is missing (not its parents), readable by its owner only.
    pub data_directory: PathBuf,
    /// `host:port` to listen on; port 0 takes a free one (see [`super::ServerStatus::listen`]).
    pub listen: String,
    /// Who calls the state machines.
    pub dispatch: Dispatch,
    /// How completions reach the host.
    pub completions: CompletionDelivery,
    /// How log writes reach the disk.
    pub disk: DiskBackend,
    /// Where bytes may travel unencrypted.
    pub plaintext: Plaintext,
    /// Limits and times.
    pub settings: Settings,
}

/// The names that [`Config::set`] knows, but for `peer.ID`.
pub(super) const NAMES: [&str; 17] = [
    "election_timeout_ms",
    "heartbeat_ms",
    "disk_stall_timeout_ms",
    "max_entry_bytes",
    "in_flight_bytes",
    "uncommitted_bytes",
    "queue_bytes",
    "cache_bytes",
    "connection_bytes",
    "segment_bytes",
    "snapshot_log_bytes",
    "snapshot_bytes_per_second",
    "log_bytes",
    "forwarding",
    "forward_bytes",
    "disk_backend",
    "plaintext",
];

/// What the queue counts for an entry beside its bytes is less than this: its place in the log, and its session.
const BESIDE_AN_ENTRY: usize = 4096;

impl Config {
    /// A configuration with default settings, in threaded mode.
    pub fn new(
        cluster: impl Into<String>,
        id: u64,
        data_directory: impl Into<PathBuf>,
        listen: impl Into<String>,
    ) -> Self {
        Self {
            cluster: cluster.into(),
            id,
            data_directory: data_directory.into(),
            listen: listen.into(),
            dispatch: Dispatch::default(),
            completions: CompletionDelivery::default(),
            disk: DiskBackend::default(),
            plaintext: Plaintext::default(),
            settings: Settings::default(),
        }
    }

    /// Sets one engine setting by name, as an operator writes it: `election_timeout_ms`, `heartbeat_ms`,
    /// `disk_stall_timeout_ms`, `max_entry_bytes`, `in_flight_bytes`, `uncommitted_bytes`, `queue_bytes`,
    /// `cache_bytes`, `connection_bytes`, `segment_bytes`, `snapshot_log_bytes`, `snapshot_bytes_per_second`
    /// (0: no limit), `log_bytes`, `forwarding` (`on`, `off`), `forward_bytes`, `disk_backend` (`auto`, `aio`, `thread`),
    /// `plaintext` (`loopback`, `anywhere`), and `peer.ID` with `HOST:PORT` for where to dial member ID (for the own id,
    /// what peers are told).
    ///
    /// # Errors
    /// Unknown name, or a value that is none; the configuration is unchanged then. Whether the settings fit each other
    /// is checked at open.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        let settings = &mut self.settings;
        match key {
            "election_timeout_ms" => settings.election_timeout = milliseconds(key, value)?,
            "heartbeat_ms" => settings.heartbeat_interval = milliseconds(key, value)?,
            "disk_stall_timeout_ms" => settings.disk_stall_timeout = milliseconds(key, value)?,
            "max_entry_bytes" => settings.max_entry_bytes = size(key, value)?,
            "in_flight_bytes" => settings.in_flight_bytes = size(key, value)?,
            "uncommitted_bytes" => settings.uncommitted_bytes = size(key, value)?,
            "queue_bytes" => settings.queue_bytes = size(key, value)?,
            "cache_bytes" => settings.cache_bytes = size(key, value)?,
            "connection_bytes" => settings.connection_bytes = size(key, value)?,
            "segment_bytes" => settings.segment_bytes = positive(key, value)?,
            "snapshot_log_bytes" => settings.snapshot_log_bytes = positive(key, value)?,
            "snapshot_bytes_per_second" => {
                settings.snapshot_bytes_per_second =
                    value.parse().map_err(|_| bad(key, value, "a number of bytes, or 0"))?;
            }
            "log_bytes" => settings.log_bytes = positive(key, value)?,
            "forwarding" => {
                settings.forwarding = match value {
                    "on" => true,
                    "off" => false,
                    _ => return Err(bad(key, value, "on or off")),
                }
            }
            "forward_bytes" => settings.forward_bytes = size(key, value)?,
            "disk_backend" => {
                self.disk = match value {
                    "auto" => DiskBackend::Auto,
                    "aio" => DiskBackend::Aio,
                    "thread" => DiskBackend::Thread,
                    _ => return Err(bad(key, value, "auto, aio or thread")),
                }
            }
            "plaintext" => {
                self.plaintext = match value {
                    "loopback" => Plaintext::Loopback,
                    "anywhere" => Plaintext::Anywhere,
                    _ => return Err(bad(key, value, "loopback or anywhere")),
                }
            }
            _ => {
                let Some(id) = key.strip_prefix("peer.") else {
                    return Err(ConfigError::UnknownKey { key: key.into() });
                };
                let id = id.parse().ok().filter(|&id| id != 0);
                let Some(id) = id else { return Err(ConfigError::UnknownKey { key: key.into() }) };
                if !is_address(value) {
                    return Err(bad(key, value, "HOST:PORT"));
                }
                settings.peer_addresses.insert(ServerId(id), value.into());
            }
        }
        Ok(())
    }

    /// Checks that everything fits together.
    ///
    /// # Errors
    /// The first thing that does not, with what to do.
    pub fn check(&self) -> Result<(), ConfigError> {
        let conflict = |message: String| Err(ConfigError::Conflict { message });
        let settings = &self.settings;
        if crate::types::ClusterId::new(self.cluster.clone()).is_none() {
            return conflict("the cluster's name must have 1 to 64 bytes".into());
        }
        if self.id == 0 {
            return conflict("a server's id is never 0".into());
        }
        if !is_address(&self.listen) {
            return conflict(format!("`{}` is no listen address: expected HOST:PORT", self.listen));
        }
        if settings.heartbeat_interval.is_zero() || settings.election_timeout < 3 * settings.heartbeat_interval {
            return conflict(format!(
                "election_timeout_ms ({}) must be at least three times heartbeat_ms ({})",
                settings.election_timeout.as_millis(),
                settings.heartbeat_interval.as_millis()
            ));
        }
        if settings.disk_stall_timeout.is_zero() {
            return conflict("disk_stall_timeout_ms must be positive".into());
        }
        if !settings.segment_bytes.is_multiple_of(4096) || settings.segment_bytes < 1 << 20 {
            return conflict("segment_bytes must be a multiple of 4096 and at least 1048576".into());
        }
        if settings.log_bytes < 2 * settings.segment_bytes {
            return conflict("log_bytes must be at least two segments (2 * segment_bytes)".into());
        }
        if settings.max_entry_bytes > 64 << 20 {
            return conflict("max_entry_bytes must be at most 67108864".into());
        }
        let queue_bytes = settings.max_entry_bytes + BESIDE_AN_ENTRY;
        for (name, bytes, least) in [
            ("queue_bytes", settings.queue_bytes, queue_bytes),
            ("uncommitted_bytes", settings.uncommitted_bytes, settings.max_entry_bytes),
        ] {
            if bytes < least {
                let longest = settings.max_entry_bytes;
                return conflict(format!(
                    "{name} ({bytes}) must be at least {least}, so that max_entry_bytes ({longest}) fits"
                ));
            }
        }
        Ok(())
    }
}

fn bad(key: &str, value: &str, expected: &'static str) -> ConfigError {
    ConfigError::BadValue { key: key.into(), value: value.into(), expected }
}

fn positive(key: &str, value: &str) -> Result<u64, ConfigError> {
    // At most half of the range, so that sums of two never overflow.
    let number = value.parse::<u64>().ok().filter(|&number| number > 0 && number <= u64::MAX / 4);
    number.ok_or_else(|| bad(key, value, "a whole number above 0"))
}

fn size(key: &str, value: &str) -> Result<usize, ConfigError> {
    usize::try_from(positive(key, value)?).map_err(|_| bad(key, value, "a number that memory can hold"))
}

fn milliseconds(key: &str, value: &str) -> Result<Duration, ConfigError> {
    let number = positive(key, value)?;
    // A day: longer is a mistake of unit.
    if number > 86_400_000 {
        return Err(bad(key, value, "milliseconds, at most a day"));
    }
    Ok(Duration::from_millis(number))
}

/// Whether this has the form `host:port` (`[v6]:port`).
pub(super) fn is_address(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::new("cluster", 1, "data", "127.0.0.1:0")
    }

    #[test]
    fn a_setting_is_set_by_its_name() {
        let mut config = config();
        config.set("election_timeout_ms", "1000").unwrap();
        config.set("disk_backend", "thread").unwrap();
        config.set("peer.2", "proxy:99").unwrap();
        assert_eq!(config.settings.election_timeout, Duration::from_secs(1));
        assert_eq!(config.disk, DiskBackend::Thread);
        assert_eq!(config.settings.peer_addresses[&ServerId(2)], "proxy:99");
    }

    #[test]
    fn every_name_that_an_error_offers_is_one() {
        for name in NAMES {
            let value = match name {
                "disk_backend" => "auto",
                "plaintext" => "anywhere",
                "forwarding" => "off",
                _ => "4096",
            };
            config().set(name, value).unwrap();
        }
    }

    #[test]
    fn an_unknown_name_and_a_bad_value_are_told_apart() {
        let mut config = config();
        for key in ["election_timeout", "peer.", "peer.0", "peer.x", ""] {
            assert_eq!(config.set(key, "1"), Err(ConfigError::UnknownKey { key: key.into() }));
        }
        for (key, value) in [("log_bytes", "0"), ("log_bytes", "-1"), ("queue_bytes", "1k"), ("peer.1", "nowhere")] {
            assert!(matches!(config.set(key, value), Err(ConfigError::BadValue { .. })), "{key}={value}");
        }
    }

    #[test]
    fn plaintext_stays_within_the_machine_unless_told_otherwise() {
        let mut config = config();
        let [near, near_in_v6, mapped, far] = ["127.3.2.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "10.0.0.1:1"]
            .map(|address| address.parse::<SocketAddr>().unwrap());
        for address in [near, near_in_v6, mapped] {
            assert!(config.plaintext.allows(&address), "{address}");
        }
        assert!(!config.plaintext.allows(&far));
        config.set("plaintext", "anywhere").unwrap();
        assert!(config.plaintext.allows(&far));
    }

    #[test]
    fn the_longest_entry_fits_the_queue() {
        let mut config = config();
        config.set("max_entry_bytes", "67108864").unwrap();
        for (key, too_little, least) in
            [("queue_bytes", "67108864", "67112960"), ("uncommitted_bytes", "67108863", "67108864")]
        {
            config.set(key, too_little).unwrap();
            let refused = config.check().expect_err("it does not fit").to_string();
            assert!(refused.contains(key) && refused.contains(least), "{refused}");
            config.set(key, least).unwrap();
        }
        config.check().unwrap();
    }

    #[test]
    fn an_election_timeout_under_three_heartbeats_is_refused() {
        let mut config = config();
        config.check().unwrap();
        config.set("heartbeat_ms", "101").unwrap();
        assert!(matches!(config.check(), Err(ConfigError::Conflict { .. })));
    }
}
