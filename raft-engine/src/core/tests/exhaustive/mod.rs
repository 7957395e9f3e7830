//! The real core, not a model of it, in every state that three servers can come to within small bounds.
//!
//! A *world* is three servers with logs to begin with, and bounds. From each state everything is tried that can happen
//! next: any message in flight comes (in any order, perhaps twice), any of those just sent is lost, a disk completes its
//! next record, a timer runs out, the host proposes or reads, a connection is replaced, a process dies and starts again
//! from what its disk holds. Every state is held against the invariants. What breaks one is told by a shortest way to it.
//!
//! `RAFT_EXHAUSTIVE` says how many states of each world are visited: a number, or `all` (`make exhaustive`). Without it a
//! few, so that the other tests need not wait. docs/exhaustive.md has the figures, and says what they prove.

mod canonical;
mod invariants;
mod search;
mod server;
mod state;

use super::super::*;
use search::{Findings, Search};
use server::Server;
use state::Bounds;

/// States of a world that are visited when nobody asks for more.
const FEW: usize = 10_000;

/// The bounds of every world, but for what makes it another one.
const SMALL: Bounds = Bounds {
    term: 2,
    index: 3,
    in_flight: 2,
    duplicates: 0,
    held: 2,
    waiting: 2,
    crashes: 0,
    reads: 0,
    reconnects: 0,
    timeouts: 0,
    hand_overs: 0,
    proposes: false,
    heartbeats: false,
};

/// Three servers in a term, by the terms of their entries behind entry 1. A request carries all entries that there are.
fn servers(term: Term, logs: [&[Term]; 3]) -> [Server; 3] {
    [1, 2, 3].map(|id| Server::new(id, term, logs[id as usize - 1], usize::MAX))
}

/// Visits a world that begins with nothing but entry 1, or as `begin` says.
fn explore(name: &str, bounds: Bounds, begin: [Server; 3]) {
    let asked = std::env::var("RAFT_EXHAUSTIVE").ok();
    let most = match asked.as_deref() {
        None => FEW,
        Some("all") => usize::MAX,
        Some(number) => number.parse().expect("RAFT_EXHAUSTIVE is `all` or how many states of each world to visit"),
    };
    let Findings { states, depth, is_complete, broken } = Search::new(bounds, begin).run(name, most);
    if let Some(broken) = broken {
        panic!("{name}, after {states} states: {broken}");
    }
    println!("{name}: {} {states} states, {depth} steps deep", if is_complete { "all" } else { "the first" });
    assert!(is_complete || states >= most, "a search ends for one of two reasons");
}

fn formed() -> [Server; 3] {
    servers(0, [&[], &[], &[]])
}

#[test]
fn elections() {
    explore("elections", Bounds { in_flight: 3, ..SMALL }, formed());
}

#[test]
fn elections_with_a_crash() {
    explore("elections with a crash", Bounds { crashes: 1, ..SMALL }, formed());
}

#[test]
fn elections_with_a_message_that_comes_twice() {
    explore("elections with a message that comes twice", Bounds { duplicates: 1, ..SMALL }, formed());
}

#[test]
fn commands_and_heartbeats() {
    explore("commands and heartbeats", Bounds { proposes: true, heartbeats: true, ..SMALL }, formed());
}

#[test]
fn commands_in_a_pipeline() {
    let bounds = Bounds { term: 1, index: 4, in_flight: 3, waiting: 3, proposes: true, ..SMALL };
    explore("commands in a pipeline", bounds, formed());
}

#[test]
fn lost_messages_made_good() {
    let bounds = Bounds { term: 1, timeouts: 1, reconnects: 1, proposes: true, ..SMALL };
    explore("lost messages made good", bounds, formed());
}

#[test]
fn reads_across_two_terms() {
    explore("reads across two terms", Bounds { reads: 1, ..SMALL }, formed());
}

#[test]
fn leadership_handed_over() {
    explore("leadership handed over", Bounds { hand_overs: 1, ..SMALL }, formed());
}

/// Figure 8 of the paper, from its moment (b) on: an entry of term 1 may come to be on a majority of disks in term 3, and
/// must not be committed by that. Each request carries one entry, so that it can be there alone.
#[test]
fn figure_8() {
    let logs: [&[Term]; 3] = [&[1], &[], &[2]];
    let servers = [1, 2, 3].map(|id| Server::new(id, 2, logs[id as usize - 1], 1));
    explore("figure 8", Bounds { term: 4, index: 4, ..SMALL }, servers);
}

/// What two servers hold of term 1 conflicts with what the third holds of term 2, and either may go.
#[test]
fn conflicting_tails_and_a_crash() {
    let bounds = Bounds { term: 3, index: 4, held: 3, waiting: 4, crashes: 1, heartbeats: true, ..SMALL };
    explore("conflicting tails and a crash", bounds, servers(2, [&[1, 1], &[1], &[2]]));
}

#[test]
fn what_breaks_an_invariant_is_told_with_the_way_to_it() {
    // Both hold entry 3 of term 2, and differ at entry 2: no Raft does that, so it is found at the first step.
    let found = Search::new(Bounds { term: 3, ..SMALL }, servers(2, [&[1, 2], &[2, 2], &[]])).run("nonsense", FEW);
    let broken = found.broken.expect("log matching does not hold");
    assert!(broken.starts_with("log matching: servers 1 and 2 hold the same entry 3"), "{broken}");
    assert!(broken.contains("\n   1. "), "{broken}");
}

#[test]
fn servers_that_change_places_are_the_same_state() {
    let states = |logs: [&[Term]; 3]| {
        let bounds = Bounds { term: 3, index: 2, in_flight: 1, ..SMALL };
        let found = Search::new(bounds, servers(2, logs)).run("mirrored", usize::MAX);
        (found.states, found.depth)
    };
    let known = [states([&[1], &[], &[2]]), states([&[2], &[1], &[]]), states([&[], &[2], &[1]])];
    assert!(known[0].0 > 100 && known == [known[0]; 3], "{known:?}");
}
