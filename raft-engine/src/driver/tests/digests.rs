//! Replicas compared, as the hosts of a group see it.

use std::time::Duration;

use super::super::{NotApplied, Unknown};
use super::*;
use crate::types::{DigestAnswer, DigestCheck, DigestVerdict, Divergence, HostDigest, StateDigest};

fn digest(number: u64) -> StateDigest {
    Sessions::default().digested(1, HostDigest::from(number))
}

impl Cluster {
    /// Asks a server to compare; the tag.
    fn compare(&mut self, id: u64, patience: u64) -> u64 {
        self.last_tag += 1;
        let ticket = Ticket { origin: 2, tag: self.last_tag };
        let patience = Duration::from_millis(patience);
        self.handle(id, Event::CheckDigests { group: GROUP, ticket, patience });
        self.settle();
        self.last_tag
    }

    /// What a comparison came to.
    #[track_caller]
    fn checked(&self, id: u64, tag: u64) -> DigestCheck {
        match self.end_of(id, tag) {
            Some(End::Ended(Outcome::DigestsChecked(check))) => DigestCheck::clone(check),
            other => panic!("{other:?}"),
        }
    }

    fn stopped(&mut self, id: u64) -> Option<String> {
        self.driver(id).group_status(GROUP).expect("a group").stopped
    }
}

fn answers(check: &DigestCheck) -> Vec<DigestAnswer> {
    check.replicas.iter().map(|(_, answer)| *answer).collect()
}

#[test]
fn replicas_that_agree_are_told_so_and_nothing_is_logged() {
    let mut cluster = Cluster::new(3);
    let (leader, follower, _) = cluster.roles();
    (1..=3).for_each(|id| cluster.digests.insert(id, Some(7)).map_or((), drop));
    let before = cluster.driver(leader).observe(GROUP).unwrap().last.index;
    let tag = cluster.compare(leader, 1_000);
    let check = cluster.checked(leader, tag);
    assert_eq!(check.verdict(), DigestVerdict::Agreed);
    assert_eq!((check.index, check.majority), (before + 1, Some(digest(7))));
    assert_eq!(answers(&check), [DigestAnswer::Given(digest(7)); 3]);
    assert_eq!(cluster.driver(leader).observe(GROUP).unwrap().last.index, before + 1, "the request and nothing else");
    assert_eq!(*cluster.driver(leader).group_status(GROUP).unwrap().digest_check.unwrap(), check);
    let tag = cluster.compare(follower, 1_000);
    let refused = Outcome::NotApplied(NotApplied::NotLeader { leader: Some(ServerId(leader)) });
    assert_eq!(cluster.end_of(follower, tag), Some(&End::Ended(refused)));
}

#[test]
fn the_odd_one_stops_and_the_others_go_on() {
    let mut cluster = Cluster::new(3);
    let (leader, odd, other) = cluster.roles();
    cluster.digests = [(leader, Some(7)), (odd, Some(8)), (other, Some(7))].into();
    let tag = cluster.compare(leader, 1_000);
    let check = cluster.checked(leader, tag);
    assert_eq!(check.verdict(), DigestVerdict::Diverged);
    assert!(check.is_odd(ServerId(odd)) && !check.is_odd(ServerId(other)) && !check.is_odd(ServerId(leader)));
    cluster.pass(200);
    let status = cluster.driver(odd).group_status(GROUP).unwrap();
    let divergence = status.divergence.expect("it knows why");
    assert_eq!(*divergence, Divergence { check: check.clone(), own: Some(digest(8)) });
    let reason = status.stopped.unwrap();
    for part in [&format!("entry {}", check.index), &digest(7).to_string(), &digest(8).to_string()] {
        assert!(reason.contains(part.as_str()), "{reason}");
    }
    assert_eq!((cluster.stopped(leader), cluster.stopped(other)), (None, None));
    for id in [leader, other] {
        assert_eq!(*cluster.driver(id).group_status(GROUP).unwrap().digest_check.unwrap(), check, "everybody is told");
    }
    let tag = cluster.propose_one(leader, b"on");
    cluster.settle();
    assert!(matches!(cluster.end_of(leader, tag), Some(End::Applied(..))));

    // It stops there again after a restart, though it has nothing to compare: the verdict names it.
    cluster.digests.insert(odd, None);
    cluster.kill(odd);
    cluster.start(odd);
    cluster.pass(1_000);
    let divergence = cluster.driver(odd).group_status(GROUP).unwrap().divergence.expect("it stops again");
    assert_eq!((divergence.own, divergence.check.index), (None, check.index));
    assert!(!cluster.applied(odd).contains(&&b"on"[..]), "nothing behind the verdict");
}

