//! What a driver shows and says, held against the record and against the synced bytes of its disk.

use std::sync::Arc;

use super::super::attacks::Moment;
use super::super::disk::SyncedFiles;
use super::super::history::{Ended, Request};
use super::super::invariants::{EntryId, Seen, View, Violation};
use super::super::trace::Kind;
use super::{Checked, World, group_id, server_id};
use crate::driver::{Driver, Event, Role, StartHow, Ticket};
use crate::types::{AppendOutcome, Configuration, FIRST_INDEX, Index, Message, Time};

/// What a driver shows of a group.
pub(super) fn view_of(driver: &Driver, group: usize) -> Option<View> {
    let observed = driver.observe(group_id(group))?;
    Some(View {
        role: observed.role,
        term: observed.term,
        vote: observed.vote,
        commit: observed.commit,
        delivered: observed.delivered,
        applied: observed.applied,
        last: observed.last,
        durable: observed.durable,
        base: observed.base,
        truncations: observed.truncations,
        uncommitted_bytes: observed.uncommitted_bytes,
        cached_bytes: observed.cached_bytes,
    })
}

/// What a leader has just come to of a change of members.
fn moment_of(
    view: &View,
    before: Option<&View>,
    configurations: &[(Index, Arc<Configuration>)],
    is_configured: bool,
) -> Option<Moment> {
    let committed_before = before.filter(|_| view.role == Role::Leader)?.commit;
    // A joint configuration and the one that ends it may be committed and appended in one step.
    let newly_committed =
        |(index, _): &&(Index, Arc<Configuration>)| committed_before < *index && *index <= view.commit;
    let committed = configurations.iter().find(newly_committed);
    let is_committed = committed.is_some();
    let (_, configuration) = committed.or(configurations.last())?;
    let is_news = is_configured && before.is_some_and(|before| before.role == Role::Leader);
    Some(match (is_committed, configuration.is_joint(), configuration.change.is_some()) {
        (true, true, _) => Moment::JointCommitted,
        (true, false, true) => Moment::BegunCommitted,
        (true, false, false) => Moment::TargetCommitted,
        (false, ..) if !is_news => return None,
        (false, true, _) => Moment::Joint,
        (false, false, true) => Moment::ChangeBegun,
        (false, false, false) => Moment::Target,
    })
}

