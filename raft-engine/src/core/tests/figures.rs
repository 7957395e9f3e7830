//! The figures of the paper, replayed.

use super::*;

/// Figure 7: the leader of term 8 has entries 1 to 10 of terms 1 1 1 4 4 5 5 6 6 6. Here entry 1 of the figure is entry 2:
/// the group's entry 1 comes before.
const LEADER: &[Term] = &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6];

fn a_follower_of_figure_7_becomes_equal(log: &[Term]) {
    let mut cluster = Cluster::with_logs(&[(1, 7, LEADER), (2, 7, log), (3, 7, LEADER)]);
    cluster.elect(1);
    cluster.pass(500);
    let mut expected = vec![0];
    expected.extend(LEADER);
    expected.push(cluster.raft(1).hard_state().term);
    for id in [1, 2, 3] {
        assert_eq!(cluster.terms(id), expected, "server {id}");
        assert_eq!(cluster.raft(id).commit_index(), expected.len() as u64);
        assert_eq!(cluster.nodes[&id].applied.len(), expected.len());
    }
    assert_eq!(cluster.nodes[&1].log, cluster.nodes[&2].log, "equal to the byte (Log Matching)");
}

#[test]
fn figure_7_a_an_entry_is_missing() {
    a_follower_of_figure_7_becomes_equal(&[1, 1, 1, 4, 4, 5, 5, 6, 6]);
}

#[test]
fn figure_7_b_many_entries_are_missing() {
    a_follower_of_figure_7_becomes_equal(&[1, 1, 1, 4]);
}

#[test]
fn figure_7_c_an_entry_of_the_last_term_is_extra() {
    a_follower_of_figure_7_becomes_equal(&[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6]);
}

#[test]
fn figure_7_d_entries_of_a_later_term_are_extra() {
    a_follower_of_figure_7_becomes_equal(&[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7]);
}

#[test]
fn figure_7_e_entries_are_extra_and_missing() {
    a_follower_of_figure_7_becomes_equal(&[1, 1, 1, 4, 4, 4, 4]);
}

#[test]
fn figure_7_f_three_terms_are_extra() {
    a_follower_of_figure_7_becomes_equal(&[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3]);
}

/// Figure 8 (c) and (d): a leader that replicates an entry of an earlier term to a majority may not commit it by counting,
/// because a server with a later last term can still overwrite it.
#[test]
fn figure_8_an_entry_of_an_earlier_term_does_not_commit_by_counting() {
    // S1 led term 2 and wrote entry 2 to itself and S2; S5 led term 3 and wrote its own entry 2 alone.
    let mut cluster = Cluster::with_logs(&[(1, 3, &[2]), (2, 3, &[2]), (3, 3, &[]), (4, 3, &[]), (5, 3, &[3])]);
    // (c): S1 leads term 4, and reaches S2 and S3, but nobody gets its own entry: it is held back.
    cluster.isolate(5);
    cluster.isolate(4);
    let now = cluster.now;
    cluster.raft(1).campaign(now);
    // Let votes flow, and stop every entry of term 4.
    for id in 1..=3 {
        cluster.carry_out(id);
    }
    while let Some((from, to, message)) = cluster.wire.pop_front() {
        if cluster.cut.contains(&(from, to)) {
            continue;
        }
        let message = match message {
            Message::Append { term, number, previous, commit, mut entries } => {
                entries.retain(|entry| entry.term < 4);
                Message::Append { term, number, previous, commit, entries }
            }
            other => other,
        };
        let now = cluster.now;
        cluster.raft(to).receive(now, ServerId(from), message);
        cluster.carry_out(to);
        if cluster.terms(3) == [0, 2] && cluster.raft(1).is_leader() {
            break;
        }
    }
    assert_eq!(cluster.leader(), Some(1));
    assert_eq!(cluster.terms(3), [0, 2], "entry 2 of term 2 is on S1, S2 and S3: a majority");
    // Every acknowledgement of it arrives.
    let acknowledgements: Vec<_> = cluster.wire.drain(..).filter(|(_, to, _)| *to == 1).collect();
    for (from, _, message) in acknowledgements {
        cluster.raft(1).receive(now, ServerId(from), message);
    }
    assert_eq!(cluster.raft(1).commit_index(), 1, "and yet it is not committed (§5.4.2)");
    // (d): S5 wins with its later last term, and overwrites it everywhere.
    cluster.heal();
    cluster.isolate(1);
    cluster.wire.clear();
    cluster.elect(5);
    cluster.heal();
    cluster.pass(500);
    for id in 1..=5 {
        assert_eq!(cluster.terms(id)[1], 3, "server {id}");
    }
}

/// Figure 8 (e): once an entry of the leader's own term is on a majority, everything before it is committed with it.
#[test]
fn figure_8_an_entry_of_the_own_term_commits_all_before_it() {
    let mut cluster = Cluster::with_logs(&[(1, 3, &[2]), (2, 3, &[2]), (3, 3, &[]), (4, 3, &[]), (5, 3, &[3])]);
    cluster.isolate(5);
    cluster.isolate(4);
    cluster.elect(1);
    let last = cluster.raft(1).last().index;
    assert_eq!(cluster.raft(1).commit_index(), last);
    cluster.heal();
    let now = cluster.now;
    cluster.raft(5).campaign(now);
    cluster.settle();
    assert_ne!(cluster.leader(), Some(5), "S5 cannot win any more (Leader Completeness)");
}
