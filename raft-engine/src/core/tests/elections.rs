//! §5.2, §5.4.1; pre-vote and stickiness (dissertation §9.6, §4.2.3).

use super::*;

fn vote(term: Term, index: Index, last_term: Term) -> Message {
    Message::Vote { term, last: Position { term: last_term, index }, is_transfer: false }
}

fn sent_votes(node: &mut Node) -> Vec<(ServerId, bool)> {
    let effects = node.raft.take_effects();
    let votes = effects.iter().filter_map(|effect| match effect {
        Effect::Send { to, message: Message::VoteReply { granted, .. } } => Some((*to, *granted)),
        _ => None,
    });
    let votes = votes.collect();
    for effect in effects {
        if let Effect::Persist { mark, record } = effect {
            node.disk.push_back((mark, record));
        }
    }
    votes
}

#[test]
fn a_leader_is_elected_and_there_is_one_a_term() {
    for voters in 1..=5 {
        let mut cluster = Cluster::new(voters);
        cluster.pass(2000);
        let leader = cluster.leader().expect("a leader");
        for node in cluster.nodes.values() {
            assert_eq!(node.raft.leader(), Some(ServerId(leader)));
        }
    }
}

#[test]
fn a_server_without_a_vote_that_hears_nobody_follows_nobody() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let learner = cluster.raft(3);
    let mut configuration = (**learner.configuration()).clone();
    configuration.members[2].role = MemberRole::Learner;
    learner.configurations = vec![(1, configuration.into())];
    assert_eq!(learner.leader(), Some(ServerId(1)));
    cluster.isolate(3);
    cluster.pass(1_000);
    assert_eq!((cluster.raft(3).leader(), cluster.raft(3).role()), (None, RoleName::Follower));
    cluster.heal();
    cluster.pass(1_000);
    assert_eq!(cluster.raft(3).leader(), Some(ServerId(1)));
}

#[test]
fn a_server_votes_once_a_term() {
    let mut cluster = Cluster::new(3);
    let node = cluster.nodes.get_mut(&1).expect("a server");
    node.raft.receive(Time(0), ServerId(2), vote(5, 1, 0));
    node.raft.receive(Time(0), ServerId(3), vote(5, 1, 0));
    node.raft.receive(Time(0), ServerId(2), vote(5, 1, 0));
    let mut votes = sent_votes(node);
    while node.complete_write(Time(0)) {
        votes.extend(sent_votes(node));
    }
    assert_eq!(votes, vec![(ServerId(2), true), (ServerId(3), false), (ServerId(2), true)]);
    assert_eq!(node.hard_state, HardState { term: 5, vote: Some(ServerId(2)) });
}

#[test]
fn a_vote_leaves_only_when_it_is_durable() {
    let mut cluster = Cluster::new(3);
    let node = cluster.nodes.get_mut(&1).expect("a server");
    node.raft.receive(Time(0), ServerId(2), vote(5, 1, 0));
    assert!(sent_votes(node).is_empty(), "the vote is not on disk yet");
    assert!(node.complete_write(Time(0)));
    assert_eq!(sent_votes(node), vec![(ServerId(2), true)]);
    assert_eq!(node.hard_state.vote, Some(ServerId(2)), "term and vote are one record");
}

#[test]
fn a_candidate_with_an_older_log_gets_no_vote() {
    for (index, term, granted) in [(3, 2, true), (9, 1, false), (2, 2, false), (2, 3, true), (4, 2, true)] {
        let mut cluster = Cluster::with_logs(&[(1, 2, &[1, 2]), (2, 2, &[]), (3, 2, &[])]);
        let node = cluster.nodes.get_mut(&1).expect("a server");
        node.raft.receive(Time(0), ServerId(2), vote(7, index, term));
        let mut votes = sent_votes(node);
        while node.complete_write(Time(0)) {
            votes.extend(sent_votes(node));
        }
        assert_eq!(votes, vec![(ServerId(2), granted)], "last entry {index} of term {term}");
    }
}

#[test]
fn a_vote_survives_a_restart() {
    let mut restored = restored(3, 4, &[]);
    restored.hard_state.vote = Some(ServerId(2));
    let mut raft = Raft::new(ServerId(1), Options::default(), restored, 1, Time(0));
    raft.receive(Time(0), ServerId(3), vote(4, 1, 0));
    let refused = Effect::Send { to: ServerId(3), message: Message::VoteReply { term: 4, granted: false } };
    assert_eq!(raft.take_effects(), vec![refused]);
}

