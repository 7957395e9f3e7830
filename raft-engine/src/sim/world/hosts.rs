//! The hosts' apply threads: tasks in order, each after a while.

use std::time::Duration;

use super::super::disk::VisibleFiles;
use super::super::history::{Ended, Request};
use super::super::host::{Host, Source, State, Task};
use super::super::invariants::Violation;
use super::super::trace::Kind;
use super::{Checked, What, World, group_at, group_id};
use crate::driver::{Event, Fate, SessionsReader, SnapshotReader, Ticket};
use crate::types::{Entry, EntryKind, FileName, GroupId, ReadFiles, SessionKey, SnapshotMeta, SnapshotSection};

impl World {
    /// Queues a task of a group's host.
    pub(super) fn host_task(&mut self, server: usize, group: GroupId, task: Task) -> Checked {
        let group = group_at(group);
        let Some(process) = &mut self.servers[server].process else { return Ok(()) };
        let host = &mut process.hosts[group];
        host.tasks.push_back(task);
        if host.is_stopped {
            return self.end_tasks(server, group);
        }
        self.schedule_host(server, group);
        Ok(())
    }

    fn schedule_host(&mut self, server: usize, group: usize) {
        let nanos = u64::try_from(self.profile.host_latency.as_nanos()).unwrap_or(u64::MAX);
        let mut delay = Duration::from_nanos(self.rng.u64(..=nanos));
        let attacks = self.profile.attacks.ambushes;
        let this = &mut self.servers[server];
        let epoch = this.epoch;
        let Some(process) = &mut this.process else { return };
        let host = &mut process.hosts[group];
        if attacks > 0 && host.is_restoring() && self.attack_rng.u8(..4) == 0 {
            // Long enough for the log to change meanwhile.
            delay += Duration::from_millis(self.attack_rng.u64(..600));
        }
        if !host.tasks.is_empty() && !std::mem::replace(&mut host.is_scheduled, true) {
            self.queue.after(delay, What::Host { server, epoch, group });
        }
    }

    /// The apply thread works off a task, or a part of one.
    pub(super) fn host_turn(&mut self, server: usize, epoch: u32, group: usize) -> Checked {
        let Some(process) = self.process(server, epoch) else { return Ok(()) };
        let host = &mut process.hosts[group];
        host.is_scheduled = false;
        let Some(task) = host.tasks.pop_front() else { return Ok(()) };
        match task {
            Task::Apply { .. } => self.apply(server, group, task)?,
            Task::Restore { file, meta, with_host } => self.restore(server, group, &file, &meta, with_host)?,
            Task::BeginSnapshot { index } => {
                if host.state.applied != index {
                    return Err(Violation::new(
                        "a snapshot begins at what the host has applied",
                        format!("server {server} begins at {index}, and its host is at {}", host.state.applied),
                    ));
                }
                let this = &mut self.servers[server];
                let host = &mut this.process.as_mut().expect("it runs").hosts[group];
                let sessions = host.sessions.freeze();
                host.source = Some(Source::new(&host.state, sessions, &mut self.rng));
            }
            Task::SnapshotMore => {
                let Some(mut source) = host.source.take() else {
                    return Err(Violation::new(
                        "a snapshot is written between its beginning and its release",
                        format!("server {server}"),
                    ));
                };
                let (section, bytes, is_last) = source.next(&mut self.rng);
                self.process(server, epoch).expect("it runs").hosts[group].source = Some(source);
                self.note(server, Kind::SnapshotChunk, [group as u64 + 1, bytes.len() as u64, u64::from(is_last)]);
                self.feed(server, Event::SnapshotChunk { group: group_id(group), section, bytes, is_last })?;
            }
            Task::ReleaseSnapshot => host.source = None,
        }
        self.schedule_host(server, group);
        Ok(())
    }

