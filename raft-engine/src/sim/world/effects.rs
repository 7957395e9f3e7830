//! What drivers want done: to the disk, to the network, to the host.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::attacks::Moment;
use super::super::disk::Lane;
use super::super::history::{Ended, Request};
use super::super::host::Task;
use super::super::invariants::Violation;
use super::super::network::{Place, Sending};
use super::super::trace::Kind;
use super::{Checked, What, World, group_at, server_at};
use crate::driver::{ConnectionId, Effect, Event, Frame, NotApplied, Notice, Outcome, Role, Ticket};
use crate::types::{DiskStep, DiskWork, DiskWorkId, GroupId};

impl World {
    /// Carries out effects in order; a crash may come between any two.
    pub(super) fn carry_out(&mut self, server: usize, effects: Vec<Effect>) -> Checked {
        if effects.is_empty() {
            return Ok(());
        }
        let dies_after = self.servers[server].process.as_mut().and_then(|process| process.dies_after.take());
        for (done, effect) in effects.into_iter().enumerate() {
            if dies_after.is_some_and(|dies_after| done >= dies_after) {
                self.coverage.crashes_inside_a_turn += 1;
                if self.rng.bool() {
                    self.kill(server);
                } else {
                    self.power_cut(server);
                }
                return Ok(());
            }
            self.effect(server, effect)?;
        }
        if dies_after.is_some() {
            self.kill(server);
        }
        Ok(())
    }

    fn effect(&mut self, server: usize, effect: Effect) -> Checked {
        match effect {
            Effect::Disk { id, work } => self.submit(server, id, work),
            Effect::Dial { connection, address } => self.dial(server, connection, &address),
            Effect::Send { connection, frame } => return self.send(server, connection, &frame),
            Effect::Close { connection } => {
                self.note(server, Kind::CloseConnection, [connection.0]);
                if let Some(process) = &mut self.servers[server].process {
                    process.dialling.remove(&connection);
                    process.sent.remove(&connection);
                }
                self.network.close(server, connection, &mut self.queue, &mut self.rng);
            }
            Effect::Apply { group, entries, tickets } => {
                let (first, last) = match (entries.first(), entries.last()) {
                    (Some(first), Some(last)) => (first.index, last.index),
                    _ => return Err(Violation::new("nothing is handed over in vain", "an empty batch".into())),
                };
                self.note(server, Kind::Apply, [group.0, first, last, tickets.len() as u64]);
                let held =
                    self.servers[server].process.as_ref().map_or(0, |process| process.hosts[group_at(group)].held);
                let known = entries.partition_point(|entry| entry.index <= held);
                self.invariants[group_at(group)].handed(server, &entries[known..])?;
                let (entries, tickets) = (VecDeque::from(entries), VecDeque::from(tickets));
                return self.host_task(server, group, Task::Apply { entries, tickets, done: 0 });
            }
            Effect::Complete { group, tickets, outcome } => {
                for ticket in tickets {
                    self.complete(server, group, ticket, &outcome)?;
                }
            }
            Effect::ReadReady { group, ticket, index } => {
                self.note(server, Kind::ReadReady, [group.0, ticket.tag, index]);
                let Some(process) = &mut self.servers[server].process else { return Ok(()) };
                process.hosts[group_at(group)].reads.push((index, ticket));
                self.answer_reads(server, group_at(group))?;
            }
            Effect::BeginSnapshot { group, index } => {
                self.note(server, Kind::BeginSnapshot, [group.0, index]);
                self.host_task(server, group, Task::BeginSnapshot { index })?;
                self.moment(server, group_at(group), Moment::SnapshotBegun);
            }
            Effect::SnapshotMore { group } => {
                self.note(server, Kind::SnapshotMore, [group.0]);
                return self.host_task(server, group, Task::SnapshotMore);
            }
            Effect::ReleaseSnapshot { group } => {
                self.note(server, Kind::ReleaseSnapshot, [group.0]);
                return self.host_task(server, group, Task::ReleaseSnapshot);
            }
            Effect::Restore { group, file, meta } => {
                self.note(server, Kind::Restore, [group.0, meta.position.index]);
                self.invariants[group_at(group)].restoring(server, meta.position.index)?;
                return self.host_task(server, group, Task::Restore { file, meta, with_host: true });
            }
            Effect::RestoreSessions { group, file, meta } => {
                self.note(server, Kind::RestoreSessions, [group.0, meta.position.index]);
                return self.host_task(server, group, Task::Restore { file, meta, with_host: false });
            }
            Effect::Started { group, result } => return self.started(server, group, result),
            Effect::Notice(notice) => return self.notice(server, notice),
        }
        Ok(())
    }

