//! A server's process: its start on what its disk shows, its turns, and its end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::attacks::{Moment, USUAL_RATE};
use super::super::disk::VisibleFiles;
use super::super::host::{Host, State};
use super::super::invariants::Violation;
use super::super::trace::Kind;
use super::{Checked, Process, What, World, group_id, server_id};
use crate::driver::{Driver, Event, ForwardCounts, Me, MemberArgument, RareCounts, StartHow};
use crate::types::{ClusterId, DiskWorkId, Time};

impl Process {
    /// The process's own clock.
    pub(super) fn clock(&self, now: Time) -> Time {
        Time(now.0 * self.clock_rate / USUAL_RATE + self.clock_offset)
    }

    /// When its clock shows this.
    fn when(&self, clock: Time) -> Time {
        Time((clock.0.saturating_sub(self.clock_offset).saturating_mul(USUAL_RATE)).div_ceil(self.clock_rate))
    }
}

impl World {
    /// Whose server it is.
    pub(super) fn me(server: usize) -> Me {
        Me { cluster: ClusterId::new("simulated").expect("a valid name"), id: server_id(server) }
    }

    /// Starts a process on what the disk shows.
    pub(super) fn start(&mut self, server: usize, epoch: u32) -> Checked {
        let this = &self.servers[server];
        if this.epoch != epoch || this.process.is_some() || this.is_gone {
            return Ok(());
        }
        self.see_to_recovery(server)?;
        let now = self.queue.now();
        let clock_offset = self.rng.u64(..1 << 40);
        let clock_rate = self.profile.attacks.clocks.draw(server, &mut self.attack_rng);
        let seed = std::array::from_fn(|_| self.rng.u8(..));
        let this = &mut self.servers[server];
        this.epoch += 1;
        let files = &mut VisibleFiles(&this.disk);
        let clock = Time(now.0 * clock_rate / USUAL_RATE + clock_offset);
        let opened = Driver::open(self.profile.settings.clone(), Self::me(server), files, seed, clock);
        let driver = match opened {
            Ok(driver) => driver,
            Err(error) => {
                return Err(Violation::new(
                    "a server starts on whatever a crash left",
                    format!("server {server} was not opened: {error}"),
                ));
            }
        };
        let groups = self.profile.groups;
        this.process = Some(Process {
            driver,
            clock_offset,
            clock_rate,
            hosts: (0..groups).map(|_| Host::default()).collect(),
            started: vec![false; groups],
            is_ready: false,
            is_stopped: false,
            wake_at: Time::NEVER,
            is_turn_open: false,
            dialling: BTreeSet::new(),
            sent: BTreeMap::new(),
            is_sent_scheduled: false,
            next_accepted: 1,
            suspicions: 0,
            forwards: ForwardCounts::default(),
            rare: RareCounts::default(),
            dies_after: None,
            may_stop: this.is_full,
        });
        let epoch = this.epoch;
        this.identity = this.process.as_ref().map(|process| process.driver.server_status().identity);
        self.note(server, Kind::Open, [u64::from(epoch)]);
        for group in 0..groups {
            self.invariants[group].opened(server);
            let micros = if self.rng.bool() { 0 } else { self.rng.u64(..20_000) };
            self.queue.after(Duration::from_micros(micros), What::StartGroup { server, epoch, group });
        }
        self.moment(server, 0, Moment::Recovering);
        self.end_turn(server)
    }

    /// The host starts a group; the same call at the first start and at every later one.
    pub(super) fn start_group(&mut self, server: usize, epoch: u32, group: usize) -> Checked {
        if self.process(server, epoch).is_none() {
            return Ok(());
        }
        let state =
            if self.profile.durable_host { self.servers[server].saved[group].clone() } else { State::default() };
        let applied = state.applied;
        self.coverage.durable_hosts += u64::from(applied > 0);
        let mut members = self.members();
        let mut how_number = 0;
        if self.servers[server].has_other_members {
            how_number = 2;
            self.coverage.other_members += 1;
            let at = self.rng.usize(..members.len());
            match self.rng.u8(..3) {
                0 => members[at].context = vec![1],
                1 => members[at].address.push('0'),
                _ => members.push(MemberArgument { id: server_id(9), ..members[at].clone() }),
            }
        }
        let has_entry = self.invariants[group].has_first_entry(server);
        let how = if how_number == 0 && has_entry && self.rng.u8(..4) == 0 {
            how_number = 1;
            StartHow::Restart
        } else if server >= self.profile.initial {
            how_number = 3;
            let contacts = (0..2).map(|_| format!("s{}:1", self.rng.usize(..self.profile.initial))).collect();
            StartHow::Join { contacts }
        } else {
            StartHow::Bootstrap { members, settings: self.profile.group_settings.clone() }
        };
        self.note(server, Kind::StartGroup, [group as u64, how_number, applied]);
        self.invariants[group].started(server, applied);
        let process = self.process(server, epoch).expect("it was there");
        process.hosts[group].state = state;
        self.comparing[group].started(server, applied > 0);
        let process = self.process(server, epoch).expect("it was there");
        process.hosts[group].held = applied;
        process.started[group] = true;
        self.feed(server, Event::StartGroup { group: group_id(group), how, applied })
    }

