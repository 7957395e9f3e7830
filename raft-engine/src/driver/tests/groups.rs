//! Many groups on each server: what is idle costs a row in a frame, and nothing else.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Cluster, GROUP};
use crate::driver::{Event, Role};
use crate::types::{GroupId, Message, Time};

/// Three servers with so many groups, all at rest: their heartbeats come due by their interval, and nothing else.
fn at_rest(groups: u64) -> Cluster {
    let mut cluster = Cluster::of_groups(3, groups, |_, _| {});
    cluster.pass(2_000);
    cluster.said.clear();
    cluster
}

fn led_by(cluster: &Cluster, id: u64) -> BTreeSet<GroupId> {
    let leads = |group: &GroupId| cluster.leader_of(*group) == Some(id);
    cluster.group_ids().into_iter().filter(leads).collect()
}

fn is_heartbeat(message: &Message) -> bool {
    matches!(message, Message::Heartbeat { .. })
}

#[test]
fn the_heartbeats_of_all_groups_to_a_peer_are_one_frame_and_so_are_their_answers() {
    let mut cluster = at_rest(60);
    cluster.pass(1_000);
    for from in 1..=3 {
        let led = led_by(&cluster, from);
        for to in (1..=3).filter(|&to| to != from) {
            let said = cluster.said.iter().filter(|said| (said.from, said.to) == (from, to));
            let (beats, answers): (Vec<_>, Vec<_>) =
                said.map(|said| &said.messages).partition(|all| is_heartbeat(&all[0].1));
            // Ten intervals.
            assert_eq!(beats.len(), if led.is_empty() { 0 } else { 10 }, "{from} to {to}");
            assert!(beats.iter().all(|all| all.iter().map(|(group, _)| *group).collect::<BTreeSet<_>>() == led));
            let followed = led_by(&cluster, to);
            assert!(answers.iter().all(|all| all.iter().all(|(group, _)| followed.contains(group))));
            assert_eq!(answers.len(), if followed.is_empty() { 0 } else { 10 }, "{from} to {to}");
        }
    }
}

#[test]
fn a_group_that_only_follows_and_idles_is_not_looked_at() {
    let mut cluster = at_rest(60);
    for id in 1..=3 {
        cluster.driver(id).take_changed();
    }
    cluster.pass(1_000);
    for id in 1..=3 {
        let looked_at: BTreeSet<_> = cluster.driver(id).take_changed().into_iter().collect();
        assert_eq!(looked_at, led_by(&cluster, id), "its leaders had a heartbeat to say");
    }
}

#[test]
fn a_timer_that_is_put_off_by_every_heartbeat_wakes_nobody() {
    let mut cluster = at_rest(60);
    let idle = (1..=3).find(|&id| led_by(&cluster, id).is_empty());
    for _ in 0..300 {
        cluster.pass(5);
        let now = cluster.now;
        for id in 1..=3 {
            let driver = cluster.driver(id);
            assert!(driver.groups.timers() <= 60, "one a group");
            let is_follower = driver.groups.values().all(|group| group.role() == Role::Follower);
            if is_follower && idle == Some(id) {
                assert!(driver.deadline() > now + Duration::from_millis(190), "an election timeout less an interval");
            } else {
                // The next beat, and nobody's election before it.
                assert_eq!(driver.deadline(), now.next_multiple(Duration::from_millis(100)));
            }
        }
    }
}

#[test]
fn a_group_whose_leader_falls_silent_campaigns_in_time_although_its_timer_was_put_off() {
    let mut cluster = at_rest(20);
    let (leader, follower, other) = cluster.roles();
    let led = led_by(&cluster, leader);
    for to in [follower, other] {
        cluster.held.insert((leader, to));
    }
    // Twice the longest election timeout, and what an election takes.
    cluster.pass(1_300);
    for group in led {
        let leads = |id: u64| cluster.servers[&id].driver.observe(group).is_some_and(|it| it.role == Role::Leader);
        assert!(leads(follower) || leads(other), "group {group}");
    }
}

#[test]
fn a_group_that_stopped_answers_no_heartbeat_and_the_others_do() {
    let mut cluster = at_rest(20);
    let (leader, follower, _) = cluster.roles();
    cluster.handle(follower, Event::ApplyFailed { group: GROUP, index: 2, message: "on purpose".into() });
    cluster.settle();
    cluster.said.clear();
    cluster.pass(300);
    let answered = |group: GroupId| {
        let answers = cluster.said.iter().filter(|said| (said.from, said.to) == (follower, leader));
        answers.flat_map(|said| &said.messages).any(|(of, _)| *of == group)
    };
    for group in led_by(&cluster, leader) {
        assert_eq!(answered(group), group != GROUP, "group {group}");
    }
}

#[test]
fn a_server_that_hosts_some_of_the_groups_answers_for_those() {
    let mut cluster = Cluster::of_groups(3, 3, |_, _| {});
    let (_, follower, _) = cluster.roles();
    cluster.kill(follower);
    // Its host starts two of the three again.
    cluster.groups = 2;
    cluster.start(follower);
    cluster.pass(2_000);
    cluster.said.clear();
    cluster.pass(500);
    let said = cluster.said.iter().filter(|said| said.from == follower).flat_map(|said| &said.messages);
    let groups: BTreeSet<GroupId> = said.map(|(group, _)| *group).collect();
    assert_eq!(groups, cluster.group_ids().into_iter().collect());
    for group in cluster.group_ids() {
        let observed = cluster.servers[&follower].driver.observe(group).expect("it runs");
        assert!(observed.leader.is_some(), "group {group}");
    }
}