    fn submit(&mut self, server: usize, id: DiskWorkId, work: DiskWork) {
        match &work {
            DiskWork::WriteLog { offset, data, .. } => {
                let crc = u64::from(crc32c::crc32c(data.as_slice()));
                self.note(server, Kind::SubmitLog, [id.0, *offset, data.len() as u64, crc]);
            }
            DiskWork::Job(steps) => self.note(server, Kind::SubmitJob, [id.0, steps.len() as u64]),
            DiskWork::Read { offset, length, .. } => {
                self.note(server, Kind::SubmitRead, [id.0, *offset, *length as u64]);
            }
        }
        let delay = self.disk_delay(server);
        let now = self.queue.now();
        let this = &mut self.servers[server];
        let epoch = this.epoch;
        match this.disk.submit(id, work) {
            Lane::Log => {
                // In the order of their submission: a later one may be done earlier, and is not said to be.
                let at = (now + delay).max(this.last_log_at);
                this.last_log_at = at;
                self.queue.at(at, What::DiskLog { server, epoch });
            }
            Lane::Job { was_idle: true } => self.queue.after(delay, What::DiskStep { server, epoch }),
            Lane::Job { was_idle: false } => {}
            Lane::Read => self.queue.after(delay, What::DiskRead { server, epoch, id }),
        }
    }

    /// Counts and records a step of a job.
    pub(super) fn count_step(&mut self, server: usize, id: DiskWorkId, step: &DiskStep, has_failed: bool) {
        let (number, file) = match step {
            DiskStep::CreateZeroed { file, .. } => (0, Some(file)),
            DiskStep::Create { file, .. } => (1, Some(file)),
            DiskStep::Write { file, .. } => (2, Some(file)),
            DiskStep::WriteZeros { file, .. } => (3, Some(file)),
            DiskStep::Sync { file } => (4, Some(file)),
            DiskStep::Rename { to, .. } => (5, Some(to)),
            DiskStep::Remove { file } => (6, Some(file)),
            DiskStep::SyncDirectory => (7, None),
        };
        self.coverage.segments_made += u64::from(number == 0);
        self.coverage.files_renamed += u64::from(number == 5);
        self.note(server, Kind::DoneStep, [id.0, number, u64::from(has_failed)]);
        if let Some(file) = file.filter(|_| self.trace.is_read()) {
            let text = format!("    {}", file.0);
            self.trace.comment(self.queue.now(), server, text);
        }
    }

    fn dial(&mut self, server: usize, connection: ConnectionId, address: &str) {
        let this = &mut self.servers[server];
        let from = Place { server, epoch: this.epoch, connection };
        if let Some(process) = &mut this.process {
            process.dialling.insert(connection);
        }
        // Any port of a server is its own: it moves, and is still found.
        let to = address.strip_prefix('s').and_then(|rest| rest.split_once(':')).and_then(|(to, _)| to.parse().ok());
        let delay = self.network.latency(&mut self.rng);
        match to.filter(|&to: &usize| to < self.profile.servers) {
            Some(to) => {
                self.note(server, Kind::Dial, [to as u64 + 1, connection.0]);
                self.dials_since_faults += 1;
                self.queue.after(delay, What::DialArrives { from, to });
            }
            None => self.queue.after(delay, What::DialFails { from, is_refused: false }),
        }
    }

    pub(super) fn dial_arrives(&mut self, from: Place, to: usize) -> Checked {
        let is_wanted = |process: &mut super::Process| process.dialling.contains(&from.connection);
        if !self.process(from.server, from.epoch).is_some_and(is_wanted) {
            return Ok(());
        }
        if self.network.is_blocked(from.server, to) || self.network.is_blocked(to, from.server) {
            // The system tries again and again, for a while.
            let (delay, what) = if self.rng.u8(..4) == 0 {
                (self.rng.u64(..1_000), What::DialFails { from, is_refused: false })
            } else {
                (self.rng.u64(50..500), What::DialArrives { from, to })
            };
            self.queue.after(Duration::from_millis(delay), what);
            return Ok(());
        }
        let delay = self.network.latency(&mut self.rng);
        let this = &mut self.servers[to];
        let epoch = this.epoch;
        let Some(process) = &mut this.process else {
            self.queue.after(delay, What::DialFails { from, is_refused: true });
            return Ok(());
        };
        let accepted = ConnectionId(process.next_accepted);
        process.next_accepted += 2;
        let stream = self.network.connect(from, Place { server: to, epoch, connection: accepted });
        self.note(to, Kind::Accepted, [accepted.0, stream as u64]);
        self.note(from.server, Kind::Dialled, [from.connection.0]);
        if let Some(process) = self.process(from.server, from.epoch) {
            process.dialling.remove(&from.connection);
        }
        self.feed(from.server, Event::Dialled { connection: from.connection })?;
        self.feed(to, Event::Accepted { connection: accepted })
    }

