//! Comparing replicas: an operator who asks for it at any time, a state that is corrupted, and what must come of it.
//!
//! Healthy replicas never differ, and a digest is of the state at exactly its entry. Where a state was corrupted, what
//! equal logs make of states is judged no more for that replica, nor for whoever restores a snapshot of it; instead, a
//! comparison after all faults must find it, and whoever is stopped must be one whose state was not the majority's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::history::{Ended, Request};
use super::super::host::Task;
use super::super::invariants::{Invariants, Violation};
use super::super::trace::Kind;
use super::{Checked, Phase, What, World, group_id, server_at};
use crate::driver::{Event, Ticket, digest_check};
use crate::types::{DigestAnswer, DigestCheck, DigestVerdict, Divergence, Entry, HostDigest, Index, StateDigest};

/// How long the last comparison of a run waits for the silent.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// The last comparison of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Last {
    #[default]
    ToAsk,
    /// Under this tag, of this process.
    Asked { tag: u64, server: usize, epoch: u32 },
    /// So it ended, and everybody who runs has answered.
    Done(DigestVerdict),
}

/// What is known of one group's states beside the servers.
pub(super) struct Comparing {
    /// A state was corrupted.
    is_corrupted: bool,
    /// By server: its state is known to be another than what the log makes.
    wrong: Vec<bool>,
    /// The same of what hosts with state of their own kept.
    saved_wrong: Vec<bool>,
    /// All that hosts ever said their states come down to, by entry and server.
    said: BTreeMap<(Index, usize), BTreeSet<StateDigest>>,
    /// Who was stopped, ever.
    stopped: BTreeSet<usize>,
    last: Last,
}

impl Comparing {
    pub(super) fn new(servers: usize) -> Self {
        Self {
            is_corrupted: false,
            wrong: vec![false; servers],
            saved_wrong: vec![false; servers],
            said: BTreeMap::new(),
            stopped: BTreeSet::new(),
            last: Last::ToAsk,
        }
    }

    /// A host starts, with what it kept or with nothing.
    pub(super) fn started(&mut self, server: usize, has_state: bool) {
        self.wrong[server] = has_state && self.saved_wrong[server];
    }

    /// A host with state of its own keeps it.
    pub(super) fn saved(&mut self, server: usize) {
        self.saved_wrong[server] = self.wrong[server];
    }

    pub(super) fn wiped(&mut self, server: usize) {
        (self.wrong[server], self.saved_wrong[server]) = (false, false);
    }

    pub(super) fn is_wrong(&self, server: usize) -> bool {
        self.wrong[server]
    }

    pub(super) fn set_wrong(&mut self, server: usize, is_wrong: bool) {
        self.wrong[server] = is_wrong;
    }

    /// A state has reached an index, an entry at a time or by a snapshot.
    pub(super) fn judge_state(
        &mut self,
        invariants: &mut Invariants,
        server: usize,
        index: Index,
        digest: u64,
        is_restored: bool,
    ) -> Checked {
        let known = invariants.known_state(index);
        if self.is_corrupted && known != Some(digest) && (is_restored || self.wrong[server]) {
            // A wrong state says nothing of what is right.
            self.wrong[server] = true;
            return Ok(());
        }
        // What was wrong may have been overwritten since.
        self.wrong[server] = false;
        invariants.state(server, index, digest, is_restored)
    }
}

impl World {
    // ---- operators and faults ----

    /// Somebody has replicas compared, and the next time is scheduled.
    pub(super) fn ask_to_compare(&mut self) -> Checked {
        let Some(interval) = self.profile.digest_interval.filter(|_| self.phase == Phase::Faults) else {
            return Ok(());
        };
        let mean = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
        let delay = Duration::from_micros(self.rng.u64(..mean * 2));
        self.queue.after(delay, What::CheckDigests);
        let group = self.rng.usize(..self.profile.groups);
        let likely = self.leaders[group].filter(|_| self.rng.u8(..8) != 0);
        let server = likely.unwrap_or_else(|| self.rng.usize(..self.profile.servers));
        let patience = Duration::from_millis(self.rng.u64(1..2_000));
        self.compare(server, group, patience).map(drop)
    }

    fn compare(&mut self, server: usize, group: usize, patience: Duration) -> Checked<Option<u64>> {
        let is_there = self.servers[server].process.as_ref().is_some_and(|process| process.started[group]);
        if !is_there {
            return Ok(None);
        }
        let epoch = self.servers[server].epoch;
        let tag = self.history.begin(group, server, epoch, Request::CheckDigests);
        self.note(server, Kind::CheckDigests, [tag, group as u64 + 1]);
        let ticket = Ticket { origin: 4, tag };
        self.feed(server, Event::CheckDigests { group: group_id(group), ticket, patience })?;
        Ok(Some(tag))
    }