    /// The members as every operator should name them.
    pub(super) fn members(&self) -> Vec<MemberArgument> {
        (0..self.profile.initial)
            .map(|server| MemberArgument {
                id: server_id(server),
                priority: 1,
                address: format!("s{server}:1"),
                context: vec![],
            })
            .collect()
    }

    /// Gives a driver an event. The turn ends at once, or gathers more first.
    pub(super) fn feed(&mut self, server: usize, event: Event) -> Checked {
        let now = self.queue.now();
        let gathers = self.rng.u8(..8) < self.profile.gather_eighths;
        let this = &mut self.servers[server];
        let Some(process) = &mut this.process else { return Ok(()) };
        let clock = process.clock(now);
        process.driver.handle(clock, event);
        if process.is_turn_open {
            return Ok(());
        }
        if gathers {
            process.is_turn_open = true;
            let epoch = this.epoch;
            let delay = Duration::from_nanos(self.rng.u64(..300_000));
            self.queue.after(delay, What::EndTurn { server, epoch });
            return Ok(());
        }
        self.end_turn(server)
    }

    /// Ends a turn: the driver flushes, what it shows is checked, and what it wants is carried out.
    pub(super) fn end_turn(&mut self, server: usize) -> Checked {
        let now = self.queue.now();
        let Some(process) = &mut self.servers[server].process else { return Ok(()) };
        process.is_turn_open = false;
        let clock = process.clock(now);
        process.driver.flush(clock);
        let effects = process.driver.take_effects();
        let was_ready = process.is_ready;
        if !was_ready && process.driver.server_status().ready {
            process.is_ready = true;
            self.recovering.take_if(|recovering| *recovering == server);
            let Some(process) = &self.servers[server].process else { return Ok(()) };
            let number = process.driver.server_status().incarnation.number;
            self.note(server, Kind::Ready, [number]);
        }
        self.judge(server, was_ready)?;
        self.carry_out(server, effects)?;
        self.set_alarm(server);
        Ok(())
    }

    /// Lets the driver be woken at its deadline, a little late as timers are.
    fn set_alarm(&mut self, server: usize) {
        let now = self.queue.now();
        let late = if self.rng.u8(..64) == 0 { self.rng.u64(..20_000_000) } else { self.rng.u64(..200_000) };
        let this = &mut self.servers[server];
        let epoch = this.epoch;
        let Some(process) = &mut this.process else { return };
        let deadline = process.driver.deadline();
        if deadline == Time::NEVER {
            return;
        }
        let at = Time(process.when(deadline).0.saturating_add(late)).max(now);
        if at < process.wake_at || process.wake_at < now {
            process.wake_at = at;
            self.queue.at(at, What::Wake { server, epoch });
        }
    }

    pub(super) fn wake(&mut self, server: usize, epoch: u32) -> Checked {
        let now = self.queue.now();
        let Some(process) = self.process(server, epoch) else { return Ok(()) };
        if process.wake_at != now {
            return Ok(());
        }
        process.wake_at = Time::NEVER;
        if process.driver.deadline() > process.clock(now) {
            self.set_alarm(server);
            return Ok(());
        }
        self.note(server, Kind::Wake, []);
        self.end_turn(server)
    }

    /// The process dies. What it wrote stays visible.
    pub(super) fn kill(&mut self, server: usize) {
        if self.servers[server].process.is_none() {
            return;
        }
        let report = self.servers[server].disk.kill(&mut self.rng);
        self.servers[server].was_killed = true;
        self.note(server, Kind::Kill, [report.in_flight]);
        self.coverage.processes_killed += 1;
        self.coverage.log_writes_torn += report.torn;
        self.coverage.log_writes_unsynced += report.unsynced;
        self.process_ends(server, false);
    }