    pub(super) fn dial_fails(&mut self, from: Place, is_refused: bool) -> Checked {
        let connection = from.connection;
        if !self.process(from.server, from.epoch).is_some_and(|process| process.dialling.remove(&connection)) {
            return Ok(());
        }
        self.note(from.server, Kind::DialFailed, [connection.0, u64::from(is_refused)]);
        self.feed(from.server, Event::Closed { connection, refused: is_refused })
    }

    fn send(&mut self, server: usize, connection: ConnectionId, frame: &Frame) -> Checked {
        let Some(to) = self.network.peer(server, connection) else { return Ok(()) };
        let bytes = frame.to_bytes();
        let crc = u64::from(crc32c::crc32c(&frame.head));
        self.note(server, Kind::SendFrame, [connection.0, to as u64 + 1, bytes.len() as u64, crc]);
        let core = crate::driver::core_messages(frame);
        for (group, message) in &core {
            self.judge_message(server, to, group_at(*group), message)?;
        }
        let is_core = !core.is_empty();
        let length = bytes.len();
        let sending = self.network.send(server, connection, bytes, is_core, &mut self.queue, &mut self.rng);
        match sending {
            Sending::OnItsWay => {}
            Sending::Lost => {
                self.coverage.frames_lost += u64::from(is_core);
                self.note(server, Kind::Lost, [length as u64, to as u64 + 1]);
            }
            Sending::Doubled => {
                self.coverage.frames_doubled += 1;
                self.note(server, Kind::Doubled, [to as u64 + 1]);
            }
            Sending::Late => self.coverage.frames_late += 1,
        }
        let delay = Duration::from_nanos(self.rng.u64(..1_000_000));
        let this = &mut self.servers[server];
        let epoch = this.epoch;
        let Some(process) = &mut this.process else { return Ok(()) };
        *process.sent.entry(connection).or_default() += length;
        if !std::mem::replace(&mut process.is_sent_scheduled, true) {
            self.queue.after(delay, What::Sent { server, epoch });
        }
        Ok(())
    }

    /// The system has taken bytes; where the link is blocked, no more than a socket's buffer.
    pub(super) fn sent(&mut self, server: usize, epoch: u32) -> Checked {
        let Some(process) = self.process(server, epoch) else { return Ok(()) };
        process.is_sent_scheduled = false;
        let mut is_stuck = false;
        for (connection, bytes) in std::mem::take(&mut process.sent) {
            let Some(to) = self.network.peer(server, connection) else { continue };
            let is_blocked = self.network.is_blocked(server, to);
            let Some(process) = self.process(server, epoch) else { return Ok(()) };
            if is_blocked && bytes > 16_000 {
                process.sent.insert(connection, bytes);
                is_stuck = true;
                continue;
            }
            self.note(server, Kind::Sent, [connection.0, bytes as u64]);
            self.feed(server, Event::Sent { connection, bytes })?;
        }
        let Some(process) = self.process(server, epoch) else { return Ok(()) };
        if is_stuck && !std::mem::replace(&mut process.is_sent_scheduled, true) {
            self.queue.after(Duration::from_millis(20), What::Sent { server, epoch });
        }
        Ok(())
    }

    fn complete(&mut self, server: usize, group: GroupId, ticket: Ticket, outcome: &Outcome) -> Checked {
        let ended = match outcome {
            Outcome::NotApplied(reason) => {
                self.coverage.proposals_overloaded += u64::from(*reason == NotApplied::Overloaded);
                self.coverage.proposals_disk_full += u64::from(*reason == NotApplied::DiskFull);
                self.count_refusal(ticket.tag, reason);
                Ended::NotApplied
            }
            Outcome::Unknown(_) => Ended::Unknown,
            Outcome::SnapshotTaken { index }
            | Outcome::MembersChanged { index }
            | Outcome::ChangeCancelled { index } => Ended::Applied(*index),
            Outcome::LeadershipTransferred { .. } => Ended::Applied(0),
            Outcome::DigestsChecked(check) => {
                self.compared(group_at(group), ticket.tag, check)?;
                Ended::Applied(check.index)
            }
        };
        self.end_request(server, group, ticket, ended)
    }

