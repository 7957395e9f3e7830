//! Carrying out what lies in wait for a moment, and the partitions of known shapes.

use std::time::Duration;

use super::super::attacks::{Ambush, Clocks, Moment, Shape};
use super::super::faults::MAX_SERVERS;
use super::super::history::Request;
use super::super::trace::Kind;
use super::{Checked, Phase, What, World, group_id, server_id};
use crate::driver::{Consistency, Event, Role, Ticket};

impl World {
    /// A moment has come at a server: perhaps something is made of it, as soon as its turn is over.
    pub(super) fn moment(&mut self, server: usize, group: usize, moment: Moment) {
        if self.phase != Phase::Faults {
            return;
        }
        let Some(ambush) = self.profile.attacks.ambush(moment, &mut self.attack_rng) else { return };
        let marks = &mut self.coverage;
        let mark = match (moment, ambush) {
            (Moment::ChangeBegun, _) => &mut marks.ambushes_change_begun,
            (Moment::Joint, _) => &mut marks.ambushes_joint,
            (Moment::Target, _) => &mut marks.ambushes_target,
            (Moment::BegunCommitted, _) => &mut marks.ambushes_begun_committed,
            (Moment::JointCommitted, _) => &mut marks.ambushes_joint_committed,
            (Moment::TargetCommitted, _) => &mut marks.ambushes_target_committed,
            (Moment::HandingOver, _) => &mut marks.ambushes_handing_over,
            (Moment::Recovering, _) => &mut marks.ambushes_recovering,
            (Moment::SnapshotBegun, _) => &mut marks.ambushes_snapshot,
            (Moment::Truncated, _) => &mut marks.ambushes_truncation,
        };
        *mark += 1;
        // Recovery takes some steps of the disk: anywhere among them.
        let wait = match moment {
            Moment::Recovering => self.profile.disk_latency * self.attack_rng.u32(0..24) / 4,
            _ if self.attack_rng.bool() => Duration::ZERO,
            _ => self.profile.network.latency * self.attack_rng.u32(0..8),
        };
        let epoch = self.servers[server].epoch;
        self.queue.after(wait, What::Ambush { server, epoch, group, ambush });
    }

    pub(super) fn ambush(&mut self, server: usize, epoch: u32, group: usize, ambush: Ambush) -> Checked {
        if self.phase != Phase::Faults || self.process(server, epoch).is_none() {
            return Ok(());
        }
        match ambush {
            Ambush::CutOff { sends, hears, lasts } => self.cut_off(server, sends, hears, lasts),
            Ambush::CutOffSlowly { lasts } => {
                self.cut_off(server, false, false, lasts);
                self.note(server, Kind::SlowDisk, [200]);
                self.servers[server].slow_times = 200;
                self.queue.after(lasts * 2, What::DiskHeals { server });
            }
            Ambush::Crash { is_power_cut: true } => self.power_cut(server),
            Ambush::Crash { is_power_cut: false } => self.kill(server),
            Ambush::Pause { lasts } => self.pause(server, lasts),
            Ambush::Snapshot => return self.ask_snapshot(server, group),
        }
        Ok(())
    }

    /// Blocks what goes from a server, what goes to it, or both.
    fn cut_off(&mut self, server: usize, sends: bool, hears: bool, lasts: Duration) {
        let all = u8::MAX >> (MAX_SERVERS - self.profile.servers);
        let mut masks = [0; MAX_SERVERS];
        if !hears {
            masks[..self.profile.servers].fill(1 << server);
        }
        masks[server] = if sends { 0 } else { all & !(1 << server) };
        self.partition(masks, lasts);
    }