#[test]
fn a_state_that_is_right_after_a_restart_goes_on() {
    let mut cluster = Cluster::new(3);
    let (leader, odd, other) = cluster.roles();
    cluster.digests = [(leader, Some(7)), (odd, Some(8)), (other, Some(7))].into();
    cluster.compare(leader, 1_000);
    cluster.pass(200);
    assert!(cluster.stopped(odd).is_some());
    // What it replays comes down to what the others have.
    cluster.digests.insert(odd, Some(7));
    cluster.kill(odd);
    cluster.start(odd);
    cluster.pass(1_000);
    assert_eq!(cluster.stopped(odd), None);
    let tag = cluster.compare(cluster.leader().unwrap(), 1_000);
    assert_eq!(cluster.checked(cluster.leader().unwrap(), tag).verdict(), DigestVerdict::Agreed);
}

#[test]
fn a_leader_that_is_odd_hands_over_before_it_stops() {
    let mut cluster = Cluster::new(3);
    let (odd, one, other) = cluster.roles();
    cluster.digests = [(odd, Some(8)), (one, Some(7)), (other, Some(7))].into();
    let tag = cluster.compare(odd, 1_000);
    assert_eq!(cluster.checked(odd, tag).majority, Some(digest(7)), "who asked is told, odd or not");
    assert!(cluster.stopped(odd).is_some());
    // Within no time at all, and no election timeout.
    cluster.pass(5);
    let leader = cluster.leader().unwrap();
    assert!(leader == one || leader == other);
}

#[test]
fn where_no_majority_agrees_all_are_told_and_nobody_stops() {
    let mut cluster = Cluster::new(3);
    let (leader, one, other) = cluster.roles();
    cluster.digests = [(leader, Some(7)), (one, Some(8)), (other, Some(9))].into();
    let tag = cluster.compare(leader, 1_000);
    let check = cluster.checked(leader, tag);
    assert_eq!((check.verdict(), check.majority), (DigestVerdict::Split, None));
    cluster.pass(200);
    for id in 1..=3 {
        assert_eq!(cluster.stopped(id), None);
        assert_eq!(*cluster.driver(id).group_status(GROUP).unwrap().digest_check.unwrap(), check);
    }
}

#[test]
fn two_of_five_stop_nobody_though_they_agree() {
    let mut cluster = Cluster::new(5);
    let (leader, ..) = cluster.roles();
    let others: Vec<u64> = (1..=5).filter(|&id| id != leader).collect();
    // Two agree, one differs, two cannot say.
    cluster.digests = [(leader, Some(7)), (others[0], Some(7)), (others[1], Some(8))].into();
    let tag = cluster.compare(leader, 1_000);
    assert_eq!(cluster.checked(leader, tag).verdict(), DigestVerdict::Split);
    cluster.pass(200);
    assert!((1..=5).all(|id| cluster.stopped(id).is_none()));
}

#[test]
fn whoever_gives_no_digest_takes_no_part() {
    let mut cluster = Cluster::new(3);
    let (leader, one, other) = cluster.roles();
    cluster.digests = [(leader, Some(7)), (one, None), (other, Some(7))].into();
    let tag = cluster.compare(leader, 1_000);
    let check = cluster.checked(leader, tag);
    assert_eq!(check.verdict(), DigestVerdict::Agreed);
    assert_eq!(check.answer_of(ServerId(one)), Some(DigestAnswer::Unable));
    cluster.digests.clear();
    let tag = cluster.compare(leader, 1_000);
    assert_eq!(cluster.checked(leader, tag).verdict(), DigestVerdict::Undecided);
}

