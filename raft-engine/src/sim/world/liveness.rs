//! The end of a run: faults end, and within a bounded time everyone who may take part has the same log and state, and
//! everything that was asked has its answer.

use std::sync::Arc;
use std::time::Duration;

use super::super::attacks::Shape;
use super::super::faults::Masks;
use super::super::invariants::{Violation, is_quorum};
use super::super::trace::Kind;
use super::{Checked, Phase, What, World, group_id, server_at, server_id};
use crate::driver::Role;
use crate::types::{Configuration, Index, Member, ServerId, Time};

/// Within this, a connected majority has a leader: ten times the longest election timeout, and what connecting takes.
const LEADER_WITHIN: Duration = Duration::from_secs(8);
/// Within this, whoever reaches a majority through a partial partition leads and commits: two elections may be needed.
const STALLED_AT_MOST: Duration = Duration::from_secs(12);
/// Within this, everyone has everything.
const CONVERGED_WITHIN: Duration = Duration::from_secs(30);
/// Once faults end, a host has no more to do for a batch than this.
const QUICK_HOST: Duration = Duration::from_micros(500);

impl World {
    /// Everything is repaired, and whoever is down is started.
    pub(super) fn faults_end(&mut self) {
        self.note(None, Kind::Liveness, []);
        self.dials_since_faults = 0;
        self.phase = Phase::Liveness { since: self.queue.now() };
        self.heal();
        // What a slow host has left to apply says nothing about the engine.
        self.profile.host_latency = self.profile.host_latency.min(QUICK_HOST);
        let profile = &mut self.network.profile;
        (profile.loss_permille, profile.double_permille, profile.late_permille) = (0, 0, 0);
        for server in 0..self.profile.servers {
            self.disk_heals(server);
            let this = &mut self.servers[server];
            this.paused_until = self.queue.now();
            this.has_other_members = false;
            let epoch = this.epoch;
            let is_stopped = this.process.as_ref().is_some_and(|process| process.is_stopped || process.may_stop);
            if is_stopped || (this.process.is_some() && self.profile.other_members) {
                self.kill(server);
            }
            self.queue.after(Duration::from_millis(1), What::Start { server, epoch });
        }
        self.queue.after(Duration::from_millis(100), What::Look);
    }

    /// Has everyone converged? Looks again if not.
    pub(super) fn look(&mut self) -> Checked {
        if let Phase::Stalled { since, masks } = self.phase {
            return self.look_at_stall(since, &masks);
        }
        let Phase::Liveness { since } = self.phase else { return Ok(()) };
        let passed = self.queue.now().since(since);
        // Whoever is up is met, or refused and asked seldom; to dial each other in circles is a defect.
        let pairs = self.profile.servers * self.profile.servers;
        let most_dials = pairs as u64 * (20 + passed.as_millis() as u64 / 20);
        if self.dials_since_faults > most_dials {
            let what = format!("{} dials in {passed:?}", self.dials_since_faults);
            return Err(Violation::new("after faults end, connections come to rest", what));
        }
        let mut missing = None;
        for group in 0..self.profile.groups {
            if let Err(why) = self.converged(group, passed)? {
                missing.get_or_insert(why);
            }
        }
        let Some(missing) = missing else {
            self.is_not_deposed()?;
            if self.stall() {
                return Ok(());
            }
            self.phase = Phase::Done;
            return (0..self.profile.groups).try_for_each(|group| self.judge_operations(group));
        };
        if passed > CONVERGED_WITHIN {
            return Err(Violation::new("after faults end, everyone converges in bounded time", missing));
        }
        self.queue.after(Duration::from_millis(100), What::Look);
        Ok(())
    }