    /// The power goes.
    pub(super) fn power_cut(&mut self, server: usize) {
        let report = self.servers[server].disk.cut_power(&mut self.rng);
        let was_killed = std::mem::take(&mut self.servers[server].was_killed);
        self.note(server, Kind::PowerCut, [report.in_flight]);
        self.coverage.power_cuts += 1;
        self.coverage.log_writes_torn += report.torn;
        self.coverage.kills_before_a_power_cut += u64::from(was_killed);
        if self.servers[server].process.is_some() {
            self.process_ends(server, true);
        }
    }

    /// Nothing of the process remains, and somebody will start the next one.
    pub(super) fn process_ends(&mut self, server: usize, is_silent: bool) {
        let this = &mut self.servers[server];
        let epoch = this.epoch;
        let Some(process) = this.process.take() else { return };
        // The next process has another number, and so has the time between.
        this.epoch += 1;
        this.paused_until = Time(0);
        this.last_log_at = Time(0);
        let next_epoch = this.epoch;
        self.coverage.crashes_before_ready += u64::from(!process.is_ready);
        self.coverage.crashes_while_forming += u64::from(self.invariants.iter().any(|group| !group.is_formed()));
        self.history.process_ends(server, epoch);
        self.network.process_ends(server, is_silent, &mut self.queue, &mut self.rng);
        let millis = if self.rng.bool() { self.rng.u64(..100) } else { self.rng.u64(..2_000) };
        let delay = Duration::from_millis(if self.phase == super::Phase::Faults { millis } else { millis.min(100) });
        self.queue.after(delay, What::Start { server, epoch: next_epoch });
    }

    /// The oldest log write completes.
    pub(super) fn disk_log(&mut self, server: usize, epoch: u32) -> Checked {
        if self.process(server, epoch).is_none() {
            return Ok(());
        }
        let Some((id, result)) = self.servers[server].disk.complete_log_write(&mut self.rng) else { return Ok(()) };
        self.note(server, Kind::DoneLog, [id.0, u64::from(result.is_err())]);
        self.coverage.write_errors += u64::from(result.is_err());
        self.feed(server, Event::Disk { id, result })
    }

    /// The oldest job does its next step.
    pub(super) fn disk_step(&mut self, server: usize, epoch: u32) -> Checked {
        if self.process(server, epoch).is_none() {
            return Ok(());
        }
        let Some((id, step, end)) = self.servers[server].disk.step_job() else { return Ok(()) };
        self.count_step(server, id, &step, end.as_ref().is_some_and(Result::is_err));
        if self.servers[server].disk.has_job() {
            let delay = self.disk_delay(server);
            self.queue.after(delay, What::DiskStep { server, epoch });
        }
        let Some(result) = end else { return Ok(()) };
        self.note(server, Kind::DoneJob, [id.0, u64::from(result.is_err())]);
        if let Err(error) = &result {
            if error.is_full {
                self.coverage.full_disks += 1;
            } else {
                self.coverage.sync_errors += 1;
            }
        }
        self.feed(server, Event::Disk { id, result })
    }

    pub(super) fn disk_read(&mut self, server: usize, epoch: u32, id: DiskWorkId) -> Checked {
        if self.process(server, epoch).is_none() {
            return Ok(());
        }
        let Some(result) = self.servers[server].disk.complete_read(id) else { return Ok(()) };
        let length = match &result {
            Ok(crate::types::DiskDone::Read(bytes)) => bytes.len() as u64,
            _ => 0,
        };
        self.note(server, Kind::DoneRead, [id.0, length]);
        self.feed(server, Event::Disk { id, result })
    }

    /// How long something takes on a server's disk.
    pub(super) fn disk_delay(&mut self, server: usize) -> Duration {
        let nanos = u64::try_from(self.profile.disk_latency.as_nanos()).unwrap_or(u64::MAX);
        let usual = self.rng.u64(nanos / 8..=nanos);
        let rare = if self.rng.u8(..100) == 0 { 20 } else { 1 };
        Duration::from_nanos(usual * rare).saturating_mul(self.servers[server].slow_times).min(Duration::from_secs(3))
    }
}
