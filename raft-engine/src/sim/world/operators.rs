//! An operator who changes members and hands leadership over, at any time, whatever else goes on.

use std::time::Duration;

use super::super::history::Request;
use super::super::trace::Kind;
use super::{Checked, Phase, What, World, group_id, server_at, server_id};
use crate::driver::{Event, Ticket};
use crate::types::{Configuration, MemberChange, MemberRole, ServerId};

impl World {
    /// The operator asks some server for something, and the next wish is scheduled.
    pub(super) fn operate(&mut self) -> Checked {
        let Some(interval) = self.profile.operator_interval else { return Ok(()) };
        if self.phase != Phase::Faults {
            return Ok(());
        }
        let mean = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
        let delay = Duration::from_micros(self.rng.u64(..mean * 2));
        self.queue.after(delay, What::Operate);
        let group = self.rng.usize(..self.profile.groups);
        let likely = self.leaders[group].filter(|_| self.rng.u8(..8) != 0);
        let server = likely.unwrap_or_else(|| self.rng.usize(..self.profile.servers));
        let patience = Duration::from_millis(self.rng.u64(20..4_000));
        match self.rng.u8(..16) {
            0..3 => {
                let to = self.rng.usize(..=self.profile.servers);
                let to = (to < self.profile.servers).then(|| server_id(to));
                self.transfer(server, group, to, patience)
            }
            3 => self.cancel(server, group),
            _ => self.change(server, group, patience),
        }
    }

    pub(super) fn transfer(
        &mut self,
        server: usize,
        group: usize,
        to: Option<ServerId>,
        patience: Duration,
    ) -> Checked {
        let Some((tag, ticket)) = self.wish(server, group, Request::Transfer) else { return Ok(()) };
        self.note(server, Kind::TransferLeadership, [tag, group as u64 + 1, to.map_or(0, |to| to.0)]);
        self.feed(server, Event::TransferLeadership { group: group_id(group), ticket, to, patience })
    }

    fn cancel(&mut self, server: usize, group: usize) -> Checked {
        let Some((tag, ticket)) = self.wish(server, group, Request::Change) else { return Ok(()) };
        self.note(server, Kind::CancelChange, [tag, group as u64 + 1]);
        self.feed(server, Event::CancelChange { group: group_id(group), ticket })
    }

    fn change(&mut self, server: usize, group: usize, patience: Duration) -> Checked {
        let Some(process) = &self.servers[server].process else { return Ok(()) };
        let status = process.driver.group_status(group_id(group));
        let Some(configuration) = status.and_then(|status| status.configuration) else { return Ok(()) };
        let changes: Vec<_> = (0..self.rng.usize(1..=3)).map(|_| self.draw_change(&configuration)).collect();
        let Some((tag, ticket)) = self.wish(server, group, Request::Change) else { return Ok(()) };
        self.note(server, Kind::ChangeMembers, [tag, group as u64 + 1, changes.len() as u64]);
        if self.trace.is_read() {
            self.trace.comment(self.queue.now(), server, format!("    {changes:?} within {patience:?}"));
        }
        self.feed(server, Event::ChangeMembers { group: group_id(group), ticket, changes, patience })
    }

    /// Mostly what can be, of members as one server knows them.
    fn draw_change(&mut self, configuration: &Configuration) -> MemberChange {
        let is_new = |server: &usize| server_id(*server) > configuration.highest_id;
        let new: Vec<usize> = (0..self.profile.servers).filter(is_new).collect();
        let member = configuration.members[self.rng.usize(..configuration.members.len())].id;
        let role = |world: &mut Self| match world.rng.u8(..4) {
            0 => MemberRole::Learner,
            _ => MemberRole::Voter,
        };
        match self.rng.u8(..16) {
            0..6 if !new.is_empty() => {
                // Ids go up: mostly the next one, so that there are some left.
                let server = if self.rng.u8(..4) == 0 { new[self.rng.usize(..new.len())] } else { new[0] };
                let (role, priority) = (role(self), self.rng.u8(..3));
                let address = self.address_of(server);
                MemberChange::Add { id: server_id(server), role, priority, address, context: Vec::new() }
            }
            0..9 => MemberChange::Remove { id: member },
            9..12 => MemberChange::SetRole { id: member, role: role(self) },
            12 => MemberChange::SetPriority { id: member, priority: self.rng.u8(..3) },
            13 => MemberChange::SetAddress { id: member, address: self.address_of(server_at(member)) },
            14 if !self.profile.group_settings.lease.is_zero() => {
                let mut settings = configuration.settings.clone();
                settings.lease = if self.rng.bool() { Duration::ZERO } else { self.profile.group_settings.lease };
                MemberChange::SetSettings(settings)
            }
            14 if self.profile.session_clients > 0 => {
                let mut settings = configuration.settings.clone();
                settings.session_expiry = Duration::from_millis(self.rng.u64(100..5_000));
                settings.max_sessions = self.rng.u32(1..10);
                settings.session_reply_bytes = self.rng.u32(..300);
                self.coverage.session_settings_changed += 1;
                MemberChange::SetSettings(settings)
            }
            // What cannot be.
            _ => MemberChange::Remove { id: ServerId(99) },
        }
    }

    fn address_of(&mut self, server: usize) -> String {
        format!("s{server}:{}", self.rng.u8(1..9))
    }

    /// Begins a request of the operator, if the server is there to be asked.
    fn wish(&mut self, server: usize, group: usize, request: Request) -> Option<(u64, Ticket)> {
        let process = self.servers[server].process.as_ref().filter(|process| process.started[group]);
        process?;
        let epoch = self.servers[server].epoch;
        let tag = self.history.begin(group, server, epoch, request);
        Some((tag, Ticket { origin: 3, tag }))
    }
}
