//! Handing leadership over, and priorities.

use super::*;
use crate::core::{Refusal, TransferRefusal};
use crate::types::MemberChange;

const PATIENCE: Duration = Duration::from_millis(500);

fn led_by_1() -> Cluster {
    led_by_1_of(3)
}

fn led_by_1_of(voters: u64) -> Cluster {
    let mut cluster = Cluster::new(voters);
    cluster.elect(1);
    cluster.propose(1, b"first");
    cluster
}

/// Voters of these priorities, led by server 1.
fn with_priorities<const N: usize>(priorities: [u8; N]) -> Cluster {
    let mut cluster = led_by_1_of(N as u64);
    let set = |(id, &priority)| MemberChange::SetPriority { id: ServerId(id), priority };
    let changes: Vec<_> = (1..).zip(&priorities).map(set).collect();
    let now = cluster.now;
    cluster.raft(1).change_members(now, &changes, &BTreeMap::new(), PATIENCE).expect("a good change");
    // The next heartbeat sets the timers by them.
    cluster.pass(150);
    cluster
}

#[test]
fn leadership_is_handed_over_without_a_timeout() {
    let mut cluster = led_by_1();
    let now = cluster.now;
    assert_eq!(cluster.raft(1).transfer(now, Some(ServerId(3)), PATIENCE), Ok(ServerId(3)));
    cluster.settle();
    assert_eq!(cluster.leader(), Some(3), "in no time, though everybody has just heard from server 1");
    cluster.pass(100);
    assert_eq!(cluster.raft(1).leader(), Some(ServerId(3)));
}

#[test]
fn the_target_gets_all_entries_first_and_proposals_are_refused_meanwhile() {
    let mut cluster = led_by_1();
    cluster.isolate(3);
    cluster.propose(1, b"3 lacks it");
    let now = cluster.now;
    cluster.raft(1).transfer(now, Some(ServerId(3)), PATIENCE).expect("a voter");
    let refused = cluster.raft(1).propose(now, vec![Bytes::from_static(b"refused")]);
    assert_eq!(refused, Err(Refusal::Transferring));
    assert_eq!(cluster.raft(1).transfer(now, None, PATIENCE), Err(TransferRefusal::InProgress));
    cluster.settle();
    assert_eq!(cluster.leader(), Some(1), "it is not told before it has everything");
    cluster.heal();
    cluster.pass(400);
    assert_eq!(cluster.leader(), Some(3));
    assert_eq!(cluster.terms(3), cluster.terms(1));
}

#[test]
fn a_hand_over_that_comes_to_nothing_ends_at_its_deadline() {
    let mut cluster = led_by_1();
    cluster.isolate(3);
    let now = cluster.now;
    cluster.raft(1).transfer(now, Some(ServerId(3)), PATIENCE).expect("a voter");
    cluster.pass(600);
    assert_eq!(cluster.leader(), Some(1));
    assert_eq!(cluster.raft(1).transferring_to(), None);
    assert!(cluster.nodes[&1].other.contains(&Effect::TransferGivenUp { to: ServerId(3) }));
    cluster.propose(1, b"it goes on leading");
}

#[test]
fn a_hand_over_does_not_outlive_the_leadership() {
    let mut cluster = led_by_1();
    cluster.isolate(3);
    let now = cluster.now;
    cluster.raft(1).transfer(now, Some(ServerId(3)), Duration::from_secs(3600)).expect("a voter");
    cluster.elect(2);
    cluster.elect(1);
    cluster.propose(1, b"taken");
}

#[test]
fn the_best_voter_is_the_one_with_the_highest_priority_then_the_longest_log() {
    let mut cluster = with_priorities([1, 1, 2]);
    let now = cluster.now;
    assert_eq!(cluster.raft(1).transfer(now, None, PATIENCE), Ok(ServerId(3)));
    let mut cluster = led_by_1();
    cluster.cut.insert((1, 3));
    cluster.propose(1, b"3 lacks it");
    let now = cluster.now;
    assert_eq!(cluster.raft(1).transfer(now, None, PATIENCE), Ok(ServerId(2)));
}

