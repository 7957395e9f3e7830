//! Changes of members: learners first, joint consensus, and one end for each.

use super::*;
use crate::core::{ChangeEnd, ChangeRefusal};
use crate::types::MemberChange;

fn add(id: u64, role: MemberRole) -> MemberChange {
    MemberChange::Add { id: ServerId(id), role, priority: 1, address: String::new(), context: Vec::new() }
}

fn remove(id: u64) -> MemberChange {
    MemberChange::Remove { id: ServerId(id) }
}

impl Cluster {
    /// A server that has entry 1 and no place in the group.
    fn start_joiner(&mut self, id: u64, voters: u64) {
        let restored = restored(voters, 0, &[]);
        let log = restored.tail.clone();
        let raft = Raft::new(ServerId(id), Options::default(), restored, 100 + id, self.now);
        self.nodes.insert(id, Node::new(raft, HardState::default(), log));
    }

    fn change(&mut self, id: u64, changes: &[MemberChange]) -> Result<(), ChangeRefusal> {
        self.change_within(id, changes, 60_000)
    }

    fn change_within(&mut self, id: u64, changes: &[MemberChange], milliseconds: u64) -> Result<(), ChangeRefusal> {
        let begun = self.begin_change(id, changes, milliseconds);
        self.settle();
        begun
    }

    /// Begins a change; no message goes yet.
    fn begin_change(&mut self, id: u64, changes: &[MemberChange], milliseconds: u64) -> Result<(), ChangeRefusal> {
        let (now, patience) = (self.now, Duration::from_millis(milliseconds));
        let identities = (1..=20).map(|id| (ServerId(id), Identity([id as u8; 16]))).collect();
        self.raft(id).change_members(now, changes, &identities, patience)
    }

    /// Begins a change, and stops in the very moment in which server `id` appends the joint configuration.
    fn change_until_joint(&mut self, id: u64, changes: &[MemberChange]) -> Index {
        self.begin_change(id, changes, 60_000).expect("a good change");
        self.carry_out(id);
        while !self.nodes[&id].raft.configuration().is_joint() {
            let (from, to, message) = self.wire.pop_front().expect("it becomes joint in one exchange");
            let now = self.now;
            self.raft(to).receive(now, ServerId(from), message);
            if !self.nodes[&id].raft.configuration().is_joint() {
                self.carry_out(to);
            }
        }
        self.wire.clear();
        self.nodes[&id].raft.configuration_at(Index::MAX).0
    }

    /// How the changes that this server led ended.
    fn ends(&self, id: u64) -> Vec<ChangeEnd> {
        let end = |effect: &Effect| match effect {
            Effect::ChangeEnded { end, .. } => Some(*end),
            _ => None,
        };
        self.nodes[&id].other.iter().filter_map(end).collect()
    }

    fn voters(&self, id: u64) -> Vec<u64> {
        self.nodes[&id].raft.configuration().voters().map(|id| id.0).collect()
    }

    /// Every configuration in the log of a server, the latest last: incoming voters, outgoing ones, all members.
    fn configurations(&self, id: u64) -> Vec<(Vec<u64>, Vec<u64>, Vec<u64>)> {
        let ids = |ids: Vec<ServerId>| ids.into_iter().map(|id| id.0).collect();
        let entries = self.nodes[&id].log.iter().filter(|entry| entry.kind == EntryKind::Configuration);
        let read = |entry: &Entry| crate::codec::decode::<Configuration>(&entry.payload).expect("a configuration");
        let parts = |it: Configuration| {
            let members = it.members.iter().map(|member| member.id).collect();
            (ids(it.voters().collect()), ids(it.outgoing_voters), ids(members))
        };
        entries.map(read).map(parts).collect()
    }
}

/// Three voters, led by server 1, which has committed in its term.
fn led_by_1(voters: u64) -> Cluster {
    let mut cluster = Cluster::new(voters);
    cluster.elect(1);
    cluster.propose(1, b"first");
    cluster
}