    /// Everyone has converged: leaves a partial partition to stand, under which some can still reach a majority, if this
    /// run has one. Whether it does.
    fn stall(&mut self) -> bool {
        let Some(shape) = self.profile.attacks.stall.take() else { return false };
        let group = 0;
        let Some(leader) = self.leader(group) else { return false };
        let Ok(configuration) = self.at_rest(group, leader) else { return false };
        let mut voters: Vec<usize> = configuration.voters().map(server_at).collect();
        let is_fit = match shape {
            Shape::Star => voters.len() >= 3,
            Shape::Chain => (3..=5).contains(&voters.len()),
        };
        let can_lead = |member: &Member| member.priority > 0 && self.invariants[group].takes_part(server_at(member.id));
        let can_all_lead = configuration.members.iter().all(can_lead);
        if !is_fit || !can_all_lead || self.profile.groups > 1 {
            return false;
        }
        self.attack_rng.shuffle(&mut voters);
        // The leader is where it can reach the fewest.
        voters.sort_by_key(|&voter| voter == leader);
        let others = (0..self.profile.servers).filter(|server| !voters.contains(server));
        let order: Vec<usize> = voters.iter().copied().chain(others).collect();
        let masks = shape.masks(&order);
        self.note(None, Kind::Stall, []);
        self.coverage.stalls += 1;
        self.network.profile.slow_permille = 0;
        self.block(masks);
        self.proofs[group] = Some(self.history.acknowledged(group));
        self.phase = Phase::Stalled { since: self.queue.now(), masks };
        self.queue.after(Duration::from_millis(100), What::Look);
        true
    }

    /// Whoever can reach a majority must lead and commit before long; then the partition heals.
    fn look_at_stall(&mut self, since: Time, masks: &Masks) -> Checked {
        let group = 0;
        let passed = self.queue.now().since(since);
        self.queue.after(Duration::from_millis(100), What::Look);
        let reaches = |one: usize, other: usize| masks[one] >> other & 1 == 0 && masks[other] >> one & 1 == 0;
        let leader = self.leader(group).filter(|&leader| {
            let configuration = self.servers[leader]
                .process
                .as_ref()
                .and_then(|process| process.driver.group_status(group_id(group))?.configuration);
            configuration.is_some_and(|it| is_quorum(&it, |id| reaches(leader, server_at(id))))
        });
        let is_done = self.proofs[group].is_some_and(|before| self.history.acknowledged(group) > before);
        match leader {
            Some(leader) if is_done => {
                let term = self.term(leader, group);
                // Whoever was given pre-votes by a majority that then kept to its leader is in a later term already.
                let servers = (0..self.profile.servers).filter(|&server| self.invariants[group].takes_part(server));
                let is_latest = servers.map(|server| self.term(server, group)).all(|other| other <= term);
                self.led_through_partition = is_latest.then_some((leader, term));
                self.phase = Phase::Liveness { since: self.queue.now() };
                self.dials_since_faults = 0;
                self.leader_seen.fill(Duration::ZERO);
                self.proofs.fill(None);
                self.heal();
                Ok(())
            }
            _ if passed > STALLED_AT_MOST => Err(Violation::new(
                "a partial partition stalls nobody who reaches a majority",
                format!("after {passed:?}, {leader:?} leads, and nothing new is committed"),
            )),
            Some(leader) => self.propose(leader, group, 1),
            None => Ok(()),
        }
    }

    /// Whoever led through a partial partition still leads when it has healed and all have converged.
    fn is_not_deposed(&mut self) -> Checked {
        let Some((leader, term)) = self.led_through_partition.take() else { return Ok(()) };
        let now = self.leader(0).map(|leader| (leader, self.term(leader, 0)));
        if now == Some((leader, term)) {
            return Ok(());
        }
        Err(Violation::new(
            "whoever comes back deposes nobody",
            format!("server {leader} led term {term} when the partition healed, and now {now:?} leads"),
        ))
    }

    /// Who leads, of whoever takes part: in the highest term, if several believe that they do.
    fn leader(&self, group: usize) -> Option<usize> {
        let leads = |&server: &usize| {
            self.invariants[group].takes_part(server)
                && self.invariants[group].view(server).is_some_and(|view| view.role == Role::Leader)
        };
        (0..self.profile.servers).filter(leads).max_by_key(|&server| self.term(server, group))
    }

    /// Whether what the clients of a group saw is linearizable, as far as they have come.
    pub(super) fn judge_operations(&mut self, group: usize) -> Checked {
        let checked = self.operations[group].judge(&self.history)?;
        self.coverage.operations_judged += checked.operations;
        self.coverage.operations_unknown += checked.unknown;
        self.coverage.keys_judged += checked.keys;
        Ok(())
    }

