//! Whole servers in one process, over loopback and real disks: what a host sees.

mod budgets;
mod callbacks;
mod cluster;
mod digests;
mod machine;
mod outcomes;
mod refusals;
mod stories;

use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft_engine::server::{Item, MemberArgument, StartHow};
use raft_engine::types::{GroupId, GroupSettings};

const BOUND: Duration = Duration::from_secs(30);
const GROUP: GroupId = GroupId(1);

fn bootstrap(members: Vec<MemberArgument>) -> StartHow {
    StartHow::Bootstrap { members, settings: GroupSettings::default() }
}

#[allow(clippy::disallowed_methods, reason = "the bound of a wait is real time")]
fn now() -> Instant {
    Instant::now()
}

/// Waits for a condition that no lock announces.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = now();
    while !condition() {
        assert!(start.elapsed() < BOUND, "not in time: {what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap())
}

fn items(first_tag: u64, count: u64) -> Vec<Item> {
    (first_tag..first_tag + count).map(|tag| Item { tag, data: Bytes::from(tag.to_string()), session: None }).collect()
}