impl World {
    /// Checks all groups of a server after a turn.
    pub(super) fn judge(&mut self, server: usize, was_ready: bool) -> Checked {
        for group in 0..self.profile.groups {
            let Some(process) = &self.servers[server].process else { return Ok(()) };
            if !process.started[group] {
                continue;
            }
            let Some(view) = view_of(&process.driver, group) else { continue };
            let is_newly_ready = process.is_ready && !was_ready;
            let before = self.invariants[group].view(server);
            let driver = &process.driver;
            let entry = |index| driver.observe_entry(group_id(group), index);
            let configurations = driver.observe_configurations(group_id(group));
            let mut changed =
                self.invariants[group].observe(server, &view, configurations, &entry, &mut self.history)?;
            let moment = moment_of(&view, before.as_ref(), configurations, changed.configured);
            let is_joint = configurations.last().is_some_and(|(_, configuration)| configuration.is_joint());
            let is_writing_a_snapshot = process.hosts[group].source.is_some();
            let is_restoring = process.hosts[group].is_restoring();
            let is_bound = before.is_none() && driver.observe_promise(group_id(group), process.clock(self.queue.now()));
            let was_unseen = before.is_none() && process.is_ready;
            if is_newly_ready || was_unseen {
                changed.formed |= self.invariants[group].ready(server)?;
            }
            self.coverage.elections_won += u64::from(changed.elected);
            self.coverage.truncations += u64::from(changed.truncated);
            self.coverage.changes_joint += changed.joint;
            self.coverage.changes_undone += u64::from(changed.undone);
            self.coverage.joint_changes_undone += u64::from(changed.joint_undone);
            self.coverage.elections_in_joint += u64::from(changed.elected && is_joint);
            self.coverage.truncations_while_a_snapshot_is_written +=
                u64::from(changed.truncated && is_writing_a_snapshot);
            self.coverage.truncations_while_restoring += u64::from(changed.truncated && is_restoring);
            self.coverage.starts_bound_by_a_promise += u64::from(is_bound);
            if changed.truncated {
                self.moment(server, group, Moment::Truncated);
            }
            if let Some(moment) = moment {
                self.moment(server, group, moment);
            }
            self.coverage.entries_committed += changed.committed;
            if changed.elected {
                self.leaders[group] = Some(server);
            }
            if changed.formed {
                self.formed(server, group);
            }
            let is_progress = before.is_none_or(|before| {
                (before.commit, before.durable, before.last) != (view.commit, view.durable, view.last)
            });
            if is_progress {
                let numbers = [group as u64 + 1, view.commit, view.durable, view.last.index, view.last.term];
                self.note(server, Kind::Progress, numbers);
            }
        }
        let Some(process) = &mut self.servers[server].process else { return Ok(()) };
        let suspicions = process.driver.observe_suspicions();
        self.coverage.suspicions += suspicions - std::mem::replace(&mut process.suspicions, suspicions);
        let forwards = process.driver.observe_forwards();
        let before = std::mem::replace(&mut process.forwards, forwards);
        self.coverage.forwards_refused += forwards.refused - before.refused;
        self.coverage.forwards_broken += forwards.broken - before.broken;
        self.coverage.forwards_late += forwards.late - before.late;
        self.coverage.forwarded_reads += forwards.reads - before.reads;
        let rare = process.driver.observe_rare();
        let before = std::mem::replace(&mut process.rare, rare);
        self.coverage.torn_tails += rare.torn_tails - before.torn_tails;
        self.coverage.relocations += rare.relocations - before.relocations;
        self.coverage.snapshots_resumed += rare.snapshots_resumed - before.snapshots_resumed;
        self.coverage.snapshots_resumed_after_restart +=
            rare.snapshots_resumed_after_restart - before.snapshots_resumed_after_restart;
        self.coverage.snapshots_unwanted += rare.snapshots_unwanted - before.snapshots_unwanted;
        self.coverage.snapshots_overtaken += rare.snapshots_overtaken - before.snapshots_overtaken;
        let (longest, all) = process.driver.observe_queues();
        let limit = self.profile.settings.connection_bytes + (256 << 10);
        if longest > limit || all > limit * 4 * self.profile.servers {
            let what = format!("server {server} has {longest} bytes queued for one connection, {all} for all");
            return Err(Violation::new("queues stay in their budgets", what));
        }
        Ok(())
    }

    /// Entry 1 is on a majority's disks: whoever it does not name is out for good.
    fn formed(&mut self, server: usize, group: usize) {
        self.coverage.seeds_formed += u64::from(group == 0);
        let status = self.servers[server].process.as_ref().and_then(|it| it.driver.group_status(group_id(group)));
        let Some(configuration) = status.and_then(|status| status.configuration) else { return };
        for other in 0..self.profile.servers {
            let identity = self.servers[other].identity;
            let named = configuration.member(server_id(other)).map(|member| member.identity);
            if named.is_some() && named != identity {
                self.invariants[group].not_named(other);
            }
        }
    }

