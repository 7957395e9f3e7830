//! Section "Configuration" of the header.

use std::ffi::{OsStr, c_char};
use std::os::unix::ffi::OsStrExt;

use raft_engine::server::{CompletionDelivery, Config, Dispatch};
use raft_engine::types::ClusterId;

use crate::call::{accessor, argument, clear, entry, raw_text, silence_panics, text};
use crate::error::{Failure, RAFT_ERR_HANDLE, RAFT_ERR_SETTING, raft_error};
use crate::handle::{self, Boxed, Kind};

/// What a server is opened with. One thread at a time may use a configuration.
#[allow(non_camel_case_types)]
pub struct raft_config {
    config: Config,
}

impl Boxed for raft_config {
    const KIND: Kind = Kind::Config;
}

/// The configuration behind a pointer of the host.
///
/// # Safety
/// `config` is NULL or may be read, and nobody changes it meanwhile.
pub(crate) unsafe fn look<'a>(config: *const raft_config) -> Result<&'a Config, Failure> {
    // SAFETY: the caller vouches for it.
    unsafe { handle::peek(config) }.map(|config| &config.config).ok_or_else(not_a_configuration)
}

fn not_a_configuration() -> Failure {
    Failure::new(RAFT_ERR_HANDLE, "this is no configuration, or one that was released")
}

/// Makes the configuration of one server.
///
/// - `cluster`: the name of the servers that belong together, 1 to 64 bytes of UTF-8; others are refused.
/// - `id`: this server's id within the cluster: not 0, and never used again for another directory.
/// - `directory`: where its log and snapshots are; made when missing. One process has it open at a time.
/// - `listen`: where its peers reach it, as "host:port"; port 0 takes a free one (raft_server_status says which).
/// - `out`: receives the configuration, which the caller owns and releases with raft_config_free; NULL on failure.
///
/// The strings are NUL-terminated and copied. Any thread. Does not block.
/// Errors: RAFT_ERR_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_config_new(
    cluster: *const c_char,
    id: u64,
    directory: *const c_char,
    listen: *const c_char,
    out: *mut *mut raft_config,
    error: *mut *mut raft_error,
) -> i32 {
    silence_panics();
    let body = || {
        // SAFETY: the pointers are as the header asks.
        let (cluster, directory, listen) = unsafe {
            clear(out, "out")?;
            (text(cluster, "cluster")?, raw_text(directory, "directory")?, text(listen, "listen")?)
        };
        if ClusterId::new(cluster).is_none() {
            return Err(argument(format!("a cluster's name has at most {} bytes", ClusterId::MAX_BYTES)));
        }
        if id == 0 {
            return Err(argument("a server's id is never 0"));
        }
        let config = Config::new(cluster, id, OsStr::from_bytes(directory), listen);
        // SAFETY: `clear` found that it may be written.
        unsafe { out.write(handle::own(raft_config { config })) };
        Ok(())
    };
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, body) }
}

/// Changes one setting. Sizes are in bytes, times in milliseconds, both as whole decimal numbers above 0.
///
/// | key                   | default    | meaning                                                                |
/// |-----------------------|------------|------------------------------------------------------------------------|
/// | dispatch              | threaded   | who runs the callbacks: "threaded" (the library) or "host" (you do)    |
/// | completions           | callback   | how completions come: "callback" (`completed`) or "poll"               |
/// | disk_backend          | auto       | "aio" (Linux AIO), "thread", or "auto": the first where it works       |
/// | election_timeout_ms   | 300        | without a leader, an election begins after this to twice this          |
/// | heartbeat_ms          | 100        | a leader is heard from this often; at most a third of the one above    |
/// | disk_stall_timeout_ms | 1000       | a leader whose disk makes no progress for so long steps down           |
/// | max_entry_bytes       | 8388608    | the longest proposal; at most 67108864 and 4096 less than queue_bytes  |
/// | queue_bytes           | 16777216   | proposals that the library's loop has not taken yet                    |
/// | uncommitted_bytes     | 67108864   | proposals taken and not yet committed                                  |
/// | in_flight_bytes       | 2097152    | entries sent to one peer and not yet acknowledged                      |
/// | connection_bytes      | 8388608    | frames waiting for one connection                                      |
/// | cache_bytes           | 16777216   | recent entries kept in memory                                          |
/// | segment_bytes         | 67108864   | the length of one file of the log; a multiple of 4096                  |
/// | log_bytes             | 1073741824 | the length of all of them                                              |
/// | snapshot_log_bytes    | 268435456  | log behind the last snapshot that calls for the next one               |
/// | snapshot_bytes_per_second | 0      | how fast a snapshot goes to one peer at most; 0: no limit              |
/// | forwarding            | on         | "on": where another server leads, it is asked; "off": it is only named |
/// | forward_bytes         | 8388608    | proposals forwarded to the leader and not yet answered                 |
/// | plaintext             | loopback   | "loopback", or "anywhere" where only you can reach the network         |
/// | peer.ID               |            | "host:port": where to dial server ID, in place of its address          |
///
/// `config` stays the caller's; both strings are NUL-terminated and copied. Values are checked at once as far as they
/// can be alone, and together in raft_server_open. Any thread. Does not block.
/// Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_SETTING.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_config_set(
    config: *mut raft_config,
    key: *const c_char,
    value: *const c_char,
    error: *mut *mut raft_error,
) -> i32 {
    let body = || {
        // SAFETY: the pointers are as the header asks.
        let (config, key, value) = unsafe {
            let config = handle::peek_mut(config).ok_or_else(not_a_configuration)?;
            (&mut config.config, text(key, "key")?, text(value, "value")?)
        };
        let bad = |expected: &str| {
            Failure::new(RAFT_ERR_SETTING, format!("`{value}` is no value for `{key}`: expected {expected}"))
        };
        match (key, value) {
            ("dispatch", "threaded") => config.dispatch = Dispatch::Threaded,
            ("dispatch", "host") => config.dispatch = Dispatch::Host,
            ("dispatch", _) => return Err(bad("threaded or host")),
            ("completions", "callback") => config.completions = CompletionDelivery::Callback,
            ("completions", "poll") => config.completions = CompletionDelivery::Poll,
            ("completions", _) => return Err(bad("callback or poll")),
            _ => config.set(key, value).map_err(|error| Failure::new(RAFT_ERR_SETTING, error.to_string()))?,
        }
        Ok(())
    };
    // SAFETY: `error` is as the header asks.
    unsafe { entry(error, body) }
}

/// Releases a configuration. NULL is allowed. Servers opened with it go on. Any thread. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raft_config_free(config: *mut raft_config) {
    // SAFETY: as the header asks.
    accessor((), || drop(unsafe { handle::release(config) }));
}