    /// A bit of some state flips.
    pub(super) fn corrupt(&mut self) {
        if self.phase != Phase::Faults {
            return;
        }
        let (server, group) = (self.rng.usize(..self.profile.servers), self.rng.usize(..self.profile.groups));
        let process = self.servers[server].process.as_mut();
        let host = process.map(|process| &mut process.hosts[group]).filter(|host| !host.is_stopped);
        let Some(host) = host.filter(|_| self.invariants[group].takes_part(server)) else {
            return self.queue.after(Duration::from_millis(100), What::Corrupt);
        };
        host.state.corrupt(&mut self.rng);
        let applied = host.state.applied;
        self.coverage.states_corrupted += 1;
        self.comparing[group].is_corrupted = true;
        self.comparing[group].wrong[server] = true;
        self.note(server, Kind::Corrupt, [group as u64 + 1, applied]);
    }

    // ---- at a host ----

    /// The entry about digests among those to be applied: it must be the last of its batch.
    pub(super) fn digest_entry(&self, server: usize, entries: &[Entry], is_end: bool) -> Checked<Option<Entry>> {
        let Some(at) = entries.iter().position(|entry| entry.kind.ends_batch()) else { return Ok(None) };
        if at + 1 != entries.len() || !is_end {
            let what = format!("server {server}: entry {} is followed by others", entries[at].index);
            return Err(Violation::new("a request for digests and a verdict are the last of their batch", what));
        }
        Ok(Some(entries[at].clone()))
    }

    /// Whether a verdict goes against the state of a host that has applied everything before it.
    pub(super) fn judged(&self, server: usize, group: usize, entry: &Entry) -> Option<Divergence> {
        let process = self.servers[server].process.as_ref()?;
        process.hosts[group].sessions.judge(&digest_check(entry)?, super::server_id(server)).err()
    }

    /// A host says what its state comes down to.
    pub(super) fn digest(&mut self, server: usize, group: usize, index: Index) -> Checked {
        let Some(process) = &mut self.servers[server].process else { return Ok(()) };
        let host = &mut process.hosts[group];
        let state = host.state.digest();
        let digest = (index > host.held).then(|| host.sessions.digested(index, state.into()));
        if let Some(digest) = digest {
            self.comparing[group].said.entry((index, server)).or_default().insert(digest);
            self.note(server, Kind::Digested, [group as u64 + 1, index, state]);
        }
        self.feed(server, Event::Digested { group: group_id(group), index, digest: Ok(digest) })
    }

    /// The verdict at `index` goes against the state of a host: it does nothing more.
    pub(super) fn diverged(&mut self, server: usize, group: usize, index: Index, divergence: Divergence) -> Checked {
        self.judge_stop(server, group, &divergence)?;
        self.note(server, Kind::Diverged, [group as u64 + 1, index]);
        let Some(process) = &mut self.servers[server].process else { return Ok(()) };
        process.hosts[group].is_stopped = true;
        let is_leader =
            process.driver.observe(group_id(group)).is_some_and(|it| it.role == crate::driver::Role::Leader);
        self.coverage.odd_ones_stopped += 1;
        self.coverage.odd_leaders_stopped += u64::from(is_leader);
        self.coverage.odd_ones_stopped_again += u64::from(!self.comparing[group].stopped.insert(server));
        self.end_tasks(server, group)?;
        self.feed(server, Event::Diverged { group: group_id(group), index, divergence })
    }

    /// What a host that stopped was still to do is not done.
    pub(super) fn end_tasks(&mut self, server: usize, group: usize) -> Checked {
        let Some(process) = &mut self.servers[server].process else { return Ok(()) };
        let host = &mut process.hosts[group];
        let mut tickets: Vec<Ticket> = host.reads.drain(..).map(|(_, ticket)| ticket).collect();
        for task in host.tasks.drain(..) {
            if let Task::Apply { tickets: more, .. } = task {
                tickets.extend(more.into_iter().map(|(_, ticket)| ticket));
            }
        }
        tickets.into_iter().try_for_each(|ticket| self.end_request(server, group_id(group), ticket, Ended::Unknown))
    }

    // ---- what must hold ----

    /// Whoever is stopped has a state that is wrong, or said something else than the majority.
    fn judge_stop(&self, server: usize, group: usize, divergence: &Divergence) -> Checked {
        let check = &divergence.check;
        let said = self.comparing[group].said.get(&(check.index, server));
        let differs = said.is_some_and(|said| said.iter().any(|digest| Some(*digest) != check.majority));
        let is_odd =
            divergence.own.map_or_else(|| check.is_odd(super::server_id(server)), |own| Some(own) != check.majority);
        if is_odd && (differs || self.comparing[group].wrong[server]) {
            return Ok(());
        }
        let what = format!("server {server} is stopped: {divergence:?}; it had said {said:?}");
        Err(Violation::new("only a replica whose state is not the majority's is stopped", what))
    }