#[test]
fn a_new_server_learns_then_votes_jointly_then_alone() {
    let mut cluster = led_by_1(3);
    cluster.start_joiner(10, 3);
    cluster.change(1, &[add(10, MemberRole::Voter)]).expect("a good change");
    cluster.pass(1_000);
    let (all, old) = (vec![1, 2, 3, 10], vec![1, 2, 3]);
    let steps = vec![(old.clone(), vec![], all.clone()), (all.clone(), old, all.clone()), (all.clone(), vec![], all)];
    assert_eq!(cluster.configurations(10), steps);
    assert_eq!(cluster.ends(1), [ChangeEnd::Done]);
    for id in [1, 2, 3, 10] {
        assert!(cluster.raft(id).is_configuration_committed());
    }
}

#[test]
fn a_learner_is_added_by_one_entry_and_counts_for_nothing() {
    let mut cluster = led_by_1(3);
    cluster.start_joiner(10, 3);
    cluster.change(1, &[add(10, MemberRole::Learner)]).expect("a good change");
    cluster.pass(300);
    assert_eq!(cluster.configurations(10), [(vec![1, 2, 3], vec![], vec![1, 2, 3, 10])]);
    cluster.isolate(2);
    cluster.isolate(3);
    let commit = cluster.raft(1).commit_index();
    cluster.propose(1, b"held by one voter and a learner");
    assert_eq!(cluster.raft(1).commit_index(), commit);
    cluster.pass(2_000);
    assert!(!cluster.raft(1).is_leader(), "an answer of a learner is no quorum");
}

#[test]
fn a_joint_change_needs_both_majorities() {
    let set = |id, role| MemberChange::SetRole { id: ServerId(id), role };
    let mut cluster = led_by_1(3);
    for id in [10, 11, 12] {
        cluster.start_joiner(id, 3);
        cluster.change(1, &[add(id, MemberRole::Learner)]).expect("a good change");
        cluster.pass(100);
    }
    let mut changes: Vec<_> = [10, 11, 12].iter().map(|&id| set(id, MemberRole::Voter)).collect();
    changes.extend([remove(2), remove(3)]);
    let joint = cluster.change_until_joint(1, &changes);
    cluster.isolate(2);
    cluster.isolate(3);
    cluster.pass(250);
    assert_eq!(cluster.terms(12).len() as Index, joint, "all of the new voters have it");
    assert!(cluster.raft(1).commit_index() < joint, "and of the old ones the leader alone");
    cluster.heal();
    cluster.pass(2_000);
    let leader = cluster.leader().expect("somebody leads");
    assert_eq!(cluster.voters(leader), [1, 10, 11, 12]);
}

#[test]
fn a_leader_that_is_removed_hands_over_once_the_change_is_committed() {
    let mut cluster = led_by_1(3);
    cluster.change(1, &[remove(1)]).expect("a good change");
    cluster.pass(100);
    assert_eq!(cluster.ends(1), [ChangeEnd::Done]);
    assert!(!cluster.raft(1).is_leader());
    let leader = cluster.leader().expect("handed over at once, without a timeout");
    assert_ne!(leader, 1);
    assert_eq!(cluster.voters(leader), [2, 3]);
    cluster.propose(leader, b"two are enough");
    assert_eq!(cluster.raft(leader).commit_index(), cluster.raft(leader).last().index);
    cluster.pass(3_000);
    assert_eq!(cluster.raft(1).role(), RoleName::Follower, "it campaigns no more");
}

#[test]
fn a_leader_on_its_way_out_does_not_count_itself() {
    let mut cluster = led_by_1(3);
    let joint = cluster.change_until_joint(1, &[remove(1)]);
    // Of the new voters, 2 and 3, only 2 hears of it: with 1 they are two of the old three, and one of the new two.
    cluster.isolate(3);
    cluster.pass(250);
    assert_eq!(cluster.terms(2).len() as Index, joint);
    assert!(cluster.raft(1).commit_index() < joint);
    cluster.heal();
    cluster.pass(1_500);
    let leader = cluster.leader().expect("somebody leads");
    assert_eq!(cluster.voters(leader), [2, 3]);
}

#[test]
fn whoever_was_removed_is_told_and_disturbs_nobody() {
    let mut cluster = led_by_1(3);
    cluster.isolate(3);
    cluster.change(1, &[remove(3)]).expect("a good change");
    cluster.pass(2_000);
    let term = cluster.raft(1).hard_state().term;
    cluster.heal();
    cluster.pass(2_000);
    assert!(cluster.raft(3).removed().is_some(), "it asked for votes, and was told");
    assert_eq!(cluster.raft(3).role(), RoleName::Follower);
    assert_eq!((cluster.leader(), cluster.raft(1).hard_state().term), (Some(1), term));
    assert_eq!(cluster.raft(1).removed(), None);
}

