//! Doing what a fault says.

use std::time::Duration;

use super::super::faults::{Fault, MAX_SERVERS, Masks, draw};
use super::super::history::Ended;
use super::super::host::State;
use super::super::invariants::Violation;
use super::super::trace::Kind;
use super::{Checked, Phase, What, World, group_id};
use crate::driver::{Event, Ticket};

impl World {
    /// A fault comes, and the next one is scheduled.
    pub(super) fn fault(&mut self) -> Checked {
        if self.phase != Phase::Faults {
            return Ok(());
        }
        let mean = u64::try_from(self.profile.fault_interval.as_micros()).unwrap_or(u64::MAX);
        let delay = Duration::from_micros(self.rng.u64(..mean * 2));
        self.queue.after(delay, What::Fault);
        match draw(&self.profile, &mut self.rng) {
            Some(fault) => self.inflict(fault),
            None => Ok(()),
        }
    }

    fn inflict(&mut self, fault: Fault) -> Checked {
        match fault {
            Fault::Kill { server } => self.crash(server, false),
            Fault::PowerCut { server } => self.crash(server, true),
            Fault::KillThenPowerCut { server, after } => {
                self.kill(server);
                self.queue.after(after, What::PowerCut { server });
            }
            Fault::Close { server } => return self.close(server),
            Fault::Pause { server, lasts } => {
                self.pause(server, lasts);
            }
            Fault::Partition { masks } => {
                self.coverage.partitions += 1;
                self.block(masks);
                // Flapping links heal within a heartbeat or two.
                let millis = if self.rng.u8(..3) == 0 { 100 } else { 2_000 };
                let delay = Duration::from_millis(self.rng.u64(..millis));
                self.queue.after(delay, What::Heal);
            }
            Fault::BreakStream => {
                let streams = self.network.open_streams();
                if !streams.is_empty() {
                    let stream = streams[self.rng.usize(..streams.len())];
                    self.coverage.streams_broken += 1;
                    self.note(None, Kind::Break, [stream as u64]);
                    self.network.break_stream(stream, &mut self.queue, &mut self.rng);
                }
            }
            Fault::SlowDisk { server, times } => {
                self.note(server, Kind::SlowDisk, [u64::from(times)]);
                self.servers[server].slow_times = times;
                self.let_disk_heal(server);
            }
            Fault::FailWrite { server } => {
                if self.may_stop(server) {
                    self.note(server, Kind::FailWrite, []);
                    self.servers[server].disk.fail_next_log_write();
                }
            }
            Fault::FailSync { server } => {
                if self.may_stop(server) {
                    self.note(server, Kind::FailSync, []);
                    self.servers[server].disk.fail_next_sync();
                }
            }
            Fault::FullDisk { server, room_bytes } => {
                self.note(server, Kind::FullDisk, [room_bytes]);
                self.servers[server].disk.set_room(Some(room_bytes));
                self.servers[server].is_full = true;
                if let Some(process) = self.servers[server].process.as_mut().filter(|process| !process.is_ready) {
                    process.may_stop = true;
                }
                self.let_disk_heal(server);
            }
            Fault::Wipe { server } => self.wipe(server),
            Fault::AllDown { is_power_cut } => {
                for server in 0..self.profile.servers {
                    if is_power_cut {
                        self.power_cut(server);
                    } else {
                        self.kill(server);
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn pause(&mut self, server: usize, lasts: Duration) {
        self.coverage.pauses += 1;
        self.note(server, Kind::Pause, [u64::try_from(lasts.as_micros()).unwrap_or(u64::MAX)]);
        self.servers[server].paused_until = self.queue.now() + lasts;
    }

    /// Blocks links for a while.
    pub(super) fn partition(&mut self, masks: Masks, lasts: Duration) {
        self.coverage.partitions += 1;
        self.block(masks);
        self.queue.after(lasts, What::Heal);
    }

    pub(super) fn block(&mut self, masks: Masks) {
        self.note(None, Kind::Partition, masks.map(u64::from));
        self.network.block(masks, &mut self.queue, &mut self.rng);
    }

    /// Between two events, or within the next turn.
    fn crash(&mut self, server: usize, is_power_cut: bool) {
        if self.rng.bool() {
            let effects = self.rng.usize(..6);
            if let Some(process) = &mut self.servers[server].process {
                process.dies_after = Some(effects);
            }
        } else if is_power_cut {
            self.power_cut(server);
        } else {
            self.kill(server);
        }
    }

    fn let_disk_heal(&mut self, server: usize) {
        let delay = Duration::from_millis(self.rng.u64(100..3_000));
        self.queue.after(delay, What::DiskHeals { server });
    }

    /// Its disk may fail: it may stop, and will be started again.
    fn may_stop(&mut self, server: usize) -> bool {
        let process = self.servers[server].process.as_mut();
        process.is_some_and(|process| {
            process.may_stop = true;
            true
        })
    }

    pub(super) fn disk_heals(&mut self, server: usize) {
        self.note(server, Kind::RoomAgain, []);
        let this = &mut self.servers[server];
        this.slow_times = 1;
        this.is_full = false;
        this.disk.set_room(None);
    }

    pub(super) fn heal(&mut self) {
        self.note(None, Kind::Heal, []);
        self.network.block([0; MAX_SERVERS], &mut self.queue, &mut self.rng);
    }

    /// An operator empties a directory: never of so many servers that the rest could not go on.
    fn wipe(&mut self, server: usize) {
        let minority = (self.profile.servers - 1) / 2;
        let others_wiped =
            self.servers.iter().enumerate().filter(|&(other, it)| other != server && it.was_wiped).count();
        let takes_part = |other: &usize| {
            *other != server && self.invariants.iter().all(|group| !group.is_formed() || group.takes_part(*other))
        };
        let left = (0..self.profile.servers).filter(takes_part).count();
        if others_wiped + 1 > minority || left <= self.profile.servers / 2 {
            return;
        }
        self.note(server, Kind::Wipe, []);
        self.kill(server);
        let this = &mut self.servers[server];
        this.disk.wipe();
        this.was_wiped = true;
        this.was_killed = false;
        this.identity = None;
        this.saved.fill(State::default());
        self.comparing.iter_mut().for_each(|group| group.wiped(server));
        let this = &mut self.servers[server];
        this.synced_terms.fill(0);
        self.recovering.take_if(|recovering| *recovering == server);
        self.may_refuse = true;
        for group in &mut self.invariants {
            if group.is_formed() {
                self.coverage.wipes += 1;
            } else {
                self.coverage.wipes_while_forming += 1;
            }
            group.wiped(server);
        }
    }

    /// The host closes the server: everything open ends, what the host still has to apply as unknown.
    fn close(&mut self, server: usize) -> Checked {
        if self.servers[server].process.is_none() {
            return Ok(());
        }
        self.note(server, Kind::CloseServer, []);
        self.coverage.closes += 1;
        let epoch = self.servers[server].epoch;
        self.feed(server, Event::Close)?;
        self.end_turn(server)?;
        if self.process(server, epoch).is_none() {
            return Ok(());
        }
        for group in 0..self.profile.groups {
            let Some(process) = self.process(server, epoch) else { return Ok(()) };
            let host = &mut process.hosts[group];
            let mut tickets: Vec<Ticket> = host.reads.drain(..).map(|(_, ticket)| ticket).collect();
            for task in host.tasks.drain(..) {
                if let super::super::host::Task::Apply { tickets: more, .. } = task {
                    tickets.extend(more.into_iter().map(|(_, ticket)| ticket));
                }
            }
            for ticket in tickets {
                self.end_request(server, group_id(group), ticket, Ended::Unknown)?;
            }
        }
        if let Some(open) = self.history.first_open(server, epoch, None) {
            let what = format!("server {server} closes, and {open:?} has no end");
            return Err(Violation::new("every request ends, also at close", what));
        }
        self.kill(server);
        Ok(())
    }
}