    fn apply(&mut self, server: usize, group: usize, task: Task) -> Checked {
        let Task::Apply { mut entries, mut tickets, mut done } = task else { return Ok(()) };
        let count = if self.rng.u8(..4) == 0 { self.rng.usize(1..=entries.len()) } else { entries.len() };
        let mut now_done: Vec<_> = entries.drain(..count).collect();
        let digest_entry = self.digest_entry(server, &now_done, entries.is_empty())?;
        let divergence = digest_entry.as_ref().and_then(|entry| self.judged(server, group, entry));
        if divergence.is_some() {
            now_done.pop();
        }
        let (fates, answers) = self.apply_entries(server, group, now_done.clone())?;
        let applied = now_done.last().map_or(0, |entry| entry.index);
        for (entry, fate) in now_done.iter().zip(fates) {
            if let Some(&(position, ticket)) = tickets.front()
                && position == done
            {
                tickets.pop_front();
                let expected = match entry.kind {
                    EntryKind::Command | EntryKind::SessionCommand => {
                        Request::Propose { payload_crc: entry.payload_crc }
                    }
                    _ => Request::Session,
                };
                if self.history.request(ticket.tag) != Some(expected) {
                    return Err(Violation::new(
                        "a ticket comes back with its own entry",
                        format!("server {server}: ticket {} with entry {}", ticket.tag, entry.index),
                    ));
                }
                self.answer_session(server, group, ticket.tag, entry, &fate)?;
                let answer = match &fate {
                    Fate::Applied(at) => State::answered(&answers[*at]),
                    Fate::Repeated(reply) => State::answered(&reply.bytes),
                    _ => None,
                };
                self.operations[group].answered(ticket.tag, answer);
                let ended = match fate {
                    Fate::Applied(_) => Ended::Applied(entry.index),
                    Fate::Done(_) => Ended::Applied(entry.index),
                    Fate::Repeated(reply) => Ended::Applied(reply.position.index),
                    Fate::Forgotten | Fate::Expired | Fate::Unsettled => Ended::Unknown,
                };
                self.end_request(server, group_id(group), ticket, ended)?;
            }
            done += 1;
        }
        let keeps = self.profile.durable_host && self.rng.u8(..4) == 0;
        let this = &mut self.servers[server];
        let Some(process) = &mut this.process else { return Ok(()) };
        let host = &mut process.hosts[group];
        if keeps {
            this.saved[group] = host.state.clone();
            self.comparing[group].saved(server);
        }
        let Some(process) = &mut self.servers[server].process else { return Ok(()) };
        let host = &mut process.hosts[group];
        if entries.is_empty() {
            if let Some((position, ticket)) = tickets.front() {
                let what = format!("server {server}: ticket {} at {position} of {done}", ticket.tag);
                return Err(Violation::new("a ticket belongs to an entry of its batch", what));
            }
        } else {
            host.tasks.push_front(Task::Apply { entries, tickets, done });
        }
        if applied > 0 {
            self.note(server, Kind::HostApplied, [group as u64 + 1, applied]);
            self.answer_reads(server, group)?;
            self.feed(server, Event::Applied { group: group_id(group), index: applied })?;
        }
        match (digest_entry, divergence) {
            (Some(entry), Some(divergence)) => self.diverged(server, group, entry.index, divergence),
            (Some(entry), None) if entry.kind == EntryKind::DigestRequest => self.digest(server, group, entry.index),
            _ => Ok(()),
        }
    }

    /// Takes entries through the sessions, and what these leave to the state machine. What became of each, and what the
    /// state machine answered.
    fn apply_entries(
        &mut self,
        server: usize,
        group: usize,
        entries: Vec<Entry>,
    ) -> Checked<(Vec<Fate>, Vec<Vec<u8>>)> {
        if entries.is_empty() {
            return Ok(Default::default());
        }
        let Some(process) = &mut self.servers[server].process else { return Ok(Default::default()) };
        let Host { state, sessions, reached, held, .. } = &mut process.hosts[group];
        let (first, count) = (entries[0].index, entries.len());
        if first != *reached + 1 {
            let what = format!("server {server}: {first} after {reached}");
            return Err(Violation::new("sessions are taken through every entry, in order", what));
        }
        *reached += count as u64;
        let keys: Vec<_> = entries.iter().map(session_key).collect();
        let ended = sessions.ended();
        let (mut admitted, steps) = sessions.admit(entries, *held);
        let mut answers = Vec::with_capacity(admitted.commands.len());
        for (position, key) in keys.into_iter().enumerate() {
            let index = first + position as u64;
            match admitted.fate(position) {
                Fate::Applied(at) => {
                    let answer = state.apply(&admitted.commands[at]);
                    if let Some(key) = key {
                        self.coverage.session_commands_applied += 1;
                        self.history.applied(admitted.commands[at].payload_crc, index);
                        self.invariants[group].effect(server, key, index, &answer)?;
                    }
                    answers.push(answer);
                }
                _ if index > *held => state.applied = index,
                _ => continue,
            }
            self.comparing[group].judge_state(&mut self.invariants[group], server, index, state.digest(), false)?;
        }
        let applied = answers.len();
        sessions.settle(&mut admitted, steps, applied, |at| &answers[at]);
        self.coverage.sessions_expired += sessions.ended().0 - ended.0;
        self.coverage.sessions_evicted += sessions.ended().1 - ended.1;
        // A host that held its state does not know what it answered.
        let (decisions, replies) = sessions.digests();
        let replies = Some(replies).filter(|_| !self.profile.durable_host);
        self.invariants[group].sessions(server, *reached, decisions, replies, false)?;
        Ok(((0..count).map(|position| admitted.fate(position)).collect(), answers))
    }