#[test]
fn a_server_that_its_own_log_removes_stands_until_that_is_committed() {
    let mut cluster = led_by_1(2);
    cluster.change_until_joint(1, &[remove(1)]);
    // Server 2 takes the joint entry; of the entry that removes server 1 it never hears.
    while cluster.raft(1).configuration().member(ServerId(1)).is_some() {
        cluster.carry_out(1);
        let Some((from, to, message)) = cluster.wire.pop_front() else { break };
        let now = cluster.now;
        cluster.raft(to).receive(now, ServerId(from), message);
        if to != 1 {
            cluster.carry_out(to);
        }
    }
    cluster.isolate(1);
    cluster.wire.clear();
    cluster.carry_out(1);
    assert!(cluster.terms(1).len() > cluster.terms(2).len(), "server 2 is the only voter, and lacks what says so");
    cluster.pass(1_000);
    assert_eq!(cluster.leader(), None);
    cluster.heal();
    cluster.pass(2_000);
    assert_eq!(cluster.leader(), Some(2));
    assert_eq!(cluster.voters(2), [2]);
    assert!(cluster.raft(2).is_configuration_committed());
}

#[test]
fn only_a_committed_configuration_says_that_somebody_was_removed() {
    for (commit, is_told) in [(1, false), (2, true)] {
        let mut raft = where_entry_2_removes_3(1, commit);
        let last = Position { term: 1, index: 2 };
        raft.receive(Time(5), ServerId(3), Message::PreVote { campaign_term: 2, last });
        let reply = Message::PreVoteReply { term: 1, campaign_term: 2, granted: true };
        let answer = if is_told { Message::Removed { index: 2 } } else { reply };
        assert_eq!(sent(&mut raft), [(3, answer)], "where entries through {commit} are committed");
    }
}

#[test]
fn being_removed_lapses_when_a_leader_appends() {
    let mut cluster = led_by_1(3);
    let now = cluster.now;
    cluster.raft(3).receive(now, ServerId(2), Message::Removed { index: 99 });
    assert_eq!(cluster.raft(3).removed(), Some(99));
    cluster.propose(1, b"not so");
    assert_eq!(cluster.raft(3).removed(), None);
    cluster.raft(3).receive(now, ServerId(2), Message::Removed { index: 1 });
    assert_eq!(cluster.raft(3).removed(), None, "a later configuration is known that names it");
}

#[test]
fn a_change_waits_until_the_leader_has_committed_in_its_term() {
    let mut cluster = led_by_1(3);
    cluster.isolate(1);
    let now = cluster.now;
    cluster.raft(1).follow(now, 7, None);
    cluster.raft(1).campaign(now);
    cluster.heal();
    cluster.raft(2).leader_heard_at = None;
    cluster.raft(3).leader_heard_at = None;
    // Elected, and cut off before its no-op is committed.
    while !cluster.raft(1).is_leader() {
        cluster.carry_out(1);
        cluster.carry_out(2);
        let Some((from, to, message)) = cluster.wire.pop_front() else { break };
        cluster.raft(to).receive(now, ServerId(from), message);
        cluster.carry_out(to);
    }
    cluster.isolate(1);
    cluster.wire.clear();
    assert!(cluster.raft(1).is_leader());
    assert_eq!(cluster.change(1, &[remove(3)]), Err(ChangeRefusal::NotReady));
    assert_eq!(cluster.change(2, &[remove(3)]), Err(ChangeRefusal::NotLeader));
    cluster.heal();
    cluster.pass(700);
    assert_eq!(cluster.leader(), Some(1));
    assert_eq!(cluster.change(1, &[remove(3)]), Ok(()));
}

#[test]
fn there_is_one_change_at_a_time() {
    let mut cluster = led_by_1(3);
    cluster.change(1, &[add(10, MemberRole::Voter)]).expect("a good change");
    cluster.pass(200);
    assert_eq!(
        cluster.change(1, &[remove(3)]),
        Err(ChangeRefusal::InProgress),
        "10 does not catch up: it is not there"
    );
    assert!(matches!(cluster.raft(1).learners()[..], [(ServerId(10), 0)]));
}