    /// A partition of a known shape comes, and the next one is scheduled.
    pub(super) fn shape(&mut self) -> Checked {
        let Some(interval) = self.profile.attacks.shape_interval else { return Ok(()) };
        if self.phase != Phase::Faults {
            return Ok(());
        }
        let mean = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
        let delay = Duration::from_micros(self.attack_rng.u64(..mean * 2));
        self.queue.after(delay, What::Shape);
        let mut order: Vec<usize> = (0..self.profile.servers).collect();
        self.attack_rng.shuffle(&mut order);
        let lasts = Duration::from_millis(self.attack_rng.u64(200..2_500));
        let leader = self.leaders[0].filter(|_| self.attack_rng.bool());
        match self.attack_rng.u8(..4) {
            // The leader is at the rim, or at an end.
            0 | 1 => {
                order.sort_by_key(|&server| leader == Some(server));
                self.coverage.stars += 1;
                self.partition(Shape::Star.masks(&order), lasts);
            }
            2 => {
                order.sort_by_key(|&server| leader == Some(server));
                self.coverage.chains += 1;
                self.partition(Shape::Chain.masks(&order), lasts);
            }
            // Constrained election: the hub is behind when it is needed, and the leader gone. Nobody can be elected before it
            // heals: a majority is reached only by whoever lacks what a majority has.
            _ => {
                order.sort_by_key(|&server| leader == Some(server));
                self.coverage.constrained_elections += 1;
                let first = Duration::from_millis(self.attack_rng.u64(100..800));
                self.cut_off(order[0], false, false, first + lasts);
                let mut masks = Shape::Star.masks(&order);
                if let Some(leader) = leader.filter(|&leader| leader != order[0]) {
                    masks.iter_mut().for_each(|mask| *mask |= 1 << leader);
                    masks[leader] = u8::MAX >> (MAX_SERVERS - self.profile.servers) & !(1 << leader);
                }
                self.queue.after(first, What::Reshape { masks });
            }
        }
        Ok(())
    }

    /// Reads by lease at whoever has believed longest that it leads: if anybody reads what is stale, it is this one.
    pub(super) fn probe_lease(&mut self) -> Checked {
        let Some(interval) = self.profile.attacks.lease_interval else { return Ok(()) };
        if self.phase != Phase::Faults {
            return Ok(());
        }
        let mean = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
        let delay = Duration::from_micros(self.attack_rng.u64(..mean * 2));
        self.queue.after(delay, What::ProbeLease);
        let group = self.attack_rng.usize(..self.profile.groups);
        let leads = |server: &usize| {
            let view = self.invariants[group].view(*server);
            self.is_up(*server, group) && view.is_some_and(|view| view.role == Role::Leader)
        };
        let leaders = (0..self.profile.servers).filter(leads);
        let Some(server) = leaders.min_by_key(|&server| self.term(server, group)) else { return Ok(()) };
        if self.profile.attacks.clocks == Clocks::BeyondBound {
            // The one whose clock is slow must lead, and then be cut off: it would not be elected for itself.
            match self.attack_rng.u8(..) {
                0..4 if server == 0 => self.cut_off(0, false, false, Duration::from_millis(400)),
                0..4 => self.transfer(server, group, Some(server_id(0)), Duration::from_millis(100))?,
                _ => {}
            }
        }
        self.read_by_lease(server, group)
    }

    pub(super) fn read_by_lease(&mut self, server: usize, group: usize) -> Checked {
        let floor = self.history.acknowledged(group);
        let epoch = self.servers[server].epoch;
        let tag = self.history.begin(group, server, epoch, Request::ReadByLease { floor });
        self.note(server, Kind::Read, [tag, group as u64 + 1, 2, floor]);
        let operations = &mut self.operations[group];
        operations.reads(tag, operations.key_of_read(tag));
        self.count_lease(server, group);
        let ticket = Ticket { origin: 1, tag };
        self.feed(server, Event::Read { group: group_id(group), ticket, consistency: Consistency::Lease })
    }

    /// Counts whether a read by lease finds one.
    pub(super) fn count_lease(&mut self, server: usize, group: usize) {
        let now = self.queue.now();
        let Some(process) = &self.servers[server].process else { return };
        let is_leader = self.invariants[group].view(server).is_some_and(|view| view.role == Role::Leader);
        if is_leader {
            let has_lease = process.driver.observe_lease(group_id(group), process.clock(now)).is_some();
            self.coverage.leases_held += u64::from(has_lease);
            self.coverage.leases_missing += u64::from(!has_lease);
        }
    }
}