    fn restore(
        &mut self,
        server: usize,
        group: usize,
        file: &FileName,
        meta: &SnapshotMeta,
        with_host: bool,
    ) -> Checked {
        let index = meta.position.index;
        let failed =
            |why: String| Err(Violation::new("a snapshot handed over is whole", format!("server {server}: {why}")));
        let mut files = VisibleFiles(&self.servers[server].disk);
        let mut reader = SnapshotReader::new(group_id(group));
        let (mut offset, mut bytes, mut sessions) = (0, Vec::new(), SessionsReader::default());
        loop {
            let piece = match files.read(file, offset, 40_000) {
                Ok(piece) => piece,
                Err(error) => return failed(error.to_string()),
            };
            if piece.is_empty() {
                break;
            }
            offset += piece.len() as u64;
            let blocks = match reader.push(piece) {
                Ok(blocks) => blocks,
                Err(error) => return failed(error.to_string()),
            };
            for (section, block) in blocks {
                match section {
                    SnapshotSection::Host => bytes.extend_from_slice(&block),
                    SnapshotSection::Sessions => {
                        if let Err(error) = sessions.push(&block) {
                            return failed(error.to_string());
                        }
                    }
                }
            }
        }
        if let Err(error) = reader.finish() {
            return failed(error.to_string());
        }
        let Some(state) = State::from_bytes(&bytes).filter(|state| state.applied == index) else {
            return failed(format!("its bytes are not those of a state at {index}"));
        };
        let mut sessions = match sessions.finish() {
            Ok(sessions) => sessions,
            Err(error) => return failed(error.to_string()),
        };
        // The host's own state is further, and stays.
        let held_wrong = self.comparing[group].is_wrong(server);
        self.comparing[group].judge_state(&mut self.invariants[group], server, index, state.digest(), true)?;
        if !with_host {
            self.comparing[group].set_wrong(server, held_wrong);
        }
        let (decisions, replies) = sessions.digests();
        let replies = Some(replies).filter(|_| !self.profile.durable_host);
        self.invariants[group].sessions(server, index, decisions, replies, true)?;
        self.coverage.sessions_restored += sessions.len() as u64;
        let this = &mut self.servers[server];
        let Some(process) = &mut this.process else { return Ok(()) };
        let host = &mut process.hosts[group];
        (host.sessions, host.reached) = (sessions, index);
        if with_host {
            if host.state.applied == 0 {
                self.coverage.snapshots_restored_at_start += 1;
            } else {
                self.coverage.snapshots_installed += 1;
            }
            host.state = state;
            if self.profile.durable_host {
                this.saved[group] = host.state.clone();
                self.comparing[group].saved(server);
            }
        }
        self.note(server, Kind::Restored, [group as u64 + 1, index]);
        self.answer_reads(server, group)?;
        self.feed(server, Event::Restored { group: group_id(group), index })
    }

    /// Answers the reads whose index is applied.
    pub(super) fn answer_reads(&mut self, server: usize, group: usize) -> Checked {
        let Some(process) = &mut self.servers[server].process else { return Ok(()) };
        let host = &mut process.hosts[group];
        let applied = host.state.applied;
        let ready: Vec<Ticket> =
            host.reads.extract_if(.., |(index, _)| *index <= applied).map(|(_, ticket)| ticket).collect();
        for ticket in ready {
            let operations = &mut self.operations[group];
            if let Some(key) = operations.key_of(ticket.tag) {
                let host = &self.servers[server].process.as_ref().expect("it answers").hosts[group];
                operations.saw(ticket.tag, host.state.value(key), applied);
            }
            self.end_request(server, group_id(group), ticket, Ended::Applied(applied))?;
        }
        Ok(())
    }
}

/// The key of a command of a session.
fn session_key(entry: &Entry) -> Option<SessionKey> {
    (entry.kind == EntryKind::SessionCommand).then(|| SessionKey::read(&entry.payload)).flatten()
}