#[test]
fn a_pre_vote_changes_nothing_at_anyone() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let term = cluster.raft(1).hard_state().term;
    cluster.isolate(3);
    cluster.pass(3000);
    assert_eq!(cluster.raft(3).hard_state().term, term, "a server that nobody hears starts no term");
    cluster.heal();
    cluster.pass(300);
    assert_eq!(cluster.leader(), Some(1), "and deposes nobody when it comes back");
    assert_eq!(cluster.raft(1).hard_state().term, term);
}

#[test]
fn of_two_servers_that_stand_at_the_same_moment_one_is_elected() {
    for (shorter, first) in [(&[1, 2][..], 3), (&[1][..], 2)] {
        let mut cluster = Cluster::with_logs(&[(1, 2, &[1, 2]), (2, 2, &[1, 2]), (3, 2, shorter)]);
        cluster.isolate(1);
        for id in [2, 3] {
            cluster.raft(id).campaign(Time(0));
        }
        cluster.settle();
        assert_eq!(cluster.leader(), Some(first));
        assert_eq!(cluster.raft(first).hard_state().term, 3, "no vote was split");
    }
}

#[test]
fn a_candidate_does_not_depose_a_leader_that_is_alive() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let term = cluster.raft(1).hard_state().term;
    let now = cluster.now;
    for id in [1, 2] {
        cluster.raft(id).receive(now, ServerId(3), vote(term + 5, 99, term));
    }
    cluster.settle();
    assert_eq!(cluster.leader(), Some(1));
    assert_eq!(cluster.raft(2).hard_state().term, term);
}

#[test]
fn a_server_of_a_higher_term_is_not_stuck() {
    let mut cluster = Cluster::with_logs(&[(1, 1, &[1]), (2, 1, &[1]), (3, 9, &[1])]);
    cluster.isolate(3);
    cluster.elect(1);
    cluster.heal();
    cluster.pass(2000);
    let leader = cluster.leader().expect("a leader");
    assert!(cluster.raft(leader).hard_state().term > 9);
    assert_eq!(cluster.raft(3).leader(), Some(ServerId(leader)));
}

#[test]
fn a_leader_without_a_quorum_steps_down() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(1);
    cluster.pass(400);
    assert!(!cluster.raft(1).is_leader(), "dissertation §6.2");
    cluster.pass(1000);
    assert!(cluster.leader().is_some_and(|leader| leader != 1));
}

#[test]
fn a_leader_whose_disk_is_stuck_steps_down() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.nodes.get_mut(&1).expect("a server").is_disk_stuck = true;
    cluster.propose(1, b"x");
    cluster.pass(990);
    assert!(cluster.raft(1).is_leader(), "heartbeats go on while the disk is slow");
    cluster.pass(50);
    assert!(!cluster.raft(1).is_leader());
    let says_so = |effect: &Effect| matches!(effect, Effect::DiskStalled { waited } if waited.as_millis() >= 1_000);
    assert!(cluster.nodes[&1].other.iter().any(says_so));
}

#[test]
fn the_own_vote_counts_once_it_is_durable() {
    let mut cluster = Cluster::new(1);
    cluster.nodes.get_mut(&1).expect("a server").is_disk_stuck = true;
    cluster.pass(1000);
    assert_eq!(cluster.raft(1).role(), RoleName::Candidate);
    cluster.nodes.get_mut(&1).expect("a server").is_disk_stuck = false;
    cluster.settle();
    assert_eq!(cluster.raft(1).role(), RoleName::Leader);
}

#[test]
fn the_first_wait_is_shorter_and_a_server_alone_waits_not_at_all() {
    let timeout = Options::default().election_timeout;
    for seed in 0..50 {
        let raft = Raft::new(ServerId(1), Options::default(), restored(3, 0, &[]), seed, Time(0));
        assert!(
            raft.deadline() >= Time(0) + timeout / 4 && raft.deadline() < Time(0) + timeout * 3 / 4,
            "{:?}",
            raft.deadline()
        );
    }
    let mut alone = Cluster::new(1);
    alone.pass(5);
    assert_eq!(alone.leader(), Some(1));
}