#[test]
fn a_learner_votes_once_it_has_what_was_committed_and_is_heard() {
    let mut cluster = led_by_1(3);
    cluster.start_joiner(10, 3);
    cluster.change(1, &[add(10, MemberRole::Learner)]).expect("a good change");
    cluster.pass(300);
    let last = cluster.propose(1, b"it has this");
    assert_eq!(cluster.raft(1).learners(), [(ServerId(10), last)]);

    // It answers heartbeats, and its disk holds no more.
    cluster.nodes.get_mut(&10).expect("a server").is_disk_stuck = true;
    cluster.propose(1, b"and not this");
    cluster.pass(300);
    let promote = [MemberChange::SetRole { id: ServerId(10), role: MemberRole::Voter }];
    cluster.change(1, &promote).expect("a good change");
    cluster.pass(1_000);
    assert_eq!((cluster.voters(1), cluster.raft(1).configuration().is_joint()), (vec![1, 2, 3], false));
    assert_eq!(cluster.raft(1).learners(), [(ServerId(10), last)]);

    // It has everything, and is silent.
    cluster.isolate(10);
    cluster.nodes.get_mut(&10).expect("a server").is_disk_stuck = false;
    let (now, timeout) = (cluster.now, Options::default().election_timeout);
    for (silence, is_joint) in [(timeout, false), (timeout - Duration::from_nanos(1), true)] {
        let raft = cluster.raft(1);
        let last = raft.last().index;
        let crate::core::Role::Leader(leader) = &mut raft.role else { panic!("it leads") };
        let peer = leader.peers.get_mut(&ServerId(10)).expect("a peer");
        peer.matched = last;
        peer.heard_at = Time(now.0 - silence.as_nanos() as u64);
        raft.advance_change(now);
        assert_eq!(raft.configuration().is_joint(), is_joint, "after {silence:?}");
    }
}

#[test]
fn whoever_stands_and_is_told_that_it_was_removed_stands_no_more() {
    let mut cluster = led_by_1(3);
    cluster.isolate(3);
    let now = cluster.now;
    cluster.raft(3).campaign(now);
    assert_eq!(cluster.raft(3).role(), RoleName::PreCandidate);
    cluster.raft(3).receive(now, ServerId(2), Message::Removed { index: 99 });
    assert_eq!((cluster.raft(3).role(), cluster.raft(3).removed()), (RoleName::Follower, Some(99)));
}

#[test]
fn no_change_begins_before_the_last_is_committed_or_while_leadership_is_handed_over() {
    let mut cluster = led_by_1(3);
    let set = |priority| [MemberChange::SetPriority { id: ServerId(2), priority }];
    assert_eq!(cluster.begin_change(1, &set(5), 1_000), Ok(()));
    assert_eq!(cluster.begin_change(1, &set(6), 1_000), Err(ChangeRefusal::InProgress), "not committed");
    cluster.settle();
    let now = cluster.now;
    cluster.isolate(3);
    cluster.raft(1).transfer(now, Some(ServerId(3)), Duration::from_secs(1)).expect("a voter");
    assert_eq!(cluster.change(1, &set(6)), Err(ChangeRefusal::InProgress), "leadership is being handed over");
    cluster.pass(1_500);
    assert_eq!(cluster.change(1, &set(6)), Ok(()));
}

#[test]
fn what_cannot_be_is_refused() {
    let mut cluster = led_by_1(3);
    let refused = |cluster: &mut Cluster, changes: &[MemberChange]| match cluster.change(1, changes) {
        Err(ChangeRefusal::Invalid(reason)) => reason,
        other => panic!("{changes:?}: {other:?}"),
    };
    assert!(refused(&mut cluster, &[add(3, MemberRole::Voter)]).contains("member already"));
    assert!(
        refused(&mut cluster, &[add(10, MemberRole::Voter), add(10, MemberRole::Learner)]).contains("member already")
    );
    assert!(refused(&mut cluster, &[add(9, MemberRole::Voter)]).contains("never used again"));
    assert!(refused(&mut cluster, &[remove(3), add(3, MemberRole::Voter)]).contains("never used again"));
    assert!(refused(&mut cluster, &[add(30, MemberRole::Voter)]).contains("not met"));
    assert!(refused(&mut cluster, &[remove(4)]).contains("not a member"));
    assert!(refused(&mut cluster, &[remove(1), remove(2), remove(3)]).contains("nobody"));
    assert!(refused(&mut cluster, &[]).contains("nothing would change"));
    assert_eq!(cluster.configurations(1), []);
}