    /// Replicas are said to differ: so it is, they said so, and a majority is one.
    pub(super) fn judge_difference(&mut self, group: usize, check: &DigestCheck) -> Checked {
        self.coverage.digests_differ += 1;
        self.coverage.digests_split += u64::from(check.verdict() == DigestVerdict::Split);
        if !self.comparing[group].is_corrupted {
            return Err(Violation::new("healthy replicas never differ", format!("group {group}: {check}")));
        }
        self.judge_check(group, check)
    }

    fn judge_check(&self, group: usize, check: &DigestCheck) -> Checked {
        let rule = "a comparison tells what replicas said, and a majority is one";
        for (id, answer) in &check.replicas {
            let DigestAnswer::Given(digest) = answer else { continue };
            let said = self.comparing[group].said.get(&(check.index, server_at(*id)));
            if !said.is_some_and(|said| said.contains(digest)) {
                return Err(Violation::new(rule, format!("server {id} said {said:x?}: {check}")));
            }
            let known = self.invariants[group].known_state(check.index).map(HostDigest::from);
            if !self.comparing[group].is_corrupted && known != Some(digest.host) {
                let what = format!("server {id} has {known:?}: {check}");
                return Err(Violation::new("a digest is of the state at its entry", what));
            }
        }
        // Where states are corrupted, members stay as they are.
        if let Some(majority) = check.majority.filter(|_| self.comparing[group].is_corrupted) {
            let agrees = |answer: &DigestAnswer| answer.given() == Some(majority);
            let count = check.replicas.iter().filter(|(_, answer)| agrees(answer)).count();
            if 2 * count <= self.profile.initial {
                return Err(Violation::new(rule, format!("{count} of {}: {check}", self.profile.initial)));
            }
        }
        Ok(())
    }

    /// A comparison ended.
    pub(super) fn compared(&mut self, group: usize, tag: u64, check: &DigestCheck) -> Checked {
        self.judge_check(group, check)?;
        match check.verdict() {
            DigestVerdict::Agreed => self.coverage.digests_agreed += 1,
            DigestVerdict::Undecided => self.coverage.digests_undecided += 1,
            // Counted where the verdict is told.
            DigestVerdict::Diverged | DigestVerdict::Split => {}
        }
        let Last::Asked { tag: last, .. } = self.comparing[group].last else { return Ok(()) };
        if tag == last {
            let has_answer = |(id, answer): &(_, DigestAnswer)| {
                let server = server_at(*id);
                *answer != DigestAnswer::Missing
                    || self.servers[server].process.is_none()
                    || self.is_odd(server, group)
                    || !self.invariants[group].takes_part(server)
            };
            self.comparing[group].last = match check.replicas.iter().all(has_answer) {
                true => Last::Done(check.verdict()),
                false => Last::ToAsk,
            };
        }
        Ok(())
    }

    /// Whether a group stopped on a server for a state that is not the majority's.
    pub(super) fn is_odd(&self, server: usize, group: usize) -> bool {
        let process = self.servers[server].process.as_ref();
        let status = process.and_then(|process| process.driver.group_status(group_id(group)));
        status.is_some_and(|status| status.divergence.is_some())
    }

    /// It did. While there are faults, an operator tries to start the server again.
    pub(super) fn odd_one_stopped(&mut self, server: usize) {
        if self.phase == Phase::Faults {
            let epoch = self.servers[server].epoch;
            let delay = Duration::from_millis(self.rng.u64(..3_000));
            self.queue.after(delay, What::Restart { server, epoch });
        }
    }

    /// Once faults have ended, replicas are compared until nothing is left to be found; what is missing for that. Whether
    /// states may differ after that: where no majority agrees, nobody knows who is right.
    pub(super) fn last_comparison(&mut self, leader: usize, group: usize) -> Checked<Result<bool, String>> {
        if self.profile.digest_interval.is_none() {
            return Ok(Ok(false));
        }
        match self.comparing[group].last {
            Last::Done(DigestVerdict::Agreed) => return Ok(Ok(false)),
            Last::Done(DigestVerdict::Split) => return Ok(Ok(true)),
            Last::Asked { tag, server, epoch } if self.history.is_open(tag) && self.servers[server].epoch == epoch => {}
            _ => {
                let epoch = self.servers[leader].epoch;
                // The answer may come at once.
                let tag = self.history.next_tag();
                self.comparing[group].last = Last::Asked { tag, server: leader, epoch };
                if self.compare(leader, group, LAST_PATIENCE)?.is_none() {
                    self.comparing[group].last = Last::ToAsk;
                }
            }
        }
        Ok(Err(format!("group {group}: its replicas are being compared")))
    }

    /// Whether those whom verdicts stopped leave a majority of a group that nobody else left.
    pub(super) fn lost_its_majority(&self, group: usize) -> bool {
        let stopped = (0..self.profile.servers).filter(|&server| self.is_odd(server, group)).count();
        stopped > 0 && 2 * (self.profile.initial - stopped.min(self.profile.initial)) <= self.profile.initial
    }
}