#[test]
fn whoever_comes_up_early_deposes_nobody() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let term = cluster.raft(1).hard_state().term;
    // Server 3 starts again, and asks before it has heard from the leader.
    let now = cluster.now;
    *cluster.raft(3) = Raft::new(ServerId(3), Options::default(), restored(3, term, &[term]), 7, now);
    cluster.raft(3).campaign(now);
    cluster.settle();
    assert_eq!(cluster.leader(), Some(1));
    assert_eq!(cluster.raft(2).hard_state().term, term);
}

#[test]
fn a_server_that_a_committed_configuration_removed_stands_for_nothing() {
    for (commit, stands) in [(1, true), (2, false)] {
        let mut raft = where_entry_2_removes_3(3, commit);
        let now = raft.deadline();
        raft.tick(now);
        let role = if stands { RoleName::PreCandidate } else { RoleName::Follower };
        assert_eq!(raft.role(), role, "where entries through {commit} are committed");
        assert_eq!(!sent(&mut raft).is_empty(), stands);
    }
}

#[test]
fn a_pre_vote_is_given_for_a_later_term_alone() {
    for (campaign_term, granted) in [(3, false), (4, false), (5, true)] {
        let mut raft = Raft::new(ServerId(1), Options::default(), restored(3, 4, &[]), 7, Time(0));
        raft.receive(Time(5), ServerId(3), Message::PreVote { campaign_term, last: Position { term: 4, index: 9 } });
        assert_eq!(sent(&mut raft), [(3, Message::PreVoteReply { term: 4, campaign_term, granted })]);
    }
}

#[test]
fn a_leader_counts_as_alive_for_less_than_an_election_timeout() {
    let timeout = Options::default().election_timeout;
    for (silence, granted) in [(timeout - Duration::from_nanos(1), false), (timeout, true)] {
        let mut raft = Raft::new(ServerId(1), Options::default(), restored(3, 1, &[]), 7, Time(0));
        raft.receive(Time(5), ServerId(2), Message::Heartbeat { term: 1, round: 1, commit: 1 });
        raft.take_effects();
        let ask = Message::PreVote { campaign_term: 2, last: Position { term: 0, index: 1 } };
        raft.receive(Time(5) + silence, ServerId(3), ask);
        let reply = Message::PreVoteReply { term: 1, campaign_term: 2, granted };
        assert_eq!(sent(&mut raft), [(3, reply)], "after {silence:?}");
    }
}

#[test]
fn a_new_term_forgets_the_leader_of_the_one_before_and_what_was_to_be_said_to_it() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let now = cluster.now;
    let node = cluster.nodes.get_mut(&2).expect("a server");
    node.is_disk_stuck = true;
    cluster.propose(1, b"not acknowledged by 2");
    assert!(cluster.nodes[&2].raft.is_leader_alive(now));
    // Server 3 was told to stand, and dies.
    let last = Position { term: 1, index: 9 };
    let stands = Message::Vote { term: 2, last, is_transfer: true };
    let raft = cluster.raft(2);
    raft.receive(now, ServerId(3), stands);
    assert!(!raft.is_leader_alive(now), "nobody was heard from in term 2");
    cluster.isolate(3);
    cluster.carry_out(2);
    cluster.nodes.get_mut(&2).expect("a server").is_disk_stuck = false;
    cluster.carry_out(2);
    let said: Vec<_> = cluster.wire.drain(..).filter(|(from, ..)| *from == 2).map(|(_, _, message)| message).collect();
    assert_eq!(said, [Message::VoteReply { term: 2, granted: true }], "the leader of term 1 is told nothing more");
}

fn hears_2_where_1_leads(id: u64) {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let now = cluster.now;
    cluster.raft(id).receive(now, ServerId(2), Message::Heartbeat { term: 1, round: 1, commit: 1 });
}

#[test]
#[should_panic(expected = "two leaders in term 1: 1 and 2")]
fn a_leader_that_hears_another_of_its_term_stops() {
    hears_2_where_1_leads(1);
}

#[test]
#[should_panic(expected = "two leaders in term 1: 1 and 2")]
fn a_follower_that_hears_another_leader_of_its_term_stops() {
    hears_2_where_1_leads(3);
}

