//! Reads by lease: what a promise binds, and what nothing may be read by.

use super::*;
use crate::types::MemberChange;

const LEASE: Duration = Duration::from_millis(200);

/// Three voters with leases, led by server 1, every follower of which has promised.
fn with_leases() -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1, b"first");
    set_lease(&mut cluster, LEASE);
    cluster.pass(300);
    cluster
}

fn set_lease(cluster: &mut Cluster, lease: Duration) {
    let settings = GroupSettings { lease, ..cluster.raft(1).configuration().settings.clone() };
    let (now, patience) = (cluster.now, Duration::from_secs(1));
    let changes = [MemberChange::SetSettings(settings)];
    cluster.raft(1).change_members(now, &changes, &BTreeMap::new(), patience).expect("a good change");
    cluster.settle();
}

impl Cluster {
    fn read_by_lease(&mut self, id: u64) -> Option<Index> {
        let now = self.now;
        self.raft(id).read_by_lease(now)
    }
}

#[test]
fn a_leader_reads_without_a_round_while_a_quorum_is_bound() {
    let mut cluster = with_leases();
    let commit = cluster.raft(1).commit_index();
    assert_eq!(cluster.read_by_lease(1), Some(commit));
    assert_eq!(cluster.read_by_lease(2), None, "it does not lead");
    cluster.isolate(1);
    // Heartbeats go every 100 ms: a promise was given at most so long ago.
    cluster.pass(75);
    assert_eq!(cluster.read_by_lease(1), Some(commit));
    cluster.pass(110);
    assert_eq!(cluster.read_by_lease(1), None, "nine tenths of the lease after the round was sent");
}

#[test]
fn a_lease_is_counted_from_when_its_round_was_sent_however_late_the_answers() {
    let mut cluster = with_leases();
    // The next round, of which nobody has heard yet.
    let is_round = |(_, _, message): &(u64, u64, Message)| matches!(message, Message::Heartbeat { .. });
    for _ in 0..30 {
        if !cluster.wire.iter().any(is_round) {
            cluster.now = cluster.now + Duration::from_millis(5);
            let now = cluster.now;
            cluster.raft(1).tick(now);
            cluster.carry_out(1);
        }
    }
    let sent = cluster.now;
    // The followers hear of it, and answer, much later.
    cluster.now = sent + Duration::from_millis(100);
    cluster.settle();
    let commit = cluster.raft(1).commit_index();
    cluster.now = sent + (LEASE * 9 / 10 - Duration::from_millis(1));
    assert_eq!(cluster.read_by_lease(1), Some(commit));
    cluster.now = sent + (LEASE * 9 / 10 + Duration::from_millis(1));
    assert_eq!(cluster.read_by_lease(1), None);
}

#[test]
fn without_the_setting_there_is_no_lease() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1, b"first");
    cluster.pass(300);
    assert_eq!(cluster.read_by_lease(1), None);
}

#[test]
fn a_pause_ends_the_lease() {
    let mut cluster = with_leases();
    cluster.now = cluster.now + Duration::from_millis(200);
    assert_eq!(cluster.read_by_lease(1), None, "the clock is read when the read comes");
}

#[test]
fn who_promised_helps_nobody_and_does_not_stand() {
    let mut cluster = with_leases();
    let last = Position { term: 99, index: 99 };
    let (now, term) = (cluster.now, cluster.raft(2).hard_state().term);
    // As if the follower were told that its leader is dead, or had lost its memory of having heard from it.
    cluster.raft(2).leader_heard_at = None;
    cluster.raft(2).receive(now, ServerId(3), Message::PreVote { campaign_term: term + 1, last });
    cluster.raft(2).receive(now, ServerId(3), Message::Vote { term: term + 1, last, is_transfer: false });
    cluster.raft(2).campaign(now);
    cluster.carry_out(2);
    let granted = |message: &Message| {
        matches!(message, Message::PreVoteReply { granted: true, .. } | Message::VoteReply { granted: true, .. })
    };
    assert!(!cluster.wire.iter().any(|(_, _, message)| granted(message)));
    assert_eq!(cluster.raft(2).hard_state().term, term);
    assert_eq!(cluster.raft(2).role(), RoleName::Follower);
}

