//! Clients: commands that no two are alike, reads, and now and then a snapshot.

use std::time::Duration;

use bytes::Bytes;

use super::super::history::Request;
use super::super::operations::Command;
use super::super::trace::Kind;
use super::{Checked, Phase, What, World, group_id};
use crate::driver::{Consistency, Event, Proposal, Role, Ticket};
use crate::types::{Proposed, SessionKey};

/// The origin of proposals made where the server does not lead.
pub(super) const FORWARDED: u64 = 4;

/// What a command of a session says, in every try of it.
pub(super) type Said = (u64, u8);

/// A command, ready to be proposed.
pub(super) struct Drawn {
    pub(super) proposed: Proposed,
    pub(super) payload_crc: u32,
    pub(super) command: Command,
    pub(super) said: Said,
}

impl World {
    /// A client asks some server for something, and the next one is scheduled.
    pub(super) fn request(&mut self) -> Checked {
        let mean = u64::try_from(self.profile.request_interval.as_micros()).unwrap_or(u64::MAX);
        let micros = match self.rng.u8(..8) {
            0 => self.rng.u64(..mean / 10),
            1 => self.rng.u64(..mean * 6),
            _ => self.rng.u64(..mean * 3 / 2),
        };
        if self.phase == Phase::Faults {
            self.queue.after(Duration::from_micros(micros), What::Request);
        }
        let group = self.rng.usize(..self.profile.groups);
        let likely = self.leaders[group].filter(|_| self.rng.u8(..8) > 2);
        let server = likely.unwrap_or_else(|| self.rng.usize(..self.profile.servers));
        match self.rng.u8(..64) {
            0 => self.ask_snapshot(server, group),
            1..10 => self.read(server, group),
            _ => {
                let count = self.rng.usize(1..=self.profile.max_batch);
                self.propose(server, group, count)
            }
        }
    }

    pub(super) fn is_up(&self, server: usize, group: usize) -> bool {
        self.servers[server].process.as_ref().is_some_and(|process| process.started[group])
    }

    /// Proposes so many commands at once.
    pub(super) fn propose(&mut self, server: usize, group: usize, count: usize) -> Checked {
        if !self.is_up(server, group) {
            return Ok(());
        }
        let process = self.servers[server].process.as_ref();
        let observed = process.and_then(|process| process.driver.observe(group_id(group)));
        let origin = if observed.is_some_and(|it| it.role == Role::Leader) { 0 } else { FORWARDED };
        let mut proposals = Vec::with_capacity(count);
        let (mut first_tag, mut total) = (0, 0);
        for _ in 0..count {
            let Drawn { proposed, payload_crc, command, .. } = self.command(group, None);
            let epoch = self.servers[server].epoch;
            let tag = self.history.begin(group, server, epoch, Request::Propose { payload_crc });
            self.operations[group].asks(tag, command, false);
            if proposals.is_empty() {
                first_tag = tag;
            }
            total += proposed.payload.len() as u64;
            proposals.push(Proposal { ticket: Ticket { origin, tag }, proposed });
        }
        self.note(server, Kind::Propose, [count as u64, first_tag, group as u64 + 1, total]);
        self.feed(server, Event::Propose { group: group_id(group), proposals })
    }

    /// A command, of a session or not, whose CRC tells it from all others; a retry too, so that a log shows which is which.
    /// One of a session says again what it said at first, if it did.
    pub(super) fn command(&mut self, group: usize, key: Option<(&SessionKey, Option<Said>)>) -> Drawn {
        let generation = self.operations[group].generation();
        let most = self.profile.max_command_bytes;
        let is_long = self.rng.u8(..if most > 100_000 { 24 } else { 4 }) == 0;
        let length = 9 + self.rng.usize(..=if is_long { most - 9 } else { most.min(200) - 9 });
        self.coverage.large_entries += u64::from(length > 128 << 10);
        let mut data = vec![self.rng.u8(..); length];
        loop {
            data[..8].copy_from_slice(&self.rng.u64(..).to_le_bytes());
            data[8] = self.rng.u8(..);
            let said = Command::write(&mut data, generation, key.and_then(|(_, said)| said));
            let command = Command::read(&data);
            let proposed = match key {
                Some((key, _)) => Proposed::in_session(key, &data),
                None => Bytes::copy_from_slice(&data).into(),
            };
            let payload_crc = crc32c::crc32c(&proposed.payload);
            if self.history.is_new(payload_crc) {
                return Drawn { proposed, payload_crc, command, said };
            }
        }
    }

    fn read(&mut self, server: usize, group: usize) -> Checked {
        if !self.is_up(server, group) {
            return Ok(());
        }
        let acknowledged = self.history.acknowledged(group);
        let (request, consistency, number, floor) = if self.rng.u8(..3) == 0 {
            let floor = self.rng.u64(..=acknowledged);
            (Request::ReadAtLeast { floor }, Consistency::AtLeast(floor), 1, floor)
        } else if !self.profile.group_settings.lease.is_zero() && self.rng.bool() {
            (Request::ReadByLease { floor: acknowledged }, Consistency::Lease, 2, acknowledged)
        } else {
            (Request::ReadLinearizable { floor: acknowledged }, Consistency::Linearizable, 0, acknowledged)
        };
        let epoch = self.servers[server].epoch;
        let tag = self.history.begin(group, server, epoch, request);
        self.note(server, Kind::Read, [tag, group as u64 + 1, number, floor]);
        if !matches!(request, Request::ReadAtLeast { .. }) {
            let operations = &mut self.operations[group];
            operations.reads(tag, operations.key_of_read(tag));
        }
        if consistency == Consistency::Lease {
            self.count_lease(server, group);
        }
        let ticket = Ticket { origin: 1, tag };
        self.feed(server, Event::Read { group: group_id(group), ticket, consistency })
    }

    pub(super) fn ask_snapshot(&mut self, server: usize, group: usize) -> Checked {
        if !self.is_up(server, group) {
            return Ok(());
        }
        let epoch = self.servers[server].epoch;
        let tag = self.history.begin(group, server, epoch, Request::Snapshot);
        self.note(server, Kind::AskSnapshot, [tag, group as u64 + 1]);
        self.feed(server, Event::Snapshot { group: group_id(group), ticket: Ticket { origin: 2, tag } })
    }
}