#[test]
fn what_cannot_be_is_refused_before_anybody_is_met() {
    let mut cluster = led_by_1(3);
    let raft = &cluster.raft(1);
    assert_eq!(raft.check_change(&[add(10, MemberRole::Voter)]), Ok(()));
    for changes in [vec![add(3, MemberRole::Voter)], vec![remove(7)], vec![remove(1), remove(2), remove(3)]] {
        assert!(matches!(raft.check_change(&changes), Err(ChangeRefusal::Invalid(_))), "{changes:?}");
    }
    assert_eq!(cluster.raft(2).check_change(&[remove(3)]), Err(ChangeRefusal::NotLeader));
}

#[test]
fn an_id_is_never_used_again() {
    let mut cluster = led_by_1(3);
    cluster.start_joiner(10, 3);
    cluster.change(1, &[add(10, MemberRole::Learner)]).expect("a good change");
    cluster.pass(100);
    cluster.change(1, &[remove(10)]).expect("a good change");
    cluster.pass(100);
    let again = cluster.change(1, &[add(10, MemberRole::Learner)]);
    assert!(matches!(again, Err(ChangeRefusal::Invalid(reason)) if reason.contains("never used again")));
}

#[test]
fn a_change_that_does_not_come_about_is_given_up_in_the_groups_time() {
    let mut cluster = led_by_1(3);
    cluster.change_within(1, &[add(10, MemberRole::Voter), remove(3)], 1_000).expect("a good change");
    cluster.pass(500);
    assert_eq!(cluster.ends(1), []);
    cluster.pass(1_000);
    assert_eq!(cluster.ends(1), [ChangeEnd::GivenUp]);
    assert_eq!(cluster.configurations(1).last(), Some(&(vec![1, 2, 3], vec![], vec![1, 2, 3])));
    assert_eq!(cluster.change(1, &[remove(3)]), Ok(()), "and the next one may begin");
}

#[test]
fn the_next_leader_goes_on_with_a_change_and_keeps_its_deadline() {
    let mut cluster = led_by_1(3);
    cluster.change_within(1, &[add(10, MemberRole::Voter)], 2_000).expect("a good change");
    cluster.pass(200);
    cluster.isolate(1);
    cluster.elect(2);
    cluster.pass(500);
    assert!(cluster.raft(2).configuration().change.is_some());
    cluster.pass(3_000);
    assert_eq!(cluster.ends(2), [ChangeEnd::GivenUp]);

    let mut cluster = led_by_1(3);
    cluster.change(1, &[add(10, MemberRole::Voter)]).expect("a good change");
    cluster.pass(200);
    cluster.isolate(1);
    cluster.elect(2);
    cluster.start_joiner(10, 3);
    cluster.pass(1_000);
    assert_eq!(cluster.ends(2), [ChangeEnd::Done]);
    assert_eq!(cluster.voters(2), [1, 2, 3, 10]);
}

#[test]
fn a_change_is_cancelled_while_it_learns_and_never_once_it_is_joint() {
    let mut cluster = led_by_1(3);
    let now = cluster.now;
    assert_eq!(cluster.raft(1).cancel_change(now), Err(ChangeRefusal::NothingToCancel));
    cluster.change(1, &[add(10, MemberRole::Voter)]).expect("a good change");
    cluster.pass(100);
    let now = cluster.now;
    assert_eq!(cluster.raft(1).cancel_change(now), Ok(()));
    cluster.pass(100);
    assert_eq!(cluster.ends(1), [ChangeEnd::Cancelled]);
    assert_eq!(cluster.raft(1).configuration().member(ServerId(10)), None);

    cluster.change_until_joint(1, &[remove(3)]);
    let now = cluster.now;
    assert_eq!(cluster.raft(1).cancel_change(now), Err(ChangeRefusal::TooLate));
    cluster.pass(500);
    assert_eq!(cluster.ends(1), [ChangeEnd::Cancelled, ChangeEnd::Done]);
}