    /// Whether a group has; if not, why not. A proposal is made until one is applied.
    fn converged(&mut self, group: usize, passed: Duration) -> Checked<Result<(), String>> {
        let takes_part: Vec<usize> =
            (0..self.profile.servers).filter(|&server| self.invariants[group].takes_part(server)).collect();
        if self.lost_its_majority(group) {
            return Ok(Ok(()));
        }
        if !self.invariants[group].is_formed() {
            // Wipes may have left two entry 1 with a minority each: nobody may go on then. And whoever was wiped after
            // another group had formed with it is refused by all: the groups that it is still to form never are.
            let is_split = self.invariants[group].first_entries() > 1 && self.coverage.wipes_while_forming > 0;
            let is_out = |server| self.invariants.iter().any(|other| other.is_formed() && !other.takes_part(server));
            if passed > CONVERGED_WITHIN && (is_split || (0..self.profile.servers).any(is_out)) {
                return Ok(Ok(()));
            }
            return Ok(Err(format!("group {group} is not formed")));
        }
        let Some(leader) = self.leader(group) else {
            // A slow stream may end a leadership at any time; then the next one begins as soon as the first.
            if passed > self.leader_seen[group] + LEADER_WITHIN {
                let what = format!("group {group} has no leader for {:?}", passed - self.leader_seen[group]);
                return Err(Violation::new("a connected majority has a leader within ten election timeouts", what));
            }
            return Ok(Err(format!("group {group} has no leader")));
        };
        self.leader_seen[group] = passed;
        let configuration = match self.at_rest(group, leader) {
            Ok(configuration) => configuration,
            Err(why) => return Ok(Err(why)),
        };
        let takes_part: Vec<usize> = (takes_part.into_iter())
            .filter(|&server| configuration.member(server_id(server)).is_some() && !self.is_odd(server, group))
            .collect();
        if self.proofs[group].is_none() {
            let acknowledged = self.history.acknowledged(group);
            self.proofs[group] = Some(acknowledged);
        }
        if self.proofs[group].is_some_and(|before| self.history.acknowledged(group) <= before) {
            self.propose(leader, group, 1)?;
            return Ok(Err(format!("group {group} applies nothing new")));
        }
        let may_differ = match self.last_comparison(leader, group)? {
            Ok(may_differ) => may_differ,
            Err(why) => return Ok(Err(why)),
        };
        let (last, digest) = self.state(leader, group);
        for &server in &takes_part {
            let (applied, other) = self.state(server, group);
            let view = self.invariants[group].view(server);
            let is_equal = view.is_some_and(|view| view.last.index == last && view.commit == last) && applied == last;
            if !is_equal {
                return Ok(Err(format!("group {group}: server {server} is at {applied} of {last}: {view:?}")));
            }
            if digest != other && !may_differ {
                let what = format!("servers {leader} and {server} differ at {applied}");
                return Err(Violation::new("equal logs make equal states", what));
            }
            let epoch = self.servers[server].epoch;
            // Whoever is no member any more may wait for ever for what it will never get.
            if let Some(open) = self.history.first_open(server, epoch, Some(group)) {
                return Ok(Err(format!("{open:?} at server {server} has no answer")));
            }
        }
        Ok(Ok(()))
    }

    /// The configuration, once no change of it is under way and whoever was removed and would campaign knows of it.
    fn at_rest(&self, group: usize, leader: usize) -> Result<Arc<Configuration>, String> {
        let status = |server: usize| {
            let process = self.servers[server].process.as_ref()?;
            process.driver.group_status(group_id(group))
        };
        let of_leader = status(leader).ok_or_else(|| format!("server {leader} is down"))?;
        let configuration = of_leader.configuration.ok_or_else(|| format!("group {group} is not formed"))?;
        if configuration.change.is_some() || of_leader.transferring_to.is_some() {
            return Err(format!("group {group}: a change is under way"));
        }
        for server in 0..self.profile.servers {
            let Some(status) = status(server).filter(|_| configuration.member(server_id(server)).is_none()) else {
                continue;
            };
            // Only members can say so, and only voters are asked: whoever knows none of the members as a voter asks for
            // votes where nobody can tell, for ever.
            let is_member = |id: ServerId| configuration.member(id).is_some();
            let believes =
                status.configuration.is_some_and(|own| own.is_voter(server_id(server)) && own.voters().any(is_member));
            if believes && self.invariants[group].takes_part(server) && status.removed.is_none() {
                return Err(format!("group {group}: server {server} does not know that it was removed"));
            }
        }
        Ok(configuration)
    }

    pub(super) fn term(&self, server: usize, group: usize) -> u64 {
        self.invariants[group].view(server).map_or(0, |view| view.term)
    }

    fn state(&self, server: usize, group: usize) -> (Index, u64) {
        let state = self.servers[server].process.as_ref().map(|process| &process.hosts[group].state);
        state.map_or((0, 0), |state| (state.applied, state.digest()))
    }
}