#[test]
fn nobody_is_suspected_where_there_are_leases() {
    let mut cluster = with_leases();
    let now = cluster.now;
    assert!(!cluster.raft(2).suspect(now, ServerId(1), Duration::from_millis(10)));
}

#[test]
fn a_hand_over_is_above_promises_and_ends_the_lease_of_whoever_hands_over() {
    let mut cluster = with_leases();
    let now = cluster.now;
    cluster.raft(1).transfer(now, Some(ServerId(3)), Duration::from_millis(100)).expect("a voter");
    assert_eq!(cluster.read_by_lease(1), None, "it has told 3 to stand");
    cluster.settle();
    assert_eq!(cluster.leader(), Some(3));

    let mut cluster = with_leases();
    cluster.isolate(3);
    let now = cluster.now;
    cluster.raft(1).transfer(now, Some(ServerId(3)), Duration::from_millis(50)).expect("a voter");
    cluster.pass(400);
    assert_eq!(cluster.leader(), Some(1));
    assert_eq!(cluster.read_by_lease(1), None, "in this term never again: the word may still be under way");
}

#[test]
fn a_promise_is_given_only_from_settings_on_the_own_disk() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1, b"first");
    for id in [2, 3] {
        cluster.nodes.get_mut(&id).expect("a server").is_disk_stuck = true;
    }
    set_lease(&mut cluster, LEASE);
    cluster.pass(250);
    assert_eq!(cluster.raft(2).promise, super::super::lease::Promise::default());
    assert_eq!(cluster.read_by_lease(1), None);
}

#[test]
fn an_answer_that_promises_nothing_renews_no_lease() {
    let mut cluster = Cluster::new(5);
    cluster.elect(1);
    cluster.propose(1, b"first");
    for id in [4, 5] {
        cluster.nodes.get_mut(&id).expect("a server").is_disk_stuck = true;
    }
    set_lease(&mut cluster, LEASE);
    cluster.pass(150);
    assert!(cluster.read_by_lease(1).is_some(), "2 and 3 have promised");
    // Now 4 and 5 alone answer, whose settings are on no disk.
    cluster.isolate(2);
    cluster.isolate(3);
    cluster.pass(300);
    assert_eq!(cluster.leader(), Some(1));
    assert_eq!(cluster.read_by_lease(1), None);
}

#[test]
fn a_restarted_server_waits_for_the_longest_lease_that_it_ever_held() {
    let longest = Duration::from_secs(2);
    let restored = Restored { longest_lease: longest, ..restored(3, 4, &[4]) };
    let mut raft = Raft::new(ServerId(1), Options::default(), restored, 1, Time(1_000));
    let last = Position { term: 9, index: 9 };
    raft.receive(Time(2_000), ServerId(2), Message::Vote { term: 5, last, is_transfer: false });
    assert_eq!(raft.hard_state().term, 4);
    let now = raft.deadline();
    raft.tick(now);
    assert_eq!(raft.role(), RoleName::Follower, "it does not stand either");
    assert!(raft.deadline() >= Time(1_000) + longest);
    raft.receive(Time(3_000), ServerId(2), Message::Vote { term: 5, last, is_transfer: true });
    assert_eq!(raft.hard_state(), HardState { term: 5, vote: Some(ServerId(2)) }, "a hand-over is above it");
    let end = Time(1_000) + longest;
    raft.receive(end, ServerId(3), Message::Vote { term: 6, last, is_transfer: false });
    assert_eq!(raft.hard_state(), HardState { term: 6, vote: Some(ServerId(3)) });
}

#[test]
fn a_lease_longer_than_the_election_timeout_is_refused() {
    let mut cluster = with_leases();
    let (now, patience) = (cluster.now, Duration::from_secs(1));
    let mut set = |lease| {
        let settings = GroupSettings { lease, ..GroupSettings::default() };
        let changes = [MemberChange::SetSettings(settings)];
        cluster.raft(1).change_members(now, &changes, &BTreeMap::new(), patience)
    };
    let timeout = Options::default().election_timeout;
    let refused = set(timeout + Duration::from_nanos(1));
    assert_eq!(set(timeout), Ok(()));
    assert!(matches!(refused, Err(crate::core::ChangeRefusal::Invalid(reason)) if reason.contains("election timeout")));
}