#[test]
fn a_new_connection_is_asked_what_it_has_not_granted_yet() {
    let mut raft = Raft::new(ServerId(1), Options::default(), restored(5, 0, &[]), 7, Time(0));
    let now = raft.deadline();
    raft.tick(now);
    sent(&mut raft);
    raft.receive(now, ServerId(2), Message::PreVoteReply { term: 0, campaign_term: 1, granted: true });
    for (peer, is_asked) in [(2, false), (3, true)] {
        raft.peer_reconnected(now, ServerId(peer));
        let asked = sent(&mut raft);
        assert!(matches!(asked[..], [(to, Message::PreVote { .. })] if to == peer) == is_asked, "{asked:?}");
    }
    raft.receive(now, ServerId(3), Message::PreVoteReply { term: 0, campaign_term: 1, granted: true });
    assert_eq!(raft.role(), RoleName::Candidate);
    let marks: Vec<_> = (raft.take_effects().into_iter())
        .filter_map(|effect| if let Effect::Persist { mark, .. } = effect { Some(mark) } else { None })
        .collect();
    raft.persisted(now, *marks.last().expect("its own vote"));
    sent(&mut raft);
    raft.receive(now, ServerId(2), Message::VoteReply { term: 1, granted: true });
    for (peer, is_asked) in [(2, false), (3, true)] {
        raft.peer_reconnected(now, ServerId(peer));
        let asked = sent(&mut raft);
        assert!(matches!(asked[..], [(to, Message::Vote { .. })] if to == peer) == is_asked, "{asked:?}");
    }
}

#[test]
fn a_candidate_asks_again_on_a_new_connection() {
    let mut cluster = Cluster::new(3);
    cluster.isolate(1);
    let now = cluster.now;
    cluster.raft(1).campaign(now);
    cluster.settle();
    assert_eq!(cluster.raft(1).role(), RoleName::PreCandidate);
    cluster.heal();
    cluster.raft(1).peer_reconnected(now, ServerId(2));
    cluster.settle();
    assert_eq!(cluster.leader(), Some(1), "it did not wait for another election timeout");
}

#[test]
fn followers_that_know_their_leader_to_be_dead_elect_another_at_once() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1, b"before");
    cluster.isolate(1);
    let now = cluster.now;
    for id in [2, 3] {
        assert!(cluster.raft(id).suspect(now, ServerId(1), Duration::from_millis(10)));
        assert_eq!(cluster.raft(id).leader(), None);
    }
    // Timers go off at 5 ms and 10 ms here; the one that comes first wins, the other is bound to nobody.
    cluster.pass(15);
    assert!(matches!(cluster.leaders.values().next_back(), Some(2 | 3)), "{:?}", cluster.leaders);
}

#[test]
fn one_server_alone_that_takes_the_leader_for_dead_disturbs_nobody() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1, b"before");
    cluster.pass(100);
    let (term, now) = (cluster.raft(1).hard_state().term, cluster.now);
    // The leader's link to server 3 is cut, and only that.
    cluster.cut.extend([(1, 3), (3, 1)]);
    assert!(cluster.raft(3).suspect(now, ServerId(1), Duration::from_millis(10)));
    cluster.pass(200);
    assert_eq!(cluster.leader(), Some(1));
    assert_eq!([1, 2, 3].map(|id| cluster.raft(id).hard_state().term), [term; 3]);
}

#[test]
fn a_leader_is_suspected_once_a_term_and_nobody_else_ever() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.pass(100);
    let now = cluster.now;
    let spread = Duration::from_millis(10);
    assert!(!cluster.raft(3).suspect(now, ServerId(2), spread), "it does not lead");
    assert!(!cluster.raft(1).suspect(now, ServerId(2), spread), "a leader has none");
    assert!(cluster.raft(3).suspect(now, ServerId(1), spread));
    // It hears from the leader after all, and is bound to it again.
    cluster.pass(100);
    assert_eq!(cluster.raft(3).leader(), Some(ServerId(1)));
    let now = cluster.now;
    assert!(!cluster.raft(3).suspect(now, ServerId(1), spread));
    let term = cluster.raft(1).hard_state().term;
    cluster.raft(3).receive(
        now,
        ServerId(2),
        Message::PreVote { campaign_term: term + 1, last: Position { term: 9, index: 99 } },
    );
    let refused = cluster
        .raft(3)
        .take_effects()
        .into_iter()
        .any(|effect| matches!(effect, Effect::Send { message: Message::PreVoteReply { granted: false, .. }, .. }));
    assert!(refused, "stickiness holds again");
}
