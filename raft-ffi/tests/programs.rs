//! Programs in C, each a story told to the library through its header.

mod support;

#[test]
fn misuse_gets_an_error_and_nothing_else() {
    support::run("misuse");
}

#[test]
fn one_server_answers_every_call_and_comes_back() {
    support::run("single");
}

#[test]
fn three_servers_lose_a_leader_and_nothing_else() {
    support::run("three");
}

#[test]
fn members_come_and_go_and_leadership_is_handed_over() {
    support::run("members");
}

#[test]
fn a_host_dispatches_and_polls_by_itself() {
    support::run("host");
}

#[test]
fn what_is_proposed_again_in_a_session_is_applied_once() {
    support::run("sessions");
}

#[test]
fn replicas_are_compared_and_the_odd_one_stops() {
    support::run("digests");
}

#[test]
fn a_forked_child_is_refused() {
    support::run("fork");
}

#[test]
fn every_request_ends_once_while_the_server_goes() {
    support::run("race");
}

#[test]
fn a_group_that_lost_its_quorum_is_recovered_from_one_directory() {
    support::run("directory");
}