#[test]
fn an_answer_that_comes_late_is_compared_as_well() {
    let mut cluster = Cluster::new(3);
    let (leader, odd, other) = cluster.roles();
    cluster.digests = [(leader, Some(7)), (odd, Some(8)), (other, Some(7))].into();
    cluster.kill(odd);
    let tag = cluster.compare(leader, 300);
    assert_eq!(cluster.end_of(leader, tag), None, "it waits for whoever is silent");
    cluster.pass(310);
    let check = cluster.checked(leader, tag);
    assert_eq!(check.verdict(), DigestVerdict::Agreed);
    assert_eq!(check.answer_of(ServerId(odd)), Some(DigestAnswer::Missing));
    cluster.start(odd);
    cluster.pass(3_000);
    let divergence = cluster.driver(odd).group_status(GROUP).unwrap().divergence.expect("it is found");
    assert_eq!(divergence.check.index, check.index);
    assert_eq!(cluster.leader(), Some(leader));
}

#[test]
fn a_report_that_is_lost_is_asked_for_again() {
    let mut cluster = Cluster::new(3);
    let (leader, lost, other) = cluster.roles();
    (1..=3).for_each(|id| cluster.digests.insert(id, Some(7)).map_or((), drop));
    // It applies the request while nothing of it gets through.
    let tag = cluster.compare(leader, 5_000);
    assert_eq!(cluster.checked(leader, tag).verdict(), DigestVerdict::Agreed);
    cluster.held.insert((lost, leader));
    let tag = cluster.compare(leader, 5_000);
    assert_eq!(cluster.end_of(leader, tag), None);
    cluster.wire.retain(|(from, to, ..)| (*from, *to) != (lost, leader));
    cluster.held.clear();
    cluster.break_dialled(lost, leader);
    cluster.pass(1_500);
    let check = cluster.checked(cluster.leader().unwrap(), tag);
    assert_eq!(answers(&check), [DigestAnswer::Given(digest(7)); 3]);
    let _ = other;
}

#[test]
fn a_comparison_ends_with_its_leader_and_there_is_one_at_a_time() {
    let mut cluster = Cluster::new(3);
    let (leader, one, other) = cluster.roles();
    (1..=3).for_each(|id| cluster.digests.insert(id, Some(7)).map_or((), drop));
    for peer in [one, other] {
        cluster.held.extend([(leader, peer), (peer, leader)]);
    }
    let tag = cluster.compare(leader, 60_000);
    let second = cluster.compare(leader, 60_000);
    assert_eq!(cluster.end_of(leader, second), Some(&End::Ended(Outcome::NotApplied(NotApplied::Busy))));
    cluster.pass(2_000);
    assert_eq!(cluster.end_of(leader, tag), Some(&End::Ended(Outcome::Unknown(Unknown::LeadershipLost))));
}

#[test]
fn what_is_not_applied_in_time_is_given_up() {
    let mut cluster = Cluster::new(3);
    let (leader, one, other) = cluster.roles();
    for peer in [one, other] {
        cluster.held.insert((peer, leader));
    }
    let tag = cluster.compare(leader, 50);
    cluster.pass(100);
    let ended = cluster.end_of(leader, tag);
    assert!(matches!(ended, Some(End::Ended(Outcome::NotApplied(NotApplied::GivenUp(_))))), "{ended:?}");
}

#[test]
fn a_request_and_a_verdict_are_the_last_of_their_batch() {
    let mut cluster = Cluster::new(3);
    let (leader, odd, other) = cluster.roles();
    cluster.digests = [(leader, Some(7)), (odd, Some(8)), (other, Some(7))].into();
    // Everything of one turn: commands before and behind the request.
    cluster.propose_one(leader, b"before");
    cluster.last_tag += 1;
    let ticket = Ticket { origin: 2, tag: cluster.last_tag };
    cluster.handle(leader, Event::CheckDigests { group: GROUP, ticket, patience: Duration::from_secs(1) });
    cluster.propose_one(leader, b"behind");
    cluster.settle();
    for id in 1..=3 {
        let batches = &cluster.servers[&id].batches;
        let is_end = |batch: &Vec<EntryKind>| batch.iter().rev().skip(1).all(|kind| !kind.ends_batch());
        assert!(batches.iter().all(is_end), "{batches:?}");
        assert!(batches.iter().any(|batch| batch.last() == Some(&EntryKind::DigestRequest)));
    }
    let bytes = crate::codec::encode(&cluster.checked(leader, ticket.tag));
    let entry = Entry::new(Default::default(), crate::types::LogTime(0), EntryKind::DigestVerdict, bytes.into());
    assert!(digest_check(&entry).is_some());
}