    /// Checks a message before it leaves: the votes and terms in it must be on the sender's disk.
    pub(super) fn judge_message(&mut self, server: usize, to: usize, group: usize, message: &Message) -> Checked {
        self.trace_message(server, to, group, message);
        let (mut is_vote, mut through) = (None, None);
        match *message {
            Message::Vote { term, .. } => {
                self.invariants[group].votes(server, term, server)?;
                is_vote = Some((term, server));
            }
            Message::VoteReply { term, granted: true } => {
                self.invariants[group].votes(server, term, to)?;
                is_vote = Some((term, to));
            }
            Message::AppendReply { term, outcome, .. } => {
                self.invariants[group].speaks(server, term)?;
                if let AppendOutcome::Matched { through: index } = outcome {
                    through = Some(index).filter(|_| self.rng.u8(..32) == 0);
                }
            }
            Message::Append { term, .. } | Message::Heartbeat { term, .. } | Message::HeartbeatReply { term, .. } => {
                self.invariants[group].speaks(server, term)?;
            }
            Message::TimeoutNow { term } => {
                self.invariants[group].speaks(server, term)?;
                self.count_hand_over(server, group);
                self.moment(server, group, Moment::HandingOver);
            }
            Message::PreVote { .. }
            | Message::PreVoteReply { .. }
            | Message::VoteReply { granted: false, .. }
            | Message::Removed { .. } => {}
        }
        let term = message.term().unwrap_or(0);
        if is_vote.is_none() && through.is_none() && term <= self.servers[server].synced_terms[group] {
            return Ok(());
        }
        self.check_synced(server, group, term, is_vote, through)
    }

    /// Counts who begins a hand-over that no operator asked for.
    fn count_hand_over(&mut self, server: usize, group: usize) {
        let process = self.servers[server].process.as_ref();
        let status = process.and_then(|process| process.driver.group_status(group_id(group)));
        let Some(configuration) = status.as_ref().and_then(|status| status.configuration.as_ref()) else { return };
        match configuration.member(server_id(server)) {
            Some(member) if configuration.is_voter(member.id) => {
                self.coverage.hand_overs_of_priority_0 += u64::from(member.priority == 0);
            }
            _ => self.coverage.hand_overs_of_leavers += 1,
        }
    }

    /// Opens what is synced, and nothing else, as a server would after a power cut now.
    fn check_synced(
        &mut self,
        server: usize,
        group: usize,
        term: u64,
        vote: Option<(u64, usize)>,
        through: Option<Index>,
    ) -> Checked {
        let rule = "votes, terms and acknowledgements stand on synced bytes (Figure 2)";
        let broken = |what: String| Err(Violation::new(rule, format!("server {server}: {what}")));
        let mut files = SyncedFiles(&self.servers[server].disk);
        let settings = self.profile.settings.clone();
        let mut driver = match Driver::open(settings, Self::me(server), &mut files, [7; 32], Time(0)) {
            Ok(driver) => driver,
            Err(error) => return broken(format!("its synced bytes do not open: {error}")),
        };
        driver.handle(Time(0), Event::StartGroup { group: group_id(group), how: StartHow::Restart, applied: 0 });
        let Some(view) = view_of(&driver, group) else {
            return broken(format!("it names term {term}, and its synced bytes know no such group"));
        };
        if view.term < term {
            return broken(format!("it names term {term}, and its synced bytes have {}", view.term));
        }
        self.servers[server].synced_terms[group] = view.term;
        self.coverage.votes_checked += 1;
        if let Some((term, candidate)) = vote
            && view.term == term
            && view.vote != Some(server_id(candidate))
        {
            return broken(format!(
                "it votes for {candidate} in term {term}, and its synced bytes have {:?}",
                view.vote
            ));
        }
        let Some(through) = through else { return Ok(()) };
        self.coverage.acknowledgements_checked += 1;
        for index in [through, 1 + self.rng.u64(..through.max(1))] {
            if index <= view.base.index || index <= FIRST_INDEX {
                continue;
            }
            let synced = driver.observe_entry(group_id(group), index);
            let present = self.invariants[group].entry(server, index);
            let is_other = |synced: Seen, present: EntryId| {
                let payload = (present.kind, present.payload_crc);
                synced.0 != present.term || synced.1.is_some_and(|synced| synced != payload)
            };
            if synced.is_none_or(|synced| present.is_some_and(|present| is_other(synced, present))) {
                return broken(format!(
                    "it acknowledges {through}, has {present:?} at {index}, and its synced bytes have {synced:?}"
                ));
            }
        }
        Ok(())
    }