#[test]
fn a_joint_change_goes_on_after_its_deadline_and_under_another_leader() {
    let mut cluster = led_by_1(3);
    cluster.start_joiner(10, 3);
    cluster.change(1, &[add(10, MemberRole::Learner)]).expect("a good change");
    cluster.pass(300);
    let joint = cluster.change_until_joint(1, &[MemberChange::SetRole { id: ServerId(10), role: MemberRole::Voter }]);
    // Everybody takes the joint entry, and the leader hears of it from nobody.
    cluster.cut.extend([(2, 1), (3, 1), (10, 1)]);
    cluster.pass(20);
    assert_eq!(cluster.terms(10).len() as Index, joint);
    assert!(cluster.raft(1).commit_index() < joint);
    cluster.isolate(1);
    cluster.pass(70_000);
    let leader = cluster.leader().expect("the other three are a quorum of both");
    assert_ne!(leader, 1);
    assert_eq!(cluster.ends(leader), [ChangeEnd::Done]);
    assert_eq!(cluster.voters(leader), [1, 2, 3, 10]);
}

#[test]
fn a_configuration_is_in_force_from_when_it_is_appended_and_undone_with_its_entry() {
    let mut cluster = led_by_1(3);
    cluster.isolate(1);
    cluster.change(1, &[add(10, MemberRole::Learner)]).expect("a good change");
    assert!(cluster.raft(1).configuration().member(ServerId(10)).is_some(), "in force, though nobody has it");
    cluster.elect(2);
    cluster.propose(2, b"another history");
    cluster.heal();
    cluster.pass(400);
    assert_eq!(cluster.raft(1).configuration().member(ServerId(10)), None);
    assert_eq!(cluster.terms(1), cluster.terms(2));
}

#[test]
fn two_become_one_and_one_becomes_two() {
    let mut cluster = led_by_1(2);
    cluster.change(1, &[remove(2)]).expect("a good change");
    cluster.pass(200);
    assert_eq!(cluster.voters(1), [1]);
    cluster.isolate(2);
    cluster.propose(1, b"alone");
    assert_eq!(cluster.raft(1).commit_index(), cluster.raft(1).last().index);
    cluster.start_joiner(10, 2);
    cluster.change(1, &[add(10, MemberRole::Voter)]).expect("a good change");
    cluster.pass(300);
    assert_eq!(cluster.voters(10), [1, 10]);
    cluster.change(1, &[remove(1)]).expect("a good change");
    cluster.pass(300);
    assert_eq!(cluster.voters(10), [10]);
    assert!(cluster.raft(10).is_leader());
}

#[test]
fn a_voter_becomes_a_learner_and_a_learner_a_voter() {
    let mut cluster = led_by_1(3);
    let set = |id, role| MemberChange::SetRole { id: ServerId(id), role };
    cluster.change(1, &[set(3, MemberRole::Learner)]).expect("a good change");
    cluster.pass(200);
    assert_eq!(cluster.voters(3), [1, 2]);
    cluster.propose(1, b"all have it");
    assert_eq!(cluster.terms(3), cluster.terms(1));
    cluster.change(1, &[set(3, MemberRole::Voter), set(2, MemberRole::Learner)]).expect("a good change");
    cluster.pass(200);
    assert_eq!(cluster.voters(2), [1, 3]);
    cluster.isolate(2);
    cluster.propose(1, b"by 1 and 3");
    assert_eq!(cluster.raft(1).commit_index(), cluster.raft(1).last().index);
}

#[test]
fn an_address_changes_by_one_entry() {
    let mut cluster = led_by_1(3);
    let moved = MemberChange::SetAddress { id: ServerId(2), address: "elsewhere:1".into() };
    cluster.change(1, std::slice::from_ref(&moved)).expect("a good change");
    cluster.pass(50);
    assert_eq!(cluster.configurations(3).len(), 1);
    let address = cluster.raft(3).configuration().member(ServerId(2)).map(|member| member.address.clone());
    assert_eq!(address.as_deref(), Some("elsewhere:1"));
}
