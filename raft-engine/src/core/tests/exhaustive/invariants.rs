//! What must hold in every state, of the servers taken together (docs/architecture.md names them all).

use super::state::{Committed, Facts, Known, State};

/// Takes what a step made known into the state's memory of the past, and says which invariant it breaks.
pub(super) fn remember(known: &Known, state: &mut State, stepped: usize) -> Result<(), String> {
    let facts = &known.servers[state.servers[stepped] as usize].facts;
    let id = stepped as u8 + 1;
    if facts.leads {
        let leader = &mut state.leaders[usize::from(facts.term)];
        if *leader != 0 && *leader != id {
            return Err(format!("one leader a term: {leader} and {id} led in term {}", facts.term));
        }
        *leader = id;
    }
    for index in 2..=usize::from(facts.commit) {
        let term = facts.log[index];
        if index <= usize::from(state.committed_through) {
            let committed = state.committed[index - 1].term;
            if committed != term {
                return Err(format!(
                    "state machine safety: entry {index} was committed in term {committed}, and server {id} holds that \
                     of term {term} to be committed"
                ));
            }
        } else {
            state.committed[index - 1] = Committed { term, by: facts.term };
            state.committed_through = index as u8;
        }
    }
    Ok(())
}

/// Which invariant a state breaks, in which server `stepped` has just changed.
pub(super) fn check(known: &Known, state: &State, stepped: usize) -> Result<(), String> {
    let facts = state.servers.map(|server| &known.servers[server as usize].facts);
    for (other, theirs) in facts.iter().enumerate().filter(|&(other, _)| other != stepped) {
        check_log_matching(stepped, facts[stepped], other, theirs)?;
    }
    for (index, entry) in state.committed() {
        let holds = |facts: &&&Facts| usize::from(facts.disk_last) >= index && facts.disk[index] == entry.term;
        let holders = facts.iter().filter(holds).count();
        if holders < 2 {
            return Err(format!(
                "durability: entry {index} of term {} is committed, and on {holders} disks of three",
                entry.term
            ));
        }
        for (at, facts) in facts.iter().enumerate().filter(|(_, facts)| facts.leads && facts.term >= entry.by) {
            if usize::from(facts.last) < index || facts.log[index] != entry.term {
                return Err(format!(
                    "leader completeness: server {} leads term {} without entry {index} of term {}, which was committed \
                     in term {}",
                    at + 1,
                    facts.term,
                    entry.term,
                    entry.by
                ));
            }
        }
    }
    Ok(())
}

/// Two logs that hold the same entry hold the same before it (§5.3).
fn check_log_matching(one: usize, log: &Facts, other: usize, theirs: &Facts) -> Result<(), String> {
    let both = usize::from(log.last.min(theirs.last));
    let meeting = (1..=both).rev().find(|&index| log.log[index] == theirs.log[index]).unwrap_or(0);
    let differing = (1..meeting).find(|&index| log.log[index] != theirs.log[index]);
    match differing {
        None => Ok(()),
        Some(index) => Err(format!(
            "log matching: servers {} and {} hold the same entry {meeting}, and differ at entry {index}",
            one + 1,
            other + 1
        )),
    }
}