#[test]
fn who_cannot_lead_is_no_target() {
    let mut cluster = led_by_1();
    let now = cluster.now;
    assert_eq!(cluster.raft(1).transfer(now, Some(ServerId(1)), PATIENCE), Err(TransferRefusal::IsLeader(ServerId(1))));
    assert_eq!(cluster.raft(1).transfer(now, Some(ServerId(7)), PATIENCE), Err(TransferRefusal::NotVoter(ServerId(7))));
    assert_eq!(cluster.raft(2).transfer(now, None, PATIENCE), Err(TransferRefusal::NotLeader));
    cluster.isolate(1);
    cluster.now = cluster.now + Duration::from_secs(1);
    let now = cluster.now;
    assert_eq!(cluster.raft(1).transfer(now, None, PATIENCE), Err(TransferRefusal::NoTarget));
}

#[test]
fn a_stale_word_to_stand_moves_nobody() {
    let mut cluster = led_by_1();
    let (now, term) = (cluster.now, cluster.raft(1).hard_state().term);
    cluster.raft(2).receive(now, ServerId(3), Message::TimeoutNow { term });
    assert_eq!(cluster.raft(2).role(), RoleName::Follower, "server 3 does not lead");
    cluster.raft(2).receive(now, ServerId(1), Message::TimeoutNow { term: term - 1 });
    assert_eq!(cluster.raft(2).role(), RoleName::Follower);
}

#[test]
fn each_priority_above_the_own_is_a_timeout_more_up_to_three_and_priority_0_waits_five_in_all() {
    fn check<const N: usize>(priorities: [u8; N], waits: [u32; N]) {
        let mut cluster = with_priorities(priorities);
        let (now, timeout) = (cluster.now, Options::default().election_timeout);
        for (id, wait) in (1..).zip(waits).skip(1) {
            for _ in 0..50 {
                cluster.raft(id).reset_election_timer(now);
                let waited = cluster.raft(id).deadline().since(now);
                let allowed = timeout * (1 + wait)..timeout * (2 + wait);
                assert!(allowed.contains(&waited), "{priorities:?}: server {id} waits {waited:?}, not {allowed:?}");
            }
        }
    }
    check([7, 7, 7], [0, 0, 0]);
    check([0, 0, 0], [0, 0, 0]);
    check([1, 1, 0], [0, 0, 4]);
    check([9, 9, 4, 4, 2], [0, 0, 1, 1, 2]);
    check([9, 8, 7, 6, 5], [0, 1, 2, 3, 3]);
    check([9, 8, 7, 6, 0], [0, 1, 2, 3, 4]);
}

#[test]
fn whoever_is_wanted_less_campaigns_later() {
    for _ in 0..20 {
        let mut cluster = with_priorities([3, 2, 1]);
        cluster.isolate(1);
        cluster.pass(3_000);
        assert_eq!(cluster.leader(), Some(2));
    }
}

#[test]
fn a_server_of_priority_0_leads_where_nobody_else_can_and_hands_over_as_soon_as_one_can() {
    let mut cluster = with_priorities([1, 1, 0]);
    cluster.isolate(1);
    cluster.pass(50);
    // Server 2 votes, and does not campaign: its timer is set again and again.
    let begun = cluster.now;
    while !cluster.raft(3).is_leader() {
        let now = cluster.now;
        cluster.raft(2).reset_election_timer(now);
        cluster.pass(5);
        assert!(
            cluster.now.since(begun) < Duration::from_secs(10),
            "neither safety nor a leader depends on priorities"
        );
    }
    assert!(cluster.now.since(begun) >= Options::default().election_timeout * 5 - Duration::from_millis(60));
    cluster.pass(500);
    assert_eq!(cluster.leader(), Some(2), "it has caught up, and is wanted more");
    cluster.propose(2, b"goes on");
}
