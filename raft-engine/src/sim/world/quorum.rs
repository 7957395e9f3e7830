//! The loss of a quorum for good, and what an operator does about it: one server that is left is made the only member, by
//! hand and offline, and new servers join it (docs/operations.md).
//!
//! Whoever of the old group comes back, with its disk or with an empty one, is refused for ever.

use std::time::Duration;

use super::super::disk::VisibleFiles;
use super::super::host::State;
use super::super::invariants::{Violation, is_quorum};
use super::super::trace::Kind;
use super::{Checked, Phase, What, World, group_id, server_at, server_id};
use crate::driver::{GroupReport, Recovery, RecoveryRefusal, RecoveryRequest, inspect};
use crate::types::{ClusterId, ServerId};

/// The group that it happens to.
const GROUP: usize = 0;

/// When an attempt to recover a group dies.
#[derive(Clone, Copy)]
enum Death {
    /// It does not.
    Never,
    /// After so many steps of its disk, by a kill or by a power cut.
    AfterSteps(u32),
    /// By a kill while this write of its log is under way, counted from 0: the second is the recovery's own entry, seldom
    /// another.
    InLogWrite(u32),
}

/// How an attempt to recover a group ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// It says that it is done.
    Done,
    /// Its process was killed.
    Killed,
    /// The power went.
    PowerCut,
}

impl World {
    /// A majority is gone for good, if there is anybody who could go on without it; else it is tried again.
    pub(super) fn lose_quorum(&mut self) -> Checked {
        if self.phase != Phase::Faults {
            return Ok(());
        }
        let Some(left) = self.draw_survivors() else {
            self.queue.after(Duration::from_millis(100), What::QuorumLoss);
            return Ok(());
        };
        self.coverage.quorum_losses += 1;
        self.judge_operations(GROUP)?;
        for server in 0..self.profile.servers {
            // Whoever is left is stopped before anything is done: it may be the other half of the old group.
            if self.attack_rng.bool() { self.kill(server) } else { self.power_cut(server) }
        }
        let Some((server, after)) = self.recover_one_of(&left)? else {
            return Err(Violation::new(
                "a group is recovered from the loss of its quorum",
                format!("none of {left:?} is fit to go on alone"),
            ));
        };
        if self.recovering == Some(server) && self.attack_rng.bool() {
            // Whoever carried it out was not told that it is done, and it is not on the disk for certain.
            self.power_cut(server);
        }
        let highest = after.configuration.highest_id;
        // Emptied, those who formed the group could form another one under its name, if all of them came back to do so.
        let could_form = (0..self.profile.initial).all(|other| !left.contains(&other));
        for other in (0..self.profile.servers).filter(|&other| other != server) {
            let is_new = server_id(other) > highest;
            if is_new || !left.contains(&other) {
                self.empty(other);
            }
            if is_new {
                // Its operator begins anew: it may have heard of the old group.
                self.invariants[GROUP].is_new(other);
            } else {
                self.invariants[GROUP].is_of_old_group(other);
                self.servers[other].is_gone = !left.contains(&other) && (could_form || self.attack_rng.bool());
                self.coverage.servers_of_old_groups += 1;
            }
        }
        Ok(())
    }

    /// A recovery whose end nobody was told may have been undone by a power cut: it is done again then.
    pub(super) fn see_to_recovery(&mut self, server: usize) -> Checked {
        if self.recovering != Some(server) || self.inspected(server)?.is_recovered {
            return Ok(());
        }
        self.coverage.recoveries_done_again += 1;
        self.disk_heals(server);
        match self.recover_on(server)? {
            Some(_) => Ok(()),
            None => Err(broken(server, &"it was fit to go on alone, and is not any more")),
        }
    }

    /// Servers that are left without a quorum of any configuration that anybody knows, one of them a member by its own log.
    fn draw_survivors(&mut self) -> Option<Vec<usize>> {
        if !self.invariants[GROUP].is_formed() {
            return None;
        }
        let mut known = Vec::new();
        let mut fit = Vec::new();
        for server in 0..self.profile.servers {
            let Some(process) = self.servers[server].process.as_ref().filter(|process| process.is_ready) else {
                continue;
            };
            let configurations = process.driver.observe_configurations(group_id(GROUP));
            let Some((index, last)) = configurations.last() else { continue };
            let durable = process.driver.observe(group_id(GROUP)).map_or(0, |observed| observed.durable);
            // A learner will do, if it is furthest; and what is not on the disk is not there when it is needed.
            let is_member = last.member(server_id(server)).is_some() && *index <= durable;
            if self.invariants[GROUP].takes_part(server) && is_member {
                fit.push(server);
            }
            known.extend(configurations.iter().map(|(_, configuration)| configuration.clone()));
        }
        self.attack_rng.shuffle(&mut fit);
        let has_quorum = |left: &[usize]| {
            let is_left = |id: ServerId| left.contains(&server_at(id));
            known.iter().any(|configuration| is_quorum(configuration, is_left))
        };
        let mut left: Vec<usize> = Vec::new();
        let most = self.attack_rng.usize(1..=3);
        for server in fit {
            left.push(server);
            if left.len() > most || has_quorum(&left) {
                left.pop();
            }
        }
        (!left.is_empty()).then_some(left)
    }