#[test]
fn leaders_of_a_server_beat_together_whenever_they_were_elected() {
    let mut cluster = at_rest(60);
    for _ in 0..10 {
        let deadlines: BTreeSet<Time> = (1..=3)
            .filter(|&id| !led_by(&cluster, id).is_empty())
            .map(|id| cluster.servers[&id].driver.deadline())
            .collect();
        assert_eq!(deadlines.len(), 1, "the clocks of these three are one: {deadlines:?}");
        cluster.pass(100);
    }
}

/// One server of many groups, each with a command in its log, and a log of small segments that may have so many bytes.
fn alone(groups: u64, log_bytes: u64) -> Cluster {
    let mut cluster = Cluster::of_groups(1, groups, |_, settings| {
        settings.segment_bytes = 1 << 20;
        settings.log_bytes = log_bytes;
        settings.snapshot_log_bytes = 1 << 30;
    });
    for group in cluster.group_ids() {
        let command = format!("of group {group}");
        cluster.propose_in(group, 1, &[command.as_bytes()]);
    }
    cluster.settle();
    cluster
}

fn log_bytes(cluster: &Cluster) -> u64 {
    cluster.servers[&1].driver.server_status().log_bytes
}

#[test]
fn idle_groups_are_copied_out_of_the_way_of_a_busy_one_and_lose_nothing() {
    let mut cluster = alone(200, 4 << 20);
    let command = vec![7; 60_000];
    let before: Vec<_> =
        cluster.group_ids().into_iter().map(|group| cluster.servers[&1].driver.observe(group)).collect();
    // Ten times what the log may hold.
    for _ in 0..700 {
        cluster.propose(1, &[&command]);
        cluster.pass(5);
        let most = (4 << 20) + 4 * (1 << 20);
        assert!(log_bytes(&cluster) <= most, "{} bytes", log_bytes(&cluster));
    }
    let idle = cluster.group_ids().into_iter().filter(|&group| group != GROUP);
    assert_eq!(idle.clone().find(|group| cluster.snapshots.contains_key(group)), None, "they were only copied");
    assert!(cluster.snapshots[&GROUP] >= 5, "{:?}", cluster.snapshots);
    cluster.kill(1);
    cluster.start(1);
    cluster.until_led();
    for (group, before) in cluster.group_ids().into_iter().zip(before).skip(1) {
        let (driver, before) = (&cluster.servers[&1].driver, before.expect("it ran"));
        let (_, entry) = driver.observe_entry(group, before.last.index).expect("its last entry is there");
        let crc = crc32c::crc32c(format!("of group {group}").as_bytes());
        assert!(entry.is_none_or(|(_, payload_crc)| payload_crc == crc), "group {group}");
        assert!(
            driver.observe(group).is_some_and(|it| it.last.index > before.last.index && it.applied >= it.last.index)
        );
    }
}

#[test]
fn groups_that_fill_the_log_together_are_snapshotted_and_not_copied_for_ever() {
    let mut cluster = alone(40, 4 << 20);
    // Each has a quarter of a megabyte: together more than twice what the log may hold.
    let command = vec![7; 32_000];
    for group in cluster.group_ids() {
        for _ in 0..8 {
            cluster.propose_in(group, 1, &[&command]);
        }
        cluster.settle();
    }
    for _ in 0..200 {
        cluster.propose(1, &[&command]);
        cluster.pass(5);
    }
    assert!(log_bytes(&cluster) <= 8 << 20, "{} bytes, snapshots {:?}", log_bytes(&cluster), cluster.snapshots);
    let written = cluster.servers[&1].driver.server_status().log_writes;
    cluster.pass(5_000);
    let more = cluster.servers[&1].driver.server_status().log_writes - written;
    assert!(more <= 2, "{more} writes, though nobody asks for anything");
    assert!(cluster.snapshots.len() > 10, "{:?}", cluster.snapshots);
}

#[test]
fn a_segment_opens_with_the_state_of_a_thousand_groups() {
    let mut cluster = alone(1_000, 1 << 30);
    let command = vec![7; 60_000];
    let before = log_bytes(&cluster);
    for _ in 0..60 {
        cluster.propose(1, &[&command]);
        cluster.settle();
    }
    // What was proposed, in batches of whole blocks, and three checkpoints or four.
    let checkpoints = log_bytes(&cluster) - before - 60 * 61_440;
    assert!((500..4 * 500 * 1_000).contains(&checkpoints), "{checkpoints} bytes beyond the entries");
    cluster.kill(1);
    cluster.start(1);
    cluster.until_led();
    for group in cluster.group_ids() {
        assert!(
            cluster.servers[&1].driver.observe(group).is_some_and(|it| it.applied == it.last.index && it.commit >= 4)
        );
    }
}

#[test]
fn what_all_groups_keep_in_memory_is_in_one_budget_and_who_was_written_to_last_keeps_most() {
    const BUDGET_BYTES: usize = 400_000;
    let mut cluster = Cluster::of_groups(1, 20, |_, settings| {
        settings.segment_bytes = 1 << 20;
        settings.cache_bytes = BUDGET_BYTES;
    });
    let cached = |cluster: &Cluster, group| cluster.servers[&1].driver.observe(group).map_or(0, |it| it.cached_bytes);
    for group in cluster.group_ids() {
        for _ in 0..8 {
            cluster.propose_in(group, 1, &[&[7; 30_000]]);
            cluster.settle();
        }
        let all: usize = cluster.group_ids().into_iter().map(|group| cached(&cluster, group)).sum();
        assert!(all <= BUDGET_BYTES, "{all} bytes");
        assert!(cached(&cluster, group) >= 8 * 30_000, "the one that is busy");
    }
    assert!(cached(&cluster, GROUP) < 30_000, "the one that was busy first");
}