    /// Counts why an operator's request came to nothing.
    fn count_refusal(&mut self, tag: u64, reason: &NotApplied) {
        let marks = &mut self.coverage;
        match (self.history.request(tag), reason) {
            (Some(Request::Change), NotApplied::Cancelled) => marks.changes_cancelled += 1,
            (Some(Request::Change), NotApplied::GivenUp(why)) if why.contains("catch up") => {
                marks.changes_given_up += 1
            }
            (Some(Request::Change), NotApplied::GivenUp(_)) => marks.changes_not_met += 1,
            (Some(Request::Change), NotApplied::Invalid(why)) if why.contains("joint phase") => {
                marks.cancellations_too_late += 1;
            }
            (Some(Request::Transfer), NotApplied::GivenUp(why)) if why.contains("in time") => {
                marks.transfers_timed_out += 1;
            }
            (_, NotApplied::Transferring) => marks.proposals_transferring += 1,
            _ => {}
        }
    }

    /// A request of a client ends.
    pub(super) fn end_request(&mut self, server: usize, group: GroupId, ticket: Ticket, ended: Ended) -> Checked {
        let outcome = match ended {
            Ended::Applied(index) => index,
            Ended::NotApplied => u64::MAX,
            Ended::Unknown => u64::MAX - 1,
        };
        self.note(server, Kind::Complete, [group.0, ticket.tag, ticket.origin, outcome]);
        self.count_outcome(ticket, ended);
        if ended == Ended::NotApplied {
            self.operations[group_at(group)].not_applied(ticket.tag);
        }
        let epoch = self.servers[server].epoch;
        self.history.end(group_at(group), server, epoch, ticket.tag, ended)
    }

    /// A group was started, or not: that may happen only where members differ or a directory was wiped.
    fn started(&mut self, server: usize, group: GroupId, result: Result<(), String>) -> Checked {
        let Err(reason) = result else { return Ok(()) };
        self.coverage.refusals += 1;
        self.trace.comment(self.queue.now(), server, format!("group {group} is not started: {reason}"));
        let this = &mut self.servers[server];
        if !self.may_refuse && !this.process.as_ref().is_some_and(|process| process.may_stop) {
            let what = format!("server {server} does not start group {group}: {reason}");
            return Err(Violation::new("a group starts again with the arguments that formed it", what));
        }
        if let Some(process) = &mut this.process {
            process.started[group_at(group)] = false;
        }
        Ok(())
    }

    fn notice(&mut self, server: usize, notice: Notice) -> Checked {
        let now = self.queue.now();
        match &notice {
            Notice::Role { group, role, term, leader } => {
                let numbers = [group.0, *role as u64, *term, leader.map_or(0, |leader| leader.0)];
                self.note(server, Kind::Role, numbers);
                if *role == Role::Leader {
                    self.leaders[group_at(*group)] = Some(server);
                }
                return Ok(());
            }
            Notice::Refused { .. } => {
                self.coverage.refusals += 1;
                let is_old = self.invariants[0].was_left_behind(server);
                self.coverage.refusals_of_old_groups += u64::from(is_old);
            }
            Notice::ServerStopped { .. } | Notice::GroupStopped { .. } => self.coverage.server_stops += 1,
            Notice::Removed { .. } => self.coverage.removals += 1,
            Notice::Formed { .. } => self.coverage.joins += u64::from(server >= self.profile.initial),
            Notice::Diverged { group, check } => self.judge_difference(group_at(*group), check)?,
            Notice::Configuration { .. } | Notice::Warning { .. } => {}
        }
        if self.trace.is_read() {
            self.trace.comment(now, server, format!("notice: {notice:?}"));
        }
        if let Notice::GroupStopped { group, .. } = notice
            && self.is_odd(server, group_at(group))
        {
            self.odd_one_stopped(server);
            return Ok(());
        }
        let this = &mut self.servers[server];
        let Some(process) = &mut this.process else { return Ok(()) };
        match notice {
            Notice::ServerStopped { reason } | Notice::GroupStopped { reason, .. } => {
                process.is_stopped = true;
                if !process.may_stop && !self.may_refuse {
                    let what = format!("server {server} stopped: {reason}; {}", super::super::report::last_panic());
                    return Err(Violation::new("a server stops only where its disk fails or it is refused", what));
                }
                let epoch = this.epoch;
                let delay = Duration::from_millis(self.rng.u64(..1_000));
                self.queue.after(delay, What::Restart { server, epoch });
            }
            Notice::Refused { reason, peer, .. } if !self.may_refuse => {
                let what = format!("server {server} and {:?}: {reason}", peer.map(server_at));
                return Err(Violation::new("nobody is refused without a reason", what));
            }
            _ => {}
        }
        Ok(())
    }
}