    /// Recovers the group on the server that is furthest of those that are left; seldom on another.
    fn recover_one_of(&mut self, left: &[usize]) -> Checked<Option<(usize, GroupReport)>> {
        let mut ends = Vec::new();
        for &server in left {
            self.disk_heals(server);
            ends.push((server, self.inspected(server)?.last));
        }
        ends.sort_by_key(|(_, last)| std::cmp::Reverse(*last));
        if self.attack_rng.u8(..8) == 0 {
            self.attack_rng.shuffle(&mut ends);
        }
        for (server, _) in ends {
            if let Some(after) = self.recover_on(server)? {
                return Ok(Some((server, after)));
            }
        }
        Ok(None)
    }

    /// What a server's directory holds of the group.
    fn inspected(&self, server: usize) -> Checked<GroupReport> {
        let report =
            inspect(&mut VisibleFiles(&self.servers[server].disk)).map_err(|refusal| broken(server, &refusal))?;
        let found = report.groups.into_iter().find(|report| report.group == group_id(GROUP));
        found.ok_or_else(|| broken(server, &"the group is not in its directory"))
    }

    /// Recovers the group on this server's disk, through crashes, and says what the directory holds then; nothing, if it
    /// does not allow it.
    fn recover_on(&mut self, server: usize) -> Checked<Option<GroupReport>> {
        let mut before = self.inspected(server)?;
        loop {
            let request = RecoveryRequest {
                cluster: ClusterId::new("simulated").expect("a valid name"),
                server: server_id(server),
                group: group_id(GROUP),
                last: before.last,
            };
            let seed = std::array::from_fn(|_| self.attack_rng.u8(..));
            let recovery = match Recovery::open(&mut VisibleFiles(&self.servers[server].disk), &request, seed) {
                Ok(recovery) => recovery,
                Err(RecoveryRefusal::NotMember { .. } | RecoveryRefusal::OnlyVoter { .. }) => return Ok(None),
                Err(refusal) => return Err(broken(server, &refusal)),
            };
            let death = match self.attack_rng.u8(..6) {
                0 | 1 => Death::AfterSteps(self.attack_rng.u32(..12)),
                2 | 3 => Death::InLogWrite(self.attack_rng.u32(..3)),
                _ => Death::Never,
            };
            let end = self.carry_out_recovery(server, recovery, death)?;
            let is_done = end == End::Done;
            self.coverage.crashes_in_quorum_recoveries += u64::from(!is_done);
            let after = self.inspected(server)?;
            let is_alone = after.configuration.voters().eq([server_id(server)]);
            if after.is_recovered && is_alone && after.last.index == before.last.index + 1 {
                self.recovering = (!is_done).then_some(server);
                self.recovered(server, &before, &after)?;
                return Ok(Some(after));
            }
            // A kill leaves what it found; a power cut takes what was found and never synced.
            let is_found =
                after == before || (end == End::PowerCut && !after.is_recovered && after.last <= before.last);
            if is_done || !is_found {
                return Err(broken(server, &format!("{before:?} became {after:?}: {end:?}")));
            }
            before = after;
        }
    }

    /// The group goes on from what a server's log held.
    fn recovered(&mut self, server: usize, before: &GroupReport, after: &GroupReport) -> Checked {
        self.note(server, Kind::Recovered, [after.last.index, after.last.term]);
        let lost = self.invariants[GROUP].recovered(server, before.last, before.commit)?;
        self.coverage.entries_lost_with_a_quorum += lost.entries;
        self.coverage.entries_committed_by_a_recovery += lost.kept_uncommitted;
        self.history.goes_back(GROUP, lost.through);
        self.leaders[GROUP] = Some(server);
        Ok(())
    }

    /// Does what the recovery asks of the disk, to its end or until a crash.
    fn carry_out_recovery(&mut self, server: usize, mut recovery: Recovery, mut death: Death) -> Checked<End> {
        loop {
            let disk = &mut self.servers[server].disk;
            for (id, work) in recovery.take_work() {
                disk.submit(id, work);
            }
            if let Some(outcome) = recovery.outcome() {
                outcome.clone().map_err(|refusal| broken(server, &refusal))?;
                // Whatever is still under way ends with the process that asked for it.
                disk.kill(&mut self.attack_rng);
                return Ok(End::Done);
            }
            let left = match &mut death {
                Death::AfterSteps(left) => Some(left),
                Death::InLogWrite(left) if disk.is_writing_log() => Some(left),
                Death::InLogWrite(_) | Death::Never => None,
            };
            if let Some(left) = left {
                if *left == 0 {
                    if matches!(death, Death::InLogWrite(_)) || self.attack_rng.bool() {
                        disk.kill(&mut self.attack_rng);
                        return Ok(End::Killed);
                    }
                    disk.cut_power(&mut self.attack_rng);
                    return Ok(End::PowerCut);
                }
                *left -= 1;
            }
            let completed = match disk.complete_log_write(&mut self.attack_rng) {
                Some((id, result)) => Some((id, result)),
                None => disk.step_job().and_then(|(id, _, end)| end.map(|result| (id, result))),
            };
            if let Some((id, result)) = completed {
                recovery.complete(id, result);
            }
        }
    }

    /// Empties a server's directory.
    fn empty(&mut self, server: usize) {
        self.note(server, Kind::Wipe, []);
        let this = &mut self.servers[server];
        this.disk.wipe();
        this.was_killed = false;
        this.identity = None;
        this.saved.fill(State::default());
        this.synced_terms.fill(0);
        self.may_refuse = true;
    }
}

fn broken(server: usize, what: &dyn std::fmt::Display) -> Violation {
    Violation::new("a recovery from the loss of a quorum is done, or not begun", format!("server {server}: {what}"))
}