    fn trace_message(&mut self, server: usize, to: usize, group: usize, message: &Message) {
        let (to, group) = (to as u64 + 1, group as u64 + 1);
        match *message {
            Message::PreVote { campaign_term, last } => {
                self.note(server, Kind::PreVote, [to, group, campaign_term, last.index, last.term]);
            }
            Message::PreVoteReply { term, campaign_term, granted } => {
                self.note(server, Kind::PreVoteReply, [to, group, term, campaign_term, u64::from(granted)]);
            }
            Message::Vote { term, last, is_transfer } => {
                let numbers = [to, group, term, last.index, last.term, u64::from(is_transfer)];
                self.note(server, Kind::Vote, numbers);
            }
            Message::VoteReply { term, granted } => {
                self.note(server, Kind::VoteReply, [to, group, term, u64::from(granted)]);
            }
            Message::Append { term, number, previous, commit, ref entries } => {
                self.note(server, Kind::Append, [to, group, term, number, previous.index]);
                let last_term = entries.last().map_or(0, |entry| entry.term);
                self.note(server, Kind::AppendMore, [previous.term, commit, entries.len() as u64, last_term]);
            }
            Message::AppendReply { term, number, outcome: AppendOutcome::Matched { through } } => {
                self.note(server, Kind::Matched, [to, group, term, number, through]);
            }
            Message::AppendReply { term, number, outcome: AppendOutcome::Conflict { previous, hint, last } } => {
                self.note(server, Kind::Conflict, [to, group, term, number, previous]);
                self.note(server, Kind::ConflictMore, [hint.index, hint.term, last]);
            }
            Message::Heartbeat { term, round, commit } => {
                self.note(server, Kind::Heartbeat, [to, group, term, round, commit]);
            }
            Message::HeartbeatReply { term, round, promise } => {
                let promise = promise.as_micros() as u64;
                self.note(server, Kind::HeartbeatReply, [to, group, term, round, promise]);
            }
            Message::TimeoutNow { term } => self.note(server, Kind::TimeoutNow, [to, group, term]),
            Message::Removed { index } => self.note(server, Kind::Removed, [to, group, index]),
        }
    }

    /// Counts how a request ended.
    pub(super) fn count_outcome(&mut self, ticket: Ticket, ended: Ended) {
        let Some(request) = self.history.request(ticket.tag) else { return };
        let coverage = &mut self.coverage;
        let is_applied = matches!(ended, Ended::Applied(_));
        coverage.forwards_applied += u64::from(ticket.origin == super::clients::FORWARDED && is_applied);
        let count = match (request, ended) {
            (Request::Propose { .. }, Ended::Applied(_)) => &mut coverage.proposals_applied,
            (Request::Propose { .. }, Ended::NotApplied) => &mut coverage.proposals_not_applied,
            (Request::Propose { .. }, Ended::Unknown) => &mut coverage.proposals_unknown,
            (Request::ReadLinearizable { .. }, Ended::Applied(_)) => &mut coverage.reads_linearizable,
            (Request::ReadAtLeast { .. }, Ended::Applied(_)) => &mut coverage.reads_at_least,
            (Request::ReadByLease { .. }, Ended::Applied(_)) => &mut coverage.reads_by_lease,
            (Request::ReadLinearizable { .. } | Request::ReadByLease { .. } | Request::ReadAtLeast { .. }, _) => {
                &mut coverage.reads_refused
            }
            (Request::Snapshot, Ended::Applied(_)) => &mut coverage.snapshots_taken,
            (Request::Session | Request::Snapshot, _) => return,
            (Request::Change, Ended::Applied(_)) => &mut coverage.changes_done,
            (Request::Change, Ended::NotApplied) => &mut coverage.changes_not_done,
            (Request::Change, Ended::Unknown) => &mut coverage.changes_unknown,
            // Counted by what they came to.
            (Request::CheckDigests, Ended::Applied(_)) => return,
            (Request::CheckDigests, _) => &mut coverage.digests_unfinished,
            (Request::Transfer, Ended::Applied(_)) => &mut coverage.transfers_done,
            (Request::Transfer, _) => &mut coverage.transfers_not_done,
        };
        *count += 1;
    }
}
