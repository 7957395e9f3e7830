//! Keeping the log within its bounds: which groups are snapshotted when, and what frees the oldest segment.
//!
//! A group is snapshotted when its own log has grown long. When the log as a whole is longer than it may be, there are two
//! ways. Where half of it is dead, what is left in the oldest segment is dealt with group by group: who has little there
//! is copied to the end, so that an idle group neither pins the log nor is snapshotted again and again, and the others
//! are snapshotted. Where more than half of it lives, copying would free little for much: those who have most of it are
//! snapshotted first. So copies at most double what is written, and the log is at most twice as long as what lives in it
//! or as it may be.

use std::collections::VecDeque;
use std::time::Duration;

use super::Driver;
use super::group::Group;
use crate::types::{GroupId, Index, Time};

/// So many groups are copied at once at most: each is a few reads and some records.
const MOST_MOVING: usize = 32;

/// So many snapshots are under way at most that were begun to shorten the log.
const MOST_TAKING: usize = 4;

/// Where nothing could be done, it is looked up again after this long what keeps the log long.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// One thing to be done for a shorter log.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Copies what a group has in the oldest segment to the end.
    Move(GroupId),
    /// Snapshots a group; where that cannot be and `or_move`, copies.
    Snapshot { group: GroupId, or_move: bool },
}

/// What is being done for a shorter log.
#[derive(Debug, Default)]
pub(super) struct Reclaim {
    /// The segment that was the oldest when `steps` were chosen.
    oldest: Option<u32>,
    steps: VecDeque<Step>,
    /// One of them has begun something.
    has_begun: bool,
    look_again_at: Time,
    /// Snapshots that were begun for it, and may be over.
    taking: Vec<GroupId>,
}

impl Driver {
    /// Snapshots those of these groups whose log has grown long, and shortens the whole log where that is too long.
    pub(super) fn take_due_snapshots(&mut self, now: Time, touched: &[GroupId]) {
        for &id in touched {
            let last_bytes = self.groups.get(&id).map_or(0, |group| group.snapshots.last_bytes);
            if self.storage.group_log_bytes(id) > self.settings.snapshot_log_bytes.max(4 * last_bytes) {
                self.take_snapshot(now, id);
            }
        }
        if self.storage.log_bytes() > self.settings.log_bytes {
            self.shorten_log(now);
        }
    }

    fn shorten_log(&mut self, now: Time) {
        let Some(oldest) = self.storage.oldest_kept() else { return };
        if self.reclaim.oldest != Some(oldest) || (self.is_reclaim_over() && now >= self.reclaim.look_again_at) {
            self.reclaim.oldest = Some(oldest);
            self.reclaim.has_begun = false;
            let is_half_dead = 2 * self.storage.live_bytes() <= self.storage.log_bytes();
            self.reclaim.steps = if is_half_dead { self.steps_of_oldest() } else { self.steps_of_longest() };
        }
        while let Some(step) = self.reclaim.steps.pop_front() {
            if !self.take_step(now, step) {
                // Too many are under way.
                return self.reclaim.steps.push_front(step);
            }
        }
        if !self.reclaim.has_begun && now >= self.reclaim.look_again_at {
            self.reclaim.look_again_at = now + LOOK_AGAIN_AFTER;
        }
    }

    /// Whether every step is through, and what it began has ended.
    fn is_reclaim_over(&mut self) -> bool {
        let is_taken = |id: &GroupId| self.groups.get(id).is_some_and(|group| group.snapshots.is_under_way());
        self.reclaim.taking.retain(is_taken);
        self.reclaim.steps.is_empty() && self.reclaim.taking.is_empty() && self.storage.moving_groups() == 0
    }

    /// What frees the oldest segment.
    fn steps_of_oldest(&self) -> VecDeque<Step> {
        let is_small = |bytes: u64| bytes <= self.settings.segment_bytes / 8;
        let step = |pinned: crate::storage::Pinned| match is_small(pinned.bytes) {
            true => Step::Move(pinned.group),
            false => Step::Snapshot { group: pinned.group, or_move: true },
        };
        self.storage.pinning_oldest().into_iter().map(step).collect()
    }

    /// What lets a good part of the log die: snapshots of those whose log is the longest, or half as long at least. Not of
    /// whose log is short against its last snapshot: that would write much to free little.
    fn steps_of_longest(&self) -> VecDeque<Step> {
        let most_state_bytes = self.settings.log_bytes / 8;
        let can = self.groups.values().filter(|group| self.has_news_for_a_snapshot(group));
        let lengths = can.map(|group| (group, self.storage.group_log_bytes(group.id)));
        let lengths = lengths.filter(|(group, bytes)| *bytes >= group.snapshots.last_bytes.min(most_state_bytes));
        let lengths: Vec<_> = lengths.map(|(group, bytes)| (group.id, bytes)).collect();
        let longest = lengths.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
        let long = lengths.into_iter().filter(|(_, bytes)| 2 * bytes >= longest);
        long.map(|(group, _)| Step::Snapshot { group, or_move: false }).collect()
    }

    fn has_news_for_a_snapshot(&self, group: &Group) -> bool {
        let stored: Index = self.storage.snapshot(group.id).map_or(0, |(meta, _)| meta.position.index);
        let has_failed = group.snapshots.retry_at.is_some();
        !has_failed && group.formed().is_some_and(|formed| formed.raft.delivered_index() > stored)
    }

    /// False where it must wait for others.
    fn take_step(&mut self, now: Time, step: Step) -> bool {
        let is_taken = |id: &GroupId| self.groups.get(id).is_some_and(|group| group.snapshots.is_under_way());
        match step {
            Step::Move(_) if self.storage.moving_groups() >= MOST_MOVING => return false,
            Step::Move(group) => self.move_out(group),
            Step::Snapshot { group, .. } if is_taken(&group) => {}
            Step::Snapshot { group, or_move } => {
                self.reclaim.taking.retain(is_taken);
                if self.reclaim.taking.len() >= MOST_TAKING {
                    return false;
                }
                if self.take_snapshot(now, group) {
                    self.reclaim.has_begun = true;
                    self.reclaim.taking.push(group);
                } else if or_move {
                    // It is stopped, or not started, or its host cannot: what it holds there still goes.
                    self.move_out(group);
                }
            }
        }
        true
    }

    fn move_out(&mut self, group: GroupId) {
        self.rare.relocations += 1;
        self.storage.relocate(group);
        self.reclaim.has_begun = true;
    }
}
